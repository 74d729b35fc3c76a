//! What the learner is told and what it wants done: the closed lists that the actor and the
//! simulator translate.

use std::time::Duration;

use protocol::message::ToLearner;
use protocol::{Ballot, Command, CommandId, CommandNumber, LearnFrom, MajoritySets, Message, NodeId, Space};

use super::catch_up::Timing;
use super::digests::{DigestRefusal, Waiter};

/// What a learner is told at its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// The other learners, ascending.
    pub peers: Vec<NodeId>,
    /// How learners come to know that a command is issued.
    pub learn_from: LearnFrom,
    /// The families of acceptors whose votes issue a command.
    pub majority: MajoritySets,
    /// Claim 5's number: how far past the last issued command a leader proposes. At least 1.
    pub window: u64,
    /// When to ask for what is missing.
    pub timing: Timing,
}

/// What happens to a learner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A message of a node, itself included.
    Message {
        /// The sender.
        from: NodeId,
        /// What it says.
        message: ToLearner,
    },
    /// The local acceptor received these commands in a ballot.
    Proposed {
        /// The ballot.
        ballot: Ballot,
        /// Consecutive commands, each the precedent of the next.
        commands: Vec<Command>,
    },
    /// The failure detector heard how far a peer is.
    PeerIssued {
        /// The peer.
        peer: NodeId,
        /// The last command number that it knows to be issued.
        issued: CommandNumber,
    },
    /// The failure detector suspects a peer: it will not answer.
    PeerLost(NodeId),
    /// Somebody wants a digest of the state at `number`, or of the newest when `None`.
    DigestAt {
        /// Who; a new name for every request.
        waiter: Waiter,
        /// At which number.
        number: Option<CommandNumber>,
        /// How long the number is waited for.
        patience: Duration,
    },
    /// A digest that [`Effect::Digest`] began is done, well or not.
    DigestDone,
    /// How much room the disk has now.
    Space(Space),
    /// Time has passed.
    Tick,
}

/// What a learner wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// These commands are issued, and follow the last applied one: apply them. Several such
    /// effects in a row may be carried out in one write.
    Apply(Vec<Command>),
    /// Take the digest of the state as it is now, after what was to be applied before and
    /// before what comes after; then say [`Input::DigestDone`].
    Digest {
        /// Who wants it.
        waiter: Waiter,
    },
    /// There will be no digest for this waiter.
    NoDigest {
        /// Who wanted it.
        waiter: Waiter,
        /// Why not.
        reason: DigestRefusal,
    },
    /// Send a message, after everything is applied.
    Send {
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Answer a peer's `CatchUp` from the store with one bounded piece, after everything is
    /// applied. A peer has one question outstanding: a newer one takes the place of an older.
    Serve {
        /// The peer.
        to: NodeId,
        /// The first number that it lacks; it is issued here.
        first: CommandNumber,
    },
    /// The input changed nothing, or not what it was meant to: to be counted.
    Ignored(IgnoreReason),
}

/// Why an input was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgnoreReason {
    /// From a node that has no such thing to say: no peer, no acceptor.
    Stranger,
    /// `Success` from a node that does not own the ballot.
    NotTheOwner,
    /// Not consecutive, not chained, or at odds with itself: no node of ours sends that.
    Malformed,
    /// Issued here already.
    AlreadyIssued,
    /// Of a ballot below one that counts.
    OlderBallot,
    /// Votes, while the leader announces what is issued.
    NotCounting,
    /// No vote, or none beyond those known of this acceptor.
    NothingNew,
    /// Too far above the last issued command to be kept; a peer will be asked.
    BeyondWindow,
    /// Issued commands that do not begin where our list ends.
    NotNext,
    /// The disk has no room for it; a peer will be asked when it has.
    NoRoom,
    /// Agreement is broken: two commands are claimed for one number. Somebody's data or program
    /// is damaged.
    Contradiction {
        /// Who claims it.
        from: NodeId,
        /// What it claims.
        theirs: CommandId,
        /// What we know.
        ours: CommandId,
    },
}

impl IgnoreReason {
    /// The name in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::NotTheOwner => "not_the_owner",
            Self::Malformed => "malformed",
            Self::AlreadyIssued => "already_issued",
            Self::OlderBallot => "older_ballot",
            Self::NotCounting => "not_counting",
            Self::NothingNew => "nothing_new",
            Self::BeyondWindow => "beyond_window",
            Self::NotNext => "not_next",
            Self::NoRoom => "no_room",
            Self::Contradiction { .. } => "contradiction",
        }
    }
}
