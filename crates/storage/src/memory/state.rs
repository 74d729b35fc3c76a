//! The state in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{
    Command, CommandBody, CommandId, CommandNumber, Effect, Entry, Key, RequestId, StateError, StateView,
    StoredOutcome, Timestamp,
};

use super::Fault;
use crate::digest::StateDigest;
use crate::{FORGET_MAX, StateSnapshot, StateStore, StorageError, outcome_of};

/// The whole state at one command number. Cheap values inside are shared by clones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateImage {
    applied: CommandId,
    entries: BTreeMap<Key, Entry>,
    outcomes: BTreeMap<RequestId, StoredOutcome>,
    /// The callers' outcomes, then the gateways', by age.
    by_age: [BTreeMap<(Timestamp, CommandNumber), RequestId>; 2],
    commands: BTreeMap<CommandNumber, Command>,
}

impl StateImage {
    /// Applies commands; on an error, none of them.
    fn apply(&mut self, commands: &[Command]) -> Result<(), StorageError> {
        let mut applied = self.applied;
        let mut bodies = Vec::new();
        for command in commands {
            crate::assert_follows(command, applied);
            applied = command.id;
            let body = CommandBody::decode(&command.body)
                .map_err(|error| StorageError::Corrupt(format!("the body of command {}: {error}", command.id)))?;
            bodies.push(body);
        }
        for (command, body) in commands.iter().zip(bodies) {
            self.apply_one(command, body);
        }
        Ok(())
    }

    fn apply_one(&mut self, command: &Command, body: CommandBody) {
        let outcome = outcome_of(command, &body);
        for effect in body.effects {
            match effect {
                Effect::Put { key, value } => {
                    self.entries.insert(key, Entry { value, version: command.number() });
                }
                Effect::Delete { key } => {
                    self.entries.remove(&key);
                }
            }
        }
        self.forget([body.forget.callers, body.forget.gateways]);
        let age = (outcome.time, outcome.command);
        let kind = kind_of(&body.request);
        if let Some(earlier) = self.outcomes.insert(body.request.clone(), outcome) {
            self.by_age[kind].remove(&(earlier.time, earlier.command));
        }
        self.by_age[kind].insert(age, body.request);
        self.commands.insert(command.number(), command.clone());
        self.applied = command.id;
    }

    fn forget(&mut self, marks: [Timestamp; 2]) {
        let mut room = FORGET_MAX;
        for (by_age, mark) in self.by_age.iter_mut().zip(marks) {
            while room > 0
                && let Some(oldest) = by_age.first_entry()
                && oldest.key().0 < mark
            {
                self.outcomes.remove(&oldest.remove());
                room -= 1;
            }
        }
    }
}

fn kind_of(request: &RequestId) -> usize {
    match request {
        RequestId::Caller(_) => 0,
        RequestId::Gateway(_) => 1,
    }
}

impl StateView for StateImage {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        let found = self
            .entries
            .range::<Key, _>(lowest(prefix, after))
            .skip_while(|(key, _)| key.as_str() < prefix || after.is_some_and(|after| key.as_str() <= after))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .take(limit);
        Ok(found.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        Ok(self.outcomes.get(request).cloned())
    }
}

/// A bound at or below the first key of a scan: a text that is no key bounds nothing.
fn lowest(prefix: &str, after: Option<&str>) -> (Bound<Key>, Bound<Key>) {
    let first = after.filter(|after| *after > prefix).unwrap_or(prefix);
    (Key::new(first).map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded)
}

impl StateSnapshot for StateImage {
    fn at(&self) -> CommandNumber {
        self.applied.number
    }

    fn digest(&self) -> Result<[u8; 32], StorageError> {
        let mut digest = StateDigest::new();
        for (key, entry) in &self.entries {
            digest.entry(key.as_str().as_bytes(), entry.version, &entry.value);
        }
        for (request, outcome) in &self.outcomes {
            digest.outcome(&request.to_bytes(), outcome);
        }
        Ok(digest.finish())
    }
}

/// What lies on the disk under a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateDisk {
    synced: StateImage,
    /// The batches written since, in order: a crash loses all of them, or all but the first few.
    unsynced: Vec<Vec<Command>>,
}

impl StateDisk {
    /// What a crash right now would leave.
    #[must_use]
    pub fn synced(&self) -> &StateImage {
        &self.synced
    }

    /// Makes the first `count` batches durable.
    fn keep(&mut self, count: usize) {
        for batch in self.unsynced.drain(..count.min(self.unsynced.len())) {
            self.synced.apply(&batch).expect("a batch that was written can be applied");
        }
    }
}

