//! Reading RocksDB's write-ahead log before RocksDB does, only to see whether it may have lost
//! acknowledged writes.
//!
//! RocksDB, told to tolerate a torn tail, reports a record with a wrong checksum, but takes a
//! damaged *length* that points past the end of the file for a torn tail, and skips a block
//! from a zeroed header on; what followed is then dropped in silence (S-15). Here is the other
//! half of the check. Our log has one writer, which syncs each batch before the next one
//! (`Database::write`), so at most the last batch can be torn: when a readable record *begins*
//! after an unreadable place, the unreadable place was acknowledged.
//!
//! That needs a torn batch to hold nothing that looks like a record. What callers write is in
//! votes, and those are stored under a mask that no caller foresees (`record::vote`): whatever a
//! value looks like, in the log it is noise, of which any place passes for a record with a chance of
//! 2^-32.
//!
//! The format: blocks of 32 KiB; in them fragments, each with a checksum (masked CRC-32C of type
//! and content), a length and a type. A record is one `Full` fragment or `First`, `Middle`s,
//! `Last`. A block's last bytes, too few for a header, are zero.

use std::fs;
use std::path::{Path, PathBuf};

use super::meaning::unreadable;
use crate::StorageError;

pub(super) const BLOCK: usize = 32 * 1024;
pub(super) const HEADER: usize = 7;
pub(super) const FULL: u8 = 1;
pub(super) const FIRST: u8 = 2;
pub(super) const MIDDLE: u8 = 3;
pub(super) const LAST: u8 = 4;
/// The highest type that RocksDB 11 writes without recycling log files, which we do not do.
const HIGHEST_TYPE: u8 = 10;
/// Set in types that may be skipped.
const SKIPPABLE: u8 = 0x80;

/// Refuses a log in which readable records follow an unreadable place.
pub(crate) fn check(database: &Path) -> Result<(), StorageError> {
    let mut unreadable: Option<(PathBuf, usize)> = None;
    for path in files(database)? {
        let bytes = read(&path)?;
        let found = scan(&bytes);
        if let Some((file, offset)) = &unreadable
            && found.begins_a_record
        {
            return Err(damaged(file, *offset));
        }
        if let Some(offset) = found.unreadable {
            if found.readable_after {
                return Err(damaged(&path, offset));
            }
            unreadable.get_or_insert((path, offset));
        }
    }
    Ok(())
}

