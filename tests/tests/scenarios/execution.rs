//! Functions on the leader state: overlay, order, waiting, the pool.

use std::time::Duration;

use bytes::Bytes;
use protocol::{Key, Outcome, StateView};
use quorate_tests::world::{P, Q, R, World};
use serde_json::json;

use crate::support::{abc, goods, issued, lead, stock_up, transfer};

fn value(world: &World, node: protocol::NodeId, key: &str) -> Option<Bytes> {
    let key = Key::new(key).expect("a short key");
    world.node(node).state.get(&key).expect("memory does not fail").map(|entry| entry.value)
}

/// A10, A1j: the leader state is what is not applied yet over the state machine. The commands
/// are issued and M(p) has not heard; functions see them all the same. Catches a leader that
/// reads M(p) alone, or forgets an entry when its command is issued instead of applied.
#[test]
fn functions_see_what_the_state_machine_has_not_applied() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.settle_if(|envelope| !envelope.is("Success"));
    assert_eq!(world.outcomes("f").len(), 1, "issued");
    assert_eq!(abc(&world, P), [0, 0, 0], "and not applied");
    world.call(Q, P, "g", "inventory.transfer", &transfer("A", "B", 200));
    world.call(Q, P, "h", "inventory.transfer", &transfer("B", "C", 150));
    world.settle_if(|envelope| !envelope.is("Success"));
    assert_eq!(world.outcomes("h"), [issued(3, &json!({"from": 50, "to": 150}))]);
    world.settle();
    assert_eq!(abc(&world, P), [300, 50, 150]);
}

/// A1l, A1h: a function that throws dice ran once, and all replicas hold the same number.
/// Catches replicas that execute functions instead of applying commands.
#[test]
fn chance_is_replicated_by_its_consequences() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "dice", "test.dice", &json!({}));
    world.settle();
    let thrown = value(&world, P, "dice").expect("thrown");
    assert_eq!([Q, R].map(|device| value(&world, device, "dice")), [Some(thrown.clone()), Some(thrown.clone())]);
    assert!(matches!(world.outcomes("dice").as_slice(), [Outcome::Issued { result, .. }] if *result == thrown));
}

/// A11: a call that waits for stock is executed when the stock comes, refused when its patience
/// is over, and handed back when the lead ends, to be sent to the next leader. Catches a call that
/// is forgotten.
#[test]
fn a_postponed_call_is_executed_refused_or_handed_back() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call_patiently(Q, P, "served", "inventory.outbound", &goods("A", 5));
    world.settle();
    assert_eq!(world.outcomes("served"), []);
    stock_up(&mut world, P, "f", "B", 9);
    assert_eq!(world.outcomes("served"), [], "another warehouse is no help");
    stock_up(&mut world, P, "g", "A", 4);
    assert_eq!(world.outcomes("served"), [], "too little still");
    stock_up(&mut world, P, "h", "A", 4);
    assert_eq!(world.outcomes("served"), [issued(4, &json!({"stock": 3}))]);

    world.call_patiently(Q, P, "refused", "inventory.outbound", &goods("A", 50));
    world.settle();
    world.advance(Duration::from_secs(9));
    world.settle();
    assert_eq!(world.outcomes("refused"), []);
    world.advance(Duration::from_secs(2));
    world.settle();
    assert!(
        matches!(world.outcomes("refused").as_slice(), [Outcome::Refused { code, .. }] if code == "insufficient_stock")
    );

    world.call_patiently(Q, P, "back", "inventory.outbound", &goods("C", 1));
    world.settle();
    world.step_down(P);
    assert_eq!(world.outcomes("back"), [Outcome::NotLeader]);
    lead(&mut world, R);
    world.call_patiently(Q, R, "back", "inventory.outbound", &goods("C", 1));
    world.settle();
    stock_up(&mut world, R, "k", "C", 1);
    assert_eq!(world.outcomes("back"), [Outcome::NotLeader, issued(6, &json!({"stock": 0}))]);
}

