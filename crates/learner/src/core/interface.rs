//! What the learner is told and what it wants done: the closed lists that the actor and the
//! simulator translate.

use std::sync::Arc;
use std::time::Duration;

use protocol::message::ToLearner;
use protocol::{
    Ballot, Command, CommandId, CommandNumber, LearnFrom, Membership, Message, NodeId, Position, SnapshotId,
    SnapshotPiece, Space,
};
use storage::{Installation, Staged, StateStore};

use super::catch_up::Timing;
use super::digests::{DigestRefusal, Waiter};

/// What a learner is told at its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// The membership in force, until [`Input::Membership`] says otherwise: who else learns, and whose votes issue a
    /// command.
    pub membership: Arc<Membership>,
    /// How learners come to know that a command is issued.
    pub learn_from: LearnFrom,
    /// Claim 5's number: how far past the last issued command a leader proposes. At least 1.
    pub window: u64,
    /// When to ask for what is missing.
    pub timing: Timing,
}

/// What the store of a node holds when its learner begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The last applied command.
    pub applied: CommandId,
    /// What has arrived of a snapshot.
    pub staged: Option<Staged>,
}

impl Stored {
    /// What this store holds.
    #[must_use]
    pub fn of(store: &dyn StateStore) -> Self {
        Self { applied: store.applied(), staged: store.staged() }
    }
}

impl From<CommandId> for Stored {
    /// The state after a command, and nothing else.
    fn from(applied: CommandId) -> Self {
        Self { applied, staged: None }
    }
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
    /// The failure detector hears a peer, again or with news of how far its state is durable.
    PeerDurable {
        /// The peer.
        peer: NodeId,
        /// The last command number in its durable state.
        durable: CommandNumber,
    },
    /// The failure detector suspects a peer: it will not answer.
    PeerLost(NodeId),
    /// What the store says of itself: at the start, after a sync, and when it has forgotten something.
    Kept {
        /// The last command number in the durable state.
        durable: CommandNumber,
        /// The lowest number whose command is kept.
        kept_from: CommandNumber,
    },
    /// What [`Effect::MakeCheckpoint`] began is done; this is what the checkpoint shows.
    CheckpointMade(SnapshotId),
    /// What [`Effect::Stage`] began is done; this is what the store now has of a snapshot. It takes no piece that is
    /// out of order.
    Staged(Option<Staged>),
    /// What [`Effect::Install`] began is over.
    Installed(Installation),
    /// Somebody wants a digest of the state at exactly `number`.
    DigestAt {
        /// Who; a new name for every request.
        waiter: Waiter,
        /// At which number.
        number: CommandNumber,
        /// How long the number is waited for.
        patience: Duration,
    },
    /// The state that was applied or installed has a later membership.
    Membership(Arc<Membership>),
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
    /// before what comes after.
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
    /// Ask a peer with `CatchUp` for issued commands. It claims nothing, and leaves before anything is applied, so that
    /// the next piece is under way while this one is written.
    Ask {
        /// The peer.
        to: NodeId,
        /// The first number that is missing here.
        first: CommandNumber,
    },
    /// Answer a peer's `CatchUp` from the store with one bounded piece, empty if it has nothing of it, after
    /// everything is applied. A peer has one question outstanding: a newer one takes the place of an older.
    Serve {
        /// The peer.
        to: NodeId,
        /// The first number that it lacks.
        first: CommandNumber,
    },
    /// What is not needed any more may be forgotten, whenever there is time for it.
    Forget {
        /// The states of a majority of learners, and this one, are durable up to here: votes may go, and commands
        /// where they take too much space.
        durable: CommandNumber,
        /// Commands up to here may go when they are merely old: nobody in touch lacks them.
        in_touch: CommandNumber,
    },
    /// Give the space of what is forgotten back to the disk, which has no more than this and may get nothing written
    /// that would do so in time.
    Reclaim(Space),
    /// Open a checkpoint of the state; then say [`Input::CheckpointMade`].
    MakeCheckpoint,
    /// Answer a peer's `FetchSnapshot` from an open checkpoint.
    ServePiece {
        /// The peer.
        to: NodeId,
        /// Which checkpoint.
        id: SnapshotId,
        /// Where the piece begins.
        from: Position,
    },
    /// Nobody asks about this checkpoint any more.
    CloseCheckpoint(SnapshotId),
    /// Write a piece of a snapshot beside the state, the first one in the place of what is there; then say
    /// [`Input::Staged`].
    Stage {
        /// Which snapshot.
        id: SnapshotId,
        /// The piece.
        piece: SnapshotPiece,
        /// About how many records all of it has.
        records: u64,
        /// Who sent it.
        from: NodeId,
    },
    /// Check what is staged, and put it in the place of the state; then say [`Input::Installed`]. Nothing is to be
    /// applied until then.
    Install,
    /// Drop what is staged. This and the two above are carried out in order.
    DropStaged,
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
    /// Votes in a ballot that is led under another membership than the one in force here. With a later one we are
    /// behind, and will be told.
    OtherMembership,
    /// No vote, or none beyond those known of this acceptor.
    NothingNew,
    /// Too far above the last issued command to be kept; a peer will be asked.
    BeyondWindow,
    /// Issued commands that do not begin where our list ends, or a piece that does not follow what is staged.
    NotNext,
    /// The disk has no room for it; a peer will be asked when it has.
    NoRoom,
    /// The disk was full before all of another node's state was there: the part is dropped.
    DoesNotFit,
    /// An answer to a question that we did not ask, or not of this peer, or that came too late.
    NotAsked,
    /// A peer does not have what we asked it for, or has it no longer.
    Forgotten,
    /// The state is being replaced; what was missed meanwhile is asked for.
    Installing,
    /// As many checkpoints are open as may be; the peer will ask another one, or again.
    Busy,
    /// What was received of a whole state is not what its sender said: damaged on the way, or there.
    Mismatch {
        /// Who sent the end of it; 0 when that was before this node started.
        from: NodeId,
        /// What it should have been.
        id: SnapshotId,
    },
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
            Self::OtherMembership => "other_membership",
            Self::NothingNew => "nothing_new",
            Self::BeyondWindow => "beyond_window",
            Self::NotNext => "not_next",
            Self::NoRoom => "no_room",
            Self::DoesNotFit => "does_not_fit",
            Self::NotAsked => "not_asked",
            Self::Forgotten => "forgotten",
            Self::Installing => "installing",
            Self::Busy => "busy",
            Self::Mismatch { .. } => "mismatch",
            Self::Contradiction { .. } => "contradiction",
        }
    }
}
