//! Tests that cannot run everywhere.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Names a file, into which every test that was skipped writes a line: `cargo xtask test` counts them.
const FILE: &str = "SKIPPED_TESTS";

/// Names modules of tests, such as `power,space`, that have to run: where what they need is missing they fail.
const MUST_RUN: &str = "TESTS_MUST_RUN";

/// Says that the test at hand does not run here, and what it needs for that.
///
/// # Panics
/// When the test must run here (`TESTS_MUST_RUN`), or when the file for it cannot be written: then nobody would know.
pub fn skipped(needs: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let must_run = std::env::var(MUST_RUN).unwrap_or_default();
    assert!(!names(&must_run, &test), "{test} must run here ({MUST_RUN}={must_run}), and needs {needs}");
    eprintln!("skipped: needs {needs}");
    if let Some(path) = std::env::var_os(FILE) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file for what was skipped");
        file.write_all(format!("{test}: needs {}\n", needs.replace('\n', " ")).as_bytes()).expect("it takes a line");
    }
}

/// Whether one of `modules`, divided by commas, is that of `test`.
fn names(modules: &str, test: &str) -> bool {
    let module = test.split("::").next().unwrap_or(test);
    modules.split(',').any(|name| name == module)
}

#[cfg(test)]
mod tests {
    use super::names;

    /// Would let a job that says which tests must run go by without them.
    #[test]
    fn a_module_that_must_run_is_known_by_its_name() {
        for (modules, test, is) in [
            ("power,space", "power::a_cut", true),
            ("power,space", "space::full::of_one", true),
            ("power,space", "syncs::one", false),
            ("power", "powers::one", false),
            ("", "power::a_cut", false),
        ] {
            assert_eq!(names(modules, test), is, "{modules:?} {test}");
        }
    }
}
