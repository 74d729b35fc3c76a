//! The entries that changed last, in memory: who changes an entry often finds it here, and not by a search through
//! the tables, where each of its versions lies beside the others until a compaction.
//!
//! Only what is applied comes here, after it is written and before anybody hears that it is applied. Readers
//! never add what they found: it might be older than what was applied meanwhile, and would stay.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use protocol::{CommandNumber, Entry};

use crate::digest::RecordHash;

/// Entries that are kept, at most.
const ENTRIES: NonZeroUsize = NonZeroUsize::new(8_192).expect("more than none");
/// Bytes of key and value together above which an entry is not kept: so all take 8 MiB at most, and what holds them.
const BYTES_MAX: usize = 1_024;

/// See the module.
pub(super) struct Recent(Mutex<LruCache<Box<[u8]>, Known>>);

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It has no entry.
    Absent,
    /// Its entry, and the hash of that.
    Present(Entry, RecordHash),
}

impl Recent {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(ENTRIES)))
    }

    /// What is known of a key, if anything.
    pub(super) fn get(&self, key: &[u8]) -> Option<Known> {
        self.entries().get(key).cloned()
    }

    /// Takes note of what was applied.
    pub(super) fn take<'k>(&self, changes: impl IntoIterator<Item = (&'k [u8], Change<'k>)>) {
        let mut entries = self.entries();
        for (key, change) in changes {
            let known = match change {
                None => Known::Absent,
                Some((_, value, _)) if key.len() + value.len() > BYTES_MAX => {
                    entries.pop(key);
                    continue;
                }
                // Copied: it is a part of a message, which would stay as long.
                Some((version, value, hash)) => {
                    Known::Present(Entry { version, value: Bytes::copy_from_slice(value) }, hash)
                }
            };
            entries.put(key.into(), known);
        }
    }

    /// Another state takes the place of the one that this is about.
    pub(super) fn clear(&self) {
        self.entries().clear();
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<Box<[u8]>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a key: version, value and hash of its entry, or none.
pub(super) type Change<'k> = Option<(CommandNumber, &'k [u8], RecordHash)>;

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: RecordHash = [7; 32];

    fn present(version: u64, value: &[u8]) -> Known {
        Known::Present(Entry { version: CommandNumber(version), value: Bytes::copy_from_slice(value) }, HASH)
    }

    /// Catches an old version that outlives a new one, above all one that is too large to be kept.
    #[test]
    fn what_is_known_of_a_key_is_what_was_applied_last() {
        let recent = Recent::new();
        assert_eq!(recent.get(b"k"), None);
        let large = vec![0; BYTES_MAX];
        recent.take([(&b"k"[..], Some((CommandNumber(1), &b"v"[..], HASH)))]);
        assert_eq!(recent.get(b"k"), Some(present(1, b"v")));
        recent.take([(&b"k"[..], None)]);
        assert_eq!(recent.get(b"k"), Some(Known::Absent));
        recent.take([(&b"k"[..], Some((CommandNumber(3), &b"w"[..], HASH)))]);
        assert_eq!(recent.get(b"k"), Some(present(3, b"w")));
        recent.take([(&b"k"[..], Some((CommandNumber(4), &large[..], HASH)))]);
        assert_eq!(recent.get(b"k"), None);
    }

    /// Catches a memory that grows with the number of keys.
    #[test]
    fn the_last_entries_are_kept_and_no_more() {
        let recent = Recent::new();
        let keys: Vec<[u8; 8]> = (0..ENTRIES.get() as u64 + 1).map(u64::to_be_bytes).collect();
        recent.take(keys.iter().map(|key| (&key[..], Some((CommandNumber(1), &b"v"[..], HASH)))));
        assert_eq!(recent.get(&keys[0]), None);
        assert_eq!(recent.get(&keys[1]), Some(present(1, b"v")));
        assert_eq!(recent.entries().len(), ENTRIES.get());
    }
}
