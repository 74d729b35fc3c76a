//! Who leads, what a new leader takes over, and what it must not.

use std::time::Duration;

use protocol::message::{BeginBallot, ToAcceptor};
use protocol::{Ballot, Command, CommandNumber, Message, Outcome};
use quorate_tests::world::{Event, P, Q, R, Settings, World};
use serde_json::json;

use crate::support::{abc, goods, id, issued, lead, stock_up, transfer};

fn begin_ballots(world: &World) -> Vec<(protocol::NodeId, Ballot, Vec<Command>)> {
    let begun = |event: &Event| {
        let Event::Sent { from, message: Message::Acceptor(ToAcceptor::BeginBallot(begin)), .. } = event else {
            return None;
        };
        Some((*from, begin.ballot, begin.commands.clone()))
    };
    world.events().iter().filter_map(begun).collect()
}

/// A1b, A1i, A1q: only the leader executes and sends ballots, each in a ballot of its own; the
/// others say that they do not lead. Catches a follower that runs a function or proposes.
#[test]
fn only_the_leader_executes_and_proposes() {
    let mut world = World::three();
    lead(&mut world, P);
    for follower in [Q, R] {
        world.call(R, follower, "f", "inventory.inbound", &goods("A", 500));
        world.read_barrier(R, follower, follower.0);
    }
    world.settle();
    assert_eq!(world.outcomes("f"), [Outcome::NotLeader, Outcome::NotLeader]);
    assert_eq!((world.barriers(2), world.barriers(3)), (vec![None], vec![None]));
    stock_up(&mut world, P, "g", "A", 500);
    stock_up(&mut world, P, "h", "A", 500);
    assert_eq!([P, Q, R].map(|device| world.node(device).executions()), [2, 0, 0], "A1i");
    assert!(begin_ballots(&world).iter().all(|(from, ballot, _)| (*from, ballot.node) == (P, P)), "A1b");
}

/// S-01, DESIGN 5 rule 6: a vote of an earlier ballot of the same leader, for the same command,
/// arrives late. Catches a leader that counts it: the acceptor may have voted otherwise since.
#[test]
fn votes_of_an_earlier_ballot_do_not_count() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(R, P, "f", "inventory.inbound", &goods("A", 1));
    world.settle_if(|envelope| !envelope.is("Voted"));
    world.drop_if(|envelope| !(envelope.is("Voted") && envelope.from == Q));
    world.step_down(P);
    world.campaign(P);
    world.drop_if(|envelope| envelope.is("NextBallot") && envelope.to == Q);
    world.settle_if(|envelope| !envelope.is("Voted") && !envelope.is("BeginBallot"));
    assert_eq!(world.leads(P), Some(Ballot::new(2, P)), "p and r have promised");
    world.drop_if(|envelope| envelope.begins(1) && envelope.to != P);
    world.settle();
    assert_eq!(world.checks().issued(), 0, "p's vote in ballot 2, and q's in ballot 1");
    assert_eq!(world.outcomes("f"), [Outcome::LeadershipLost]);
    world.run(3);
    assert_eq!(world.chain(Q), [id(1, 1, P)], "issued by the votes of ballot 2");
}

/// A1b: a `BeginBallot` from a node that does not own the ballot. Catches an acceptor that votes
/// for whatever names the ballot that it promised.
#[test]
fn a_ballot_is_taken_from_its_owner_only() {
    let mut world = World::three();
    let ballot = lead(&mut world, P);
    let forged = Command { id: id(1, 1, P), precedent: protocol::CommandId::NULL, body: "forged".into() };
    let begin = BeginBallot { ballot, commands: vec![forged], round: 9, membership: CommandNumber::NULL };
    world.send(Q, R, Message::Acceptor(ToAcceptor::BeginBallot(begin)));
    world.settle();
    let ignored = |event: &Event| matches!(event, Event::Ignored { node, reason, .. } if *node == R && *reason == "not_the_owner");
    assert!(world.events().iter().any(ignored));
    assert_eq!(world.node(R).roles.as_ref().map(|roles| roles.acceptor.votes().count()), Some(0));
}

