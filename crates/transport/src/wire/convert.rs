//! Between the messages of `protocol` and their form in a frame. Towards the frame it always
//! succeeds; from the frame, every value is judged, since anybody may have written it.

use std::time::Duration;

use bytes::Bytes;
use protocol::message::{self, Message, ToAcceptor, ToGateway, ToLeader, ToLearner};
use protocol::{CommandNumber, Fingerprint, NodeId, RequestId};

use super::WireError;
use crate::wire;

impl From<&Message> for wire::Kind {
    fn from(message: &Message) -> Self {
        match message {
            Message::Acceptor(ToAcceptor::NextBallot(next)) => Self::NextBallot(next.into()),
            Message::Acceptor(ToAcceptor::BeginBallot(begin)) => Self::BeginBallot(begin.into()),
            Message::Acceptor(ToAcceptor::Rejoined(rejoined)) => Self::Rejoined(rejoined.into()),
            Message::Leader(ToLeader::BallotInfo(info)) => Self::BallotInfo(info.into()),
            Message::Leader(ToLeader::MyNextBal(mine)) => Self::MyNextBal(mine.into()),
            Message::Leader(ToLeader::Voted(voted)) => Self::VotedToLeader(voted.into()),
            Message::Leader(ToLeader::Rejoin(rejoin)) => Self::Rejoin(rejoin.into()),
            Message::Leader(ToLeader::ExecuteFunction(call)) => Self::ExecuteFunction(call.into()),
            Message::Leader(ToLeader::ReadBarrier(barrier)) => Self::ReadBarrier(wire::ReadBarrier { id: barrier.id }),
            Message::Learner(ToLearner::Success(success)) => Self::Success(success.into()),
            Message::Learner(ToLearner::Voted(voted)) => Self::VotedToLearner(voted.into()),
            Message::Learner(ToLearner::CatchUp(lacks)) => Self::CatchUp(wire::CatchUp { first: lacks.first.0 }),
            Message::Learner(ToLearner::Commands(answer)) => Self::Commands(answer.into()),
            Message::Learner(ToLearner::FetchSnapshot(fetch)) => Self::FetchSnapshot(fetch.into()),
            Message::Learner(ToLearner::Snapshot(snapshot)) => Self::Snapshot(snapshot.into()),
            Message::FailureDetector(heartbeat) => Self::Heartbeat(heartbeat.into()),
            Message::Gateway(ToGateway::Executed(executed)) => Self::Executed(executed.into()),
            Message::Gateway(ToGateway::BarrierPassed(passed)) => {
                Self::BarrierPassed(wire::BarrierPassed { id: passed.id, at: passed.at.map(|at| at.0) })
            }
        }
    }
}

impl TryFrom<wire::Kind> for Message {
    type Error = WireError;

    fn try_from(kind: wire::Kind) -> Result<Self, WireError> {
        Ok(match kind {
            wire::Kind::NextBallot(next) => Self::Acceptor(ToAcceptor::NextBallot(next.try_into()?)),
            wire::Kind::BeginBallot(begin) => Self::Acceptor(ToAcceptor::BeginBallot(begin.try_into()?)),
            wire::Kind::Rejoined(rejoined) => Self::Acceptor(ToAcceptor::Rejoined(rejoined.try_into()?)),
            wire::Kind::BallotInfo(info) => Self::Leader(ToLeader::BallotInfo(info.try_into()?)),
            wire::Kind::MyNextBal(mine) => Self::Leader(ToLeader::MyNextBal(mine.try_into()?)),
            wire::Kind::VotedToLeader(voted) => Self::Leader(ToLeader::Voted(voted.try_into()?)),
            wire::Kind::Rejoin(rejoin) => Self::Leader(ToLeader::Rejoin(rejoin.try_into()?)),
            wire::Kind::ExecuteFunction(call) => Self::Leader(ToLeader::ExecuteFunction(call.try_into()?)),
            wire::Kind::ReadBarrier(barrier) => {
                Self::Leader(ToLeader::ReadBarrier(message::ReadBarrier { id: barrier.id }))
            }
            wire::Kind::Success(success) => Self::Learner(ToLearner::Success(success.try_into()?)),
            wire::Kind::VotedToLearner(voted) => Self::Learner(ToLearner::Voted(voted.try_into()?)),
            wire::Kind::CatchUp(lacks) => {
                Self::Learner(ToLearner::CatchUp(message::CatchUp { first: CommandNumber(lacks.first) }))
            }
            wire::Kind::Commands(answer) => Self::Learner(ToLearner::Commands(answer.try_into()?)),
            wire::Kind::FetchSnapshot(fetch) => Self::Learner(ToLearner::FetchSnapshot(fetch.try_into()?)),
            wire::Kind::Snapshot(snapshot) => Self::Learner(ToLearner::Snapshot(snapshot.try_into()?)),
            wire::Kind::Heartbeat(heartbeat) => Self::FailureDetector(heartbeat.try_into()?),
            wire::Kind::Executed(executed) => Self::Gateway(ToGateway::Executed(executed.try_into()?)),
            wire::Kind::BarrierPassed(passed) => Self::Gateway(ToGateway::BarrierPassed(message::BarrierPassed {
                id: passed.id,
                at: passed.at.map(CommandNumber),
            })),
        })
    }
}

