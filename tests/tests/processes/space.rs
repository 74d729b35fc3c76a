//! Disks that fill up. Each node has a small file system of its own; where that cannot be, these tests
//! are skipped, and say so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_tests::cluster::{Cluster, History, Load, eventually, send, small_disks};
use quorate_tests::skip::skipped;
use serde_json::json;
use tokio::task::JoinHandle;

/// A disk with room for a start of RocksDB, which takes 36 MiB at once for files that it has yet to write.
const DISK: u64 = 96;
const SOFT: u64 = 16 << 20;
const HARD: u64 = 8 << 20;
/// Between the two, and below both.
const LOW: u64 = 12 << 20;
const OUT: u64 = 4 << 20;
/// Calls, or refusals, that show that there is something to be seen.
const SOME: u64 = 30;

/// Three nodes, each on a small disk. `None` where there can be none.
async fn on_small_disks(name: &str) -> Option<Cluster> {
    on_disks(name, DISK, &[&format!("storage.soft_free={SOFT}B"), &format!("storage.hard_free={HARD}B")]).await
}

/// The same, on disks of so many mebibytes and with these settings.
async fn on_disks(name: &str, mebibytes: u64, settings: &[&str]) -> Option<Cluster> {
    if let Err(why) = small_disks() {
        skipped(&format!("root, loop devices and mkfs.ext4 ({why})"));
        return None;
    }
    let mut cluster = Cluster::new(name, 3, settings);
    for node in 0..cluster.size() {
        cluster.boot_on_small_disk(node, mebibytes);
    }
    cluster.wait_ready().await;
    Some(cluster)
}

/// Clients that write values of their own, each told apart from all others, whatever comes of it.
struct Writers {
    tasks: Vec<JoinHandle<BTreeMap<String, Came>>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug)]
enum Came {
    /// It is that command.
    Issued(u64),
    /// It was told that it never will be executed.
    NotExecuted,
    Unknown,
}

impl Writers {
    fn start(cluster: &Cluster, clients: usize) -> Self {
        let (stop, done, refused) = (Arc::default(), Arc::default(), Arc::default());
        let mut writers = Self { tasks: Vec::new(), stop, done, refused };
        for client in 0..clients {
            let url = cluster.url(client % cluster.size(), "/v1/functions/kv.put");
            let (http, stop) = (cluster.client().clone(), Arc::clone(&writers.stop));
            let (done, refused) = (Arc::clone(&writers.done), Arc::clone(&writers.refused));
            writers.tasks.push(tokio::spawn(async move {
                let mut all = BTreeMap::new();
                for round in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let value = format!("{client}/{round}");
                    let put = http.post(&url).json(&json!({"key": format!("k{client}"), "value": value}));
                    let reply = send(put).await.expect("no node dies of a full disk");
                    let came = match reply.status {
                        200 => {
                            done.fetch_add(1, Ordering::SeqCst);
                            Came::Issued(reply.command().expect("it changes something"))
                        }
                        507 if reply.json()["outcome"] == "not_executed" => {
                            reply.assert_problem(507, "disk_full");
                            refused.fetch_add(1, Ordering::SeqCst);
                            Came::NotExecuted
                        }
                        503 | 504 | 507 if reply.json()["outcome"] == "unknown" => Came::Unknown,
                        _ => panic!("{value}: {reply:?}"),
                    };
                    all.insert(value, came);
                }
                all
            }));
        }
        writers
    }

    async fn more(&self, counter: &AtomicU64, what: &str) {
        let wanted = counter.load(Ordering::SeqCst) + SOME;
        eventually(what, async || {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            (failed || counter.load(Ordering::SeqCst) >= wanted).then_some(())
        })
        .await;
        assert!(self.tasks.iter().all(|task| !task.is_finished()), "a client has failed");
    }

    /// Checks that each write, and each of `others`, came to what its client was told, once, and that none
    /// of those that were refused came to anything.
    async fn finish(self, others: [(&str, Came); 1], history: impl AsyncFnOnce() -> History) {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = BTreeMap::from(others.map(|(value, came)| (value.to_owned(), came)));
        for task in self.tasks {
            all.extend(task.await.expect("every client got its answers"));
        }
        let history = history().await;
        let mut issued: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (command, number) in history.commands().iter().zip(1..) {
            let value = command["effects"][0]["put"]["value"].as_str().expect("each puts a text");
            issued.entry(value).or_default().push(number);
        }
        for (value, came) in &all {
            let numbers = issued.remove(value.as_str()).unwrap_or_default();
            match came {
                Came::Issued(number) => assert_eq!(numbers, [*number], "{value}"),
                Came::NotExecuted => assert!(numbers.is_empty(), "{value} was refused, and is {numbers:?}"),
                Came::Unknown => assert!(numbers.len() <= 1, "{value}: {numbers:?}"),
            }
        }
        assert_eq!(issued.len(), 0, "nobody asked for these: {issued:?}");
    }
}

