//! What nodes say to each other.
//!
//! ```text
//!   gateway        leader p                 acceptor q               learner (every node)
//!      |              |  NextBallot (1)         |                         |
//!      |              |------------------------>| next_ballot := b, durable
//!      |              |  BallotInfo (2)         |                         |
//!      |              |<------------------------|   (or MyNextBal)        |
//!      | ExecuteFunction                        |                         |
//!      |------------->|  BeginBallot (3', 3")   |                         |
//!      |              |------------------------>| vote, durable           |
//!      |              |  Voted (4)              |   Voted (claim 3)       |
//!      |              |<------------------------|------------------------>|
//!      |              |  Rejoin (for a vote)    |                         |
//!      |              |<------------------------| votes damaged: silent   |
//!      |              |  Rejoined               |                         |
//!      |              |------------------------>| learns, then speaks     |
//!      |              |  Success (5, 6; claim 2)                          |
//!      |              |-------------------------------------------------->| issue, apply
//!      | Executed     |                                                   |
//!      |<-------------|                                CatchUp / Commands | <-> any peer
//!      |              |                         FetchSnapshot / Snapshot | <-> any peer
//! ```
//!
//! One enum per receiving role, one struct per message. Any message may be lost, doubled,
//! delayed or reordered; none of that costs safety, and repetition gets the same answer.

use crate::ballot::Ballot;
use crate::call::{Call, Fingerprint, Outcome, RequestId};
use crate::command::{Command, CommandId, CommandNumber, Run, Vote};
use crate::node::NodeId;
use crate::snapshot::{Position, SnapshotId, SnapshotPiece};
use crate::space::Space;

/// Who takes a message within a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Promises and votes.
    Acceptor,
    /// Runs functions and proposes their commands.
    Leader,
    /// Issues and applies commands.
    Learner,
    /// Watches who is alive.
    FailureDetector,
    /// Speaks for clients.
    Gateway,
}

/// How learners come to know that a command is issued (DESIGN 5 rule 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnFrom {
    /// The leader announces it (claim 2).
    Leader,
    /// Every acceptor tells every learner its vote, and each decides (claim 3): one message
    /// delay less, more messages.
    Voters,
}

impl LearnFrom {
    /// The name, in the configuration and in handshakes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Voters => "voters",
        }
    }
}

/// A message between nodes, by the role that receives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// To the acceptor.
    Acceptor(ToAcceptor),
    /// To the leader.
    Leader(ToLeader),
    /// To the learner.
    Learner(ToLearner),
    /// To the failure detector.
    FailureDetector(Heartbeat),
    /// To the gateway.
    Gateway(ToGateway),
}

impl Message {
    /// The role that takes this message.
    #[must_use]
    pub fn recipient(&self) -> Role {
        match self {
            Self::Acceptor(_) => Role::Acceptor,
            Self::Leader(_) => Role::Leader,
            Self::Learner(_) => Role::Learner,
            Self::FailureDetector(_) => Role::FailureDetector,
            Self::Gateway(_) => Role::Gateway,
        }
    }

    /// The name of the message, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Acceptor(ToAcceptor::NextBallot(_)) => "NextBallot",
            Self::Acceptor(ToAcceptor::BeginBallot(_)) => "BeginBallot",
            Self::Acceptor(ToAcceptor::Rejoined(_)) => "Rejoined",
            Self::Leader(ToLeader::BallotInfo(_)) => "BallotInfo",
            Self::Leader(ToLeader::MyNextBal(_)) => "MyNextBal",
            Self::Leader(ToLeader::Voted(_)) | Self::Learner(ToLearner::Voted(_)) => "Voted",
            Self::Leader(ToLeader::Rejoin(_)) => "Rejoin",
            Self::Leader(ToLeader::ExecuteFunction(_)) => "ExecuteFunction",
            Self::Leader(ToLeader::ReadBarrier(_)) => "ReadBarrier",
            Self::Learner(ToLearner::Success(_)) => "Success",
            Self::Learner(ToLearner::CatchUp(_)) => "CatchUp",
            Self::Learner(ToLearner::Commands(_)) => "Commands",
            Self::Learner(ToLearner::FetchSnapshot(_)) => "FetchSnapshot",
            Self::Learner(ToLearner::Snapshot(_)) => "Snapshot",
            Self::FailureDetector(_) => "Heartbeat",
            Self::Gateway(ToGateway::Executed(_)) => "Executed",
            Self::Gateway(ToGateway::BarrierPassed(_)) => "BarrierPassed",
        }
    }
}

/// What acceptors receive; always from a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToAcceptor {
    /// Step 1.
    NextBallot(NextBallot),
    /// Steps 3' and 3".
    BeginBallot(BeginBallot),
    /// The answer to [`Rejoin`].
    Rejoined(Rejoined),
}

/// What leaders receive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToLeader {
    /// Step 2, from an acceptor.
    BallotInfo(BallotInfo),
    /// Steps 2 and 4, from an acceptor.
    MyNextBal(MyNextBal),
    /// Step 4, from an acceptor.
    Voted(Voted),
    /// Instead of a vote, from an acceptor whose votes are damaged.
    Rejoin(Rejoin),
    /// From a gateway.
    ExecuteFunction(Call),
    /// From a gateway.
    ReadBarrier(ReadBarrier),
}

