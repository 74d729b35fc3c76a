//! The mark: the little of a node that must never be lost.
//!
//! Which disk this is, how often the node was started on it, which ballots the node has promised and
//! tried, under which membership it voted last, and which disks the other nodes were last known with. It changes rarely, so it is kept twice:
//! in the log database and in the file `MARK`, which is written aside, synced and renamed *after* the
//! batch that changes it in the log: that batch may have more in it, and the mark must not say what depends
//! on the rest. Nothing is told before both are durable. Whichever of the two is damaged, the other one has
//! what was told; where both are readable, the newer one holds, with the higher ballots of the two.
//!
//! So a crash never leaves the file ahead. A log that is behind it has lost what it held, even where RocksDB
//! sees nothing amiss in it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use protocol::{Ballot, CommandNumber, NodeId};

use super::meaning::unreadable;
use super::record;
use crate::{Identity, LogRecord, Standing, StorageError};

/// The name of the file.
const FILE: &str = "MARK";

/// Which disk: drawn when a data directory is made. Two data directories never have the same one, unless
/// one is a copy of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub [u8; 16]);

impl DiskId {
    fn draw() -> Self {
        let (high, low) = (u128::from(draw()), u128::from(draw()));
        Self((high << 64 | low).to_be_bytes())
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What the operating system gives for keys of hash tables is as good as any number that nobody foresees.
fn draw() -> u64 {
    RandomState::new().hash_one(0)
}

/// What a node was last known with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Noted {
    /// Its disk.
    pub disk: DiskId,
    /// How often it was started on it.
    pub starts: u64,
    /// [`Mark::run`] of that start.
    pub run: u64,
    /// Its promise.
    pub promise: Ballot,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Rises with every change.
    pub(crate) revision: u64,
    /// Whose it is.
    pub identity: Identity,
    /// Which disk it is.
    pub disk: DiskId,
    /// How often the node was started on this disk, this time included.
    pub starts: u64,
    /// Drawn at each start: two starts from copies of one directory have different ones.
    pub run: u64,
    /// See [`crate::LogImage::last_tried`].
    pub last_tried: Ballot,
    /// See [`crate::LogImage::next_ballot`].
    pub next_ballot: Ballot,
    /// See [`crate::LogImage::standing`].
    pub standing: Standing,
    /// See [`crate::LogImage::voted_under`].
    pub voted_under: CommandNumber,
    /// Votes in ballots up to this one may have been lost here, with a damaged log.
    pub votes_lost: Ballot,
    /// Why other nodes refused this disk for good, if they did.
    pub refused: Option<String>,
    /// What the other nodes were last known with.
    pub peers: BTreeMap<NodeId, Noted>,
}

impl Mark {
    /// The one of a directory that has none.
    pub(crate) fn new(identity: Identity, standing: Standing) -> Self {
        Self {
            revision: 0,
            identity,
            disk: DiskId::draw(),
            starts: 0,
            run: 0,
            last_tried: Ballot::default(),
            next_ballot: Ballot::default(),
            standing,
            voted_under: CommandNumber::NULL,
            votes_lost: Ballot::default(),
            refused: None,
            peers: BTreeMap::new(),
        }
    }

    /// The newer of two copies, with the higher ballots of both, and the later membership.
    pub(crate) fn newer(self, other: Self) -> Self {
        let (last_tried, next_ballot) =
            (self.last_tried.max(other.last_tried), self.next_ballot.max(other.next_ballot));
        let voted_under = self.voted_under.max(other.voted_under);
        let newer = if self.revision >= other.revision { self } else { other };
        Self { last_tried, next_ballot, voted_under, ..newer }
    }

    /// One more start.
    pub(crate) fn start(&mut self) {
        self.starts += 1;
        self.run = draw();
    }

