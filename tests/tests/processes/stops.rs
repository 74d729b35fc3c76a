//! How a node ends: as asked, or because it may not run like this.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_tests::cluster::{Cluster, Gateway, client, eventually, send};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

/// Catches a node without certificates that SIGHUP ends.
#[tokio::test]
async fn sighup_ends_no_node() {
    let cluster = Cluster::start("sighup", 1, &[]).await;
    let pid = i32::try_from(cluster.pid(0)).expect("small");
    kill(Pid::from_raw(pid), Signal::SIGHUP).expect("it runs");
    cluster.logged(0, &["SIGHUP"]).await;
    assert_eq!(cluster.get(0, "/readyz").await.status, 200);
}

/// Catches a stop that loses or refuses what was in flight, leaves the others to wait for a
/// timeout, or does not exit with 0.
#[tokio::test]
async fn sigterm_finishes_hands_over_and_exits_with_0() {
    let mut cluster = Cluster::start("stops", 3, &[]).await;
    let mut calls = 0;
    for round in 0..3 {
        let leader = cluster.leader().await;
        let mut waiting = Vec::new();
        for call in 0..30 {
            let url = cluster.url(call % 3, "/v1/functions/inventory.inbound");
            let request = cluster.client().post(url).json(&json!({"warehouse": "A", "amount": 1}));
            let key = format!("{round}/{call}");
            waiting.push((call % 3, key.clone(), tokio::spawn(send(request.header("Idempotency-Key", key)))));
            calls += 1;
        }
        // One answer: by now the others are on their way.
        eventually("a first answer", async || waiting.iter().any(|(_, _, task)| task.is_finished()).then_some(()))
            .await;
        let asked = Instant::now();
        cluster.terminate(leader);
        let survivor = (leader + 1) % 3;
        let reply = cluster.call(survivor, "kv.put", &json!({"key": "k", "value": round})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(asked.elapsed() < Duration::from_secs(5), "no successor for {:?}", asked.elapsed());
        calls += 1;
        for (node, key, task) in waiting {
            match task.await.expect("no panic") {
                Ok(reply) if reply.status == 200 => continue,
                // Not taken any more; but the node cannot know that no other one had the key.
                Ok(reply) if node == leader => {
                    let problem = reply.json();
                    let said = (reply.status, &problem["code"], &problem["outcome"]);
                    assert_eq!(said, (503, &json!("stopping"), &json!("unknown")), "{problem}");
                }
                Err(_) if node == leader => {}
                other => panic!("{key} at node {node}: {other:?}"),
            }
            let goods = json!({"warehouse": "A", "amount": 1});
            assert_eq!(cluster.call_once(survivor, &key, "inventory.inbound", &goods).await.status, 200);
        }
        let status = cluster.ended(leader).await;
        assert_eq!(status.code(), Some(0), "round {round}: {status}");
        cluster.logged(leader, &["stopped"]).await;
        cluster.boot(leader);
        cluster.wait_ready().await;
    }
    let history = cluster.assert_agreement().await;
    assert_eq!((history.last(), history.stock()), (calls, 90));
}

/// Catches a node, or a gateway, that is asked to stop and refuses callers whom a load balancer still sends to it, with old
/// connections or new ones; that does not say that it is not ready; or that cannot be told not to wait any longer.
#[tokio::test]
async fn who_drains_says_so_and_serves_on() {
    // Longer than this test takes, unless a second signal ends it.
    let mut cluster = Cluster::start("drains", 3, &["shutdown.drain=10m"]).await;
    let mut gateway = Gateway::boot(&cluster, &[0, 1, 2], &["shutdown.drain=10m".to_owned()]);
    gateway.ready().await;
    let goods = json!({"warehouse": "A", "amount": 1});
    let node = cluster.leader().await;
    assert_eq!(cluster.call(node, "inventory.inbound", &goods).await.status, 200);
    cluster.terminate(node);
    gateway.signal(Signal::SIGTERM);
    cluster.logged(node, &["is to stop", "SIGTERM", "10m"]).await;
    gateway.logged(&["is to stop", "SIGTERM", "10m"]).await;
    let (at_node, at_gateway) = (cluster.url(node, ""), gateway.url(""));
    for url in [at_node, at_gateway] {
        for client in [cluster.client().clone(), client()] {
            let ready = send(client.get(format!("{url}/readyz"))).await.expect("it answers");
            assert!(ready.status == 503 && ready.text().contains("is stopping"), "{url}: {}", ready.text());
            let call = client.post(format!("{url}/v1/functions/inventory.inbound")).json(&goods);
            let call = send(call).await.expect("it answers");
            assert_eq!(call.status, 200, "{url}: {}", call.text());
        }
    }
    cluster.terminate(node);
    assert_eq!(cluster.ended(node).await.code(), Some(0));
    cluster.logged(node, &["a second time"]).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ended().await.code(), Some(0));
    // One that is asked once ends by itself.
    cluster.set("shutdown.drain=1s");
    cluster.boot(node);
    cluster.wait_ready().await;
    cluster.terminate(node);
    assert_eq!(cluster.ended(node).await.code(), Some(0));
    cluster.logged(node, &["is to stop", "1s"]).await;
}

