//! `quorate call`.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::cli::{Call, Output};
use crate::client::{Request, argument_or_stdin, percent_encode, send, show};
use crate::failure::Failure;

/// Calls a function and shows its result and command number.
///
/// # Errors
/// Arguments that are not JSON; the server's refusal.
pub(crate) fn run(call: &Call) -> Result<(), Failure> {
    let arguments = argument_or_stdin(&call.arguments)?;
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&arguments) {
        return Err(Failure::Usage(format!("the arguments are not JSON: {error}")));
    }
    let path = format!("/v1/functions/{}", percent_encode(&call.function));
    let mut request = Request::new(Method::POST, path).with_key(call.key.as_deref());
    request.headers.push(("Content-Type", "application/json".to_owned()));
    if let Some(wait) = call.wait {
        request.headers.push(("Prefer", format!("wait={}", whole_seconds(wait))));
        request.wait = Some(wait);
    }
    request.body = Some(arguments);
    let reply = send(&call.connection, &request)?;
    let answer = reply.json()?;
    match call.connection.output {
        Output::Json => show(format!("{answer}\n"))?,
        Output::Text => {
            let replayed = if reply.header("Idempotent-Replayed").is_some() { " (replayed)" } else { "" };
            let result = answer.get("result").unwrap_or(&Value::Null);
            match answer.get("command").and_then(Value::as_u64) {
                Some(command) => show(format!("{result}\ncommand {command}{replayed}\n"))?,
                None => show(format!("{result}\nno command: nothing changed\n"))?,
            }
        }
    }
    Ok(())
}

/// `Prefer: wait` counts whole seconds; rounded up, so that nobody waits less than asked.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
