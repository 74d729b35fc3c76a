//! Clients that stay while nodes die and links fail, and remember what they were told: for a judge who has the history
//! afterwards.
//!
//! They add to counters, swap values, and read, one thing at a time. Whatever a node answers, a call is asked again under its
//! key, at the next node, until its fate is told; a read is asked once. Nothing is assumed of any node: that is the difference
//! to [`Load`](super::Load), which counts on those that live.
//!
//! *What must hold* (RELIABILITY 3.7 to 3.9, and 5, classes 5, 7 and 8): each call took effect once, at the number and with the result
//! that its client was told; nothing else took effect; every read shows the state at its number; and numbers go with real
//! time: what was told to anybody before a call or a linearizable read was asked for comes before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::http::{Reply, send};
use super::{Cluster, DEADLINE, History, eventually};

/// How many counters, and values that are swapped.
const KEYS: u64 = 4;
/// A node that stands still, or is cut off, keeps a client no longer.
const PATIENCE: Duration = Duration::from_secs(4);
/// And says so itself before.
const PREFER: &str = "wait=2";
/// Before the next node is asked.
const PAUSE: Duration = Duration::from_millis(20);
/// What may be answered to a call that is to be asked again: not now, and not here.
const AGAIN: [u16; 4] = [429, 503, 504, 507];

/// See the module.
pub struct Witnesses {
    tasks: Vec<JoinHandle<Vec<Told>>>,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

/// What a client was told, and how it asked.
#[derive(Debug)]
struct Told {
    what: What,
    /// The highest number that anybody had been told before it was asked for; 0 where it need not matter.
    after: u64,
    /// The number that the answer names.
    at: u64,
}

#[derive(Debug)]
enum What {
    /// The call under this key added so much to an entry, and this is its result.
    Added { key: String, entry: String, by: u64, result: Value },
    /// The call under this key was to swap the value at this version, and did or did not.
    Swapped { key: String, entry: String, expected: u64, took: bool },
    /// The entry was shown with this version, or was not there (0).
    Read { entry: String, version: u64, value: Value },
}

impl Witnesses {
    /// Lets that many clients go.
    #[must_use]
    pub fn start(cluster: &Cluster, clients: u64) -> Self {
        let (stop, answers, seen) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let client = |number| Client {
            number,
            http: cluster.client().clone(),
            urls: cluster.urls(),
            seen: Arc::clone(&seen),
            versions: BTreeMap::new(),
            own: 0,
        };
        let tasks = (0..clients).map(|number| {
            let (mut client, stop, answers) = (client(number), Arc::clone(&stop), Arc::clone(&answers));
            tokio::spawn(async move {
                let mut told = Vec::new();
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let heard = client.round(round).await;
                    answers.fetch_add(u64::from(heard.as_ref().is_some_and(Told::is_of_a_call)), Ordering::SeqCst);
                    told.extend(heard);
                }
                told
            })
        });
        Self { tasks: tasks.collect(), stop, answers }
    }

    /// Waits until the fate of that many more calls was told.
    pub async fn progress(&self, calls: u64) {
        let wanted = self.answers.load(Ordering::SeqCst) + calls;
        eventually("progress of the clients", async || {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            (failed || self.answers.load(Ordering::SeqCst) >= wanted).then_some(())
        })
        .await;
        assert!(self.tasks.iter().all(|task| !task.is_finished()), "a client has failed");
    }

    /// Lets every client come to the end of its call, and gathers what they were told.
    pub async fn finish(self) -> Testimony {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for task in self.tasks {
            let told = tokio::time::timeout(DEADLINE, task).await.expect("every call is decided in the end");
            all.extend(told.expect("every client got its answers"));
        }
        Testimony(all)
    }
}

struct Client {
    number: u64,
    http: reqwest::Client,
    urls: Vec<String>,
    /// The highest number that any client was told.
    seen: Arc<AtomicU64>,
    /// The version of each entry that this one has seen last.
    versions: BTreeMap<String, u64>,
    /// The highest number that this one was told.
    own: u64,
}

