//! Checkpoints of this node's state, open for peers that need all of it: made and read beside the learner's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix::prelude::*;
use protocol::message::{Snapshot, ToLearner};
use protocol::{Message, NodeId, Position, SnapshotId};
use storage::Checkpoint;

use crate::actor::{LearnerActor, PIECE_BYTES};
use crate::core::Input;

/// What is open; the core decides what that is.
#[derive(Default)]
pub(crate) struct Checkpoints {
    open: BTreeMap<SnapshotId, Arc<dyn Checkpoint>>,
    /// Those for whom a piece is being read: one at a time each.
    reading: BTreeSet<NodeId>,
}

impl LearnerActor {
    pub(crate) fn make_checkpoint(&mut self, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.store);
        self.beside(
            ctx,
            move || store.checkpoint(),
            |actor, checkpoint, ctx| {
                let id = checkpoint.id();
                let records = checkpoint.records();
                tracing::info!(at = %id.at, records, "a checkpoint of the state is open for a peer that is far behind");
                actor.checkpoints.open.insert(id, Arc::from(checkpoint));
                actor.count_checkpoints();
                actor.take(Input::CheckpointMade(id), ctx);
            },
        );
    }

    pub(crate) fn close_checkpoint(&mut self, id: SnapshotId) {
        tracing::info!(at = %id.at, "the checkpoint is closed: no peer has asked about it for a while");
        let closed = self.checkpoints.open.remove(&id);
        // It may take files with it, and nobody waits for that.
        tokio::task::spawn_blocking(move || drop(closed));
        self.count_checkpoints();
    }

    pub(crate) fn serve_piece(&mut self, to: NodeId, id: SnapshotId, from: Position, ctx: &mut Context<Self>) {
        let Some(checkpoint) = self.checkpoints.open.get(&id).map(Arc::clone) else { return };
        if !self.checkpoints.reading.insert(to) {
            return;
        }
        let read = move || Ok((checkpoint.records(), checkpoint.piece(&from, PIECE_BYTES)?));
        self.beside(ctx, read, move |actor, (records, piece), _| {
            actor.checkpoints.reading.remove(&to);
            metrics::counter!("quorate_snapshot_sent_bytes_total").increment(piece.bytes() as u64);
            let snapshot = Snapshot { id, records, piece: Some(piece) };
            (actor.ports.send)(to, Message::Learner(ToLearner::Snapshot(snapshot)));
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "there are few")]
    fn count_checkpoints(&self) {
        metrics::gauge!("quorate_snapshot_checkpoints_open").set(self.checkpoints.open.len() as f64);
    }
}
