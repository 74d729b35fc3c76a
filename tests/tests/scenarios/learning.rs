//! How a command comes to be known as issued: by the leader's word, by one's own count, from any
//! peer; in order, and not beyond the window.

use std::time::Duration;

use protocol::{LearnFrom, Message};
use quorate_tests::world::{Event, P, Q, R, Settings, World};
use serde_json::json;

use crate::support::{abc, goods, id, issued, lead, stock_up};

fn voters() -> World {
    World::new(Settings { learn_from: LearnFrom::Voters, ..Settings::default() })
}

/// How many message delays after its execution a call takes to be applied on a follower. Each
/// delay delivers what is on its way, and nothing that this leads to.
fn delays_until_applied(world: &mut World) -> u32 {
    lead(world, P);
    world.call(P, P, "f", "inventory.inbound", &goods("A", 1));
    world.deliver_if(|_| true);
    let mut delays = 0;
    while world.applied(R) == 0 {
        assert!(world.deliver_if(|_| true) > 0, "nothing is on its way");
        delays += 1;
    }
    delays
}

/// A2: votes go to the leader, which says Success after a majority; one lost vote of three is
/// none too few, two are. Catches a leader that counts itself twice, and devices that declare
/// without Success.
#[test]
fn the_leader_announces_after_a_majority_of_votes() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.settle_if(|envelope| !envelope.is("Voted"));
    assert_eq!(world.drop_if(|envelope| envelope.is("Voted") && envelope.from != P), 2);
    world.settle();
    assert_eq!((world.outcomes("f"), world.checks().issued()), (vec![], 0), "one vote of three");
    assert!(!world.events().iter().skip_while(|event| !event.sends("ExecuteFunction")).any(|e| e.sends("Success")));

    world.advance(Duration::from_millis(100));
    world.settle_if(|envelope| !envelope.is("Voted"));
    assert!(world.drop_if(|envelope| envelope.is("Voted") && envelope.from == R) > 0);
    world.settle_if(|envelope| !envelope.is("Success"));
    assert_eq!(world.outcomes("f"), [issued(1, &json!({"stock": 500}))], "two of three, one lost");
    assert_eq!(world.applied(Q), 0, "devices declare on Success");
    world.settle();
    assert_eq!([P, Q, R].map(|device| world.applied(device)), [1, 1, 1]);
}

/// A3: votes go to all, each declares for itself, nobody says Success, and a follower applies
/// one message delay earlier. Catches a mode that is the other one in disguise.
#[test]
fn learners_that_count_for_themselves_save_a_delay() {
    let mut world = voters();
    assert_eq!(delays_until_applied(&mut world), 2, "BeginBallot, Voted");
    world.run(2);
    for (name, warehouse) in [("g", "B"), ("h", "C")] {
        stock_up(&mut world, P, name, warehouse, 1);
    }
    lead(&mut world, Q);
    stock_up(&mut world, Q, "k", "C", 1);
    let crosses = |event: &Event| matches!(event, Event::Sent { from, to, .. } if from != to);
    let on_the_wire = world.events().iter().filter(|event| crosses(event) && event.sends("Success")).count();
    assert_eq!(on_the_wire, 0, "A3: no Success on the wire");
    world.run(2);
    assert_eq!([P, Q, R].map(|device| abc(&world, device)), [[1, 1, 2]; 3]);

    assert_eq!(delays_until_applied(&mut World::three()), 3, "BeginBallot, Voted, Success");
}

/// A3, A1s: a learner counts only gap-free votes of one ballot. The votes for the first command
/// are lost to it, those for the second arrive. Catches a learner that applies 2 without 1.
#[test]
fn a_count_beyond_a_hole_is_kept_until_the_hole_is_filled() {
    let mut world = World::new(Settings { learn_from: LearnFrom::Voters, run_bytes: 1, ..Settings::default() });
    lead(&mut world, P);
    world.block(P, R);
    stock_up(&mut world, P, "f", "A", 1);
    world.heal();
    stock_up(&mut world, P, "g", "A", 1);
    assert_eq!((world.applied(P), world.applied(R)), (2, 0), "r knows that 2 is issued, and lacks 1");
    world.run(2);
    assert_eq!(world.chain(R), [id(1, 1, P), id(2, 1, P)]);
}

/// A4: the leader and a laggard cannot hear each other; the laggard catches up from a follower,
/// in several pieces, and doubled answers do no harm. Catches catch-up that only leaders serve.
#[test]
fn a_laggard_catches_up_from_a_follower() {
    let mut world = World::three();
    lead(&mut world, P);
    world.block(P, R);
    world.block(R, P);
    for number in 0..10 {
        stock_up(&mut world, P, &format!("f{number}"), "A", 1);
    }
    assert_eq!(world.applied(R), 0);
    for _ in 0..10 {
        world.gossip();
        world.advance(Duration::from_millis(100));
        world.double_if(|envelope| envelope.is("Commands") || envelope.is("CatchUp"));
        world.settle();
    }
    assert_eq!((world.applied(R), abc(&world, R)), (10, [10, 0, 0]));
    let asked = |event: &&Event| matches!(event, Event::Sent { from, .. } if *from == R) && event.sends("CatchUp");
    assert!(world.events().iter().filter(asked).all(|event| matches!(event, Event::Sent { to, .. } if *to == Q)));
    assert!(world.events().iter().filter(asked).count() >= 3, "in pieces of three");
}

