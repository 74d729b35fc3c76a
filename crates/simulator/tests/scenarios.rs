//! The partial connectivity of RELIABILITY 2, by name: progress within four election timeouts, no more than two
//! changes of the lead in the minute after the first, and everybody catches up who reaches anybody.

use std::time::Duration;

use protocol::NodeId;
use quorate_simulator::scenarios::{ALL, Scenario};

/// An election timeout of the default configuration, where heartbeats come as they should.
const TIMEOUT: Duration = Duration::from_millis(250);
/// Delays and clients differ between these.
const SEEDS: std::ops::Range<u64> = 0..2;

fn play(scenario: &Scenario) {
    for seed in SEEDS {
        let finding = scenario.play(seed).unwrap_or_else(|broken| panic!("{}, seed {seed}: {broken}", scenario.name));
        println!(
            "{}, seed {seed}: {} changes of the lead, longest pause {:?}, {} commands, {} behind",
            scenario.name,
            finding.changes.len(),
            finding.longest_pause,
            finding.issued,
            finding.behind
        );
        assert_eq!(finding.led, Some(NodeId(1)), "{}: the scenario is about a leader that is node 1", scenario.name);
        assert!(finding.issued.0 > 100, "{}: nothing happens", scenario.name);
        assert!(
            finding.longest_pause <= TIMEOUT * 4,
            "{}, seed {seed}: no progress for {:?}",
            scenario.name,
            finding.longest_pause
        );
        assert!(
            finding.changes_after_the_first() <= 2,
            "{}, seed {seed}: the lead changes again and again: {:?}",
            scenario.name,
            finding.changes
        );
        assert_eq!(finding.lagging, [], "{}, seed {seed}: they do not catch up", scenario.name);
        assert_eq!(finding.behind > 0, scenario.has_stale(), "{}, seed {seed}: who is behind?", scenario.name);
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
