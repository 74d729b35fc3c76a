//! One call, one effect: repetitions at the same leader, at the next one, and after the memory
//! of an outcome has ended.

use std::time::Duration;

use protocol::message::Stored;
use protocol::{Call, CommandNumber, Outcome};
use quorate_tests::world::{P, Q, R, Settings, World, call};
use serde_json::json;
use storage::LogStore;

use crate::support::{abc, assert_replayed, goods, issued, lead, stock_up};

/// S-22, S-23, A11: the votes for a call are lost on their way, its leader is superseded, and
/// the caller asks the next leader with the same request id. Catches a lost lead that is
/// reported as a failure, and a repetition that runs a second time.
#[test]
fn a_lost_lead_is_no_failure_and_the_next_leader_knows() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.settle_if(|envelope| !envelope.is("Voted"));
    world.drop_if(|_| true);
    world.campaign(R);
    world.settle_if(|envelope| envelope.is("NextBallot"));
    // p repeats its ballot and hears of the higher one, before r has heard of anything.
    world.advance(Duration::from_millis(100));
    world.settle_if(|envelope| envelope.from == P || envelope.to == P);
    assert_eq!(world.outcomes("f"), [Outcome::LeadershipLost]);
    world.settle();
    world.call(Q, R, "f", "inventory.inbound", &goods("A", 500));
    world.settle();
    world.run(3);
    assert_eq!(world.outcomes("f"), [Outcome::LeadershipLost, issued(1, &json!({"stock": 500}))]);
    assert_replayed(&world, "f", 1, &json!({"stock": 500}));
    for device in [P, Q, R] {
        assert_eq!(abc(&world, device), [500, 0, 0], "one effect");
    }
}

/// S-22: the same, and nobody ever voted: the next leader runs it, once; the first leader's
/// command never comes back. Catches a repetition that is refused, or two effects.
#[test]
fn a_call_that_nobody_voted_for_runs_at_the_next_leader() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.settle_if(|envelope| envelope.is("ExecuteFunction"));
    // p itself votes, and nobody else hears of it.
    world.drop_if(|envelope| envelope.begins(1) && envelope.to != P);
    world.deliver_if(|envelope| envelope.begins(1));
    world.campaign(R);
    world.drop_if(|envelope| envelope.to == P);
    world.settle_if(|envelope| envelope.to != P);
    world.call(Q, R, "f", "inventory.inbound", &goods("A", 500));
    world.settle();
    assert!(world.outcomes("f").contains(&issued(1, &json!({"stock": 500}))), "{:?}", world.outcomes("f"));
    world.run(5);
    lead(&mut world, P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.settle();
    assert_replayed(&world, "f", 1, &json!({"stock": 500}));
    for device in [P, Q, R] {
        assert_eq!(abc(&world, device), [500, 0, 0], "one effect");
    }
}

/// S-23: a repetition while the call is in flight attaches to it. Catches a second execution,
/// and a waiter that is forgotten.
#[test]
fn a_repetition_in_flight_attaches() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.call(R, P, "f", "inventory.inbound", &goods("A", 500));
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    assert_eq!(world.node(P).executions(), 1);
    assert_eq!(world.outcomes("f"), []);
    world.settle();
    let result = json!({"stock": 500});
    assert_eq!(world.outcomes("f"), vec![issued(1, &result); 2], "one answer a gateway");
    assert_replayed(&world, "f", 1, &result);
    assert_eq!(world.checks().issued(), 1);
}

/// S-23: the same key with another body is refused: in flight (and not before what it tells of
/// is issued), afterwards, and at the next leader. Catches a key that answers another question.
#[test]
fn the_same_key_with_another_body_is_refused() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    world.call(R, P, "f", "inventory.inbound", &goods("A", 501));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    assert_eq!(world.outcomes("f"), [], "S-08: that the key is used shows a command in flight");
    world.settle();
    assert_eq!(world.outcomes("f"), [issued(1, &json!({"stock": 500})), Outcome::RequestReused]);
    world.call(R, P, "f", "inventory.outbound", &goods("A", 500));
    world.settle();
    lead(&mut world, R);
    world.call(Q, R, "f", "inventory.inbound", &goods("A", 501));
    world.settle();
    let outcomes = world.outcomes("f");
    assert_eq!(outcomes[2..], [Outcome::RequestReused, Outcome::RequestReused]);
    assert_eq!(abc(&world, Q), [500, 0, 0]);
}

