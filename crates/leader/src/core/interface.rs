//! What goes into a leader and what comes out: its configuration, inputs and effects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use functions::{Execution, Heard, Registry};
use protocol::message::{HandOver, ToLeader};
use protocol::{
    Ballot, CommandId, CommandNumber, LearnFrom, Membership, Message, NodeId, Now, StateError, StateView, Tick,
    Timestamp,
};
use storage::LogRecord;

use super::leader_state::Overlay;

/// What a leader is told once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// The membership in force; later ones are read from M(p).
    pub membership: Arc<Membership>,
    /// Who decides that a command is issued.
    pub learn_from: LearnFrom,
    /// Commands begun past the last issued one, at most (claim 5).
    pub window: u64,
    /// Bytes proposed and not issued, and again issued and not applied, at most: what slow
    /// acceptors and a slow learner can cost in memory. One command may exceed it.
    pub pipeline_bytes: usize,
    /// Bytes in one `BeginBallot`, beyond its first command: well below the limit of a frame.
    pub run_bytes: usize,
    /// `BeginBallot` rounds under way before new commands are gathered instead of sent, so that
    /// under load each message, vote and sync carries many commands.
    pub rounds_in_flight: u64,
    /// Calls kept for room in the window, for the pool or for a refusal to pass, at most. At 0
    /// none is: functions of the pool then cannot be called.
    pub kept_calls: usize,
    /// The first pause before a message without an answer is sent again.
    pub resend: Duration,
    /// How long promises are awaited before the attempt is given up.
    pub prepare_timeout: Duration,
    /// How long another node may take to take the lead over, before this one takes calls again.
    pub hand_over_timeout: Duration,
    /// How long outcomes of calls with a caller's key are kept.
    pub caller_retention: Duration,
    /// How long outcomes of other calls are kept: longer than any gateway re-sends one.
    pub gateway_retention: Duration,
}

/// M(p) as the leader reads it.
pub trait Machine: StateView {
    /// The time of the last applied command.
    ///
    /// # Errors
    /// [`StateError`] when the disk fails.
    fn last_time(&self) -> Result<Timestamp, StateError>;
}

/// The world at one input.
pub struct World<'a> {
    /// Both clocks.
    pub now: Now,
    /// Fresh chance, for a function that wants some.
    pub entropy: u64,
    /// M(p) of the learner on this node.
    pub machine: &'a dyn Machine,
    /// What can be called.
    pub functions: &'a Registry,
    /// Whether there is room for new commands, on the disk of this node and of a majority set.
    pub room: bool,
    /// The nodes that this one hears, itself included: for functions about the cluster.
    pub heard: &'a dyn Fn() -> BTreeMap<NodeId, Heard>,
    /// Whether this node may have had another disk, and have begun ballots that this one does not know
    /// of (B1): then it does not campaign.
    pub barred: bool,
}

/// What happens to a leader.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message.
    Message {
        /// Who sent it.
        from: NodeId,
        /// The message.
        message: ToLeader,
    },
    /// The failure detector: this node should lead, in a ballot above all that its node has
    /// heard of.
    Campaign {
        /// The highest ballot that its node has heard of.
        above: Ballot,
    },
    /// The failure detector, or an operator: this node should not lead.
    StepDown(&'static str),
    /// Another node should lead in the place of this one.
    HandOver {
        /// Why this node should stop leading even if none can; nothing: it leads on then.
        or_else: Option<&'static str>,
    },
    /// The learner of this node has issued and applied all up to here.
    Learned(CommandId),
    /// A function on the pool has finished.
    PoolDone {
        /// Which job.
        job: u64,
        /// What came of it.
        execution: Box<Execution>,
    },
    /// A connection to this node stands again.
    Connected(NodeId),
    /// Time passes; a few times in the shortest timeout.
    Tick,
    /// The actor has handled what its mailbox held: send what was gathered.
    EndOfTurn,
}

/// What a leader wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make durable before anything after it.
    Persist(LogRecord),
    /// Send a message, perhaps to this node itself.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Run a function on the pool and come back with `PoolDone`.
    RunOnPool(PoolJob),
    /// Tell the learner of this node that `peer` knows commands up to `issued`.
    LearnFromPeer {
        /// Who knows.
        peer: NodeId,
        /// What it knows.
        issued: CommandNumber,
    },
    /// This node leads that ballot now, or none.
    Leads(Option<Ballot>),
    /// This node hands its lead over, to be told in heartbeats; or does so no more.
    HandsOver(Option<HandOver>),
    /// Something an operator may want to read.
    Note(Note),
    /// An input that changes nothing.
    Ignored(IgnoreReason),
    /// The state cannot be read: stop the node.
    Failed(StateError),
}

