//! The audit log: what operators do, and what somebody tried who is none. Lines of the target `audit`, at any level of the
//! log but `off`. Names of tokens stand in it, never what their owners present, nor where they
//! present it in the wrong place.

use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use bytes::Bytes;
use protocol::TraceId;
use serde_json::{Map, Value};

use crate::core::access::{Access, is_audited, without_secrets};
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

/// Somebody with a token was refused for what it allows.
pub(crate) fn denied(access: &Access, what: &str) {
    tracing::warn!(target: "audit", who = who(access), what = shown(what), "denied");
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
