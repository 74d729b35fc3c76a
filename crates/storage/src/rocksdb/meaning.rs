//! What an error means: damage, a failing disk, or a database of another version.
//!
//! - *Damage* is what cannot be read: a checksum that does not fit, a file that another one names and that is not there, a
//!   sector that the disk does not give back. The next start sets it aside and begins anew (module `mend`). Before, it has
//!   noted so durably: a disk that is gone for a moment, or takes no writes, fails there, and nothing is set aside.
//! - A *failing disk* is whatever else the operating system says, of writes and syncs above all. Nothing is tried again.
//!   What belongs to another user is of that kind, too, whatever RocksDB makes of it: it may be whole.
//! - *Another version* wrote it: a column, a format or a compression that this one does not know. All is there, and stays
//!   as it is: begun anew on every node after a downgrade, it would be gone.
//!
//! RocksDB tells errors as texts, and its binding makes a kind of how they begin. Where the kind does not tell these
//! apart, the text must.

use std::io;
use std::path::Path;

use ::rocksdb::ErrorKind;

use crate::{NOT_OURS, StorageError, says_one_of};

/// What Linux says of a sector that cannot be read, and of one that a file system knows to be wrong: EIO, ENODATA,
/// EBADMSG, EUCLEAN.
const UNREADABLE: [i32; 4] = [5, 61, 74, 117];

/// How RocksDB calls what it did when it read. (A write or a sync that fails has other names, and is no damage.)
const READING: [&str; 5] = [
    "IO error: While pread",
    "IO error: While reading file sequentially",
    "IO error: While open a file for random read",
    "IO error: While opening a file for sequentially reading",
    "IO error: while stat a file for size",
];

/// What RocksDB calls corruption although a checksum stands for most of it: it was written so. The first two stand in a
/// table's footer before its checksum, so they may be damage after all; what is refused is not lost by it.
const OF_ANOTHER_VERSION: [&str; 7] = [
    "unsupported format_version",
    "unsupported checksum type",
    "Unrecognized compression_name",
    "Unrecognized feature in block footer",
    "unsupported critical custom field",
    "unknown tag",
    "unknown WriteBatch tag",
];

/// What an error of RocksDB means to us.
pub(crate) fn translate(doing: &str, error: &::rocksdb::Error) -> StorageError {
    meant(doing, &error.kind(), error.as_ref())
}

/// The same for one that keeps a database from being opened.
pub(crate) fn opening_failed(path: &Path, name: &str, error: &::rocksdb::Error) -> StorageError {
    let (kind, text) = (error.kind(), error.as_ref());
    // RocksDB gives a held lock no kind of its own: "While lock file: …" from the operating
    // system, "lock hold by current process, …" from its own table.
    if (text.contains("lock file") || text.contains("lock hold")) && !says_one_of(&NOT_OURS, text) {
        return held(path.parent().unwrap_or(path));
    }
    meant_at_opening(&format!("opening database `{name}` at {}", path.display()), &kind, text)
}

fn meant(doing: &str, kind: &ErrorKind, text: &str) -> StorageError {
    let said = format!("{doing}: {text}");
    let is_one_of = |texts: &[&str]| texts.iter().any(|part| text.contains(part));
    // Whatever else RocksDB makes of it: what belongs to another user may be whole.
    if says_one_of(&NOT_OURS, text) {
        StorageError::Failed(said)
    } else if *kind == ErrorKind::NotSupported || *kind == ErrorKind::Corruption && is_one_of(&OF_ANOTHER_VERSION) {
        of_another_version(&said)
    } else if *kind == ErrorKind::Corruption || is_unreadable(text) {
        StorageError::Corrupt(said)
    } else {
        StorageError::Failed(said)
    }
}

fn meant_at_opening(doing: &str, kind: &ErrorKind, text: &str) -> StorageError {
    let said = format!("{doing}: {text}");
    // A file that another one names, or the first of all.
    if text.contains("No such file") || text.contains("does not exist (create_if_missing") {
        return StorageError::Corrupt(said);
    }
    match meant(doing, kind, text) {
        // Neither of the operating system nor of the binding: RocksDB does not want to open it, whole as it is.
        StorageError::Failed(_)
            if !matches!(kind, ErrorKind::IOError | ErrorKind::Unknown) && !says_one_of(&NOT_OURS, text) =>
        {
            of_another_version(&said)
        }
        meant @ (StorageError::Failed(_) | StorageError::Corrupt(_) | StorageError::Refused(_)) => meant,
    }
}

fn of_another_version(said: &str) -> StorageError {
    StorageError::Refused(format!(
        "{said}. Another version has written it, or this one cannot open it here: start the version that wrote it. Nothing \
         was changed. If no other version was ever here, it is damaged: `quorate recover --force` gives the data directory \
         up, and this node joins anew"
    ))
}

