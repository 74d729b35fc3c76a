//! The state of one node on RocksDB: each call of `apply` is one atomic batch, not synced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::rocksdb::WriteBatch;
use protocol::{
    Command, CommandBody, CommandId, CommandNumber, Effect, Entry, Key, RequestId, SnapshotId, SnapshotPiece,
    StateError, StateView, StoredOutcome, Timestamp,
};

use super::database::Database;
use super::forget::{Fronts, Outcomes};
use super::keys::{self, Meta, column};
use super::log::RocksLog;
use super::reader::Reader;
use super::record;
use crate::{
    Checkpoint, Identity, Installation, Retention, Staged, StateSnapshot, StateStore, StorageError, outcome_of,
};

/// See [`StateStore`]. Made by [`super::open`].
pub struct RocksState {
    database: Database,
    /// Notes what is durable here, and how much of it this state has seen.
    log: Arc<RocksLog>,
    /// Held while a batch is applied.
    fronts: Mutex<Fronts>,
    position: Mutex<Position>,
}

#[derive(Clone, Copy)]
struct Position {
    applied: CommandId,
    durable: CommandNumber,
}

impl RocksState {
    /// Takes an opened database; nothing in it counts as durable before the first sync.
    pub(crate) fn new(database: Database, log: Arc<RocksLog>) -> Result<Self, StorageError> {
        let applied = Reader::live(&database).applied()?;
        let position = Mutex::new(Position { applied, durable: CommandNumber::NULL });
        Ok(Self { database, log, fronts: Mutex::default(), position })
    }

    /// Compares with what the log has noted: neither may have lost what the other has seen.
    pub(crate) fn check_against_log(&self) -> Result<(), StorageError> {
        let (applied, noted) = (self.applied().number, self.log.state_durable()?);
        if applied < noted {
            return Err(self.database.shut(StorageError::Corrupt(format!(
                "the state ends at command {applied}, but it was synced up to command {noted}"
            ))));
        }
        let seen = match Reader::live(&self.database).pinned(column::META, &Meta::LogWrites.to_bytes())? {
            Some(bytes) => self.database.readable("the number of log writes", record::read_counter(&bytes))?,
            None => 0,
        };
        let writes = self.log.writes();
        if writes < seen {
            return Err(self.database.shut(StorageError::Corrupt(format!(
                "the log holds {writes} writes, but the state has seen {seen} of them: votes are lost"
            ))));
        }
        Ok(())
    }

    pub(crate) fn identity(&self) -> Result<Option<Result<Identity, String>>, StorageError> {
        let reader = Reader::live(&self.database);
        let found = reader.pinned(column::META, &Meta::Identity.to_bytes())?;
        Ok(found.map(|bytes| record::read_identity(&bytes)))
    }

    pub(crate) fn write_identity(&self, identity: &Identity) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.database.column(column::META), Meta::Identity.to_bytes(), record::identity(identity));
        self.database.write_synced(batch)
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decode(&self, command: &Command) -> Result<CommandBody, StorageError> {
        let decoded = CommandBody::decode(&command.body).map_err(|error| error.to_string());
        self.database.readable(&format!("the body of command {}", command.id), decoded)
    }

    fn put_effects(&self, batch: &mut WriteBatch, number: CommandNumber, effects: &[Effect]) {
        let entries = self.database.column(column::ENTRIES);
        for effect in effects {
            match effect {
                Effect::Put { key, value } => {
                    batch.put_cf(entries, key.as_str().as_bytes(), record::entry(number, value));
                }
                Effect::Delete { key } => batch.delete_cf(entries, key.as_str().as_bytes()),
            }
        }
    }
}

