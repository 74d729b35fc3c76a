//! Steps 3' and 3": what is sent to acceptors, when, and when again.

use super::*;

/// The numbers of the commands of each run, with the run's round.
fn runs(effects: &[Effect]) -> Vec<(Vec<u64>, u64)> {
    let to_third = begun(effects).into_iter().filter(|(to, _)| *to == 3);
    to_third
        .map(|(_, begin)| (begin.commands.iter().map(|command| command.number().0).collect(), begin.round))
        .collect()
}

/// Who gets which numbers, in which round.
fn repeated(effects: &[Effect]) -> Vec<(u64, Vec<u64>, u64)> {
    let numbers = |begin: &BeginBallot| begin.commands.iter().map(|command| command.number().0).collect();
    begun(effects).into_iter().map(|(to, begin)| (to, numbers(&begin), begin.round)).collect()
}

/// A1b, A1l, A1q, S-23: the whole of a proposal. Catches any field that is not what the call and
/// its execution say, and an acceptor that is left out.
#[test]
fn a_call_becomes_a_command() {
    let mut bench = Bench::new();
    bench.now.wall = Timestamp(10_000_000);
    bench.lead();
    let call = call("k", "inventory.inbound", json!({"warehouse": "A", "amount": 5}));
    let expected = CommandBody {
        time: Timestamp(10_000_000),
        request: request("k"),
        fingerprint: call.fingerprint,
        function: "inventory.inbound".into(),
        verdict: Verdict::Changed(Bytes::from_static(br#"{"stock":5}"#)),
        effects: vec![StateEffect::Put { key: key("inventory/goods/A"), value: Bytes::from_static(b"5") }],
        forget: Forget { callers: Timestamp(10_000_000 - 3_600_000), gateways: Timestamp(10_000_000 - 60_000) },
    };
    assert_eq!(bench.say(2, ToLeader::ExecuteFunction(call)), [], "gathered until the end of the turn");
    let command = Command { id: id(ballot(1), 1), precedent: CommandId::NULL, body: expected.encode() };
    let begin = BeginBallot { ballot: ballot(1), commands: vec![command], round: 1, membership: CommandNumber::NULL };
    assert_eq!(bench.end_turn(), to_acceptors(&ToAcceptor::BeginBallot(begin)));
    assert_eq!(bench.end_turn(), [], "once");
}

/// Catches commands of one turn that are sent one by one, and a run that waits for the votes on
/// the one before.
#[test]
fn runs_are_gathered_in_a_turn_and_pipelined() {
    let mut bench = Bench::new();
    bench.lead();
    bench.call("a", "kv.put", json!({"key": "a", "value": 1}));
    bench.call("b", "kv.put", json!({"key": "a", "value": 2}));
    assert_eq!(runs(&bench.end_turn()), [(vec![1, 2], 1)]);
    assert_eq!(runs(&bench.put("a", 3)), [(vec![3], 2)]);
}

/// A5: catches a ballot begun beyond the window, and a window that does not move.
#[test]
fn the_window_bounds_what_is_begun() {
    for window in [1, 3] {
        let mut bench = Bench::with(|config| config.window = window);
        bench.lead();
        for value in 0..5 {
            bench.call(&format!("k{value}"), "kv.put", json!({"key": "a", "value": value}));
        }
        let mut begun: Vec<u64> = runs(&bench.end_turn()).into_iter().flat_map(|(run, _)| run).collect();
        assert_eq!(begun, (1..=window).collect::<Vec<u64>>());
        for _ in 0..5 {
            bench.ack_all();
            let effects = bench.end_turn();
            begun.extend(runs(&effects).into_iter().flat_map(|(run, _)| run));
            bench.learn(&announced(&effects));
            begun.extend(runs(&bench.end_turn()).into_iter().flat_map(|(run, _)| run));
            assert!(bench.leader.load().unissued as u64 <= window);
        }
        assert_eq!(begun, [1, 2, 3, 4, 5], "window {window}");
    }
}

/// A5: a history longer than the window (of a leader with a larger one) is sent in pieces.
#[test]
fn a_long_history_respects_the_window() {
    let commands = chain(foreign(1), CommandId::NULL, 5);
    let mut bench = Bench::with(|config| config.window = 2);
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, Vec::new());
    let votes = commands.iter().map(|command| vote_for(foreign(1), command)).collect();
    assert_eq!(runs(&bench.promise(2, CommandId::NULL, votes)), [(vec![1, 2], 1)]);
    bench.ack(1);
    bench.ack(3);
    assert_eq!(runs(&bench.end_turn()), [(vec![3, 4], 2)]);
}

/// Another node issued part of the history meanwhile, more than was sent here. Catches a leader
/// that waits for ever to send what is issued already.
#[test]
fn what_was_issued_elsewhere_is_not_sent() {
    let commands = chain(foreign(1), CommandId::NULL, 5);
    let mut bench = Bench::with(|config| config.window = 2);
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, Vec::new());
    let votes = commands.iter().map(|command| vote_for(foreign(1), command)).collect();
    bench.promise(2, CommandId::NULL, votes);
    bench.learn(&commands[..4]);
    assert_eq!(runs(&bench.end_turn()), [(vec![5], 2)]);
}

