//! Each file of the log, damaged at every kind of place while the node is down: the start finds all that was
//! acknowledged, or begins anew. Never fewer votes in silence (S-13, S-15).

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::{Ballot, ClusterId, CommandNumber, NodeId, StateView as _};
use quorate_storage::conformance::{body, command, put, vote};
use quorate_storage::rocksdb::{Options, Stores, open};
use quorate_storage::{Identity, LogImage, LogRecord, LogStore, Standing, StateStore as _, StorageError};
use tempfile::TempDir;

use support::copy;

/// Small tables, so that there are several of them and the file MANIFEST has something to lose.
const BUFFER: usize = 64 << 10;
const BODY: usize = 6 << 10;

fn try_open(dir: &Path) -> Result<Stores, StorageError> {
    let identity =
        Identity { cluster: ClusterId([1; 16]), cluster_name: "shop".into(), node: NodeId(1), node_name: "n1".into() };
    let standing_of_new = Standing::Sound;
    open(dir, &identity, &Options { write_buffer_bytes: BUFFER, standing_of_new, ..Options::default() })
}

/// How a life of a node ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The process closes its files.
    Clean,
    /// The process is gone; what it wrote is there.
    Killed,
}

/// A life of a node: how many votes it casts, and how it ends.
type Life = (u64, End);

/// A directory after such lives, and what it must hold.
struct Made {
    dir: TempDir,
    acknowledged: LogImage,
}

fn after(lives: &[Life]) -> Made {
    let mut dir = tempfile::tempdir().expect("a temporary directory");
    let (mut number, mut acknowledged) = (0, LogImage::default());
    for ((votes, end), round) in lives.iter().zip(1..) {
        let stores = try_open(dir.path()).expect("the stores open");
        if *votes > 0 {
            let promise = Ballot::new(round, NodeId(1));
            stores.log.write(&[LogRecord::LastTried(promise), LogRecord::NextBallot(promise)]).expect("written");
        }
        for _ in 0..*votes {
            number += 1;
            let mut vote = vote(round, number, "");
            vote.command.body = vec![u8::try_from(number % 251).expect("small"); BODY].into();
            stores.log.write(&[LogRecord::Vote(vote)]).expect("written");
        }
        acknowledged = stores.log.load(CommandNumber::NULL).expect("readable");
        if let End::Killed = end {
            let left = tempfile::tempdir().expect("a temporary directory");
            copy(dir.path(), left.path());
            dir = left;
        }
        drop(stores);
    }
    assert_eq!(acknowledged.votes.len() as u64, number, "all that was cast is there before anything is damaged");
    Made { dir, acknowledged }
}

/// A kind of file, by its name in the log's directory; none for those that only people read.
fn kind(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => Some("WAL"),
        Some("sst") => Some("SST"),
        _ => ["MANIFEST", "CURRENT", "OPTIONS", "IDENTITY"].into_iter().find(|kind| name.starts_with(kind)),
    }
}

fn files(made: &Made) -> Vec<(&'static str, PathBuf)> {
    let entries = fs::read_dir(made.dir.path().join("log")).expect("a directory");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().filter_map(|path| Some((kind(&path)?, path))).collect()
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Cut(usize),
    Flip(usize),
    Gone,
}

impl Damage {
    /// So many of each kind, evenly spread.
    fn all(length: usize, times: usize) -> Vec<Self> {
        let step = (length / times).max(1);
        let places = (0..length).step_by(step);
        places.flat_map(|at| [Self::Cut(at), Self::Flip(at)]).chain([Self::Gone]).collect()
    }

    fn make(self, file: &Path) {
        let mut bytes = fs::read(file).expect("readable");
        match self {
            Self::Cut(at) => bytes.truncate(at),
            Self::Flip(at) => bytes[at] ^= 0x10,
            Self::Gone => return fs::remove_file(file).expect("removed"),
        }
        fs::write(file, bytes).expect("written");
    }
}

