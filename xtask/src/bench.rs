//! `cargo xtask bench`: the figures of docs/performance.md, measured on real processes with real
//! syncs.
//!
//! Part `calls`: `inventory.transfer` with more and more clients. `kills`: under 64 clients that retry, the
//! leader is killed again and again and the longest time without a success is noted. The others, which take minutes:
//! modules [`changes`], [`clients`], [`durability`], [`overload`].

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

mod changes;
mod clients;
mod durability;
mod overload;

use crate::cluster::{Cluster, delayed, finished};

/// What to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// What to measure; all but the first two take minutes
    #[arg(long, value_delimiter = ',', default_value = "calls,kills")]
    parts: Vec<Part>,
    /// Numbers of clients, one run each
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<u32>,
    /// Seconds of each run
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// How often the leader is killed under load, and anything else happens (parts `leads` and `members`)
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// The first REST port of the cluster
    #[arg(long, default_value_t = 18_080)]
    http_base: u16,
    /// The first port for peers of the cluster
    #[arg(long, default_value_t = 17_080)]
    peer_base: u16,
    /// Commands that a node misses which is away (part `away`)
    #[arg(long, default_value_t = 100_000)]
    missed: u64,
    /// MiB of state that a node receives which was away for longer than commands are kept (part `state`)
    #[arg(long, default_value_t = 1_024)]
    state: u64,
    /// How often that state is sent, and good clients are watched beside bad ones (parts `state`, `clients`)
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Commands that are issued before all nodes are killed and start again (part `restart`)
    #[arg(long, default_value_t = 1_000_000)]
    issued: u64,
    /// Minutes under load during which memory is watched (part `memory`)
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Delay every sync by so many milliseconds, as a cloud disk does (needs strace); nodes that were killed start again without
    #[arg(long, value_name = "MILLISECONDS")]
    sync_delay: Option<u32>,
    /// What nodes are started with, such as protocol.window=64; as often as wanted
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The program to measure, such as that of another version, instead of building it
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where results.json, results.md and the data of the cluster go; by default under target/
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Calls with more and more clients
    Calls,
    /// The gap after kill -9 of the leader
    Kills,
    /// How fast a node catches up that missed commands, with and without load
    Away,
    /// How fast a node gets a whole state, and what calls notice of it
    State,
    /// How fast a cluster starts again
    Restart,
    /// What is written for what is acknowledged
    Disk,
    /// Whether memory grows
    Memory,
    /// What calls notice of a leader that is killed, stands still or hands over
    Leads,
    /// What calls notice of an acceptor that joins and is removed
    Members,
    /// What is acknowledged and refused when more calls come than can be executed; with `--sync-delay 50 --set
    /// protocol.window=32` disks are what bounds the cluster, and not the processors that it shares with the load
    Overload,
    /// What good clients notice of bad ones
    Clients,
}

impl Arguments {
    /// The program to measure.
    pub(crate) fn binary(&self) -> anyhow::Result<PathBuf> {
        match &self.binary {
            Some(binary) => Ok(binary.clone()),
            None => crate::release_binary(),
        }
    }

    /// A new cluster.
    fn cluster<'a>(&self, binary: &'a Path) -> anyhow::Result<Cluster<'a>> {
        self.cluster_with(binary, &[])
    }

    /// The same with settings of the part's own; those that were asked for come after them.
    fn cluster_with<'a>(&self, binary: &'a Path, sets: &[&str]) -> anyhow::Result<Cluster<'a>> {
        let (command, ports) = (delayed(binary, self.sync_delay), (self.http_base, self.peer_base));
        let asked = self.set.iter().map(String::as_str);
        let sets: Vec<&str> = sets.iter().copied().chain(asked).collect();
        Cluster::start(command, self.directory()?.join("data"), ports, binary, &sets)
    }

    fn directory(&self) -> anyhow::Result<PathBuf> {
        match &self.directory {
            Some(directory) => Ok(directory.clone()),
            None => Ok(crate::target_directory()?.join("bench")),
        }
    }
}

