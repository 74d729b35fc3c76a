//! `cargo xtask fuzz`: bytes from a fuzzer in place of what comes from outside (docs/testing.md).
//!
//! What must hold is in `quorate_tests::fuzz`. cargo-fuzz builds the targets with a sanitizer, and
//! stops at the first input for which one does not hold, or that makes it allocate too much.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

/// The most bytes that one allocation may take. The largest frame has 16 MiB, and a buffer that
/// grows may take twice what it holds.
const ALLOCATION_MIB: u32 = 64;
/// The most memory of the whole process.
const MEMORY_MIB: u32 = 2_048;
/// The longest that one input may take, in seconds: thousands of times what it should.
const INPUT_SECONDS: u32 = 10;
/// The longest input, in bytes: several blocks of the log, several pieces of a frame.
const INPUT_BYTES: u32 = 64 << 10;

/// What to fuzz, and for how long.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask fuzz                       every target, a minute each
  cargo xtask fuzz --seconds 3600 message

Needs cargo-fuzz: cargo install cargo-fuzz --locked")]
pub(crate) struct Arguments {
    /// Seconds of each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// One of fuzz/fuzz_targets; all of them by default
    target: Option<String>,
}

/// Builds the targets and runs them one after the other. What is new goes into a corpus under
/// target/; the committed one is only read.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !Command::new(crate::cargo_program())
        .args(["fuzz", "--version"])
        .output()
        .is_ok_and(|done| done.status.success())
    {
        bail!("cargo-fuzz is not here; install it, then run this again:\n  cargo install cargo-fuzz --locked");
    }
    let all = targets()?;
    let chosen = match &arguments.target {
        None => all,
        Some(target) if all.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no target {target}; there are {}", all.join(", ")),
    };
    let found = crate::target_directory()?.join("fuzz-corpus");
    for target in chosen {
        crate::step(&format!("{target}, {} s; the first time it is built for some minutes", arguments.seconds));
        let found = found.join(&target);
        std::fs::create_dir_all(&found).with_context(|| format!("{}", found.display()))?;
        let status = Command::new(crate::cargo_program())
            .current_dir(crate::workspace())
            // Sanitizers are options of the nightly compiler; the stable one has them too.
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", "run", "--fuzz-dir", "fuzz", &target])
            .arg(&found)
            .arg(crate::workspace().join("fuzz/corpus").join(&target))
            .arg("--")
            .args([
                format!("-max_total_time={}", arguments.seconds),
                format!("-max_len={INPUT_BYTES}"),
                format!("-malloc_limit_mb={ALLOCATION_MIB}"),
                format!("-rss_limit_mb={MEMORY_MIB}"),
                format!("-timeout={INPUT_SECONDS}"),
                "-print_final_stats=1".to_owned(),
            ])
            .status()
            .context("cargo fuzz")?;
        if !status.success() {
            bail!(
                "{target} does not hold ({status}). Once it is mended, put the input that is named above into \
                 fuzz/corpus/{target}/regression-NAME"
            );
        }
    }
    Ok(())
}

/// The names of all targets, in order.
fn targets() -> anyhow::Result<Vec<String>> {
    let directory = crate::workspace().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))? {
        let path: PathBuf = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
