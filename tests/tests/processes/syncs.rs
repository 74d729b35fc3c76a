//! Syncs that fail, or take long, under real processes: strace answers them with EIO in the place of the kernel, or holds
//! the answer back. Where there is no strace, or none of our processes may be traced, these tests are skipped, and say so.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_tests::cluster::{Cluster, Load, eventually, send};
use quorate_tests::skip::skipped;
use serde_json::json;

/// Calls that must be acknowledged after each change.
const CALLS: u64 = 30;
/// RELIABILITY 5, class 6.
const ENDS_WITHIN: f64 = 2.0;
/// The same.
const SLOW: Syncs = Syncs::Take(300_000);

/// Longer than this test.
const HANGS: Syncs = Syncs::Take(600_000_000);

/// What becomes of syncs.
#[derive(Clone, Copy, Debug)]
enum Syncs {
    Fail,
    /// The first of each thread: whoever tries again is told that all is well, and what the first one lost stays lost.
    FailOnce,
    /// They are done, and take this many microseconds more.
    Take(u32),
}

fn strace(syncs: Syncs) -> Command {
    let how = match syncs {
        Syncs::Fail => "error=EIO".to_owned(),
        Syncs::FailOnce => "error=EIO:when=1".to_owned(),
        Syncs::Take(microseconds) => format!("delay_exit={microseconds}"),
    };
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-ttt", "-e", "trace=fsync,fdatasync"]);
    command.args(["-e", &format!("inject=fsync,fdatasync:{how}")]);
    command
}

/// Whether processes can be traced here.
fn can_be_traced() -> bool {
    let tried = strace(Syncs::Fail).args(["-o", "/dev/null", "true"]).output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        skipped("strace, and the right to trace");
    }
    can
}

/// A node whose syncs are not what they seem, from now on.
struct Tampered {
    tracer: Child,
    said: PathBuf,
}

impl Tampered {
    /// Comes back when it is so for every thread of the node.
    async fn begin(cluster: &Cluster, node: usize, syncs: Syncs) -> Self {
        let said = cluster.data_dir(node).with_extension("strace");
        let pid = cluster.pid(node);
        let mut command = strace(syncs);
        command.arg("-o").arg(&said).arg("-p").arg(pid.to_string());
        let tracer = command.stderr(Stdio::null()).spawn().expect("it was tried");
        // New threads are traced from their beginning, once this one is that made them.
        eventually("strace at all threads", async || is_traced(pid).then_some(())).await;
        Self { tracer, said }
    }

    /// Lets the node be.
    fn end(mut self) {
        let tracer = Pid::from_raw(self.tracer.id().try_into().expect("a process id"));
        kill(tracer, Signal::SIGTERM).expect("our child");
        self.tracer.wait().expect("our child");
    }

    /// Waits for the tracer's end, and says how long the process lived after the first sync of a role that failed, in seconds.
    async fn lived(mut self) -> f64 {
        _ = eventually("the end of strace", async || self.tracer.try_wait().expect("our child")).await;
        let text = std::fs::read_to_string(&self.said).expect("what strace saw");
        let first = text
            .lines()
            .find(|line| line.contains("(INJECTED)") && !line.contains("/PROBE>"))
            .expect("a sync was answered with an error");
        let last = text.lines().rfind(|line| line.contains("+++ ")).expect("the process ended");
        let time = |line: &str| -> f64 { line.split_whitespace().nth(1).expect("a time").parse().expect("seconds") };
        time(last) - time(first)
    }
}

