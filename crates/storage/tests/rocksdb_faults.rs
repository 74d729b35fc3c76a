//! RocksDB when things go wrong: directories of others, torn and damaged files, lost parts,
//! failing disks.

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use protocol::{Ballot, ClusterId, CommandNumber, NodeId, Position, StateView};
use quorate_storage::conformance::{body, command, key, put, vote};
use quorate_storage::rocksdb::{Condition, DiskId, Noted, Options, Stores, condition, open};
use quorate_storage::{Identity, LogRecord, LogStore, Standing, StateStore, StorageError};

use support::copy;

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

/// A directory that has promised, voted and applied something.
fn used(dir: &Path) {
    let stores = opened(dir);
    let marked = [LogRecord::LastTried(TRIED), LogRecord::NextBallot(PROMISE), LogRecord::VotedUnder(UNDER)];
    stores.log.write(&marked).expect("written");
    vote_for(&stores, 1..=3);
    stores.state.apply(&[command(1, &body(1, vec![put("k", "v")]))]).expect("applied");
    stores.state.sync().expect("synced");
    stores.log.write(&[LogRecord::Standing(Standing::Sound)]).expect("written");
}

const TRIED: Ballot = Ballot { round: 7, node: NodeId(1) };
const PROMISE: Ballot = Ballot { round: 9, node: NodeId(3) };
const UNDER: CommandNumber = CommandNumber(1);

/// That the log lost votes and says so, and nothing else.
fn assert_damaged(stores: &Stores) {
    let image = stores.log.load(CommandNumber::NULL).expect("readable");
    assert_eq!((image.last_tried, image.next_ballot, image.voted_under), (TRIED, PROMISE, UNDER), "the mark has them");
    assert_eq!((image.standing, image.votes), (Standing::Damaged, Vec::new()));
    assert_eq!(stores.log.mark().votes_lost, PROMISE);
}

fn assert_state_is_new(stores: &Stores) {
    assert_eq!((stores.state.applied().number.0, stores.state.durable().0), (0, 0));
    assert_eq!(stores.state.get(&key("k")), Ok(None));
}

/// S-15, S-13: catches a node that votes after it lost its log as if it had not, forgets its promise, goes on with a
/// state that is gone, or takes a lost database for a new one.
#[test]
fn a_lost_database_begins_anew_and_says_so() {
    for lost in [&["log"][..], &["state"], &["log", "state"]] {
        for with_identity_file in [true, false] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            used(dir.path());
            lost.iter().for_each(|lost| fs::remove_dir_all(dir.path().join(lost)).expect("removed"));
            if !with_identity_file {
                fs::remove_file(dir.path().join("IDENTITY")).expect("removed");
            }
            // Twice: the second start must not take the damage for mended.
            for _ in 0..2 {
                let stores = opened(dir.path());
                if lost.contains(&"log") {
                    assert_damaged(&stores);
                } else {
                    assert_eq!(votes(&stores), [1, 2, 3]);
                    assert_eq!(stores.log.load(CommandNumber::NULL).expect("readable").standing, Standing::Sound);
                }
                if lost.contains(&"state") {
                    assert_state_is_new(&stores);
                } else {
                    assert_eq!(stores.state.applied().number.0, 1);
                }
            }
        }
    }
}

/// S-13: catches a node without log and mark that begins as if it had never voted, however often it is started.
#[test]
fn a_node_without_log_and_mark_is_refused() {
    for mark in [None, Some(&b"0123456789"[..]), Some(&b""[..])] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        used(dir.path());
        fs::remove_dir_all(dir.path().join("log")).expect("removed");
        match mark {
            Some(bytes) => fs::write(dir.path().join("MARK"), bytes).expect("written"),
            None => fs::remove_file(dir.path().join("MARK")).expect("removed"),
        }
        for _ in 0..3 {
            let text = refused(dir.path(), &identity());
            assert!(text.contains("has lost what this node has promised and voted for"), "{text}");
            assert!(text.contains("run `quorate recover`"), "{text}");
        }
    }
}

/// Catches a node that needs the file of its mark although the log has all of it, or reads a damaged one.
#[test]
fn a_lost_mark_is_made_again_from_the_log() {
    for mark in [None, Some(&b"0123456789"[..])] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        used(dir.path());
        let before = opened(dir.path()).log.mark();
        match mark {
            Some(bytes) => fs::write(dir.path().join("MARK"), bytes).expect("written"),
            None => fs::remove_file(dir.path().join("MARK")).expect("removed"),
        }
        for starts in 1..=2 {
            let stores = opened(dir.path());
            assert_eq!(votes(&stores), [1, 2, 3]);
            let mark = stores.log.mark();
            assert_eq!((mark.disk, mark.starts), (before.disk, before.starts + starts));
            assert_eq!((mark.next_ballot, mark.standing), (PROMISE, Standing::Sound));
            assert!(dir.path().join("MARK").exists());
        }
    }
}

