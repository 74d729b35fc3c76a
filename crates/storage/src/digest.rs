//! The digest of a state: one number for all entries and stored outcomes, kept up to date with every
//! applied command, so that replicas at one number can be compared at once (invariant 7).
//!
//! It is *AdHash* (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", EUROCRYPT 1997): the
//! sum, modulo 2^4096, of one element for each record. An element is the record's BLAKE3 hash, drawn out to
//! 512 bytes. A sum does not depend on any order, and a record that goes is subtracted. Finding two states
//! with one sum is a generalized birthday problem; the best known attack (Wagner, CRYPTO 2002) takes about
//! 2^(2*sqrt(4096)) = 2^128 steps, which is what the 32 bytes that are shown, BLAKE3 of the sum, are good for.
//!
//! In a record's hash each part of free length is preceded by its length, and the whole by a tag, so that no
//! two records share an input. Every implementation hashes the same bytes.

use protocol::{CommandNumber, SnapshotRecord, StoredOutcome, Verdict};

/// What stands for a record: its hash, from which its element is made.
pub(crate) type RecordHash = [u8; 32];

/// The hash of an entry.
pub(crate) fn of_entry(key: &[u8], version: CommandNumber, value: &[u8]) -> RecordHash {
    Record::new(b"e").part(key).number(version.0).part(value).finish()
}

/// The hash of a stored outcome, under the stored form of its request id.
pub(crate) fn of_outcome(request: &[u8], outcome: &StoredOutcome) -> RecordHash {
    let record = Record::new(b"o").part(request).number(outcome.command.0).bytes(&outcome.fingerprint.0);
    let record = record.number(outcome.time.0);
    match &outcome.verdict {
        Verdict::Changed(result) => record.bytes(b"c").part(result),
        Verdict::Unchanged(result) => record.bytes(b"u").part(result),
        Verdict::Refused { code, message } => record.bytes(b"r").part(code.as_bytes()).part(message.as_bytes()),
    }
    .finish()
}

struct Record(blake3::Hasher);

impl Record {
    fn new(tag: &[u8]) -> Self {
        Self(blake3::Hasher::new()).bytes(tag)
    }

    fn part(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u64).bytes(bytes)
    }

    fn number(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    fn finish(self) -> RecordHash {
        self.0.finalize().into()
    }
}

/// The digest of records that are counted one by one, such as those of a backup.
#[derive(Clone, Debug, Default)]
pub struct Digest(Sum);

impl Digest {
    /// Counts a record, in any order.
    pub fn add(&mut self, record: &SnapshotRecord) {
        self.0.add(&match record {
            SnapshotRecord::Entry { key, entry } => of_entry(key.as_str().as_bytes(), entry.version, &entry.value),
            SnapshotRecord::Outcome { request, outcome } => of_outcome(&request.to_bytes(), outcome),
        });
    }

    /// The digest of the state that holds the counted records and no others.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.digest()
    }
}

/// The sum of the elements of a state's records, modulo 2^4096; of none at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum([u64; Sum::LIMBS]);

impl Sum {
    const LIMBS: usize = Self::BYTES / 8;
    /// The length of a stored sum.
    pub(crate) const BYTES: usize = 512;

    /// A record is there.
    pub(crate) fn add(&mut self, record: &RecordHash) {
        let mut carry = false;
        for (limb, other) in self.0.iter_mut().zip(element(record)) {
            (*limb, carry) = limb.carrying_add(other, carry);
        }
    }

    /// A record that was there is gone.
    pub(crate) fn subtract(&mut self, record: &RecordHash) {
        let mut borrow = false;
        for (limb, other) in self.0.iter_mut().zip(element(record)) {
            (*limb, borrow) = limb.borrowing_sub(other, borrow);
        }
    }

    /// What is shown of it.
    pub(crate) fn digest(&self) -> [u8; 32] {
        blake3::hash(&self.to_bytes()).into()
    }

    /// The stored form: little-endian.
    pub(crate) fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (place, limb) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *place = limb.to_le_bytes();
        }
        bytes
    }

    /// Reads [`Sum::to_bytes`] back.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self(limbs(bytes))
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self([0; Self::LIMBS])
    }
}

/// The element of a record.
fn element(record: &RecordHash) -> [u64; Sum::LIMBS] {
    let mut bytes = [0; Sum::BYTES];
    blake3::Hasher::new().update(record).finalize_xof().fill(&mut bytes);
    limbs(&bytes)
}

fn limbs(bytes: &[u8; Sum::BYTES]) -> [u64; Sum::LIMBS] {
    let mut limbs = [0; Sum::LIMBS];
    for (limb, place) in limbs.iter_mut().zip(bytes.as_chunks().0) {
        *limb = u64::from_le_bytes(*place);
    }
    limbs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: u8) -> Vec<RecordHash> {
        (0..count).map(|number| of_entry(&[b'k', number], CommandNumber(number.into()), b"v")).collect()
    }

    fn sum<'a>(records: impl IntoIterator<Item = &'a RecordHash>) -> Sum {
        let mut sum = Sum::default();
        records.into_iter().for_each(|record| sum.add(record));
        sum
    }

    /// Catches a sum that depends on the order of its records, or keeps something of one that is gone: a
    /// carry that is lost would do both.
    #[test]
    fn a_sum_knows_its_records_and_nothing_else() {
        let records = records(100);
        let whole = sum(&records);
        assert_eq!(sum(records.iter().rev()), whole);
        let mut rest = whole.clone();
        records[50..].iter().for_each(|record| rest.subtract(record));
        assert_eq!(rest, sum(&records[..50]));
        assert_ne!(rest.digest(), whole.digest());
        records[..50].iter().for_each(|record| rest.subtract(record));
        assert_eq!(rest, Sum::default());
        rest.subtract(&records[0]);
        rest.add(&records[0]);
        assert_eq!(rest, Sum::default(), "below zero and back");
        assert_eq!(Sum::from_bytes(&whole.to_bytes()), whole);
    }

    /// Catches records that share a hash because their parts run into each other.
    #[test]
    fn records_that_look_alike_differ() {
        let version = CommandNumber(1);
        assert_ne!(of_entry(b"ab", version, b"c"), of_entry(b"a", version, b"bc"));
        assert_ne!(of_entry(b"a", version, b"b"), of_entry(b"a", CommandNumber(2), b"b"));
    }
}