/// Converts each item of a list.
pub(super) fn all<T, U: TryFrom<T, Error = WireError>>(items: Vec<T>) -> Result<Vec<U>, WireError> {
    items.into_iter().map(U::try_from).collect()
}

/// `Ok` when `holds`: a check reads as one line with `?`.
pub(super) fn check(holds: bool, what: &'static str) -> Result<(), WireError> {
    if holds { Ok(()) } else { Err(WireError::Invalid(what)) }
}

impl From<protocol::Ballot> for wire::Ballot {
    fn from(ballot: protocol::Ballot) -> Self {
        Self { round: ballot.round, node: ballot.node.0 }
    }
}

impl TryFrom<wire::Ballot> for protocol::Ballot {
    type Error = WireError;

    /// Either none, or of a round and a node from 1.
    fn try_from(ballot: wire::Ballot) -> Result<Self, WireError> {
        check((ballot.round == 0) == (ballot.node == 0), "ballot")?;
        Ok(Self::new(ballot.round, NodeId(ballot.node)))
    }
}

impl From<protocol::CommandId> for wire::CommandId {
    fn from(id: protocol::CommandId) -> Self {
        Self { number: id.number.0, round: id.ballot.round, node: id.ballot.node.0 }
    }
}

impl TryFrom<wire::CommandId> for protocol::CommandId {
    type Error = WireError;

    /// Either the null command, or a number from 1 with a real ballot.
    fn try_from(id: wire::CommandId) -> Result<Self, WireError> {
        let ballot = wire::Ballot { round: id.round, node: id.node }.try_into()?;
        check((id.number == 0) == (ballot == protocol::Ballot::NONE), "command id")?;
        Ok(Self::new(ballot, CommandNumber(id.number)))
    }
}

impl From<&protocol::Command> for wire::Command {
    fn from(command: &protocol::Command) -> Self {
        Self { id: command.id.into(), precedent: command.precedent.into(), body: command.body.clone() }
    }
}

impl TryFrom<wire::Command> for protocol::Command {
    type Error = WireError;

    fn try_from(command: wire::Command) -> Result<Self, WireError> {
        let command = Self { id: command.id.try_into()?, precedent: command.precedent.try_into()?, body: command.body };
        check(command.is_well_formed(), "command: its precedent cannot be the command before it")?;
        Ok(command)
    }
}

impl From<&protocol::Vote> for wire::Vote {
    fn from(vote: &protocol::Vote) -> Self {
        Self { ballot: vote.ballot.into(), command: (&vote.command).into() }
    }
}

impl TryFrom<wire::Vote> for protocol::Vote {
    type Error = WireError;

    fn try_from(vote: wire::Vote) -> Result<Self, WireError> {
        let vote = Self { ballot: vote.ballot.try_into()?, command: vote.command.try_into()? };
        check(vote.ballot >= vote.command.id.ballot, "vote: cast before its command was proposed")?;
        Ok(vote)
    }
}

impl From<protocol::Run> for wire::Run {
    fn from(run: protocol::Run) -> Self {
        Self { first: run.first.0, last: run.last.into() }
    }
}

impl TryFrom<wire::Run> for protocol::Run {
    type Error = WireError;

    fn try_from(run: wire::Run) -> Result<Self, WireError> {
        let run = Self { first: CommandNumber(run.first), last: run.last.try_into()? };
        check(CommandNumber::NULL < run.first && run.first <= run.last.number, "run of commands")?;
        Ok(run)
    }
}

impl From<&message::NextBallot> for wire::NextBallot {
    fn from(next: &message::NextBallot) -> Self {
        Self { ballot: next.ballot.into(), first: next.first.0 }
    }
}

