//! `cargo xtask compare`: Quorate beside etcd, ZooKeeper and PostgreSQL with one synchronous standby, all doing the
//! same transfers on this machine, or the same reads, and the floors under them.
//!
//! All systems run at once and one of them is loaded at a time, in turn: A B C A B C. A machine that other people
//! use is faster in one minute than in the next, and figures that were measured within the same minute can be
//! compared. What the others cost while they idle is measured and told. The load comes from one program for all
//! ([`crates/load`], with clients of the other systems in `compare/`). What was found goes into `results.json`; the
//! table, the picture and the part of docs/performance.md are made from that file ([`page`], [`picture`]), so that
//! they can be made again without measuring (`--from`).
//!
//! [`crates/load`]: ../../load/index.html

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

mod install;
mod kill;
mod page;
mod picture;
mod postgresql;
mod results;
mod systems;

use systems::{Place, Running};

/// Seconds of load that every system gets after its start, so that none is measured while it is still being compiled.
const SETTLE: f64 = 5.0;

/// Seconds for which the systems are watched while they idle, and for each floor.
const WATCH: f64 = 3.0;

/// What to measure.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask compare                     everything; about half an hour
  cargo xtask compare --quick             one run of 2 s with 1 and 64 clients on 1,000 accounts; two minutes
  cargo xtask compare --systems quorate,etcd --clients 64 --accounts 1000 --runs 5
  cargo xtask compare --clients 64 --zipf 0 --accounts 1000 --reads
  cargo xtask compare --kill 10           how long nobody succeeds after the leader was killed, ten times each
  cargo xtask compare --clients 64 --zipf 0 --accounts 1000 --sync-delay 1
  cargo xtask compare --systems quorate,postgresql --clients 64 --zipf 0 --accounts 1000 --rate 10000
  cargo xtask compare --docs              everything, then docs/performance.md, docs/compare.json, docs/compare.svg
  cargo xtask compare --from docs/compare.json --docs     the same files again, without measuring")]
pub(crate) struct Arguments {
    /// What to compare; systems that are not there are left out
    #[arg(long, value_delimiter = ',', default_value = "quorate,etcd,zookeeper,postgresql")]
    systems: Vec<Kind>,
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<u32>,
    /// Numbers of accounts
    #[arg(long, value_delimiter = ',', default_value = "1000,100000")]
    accounts: Vec<u64>,
    /// Exponents of Zipf's law by which accounts are drawn; 0 is evenly
    #[arg(long, value_delimiter = ',', default_value = "0,1.2")]
    zipf: Vec<f64>,
    /// Runs of everything, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds of each run, after a warm-up of one
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// One run of 2 s with 1 and 64 clients on 1,000 accounts that are drawn evenly
    #[arg(long, conflicts_with_all = ["runs", "seconds", "clients", "accounts", "zipf"])]
    quick: bool,
    /// Reads of one account each, instead of transfers
    #[arg(long, conflicts_with = "docs")]
    reads: bool,
    /// Calls a second on each system, in an open loop, instead of as many as it takes
    #[arg(long)]
    rate: Option<f64>,
    /// Delay every sync of every system by so many milliseconds, as a cloud disk does (needs strace); CPU is then not
    /// comparable
    #[arg(long, value_name = "MILLISECONDS")]
    sync_delay: Option<u32>,
    /// Kill the leader of each system that has one so many times under 64 clients, instead of the rest
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(conflicts_with_all = ["quick", "reads", "rate", "sync_delay", "docs"])]
    kill: Option<u32>,
    /// The Quorate to measure, instead of building it
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The first of a hundred ports
    #[arg(long, default_value_t = 24_000)]
    ports: u16,
    /// Where results.json, results.md, compare.svg and the data of all systems go; by default under target/
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Do not measure: take the results from this file
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Write docs/compare.json, docs/compare.svg and the part of docs/performance.md too
    #[arg(long)]
    docs: bool,
}

/// What can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Kind {
    Quorate,
    Etcd,
    Zookeeper,
    Postgresql,
    /// An HTTP server that sends back what it gets: a floor, which is always measured
    #[value(skip)]
    Echo,
}

impl Kind {
    /// Its name on the command line and in the results.
    fn name(self) -> &'static str {
        match self {
            Self::Quorate => "quorate",
            Self::Etcd => "etcd",
            Self::Zookeeper => "zookeeper",
            Self::Postgresql => "postgresql",
            Self::Echo => "echo",
        }
    }
}

