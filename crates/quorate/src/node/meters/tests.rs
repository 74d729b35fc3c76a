//! The table of metrics against everything that names one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The names of metrics in a text, as far as they are written out.
fn named(text: &str) -> BTreeSet<String> {
    let is_of_a_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_of_a_name(letter));
    words.filter(|word| word.starts_with("quorate_") && !word.ends_with('_')).map(str::to_owned).collect()
}

/// The names that the sources count: all that stands in `counter!("…"`, `gauge!("…"` and `histogram!("…"`.
fn counted() -> BTreeSet<String> {
    let mut sources = Vec::new();
    files(&root().join("crates"), &mut sources);
    let mut counted = BTreeSet::new();
    for source in sources.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(source).expect("a source");
        for macro_name in ["counter!(", "gauge!(", "histogram!("] {
            for (at, _) in text.match_indices(macro_name) {
                let arguments = text[at + macro_name.len()..].trim_start();
                if let Some(name) = arguments.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                    counted.insert(name.to_owned());
                }
            }
        }
    }
    counted
}

/// Catches a metric that nobody describes, and a description of one that is gone.
#[test]
fn every_metric_is_described() {
    let described: BTreeSet<String> = METRICS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(described.len(), METRICS.len(), "one is there twice");
    let counted: BTreeSet<String> = counted().into_iter().filter(|name| name.starts_with("quorate_")).collect();
    let difference: Vec<_> = described.symmetric_difference(&counted).collect();
    assert!(difference.is_empty(), "in the table or in the sources only: {difference:?}");
    for (name, kind, help) in METRICS {
        let is_a_total = name.ends_with("_total");
        assert_eq!(is_a_total, matches!(kind, Counter | Counters), "{name}: counters, and only they, are totals");
        let is_a_histogram = *kind == Histogram;
        let has_a_unit = ["_seconds", "_commands", "_records"].iter().any(|unit| name.ends_with(unit));
        assert!(!is_a_histogram || has_a_unit, "{name} has no unit");
        assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
    }
}

/// Catches a metric that operators are not told of, and one of which the page still tells.
#[test]
fn the_page_for_operators_lists_every_metric() {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).expect("a page");
    let listed = named(&page);
    for (name, ..) in METRICS {
        assert!(listed.contains(*name), "docs/operations.md does not list {name}");
    }
    for name in listed {
        let known = METRICS.iter().any(|(metric, ..)| *metric == name);
        assert!(known || is_shown(&name) || is_a_crate(&name), "docs/operations.md lists {name}");
    }
}

/// Whether there are samples of that name.
fn is_shown(name: &str) -> bool {
    METRICS.iter().any(|(metric, kind, _)| {
        let parts: &[&str] = if *kind == Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        parts.iter().any(|part| format!("{metric}{part}") == name)
    })
}

/// Directives of `log.level` name crates.
fn is_a_crate(name: &str) -> bool {
    root().join("crates").join(name.trim_start_matches("quorate_").replace('_', "-")).is_dir()
}

/// Catches a dashboard or an alert that asks for a metric that does not exist: it would show nothing for ever.
#[test]
fn what_is_asked_of_prometheus_exists() {
    let mut asking = Vec::new();
    files(&root().join("deploy/prometheus"), &mut asking);
    files(&root().join("deploy/grafana"), &mut asking);
    let mut asked = 0;
    for file in asking {
        for name in named(&std::fs::read_to_string(&file).expect("a file")) {
            asked += 1;
            assert!(is_shown(&name), "{} asks for {name}", file.display());
        }
    }
    assert!(asked > 40, "only {asked} names were found");
}

/// Catches buckets that do not apply, metrics without their description, and first steps of counters that nobody sees.
#[test]
fn histograms_have_buckets_and_counters_begin_at_zero() {
    let recorder = builder().expect("buckets").build_recorder();
    let text = metrics::with_local_recorder(&recorder, || {
        describe();
        metrics::histogram!("quorate_acceptor_sync_seconds").record(0.003);
        recorder.handle().render()
    });
    assert!(text.contains("# TYPE quorate_acceptor_sync_seconds histogram"), "{text}");
    assert!(text.contains("quorate_acceptor_sync_seconds_bucket{le=\"0.005\"} 1"), "{text}");
    assert!(text.contains("# HELP quorate_acceptor_votes_total Votes cast\n"), "{text}");
    assert!(text.contains("\nquorate_acceptor_votes_total 0\n"), "{text}");
}
