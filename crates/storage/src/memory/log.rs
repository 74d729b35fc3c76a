//! The log in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::{Ballot, CommandNumber, Vote};

use super::Fault;
use crate::{LogImage, LogRecord, LogStore, Standing, StorageError};

/// What lies on the disk under a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogDisk {
    last_tried: Ballot,
    next_ballot: Ballot,
    forgotten: CommandNumber,
    standing: Standing,
    voted_under: CommandNumber,
    /// By the number in the key, which is that of the vote unless a write was misdirected.
    votes: BTreeMap<CommandNumber, Vote>,
    /// Votes that do not fit their checksums any more.
    rotten: BTreeSet<CommandNumber>,
    /// Written, and not synced: its sync failed, or the power went.
    unsynced: Vec<Batch>,
}

/// What was handed to the disk at once, as far as it got there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Batch {
    records: Vec<LogRecord>,
    /// How many records the whole has: its head says so, and opening leaves a part alone.
    of: usize,
}

impl LogDisk {
    fn store(&mut self, record: &LogRecord) {
        match record {
            LogRecord::LastTried(ballot) => self.last_tried = *ballot,
            LogRecord::NextBallot(ballot) => self.next_ballot = *ballot,
            LogRecord::Vote(vote) => {
                self.rotten.remove(&vote.command.number());
                self.votes.insert(vote.command.number(), vote.clone());
            }
            LogRecord::Forget(number) if *number > self.forgotten => {
                self.forgotten = *number;
                self.votes = self.votes.split_off(&number.next());
                self.rotten = self.rotten.split_off(&number.next());
            }
            LogRecord::Forget(_) => {}
            LogRecord::Standing(standing) => self.standing = *standing,
            LogRecord::VotedUnder(number) => self.voted_under = *number,
        }
    }

    /// What opening does with damaged votes: none of the votes can be told from those that are missing, so
    /// all are set aside. What the mark has is kept a second time, and is exact.
    fn mend(&mut self) {
        if self.check().is_err() {
            let Self { last_tried, next_ballot, voted_under, .. } = *self;
            *self = Self { last_tried, next_ballot, voted_under, standing: Standing::Damaged, ..Self::default() };
        }
    }

    /// What opening does with what was not synced: a batch that is whole is there, a torn one
    /// never was. Nothing depends on either, because no write of it has returned.
    fn open(&mut self) {
        for batch in std::mem::take(&mut self.unsynced) {
            if batch.records.len() == batch.of {
                batch.records.iter().for_each(|record| self.store(record));
            }
        }
    }

    /// Refuses damaged votes, wherever they are.
    fn check(&self) -> Result<(), StorageError> {
        if let Some(number) = self.rotten.first() {
            return Err(StorageError::Corrupt(format!("the vote for {number} does not fit its checksum")));
        }
        match self.votes.iter().find(|(number, vote)| **number != vote.command.number()) {
            Some((number, vote)) => {
                let found = vote.command.number();
                Err(StorageError::Corrupt(format!("the vote for {found} lies where that for {number} belongs")))
            }
            None => Ok(()),
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

    /// A power cut in the middle of a write of these records: the first `kept` of them got to the
    /// disk. Nothing can be written any more until [`MemoryLog::restart`], which finds them there,
    /// or [`MemoryLog::crash`], which does not.
    pub fn tear(&self, records: &[LogRecord], kept: usize) {
        let mut inner = self.lock();
        let kept = records.get(..kept).unwrap_or(records);
        inner.disk.unsynced.push(Batch { records: kept.to_vec(), of: records.len() });
        inner.failed = Some(StorageError::Failed("the power went during a write of the log".to_owned()));
    }

    /// A stored vote is damaged, the first from `number` on; says whether there is one.
    pub fn rot(&self, number: CommandNumber) -> bool {
        let mut inner = self.lock();
        let found = inner.disk.votes.range(number..).next().map(|(number, _)| *number);
        found.is_some_and(|number| inner.disk.rotten.insert(number))
    }

    /// A stored vote, the first from `number` on, is stored a second time, in the place of the one
    /// after it; says whether there are two.
    pub fn misdirect(&self, number: CommandNumber) -> bool {
        let mut inner = self.lock();
        let mut next = inner.disk.votes.range(number..);
        let (Some((_, vote)), Some((place, _))) = (next.next(), next.next()) else { return false };
        let (vote, place) = (vote.clone(), *place);
        inner.disk.votes.insert(place, vote);
        true
    }

    /// A power cut, and a start after it: what was not synced is gone. Damaged votes are found.
    pub fn crash(&self) {
        let mut inner = self.lock();
        inner.disk.unsynced.clear();
        inner.disk.mend();
        (inner.fault, inner.failed) = (None, None);
    }

    /// A killed process, and a start after it: what was written but not synced is there, if it was
    /// written as a whole. Damaged votes are found.
    pub fn restart(&self) {
        let mut inner = self.lock();
        inner.disk.open();
        inner.disk.mend();
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
        let Some(fault) = inner.fault.take() else {
            records.iter().for_each(|record| inner.disk.store(record));
            return Ok(());
        };
        if fault == Fault::Sync {
            inner.disk.unsynced.push(Batch { records: records.to_vec(), of: records.len() });
        }
        let reason = fault.reason("log");
        inner.failed = Some(reason.clone());
        Err(reason)
    }

    fn load(&self, above: CommandNumber) -> Result<LogImage, StorageError> {
        let inner = self.lock();
        if let Some(reason) = &inner.failed {
            return Err(reason.clone());
        }
        inner.disk.check()?;
        let votes = inner.disk.votes.range((Bound::Excluded(above), Bound::Unbounded));
        Ok(LogImage {
            last_tried: inner.disk.last_tried,
            next_ballot: inner.disk.next_ballot,
            forgotten: inner.disk.forgotten,
            standing: inner.disk.standing,
            voted_under: inner.disk.voted_under,
            votes: votes.map(|(_, vote)| vote.clone()).collect(),
        })
    }
}
