//! What a cluster does with more calls than it can execute: how many it still acknowledges, how soon it refuses the
//! others, and whether it keeps its leader and its memory.
//!
//! Capacity is that of a closed loop right before and after, since the machine may be shared. The load of an open loop is
//! made on the same processors, which are what bounds the cluster: more than some twice what it can execute cannot be sent
//! there. So there is another way: disks that take long, and a narrow window (`--sync-delay 50 --set protocol.window=32`), of which
//! the processors notice little. A narrow window alone is no substitute: what it lets through depends on the time of a round,
//! and so on whatever else the processors do.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Arguments;
use super::durability::{resident, round};
use crate::cluster::{Cluster, finished, pause};

/// Calls that are due, by what the cluster can execute.
const FACTORS: [f64; 3] = [1.0, 2.0, 5.0];
/// More than can be under way, so that some are free when a call is due; no more than files may be open.
const CLIENTS: &str = "12000";
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(250);
/// As seen by each node.
const LEADER_CHANGES: &str = "quorate_detector_leader_changes_total";
const SETUP: [&str; 6] = ["--setup", "inventory:1000", "--seconds", "3", "--clients", "64"];

/// More and more calls in an open loop.
pub(super) fn overload(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    let cluster = &arguments.cluster(binary)?;
    finished(cluster.bench(&cluster.all(), &SETUP)?)?;
    let mut runs = Vec::new();
    let mut before = capacity(cluster, arguments)?;
    for factor in FACTORS {
        let rate = calls_a_second(&before)? * factor;
        crate::step(&format!("open loop, {factor} times the capacity: {rate:.0} calls/s"));
        let (rate, seconds) = (format!("{rate:.0}"), arguments.seconds.to_string());
        let (changes, resting) = (leader_changes(cluster), residents(cluster)?);
        let flags = ["--rate", &rate, "--clients", CLIENTS, "--seconds", &seconds];
        let mut load = cluster.bench(&cluster.all(), &flags)?;
        let peak = peak(cluster, &mut load)?;
        let run = finished(load)?;
        let changed = leader_changes(cluster) - changes;
        let after = capacity(cluster, arguments)?;
        let could = f64::midpoint(calls_a_second(&before)?, calls_a_second(&after)?);
        runs.push(json!({
            "times_capacity": factor,
            "due_s": run["rate"],
            "sent_s": round(number(&run, "sent")? / number(&run, "seconds")?),
            "goodput_to_capacity": round(calls_a_second(&run)? / could),
            "goodput_s": run["calls_per_second"],
            "latency_ms": run["latency_ms"],
            "longest_gap_ms": run["longest_gap_ms"],
            "refused": run["refused"],
            "failed": run["failed"],
            "errors": run["errors"],
            "unanswered": run["unanswered"],
            "cpu_us_a_call": {"nodes": run["server_cpu_us_per_call"], "generator": run["client_cpu_us_per_call"]},
            "leader_changes": changed,
            "memory_mb": {"before": resting, "peak": peak, "after": residents(cluster)?},
            "capacity": [&before, &after],
        }));
        before = after;
    }
    Ok(json!(runs))
}

/// A closed loop of 64 clients.
pub(super) fn capacity(cluster: &Cluster<'_>, arguments: &Arguments) -> anyhow::Result<Value> {
    crate::step("capacity: a closed loop of 64 clients");
    let seconds = arguments.seconds.to_string();
    let run = finished(cluster.bench(&cluster.all(), &["--clients", "64", "--seconds", &seconds])?)?;
    Ok(json!({"calls_per_second": run["calls_per_second"], "p99_ms": run["latency_ms"]["p99"]}))
}

pub(super) fn calls_a_second(run: &Value) -> anyhow::Result<f64> {
    number(run, "calls_per_second")
}

fn number(run: &Value, name: &str) -> anyhow::Result<f64> {
    run[name].as_f64().with_context(|| format!("the result of a run names no {name}"))
}

/// All that the nodes have seen so far.
fn leader_changes(cluster: &Cluster<'_>) -> f64 {
    cluster.all().iter().filter_map(|node| cluster.metric(*node, LEADER_CHANGES)).sum()
}

/// MB of each node.
fn residents(cluster: &Cluster<'_>) -> anyhow::Result<Vec<f64>> {
    cluster.nodes.iter().map(|(_, _, pid)| Ok(resident(*pid)?.round())).collect()
}

/// The most of each node while a load runs.
fn peak(cluster: &Cluster<'_>, load: &mut Child) -> anyhow::Result<Vec<f64>> {
    let mut peak = residents(cluster)?;
    while load.try_wait()?.is_none() {
        for (most, now) in peak.iter_mut().zip(residents(cluster)?) {
            *most = now.max(*most);
        }
        pause(SAMPLE);
    }
    Ok(peak)
}
