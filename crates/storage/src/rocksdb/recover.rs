//! A data directory that must not be used any more is emptied, so that its node joins its cluster as a new one.
//!
//! What was there is set aside, into `before-recovery-N`. The file `RECOVERING` stands there from the first step to the
//! last; while it does, nothing opens the directory, and another recovery, of the same node, goes on with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protocol::{ClusterId, NodeId};

use super::database::Database;
use super::log::RocksLog;
use super::mark::{self, Found, Mark, sync_directory, write_whole};
use super::meaning::may_exist;
use super::mend::{Part, step};
use super::open::{LOCK, LOG, Options, check_log_of_mark, make_and_lock, open_log_read_only, open_state_read_only};
use super::opening::{another, check_owners, mark_of_another};
use super::state::RocksState;
use super::versioned::{with_format, without_format};
use crate::{Identity, Standing, StorageError};

/// There while a directory is being replaced: see [`Begun`].
const RECOVERING: &str = "RECOVERING";
/// What begins the names of what was set aside.
const ASIDE: &str = "before-recovery-";
/// What stays: it belongs to the cluster, or to the file system.
const STAYS: [&str; 5] = [LOCK, RECOVERING, "JOINING", "ORIGIN", "lost+found"];

/// What there is to recover from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It, or the state in it, is that of another node or cluster, as this says.
    Another(String),
    /// There is nothing.
    Absent,
    /// A new disk, with which this node has not said anything yet.
    NotAdmitted,
    /// The other nodes have refused it, for this reason.
    Refused(String),
    /// It has lost what must not be lost, and how.
    Lost(String),
    /// A recovery was cut short.
    CutShort,
    /// A node can use it, and heals by itself where it is damaged.
    Usable,
    /// It has been recovered already.
    Replaced,
}

/// Says what there is, and changes nothing.
///
/// # Errors
/// [`StorageError`] when another process holds the directory, or it cannot be read.
pub fn condition(dir: &Path, identity: &Identity) -> Result<Condition, StorageError> {
    let failed = |error: io::Error| StorageError::Failed(format!("looking into {}: {error}", dir.display()));
    if !dir.try_exists().map_err(failed)? {
        return Ok(Condition::Absent);
    }
    let _lock = make_and_lock(dir)?;
    if let Some(begun) = Begun::read(dir).map_err(failed)? {
        return Ok(match begun.owner {
            Some(owner) if owner != *identity => Condition::Another(another(dir, &owner, identity).to_string()),
            Some(_) | None => Condition::CutShort,
        });
    }
    if entries(dir).map_err(failed)?.is_empty() {
        return Ok(Condition::Absent);
    }
    // What is damaged, or not there, may heal: a start that can use the rest of it says what it has lost.
    let (log, state) = (open_log_read_only(dir), open_state_read_only(dir));
    let (on_file, file) = match mark::read(dir)? {
        Found::Whole(mark) => (Some(mark), "there"),
        Found::Nothing => (None, "not there"),
        Found::Unreadable(_) => (None, "not readable"),
    };
    let is_ours = on_file.is_some();
    let in_log = check_log_of_mark(dir, &Options::default());
    let in_log = in_log.and_then(|()| log.as_ref().map_err(Clone::clone).and_then(mark_in));
    let of_two = matches!((&on_file, &in_log), (Some(on_file), Ok(in_log)) if on_file.disk != in_log.disk);
    let mark = match on_file.map_or(in_log, Ok) {
        Ok(mark) => mark,
        Err(StorageError::Corrupt(why) | StorageError::Failed(why)) => {
            return Ok(Condition::Lost(format!("the file MARK is {file}, and {why}")));
        }
        Err(error @ StorageError::Refused(_)) => return Err(error),
    };
    let log = log.and_then(|log| RocksLog::identity_in(&log)).ok().flatten().and_then(Result::ok);
    if mark.identity != *identity {
        let another = mark_of_another(dir, &mark.identity, identity, log.as_ref());
        return Ok(Condition::Another(another.to_string()));
    }
    if let Some(why) = mark.refused {
        return Ok(Condition::Refused(why));
    }
    let state = state.and_then(|state| RocksState::identity_in(&state)).ok().flatten().and_then(Result::ok);
    match check_owners(dir, identity, is_ours, log.as_ref(), state.as_ref()) {
        Err((Part::Log, error)) => return Ok(Condition::Lost(error.to_string())),
        Err((Part::State, error)) => return Ok(Condition::Another(error.to_string())),
        Ok(()) if of_two => return Ok(Condition::Lost("MARK and the database `log` are of two disks".to_owned())),
        Ok(()) => {}
    }
    Ok(match mark.standing {
        Standing::Fresh => Condition::NotAdmitted,
        Standing::Replaced => Condition::Replaced,
        Standing::Sound | Standing::Damaged => Condition::Usable,
    })
}

