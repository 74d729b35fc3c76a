//! Without a majority, and beyond the limits.

use quorate_tests::cluster::{Cluster, Reply, eventually, send};
use serde_json::json;

/// The one error that leaves the outcome open.
fn assert_no_outcome(reply: &Reply) {
    assert_unknown(reply, 504, "no_outcome");
}

fn assert_unknown(reply: &Reply, status: u16, code: &str) {
    let problem = reply.json();
    assert_eq!((reply.status, &problem["code"]), (status, &json!(code)), "{problem}");
    assert_eq!(problem["outcome"], "unknown", "{problem}");
    assert!(!reply.header("Retry-After").is_empty(), "{reply:?}");
}

/// A6, S-22: catches a node without a majority that acknowledges a call, answers a linearizable
/// read, calls an open outcome final, or is not there again once the majority is.
#[tokio::test]
async fn without_a_majority_nothing_is_claimed() {
    let mut cluster = Cluster::start("minority", 3, &[]).await;
    let put = |value: i32| json!({"key": "k", "value": value});
    assert_eq!(cluster.call(0, "kv.put", &put(1)).await.status, 200);
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..cluster.size()).filter(|node| *node != leader).collect();
    for node in &others {
        cluster.kill9(*node);
    }
    let call = async |cluster: &Cluster, key: &str| {
        let url = cluster.url(leader, "/v1/functions/kv.put");
        let request = cluster.client().post(url).header("Prefer", "wait=1").header("Idempotency-Key", key);
        send(request.json(&put(2))).await.expect("a living node answers")
    };
    // At once, when it may still believe that it leads, and later, when it must know better.
    let early = call(&cluster, "early").await;
    eventually("a node that is not ready", async || (cluster.get(leader, "/readyz").await.status == 503).then_some(()))
        .await;
    let late = call(&cluster, "late").await;
    if early.status == 504 {
        assert_no_outcome(&early);
    } else {
        assert_unknown(&early, 503, "no_leader");
    }
    assert_unknown(&late, 503, "no_leader");
    let unkeyed = cluster.client().post(cluster.url(leader, "/v1/functions/kv.put")).header("Prefer", "wait=1");
    send(unkeyed.json(&put(2))).await.expect("a living node answers").assert_problem(503, "no_leader");
    let read = cluster.client().get(cluster.url(leader, "/v1/state/k")).header("Prefer", "wait=1");
    send(read).await.expect("a living node answers").assert_problem(503, "no_leader");
    let local = cluster.get(leader, "/v1/state/k?consistency=local").await;
    assert_eq!((local.status, local.text()), (200, "1".to_owned()));
    assert_eq!(cluster.get(leader, "/livez").await.status, 200, "it lives all the same");
    let verbose = cluster.get(leader, "/readyz?verbose").await;
    assert!(verbose.text().contains("[-]leader failed"), "{}", verbose.text());
    cluster.boot_all();
    cluster.wait_begun().await;
    for key in ["early", "late"] {
        let again = cluster.call_once(others[0], key, "kv.put", &put(2)).await;
        assert_eq!(again.status, 200, "{}", again.text());
    }
    let history = cluster.assert_agreement().await;
    let numbers = history.by_request();
    assert_eq!((numbers["early"].len(), numbers["late"].len(), history.last()), (1, 1, 3));
}

/// A6, S-22: a leader that has no reason yet to think that the others are gone, because their
/// time stands still. Catches a read that it answers without them, or a call whose outcome it
/// calls known; what was open must have one outcome when they are back.
#[tokio::test]
async fn a_leader_without_votes_claims_nothing() {
    // Several times as long as the calls below wait.
    let patient = ["detector.timeout_min=5s", "detector.timeout_max=5s"];
    let mut cluster = Cluster::start("patient", 3, &patient).await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..cluster.size()).filter(|node| *node != leader).collect();
    for node in &others {
        cluster.freeze(*node);
    }
    let put = json!({"key": "k", "value": 1});
    let url = cluster.url(leader, "/v1/functions/kv.put");
    let call = cluster.client().post(url).header("Prefer", "wait=1").header("Idempotency-Key", "open");
    let read = cluster.client().get(cluster.url(leader, "/v1/state/k")).header("Prefer", "wait=1");
    let (call, read) = tokio::join!(send(call.json(&put)), send(read));
    assert_no_outcome(&call.expect("a living node answers"));
    read.expect("a living node answers").assert_problem(503, "no_majority");
    for node in &others {
        cluster.thaw(*node);
    }
    cluster.wait_ready().await;
    let again = cluster.call_once(others[0], "open", "kv.put", &put).await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(cluster.assert_agreement().await.by_request()["open"].len(), 1);
}

/// Catches a limit that is not kept, or a caller beyond it who is not told to come again.
#[tokio::test]
async fn too_many_calls_are_told_so() {
    let cluster = Cluster::start("many", 3, &["limits.calls_in_flight=1"]).await;
    let node = cluster.follower().await;
    let arguments = json!({"warehouse": "A", "amount": 5});
    let url = cluster.url(node, "/v1/functions/inventory.outbound");
    let request = cluster.client().post(url).header("Prefer", "wait=40").json(&arguments);
    let waiting = tokio::spawn(send(request));
    eventually("a call in flight", async || {
        (cluster.metric(node, "quorate_gateway_calls_in_flight").await > 0.5).then_some(())
    })
    .await;
    cluster.call(node, "inventory.inbound", &arguments).await.assert_problem(429, "overloaded");
    let other = (node + 1) % cluster.size();
    assert_eq!(cluster.call(other, "inventory.inbound", &arguments).await.status, 200);
    assert_eq!(waiting.await.expect("no panic").expect("a living node answers").status, 200);
    assert_eq!(cluster.call(node, "inventory.inbound", &arguments).await.status, 200, "there is room again");
    cluster.assert_agreement().await;
}