/// Whether each thread of a process is traced, or has ended.
fn is_traced(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok()).all(|status| {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        field("TracerPid:") != "0" || field("State:").starts_with(['Z', 'X'])
    })
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
    if !can_be_traced() {
        return;
    }
    let mut cluster = Cluster::start("eio", 3, &[]).await;
    let load = Load::start(&cluster, "load", 6).await;
    for (leads, syncs) in [(false, Syncs::Fail), (true, Syncs::Fail), (false, Syncs::FailOnce), (true, Syncs::FailOnce)]
    {
        load.progress(CALLS).await;
        let node = if leads { cluster.leader().await } else { cluster.follower().await };
        cluster.give_up(node);
        let tampered = Tampered::begin(&cluster, node, syncs).await;
        let status = cluster.ended(node).await;
        let lived = tampered.lived().await;
        assert!(lived < ENDS_WITHIN, "{syncs:?}, leads: {leads}: it lived on for {lived} s");
        assert_ended_for_its_disk(&cluster, node, status.code());
        load.progress(CALLS).await;
        cluster.boot(node);
        cluster.wait_ready().await;
    }
    load.progress(CALLS).await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// The same at a majority. Catches a call that is acknowledged although no majority has it on disk, be it that nobody
/// looked whether the sync has failed, or tried again; and one that was and is not there afterwards.
#[tokio::test]
async fn a_majority_whose_syncs_fail_acknowledges_nothing_more() {
    if can_be_traced() {
        fails_at_a_majority(Syncs::Fail).await;
    }
}

/// The same where whoever tries again is told that all is well.
#[tokio::test]
async fn a_majority_of_whose_syncs_the_first_fail_acknowledges_nothing_more() {
    if can_be_traced() {
        fails_at_a_majority(Syncs::FailOnce).await;
    }
}

async fn fails_at_a_majority(syncs: Syncs) {
    let mut cluster = Cluster::start("eio-majority", 3, &[]).await;
    let put = |value: u64| json!({"key": "k", "value": value});
    for value in 1..=CALLS {
        assert_eq!(cluster.call(0, "kv.put", &put(value)).await.status, 200);
    }
    // Nothing is left to be synced when the first call comes that must fail.
    cluster.assert_agreement().await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let left = (0..3).find(|node| ![leader, follower].contains(node)).expect("three nodes");
    cluster.give_up(leader);
    cluster.give_up(follower);
    let tampered = [
        (leader, Tampered::begin(&cluster, leader, syncs).await),
        (follower, Tampered::begin(&cluster, follower, syncs).await),
    ];
    let url = cluster.url(left, "/v1/functions/kv.put");
    let call = cluster.client().post(&url).header("Prefer", "wait=3").json(&put(CALLS + 1));
    let status = send(call).await.expect("this node lives").status;
    assert!([503, 504].contains(&status), "only one node can have it on its disk: {status}");
    for (node, tampered) in tampered {
        let status = cluster.ended(node).await;
        assert_ended_for_its_disk(&cluster, node, status.code());
        let lived = tampered.lived().await;
        assert!(lived < ENDS_WITHIN, "node {node} lived on for {lived} s");
    }
    cluster.boot_all();
    cluster.wait_begun().await;
    let history = cluster.assert_agreement().await;
    let values = history.commands().iter().map(|command| command["effects"][0]["put"]["value"].as_u64());
    let kept: Vec<u64> = values.map(|value| value.expect("a number")).collect();
    let acknowledged: Vec<u64> = (1..=CALLS).collect();
    assert!(kept.starts_with(&acknowledged), "some are lost: {kept:?}");
    assert!(kept.len() <= acknowledged.len() + 1, "something twice: {kept:?}");
}

