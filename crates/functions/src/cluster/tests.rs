use protocol::{CommandNumber, NodeId};
use serde_json::json;

use super::*;
use crate::testing::{MapState, key};

/// The membership that the state holds now.
fn now(state: &MapState) -> Membership {
    Membership::read(&state.entries[&key("quorate/membership")]).expect("a membership")
}

/// All nodes are heard, and have applied everything.
fn all_are_up(state: &mut MapState) {
    let nodes: Vec<NodeId> = now(state).learners().collect();
    state.heard = nodes.into_iter().map(|node| (node, state.applied)).collect();
}

/// Calls, and then all are up.
#[track_caller]
fn change(state: &mut MapState, function: &str, arguments: &Value) {
    state.call(function, &arguments.to_string()).expect("nothing is in the way");
    all_are_up(state);
}

#[track_caller]
fn refuses(state: &MapState, function: &str, arguments: &Value, code: &str, may_pass: bool) {
    state.assert_refuses(function, &arguments.to_string(), code, may_pass);
}

fn with_learner() -> MapState {
    let mut state = MapState::default();
    change(&mut state, "cluster.join", &json!({"name": "d", "address": "d:7080"}));
    state
}

/// A1c: the way of a node in and out. Catches a step that does something else than it says, by name or by id.
#[test]
fn a_node_joins_becomes_an_acceptor_and_leaves() {
    let mut state = with_learner();
    assert!(!now(&state).is_acceptor(NodeId(4)) && now(&state).number() == CommandNumber(1));
    change(&mut state, "cluster.set_acceptor", &json!({"node": "d"}));
    assert!(now(&state).is_acceptor(NodeId(4)));
    change(&mut state, "cluster.set_acceptor", &json!({"node": 4, "weight": 2}));
    assert_eq!(now(&state).node(NodeId(4)).map(|member| member.weight), Some(2));
    change(&mut state, "cluster.set_acceptor", &json!({"node": 4, "weight": 0}));
    assert!(!now(&state).is_acceptor(NodeId(4)) && now(&state).node(NodeId(4)).is_some());
    change(&mut state, "cluster.remove", &json!({"node": 4}));
    assert!(now(&state).node(NodeId(4)).is_none());
    change(&mut state, "cluster.set_rule", &json!({"majority_sets": [["n1", 2], ["n1", "n3"]]}));
    assert_eq!(now(&state).majority().rule(), "explicit");
    change(&mut state, "cluster.set_rule", &json!({"majority_sets": []}));
    assert_eq!((now(&state).majority().rule(), now(&state).number()), ("simple", CommandNumber(7)));
}

/// ADR 0026: catches a change that is refused because its majority sets share no node with those before.
#[test]
fn any_weights_follow_any_weights() {
    let mut state = MapState::default();
    for weight in [5, 1, 0] {
        change(&mut state, "cluster.set_acceptor", &json!({"node": 1, "weight": weight}));
    }
    change(&mut state, "cluster.set_acceptor", &json!({"node": 1, "weight": 9}));
    assert!(now(&state).majority().holds(|node| node == NodeId(1)), "it decides alone");
    change(&mut state, "cluster.remove", &json!({"node": 1}));
    assert_eq!(now(&state).majority().nodes().len(), 2);
}

