//! Steps 1 to 3: asking for promises, collecting them, leading.

use storage::LogStore;
use storage::memory::MemoryLog;

use super::*;

fn leads(ballot: Ballot) -> Effect {
    Effect::Leads(Some(ballot))
}

fn down(ballot: Ballot, reason: &'static str, superseded_by: Option<Ballot>) -> Effect {
    Effect::Note(Note::StepsDown { ballot, reason, superseded_by, unissued: 0 })
}

fn question(ballot: Ballot, first: u64) -> ToAcceptor {
    ToAcceptor::NextBallot(NextBallot { ballot, first: number(first) })
}

/// A1d, A7, S-11: catches a question that leaves before `last_tried` is durable, or that does
/// not go to every acceptor.
#[test]
fn a_campaign_is_durable_before_it_is_announced() {
    let mut bench = Bench::new();
    let mut expected = vec![Effect::Persist(LogRecord::LastTried(ballot(1)))];
    expected.extend(to_acceptors(&question(ballot(1), 1)));
    expected.push(Effect::Note(Note::Campaigns(ballot(1))));
    assert_eq!(bench.campaign(), expected);
    let records: Vec<&LogRecord> = expected.iter().filter_map(Effect::record).collect();
    assert_eq!(records, [&LogRecord::LastTried(ballot(1))], "what the actor writes");
}

/// A7, B1 of the patent: catches a ballot begun twice, over a restart between every two
/// campaigns, and one that is not above what was heard of.
#[test]
fn ballots_survive_restarts() {
    let log = MemoryLog::new();
    let mut last = Ballot::NONE;
    for (above, expected) in [
        (Ballot::NONE, ballot(1)),
        (Ballot::NONE, ballot(2)),
        (foreign(7), ballot(8)),
        (Ballot::new(9, NodeId(0)), ballot(9)),
        (foreign(3), ballot(10)),
    ] {
        let mut bench = Bench::new();
        bench.leader = Leader::new(config(), log.load(number(0)).expect("memory").last_tried, CommandId::NULL);
        let effects = bench.feed(Input::Campaign { above });
        let Some(Effect::Persist(record)) = effects.first() else { panic!("{effects:?}") };
        assert_eq!(*record, LogRecord::LastTried(expected));
        assert!(expected > last);
        last = expected;
        log.write(std::slice::from_ref(record)).expect("memory");
        log.crash();
    }
}

/// S-27: catches a round that wraps to 0 after the last one.
#[test]
fn there_is_no_ballot_after_the_last_round() {
    let mut bench = Bench::new();
    let last = Ballot::new(u64::MAX, NodeId(3));
    assert_eq!(bench.feed(Input::Campaign { above: last }), [Effect::Ignored(IgnoreReason::NothingToDo)]);
    let effects = bench.feed(Input::Campaign { above: Ballot::new(u64::MAX - 1, NodeId(3)) });
    assert_eq!(effects[0], Effect::Persist(LogRecord::LastTried(ballot(u64::MAX))));
}

/// A1f, S-20: catches leading without a majority set: one acceptor twice, a stranger, an answer
/// to another question.
#[test]
fn only_a_majority_set_makes_a_leader() {
    let mut bench = Bench::new();
    bench.campaign();
    let good = bench.promise_of(CommandId::NULL, Vec::new());
    assert_eq!(bench.say(2, ToLeader::BallotInfo(good.clone())), []);
    assert_eq!(bench.say(2, ToLeader::BallotInfo(good.clone())), []);
    for (from, info, reason) in [
        (4, good.clone(), IgnoreReason::NotAnAcceptor),
        (3, BallotInfo { ballot: ballot(2), ..good.clone() }, IgnoreReason::OtherBallot),
        (3, BallotInfo { ballot: foreign(1), ..good.clone() }, IgnoreReason::OtherBallot),
        (3, BallotInfo { first: number(2), ..good.clone() }, IgnoreReason::OtherBallot),
    ] {
        assert_eq!(bench.say(from, ToLeader::BallotInfo(info)), [Effect::Ignored(reason)]);
    }
    assert_eq!(bench.leader.leads(), None);
    let expected = [
        leads(ballot(1)),
        Effect::Note(Note::Leads { ballot: ballot(1), history: 0, issued: number(0) }),
        success(2, ballot(1), CommandId::NULL, &[]),
        success(3, ballot(1), CommandId::NULL, &[]),
    ];
    assert_eq!(bench.say(3, ToLeader::BallotInfo(good.clone())), expected);
    assert_eq!(bench.say(1, ToLeader::BallotInfo(good.clone())), [], "the third promise comes late");
    let earlier = BallotInfo { ballot: foreign(0), ..good };
    assert_eq!(bench.say(1, ToLeader::BallotInfo(earlier)), [Effect::Ignored(IgnoreReason::OtherBallot)]);
}

