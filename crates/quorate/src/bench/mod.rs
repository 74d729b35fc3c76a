//! `quorate bench`: a closed loop of clients, and what it costs.
//!
//! All clients run on one thread: they wait nearly all the time, and a second busy thread would
//! take a core from the nodes on the same machine. Three stretches: setup, warm-up (not
//! counted), measurement. Calls that are under way at the end are not counted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};

mod connection;
mod record;
mod report;
mod server;
mod setup;
mod template;

use crate::cli::{Bench, Output, Trust};
use crate::client::{authorities, base_url, bearer, percent_encode, show};
use crate::clock::{now, since_1970};
use crate::failure::Failure;
use connection::{Answer, Connection, Target};
use record::Record;
use report::{Costs, Report};
use template::{Dice, Template, Turn};

/// How long opening a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// How long one attempt may take when others may follow: a gateway answers within 10 s.
const ATTEMPT_WAIT: Duration = Duration::from_secs(12);

/// The pause after a failure, doubled up to the second one: a dead node must not be asked in a
/// tight loop, and a new leader is not to be met by all clients at one instant.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));

/// What all clients share.
struct Run {
    path: String,
    template: Template,
    targets: Vec<Target>,
    retry: bool,
    timeout: Duration,
    /// Begins every idempotency key of this run.
    run_key: String,
    /// The number of calls after which the measurement ends.
    calls: Option<u64>,
    enough: Notify,
    record: RefCell<Record>,
    /// What has completed, for the progress line: successes, others.
    completed: RefCell<(u64, u64)>,
}

/// Runs the measurement and shows the result.
///
/// # Errors
/// Wrong arguments; no node to talk to; a setup that fails; not one successful call.
pub(crate) fn run(bench: &Bench) -> Result<(), Failure> {
    let usage = |key: &str, why: &str| Failure::Usage(format!("{key}: {why}"));
    let template = Template::parse(&bench.arguments).map_err(|why| usage("--arguments", &why))?;
    let targets = bench.urls.iter().map(|url| target(url, &bench.trust)).collect::<Result<Vec<Target>, Failure>>()?;
    let seconds = |flag: &str, value: f64, least: f64| {
        let good = (least..=86_400.0).contains(&value);
        good.then(|| Duration::from_secs_f64(value))
            .ok_or_else(|| usage(flag, &format!("{value}: must be a number of seconds from {least} to 86400")))
    };
    let (length, warmup) = (seconds("--seconds", bench.seconds, 0.1)?, seconds("--warmup", bench.warmup, 0.0)?);
    let warehouses = bench.setup.as_deref().map(setup::warehouses).transpose().map_err(|why| usage("--setup", &why))?;
    let run = Rc::new(Run {
        path: format!("/v1/functions/{}", percent_encode(&bench.function)),
        template,
        targets,
        retry: bench.retry,
        timeout: seconds("--timeout", bench.timeout, 0.1)?,
        run_key: format!("bench-{:x}", since_1970().as_micros()),
        calls: bench.calls,
        enough: Notify::new(),
        record: RefCell::new(Record::new(now())),
        completed: RefCell::new((0, 0)),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let report = LocalSet::new().block_on(&runtime, async {
        if let Some(count) = warehouses {
            setup::stock(&run.targets, count, &run.run_key).await?;
        }
        measure(bench, &run, warmup, length).await
    })?;
    match bench.output {
        Output::Json => show(format!("{}\n", report.to_json()))?,
        Output::Text => show(report.to_string())?,
    }
    if report.successes == 0 {
        return Err(Failure::Reported(anyhow!("not one call succeeded; the codes above say why")));
    }
    Ok(())
}

async fn measure(bench: &Bench, run: &Rc<Run>, warmup: Duration, length: Duration) -> anyhow::Result<Report> {
    let clients: Vec<JoinHandle<()>> = (0..u64::from(bench.clients))
        .map(|client| tokio::task::spawn_local(client_loop(Rc::clone(run), client, Dice::new(bench.seed, client))))
        .collect();
    let progress = tokio::task::spawn_local(show_progress(Rc::clone(run)));
    tokio::time::sleep(warmup).await;
    let before = costs(bench, run).await;
    *run.record.borrow_mut() = Record::new(now());
    match run.calls {
        Some(_) => run.enough.notified().await,
        None => tokio::time::sleep(length).await,
    }
    let mut record = run.record.replace(Record::new(now()));
    record.finish(now());
    progress.abort();
    clients.iter().for_each(JoinHandle::abort);
    let spent = costs(bench, run).await.since(&before);
    Ok(Report::new(bench, &record, &spent))
}

/// What has been spent so far. CPU times last, because asking a node for its syncs takes a while.
async fn costs(bench: &Bench, run: &Run) -> Costs {
    let mut syncs = BTreeMap::new();
    for target in &run.targets {
        if let Some(count) = server::syncs(target, CONNECT_WAIT).await {
            syncs.insert(target.host.clone(), count);
        }
    }
    let server_cpu = bench.pids.iter().filter_map(|pid| Some((*pid, server::cpu_time(&pid.to_string())?))).collect();
    let client_cpu = server::cpu_time("self").unwrap_or_default();
    Costs { server_cpu, client_cpu, syncs }
}

/// One client: a call, its answer, the next call.
async fn client_loop(run: Rc<Run>, client: u64, mut dice: Dice) {
    let mut caller = Caller { run: &run, connection: None, host: usize::try_from(client).unwrap_or(0) };
    let (mut body, mut sequence) = (String::new(), 0);
    loop {
        body.clear();
        run.template.render(Turn { client, sequence }, &mut dice, &mut body);
        let key = run.retry.then(|| format!("{}-{client}-{sequence}", run.run_key));
        sequence += 1;
        caller.call(key.as_deref(), &body).await;
    }
}

/// One client's way to the nodes.
struct Caller<'a> {
    run: &'a Run,
    connection: Option<Connection>,
    /// Counts up; modulo the number of nodes, the one to ask.
    host: usize,
}

impl Caller<'_> {
    /// One call, sent again as often as needed when that was asked for, into the record.
    async fn call(&mut self, key: Option<&str>, body: &str) {
        let sent = now();
        let deadline = sent + self.run.timeout;
        let mut pause = PAUSES.0;
        loop {
            let (code, may_pass) = match self.attempt(key, body, deadline).await {
                Ok(answer) if (200..300).contains(&answer.status) => return self.run.success(sent),
                Ok(answer) => (code_of(&answer), answer.status == 429 || answer.status >= 500),
                Err(error) => (code_of_error(&error).to_owned(), true),
            };
            let again = self.run.retry && may_pass && now() + pause < deadline;
            if may_pass {
                self.host = self.host.wrapping_add(1);
                self.connection = None;
                tokio::time::sleep(pause).await;
                pause = PAUSES.1.min(pause * 2);
            }
            if !again {
                return self.run.error(&code);
            }
            self.run.record.borrow_mut().retries += 1;
        }
    }

    async fn attempt(&mut self, key: Option<&str>, body: &str, deadline: Instant) -> std::io::Result<Answer> {
        let left = deadline.saturating_duration_since(now());
        let wait = if self.run.retry { left.min(ATTEMPT_WAIT) } else { left };
        let run = self.run;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&run.targets[self.host % run.targets.len()], wait.min(CONNECT_WAIT)).await?,
        };
        let (answer, usable) = tokio::time::timeout(wait, connection.post(&run.path, key, body)).await??;
        self.connection = usable.then_some(connection);
        Ok(answer)
    }
}

