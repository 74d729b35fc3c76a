//! A leader whose time stands still, and who does not know it.

use quorate_tests::cluster::{Cluster, Load, send};
use serde_json::json;

/// S-20, S-21: catches a leader that wakes and answers from the time when it led: a read that
/// misses what the others acknowledged meanwhile, a refusal decided on a state that is gone
/// (S-08), a write that takes effect beside the others' (A1h).
#[tokio::test]
async fn a_frozen_leader_wakes_and_answers_nobody_wrongly() {
    let mut cluster = Cluster::start("frozen", 3, &[]).await;
    for round in 1..=5_u64 {
        let leader = cluster.leader().await;
        let goods = json!({"warehouse": format!("A{round}"), "amount": 50});
        // It knows the old value as its own, and has connections that were open before.
        let version = cluster.call(leader, "kv.put", &json!({"key": "k", "value": "old"})).await.command();
        assert_eq!(cluster.get(leader, "/v1/state/k").await.text(), "\"old\"");
        cluster.freeze(leader);
        let other = cluster.living()[0];
        let put = cluster.call(other, "kv.put", &json!({"key": "k", "value": round})).await;
        assert_eq!(put.status, 200, "the others elect a leader: {}", put.text());
        assert_eq!(cluster.call(other, "inventory.inbound", &goods).await.status, 200);
        // From here on, only the new state is right. The system takes these requests in for the
        // frozen process, which finds them when it wakes.
        let ask = |request: reqwest::RequestBuilder| tokio::spawn(send(request));
        let client = cluster.client();
        let function = |name: &str| cluster.url(leader, &format!("/v1/functions/{name}"));
        let reads: Vec<_> = (0..8).map(|_| ask(client.get(cluster.url(leader, "/v1/state/k")))).collect();
        let outbound = ask(client.post(function("inventory.outbound")).json(&goods));
        let stale = json!({"key": "k", "expected": version, "value": "stale"});
        let stale = ask(client.post(function("kv.compare_and_set")).json(&stale));
        let list = ask(client.get(cluster.url(leader, "/v1/state?prefix=k")));
        // A whole request to another node: by then these have left, and wait in the kernel.
        assert_eq!(cluster.get(other, "/livez").await.status, 200);
        cluster.thaw(leader);
        for read in reads {
            let read = read.await.expect("no panic").expect("it lives again");
            assert_eq!((read.status, read.text()), (200, round.to_string()), "a read asked after the write");
            assert!(read.command() > version, "{read:?}");
        }
        let list = list.await.expect("no panic").expect("it lives again");
        assert_eq!(list.json()["entries"][0]["value"], round, "{list:?}");
        let outbound = outbound.await.expect("no panic").expect("it lives again");
        assert_eq!((outbound.status, &outbound.json()["result"]), (200, &json!({"stock": 0})), "{}", outbound.text());
        // Its copies may have gone to two leaders; then the refusal is recorded.
        stale.await.expect("no panic").expect("it lives again").assert_problem(422, "version_mismatch");
        cluster.wait_ready().await;
    }
    let history = cluster.assert_agreement().await;
    let changes = history.commands().iter().filter(|command| command["kind"] == "function").count();
    assert_eq!(changes, 5 * 4, "put, put, inbound and outbound, five times");
}

/// S-21, S-22, S-23: the same with calls in flight at the moment when the leader freezes, which
/// their callers send again through other nodes while it still has a copy. Catches a call that
/// takes effect twice, and an acknowledgement of what the others have overruled.
#[tokio::test]
async fn calls_in_flight_at_a_leader_that_freezes() {
    let mut cluster = Cluster::start("asleep", 3, &[]).await;
    let load = Load::start(&cluster, "load", 6).await;
    for _ in 0..5 {
        load.progress(20).await;
        let leader = cluster.leader().await;
        cluster.freeze(leader);
        // The clients are stuck at the frozen node; another caller sees that the rest goes on.
        let other = cluster.living()[0];
        let new = cluster.leader().await;
        assert_ne!(new, leader);
        assert_eq!(cluster.get(other, "/v1/state/inventory%2Fgoods%2FW0").await.status, 200);
        cluster.thaw(leader);
        cluster.wait_ready().await;
    }
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}
