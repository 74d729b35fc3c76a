//! Changes of the membership (ADR 0025): a barrier in the ballot that makes one, another ballot under the new one.

use super::*;

fn member(number: u64) -> Value {
    json!({"name": format!("n{number}"), "address": format!("n{number}:7080")})
}

/// A call about the cluster, and the end of its turn.
fn change(bench: &mut Bench, key: &str, function: &str, arguments: Value) -> Vec<Effect> {
    let mut effects = bench.call(key, function, arguments);
    effects.extend(bench.end_turn());
    effects
}

fn question(to: u64, ballot: Ballot, first: u64) -> Effect {
    send(to, Message::Acceptor(ToAcceptor::NextBallot(NextBallot { ballot, first: number(first) })))
}

/// Who is asked for a promise among these effects, in which ballot and from which number on.
fn asked(effects: &[Effect]) -> Vec<(u64, Ballot, u64)> {
    let question = |effect: &Effect| {
        let Effect::Send { to, message: Message::Acceptor(ToAcceptor::NextBallot(next)) } = effect else { return None };
        Some((to.0, next.ballot, next.first.0))
    };
    effects.iter().filter_map(question).collect()
}

/// Under which membership each ballot among these effects is led.
fn led_under(effects: &[Effect]) -> Vec<u64> {
    begun(effects).into_iter().map(|(_, begin)| begin.membership.0).collect()
}

/// Node 1 leads, and nodes 4 and 5 have joined: commands 1 and 2. Ballot 3, membership 2.
fn five() -> Bench {
    let mut bench = Bench::new();
    bench.lead();
    for (ballot_led, joining) in [(1, 4), (2, 5)] {
        let commands = proposed(&change(&mut bench, &format!("join-{joining}"), "cluster.join", member(joining)));
        bench.ack_all();
        let effects = bench.learn(&commands);
        assert_eq!(asked(&effects)[0].1, ballot(ballot_led + 1), "{effects:?}");
        let issued = bench.leader.learned;
        bench.heard.insert(NodeId(joining), issued.number);
        (1..=3).for_each(|node| _ = bench.heard.insert(NodeId(node), issued.number));
        bench.sent = (None, 0);
        bench.promise(1, issued, Vec::new());
        bench.promise(2, issued, Vec::new());
        assert_eq!(bench.leader.leads(), Some(ballot(ballot_led + 1)));
        // The third one is late, and speaks as well.
        assert_eq!(bench.vote(3, None, 0), []);
    }
    bench
}

