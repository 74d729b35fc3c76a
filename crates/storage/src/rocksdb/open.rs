//! Opening a data directory: whose it is, whether it is whole, and the options of RocksDB.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use ::rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    InfoLogger, LogLevel, properties,
};

use super::database::Database;
use super::keys::column;
use super::log::RocksLog;
use super::mark;
use super::meaning::{held, translate};
use super::mend::{self, Part};
use super::opening::{Opening, Trouble};
use super::state::RocksState;
use super::{recover, seam, wal};
use crate::{Identity, Standing, StorageError};

pub(crate) const LOG: &str = "log";
pub(crate) const STATE: &str = "state";
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// Written when both databases are made: a directory that has it must have both.
pub(crate) const IDENTITY: &str = "IDENTITY";
/// Held by the process that uses the directory.
pub(crate) const LOCK: &str = "LOCK";

/// Bytes of a block before it is compressed: what is usual.
const BLOCK: usize = 4 << 10;
/// Of columns that are seldom read by single keys: their index takes a quarter of the cache that it would take else.
const LARGE_BLOCK: usize = 16 << 10;

/// How a data directory is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of blocks read from disk that are kept in memory, for both databases together.
    pub cache_bytes: usize,
    /// Bytes of writes that a column family keeps in memory before it writes a file. There are
    /// six column families, two of which carry most of the load, and each may hold two such
    /// buffers while one is being written.
    pub write_buffer_bytes: usize,
    /// This node is its whole cluster: nobody has what it loses.
    pub alone: bool,
    /// What a directory that is made now is good for.
    pub standing_of_new: Standing,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, write_buffer_bytes: 16 << 20, alone: false, standing_of_new: Standing::Fresh }
    }
}

/// The stores of one data directory.
#[derive(Clone)]
pub struct Stores {
    /// Promises and votes.
    pub log: Arc<RocksLog>,
    /// State machine, outcomes and issued commands.
    pub state: Arc<RocksState>,
}

impl Stores {
    /// Why one of the stores is shut, once it is: whatever met the error, a reader or RocksDB's own work too, this node
    /// must end.
    #[must_use]
    pub fn failure(&self) -> Option<StorageError> {
        let check = |database: &Database| database.check().and_then(|()| database.check_background());
        check(self.log.database()).and_then(|()| check(self.state.database())).err()
    }

    /// What the stores keep in memory now.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let (log, state) = (self.log.database(), self.state.database());
        let tables = properties::SIZE_ALL_MEM_TABLES;
        let of_state: u64 = column::ALL.into_iter().map(|name| state.number(name, tables)).sum();
        Memory {
            tables: log.number(::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, tables) + of_state,
            // Both share the one cache.
            cache: state.number(::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, properties::BLOCK_CACHE_USAGE),
        }
    }
}

/// Memory of the stores, in bytes, by what it is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What was written and is in no file yet.
    pub tables: u64,
    /// Blocks that were read, filters and indices among them: at most [`Options::cache_bytes`].
    pub cache: u64,
}

/// Opens the data directory of a node, or makes it. What is damaged is set aside, and a new database begins in its
/// place, as long as the mark is there and other nodes may have what is missing (see [`crate::rocksdb`]).
///
/// # Errors
/// - [`StorageError::Refused`] when it belongs to another cluster or node or another version,
///   when another process holds it, when other nodes have refused it, or when it has lost what must not be lost;
/// - [`StorageError::Corrupt`] when what was damaged is damaged again;
/// - [`StorageError::Failed`] when the disk fails.
pub fn open(dir: &Path, identity: &Identity, options: &Options) -> Result<Stores, StorageError> {
    let lock = make_and_lock(dir)?;
    recover::check_recovered(dir)?;
    open_locked(dir, identity, options, lock)
}

/// The same, with what keeps others off it ([`make_and_lock`]), and whatever a recovery has left there.
///
/// # Errors
/// As those of [`open`].
pub fn open_locked(dir: &Path, identity: &Identity, options: &Options, lock: File) -> Result<Stores, StorageError> {
    let on_file = mark_of(dir, options)?;
    let complete = dir.join(IDENTITY).try_exists().map_err(|error| failed(dir, "looking into", &error))?;
    let opening = Opening { dir, identity, options, lock, on_file, complete };
    opening.check_mark()?;
    let mut last = StorageError::Corrupt(String::new());
    // Each database may be set aside once.
    for _ in 0..=Part::BOTH.len() {
        match opening.attempt() {
            Ok(stores) => return Ok(stores),
            Err(Trouble::Error(error)) => return Err(error),
            Err(Trouble::Damaged(part, why)) => {
                opening.judge(part, &why)?;
                mend::leave_marker(dir, part, &why).map_err(|error| failed(dir, "noting damage in", &error))?;
                last = StorageError::Corrupt(why);
            }
        }
    }
    Err(last)
}

