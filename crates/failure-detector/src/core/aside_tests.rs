//! Rule 8: a leader that waits for votes in vain (ADR 0042).

use super::tests::{Bench, ME, TIMEOUT, says};
use super::*;

const OWN: Ballot = Ballot::new(9, ME);
/// The first patience, and for how long it stands aside.
const PATIENCE: u64 = 750;
const ASIDE: u64 = 4_000;

/// Seed 80000410 of 3698930, of seven nodes: this node leads, and is silent; it reaches 2, 3 and 4, who reach 5.
fn fringe() -> Bench {
    let mut bench = Bench::new(7);
    bench.local = LocalStatus { leads: Some(OWN), ballot: OWN, silent: true, ..LocalStatus::default() };
    bench.peers = (2..=4).map(|id| (id, says(&[1, 2, 3, 4, 5], None, Some(OWN)))).collect();
    bench.run(2_000);
    bench
}

fn stands_aside(seen: &[(u64, Effect)]) -> Vec<u64> {
    seen.iter().filter(|(_, effect)| matches!(effect, Effect::StandAside { .. })).map(|(at, _)| *at).collect()
}

/// Catches a leader that goes on for ever although too many of those that it counts are silent; that goes although it waits
/// for nothing, or although something is issued; and one that does not say why.
#[test]
fn a_leader_that_waits_in_vain_stands_aside() {
    let mut bench = fringe();
    assert_eq!(bench.run(5_000), [], "it waits for nothing");
    bench.local.waits = true;
    for issued in 1..6 {
        bench.local.issued = CommandNumber(issued);
        assert_eq!(bench.run(PATIENCE - 100), [], "something is issued");
    }
    bench.local.issued = CommandNumber(6);
    let began = bench.now + 10;
    let seen = bench.run(PATIENCE + 500);
    let waited = Duration::from_millis(PATIENCE);
    assert_eq!(seen, [(began + PATIENCE, Effect::StandAside { waited, silent: vec![ME], able: NodeId(2) })]);
}

/// Catches a leader whose votes are late, and whom one late heartbeat more costs the lead.
#[test]
fn only_time_in_which_it_could_not_decide_counts() {
    let mut bench = fringe();
    bench.local = LocalStatus { silent: false, waits: true, ..bench.local };
    assert_eq!(bench.run(5 * PATIENCE), []);
    bench.local.silent = true;
    assert_eq!(bench.run(PATIENCE - 100), []);
    assert_eq!(stands_aside(&bench.run(200)).len(), 1);
}

/// Catches a leader that goes although those that speak are enough, or although nobody could do better: then it may be
/// needed, and its successor would wait like it.
#[test]
fn a_leader_stays_where_nobody_could_do_better() {
    let speaks = |bench: &mut Bench| bench.local.silent = false;
    let nobody_hears_another = |bench: &mut Bench| {
        bench.peers.values_mut().for_each(|word| word.hears = [1, 2, 3, 4].map(NodeId).to_vec());
    };
    for change in [&speaks as &dyn Fn(&mut Bench), &nobody_hears_another] {
        let mut bench = fringe();
        bench.local.waits = true;
        change(&mut bench);
        bench.run(50);
        assert_eq!(bench.run(60_000), []);
    }
    // ADR 0023, limit 1: of three nodes one is down, and one is silent.
    let mut bench = Bench::new(3);
    bench.local = LocalStatus { leads: Some(OWN), ballot: OWN, waits: true, ..LocalStatus::default() };
    bench.peers.insert(2, Heartbeat { silent: true, ..says(&[1, 2], None, Some(OWN)) });
    bench.run(2_000);
    assert_eq!(bench.run(60_000), []);
}

/// Catches a leader that stays although only a node could do better that it does not hear, or leaves the lead to one that
/// may not lead.
#[test]
fn who_is_not_heard_may_be_able() {
    let mut bench = fringe();
    bench.local.waits = true;
    bench.peers.values_mut().for_each(|word| word.can_lead = false);
    let seen = bench.run(PATIENCE + 100);
    assert!(
        matches!(seen[..], [(_, Effect::StandAside { able: NodeId(5), .. })]),
        "those that it hears may not, and all of them hear 5: {seen:?}"
    );
}

/// Catches a node that says it could lead, or campaigns, before another one has had its turn, be it because something is
/// issued at last; and one that never does again.
#[test]
fn who_stands_aside_leaves_others_their_turn() {
    let mut bench = fringe();
    bench.local.waits = true;
    let aside = stands_aside(&bench.run(PATIENCE + 100))[0];
    assert!(!bench.detector.heartbeat().can_lead, "others do not wait for it");
    bench.local = LocalStatus { leads: None, waits: false, issued: CommandNumber(1), ..bench.local };
    bench.peers.values_mut().for_each(|word| word.follows = None);
    let campaigned = |seen: Vec<(u64, Effect)>| {
        seen.into_iter().find_map(|(at, effect)| matches!(effect, Effect::Campaign { .. }).then_some(at))
    };
    assert_eq!(campaigned(bench.run(ASIDE - 200)), None);
    let at = campaigned(bench.run(2_000)).expect("nobody else could");
    assert!(at >= aside + ASIDE, "{at} {aside}");
    assert!(bench.detector.heartbeat().can_lead);
}

/// ADR 0023, limits 1 and 2: catches a leader that may be the only possible one and stands aside again and again, without
/// the time that it needs; one that has forgotten how to; and one that does not take its own stall for patience.
#[test]
fn patience_doubles_until_something_is_issued() {
    let mut bench = fringe();
    bench.local.waits = true;
    let began = bench.now;
    let times = [vec![began], stands_aside(&bench.run(130 * PATIENCE))].concat();
    let patience: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]) / PATIENCE).collect();
    assert_eq!(patience, [1, 2, 4, 8, 16, 32, 32, 32]);
    bench.local.issued = CommandNumber(1);
    bench.run(PATIENCE / 2);
    bench.now += 10_000;
    let woken = bench.now;
    let seen = bench.run(PATIENCE);
    let again = stands_aside(&seen)[0];
    assert!((PATIENCE / 2 - 20..=PATIENCE / 2 + 20).contains(&(again - woken)), "{}", again - woken);
}

/// Rule 4: catches a turn that goes first to a candidate who is connected by silent nodes only, and could have nothing
/// issued; and such a candidate that has no turn at all, although it may be the only one.
#[test]
fn who_could_decide_has_its_turn_first() {
    for (silent, rank) in [(false, 0), (true, 1)] {
        let mut bench = Bench::new(5);
        bench.peers.insert(2, says(&[1, 2, 3, 4], None, None));
        bench.peers.insert(3, Heartbeat { silent, can_lead: false, ..says(&[1, 2, 3, 4], None, None) });
        let seen = bench.run(2_000);
        let first = seen.iter().find(|(_, effect)| matches!(effect, Effect::Campaign { .. })).expect("a campaign");
        assert_eq!(first.1, Effect::Campaign { rank, attempt: 1 }, "{silent}: {TIMEOUT:?} later for each");
    }
}
