//! What acceptors that may have lost votes are told, and nodes that may have lost ballots do not do.

use protocol::message::{Rejoin, Rejoined};

use super::*;

fn rejoin(ballot: Ballot) -> ToLeader {
    ToLeader::Rejoin(Rejoin { ballot, nonce: 7 })
}

fn rejoined(to: u64, last: u64) -> Effect {
    let message = Rejoined { ballot: ballot(2), nonce: 7, last: CommandNumber(last) };
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

/// Liveness: catches a silent acceptor of an idle cluster that nobody ever asks for an answer, so that it has
/// nothing to answer with `Rejoin`; and one that is asked for ever after it has answered.
#[test]
fn who_connects_again_is_asked_for_an_answer() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    bench.end_turn();
    bench.ack_all();
    bench.ack(3);
    bench.end_turn();
    assert_eq!(begun(&bench.wait(Duration::from_secs(2))), [], "nothing is missing");
    let asked = begun(&bench.feed(Input::Connected(NodeId(3))));
    assert_eq!(asked.iter().map(|(to, begin)| (*to, begin.commands.len())).collect::<Vec<_>>(), [(3, 0)]);
    bench.say(3, rejoin(ballot(1)));
    assert_eq!(begun(&bench.wait(Duration::from_secs(1))).len(), 1, "that it asks is no answer");
    bench.ack(3);
    assert_eq!(begun(&bench.wait(Duration::from_secs(2))), []);
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
