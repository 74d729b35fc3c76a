//! The OpenAPI description, generated from the routes.

use std::sync::OnceLock;

use bytes::Bytes;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, Modify, OpenApi};

use super::{acceptors, calls, cluster, commands, leader, pages, probes, state, tokens};
use crate::problem::{PROBLEM_JSON, ProblemDocument};

/// The headers of a call.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct CallHeaders {
    /// 1 to 128 visible ASCII characters: the same key and body get the stored reply.
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
    /// `wait=S`: how long the caller is willing to wait in all, whole seconds up to the node's
    /// `limits.wait_max` (60 by default); `respond-async`: do not wait.
    #[param(rename = "Prefer")]
    prefer: Option<String>,
}

/// The preconditions of a write.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct Preconditions {
    /// `*`, or versions of which the key must have one.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
    /// `*`: the key must not exist; or versions that it must not have.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// The parameters of a read.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct ReadParameters {
    /// `linearizable` (default): all that was acknowledged before; `local`: what this node knows.
    consistency: Option<String>,
    /// Wait until this node has applied that command.
    min_command: Option<u64>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Quorate", description = "A fault-tolerant two-tier state machine: call functions, read state."),
    tags(
        (name = "functions", description = "Call functions"),
        (name = "state", description = "The replicated state, key by key"),
        (name = "commands", description = "What was issued, in order"),
        (name = "cluster", description = "Who takes part"),
        (name = "tokens", description = "Who may do what, where callers present tokens"),
        (name = "operation", description = "Health, metrics, pages"),
    ),
    paths(
        calls::functions, calls::execute, calls::batch, calls::stored,
        state::get, state::list, state::put, state::delete,
        commands::list, cluster::view, cluster::digest, cluster::backup,
        acceptors::set, acceptors::remove, acceptors::set_majority, leader::hand_over,
        tokens::create, tokens::list, tokens::revoke,
        probes::livez, probes::readyz, probes::healthz, probes::metrics,
        pages::description, pages::docs, pages::home,
    ),
    components(schemas(ProblemDocument<'static>)),
    modifiers(&Problems, &Bearer),
)]
struct Description;

/// Every operation may also fail in the common ways: bad header, too large, stopping.
struct Problems;

impl Modify for Problems {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for item in openapi.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                operation.responses.responses.insert("default".to_owned(), RefOr::T(problem()));
            }
        }
    }
}

/// Where callers present tokens, they do so as RFC 6750 says.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi.components.get_or_insert_default().add_security_scheme("token", scheme);
        // Or none, where there is no authentication.
        openapi.security =
            Some(vec![SecurityRequirement::new("token", std::iter::empty::<String>()), SecurityRequirement::default()]);
    }
}

fn problem() -> Response {
    let schema = utoipa::openapi::Ref::from_schema_name("Problem");
    let content = utoipa::openapi::ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description("A problem (RFC 9457)").content(PROBLEM_JSON, content).build()
}

/// The description as JSON, made once.
pub(crate) fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::to_vec(&Description::openapi()).expect("a description is JSON").into()).clone()
}