/// Measures and writes the results.
pub(crate) fn run(arguments: &Arguments, binary: &Path) -> anyhow::Result<()> {
    let directory = arguments.directory()?;
    std::fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let (mut results, mut text) = (Map::new(), String::new());
    if arguments.parts.iter().any(|part| [Part::Calls, Part::Kills].contains(part)) {
        let (runs, gaps) = calls(arguments, binary)?;
        text.push_str(&table(&runs, &gaps));
        results.extend([("runs".to_owned(), json!(runs)), ("gaps_ms".to_owned(), json!(gaps))]);
    }
    for part in &arguments.parts {
        let name = part.to_possible_value().context("every part has a name")?.get_name().to_owned();
        let measured = match part {
            Part::Calls | Part::Kills => continue,
            Part::Away => durability::away(arguments, binary),
            Part::State => durability::state(arguments, binary),
            Part::Restart => durability::restart(arguments, binary),
            Part::Disk => durability::disk(arguments, binary),
            Part::Memory => durability::memory(arguments, binary),
            Part::Leads => changes::leads(arguments, binary),
            Part::Members => changes::members(arguments, binary),
            Part::Overload => overload::overload(arguments, binary),
            Part::Clients => clients::clients(arguments, binary),
        }?;
        _ = writeln!(text, "\n{name}:\n{measured:#}");
        results.insert(name, measured);
    }
    let results = Value::Object(results);
    for (name, text) in [("results.json", format!("{results:#}\n")), ("results.md", text.clone())] {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        eprintln!("written: {}", path.display());
    }
    print!("{text}");
    Ok(())
}

fn calls(arguments: &Arguments, binary: &Path) -> anyhow::Result<(Vec<Value>, Vec<f64>)> {
    let mut cluster = arguments.cluster(binary)?;
    let mut runs = Vec::new();
    if arguments.parts.contains(&Part::Calls) {
        for (index, clients) in arguments.clients.iter().enumerate() {
            crate::step(&format!("{clients} clients"));
            let (clients, seconds) = (clients.to_string(), arguments.seconds.to_string());
            let mut flags = vec!["--clients", &clients, "--seconds", &seconds];
            if index == 0 {
                flags.extend(["--setup", "inventory:1000"]);
            }
            runs.push(finished(cluster.bench(&cluster.all(), &flags)?)?);
        }
    }
    let mut gaps = Vec::new();
    if arguments.parts.contains(&Part::Kills) {
        if runs.is_empty() {
            finished(
                cluster.bench(&cluster.all(), &["--setup", "inventory:1000", "--seconds", "3", "--clients", "64"])?,
            )?;
        }
        for kill in 1..=arguments.kills {
            crate::step(&format!("kill -9 of the leader, {kill} of {}", arguments.kills));
            gaps.push(cluster.kill_leader_under_load()?);
        }
    }
    Ok((runs, gaps))
}

/// The results as Markdown.
fn table(runs: &[Value], gaps: &[f64]) -> String {
    let mut text = String::from(
        "| Clients | Calls/s | p50 ms | p99 ms | CPU us a call, all nodes | Syncs a call | Errors |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for run in runs {
        let number = |value: &Value, digits: usize| match value.as_f64() {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        let errors: u64 = run["errors"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {errors} |",
            run["clients"],
            number(&run["calls_per_second"], 0),
            number(&run["latency_ms"]["p50"], 2),
            number(&run["latency_ms"]["p99"], 2),
            number(&run["server_cpu_us_per_call"], 1),
            number(&run["syncs_per_call"], 3),
        );
    }
    if !gaps.is_empty() {
        let mut sorted = gaps.to_vec();
        sorted.sort_by(f64::total_cmp);
        let list: Vec<String> = gaps.iter().map(|gap| format!("{gap:.0}")).collect();
        let _ = writeln!(
            text,
            "\nTime without a success after `kill -9` of the leader, 64 clients, ms: {} (median {:.0})",
            list.join(", "),
            median(&sorted)
        );
    }
    text
}

/// The one in the middle, or the average of the two in the middle; `sorted` is not empty.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a table that shows a figure in the wrong column, hides errors, or invents a figure
    /// that was not measured, or takes one of the two gaps in the middle for the median.
    #[test]
    fn the_table_shows_what_was_measured() {
        let run = json!({
            "clients": 64, "calls_per_second": 12_345.6, "latency_ms": {"p50": 4.567, "p99": 9.0},
            "server_cpu_us_per_call": 70.04, "syncs_per_call": null, "errors": {"no_leader": 2, "timeout": 1},
        });
        let odd = table(std::slice::from_ref(&run), &[300.4, 100.0, 200.0]);
        assert!(odd.contains("| 64 | 12346 | 4.57 | 9.00 | 70.0 | - | 3 |"), "{odd}");
        assert!(odd.contains("300, 100, 200 (median 200)"), "{odd}");
        let even = table(&[run], &[300.4, 100.0, 240.0, 200.0]);
        assert!(even.contains("300, 100, 240, 200 (median 220)"), "{even}");
    }
}
