//! Changes of the membership (ADR 0025), with crashes at every step and leaders that know less than others.

use std::time::Duration;

use protocol::{Ballot, CommandNumber, LearnFrom, NodeId, Outcome};
use quorate_tests::world::{Cut, Envelope, P, Q, R, Settings, World};
use serde_json::{Value, json};

use crate::support::{goods, lead, stock_up};

const S: NodeId = NodeId(4);
const T: NodeId = NodeId(5);

fn settings(spare: u64, learn_from: LearnFrom) -> Settings {
    Settings { nodes: 3 + spare, spare, learn_from, ..Settings::default() }
}

/// Asks `leader` for a change, and lets everything happen that this causes.
#[track_caller]
fn change(world: &mut World, leader: NodeId, name: &str, function: &str, arguments: &Value) {
    world.call(leader, leader, name, function, arguments);
    world.settle();
    world.run(2);
    assert!(matches!(world.outcomes(name).as_slice(), [Outcome::Issued { .. }]), "{:?}", world.outcomes(name));
}

#[track_caller]
fn join(world: &mut World, leader: NodeId, node: NodeId) {
    let arguments = json!({"name": format!("m{node}"), "address": format!("m{node}:1")});
    change(world, leader, &format!("join-{node}"), "cluster.join", &arguments);
    world.join(node, leader);
    world.run(3);
}

fn acceptors(world: &World, node: NodeId) -> Vec<u64> {
    world.node(node).membership().majority().nodes().iter().map(|id| id.0).collect()
}

/// Every caller under `names` gets an answer, whoever leads: the calls are made again and again, as gateways do.
#[track_caller]
fn answer_all(world: &mut World, candidates: &[NodeId], calls: &[(&str, &str, Value)]) {
    for round in 0..60 {
        let open = |world: &World, name: &str| {
            let outcomes = world.outcomes(name);
            !outcomes.iter().any(|outcome| !matches!(outcome, Outcome::NotLeader | Outcome::LeadershipLost))
        };
        if calls.iter().all(|(name, ..)| !open(world, name)) {
            return;
        }
        let leader = world.ids().into_iter().find(|id| world.leads(*id).is_some()).unwrap_or_else(|| {
            let next = candidates[round % candidates.len()];
            world.campaign(next);
            world.run(2);
            next
        });
        for (name, function, arguments) in calls {
            if open(world, name) {
                let call = quorate_tests::world::call(name, function, arguments, Duration::ZERO);
                world.send_call(leader, leader, protocol::Call { copy: 1, ..call });
            }
        }
        world.run(2);
    }
    panic!("not answered: {:?}", calls.iter().map(|(name, ..)| world.outcomes(name)).collect::<Vec<_>>());
}

/// A1c, S-16 to S-19: 3 -> 5 -> 3 acceptors, none of the first ones among the last but one, with both ways of learning
/// and a call after every change. Catches a change that stops the cluster, or that the world finds to break a rule.
#[test]
fn acceptors_come_and_go_one_by_one() {
    for learn_from in [LearnFrom::Leader, LearnFrom::Voters] {
        let mut world = World::new(settings(2, learn_from));
        lead(&mut world, P);
        let mut called = 0;
        let mut call = |world: &mut World, leader: NodeId| {
            called += 1;
            stock_up(world, leader, &format!("call-{called}"), "A", 1);
        };
        call(&mut world, P);
        for node in [S, T] {
            join(&mut world, P, node);
            call(&mut world, P);
            change(&mut world, P, &format!("accept-{node}"), "cluster.set_acceptor", &json!({"node": node.0}));
            call(&mut world, P);
        }
        assert_eq!(acceptors(&world, P), [1, 2, 3, 4, 5]);
        world.crash(Q);
        world.crash(R);
        call(&mut world, P);
        for gone in [Q, R] {
            change(&mut world, P, &format!("remove-{gone}"), "cluster.remove", &json!({"node": gone.0}));
            call(&mut world, P);
        }
        assert_eq!(acceptors(&world, S), [1, 4, 5]);
        change(&mut world, P, "remove-1", "cluster.remove", &json!({"node": 1}));
        assert_eq!(world.leads(P), None, "removed");
        world.campaign(P);
        assert_eq!(world.leads(P), None);
        lead(&mut world, S);
        call(&mut world, S);
        // What is left of the first three can be gone for good.
        world.crash(P);
        call(&mut world, S);
        assert_eq!(world.node(T).stock("A"), called);
    }
}

