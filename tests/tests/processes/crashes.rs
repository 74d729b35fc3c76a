//! `kill -9`, under load.

use quorate_tests::cluster::{Cluster, Load, send};
use serde_json::json;

/// Calls that must be acknowledged after each change, so that every round does something.
const CALLS: u64 = 15;

/// A6, A13, A1h, S-14: 20 times the leader and 20 times a follower is killed and comes back.
/// Catches an acknowledged call that is lost, a retried one that took effect twice, an error at
/// a node that lives (A11), a gap in the numbers (A1a), goods that vanish, replicas that differ.
#[tokio::test]
async fn twenty_rounds_of_killing_the_leader_and_a_follower() {
    let mut cluster = Cluster::start("rounds", 3, &[]).await;
    let load = Load::start(&cluster, "load", 6).await;
    for round in 0..20 {
        let leader = cluster.leader().await;
        cluster.kill9(leader);
        load.progress(CALLS).await;
        let next = cluster.leader().await;
        assert_ne!(next, leader, "round {round}");
        cluster.boot(leader);
        cluster.wait_ready().await;
        let follower = cluster.follower().await;
        cluster.kill9(follower);
        load.progress(CALLS).await;
        cluster.boot(follower);
        cluster.wait_ready().await;
    }
    let ledger = load.finish().await;
    assert!(ledger.calls() >= 40 * 15, "{} calls in 40 rounds", ledger.calls());
    ledger.assert_kept(&cluster.assert_agreement().await);
}

/// A6: catches anything that was acknowledged from memory: all nodes are killed at once, under
/// load, again and again. Callers whose answer did not come ask on with the same key.
#[tokio::test]
async fn all_nodes_killed_at_once() {
    let mut cluster = Cluster::start("all", 3, &[]).await;
    let load = Load::start(&cluster, "load", 6).await;
    for _ in 0..4 {
        load.progress(30).await;
        for node in 0..cluster.size() {
            cluster.kill9(node);
        }
        cluster.boot_all();
        cluster.wait_ready().await;
    }
    load.progress(30).await;
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}

/// A11, S-22: catches a caller of a living node who gets an error, or waits longer than the
/// default wait, because the leader is killed while the call is on its way.
#[tokio::test]
async fn callers_of_living_nodes_see_a_delay() {
    let mut cluster = Cluster::start("delay", 3, &[]).await;
    let mut calls = 0;
    for round in 0..5 {
        let leader = cluster.leader().await;
        let survivors: Vec<usize> = (0..cluster.size()).filter(|node| *node != leader).collect();
        let mut waiting = Vec::new();
        for call in 0..40 {
            let url = cluster.url(survivors[call % 2], "/v1/functions/inventory.inbound");
            // Half of them without a key: the gateway's own one must do.
            let mut request = cluster.client().post(url).json(&json!({"warehouse": "A", "amount": 1}));
            if call % 4 < 2 {
                request = request.header("Idempotency-Key", format!("{round}/{call}"));
            }
            waiting.push(tokio::spawn(send(request)));
            if call == 20 {
                cluster.kill9(leader);
            }
            tokio::task::yield_now().await;
        }
        for call in waiting {
            let reply = call.await.expect("no panic").expect("a living node answers");
            assert_eq!(reply.status, 200, "round {round}: {}", reply.text());
            calls += 1;
        }
        for node in survivors {
            let stock = cluster.get(node, "/v1/state/inventory%2Fgoods%2FA").await;
            assert_eq!((stock.status, stock.text()), (200, calls.to_string()), "each call has one effect");
        }
        cluster.boot(leader);
        cluster.wait_ready().await;
    }
    assert_eq!(cluster.assert_agreement().await.last(), calls);
}
