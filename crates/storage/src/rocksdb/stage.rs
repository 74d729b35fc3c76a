//! Receiving a snapshot: it is staged in the generation that is not the state, and when all of it
//! is there and is what it claims to be, one write makes it the state and deletes the other one.
//!
//! A crash before that write leaves the old state, and what was staged, to go on with.
//!
//! What is deleted gives its space back at once, as far as whole files hold nothing else: a disk may be too small for two
//! states. Not while somebody reads a state as it was at a moment, since files are deleted under those too; then, and with
//! what lies in the youngest files, it is done when space is short. What those files hid of their generation in others may
//! show again; the next snapshot begins by deleting it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use protocol::{Position, SnapshotId, SnapshotPiece, SnapshotRecord, Space, Timestamp};

use super::batch::Batch;
use super::keys::{self, Generation, Meta, column};
use super::reader::Reader;
use super::record::{self, Head};
use super::state::{RocksState, Writer, lock};
use crate::{Installation, Staged, StateStore as _, StorageError, digest, snapshot};

impl RocksState {
    /// See [`crate::StateStore::stage`].
    pub(super) fn store_piece(&self, id: SnapshotId, piece: &SnapshotPiece) -> Result<(), StorageError> {
        let _one = lock(&self.staging);
        if !snapshot::continues(self.staged().as_ref(), id, piece) {
            return Ok(());
        }
        let mut batch = self.beside();
        if piece.from == Position::default() {
            batch.clear();
        }
        for record in &piece.records {
            put(&mut batch, record);
        }
        let staged = Staged { id, next: piece.next.clone() };
        batch.put_meta(Meta::Staged, record::staged(&staged));
        self.database.write_buffered(batch.finish())?;
        self.known().staged = Some(staged);
        Ok(())
    }

    /// See [`crate::StateStore::install`].
    pub(super) fn install_staged(&self) -> Result<Installation, StorageError> {
        let _one = lock(&self.staging);
        let Staged { id, next } = self.staged().expect("a snapshot is installed when one is staged");
        assert!(next.is_none(), "a snapshot is installed when all of it is there");
        if id.at.number <= self.applied().number {
            return self.clear_staged().map(|()| Installation::Outdated);
        }
        let Some(head) = self.verified(id)? else {
            tracing::warn!(at = %id.at, "a snapshot that was received is not what it claims to be, and is dropped");
            return self.clear_staged().map(|()| Installation::Mismatch);
        };
        let mut writer = lock(&self.writer);
        if id.at.number <= self.applied().number {
            return self.clear_staged().map(|()| Installation::Outdated);
        }
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new(&self.database, *live);
        batch.clear();
        batch.delete_meta(Meta::Staged);
        self.put_head(&mut batch, &head);
        self.database.write_synced(batch.finish())?;
        *live = head.generation;
        self.recent.clear();
        *writer = Writer::default();
        {
            let mut known = self.known();
            (known.head, known.staged) = (head, None);
        }
        drop(live);
        self.note_durable(id.at.number)?;
        drop(writer);
        self.gives_back.store(true, Ordering::Release);
        self.give_back()?;
        Ok(Installation::Done(id.at))
    }

    /// Deletes what is staged, if anything.
    pub(super) fn clear_staged(&self) -> Result<(), StorageError> {
        if self.staged().is_none() {
            return Ok(());
        }
        let mut batch = self.beside();
        batch.clear();
        batch.delete_meta(Meta::Staged);
        self.database.write_buffered(batch.finish())?;
        self.known().staged = None;
        self.gives_back.store(true, Ordering::Release);
        self.give_back().map(drop)
    }

    /// Deletes the files of the generation that is deleted, once it is so durably; not while there are readers of it.
    /// Whoever begins to read later reads the state that is live. Says whether it was done.
    fn give_back(&self) -> Result<bool, StorageError> {
        self.database.sync()?;
        if self.database.has_snapshots()? {
            return Ok(false);
        }
        let other = self.other();
        let (first, end) = (other.key(b""), other.end());
        column::OF_A_GENERATION.into_iter().try_for_each(|column| self.database.delete_files(column, &first, &end))?;
        Ok(true)
    }

