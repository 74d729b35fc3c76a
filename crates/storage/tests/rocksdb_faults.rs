//! RocksDB when things go wrong: directories of others, torn and damaged files, lost parts,
//! failing disks.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use protocol::{Ballot, ClusterId, CommandNumber, NodeId, StateView};
use quorate_storage::conformance::{body, command, key, put, vote};
use quorate_storage::rocksdb::{Options, Stores, open};
use quorate_storage::{Identity, LogRecord, LogStore, StateStore, StorageError};

fn identity() -> Identity {
    Identity { cluster: ClusterId([1; 16]), cluster_name: "shop".into(), node: NodeId(1), node_name: "n1".into() }
}

fn try_open(dir: &Path) -> Result<Stores, StorageError> {
    open(dir, &identity(), &Options::default())
}

fn opened(dir: &Path) -> Stores {
    try_open(dir).expect("the stores open")
}

fn refused(dir: &Path, identity: &Identity) -> String {
    match open(dir, identity, &Options::default()).err().expect("it opened") {
        StorageError::Refused(text) => text,
        other @ (StorageError::Failed(_) | StorageError::Corrupt(_)) => panic!("not refused but: {other}"),
    }
}

/// Writes one vote for each number, each with a sync of its own.
fn vote_for(stores: &Stores, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        stores.log.write(&[LogRecord::Vote(vote(1, number, "a body of some length"))]).expect("written");
    }
}

fn votes(stores: &Stores) -> Vec<u64> {
    let image = stores.log.load(CommandNumber::NULL).expect("readable");
    image.votes.iter().map(|vote| vote.command.number().0).collect()
}

/// The file that the log is written to.
fn newest_log_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("log")).expect("a directory").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).max().expect("a log file")
}

fn cut(file: &Path, bytes: u64) {
    let length = fs::metadata(file).expect("a file").len();
    let file = OpenOptions::new().write(true).open(file).expect("a file");
    file.set_len(length.checked_sub(bytes).expect("the file is longer")).expect("cut");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Catches a node that starts on the data of another cluster or node, and a refusal that does
/// not say what to do.
#[test]
fn the_directory_of_another_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(opened(dir.path()));
    let others = [
        Identity { cluster: ClusterId([2; 16]), ..identity() },
        Identity { cluster_name: "other".into(), ..identity() },
        Identity { node: NodeId(2), ..identity() },
        Identity { node_name: "n2".into(), ..identity() },
    ];
    for other in others {
        let text = refused(dir.path(), &other);
        assert!(text.contains("belongs to node `n1` (id 1) of cluster `shop`"), "{text}");
        assert!(text.contains(&format!("this is node `{}`", other.node_name)), "{text}");
        assert!(text.contains("give this node its own directory"), "{text}");
    }
    drop(opened(dir.path()));
}

/// Catches a directory that others can read, and a file for people that does not say whose it is.
#[test]
fn a_new_directory_is_private_and_says_whose_it_is() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let dir = parent.path().join("data").join("n1");
    drop(opened(&dir));
    assert_eq!(fs::metadata(&dir).expect("made").permissions().mode() & 0o777, 0o700);
    let text = fs::read_to_string(dir.join("IDENTITY")).expect("a file");
    for part in ["format = 2\n", "cluster = \"shop\"\n", "node = \"n1\"\n", "node_id = 1\n"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!dir.join("IDENTITY.new").exists());
}

/// Catches two processes on one directory.
#[test]
fn a_held_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let held = opened(dir.path());
    let text = refused(dir.path(), &identity());
    assert!(text.contains("another process holds the data directory"), "{text}");
    drop(held);
    drop(opened(dir.path()));
}

