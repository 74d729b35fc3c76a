//! One attempt to open a data directory: whose it is, whether it is whole, which mark holds, what begins anew.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ::rocksdb::Cache;
use protocol::CommandNumber;

use super::checkpoint::Checkpoints;
use super::database::Database;
use super::log::RocksLog;
use super::mark::{self, Mark};
use super::meaning::may_exist;
use super::mend::{self, Part};
use super::open::{
    CHECKPOINTS, IDENTITY, LOG, Options, STATE, Stores, check_end_of_log, failed, open_log, open_log_read_only,
    open_state,
};
use super::record::FORMAT;
use super::state::RocksState;
use super::wal;
use crate::{Identity, LogImage, LogStore as _, Standing, StateStore as _, StorageError};

/// Why an attempt came to nothing.
pub(crate) enum Trouble {
    Damaged(Part, String),
    Error(StorageError),
}

/// What an error means that came of reading one database.
fn of(part: Part) -> impl Fn(StorageError) -> Trouble {
    move |error| match error {
        StorageError::Corrupt(why) => Trouble::Damaged(part, why),
        StorageError::Failed(_) | StorageError::Refused(_) => Trouble::Error(error),
    }
}

pub(crate) struct Opening<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) identity: &'a Identity,
    pub(crate) options: &'a Options,
    pub(crate) lock: File,
    pub(crate) on_file: mark::Found,
    /// The directory was made to the end once.
    pub(crate) complete: bool,
}

