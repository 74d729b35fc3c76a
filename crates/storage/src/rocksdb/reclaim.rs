//! Giving back the space of commands and votes that are forgotten.
//!
//! What is forgotten is only marked so. It takes its space until a compaction meets the mark, and compactions come with
//! what is written. When the disk is almost full calls are refused, so that little or nothing is written: a disk that a
//! history has filled would stay full when the history is old, and calls never go on. So then this is done,
//! beside everything else:
//!
//! 1. Whole files of what is forgotten are deleted, which needs no room. A crash does not bring them back, so that it
//!    must not bring back either what says that they are forgotten: that is durable before. What these files hid in
//!    others shows again; nobody reads it.
//! 2. All is marked once more, from the beginning, what is in memory is written to files, which frees the log of writes,
//!    and the files with forgotten keys are written anew without them. That needs room, for what is in memory and for a
//!    few files: it is there between the two marks of free space (ADR 0020), and not when the disk is *out*.
//!
//! Readers of what is forgotten, an answer that was begun before, have their own view of the files. A snapshot
//! does not keep these commands; whoever has one reads entries and outcomes.

use std::sync::Mutex;

use ::rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, WriteBatch};
use protocol::{CommandNumber, Space};

use super::batch::Batch;
use super::keys::{LogKey, column, of_number};
use super::log::RocksLog;
use super::state::{RocksState, lock};
use crate::StorageError;

impl RocksState {
    /// See [`crate::StateStore::reclaim`].
    pub(super) fn reclaim_commands(&self, space: Space) -> Result<(), StorageError> {
        // Another state may be installed meanwhile: then the keys below are of no state.
        let (generation, dropped) = {
            let known = self.known();
            (known.head.generation, known.head.dropped)
        };
        once(&self.reclaimed, dropped, space, || {
            let [first, last] = [CommandNumber::NULL, dropped].map(of_number);
            let [first_key, last_key] = [first, last].map(|key| generation.key(&key));
            self.database.sync()?;
            self.database.delete_files(column::COMMANDS, &first_key, &last_key)?;
            if space == Space::Out {
                return Ok(());
            }
            let mut batch = Batch::new(&self.database, generation);
            batch.delete_range(column::COMMANDS, &first, &of_number(dropped.next()));
            self.database.write_buffered(batch.finish())?;
            self.database.flush(&column::ALL)?;
            self.database.compact(column::COMMANDS, &first_key, &last_key)
        })
    }
}

impl RocksLog {
    /// The same for votes.
    pub(super) fn reclaim(&self, space: Space) -> Result<(), StorageError> {
        let forgotten = self.forgotten();
        once(&self.reclaimed, forgotten, space, || {
            let (column, database) = (DEFAULT_COLUMN_FAMILY_NAME, self.database());
            let vote = |number| LogKey::Vote(number).to_bytes();
            let (first, last) = (vote(CommandNumber::NULL), vote(forgotten));
            database.delete_files(column, &first, &last)?;
            if space == Space::Out {
                return Ok(());
            }
            let mut batch = WriteBatch::default();
            batch.delete_range(first.clone(), vote(forgotten.next()));
            database.write_synced(batch)?;
            database.flush(&[column])?;
            database.compact(column, &first, &last)
        })
    }
}

