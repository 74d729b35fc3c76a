//! The directories that a restore makes, and the files by which they say how far it has come and what they are made from.
//!
//! While a restore writes, the file `RESTORING` stands in each data directory, and in the directory of a whole `dev` cluster:
//! no node starts there, and a restore that was cut short is begun again by the same command. Those of the nodes go when all
//! of them are made, and then that of the cluster.
//!
//! From before the first step to after the last a restore holds the file `LOCK` of each directory, as a node does that runs
//! there ([`Held`]): of two restores the second would take away what the first has written, and go on below it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use protocol::ClusterId;
use storage::StorageError;
use storage::rocksdb::{Options, Stores, make_and_lock, open_locked};

use super::verify::from_hex;
use crate::config::Config;
use crate::failure::Failure;
use crate::sealed;

/// Names the backup that a data directory was made from.
const ORIGIN: &str = "ORIGIN";
/// Of that file; 1 had no line that says so, 2 no checksum.
const FORMAT: u32 = 3;
/// There while a data directory, or a cluster for `dev`, is being made.
const RESTORING: &str = "RESTORING";
/// What a restore leaves when it is cut short, and may take away again.
const MADE: [&str; 7] = [ORIGIN, "IDENTITY", "IDENTITY.new", "MARK", "MARK.new", "log", "state"];
/// What an empty directory may have: a file system puts one into its root, and the other stays whoever held it.
const NOTHING: [&str; 2] = ["lost+found", "LOCK"];

/// Whether a restore is under way there, or was cut short.
pub(crate) fn is_unfinished(dir: &Path) -> bool {
    storage::rocksdb::may_exist(&dir.join(RESTORING))
}

/// Refuses to serve what a restore has not finished.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn check_finished(dir: &Path) -> Result<(), Failure> {
    if is_unfinished(dir) {
        return Err(Failure::Failed(anyhow!(
            "node.data_dir = {}: a restore was cut short here; run `quorate restore FILE` again with the same \
             configuration, or the same --dev",
            dir.display()
        )));
    }
    Ok(())
}

/// The same of the directory of a `dev` cluster: some of its nodes would be those of the backup, the others empty.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn check_dev_finished(dir: &Path) -> Result<(), Failure> {
    if is_unfinished(dir) {
        return Err(Failure::Failed(anyhow!(
            "--data {0}: a restore was cut short here; run `quorate restore FILE --dev {0}` again, with the same --nodes",
            dir.display()
        )));
    }
    Ok(())
}

/// Refuses a directory that holds anything but what a restore left there: the one that makes it, or (`in_unfinished`) the
/// cluster that it belongs to, was cut short.
pub(super) fn check_empty(dir: &Path, in_unfinished: bool) -> Result<(), Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Failure::Usage(format!("node.data_dir = {}: cannot be read ({error})", dir.display())));
        }
    };
    let names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !NOTHING.contains(&name.as_str()))
        .collect();
    let cut_short = in_unfinished || names.iter().any(|name| name == RESTORING);
    let ours = |name: &String| name == RESTORING || MADE.contains(&name.as_str());
    if names.is_empty() || (cut_short && names.iter().all(ours)) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "node.data_dir = {} is not empty; a restore makes the data of a new cluster: name a directory that does not \
         exist yet, or move this one away",
        dir.display()
    )))
}

/// A directory of a restore, which nobody else uses while this is there.
pub(super) struct Held {
    dir: PathBuf,
    lock: File,
}

