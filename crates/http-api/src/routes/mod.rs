//! The routes. One table ([`ROUTES`]) says which there are; the `Allow` header of a 405 and the
//! tests of the OpenAPI description come from it.

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::guard;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::ServiceConfig;
use actix_web::{App, Error, HttpRequest, HttpResponse, Resource, Route, middleware, web};

use crate::api::Api;
use crate::core::access::Need;
use crate::gate::{Needs, gate};
use crate::observe::{self, Requests};
use crate::problem::Problem;
use crate::request::may_have_run_before;

pub(crate) mod acceptors;
pub(crate) mod calls;
pub(crate) mod cluster;
pub(crate) mod commands;
pub(crate) mod leader;
pub(crate) mod openapi;
pub(crate) mod pages;
pub(crate) mod probes;
pub(crate) mod state;
pub(crate) mod tokens;

#[cfg(test)]
mod tests;

/// All patterns, with the methods of each.
pub(crate) const ROUTES: [(&str, &str); 23] = [
    ("/v1/functions", "GET, HEAD"),
    ("/v1/functions/{name}", "POST"),
    ("/v1/calls", "POST"),
    ("/v1/calls/{idempotency_key:.*}", "GET, HEAD"),
    ("/v1/state", "GET, HEAD"),
    ("/v1/state/{key:.*}", "GET, HEAD, PUT, DELETE"),
    ("/v1/commands", "GET, HEAD"),
    ("/v1/cluster", "GET, HEAD"),
    ("/v1/cluster/acceptors", "POST"),
    ("/v1/cluster/acceptors/{id}", "DELETE"),
    ("/v1/cluster/majority", "POST"),
    ("/v1/cluster/leader", "POST"),
    ("/v1/digest", "GET, HEAD"),
    ("/v1/backup", "GET"),
    ("/v1/tokens", "GET, HEAD, POST"),
    ("/v1/tokens/{id}", "DELETE"),
    ("/livez", "GET, HEAD"),
    ("/readyz", "GET, HEAD"),
    ("/healthz", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
    ("/openapi.json", "GET, HEAD"),
    ("/docs", "GET, HEAD"),
    ("/", "GET, HEAD"),
];

/// The application with some routes: one for each thread of a server.
pub(crate) fn app(
    api: web::Data<Api>,
    routes: impl FnOnce(&mut ServiceConfig),
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let app = App::new().app_data(api).app_data(web::Data::new(Requests::new()));
    app.default_service(web::to(no_route)).configure(routes).wrap(middleware::from_fn(observe::observe))
}

/// The routes of callers; with metrics where these have no listener of their own.
pub(crate) fn of_callers(config: &mut ServiceConfig, has_metrics: bool) {
    config
        .service(resource("/v1/functions", all(Need::Token)).route(get().to(calls::functions)))
        .service(resource("/v1/functions/{name}", all(Need::Token)).route(web::post().to(calls::execute)))
        .service(resource("/v1/calls", all(Need::Token)).route(web::post().to(calls::batch)))
        .service(resource("/v1/calls/{idempotency_key:.*}", all(Need::Outcome)).route(get().to(calls::stored)))
        .service(resource("/v1/state", all(Need::Read)).route(get().to(state::list)))
        .service(
            resource("/v1/state/{key:.*}", Needs { reading: Need::Read, changing: Need::Token })
                .route(get().to(state::get))
                .route(web::put().to(state::put))
                .route(web::delete().to(state::delete)),
        )
        .service(resource("/v1/commands", all(Need::ReadAll)).route(get().to(commands::list)))
        .service(resource("/v1/cluster", all(Need::Look)).route(get().to(cluster::view)))
        .service(resource("/v1/cluster/acceptors", all(Need::Operate)).route(web::post().to(acceptors::set)))
        .service(resource("/v1/cluster/acceptors/{id}", all(Need::Operate)).route(web::delete().to(acceptors::remove)))
        .service(resource("/v1/cluster/majority", all(Need::Operate)).route(web::post().to(acceptors::set_majority)))
        .service(resource("/v1/cluster/leader", all(Need::Operate)).route(web::post().to(leader::hand_over)))
        .service(resource("/v1/digest", all(Need::Read)).route(get().to(cluster::digest)))
        .service(resource("/v1/backup", all(Need::Operate)).route(web::get().to(cluster::backup)))
        .service(
            resource("/v1/tokens", all(Need::Operate))
                .route(get().to(tokens::list))
                .route(web::post().to(tokens::create)),
        )
        .service(resource("/v1/tokens/{id}", all(Need::Operate)).route(web::delete().to(tokens::revoke)))
        .service(resource("/openapi.json", all(Need::Nothing)).route(get().to(pages::description)))
        .service(resource("/docs", all(Need::Nothing)).route(get().to(pages::docs)))
        .service(resource("/", all(Need::Read)).route(get().to(pages::home)))
        .configure(health);
    if has_metrics {
        metrics(config);
    }
}

/// What a node answers that is no gateway: how it is; with metrics where these have no listener of their own.
pub(crate) fn of_no_gateway(config: &mut ServiceConfig, has_metrics: bool) {
    health(config);
    if has_metrics {
        metrics(config);
    }
    config.default_service(web::to(move |request| no_gateway(request, has_metrics)));
}

/// The routes of a listener for those who watch.
pub(crate) fn of_watchers(config: &mut ServiceConfig) {
    health(config);
    metrics(config);
}

fn health(config: &mut ServiceConfig) {
    config
        .service(resource("/livez", all(Need::Nothing)).route(get().to(probes::livez)))
        .service(resource("/readyz", all(Need::Nothing)).route(get().to(probes::readyz)))
        .service(resource("/healthz", all(Need::Nothing)).route(get().to(probes::healthz)));
}

fn metrics(config: &mut ServiceConfig) {
    config.service(resource("/metrics", all(Need::Look)).route(get().to(probes::metrics)));
}

/// A route that takes nobody past the gate who may not do what it needs.
fn resource(
    pattern: &str,
    needs: Needs,
) -> Resource<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<EitherBody<BoxBody>>,
        Error = Error,
        InitError = (),
    >,
> {
    let resource = web::resource(pattern.to_owned()).default_service(web::to(no_method));
    resource.wrap(middleware::from_fn(move |request, next| gate(needs, request, next)))
}

/// Of a route whose requests all need the same.
fn all(need: Need) -> Needs {
    Needs { reading: need, changing: need }
}

/// A HEAD is answered like a GET; the server leaves the body out.
fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

pub(crate) async fn no_route() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found(
        "unknown_route",
        "there is no such route; GET /openapi.json describes all, GET /docs shows them",
    ))
}

/// Another node may have had the call before. Gateways without data take this status for a node that is not to be asked.
async fn no_gateway(request: HttpRequest, has_metrics: bool) -> Result<HttpResponse, Problem> {
    let answered = if has_metrics { "/livez, /readyz, /healthz and /metrics" } else { "/livez, /readyz and /healthz" };
    let detail = format!(
        "this node is no gateway (node.roles): here it answers {answered}, and nothing else; ask one that is, GET /v1/cluster \
         there says which nodes are"
    );
    let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, "not_a_gateway", detail);
    Err(if may_have_run_before(&request) { problem.unknown() } else { problem })
}

async fn no_method(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let pattern = request.match_pattern().unwrap_or_default();
    let allowed = ROUTES.iter().find(|(known, _)| *known == pattern).map_or("", |(_, methods)| methods);
    let detail = format!("this route takes {allowed}, not {}", request.method());
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    Err(problem.header(header::ALLOW, HeaderValue::from_static(allowed)))
}
