//! Nodes that join a running cluster, come to vote, leave, and come back without their disk (DESIGN 10, ADR 0027).

use std::fs;
use std::process::Output;

use quorate_tests::cluster::{Cluster, Load, eventually};
use serde_json::json;

/// Waits until every living node knows exactly these acceptors, by id.
pub(crate) async fn voters(cluster: &Cluster, ids: &[u64]) {
    for node in cluster.living() {
        eventually("these acceptors at every node", async || {
            let view = cluster.try_get(node, "/v1/cluster").await.ok()?.json();
            let acceptors = view["membership"]["acceptors"].as_array()?;
            acceptors.iter().map(|acceptor| acceptor["id"].as_u64()).eq(ids.iter().map(|id| Some(*id))).then_some(())
        })
        .await;
    }
}

/// A1c, S-16: three nodes, then two more that join; two of the first are killed, and the votes of the newcomers carry the
/// cluster; one leaves as it stops and joins again, one loses its disk and joins again under its name. Clients call all the
/// time. Catches a failed call, a newcomer that does not come to vote, one that votes and does not know what was acknowledged,
/// an id that is given out twice, and a node that leaves and still counts.
#[tokio::test]
async fn nodes_join_vote_and_leave_under_load() {
    let mut cluster = Cluster::start_with_newcomers("joining", 3, 2, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(200).await;
    for node in [3, 4] {
        cluster.boot(node);
        cluster.wait_ready().await;
    }
    voters(&cluster, &[1, 2, 3, 4, 5]).await;
    load.progress(50).await;

    for node in [0, 1] {
        cluster.kill9(node);
    }
    load.progress(50).await;
    for node in [0, 1] {
        cluster.boot(node);
    }
    cluster.wait_ready().await;

    cluster.terminate(4);
    assert_eq!(cluster.ended(4).await.code(), Some(0));
    cluster.logged(4, &["this node has left the cluster"]).await;
    voters(&cluster, &[1, 2, 3, 4]).await;
    load.progress(50).await;
    cluster.boot(4);
    cluster.wait_ready().await;
    voters(&cluster, &[1, 2, 3, 4, 6]).await;

    cluster.kill9(3);
    fs::remove_dir_all(cluster.data_dir(3)).expect("removed");
    load.progress(50).await;
    cluster.boot(3);
    cluster.wait_ready().await;
    voters(&cluster, &[1, 2, 3, 6, 7]).await;
    load.progress(50).await;

    cluster.kill9(3);
    cluster.boot(3);
    cluster.wait_ready().await;
    voters(&cluster, &[1, 2, 3, 6, 7]).await;
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}

/// Catches a newcomer that waits for ever, or becomes a member, where it never could be one; and one that takes the place
/// of a node that runs.
#[tokio::test]
async fn who_cannot_join_is_told_why() {
    let cluster = Cluster::start_with_newcomers("refusing", 3, 1, &[]).await;
    for (setting, why) in [
        ("cluster.name=other", "belongs to cluster"),
        ("protocol.learn_from=voters", "protocol.learn_from"),
        ("cluster.members=d=127.0.0.1:1", "leave it out"),
        ("node.name=b", "there is already a node named b"),
    ] {
        let Output { status, stderr, .. } =
            cluster.command(3).args(["--set", setting]).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.code() == Some(2) && said.contains(why), "{setting}: {status} {said}");
    }
    voters(&cluster, &[1, 2, 3]).await;
    let nodes = cluster.get(0, "/v1/cluster").await.json()["nodes"].as_array().expect("a list").len();
    assert_eq!(nodes, 3, "nobody has joined");
}

/// Catches a node that waits to be taken in, for hours perhaps, and leaves all hanging meanwhile who look at it or call it.
#[tokio::test]
async fn a_newcomer_that_waits_says_so() {
    let mut cluster = Cluster::start_with_newcomers("waiting", 3, 1, &[]).await;
    cluster.kill9(1);
    cluster.kill9(2);
    cluster.boot(3);
    eventually("what it waits for", async || {
        let reply = cluster.try_get(3, "/readyz").await.ok()?;
        let says = reply.text().contains("[-]starting failed: no member has taken this node in yet");
        (reply.status == 503 && says).then_some(())
    })
    .await;
    assert_eq!(cluster.get(3, "/livez").await.status, 200);
    cluster.call(3, "kv.put", &json!({"key": "k", "value": 1})).await.assert_problem(503, "starting");
    cluster.boot(1);
    cluster.boot(2);
    cluster.wait_ready().await;
    voters(&cluster, &[1, 2, 3, 4]).await;
}

