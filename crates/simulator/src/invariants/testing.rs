//! Facts made by hand, for the tests of the checkers: three nodes, node 1 owns all ballots.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::message::{BallotInfo, BeginBallot, NextBallot, ToAcceptor, ToLeader};
use protocol::{
    Ballot, Call, Command, CommandBody, CommandId, CommandNumber, Effect, Fingerprint, Forget, Key, Membership,
    Message, NodeId, Now, Outcome, RequestId, SnapshotId, Tick, Timestamp, Verdict, Vote,
};
use serde_json::Value;
use storage::memory::MemoryState;
use storage::{LogImage, LogRecord, StateSnapshot as _, StateStore as _};

use super::{History, Invariant, Violation};
use crate::fact::{Consistency, Fact, Question, Read, Sought, Stop, Told};

/// Shows the facts to a checker, a microsecond apart, then the end of the run.
pub(super) fn run(invariant: impl Invariant, facts: &[Fact]) -> Result<(), Violation> {
    let timed: Vec<_> = facts.iter().cloned().zip(1..).map(|(fact, tick)| (Tick(tick), fact)).collect();
    run_at(invariant, &timed)
}

/// Shows the facts to a checker at these times, then the end of the run.
pub(super) fn run_at(mut invariant: impl Invariant, facts: &[(Tick, Fact)]) -> Result<(), Violation> {
    let mut history = History::new(&three());
    let mut now = Now::default();
    for (tick, fact) in facts {
        now.tick = *tick;
        history.learn(now, fact)?;
        invariant.check(now, fact, &history)?;
        history.shown(fact);
    }
    invariant.end(now, &history)
}

/// Asserts that a checker has found this.
#[track_caller]
pub(super) fn assert_fails(found: Result<(), Violation>, part: &str) {
    let violation = found.expect_err("the violation is found");
    assert!(violation.contains(part), "{violation:?} does not say {part:?}");
}

/// The majority sets of nodes 1 to 3.
pub(super) fn three() -> Arc<Membership> {
    Membership::of_equals(3)
}

/// The ballot of node 1 in this round; none in round 0.
pub(super) fn ballot(round: u64) -> Ballot {
    if round == 0 { Ballot::NONE } else { Ballot::new(round, NodeId(1)) }
}

pub(super) fn key(text: &str) -> Key {
    Key::new(text).expect("a short key")
}

pub(super) fn put(name: &str, value: &str) -> Effect {
    Effect::Put { key: key(name), value: Bytes::copy_from_slice(value.as_bytes()) }
}

pub(super) fn delete(name: &str) -> Effect {
    Effect::Delete { key: key(name) }
}

/// A call with a key of its client's.
pub(super) fn call(request: &str, function: &str, arguments: &Value) -> Call {
    let arguments = Bytes::from(arguments.to_string());
    let mut fingerprint = Fingerprint::default();
    let digest = blake3::hash(&[function.as_bytes(), &arguments].concat());
    fingerprint.0.copy_from_slice(&digest.as_bytes()[..16]);
    let request = RequestId::caller(request).expect("a short name");
    Call { request, fingerprint, function: function.to_owned(), arguments, patience: Duration::ZERO, copy: 1 }
}

/// What a call has become.
pub(super) fn body_of(call: &Call, effects: Vec<Effect>, result: &Value) -> CommandBody {
    let result = Bytes::from(result.to_string());
    CommandBody {
        time: Timestamp(1),
        request: call.request.clone(),
        fingerprint: call.fingerprint,
        function: call.function.clone(),
        verdict: if effects.is_empty() { Verdict::Unchanged(result) } else { Verdict::Changed(result) },
        effects,
        forget: Forget::default(),
    }
}

/// What some call has become.
pub(super) fn body(request: &str, effects: Vec<Effect>) -> CommandBody {
    body_of(&call(request, "kv.put", &Value::Null), effects, &Value::Null)
}

/// Commands from number 1 on, each the precedent of the next, first proposed in ballot 1.1.
pub(super) fn chain_of(bodies: &[CommandBody]) -> Vec<Command> {
    let mut precedent = CommandId::NULL;
    let mut commands = Vec::new();
    for body in bodies {
        let id = CommandId::new(ballot(1), precedent.number.next());
        commands.push(Command { id, precedent, body: body.encode() });
        precedent = id;
    }
    commands
}

pub(super) fn vote(round: u64, command: &Command) -> Vote {
    Vote { ballot: ballot(round), command: command.clone() }
}

pub(super) fn written(node: u64, record: LogRecord) -> Fact {
    Fact::Written { node: NodeId(node), records: vec![record] }
}

/// A node votes for commands that it has promised to vote for.
pub(super) fn written_votes(node: u64, round: u64, commands: &[&Command]) -> Fact {
    let records = commands.iter().map(|command| LogRecord::Vote(vote(round, command))).collect();
    Fact::Written { node: NodeId(node), records }
}

