//! A call on its way to the leader and back, and what its outcome is in HTTP.

use std::time::Duration;

use actix::prelude::SendError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use protocol::token::is_for_operators;
use protocol::trace::SpanContext;
use protocol::{Call, CommandNumber, Outcome, RequestId};
use serde_json::json;
use tokio::sync::oneshot;

use crate::actor::Submit;
use crate::api::Api;
use crate::audit;
use crate::core::access::Access;
use crate::core::{Answer, Share, Unavailable};
use crate::fingerprint;
use crate::gate::{access_of, check_call, check_port};
use crate::names;
use crate::problem::Problem;
use crate::request::{Wishes, path_segment};

/// How much of a caller's `wait` is kept for the way back: a refusal that did not pass leaves
/// the leader only when its patience is over. Also the shortest wait, so that `wait=0` gets what
/// the leader says at once.
const WAY_BACK: Duration = Duration::from_millis(250);

/// A call that was executed, or had been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Its command; `None` when nothing changed.
    pub(crate) command: Option<CommandNumber>,
    /// The number of the state after it.
    pub(crate) at: CommandNumber,
    /// What the function returned, JSON text.
    pub(crate) result: Bytes,
    /// The outcome is that of an earlier call with the same key.
    pub(crate) replayed: bool,
}

impl Done {
    /// `{"command": N, "result": …}`, the result as the function wrote it. `more` goes before.
    pub(crate) fn body(&self, more: &str) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.result.len() + more.len() + 48);
        body.extend_from_slice(b"{");
        body.extend_from_slice(more.as_bytes());
        body.extend_from_slice(b"\"command\":");
        match self.command {
            Some(command) => body.extend_from_slice(command.0.to_string().as_bytes()),
            None => body.extend_from_slice(b"null"),
        }
        body.extend_from_slice(b",\"result\":");
        body.extend_from_slice(if self.result.is_empty() { b"null" } else { &self.result });
        body.extend_from_slice(b"}");
        body
    }
}

/// Which call it is, from where, and how long its caller waits.
pub(crate) struct Asked {
    pub(crate) request: RequestId,
    /// Whether the caller gave its key: then another node may have had it. One who does not wait is given a key here.
    pub(crate) is_keyed: bool,
    pub(crate) caller: Option<SpanContext>,
    pub(crate) wait: Option<Duration>,
}

/// A call for the leader, if whoever asks may make it. The arguments are JSON text that was checked.
pub(crate) fn new_call(
    api: &Api,
    access: &Access,
    function: String,
    arguments: Bytes,
    asked: &Asked,
) -> Result<Call, Problem> {
    if is_for_operators(&function) {
        check_port(api, access, &function, asked.is_keyed)?;
    }
    check_call(api, access, &function, &arguments)?;
    let request = asked.request.clone();
    let fingerprint = match request {
        RequestId::Caller(_) => fingerprint::of(&function, &arguments).map_err(|error| invalid_json(&error))?,
        RequestId::Gateway(_) => fingerprint::of_bytes(&function, &arguments),
    };
    let patience = patience_of(asked.wait);
    Ok(Call { request, fingerprint, function, arguments, patience, copy: 0 })
}

/// A call that a node makes by itself, under a key of its own. `None`: the key is none.
#[must_use]
pub fn call_of_node(function: &str, arguments: &serde_json::Value, key: String, wait: Duration) -> Option<Call> {
    let (request, arguments) = (RequestId::caller(key).ok()?, Bytes::from(arguments.to_string()));
    let fingerprint = fingerprint::of(function, &arguments).ok()?;
    Some(Call { request, fingerprint, function: function.to_owned(), arguments, patience: patience(wait), copy: 0 })
}

fn patience_of(wait: Option<Duration>) -> Duration {
    wait.map(patience).unwrap_or_default()
}

/// How long the leader may wait for a refusal to pass, of all that the caller waits.
fn patience(wait: Duration) -> Duration {
    wait - WAY_BACK.min(wait / 4)
}

