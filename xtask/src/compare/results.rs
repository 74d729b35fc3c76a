//! What was measured, as it is kept: every run, and the median of each figure over the runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Cell, Kind, Scope};
use crate::bench::median;

/// A system under a load, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    accounts: u64,
    /// In thousandths.
    zipf: u64,
    clients: u32,
    kind: Kind,
}

impl Key {
    pub(super) fn new(cell: Cell, kind: Kind) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10,000")]
        let zipf = (cell.zipf.clamp(0.0, 10.0) * 1e3).round() as u64;
        Self { accounts: cell.accounts, zipf, clients: cell.clients, kind }
    }
}

/// The figures of a run by the names that they have in the medians, and where the run has them.
const FIGURES: [(&str, &str); 6] = [
    ("calls_per_second", "/calls_per_second"),
    ("p50_ms", "/latency_ms/p50"),
    ("p99_ms", "/latency_ms/p99"),
    ("server_cpu_us_per_call", "/server_cpu_us_per_call"),
    ("client_cpu_us_per_call", "/client_cpu_us_per_call"),
    ("syncs_per_call", "/syncs_per_call"),
];

/// All systems under all loads.
pub(super) fn cells(runs: &BTreeMap<Key, Vec<Value>>) -> Value {
    runs.iter().map(|(key, runs)| cell(*key, runs)).collect()
}

fn cell(key: Key, runs: &[Value]) -> Value {
    let all = |pointer: &str| runs.iter().filter_map(|run| run.pointer(pointer)?.as_f64()).collect::<Vec<f64>>();
    // What one run did not count has no median.
    let mut figures: BTreeMap<&str, Value> = FIGURES
        .iter()
        .map(|(name, pointer)| (*name, all(pointer)))
        .map(|(name, values)| (name, if values.len() == runs.len() { json!(median_of(values)) } else { Value::Null }))
        .collect();
    let sent_again = runs.iter().filter_map(|run| Some(run["retries"].as_f64()? / run["calls"].as_f64()?.max(1.0)));
    figures.insert("sent_again_per_call", json!(median_of(sent_again.collect())));
    let rates = all("/calls_per_second");
    let errors = runs.iter().flat_map(|run| run["errors"].as_object()).flatten();
    let errors: u64 = errors.filter_map(|(_, count)| count.as_u64()).sum();
    json!({
        "system": key.kind.name(),
        "accounts": key.accounts,
        "zipf": key.zipf as f64 / 1e3,
        "clients": key.clients,
        "median": figures,
        "lowest_calls_per_second": rates.iter().copied().reduce(f64::min),
        "highest_calls_per_second": rates.iter().copied().reduce(f64::max),
        "errors": errors,
        "runs": runs,
    })
}

/// The floors, each the median over the runs.
pub(super) fn floors(runs: &[Value]) -> Value {
    let over_runs = |figure: &dyn Fn(&Value) -> Option<f64>| json!(median_of(runs.iter().filter_map(figure).collect()));
    let at = |pointer: &'static str| over_runs(&|run: &Value| run.pointer(pointer)?.as_f64());
    let of_three = |run: &Value, name: &str| -> Vec<f64> {
        run["sync_of_three"].as_array().into_iter().flatten().filter_map(|one| one[name].as_f64()).collect()
    };
    json!({
        "sync_alone_us": at("/sync_alone/p50_us"),
        "sync_of_three_us": over_runs(&|run| median_of(of_three(run, "p50_us"))),
        "syncs_of_three_per_second": over_runs(&|run| Some(of_three(run, "per_second").iter().sum())),
        "tcp_round_trip_us": at("/tcp_round_trip/p50_us"),
        "runs": runs,
    })
}

/// Without the single runs, as it is kept in the repository.
pub(super) fn summary(results: &Value) -> Value {
    let mut summary = results.clone();
    let without = |figures: &mut Value| figures.as_object_mut().map(|figures| figures.remove("runs"));
    summary["cells"].as_array_mut().into_iter().flatten().for_each(|cell| drop(without(cell)));
    without(&mut summary["floors"]);
    summary
}