/// RELIABILITY 5 class 6: catches a node that is taken for dead, or gives up, while its disk is only slow; and heartbeats,
/// or a lead, that wait for a disk.
#[tokio::test]
async fn slow_syncs_cost_time_and_nothing_else() {
    if !can_be_traced() {
        return;
    }
    let cluster = Cluster::start("slow", 3, &[]).await;
    let leader = cluster.leader().await;
    let load = Load::start(&cluster, "load", 6).await;
    load.progress(CALLS).await;
    let mut slow = Vec::new();
    for node in [cluster.follower().await, leader] {
        slow.push(Tampered::begin(&cluster, node, SLOW).await);
        load.progress(CALLS).await;
    }
    let took = cluster.metric(leader, "quorate_acceptor_sync_seconds_sum").await;
    load.progress(CALLS).await;
    let took = cluster.metric(leader, "quorate_acceptor_sync_seconds_sum").await - took;
    assert!(took >= 0.3, "no sync was slow: {took} s");
    assert_eq!(cluster.leader().await, leader, "the lead has changed");
    assert_eq!(cluster.metric(leader, "quorate_leader_elections_won_total").await, 1.0, "{}", cluster.log(leader));
    slow.into_iter().for_each(Tampered::end);
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// Catches a node that says it is ready while a role of it waits for a disk that hangs, and one that is not ready again when
/// the disk goes on.
#[tokio::test]
async fn a_node_whose_disk_hangs_is_not_ready() {
    if !can_be_traced() {
        return;
    }
    let cluster = Cluster::start("hangs", 3, &[]).await;
    let load = Load::start(&cluster, "load", 6).await;
    load.progress(CALLS).await;
    let node = cluster.follower().await;
    let hangs = Tampered::begin(&cluster, node, HANGS).await;
    let said = eventually("a role that hangs", async || {
        let reply = cluster.get(node, "/readyz").await;
        (reply.status == 503 && reply.text().contains("[-]roles failed")).then(|| reply.text())
    });
    let said = said.await;
    assert!(said.contains("[-]roles failed: the acceptor has answered nothing for "), "{said}");
    assert_eq!(cluster.get(node, "/livez").await.status, 200, "a start would not mend the disk");
    load.progress(CALLS).await;
    hangs.end();
    cluster.wait_ready().await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// S-34: the same where nobody has anything to write. Catches a node that is ready as long as nobody needs it.
#[tokio::test]
async fn a_node_whose_disk_hangs_is_not_ready_while_nothing_is_written_either() {
    if !can_be_traced() {
        return;
    }
    let cluster = Cluster::start("idle-hangs", 3, &[]).await;
    let node = cluster.follower().await;
    let hangs = Tampered::begin(&cluster, node, HANGS).await;
    let said = eventually("a disk that hangs", async || {
        let reply = cluster.get(node, "/readyz").await;
        (reply.status == 503).then(|| reply.text())
    });
    let said = said.await;
    assert!(said.contains("[-]disk failed: ") && said.contains("PROBE is being written and synced for "), "{said}");
    assert!(said.contains("[+]roles ok"), "{said}");
    hangs.end();
    cluster.wait_ready().await;
}

/// RELIABILITY 1 (ALICE): catches a file `IDENTITY`, which says that the data directory is there as a whole, that is durable
/// before the names on the way to it are: a power cut would take those, and all that the node had promised.
#[tokio::test]
async fn a_data_directory_is_whole_when_the_way_to_it_is_durable() {
    if !can_be_traced() {
        return;
    }
    let cluster = Cluster::new("deep", 1, &[]);
    let (top, said) = (cluster.data_dir(0), cluster.data_dir(0).with_extension("strace"));
    let data = top.join("a/b");
    let serve = cluster.command(0);
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2", "-o"]).arg(&said);
    command.arg(serve.get_program()).args(serve.get_args()).arg("--stop-with-parent");
    command.arg("--set").arg(format!("node.data_dir={}", data.display()));
    let mut node = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it was tried");
    eventually("a data directory", async || data.join("IDENTITY").exists().then_some(())).await;
    drop(node.stdin.take());
    node.wait().expect("our child");
    let text = std::fs::read_to_string(&said).expect("what strace saw");
    let (before, _) = text.split_once("IDENTITY.new\"").expect("it was written aside and renamed");
    let made = std::fs::canonicalize(&top).expect("it is there");
    for above in [made.parent().expect("a directory"), &made, &made.join("a")] {
        let synced = format!("<{}>", above.display());
        let is_synced = before.lines().any(|line| line.contains("fsync(") && line.contains(&synced));
        assert!(is_synced, "{synced} was not synced before: {before}");
    }
}
