//! Reading a state: the one of now, one as of a snapshot of RocksDB, or a given generation.

use std::iter;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use ::rocksdb::{DB, DBPinnableSlice, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};
use protocol::{CommandNumber, Entry, Key, Position, RequestId, SnapshotRecord, StateError, StateView, StoredOutcome};

use super::database::Database;
use super::keys::{Generation, Meta, column};
use super::record::{self, Head};
use crate::{StateSnapshot, StorageError, snapshot};

/// A view of the state.
pub(crate) struct Reader<'a> {
    database: &'a Database,
    generation: Generation,
    snapshot: Option<SnapshotWithThreadMode<'a, DB>>,
    /// Held so that no other state is installed meanwhile.
    _live: Option<RwLockReadGuard<'a, Generation>>,
    at: CommandNumber,
}

impl<'a> Reader<'a> {
    /// The state as it is at each read. Another one is installed only when this is dropped, so keep
    /// it for no longer than a page takes, and only one at a time.
    pub(crate) fn live(database: &'a Database, live: &'a RwLock<Generation>) -> Self {
        let live = live.read().unwrap_or_else(PoisonError::into_inner);
        let generation = *live;
        Self { _live: Some(live), ..Self::of(database, generation) }
    }

    /// What lies in a generation.
    pub(crate) fn of(database: &'a Database, generation: Generation) -> Self {
        Self { database, generation, snapshot: None, _live: None, at: CommandNumber::NULL }
    }

    /// The state as it is now, and stays.
    pub(crate) fn snapshot(database: &'a Database) -> Result<Self, StorageError> {
        database.check()?;
        let snapshot = Some(SnapshotWithThreadMode::new(database.db()));
        let mut reader = Self { snapshot, ..Self::of(database, Generation::default()) };
        let head = reader.head()?;
        (reader.generation, reader.at) = (head.generation, head.applied.number);
        Ok(reader)
    }

    /// The generation that is read.
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// Which state the database shows.
    pub(crate) fn head(&self) -> Result<Head, StorageError> {
        let head = self.meta(Meta::Head, "which state this is", record::read_head)?;
        Ok(head.unwrap_or_default())
    }

    /// A record of `meta`.
    pub(crate) fn meta<T>(
        &self,
        key: Meta,
        what: &str,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, StorageError> {
        let found = self.stored(column::META, &key.to_bytes())?;
        found.map(|bytes| self.database.readable(what, read(&bytes))).transpose()
    }

    pub(crate) fn pinned(&self, column: &str, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, StorageError> {
        self.stored(column, &self.generation.key(key))
    }

    fn stored(&self, column: &str, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, StorageError> {
        self.database.check()?;
        let family = self.database.column(column);
        let found = match &self.snapshot {
            Some(snapshot) => snapshot.get_pinned_cf(family, key),
            None => self.database.db().get_pinned_cf(family, key),
        };
        self.database.guard("reading", found)
    }

    /// Several keys at once, ascending, as they are now; in the order of the keys.
    pub(crate) fn many<'k>(
        &self,
        column: &str,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Vec<Option<DBPinnableSlice<'_>>>, StorageError> {
        self.database.check()?;
        let keys: Vec<Vec<u8>> = keys.map(|key| self.generation.key(key)).collect();
        let found = self.database.db().batched_multi_get_cf(self.database.column(column), &keys, true);
        found.into_iter().map(|found| self.database.guard("reading", found)).collect()
    }

    /// A stored outcome, under the stored form of its request id.
    pub(crate) fn stored_outcome(&self, request: &[u8]) -> Result<Option<StoredOutcome>, StorageError> {
        self.pinned(column::OUTCOMES, request)?
            .map(|bytes| self.database.readable("a stored outcome", record::read_outcome(&bytes)))
            .transpose()
    }

    /// Items from the lowest key at or above `first` to before `end`, or to the last one.
    pub(crate) fn iterate(&self, column: &str, first: &[u8], end: Option<&[u8]>) -> Items<'_> {
        self.items(column, first, end, ReadOptions::default())
    }

    /// The same for what is read and then deleted, or not read again: it takes no room in the cache.
    pub(crate) fn iterate_once(&self, column: &str, first: &[u8], end: Option<&[u8]>) -> Items<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        self.items(column, first, end, options)
    }

