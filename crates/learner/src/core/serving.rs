//! Whole states for others: which checkpoints of this node's state are open, and who gets which.
//!
//! A checkpoint is made when somebody asks and none that is open would do: one does as long as this node keeps the
//! commands that follow it, so that the asker can go on with them. It stays open while it is asked about, since a
//! transfer takes many questions. At most [`CHECKPOINTS_MAX`] are open: each holds back space on the disk that later
//! writes would free.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::message::FetchSnapshot;
use protocol::{CommandNumber, NodeId, Position, SnapshotId, Tick};

/// How many checkpoints are open at a time: one that is being transferred, and a fresher one for who comes later.
pub const CHECKPOINTS_MAX: usize = 2;

/// What is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Serving {
    /// The open checkpoints, with when each was last asked about.
    open: BTreeMap<SnapshotId, Tick>,
    /// One is being made.
    making: bool,
    /// Those who get its beginning.
    waiting: BTreeSet<NodeId>,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A piece of an open checkpoint.
    Piece { id: SnapshotId, from: Position },
    /// That one is not open.
    Gone(SnapshotId),
    /// Make a checkpoint; its beginning is the answer.
    Make,
    /// One is being made.
    Wait,
    /// No more can be open.
    Busy,
    /// The disk has no room for what is written to make one.
    NoRoom,
}

impl Serving {
    /// Somebody asks. This node keeps commands from `kept_from` on, and may have no room for a checkpoint; one that is open
    /// takes no more of it, and goes the sooner.
    pub(super) fn ask(
        &mut self,
        from: NodeId,
        fetch: FetchSnapshot,
        kept_from: CommandNumber,
        is_full: bool,
        now: Tick,
    ) -> Answer {
        let fresh = |id: &&SnapshotId| id.at.number.next() >= kept_from;
        let (id, from_there) = match fetch.id {
            Some(id) if !self.open.contains_key(&id) => return Answer::Gone(id),
            Some(id) => (Some(id), fetch.from),
            None => (self.open.keys().rfind(fresh).copied(), Position::default()),
        };
        if let Some(id) = id {
            self.open.insert(id, now);
            return Answer::Piece { id, from: from_there };
        }
        if self.making {
            self.waiting.insert(from);
            return Answer::Wait;
        }
        if self.open.len() >= CHECKPOINTS_MAX {
            return Answer::Busy;
        }
        if is_full {
            return Answer::NoRoom;
        }
        self.making = true;
        self.waiting.insert(from);
        Answer::Make
    }

    /// A checkpoint is made and open; says who waits for its beginning.
    pub(super) fn made(&mut self, id: SnapshotId, now: Tick) -> BTreeSet<NodeId> {
        assert!(self.making, "a checkpoint was made that nobody had asked for");
        self.making = false;
        self.open.insert(id, now);
        std::mem::take(&mut self.waiting)
    }

    /// The peer does not wait any more.
    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        self.waiting.remove(&peer);
    }

    /// Those that nobody has asked about for so long; they are closed.
    pub(super) fn expired(&mut self, after: Duration, now: Tick) -> Vec<SnapshotId> {
        let over = |asked: &Tick| now.since(*asked) >= after;
        let closed = self.open.iter().filter(|(_, asked)| over(asked)).map(|(id, _)| *id).collect();
        self.open.retain(|_, asked| !over(asked));
        closed
    }
}
