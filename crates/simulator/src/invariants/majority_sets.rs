//! B2: any two majority sets intersect (DESIGN 14.5, RELIABILITY 3.11 without configurations).
//!
//! Construction refuses a family with two disjoint sets (`protocol::MajoritySets`, `Membership`), and a command that
//! would make one comes to nothing. This is the second line: it goes by nothing but the question whether some nodes
//! contain a majority set, and looks at what was decided.

use std::collections::BTreeSet;

use protocol::{NodeId, Now};

use super::{History, Invariant, Violation};
use crate::fact::Fact;

/// See the module.
#[derive(Default)]
pub(super) struct MajoritySetsIntersect {
    /// The change looked at last.
    looked_at: Option<u64>,
}

/// Two disjoint sets of nodes that both are majority sets: then so are a set and its complement.
fn disjoint(nodes: &BTreeSet<NodeId>, is_majority: impl Fn(&BTreeSet<NodeId>) -> bool) -> Option<Violation> {
    let half = |mask: u64, bit: u64| -> BTreeSet<NodeId> {
        let of = nodes.iter().zip(0..u64::BITS).filter(|(_, index)| mask >> index & 1 == bit);
        of.map(|(node, _)| *node).collect()
    };
    (0..1_u64 << nodes.len().min(16)).map(|mask| (half(mask, 1), half(mask, 0))).find_map(|(one, other)| {
        let both = is_majority(&one) && is_majority(&other);
        both.then(|| format!("{one:?} and {other:?} both are majority sets"))
    })
}

impl Invariant for MajoritySetsIntersect {
    fn name(&self) -> &'static str {
        "majority sets"
    }

    /// Looks at all sets of nodes, of each membership once: worlds have at most a few.
    fn check(&mut self, _: Now, _: &Fact, history: &History) -> Result<(), Violation> {
        let (membership, change) = history.disks.membership();
        if self.looked_at.replace(change) == Some(change) {
            return Ok(());
        }
        let acceptors = membership.majority();
        disjoint(acceptors.nodes(), |present| acceptors.is_majority(present)).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// A1c: catches families with two disjoint sets: half of four nodes is no majority.
    #[test]
    fn two_majority_sets_share_a_node() {
        let fact = started(1, 1, &[]);
        assert_eq!(run(MajoritySetsIntersect::default(), std::slice::from_ref(&fact)), Ok(()));
        let four: BTreeSet<NodeId> = (1..=4).map(NodeId).collect();
        let broken = disjoint(&four, |present| present.len() >= 2).expect("halves");
        assert!(broken.contains("both are majority sets"), "{broken}");
        assert_eq!(disjoint(&four, |present| present.len() >= 3), None);
    }
}
