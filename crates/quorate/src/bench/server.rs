//! What the nodes spend: CPU time from `/proc`, syncs from their metrics (each role counts its own,
//! as `quorate_…_syncs_total`).

use std::time::Duration;

use super::connection::{Connection, Target};

/// `/proc` counts CPU time in hundredths of a second on every Linux (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process so far; `None` when there is no such process.
pub(crate) fn cpu_time(pid: &str) -> Option<Duration> {
    cpu_time_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn cpu_time_of(stat: &str) -> Option<Duration> {
    // The name, in parentheses, may hold anything; fields 14 and 15 count from before it.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11).map(|field| field.parse::<u32>().ok());
    let (user, system) = (fields.next()??, fields.next()??);
    Some(TICK * user + TICK * system)
}

/// The syncs of one node so far; `None` when it does not answer or does not count them.
pub(crate) async fn syncs(target: &Target, wait: Duration) -> Option<u64> {
    let asking = async { Connection::open(target, wait).await?.get("/metrics").await };
    let answer = tokio::time::timeout(wait, asking).await.ok()?.ok()?;
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
        assert_eq!(cpu_time_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_time_of("nonsense"), None);
        assert!(cpu_time("self").is_some());
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
