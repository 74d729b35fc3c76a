//! Reading the state: of now, or as of a snapshot of RocksDB.

use ::rocksdb::{DB, DBPinnableSlice, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};
use protocol::{CommandId, CommandNumber, Entry, Key, RequestId, StateError, StateView, StoredOutcome};

use super::database::Database;
use super::keys::{Meta, column};
use super::record;
use crate::digest::{self, Sum};
use crate::{StateSnapshot, StorageError};

/// A view of the state.
pub(crate) struct Reader<'a> {
    database: &'a Database,
    snapshot: Option<SnapshotWithThreadMode<'a, DB>>,
    at: CommandNumber,
}

impl<'a> Reader<'a> {
    /// The state as it is at each read.
    pub(crate) fn live(database: &'a Database) -> Self {
        Self { database, snapshot: None, at: CommandNumber::NULL }
    }

    /// The state as it is now, and stays.
    pub(crate) fn snapshot(database: &'a Database) -> Result<Self, StorageError> {
        database.check()?;
        let mut reader =
            Self { database, snapshot: Some(SnapshotWithThreadMode::new(database.db())), at: CommandNumber::NULL };
        reader.at = reader.applied()?.number;
        Ok(reader)
    }

    /// The last applied command.
    pub(crate) fn applied(&self) -> Result<CommandId, StorageError> {
        match self.pinned(column::META, &Meta::Applied.to_bytes())? {
            Some(bytes) => self.database.readable("the applied number", record::read_command_id(&bytes)),
            None => Ok(CommandId::NULL),
        }
    }

    pub(crate) fn pinned(&self, column: &str, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>, StorageError> {
        self.database.check()?;
        let family = self.database.column(column);
        let found = match &self.snapshot {
            Some(snapshot) => snapshot.get_pinned_cf(family, key),
            None => self.database.db().get_pinned_cf(family, key),
        };
        self.database.guard("reading", found)
    }

    /// A stored outcome, under the stored form of its request id.
    pub(crate) fn stored_outcome(&self, request: &[u8]) -> Result<Option<StoredOutcome>, StorageError> {
        self.pinned(column::OUTCOMES, request)?
            .map(|bytes| self.database.readable("a stored outcome", record::read_outcome(&bytes)))
            .transpose()
    }

    /// An iterator that stands at the lowest key from `first` to before `end`. After it, its
    /// status says whether it ended or failed: [`Reader::ended`].
    pub(crate) fn iterate(
        &self,
        column: &str,
        first: &[u8],
        end: Option<Vec<u8>>,
    ) -> DBRawIteratorWithThreadMode<'_, DB> {
        let family = self.database.column(column);
        let mut options = ReadOptions::default();
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut iterator = match &self.snapshot {
            Some(snapshot) => snapshot.raw_iterator_cf_opt(family, options),
            None => self.database.db().raw_iterator_cf_opt(family, options),
        };
        iterator.seek(first);
        iterator
    }

    /// An iterator that is no longer valid: because it came to its end, or because of an error.
    pub(crate) fn ended(&self, iterator: &DBRawIteratorWithThreadMode<'_, DB>) -> Result<(), StorageError> {
        self.database.guard("reading", iterator.status())
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
        let mut iterator = self.iterate(column::ENTRIES, first.as_bytes(), end_of(prefix));
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((key, value)) = iterator.item()
        {
            found.push(self.database.readable("an entry", read_item(key, value))?);
            iterator.next();
        }
        self.ended(&iterator)?;
        Ok(found)
    }

    fn digest_of_all(&self) -> Result<[u8; 32], StorageError> {
        self.database.check()?;
        let mut sum = Sum::default();
        let mut iterator = self.iterate(column::ENTRIES, b"", None);
        while let Some((key, value)) = iterator.item() {
            let (version, value) = self.database.readable("an entry", record::read_entry_parts(value))?;
            sum.add(&digest::of_entry(key, version, value));
            iterator.next();
        }
        self.ended(&iterator)?;
        let mut iterator = self.iterate(column::OUTCOMES, b"", None);
        while let Some((request, value)) = iterator.item() {
            let outcome = self.database.readable("a stored outcome", record::read_outcome(value))?;
            sum.add(&digest::of_outcome(request, &outcome));
            iterator.next();
        }
        self.ended(&iterator)?;
        Ok(sum.digest())
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
        self.digest_of_all()
    }
}

fn to_state_error(error: StorageError) -> StateError {
    StateError(error.to_string())
}

fn read_item(key: &[u8], value: &[u8]) -> Result<(Key, Entry), String> {
    let text = std::str::from_utf8(key).map_err(|_| "its key is not UTF-8".to_owned())?;
    let key = Key::new(text).map_err(|error| error.to_string())?;
    Ok((key, record::read_entry(value)?))
}

/// The lowest bytes above all keys that begin with `prefix`; `None` when there is no bound.
/// UTF-8 has no byte 255, so the last byte can always be raised.
fn end_of(prefix: &str) -> Option<Vec<u8>> {
    let mut end = prefix.as_bytes().to_vec();
    let last = end.last_mut()?;
    *last += 1;
    Some(end)
}
