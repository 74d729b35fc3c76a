//! Handing the lead over (ADR 0030).

use super::*;
use crate::machine::run_on_snapshot;

const TICK: Duration = Duration::from_millis(10);
const RESULT: &str = r#"{"leads":false,"name":"n3","node":3}"#;

/// A call that asks for it, and what comes of it but the end of the turn.
fn hand_over(bench: &mut Bench, key: &str) -> Vec<Effect> {
    bench.call(key, "cluster.hand_over", json!({"node": 3}))
}

fn begins(last: u64) -> [Effect; 2] {
    let over = HandOver { to: NodeId(3), last: number(last) };
    [Effect::Note(Note::HandsOver { ballot: ballot(1), to: NodeId(3) }), Effect::HandsOver(Some(over))]
}

fn superseded(bench: &mut Bench, by: Ballot) -> Vec<Effect> {
    bench.say(2, my_next_bal(by, ballot(1)))
}

/// The whole of it. Catches a call that is executed, refused or lost meanwhile, a command proposed before that is not
/// issued, a number that the successor would never apply, a leader that does not ask whether it is superseded, and one
/// that goes on saying it hands over.
#[test]
fn calls_wait_and_go_to_the_successor() {
    let mut bench = Bench::new();
    bench.lead();
    bench.call("a", "kv.put", json!({"key": "a", "value": 1}));
    assert_eq!(hand_over(&mut bench, "over"), begins(1), "what is not sent yet counts too");
    assert_eq!(proposed(&bench.put("b", 2)).len(), 1, "what was proposed before, and nothing else");
    bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 5 }));
    bench.end_turn();
    let told = [issued(2, "a", 1, "{}", false), executed(2, "over", unchanged(1, RESULT)), passed(3, 5, Some(0))];
    bench.ack(1);
    assert_eq!(replies(bench.ack(2)), told, "all that was there before it");
    for _ in 0..3 {
        bench.end_turn();
        bench.ack_all();
        let mut round = bench.wait(TICK);
        round.extend(bench.end_turn());
        assert_eq!((begun(&round).len(), proposed(&round)), (3, vec![]), "{round:?}");
    }
    let mut expected = vec![Effect::HandsOver(None), executed(2, "put-b-2", Outcome::NotLeader), Effect::Leads(None)];
    expected.push(Effect::Note(Note::HandedOver { ballot: ballot(1), to: NodeId(3) }));
    let mut ends = superseded(&mut bench, foreign(2));
    ends.retain(|effect| !matches!(effect, Effect::Send { message: Message::Learner(_), .. }));
    assert_eq!(ends, expected);
}

/// Catches a lead that went where it should and is said to be lost: the successor's first command may come before anybody
/// says that its ballot is promised.
#[test]
fn the_successors_first_command_ends_it_too() {
    let mut bench = Bench::new();
    bench.lead();
    hand_over(&mut bench, "over");
    let effects = bench.learn(&chain(foreign(2), CommandId::NULL, 1));
    let done = Effect::Note(Note::HandedOver { ballot: ballot(1), to: NodeId(3) });
    assert!(effects.contains(&done) && effects.contains(&Effect::HandsOver(None)), "{effects:?}");
}

/// Catches a leader that never takes calls again when the other node does not come, a call that is lost by it, and one
/// that can be handed over once only.
#[test]
fn calls_are_taken_again_when_nobody_takes_over() {
    let mut bench = Bench::new();
    bench.lead();
    hand_over(&mut bench, "over");
    assert_eq!(proposed(&bench.put("a", 1)), []);
    assert_eq!(bench.leader.load().kept_calls, 1);
    bench.ack_all();
    bench.wait(Duration::from_millis(999));
    let ends = bench.wait(Duration::from_millis(1));
    let told = [Effect::Note(Note::NotHandedOver { ballot: ballot(1), to: NodeId(3) }), Effect::HandsOver(None)];
    assert!(told.iter().all(|effect| ends.contains(effect)), "{ends:?}");
    assert_eq!(proposed(&bench.end_turn()).len(), 1, "the call that waited");
    bench.ack_all();
    assert_eq!(hand_over(&mut bench, "again"), begins(1));
    let ends = superseded(&mut bench, Ballot::new(2, NodeId(2)));
    assert!(ends.iter().any(|effect| matches!(effect, Effect::Note(Note::StepsDown { .. }))), "it is another node's");
}

/// Catches a call on the pool or one that waits for a refusal to pass that becomes a command after the last one, and one
/// that is forgotten.
#[test]
fn calls_that_are_kept_elsewhere_are_not_proposed_either() {
    let mut bench = Bench::new();
    bench.lead();
    let job = jobs(&bench.call("pool", "test.copy_on_pool", json!({}))).remove(0);
    let outbound = call("patient", "inventory.outbound", json!({"warehouse": "A", "amount": 5}));
    bench.say(2, ToLeader::ExecuteFunction(patient(60, outbound)));
    hand_over(&mut bench, "over");
    let function = bench.functions.get(&job.function).expect("registered");
    let execution = Box::new(run_on_snapshot(function.as_ref(), &job, &bench.machine));
    let late = bench.feed(Input::PoolDone { job: job.job, execution });
    assert_eq!(late, [Effect::Ignored(IgnoreReason::LateExecution)]);
    assert_eq!(proposed(&bench.end_turn()), []);
    assert_eq!(bench.leader.load().kept_calls, 2);
    assert_eq!(jobs(&bench.wait(Duration::from_secs(1))).len(), 1, "again");
    assert_eq!(bench.leader.load().kept_calls, 2);
}

/// Catches a node that stops and hands over to nobody although one could lead, one that leads no more although nobody
/// can, and one that leads on although its disk is full.
#[test]
fn a_leader_hands_over_by_itself() {
    let mut bench = Bench::new();
    bench.lead();
    bench.heard.insert(NodeId(3), number(1));
    let stops = || Input::HandOver { or_else: None };
    assert_eq!(bench.feed(stops()), begins(0), "who has applied the most");
    assert_eq!(bench.feed(stops()), [], "it does already");
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.leader.leads(), Some(ballot(1)), "it leads on");
    bench.heard = [(NodeId(1), number(0))].into();
    assert_eq!(bench.feed(stops()), [], "there is nobody");
    assert_eq!(bench.leader.leads(), Some(ballot(1)));
    let fills = || Input::HandOver { or_else: Some("full") };
    assert!(bench.feed(fills()).contains(&Effect::Leads(None)));
    assert_eq!(bench.feed(stops()), [], "it does not lead");
    let mut bench = Bench::new();
    bench.lead();
    bench.heard.remove(&NodeId(2));
    assert_eq!(bench.feed(fills()), begins(0));
    let ends = bench.wait(Duration::from_secs(1));
    let reason = Note::StepsDown { ballot: ballot(1), reason: "full", superseded_by: None, unissued: 0 };
    assert!(ends.contains(&Effect::Note(reason)) && ends.contains(&Effect::HandsOver(None)), "{ends:?}");
}

/// ADR 0025: catches a lead that is handed over between a change of the membership and the ballot that follows it, where
/// the successor would not know its acceptors.
#[test]
fn a_lead_that_changes_the_membership_is_not_handed_over() {
    let mut bench = Bench::new();
    bench.lead();
    bench.call("join", "cluster.join", json!({"name": "n4", "address": "n4:7080"}));
    assert_eq!(hand_over(&mut bench, "over"), [], "kept");
    assert_eq!(bench.feed(Input::HandOver { or_else: None }), []);
    assert_eq!(bench.leader.leads(), Some(ballot(1)));
}