/// S-15, S-13: catches a node that votes after it lost its log, or goes on after it lost its
/// state: a lost database must not be taken for a new one.
#[test]
fn a_lost_database_is_refused() {
    for lost in ["log", "state"] {
        for with_identity_file in [true, false] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let stores = opened(dir.path());
            vote_for(&stores, 1..=1);
            stores.state.apply(&[command(1, &body(1, vec![put("k", "v")]))]).expect("applied");
            drop(stores);
            fs::remove_dir_all(dir.path().join(lost)).expect("removed");
            if !with_identity_file {
                fs::remove_file(dir.path().join("IDENTITY")).expect("removed");
            }
            // Twice: the first refusal must not make the second one go away.
            for _ in 0..2 {
                let text = refused(dir.path(), &identity());
                assert!(text.contains(&format!("has lost its database `{lost}`")), "{text}");
                assert!(text.contains("leave this node off until the cluster can replace it"), "{text}");
            }
        }
    }
}

/// S-15: catches a log file that was removed whole.
#[test]
fn a_lost_log_file_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    vote_for(&opened(dir.path()), 1..=1);
    // The identity is in a table by now, only the votes are in the file.
    vote_for(&opened(dir.path()), 2..=3);
    fs::remove_file(newest_log_file(dir.path())).expect("removed");
    assert!(refused(dir.path(), &identity()).contains("has lost its database `log`"));
}

/// Catches a first start that was cut short, wherever, and can never be finished.
#[test]
fn an_interrupted_first_start_is_finished() {
    for missing in [&["IDENTITY"][..], &["IDENTITY", "state"], &["IDENTITY", "log"]] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        drop(opened(dir.path()));
        for part in missing {
            let part = dir.path().join(part);
            if part.is_dir() { fs::remove_dir_all(part) } else { fs::remove_file(part) }.expect("removed");
        }
        vote_for(&opened(dir.path()), 1..=1);
        assert_eq!(votes(&opened(dir.path())), [1], "without {missing:?}");
    }
}

/// A6, S-15: catches a start that fails on, or makes something of, a last batch that was torn
/// by a power cut and never acknowledged. Wherever it is cut, all batches before it are there,
/// and the node goes on, and starts again.
#[test]
fn a_torn_last_batch_is_dropped_and_nothing_else() {
    let template = tempfile::tempdir().expect("a temporary directory");
    let stores = opened(template.path());
    vote_for(&stores, 1..=4);
    let before = fs::metadata(newest_log_file(template.path())).expect("a file").len();
    vote_for(&stores, 5..=5);
    drop(stores);
    let batch = fs::metadata(newest_log_file(template.path())).expect("a file").len() - before;
    assert!(batch > 20, "the batch is in the file");
    for torn in [1, 2, batch / 2, batch - 7, batch - 6, batch - 1, batch] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(template.path(), dir.path());
        cut(&newest_log_file(dir.path()), torn);
        let stores = opened(dir.path());
        assert_eq!(votes(&stores), [1, 2, 3, 4], "{torn} of {batch} bytes torn off");
        vote_for(&stores, 6..=7);
        drop(stores);
        assert_eq!(votes(&opened(dir.path())), [1, 2, 3, 4, 6, 7], "{torn} of {batch} bytes torn off, once more");
    }
}

/// A6, S-15: catches a torn last batch that is taken for damage because a caller wrote a value that looks like records
/// of the log: such a node would never start again.
#[test]
fn a_torn_last_batch_of_a_hostile_caller_is_dropped() {
    let masked = |crc: u32| crc.rotate_right(15).wrapping_add(0xa282_ead8);
    // What RocksDB would write for a whole record of that content.
    let record = |content: &[u8]| {
        let checked = [&[1], content].concat();
        let length = u16::try_from(content.len()).expect("short");
        [&masked(crc32c::crc32c(&checked)).to_le_bytes()[..], &length.to_le_bytes(), &checked].concat()
    };
    for (size, length) in [(0, 400), (30, 4_000), (500, 100_000)] {
        let template = tempfile::tempdir().expect("a temporary directory");
        let stores = opened(template.path());
        vote_for(&stores, 1..=2);
        let before = fs::metadata(newest_log_file(template.path())).expect("a file").len();
        let mut hostile = vote(1, 3, "");
        hostile.command.body = record(&vec![7; size]).repeat(length / (size + 7)).into();
        stores.log.write(&[LogRecord::Vote(hostile)]).expect("written");
        drop(stores);
        let batch = fs::metadata(newest_log_file(template.path())).expect("a file").len() - before;
        for torn in [1, 20, batch / 3, batch / 2, batch - 100] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            copy(template.path(), dir.path());
            cut(&newest_log_file(dir.path()), torn);
            assert_eq!(votes(&opened(dir.path())), [1, 2], "{torn} of {batch} bytes torn off");
        }
    }
}

