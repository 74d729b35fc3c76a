//! `cargo xtask simulate`: seeds of the simulator, many or one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use protocol::Tick;
use quorate_simulator::planted::Planted;
use quorate_simulator::run::{self, Job, Kind, Report};
use quorate_simulator::scenarios::{self, Scenario};
use quorate_simulator::tally::GOALS_FAULTS;

/// Runs whole clusters of the shipped cores in virtual time, under faults, one world for each
/// seed. Ends with code 1 when an invariant is broken, or a kind of fault was never injected.
#[derive(Debug, Parser)]
#[command(
    name = "simulate",
    after_help = "Examples:\n  \
    simulate --seeds 1000\n  \
    simulate --seed 42 --seeds 1 --log 200\n  \
    simulate --seed 42 --trace seed-42.svg\n  \
    simulate --seed 42 --trace seed-42.svg --until 12\n  \
    simulate --scenario flapping --seed 0 --log 200\n  \
    simulate --minutes 60\n  \
    simulate --planted votes-with-gaps --seeds 2000"
)]
struct Arguments {
    /// How many seeds; by default 200, with --minutes as many as there is time for, with --log or --trace 1.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin no seed later than this.
    #[arg(long)]
    minutes: Option<u64>,
    /// The longest time of faults in a seed, in virtual seconds.
    #[arg(long, default_value_t = GOALS_FAULTS)]
    faults: u64,
    /// Plant a known mistake, to see it caught.
    #[arg(long, value_enum)]
    planted: Option<Planted>,
    /// Of a thousand calls, how many are about the membership; with 0 nodes neither join nor leave. By default each
    /// seed draws it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1000))]
    changes: Option<u32>,
    /// How many seeds at a time; by default one for each processor.
    #[arg(long)]
    threads: Option<usize>,
    /// Print a line for each seed, with the hash of its trace, in the order of the seeds.
    #[arg(long, requires = "seeds", conflicts_with_all = ["minutes", "trace", "log"])]
    each: bool,
    /// Play the scenario of partial connectivity whose name contains this, with this seed; with --log or --trace as well.
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Run one seed and draw its last facts into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Draw what came before this, in virtual seconds, instead of the end.
    #[arg(long, value_name = "SECONDS", requires = "trace", conflicts_with = "scenario", value_parser = clap::value_parser!(u64).range(1..1_000_000))]
    until: Option<u64>,
    /// Run one seed and print its last facts, so many.
    #[arg(long, value_name = "LINES")]
    log: Option<usize>,
    /// With heartbeats in the log.
    #[arg(long, requires = "log")]
    heartbeats: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let kind =
        Kind { longest: Duration::from_secs(arguments.faults), planted: arguments.planted, changes: arguments.changes };
    if let Some(name) = &arguments.scenario {
        return play(name, &arguments);
    }
    if (arguments.trace.is_some() || arguments.log.is_some()) && arguments.seeds.is_some_and(|seeds| seeds != 1) {
        bail!("--trace and --log show one seed, that of --seed: leave --seeds out");
    }
    if let Some(file) = &arguments.trace {
        let until = arguments.until.map_or(Tick(u64::MAX), |seconds| Tick(0) + Duration::from_secs(seconds));
        let (report, svg) = run::drawn(arguments.seed, kind, until);
        std::fs::write(file, svg).with_context(|| format!("{} cannot be written", file.display()))?;
        if arguments.log.is_none() {
            return Ok(say(&report));
        }
    }
    if let Some(lines) = arguments.log {
        let (report, log) = run::logged(arguments.seed, kind, lines, arguments.heartbeats);
        println!("{log}");
        return Ok(say(&report));
    }
    if arguments.each {
        let last = arguments.seed.saturating_add(arguments.seeds.unwrap_or_default());
        let codes = (arguments.seed..last).map(|seed| say(&run::seed(seed, kind)));
        return Ok(codes.fold(ExitCode::SUCCESS, |all, code| if code == ExitCode::SUCCESS { all } else { code }));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let job = Job {
        first: arguments.seed,
        seeds: arguments.seeds.unwrap_or(if arguments.minutes.is_some() { u64::MAX } else { run::SEEDS_FOR_ALL_KINDS }),
        until: arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        kind,
        threads: arguments.threads.unwrap_or(threads),
    };
    if job.seeds == 1 {
        return Ok(say(&run::seed(job.first, kind)));
    }
    let summary = run::all(&job, &|report| println!("{report}\n"));
    println!("{summary}");
    if let Some(complaint) = summary.complaint() {
        println!("{complaint}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn play(name: &str, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let scenario = Scenario::named(name).with_context(|| {
        let names: Vec<&str> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
        format!("there is no scenario {name:?}; they are:\n{}", names.join("\n"))
    })?;
    let (seed, lines) = (arguments.seed, arguments.log.unwrap_or_default());
    let found = match &arguments.trace {
        None => scenario.play(seed, lines),
        Some(file) => {
            let (found, svg) = scenario.draw(seed, lines);
            std::fs::write(file, svg).with_context(|| format!("{} cannot be written", file.display()))?;
            found
        }
    };
    match found {
        Ok(finding) => {
            println!("{}{}: {finding}", finding.log, scenario.name);
            Ok(ExitCode::SUCCESS)
        }
        Err(broken) => {
            println!("{broken}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn say(report: &Report) -> ExitCode {
    println!("{report}");
    if report.failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
