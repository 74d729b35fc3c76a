//! The file: a magic word, then frames, each sealed together with all that came before it.
//!
//! ```text
//! "QRTBACK1"
//! kind u8 | length u32, big-endian | content | seal: 16 bytes     manifest (JSON)
//! …                                                               piece, as it travels between nodes
//! …                                                               end (JSON)
//! ```
//!
//! A seal is the beginning of BLAKE3 over the seal before it, the frame's header and its content;
//! before the first frame stands the hash of the magic word. So a frame that is changed, left out,
//! doubled or moved breaks the seal of the next one, and a file that is cut has no end.
//!
//! A new layout gets a new magic word; fields may be added to the JSON.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes, BytesMut};
use protocol::message::{Snapshot, ToLearner};
use protocol::{Message, SnapshotPiece};
use serde::{Deserialize, Serialize};
use transport::wire;

const MAGIC: &[u8; 8] = b"QRTBACK1";
/// What a file of any layout begins with.
pub(super) const BEGINS: &[u8] = b"QRTBACK";
const MANIFEST: u8 = 1;
const PIECE: u8 = 2;
const END: u8 = 3;
const HEADER: usize = 5;
const SEAL: usize = 16;
/// The longest content: a piece of 1 MiB, and one largest record beyond it, four times over.
const CONTENT_MAX: u32 = 8 << 20;

/// What a backup is of. Everything that a person asks of a file without restoring it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The version of the program that made it.
    pub(crate) version: String,
    /// The name of the cluster.
    pub(crate) cluster: String,
    /// The id of the cluster, in hexadecimal.
    pub(crate) cluster_id: String,
    /// The node that made it.
    pub(crate) node: String,
    /// When, by that node's clock.
    pub(crate) made: String,
    /// `linearizable`: all that was acknowledged before it was asked for is in it; `local`: what that node had applied.
    #[serde(default = "local")]
    pub(crate) consistency: String,
    /// The number of the last command in the state.
    pub(crate) command: u64,
    /// The ballot of that command's id.
    pub(crate) ballot: (u64, u64),
    /// The digest of the state, in hexadecimal.
    pub(crate) digest: String,
    /// About how many records follow; for showing progress.
    pub(crate) records: u64,
}

/// What earlier versions took.
fn local() -> String {
    "local".to_owned()
}

impl Manifest {
    /// Whether calls that were acknowledged before it was asked for may be missing.
    pub(crate) fn is_local(&self) -> bool {
        self.consistency != "linearizable"
    }
}

