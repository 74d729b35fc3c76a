//! Calls of functions.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use protocol::trace::SpanContext;
use protocol::{CommandNumber, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::actor::IsInFlight;
use crate::api::Api;
use crate::audit::{self, Told};
use crate::backend::FunctionInfo;
use crate::call::{self, Asked, Done};
use crate::core::Answer;
use crate::core::access::Access;
use crate::gate::access_of;
use crate::json;
use crate::names;
use crate::problem::{self, Problem, ProblemDocument};
use crate::read;
use crate::request::{self, Query, Wishes};

/// The most calls of one request: what the leader executes in some milliseconds.
const BATCH_MAX: usize = 1_000;

/// What `GET /v1/functions` returns.
#[derive(Serialize, ToSchema)]
pub(crate) struct Functions {
    functions: Vec<FunctionInfo>,
}

/// A call that was executed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used: replies are written around the function's own text")]
pub(crate) struct Executed {
    /// The number of the command that the call became; null when nothing changed.
    #[schema(example = 17, required)]
    command: Option<u64>,
    /// What the function returned.
    result: serde_json::Value,
}

/// One call of many.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with function, arguments and perhaps idempotency_key")]
pub(crate) struct BatchedCall {
    /// The function's name.
    #[schema(example = "inventory.inbound")]
    function: String,
    /// Its arguments.
    #[schema(value_type = serde_json::Value)]
    pub(crate) arguments: Box<RawValue>,
    /// As the header `Idempotency-Key` of a single call.
    idempotency_key: Option<String>,
}

/// What became of one call of many: `command` and `result`, or a problem.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct BatchedOutcome {
    /// The status that the call would have had alone.
    #[schema(example = 200)]
    status: u16,
    /// As in the reply to a single call.
    command: Option<u64>,
    /// As in the reply to a single call.
    result: Option<serde_json::Value>,
    /// The outcome was stored by an earlier call with the same key.
    replayed: Option<bool>,
    /// The rest is there of a call that failed, as in the problem that it would have got alone.
    #[schema(rename = "type")]
    kind: Option<String>,
    /// The status in words.
    title: Option<String>,
    /// A sentence about this very call.
    detail: Option<String>,
    /// Stable, for programs.
    code: Option<String>,
    /// Whether the call was executed.
    outcome: Option<problem::Executed>,
    /// Where to ask for the call's outcome.
    instance: Option<String>,
}

/// A call of many that failed, as a reply has it.
#[derive(Serialize)]
struct BatchedProblem<'a> {
    #[serde(flatten)]
    problem: ProblemDocument<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

/// A call that has no outcome yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct Running {
    /// The call's key.
    idempotency_key: String,
    /// Always `running`.
    #[schema(example = "running")]
    status: &'static str,
}

/// Where to ask for the outcome of a call that is not waited for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct Accepted {
    /// The key of the call; generated when the caller gave none.
    idempotency_key: String,
    /// Where to ask.
    location: String,
}

/// The functions that can be called.
#[utoipa::path(get, path = "/v1/functions", operation_id = "list_functions", tag = "functions", responses(
    (status = 200, description = "All functions, by name", body = Functions),
))]
pub(crate) async fn functions(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    Ok(HttpResponse::Ok().json(Functions { functions: api.backend.functions() }))
}

/// Executes a function.
#[utoipa::path(post, path = "/v1/functions/{name}", operation_id = "execute_function", tag = "functions",
    params(("name" = String, Path, description = "The function's name"), super::openapi::CallHeaders),
    request_body(content = serde_json::Value, description = "The arguments", content_type = "application/json"),
    responses(
        (status = 200, description = "Executed; the changes, if any, are issued", body = Executed),
        (status = 202, description = "Taken in (`Prefer: respond-async`)", body = Accepted),
        (status = 400, description = "Not JSON, or not what the function takes", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "No such function", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "The function refuses, or the key was used with another body", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many calls", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "No leader, or stopping", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, description = "No outcome within the wait", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 507, description = "The disks are almost full", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn execute(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    let function = request::path_rest(&request)?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    request::require_json(&request)?;
    let arguments = request::body(&request, payload, &api, api.limits.body_bytes).await?;
    call::come_in(&api, &function, &wishes)?;
    json::check(&arguments).map_err(|error| call::invalid_json(&error))?;
    Ok(call::run(&api, &request, function, arguments, wishes).await?.respond())
}

/// Executes many calls; each stands alone.
#[utoipa::path(post, path = "/v1/calls", operation_id = "execute_calls", tag = "functions",
    params(("Prefer" = Option<String>, Header, description = "`wait=S`: how long to wait for each outcome")),
    request_body(content = Vec<BatchedCall>, content_type = "application/json"),
    responses(
        (status = 200, description = "What became of each, in order; those that failed are problems", body = Vec<BatchedOutcome>),
        (status = 400, description = "Not an array of calls; none was executed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "Too many; none was executed", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn batch(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    let Wishes { key, wait, .. } = Wishes::of(&request, api.limits.wait_max)?;
    if key.is_some() {
        let detail = "in a request of many calls each has an idempotency_key of its own, in the body";
        return Err(Problem::bad_request("invalid_idempotency_key", detail));
    }
    request::require_json(&request)?;
    let body = request::body(&request, payload, &api, api.limits.body_bytes).await?;
    let calls = calls_of(&body)?;
    // All are under way before the first is waited for.
    let (access, caller) = (access_of(&request), api.traces.caller(&request));
    let answers: Vec<_> = calls.into_iter().map(|call| start(&api, &access, call, caller, wait)).collect();
    let mut body = Vec::with_capacity(answers.len() * 64);
    let mut last = CommandNumber::NULL;
    body.push(b'[');
    for (told, answer) in answers {
        let outcome = match answer {
            Ok((answer, instance)) => call::outcome(answer.await, instance),
            Err(problem) => Err(problem),
        };
        if let Some(told) = told {
            told.ends(&outcome, |done| done.command.map(|command| command.0));
        }
        if body.len() > 1 {
            body.push(b',');
        }
        match outcome {
            Ok(done) => {
                last = last.max(done.at);
                body.extend_from_slice(&batched(&done));
            }
            Err(problem) => {
                let problem = BatchedProblem { problem: problem.document(), replayed: problem.is_replayed() };
                serde_json::to_writer(&mut body, &problem).expect("texts and numbers are JSON");
            }
        }
    }
    body.push(b']');
    let mut response = HttpResponse::Ok();
    if last > CommandNumber::NULL {
        response.insert_header((names::COMMAND, last.0));
    }
    Ok(response.content_type("application/json").body(body))
}

/// The calls in the body of a batch.
pub(crate) fn calls_of(body: &[u8]) -> Result<Vec<BatchedCall>, Problem> {
    json::check(body).map_err(|error| call::invalid_json(&error))?;
    let calls: Vec<BatchedCall> = serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request("invalid_arguments", format!("the body is not an array of calls: {error}"))
    })?;
    if calls.len() > BATCH_MAX {
        let detail = format!("one request takes at most {BATCH_MAX} calls, not {}", calls.len());
        return Err(Problem::too_large("too_many_calls", detail));
    }
    Ok(calls)
}

