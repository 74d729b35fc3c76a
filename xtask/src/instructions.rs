//! `cargo xtask instructions`: how many instructions of a processor a call takes in each core, counted and not timed, so that
//! a busy machine says the same as an idle one (docs/performance.md, "Instructions").
//!
//! `tests/examples/one_call.rs` plays calls through the cores of three nodes; callgrind counts inside of one function at a
//! time. The counts of a few calls are taken from those of many, so that beginning and end do not count. What was recorded
//! is kept in `tests/examples/instructions.txt`; another compiler gives other counts, so these are compared only where it,
//! the processors that it compiles for and valgrind are the recorded ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;

/// Whether to keep the counts.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask instructions             count, and compare with what is recorded
  cargo xtask instructions --record    keep the counts, with the version of the compiler")]
pub(crate) struct Arguments {
    /// Keep the counts in tests/examples/instructions.txt: in the commit that changes them, which says why
    #[arg(long)]
    record: bool,
}

/// What is counted: a name, and the function as callgrind knows it.
const ROWS: [(&str, &str); 5] = [
    ("gateway", "quorate_http_api::core::Gateway::handle*"),
    ("leader", "quorate_leader::core::Leader::handle*"),
    ("acceptors", "quorate_acceptor::core::Acceptor::handle*"),
    ("learners", "quorate_learner::core::Learner::handle*"),
    ("wire", "one_call::over_the_wire*"),
];
/// Calls of the two runs.
const FEW: u64 = 200;
const MANY: u64 = 1_200;
/// By so much a row may be more or less than recorded, in percent: another order of functions in the binary changes what the
/// compiler puts into one.
const TOLERANCE: u64 = 5;

/// Counts, and compares or keeps them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let compiler = compiler()?;
    let counts = count()?;
    let file = crate::workspace().join("tests/examples/instructions.txt");
    if arguments.record {
        std::fs::write(&file, written(&compiler, &counts)).with_context(|| file.display().to_string())?;
        println!("recorded in {}", file.display());
        return Ok(());
    }
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let (recorded_by, recorded) = read(&text).with_context(|| format!("{} is damaged", file.display()))?;
    println!("instructions for a call in all three nodes, and what was recorded by {recorded_by}:");
    for (name, count) in &counts {
        println!("  {name:<10} {count:>10} {:>10}", recorded.get(name).copied().unwrap_or_default());
    }
    if recorded_by != compiler {
        println!("not judged: this is {compiler}");
        return Ok(());
    }
    let other = differing(&recorded, &counts);
    if !other.is_empty() {
        bail!(
            "a call takes more than {TOLERANCE} % more or fewer instructions than recorded: {}\nWhere that is meant, \
             run `cargo xtask instructions --record` and say why in the commit",
            other.join(", ")
        );
    }
    Ok(())
}

/// Counts where callgrind is there, for every change; elsewhere says that it is not.
pub(crate) fn check() -> anyhow::Result<()> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("instructions are not counted: valgrind is not installed");
        return Ok(());
    }
    run(&Arguments { record: false })
}

fn count() -> anyhow::Result<BTreeMap<String, u64>> {
    crate::step("building calls through all cores in release mode");
    let mut build = Command::new(crate::cargo_program());
    build.args(["build", "--release", "--workspace", "--example", "one_call"]).current_dir(crate::workspace());
    if !build.status().context("cargo build")?.success() {
        bail!("tests/examples/one_call.rs does not build");
    }
    let program = crate::target_directory()?.join("release/examples/one_call");
    crate::step("counting instructions of calls, some seconds for each core");
    let each = |(name, function): (&str, &str)| {
        let (few, many) = (counted(&program, function, FEW)?, counted(&program, function, MANY)?);
        let count = many.saturating_sub(few) / (MANY - FEW);
        if count == 0 {
            bail!("nothing was counted in {function}: callgrind does not know it");
        }
        Ok((name.to_owned(), count))
    };
    ROWS.into_iter().map(each).collect()
}

/// What callgrind counts within one function while so many calls are played.
fn counted(program: &Path, function: &str, calls: u64) -> anyhow::Result<u64> {
    let nowhere = PathBuf::from("/dev/null");
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--toggle-collect={function}")])
        .arg(format!("--callgrind-out-file={}", nowhere.display()))
        .arg(program)
        .arg(calls.to_string())
        .output()
        .context("valgrind is not installed: on Debian, `apt-get install valgrind`")?;
    let said = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        bail!("valgrind failed:\n{said}");
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, count)| count.trim());
    collected.and_then(|count| count.parse().ok()).with_context(|| format!("callgrind said no count:\n{said}"))
}

/// The compiler, for which processors it compiles, and the counter.
fn compiler() -> anyhow::Result<String> {
    let says = |program: &str, argument: &str| -> anyhow::Result<String> {
        let done = Command::new(program).arg(argument).current_dir(crate::workspace()).output();
        let done = done.with_context(|| format!("{program} is not installed"))?;
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let compiler = says("rustc", "-vV")?;
    let line =
        |begins: &str| compiler.lines().find_map(|line| line.strip_prefix(begins)).unwrap_or_default().to_owned();
    Ok(format!("rustc {}, {}, {}", line("rustc "), line("host: "), says("valgrind", "--version")?.trim()))
}

fn written(compiler: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut text = format!("{compiler}\n");
    for (name, count) in counts {
        writeln!(text, "{name} {count}").expect("a text");
    }
    text
}

fn read(text: &str) -> Option<(&str, BTreeMap<String, u64>)> {
    let mut lines = text.lines();
    let compiler = lines.next()?;
    let row = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    Some((compiler, lines.map(row).collect::<Option<_>>()?))
}

/// The rows that are too far from what is recorded, or on one side only.
fn differing(recorded: &BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) -> Vec<String> {
    let names = recorded.keys().chain(counts.keys().filter(|name| !recorded.contains_key(*name)));
    let both = names.map(|name| (name, recorded.get(name).copied(), counts.get(name).copied()));
    let is_far = |(before, now): (u64, u64)| before.abs_diff(now) * 100 > before * TOLERANCE;
    let far = both.filter(|(_, before, now)| before.zip(*now).is_none_or(is_far));
    far.map(|(name, before, now)| format!("{name} {} of {}", now.unwrap_or_default(), before.unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
        rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// Catches a core that became dearer or cheaper unnoticed, and a row that is missing or new.
    #[test]
    fn what_differs_is_told() {
        let recorded = rows(&[("leader", 1_000), ("learners", 2_000)]);
        assert_eq!(differing(&recorded, &rows(&[("leader", 1_050), ("learners", 1_900)])), Vec::<String>::new());
        assert_eq!(differing(&recorded, &rows(&[("leader", 1_051), ("learners", 1_899)])).len(), 2);
        let others = differing(&recorded, &rows(&[("leader", 1_000), ("wire", 5)]));
        assert_eq!(others, ["learners 0 of 2000", "wire 5 of 0"]);
    }

    /// Catches a file that is not read as it was written.
    #[test]
    fn what_is_recorded_is_read() {
        let counts = rows(&[("leader", 1), ("wire", 22)]);
        assert_eq!(read(&written("rustc 1.0", &counts)), Some(("rustc 1.0", counts)));
        assert_eq!(read("rustc 1.0\nleader"), None);
        assert_eq!(read(""), None);
    }
}
