//! A load generator, the same for every system that is measured.
//!
//! A [`System`] makes clients; a [`Client`] brings one call at a time to its outcome. [`measure`] runs
//! them and says what they saw and what it cost. `quorate bench` measures a cluster with it over REST
//! ([`Rest`]); `compare/` has clients of other systems, so that all are measured by one loop.
//!
//! - *Closed loop*: each client makes a call, waits for its outcome, makes the next one. The latency
//!   is that of the system under so many clients.
//! - *Open loop* ([`Plan::rate`]): calls are due at even intervals, whether or not earlier ones have
//!   come back; a free client makes the next one that is due. Latency counts from when a call was
//!   *due*, so that a system that stalls is charged for all calls that it kept from being made
//!   (*coordinated omission*). Calls that are due at the end and have no outcome count with the age
//!   that they have then, and are told apart as `unanswered`.
//!
//! A call that the system *refuses*, because it has too much to do or cannot work now, is no failure of the system: it
//! says so in time, or it does not. So refusals have a latency of their own, and it counts from when the call was *sent*,
//! in an open loop too: how long the generator had no client for it is no matter of the refusal.
//!
//! All clients run on one thread: they wait nearly all the time, and a second busy thread would take a
//! core from the servers on the same machine. Two stretches: warm-up (not counted), measurement. In a
//! closed loop calls that are under way at the end are not counted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};

mod connection;
mod costs;
mod dice;
mod pace;
mod record;
mod report;
mod rest;
mod stock;
mod template;

pub use connection::{Answer, Connection, Target};
pub use costs::cpu_times;
pub use dice::{Dice, Law};
pub use report::Report;
pub use rest::Rest;
pub use stock::{STOCK, stock, warehouses};
pub use template::{Template, Turn};

use costs::{Costs, Cpu};
use pace::Pace;
use record::Record;

/// What is measured, and how.
pub struct Plan {
    /// What the calls do, for the report.
    pub what: String,
    /// Clients at once; each has one call under way at a time.
    pub clients: u32,
    /// Calls a second for an open loop; without, a closed one.
    pub rate: Option<f64>,
    /// How long to run before measuring.
    pub warmup: Duration,
    /// How long to measure.
    pub length: Duration,
    /// Measure so many calls instead.
    pub calls: Option<u64>,
    /// The same seed gives the same calls.
    pub seed: u64,
    /// How numbers are drawn.
    pub law: Rc<Law>,
    /// Processes whose CPU time is counted, with all processes below them.
    pub pids: Vec<u32>,
    /// Where a line a second about the progress goes.
    pub progress: Option<fn(fmt::Arguments<'_>)>,
}

/// A system that can be called.
pub trait System {
    /// One client's way to it.
    type Client: Client;

    /// Makes a client, from number 0.
    ///
    /// # Errors
    /// Whatever keeps it from ever making a call.
    fn client(&self, number: u32) -> impl Future<Output = anyhow::Result<Self::Client>>;

    /// How many calls its clients bring in each request: they share its latency.
    fn calls_each(&self) -> u64 {
        1
    }

    /// The syncs that each of its servers has done so far; servers that do not count them are absent.
    fn syncs(&self) -> impl Future<Output = BTreeMap<String, u64>>;
}

/// One client's way to a system.
pub trait Client: 'static {
    /// Brings one call to its outcome, sent again as often as that takes.
    fn call(&mut self, sequence: u64, dice: &mut Dice) -> impl Future<Output = Done>;
}

/// How a call ended, or many that came in one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Why it did not succeed, as a short code; none when it did. Of many: why none did.
    pub error: Option<String>,
    /// Of many, the codes of those that failed.
    pub failed: Vec<String>,
    /// It did not because the system refused it.
    pub refusal: Option<Refusal>,
    /// How often it was sent again.
    pub retries: u64,
}

/// A system has said that it does not take a call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How long after the call was sent, the last time.
    pub after: Duration,
    /// It said when to come back.
    pub says_when: bool,
}

