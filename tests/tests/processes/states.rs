//! Nodes that were away for longer than commands are kept.

use quorate_tests::cluster::{Cluster, eventually};
use serde_json::json;

/// A value of which some thirty take several pieces of a state.
fn value(number: u64) -> serde_json::Value {
    json!({"key": format!("document/{number}"), "value": format!("{number} {}", "x".repeat(100_000))})
}

/// A14, A4, S-18, DESIGN 7 and 8: catches a node that was away and cannot come back because the others have forgotten
/// the commands that it lacks; one whose state differs then, or has forgotten who called what; and votes or commands
/// that are kept for ever.
#[tokio::test]
async fn a_node_that_was_away_gets_the_state_of_another() {
    let mut cluster = Cluster::start("away", 3, &["history.commands=5"]).await;
    let away = cluster.follower().await;
    let here = (0..3).find(|node| *node != away).expect("three nodes");
    cluster.kill9(away);
    for number in 1..=30 {
        let reply = cluster.call_once(here, &format!("put-{number}"), "kv.put", &value(number)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    eventually("commands to be forgotten", async || {
        let kept_from = cluster.metric(here, "quorate_history_kept_from").await;
        (kept_from >= 26.0).then_some(())
    })
    .await;
    cluster.get(here, "/v1/commands?from=1").await.assert_problem(410, "history_truncated");

    cluster.boot(away);
    cluster.wait_ready().await;
    for number in 31..=40 {
        assert_eq!(cluster.call(here, "kv.put", &value(number)).await.status, 200);
    }
    let digest = cluster.get(here, "/v1/digest?at=40").await;
    assert_eq!(digest.status, 200, "{digest:?}");
    let theirs = cluster.get(away, "/v1/digest?at=40").await;
    assert_eq!(theirs.json()["digest"], digest.json()["digest"], "another state");
    assert!(cluster.metric(away, "quorate_snapshot_installed_total").await >= 1.0, "{}", cluster.log(away));
    cluster.get(away, "/v1/commands?from=1").await.assert_problem(410, "history_truncated");
    let again = cluster.call_once(away, "put-7", "kv.put", &value(7)).await;
    assert_eq!((again.status, again.command()), (200, Some(7)), "it was called before: {again:?}");

    // What came is durable, and is enough to lead with.
    for node in 0..3 {
        cluster.kill9(node);
    }
    for node in [here, away] {
        cluster.boot(node);
    }
    cluster.wait_ready().await;
    let reply = cluster.call(away, "kv.put", &value(41)).await;
    assert_eq!((reply.status, reply.command()), (200, Some(41)), "{reply:?}");
    eventually("votes to be forgotten", async || {
        let forgotten = cluster.metric(away, "quorate_votes_forgotten_through").await;
        (forgotten >= 40.0).then_some(())
    })
    .await;
    assert_votes_are_elsewhere(&cluster).await;
}

/// Invariant 11, by what each node says of its own state: catches votes that went although no majority has their commands,
/// whatever the node that forgot them thought of the others.
pub(super) async fn assert_votes_are_elsewhere(cluster: &Cluster) {
    let nodes = cluster.living();
    for node in &nodes {
        let forgotten = cluster.metric(*node, "quorate_votes_forgotten_through").await;
        let mut durable = Vec::new();
        for other in &nodes {
            durable.push(cluster.metric(*other, "quorate_learner_durable").await);
        }
        let have = durable.iter().filter(|number| **number >= forgotten).count();
        assert!(2 * have > cluster.size(), "votes are forgotten up to {forgotten}; durable are {durable:?}");
    }
}