impl Effect {
    /// What is to be made durable, if this is that.
    #[must_use]
    pub fn record(&self) -> Option<&LogRecord> {
        match self {
            Self::Persist(record) => Some(record),
            Self::Send { .. }
            | Self::RunOnPool(_)
            | Self::LearnFromPeer { .. }
            | Self::Leads(_)
            | Self::HandsOver(_)
            | Self::Note(_)
            | Self::Ignored(_)
            | Self::Failed(_) => None,
        }
    }
}

/// A function to run elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolJob {
    /// Names the job in `PoolDone`.
    pub job: u64,
    /// The function.
    pub function: String,
    /// Its arguments.
    pub arguments: Bytes,
    /// LS(p), to be laid over a snapshot of M(p) with [`LeaderView::new`].
    pub overlay: Arc<Overlay>,
    /// The time it sees.
    pub now: Timestamp,
    /// The chance it sees.
    pub entropy: u64,
}

/// What an operator may want to read, one line each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// Began to ask for promises.
    Campaigns(Ballot),
    /// Leads; so many commands of earlier ballots are proposed again.
    Leads {
        /// The ballot.
        ballot: Ballot,
        /// The length of the initial history.
        history: usize,
        /// The last command known to be issued.
        issued: CommandNumber,
    },
    /// The membership has changed; a leader prepares a new ballot under it.
    Membership {
        /// Its number.
        number: CommandNumber,
        /// How many nodes and, of them, acceptors there are.
        nodes: usize,
        /// See `nodes`.
        acceptors: usize,
    },
    /// Takes no calls any more; another node is to lead.
    HandsOver {
        /// The ballot.
        ballot: Ballot,
        /// The node.
        to: NodeId,
    },
    /// That node has begun a ballot.
    HandedOver {
        /// The ballot that was led.
        ballot: Ballot,
        /// The node.
        to: NodeId,
    },
    /// That node has not begun one in time.
    NotHandedOver {
        /// The ballot that is led.
        ballot: Ballot,
        /// The node.
        to: NodeId,
    },
    /// Gave up or lost the lead.
    StepsDown {
        /// The ballot.
        ballot: Ballot,
        /// Why.
        reason: &'static str,
        /// The higher ballot that superseded it, if that was the reason.
        superseded_by: Option<Ballot>,
        /// Proposed commands whose fate the next leader decides.
        unissued: usize,
    },
}

/// Why an input changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IgnoreReason {
    /// An answer to a ballot that this node does not prepare or lead now.
    OtherBallot,
    /// The sender is no acceptor.
    NotAnAcceptor,
    /// A vote for a command that this node did not propose.
    UnknownCommand,
    /// A part of a promise, a vote in one, or a round that cannot be.
    Malformed,
    /// A function finished for a leadership that is over.
    LateExecution,
    /// Campaigning while leading, or stepping down while not.
    NothingToDo,
    /// Campaigning with a disk that may not be the first of this node.
    Barred,
    /// A copy of a call, for the second time: the network doubled it.
    Doubled,
    /// A call that found no room for its command.
    DiskFull,
}

impl IgnoreReason {
    /// The label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherBallot => "other_ballot",
            Self::NotAnAcceptor => "not_an_acceptor",
            Self::UnknownCommand => "unknown_command",
            Self::Malformed => "malformed",
            Self::LateExecution => "late_execution",
            Self::NothingToDo => "nothing_to_do",
            Self::Barred => "barred",
            Self::Doubled => "doubled",
            Self::DiskFull => "disk_full",
        }
    }
}

/// How much a leader has on its hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Load {
    /// It waits for a majority set of acceptors: to vote for what it has proposed, or to promise that it may lead on (ADR 0025).
    pub waits: bool,
    /// Commands proposed and not issued.
    pub unissued: usize,
    /// Since when the oldest of them waits (S-26).
    pub oldest_unissued: Option<Tick>,
    /// Calls kept for room, for the pool or for a refusal to pass.
    pub kept_calls: usize,
    /// Replies held by the output gate.
    pub held_replies: usize,
}