    /// Gives back what is left of a deleted generation, where space is short; see [`reclaim`](super::reclaim).
    pub(super) fn reclaim_generation(&self, space: Space) -> Result<(), StorageError> {
        let _one = lock(&self.staging);
        let is_due = self.gives_back.load(Ordering::Acquire) && self.staged().is_none();
        if !is_due || !self.give_back()? || space == Space::Out {
            return Ok(());
        }
        let mut batch = self.beside();
        batch.clear();
        self.database.write_buffered(batch.finish())?;
        self.database.flush(&column::ALL)?;
        let other = self.other();
        let (first, end) = (other.key(b""), other.end());
        column::OF_A_GENERATION.into_iter().try_for_each(|column| self.database.compact(column, &first, &end))?;
        self.gives_back.store(false, Ordering::Release);
        Ok(())
    }

    /// A batch for the generation that is not the state; only an installation, which is no more than
    /// one at a time, makes it the state.
    fn beside(&self) -> Batch<'_> {
        Batch::new(&self.database, self.other())
    }

    /// The generation that is not the state.
    fn other(&self) -> Generation {
        self.known().head.generation.other()
    }

    /// What is staged, as it lies on the disk, if it is the state that its id names: then all its
    /// records are there and no others, and one of them is the outcome of the last command, which no
    /// state is without.
    fn verified(&self, id: SnapshotId) -> Result<Option<Head>, StorageError> {
        let generation = self.other();
        let reader = Reader::of(&self.database, generation);
        let mut time = None;
        let beginning = Position::default();
        let sum = snapshot::sum(reader.records_from(&beginning).inspect(|record| {
            if let Ok(SnapshotRecord::Outcome { outcome, .. }) = record
                && outcome.command == id.at.number
            {
                time = Some(outcome.time);
            }
        }))?;
        let head = |time: Timestamp| Head { applied: id.at, time, dropped: id.at.number, generation, sum: sum.clone() };
        Ok(time.filter(|_| sum.digest() == id.digest).map(head))
    }
}