/// The mark that a log has.
fn mark_in(log: &Database) -> Result<Mark, StorageError> {
    if let Some(mark) = RocksLog::mark_in(log)? {
        return Ok(mark);
    }
    // One of an earlier version.
    match RocksLog::identity_in(log)? {
        Some(Ok(whose)) => Ok(Mark::new(whose, Standing::Sound)),
        Some(Err(_)) | None => Err(StorageError::Corrupt("the database `log` holds nothing".to_owned())),
    }
}

/// The mark that says whose directory it is, as far as it can be read.
///
/// # Errors
/// [`StorageError`] when a newer version has written it.
pub fn mark_of(dir: &Path) -> Result<Option<Mark>, StorageError> {
    if let Found::Whole(mark) = mark::read(dir)? {
        return Ok(Some(mark));
    }
    if !may_exist(&dir.join(LOG)) {
        return Ok(None);
    }
    Ok(open_log_read_only(dir).and_then(|log| mark_in(&log)).ok())
}

/// Who this node was when a recovery began that was cut short: what else says so may have been moved by then.
///
/// # Errors
/// [`StorageError`] when the file `RECOVERING` cannot be read.
pub fn recovering(dir: &Path) -> Result<Option<Identity>, StorageError> {
    let failed = |error: io::Error| StorageError::Failed(format!("looking into {}: {error}", dir.display()));
    Ok(Begun::read(dir).map_err(failed)?.and_then(|begun| begun.owner))
}

/// Sets aside what is there. Returns where it is, if there was anything.
///
/// # Errors
/// [`StorageError`]; afterwards this can be tried again.
pub fn set_aside(dir: &Path, identity: &Identity) -> Result<Option<PathBuf>, StorageError> {
    let _lock = make_and_lock(dir)?;
    let failed =
        |error: io::Error| StorageError::Failed(format!("setting aside what is in {}: {error}", dir.display()));
    let begun = match Begun::read(dir).map_err(failed)? {
        Some(Begun { owner: Some(owner), .. }) if owner != *identity => return Err(another(dir, &owner, identity)),
        Some(begun) => begun,
        None => Begun::begin(dir, identity).map_err(failed)?,
    };
    let aside = move_aside(dir, &begun.aside).map_err(failed)?;
    step().map_err(failed)?;
    fs::remove_file(dir.join(RECOVERING)).map_err(failed)?;
    sync_directory(dir).map_err(failed)?;
    Ok(aside)
}

/// Removes what a node has left there that has left its cluster, `last` last: who is cut short finds that still there.
///
/// # Errors
/// [`StorageError`] when another process holds the directory, or the disk fails.
pub fn discard(dir: &Path, last: &str) -> Result<(), StorageError> {
    let _lock = make_and_lock(dir)?;
    let failed = |error: io::Error| StorageError::Failed(format!("emptying {}: {error}", dir.display()));
    let (last, rest): (Vec<String>, Vec<String>) =
        entries(dir).map_err(failed)?.into_iter().partition(|name| name == last);
    for name in rest.into_iter().chain(last) {
        sync_directory(dir).map_err(failed)?;
        let path = dir.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.map_err(failed)?;
    }
    sync_directory(dir).map_err(failed)
}

