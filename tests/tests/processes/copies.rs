//! Nodes that are killed while a state is copied, checkpoints are open and old commands are forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_tests::cluster::{Cluster, eventually, send};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::states::assert_votes_are_elsewhere;

/// So few that a node which was away needs a whole state, and that something is forgotten every second.
pub(super) const KEPT: &str = "history.commands=20";
/// So slow that whoever looks finds a state on its way, on a busy machine too.
pub(super) const PACE: &str = "storage.receive_rate=8MiB";
/// Writes that must be acknowledged after each change.
const CALLS: u64 = 40;
/// Those before the first change.
const FILLING: u64 = 100;
/// Bytes of a value: a state takes some twenty pieces then.
pub(super) const VALUE: usize = 200_000;
/// The same where states are to be small.
const SMALL: usize = 1_000;
/// What a state is larger than.
const STATE: f64 = 20e6;
/// What a node has applied.
const APPLIED: &str = "quorate_learner_applied";
/// Counts what a node has sent of whole states since it began.
const SENT: &str = "quorate_snapshot_sent_bytes_total";

/// Clients that each write keys of their own, and ask on with the same idempotency key until they are told 200.
pub(super) struct Writers {
    tasks: Vec<JoinHandle<u64>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Writers {
    /// `size`: bytes of each value.
    pub(super) fn start(cluster: &Cluster, clients: usize, size: usize) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |client: usize| {
            let (urls, http) = (cluster.urls(), cluster.client().clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                for round in 0.. {
                    let key = format!("{client}/{round}");
                    let put = json!({"key": key, "value": format!("{key} {}", "x".repeat(size))});
                    for asked in 0.. {
                        let url = format!("{}/v1/functions/kv.put", urls[(client + asked) % urls.len()]);
                        let call = http.post(url).header("Idempotency-Key", &key).json(&put);
                        if send(call).await.is_ok_and(|reply| reply.status == 200) {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                    if stop.load(Ordering::SeqCst) {
                        return round + 1;
                    }
                }
                unreachable!("rounds do not end")
            })
        };
        let tasks = (0..clients).map(client).collect();
        Self { tasks, stop, done }
    }

    pub(super) async fn progress(&self, calls: u64) {
        let wanted = self.done.load(Ordering::SeqCst) + calls;
        eventually("writes", async || (self.done.load(Ordering::SeqCst) >= wanted).then_some(())).await;
    }

    /// Checks that each write that was acknowledged is there on every node, and that the nodes have one state.
    pub(super) async fn finish(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::SeqCst);
        // A node may have begun to copy a state: a read would wait for that, and not for ever.
        for node in 0..cluster.size() {
            let done = self.done.load(Ordering::SeqCst) as f64;
            eventually("a node to catch up", async || (cluster.metric(node, APPLIED).await >= done).then_some(()))
                .await;
        }
        for (client, task) in self.tasks.into_iter().enumerate() {
            let rounds = task.await.expect("every write came to something");
            for round in 0..rounds {
                let node = usize::try_from(round).expect("few") % cluster.size();
                let read = cluster.get(node, &format!("/v1/state/{client}%2F{round}")).await;
                assert_eq!(read.status, 200, "{client}/{round} was acknowledged: {}", read.text());
            }
        }
        let last = cluster.get(0, "/v1/digest").await.json()["command"].as_u64().expect("a number");
        let mut digests = Vec::new();
        for node in 0..cluster.size() {
            let digest = cluster.get(node, &format!("/v1/digest?at={last}")).await;
            assert_eq!(digest.status, 200, "{}", digest.text());
            digests.push(digest.json()["digest"].clone());
        }
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
        assert_votes_are_elsewhere(cluster).await;
    }
}

/// Waits until nobody keeps what a node lacks that has `applied` so much; returns what each other one has sent by then.
pub(super) async fn until_needs_a_state(cluster: &Cluster, applied: f64) -> Vec<(usize, f64)> {
    let mut sent = Vec::new();
    for node in cluster.living() {
        // More is applied there than it last said by some writes under way.
        eventually("commands to be forgotten", async || {
            (cluster.metric(node, "quorate_history_kept_from").await > applied + 20.0).then_some(())
        })
        .await;
        sent.push((node, cluster.metric(node, SENT).await));
    }
    sent
}

/// Starts a node, and waits until a whole state is on its way to it.
pub(super) async fn until_receives_a_state(cluster: &mut Cluster, node: usize, boot: impl FnOnce(&mut Cluster)) {
    let (begun, _) = transfers(cluster, node);
    boot(cluster);
    eventually("a state on its way", async || (transfers(cluster, node).0 > begun).then_some(())).await;
}

