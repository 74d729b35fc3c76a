//! `cargo xtask coverage`: which lines of the cores and of the stores on RocksDB their own tests run (docs/testing.md,
//! "Coverage").
//!
//! The compiler counts (`-C instrument-coverage`), in the crates of the workspace only: cargo calls this
//! program in the place of `rustc` for those, so that what they depend on is not built again. LLVM's tools
//! read the counts. Tests are left out: files of their own, and what follows `#[cfg(test)] mod tests {`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};

/// What is measured, and the least that is enough of its lines, in percent.
const MEASURED: [(&str, &str); 7] = [
    ("acceptor", "crates/acceptor/src/core/"),
    ("leader", "crates/leader/src/core/"),
    ("learner", "crates/learner/src/core/"),
    ("failure detector", "crates/failure-detector/src/core/"),
    ("gateway", "crates/http-api/src/core/"),
    ("majority sets", "crates/protocol/src/majority.rs"),
    ("stores on RocksDB", "crates/storage/src/rocksdb"),
];
const LEAST_PERCENT: usize = 90;
/// The packages and their tests: of cores those beside the code, of stores also those in `crates/storage/tests`.
const SUITES: [&[&str]; 2] = [
    &[
        "--lib",
        "--package=quorate-acceptor",
        "--package=quorate-leader",
        "--package=quorate-learner",
        "--package=quorate-failure-detector",
        "--package=quorate-http-api",
        "--package=quorate-protocol",
    ],
    &["--lib", "--tests", "--package=quorate-storage"],
];
/// Set where this program stands in for the compiler.
const COMPILES: &str = "QUORATE_COVERAGE";

/// The compiler, with counters, where cargo called this program for one: `PROGRAM RUSTC ARGUMENTS...`.
pub(crate) fn compiler() -> Option<ExitCode> {
    std::env::var_os(COMPILES)?;
    let mut arguments = std::env::args_os().skip(1);
    let status = Command::new(arguments.next()?).args(arguments).args(["-C", "instrument-coverage"]).status();
    Some(if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lines that can run, by file and number: how often they did.
type Counts = BTreeMap<PathBuf, BTreeMap<usize, u64>>;

/// Runs the tests, and prints and judges what they covered.
pub(crate) fn run(lines: bool) -> anyhow::Result<()> {
    let tools = tools()?;
    let directory = crate::target_directory()?.join("coverage");
    // It is from the last run, if it is there.
    _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
    let mut binaries = Vec::new();
    for suite in SUITES {
        crate::step(&format!("cargo test {}, with counters", suite.join(" ")));
        binaries.extend(test_binaries(suite, &directory)?);
    }
    let all = directory.join("all.profdata");
    let mut merge = Command::new(tools.join("llvm-profdata"));
    merge.args(["merge", "--sparse", "-o"]).arg(&all);
    for entry in std::fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "profraw") {
            merge.arg(path);
        }
    }
    ensure!(merge.status().context("llvm-profdata")?.success(), "llvm-profdata failed");
    let mut export = Command::new(tools.join("llvm-cov"));
    export.args(["export", "--format=lcov"]).arg(format!("--instr-profile={}", all.display()));
    for (index, binary) in binaries.iter().enumerate() {
        if index > 0 {
            export.arg("--object");
        }
        export.arg(binary);
    }
    let exported = export.stderr(Stdio::inherit()).output().context("llvm-cov")?;
    ensure!(exported.status.success(), "llvm-cov failed");
    judge(&counts(&String::from_utf8_lossy(&exported.stdout))?, lines)
}

/// Where rustup puts LLVM's tools.
fn tools() -> anyhow::Result<PathBuf> {
    let asked = Command::new("rustc").args(["--print", "target-libdir"]).output().context("rustc")?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    let tools = libraries.with_file_name("bin");
    if !tools.join("llvm-cov").exists() {
        bail!("LLVM's tools are not installed: `rustup component add llvm-tools`, then run this again");
    }
    Ok(tools)
}

