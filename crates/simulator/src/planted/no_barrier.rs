//! A leader without the barrier (ADR 0025): it does not see that a command changes the membership, and goes on proposing
//! above it in the same ballot, counting the acceptors of before.
//!
//! The shipped core would see it. So a veil is hung between the core and everything else: on its side a change writes
//! another key than on the other. Acceptors, learners, stores and invariants get the change as it is.

use std::sync::Arc;

use functions::{ExecutionContext, Failure, Function, Refusal, Registry};
use leader::core::{Input, Machine};
use leader::machine::StoredMachine;
use protocol::message::{BallotInfo, BeginBallot, Success, ToAcceptor, ToLeader, ToLearner};
use protocol::{
    Command, CommandBody, Effect, Entry, Key, Membership, Message, NodeId, RequestId, StateError, StateView,
    StoredOutcome, Timestamp, membership,
};
use serde_json::{Value, json};

use super::instead::Instead;

/// The name of the function that changes who votes, with which weight.
const SET_ACCEPTOR: &str = "cluster.set_acceptor";

/// What a change writes on the side of the leader.
fn veiled() -> Key {
    Key::new("test/membership").expect("a short key")
}

fn renamed(command: &mut Command, from: &Key, to: &Key) {
    let Ok(mut body) = CommandBody::decode(&command.body) else { return };
    let mut found = false;
    for effect in &mut body.effects {
        if let Effect::Put { key, .. } = effect
            && key == from
        {
            *key = to.clone();
            found = true;
        }
    }
    if found {
        command.body = body.encode();
    }
}

/// What the leader sends, as all others see it.
pub fn unveil(message: &mut Message) {
    let commands = match message {
        Message::Acceptor(ToAcceptor::BeginBallot(BeginBallot { commands, .. }))
        | Message::Learner(ToLearner::Success(Success { commands, .. })) => commands,
        Message::Acceptor(_)
        | Message::Leader(_)
        | Message::Learner(_)
        | Message::FailureDetector(_)
        | Message::Gateway(_) => return,
    };
    commands.iter_mut().for_each(|command| renamed(command, &veiled(), &membership::key()));
}

/// What the leader hears, as it sees it.
pub fn veil(input: &mut Input) {
    if let Input::Message { message: ToLeader::BallotInfo(BallotInfo { votes, .. }), .. } = input {
        votes.iter_mut().for_each(|vote| renamed(&mut vote.command, &membership::key(), &veiled()));
    }
}

/// M(p), as the leader sees it.
pub struct Veiled<'a>(pub StoredMachine<'a>);

impl StateView for Veiled<'_> {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        if *key == membership::key() {
            return Ok(None);
        }
        if *key == veiled() { self.0.get(&membership::key()) } else { self.0.get(key) }
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.0.scan(prefix, after, limit)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        self.0.outcome(request)
    }
}

impl Machine for Veiled<'_> {
    fn last_time(&self) -> Result<Timestamp, StateError> {
        self.0.last_time()
    }
}

/// The functions of a node, of which one that changes the membership writes on the leader's side of the veil, and the
/// others that do refuse.
pub fn registry(all: &Registry, genesis: &Arc<Membership>) -> Registry {
    let mut veiled = Registry::new();
    for function in all.iter().map(Arc::clone) {
        let function: Arc<dyn Function> = match function.name() {
            SET_ACCEPTOR => Arc::new(SetAcceptor(Arc::clone(genesis))),
            name if name.starts_with("cluster.") => Arc::new(Instead { function, execute: refuses }),
            _ => function,
        };
        veiled.register(function).expect("their names differ");
    }
    veiled
}

fn refuses(_: &dyn Function, _: &mut ExecutionContext<'_>, _: Value) -> Result<Value, Failure> {
    Err(refused("nothing else changes the membership here".to_owned()).into())
}

/// As where another change is under way.
fn refused(message: String) -> Refusal {
    Refusal { code: "another_change", message, may_pass: false }
}

struct SetAcceptor(Arc<Membership>);

impl Function for SetAcceptor {
    fn name(&self) -> &str {
        SET_ACCEPTOR
    }

    fn description(&self) -> &str {
        "Changes what a node's vote weighs, behind the leader's back."
    }

    fn arguments_schema(&self) -> Value {
        json!({"type": "object"})
    }

    fn result_schema(&self) -> Value {
        json!({"type": "object"})
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure> {
        let unreadable = |error: &dyn ToString| Failure::State(StateError(error.to_string()));
        let now = match context.get(&veiled())? {
            Some(entry) => Membership::read(&entry).map_err(|error| unreadable(&error))?,
            None => (*self.0).clone(),
        };
        // Where it says anything, it says what the shipped one does: this mistake is to be found by what it leads to.
        let number = |name: &str| arguments[name].as_u64().ok_or_else(|| refused(format!("no `{name}`")));
        let (node, weight) = (number("node")?, number("weight")?);
        if arguments.get("replaces").is_some() {
            return Err(refused("nobody takes a place here".to_owned()).into());
        }
        let next = now.weighing(NodeId(node), weight).map_err(|error| refused(error.to_string()))?;
        if next.nodes() != now.nodes() {
            context.put(veiled(), next.to_value())?;
        }
        let said: Value = serde_json::from_slice(&next.to_value()).expect("it is JSON");
        Ok(json!({"node": node, "membership": said}))
    }
}