/// S-16: power cuts of each node before and after each of its log writes, while a learner becomes an acceptor and calls
/// go on. Catches a change that half the cluster knows and that then is forgotten, done twice, or never answered.
#[test]
fn a_change_survives_a_power_cut_at_every_step() {
    let mut cuts = 0;
    for node in [P, Q, R, S] {
        for write in 0..8 {
            for cut in [Cut::Before(write), Cut::After(write)] {
                let mut world = World::new(settings(1, LearnFrom::Leader));
                lead(&mut world, P);
                stock_up(&mut world, P, "a", "A", 5);
                join(&mut world, P, S);
                world.cut_power(node, cut);
                let accept = ("accept", "cluster.set_acceptor", json!({"node": 4}));
                let calls = [accept, ("b", "inventory.inbound", goods("A", 1))];
                for (name, function, arguments) in &calls {
                    world.call(P, P, name, function, arguments);
                }
                world.run(3);
                if world.node(node).roles.is_none() {
                    cuts += 1;
                    world.run(2);
                    world.restart(node);
                    world.run(3);
                }
                answer_all(&mut world, &[P, Q, R], &calls);
                world.run(5);
                for id in world.ids() {
                    assert_eq!(acceptors(&world, id), [1, 2, 3, 4], "{node} {cut:?}: node {id}");
                    assert_eq!(world.node(id).stock("A"), 6, "{node} {cut:?}: node {id}");
                }
                world.checks().assert_nothing_acknowledged_is_lost();
            }
        }
    }
    assert!(cuts >= 20, "only {cuts} power cuts");
}

/// A leader under the old membership, in a higher ballot than the one that made the change, with a majority set of the
/// old acceptors of which one has voted for the change. Catches one that proposes past the change, or something else in
/// its place.
#[test]
fn an_old_leader_in_a_higher_ballot_meets_the_change() {
    let mut world = World::new(settings(1, LearnFrom::Leader));
    lead(&mut world, P);
    join(&mut world, P, S);
    world.block(P, R);
    world.call(P, P, "accept", "cluster.set_acceptor", &json!({"node": 4}));
    // p and q vote for it and p knows it issued; then p is gone, and nobody else has heard.
    world.settle_if(|envelope| envelope.to == P || (envelope.to == Q && envelope.is("BeginBallot")));
    assert!(matches!(world.outcomes("accept").as_slice(), [Outcome::Issued { .. }]));
    world.crash(P);
    world.drop_if(|_| true);
    world.heal();
    world.campaign_in_round(R, 9);
    world.settle();
    assert_eq!(world.leads(R).map(|ballot| ballot.node), Some(R));
    world.run(3);
    assert_eq!(acceptors(&world, R), [1, 2, 3, 4], "found among the votes, issued again, and in force");
    stock_up(&mut world, R, "b", "A", 1);
    // Now three of four are needed, and p is away.
    world.crash(S);
    world.call(R, R, "c", "inventory.inbound", &goods("A", 1));
    world.settle();
    assert_eq!(world.outcomes("c"), [], "two of four issue nothing");
    world.restart(S);
    world.run(5);
    assert!(matches!(world.outcomes("c").as_slice(), [Outcome::Issued { .. }]));
}

/// A leader under the old membership in a lower ballot: it proposes beside the one that makes the change. Catches votes
/// for what it proposes that count although the majority sets have changed since.
#[test]
fn an_old_leader_in_a_lower_ballot_issues_nothing() {
    for learn_from in [LearnFrom::Leader, LearnFrom::Voters] {
        let mut world = World::new(settings(1, learn_from));
        lead(&mut world, P);
        join(&mut world, P, S);
        // p and r vote for what p proposes, and nobody hears of r's vote.
        for peer in [Q, S] {
            world.block(P, peer);
            world.block(peer, P);
        }
        world.block(R, P);
        world.call(P, P, "lost", "inventory.inbound", &goods("A", 7));
        world.settle_if(|envelope| !(envelope.from == R && envelope.is("Voted")));
        world.drop_if(|_| true);
        world.campaign_in_round(Q, 9);
        world.run(3);
        let ballot = world.leads(Q).expect("q and r have promised");
        assert!(world.leads(P).is_none_or(|old| old < ballot));
        change(&mut world, Q, "weigh", "cluster.set_acceptor", &json!({"node": 4}));
        change(&mut world, Q, "drop-p", "cluster.remove", &json!({"node": 1}));
        assert_eq!(acceptors(&world, Q), [2, 3, 4]);
        stock_up(&mut world, Q, "a", "A", 1);
        world.call(P, P, "late", "inventory.inbound", &goods("A", 9));
        world.run(3);
        world.heal();
        world.run(5);
        assert!(!world.outcomes("late").iter().any(|outcome| matches!(outcome, Outcome::Issued { .. })));
        assert_eq!(world.leads(P), None);
    }
}

