//! What is in `deploy/`, as users take it: containers by compose, real Prometheus, Kubernetes manifests.
//!
//! Each needs a program that is not everywhere, and says `skipped: needs …` where it is missing; `cargo xtask test`
//! installs what it can, and makes the image.

#![expect(clippy::disallowed_methods, reason = "these tests run in real time")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quorate_tests::skip::skipped;

mod containers;
mod kubernetes;
mod project;
mod prometheus;
mod scaling;
mod systemd;
mod watching;

/// A file of `deploy/`.
fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// Whether a program is there; says so when it is not.
fn has(program: &str, arguments: &[&str]) -> bool {
    let there = Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success());
    if !there {
        skipped(program);
    }
    there
}

/// Runs a command that must succeed.
fn done(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.trim().to_owned()
}
