//! Opening a data directory: whose it is, whether it is whole, and the options of RocksDB.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use ::rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel,
};
use protocol::CommandNumber;

use super::checkpoint::Checkpoints;
use super::database::{Database, translate};
use super::keys::column;
use super::log::RocksLog;
use super::record::FORMAT;
use super::state::RocksState;
use super::{seam, wal};
use crate::{Identity, LogImage, LogStore as _, StateStore as _, StorageError};

const LOG: &str = "log";
const STATE: &str = "state";
const CHECKPOINTS: &str = "checkpoints";
/// Written when both databases are made: a directory that has it must have both.
const IDENTITY: &str = "IDENTITY";

/// How much memory the two databases may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of blocks read from disk that are kept in memory, for both databases together.
    pub cache_bytes: usize,
    /// Bytes of writes that a column family keeps in memory before it writes a file. There are
    /// six column families, two of which carry most of the load, and each may hold two such
    /// buffers while one is being written.
    pub write_buffer_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, write_buffer_bytes: 16 << 20 }
    }
}

/// The stores of one data directory.
pub struct Stores {
    /// Promises and votes.
    pub log: Arc<RocksLog>,
    /// State machine, outcomes and issued commands.
    pub state: Arc<RocksState>,
}

impl Stores {
    /// Why one of the stores is shut, once it is: whatever met the error, a reader too, this node must end.
    #[must_use]
    pub fn failure(&self) -> Option<StorageError> {
        self.log.check().and_then(|()| self.state.check()).err()
    }
}

