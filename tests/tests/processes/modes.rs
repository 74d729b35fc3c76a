//! The choices of `[protocol]`: how commands are learnt, and the window. A tap on every
//! connection sees what goes over the wire.

use quorate_tests::cluster::{Cluster, Load, Tap};
use serde_json::json;

/// A tap between each node and each other: `taps[from][to]`.
async fn tapped(name: &str, settings: &[&str]) -> (Cluster, Vec<Vec<Option<Tap>>>) {
    let mut cluster = Cluster::new(name, 3, settings);
    let mut taps = Vec::new();
    for from in 0..cluster.size() {
        let mut row = Vec::new();
        for to in 0..cluster.size() {
            if from == to {
                row.push(None);
                continue;
            }
            let tap = Tap::to(cluster.peer_address(to)).await;
            cluster.redirect(from, to, tap.address());
            row.push(Some(tap));
        }
        taps.push(row);
    }
    cluster.boot_all();
    cluster.wait_ready().await;
    (cluster, taps)
}

fn sent(taps: &[Vec<Option<Tap>>], from: usize, message: &str) -> u64 {
    taps[from].iter().flatten().map(|tap| tap.count(message)).sum()
}

fn sent_by_all(taps: &[Vec<Option<Tap>>], message: &str) -> u64 {
    (0..taps.len()).map(|from| sent(taps, from, message)).sum()
}

/// Calls through every node, so that some are forwarded.
async fn some_calls(cluster: &Cluster) {
    for call in 0..30 {
        let reply = cluster.call(call % 3, "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

/// A1b, A1i, A1q, A2: catches votes that go to others than the leader, a follower that proposes,
/// and nodes that learn in another way than from the leader's `Success`.
#[tokio::test]
async fn learning_from_the_leader() {
    let (cluster, taps) = tapped("leader-tells", &[]).await;
    let leader = cluster.leader().await;
    some_calls(&cluster).await;
    cluster.assert_agreement().await;
    assert_eq!(cluster.leader().await, leader, "the counts below are those of one leader");
    let counts = |message| (0..3).map(|from| sent(&taps, from, message)).collect::<Vec<_>>();
    for from in (0..3).filter(|node| *node != leader) {
        let to = taps[from][leader].as_ref().expect("another node");
        assert!(to.count("ExecuteFunction") >= 10, "a follower passes calls on: {:?}", counts("ExecuteFunction"));
        assert!(to.count("Voted") > 0, "{:?}", counts("Voted"));
        assert_eq!(sent(&taps, from, "Voted"), to.count("Voted"), "votes go to the leader only");
        assert_eq!(sent(&taps, from, "BeginBallot"), 0, "{:?}", counts("BeginBallot"));
        assert_eq!(sent(&taps, from, "Success"), 0, "{:?}", counts("Success"));
    }
    assert!(sent(&taps, leader, "BeginBallot") > 0 && sent(&taps, leader, "Success") > 0);
}

/// A3: the same cluster with votes to every learner. Catches a `Success` on the wire, a learner
/// that decides otherwise, and a mode that does not survive the death of the leader.
#[tokio::test]
async fn learning_from_the_voters() {
    let (mut cluster, taps) = tapped("voters-tell", &["protocol.learn_from=voters"]).await;
    some_calls(&cluster).await;
    let leader = cluster.leader().await;
    let votes: Vec<u64> = (0..3).map(|from| sent(&taps, from, "Voted")).collect();
    assert!(votes.iter().all(|votes| *votes > 0), "every acceptor tells the others: {votes:?}");
    cluster.kill9(leader);
    let other = cluster.living()[0];
    let reply = cluster.call(other, "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
    assert_eq!(reply.json()["result"], json!({"stock": 31}), "{}", reply.text());
    cluster.boot(leader);
    cluster.wait_ready().await;
    some_calls(&cluster).await;
    let history = cluster.assert_agreement().await;
    assert_eq!((history.last(), history.stock()), (61, 61));
    assert_eq!(sent_by_all(&taps, "Success"), 0, "claim 3 has no Success");
    assert!(sent_by_all(&taps, "BeginBallot") > 0, "the taps do see the protocol");
}

/// A3, A6: kills under load, with votes to every learner.
#[tokio::test]
async fn learning_from_the_voters_under_load() {
    let mut cluster = Cluster::start("voters", 3, &["protocol.learn_from=voters"]).await;
    let load = Load::start(&cluster, "load", 6).await;
    for _ in 0..4 {
        for killed in [cluster.leader().await, cluster.follower().await] {
            cluster.kill9(killed);
            load.progress(15).await;
            cluster.boot(killed);
            cluster.wait_ready().await;
        }
    }
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// A5: catches a window of one command that stops the cluster, lets two commands be under way
/// at once, or is forgotten by the next leader.
#[tokio::test]
async fn a_window_of_one_command() {
    let mut cluster = Cluster::start("window", 3, &["protocol.window=1"]).await;
    let load = Load::start(&cluster, "load", 6).await;
    let mut looks = 0;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        for _ in 0..10 {
            load.progress(3).await;
            let unissued = cluster.metric(leader, "quorate_leader_unissued_commands").await;
            assert!(unissued <= 1.0, "{unissued} commands are under way");
            looks += u32::from(unissued > 0.5);
        }
        cluster.kill9(leader);
        load.progress(15).await;
        cluster.boot(leader);
        cluster.wait_ready().await;
    }
    assert!(looks > 0, "the metric shows commands under way at least once");
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}