/// Catches messages that grow beyond a frame, a command above the bound that is never sent, and
/// an order that changes.
#[test]
fn long_runs_are_cut() {
    let mut bench = Bench::with(|config| config.run_bytes = 1_000);
    bench.lead();
    for (key, length) in [("a", 400), ("b", 400), ("c", 5_000), ("d", 10), ("e", 10)] {
        bench.call(key, "kv.put", json!({"key": key, "value": "x".repeat(length)}));
    }
    let effects = bench.end_turn();
    assert_eq!(runs(&effects), [(vec![1], 1), (vec![2], 2), (vec![3], 3), (vec![4, 5], 4)]);
    for (_, begin) in begun(&effects) {
        let bytes: usize = begin.commands.iter().map(storage::weight).sum();
        assert!(begin.commands.len() == 1 || bytes <= 1_000, "{bytes} bytes in one message");
    }
}

/// Catches a run that is cut although it fits.
#[test]
fn a_run_may_be_as_long_as_its_bound() {
    let put = |bench: &mut Bench, name: &str| _ = bench.call(name, "kv.put", json!({"key": "a", "value": 1}));
    let mut bench = Bench::new();
    bench.lead();
    put(&mut bench, "k0");
    let weight = storage::weight(&proposed(&bench.end_turn())[0]);
    let mut bench = Bench::with(|config| config.run_bytes = 2 * weight);
    bench.lead();
    for name in ["k1", "k2", "k3"] {
        put(&mut bench, name);
    }
    assert_eq!(runs(&bench.end_turn()), [(vec![1, 2], 1), (vec![3], 2)]);
}

/// Catches a leader that sends each command alone under load: with the rounds used up, commands
/// are gathered until one is confirmed.
#[test]
fn commands_are_gathered_while_rounds_are_under_way() {
    let mut bench = Bench::with(|config| config.rounds_in_flight = 2);
    bench.lead();
    let sent = [bench.put("a", 1), bench.put("a", 2), bench.put("a", 3), bench.put("a", 4)].map(|sent| runs(&sent));
    assert_eq!(sent, [vec![(vec![1], 1)], vec![(vec![2], 2)], vec![], vec![]]);
    bench.vote(1, Some(id(ballot(1), 1)), 1);
    assert_eq!(bench.end_turn(), [], "one acceptor confirms no round");
    bench.vote(2, Some(id(ballot(1), 1)), 1);
    assert_eq!(runs(&bench.end_turn()), [(vec![3, 4], 3)]);
}