/// A6: the same for a batch that spans several of the file's blocks of 32 KiB.
#[test]
fn a_torn_last_batch_of_many_blocks_is_dropped() {
    let template = tempfile::tempdir().expect("a temporary directory");
    let stores = opened(template.path());
    vote_for(&stores, 1..=2);
    let before = fs::metadata(newest_log_file(template.path())).expect("a file").len();
    let mut large = vote(1, 3, "");
    large.command.body = vec![7; 100_000].into();
    stores.log.write(&[LogRecord::Vote(large)]).expect("written");
    drop(stores);
    let batch = fs::metadata(newest_log_file(template.path())).expect("a file").len() - before;
    let past_a_block = (before + batch) % 32_768;
    for torn in [1, past_a_block - 1, past_a_block, past_a_block + 1, past_a_block + 32_768, batch - 1] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(template.path(), dir.path());
        cut(&newest_log_file(dir.path()), torn);
        assert_eq!(votes(&opened(dir.path())), [1, 2], "{torn} of {batch} bytes torn off");
        assert_eq!(votes(&opened(dir.path())), [1, 2], "{torn} of {batch} bytes torn off, once more");
    }
}

/// A6: catches a start that fails when a power cut left a longer file without its content.
#[test]
fn zeroes_after_the_last_batch_are_dropped() {
    for zeroes in [1, 8, 5_000, 70_000] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        vote_for(&opened(dir.path()), 1..=3);
        let file = newest_log_file(dir.path());
        let length = fs::metadata(&file).expect("a file").len();
        OpenOptions::new().write(true).open(&file).expect("a file").set_len(length + zeroes).expect("longer");
        let stores = opened(dir.path());
        assert_eq!(votes(&stores), [1, 2, 3], "{zeroes} zeroes");
        vote_for(&stores, 4..=4);
        drop(stores);
        assert_eq!(votes(&opened(dir.path())), [1, 2, 3, 4], "{zeroes} zeroes, once more");
    }
}

/// S-15: catches acknowledged votes that disappear in silence: whichever byte of a log file is
/// damaged (lengths and types included), the start refuses, or all votes are there.
#[test]
fn a_damaged_byte_in_the_log_is_refused() {
    let template = tempfile::tempdir().expect("a temporary directory");
    vote_for(&opened(template.path()), 1..=3);
    let length = usize::try_from(fs::metadata(newest_log_file(template.path())).expect("a file").len()).expect("small");
    let third = length / 3;
    // All bytes of the second record and its neighbours' ends, one value each.
    for at in third - 8..2 * third {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(template.path(), dir.path());
        let file = newest_log_file(dir.path());
        let mut bytes = fs::read(&file).expect("readable");
        bytes[at] ^= 0x55;
        fs::write(&file, bytes).expect("written");
        match try_open(dir.path()) {
            Err(StorageError::Corrupt(text)) => assert!(text.contains("acknowledged writes follow"), "{text}"),
            Err(other) => panic!("byte {at}: {other}"),
            Ok(stores) => panic!("byte {at}: votes {:?} are left", votes(&stores)),
        }
    }
}

/// S-15: catches rot in the last batch that is taken for a torn tail although the batch is whole.
#[test]
fn a_damaged_last_batch_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    vote_for(&opened(dir.path()), 1..=3);
    let file = newest_log_file(dir.path());
    let mut bytes = fs::read(&file).expect("readable");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&file, bytes).expect("written");
    assert!(matches!(try_open(dir.path()), Err(StorageError::Corrupt(_))), "it opened or failed otherwise");
}

