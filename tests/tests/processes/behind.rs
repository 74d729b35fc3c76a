//! A node that missed very much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_tests::cluster::{Cluster, eventually, send};
use serde_json::json;

/// Issue: a node that was away while so many commands were issued.
const MISSED: u64 = 100_000;
/// The largest batch.
const BATCH: usize = 1_000;

/// A4, A14: catches a node that was away and never catches up while calls go on: one that asks for too little at a time, or
/// applies more slowly than the others decide.
#[tokio::test]
async fn a_node_that_missed_very_many_commands_catches_up_under_load() {
    let mut cluster = Cluster::start("behind", 3, &[]).await;
    let away = cluster.follower().await;
    let here = cluster.leader().await;
    cluster.kill9(away);
    let (stop, issued) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (url, http) = (cluster.url(here, "/v1/calls"), cluster.client().clone());
            let (stop, issued) = (Arc::clone(&stop), Arc::clone(&issued));
            tokio::spawn(async move {
                let call = json!({"function": "kv.put", "arguments": {"key": format!("k{client}"), "value": 1}});
                let batch = json!(vec![call; BATCH]);
                while !stop.load(Ordering::SeqCst) {
                    let reply = send(http.post(&url).json(&batch)).await.expect("this node lives");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    match reply.command() {
                        Some(command) => _ = issued.fetch_max(command, Ordering::SeqCst),
                        // On a slow machine the leader may turn away a whole batch.
                        None => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            })
        })
        .collect();
    eventually("missed commands", async || (issued.load(Ordering::SeqCst) >= MISSED).then_some(())).await;
    cluster.boot(away);
    // Ready is who has applied all but a window of the newest command heard of, while more are issued.
    cluster.wait_ready().await;
    assert!(clients.iter().all(|client| !client.is_finished()), "it caught up while calls went on");
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("every call was answered");
    }
    // The last commands are still being applied here or there: a state is compared when both have come to its number.
    let command = eventually("a state of both", async || {
        let ours = cluster.get(here, "/v1/digest").await.json();
        let theirs = cluster.get(away, &format!("/v1/digest?at={}", ours["command"])).await;
        if theirs.status != 200 {
            return None;
        }
        assert_eq!(theirs.json()["digest"], ours["digest"], "another state");
        ours["command"].as_u64()
    })
    .await;
    assert!(command > MISSED, "{command}");
    let served = cluster.metric(away, "quorate_snapshot_installed_total").await;
    assert!(served < 0.5, "the commands were all kept: no whole state was needed");
}