/// The mark of a directory. Where the file is lost it is made again from the log, first of all: what else is damaged there
/// can be set aside then.
fn mark_of(dir: &Path, options: &Options) -> Result<mark::Found, StorageError> {
    let lost = match mark::read(dir)? {
        whole @ mark::Found::Whole(_) => return Ok(whole),
        lost @ (mark::Found::Nothing | mark::Found::Unreadable(_)) => lost,
    };
    let Ok(Some(mark)) =
        check_log_of_mark(dir, options).and_then(|()| open_log_read_only(dir)).and_then(|log| RocksLog::mark_in(&log))
    else {
        return Ok(lost);
    };
    let why = match &lost {
        mark::Found::Unreadable(how) => format!("is damaged ({how})"),
        mark::Found::Nothing | mark::Found::Whole(_) => "is not there".to_owned(),
    };
    tracing::warn!(data = %dir.display(), "the file MARK {why}; it is made again from the log");
    mark::write(dir, &mark).map_err(|error| failed(dir, "making the file MARK again in", &error))?;
    Ok(mark::Found::Whole(mark))
}

/// Whether the mark in a log may be an older one. Every start writes there, so that a log without log files has lost some.
pub(crate) fn check_log_of_mark(dir: &Path, options: &Options) -> Result<(), StorageError> {
    if wal::files(&dir.join(LOG))?.is_empty() {
        return Err(StorageError::Corrupt("the log files of the database `log` are not there".to_owned()));
    }
    check_end_of_log(dir, options)
}

/// Whether the log has lost what was written to it last.
pub(crate) fn check_end_of_log(dir: &Path, options: &Options) -> Result<(), StorageError> {
    let log = dir.join(LOG);
    wal::check(&log)?;
    seam::check(&log, options, &Cache::new_lru_cache(options.cache_bytes))
}

/// Makes a data directory if it is not there, for nobody else's eyes.
///
/// # Errors
/// When the disk fails.
pub fn make(dir: &Path) -> Result<(), StorageError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(dir, "making directory", &error))
}

