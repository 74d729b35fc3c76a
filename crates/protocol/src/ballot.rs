//! Ballots: the patent's condition B1, each has a number of its own.

use std::fmt;

use crate::node::NodeId;

/// A ballot number, ordered by `round`, then by the node that owns it. A node begins only
/// ballots that carry its own id, and none twice (B1; DESIGN 5 rule 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Grows with every attempt to lead.
    pub round: u64,
    /// The owner.
    pub node: NodeId,
}

impl Ballot {
    /// Below every ballot that anyone begins: the patent's minus infinity.
    pub const NONE: Self = Self { round: 0, node: NodeId(0) };

    /// The ballot `(round, node)`.
    #[must_use]
    pub const fn new(round: u64, node: NodeId) -> Self {
        Self { round, node }
    }

    /// The lowest ballot of `node` above this one, or `None` when the rounds are used up (a
    /// cluster that began a million ballots a second would need half a million years).
    #[must_use]
    pub fn next_of(self, node: NodeId) -> Option<Self> {
        if self.round > 0 && self.node < node {
            return Some(Self::new(self.round, node));
        }
        self.round.checked_add(1).map(|round| Self::new(round, node))
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A7: catches two owners sharing a ballot, or a successor that is not above.
    #[test]
    fn the_next_ballot_of_a_node_is_its_own_and_above() {
        for round in [0, 1, 17, u64::MAX - 1] {
            for owner in 0..4 {
                let ballot = Ballot::new(round, NodeId(owner));
                for node in 1..4 {
                    let next = ballot.next_of(NodeId(node)).expect("rounds are left");
                    assert!(next > ballot, "{next} is not above {ballot}");
                    assert_eq!(next.node, NodeId(node));
                }
            }
        }
    }

    /// S-27: catches a wrap-around of the round at the end of its range.
    #[test]
    fn the_last_round_has_no_successor_that_wraps() {
        let last = Ballot::new(u64::MAX, NodeId(2));
        assert_eq!(last.next_of(NodeId(1)), None);
        assert_eq!(last.next_of(NodeId(3)), Some(Ballot::new(u64::MAX, NodeId(3))));
    }
}