/// Before a client that was refused makes its next call in a closed loop; in an open one the pace says when.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// What all clients share.
struct Run {
    /// The number of calls after which the measurement ends.
    calls: Option<u64>,
    /// Calls in each request.
    each: u64,
    enough: Notify,
    record: RefCell<Record>,
    /// What has completed, for the progress line: successes, others.
    completed: RefCell<(u64, u64)>,
    pace: Option<Pace>,
    /// Since when the call of each client is due that is under way.
    under_way: RefCell<Vec<Option<Instant>>>,
}

/// Runs something on this thread, for [`measure`].
///
/// # Errors
/// Its own, or that of a system that gives no runtime.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    LocalSet::new().block_on(&runtime, work)
}

/// Measures. To be run by [`block_on`].
///
/// # Errors
/// A client that cannot be made.
pub async fn measure<S: System>(plan: &Plan, system: &S) -> anyhow::Result<Report> {
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        clients.push(system.client(number).await?);
    }
    let run = Rc::new(Run {
        calls: plan.calls,
        each: system.calls_each(),
        enough: Notify::new(),
        record: RefCell::new(Record::new(now())),
        completed: RefCell::new((0, 0)),
        pace: plan.rate.map(|rate| Pace::new(now(), rate)),
        under_way: RefCell::new(vec![None; clients.len()]),
    });
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        let dice = Dice::new(plan.seed, number as u64, Rc::clone(&plan.law));
        tasks.push(tokio::task::spawn_local(client_loop(Rc::clone(&run), number, client, dice)));
    }
    let mut watch = vec![tokio::task::spawn_local(drive(Rc::clone(&run)))];
    watch.extend(plan.progress.map(|say| tokio::task::spawn_local(show_progress(Rc::clone(&run), say))));
    tokio::time::sleep(plan.warmup).await;
    let syncs = system.syncs().await;
    let before = Costs { cpu: Cpu::now(plan), syncs };
    *run.record.borrow_mut() = Record::new(now());
    match run.calls {
        Some(_) => run.enough.notified().await,
        None => tokio::time::sleep(plan.length).await,
    }
    let end = now();
    let mut record = run.record.replace(Record::new(end));
    record.finish(end);
    run.count_unanswered(&mut record, end);
    let cpu = Cpu::now(plan);
    let spent = Costs { cpu, syncs: system.syncs().await }.since(&before);
    // Not before: to lose its clients costs a server something too.
    watch.iter().chain(&tasks).for_each(JoinHandle::abort);
    Ok(Report::new(plan, &record, &spent))
}

/// Says when calls of an open loop are due.
async fn drive(run: Rc<Run>) {
    if let Some(pace) = &run.pace
        && let Err(error) = pace.drive().await
    {
        run.error(&format!("no_timer: {error}"), None);
    }
}