/// Catches a node that is killed by the signal that asks it to stop, because it still opens its
/// stores. Its log of writes is a pipe here, so that it opens them for as long as the test likes.
#[tokio::test]
async fn sigterm_while_starting_exits_with_0() {
    let mut cluster = Cluster::start("starts", 1, &[]).await;
    assert_eq!(cluster.call(0, "kv.put", &json!({"key": "k", "value": 1})).await.status, 200);
    cluster.terminate(0);
    assert_eq!(cluster.ended(0).await.code(), Some(0));
    let database = std::fs::read_dir(cluster.data_dir(0).join("log")).expect("the database of the log");
    let mut files = database.map(|file| file.expect("an entry").path());
    let log = files.find(|path| path.extension().is_some_and(|end| end == "log")).expect("a log of writes");
    let (bytes, aside) = (std::fs::read(&log).expect("readable"), log.with_extension("aside"));
    std::fs::rename(&log, &aside).expect("renamed");
    assert!(Command::new("mkfifo").arg(&log).status().expect("mkfifo runs").success());
    cluster.boot(0);
    let reads = async || tokio::net::unix::pipe::OpenOptions::new().open_sender(&log).ok();
    let mut pipe = eventually("a node that opens its stores", reads).await;
    assert_eq!(cluster.get(0, "/livez").await.status, 200, "a start that takes long is no reason to kill it");
    let ready = cluster.get(0, "/readyz").await;
    assert!(ready.status == 503 && ready.text().contains("it opens its data directory"), "{ready:?}");
    cluster.terminate(0);
    std::fs::rename(&aside, &log).expect("renamed");
    pipe.write_all(&bytes).await.expect("the node reads");
    drop(pipe);
    assert_eq!(cluster.ended(0).await.code(), Some(0));
    cluster.boot(0);
    cluster.wait_ready().await;
    assert_eq!(cluster.assert_agreement().await.last(), 1);
}

