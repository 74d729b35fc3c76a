//! The little that stands on an arrow, and which ballot it belongs to.

use protocol::message::{ToAcceptor, ToGateway, ToLeader, ToLearner};
use protocol::{Ballot, Command, Message, Outcome, RequestId};
use serde_json::Value;

use crate::fact::{Question, Seen, Told};
use crate::words::{Asks, Sees};

/// The longest arguments of a call that stand in a picture, in bytes; others would be cut anyway.
const ARGUMENT_BYTES: usize = 200;

/// The name of the message and what tells it from others of that name.
pub(super) fn label(message: &Message) -> String {
    let name = message.name();
    match message {
        Message::Acceptor(ToAcceptor::NextBallot(next)) => format!("{name} {} from {}", next.ballot, next.first),
        Message::Acceptor(ToAcceptor::BeginBallot(begin)) if begin.commands.is_empty() => {
            format!("{name} {} round {}", begin.ballot, begin.round)
        }
        Message::Acceptor(ToAcceptor::BeginBallot(begin)) => {
            format!("{name} {}: {}", begin.ballot, numbers(&begin.commands))
        }
        Message::Leader(ToLeader::BallotInfo(info)) => {
            let votes: Vec<String> = info.votes.iter().take(3).map(|vote| vote.command.id.to_string()).collect();
            let voted = match info.votes.len() {
                0 => String::new(),
                1..=3 => format!(", voted {}", votes.join(" ")),
                count => format!(", {count} votes"),
            };
            format!("{name} {}: issued {}{voted}", info.ballot, info.issued.number)
        }
        Message::Leader(ToLeader::MyNextBal(next)) => format!("{name} {}", next.ballot),
        Message::Leader(ToLeader::Voted(voted)) | Message::Learner(ToLearner::Voted(voted)) => match voted.run {
            Some(run) => format!("{name} {}: {}", voted.ballot, range(run.first.0, run.last.number.0)),
            None => format!("{name} {}: round {}", voted.ballot, voted.round),
        },
        Message::Acceptor(ToAcceptor::Rejoined(rejoined)) => {
            format!("{name} {} last {}", rejoined.ballot, rejoined.last)
        }
        Message::Leader(ToLeader::Rejoin(rejoin)) => format!("{name} {}", rejoin.ballot),
        Message::Leader(ToLeader::ExecuteFunction(call)) => {
            format!("{name} {} = {}", named(&call.request), asked(&call.function, &call.arguments))
        }
        Message::Leader(ToLeader::ReadBarrier(barrier)) => format!("{name} {}", barrier.id),
        Message::Learner(ToLearner::Success(success)) => format!("{name} up to {}", success.issued.number),
        Message::Learner(ToLearner::CatchUp(catch_up)) => format!("{name} from {}", catch_up.first),
        Message::Learner(ToLearner::Commands(commands)) => format!("{name} {}", numbers(&commands.commands)),
        Message::Learner(ToLearner::FetchSnapshot(fetch)) => match fetch.id {
            Some(id) => format!("{name} {}, more", id.at.number),
            None => name.to_owned(),
        },
        Message::Learner(ToLearner::Snapshot(snapshot)) => match &snapshot.piece {
            Some(piece) => format!("{name} {}: {} records", snapshot.id.at.number, piece.records.len()),
            None => format!("{name} {} is gone", snapshot.id.at.number),
        },
        Message::FailureDetector(_) => name.to_owned(),
        Message::Gateway(ToGateway::Executed(executed)) => {
            format!("{name} {} {}", named(&executed.request), became(&executed.outcome))
        }
        Message::Gateway(ToGateway::BarrierPassed(passed)) => match passed.at {
            Some(at) => format!("{name} {} at {at}", passed.id),
            None => format!("{name} {} elsewhere", passed.id),
        },
    }
}

