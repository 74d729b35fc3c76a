//! Replays the corpus of the fuzz targets (docs/testing.md), so that what a fuzzer once found stays
//! mended, and the targets keep compiling and mean what they say without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use peak_alloc::PeakAlloc;
use quorate_tests::fuzz::{TARGETS, directory};

/// Counts what is allocated in Rust; not by RocksDB, which only `log_file` reaches.
#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// The most memory that an input may take at once, in bytes: what `cargo xtask fuzz` allows for one allocation.
const MEMORY_MAX: usize = 64 << 20;

/// The most files of the corpus, so that the replay stays short.
const FILES_MAX: usize = 240;
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

/// The most memory that was taken at once by `work`, in bytes.
fn memory_of(work: impl FnOnce()) -> usize {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    work();
    ALLOCATED.peak_usage().saturating_sub(before)
}

/// RELIABILITY 6, rows 9 to 13: catches a panic on, or a wrong reading of, bytes that a fuzzer
/// once made or that stand for a kind of input; and memory beyond all limits for them.
#[test]
fn every_file_of_the_corpus_holds() {
    for (name, body) in TARGETS {
        let files = entries(&directory().join("corpus").join(name));
        assert!(!files.is_empty(), "{name} has no corpus");
        for path in files {
            let bytes = fs::read(&path).expect("a readable file");
            let mut ended = Ok(());
            let memory = memory_of(|| ended = catch_unwind(AssertUnwindSafe(|| body(&bytes))));
            if let Err(panic) = ended {
                eprintln!("the target {name} does not hold for {}", path.display());
                resume_unwind(panic);
            }
            assert!(memory <= MEMORY_MAX, "the target {name} takes {memory} bytes for {}", path.display());
        }
    }
}

/// Catches memory that is not counted.
#[test]
fn memory_is_counted() {
    const BYTES: usize = 1 << 22;
    assert!(memory_of(|| drop(std::hint::black_box(vec![1_u8; BYTES]))) >= BYTES);
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