/// A1f, A1g, A1t: after a failover the new leader ballots on what was voted for and not issued,
/// and on a fresh number beside it, before the first is answered. Catches a leader that waits for
/// the one before it begins the other.
#[test]
fn both_kinds_of_ballot_after_a_failover() {
    let mut world = World::three();
    lead(&mut world, P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.settle_if(|envelope| envelope.is("ExecuteFunction") || envelope.is("BeginBallot"));
    world.crash(P);
    world.drop_if(|_| true);
    world.campaign(R);
    world.settle_if(|envelope| envelope.is("NextBallot") || envelope.is("BallotInfo"));
    let recovery = world.in_flight(|envelope| envelope.begins(1));
    world.call(Q, R, "g", "inventory.transfer", &transfer("A", "B", 100));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    assert_eq!((recovery, world.in_flight(|envelope| envelope.begins(2))), (3, 3), "A1t: both are in flight");
    world.settle();
    assert_eq!(world.chain(Q), [id(1, 1, P), id(2, 1, R)], "A1f: its identity is kept, A1g: a fresh number");
    assert_eq!(world.outcomes("g"), [issued(2, &json!({"from": 400, "to": 100}))]);
}

/// A1k, A1j: a leader state that was never voted for is dropped with the lead, and the state
/// machine never saw it; the next lead of the same node starts from M again. Catches an overlay
/// that outlives its lead.
#[test]
fn a_dropped_leader_state_leaves_no_trace() {
    let mut world = World::three();
    lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 500);
    world.call(Q, P, "g", "inventory.transfer", &transfer("A", "B", 450));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    assert_eq!(abc(&world, P), [500, 0, 0], "A1j: functions change LS, never MS");
    world.drop_if(|_| true);
    world.step_down(P);
    lead(&mut world, P);
    world.call(Q, P, "h", "inventory.transfer", &transfer("A", "C", 500));
    world.settle();
    assert_eq!(world.outcomes("h"), [issued(2, &json!({"from": 0, "to": 500}))], "A1k: h ran on M, not on the old LS");
    assert_eq!([P, Q, R].map(|device| abc(&world, device)), [[0, 0, 500]; 3]);
}

/// A13: a node that was down while promises were asked for votes again under the same leader:
/// the cluster then survives the loss of the other follower without an election. Catches an
/// acceptor that is left out for as long as a leader leads.
#[test]
fn a_returned_acceptor_votes_under_the_same_leader() {
    let mut world = World::three();
    world.crash(R);
    let ballot = lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 1);
    world.restart(R);
    world.run(3);
    world.crash(Q);
    stock_up(&mut world, P, "g", "A", 1);
    assert_eq!(world.leads(P), Some(ballot));
    assert_eq!(abc(&world, R), [2, 0, 0]);
}

/// A13: the same, and nothing tells the leader before it needs the vote: it finds out in bounded
/// time. Catches an acceptor that is asked for votes only, which it cannot give.
#[test]
fn a_returned_acceptor_is_asked_when_its_vote_is_needed() {
    let mut world = World::three();
    world.crash(R);
    lead(&mut world, P);
    world.restart(R);
    world.crash(Q);
    world.call(P, P, "f", "inventory.inbound", &goods("A", 1));
    world.run(3);
    assert_eq!(world.outcomes("f"), [issued(1, &json!({"stock": 1}))]);
}

/// A7: ballots are the node's own and never begun twice: the power goes when `last_tried` is
/// durable and before `NextBallot` leaves; the next ballot is another one. Catches a `last_tried`
/// that is written late or read back wrong (the world also checks B1 on every `NextBallot`).
#[test]
fn a_ballot_is_never_begun_twice() {
    let mut world = World::three();
    let mut last = Ballot::NONE;
    for _ in 0..3 {
        world.cut_power(P, quorate_tests::world::Cut::After(0));
        world.campaign(P);
        assert_eq!(world.in_flight(|envelope| envelope.is("NextBallot")), 0, "the power is gone");
        world.restart(P);
        let ballot = lead(&mut world, P);
        assert!(ballot.round >= last.round + 2, "the ballot that nobody saw is not used again");
        last = ballot;
        world.step_down(P);
    }
    assert_eq!(last, Ballot::new(6, P));
    // r hears of it from those that refuse, and then takes the same round as another owner.
    world.campaign(R);
    world.settle();
    assert_eq!(lead(&mut world, R), Ballot::new(6, R));
}