/// Catches a caller who is not told the id, or whose answer is not what the state holds afterwards.
#[test]
fn the_answer_is_the_new_membership() {
    let mut state = MapState::default();
    let answer = state.call("cluster.join", r#"{"name": "d", "address": "d:1"}"#).expect("a new node");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let stored: Value = serde_json::from_str(state.text("quorate/membership").expect("an entry")).expect("JSON");
    assert_eq!(answer, json!({"node": 4, "membership": stored}));
}

/// Catches a wiped node that gets its old id back, a replaced one that stays, and a name that two nodes have.
#[test]
fn a_wiped_node_joins_as_another_one_in_its_own_place() {
    let mut state = MapState::default();
    let again = json!({"name": "n3", "address": "n3:7080"});
    refuses(&state, "cluster.join", &again, "still_heard", true);
    for (name, address, code) in [("n3", "other:7080", "name_taken"), ("other", "n3:7080", "address_taken")] {
        refuses(&state, "cluster.join", &json!({"name": name, "address": address}), code, false);
    }
    state.heard.remove(&NodeId(3));
    change(&mut state, "cluster.join", &again);
    assert_eq!(now(&state).named("n3"), Some(NodeId(4)));
    assert_eq!(now(&state).learners().collect::<Vec<_>>(), [1, 2, 4].map(NodeId));
    all_are_up(&mut state);
    let replacing = json!({"name": "e", "address": "e:7080", "replaces": 4});
    refuses(&state, "cluster.join", &replacing, "still_heard", true);
    state.heard.remove(&NodeId(4));
    change(&mut state, "cluster.join", &replacing);
    assert_eq!(now(&state).learners().collect::<Vec<_>>(), [1, 2, 5].map(NodeId), "as the operator says");
}

/// S-16 to S-19: each refusal by its code, and whether it may pass. Catches a change that would leave a cluster that
/// cannot go on, and an operator who is told the wrong reason.
#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let mut state = with_learner();
    for function in ["cluster.set_acceptor", "cluster.remove"] {
        refuses(&state, function, &json!({"node": 9}), "unknown_node", false);
        refuses(&state, function, &json!({"node": "x"}), "unknown_node", false);
    }
    refuses(&state, "cluster.set_rule", &json!({"majority_sets": [["x"]]}), "unknown_node", false);
    refuses(&state, "cluster.join", &json!({"name": "e", "address": "d:7080"}), "address_taken", false);
    refuses(&state, "cluster.set_rule", &json!({"majority_sets": [[1, 2], [3]]}), "two_disjoint_sets", false);
    refuses(&state, "cluster.set_acceptor", &json!({"node": 1, "weight": u64::MAX}), "weights_out_of_range", false);
    state.assert_invalid("cluster.join", r#"{"name": "a b", "address": "d:1"}"#, "no name");
    state.assert_invalid("cluster.join", r#"{"name": "e", "address": "nowhere"}"#, "host:port");

    state.heard.insert(NodeId(1), CommandNumber(1 + BEHIND_MAX));
    assert!(state.execute("cluster.set_acceptor", r#"{"node": 4}"#).result.is_ok(), "just near enough");
    state.heard.insert(NodeId(1), CommandNumber(2 + BEHIND_MAX));
    refuses(&state, "cluster.set_acceptor", &json!({"node": 4}), "not_caught_up", true);
    refuses(&state, "cluster.set_rule", &json!({"majority_sets": [[1, 4], [1, 2]]}), "not_caught_up", true);
    let of_before = state.execute("cluster.set_rule", r#"{"majority_sets": [[1, 2], [2, 3]]}"#);
    assert!(of_before.result.is_ok(), "acceptors that are behind hold nothing up that they did not before");
    state.heard.remove(&NodeId(4));
    refuses(&state, "cluster.set_acceptor", &json!({"node": 4}), "not_caught_up", true);

    all_are_up(&mut state);
    change(&mut state, "cluster.set_rule", &json!({"majority_sets": [[1, 2], [2, 3]]}));
    refuses(&state, "cluster.remove", &json!({"node": 2}), "not_in_majority_sets", false);
    refuses(&state, "cluster.set_acceptor", &json!({"node": 4}), "not_in_majority_sets", false);

    let mut one = MapState { genesis: (*Membership::of_equals(1)).clone(), ..MapState::default() };
    refuses(&one, "cluster.remove", &json!({"node": 1}), "last_acceptor", false);
    refuses(&one, "cluster.set_acceptor", &json!({"node": 1, "weight": 0}), "last_acceptor", false);
    one.genesis = (*Membership::of_equals(64)).clone();
    one.heard = (1..=64).map(|id| (NodeId(id), CommandNumber(0))).collect();
    refuses(&one, "cluster.join", &json!({"name": "e", "address": "e:1"}), "too_many_nodes", false);
}

/// S-17: catches a change that the nodes which are up could not carry out, or after which they were no majority set; and
/// a dead acceptor that cannot be removed.
#[test]
fn a_change_that_would_lose_the_majority_is_refused() {
    let mut state = with_learner();
    state.heard.remove(&NodeId(3));
    refuses(&state, "cluster.remove", &json!({"node": 2}), "would_lose_majority", true);
    refuses(&state, "cluster.set_acceptor", &json!({"node": 3, "weight": 2}), "would_lose_majority", true);
    let failed = state.execute("cluster.remove", r#"{"node": 2}"#).result;
    let Err(Failure::Refused(Refusal { message, .. })) = failed else { panic!("{failed:?}") };
    assert!(message.contains("bring back n3 first"), "{message}");
    state.call("cluster.remove", r#"{"node": 3}"#).expect("two of two are left");
    assert_eq!(now(&state).majority().nodes().len(), 2);
    let few = MapState { heard: [(NodeId(1), CommandNumber(0))].into(), ..MapState::default() };
    refuses(&few, "cluster.join", &json!({"name": "e", "address": "e:1"}), "would_lose_majority", true);
}

/// Catches a node that gets a vote although its acceptor is silent, or one that is counted on: nothing would be decided
/// any more, the way back included.
#[test]
fn who_is_silent_is_no_vote() {
    let mut state = with_learner();
    state.silent.insert(NodeId(4));
    refuses(&state, "cluster.set_acceptor", &json!({"node": 4}), "not_caught_up", true);
    state.silent = [NodeId(3)].into();
    refuses(&state, "cluster.remove", &json!({"node": 2}), "would_lose_majority", true);
    refuses(&state, "cluster.join", &json!({"name": "n3", "address": "n3:7080"}), "still_heard", true);
    state.silent.clear();
    state.call("cluster.set_acceptor", r#"{"node": 4}"#).expect("all speak");
}

/// S-19: catches a node that gets a vote although nothing reaches it: its own words come over connections that it makes. And one
/// that has applied nothing yet, in a cluster with fewer commands than a node may be behind.
#[test]
fn who_cannot_be_reached_is_no_vote() {
    let mut state = with_learner();
    state.deaf.insert(NodeId(4));
    refuses(&state, "cluster.set_acceptor", &json!({"node": 4}), "not_connected", true);
    refuses(&state, "cluster.set_acceptor", &json!({"node": 4, "weight": 3}), "not_connected", true);
    let failed = state.execute("cluster.set_acceptor", r#"{"node": 4}"#).result;
    let Err(Failure::Refused(Refusal { message, .. })) = failed else { panic!("{failed:?}") };
    assert!(message.contains("see that d:7080 (its listen.advertise_peer) can be reached"), "{message}");
    state.deaf = [NodeId(3)].into();
    refuses(&state, "cluster.remove", &json!({"node": 2}), "would_lose_majority", true);
    state.deaf.clear();
    state.heard.insert(NodeId(4), CommandNumber(0));
    refuses(&state, "cluster.set_acceptor", &json!({"node": 4}), "not_caught_up", true);
    state.heard.insert(NodeId(4), CommandNumber(1));
    state.deaf.insert(NodeId(1));
    state.call("cluster.set_acceptor", r#"{"node": 4}"#).expect("the leader's own word about itself does not matter");
}

/// Catches a change after which nobody who is there could lead.
#[test]
fn somebody_who_is_there_can_lead_afterwards() {
    let mut state = with_learner();
    state.followers = [2, 3, 4].map(NodeId).into();
    refuses(&state, "cluster.remove", &json!({"node": 1}), "nobody_may_lead", true);
    state.followers.remove(&NodeId(3));
    state.call("cluster.remove", r#"{"node": 1}"#).expect("node 3 can lead");
}

/// Catches a second change before the nodes that the first one counts on know of it.
#[test]
fn one_change_at_a_time() {
    let mut state = with_learner();
    state.call("cluster.set_acceptor", r#"{"node": 4}"#).expect("it is up");
    state.heard.insert(NodeId(1), state.applied);
    state.heard.insert(NodeId(4), state.applied);
    let next = json!({"name": "e", "address": "e:1"});
    refuses(&state, "cluster.join", &next, "another_change", true);
    state.heard.insert(NodeId(2), state.applied);
    state.call("cluster.join", &next.to_string()).expect("three of four know");
}

/// Catches a dry run that changes something or that is not refused what the change would be; and a command, with the new
/// ballot that it costs, for a change to what is already so.
#[test]
fn a_dry_run_and_no_change_write_nothing() {
    let state = with_learner();
    for (function, arguments) in [
        ("cluster.join", json!({"name": "e", "address": "e:1", "dry_run": true})),
        ("cluster.set_acceptor", json!({"node": 4, "dry_run": true})),
        ("cluster.remove", json!({"node": 4, "dry_run": true})),
        ("cluster.set_rule", json!({"majority_sets": [[1]], "dry_run": true})),
        ("cluster.set_acceptor", json!({"node": 1, "weight": 1})),
        ("cluster.set_rule", json!({"majority_sets": []})),
    ] {
        let execution = state.execute(function, &arguments.to_string());
        assert!(execution.result.is_ok() && execution.effects.is_empty(), "{function} {arguments}: {execution:?}");
    }
    refuses(&state, "cluster.remove", &json!({"node": 9, "dry_run": true}), "unknown_node", false);
}

/// Catches a state that this version cannot read and that it changes all the same: the node stops instead.
#[test]
fn a_membership_of_a_later_version_stops_the_node() {
    let mut state = with_learner();
    let entry = state.entries.get_mut(&key("quorate/membership")).expect("an entry");
    entry.value = String::from_utf8_lossy(&entry.value).replace("\"format\": 1", "\"format\": 2").into();
    let failed = state.execute("cluster.remove", r#"{"node": 4}"#).result;
    assert!(matches!(failed, Err(Failure::State(_))), "{failed:?}");
}

/// S-09: catches other functions that write what belongs to the cluster.
#[test]
fn reserved_keys_are_for_the_cluster() {
    let state = with_learner();
    for (function, arguments) in [
        ("kv.put", json!({"key": "quorate/membership", "value": 1})),
        ("kv.put", json!({"key": "quorate/x", "value": 1})),
        ("kv.delete", json!({"key": "quorate/membership"})),
        ("kv.compare_and_set", json!({"key": "quorate/x", "expected": 0, "value": 1})),
        ("kv.increment", json!({"key": "quorate/x"})),
    ] {
        refuses(&state, function, &arguments, "reserved_key", false);
    }
    assert!(state.execute("kv.put", r#"{"key": "quorate", "value": 1}"#).result.is_ok());
}

/// S-17, S-19: one node takes the place of another in one change. Catches an exchange that is two changes, that changes the
/// weight, keeps or removes the wrong one, or is refused less than the two changes would be.
#[test]
fn an_acceptor_is_replaced_in_one_change() {
    let mut state = with_learner();
    let replace = |for_good: bool| json!({"node": "d", "replaces": "n3", "for_good": for_good});
    state.heard.insert(NodeId(1), CommandNumber(10_000));
    refuses(&state, "cluster.set_acceptor", &replace(false), "not_caught_up", true);
    all_are_up(&mut state);
    state.heard.remove(&NodeId(3));
    state
        .call("cluster.set_acceptor", &json!({"node": 4, "replaces": 3, "dry_run": true}).to_string())
        .expect("it is dead");
    state.heard.remove(&NodeId(4));
    refuses(&state, "cluster.set_acceptor", &replace(false), "not_caught_up", true);
    all_are_up(&mut state);
    for (node, replaced) in [("d", "d"), ("n1", "d"), ("n1", "n1")] {
        let arguments = json!({"node": node, "replaces": replaced});
        refuses(&state, "cluster.set_acceptor", &arguments, "not_an_acceptor", false);
    }
    refuses(&state, "cluster.set_acceptor", &json!({"node": "d", "replaces": "x"}), "unknown_node", false);
    change(&mut state, "cluster.set_acceptor", &json!({"node": 3, "weight": 3}));
    let before = now(&state).number();
    change(&mut state, "cluster.set_acceptor", &replace(false));
    assert_eq!(
        (now(&state).number(), now(&state).node(NodeId(4)).map(|member| member.weight)),
        (before.next(), Some(3))
    );
    assert!(!now(&state).is_acceptor(NodeId(3)) && now(&state).node(NodeId(3)).is_some());
    change(&mut state, "cluster.set_acceptor", &json!({"node": 3, "weight": 1, "replaces": 4, "for_good": true}));
    assert_eq!(now(&state).learners().collect::<Vec<_>>(), [1, 2, 3].map(NodeId));
    assert_eq!(now(&state).majority().rule(), "simple");
}
