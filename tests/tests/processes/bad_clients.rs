//! Clients that would harm the others: slow, silent, greedy, endless. Each is cut off or refused, the others are served, and
//! memory stays bounded.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use quorate_tests::cluster::{Cluster, DEADLINE, Load};
use quorate_tests::skip::skipped;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Clients of each kind at a time.
const CLIENTS: usize = 20;
/// Between two bytes of a slow client: far less than any deadline.
const DRIP: Duration = Duration::from_millis(200);
/// What a client sends without an end: in all, and at a time.
const ENDLESS: usize = 1 << 30;
const CHUNK: usize = 64 << 10;

const LATER: &str = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\nGET /li";
const HEAD: &str = "POST /v1/functions/kv.put HTTP/1.1\r\nHost: a\r\n";

/// A client that goes on sending until it is cut off; what it was told.
async fn goes_on(address: SocketAddr, opening: String, piece: Vec<u8>, pause: Duration) -> (String, usize) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let _ = stream.write_all(opening.as_bytes()).await;
    let (mut read, mut write) = stream.into_split();
    let mut sent = 0;
    let send = async {
        while sent < ENDLESS && write.write_all(&piece).await.is_ok() {
            sent += piece.len().max(1);
            tokio::time::sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    let mut told = Vec::new();
    let end = tokio::time::timeout(DEADLINE, async {
        tokio::select! {
            // A reset is an end too.
            _ = read.read_to_end(&mut told) => {}
            () = send => {}
        }
    });
    let ended = end.await;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(ended.is_ok(), "it is not cut off, and was told {told:?}");
    (told, sent)
}

/// RELIABILITY 5, row 13; 6, rows 9 and 10. Catches a connection that is held for as long as its client likes, by silence, by
/// a head or a body that comes byte by byte, or without an end; a first or a later request alike. And calls of others that
/// suffer from it: each must be acknowledged, and take effect once.
#[tokio::test]
async fn slow_and_endless_requests_are_cut_off_while_others_are_served() {
    let cluster = Cluster::start("bad-clients", 3, &[]).await;
    let node = cluster.leader().await;
    let before = most_memory(cluster.pid(node));
    let load = Load::start(&cluster, "good", 4).await;
    let length = format!("{HEAD}Content-Length: 1000\r\n\r\n{{");
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &vec![b' '; CHUNK], b"\r\n"].concat();
    let kinds = [
        ("silent", String::new(), Vec::new(), DRIP, &["HTTP/1.1 408 "][..]),
        ("head", "GET /livez".to_owned(), b"x".to_vec(), DRIP, &["HTTP/1.1 408 "]),
        ("later head", LATER.to_owned(), b"x".to_vec(), DRIP, &["HTTP/1.1 200 "]),
        ("body", length, b" ".to_vec(), DRIP, &["HTTP/1.1 408 ", "slow_body"]),
        // It may be cut off while it sends, and then the reply is lost.
        ("endless body", chunked, chunk, Duration::ZERO, &[]),
    ];
    let mut clients = JoinSet::new();
    for (name, opening, piece, pause, expected) in kinds {
        for _ in 0..CLIENTS {
            let client = goes_on(cluster.http_address(node), opening.clone(), piece.clone(), pause);
            clients.spawn(async move {
                let (told, sent) = client.await;
                assert!(expected.iter().all(|text| told.contains(text)), "{name}: {told:?}");
                assert_eq!(told.contains(" 200 "), name == "later head", "{name}: {told:?}");
                assert!(sent < ENDLESS / 16, "{name}: {sent} bytes were taken");
            });
        }
    }
    load.progress(200).await;
    clients.join_all().await;
    load.progress(20).await;
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
    let growth = most_memory(cluster.pid(node)) - before;
    assert!(growth < ENDLESS / 4, "the node has grown by {growth} bytes");
}

/// Connections that somebody opens, uses once and keeps.
const IDLE: usize = 2_000;

