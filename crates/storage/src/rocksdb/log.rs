//! The log of one node on RocksDB: every write is one batch and one sync, and the file of the mark where that changes.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::rocksdb::{Direction, IteratorMode, WriteBatch};
use protocol::{Ballot, CommandNumber, NodeId, Vote};

use super::database::Database;
use super::keys::LogKey;
use super::mark::{self, Mark, Noted};
use super::{mend, record};
use crate::{Identity, LogImage, LogRecord, LogStore, Standing, StorageError};

/// See [`LogStore`]. Made by [`super::open`].
pub struct RocksLog {
    database: Database,
    /// How many batches were written and synced, over the life of the directory.
    writes: AtomicU64,
    /// Held from the reading of `writes`, a mark or the mark to its change.
    /// Votes up to here take no space any more. Held while space is given back.
    pub(super) reclaimed: Mutex<CommandNumber>,
    marks: Mutex<Marks>,
    /// What is durable. Changed while `marks` is held; held itself only for a look, since a change takes syncs.
    known: Mutex<Known>,
    /// Where the file of the mark lies.
    dir: PathBuf,
    /// Whence masks come ([`record::vote`]): keyed by the operating system, so nobody foresees them.
    masks: RandomState,
    /// Keeps other processes off the directory. Given back after the database is closed.
    _lock: File,
}

/// What only grows.
struct Marks {
    state_durable: CommandNumber,
    forgotten: CommandNumber,
}

struct Known {
    mark: Mark,
    position: Position,
}

/// How far a node has gone: it never goes back, unless its disk is an old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Its promise.
    pub promise: Ballot,
    /// A number that none of its votes in the promised ballot is above; what is forgotten counts.
    pub voted: CommandNumber,
}

impl Position {
    fn take(&mut self, records: &[LogRecord], forgotten: CommandNumber) {
        for record in records {
            match record {
                LogRecord::NextBallot(promise) => *self = Self { promise: *promise, voted: forgotten },
                LogRecord::Vote(vote) if vote.ballot == self.promise => {
                    self.voted = self.voted.max(vote.command.number());
                }
                LogRecord::Vote(_)
                | LogRecord::LastTried(_)
                | LogRecord::Forget(_)
                | LogRecord::Standing(_)
                | LogRecord::VotedUnder(_) => {}
            }
        }
    }
}

impl RocksLog {
    pub(crate) fn new(database: Database, dir: PathBuf, mark: Mark, lock: File) -> Result<Self, StorageError> {
        let counter = |key| counter(&database, key);
        let writes = AtomicU64::new(counter(LogKey::Writes)?);
        let state_durable = CommandNumber(counter(LogKey::StateDurable)?);
        let forgotten = CommandNumber(counter(LogKey::Forgotten)?);
        let marks = Mutex::new(Marks { state_durable, forgotten });
        let known = Mutex::new(Known { mark, position: Position::default() });
        let (reclaimed, masks) = (Mutex::default(), RandomState::new());
        let log = Self { database, writes, reclaimed, marks, known, dir, masks, _lock: lock };
        // All of it: what is damaged is found now, and not when a leader asks for it.
        let promise = ballot(&log.database, LogKey::NextBallot)?;
        let mut voted = forgotten;
        log.each_vote(forgotten, |vote| {
            if vote.ballot == promise {
                voted = voted.max(vote.command.number());
            }
        })?;
        log.known().position = Position { promise, voted };
        Ok(log)
    }

    /// Reads the votes above a number, one at a time: they may be more than fit into memory.
    fn each_vote(&self, above: CommandNumber, mut take: impl FnMut(Vote)) -> Result<(), StorageError> {
        if above.0 == u64::MAX {
            return Ok(());
        }
        let first = LogKey::Vote(above.next()).to_bytes();
        for item in self.database.db().iterator(IteratorMode::From(&first, Direction::Forward)) {
            let (key, value) = self.database.guard("reading votes", item)?;
            take(self.database.readable(&format!("the vote under key {key:?}"), read_vote(&key, &value))?);
        }
        Ok(())
    }

