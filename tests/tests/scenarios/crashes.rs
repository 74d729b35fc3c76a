//! Claim 6: what was told is durable. The power goes at every write, before it and after it.

use std::time::Duration;

use protocol::{LearnFrom, NodeId, Outcome};
use quorate_tests::world::{Cut, P, Q, R, Settings, World};
use serde_json::json;

use crate::support::{abc, assert_replayed, goods, issued, lead, stock_up, transfer};

/// A leader works, a node loses its power somewhere in it, another leader takes over, the node
/// comes back. The world checks at the restart that all it ever told is on its disk.
fn a_run_with_a_cut(settings: Settings, victim: NodeId, cut: Cut) -> World {
    let mut world = World::new(settings);
    world.cut_power(victim, cut);
    world.campaign(P);
    world.settle();
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.settle();
    world.call(Q, P, "g", "inventory.transfer", &transfer("A", "B", 100));
    world.call(R, P, "h", "inventory.transfer", &transfer("A", "B", 100));
    world.settle();
    let successor = if victim == Q { R } else { Q };
    world.step_down(P);
    world.campaign(successor);
    world.run(2);
    if world.node(victim).roles.is_some() {
        world.crash(victim);
    }
    world.restart(victim);
    world.run(2);
    if world.leads(successor).is_none() {
        world.campaign(successor);
        world.run(2);
    }
    world
}

/// S-11, A6: the power of the leader or of a follower goes before or after each of its log
/// writes, in both ways of learning. Whatever was acknowledged stays, each call has one effect,
/// the goods add up. Catches a promise or vote that is told before it is durable.
#[test]
fn a_power_cut_at_every_write() {
    for learn_from in [LearnFrom::Leader, LearnFrom::Voters] {
        for victim in [P, Q] {
            for write in 0..6 {
                for cut in [Cut::Before(write), Cut::After(write)] {
                    let settings = Settings { learn_from, ..Settings::default() };
                    let mut world = a_run_with_a_cut(settings, victim, cut);
                    let leader = if victim == Q { R } else { Q };
                    for (name, function, arguments) in [
                        ("f", "inventory.inbound", goods("A", 500)),
                        ("g", "inventory.transfer", transfer("A", "B", 100)),
                        ("h", "inventory.transfer", transfer("A", "B", 100)),
                    ] {
                        // The callers ask again for what they were not told.
                        world.call(Q, leader, name, function, &arguments);
                        world.settle();
                        assert!(
                            matches!(world.outcomes(name).last(), Some(Outcome::Issued { .. })),
                            "{victim} {cut:?}: {:?}",
                            world.outcomes(name)
                        );
                    }
                    world.run(5);
                    for device in [P, Q, R] {
                        assert_eq!(abc(&world, device), [300, 200, 0], "{learn_from:?} {victim} {cut:?} on {device}");
                    }
                    world.checks().assert_nothing_acknowledged_is_lost();
                }
            }
        }
    }
}

/// A6, invariant 10: the power of all nodes goes at once, after a call was acknowledged. The
/// state was never synced, so all of it comes back from the votes. Catches an acknowledgement that
/// rests on memory.
#[test]
fn a_power_cut_of_all_nodes_loses_nothing_acknowledged() {
    let mut world = World::three();
    lead(&mut world, P);
    for number in 0..7 {
        stock_up(&mut world, P, &format!("f{number}"), "A", 1);
    }
    // q's disk wrote its state in time, the others' did not.
    world.sync(Q);
    stock_up(&mut world, P, "last", "A", 1);
    for device in [P, Q, R] {
        world.crash(device);
    }
    world.drop_if(|_| true);
    for device in [P, Q, R] {
        world.restart(device);
    }
    assert_eq!([P, Q, R].map(|device| world.applied(device)), [0, 7, 0]);
    world.campaign(R);
    world.run(5);
    assert_eq!([P, Q, R].map(|device| abc(&world, device)), [[8, 0, 0]; 3]);
}

/// A6: `kill -9` of a follower and of the leader, one after the other, in the middle of calls.
/// Catches a node that comes back with less than it told, or a call with two effects.
#[test]
fn killed_processes_lose_nothing() {
    let mut world = World::three();
    lead(&mut world, P);
    for (round, victim) in [Q, P, R, Q, P].into_iter().enumerate() {
        let leader = [P, Q, R].into_iter().find(|device| world.leads(*device).is_some()).expect("somebody leads");
        world.call(leader, leader, &format!("f{round}"), "inventory.inbound", &goods("A", 1));
        world.settle_if(|envelope| !envelope.is("Voted"));
        world.kill(victim);
        world.settle();
        world.restart(victim);
        if victim == leader {
            let next = if victim == P { Q } else { P };
            world.campaign(next);
            world.run(2);
            if world.leads(next).is_none() {
                world.campaign(next);
            }
        }
        world.run(3);
        let leader = [P, Q, R].into_iter().find(|device| world.leads(*device).is_some()).expect("somebody leads");
        world.call(leader, leader, &format!("f{round}"), "inventory.inbound", &goods("A", 1));
        world.run(1);
        let last = world.outcomes(&format!("f{round}")).pop();
        assert!(matches!(last, Some(Outcome::Issued { .. })), "round {round}: {last:?}");
    }
    world.run(3);
    assert_eq!([P, Q, R].map(|device| world.node(device).stock("A")), [5; 3]);
}

/// A12, A4: a learner that crashes and comes back with an old state while commands go on, again
/// and again; its catch-up is cut short each time. Catches progress that only memory had.
#[test]
fn a_follower_that_keeps_crashing_ends_up_equal() {
    let mut world = World::three();
    lead(&mut world, P);
    for number in 0..12 {
        stock_up(&mut world, P, &format!("f{number}"), "A", 1);
        if number % 3 == 0 {
            world.crash(R);
            world.restart(R);
            world.gossip();
            world.advance(Duration::from_millis(60));
            world.deliver_if(|_| true);
        }
        if number == 5 {
            world.sync(R);
        }
    }
    world.run(5);
    assert_eq!(world.node(R).stock("A"), 12);
    world.call(R, P, "f3", "inventory.inbound", &goods("A", 1));
    world.settle();
    assert_eq!(world.outcomes("f3"), vec![issued(4, &json!({"stock": 4})); 2]);
    assert_replayed(&world, "f3", 4, &json!({"stock": 4}));
}
