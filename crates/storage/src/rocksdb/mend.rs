//! What is damaged is set aside, and a new database begins in its place.
//!
//! A file `DAMAGED-log` or `DAMAGED-state` says that the database of that name is not to be used any more. A
//! running node that finds a bad block leaves it; so does a start that cannot open the database. Every start
//! that finds one sets the database aside, makes a new one, and removes the file when all that the new one needs
//! is in it: wherever a crash comes in between, the next start finds the file and begins again. (`open` says what
//! is in the new one.) Nobody has used the new one by then, so that it may be thrown away and made again.
//!
//! What is set aside is for people. Only the last one of each database is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::mark::{sync_directory, write_whole};

/// One of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Log,
    State,
}

impl Part {
    pub(crate) const BOTH: [Self; 2] = [Self::Log, Self::State];

    /// The name of its directory.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::State => "state",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|part| part.name() == name)
    }

    fn marker(self) -> String {
        format!("DAMAGED-{}", self.name())
    }

    fn aside(self) -> String {
        format!("{}.damaged-", self.name())
    }

    /// Whether this is what was set aside, and not what somebody else has put beside it.
    fn is_aside(self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(&self.aside()));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    }
}

/// Why a database is not to be used, if so.
pub(crate) fn damaged(dir: &Path, part: Part) -> io::Result<Option<String>> {
    match fs::read_to_string(dir.join(part.marker())) {
        Ok(why) => Ok(Some(why.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says so, durably.
pub(crate) fn leave_marker(dir: &Path, part: Part, why: &str) -> io::Result<()> {
    write_whole(dir, &part.marker(), format!("{why}\n").as_bytes())
}

/// The new database has all that it needs.
pub(crate) fn remove_marker(dir: &Path, part: Part) -> io::Result<()> {
    fs::remove_file(dir.join(part.marker()))?;
    sync_directory(dir)
}

/// Sets a database aside, and returns where it is then. `number` is the same whenever this is tried again after a
/// crash: what lies in its place by then is a new database that was not finished.
pub(crate) fn set_aside(dir: &Path, part: Part, number: u64) -> io::Result<PathBuf> {
    let place = dir.join(part.name());
    let aside = dir.join(format!("{}{number}", part.aside()));
    if is_there(&aside)? {
        remove_all(&place)?;
    } else if is_there(&place)? {
        fs::rename(&place, &aside)?;
    } else {
        fs::create_dir(&aside)?;
    }
    sync_directory(dir)?;
    step()?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path != aside
            && part.is_aside(&path)
            && let Err(error) = remove_all(&path)
        {
            // It keeps room, and harms nothing else.
            tracing::warn!(path = %path.display(), %error, "what was set aside before is not removed; remove it");
        }
    }
    Ok(aside)
}

/// A link, too, that leads nowhere.
fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A directory, a file, or a link, but not what that leads to.
fn remove_all(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Between two steps whose order matters: the tests cut a start short here.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "it fails in tests")]
pub(crate) fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use cut::step;

#[cfg(test)]
pub(crate) mod cut {
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
    use std::os::unix::fs::symlink;

    use super::*;

    /// Catches a node that does not heal, and never will, for a file or a link with the name of what was set aside; and one
    /// that removes what somebody else has put there, or what a link leads to.
    #[test]
    fn only_what_was_set_aside_is_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        let file = |name: &str| fs::write(at(name), name).expect("written");
        let others =
            ["log.damaged-", "log.damaged-7.tgz", "log.damaged-7b", "log.damaged-+7", "state.damaged-1", "mine/kept"];
        fs::create_dir(at("mine")).expect("made");
        others.iter().for_each(|name| file(name));
        symlink("mine", at("log.damaged-2")).expect("a link");
        symlink("nothing", at("log.damaged-3")).expect("a link");
        file("log.damaged-4");
        fs::create_dir_all(at("log.damaged-5/deep")).expect("made");
        // Tried again after a crash, with a link or a file where the new database should be.
        for number in [8, 8, 9] {
            file("log");
            assert_eq!(
                set_aside(dir.path(), Part::Log, number).expect("set aside"),
                at(&format!("log.damaged-{number}"))
            );
        }
        let entries = fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let mut left: Vec<_> = entries.map(|name| name.into_string().expect("text")).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "log.damaged-",
                "log.damaged-+7",
                "log.damaged-7.tgz",
                "log.damaged-7b",
                "log.damaged-9",
                "mine",
                "state.damaged-1"
            ]
        );
        assert!(at("mine/kept").exists(), "what a link led to");
    }
}
