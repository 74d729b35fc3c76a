//! Who takes part, and whether the states agree.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use protocol::CommandNumber;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::backend::{ClusterView, DigestError, NoBackup};
use crate::names;
use crate::problem::{Problem, ProblemDocument};
use crate::read;
use crate::request::{Query, Wishes};

/// The digest of a node's state.
#[derive(Serialize, ToSchema)]
pub(crate) struct Digest {
    /// The number of the last command in that state.
    command: u64,
    /// Hexadecimal; equal on all nodes at equal numbers.
    digest: String,
    /// The node whose state it is.
    node: String,
}

/// Nodes, leader, membership and majority rule, as this node sees them.
#[utoipa::path(get, path = "/v1/cluster", operation_id = "get_cluster", tag = "cluster",
    responses((status = 200, description = "The cluster", body = ClusterView)))]
pub(crate) async fn view(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    Ok(HttpResponse::Ok().insert_header((names::COMMAND, api.backend.applied().0)).json(api.backend.cluster()))
}

/// The digest of this node's state.
#[utoipa::path(get, path = "/v1/digest", operation_id = "get_digest", tag = "cluster",
    params(("at" = Option<u64>, Query, description = "The command number; what is applied now if absent"),
        ("Prefer" = Option<String>, Header, description = "`wait=S`: how long to wait until that number is applied")),
    responses(
        (status = 200, description = "The digest", body = Digest),
        (status = 410, description = "The state at that number is no longer kept", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, description = "That number was not reached within the wait", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn digest(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let query = Query::of(&request, &["at"])?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let at = query.number("at")?.map(CommandNumber);
    let digest = api.backend.digest(at, wishes.wait.unwrap_or(api.limits.wait)).await;
    let (command, digest) = digest.map_err(|error| {
        let detail = error.to_string();
        match error {
            DigestError::Gone { .. } => Problem::new(StatusCode::GONE, "state_gone", detail),
            DigestError::Timeout => Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_applied_yet", detail).retry_later(),
            DigestError::Busy => Problem::unavailable("busy", detail),
        }
    })?;
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let (_, node) = api.backend.node();
    Ok(HttpResponse::Ok().insert_header((names::COMMAND, command.0)).json(Digest {
        command: command.0,
        digest,
        node: node.to_owned(),
    }))
}

/// The media type of a backup.
const BACKUP: &str = "application/vnd.quorate.backup";

/// The whole state at one command number, as a file that `quorate restore` takes: all that was acknowledged before it was
/// asked for is in it, unless `consistency` is `local`.
#[utoipa::path(get, path = "/v1/backup", operation_id = "get_backup", tag = "cluster",
    params(super::openapi::ReadParameters,
        ("Prefer" = Option<String>, Header, description = "`wait=S`: how long to wait for a leader's answer and until this node has caught up")),
    responses(
        (status = 200, description = "The file, made while it is read; one that does not arrive whole is refused by `quorate restore`",
            body = Vec<u8>, content_type = "application/vnd.quorate.backup"),
        (status = 503, description = "No leader, or no majority, is there to say what was acknowledged; or this node is giving a backup to somebody else", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, description = "This node has not caught up within the wait", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 507, description = "The disk of this node is out of space", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn backup(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let query = Query::of(&request, &read::PARAMETERS)?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    if !api.backend.has_room_for_a_backup() {
        return Err(Problem::no_room(NoBackup::DiskFull.to_string()));
    }
    let ready = read::ready(&api, &query, wishes.wait).await?;
    let backup = api.backend.backup(ready.consistency()).await.map_err(|error| {
        let detail = error.to_string();
        match error {
            NoBackup::Busy => Problem::unavailable("busy", detail),
            NoBackup::DiskFull => Problem::no_room(detail),
            NoBackup::Failed(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "state_unreadable", detail),
        }
    })?;
    let mut response = HttpResponse::Ok();
    response.content_type(BACKUP);
    ready.label(backup.at, &mut response);
    Ok(response.streaming(backup.bytes))
}
