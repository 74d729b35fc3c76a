//! What the machine needs beyond Rust.
//!
//! RocksDB is compiled from source by a C++ compiler, and its Rust bindings are made by bindgen,
//! which loads libclang. jemalloc is built by `make`. Everything else is Rust.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// One thing that is needed.
struct Need {
    what: &'static str,
    /// The Debian package that has it.
    package: &'static str,
    is_there: fn() -> bool,
}

const NEEDS: [Need; 3] = [
    Need { what: "a C++ compiler", package: "g++", is_there: has_cxx },
    Need { what: "libclang", package: "libclang-dev", is_there: has_libclang },
    Need { what: "make", package: "make", is_there: || succeeds("make", &["--version"]) },
];

/// What some tests need, which are skipped without: the program by which it is known, and the Debian package.
const WANTED: [(&str, &str); 4] =
    [("strace", "strace"), ("eatmydata", "eatmydata"), ("promtool", "prometheus"), ("valgrind", "valgrind")];

/// A tool of PyPI that some tests need.
const VALIDATOR: &str = "kubernetes-validate";

/// Installs what tests would like to have, where that is possible without asking. Nothing depends on it.
pub(crate) fn wanted() {
    let missing = WANTED.iter().filter(|(program, _)| !succeeds("which", &[program]));
    let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if missing.is_empty() || !is_root() || !succeeds("apt-get", &["--version"]) {
        return;
    }
    crate::step(&format!("some tests need {}: apt-get install", missing.join(" and ")));
    if let Err(error) = install(&missing) {
        eprintln!("xtask: {error:#}; those tests will be skipped");
    }
}

/// Installs the tool that checks Kubernetes manifests below `directory`, and says where it is. Nothing depends on it.
pub(crate) fn validator(directory: &Path) -> Option<PathBuf> {
    let tools = directory.join("tools");
    let program = tools.join("bin").join(VALIDATOR);
    let is_there = || succeeds(&program.to_string_lossy(), &["--version"]);
    if !is_there() {
        crate::step(&format!("some tests need {VALIDATOR}: pip install"));
        let pip = tools.join("bin/pip");
        _ = succeeds("python3", &["-m", "venv", &tools.to_string_lossy()])
            && succeeds(&pip.to_string_lossy(), &["install", "--quiet", VALIDATOR]);
    }
    if is_there() {
        return Some(program);
    }
    eprintln!("xtask: {VALIDATOR} cannot be installed; those tests will be skipped");
    None
}

/// Checks, and installs when that is possible without asking.
pub(crate) fn run() -> anyhow::Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let things: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    crate::step(&format!("the build needs {}, not found here", things.join(" and ")));
    let (apt, root) = (succeeds("apt-get", &["--version"]), is_root());
    if !(apt && root) {
        let (sudo, packages) = (if root { "" } else { "sudo " }, packages.join(" "));
        bail!(
            "install it, then run this again; on Debian and Ubuntu:\n  \
             {sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {packages}"
        );
    }
    crate::step(&format!("apt-get install {}", packages.join(" ")));
    install(&packages)?;
    match missing.iter().find(|need| !(need.is_there)()) {
        Some(need) => bail!("{} is installed, and yet {} is not found", need.package, need.what),
        None => Ok(()),
    }
}

/// Installs Debian packages; none of their services is started.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    // Maintainer scripts ask this program whether a service may be started; 101 is "no".
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let is_ours = !policy.exists() && std::fs::write(policy, "#!/bin/sh\nexit 101\n").is_ok();
    if is_ours {
        _ = std::fs::set_permissions(policy, PermissionsExt::from_mode(0o755));
    }
    let installed = apt_get(&["update"])
        .and_then(|()| apt_get(&[&["install", "-y", "--no-install-recommends"], packages].concat()));
    if is_ours {
        _ = std::fs::remove_file(policy);
    }
    installed
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    if !status.context("apt-get")?.success() {
        bail!("apt-get {} failed", arguments.join(" "));
    }
    Ok(())
}

fn has_cxx() -> bool {
    let named = std::env::var("CXX").ok();
    named.iter().map(String::as_str).chain(["c++", "g++", "clang++"]).any(|program| succeeds(program, &["--version"]))
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|done| done.stdout.trim_ascii() == b"0")
}

pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success())
}

/// Looks where bindgen looks.
fn has_libclang() -> bool {
    let mut directories: Vec<PathBuf> = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from).into_iter().collect();
    for directory in ["/usr/lib", "/usr/lib64", "/usr/local/lib"] {
        directories.push(directory.into());
    }
    // /usr/lib/x86_64-linux-gnu, /usr/lib/llvm-14/lib
    for entry in std::fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with("-linux-gnu") {
            directories.push(entry.path());
        } else if name.starts_with("llvm") {
            directories.push(entry.path().join("lib"));
        }
    }
    directories.iter().any(|directory| holds_libclang(directory))
}

fn holds_libclang(directory: &Path) -> bool {
    std::fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Not libclang-cpp.so, which is another library.
        name.starts_with("libclang.so")
            || (name.starts_with("libclang-") && name.contains(".so") && !name.contains("cpp"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a search that takes libclang-cpp or headers for the library, and then lets the
    /// build fail after minutes.
    #[test]
    fn only_the_library_itself_counts() {
        let directory = std::env::temp_dir().join(format!("quorate-xtask-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("made");
        std::fs::write(directory.join("libclang-cpp.so.14"), "").expect("written");
        std::fs::write(directory.join("libclang.a"), "").expect("written");
        let before = holds_libclang(&directory);
        std::fs::write(directory.join("libclang-14.so.1"), "").expect("written");
        let after = holds_libclang(&directory);
        std::fs::remove_dir_all(&directory).expect("removed");
        assert_eq!((before, after), (false, true));
    }
}