/// Catches a node that is its whole cluster and gives away what nobody else has.
#[test]
fn a_node_that_is_alone_does_not_begin_anew() {
    for lost in ["log", "state"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        used(dir.path());
        fs::remove_dir_all(dir.path().join(lost)).expect("removed");
        for _ in 0..2 {
            let opened = open(dir.path(), &identity(), &Options { alone: true, ..Options::default() });
            let text = opened.err().expect("it opened").to_string();
            assert!(text.contains("quorate restore"), "{text}");
        }
    }
}

/// Catches a mark that forgets what it was told, tells two starts of copies apart by nothing, or lets a disk be used
/// that the others have refused.
#[test]
fn a_mark_keeps_peers_and_refusals() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let peer = Noted { disk: DiskId([4; 16]), starts: 3, run: 5, promise: PROMISE };
    let first = {
        let log = opened(dir.path()).log;
        log.note_peer(NodeId(2), peer.clone()).expect("noted");
        log.mark()
    };
    assert_eq!((first.starts, first.standing), (1, Standing::Fresh));
    let copy = tempfile::tempdir().expect("a temporary directory");
    self::copy(dir.path(), copy.path());
    let second = opened(dir.path()).log.mark();
    let other = opened(copy.path()).log.mark();
    assert_eq!((second.disk, second.starts, second.peers.get(&NodeId(2))), (first.disk, 2, Some(&peer)));
    assert_eq!((other.disk, other.starts), (second.disk, second.starts));
    assert_ne!(other.run, second.run);
    opened(dir.path()).log.note_refused("it is an old one").expect("noted");
    for lost in ["nothing", "log", "MARK"] {
        let _ = fs::remove_dir_all(dir.path().join(lost));
        let _ = fs::remove_file(dir.path().join(lost));
        if lost == "MARK" {
            break;
        }
        let text = refused(dir.path(), &identity());
        assert!(text.contains("refused the data directory") && text.contains("it is an old one"), "{text}");
    }
}

/// S-15: catches a log file that was removed whole and is not missed.
#[test]
fn a_lost_log_file_is_missed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    used(dir.path());
    drop(opened(dir.path()));
    fs::remove_file(newest_log_file(dir.path())).expect("removed");
    assert_damaged(&opened(dir.path()));
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
/// damaged (lengths and types included), the log begins anew and says so.
#[test]
fn a_damaged_byte_in_the_log_is_found() {
    let template = tempfile::tempdir().expect("a temporary directory");
    used(template.path());
    let length = usize::try_from(fs::metadata(newest_log_file(template.path())).expect("a file").len()).expect("small");
    let third = length / 3;
    // Bytes of all kinds, in the middle of the file, one value each.
    for at in (third - 8..2 * third).step_by(5) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(template.path(), dir.path());
        let file = newest_log_file(dir.path());
        let mut bytes = fs::read(&file).expect("readable");
        bytes[at] ^= 0x55;
        fs::write(&file, bytes).expect("written");
        assert_damaged(&opened(dir.path()));
    }
}

/// S-15: catches rot in the last batch that is taken for a torn tail although the batch is whole.
#[test]
fn a_damaged_last_batch_is_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    used(dir.path());
    let file = newest_log_file(dir.path());
    let mut bytes = fs::read(&file).expect("readable");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&file, bytes).expect("written");
    assert_damaged(&opened(dir.path()));
}

/// S-15: catches damage in a table file being taken for absence.
#[test]
fn a_damaged_table_is_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    used(dir.path());
    vote_for(&opened(dir.path()), 4..=50);
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
    assert_eq!(condition(dir.path(), &identity()), Ok(Condition::Usable));
    assert!(!dir.path().join("DAMAGED-log").exists(), "to look into it changes nothing");
    assert_damaged(&opened(dir.path()));
    let aside = fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    assert_eq!(aside.filter(|name| name.to_string_lossy().starts_with("log.damaged-")).count(), 1, "it is kept");
}

