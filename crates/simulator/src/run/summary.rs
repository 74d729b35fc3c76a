//! What came of many seeds, and whether it is good enough: which kinds of faults there were, how much was decided, and how long
//! the slowest answers took. A verdict is made only of what so many seeds must show.

use std::fmt;
use std::time::Duration;

use super::{Kind, MANY_EVENTS, Report, Timeouts};
use crate::fault::{Fault, Shape};
use crate::invariants::Disks;
use crate::tally::{GOALS_FAULTS, Tally};

/// Seeds after which every kind of fault must have been there: the rarest come in one of some
/// dozens.
pub const SEEDS_FOR_ALL_KINDS: u64 = 200;

/// The same for kinds of which there must be a hundred by then, if they come as often as their goal says. What is off in
/// half of the worlds is in some of so many.
const SEEDS_FOR_FREQUENT: u64 = 30;

/// Seeds of the usual length after which no kind of fault may come less than half as often as its goal says, nor too little
/// be decided in seeds of any length. Not the whole goal: a kind that a few seeds bring most of varies from one thousand seeds
/// to the next.
pub const SEEDS_FOR_GOALS: u64 = 1_000;

/// Of so many seeds in which the membership changes, one may end without a majority set that can speak: then liveness
/// was not tried, and a fault of the product could hide there. A few are always allowed. Measured since changes go on until there
/// were 50,000 events: one of 27 to one of 50.
const STUCK_SHARE: u64 = 15;
const STUCK_FEW: usize = 3;

