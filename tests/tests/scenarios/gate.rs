//! The output gate: nothing that is not issued shows, and a leader that was superseded answers
//! nobody as if it led.

use protocol::{CommandNumber, Outcome};
use quorate_tests::world::{P, Q, R, World};
use serde_json::json;

use crate::support::{abc, goods, issued, lead, stock_up, transfer};

fn at_code(outcome: &Outcome) -> Option<(u64, &str)> {
    if let Outcome::Refused { at, code, .. } = outcome { Some((at.0, code)) } else { None }
}

/// P leads, A holds 500, and a transfer of 400 from A to B is proposed and has no votes yet.
/// Then a refusal, a call that changes nothing and a read arrive, which all show it.
fn with_a_command_in_flight() -> World {
    let mut world = World::three();
    lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 500);
    world.call(Q, P, "g", "inventory.transfer", &transfer("A", "B", 400));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    world.call(Q, P, "refused", "inventory.outbound", &goods("A", 101));
    world.call(R, P, "unchanged", "kv.delete", &json!({"key": "nothing"}));
    world.call(R, P, "reused", "inventory.inbound", &goods("C", 1));
    world.read_barrier(R, P, 7);
    world.deliver_if(|envelope| envelope.is("ExecuteFunction") || envelope.is("ReadBarrier"));
    world
}

fn assert_silence(world: &World) {
    for name in ["g", "refused", "unchanged"] {
        assert_eq!(world.outcomes(name), [], "S-08: {name} is answered before it may be");
    }
    assert_eq!(world.barriers(7), [], "S-08: a read is answered before it may be");
}

/// S-08, S-20, A1j: replies, refusals, calls without effect and read barriers wait for what they
/// saw to be issued, then leave. Catches any of them leaving early, or never.
#[test]
fn nothing_leaves_before_what_it_saw_is_issued() {
    let mut world = with_a_command_in_flight();
    assert_silence(&world);
    // Everything but the votes that would issue it.
    world.settle_if(|envelope| !envelope.is("Voted"));
    assert_silence(&world);
    assert_eq!(abc(&world, P), [500, 0, 0], "A1j: M(p) is untouched");
    // One vote is no majority.
    world.deliver_if(|envelope| envelope.is("Voted") && envelope.from == P);
    assert_silence(&world);
    world.settle();
    assert_eq!(world.outcomes("g"), [issued(2, &json!({"from": 100, "to": 400}))]);
    let refused = world.outcomes("refused");
    assert_eq!(refused.iter().filter_map(at_code).collect::<Vec<_>>(), [(2, "insufficient_stock")]);
    assert!(matches!(world.outcomes("unchanged").as_slice(), [Outcome::Unchanged { at: CommandNumber(2 | 3), .. }]));
    assert!(world.barriers(7).len() == 1 && world.barriers(7)[0] >= Some(CommandNumber(1)));
}

/// S-08: the round that a held reply waits for is confirmed, and the command that it saw is not
/// issued, because that one's `BeginBallot` was lost. Catches a gate that looks at one of the two.
#[test]
fn a_confirmed_round_is_not_enough() {
    let mut world = with_a_command_in_flight();
    assert_eq!(world.drop_if(|envelope| envelope.begins(2) && envelope.to != P), 2);
    world.settle();
    let answers = world.events().iter().filter(|event| event.sends("Voted")).count();
    assert!(answers >= 6, "the round went around, after that of f");
    assert_silence(&world);
    world.run(2);
    assert_eq!(world.outcomes("refused").len(), 1);
    assert_eq!(world.barriers(7).len(), 1);
}

/// S-08, S-21, S-22, A1k: the same, and the lead ends instead. Catches a refusal or read that
/// leaves with the leader state that is dropped, a proposed call that is reported as failed, and
/// a state machine that the dropped leader state touched.
#[test]
fn what_was_held_is_never_said_when_the_lead_ends() {
    let mut world = with_a_command_in_flight();
    world.step_down(P);
    assert_eq!(world.outcomes("g"), [Outcome::LeadershipLost]);
    assert_eq!(world.outcomes("refused"), [Outcome::NotLeader]);
    assert_eq!(world.outcomes("unchanged"), [Outcome::NotLeader]);
    assert_eq!(world.barriers(7), [None]);
    assert_eq!(abc(&world, P), [500, 0, 0], "A1k: MS is unaffected");
    // Nobody voted: the next leader state knows nothing of g.
    world.drop_if(|_| true);
    lead(&mut world, P);
    world.call(Q, P, "after", "inventory.outbound", &goods("A", 500));
    world.settle();
    assert_eq!(world.outcomes("after"), [issued(2, &json!({"stock": 0}))]);
}

