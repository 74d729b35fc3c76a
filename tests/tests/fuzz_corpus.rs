//! Replays the corpus of the fuzz targets (docs/testing.md), so that what a fuzzer once found stays
//! mended, and the targets keep compiling and mean what they say without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use quorate_tests::fuzz::{TARGETS, directory};

/// The most files of the corpus, so that the replay stays short.
const FILES_MAX: usize = 200;
/// The most bytes of the corpus, so that the checkout stays small.
const BYTES_MAX: u64 = 1 << 20;

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.sort();
    paths
}

/// The names of the entries of a directory, without their endings.
fn names(directory: &Path) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().and_then(|stem| stem.to_str()).expect("an ASCII name").to_owned();
    entries(directory).into_iter().map(stem).collect()
}

/// RELIABILITY 6, rows 9 to 13: catches a panic on, or a wrong reading of, bytes that a fuzzer
/// once made or that stand for a kind of input.
#[test]
fn every_file_of_the_corpus_holds() {
    for (name, body) in TARGETS {
        let files = entries(&directory().join("corpus").join(name));
        assert!(!files.is_empty(), "{name} has no corpus");
        for path in files {
            let bytes = fs::read(&path).expect("a readable file");
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&bytes))) {
                eprintln!("the target {name} does not hold for {}", path.display());
                resume_unwind(panic);
            }
        }
    }
}

/// Catches a target that no fuzzer feeds, a fuzzer or corpus without a target, and a corpus that
/// has outgrown the checkout.
#[test]
fn targets_fuzzers_and_corpus_belong_together() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&directory().join("fuzz_targets")), targets);
    assert_eq!(names(&directory().join("corpus")), targets);
    let manifest = fs::read_to_string(directory().join("Cargo.toml")).expect("the manifest of the fuzz crate");
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is no binary of the fuzz crate");
    }
    let files: Vec<_> = TARGETS.iter().flat_map(|(name, _)| entries(&directory().join("corpus").join(name))).collect();
    let bytes: u64 = files.iter().map(|path| fs::metadata(path).expect("a readable file").len()).sum();
    assert!(files.len() <= FILES_MAX && bytes <= BYTES_MAX, "{} files, {bytes} bytes", files.len());
}
