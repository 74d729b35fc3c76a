//! One RocksDB database behind a latch: after the first error nothing is tried again.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ::rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, ErrorKind, WriteBatch, WriteOptions, properties};

use super::mend::{self, Part};
use crate::StorageError;

/// A database and the reason why it is shut, once it is.
pub(crate) struct Database {
    db: DB,
    /// `log` or `state`, for error messages.
    name: &'static str,
    /// The data directory.
    dir: PathBuf,
    latch: OnceLock<StorageError>,
    /// One writer at a time: a batch reaches the file only when the one before it has succeeded
    /// and, in the log, is synced. So at most the last batch of a log can be torn.
    writing: Mutex<()>,
    synced: WriteOptions,
    buffered: WriteOptions,
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

    fn around(db: DB, name: &'static str, path: &Path) -> Self {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let buffered = WriteOptions::default();
        let dir = path.parent().unwrap_or(path).to_owned();
        Self { db, name, dir, latch: OnceLock::new(), writing: Mutex::new(()), synced, buffered }
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
        if let Some(part) = Part::of(self.name)
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

    fn write(&self, batch: WriteBatch, options: &WriteOptions) -> Result<(), StorageError> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        self.guard("writing", self.db.write_opt(batch, options))?;
        self.check_background()
    }

    /// A failed flush or compaction counts as a failed write.
    fn check_background(&self) -> Result<(), StorageError> {
        match self.guard("asking for background errors", self.db.property_int_value(properties::BACKGROUND_ERRORS))? {
            None | Some(0) => Ok(()),
            Some(count) => Err(self.shut(StorageError::Failed(format!(
                "{count} errors in background work of database `{}`; its file `LOG` names them",
                self.name
            )))),
        }
    }
}

/// What an error of RocksDB means to us.
pub(crate) fn translate(doing: &str, error: &::rocksdb::Error) -> StorageError {
    if error.kind() == ErrorKind::Corruption {
        StorageError::Corrupt(format!("{doing}: {error}"))
    } else {
        StorageError::Failed(format!("{doing}: {error}"))
    }
}

fn opening_failed(path: &Path, name: &str, error: &::rocksdb::Error) -> StorageError {
    let text = error.to_string();
    // RocksDB gives a held lock no kind of its own: "While lock file: …" from the operating
    // system, "lock hold by current process, …" from its own table.
    if text.contains("lock file") || text.contains("lock hold") {
        return held(path.parent().unwrap_or(path));
    }
    let doing = format!("opening database `{name}` at {}", path.display());
    // What the operating system says of the disk. But a file that another one names and that is not there is damage, and
    // so is whatever else RocksDB cannot make sense of.
    let of_the_disk = error.kind() == ErrorKind::IOError && !text.contains("No such file");
    if of_the_disk { translate(&doing, error) } else { StorageError::Corrupt(format!("{doing}: {error}")) }
}

/// Two processes on one directory.
pub(crate) fn held(dir: &Path) -> StorageError {
    StorageError::Refused(format!(
        "another process holds the data directory {}; stop it first, or give this node a directory of its own",
        dir.display()
    ))
}
