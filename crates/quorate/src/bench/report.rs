//! The result, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::record::Record;
use crate::cli::Bench;

/// What was spent.
pub(crate) struct Costs {
    /// CPU time of each node that was named by its pid.
    pub(crate) server_cpu: BTreeMap<u32, Duration>,
    /// CPU time of this process.
    pub(crate) client_cpu: Duration,
    /// Syncs of each node that answered.
    pub(crate) syncs: BTreeMap<String, u64>,
}

impl Costs {
    /// What was spent since `before`; only what was counted both times.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let server_cpu = self
            .server_cpu
            .iter()
            .filter_map(|(pid, now)| before.server_cpu.get(pid).map(|before| (*pid, now.saturating_sub(*before))));
        let syncs = self
            .syncs
            .iter()
            .filter_map(|(host, now)| before.syncs.get(host).map(|before| (host.clone(), now.saturating_sub(*before))));
        Self {
            server_cpu: server_cpu.collect(),
            client_cpu: self.client_cpu.saturating_sub(before.client_cpu),
            syncs: syncs.collect(),
        }
    }
}

/// The result of one run.
pub(crate) struct Report {
    function: String,
    clients: u32,
    elapsed: Duration,
    /// Calls with a 2xx answer.
    pub(crate) successes: u64,
    errors: BTreeMap<String, u64>,
    retries: u64,
    /// Name, milliseconds.
    latencies: Vec<(&'static str, f64)>,
    gap: (Duration, Duration),
    server_cpu_micros: Option<f64>,
    client_cpu_micros: f64,
    syncs: Option<f64>,
}

const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

impl Report {
    /// Works out the result.
    pub(crate) fn new(bench: &Bench, record: &Record, spent: &Costs) -> Self {
        let successes = record.successes();
        let calls = successes.max(1);
        let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / to_float(calls);
        let millis = |quantile| to_float(record.latencies.value_at_quantile(quantile)) / 1e3;
        let counted = |empty: bool, value: f64| (!empty && successes > 0).then_some(value);
        Self {
            function: bench.function.clone(),
            clients: bench.clients,
            elapsed: record.elapsed(),
            successes,
            errors: record.errors.clone(),
            retries: record.retries,
            latencies: QUANTILES.iter().map(|(name, quantile)| (*name, millis(*quantile))).collect(),
            gap: record.longest_gap(),
            server_cpu_micros: counted(spent.server_cpu.is_empty(), micros(spent.server_cpu.values().sum())),
            client_cpu_micros: micros(spent.client_cpu),
            syncs: counted(spent.syncs.is_empty(), to_float(spent.syncs.values().sum()) / to_float(calls)),
        }
    }

    /// One JSON object.
    pub(crate) fn to_json(&self) -> Value {
        let latencies: BTreeMap<&str, f64> = self.latencies.iter().copied().collect();
        json!({
            "function": self.function,
            "clients": self.clients,
            "seconds": self.elapsed.as_secs_f64(),
            "calls": self.successes,
            "calls_per_second": rate(self.successes, self.elapsed),
            "latency_ms": latencies,
            "errors": self.errors,
            "retries": self.retries,
            "longest_gap_ms": self.gap.0.as_secs_f64() * 1e3,
            "longest_gap_after_s": self.gap.1.as_secs_f64(),
            "server_cpu_us_per_call": self.server_cpu_micros,
            "client_cpu_us_per_call": self.client_cpu_micros,
            "syncs_per_call": self.syncs,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = self.elapsed.as_secs_f64();
        writeln!(f, "{}, {} clients, {elapsed:.1} s", self.function, self.clients)?;
        writeln!(f, "  calls          {} ({:.0}/s)", self.successes, rate(self.successes, self.elapsed))?;
        let latencies: Vec<String> =
            self.latencies.iter().map(|(name, millis)| format!("{name} {millis:.2}")).collect();
        writeln!(f, "  latency, ms    {}", latencies.join("  "))?;
        let (gap, after) = (self.gap.0.as_secs_f64() * 1e3, self.gap.1.as_secs_f64());
        writeln!(f, "  longest gap    {gap:.0} ms without a success, {after:.1} s after the start")?;
        if let Some(micros) = self.server_cpu_micros {
            writeln!(f, "  CPU a call     nodes {micros:.1} us, this program {:.1} us", self.client_cpu_micros)?;
        } else {
            writeln!(f, "  CPU a call     this program {:.1} us (--pids for the nodes)", self.client_cpu_micros)?;
        }
        if let Some(syncs) = self.syncs {
            writeln!(f, "  syncs a call   {syncs:.3} (nodes in --url)")?;
        }
        if self.retries > 0 {
            writeln!(f, "  sent again     {}", self.retries)?;
        }
        for (code, count) in &self.errors {
            writeln!(f, "  {code:<14} {count}")?;
        }
        Ok(())
    }
}

/// A count for a second.
pub(crate) fn rate(count: u64, elapsed: Duration) -> f64 {
    to_float(count) / elapsed.as_secs_f64().max(1e-9)
}

/// Counts of calls are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn to_float(count: u64) -> f64 {
    count as f64
}
