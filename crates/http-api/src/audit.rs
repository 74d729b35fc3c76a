//! The audit log: what operators do, and what somebody tried who is none. Lines of the target `audit`, at any level of the
//! log but `off`. Names of tokens stand in it, never what their owners present, nor where they
//! present it in the wrong place. Who is refused again and again cannot fill it ([`Refusals`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use bytes::Bytes;
use protocol::TraceId;
use serde_json::{Map, Value};

use crate::core::access::{Access, Denied, is_audited, without_secrets};
use crate::observe::clock;
use crate::problem::Problem;

/// How much of a path or of arguments is shown.
const SHOWN: usize = 512;

/// Who asks, in a line.
fn who(access: &Access) -> &str {
    access.name.as_deref().unwrap_or("anybody")
}

/// A request of a route that needs an operator.
pub(crate) fn request(access: &Access, request: &HttpRequest, status: StatusCode) {
    let (method, path) = (request.method(), shown(request.path()));
    tracing::info!(target: "audit", who = who(access), %method, path, status = status.as_u16(), "request");
}

/// So many refusals of one token are told of in each [`REFUSALS_TIME`]; the next line says how many were not.
const REFUSALS_TOLD: u64 = 20;
const REFUSALS_TIME: Duration = Duration::from_secs(10);
/// Tokens whose refusals are counted at a time. Others are told of as if each were the first.
const REFUSED_MAX: usize = 1_000;

/// Who was refused lately.
#[derive(Default)]
pub(crate) struct Refusals {
    tokens: Counts,
    /// All who had no token that counts are one: anybody can come from a thousand addresses.
    strangers: Counts,
}

/// The refusals of each: since when these are counted, and how many there were.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, (Instant, u64)>>);

impl Refusals {
    /// Somebody with a token was refused for what it allows.
    pub(crate) fn denied(&self, access: &Access, what: &str) {
        if let Some(untold) = self.tokens.count(who(access), clock()) {
            tracing::warn!(target: "audit", who = who(access), what = shown(what), untold, "denied");
        }
    }

    /// Somebody presented a token from this address that is none here, or counts no more.
    pub(crate) fn no_token(&self, from: Option<IpAddr>, why: Denied) {
        let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
        if let Some(untold) = self.strangers.count("", clock()) {
            tracing::warn!(target: "audit", from, why = why.name(), untold, "token refused");
        }
    }
}

impl Counts {
    /// How many were not told of before this one, where this one is.
    fn count(&self, who: &str, now: Instant) -> Option<u64> {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |since: Instant| now.saturating_duration_since(since) < REFUSALS_TIME;
        if let Some((since, count)) = refused.get_mut(who) {
            if is_fresh(*since) {
                *count += 1;
                return (*count <= REFUSALS_TOLD).then_some(0);
            }
            let untold = count.saturating_sub(REFUSALS_TOLD);
            (*since, *count) = (now, 1);
            return Some(untold);
        }
        if refused.len() >= REFUSED_MAX {
            // Whose refusals were not all told of waits for the next one.
            refused.retain(|_, (since, count)| is_fresh(*since) || *count > REFUSALS_TOLD);
        }
        if refused.len() < REFUSED_MAX {
            refused.insert(who.to_owned(), (now, 1));
        }
        Some(0)
    }
}

/// What a caller has sent, for a line: cut, and without what looks like a secret.
fn shown(text: &str) -> String {
    without_secrets(text).chars().take(SHOWN).collect()
}

/// A call that a line tells of when it has ended: those that only operators make are audited, and all are told of where
/// the log shows so much. `trace` says by which id other nodes and traces name it.
pub(crate) fn call(
    access: &Access,
    function: &str,
    arguments: &Bytes,
    trace: impl FnOnce() -> TraceId,
) -> Option<Told> {
    let is_audited = is_audited(function);
    (is_audited || tracing::enabled!(tracing::Level::DEBUG)).then(|| Told {
        who: who(access).to_owned(),
        function: function.to_owned(),
        audited: is_audited.then(|| without_hash(arguments)),
        trace: trace(),
        since: clock(),
    })
}

/// A call of which a line will tell.
pub(crate) struct Told {
    who: String,
    function: String,
    /// The arguments of a call that is audited.
    audited: Option<String>,
    trace: TraceId,
    since: Instant,
}

impl Told {
    /// What it came to: a command number, or the code of a problem.
    pub(crate) fn ends<T>(&self, outcome: &Result<T, Problem>, command: impl Fn(&T) -> Option<u64>) {
        let Self { who, function, audited, trace, since } = self;
        let (outcome, command) = match outcome {
            Ok(done) => ("done", command(done)),
            Err(problem) => (problem.code(), None),
        };
        if let Some(arguments) = audited {
            tracing::info!(target: "audit", who, function, arguments, outcome, command, %trace, "call");
        }
        let took_us = clock().duration_since(*since).as_micros();
        tracing::debug!(who, function, outcome, command, took_us, %trace, "a call has ended");
    }
}

/// Arguments for a line, without the hash of a token.
fn without_hash(arguments: &Bytes) -> String {
    let text = match serde_json::from_slice::<Map<String, Value>>(arguments) {
        Ok(mut fields) => {
            fields.remove("hash");
            Value::Object(fields).to_string()
        }
        // The function does not take them either.
        Err(_) => "not an object".to_owned(),
    };
    shown(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RELIABILITY 6.15: catches an audit log that one weak token fills, or in which nobody sees that it was refused more often,
    /// and one token's refusals that hide another's.
    #[test]
    fn who_is_refused_again_and_again_does_not_fill_the_log() {
        let (refusals, begun) = (Counts::default(), clock());
        let count = |who: &str, millis| refusals.count(who, begun + Duration::from_millis(millis));
        for n in 0..REFUSALS_TOLD {
            assert_eq!(count("weak", n), Some(0), "{n}");
        }
        for millis in 20..120 {
            assert_eq!(count("weak", millis), None);
        }
        assert_eq!(count("other", 120), Some(0));
        assert_eq!(count("weak", 9_999), None);
        assert_eq!(count("weak", 10_000), Some(101), "and says how often it was not told");
        assert_eq!((count("weak", 10_001), count("weak", 30_000)), (Some(0), Some(0)));
        for n in 0..REFUSED_MAX {
            assert_eq!(count(&n.to_string(), 30_001), Some(0));
        }
        assert_eq!(refusals.0.lock().expect("no panic").len(), REFUSED_MAX, "bounded");
        assert_eq!(count("late", 50_000), Some(0));
        assert_eq!(refusals.0.lock().expect("no panic").len(), 1, "what is over is forgotten");
    }
}
