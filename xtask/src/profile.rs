//! `cargo xtask profile`: where a call's processor time goes, by the threads of the nodes under load.
//!
//! Each role of a node has a thread (ARCHITECTURE, *A node*), and the kernel counts what each thread takes. So the
//! table is exact to nanoseconds, costs nothing while it is measured, and needs no tool. It does not look inside a
//! thread: where `perf` is there, `--perf` samples stacks and draws a flame graph.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

mod flame;

use crate::cluster::{Cluster, clock, finished, pause};

/// The load runs so much longer than it is watched, at each end.
const MARGIN: Duration = Duration::from_millis(1500);

/// What to look at.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask profile
  cargo xtask profile --clients 1
  cargo xtask profile --perf            a flame graph too (needs Debian's linux-perf)")]
pub(crate) struct Arguments {
    /// Clients that transfer
    #[arg(long, default_value_t = 64)]
    clients: u32,
    /// How long to watch
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Sample stacks too, and draw them as a flame graph; also folded, a line for each stack
    #[arg(long)]
    perf: bool,
    /// The program to measure, instead of building it
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The first REST port of the cluster; its peers use those from 1,000 below
    #[arg(long, default_value_t = 18_080)]
    http_base: u16,
    /// Where profile.json, profile.svg, profile.folded and the data of the cluster go; by default under target/
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// What threads of one name have taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Taken {
    /// Microseconds on a processor.
    running: f64,
    /// Microseconds of waiting for one, ready to run.
    waiting: f64,
    /// How often they were put on one.
    turns: f64,
}

/// Threads of one name in nodes of one role.
type Threads = BTreeMap<(bool, String), Taken>;

/// Measures and prints the table.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => crate::release_binary()?,
    };
    let directory = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => crate::target_directory()?.join("profile"),
    };
    std::fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let ports = (arguments.http_base, arguments.http_base.saturating_sub(1_000));
    let cluster = Cluster::start(Command::new(&binary), directory.join("data"), ports, &binary, &[])?;
    let length = Duration::from_secs(arguments.seconds.into());
    crate::step(&format!("{} clients for {} s", arguments.clients, arguments.seconds));
    let seconds = (length + 2 * MARGIN).as_secs_f64().to_string();
    let clients = arguments.clients.to_string();
    let flags = ["--warmup", "0", "--clients", &clients, "--seconds", &seconds];
    finished(cluster.bench(&cluster.all(), &["--setup", "inventory:1000", "--seconds", "0.2", "--warmup", "0"])?)?;
    let load = cluster.bench(&cluster.all(), &flags)?;
    pause(MARGIN);
    let (leader, _) = cluster.leader()?;
    let issued = |cluster: &Cluster<'_>| {
        cluster.metric(leader, "quorate_learner_issued").context("the leader answers no metrics")
    };
    let (calls, before, begun) = (issued(&cluster)?, threads(&cluster, leader)?, clock());
    match arguments.perf {
        true => stacks(&cluster, length, &directory)?,
        false => pause(length),
    }
    let (taken, calls) = (since(&threads(&cluster, leader)?, &before), issued(&cluster)? - calls);
    let elapsed = begun.elapsed().as_secs_f64();
    finished(load)?;
    if calls < 1.0 {
        bail!("no call was issued while the threads were watched");
    }
    let path = directory.join("profile.json");
    let rows: Vec<Value> = taken
        .iter()
        .map(|((leads, name), taken)| json!({"leads": leads, "thread": name, "running_us": taken.running / calls, "waiting_us": taken.waiting / calls, "turns": taken.turns / calls}))
        .collect();
    let results = json!({"clients": arguments.clients, "calls_per_second": calls / elapsed, "threads_per_call": rows});
    std::fs::write(&path, format!("{results:#}\n")).with_context(|| format!("{} cannot be written", path.display()))?;
    eprintln!("written: {}", path.display());
    print!("{} clients, {:.0} calls/s\n\n{}", arguments.clients, calls / elapsed, table(&taken, calls));
    Ok(())
}

/// What all threads of all nodes have taken so far.
fn threads(cluster: &Cluster<'_>, leader: usize) -> anyhow::Result<Threads> {
    let mut all = Threads::new();
    for (node, (_, _, pid)) in cluster.nodes.iter().enumerate() {
        let tasks = format!("/proc/{pid}/task");
        for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())?.flatten() {
            // A thread may have ended meanwhile.
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).ok();
            let Some((name, taken)) = read("comm").zip(read("schedstat").and_then(|text| taken_of(&text))) else {
                continue;
            };
            let sum = all.entry((node == leader, name.trim().to_owned())).or_default();
            *sum = sum.plus(&taken, 1.0);
        }
    }
    Ok(all)
}

/// Reads `/proc/…/schedstat`: nanoseconds on a processor, nanoseconds of waiting for one, turns.
fn taken_of(text: &str) -> Option<Taken> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().ok());
    let mut next = || numbers.next().flatten();
    Some(Taken { running: next()? / 1e3, waiting: next()? / 1e3, turns: next()? })
}

fn since(now: &Threads, before: &Threads) -> Threads {
    let of = |(key, taken): (&(bool, String), &Taken)| {
        let before = before.get(key).copied().unwrap_or_default();
        (key.clone(), taken.plus(&before, -1.0))
    };
    now.iter().map(of).collect()
}