impl Run {
    fn success(&self, sent: Instant) {
        self.record.borrow_mut().success(sent, now());
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
        if record.successes() + record.errors.values().sum::<u64>() >= calls {
            self.enough.notify_one();
        }
    }
}

/// A line a second on standard error.
async fn show_progress(run: Rc<Run>) {
    let start = now();
    let (mut last, mut last_at) = ((0, 0), start);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (successes, others) = *run.completed.borrow();
        let at = now();
        let rate = report::rate(successes - last.0, at - last_at);
        let elapsed = (at - start).as_secs_f64();
        let failed = others - last.1;
        crate::client::say(format_args!("{elapsed:6.1} s  {rate:9.0} calls/s  {failed:6} not successful"));
        (last, last_at) = ((successes, others), at);
    }
}

/// What an answer that is not 2xx says is wrong.
fn code_of(answer: &Answer) -> String {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match problem.get("code").and_then(Value::as_str) {
        Some(code) => code.to_owned(),
        None => format!("http_{}", answer.status),
    }
}

fn code_of_error(error: &std::io::Error) -> &'static str {
    let found = ERROR_CODES.iter().find(|(kind, _)| *kind == error.kind());
    // Reset, aborted, end of file, broken pipe: the node went away.
    found.map_or("connection_lost", |(_, code)| code)
}

const ERROR_CODES: [(ErrorKind, &str); 4] = [
    (ErrorKind::ConnectionRefused, "connection_refused"),
    (ErrorKind::TimedOut, "no_answer_in_time"),
    (ErrorKind::InvalidData, "not_an_http_answer"),
    (ErrorKind::AddrNotAvailable, "no_local_port_left"),
];

/// The node of a URL.
fn target(url: &str, trust: &Trust) -> Result<Target, Failure> {
    let base = base_url(url, trust)?;
    let (host, encrypted) = match base.strip_prefix("https://") {
        Some(host) => (host, true),
        None => (base.trim_start_matches("http://"), false),
    };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = match (has_port, encrypted) {
        (true, _) => host.to_owned(),
        (false, true) => format!("{host}:443"),
        (false, false) => format!("{host}:80"),
    };
    let target = if encrypted {
        let made = Target::encrypted(host, authorities(trust)?);
        made.map_err(|error| Failure::Usage(format!("--url {url}: {error}")))?
    } else {
        Target::plain(host)
    };
    Ok(target.presenting(bearer(trust)?.as_deref()))
}