/// The whole of a change, effect by effect. Catches a command proposed after the change in its ballot, a caller who is
/// refused or told too early, the new ballot asked of the old acceptors or of numbers below, and others who are told
/// that nobody leads.
#[test]
fn a_change_ends_its_ballot_and_the_next_one_is_under_the_new_membership() {
    let mut bench = five();
    let promote = change(&mut bench, "promote", "cluster.set_acceptor", json!({"node": 4}));
    let commands = proposed(&promote);
    assert_eq!((commands.len(), led_under(&promote)), (1, vec![2, 2, 2]), "voted for under the membership before");
    assert_eq!(bench.put("a", 1), [], "kept");
    assert_eq!(bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 5 })), []);
    let round = bench.end_turn();
    assert_eq!(proposed(&round), []);
    let last = Some(commands[0].id);
    bench.vote(1, last, 2);
    let told = replies(bench.vote(2, last, 2));
    assert_eq!(told.len(), 2, "the change is issued, and a reader of what was before it may go: {told:?}");
    assert_eq!(told[1], passed(3, 5, Some(2)));
    bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 6 }));
    let announced = bench.end_turn();
    assert!((2..=5).all(|to| announced.contains(&success(to, ballot(3), commands[0].id, &[]))), "{announced:?}");
    let (_, round) = bench.sent;
    bench.vote(1, last, round);
    assert_eq!(replies(bench.vote(2, last, round)), [], "this one would show the change");
    let effects = bench.learn(&commands);
    let mut expected = vec![
        Effect::Note(Note::Membership { number: number(3), nodes: 5, acceptors: 4 }),
        Effect::Persist(LogRecord::LastTried(ballot(4))),
    ];
    expected.extend((1..=4).map(|to| question(to, ballot(4), 4)));
    expected.push(Effect::Note(Note::Campaigns(ballot(4))));
    assert_eq!(effects, expected);
    let issued = commands[0].id;
    bench.promise(1, issued, Vec::new());
    assert_eq!(bench.promise(2, issued, Vec::new()), [], "two of four are no majority");
    assert_eq!(bench.promise(5, issued, Vec::new()), [Effect::Ignored(IgnoreReason::NotAnAcceptor)]);
    let leads = bench.promise(4, issued, Vec::new());
    assert_eq!(leads[0], Effect::Leads(Some(ballot(4))));
    let begun_now = begun(&leads);
    assert_eq!(begun_now.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(begun_now.iter().all(|(_, begin)| begin.membership == number(3) && begin.commands.len() == 1));
    let last = Some(id(ballot(4), 4));
    bench.vote(1, last, 1);
    assert_eq!(replies(bench.vote(3, last, 1)), [], "two of four");
    assert_eq!(
        replies(bench.vote(4, last, 1)),
        [issued_put(4), passed(3, 6, Some(3))],
        "the kept call and the reader, by a majority set of the new membership"
    );
}

fn issued_put(command: u64) -> Effect {
    issued(2, "put-a-1", command, "{}", false)
}

/// Catches a change that overtakes what was proposed before it, or that is proposed beyond the window and then never
/// comes; and calls that are kept in another order than they came.
#[test]
fn a_change_waits_its_turn_in_a_full_pipeline_and_keeps_what_comes_after_it() {
    let mut bench = Bench::with(|config| config.window = 2);
    bench.lead();
    let mut commands = [bench.put("a", 1), bench.put("a", 2)].concat();
    assert_eq!(change(&mut bench, "join", "cluster.join", member(4)), [], "no room");
    assert_eq!([bench.put("a", 3), bench.put("a", 4)].concat(), []);
    bench.ack_all();
    let change = bench.end_turn();
    assert_eq!(proposed(&change).len(), 1, "the change alone: {change:?}");
    commands.extend(change);
    let commands = proposed(&commands);
    bench.ack_all();
    let effects = bench.learn(&commands);
    assert_eq!(asked(&effects), [1, 2, 3].map(|to| (to, ballot(2), 4)));
    bench.sent = (None, 0);
    let issued = commands[2].id;
    bench.promise(2, issued, Vec::new());
    let effects = bench.promise(3, issued, Vec::new());
    let values: Vec<_> = proposed(&effects).iter().map(|command| body(command).request).collect();
    assert_eq!(values, [request("put-a-3"), request("put-a-4")]);
}

/// Catches a call on the pool whose result is taken although the change came first, and one that gets lost; and a
/// waiting call that is forgotten.
#[test]
fn calls_on_the_pool_and_waiting_ones_run_again_under_the_new_membership() {
    let mut bench = Bench::new();
    bench.lead();
    let job = jobs(&bench.call("pool", "test.copy_on_pool", json!({}))).remove(0);
    bench.say(2, ToLeader::ExecuteFunction(patient(60, call("wait", "test.pop", json!({})))));
    let commands = proposed(&change(&mut bench, "join", "cluster.join", member(4)));
    let execution = run_on_snapshot_of(&bench, &job);
    let late = bench.feed(Input::PoolDone { job: job.job, execution: Box::new(execution) });
    assert_eq!(late, [Effect::Ignored(IgnoreReason::LateExecution)]);
    assert_eq!(bench.wait(Duration::from_secs(61)).iter().filter(|effect| is_reply(effect)).count(), 0, "kept");
    bench.ack_all();
    bench.learn(&commands);
    bench.sent = (None, 0);
    bench.promise(1, commands[0].id, Vec::new());
    let effects = bench.promise(2, commands[0].id, Vec::new());
    assert_eq!(jobs(&effects).len(), 1, "again: {effects:?}");
    assert_eq!(bench.leader.load().kept_calls, 1, "the pool has one, and the patience of the other is over");
}

