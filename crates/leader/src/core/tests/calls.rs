//! Calls: executed once, answered at issue, found again when repeated, bounded.

use std::ops::Range;

use super::*;

fn put(key: &str, value: u64) -> Call {
    call(key, "kv.put", json!({"key": "a", "value": value}))
}

fn execute(call: &Call) -> ToLeader {
    ToLeader::ExecuteFunction(call.clone())
}

/// A1p, invariant 8: catches a function that runs on a state without the commands before it.
#[test]
fn each_function_sees_the_commands_before_it() {
    let mut bench = Bench::new();
    bench.lead();
    for name in ["a", "b", "c"] {
        bench.call(name, "kv.increment", json!({"key": "n"}));
    }
    let verdicts: Vec<Verdict> = proposed(&bench.end_turn()).iter().map(|command| body(command).verdict).collect();
    let expected = [r#"{"value":1}"#, r#"{"value":2}"#, r#"{"value":3}"#];
    assert_eq!(verdicts, expected.map(|result| Verdict::Changed(result.into())));
}

/// A1j, A1k, S-08: catches functions that change M(p) before their commands are issued, and a
/// next lead that begins with what the last one left.
#[test]
fn the_leader_state_is_dropped_with_the_lead() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    assert_eq!(bench.overlay_value("a"), Some(Bytes::from_static(b"1")));
    assert_eq!(bench.machine.image().as_ref(), MemoryState::new().image().as_ref());
    bench.step_down();
    bench.lead();
    assert_eq!(bench.overlay_value("a"), None);
}

/// S-23: the call is repeated while it is proposed. Catches a second execution, a repetition
/// without an answer, and one gateway answered twice.
#[test]
fn a_repetition_attaches_to_the_proposed_command() {
    let mut bench = Bench::new();
    bench.lead();
    for gateway in [2, 3, 2, 3] {
        assert_eq!(bench.say(gateway, execute(&put("k", 1))), []);
    }
    assert_eq!(proposed(&bench.end_turn()).len(), 1);
    let expected = [issued(2, "k", 1, "{}", false), issued(3, "k", 1, "{}", true)];
    assert_eq!(replies(bench.ack_all()), expected);
    // Issued, and not applied here yet.
    assert_eq!(bench.say(3, execute(&put("k", 1))), [issued(3, "k", 1, "{}", true)]);
}

/// A12, S-22: its gateway counts each copy of a call without a key as gone once it is answered. Catches the double of
/// one that was declined and is executed later, and the next copy that is taken for a double.
#[test]
fn the_double_of_a_declined_copy_is_never_executed() {
    let mut bench = Bench::new();
    let copy = |copy| execute(&Call { request: RequestId::Gateway(7), copy, ..put("unused", 1) });
    let doubled = [Effect::Ignored(IgnoreReason::Doubled)];
    assert_eq!(bench.say(2, copy(1)).len(), 1, "nobody leads here");
    assert_eq!(bench.say(2, copy(1)), doubled);
    bench.lead();
    assert_eq!(bench.say(2, copy(1)), doubled);
    assert_eq!(proposed(&bench.end_turn()), []);
    bench.say(2, copy(2));
    assert_eq!(proposed(&bench.end_turn()).len(), 1);
}

/// S-23: catches a repetition at a later leader that runs again: the outcome is in the history,
/// or applied long ago.
#[test]
fn a_repetition_finds_its_outcome_at_the_next_leader() {
    let mut commands = chain(foreign(1), CommandId::NULL, 2);
    let fingerprint = put("k", 1).fingerprint;
    for (command, key) in commands.iter_mut().zip(["applied", "history"]) {
        command.body = CommandBody { request: request(key), fingerprint, ..body(command) }.encode();
    }
    let mut bench = Bench::new();
    bench.machine.apply(&commands[..1]).expect("memory");
    bench.leader = Leader::new(config(), Ballot::NONE, commands[0].id);
    bench.campaign();
    bench.promise(1, commands[0].id, Vec::new());
    bench.promise(2, commands[0].id, vec![vote_for(foreign(1), &commands[1])]);
    assert_eq!(bench.say(2, execute(&put("applied", 1))), [issued(2, "applied", 1, "{}", true)]);
    assert_eq!(bench.say(2, execute(&put("history", 1))), []);
    assert_eq!(proposed(&bench.end_turn()), [], "nothing new");
    assert_eq!(replies(bench.ack_all()), [issued(2, "history", 2, "{}", true)]);
}

/// S-23: the same request id with other content. Catches the first answer being given to it, and
/// an unissued command that shows in the refusal, which is for good where the first one is stored.
#[test]
fn a_request_id_is_for_one_request() {
    let mut bench = Bench::with(|config| config.window = 1);
    bench.lead();
    bench.say(2, execute(&put("k", 1)));
    bench.say(2, execute(&put("kept", 1)));
    assert_eq!(bench.say(2, execute(&put("kept", 2))), [executed(2, "kept", Outcome::RequestReused)]);
    let commands = proposed(&bench.end_turn());
    assert_eq!(bench.say(2, execute(&put("k", 2))), [], "command 1 is not issued yet");
    bench.end_turn();
    let answers = replies(bench.ack_all());
    assert_eq!(answers, [issued(2, "k", 1, "{}", false), stored(2, "k", Outcome::RequestReused, Stored::Plain)]);
    bench.learn(&commands);
    assert_eq!(bench.say(2, execute(&put("k", 2))), [], "applied");
    bench.end_turn();
    assert_eq!(replies(bench.ack_all())[1..], [stored(2, "k", Outcome::RequestReused, Stored::Plain)]);
}

