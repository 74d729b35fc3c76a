//! A backup of a running cluster, and the new cluster that is made from it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_tests::cluster::{Cluster, Link, Load, Taps, eventually, quorate, send};
use serde_json::{Value, json};

fn run(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// The command, and that it does what it is asked.
fn done(command: Command) -> String {
    let (code, said) = run(command);
    assert_eq!(code, Some(0), "{said}");
    said
}

/// The same while the taps of this test go on.
async fn run_beside(command: Command) -> (Option<i32>, String) {
    tokio::task::spawn_blocking(move || run(command)).await.expect("it ends")
}

fn backup(cluster: &Cluster, node: usize, file: &Path) -> Command {
    let mut command = quorate();
    command.arg("backup").arg(file).args(["--url", &cluster.url(node, ""), "--output", "json"]);
    command
}

fn restore(cluster: &Cluster, node: usize, file: &Path) -> Command {
    cluster.command_of(node, &["restore", file.to_str().expect("plain names")])
}

fn dry_run(file: &Path) -> Command {
    let mut command = quorate();
    command.arg("restore").arg(file).args(["--dry-run", "--output", "json"]);
    command
}

/// RELIABILITY 5 class 15, S-18, A14: catches a backup that is not one state of the cluster, that
/// loses what was acknowledged before it began, that stops the calls, or a new cluster that forgets
/// request ids, counts anew, or whose nodes disagree.
#[tokio::test]
async fn a_backup_under_load_becomes_a_new_cluster_with_the_same_state() {
    let mut old = Cluster::start("old", 3, &[]).await;
    let goods = json!({"warehouse": "X", "amount": 5});
    let first = old.call_once(0, "before", "inventory.inbound", &goods).await;
    assert_eq!(first.status, 200, "{first:?}");
    let load = Load::start(&old, "load", 8).await;
    load.progress(500).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("monday.quorate");
    let leader = old.leader().await;
    let acknowledged = old.call_once(leader, "just-before", "kv.put", &json!({"key": "k", "value": 1})).await;
    assert_eq!(acknowledged.status, 200, "{acknowledged:?}");
    let told: Value = serde_json::from_str(&done(backup(&old, leader, &file))).expect("JSON");
    load.progress(500).await;
    let ledger = load.finish().await;
    let history = old.assert_agreement().await;
    let at = told["manifest"]["command"].as_u64().expect("a number");
    assert!(Some(at) >= acknowledged.command(), "{told} lacks what was acknowledged before it began");
    assert!(at < history.last(), "the calls went on meanwhile");
    assert_eq!(ledger.calls() as u64 + 2, history.last(), "no call was lost or doubled");
    let shown: Value = serde_json::from_str(&done(dry_run(&file))).expect("JSON");
    assert_eq!(shown["manifest"], told["manifest"]);

    let mut new = Cluster::new("new", 3, &[]);
    for node in 0..3 {
        done(restore(&new, node, &file));
    }
    new.boot_all();
    new.wait_begun().await;
    for node in 0..3 {
        let state = new.get(node, "/v1/state?limit=1000&consistency=local").await;
        assert_eq!(state.command(), Some(at));
        history.through(at).assert_state(&state.json());
        let digest = new.get(node, &format!("/v1/digest?at={at}")).await.json();
        assert_eq!(digest["digest"], told["manifest"]["digest"], "node {node}");
        assert_eq!(new.get(node, "/v1/commands?from=1").await.status, 410, "older commands are not in a backup");
    }
    let again = new.call_once(1, "before", "inventory.inbound", &goods).await;
    assert!(again.replayed(), "{again:?}");
    assert_eq!(again.command(), first.command());
    let next = new.call(2, "kv.put", &json!({"key": "k", "value": 2})).await;
    assert_eq!((next.status, next.command()), (200, Some(at + 1)), "{next:?}");
    // It is a cluster like any other: it survives its nodes.
    for node in 0..3 {
        new.kill9(node);
        new.boot(node);
        new.wait_ready().await;
    }
    let last = new.call(0, "kv.put", &json!({"key": "k", "value": 3})).await;
    assert_eq!((last.status, last.command()), (200, Some(at + 2)), "{last:?}");
    old.terminate(0);
}

/// RELIABILITY 5 class 15: a node is cut off while calls are acknowledged. Catches a backup of it that lacks them and does not
/// say so: while it is cut off, and once it hears the others and has not caught up.
#[tokio::test]
async fn a_backup_of_a_node_that_is_behind_waits_or_is_refused() {
    let mut cluster = Cluster::new("stale", 3, &["limits.wait_default=1s"]);
    let taps = Taps::between(&mut cluster).await;
    cluster.boot_all();
    cluster.wait_begun().await;
    let behind = cluster.follower().await;
    let others = [(behind + 1) % 3, (behind + 2) % 3];
    others.iter().for_each(|other| taps.set_both(behind, *other, Link::Closed));
    let put = json!({"function": "kv.put", "arguments": {"key": "k", "value": 1}});
    let calls = cluster.client().post(cluster.url(others[0], "/v1/calls")).json(&json!(vec![put; 200]));
    let acknowledged = send(calls).await.expect("it lives").command().expect("they change something");
    assert_eq!(acknowledged, 200);
    eventually("a node that knows that it hears nobody", async || {
        (cluster.get(behind, "/readyz").await.status == 503).then_some(())
    })
    .await;

    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    cluster.get(behind, "/v1/backup").await.assert_problem(503, "no_leader");
    let (code, said) = run_beside(backup(&cluster, behind, &path("refused"))).await;
    assert!(code == Some(1) && said.contains("no_leader"), "{code:?} {said}");
    assert!(!path("refused").exists());
    // Another node that is named has it.
    let mut either = quorate();
    let urls = [behind, others[0]].map(|node| cluster.url(node, "")).join(",");
    either.arg("backup").arg(path("either")).args(["--url", &urls, "--output", "json"]);
    let (code, said) = run_beside(either).await;
    assert_eq!(code, Some(0), "{said}");
    let told: Value = serde_json::from_str(&said).expect("JSON");
    assert!(told["manifest"]["command"].as_u64() >= Some(acknowledged), "{told}");
    assert_eq!(told["manifest"]["consistency"], "linearizable");

    let mut local = quorate();
    local.arg("backup").arg(path("local")).args(["--local", "--url", &cluster.url(behind, "")]);
    let (code, said) = run_beside(local).await;
    assert!(
        code == Some(0) && said.contains("at command 0") && said.contains("without asking a leader"),
        "{code:?} {said}"
    );
    let shown: Value = serde_json::from_str(&done(dry_run(&path("local")))).expect("JSON");
    assert_eq!(shown["manifest"]["consistency"], "local");

    others.iter().for_each(|other| taps.set_both(behind, *other, Link::Open));
    let told = eventually("a backup of the node that was behind", async || {
        let (code, said) = run_beside(backup(&cluster, behind, &path("whole"))).await;
        // Until it hears of a leader, and has caught up.
        assert!(code == Some(0) || said.contains("(HTTP 503)") || said.contains("(HTTP 504)"), "{code:?} {said}");
        (code == Some(0)).then_some(said)
    })
    .await;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert!(told["manifest"]["command"].as_u64() >= Some(acknowledged), "{told} lacks what was acknowledged before");
}

/// A cluster of three that was restored from a backup of another one, which has one command.
async fn restored(old: &str, new: &str) -> Cluster {
    let old = Cluster::start(old, 1, &[]).await;
    assert_eq!(old.call(0, "kv.put", &json!({"key": "k", "value": 1})).await.status, 200);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("backup");
    done(backup(&old, 0, &file));
    let mut new = Cluster::new(new, 3, &[]);
    for node in 0..3 {
        done(restore(&new, node, &file));
    }
    new.boot_all();
    new.wait_begun().await;
    new
}

/// Catches a node of the old cluster, or an empty one that was not restored, taken for one of the new
/// cluster: together they could decide again what the backup has decided. And advice that does not bring it back.
#[tokio::test]
async fn a_restored_cluster_takes_no_node_that_was_not_restored() {
    let mut new = restored("same", "same").await;
    new.kill9(2);
    fs::remove_dir_all(new.data_dir(2)).expect("removed");
    new.boot(2);
    new.give_up(2);
    assert_eq!(new.ended(2).await.code(), Some(1), "it waits for ever");
    new.logged(2, &["this node stops for good", "this name and another id", "quorate recover"]).await;
    new.boot(2);
    assert_eq!(new.ended(2).await.code(), Some(1), "it says the same again");
    new.logged(2, &["other nodes have refused", "for good", "quorate recover"]).await;
    new.wait_ready().await;
    assert_eq!(new.call(0, "kv.put", &json!({"key": "k", "value": 2})).await.command(), Some(2));
    // What the refusal says to do.
    done(new.command_of(2, &["recover"]));
    new.boot(2);
    new.wait_ready().await;
    assert_eq!(new.call(2, "kv.put", &json!({"key": "k", "value": 3})).await.status, 200);
}

/// RELIABILITY 3.12: catches a node of a restored cluster that was recovered and takes itself for the one that it was, so that
/// the others refuse it for good.
#[tokio::test]
async fn a_node_of_a_restored_cluster_can_be_recovered() {
    let mut new = restored("old", "new").await;
    let node = new.follower().await;
    new.kill9(node);
    done(new.command_of(node, &["recover", "--force"]));
    new.boot(node);
    new.wait_ready().await;
    eventually("a vote of its own", async || {
        let view = new.get(node, "/v1/cluster").await.json();
        let ids = view["membership"]["acceptors"].as_array()?.iter().map(|acceptor| acceptor["id"].as_u64());
        (ids.max() == Some(Some(4))).then_some(())
    })
    .await;
    assert_eq!(new.call(node, "kv.put", &json!({"key": "k", "value": 2})).await.status, 200);
}

/// S-13, RELIABILITY 5 class 6: `ORIGIN` of a node of a restored cluster is flipped, cut and lost in turn. Catches a node that takes
/// itself for one of another cluster, says that its data, whole as it is, is that of somebody else, or gives advice with which it
/// is given up; and advice that does not help.
#[tokio::test]
async fn a_damaged_origin_is_copied_from_another_node() {
    let mut new = restored("old", "new").await;
    let whole = fs::read(new.data_dir(0).join("ORIGIN")).expect("it was restored");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let damages = [
        (Some(&flipped[..]), "its content is not that of its checksum"),
        (Some(&whole[..whole.len() / 2]), "it has lost its checksum"),
        (None, "Only the ids of the clusters differ"),
    ];
    for (node, (left, says)) in damages.into_iter().enumerate() {
        new.kill9(node);
        let origin = new.data_dir(node).join("ORIGIN");
        match left {
            Some(left) => fs::write(&origin, left).expect("written"),
            None => fs::remove_file(&origin).expect("removed"),
        }
        new.boot(node);
        new.give_up(node);
        assert_eq!(new.ended(node).await.code(), Some(1), "{says}");
        new.logged(node, &[says, "ORIGIN", "from another node of the restored cluster"]).await;
        fs::copy(new.data_dir((node + 1) % 3).join("ORIGIN"), &origin).expect("copied");
        new.boot(node);
        new.wait_ready().await;
    }
    assert_eq!(new.call(0, "kv.put", &json!({"key": "k", "value": 2})).await.command(), Some(2));
}

/// RELIABILITY 5 class 15: catches a file that was cut, changed or made by somebody else being restored,
/// in part or whole, data that is overwritten, and a refusal that does not say what to do.
#[tokio::test]
async fn what_is_no_whole_backup_is_refused_before_anything_is_written() {
    let old = Cluster::start("refused", 1, &[]).await;
    for key in 0..20 {
        assert_eq!(old.call(0, "kv.put", &json!({"key": format!("k{key}"), "value": "v"})).await.status, 200);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let whole = path("whole");
    done(backup(&old, 0, &whole));
    let bytes = fs::read(&whole).expect("the backup");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let newer = [b"QRTBACK9", &bytes[8..]].concat();
    let files = [
        ("cut", bytes[..bytes.len() - 10].to_vec(), "cut off"),
        ("flipped", flipped, "damaged"),
        ("foreign", b"something else entirely".to_vec(), "no backup"),
        ("newer", newer, "newer version"),
        ("empty", Vec::new(), "no backup"),
    ];
    let new = Cluster::new("target", 1, &[]);
    for (name, bytes, why) in files {
        fs::write(path(name), bytes).expect("a file");
        for command in [restore(&new, 0, &path(name)), dry_run(&path(name))] {
            let (code, said) = run(command);
            assert!(code == Some(1) && said.contains(why), "{name}: {code:?} {said}");
        }
        assert!(!new.data_dir(0).exists(), "{name}: something was written");
    }
    // A name that is taken, on both sides.
    let (code, said) = run(backup(&old, 0, &whole));
    assert!(code == Some(2) && said.contains("--force"), "{said}");
    let (code, said) = run(restore(&old, 0, &whole));
    assert!(code == Some(2) && said.contains("not empty"), "{said}");
    assert_eq!(old.get(0, "/v1/state/k0").await.status, 200);
}

/// How far a restore has come: what it has written by then, below the data directory, and how many bytes of the state.
const PLACES: [(&str, u64); 8] = [
    ("RESTORING", 0),
    ("ORIGIN", 0),
    ("state/CURRENT", 0),
    ("log/CURRENT", 0),
    ("MARK", 0),
    ("IDENTITY", 0),
    ("IDENTITY", 1_000_000),
    ("IDENTITY", 3_000_000),
];

/// When a file was written, if it is there.
fn written(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|found| found.modified()).ok()
}

/// The bytes in the files of a directory.
fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}

