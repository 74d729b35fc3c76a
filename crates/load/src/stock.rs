//! Stock in many warehouses, so that transfers between them find some.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};

use crate::connection::{Connection, Target};
use crate::rest::code_of;

/// The stock of each warehouse: more than any run moves out of one.
pub const STOCK: u64 = 1_000_000;

/// Calls in one request, below what `POST /v1/calls` takes.
const BATCH: u64 = 500;

/// How long one batch may take.
const BATCH_WAIT: Duration = Duration::from_secs(30);

/// Reads `inventory:N`.
///
/// # Errors
/// A sentence, when it is anything else.
pub fn warehouses(text: &str) -> Result<u64, String> {
    let count = text.strip_prefix("inventory:").and_then(|count| count.parse().ok());
    count
        .filter(|count| (1..=1_000_000).contains(count))
        .ok_or_else(|| format!("{text}: must be inventory:N with N from 1 to 1000000, such as inventory:1000"))
}

/// Brings goods to the warehouses of these numbers: w0, w1, …
///
/// # Errors
/// The first call that does not succeed.
pub async fn stock(target: &Target, numbers: Range<u64>, run_key: &str) -> anyhow::Result<()> {
    let mut connection =
        Connection::open(target, BATCH_WAIT).await.with_context(|| format!("setup: {}", target.host))?;
    let mut first = numbers.start;
    while first < numbers.end {
        let end = numbers.end.min(first + BATCH);
        let calls: Vec<Value> = (first..end)
            .map(|number| {
                json!({
                    "function": "inventory.inbound",
                    "arguments": { "warehouse": format!("w{number}"), "amount": STOCK },
                    "idempotency_key": format!("{run_key}-setup-{number}"),
                })
            })
            .collect();
        let body = Value::from(calls).to_string();
        let posting = connection.post("/v1/calls", None, &body);
        let (answer, _) = tokio::time::timeout(BATCH_WAIT, posting).await.context("setup: no answer in time")??;
        if answer.status != 200 {
            bail!("setup: {}", code_of(&answer));
        }
        all_succeeded(&answer.body, end - first)?;
        first = end;
    }
    Ok(())
}

fn all_succeeded(body: &[u8], expected: u64) -> anyhow::Result<()> {
    let outcomes: Value = serde_json::from_slice(body).context("setup: the answer is not JSON")?;
    let outcomes = outcomes.as_array().or_else(|| outcomes.get("outcomes")?.as_array());
    let outcomes = outcomes.ok_or_else(|| anyhow!("setup: the answer is not a list of outcomes"))?;
    if outcomes.len() as u64 != expected {
        bail!("setup: {} outcomes for {expected} calls", outcomes.len());
    }
    match outcomes.iter().find(|outcome| outcome.get("result").is_none()) {
        Some(failed) => bail!("setup: a call did not succeed: {failed}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a setup that goes on after a refused call, or measures on half of the stock.
    #[test]
    fn one_call_that_fails_fails_the_setup() {
        assert!(all_succeeded(br#"[{"command": 1, "result": {"stock": 5}}]"#, 1).is_ok());
        assert!(all_succeeded(br#"[{"command": 1, "result": {}}]"#, 2).is_err());
        let refused = br#"[{"command": 1, "result": {}}, {"status": 429, "code": "overloaded"}]"#;
        let error = all_succeeded(refused, 2).expect_err("a refusal").to_string();
        assert!(error.contains("overloaded"), "{error}");
        assert_eq!(warehouses("inventory:1000"), Ok(1000));
        assert!(warehouses("inventory:0").is_err() && warehouses("kv:5").is_err());
    }
}