/// A [`StateStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryState(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    disk: StateDisk,
    /// `disk` with all batches applied.
    current: Arc<StateImage>,
    fault: Option<Fault>,
    failed: Option<StorageError>,
}

impl Inner {
    fn check(&self) -> Result<(), StorageError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn shut(&mut self, reason: StorageError) -> StorageError {
        self.failed = Some(reason.clone());
        reason
    }

    /// Fails if one of these faults is next.
    fn fails(&mut self, faults: &[Fault]) -> Result<(), StorageError> {
        match self.fault.filter(|fault| faults.contains(fault)) {
            Some(fault) => {
                self.fault = None;
                Err(self.shut(fault.reason("state")))
            }
            None => Ok(()),
        }
    }

    fn start(&mut self) {
        self.current = Arc::new(self.disk.synced.clone());
        (self.fault, self.failed) = (None, None);
    }
}

impl MemoryState {
    /// An empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A state on a disk as it was; everything written to it counts as durable, as after an
    /// opening.
    #[must_use]
    pub fn from_disk(disk: StateDisk) -> Self {
        let state = Self(Mutex::new(Inner { disk, ..Inner::default() }));
        state.restart();
        state
    }

    /// The disk as it is.
    #[must_use]
    pub fn disk(&self) -> StateDisk {
        self.lock().disk.clone()
    }

    /// The state as it is, shared until the next write.
    #[must_use]
    pub fn image(&self) -> Arc<StateImage> {
        Arc::clone(&self.lock().current)
    }

    /// Makes the next write or sync fail.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// A power cut, and a start after it: what was not synced is gone.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// A power cut, and a start after it: of what was not synced, the first `batches` calls of
    /// `apply` had reached the disk all the same.
    pub fn crash_keeping(&self, batches: usize) {
        let mut inner = self.lock();
        inner.disk.keep(batches);
        inner.disk.unsynced.clear();
        inner.start();
    }

    /// A killed process, and a start after it: everything written is there, and synced at
    /// opening.
    pub fn restart(&self) {
        let mut inner = self.lock();
        inner.disk.keep(usize::MAX);
        inner.start();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readable(&self) -> Result<Arc<StateImage>, StorageError> {
        let inner = self.lock();
        inner.check()?;
        Ok(Arc::clone(&inner.current))
    }
}

impl StateStore for MemoryState {
    fn apply(&self, commands: &[Command]) -> Result<(), StorageError> {
        let mut inner = self.lock();
        inner.check()?;
        if commands.is_empty() {
            return Ok(());
        }
        inner.fails(&[Fault::Write, Fault::Full])?;
        if let Err(reason) = Arc::make_mut(&mut inner.current).apply(commands) {
            return Err(inner.shut(reason));
        }
        inner.disk.unsynced.push(commands.to_vec());
        Ok(())
    }

    fn applied(&self) -> CommandId {
        self.lock().current.applied
    }

    fn sync(&self) -> Result<(), StorageError> {
        let mut inner = self.lock();
        inner.check()?;
        inner.fails(&[Fault::Sync])?;
        inner.disk.keep(usize::MAX);
        Ok(())
    }

    fn durable(&self) -> CommandNumber {
        self.lock().disk.synced.applied.number
    }

    fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Result<Vec<Command>, StorageError> {
        let image = self.readable()?;
        let mut found: Vec<Command> = Vec::new();
        let mut weight = 0;
        for command in image.commands.range(first..).map(|(_, command)| command).take(limit) {
            weight += command.body.len();
            if !found.is_empty() && weight > bytes {
                break;
            }
            found.push(command.clone());
        }
        Ok(found)
    }

    fn snapshot(&self) -> Result<Box<dyn StateSnapshot + '_>, StorageError> {
        Ok(Box::new(Snapshot(self.readable()?)))
    }
}

impl StateView for MemoryState {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        self.readable().map_err(to_state_error)?.get(key)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.readable().map_err(to_state_error)?.scan(prefix, after, limit)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        self.readable().map_err(to_state_error)?.outcome(request)
    }
}

fn to_state_error(error: StorageError) -> StateError {
    StateError(error.to_string())
}

/// An image that a later write leaves alone, because it copies a shared one.
struct Snapshot(Arc<StateImage>);

impl StateView for Snapshot {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        self.0.get(key)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.0.scan(prefix, after, limit)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        self.0.outcome(request)
    }
}

impl StateSnapshot for Snapshot {
    fn at(&self) -> CommandNumber {
        self.0.at()
    }

    fn digest(&self) -> Result<[u8; 32], StorageError> {
        self.0.digest()
    }
}
