//! Whether this node was removed from its cluster while it was down, or cut off: nobody could tell it so by a command.
//!
//! Ids are never given out twice, so a member that knows an id to be given out, and no member to have it, knows that the
//! node was removed for good. It says so in the handshake. One word is not enough: it may come from what is left of another
//! cluster with the same id (two restores of one backup), and a node that gives up what it has must know that the removal
//! is durable elsewhere. So more than half of the other nodes that this one knows must say it (ADR 0027).

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use protocol::{Membership, NodeId};
use tokio::sync::watch;

/// See the module.
pub(super) struct Removal {
    /// Who has said so since this node runs. Nobody takes it back.
    said: Mutex<BTreeSet<NodeId>>,
    certain: watch::Sender<bool>,
}

impl Removal {
    pub(super) fn new() -> Self {
        Self { said: Mutex::default(), certain: watch::Sender::new(false) }
    }

    /// A peer says so to this node, which goes by that membership.
    pub(super) fn said_by(&self, peer: NodeId, me: NodeId, membership: &Membership) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert(peer);
        if is_certain(me, membership, &said) {
            self.certain.send_replace(true);
        }
    }

    pub(super) fn is_certain(&self) -> bool {
        *self.certain.borrow()
    }

    /// Waits until it is certain: for most nodes, for ever.
    pub(super) async fn certain(&self) {
        // The sender lives as long as this.
        _ = self.certain.subscribe().wait_for(|certain| *certain).await;
    }
}

fn is_certain(me: NodeId, membership: &Membership, said: &BTreeSet<NodeId>) -> bool {
    let others: BTreeSet<NodeId> = membership.learners().filter(|node| *node != me).collect();
    others.intersection(said).count() * 2 > others.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a node that gives up its data on the word of one of several, of strangers, or of nobody; and one that waits
    /// for nodes that are down.
    #[test]
    fn more_than_half_of_the_others_must_say_it() {
        let cases: [(u64, &[u64], bool); 9] = [
            (1, &[], false),
            (2, &[], false),
            (2, &[1], true),
            (3, &[1], false),
            (3, &[1, 2], true),
            (4, &[1, 2], true),
            (4, &[1, 7, 8], false),
            (5, &[1, 2], false),
            (5, &[1, 2, 4], true),
        ];
        for (nodes, said, certain) in cases {
            let said = said.iter().copied().map(NodeId).collect();
            assert_eq!(is_certain(NodeId(nodes), &Membership::of_equals(nodes), &said), certain, "{nodes}: {said:?}");
        }
    }

    /// Catches words that are counted twice, or forgotten.
    #[tokio::test]
    async fn words_are_gathered() {
        let (removal, membership) = (Removal::new(), Membership::of_equals(3));
        for _ in 0..3 {
            removal.said_by(NodeId(1), NodeId(3), &membership);
            assert!(!removal.is_certain());
        }
        removal.said_by(NodeId(2), NodeId(3), &membership);
        assert!(removal.is_certain());
        removal.certain().await;
    }
}
