//! Judges a whole file before anything is made of it, and hands over what is made of it.

use std::io::Read;

use protocol::{SnapshotPiece, SnapshotRecord, membership};
use storage::Digest;

use super::format::{BackupError, Manifest, Reader};

/// Whether a record is part of a restored state. The membership is not: it names the nodes of the old cluster, and the
/// new one begins with those of its configuration.
fn is_kept(record: &SnapshotRecord) -> bool {
    !matches!(record, SnapshotRecord::Entry { key, .. } if *key == membership::key())
}

/// Reads a whole file and compares the digest of its records with the one in its manifest; says also the digest of what
/// is restored of them. `reached` is told how many bytes were read.
///
/// # Errors
/// [`BackupError`].
pub(super) fn verify(file: impl Read, reached: &mut dyn FnMut(u64)) -> Result<(Manifest, [u8; 32]), BackupError> {
    let (mut reader, manifest) = Reader::open(file)?;
    let (mut digest, mut kept) = (Digest::default(), Digest::default());
    while let Some(piece) = reader.piece()? {
        piece.records.iter().for_each(|record| digest.add(record));
        piece.records.iter().filter(|record| is_kept(record)).for_each(|record| kept.add(record));
        reached(reader.bytes());
    }
    if hex(&digest.finish()) != manifest.digest {
        return Err(BackupError::OtherState);
    }
    Ok((manifest, kept.finish()))
}

/// What is restored of a file, piece by piece. One of which nothing is kept becomes part of its neighbour: no store takes
/// an empty piece between others.
pub(super) struct Kept<R> {
    reader: Reader<R>,
    next: Option<SnapshotPiece>,
}

impl<R: Read> Kept<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(super) fn open(file: R) -> Result<(Self, Manifest), BackupError> {
        let (reader, manifest) = Reader::open(file)?;
        let mut kept = Self { reader, next: None };
        kept.next = kept.read()?;
        Ok((kept, manifest))
    }

    /// The next piece; `None` at the end of a whole file.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(super) fn piece(&mut self) -> Result<Option<SnapshotPiece>, BackupError> {
        let Some(mut piece) = self.next.take() else { return Ok(None) };
        while let Some(next) = self.read()? {
            if next.records.is_empty() {
                piece.next = next.next;
            } else if piece.records.is_empty() {
                piece = SnapshotPiece { from: piece.from, ..next };
            } else {
                self.next = Some(next);
                break;
            }
        }
        Ok(Some(piece))
    }

    /// How many bytes were read.
    pub(super) fn bytes(&self) -> u64 {
        self.reader.bytes()
    }

    fn read(&mut self) -> Result<Option<SnapshotPiece>, BackupError> {
        let mut piece = self.reader.piece()?;
        piece.iter_mut().for_each(|piece| piece.records.retain(is_kept));
        Ok(piece)
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads [`hex`] back.
pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
