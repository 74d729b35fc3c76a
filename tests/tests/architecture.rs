//! The shape of the workspace (DESIGN 3 and 4), so that it does not drift: which crate may use
//! which, pure cores, shared lints, files that a reader can take in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Which crate of ours may depend on which; tests of a crate count too. Roles never depend on
/// roles, nothing depends on the binary, the gateway knows nothing but the vocabulary.
const ALLOWED: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("storage", &["protocol"]),
    ("functions", &["protocol"]),
    ("failure-detector", &["protocol"]),
    ("transport", &["protocol"]),
    ("http-api", &["protocol"]),
    ("load", &[]),
    ("acceptor", &["protocol", "storage"]),
    ("learner", &["protocol", "storage"]),
    ("leader", &["protocol", "functions", "storage"]),
    (
        "quorate",
        &[
            "protocol",
            "storage",
            "functions",
            "failure-detector",
            "transport",
            "http-api",
            "load",
            "acceptor",
            "learner",
            "leader",
        ],
    ),
    (
        "simulator",
        &["protocol", "storage", "functions", "failure-detector", "http-api", "acceptor", "learner", "leader"],
    ),
    (
        "tests",
        &["protocol", "storage", "functions", "transport", "http-api", "acceptor", "learner", "leader", "simulator"],
    ),
    ("xtask", &[]),
];

/// What no core mentions: the world reaches it as inputs, and its order is the same in every run.
const BANNED_IN_CORES: &[&str] = &[
    "HashMap",
    "HashSet",
    "Instant::now",
    "SystemTime",
    "thread_rng",
    "rand::",
    "tokio",
    "actix",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
];

/// The most lines of a file, its tests included.
const LINES_MAX: usize = 800;
/// The most lines of a file before its tests, or of one whose tests lie apart.
const CODE_LINES_MAX: usize = 500;
/// Files with more code than that, still to be split. The list only shrinks.
const LONGER: &[&str] = &["crates/simulator/src/chart/layout.rs"];

fn workspace() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo describes its own workspace")
}

/// `quorate-leader` is known as `leader`.
fn short(package: &str) -> &str {
    package.strip_prefix("quorate-").unwrap_or(package)
}

fn own_dependencies(package: &Package) -> BTreeSet<&str> {
    let own = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    own.map(|dependency| short(&dependency.name)).collect()
}

/// All Rust files below a directory, build output aside.
fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources(workspace: &Metadata) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for package in workspace.workspace_packages() {
        let manifest = package.manifest_path.as_std_path();
        rust_files(manifest.parent().expect("a manifest lies in a directory"), &mut found);
    }
    found.sort();
    found
}

/// DESIGN 3. Catches a role that uses another role, anything that uses the binary, a gateway
/// that reaches past the vocabulary, and a crate that nobody has thought about here.
#[test]
fn dependencies_point_one_way() {
    let workspace = workspace();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in workspace.workspace_packages() {
        let name = short(&package.name);
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} is new: say in ALLOWED what it may use"));
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let used = own_dependencies(package);
        let wrong: Vec<_> = used.difference(&allowed).collect();
        assert!(wrong.is_empty(), "{name} may not depend on {wrong:?} (DESIGN 3)");
        seen.insert(name);
    }
    let gone: Vec<_> = allowed.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(gone.is_empty(), "{gone:?} are no crates any more: take them out of ALLOWED");
}

/// Catches a crate that does not inherit the workspace's lints, or unsafe code let in for all.
#[test]
fn every_crate_inherits_the_lints() {
    let workspace = workspace();
    for package in workspace.workspace_packages() {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest");
        let lints = manifest.split_once("[lints]").map(|(_, rest)| rest.trim_start());
        assert!(
            lints.is_some_and(|lints| lints.starts_with("workspace = true")),
            "{}: `[lints] workspace = true` is missing",
            package.manifest_path
        );
    }
    let root = fs::read_to_string(workspace.workspace_root.join("Cargo.toml")).expect("the root manifest");
    assert!(root.contains("unsafe_code = \"forbid\""), "unsafe code is forbidden in the whole workspace");
}