/// What learners receive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToLearner {
    /// Steps 5 and 6, from the leader (claim 2).
    Success(Success),
    /// Step 4, from every acceptor, when learners decide for themselves (claim 3).
    Voted(Voted),
    /// Claim 4, from a learner that lacks commands.
    CatchUp(CatchUp),
    /// Claim 4, the answer.
    Commands(Commands),
    /// Claim 4, from a learner that lacks commands which nobody keeps.
    FetchSnapshot(FetchSnapshot),
    /// Claim 4, the answer: a piece of a whole state.
    Snapshot(Snapshot),
}

/// What gateways receive; from a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToGateway {
    /// The answer to `ExecuteFunction`.
    Executed(Executed),
    /// The answer to `ReadBarrier`.
    BarrierPassed(BarrierPassed),
}

/// Step 1, leader to acceptors: asks for the promise to vote in no ballot below `ballot`. The
/// sender's `last_tried` is durable before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NextBallot {
    /// The ballot that the sender owns and wants to lead.
    pub ballot: Ballot,
    /// The lowest command number for which the sender does not know the issued command.
    pub first: CommandNumber,
}

/// Step 2, acceptor to leader: the promise, with what the acceptor knows. The acceptor's
/// `next_ballot` is durable before it is sent.
///
/// The patent's D (issued commands at or above n) and X (missing below n) are ranges, because
/// issued commands have no gaps: D is `first..=issued`, X is `issued+1..first`. So one id says
/// both, and bodies travel by `CatchUp`, from any learner, in bounded pieces. V is `votes`.
/// A promise with many votes is sent in `parts`, since a frame has a size limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BallotInfo {
    /// The ballot promised; the `ballot` of the `NextBallot` answered.
    pub ballot: Ballot,
    /// The `first` of the `NextBallot` answered.
    pub first: CommandNumber,
    /// The last command that the acceptor knows to be issued.
    pub issued: CommandId,
    /// V: the last vote for each number above `issued` and not below `first`, ascending. Parts
    /// hold consecutive pieces of it.
    pub votes: Vec<Vote>,
    /// Which part this is, from 0.
    pub part: u32,
    /// How many parts make the promise; at least 1.
    pub parts: u32,
}

/// Steps 2 and 4, acceptor to leader: "I promised `ballot`, higher than yours".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MyNextBal {
    /// The acceptor's `next_ballot`.
    pub ballot: Ballot,
    /// The ballot that was received and refused.
    pub refused: Ballot,
}

/// Steps 3' and 3", leader to acceptors: vote for a run of consecutive commands. The sender
/// leads `ballot`. An empty run asks only whether the promise still stands (the round of a
/// linearizable read).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BeginBallot {
    /// The ballot that the sender leads.
    pub ballot: Ballot,
    /// Consecutive commands, ascending, each the precedent of the next; may be empty.
    pub commands: Vec<Command>,
    /// Counts the sender's messages in this ballot. The answer returns it, which proves that
    /// the promise still stood *after* this message was sent.
    pub round: u64,
    /// The number of the membership under which the ballot is led. The answer returns it.
    pub membership: CommandNumber,
}

/// Step 4, acceptor to leader (claim 2), or to every learner (claim 3): "I voted". The votes
/// are durable before it is sent.
///
/// Votes in one ballot are gap-free (DESIGN 5 rule 5), so a vote for `last` says that for each
/// lower number the sender voted in the same ballot or knows the command issued: receivers
/// need keep only the highest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Voted {
    /// The ballot voted in: the sender's `next_ballot`.
    pub ballot: Ballot,
    /// The run voted for; `None` when the sender has not voted in this ballot.
    pub run: Option<Run>,
    /// The highest `round` of a `BeginBallot` of this ballot that the sender has received.
    pub round: u64,
    /// The number of the membership under which the ballot is led, by its `BeginBallot`: who counts the vote
    /// counts it among those of that membership, or not at all.
    pub membership: CommandNumber,
}

/// Acceptor to leader, in the place of [`Voted`]: "some of my votes may be lost; how far do I have to
/// learn before my word is good again?" The ballot is not below the sender's promise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejoin {
    /// The ballot of the `BeginBallot` answered.
    pub ballot: Ballot,
    /// Drawn when the sender started: what was lost was lost before.
    pub nonce: u64,
}

/// Leader to acceptor, the answer to [`Rejoin`]. The sender leads `ballot`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejoined {
    /// The `ballot` of the question.
    pub ballot: Ballot,
    /// The `nonce` of the question.
    pub nonce: u64,
    /// The number of the last command that the sender has proposed in this ballot, its initial
    /// history included, or, when there is none, knows to be issued.
    pub last: CommandNumber,
    /// The number of the membership under which the sender leads: who has voted under a later one is not helped by it.
    pub membership: CommandNumber,
}