/// Whether RocksDB was told so when it read.
fn is_unreadable(text: &str) -> bool {
    READING.iter().any(|reading| text.starts_with(reading)) && says_one_of(&UNREADABLE, text)
}

/// What it means that we cannot read a file or a directory ourselves.
pub(crate) fn unreadable(doing: &str, error: &io::Error) -> StorageError {
    let said = format!("{doing}: {error}");
    if error.raw_os_error().is_some_and(|number| UNREADABLE.contains(&number)) {
        StorageError::Corrupt(said)
    } else {
        StorageError::Failed(said)
    }
}

/// Whether there may be something: what cannot be looked at is there.
#[must_use]
pub fn may_exist(path: &Path) -> bool {
    path.try_exists().unwrap_or_else(|error| error.kind() != io::ErrorKind::NotADirectory)
}

/// Two processes on one directory.
pub(crate) fn held(dir: &Path) -> StorageError {
    StorageError::Refused(format!(
        "another process holds the data directory {}: if this node runs already, stop it first (its log and its /readyz say \
         how it is); if it is another one, give this node a directory of its own",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(meant: &StorageError) -> &'static str {
        match meant {
            StorageError::Failed(_) => "failed",
            StorageError::Corrupt(_) => "damage",
            StorageError::Refused(_) => "refused",
        }
    }

    /// Catches what cannot be looked at being taken for absent, so that something else is made in its place. (A name that is
    /// too long cannot be looked at by root either.)
    #[test]
    fn only_what_is_known_to_be_absent_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "").expect("written");
        let there = ["file", "none", "file/in it", &"n".repeat(1000)].map(|name| may_exist(&at(name)));
        assert_eq!(there, [true, false, false, true]);
    }

    /// S-12, S-15: catches a failed write or sync that counts as damage, so that the next start goes on; an unreadable
    /// sector with which no start succeeds; and what another version wrote being set aside. The texts are those of RocksDB.
    #[test]
    fn each_error_means_one_thing() {
        use ErrorKind::{Aborted, Corruption, IOError, InvalidArgument, NotSupported, Unknown};
        let eio = |doing: &str| format!("IO error: {doing}: /data/n1/log/000009.sst: Input/output error");
        let texts = [
            (IOError, eio("While pread offset 0 len 53"), "damage", "damage"),
            (IOError, eio("While reading file sequentially"), "damage", "damage"),
            (IOError, eio("While open a file for random read"), "damage", "damage"),
            (IOError, eio("While appending to file"), "failed", "failed"),
            (IOError, eio("While pwrite to file at offset 0"), "failed", "failed"),
            (IOError, eio("While fdatasync"), "failed", "failed"),
            (IOError, eio("While fsync"), "failed", "failed"),
            (IOError, eio("While open a file for appending"), "failed", "failed"),
            (
                IOError,
                "IO error: While open a file for random read: /d: Too many open files".to_owned(),
                "failed",
                "failed",
            ),
            (IOError, "IO error: No space left on device: While appending to file: /d".to_owned(), "failed", "failed"),
            (IOError, "IO error: No such file or directory: While opening a file".to_owned(), "failed", "damage"),
            (
                Corruption,
                "Corruption: block checksum mismatch: stored = 1, computed = 2".to_owned(),
                "damage",
                "damage",
            ),
            (
                Corruption,
                "Corruption: Corrupt or unsupported format_version 8 for magic 9".to_owned(),
                "refused",
                "refused",
            ),
            (Corruption, "Corruption: VersionEdit: unknown tag".to_owned(), "refused", "refused"),
            (Corruption, "Corruption: unknown WriteBatch tag: 99".to_owned(), "refused", "refused"),
            (NotSupported, "Not implemented: LZ4 not supported in this build".to_owned(), "refused", "refused"),
            (InvalidArgument, "Invalid argument: Column families not opened: new".to_owned(), "failed", "refused"),
            (Aborted, "Operation aborted: Memory limit reached".to_owned(), "failed", "refused"),
            (Unknown, "Failed to create RocksDB directory: `Permission denied`.".to_owned(), "failed", "failed"),
            (
                InvalidArgument,
                "Invalid argument: Found options incompatible with filesystem: IO error: While open a file for random read: \
                 /d/CURRENT: Permission denied"
                    .to_owned(),
                "failed",
                "failed",
            ),
        ];
        for (kind, text, running, at_opening) in texts {
            assert_eq!(name(&meant("reading", &kind, &text)), running, "{text}");
            assert_eq!(name(&meant_at_opening("opening", &kind, &text)), at_opening, "{text}, at opening");
        }
        let failed = |number| name(&unreadable("reading", &io::Error::from_raw_os_error(number)));
        assert_eq!([failed(5), failed(117), failed(13), failed(24)], ["damage", "damage", "failed", "failed"]);
    }
}