async fn says_space(cluster: &Cluster, node: usize, space: &str) {
    eventually(&format!("node {node} with {space} space"), async || {
        let view = send(cluster.client().get(cluster.url(node, "/v1/cluster"))).await.ok()?.json();
        let own = view["nodes"].as_array()?.get(node)?;
        (own["space"] == space).then_some(())
    })
    .await;
}

/// A linearizable read through every node.
async fn assert_reads_go_on(cluster: &Cluster) {
    for node in cluster.living() {
        let read = cluster.get(node, "/v1/state/k0").await;
        assert_eq!(read.status, 200, "{}", read.text());
    }
}

/// RELIABILITY 5.6, S-22, S-35: catches a disk that is filled to the brim by calls, so that nodes die; a call
/// that is refused and applied all the same; a refusal that is not final, or called final while another copy may
/// be; reads and elections that stop with the calls; a node that does not say why; and calls that do not go on by
/// themselves when there is room.
#[tokio::test]
async fn calls_stop_before_the_disks_are_full_and_go_on_when_there_is_room() {
    let Some(cluster) = on_small_disks("full").await else { return };
    let writers = Writers::start(&cluster, 6);
    writers.more(&writers.done, "calls that are issued").await;
    for node in 0..cluster.size() {
        cluster.fill_disk(node, LOW);
    }
    writers.more(&writers.refused, "calls that are refused").await;
    for node in 0..cluster.size() {
        says_space(&cluster, node, "low").await;
        let ready = cluster.get(node, "/readyz").await;
        assert!(ready.status == 503 && ready.text().contains("storage.soft_free is 16.0 MiB"), "{}", ready.text());
        assert_eq!(cluster.get(node, "/livez").await.status, 200);
        assert!(cluster.metric(node, "quorate_disk_below_soft").await > 0.5);
        cluster.logged(node, &["the disk is almost full", "make room"]).await;
    }
    assert_reads_go_on(&cluster).await;
    let put = json!({"key": "named", "value": "once"});
    let named = cluster.call_once(1, "named", "kv.put", &put).await;
    let problem = named.json();
    assert_eq!((named.status, &problem["code"], &problem["outcome"]), (507, &json!("disk_full"), &json!("unknown")));

    // Nobody has room to vote or to apply. What was there is still there.
    for node in 0..cluster.size() {
        cluster.fill_disk(node, OUT);
        says_space(&cluster, node, "out").await;
    }
    writers.more(&writers.refused, "calls that are refused").await;
    assert_reads_go_on(&cluster).await;

    for node in 0..cluster.size() {
        cluster.empty_disk(node);
    }
    cluster.wait_ready().await;
    writers.more(&writers.done, "calls that are issued again").await;
    assert_eq!(cluster.call_once(2, "named", "kv.put", &put).await.status, 200);
    let named = Came::Issued(cluster.call_once(0, "named", "kv.put", &put).await.command().expect("a command"));
    writers.finish([("once", named)], async || cluster.assert_agreement().await).await;
}