/// ADR 0026: no majority set before the change shares a node with the one after it. Those after it learn of the change
/// through a ballot under the old membership, and go on in a lower one, of which the old acceptors hear nothing. Catches
/// learners that take what is issued there for old news, for ever, and nodes that disagree afterwards.
#[test]
fn majority_sets_need_not_meet_those_before() {
    let [six, seven] = [6, 7].map(NodeId);
    for learn_from in [LearnFrom::Leader, LearnFrom::Voters] {
        let mut world = World::new(Settings { nodes: 7, learn_from, ..Settings::default() });
        lead(&mut world, P);
        world.call(P, P, "rule", "cluster.set_rule", &json!({"majority_sets": [[6, 7]]}));
        // All have the body, and p alone knows that it is issued; then p is gone.
        world.settle_if(|envelope| envelope.is("BeginBallot") || envelope.to == P);
        assert!(matches!(world.outcomes("rule").as_slice(), [Outcome::Issued { .. }]));
        world.crash(P);
        world.drop_if(|_| true);
        world.campaign_in_round(R, 9);
        let asks = |envelope: &Envelope| envelope.is("NextBallot") || envelope.is("BeginBallot");
        world.settle_if(|envelope| ![six, seven].contains(&envelope.to) || !asks(envelope));
        for node in [six, seven] {
            assert_eq!(acceptors(&world, node), [6, 7], "learnt through ballot 9.3");
        }
        world.crash(R);
        world.drop_if(|_| true);
        world.campaign_in_round(six, 5);
        world.settle();
        assert_eq!(world.leads(six), Some(Ballot::new(5, six)));
        stock_up(&mut world, six, "a", "A", 1);
        assert_eq!([six, seven].map(|node| world.node(node).stock("A")), [1, 1]);
        world.restart(P);
        world.restart(R);
        world.run(5);
        for id in world.ids() {
            assert_eq!((acceptors(&world, id), world.node(id).stock("A")), (vec![6, 7], 1), "node {id}");
        }
    }
}

/// A change that is proposed and never issued: its leader dies, and nobody who voted for it is among those who promise
/// the next one. Catches a membership that is in force because somebody proposed it.
#[test]
fn a_change_that_is_lost_with_its_leader_never_was() {
    let mut world = World::new(settings(1, LearnFrom::Leader));
    lead(&mut world, P);
    join(&mut world, P, S);
    let before = world.node(P).membership().number();
    world.call(P, P, "accept", "cluster.set_acceptor", &json!({"node": 4}));
    world.settle_if(|envelope| envelope.to == P);
    assert_eq!(world.outcomes("accept"), [], "its own vote only");
    world.crash(P);
    world.drop_if(|_| true);
    world.campaign_in_round(R, 9);
    world.settle();
    stock_up(&mut world, R, "a", "A", 1);
    world.restart(P);
    world.run(5);
    for id in world.ids() {
        assert_eq!((acceptors(&world, id), world.node(id).membership().number()), (vec![1, 2, 3], before));
    }
}

/// Two changes at once: the second waits until the first is in force, and is decided under it.
#[test]
fn two_changes_in_a_row_are_one_after_the_other() {
    let mut world = World::new(settings(2, LearnFrom::Leader));
    lead(&mut world, P);
    join(&mut world, P, S);
    join(&mut world, P, T);
    for (name, node) in [("one", 4), ("two", 5)] {
        world.call_patiently(P, P, name, "cluster.set_acceptor", &json!({"node": node}));
    }
    world.call(P, P, "a", "inventory.inbound", &goods("A", 1));
    world.run(150);
    let commands: Vec<CommandNumber> = ["one", "two", "a"]
        .map(|name| match world.outcomes(name).as_slice() {
            [Outcome::Issued { command, .. }] => *command,
            other => panic!("{name}: {other:?}"),
        })
        .into();
    assert!(commands[0] < commands[1], "{commands:?}");
    assert_eq!(world.node(P).membership().number(), commands[1]);
    assert_eq!(acceptors(&world, T), [1, 2, 3, 4, 5]);
    let ballots: Vec<Ballot> = world.chain(P).iter().map(|id| id.ballot).collect();
    assert!(ballots.windows(2).all(|pair| pair[0] <= pair[1]), "{ballots:?}");
}

/// Invariant 11: the acceptors that are removed are gone for good, and power fails at all others right after the first
/// command that only they have voted for. Catches commands of before the change that were on the removed disks only.
#[test]
fn what_removed_acceptors_had_voted_for_is_on_the_disks_of_the_others() {
    let mut world = World::new(settings(0, LearnFrom::Leader));
    lead(&mut world, P);
    // r votes for nothing of this: it is on the disks of p and q.
    world.block(P, R);
    for call in 0..5 {
        stock_up(&mut world, P, &format!("a-{call}"), "A", 1);
    }
    world.heal();
    world.run(5);
    change(&mut world, P, "remove", "cluster.remove", &json!({"node": 2}));
    stock_up(&mut world, P, "b", "A", 1);
    // p is lost, and r's state was synced by nobody but itself.
    world.crash(P);
    world.crash(Q);
    world.crash(R);
    world.restart(R);
    assert!(world.node(R).stock("A") >= 5, "the state of r reaches the change, whatever it voted for");
}