impl TryFrom<wire::NextBallot> for message::NextBallot {
    type Error = WireError;

    fn try_from(next: wire::NextBallot) -> Result<Self, WireError> {
        Ok(Self { ballot: next.ballot.try_into()?, first: CommandNumber(next.first) })
    }
}

impl From<&message::BallotInfo> for wire::BallotInfo {
    fn from(info: &message::BallotInfo) -> Self {
        Self {
            ballot: info.ballot.into(),
            first: info.first.0,
            issued: info.issued.into(),
            votes: info.votes.iter().map(Into::into).collect(),
            part: info.part,
            parts: info.parts,
        }
    }
}

impl TryFrom<wire::BallotInfo> for message::BallotInfo {
    type Error = WireError;

    fn try_from(info: wire::BallotInfo) -> Result<Self, WireError> {
        check(info.part < info.parts, "part of a promise")?;
        Ok(Self {
            ballot: info.ballot.try_into()?,
            first: CommandNumber(info.first),
            issued: info.issued.try_into()?,
            votes: all(info.votes)?,
            part: info.part,
            parts: info.parts,
        })
    }
}

impl From<&message::MyNextBal> for wire::MyNextBal {
    fn from(mine: &message::MyNextBal) -> Self {
        Self { ballot: mine.ballot.into(), refused: mine.refused.into() }
    }
}

impl TryFrom<wire::MyNextBal> for message::MyNextBal {
    type Error = WireError;

    fn try_from(mine: wire::MyNextBal) -> Result<Self, WireError> {
        Ok(Self { ballot: mine.ballot.try_into()?, refused: mine.refused.try_into()? })
    }
}

impl From<&message::BeginBallot> for wire::BeginBallot {
    fn from(begin: &message::BeginBallot) -> Self {
        let commands = begin.commands.iter().map(Into::into).collect();
        Self { ballot: begin.ballot.into(), commands, round: begin.round, membership: begin.membership.0 }
    }
}

impl TryFrom<wire::BeginBallot> for message::BeginBallot {
    type Error = WireError;

    fn try_from(begin: wire::BeginBallot) -> Result<Self, WireError> {
        let (ballot, membership) = (begin.ballot.try_into()?, CommandNumber(begin.membership));
        Ok(Self { ballot, commands: all(begin.commands)?, round: begin.round, membership })
    }
}

impl From<&message::Voted> for wire::Voted {
    fn from(voted: &message::Voted) -> Self {
        let (ballot, run) = (voted.ballot.into(), voted.run.map(Into::into));
        Self { ballot, run, round: voted.round, membership: voted.membership.0 }
    }
}

impl TryFrom<wire::Voted> for message::Voted {
    type Error = WireError;

    fn try_from(voted: wire::Voted) -> Result<Self, WireError> {
        let run = voted.run.map(TryInto::try_into).transpose()?;
        let membership = CommandNumber(voted.membership);
        Ok(Self { ballot: voted.ballot.try_into()?, run, round: voted.round, membership })
    }
}

impl From<&message::Success> for wire::Success {
    fn from(success: &message::Success) -> Self {
        let commands = success.commands.iter().map(Into::into).collect();
        Self { ballot: success.ballot.into(), issued: success.issued.into(), commands }
    }
}

impl TryFrom<wire::Success> for message::Success {
    type Error = WireError;

    fn try_from(success: wire::Success) -> Result<Self, WireError> {
        let (ballot, issued) = (success.ballot.try_into()?, success.issued.try_into()?);
        Ok(Self { ballot, issued, commands: all(success.commands)? })
    }
}

impl From<&message::Commands> for wire::Commands {
    fn from(answer: &message::Commands) -> Self {
        let commands = answer.commands.iter().map(Into::into).collect();
        Self { commands, issued: answer.issued.into(), kept_from: answer.kept_from.0 }
    }
}

impl TryFrom<wire::Commands> for message::Commands {
    type Error = WireError;

    fn try_from(answer: wire::Commands) -> Result<Self, WireError> {
        let (commands, issued) = (all(answer.commands)?, answer.issued.try_into()?);
        Ok(Self { commands, issued, kept_from: CommandNumber(answer.kept_from) })
    }
}