/// S-23: an outcome is kept for the retention and then forgotten, by the command that orders it,
/// on all replicas at the same number (the world compares digests). Catches outcomes kept for
/// ever, forgotten early, or forgotten by a node's own clock.
#[test]
fn an_outcome_is_forgotten_after_the_retention() {
    let mut world = World::new(Settings { retention: Duration::from_secs(60), ..Settings::default() });
    lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 1);
    world.advance(Duration::from_secs(59));
    stock_up(&mut world, P, "g", "B", 1);
    world.call(P, P, "f", "inventory.inbound", &goods("A", 1));
    world.settle();
    assert_replayed(&world, "f", 1, &json!({"stock": 1}));
    world.advance(Duration::from_secs(2));
    stock_up(&mut world, P, "h", "C", 1);
    world.call(P, P, "f", "inventory.inbound", &goods("A", 1));
    world.settle();
    assert_eq!(world.outcomes("f").last(), Some(&issued(4, &json!({"stock": 2}))), "a new call now");
    assert_eq!([P, Q, R].map(|device| abc(&world, device)), [[2, 1, 1]; 3]);
}

/// S-23, A6: the stored outcome survives a power cut of all nodes. Catches outcomes kept in
/// memory only.
#[test]
fn a_repetition_after_a_power_cut_of_all_nodes_gets_the_stored_outcome() {
    let mut world = World::three();
    lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 500);
    for device in [P, Q, R] {
        world.crash(device);
    }
    for device in [P, Q, R] {
        world.restart(device);
    }
    assert_eq!(world.applied(Q), 0, "nothing was synced but the votes");
    lead(&mut world, Q);
    world.call(P, Q, "f", "inventory.inbound", &goods("A", 500));
    world.settle();
    world.run(3);
    assert_replayed(&world, "f", 1, &json!({"stock": 500}));
    assert_eq!([P, Q, R].map(|device| abc(&world, device)), [[500, 0, 0]; 3]);
}

/// S-22, S-23, ADR 0017: p proposes goods and their withdrawal, and nobody else hears of either; the
/// caller asks again under r, who has no goods and must refuse. Catches a refusal that leaves the
/// number free: the next leader would take up p's commands, and the call would happen after its
/// caller was told that it never will.
#[test]
fn a_refused_call_is_not_issued_by_a_later_leader() {
    let mut world = World::three();
    lead(&mut world, P);
    let copy = || Call { copy: 1, ..call("out", "inventory.outbound", &goods("A", 5), Duration::ZERO) };
    world.call(P, P, "in", "inventory.inbound", &goods("A", 5));
    world.send_call(P, P, copy());
    world.settle_if(|envelope| !envelope.crosses(P));
    assert_eq!(world.node(P).log.load(CommandNumber::NULL).expect("memory").votes.len(), 2, "p voted for both");
    world.crash(P);
    world.drop_if(|_| true);
    lead(&mut world, R);
    world.send_call(Q, R, copy());
    world.settle();
    let refused = world.answers("out");
    assert!(matches!(refused[..], [(Outcome::Refused { .. }, Stored::Now)]), "{refused:?}");
    world.restart(P);
    world.crash(R);
    lead(&mut world, Q);
    world.send_call(P, Q, copy());
    world.restart(R);
    world.run(5);
    assert_eq!(world.answers("out").last(), Some(&(refused[0].0.clone(), Stored::Before)));
    assert_eq!([P, Q, R].map(|device| world.chain(device).len()), [1; 3], "the refusal is the only command");
}
