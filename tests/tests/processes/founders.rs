//! Nodes that began their cluster alone and have lost their disk: nobody refuses them, since they know nobody (ADR 0039).

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use quorate_tests::cluster::{Cluster, eventually};
use serde_json::json;

use crate::joining::voters;

async fn serves(cluster: &Cluster, node: usize) {
    let reply = cluster.call(node, "kv.put", &json!({"key": "k", "value": 1})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

fn run(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// How often a node has begun to take calls.
fn lives(cluster: &Cluster, node: usize) -> usize {
    cluster.log(node).matches("the node runs").count()
}

/// One that began alone, and two that have joined it.
async fn grown(name: &str) -> Cluster {
    let mut cluster = Cluster::start_with_newcomers(name, 1, 2, &[]).await;
    for node in [1, 2] {
        cluster.boot(node);
        cluster.wait_ready().await;
    }
    voters(&cluster, &[1, 2, 3]).await;
    serves(&cluster, 0).await;
    cluster
}

/// Ends the node that began alone, with all that it has, and starts it again.
fn wipe(cluster: &mut Cluster) {
    cluster.kill9(0);
    fs::remove_dir_all(cluster.data_dir(0)).expect("removed");
    cluster.boot(0);
}

/// The node ends with code 1, and a line with all of these.
async fn ends_with(cluster: &mut Cluster, texts: &[&str]) {
    assert_eq!(cluster.ended(0).await.code(), Some(1));
    let log = cluster.log(0);
    let last = log.lines().rfind(|line| line.starts_with("quorate: ")).unwrap_or_default();
    assert!(texts.iter().all(|text| last.contains(text)), "{last}");
}

/// The node ends, says why, and says it again at each start.
async fn is_claimed(cluster: &mut Cluster) {
    let says = ["another cluster of this name calls this node", "cluster.join", "quorate recover --force", "CLAIMED"];
    ends_with(cluster, &[&says[..], &["this node stops for good"]].concat()).await;
    for _ in 0..2 {
        cluster.boot(0);
        ends_with(cluster, &[&says[..], &["node.data_dir"]].concat()).await;
    }
}

/// Catches a node that began alone, whose configuration names nobody, and that loses its disk once others have joined it: it
/// takes calls for a second, empty cluster of the same name, and does not say how it comes back; and advice that does not help.
#[tokio::test]
async fn a_founder_without_its_disk_takes_no_call_and_joins_those_who_joined_it() {
    let mut cluster = grown("founder").await;
    wipe(&mut cluster);
    cluster.give_up(0);
    is_claimed(&mut cluster).await;
    assert_eq!(lives(&cluster, 0), 1, "it took calls");
    eventually("a line in the log of who called it", async || {
        let told = |node| cluster.log(node).contains("the same name and another id");
        (told(1) || told(2)).then_some(())
    })
    .await;

    let join = format!("cluster.join={},{}", cluster.peer_address(1), cluster.peer_address(2));
    let joins = ["--set", "cluster.members=", "--set", &join];
    let (code, said) = run(cluster.command_of(0, &[&["recover", "--force"], &joins[..]].concat()));
    assert!(code == Some(0) && said.contains("joins its cluster as a new one"), "{code:?} {said}");
    joins_anew(&mut cluster, &joins).await;
}

/// The node that was wiped, with these settings: it is a voter under another id, and serves.
async fn joins_anew(cluster: &mut Cluster, settings: &[&str]) {
    let mut command = cluster.command(0);
    command.args(settings);
    cluster.spawn(0, command);
    cluster.wait_ready().await;
    voters(cluster, &[2, 3, 4]).await;
    serves(cluster, 0).await;
    cluster.assert_agreement().await;
}

/// The same where the advice is taken without `recover`: nothing was ever served from that disk.
#[tokio::test]
async fn a_founder_without_its_disk_joins_at_once_where_it_is_told_whom() {
    let mut cluster = grown("founder-joins").await;
    wipe(&mut cluster);
    cluster.give_up(0);
    assert_eq!(cluster.ended(0).await.code(), Some(1));
    let join = format!("cluster.join={}", cluster.peer_address(2));
    joins_anew(&mut cluster, &["--set", "cluster.members=", "--set", &join]).await;
}

/// Catches a node that takes calls for a second cluster and goes on when those who know it as theirs are back, or that is
/// served by its next start; one whose data cannot be reached any more when the other cluster is the one to go; and one that
/// stops although others have joined it since.
#[tokio::test]
async fn a_founder_that_is_called_later_stops_until_an_operator_says_which_cluster_stays() {
    let mut cluster = grown("founder-later").await;
    cluster.kill9(1);
    cluster.kill9(2);
    wipe(&mut cluster);
    cluster.wait_ready().await;
    serves(&cluster, 0).await;
    cluster.boot(1);
    cluster.give_up(0);
    is_claimed(&mut cluster).await;

    cluster.kill9(1);
    fs::remove_file(cluster.data_dir(0).join("CLAIMED")).expect("removed");
    cluster.boot(0);
    cluster.wait_ready().await;
    assert_eq!(cluster.get(0, "/v1/state/k").await.text(), "1", "what it had taken");
    // Somebody joins it: this one stays.
    fs::remove_dir_all(cluster.data_dir(2)).expect("removed");
    cluster.boot(2);
    cluster.wait_ready().await;
    voters(&cluster, &[1, 2]).await;
    cluster.boot(1);
    cluster.logged(0, &["refused a connection", "the same name and another id"]).await;
    let calls =
        async || cluster.metric(0, "quorate_transport_refused_total{side=\"listener\",reason=\"other_cluster\"}").await;
    let before = calls().await;
    eventually("more calls of the other cluster", async || (calls().await > before + 5.0).then_some(())).await;
    serves(&cluster, 0).await;
}

fn empty_but_for(dir: &Path, kept: &[&str]) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        if kept.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let removed =
            if entry.path().is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.expect("removed");
    }
}

/// Catches a node that is its whole cluster, has lost all but the file that says whose its directory is, and begins again with
/// nothing under the id of before, as if nothing had been.
#[tokio::test]
async fn a_lone_node_that_lost_its_databases_says_so() {
    let mut cluster = Cluster::start("alone", 1, &[]).await;
    serves(&cluster, 0).await;
    cluster.kill9(0);
    empty_but_for(&cluster.data_dir(0), &["MEMBERSHIP"]);
    for _ in 0..2 {
        cluster.boot(0);
        ends_with(&mut cluster, &["has lost its databases", "quorate restore"]).await;
    }
    empty_but_for(&cluster.data_dir(0), &[]);
    cluster.boot(0);
    cluster.wait_ready().await;
    assert_eq!(cluster.get(0, "/v1/state/k").await.status, 404);
}
