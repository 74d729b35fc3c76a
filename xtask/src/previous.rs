//! The binary of an earlier commit, for the test that upgrades a running cluster (`tests/tests/processes/upgrade.rs`).

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::{cargo_program, step, target_directory, workspace};

/// Holds the commit, and nothing else.
const COMMIT: &str = "tests/previous-version";

/// Builds it, unless that was done before, and says where it is.
///
/// # Errors
/// Where the commit is not there (as in a shallow clone), or does not build any more.
pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    let commit = std::fs::read_to_string(workspace().join(COMMIT)).context(COMMIT)?;
    let commit = commit.trim();
    ensure!(commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{COMMIT} holds no commit");
    let directory = target_directory()?.join("previous");
    let binary = directory.join(format!("quorate-{commit}"));
    if binary.exists() {
        return Ok(binary);
    }
    step(&format!("building the binary of {}, to upgrade from", &commit[..12]));
    let sources = directory.join("sources");
    // Of another commit, or of a run that was cut short.
    _ = std::fs::remove_dir_all(&sources);
    std::fs::create_dir_all(&sources).context("a directory for the sources")?;
    let archive = directory.join("sources.tar");
    run(Command::new("git").args(["archive", "--output"]).arg(&archive).arg(commit).current_dir(workspace()))?;
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&sources))?;
    // What both need from elsewhere is compiled once. Where cargo leaves the binary, the next build leaves another one.
    let shared = target_directory()?;
    let build = ["build", "--package", "quorate", "--bin", "quorate", "--locked"];
    run(Command::new(cargo_program()).args(build).env("CARGO_TARGET_DIR", &shared).current_dir(&sources))?;
    std::fs::copy(shared.join("debug/quorate"), &binary).context("the binary")?;
    Ok(binary)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{:?}", command.get_program()))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}
