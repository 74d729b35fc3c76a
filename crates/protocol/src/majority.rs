//! Majority sets: the patent's condition B2, any two have a node in common.
//!
//! They are data, not arithmetic: a simple majority, a weighted majority, or an explicit list
//! of sets. Construction refuses a family in which two sets do not intersect and names them.
//! Each question asked of a family is one of three: "do these nodes contain a majority set?", "up to
//! which number has a majority set come?", and "how many nodes may be lost?".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::node::NodeId;

/// A family of majority sets over the acceptors of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MajoritySets {
    nodes: BTreeSet<NodeId>,
    family: Family,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Family {
    /// Sets whose weights sum to more than half of the total. A simple majority has weights 1.
    Weighted { weights: BTreeMap<NodeId, u64>, total: u64 },
    /// Supersets of any of these.
    Explicit(Vec<BTreeSet<NodeId>>),
}

/// Why sets cannot serve as majority sets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MajorityError {
    /// No node at all, or no set.
    #[error("at least one acceptor is needed to form a majority set")]
    Empty,
    /// Two sets without a common node: two leaders could issue different commands.
    #[error("the majority sets {} and {} have no node in common; any two must share one", Nodes(.0), Nodes(.1))]
    Disjoint(BTreeSet<NodeId>, BTreeSet<NodeId>),
    /// Weights of which no set can be a majority.
    #[error("the weights sum to {0}; the sum must lie between 1 and 2^63")]
    Weights(u128),
}

struct Nodes<'a>(&'a BTreeSet<NodeId>);

impl fmt::Display for Nodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "{{{}}}", names.join(", "))
    }
}

