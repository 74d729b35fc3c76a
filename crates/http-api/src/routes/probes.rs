//! For those who watch the node: health, as Kubernetes asks for it, and metrics.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::api::Api;
use crate::backend::Check;
use crate::problem::Problem;
use crate::request::Query;

/// Whether the process is alive; when not, restart it.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "operation",
    params(("verbose" = Option<String>, Query, description = "Show each check")),
    responses((status = 200, description = "It is", body = String, content_type = "text/plain"),
        (status = 503, description = "It is not", body = String, content_type = "text/plain")))]
pub(crate) async fn livez(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    report(&request, "livez", &api.backend.health().live)
}

/// Whether this node can serve calls now; when not, send them to another. Of a node without the role gateway: whether it takes part;
/// it serves no calls, so balancers must be given gateways only.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "operation",
    params(("verbose" = Option<String>, Query, description = "Show each check")),
    responses((status = 200, description = "It can", body = String, content_type = "text/plain"),
        (status = 503, description = "It cannot", body = String, content_type = "text/plain")))]
pub(crate) async fn readyz(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    report(&request, "readyz", &all(&api))
}

/// All checks at once.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "operation",
    params(("verbose" = Option<String>, Query, description = "Show each check")),
    responses((status = 200, description = "All hold", body = String, content_type = "text/plain"),
        (status = 503, description = "Not all hold", body = String, content_type = "text/plain")))]
pub(crate) async fn healthz(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    report(&request, "healthz", &all(&api))
}

fn all(api: &Api) -> Vec<Check> {
    let health = api.backend.health();
    let stopping = api.backend.stopping() || api.backend.draining();
    let detail = if stopping { "this node is stopping" } else { "this node is not stopping" };
    let running = Check { name: "running", ok: !stopping, detail: detail.to_owned() };
    health.live.into_iter().chain(health.ready).chain([running]).collect()
}

/// `ok`, or a line for each check: always when one fails.
pub(crate) fn report(request: &HttpRequest, name: &str, checks: &[Check]) -> Result<HttpResponse, Problem> {
    let verbose = Query::of(request, &["verbose"])?.text("verbose").is_some();
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = if ok && !verbose {
        "ok\n".to_owned()
    } else {
        let mut text: String = checks.iter().map(line).collect();
        text.push_str(&format!("{name} check {}\n", if ok { "passed" } else { "failed" }));
        text
    };
    Ok(HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text))
}

fn line(check: &Check) -> String {
    let Check { name, ok, detail } = check;
    if *ok { format!("[+]{name} ok: {detail}\n") } else { format!("[-]{name} failed: {detail}\n") }
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "operation",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    Ok(prometheus(&api.prometheus))
}

pub(crate) fn prometheus(handle: &PrometheusHandle) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(handle.render())
}