/// 400: the body is not JSON.
pub(crate) fn invalid_json(error: &serde_json::Error) -> Problem {
    Problem::bad_request("invalid_json", format!("the body is not JSON that can be read: {error}"))
}

/// How far a call got when its caller is answered.
pub(crate) enum Reply {
    /// Executed, with the wait that the caller chose.
    Done(Done, Option<Duration>),
    /// Taken in; where to ask.
    Accepted(HttpResponse),
}

impl Reply {
    /// The command that it became, as far as that is known.
    fn command(&self) -> Option<u64> {
        match self {
            Self::Done(done, _) => done.command.map(|command| command.0),
            Self::Accepted(_) => None,
        }
    }

    pub(crate) fn respond(self) -> HttpResponse {
        match self {
            Self::Done(done, wait) => respond(&done, wait),
            Self::Accepted(response) => response,
        }
    }
}

/// Executes a call as its caller wishes: waits for the outcome, or says where to ask for it.
pub(crate) async fn run(
    api: &Api,
    request: &HttpRequest,
    function: String,
    arguments: Bytes,
    wishes: Wishes,
) -> Result<Reply, Problem> {
    let access = access_of(request);
    let Wishes { key, wait, respond_async } = wishes;
    let (given, is_keyed) = (key.as_ref().and_then(instance), key.is_some());
    let named = || if respond_async { api.caller_key() } else { api.request_id() };
    let asked = Asked { request: key.unwrap_or_else(named), is_keyed, caller: api.traces.caller(request), wait };
    api.traces.label(request, &asked.request);
    let told = audit::call(&access, &function, &arguments, || api.traces.of(&asked.request));
    let reply = if respond_async {
        accept(api, &access, function, arguments, asked, given).await
    } else {
        execute(api, &access, function, arguments, asked).await.map(|done| Reply::Done(done, wait))
    };
    if let Some(told) = told {
        told.ends(&reply, Reply::command);
    }
    reply
}

/// Sends a call and waits for its outcome.
async fn execute(
    api: &Api,
    access: &Access,
    function: String,
    arguments: Bytes,
    asked: Asked,
) -> Result<Done, Problem> {
    let instance = instance(&asked.request);
    let call = new_call(api, access, function, arguments, &asked)?;
    outcome(submit(api, call, asked)?.await, instance)
}

/// Sends a call whose caller does not wait, and says where to ask. `given` is where to ask for a call that other nodes may
/// have been given.
async fn accept(
    api: &Api,
    access: &Access,
    function: String,
    arguments: Bytes,
    asked: Asked,
    given: Option<String>,
) -> Result<Reply, Problem> {
    let key = asked.request.to_string();
    let call = new_call(api, access, function, arguments, &asked)?;
    // Nobody would be there to hear it from the leader, and it is not stored.
    if let Some(misfit) = api.backend.misfit(&call.function, &call.arguments) {
        executed(misfit, true, false).map_err(|problem| turned_away(problem, given))?;
    }
    take_in(api, call, asked).await?;
    let location = location(&key);
    let response = HttpResponse::Accepted()
        .insert_header((header::LOCATION, location.as_str()))
        .insert_header((names::PREFERENCE_APPLIED, "respond-async"))
        .json(json!({"idempotency_key": key, "location": location}));
    Ok(Reply::Accepted(response))
}

/// Where to ask for the outcome of a call.
fn location(key: &str) -> String {
    format!("/v1/calls/{}", path_segment(key))
}

/// Turns a call away at the door, before any more is done for it.
pub(crate) fn come_in(api: &Api, function: &str, wishes: &Wishes) -> Result<(), Problem> {
    if Share::counts(function, patience_of(wishes.wait)) && !api.backend.door().lets_in(function) {
        return Err(turned_away(Problem::overloaded(), wishes.key.as_ref().and_then(instance)));
    }
    Ok(())
}

