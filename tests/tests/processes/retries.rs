//! One key, one effect (S-23).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_tests::cluster::{Cluster, Reply, eventually, send};
use serde_json::{Value, json};

/// S-23, A11: catches a retry that takes effect again, or gets another answer, at another node,
/// at the next leader, or after a restart of all nodes.
#[tokio::test]
async fn a_retry_has_one_effect_before_and_after_the_leader_is_killed() {
    let mut cluster = Cluster::start("retries", 3, &[]).await;
    let arguments = json!({"warehouse": "A", "amount": 5});
    let first = cluster.call_once(0, "the key", "inventory.inbound", &arguments).await;
    first.assert_problem(400, "invalid_idempotency_key");
    let first = cluster.call_once(0, "the-key", "inventory.inbound", &arguments).await;
    assert!(first.status == 200 && !first.replayed(), "{first:?}");
    assert_eq!(first.json(), json!({"command": 1, "result": {"stock": 5}}));
    // So that an answer made from the present state would be another one.
    assert_eq!(cluster.call(0, "inventory.inbound", &arguments).await.json()["result"], json!({"stock": 10}));
    let check = async |cluster: &Cluster, when: &str| {
        for node in cluster.living() {
            let again = cluster.call_once(node, "the-key", "inventory.inbound", &arguments).await;
            assert!(again.status == 200 && again.replayed(), "{when}, node {node}: {again:?}");
            assert_eq!(again.json(), first.json(), "{when}, node {node}");
            let other = json!({"warehouse": "A", "amount": 6});
            let other = cluster.call_once(node, "the-key", "inventory.inbound", &other).await;
            other.assert_problem(422, "idempotency_key_reused");
            let other = cluster.call_once(node, "the-key", "inventory.outbound", &arguments).await;
            other.assert_problem(422, "idempotency_key_reused");
            let stored = cluster.get(node, "/v1/calls/the-key").await;
            assert_eq!((stored.status, stored.json()), (200, first.json()), "{when}, node {node}");
        }
    };
    check(&cluster, "at once").await;
    let leader = cluster.leader().await;
    cluster.kill9(leader);
    check(&cluster, "after the leader was killed").await;
    cluster.boot(leader);
    cluster.wait_ready().await;
    check(&cluster, "after it came back").await;
    for node in 0..cluster.size() {
        cluster.kill9(node);
    }
    cluster.boot_all();
    cluster.wait_begun().await;
    check(&cluster, "after all were killed").await;
    let history = cluster.assert_agreement().await;
    assert_eq!(history.by_request()["the-key"], [1]);
    assert_eq!((history.last(), history.stock()), (2, 10));
}

/// What a call under a key was told that changed nothing, with what it asked.
struct Answered {
    key: &'static str,
    function: &'static str,
    arguments: Value,
    first: Reply,
}

impl Answered {
    /// Asks for the first time. The answer is a command without effects, of this number.
    async fn new(cluster: &Cluster, key: &'static str, function: &'static str, arguments: Value, number: u64) -> Self {
        let first = cluster.call_once(0, key, function, &arguments).await;
        assert!(!first.replayed() && first.command() == Some(number), "{first:?}");
        Self { key, function, arguments, first }
    }

    /// Asks every living node again, and for what is stored.
    async fn check(&self, cluster: &Cluster, when: &str) {
        let Self { key, function, arguments, first } = self;
        for node in cluster.living() {
            // A node that is behind, and had to send its copy twice, cannot tell whether the other one was the first.
            let seen =
                format!("/v1/state?limit=1&consistency=local&min_command={}", first.command().expect("a number"));
            assert_eq!(cluster.get(node, &seen).await.status, 200, "{when}, node {node}");
            let again = cluster.call_once(node, key, function, arguments).await;
            assert!(again.replayed(), "{when}, node {node}: {again:?}");
            let told = |reply: &Reply| (reply.status, reply.command(), reply.json());
            assert_eq!(told(&again), told(first), "{when}, node {node}");
            let stored = cluster.get(node, &format!("/v1/calls/{key}")).await;
            assert!(stored.status == first.status && stored.replayed(), "{when}, node {node}: {stored:?}");
            let mut expected = first.json();
            // Where to ask is known to who asks there.
            expected.as_object_mut().expect("a document").remove("instance");
            assert_eq!(stored.json(), expected, "{when}, node {node}");
        }
    }
}

