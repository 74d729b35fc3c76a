//! `cargo xtask mutants`: small changes of the cores, one at a time, and which of them no test notices
//! (docs/testing.md, "Mutation survivors").
//!
//! `cargo mutants` does it, on a copy of the sources; what is mutated and tested is in
//! `.cargo/mutants.toml`. A mutant takes some seconds, all of them an hour or more.

use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

/// What is mutated.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask mutants                                      all cores, the majority sets and the membership
  cargo xtask mutants -- --list                            what would be mutated
  cargo xtask mutants -- --package quorate-acceptor        one core
  cargo xtask mutants -- --re leading.rs                   one file
  cargo xtask mutants -- --re 'Rounds::is_behind'          one function
  cargo xtask mutants -- --sharding round-robin --shard 0/2
                                                           half of them
  cargo xtask mutants -- --help                            all arguments

Those that no test noticed are listed at the end, and in mutants.out/missed.txt.")]
pub(crate) struct Arguments {
    /// For `cargo mutants`, such as --package quorate-acceptor
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs `cargo mutants`. What it builds has a directory of its own, so that RocksDB is compiled once and
/// not for every run.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let version = Command::new(crate::cargo_program()).args(["mutants", "--version"]).output();
    if !version.is_ok_and(|done| done.status.success()) {
        bail!("cargo-mutants is not installed: `cargo install cargo-mutants --locked`, then run this again");
    }
    let status = Command::new(crate::cargo_program())
        .args(["mutants", "--workspace"])
        .args(&arguments.arguments)
        .env("CARGO_TARGET_DIR", crate::target_directory()?.join("mutants"))
        .current_dir(crate::workspace())
        .status()
        .context("cargo mutants")?;
    if !status.success() {
        bail!("`cargo mutants` found mutants that no test noticed, or failed ({status})");
    }
    Ok(())
}
