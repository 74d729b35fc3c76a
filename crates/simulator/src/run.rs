//! Many seeds, on all processors, and what came of them ([`Summary`]).

mod summary;

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
use crate::functions;
use crate::invariants::Invariants;
use crate::planted::{Planted, less_comes_in};
use crate::swarm::Swarm;
use crate::tally::{GOALS_FAULTS, Tally};
use crate::trace::Log;
use crate::watchers::Watchers;
use crate::world::{TIMEOUTS_TO_ANSWER, World};

pub use summary::{SEEDS_FOR_ALL_KINDS, SEEDS_FOR_GOALS, Summary};

/// Facts that the report of a failed seed shows.
pub const TAIL: usize = 60;
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
}
