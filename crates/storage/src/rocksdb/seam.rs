//! Whether the log's tables and its log files fit together, looked at before RocksDB opens them.
//!
//! What lies in tables is named by the file MANIFEST, which grows with each new table. A MANIFEST that lost its end
//! names the tables of an earlier time; the log files that held the rest are long deleted, and RocksDB opens what is
//! left without a word: votes and promises are gone in silence. (Its option `track_and_verify_wals` compares each log
//! file with the one before it, but not the first one of a process, which is where a start puts the seam.)
//!
//! So we look ourselves. Each write carries its number ([`LogKey::Writes`]), and a table holds the writes up to some
//! number, since the log is one column family. The tables alone, opened without the log files, say up to which; in the
//! log files the writes must go on from there without a gap. Every start writes once, so that there is
//! something to compare with even when nothing else is written after it.

use std::path::Path;

use ::rocksdb::Cache;

use super::keys::LogKey;
use super::log::{RocksLog, counter};
use super::meaning::may_exist;
use super::open::{Options, open_log_read_only, open_tables_of_log};
use super::wal;
use crate::StorageError;

/// Refuses a log in which writes are missing between its tables and its log files. `log` is its directory.
pub(crate) fn check(log: &Path, options: &Options, cache: &Cache) -> Result<(), StorageError> {
    if !may_exist(&log.join("CURRENT")) {
        return Ok(());
    }
    let mut writes = Vec::new();
    wal::records(log, |batch| {
        writes.extend(RocksLog::write_in(batch).map(|write| (write, RocksLog::begins_in(batch))));
    })?;
    let in_tables = counter(&open_tables_of_log(log, options, cache)?, LogKey::Writes)?;
    let mut last = in_tables;
    for (write, begins) in writes {
        if write > last + 1 && !begins {
            // A table of another version was passed over, too, and then nothing is missing.
            if let Some(Err(refused @ StorageError::Refused(_))) = log.parent().map(open_log_read_only) {
                return Err(refused);
            }
            return Err(StorageError::Corrupt(format!(
                "the log at {} lacks its writes {} to {}, which were acknowledged: its tables end at write \
                 {in_tables}, and its log files do not go on from there; the file MANIFEST or a log file has lost a part",
                log.display(),
                last + 1,
                write - 1
            )));
        }
        last = last.max(write);
    }
    Ok(())
}
