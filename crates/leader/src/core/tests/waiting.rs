//! "Not now": calls that wait until what they read is written, or until their patience ends.

use super::super::kept::Calls;
use super::*;

fn outbound(key: &str, amount: u64) -> Call {
    patient(10, call(key, "inventory.outbound", json!({"warehouse": "A", "amount": amount})))
}

fn execute(call: Call) -> ToLeader {
    ToLeader::ExecuteFunction(call)
}

fn inbound(bench: &mut Bench, key: &str, warehouse: &str, amount: u64) {
    bench.call(key, "inventory.inbound", json!({"warehouse": warehouse, "amount": amount}));
}

fn requests(effects: &[Effect]) -> Vec<RequestId> {
    proposed(effects).iter().map(|command| body(command).request).collect()
}

fn refused(at: u64, stock: u64, wanted: u64) -> Outcome {
    let message = format!("A has {stock}, and {wanted} are wanted");
    Outcome::Refused { at: number(at), code: "insufficient_stock".into(), message }
}

/// No call is kept, and no index remembers one.
#[track_caller]
fn assert_nothing_left(bench: &Bench) {
    let Phase::Leading(leading) = &bench.leader.phase else { panic!("leads") };
    assert_eq!(leading.calls, Calls::after(leading.calls.last_id()));
}

/// DESIGN 6, order; FIG. 8 step 22: catches a waiting call that is not tried again, is tried
/// when something else is written, or runs before the write that helps it.
#[test]
fn a_write_of_what_it_read_wakes_a_waiting_call() {
    let mut bench = Bench::new();
    bench.lead();
    bench.say(2, execute(outbound("l", 5)));
    bench.say(3, execute(outbound("l", 5)));
    inbound(&mut bench, "other", "B", 9);
    inbound(&mut bench, "little", "A", 4);
    assert_eq!(bench.leader.load().kept_calls, 1);
    inbound(&mut bench, "k", "A", 1);
    assert_eq!(bench.leader.load().kept_calls, 0);
    let run = bench.end_turn();
    assert_eq!(requests(&run), [request("other"), request("little"), request("k"), request("l")]);
    let answers = replies(bench.ack_all());
    let result = r#"{"stock":0}"#;
    assert_eq!(answers[3..], [issued(2, "l", 4, result, false), issued(3, "l", 4, result, true)]);
}

/// Catches a change of the membership that waits for a node to be heard, and is tried again only when its patience is
/// over: nodes that join or leave together would each wait for so long.
#[test]
fn a_change_of_the_membership_is_tried_again_without_a_write() {
    let mut bench = Bench::new();
    bench.lead();
    bench.heard.retain(|node, _| *node == NodeId(1));
    let removal = patient(60, call("x", "cluster.remove", json!({"node": 3})));
    bench.say(2, execute(removal));
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.leader.load().kept_calls, 1, "one of two is no majority set");
    bench.heard.insert(NodeId(2), CommandNumber::NULL);
    let effects = bench.wait(Duration::from_secs(1));
    assert_eq!(bench.leader.load().kept_calls, 0);
    assert_eq!(requests(&[effects, bench.end_turn()].concat()), [request("x")]);
}

