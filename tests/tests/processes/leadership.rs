//! The lead is handed over: to the node that an operator names, and by a leader that stops (DESIGN 10, ADR 0030).

use quorate_tests::cluster::{Cluster, Load, Reply, send};
use serde_json::json;

const NAMES: [&str; 3] = ["a", "b", "c"];

async fn hand_over(cluster: &Cluster, via: usize, to: &str, query: &str) -> Reply {
    let url = cluster.url(via, &format!("/v1/cluster/leader{query}"));
    send(cluster.client().post(url).json(&json!({"node": to}))).await.expect("a living node answers")
}

/// Catches a call that fails because the lead is handed over, a lead that goes elsewhere or nowhere, an answer before the
/// node leads, and a node that could not lead and is asked all the same.
#[tokio::test]
async fn the_lead_goes_where_the_operator_says() {
    let mut cluster = Cluster::start("leadership", 3, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(100).await;
    for round in 0..6 {
        let leader = cluster.leader().await;
        let to = (leader + 1 + round % 2) % 3;
        let id = json!({"command": null, "result": {"node": to + 1, "name": NAMES[to], "leads": false}});
        let dry = hand_over(&cluster, round % 3, NAMES[to], "?dry_run=true").await;
        assert_eq!((dry.status, dry.json()), (200, id));
        assert_eq!(cluster.leader().await, leader, "a dry run");
        _ = load.longest_pause();
        let done = hand_over(&cluster, round % 3, NAMES[to], "").await;
        assert_eq!((done.status, &done.json()["result"]["leads"]), (200, &json!(true)), "{}", done.text());
        let view = cluster.get(round % 3, "/v1/cluster").await.json();
        assert_eq!(view["leader"]["name"], NAMES[to], "when the caller is told, it leads");
        assert_eq!(cluster.leader().await, to);
        let again = hand_over(&cluster, round % 3, NAMES[to], "").await;
        assert_eq!((again.status, cluster.leader().await), (200, to), "it leads already: {}", again.text());
        load.progress(100).await;
        println!("transfer: {} ms without an acknowledged call", load.longest_pause().as_millis());
    }
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    hand_over(&cluster, leader, "x", "").await.assert_problem(404, "unknown_node");
    cluster.kill9(follower);
    load.progress(20).await;
    hand_over(&cluster, leader, NAMES[follower], "").await.assert_problem(409, "not_heard");
    cluster.boot(follower);
    cluster.wait_ready().await;
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}

/// Catches a leader that stops and leaves the others to find out, and calls that fail in a rolling restart.
#[tokio::test]
async fn a_rolling_restart_hands_the_lead_over() {
    let mut cluster = Cluster::start("rolling", 3, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(100).await;
    let mut handed_over = 0;
    for node in [0, 1, 2, 0] {
        let led = cluster.leader().await == node;
        let before = cluster.log(node).matches("has handed the lead over").count();
        _ = load.longest_pause();
        cluster.terminate(node);
        assert_eq!(cluster.ended(node).await.code(), Some(0));
        let after = cluster.log(node).matches("has handed the lead over").count();
        // On a machine that is too busy the other node may come too late, and lead all the same.
        assert!(after - before <= usize::from(led), "by who leads, and by nobody else");
        handed_over += after - before;
        cluster.boot(node);
        cluster.wait_ready().await;
        load.progress(100).await;
        let led = if led { "which led" } else { "which did not lead" };
        println!(
            "restart of {}, {led}: {} ms without an acknowledged call",
            NAMES[node],
            load.longest_pause().as_millis()
        );
    }
    assert!(handed_over > 0, "one of them led");
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}
