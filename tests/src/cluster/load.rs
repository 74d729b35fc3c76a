//! Clients that call without pause, each one call at a time, and what must hold afterwards.
//!
//! Every call has a key, and a client asks on with the same one until it has its answer, at
//! the next node when one is gone. A node that was up all the time must answer, and with 200:
//! callers of a living node see a delay, never an error (A11).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::history::History;
use super::http::{Reply, send};
use super::presence::Presence;
use super::{Cluster, eventually};

/// How many warehouses the goods move between.
const WAREHOUSES: u64 = 8;
/// What each has at first: more than all transfers of a test can take out, so that none is refused.
const FIRST_STOCK: u64 = 1_000_000;
/// Before a client whose node is gone asks another one.
const PAUSE: Duration = Duration::from_millis(5);

/// Clients at work.
pub struct Load {
    tasks: Vec<JoinHandle<Vec<Acknowledged>>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    pauses: Arc<Mutex<Pauses>>,
    filled: Vec<Acknowledged>,
}

/// When anybody was last told that a call took effect, and the longest time without.
#[derive(Debug)]
struct Pauses {
    last: Instant,
    longest: Duration,
}

impl Pauses {
    fn acknowledged(&mut self, now: Instant) {
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }
}

#[expect(clippy::disallowed_methods, reason = "these tests run in real time")]
fn clock() -> Instant {
    Instant::now()
}

/// A call whose caller was told that it took effect.
#[derive(Debug)]
struct Acknowledged {
    key: String,
    command: u64,
    result: Value,
    /// What it brought in.
    inbound: u64,
    /// Which field of the result is the stock of which warehouse.
    told: Vec<(&'static str, String)>,
}

/// Everything that was acknowledged.
#[derive(Debug)]
pub struct Ledger(Vec<Acknowledged>);

impl Load {
    /// Fills the warehouses and lets that many clients go. `name` begins all their keys.
    pub async fn start(cluster: &Cluster, name: &str, clients: u64) -> Self {
        let first = cluster.living()[0];
        Self::on(cluster.client(), &cluster.urls(), first, &cluster.presence(), name, clients).await
    }

    /// The same by whatever serves REST at `url` and never goes away, such as a gateway.
    pub async fn through(http: &reqwest::Client, url: String, name: &str, clients: u64) -> Self {
        let presence = Presence::new(1);
        presence.up(0);
        Self::on(http, &[url], 0, &presence, name, clients).await
    }

    async fn on(
        http: &reqwest::Client,
        urls: &[String],
        first: usize,
        presence: &Presence,
        name: &str,
        clients: u64,
    ) -> Self {
        let mut filled = Vec::new();
        for warehouse in 0..WAREHOUSES {
            let call = Operation::inbound(format!("W{warehouse}"), FIRST_STOCK);
            let key = format!("{name}/fill/{warehouse}");
            let url = format!("{}/v1/functions/{}", urls[first], call.function);
            let reply = send(http.post(url).header("Idempotency-Key", &key).json(&call.arguments)).await;
            filled.push(Acknowledged::of(key, call, &reply.expect("a living node answers")));
        }
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pauses = Arc::new(Mutex::new(Pauses { last: clock(), longest: Duration::ZERO }));
        let client = |number| Client {
            name: format!("{name}/{number}"),
            number,
            http: http.clone(),
            urls: urls.to_vec(),
            presence: presence.clone(),
        };
        let tasks = (0..clients).map(|number| {
            let (client, stop, acknowledged) = (client(number), Arc::clone(&stop), Arc::clone(&acknowledged));
            let pauses = Arc::clone(&pauses);
            tokio::spawn(async move {
                let mut done = Vec::new();
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    done.push(client.call(round).await);
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                    pauses.lock().unwrap_or_else(PoisonError::into_inner).acknowledged(clock());
                }
                done
            })
        });
        Self { tasks: tasks.collect(), stop, acknowledged, pauses, filled }
    }

    /// Waits until that many more calls were acknowledged.
    pub async fn progress(&self, calls: u64) {
        let wanted = self.acknowledged.load(Ordering::SeqCst) + calls;
        eventually("progress of the clients", async || {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            (failed || self.acknowledged.load(Ordering::SeqCst) >= wanted).then_some(())
        })
        .await;
        // A client that has failed says why in `finish`; the others would go on for ever.
        assert!(self.tasks.iter().all(|task| !task.is_finished()), "a client has failed");
    }

