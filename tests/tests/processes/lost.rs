//! Damaged, lost and old disks: what heals by itself, what is refused, and `quorate recover` (ADR 0023).

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use quorate_tests::cluster::{Cluster, Load, eventually, quorate, send};
use serde_json::json;

use crate::joining::voters;

fn run(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

fn recover(cluster: &Cluster, node: usize, more: &[&str]) -> Command {
    cluster.command_of(node, &[&["recover"], more].concat())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The largest file of a database whose name ends so.
fn file(directory: &Path, end: &str) -> PathBuf {
    let files = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(end)));
    files.max_by_key(|path| fs::metadata(path).expect("a file").len()).expect("such a file")
}

fn flip(file: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(file).expect("readable");
    let at = at(bytes.len());
    bytes[at] ^= 0x55;
    fs::write(file, bytes).expect("written");
}

/// A call, and that it succeeds.
async fn serves(cluster: &Cluster, node: usize) {
    let reply = cluster.call(node, "kv.put", &json!({"key": "k", "value": 1})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// A call that cannot succeed, and that its caller is told so.
async fn cannot_serve(cluster: &Cluster, node: usize) {
    let request = cluster.client().post(cluster.url(node, "/v1/functions/kv.put"));
    let request = request.header("Prefer", "wait=3").json(&json!({"key": "k", "value": 1}));
    let status = send(request).await.expect("a living node answers").status;
    assert!(matches!(status, 503 | 504), "{status} of node {node}");
}

async fn says(cluster: &Cluster, node: usize, text: &str) {
    eventually(&format!("{text:?} of /readyz"), async || {
        cluster.try_get(node, "/readyz?verbose").await.ok()?.text().contains(text).then_some(())
    })
    .await;
}

/// A node of three is damaged while it is down, the others go on under load; it heals, and then its vote is needed.
async fn heals(name: &str, database: &str, damage: impl Fn(&Path)) {
    let mut cluster = Cluster::start(name, 3, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(400).await;
    let node = cluster.follower().await;
    cluster.kill9(node);
    load.progress(100).await;
    damage(&cluster.data_dir(node));
    cluster.boot(node);
    cluster.logged(node, &["a database is damaged and is begun anew", database]).await;
    cluster.wait_ready().await;
    says(&cluster, node, "[+]acceptor ok: promises and votes").await;
    let aside = fs::read_dir(cluster.data_dir(node)).expect("a directory");
    let aside = aside.filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().starts_with(&format!("{database}.damaged-"))
    });
    assert_eq!(aside.count(), 1, "what was damaged is kept");
    load.progress(100).await;
    let other = (0..3).find(|other| *other != node).expect("three nodes");
    cluster.kill9(other);
    load.progress(100).await;
    cluster.boot(other);
    cluster.wait_ready().await;
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}

/// S-13, S-15: catches a node with a damaged log that does not start, does not say so, votes before it may, never votes
/// again, or loses what was acknowledged.
#[tokio::test]
async fn a_damaged_log_heals_by_itself() {
    heals("damaged-log", "log", |dir| flip(&file(&dir.join("log"), ".log"), |length| length / 2)).await;
}

/// The same for the state, which the node learns again.
#[tokio::test]
async fn a_damaged_state_heals_by_itself() {
    heals("damaged-state", "state", |dir| flip(&file(&dir.join("state"), "MANIFEST"), |_| 9)).await;
}

/// Catches a node that began alone, so that nobody ever noted that it votes: in a cluster that has grown, with a damaged log,
/// it would be taken for a new one, and vote against what it has voted for.
#[tokio::test]
async fn a_node_that_began_alone_knows_later_that_it_has_voted() {
    let mut cluster = Cluster::start_with_newcomers("grown", 1, 2, &[]).await;
    serves(&cluster, 0).await;
    for node in [1, 2] {
        cluster.boot(node);
        cluster.wait_ready().await;
    }
    voters(&cluster, &[1, 2, 3]).await;
    serves(&cluster, 1).await;
    cluster.kill9(1);
    cluster.kill9(0);
    flip(&file(&cluster.data_dir(0).join("log"), ".log"), |length| length / 2);
    cluster.boot(0);
    cluster.logged(0, &["the acceptor of this node is silent", "its log was damaged"]).await;
    cannot_serve(&cluster, 2).await;
    cluster.boot(1);
    cluster.wait_ready().await;
    says(&cluster, 0, "[+]acceptor ok: promises and votes").await;
    serves(&cluster, 0).await;
    cluster.assert_agreement().await;
}

/// Catches a node that began alone, whose cluster's id stands in no configuration, and that cannot be started any more with
/// whole data when both copies of `MEMBERSHIP` are gone, be it alone still or in a cluster that has grown.
#[tokio::test]
async fn a_node_that_began_alone_starts_without_its_membership() {
    let mut cluster = Cluster::start_with_newcomers("founder", 1, 2, &[]).await;
    for grown in [false, true] {
        if grown {
            for node in [1, 2] {
                cluster.boot(node);
                cluster.wait_ready().await;
            }
            voters(&cluster, &[1, 2, 3]).await;
        }
        serves(&cluster, 0).await;
        cluster.kill9(0);
        for copy in ["MEMBERSHIP", "MEMBERSHIP.copy"] {
            fs::remove_file(cluster.data_dir(0).join(copy)).expect("removed");
        }
        cluster.boot(0);
        cluster.wait_ready().await;
        serves(&cluster, 0).await;
    }
    voters(&cluster, &[1, 2, 3]).await;
    cluster.assert_agreement().await;

    // With the state goes what it knew of the others: it must not begin anew as if it were alone.
    cluster.kill9(0);
    for copy in ["MEMBERSHIP", "MEMBERSHIP.copy"] {
        fs::remove_file(cluster.data_dir(0).join(copy)).expect("removed");
    }
    fs::remove_dir_all(cluster.data_dir(0).join("state")).expect("removed");
    cluster.boot(0);
    assert_eq!(cluster.ended(0).await.code(), Some(1), "{}", cluster.log(0));
    for text in ["no other node to learn from", "it has known 2, 3", "set `cluster.join` to some of them"] {
        assert!(cluster.log(0).contains(text), "{text} is missing in: {}", cluster.log(0));
    }
    serves(&cluster, 1).await;
}

/// RELIABILITY 3.12, 6 row 3: catches a node that lost its disk and votes, that is refused without saying what to do,
/// that forgets the refusal, or that after `recover` is the same node, does not serve all that was acknowledged, or never
/// votes again.
#[tokio::test]
async fn a_lost_disk_is_refused_and_its_node_joins_anew() {
    let mut cluster = Cluster::start("lost", 3, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(300).await;
    let node = cluster.follower().await;
    cluster.kill9(node);
    fs::remove_dir_all(cluster.data_dir(node)).expect("removed");
    cluster.boot(node);
    cluster.give_up(node);
    assert_eq!(cluster.ended(node).await.code(), Some(1));
    cluster.logged(node, &["refuses this node for its disk", "another disk", "quorate recover"]).await;
    let (code, said) = run(cluster.command(node));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("other nodes have refused") && said.contains("quorate recover"), "{said}");

    let (code, said) = run(recover(&cluster, node, &["--dry-run"]));
    assert!(code == Some(0) && said.contains("nothing was changed"), "{said}");
    recovered(&mut cluster, node, 4, &[]).await;
    load.progress(100).await;
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
    serves(&cluster, node).await;

    let other = (0..3).find(|other| *other != node).expect("three nodes");
    cluster.kill9(other);
    serves(&cluster, node).await;
    cluster.kill9(node);
    cluster.boot(node);
    cluster.wait_ready().await;
    serves(&cluster, node).await;
    let (code, said) = run(recover(&cluster, other, &[]));
    assert!(code == Some(2) && said.contains("--force"), "a disk that can be used is not given up: {code:?} {said}");
    cluster.boot(other);
    cluster.wait_ready().await;
    serves(&cluster, node).await;
}

/// Gives up the disk of a node, and waits until it votes under another id.
async fn recovered(cluster: &mut Cluster, node: usize, id: u64, more: &[&str]) {
    let (code, said) = run(recover(cluster, node, more));
    assert!(code == Some(0) && said.contains("joins its cluster as a new one"), "{code:?} {said}");
    cluster.boot(node);
    cluster.wait_ready().await;
    eventually("a vote", async || {
        let view = cluster.get(node, "/v1/cluster").await.json();
        let acceptors = view["membership"]["acceptors"].as_array()?.iter();
        let ids: Vec<u64> = acceptors.filter_map(|acceptor| acceptor["id"].as_u64()).collect();
        (ids.len() == 3 && ids[2] == id).then_some(())
    })
    .await;
}

/// Catches a disk that is lost once each node of the list was recovered before, so that nobody knows another disk of the id
/// under which it comes: it waits for ever, or `recover` says to start it; a recovered node that has lost both copies of
/// `MEMBERSHIP` and that neither starts nor can be recovered; and warnings of lists that differ, at each of these starts.
#[tokio::test]
async fn a_disk_that_is_lost_after_all_were_recovered_is_refused() {
    let mut cluster = Cluster::start("again", 3, &[]).await;
    for node in 0..3 {
        serves(&cluster, 0).await;
        cluster.kill9(node);
        recovered(&mut cluster, node, 4 + node as u64, &["--force"]).await;
    }
    cluster.kill9(1);
    fs::remove_dir_all(cluster.data_dir(1)).expect("removed");
    cluster.boot(1);
    cluster.give_up(1);
    assert_eq!(cluster.ended(1).await.code(), Some(1));
    cluster.logged(1, &["refuses this node for its disk", "is node 5 by now", "quorate recover"]).await;
    eventually("a line in the log of a member", async || {
        let told = |node| cluster.log(node).contains("is node 5 by now");
        (told(0) || told(2)).then_some(())
    })
    .await;
    recovered(&mut cluster, 1, 7, &[]).await;
    serves(&cluster, 1).await;

    cluster.kill9(1);
    for copy in ["MEMBERSHIP", "MEMBERSHIP.copy"] {
        fs::remove_file(cluster.data_dir(1).join(copy)).expect("removed");
    }
    cluster.boot(1);
    cluster.wait_ready().await;
    says(&cluster, 1, "[+]acceptor ok: promises and votes").await;
    cluster.kill9(0);
    serves(&cluster, 1).await;
    assert!(cluster.data_dir(1).join("MEMBERSHIP").exists());
    for node in 0..3 {
        let log = cluster.log(node);
        let strangers = ["is not a member", "expects node", "`cluster.members` differs"];
        let warned = log.lines().find(|line| line.contains("WARN") && strangers.iter().any(|text| line.contains(text)));
        assert_eq!(warned, None);
    }
}

/// Catches a disk that is lost when the two others have other ids than its list says, and who hears of that only: it waits
/// for ever, and what is said of it points at a healthy node.
#[tokio::test]
async fn a_disk_that_is_lost_after_the_others_were_recovered_is_refused() {
    let mut cluster = Cluster::start("last", 3, &[]).await;
    for node in 0..2 {
        serves(&cluster, 2).await;
        cluster.kill9(node);
        recovered(&mut cluster, node, 4 + node as u64, &["--force"]).await;
    }
    serves(&cluster, 2).await;
    cluster.kill9(2);
    fs::remove_dir_all(cluster.data_dir(2)).expect("removed");
    cluster.boot(2);
    cluster.give_up(2);
    assert_eq!(cluster.ended(2).await.code(), Some(1));
    cluster.logged(2, &["refuses this node for its disk", "another disk", "quorate recover"]).await;
    recovered(&mut cluster, 2, 6, &[]).await;
    serves(&cluster, 2).await;
}

/// Catches two damaged logs of three nodes, with which nobody can be elected, that are said to heal by themselves; advice
/// that does not help; and a `/readyz`, or a table of the nodes, that does not name the reason.
#[tokio::test]
async fn a_majority_of_damaged_logs_is_said_not_to_heal() {
    let mut cluster = Cluster::start("majority", 3, &[]).await;
    for _ in 0..20 {
        serves(&cluster, 0).await;
    }
    let at = cluster.assert_agreement().await.last();
    (0..3).for_each(|node| cluster.kill9(node));
    for node in [0, 1] {
        flip(&file(&cluster.data_dir(node).join("log"), ".log"), |length| length / 2);
    }
    cluster.boot_all();
    for (node, other) in [(0, "b"), (1, "a")] {
        says(
            &cluster,
            node,
            "[-]acceptor failed: silent (damaged): its log was damaged, and votes may be lost; silent",
        )
        .await;
        says(&cluster, node, &format!("silent, too: {other},")).await;
        cluster.logged(node, &["the acceptor of this node is silent", "silent, too", "quorate backup --local"]).await;
        let silent = r#"quorate_acceptor_silent{reason="damaged"}"#;
        assert_eq!(cluster.metric(node, silent).await, 1.0, "what the alert goes by");
    }
    let said = cluster.get(0, "/readyz").await;
    assert!(
        said.status == 503
            && said.text().contains("[-]leader failed")
            && said.text().contains("this node (damaged), b;")
    );
    says(&cluster, 2, "none can be elected while these acceptors are silent: a, b;").await;
    let url = cluster.url(0, "");
    let client = |words: &[&str]| {
        let mut command = quorate();
        command.args(words).args(["--url", &url]);
        command
    };
    let (code, said) = run(client(&["status"]));
    assert!(code == Some(0) && said.contains("up, silent: log damaged") && said.contains("up, silent  "), "{said}");
    let place = tempfile::tempdir().expect("a directory");
    let last = place.path().join("last").to_str().expect("a plain name").to_owned();
    let (code, said) = run(client(&["backup", "--local", &last]));
    assert!(code == Some(0) && said.contains(&format!("at command {at},")), "{said}");
    cluster.kill9(1);
    let (code, said) = run(recover(&cluster, 1, &["--dry-run"]));
    assert!(code == Some(2) && said.contains("as long as a majority set of the others votes"), "{code:?} {said}");
}

/// RELIABILITY 6 row 3: catches a node that goes on with an old copy of its data directory.
#[tokio::test]
async fn an_old_copy_of_a_disk_is_refused() {
    let mut cluster = Cluster::start("old", 3, &[]).await;
    serves(&cluster, 0).await;
    let node = cluster.follower().await;
    cluster.kill9(node);
    let old = tempfile::tempdir().expect("a directory");
    copy(&cluster.data_dir(node), &old.path().join("copy"));
    cluster.boot(node);
    cluster.wait_ready().await;
    serves(&cluster, 0).await;
    cluster.kill9(node);
    let newest = old.path().join("newest");
    fs::rename(cluster.data_dir(node), &newest).expect("moved");
    copy(&old.path().join("copy"), &cluster.data_dir(node));
    cluster.boot(node);
    assert_eq!(cluster.ended(node).await.code(), Some(1));
    cluster.logged(node, &["refuses this node for its disk", "old copy", "quorate recover"]).await;
    // The disk that it had is taken.
    fs::remove_dir_all(cluster.data_dir(node)).expect("removed");
    copy(&newest, &cluster.data_dir(node));
    cluster.boot(node);
    cluster.wait_ready().await;
    says(&cluster, node, "[+]acceptor ok: promises and votes").await;
    serves(&cluster, node).await;
}

/// The same for a copy, such as a snapshot of a volume, that was made of the leader while it ran: it was started as often as
/// the original, and what the leader votes nobody hears from messages of the protocol.
#[tokio::test]
async fn an_old_copy_of_the_leaders_disk_is_refused() {
    let mut cluster = Cluster::start("old-leader", 3, &[]).await;
    serves(&cluster, 0).await;
    let node = cluster.leader().await;
    let old = tempfile::tempdir().expect("a directory");
    cluster.freeze(node);
    copy(&cluster.data_dir(node), old.path());
    cluster.thaw(node);
    let synced = async || cluster.metric(node, "quorate_acceptor_syncs_total").await;
    let before = synced().await;
    serves(&cluster, node).await;
    eventually("its own vote", async || (synced().await > before).then_some(())).await;
    // The heartbeat that says what it has applied then says how far it has voted.
    let last = cluster.call(node, "kv.put", &json!({"key": "k", "value": 2})).await.command();
    for other in (0..3).filter(|other| *other != node) {
        eventually("a heartbeat after the last vote", async || {
            let nodes = cluster.get(other, "/v1/cluster").await.json()["nodes"].clone();
            (nodes[node]["applied"].as_u64() >= last).then_some(())
        })
        .await;
    }
    cluster.kill9(node);
    fs::remove_dir_all(cluster.data_dir(node)).expect("removed");
    copy(old.path(), &cluster.data_dir(node));
    cluster.boot(node);
    assert_eq!(cluster.ended(node).await.code(), Some(1));
    cluster.logged(node, &["refuses this node for its disk", "old copy", "quorate recover"]).await;
    serves(&cluster, (node + 1) % 3).await;
}

/// A second process of a node, on a copy of its directory and ports of its own: how it ends.
async fn beside(cluster: &Cluster, node: usize, data_dir: &Path) -> (Option<i32>, String) {
    let ports = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [http, peer] = ports.map(|port| port.local_addr().expect("it is bound"));
    let mut command = cluster.command(node);
    for setting in
        [format!("node.data_dir={}", data_dir.display()), format!("listen.http={http}"), format!("listen.peer={peer}")]
    {
        command.arg("--set").arg(setting);
    }
    command.arg("--stop-with-parent").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("the binary runs");
    eventually("the end of the copy", async || process.try_wait().expect("our child")).await;
    let Output { status, stdout, stderr } = process.wait_with_output().expect("it has ended");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// Catches a copy of a directory, started beside the node that runs, that gets in, is noted as the disk of the node and
/// so ends the node for good; one that does not say why it stops, or is refused for good itself.
#[tokio::test]
async fn a_copy_beside_a_running_node_stops_and_the_node_goes_on() {
    let mut cluster = Cluster::start("beside", 3, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(100).await;
    let node = cluster.follower().await;
    let directory = tempfile::tempdir().expect("a directory");
    let twin = directory.path().join("copy");
    cluster.freeze(node);
    copy(&cluster.data_dir(node), &twin);
    cluster.thaw(node);
    cluster.wait_ready().await;
    // The second time, too: the first start of the copy has noted nothing, neither there nor at the others.
    for _ in 0..2 {
        let (code, said) = beside(&cluster, node, &twin).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("is connected already with another process; stop one of them"), "{said}");
        assert!(!said.contains("quorate recover") && !said.contains("for good"), "{said}");
        load.progress(100).await;
        cluster.wait_ready().await;
    }
    // The vote of the node is needed, then the node starts again, at once after a crash.
    let other = (0..3).find(|other| *other != node).expect("three nodes");
    cluster.kill9(other);
    load.progress(100).await;
    cluster.boot(other);
    cluster.wait_ready().await;
    cluster.kill9(node);
    cluster.boot(node);
    cluster.wait_ready().await;
    says(&cluster, node, "[+]acceptor ok: promises and votes").await;
    load.progress(100).await;
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}

/// Catches a first start that does not say for whom it waits, goes on without that node, or does not go on with it.
#[tokio::test]
async fn the_first_start_waits_for_the_other_nodes_and_says_so() {
    let mut cluster = Cluster::new("first", 3, &[]);
    cluster.boot(0);
    cluster.boot(1);
    for node in [0, 1] {
        cluster.logged(node, &["the acceptor of this node is silent", "2 of the other nodes"]).await;
        says(&cluster, node, "does not count): c").await;
    }
    cannot_serve(&cluster, 0).await;
    cluster.boot(2);
    cluster.wait_ready().await;
    serves(&cluster, 0).await;
    // From then on two are enough, once both have been noted: a ready node may still be silent.
    cluster.wait_begun().await;
    for node in 0..3 {
        cluster.kill9(node);
    }
    cluster.boot(0);
    cluster.boot(1);
    cluster.wait_ready().await;
    serves(&cluster, 0).await;
}

/// RELIABILITY 1 (ALICE): catches a recovery that is killed and leaves a directory that is served, or cannot be finished.
#[tokio::test]
async fn a_killed_recovery_is_not_served_and_can_be_repeated() {
    let mut cluster = Cluster::start("killed", 3, &[]).await;
    serves(&cluster, 0).await;
    let node = cluster.follower().await;
    cluster.kill9(node);
    let begun = cluster.data_dir(node).join("RECOVERING");
    let mut cut_short = 0;
    for _ in 0..20 {
        let mut command = recover(&cluster, node, &["--force"]);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
        while !begun.exists() && process.try_wait().expect("our child").is_none() {
            std::thread::yield_now();
        }
        let _ = process.kill();
        process.wait().expect("a killed process ends");
        if begun.exists() {
            cut_short += 1;
            let (code, said) = run(cluster.command(node));
            assert!(code == Some(1) && said.contains("quorate recover"), "{code:?} {said}");
            if cut_short == 3 {
                break;
            }
        }
    }
    assert!(cut_short > 0, "every one was quicker");
    let (code, said) = run(recover(&cluster, node, &["--force"]));
    assert_eq!(code, Some(0), "{said}");
    cluster.boot(node);
    cluster.wait_ready().await;
    serves(&cluster, node).await;
}
