//! What a world records, for tests to ask about and for scripts to print.

use std::fmt;

use leader::core::Note;
use protocol::message::{BarrierPassed, Executed, Stored, ToAcceptor, ToGateway, ToLeader, ToLearner};
use protocol::{CommandId, CommandNumber, Message, NodeId, Outcome, Run};

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// The receiver, perhaps the sender itself.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

impl Envelope {
    /// Whether it is a message of this name ([`Message::name`]).
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.message.name() == name
    }

    /// Whether it is a `BeginBallot` that holds the command of this number.
    #[must_use]
    pub fn begins(&self, number: u64) -> bool {
        commands_of(&self.message).contains(&CommandNumber(number))
    }

    /// Whether it goes to, or comes from, this node, and not both.
    #[must_use]
    pub fn crosses(&self, node: NodeId) -> bool {
        (self.from == node) != (self.to == node)
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}", Device(self.from), Device(self.to), Said(&self.message))
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message left a node; it may have been lost.
    Sent {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// A message arrived, perhaps at a node that is down.
    Delivered {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// A leader answered a caller.
    Answered {
        /// The leader, or a node that says that it is none.
        leader: NodeId,
        /// The gateway of the caller.
        gateway: NodeId,
        /// The answer.
        reply: ToGateway,
    },
    /// A node applied issued commands.
    Applied {
        /// The node.
        node: NodeId,
        /// The commands.
        commands: Vec<CommandId>,
    },
    /// A leader said something for the operator.
    Noted {
        /// The node.
        node: NodeId,
        /// What.
        note: Note,
    },
    /// A role ignored an input.
    Ignored {
        /// The node.
        node: NodeId,
        /// The role.
        role: &'static str,
        /// Why.
        reason: &'static str,
    },
}

impl Event {
    /// The answer to a call that this is, if it is one.
    #[must_use]
    pub fn answer(&self) -> Option<&Executed> {
        let Self::Answered { reply: ToGateway::Executed(executed), .. } = self else { return None };
        Some(executed)
    }

    /// The answer to a read barrier that this is, if it is one.
    #[must_use]
    pub fn barrier(&self) -> Option<&BarrierPassed> {
        let Self::Answered { reply: ToGateway::BarrierPassed(passed), .. } = self else { return None };
        Some(passed)
    }

    /// Whether a message of this name left a node here.
    #[must_use]
    pub fn sends(&self, name: &str) -> bool {
        let Self::Sent { message, .. } = self else { return false };
        message.name() == name
    }
}

/// A node by the letter that the patent would give it.
pub struct Device(pub NodeId);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            id @ 1..=11 => {
                let letter = b'p' + u8::try_from(id - 1).expect("at most 10");
                write!(f, "{}", char::from(letter))
            }
            id => write!(f, "node {id}"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { from, to, message } => {
                write!(f, "{} -> {} {}", Device(*from), Device(*to), Said(message))
            }
            Self::Delivered { from, to, message } => {
                write!(f, "{} <- {} {}", Device(*to), Device(*from), message.name())
            }
            Self::Answered { leader, gateway, reply: ToGateway::Executed(executed) } => {
                let (leader, gateway) = (Device(*leader), Device(*gateway));
                write!(f, "{leader} answers {gateway}: {} {}", executed.request, Became(executed))
            }
            Self::Answered { leader, gateway, reply: ToGateway::BarrierPassed(passed) } => {
                let (leader, gateway) = (Device(*leader), Device(*gateway));
                match passed.at {
                    Some(at) => write!(f, "{leader} answers {gateway}: read {} at {at}", passed.id),
                    None => write!(f, "{leader} answers {gateway}: read {} elsewhere", passed.id),
                }
            }
            Self::Applied { node, commands } => {
                let ids: Vec<String> = commands.iter().map(ToString::to_string).collect();
                write!(f, "{} applies {}", Device(*node), ids.join(" "))
            }
            Self::Noted { node, note } => match note {
                Note::Campaigns(ballot) => write!(f, "{} campaigns in {ballot}", Device(*node)),
                Note::Leads { ballot, history, issued } => {
                    write!(f, "{} leads {ballot}: issued {issued}, history {history}", Device(*node))
                }
                Note::StepsDown { ballot, reason, unissued, .. } => {
                    write!(f, "{} gives up {ballot}: {reason}, unissued {unissued}", Device(*node))
                }
            },
            Self::Ignored { node, role, reason } => {
                write!(f, "{} ({role}) ignores: {reason}", Device(*node))
            }
        }
    }
}