/// S-09: a function that fails after it has read, in the middle of others. Catches a refusal or
/// bad arguments that leave something in the leader state.
#[test]
fn a_function_that_fails_has_changed_nothing() {
    let mut world = World::three();
    lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 500);
    world.call(Q, P, "much", "inventory.transfer", &transfer("A", "B", 501));
    world.call(Q, P, "same", "inventory.transfer", &transfer("A", "A", 1));
    world.call(Q, P, "bad", "inventory.transfer", &json!({"from": "A"}));
    world.call(Q, P, "unknown", "inventory.burn", &json!({}));
    world.call(Q, P, "g", "inventory.transfer", &transfer("A", "B", 500));
    world.settle();
    assert_eq!(world.outcomes("g"), [issued(2, &json!({"from": 0, "to": 500}))]);
    assert!(
        matches!(world.outcomes("much").as_slice(), [Outcome::Refused { code, .. }] if code == "insufficient_stock")
    );
    assert!(matches!(world.outcomes("same").as_slice(), [Outcome::Refused { code, .. }] if code == "same_warehouse"));
    assert!(matches!(world.outcomes("bad").as_slice(), [Outcome::InvalidArguments { .. }]));
    assert_eq!(world.outcomes("unknown"), [Outcome::UnknownFunction]);
    assert_eq!(world.checks().issued(), 2);
}

/// A1m: a long function stands still on the pool; other functions run, commands are issued and
/// applied. Catches a leader that waits for it.
#[test]
fn a_long_function_stops_nobody() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "slow", "test.slow", &json!({"key": "s", "append": "x"}));
    world.settle();
    assert_eq!((world.node(P).jobs(), world.outcomes("slow").len()), (1, 0));
    stock_up(&mut world, P, "f", "A", 500);
    stock_up(&mut world, P, "g", "A", 1);
    assert_eq!([P, Q, R].map(|device| world.applied(device)), [2, 2, 2]);
    let done = world.run_job(P);
    world.finish_job(P, done);
    world.settle();
    assert_eq!(world.outcomes("slow"), [issued(3, &json!("x"))], "in the order in which it ended");
}

/// A1p, S-10: what a function on the pool read has changed meanwhile: it runs again, and its
/// command follows what it then saw. What it did not read does not matter. Catches a lost
/// update, and certification against the state machine instead of the leader state.
#[test]
fn a_long_function_is_certified() {
    let mut world = World::three();
    lead(&mut world, P);
    for (name, append) in [("one", "1"), ("two", "2")] {
        world.call(Q, P, name, "test.slow", &json!({"key": "s", "append": append}));
    }
    world.settle();
    let (first, second) = (world.run_job(P), world.run_job(P));
    stock_up(&mut world, P, "f", "A", 500);
    world.finish_job(P, second);
    // The second is proposed and not issued: only the leader state shows it.
    world.finish_job(P, first);
    assert_eq!(world.node(P).jobs(), 1, "the first one read what the second has written: again");
    assert_eq!(world.outcomes("one"), []);
    let again = world.run_job(P);
    world.finish_job(P, again);
    world.settle();
    assert_eq!(world.outcomes("two"), [issued(2, &json!("2"))]);
    assert_eq!(world.outcomes("one"), [issued(3, &json!("21"))]);
    assert_eq!(value(&world, R, "s").as_deref(), Some(b"21".as_slice()));
    assert_eq!(world.node(P).executions(), 4, "one of them twice, and the inbound");
}

/// S-10, S-21: a function on the pool ends in a later lead of the same node, where other calls
/// run on the pool. Catches a late result that is taken for that of another call.
#[test]
fn a_late_result_of_an_earlier_lead_is_nobodys() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "old", "test.slow", &json!({"key": "s", "append": "old"}));
    world.settle();
    let old = world.run_job(P);
    world.step_down(P);
    assert_eq!(world.outcomes("old"), [Outcome::NotLeader]);
    lead(&mut world, P);
    world.call(Q, P, "new", "test.slow", &json!({"key": "s", "append": "new"}));
    world.call_patiently(Q, P, "waits", "inventory.outbound", &goods("A", 1));
    world.settle();
    world.finish_job(P, old);
    world.settle();
    assert_eq!(world.outcomes("new"), []);
    let new = world.run_job(P);
    world.finish_job(P, new);
    stock_up(&mut world, P, "f", "A", 1);
    assert_eq!(world.outcomes("new"), [issued(1, &json!("new"))]);
    assert_eq!(world.outcomes("waits"), [issued(3, &json!({"stock": 0}))]);
    assert_eq!(value(&world, Q, "s").as_deref(), Some(b"new".as_slice()));
}