impl From<&message::Heartbeat> for wire::Heartbeat {
    fn from(heartbeat: &message::Heartbeat) -> Self {
        Self {
            hears: heartbeat.hears.iter().map(|node| wire::Node { id: node.0 }).collect(),
            can_lead: heartbeat.can_lead,
            leads: heartbeat.leads.map(Into::into),
            follows: heartbeat.follows.map(Into::into),
            ballot: heartbeat.ballot.into(),
            issued: heartbeat.issued.0,
            applied: heartbeat.applied.0,
            durable: heartbeat.durable.0,
            answer: heartbeat.answer,
            http: heartbeat.http.clone(),
            space: match heartbeat.space {
                protocol::Space::Ample => wire::Space::Ample,
                protocol::Space::Low => wire::Space::Low,
                protocol::Space::Out => wire::Space::Out,
            }
            .into(),
            silent: heartbeat.silent,
            hands_over: heartbeat.hands_over.map(|over| wire::HandOver { to: over.to.0, last: over.last.0 }),
            promise: (heartbeat.promise > protocol::Ballot::NONE).then(|| heartbeat.promise.into()),
            voted: heartbeat.voted.0,
            spare: heartbeat.spare,
        }
    }
}

impl TryFrom<wire::Heartbeat> for message::Heartbeat {
    type Error = WireError;

    fn try_from(heartbeat: wire::Heartbeat) -> Result<Self, WireError> {
        check(heartbeat.http.len() <= Self::HTTP_BYTES_MAX, "address of REST: too long")?;
        Ok(Self {
            hears: heartbeat.hears.into_iter().map(|node| NodeId(node.id)).collect(),
            can_lead: heartbeat.can_lead,
            leads: heartbeat.leads.map(TryInto::try_into).transpose()?,
            follows: heartbeat.follows.map(TryInto::try_into).transpose()?,
            ballot: heartbeat.ballot.try_into()?,
            issued: CommandNumber(heartbeat.issued),
            applied: CommandNumber(heartbeat.applied),
            durable: CommandNumber(heartbeat.durable),
            answer: heartbeat.answer,
            http: heartbeat.http,
            space: match wire::Space::try_from(heartbeat.space) {
                Ok(wire::Space::Ample) => protocol::Space::Ample,
                Ok(wire::Space::Low) => protocol::Space::Low,
                Ok(wire::Space::Out) | Err(_) => protocol::Space::Out,
            },
            silent: heartbeat.silent,
            hands_over: heartbeat
                .hands_over
                .map(|over| message::HandOver { to: NodeId(over.to), last: CommandNumber(over.last) }),
            promise: heartbeat.promise.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            voted: CommandNumber(heartbeat.voted),
            spare: heartbeat.spare,
        })
    }
}

pub(super) fn request_id(bytes: &Bytes) -> Result<RequestId, WireError> {
    RequestId::from_bytes(bytes).ok_or(WireError::Invalid("request id"))
}

impl From<&protocol::Call> for wire::Call {
    fn from(call: &protocol::Call) -> Self {
        Self {
            request: call.request.to_bytes(),
            fingerprint: Bytes::copy_from_slice(&call.fingerprint.0),
            function: call.function.clone(),
            arguments: call.arguments.clone(),
            patience_seconds: call.patience.as_secs(),
            patience_nanos: call.patience.subsec_nanos(),
            copy: call.copy,
        }
    }
}

impl TryFrom<wire::Call> for protocol::Call {
    type Error = WireError;

    fn try_from(call: wire::Call) -> Result<Self, WireError> {
        // Beyond it, `Duration::new` would carry into the seconds, and could overflow.
        check(call.patience_nanos < 1_000_000_000, "duration")?;
        Ok(Self {
            request: request_id(&call.request)?,
            fingerprint: fingerprint(&call.fingerprint)?,
            function: call.function,
            arguments: call.arguments,
            patience: Duration::new(call.patience_seconds, call.patience_nanos),
            copy: call.copy,
        })
    }
}

pub(super) fn fingerprint(bytes: &Bytes) -> Result<Fingerprint, WireError> {
    bytes.as_ref().try_into().map(Fingerprint).map_err(|_| WireError::Invalid("fingerprint"))
}