/// The ballot that a message belongs to: it has the colour of that.
pub(super) fn ballot(message: &Message) -> Option<Ballot> {
    match message {
        Message::Acceptor(ToAcceptor::NextBallot(next)) => Some(next.ballot),
        Message::Acceptor(ToAcceptor::BeginBallot(begin)) => Some(begin.ballot),
        Message::Leader(ToLeader::BallotInfo(info)) => Some(info.ballot),
        Message::Acceptor(ToAcceptor::Rejoined(rejoined)) => Some(rejoined.ballot),
        Message::Leader(ToLeader::Rejoin(rejoin)) => Some(rejoin.ballot),
        Message::Leader(ToLeader::MyNextBal(next)) => Some(next.ballot),
        Message::Leader(ToLeader::Voted(voted)) | Message::Learner(ToLearner::Voted(voted)) => Some(voted.ballot),
        Message::Learner(ToLearner::Success(success)) => Some(success.ballot),
        Message::Leader(ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_))
        | Message::Learner(
            ToLearner::CatchUp(_) | ToLearner::Commands(_) | ToLearner::FetchSnapshot(_) | ToLearner::Snapshot(_),
        )
        | Message::FailureDetector(_)
        | Message::Gateway(_) => None,
    }
}

/// A question of a client, short.
pub(super) fn question(question: &Question) -> String {
    match question {
        Question::Call(call) => format!("{} = {}", named(&call.request), asked(&call.function, &call.arguments)),
        Question::Read(_) => Asks(question).to_string(),
    }
}

/// An answer to a client, short.
pub(super) fn answer(answer: &Told) -> String {
    match answer {
        Told::Outcome { request, outcome, .. } => format!("{} {}", named(request), became(outcome)),
        Told::NotExecuted => "not executed".to_owned(),
        Told::Unknown => "outcome unknown".to_owned(),
        Told::Left { .. } => "left without an answer".to_owned(),
        Told::Shown { at, seen: Seen::Entries(entries) } => match entries.as_slice() {
            [] => format!("nothing, at {at}"),
            [(_, entry)] => format!("{}, at {at}", String::from_utf8_lossy(&entry.value)),
            several => format!("{} entries, at {at}", several.len()),
        },
        Told::Shown { at, seen: seen @ (Seen::Call(_) | Seen::Commands(_)) } => format!("{}, at {at}", Sees(seen)),
    }
}

/// A call by its key, or by the number that a gateway gave it.
fn named(request: &RequestId) -> String {
    match request {
        RequestId::Caller(key) => key.clone(),
        RequestId::Gateway(number) => format!("gateway:{number:x}"),
    }
}

/// Commands by their numbers.
fn numbers(commands: &[Command]) -> String {
    match (commands.first(), commands.last()) {
        (Some(first), Some(last)) => range(first.id.number.0, last.id.number.0),
        _ => "nothing".to_owned(),
    }
}

pub(super) fn range(first: u64, last: u64) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

/// `transfer(100, A, B)`: the function without its library, and the values of its arguments.
fn asked(function: &str, arguments: &[u8]) -> String {
    let function = function.rsplit('.').next().unwrap_or(function);
    let arguments = arguments.get(..=ARGUMENT_BYTES).map_or(arguments, |_| &[]);
    let values: Vec<String> = match serde_json::from_slice(arguments) {
        Ok(Value::Object(fields)) => fields.values().map(plain).collect(),
        Ok(value) => vec![plain(&value)],
        Err(_) => vec!["…".to_owned()],
    };
    format!("{function}({})", values.join(", "))
}

/// A value; a text without its marks.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn became(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Issued { command, .. } => format!("is command {command}"),
        Outcome::Unchanged { at, .. } => format!("changes nothing at {at}"),
        Outcome::Refused { at, code, .. } => format!("{code} at {at}"),
        Outcome::InvalidArguments { .. } => "invalid arguments".to_owned(),
        Outcome::TooLarge { .. } => "too large".to_owned(),
        Outcome::UnknownFunction => "unknown function".to_owned(),
        Outcome::RequestReused => "request id reused".to_owned(),
        Outcome::Failed { .. } => "failed".to_owned(),
        Outcome::Overloaded => "overloaded".to_owned(),
        Outcome::DiskFull => "disk full".to_owned(),
        Outcome::NotLeader => "not the leader".to_owned(),
        Outcome::LeadershipLost => "undecided, lead lost".to_owned(),
    }
}