/// Refuses a directory whose recovery was cut short.
///
/// # Errors
/// [`StorageError::Refused`] says what to do.
pub fn check_recovered(dir: &Path) -> Result<(), StorageError> {
    if may_exist(&dir.join(RECOVERING)) {
        return Err(StorageError::Refused(format!(
            "a recovery of the data directory {} was cut short; run `quorate recover` again with the same configuration",
            dir.display()
        )));
    }
    Ok(())
}

/// Of the file `RECOVERING`; 1 had no line that says so.
const FORMAT: u32 = 2;

/// What the file `RECOVERING` says, a line each.
struct Begun {
    /// Where the old content goes.
    aside: String,
    /// Who began: nobody else goes on. `None`: an earlier version, which did not say.
    owner: Option<Identity>,
}

impl Begun {
    fn read(dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(dir.join(RECOVERING)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Self::parse(&text).map(Some)
    }

    fn parse(text: &str) -> io::Result<Self> {
        let mut lines = without_format(RECOVERING, FORMAT, text)?.lines();
        let aside = lines.next().filter(|name| name.starts_with(ASIDE) && !name.contains('/'));
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidData, format!("the file {RECOVERING} cannot be understood"));
        let aside = aside.ok_or_else(wrong)?.to_owned();
        let owner = match [(); 4].map(|()| lines.next()) {
            [Some(cluster), Some(cluster_name), Some(node), Some(node_name)] => {
                let id = u128::from_str_radix(cluster, 16).map_err(|_| wrong())?;
                Some(Identity {
                    cluster: ClusterId(id.to_be_bytes()),
                    cluster_name: cluster_name.to_owned(),
                    node: NodeId(node.parse().map_err(|_| wrong())?),
                    node_name: node_name.to_owned(),
                })
            }
            _ => None,
        };
        Ok(Self { aside, owner })
    }

    /// Durable before anything is moved.
    fn begin(dir: &Path, identity: &Identity) -> io::Result<Self> {
        let free = (1_u64..).map(|number| format!("{ASIDE}{number}")).find(|name| !dir.join(name).exists());
        let aside = free.expect("there are more numbers than directories");
        let Identity { cluster, cluster_name, node, node_name } = identity;
        let text = format!("{aside}\n{cluster}\n{cluster_name}\n{}\n{node_name}\n", node.0);
        write_whole(dir, RECOVERING, with_format(FORMAT, &text).as_bytes())?;
        Ok(Self { aside, owner: Some(identity.clone()) })
    }
}

/// Moves the old content, each part once.
fn move_aside(dir: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    step()?;
    let aside = dir.join(name);
    fs::create_dir_all(&aside)?;
    sync_directory(dir)?;
    let mut moved = fs::read_dir(&aside)?.next().is_some();
    for name in entries(dir)? {
        step()?;
        let (from, to) = (dir.join(&name), aside.join(&name));
        if !to.try_exists()? {
            fs::rename(&from, &to)?;
            moved = true;
        } else if from.is_dir() {
            fs::remove_dir_all(&from)?;
        } else {
            fs::remove_file(&from)?;
        }
    }
    sync_directory(&aside)?;
    sync_directory(dir)?;
    if !moved {
        fs::remove_dir(&aside)?;
    }
    Ok(moved.then_some(aside))
}

