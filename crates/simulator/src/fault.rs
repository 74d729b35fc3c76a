//! The bad things that a world does, by kind: what is counted, and what a run must not lack.

use protocol::{CommandNumber, NodeId};

/// What a link does to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mishap {
    /// It is lost on a link that works.
    Loss,
    /// It arrives twice.
    Duplicate,
    /// It overtakes another one on its link.
    Reorder,
    /// It takes far longer than usual.
    DelaySpike,
}

/// Something bad that the world did.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// To a message for a node that is up, when it arrives or would.
    Message {
        /// What.
        mishap: Mishap,
        /// The message is a heartbeat: there are many, and the protocol does not depend on any.
        heartbeat: bool,
    },
    /// Directed links stop working: these, all at once.
    Partition {
        /// Its shape.
        shape: Shape,
        /// The links, from and to.
        cut: Vec<(NodeId, NodeId)>,
    },
    /// All links work again.
    Heal,
    /// A node loses its power.
    Crash(NodeId),
    /// A node's process is killed.
    Kill(NodeId),
    /// A node that was down comes back.
    Restart(NodeId),
    /// A node stands still, as under SIGSTOP; it goes on later.
    Pause(NodeId),
    /// The wall clock of a node jumps, so many milliseconds.
    ClockJump(NodeId, i64),
    /// The clocks of a node run at this rate from now on, in thousandths.
    ClockRate(NodeId, u32),
    /// A power cut took what was written to the state and not synced: commands down to this one.
    LostUnsynced(NodeId, CommandNumber),
    /// A power cut in the middle of a write: a part of it is on the disk, which opening leaves alone.
    TornWrite(NodeId),
    /// A stored record is damaged.
    BitRot(NodeId),
    /// A record is stored where another one belongs: found as rot is.
    Misdirected(NodeId),
    /// A write fails.
    WriteError(NodeId),
    /// A sync fails.
    SyncError(NodeId),
    /// The disk is full: a write fails.
    DiskFull(NodeId),
    /// The disk has little room for a while, below the soft mark.
    DiskLow(NodeId),
    /// The disk has no room for a while, below the hard mark.
    DiskOut(NodeId),
    /// The disk is gone.
    DiskLost(NodeId),
    /// A node campaigns although its failure detector has not said so.
    Suspicion(NodeId),
    /// The state is gone; the log is there.
    StateLost(NodeId),
    /// The state of a node that is down is damaged: its next start begins it anew.
    StateRot(NodeId),
    /// A node went down while it had a part, or all, of a whole state that was not yet in use.
    DownInTransfer(NodeId),
    /// A node that nobody knew has joined: it starts for the first time, under an id of its own.
    Join(NodeId),
    /// The same, by a node that has lost its disk, or given it up, and takes the place that it had.
    Return(NodeId),
    /// A node is asked to leave.
    Leave(NodeId),
    /// The disk of a node that has left, or was removed, is given up: it never comes back under this id.
    GivenUp(NodeId),
    /// A node went down while a change of the membership was decided, and nothing under it.
    DownInChange(NodeId),
    /// Links stopped at such a time.
    PartitionInChange,
}

/// The shape of a partition: which directed links stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// Two sides that do not reach each other.
    TwoSided,
    /// One side reaches the other, not the reverse.
    OneWay,
    /// Any set of directed links.
    Partial,
    /// Two sides that both reach one node in between.
    Bridge,
    /// Each node reaches its neighbours in a row only.
    Chain,
    /// All reach one node in the middle only.
    Star,
    /// Each node reaches its neighbours in a ring only.
    Ring,
    /// A link that goes up and down, or all from one side to the other.
    Flapping,
    /// Any set of directed links, each of which goes up and down in its own time.
    FlappingEdges,
    /// What stays cut off after the faults: counted as no partition.
    Rest,
    /// What goes up and down between those that are needed and a fringe, after the faults: likewise.
    Fringe,
}

impl Fault {
    /// The names of all kinds, in the order of [`Fault::kind`].
    pub const KINDS: [&str; 36] = [
        "loss",
        "duplicate",
        "reorder",
        "delay_spike",
        "heartbeat_loss",
        "heartbeat_duplicate",
        "heartbeat_reorder",
        "heartbeat_delay_spike",
        "partition",
        "heal",
        "crash",
        "kill",
        "restart",
        "pause",
        "clock_jump",
        "clock_rate",
        "lost_unsynced",
        "torn_write",
        "bit_rot",
        "misdirected",
        "write_error",
        "sync_error",
        "disk_full",
        "disk_lost",
        "disk_low",
        "disk_out",
        "suspicion",
        "state_lost",
        "state_rot",
        "down_in_transfer",
        "join",
        "return",
        "leave",
        "given_up",
        "down_in_change",
        "partition_in_change",
    ];
    /// How many of them are about changes of the membership: the last ones. Worlds without changes have none.
    pub const OF_CHANGES: usize = 6;

    /// Which of [`Fault::KINDS`] it is.
    #[must_use]
    pub fn kind(&self) -> usize {
        match self {
            Self::Message { mishap, heartbeat } => *mishap as usize + if *heartbeat { 4 } else { 0 },
            Self::Partition { .. } => 8,
            Self::Heal => 9,
            Self::Crash(_) => 10,
            Self::Kill(_) => 11,
            Self::Restart(_) => 12,
            Self::Pause(_) => 13,
            Self::ClockJump(..) => 14,
            Self::ClockRate(..) => 15,
            Self::LostUnsynced(..) => 16,
            Self::TornWrite(_) => 17,
            Self::BitRot(_) => 18,
            Self::Misdirected(_) => 19,
            Self::WriteError(_) => 20,
            Self::SyncError(_) => 21,
            Self::DiskFull(_) => 22,
            Self::DiskLost(_) => 23,
            Self::DiskLow(_) => 24,
            Self::DiskOut(_) => 25,
            Self::Suspicion(_) => 26,
            Self::StateLost(_) => 27,
            Self::StateRot(_) => 28,
            Self::DownInTransfer(_) => 29,
            Self::Join(_) => 30,
            Self::Return(_) => 31,
            Self::Leave(_) => 32,
            Self::GivenUp(_) => 33,
            Self::DownInChange(_) => 34,
            Self::PartitionInChange => 35,
        }
    }
}

impl Shape {
    /// The names of all shapes that partitions are drawn in, in the order of [`Shape::kind`].
    pub const NAMES: [&str; 9] =
        ["two_sided", "one_way", "partial", "bridge", "chain", "star", "ring", "flapping", "flapping_edges"];

    /// Which of [`Shape::NAMES`] it is, if any.
    #[must_use]
    pub fn kind(self) -> Option<usize> {
        Some(self as usize).filter(|kind| *kind < Self::NAMES.len())
    }

    /// Whether its links go up and down.
    #[must_use]
    pub fn flaps(self) -> bool {
        matches!(self, Self::Flapping | Self::FlappingEdges | Self::Fringe)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.kind().map_or(if self == Self::Fringe { "fringe" } else { "rest" }, |kind| Self::NAMES[kind])
    }
}