impl Held {
    /// Makes a directory, if it is not there, for nobody else's eyes.
    ///
    /// # Errors
    /// Another restore, or a node, that holds it; a failing disk.
    pub(super) fn take(dir: &Path) -> Result<Self, Failure> {
        match make_and_lock(dir) {
            Ok(lock) => Ok(Self { dir: dir.to_owned(), lock }),
            Err(StorageError::Refused(_)) => Err(Failure::Usage(format!(
                "{}: another restore into this directory is under way, or a node runs there; wait for its end, or name \
                 another directory",
                dir.display()
            ))),
            Err(error) => Err(Failure::Failed(error.into())),
        }
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins to make what lies in it: nobody uses it until it is finished.
    pub(super) fn begin(&self) -> io::Result<()> {
        step()?;
        let text = "A restore is under way, or was cut short: run `quorate restore` again.\n";
        write_synced(&self.dir.join(RESTORING), text.as_bytes())?;
        sync_with_parent(&self.dir)
    }

    /// Takes away what an earlier attempt has left, and names the backup with this digest, in hexadecimal.
    pub(super) fn name_origin(&self, digest: &str) -> io::Result<()> {
        step()?;
        MADE.iter().try_for_each(|name| remove(&self.dir.join(name)))?;
        step()?;
        let text = format!("# The backup that this data was made from.\n{digest}");
        write_synced(&self.dir.join(ORIGIN), &sealed::seal_lines(FORMAT, &text))
    }

    /// Makes the stores.
    pub(super) fn open(&self, identity: &storage::Identity) -> anyhow::Result<Stores> {
        let lock = self.lock.try_clone().context("keeping the lock")?;
        Ok(open_locked(&self.dir, identity, &Options::default(), lock)?)
    }

    /// What lies in it may be used from here on.
    pub(super) fn finish(&self) -> io::Result<()> {
        step()?;
        fs::remove_file(self.dir.join(RESTORING))?;
        sync_with_parent(&self.dir)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_with_parent(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    match fs::canonicalize(dir)?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether what lies there was made from a backup.
pub(crate) fn is_restored(dir: &Path) -> bool {
    storage::rocksdb::may_exist(&dir.join(ORIGIN))
}

/// The id of the cluster that a node belongs to: that of its configuration, or, where its data was
/// made from a backup, one that names the backup, too.
///
/// # Errors
/// When the file that names the backup cannot be read.
pub(crate) fn cluster_of(config: &Config) -> anyhow::Result<ClusterId> {
    let path = config.node.data_dir.join(ORIGIN);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(config.cluster.id),
        Err(error) => bail!("{} cannot be read: {error}", path.display()),
    };
    let origin = origin(&bytes).with_context(|| {
        format!(
            "{} cannot be understood; if it is damaged, copy {ORIGIN} from another node of the restored cluster",
            path.display()
        )
    })?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"quorate restored cluster\0").update(&config.cluster.id.0).update(&origin);
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    Ok(ClusterId(id))
}

fn origin(bytes: &[u8]) -> anyhow::Result<[u8; 32]> {
    let mut lines = sealed::open_lines(ORIGIN, FORMAT, bytes)?.lines();
    lines.find(|line| !line.starts_with('#')).and_then(from_hex).context("it names no backup")
}

/// Between two steps whose order matters: the tests cut a restore short here.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "it fails in tests")]
pub(super) fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use cut::step;

#[cfg(test)]
pub(super) mod cut {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Cuts this thread short after so many steps; never, for `None`.
    pub(crate) fn after(steps: Option<u32>) {
        LEFT.set(steps);
    }

    pub(crate) fn step() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::Error::other("cut short, as it was told to")),
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-33: catches a version in which a restored node takes itself for one of another cluster than the version that restored
    /// it did, that writes this version's file differently, or that believes the file of a later one.
    #[test]
    fn recorded_files_are_read_and_written_as_ever() {
        let first = include_str!("../../tests/golden/origin-1");
        let second = include_str!("../../tests/golden/origin-2");
        let third = include_str!("../../tests/golden/origin-3");
        for recorded in [first, second, third] {
            assert_eq!(origin(recorded.as_bytes()).expect("readable"), [0xab; 32]);
        }
        assert_eq!(origin("ab".repeat(32).as_bytes()).expect("as an operator writes it anew"), [0xab; 32]);
        let dir = tempfile::tempdir().expect("a directory");
        Held::take(dir.path()).expect("nobody else").name_origin(&"ab".repeat(32)).expect("written");
        assert_eq!(fs::read_to_string(dir.path().join(ORIGIN)).expect("there"), third);
        for (other, says) in [(second.replacen('2', "4", 1), "run the version"), ("# x\n".to_owned(), "no backup")] {
            let refused = format!("{:#}", origin(other.as_bytes()).expect_err("no origin"));
            assert!(refused.contains(says), "{refused}");
        }
    }
}
