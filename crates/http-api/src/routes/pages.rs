//! Pages for people. They need nothing but this node: no other host, no build step.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use super::openapi;
use crate::api::Api;
use crate::problem::Problem;
use crate::request::Query;

const HOME: &str = include_str!("../pages/home.html");
const DOCS: &str = include_str!("../pages/docs.html");

/// The pages run their own script and talk to this node only.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// This description.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(crate) async fn description(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    Ok(HttpResponse::Ok().content_type("application/json").body(openapi::document()))
}

/// A page to read this description and try it.
#[utoipa::path(get, path = "/docs", operation_id = "docs", tag = "operation",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
pub(crate) async fn docs(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    Ok(html(DOCS.to_owned()))
}

/// This node, the leader, and where to go.
#[utoipa::path(get, path = "/", operation_id = "home", tag = "operation",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
pub(crate) async fn home(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    let (id, name) = api.backend.node();
    let cluster = api.backend.cluster();
    let leader = cluster.leader.map_or_else(|| "none known".to_owned(), |leader| leader.name);
    let page = HOME
        .replace("{{cluster}}", &escape(&cluster.name))
        .replace("{{node}}", &format!("{} (id {id})", escape(name)))
        .replace("{{leader}}", &escape(&leader))
        .replace("{{applied}}", &api.backend.applied().to_string());
    Ok(html(page))
}

fn html(page: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .body(page)
}

/// A text that cannot be markup, nor one of our own place holders.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut safe, character| {
        match character {
            '&' | '<' | '>' | '"' | '\'' | '{' | '}' => safe.push_str(&format!("&#{};", u32::from(character))),
            other => safe.push(other),
        }
        safe
    })
}
