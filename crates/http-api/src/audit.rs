//! The audit log: what operators do, and what somebody tried who is none. Lines of the target `audit`, at any level of the
//! log but `off`. Names of tokens stand in it, never what their owners present, nor where they
//! present it in the wrong place.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::core::access::{Access, is_audited, without_secrets};
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

/// A call that only operators make, begun; what it came to follows under the same text of arguments.
pub(crate) fn call(access: &Access, function: &str, arguments: &Bytes) -> Option<Audited> {
    is_audited(function).then(|| Audited {
        who: who(access).to_owned(),
        function: function.to_owned(),
        arguments: without_hash(arguments),
    })
}

/// A call that is audited.
pub(crate) struct Audited {
    who: String,
    function: String,
    arguments: String,
}

impl Audited {
    /// What it came to: a command number, or the code of a problem.
    pub(crate) fn ends<T>(&self, outcome: &Result<T, Problem>, command: impl Fn(&T) -> Option<u64>) {
        let Self { who, function, arguments } = self;
        let (outcome, command) = match outcome {
            Ok(done) => ("done", command(done)),
            Err(problem) => (problem.code(), None),
        };
        tracing::info!(target: "audit", who, function, arguments, outcome, command, "call");
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
