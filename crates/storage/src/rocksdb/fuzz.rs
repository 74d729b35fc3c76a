//! What must hold for bytes that stand where this module's own should: functions that panic when
//! it does not. Fuzzers feed them, and the tests replay what fuzzers found (docs/testing.md).

use std::fmt::Debug;
use std::ops::Range;

use super::keys::LogKey;
use super::wal::Scan;
use super::{record, wal};

/// Bytes as each kind of stored record, and as a key of the log: refused, or read and then written
/// as the same bytes.
///
/// # Panics
/// When a record is read that would be written differently: two nodes, or two versions, would not
/// agree on what is stored.
pub fn stored_record(bytes: &[u8]) {
    written_alike(bytes, record::read_ballot(bytes).map(record::ballot));
    written_alike(bytes, record::read_standing(bytes).map(record::standing));
    written_alike(bytes, record::read_mark(bytes).map(|mark| record::mark(&mark)));
    written_alike(bytes, record::read_counter(bytes).map(record::counter));
    written_alike(bytes, record::read_head(bytes).map(|head| record::head(&head)));
    written_alike(bytes, record::read_staged(bytes).map(|staged| record::staged(&staged)));
    written_alike(bytes, record::read_command(bytes).map(|(place, command)| record::command(place, &command)));
    written_alike(bytes, record::read_aged(bytes).map(|(hash, request)| record::aged(&hash, &request)));
    written_alike(bytes, record::read_entry(bytes).map(|entry| record::entry(entry.version, &entry.value)));
    written_alike(bytes, record::read_outcome(bytes).map(|outcome| record::outcome(&outcome)));
    written_alike(bytes, record::read_identity(bytes).map(|identity| record::identity(&identity)));
    written_alike(bytes, LogKey::from_bytes(bytes).map(LogKey::to_bytes).ok_or("no key of the log"));
    // A vote is written under a mask of its own.
    if let Ok(vote) = record::read_vote(bytes) {
        assert_eq!(record::read_vote(&record::vote(&vote, 7)), Ok(vote));
    }
}

fn written_alike<E: Debug>(bytes: &[u8], written: Result<Vec<u8>, E>) {
    if let Ok(written) = written {
        assert_eq!(written, bytes, "a record is read as something that is written differently");
    }
}

/// Where a record stops being added to the log that [`log_file`] makes, in bytes: some blocks.
const LOG_BYTES: usize = 96 << 10;

/// Bytes as a file of RocksDB's write-ahead log; then as the plan of such a file, because chance
/// makes no checksums: four bytes say where it is cut or damaged, one says which bit, and each two
/// of the rest are the length of a record. A file as RocksDB writes it is whole; one that is cut
/// in its last record is torn, which is honest; one that is damaged before its last record is not.
///
/// # Panics
/// When a start would refuse an honest log, or take a damaged one.
pub fn log_file(bytes: &[u8]) {
    let found = wal::scan(bytes);
    assert!(found.unreadable.is_some() || !found.readable_after, "{found:?}");
    assert!(found.unreadable.is_none_or(|offset| offset < bytes.len()), "{found:?}");

    let Some((&[a, b, c, d, bit], lengths)) = bytes.split_first_chunk() else { return };
    let place = u32::from_be_bytes([a, b, c, d]);
    let log = LogFile::of(lengths.as_chunks().0.iter().map(|length| usize::from(u16::from_be_bytes(*length))));
    let whole = Scan { begins_a_record: !log.bytes.is_empty(), ..Scan::default() };
    assert_eq!(wal::scan(&log.bytes), whole, "a log without damage");

    let within = |length: usize| usize::try_from(place).expect("64 bits").checked_rem(length);
    if let Some(torn) = within(log.bytes.len() - log.last) {
        let found = wal::scan(&log.bytes[..log.last + torn]);
        assert!(!found.readable_after && found.unreadable.is_some() == (torn > 0), "cut after {torn} bytes: {found:?}");
    }
    if let Some(at) = within(log.last) {
        let mut damaged = log.bytes.clone();
        damaged[at] ^= 1 << (bit % 8);
        let found = wal::scan(&damaged);
        if log.fillings.iter().any(|filling| filling.contains(&at)) {
            assert_eq!(found, whole, "the filling of a block is not read");
        } else {
            assert!(found.readable_after, "bit {bit} of byte {at}: {found:?}");
        }
    }
}

/// A log as RocksDB writes it.
#[derive(Default)]
struct LogFile {
    bytes: Vec<u8>,
    /// Where the last record begins.
    last: usize,
    /// The ends of blocks that hold no fragment.
    fillings: Vec<Range<usize>>,
}

impl LogFile {
    fn of(lengths: impl Iterator<Item = usize>) -> Self {
        let mut log = Self::default();
        for length in lengths {
            if log.bytes.len() >= LOG_BYTES {
                break;
            }
            log.append(length);
        }
        log
    }

    /// Appends a record of that many bytes, none of which can be taken for a fragment's type.
    fn append(&mut self, length: usize) {
        let content = vec![b'x'; length];
        let (mut rest, mut begins) = (&content[..], true);
        loop {
            let mut room = wal::BLOCK - self.bytes.len() % wal::BLOCK;
            if room < wal::HEADER {
                self.fillings.push(self.bytes.len()..self.bytes.len() + room);
                self.bytes.resize(self.bytes.len() + room, 0);
                room = wal::BLOCK;
            }
            if begins {
                self.last = self.bytes.len();
            }
            let (part, later) = rest.split_at(rest.len().min(room - wal::HEADER));
            let kind = match (begins, later.is_empty()) {
                (true, true) => wal::FULL,
                (true, false) => wal::FIRST,
                (false, false) => wal::MIDDLE,
                (false, true) => wal::LAST,
            };
            self.bytes.extend(wal::fragment_of(kind, part));
            (rest, begins) = (later, false);
            if rest.is_empty() {
                return;
            }
        }
    }
}
