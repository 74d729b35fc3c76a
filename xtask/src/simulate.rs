//! `cargo xtask simulate`: whole clusters of the shipped cores, each from one seed, under faults
//! (docs/testing.md).
//!
//! The simulator is a program of its own, built with optimisations; what it is asked goes to it
//! as it stands, so its `--help` has the whole list.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
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
    let error = Command::new(crate::cargo_program())
        .args(["run", "--release", "--quiet", "--package", "quorate-simulator", "--manifest-path"])
        .arg(crate::workspace().join("Cargo.toml"))
        .arg("--")
        .args(&arguments.arguments)
        .exec();
    Err(error).context("cargo run")
}