/// S-26, A12: catches a lost message that is never sent again, one that is repeated without a
/// pause or to those who answered, the newest being sent before the oldest, and anything beyond
/// what was sent before.
#[test]
fn what_is_not_answered_is_sent_again_oldest_first() {
    let mut bench = Bench::with(|config| {
        config.run_bytes = 300;
        config.rounds_in_flight = 2;
    });
    bench.lead();
    for name in ["a", "b", "c", "d", "e", "f"] {
        bench.call(name, "kv.put", json!({"key": "a", "value": name}));
    }
    let begun = runs(&bench.end_turn());
    assert_eq!(begun, [(vec![1, 2], 1), (vec![3, 4], 2)], "5 and 6 are not sent yet");
    bench.vote(2, Some(id(ballot(1), 4)), 1);
    assert_eq!(bench.wait(Duration::from_millis(99)), []);
    let again = bench.wait(Duration::from_millis(1));
    assert_eq!(repeated(&again), [(1, vec![1, 2], 2), (2, vec![], 2), (3, vec![1, 2], 2)]);
    bench.vote(3, Some(id(ballot(1), 2)), 2);
    assert_eq!(runs(&bench.end_turn()), [(vec![5, 6], 3)], "a round is confirmed");
    assert_eq!(repeated(&bench.wait(Duration::from_millis(99))), []);
    assert_eq!(repeated(&bench.wait(Duration::from_millis(1))), [(3, vec![3, 4], 3)]);
}

/// A13, S-26: an acceptor was down when promises were asked for, and is back. Catches a leader
/// that sends it only ballots, which it must ignore without a promise.
#[test]
fn an_acceptor_that_has_not_promised_is_asked_again() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    bench.put("a", 2);
    bench.vote(1, Some(id(ballot(1), 1)), 1);
    bench.vote(2, Some(id(ballot(1), 1)), 1);
    let back = bench.feed(Input::Connected(NodeId(3)));
    assert_eq!(back[0], asked_from(2));
    assert_eq!(repeated(&back), [(3, vec![2], 2)]);
    bench.ack_all();
    bench.end_turn();
    assert!(bench.wait(Duration::from_secs(2)).contains(&asked_from(3)), "even when nothing is to be voted for");
    let info = BallotInfo {
        ballot: ballot(1),
        first: number(3),
        issued: CommandId::NULL,
        votes: Vec::new(),
        part: 0,
        parts: 1,
    };
    assert_eq!(bench.say(3, ToLeader::BallotInfo(info)), []);
    assert!(!bench.wait(Duration::from_secs(2)).contains(&asked_from(3)));
}

/// Catches acceptors that are asked again for the promises by which this node leads.
#[test]
fn acceptors_that_promised_are_not_asked_again() {
    let mut bench = Bench::new();
    bench.lead();
    let begin = |to, commands, round| {
        send(
            to,
            Message::Acceptor(ToAcceptor::BeginBallot(BeginBallot {
                ballot: ballot(1),
                commands,
                round,
                membership: CommandNumber::NULL,
            })),
        )
    };
    assert_eq!(bench.wait(Duration::from_millis(100)), [asked_from(1), begin(3, Vec::new(), 0)]);
    let run = proposed(&bench.put("a", 1));
    let expected = [1, 2].map(|to| begin(to, run.clone(), 1));
    assert_eq!(bench.wait(Duration::from_millis(100)), expected, "a run is enough");
}

fn asked_from(first: u64) -> Effect {
    send(3, Message::Acceptor(ToAcceptor::NextBallot(NextBallot { ballot: ballot(1), first: number(first) })))
}