fn put(batch: &mut Batch<'_>, record: &SnapshotRecord) {
    match record {
        SnapshotRecord::Entry { key, entry } => {
            batch.put(column::ENTRIES, key.as_str().as_bytes(), record::entry(entry.version, &entry.value));
        }
        SnapshotRecord::Outcome { request, outcome } => {
            let (age, id) = (keys::by_time(request, outcome), request.to_bytes());
            batch.put(column::OUTCOMES, &id, record::outcome(outcome));
            let aged = record::aged(&digest::of_outcome(&id, outcome), &id);
            batch.put(column::OUTCOMES_BY_TIME, &age, aged);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::TryLockError;
    use std::thread;

    use protocol::{ClusterId, NodeId, StateView as _};

    use super::*;
    use crate::conformance::{body, command, eventful, pieces, put};
    use crate::memory::MemoryState;
    use crate::rocksdb::{Options, Stores, open};
    use crate::{Checkpoint, Identity};

    fn opened(dir: &Path) -> Stores {
        let (cluster, cluster_name) = (ClusterId([1; 16]), "test".into());
        let identity = Identity { cluster, cluster_name, node: NodeId(1), node_name: "n1".into() };
        let options = Options { write_buffer_bytes: 64 << 10, ..Options::default() };
        open(dir, &identity, &options).expect("the stores open")
    }

    /// The bytes of all tables of the state.
    fn tables(dir: &Path) -> u64 {
        let files = fs::read_dir(dir.join("state")).expect("a directory").map(|entry| entry.expect("an entry").path());
        let tables = files.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
        tables.map(|path| fs::metadata(path).map_or(0, |file| file.len())).sum()
    }

    /// Whether the tables become less than that: files that are needed no more are deleted in the background.
    fn shrink_below(dir: &Path, bytes: u64) -> bool {
        (0..20_000).any(|_| {
            thread::yield_now();
            tables(dir) < bytes
        })
    }

    /// A state of so many entries of 10 KB that do not compress.
    fn large(entries: u64) -> MemoryState {
        let source = MemoryState::new();
        let mut hash = 1_u64;
        let mut noise = || {
            hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            hash.to_be_bytes()[0]
        };
        for number in 1..=entries {
            let value: Vec<u8> = (0..10_000).map(|_| noise()).collect();
            let body = body(number, vec![put(&format!("k{number}"), value)]);
            source.apply(&[command(number, &body)]).expect("applied");
        }
        source
    }

    /// Catches a dropped or replaced state whose space is only given back much later, on a disk that it has filled; and one
    /// of which something shows again in the next snapshot that is staged in its place.
    #[test]
    fn what_is_dropped_or_replaced_gives_its_space_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = opened(dir.path()).state;
        let large = large(200).checkpoint().expect("a checkpoint");
        let all = pieces(&*large, 20_000);
        let stage = |count: usize| {
            all.iter().take(count).for_each(|piece| state.stage(large.id(), piece).expect("staged"));
        };
        stage(all.len() - 1);
        let before = tables(dir.path());
        assert!(before > 1_000_000, "{before} bytes are staged in tables");
        state.drop_staged().expect("dropped");
        // What a compaction was writing just then goes after it.
        state.reclaim(Space::Low).expect("given back");
        assert!(shrink_below(dir.path(), before / 4), "{} of {before} bytes are left", tables(dir.path()));

        let small = eventful(60);
        let source = MemoryState::new();
        source.apply(&small).expect("applied");
        let checkpoint = source.checkpoint().expect("a checkpoint");
        pieces(&*checkpoint, 500).iter().for_each(|piece| state.stage(checkpoint.id(), piece).expect("staged"));
        assert_eq!(state.install(), Ok(Installation::Done(checkpoint.id().at)));
        assert_eq!(state.digest(), source.digest());
        stage(all.len());
        assert_eq!(state.install(), Ok(Installation::Done(large.id().at)));
        assert_eq!(state.digest(), large.id());
    }

    /// Catches files of the old state that are deleted under somebody who reads it as it was: half a page would be told as
    /// all of it; and files that stay when he is gone and space is short.
    #[test]
    fn a_snapshot_keeps_the_files_of_the_old_state() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = opened(dir.path()).state;
        let stage = |checkpoint: &dyn Checkpoint| {
            pieces(checkpoint, 20_000).iter().for_each(|piece| state.stage(checkpoint.id(), piece).expect("staged"));
        };
        let old = large(100).checkpoint().expect("a checkpoint");
        stage(&*old);
        assert_eq!(state.install(), Ok(Installation::Done(old.id().at)));
        let snapshot = state.snapshot().expect("a snapshot");
        let before = snapshot.scan("", None, 999).expect("readable");
        assert_eq!(before.len(), 100);
        let new = large(101).checkpoint().expect("a checkpoint");
        stage(&*new);
        assert_eq!(state.install(), Ok(Installation::Done(new.id().at)));
        assert_eq!(snapshot.scan("", None, 999).as_ref(), Ok(&before));
        state.reclaim(Space::Low).expect("nothing can be given back");
        assert_eq!(snapshot.scan("", None, 999).as_ref(), Ok(&before));
        drop(snapshot);
        let both = tables(dir.path());
        state.reclaim(Space::Low).expect("given back");
        assert!(shrink_below(dir.path(), both * 2 / 3), "{} of {both} bytes are left", tables(dir.path()));
        assert_eq!(state.digest(), new.id());
        assert_eq!(state.reader().scan("", None, 999).expect("readable").len(), 101);
    }

    /// S-14: catches a reader that begins with the old state and goes on in the new one, or in the nothing that is
    /// left of the old one: whoever reads holds an installation back.
    #[test]
    fn a_reader_holds_an_installation_back() {
        let source = MemoryState::new();
        source.apply(&eventful(60)).expect("applied");
        let checkpoint = source.checkpoint().expect("a checkpoint");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = opened(dir.path()).state;
        state.apply(&eventful(30)).expect("applied");
        pieces(&*checkpoint, 500).iter().for_each(|piece| state.stage(checkpoint.id(), piece).expect("staged"));

        let reader = state.reader();
        let before = reader.scan("", None, 999).expect("readable");
        thread::scope(|scope| {
            let installation = scope.spawn(|| state.install());
            // It has verified the snapshot, and wants to switch.
            while !matches!(state.writer.try_lock(), Err(TryLockError::WouldBlock)) && !installation.is_finished() {
                thread::yield_now();
            }
            for _ in 0..2_000 {
                assert_eq!(reader.scan("", None, 999).as_ref(), Ok(&before));
            }
            assert_eq!(state.applied().number.0, 30);
            drop(reader);
            let installed = installation.join().expect("it ends");
            assert_eq!(installed, Ok(Installation::Done(checkpoint.id().at)));
        });
        assert_eq!(state.digest(), source.digest());
    }
}
