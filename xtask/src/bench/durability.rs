//! What durability costs, and how fast a node comes back: catching up, whole states, restarts, bytes on disk, memory.
//!
//! Rates are compared with floors of the same run: what one connection over loopback carries, and what one file takes
//! with a sync at its end. The machine may be shared, so that only such ratios mean something.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Arguments;
use crate::cluster::{Cluster, clock, finished, pause};

/// What a floor moves: long beside the start of a connection, short beside the other measurements.
const FLOOR_BYTES: usize = 256 << 20;
const CHUNK: usize = 1 << 20;
/// How long anything may take before the measurement gives up.
const LONG: Duration = Duration::from_secs(600);
/// How far behind a node is that takes part again: claim 5's window.
const WINDOW: f64 = 1024.0;
/// How long calls are watched while a state is sent: all of it within the transfer, or calls after it would hide it.
const WATCHED: [&str; 2] = ["--seconds", "4"];
/// A pause between two checkpoints.
const CHECKPOINT: Duration = Duration::from_millis(500);
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_secs(5);
const SETUP: [&str; 8] = ["--setup", "inventory:1000", "--seconds", "0.2", "--clients", "1", "--warmup", "0"];

/// MB/s over loopback and into a file, microseconds of a small sync.
fn floors(directory: &Path) -> anyhow::Result<Value> {
    crate::step("floors: loopback and disk");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    #[expect(clippy::disallowed_methods, reason = "a job of a developer, no core")]
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        (0..FLOOR_BYTES / CHUNK).try_for_each(|_| stream.write_all(&[7; CHUNK]))
    });
    let (mut stream, mut buffer) = (listener.accept()?.0, vec![0; CHUNK]);
    let begun = clock();
    while stream.read(&mut buffer)? > 0 {}
    let loopback = megabytes_a_second(FLOOR_BYTES as f64, begun.elapsed());
    sender.join().map_err(|_| anyhow::anyhow!("the sender died"))??;

    let path = directory.join("floor");
    let mut file = File::create(&path)?;
    let begun = clock();
    (0..FLOOR_BYTES / CHUNK).try_for_each(|_| file.write_all(&[7; CHUNK]))?;
    file.sync_data()?;
    let disk = megabytes_a_second(FLOOR_BYTES as f64, begun.elapsed());
    let begun = clock();
    for _ in 0..200 {
        file.write_all(&[7; 512])?;
        file.sync_data()?;
    }
    let sync = begun.elapsed().as_secs_f64() / 200.0 * 1e6;
    std::fs::remove_file(&path)?;
    Ok(json!({"loopback_mb_s": round(loopback), "disk_mb_s": round(disk), "sync_us": round(sync)}))
}

/// A node that was away while so many commands were issued, once without and once under load.
pub(super) fn away(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    let mut measured = json!({"floors": floors(&arguments.directory()?)?});
    let mut cluster = arguments.cluster(binary)?;
    finished(cluster.bench(&cluster.all(), &SETUP)?)?;
    for (name, loaded) in [("idle", false), ("under_load", true)] {
        crate::step(&format!("a node misses {} commands, {name}", arguments.missed));
        let (leader, others) = cluster.leader()?;
        let away = others[0];
        let here: Vec<usize> = cluster.all().into_iter().filter(|node| *node != away).collect();
        cluster.kill(away)?;
        let missed = arguments.missed.to_string();
        finished(cluster.bench(&here, &["--clients", "64", "--calls", &missed])?)?;
        let load = if loaded { Some(cluster.bench(&here, &["--clients", "64", "--seconds", "60"])?) } else { None };
        if loaded {
            pause(Duration::from_secs(2));
        }
        cluster.boot(away)?;
        let applied = |cluster: &Cluster<'_>| cluster.metric(away, "quorate_learner_applied");
        let (first, up) = cluster.until("the node", LONG, |cluster| applied(cluster))?;
        let back = |cluster: &Cluster<'_>| {
            let (ours, theirs) = (applied(cluster)?, cluster.metric(leader, "quorate_learner_issued")?);
            (ours + WINDOW >= theirs && ours > 0.0).then_some(ours)
        };
        let (last, took) = cluster.until("a node that has caught up", LONG, back)?;
        let bulk = "quorate_transport_bytes_received_total{lane=\"bulk\"}";
        let bytes = cluster.metric(away, bulk).unwrap_or_default();
        let seconds = took.as_secs_f64().max(0.05);
        measured[name] = json!({
            "start_seconds": round(up.as_secs_f64()),
            "seconds": round(seconds),
            "commands": last - first,
            "commands_s": round((last - first) / seconds),
            "mb_s": round(megabytes_a_second(bytes, took)),
        });
        if let Some(load) = load {
            let load = finished(load)?;
            measured[name]["load"] = json!({"calls_s": load["calls_per_second"], "p99_ms": load["latency_ms"]["p99"], "errors": load["errors"]});
        }
        cluster.wait_until_all_are_heard()?;
    }
    Ok(measured)
}