/// DESIGN 4. Catches a core that reads a clock, a disk or a socket, or whose order differs from
/// run to run. Clippy checks most of it by type; this also finds what only a feature compiles.
#[test]
fn cores_are_pure() {
    let mut cores = 0;
    for path in sources(&workspace()) {
        if !path.components().any(|part| part.as_os_str() == "core") {
            continue;
        }
        cores += 1;
        let text = fs::read_to_string(&path).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for banned in BANNED_IN_CORES {
                assert!(!code.contains(banned), "{}:{}: {banned} in a core", path.display(), number + 1);
            }
        }
    }
    assert!(cores > 20, "only {cores} files of cores: the search is broken");
}

/// The lines before the tests of a file.
fn code_lines(text: &str) -> usize {
    let is_test =
        |(line, next): (&str, &str)| line == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{');
    let lines: Vec<&str> = text.lines().collect();
    lines.windows(2).position(|pair| is_test((pair[0], pair[1]))).unwrap_or(lines.len())
}

/// The modules that a file declares for tests only, as the paths of their files without `.rs`.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = ["mod", "lib", "main"].iter().any(|stem| path.file_stem().is_some_and(|own| own == *stem));
    let directory = if is_root { path.with_file_name("") } else { path.with_extension("") };
    let lines: Vec<&str> = text.lines().collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let names = declared.filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'));
    names.map(|name| directory.join(name)).collect()
}

/// Catches files that have outgrown a reader, and a way around the bound on code: tests moved
/// out of a file whose code then grows to what both were allowed.
#[test]
fn files_stay_small() {
    let workspace = workspace();
    let root = workspace.workspace_root.as_std_path();
    let files = sources(&workspace).into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("a source file");
        (path.strip_prefix(root).expect("a file of the workspace").to_owned(), text)
    });
    let files: Vec<(PathBuf, String)> = files.collect();
    let of_tests: Vec<PathBuf> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_of_tests = |path: &Path| {
        let in_module = |module: &PathBuf| path.with_extension("") == *module || path.starts_with(module);
        path.components().any(|part| part.as_os_str() == "tests") || of_tests.iter().any(in_module)
    };
    let (mut checked, mut too_long) = (0, Vec::new());
    for (path, text) in &files {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines; split it, at most {LINES_MAX}", path.display());
        if is_of_tests(path) {
            continue;
        }
        checked += 1;
        if code_lines(text) > CODE_LINES_MAX {
            too_long.push(path.to_str().expect("a path in ASCII"));
        }
    }
    assert!(checked > 100 && of_tests.len() > 10, "only {checked} files of code: the search is broken");
    assert_eq!(too_long, LONGER, "split what is new, at most {CODE_LINES_MAX} lines; take out what is split");
}

/// Programs beside the workspace that use crates of it, with lock files of their own: they are built with `--locked`.
const BESIDE: [&str; 2] = ["compare/Cargo.lock", "fuzz/Cargo.lock"];

/// What a lock file says that a package of it depends on, without versions; `None`: it is not there.
fn locked<'a>(lock: &'a str, package: &str) -> Option<BTreeSet<&'a str>> {
    let name = format!("\nname = \"{package}\"\n");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&name))?;
    let listed =
        entry.split_once("dependencies = [").map_or("", |(_, rest)| rest.split(']').next().unwrap_or_default());
    let names = listed.lines().map(|line| line.trim().trim_matches([',', '"'])).filter(|line| !line.is_empty());
    Some(names.map(|line| line.split(' ').next().unwrap_or(line)).collect())
}

/// Catches a dependency that one of our crates gets and the lock file of a program beside the workspace has not: `cargo xtask
/// compare` and `fuzz` would not build, and nobody sees it before.
#[test]
fn lock_files_beside_the_workspace_know_our_crates() {
    let workspace = workspace();
    let mut known = 0;
    for file in BESIDE {
        let path = workspace.workspace_root.join(file);
        let lock = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        for package in workspace.workspace_packages() {
            let Some(listed) = locked(&lock, &package.name) else { continue };
            let wanted =
                package.dependencies.iter().filter(|needed| needed.kind == DependencyKind::Normal && !needed.optional);
            for needed in wanted {
                let name = needed.name.as_str();
                assert!(
                    listed.contains(name),
                    "{file} lacks {name} of {}: `cargo metadata` there adds it",
                    package.name
                );
            }
            known += 1;
        }
    }
    assert!(known > 3, "{known} of our crates are in those files");
}