/// The write-ahead log files of a database, the oldest first; none when there is no database.
pub(crate) fn files(database: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let failed = |error| unreadable(&format!("listing {}", database.display()), &error);
    if !database.try_exists().map_err(failed)? {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(database).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let Some(number) = number
            && path.extension().is_some_and(|extension| extension == "log")
        {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Passes on each record of a database's log files, in order, as far as they are readable.
pub(crate) fn records(database: &Path, mut each: impl FnMut(&[u8])) -> Result<(), StorageError> {
    for path in files(database)? {
        let bytes = read(&path)?;
        let mut record = Vec::new();
        'file: for block in bytes.chunks(BLOCK) {
            let mut rest = block;
            while rest.len() >= HEADER {
                let Some((kind, length)) = fragment(rest) else { break 'file };
                let (this, after) = rest.split_at(HEADER + length);
                if begins(kind) {
                    record.clear();
                }
                if matches!(kind, FULL | FIRST | MIDDLE | LAST) {
                    record.extend_from_slice(&this[HEADER..]);
                }
                if matches!(kind, FULL | LAST) {
                    each(&record);
                }
                rest = after;
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, StorageError> {
    fs::read(path).map_err(|error| unreadable(&format!("reading the log file {}", path.display()), &error))
}

fn damaged(file: &Path, offset: usize) -> StorageError {
    StorageError::Corrupt(format!(
        "the log file {} is damaged at byte {offset}, and acknowledged writes follow",
        file.display()
    ))
}

/// What a scan of one file found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the first place lies that is neither a fragment nor the end.
    pub(super) unreadable: Option<usize>,
    /// Whether a record begins after that place.
    pub(super) readable_after: bool,
    /// Whether a record begins anywhere.
    pub(super) begins_a_record: bool,
}

pub(super) fn scan(bytes: &[u8]) -> Scan {
    let mut found = Scan::default();
    let mut open_record: Option<usize> = None;
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let mut at = 0;
        while block.len() - at >= HEADER {
            let Some((kind, length)) = fragment(&block[at..]) else {
                found.unreadable.get_or_insert(index * BLOCK + at);
                // The length is not to be trusted: look at every byte of the block.
                let later =
                    (at + 1..block.len()).find(|&at| fragment(&block[at..]).is_some_and(|(kind, _)| begins(kind)));
                found.readable_after |= later.is_some();
                at = block.len();
                break;
            };
            if begins(kind) {
                found.begins_a_record = true;
                found.readable_after |= found.unreadable.is_some();
                // A record that was begun and never ended, and then another one.
                if let Some(begun) = open_record {
                    found.unreadable.get_or_insert(begun);
                    found.readable_after = true;
                }
            }
            match kind {
                FIRST => open_record = Some(index * BLOCK + at),
                FULL | LAST => open_record = None,
                _ => {}
            }
            at += HEADER + length;
        }
        let rest = &block[at..];
        let ends_here = rest.len() < HEADER && (block.len() == BLOCK || rest.is_empty());
        if !ends_here && at < block.len() {
            found.unreadable.get_or_insert(index * BLOCK + at);
        }
    }
    if let Some(begun) = open_record {
        found.unreadable.get_or_insert(begun);
    }
    found
}

fn begins(kind: u8) -> bool {
    kind == FULL || kind == FIRST
}

/// The type and length of the fragment that begins here, if one does.
fn fragment(bytes: &[u8]) -> Option<(u8, usize)> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let kind = header[6];
    let known = (FULL..=HIGHEST_TYPE).contains(&kind) || kind & SKIPPABLE != 0;
    if !known {
        return None;
    }
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let checked = bytes.get(6..HEADER + length)?;
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    (mask(crc32c::crc32c(checked)) == stored).then_some((kind, length))
}

/// RocksDB stores checksums masked, because a checksum of bytes that contain checksums is weak.
fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Writes a fragment as RocksDB does; for tests.
pub(super) fn fragment_of(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut checked = vec![kind];
    checked.extend_from_slice(content);
    let length = u16::try_from(content.len()).expect("fits a block");
    [&mask(crc32c::crc32c(&checked)).to_le_bytes()[..], &length.to_le_bytes(), &checked].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Vec<u8>, usize) {
        let one = fragment_of(FULL, &[1; 100]);
        let length = one.len();
        ([one, fragment_of(FULL, &[2; 100]), fragment_of(FULL, &[3; 100])].concat(), length)
    }

    /// S-15: catches a torn tail, which is honest, being refused: wherever the last record is
    /// cut, nothing readable follows.
    #[test]
    fn a_torn_last_record_is_not_damage() {
        let (bytes, length) = three();
        for cut in 2 * length..bytes.len() {
            let found = scan(&bytes[..cut]);
            assert!(!found.readable_after, "cut at {cut}: {found:?}");
            assert_eq!(found.unreadable, (cut > 2 * length).then_some(2 * length), "cut at {cut}");
        }
    }

    /// S-15: catches acknowledged records being dropped in silence: whichever bit before the
    /// last record is flipped, in lengths and types too, readable records follow.
    #[test]
    fn any_flipped_bit_before_the_last_record_is_damage() {
        let (bytes, length) = three();
        for at in 0..2 * length {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let found = scan(&bytes);
                assert!(found.readable_after, "bit {bit} of byte {at}: {found:?}");
            }
        }
    }

    /// S-15: catches a lost middle of a record of several blocks, and a zeroed block.
    #[test]
    fn records_over_several_blocks_are_followed() {
        let first = fragment_of(FIRST, &[1; BLOCK - HEADER]);
        let middle = fragment_of(MIDDLE, &[2; BLOCK - HEADER]);
        let last = fragment_of(LAST, &[3; 50]);
        let next = fragment_of(FULL, b"next");
        let whole = [&first[..], &middle, &last, &next].concat();
        assert_eq!(scan(&whole), Scan { begins_a_record: true, ..Scan::default() });
        let zeroed = [&first[..], &[0; BLOCK], &last, &next].concat();
        assert!(scan(&zeroed).readable_after);
        let torn = [&first[..], &[0; BLOCK], &last].concat();
        assert!(!scan(&torn).readable_after, "the end of the torn record itself is not a later record");
        let never_ended = [&first[..], &next].concat();
        assert!(scan(&never_ended).readable_after);
    }

    /// Catches a block's filling being taken for damage.
    #[test]
    fn the_filling_of_a_block_is_not_damage() {
        let nearly = fragment_of(FULL, &[1; BLOCK - HEADER - 5]);
        let next = fragment_of(FULL, b"next");
        let found = scan(&[&nearly[..], &[0; 5], &next].concat());
        assert_eq!(found, Scan { begins_a_record: true, ..Scan::default() });
    }
}