/// S-06: Success(5) comes before Success(4), and the body of 4 never came. It is kept, nothing
/// is applied out of order, and once 4 is fetched both are. Catches an application across a hole.
#[test]
fn success_beyond_a_hole_is_kept_and_not_applied() {
    let mut world = World::new(Settings { run_bytes: 1, ..Settings::default() });
    lead(&mut world, P);
    for number in 1..=3 {
        stock_up(&mut world, P, &format!("f{number}"), "A", 1);
    }
    world.call(P, P, "f4", "inventory.inbound", &goods("A", 1));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    world.call(P, P, "f5", "inventory.inbound", &goods("A", 1));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    world.drop_if(|envelope| envelope.begins(4) && envelope.to == R);
    world.settle_if(|envelope| !(envelope.is("Success") && envelope.to == R));
    let successes = world.in_flight(|envelope| envelope.is("Success") && envelope.to == R);
    assert_eq!(successes, 2, "Success(4) and Success(5) are on their way to r");
    let last = world.undelivered().len() - 1;
    world.deliver_at(last);
    assert_eq!(world.applied(R), 3, "S-06: 5 is kept");
    world.run(3);
    assert_eq!(world.chain(R), world.chain(P));
    assert_eq!(world.applied(R), 5);
}

/// S-06, S-07, A1f: r lacks issued commands and campaigns. It learns them before it leads, so
/// that functions never read the past, and its first command comes after all that is known to be
/// issued, though its initial history is empty. Catches an LS built on an old M.
#[test]
fn a_new_leader_learns_what_is_issued_before_it_leads() {
    let mut world = World::three();
    lead(&mut world, P);
    for other in [P, Q] {
        world.block(other, R);
        world.block(R, other);
    }
    for number in 1..=5 {
        stock_up(&mut world, P, &format!("f{number}"), "A", 100);
    }
    world.crash(P);
    world.heal();
    world.campaign(R);
    world.call(Q, R, "g", "inventory.outbound", &goods("A", 500));
    world.settle_if(|envelope| !envelope.is("Commands"));
    assert_eq!((world.leads(R), world.applied(R)), (None, 0), "S-07: it does not lead over an old state");
    assert_eq!(world.outcomes("g"), [], "a call that comes early is kept");
    world.settle();
    world.run(3);
    assert!(world.leads(R).is_some());
    assert_eq!(world.outcomes("g"), [issued(6, &json!({"stock": 0}))], "S-06: the next number is 6");
    assert_eq!(abc(&world, Q), [0, 0, 0]);
}

/// A13: every message that would tell a learner what is issued is lost, in both ways of learning,
/// and no further command comes: the leader reminds the learner of its node, and the others ask
/// it. Catches a command that only its leader ever knows, and reads that wait for it for ever.
#[test]
fn what_only_the_leader_knows_is_learnt_in_the_end() {
    for learn_from in [LearnFrom::Leader, LearnFrom::Voters] {
        let mut world = World::new(Settings { learn_from, ..Settings::default() });
        lead(&mut world, P);
        world.call(Q, P, "f", "inventory.inbound", &goods("A", 1));
        world.settle_if(|envelope| !matches!(envelope.message, Message::Learner(_)));
        assert!(world.drop_if(|_| true) >= 3, "what learners were told is lost");
        assert_eq!(world.outcomes("f"), [issued(1, &json!({"stock": 1}))]);
        assert_eq!([P, Q, R].map(|device| world.applied(device)), [0; 3]);
        world.run(5);
        assert_eq!([P, Q, R].map(|device| world.applied(device)), [1; 3], "{learn_from:?}");
    }
}

/// A5: with a window of w, command i is not proposed until all up to i-w are issued. Catches a
/// window that is exceeded, never filled, or that loses calls which wait for room.
#[test]
fn the_window_bounds_what_is_proposed_and_not_issued() {
    for window in [1, 64] {
        let mut world = World::new(Settings { window, ..Settings::default() });
        lead(&mut world, P);
        world.watch(move |node| {
            let unissued = node.roles.as_ref().map_or(0, |roles| roles.leader.load().unissued);
            assert!(unissued as u64 <= window, "A5: {unissued} un-issued commands in a window of {window}");
        });
        for number in 0..90 {
            world.call(Q, P, &format!("f{number}"), "inventory.inbound", &goods("A", 1));
        }
        world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
        let load = world.node(P).roles.as_ref().map(|roles| roles.leader.load()).unwrap_or_default();
        assert_eq!(load.unissued as u64, window, "the window fills");
        assert_eq!(load.kept_calls as u64, 90 - window, "the rest waits for room");
        if window == 1 {
            let begun = world.in_flight(|envelope| envelope.is("BeginBallot") && envelope.to == Q);
            assert_eq!(begun, 1, "w = 1 is stop-and-wait");
        }
        world.settle();
        assert_eq!(world.checks().issued(), 90);
        assert_eq!(abc(&world, R), [90, 0, 0]);
    }
}