/// The end of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// How many pieces there were.
    pub(crate) pieces: u64,
    /// How many records were in them.
    pub(crate) records: u64,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// Something else than a backup.
    #[error("it is no backup made by quorate")]
    Foreign,
    /// A later layout.
    #[error("it was made by a newer version of quorate; use that version")]
    Newer,
    /// The end is missing.
    #[error("it is cut off after byte {0}; take the backup again, or use another copy")]
    Cut(u64),
    /// A seal does not fit, or what it seals cannot be read.
    #[error("it is damaged before byte {at} ({what}); use another copy")]
    Damaged {
        /// Where the reader stood.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Its seals fit, and yet its records are not the state that its manifest names.
    #[error("its records are not the state that its manifest names; use another copy")]
    OtherState,
    /// The disk.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

#[derive(Clone, Copy)]
struct Seal([u8; SEAL]);

impl Seal {
    fn first() -> Self {
        Self::of(&blake3::Hasher::new_derive_key("quorate backup 1, before the first frame"))
    }

    fn next(self, header: &[u8], content: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(header).update(content);
        Self::of(&hasher)
    }

    fn of(hasher: &blake3::Hasher) -> Self {
        let mut seal = [0; SEAL];
        hasher.finalize_xof().fill(&mut seal);
        Self(seal)
    }
}

/// Makes the bytes of a file, frame by frame.
pub(super) struct Writer {
    seal: Seal,
    end: End,
}

impl Writer {
    /// Begins a file; the bytes are its beginning.
    pub(super) fn begin(manifest: &Manifest) -> (Self, Bytes) {
        let (mut writer, mut file) = Self::bare();
        file.extend_from_slice(&writer.frame(MANIFEST, &json(manifest)));
        (writer, file.into())
    }

    pub(super) fn piece(&mut self, snapshot: Snapshot) -> Bytes {
        self.end.pieces += 1;
        self.end.records += snapshot.piece.as_ref().map_or(0, |piece| piece.records.len() as u64);
        let mut content = BytesMut::new();
        wire::encode(&Message::Learner(ToLearner::Snapshot(snapshot)), &mut content);
        self.frame(PIECE, &content)
    }

    pub(super) fn end(mut self) -> Bytes {
        let end = self.end;
        self.frame(END, &json(&end))
    }

    /// A file that holds nothing yet but its magic word.
    pub(super) fn bare() -> (Self, Vec<u8>) {
        (Self { seal: Seal::first(), end: End::default() }, MAGIC.to_vec())
    }

    /// Seals a frame.
    pub(super) fn frame(&mut self, kind: u8, content: &[u8]) -> Bytes {
        let length = u32::try_from(content.len()).expect("a piece is bounded");
        assert!(length <= CONTENT_MAX, "a piece is bounded");
        let mut frame = Vec::with_capacity(HEADER + content.len() + SEAL);
        frame.push(kind);
        frame.extend_from_slice(&length.to_be_bytes());
        self.seal = self.seal.next(&frame, content);
        frame.extend_from_slice(content);
        frame.extend_from_slice(&self.seal.0);
        frame.into()
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers become JSON")
}

/// Reads a file, and believes nothing in it before its seal fits.
pub(super) struct Reader<R> {
    file: R,
    at: u64,
    seal: Seal,
    seen: End,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(super) fn open(mut file: R) -> Result<(Self, Manifest), BackupError> {
        let mut magic = Vec::new();
        (&mut file).take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic != MAGIC {
            let ours = magic.len() == MAGIC.len() && magic.starts_with(BEGINS);
            return Err(if ours { BackupError::Newer } else { BackupError::Foreign });
        }
        let mut reader = Self { file, at: MAGIC.len() as u64, seal: Seal::first(), seen: End::default() };
        let (kind, content) = reader.frame()?;
        if kind != MANIFEST {
            return Err(reader.damaged("no manifest"));
        }
        let manifest = serde_json::from_slice(&content).map_err(|_| reader.damaged("a manifest that is not one"))?;
        Ok((reader, manifest))
    }

    /// The next piece; `None` at the end of a whole file.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(super) fn piece(&mut self) -> Result<Option<SnapshotPiece>, BackupError> {
        let (kind, content) = self.frame()?;
        match kind {
            PIECE => {
                let Some(piece) = piece_of(content.into()) else {
                    return Err(self.damaged("a piece that is not one"));
                };
                self.seen.pieces += 1;
                self.seen.records += piece.records.len() as u64;
                Ok(Some(piece))
            }
            END => {
                let end: End = serde_json::from_slice(&content).map_err(|_| self.damaged("an end that is not one"))?;
                if end != self.seen {
                    return Err(self.damaged("another number of records than its end says"));
                }
                match self.file.read(&mut [0])? {
                    0 => Ok(None),
                    _ => Err(self.damaged("something after its end")),
                }
            }
            _ => Err(self.damaged("a frame of an unknown kind")),
        }
    }

    /// How many bytes were read.
    pub(super) fn bytes(&self) -> u64 {
        self.at
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        let header = self.exactly(HEADER)?;
        let (kind, length) = (header[0], u32::from_be_bytes([header[1], header[2], header[3], header[4]]));
        if length > CONTENT_MAX {
            return Err(self.damaged("a frame that is too long"));
        }
        let content = self.exactly(length as usize)?;
        let seal = self.exactly(SEAL)?;
        self.seal = self.seal.next(&header, &content);
        if seal != self.seal.0 {
            return Err(self.damaged("a seal that does not fit"));
        }
        Ok((kind, content))
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        // As much as there is, so that a length that lies costs no memory.
        let read = (&mut self.file).take(length as u64).read_to_end(&mut bytes)?;
        self.at += read as u64;
        if read < length { Err(BackupError::Cut(self.at)) } else { Ok(bytes) }
    }

    pub(super) fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { at: self.at, what }
    }
}

