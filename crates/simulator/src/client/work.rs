//! What clients ask: the draws of a workload.
//!
//! A few warehouses and a few keys, so that calls meet. Counters, documents and the log have keys of
//! their own, so that an increment finds a number and a call after the faults cannot be refused.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use protocol::{Call, CommandNumber, Fingerprint, Key, Outcome, RequestId};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::fact::{Consistency, Question, Read, Seen, Sought, Told};
use crate::functions::{DICE, SLOW};

const WAREHOUSES: [&str; 3] = ["A", "B", "C"];
const DOCUMENTS: [&str; 4] = ["doc/1", "doc/2", "doc/3", "doc/4"];
const COUNTERS: [&str; 2] = ["counter/1", "counter/2"];
const LOG: &str = "log";

/// The longest that a caller waits for a refusal to pass: long enough for other clients to bring goods,
/// short beside the time within which all must be answered.
const PATIENCE_MAX: u64 = 1_000;

/// How the keys of pages begin.
const PREFIXES: [&str; 5] = ["", "inventory/", "doc/", "counter/1", "no such"];
/// The largest page: all there is, with what functions keep beside it.
const PAGE_MAX: usize = 20;
/// So far a reader asks for more than it has seen.
const AHEAD_MAX: u64 = 3;

/// What a client has learnt from answers.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The highest command number that it was told.
    seen: CommandNumber,
    /// The versions of keys that it has read.
    versions: BTreeMap<Key, CommandNumber>,
    /// Its last call under a key.
    called: Option<RequestId>,
}

impl Known {
    /// An answer has come.
    pub(super) fn learn(&mut self, question: &Question, answer: &Told) {
        if let Question::Call(Call { request: request @ RequestId::Caller(_), .. }) = question {
            self.called = Some(request.clone());
        }
        match answer {
            Told::Shown { at, seen } => {
                self.seen = self.seen.max(*at);
                if let Question::Read(Read { sought: Sought::Entry(key), .. }) = question {
                    self.versions.insert(key.clone(), CommandNumber::NULL);
                }
                if let Seen::Entries(entries) = seen {
                    self.versions.extend(entries.iter().map(|(key, entry)| (key.clone(), entry.version)));
                }
            }
            Told::Outcome { outcome: Outcome::Issued { command: at, .. }, .. }
            | Told::Outcome { outcome: Outcome::Unchanged { at, .. } | Outcome::Refused { at, .. }, .. } => {
                self.seen = self.seen.max(*at);
            }
            Told::Outcome { .. } | Told::NotExecuted | Told::Unknown | Told::Left { .. } => {}
        }
    }

    fn version(&self, key: &str) -> u64 {
        Key::new(key).ok().and_then(|key| self.versions.get(&key)).map_or(0, |version| version.0)
    }
}

/// Any call.
pub(super) fn call(chance: &mut ChaCha8Rng, known: &Known, request: RequestId) -> Call {
    let amount: u64 = chance.random_range(1..50);
    let (from, to) = (one(chance, &WAREHOUSES), one(chance, &WAREHOUSES));
    let (document, value) = (one(chance, &DOCUMENTS), chance.random_range(0..1_000));
    let (function, arguments) = match chance.random_range(0..100) {
        0..20 => ("inventory.inbound", json!({"warehouse": to, "amount": amount})),
        20..32 => ("inventory.outbound", json!({"warehouse": from, "amount": amount})),
        32..48 => ("inventory.transfer", json!({"from": from, "to": to, "amount": amount})),
        48..60 => ("kv.put", json!({"key": document, "value": value})),
        60..68 => ("kv.delete", json!({"key": document})),
        68..78 => ("kv.compare_and_set", json!({"key": document, "expected": known.version(document), "value": value})),
        78..88 => ("kv.increment", json!({"key": one(chance, &COUNTERS), "by": value - 400})),
        88..94 => (SLOW, json!({"key": LOG, "append": format!("{value};")})),
        94..98 => (DICE, json!({})),
        98 => ("kv.increment", json!({"key": 1})),
        _ => ("test.unknown", json!({})),
    };
    let patience = if chance.random_bool(0.3) { chance.random_range(1..=PATIENCE_MAX) } else { 0 };
    named(request, function, &arguments, Duration::from_millis(patience))
}

/// A call about the membership of nodes with ids up to this one: who votes, with which weight, in whose place, by which
/// rule, and who is removed.
pub(super) fn change(chance: &mut ChaCha8Rng, nodes: u64, request: RequestId) -> Call {
    let node = chance.random_range(1..=nodes);
    let (function, arguments) = match chance.random_range(0..14) {
        0..7 => ("cluster.set_acceptor", json!({"node": node, "weight": chance.random_range(0..3)})),
        7..9 => {
            let (replaces, for_good) = (chance.random_range(1..=nodes), chance.random_bool(0.5));
            let mut arguments = json!({"node": node, "replaces": replaces, "for_good": for_good});
            if chance.random_bool(0.3) {
                arguments["weight"] = chance.random_range(1..3).into();
            }
            ("cluster.set_acceptor", arguments)
        }
        9..11 => ("cluster.remove", json!({"node": node})),
        11 => {
            let sets: Vec<Vec<u64>> = (0..2).map(|_| vec![node, chance.random_range(1..=nodes)]).collect();
            ("cluster.set_rule", json!({"majority_sets": sets}))
        }
        _ => ("cluster.set_rule", json!({"majority_sets": []})),
    };
    named(request, function, &arguments, Duration::ZERO)
}

