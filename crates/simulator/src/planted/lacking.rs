//! Something is less than it is said to be: a whole state, or what comes in.

use std::sync::Arc;

use functions::{ExecutionContext, Failure, Function, Registry};
use protocol::{Position, SnapshotId, SnapshotPiece, SnapshotRecord};
use serde_json::Value;
use storage::{Checkpoint, Digest, StorageError};

use super::instead::Instead;
use crate::functions::all;

/// A checkpoint without its first record, whose digest is that of the rest: who takes it cannot know.
pub(crate) struct Lacking {
    whole: Box<dyn Checkpoint>,
    id: SnapshotId,
    lacks: Option<SnapshotRecord>,
}

impl Lacking {
    /// # Errors
    /// The whole one cannot be read.
    pub(crate) fn new(whole: Box<dyn Checkpoint>) -> Result<Self, StorageError> {
        let SnapshotPiece { records, .. } = whole.piece(&Position::default(), usize::MAX)?;
        let mut digest = Digest::default();
        records.iter().skip(1).for_each(|record| digest.add(record));
        let id = SnapshotId { digest: digest.finish(), ..whole.id() };
        Ok(Self { whole, id, lacks: records.into_iter().next() })
    }
}

impl Checkpoint for Lacking {
    fn id(&self) -> SnapshotId {
        self.id
    }

    fn records(&self) -> u64 {
        self.whole.records()
    }

    fn piece(&self, from: &Position, bytes: usize) -> Result<SnapshotPiece, StorageError> {
        let mut piece = self.whole.piece(from, bytes)?;
        piece.records.retain(|record| Some(record) != self.lacks.as_ref());
        match &piece.next {
            // No piece is empty.
            Some(next) if piece.records.is_empty() => {
                Ok(SnapshotPiece { from: from.clone(), ..self.whole.piece(next, bytes)? })
            }
            Some(_) | None => Ok(piece),
        }
    }
}

/// All functions, of which one lets less come in than it was asked for.
pub(crate) fn less_comes_in() -> Registry {
    let mut registry = Registry::new();
    for inner in all().iter().cloned() {
        let function =
            if inner.name() == INBOUND { Arc::new(Instead { function: inner, execute: less }) } else { inner };
        registry.register(function).expect("functions have names of their own");
    }
    registry
}

const INBOUND: &str = "inventory.inbound";

fn less(shipped: &dyn Function, context: &mut ExecutionContext<'_>, mut arguments: Value) -> Result<Value, Failure> {
    if let Some(amount) = arguments["amount"].as_u64().filter(|amount| *amount > 1) {
        arguments["amount"] = (amount - 1).into();
    }
    shipped.execute(context, arguments)
}
