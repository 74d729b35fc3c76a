//! `cargo xtask image`: a static binary, and a container image that holds nothing else (`deploy/Dockerfile`).
//!
//! Only the last step of the build differs from `cargo build`: the C library and the C++ library of RocksDB are linked
//! statically. What was compiled before is used as it is, so that the image is made in a minute. glibc has had what
//! it needs to look up names (files and DNS) inside since 2.34, so that this works in an empty container too.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{cargo, step, target_directory, workspace};

/// The most that the image may take (issue: below 40 MB); a release build has half of it to spare.
const BYTES_MAX: u64 = 40_000_000;

/// What is built.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask image
  cargo xtask image --tag registry.example/quorate:0.1.0
  docker-compose -f deploy/compose.yaml up")]
pub(crate) struct Arguments {
    /// The name of the image
    #[arg(long, default_value = "quorate:latest")]
    pub(crate) tag: String,
    /// Without optimisation, for tests: built faster, slower and larger
    #[arg(long)]
    pub(crate) debug: bool,
}

/// Whether there is an engine that builds and runs images.
pub(crate) fn has_docker() -> bool {
    let asked = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    asked.is_ok_and(|done| done.status.success())
}

/// Builds the binary and the image, and tries the image.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if !has_docker() {
        bail!(
            "no Docker Engine answers: install one and start it (`docker version` must name a server), then run this again"
        );
    }
    let directory = target_directory()?.join("image");
    let binary = static_binary(&directory, arguments.debug)?;
    let context = directory.join("context");
    std::fs::create_dir_all(context.join("data")).context("the build context")?;
    let bytes = std::fs::copy(&binary, context.join("quorate")).context("the build context")?;
    step(&format!("docker build: {}", arguments.tag));
    let label = |name: &str, value: &str| [String::from("--build-arg"), format!("{name}={value}")];
    let mut build = Command::new("docker");
    build.args(["build", "--quiet", "--tag", &arguments.tag, "--file"]).arg(workspace().join("deploy/Dockerfile"));
    build.args(label("VERSION", env!("CARGO_PKG_VERSION"))).args(label("REVISION", &revision())).arg(&context);
    let status = build.status().context("docker build")?;
    if !status.success() {
        bail!("`docker build` failed ({status})");
    }
    // A binary that is not static does not start where there is no C library.
    let tried = ["run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", &arguments.tag, "--version"];
    let version = output("docker", &tried).context("the image does not run")?;
    step(&format!("{} is {version}: {:.1} MB, which is its binary", arguments.tag, megabytes(bytes)));
    if bytes > BYTES_MAX && !arguments.debug {
        bail!("the image has {:.1} MB, more than {:.0}", megabytes(bytes), megabytes(BYTES_MAX));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Builds the binary, and puts it aside: where cargo left it, the next build leaves another one.
fn static_binary(directory: &Path, debug: bool) -> anyhow::Result<PathBuf> {
    let libraries = directory.join("libraries");
    std::fs::create_dir_all(&libraries).context("a directory for libraries")?;
    // RocksDB's bindings ask for the C++ library as a shared one. The linker takes what it finds first, and here it
    // finds only the static one.
    let library = libraries.join("libstdc++.a");
    _ = std::fs::remove_file(&library);
    symlink(static_cxx_library()?, &library).context("a link to the C++ library")?;
    step("building quorate, linked statically");
    let search = format!("native={}", libraries.display());
    let profile: &[&str] = if debug { &[] } else { &["--release"] };
    let package = ["rustc", "--package", "quorate", "--bin", "quorate"];
    let linked = ["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-L", &search];
    cargo(&[&package[..], profile, &linked].concat())?;
    let binary = directory.join("quorate");
    let built = target_directory()?.join(if debug { "debug/quorate" } else { "release/quorate" });
    std::fs::copy(&built, &binary).with_context(|| format!("{}", built.display()))?;
    Ok(binary)
}

fn static_cxx_library() -> anyhow::Result<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let path = PathBuf::from(output(&compiler, &["-print-file-name=libstdc++.a"])?);
    if !path.is_absolute() {
        bail!("{compiler} has no libstdc++.a; on Debian and Ubuntu it is in the package libstdc++-dev of g++");
    }
    Ok(path)
}

fn revision() -> String {
    let asked = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(workspace()).output();
    let asked = asked.ok().filter(|done| done.status.success());
    asked.map_or_else(|| "unknown".to_owned(), |done| String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let done = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    if !done.status.success() {
        bail!("`{program} {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
