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

    /// The syncs that each of its servers has done so far; servers that do not count them are absent.
    fn syncs(&self) -> impl Future<Output = BTreeMap<String, u64>>;
}

/// One client's way to a system.
pub trait Client: 'static {
    /// Brings one call to its outcome, sent again as often as that takes.
    fn call(&mut self, sequence: u64, dice: &mut Dice) -> impl Future<Output = Done>;
}

/// How a call ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Why it did not succeed, as a short code; none when it did.
    pub error: Option<String>,
    /// How often it was sent again.
    pub retries: u64,
}

/// What all clients share.
struct Run {
    /// The number of calls after which the measurement ends.
    calls: Option<u64>,
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
        run.error(&format!("no_timer: {error}"));
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
        let done = client.call(sequence, &mut dice).await;
        run.under_way.borrow_mut()[number] = None;
        run.record.borrow_mut().retries += done.retries;
        match done.error {
            None => run.success(due),
            Some(code) => run.error(&code),
        }
        sequence += 1;
    }
}

impl Run {
    fn success(&self, due: Instant) {
        self.record.borrow_mut().success(due, now());
        self.completed.borrow_mut().0 += 1;
        self.count();
    }

    fn error(&self, code: &str) {
        self.record.borrow_mut().error(code);
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

    /// A system whose calls take as long as it is told, and which stalls once.
    struct Slow {
        takes: Duration,
        /// From when, and how long, after its start.
        stall: (Duration, Duration),
        start: tokio::time::Instant,
    }

    struct SlowClient(Duration, tokio::time::Instant, Duration);

    impl System for Rc<Slow> {
        type Client = SlowClient;

        async fn client(&self, _: u32) -> anyhow::Result<SlowClient> {
            Ok(SlowClient(self.takes, self.start + self.stall.0, self.stall.1))
        }

        async fn syncs(&self) -> BTreeMap<String, u64> {
            BTreeMap::new()
        }
    }

    impl Client for SlowClient {
        async fn call(&mut self, _: u64, _: &mut Dice) -> Done {
            let at = tokio::time::Instant::now();
            let stalls = at >= self.1 && at < self.1 + self.2;
            tokio::time::sleep_until(if stalls { self.1 + self.2 } else { at + self.0 }).await;
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
        block_on(async {
            let (from, long) = (Duration::from_millis(stall.0), Duration::from_millis(stall.1));
            let takes = Duration::from_millis(takes);
            let slow = Rc::new(Slow { takes, stall: (from, long), start: tokio::time::Instant::now() });
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
}
