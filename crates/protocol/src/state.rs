//! The replicated state: an ordered map from keys to bytes.

use std::fmt;

use bytes::Bytes;

use crate::call::{RequestId, StoredOutcome};
use crate::command::CommandNumber;

/// The longest key, in bytes: keys are held in memory by the leader and sent in every read.
pub const KEY_BYTES_MAX: usize = 1024;
/// The largest value, in bytes: a value travels whole in one frame and one storage write.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// What the keys begin with under which the cluster keeps what concerns itself: no function writes them but those
/// whose business that is.
pub const RESERVED_PREFIX: &str = "quorate/";

/// A key of the state: UTF-8, 1 byte to 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No characters.
    #[error("a key must not be empty")]
    Empty,
    /// Over the limit.
    #[error("a key has at most {KEY_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
}

impl Key {
    /// Takes a text as a key.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty or longer than [`KEY_BYTES_MAX`].
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        match text.len() {
            0 => Err(KeyError::Empty),
            length if length > KEY_BYTES_MAX => Err(KeyError::TooLong(length)),
            _ => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it belongs to the cluster itself ([`RESERVED_PREFIX`]).
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value with the number of the command that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// The number of the command that wrote it.
    pub version: CommandNumber,
}

/// The state could not be read: the disk of this node failed. Whoever gets this stops; it says
/// nothing about the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read: {0}")]
pub struct StateError(pub String);

/// Reading the state machine's state: `M(p)` of a learner, or something laid over one.
pub trait StateView {
    /// The entry of a key, if it has one.
    ///
    /// # Errors
    /// [`StateError`] when the disk fails.
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError>;

    /// Up to `limit` entries whose keys begin with `prefix`, in order of keys, the first being
    /// the lowest that is greater than `after`.
    ///
    /// # Errors
    /// [`StateError`] when the disk fails.
    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError>;

    /// The outcome stored for a request id, if it is still kept.
    ///
    /// # Errors
    /// [`StateError`] when the disk fails.
    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError>;
}
