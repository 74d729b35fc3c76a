//! Many seeds, on all processors, and what came of them.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use protocol::Tick;

use crate::chance::Chance;
use crate::chart::{Chart, Settings};
use crate::fault::{Fault, Shape};
use crate::functions;
use crate::invariants::{Disks, Invariants};
use crate::planted::{Planted, less_comes_in};
use crate::swarm::Swarm;
use crate::tally::{GOALS_FAULTS, Tally};
use crate::trace::Log;
use crate::watchers::Watchers;
use crate::world::{TIMEOUTS_TO_ANSWER, World};

/// Facts that the report of a failed seed shows.
pub const TAIL: usize = 60;
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
/// reach for some of the core. Measured: 4.4 to 6.0, and 10.1 in the slowest seed. The bound of each seed is far above, since
/// the slowest of very many are slower.
const SLOWEST_USUAL: u64 = 800;

/// In half of the seeds of the usual length as many commands are issued during the faults, and in half of shorter ones in
/// proportion: where little is decided, little can be decided wrongly. Measured: 235, and 40 in seeds of 8 s.
const ISSUED_USUAL: u64 = 100;

/// What came of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What else there is to say for the same run.
    pub kind: Kind,
    /// Equal for equal runs.
    pub hash: String,
    /// Counts.
    pub tally: Tally,
    /// Events of the run.
    pub events: u64,
    /// The slowest answer after the faults, in hundredths of the longest election timeout of its world.
    pub slowest: u64,
    /// What is broken, with the end of the log.
    pub failure: Option<Failure>,
}

/// A broken invariant, or a panic of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is broken.
    pub what: String,
    /// What happened last.
    pub log: String,
}

/// How long the faults of a seed last: some are short, so that many seeds are run.
fn faults(chance: &mut Chance, longest: Duration) -> Duration {
    longest * u32::try_from(chance.between(2, 4)).expect("small") / 4
}

/// What all seeds of a job have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// The longest time of faults in a seed.
    pub longest: Duration,
    /// A mistake that must be caught.
    pub planted: Option<Planted>,
    /// Of a thousand calls, how many are about the membership; none: what each seed draws.
    pub changes: Option<u32>,
}

impl Kind {
    /// How many events there are in the faults of a seed of full length, or of a longer one.
    fn events(&self) -> u64 {
        if self.longest >= Duration::from_secs(GOALS_FAULTS) { MANY_EVENTS } else { 0 }
    }

    /// For which there are goals: the usual one.
    fn is_usual(&self) -> bool {
        self.draws_all() && self.longest == Duration::from_secs(GOALS_FAULTS)
    }

    /// Whether each seed draws all but the time of its faults.
    fn draws_all(&self) -> bool {
        self.planted.is_none() && self.changes.is_none()
    }

    /// How many commands are to be issued during the faults in half of the seeds.
    fn issued_usual(&self) -> u64 {
        let seconds = self.longest.as_secs().min(GOALS_FAULTS);
        if self.draws_all() { ISSUED_USUAL * seconds / GOALS_FAULTS } else { 0 }
    }
}

/// The world of a seed.
fn world(seed: u64, kind: Kind, lines: usize) -> World {
    let mut chance = Chance::new(seed);
    let faults = faults(&mut chance, kind.longest);
    let swarm =
        Swarm { planted: kind.planted, faults_events: kind.events(), ..Swarm::draw(&mut chance, faults, kind.changes) };
    let bound = swarm.timeout_max * TIMEOUTS_TO_ANSWER;
    // A function that is wrong wherever it runs.
    let functions = if kind.planted == Some(Planted::LetsLessComeIn) { less_comes_in() } else { functions::all() };
    let watchers = Watchers::new(Invariants::of_functions(&swarm.genesis(), bound, &functions), lines);
    let mut world = World::new(swarm, chance.any(), watchers);
    world.trouble();
    world
}

/// Runs one seed. A failed one is run again, with a log.
#[must_use]
pub fn seed(seed: u64, kind: Kind) -> Report {
    let report = finish(seed, kind, &mut world(seed, kind, 0));
    if report.failure.is_none() { report } else { with_log(&report, finish(seed, kind, &mut world(seed, kind, TAIL))) }
}

/// A failed run, as it was a second time with a log; should that be another one, this is what has failed.
fn with_log(first: &Report, mut again: Report) -> Report {
    let what = |report: &Report| report.failure.as_ref().map_or("nothing", |failure| &failure.what).to_owned();
    let (before, now) = (what(first), what(&again));
    if (&first.hash, &before) != (&again.hash, &now) {
        let log = again.failure.take().map(|failure| failure.log).unwrap_or_default();
        let what = format!("one seed, two runs: {before} (trace {}), then {now} (trace {})", first.hash, again.hash);
        again.failure = Some(Failure { what, log });
    }
    again
}

/// Runs one seed with a log of so many facts, with or without heartbeats; says all of it.
#[must_use]
pub fn logged(seed: u64, kind: Kind, lines: usize, heartbeats: bool) -> (Report, String) {
    let mut world = world(seed, kind, lines);
    if heartbeats {
        world.watchers_mut().log = Log::new(lines).with_heartbeats();
    }
    let report = finish(seed, kind, &mut world);
    (report, world.watchers().log.tail(lines))
}