    /// Whether it has what the record says.
    pub(crate) fn has(record: &LogRecord) -> bool {
        match record {
            LogRecord::LastTried(_) | LogRecord::NextBallot(_) | LogRecord::Standing(_) | LogRecord::VotedUnder(_) => {
                true
            }
            LogRecord::Vote(_) | LogRecord::Forget(_) => false,
        }
    }

    /// What it is once `records` are in the log.
    pub(crate) fn take(&mut self, records: &[LogRecord]) {
        for record in records {
            match record {
                LogRecord::LastTried(ballot) => self.last_tried = *ballot,
                LogRecord::NextBallot(ballot) => self.next_ballot = *ballot,
                LogRecord::Standing(standing) => self.standing = *standing,
                LogRecord::VotedUnder(number) => self.voted_under = *number,
                LogRecord::Vote(_) | LogRecord::Forget(_) => {}
            }
        }
    }

    /// The log with its votes is gone: a new one begins with what the mark has.
    pub(crate) fn lose_votes(&mut self) {
        self.standing = match self.standing {
            Standing::Sound | Standing::Damaged => Standing::Damaged,
            // Who has not been admitted has cast no vote, and does not get past its admission in this way.
            not_admitted @ (Standing::Fresh | Standing::Replaced) => not_admitted,
        };
        self.votes_lost = self.next_ballot;
    }
}

/// What a data directory has for a mark.
pub(crate) enum Found {
    /// No file.
    Nothing,
    /// A damaged one, and how.
    Unreadable(String),
    /// It.
    Whole(Mark),
}

/// Reads the file of a data directory.
///
/// # Errors
/// One that is whole and of a newer version, or may be whole.
pub(crate) fn read(dir: &Path) -> Result<Found, StorageError> {
    let path = file(dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        // What may not be read, or not now, may be whole.
        Err(error) => {
            return match unreadable(&format!("reading {}", path.display()), &error) {
                StorageError::Corrupt(why) => Ok(Found::Unreadable(why)),
                error @ (StorageError::Failed(_) | StorageError::Refused(_)) => Err(error),
            };
        }
    };
    let Some((sum, mark)) = bytes.split_first_chunk() else {
        return Ok(Found::Unreadable(format!("it has {} bytes only", bytes.len())));
    };
    if crc32c::crc32c(mark) != u32::from_be_bytes(*sum) {
        return Ok(Found::Unreadable("its checksum does not fit".to_owned()));
    }
    let newer = |why| StorageError::Refused(format!("the file {} is not readable: {why}", path.display()));
    record::read_mark(mark).map(Found::Whole).map_err(newer)
}

/// Writes the file: afterwards it is durably there, whole.
pub(crate) fn write(dir: &Path, mark: &Mark) -> io::Result<()> {
    let mark = record::mark(mark);
    let bytes = [&crc32c::crc32c(&mark).to_be_bytes()[..], &mark].concat();
    write_whole(dir, FILE, &bytes)
}

/// Writes a file of a data directory aside, syncs and renames it: it is there whole, as it was, or not at all, and
/// durable afterwards.
///
/// # Errors
/// When the disk fails.
pub fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let aside = dir.join(format!("{name}.new"));
    // The name that an error has to tell is not that of the file.
    let told = |error: io::Error| io::Error::new(error.kind(), format!("making {}: {error}", aside.display()));
    let mut written = File::create(&aside).map_err(told)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    fs::rename(&aside, dir.join(name))?;
    sync_directory(dir)
}

pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the name of a directory durable, and those of all above it that may have been made with it.
pub(crate) fn sync_above(dir: &Path) -> io::Result<()> {
    let dir = fs::canonicalize(dir)?;
    let disk = fs::metadata(&dir)?.dev();
    for above in dir.ancestors().skip(1) {
        // Nobody makes a directory on one disk with another one on the next: that was mounted before.
        if fs::metadata(above)?.dev() != disk {
            break;
        }
        match sync_directory(above) {
            // Whoever made it could read it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}