/// Catches a first node that needs the notes of those that came later, and a lost one that goes on as the cluster that it
/// began: two clusters of one id.
#[tokio::test]
async fn a_cluster_grows_from_one() {
    let mut cluster = Cluster::start_with_newcomers("growing", 1, 2, &[]).await;
    for node in [1, 2] {
        cluster.boot(node);
        cluster.wait_ready().await;
    }
    voters(&cluster, &[1, 2, 3]).await;
    cluster.kill9(2);
    cluster.kill9(0);
    cluster.boot(0);
    cluster.wait_ready().await;
    let put = cluster.call(0, "kv.put", &json!({"key": "k", "value": 1})).await;
    assert_eq!(put.status, 200, "{}", put.text());
    cluster.boot(2);
    cluster.wait_ready().await;

    cluster.kill9(0);
    fs::remove_dir_all(cluster.data_dir(0)).expect("removed");
    cluster.boot(0);
    cluster.logged(0, &["belongs to cluster"]).await;
    let kept = cluster.call(1, "kv.increment", &json!({"key": "k"})).await;
    assert_eq!(kept.json()["result"]["value"], 2, "{}", kept.text());
}

/// Catches a node that was removed while it was down and waits for ever, gives up what it has on one word, or comes back as
/// the node that it was; and one that is brought back though it heard of its removal while it ran.
#[tokio::test]
async fn a_node_that_was_removed_while_it_was_down_joins_anew() {
    let mut cluster = Cluster::start_with_newcomers("removed", 3, 1, &[]).await;
    cluster.boot(3);
    cluster.wait_ready().await;
    voters(&cluster, &[1, 2, 3, 4]).await;
    cluster.kill9(3);
    remove(&cluster, "d").await;
    voters(&cluster, &[1, 2, 3]).await;

    // Only one node is there to say so.
    cluster.freeze(1);
    cluster.freeze(2);
    cluster.boot(3);
    cluster.logged(3, &["cannot connect", "was removed from this cluster"]).await;
    let ready = eventually("an answer", async || cluster.try_get(3, "/readyz").await.ok()).await;
    assert!(!ready.text().contains("was removed"), "on one word: {}", ready.text());
    cluster.thaw(1);
    cluster.thaw(2);
    assert_eq!(cluster.ended(3).await.code(), Some(1));
    cluster.logged(3, &["this node was removed from the cluster while it did not hear it", "start it again"]).await;
    cluster.boot(3);
    cluster.wait_ready().await;
    voters(&cluster, &[1, 2, 3, 5]).await;

    let refusals = async |node| {
        cluster.metric(node, "quorate_transport_refused_total{side=\"listener\",reason=\"removed\"}").await
    };
    let before = [refusals(0).await, refusals(1).await, refusals(2).await];
    remove(&cluster, "d").await;
    let ready = eventually("a node that is not ready", async || {
        let reply = cluster.get(3, "/readyz").await;
        reply.text().contains("was removed from the cluster").then_some(reply)
    })
    .await;
    assert_eq!(ready.status, 503);
    for (node, before) in before.into_iter().enumerate() {
        eventually("a node that tells it so", async || (refusals(node).await > before).then_some(())).await;
    }
    cluster.terminate(3);
    assert_eq!(cluster.ended(3).await.code(), Some(0), "it ran on");
}

/// Removes a node for good.
async fn remove(cluster: &Cluster, name: &str) {
    eventually("a change of the membership", async || {
        let reply = cluster.call(0, "cluster.remove", &json!({"node": name})).await;
        assert!([200, 422].contains(&reply.status), "{}", reply.text());
        (reply.status == 200).then_some(())
    })
    .await;
}
