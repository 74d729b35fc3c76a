//! A node that is only a gateway (ADR 0031).

use std::fs;

use quorate_tests::cluster::{Cluster, DEADLINE, Gateway, eventually, quorate, send};
use serde_json::{Value, json};

/// What the calls have counted.
async fn count(gateway: &Gateway) -> u64 {
    let reply = gateway.get("/v1/state/n").await;
    if reply.status == 404 { 0 } else { reply.json().as_u64().unwrap_or_else(|| panic!("{reply:?}")) }
}

/// Waits until some more calls have taken effect.
async fn progress(gateway: &Gateway) {
    let before = count(gateway).await;
    eventually("progress", async || (count(gateway).await >= before + 50).then_some(())).await;
}

/// Catches a gateway that loses, doubles or fails a call when the member behind it dies, that does not find the members it was
/// not told of, that keeps data, or that says it is well when nobody is there.
#[tokio::test]
async fn members_die_behind_a_gateway_and_no_call_fails() {
    let mut cluster = Cluster::start("fronted", 3, &[]).await;
    let gateway = Gateway::start(&cluster, &[0]).await;
    eventually("all members, of which one was told", async || {
        let text = gateway.get("/readyz?verbose").await.text();
        (text.matches("(ready)").count() == 3).then_some(())
    })
    .await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (client, stopped) = (cluster.client().clone(), stopped.clone());
            let url = gateway.url("/v1/functions/kv.increment");
            tokio::spawn(async move {
                let mut done = 0_u64;
                while !*stopped.borrow() {
                    // Without a key: the gateway gives it one.
                    let reply = send(client.post(&url).json(&json!({"key": "n"}))).await.expect("the gateway answers");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    done += 1;
                }
                done
            })
        })
        .collect();
    progress(&gateway).await;
    for round in 0..3 {
        // The leader twice, the only one that was told once.
        let node = if round == 1 { 0 } else { cluster.leader().await };
        cluster.kill9(node);
        progress(&gateway).await;
        cluster.boot(node);
        cluster.wait_ready().await;
        progress(&gateway).await;
    }
    stop.send(true).expect("the callers listen");
    let mut done = 0;
    for calls in calls {
        done += calls.await.expect("no call has failed");
    }
    assert_eq!(count(&gateway).await, done, "each call has one effect");
    assert!(!gateway.directory().join("data").exists(), "it keeps no data");
    assert_eq!(fs::read_dir(gateway.directory()).expect("readable").count(), 0);
    let head = send(cluster.client().head(gateway.url("/v1/backup"))).await.expect("the gateway answers");
    assert_eq!(head.status, 405, "no backup is begun for a head: {head:?}");
    for node in 0..3 {
        cluster.kill9(node);
    }
    eventually("a gateway that says nobody is there", async || {
        (gateway.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(gateway.get("/livez").await.status, 200);
}

/// Catches what is changed on its way: a route, a status, a header, a backup; a request that is too large and reaches a
/// member; and `quorate status` that does not work through it.
#[tokio::test]
async fn everything_passes_through_a_gateway() {
    let cluster = Cluster::start("fronted", 3, &[]).await;
    let gateway = Gateway::start(&cluster, &[0, 1, 2]).await;
    let client = cluster.client();
    let put = client.put(gateway.url("/v1/state/a%2Fb")).header("If-None-Match", "*").body("7");
    let reply = send(put.header("Content-Type", "application/json")).await.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let read = gateway.get("/v1/state/a/b").await;
    assert_eq!((read.status, read.text().as_str(), read.command()), (200, "7", reply.command()));
    assert!(["a", "b", "c"].contains(&read.header("Quorate-Node")), "{read:?}");
    let refused = client.post(gateway.url("/v1/functions/inventory.outbound")).header("Idempotency-Key", "once");
    let refused = refused.json(&json!({"warehouse": "A", "amount": 5}));
    let first = send(refused.try_clone().expect("a body")).await.expect("an answer");
    first.assert_problem(422, "insufficient_stock");
    let again = send(refused).await.expect("an answer");
    assert_eq!((again.status, again.header("Idempotent-Replayed")), (422, "true"), "the caller's key, not another");
    gateway.get("/v1/nothing").await.assert_problem(404, "unknown_route");
    let large = client.post(gateway.url("/v1/functions/kv.put")).header("Content-Type", "application/json");
    let large = send(large.body(vec![b' '; (2 << 20) + 1])).await.expect("an answer");
    assert_eq!((large.status, large.header("Quorate-Node")), (413, "front"), "{}", large.text());
    let metrics = gateway.get("/metrics").await.text();
    assert!(metrics.contains("quorate_gateway_members_ready 3"), "{metrics}");

    let file = gateway.directory().join("backup");
    for arguments in [vec!["status"], vec!["backup", file.to_str().expect("a plain path")]] {
        let mut command = quorate();
        command.args(&arguments).args(["--url", &gateway.url("")]);
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(DEADLINE, run).await.expect("in time").expect("no panic").expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
    let checked = quorate().args(["restore", "--dry-run"]).arg(&file).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let view: Value = gateway.get("/v1/cluster").await.json();
    assert_eq!(view["nodes"].as_array().map(Vec::len), Some(3), "it is nobody's member");
}