impl MajoritySets {
    /// More than half of the nodes.
    ///
    /// # Errors
    /// [`MajorityError::Empty`] without nodes.
    pub fn simple(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, MajorityError> {
        Self::weighted(nodes.into_iter().map(|node| (node, 1)))
    }

    /// Nodes whose weights sum to more than half of all weights. A weight of 0 is allowed: such
    /// a node votes and does not count.
    ///
    /// # Errors
    /// [`MajorityError`] without nodes, or when the weights sum to 0 or beyond 2^63.
    pub fn weighted(weights: impl IntoIterator<Item = (NodeId, u64)>) -> Result<Self, MajorityError> {
        let weights: BTreeMap<NodeId, u64> = weights.into_iter().collect();
        if weights.is_empty() {
            return Err(MajorityError::Empty);
        }
        let sum: u128 = weights.values().map(|weight| u128::from(*weight)).sum();
        let total = u64::try_from(sum).ok().filter(|total| (1..=1 << 63).contains(total));
        let total = total.ok_or(MajorityError::Weights(sum))?;
        Ok(Self { nodes: weights.keys().copied().collect(), family: Family::Weighted { weights, total } })
    }

    /// Exactly the given sets and all that contain one of them.
    ///
    /// # Errors
    /// [`MajorityError`] when there is none, or when two of them are disjoint: the error names
    /// them. An empty set is disjoint from every set, itself included.
    pub fn explicit(sets: impl IntoIterator<Item = BTreeSet<NodeId>>) -> Result<Self, MajorityError> {
        let sets: Vec<BTreeSet<NodeId>> = sets.into_iter().collect();
        if sets.is_empty() {
            return Err(MajorityError::Empty);
        }
        for (index, left) in sets.iter().enumerate() {
            if let Some(right) = sets[index..].iter().find(|right| left.is_disjoint(right)) {
                return Err(MajorityError::Disjoint(left.clone(), right.clone()));
            }
        }
        Ok(Self { nodes: sets.iter().flatten().copied().collect(), family: Family::Explicit(sets) })
    }

    /// All nodes that occur in the family: the acceptors.
    #[must_use]
    pub fn nodes(&self) -> &BTreeSet<NodeId> {
        &self.nodes
    }

    /// What the vote of a node weighs: 0 outside the family, 1 in a list of sets.
    #[must_use]
    pub fn weight(&self, node: NodeId) -> u64 {
        match &self.family {
            Family::Weighted { weights, .. } => weights.get(&node).copied().unwrap_or_default(),
            Family::Explicit(_) => u64::from(self.nodes.contains(&node)),
        }
    }

    /// Whether `present` contains a majority set. Nodes outside the family do not count.
    #[must_use]
    pub fn is_majority(&self, present: &BTreeSet<NodeId>) -> bool {
        self.holds(|node| present.contains(&node))
    }

    /// Whether the nodes for which `present` holds contain a majority set.
    #[must_use]
    pub fn holds(&self, present: impl Fn(NodeId) -> bool) -> bool {
        match &self.family {
            Family::Weighted { weights, total } => {
                let sum: u64 = weights.iter().filter(|(node, _)| present(**node)).map(|(_, weight)| *weight).sum();
                sum > total / 2
            }
            Family::Explicit(sets) => sets.iter().any(|set| set.iter().all(|node| present(*node))),
        }
    }

    /// The greatest value that a majority set has reached, where each node has reached
    /// `reached(node)`: how far votes, rounds or durable states of a majority set have come.
    /// `None` when not even the nodes that have reached anything contain a majority set.
    #[must_use]
    pub fn reached<T: Ord + Copy>(&self, reached: impl Fn(NodeId) -> Option<T>) -> Option<T> {
        let mut values: Vec<T> = self.nodes.iter().filter_map(|node| reached(*node)).collect();
        values.sort_unstable_by(|left, right| right.cmp(left));
        values.into_iter().find(|value| self.holds(|node| reached(node).is_some_and(|own| own >= *value)))
    }

    /// The most nodes that can be lost while a majority set remains: all outside the smallest one.
    #[must_use]
    pub fn losses_max(&self) -> usize {
        let smallest = match &self.family {
            Family::Weighted { weights, total } => {
                let mut heaviest: Vec<u64> = weights.values().copied().collect();
                heaviest.sort_unstable_by(|left, right| right.cmp(left));
                let sums = heaviest.into_iter().scan(0, |sum, weight| {
                    *sum += weight;
                    Some(*sum)
                });
                1 + sums.take_while(|sum| *sum <= total / 2).count()
            }
            Family::Explicit(sets) => sets.iter().map(BTreeSet::len).min().expect("a family has a set"),
        };
        self.nodes.len() - smallest
    }

    /// How the family reads in `GET /v1/cluster`: `simple`, `weighted` or `explicit`.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match &self.family {
            Family::Weighted { weights, .. } if weights.values().all(|weight| *weight == 1) => "simple",
            Family::Weighted { .. } => "weighted",
            Family::Explicit(_) => "explicit",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    /// A1c: catches a family that would let two leaders issue different commands.
    #[test]
    fn a_family_with_two_disjoint_sets_is_refused_and_the_error_names_them() {
        let refused = MajoritySets::explicit([nodes(&[1, 2]), nodes(&[2, 3]), nodes(&[3, 4])]);
        let error = refused.expect_err("{1, 2} and {3, 4} are disjoint");
        assert_eq!(error, MajorityError::Disjoint(nodes(&[1, 2]), nodes(&[3, 4])));
        assert!(error.to_string().contains("{1, 2} and {3, 4}"), "{error}");
        assert!(MajoritySets::explicit([nodes(&[])]).is_err(), "an empty set is no majority");
        assert!(MajoritySets::explicit([nodes(&[1, 2]), nodes(&[])]).is_err());
    }

    /// A1c, B8: Lamport's ring of four with {1,2}, {2,3,4}, {3,4,1}.
    #[test]
    fn an_explicit_family_decides_by_containment() {
        let ring =
            MajoritySets::explicit([nodes(&[1, 2]), nodes(&[2, 3, 4]), nodes(&[3, 4, 1])]).expect("they intersect");
        assert!(ring.is_majority(&nodes(&[1, 2])));
        assert!(ring.is_majority(&nodes(&[1, 2, 3])));
        assert!(!ring.is_majority(&nodes(&[1, 3])));
        assert!(!ring.is_majority(&nodes(&[3, 4])));
    }

    /// Catches half of an even cluster passing for a majority, and empty weights.
    #[test]
    fn half_is_not_a_majority() {
        let four = MajoritySets::simple((1..=4).map(NodeId)).expect("four nodes");
        assert!(!four.is_majority(&nodes(&[1, 2])));
        assert!(four.is_majority(&nodes(&[1, 2, 4])));
        assert!(!four.is_majority(&nodes(&[1, 2, 9, 10, 11])), "strangers do not count");
        assert_eq!(MajoritySets::simple([]), Err(MajorityError::Empty));
        assert_eq!(MajoritySets::weighted([(NodeId(1), 0)]), Err(MajorityError::Weights(0)));
        let huge = [(NodeId(1), u64::MAX), (NodeId(2), u64::MAX)];
        assert_eq!(MajoritySets::weighted(huge), Err(MajorityError::Weights(u128::from(u64::MAX) * 2)));
    }

    /// Catches a tally that counts numbers a majority set has not reached.
    #[test]
    fn reached_is_the_greatest_value_of_a_majority_set() {
        let five = MajoritySets::simple((1..=5).map(NodeId)).expect("five nodes");
        let values = BTreeMap::from([(1, 9), (2, 7), (4, 5), (5, 1)]);
        assert_eq!(five.reached(|node| values.get(&node.0).copied()), Some(5));
        assert_eq!(five.reached(|node| values.get(&node.0).filter(|value| **value > 5).copied()), None);
    }

    /// Catches a family that forgets its acceptors, and one called by the name of another rule.
    #[test]
    fn a_family_knows_its_acceptors_and_its_rule() {
        let simple = MajoritySets::simple((1..=3).map(NodeId)).expect("three nodes");
        let weighted = MajoritySets::weighted([(NodeId(1), 1), (NodeId(2), 0)]).expect("weights");
        let explicit = MajoritySets::explicit([nodes(&[1, 2]), nodes(&[2, 3])]).expect("they intersect");
        for (family, acceptors, rule) in [
            (simple, nodes(&[1, 2, 3]), "simple"),
            (weighted, nodes(&[1, 2]), "weighted"),
            (explicit, nodes(&[1, 2, 3]), "explicit"),
        ] {
            assert_eq!((family.nodes(), family.rule()), (&acceptors, rule));
            let weights = [1, 2, 9].map(|node| family.weight(NodeId(node)));
            assert_eq!(weights, [1, u64::from(rule != "weighted"), 0]);
        }
    }

    /// Catches an even cluster that is thought to stand as much as the next odd one, weights that are
    /// not looked at, and sets whose smallest one is not.
    #[test]
    fn what_may_be_lost_is_what_the_smallest_majority_set_does_without() {
        let simple = |count| MajoritySets::simple((1..=count).map(NodeId)).expect("nodes").losses_max();
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(simple), [0, 0, 1, 1, 2, 2, 3]);
        let weighted = |weights: &[u64]| {
            let weights = weights.iter().zip(1..).map(|(weight, node)| (NodeId(node), *weight));
            MajoritySets::weighted(weights).expect("weights").losses_max()
        };
        assert_eq!([weighted(&[3, 1, 1, 1, 1]), weighted(&[1, 1, 2]), weighted(&[5, 1, 1])], [3, 1, 2]);
        assert_eq!([weighted(&[1, 0]), weighted(&[1, 1, 1, 0])], [1, 2]);
        let ring = MajoritySets::explicit([nodes(&[2, 3, 4]), nodes(&[1, 2]), nodes(&[3, 4, 1])]);
        assert_eq!(ring.expect("they intersect").losses_max(), 2);
    }

