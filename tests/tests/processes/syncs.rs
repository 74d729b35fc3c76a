//! Syncs that fail, under real processes: strace answers them with EIO in the place of the kernel. Where there is no
//! strace, or none of our processes may be traced, these tests are skipped, and say so.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use quorate_tests::cluster::{Cluster, Load, eventually, send};
use quorate_tests::skip::skipped;
use serde_json::json;

/// Calls that must be acknowledged after each change.
const CALLS: u64 = 30;
/// RELIABILITY 5, class 6.
const ENDS_WITHIN: f64 = 2.0;

fn strace() -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-ttt", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]);
    command
}

/// Whether processes can be traced here.
fn can_fail() -> bool {
    let tried = strace().args(["-o", "/dev/null", "true"]).output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        skipped("strace, and the right to trace");
    }
    can
}

/// A disk whose syncs fail from now on.
struct Failing {
    tracer: Child,
    said: PathBuf,
}

impl Failing {
    fn begin(cluster: &Cluster, node: usize) -> Self {
        let said = cluster.data_dir(node).with_extension("strace");
        let mut command = strace();
        command.arg("-o").arg(&said).arg("-p").arg(cluster.pid(node).to_string());
        let tracer = command.stderr(Stdio::null()).spawn().expect("it was tried");
        Self { tracer, said }
    }

    /// Waits for the tracer's end, and says how long the process lived after the first sync that failed, in seconds.
    async fn lived(mut self) -> f64 {
        _ = eventually("the end of strace", async || self.tracer.try_wait().expect("our child")).await;
        let text = std::fs::read_to_string(&self.said).expect("what strace saw");
        let first = text.lines().find(|line| line.contains("(INJECTED)")).expect("a sync was answered with an error");
        let last = text.lines().rfind(|line| line.contains("+++ ")).expect("the process ended");
        let time = |line: &str| -> f64 { line.split_whitespace().nth(1).expect("a time").parse().expect("seconds") };
        time(last) - time(first)
    }
}

fn assert_ended_for_its_disk(cluster: &Cluster, node: usize, code: Option<i32>) {
    let log = cluster.log(node);
    assert_eq!(code, Some(1), "{log}");
    let line = log.lines().rfind(|line| line.starts_with("quorate: ")).expect("a last line");
    assert!(line.contains("Input/output error") && line.contains("Mend the disk"), "{line}");
    assert!(!log.contains("panicked"), "it is an end with a reason, not a crash");
}

/// RELIABILITY 5 class 6, A6, S-12: catches a node that retries a sync that has failed (the second one succeeds, and
/// what the first one lost stays lost), that acknowledges from memory, lingers, or cannot come back.
#[tokio::test]
async fn a_node_whose_syncs_fail_ends_and_comes_back() {
    if !can_fail() {
        return;
    }
    let mut cluster = Cluster::start("eio", 3, &[]).await;
    let load = Load::start(&cluster, "load", 6).await;
    for leads in [false, true] {
        load.progress(CALLS).await;
        let node = if leads { cluster.leader().await } else { cluster.follower().await };
        cluster.give_up(node);
        let failing = Failing::begin(&cluster, node);
        let status = cluster.ended(node).await;
        let lived = failing.lived().await;
        assert!(lived < ENDS_WITHIN, "it lived on for {lived} s");
        assert_ended_for_its_disk(&cluster, node, status.code());
        load.progress(CALLS).await;
        cluster.boot(node);
        cluster.wait_ready().await;
    }
    load.progress(CALLS).await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// The same at a majority. Catches a call that is acknowledged although no majority has it on disk, and one that was
/// and is not there afterwards.
#[tokio::test]
async fn a_majority_whose_syncs_fail_acknowledges_nothing_more() {
    if !can_fail() {
        return;
    }
    let mut cluster = Cluster::start("eio-majority", 3, &[]).await;
    let put = |value: u64| json!({"key": "k", "value": value});
    for value in 1..=CALLS {
        assert_eq!(cluster.call(0, "kv.put", &put(value)).await.status, 200);
    }
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let left = (0..3).find(|node| ![leader, follower].contains(node)).expect("three nodes");
    // They may sync before strace has them, so that the first calls may still be acknowledged.
    let failing = [leader, follower].map(|node| (node, Failing::begin(&cluster, node)));
    let mut acknowledged: BTreeSet<u64> = (1..=CALLS).collect();
    let url = cluster.url(left, "/v1/functions/kv.put");
    for value in CALLS + 1.. {
        let call = cluster.client().post(&url).header("Prefer", "wait=1").json(&put(value));
        match send(call).await.expect("this node lives").status {
            200 => _ = acknowledged.insert(value),
            503 | 504 => break,
            other => panic!("status {other}"),
        }
    }
    for (node, failing) in failing {
        let status = cluster.ended(node).await;
        assert_ended_for_its_disk(&cluster, node, status.code());
        let lived = failing.lived().await;
        assert!(lived < ENDS_WITHIN, "node {node} lived on for {lived} s");
    }
    cluster.boot_all();
    cluster.wait_begun().await;
    let history = cluster.assert_agreement().await;
    let kept: BTreeSet<u64> = history
        .commands()
        .iter()
        .map(|command| command["effects"][0]["put"]["value"].as_u64().expect("a number"))
        .collect();
    assert!(acknowledged.is_subset(&kept), "lost: {:?}", acknowledged.difference(&kept));
    assert_eq!(kept.len(), history.commands().len(), "nothing twice");
}