    fn items(&self, column: &str, first: &[u8], end: Option<&[u8]>, mut options: ReadOptions) -> Items<'_> {
        let family = self.database.column(column);
        options.set_iterate_upper_bound(end.map_or_else(|| self.generation.end(), |end| self.generation.key(end)));
        let mut iterator = match &self.snapshot {
            Some(snapshot) => snapshot.raw_iterator_cf_opt(family, options),
            None => self.database.db().raw_iterator_cf_opt(family, options),
        };
        iterator.seek(self.generation.key(first));
        Items { database: self.database, iterator }
    }

    /// The records of a snapshot of the state, from a position on.
    pub(crate) fn records_from(&self, from: &Position) -> impl Iterator<Item = Result<SnapshotRecord, StorageError>> {
        let (entries, outcomes) = snapshot::lowest_keys(from);
        let entries = entries.map(|first| self.records(column::ENTRIES, first, read_entry));
        let outcomes = outcomes.map(|first| self.records(column::OUTCOMES, first, read_outcome));
        entries.into_iter().flatten().chain(outcomes.into_iter().flatten())
    }

    fn records(
        &self,
        column: &str,
        first: &[u8],
        read: fn(&[u8], &[u8]) -> Result<SnapshotRecord, String>,
    ) -> impl Iterator<Item = Result<SnapshotRecord, StorageError>> {
        let mut items = Some(self.iterate_once(column, first, None));
        iter::from_fn(move || {
            let record = items.as_mut()?.take(read);
            // After the end, or an error, there is nothing.
            record.inspect_err(|_| items = None).transpose()
        })
    }

    fn entry(&self, key: &Key) -> Result<Option<Entry>, StorageError> {
        self.pinned(column::ENTRIES, key.as_str().as_bytes())?
            .map(|bytes| self.database.readable(&format!("the entry `{key}`"), record::read_entry(&bytes)))
            .transpose()
    }

    fn entries(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StorageError> {
        self.database.check()?;
        // The lowest text above `after` is `after` and a zero byte.
        let above = after.map(|after| format!("{after}\0"));
        let first = above.as_deref().filter(|above| *above > prefix).unwrap_or(prefix);
        let mut items = self.iterate(column::ENTRIES, first.as_bytes(), end_of(prefix).as_deref());
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(item) = items.take(read_item)?
        {
            found.push(item);
        }
        Ok(found)
    }
}

/// Stored items in order of their keys.
pub(crate) struct Items<'a> {
    database: &'a Database,
    iterator: DBRawIteratorWithThreadMode<'a, DB>,
}

impl Items<'_> {
    /// Reads the next item, without its generation, and goes on; `None` at the end.
    pub(crate) fn take<T>(
        &mut self,
        read: impl FnOnce(&[u8], &[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, StorageError> {
        let Some((key, value)) = self.iterator.item() else {
            self.database.guard("reading", self.iterator.status())?;
            return Ok(None);
        };
        let read = read(key.get(1..).unwrap_or_default(), value);
        let item = self.database.readable("an item", read)?;
        self.iterator.next();
        Ok(Some(item))
    }
}

impl StateView for Reader<'_> {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        self.entry(key).map_err(to_state_error)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.entries(prefix, after, limit).map_err(to_state_error)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        self.stored_outcome(&request.to_bytes()).map_err(to_state_error)
    }
}

impl StateSnapshot for Reader<'_> {
    fn at(&self) -> CommandNumber {
        self.at
    }

    fn digest(&self) -> Result<[u8; 32], StorageError> {
        self.database.check()?;
        snapshot::sum(self.records_from(&Position::default())).map(|sum| sum.digest())
    }
}

pub(super) fn to_state_error(error: StorageError) -> StateError {
    StateError(error.to_string())
}

fn read_item(key: &[u8], value: &[u8]) -> Result<(Key, Entry), String> {
    let text = std::str::from_utf8(key).map_err(|_| "its key is not UTF-8".to_owned())?;
    let key = Key::new(text).map_err(|error| error.to_string())?;
    Ok((key, record::read_entry(value)?))
}

fn read_entry(key: &[u8], value: &[u8]) -> Result<SnapshotRecord, String> {
    read_item(key, value).map(|(key, entry)| SnapshotRecord::Entry { key, entry })
}

fn read_outcome(request: &[u8], value: &[u8]) -> Result<SnapshotRecord, String> {
    let request = RequestId::from_bytes(request).ok_or("its key is no request id")?;
    Ok(SnapshotRecord::Outcome { request, outcome: record::read_outcome(value)? })
}

/// The lowest bytes above all keys that begin with `prefix`; `None` when there is no bound.
/// UTF-8 has no byte 255, so the last byte can always be raised.
fn end_of(prefix: &str) -> Option<Vec<u8>> {
    let mut end = prefix.as_bytes().to_vec();
    let last = end.last_mut()?;
    *last += 1;
    Some(end)
}