/// Catches a node that never stops because one caller is willing to wait longer than
/// `shutdown.grace`, and a call that takes effect although its caller was not told so.
#[tokio::test]
async fn a_patient_caller_does_not_hold_up_a_stop() {
    let mut cluster = Cluster::start("grace", 3, &["shutdown.grace=1s"]).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let goods = json!({"warehouse": "A", "amount": 5});
    let url = cluster.url(follower, "/v1/functions/inventory.outbound");
    let request = cluster.client().post(url).header("Prefer", "wait=45").header("Idempotency-Key", "patient");
    let waiting = tokio::spawn(send(request.json(&goods)));
    eventually("a call that waits at the leader", async || {
        (cluster.metric(leader, "quorate_leader_kept_calls").await > 0.5).then_some(())
    })
    .await;
    let asked = Instant::now();
    cluster.terminate(follower);
    assert_eq!(cluster.ended(follower).await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    // The call is still at the leader: no answer may say that it will never be executed.
    if let Ok(reply) = waiting.await.expect("no panic") {
        assert_eq!(reply.json()["outcome"], "unknown", "{}", reply.text());
    }
    assert_eq!(cluster.call(leader, "inventory.inbound", &goods).await.status, 200);
    let again = cluster.call_once(leader, "patient", "inventory.outbound", &goods).await;
    assert_eq!((again.status, &again.json()["result"]), (200, &json!({"stock": 0})), "{}", again.text());
    cluster.boot(follower);
    cluster.wait_ready().await;
    assert_eq!(cluster.assert_agreement().await.by_request()["patient"].len(), 1);
}

/// Catches a reader who waits for a command that never comes, and whose connection a stopping
/// node closes unanswered, or who is told to ask the same node again.
#[tokio::test]
async fn a_patient_reader_is_told_that_the_node_stops() {
    let mut cluster = Cluster::start("reader", 1, &["shutdown.grace=2s"]).await;
    let asked = async || cluster.metric(0, "quorate_gateway_sent_total").await;
    let before = asked().await;
    let request = cluster.client().get(cluster.url(0, "/v1/state/k?min_command=1000")).header("Prefer", "wait=45");
    let waiting = tokio::spawn(send(request));
    eventually("a read that is under way", async || (asked().await > before).then_some(())).await;
    cluster.terminate(0);
    waiting.await.expect("no panic").expect("an answer").assert_problem(503, "stopping");
    assert_eq!(cluster.ended(0).await.code(), Some(0));
}

/// Exit code and standard error of something that must not run.
async fn refused(mut command: Command) -> (Option<i32>, String) {
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// S-16: catches a node that takes another node's votes for its own, or another cluster's data.
#[tokio::test]
async fn the_data_of_another_node_is_refused() {
    let mut cluster = Cluster::start("data", 3, &[]).await;
    assert_eq!(cluster.call(0, "kv.put", &json!({"key": "k", "value": 1})).await.status, 200);
    cluster.terminate(0);
    assert_eq!(cluster.ended(0).await.code(), Some(0));
    cluster.terminate(1);
    assert_eq!(cluster.ended(1).await.code(), Some(0));
    let directory = cluster.data_dir(0);
    let data_dir = format!("node.data_dir={}", directory.display());
    let set = |mut command: Command, setting: &str| {
        command.arg("--set").arg(setting);
        command
    };
    let other_cluster = set(cluster.command(0), "cluster.name=another");
    for (command, says) in [(set(cluster.command(1), &data_dir), "`b`"), (other_cluster, "`another`")] {
        let (code, error) = refused(command).await;
        let line = error.lines().last().unwrap_or_default();
        assert_eq!(code, Some(1), "{error}");
        for part in [says, directory.to_str().expect("a plain path"), "`a`"] {
            assert!(line.contains(part), "{part} is missing in: {error}");
        }
    }
    // Data that a running node holds, with ports that are free.
    let http = format!("listen.http={}", cluster.http_address(0));
    let peer = format!("listen.peer={}", cluster.peer_address(0));
    let (code, error) = refused(set(set(cluster.command(2), &http), &peer)).await;
    let held = cluster.data_dir(2);
    assert!(code == Some(1) && error.contains(held.to_str().expect("a plain path")), "{code:?}: {error}");
    cluster.boot_all();
    cluster.wait_begun().await;
    assert_eq!(cluster.assert_agreement().await.last(), 1, "nothing was harmed");
}

/// Catches a wrong configuration that exits with another code than 2, or whose line does not
/// name the key, the value and what would be right.
#[tokio::test]
async fn what_cannot_be_is_refused_with_2() {
    let mut cluster = Cluster::new("wrong", 3, &[]);
    cluster.boot(0);
    cluster.logged(0, &["the node runs"]).await;
    let taken = |address: std::net::SocketAddr| address.to_string();
    let (http, peer) = (taken(cluster.http_address(0)), taken(cluster.peer_address(0)));
    for (setting, says) in [
        ("protocol.windw=5".to_owned(), vec!["protocol.windw", "unknown key", "window"]),
        ("protocol.window=none".to_owned(), vec!["protocol.window", "\"none\"", "from 1 to 65536"]),
        (format!("listen.http={http}"), vec!["listen.http", http.as_str(), "another port"]),
        (format!("listen.peer={peer}"), vec!["listen.peer", peer.as_str(), "another port"]),
    ] {
        let mut command = cluster.command(1);
        command.arg("--set").arg(&setting);
        let (code, error) = refused(command).await;
        assert_eq!(code, Some(2), "{setting}: {error}");
        assert!(error.lines().count() == 1 && says.iter().all(|part| error.contains(part)), "{setting}: {error}");
    }
    assert!(!cluster.data_dir(1).exists(), "a node that may not run makes no data");
    std::fs::write(cluster.data_dir(1), "a file").expect("written");
    for place in [cluster.data_dir(1), cluster.data_dir(1).join("within")] {
        let mut command = cluster.command(1);
        command.arg("--set").arg(format!("node.data_dir={}", place.display()));
        let (code, error) = refused(command).await;
        let line = error.lines().last().unwrap_or_default();
        assert!(code == Some(2) && line.contains("node.data_dir = ") && line.contains("no directory"), "{error}");
    }
}