impl Client {
    async fn round(&mut self, round: u64) -> Option<Told> {
        let node = usize::try_from((self.number + round) % self.urls.len() as u64).expect("a small number");
        let after = self.seen.load(Ordering::SeqCst);
        let entry = |kind: &str| format!("{kind}/{}", (self.number * 7 + round / 5) % KEYS);
        let key = format!("client/{}/{round}", self.number);
        let told = match round % 5 {
            0 | 3 => {
                let (entry, by) = (entry("counter"), 1 + round % 3);
                let arguments = json!({"key": entry, "by": by});
                let reply = self.call(node, &key, "kv.increment", &arguments).await;
                assert_eq!(reply.status, 200, "{key}: {}", reply.text());
                let result = reply.json()["result"].clone();
                Told { what: What::Added { key, entry, by, result }, after, at: number(&reply) }
            }
            1 => {
                let entry = entry("value");
                let expected = self.versions.get(&entry).copied().unwrap_or_default();
                let arguments = json!({"key": entry, "expected": expected, "value": key});
                let reply = self.call(node, &key, "kv.compare_and_set", &arguments).await;
                let took = reply.status == 200;
                let is_told = took || reply.status == 422 && reply.json()["code"] == "version_mismatch";
                assert!(is_told, "{key}: {}", reply.text());
                Told { what: What::Swapped { key, entry, expected, took }, after, at: number(&reply) }
            }
            // What was told before must be there without being named.
            2 => self.read(node, entry("value"), after, "consistency=linearizable").await?,
            _ => {
                let query = format!("consistency=local&min_command={}", self.own);
                self.read(node, entry("counter"), self.own, &query).await?
            }
        };
        self.own = self.own.max(told.at);
        self.seen.fetch_max(told.at, Ordering::SeqCst);
        if let What::Read { entry, version, .. } = &told.what {
            self.versions.insert(entry.clone(), *version);
        }
        Some(told)
    }