/// S-22, S-23: catches a refusal under a key, or a reply that nothing changed, that is another one
/// when the call is repeated: at another node, at the next leader, or after a restart of all nodes,
/// although by now the function would decide otherwise.
#[tokio::test]
async fn an_answer_without_changes_stays_before_and_after_the_leader_is_killed() {
    let mut cluster = Cluster::start("answers", 3, &[]).await;
    let goods = |amount: u64| json!({"warehouse": "A", "amount": amount});
    let refused = Answered::new(&cluster, "refused", "inventory.outbound", goods(7), 1).await;
    refused.first.assert_problem(422, "insufficient_stock");
    let absent = Answered::new(&cluster, "absent", "kv.delete", json!({"key": "k"}), 2).await;
    assert_eq!(absent.first.json(), json!({"command": null, "result": {"deleted": false}}));
    assert_eq!(cluster.call(0, "inventory.inbound", &goods(10)).await.json()["command"], 3);
    assert_eq!(cluster.call(0, "kv.put", &json!({"key": "k", "value": 1})).await.json()["command"], 4);
    let check = async |cluster: &Cluster, when: &str| {
        refused.check(cluster, when).await;
        absent.check(cluster, when).await;
    };
    check(&cluster, "at once").await;
    let leader = cluster.leader().await;
    cluster.kill9(leader);
    check(&cluster, "after the leader was killed").await;
    cluster.boot(leader);
    cluster.wait_ready().await;
    check(&cluster, "after it came back").await;
    for node in 0..cluster.size() {
        cluster.kill9(node);
    }
    cluster.boot_all();
    cluster.wait_begun().await;
    check(&cluster, "after all were killed").await;
    let history = cluster.assert_agreement().await;
    let kinds: Vec<_> = history.commands().iter().map(|command| command["kind"].clone()).collect();
    assert_eq!(kinds, ["answer", "answer", "function", "function"]);
    let requests = history.by_request();
    assert_eq!((&requests["refused"], &requests["absent"]), (&vec![1], &vec![2]));
    assert_eq!(history.stock(), 10);
}

/// S-23: catches two copies of one call that both execute because they came at the same time
/// through different nodes, with the leader killed in the middle; and a body that is taken for
/// another one because of its white space or the order of its fields.
#[tokio::test]
async fn copies_at_the_same_time_have_one_effect() {
    let mut cluster = Cluster::start("copies", 3, &[]).await;
    let spellings = [
        r#"{"warehouse":"A","amount":3}"#,
        r#"{"amount": 3, "warehouse": "A"}"#,
        "{\"warehouse\":\n\"\\u0041\",\"amount\":3}",
    ];
    let leader = cluster.leader().await;
    let survivors: Vec<usize> = (0..cluster.size()).filter(|node| *node != leader).collect();
    let mut copies = Vec::new();
    for key in 0..30 {
        for (copy, body) in spellings.into_iter().enumerate() {
            let url = cluster.url(survivors[copy % 2], "/v1/functions/inventory.inbound");
            let request = cluster.client().post(url).header("Idempotency-Key", format!("copy-{key}")).body(body);
            copies.push((key, tokio::spawn(send(request.header("Content-Type", "application/json")))));
        }
        if key == 15 {
            // Some are answered by now, some are in flight.
            let answered = async || copies.iter().any(|(_, copy)| copy.is_finished()).then_some(());
            eventually("a first answer", answered).await;
            cluster.kill9(leader);
        }
    }
    let mut answers: std::collections::BTreeMap<i32, Value> = std::collections::BTreeMap::new();
    for (key, copy) in copies {
        let reply = copy.await.expect("no panic").expect("a living node answers");
        assert_eq!(reply.status, 200, "copy-{key}: {}", reply.text());
        let body = reply.json();
        assert_eq!(*answers.entry(key).or_insert_with(|| body.clone()), body, "copy-{key} has two answers");
    }
    cluster.boot(leader);
    cluster.wait_ready().await;
    let history = cluster.assert_agreement().await;
    assert_eq!((history.last(), history.stock()), (30, 90));
    for (key, answer) in answers {
        assert_eq!(json!(history.by_request()[format!("copy-{key}").as_str()]), json!([answer["command"]]));
    }
}

/// S-23: catches a caller who calls once, while the leader is killed, and is told of a replay because
/// its gateway sent the call to the next leader too; with a key, and without one.
#[tokio::test]
async fn a_first_call_is_no_replay_when_the_leader_is_killed() {
    let mut cluster = Cluster::start("first", 3, &[]).await;
    let leader = cluster.leader().await;
    let survivors: Vec<usize> = (0..cluster.size()).filter(|node| *node != leader).collect();
    let answered = Arc::new(AtomicU64::new(0));
    let mut callers = Vec::new();
    for caller in 0..40 {
        let url = cluster.url(survivors[caller % 2], "/v1/functions/inventory.inbound");
        let (client, answered) = (cluster.client().clone(), Arc::clone(&answered));
        callers.push(tokio::spawn(async move {
            for call in 0..10 {
                let mut request = client.post(&url).body(r#"{"warehouse":"A","amount":1}"#);
                if caller % 4 < 3 {
                    request = request.header("Idempotency-Key", format!("first-{caller}-{call}"));
                }
                let reply = send(request.header("Content-Type", "application/json")).await;
                let reply = reply.expect("a living node answers");
                assert!(reply.status == 200 && !reply.replayed(), "{reply:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    // All callers have a call in flight then, at some point of its way.
    eventually("half of the answers", async || (answered.load(Ordering::Relaxed) >= 200).then_some(())).await;
    cluster.kill9(leader);
    for caller in callers {
        caller.await.expect("no first call is a replay");
    }
    cluster.boot(leader);
    cluster.wait_ready().await;
    assert_eq!(cluster.assert_agreement().await.stock(), 400);
}