/// What a start made of the damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// All is there.
    All,
    /// The damage was found: what is damaged was set aside, so that the acceptor is silent.
    Refused,
    /// The end of the last log file is missing, and so is what stood there: nobody can tell that from a write that
    /// was torn before it was acknowledged (module `rocksdb`).
    Torn,
    Silent,
}

fn found(made: &Made, file: &Path, damage: Damage) -> Found {
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy(made.dir.path(), dir.path());
    damage.make(&dir.path().join("log").join(file.file_name().expect("a name")));
    let image = match try_open(dir.path()).and_then(|stores| stores.log.load(CommandNumber::NULL)) {
        Ok(image) => image,
        Err(StorageError::Corrupt(_)) => return Found::Refused,
        Err(other @ (StorageError::Failed(_) | StorageError::Refused(_))) => {
            panic!("{damage:?} of {} is taken for a failing disk, or another version: {other}", file.display())
        }
    };
    let newest = files(made).into_iter().rfind(|(kind, _)| *kind == "WAL").expect("a log file").1;
    let cut = matches!(damage, Damage::Cut(_)) && newest == file;
    let votes = &made.acknowledged.votes;
    if image.standing == Standing::Damaged {
        let acknowledged = &made.acknowledged;
        assert_eq!((image.next_ballot, image.last_tried), (acknowledged.next_ballot, acknowledged.last_tried));
        Found::Refused
    } else if image == made.acknowledged {
        Found::All
    } else if cut && votes.starts_with(&image.votes) {
        Found::Torn
    } else {
        Found::Silent
    }
}

/// Damages every file of the log in many ways, and counts by kind of file what came of it.
fn counts(lives: &[Life]) -> BTreeMap<(&'static str, Found), usize> {
    let made = after(lives);
    let mut counts = BTreeMap::new();
    for (kind, file) in files(&made) {
        let length = usize::try_from(fs::metadata(&file).expect("a file").len()).expect("small");
        for damage in Damage::all(length, if kind == "MANIFEST" { 40 } else { 5 }) {
            let found = found(&made, &file, damage);
            if found == Found::Silent {
                eprintln!("{lives:?}: {damage:?} of {} bytes of {}", length, file.display());
            }
            *counts.entry((kind, found)).or_default() += 1;
        }
    }
    for kind in ["MANIFEST", "WAL", "SST", "CURRENT", "OPTIONS", "IDENTITY"] {
        assert!(counts.keys().any(|(seen, _)| *seen == kind), "there is no {kind} after {lives:?}: {counts:?}");
    }
    counts
}

fn assert_nothing_is_silent(lives: &[Life]) {
    let counts = counts(lives);
    eprintln!("{lives:?}: {counts:?}");
    let silent: usize = counts.iter().filter(|((_, found), _)| *found == Found::Silent).map(|(_, count)| count).sum();
    assert_eq!(silent, 0, "votes or promises were lost in silence: {counts:?}");
    assert!(counts.contains_key(&("MANIFEST", Found::Refused)) && counts.contains_key(&("SST", Found::Refused)));
}

/// Catches votes that are lost in silence when a file of a log was damaged that one process wrote.
#[test]
fn damage_after_one_life_is_found() {
    assert_nothing_is_silent(&[(60, End::Clean)]);
    assert_nothing_is_silent(&[(60, End::Killed)]);
}

/// The same where a later start has moved what it found into tables: what tells tables and log files apart then was
/// written by that start.
#[test]
fn damage_after_several_lives_is_found() {
    assert_nothing_is_silent(&[(8, End::Killed), (3, End::Killed)]);
    assert_nothing_is_silent(&[(30, End::Clean), (0, End::Clean), (30, End::Killed)]);
}

/// The same where the last life cast no vote at all: its start is in the log, so that what it found cannot be cut away
/// from under it.
#[test]
fn damage_after_a_life_without_votes_is_found() {
    assert_nothing_is_silent(&[(20, End::Killed), (0, End::Killed)]);
    assert_nothing_is_silent(&[(20, End::Clean), (0, End::Clean)]);
}

