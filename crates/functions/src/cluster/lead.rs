//! Who leads (DESIGN 10, ADR 0030): `hand_over`, and whom a leader that stops hands over to.
//!
//! Nothing of it is state: the function judges, and says so to the leader that runs it, which does the rest.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use protocol::{Membership, NodeId, Space};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BEHIND_MAX, NodeArgument, find, in_force, name_of, refusal};
use crate::context::{Cluster, ExecutionContext, Heard};
use crate::function::Failure;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HandOver {
    /// The node that is to lead, by id or name.
    node: NodeArgument,
    /// Only say whether it could.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct HandedOver {
    /// The node that is to lead.
    node: u64,
    /// Its name.
    name: String,
    /// Whether it leads already.
    leads: bool,
}

pub(super) fn hand_over(context: &mut ExecutionContext<'_>, arguments: HandOver) -> Result<HandedOver, Failure> {
    let membership = in_force(context)?;
    let node = find(&membership, &arguments.node)?;
    let cluster = context.cluster();
    let leads = node == cluster.me;
    if !leads {
        check_can_take_over(&membership, &(cluster.heard)(), node)?;
        if !arguments.dry_run {
            context.hand_over(node);
        }
    }
    Ok(HandedOver { node: node.0, name: name_of(&membership, node), leads })
}

/// Who takes over from a leader that stops: of those that can, one that votes before one that does not (that may be a spare, or
/// about to leave), then who has applied the most.
#[must_use]
pub fn successor(cluster: &Cluster<'_>) -> Option<NodeId> {
    let (membership, heard) = (cluster.membership, (cluster.heard)());
    let can = |node: &NodeId| *node != cluster.me && check_can_take_over(membership, &heard, *node).is_ok();
    let able = membership.nodes().keys().copied().filter(can);
    able.max_by_key(|node| (membership.is_acceptor(*node), heard.get(node).map(|heard| heard.applied), Reverse(*node)))
}