/// S-15: catches damage in a table file being taken for absence.
#[test]
fn a_damaged_table_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    vote_for(&opened(dir.path()), 1..=50);
    // A start writes what the log files held into a table.
    drop(opened(dir.path()));
    let tables =
        fs::read_dir(dir.path().join("log")).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut damaged = 0;
    for table in tables.filter(|path| path.extension().is_some_and(|end| end == "sst")) {
        let mut bytes = fs::read(&table).expect("readable");
        for at in 0..bytes.len().min(400) {
            bytes[at] ^= 0x40;
        }
        fs::write(&table, bytes).expect("written");
        damaged += 1;
    }
    assert!(damaged > 0, "there is a table");
    let read = try_open(dir.path()).and_then(|stores| stores.log.load(CommandNumber::NULL).map(|_| ()));
    assert!(matches!(read, Err(StorageError::Corrupt(_))), "{read:?}");
}

/// S-15, A6: catches a log that lost acknowledged batches at its end, or was restored from an
/// older copy, where the state has seen what is missing.
#[test]
fn a_log_older_than_the_state_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let old = tempfile::tempdir().expect("a temporary directory");
    let stores = opened(dir.path());
    vote_for(&stores, 1..=2);
    drop(stores);
    copy(&dir.path().join("log"), &old.path().join("log"));
    let stores = opened(dir.path());
    vote_for(&stores, 3..=3);
    stores.state.apply(&[command(1, &body(1, vec![put("k", "v")]))]).expect("applied");
    drop(stores);
    fs::remove_dir_all(dir.path().join("log")).expect("removed");
    copy(&old.path().join("log"), &dir.path().join("log"));
    let text = try_open(dir.path()).err().expect("it opened").to_string();
    // One start and two votes; then another start and a third vote.
    assert!(text.contains("the log holds 3 writes, but the state has seen 5"), "{text}");
}

/// A6: catches a state that fell below what was synced, and so below what votes may have been
/// discarded for.
#[test]
fn a_state_below_what_was_synced_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let old = tempfile::tempdir().expect("a temporary directory");
    let commands = [command(1, &body(1, vec![put("k", "1")])), command(2, &body(2, vec![put("k", "2")]))];
    let stores = opened(dir.path());
    stores.state.apply(&commands[..1]).expect("applied");
    drop(stores);
    copy(&dir.path().join("state"), &old.path().join("state"));
    let stores = opened(dir.path());
    stores.state.apply(&commands[1..]).expect("applied");
    stores.state.sync().expect("synced");
    drop(stores);
    fs::remove_dir_all(dir.path().join("state")).expect("removed");
    copy(&old.path().join("state"), &dir.path().join("state"));
    let text = try_open(dir.path()).err().expect("it opened").to_string();
    assert!(text.contains("the state ends at command 1, but it was synced up to command 2"), "{text}");
}

/// S-13, S-18, invariant 11: catches a node that goes on although its state lacks commands whose votes it has discarded.
#[test]
fn a_state_below_the_discarded_votes_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = opened(dir.path());
    vote_for(&stores, 1..=3);
    stores.state.apply(&[command(1, &body(1, vec![put("k", "1")]))]).expect("applied");
    stores.log.write(&[LogRecord::Forget(CommandNumber(2))]).expect("written");
    drop(stores);
    let text = try_open(dir.path()).err().expect("it opened").to_string();
    assert!(text.contains("the state ends at command 1, but votes up to command 2 were discarded for it"), "{text}");
}