/// Catches a start that refuses a disk of which the next start, and `quorate recover`, say that it heals: a table of the log
/// is damaged, and the file of the mark as well, of which the log still has all; and one that goes on where the log has lost its
/// end, and so perhaps what the mark had.
#[test]
fn a_lost_mark_and_a_damaged_table_heal_at_once() {
    for (marker, end) in [(false, "whole"), (true, "whole"), (false, "lost")] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        used(dir.path());
        vote_for(&opened(dir.path()), 4..=400);
        // A start writes what the log files held into a table.
        drop(opened(dir.path()));
        let log = dir.path().join("log");
        let files = || fs::read_dir(&log).expect("a directory").map(|entry| entry.expect("an entry").path());
        let tables: Vec<PathBuf> = files().filter(|path| path.extension().is_some_and(|end| end == "sst")).collect();
        let largest = tables.iter().max_by_key(|path| fs::metadata(path).expect("there").len()).expect("a table");
        // In the middle: the mark lies before the votes.
        let mut bytes = fs::read(largest).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle..middle + 40].iter_mut().for_each(|byte| *byte ^= 0x40);
        fs::write(largest, bytes).expect("written");
        fs::write(dir.path().join("MARK"), b"0123456789").expect("written");
        if marker {
            fs::write(dir.path().join("DAMAGED-log"), "a running node has met it\n").expect("written");
        }
        if end == "lost" {
            files().filter(|path| path.extension().is_some_and(|end| end == "log")).for_each(|file| {
                fs::remove_file(file).expect("removed");
            });
        }
        let found = condition(dir.path(), &identity()).expect("readable");
        if end == "lost" {
            assert!(matches!(found, Condition::Lost(_)), "{found:?}");
            assert!(refused(dir.path(), &identity()).contains("run `quorate recover`"));
            continue;
        }
        assert_eq!(found, Condition::Usable);
        let promise = opened(dir.path()).log.mark().next_ballot;
        assert_eq!(promise, PROMISE);
        assert_damaged(&opened(dir.path()));
    }
}

/// Damages the beginning of each table of a database.
fn damage_tables(database: &Path) {
    let files = fs::read_dir(database).expect("a directory").map(|entry| entry.expect("an entry").path());
    for table in files.filter(|path| path.extension().is_some_and(|end| end == "sst")) {
        let mut bytes = fs::read(&table).expect("readable");
        bytes[..40].iter_mut().for_each(|byte| *byte ^= 0x40);
        fs::write(&table, bytes).expect("written");
    }
}

/// S-15: catches damage that a running node meets and the next start does not know of: a read fails, the store is shut,
/// and the next start begins the state anew, once.
#[test]
fn damage_that_a_running_node_meets_is_mended_by_the_next_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    used(dir.path());
    // A start writes what the files of the state's log held into tables.
    drop(opened(dir.path()));
    let stores = opened(dir.path());
    damage_tables(&dir.path().join("state"));
    let mut failed = stores.state.get(&key("k")).is_err();
    failed |= stores.state.commands(CommandNumber(1), 9, 999).is_err();
    assert!(failed, "nothing of it was in a cache");
    assert!(dir.path().join("DAMAGED-state").exists());
    drop(stores);
    for _ in 0..2 {
        let stores = opened(dir.path());
        assert_state_is_new(&stores);
        assert_eq!(votes(&stores), [1, 2, 3], "the log is whole");
        assert!(!dir.path().join("DAMAGED-state").exists());
    }
}

/// S-15: catches damage that is met through a checkpoint, for a peer or a backup, and told to nobody: the node lives on
/// with a state that it cannot give away, or ends, starts again as if nothing was, and ends at the next question.
#[test]
fn damage_that_is_met_through_a_checkpoint_is_damage_of_the_state() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    used(dir.path());
    // A start writes what the files of the state's log held into tables.
    drop(opened(dir.path()));
    let stores = opened(dir.path());
    let checkpoint = stores.state.checkpoint().expect("a checkpoint");
    assert_eq!(stores.failure(), None);
    damage_tables(&dir.path().join("state"));
    let read = checkpoint.piece(&Position::default(), 999);
    assert!(matches!(read, Err(StorageError::Corrupt(_))), "{read:?}");
    assert!(matches!(stores.failure(), Some(StorageError::Corrupt(_))), "the node goes on with it");
    assert!(dir.path().join("DAMAGED-state").exists());
    drop((checkpoint, stores));
    let stores = opened(dir.path());
    assert_state_is_new(&stores);
    assert_eq!(votes(&stores), [1, 2, 3], "the log is whole");
    assert!(!dir.path().join("DAMAGED-state").exists());
}

/// S-15, A6: catches a log that lost acknowledged batches at its end, or was restored from an
/// older copy, where the mark or the state has seen what is missing.
#[test]
fn an_older_log_is_found_out() {
    for by_the_mark in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let old = tempfile::tempdir().expect("a temporary directory");
        used(dir.path());
        let stores = opened(dir.path());
        vote_for(&stores, 4..=4);
        if !by_the_mark {
            copy(&dir.path().join("log"), &old.path().join("log"));
        }
        vote_for(&stores, 5..=5);
        stores.state.apply(&[command(2, &body(2, vec![put("k", "w")]))]).expect("applied");
        drop(stores);
        if by_the_mark {
            copy(&dir.path().join("log"), &old.path().join("log"));
            // The last change of the mark alone is missing.
            drop(opened(dir.path()));
        }
        fs::remove_dir_all(dir.path().join("log")).expect("removed");
        copy(&old.path().join("log"), &dir.path().join("log"));
        assert_damaged(&opened(dir.path()));
    }
}