/// A6, A13, RELIABILITY 5.6: catches a node that cannot start on a full disk, a leader that is not elected
/// because promises find no room, reads that stop with it, and calls that do not go on afterwards.
#[tokio::test]
async fn nodes_start_and_lead_on_full_disks() {
    let Some(mut cluster) = on_small_disks("brim").await else { return };
    let put = |value: u64| json!({"key": "k0", "value": value});
    for value in 1..=SOME {
        assert_eq!(cluster.call(0, "kv.put", &put(value)).await.status, 200);
    }
    // All have applied it: without room a node that has not would not.
    cluster.assert_agreement().await;
    for node in 0..cluster.size() {
        cluster.fill_disk(node, OUT);
        says_space(&cluster, node, "out").await;
    }
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.kill9(leader);
        cluster.leader().await;
        assert_reads_go_on(&cluster).await;
        cluster.boot_on_small_disk(leader, DISK);
        says_space(&cluster, leader, "out").await;
        cluster.leader().await;
        assert_reads_go_on(&cluster).await;
    }
    let node = cluster.leader().await;
    cluster.call(node, "kv.put", &put(0)).await.assert_problem(507, "disk_full");
    for node in 0..cluster.size() {
        cluster.empty_disk(node);
    }
    cluster.wait_ready().await;
    assert_eq!(cluster.call(node, "kv.put", &put(SOME + 1)).await.status, 200);
    let history = cluster.assert_agreement().await;
    assert_eq!((history.last(), history.state()["k0"].0), (SOME + 1, &json!(SOME + 1)));
}

/// RELIABILITY 5.6: catches a cluster that refuses calls, or fails one, while a majority set has room: a lead that
/// stays where there is none, calls that are refused on the way to another leader, a node without room that
/// is waited for; one that dies, and one that does not catch up when it has room again.
#[tokio::test]
async fn a_minority_without_room_is_not_noticed() {
    let Some(mut cluster) = on_small_disks("minority").await else { return };
    let load = Load::start(&cluster, "load", 6).await;
    load.progress(SOME).await;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.fill_disk(leader, LOW);
        says_space(&cluster, leader, "low").await;
        eventually("another leader", async || (cluster.leader().await != leader).then_some(())).await;
        load.progress(SOME).await;
        cluster.fill_disk(leader, OUT);
        says_space(&cluster, leader, "out").await;
        load.progress(SOME).await;
        let applied = cluster.metric(leader, "quorate_learner_applied").await;
        load.progress(SOME).await;
        assert!(cluster.metric(leader, "quorate_learner_applied").await - applied < 0.5, "it applies without room");
        cluster.empty_disk(leader);
        cluster.wait_ready().await;
        load.progress(SOME).await;
    }
    // One that was away too, and finds no room when it is back.
    let follower = cluster.follower().await;
    cluster.fill_disk(follower, OUT);
    says_space(&cluster, follower, "out").await;
    cluster.kill9(follower);
    load.progress(SOME).await;
    cluster.boot_on_small_disk(follower, DISK);
    says_space(&cluster, follower, "out").await;
    load.progress(SOME).await;
    cluster.empty_disk(follower);
    cluster.wait_ready().await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// A6, S-12, RELIABILITY 5.6: another program takes the last block of a leader's disk, faster than any mark can tell.
