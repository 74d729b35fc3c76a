//! What acceptors that may have lost votes are told, and nodes that may have lost ballots do not do.

use protocol::message::{Rejoin, Rejoined};

use super::*;

fn rejoin(ballot: Ballot) -> ToLeader {
    ToLeader::Rejoin(Rejoin { ballot, nonce: 7 })
}

fn rejoined(to: u64, last: u64) -> Effect {
    let (ballot, last, membership) = (ballot(2), CommandNumber(last), CommandNumber::NULL);
    let message = Rejoined { ballot, nonce: 7, last, membership };
    send(to, Message::Acceptor(ToAcceptor::Rejoined(message)))
}

/// S-14: catches an answer that leaves out what the acceptor may have voted for: the initial history, what was
/// proposed in this ballot, sent or kept back by the window; one that goes down when commands are issued; and
/// one that is given by who does not lead that ballot, or to who does not vote.
#[test]
fn an_acceptor_is_told_the_last_proposed_command() {
    let mut bench = Bench::with(|config| config.window = 2);
    assert_eq!(bench.say(3, rejoin(ballot(2))), [Effect::Ignored(IgnoreReason::OtherBallot)], "idle");
    let history = chain(foreign(1), CommandId::NULL, 3);
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, history.iter().map(|command| vote_for(foreign(1), command)).collect());
    assert_eq!(bench.say(3, rejoin(ballot(2))), [Effect::Ignored(IgnoreReason::OtherBallot)], "preparing");
    bench.promise(2, CommandId::NULL, Vec::new());
    assert_eq!(bench.say(3, rejoin(ballot(2))), [rejoined(3, 3)], "the history, beyond the window");
    assert_eq!(bench.say(3, rejoin(ballot(1))), [Effect::Ignored(IgnoreReason::OtherBallot)]);
    assert_eq!(bench.say(4, rejoin(ballot(2))), [Effect::Ignored(IgnoreReason::NotAnAcceptor)]);
    bench.ack_all();
    bench.end_turn();
    bench.ack_all();
    bench.end_turn();
    assert_eq!(bench.leader.load().unissued, 0);
    assert_eq!(bench.say(3, rejoin(ballot(2))), [rejoined(3, 3)], "all of it is issued");
    bench.learn(&history);
    bench.put("a", 1);
    assert_eq!(bench.say(3, rejoin(ballot(2))), [rejoined(3, 4)], "not even sent");
}

/// ADR 0026: catches an answer that does not say under which membership it is given, one that leaves out a change under
/// way, and a damaged node which only learns now and is not answered: made an acceptor again, it would be missed.
#[test]
fn the_answer_names_the_membership_and_goes_to_learners_too() {
    let mut bench = Bench::new();
    bench.lead();
    let demotes = json!({"node": 3, "weight": 0});
    let mut effects = bench.call("demote", "cluster.set_acceptor", demotes);
    effects.extend(bench.end_turn());
    let commands = proposed(&effects);
    let told = |last, membership, ballot| {
        let message = Rejoined { ballot, nonce: 7, last: CommandNumber(last), membership: CommandNumber(membership) };
        [send(3, Message::Acceptor(ToAcceptor::Rejoined(message)))]
    };
    assert_eq!(bench.say(3, rejoin(ballot(1))), told(1, 0, ballot(1)), "under the membership before");
    bench.ack_all();
    bench.learn(&commands);
    bench.promise(1, commands[0].id, Vec::new());
    bench.promise(2, commands[0].id, Vec::new());
    assert_eq!(bench.leader.leads(), Some(ballot(2)));
    assert_eq!(bench.say(3, rejoin(ballot(2))), told(1, 1, ballot(2)));
}

/// ADR 0023, found by seed 48: a damaged node that only learns now has promised more than the ballot that is led, and says so
/// to whoever leads. Catches a leader that does not hear it: there would never be a ballot in which it has its word back.
#[test]
fn a_promise_of_a_damaged_learner_ends_a_lower_ballot() {
    let mut bench = Bench::with(|config| {
        config.membership = Arc::new(config.membership.weighing(NodeId(3), 0).expect("two are left"));
    });
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(1, CommandId::NULL, Vec::new());
    bench.promise(2, CommandId::NULL, Vec::new());
    let led = bench.leader.leads().expect("two of two have promised");
    bench.say(4, my_next_bal(foreign(9), led));
    assert_eq!(bench.leader.leads(), Some(led), "a stranger");
    bench.say(3, my_next_bal(foreign(9), led));
    assert_eq!(bench.leader.leads(), None);
}

/// Liveness: catches a leader that answers only whom it has asked. It is idle and has asked nobody, in two schedules:
/// 3 promised, and started anew while this node was still catching up; or 3 has voted for all there is, starts
/// anew, and a vote of its last life comes late. The acceptor asks by itself (`an_idle_leader_is_asked_unasked`).
#[test]
fn who_asks_unasked_is_answered() {
    let mut bench = Bench::new();
    let issued = chain(foreign(1), CommandId::NULL, 2);
    bench.feed(Input::Campaign { above: foreign(1) });
    bench.promise(2, issued[1].id, Vec::new());
    bench.promise(3, issued[1].id, Vec::new());
    assert_eq!(bench.feed(Input::Connected(NodeId(3))), [], "its promise is there, and this node catches up");
    bench.learn(&issued);
    assert_eq!(bench.leader.leads(), Some(ballot(2)));
    let asks_3 = |effects: &[Effect]| begun(effects).iter().any(|(to, _)| *to == 3);
    assert!(!asks_3(&bench.wait(Duration::from_secs(2))), "idle");
    assert_eq!(bench.say(3, rejoin(ballot(2))), [rejoined(3, 2)]);

    bench.put("a", 1);
    bench.end_turn();
    bench.ack_all();
    bench.ack(3);
    bench.end_turn();
    assert!(!asks_3(&bench.feed(Input::Connected(NodeId(3)))), "it lacks nothing");
    bench.ack(3);
    assert!(!asks_3(&bench.wait(Duration::from_secs(2))), "idle");
    assert_eq!(bench.say(3, rejoin(ballot(2))), [rejoined(3, 3)]);
}

/// S-16, B1: catches a node that begins ballots with a disk that may not know of those it began before; and one that
/// must be told once that it may, and never campaigns if that is lost.
#[test]
fn a_node_that_is_barred_does_not_campaign() {
    let mut bench = Bench::new();
    bench.barred = true;
    assert_eq!(bench.campaign(), [Effect::Ignored(IgnoreReason::Barred)]);
    bench.barred = false;
    assert_eq!(bench.campaign()[0], Effect::Persist(LogRecord::LastTried(ballot(1))));
}