    proptest! {
        /// Catches a number of losses after which some majority set would still be there, or none.
        #[test]
        fn losses_max_is_what_trying_all_losses_finds(
            weights in prop::collection::vec(0u64..5, 1..7),
            masks in prop::collection::vec(1u8..64, 1..6),
        ) {
            let pick = |mask: u8| -> BTreeSet<NodeId> { (0..6).filter(|bit| mask >> bit & 1 == 1).map(NodeId).collect() };
            let weighted = MajoritySets::weighted(weights.into_iter().zip(0..).map(|(weight, node)| (NodeId(node), weight)));
            let explicit = MajoritySets::explicit(masks.into_iter().map(pick));
            for sets in [weighted, explicit].into_iter().flatten() {
                let lost = |mask: u8| pick(mask).intersection(sets.nodes()).count();
                let stood = (0..64).filter(|mask| sets.holds(|node| !pick(*mask).contains(&node)));
                prop_assert_eq!(Some(sets.losses_max()), stood.map(lost).max(), "{:?}", sets);
            }
        }

        /// A1c: catches weights for which two majority sets are disjoint.
        #[test]
        fn two_weighted_majorities_share_a_node(
            weights in prop::collection::vec(0u64..5, 1..7),
            left in any::<u8>(),
            right in any::<u8>(),
        ) {
            let pairs = weights.iter().enumerate().map(|(index, weight)| (NodeId(index as u64), *weight));
            if let Ok(sets) = MajoritySets::weighted(pairs) {
                let pick = |mask: u8| -> BTreeSet<NodeId> { (0..weights.len() as u64).filter(|bit| mask >> bit & 1 == 1).map(NodeId).collect() };
                let (left, right) = (pick(left), pick(right));
                if sets.is_majority(&left) && sets.is_majority(&right) {
                    prop_assert!(!left.is_disjoint(&right), "{left:?} and {right:?}");
                }
            }
        }

        /// A1c: catches an explicit family over random graphs in which accepted sets do not
        /// pairwise intersect, or a refusal without cause.
        #[test]
        fn explicit_families_are_accepted_exactly_when_they_intersect(masks in prop::collection::vec(1u8..64, 1..6)) {
            let sets: Vec<BTreeSet<NodeId>> = masks.iter().map(|mask| (0..6).filter(|bit| mask >> bit & 1 == 1).map(NodeId).collect()).collect();
            let intersect = masks.iter().all(|left| masks.iter().all(|right| left & right != 0));
            prop_assert_eq!(MajoritySets::explicit(sets).is_ok(), intersect);
        }
    }
}
