//! Whether a data directory is there for the user of this process.
//!
//! What belongs to another user is neither damaged nor gone, and whatever judges the directory would take it for that: a
//! whole log would be set aside, and a node that lost nothing would be given up. So this comes before everything else, and
//! changes nothing. Errors of another kind, and a file system that takes no writes, are left to whoever meets them.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use anyhow::anyhow;
use nix::unistd::{AccessFlags, access, geteuid};

use crate::failure::Failure;

/// The files of a node. They are replaced whole, so that reading is enough, but for [`LOCK`].
const FILES: [&str; 13] = [
    "MARK",
    LOCK,
    PROBE,
    "MEMBERSHIP",
    "MEMBERSHIP.copy",
    "IDENTITY",
    "ORIGIN",
    "JOINING",
    "CLAIMED",
    "RECOVERING",
    "RESTORING",
    "DAMAGED-log",
    "DAMAGED-state",
];
const LOCK: &str = "LOCK";
const PROBE: &str = "PROBE";
const DATABASES: [&str; 2] = ["log", "state"];
const CHECKPOINTS: &str = "checkpoints";
/// What a recovery does not move.
const STAYS: [&str; 2] = ["lost+found", "before-recovery-"];

/// Refuses a data directory of which another user has a part, or in which something is in the way.
///
/// # Errors
/// Which part it is, and what to do.
pub(crate) fn check(dir: &Path) -> Result<(), Failure> {
    let checked = Checked { dir };
    checked.directory(dir)?;
    for database in DATABASES.map(|name| dir.join(name)) {
        checked.directory(&database)?;
        for file in fs::read_dir(&database).into_iter().flatten().flatten() {
            let place = file.path();
            if place.is_file() {
                checked.opens(&place, true)?;
            }
        }
    }
    checked.directory(&dir.join(CHECKPOINTS))?;
    for name in FILES {
        let place = dir.join(name);
        if checked.is_there(&place, fs::Metadata::is_file, "file")? {
            checked.opens(&place, [LOCK, PROBE].contains(&name))?;
        }
    }
    Ok(())
}

/// The same of what is none of the node's and a recovery moves, too: a directory moves only for who may write to it.
///
/// # Errors
/// Which one does not.
pub(crate) fn check_moves(dir: &Path) -> Result<(), Failure> {
    let checked = Checked { dir };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let stays = STAYS.iter().any(|name| entry.file_name().to_string_lossy().starts_with(name));
        if !stays && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            checked.directory(&entry.path())?;
        }
    }
    Ok(())
}

struct Checked<'a> {
    dir: &'a Path,
}

impl Checked<'_> {
    fn directory(&self, place: &Path) -> Result<(), Failure> {
        if !self.is_there(place, fs::Metadata::is_dir, "directory")? {
            return Ok(());
        }
        self.allowed(place, "listed", fs::read_dir(place))?;
        self.allowed(place, "written to", access(place, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from))
    }

    fn opens(&self, place: &Path, to_write: bool) -> Result<(), Failure> {
        let doing = if to_write { "written to" } else { "read" };
        self.allowed(place, doing, OpenOptions::new().read(true).write(to_write).open(place))
    }

    /// Whether it is there, and is what it has to be.
    fn is_there(&self, place: &Path, fits: fn(&fs::Metadata) -> bool, kind: &str) -> Result<bool, Failure> {
        let found = match fs::metadata(place) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && kind == "directory" && place.is_symlink() => {
                return Err(Failure::Failed(anyhow!(
                    "{} is a symbolic link that leads to nothing; mount or make what it leads to, or remove it if that is \
                     gone for good, and run this again",
                    place.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            looked => return self.allowed(place, "looked at", looked).map(|()| true),
        };
        if fits(&found) {
            return Ok(true);
        }
        Err(Failure::Failed(anyhow!(
            "{} is no {kind}, and is in the way of one; see what it is, and move it out of the data directory, or remove it. \
             Then run this again",
            place.display()
        )))
    }

    fn allowed<T>(&self, place: &Path, doing: &str, done: io::Result<T>) -> Result<(), Failure> {
        match done {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::Failed(anyhow!(
                "{place} cannot be {doing} by the user of this process (uid {user}): {error}. Nothing is lost by that, and \
                 nothing was changed: give the data directory with all that is in it to this user, as by `chown -R {user} \
                 {dir} && chmod -R u+rwX {dir}`, and run this again",
                place = place.display(),
                user = geteuid(),
                dir = self.dir.display(),
            ))),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Catches an operator who is told to mend a disk for something that only has to go, a log on a disk that is not mounted
    /// that counts as lost, and a node that does not start for what is none of its own. (Owners: `owners` of the processes.)
    #[test]
    fn what_is_in_the_way_is_named() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dir = place.path().join("data");
        let says = || check(&dir).err().map(|why| why.to_string()).unwrap_or_default();
        assert_eq!(says(), "", "nothing is there yet");
        fs::create_dir_all(dir.join("state.damaged-1")).expect("made");
        fs::write(dir.join("log.damaged-1"), "").expect("written");
        symlink("nothing", dir.join("lost")).expect("a link");
        assert_eq!(says(), "");
        for name in ["checkpoints", "log", "state"] {
            fs::write(dir.join(name), "").expect("written");
            assert!(says().contains(&format!("{name} is no directory, and is in the way")), "{}", says());
            fs::remove_file(dir.join(name)).expect("removed");
            symlink("nothing", dir.join(name)).expect("a link");
            assert!(says().contains(&format!("{name} is a symbolic link that leads to nothing")), "{}", says());
            fs::remove_file(dir.join(name)).expect("removed");
            fs::create_dir(dir.join(name)).expect("made");
        }
        for name in FILES {
            fs::create_dir(dir.join(name)).expect("made");
            assert!(says().contains(&format!("{name} is no file, and is in the way")), "{}", says());
            fs::remove_dir(dir.join(name)).expect("removed");
            fs::write(dir.join(name), "").expect("written");
        }
        assert_eq!(says(), "");
    }
}
