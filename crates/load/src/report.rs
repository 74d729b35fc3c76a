//! The result, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Plan;
use crate::costs::Costs;
use crate::record::Record;

/// The result of one run.
pub struct Report {
    what: String,
    clients: u32,
    rate: Option<f64>,
    elapsed: Duration,
    successes: u64,
    unanswered: u64,
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
    pub(crate) fn new(plan: &Plan, record: &Record, spent: &Costs) -> Self {
        let successes = record.successes;
        let calls = successes.max(1);
        let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / to_float(calls);
        let millis = |quantile| to_float(record.latencies.value_at_quantile(quantile)) / 1e3;
        let counted = |empty: bool, value: f64| (!empty && successes > 0).then_some(value);
        Self {
            what: plan.what.clone(),
            clients: plan.clients,
            rate: plan.rate,
            elapsed: record.elapsed(),
            successes,
            unanswered: record.unanswered,
            errors: record.errors.clone(),
            retries: record.retries,
            latencies: QUANTILES.iter().map(|(name, quantile)| (*name, millis(*quantile))).collect(),
            gap: record.longest_gap(),
            server_cpu_micros: counted(spent.cpu.servers.is_empty(), micros(spent.cpu.servers.values().sum())),
            client_cpu_micros: micros(spent.cpu.client),
            syncs: counted(spent.syncs.is_empty(), to_float(spent.syncs.values().sum()) / to_float(calls)),
        }
    }

    /// Calls that succeeded.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.successes
    }

    /// One JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let latencies: BTreeMap<&str, f64> = self.latencies.iter().copied().collect();
        json!({
            "function": self.what,
            "clients": self.clients,
            "rate": self.rate,
            "seconds": self.elapsed.as_secs_f64(),
            "calls": self.successes,
            "calls_per_second": rate(self.successes, self.elapsed),
            "latency_ms": latencies,
            "unanswered": self.unanswered,
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
        writeln!(f, "{}, {} clients, {elapsed:.1} s", self.what, self.clients)?;
        if let Some(rate) = self.rate {
            let (due, unanswered) = (format!("{rate} due a second"), self.unanswered);
            writeln!(f, "  open loop      {due}, latency since then; {unanswered} unanswered at the end")?;
        }
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
            writeln!(f, "  syncs a call   {syncs:.3}")?;
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