impl Opening<'_> {
    pub(crate) fn attempt(&self) -> Result<Stores, Trouble> {
        let mending = self.set_aside()?;
        self.check_parts(&mending)?;
        check_end_of_log(self.dir, self.options).map_err(of(Part::Log))?;
        let cache = Cache::new_lru_cache(self.options.cache_bytes);
        let state = open_state(self.dir, self.options, &cache).map_err(of(Part::State))?;
        let log = open_log(self.dir, self.options, &cache).map_err(of(Part::Log))?;
        let log_is = RocksLog::identity_in(&log).map_err(of(Part::Log))?;
        let state_is = RocksState::identity_in(&state).map_err(of(Part::State))?;
        let new = [log_is.is_none(), state_is.is_none()];
        let (log_is, state_is) = (self.readable(log_is)?, self.readable(state_is)?);
        let is_ours = matches!(self.on_file, mark::Found::Whole(_));
        check_owners(self.dir, self.identity, is_ours, log_is.as_ref(), state_is.as_ref())
            .map_err(|(_, error)| error)?;
        let mark = self.mark(&log, new[0])?;
        let log = Arc::new(self.log(log, mark)?);
        let checkpoints = Checkpoints::new(self.dir.join(CHECKPOINTS), self.options.clone(), cache);
        let checkpoints = checkpoints.map_err(|error| self.failed("removing old checkpoints in", &error))?;
        let state = Arc::new(RocksState::new(state, Arc::clone(&log), checkpoints).map_err(of(Part::State))?);
        self.begin(&log, &state, new, &mending)?;
        if let Some((part, why)) = state.check_against_log().map_err(of(Part::State))? {
            return Err(Trouble::Damaged(part, why));
        }
        // What a crash left with the operating system only is made durable before it counts.
        state.sync().map_err(of(Part::State))?;
        // The names of new files, and the absence of the log files that are not needed any more.
        for place in [self.dir.join(LOG), self.dir.join(STATE)] {
            mark::sync_directory(&place).map_err(|error| self.failed("syncing", &error))?;
        }
        for part in mending {
            self.step()?;
            mend::remove_marker(self.dir, part).map_err(|error| self.failed("mending", &error))?;
        }
        self.step()?;
        log.change_mark(Mark::start)?;
        log.note_start().map_err(of(Part::Log))?;
        if !self.complete {
            self.step()?;
            write_identity_file(self.dir, self.identity)
                .map_err(|error| self.failed("writing the file IDENTITY in", &error))?;
        }
        Ok(Stores { log, state })
    }

    fn failed(&self, doing: &str, error: &io::Error) -> Trouble {
        Trouble::Error(failed(self.dir, doing, error))
    }

    fn step(&self) -> Result<(), Trouble> {
        mend::step().map_err(|error| self.failed("stepping on in", &error))
    }

    /// Refuses the mark of another node, and a disk that other nodes have refused.
    pub(crate) fn check_mark(&self) -> Result<(), StorageError> {
        let mark::Found::Whole(mark) = &self.on_file else { return Ok(()) };
        if mark.identity != *self.identity {
            let log = open_log_read_only(self.dir).and_then(|log| RocksLog::identity_in(&log));
            let log_is = log.ok().flatten().and_then(Result::ok);
            return Err(mark_of_another(self.dir, &mark.identity, self.identity, log_is.as_ref()));
        }
        self.check_not_refused(mark)
    }

    fn check_not_refused(&self, mark: &Mark) -> Result<(), StorageError> {
        match &mark.refused {
            Some(why) => Err(StorageError::Refused(format!(
                "other nodes have refused the data directory {} for good: {why}",
                self.dir.display()
            ))),
            None => Ok(()),
        }
    }

    /// Whether a damaged database may be replaced by a new one.
    pub(crate) fn judge(&self, part: Part, why: &str) -> Result<(), StorageError> {
        if self.options.alone {
            return Err(StorageError::Refused(format!(
                "{why}. This cluster has no other node to learn from what the data directory {} has lost, as far as this one \
                 knows: make a new one from a backup (`quorate restore`){}",
                self.dir.display(),
                self.or_join()
            )));
        }
        match (part, &self.on_file) {
            (Part::State, _) | (Part::Log, mark::Found::Whole(_)) => Ok(()),
            (Part::Log, mark::Found::Nothing) => Err(self.lost(why, "the file MARK is not there")),
            (Part::Log, mark::Found::Unreadable(how)) => {
                Err(self.lost(why, &format!("the file MARK is not readable ({how})")))
            }
        }
    }

    /// Who else belongs to the cluster is not known where both copies of the membership are gone. The mark may know others.
    fn or_join(&self) -> String {
        let peers = match &self.on_file {
            mark::Found::Whole(mark) => mark.peers.keys().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            mark::Found::Nothing | mark::Found::Unreadable(_) => String::new(),
        };
        if peers.is_empty() {
            return peers;
        }
        format!(
            "; or, if other nodes still belong to it (it has known {peers}), set `cluster.join` to some of them, empty the \
             directory, and start this node: it joins anew, under another id"
        )
    }

    fn lost(&self, why: &str, mark: &str) -> StorageError {
        StorageError::Refused(format!(
            "the data directory {} has lost what this node has promised and voted for: {why}, and {mark}. It must not \
             vote again under its id: run `quorate recover` with the configuration of this node, and it joins anew, under \
             another one",
            self.dir.display()
        ))
    }

    /// Sets aside what is not to be used any more, and returns what that is.
    fn set_aside(&self) -> Result<Vec<Part>, Trouble> {
        let mut mending = Vec::new();
        for part in Part::BOTH {
            let found = mend::damaged(self.dir, part).map_err(|error| self.failed("looking into", &error))?;
            let Some(why) = found else { continue };
            self.judge(part, &why)?;
            let number = match &self.on_file {
                mark::Found::Whole(mark) => mark.starts,
                mark::Found::Nothing | mark::Found::Unreadable(_) => 0,
            };
            let aside = mend::set_aside(self.dir, part, number)
                .map_err(|error| self.failed("setting aside what is damaged in", &error))?;
            tracing::error!(
                database = part.name(), why, set_aside = %aside.display(),
                "a database is damaged and is begun anew; what is missing is learnt from the other nodes"
            );
            mending.push(part);
        }
        Ok(mending)
    }

    /// A directory that was once made must have both databases, each with a log of writes.
    fn check_parts(&self, mending: &[Part]) -> Result<(), Trouble> {
        if !self.complete && !matches!(self.on_file, mark::Found::Whole(_)) {
            return Ok(());
        }
        for part in Part::BOTH.into_iter().filter(|part| !mending.contains(part)) {
            let place = self.dir.join(part.name());
            if !may_exist(&place.join("CURRENT")) || wal::files(&place).map_err(of(part))?.is_empty() {
                return Err(gone(part));
            }
        }
        Ok(())
    }

    /// The mark that holds.
    fn mark(&self, log: &Database, log_is_new: bool) -> Result<Mark, Trouble> {
        let in_log = RocksLog::mark_in(log).map_err(of(Part::Log))?;
        let revision = in_log.as_ref().map_or(0, |mark| mark.revision);
        if let mark::Found::Whole(on_file) = &self.on_file
            && !log_is_new
            && on_file.revision > revision
        {
            let why = "the database `log` lacks what was written to it last";
            return Err(Trouble::Damaged(Part::Log, why.to_owned()));
        }
        let mark = match (&self.on_file, in_log) {
            (mark::Found::Whole(on_file), Some(in_log)) => {
                if on_file.disk != in_log.disk {
                    let of = format!("of disk {}", on_file.disk);
                    return Err(Trouble::Error(mixed(self.dir, &of, Part::Log, &format!("of disk {}", in_log.disk))));
                }
                on_file.clone().newer(in_log)
            }
            (mark::Found::Whole(on_file), None) => on_file.clone(),
            (mark::Found::Nothing | mark::Found::Unreadable(_), Some(in_log)) => in_log,
            (mark::Found::Unreadable(how), None) => {
                return Err(Trouble::Error(self.lost("the database `log` does not have the mark", how)));
            }
            // Earlier versions had none; a new directory gets its standing when it is known to be one.
            (mark::Found::Nothing, None) => {
                RocksLog::mark_of(log, Mark::new(self.identity.clone(), Standing::Sound)).map_err(of(Part::Log))?
            }
        };
        self.check_not_refused(&mark)?;
        Ok(mark)
    }

    /// Refuses an identity of another version.
    fn readable(&self, found: Option<Result<Identity, String>>) -> Result<Option<Identity>, StorageError> {
        found.transpose().map_err(|why| {
            StorageError::Refused(format!(
                "the data directory {} has an identity that this version (format {FORMAT}) cannot read: {why}",
                self.dir.display()
            ))
        })
    }

    fn log(&self, log: Database, mark: Mark) -> Result<RocksLog, Trouble> {
        let lock = self.lock.try_clone().map_err(|error| self.failed("keeping the lock of", &error))?;
        RocksLog::new(log, self.dir.to_owned(), mark, lock).map_err(of(Part::Log))
    }

    /// Writes what a database begins with, where it is new and may be.
    fn begin(
        &self,
        log: &RocksLog,
        state: &RocksState,
        [log_is_new, state_is_new]: [bool; 2],
        mending: &[Part],
    ) -> Result<(), Trouble> {
        let image = log.load(CommandNumber(u64::MAX)).map_err(of(Part::Log))?;
        let log_is_empty = image == LogImage { standing: image.standing, ..LogImage::default() }
            && !log.has_votes().map_err(of(Part::Log))?;
        // Without the file IDENTITY, the making of the directory may have been cut short; then nothing was ever
        // written to it. Anything else that is missing was lost.
        let is_empty = log_is_empty && state.applied().number == CommandNumber::NULL;
        let unused = !self.complete && is_empty && log.mark().starts == 0;
        if log_is_new {
            if !unused && !mending.contains(&Part::Log) {
                return Err(gone(Part::Log));
            }
            log.begin(self.identity, state.seen_of_log().map_err(of(Part::State))?)?;
        }
        if unused {
            self.step()?;
            log.change_mark(|mark| mark.standing = self.options.standing_of_new)?;
        }
        if mending.contains(&Part::Log) {
            self.step()?;
            log.change_mark(Mark::lose_votes)?;
        }
        if state_is_new {
            if !unused && !mending.contains(&Part::State) {
                return Err(gone(Part::State));
            }
            self.step()?;
            state.write_identity(self.identity)?;
        }
        if mending.contains(&Part::State) {
            self.step()?;
            log.forget_state()?;
        }
        Ok(())
    }
}

