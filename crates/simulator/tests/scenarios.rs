//! The partial connectivity of RELIABILITY 2, by name: progress within four election timeouts, no more than two
//! changes of the lead in the minute after the first, and everybody catches up who reaches anybody.

use std::time::Duration;

use protocol::NodeId;
use quorate_simulator::run::TAIL;
use quorate_simulator::scenarios::{ALL, Scenario};

/// An election timeout of the default configuration, where heartbeats come as they should.
const TIMEOUT: Duration = Duration::from_millis(250);
/// Delays and clients differ between these.
const SEEDS: std::ops::Range<u64> = 0..2;

fn play(scenario: &Scenario) {
    for seed in SEEDS {
        let (name, finding) = (scenario.name, scenario.play(seed, TAIL));
        let finding = finding.unwrap_or_else(|broken| panic!("{name}, seed {seed}: {broken}"));
        println!("{}{name}, seed {seed}: {finding}", finding.log);
        let again =
            format!("{name}, seed {seed}; again: cargo xtask simulate --scenario {name:?} --seed {seed} --log 400");
        assert_eq!(finding.led, Some(NodeId(1)), "the scenario is about a leader that is node 1: {again}");
        assert!(finding.issued.0 > 100, "nothing happens: {again}");
        assert!(finding.longest_pause <= TIMEOUT * 4, "no progress for {:?}: {again}", finding.longest_pause);
        let changes = &finding.changes;
        assert!(finding.changes_after_the_first() <= 2, "the lead changes again and again, {changes:?}: {again}");
        assert_eq!(finding.lagging, [], "they do not catch up: {again}");
        assert_eq!(finding.behind > 0, scenario.has_stale(), "who is behind? {again}");
    }
}

/// S-28, A13: catches a leader without a majority set that keeps others from leading.
#[test]
fn quorum_loss() {
    play(&ALL[0]);
}

/// S-28, S-07: catches a node that may not lead because it is behind, and one that leads before it
/// has caught up.
#[test]
fn constrained_election() {
    play(&ALL[1]);
}

/// S-28: catches two ends of a chain that depose each other through the middle, and an end that does not catch up
/// through it.
#[test]
fn chained() {
    play(&ALL[2]);
}

/// S-28: catches nodes at the fringe that depose a leader whom they do not see, or do not catch up through those that
/// they see.
#[test]
fn howard_and_abraham() {
    play(&ALL[3]);
}

/// S-28: catches a leader that keeps others quiet by what it sends, and hears no answer.
#[test]
fn a_leader_that_does_not_receive() {
    play(&ALL[4]);
}

/// S-28: catches a leader that nobody hears and that goes on, or others that wait for it.
#[test]
fn a_leader_that_does_not_send() {
    play(&ALL[5]);
}

/// S-28: catches a lead that changes with every flap of a link.
#[test]
fn a_flapping_link() {
    play(&ALL[6]);
}

/// Catches a scenario that cannot be played again by the name with which it fails, one that leaves nothing to read, and one
/// that is another when it is read or drawn.
#[test]
fn a_scenario_can_be_read_again() {
    let scenario = Scenario::named("flapping").expect("a part of its name");
    assert_eq!(Scenario::named(scenario.name).map(|again| again.name), Some(scenario.name));
    assert!(Scenario::named("nothing of this kind").is_none());
    let without = scenario.play(0, 0).expect("nothing is broken");
    let (with, svg) = scenario.draw(0, TAIL);
    let with = with.expect("nothing is broken");
    assert_eq!((without.issued, without.longest_pause), (with.issued, with.longest_pause));
    assert!(with.log.lines().count() > TAIL / 2 && svg.contains("<svg"), "{}", with.log);
}
