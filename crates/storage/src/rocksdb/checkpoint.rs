//! The whole state as of now, apart from later writes: a checkpoint of RocksDB, which is a directory
//! of hard links to the state's files, opened read-only. What is damaged there is damaged in the state: it is shut too,
//! and the next start mends it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use ::rocksdb::{Cache, checkpoint, properties};
use protocol::{Position, SnapshotId, SnapshotPiece};

use super::database::Database;
use super::keys::{Generation, column};
use super::open::{Options, open_checkpoint};
use super::reader::Reader;
use super::record::Head;
use crate::{Checkpoint, StorageError, snapshot};

/// Where checkpoints are made.
pub(crate) struct Checkpoints {
    dir: PathBuf,
    options: Options,
    cache: Cache,
    made: AtomicU64,
}

impl Checkpoints {
    /// Removes what a process that ended has left behind.
    pub(crate) fn new(dir: PathBuf, options: Options, cache: Cache) -> io::Result<Self> {
        match fs::remove_dir_all(&dir) {
            Ok(()) => tracing::info!(directory = %dir.display(), "removed checkpoints that were left behind"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self { dir, options, cache, made: AtomicU64::new(0) })
    }

    /// Makes one of the state as it is now. Writers go on: RocksDB writes out what it holds in memory,
    /// links all files, and copies the end of the log of writes.
    pub(crate) fn make(&self, state: &Database) -> Result<RocksCheckpoint, StorageError> {
        let failed = |error: io::Error| StorageError::Failed(format!("making {}: {error}", self.dir.display()));
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let dir = Directory(self.dir.join(self.made.fetch_add(1, Ordering::Relaxed).to_string()));
        let made = checkpoint::Checkpoint::new(state.db()).and_then(|maker| maker.create_checkpoint(&dir.0));
        state.guard("making a checkpoint", made)?;
        let database = open_checkpoint(state, &dir.0, &self.options, &self.cache)?;
        let head = Reader::of(&database, Generation::default()).head()?;
        Ok(RocksCheckpoint { database, head, _dir: dir })
    }
}

/// A directory that goes with its owner.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            let directory = self.0.display();
            tracing::warn!(%directory, %error, "a checkpoint is not removed; the next start does so");
        }
    }
}

/// See [`Checkpoint`]. Made by [`crate::StateStore::checkpoint`].
pub(crate) struct RocksCheckpoint {
    /// Closed before its directory goes.
    database: Database,
    head: Head,
    _dir: Directory,
}

impl Checkpoint for RocksCheckpoint {
    fn id(&self) -> SnapshotId {
        SnapshotId { at: self.head.applied, digest: self.head.sum.digest() }
    }

    fn records(&self) -> u64 {
        let keys = |name| {
            let family = self.database.column(name);
            // An estimate that is missing is as good as none.
            self.database.db().property_int_value_cf(family, properties::ESTIMATE_NUM_KEYS).ok().flatten().unwrap_or(0)
        };
        keys(column::ENTRIES) + keys(column::OUTCOMES)
    }

    fn piece(&self, from: &Position, bytes: usize) -> Result<SnapshotPiece, StorageError> {
        self.database.check()?;
        let reader = Reader::of(&self.database, self.head.generation);
        snapshot::cut(from, reader.records_from(from), bytes)
    }
}
