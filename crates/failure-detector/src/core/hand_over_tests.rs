//! Rule 7: a lead that is handed over (ADR 0030).

use protocol::message::HandOver;

use super::tests::{Bench, LEADER, ME, TIMEOUT, followers};
use super::*;

fn takes_over(seen: &[(u64, Effect)]) -> Vec<u64> {
    let at = |(at, effect): &(u64, Effect)| (*effect == Effect::TakeOver { from: NodeId(2) }).then_some(*at);
    seen.iter().filter_map(at).collect()
}

/// Node 2 leads, and says that it hands over to a node that has applied so much.
fn handing_over(to: NodeId, last: u64) -> Bench {
    let mut bench = followers(LEADER);
    let word = bench.peers.get_mut(&2).expect("it leads");
    word.hands_over = Some(HandOver { to, last: CommandNumber(last) });
    bench
}

/// Catches a node that does not take over, or does before it has applied everything, or that begins one ballot after the
/// other; and one that takes over from a leader that works.
#[test]
fn the_successor_campaigns_when_it_has_applied_everything() {
    let mut bench = handing_over(ME, 10);
    bench.local.applied = CommandNumber(9);
    assert_eq!(bench.run(1_000), []);
    bench.local.applied = CommandNumber(10);
    let began = bench.now;
    let seen = bench.run(600);
    assert_eq!(takes_over(&seen), [began + 10, began + 10 + 250, began + 10 + 500], "{seen:?}");
    bench.peers.get_mut(&2).expect("it leads").hands_over = None;
    assert_eq!(bench.run(1_000), []);
}

/// Catches a node that takes what is another's, that may not lead, or that leads already.
#[test]
fn nobody_else_takes_over() {
    let mut bench = handing_over(NodeId(3), 0);
    assert_eq!(bench.run(1_000), []);
    let mut bench = handing_over(ME, 0);
    bench.local.barred = true;
    assert_eq!(bench.run(1_000), []);
    let mut bench = handing_over(ME, 0);
    bench.local.leads = Some(Ballot::new(5, ME));
    assert_eq!(takes_over(&bench.run(1_000)), Vec::<u64>::new());
}

/// A leader stops leading when it is superseded, shortly before the successor leads. Catches the successor, whose turn it
/// would be, that begins another ballot meanwhile; and another node that does.
#[test]
fn nobody_campaigns_against_a_lead_that_is_taken_over() {
    for successor in [ME, NodeId(3)] {
        let mut bench = handing_over(successor, 0);
        bench.run(50);
        let next = Ballot::new(5, successor);
        bench.local.ballot = next;
        let word = bench.peers.get_mut(&2).expect("it led");
        (word.leads, word.follows, word.ballot, word.hands_over) = (None, None, next, None);
        bench.peers.get_mut(&3).expect("it is there").follows = None;
        let silent = u64::try_from(TIMEOUT.as_millis()).expect("short") - 50;
        let seen = bench.run(silent);
        let campaigns = seen.iter().filter(|(_, effect)| matches!(effect, Effect::Campaign { .. }));
        assert_eq!(campaigns.count(), 0, "{seen:?}");
        let seen = bench.run(2_000);
        assert!(
            seen.iter().any(|(_, effect)| matches!(effect, Effect::Campaign { .. })),
            "in the end it does: {seen:?}"
        );
    }
}

/// Catches a hand-over that the others hear of with the next regular heartbeat only: callers wait meanwhile.
#[test]
fn it_is_told_at_once() {
    let mut bench = followers(LEADER);
    let own = Ballot::new(5, ME);
    bench.local = LocalStatus { leads: Some(own), ballot: own, ..bench.local };
    bench.run(200);
    let over = HandOver { to: NodeId(3), last: CommandNumber(7) };
    bench.local.hands_over = Some(over);
    bench.now += 10;
    let effects = bench.input(Input::Tick(bench.local));
    let told = |effect: &Effect| matches!(effect, Effect::Send { heartbeat, .. } if heartbeat.hands_over == Some(over));
    assert_eq!(effects.iter().filter(|effect| told(effect)).count(), 2, "{effects:?}");
}
