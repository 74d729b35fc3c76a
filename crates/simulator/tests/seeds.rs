//! Seeds: the same one twice, and many.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::ValueEnum as _;
use quorate_simulator::planted::Planted;
use quorate_simulator::run::{self, Job, Kind};
use quorate_simulator::tally::Tally;

/// Short, since the builds are for debugging.
const KIND: Kind = Kind { longest: Duration::from_secs(8), planted: None, changes: None };

/// RELIABILITY 5, class 1a: catches whatever makes a run depend on more than its seed (the order of
/// a hash table, an address, a clock), and seeds that are all alike.
#[test]
fn one_seed_gives_one_trace() {
    let mut hashes = BTreeSet::new();
    for seed in 1_000..1_010 {
        let (one, other) = (run::seed(seed, KIND), run::seed(seed, KIND));
        assert_eq!(one, other, "seed {seed}");
        hashes.insert(one.hash);
    }
    assert_eq!(hashes.len(), 10, "each seed has a run of its own");
}

/// A1 to A7, A12, A13, S-01 to S-12, S-20 to S-23, S-28: catches whatever the invariants catch, and
/// kinds of faults that no seed injects.
#[test]
fn two_hundred_seeds() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let job = Job { first: 1, seeds: run::SEEDS_FOR_ALL_KINDS, until: None, kind: KIND, threads };
    let summary = run::all(&job, &|report| println!("{report}\n"));
    println!("{summary}");
    assert_eq!(summary.complaint(), None);
    assert!(summary.tally.issued > summary.seeds * 5, "seeds in which hardly anything happens test nothing");
}

/// A1c, S-16 to S-19, ADR 0025 to 0027: nodes join, come to vote, weigh otherwise, leave and are removed. Catches
/// whatever the invariants catch, with the majority sets in force at each number, and a cluster that does not find a
/// leader again after a change.
#[test]
fn seeds_with_changes_of_the_membership() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let kind = Kind { changes: Some(100), ..KIND };
    let summary = run::all(&Job { first: 1, seeds: 100, until: None, kind, threads }, &|report| println!("{report}\n"));
    println!("{summary}");
    assert_eq!(summary.failed, Vec::new(), "a broken invariant");
    let Tally { changes, rejoined, stuck, .. } = summary.tally;
    assert!(changes > summary.seeds && rejoined > summary.seeds / 20, "{changes} changes, {rejoined} rejoined");
    assert!(stuck < summary.seeds / 20, "{stuck} of {} can decide nothing any more", summary.seeds);
}

/// A simulator that never failed may be unable to. Catches invariants that do not see each of the
/// known mistakes within 2,000 seeds, and leave them to a core that trips over itself, or to an invariant that is about
/// something else: what a mistake leads to in the end is no find.
#[test]
fn planted_mistakes_are_caught() {
    let all = [
        (Planted::RepliesBeforeSync, "promises: "),
        // What is told to be issued rests on votes above a gap, or above a change under the membership before it.
        (Planted::VotesWithGaps, "output gate: "),
        (Planted::NoBarrier, "output gate: "),
        (Planted::CountsVotesTwice, "output gate: "),
        (Planted::RejoinsAtOnce, "votes kept: "),
        (Planted::NeverRejoins, "liveness: "),
        (Planted::ForgetsTooMuch, "votes kept: "),
        (Planted::TakesVotesForIssued, "agreement: "),
        (Planted::GoesByFirstBallots, "anchored: "),
        (Planted::ForgetsItsBallots, "ballots: "),
        (Planted::ForgetsItsPromise, "promises: "),
        (Planted::TrustsANewDisk, "lost disks: "),
        (Planted::ReadsWithoutBarrier, "real time: "),
        (Planted::MislabelsReads, "reads: "),
        (Planted::DeniesWhatIsUnknown, "exactly once: "),
        (Planted::GivesKeysAway, "exactly once: "),
        (Planted::HidesRefusals, "replays: "),
        (Planted::RepeatsRequests, "one effect: "),
        (Planted::CertifiesNothing, "serial executions: "),
        (Planted::LetsLessComeIn, "stock: "),
        (Planted::GoesByItsClock, "times: "),
        (Planted::RunsAtLearners, "leaders execute: "),
        (Planted::AcknowledgesEarly, "acknowledged: "),
        (Planted::SnapshotsLackARecord, "equal states: "),
        (Planted::KillsLoseWrites, "applied prefix: "),
    ];
    for (planted, invariant) in all {
        let changes = Some(if planted == Planted::NoBarrier { 100 } else { 0 });
        let caught = (1..=2_000).find_map(|seed| {
            let failure = run::seed(seed, Kind { planted: Some(planted), changes, ..KIND }).failure?;
            println!("{planted:?}: seed {seed}: {}", failure.what);
            assert!(!failure.what.starts_with("a failed assertion"), "{planted:?}: {}", failure.what);
            failure.what.starts_with(invariant).then_some(seed)
        });
        assert!(caught.is_some(), "{planted:?} is not found by {invariant}");
    }
    let planted: Vec<Planted> = all.iter().map(|(planted, _)| *planted).collect();
    assert!(Planted::value_variants().iter().all(|known| planted.contains(known)), "one is not tried: {planted:?}");
}
