//! Steps 5 and 6: counting votes, issuing in order, announcing.

use super::*;

/// Five commands of one turn, begun.
fn five(bench: &mut Bench) -> Vec<Command> {
    bench.lead();
    for value in 1..=5 {
        bench.call(&format!("k{value}"), "kv.put", json!({"key": "a", "value": value}));
    }
    proposed(&bench.end_turn())
}

fn answers(numbers: std::ops::RangeInclusive<u64>) -> Vec<Effect> {
    numbers.map(|number| issued(2, &format!("k{number}"), number, "{}", false)).collect()
}

/// A2, S-04, S-08: catches a reply or a `Success` before a majority set voted, a body sent to
/// those who have it from their acceptors, and announcements that are not gathered in a turn.
#[test]
fn a_majority_sets_votes_issue_a_command() {
    let mut bench = Bench::new();
    let commands = five(&mut bench);
    assert_eq!(bench.vote(3, Some(commands[1].id), 1), []);
    assert_eq!(bench.end_turn(), []);
    assert_eq!(bench.vote(1, Some(commands[0].id), 1), answers(1..=1));
    assert_eq!(bench.vote(1, Some(commands[4].id), 1), answers(2..=2), "in order, as far as two have come");
    let last = commands[1].id;
    let told = |to| success(to, ballot(1), last, &[]);
    assert_eq!(bench.end_turn(), [told(2), told(3), success(1, ballot(1), last, &commands[..2])]);
    assert_eq!(bench.vote(2, Some(commands[4].id), 1), answers(3..=5));
    assert_eq!(bench.end_turn().last(), Some(&success(1, ballot(1), commands[4].id, &commands[2..])));
}

/// A3: catches a leader that announces although learners count votes themselves.
#[test]
fn nothing_is_announced_when_learners_count() {
    let mut bench = Bench::with(|config| config.learn_from = LearnFrom::Voters);
    let commands = five(&mut bench);
    bench.vote(3, Some(commands[4].id), 1);
    assert_eq!(bench.vote(2, Some(commands[4].id), 1), answers(1..=5));
    assert_eq!(bench.end_turn(), []);
}

/// S-01, A12: votes that must not count. Catches a tally that takes one acceptor twice, a
/// stranger, another ballot, another command, or a command that nobody proposed; and a round
/// that was never sent.
#[test]
fn what_is_no_vote_for_this_ballot_is_not_counted() {
    let mut bench = Bench::new();
    let commands = five(&mut bench);
    let last = commands[4].id;
    assert_eq!(bench.vote(3, Some(last), 1), []);
    assert_eq!(bench.vote(3, Some(last), 1), [], "a repetition is no second vote");
    let foreign_id = id(foreign(1), 5);
    for (from, message, reason) in [
        (4, voted(ballot(1), Some(last), 1), IgnoreReason::NotAnAcceptor),
        (2, voted(ballot(2), Some(last), 1), IgnoreReason::OtherBallot),
        (2, voted(foreign(1), Some(last), 1), IgnoreReason::OtherBallot),
        (2, voted(ballot(1), Some(foreign_id), 1), IgnoreReason::UnknownCommand),
        (2, voted(ballot(1), Some(id(ballot(1), 6)), 1), IgnoreReason::UnknownCommand),
        (2, voted(ballot(1), Some(last), 2), IgnoreReason::Malformed),
    ] {
        assert_eq!(bench.say(from, message), [Effect::Ignored(reason)]);
    }
    assert_eq!(bench.vote(2, None, 1), [], "answers, and has not voted");
    assert_eq!(bench.vote(2, Some(commands[2].id), 1), answers(1..=3));
    assert_eq!(bench.vote(2, Some(commands[0].id), 1), [], "late: votes are not taken back");
    assert_eq!(bench.vote(1, Some(last), 1), answers(4..=5));
}

/// S-01: the same commands in a later ballot of the same node. Catches votes that outlive the
/// ballot in which they were cast.
#[test]
fn votes_of_an_earlier_ballot_do_not_count() {
    let mut bench = Bench::new();
    let commands = five(&mut bench);
    bench.vote(3, Some(commands[4].id), 1);
    bench.step_down();
    bench.campaign();
    bench.promise(1, CommandId::NULL, Vec::new());
    let votes = commands.iter().map(|command| vote_for(ballot(1), command)).collect();
    assert_eq!(proposed(&bench.promise(3, CommandId::NULL, votes)), commands);
    let stale = bench.say(2, voted(ballot(1), Some(commands[4].id), 1));
    assert_eq!(stale, [Effect::Ignored(IgnoreReason::OtherBallot)]);
    assert_eq!(bench.leader.load().unissued, 5);
    bench.ack(2);
    assert_eq!(bench.leader.load().unissued, 5, "only one vote in this ballot");
    bench.ack(3);
    assert_eq!(bench.leader.load().unissued, 0);
}

/// A1c: catches a tally that counts heads where the configuration weighs them.
#[test]
fn majority_sets_are_those_of_the_configuration() {
    let mut bench = Bench::with(|config| {
        config.membership = Arc::new(config.membership.weighing(NodeId(1), 3).expect("a node"));
    });
    bench.campaign();
    bench.promise(2, CommandId::NULL, Vec::new());
    bench.promise(3, CommandId::NULL, Vec::new());
    assert_eq!(bench.leader.leads(), None, "two of five");
    bench.promise(1, CommandId::NULL, Vec::new());
    bench.put("a", 1);
    bench.ack(2);
    assert_eq!(bench.ack(3), []);
    assert_eq!(replies(bench.ack(1)), [issued(2, "put-a-1", 1, "{}", false)]);
}