/// One client: a call, its outcome, the next call.
async fn client_loop<C: Client>(run: Rc<Run>, number: usize, mut client: C, mut dice: Dice) {
    let mut sequence = 0;
    loop {
        let due = match &run.pace {
            Some(pace) => pace.next().await,
            None => now(),
        };
        run.under_way.borrow_mut()[number] = Some(due);
        run.record.borrow_mut().sent += run.each;
        let done = client.call(sequence, &mut dice).await;
        run.under_way.borrow_mut()[number] = None;
        run.record.borrow_mut().retries += done.retries;
        match done.error {
            None => {
                done.failed.iter().for_each(|code| run.error(code, None));
                run.success(due, run.each.saturating_sub(done.failed.len() as u64));
            }
            Some(code) => (0..run.each).for_each(|_| run.error(&code, done.refusal)),
        }
        if done.refusal.is_some() && run.pace.is_none() {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
        sequence += 1;
    }
}

impl Run {
    fn success(&self, due: Instant, calls: u64) {
        self.record.borrow_mut().success(due, now(), calls);
        self.completed.borrow_mut().0 += calls;
        self.count();
    }

    fn error(&self, code: &str, refusal: Option<Refusal>) {
        self.record.borrow_mut().error(code, refusal);
        self.completed.borrow_mut().1 += 1;
        self.count();
    }

    fn count(&self) {
        let Some(calls) = self.calls else { return };
        let record = self.record.borrow();
        if record.successes + record.errors.values().sum::<u64>() >= calls {
            self.enough.notify_one();
        }
    }

    /// In an open loop, the calls that were due and have no outcome.
    fn count_unanswered(&self, record: &mut Record, end: Instant) {
        let Some(pace) = &self.pace else { return };
        let under_way = self.under_way.borrow();
        under_way.iter().flatten().copied().chain(pace.waiting(end)).for_each(|due| record.unanswered(due, end));
    }
}

/// A line a second.
async fn show_progress(run: Rc<Run>, say: fn(fmt::Arguments<'_>)) {
    let start = now();
    let (mut last, mut last_at) = ((0, 0), start);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (successes, others) = *run.completed.borrow();
        let at = now();
        let rate = report::rate(successes - last.0, at - last_at);
        let elapsed = (at - start).as_secs_f64();
        let failed = others - last.1;
        say(format_args!("{elapsed:6.1} s  {rate:9.0} calls/s  {failed:6} not successful"));
        (last, last_at) = ((successes, others), at);
    }
}

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a load generator measures in real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system whose calls take as long as it is told, which stalls once, and which takes so many calls at a time.
    struct Slow {
        takes: Duration,
        /// From when, and how long, after its start.
        stall: (Duration, Duration),
        start: tokio::time::Instant,
        room: tokio::sync::Semaphore,
    }

    struct SlowClient(Rc<Slow>);

    impl System for Rc<Slow> {
        type Client = SlowClient;

        async fn client(&self, _: u32) -> anyhow::Result<SlowClient> {
            Ok(SlowClient(Self::clone(self)))
        }

        async fn syncs(&self) -> BTreeMap<String, u64> {
            BTreeMap::new()
        }
    }

    impl Client for SlowClient {
        async fn call(&mut self, sequence: u64, _: &mut Dice) -> Done {
            let Ok(_room) = self.0.room.try_acquire() else {
                let refusal = Refusal { after: Duration::from_millis(2), says_when: sequence.is_multiple_of(2) };
                return Done { error: Some("overloaded".to_owned()), refusal: Some(refusal), ..Done::default() };
            };
            let at = tokio::time::Instant::now();
            let (from, until) = (self.0.start + self.0.stall.0, self.0.start + self.0.stall.0 + self.0.stall.1);
            tokio::time::sleep_until(if at >= from && at < until { until } else { at + self.0.takes }).await;
            Done::default()
        }
    }

    fn plan(clients: u32, rate: Option<f64>) -> Plan {
        Plan {
            what: "nothing".to_owned(),
            clients,
            rate,
            warmup: Duration::ZERO,
            length: Duration::from_millis(600),
            calls: None,
            seed: 1,
            law: Rc::new(Law::Even),
            pids: Vec::new(),
            progress: None,
        }
    }

    fn measured(plan: &Plan, takes: u64, stall: (u64, u64)) -> serde_json::Value {
        measured_with(plan, takes, stall, tokio::sync::Semaphore::MAX_PERMITS)
    }

    fn measured_with(plan: &Plan, takes: u64, stall: (u64, u64), room: usize) -> serde_json::Value {
        block_on(async {
            let stall = (Duration::from_millis(stall.0), Duration::from_millis(stall.1));
            let (takes, room) = (Duration::from_millis(takes), tokio::sync::Semaphore::new(room));
            let slow = Rc::new(Slow { takes, stall, start: tokio::time::Instant::now(), room });
            Ok(measure(plan, &slow).await?.to_json())
        })
        .expect("measured")
    }

    /// Catches coordinated omission: a stall of half the run that only as many calls notice as
    /// there are clients. In a closed loop it is hidden, which is why there is the other one.
    #[test]
    fn a_stall_is_charged_for_every_call_that_was_due() {
        let closed = measured(&plan(2, None), 1, (100, 300));
        let open = measured(&plan(2, Some(200.0)), 1, (100, 300));
        let p90 = |report: &serde_json::Value| report["latency_ms"]["p90"].as_f64().expect("a number");
        assert!(p90(&closed) < 60.0, "{closed}");
        assert!(p90(&open) > 150.0, "{open}");
        assert_eq!((closed["rate"].is_null(), &open["rate"]), (true, &serde_json::json!(200.0)));
    }

    /// Catches a system that cannot keep up and looks well, because only what came back counts.
    #[test]
    fn calls_that_were_due_and_never_came_back_count() {
        let report = measured(&plan(1, Some(1_000.0)), 10, (0, 0));
        let unanswered = report["unanswered"].as_u64().expect("a number");
        let calls = report["calls"].as_u64().expect("a number");
        assert!(unanswered > 400 && calls < 100, "{report}");
        assert!(report["latency_ms"]["p50"].as_f64().expect("a number") > 100.0, "{report}");
    }

    /// Catches calls of an open loop that come at another rate than was asked for, or are lost.
    #[test]
    fn calls_come_at_the_rate_that_was_asked_for() {
        let report = measured(&plan(8, Some(1_000.0)), 1, (0, 0));
        let number = |name: &str| report[name].as_f64().expect("a number");
        let due = number("seconds") * 1_000.0;
        assert!((number("calls") + number("unanswered") - due).abs() < 10.0, "{report}");
    }

    /// Catches refusals that count as failures, or as successes; whose time has the wait for a client in it, although
    /// there was none to send the call; and of which nobody knows whether they say when to come back.
    #[test]
    fn refusals_are_told_apart_with_a_time_of_their_own() {
        let report = measured_with(&plan(8, Some(1_000.0)), 10, (0, 0), 2);
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        let refused = &report["refused"];
        assert_eq!(refused["count"], report["errors"]["overloaded"], "{report}");
        assert!(number(&refused["count"]) > number(&report["calls"]) && number(&report["calls"]) > 10.0, "{report}");
        assert_eq!(report["failed"], 0, "{report}");
        assert_eq!((number(&refused["latency_ms"]["p50"]), number(&refused["latency_ms"]["max"])), (2.0, 2.0));
        let share = number(&refused["retry_after_share"]);
        assert!((0.3..0.7).contains(&share), "{report}");
        let none = measured(&plan(2, None), 1, (0, 0));
        assert_eq!(
            (&none["refused"]["count"], &none["refused"]["retry_after_share"]),
            (&0.into(), &serde_json::Value::Null)
        );
    }

    /// Catches an open loop that gives each call to the client that was free longest: all of thousands of connections
    /// would be in use however few calls are under way.
    #[test]
    fn no_more_clients_are_at_work_than_calls_are_under_way() {
        let used = block_on(async {
            let pace = Rc::new(Pace::new(now(), 500.0));
            let used = Rc::new(RefCell::new(vec![0; 50]));
            let clients = (0..50).map(|number| {
                let (pace, used) = (Rc::clone(&pace), Rc::clone(&used));
                tokio::task::spawn_local(async move {
                    loop {
                        pace.next().await;
                        used.borrow_mut()[number] += 1;
                    }
                })
            });
            let clients: Vec<_> = clients.collect();
            let driven = tokio::time::timeout(Duration::from_millis(400), pace.drive()).await;
            assert!(driven.is_err(), "it drives on");
            clients.iter().for_each(JoinHandle::abort);
            Ok(used.take())
        })
        .expect("it ran");
        let busy = used.iter().filter(|calls| **calls > 0).count();
        assert!(used.iter().sum::<u32>() > 50 && busy < 25, "{used:?}");
    }
}