impl StateStore for RocksState {
    fn apply(&self, commands: &[Command]) -> Result<(), StorageError> {
        self.database.check()?;
        let mut fronts = self.fronts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut applied = self.applied();
        let reader = Reader::live(&self.database);
        let mut outcomes = Outcomes::new(&self.database, &reader, *fronts);
        let mut batch = WriteBatch::default();
        for command in commands {
            crate::assert_follows(command, applied);
            let body = self.decode(command)?;
            self.put_effects(&mut batch, command.number(), &body.effects);
            outcomes.apply(&body, outcome_of(command, &body))?;
            batch.put_cf(
                self.database.column(column::COMMANDS),
                keys::of_number(command.number()),
                record::command(command),
            );
            applied = command.id;
        }
        if commands.is_empty() {
            return Ok(());
        }
        let (changes, fronts_after) = outcomes.finish();
        let (family, by_time) =
            (self.database.column(column::OUTCOMES), self.database.column(column::OUTCOMES_BY_TIME));
        for (request, outcome) in changes.outcomes {
            match outcome {
                Some(outcome) => batch.put_cf(family, request, record::outcome(&outcome)),
                None => batch.delete_cf(family, request),
            }
        }
        for key in changes.removed {
            batch.delete_cf(by_time, key);
        }
        for (key, request) in changes.added {
            batch.put_cf(by_time, key, request);
        }
        let meta = self.database.column(column::META);
        batch.put_cf(meta, Meta::Applied.to_bytes(), record::command_id(applied));
        batch.put_cf(meta, Meta::LogWrites.to_bytes(), record::counter(self.log.writes()));
        self.database.write_buffered(batch)?;
        *fronts = fronts_after;
        self.position().applied = applied;
        Ok(())
    }

    fn applied(&self) -> CommandId {
        self.position().applied
    }

    fn sync(&self) -> Result<(), StorageError> {
        let Position { applied: CommandId { number: applied, .. }, durable } = *self.position();
        if applied == durable {
            return self.database.check();
        }
        self.database.sync()?;
        self.log.note_state_durable(applied)?;
        let mut position = self.position();
        position.durable = position.durable.max(applied);
        Ok(())
    }

    fn durable(&self) -> CommandNumber {
        self.position().durable
    }

    fn time(&self) -> Timestamp {
        Timestamp::default()
    }

    fn kept_from(&self) -> CommandNumber {
        CommandNumber::NULL.next()
    }

    fn forget_commands(&self, _: &Retention, _: CommandNumber) -> Result<CommandNumber, StorageError> {
        Ok(self.kept_from())
    }

    fn digest(&self) -> SnapshotId {
        SnapshotId { at: self.applied(), digest: [0; 32] }
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, StorageError> {
        Err(StorageError::Failed("not written yet".into()))
    }

    fn staged(&self) -> Option<Staged> {
        None
    }

    fn stage(&self, _: SnapshotId, _: &SnapshotPiece) -> Result<(), StorageError> {
        Err(StorageError::Failed("not written yet".into()))
    }

    fn install(&self) -> Result<Installation, StorageError> {
        Err(StorageError::Failed("not written yet".into()))
    }

    fn drop_staged(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Result<Option<Vec<Command>>, StorageError> {
        self.database.check()?;
        let last = self.applied().number;
        let mut wanted = first.max(CommandNumber::NULL.next());
        let reader = Reader::live(&self.database);
        let mut iterator = reader.iterate(column::COMMANDS, &keys::of_number(wanted), None);
        let mut found: Vec<Command> = Vec::new();
        let mut weight = 0;
        while found.len() < limit && wanted <= last {
            let Some((key, value)) = iterator.item() else {
                reader.ended(&iterator)?;
                return self.database.readable(&format!("command {wanted}"), Err("it is missing".to_owned()));
            };
            let read = if keys::number(key) == Some(wanted) {
                record::read_command(value)
            } else {
                Err("it is missing".to_owned())
            };
            let command = self.database.readable(&format!("command {wanted}"), read)?;
            weight += command.body.len();
            if !found.is_empty() && weight > bytes {
                break;
            }
            found.push(command);
            wanted = wanted.next();
            iterator.next();
        }
        Ok(Some(found))
    }

    fn snapshot(&self) -> Result<Box<dyn StateSnapshot + '_>, StorageError> {
        Ok(Box::new(Reader::snapshot(&self.database)?))
    }
}

impl StateView for RocksState {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        Reader::live(&self.database).get(key)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        Reader::live(&self.database).scan(prefix, after, limit)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        Reader::live(&self.database).outcome(request)
    }
}
