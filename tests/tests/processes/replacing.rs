//! Acceptors that fail are replaced by spares (ADR 0034).

use quorate_tests::cluster::{Cluster, Load, eventually};
use serde_json::json;

use crate::joining::voters;

/// Waits until `node` does not hear `other` any more.
async fn unheard(cluster: &Cluster, node: usize, other: u64) {
    eventually("a node that is not heard", async || {
        let view = cluster.get(node, "/v1/cluster").await.json();
        let nodes = view["nodes"].as_array()?;
        nodes.iter().any(|node| node["id"] == other && node["reachable"] == false).then_some(())
    })
    .await;
}

/// DESIGN 10: three acceptors and a spare. One acceptor is killed and comes back in time, and then the leader is killed and
/// does not. Clients call all the time. Catches a spare that asks for a vote, an acceptor that is replaced though it came back
/// (its time would be over first), one that is not replaced or still votes, and a call that fails or is lost meanwhile.
#[tokio::test]
async fn an_acceptor_that_does_not_come_back_is_replaced_by_a_spare() {
    // Long enough for a start on a busy machine.
    let mut cluster = Cluster::start_with_newcomers("replacing", 3, 1, &["membership.replace_after=5s"]).await;
    let mut spare = cluster.command(3);
    spare.args(["--set", "membership.spare=true"]);
    cluster.spawn(3, spare);
    cluster.wait_ready().await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(100).await;
    let failing = cluster.leader().await;
    let returning = (failing + 1) % 3;
    let id = |node: usize| u64::try_from(node).expect("a small number") + 1;

    cluster.kill9(returning);
    unheard(&cluster, failing, id(returning)).await;
    cluster.boot(returning);
    cluster.wait_ready().await;
    voters(&cluster, &[1, 2, 3]).await;
    cluster.kill9(failing);
    load.progress(50).await;
    let left: Vec<u64> = (1..=4).filter(|node| *node != id(failing)).collect();
    voters(&cluster, &left).await;
    load.progress(50).await;
    let mut replacements = 0.0;
    for node in cluster.living() {
        replacements += cluster.metric(node, "quorate_membership_replacements_total").await;
    }
    assert!(replacements >= 1.0, "nobody counts it");
    load.finish().await.assert_kept(&cluster.assert_agreement().await);

    // It is out for good, and the vote of the spare counts: with one of the others it carries the cluster.
    cluster.boot(failing);
    cluster.logged(failing, &["was removed from the cluster while it did not hear it"]).await;
    cluster.kill9(failing);
    cluster.kill9(returning);
    let put = cluster.call(3, "kv.put", &json!({"key": "k", "value": 1})).await;
    assert_eq!(put.status, 200, "{}", put.text());
    voters(&cluster, &left).await;
}
