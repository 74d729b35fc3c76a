//! Who leads: handing the lead over, by the function `cluster.hand_over`.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use protocol::NodeId;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::acceptors;
use super::calls::{Accepted, Executed};
use crate::api::Api;
use crate::call::Reply;
use crate::problem::{Problem, ProblemDocument};
use crate::request::Wishes;

/// How long this node waits to hear that the other one leads: some times as long as a leader lets it take.
const LED_WAIT: Duration = Duration::from_secs(5);

/// The node that is to lead.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the function reads the arguments")]
pub(crate) struct Successor {
    /// The node, by id or name.
    node: Value,
}

/// Hands the lead over to a node. Replies when it leads. No call fails by it: those that come meanwhile wait.
#[utoipa::path(post, path = "/v1/cluster/leader", operation_id = "hand_over", tag = "cluster",
    params(("dry_run" = Option<bool>, Query, description = "Only say whether it could lead"), super::openapi::CallHeaders),
    request_body(content = Successor, content_type = "application/json"),
    responses(
        (status = 200, description = "It leads, or it did", body = Executed),
        (status = 202, description = "Taken in (`Prefer: respond-async`)", body = Accepted),
        (status = 404, description = "No such node", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "It could not lead: it has not the role, is not heard, has not caught up, does not hear enough of the others, or has no room on its disk", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, description = "It has not taken the lead over in time, and may not; calls go on", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn hand_over(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, Problem> {
    let dry_run = acceptors::dry_run(&request)?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let wait = wishes.wait.unwrap_or(LED_WAIT);
    let arguments = acceptors::arguments(&request, payload, &api, "the body is an object with node").await?;
    let mut reply = acceptors::change(&api, &request, "cluster.hand_over", arguments, dry_run, wishes).await?;
    if let Reply::Done(done, _) = &mut reply
        && !done.replayed
        && !dry_run
    {
        let mut result: Value = serde_json::from_slice(&done.result).unwrap_or_default();
        let node = result["node"].as_u64().unwrap_or_default();
        if !api.backend.wait_led_by(NodeId(node), wait).await {
            return Err(not_taken(&result["name"]));
        }
        result["leads"] = Value::Bool(true);
        done.result = result.to_string().into();
    }
    Ok(reply.respond())
}

fn not_taken(name: &Value) -> Problem {
    let name = name.as_str().unwrap_or_default();
    let detail = format!(
        "node {name} has not taken the lead over in time; GET /v1/cluster says who leads, and the log and /readyz of {name} \
         why it does not"
    );
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_handed_over", detail).unknown().retry_later()
}