/// A peer's strange promise is an outcome. Catches one that is believed, or that breaks an
/// assertion of this node when its votes become the history.
#[test]
fn impossible_promises_are_ignored() {
    let commands = chain(foreign(1), CommandId::NULL, 2);
    let mut bench = Bench::new();
    bench.feed(Input::Campaign { above: foreign(1) });
    let good = bench.promise_of(CommandId::NULL, vec![vote_for(foreign(1), &commands[0])]);
    let ill_formed = Command { precedent: CommandId::NULL, ..commands[1].clone() };
    for info in [
        BallotInfo { part: 1, ..good.clone() },
        BallotInfo { parts: 0, ..good.clone() },
        BallotInfo { votes: vec![vote_for(ballot(2), &commands[0])], ..good.clone() },
        BallotInfo { votes: vec![vote_for(ballot(1), &commands[0])], ..good.clone() },
        BallotInfo { votes: vec![vote_for(foreign(1), &ill_formed)], ..good.clone() },
    ] {
        for acceptor in 1..=3 {
            let effects = bench.say(acceptor, ToLeader::BallotInfo(info.clone()));
            assert_eq!(effects, [Effect::Ignored(IgnoreReason::Malformed)], "{info:?}");
        }
    }
    bench.say(1, ToLeader::BallotInfo(good.clone()));
    bench.say(2, ToLeader::BallotInfo(good));
    assert_eq!(bench.leader.leads(), Some(ballot(2)), "plausible ones still count");
}

/// A1d: catches a promise that counts before all its parts are there, and parts of different
/// answers that are put together.
#[test]
fn a_promise_in_parts_counts_when_all_parts_are_there() {
    let commands = chain(foreign(1), CommandId::NULL, 3);
    let votes: Vec<Vote> = commands.iter().map(|command| vote_for(foreign(1), command)).collect();
    let mut bench = Bench::new();
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, Vec::new());
    let whole = bench.promise_of(CommandId::NULL, Vec::new());
    let part = |part: u32, parts: u32, issued: CommandId| BallotInfo {
        issued,
        votes: vec![votes[part as usize].clone()],
        part,
        parts,
        ..whole.clone()
    };
    let mut say = |info: BallotInfo| bench.say(2, ToLeader::BallotInfo(info));
    assert_eq!(say(part(2, 3, CommandId::NULL)), []);
    assert_eq!(say(part(2, 3, CommandId::NULL)), []);
    assert_eq!(say(part(0, 3, CommandId::NULL)), []);
    assert_eq!(say(part(1, 3, commands[0].id)), [], "another answer: what came before is not mixed with it");
    assert_eq!(say(part(1, 3, CommandId::NULL)), []);
    assert_eq!(say(part(2, 3, CommandId::NULL)), []);
    let effects = say(part(0, 3, CommandId::NULL));
    assert_eq!(proposed(&effects), commands, "the whole promise is the history");
    assert_eq!(bench.leader.leads(), Some(ballot(2)));
}