/// Measures, or reads what was measured, and writes all that is made from it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let directory = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => crate::target_directory()?.join("compare"),
    };
    std::fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    // Other users, as which a system may run, do not know where we are.
    let directory = directory.canonicalize().with_context(|| directory.display().to_string())?;
    let results = match &arguments.from {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?
        }
        None => measure(arguments, &directory)?,
    };
    if results["kills"].is_array() {
        write(&directory.join("kills.json"), &format!("{results:#}\n"))?;
        print!("{}", kill::page(&results));
        return Ok(());
    }
    let page = page::page(&results)?;
    write(&directory.join("results.md"), &page)?;
    write(&directory.join("compare.svg"), &picture::svg(&results))?;
    if arguments.docs {
        let about = &results["about"];
        if about["rate"].is_number() || about["sync_delay_ms"].is_number() || about["reads"] == true {
            bail!("--docs: the document compares systems without --reads, --rate and --sync-delay");
        }
        let docs = crate::workspace().join("docs");
        write(&docs.join("compare.json"), &format!("{:#}\n", results::summary(&results)))?;
        write(&docs.join("compare.svg"), &picture::svg(&results))?;
        let performance = docs.join("performance.md");
        let text = std::fs::read_to_string(&performance).context("docs/performance.md cannot be read")?;
        write(&performance, &page::insert(&text, &page)?)?;
    }
    print!("{page}");
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    eprintln!("written: {}", path.display());
    Ok(())
}

/// What is varied.
struct Scope {
    clients: Vec<u32>,
    accounts: Vec<u64>,
    zipf: Vec<f64>,
    runs: u32,
    seconds: f64,
    /// Accounts are read, not transferred between.
    reads: bool,
    rate: Option<f64>,
    /// Milliseconds.
    sync_delay: Option<u32>,
}

impl Scope {
    fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        let (reads, rate, sync_delay) = (arguments.reads, arguments.rate, arguments.sync_delay);
        if arguments.quick {
            let (clients, accounts, zipf) = (vec![1, 64], vec![1000], vec![0.0]);
            return Ok(Self { clients, accounts, zipf, runs: 1, seconds: 2.0, reads, rate, sync_delay });
        }
        let mut accounts = arguments.accounts.clone();
        accounts.sort_unstable();
        if accounts.first().is_none_or(|fewest| *fewest < 2) || !(0.1..=3600.0).contains(&arguments.seconds) {
            bail!("--accounts: from 2; --seconds: from 0.1 to 3600");
        }
        let (clients, zipf) = (arguments.clients.clone(), arguments.zipf.clone());
        let (runs, seconds) = (arguments.runs, arguments.seconds);
        Ok(Self { clients, accounts, zipf, runs, seconds, reads, rate, sync_delay })
    }
}

fn measure(arguments: &Arguments, directory: &Path) -> anyhow::Result<Value> {
    let scope = Scope::of(arguments)?;
    let (there, missing) = install::systems(&arguments.systems)?;
    crate::setup::run()?;
    let binary = match &arguments.binary {
        Some(binary) => binary.canonicalize().with_context(|| binary.display().to_string())?,
        None => crate::release_binary()?,
    };
    let loader = loader()?;
    let place =
        Place { directory, ports: arguments.ports, binary: &binary, loader: &loader, sync_delay: scope.sync_delay };
    if let Some(times) = arguments.kill {
        return kill::measure(&there, times, &place);
    }
    let about = results::about(&binary, arguments.binary.is_some(), &scope);
    let mut running: Vec<Running<'_>> = Vec::new();
    for kind in there {
        crate::step(&format!("starting {}", kind.name()));
        running.push(Running::start(kind, &place)?);
    }
    let echo = Running::start(Kind::Echo, &place)?;
    let mut comparison = Comparison {
        scope: &scope,
        loader: &loader,
        running: &running,
        echo: &echo,
        runs: BTreeMap::new(),
        floors: Vec::new(),
    };
    let mut results = json!({ "about": about, "missing": missing });
    results["systems"] =
        running.iter().map(|system| json!({ "name": system.kind.name(), "about": system.about })).collect();
    let mut stocked = 0;
    for accounts in &scope.accounts {
        for system in &running {
            crate::step(&format!("{}: {accounts} accounts, then {SETTLE} s of load", system.kind.name()));
            system.load(
                &loader,
                &["stock"],
                &["--first", &stocked.to_string(), "--accounts", &accounts.to_string()],
            )?;
            comparison.load(system, Cell { accounts: *accounts, zipf: 0.0, clients: 64 }, SETTLE, 0)?;
        }
        if stocked == 0 {
            comparison.load(&echo, Cell { accounts: *accounts, zipf: 0.0, clients: 64 }, 1.0, 0)?;
            results["idle_cpu_percent"] = comparison.idle()?;
        }
        stocked = *accounts;
        for run in 1..=scope.runs {
            comparison.run(*accounts, run, directory)?;
            results["floors"] = results::floors(&comparison.floors);
            results["cells"] = results::cells(&comparison.runs);
            write(&directory.join("results.json"), &format!("{results:#}\n"))?;
        }
    }
    Ok(results)
}