/// How often a node has begun to receive a whole state, and had one whole.
fn transfers(cluster: &Cluster, node: usize) -> (usize, usize) {
    let log = cluster.log(node);
    let begun = log.lines().filter(|line| line.contains("receives a whole state: nobody in touch"));
    (begun.count(), log.matches("the whole state is here").count())
}

/// Who sends a whole state, and how much of it went out; `sent` is what each had sent before.
async fn sender(cluster: &Cluster, sent: &[(usize, f64)]) -> (usize, f64) {
    eventually("a sender of the state", async || {
        for (node, before) in sent {
            let open = cluster.metric(*node, "quorate_snapshot_checkpoints_open").await;
            let bytes = cluster.metric(*node, SENT).await - before;
            if open > 0.0 && bytes > 0.0 {
                return Some((*node, bytes));
            }
        }
        None
    })
    .await
}

/// A14, S-14, S-18, RELIABILITY 1: catches a state that is installed in part, a transfer that cannot go on after the death of
/// either end, a checkpoint or votes that a crash leaves in a shape with which a node does not start, and what was
/// acknowledged and forgotten too early.
#[tokio::test]
async fn nodes_are_killed_while_a_state_is_copied() {
    let mut cluster = Cluster::start("copies", 3, &[KEPT, PACE]).await;
    let writers = Writers::start(&cluster, 4, VALUE);
    writers.progress(FILLING).await;
    for round in 0..3 {
        let away = cluster.follower().await;
        let applied = cluster.metric(away, APPLIED).await;
        cluster.kill9(away);
        let sent = until_needs_a_state(&cluster, applied).await;
        let (_, whole) = transfers(&cluster, away);
        until_receives_a_state(&mut cluster, away, |cluster| cluster.boot(away)).await;
        // Nothing arrives any more, however long it takes to find out who sends.
        cluster.freeze(away);
        let (sender, bytes) = sender(&cluster, &sent).await;
        assert_eq!(transfers(&cluster, away).1, whole, "round {round}: the state was there before anybody was killed");
        // What was sent may not have been said to be there yet.
        assert!(bytes < STATE, "round {round}: all was sent before anybody was killed");
        // Who receives, who sends, and all.
        let killed = match round {
            0 => vec![away],
            1 => vec![sender],
            _ => vec![0, 1, 2],
        };
        killed.iter().for_each(|node| cluster.kill9(*node));
        if !killed.contains(&away) {
            cluster.thaw(away);
        }
        cluster.boot_all();
        cluster.wait_begun().await;
        writers.progress(CALLS).await;
    }
    writers.finish(&cluster).await;
    let installed: usize = (0..3).map(|node| transfers(&cluster, node).1).sum();
    assert!(installed > 0, "no state was ever copied");
}

/// Begins backups at a node, each from a checkpoint of its own, and leaves with their first bytes, until it is gone.
fn makes_checkpoints(cluster: &Cluster, node: usize, made: &Arc<AtomicU64>) -> JoinHandle<()> {
    let (url, http, made) = (cluster.url(node, "/v1/backup"), cluster.client().clone(), Arc::clone(made));
    tokio::spawn(async move {
        while let Ok(reply) = http.get(&url).send().await {
            made.fetch_add(u64::from(reply.status() == 200), Ordering::SeqCst);
        }
    })
}

/// S-14, RELIABILITY 1: each kill falls into a time in which checkpoints are made one after the other and old commands are
/// forgotten all the while. Catches half a checkpoint that keeps a node from starting or is taken for a whole one, and a
/// truncation that a crash leaves half done.
#[tokio::test]
async fn nodes_are_killed_while_checkpoints_are_made_and_commands_forgotten() {
    let mut cluster = Cluster::start("checkpoints", 3, &[KEPT]).await;
    let writers = Writers::start(&cluster, 4, SMALL);
    for round in 0..6 {
        let node = round % 3;
        writers.progress(CALLS).await;
        let made = Arc::default();
        let makers: Vec<JoinHandle<()>> = (0..2).map(|_| makes_checkpoints(&cluster, node, &made)).collect();
        writers.progress(CALLS).await;
        eventually("checkpoints", async || (made.load(Ordering::SeqCst) >= 3).then_some(())).await;
        cluster.kill9(node);
        for maker in makers {
            maker.await.expect("it ends with the node");
        }
        writers.progress(CALLS).await;
        cluster.boot(node);
        cluster.wait_ready().await;
    }
    for node in 0..cluster.size() {
        let first = cluster.get(node, "/v1/commands?from=1").await;
        assert_eq!(first.status, 410, "nothing was forgotten: {}", first.text());
    }
    writers.finish(&cluster).await;
}