    /// Whether there is any vote.
    pub(super) fn has_votes(&self) -> Result<bool, StorageError> {
        let first = LogKey::Vote(CommandNumber::NULL).to_bytes();
        let vote = self.database.db().iterator(IteratorMode::From(&first, Direction::Forward)).next().transpose();
        self.database.guard("reading votes", vote).map(|vote| vote.is_some())
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// The mark, as it is durable now. Never waits for the disk.
    pub fn mark(&self) -> Mark {
        self.known().mark.clone()
    }

    /// How far this node has gone, as it is durable now. Never waits for the disk.
    pub fn position(&self) -> Position {
        self.known().position
    }

    /// Notes what a peer is there with; durable when this returns.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub fn note_peer(&self, peer: NodeId, noted: Noted) -> Result<(), StorageError> {
        self.change_mark(|mark| _ = mark.peers.insert(peer, noted))
    }

    /// This disk must not be used any more, for the reason that a peer has given. The next start refuses it.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub fn note_refused(&self, why: &str) -> Result<(), StorageError> {
        self.change_mark(|mark| _ = mark.refused.get_or_insert_with(|| why.to_owned()))
    }

    /// Changes the mark, if that changes anything.
    pub(crate) fn change_mark(&self, change: impl FnOnce(&mut Mark)) -> Result<(), StorageError> {
        let _marks = self.marks();
        self.database.check()?;
        let Some(mark) = self.changed_mark(change) else { return Ok(()) };
        let mut batch = WriteBatch::default();
        batch.put(LogKey::LastTried.to_bytes(), record::ballot(mark.last_tried));
        batch.put(LogKey::NextBallot.to_bytes(), record::ballot(mark.next_ballot));
        batch.put(LogKey::Standing.to_bytes(), record::standing(mark.standing));
        self.write_batch(batch, Some(&mark), None)?;
        let mut known = self.known();
        known.position.promise = mark.next_ballot;
        known.mark = mark;
        Ok(())
    }

    /// What the mark becomes, if that is another one. Called with `marks` held.
    fn changed_mark(&self, change: impl FnOnce(&mut Mark)) -> Option<Mark> {
        let known = self.mark();
        let mut changed = known.clone();
        change(&mut changed);
        (changed != known).then(|| Mark { revision: known.revision + 1, ..changed })
    }

    /// Writes a batch, with the mark where it changes and its number where it is counted, and then the file of the mark: durable when this returns. A batch is whole
    /// or not there, so what belongs together is in the batch. Called with `marks` held.
    fn write_batch(&self, mut batch: WriteBatch, mark: Option<&Mark>, count: Option<u64>) -> Result<(), StorageError> {
        if let Some(mark) = mark {
            batch.put(LogKey::Mark.to_bytes(), record::mark(mark));
        }
        // At the end: `write_in` looks for it there.
        if let Some(count) = count {
            batch.put(LogKey::Writes.to_bytes(), record::counter(count));
        }
        self.database.write_synced(batch)?;
        let Some(mark) = mark else { return Ok(()) };
        mend::step().and_then(|()| mark::write(&self.dir, mark)).map_err(|error| {
            self.database.shut(StorageError::Failed(format!("writing the mark in {}: {error}", self.dir.display())))
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy of the mark in a database, with the ballots that stand there.
    pub(crate) fn mark_in(database: &Database) -> Result<Option<Mark>, StorageError> {
        let Some(bytes) = get(database, LogKey::Mark)? else { return Ok(None) };
        let mark = database.readable("the mark", record::read_mark(&bytes))?;
        let (last_tried, next_ballot) = (ballot(database, LogKey::LastTried)?, ballot(database, LogKey::NextBallot)?);
        Ok(Some(Mark { last_tried, next_ballot, ..mark }))
    }

    /// The mark of a database that has none, as those of earlier versions.
    pub(crate) fn mark_of(database: &Database, mark: Mark) -> Result<Mark, StorageError> {
        let (last_tried, next_ballot) = (ballot(database, LogKey::LastTried)?, ballot(database, LogKey::NextBallot)?);
        Ok(Mark { last_tried, next_ballot, ..mark })
    }

    /// The first record of a log that begins in the place of a damaged one: whose it is, and that the state has seen
    /// so many batches.
    pub(crate) fn begin(&self, identity: &Identity, seen: u64) -> Result<(), StorageError> {
        let _marks = self.marks();
        let mut batch = WriteBatch::default();
        batch.put(LogKey::Identity.to_bytes(), record::identity(identity));
        batch.put(LogKey::Writes.to_bytes(), record::counter(seen));
        self.database.write_synced(batch)?;
        self.writes.store(seen, Ordering::Release);
        Ok(())
    }

    /// The state begins anew.
    pub(crate) fn forget_state(&self) -> Result<(), StorageError> {
        let mut marks = self.marks();
        let mut batch = WriteBatch::default();
        batch.put(LogKey::StateDurable.to_bytes(), record::counter(0));
        self.database.write_synced(batch)?;
        marks.state_durable = CommandNumber::NULL;
        Ok(())
    }

    /// How many batches are durable. What the state notes of it can only be too low.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// The number up to which the state was synced when it last said so.
    pub(crate) fn state_durable(&self) -> CommandNumber {
        self.marks().state_durable
    }

    /// Votes up to here are forgotten: the state is at least there.
    pub(crate) fn forgotten(&self) -> CommandNumber {
        self.marks().forgotten
    }

    /// Notes a start, so that the first log file after it is never without a write ([`super::seam`]).
    pub(crate) fn note_start(&self) -> Result<(), StorageError> {
        let _marks = self.marks();
        let count = self.writes() + 1;
        let mut batch = WriteBatch::default();
        batch.put(LogKey::Writes.to_bytes(), record::counter(count));
        self.database.write_synced(batch)?;
        self.writes.store(count, Ordering::Release);
        Ok(())
    }

    /// Which write a batch is, by its bytes in a log file; none for those that are not counted. Every counted one
    /// ends with its number.
    pub(crate) fn write_in(batch: &[u8]) -> Option<u64> {
        let (key, number) = (LogKey::Writes.to_bytes(), record::counter(0).len());
        let (before, value) = batch.split_at_checked(batch.len().checked_sub(number)?)?;
        // RocksDB's form of a put: a tag, then key and value, each after its length.
        let put = [&[1, u8::try_from(key.len()).ok()?], &key[..], &[u8::try_from(number).ok()?]].concat();
        before.ends_with(&put).then(|| record::read_counter(value).ok())?
    }

    /// Whether a batch in a log file is the first one of a log: what came before is in none of its files.
    pub(crate) fn begins_in(batch: &[u8]) -> bool {
        // After the head, which has a sequence number and a count.
        batch.get(12..15) == Some(&[1, 1, LogKey::Identity.to_bytes()[0]])
    }

    /// Notes that the state is durable up to `number`, if that is news.
    pub(crate) fn note_state_durable(&self, number: CommandNumber) -> Result<(), StorageError> {
        let mut marks = self.marks();
        if number <= marks.state_durable {
            return self.database.check();
        }
        let mut batch = WriteBatch::default();
        batch.put(LogKey::StateDurable.to_bytes(), record::counter(number.0));
        self.database.write_synced(batch)?;
        marks.state_durable = number;
        Ok(())
    }

    /// Whose log a database is, or why that cannot be read.
    pub(crate) fn identity_in(database: &Database) -> Result<Option<Result<Identity, String>>, StorageError> {
        let found = get(database, LogKey::Identity)?;
        Ok(found.map(|bytes| record::read_identity(&bytes)))
    }

    fn standing(&self) -> Result<Standing, StorageError> {
        match get(&self.database, LogKey::Standing)? {
            Some(bytes) => self.database.readable("the standing of the log", record::read_standing(&bytes)),
            None => Ok(Standing::Sound),
        }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn get(database: &Database, key: LogKey) -> Result<Option<Vec<u8>>, StorageError> {
    database.check()?;
    database.guard("reading", database.db().get(key.to_bytes()))
}

fn ballot(database: &Database, key: LogKey) -> Result<Ballot, StorageError> {
    match get(database, key)? {
        Some(bytes) => database.readable(&format!("{key:?}"), record::read_ballot(&bytes)),
        None => Ok(Ballot::default()),
    }
}

pub(crate) fn counter(database: &Database, key: LogKey) -> Result<u64, StorageError> {
    match get(database, key)? {
        Some(bytes) => database.readable(&format!("{key:?}"), record::read_counter(&bytes)),
        None => Ok(0),
    }
}

impl LogStore for RocksLog {
    fn write(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        self.database.check()?;
        if records.is_empty() {
            return Ok(());
        }
        let mut marks = self.marks();
        let (count, mut forgotten) = (self.writes() + 1, marks.forgotten);
        let mut batch = WriteBatch::default();
        let has_mark = records.iter().any(Mark::has);
        let mark = if has_mark { self.changed_mark(|mark| mark.take(records)) } else { None };
        for (at, record) in records.iter().enumerate() {
            match record {
                LogRecord::LastTried(ballot) => batch.put(LogKey::LastTried.to_bytes(), record::ballot(*ballot)),
                LogRecord::NextBallot(ballot) => batch.put(LogKey::NextBallot.to_bytes(), record::ballot(*ballot)),
                LogRecord::Vote(vote) => {
                    batch.put(
                        LogKey::Vote(vote.command.number()).to_bytes(),
                        record::vote(vote, self.masks.hash_one((count, at))),
                    );
                }
                LogRecord::Forget(number) if *number > forgotten => {
                    let [first, end] = [forgotten, *number].map(|number| LogKey::Vote(number.next()).to_bytes());
                    batch.delete_range(first, end);
                    batch.put(LogKey::Forgotten.to_bytes(), record::counter(number.0));
                    forgotten = *number;
                }
                // The mark has it.
                LogRecord::Forget(_) | LogRecord::VotedUnder(_) => {}
                LogRecord::Standing(standing) => batch.put(LogKey::Standing.to_bytes(), record::standing(*standing)),
            }
        }
        self.write_batch(batch, mark.as_ref(), Some(count))?;
        self.writes.store(count, Ordering::Release);
        marks.forgotten = forgotten;
        let mut known = self.known();
        known.position.take(records, forgotten);
        if let Some(mark) = mark {
            known.mark = mark;
        }
        Ok(())
    }

    fn load(&self, above: CommandNumber) -> Result<LogImage, StorageError> {
        self.database.check()?;
        let mut image = LogImage {
            last_tried: ballot(&self.database, LogKey::LastTried)?,
            next_ballot: ballot(&self.database, LogKey::NextBallot)?,
            forgotten: self.forgotten(),
            standing: self.standing()?,
            voted_under: self.known().mark.voted_under,
            votes: Vec::new(),
        };
        self.each_vote(above.max(image.forgotten), |vote| image.votes.push(vote))?;
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
    use ::rocksdb::{Cache, ColumnFamilyDescriptor, DEFAULT_COLUMN_FAMILY_NAME, Options};
    use protocol::{ClusterId, Space, Timestamp};

    use super::*;
    use crate::conformance::{body, command, put, vote};
    use crate::rocksdb::checkpoint::Checkpoints;
    use crate::rocksdb::keys::column;
    use crate::rocksdb::state::RocksState;
    use crate::{Retention, StateStore as _};

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
        let whose = Identity {
            cluster: ClusterId([1; 16]),
            cluster_name: "test".into(),
            node: NodeId(1),
            node_name: "n1".into(),
        };
        let lock = File::create(dir.path().join("LOCK")).expect("a file");
        let log = database(&dir.path().join("log"), &of_log, &columns);
        let mark = Mark::new(whose, Standing::Sound);
        let log = Arc::new(RocksLog::new(log, dir.path().to_owned(), mark, lock).expect("a log"));
        let before = syncs(&of_log);
        log.write(&[]).expect("nothing to write");
        assert_eq!(syncs(&of_log) - before, 0);
        for round in 1..=3 {
            let records: Vec<_> = (1..=10).map(|number| LogRecord::Vote(vote(round, number, "v"))).collect();
            log.write(&records).expect("written");
            assert_eq!(syncs(&of_log) - before, round);
        }
        let state = database(&dir.path().join("state"), &of_state, &column::ALL);
        let checkpoints = Checkpoints::new(dir.path().join("checkpoints"), Default::default(), Cache::new_lru_cache(0));
        let state = RocksState::new(state, log, checkpoints.expect("none are left behind")).expect("a state");
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
        // Files that are deleted do not come back with a power cut; nor must the commands that were in them.
        let none = Retention { commands: 0, bytes: u64::MAX, since: Timestamp(0) };
        state.forget_commands(&none, CommandNumber(5)).expect("forgotten");
        assert_eq!(syncs(&of_state) - before, 1);
        state.reclaim(Space::Out).expect("given back");
        assert_eq!(syncs(&of_state) - before, 2, "what is forgotten is forgotten durably before its files go");
    }
}