/// Does what gives back the space of what is forgotten up to a number, unless that is done.
fn once(
    reclaimed: &Mutex<CommandNumber>,
    forgotten: CommandNumber,
    space: Space,
    work: impl FnOnce() -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut reclaimed = lock(reclaimed);
    if forgotten <= *reclaimed {
        return Ok(());
    }
    work()?;
    if space != Space::Out {
        *reclaimed = forgotten;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::{fs, io};

    use protocol::{ClusterId, Command, NodeId, Timestamp};
    use tempfile::TempDir;

    use super::*;
    use crate::conformance::{body, command, put, vote};
    use crate::rocksdb::{Options, Stores, open};
    use crate::{Identity, LogRecord, LogStore as _, Retention, Standing, StateStore as _};

    const COMMANDS: u64 = 40;
    const FORGOTTEN: u64 = 37;
    const BYTES: usize = 100 << 10;

    fn opened(dir: &Path) -> Stores {
        let identity = Identity {
            cluster: ClusterId([1; 16]),
            cluster_name: "test".into(),
            node: NodeId(1),
            node_name: "n1".into(),
        };
        let options = Options { standing_of_new: Standing::Sound, ..Options::default() };
        open(dir, &identity, &options).expect("the stores open")
    }

    /// Bytes that nothing compresses, other ones for each number.
    fn noise(number: u64) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        blake3::Hasher::new().update(&number.to_be_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn written(number: u64) -> Command {
        command(number, &body(number, vec![put("k", noise(number))]))
    }

    /// Writes commands and votes for them; `after` comes after each.
    fn filled(dir: &Path, after: impl Fn(&Stores, u64)) -> Stores {
        let stores = opened(dir);
        for number in 1..=COMMANDS {
            let mut vote = vote(1, number, "");
            vote.command.body = noise(number).into();
            stores.log.write(&[LogRecord::Vote(vote)]).expect("written");
            stores.state.apply(&[written(number)]).expect("applied");
            after(&stores, number);
        }
        stores.state.sync().expect("synced");
        stores
    }

    fn forget(stores: &Stores) {
        let few = Retention { commands: COMMANDS - FORGOTTEN, bytes: u64::MAX, since: Timestamp(0) };
        let kept_from = stores.state.forget_commands(&few, stores.state.durable()).expect("forgotten");
        assert_eq!(kept_from, CommandNumber(FORGOTTEN + 1));
        stores.log.write(&[LogRecord::Forget(CommandNumber(FORGOTTEN))]).expect("written");
    }

    /// What is kept is there, and nothing else.
    fn check(stores: &Stores) {
        let kept: Vec<Command> = (FORGOTTEN + 1..=COMMANDS).map(written).collect();
        let (first, all) = (CommandNumber(FORGOTTEN + 1), usize::MAX);
        assert_eq!(stores.state.commands(first, 99, all), Ok(Some(kept)));
        assert_eq!(stores.state.commands(CommandNumber(FORGOTTEN), 99, all), Ok(None));
        let digest = stores.state.snapshot().and_then(|snapshot| snapshot.digest());
        assert_eq!(digest, Ok(stores.state.digest().digest));
        let image = stores.log.load(CommandNumber::NULL).expect("readable");
        let votes: Vec<u64> = image.votes.iter().map(|vote| vote.command.number().0).collect();
        assert_eq!(votes, (FORGOTTEN + 1..=COMMANDS).collect::<Vec<_>>());
        assert_eq!((image.standing, stores.failure()), (Standing::Sound, None));
    }

    /// A start after `kill -9`: nothing is closed, nothing is lost.
    fn check_after_a_kill(dir: &Path) {
        let copied = copied(dir);
        let stores = opened(copied.path());
        check(&stores);
        stores.state.apply(&[written(COMMANDS + 1)]).expect("it goes on");
    }

    /// The directory as it is at one moment: RocksDB deletes in the background what it needs no more.
    fn copied(dir: &Path) -> TempDir {
        for _ in 0..1_000 {
            let (to, before) = (tempfile::tempdir().expect("a temporary directory"), files(dir));
            if copy(dir, to.path()).is_ok() && files(dir) == before {
                return to;
            }
        }
        panic!("the directory changes on and on");
    }

    fn files(dir: &Path) -> BTreeSet<PathBuf> {
        let parts = [dir.to_owned(), dir.join("log"), dir.join("state")];
        let entries = parts.iter().flat_map(|part| fs::read_dir(part).expect("a directory"));
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    fn copy(from: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &target)?;
            } else {
                fs::copy(entry.path(), target)?;
            }
        }
        Ok(())
    }

    fn bytes_of(database: &Path) -> u64 {
        let entries = fs::read_dir(database).expect("a directory");
        // One that is deleted meanwhile takes no room.
        entries.map(|entry| entry.expect("an entry").metadata().map_or(0, |file| file.len())).sum()
    }

    /// A13: catches space that comes back with later writes only, which a full disk does not get; and forgetting that
    /// takes something else with it, now or with the next start.
    #[test]
    fn space_comes_back_without_a_further_write() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let stores = filled(dir.path(), |_, _| ());
        let parts = [dir.path().join("log"), dir.path().join("state")];
        stores.state.reclaim(Space::Low).expect("nothing to give back");
        forget(&stores);
        let before = parts.each_ref().map(|part| bytes_of(part));
        assert!(before.iter().all(|bytes| *bytes >= COMMANDS * BYTES as u64), "{before:?}");
        stores.state.reclaim(Space::Low).expect("given back");
        let after = parts.each_ref().map(|part| bytes_of(part));
        // Three votes of forty, and the commands and the entry of three; beside them there are small files.
        let is_little = |at: usize| after[at] < before[at] / 8;
        assert!(is_little(0) && is_little(1), "{before:?} became {after:?}");
        check(&stores);
        check_after_a_kill(dir.path());
        // What comes next is not less safe.
        let files = parts.each_ref().map(|part| bytes_of(part));
        stores.state.reclaim(Space::Low).expect("nothing to give back");
        assert_eq!(parts.each_ref().map(|part| bytes_of(part)), files, "it is done once");
        stores.state.apply(&[written(COMMANDS + 1)]).expect("it goes on");
    }

    /// A13: catches a disk that is out of space and gets none back, or is written to for that; and, above all, a file that
    /// is deleted with something that is kept.
    #[test]
    fn whole_files_go_without_any_room() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let all = [&[0; 9][..], &[255; 9][..]];
        // A file for each ten commands, the last one also with what is kept.
        let stores = filled(dir.path(), |stores, number| {
            if number.is_multiple_of(10) {
                for (database, column) in
                    [(stores.log.database(), DEFAULT_COLUMN_FAMILY_NAME), (stores.state.database(), column::COMMANDS)]
                {
                    database.flush(&[column]).and_then(|()| database.compact(column, all[0], all[1])).expect("written");
                }
            }
        });
        forget(&stores);
        let tables = || {
            let count = |database: &Path| {
                let entries = fs::read_dir(database).expect("a directory").map(|entry| entry.expect("an entry").path());
                let tables = entries.filter(|path| path.extension().is_some_and(|end| end == "sst"));
                tables.map(|table| fs::metadata(table).expect("readable").len()).sum::<u64>()
            };
            [dir.path().join("log"), dir.path().join("state")].map(|part| count(&part))
        };
        let before = tables();
        stores.state.reclaim(Space::Out).expect("given back");
        let after = tables();
        // Three files of four. Those of a log have some other keys, until there are so many votes that one has none.
        assert!(before[1] - after[1] >= 30 * BYTES as u64, "{before:?} became {after:?}");
        check(&stores);
        check_after_a_kill(dir.path());
        // The rest, when there is a little room.
        stores.state.reclaim(Space::Low).expect("given back");
        assert!(tables().iter().all(|bytes| *bytes < 8 * BYTES as u64), "{:?}", tables());
        check(&stores);
        check_after_a_kill(dir.path());
    }
}
