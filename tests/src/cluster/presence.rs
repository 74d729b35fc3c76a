//! Which nodes a client may count on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared between a test that takes nodes down and clients that must not see an error unless a
/// node went down. For each node a number that grows with each change: even while it is up.
#[derive(Clone, Debug)]
pub struct Presence(Arc<[AtomicU64]>);

impl Presence {
    /// All nodes are down.
    pub(super) fn new(nodes: usize) -> Self {
        Self((0..nodes).map(|_| AtomicU64::new(1)).collect())
    }

    /// Counted on from now on.
    pub(super) fn up(&self, node: usize) {
        if !self.is_up(node) {
            self.0[node].fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Not counted on from now on; to be said before it is taken down.
    pub(super) fn down(&self, node: usize) {
        if self.is_up(node) {
            self.0[node].fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Whether the node is up.
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.mark(node).is_multiple_of(2)
    }

    /// To be compared with a later mark: a node that was up all the time has the same, even, one.
    #[must_use]
    pub fn mark(&self, node: usize) -> u64 {
        self.0[node].load(Ordering::SeqCst)
    }

    /// Whether the node was up all the time since `mark` was taken.
    #[must_use]
    pub fn was_up_since(&self, node: usize, mark: u64) -> bool {
        mark.is_multiple_of(2) && self.mark(node) == mark
    }
}