/// Another of so many nodes is to lead; mostly one that could.
pub(super) fn hand_over(chance: &mut ChaCha8Rng, nodes: u64, request: RequestId) -> Call {
    let node = chance.random_range(1..=nodes);
    let patience = if chance.random_bool(0.3) { chance.random_range(1..=PATIENCE_MAX) } else { 0 };
    named(request, "cluster.hand_over", &json!({"node": node}), Duration::from_millis(patience))
}

/// A call that nothing can refuse, and that changes something.
pub(super) fn surely(chance: &mut ChaCha8Rng, request: RequestId) -> Call {
    let value: u64 = chance.random_range(1..50);
    let (function, arguments) = match chance.random_range(0..4) {
        0 => ("inventory.inbound", json!({"warehouse": one(chance, &WAREHOUSES), "amount": value})),
        1 => ("kv.put", json!({"key": one(chance, &DOCUMENTS), "value": value})),
        2 => ("kv.increment", json!({"key": one(chance, &COUNTERS), "by": value})),
        _ => (SLOW, json!({"key": LOG, "append": format!("{value};")})),
    };
    named(request, function, &arguments, Duration::ZERO)
}

/// Another call under the same request id.
pub(super) fn other_body(call: &Call) -> Call {
    let arguments = json!({"key": "reused", "value": call.request.to_string()});
    named(call.request.clone(), "kv.put", &arguments, call.patience)
}

/// A read of all that anybody was told before.
pub(super) fn read_all(chance: &mut ChaCha8Rng, known: &Known) -> Question {
    let least = if chance.random_bool(0.5) { known.seen } else { CommandNumber::NULL };
    Question::Read(Read { sought: sought(chance, known), consistency: Consistency::Linearizable, least })
}

/// Any read. Now and then it wants to see what is not there yet, and may wait in vain.
pub(super) fn read(chance: &mut ChaCha8Rng, known: &Known) -> Question {
    let sought = sought(chance, known);
    let consistency = if chance.random_bool(0.5) { Consistency::Linearizable } else { Consistency::Local };
    let least = match chance.random_range(0..20) {
        0..11 => CommandNumber::NULL,
        11..18 => known.seen,
        _ => CommandNumber(known.seen.0 + chance.random_range(1..=AHEAD_MAX)),
    };
    Question::Read(Read { sought, consistency, least })
}

/// Anything that can be read. A page may be too small for all, begin after an entry, and hold none; commands may be asked for
/// that are not kept any more, or not there yet; and a call that nobody has made.
fn sought(chance: &mut ChaCha8Rng, known: &Known) -> Sought {
    let limit = chance.random_range(1..=PAGE_MAX);
    match chance.random_range(0..20) {
        0..12 => Sought::Entry(key(chance)),
        12..16 => {
            let prefix = one(chance, &PREFIXES).to_owned();
            let after = chance.random_bool(0.5).then(|| key(chance).as_str().to_owned());
            Sought::Page { prefix, after, limit }
        }
        16..18 => {
            let nobodys = || RequestId::Caller("nobody's".to_owned());
            Sought::Call(known.called.clone().unwrap_or_else(nobodys))
        }
        _ => Sought::Commands { from: CommandNumber(chance.random_range(1..=known.seen.0 + AHEAD_MAX)), limit },
    }
}

fn key(chance: &mut ChaCha8Rng) -> Key {
    let key = match chance.random_range(0..4) {
        0 => format!("inventory/goods/{}", one(chance, &WAREHOUSES)),
        1 => one(chance, &DOCUMENTS).to_owned(),
        2 => one(chance, &COUNTERS).to_owned(),
        _ => LOG.to_owned(),
    };
    Key::new(key).expect("a short key")
}

fn one<'a>(chance: &mut ChaCha8Rng, of: &[&'a str]) -> &'a str {
    of[chance.random_range(0..of.len())]
}

pub(crate) fn named(request: RequestId, function: &str, arguments: &Value, patience: Duration) -> Call {
    let arguments = Bytes::from(arguments.to_string());
    let mut digest = blake3::Hasher::new();
    digest.update(function.as_bytes()).update(&[0]).update(&arguments);
    let mut fingerprint = Fingerprint::default();
    digest.finalize_xof().fill(&mut fingerprint.0);
    Call { request, fingerprint, function: function.to_owned(), arguments, patience, copy: 0 }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    /// Catches a way to change the membership that no client asks for.
    #[test]
    fn every_kind_of_change_is_asked_for() {
        let mut chance = ChaCha8Rng::seed_from_u64(1);
        let mut asked = |_| {
            let call = change(&mut chance, 5, RequestId::Gateway(1));
            (call.function, serde_json::from_slice::<Value>(&call.arguments).expect("it is JSON"))
        };
        let all: Vec<(String, Value)> = (0..200).map(&mut asked).collect();
        let some = |function: &str, so: &dyn Fn(&Value) -> bool| {
            assert!(all.iter().any(|(name, arguments)| name == function && so(arguments)), "{function}");
        };
        some("cluster.remove", &|_| true);
        some("cluster.set_acceptor", &|arguments| arguments["weight"] == 0 && arguments.get("replaces").is_none());
        for for_good in [false, true] {
            some("cluster.set_acceptor", &|arguments| {
                arguments["for_good"] == for_good && arguments.get("weight").is_none()
            });
        }
        some("cluster.set_acceptor", &|arguments| arguments["replaces"].is_u64() && arguments["weight"] == 2);
        for sets in [0, 2] {
            some("cluster.set_rule", &|arguments| {
                arguments["majority_sets"].as_array().is_some_and(|all| all.len() == sets)
            });
        }
    }
}