/// Steps 5 and 6, leader to learners: all commands up to `issued` are issued. A majority set's
/// votes for it are durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Success {
    /// The ballot through which it was issued.
    pub ballot: Ballot,
    /// The last issued command.
    pub issued: CommandId,
    /// Bodies, for a learner that may lack them: a run that ends with `issued`, or empty.
    pub commands: Vec<Command>,
}

/// Claim 4, learner to any learner: "I lack commands from `first` on".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CatchUp {
    /// The lowest number that the sender lacks.
    pub first: CommandNumber,
}

/// Claim 4, the answer: issued commands, as many as fit one piece.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commands {
    /// Consecutive issued commands from the number asked for; empty when the sender has none.
    pub commands: Vec<Command>,
    /// The last command that the sender knows to be issued.
    pub issued: CommandId,
    /// The lowest number whose command the sender still keeps. What lies below it must come from somebody else,
    /// or as a [`Snapshot`]. 0 from a version that forgets nothing.
    pub kept_from: CommandNumber,
}

/// Claim 4, learner to a learner that has said what it keeps: "give me a piece of your state".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchSnapshot {
    /// The snapshot that the sender has a part of and wants no other; `None`: any that goes on where commands
    /// are kept.
    pub id: Option<SnapshotId>,
    /// Where the piece begins; the beginning when any snapshot will do.
    pub from: Position,
}

/// Claim 4, the answer to [`FetchSnapshot`]. The snapshot was made after all of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Which snapshot.
    pub id: SnapshotId,
    /// About how many records it has: for telling how far a transfer is, and nothing else.
    pub records: u64,
    /// A piece of it; `None` when the sender does not have this snapshot, or has it no longer.
    pub piece: Option<SnapshotPiece>,
}

/// From every node to every node, many times a second, on a connection of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// Whom the sender hears from now, ascending, itself included.
    pub hears: Vec<NodeId>,
    /// Whether the sender may lead.
    pub can_lead: bool,
    /// The ballot that the sender leads now.
    pub leads: Option<Ballot>,
    /// The ballot of the working leader that the sender hears *directly*; never hearsay, so
    /// that two nodes cannot keep alive the memory of a dead one.
    pub follows: Option<Ballot>,
    /// The highest ballot that the sender has seen.
    pub ballot: Ballot,
    /// The last command number that the sender knows to be issued.
    pub issued: CommandNumber,
    /// The last command number that the sender has applied.
    pub applied: CommandNumber,
    /// The last command number in the sender's durable state.
    pub durable: CommandNumber,
    /// The sender wants a heartbeat back at once: a probe.
    pub answer: bool,
    /// Where callers reach the sender's REST, as it advertises; at most
    /// [`Heartbeat::HTTP_BYTES_MAX`] bytes, empty when unknown.
    pub http: String,
    /// How much room the sender's disk has.
    pub space: Space,
    /// The sender's acceptor neither promises nor votes now (ADR 0023).
    pub silent: bool,
    /// The sender leads, and hands its lead over.
    pub hands_over: Option<HandOver>,
    /// What the sender's acceptor has durably promised, and how far it has voted in that ballot. Nobody else may hear of
    /// it: votes go to their leader, and a leader's own stay at home. An old copy of its disk is known by this (ADR 0023).
    pub promise: Ballot,
    /// See [`Heartbeat::promise`].
    pub voted: CommandNumber,
    /// The sender stands by: as long as it has no vote, it asks for none, and is given that of an acceptor that fails.
    pub spare: bool,
}

/// A leader takes no calls any more: another node is to lead (ADR 0030).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandOver {
    /// The node that is to lead.
    pub to: NodeId,
    /// The last command of the ballot: once that node has applied it, it is to begin a ballot of its own.
    pub last: CommandNumber,
}

impl Heartbeat {
    /// The longest `http`, in bytes: the longest name of a host, a port, and room.
    pub const HTTP_BYTES_MAX: usize = 300;
}

/// Gateway to leader: "which number must a read that arrived now reach?"
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadBarrier {
    /// Names the question; fresh for every repetition, so that an old answer is no answer.
    pub id: u64,
}

/// Leader to gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BarrierPassed {
    /// The question answered.
    pub id: u64,
    /// A state with this number or a later one shows all that was acknowledged before the
    /// question; `None` when the asked node does not lead.
    pub at: Option<CommandNumber>,
}

/// Leader to gateway: what became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Executed {
    /// The call.
    pub request: RequestId,
    /// Which copy of it is answered ([`crate::Call::copy`]), so that an answer that comes twice says nothing of a
    /// later copy. Nothing when the sender is of a version that does not say it.
    pub copy: Option<u32>,
    /// What it asked: under one key, an answer to another body is no answer. All zero when the sender
    /// is of a version that does not say it.
    pub fingerprint: Fingerprint,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether the outcome is stored under the request id, so that every copy of the call gets it.
    pub stored: Stored,
}

/// Whether the outcome of a call is stored by an issued command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// It is not: another copy of the call may come to something else.
    No,
    /// Yes, by the command that this call became.
    Now,
    /// Yes, before this call came.
    Before,
    /// It need not be: it is plain from the call itself, or from what is stored of another call under its id, and every copy
    /// comes to the same.
    Plain,
}