fn gone(part: Part) -> Trouble {
    Trouble::Damaged(part, format!("the database `{}`, or parts of it, are not there", part.name()))
}

/// Refuses databases of another node. `is_ours`: the file MARK is that of this one.
///
/// # Errors
/// Which database it is, and what to do.
pub(crate) fn check_owners(
    dir: &Path,
    expected: &Identity,
    is_ours: bool,
    log: Option<&Identity>,
    state: Option<&Identity>,
) -> Result<(), (Part, StorageError)> {
    let is_ours = [is_ours, is_ours || log == Some(expected)];
    for ((part, found), is_ours) in [(Part::Log, log), (Part::State, state)].into_iter().zip(is_ours) {
        let Some(found) = found.filter(|found| *found != expected) else { continue };
        let error = if is_ours {
            mixed(dir, &format!("that of {}", name(expected)), part, &format!("that of {}", name(found)))
        } else {
            another(dir, found, expected)
        };
        return Err((part, error));
    }
    Ok(())
}

/// Of a directory whose parts do not belong together.
fn mixed(dir: &Path, is: &str, part: Part, part_is: &str) -> StorageError {
    let or_else = match part {
        Part::Log => "run `quorate recover`, and this node joins anew",
        Part::State => "move `state` away, and this node learns it again from the others",
    };
    StorageError::Refused(format!(
        "the data directory {} is put together from two: it is {is}, and its database `{}` is {part_is}. Put back what \
         belongs there, or {or_else}",
        dir.display(),
        part.name()
    ))
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        Self::Error(error)
    }
}