/// A4: the learner of this node may know of an issue before its leader has the votes. Catches a
/// leader that lags behind, or does not answer and announce then.
#[test]
fn what_the_learner_knows_is_issued() {
    let mut bench = Bench::new();
    let commands = five(&mut bench);
    assert_eq!(bench.learn(&commands[..2]), answers(1..=2));
    assert_eq!(bench.end_turn().last(), Some(&success(1, ballot(1), commands[1].id, &commands[..2])));
    assert_eq!(bench.feed(Input::Learned(commands[0].id)), [], "an old word");
    bench.vote(2, Some(commands[4].id), 1);
    assert_eq!(bench.vote(3, Some(commands[2].id), 1), answers(3..=3));
}

/// Invariant 1, S-21: another leader's command was issued at a number of ours, or beyond ours.
/// Catches a leader that goes on, and callers who are told anything but "unknown".
#[test]
fn another_leaders_commands_end_the_lead() {
    for foreign_ones in [1, 7] {
        let mut bench = Bench::new();
        five(&mut bench);
        let effects = bench.learn(&chain(foreign(1), CommandId::NULL, foreign_ones));
        let mut expected: Vec<Effect> =
            (1..=5).map(|number| executed(2, &format!("k{number}"), Outcome::LeadershipLost)).collect();
        expected.push(Effect::Leads(None));
        expected.push(Effect::Note(Note::StepsDown {
            ballot: ballot(1),
            reason: "another leader's command was issued",
            superseded_by: Some(foreign(1)),
            unissued: 5,
        }));
        assert_eq!(effects, expected);
    }
}

/// Catches an issued command that nobody is told of because the lead ended in the same turn.
#[test]
fn what_is_issued_is_announced_even_when_the_lead_ends() {
    let mut bench = Bench::new();
    let commands = five(&mut bench);
    bench.vote(3, Some(commands[1].id), 1);
    assert_eq!(bench.vote(1, Some(commands[1].id), 1), answers(1..=2));
    let effects = bench.step_down();
    assert_eq!(effects[2], success(1, ballot(1), commands[1].id, &commands[..2]));
    assert_eq!(replies(effects).len(), 3);
    assert_eq!(bench.end_turn(), []);
}

/// A13: the announcement to the learner of this node got lost; its silence would stop the node
/// after a few windows. Catches bodies that are forgotten before they are applied, a learner
/// that is reminded while it advances, and more in one reminder than it keeps.
#[test]
fn a_learner_that_does_not_advance_is_reminded() {
    for learn_from in [LearnFrom::Leader, LearnFrom::Voters] {
        let mut bench = Bench::with(|config| {
            config.learn_from = learn_from;
            config.window = 3;
        });
        let mut commands = five(&mut bench);
        bench.ack_all();
        commands.extend(proposed(&bench.end_turn()));
        bench.ack_all();
        bench.end_turn();
        assert_eq!(announced(&bench.wait(Duration::from_millis(99))), []);
        let again = success(1, ballot(1), commands[2].id, &commands[..3]);
        assert_eq!(bench.wait(Duration::from_millis(1)).last(), Some(&again));
        assert_eq!(announced(&bench.wait(Duration::from_millis(99))), []);
        bench.learn(&commands[..1]);
        assert_eq!(announced(&bench.wait(Duration::from_millis(99))), []);
        assert_eq!(announced(&bench.wait(Duration::from_millis(1))), commands[1..4]);
        bench.learn(&commands[1..]);
        assert_eq!(announced(&bench.wait(Duration::from_secs(9))), []);
    }
}

/// ADR 0042: catches a leader that does not say that it waits for votes, or for promises to lead on; and one that says so
/// while it can still tell a damaged acceptor what to learn, or before it leads.
#[test]
fn it_waits_while_something_is_proposed_and_not_issued() {
    let mut bench = Bench::new();
    bench.campaign();
    assert!(!bench.leader.load().waits, "nobody waits for it");
    bench.lead();
    bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 1 }));
    bench.end_turn();
    assert!(!bench.leader.load().waits, "a read");
    let mut commands = proposed(&bench.put("a", 1));
    assert!(bench.leader.load().waits);
    bench.ack_all();
    assert!(!bench.leader.load().waits);
    let mut effects = bench.call("join", "cluster.join", json!({"name": "n4", "address": "n4:7080"}));
    effects.extend(bench.end_turn());
    commands.extend(proposed(&effects));
    bench.ack_all();
    assert!(!bench.leader.load().waits);
    bench.learn(&commands);
    assert!(
        bench.leader.leads().is_none() && bench.leader.load().waits,
        "it asks for promises under the new membership"
    );
    bench.step_down();
    assert!(!bench.leader.load().waits);
}

/// S-26: catches an age of the oldest unissued command that restarts with every new one.
#[test]
fn the_age_of_the_oldest_unissued_command_is_known() {
    let mut bench = Bench::new();
    let commands = five(&mut bench);
    let since = bench.now.tick;
    bench.wait(Duration::from_secs(3));
    bench.put("b", 1);
    assert_eq!(bench.leader.load().oldest_unissued, Some(since));
    bench.vote(1, Some(commands[4].id), 1);
    bench.vote(2, Some(commands[4].id), 1);
    assert_eq!(bench.leader.load().oldest_unissued, Some(since + Duration::from_secs(3)));
    bench.ack_all();
    assert_eq!(bench.leader.load().oldest_unissued, None);
}
