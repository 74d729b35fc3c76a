//! What both implementations share of snapshots: where a record lies in the one order of all records, how
//! pieces are cut, and which piece continues what was received.

use protocol::{CommandId, Position, SnapshotId, SnapshotPiece, SnapshotRecord};

use crate::StorageError;
use crate::digest::{self, Sum};

/// What has been received of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Staged {
    /// The snapshot.
    pub id: SnapshotId,
    /// Where the next piece begins; `None` when all is there.
    pub next: Option<Position>,
}

/// What became of an attempt to make a staged snapshot the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Installation {
    /// It is the state now, durably; the last command applied to it.
    Done(CommandId),
    /// What was staged is not what its id says. It is dropped, the state is as it was.
    Mismatch,
    /// The state is there already, or beyond. What was staged is dropped.
    Outdated,
}

/// The whole state as of one command number, kept apart from later writes until it is dropped.
pub trait Checkpoint: Send + Sync {
    /// Which state this is.
    fn id(&self) -> SnapshotId;

    /// About how many records it has.
    fn records(&self) -> u64;

    /// The records from a position on: at least one if there is one, then as many as weigh `bytes`. Of a
    /// position that no store has made, whatever follows it in the order of bytes.
    ///
    /// # Errors
    /// [`StorageError`].
    fn piece(&self, from: &Position, bytes: usize) -> Result<SnapshotPiece, StorageError>;
}

/// Tags of positions: entries come first.
const ENTRY: u8 = 1;
const OUTCOME: u8 = 2;

/// Where a record lies.
pub(crate) fn position_of(record: &SnapshotRecord) -> Position {
    match record {
        SnapshotRecord::Entry { key, .. } => Position([&[ENTRY], key.as_str().as_bytes()].concat().into()),
        SnapshotRecord::Outcome { request, .. } => Position([&[OUTCOME][..], &request.to_bytes()].concat().into()),
    }
}

/// The lowest keys of entries and of outcomes that lie at a position or after it; `None` where none does.
pub(crate) fn lowest_keys(from: &Position) -> (Option<&[u8]>, Option<&[u8]>) {
    match from.0.split_first() {
        None => (Some(b""), Some(b"")),
        Some((&ENTRY, key)) => (Some(key), Some(b"")),
        Some((&OUTCOME, request)) => (None, Some(request)),
        Some((&0, _)) => (Some(b""), Some(b"")),
        Some(_) => (None, None),
    }
}

/// Cuts a piece off records that begin at `from`.
pub(crate) fn cut(
    from: &Position,
    records: impl Iterator<Item = Result<SnapshotRecord, StorageError>>,
    bytes: usize,
) -> Result<SnapshotPiece, StorageError> {
    let mut piece = SnapshotPiece { from: from.clone(), ..SnapshotPiece::default() };
    let mut weight = 0;
    for record in records {
        let record = record?;
        weight += weight_of(&record);
        if weight > bytes && !piece.records.is_empty() {
            piece.next = Some(position_of(&record));
            break;
        }
        piece.records.push(record);
    }
    Ok(piece)
}

/// The sum of all records of a state.
pub(crate) fn sum(records: impl Iterator<Item = Result<SnapshotRecord, StorageError>>) -> Result<Sum, StorageError> {
    let mut sum = Sum::default();
    for record in records {
        sum.add(&match record? {
            SnapshotRecord::Entry { key, entry } => {
                digest::of_entry(key.as_str().as_bytes(), entry.version, &entry.value)
            }
            SnapshotRecord::Outcome { request, outcome } => digest::of_outcome(&request.to_bytes(), &outcome),
        });
    }
    Ok(sum)
}

/// About what a record takes in a message.
fn weight_of(record: &SnapshotRecord) -> usize {
    const FIXED: usize = 32;
    let variable = match record {
        SnapshotRecord::Entry { key, entry } => key.as_str().len() + entry.value.len(),
        SnapshotRecord::Outcome { request, outcome } => {
            request.to_bytes().len()
                + match &outcome.verdict {
                    protocol::Verdict::Changed(result) | protocol::Verdict::Unchanged(result) => result.len(),
                    protocol::Verdict::Refused { code, message } => code.len() + message.len(),
                }
        }
    };
    FIXED + variable
}

/// The pieces of one snapshot, one after the other, judged as a store judges them and without one.
#[derive(Clone, Debug)]
pub struct Following {
    id: SnapshotId,
    staged: Option<Staged>,
}

impl Following {
    /// None has come yet.
    #[must_use]
    pub fn new(id: SnapshotId) -> Self {
        Self { id, staged: None }
    }

    /// Whether a store takes this piece next, and does not leave it aside.
    pub fn takes(&mut self, piece: &SnapshotPiece) -> bool {
        let takes = continues(self.staged.as_ref(), self.id, piece);
        if takes {
            self.staged = Some(Staged { id: self.id, next: piece.next.clone() });
        }
        takes
    }

    /// Whether the last one has come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.staged.as_ref().is_some_and(|staged| staged.next.is_none())
    }
}

/// Whether a piece of the snapshot `id` goes on where `staged` ends, or begins another snapshot. Its records
/// must be in order too: then each is stored once, and so is what is derived from it.
pub(crate) fn continues(staged: Option<&Staged>, id: SnapshotId, piece: &SnapshotPiece) -> bool {
    let begins = piece.from == Position::default();
    let fits = match staged {
        Some(staged) if staged.id == id => staged.next.as_ref() == Some(&piece.from),
        _ => begins,
    };
    let mut places: Vec<Position> = piece.records.iter().map(position_of).collect();
    places.extend(piece.next.clone());
    let in_order = places.first().is_none_or(|first| *first >= piece.from) && places.is_sorted_by(|a, b| a < b);
    fits && in_order && (!piece.records.is_empty() || (begins && piece.next.is_none()))
}