fn piece_of(content: Bytes) -> Option<SnapshotPiece> {
    match wire::decode(content) {
        Ok(Message::Learner(ToLearner::Snapshot(snapshot))) => snapshot.piece,
        Ok(_) | Err(_) => None,
    }
}

/// Counts the records of a file while it arrives. Nothing is judged by it, no seal either.
#[derive(Default)]
pub(super) struct Counter {
    /// What is no whole frame yet.
    rest: BytesMut,
    has_begun: bool,
    /// How many have arrived.
    pub(super) records: u64,
    /// About how many there are; 0 until that has arrived.
    pub(super) total: u64,
}

impl Counter {
    /// The next bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        if !self.has_begun {
            if self.rest.len() < MAGIC.len() {
                return;
            }
            self.rest.advance(MAGIC.len());
            self.has_begun = true;
        }
        while let Some((kind, content)) = self.frame() {
            match kind {
                MANIFEST => {
                    self.total = serde_json::from_slice(&content).map_or(0, |manifest: Manifest| manifest.records)
                }
                PIECE => self.records += piece_of(content).map_or(0, |piece| piece.records.len() as u64),
                _ => {}
            }
        }
    }

    fn frame(&mut self) -> Option<(u8, Bytes)> {
        let ([kind, length @ ..], _) = self.rest.split_first_chunk::<HEADER>()?;
        let (kind, length) = (*kind, u32::from_be_bytes(*length));
        if length > CONTENT_MAX {
            // No frame: it will be found out, and costs no memory until then.
            self.rest.clear();
            return None;
        }
        let length = length as usize;
        if self.rest.len() < HEADER + length + SEAL {
            return None;
        }
        let frame = self.rest.split_to(HEADER + length + SEAL).freeze();
        Some((kind, frame.slice(HEADER..HEADER + length)))
    }
}

