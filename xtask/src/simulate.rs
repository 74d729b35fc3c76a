//! `cargo xtask simulate`: whole clusters of the shipped cores, each from one seed, under faults
//! (docs/testing.md).
//!
//! The simulator is a program of its own, built with optimisations; what it is asked goes to it
//! as it stands, so its `--help` has the whole list.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::Args;

/// What the simulator is asked.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask simulate                                  a few hundred runs
  cargo xtask simulate --seeds 5000 --seed 1000         five thousand, from seed 1000 on
  cargo xtask simulate --minutes 30                     as many as fit into half an hour
  cargo xtask simulate --seed 42 --seeds 1              one seed again, as a failure prints it
  cargo xtask simulate --seed 42 --log 200              the same, with the last 200 things that happened
  cargo xtask simulate --seed 42 --trace seed-42.svg    the same, with a time chart
  cargo xtask simulate -- --help                        all arguments")]
pub(crate) struct Arguments {
    /// For the simulator: --seeds N, --seed S, --minutes M, --log LINES, --trace FILE.svg
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the simulator and becomes it. Files that it is asked to write lie where the job was
/// asked.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    crate::step("building the simulator in release mode; the first time takes some minutes, most of it RocksDB");
    let error = simulator().args(&arguments.arguments).exec();
    Err(error).context("cargo run")
}

/// The longest time of faults in the seeds that every change must pass, in virtual seconds: each kind some minutes on two
/// processors at most.
const FAULTS: &str = "8";
/// That of the usual seeds, for which there are goals.
const USUAL_FAULTS: &str = "30";

/// What every change must pass: the same seeds each time, so that a change that breaks one is seen,
/// fresh ones, so that each change is tried with others, and as many of full length as the goals are for.
pub(crate) fn prove() -> anyhow::Result<()> {
    compare_builds()?;
    let fresh = fresh();
    for (what, seeds, first, faults) in [
        ("the same as ever", "2000", 1, FAULTS),
        ("fresh", "2000", fresh, FAULTS),
        ("fresh and of full length", "1000", fresh + 2_000, USUAL_FAULTS),
    ] {
        crate::step(&format!("simulated clusters: {seeds} seeds from {first} on, {what}"));
        let first = first.to_string();
        let status = simulator().args(["--seeds", seeds, "--seed", &first, "--faults", faults]).status();
        if !status.context("cargo run")?.success() {
            bail!("a simulated cluster broke a rule; what is printed above says how to run it again");
        }
    }
    Ok(())
}

/// Seeds that are run in both builds.
const COMPARED: &str = "50";

/// RELIABILITY 5, class 1a: the same seeds have the same traces in a debug and in a release build. Finds what depends
/// on how it is compiled: an overflow, an address, a `debug_assert` with an effect.
fn compare_builds() -> anyhow::Result<()> {
    crate::step(&format!("simulated clusters: {COMPARED} seeds, as a debug and as a release build"));
    let traces = |mut simulator: Command| -> anyhow::Result<String> {
        let asked = simulator.args(["--each", "--seed", "1", "--seeds", COMPARED, "--faults", FAULTS]);
        let done = asked.stderr(Stdio::inherit()).output().context("cargo run")?;
        let traces = String::from_utf8_lossy(&done.stdout).into_owned();
        if !done.status.success() {
            bail!("a simulated cluster broke a rule:\n{traces}");
        }
        Ok(traces)
    };
    let (debug, release) = (traces(simulator_in(&[]))?, traces(simulator())?);
    match debug.lines().zip(release.lines()).find(|(debug, release)| debug != release) {
        None if debug.lines().count() == release.lines().count() => Ok(()),
        found => bail!("one seed gives two traces, in a debug and in a release build: {found:?}"),
    }
}

/// A seed that nobody has run, most likely: far above those that people choose. Each state of the files in a clean
/// checkout has its own, so that who tries a commit tries the seeds that it will be judged by; elsewhere, as beside a file that
/// git does not know, it is another one each time.
#[expect(clippy::disallowed_methods, reason = "a fresh seed is to differ each time; it is printed")]
fn fresh() -> u64 {
    let asked = |arguments: &[&str]| {
        let git = Command::new("git").args(arguments).current_dir(crate::workspace()).output().ok()?;
        git.status.success().then(|| String::from_utf8_lossy(&git.stdout).trim().to_owned())
    };
    let is_clean = asked(&["status", "--porcelain"]).is_some_and(|changed| changed.is_empty());
    let tree = asked(&["rev-parse", "HEAD^{tree}"]).filter(|_| is_clean);
    let of_tree = tree.and_then(|tree| u64::from_str_radix(tree.get(..12)?, 16).ok());
    of_tree.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX / 2)
    })
}

/// The simulator, built when it is not.
fn simulator() -> Command {
    simulator_in(&["--release"])
}

fn simulator_in(profile: &[&str]) -> Command {
    let mut command = Command::new(crate::cargo_program());
    command.arg("run").args(profile).args(["--quiet", "--package", "quorate-simulator", "--manifest-path"]);
    command.arg(crate::workspace().join("Cargo.toml")).arg("--");
    command
}