/// A6, S-14: catches a state that a power cut leaves unusable, or torn inside a batch. The log
/// of the state is not synced, so any part of its end may be missing or wrong.
#[test]
fn an_unsynced_state_falls_back_to_an_earlier_command() {
    let template = tempfile::tempdir().expect("a temporary directory");
    let stores = opened(template.path());
    for number in 1..=6 {
        let effects = vec![put("k", number.to_string()), put(&format!("k{number}"), "v")];
        stores.state.apply(&[command(number, &body(number, effects))]).expect("applied");
        if number == 2 {
            stores.state.sync().expect("synced");
        }
    }
    drop(stores);
    let file_of = |dir: &Path| {
        let files = fs::read_dir(dir.join("state")).expect("a directory").map(|entry| entry.expect("an entry").path());
        files.filter(|path| path.extension().is_some_and(|end| end == "log")).max().expect("a log file")
    };
    let length = usize::try_from(fs::metadata(file_of(template.path())).expect("a file").len()).expect("small");
    let mut seen = Vec::new();
    for at in (length * 2 / 5..length).step_by(37) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(template.path(), dir.path());
        let mut bytes = fs::read(file_of(dir.path())).expect("readable");
        bytes[at] ^= 0x55;
        fs::write(file_of(dir.path()), bytes).expect("written");
        let state = opened(dir.path()).state;
        let applied = state.applied().number.0;
        assert!((2..6).contains(&applied), "byte {at}: at {applied}");
        assert_eq!(state.durable().0, applied, "what a start finds is durable after it");
        let entry = state.get(&key("k")).expect("readable").expect("present");
        assert_eq!((entry.version.0, entry.value), (applied, applied.to_string().into()));
        assert_eq!(state.scan("k", None, 99).expect("readable").len() as u64, applied + 1);
        let commands = state.commands(CommandNumber(1), 99, usize::MAX).expect("readable").expect("kept");
        assert_eq!(commands.len() as u64, applied);
        seen.push(applied);
    }
    assert!(seen.first() < seen.last(), "different places were damaged: {seen:?}");
}

/// S-12: catches a log that works again after a write failed. The directory disappears under
/// it, so that RocksDB cannot make its next file; then it comes back, and nothing is retried.
#[test]
fn the_first_failed_write_latches_the_log_shut() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = open(dir.path(), &identity(), &Options { write_buffer_bytes: 64 << 10, ..Options::default() })
        .expect("the stores open");
    let (log, aside) = (dir.path().join("log"), dir.path().join("aside"));
    fs::rename(&log, &aside).expect("moved");
    let mut first = None;
    for number in 1..20_000 {
        if let Err(reason) = stores.log.write(&[LogRecord::Vote(vote(1, number, "a body"))]) {
            first = Some(reason);
            break;
        }
    }
    let reason = first.expect("a write fails when files cannot be made");
    assert!(matches!(reason, StorageError::Failed(_)), "{reason}");
    fs::rename(&aside, &log).expect("moved back");
    for _ in 0..3 {
        let again = stores.log.write(&[LogRecord::NextBallot(Ballot::new(9, NodeId(1)))]);
        assert_eq!(again, Err(reason.clone()), "the disk is back, the log must not be");
        assert_eq!(stores.log.load(CommandNumber::NULL), Err(reason.clone()));
        assert_eq!(stores.log.write(&[]), Err(reason.clone()));
    }
}

/// S-12: the same for the state, whose writes are not synced.
#[test]
fn the_first_failed_write_latches_the_state_shut() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = open(dir.path(), &identity(), &Options { write_buffer_bytes: 64 << 10, ..Options::default() })
        .expect("the stores open");
    let (state, aside) = (dir.path().join("state"), dir.path().join("aside"));
    fs::rename(&state, &aside).expect("moved");
    let value = "v".repeat(4_096);
    let failed = (1..20_000)
        .find_map(|number| stores.state.apply(&[command(number, &body(number, vec![put("k", value.clone())]))]).err());
    let reason = failed.expect("a write fails when files cannot be made");
    fs::rename(&aside, &state).expect("moved back");
    assert_eq!(stores.state.sync(), Err(reason.clone()));
    assert_eq!(stores.state.apply(&[]), Err(reason.clone()));
    assert_eq!(stores.state.snapshot().err(), Some(reason));
    assert!(stores.state.get(&key("k")).is_err());
    assert_eq!(stores.state.durable().0, 0, "nothing became durable");
}