fn is_reply(effect: &Effect) -> bool {
    matches!(effect, Effect::Send { message: Message::Gateway(_), .. })
}

fn run_on_snapshot_of(bench: &Bench, job: &PoolJob) -> functions::Execution {
    let function = bench.functions.get(&job.function).expect("it is registered");
    crate::machine::run_on_snapshot(function.as_ref(), job, &bench.machine)
}

/// A change found in the votes for a dead leader's proposals, with more behind it. Catches what follows it being
/// proposed under the membership before, or dropped although its number is free for nobody.
#[test]
fn a_change_in_the_history_ends_it() {
    let mut other = Bench::new();
    other.lead();
    let commands = proposed(&change(&mut other, "join", "cluster.join", member(4)));
    let after = chain(foreign(9), commands[0].id, 1);
    let votes = vec![vote_for(foreign(8), &commands[0]), vote_for(foreign(9), &after[0])];
    let mut bench = Bench::new();
    bench.feed(Input::Campaign { above: foreign(9) });
    bench.promise(2, CommandId::NULL, votes.clone());
    let effects = bench.promise(3, CommandId::NULL, Vec::new());
    assert_eq!(proposed(&effects), commands, "and no more");
    assert_eq!(bench.put("a", 1), [], "kept");
    bench.ack_all();
    let effects = bench.learn(&commands);
    assert_eq!(asked(&effects), [1, 2, 3].map(|to| (to, ballot(11), 2)));
    bench.sent = (None, 0);
    bench.promise(2, commands[0].id, votes[1..].to_vec());
    let effects = bench.promise(3, commands[0].id, Vec::new());
    let ids: Vec<_> = proposed(&effects).iter().map(|command| command.id).collect();
    assert_eq!(ids, [after[0].id, id(ballot(11), 3)], "what followed is in the history of the next ballot");
    assert_eq!(led_under(&effects), [1, 1, 1]);
}

/// Catches a removed leader that leads on, or campaigns again, and callers that it leaves waiting.
#[test]
fn a_leader_that_is_removed_steps_down() {
    let mut bench = five();
    let commands = proposed(&change(&mut bench, "remove", "cluster.remove", json!({"node": "n1"})));
    bench.put("a", 1);
    bench.ack_all();
    let effects = bench.learn(&commands);
    assert!(effects.ends_with(&[
        Effect::Note(Note::Membership { number: number(3), nodes: 4, acceptors: 2 }),
        executed(2, "put-a-1", Outcome::NotLeader),
        Effect::Leads(None),
        Effect::Note(Note::StepsDown {
            ballot: ballot(3),
            reason: "it may not lead under the new membership",
            superseded_by: None,
            unissued: 0
        }),
    ]));
    assert!(effects.contains(&success(3, ballot(3), commands[0].id, &[])), "all hear that it is issued");
    assert_eq!(bench.leader.leads(), None);
    assert_eq!(bench.campaign(), [Effect::Ignored(IgnoreReason::NothingToDo)]);
}