/// M(p) may be ahead of what this leader was told, with another leader's commands. Catches a
/// repetition that attaches to whatever is proposed at the number of its outcome.
#[test]
fn a_repetition_does_not_attach_to_another_call() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    let mut commands = chain(foreign(1), CommandId::NULL, 1);
    let fingerprint = put("k", 1).fingerprint;
    commands[0].body = CommandBody { request: request("k"), fingerprint, ..body(&commands[0]) }.encode();
    bench.machine.apply(&commands).expect("memory");
    assert_eq!(bench.say(3, execute(&put("k", 1))), [issued(3, "k", 1, "{}", true)]);
    let ended = replies(bench.feed(Input::Learned(commands[0].id)));
    assert_eq!(ended, [executed(2, "put-a-1", Outcome::LeadershipLost)]);
}

/// A11, section 13: catches calls that overtake those who wait for room, are lost there, or are
/// kept beyond the bound; and repetitions that do not attach.
#[test]
fn calls_wait_for_room_in_order_and_within_a_bound() {
    let mut bench = Bench::with(|config| {
        config.window = 1;
        config.kept_calls = 2;
    });
    bench.lead();
    for (key, value) in [("k1", 1), ("k2", 2), ("k3", 3)] {
        assert_eq!(bench.say(2, execute(&put(key, value))), []);
    }
    assert_eq!(bench.say(2, execute(&put("k4", 4))), [executed(2, "k4", Outcome::Overloaded)]);
    assert_eq!(bench.say(3, execute(&put("k3", 3))), [], "a repetition needs no room of its own");
    assert_eq!(bench.leader.load().kept_calls, 2);
    let mut order = Vec::new();
    for _ in 0..3 {
        let run = proposed(&bench.end_turn());
        assert_eq!(run.len(), 1);
        order.push(body(&run[0]).request);
        bench.ack_all();
        bench.learn(&run);
    }
    assert_eq!(order, [request("k1"), request("k2"), request("k3")]);
    let last = bench.say(3, execute(&put("k3", 3)));
    assert_eq!(last, [issued(3, "k3", 3, "{}", true)]);
    assert_eq!(bench.leader.load().kept_calls, 0);
}

/// Executes the call that waits longest, 50 ms later.
fn issue_one(bench: &mut Bench) {
    bench.now.tick = bench.now.tick + Duration::from_millis(50);
    let run = proposed(&bench.end_turn());
    assert_eq!(run.len(), 1);
    bench.ack_all();
    bench.learn(&run);
}

fn say_all(bench: &mut Bench, numbers: Range<u64>) {
    for number in numbers {
        assert_eq!(bench.say(2, execute(&put(&format!("k{number}"), number))), []);
    }
}

/// Section 13: catches a queue that stands and makes every call late, for as long as calls come faster than they are
/// executed; and one that never takes calls again.
#[test]
fn calls_are_refused_where_the_queue_stands() {
    let mut bench = Bench::with(|config| (config.window, config.kept_calls) = (1, 100));
    bench.lead();
    say_all(&mut bench, 0..20);
    for number in 20..44 {
        issue_one(&mut bench);
        say_all(&mut bench, number..number + 1);
    }
    issue_one(&mut bench);
    let late = |bench: &mut Bench| bench.say(2, execute(&put("late", 1)));
    assert_eq!(late(&mut bench), [executed(2, "late", Outcome::Overloaded)]);
    assert_eq!(bench.say(2, execute(&patient(1, put("patient", 1)))), []);
    assert_eq!(bench.say(2, execute(&call("operator", "cluster.none", json!({})))), []);
    (0..15).for_each(|_| issue_one(&mut bench));
    assert_eq!(late(&mut bench), [executed(2, "late", Outcome::Overloaded)]);
    (0..5).for_each(|_| issue_one(&mut bench));
    assert_eq!(bench.leader.load().kept_calls, 0);
    say_all(&mut bench, 98..100);
    issue_one(&mut bench);
    say_all(&mut bench, 100..101);
}

/// Catches calls that are refused for a burst, or because nothing was voted for for a while: they are to wait.
#[test]
fn a_queue_that_comes_and_goes_is_no_overload() {
    let mut bench = Bench::with(|config| (config.window, config.kept_calls) = (1, 100));
    bench.lead();
    for round in 0..4 {
        say_all(&mut bench, round * 100..round * 100 + 9);
        bench.now.tick = bench.now.tick + Duration::from_secs(5);
        say_all(&mut bench, round * 100 + 9..round * 100 + 19);
        (0..19).for_each(|_| issue_one(&mut bench));
    }
}