impl Taken {
    fn plus(&self, other: &Self, sign: f64) -> Self {
        Self {
            running: self.running + sign * other.running,
            waiting: self.waiting + sign * other.waiting,
            turns: self.turns + sign * other.turns,
        }
    }
}

/// What a thread does, by its name.
fn what(thread: &str) -> &'static str {
    match thread {
        "leader+gateway" => "gateway, leader (execution), encoding, links of calls and votes",
        "acceptor" => "votes: encoding, write, sync",
        "learner" => "applying",
        "detector" => "heartbeats",
        "tracing-appende" => "log lines",
        name if name.starts_with("rocksdb") => "flushes, compactions",
        name if name.starts_with("actix") => "HTTP",
        name if name.starts_with("tokio") => "blocking work: state syncs, scans",
        _ => "",
    }
}

fn table(taken: &Threads, calls: f64) -> String {
    let mut rows: Vec<_> = taken.iter().filter(|(_, taken)| taken.turns > 0.0).collect();
    rows.sort_by(|one, other| other.1.running.total_cmp(&one.1.running));
    let mut text = String::from(
        "| Node | Thread | Does | CPU us a call | Waits for a processor, us a call | Turns a call |\n|---|---|---|---|---|---|\n",
    );
    let mut line = |node: &str, thread: &str, does: &str, taken: &Taken| {
        let [running, waiting, turns] = [taken.running, taken.waiting, taken.turns].map(|figure| figure / calls);
        // Writing to a text does not fail.
        _ = writeln!(text, "| {node} | {thread} | {does} | {running:.2} | {waiting:.2} | {turns:.3} |");
    };
    let mut sum = Taken::default();
    for ((leads, thread), taken) in rows {
        sum = sum.plus(taken, 1.0);
        line(if *leads { "leader" } else { "the others" }, &thread.replace('|', "/"), what(thread), taken);
    }
    line("all", "", "", &sum);
    text
}

/// Samples the stacks of all nodes and folds them.
fn stacks(cluster: &Cluster<'_>, length: Duration, directory: &Path) -> anyhow::Result<()> {
    let pids = cluster.nodes.iter().map(|(_, _, pid)| pid.to_string()).collect::<Vec<_>>().join(",");
    let (data, seconds) = (directory.join("perf.data"), length.as_secs().to_string());
    let mut record = Command::new("perf");
    record.args([
        "record",
        "--quiet",
        "-e",
        "cpu-clock",
        "-F",
        "499",
        "--call-graph",
        "dwarf,16384",
        "-p",
        &pids,
        "-o",
    ]);
    record.arg(&data).args(["--", "sleep", &seconds]);
    if !record.status().context("perf is not there: apt-get install linux-perf")?.success() {
        bail!("perf record failed; what it said is above");
    }
    crate::step("perf script");
    let script = Command::new("perf").args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(&data).output();
    let script = script.context("perf script")?;
    let folded = folded(&String::from_utf8_lossy(&script.stdout));
    for (name, text) in [("profile.svg", flame::svg(&folded)), ("profile.folded", folded)] {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        eprintln!("written: {}", path.display());
    }
    Ok(())
}

/// A line for each stack: thread, outermost function; …; innermost function, how often it was seen.
fn folded(script: &str) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for sample in script.split("\n\n").filter(|sample| !sample.trim().is_empty()) {
        let mut lines = sample.trim_matches('\n').lines();
        let thread = lines.next().unwrap_or("").trim().to_owned();
        let mut stack: Vec<String> = lines
            .map(|line| line.trim().split_once(' ').map_or("[unknown]", |(_, symbol)| symbol).replace(';', ":"))
            .collect();
        stack.push(thread);
        stack.reverse();
        *counts.entry(stack.join(";")).or_default() += 1;
    }
    counts.iter().map(|(stack, count)| format!("{stack} {count}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a figure in another column or unit, and shares of a call that are those of all calls.
    #[test]
    fn the_table_is_by_call_and_the_dearest_first() {
        let taken = taken_of("2000000 500000 40\n").expect("numbers");
        assert_eq!(taken, Taken { running: 2000.0, waiting: 500.0, turns: 40.0 });
        let mut threads = Threads::new();
        threads.insert((false, "learner".to_owned()), taken);
        threads.insert((true, "acceptor".to_owned()), taken.plus(&taken, 1.0));
        let table = table(&threads, 100.0);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows[0], "| leader | acceptor | votes: encoding, write, sync | 40.00 | 10.00 | 0.800 |");
        assert_eq!(rows[1], "| the others | learner | applying | 20.00 | 5.00 | 0.400 |");
        assert_eq!(rows[2], "| all |  |  | 60.00 | 15.00 | 1.200 |");
        assert!(
            threads.values().all(|taken| since(&threads, &threads).values().all(|none| none.running < taken.running))
        );
        assert_eq!(taken_of("nonsense"), None);
    }

    /// Catches stacks that are upside down, or counted apart that are one.
    #[test]
    fn equal_stacks_are_one_line() {
        let sample = "leader+gateway \n\t    1a inner\n\t    2b outer<A; B>\n\n";
        assert_eq!(folded(&format!("{sample}{sample}")), "leader+gateway;outer<A: B>;inner 2\n");
    }
}