/// Makes a data directory if it is not there, and keeps others off it while what it returns, or a copy of that, is there.
///
/// # Errors
/// - [`StorageError::Refused`] when another process holds it;
/// - [`StorageError::Failed`] when the disk fails.
pub fn make_and_lock(dir: &Path) -> Result<File, StorageError> {
    make(dir)?;
    let lock = File::create(dir.join(LOCK)).map_err(|error| failed(dir, "making the file LOCK in", &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(held(dir)),
        Err(TryLockError::Error(error)) => Err(failed(dir, "locking", &error)),
    }
}

pub(crate) fn failed(dir: &Path, doing: &str, error: &io::Error) -> StorageError {
    StorageError::Failed(format!("{doing} {}: {error}", dir.display()))
}

/// What lies in the log's tables alone: nothing is replayed, nothing is changed.
pub(crate) fn open_tables_of_log(log: &Path, options: &Options, cache: &Cache) -> Result<Database, StorageError> {
    // "Best efforts" is the one way to open without the log files a database that keeps track of them; if it passes
    // over a table that is damaged, then writes are missing, which is what is looked for.
    let mut tables = common(options, "best_efforts_recovery=true")?;
    tables.set_track_and_verify_wals_in_manifest(true);
    // The text file `LOG` is that of the last run.
    tables.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    let column = family(tables.clone(), cache, DBCompressionType::None, false, BLOCK);
    let columns = vec![ColumnFamilyDescriptor::new(::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, column)];
    Database::open_read_only(log, "log, its tables", &tables, columns)
}

pub(crate) fn open_log(dir: &Path, options: &Options, cache: &Cache) -> Result<Database, StorageError> {
    let (log, columns) = log_options(options, cache)?;
    Database::open(&dir.join(LOG), LOG, &log, columns)
}

/// To look into it only.
pub(crate) fn open_log_read_only(dir: &Path) -> Result<Database, StorageError> {
    let options = Options::default();
    let (mut log, columns) = log_options(&options, &Cache::new_lru_cache(options.cache_bytes))?;
    log.create_if_missing(false);
    Database::open_read_only(&dir.join(LOG), "log, to look into it", &log, columns)
}

/// The same for the state.
pub(crate) fn open_state_read_only(dir: &Path) -> Result<Database, StorageError> {
    let options = Options::default();
    let mut state = state_options(&options, "track_and_verify_wals=true")?;
    state.create_if_missing(false);
    let columns = state_columns(&state, &Cache::new_lru_cache(options.cache_bytes));
    Database::open_read_only(&dir.join(STATE), "state, to look into it", &state, columns)
}

fn log_options(
    options: &Options,
    cache: &Cache,
) -> Result<(::rocksdb::Options, Vec<ColumnFamilyDescriptor>), StorageError> {
    let mut log = common(options, "")?;
    // Synced by us before anything depends on it, and checked by `wal` before: a torn last batch
    // is dropped, anything else is an error.
    log.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    log.set_track_and_verify_wals_in_manifest(true);
    log.set_max_total_wal_size(64 << 20);
    let column = family(log.clone(), cache, DBCompressionType::None, false, BLOCK);
    Ok((log, vec![ColumnFamilyDescriptor::new(::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, column)]))
}

pub(crate) fn open_state(dir: &Path, options: &Options, cache: &Cache) -> Result<Database, StorageError> {
    // A power cut may take the end of one log file and leave the next one: that is a hole, at which the state ends. RocksDB
    // goes on behind it unless log files name what lies before them.
    let state = state_options(options, "track_and_verify_wals=true")?;
    Database::open(&dir.join(STATE), STATE, &state, state_columns(&state, cache))
}

/// A checkpoint of a state, to be read.
pub(crate) fn open_checkpoint(
    of: &Database,
    path: &Path,
    options: &Options,
    cache: &Cache,
) -> Result<Database, StorageError> {
    let mut state = state_options(options, "")?;
    // It is read from one end to the other; the files of several must not use up the descriptors.
    state.set_max_open_files(32);
    of.open_checkpoint(path, &state, state_columns(&state, cache))
}

fn state_options(options: &Options, more: &str) -> Result<::rocksdb::Options, StorageError> {
    let mut state = common(options, more)?;
    // Not synced per batch, so a power cut may leave holes: what lies before the first hole is a
    // state that once was. That it is not below what was synced is checked against the log.
    state.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // Bounds the time of a start, which applies it again.
    state.set_max_total_wal_size(64 << 20);
    Ok(state)
}

fn state_columns(state: &::rocksdb::Options, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let column = |name| {
        let mut options = state.clone();
        // The other columns are read in their order, or by keys that are there.
        let by_key = [column::ENTRIES, column::OUTCOMES].contains(&name);
        if by_key {
            options.set_memtable_prefix_bloom_ratio(0.05);
            options.set_memtable_whole_key_filtering(true);
        }
        // Mostly written, and read from one end to the other; that somebody asks for an old outcome is rare.
        let in_order = [column::OUTCOMES, column::OUTCOMES_BY_TIME, column::COMMANDS].contains(&name);
        let block = if in_order { LARGE_BLOCK } else { BLOCK };
        ColumnFamilyDescriptor::new(name, family(options, cache, DBCompressionType::Lz4, by_key, block))
    };
    column::ALL.into_iter().map(column).collect()
}

fn common(options: &Options, more: &str) -> Result<::rocksdb::Options, StorageError> {
    // These have no setters of their own. After an error nothing is tried again, least of all a sync; but for want of
    // space, where RocksDB does not go by it. And no space is taken ahead of what is written: near the end of a disk it would be all that is left. Blocks of files that
    // a compaction has replaced leave the cache at once; else it fills with them before anything is evicted.
    let mut common = ::rocksdb::Options::default()
        .get_options_from_string(format!(
            "max_bgerror_resume_count=0;allow_fallocate=false;uncache_aggressiveness=100;{more}"
        ))
        .map_err(|error| translate("setting options", &error))?;
    common.create_if_missing(true);
    common.create_missing_column_families(true);
    common.set_paranoid_checks(true);
    common.set_write_buffer_size(options.write_buffer_bytes);
    common.set_max_write_buffer_number(2);
    // One thread for flushes and one for compactions; the roles need the processors.
    common.set_max_background_jobs(2);
    // Writes come one at a time, so that a table in memory can keep its place between two keys
    // that follow each other, as those of commands and votes do.
    common.set_allow_concurrent_memtable_write(false);
    // Written out as it comes. The sync at the end of a large file would else wait for all of it, and so would those of
    // votes, on the same disk.
    common.set_bytes_per_sync(1 << 20);
    common.set_wal_bytes_per_sync(1 << 20);
    // Well below the usual limit of 1,024 file descriptors a process, sockets included.
    common.set_max_open_files(256);
    // The text files `LOG` are for people: at most two of 1 MiB.
    common.set_log_level(LogLevel::Warn);
    common.set_keep_log_file_num(2);
    common.set_max_log_file_size(1 << 20);
    common.set_stats_dump_period_sec(0);
    common.set_stats_persist_period_sec(0);
    Ok(common)
}

/// `by_key`: single keys are looked for, which mostly are not there, such as the outcome of a new request. A filter says
/// so without a search, and costs a byte and a quarter a key in memory. `block`: bytes that are read for one key; the
/// index, which is in the cache, has an entry for each block.
fn family(
    mut options: ::rocksdb::Options,
    cache: &Cache,
    compression: DBCompressionType,
    by_key: bool,
    block: usize,
) -> ::rocksdb::Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(block);
    if by_key {
        table.set_bloom_filter(10.0, false);
    }
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In pieces of some kilobytes. The filter of a million outcomes in one piece is larger than a shard of the cache, which
    // then never keeps it: every look-up reads it from its file.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_top_level_index_and_filter(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(compression);
    options
}

#[cfg(test)]
mod tests;