/// An acceptor that is down is removed, and the two that are left are both needed. Catches the one that is gone being
/// counted, asked, or sent to.
#[test]
fn an_acceptor_that_is_down_can_be_removed() {
    let mut bench = five();
    bench.heard.remove(&NodeId(3));
    let commands = proposed(&change(&mut bench, "remove", "cluster.remove", json!({"node": 3})));
    bench.ack_all();
    assert_eq!(asked(&bench.learn(&commands)), [1, 2].map(|to| (to, ballot(4), 4)));
    bench.sent = (None, 0);
    let issued = commands[0].id;
    bench.promise(1, issued, Vec::new());
    assert_eq!(bench.promise(3, issued, Vec::new()), [Effect::Ignored(IgnoreReason::NotAnAcceptor)]);
    bench.promise(2, issued, Vec::new());
    let begun_now = begun(&bench.put("a", 1));
    assert_eq!(begun_now.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2]);
    let (last, round) = bench.sent;
    let strange = bench.vote(3, last, round);
    assert_eq!(strange, [Effect::Ignored(IgnoreReason::NotAnAcceptor)]);
    bench.ack(1);
    assert_eq!(replies(bench.ack(2)), [issued_put(4)]);
}

/// A leader under the old membership that does not know of the change, in a lower ballot than those who do: it hears
/// of the higher one from everybody, and learns of the change. Catches one that prepares under the old membership on,
/// or leads before it knows all that was decided under it.
#[test]
fn who_learns_of_a_change_while_it_prepares_asks_the_new_acceptors() {
    let mut other = five();
    let mut commands = proposed(&change(&mut other, "promote", "cluster.set_acceptor", json!({"node": 5})));
    let all: Vec<Command> = {
        let stored = other.machine.commands(number(1), 10, usize::MAX).expect("memory").expect("kept");
        commands = stored.into_iter().chain(commands).collect();
        commands
    };
    let mut bench = Bench::new();
    bench.feed(Input::Campaign { above: foreign(9) });
    bench.promise(2, all[2].id, Vec::new());
    let effects = bench.promise(3, CommandId::NULL, Vec::new());
    assert_eq!(effects, [Effect::LearnFromPeer { peer: NodeId(2), issued: number(3) }], "a majority of the old three");
    // M(p) may be ahead of what the leader is told: it has applied all, and is heard to have applied two.
    bench.machine.apply(&all).expect("memory");
    let effects = bench.feed(Input::Learned(all[1].id));
    assert_eq!(asked(&effects), [1, 5].map(|to| (to, ballot(10), 1)), "who has not promised: {effects:?}");
    bench.promise(5, all[2].id, Vec::new());
    assert_eq!(bench.leader.leads(), None, "three of four, but the change is not heard of");
    let effects = bench.feed(Input::Learned(all[2].id));
    assert_eq!(effects[0], Effect::Leads(Some(ballot(10))), "{effects:?}");
    assert_eq!(led_under(&bench.put("a", 1)), [3; 4]);
}

/// Catches a promise that goes on counting when a change makes its giver no acceptor: what it voted for is taken up.
#[test]
fn the_promise_of_a_removed_acceptor_does_not_count() {
    let mut other = five();
    other.heard.remove(&NodeId(3));
    let commands = proposed(&change(&mut other, "remove", "cluster.remove", json!({"node": 3})));
    let stored = other.machine.commands(number(1), 10, usize::MAX).expect("memory").expect("kept");
    let all: Vec<Command> = stored.into_iter().chain(commands).collect();
    let mut bench = Bench::new();
    bench.feed(Input::Campaign { above: foreign(9) });
    let voted = chain(foreign(8), all[2].id, 1);
    bench.promise(3, CommandId::NULL, vec![vote_for(foreign(8), &voted[0])]);
    assert_eq!(asked(&bench.learn(&all)), [1, 2].map(|to| (to, ballot(10), 1)));
    bench.promise(1, all[2].id, Vec::new());
    let effects = bench.promise(2, all[2].id, Vec::new());
    assert_eq!(effects[0], Effect::Leads(Some(ballot(10))));
    assert_eq!(begun(&effects), []);
}

