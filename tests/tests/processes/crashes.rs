//! `kill -9`, under load.

use quorate_tests::cluster::{Cluster, Load, eventually, send};
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
        cluster.wait_begun().await;
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

/// A13: catches an acceptor that was down when the leader asked for promises, is never asked
/// again, and so does not vote for as long as this one leads: the death of one more node, while
/// two of three live, would stop the cluster.
#[tokio::test]
async fn a_node_that_comes_late_to_a_ballot_votes_in_it() {
    for learn_from in ["protocol.learn_from=leader", "protocol.learn_from=voters"] {
        let mut cluster = Cluster::start("late", 3, &[learn_from]).await;
        let first = cluster.leader().await;
        cluster.kill9(first);
        let second = cluster.leader().await;
        let third = cluster.follower().await;
        cluster.boot(first);
        cluster.wait_ready().await;
        cluster.kill9(third);
        for node in [first, second] {
            let reply = cluster.call(node, "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert_eq!(cluster.get(node, "/v1/state/inventory%2Fgoods%2FA").await.status, 200);
        }
        cluster.boot(third);
        cluster.wait_ready().await;
        assert_eq!(cluster.assert_agreement().await.last(), 2);
    }
}

/// A11: catches a postponed function that is forgotten when its leader dies or stops: the caller
/// waits at a living node, whose gateway sends the call to the next leader.
#[tokio::test]
async fn a_waiting_call_outlives_its_leader() {
    let mut cluster = Cluster::start("waiting", 3, &[]).await;
    for round in 0..4 {
        let leader = cluster.leader().await;
        let follower = cluster.follower().await;
        let goods = json!({"warehouse": format!("A{round}"), "amount": 5});
        let url = cluster.url(follower, "/v1/functions/inventory.outbound");
        let waiting = tokio::spawn(send(cluster.client().post(url).header("Prefer", "wait=45").json(&goods)));
        eventually("a call that waits at the leader", async || {
            (cluster.metric(leader, "quorate_leader_kept_calls").await > 0.5).then_some(())
        })
        .await;
        if round % 2 == 0 {
            cluster.kill9(leader);
        } else {
            cluster.terminate(leader);
            assert_eq!(cluster.ended(leader).await.code(), Some(0));
        }
        let inbound = cluster.call(follower, "inventory.inbound", &goods).await;
        assert_eq!(inbound.status, 200, "{}", inbound.text());
        let reply = waiting.await.expect("no panic").expect("a living node answers");
        assert_eq!((reply.status, &reply.json()["result"]), (200, &json!({"stock": 0})), "{}", reply.text());
        cluster.boot(leader);
        cluster.wait_ready().await;
    }
    let history = cluster.assert_agreement().await;
    assert_eq!((history.last(), history.stock()), (8, 0));
}

/// A6, A11, A1c: catches a cluster of five that does not survive the loss of any two at once,
/// the leader among them.
#[tokio::test]
async fn two_of_five_killed_at_once() {
    let mut cluster = Cluster::start("five", 5, &[]).await;
    let load = Load::start(&cluster, "load", 5).await;
    for _ in 0..4 {
        let killed = [cluster.leader().await, cluster.follower().await];
        for node in killed {
            cluster.kill9(node);
        }
        load.progress(CALLS).await;
        cluster.boot_all();
        cluster.wait_begun().await;
    }
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// A6, S-14: catches a recovery that cannot itself be interrupted: one node is killed again and
/// again, as soon as its process has opened its data.
#[tokio::test]
async fn a_node_killed_while_it_recovers() {
    let mut cluster = Cluster::start("again", 3, &[]).await;
    let load = Load::start(&cluster, "load", 5).await;
    let node = cluster.follower().await;
    for _ in 0..15 {
        cluster.kill9(node);
        let lives = cluster.log(node).matches("the learner begins").count();
        cluster.boot(node);
        eventually("its data to be open", async || {
            (cluster.log(node).matches("the learner begins").count() > lives).then_some(())
        })
        .await;
    }
    cluster.wait_ready().await;
    load.progress(CALLS).await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}
