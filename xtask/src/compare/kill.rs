//! How long nobody's call succeeds after the server that leads was killed: `cargo xtask compare --kill`.
//!
//! The clients of the servers that are left tell it; those of the killed one go to another server. ZooKeeper's library waits
//! 300 ms and more before it does, as ZooKeeper's servers close all connections while they elect: what is measured of it is
//! the election and that wait.

use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::systems::{Place, Running};
use super::{Kind, results};
use crate::bench::median;
use crate::cluster::{finished, pause};

/// When the leader is killed, from the beginning of the load: that is steady by then.
const AFTER: Duration = Duration::from_secs(4);
/// What is measured begins before that, and lasts until each of the systems has long had a leader again.
const LOAD: &str = "--accounts 1000 --clients 64 --seed 1 --warmup 1 --seconds 15 --retry";

/// Kills the leader of each system so many times, one system after the other.
pub(super) fn measure(kinds: &[Kind], times: u32, place: &Place<'_>) -> anyhow::Result<Value> {
    let mut kills = Vec::new();
    for kind in kinds.iter().copied().filter(|kind| *kind != Kind::Postgresql) {
        crate::step(&format!("starting {}", kind.name()));
        let mut system = Running::start(kind, place)?;
        system.load(place.loader, &["stock"], &["--accounts", "1000"])?;
        // Not while it is still being compiled.
        let settle = ["--accounts", "1000", "--clients", "64", "--seed", "2", "--warmup", "0", "--seconds", "5"];
        system.load(place.loader, &["load"], &settle)?;
        let mut gaps = Vec::new();
        for time in 1..=times {
            let (gap, errors) = once(&mut system, place)?;
            crate::step(&format!("{}, {time} of {times}: {gap:.0} ms, errors {errors}", kind.name()));
            gaps.push(gap);
        }
        let mut sorted = gaps.clone();
        sorted.sort_by(f64::total_cmp);
        kills.push(json!({
            "system": kind.name(), "about": system.about, "longest_gaps_ms": gaps, "median_ms": median(&sorted),
        }));
    }
    Ok(json!({ "about": results::about_machine(), "kills": kills }))
}

/// The longest time without a success, in milliseconds, and the errors that clients had.
fn once(system: &mut Running<'_>, place: &Place<'_>) -> anyhow::Result<(f64, Value)> {
    let load: Child = system.begin_load(place.loader, &LOAD.split(' ').collect::<Vec<_>>())?;
    pause(AFTER);
    let leader = system.kill_leader()?;
    let result = finished(load)?;
    system.start_again(leader)?;
    let figure = |name: &str| result[name].as_f64().with_context(|| format!("the result of the run names no {name}"));
    // Where it began elsewhere in the run, the one of the kill was no longer.
    let (gap, began, seconds) = (figure("longest_gap_ms")?, figure("longest_gap_after_s")?, figure("seconds")?);
    let name = system.kind.name();
    ensure!(began + gap / 1e3 < seconds, "{name}: nobody succeeded any more before the run was over");
    Ok((gap, result["errors"].clone()))
}

/// What was measured, as a table.
pub(super) fn page(results: &Value) -> String {
    let mut text = "| System | Longest time without a success, ms, each time | Median |\n|---|---|---|\n".to_owned();
    for kill in results["kills"].as_array().into_iter().flatten() {
        let gaps: Vec<String> = kill["longest_gaps_ms"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|gap| format!("{:.0}", gap.as_f64().unwrap_or(f64::NAN)))
            .collect();
        let (about, median) = (kill["about"].as_str().unwrap_or(""), kill["median_ms"].as_f64().unwrap_or(f64::NAN));
        text.push_str(&format!("| {about} | {} | {median:.0} |\n", gaps.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches times that stand beside another system.
    #[test]
    fn each_system_has_a_line() {
        let kill = |about: &str, gaps: [f64; 3]| json!({"about": about, "longest_gaps_ms": gaps, "median_ms": gaps[1]});
        let text = page(&json!({ "kills": [kill("a 1", [1.0, 2.4, 30.0]), kill("b 2", [4.0, 5.0, 6.0])] }));
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines, ["| a 1 | 1, 2, 30 | 2 |", "| b 2 | 4, 5, 6 | 5 |"]);
    }
}
