//! What callers notice while the lead or the acceptors change: calls that failed, p99, and the longest time without a
//! success.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Arguments, median};
use crate::cluster::{Cluster, clock, finished, pause, signal};

/// How long a load runs before anything happens: it is steady by then.
const STEADY: Duration = Duration::from_secs(2);
/// How long anything may take before the measurement gives up.
const LONG: Duration = Duration::from_secs(60);
const SETUP: [&str; 8] = ["--setup", "inventory:1000", "--seconds", "3", "--clients", "64", "--warmup", "0"];
/// The ports of nodes that join, from these on; well away from those of a cluster.
const NEWCOMERS: [u16; 2] = [18_500, 17_500];

/// What becomes of the leader.
#[derive(Clone, Copy)]
enum Way {
    Killed,
    Paused,
    Transferred,
    AllRestarted,
}

/// The lead changes in several ways under 64 clients that ask again.
pub(super) fn leads(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    let mut cluster = arguments.cluster(binary)?;
    finished(cluster.bench(&cluster.all(), &SETUP)?)?;
    let mut measured = json!({});
    let ways = [
        ("kill_9", Way::Killed, "6"),
        ("sigstop", Way::Paused, "6"),
        ("transfer", Way::Transferred, "6"),
        ("rolling_restart", Way::AllRestarted, "30"),
    ];
    for (name, way, seconds) in ways {
        let mut times = Vec::new();
        for time in 1..=arguments.kills {
            crate::step(&format!("{name}, {time} of {}", arguments.kills));
            times.push(beside(&mut cluster, seconds, |cluster| happens(cluster, way))?);
            for (_, _, pid) in &cluster.nodes {
                signal("CONT", *pid).ok();
            }
            cluster.boot_ended()?;
            cluster.wait_until_all_are_heard()?;
        }
        measured[name] = summary(&times)?;
    }
    Ok(measured)
}

fn happens(cluster: &mut Cluster<'_>, way: Way) -> anyhow::Result<()> {
    let (leader, others) = cluster.leader()?;
    match way {
        Way::Killed => cluster.kill(leader),
        Way::Paused => signal("STOP", cluster.nodes[leader].2),
        Way::Transferred => cluster.run(&["leader", "transfer", &cluster.nodes[others[0]].0]),
        Way::AllRestarted => {
            // The leader last: what an operator does who knows how.
            others.into_iter().chain([leader]).try_for_each(|node| {
                signal("TERM", cluster.nodes[node].2)?;
                cluster.until("the end of a node", LONG, |cluster| cluster.has_ended(node).then_some(()))?;
                cluster.boot(node)?;
                cluster.wait_until_all_are_heard()
            })
        }
    }
}

/// One change of the acceptors.
#[derive(Clone, Copy)]
enum Change {
    /// A new node joins.
    Joins,
    /// The last one that joined is removed.
    Goes,
    /// This node, which does not lead, has no vote any more: the first or the second of those.
    Rests(usize),
    /// It has its vote again.
    Returns(usize),
}

/// Three acceptors become five, three, one, and three again.
const CHANGES: [(&str, Change, u64); 8] = [
    ("3_to_4", Change::Joins, 4),
    ("4_to_5", Change::Joins, 5),
    ("5_to_4", Change::Goes, 4),
    ("4_to_3", Change::Goes, 3),
    ("3_to_2", Change::Rests(0), 2),
    ("2_to_1", Change::Rests(1), 1),
    ("1_to_2", Change::Returns(0), 2),
    ("2_to_3", Change::Returns(1), 3),
];

/// Acceptors come and go, one at a time, under 64 clients.
pub(super) fn members(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    let mut cluster = arguments.cluster(binary)?;
    finished(cluster.bench(&cluster.all(), &SETUP)?)?;
    let without = beside(&mut cluster, "6", |_| Ok(()))?;
    let mut times: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut newcomers = Newcomers::default();
    for time in 1..=arguments.kills {
        let (leader, followers) = cluster.leader()?;
        let followers: Vec<String> = followers.into_iter().map(|node| cluster.nodes[node].0.clone()).collect();
        for (name, change, then) in CHANGES {
            crate::step(&format!("acceptors, {}: {time} of {}", name.replace('_', " "), arguments.kills));
            let seen = beside(&mut cluster, "12", |cluster| {
                match change {
                    Change::Joins => newcomers.joins(cluster, arguments)?,
                    Change::Goes => {
                        let (name, _) = newcomers.up.last().context("one has joined")?;
                        cluster.run(&["acceptor", "remove", name, "--for-good"])?;
                    }
                    Change::Rests(place) => cluster.run(&["acceptor", "remove", &followers[place]])?,
                    Change::Returns(place) => cluster.run(&["acceptor", "add", &followers[place]])?,
                }
                let so_many = |cluster: &Cluster<'_>| (acceptors(cluster)? == then).then_some(());
                cluster.until("the change", LONG, so_many).map(drop)
            })?;
            ensure!(cluster.leader()?.0 == leader, "the lead has changed: what followed would be another measurement");
            if let Change::Goes = change {
                newcomers.end_last()?;
            }
            times.entry(name).or_default().push(seen);
        }
    }
    let mut measured = json!({ "without": without });
    for (name, times) in times {
        measured[name] = summary(&times)?;
    }
    Ok(measured)
}

