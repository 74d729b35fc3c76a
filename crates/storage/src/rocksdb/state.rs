//! The state of one node on RocksDB: each call of `apply` is one atomic batch, not synced.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use protocol::{
    Command, CommandBody, CommandId, CommandNumber, Effect, Entry, Key, RequestId, SnapshotId, SnapshotPiece, Space,
    StateError, StateView, StoredOutcome, Timestamp,
};

use super::batch::Batch;
use super::checkpoint::Checkpoints;
use super::database::Database;
use super::forget::{Fronts, Outcomes};
use super::history;
use super::keys::{Generation, Meta, column};
use super::log::RocksLog;
use super::mend::Part;
use super::reader::{Reader, to_state_error};
use super::recent::{self, Change, Recent};
use super::record::{self, Head};
use crate::digest::{RecordHash, Sum};
use crate::{
    Checkpoint, Identity, Installation, Retention, Staged, StateSnapshot, StateStore, StorageError, digest, outcome_of,
};

/// See [`StateStore`]. Made by [`super::open`].
///
/// Locks are taken in the order of the fields.
pub struct RocksState {
    pub(super) database: Database,
    /// Notes what is durable here, and how much of it this state has seen.
    pub(super) log: Arc<RocksLog>,
    checkpoints: Checkpoints,
    /// Commands up to here take no space any more. Held while space is given back.
    pub(super) reclaimed: Mutex<CommandNumber>,
    /// Held while something is staged, or what is staged is verified and installed.
    pub(super) staging: Mutex<()>,
    /// Held while a batch is made and written.
    pub(super) writer: Mutex<Writer>,
    /// Where the state lies. Held by who reads it, and changed only by an installation.
    pub(super) live: RwLock<Generation>,
    known: Mutex<Known>,
    /// Of the state that is live.
    pub(super) recent: Recent,
    /// The other generation was deleted since this was opened, and files of it may be there still. What an earlier life has
    /// left goes with compactions.
    pub(super) gives_back: AtomicBool,
}

/// What only whoever writes the state needs.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) fronts: Fronts,
    /// What all commands weigh, by the same count as in their records.
    pub(super) weight: u64,
}