/// Catches a lead that ends when its change is in M(p), before the leader is told that all up to there is issued: what
/// is in its pipeline would get lost.
#[test]
fn a_change_that_is_not_heard_of_ends_no_lead() {
    let mut bench = Bench::new();
    bench.lead();
    let mut commands = proposed(&bench.put("a", 1));
    commands.extend(proposed(&change(&mut bench, "join", "cluster.join", member(4))));
    bench.machine.apply(&commands).expect("memory");
    let effects = bench.feed(Input::Learned(commands[0].id));
    assert_eq!((asked(&effects), bench.leader.leads()), (vec![], Some(ballot(1))));
    let effects = bench.feed(Input::Learned(commands[1].id));
    assert_eq!(asked(&effects), [1, 2, 3].map(|to| (to, ballot(2), 3)));
}

/// Catches a node that leads under the membership of its last lead although M(p) holds two later ones, of which it has
/// heard of the first only: acceptors that know no more than that would let it, and the second may have put others in
/// their place.
#[test]
fn a_candidate_looks_for_the_membership_of_its_state() {
    let other = five();
    let stored = other.machine.commands(number(1), 10, usize::MAX).expect("memory").expect("kept");
    let mut bench = Bench::new();
    bench.lead();
    assert_eq!(proposed(&change(&mut bench, "join-4", "cluster.join", member(4))), stored[..1]);
    bench.machine.apply(&stored).expect("memory");
    let [first, second] = [stored[0].id, stored[1].id];
    bench.feed(Input::Learned(first));
    assert_eq!(bench.leader.leads(), Some(ballot(1)), "the change that it has heard of is not the one in M(p)");
    bench.say(3, my_next_bal(foreign(9), ballot(1)));
    bench.feed(Input::Campaign { above: foreign(9) });
    let mut effects = bench.promise(2, first, Vec::new());
    effects.extend(bench.promise(3, first, Vec::new()));
    assert_eq!(bench.leader.leads(), None, "{effects:?}");
    let effects = bench.feed(Input::Learned(second));
    assert_eq!(bench.leader.leads(), Some(ballot(10)), "{effects:?}");
    assert_eq!(bench.leader.config.membership.number(), second.number);
}

/// Node 1 was told of command 3, a change that gives node 5 a vote, and has learned those before it. It campaigns in ballot 10.
fn told_of_a_change() -> (Bench, Vec<Command>) {
    let mut other = five();
    let commands = proposed(&change(&mut other, "promote", "cluster.set_acceptor", json!({"node": 5})));
    let mut all = other.machine.commands(number(1), 10, usize::MAX).expect("memory").expect("kept");
    other.ack_all();
    other.learn(&commands);
    let mut bench = Bench::with(|config| config.membership = Arc::clone(&other.leader.config.membership));
    bench.feed(Input::Campaign { above: foreign(9) });
    let strange = chain(foreign(7), CommandId::NULL, 1);
    let first = bench.promise(5, CommandId::NULL, vec![vote_for(foreign(8), &strange[0])]);
    assert_eq!((asked(&first), bench.leader.leads()), (vec![], None), "the state says nothing yet");
    let effects = bench.learn(&all);
    assert_eq!(asked(&effects), [1, 2, 3].map(|to| (to, ballot(10), 1)), "5 was none: {effects:?}");
    all.extend(commands);
    (bench, all)
}

/// Seed 1796036925686: who joined after a change was told of it, and the only one who knew it issued has lost its disk.
/// Catches a candidate that waits for ever to learn of it, one that leads above it under the membership before, and one that
/// takes up what somebody voted for who had no vote then.
#[test]
fn who_was_told_of_a_change_that_nobody_knows_issued_leads_under_the_one_before() {
    let (mut bench, all) = told_of_a_change();
    let above = chain(foreign(8), all[2].id, 1);
    let votes = vec![vote_for(foreign(8), &all[2]), vote_for(foreign(8), &above[0])];
    assert_eq!(bench.put("a", 1), [], "kept");
    bench.promise(2, all[1].id, votes.clone());
    let effects = bench.promise(3, all[1].id, Vec::new());
    assert_eq!((proposed(&effects), led_under(&effects)), (all[2..].to_vec(), vec![2; 3]));
    bench.ack_all();
    let effects = bench.learn(&all[2..]);
    assert_eq!(asked(&effects), [1, 2, 3, 5].map(|to| (to, ballot(11), 4)));
    bench.sent = (None, 0);
    for node in [2, 3] {
        bench.promise(node, all[2].id, votes[1..].to_vec());
    }
    let effects = bench.promise(5, all[2].id, Vec::new());
    let ids: Vec<_> = proposed(&effects).iter().map(|command| command.id).collect();
    assert_eq!((ids, led_under(&effects)), (vec![above[0].id, id(ballot(11), 5)], vec![3; 4]));
}