/// Of a directory whose file MARK is not that of this node. `log`: whose the log is.
pub(crate) fn mark_of_another(
    dir: &Path,
    found: &Identity,
    expected: &Identity,
    log: Option<&Identity>,
) -> StorageError {
    if log != Some(expected) {
        return another(dir, found, expected);
    }
    StorageError::Refused(format!(
        "the data directory {} is put together from two: its database `log` is that of {}, and its file MARK is that of {}. \
         Put back the file that belongs there, or remove it: it is made again from the log",
        dir.display(),
        name(expected),
        name(found)
    ))
}

pub(crate) fn another(dir: &Path, found: &Identity, expected: &Identity) -> StorageError {
    let differs_by_backup = Identity { cluster: expected.cluster, ..found.clone() } == *expected;
    let or_copy = if differs_by_backup {
        ". Only the ids of the clusters differ: a restored cluster has its own by the file ORIGIN, so if that of this node \
         is lost, or damaged, copy it from another node of the restored cluster"
    } else {
        ""
    };
    StorageError::Refused(format!(
        "the data directory {} belongs to {}, but this is {}; give this node its own directory, or correct its \
         configuration{or_copy}",
        dir.display(),
        name(found),
        name(expected)
    ))
}

fn name(identity: &Identity) -> String {
    let Identity { cluster, cluster_name, node, node_name } = identity;
    format!("node `{node_name}` (id {node}) of cluster `{cluster_name}` (id {cluster})")
}

fn write_identity_file(dir: &Path, identity: &Identity) -> io::Result<()> {
    let text = format!(
        "# A data directory of Quorate. This file is for people; the databases carry the same.\n\
         # Never copy this directory to a second running node, and never start it from an old copy.\n\
         format = {FORMAT}\ncluster = {:?}\ncluster_id = \"{}\"\nnode = {:?}\nnode_id = {}\n",
        identity.cluster_name, identity.cluster, identity.node_name, identity.node
    );
    // First the names on the way to it, in case they were just made: this file says that all is there.
    mark::sync_above(dir)?;
    mark::write_whole(dir, IDENTITY, text.as_bytes())
}
