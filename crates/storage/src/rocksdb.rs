//! Stable storage on RocksDB.
//!
//! One data directory is one node. It holds two databases, so that the synced log never waits
//! behind the bulk of the state:
//!
//! - `log`: `last_tried`, `next_ballot` and votes; each write is synced ([`RocksLog`]);
//! - `state`: the state machine, stored outcomes, issued commands; written without a sync,
//!   synced now and then ([`RocksState`]);
//!
//! and a small file `IDENTITY` for people, written last when the directory is made. While a copy of
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
//! and RocksDB's own attempts to recover are turned off (S-12). Errors of its background work
//! are looked for after each write.
//!
//! # What a start can tell, and what it cannot (S-15, A6)
//!
//! A power cut may tear the last batch of the log, which was never acknowledged: it is
//! dropped. Everything before it was acknowledged and must be there. A start therefore refuses
//! ([`StorageError::Corrupt`](crate::StorageError::Corrupt)):
//!
//! - a record of the log that is whole but fails its checksum, wherever it lies. On a file
//!   system that records a file's new length before its content, that may be an honest torn
//!   tail; ext4 and XFS with their defaults do not do so;
//! - an unreadable place in the log with readable records after it (module `wal`; RocksDB alone
//!   would drop what follows a damaged length in silence);
//! - a log whose tables and log files do not fit together (module `seam`): a file MANIFEST that lost its end names the
//!   tables of an earlier time, and RocksDB alone would open those in silence;
//! - a log that holds fewer writes than the state has seen, such as one restored from a backup,
//!   and a state that lies below what was once synced, or below the votes that were discarded for
//!   it. Each database notes the progress of the other for this;
//! - a database that is missing where the other is not.
//!
//! It cannot tell a torn tail from acknowledged batches that were cut off the end of the log
//! later, if the state has seen nothing of those batches. A disk loses data in that way only
//! when it lies about a sync: use none that does. Nor can it tell a whole directory that was
//! restored from a backup: never do that with a node that has voted since; leave the node
//! off until the cluster can replace it, which this version cannot.

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
mod open;
mod reader;
mod record;
mod seam;
mod stage;
mod state;
mod wal;

pub use log::RocksLog;
pub use open::{Options, Stores, open};
pub use state::RocksState;