/// A12: the pauses. Catches a silent acceptor that is flooded, and one that is back and still
/// waits out a long pause.
#[test]
fn pauses_double_while_an_acceptor_is_silent() {
    let mut bench = Bench::new();
    bench.campaign();
    let good = bench.promise_of(CommandId::NULL, Vec::new());
    (1..=3).for_each(|acceptor| _ = bench.say(acceptor, ToLeader::BallotInfo(good.clone())));
    bench.put("a", 1);
    bench.put("a", 2);
    bench.ack_all();
    for _ in 1..=800 {
        assert_eq!(begun(&bench.wait(Duration::from_millis(10))), [], "all is issued, and the round is confirmed");
    }
    let mut at = Vec::new();
    bench.put("a", 3);
    for tick in 1..=800 {
        let sent = repeated(&bench.wait(Duration::from_millis(10)));
        if !sent.is_empty() {
            let expected: Vec<_> = (1..=3).map(|to| (to, vec![3], 3)).collect();
            assert_eq!(sent, expected);
            at.push(tick);
        }
    }
    assert_eq!(at, [10, 30, 70, 150, 310, 510, 710], "doubling, to 2 s at most");
    assert_eq!(repeated(&bench.feed(Input::Connected(NodeId(3)))), [(3, vec![3], 3)], "at once");
    bench.vote(2, Some(id(ballot(1), 2)), 3);
    assert_eq!(repeated(&bench.wait(Duration::from_millis(99))), []);
    assert_eq!(repeated(&bench.wait(Duration::from_millis(1))), [(2, vec![3], 3)], "it has just been heard");
}

/// S-26: an acceptor lost one run and answers all later ones, without voting. Catches answers
/// that put off the repetition for ever.
#[test]
fn an_acceptor_that_answers_without_voting_gets_the_oldest_run_again() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    let mut again = Vec::new();
    for value in 2..40 {
        bench.put("a", value);
        bench.ack(1);
        let round = bench.sent.1;
        bench.vote(3, None, round);
        again.extend(repeated(&bench.wait(Duration::from_millis(10))).into_iter().filter(|(to, ..)| *to == 3));
    }
    assert!(again.len() >= 3, "{again:?}");
    assert!(again.iter().all(|(_, run, _)| run.first() == Some(&1)), "{again:?}");
}

/// S-26: an acceptor lost one run, and tells again and again what it voted for before. Catches votes
/// that are no news and yet put off the repetition.
#[test]
fn old_votes_told_again_put_off_nothing() {
    let mut bench = Bench::new();
    bench.lead();
    let first = proposed(&bench.put("a", 1))[0].id;
    bench.vote(3, Some(first), 1);
    bench.put("a", 2);
    let mut again = Vec::new();
    for _ in 0..20 {
        bench.vote(3, Some(first), 2);
        again.extend(repeated(&bench.wait(Duration::from_millis(10))).into_iter().filter(|(to, ..)| *to == 3));
    }
    assert_eq!(again, [(3, vec![2], 2), (3, vec![2], 2)]);
}

/// Catches time in commands that goes backwards: within a lead, from one leader to the next, and
/// after an idle time with the clock set back.
#[test]
fn time_never_goes_backwards() {
    let mut commands = chain(foreign(1), CommandId::NULL, 1);
    commands[0].body = CommandBody { time: Timestamp(9_000), ..body(&commands[0]) }.encode();
    let mut bench = Bench::new();
    let time = |effects: &[Effect]| body(&proposed(effects)[0]).time.0;
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, Vec::new());
    let run = proposed(&bench.promise(2, CommandId::NULL, vec![vote_for(foreign(1), &commands[0])]));
    assert_eq!(run, commands);
    bench.now.wall = Timestamp(8_000);
    assert_eq!(time(&bench.put("a", 1)), 9_000, "not below the history's");
    bench.now.wall = Timestamp(9_500);
    let second = bench.put("a", 2);
    assert_eq!(time(&second), 9_500);
    bench.now.wall = Timestamp(100);
    let third = bench.put("a", 3);
    assert_eq!(time(&third), 9_500, "not below the one before");
    // The next lead knows the time from M(p) alone.
    bench.ack_all();
    let issued = announced(&bench.end_turn());
    assert_eq!(issued.len(), 4);
    bench.learn(&issued);
    bench.step_down();
    bench.lead();
    assert_eq!(time(&bench.put("a", 4)), 9_500, "not below what is applied");
}