/// None of nothing.
fn median_of(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| median(&values))
}

/// What a program prints, if it succeeds and prints anything.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let done = Command::new(program).args(arguments).current_dir(crate::workspace()).output().ok()?;
    let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    (done.status.success() && !text.is_empty()).then_some(text)
}

/// When and where.
pub(super) fn about_machine() -> Value {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kib = file("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let system = file("/etc/os-release");
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'));
    json!({
        "date": says("date", &["-u", "+%F"]),
        "system": system,
        "kernel": says("uname", &["-r"]),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": kib.map(|kib| (kib + (1 << 19)) >> 20),
        "load_average": file("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
    })
}

/// When, where and how.
pub(super) fn about(binary: &Path, is_given: bool, scope: &Scope) -> Value {
    let changed = says("git", &["status", "--porcelain", "--untracked-files=no"]).is_some();
    let commit =
        says("git", &["rev-parse", "--short", "HEAD"]).map(|id| id + if changed { " and changes" } else { "" });
    // Nobody knows what a binary that was given was made from.
    let commit = if is_given { None } else { commit };
    let mut about = about_machine();
    let how = [
        ("quorate", json!(says(&binary.to_string_lossy(), &["--version"]))),
        ("commit", json!(commit)),
        ("runs", json!(scope.runs)),
        ("seconds", json!(scope.seconds)),
        ("reads", json!(scope.reads)),
        ("rate", json!(scope.rate)),
        ("sync_delay_ms", json!(scope.sync_delay)),
    ];
    how.into_iter().for_each(|(name, value)| about[name] = value);
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a median over runs of which one did not count, a figure under another's name, and errors of one run
    /// that are lost.
    #[test]
    fn the_median_is_that_of_each_figure() {
        let run = |rate: f64, p99: f64, syncs: Value, errors: Value| {
            json!({
                "calls_per_second": rate, "calls": 100, "retries": 50, "latency_ms": {"p50": 1.0, "p99": p99},
                "server_cpu_us_per_call": 5.0, "client_cpu_us_per_call": 6.0, "syncs_per_call": syncs, "errors": errors,
            })
        };
        let runs = [
            run(300.0, 7.0, json!(1.0), json!({"timeout": 1})),
            run(100.0, 9.0, Value::Null, json!({})),
            run(200.0, 8.0, json!(1.0), json!({"timeout": 1, "conflicts": 3})),
        ];
        let cell = cell(Key::new(Cell { accounts: 10, zipf: 1.2, clients: 4 }, Kind::Etcd), &runs);
        let median = &cell["median"];
        assert_eq!((&median["calls_per_second"], &median["p99_ms"]), (&json!(200.0), &json!(8.0)));
        assert_eq!((&median["syncs_per_call"], &median["sent_again_per_call"]), (&Value::Null, &json!(0.5)));
        assert_eq!(
            (&cell["lowest_calls_per_second"], &cell["errors"], &cell["zipf"]),
            (&json!(100.0), &json!(5), &json!(1.2))
        );
    }

    /// Catches floors that are averaged over processes where they add up, and the other way round.
    #[test]
    fn three_processes_add_up() {
        let sync = |us: f64, rate: f64| json!({"p50_us": us, "p99_us": 0.0, "per_second": rate});
        let run = json!({
            "sync_alone": sync(10.0, 1.0), "tcp_round_trip": sync(7.0, 1.0),
            "sync_of_three": [sync(30.0, 100.0), sync(40.0, 200.0), sync(90.0, 300.0)],
        });
        let floors = floors(&[run]);
        assert_eq!((&floors["sync_of_three_us"], &floors["syncs_of_three_per_second"]), (&json!(40.0), &json!(600.0)));
        assert_eq!((&floors["sync_alone_us"], &floors["tcp_round_trip_us"]), (&json!(10.0), &json!(7.0)));
    }
}
