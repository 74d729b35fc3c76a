//! What keeps RocksDB from opening a database and is no damage, such as what a newer version left; and what cannot be read,
//! and is.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use protocol::{Ballot, ClusterId, CommandNumber, NodeId, StateView as _};
use quorate_storage::conformance::{body, command, key, put, vote};
use quorate_storage::rocksdb::{Options, Stores, open};
use quorate_storage::{Identity, LogRecord, LogStore as _, Standing, StateStore as _, StorageError};
use rocksdb::{ColumnFamilyDescriptor, DB};

use support::copy;

const PROMISE: Ballot = Ballot::new(9, NodeId(3));
/// The end of a table, after its format: RocksDB's number of block-based tables, little-endian.
const MAGIC: [u8; 8] = 0x88e2_41b7_85f4_cff7_u64.to_le_bytes();

fn try_open(dir: &Path) -> Result<Stores, StorageError> {
    let identity =
        Identity { cluster: ClusterId([1; 16]), cluster_name: "shop".into(), node: NodeId(1), node_name: "n1".into() };
    open(dir, &identity, &Options { standing_of_new: Standing::Sound, ..Options::default() })
}

/// A directory with three votes and a command, in tables and in log files.
fn used(dir: &Path) {
    let stores = try_open(dir).expect("the stores open");
    stores.log.write(&[LogRecord::NextBallot(PROMISE)]).expect("written");
    (1..=2).for_each(|number| stores.log.write(&[LogRecord::Vote(vote(1, number, "v"))]).expect("written"));
    stores.state.apply(&[command(1, &body(1, vec![put("k", "v")]))]).expect("applied");
    stores.state.sync().expect("synced");
    drop(stores);
    // A start writes what the log files held into tables.
    let stores = try_open(dir).expect("the stores open");
    stores.log.write(&[LogRecord::Vote(vote(1, 3, "v"))]).expect("written");
}

fn assert_all_is_there(dir: &Path) {
    let stores = try_open(dir).expect("the stores open");
    let image = stores.log.load(CommandNumber::NULL).expect("readable");
    let votes: Vec<u64> = image.votes.iter().map(|vote| vote.command.number().0).collect();
    assert_eq!((image.standing, image.next_ballot, votes), (Standing::Sound, PROMISE, vec![1, 2, 3]));
    assert_eq!(stores.state.applied().number, CommandNumber(1));
    assert!(stores.state.get(&key("k")).expect("readable").is_some());
}

/// What of a directory was set aside, or is to be.
fn set_aside(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("an ASCII name"));
    names.filter(|name| name.starts_with("DAMAGED") || name.contains(".damaged-")).collect()
}

fn assert_is_refused(dir: &Path, why: &str) {
    // Twice: the first start must not leave anything for the second.
    for _ in 0..2 {
        match try_open(dir).err().expect("it opened") {
            StorageError::Refused(text) => {
                assert!(text.contains(why) && text.contains("start the version that wrote it"), "{text}")
            }
            other @ (StorageError::Failed(_) | StorageError::Corrupt(_)) => panic!("not refused but: {other}"),
        }
        assert_eq!(set_aside(dir), Vec::<String>::new());
    }
}

/// Opens a database with all its columns, as another version would.
fn with_all_columns(database: &Path) -> DB {
    let options = rocksdb::Options::default();
    let names = DB::list_cf(&options, database).expect("a database");
    let columns = names.iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    DB::open_cf_descriptors(&options, database, columns).expect("it opens")
}

/// Catches a version that takes what a newer one has added for damage: after a downgrade every node would have lost its
/// votes, or its state, at once.
#[test]
fn a_column_of_another_version_is_refused_and_nothing_is_lost() {
    for part in ["log", "state"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        used(dir.path());
        let database = dir.path().join(part);
        with_all_columns(&database).create_cf("newer", &rocksdb::Options::default()).expect("made");
        assert_is_refused(dir.path(), "newer");
        with_all_columns(&database).drop_cf("newer").expect("dropped");
        assert_all_is_there(dir.path());
    }
}

fn files(database: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let files = fs::read_dir(database).expect("a directory").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted)).collect()
}

/// The same for tables of a newer format, which "best efforts" passes over (module `seam`).
#[test]
fn tables_of_another_format_are_refused_and_nothing_is_lost() {
    for part in ["log", "state"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        used(dir.path());
        let tables = files(&dir.path().join(part), |name| name.ends_with(".sst"));
        assert!(!tables.is_empty(), "there is a table");
        let raise_format = |by: u8| {
            for table in &tables {
                let mut bytes = fs::read(table).expect("readable");
                let magic = bytes.len() - MAGIC.len();
                assert_eq!(bytes[magic..], MAGIC, "the end of a table");
                bytes[magic - 4] = bytes[magic - 4].wrapping_add(by);
                fs::write(table, bytes).expect("written");
            }
        };
        raise_format(1);
        assert_is_refused(dir.path(), "format_version");
        raise_format(u8::MAX);
        assert_all_is_there(dir.path());
    }
}

/// S-15: catches a sector that the disk does not give back, and with which no start ever succeeds: it is damage like any
/// other. Each file becomes one that is there and fails every read with EIO.
#[test]
fn a_file_that_cannot_be_read_is_damage() {
    let template = tempfile::tempdir().expect("a temporary directory");
    used(template.path());
    let kinds = [".log", ".sst", "MANIFEST", "CURRENT"];
    for (part, kind) in ["log", "state"].into_iter().flat_map(|part| kinds.map(|kind| (part, kind))) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(template.path(), dir.path());
        let files = files(&dir.path().join(part), |name| name.contains(kind));
        assert!(!files.is_empty(), "no {kind} in {part}");
        for file in files {
            fs::remove_file(&file).expect("removed");
            // Nothing is mapped at the beginning of a process's memory.
            symlink("/proc/self/mem", &file).expect("made");
            let read = fs::read(&file).expect_err("it was read");
            assert_eq!(read.raw_os_error(), Some(5), "{read}");
        }
        for _ in 0..2 {
            let stores = try_open(dir.path()).unwrap_or_else(|error| panic!("{kind} of {part}: {error}"));
            let image = stores.log.load(CommandNumber::NULL).expect("readable");
            let (standing, votes, applied) =
                if part == "log" { (Standing::Damaged, 0, 1) } else { (Standing::Sound, 3, 0) };
            assert_eq!((image.standing, image.votes.len()), (standing, votes), "{kind} of {part}");
            assert_eq!((image.next_ballot, stores.state.applied().number.0), (PROMISE, applied), "{kind} of {part}");
        }
        let aside = set_aside(dir.path());
        assert!(aside.len() == 1 && aside[0].starts_with(&format!("{part}.damaged-")), "{kind} of {part}: {aside:?}");
    }
}
