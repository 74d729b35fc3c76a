//! The output gate: nothing that shows leader state leaves before all that it shows is issued,
//! and a round sent afterwards has proved that this node still leads.

use super::*;

fn barrier(id: u64) -> ToLeader {
    ToLeader::ReadBarrier(ReadBarrier { id })
}

/// S-08, S-20, S-21: a result without a command. Catches an answer before the round that was
/// sent after it, or with a round that had been sent before.
#[test]
fn an_unchanged_result_waits_for_a_later_round() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    bench.ack_all();
    bench.end_turn();
    bench.put("a", 2);
    assert_eq!(bench.call("k", "kv.delete", json!({"key": "none"})), []);
    assert_eq!(bench.vote(2, Some(id(ballot(1), 2)), 2).len(), 0);
    assert_eq!(bench.vote(3, Some(id(ballot(1), 2)), 2), [issued(2, "put-a-2", 2, "{}", false)]);
    let round = BeginBallot { ballot: ballot(1), commands: Vec::new(), round: 3, membership: CommandNumber::NULL };
    let expected = to_acceptors(&ToAcceptor::BeginBallot(round));
    assert_eq!(begun(&bench.end_turn()), begun(&expected), "an empty run asks whether the promise stands");
    assert_eq!(bench.vote(1, None, 3), []);
    assert_eq!(bench.vote(1, None, 3), [], "the same acceptor");
    assert_eq!(bench.vote(2, None, 3), [executed(2, "k", unchanged(2, r#"{"deleted":false}"#))]);
}

/// S-08: the same with the number: confirmed rounds are not enough while a command that the
/// function saw is not issued.
#[test]
fn an_unchanged_result_waits_for_what_it_saw() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    bench.call("k", "test.look", json!({}));
    bench.call("l", "inventory.outbound", json!({"warehouse": "A", "amount": 1}));
    bench.end_turn();
    bench.vote(1, None, 2);
    assert_eq!(bench.vote(2, None, 2), [], "both rounds are confirmed");
    bench.vote(1, Some(id(ballot(1), 1)), 2);
    let refused = Outcome::Refused {
        at: number(1),
        code: "insufficient_stock".into(),
        message: "A has 0, and 1 are wanted".into(),
    };
    let expected =
        [issued(2, "put-a-1", 1, "{}", false), executed(2, "k", unchanged(1, r#""1""#)), executed(2, "l", refused)];
    assert_eq!(bench.vote(3, Some(id(ballot(1), 1)), 2), expected);
}

/// A4, S-08: the last command that a result saw is issued because the learner knows it. Catches
/// a gate that only votes open.
#[test]
fn the_gate_opens_when_the_learner_knows() {
    let mut bench = Bench::new();
    bench.lead();
    let commands = proposed(&bench.put("a", 1));
    bench.call("k", "test.look", json!({}));
    bench.end_turn();
    bench.vote(1, None, 2);
    assert_eq!(bench.vote(2, None, 2), []);
    let expected = [issued(2, "put-a-1", 1, "{}", false), executed(2, "k", unchanged(1, r#""1""#))];
    assert_eq!(bench.learn(&commands), expected);
}

/// S-20: catches a read that is answered on old proof, a round for each read, and a barrier
/// below what was acknowledged.
#[test]
fn barriers_share_a_round_that_is_sent_after_them() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    assert_eq!(bench.say(2, barrier(5)), []);
    bench.ack_all();
    assert_eq!(bench.say(3, barrier(6)), []);
    let sent = begun(&bench.end_turn());
    assert_eq!(sent.len(), 3, "one round for both: {sent:?}");
    assert_eq!(bench.say(3, barrier(7)), [], "after the round was sent");
    bench.vote(3, None, 2);
    assert_eq!(bench.vote(2, None, 2), [passed(2, 5, Some(0)), passed(3, 6, Some(1))]);
    bench.end_turn();
    bench.vote(1, None, 3);
    assert_eq!(bench.vote(2, None, 3), [passed(3, 7, Some(1))]);
    assert_eq!(bench.end_turn(), [], "no more rounds than are needed");
}

/// S-20: an earlier leader may have acknowledged its history. Catches a barrier at a new leader
/// that lies below it.
#[test]
fn after_a_failover_a_barrier_waits_for_the_history() {
    let commands = chain(foreign(1), CommandId::NULL, 3);
    let mut bench = Bench::new();
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, Vec::new());
    bench.promise(2, CommandId::NULL, commands.iter().map(|command| vote_for(foreign(1), command)).collect());
    bench.say(2, barrier(5));
    bench.end_turn();
    bench.vote(1, Some(commands[1].id), 2);
    assert_eq!(bench.vote(2, Some(commands[1].id), 2), [], "2 of 3 are issued");
    assert_eq!(bench.vote(2, Some(commands[2].id), 2), []);
    assert_eq!(bench.vote(1, Some(commands[2].id), 2), [passed(2, 5, Some(3))]);
}

/// A3, S-20: where learners count votes, one may have shown what its leader does not know to be
/// issued. Catches a barrier below that.
#[test]
fn where_learners_count_a_barrier_is_at_what_is_proposed() {
    let mut bench = Bench::with(|config| config.learn_from = LearnFrom::Voters);
    bench.lead();
    bench.put("a", 1);
    bench.say(2, barrier(5));
    bench.end_turn();
    bench.vote(1, None, 2);
    assert_eq!(bench.vote(2, None, 2), []);
    bench.vote(1, Some(id(ballot(1), 1)), 2);
    let answers = bench.vote(2, Some(id(ballot(1), 1)), 2);
    assert_eq!(answers, [issued(2, "put-a-1", 1, "{}", false), passed(2, 5, Some(1))]);
}

/// S-20, A12: catches a round that is lost and never asked again, with reads waiting for ever.
#[test]
fn a_lost_round_is_sent_again() {
    let mut bench = Bench::with(|config| config.rounds_in_flight = 1);
    bench.lead();
    bench.say(2, barrier(5));
    bench.end_turn();
    bench.say(2, barrier(6));
    assert_eq!(bench.end_turn(), [], "one round at a time");
    let again = begun(&bench.wait(Duration::from_millis(100)));
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|(_, begin)| begin.round == 1 && begin.commands.is_empty()), "{again:?}");
    bench.vote(1, None, 1);
    assert_eq!(bench.vote(3, None, 1), [passed(2, 5, Some(0))]);
    assert_eq!(begun(&bench.end_turn()).len(), 3, "now the next");
}

/// A12: catches an acceptor that is asked again for a round that it has returned, because others have
/// not.
#[test]
fn who_returned_a_round_is_not_asked_again() {
    let mut bench = Bench::new();
    bench.lead();
    bench.say(2, barrier(5));
    bench.end_turn();
    bench.vote(1, None, 1);
    let asked: Vec<u64> = begun(&bench.wait(Duration::from_millis(100))).into_iter().map(|(to, _)| to).collect();
    assert_eq!(asked, [2, 3]);
}

/// A12: answers arrive in any order. Catches an old one that takes back what a newer one proved.
#[test]
fn an_old_answer_takes_nothing_back() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    bench.say(2, barrier(5));
    bench.end_turn();
    bench.vote(1, Some(id(ballot(1), 1)), 2);
    bench.vote(1, Some(id(ballot(1), 1)), 1);
    let expected = [issued(2, "put-a-1", 1, "{}", false), passed(2, 5, Some(0))];
    assert_eq!(bench.vote(3, Some(id(ballot(1), 1)), 2), expected);
}

/// Section 13: cut off from a majority set, a leader holds only so many replies. Catches memory
/// that grows with what callers ask.
#[test]
fn held_replies_are_bounded() {
    let mut bench = Bench::new();
    bench.lead();
    for id in 0..super::super::leading::HELD_REPLIES_MAX as u64 {
        assert_eq!(bench.say(2, barrier(id)), []);
    }
    assert_eq!(bench.say(2, barrier(u64::MAX)), [passed(2, u64::MAX, None)]);
    assert_eq!(bench.call("k", "test.look", json!({})), [executed(2, "k", Outcome::Overloaded)]);
    assert_eq!(bench.call("l", "kv.put", json!({"key": "a", "value": 1})), [], "a command needs no gate");
}

/// S-21, S-22, A11: the lead ends with requests at every place. Catches one that is not answered,
/// or is answered as if this node led: only a proposed command's fate is unknown.
#[test]
fn the_end_of_a_lead_answers_everybody_correctly() {
    let mut bench = Bench::with(|config| config.window = 1);
    bench.lead();
    let wait = call("waits", "inventory.outbound", json!({"warehouse": "A", "amount": 1}));
    bench.say(2, ToLeader::ExecuteFunction(patient(60, wait)));
    bench.call("pooled", "test.copy_on_pool", json!({}));
    bench.call("gated", "test.look", json!({}));
    bench.say(3, barrier(5));
    bench.put("a", 1);
    bench.say(3, ToLeader::ExecuteFunction(call("put-a-1", "kv.put", json!({"key": "a", "value": 1}))));
    bench.call("queued", "kv.put", json!({"key": "a", "value": 2}));
    let load = bench.leader.load();
    assert_eq!((load.unissued, load.kept_calls, load.held_replies), (1, 3, 2));
    let expected = [
        executed(2, "put-a-1", Outcome::LeadershipLost),
        executed(3, "put-a-1", Outcome::LeadershipLost),
        executed(2, "gated", Outcome::NotLeader),
        passed(3, 5, None),
        executed(2, "waits", Outcome::NotLeader),
        executed(2, "pooled", Outcome::NotLeader),
        executed(2, "queued", Outcome::NotLeader),
    ];
    assert_eq!(replies(bench.step_down()), expected);
    assert_eq!(bench.leader.load(), Load::default());
}