    /// The longest time without an acknowledged call, since this was asked last.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.acknowledged(clock());
        std::mem::take(&mut pauses.longest)
    }

    /// Lets every client finish its call.
    pub async fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = self.filled;
        for task in self.tasks {
            all.extend(task.await.expect("every client got its answers"));
        }
        Ledger(all)
    }
}

struct Client {
    name: String,
    number: u64,
    http: reqwest::Client,
    urls: Vec<String>,
    presence: Presence,
}

impl Client {
    /// One call, until it is acknowledged.
    async fn call(&self, round: u64) -> Acknowledged {
        let key = format!("{}/{round}", self.name);
        let amount = 1 + round % 5;
        let warehouse = |number: u64| format!("W{}", number % WAREHOUSES);
        let (from, to) = (warehouse(self.number + round), warehouse(self.number + round * 3 + 1));
        let call = if round % 4 == 3 || from == to {
            Operation::inbound(from, amount)
        } else {
            Operation::transfer(from, to, amount)
        };
        let nodes = self.urls.len() as u64;
        let mut node = usize::try_from((self.number + round) % nodes).expect("a small number");
        loop {
            let mark = self.presence.mark(node);
            let url = format!("{}/v1/functions/{}", self.urls[node], call.function);
            let request = self.http.post(url).header("Idempotency-Key", &key).json(&call.arguments);
            match send(request).await {
                // A node that was asked to stop may say so.
                Ok(reply) if reply.status == 503 && !self.presence.was_up_since(node, mark) => {}
                Ok(reply) => return Acknowledged::of(key, call, &reply),
                Err(error) => {
                    let excused = !self.presence.was_up_since(node, mark);
                    assert!(excused, "node {node} was up all the time and did not answer {key}: {error:?}");
                }
            }
            node = (node + 1) % self.urls.len();
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What a client calls.
struct Operation {
    function: &'static str,
    arguments: Value,
    inbound: u64,
    told: Vec<(&'static str, String)>,
}

impl Operation {
    fn inbound(warehouse: String, amount: u64) -> Self {
        Self {
            function: "inventory.inbound",
            arguments: json!({"warehouse": warehouse, "amount": amount}),
            inbound: amount,
            told: vec![("stock", warehouse)],
        }
    }

    fn transfer(from: String, to: String, amount: u64) -> Self {
        Self {
            function: "inventory.transfer",
            arguments: json!({"from": from, "to": to, "amount": amount}),
            inbound: 0,
            told: vec![("from", from), ("to", to)],
        }
    }
}

impl Acknowledged {
    fn of(key: String, call: Operation, reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{key}: {}", reply.text());
        let body = reply.json();
        let command = body["command"].as_u64().expect("it changed something");
        assert_eq!(reply.command(), Some(command), "{reply:?}");
        Self { key, command, result: body["result"].clone(), inbound: call.inbound, told: call.told }
    }
}

impl Ledger {
    /// How many calls were acknowledged.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.0.len()
    }

    /// Checks that `history` holds each acknowledged call exactly once, at the number and with
    /// the effect that its caller was told, nothing else, and not one piece of goods too many
    /// or too few.
    pub fn assert_kept(&self, history: &History) {
        let numbers = history.by_request();
        for Acknowledged { key, command, result, told, .. } in &self.0 {
            assert_eq!(numbers.get(key.as_str()), Some(&vec![*command]), "the commands of {key}");
            let issued = &history.commands()[usize::try_from(*command).expect("a small number") - 1];
            let effects = issued["effects"].as_array().expect("a list");
            assert_eq!(effects.len(), told.len(), "{issued}");
            for (field, warehouse) in told {
                let put = json!({"put": {"key": format!("inventory/goods/{warehouse}"), "value": result[field]}});
                assert!(effects.contains(&put), "the caller of {key} was told {result}, and this was issued: {issued}");
            }
        }
        assert_eq!(history.of_callers(), self.0.len(), "every command belongs to a call");
        let brought: u64 = self.0.iter().map(|call| call.inbound).sum();
        assert_eq!(history.stock(), brought, "goods were lost or made");
    }
}