/// What is known of the state without reading it.
pub(super) struct Known {
    pub(super) head: Head,
    pub(super) durable: CommandNumber,
    pub(super) staged: Option<Staged>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RocksState {
    /// Takes an opened database; nothing in it counts as durable before the first sync.
    pub(crate) fn new(database: Database, log: Arc<RocksLog>, checkpoints: Checkpoints) -> Result<Self, StorageError> {
        let head = Reader::of(&database, Generation::default()).head()?;
        let reader = Reader::of(&database, head.generation);
        let weight = history::weight_of_all(&database, &reader, &head)?;
        let staged = reader.meta(Meta::Staged, "what is staged", record::read_staged)?;
        drop(reader);
        let live = RwLock::new(head.generation);
        let writer = Mutex::new(Writer { weight, ..Writer::default() });
        let known = Mutex::new(Known { head, durable: CommandNumber::NULL, staged });
        let (reclaimed, staging, recent) = (Mutex::default(), Mutex::default(), Recent::new());
        let gives_back = AtomicBool::new(false);
        Ok(Self { database, log, checkpoints, reclaimed, staging, writer, live, known, recent, gives_back })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Compares with what the log has noted: neither may have lost what the other has seen. Says which one has, and what.
    /// (A state below the votes that were discarded for it is one that was lost and is learnt again.)
    pub(crate) fn check_against_log(&self) -> Result<Option<(Part, String)>, StorageError> {
        let (applied, synced) = (self.applied().number, self.log.state_durable());
        if applied < synced {
            let why = format!("the state ends at command {applied}, but it was synced up to command {synced}");
            return Ok(Some((Part::State, why)));
        }
        let (seen, writes) = (self.seen_of_log()?, self.log.writes());
        if writes < seen {
            let why = format!("the log holds {writes} writes, but the state has seen {seen} of them: votes are lost");
            return Ok(Some((Part::Log, why)));
        }
        Ok(None)
    }

    /// How many batches of the log this state has seen.
    pub(crate) fn seen_of_log(&self) -> Result<u64, StorageError> {
        Ok(self.reader().meta(Meta::LogWrites, "the number of log writes", record::read_counter)?.unwrap_or(0))
    }

    /// Whose state a database is, or why that cannot be read.
    pub(crate) fn identity_in(database: &Database) -> Result<Option<Result<Identity, String>>, StorageError> {
        let reader = Reader::of(database, Generation::default());
        reader.meta(Meta::Identity, "the identity", |bytes| Ok(record::read_identity(bytes)))
    }

    pub(crate) fn write_identity(&self, identity: &Identity) -> Result<(), StorageError> {
        let mut batch = Batch::new(&self.database, Generation::default());
        batch.put_meta(Meta::Identity, record::identity(identity));
        self.database.write_synced(batch.finish())
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader::live(&self.database, &self.live)
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Adds to a batch what says which state it makes.
    pub(super) fn put_head(&self, batch: &mut Batch<'_>, head: &Head) {
        batch.put_meta(Meta::Head, record::head(head));
        batch.put_meta(Meta::LogWrites, record::counter(self.log.writes()));
    }

    fn decode(&self, commands: &[Command], mut applied: CommandId) -> Result<Vec<CommandBody>, StorageError> {
        let decode = |command: &Command| {
            crate::assert_follows(command, applied);
            applied = command.id;
            // It comes from a peer, not from this disk.
            CommandBody::decode(&command.body).map_err(|error| {
                self.database.shut(StorageError::Corrupt(format!("the body of command {}: {error}", command.id)))
            })
        };
        commands.iter().map(decode).collect()
    }

    /// Writes what the entries are after the commands, each once, and counts that in the sum. Returns the changes.
    fn put_entries<'c>(
        &self,
        batch: &mut Batch<'_>,
        reader: &Reader<'_>,
        sum: &mut Sum,
        commands: &[(&Command, &'c CommandBody)],
    ) -> Result<BTreeMap<&'c [u8], Change<'c>>, StorageError> {
        let mut changes = BTreeMap::new();
        for (command, body) in commands {
            for effect in &body.effects {
                let key = effect.key().as_str().as_bytes();
                let value = match effect {
                    Effect::Put { value, .. } => Some(&value[..]),
                    Effect::Delete { .. } => None,
                };
                changes.insert(key, value.map(|value| (command.number(), value)));
            }
        }
        let earlier = self.earlier(reader, changes.keys().copied())?;
        let changes = changes.into_iter().zip(earlier).map(|((key, change), earlier)| {
            if let Some(hash) = &earlier {
                sum.subtract(hash);
            }
            let change = change.map(|(version, value)| {
                let hash = digest::of_entry(key, version, value);
                sum.add(&hash);
                batch.put(column::ENTRIES, key, record::entry(version, value));
                (version, value, hash)
            });
            if change.is_none() && earlier.is_some() {
                batch.delete(column::ENTRIES, key);
            }
            (key, change)
        });
        Ok(changes.collect())
    }

    /// The hashes of the entries of keys, given in ascending order, as they are now.
    fn earlier<'k>(
        &self,
        reader: &Reader<'_>,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Vec<Option<RecordHash>>, StorageError> {
        let mut hashes = Vec::new();
        let mut unknown = Vec::new();
        for key in keys {
            hashes.push(match self.recent.get(key) {
                Some(recent::Known::Present(_, hash)) => Some(hash),
                Some(recent::Known::Absent) => None,
                None => {
                    unknown.push((hashes.len(), key));
                    None
                }
            });
        }
        let found = reader.many(column::ENTRIES, unknown.iter().map(|(_, key)| *key))?;
        for ((at, key), found) in unknown.into_iter().zip(found) {
            if let Some(bytes) = found {
                let (version, value) = self.database.readable("an entry", record::read_entry_parts(&bytes))?;
                hashes[at] = Some(digest::of_entry(key, version, value));
            }
        }
        Ok(hashes)
    }
}

impl StateStore for RocksState {
    fn apply(&self, commands: &[Command]) -> Result<(), StorageError> {
        self.database.check()?;
        let mut writer = lock(&self.writer);
        let mut head = self.known().head.clone();
        let bodies = self.decode(commands, head.applied)?;
        let (Some(last), Some(body)) = (commands.last(), bodies.last()) else { return Ok(()) };
        (head.applied, head.time) = (last.id, body.time);

        let reader = self.reader();
        let mut batch = Batch::new(&self.database, reader.generation());
        let both: Vec<(&Command, &CommandBody)> = commands.iter().zip(&bodies).collect();
        let changes = self.put_entries(&mut batch, &reader, &mut head.sum, &both)?;
        let mut outcomes = Outcomes::new(&self.database, &reader, writer.fronts, &bodies)?;
        for (command, body) in &both {
            outcomes.apply(body, outcome_of(command, body))?;
        }
        let fronts = outcomes.finish(&mut batch, &mut head.sum);
        let weight = history::put(&mut batch, writer.weight, &both);
        self.put_head(&mut batch, &head);
        self.database.write_buffered(batch.finish())?;
        self.recent.take(changes);
        *writer = Writer { fronts, weight };
        self.known().head = head;
        Ok(())
    }

    fn applied(&self) -> CommandId {
        self.known().head.applied
    }

    fn time(&self) -> Timestamp {
        self.known().head.time
    }

    fn sync(&self) -> Result<(), StorageError> {
        let (applied, durable) = {
            let known = self.known();
            (known.head.applied.number, known.durable)
        };
        if applied == durable {
            return self.database.check();
        }
        self.database.sync()?;
        self.note_durable(applied)
    }

    fn durable(&self) -> CommandNumber {
        self.known().durable
    }

    fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Result<Option<Vec<Command>>, StorageError> {
        self.database.check()?;
        history::list(self, first, limit, bytes)
    }

    fn kept_from(&self) -> CommandNumber {
        self.known().head.dropped.next()
    }

    fn forget_commands(&self, retention: &Retention, at_most: CommandNumber) -> Result<CommandNumber, StorageError> {
        self.database.check()?;
        history::forget(self, retention, at_most)
    }

    fn reclaim(&self, space: Space) -> Result<(), StorageError> {
        self.log.reclaim(space)?;
        self.reclaim_commands(space)?;
        self.reclaim_generation(space)
    }

    fn snapshot(&self) -> Result<Box<dyn StateSnapshot + '_>, StorageError> {
        Ok(Box::new(Reader::snapshot(&self.database)?))
    }

    fn digest(&self) -> SnapshotId {
        let known = self.known();
        SnapshotId { at: known.head.applied, digest: known.head.sum.digest() }
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, StorageError> {
        self.database.check()?;
        Ok(Box::new(self.checkpoints.make(&self.database)?))
    }

    fn staged(&self) -> Option<Staged> {
        self.known().staged.clone()
    }

    fn stage(&self, id: SnapshotId, piece: &SnapshotPiece) -> Result<(), StorageError> {
        self.database.check()?;
        self.store_piece(id, piece)
    }

    fn install(&self) -> Result<Installation, StorageError> {
        self.database.check()?;
        self.install_staged()
    }

    fn drop_staged(&self) -> Result<(), StorageError> {
        self.database.check()?;
        let _one = lock(&self.staging);
        self.clear_staged()
    }
}

impl RocksState {
    /// All up to `number` is on the disk: notes that in the log, then counts it as durable.
    pub(super) fn note_durable(&self, number: CommandNumber) -> Result<(), StorageError> {
        self.log.note_state_durable(number)?;
        let mut known = self.known();
        known.durable = known.durable.max(number);
        Ok(())
    }
}

impl StateView for RocksState {
    /// While commands are being applied: between their write and [`Recent::take`] this may still tell what a scan, or a
    /// snapshot, does not show any more. Nobody was told by then that they are applied, and `applied` does not say so
    /// before `take` has returned; so whoever reads at a number, or wants what belongs together, asks a snapshot.
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        self.database.check().map_err(to_state_error)?;
        let reader = self.reader();
        match self.recent.get(key.as_str().as_bytes()) {
            Some(recent::Known::Present(entry, _)) => Ok(Some(entry)),
            Some(recent::Known::Absent) => Ok(None),
            None => reader.get(key),
        }
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.reader().scan(prefix, after, limit)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        self.reader().outcome(request)
    }
}