/// RELIABILITY 5, row 13. Catches a node that serves nobody else while many keep idle connections, or pays much memory for each.
#[tokio::test]
async fn thousands_of_idle_connections_cost_others_nothing() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let files = u64::try_from(IDLE).expect("few") + 512;
    if hard < files {
        return skipped("a limit of open files above 2,512");
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(files), hard).expect("below the hard limit");
    let cluster = Cluster::start("idle-clients", 1, &[]).await;
    let before = most_memory(cluster.pid(0));
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(cluster.http_address(0)).await.expect("it listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
        idle.push(stream);
    }
    for stream in &mut idle {
        let mut start = [0; 15];
        tokio::time::timeout(DEADLINE, stream.read_exact(&mut start)).await.expect("in time").expect("a reply");
        assert_eq!(&start, b"HTTP/1.1 200 OK");
    }
    for amount in 1..=50 {
        let reply = cluster.call(0, "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
        assert_eq!((reply.status, &reply.json()["result"]["stock"]), (200, &json!(amount)), "{}", reply.text());
    }
    assert!(cluster.metric(0, "quorate_http_connections").await >= 2_000.0, "they were cut off");
    let growth = most_memory(cluster.pid(0)) - before;
    assert!(growth < IDLE * (48 << 10), "the node has grown by {growth} bytes");
}

/// Values of which one page holds some.
const LARGE: usize = 8;
/// Together they ask for far more than the room for replies, 64 MiB.
const READERS: usize = 160;

/// RELIABILITY 5, rows 12 and 13. Catches pages that nobody takes and that fill the memory; readers who are kept for ever, or
/// told nothing; and calls that suffer.
#[tokio::test]
async fn replies_that_nobody_takes_are_bounded() {
    let cluster = Cluster::start("readers", 1, &["limits.reader_wait=5s"]).await;
    let value = "v".repeat((1 << 20) - 64);
    for key in 0..LARGE {
        let put = json!({"key": format!("large/{key}"), "value": value});
        assert_eq!(cluster.call(0, "kv.put", &put).await.status, 200);
    }
    let before = most_memory(cluster.pid(0));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(asks_and_takes_nothing(cluster.http_address(0)));
    }
    for amount in 1..=50 {
        let reply = cluster.call(0, "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
        assert_eq!((reply.status, &reply.json()["result"]["stock"]), (200, &json!(amount)), "{}", reply.text());
    }
    let statuses = readers.join_all().await;
    let told = |status: u16| statuses.iter().filter(|told| **told == status).count();
    assert!(told(200) > 0 && told(200) + told(503) + told(429) == READERS, "{statuses:?}");
    let growth = most_memory(cluster.pid(0)) - before;
    assert!(growth < 256 << 20, "the node has grown by {growth} bytes; readers were told {statuses:?}");
    let page = cluster.get(0, "/v1/state?prefix=large/").await;
    assert_eq!(page.status, 200, "there is room again");
}

/// What a reader is told who asks for a page, and takes nothing of it until it is cut off.
async fn asks_and_takes_nothing(address: SocketAddr) -> u16 {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Else the kernels at both ends could hold all of it.
    socket.set_recv_buffer_size(4096).expect("an option that every system has");
    let mut stream = socket.connect(address).await.expect("it listens");
    let request = "GET /v1/state?prefix=large/&consistency=local HTTP/1.1\r\nHost: a\r\nPrefer: wait=60\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut status = [0; 12];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut status)).await.expect("in time").expect("a reply");
    let status = String::from_utf8_lossy(&status[9..]).parse().expect("a status");
    if status == 200 {
        // Who is cut off hears of it when it speaks.
        let cut_off = async {
            while stream.write_all(b"\r\n").await.is_ok() {
                tokio::time::sleep(DRIP).await
            }
        };
        tokio::time::timeout(DEADLINE, cut_off).await.expect("it is cut off");
    }
    status
}

/// The most memory that a process has had so far, in bytes.
fn most_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}