impl From<&message::Executed> for wire::Executed {
    fn from(executed: &message::Executed) -> Self {
        let mut outcome = wire::Outcome::from(&executed.outcome);
        let stored = if let wire::Outcome::Issued(issued) = &mut outcome {
            issued.replayed = executed.stored == message::Stored::Before;
            wire::Stored::No
        } else {
            match executed.stored {
                message::Stored::No => wire::Stored::No,
                message::Stored::Now => wire::Stored::Now,
                message::Stored::Before => wire::Stored::Before,
                message::Stored::Plain => wire::Stored::Plain,
            }
        };
        Self {
            request: executed.request.to_bytes(),
            outcome: Some(outcome),
            stored: stored.into(),
            fingerprint: if executed.fingerprint == Fingerprint::default() {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&executed.fingerprint.0)
            },
            copy: executed.copy,
        }
    }
}

impl TryFrom<wire::Executed> for message::Executed {
    type Error = WireError;

    fn try_from(executed: wire::Executed) -> Result<Self, WireError> {
        let outcome = executed.outcome.ok_or(WireError::Invalid("outcome: of a kind not known here"))?;
        let stored = match (&outcome, wire::Stored::try_from(executed.stored)) {
            (wire::Outcome::Issued(issued), _) if issued.replayed => message::Stored::Before,
            (wire::Outcome::Issued(_), _) | (_, Ok(wire::Stored::Now)) => message::Stored::Now,
            (_, Ok(wire::Stored::Before)) => message::Stored::Before,
            (_, Ok(wire::Stored::Plain)) => message::Stored::Plain,
            (_, Ok(wire::Stored::No)) => message::Stored::No,
            (_, Err(_)) => return Err(WireError::Invalid("stored: of a kind not known here")),
        };
        let said = Some(&executed.fingerprint).filter(|said| !said.is_empty());
        let (request, fingerprint) =
            (request_id(&executed.request)?, said.map_or(Ok(Fingerprint::default()), fingerprint)?);
        Ok(Self { request, copy: executed.copy, fingerprint, outcome: outcome.into(), stored })
    }
}

impl From<&protocol::Outcome> for wire::Outcome {
    fn from(outcome: &protocol::Outcome) -> Self {
        match outcome {
            protocol::Outcome::Issued { command, result } => {
                Self::Issued(wire::Issued { command: command.0, result: result.clone(), replayed: false })
            }
            protocol::Outcome::Unchanged { at, result } => {
                Self::Unchanged(wire::Unchanged { at: at.0, result: result.clone() })
            }
            protocol::Outcome::Refused { at, code, message } => {
                Self::Refused(wire::Refused { at: at.0, code: code.clone(), message: message.clone() })
            }
            protocol::Outcome::InvalidArguments { message } => Self::InvalidArguments(message.clone()),
            protocol::Outcome::TooLarge { message } => Self::TooLarge(message.clone()),
            protocol::Outcome::UnknownFunction => Self::UnknownFunction(()),
            protocol::Outcome::RequestReused => Self::RequestReused(()),
            protocol::Outcome::Failed { message } => Self::Failed(message.clone()),
            protocol::Outcome::Overloaded => Self::Overloaded(wire::Overloaded { disk_full: false }),
            protocol::Outcome::DiskFull => Self::Overloaded(wire::Overloaded { disk_full: true }),
            protocol::Outcome::NotLeader => Self::NotLeader(()),
            protocol::Outcome::LeadershipLost => Self::LeadershipLost(()),
        }
    }
}

impl From<wire::Outcome> for protocol::Outcome {
    fn from(outcome: wire::Outcome) -> Self {
        match outcome {
            wire::Outcome::Issued(wire::Issued { command, result, .. }) => {
                Self::Issued { command: CommandNumber(command), result }
            }
            wire::Outcome::Unchanged(wire::Unchanged { at, result }) => {
                Self::Unchanged { at: CommandNumber(at), result }
            }
            wire::Outcome::Refused(wire::Refused { at, code, message }) => {
                Self::Refused { at: CommandNumber(at), code, message }
            }
            wire::Outcome::InvalidArguments(message) => Self::InvalidArguments { message },
            wire::Outcome::TooLarge(message) => Self::TooLarge { message },
            wire::Outcome::UnknownFunction(()) => Self::UnknownFunction,
            wire::Outcome::RequestReused(()) => Self::RequestReused,
            wire::Outcome::Failed(message) => Self::Failed { message },
            wire::Outcome::Overloaded(wire::Overloaded { disk_full: false }) => Self::Overloaded,
            wire::Outcome::Overloaded(wire::Overloaded { disk_full: true }) => Self::DiskFull,
            wire::Outcome::NotLeader(()) => Self::NotLeader,
            wire::Outcome::LeadershipLost(()) => Self::LeadershipLost,
        }
    }
}