/// In 99 % of the seeds nobody waits longer for an answer after the faults, in hundredths of the longest election timeout:
/// three nodes that do not answer, one after the other, and what the fourth one needs: who leads from a fringe may be out of
/// reach for some of the core. Measured: 4.4 to 6.1, and 15.9 in the slowest seed. The bound of each seed is far above, since
/// the slowest of very many are slower.
const SLOWEST_USUAL: u64 = 800;

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What they have in common.
    pub kind: Kind,
    /// How many were run.
    pub seeds: u64,
    /// Their events.
    pub events: u64,
    /// How many had at least [`MANY_EVENTS`].
    pub long: u64,
    /// Their counts.
    pub tally: Tally,
    /// Those that failed, in the order in which they did.
    pub failed: Vec<Report>,
    /// Those that ended without a majority set that can speak.
    pub stuck: Vec<u64>,
    /// Commands issued in the faults of each.
    pub issued: Vec<u64>,
    /// The slowest answer after the faults of each, as in [`Report::slowest`], and the seed.
    pub slowest: Vec<(u64, u64)>,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    /// The slowest answer of all seeds but one of so many, as in [`Report::slowest`], and the seed; 0: of all.
    #[must_use]
    pub fn slowest_but(&self, one_of: usize) -> Option<(u64, u64)> {
        let mut all = self.slowest.clone();
        all.sort_unstable();
        let slower = all.len().checked_div(one_of).unwrap_or_default();
        all.into_iter().rev().nth(slower)
    }

    /// So many commands were issued in the faults of all seeds but one of so many.
    fn issued_but(&self, one_of: usize) -> u64 {
        let mut all = self.issued.clone();
        all.sort_unstable();
        let fewer = all.len() / one_of;
        all.get(fewer).copied().unwrap_or_default()
    }

    /// What the seeds lacked that ended without a majority set that can speak.
    fn lacked(&self) -> String {
        let counts = Disks::WHY_STUCK.iter().zip(self.tally.lacked).filter(|(_, count)| *count > 0);
        counts.map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// Whether there were seeds enough for every kind of fault, and for the time of the slowest answers.
    fn judges_kinds(&self) -> bool {
        self.seeds >= SEEDS_FOR_ALL_KINDS
    }

    /// Whether no kind may be rarer than its goal.
    fn judges_goals(&self) -> bool {
        self.kind.is_usual() && self.has_many_seeds()
    }

    fn has_many_seeds(&self) -> bool {
        self.seeds >= SEEDS_FOR_GOALS
    }

    /// Why the job has failed, if it has: a seed, or kinds of faults that never were, or were too rare, though there
    /// were seeds enough.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        if !self.failed.is_empty() {
            let seeds: Vec<String> = self.failed.iter().map(|report| report.seed.to_string()).collect();
            return Some(format!("failed seeds: {}", seeds.join(", ")));
        }
        if self.seeds == 0 {
            return Some("no seed was run".to_owned());
        }
        if self.stuck.len() > STUCK_FEW && self.stuck.len() as u64 * STUCK_SHARE > self.tally.changing {
            return Some(format!("too many seeds ended without a majority set that can speak: {:?}", self.stuck));
        }
        if let Some((slowest, seed)) = self.slowest_but(100).filter(|_| self.judges_kinds())
            && slowest > SLOWEST_USUAL
        {
            let (slowest, usual) = (Timeouts(slowest), Timeouts(SLOWEST_USUAL));
            return Some(format!(
                "more than 1 % of the seeds wait longer than {usual} timeouts: seed {seed} {slowest}"
            ));
        }
        let issued = self.issued_but(2);
        if self.has_many_seeds() && issued < self.kind.issued_usual() {
            return Some(format!("in half of the seeds {issued} commands or fewer were issued during the faults"));
        }
        let missing = if self.judges_kinds() { self.tally.missing() } else { self.missing_frequent() };
        if !missing.is_empty() {
            return Some(format!("never injected in {} seeds: {}", self.seeds, missing.join(", ")));
        }
        // What is below its goal even if half of the seeds had brought it.
        let far_below = !self.tally.below_goals(self.seeds / 2).is_empty();
        (self.judges_goals() && far_below).then(|| {
            let below = self.tally.below_goals(self.seeds).join(", ");
            format!("for 1,000 seeds, below half of a goal is one of: {below}")
        })
    }

    /// Frequent kinds that never were, in fewer seeds than those which must bring all.
    fn missing_frequent(&self) -> Vec<&'static str> {
        let seconds = self.seeds * self.kind.longest.as_secs();
        if self.seeds < SEEDS_FOR_FREQUENT { Vec::new() } else { self.tally.missing_frequent(seconds) }
    }

    /// The last lines: what is too rare, and what no verdict was made of.
    fn rare(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.longest == Duration::from_secs(GOALS_FAULTS) {
            let below = self.tally.below_goals(self.seeds);
            let below = if below.is_empty() { "none".to_owned() } else { below.join(", ") };
            write!(f, "\nfor 1,000 seeds, below the goal: {below}")?;
            if !self.judges_goals() {
                write!(f, " (not judged: not {SEEDS_FOR_GOALS} seeds of the usual kind)")?;
            }
        }
        if !self.judges_kinds() {
            let never = self.tally.missing();
            let never = if never.is_empty() { "none".to_owned() } else { never.join(", ") };
            write!(
                f,
                "\nnever injected: {never}; not judged, nor are slow answers: fewer than {SEEDS_FOR_ALL_KINDS} seeds \
                 (frequent kinds are from {SEEDS_FOR_FREQUENT} on)"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { faults, shapes, issued, changing, changes, installed, rejoined, stuck, .. } = &self.tally;
        let Tally { leader_changes, handed_over, stood_aside, questions, retries, micros, .. } = &self.tally;
        let took = self.took.as_millis().max(1);
        let per_second = u128::from(self.events) * 1_000 / took;
        writeln!(
            f,
            "{} seeds, {} s of virtual time, {} events ({per_second} a second), {took} ms; {} seeds of {MANY_EVENTS} events or more",
            self.seeds,
            micros / 1_000_000,
            self.events,
            self.long
        )?;
        writeln!(
            f,
            "{issued} commands issued, in half of the seeds {} or more during the faults, in nine of ten {}; {installed} \
             snapshots installed, {rejoined} damaged nodes rejoined, {leader_changes} leader changes, {handed_over} \
             of them handed over, {stood_aside} leaders stood aside, {questions} questions, {retries} retries",
            self.issued_but(2),
            self.issued_but(10)
        )?;
        if *changing > 0 {
            writeln!(
                f,
                "{changes} changes of the membership in {changing} seeds; {stuck} ended without a majority set that can \
                 speak{}",
                if *stuck > 0 { format!(": {:?}; they lacked {}", self.stuck, self.lacked()) } else { String::new() }
            )?;
        }
        let [ruinous, ruined] = self.tally.ruinous;
        if ruinous > 0 {
            writeln!(
                f,
                "{ruinous} seeds in which a majority may be damaged; {ruined} of them ended without one that can speak"
            )?;
        }
        if let (Some((most, seed)), Some((usual, _))) = (self.slowest_but(0), self.slowest_but(100)) {
            writeln!(
                f,
                "slowest answer after the faults, in election timeouts: {} in 99 % of the seeds, {} in seed {seed}",
                Timeouts(usual),
                Timeouts(most)
            )?;
        }
        write!(f, "faults:")?;
        for (name, count) in Fault::KINDS.iter().zip(faults.0) {
            write!(f, " {name} {count}")?;
        }
        write!(f, "\npartitions:")?;
        for (name, count) in Shape::NAMES.iter().zip(shapes) {
            write!(f, " {name} {count}")?;
        }
        write!(f, "\nreads:")?;
        for (name, count) in self.tally.answered_reads() {
            write!(f, " {} {count}", name.trim_start_matches("read_"))?;
        }
        write!(f, "\nafter the faults:")?;
        for (name, count) in self.tally.after_faults() {
            write!(f, " {name} {count}")?;
        }
        self.rare(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Planted;
    use crate::run::ISSUED_USUAL;

    /// Catches a summary that names a slower answer than there was, or hides the slowest.
    #[test]
    fn the_slowest_seeds_are_told() {
        let slowest: Vec<(u64, u64)> = (1..=200).map(|seed| (seed * 7 % 211, seed)).collect();
        let summary = Summary { slowest, ..Summary::default() };
        let (most, seed) = summary.slowest_but(0).expect("there are seeds");
        assert_eq!((most, seed * 7 % 211), (210, 210));
        let faster = summary.slowest.iter().filter(|(took, _)| Some(*took) <= summary.slowest_but(100).map(|it| it.0));
        assert_eq!(faster.count(), 198);
        assert_eq!(Summary::default().slowest_but(100), None);
        let slow = |slowest: u64, slow: usize| {
            let all = (0..200).map(|seed| (if seed < slow { slowest } else { 300 }, seed as u64)).collect();
            Summary { seeds: 200, slowest: all, ..Summary::default() }.complaint().unwrap_or_default()
        };
        assert!(slow(801, 3).starts_with("more than 1 % of the seeds wait longer than 8.00 timeouts"));
        assert!(slow(801, 2).starts_with("never injected"), "1 % may");
        assert!(slow(800, 200).starts_with("never injected"));
        assert_eq!(Timeouts(1_207).to_string(), "12.07");
    }

    /// Catches a job that passes although something was never injected, or was rarer than it should be; one that fails for
    /// want of seeds, or by the goals of another kind of job; and one that does not say what it made no verdict of.
    #[test]
    fn what_is_rare_is_judged_when_there_were_seeds_enough() {
        let usual = Kind { longest: Duration::from_secs(GOALS_FAULTS), planted: None, changes: None };
        let mut once = Tally::default();
        (once.installed, once.rejoined, once.leader_changes, once.handed_over) = (1, 1, 1, 1);
        (once.retries, once.changing, once.changes, once.ruinous) = (1, 1, 1, [1, 0]);
        once.reads.fill(1);
        once.outside.fill(1);
        once.cores.fill(1);
        once.outcomes.fill(1);
        once.faults.0.fill(1);
        once.shapes.fill(1);
        once.faults.0[Fault::Partition { shape: Shape::Ring, cut: Vec::new() }.kind()] = 8;
        let of = |kind, seeds, tally: &Tally| {
            let issued = vec![ISSUED_USUAL; 1_000];
            Summary { kind, seeds, issued, tally: tally.clone(), ..Summary::default() }
        };
        let complaint = |kind, seeds, tally: &Tally| of(kind, seeds, tally).complaint().unwrap_or_default();
        assert!(complaint(usual, 200, &Tally::default()).starts_with("never injected in 200 seeds: loss, "));
        let frequent = "never injected in 30 seeds: loss, duplicate, reorder, ";
        assert!(complaint(usual, 30, &Tally::default()).starts_with(frequent));
        assert!(!complaint(usual, 199, &Tally::default()).contains("state_rot"), "60 are due");
        assert_eq!(complaint(usual, 29, &Tally::default()), "");
        assert_eq!(complaint(usual, 199, &once), "");
        let rare = "for 1,000 seeds, below half of a goal is one of: loss 1 of 100000, ";
        assert!(complaint(usual, 1_000, &once).starts_with(rare));
        assert_eq!(complaint(usual, 999, &once), "");
        for other in [
            Kind { longest: Duration::from_secs(8), ..usual },
            Kind { changes: Some(0), ..usual },
            Kind { planted: Some(Planted::NoBarrier), ..usual },
        ] {
            assert_eq!(complaint(other, 1_000, &once), "");
        }
        let says = |kind, seeds| {
            let said = of(kind, seeds, &once).to_string();
            (said.contains("never injected: none; not judged"), said.contains("(not judged: not 1000 seeds"))
        };
        let mut often = once.clone();
        (often.installed, often.leader_changes, often.handed_over) = (5_000, 5_000, 5_000);
        (often.retries, often.changes, often.ruinous) = (5_000, 5_000, [5_000, 0]);
        often.faults.0.fill(900_000);
        often.cores[2] = 50;
        often.shapes = [300_000, 300_000, 90_000, 1, 1, 1, 1, 45_000, 45_000];
        assert_eq!(complaint(usual, 1_000, &often), "", "half of the changes of the lead, and of the retries");
        often.leader_changes -= 1;
        assert!(complaint(usual, 1_000, &often).ends_with(": leader_change 4999 of 10000, retry 5000 of 10000"));
        let idle = |kind: Kind, few: u64| {
            let issued = (0..1_000).map(|seed| kind.issued_usual() - u64::from(seed < few)).collect();
            Summary { issued, ..of(kind, 1_000, &often) }.complaint().unwrap_or_default()
        };
        assert!(idle(usual, 501).starts_with("in half of the seeds 99 commands or fewer were issued"));
        assert!(idle(usual, 500).starts_with("for 1,000 seeds"));
        let short = Kind { longest: Duration::from_secs(8), ..usual };
        assert!(idle(short, 501).starts_with("in half of the seeds 25 commands or fewer were issued"));
        assert_eq!(idle(short, 500), "");
        assert_eq!(says(usual, 199), (true, true));
        assert_eq!(says(usual, 200), (false, true));
        assert_eq!(says(usual, 1_000), (false, false));
        assert_eq!(says(short, 199), (true, false));
    }
}
