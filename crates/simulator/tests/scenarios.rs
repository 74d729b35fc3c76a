//! The partial connectivity of RELIABILITY 2, by name: progress within four election timeouts (twenty where all links of
//! the leader flap, six where acceptors are silent), no more than two changes of the lead in the minute after the first, a leader without a majority set
//! that steps down, and everybody catches up who reaches anybody.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::LearnFrom;
use quorate_simulator::run::TAIL;
use quorate_simulator::scenarios::{ALL, Scenario};

/// An election timeout of the default configuration, where heartbeats come as they should.
const TIMEOUT: Duration = Duration::from_millis(250);
/// Until a leader without a majority set has stepped down: one timeout until it misses the others, or they it; another one in
/// which they may come back; and two heartbeats, to say so and hear of it.
const STEPS_DOWN: Duration = Duration::from_millis(2 * 250 + 2 * 50);

fn scenario(name: &str) -> &'static Scenario {
    Scenario::named(name).unwrap_or_else(|| panic!("no scenario {name:?}"))
}

/// With seeds for each node in the place of the leader, and for both ways to learn.
fn play(name: &str) {
    let scenario = scenario(name);
    let (mut led, mut learnt, mut changed) = (BTreeSet::new(), BTreeSet::new(), false);
    for seed in 0..scenario.nodes * 2 {
        let (name, finding) = (scenario.name, scenario.play(seed, TAIL));
        let finding = finding.unwrap_or_else(|broken| panic!("{name}, seed {seed}: {broken}"));
        println!("{}{name}, seed {seed}: {finding}", finding.log);
        let again =
            format!("{name}, seed {seed}; again: cargo xtask simulate --scenario {name:?} --seed {seed} --log 400");
        assert_eq!(finding.led, Some(scenario.place(seed, 1)), "the scenario is about another leader: {again}");
        led.extend(finding.led);
        learnt.insert(Scenario::learn_from(seed) == LearnFrom::Leader);
        assert!(finding.issued.0 > 100, "nothing happens: {again}");
        let most = TIMEOUT * scenario.timeouts;
        assert!(finding.longest_pause <= most, "no progress for {:?}: {again}", finding.longest_pause);
        let changes = &finding.changes;
        changed |= !changes.is_empty();
        assert!(finding.changes_after_the_first() <= 2, "the lead changes again and again, {changes:?}: {again}");
        assert_eq!(finding.lagging, [], "they do not catch up: {again}");
        assert_eq!(finding.behind > 0, scenario.has_stale(), "who is behind? {again}");
        assert_eq!(finding.took_a_state, scenario.needs_a_state(), "how does it catch up? {again}");
        if scenario.loses_majority {
            let stepped_down = finding.stepped_down.unwrap_or(Duration::MAX);
            assert!(stepped_down <= STEPS_DOWN, "it leads on for {stepped_down:?}: {again}");
        }
    }
    assert!(changed || !scenario.silences(), "{}: nobody left the lead to others", scenario.name);
    assert_eq!(
        (led.len() as u64, learnt.len()),
        (scenario.nodes, 2),
        "every node leads, and both ways to learn are there"
    );
}

/// S-28, A13: catches a leader without a majority set that keeps others from leading, or leads on.
#[test]
fn quorum_loss() {
    play("quorum loss");
}

/// S-28, S-07: catches a node that may not lead because it is behind, and one that leads before it
/// has caught up.
#[test]
fn constrained_election() {
    play("constrained election:");
}

/// The same, of one that is so far behind that nobody has the commands any more which it lacks.
#[test]
fn constrained_election_by_a_whole_state() {
    play("constrained election, far behind");
}

/// S-28: catches two ends of a chain that depose each other through the middle, and an end that does not catch up
/// through it.
#[test]
fn chained() {
    play("chained");
}

/// S-28: catches nodes at the fringe that depose a leader whom they do not see, or do not catch up through those that
/// they see.
#[test]
fn howard_and_abraham() {
    play("Howard and Abraham");
}

/// S-28, ADR 0042: catches a leader that counts a silent acceptor, has nothing issued for ever, and keeps others from
/// leading.
#[test]
fn a_leader_that_counts_a_silent_acceptor() {
    play("silent: the leader");
}

/// S-28: catches a leader that keeps others quiet by what it sends, and hears no answer.
#[test]
fn a_leader_that_does_not_receive() {
    play("sends and does not receive");
}

/// S-28: catches a leader that nobody hears and that goes on, or others that wait for it.
#[test]
fn a_leader_that_does_not_send() {
    play("receives and does not send");
}

/// S-28: catches a lead that changes with every flap of a link.
#[test]
fn a_flapping_link() {
    play("flapping: a link");
}

/// The same where all links of the leader flap, so that it has no majority set every other time.
#[test]
fn all_links_of_the_leader_flap() {
    play("flapping: all links");
}

/// The same in one direction only: the leader hears everybody all the time, and they do not hear it.
#[test]
fn what_the_leader_sends_flaps() {
    play("flapping: what the leader sends");
}

/// And the reverse.
#[test]
fn what_the_leader_is_sent_flaps() {
    play("flapping: what the leader is sent");
}

/// Catches a scenario that no test plays, or that has the name of another one in its own.
#[test]
fn every_scenario_has_a_name_of_its_own() {
    for scenario in &ALL {
        assert_eq!(Scenario::named(scenario.name).map(|found| found.name), Some(scenario.name));
    }
    let source = include_str!("scenarios.rs");
    let played: BTreeSet<&str> =
        source.lines().filter_map(|line| line.trim().strip_prefix("play(\"")?.strip_suffix("\");")).collect();
    let names: BTreeSet<&str> = played.iter().map(|name| scenario(name).name).collect();
    assert_eq!(names, ALL.iter().map(|scenario| scenario.name).collect());
}

/// Catches a scenario that cannot be played again by the name with which it fails, one that leaves nothing to read, and one
/// that is another when it is read or drawn.
#[test]
fn a_scenario_can_be_read_again() {
    let scenario = Scenario::named("flapping").expect("a part of its name");
    assert!(Scenario::named("nothing of this kind").is_none());
    let without = scenario.play(0, 0).expect("nothing is broken");
    let (with, svg) = scenario.draw(0, TAIL);
    let with = with.expect("nothing is broken");
    assert_eq!((without.issued, without.longest_pause), (with.issued, with.longest_pause));
    assert!(with.log.lines().count() > TAIL / 2 && svg.contains("<svg"), "{}", with.log);
}
