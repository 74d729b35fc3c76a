//! B2: any two majority sets intersect (DESIGN 14.5, RELIABILITY 3.11 without configurations).
//!
//! Construction refuses a family with two disjoint sets (`protocol::MajoritySets`, `Membership`), and a command that
//! would make one comes to nothing. This is the second line: it goes by nothing but the question whether some nodes
//! contain a majority set, and looks at what was decided.

use std::collections::BTreeSet;

use protocol::{Membership, NodeId, Now};

use super::{History, Invariant, Violation};
use crate::fact::Fact;

/// See the module.
pub(super) struct MajoritySetsIntersect {
    /// The change looked at last.
    looked_at: Option<u64>,
    /// Whether nodes contain a majority set. No membership can be made that breaks the rule, so that tests ask another
    /// question.
    is_majority: IsMajority,
}

type IsMajority = fn(&Membership, &BTreeSet<NodeId>) -> bool;

impl Default for MajoritySetsIntersect {
    fn default() -> Self {
        Self { looked_at: None, is_majority: |membership, nodes| membership.majority().is_majority(nodes) }
    }
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
        let is_majority = |present: &BTreeSet<NodeId>| (self.is_majority)(membership, present);
        disjoint(membership.majority().nodes(), is_majority).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{CommandNumber, Effect, membership};

    use super::super::testing::*;
    use super::*;

    /// A1c: catches families with two disjoint sets: half of four nodes is no majority.
    #[test]
    fn two_majority_sets_share_a_node() {
        let four: BTreeSet<NodeId> = (1..=4).map(NodeId).collect();
        let broken = disjoint(&four, |present| present.len() >= 2).expect("halves");
        assert!(broken.contains("both are majority sets"), "{broken}");
        assert_eq!(disjoint(&four, |present| present.len() >= 3), None);
    }

    /// A1c: catches a membership with two disjoint sets that nobody looks at, be it the first one or one that a command
    /// made.
    #[test]
    fn each_membership_is_looked_at() {
        let weighing = three().weighing(NodeId(1), 2).expect("a member").to_value();
        let change = body("r1", vec![Effect::Put { key: membership::key(), value: weighing }]);
        let command = &chain_of(&[change])[0];
        let facts = [started(1, 1, &[]), votes(1, 1, &[command]), votes(2, 1, &[command])];
        let with = |is_majority: IsMajority, facts: &[Fact]| {
            run(MajoritySetsIntersect { looked_at: None, is_majority }, facts)
        };
        assert_eq!(run(MajoritySetsIntersect::default(), &facts), Ok(()));
        assert_fails(with(|_, nodes| !nodes.is_empty(), &facts[..1]), "both are majority sets");
        let later: IsMajority =
            |membership, nodes| nodes.len() > usize::from(membership.number() == CommandNumber::NULL);
        assert_eq!(with(later, &facts[..2]), Ok(()));
        assert_fails(with(later, &facts), "both are majority sets");
    }
}