/// A node that needs a whole state, and what calls notice of that: several rounds on one cluster, since p99 is noisy.
pub(super) fn state(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    let floors = floors(&arguments.directory()?)?;
    // Fewer than are missed, more than are issued while the state is sent.
    let mut cluster = arguments.cluster_with(binary, &["history.commands=40000"])?;
    finished(cluster.bench(&cluster.all(), &SETUP)?)?;
    let (_, others) = cluster.leader()?;
    let away = others[0];
    let here: Vec<usize> = cluster.all().into_iter().filter(|node| *node != away).collect();
    cluster.kill(away)?;
    crate::step(&format!("{} MiB of state", arguments.state));
    let calls = (arguments.state * 16).to_string();
    let put = format!(r#"{{"key": "document/$client/$int(1,{})", "value": "$text(65536)"}}"#, arguments.state * 4);
    let fill = ["kv.put", "--arguments", &put, "--clients", "16", "--calls", &calls, "--warmup", "0"];
    finished(cluster.bench(&here, &fill)?)?;
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        crate::step(&format!("round {round} of {}", arguments.rounds));
        rounds.push(sent(&mut cluster, &here, away)?);
        cluster.wait_until_all_are_heard()?;
        cluster.kill(away)?;
    }
    Ok(json!({"floors": floors, "rounds": rounds}))
}

/// One transfer to `away`, which is not running, with calls to the nodes that are here before, within and after it.
fn sent(cluster: &mut Cluster<'_>, here: &[usize], away: usize) -> anyhow::Result<Value> {
    finished(cluster.bench(here, &["--clients", "64", "--calls", "50000", "--warmup", "0"])?)?;
    let seen = |result: &Value| -> anyhow::Result<[f64; 2]> {
        let p99 = result["latency_ms"]["p99"].as_f64().context("the result of the run names no p99")?;
        let rate = result["calls_per_second"].as_f64().context("the result of the run names no rate")?;
        Ok([p99, rate].map(round))
    };
    let calls = [&["--clients", "16", "--warmup", "0"][..], &WATCHED].concat();
    crate::step("calls to warm up, and without a transfer");
    finished(cluster.bench(here, &calls)?)?;
    let before = seen(&finished(cluster.bench(here, &calls)?)?)?;
    crate::step("calls while checkpoints are made");
    let mut load = cluster.bench(here, &calls)?;
    let mut checkpoints = 0;
    while load.try_wait()?.is_none() {
        checkpoints += u64::from(makes_a_checkpoint(cluster, here[0])?);
        pause(CHECKPOINT);
    }
    let beside_checkpoints = seen(&finished(load)?)?;
    crate::step("calls while a state is sent");
    let load = cluster.bench(here, &calls)?;
    cluster.boot(away)?;
    let begun = clock();
    let received = |cluster: &Cluster<'_>| cluster.metric(away, "quorate_snapshot_received_bytes_total");
    cluster.until("the first piece", LONG, |cluster| received(cluster).filter(|bytes| *bytes > 0.0))?;
    let first = begun.elapsed();
    let installed = |cluster: &Cluster<'_>| cluster.metric(away, "quorate_snapshot_installed_total");
    let all = |cluster: &Cluster<'_>| installed(cluster).filter(|times| *times > 0.5).and_then(|_| received(cluster));
    let meanwhile = seen(&finished(load)?)?;
    anyhow::ensure!(
        all(cluster).is_none(),
        "the state was there before the calls were over: measure with more --state"
    );
    let watched = begun.elapsed();
    let (bytes, took) = cluster.until("an installed state", LONG, all)?;
    let took = took + (watched - first);
    let installed = installed(cluster);
    let after = seen(&finished(cluster.bench(here, &calls)?)?)?;
    Ok(json!({
        "mb": round(bytes / 1e6),
        "seconds_until_first_piece": round(first.as_secs_f64()),
        "seconds": round(took.as_secs_f64()),
        "installed": installed,
        "mb_s": round(megabytes_a_second(bytes, took)),
        "checkpoints": checkpoints,
        "p99_ms_and_calls_s": {
            "before": before,
            "beside_checkpoints": beside_checkpoints,
            "meanwhile": meanwhile,
            "after": after,
        },
    }))
}