/// The program that loads, built beside the rest.
fn loader() -> anyhow::Result<PathBuf> {
    crate::step("building compare/ in release mode; the first time takes some minutes");
    let target = crate::target_directory()?.join("compare-build");
    let manifest = crate::workspace().join("compare/Cargo.toml");
    let mut build = Command::new(crate::cargo_program());
    build.args(["build", "--release", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
    if !build.status().context("cargo")?.success() {
        bail!("compare/ could not be built; what cargo said is above");
    }
    Ok(target.join("release/quorate-compare"))
}

/// One load that is put on each system.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    accounts: u64,
    zipf: f64,
    clients: u32,
}

/// What is measured while it is.
struct Comparison<'a> {
    scope: &'a Scope,
    loader: &'a Path,
    running: &'a [Running<'a>],
    echo: &'a Running<'a>,
    /// All runs of a system under a load, by what orders them in the results.
    runs: BTreeMap<results::Key, Vec<Value>>,
    floors: Vec<Value>,
}

impl Comparison<'_> {
    /// Everything once.
    fn run(&mut self, accounts: u64, run: u32, directory: &Path) -> anyhow::Result<()> {
        crate::step("floors: append and sync, a round trip");
        let seconds = WATCH.min(self.scope.seconds).to_string();
        let directory = directory.to_string_lossy();
        self.floors.push(systems::told(self.loader, &["floors", "--directory", &directory, "--seconds", &seconds])?);
        for (place, zipf) in self.scope.zipf.iter().enumerate() {
            for clients in &self.scope.clients {
                let cell = Cell { accounts, zipf: *zipf, clients: *clients };
                // What is sent back does not depend on accounts.
                let echo = (place == 0 && accounts == self.scope.accounts[0]).then_some(self.echo);
                for system in self.running.iter().chain(echo) {
                    let name = system.kind.name();
                    let line = format!("run {run}: {accounts} accounts, Zipf {zipf}, {clients} clients: {name}");
                    let report = self.load(system, cell, self.scope.seconds, run)?;
                    let rate = report["calls_per_second"].as_f64().unwrap_or(0.0);
                    crate::step(&format!("{line}: {rate:.0}/s"));
                    self.runs.entry(results::Key::new(cell, system.kind)).or_default().push(report);
                }
            }
        }
        Ok(())
    }

    fn load(&self, system: &Running<'_>, cell: Cell, seconds: f64, run: u32) -> anyhow::Result<Value> {
        let (accounts, clients) = (cell.accounts.to_string(), cell.clients.to_string());
        let (seconds, seed) = (seconds.to_string(), (run + 1).to_string());
        let pids = system.pids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let (zipf, rate) = (cell.zipf.to_string(), self.scope.rate.map(|rate| rate.to_string()));
        let mut flags = vec!["--accounts", &accounts, "--clients", &clients, "--seconds", &seconds, "--warmup", "1"];
        flags.extend(["--seed", &seed, "--pids", &pids]);
        if cell.zipf > 0.0 {
            flags.extend(["--zipf", &zipf]);
        }
        if self.scope.reads {
            flags.push("--read");
        }
        // A run without a number is the load after a start.
        if let Some(rate) = rate.as_ref().filter(|_| run > 0) {
            flags.extend(["--rate", rate]);
        }
        let told = system.load(self.loader, &["load"], &flags)?;
        serde_json::from_str(&told).context("the result of a run")
    }

    /// What the systems take of a processor while nobody calls them.
    fn idle(&self) -> anyhow::Result<Value> {
        crate::step("what the systems cost while they idle");
        let of_all: Vec<String> = self.running.iter().flat_map(|system| &system.pids).map(u64::to_string).collect();
        let told = systems::told(self.loader, &["idle", "--seconds", &WATCH.to_string(), "--pids", &of_all.join(",")])?;
        let percent =
            |system: &Running<'_>| -> f64 { system.pids.iter().filter_map(|pid| told[pid.to_string()].as_f64()).sum() };
        Ok(self
            .running
            .iter()
            .map(|system| (system.kind.name(), percent(system)))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect())
    }
}