/// The names of what is to be replaced.
fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !STAYS.contains(&name.as_str()) && !name.starts_with(ASIDE) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use protocol::Ballot;

    use super::*;
    use crate::rocksdb::mend::cut;
    use crate::rocksdb::open;
    use crate::{LogImage, LogRecord, LogStore as _};

    fn identity() -> Identity {
        Identity { cluster: ClusterId([1; 16]), cluster_name: "test".into(), node: NodeId(1), node_name: "n1".into() }
    }

    fn used(dir: &Path) {
        let stores = open(dir, &identity(), &Options::default()).expect("it opens");
        let promise = LogRecord::NextBallot(Ballot::new(9, NodeId(3)));
        stores.log.write(&[LogRecord::Standing(Standing::Sound), promise]).expect("written");
    }

    /// Catches a recovery that is cut short and leaves a directory that a node would use, loses what was there,
    /// cannot be finished, or is finished for a node of another cluster.
    #[test]
    fn a_recovery_can_be_cut_short_anywhere() {
        for steps in 0.. {
            let dir = tempfile::tempdir().expect("a temporary directory");
            used(dir.path());
            fs::write(dir.path().join("ORIGIN"), "of the cluster").expect("written");
            cut::after(Some(steps));
            let done = set_aside(dir.path(), &identity());
            cut::after(None);
            if done.is_err() {
                let served = open(dir.path(), &identity(), &Options::default());
                assert!(matches!(served, Err(StorageError::Refused(_))), "after {steps} steps");
                assert_eq!(condition(dir.path(), &identity()), Ok(Condition::CutShort));
                let other = Identity { cluster: ClusterId([2; 16]), cluster_name: "other".into(), ..identity() };
                assert!(matches!(condition(dir.path(), &other), Ok(Condition::Another(_))), "after {steps} steps");
                let taken = set_aside(dir.path(), &other);
                assert!(matches!(taken, Err(StorageError::Refused(_))), "after {steps} steps: {taken:?}");
                set_aside(dir.path(), &identity()).expect("the second time");
            }
            let old = dir.path().join("before-recovery-1");
            let Ok(Found::Whole(mark)) = mark::read(&old) else { panic!("after {steps} steps: the old mark is lost") };
            assert_eq!(mark.next_ballot, Ballot::new(9, NodeId(3)));
            assert!(old.join("log").exists() && old.join("state").exists() && dir.path().join("ORIGIN").exists());
            assert_eq!(condition(dir.path(), &identity()), Ok(Condition::Absent));
            let stores = open(dir.path(), &identity(), &Options::default()).expect("it opens");
            let image = stores.log.load(protocol::CommandNumber::NULL).expect("readable");
            assert_eq!(image, LogImage { standing: Standing::Fresh, ..LogImage::default() });
            assert_ne!(stores.log.mark().disk, mark.disk);
            if done.is_ok() {
                assert!(steps >= 5, "only {steps} steps");
                return;
            }
        }
    }

    /// S-33: catches a version that cannot finish what an earlier one began, be it one that did not say who, that writes this
    /// version's file differently, or that goes on with what a later one began.
    #[test]
    fn recorded_files_are_read_and_written_as_ever() {
        let first = include_str!("../../tests/golden/recovering-1");
        let second = include_str!("../../tests/golden/recovering-2");
        for recorded in [first, second] {
            let begun = Begun::parse(recorded).expect("readable");
            assert_eq!((begun.aside.as_str(), begun.owner), ("before-recovery-1", Some(identity())));
        }
        let unsaid = Begun::parse("before-recovery-3\n").expect("readable");
        assert_eq!((unsaid.aside.as_str(), unsaid.owner), ("before-recovery-3", None));
        let dir = tempfile::tempdir().expect("a temporary directory");
        Begun::begin(dir.path(), &identity()).expect("written");
        assert_eq!(fs::read_to_string(dir.path().join(RECOVERING)).expect("there"), second);
        assert_eq!(recovering(dir.path()), Ok(Some(identity())));
        fs::write(dir.path().join(RECOVERING), second.replacen("format 2", "format 3", 1)).expect("written");
        let refused = recovering(dir.path()).expect_err("of a later version").to_string();
        assert!(refused.contains("format \"3\"") && refused.contains("run the version"), "{refused}");
    }

    /// Catches a healthy directory that is taken for a lost one, or the other way round.
    #[test]
    fn the_condition_of_a_directory_is_seen() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let place = dir.path().join("data");
        let condition = || condition(&place, &identity());
        assert_eq!(condition(), Ok(Condition::Absent));
        drop(open(&place, &identity(), &Options::default()).expect("it opens"));
        assert_eq!(condition(), Ok(Condition::NotAdmitted));
        used(&place);
        assert_eq!(condition(), Ok(Condition::Usable));
        fs::rename(place.join("MARK"), dir.path().join("MARK")).expect("moved");
        assert_eq!(condition(), Ok(Condition::Usable), "the log has it");
        fs::remove_dir_all(place.join("log")).expect("removed");
        assert!(matches!(condition(), Ok(Condition::Lost(_))));
        fs::rename(dir.path().join("MARK"), place.join("MARK")).expect("moved");
        assert_eq!(condition(), Ok(Condition::Usable), "it heals by itself");
        let stores = open(&place, &identity(), &Options::default()).expect("it opens");
        assert!(matches!(condition(), Err(StorageError::Refused(_))), "it is in use");
        stores.log.note_refused("an old one").expect("noted");
        drop(stores);
        assert_eq!(condition(), Ok(Condition::Refused("an old one".into())));
    }

    /// Catches a database of another node of which a start says one thing and a recovery another, so that neither helps;
    /// and advice that does not.
    #[test]
    fn a_foreign_database_is_seen_as_a_start_sees_it() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (own, other) = (place.path().join("own"), place.path().join("other"));
        let neighbour = Identity { node: NodeId(2), node_name: "n2".into(), ..identity() };
        used(&own);
        drop(open(&other, &neighbour, &Options::default()).expect("it opens"));
        let exchange = |part: &str| {
            let [own, other, aside] = [&own, &other, &place.path().to_owned()].map(|dir| dir.join(part));
            for (from, to) in [(&own, &aside), (&other, &own), (&aside, &other)] {
                fs::rename(from, to).expect("moved");
            }
        };
        let refused = || open(&own, &identity(), &Options::default()).map(drop).expect_err("it is foreign").to_string();

        exchange("state");
        assert_eq!(condition(&own, &identity()), Ok(Condition::Another(refused())));
        assert!(refused().contains("database `state` is that of node `n2`") && refused().contains("move `state` away"));
        exchange("state");
        exchange("log");
        assert_eq!(condition(&own, &identity()), Ok(Condition::Lost(refused())));
        assert!(refused().contains("database `log` is that of node `n2`") && refused().contains("quorate recover"));
        exchange("log");
        exchange("MARK");
        assert_eq!(condition(&own, &identity()), Ok(Condition::Another(refused())));
        assert!(refused().contains("file MARK is that of node `n2`") && refused().contains("or remove it"));
        exchange("log");
        assert!(refused().contains("belongs to node `n2`"), "all that says whose it is is that of the other one");
        exchange("log");
        fs::remove_file(own.join("MARK")).expect("removed");
        used(&own);
        assert_eq!(condition(&own, &identity()), Ok(Condition::Usable));

        let owner = |dir: &Path| mark_of(dir).expect("readable").map(|mark| mark.identity);
        exchange("state");
        fs::remove_dir_all(own.join("state")).expect("removed");
        drop(open(&own, &identity(), &Options::default()).expect("it heals"));
        assert_eq!(condition(&own, &identity()), Ok(Condition::Usable));
        assert_eq!(owner(&own), Some(identity()));
        fs::remove_file(own.join("MARK")).expect("removed");
        assert_eq!(owner(&own), Some(identity()), "the log says it");
        assert_eq!(owner(place.path()), None);
    }
}
