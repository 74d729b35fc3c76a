//! The log in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::{Ballot, CommandNumber, Vote};

use super::Fault;
use crate::{LogImage, LogRecord, LogStore, StorageError};

/// What lies on the disk under a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogDisk {
    last_tried: Ballot,
    next_ballot: Ballot,
    votes: BTreeMap<CommandNumber, Vote>,
    /// Written, but its sync failed.
    unsynced: Vec<LogRecord>,
}

impl LogDisk {
    fn store(&mut self, record: &LogRecord) {
        match record {
            LogRecord::LastTried(ballot) => self.last_tried = *ballot,
            LogRecord::NextBallot(ballot) => self.next_ballot = *ballot,
            LogRecord::Vote(vote) => {
                self.votes.insert(vote.command.number(), vote.clone());
            }
        }
    }
}

/// A [`LogStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryLog(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    disk: LogDisk,
    fault: Option<Fault>,
    failed: Option<StorageError>,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A log on a disk as it was.
    #[must_use]
    pub fn from_disk(disk: LogDisk) -> Self {
        Self(Mutex::new(Inner { disk, ..Inner::default() }))
    }

    /// The disk as it is.
    #[must_use]
    pub fn disk(&self) -> LogDisk {
        self.lock().disk.clone()
    }

    /// Makes the next write or its sync fail.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// A power cut, and a start after it: what was not synced is gone.
    pub fn crash(&self) {
        let mut inner = self.lock();
        inner.disk.unsynced.clear();
        (inner.fault, inner.failed) = (None, None);
    }

    /// A killed process, and a start after it: what was written but not synced is there.
    pub fn restart(&self) {
        let mut inner = self.lock();
        for record in std::mem::take(&mut inner.disk.unsynced) {
            inner.disk.store(&record);
        }
        (inner.fault, inner.failed) = (None, None);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogStore for MemoryLog {
    fn write(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        let mut inner = self.lock();
        if let Some(reason) = &inner.failed {
            return Err(reason.clone());
        }
        if records.is_empty() {
            return Ok(());
        }
        let what = match inner.fault.take() {
            None => {
                records.iter().for_each(|record| inner.disk.store(record));
                return Ok(());
            }
            Some(Fault::Write) => "write",
            Some(Fault::Sync) => {
                inner.disk.unsynced.extend_from_slice(records);
                "sync"
            }
        };
        let reason = StorageError::Failed(format!("a {what} of the log failed, as it was told to"));
        inner.failed = Some(reason.clone());
        Err(reason)
    }

    fn load(&self, above: CommandNumber) -> Result<LogImage, StorageError> {
        let inner = self.lock();
        if let Some(reason) = &inner.failed {
            return Err(reason.clone());
        }
        let votes = inner.disk.votes.range((Bound::Excluded(above), Bound::Unbounded));
        Ok(LogImage {
            last_tried: inner.disk.last_tried,
            next_ballot: inner.disk.next_ballot,
            votes: votes.map(|(_, vote)| vote.clone()).collect(),
        })
    }
}
