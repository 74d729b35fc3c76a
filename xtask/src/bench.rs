//! `cargo xtask bench`: the figures of docs/performance.md, measured on real processes with real
//! syncs.
//!
//! First `inventory.transfer` with more and more clients; then, under 64 clients that retry, the
//! leader is killed again and again and the longest time without a success is noted.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

/// What to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Numbers of clients, one run each
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<u32>,
    /// Seconds of each run
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// How often the leader is killed under load
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// The first REST port of the cluster
    #[arg(long, default_value_t = 18_080)]
    http_base: u16,
    /// The first port for peers of the cluster
    #[arg(long, default_value_t = 17_080)]
    peer_base: u16,
    /// Where results.json, results.md and the data of the cluster go; by default under target/
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// How long a killed leader runs before, in seconds: the load is steady by then.
const KILL_AFTER: Duration = Duration::from_secs(3);

/// How long a node that was started again may take until all hear it.
const BACK_WAIT: Duration = Duration::from_secs(30);

/// A running cluster; its end stops it.
struct Cluster<'a> {
    binary: &'a Path,
    data: PathBuf,
    dev: Child,
    /// name, URL, pid
    nodes: Vec<(String, String, u64)>,
    /// Nodes started again.
    again: Vec<Child>,
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        // `dev` stops its nodes on SIGTERM.
        let _ = signal("TERM", u64::from(self.dev.id()));
        let _ = self.dev.wait();
        for node in &mut self.again {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Measures and writes the results.
pub(crate) fn run(arguments: &Arguments, binary: &Path) -> anyhow::Result<()> {
    let directory = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => crate::target_directory()?.join("bench"),
    };
    let data = directory.join("data");
    if data.exists() {
        std::fs::remove_dir_all(&data).with_context(|| format!("{} cannot be emptied", data.display()))?;
    }
    std::fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let mut cluster = Cluster::start(arguments, binary, data)?;
    let mut runs = Vec::new();
    for (index, clients) in arguments.clients.iter().enumerate() {
        crate::step(&format!("{clients} clients"));
        let (clients, seconds) = (clients.to_string(), arguments.seconds.to_string());
        let mut flags = vec!["--clients", &clients, "--seconds", &seconds];
        if index == 0 {
            flags.extend(["--setup", "inventory:1000"]);
        }
        runs.push(finished(cluster.bench(&flags)?)?);
    }
    let mut gaps = Vec::new();
    for kill in 1..=arguments.kills {
        crate::step(&format!("kill -9 of the leader, {kill} of {}", arguments.kills));
        gaps.push(cluster.kill_leader_under_load()?);
    }
    drop(cluster);
    let table = table(&runs, &gaps);
    let results = json!({ "runs": runs, "gaps_ms": gaps });
    for (name, text) in [("results.json", format!("{results:#}\n")), ("results.md", table.clone())] {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        eprintln!("written: {}", path.display());
    }
    print!("{table}");
    Ok(())
}

impl<'a> Cluster<'a> {
    fn start(arguments: &Arguments, binary: &'a Path, data: PathBuf) -> anyhow::Result<Self> {
        let ports = [("--http-base", arguments.http_base), ("--peer-base", arguments.peer_base)];
        let mut command = Command::new(binary);
        command.args(["dev", "--nodes", "3", "--data"]).arg(&data).stdout(Stdio::piped());
        for (flag, port) in ports {
            command.arg(flag).arg(port.to_string());
        }
        let mut dev = command.spawn().context("quorate dev")?;
        let out = dev.stdout.take().context("quorate dev has no output")?;
        let mut cluster = Self { binary, data, dev, nodes: Vec::new(), again: Vec::new() };
        let mut lines = BufReader::new(out).lines();
        if !lines.any(|line| line.is_ok_and(|line| line.starts_with("All "))) {
            bail!("the cluster did not start; what it said is above");
        }
        // What it says later must not fill the pipe and hold it up.
        #[expect(clippy::disallowed_methods, reason = "a job of a developer, no core")]
        std::thread::spawn(move || lines.for_each(drop));
        let path = cluster.data.join("nodes.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let nodes: Value = serde_json::from_str(&text).context("nodes.json")?;
        for node in nodes.as_array().into_iter().flatten() {
            let text = |name: &str| node[name].as_str().map(str::to_owned).context("nodes.json");
            cluster.nodes.push((text("name")?, text("http")?, node["pid"].as_u64().context("nodes.json")?));
        }
        Ok(cluster)
    }

    fn urls(&self) -> String {
        self.nodes.iter().map(|(_, url, _)| url.as_str()).collect::<Vec<_>>().join(",")
    }

    fn bench(&self, flags: &[&str]) -> anyhow::Result<Child> {
        let pids: Vec<String> = self.nodes.iter().map(|(_, _, pid)| pid.to_string()).collect();
        Command::new(self.binary)
            .args(["bench", "inventory.transfer", "--output", "json", "--url", &self.urls(), "--pids", &pids.join(",")])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .context("quorate bench")
    }

    /// Kills the leader under load, starts it again, and says how long nothing succeeded, in
    /// milliseconds.
    fn kill_leader_under_load(&mut self) -> anyhow::Result<f64> {
        let load = self.bench(&["--clients", "64", "--seconds", "8", "--retry"])?;
        pause(KILL_AFTER);
        let leader = self.status()?["leader"]["name"].as_str().context("nobody leads")?.to_owned();
        let index = self.nodes.iter().position(|(name, _, _)| *name == leader).context("an unknown leader")?;
        signal("KILL", self.nodes[index].2)?;
        let result = finished(load)?;
        let config = self.data.join(format!("node-{}", index + 1)).join("quorate.toml");
        let node = Command::new(self.binary).arg("serve").arg("--config").arg(config).stderr(Stdio::null()).spawn();
        let node = node.context("quorate serve")?;
        self.nodes[index].2 = u64::from(node.id());
        self.again.push(node);
        self.wait_until_all_are_heard()?;
        result["longest_gap_ms"].as_f64().context("the result of the run names no gap")
    }

    fn status(&self) -> anyhow::Result<Value> {
        let done = Command::new(self.binary).args(["status", "--output", "json", "--url", &self.urls()]).output()?;
        serde_json::from_slice(&done.stdout).context("quorate status")
    }

    fn wait_until_all_are_heard(&self) -> anyhow::Result<()> {
        let step = Duration::from_millis(100);
        for _ in 0..BACK_WAIT.as_millis() / step.as_millis() {
            let all = self.status().is_ok_and(|status| {
                let nodes = status["nodes"].as_array();
                nodes.is_some_and(|nodes| nodes.iter().all(|node| node["reachable"] == true))
                    && !status["leader"].is_null()
            });
            if all {
                return Ok(());
            }
            pause(step);
        }
        bail!("after {} s not all nodes are heard", BACK_WAIT.as_secs());
    }
}

fn finished(child: Child) -> anyhow::Result<Value> {
    let done = child.wait_with_output().context("quorate bench")?;
    if !done.status.success() {
        bail!("quorate bench failed ({}); what it said is above", done.status);
    }
    serde_json::from_slice(&done.stdout).context("the result of quorate bench")
}

fn signal(name: &str, pid: u64) -> anyhow::Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().context("kill")?;
    if !status.success() {
        bail!("kill -{name} {pid} failed");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a job of a developer measures in real time")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
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
fn median(sorted: &[f64]) -> f64 {
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