/// Runs one seed and draws the last that happens in it, up to a moment.
#[must_use]
pub fn drawn(seed: u64, kind: Kind, until: Tick) -> (Report, String) {
    let mut world = world(seed, kind, TAIL);
    let window = Tick(0)..=until;
    let settings = Settings { title: format!("Seed {seed}"), window, merge: true, ..Settings::default() };
    let chart = Rc::new(RefCell::new(Chart::new(world.swarm().nodes.iter().copied(), settings)));
    world.watchers_mut().add(Box::new(Rc::clone(&chart)));
    let report = finish(seed, kind, &mut world);
    let mut chart = chart.borrow_mut();
    if let Some(failure) = &report.failure {
        chart.remark(world.now(), &failure.what);
    }
    (report, chart.svg())
}

fn finish(seed: u64, kind: Kind, world: &mut World) -> Report {
    // After a panic nothing of the world is used but what its watchers saw before.
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let broken = ran.unwrap_or_else(|panic| Err(format!("a failed assertion: {}", panic_text(panic.as_ref()))));
    let watchers = world.watchers();
    let mut tally = watchers.tally.clone();
    let (ruinous, stuck) = (u64::from(world.swarm().ruinous), u64::from(!watchers.can_decide()));
    if stuck * (1 - ruinous) == 1 {
        tally.lacked[watchers.why_stuck()] = 1;
    }
    (tally.stuck, tally.ruinous) = (stuck * (1 - ruinous), [ruinous, ruinous * stuck]);
    (tally.changing, tally.changes) = (u64::from(world.swarm().changes > 0), watchers.membership().1);
    Report {
        seed,
        kind,
        hash: watchers.hasher.short(),
        tally,
        events: world.events(),
        slowest: hundredths(watchers.slowest_answer(), world.swarm().timeout_max),
        failure: broken.err().map(|what| Failure { what, log: watchers.log.tail(TAIL) }),
    }
}

fn hundredths(time: Duration, of: Duration) -> u64 {
    u64::try_from(time.as_micros() * 100 / of.as_micros().max(1)).unwrap_or(u64::MAX)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The first seed.
    pub first: u64,
    /// How many, unless time ends before.
    pub seeds: u64,
    /// No seed is begun later than this.
    pub until: Option<Duration>,
    /// What they have in common.
    pub kind: Kind,
    /// How many at a time.
    pub threads: usize,
}

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

/// How many events a seed of full length has (RELIABILITY 5, class 1), unless too little happens in its world.
const MANY_EVENTS: u64 = 50_000;

/// After so many failed seeds no more are begun: they say it all.
const FAILED_MAX: usize = 5;

/// Runs all seeds of a job; `failed` is told of each that fails, at once.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the job's own clock and threads; each world has virtual time")]
pub fn all(job: &Job, failed: &(dyn Fn(&Report) + Sync)) -> Summary {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let summary = Mutex::new(Summary { kind: job.kind, ..Summary::default() });
    let work = || {
        while !enough.load(Ordering::Relaxed) && job.until.is_none_or(|until| begun.elapsed() < until) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= job.seeds {
                return;
            }
            let report = seed(job.first.wrapping_add(index), job.kind);
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.seeds += 1;
            summary.events += report.events;
            summary.long += u64::from(report.events >= MANY_EVENTS);
            summary.tally.add(&report.tally);
            summary.issued.push(report.tally.issued_in_faults);
            summary.slowest.push((report.slowest, report.seed));
            summary.stuck.extend((report.tally.stuck > 0).then_some(report.seed));
            if report.failure.is_some() {
                failed(&report);
                summary.failed.push(report);
                enough.store(summary.failed.len() >= FAILED_MAX, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..job.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.took = begun.elapsed();
    summary
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Some(Failure { what, log }) => {
                writeln!(f, "{log}")?;
                writeln!(f, "seed {} failed: {what}", self.seed)?;
                write!(f, "again: cargo xtask simulate --seed {} --seeds 1{}", self.seed, self.kind)
            }
            None => write!(
                f,
                "seed {}: {} commands issued, {} events, {} s, slowest answer {} timeouts, trace {}",
                self.seed,
                self.tally.issued,
                self.events,
                self.tally.micros / 1_000_000,
                Timeouts(self.slowest),
                self.hash
            ),
        }
    }
}

/// Hundredths.
struct Timeouts(u64);

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " --faults {}", self.longest.as_secs())?;
        if let Some(changes) = self.changes {
            write!(f, " --changes {changes}")?;
        }
        let planted = self.planted.and_then(|planted| planted.to_possible_value());
        planted.map_or(Ok(()), |planted| write!(f, " --planted {}", planted.get_name()))
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

    /// RELIABILITY 5, class 1a: catches a failure that is lost, or taken for another one, because the second run of its seed,
    /// which is made for the log, is not the same.
    #[test]
    fn a_failure_that_does_not_come_again_stays_one() {
        let kind = Kind { longest: Duration::from_secs(8), planted: None, changes: None };
        let run = |hash: &str, what: Option<&str>| {
            let failure = what.map(|what| Failure { what: what.to_owned(), log: "the end".to_owned() });
            Report { seed: 1, kind, hash: hash.to_owned(), tally: Tally::default(), events: 1, slowest: 0, failure }
        };
        let first = run("a", Some("promises: less"));
        assert_eq!(with_log(&first, first.clone()), first);
        for (again, log) in [(run("a", None), ""), (run("b", Some("promises: less")), "the end")] {
            let failure = with_log(&first, again).failure.expect("it has failed");
            assert!(
                failure.what.starts_with("one seed, two runs: promises: less (trace a), then "),
                "{}",
                failure.what
            );
            assert_eq!(failure.log, log);
        }
        let other = with_log(&first, run("a", Some("reads: other"))).failure.expect("it has failed");
        assert!(other.what.starts_with("one seed, two runs: "), "{}", other.what);
    }

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
