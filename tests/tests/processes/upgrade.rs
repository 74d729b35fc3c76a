//! Two builds of Quorate in one cluster: a rolling upgrade, and the way back. ADR 0036.

use std::path::{Path, PathBuf};

use quorate_tests::cluster::{Cluster, Load, binary};
use quorate_tests::skip::skipped;

/// Acknowledged in each mixture of builds.
const CALLS: u64 = 300;

/// The binary of the commit that `tests/previous-version` names.
fn previous() -> Option<PathBuf> {
    std::env::var_os("PREVIOUS_BIN").map(PathBuf::from)
}

/// The leader last, as operators do it.
async fn replace_all(cluster: &mut Cluster, before: &Path, program: &Path, load: &Load) {
    let leader = cluster.leader().await;
    let others = (0..cluster.size()).filter(|node| *node != leader);
    let nodes: Vec<usize> = others.chain([leader]).collect();
    for (place, node) in nodes.iter().copied().enumerate() {
        cluster.terminate(node);
        assert!(cluster.ended(node).await.success(), "it stops as asked");
        cluster.boot_build(node, program);
        cluster.wait_ready().await;
        load.progress(CALLS).await;
        if place == 0 {
            crashes(cluster, nodes[1], before, load).await;
        }
    }
}

/// A crash while both builds run. (No change of the membership: the build of before knows none.)
async fn crashes(cluster: &mut Cluster, node: usize, build: &Path, load: &Load) {
    cluster.kill9(node);
    load.progress(CALLS).await;
    cluster.boot_build(node, build);
    cluster.wait_ready().await;
    load.progress(CALLS).await;
}

/// Catches a build that the one before does not understand, or the other way round: a frame, a record, a setting; in any
/// mixture of the two, with either leading. Callers of nodes that are up never see an error, and nothing that they were
/// told is lost.
#[tokio::test]
async fn a_cluster_is_upgraded_and_back_one_node_at_a_time_under_load() {
    let Some(previous) = previous() else {
        return skipped("an earlier build, `PREVIOUS_BIN`: `cargo xtask test` makes it where the history is there");
    };
    let mut cluster = Cluster::new("upgrade", 3, &[]);
    (0..3).for_each(|node| cluster.boot_build(node, &previous));
    cluster.wait_begun().await;
    let load = Load::start(&cluster, "load", 8).await;
    load.progress(CALLS).await;
    for (before, program) in [(previous.clone(), binary()), (binary(), previous.clone()), (previous, binary())] {
        replace_all(&mut cluster, &before, &program, &load).await;
    }
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}
