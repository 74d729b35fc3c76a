//! The state in memory, as it lies on a disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{
    Command, CommandId, CommandNumber, Entry, Key, Position, RequestId, SnapshotId, SnapshotPiece, Space, StateError,
    StateView, StoredOutcome, Timestamp,
};

use super::Fault;
use super::image::StateImage;
use crate::{Checkpoint, Installation, Retention, Staged, StateSnapshot, StateStore, StorageError, snapshot};

/// What lies on the disk under a state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateDisk {
    synced: Contents,
    /// The writes since, in order: a crash loses all of them, or all but the first few.
    unsynced: Vec<Write>,
}

/// A state, and what is staged beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Contents {
    state: Arc<StateImage>,
    staged: Option<(Staged, Arc<StateImage>)>,
}

/// What reaches the disk whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Write {
    Apply(Vec<Command>),
    KeepFrom(CommandNumber),
    Stage(SnapshotId, SnapshotPiece),
    /// What is staged, all of which is there and right, is the state.
    Install,
    DropStaged,
}

impl Contents {
    /// Carries a write out; on an error, nothing of it.
    fn write(&mut self, write: &Write) -> Result<(), StorageError> {
        match write {
            Write::Apply(commands) => Arc::make_mut(&mut self.state).apply(commands)?,
            Write::KeepFrom(first) => Arc::make_mut(&mut self.state).drop_commands(*first),
            Write::Stage(id, piece) => {
                let earlier = self.staged.take().filter(|(staged, _)| staged.id == *id);
                let mut image = earlier.map(|(_, image)| image).unwrap_or_default();
                let records = Arc::make_mut(&mut image);
                piece.records.iter().cloned().for_each(|record| records.store_record(record));
                self.staged = Some((Staged { id: *id, next: piece.next.clone() }, image));
            }
            Write::Install => {
                let (staged, mut image) = self.staged.take().expect("only what is staged is installed");
                let complete = Arc::make_mut(&mut image).complete(staged.id.at);
                assert!(complete, "only what was verified is installed");
                self.state = image;
            }
            Write::DropStaged => self.staged = None,
        }
        Ok(())
    }
}

impl StateDisk {
    /// What a crash right now would leave.
    #[must_use]
    pub fn synced(&self) -> &StateImage {
        &self.synced.state
    }

    /// Makes the first `count` writes durable.
    fn keep(&mut self, count: usize) {
        for write in self.unsynced.drain(..count.min(self.unsynced.len())) {
            self.synced.write(&write).expect("what was written can be written again");
        }
    }
}

/// A [`StateStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryState(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    disk: StateDisk,
    /// What is on `disk` with all writes carried out.
    current: Contents,
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

    fn write(&mut self, write: Write) -> Result<(), StorageError> {
        self.fails(&[Fault::Write, Fault::Full])?;
        if let Err(reason) = self.current.write(&write) {
            return Err(self.shut(reason));
        }
        self.disk.unsynced.push(write);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.fails(&[Fault::Sync])?;
        self.disk.keep(usize::MAX);
        Ok(())
    }

    fn start(&mut self) {
        self.current = self.disk.synced.clone();
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
        Arc::clone(&self.lock().current.state)
    }

    /// Makes the next write or sync fail.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// A power cut, and a start after it: what was not synced is gone.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// A power cut, and a start after it: of what was not synced, the first `writes` (a call of
    /// `apply`, a piece of a snapshot, ...) had reached the disk all the same.
    pub fn crash_keeping(&self, writes: usize) {
        let mut inner = self.lock();
        inner.disk.keep(writes);
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
        Ok(Arc::clone(&inner.current.state))
    }
}

impl StateStore for MemoryState {
    fn apply(&self, commands: &[Command]) -> Result<(), StorageError> {
        let mut inner = self.lock();
        inner.check()?;
        if commands.is_empty() {
            return Ok(());
        }
        inner.write(Write::Apply(commands.to_vec()))
    }

    fn applied(&self) -> CommandId {
        self.lock().current.state.applied
    }

    fn time(&self) -> Timestamp {
        self.lock().current.state.time
    }

    fn sync(&self) -> Result<(), StorageError> {
        let mut inner = self.lock();
        inner.check()?;
        inner.sync()
    }

    fn durable(&self) -> CommandNumber {
        self.lock().disk.synced.state.applied.number
    }

    fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Result<Option<Vec<Command>>, StorageError> {
        Ok(self.readable()?.commands(first, limit, bytes))
    }

    fn kept_from(&self) -> CommandNumber {
        self.lock().current.state.kept_from()
    }

    fn forget_commands(&self, retention: &Retention, at_most: CommandNumber) -> Result<CommandNumber, StorageError> {
        let mut inner = self.lock();
        inner.check()?;
        let (kept_from, keep_from) =
            (inner.current.state.kept_from(), inner.current.state.keep_from(retention, at_most));
        if keep_from > kept_from {
            inner.write(Write::KeepFrom(keep_from))?;
        }
        Ok(keep_from)
    }

    fn reclaim(&self, _: Space) -> Result<(), StorageError> {
        // What is forgotten takes no room.
        self.lock().check()
    }

    fn snapshot(&self) -> Result<Box<dyn StateSnapshot + '_>, StorageError> {
        Ok(Box::new(Snapshot(self.readable()?)))
    }

    fn digest(&self) -> SnapshotId {
        id_of(&self.image())
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, StorageError> {
        Ok(Box::new(Snapshot(self.readable()?)))
    }

    fn staged(&self) -> Option<Staged> {
        self.lock().current.staged.as_ref().map(|(staged, _)| staged.clone())
    }

    fn stage(&self, id: SnapshotId, piece: &SnapshotPiece) -> Result<(), StorageError> {
        let mut inner = self.lock();
        inner.check()?;
        let staged = inner.current.staged.as_ref().map(|(staged, _)| staged);
        if !snapshot::continues(staged, id, piece) {
            return Ok(());
        }
        inner.write(Write::Stage(id, piece.clone()))
    }

    fn install(&self) -> Result<Installation, StorageError> {
        let mut inner = self.lock();
        inner.check()?;
        let (Staged { id, next }, mut image) = inner.current.staged.clone().expect("a snapshot is staged");
        assert!(next.is_none(), "a snapshot is installed when all of it is there");
        let found = if id.at.number <= inner.current.state.applied.number {
            Installation::Outdated
        } else if Arc::make_mut(&mut image).complete(id.at) && id_of(&image) == id {
            Installation::Done(id.at)
        } else {
            Installation::Mismatch
        };
        if let Installation::Done(_) = found {
            inner.write(Write::Install)?;
            inner.sync()?;
        } else {
            inner.write(Write::DropStaged)?;
        }
        Ok(found)
    }

    fn drop_staged(&self) -> Result<(), StorageError> {
        let mut inner = self.lock();
        inner.check()?;
        match inner.current.staged {
            Some(_) => inner.write(Write::DropStaged),
            None => Ok(()),
        }
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

fn id_of(image: &StateImage) -> SnapshotId {
    SnapshotId { at: image.applied, digest: image.digest_of_all() }
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

impl Checkpoint for Snapshot {
    fn id(&self) -> SnapshotId {
        id_of(&self.0)
    }

    fn records(&self) -> u64 {
        self.0.records()
    }

    fn piece(&self, from: &Position, bytes: usize) -> Result<SnapshotPiece, StorageError> {
        snapshot::cut(from, self.0.records_from(from).map(Ok), bytes)
    }
}