/// Nodes that have joined.
#[derive(Default)]
struct Newcomers {
    up: Vec<(String, Child)>,
    so_far: u16,
}

impl Newcomers {
    fn joins(&mut self, cluster: &Cluster<'_>, arguments: &Arguments) -> anyhow::Result<()> {
        self.so_far += 1;
        self.up.push(joins(cluster, arguments, self.so_far)?);
        Ok(())
    }

    fn end_last(&mut self) -> anyhow::Result<()> {
        let (_, mut process) = self.up.pop().context("one has joined")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        while !self.up.is_empty() {
            self.end_last().ok();
        }
    }
}

/// Starts a node that joins; an empty directory each time.
fn joins(cluster: &Cluster<'_>, arguments: &Arguments, time: u16) -> anyhow::Result<(String, Child)> {
    let name = format!("newcomer-{time}");
    let [http, peer] = NEWCOMERS.map(|base| format!("127.0.0.1:{}", base + time));
    let data = cluster.directory(0).with_file_name(&name);
    let sets = [
        format!("node.name={name}"),
        format!("node.data_dir={}", data.display()),
        "cluster.name=dev".to_owned(),
        format!("cluster.join=127.0.0.1:{}", arguments.peer_base),
        format!("listen.http={http}"),
        format!("listen.peer={peer}"),
    ];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let process = Command::new(cluster.binary).arg("serve").args(sets).stderr(Stdio::null()).spawn()?;
    Ok((name, process))
}

fn acceptors(cluster: &Cluster<'_>) -> Option<u64> {
    let answer = cluster.get(0, "/v1/cluster")?;
    let view: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    u64::try_from(view["membership"]["acceptors"].as_array()?.len()).ok()
}

/// What 64 clients that ask again notice of an act that is over before they are.
fn beside(
    cluster: &mut Cluster<'_>,
    seconds: &str,
    act: impl FnOnce(&mut Cluster<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Value> {
    let mut load = cluster.bench(&cluster.all(), &["--clients", "64", "--seconds", seconds, "--retry"])?;
    pause(STEADY);
    let begun = clock();
    act(cluster)?;
    let took = begun.elapsed();
    ensure!(load.try_wait()?.is_none(), "the calls were over before this was: {} s", took.as_secs_f64());
    let result = finished(load)?;
    Ok(json!({
        "seconds": took.as_secs_f64(),
        "longest_gap_ms": result["longest_gap_ms"],
        "p99_ms": result["latency_ms"]["p99"],
        "calls": result["calls"],
        "errors": result["errors"],
    }))
}

/// Medians, all gaps, and all errors.
fn summary(times: &[Value]) -> anyhow::Result<Value> {
    let all = |name: &str| -> anyhow::Result<Vec<f64>> {
        times.iter().map(|time| time[name].as_f64().with_context(|| format!("no {name} was measured"))).collect()
    };
    let middle = |name: &str| -> anyhow::Result<f64> {
        let mut sorted = all(name)?;
        sorted.sort_by(f64::total_cmp);
        Ok((median(&sorted) * 100.0).round() / 100.0)
    };
    let gaps: Vec<f64> = all("longest_gap_ms")?.into_iter().map(f64::round).collect();
    let errors: Vec<&Value> = times.iter().map(|time| &time["errors"]).filter(|errors| **errors != json!({})).collect();
    Ok(json!({
        "seconds_median": middle("seconds")?,
        "p99_ms_median": middle("p99_ms")?,
        "longest_gap_ms_median": middle("longest_gap_ms")?,
        "longest_gaps_ms": gaps,
        "calls": all("calls")?.iter().sum::<f64>(),
        "errors": errors,
    }))
}