/// Opens the data directory of a node, or makes it.
///
/// # Errors
/// - [`StorageError::Refused`] when it belongs to another cluster or node or a newer version,
///   when another process holds it, or when one of its two databases is missing;
/// - [`StorageError::Corrupt`] when something is not readable or something acknowledged is
///   missing (see [`crate::rocksdb`]);
/// - [`StorageError::Failed`] when the disk fails.
pub fn open(dir: &Path, identity: &Identity, options: &Options) -> Result<Stores, StorageError> {
    let io = |doing: &str, error: io::Error| StorageError::Failed(format!("{doing} {}: {error}", dir.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| io("making directory", error))?;
    let complete = dir.join(IDENTITY).try_exists().map_err(|error| io("looking into directory", error))?;
    if complete {
        check_parts(dir)?;
    }
    wal::check(&dir.join(LOG))?;
    let cache = Cache::new_lru_cache(options.cache_bytes);
    seam::check(&dir.join(LOG), options, &cache)?;
    let (log, state) = (open_log(dir, options, &cache)?, open_state(dir, options, &cache)?);
    let found = [RocksLog::identity_in(&log)?, RocksState::identity_in(&state)?];
    check_owner(dir, identity, &found)?;
    let checkpoints = Checkpoints::new(dir.join(CHECKPOINTS), options.clone(), cache);
    let checkpoints = checkpoints.map_err(|error| io("removing old checkpoints in", error))?;
    let log = Arc::new(RocksLog::new(log)?);
    let state = Arc::new(RocksState::new(state, Arc::clone(&log), checkpoints)?);
    let [log_is_new, state_is_new] = found.map(|found| found.is_none());
    complete_identity(dir, identity, complete, (&log, log_is_new), (&state, state_is_new))?;
    state.check_against_log()?;
    log.begin()?;
    // What a crash left with the operating system only is made durable before it counts.
    state.sync()?;
    // The names of new files, and the absence of the log files that are not needed any more.
    for place in [dir.join(LOG), dir.join(STATE)] {
        sync_directory(&place).map_err(|error| io("syncing", error))?;
    }
    if !complete {
        write_identity_file(dir, identity).map_err(|error| io("writing the file IDENTITY in", error))?;
    }
    Ok(Stores { log, state })
}

/// A directory that was once made must have both databases, each with a log of writes.
fn check_parts(dir: &Path) -> Result<(), StorageError> {
    for name in [LOG, STATE] {
        let part = dir.join(name);
        if !part.join("CURRENT").exists() || wal::files(&part)?.is_empty() {
            return Err(lost(dir, name));
        }
    }
    Ok(())
}

fn lost(dir: &Path, name: &str) -> StorageError {
    StorageError::Refused(format!(
        "the data directory {} has lost its database `{name}`, or parts of it. A node that lost its log must not vote \
         again: restore the data directory, or leave this node off until the cluster can replace it",
        dir.display()
    ))
}

/// Refuses the databases of another node, and those of another version.
fn check_owner(
    dir: &Path,
    expected: &Identity,
    found: &[Option<Result<Identity, String>>],
) -> Result<(), StorageError> {
    for found in found.iter().flatten() {
        match found {
            Ok(found) if found == expected => {}
            Ok(found) => return Err(another(dir, found, expected)),
            Err(why) => {
                return Err(StorageError::Refused(format!(
                    "the data directory {} has an identity that this version (format {FORMAT}) cannot read: {why}",
                    dir.display()
                )));
            }
        }
    }
    Ok(())
}

/// Without the file IDENTITY, the making of the directory may have been cut short; then nothing was ever
/// written to it. Anything else that is missing was lost.
fn complete_identity(
    dir: &Path,
    identity: &Identity,
    complete: bool,
    (log, log_is_new): (&RocksLog, bool),
    (state, state_is_new): (&RocksState, bool),
) -> Result<(), StorageError> {
    let log_is_empty = log.load(CommandNumber::NULL)? == LogImage::default();
    let unused = !complete && log_is_empty && state.applied().number == CommandNumber::NULL;
    if log_is_new {
        if !unused {
            return Err(lost(dir, LOG));
        }
        log.write_identity(identity)?;
    }
    if state_is_new {
        if !unused {
            return Err(lost(dir, STATE));
        }
        state.write_identity(identity)?;
    }
    Ok(())
}

fn another(dir: &Path, found: &Identity, expected: &Identity) -> StorageError {
    let name = |identity: &Identity| {
        format!(
            "node `{}` (id {}) of cluster `{}` (id {})",
            identity.node_name, identity.node, identity.cluster_name, identity.cluster
        )
    };
    StorageError::Refused(format!(
        "the data directory {} belongs to {}, but this is {}; give this node its own directory, or correct its \
         configuration",
        dir.display(),
        name(found),
        name(expected)
    ))
}

/// Written aside, synced, then renamed: the file is there whole or not at all.
fn write_identity_file(dir: &Path, identity: &Identity) -> io::Result<()> {
    let text = format!(
        "# A data directory of Quorate. This file is for people; the databases carry the same.\n\
         # Never copy this directory to a second running node, and never start it from an old copy.\n\
         format = {FORMAT}\ncluster = {:?}\ncluster_id = \"{}\"\nnode = {:?}\nnode_id = {}\n",
        identity.cluster_name, identity.cluster, identity.node_name, identity.node
    );
    let aside = dir.join("IDENTITY.new");
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, dir.join(IDENTITY))?;
    sync_directory(dir)?;
    // The directory's own name, in case it was just made.
    match fs::canonicalize(dir)?.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What lies in the log's tables alone: nothing is replayed, nothing is changed.
pub(crate) fn open_tables_of_log(log: &Path, options: &Options, cache: &Cache) -> Result<Database, StorageError> {
    // "Best efforts" is the one way to open without the log files a database that keeps track of them; if it passes
    // over a table that is damaged, then writes are missing, which is what is looked for.
    let mut tables = common(options, "best_efforts_recovery=true")?;
    tables.set_track_and_verify_wals_in_manifest(true);
    // The text file `LOG` is that of the last run.
    tables.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    let column = family(tables.clone(), cache, DBCompressionType::None);
    let columns = vec![ColumnFamilyDescriptor::new(::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, column)];
    Database::open_read_only(log, LOG, &tables, columns)
}

fn open_log(dir: &Path, options: &Options, cache: &Cache) -> Result<Database, StorageError> {
    let mut log = common(options, "")?;
    // Synced by us before anything depends on it, and checked by `wal` before: a torn last batch
    // is dropped, anything else is an error.
    log.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    log.set_track_and_verify_wals_in_manifest(true);
    log.set_max_total_wal_size(64 << 20);
    let column = family(log.clone(), cache, DBCompressionType::None);
    let columns = vec![ColumnFamilyDescriptor::new(::rocksdb::DEFAULT_COLUMN_FAMILY_NAME, column)];
    Database::open(&dir.join(LOG), LOG, &log, columns)
}

fn open_state(dir: &Path, options: &Options, cache: &Cache) -> Result<Database, StorageError> {
    // A power cut may take the end of one log file and leave the next one: that is a hole, at which the state ends. RocksDB
    // goes on behind it unless log files name what lies before them.
    let state = state_options(options, "track_and_verify_wals=true")?;
    Database::open(&dir.join(STATE), STATE, &state, state_columns(&state, cache))
}

/// A checkpoint of a state.
pub(crate) fn open_state_read_only(path: &Path, options: &Options, cache: &Cache) -> Result<Database, StorageError> {
    let mut state = state_options(options, "")?;
    // It is read from one end to the other; the files of several must not use up the descriptors.
    state.set_max_open_files(32);
    Database::open_read_only(path, "checkpoint", &state, state_columns(&state, cache))
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
    let column = |name| ColumnFamilyDescriptor::new(name, family(state.clone(), cache, DBCompressionType::Lz4));
    column::ALL.into_iter().map(column).collect()
}

fn common(options: &Options, more: &str) -> Result<::rocksdb::Options, StorageError> {
    // These have no setters of their own. After an error nothing is tried again, least of all a sync. And no
    // space is taken ahead of what is written: near the end of a disk it would be all that is left.
    let mut common = ::rocksdb::Options::default()
        .get_options_from_string(format!("max_bgerror_resume_count=0;allow_fallocate=false;{more}"))
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
    // Most look-ups of outcomes find nothing: a filter says so without a search.
    common.set_memtable_prefix_bloom_ratio(0.05);
    common.set_memtable_whole_key_filtering(true);
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

fn family(mut options: ::rocksdb::Options, cache: &Cache, compression: DBCompressionType) -> ::rocksdb::Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(compression);
    options
}
