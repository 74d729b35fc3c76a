//! What reads show, and what they say that they show.

use std::time::Duration;

use quorate_tests::cluster::{Cluster, send};
use serde_json::json;

/// S-20: catches a linearizable read at any node that misses what was acknowledged before it
/// began, a number that a node has not applied and shows all the same, and reads that do not
/// say what they show.
#[tokio::test]
async fn a_read_at_any_node_shows_what_was_acknowledged() {
    let cluster = Cluster::start("reads", 3, &[]).await;
    for round in 1..=40_u64 {
        let writer = usize::try_from(round % 3).expect("small");
        let put = cluster.call(writer, "kv.put", &json!({"key": "k", "value": round})).await;
        assert_eq!(put.command(), Some(round), "{put:?}");
        for node in 0..cluster.size() {
            let read = cluster.get(node, "/v1/state/k").await;
            assert_eq!((read.status, read.text()), (200, round.to_string()), "node {node}");
            assert_eq!((read.command(), read.header("Quorate-Consistency")), (Some(round), "linearizable"));
            assert!(read.header("Quorate-Time").ends_with('Z'), "{read:?}");
        }
    }
    // Without waiting in between: `min_command` is how a caller reads its own writes anywhere.
    for round in 41..=80_u64 {
        let put = cluster.call(0, "kv.put", &json!({"key": "k", "value": round})).await;
        let number = put.command().expect("it changed something");
        for node in 0..cluster.size() {
            let read = cluster.get(node, &format!("/v1/state/k?consistency=local&min_command={number}")).await;
            assert_eq!((read.status, read.text()), (200, round.to_string()), "node {node}");
            assert_eq!((read.command(), read.header("Quorate-Consistency")), (Some(number), "local"));
        }
    }
    for node in 0..cluster.size() {
        let local = cluster.get(node, "/v1/state/k?consistency=local").await;
        assert_eq!((local.status, local.header("Quorate-Consistency")), (200, "local"));
        let early = cluster.url(node, "/v1/state/k?consistency=local&min_command=1000");
        let early = send(cluster.client().get(early).header("Prefer", "wait=1")).await.expect("a living node answers");
        early.assert_problem(504, "not_applied_yet");
        cluster.get(node, "/v1/state/k?consistency=strong").await.assert_problem(400, "invalid_query");
    }
    assert_eq!(cluster.assert_agreement().await.last(), 80);
}

/// A1a: catches a page of commands that skips or repeats one, and one that shows what is not issued.
#[tokio::test]
async fn commands_come_in_pages() {
    let cluster = Cluster::start("feed", 3, &[]).await;
    let calls: Vec<_> = (0..25).map(|n| json!({"function": "kv.put", "arguments": {"key": "k", "value": n}})).collect();
    let reply = send(cluster.client().post(cluster.url(0, "/v1/calls")).json(&calls)).await;
    assert_eq!(reply.expect("a living node answers").command(), Some(25));
    for node in 0..cluster.size() {
        let page = async |query: &str| cluster.get(node, &format!("/v1/commands?{query}")).await;
        let first = page("limit=10").await.json();
        assert_eq!((&first["commands"][9]["number"], &first["next"]), (&json!(10), &json!(11)));
        let last = page("from=21&limit=10").await.json();
        assert_eq!((last["commands"].as_array().map(Vec::len), &last["next"]), (Some(5), &json!(null)));
        assert_eq!(page("from=26").await.json(), json!({"commands": [], "next": null}));
        page("from=0").await.assert_problem(400, "invalid_query");
        page("limit=0").await.assert_problem(400, "invalid_query");
        assert_eq!(cluster.get(node, "/v1/digest?at=25").await.status, 200);
        cluster.get(node, "/v1/digest?at=1").await.assert_problem(410, "state_gone");
    }
    cluster.assert_agreement().await;
}

/// A11, S-08: catches a call whose caller is willing to wait and that is refused at once, or
/// never tried again: an `outbound` before the `inbound` that it needs, at different nodes.
#[tokio::test]
async fn a_caller_who_waits_gets_what_comes_later() {
    let cluster = Cluster::start("patience", 3, &[]).await;
    for (early, late) in [(0, 1), (1, 2), (2, 0)] {
        let arguments = json!({"warehouse": format!("A{early}"), "amount": 5});
        let url = cluster.url(early, "/v1/functions/inventory.outbound");
        let request = cluster.client().post(url).header("Prefer", "wait=40").json(&arguments);
        let waiting = tokio::spawn(send(request));
        // Whoever leads: on a busy machine that may change meanwhile.
        quorate_tests::cluster::eventually("a call that waits at the leader", async || {
            for node in 0..3 {
                if cluster.metric(node, "quorate_leader_kept_calls").await > 0.5 {
                    return Some(());
                }
            }
            None
        })
        .await;
        assert_eq!(cluster.call(late, "inventory.inbound", &arguments).await.status, 200);
        let reply = waiting.await.expect("no panic").expect("a living node answers");
        assert_eq!((reply.status, &reply.json()["result"]), (200, &json!({"stock": 0})), "{}", reply.text());
        assert_eq!(reply.header("Preference-Applied"), "wait=40");
    }
    let url = cluster.url(0, "/v1/functions/inventory.outbound");
    let request =
        cluster.client().post(url).header("Prefer", "wait=1").json(&json!({"warehouse": "none", "amount": 5}));
    let begun = std::time::Instant::now();
    let refused = send(request).await.expect("a living node answers");
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("insufficient_stock")), "{}", refused.text());
    assert_eq!(refused.json()["outcome"], "not_executed", "nothing else can still run: {}", refused.text());
    // The leader stops trying a quarter of the wait, at most 250 ms, before the caller goes away.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(750), "refused after {took:?}, long before the wait was over");
    cluster.assert_agreement().await;
}
