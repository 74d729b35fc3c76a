//! What nobody should send to the port for nodes: the cluster goes on, and the log says in one
//! line what it was.

use quorate_tests::cluster::{Cluster, DEADLINE, Damage, Load, Taps};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn serves(cluster: &Cluster) {
    for node in cluster.living() {
        let reply = cluster.call(node, "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

/// Catches strangers on the peer port that stop a node, are not told off, or fill the log.
#[tokio::test]
async fn strangers_on_the_peer_port() {
    let cluster = Cluster::start("strangers", 3, &[]).await;
    let said = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(cluster.peer_address(0)).await.expect("it listens");
        stream.write_all(bytes).await.expect("it is read");
        let mut answer = Vec::new();
        let end = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        let _ = end.expect("a stranger's connection is ended");
        String::from_utf8_lossy(&answer).into_owned()
    };
    for _ in 0..20 {
        let answer = said(b"GET /v1/cluster HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("listen.http"), "{answer}");
        said(&[0xff; 4096]).await;
        said(b"\x00\x00\x00\x04aaaabbbb").await;
        said(&[0; 64]).await;
    }
    cluster.logged(0, &["WARN", "not a Quorate node"]).await;
    cluster.logged(0, &["WARN", "an HTTP request came to the port for nodes"]).await;
    let lines = cluster.log(0).lines().filter(|line| line.contains("refused a connection")).count();
    assert!(lines <= 20, "80 strangers gave {lines} lines");
    serves(&cluster).await;
    cluster.assert_agreement().await;
}

/// Catches a node of another cluster that is let in, or whose operator is not told why it is not.
#[tokio::test]
async fn a_node_of_another_cluster() {
    let cluster = Cluster::start("ours", 3, &[]).await;
    let mut other = Cluster::new("theirs", 3, &[]);
    for to in 1..3 {
        other.redirect(0, to, cluster.peer_address(to));
    }
    other.boot(0);
    for node in 1..3 {
        cluster.logged(node, &["WARN", "\"theirs\"", "\"ours\"", "cluster.members"]).await;
    }
    other.logged(0, &["WARN", "cannot connect", "theirs", "ours"]).await;
    assert_eq!(other.get(0, "/readyz").await.status, 503, "it cannot lead with nodes of another cluster");
    serves(&cluster).await;
    assert_eq!(other.get(0, "/v1/cluster").await.json()["leader"], json!(null));
    assert_eq!(cluster.assert_agreement().await.last(), 3);
}

/// Catches nodes that learn in different ways and do not say so: they would fall behind each other
/// in silence. And a change of the way, node after node, that the cluster does not survive.
#[tokio::test]
async fn nodes_that_learn_in_different_ways() {
    let mut cluster = Cluster::start("ways", 3, &[]).await;
    cluster.kill9(2);
    let one = json!({"warehouse": "A", "amount": 1});
    assert_eq!(cluster.call(0, "inventory.inbound", &one).await.status, 200);
    cluster.set("protocol.learn_from=voters");
    cluster.set("protocol.window=16");
    cluster.boot(2);
    for node in [0, 1] {
        cluster.logged(node, &["WARN", "refused a connection", "\"voters\"", "\"leader\"", "learn_from"]).await;
    }
    cluster.logged(2, &["WARN", "cannot connect", "voters", "leader", "learn_from", "same value"]).await;
    assert_eq!(cluster.get(2, "/readyz").await.status, 503, "no leader that it could learn from");
    assert_eq!(cluster.call(1, "inventory.inbound", &one).await.status, 200);
    for node in [0, 1] {
        cluster.kill9(node);
        cluster.boot(node);
    }
    cluster.wait_ready().await;
    serves(&cluster).await;
    assert_eq!(cluster.assert_agreement().await.last(), 5);
}

/// Catches nodes of different windows that part, or whose operator is not told.
#[tokio::test]
async fn nodes_of_different_windows() {
    let mut cluster = Cluster::new("windows", 3, &[]);
    cluster.boot(0);
    cluster.boot(1);
    cluster.set("protocol.window=16");
    cluster.boot(2);
    cluster.wait_ready().await;
    cluster.logged(0, &["WARN", "protocol.window = 16", "1024"]).await;
    cluster.logged(2, &["WARN", "protocol.window = 1024", "16"]).await;
    serves(&cluster).await;
    cluster.assert_agreement().await;
}

/// A12: catches half a frame, or one with a flipped bit, that is taken for a message, or after
/// which the two nodes do not find each other again.
#[tokio::test]
async fn torn_and_damaged_frames() {
    let mut cluster = Cluster::new("torn", 3, &[]);
    let taps = Taps::between(&mut cluster).await;
    cluster.boot_all();
    cluster.wait_begun().await;
    let load = Load::start(&cluster, "load", 6).await;
    for damage in [Damage::Torn, Damage::Flipped, Damage::Torn] {
        for (.., tap) in taps.iter() {
            tap.damage(damage);
            load.progress(10).await;
        }
    }
    let ledger = load.finish().await;
    let damaged: Vec<usize> = taps.iter().filter(|(.., tap)| tap.is_done()).map(|(_, to, _)| to).collect();
    assert!(damaged.len() >= 4, "leader and followers talk in both directions: {damaged:?}");
    for node in damaged {
        cluster.logged(node, &["WARN", "closed a connection", "checksum"]).await;
    }
    ledger.assert_kept(&cluster.assert_agreement().await);
}
