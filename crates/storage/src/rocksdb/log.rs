//! The log of one node on RocksDB: every write is one batch and one sync.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ::rocksdb::{Direction, IteratorMode, WriteBatch};
use protocol::{CommandNumber, Vote};

use super::database::Database;
use super::keys::LogKey;
use super::record;
use crate::{Identity, LogImage, LogRecord, LogStore, StorageError};

/// See [`LogStore`]. Made by [`super::open`].
pub struct RocksLog {
    database: Database,
    /// How many batches were written and synced, over the life of the directory.
    writes: AtomicU64,
    /// Held from the reading of `writes` to its change.
    counting: Mutex<()>,
}

impl RocksLog {
    pub(crate) fn new(database: Database) -> Result<Self, StorageError> {
        let log = Self { database, writes: AtomicU64::new(0), counting: Mutex::new(()) };
        log.writes.store(log.counter(LogKey::Writes)?, Ordering::Release);
        Ok(log)
    }

    /// How many batches are durable. What the state notes of it can only be too low.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// The number up to which the state was synced when it last said so.
    pub(crate) fn state_durable(&self) -> Result<CommandNumber, StorageError> {
        self.counter(LogKey::StateDurable).map(CommandNumber)
    }

    /// Notes that the state is durable up to `number`.
    pub(crate) fn note_state_durable(&self, number: CommandNumber) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        batch.put(LogKey::StateDurable.to_bytes(), record::counter(number.0));
        self.database.write_synced(batch)
    }

    pub(crate) fn identity(&self) -> Result<Option<Result<Identity, String>>, StorageError> {
        let found = self.get(LogKey::Identity)?;
        Ok(found.map(|bytes| record::read_identity(&bytes)))
    }

    pub(crate) fn write_identity(&self, identity: &Identity) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        batch.put(LogKey::Identity.to_bytes(), record::identity(identity));
        self.database.write_synced(batch)
    }

    fn get(&self, key: LogKey) -> Result<Option<Vec<u8>>, StorageError> {
        self.database.check()?;
        self.database.guard("reading", self.database.db().get(key.to_bytes()))
    }

    fn counter(&self, key: LogKey) -> Result<u64, StorageError> {
        match self.get(key)? {
            Some(bytes) => self.database.readable(&format!("{key:?}"), record::read_counter(&bytes)),
            None => Ok(0),
        }
    }
}

impl LogStore for RocksLog {
    fn write(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        self.database.check()?;
        if records.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for record in records {
            match record {
                LogRecord::LastTried(ballot) => batch.put(LogKey::LastTried.to_bytes(), record::ballot(*ballot)),
                LogRecord::NextBallot(ballot) => batch.put(LogKey::NextBallot.to_bytes(), record::ballot(*ballot)),
                LogRecord::Vote(vote) => {
                    batch.put(LogKey::Vote(vote.command.number()).to_bytes(), record::vote(vote));
                }
                LogRecord::Forget(_) => {}
            }
        }
        let _one = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.writes() + 1;
        batch.put(LogKey::Writes.to_bytes(), record::counter(count));
        self.database.write_synced(batch)?;
        self.writes.store(count, Ordering::Release);
        Ok(())
    }

    fn load(&self, above: CommandNumber) -> Result<LogImage, StorageError> {
        self.database.check()?;
        let ballot = |key| match self.get(key)? {
            Some(bytes) => self.database.readable(&format!("{key:?}"), record::read_ballot(&bytes)),
            None => Ok(Default::default()),
        };
        let mut image = LogImage {
            last_tried: ballot(LogKey::LastTried)?,
            next_ballot: ballot(LogKey::NextBallot)?,
            forgotten: CommandNumber::NULL,
            votes: Vec::new(),
        };
        if above.0 == u64::MAX {
            return Ok(image);
        }
        let first = LogKey::Vote(above.next()).to_bytes();
        for item in self.database.db().iterator(IteratorMode::From(&first, Direction::Forward)) {
            let (key, value) = self.database.guard("reading votes", item)?;
            let vote = self.database.readable(&format!("the vote under key {key:?}"), read_vote(&key, &value))?;
            image.votes.push(vote);
        }
        Ok(image)
    }
}

fn read_vote(key: &[u8], value: &[u8]) -> Result<Vote, String> {
    let vote = record::read_vote(value)?;
    match LogKey::from_bytes(key) {
        Some(LogKey::Vote(number)) if number == vote.command.number() => Ok(vote),
        _ => Err(format!("it holds a vote for number {}", vote.command.number())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ::rocksdb::statistics::Ticker;
    use ::rocksdb::{ColumnFamilyDescriptor, DEFAULT_COLUMN_FAMILY_NAME, Options};

    use super::*;
    use crate::StateStore as _;
    use crate::conformance::{body, command, put, vote};
    use crate::rocksdb::keys::column;
    use crate::rocksdb::state::RocksState;

    /// Options that count syncs of the write-ahead log.
    fn counting() -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.enable_statistics();
        options
    }

    fn database(path: &Path, options: &Options, columns: &[&str]) -> Database {
        let columns = columns.iter().map(|name| ColumnFamilyDescriptor::new(*name, Options::default())).collect();
        Database::open(path, "test", options, columns).expect("a new database opens")
    }

    /// S-11: catches a write of the log that returns before its sync, and more than one sync for
    /// a batch; for the state, a sync for each command, and a `sync` that does none.
    #[test]
    fn each_write_of_the_log_is_synced_once_and_the_state_only_when_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (of_log, of_state) = (counting(), counting());
        let syncs = |options: &Options| options.get_ticker_count(Ticker::WalFileSynced);
        let columns = [DEFAULT_COLUMN_FAMILY_NAME];
        let log = Arc::new(RocksLog::new(database(&dir.path().join("log"), &of_log, &columns)).expect("a log"));
        let before = syncs(&of_log);
        log.write(&[]).expect("nothing to write");
        assert_eq!(syncs(&of_log) - before, 0);
        for round in 1..=3 {
            let records: Vec<_> = (1..=10).map(|number| LogRecord::Vote(vote(round, number, "v"))).collect();
            log.write(&records).expect("written");
            assert_eq!(syncs(&of_log) - before, round);
        }
        let families =
            [columns[0], column::ENTRIES, column::OUTCOMES, column::OUTCOMES_BY_TIME, column::COMMANDS, column::META];
        let state = RocksState::new(database(&dir.path().join("state"), &of_state, &families), log).expect("a state");
        let before = syncs(&of_state);
        for number in 1..=5 {
            state.apply(&[command(number, &body(number, vec![put("k", "v")]))]).expect("applied");
        }
        assert_eq!(syncs(&of_state) - before, 0);
        let noted = syncs(&of_log);
        state.sync().expect("synced");
        assert_eq!(syncs(&of_state) - before, 1);
        assert_eq!(syncs(&of_log) - noted, 1, "what is durable is noted durably");
        state.sync().expect("nothing to sync");
        assert_eq!(syncs(&of_state) - before, 1);
    }
}
