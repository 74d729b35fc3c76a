//! What the tests of this crate share: a state in memory and short ways to call.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::{
    CommandNumber, Effect, Entry, Key, Membership, NodeId, RequestId, StateError, StateView, StoredOutcome, Timestamp,
};
use serde_json::Value;

use crate::context::{Cluster, ExecutionContext, Heard};
use crate::function::{Failure, Function, Placement, Refusal};
use crate::registry::Registry;
use crate::run::{Execution, run};

/// A state in memory that applies effects as a learner does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapState {
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) applied: CommandNumber,
    /// Set: every read fails, as on a broken disk.
    pub(crate) broken: bool,
    /// The membership until a command says otherwise: three acceptors.
    pub(crate) genesis: Membership,
    /// The nodes that are heard, and how far each has applied.
    pub(crate) heard: BTreeMap<NodeId, CommandNumber>,
    /// Those of them whose acceptors are silent.
    pub(crate) silent: BTreeSet<NodeId>,
    /// Those of them that hear nobody.
    pub(crate) deaf: BTreeSet<NodeId>,
    /// Those of them that cannot lead.
    pub(crate) followers: BTreeSet<NodeId>,
}

impl Default for MapState {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            applied: CommandNumber::NULL,
            broken: false,
            genesis: (*Membership::of_equals(3)).clone(),
            heard: (1..=3).map(|id| (NodeId(id), CommandNumber::NULL)).collect(),
            silent: BTreeSet::new(),
            deaf: BTreeSet::new(),
            followers: BTreeSet::new(),
        }
    }
}

impl MapState {
    pub(crate) fn new(entries: &[(&str, &str)]) -> Self {
        let mut state = Self::default();
        for (name, value) in entries {
            state.apply(&[Effect::Put { key: key(name), value: Bytes::copy_from_slice(value.as_bytes()) }]);
        }
        state
    }

    /// Applies the effects of one command; its number becomes the version of what it writes.
    pub(crate) fn apply(&mut self, effects: &[Effect]) {
        self.applied = self.applied.next();
        for effect in effects {
            match effect {
                Effect::Put { key, value } => {
                    let entry = Entry { value: value.clone(), version: self.applied };
                    self.entries.insert(key.clone(), entry);
                }
                Effect::Delete { key } => {
                    self.entries.remove(key);
                }
            }
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.entries.get(&key(name)).map(|entry| std::str::from_utf8(&entry.value).expect("a text"))
    }

    /// Calls a built-in function without applying what it wrote.
    pub(crate) fn execute(&self, function: &str, arguments: &str) -> Execution {
        let registry = Registry::with_builtins();
        let function = registry.get(function).expect("a built-in function");
        let heard = || {
            let of = |(node, applied): (&NodeId, &CommandNumber)| {
                let (speaks, can_lead) = (!self.silent.contains(node), !self.followers.contains(node));
                let hears = self.heard.keys().copied().filter(|_| !self.deaf.contains(node));
                (*node, Heard { speaks, can_lead, ..Heard::well(*applied, hears) })
            };
            self.heard.iter().map(of).collect()
        };
        let cluster = Cluster { me: NodeId(1), membership: &self.genesis, heard: &heard, votes: &|_| true };
        let context = ExecutionContext::new(self, Timestamp(1), 1).of(cluster);
        run(function.as_ref(), context, &Bytes::copy_from_slice(arguments.as_bytes()))
    }

    /// Calls a built-in function and applies what it wrote; the result, or the failure.
    pub(crate) fn call(&mut self, function: &str, arguments: &str) -> Result<String, Failure> {
        let execution = self.execute(function, arguments);
        if !execution.effects.is_empty() {
            self.apply(&execution.effects);
        }
        execution.result.map(|result| String::from_utf8(result.to_vec()).expect("JSON text"))
    }

    /// Calls a built-in function that must refuse with this code, and changes nothing.
    #[track_caller]
    pub(crate) fn assert_refuses(&self, function: &str, arguments: &str, code: &str, may_pass: bool) {
        let execution = self.execute(function, arguments);
        match execution.result {
            Err(Failure::Refused(refusal)) => {
                assert_eq!((refusal.code, refusal.may_pass), (code, may_pass), "{function} {arguments}: {refusal:?}");
                assert!(!refusal.message.is_empty());
            }
            other => panic!("{function} {arguments}: {other:?} instead of {code}"),
        }
        assert_eq!(execution.effects, Vec::new());
    }

    /// Calls a built-in function that must find its arguments invalid, with this in the message.
    #[track_caller]
    pub(crate) fn assert_invalid(&self, function: &str, arguments: &str, says: &str) {
        let execution = self.execute(function, arguments);
        match execution.result {
            Err(Failure::InvalidArguments(message)) => {
                assert!(message.contains(says), "{function} {arguments}: {message:?} does not say {says:?}");
            }
            other => panic!("{function} {arguments}: {other:?} instead of invalid arguments"),
        }
        assert_eq!(execution.effects, Vec::new());
    }
}

impl StateView for MapState {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        if self.broken {
            return Err(StateError("broken".to_owned()));
        }
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        if self.broken {
            return Err(StateError("broken".to_owned()));
        }
        let in_range = |key: &Key| key.as_str().starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        let found = self.entries.iter().filter(|(key, _)| in_range(key)).take(limit);
        Ok(found.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn outcome(&self, _: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        Ok(None)
    }
}

/// A function made of a closure, with a placement: what a test registers.
pub(crate) struct Closure<F> {
    pub(crate) name: &'static str,
    pub(crate) placement: Placement,
    pub(crate) body: F,
}

impl<F> Closure<F>
where
    F: Fn(&mut ExecutionContext<'_>, Value) -> Result<Value, Failure> + Send + Sync,
{
    pub(crate) fn inline(body: F) -> Self {
        Self { name: "test", placement: Placement::Inline, body }
    }
}

impl<F> Function for Closure<F>
where
    F: Fn(&mut ExecutionContext<'_>, Value) -> Result<Value, Failure> + Send + Sync,
{
    fn name(&self) -> &str {
        self.name
    }

    fn description(&self) -> &str {
        "A function of a test."
    }

    fn arguments_schema(&self) -> Value {
        Value::Bool(true)
    }

    fn result_schema(&self) -> Value {
        Value::Bool(true)
    }

    fn placement(&self) -> Placement {
        self.placement
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure> {
        (self.body)(context, arguments)
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

pub(crate) fn put(name: &str, value: &str) -> Effect {
    Effect::Put { key: key(name), value: Bytes::copy_from_slice(value.as_bytes()) }
}

pub(crate) fn refusal(code: &'static str) -> Failure {
    Failure::Refused(Refusal { code, message: "no".to_owned(), may_pass: false })
}