#[cfg(test)]
mod tests {
    use protocol::{CommandId, CommandNumber, Entry, Key, Position, SnapshotId, SnapshotRecord};

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            version: "0.1.0".to_owned(),
            cluster: "demo".to_owned(),
            cluster_id: "00".to_owned(),
            node: "a".to_owned(),
            made: "2026-01-01T00:00:00Z".to_owned(),
            consistency: "linearizable".to_owned(),
            command: 7,
            ballot: (3, 1),
            digest: "ab".to_owned(),
            records: 2,
        }
    }

    fn piece(from: &'static str, key: &str, next: Option<&'static str>) -> SnapshotPiece {
        let entry = Entry { value: Bytes::from_static(b"v"), version: CommandNumber(1) };
        let key = Key::new(key).expect("a key");
        SnapshotPiece {
            from: Position(from.into()),
            records: vec![SnapshotRecord::Entry { key, entry }],
            next: next.map(|next| Position(next.into())),
        }
    }

    fn snapshot(piece: &SnapshotPiece) -> Snapshot {
        let id = SnapshotId { at: CommandId::NULL, digest: [7; 32] };
        Snapshot { id, records: 2, piece: Some(piece.clone()) }
    }

    fn file() -> (Vec<u8>, [SnapshotPiece; 2]) {
        let pieces = [piece("", "a", Some("a")), piece("a", "b", None)];
        let (mut writer, begin) = Writer::begin(&manifest());
        let parts = [begin, writer.piece(snapshot(&pieces[0])), writer.piece(snapshot(&pieces[1])), writer.end()];
        (parts.concat(), pieces)
    }

    fn read(bytes: &[u8]) -> Result<(Manifest, Vec<SnapshotPiece>), BackupError> {
        let (mut reader, manifest) = Reader::open(bytes)?;
        let mut pieces = Vec::new();
        while let Some(piece) = reader.piece()? {
            pieces.push(piece);
        }
        Ok((manifest, pieces))
    }

    /// Catches a file that is not read back as what was written.
    #[test]
    fn a_whole_file_is_read_back() {
        let (bytes, pieces) = file();
        let (found, read) = read(&bytes).expect("a whole file");
        assert_eq!((found, read), (manifest(), pieces.to_vec()));
    }

    /// Catches a backup of an earlier version, which asked no leader, that is said to have all that was acknowledged.
    #[test]
    fn a_manifest_that_does_not_say_is_local() {
        let (mut writer, mut file) = Writer::bare();
        let text = String::from_utf8(json(&manifest())).expect("JSON");
        let earlier = text.replace("\"consistency\":\"linearizable\",", "");
        assert_ne!(earlier, text);
        file.extend_from_slice(&writer.frame(MANIFEST, earlier.as_bytes()));
        let (_, found) = Reader::open(&file[..]).expect("a manifest");
        assert!(found.is_local() && !manifest().is_local());
    }

    /// Catches a backup that arrives in chunks as they come, and of which it is not known how much is there; and one that
    /// lies about its lengths and takes memory for that.
    #[test]
    fn what_arrives_is_counted() {
        let (bytes, _) = file();
        for size in [1, 7, 100, bytes.len()] {
            let mut counter = Counter::default();
            let mut counts: Vec<(u64, u64)> = Vec::new();
            for chunk in bytes.chunks(size) {
                counter.take(chunk);
                counts.push((counter.records, counter.total));
            }
            assert_eq!(counts.last(), Some(&(2, 2)), "in chunks of {size}");
            assert!(size > 1 || [(0, 0), (0, 2), (1, 2)].iter().all(|count| counts.contains(count)), "{counts:?}");
        }
        let mut counter = Counter::default();
        counter.take(MAGIC);
        counter.take(&[PIECE, 0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!((counter.records, counter.rest.len()), (0, 0));
    }

    /// RELIABILITY 5 class 15: catches a file that was cut anywhere being taken for a whole one.
    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let (bytes, _) = file();
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).expect_err("a cut file");
            let named =
                matches!(error, BackupError::Cut(_)) || (length < MAGIC.len() && matches!(error, BackupError::Foreign));
            assert!(named, "cut at {length}: {error}");
        }
    }

    /// RELIABILITY 5 class 15: catches any flipped bit that nobody notices.
    #[test]
    fn any_flipped_bit_is_refused() {
        let (bytes, _) = file();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    /// Catches frames that may be left out, doubled or exchanged, and a second file behind the first.
    #[test]
    fn frames_belong_where_they_are() {
        let pieces = [piece("", "a", Some("a")), piece("a", "b", None)];
        let (mut writer, begin) = Writer::begin(&manifest());
        let (first, second) = (writer.piece(snapshot(&pieces[0])), writer.piece(snapshot(&pieces[1])));
        let end = writer.end();
        for parts in [
            vec![&begin, &second, &end],
            vec![&begin, &first, &first, &second, &end],
            vec![&begin, &second, &first, &end],
            vec![&begin, &first, &second, &end, &end],
            vec![&begin, &end],
        ] {
            let bytes: Vec<u8> = parts.into_iter().flat_map(|part| part.to_vec()).collect();
            assert!(read(&bytes).is_err());
        }
    }

    /// Catches an error that does not say which version to use, and a foreign file read as ours.
    #[test]
    fn foreign_and_newer_files_are_told_apart() {
        assert!(matches!(read(b"PK\x03\x04 something else"), Err(BackupError::Foreign)));
        assert!(matches!(read(b"QRTBACK2 and so on"), Err(BackupError::Newer)));
        assert!(matches!(read(b""), Err(BackupError::Foreign)));
    }
}