/// What became of a call, in words.
struct Became<'a>(&'a Executed);

impl fmt::Display for Became<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.outcome {
            Outcome::Issued { command, result } => {
                write!(f, "is issued as {command}: {}", String::from_utf8_lossy(result))?;
            }
            Outcome::Unchanged { at, result } => {
                write!(f, "changes nothing at {at}: {}", String::from_utf8_lossy(result))?;
            }
            Outcome::Refused { at, code, .. } => write!(f, "is refused at {at}: {code}")?,
            Outcome::InvalidArguments { message } => write!(f, "has invalid arguments: {message}")?,
            Outcome::TooLarge { message } => write!(f, "is too large: {message}")?,
            Outcome::UnknownFunction => f.write_str("names no function")?,
            Outcome::RequestReused => f.write_str("uses the request id of another call")?,
            Outcome::Failed { message } => write!(f, "failed: {message}")?,
            Outcome::Overloaded => f.write_str("did not run: overloaded")?,
            Outcome::NotLeader => f.write_str("did not run: not the leader")?,
            Outcome::LeadershipLost => f.write_str("is undecided: the lead is lost")?,
        }
        f.write_str(if self.0.stored == Stored::Before { ", as told before" } else { "" })
    }
}

/// A message in one line.
pub struct Said<'a>(pub &'a Message);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        match self.0 {
            Message::Acceptor(ToAcceptor::NextBallot(next)) => write!(f, "({}, first {})", next.ballot, next.first),
            Message::Acceptor(ToAcceptor::BeginBallot(begin)) => {
                let ids: Vec<String> = begin.commands.iter().map(|command| command.id.to_string()).collect();
                write!(f, "({}, round {}, [{}])", begin.ballot, begin.round, ids.join(" "))
            }
            Message::Leader(ToLeader::BallotInfo(info)) => {
                let votes: Vec<String> =
                    info.votes.iter().map(|vote| format!("{} in {}", vote.command.id, vote.ballot)).collect();
                write!(f, "({}, first {}, issued {}, [{}])", info.ballot, info.first, info.issued, votes.join(", "))
            }
            Message::Leader(ToLeader::MyNextBal(next)) => write!(f, "({}, refused {})", next.ballot, next.refused),
            Message::Leader(ToLeader::Voted(voted)) | Message::Learner(ToLearner::Voted(voted)) => {
                write!(f, "({}, round {}, {})", voted.ballot, voted.round, Votes(voted.run))
            }
            Message::Leader(ToLeader::ExecuteFunction(call)) => {
                let arguments = String::from_utf8_lossy(&call.arguments);
                write!(f, "({} = {} {arguments})", call.request, call.function)
            }
            Message::Leader(ToLeader::ReadBarrier(barrier)) => write!(f, "({})", barrier.id),
            Message::Learner(ToLearner::Success(success)) => {
                write!(f, "({}, issued {}, {} bodies)", success.ballot, success.issued, success.commands.len())
            }
            Message::Learner(ToLearner::CatchUp(catch_up)) => write!(f, "(from {})", catch_up.first),
            Message::Learner(ToLearner::Commands(commands)) => {
                let ids: Vec<String> = commands.commands.iter().map(|command| command.id.to_string()).collect();
                write!(f, "([{}], issued {})", ids.join(" "), commands.issued)
            }
            Message::FailureDetector(_) | Message::Gateway(_) => Ok(()),
        }
    }
}

struct Votes(Option<Run>);

impl fmt::Display for Votes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(run) => write!(f, "{} to {}", run.first, run.last),
            None => write!(f, "nothing"),
        }
    }
}

/// The numbers that a `BeginBallot` asks votes for.
fn commands_of(message: &Message) -> Vec<CommandNumber> {
    match message {
        Message::Acceptor(ToAcceptor::BeginBallot(begin)) => {
            begin.commands.iter().map(protocol::Command::number).collect()
        }
        Message::Acceptor(ToAcceptor::NextBallot(_))
        | Message::Leader(_)
        | Message::Learner(_)
        | Message::FailureDetector(_)
        | Message::Gateway(_) => Vec::new(),
    }
}