/// Catches a call that waits on a range and is not woken by a new key in it, or by one outside.
#[test]
fn a_write_into_a_range_wakes_a_waiting_call() {
    let mut bench = Bench::new();
    bench.lead();
    bench.say(2, execute(patient(10, call("pop", "test.pop", json!({})))));
    bench.put("p/1", 1);
    bench.put("r", 1);
    assert_eq!(bench.leader.load().kept_calls, 1);
    bench.put("q/7", 1);
    assert_eq!(bench.leader.load().kept_calls, 0);
    bench.end_turn();
    let answers = replies(bench.ack_all());
    assert_eq!(answers.last(), Some(&issued(2, "pop", 4, r#""q/7""#, false)));
    assert_nothing_left(&bench);
}

/// Catches indexes that grow with calls that are gone: one ends while it is woken and waits for
/// room, one has read a range, one shares its key with another.
#[test]
fn nothing_is_remembered_of_calls_that_are_gone() {
    let mut bench = Bench::with(|config| config.window = 1);
    bench.lead();
    bench.say(2, execute(outbound("l", 5)));
    bench.say(2, execute(outbound("m", 50)));
    bench.say(2, execute(patient(10, call("pop", "test.pop", json!({})))));
    inbound(&mut bench, "in", "A", 5);
    assert_eq!(bench.leader.load().kept_calls, 3, "woken, and no room");
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.leader.load().kept_calls, 0);
    assert_nothing_left(&bench);
}

/// One write helps some of those who wait. Catches the others being lost, the order of waiting
/// being turned round, and stock that is given out twice.
#[test]
fn those_who_waited_longest_are_tried_first() {
    let mut bench = Bench::new();
    bench.lead();
    for (key, amount) in [("w3", 3), ("w2", 2), ("w9", 9), ("w1", 1)] {
        bench.say(2, execute(outbound(key, amount)));
    }
    inbound(&mut bench, "in", "A", 4);
    assert_eq!(requests(&bench.end_turn()), [request("in"), request("w3"), request("w1")]);
    inbound(&mut bench, "more", "A", 11);
    assert_eq!(requests(&bench.end_turn()), [request("more"), request("w2"), request("w9")]);
    assert_eq!(bench.leader.load().kept_calls, 0);
}

/// Catches a waiting call that is woken without room and then forgotten, or sent beyond the
/// window.
#[test]
fn a_woken_call_waits_for_room() {
    let mut bench = Bench::with(|config| config.window = 1);
    bench.lead();
    bench.say(2, execute(outbound("l", 5)));
    inbound(&mut bench, "k", "A", 5);
    assert_eq!(requests(&bench.end_turn()), [request("k")]);
    assert_eq!(bench.leader.load().kept_calls, 1);
    bench.ack_all();
    assert_eq!(requests(&bench.end_turn()), [request("l")]);
}

/// Section 13: catches patience without an end, an end before its time, and an answer that
/// passes the gate, or names a state that the function did not see.
#[test]
fn patience_ends_with_the_last_refusal() {
    let mut bench = Bench::new();
    bench.lead();
    bench.say(2, execute(outbound("l", 5)));
    inbound(&mut bench, "little", "A", 3);
    bench.put("x", 1);
    bench.ack_all();
    bench.wait(Duration::from_millis(9_999));
    assert_eq!(bench.leader.load().kept_calls, 1);
    assert_eq!(replies(bench.wait(Duration::from_millis(1))), [], "gated");
    let answers: Vec<Effect> = replies(bench.ack_all());
    assert_eq!(answers, [executed(2, "l", refused(2, 3, 5))]);
    inbound(&mut bench, "much", "A", 50);
    assert_eq!(requests(&bench.end_turn()), [request("much")], "nobody waits any more");
}

/// A last try at the end of the patience: catches a refusal about a state that is no longer that of
/// the number it names, while a woken call found no room.
#[test]
fn a_woken_call_without_room_is_tried_when_its_patience_ends() {
    let mut bench = Bench::with(|config| config.window = 1);
    bench.lead();
    bench.say(2, execute(outbound("l", 5)));
    inbound(&mut bench, "in", "A", 5);
    bench.wait(Duration::from_secs(10));
    bench.ack_all();
    bench.end_turn();
    assert_eq!(replies(bench.ack_all()), [issued(2, "l", 2, r#"{"stock":0}"#, false)]);
}

/// ADR 0017: catches a refusal of a call with other copies that leaves the number free to be taken
/// by one of them, that is told before it is issued, or that is decided anew for the next copy.
#[test]
fn a_refusal_is_recorded_for_all_copies_of_the_call() {
    let mut bench = Bench::new();
    bench.lead();
    let copy = || Call { copy: 1, patience: Duration::ZERO, ..outbound("l", 5) };
    assert_eq!(bench.say(2, execute(copy())), []);
    let run = proposed(&bench.end_turn());
    let message = "A has 0, and 5 are wanted".to_owned();
    let verdict = Verdict::Refused { code: "insufficient_stock".into(), message };
    assert_eq!((&body(&run[0]).verdict, body(&run[0]).effects.len()), (&verdict, 0));
    assert_eq!(replies(bench.ack_all()), [stored(2, "l", refused(1, 0, 5), Stored::Now)]);
    inbound(&mut bench, "in", "A", 5);
    bench.end_turn();
    bench.ack_all();
    assert_eq!(bench.say(3, execute(copy())), [stored(3, "l", refused(1, 0, 5), Stored::Before)]);
    let other = Call { fingerprint: Fingerprint([9; 16]), ..copy() };
    assert!(matches!(bench.say(3, execute(other))[..], []), "gated");
    bench.end_turn();
    assert_eq!(replies(bench.ack_all()), [stored(3, "l", Outcome::RequestReused, Stored::Plain)]);
}

/// ADR 0017: catches a first copy that waits and whose refusal is not recorded, although a second
/// one has joined it, and a result without a change that is told as one.
#[test]
fn a_copy_that_joins_a_waiting_call_makes_its_refusal_recorded() {
    let mut bench = Bench::new();
    bench.lead();
    bench.say(2, execute(outbound("l", 5)));
    bench.say(3, execute(Call { copy: 1, ..outbound("l", 5) }));
    bench.wait(Duration::from_secs(10));
    bench.end_turn();
    let expected = [stored(2, "l", refused(1, 0, 5), Stored::Now), stored(3, "l", refused(1, 0, 5), Stored::Before)];
    assert_eq!(replies(bench.ack_all()), expected);
    let absent = call("d", "kv.delete", json!({"key": "absent"}));
    bench.say(2, execute(Call { copy: 1, ..absent }));
    bench.end_turn();
    let unchanged = Outcome::Unchanged { at: number(2), result: Bytes::from_static(br#"{"deleted":false}"#) };
    assert_eq!(replies(bench.ack_all()), [stored(2, "d", unchanged, Stored::Now)]);
}

/// A12, ADR 0022: a gateway that hears nothing for a while sends a patient call again. Catches a copy that is refused or
/// answered by itself, that begins the patience anew or ends it, and a double of the call that runs.
#[test]
fn a_copy_from_the_same_gateway_attaches_to_the_waiting_call() {
    let request = RequestId::Gateway(7);
    let copy = |copy, patience| Call { request: request.clone(), copy, ..patient(patience, outbound("l", 5)) };
    for helped in [false, true] {
        let mut bench = Bench::new();
        bench.lead();
        assert_eq!(bench.say(2, execute(copy(0, 10))), []);
        for again in 1..4 {
            bench.wait(Duration::from_secs(2));
            // Later copies have less patience left, or as much: it is the first one's that counts.
            assert_eq!(bench.say(2, execute(copy(again, [0, 10][again as usize % 2]))), []);
            assert_eq!(bench.leader.load().kept_calls, 1);
        }
        assert_eq!(proposed(&bench.end_turn()), []);
        let mut run = Vec::new();
        if helped {
            inbound(&mut bench, "in", "A", 5);
        } else {
            run = bench.wait(Duration::from_millis(3_999));
            assert_eq!(bench.leader.load().kept_calls, 1);
            run.extend(bench.wait(Duration::from_millis(1)));
        }
        assert_eq!(bench.leader.load().kept_calls, 0);
        run.extend(bench.end_turn());
        assert_eq!(requests(&run).iter().filter(|run| **run == request).count(), 1);
        assert_eq!(replies(bench.ack_all()).len(), 1 + usize::from(helped), "one answer, and that of what helped");
        let repeated = replies(bench.say(2, execute(copy(4, 0))));
        let [Effect::Send { message: Message::Gateway(ToGateway::Executed(told)), .. }] = &repeated[..] else {
            panic!("the answer was lost, and is given again: {repeated:?}")
        };
        let issued = matches!(told.outcome, Outcome::Issued { .. });
        assert_eq!((issued, told.stored), (helped, Stored::Before));
    }
}

/// Without patience there is no waiting, and a refusal that cannot pass is no reason for any.
#[test]
fn only_refusals_that_may_pass_are_waited_for() {
    let mut bench = Bench::new();
    bench.lead();
    bench.say(2, execute(Call { patience: Duration::ZERO, ..outbound("l", 5) }));
    let same = call("m", "inventory.transfer", json!({"from": "A", "to": "A", "amount": 1}));
    bench.say(2, execute(patient(10, same)));
    assert_eq!(bench.leader.load().kept_calls, 0);
    bench.end_turn();
    let answers = replies(bench.ack_all());
    assert_eq!(answers[0], executed(2, "l", refused(0, 0, 5)));
    assert_eq!(answers.len(), 2);
}

/// Section 13: catches more waiting calls than the bound.
#[test]
fn waiting_calls_are_bounded() {
    let mut bench = Bench::with(|config| config.kept_calls = 1);
    bench.lead();
    assert_eq!(bench.say(2, execute(outbound("l", 5))), []);
    assert_eq!(bench.say(2, execute(outbound("m", 5))), [executed(2, "m", Outcome::Overloaded)]);
    assert_eq!(bench.say(2, execute(outbound("l", 6))), [executed(2, "l", Outcome::RequestReused)]);
}

/// Catches work that grows with the product of those who wait: ten thousand waiting calls, and a
/// thousand writes that concern none of them, must not take long enough to be noticed.
#[test]
fn many_waiting_calls_cost_other_writes_nothing() {
    let mut bench = Bench::with(|config| {
        config.kept_calls = 10_000;
        config.window = 10_000;
        config.rounds_in_flight = 10_000;
    });
    bench.lead();
    for waiting in 0..10_000 {
        let warehouse = format!("W{waiting}");
        let arguments = json!({"warehouse": warehouse, "amount": 1});
        let call = patient(10, call(&warehouse, "inventory.outbound", arguments));
        assert_eq!(bench.say(2, execute(call)), []);
    }
    for value in 0..1_000 {
        bench.put("a", value);
    }
    inbound(&mut bench, "in", "W77", 1);
    assert_eq!(requests(&bench.end_turn()), [request("in"), request("W77")]);
    let ended = bench.wait(Duration::from_secs(10));
    assert_nothing_left(&bench);
    assert_eq!(replies(ended), []);
}
