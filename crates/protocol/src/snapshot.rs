//! The whole state at one command number, on its way from one learner to another (claim 4; the patent's
//! "restart by copying state from any device").
//!
//! A snapshot is a sequence of records in one fixed order: entries by key, then stored outcomes by request
//! id. It travels in bounded *pieces*; a [`Position`] says where the next one begins, so that a broken
//! transfer goes on where it was. Commands are not in it: whoever installs a snapshot knows the state and
//! the last command's id, and keeps only the commands that follow.

use bytes::Bytes;

use crate::call::{RequestId, StoredOutcome, Verdict};
use crate::command::CommandId;
use crate::state::{Entry, Key};

/// Which state a snapshot shows, and how to tell that it arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The last command applied to it.
    pub at: CommandId,
    /// The digest of the state; equal on all nodes at one number.
    pub digest: [u8; 32],
}

/// A place between two records of a snapshot. Only the kind of store that made it can read it; the
/// empty one is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub Bytes);

impl Position {
    /// The longest position, in bytes: a key or a request id, and a tag.
    pub const BYTES_MAX: usize = crate::state::KEY_BYTES_MAX + 16;
}

/// One record of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotRecord {
    /// An entry of the state.
    Entry {
        /// Its key.
        key: Key,
        /// Its value and version.
        entry: Entry,
    },
    /// A stored outcome.
    Outcome {
        /// The request.
        request: RequestId,
        /// What became of it.
        outcome: StoredOutcome,
    },
}

/// Consecutive records of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SnapshotPiece {
    /// Where this piece begins.
    pub from: Position,
    /// The records; at least one, but in the only piece of an empty state.
    pub records: Vec<SnapshotRecord>,
    /// Where the next piece begins; `None` when this is the last one.
    pub next: Option<Position>,
}

impl SnapshotPiece {
    /// How many bytes of keys, values and outcomes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.iter().map(SnapshotRecord::bytes).sum()
    }
}

impl SnapshotRecord {
    fn bytes(&self) -> usize {
        match self {
            Self::Entry { key, entry } => key.as_str().len() + entry.value.len(),
            Self::Outcome { request, outcome } => {
                let request = match request {
                    RequestId::Caller(key) => key.len(),
                    RequestId::Gateway(number) => size_of_val(number),
                };
                request
                    + match &outcome.verdict {
                        Verdict::Changed(result) | Verdict::Unchanged(result) => result.len(),
                        Verdict::Refused { code, message } => code.len() + message.len(),
                    }
            }
        }
    }
}
