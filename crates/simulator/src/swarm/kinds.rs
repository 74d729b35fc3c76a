//! The kinds of troubles, and how often each comes beside the others.

use crate::fault::Shape;

/// A kind of bad thing that happens now and then, as against those that happen to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Links stop.
    Partition(Shape),
    /// All links work again.
    Heal,
    /// A node loses its power, at any moment.
    Crash,
    /// A node loses its power around its next write of the log.
    CrashAtWrite,
    /// All nodes lose their power at once.
    Blackout,
    /// A process is killed.
    Kill,
    /// A node stands still for a while.
    Pause,
    /// A wall clock jumps.
    ClockJump,
    /// The clocks of a node run fast or slowly.
    ClockRate,
    /// A stored vote is damaged.
    BitRot,
    /// A stored vote is written over another.
    Misdirect,
    /// A write fails.
    WriteError,
    /// A sync fails.
    SyncError,
    /// The disk is full.
    DiskFull,
    /// The disk has little or no room for a while.
    NoRoom,
    /// The disk is gone.
    DiskLost,
    /// A node takes a leader that works for lost, as a failure detector may, and campaigns.
    Suspicion,
    /// The power goes, and the state with it.
    StateLost,
    /// The state of a node that is down is damaged.
    StateRot,
    /// A node that nobody knows asks to be taken in.
    Join,
    /// A node that has joined is asked to leave.
    Leave,
}

impl Trouble {
    /// Whether it happens only in worlds in which the membership changes.
    pub(super) fn is_of_changes(self) -> bool {
        matches!(self, Self::Join | Self::Leave)
    }

    /// Whether a moment can be chosen for it: it is over at once, and needs no other one.
    pub(crate) fn is_sudden(self) -> bool {
        match self {
            Self::Partition(_) | Self::Crash | Self::CrashAtWrite | Self::Blackout | Self::Kill | Self::Pause => true,
            Self::Suspicion => true,
            Self::Heal
            | Self::ClockJump
            | Self::ClockRate
            | Self::BitRot
            | Self::Misdirect
            | Self::WriteError
            | Self::SyncError
            | Self::DiskFull
            | Self::NoRoom
            | Self::DiskLost
            | Self::StateLost
            | Self::StateRot
            | Self::Join
            | Self::Leave => false,
        }
    }

    /// All of them, with how often each comes where it is on, beside the others: so often, twice, or four times.
    pub(super) const ALL: [(Self, u64); 29] = [
        (Self::Partition(Shape::TwoSided), 6),
        (Self::Partition(Shape::OneWay), 26),
        (Self::Partition(Shape::Partial), 8),
        (Self::Partition(Shape::Bridge), 4),
        (Self::Partition(Shape::Chain), 4),
        (Self::Partition(Shape::Star), 4),
        (Self::Partition(Shape::Ring), 4),
        (Self::Partition(Shape::Flapping), 6),
        (Self::Partition(Shape::FlappingEdges), 6),
        (Self::Heal, 40),
        (Self::Crash, 12),
        (Self::CrashAtWrite, 12),
        (Self::Blackout, 5),
        (Self::Kill, 8),
        (Self::Pause, 12),
        (Self::ClockJump, 6),
        (Self::ClockRate, 6),
        (Self::BitRot, 19),
        (Self::Misdirect, 4),
        (Self::WriteError, 4),
        (Self::SyncError, 4),
        (Self::DiskFull, 4),
        (Self::NoRoom, 8),
        (Self::DiskLost, 2),
        (Self::Suspicion, 60),
        (Self::StateLost, 3),
        (Self::StateRot, 12),
        (Self::Join, 64),
        (Self::Leave, 18),
    ];
}