/// A node promises and votes at once.
pub(super) fn votes(node: u64, round: u64, commands: &[&Command]) -> Fact {
    let mut fact = written_votes(node, round, commands);
    if let Fact::Written { records, .. } = &mut fact {
        records.insert(0, LogRecord::NextBallot(ballot(round)));
    }
    fact
}

pub(super) fn sent(from: u64, to: u64, message: Message) -> Fact {
    Fact::Sent { from: NodeId(from), to: NodeId(to), message }
}

pub(super) fn next_ballot(from: u64, to: u64, round: u64, owner: u64) -> Fact {
    let message = NextBallot { ballot: Ballot::new(round, NodeId(owner)), first: CommandNumber(1) };
    sent(from, to, Message::Acceptor(ToAcceptor::NextBallot(message)))
}

/// Node 1 is told a promise of its ballot in this round, with these votes, each with the round of its ballot.
pub(super) fn promise(from: u64, round: u64, issued: CommandId, votes: &[(u64, &Command)]) -> Fact {
    let votes = votes.iter().map(|(round, command)| vote(*round, command)).collect();
    let first = CommandNumber(1);
    let info = BallotInfo { ballot: ballot(round), first, issued, votes, part: 0, parts: 1 };
    Fact::Delivered { from: NodeId(from), to: NodeId(1), message: Message::Leader(ToLeader::BallotInfo(info)) }
}

pub(super) fn begin_ballot(from: u64, to: u64, round: u64, commands: &[&Command]) -> Fact {
    let commands = commands.iter().copied().cloned().collect();
    let message = BeginBallot { ballot: ballot(round), commands, round: 1, membership: CommandNumber::NULL };
    sent(from, to, Message::Acceptor(ToAcceptor::BeginBallot(message)))
}

pub(super) fn applied(node: u64, command: &Command) -> Fact {
    Fact::Applied { node: NodeId(node), command: command.clone(), digest: None }
}

/// The digest of the state after these commands.
pub(super) fn digest_after(commands: &[Command]) -> [u8; 32] {
    let state = MemoryState::new();
    state.apply(commands).expect("commands that follow each other");
    state.image().digest().expect("memory does not fail")
}

/// A start with an empty state and these votes, each with the round of its ballot.
pub(super) fn started(node: u64, life: u32, votes: &[(u64, &Command)]) -> Fact {
    let highest = votes.iter().map(|(round, _)| *round).max().unwrap_or_default();
    let votes = votes.iter().map(|(round, command)| vote(*round, command)).collect();
    let log = LogImage { last_tried: Ballot::NONE, next_ballot: ballot(highest), votes, ..LogImage::default() };
    Fact::Started { node: NodeId(node), life, log, applied: CommandId::NULL, digest: digest_after(&[]) }
}

/// A start with the state after these commands, and an empty log.
pub(super) fn started_at(node: u64, life: u32, commands: &[Command]) -> Fact {
    let applied = commands.last().map_or(CommandId::NULL, |last| last.id);
    Fact::Started { node: NodeId(node), life, log: LogImage::default(), applied, digest: digest_after(commands) }
}

/// A whole state from another node, after these commands.
pub(super) fn installed_at(node: u64, commands: &[Command]) -> Fact {
    let at = commands.last().map_or(CommandId::NULL, |last| last.id);
    Fact::Installed { node: NodeId(node), id: SnapshotId { at, digest: digest_after(commands) } }
}

pub(super) fn synced(node: u64, durable: u64) -> Fact {
    Fact::Synced { node: NodeId(node), durable: CommandNumber(durable) }
}

pub(super) fn disk_lost(node: u64) -> Fact {
    Fact::Stopped { node: NodeId(node), why: Stop::DiskLost }
}

/// Client 1 asks node 1.
pub(super) fn asked(ticket: u64, call: &Call) -> Fact {
    Fact::Asked { client: 1, ticket, via: NodeId(1), question: Question::Call(call.clone()) }
}

pub(super) fn asked_read(ticket: u64, name: &str, consistency: Consistency) -> Fact {
    asked_to_see(ticket, Sought::Entry(key(name)), consistency, CommandNumber::NULL)
}

pub(super) fn asked_to_see(ticket: u64, sought: Sought, consistency: Consistency, least: CommandNumber) -> Fact {
    let question = Question::Read(Read { sought, consistency, least });
    Fact::Asked { client: 1, ticket, via: NodeId(1), question }
}

pub(super) fn told(ticket: u64, answer: Told) -> Fact {
    Fact::Told { client: 1, ticket, answer }
}

pub(super) fn told_outcome(ticket: u64, call: &Call, outcome: Outcome, settled: bool) -> Fact {
    told(ticket, Told::Outcome { request: call.request.clone(), outcome, settled })
}

pub(super) fn told_issued(ticket: u64, call: &Call, number: u64, result: &str) -> Fact {
    let result = Bytes::copy_from_slice(result.as_bytes());
    let outcome = Outcome::Issued { command: CommandNumber(number), result };
    told_outcome(ticket, call, outcome, true)
}