/// S-21, S-20: p is cut off, r leads and issues; p still believes that it leads. Its refusals,
/// its calls without effect and its read barriers stay held, and when it hears of the higher
/// ballot it says that it does not lead. Catches answers out of a stale leader state.
#[test]
fn a_deposed_leader_answers_nobody_as_if_it_led() {
    let mut world = World::three();
    let old = lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 500);
    for other in [Q, R] {
        world.block(P, other);
        world.block(other, P);
    }
    lead(&mut world, R);
    world.call(Q, R, "g", "inventory.outbound", &goods("A", 500));
    world.settle();
    assert_eq!(world.outcomes("g"), [issued(2, &json!({"stock": 0}))]);

    assert_eq!(world.leads(P), Some(old), "p does not know");
    world.call(P, P, "stale", "inventory.transfer", &transfer("A", "B", 501));
    world.call(P, P, "none", "kv.delete", &json!({"key": "nothing"}));
    world.call(P, P, "again", "inventory.outbound", &goods("A", 500));
    world.read_barrier(P, P, 1);
    world.settle();
    world.advance(std::time::Duration::from_millis(300));
    world.settle();
    for name in ["stale", "none", "again"] {
        assert_eq!(world.outcomes(name), [], "{name}: p alone is no majority set");
    }
    assert_eq!(world.barriers(1), []);

    world.heal();
    world.run(5);
    assert_eq!(world.leads(P), None);
    assert_eq!(world.outcomes("stale"), [Outcome::NotLeader]);
    assert_eq!(world.outcomes("none"), [Outcome::NotLeader]);
    assert_eq!(world.outcomes("again"), [Outcome::LeadershipLost], "only a later leader knows");
    assert_eq!(world.barriers(1), [None]);
    assert_eq!(abc(&world, P), [0, 0, 0], "p follows");
}

/// S-21: a deposed leader that learns another leader's command from its own learner, before any
/// acceptor refuses it. Catches a leader that goes on over a state machine that is not its own.
#[test]
fn a_foreign_command_ends_the_lead() {
    let mut world = World::three();
    lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 500);
    world.call(P, P, "mine", "inventory.inbound", &goods("A", 1));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    world.drop_if(|envelope| envelope.is("BeginBallot"));
    world.campaign(R);
    world.drop_if(|envelope| envelope.to == P);
    world.settle_if(|envelope| envelope.to != P);
    world.call(Q, R, "theirs", "inventory.inbound", &goods("B", 2));
    world.settle_if(|envelope| envelope.to != P);
    world.drop_if(|envelope| !envelope.is("Success") && !envelope.is("CatchUp") && !envelope.is("Commands"));
    world.settle();
    world.gossip();
    world.advance(std::time::Duration::from_millis(60));
    world.settle_if(|envelope| envelope.is("CatchUp") || envelope.is("Commands"));
    assert_eq!(world.applied(P), 2);
    assert_eq!(world.leads(P), None, "p gave up by what it learnt");
    assert_eq!(world.outcomes("mine"), [Outcome::LeadershipLost]);
}

/// S-20: each barrier is confirmed by a round that began after it arrived. Catches a barrier
/// that an answer from before the question lets pass.
#[test]
fn an_old_answer_lets_no_new_read_pass() {
    let mut world = World::three();
    lead(&mut world, P);
    stock_up(&mut world, P, "f", "A", 500);
    world.read_barrier(Q, P, 1);
    world.settle_if(|envelope| !envelope.is("Voted"));
    world.read_barrier(Q, P, 2);
    world.deliver_if(|envelope| envelope.is("ReadBarrier"));
    // Answers to the round of the first read, and nothing that was sent after the second.
    world.deliver_if(|envelope| envelope.is("Voted"));
    assert_eq!(world.barriers(1), [Some(CommandNumber(1))]);
    assert_eq!(world.barriers(2), [], "its round is not answered yet");
    world.settle();
    assert_eq!(world.barriers(2), [Some(CommandNumber(1))]);
}

/// S-04, A2: a majority of votes on 2 says nothing while 1 is not issued. Catches a leader that
/// answers, or a learner that applies, out of order.
#[test]
fn voted_is_not_issued() {
    let mut world = World::new(quorate_tests::world::Settings { run_bytes: 1, ..Default::default() });
    lead(&mut world, P);
    world.call(Q, P, "one", "inventory.inbound", &goods("A", 1));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    world.call(Q, P, "two", "inventory.inbound", &goods("A", 1));
    world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    assert_eq!(world.drop_if(|envelope| envelope.begins(1) && envelope.to != P), 2);
    world.settle();
    assert_eq!((world.outcomes("one"), world.outcomes("two")), (vec![], vec![]), "A1s");
    assert_eq!(world.checks().issued(), 0);
    world.run(5);
    assert_eq!(world.outcomes("one"), [issued(1, &json!({"stock": 1}))]);
    assert_eq!(world.outcomes("two"), [issued(2, &json!({"stock": 2}))]);
}