/// A6: catches a state that fell below what was synced, and goes on as if it had not.
#[test]
fn a_state_below_what_was_synced_begins_anew() {
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
    for _ in 0..2 {
        assert_state_is_new(&opened(dir.path()));
    }
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

/// What a start made of a damaged directory.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Opened {
    Whole,
    /// Votes are lost, or the state, or both, and the stores say so.
    Damaged,
    Refused,
}

/// That nothing is lost in silence: votes only where the log is damaged, the promise never, the state only whole.
fn judge(dir: &Path, what: &str) -> Opened {
    let stores = match try_open(dir) {
        Ok(stores) => stores,
        Err(StorageError::Refused(text) | StorageError::Failed(text) | StorageError::Corrupt(text)) => {
            assert!(!text.is_empty(), "{what}");
            return Opened::Refused;
        }
    };
    let image = stores.log.load(CommandNumber::NULL).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((image.last_tried, image.next_ballot), (TRIED, PROMISE), "{what}");
    let numbers: Vec<u64> = image.votes.iter().map(|vote| vote.command.number().0).collect();
    let applied = stores.state.applied().number.0;
    assert!(applied == 0 || applied >= 40, "{what}: the state is at {applied}, and was synced at 40");
    match image.standing {
        Standing::Sound => {
            assert_eq!(numbers, (1..=60).collect::<Vec<_>>(), "{what}: votes are lost in silence");
            if applied == 0 { Opened::Damaged } else { Opened::Whole }
        }
        Standing::Damaged => Opened::Damaged,
        Standing::Fresh | Standing::Replaced => panic!("{what}: it is not a new one"),
    }
}

/// S-15, ALICE: catches any file of any kind whose damage, a flipped byte or a cut, loses votes, the promise or the
/// state in silence. Each file of a directory is damaged at several places.
#[test]
fn whatever_file_is_damaged_nothing_is_lost_in_silence() {
    let template = tempfile::tempdir().expect("a temporary directory");
    let stores = opened(template.path());
    stores.log.write(&[LogRecord::LastTried(TRIED), LogRecord::NextBallot(PROMISE)]).expect("written");
    stores.log.write(&[LogRecord::Standing(Standing::Sound)]).expect("written");
    vote_for(&stores, 1..=30);
    (1..=20).for_each(|n| stores.state.apply(&[command(n, &body(n, vec![put("k", "v")]))]).expect("applied"));
    drop(stores);
    let stores = opened(template.path());
    vote_for(&stores, 31..=60);
    (21..=40).for_each(|n| stores.state.apply(&[command(n, &body(n, vec![put("k", "v")]))]).expect("applied"));
    stores.state.sync().expect("synced");
    // The log of a state is not synced with each command: what follows may be lost, and so may its end be damaged.
    (41..=50).for_each(|n| stores.state.apply(&[command(n, &body(n, vec![put("k", "v")]))]).expect("applied"));
    drop(stores);

    let mut files = Vec::new();
    list(template.path(), &mut files);
    files.sort();
    let mut outcomes = std::collections::BTreeMap::new();
    let mut silent = Vec::new();
    for file in &files {
        let name = file.strip_prefix(template.path()).expect("below it");
        let length = usize::try_from(fs::metadata(file).expect("a file").len()).expect("small");
        if ["LOCK", "LOG"].iter().any(|own| name.file_name().is_some_and(|name| name == *own)) || length == 0 {
            continue;
        }
        let places = [0, length / 5, length / 2, length * 4 / 5, length - 1];
        for (place, cut) in places.into_iter().flat_map(|place| [(place, true), (place, false)]) {
            let dir = tempfile::tempdir().expect("a temporary directory");
            copy(template.path(), dir.path());
            let mut bytes = fs::read(file).expect("readable");
            if cut {
                bytes.truncate(place)
            } else {
                bytes[place] ^= 0x55
            }
            fs::write(dir.path().join(name), bytes).expect("written");
            let what = format!("{} {} at {place} of {length}", name.display(), if cut { "cut" } else { "flipped" });
            match std::panic::catch_unwind(|| judge(dir.path(), &what)) {
                Ok(outcome) => *outcomes.entry(outcome).or_insert(0) += 1,
                Err(_) => silent.push(what),
            }
        }
    }
    println!("{outcomes:?} of {} files", files.len());
    assert!(silent.is_empty(), "{silent:#?}");
    assert!(outcomes[&Opened::Damaged] > 20 && outcomes.contains_key(&Opened::Whole), "{outcomes:?}");
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}