/// Begins a backup, which makes a checkpoint, and goes away with its first bytes.
fn makes_a_checkpoint(cluster: &Cluster<'_>, node: usize) -> anyhow::Result<bool> {
    let host = cluster.nodes[node].1.strip_prefix("http://").context("an address of REST")?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /v1/backup HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"HTTP/1.1 200")
}

/// A cluster that ran for long, and starts again after `kill -9` of all nodes.
pub(super) fn restart(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    let mut cluster = arguments.cluster(binary)?;
    finished(cluster.bench(&cluster.all(), &SETUP)?)?;
    crate::step(&format!("{} commands", arguments.issued));
    let issued = arguments.issued.to_string();
    finished(cluster.bench(&cluster.all(), &["--clients", "256", "--calls", &issued, "--warmup", "0"])?)?;
    let issued = cluster.metric(cluster.leader()?.0, "quorate_learner_issued");
    crate::step("all nodes are killed and start again");
    let all = cluster.all();
    all.iter().try_for_each(|node| cluster.kill(*node))?;
    pause(Duration::from_secs(1));
    let begun = clock();
    all.iter().try_for_each(|node| cluster.boot(*node))?;
    let mut ready = Vec::new();
    for node in &all {
        cluster.until("a ready node", LONG, |cluster| cluster.get(*node, "/readyz"))?;
        ready.push(round(begun.elapsed().as_secs_f64()));
    }
    let bytes = all.iter().map(|node| size(&cluster.directory(*node))).sum::<anyhow::Result<u64>>()?;
    Ok(json!({"issued": issued, "all_ready_seconds": ready.last(), "mb_on_disk_of_all": bytes / 1_000_000}))
}

/// What is written to disks, by all nodes, for each byte of arguments that was acknowledged, and what stays there.
pub(super) fn disk(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    let mut cases = Vec::new();
    for bytes in [32_u64, 1_024, 65_536] {
        crate::step(&format!("values of {bytes} bytes"));
        let cluster = arguments.cluster(binary)?;
        let put = format!(r#"{{"key": "document/$int(1,1000)", "value": "$text({bytes})"}}"#);
        let seconds = arguments.seconds.to_string();
        let written = |cluster: &Cluster<'_>| -> anyhow::Result<f64> {
            cluster.nodes.iter().map(|(_, _, pid)| io(*pid, "write_bytes")).sum()
        };
        let before = written(&cluster)?;
        let flags = ["kv.put", "--arguments", &put, "--clients", "64", "--seconds", &seconds, "--warmup", "0"];
        let run = finished(cluster.bench(&cluster.all(), &flags)?)?;
        // What is in memory is written too, some time.
        pause(Duration::from_secs(2));
        let calls = run["calls"].as_f64().context("the result of the run names no calls")?;
        let acknowledged = calls * bytes as f64;
        let stays = cluster.all().iter().map(|node| size(&cluster.directory(*node))).sum::<anyhow::Result<u64>>()?;
        cases.push(json!({
            "value_bytes": bytes,
            "calls_s": run["calls_per_second"],
            "syncs_a_call": run["syncs_per_call"],
            "written_per_acknowledged_byte": round((written(&cluster)? - before) / acknowledged),
            "on_disk_per_acknowledged_byte": round(stays as f64 / acknowledged),
        }));
    }
    Ok(json!(cases))
}

