//! Connections of callers: those that wait to be accepted, and those of which nobody takes a reply.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use quorate_tests::cluster::{Cluster, Gateway};
use quorate_tests::skip::skipped;
use serde_json::json;
use tokio::net::TcpStream;

/// Far more than the 128 that a socket lets wait when nobody says otherwise, within what one process may have open.
const WAITING: usize = 600;
/// The kernel lets a connection begin at once, or drops it, to be tried again after a second, two more, four more.
const AT_ONCE: Duration = Duration::from_secs(20);

async fn all_connect(address: SocketAddr) {
    let mut connected = Vec::new();
    let all = async {
        while connected.len() < WAITING {
            connected.push(TcpStream::connect(address).await.expect("it listens"));
        }
    };
    let in_time = tokio::time::timeout(AT_ONCE, all).await.is_ok();
    assert!(in_time, "only {} connections wait at {address}", connected.len());
}

/// Catches a node, or a gateway, whose socket lets 128 callers wait whatever is configured: a burst of callers, more than it
/// accepts in a moment, would wait for seconds.
#[tokio::test]
async fn a_burst_of_callers_waits_to_be_accepted() {
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    if limit.trim().parse().unwrap_or(0) < WAITING {
        return skipped("a kernel that lets 600 connections wait (net.core.somaxconn)");
    }
    let mut cluster = Cluster::start("waiting", 1, &[]).await;
    let gateway = Gateway::start(&cluster, &[0]).await;
    // Nobody accepts now.
    cluster.freeze(0);
    all_connect(cluster.http_address(0)).await;
    cluster.thaw(0);
    cluster.wait_ready().await;
    gateway.signal(Signal::SIGSTOP);
    all_connect(gateway.address()).await;
    gateway.signal(Signal::SIGCONT);
    gateway.ready().await;
}

/// More than the buffers of both ends of a connection hold: 4 and 6 MiB, as kernels come, and some of our own.
const LARGE: usize = 24;

/// RELIABILITY 6, row 10. Catches a caller who asks for much, takes none of it and keeps it in our memory for as long as he
/// likes, with TLS or without; and one who is cut off although he reads.
#[tokio::test]
async fn who_takes_nothing_of_a_reply_is_cut_off() {
    for certified in [false, true] {
        let mut cluster = Cluster::new("untaken", 1, &["limits.reader_wait=1s"]);
        if certified {
            cluster.certify();
        }
        cluster.boot_all();
        cluster.wait_begun().await;
        let value = "v".repeat((1 << 20) - 64);
        for key in 0..LARGE {
            let put = json!({"key": format!("k{key}"), "value": value});
            assert_eq!(cluster.call(0, "kv.put", &put).await.status, 200);
        }
        // A backup says what became of it. It waits for its reader for a minute; the connection must end long before.
        let untaken = cluster.client().get(cluster.url(0, "/v1/backup")).send().await.expect("a reply begins");
        cluster.logged(0, &["the backup was not sent whole", "has left"]).await;
        assert!(untaken.bytes().await.is_err(), "what was cut off looks whole");
        let taken = cluster.get(0, "/v1/backup").await;
        assert!(taken.status == 200 && taken.body.len() > LARGE << 20 >> 1, "{}", taken.body.len());
    }
}
