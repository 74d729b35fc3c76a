//! Stable storage in memory, with the semantics of a crash.
//!
//! For simulated runs, model checks and the tests of the roles. What was synced is kept apart
//! from what was not, so that a simulated crash loses exactly what a real one may (A6):
//!
//! - [`MemoryLog::crash`], [`MemoryState::crash`]: a power cut; what was not synced is gone.
//!   [`MemoryState::crash_keeping`] loses less of it: a disk may have written some by itself.
//! - [`MemoryLog::restart`], [`MemoryState::restart`]: only the process was killed; what it had
//!   handed to the operating system is there.
//! - [`MemoryLog::tear`]: a power cut in the middle of a write; whatever the next opening finds of
//!   it is not taken for the whole.
//!
//! All also do what a fresh process does at opening: the latch is open again. A store is used
//! through a shared reference and outlives the node that uses it: it is the node's disk.
//!
//! [`Fault`]s make the next write or sync fail; the store is then latched shut, like the real
//! one. [`MemoryLog::rot`] and [`MemoryLog::misdirect`] damage stored votes. The next opening finds it:
//! the log has its exact promise and `last_tried` then, no votes, and is [`crate::Standing::Damaged`].
//! Read without an opening, it is refused. Everything is deterministic.

mod image;
mod log;
mod state;

pub use image::StateImage;
pub use log::{LogDisk, MemoryLog};
pub use state::{MemoryState, StateDisk};

/// What fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The next write: nothing of it is stored.
    Write,
    /// The next sync (in the log: that of the next write). What it should have made durable is
    /// with the operating system: a crash loses it, a restart does not.
    Sync,
    /// The next write: the disk is full, and nothing of it is stored.
    Full,
}

impl Fault {
    /// What the store says of it; `store` is its name.
    fn reason(self, store: &str) -> crate::StorageError {
        let what = match self {
            Self::Write => "a write",
            Self::Sync => "a sync",
            Self::Full => "a write, for lack of space,",
        };
        crate::StorageError::Failed(format!("{what} of the {store} failed, as it was told to"))
    }
}
