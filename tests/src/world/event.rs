//! What a world records, for tests to ask about and for scripts to print.

use std::fmt;

use leader::core::Note;
use protocol::message::{BarrierPassed, Executed, ToAcceptor, ToGateway};
use protocol::{Command, CommandNumber, Message, NodeId};
use simulator::fact::Stop;
use simulator::words::{Became, Notes, Stops};

pub use simulator::words::{Device, Said};

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
    /// A message will not arrive: the test dropped it, or the link is blocked.
    Lost {
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
        commands: Vec<Command>,
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
    /// A node is down.
    Stopped {
        /// The node.
        node: NodeId,
        /// Why.
        why: Stop,
    },
    /// A node is up again.
    Restarted {
        /// The node.
        node: NodeId,
        /// Counts its starts, from 1.
        life: u32,
    },
    /// Where a test is in its story.
    Remark(&'static str),
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
                let ids: Vec<String> = commands.iter().map(|command| command.id.to_string()).collect();
                write!(f, "{} applies {}", Device(*node), ids.join(" "))
            }
            Self::Noted { node, note } => write!(f, "{} {}", Device(*node), Notes(note)),
            Self::Ignored { node, role, reason } => {
                write!(f, "{} ({role}) ignores: {reason}", Device(*node))
            }
            Self::Lost { from, to, message } => write!(f, "{} -x {} {}", Device(*from), Device(*to), Said(message)),
            Self::Stopped { node, why } => write!(f, "{} is down: {}", Device(*node), Stops(*why)),
            Self::Restarted { node, life } => write!(f, "{} is up, life {life}", Device(*node)),
            Self::Remark(text) => f.write_str(text),
        }
    }
}

/// The numbers that a `BeginBallot` asks votes for.
fn commands_of(message: &Message) -> Vec<CommandNumber> {
    match message {
        Message::Acceptor(ToAcceptor::BeginBallot(begin)) => {
            begin.commands.iter().map(protocol::Command::number).collect()
        }
        Message::Acceptor(ToAcceptor::NextBallot(_) | ToAcceptor::Rejoined(_))
        | Message::Leader(_)
        | Message::Learner(_)
        | Message::FailureDetector(_)
        | Message::Gateway(_) => Vec::new(),
    }
}
