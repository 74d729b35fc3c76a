//! The digest of a state: the same bytes are hashed by every implementation, in the same
//! order, so that replicas at one number can be compared (invariant 7).
//!
//! Entries come first, in order of keys, then outcomes, in order of request ids. Each part is
//! preceded by its length and each record by a tag, so that no two states share an input.

use protocol::{CommandNumber, StoredOutcome, Verdict};

/// Takes a state, record by record.
pub(crate) struct StateDigest(blake3::Hasher);

impl StateDigest {
    pub(crate) fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    pub(crate) fn entry(&mut self, key: &[u8], version: CommandNumber, value: &[u8]) {
        self.0.update(b"e");
        self.part(key);
        self.number(version.0);
        self.part(value);
    }

    pub(crate) fn outcome(&mut self, request: &[u8], outcome: &StoredOutcome) {
        self.0.update(b"o");
        self.part(request);
        self.number(outcome.command.0);
        self.0.update(&outcome.fingerprint.0);
        self.number(outcome.time.0);
        match &outcome.verdict {
            Verdict::Changed(result) => self.tagged(b"c", &[result]),
            Verdict::Unchanged(result) => self.tagged(b"u", &[result]),
            Verdict::Refused { code, message } => self.tagged(b"r", &[code.as_bytes(), message.as_bytes()]),
        }
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    fn tagged(&mut self, tag: &[u8], parts: &[&[u8]]) {
        self.0.update(tag);
        parts.iter().for_each(|part| self.part(part));
    }

    fn part(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }
}