/// PAXOS-RUN-27, S-05: P1 gets A and B, which depends on A, accepted at acceptor 1 only and dies.
/// P2 gets C chosen at 2 and 3 and dies. P3 asks 1 and 3. Catches B being issued after C.
#[test]
fn run_27() {
    for c_is_known in [false, true] {
        let mut world = World::three();
        world.campaign_in_round(P, 27);
        world.settle();
        for (name, warehouse) in [("a", "A"), ("b", "A")] {
            world.call(P, P, name, "inventory.inbound", &goods(warehouse, 1));
            world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
        }
        world.drop_if(|envelope| envelope.from != envelope.to);
        world.settle_if(|envelope| envelope.is("BeginBallot"));
        world.crash(P);

        world.campaign_in_round(Q, 28);
        world.settle();
        world.call(Q, Q, "c", "inventory.inbound", &goods("B", 5));
        world.settle_if(|envelope| !(envelope.is("Success") && envelope.to == R));
        assert_eq!(world.outcomes("c"), [issued(1, &json!({"stock": 5}))]);
        if !c_is_known {
            world.drop_if(|_| true);
        }
        world.settle();
        world.crash(Q);

        world.restart(P);
        world.campaign_in_round(R, 29);
        world.settle();
        world.call(R, R, "d", "inventory.inbound", &goods("A", 1));
        world.run(3);
        assert_eq!(world.chain(R), [id(1, 28, Q), id(2, 29, R)], "C, then D: B is lost with A");
        assert_eq!(world.outcomes("d"), [issued(2, &json!({"stock": 1}))], "D ran on a state without A and B");
        world.restart(Q);
        world.run(5);
        assert_eq!([P, Q, R].map(|device| abc(&world, device)), [[1, 5, 0]; 3]);
    }
}

/// S-03: a command keeps its identity through three leaders, and with it its place after its
/// precedent. Catches a leader that names it anew, and so cuts it off from what follows it.
#[test]
fn a_command_keeps_its_identity_through_later_ballots() {
    let mut world = World::new(Settings { nodes: 5, ..Settings::default() });
    lead(&mut world, P);
    world.call(P, P, "f", "inventory.inbound", &goods("A", 1));
    world.call(P, P, "g", "inventory.inbound", &goods("A", 1));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    world.settle_if(|envelope| envelope.is("BeginBallot") && envelope.to != P);
    world.crash(P);
    for (round, leader) in [(2, Q), (3, R)] {
        world.drop_if(|_| true);
        world.campaign_in_round(leader, round);
        world.settle_if(|envelope| !envelope.is("Voted"));
        world.crash(leader);
        if leader == Q {
            world.restart(P);
        }
    }
    world.drop_if(|_| true);
    world.campaign_in_round(P, 4);
    world.run(3);
    assert_eq!(world.chain(P), [id(1, 1, P), id(2, 1, P)]);
    assert_eq!(world.node(P).stock("A"), 2);
}

/// DESIGN 6: a call that arrives while promises are collected is kept and runs once the ballot
/// is led; when the attempt comes to nothing, its caller hears that this node does not lead.
/// Catches calls that get lost between two phases.
#[test]
fn calls_that_come_early_are_kept() {
    let mut world = World::three();
    world.campaign(P);
    world.call(Q, P, "f", "inventory.inbound", &goods("A", 500));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    assert_eq!(world.outcomes("f"), []);
    world.settle();
    assert_eq!(world.outcomes("f"), [issued(1, &json!({"stock": 500}))]);

    for other in [P, R] {
        world.block(Q, other);
    }
    world.campaign(Q);
    world.call(Q, Q, "g", "inventory.inbound", &goods("A", 500));
    world.settle();
    assert_eq!(world.outcomes("g"), []);
    world.advance(Duration::from_secs(6));
    assert_eq!(world.outcomes("g"), [Outcome::NotLeader]);
}