/// A state in which every command puts a key of its own, after lives that each apply so many. Only commands up to
/// `synced` are synced.
fn state_after(lives: &[Life], synced: u64) -> (TempDir, u64) {
    let mut dir = tempfile::tempdir().expect("a temporary directory");
    let mut number = 0;
    for (commands, end) in lives {
        let stores = try_open(dir.path()).expect("the stores open");
        for _ in 0..*commands {
            number += 1;
            stores.log.write(&[LogRecord::Vote(vote(1, number, ""))]).expect("written");
            let effects = vec![put(&format!("k{number:03}"), "v".repeat(BODY))];
            stores.state.apply(&[command(number, &body(number, effects))]).expect("applied");
            if number <= synced {
                stores.state.sync().expect("synced");
            }
        }
        if let End::Killed = end {
            let left = tempfile::tempdir().expect("a temporary directory");
            copy(dir.path(), left.path());
            dir = left;
        }
        drop(stores);
    }
    (dir, number)
}

/// What starts made of damage to each file of a state, by kind of file. An earlier state than the last is `Torn`, if it is
/// one that was and is not below what was synced.
fn counts_of_state(lives: &[Life], synced: u64) -> BTreeMap<(&'static str, Found), usize> {
    let (made, number) = state_after(lives, synced);
    let mut counts = BTreeMap::new();
    let entries = fs::read_dir(made.path().join("state")).expect("a directory");
    for file in entries.map(|entry| entry.expect("an entry").path()) {
        let Some(kind) = kind(&file) else { continue };
        let length = usize::try_from(fs::metadata(&file).expect("a file").len()).expect("small");
        for damage in Damage::all(length, if kind == "MANIFEST" { 16 } else { 3 }) {
            let dir = tempfile::tempdir().expect("a temporary directory");
            copy(made.path(), dir.path());
            damage.make(&dir.path().join("state").join(file.file_name().expect("a name")));
            let read = try_open(dir.path()).and_then(|stores| {
                let keys =
                    stores.state.scan("k", None, 1_000).map_err(|error| StorageError::Corrupt(error.to_string()))?;
                Ok((stores.state.applied().number.0, keys.len() as u64))
            });
            let found = match read {
                Ok(_) if set_aside(dir.path()) => Found::Refused,
                Ok((applied, keys)) if applied == keys && applied == number => Found::All,
                Ok((applied, keys)) if applied == keys && applied >= synced => Found::Torn,
                Ok((applied, keys)) => {
                    eprintln!("{lives:?} {kind} {damage:?} of {length}: at {applied}, {keys} keys");
                    Found::Silent
                }
                Err(StorageError::Corrupt(_)) => Found::Refused,
                Err(other) => panic!("{damage:?} of {} is not taken for damage: {other}", file.display()),
            };
            *counts.entry((kind, found)).or_default() += 1;
        }
    }
    eprintln!("{lives:?}, {synced} synced: {counts:?}");
    counts
}

fn set_aside(dir: &Path) -> bool {
    let mut entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    entries.any(|name| name.to_string_lossy().starts_with("state.damaged"))
}

/// S-13, S-15: catches a state that is a mixture of an older and a newer one, or below what was synced, after damage to one
/// of its files.
#[test]
fn damage_to_the_state_is_found() {
    for lives in [&[(60, End::Killed)][..], &[(30, End::Killed), (6, End::Clean)]] {
        let counts = counts_of_state(lives, 60);
        assert!(!counts.keys().any(|(_, found)| [Found::Silent, Found::Torn].contains(found)), "{counts:?}");
    }
}

/// S-14: the same where nothing was synced: a power cut may take the end of one log file and leave the next one. Catches a
/// start that goes on behind the hole, and one that refuses what is honest.
#[test]
fn a_state_with_a_hole_ends_there() {
    let counts = counts_of_state(&[(15, End::Killed)], 0);
    assert!(!counts.keys().any(|(_, found)| *found == Found::Silent), "{counts:?}");
    assert!(counts.contains_key(&("WAL", Found::Torn)), "{counts:?}");
}
