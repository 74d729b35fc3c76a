//! One RocksDB database behind a latch: after the first error nothing is tried again.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, WriteBatch, WriteOptions, properties};

use super::meaning::{opening_failed, translate};
use super::mend::{self, Part};
use crate::StorageError;

/// A database and the reason why it is shut, once it is.
pub(crate) struct Database {
    db: DB,
    /// For error messages.
    name: &'static str,
    /// What is damaged when this is; none when nobody is to mend it.
    part: Option<Part>,
    /// The data directory.
    dir: PathBuf,
    /// Shared with the checkpoints that are made of it.
    latch: Arc<OnceLock<StorageError>>,
    /// One writer at a time: a batch reaches the file only when the one before it has succeeded
    /// and, in the log, is synced. So at most the last batch of a log can be torn.
    writing: Mutex<()>,
    synced: WriteOptions,
    buffered: WriteOptions,
    /// For a batch that leaves no trace.
    nowhere: WriteOptions,
}

impl Database {
    pub(crate) fn open(
        path: &Path,
        name: &'static str,
        options: &::rocksdb::Options,
        columns: Vec<ColumnFamilyDescriptor>,
    ) -> Result<Self, StorageError> {
        let db = DB::open_cf_descriptors(options, path, columns).map_err(|error| opening_failed(path, name, &error))?;
        Ok(Self::around(db, name, path))
    }

    /// A database that is never written to.
    pub(crate) fn open_read_only(
        path: &Path,
        name: &'static str,
        options: &::rocksdb::Options,
        columns: Vec<ColumnFamilyDescriptor>,
    ) -> Result<Self, StorageError> {
        let db = DB::open_cf_descriptors_read_only(options, path, columns, false)
            .map_err(|error| opening_failed(path, name, &error))?;
        Ok(Self::around(db, name, path))
    }

    /// A checkpoint of this database, at `path`. It has the very files of this one, by other names: what is damaged there
    /// is damaged here, and either both can be read or none.
    pub(crate) fn open_checkpoint(
        &self,
        path: &Path,
        options: &::rocksdb::Options,
        columns: Vec<ColumnFamilyDescriptor>,
    ) -> Result<Self, StorageError> {
        let opened = DB::open_cf_descriptors_read_only(options, path, columns, false);
        let db = self.guard("opening a checkpoint", opened)?;
        let (dir, latch) = (self.dir.clone(), Arc::clone(&self.latch));
        Ok(Self { part: self.part, dir, latch, ..Self::around(db, "checkpoint", path) })
    }

    fn around(db: DB, name: &'static str, path: &Path) -> Self {
        let (mut synced, mut nowhere) = (WriteOptions::default(), WriteOptions::default());
        synced.set_sync(true);
        nowhere.disable_wal(true);
        let buffered = WriteOptions::default();
        let (part, dir) = (Part::of(name), path.parent().unwrap_or(path).to_owned());
        Self { db, name, part, dir, latch: Arc::default(), writing: Mutex::new(()), synced, buffered, nowhere }
    }

    /// The database itself, for reading. Results go through [`Database::guard`].
    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    /// A column family that was named at opening.
    pub(crate) fn column(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every column family is named at opening")
    }

    /// What RocksDB says of a column family by a property; 0 where it says nothing.
    pub(crate) fn number(&self, column: &str, property: &CStr) -> u64 {
        self.db.property_int_value_cf(self.column(column), property).ok().flatten().unwrap_or(0)
    }

    /// Whether somebody reads the database as it was at a moment.
    pub(crate) fn has_snapshots(&self) -> Result<bool, StorageError> {
        let count = self.guard("asking for snapshots", self.db.property_int_value(properties::NUM_SNAPSHOTS))?;
        Ok(count != Some(0))
    }

    /// Fails with the first error, if there was one.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        self.latch.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Latches the database shut; the first reason stays.
    pub(crate) fn shut(&self, reason: StorageError) -> StorageError {
        self.latch
            .get_or_init(|| {
                tracing::error!(database = self.name, %reason, "stable storage is shut; this node stops");
                reason
            })
            .clone()
    }

    /// Passes a result on, and latches on an error.
    pub(crate) fn guard<T>(&self, doing: &str, result: Result<T, ::rocksdb::Error>) -> Result<T, StorageError> {
        result.map_err(|error| match translate(&format!("{doing} in database `{}`", self.name), &error) {
            StorageError::Corrupt(why) => self.damaged(why),
            reason @ (StorageError::Failed(_) | StorageError::Refused(_)) => self.shut(reason),
        })
    }

    /// Latches on a stored record that cannot be read.
    pub(crate) fn readable<T>(&self, what: &str, result: Result<T, String>) -> Result<T, StorageError> {
        result.map_err(|why| self.damaged(format!("{what} in database `{}`: {why}", self.name)))
    }

