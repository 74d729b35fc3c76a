//! Tests that cannot run everywhere.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Names a file, into which every test that was skipped writes a line: `cargo xtask test` counts them.
const FILE: &str = "SKIPPED_TESTS";

/// Says that the test at hand does not run here, and what it needs for that.
///
/// # Panics
/// When the file for it cannot be written: then nobody would know.
pub fn skipped(needs: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("skipped: needs {needs}");
    if let Some(path) = std::env::var_os(FILE) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file for what was skipped");
        file.write_all(format!("{test}: needs {}\n", needs.replace('\n', " ")).as_bytes()).expect("it takes a line");
    }
}
