//! What the servers spend: CPU time from `/proc`, syncs of Quorate's nodes from their metrics (each role
//! counts its own, as `quorate_…_syncs_total`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Plan;
use crate::connection::{Connection, Target};

/// What has been spent, or was since.
pub(crate) struct Costs {
    pub(crate) cpu: Cpu,
    /// Syncs of each server that counts them.
    pub(crate) syncs: BTreeMap<String, u64>,
}

/// CPU time.
pub(crate) struct Cpu {
    /// Of each process that was named, with those below it.
    pub(crate) servers: BTreeMap<u32, Duration>,
    /// Of this process.
    pub(crate) client: Duration,
}

impl Cpu {
    /// What has been spent so far.
    pub(crate) fn now(plan: &Plan) -> Self {
        Self { servers: cpu_times(&plan.pids), client: own_cpu_time() }
    }
}

impl Costs {
    /// What was spent since `before`; only what was counted both times.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let servers = self
            .cpu
            .servers
            .iter()
            .filter_map(|(pid, now)| before.cpu.servers.get(pid).map(|before| (*pid, now.saturating_sub(*before))));
        let syncs = self
            .syncs
            .iter()
            .filter_map(|(host, now)| before.syncs.get(host).map(|before| (host.clone(), now.saturating_sub(*before))));
        let client = self.cpu.client.saturating_sub(before.cpu.client);
        Self { cpu: Cpu { servers: servers.collect(), client }, syncs: syncs.collect() }
    }
}

/// `/proc` counts CPU time in hundredths of a second on every Linux (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// User and system time.
    own: Duration,
    /// The same of those that it started and that have ended.
    ended: Duration,
}

/// CPU time so far of each of these processes, with that of all below it, those included that have ended: a server
/// may have a process for each client. Processes that are not there are absent.
#[must_use]
pub fn cpu_times(pids: &[u32]) -> BTreeMap<u32, Duration> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: BTreeMap<u32, Process> = numbers.filter_map(|pid| Some((pid, process(&pid.to_string())?))).collect();
    let with_those_below = |root: u32| {
        let below = all.iter().filter(|(pid, _)| descends(&all, **pid, root));
        below.map(|(_, process)| process.own + process.ended).sum()
    };
    pids.iter().filter(|pid| all.contains_key(pid)).map(|pid| (*pid, with_those_below(*pid))).collect()
}

fn descends(all: &BTreeMap<u32, Process>, pid: u32, root: u32) -> bool {
    let line = std::iter::successors(Some(pid), |pid| all.get(pid).map(|process| process.parent));
    // What was read at different instants may go in a circle.
    line.take(all.len()).any(|pid| pid == root)
}

/// CPU time of this process so far.
fn own_cpu_time() -> Duration {
    process("self").map(|process| process.own).unwrap_or_default()
}

fn process(pid: &str) -> Option<Process> {
    process_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn process_of(stat: &str) -> Option<Process> {
    // The name, in parentheses, may hold anything; fields 4 and 14 to 17 count from before it.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let number = |place: usize| fields.get(place)?.parse::<u32>().ok();
    let ticks = |place: usize| Some(TICK * number(place)? + TICK * number(place + 1)?);
    Some(Process { parent: number(1)?, own: ticks(11)?, ended: ticks(13)? })
}

/// The syncs of one node so far; `None` when it does not answer or does not count them.
pub(crate) async fn syncs(target: &Target, wait: Duration) -> Option<u64> {
    let asking = async { Connection::open(target, wait).await?.get("/metrics").await };
    let (answer, _) = tokio::time::timeout(wait, asking).await.ok()?.ok()?;
    syncs_of(&String::from_utf8_lossy(&answer.body))
}

fn syncs_of(metrics: &str) -> Option<u64> {
    let mut sum = None;
    for line in metrics.lines() {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok());
        let counts_syncs = name.starts_with("quorate_") && name.ends_with("_syncs_total");
        if let (true, Some(value)) = (counts_syncs, value) {
            sum = Some(sum.unwrap_or(0) + value);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches fields counted from the wrong place when the name of a process holds spaces.
    #[test]
    fn the_name_of_a_process_does_not_shift_its_times() {
        let stat = "77 (a (b) c d) S 1 77 77 0 -1 4194304 100 0 0 0 250 50 7 8 20 0 12 0 1 2 3";
        let (own, ended) = (Duration::from_secs(3), Duration::from_millis(150));
        assert_eq!(process_of(stat), Some(Process { parent: 1, own, ended }));
        assert_eq!(process_of("nonsense"), None);
    }

    /// Catches a server with a process for each client whose work is not counted, and the work of others that is.
    #[test]
    fn processes_below_count_and_others_do_not() {
        let process = |parent| Process { parent, own: TICK, ended: Duration::ZERO };
        let all = BTreeMap::from([(1, process(0)), (5, process(1)), (6, process(5)), (7, process(6)), (8, process(1))]);
        let below: Vec<u32> = all.keys().copied().filter(|pid| descends(&all, *pid, 5)).collect();
        assert_eq!(below, [5, 6, 7]);
        let me = std::process::id();
        let now = cpu_times(&[me, u32::MAX]);
        assert!(now.contains_key(&me) && !now.contains_key(&u32::MAX), "{now:?}");
    }

    /// Catches a sum that takes in other counters or passes off "not counted" as none.
    #[test]
    fn syncs_are_summed_over_logs_and_labels() {
        let metrics = "# TYPE quorate_acceptor_syncs_total counter\nquorate_acceptor_syncs_total 40\n\
                       quorate_learner_syncs_total{store=\"state\"} 2\nquorate_acceptor_syncs_total_other 9\n";
        assert_eq!(syncs_of(metrics), Some(42));
        assert_eq!(syncs_of("quorate_calls_total 3\n"), None);
    }
}