/// The same where the change is in no promise of a majority set: they have lost it. Catches a candidate that puts another
/// command in its place.
#[test]
fn who_was_told_of_a_change_that_is_lost_does_not_lead() {
    let (mut bench, all) = told_of_a_change();
    bench.promise(2, all[1].id, Vec::new());
    let effects = bench.promise(3, all[1].id, Vec::new());
    let reason = "a change that this node was told of is in no promise";
    assert_eq!(
        effects,
        [Effect::Note(Note::StepsDown { ballot: ballot(10), reason, superseded_by: None, unissued: 0 })]
    );
}

/// Catches a candidate that goes by a membership of which it is no member, and then never campaigns again.
#[test]
fn who_is_no_member_in_its_state_learns_on_first() {
    let other = five();
    let stored = other.machine.commands(number(1), 10, usize::MAX).expect("memory").expect("kept");
    let told = other.leader.config.membership.without(NodeId(3)).expect("others are left");
    let told = told.written_by(number(3));
    let mut bench = Bench::with(|config| (config.me, config.membership) = (NodeId(5), Arc::new(told)));
    bench.feed(Input::Campaign { above: foreign(9) });
    assert_eq!(asked(&bench.learn(&stored[..1])), []);
    let ballot = Ballot::new(9, NodeId(5));
    assert_eq!(asked(&bench.learn(&stored[1..])), [1, 2, 3].map(|to| (to, ballot, 1)));
}

/// Catches a candidate that a change makes no member and that leads all the same, and one in the middle of asking.
#[test]
fn a_candidate_that_is_removed_gives_up() {
    let mut other = five();
    let commands = proposed(&change(&mut other, "remove", "cluster.remove", json!({"node": 1})));
    let stored = other.machine.commands(number(1), 10, usize::MAX).expect("memory").expect("kept");
    let all: Vec<Command> = stored.into_iter().chain(commands).collect();
    let mut bench = Bench::new();
    // Above all ballots in which something was issued: it does not give up for one of those.
    bench.feed(Input::Campaign { above: foreign(9) });
    bench.call("k", "test.look", json!({}));
    let effects = bench.learn(&all);
    let (ballot, reason) = (ballot(10), "it may not lead under the new membership");
    assert!(effects.ends_with(&[
        executed(2, "k", Outcome::NotLeader),
        Effect::Note(Note::StepsDown { ballot, reason, superseded_by: None, unissued: 0 }),
    ]));
    assert_eq!(bench.campaign(), [Effect::Ignored(IgnoreReason::NothingToDo)]);
}

/// The ballot after a change meets a higher one. Catches calls that nobody answers, and others who go on believing that
/// this node leads.
#[test]
fn a_change_that_loses_its_leader_answers_everybody() {
    let mut bench = five();
    let commands = proposed(&change(&mut bench, "promote", "cluster.set_acceptor", json!({"node": 5})));
    bench.put("a", 1);
    bench.ack_all();
    bench.learn(&commands);
    bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 8 }));
    let effects = bench.say(3, my_next_bal(foreign(9), ballot(4)));
    let ends = [
        passed(3, 8, None),
        executed(2, "put-a-1", Outcome::NotLeader),
        Effect::Leads(None),
        Effect::Note(Note::StepsDown {
            ballot: ballot(4),
            reason: "superseded by a higher ballot",
            superseded_by: Some(foreign(9)),
            unissued: 0,
        }),
    ];
    assert_eq!(effects, ends);
    // Lost before it was issued: its caller hears that only a later leader knows.
    let mut bench = five();
    change(&mut bench, "promote", "cluster.set_acceptor", json!({"node": 5}));
    let effects = bench.say(3, my_next_bal(foreign(9), ballot(3)));
    assert!(effects.contains(&executed(2, "promote", Outcome::LeadershipLost)), "{effects:?}");
}

