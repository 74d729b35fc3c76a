//! What a node says of a silent acceptor, as long as it is silent: why, for whom it waits, and what to do.

use std::sync::Arc;
use std::time::Duration;

use acceptor::core::{Silence, notes_needed};
use protocol::{MajoritySets, Membership, NodeId};

use super::disks::Disks;
use super::router::Router;

/// How often the acceptor is told again who has noted its disk: a mailbox may have been full.
const TOLD_AGAIN: Duration = Duration::from_secs(1);
/// After how many of these it is said again.
const SAID_AGAIN: u32 = 30;

/// Until the acceptor speaks.
pub(super) async fn watch(router: Arc<Router>, disks: Arc<Disks>) {
    let mut interval = tokio::time::interval(TOLD_AGAIN);
    for round in 0_u32.. {
        interval.tick().await;
        let Some(silence) = disks.silence() else { return };
        disks.all_noted_by().into_iter().for_each(|peer| router.noted(peer));
        if round % SAID_AGAIN == 0 {
            tracing::warn!(
                reason = silence.name(),
                "the acceptor of this node is silent: {}",
                explain(router.me(), &router.membership(), &disks, silence)
            );
        }
        if silence == Silence::Replaced {
            return;
        }
    }
}

/// A sentence.
pub(super) fn explain(me: NodeId, membership: &Membership, disks: &Disks, silence: Silence) -> String {
    match silence {
        Silence::Fresh => {
            let noted = disks.all_noted_by();
            let acceptors = membership.majority();
            let name = |id: &NodeId| membership.node(*id).map_or_else(|| id.to_string(), |member| member.name.clone());
            let others = acceptors.nodes().iter().filter(|id| **id != me);
            let missing: Vec<String> = others.filter(|id| !noted.contains(id)).map(name).collect();
            format!(
                "its disk is new, and it neither votes nor leads until {} of the other nodes have noted it; start those \
                 that do not run (one that was recovered after a lost disk does not count): {}",
                notes_needed(acceptors, me),
                missing.join(", ")
            )
        }
        Silence::Replaced => {
            "it has lost a disk and joined again: it learns and serves, and never votes or leads under \
                              this name; as long as that is so, the cluster stands the loss of one node less"
                .to_owned()
        }
        Silence::Damaged if !is_dispensable(membership.majority(), me, |node| disks.is_replaced(node)) => {
            "its log was damaged, and votes may be lost; the others that vote hold no majority set without it, so \
             it votes again only if one of them leads already: else nobody can lead any more, and this cluster must be \
             restored as a new one, from a backup of the node that has applied the most"
                .to_owned()
        }
        Silence::Damaged => {
            "its log was damaged, and votes may be lost; it votes again when it has learnt from a leader and a \
                             majority what they may have been for, by itself"
                .to_owned()
        }
        Silence::Behind => {
            "its state was damaged or lost, and is learnt again from the other nodes; it votes again when it \
                            has what it had, by itself"
                .to_owned()
        }
    }
}

/// Whether the others can elect somebody while this node is silent.
fn is_dispensable(majority: &MajoritySets, me: NodeId, is_replaced: impl Fn(NodeId) -> bool) -> bool {
    majority.holds(|node| node != me && !is_replaced(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an operator who is told to wait for what can never come: a damaged node without which nobody can be
    /// elected, be it one of two, the heavy one, or one of the two that are left of three.
    #[test]
    fn who_is_needed_for_every_majority_set_is_told_so() {
        let simple = |count| MajoritySets::simple((1..=count).map(NodeId)).expect("nodes");
        let weighted = MajoritySets::weighted([(NodeId(1), 2), (NodeId(2), 1), (NodeId(3), 1)]).expect("nodes");
        let nobody = |_| false;
        assert!(!is_dispensable(&simple(2), NodeId(1), nobody));
        assert!(is_dispensable(&simple(3), NodeId(1), nobody));
        assert!(!is_dispensable(&simple(3), NodeId(1), |node| node == NodeId(3)));
        assert!(!is_dispensable(&weighted, NodeId(1), nobody));
        assert!(is_dispensable(&weighted, NodeId(2), nobody));
        assert!(is_dispensable(&simple(3), NodeId(9), nobody), "it is no acceptor");
    }
}
