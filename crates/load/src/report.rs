//! The result, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
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
    sent: u64,
    successes: u64,
    unanswered: u64,
    refused: Refused,
    errors: BTreeMap<String, u64>,
    retries: u64,
    /// Name, milliseconds.
    latencies: Vec<(&'static str, f64)>,
    gap: (Duration, Duration),
    server_cpu_micros: Option<f64>,
    client_cpu_micros: f64,
    syncs: Option<f64>,
}

/// Calls that were refused.
struct Refused {
    count: u64,
    /// Those that were told when to come back.
    say_when: u64,
    /// Name, milliseconds since they were sent.
    latencies: Vec<(&'static str, f64)>,
}

const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
const REFUSED: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];

impl Report {
    /// Works out the result.
    pub(crate) fn new(plan: &Plan, record: &Record, spent: &Costs) -> Self {
        let successes = record.successes;
        let calls = successes.max(1);
        let micros = |spent: Duration| spent.as_secs_f64() * 1e6 / to_float(calls);
        let counted = |empty: bool, value: f64| (!empty && successes > 0).then_some(value);
        Self {
            what: plan.what.clone(),
            clients: plan.clients,
            rate: plan.rate,
            elapsed: record.elapsed(),
            sent: record.sent,
            successes,
            unanswered: record.unanswered,
            refused: Refused {
                count: record.refusals.len(),
                say_when: record.say_when,
                latencies: millis(&record.refusals, &REFUSED),
            },
            errors: record.errors.clone(),
            retries: record.retries,
            latencies: millis(&record.latencies, &QUANTILES),
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

    /// Calls that neither succeeded nor were refused.
    fn failed(&self) -> u64 {
        self.errors.values().sum::<u64>().saturating_sub(self.refused.count)
    }

    /// One JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let times = |named: &[(&'static str, f64)]| named.iter().copied().collect::<BTreeMap<&str, f64>>();
        json!({
            "function": self.what,
            "clients": self.clients,
            "rate": self.rate,
            "seconds": self.elapsed.as_secs_f64(),
            "sent": self.sent,
            "calls": self.successes,
            "calls_per_second": rate(self.successes, self.elapsed),
            "latency_ms": times(&self.latencies),
            "unanswered": self.unanswered,
            "refused": {
                "count": self.refused.count,
                "per_second": rate(self.refused.count, self.elapsed),
                "retry_after_share": self.refused.share(),
                "latency_ms": times(&self.refused.latencies),
            },
            "failed": self.failed(),
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
        writeln!(f, "  latency, ms    {}", list(&self.latencies))?;
        if let Some(share) = self.refused.share() {
            let (count, a_second) = (self.refused.count, rate(self.refused.count, self.elapsed));
            let (times, share) = (list(&self.refused.latencies), share * 100.0);
            writeln!(f, "  refused        {count} ({a_second:.0}/s), {share:.1} % with Retry-After")?;
            writeln!(f, "  refused, ms    {times}, since they were sent")?;
        }
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

impl Refused {
    /// The share of those that were told when to come back; none without refusals.
    fn share(&self) -> Option<f64> {
        (self.count > 0).then(|| to_float(self.say_when) / to_float(self.count))
    }
}

fn millis(times: &Histogram<u64>, quantiles: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
    let millis = |quantile| to_float(times.value_at_quantile(quantile)) / 1e3;
    quantiles.iter().map(|(name, quantile)| (*name, millis(*quantile))).collect()
}

fn list(times: &[(&'static str, f64)]) -> String {
    times.iter().map(|(name, millis)| format!("{name} {millis:.2}")).collect::<Vec<_>>().join("  ")
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