/// Builds and runs the tests, which leave their counts in the directory; the programs that they are.
fn test_binaries(suite: &[&str], directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let test = |more: &[&str]| -> anyhow::Result<Command> {
        let mut command = Command::new(crate::cargo_program());
        command
            .arg("test")
            .args(suite)
            .args(more)
            .current_dir(crate::workspace())
            .env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe()?)
            .env(COMPILES, "1")
            .env("LLVM_PROFILE_FILE", directory.join("%p-%m.profraw"));
        Ok(command)
    };
    let built = test(&["--no-run", "--message-format=json"])?.stderr(Stdio::inherit()).output().context("cargo")?;
    ensure!(built.status.success(), "the tests cannot be built");
    ensure!(test(&["--quiet"])?.status().context("cargo")?.success(), "a test failed");
    let messages = String::from_utf8_lossy(&built.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect())
}

/// Reads LCOV: `SF:file`, then `DA:line,count`, without the lines of tests.
fn counts(text: &str) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let mut file: Option<(PathBuf, usize)> = None;
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            let path = Path::new(path);
            let inside = path.strip_prefix(crate::workspace()).ok().filter(|path| !is_test(path));
            file = match inside {
                Some(inside) => Some((inside.to_owned(), first_line_of_tests(path)?)),
                None => None,
            };
        } else if let (Some(numbers), Some((path, tests))) = (line.strip_prefix("DA:"), &file) {
            let mut numbers = numbers.split(',').map(str::parse::<u64>);
            let (Some(Ok(number)), Some(Ok(count))) = (numbers.next(), numbers.next()) else {
                bail!("llvm-cov says {line:?}");
            };
            let number = usize::try_from(number)?;
            if number < *tests {
                *counts.entry(path.clone()).or_default().entry(number).or_default() += count;
            }
        }
    }
    Ok(counts)
}

/// Whether a file holds nothing but tests.
fn is_test(path: &Path) -> bool {
    let names =
        ["tests", "tests.rs", "properties.rs", "scenarios.rs", "testing.rs", "model.rs", "golden.rs", "fuzz.rs"];
    path.iter().any(|part| names.iter().any(|name| part == OsString::from(name).as_os_str()))
}

fn first_line_of_tests(path: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let lines: Vec<&str> = text.lines().collect();
    let begins = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    Ok(lines.windows(2).position(begins).map_or(usize::MAX, |before| before + 1))
}

/// Prints the table, and the lines that never ran where they are asked for.
fn judge(counts: &Counts, lines: bool) -> anyhow::Result<()> {
    let mut below = Vec::new();
    println!("| What | Lines | Run by its tests | |\n|---|---|---|---|");
    for (name, path) in MEASURED {
        let is_in = |file: &Path| file.to_str().is_some_and(|file| file.starts_with(path));
        let files: Vec<_> = counts.iter().filter(|(file, _)| is_in(file)).collect();
        let all: usize = files.iter().map(|(_, lines)| lines.len()).sum();
        let run: usize = files.iter().map(|(_, lines)| lines.values().filter(|count| **count > 0).count()).sum();
        ensure!(all > 0, "nothing was counted in {path}");
        println!("| {name} | {all} | {run} | {:.1} % |", percent(run, all));
        if run * 100 < all * LEAST_PERCENT {
            below.push(name);
        }
        for (file, counted) in files.into_iter().filter(|_| lines) {
            let never: Vec<String> =
                counted.iter().filter(|(_, count)| **count == 0).map(|(line, _)| line.to_string()).collect();
            if !never.is_empty() {
                eprintln!("{}: {}", file.display(), never.join(" "));
            }
        }
    }
    ensure!(below.is_empty(), "below {LEAST_PERCENT} % of lines: {}; --lines names them", below.join(", "));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "some thousand lines")]
fn percent(part: usize, all: usize) -> f64 {
    part as f64 * 100.0 / all as f64
}