/// Sends a call; the answer comes later.
pub(crate) fn submit(api: &Api, call: Call, asked: Asked) -> Result<oneshot::Receiver<Answer>, Problem> {
    let instance = instance(&call.request);
    if api.backend.stopping() {
        return Err(turned_away(Problem::stopping(), instance));
    }
    let (reply, answer) = oneshot::channel();
    let (wait, applied) = (asked.wait.unwrap_or(api.limits.wait).max(WAY_BACK), api.backend.applied());
    let sent = api.backend.gateway().try_send(Submit { call, wait, applied, caller: asked.caller, reply });
    sent.map_err(|error| turned_away(refused(&error), instance))?;
    api.backend.door().count();
    Ok(answer)
}

/// Has the gateway take a call in.
async fn take_in(api: &Api, call: Call, asked: Asked) -> Result<(), Problem> {
    let instance = instance(&call.request);
    if api.backend.stopping() {
        return Err(turned_away(Problem::stopping(), instance));
    }
    let (reply, mut answer) = oneshot::channel();
    let (wait, applied) = (asked.wait.unwrap_or(api.limits.wait_max), api.backend.applied());
    api.backend.door().count();
    let taken = api.backend.gateway().send(Submit { call, wait, applied, caller: asked.caller, reply }).await;
    match taken {
        Ok(true) => Ok(()),
        // Answered at once: turned away, unless the whole call has already been executed.
        Ok(false) => match answer.try_recv() {
            Ok(answer) => outcome(Ok(answer), instance).map(|_| ()),
            Err(_) => Ok(()),
        },
        Err(_) => Err(turned_away(Problem::stopping(), instance)),
    }
}

/// This node does not take the call; one with a key may have been taken by another.
fn turned_away(problem: Problem, instance: Option<String>) -> Problem {
    if instance.is_some() { problem.unknown().instance(instance) } else { problem }
}

/// The gateway's mailbox did not take a message.
pub(crate) fn refused<T>(error: &SendError<T>) -> Problem {
    match error {
        SendError::Full(_) => {
            metrics::counter!("quorate_mailbox_refused_total", "role" => "gateway").increment(1);
            Problem::unavailable("busy", "this node has too much to do; ask again, or another node")
        }
        SendError::Closed(_) => Problem::stopping(),
    }
}

/// Where to ask for the outcome later, when the caller named the call.
pub(crate) fn instance(request: &RequestId) -> Option<String> {
    match request {
        RequestId::Caller(key) => Some(location(key)),
        RequestId::Gateway(_) => None,
    }
}

/// What an answer is in HTTP.
pub(crate) fn outcome(
    answer: Result<Answer, oneshot::error::RecvError>,
    instance: Option<String>,
) -> Result<Done, Problem> {
    match answer {
        Ok(Answer::Outcome { outcome, settled, replayed }) => {
            let executed = executed(outcome, settled, replayed);
            executed.map_err(|problem| if replayed { problem.replayed() } else { problem }.instance(instance))
        }
        Ok(Answer::Unknown) => {
            let detail = "no outcome within the wait; the call may have been executed, or may still be: send it again \
                          with the same Idempotency-Key";
            let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "no_outcome", detail);
            Err(problem.unknown().retry_later().instance(instance))
        }
        Ok(Answer::NotExecuted(why)) => Err(unavailable(why)),
        Ok(Answer::NotHere(why)) => Err(turned_away(unavailable(why), instance)),
        Ok(Answer::BarrierPassed(_)) => unreachable!("a call is not answered like a read"),
        Err(_) => Err(Problem::stopping().unknown().instance(instance)),
    }
}

/// Why a call or read came to nothing.
pub(crate) fn unavailable(why: Unavailable) -> Problem {
    match why {
        Unavailable::NoLeader => {
            Problem::unavailable("no_leader", "no leader is known; a majority of the acceptors may be down")
        }
        Unavailable::NoAnswer => {
            let detail = "the leader did not confirm the read in time; it may have lost its majority. Read with \
                          consistency=local to see what this node knows";
            Problem::unavailable("no_majority", detail)
        }
        Unavailable::TooMany => Problem::overloaded(),
        Unavailable::Stopping => Problem::stopping(),
    }
}

