//! `cargo xtask JOB`: everything that a developer runs, so that the README needs two commands.
//!
//! Few dependencies on purpose: this must compile before the system packages are there that the
//! rest needs.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

mod bench;
mod cluster;
mod compare;
mod coverage;
mod fuzz;
mod image;
mod instructions;
mod mutants;
mod previous;
mod profile;
mod setup;
mod simulate;

/// Jobs of the workspace.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask dev --nodes 5\n  cargo xtask test\n  cargo xtask simulate --seeds 100"
)]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

/// Names the file in which tests note that they were skipped (`tests/src/skip.rs`).
const SKIPPED_TESTS: &str = "SKIPPED_TESTS";

/// The image that tests of containers start.
const TEST_IMAGE: &str = "quorate:test";

#[derive(Subcommand)]
enum Job {
    /// Check for the system packages that building RocksDB needs; as root, install what is missing
    Setup,
    /// Build in release mode and run a cluster on this machine (all arguments go to `quorate dev`)
    Dev {
        /// For `quorate dev`, such as --nodes 5
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up, lint, run all tests, then some thousand simulated clusters
    Test {
        /// For the test runner, such as the name of a test
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Formatting and clippy, warnings refused
    Lint,
    /// Search every interleaving of small clusters (tests/model), the largest included, which takes
    /// minutes and some GiB
    #[command(after_help = "Examples:\n  cargo xtask model\n  cargo xtask model literal")]
    Model {
        /// For the test runner, such as the name of a test
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure a release build: the table of docs/performance.md
    Bench(bench::Arguments),
    /// Measure Quorate and other systems with the same transfers, in turn: the comparison of docs/performance.md
    Compare(compare::Arguments),
    /// Say where a call's processor time goes, by the threads of the nodes under load
    Profile(profile::Arguments),
    /// Count the instructions that a call takes in each core, and compare them with what is recorded (needs valgrind)
    Instructions(instructions::Arguments),
    /// Run whole clusters under faults, each from one seed, and look for broken invariants
    Simulate(simulate::Arguments),
    /// Build a container image that holds a static binary and nothing else (needs Docker Engine)
    Image(image::Arguments),
    /// Give bytes of a fuzzer to all that reads bytes from outside (needs cargo-fuzz)
    Fuzz(fuzz::Arguments),
    /// Change the cores in small ways, one at a time, and list the changes that no test notices
    Mutants(mutants::Arguments),
    /// Count which lines of the cores their own tests run, and fail when they are too few (needs llvm-tools)
    Coverage {
        /// Name the lines that never ran
        #[arg(long)]
        lines: bool,
    },
}

fn main() -> ExitCode {
    if let Some(code) = coverage::compiler() {
        return code;
    }
    match run(Cli::parse().job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(job: Job) -> anyhow::Result<()> {
    match job {
        Job::Setup => {
            setup::run()?;
            setup::wanted();
            Ok(())
        }
        Job::Dev { arguments } => {
            setup::run()?;
            let error = Command::new(release_binary()?).arg("dev").args(arguments).exec();
            Err(error).context("quorate dev")
        }
        Job::Test { arguments } => {
            setup::run()?;
            setup::wanted();
            lint()?;
            test(&arguments)?;
            // Whoever asked for some tests only gets these.
            if !arguments.is_empty() {
                return Ok(());
            }
            simulate::prove()?;
            instructions::check()
        }
        Job::Lint => {
            setup::run()?;
            lint()
        }
        Job::Model { arguments } => {
            setup::run()?;
            model(&arguments)
        }
        Job::Bench(arguments) => {
            setup::run()?;
            bench::run(&arguments, &arguments.binary()?)
        }
        Job::Compare(arguments) => compare::run(&arguments),
        Job::Profile(arguments) => {
            setup::run()?;
            profile::run(&arguments)
        }
        Job::Instructions(arguments) => {
            setup::run()?;
            instructions::run(&arguments)
        }
        Job::Simulate(arguments) => {
            setup::run()?;
            simulate::run(&arguments)
        }
        Job::Image(arguments) => {
            setup::run()?;
            image::run(&arguments)
        }
        Job::Fuzz(arguments) => {
            setup::run()?;
            fuzz::run(&arguments)
        }
        Job::Mutants(arguments) => {
            setup::run()?;
            mutants::run(&arguments)
        }
        Job::Coverage { lines } => {
            setup::run()?;
            coverage::run(lines)
        }
    }
}

fn lint() -> anyhow::Result<()> {
    step("formatting");
    cargo(&["fmt", "--all", "--check"])?;
    step("clippy");
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// The runner's own summary is the last thing that is printed for its tests, but for those that found
/// that they cannot run here, which it takes for passed.
fn test(arguments: &[String]) -> anyhow::Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let skipped = target_directory()?.join("skipped-tests");
    // It is from the last run, if it is there.
    _ = std::fs::remove_file(&skipped);
    let runner = if has_nextest() {
        step("documentation tests");
        cargo(&["test", "--workspace", "--doc"])?;
        step("tests (nextest)");
        &["nextest", "run", "--workspace"][..]
    } else {
        step("tests");
        &["test", "--workspace"]
    };
    let validator = setup::validator(&target_directory()?);
    let previous = previous::binary();
    let mut variables = vec![(SKIPPED_TESTS, skipped.as_path())];
    match &previous {
        Ok(binary) => variables.push(("PREVIOUS_BIN", binary)),
        // A checkout without its history; the test is counted as skipped.
        Err(error) => eprintln!("no earlier binary to upgrade from: {error:#}"),
    }
    variables.extend(validator.iter().map(|program| ("KUBERNETES_VALIDATE", program.as_path())));
    if image::has_docker() {
        match image::run(&image::Arguments { tag: TEST_IMAGE.to_owned(), debug: true }) {
            Ok(()) => variables.push(("NODE_IMAGE", Path::new(TEST_IMAGE))),
            // Engines differ in what they allow; those tests are counted as skipped.
            Err(error) => eprintln!("no image for the tests of containers: {error:#}"),
        }
    }
    cargo_with(&[runner, &arguments[..]].concat(), &variables)?;
    let skipped = std::fs::read_to_string(skipped).unwrap_or_default();
    if !skipped.is_empty() {
        step(&format!("{} tests were skipped here:", skipped.lines().count()));
        eprint!("{skipped}");
    }
    Ok(())
}

/// One search at a time: each uses all cores, and the largest most of the memory.
fn model(arguments: &[String]) -> anyhow::Result<()> {
    step("searching, in release mode; what was found is told for each test");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let test = ["test", "--release", "--package", "quorate-tests", "--test", "model", "--"];
    let all = ["--include-ignored", "--nocapture", "--test-threads", "1"];
    cargo(&[&test[..], &all[..], &arguments].concat())
}

fn has_nextest() -> bool {
    Command::new(cargo_program()).args(["nextest", "--version"]).output().is_ok_and(|done| done.status.success())
}

/// Builds the binary in release mode and says where it is.
fn release_binary() -> anyhow::Result<PathBuf> {
    step("building quorate in release mode; the first time takes some minutes, most of it RocksDB");
    cargo(&["build", "--release", "--package", "quorate"])?;
    Ok(target_directory()?.join("release/quorate"))
}

/// Where cargo puts what it builds.
fn target_directory() -> anyhow::Result<PathBuf> {
    let asked = Command::new(cargo_program())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .context("cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&asked.stdout).context("cargo metadata")?;
    let directory = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
    Ok(directory.into())
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    cargo_with(arguments, &[])
}

/// The same with variables of the environment.
fn cargo_with(arguments: &[&str], variables: &[(&str, &Path)]) -> anyhow::Result<()> {
    let line = format!("cargo {}", arguments.join(" "));
    let mut command = Command::new(cargo_program());
    command.args(arguments).current_dir(workspace()).envs(variables.iter().copied());
    let status = command.status().context("cargo")?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// The cargo that runs this job.
fn cargo_program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// The checkout.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn step(what: &str) {
    eprintln!("==> {what}");
}
