//! Nodes that are killed while a state is copied, checkpoints are open and old commands are forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_tests::cluster::{Cluster, eventually, send};
use serde_json::json;
use tokio::task::JoinHandle;

/// So few that a node which was away needs a whole state, and that something is forgotten every second.
const KEPT: &str = "history.commands=20";
/// Writes that must be acknowledged after each change.
const CALLS: u64 = 40;
/// Of a value: a state of some hundred takes many pieces.
const VALUE: usize = 40_000;

/// Clients that each write keys of their own, and ask on with the same idempotency key until they are told 200.
struct Writers {
    tasks: Vec<JoinHandle<u64>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Writers {
    fn start(cluster: &Cluster, clients: usize) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |client: usize| {
            let (urls, http) = (cluster.urls(), cluster.client().clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                for round in 0.. {
                    let key = format!("{client}/{round}");
                    let put = json!({"key": key, "value": format!("{key} {}", "x".repeat(VALUE))});
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

    async fn progress(&self) {
        let wanted = self.done.load(Ordering::SeqCst) + CALLS;
        eventually("writes", async || (self.done.load(Ordering::SeqCst) >= wanted).then_some(())).await;
    }

    /// Checks that each write that was acknowledged is there on every node, and that the nodes have one state.
    async fn finish(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::SeqCst);
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
    }
}

/// A14, S-14, S-18, RELIABILITY 1: catches a state that is installed in part, a transfer that cannot go on after the death of
/// either end, a checkpoint or votes that a crash leaves in a shape with which a node does not start, and what was
/// acknowledged and forgotten too early.
#[tokio::test]
async fn nodes_are_killed_while_a_state_is_copied() {
    let mut cluster = Cluster::start("copies", 3, &[KEPT]).await;
    let writers = Writers::start(&cluster, 4);
    writers.progress().await;
    for round in 0..3 {
        let away = cluster.follower().await;
        let applied = cluster.metric(away, "quorate_learner_applied").await;
        cluster.kill9(away);
        // Until nobody keeps what it lacks; more is applied there than it last said by some writes under way.
        for node in cluster.living() {
            eventually("commands to be forgotten", async || {
                (cluster.metric(node, "quorate_history_kept_from").await > applied + 20.0).then_some(())
            })
            .await;
        }
        let before = cluster.log(away).matches("receives a whole state").count();
        cluster.boot(away);
        eventually("a state on its way", async || {
            (cluster.log(away).matches("receives a whole state").count() > before).then_some(())
        })
        .await;
        // Who receives, who may be sending, and all.
        let killed = match round {
            0 => vec![away],
            1 => (0..3).filter(|node| *node != away).take(1).collect(),
            _ => vec![0, 1, 2],
        };
        killed.into_iter().for_each(|node| cluster.kill9(node));
        cluster.boot_all();
        cluster.wait_begun().await;
        writers.progress().await;
    }
    writers.finish(&cluster).await;
    let mut installed = 0;
    for node in 0..3 {
        installed += cluster.log(node).matches("the whole state is here").count();
    }
    assert!(installed > 0, "no state was ever copied");
}
