//! The file that is written beside the one that is to be, and takes its name when it is whole.
//!
//! It is locked while it is written: of two that write for one name the second is refused, where it would cut off what the
//! first has verified. What a killed one left there is written over; what is no part of a backup, or leads elsewhere, is not.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::failure::Failure;

/// A file without its name. It goes away with this, unless it got its name.
pub(super) struct Part {
    path: PathBuf,
    /// Held, and with it the lock, until it has its name or is removed.
    file: File,
    is_named: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_named {
            // Half a file helps nobody; that it cannot be removed changes nothing.
            _ = fs::remove_file(&self.path);
        }
    }
}

impl Part {
    /// Begins what is to be called `file`.
    ///
    /// # Errors
    /// A name that is none, somebody else who writes there, or a failing disk.
    pub(super) fn begin(file: &Path) -> Result<Self, Failure> {
        let name = file.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Failure::Usage(format!("{} names no file; give the name of the file to write", file.display()))
        })?;
        let path = file.with_file_name(format!("{name}.part"));
        loop {
            let doing = || format!("{} cannot be written", path.display());
            // A backup is for few eyes, as is the directory that it is of.
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                return Err(foreign(&path));
            }
            let mut opened = options.open(&path).with_context(doing)?;
            match opened.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(taken(file, &path)),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("{} cannot be locked", path.display()))?;
                }
            }
            let found = opened.metadata().with_context(doing)?;
            if !is_at(&found, &path) {
                // Whoever wrote it has given it its name, or removed it, between the two.
                continue;
            }
            if found.nlink() > 1 {
                // It has its name; whoever gave it was killed before taking this one away.
                fs::remove_file(&path).with_context(doing)?;
                continue;
            }
            let mut begins = Vec::new();
            Read::by_ref(&mut opened)
                .take(super::format::BEGINS.len() as u64)
                .read_to_end(&mut begins)
                .with_context(doing)?;
            if !super::format::BEGINS.starts_with(&begins) {
                return Err(foreign(&path));
            }
            let mut part = Self { path: path.clone(), file: opened, is_named: false };
            part.begin_anew().with_context(doing)?;
            return Ok(part);
        }
    }

    /// Takes away what was written.
    pub(super) fn begin_anew(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// To write into.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives it its name: from here on it has that, after a crash too.
    ///
    /// # Errors
    /// Without `replace`, when something has that name by now; or a failing disk.
    pub(super) fn name(mut self, file: &Path, replace: bool) -> Result<(), Failure> {
        let named = if replace { fs::rename(&self.path, file) } else { self.link(file) };
        match named {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !replace => {
                return Err(Failure::Usage(format!(
                    "{} is there by now, and was not when this began; take the backup again under another name, or say \
                     --force",
                    file.display()
                )));
            }
            named => {
                named.with_context(|| format!("{} cannot be named {}", self.path.display(), file.display()))?;
            }
        }
        self.is_named = true;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        Ok(synced.with_context(|| format!("{} cannot be synced", directory.display()))?)
    }

    /// Takes no other file's place.
    fn link(&self, file: &Path) -> io::Result<()> {
        match fs::hard_link(&self.path, file) {
            Ok(()) => {
                // The next backup to this name takes it away, if this one cannot.
                _ = fs::remove_file(&self.path);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A file system that gives no file two names. No other backup can come in between: this one holds the lock.
            Err(_) if fs::symlink_metadata(file).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(&self.path, file),
        }
    }
}

fn taken(file: &Path, part: &Path) -> Failure {
    Failure::Usage(format!(
        "{}: another backup to this name is under way (it holds {}); wait for its end, or name another file",
        file.display(),
        part.display()
    ))
}

fn foreign(part: &Path) -> Failure {
    Failure::Usage(format!(
        "{} is there and is no part of a backup; move it away, or give the backup another name",
        part.display()
    ))
}

fn is_at(opened: &fs::Metadata, path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (opened.dev(), opened.ino()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn written(file: &Path, text: &str) -> Part {
        let mut part = Part::begin(file).expect("nobody else writes");
        part.file().write_all(text.as_bytes()).expect("written");
        part
    }

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).expect("a directory").count()
    }

    /// Catches a second backup to one name that cuts off what the first has verified, which then gets the name; and one
    /// that, refused, takes the file of the first away.
    #[test]
    fn two_do_not_write_for_one_name() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("b");
        let first = written(&file, "whole");
        let second = Part::begin(&file).map(drop).expect_err("the first is not done");
        assert!(matches!(&second, Failure::Usage(line) if line.contains("under way")), "{second}");
        first.name(&file, false).expect("named");
        assert_eq!(fs::read_to_string(&file).expect("there"), "whole");
        assert_eq!(entries(place.path()), 1);
        drop(written(&file, "half"));
        assert_eq!(entries(place.path()), 1, "what is not named goes away");
    }

    /// Catches a backup that takes the place of a file which came while it was taken, unasked.
    #[test]
    fn a_file_that_came_meanwhile_stays() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("b");
        let part = written(&file, "new");
        fs::write(&file, "mine").expect("written");
        let refused = part.name(&file, false).expect_err("it is there");
        assert!(matches!(&refused, Failure::Usage(line) if line.contains("--force")), "{refused}");
        assert_eq!((fs::read_to_string(&file).expect("there").as_str(), entries(place.path())), ("mine", 1));
        written(&file, "new").name(&file, true).expect("named");
        assert_eq!((fs::read_to_string(&file).expect("there").as_str(), entries(place.path())), ("new", 1));
    }

    /// Catches a leftover of a backup that was killed which keeps the next one away, and one killed between the two steps
    /// of naming whose whole file the next one cuts off.
    #[test]
    fn what_a_killed_one_left_is_written_over() {
        let place = tempfile::tempdir().expect("a directory");
        let (file, part) = (place.path().join("b"), place.path().join("b.part"));
        fs::write(&part, "QRTBACK1 half of something longer").expect("written");
        written(&file, "new").name(&file, false).expect("named");
        assert_eq!(fs::read_to_string(&file).expect("there"), "new");

        fs::hard_link(&file, &part).expect("linked");
        let next = written(&file, "newer");
        assert_eq!(fs::read_to_string(&file).expect("there"), "new", "it has its name until the next one is whole");
        next.name(&file, true).expect("named");
        assert_eq!((fs::read_to_string(&file).expect("there").as_str(), entries(place.path())), ("newer", 1));
    }

    /// Catches a backup that writes over a file which is none, or through a link into another one; and one that others read.
    #[test]
    fn what_is_no_part_of_a_backup_stays() {
        let place = tempfile::tempdir().expect("a directory");
        let (file, part, other) = (place.path().join("b"), place.path().join("b.part"), place.path().join("other"));
        fs::write(&other, "mine").expect("written");
        let refused = || {
            let refused = Part::begin(&file).map(drop).expect_err("it is not ours");
            assert!(matches!(&refused, Failure::Usage(line) if line.contains("no part of a backup")), "{refused}");
            assert_eq!(fs::read_to_string(&part).expect("there"), "mine");
            fs::remove_file(&part).expect("removed");
        };
        std::os::unix::fs::symlink(&other, &part).expect("made");
        refused();
        fs::copy(&other, &part).expect("copied");
        refused();
        let mode = |part: &Part| part.file.metadata().expect("a file").mode() & 0o777;
        assert_eq!(mode(&written(&file, "QRTBACK1")), 0o600);
    }
}