pub(crate) fn executed(outcome: Outcome, settled: bool, replayed: bool) -> Result<Done, Problem> {
    // A copy of the call that may still run makes a refusal less than final.
    let final_if_settled = |problem: Problem| if settled { problem } else { problem.unknown() };
    match outcome {
        Outcome::Issued { command, result } => Ok(Done { command: Some(command), at: command, result, replayed }),
        Outcome::Unchanged { at, result } => Ok(Done { command: None, at, result, replayed }),
        Outcome::Refused { at, code, message } if code == "precondition_failed" => {
            Err(final_if_settled(precondition_failed(message).at(at)))
        }
        Outcome::Refused { at, code, message } => {
            Err(final_if_settled(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, message).at(at)))
        }
        Outcome::InvalidArguments { message } => Err(Problem::bad_request("invalid_arguments", message)),
        Outcome::TooLarge { message } => Err(final_if_settled(Problem::too_large("too_large", message))),
        Outcome::UnknownFunction => Err(Problem::not_found(
            "unknown_function",
            "there is no function of that name; GET /v1/functions lists all",
        )),
        Outcome::RequestReused => Err(key_reused(settled)),
        Outcome::Failed { message } => Err(final_if_settled(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "function_failed",
            format!("the function failed and changed nothing: {message}"),
        ))),
        Outcome::Overloaded => Err(final_if_settled(Problem::overloaded())),
        Outcome::DiskFull => Err(final_if_settled(Problem::disk_full())),
        Outcome::NotLeader | Outcome::LeadershipLost => unreachable!("the gateway asks on instead of answering that"),
    }
}

/// 422: another call has the key, for good or until it has its outcome.
fn key_reused(for_good: bool) -> Problem {
    let of = |detail| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail);
    if for_good {
        of("this Idempotency-Key was used with another function or other arguments; take a new one")
    } else {
        of("a call of another function or with other arguments is under way under this Idempotency-Key; should this call have \
            been sent before, ask again when that one has its outcome, and otherwise take a new key")
        .unknown()
    }
}

/// 412.
pub(crate) fn precondition_failed(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
}

/// The reply to a call that was waited for.
fn respond(done: &Done, wait: Option<Duration>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    response.insert_header((names::COMMAND, HeaderValue::from(done.at.0)));
    if done.replayed {
        response.insert_header((names::IDEMPOTENT_REPLAYED, HeaderValue::from_static("true")));
    }
    if let Some(wait) = wait {
        response.insert_header((names::PREFERENCE_APPLIED, format!("wait={}", wait.as_secs())));
    }
    response.body(done.body(""))
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;

    use super::*;

    /// Catches a full mailbox that is taken for a stopping node, or the other way round.
    #[test]
    fn a_mailbox_that_takes_nothing_says_why() {
        for (error, code) in [(SendError::Full(()), "busy"), (SendError::Closed(()), "stopping")] {
            let problem = refused(&error);
            assert_eq!(problem.status_code(), 503);
            assert!(problem.to_string().starts_with(code), "{problem}");
        }
    }

    /// Catches a caller's wait that is all given to the leader, so that its refusal comes too late.
    #[test]
    fn some_of_the_wait_is_kept_for_the_way_back() {
        for (wait, expected) in [(0, 0), (400, 300), (1_000, 750), (5_000, 4_750), (60_000, 59_750)] {
            assert_eq!(patience(Duration::from_millis(wait)), Duration::from_millis(expected));
        }
    }

    /// S-22: catches a refusal that is called final while a copy of the call may still run.
    #[test]
    fn an_unsettled_refusal_is_unknown() {
        let outcome = |settled| {
            let outcome = Outcome::Refused { at: CommandNumber(1), code: "c".into(), message: "m".into() };
            let problem =
                super::outcome(Ok(Answer::Outcome { outcome, settled, replayed: false }), None).expect_err("a refusal");
            serde_json::to_value(problem.document()).expect("JSON")["outcome"].clone()
        };
        assert_eq!(outcome(true), "not_executed");
        assert_eq!(outcome(false), "unknown");
    }
}
