//! What happens in a world, as everybody who watches it is told: invariants, traces, charts.
//!
//! A [`Fact`] is told at the moment it is so, and in the order in which it became so. Nobody who
//! watches can change anything.

use leader::core::Note;
use protocol::{
    Ballot, Call, Command, CommandId, CommandNumber, Entry, Key, Message, NodeId, Now, Outcome, RequestId, SnapshotId,
    StateError, StateView, StoredOutcome,
};
use storage::{LogImage, LogRecord};

use crate::fault::Fault;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// A message left a node; all that must be durable before is.
    Sent {
        /// The sender.
        from: NodeId,
        /// The receiver, perhaps the sender itself.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// A message arrived at a node that is up.
    Delivered {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// A message will not arrive: the link lost it, or nobody is there.
    Lost {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Records of the log of a node are durable now.
    Written {
        /// The node.
        node: NodeId,
        /// The records, in order.
        records: Vec<LogRecord>,
    },
    /// A node has applied a command as its last one.
    Applied {
        /// The node.
        node: NodeId,
        /// The command.
        command: Command,
        /// The digest of its whole state afterwards; not taken at every command.
        digest: Option<[u8; 32]>,
    },
    /// A node has put a whole state, from another node, in the place of its own: as if it had applied all up to there,
    /// durably.
    Installed {
        /// The node.
        node: NodeId,
        /// The state.
        id: SnapshotId,
    },
    /// The state of a node is durable up to here.
    Synced {
        /// The node.
        node: NodeId,
        /// The last durable command.
        durable: CommandNumber,
    },
    /// A function ran on a node, here or on its pool.
    Executed {
        /// The node.
        node: NodeId,
        /// The function.
        function: String,
    },
    /// A node leads a ballot now, or none.
    Leads {
        /// The node.
        node: NodeId,
        /// The ballot.
        ballot: Option<Ballot>,
    },
    /// A leader said something for operators.
    Noted {
        /// The node.
        node: NodeId,
        /// What.
        note: Note,
    },
    /// A role of a node left an input aside.
    Ignored {
        /// The node.
        node: NodeId,
        /// The role.
        role: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A node is up, with what its disk held.
    Started {
        /// The node.
        node: NodeId,
        /// Counts its starts, from 1.
        life: u32,
        /// All of its log.
        log: LogImage,
        /// The last command in its state.
        applied: CommandId,
        /// The digest of that state.
        digest: [u8; 32],
    },
    /// A node is down.
    Stopped {
        /// The node.
        node: NodeId,
        /// Why.
        why: Stop,
    },
    /// A client asks something of the gateway of a node. `ticket` is used once.
    Asked {
        /// The client.
        client: u64,
        /// Names the question.
        ticket: u64,
        /// The node asked.
        via: NodeId,
        /// What.
        question: Question,
    },
    /// The client that holds this ticket has its answer.
    Told {
        /// The client.
        client: u64,
        /// The question.
        ticket: u64,
        /// The answer.
        answer: Told,
    },
    /// The world did something bad.
    Fault(Fault),
    /// The faults are over for these nodes, which are connected to each other from now on and stay
    /// up. Whatever is broken elsewhere stays so.
    Healed {
        /// The connected core, a majority set at least.
        core: Vec<NodeId>,
    },
}

/// Why a node is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// A power cut: what was not synced is gone.
    PowerCut,
    /// `kill -9`: what was written is there.
    Killed,
    /// Its disk failed, and it stopped by itself, as it must.
    Disk,
    /// Its disk is gone. It must never vote again under this identity.
    DiskLost,
    /// A peer knows another disk of it, and it stopped by itself, as it must.
    Refused,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// A call.
    Call(Call),
    /// A read.
    Read(Read),
}

/// What a client wants to see of the state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// What of it.
    pub sought: Sought,
    /// Of which state.
    pub consistency: Consistency,
    /// Of no state before this number (`min_command`).
    pub least: CommandNumber,
}

/// What a read shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sought {
    /// The entry of this key.
    Entry(Key),
    /// The entries whose keys begin so and come after that one, in order, so many at most.
    Page {
        /// How they begin.
        prefix: String,
        /// After which one.
        after: Option<String>,
        /// How many.
        limit: usize,
    },
    /// What became of this call, as far as that is stored.
    Call(RequestId),
    /// The commands from this number on, so many at most.
    Commands {
        /// The first one.
        from: CommandNumber,
        /// How many.
        limit: usize,
    },
}

/// What a read was shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Entries, in order of their keys.
    Entries(Vec<(Key, Entry)>),
    /// What is stored of a call.
    Call(Option<StoredOutcome>),
    /// Commands, in order; none when the first one is not kept any more.
    Commands(Option<Vec<Command>>),
}

impl Sought {
    /// What there is of it in a state, and among its commands: those from a number on, so many at most.
    ///
    /// # Errors
    /// The disk fails.
    pub fn look(
        &self,
        state: &dyn StateView,
        commands: impl FnOnce(CommandNumber, usize) -> Result<Option<Vec<Command>>, StateError>,
    ) -> Result<Seen, StateError> {
        Ok(match self {
            Self::Entry(key) => Seen::Entries(state.get(key)?.map(|entry| (key.clone(), entry)).into_iter().collect()),
            Self::Page { prefix, after, limit } => Seen::Entries(state.scan(prefix, after.as_deref(), *limit)?),
            Self::Call(request) => Seen::Call(state.outcome(request)?),
            Self::Commands { from, limit } => Seen::Commands(commands(*from, *limit)?),
        })
    }
}

/// Which state a read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// All that anybody was told before the question.
    Linearizable,
    /// What the asked node has applied.
    Local,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// What became of the call.
    Outcome {
        /// Which call.
        request: RequestId,
        /// The outcome.
        outcome: Outcome,
        /// What was not executed never will be.
        settled: bool,
    },
    /// The call was not executed and never will be, or the read is not possible now.
    NotExecuted,
    /// Time is up, or the node is gone: the call may have been executed, or may still be.
    Unknown,
    /// Nothing: the client has left, and knows no more than that. No answer of the system.
    Left {
        /// Before the gateway had the time that it was given.
        early: bool,
    },
    /// What a read shows.
    Shown {
        /// The number of the state.
        at: CommandNumber,
        /// What.
        seen: Seen,
    },
}

/// Whoever watches a world.
pub trait Observer {
    /// Is told each fact, once, in order. `now` is the time of the world, not of any node.
    fn observe(&mut self, now: Now, fact: &Fact);
}
