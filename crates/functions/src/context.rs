//! What a function sees of the world.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{CommandNumber, Effect, Entry, Key, StateError, StateView, Timestamp};

use crate::function::{Failure, Function};

/// What an execution read, so that it can be certified later: nothing of it has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReadSet {
    /// Keys read, with the version seen; `None` where the key was absent.
    pub keys: BTreeMap<Key, Option<CommandNumber>>,
    /// Scans done, with the keys and versions seen.
    pub scans: Vec<ScanRead>,
}

/// One scan and what it saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanRead {
    /// The prefix asked for.
    pub prefix: String,
    /// The key after which it began.
    pub after: Option<String>,
    /// The most entries it wanted.
    pub limit: usize,
    /// What it saw.
    pub seen: Vec<(Key, CommandNumber)>,
}

/// What came of one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The function's result as JSON text, or why there is none.
    pub result: Result<Bytes, Failure>,
    /// What it wrote, one effect a key, in order of keys; empty when there is no result.
    pub effects: Vec<Effect>,
    /// What it read.
    pub reads: ReadSet,
}

/// The world of one execution.
pub struct ExecutionContext<'a> {
    state: &'a dyn StateView,
    now: Timestamp,
    entropy: u64,
    writes: BTreeMap<Key, Option<Bytes>>,
    reads: ReadSet,
}