/// Catches a node that goes on after a write that found no room, or acknowledges one; an end without exit code 1 and a line
/// that says why; and data that cannot be opened when there is room again.
#[tokio::test]
async fn a_leader_whose_disk_is_full_to_the_last_block_ends() {
    let settings = ["storage.soft_free=1B", "storage.hard_free=0B"];
    let Some(mut cluster) = on_disks("brim", DISK, &settings).await else { return };
    let load = Load::start(&cluster, "load", 6).await;
    load.progress(SOME).await;
    let leader = cluster.leader().await;
    cluster.give_up(leader);
    cluster.fill_disk(leader, 64 << 10);
    let status = cluster.ended(leader).await;
    let log = cluster.log(leader);
    assert_eq!(status.code(), Some(1), "{status}");
    let line = log.lines().find(|line| line.starts_with("quorate: ")).expect("a last line");
    assert!(line.contains("No space left on device") && line.contains("Make room on the disk"), "{line}");
    assert!(!log.contains("panicked"), "it is an end with a reason, not a crash");
    load.progress(SOME).await;
    cluster.empty_disk_at_rest(leader).await;
    cluster.boot_on_small_disk(leader, DISK);
    cluster.wait_ready().await;
    load.progress(SOME).await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// Text that nothing compresses much.
struct Noise(u64);

impl Noise {
    fn text(&mut self, length: usize) -> String {
        let next = || {
            // An xorshift: any order without a pattern does.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            char::from(b'0' + (self.0 % 64) as u8)
        };
        std::iter::repeat_with(next).take(length).collect()
    }
}

/// A13, RELIABILITY 5.6: catches disks that a history has filled, and that stay full when it is old: calls are refused, so
/// that nothing is written, and what is forgotten takes its space until something is. And a backup that is begun without
/// room.
#[tokio::test]
async fn calls_go_on_when_the_history_that_filled_the_disks_is_old() {
    const MIB: u64 = 1 << 20;
    // Above the mark there is room for some seconds of these calls; between the marks for what is in memory.
    let settings = ["storage.soft_free=96MiB", "storage.hard_free=16MiB", "history.retention=8s"];
    let Some(cluster) = on_disks("history", 256, &settings).await else { return };
    for node in 0..cluster.size() {
        cluster.fill_disk(node, (96 + 30) * MIB);
    }
    let put = |value: &str| json!({"key": "k0", "value": value});
    let mut noise = Noise(1);
    // Twice: the first time writing out what is in memory may be enough.
    for _ in 0..2 {
        for call in 0.. {
            let reply = cluster.call(0, "kv.put", &put(&noise.text(300_000))).await;
            assert!(call < 1_000, "the disk does not fill");
            // The lead went away under it with the room of the first disk; of a call without a key nobody knows more.
            if ![200, 504].contains(&reply.status) {
                reply.assert_problem(507, "disk_full");
                break;
            }
        }
        // Refused calls write nothing; the one that is taken comes when the space is back, by itself.
        eventually("a call that is taken again", async || {
            (cluster.call(0, "kv.put", &put("small")).await.status == 200).then_some(())
        })
        .await;
        cluster.wait_ready().await;
    }
    for node in 0..cluster.size() {
        for (metric, above) in [("quorate_history_kept_from", 1.0), ("quorate_votes_forgotten_through", 0.5)] {
            eventually(&format!("{metric}: what is old is forgotten"), async || {
                (cluster.metric(node, metric).await > above).then_some(())
            })
            .await;
        }
    }

    let follower = cluster.follower().await;
    cluster.fill_disk(follower, 8 * MIB);
    says_space(&cluster, follower, "out").await;
    cluster.get(follower, "/v1/backup").await.assert_problem(507, "disk_full");
    cluster.empty_disk(follower);
    cluster.wait_ready().await;
    assert_eq!(cluster.get(follower, "/v1/backup").await.status, 200);
}

/// RELIABILITY 5 class 6, A6: catches a node that goes on, and answers, when its file system has become read-only, as ext4
/// does at an error of its own; and one that does not say so. No sync is under way then: ext4 may say of one that it is
/// done, and lose it (docs/operations.md, section 7).
#[tokio::test]
async fn a_node_whose_disk_becomes_read_only_ends() {
    let Some(mut cluster) = on_small_disks("read-only").await else { return };
    let mut written = 0;
    for leads in [false, true] {
        write_some(&cluster, &mut written).await;
        cluster.assert_agreement().await;
        let node = if leads { cluster.leader().await } else { cluster.follower().await };
        cluster.give_up(node);
        cluster.disk_becomes_read_only(node);
        write_some(&cluster, &mut written).await;
        let status = tokio::time::timeout(Duration::from_secs(2), cluster.ended(node)).await.expect("it ends soon");
        let log = cluster.log(node);
        assert_eq!(status.code(), Some(1), "{log}");
        let line = log.lines().rfind(|line| line.starts_with("quorate: ")).expect("a last line");
        // The journal is gone first, for who syncs.
        let says = ["Read-only file system", "Input/output error"].iter().any(|text| line.contains(text));
        assert!(says && line.contains("Mend the disk"), "{line}");
        write_some(&cluster, &mut written).await;
        cluster.boot_on_small_disk(node, DISK);
        cluster.wait_ready().await;
    }
    let history = cluster.assert_agreement().await;
    assert_eq!(history.last(), written, "each call is one command");
}

/// Calls at one node after the other, each until it is told 200, under a key of its own.
async fn write_some(cluster: &Cluster, written: &mut u64) {
    let mut nodes = (0..cluster.size()).cycle();
    for _ in 0..SOME {
        *written += 1;
        let key = format!("write-{written}");
        eventually("a write", async || {
            let url = cluster.url(nodes.next()?, "/v1/functions/kv.put");
            let call =
                cluster.client().post(url).header("Idempotency-Key", &key).json(&json!({"key": key, "value": 1}));
            send(call).await.is_ok_and(|reply| reply.status == 200).then_some(())
        })
        .await;
    }
}