/// RELIABILITY 1 (ALICE): the same for a restore that is killed at one place after the other: catches a directory that
/// is served, or cannot be mended by restoring once more.
#[tokio::test]
async fn a_restore_that_is_killed_can_be_repeated() {
    let old = Cluster::start("kill", 1, &[]).await;
    let value = "x".repeat(100_000);
    for key in 0..40 {
        assert_eq!(old.call(0, "kv.put", &json!({"key": format!("k{key}"), "value": value})).await.status, 200);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("backup");
    done(backup(&old, 0, &file));
    let mut new = Cluster::new("target", 1, &[]);
    let restoring = new.data_dir(0).join("RESTORING");
    let mut cut_short = 0;
    for (place, bytes) in PLACES {
        let place = new.data_dir(0).join(place);
        let before = written(&place);
        let mut command = restore(&new, 0, &file);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
        // What the one before has left does not count.
        let is_there = || written(&place).is_some_and(|now| Some(now) != before);
        while !(is_there() && bytes_in(&new.data_dir(0).join("state")) >= bytes)
            && child.try_wait().expect("our child").is_none()
        {
            std::thread::yield_now();
        }
        child.kill().expect("it can be killed, or has ended");
        child.wait().expect("our child");
        if !restoring.exists() {
            // It was quicker, and has made all.
            break;
        }
        cut_short += 1;
        let (code, said) = run(new.command(0));
        assert!(code == Some(1) && said.contains("quorate restore"), "{code:?} {said}");
    }
    // The first places lie before two databases are made: nothing is quicker than that.
    assert!(cut_short >= 3, "only {cut_short} were killed before they were done");
    if restoring.exists() {
        done(restore(&new, 0, &file));
    }
    new.boot_all();
    new.wait_begun().await;
    assert_eq!(new.get(0, "/v1/state/k39").await.status, 200);
    assert_eq!(new.call(0, "kv.put", &json!({"key": "k", "value": 2})).await.command(), Some(41));
}

/// RELIABILITY 1 (ALICE): catches a data directory that was made in part and is served, or that a second
/// restore does not mend. The first one is cut short by a limit on the size of its files.
#[tokio::test]
async fn a_restore_that_was_cut_short_is_not_served_and_can_be_repeated() {
    let old = Cluster::start("cut", 1, &[]).await;
    let value = "x".repeat(100_000);
    for key in 0..20 {
        assert_eq!(old.call(0, "kv.put", &json!({"key": format!("k{key}"), "value": value})).await.status, 200);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("backup");
    done(backup(&old, 0, &file));

    let mut new = Cluster::new("target", 1, &[]);
    let whole = restore(&new, 0, &file);
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"trap '' XFSZ && ulimit -f 1000 && exec "$@""#, "restore"]);
    limited.arg(whole.get_program()).args(whole.get_args());
    let (code, said) = run(limited);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = run(new.command(0));
    assert!(code == Some(1) && said.contains("quorate restore"), "{said}");
    done(whole);
    new.boot_all();
    new.wait_begun().await;
    assert_eq!(new.get(0, "/v1/state/k19").await.status, 200);
    assert_eq!(new.call(0, "kv.put", &json!({"key": "k", "value": 2})).await.command(), Some(21));
}

/// Catches two restores into one directory at a time, of which the second takes away what the first has written and is
/// refused by nothing. The first one is stopped in the middle, and goes on.
#[tokio::test]
async fn a_second_restore_is_refused_while_one_is_under_way() {
    let old = Cluster::start("twice", 1, &[]).await;
    let value = "x".repeat(100_000);
    for key in 0..20 {
        assert_eq!(old.call(0, "kv.put", &json!({"key": format!("k{key}"), "value": value})).await.status, 200);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("backup");
    done(backup(&old, 0, &file));

    let mut new = Cluster::new("target", 1, &[]);
    let mut first = restore(&new, 0, &file).stdout(Stdio::null()).spawn().expect("the binary runs");
    while !new.data_dir(0).join("RESTORING").exists() {
        assert!(first.try_wait().expect("our child").is_none(), "it ended");
        std::thread::yield_now();
    }
    let first_is = Pid::from_raw(i32::try_from(first.id()).expect("process ids are small"));
    kill(first_is, Signal::SIGSTOP).expect("it can be stopped");
    let (code, said) = run(restore(&new, 0, &file));
    assert!(code == Some(2) && said.contains("is under way"), "{code:?} {said}");
    kill(first_is, Signal::SIGCONT).expect("it goes on");
    assert!(first.wait().expect("our child").success());
    new.boot_all();
    new.wait_begun().await;
    assert_eq!(new.get(0, "/v1/state/k19").await.status, 200);
}
