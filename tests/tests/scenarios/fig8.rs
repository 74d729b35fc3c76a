//! The patent's FIG. 8, step by step.

use protocol::Ballot;
use quorate_tests::world::{P, Q, R, World};
use serde_json::json;

use crate::support::{abc, goods, id, issued, transfer};

/// The undelivered messages of this name, in words.
fn undelivered(world: &World, name: &str) -> Vec<String> {
    world.undelivered().iter().filter(|envelope| envelope.is(name)).map(ToString::to_string).collect()
}

/// The state that multi-Paxos would lead to, had the leader failed in the middle of step 22.
fn forbid_the_wrong_state(world: &mut World) {
    world.watch(|node| {
        let stocks = ["A", "B", "C"].map(|warehouse| node.stock(warehouse));
        assert_ne!(stocks, [0, 200, 500], "FIG. 8: dk is applied without dl on node {}", node.id);
    });
}

/// Steps 1 to 12: p leads in ballot 17, f is issued, g is voted for by p and q, p crashes.
fn until_the_crash(world: &mut World) {
    world.campaign_in_round(P, 17);
    let asked =
        ["p -> p NextBallot(17.1, first 1)", "p -> q NextBallot(17.1, first 1)", "p -> r NextBallot(17.1, first 1)"];
    assert_eq!(undelivered(world, "NextBallot"), asked, "step 1");
    world.settle_if(|envelope| envelope.is("NextBallot"));
    let nothing = "BallotInfo(17.1, first 1, issued 0@0.0, [])";
    let answers = ["p", "q", "r"].map(|device| format!("{device} -> p {nothing}"));
    assert_eq!(undelivered(world, "BallotInfo"), answers, "step 2");
    world.settle();
    assert_eq!(world.leads(P), Some(Ballot::new(17, P)), "step 3");

    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.settle();
    for device in [P, Q, R] {
        assert_eq!(abc(world, device), [500, 0, 0], "step 8");
    }
    assert_eq!(world.outcomes("f"), [issued(1, &json!({"stock": 500}))]);

    world.call(R, P, "g", "inventory.transfer", &transfer("A", "B", 100));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    assert_eq!(world.drop_if(|envelope| envelope.begins(2) && envelope.to == R), 1, "step 10: Q = {{p, q}}");
    world.settle_if(|envelope| envelope.begins(2));
    assert_eq!(world.in_flight(|envelope| envelope.is("Voted")), 2, "step 11");
    world.crash(P);
    world.settle();
    assert_eq!(world.outcomes("g"), [], "step 12: dg is not issued");
    assert_eq!((world.applied(Q), world.applied(R)), (1, 1), "step 12: dg is not issued");
}

/// Steps 13 to 19: r leads in ballot 21 and issues dg; dh beside it; p is back.
fn until_p_is_back(world: &mut World) {
    world.campaign_in_round(R, 21);
    assert!(undelivered(world, "NextBallot").contains(&"r -> q NextBallot(21.3, first 2)".to_owned()), "step 13");
    world.settle_if(|envelope| envelope.is("NextBallot"));
    let told = "q -> r BallotInfo(21.3, first 2, issued 1@17.1, [2@17.1 in 17.1])".to_owned();
    assert!(undelivered(world, "BallotInfo").contains(&told), "step 14: {:?}", undelivered(world, "BallotInfo"));

    world.settle_if(|envelope| envelope.is("BallotInfo"));
    assert_eq!(world.leads(R), Some(Ballot::new(21, R)), "step 15");
    assert_eq!(world.in_flight(|envelope| envelope.begins(2) && !envelope.begins(3)), 3, "step 15: a ballot on dg");
    world.call(Q, R, "h", "inventory.transfer", &transfer("A", "B", 100));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    let both = (world.in_flight(|envelope| envelope.begins(2)), world.in_flight(|envelope| envelope.begins(3)));
    assert_eq!(both, (3, 3), "step 15, A1t: ballots on dg and dh are started concurrently");
    assert_eq!(abc(world, R), [500, 0, 0], "A1j: h ran on LS(r), M(r) is as it was");

    world.settle_if(|envelope| !envelope.is("Success"));
    world.restart(P);
    world.settle();
    world.run(5);
    for device in [P, Q, R] {
        assert_eq!(abc(world, device), [300, 200, 0], "step 19");
        assert_eq!(world.chain(device), [id(1, 17, P), id(2, 17, P), id(3, 21, R)], "dg keeps its identity (S-03)");
    }
    assert_eq!(world.outcomes("h"), [issued(3, &json!({"from": 300, "to": 200}))]);
}

/// A9, A1f, A1g, A1t: the whole story. Catches a leader that loses or repeats dg, that runs h on
/// another state than that after dg, that executes strictly in order of arrival, and a returned
/// p that stays behind; at no moment does any replica hold A = 0, B = 200, C = 500.
#[test]
fn figure_8_as_a_whole() {
    let mut world = World::three();
    forbid_the_wrong_state(&mut world);
    until_the_crash(&mut world);
    until_p_is_back(&mut world);

    world.call_patiently(P, R, "k", "inventory.transfer", &transfer("A", "C", 500));
    world.settle();
    assert_eq!(world.outcomes("k"), [], "step 22: k has to wait, A holds 300");
    world.call_patiently(Q, R, "l", "inventory.transfer", &transfer("B", "A", 200));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    let begun = "r -> q BeginBallot(21.3, round 3, [4@21.3 5@21.3])".to_owned();
    assert!(undelivered(&world, "BeginBallot").contains(&begun), "step 22: {:?}", undelivered(&world, "BeginBallot"));
    world.settle();
    for device in [P, Q, R] {
        assert_eq!(abc(&world, device), [0, 0, 500], "step 25");
    }
    assert_eq!(world.outcomes("l"), [issued(4, &json!({"from": 0, "to": 500}))], "l before k");
    assert_eq!(world.outcomes("k"), [issued(5, &json!({"from": 0, "to": 500}))]);
}

/// A9, S-05: the leader fails in the middle of step 22, and of its two ballots only that on dk
/// has left. Catches a dk that is issued without dl: the patent's own example of what Paxos
/// with no-op commands does wrong.
#[test]
fn figure_8_with_a_crash_in_the_middle_of_step_22() {
    let mut world = World::three();
    forbid_the_wrong_state(&mut world);
    until_the_crash(&mut world);
    until_p_is_back(&mut world);

    world.call(Q, R, "l", "inventory.transfer", &transfer("B", "A", 200));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    world.call(P, R, "k", "inventory.transfer", &transfer("A", "C", 500));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    assert_eq!(world.drop_if(|envelope| envelope.begins(4)), 3, "the ballot on dl is lost");
    world.settle_if(|envelope| envelope.begins(5));
    world.crash(R);
    world.settle();
    world.campaign(Q);
    world.run(5);
    for device in [P, Q] {
        assert_eq!(abc(&world, device), [300, 200, 0], "neither dl nor dk is issued");
    }
    // The callers ask again: first k, which is refused, then both in the right order.
    world.call(P, Q, "k", "inventory.transfer", &transfer("A", "C", 500));
    world.settle();
    world.call(Q, Q, "l", "inventory.transfer", &transfer("B", "A", 200));
    world.settle();
    world.call(P, Q, "k", "inventory.transfer", &transfer("A", "C", 500));
    world.restart(R);
    world.run(5);
    for device in [P, Q, R] {
        assert_eq!(abc(&world, device), [0, 0, 500]);
    }
}
