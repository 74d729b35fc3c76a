//! Judges a whole file before anything is made of it, and hands over what is made of it.

use std::io::Read;

use protocol::{Ballot, CommandId, CommandNumber, NodeId, SnapshotId, SnapshotPiece, SnapshotRecord, membership};
use storage::{Digest, Following};

use super::format::{BackupError, Manifest, Reader};

/// Whether a record is part of a restored state. The membership is not: it names the nodes of the old cluster, and the
/// new one begins with those of its configuration.
fn is_kept(record: &SnapshotRecord) -> bool {
    !matches!(record, SnapshotRecord::Entry { key, .. } if *key == membership::key())
}

/// Reads a whole file and judges whether a state can be made of it: its pieces follow each other, their records are those of
/// the digest in its manifest, and the last command is among them. Says also which state is restored of them. `reached` is
/// told how many bytes were read.
///
/// # Errors
/// [`BackupError`].
pub(super) fn verify(file: impl Read, reached: &mut dyn FnMut(u64)) -> Result<(Manifest, SnapshotId), BackupError> {
    let (mut reader, manifest) = Reader::open(file)?;
    let id = id(&manifest).ok_or(BackupError::OtherState)?;
    let mut following = Following::new(id);
    let (mut digest, mut kept) = (Digest::default(), Digest::default());
    // No state is without it, but for that of a cluster that had issued nothing, in which there is nothing.
    let (mut has_last, mut is_empty) = (false, true);
    while let Some(piece) = reader.piece()? {
        // Its seals fit: somebody made it so.
        if !following.takes(&piece) {
            return Err(reader.damaged("a piece that does not follow the one before"));
        }
        for record in &piece.records {
            digest.add(record);
            if is_kept(record) {
                kept.add(record);
            }
            is_empty = false;
            has_last |= matches!(record, SnapshotRecord::Outcome { outcome, .. } if outcome.command == id.at.number);
        }
        reached(reader.bytes());
    }
    if !following.is_whole() {
        return Err(reader.damaged("not all of its pieces"));
    }
    let is_a_state = if id.at == CommandId::NULL { is_empty } else { has_last };
    if hex(&digest.finish()) != manifest.digest || !is_a_state {
        return Err(BackupError::OtherState);
    }
    Ok((manifest, SnapshotId { digest: kept.finish(), ..id }))
}

/// The state that a manifest names.
fn id(manifest: &Manifest) -> Option<SnapshotId> {
    let (round, node) = manifest.ballot;
    let at = CommandId::new(Ballot { round, node: NodeId(node) }, CommandNumber(manifest.command));
    Some(SnapshotId { at, digest: from_hex(&manifest.digest)? })
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