/// S-20, claim 3: whoever counts for itself may know a change before its leader does, and others may lead under it
/// without any of the acceptors that answer here. Catches a read that this leader lets go on their word, when that
/// shows the change or what may be after it.
#[test]
fn nothing_that_shows_a_change_leaves_before_the_next_ballot() {
    let mut bench = Bench::with(|config| config.learn_from = LearnFrom::Voters);
    bench.lead();
    let commands = proposed(&change(&mut bench, "join", "cluster.join", member(4)));
    bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 5 }));
    bench.end_turn();
    let (last, round) = (Some(commands[0].id), bench.sent.1);
    bench.vote(1, last, round);
    let effects = bench.vote(2, last, round);
    assert_eq!(replies(effects).len(), 1, "only the caller of the change, which is issued");
    bench.learn(&commands);
    bench.sent = (None, 0);
    bench.promise(1, commands[0].id, Vec::new());
    bench.promise(2, commands[0].id, Vec::new());
    bench.ack(1);
    assert_eq!(bench.ack(2), [passed(3, 5, Some(1))]);
}

/// S-20, S-21: catches a reply that leaves with the end of a ballot although no round has come back since it was
/// computed: somebody else may lead by then.
#[test]
fn what_no_round_has_confirmed_is_not_told_when_a_change_ends_the_ballot() {
    let mut bench = Bench::new();
    bench.lead();
    assert_eq!(bench.call("look", "test.look", json!({})), []);
    let commands = proposed(&change(&mut bench, "join", "cluster.join", member(4)));
    for node in [1, 2] {
        bench.vote(node, Some(commands[0].id), 0);
    }
    assert_eq!(replies(bench.learn(&commands)), [executed(2, "look", Outcome::NotLeader)]);
}

/// Catches a command of the cluster's own that anybody may write: the leader would take it for a change.
#[test]
fn only_functions_of_the_cluster_change_it() {
    let mut bench = Bench::new();
    bench.lead();
    let effects = change(&mut bench, "put", "kv.put", json!({"key": "quorate/membership", "value": 1}));
    assert_eq!(proposed(&effects), []);
    let replies = replies(bench.ack_all());
    let Effect::Send { message: Message::Gateway(ToGateway::Executed(executed)), .. } = &replies[0] else {
        panic!("{replies:?}")
    };
    assert!(matches!(&executed.outcome, Outcome::Refused { code, .. } if code == "reserved_key"), "{executed:?}");
}

/// A9, S-23: another leader may have executed a copy of a kept call between the two ballots. Catches a second effect.
#[test]
fn a_kept_call_that_another_leader_has_executed_is_repeated() {
    let mut other = Bench::new();
    other.lead();
    let copy = proposed(&other.put("a", 1)).remove(0);
    let mut bench = Bench::new();
    bench.lead();
    let commands = proposed(&change(&mut bench, "join", "cluster.join", member(4)));
    bench.put("a", 1);
    bench.ack_all();
    bench.learn(&commands);
    bench.sent = (None, 0);
    let theirs = Command { id: id(foreign(1), 2), precedent: commands[0].id, ..copy };
    bench.promise(2, commands[0].id, vec![vote_for(foreign(1), &theirs)]);
    let effects = bench.promise(3, commands[0].id, Vec::new());
    assert_eq!(proposed(&effects), [theirs], "once, as the other leader's");
    bench.ack(1);
    assert_eq!(replies(bench.ack(2)), [issued(2, "put-a-1", 2, "{}", true)]);
}