    /// Latches on what is damaged on the disk, and says so to the next start, which mends it.
    fn damaged(&self, why: String) -> StorageError {
        if let Some(part) = self.part
            && let Err(error) = mend::leave_marker(&self.dir, part, &why)
        {
            tracing::error!(database = self.name, %error, "cannot note the damage; the next start must find it by itself");
        }
        self.shut(StorageError::Corrupt(why))
    }

    /// Writes a batch and syncs it.
    pub(crate) fn write_synced(&self, batch: WriteBatch) -> Result<(), StorageError> {
        self.write(batch, &self.synced)
    }

    /// Writes a batch to the operating system, not to the disk.
    pub(crate) fn write_buffered(&self, batch: WriteBatch) -> Result<(), StorageError> {
        self.write(batch, &self.buffered)
    }

    /// Makes all written batches durable.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.check()?;
        self.guard("syncing", self.db.flush_wal(true))?;
        self.check_background()
    }

    /// Deletes the files that have nothing but keys from `first` to `last`: durable when this returns. So must be by
    /// then that nobody looks for those keys, and what these files hid of them in others may show again. The files that
    /// were written last are not among them.
    pub(crate) fn delete_files(&self, column: &str, first: &[u8], last: &[u8]) -> Result<(), StorageError> {
        self.guard("deleting files", self.db.delete_file_in_range_cf(self.column(column), first, last))
    }

    /// Writes files of what is in memory, after which what was written of it to the log of writes is not needed.
    pub(crate) fn flush(&self, columns: &[&str]) -> Result<(), StorageError> {
        let families: Vec<_> = columns.iter().map(|name| self.column(name)).collect();
        let families: Vec<_> = families.iter().collect();
        self.guard("writing files", self.db.flush_cfs_opt(&families, &FlushOptions::default()))
    }

    /// Writes the files anew in which there are keys from `first` to `last`, without what is deleted.
    pub(crate) fn compact(&self, column: &str, first: &[u8], last: &[u8]) -> Result<(), StorageError> {
        self.db.compact_range_cf(self.column(column), Some(first), Some(last));
        self.check_background()
    }

    fn write(&self, batch: WriteBatch, options: &WriteOptions) -> Result<(), StorageError> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        self.guard("writing", self.db.write_opt(batch, options))?;
        self.check_background()
    }

    /// A failed flush or compaction counts as a failed write. RocksDB only counts them; but one that it cannot go on after,
    /// as a compaction that met a damaged block, is what it answers to each write from then on, to an empty one too.
    pub(crate) fn check_background(&self) -> Result<(), StorageError> {
        match self.guard("asking for background errors", self.db.property_int_value(properties::BACKGROUND_ERRORS))? {
            None | Some(0) => Ok(()),
            Some(count) => {
                self.guard("working in the background", self.db.write_opt(WriteBatch::default(), &self.nowhere))?;
                Err(self.shut(StorageError::Failed(format!(
                    "{count} errors in background work of database `{}`; its file `LOG` names them",
                    self.name
                ))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ::rocksdb::Cache;

    use super::*;
    use crate::rocksdb::open::{Options, STATE, open_state};

    /// S-15: catches damage that a compaction meets and that is told as a failure of the disk: nothing is mended, and the
    /// next start, and each one after it, ends as this one does. Whatever asks first afterwards.
    #[test]
    fn damage_that_a_compaction_meets_is_damage() {
        type Ask = fn(&Database) -> Result<(), StorageError>;
        let asks: [Ask; 3] = [
            Database::sync,
            |state| state.write_buffered(WriteBatch::default()),
            // The error comes between a write and the question for it.
            Database::check_background,
        ];
        for ask in asks {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let open = || {
                let (options, cache) = (Options::default(), Cache::new_lru_cache(1 << 20));
                open_state(dir.path(), &options, &cache).expect("it opens")
            };
            // Two tables, of which none goes as it is to where the other one does.
            for keys in [["a", "c"], ["b", "d"]] {
                let state = open();
                keys.iter().for_each(|key| state.db().put(key, [7; 999]).expect("written"));
                state.db().flush().expect("written");
            }
            let state = open();
            for entry in fs::read_dir(dir.path().join(STATE)).expect("a directory") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|end| end == "sst") {
                    let mut bytes = fs::read(&path).expect("readable");
                    bytes[..40].iter_mut().for_each(|byte| *byte ^= 0x40);
                    fs::write(&path, bytes).expect("written");
                }
            }
            state.db().compact_range::<&str, &str>(None, None);
            assert_eq!(state.check(), Ok(()), "nobody has asked yet");
            let asked = ask(&state);
            assert!(matches!(asked, Err(StorageError::Corrupt(_))), "{asked:?}");
            let marker = mend::damaged(dir.path(), Part::State).expect("readable");
            assert!(marker.is_some_and(|why| why.contains("orruption")), "it is mended by the next start");
        }
    }
}
