//! The choices of `[protocol]`: how commands are learnt, and the window. A tap on every
//! connection sees what goes over the wire.

use quorate_tests::cluster::{Cluster, Load, Taps};
use serde_json::json;

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
    let mut cluster = Cluster::new("leader-tells", 3, &[]);
    let taps = Taps::between(&mut cluster).await;
    cluster.boot_all();
    cluster.wait_begun().await;
    let leader = cluster.leader().await;
    some_calls(&cluster).await;
    cluster.assert_agreement().await;
    assert_eq!(cluster.leader().await, leader, "the counts below are those of one leader");
    let counts = |message| (0..3).map(|from| taps.sent(from, message)).collect::<Vec<_>>();
    for from in (0..3).filter(|node| *node != leader) {
        let to = taps.link(from, leader);
        assert!(to.count("ExecuteFunction") >= 10, "a follower passes calls on: {:?}", counts("ExecuteFunction"));
        assert!(to.count("Voted") > 0, "{:?}", counts("Voted"));
        assert_eq!(taps.sent(from, "Voted"), to.count("Voted"), "votes go to the leader only");
        assert_eq!(taps.sent(from, "BeginBallot"), 0, "{:?}", counts("BeginBallot"));
        assert_eq!(taps.sent(from, "Success"), 0, "{:?}", counts("Success"));
    }
    assert!(taps.sent(leader, "BeginBallot") > 0 && taps.sent(leader, "Success") > 0);
}

/// A3: the same cluster with votes to every learner. Catches a `Success` on the wire, a learner
/// that decides otherwise, and a mode that does not survive the death of the leader.
#[tokio::test]
async fn learning_from_the_voters() {
    let mut cluster = Cluster::new("voters-tell", 3, &["protocol.learn_from=voters"]);
    let taps = Taps::between(&mut cluster).await;
    cluster.boot_all();
    cluster.wait_begun().await;
    some_calls(&cluster).await;
    let leader = cluster.leader().await;
    let votes: Vec<u64> = (0..3).map(|from| taps.sent(from, "Voted")).collect();
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
    assert_eq!(taps.sent_by_all("Success"), 0, "claim 3 has no Success");
    assert!(taps.sent_by_all("BeginBallot") > 0, "the taps do see the protocol");
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
    for _ in 0..2 {
        let leader = cluster.leader().await;
        for _ in 0..10 {
            load.progress(3).await;
            let unissued = cluster.metric(leader, "quorate_leader_unissued_commands").await;
            assert!(unissued <= 1.0, "{unissued} commands are under way");
        }
        cluster.kill9(leader);
        load.progress(15).await;
        cluster.boot(leader);
        cluster.wait_ready().await;
    }
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}
