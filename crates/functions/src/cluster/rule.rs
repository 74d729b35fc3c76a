//! `cluster.set_rule`: which sets of acceptors are majority sets.
//!
//! *Zones* are a way to say a list: a set for each majority of the zones and, in each of these, each majority of its
//! nodes. Any two share a zone, and in it a node. So the loss of any zone, or of a few zones when there are more, is
//! survived with a node lost in each other zone of three. What is stored is the list.

use std::collections::{BTreeMap, BTreeSet};

use protocol::membership::{Rule, SETS_MAX};
use protocol::{Membership, NodeId};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Changed, NodeArgument, change, check_caught_up, find, in_force, name_of, refused};
use crate::context::ExecutionContext;
use crate::function::Failure;
use crate::typed::{present, without_null_defaults};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = without_null_defaults)]
pub(super) struct SetRule {
    /// The majority sets, each a list of nodes by id or name; any two must share a node, and the nodes in them are the
    /// acceptors. With an empty list the weights decide: more than half of all.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<Vec<NodeArgument>>")]
    majority_sets: Option<Vec<Vec<NodeArgument>>>,
    /// Instead: the acceptors by zone, such as `{"east": ["a", "b", "c"], "west": ["d", "e", "f"], "third": ["g"]}`. A
    /// majority set is then a majority of the zones, with a majority of the nodes of each.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "BTreeMap<String, Vec<NodeArgument>>")]
    zones: Option<BTreeMap<String, Vec<NodeArgument>>>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

pub(super) fn set_rule(context: &mut ExecutionContext<'_>, arguments: SetRule) -> Result<Changed, Failure> {
    let now = in_force(context)?;
    let sets = match (&arguments.majority_sets, &arguments.zones) {
        (Some(sets), None) => sets.iter().map(|set| found(&now, set)).collect::<Result<BTreeSet<_>, _>>()?,
        (None, Some(zones)) => of_zones(&now, zones)?,
        (None, None) | (Some(_), Some(_)) => {
            return Err(Failure::InvalidArguments("give `majority_sets` or `zones`, one of the two".to_owned()));
        }
    };
    let rule = if sets.is_empty() { Rule::Weights } else { Rule::Sets(sets) };
    let next = now.ruled(rule).map_err(refused)?;
    for node in next.majority().nodes().iter().filter(|node| !now.is_acceptor(**node)) {
        check_caught_up(context, &now, *node)?;
    }
    change(context, &now, &next, None, arguments.dry_run)
}

fn found(now: &Membership, set: &[NodeArgument]) -> Result<BTreeSet<NodeId>, Failure> {
    set.iter().map(|node| find(now, node)).collect()
}

fn of_zones(
    now: &Membership,
    zones: &BTreeMap<String, Vec<NodeArgument>>,
) -> Result<BTreeSet<BTreeSet<NodeId>>, Failure> {
    let mut placed = BTreeMap::new();
    let mut nodes = Vec::new();
    for (zone, members) in zones {
        let members = found(now, members)?;
        if members.is_empty() {
            return Err(Failure::InvalidArguments(format!("zone {zone:?} has no node; leave it out")));
        }
        for node in &members {
            if let Some(other) = placed.insert(*node, zone) {
                let text = format!("node {} is in the zones {other:?} and {zone:?}", name_of(now, *node));
                return Err(Failure::InvalidArguments(text));
            }
        }
        nodes.push(members.into_iter().collect::<Vec<_>>());
    }
    if nodes.is_empty() {
        return Err(Failure::InvalidArguments("`zones` names none".to_owned()));
    }
    let sets = majorities(&nodes).into_iter().try_fold(BTreeSet::new(), |mut sets, zones| {
        // Each zone multiplies those that there are.
        let mut chosen = BTreeSet::from([BTreeSet::new()]);
        for zone in zones {
            let majorities = majorities(&zone);
            let grown = chosen.iter().flat_map(|set: &BTreeSet<NodeId>| {
                majorities.iter().map(move |more| set.iter().chain(more).copied().collect::<BTreeSet<NodeId>>())
            });
            chosen = grown.take(SETS_MAX + 1).collect();
        }
        sets.extend(chosen);
        (sets.len() <= SETS_MAX).then_some(sets)
    });
    sets.ok_or_else(|| {
        let text =
            format!("these zones have more than {SETS_MAX} majority sets; make fewer, or with fewer acceptors in each");
        Failure::InvalidArguments(text)
    })
}

/// The smallest majorities of these, but no more than would be too many.
fn majorities<T: Clone>(of: &[T]) -> Vec<Vec<T>> {
    fn choose<T: Clone>(of: &[T], count: usize, chosen: &mut Vec<T>, all: &mut Vec<Vec<T>>) {
        if all.len() > SETS_MAX || of.len() < count {
            return;
        }
        let [first, rest @ ..] = of else { return all.push(chosen.clone()) };
        if count == 0 {
            return all.push(chosen.clone());
        }
        chosen.push(first.clone());
        choose(rest, count - 1, chosen, all);
        chosen.pop();
        choose(rest, count, chosen, all);
    }
    let mut all = Vec::new();
    choose(of, of.len() / 2 + 1, &mut Vec::new(), &mut all);
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{CommandNumber, MajoritySets};
    use serde_json::json;

    use super::*;
    use crate::testing::{MapState, key};

    fn state(nodes: u64) -> MapState {
        let genesis = (*Membership::of_equals(nodes)).clone();
        let heard = genesis.learners().map(|node| (node, CommandNumber::NULL)).collect();
        MapState { genesis, heard, ..MapState::default() }
    }

    fn set_zones(state: &mut MapState, zones: &serde_json::Value) -> MajoritySets {
        state.call("cluster.set_rule", &json!({ "zones": zones }).to_string()).expect("nothing is in the way");
        Membership::read(&state.entries[&key("quorate/membership")]).expect("a membership").majority().clone()
    }

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    /// Catches zones of which the loss of one stops the cluster, or that count nodes and not zones: more than half of the
    /// nodes, but of one zone of three.
    #[test]
    fn a_majority_of_zones_with_a_majority_in_each() {
        let sets = set_zones(&mut state(7), &json!({"east": ["n1", 2, "n3"], "west": [4, 5, 6], "third": [7]}));
        assert!(sets.is_majority(&nodes(&[1, 2, 7])), "without the west, and a node more");
        assert!(sets.is_majority(&nodes(&[2, 3, 4, 6])), "without the third zone");
        assert!(!sets.is_majority(&nodes(&[1, 2, 3, 4])), "most nodes, one zone and a half");
        assert!(!sets.is_majority(&nodes(&[1, 4, 7])), "a node of each zone");
        assert_eq!(sets.losses_max(), 4);
        let flat = set_zones(&mut state(3), &json!({"x": [1], "y": [2], "z": [3]}));
        assert!(flat.is_majority(&nodes(&[1, 3])) && !flat.is_majority(&nodes(&[2])));
    }

    /// Catches an argument that is taken for another one, and zones that need more sets than fit, or time without end to find
    /// out.
    #[test]
    fn what_is_no_set_of_zones_is_refused() {
        let state = state(64);
        let all: Vec<u64> = (1..=64).collect();
        let refused = [
            (json!({}), "one of the two"),
            (json!({"zones": {"x": [1]}, "majority_sets": [[1]]}), "one of the two"),
            (json!({"zones": null}), "null"),
            (json!({"zones": {}}), "names none"),
            (json!({"zones": {"x": []}}), "has no node"),
            (json!({"zones": {"x": [1, 2], "y": [2]}}), "n2 is in the zones \"x\" and \"y\""),
            (json!({"zones": {"x": all}}), "make fewer"),
            (
                json!({"zones": all.iter().map(|id| (id.to_string(), vec![id])).collect::<BTreeMap<_, _>>()}),
                "make fewer",
            ),
            (json!({"zones": {"x": all[..20], "y": all[20..40], "z": all[40..]}}), "make fewer"),
        ];
        for (arguments, says) in refused {
            state.assert_invalid("cluster.set_rule", &arguments.to_string(), says);
        }
        state.assert_refuses("cluster.set_rule", r#"{"zones": {"x": ["nobody"]}}"#, "unknown_node", false);
    }

    proptest! {
        /// B2: catches zones from which two leaders could issue different commands; and a set that is none, by the definition.
        #[test]
        fn majority_sets_of_zones_intersect(sizes in prop::collection::vec(1_usize..=3, 1..=4), present in any::<u16>()) {
            let ids: Vec<u64> = (1..=sizes.iter().sum::<usize>() as u64).collect();
            let mut rest = &ids[..];
            let zones: Vec<&[u64]> = sizes.iter().map(|size| rest.split_off(..*size).expect("as many as all")).collect();
            let named: BTreeMap<usize, &[u64]> = zones.iter().copied().enumerate().collect();
            // `MajoritySets` refuses two that are disjoint.
            let sets = set_zones(&mut state(ids.len() as u64), &json!(named));
            let is_there = |id: &&u64| present >> **id & 1 == 1;
            let good = zones.iter().filter(|zone| zone.iter().filter(is_there).count() * 2 > zone.len()).count();
            prop_assert_eq!(sets.holds(|node| is_there(&&node.0)), good * 2 > zones.len());
        }
    }
}