type Started = (oneshot::Receiver<Answer>, Option<String>);

/// Sends one call of many. `caller` is the span from which all come.
fn start(
    api: &Api,
    access: &Access,
    call: BatchedCall,
    caller: Option<SpanContext>,
    wait: Option<Duration>,
) -> (Option<Told>, Result<Started, Problem>) {
    let is_keyed = call.idempotency_key.is_some();
    let request = match call.idempotency_key.map(RequestId::caller).transpose() {
        Ok(key) => key.unwrap_or_else(|| api.request_id()),
        Err(detail) => return (None, Err(Problem::bad_request("invalid_idempotency_key", detail))),
    };
    let arguments = Bytes::copy_from_slice(call.arguments.get().as_bytes());
    let told = audit::call(access, &call.function, &arguments, || api.traces.of(&request));
    let asked = Asked { request, is_keyed, caller, wait };
    let begin = || {
        let call = call::new_call(api, access, call.function, arguments, &asked)?;
        let instance = call::instance(&call.request);
        Ok((call::submit(api, call, asked)?, instance))
    };
    (told, begin())
}

fn batched(done: &Done) -> Vec<u8> {
    done.body(if done.replayed { "\"status\":200,\"replayed\":true," } else { "\"status\":200," })
}

/// The stored outcome of a call.
#[utoipa::path(get, path = "/v1/calls/{idempotency_key}", operation_id = "get_call", tag = "functions",
    params(("idempotency_key" = String, Path, description = "The call's key"), super::openapi::ReadParameters),
    responses(
        (status = 200, description = "The outcome", body = Executed),
        (status = 202, description = "Still running, at the node that answers", body = Running),
        (status = 412, description = "The outcome: a precondition did not hold", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "The outcome: the function refused", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "Never seen, under way at another node, or forgotten", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn stored(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let query = Query::of(&request, &read::PARAMETERS)?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let id = RequestId::caller(request::path_rest(&request)?)
        .map_err(|detail| Problem::bad_request("invalid_idempotency_key", detail))?;
    // Asked before the state is read: a call that ends in between is then found there.
    let running = api.backend.gateway().send(IsInFlight(id.clone())).await.map_err(|_| Problem::stopping())?;
    let ready = read::ready(&api, &query, wishes.wait).await?;
    let snapshot = api.backend.snapshot()?;
    if let Some(stored) = snapshot.view.outcome(&id)? {
        let outcome = stored.verdict.outcome(stored.command);
        let done = match call::executed(outcome, true, true) {
            Ok(done) => done,
            // What the call itself was told, but for where to ask.
            Err(refusal) => return Err(ready.label_problem(snapshot.at, refusal.replayed())),
        };
        let mut response = HttpResponse::Ok();
        ready.label(snapshot.at, &mut response);
        response.insert_header((names::IDEMPOTENT_REPLAYED, "true"));
        return Ok(response.content_type("application/json").body(done.body("")));
    }
    if running {
        let mut response = HttpResponse::Accepted();
        ready.label(snapshot.at, &mut response);
        response.insert_header((header::RETRY_AFTER, "1"));
        return Ok(response.json(Running { idempotency_key: id.to_string(), status: "running" }));
    }
    let detail = "no outcome with this key is known: the call was never sent, is under way at another node, or is \
                  forgotten";
    Err(ready.label_problem(snapshot.at, Problem::not_found("unknown_call", detail).unknown()))
}