/// Section 13: catches a leader whose memory grows with what slow acceptors have not answered.
#[test]
fn bytes_bound_the_pipeline_too() {
    let mut bench = Bench::with(|config| config.pipeline_bytes = 2_000);
    bench.lead();
    for name in ["a", "b", "c", "d"] {
        bench.call(name, "kv.put", json!({"key": name, "value": "x".repeat(900)}));
    }
    assert_eq!(proposed(&bench.end_turn()).len(), 2);
    assert_eq!(bench.leader.load().kept_calls, 2);
    bench.ack_all();
    let issued = announced(&bench.end_turn());
    assert_eq!(bench.leader.load().kept_calls, 2, "issued, and not applied yet");
    bench.learn(&issued);
    assert_eq!(proposed(&bench.end_turn()).len(), 2);
}

/// Section 13: catches bytes that stay counted when their commands are issued or applied, or others'
/// that go with them.
#[test]
fn bytes_are_free_again_when_their_commands_are_gone() {
    let mut bench = Bench::new();
    bench.lead();
    bench.say(2, execute(&put("k0", 1)));
    let weight = storage::weight(&proposed(&bench.end_turn())[0]);
    let mut bench = Bench::with(|config| config.pipeline_bytes = 2 * weight);
    bench.lead();
    for name in ["k1", "k2", "k3", "k4", "k5", "k6"] {
        bench.say(2, execute(&put(name, 1)));
    }
    let issue = |bench: &mut Bench, command: &Command| {
        for acceptor in [1, 2] {
            bench.vote(acceptor, Some(command.id), bench.sent.1);
        }
        proposed(&bench.end_turn())
    };
    let two = proposed(&bench.end_turn());
    let third = issue(&mut bench, &two[0]);
    assert_eq!((two.len(), third.len()), (2, 1), "one is issued: there is room for one");
    assert_eq!(issue(&mut bench, &two[1]), [], "two are not applied");
    bench.learn(&two[..1]);
    assert_eq!(proposed(&bench.end_turn()).len(), 1, "one is applied");
    assert_eq!(issue(&mut bench, &third[0]), [], "again two are not applied");
}

/// Section 13: M(p) is slow. Catches a leader state that grows without bound, and calls that
/// are not taken up when M(p) has caught up.
#[test]
fn a_slow_learner_holds_calls_back() {
    let mut bench = Bench::with(|config| config.window = 2);
    bench.lead();
    let mut commands = Vec::new();
    for value in 1..=9 {
        commands.extend(proposed(&bench.put("a", value)));
        bench.ack_all();
        commands.extend(proposed(&bench.end_turn()));
    }
    let bound = 2 * usize::try_from(super::super::calls::UNAPPLIED_WINDOWS_MAX).expect("few");
    assert_eq!(commands.len(), bound);
    assert_eq!(bench.leader.load().kept_calls, 9 - bound);
    bench.learn(&commands[..1]);
    assert_eq!(proposed(&bench.end_turn()).len(), 1);
}

/// Section 13 and S-09: what is answered without a command.
#[test]
fn calls_that_cannot_run_are_answered_at_once() {
    let mut bench = Bench::new();
    bench.lead();
    let unknown = bench.call("k", "no.such", json!({}));
    assert_eq!(unknown, [executed(2, "k", Outcome::UnknownFunction)]);
    let answer = bench.call("k", "kv.put", json!({"key": 1}));
    let [Effect::Send { message: Message::Gateway(ToGateway::Executed(told)), .. }] = &answer[..] else {
        panic!("{answer:?}")
    };
    assert!(matches!(&told.outcome, Outcome::InvalidArguments { message } if message.contains("key")), "{told:?}");
    let long = Call { arguments: "x".repeat(3 << 20).into(), ..put("k", 1) };
    let answer = bench.say(2, execute(&long));
    let [Effect::Send { message: Message::Gateway(ToGateway::Executed(told)), .. }] = &answer[..] else {
        panic!("{answer:?}")
    };
    assert!(matches!(told.outcome, Outcome::TooLarge { .. }), "{told:?}");
    assert_eq!(bench.end_turn(), []);
}

/// S-09: a function that panics or exceeds a limit half-way. Catches its writes staying, a
/// leader that dies of it, and a text that shows state before it is issued.
#[test]
fn a_failed_function_changes_nothing() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    assert_eq!(bench.call("k", "test.panic", json!({})), [], "its text names the value of a");
    assert_eq!(bench.call("l", "test.too_large", json!({})), []);
    assert_eq!(bench.overlay_value("b"), None);
    bench.end_turn();
    let told = replies(bench.ack_all());
    let failed = Outcome::Failed { message: "a is 1".into() };
    let too_large = Outcome::TooLarge { message: "1 is too large".into() };
    assert_eq!(told[1..], [executed(2, "k", failed), executed(2, "l", too_large)]);
    assert_eq!(proposed(&bench.put("c", 1))[0].number(), number(2), "no number is used up");
}