/// What a node holds at some time of a load that goes on.
struct Held {
    minute: f64,
    mb: f64,
    open_files: usize,
    disk_mb: f64,
}

/// Memory, open files and disk under a load that goes on.
pub(super) fn memory(arguments: &Arguments, binary: &Path) -> anyhow::Result<Value> {
    let cluster = arguments.cluster(binary)?;
    let seconds = arguments.minutes * 60;
    crate::step(&format!("{} minutes under load", arguments.minutes));
    let length = seconds.to_string();
    let load =
        cluster.bench(&cluster.all(), &["--clients", "64", "--seconds", &length, "--setup", "inventory:1000"])?;
    let begun = clock();
    let mut samples: Vec<Vec<Held>> = cluster.all().iter().map(|_| Vec::new()).collect();
    while begun.elapsed() < Duration::from_secs(seconds) {
        pause(SAMPLE);
        for (node, samples) in samples.iter_mut().enumerate() {
            let minute = begun.elapsed().as_secs_f64() / 60.0;
            let pid = cluster.nodes[node].2;
            let open_files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
            let disk_mb = size(&cluster.directory(node))? as f64 / 1e6;
            samples.push(Held { minute, mb: resident(pid)?, open_files, disk_mb });
        }
    }
    let load = finished(load)?;
    let nodes: Vec<Value> = samples.iter().map(|samples| growth(samples)).collect();
    Ok(
        json!({"minutes": arguments.minutes, "calls_s": load["calls_per_second"], "errors": load["errors"], "nodes": nodes}),
    )
}

fn growth(samples: &[Held]) -> Value {
    let each_minute = || samples.iter().step_by(12);
    let memory: Vec<(f64, f64)> = samples.iter().map(|held| (held.minute, held.mb)).collect();
    json!({
        "mb_each_minute": each_minute().map(|held| held.mb.round()).collect::<Vec<_>>(),
        "open_files_each_minute": each_minute().map(|held| held.open_files).collect::<Vec<_>>(),
        "disk_mb_each_minute": each_minute().map(|held| held.disk_mb.round()).collect::<Vec<_>>(),
        // Tables in memory and caches fill first.
        "slope_mb_a_minute_second_half": round(slope(&memory[memory.len() / 2..])),
        "slope_mb_a_minute": round(slope(&memory)),
    })
}

/// A line of `/proc/PID/io`.
fn io(pid: u64, name: &str) -> anyhow::Result<f64> {
    field(&format!("/proc/{pid}/io"), name)
}

/// Memory that a process holds, in MB.
pub(super) fn resident(pid: u64) -> anyhow::Result<f64> {
    Ok(field(&format!("/proc/{pid}/status"), "VmRSS")? * 1024.0 / 1e6)
}

fn field(path: &str, name: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{path} has no {name}"))
}

/// Bytes of the files under a directory; some may go away meanwhile.
fn size(directory: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(about) = entry.metadata() else { continue };
        sum += if about.is_dir() { size(&entry.path())? } else { about.len() };
    }
    Ok(sum)
}

fn megabytes_a_second(bytes: f64, took: Duration) -> f64 {
    bytes / 1e6 / took.as_secs_f64().max(1e-6)
}

/// To two digits after the point.
pub(super) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Of the line that lies nearest to some points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x) * (point.0 - x)).sum();
    if below == 0.0 { 0.0 } else { above / below }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a slope of the wrong sign or unit: a node that grows must not look like one that does not.
    #[test]
    fn the_slope_is_that_of_the_line() {
        let grows: Vec<(f64, f64)> = (0..10).map(|at| (f64::from(at), 100.0 + 3.0 * f64::from(at))).collect();
        assert!((slope(&grows) - 3.0).abs() < 1e-9);
        assert!(slope(&[(1.0, 5.0)]).abs() < 1e-9, "one point has none");
    }

    /// Catches a field that is read from another line of the kernel's text.
    #[test]
    fn the_kernel_is_read_by_name() {
        assert!(resident(u64::from(std::process::id())).is_ok_and(|mb| mb > 0.5));
        assert!(field("/proc/self/status", "NoSuchThing").is_err());
    }
}
