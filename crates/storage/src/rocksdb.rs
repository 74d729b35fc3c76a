//! Stable storage on RocksDB.
//!
//! One data directory is one node. It holds two databases, so that the synced log never waits
//! behind the bulk of the state:
//!
//! - `log`: `last_tried`, `next_ballot` and votes; each write is synced ([`RocksLog`]);
//! - `state`: the state machine, stored outcomes, issued commands; written without a sync,
//!   synced now and then ([`RocksState`]);
//!
//! the file `MARK`, the little that must never be lost; and a small file `IDENTITY` for people, written last when the
//! directory is made. While a copy of
//! the state is sent there is also `checkpoints`; a start removes what a crash left there.
//!
//! # Copies
//!
//! A snapshot that is received lies beside the state, under keys of another *generation*, until one
//! batch makes it the state (module `stage`, ADR 0019). A start finds what was staged, and goes on.
//!
//! # After a failure
//!
//! The first error of a database latches it shut: all later calls fail with the same reason,
//! and RocksDB's own attempts to recover are turned off (S-12). Only that for want of space cannot be; the latch stays
//! shut through it. Errors of its background work are looked for after each write, and when the node asks whether its
//! stores are shut.
//!
//! # What a start can tell, and what it does (S-15, A6, ADR 0023)
//!
//! A power cut may tear the last batch of the log, which was never acknowledged: it is
//! dropped. Everything before it was acknowledged and must be there. The log is *damaged* when
//!
//! - a record of it is whole but fails its checksum, wherever it lies. On a file
//!   system that records a file's new length before its content, that may be an honest torn
//!   tail; ext4 and XFS with their defaults do not do so;
//! - an unreadable place has readable records after it (module `wal`; RocksDB alone
//!   would drop what follows a damaged length in silence);
//! - its tables and log files do not fit together (module `seam`): a file MANIFEST that lost its end names the
//!   tables of an earlier time, and RocksDB alone would open those in silence;
//! - it holds less than the file `MARK` or the state has seen of it, such as one restored from a backup,
//!   or one whose list of files is damaged;
//! - it is missing, or RocksDB cannot read it, be it for a sector that the disk does not give back.
//!
//! The state is damaged when RocksDB cannot read it, or a block of it, when it is missing, or when it lies below
//! what was once synced. What is damaged is set aside (module `mend`), and a new database begins in its place: the log
//! with the promise and `last_tried` of the *mark* (module `mark`), which is kept twice, and with
//! [`Standing::Damaged`](crate::Standing::Damaged), so that its acceptor is silent until it has learnt enough; the state
//! empty. With log and mark gone the node is refused for ever ([`StorageError::Refused`](crate::StorageError::Refused)).
//! What another version has written is no damage: it is refused, and left as it is (module `meaning`).
//!
//! It cannot tell a torn tail from acknowledged batches that were cut off the end of the log
//! later, if neither the mark nor the state has seen anything of those batches. A disk loses data in that way only
//! when it lies about a sync: use none that does. Nor can it tell a whole directory that was
//! restored from a backup: the other nodes do, from what they have noted of it.

mod batch;
mod checkpoint;
mod database;
mod forget;
pub mod fuzz;
#[cfg(test)]
mod golden;
mod history;
mod keys;
mod log;
mod mark;
mod meaning;
mod mend;
mod open;
mod opening;
mod reader;
mod recent;
mod reclaim;
mod record;
mod recover;
mod seam;
mod stage;
mod state;
mod versioned;
mod wal;

pub use log::{Position, RocksLog};
pub use mark::{DiskId, Mark, Noted, write_whole};
pub use meaning::may_exist;
pub use open::{Memory, Options, Stores, make, make_and_lock, open, open_locked};
pub use recover::{Condition, check_recovered, condition, discard, mark_of, recovering, set_aside};
pub use state::RocksState;
pub use versioned::{with_format, without_format};