/// S-06, S-07: catches a leader whose state lacks issued commands, and, with an empty history,
/// a number that is used again.
#[test]
fn leads_only_after_all_known_to_be_issued_is_applied() {
    let commands = chain(foreign(1), CommandId::NULL, 5);
    let mut bench = Bench::new();
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, Vec::new());
    let learn = Effect::LearnFromPeer { peer: NodeId(2), issued: number(5) };
    assert_eq!(bench.promise(2, commands[4].id, Vec::new()), std::slice::from_ref(&learn));
    assert_eq!(bench.learn(&commands[..3]), std::slice::from_ref(&learn));
    assert_eq!(bench.feed(Input::Tick), [learn]);
    let effects = bench.learn(&commands[3..]);
    assert_eq!(effects[0], leads(ballot(2)));
    let call = bench.call("k", "kv.increment", json!({"key": "n"}));
    assert_eq!(call, []);
    let sixth = proposed(&bench.end_turn());
    assert_eq!((sixth[0].id, sixth[0].precedent), (id(ballot(2), 6), commands[4].id));
    assert_eq!(body(&sixth[0]).verdict, Verdict::Changed(r#"{"value":6}"#.into()), "the function saw all five");
}

/// A1f, A1g, A1t, S-07: catches new commands that do not wait for the initial history, a history
/// that gets new identities, and functions that do not see it.
#[test]
fn the_history_is_proposed_again_before_new_calls() {
    let commands = chain(foreign(1), CommandId::NULL, 3);
    let mut bench = Bench::new();
    bench.machine.apply(&commands[..1]).expect("memory");
    bench.leader = Leader::new(config(), Ballot::NONE, commands[0].id);
    bench.campaign();
    assert_eq!(bench.call("k", "kv.increment", json!({"key": "n"})), [], "kept until the ballot is led");
    bench.promise(3, CommandId::NULL, commands[..2].iter().map(|command| vote_for(foreign(1), command)).collect());
    let known: Vec<Vote> = commands.iter().map(|command| vote_for(foreign(1), command)).collect();
    let effects = bench.promise(2, CommandId::NULL, known);
    assert!(effects.contains(&Effect::Note(Note::Leads { ballot: ballot(2), history: 2, issued: number(1) })));
    let run = proposed(&effects);
    assert_eq!(run[..2], commands[1..], "unchanged, ids and all, and without what is issued");
    assert_eq!((run[2].id, run[2].precedent), (id(ballot(2), 4), commands[2].id));
    assert_eq!(body(&run[2]).verdict, Verdict::Changed(r#"{"value":4}"#.into()));
    // Issued in this ballot, with the reply to the call that came while preparing.
    let replies = replies(bench.ack_all());
    assert_eq!(replies, [issued(2, "k", 4, r#"{"value":4}"#, false)]);
    let announced = bench.end_turn();
    assert!(announced.contains(&success(1, ballot(2), run[2].id, &run)), "{announced:?}");
}

/// A1r, S-02: FIG. 6 at ballot 43, in which b' is issued at m = 2: of the promises, the leader
/// must propose c' (of ballot 29, after b') and not c (of ballot 32, after b). Catches a leader
/// that takes the highest ballot before it drops what depends on another command than the one
/// issued, and one whose choice depends on who promised first, or on the payloads, which are equal.
#[test]
fn figure_6_at_ballot_43() {
    let command = |round, precedent| chain(foreign(round), precedent, 1).remove(0);
    let a = command(1, CommandId::NULL);
    let (b, b2) = (command(2, a.id), command(5, a.id));
    let (c, c2) = (command(27, b.id), command(29, b2.id));
    assert_eq!(c.body, c2.body, "only identities tell them apart");
    // What B, C, D and E have voted from n = 3 on; A does not take part in this ballot.
    let votes = |device| match device {
        'D' => vec![vote_for(foreign(32), &c)],
        'E' => vec![vote_for(foreign(29), &c2)],
        _ => Vec::new(),
    };
    let propose_c2 =
        BeginBallot { ballot: ballot(43), commands: vec![c2.clone()], round: 1, membership: CommandNumber::NULL };
    let to_all = |begin: &BeginBallot| (1..=5).map(|node| (node, begin.clone())).collect::<Vec<_>>();
    for (devices, expected) in [
        ("BDE", to_all(&propose_c2)),
        ("DEC", to_all(&propose_c2)),
        ("EBD", to_all(&propose_c2)),
        ("BCE", to_all(&propose_c2)),
        // Nobody told of c': nothing follows b', and c is not proposed for want of better.
        ("BCD", Vec::new()),
    ] {
        let mut bench = Bench::with(|config| config.membership = Membership::of_equals(5));
        bench.learn(&[a.clone(), b2.clone()]);
        bench.feed(Input::Campaign { above: foreign(42) });
        let mut effects = Vec::new();
        for device in devices.chars() {
            assert_eq!(effects, [], "{devices}: no majority set before {device}");
            let acceptor = 1 + u64::from(device) - u64::from('A');
            effects = bench.promise(acceptor, b2.id, votes(device));
        }
        assert_eq!(bench.leader.leads(), Some(ballot(43)), "{devices}");
        assert_eq!(begun(&effects), expected, "{devices}");
    }
}

/// Steps 2 and 4: catches a superseded leader that goes on, one that gives up for a lower
/// ballot, and a next attempt that would be refused again.
#[test]
fn a_higher_promise_ends_each_phase() {
    let ignored = [Effect::Ignored(IgnoreReason::OtherBallot)];
    let mut bench = Bench::new();
    assert_eq!(bench.say(2, my_next_bal(foreign(4), ballot(1))), ignored, "idle");
    bench.campaign();
    assert_eq!(bench.leader.last_tried, ballot(5), "above what was heard while idle");
    assert_eq!(bench.say(2, my_next_bal(foreign(4), ballot(3))), ignored, "an old one");
    assert_eq!(bench.say(2, my_next_bal(ballot(5), ballot(3))), ignored, "our own");
    assert_eq!(bench.say(4, my_next_bal(foreign(9), ballot(5))), [Effect::Ignored(IgnoreReason::NotAnAcceptor)]);
    let reason = "superseded by a higher ballot";
    assert_eq!(
        bench.say(2, my_next_bal(foreign(5), ballot(5))),
        [down(ballot(5), reason, Some(foreign(5)))],
        "preparing"
    );
    bench.lead();
    assert_eq!(bench.leader.leads(), Some(ballot(6)));
    assert_eq!(bench.say(2, my_next_bal(foreign(5), ballot(5))), ignored, "late");
    assert_eq!(
        bench.say(2, my_next_bal(foreign(6), ballot(6))),
        [Effect::Leads(None), down(ballot(6), reason, Some(foreign(6)))],
        "leading"
    );
    assert_eq!(bench.step_down(), [Effect::Ignored(IgnoreReason::NothingToDo)]);
}

/// Catches a node that proposes after commands of a higher ballot: its own would not be well
/// formed, since ballots never fall along the chain.
#[test]
fn commands_of_a_higher_ballot_end_an_attempt() {
    let commands = chain(foreign(4), CommandId::NULL, 1);
    let mut bench = Bench::new();
    bench.campaign();
    bench.promise(1, CommandId::NULL, Vec::new());
    let good = ToLeader::BallotInfo(bench.promise_of(CommandId::NULL, Vec::new()));
    let expected = [down(ballot(1), "a higher ballot has issued commands", Some(foreign(4)))];
    assert_eq!(bench.learn(&commands), expected);
    assert_eq!(bench.say(2, good), [Effect::Ignored(IgnoreReason::OtherBallot)]);
    bench.lead();
    assert_eq!(bench.leader.leads(), Some(ballot(5)), "above what was learnt");
    bench.put("a", 1);
}

/// A12: catches a lost question that is never asked again, one that is asked of those who
/// answered or of nodes that do not vote, and an attempt that never ends.
#[test]
fn questions_are_repeated_until_the_attempt_times_out() {
    let asks = |bench: &Bench, to| send(to, Message::Acceptor(question(bench.leader.last_tried, 1)));
    let mut bench = Bench::new();
    bench.campaign();
    bench.promise(2, CommandId::NULL, Vec::new());
    assert_eq!(bench.wait(Duration::from_millis(99)), []);
    assert_eq!(bench.wait(Duration::from_millis(1)), [asks(&bench, 1), asks(&bench, 3)]);
    assert_eq!(bench.wait(Duration::from_millis(99)), []);
    assert_eq!(bench.feed(Input::Connected(NodeId(3))), [asks(&bench, 3)]);
    assert_eq!(bench.feed(Input::Connected(NodeId(2))), [], "has answered");
    assert_eq!(bench.feed(Input::Connected(NodeId(4))), [], "does not vote");
    bench.call("k", "kv.put", json!({"key": "a", "value": 1}));
    bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 8 }));
    let expected = [
        executed(2, "k", Outcome::NotLeader),
        passed(3, 8, None),
        down(ballot(1), "no majority set promised in time", None),
    ];
    assert_eq!(bench.wait(Duration::from_secs(5)), expected);
}

/// Catches requests that are lost when an attempt is repeated, kept without bound, or answered
/// as if this node led.
#[test]
fn requests_wait_for_the_lead_within_a_bound() {
    let mut bench = Bench::with(|config| config.kept_calls = 2);
    let refused = [executed(2, "early", Outcome::NotLeader)];
    assert_eq!(bench.call("early", "kv.put", json!({"key": "a", "value": 1})), refused, "idle");
    assert_eq!(bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 1 })), [passed(3, 1, None)]);
    bench.campaign();
    assert_eq!(bench.call("k", "kv.put", json!({"key": "a", "value": 1})), []);
    assert_eq!(bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 2 })), []);
    assert_eq!(bench.call("l", "kv.delete", json!({"key": "a"})), [executed(2, "l", Outcome::NotLeader)]);
    assert_eq!(bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 3 })), [passed(3, 3, None)]);
    bench.campaign();
    let effects = bench.lead();
    assert_eq!(proposed(&effects).len(), 1, "the call that was kept over three attempts");
    assert_eq!(replies(bench.ack_all()), [issued(2, "k", 1, "{}", false), passed(3, 2, Some(0))]);
    assert_eq!(bench.feed(Input::Campaign { above: foreign(9) }), [Effect::Ignored(IgnoreReason::NothingToDo)]);
}

/// S-25: catches a command that this version cannot read and that is skipped.
#[test]
fn an_unreadable_history_is_not_led() {
    let mut command = chain(foreign(1), CommandId::NULL, 1).remove(0);
    command.body = Bytes::from_static(b"\xff");
    let mut bench = Bench::new();
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, Vec::new());
    let effects = bench.promise(2, CommandId::NULL, vec![vote_for(foreign(1), &command)]);
    assert_eq!(effects, [down(ballot(2), "a command voted for earlier is not readable", None)]);
    assert_eq!(bench.leader.leads(), None);
}

/// S-27: catches arithmetic that overflows near the end of the numbers.
#[test]
fn numbers_near_the_end_work() {
    let last = id(foreign(1), u64::MAX - 3);
    let mut bench = Bench::new();
    bench.leader = Leader::new(config(), Ballot::NONE, last);
    bench.lead();
    let commands = [bench.put("a", 1), bench.put("a", 2)].map(|effects| proposed(&effects)[0].clone());
    assert_eq!(commands.map(|command| command.number().0), [u64::MAX - 2, u64::MAX - 1]);
    assert_eq!(replies(bench.ack_all()).len(), 2);
    bench.wait(Duration::from_secs(1));
}