fn check_can_take_over(
    membership: &Membership,
    all_heard: &BTreeMap<NodeId, Heard>,
    node: NodeId,
) -> Result<(), Failure> {
    let name = name_of(membership, node);
    let Some(heard) = all_heard.get(&node) else {
        let text = format!("node {name} is not heard; start it, and see that the leader's node can reach it");
        return Err(refusal("not_heard", text, true));
    };
    if !heard.can_lead || !membership.may_lead(node) {
        let text = format!(
            "node {name} may not lead now: node.roles has no `leader`, or it is stopping, or has just left the lead to \
             others, or its /readyz says why not"
        );
        return Err(refusal("may_not_lead", text, true));
    }
    if heard.space > Space::Ample {
        return Err(refusal("no_room", format!("the disk of node {name} is almost full; make room first"), true));
    }
    let newest = all_heard.values().map(|heard| heard.applied).max().unwrap_or_default();
    if heard.applied.0.saturating_add(BEHIND_MAX) < newest.0 {
        let applied = heard.applied;
        let text = format!("node {name} has applied {applied} of {newest} commands; wait until it has caught up");
        return Err(refusal("not_caught_up", text, true));
    }
    // As the failure detectors judge it: it must hear those, and they it.
    let hears_back = |acceptor: NodeId| all_heard.get(&acceptor).is_none_or(|other| other.hears.contains(&node));
    let connected = |acceptor| acceptor == node || heard.hears.contains(&acceptor) && hears_back(acceptor);
    if !membership.majority().holds(connected) {
        let text = format!("node {name} and too many of the acceptors do not hear each other; mend the network first");
        return Err(refusal("not_connected", text, true));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::{CommandNumber, Timestamp};

    use super::*;
    use crate::registry::Registry;
    use crate::run::{Execution, run};
    use crate::testing::MapState;

    type Words = BTreeMap<NodeId, Heard>;

    /// Three nodes that all hear each other; node 1 leads.
    fn all_well() -> Words {
        let all = || [1, 2, 3].map(NodeId);
        all().map(|node| (node, Heard::well(CommandNumber(10_000), all()))).into()
    }

    fn with(change: impl FnOnce(&mut Heard)) -> Words {
        let mut words = all_well();
        change(words.get_mut(&NodeId(2)).expect("it is heard"));
        words
    }

    fn execute(words: &Words, genesis: &Membership, arguments: &str) -> Execution {
        let state = MapState::default();
        let heard = || words.clone();
        let cluster = Cluster { me: NodeId(1), membership: genesis, heard: &heard, votes: &|_| true };
        let context = ExecutionContext::new(&state, Timestamp(1), 1).of(cluster);
        let registry = Registry::with_builtins();
        let function = registry.get("cluster.hand_over").expect("a built-in function");
        run(function.as_ref(), context, &arguments.to_owned().into())
    }

    fn text(execution: &Execution) -> &str {
        std::str::from_utf8(execution.result.as_ref().expect("it can")).expect("JSON")
    }

    /// Catches a lead that goes to another node than the one named, that goes in a dry run, and one that is handed over to
    /// who has it.
    #[test]
    fn the_node_that_is_named_is_to_lead() {
        let genesis = Membership::of_equals(3);
        for (arguments, successor, says) in [
            (r#"{"node": 2}"#, Some(2), r#"{"leads":false,"name":"n2","node":2}"#),
            (r#"{"node": "n3"}"#, Some(3), r#"{"leads":false,"name":"n3","node":3}"#),
            (r#"{"node": 2, "dry_run": true}"#, None, r#"{"leads":false,"name":"n2","node":2}"#),
            (r#"{"node": 1}"#, None, r#"{"leads":true,"name":"n1","node":1}"#),
        ] {
            let execution = execute(&all_well(), &genesis, arguments);
            assert_eq!((text(&execution), execution.successor), (says, successor.map(NodeId)), "{arguments}");
            assert!(execution.effects.is_empty());
        }
    }

    /// Catches a node that may lead and does not vote, which wins elections and can never be handed the lead.
    #[test]
    fn who_leads_need_not_vote() {
        let genesis = Membership::of_equals(3).weighing(NodeId(2), 0).expect("two are left");
        assert_eq!(execute(&all_well(), &genesis, r#"{"node": 2}"#).successor, Some(NodeId(2)));
        let cut_off = with(|two| two.hears = [2, 3].map(NodeId).into());
        let execution = execute(&cut_off, &genesis, r#"{"node": 2}"#);
        let Err(Failure::Refused(refusal)) = &execution.result else { panic!("{execution:?}") };
        assert_eq!(refusal.code, "not_connected", "its own voice does not count among the acceptors");
    }

    /// Catches a lead that goes to a node which then cannot lead, a caller who is told another reason, and one who waits
    /// for what does not pass by itself.
    #[test]
    fn a_node_that_could_not_lead_is_refused_with_the_reason() {
        let genesis = Membership::of_equals(3);
        let one_way = || {
            let mut words = all_well();
            for node in [1, 3].map(NodeId) {
                words.get_mut(&node).expect("it is heard").hears.remove(&NodeId(2));
            }
            words
        };
        let gone = || {
            let mut words = all_well();
            words.remove(&NodeId(2));
            words
        };
        for (words, code) in [
            (gone(), "not_heard"),
            (with(|two| two.can_lead = false), "may_not_lead"),
            (with(|two| two.space = Space::Low), "no_room"),
            (with(|two| two.applied = CommandNumber(9)), "not_caught_up"),
            (with(|two| two.hears = [NodeId(2)].into()), "not_connected"),
            (one_way(), "not_connected"),
        ] {
            let execution = execute(&words, &genesis, r#"{"node": 2}"#);
            let Err(Failure::Refused(refusal)) = &execution.result else { panic!("{execution:?} instead of {code}") };
            assert_eq!((refusal.code, refusal.may_pass, execution.successor), (code, true, None), "{refusal:?}");
        }
        let newest = all_well().values().map(|heard| heard.applied.0).max().expect("three nodes");
        let near = with(|two| two.applied = CommandNumber(newest - BEHIND_MAX));
        assert_eq!(execute(&near, &genesis, r#"{"node": 2}"#).successor, Some(NodeId(2)), "just near enough");
        let execution = execute(&all_well(), &genesis, r#"{"node": "x"}"#);
        assert!(matches!(&execution.result, Err(Failure::Refused(refusal)) if refusal.code == "unknown_node"));
    }

    /// Catches a leader that stops and hands over to itself, to who cannot lead, or to who must first learn much.
    #[test]
    fn who_has_applied_the_most_succeeds() {
        let genesis = Membership::of_equals(3);
        let succeeds = |words: Words| {
            let heard = || words.clone();
            successor(&Cluster { me: NodeId(1), membership: &genesis, heard: &heard, votes: &|_| true })
        };
        assert_eq!(succeeds(all_well()), Some(NodeId(2)), "the lower id of equals");
        assert_eq!(succeeds(with(|two| two.applied = CommandNumber(9_999))), Some(NodeId(3)));
        assert_eq!(succeeds(with(|two| two.can_lead = false)), Some(NodeId(3)));
        let mut alone = all_well();
        alone.retain(|node, _| *node == NodeId(1));
        assert_eq!(succeeds(alone), None);
    }

    /// Catches a leader that stops and hands over to a node that does not vote, a spare or one about to leave, although one that
    /// votes could lead; and one that hands over to nobody where only such a node is left.
    #[test]
    fn who_votes_succeeds_before_who_has_applied_more() {
        let genesis = Membership::of_equals(3).weighing(NodeId(2), 0).expect("two are left");
        let succeeds = |words: Words| {
            let heard = || words.clone();
            successor(&Cluster { me: NodeId(1), membership: &genesis, heard: &heard, votes: &|_| true })
        };
        assert_eq!(succeeds(all_well()), Some(NodeId(3)), "a learner of a lower id");
        assert_eq!(succeeds(with(|two| two.applied = CommandNumber(10_001))), Some(NodeId(3)), "one that is ahead");
        let mut only_a_learner = all_well();
        only_a_learner.get_mut(&NodeId(3)).expect("it is heard").can_lead = false;
        assert_eq!(succeeds(only_a_learner), Some(NodeId(2)));
    }
}