    /// Asks one node after the other.
    async fn call(&self, mut node: usize, key: &str, function: &str, arguments: &Value) -> Reply {
        loop {
            let url = format!("{}/v1/functions/{function}", self.urls[node]);
            let request = self.http.post(url).header("Idempotency-Key", key).header("Prefer", PREFER);
            match send(request.json(arguments).timeout(PATIENCE)).await {
                Ok(reply) if !AGAIN.contains(&reply.status) => return reply,
                Ok(_) | Err(_) => {}
            }
            node = (node + 1) % self.urls.len();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks one node, once.
    async fn read(&self, node: usize, entry: String, after: u64, query: &str) -> Option<Told> {
        let path = entry.replace('/', "%2F");
        let url = format!("{}/v1/state/{path}?{query}", self.urls[node]);
        let Ok(reply) = send(self.http.get(url).header("Prefer", PREFER).timeout(PATIENCE)).await else {
            tokio::time::sleep(PAUSE).await;
            return None;
        };
        let (version, value) = match reply.status {
            200 => (reply.header("ETag").trim_matches('"').parse().expect("a version"), reply.json()),
            404 => (0, Value::Null),
            status => {
                assert!(AGAIN.contains(&status), "{}", reply.text());
                tokio::time::sleep(PAUSE).await;
                return None;
            }
        };
        Some(Told { what: What::Read { entry, version, value }, after, at: number(&reply) })
    }
}

fn number(reply: &Reply) -> u64 {
    reply.command().unwrap_or_else(|| panic!("an answer names its number: {reply:?}"))
}

impl Told {
    fn is_of_a_call(&self) -> bool {
        !matches!(self.what, What::Read { .. })
    }
}

/// Everything that all clients were told.
#[derive(Debug)]
pub struct Testimony(Vec<Told>);

impl Testimony {
    /// How many calls had an answer, how many of these were refused, and how many reads.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let of = |so: fn(&What) -> bool| self.0.iter().filter(|told| so(&told.what)).count();
        let reads = of(|what| matches!(what, What::Read { .. }));
        [self.0.len() - reads, of(|what| matches!(what, What::Swapped { took: false, .. })), reads]
    }

    /// Checks it all against `history`: see the module.
    ///
    /// # Errors
    /// What is not so.
    pub fn judge(&self, history: &History) -> Result<(), String> {
        let numbers = history.by_request();
        let versions = Versions::of(history);
        let mut calls = 0;
        for told in &self.0 {
            let Told { what, after, at } = told;
            let wrong = |why: &str| Err(format!("{why}: {told:?}"));
            let once = |key: &str| numbers.get(key) == Some(&vec![*at]);
            if at < after {
                return wrong("it shows less than was told before");
            }
            match what {
                What::Added { key, .. } | What::Swapped { key, .. } if !once(key) => {
                    return wrong(&format!("its commands are {:?}", numbers.get(key.as_str())));
                }
                What::Added { .. } | What::Swapped { .. } if at == after => {
                    return wrong("another call was told the same number before");
                }
                What::Added { entry, by, result, .. } => {
                    let sum = versions.of_entry(entry, *at - 1).1.as_u64().unwrap_or_default() + by;
                    if result["value"] != sum || !has_put(history, *at, entry, &json!(sum)) {
                        return wrong(&format!("it should make {sum}, and this was issued: {}", issued(history, *at)));
                    }
                }
                What::Swapped { key, entry, expected, took } => {
                    if (versions.of_entry(entry, *at - 1).0 == *expected) != *took {
                        return wrong("the version was another one");
                    }
                    let none = issued(history, *at)["effects"] == json!([]);
                    if *took && !has_put(history, *at, entry, &json!(key)) || !took && !none {
                        return wrong(&format!("and this was issued: {}", issued(history, *at)));
                    }
                }
                What::Read { entry, version, value } => {
                    if versions.of_entry(entry, *at) != (*version, value) {
                        return wrong(&format!("there was {:?}", versions.of_entry(entry, *at)));
                    }
                }
            }
            calls += usize::from(told.is_of_a_call());
        }
        if history.of_callers() != calls {
            return Err(format!("{} commands of {calls} calls", history.of_callers()));
        }
        Ok(())
    }
}

fn issued(history: &History, number: u64) -> &Value {
    &history.commands()[usize::try_from(number).expect("a small number") - 1]
}

/// Whether this command does nothing but put that value there.
fn has_put(history: &History, number: u64, entry: &str, value: &Value) -> bool {
    issued(history, number)["effects"] == json!([{"put": {"key": entry, "value": value}}])
}

/// The values that each entry has had, with their versions.
struct Versions<'a>(BTreeMap<&'a str, Vec<(u64, &'a Value)>>);

impl<'a> Versions<'a> {
    fn of(history: &'a History) -> Self {
        let mut all: BTreeMap<&str, Vec<(u64, &Value)>> = BTreeMap::new();
        for (command, number) in history.commands().iter().zip(1..) {
            for effect in command["effects"].as_array().into_iter().flatten() {
                if let Some(key) = effect["put"]["key"].as_str() {
                    all.entry(key).or_default().push((number, &effect["put"]["value"]));
                }
            }
        }
        Self(all)
    }

    /// The version of an entry when `at` was the last command, and its value; 0 before there was one.
    fn of_entry(&self, entry: &str, at: u64) -> (u64, &Value) {
        let all = self.0.get(entry).map_or(&[][..], Vec::as_slice);
        let count = all.partition_point(|(number, _)| *number <= at);
        count.checked_sub(1).map_or((0, &Value::Null), |last| all[last])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &Value) -> Value {
        json!([{"put": {"key": key, "value": value}}])
    }

    fn history(effects: [Value; 4]) -> History {
        let commands = effects.into_iter().zip(["a", "b", "c", "d"]).zip(1..).map(|((effects, request), number)| {
            json!({"number": number, "request_id": request, "function": "kv", "effects": effects})
        });
        History::of(commands.collect())
    }

    fn good_effects() -> [Value; 4] {
        [put("counter/0", &json!(1)), put("value/0", &json!("b")), json!([]), put("counter/0", &json!(3))]
    }

    fn added(key: &str, by: u64, result: u64, after: u64, at: u64) -> Told {
        let (key, entry, result) = (key.to_owned(), "counter/0".to_owned(), json!({"value": result}));
        Told { what: What::Added { key, entry, by, result }, after, at }
    }

    fn swapped(key: &str, expected: u64, took: bool, after: u64, at: u64) -> Told {
        let (key, entry) = (key.to_owned(), "value/0".to_owned());
        Told { what: What::Swapped { key, entry, expected, took }, after, at }
    }

    fn read(version: u64, value: Value, after: u64, at: u64) -> Told {
        Told { what: What::Read { entry: "value/0".to_owned(), version, value }, after, at }
    }

    fn good() -> Vec<Told> {
        vec![added("a", 1, 1, 0, 1), swapped("b", 0, true, 0, 2), swapped("c", 0, false, 0, 3), added("d", 2, 3, 0, 4)]
    }

    /// Catches a judge who lets anything pass that a client was told wrongly: an effect that is lost, made twice or at another
    /// number, another result, a swap against its version, a number that was told before, a stale read, one of a value that was
    /// not there then.
    #[test]
    fn what_is_told_wrongly_is_found() {
        let judge =
            |more: Option<Told>| Testimony(good().into_iter().chain(more).collect()).judge(&history(good_effects()));
        assert_eq!(judge(None), Ok(()));
        assert_eq!(judge(Some(read(2, json!("b"), 2, 2))), Ok(()));
        assert_eq!(judge(Some(read(0, Value::Null, 0, 1))), Ok(()));
        assert!(judge(Some(read(0, Value::Null, 2, 1))).is_err_and(|why| why.contains("less than was told")));
        assert!(judge(Some(read(2, json!("x"), 0, 2))).is_err_and(|why| why.contains("there was")));
        assert!(judge(Some(read(2, json!("b"), 0, 1))).is_err_and(|why| why.contains("there was")));
        let instead = |index: usize, told: Told, says: &str| {
            let mut all = good();
            all[index] = told;
            let judged = Testimony(all).judge(&history(good_effects()));
            assert!(judged.as_ref().is_err_and(|why| why.contains(says)), "{judged:?}");
        };
        instead(0, added("x", 1, 1, 0, 1), "its commands are None");
        instead(0, added("a", 1, 1, 0, 2), "its commands are Some([1])");
        instead(0, added("a", 1, 2, 0, 1), "it should make 1");
        instead(0, added("a", 1, 1, 1, 1), "the same number");
        instead(1, swapped("b", 1, true, 0, 2), "another one");
        instead(2, swapped("c", 2, false, 0, 3), "another one");
        instead(2, swapped("c", 0, false, 3, 3), "the same number");
    }

    /// Catches a judge who lets pass that the wrong thing was issued: two calls that added to the same old value, of which one is
    /// lost; another key, another value, one effect too many or none; and a command that nobody asked for.
    #[test]
    fn what_is_issued_wrongly_is_found() {
        let issued = |index: usize, effects: Value, says: &str| {
            let mut all = good_effects();
            all[index] = effects;
            let judged = Testimony(good()).judge(&history(all));
            assert!(judged.as_ref().is_err_and(|why| why.contains(says)), "{judged:?}");
        };
        issued(3, put("counter/0", &json!(2)), "it should make 3");
        issued(3, put("counter/1", &json!(3)), "it should make 3");
        issued(3, json!([]), "it should make 3");
        issued(1, put("value/0", &json!("x")), "this was issued");
        issued(1, put("value/1", &json!("b")), "this was issued");
        issued(2, put("value/1", &json!("c")), "this was issued");
        let mut lost = good();
        lost[3] = added("d", 2, 2, 0, 4);
        let mut both_on_nothing = good_effects();
        both_on_nothing[3] = put("counter/0", &json!(2));
        assert!(Testimony(lost).judge(&history(both_on_nothing)).is_err_and(|why| why.contains("it should make 3")));
        let three = Testimony(good().into_iter().take(3).collect());
        assert_eq!(three.judge(&history(good_effects())), Err("4 commands of 3 calls".to_owned()));
    }
}
