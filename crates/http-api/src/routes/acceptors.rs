//! Who votes: changes of the membership, by the functions `cluster.*`.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::calls::{Accepted, Executed};
use crate::api::Api;
use crate::call;
use crate::json;
use crate::problem::{Problem, ProblemDocument};
use crate::request::{self, Query, Wishes};

const SET: &str = "cluster.set_acceptor";

/// An acceptor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the function reads the arguments")]
pub(crate) struct Acceptor {
    /// The node, by id or name.
    node: Value,
    /// What its vote weighs; if absent 1, or that of the node that it replaces; 0: it only learns.
    weight: Option<u64>,
    /// The acceptor, by id or name, that it takes the place of, in the same change.
    replaces: Option<Value>,
    /// With `replaces`: that one is removed, instead of only learning.
    for_good: Option<bool>,
}

/// Makes a node an acceptor, or changes what its vote weighs. Replies when that is issued.
#[utoipa::path(post, path = "/v1/cluster/acceptors", operation_id = "set_acceptor", tag = "cluster",
    params(("dry_run" = Option<bool>, Query, description = "Only say what would be done"), super::openapi::CallHeaders),
    request_body(content = Acceptor, content_type = "application/json"),
    responses(
        (status = 200, description = "It is so; `command` is null if it was", body = Executed),
        (status = 202, description = "Taken in (`Prefer: respond-async`)", body = Accepted),
        (status = 404, description = "No such node", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "Not now: the node has not caught up, the majority would be lost, another change is under way; or never", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn set(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, Problem> {
    let what = "the body is an object with node, and perhaps weight, replaces and for_good";
    changed(&request, payload, &api, SET, what).await
}

/// Makes an acceptor a learner. Replies when that is issued.
#[utoipa::path(delete, path = "/v1/cluster/acceptors/{id}", operation_id = "remove_acceptor", tag = "cluster",
    params(("id" = String, Path, description = "The node, by id or name"),
        ("dry_run" = Option<bool>, Query, description = "Only say what would be done"), super::openapi::CallHeaders),
    responses(
        (status = 200, description = "It is so; `command` is null if it was", body = Executed),
        (status = 202, description = "Taken in (`Prefer: respond-async`)", body = Accepted),
        (status = 404, description = "No such node", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "The majority would be lost, or another change is under way", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn remove(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let dry_run = dry_run(&request)?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let path = request::path_rest(&request)?;
    let id = path.rsplit('/').next().unwrap_or_default().to_owned();
    let node = id.parse::<u64>().map_or(Value::String(id), Value::from);
    let arguments = [("node", node), ("weight", Value::from(0))];
    let arguments = arguments.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    change(&api, &request, SET, arguments, dry_run, wishes).await.map(call::Reply::respond)
}

/// Which sets of acceptors are majority sets: one of the two.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the function reads the arguments")]
pub(crate) struct Majority {
    /// The sets, each a list of nodes by id or name; any two must share a node, and the nodes in them are the acceptors. An empty
    /// list: those that weigh more than half of all.
    majority_sets: Option<Vec<Vec<Value>>>,
    /// Acceptors, by id or name, of each zone: a majority set is a majority of the zones with a majority of the nodes of each.
    zones: Option<BTreeMap<String, Vec<Value>>>,
}

/// Says which sets of acceptors are majority sets. Replies when that is issued.
#[utoipa::path(post, path = "/v1/cluster/majority", operation_id = "set_majority", tag = "cluster",
    params(("dry_run" = Option<bool>, Query, description = "Only say what would be done"), super::openapi::CallHeaders),
    request_body(content = Majority, content_type = "application/json"),
    responses(
        (status = 200, description = "It is so; `command` is null if it was", body = Executed),
        (status = 202, description = "Taken in (`Prefer: respond-async`)", body = Accepted),
        (status = 404, description = "No such node", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "Two sets, which are named, have no node in common; or not now: a node has not caught up, the majority would be lost, another change is under way", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn set_majority(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, Problem> {
    let what = "the body is an object with majority_sets, or with zones";
    changed(&request, payload, &api, "cluster.set_rule", what).await
}

/// Calls a function that changes the membership with the arguments in the body: `what` that is.
async fn changed(
    request: &HttpRequest,
    payload: web::Payload,
    api: &Api,
    function: &str,
    what: &str,
) -> Result<HttpResponse, Problem> {
    let dry_run = dry_run(request)?;
    let wishes = Wishes::of(request, api.limits.wait_max)?;
    let arguments = arguments(request, payload, api, what).await?;
    change(api, request, function, arguments, dry_run, wishes).await.map(call::Reply::respond)
}

/// The body of a request about the cluster: `what` it is.
pub(super) async fn arguments(
    request: &HttpRequest,
    payload: web::Payload,
    api: &Api,
    what: &str,
) -> Result<Map<String, Value>, Problem> {
    request::require_json(request)?;
    let body = request::body(request, payload, api, api.limits.body_bytes).await?;
    json::check(&body).map_err(|error| call::invalid_json(&error))?;
    serde_json::from_slice(&body).map_err(|_| Problem::bad_request("invalid_arguments", what))
}

pub(super) fn dry_run(request: &HttpRequest) -> Result<bool, Problem> {
    match Query::of(request, &["dry_run"])?.text("dry_run") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::bad_request("invalid_query", "dry_run is `true` or `false`")),
    }
}

/// Calls a function about the cluster.
pub(super) async fn change(
    api: &Api,
    request: &HttpRequest,
    function: &str,
    mut arguments: Map<String, Value>,
    dry_run: bool,
    wishes: Wishes,
) -> Result<call::Reply, Problem> {
    if dry_run {
        arguments.insert("dry_run".to_owned(), Value::Bool(true));
    }
    let arguments = Value::Object(arguments).to_string().into();
    let reply = call::run(api, request, function.to_owned(), arguments, wishes).await;
    // What the function refuses is about the cluster, not about the words of the request.
    let conflicts = |problem: Problem| match (problem.status_code(), problem.code()) {
        (StatusCode::UNPROCESSABLE_ENTITY, "unknown_node") => problem.with_status(StatusCode::NOT_FOUND),
        (StatusCode::UNPROCESSABLE_ENTITY, code) if code != "idempotency_key_reused" => {
            problem.with_status(StatusCode::CONFLICT)
        }
        _ => problem,
    };
    reply.map_err(conflicts)
}
