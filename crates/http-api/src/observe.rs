//! What is done around every request: bounds on its head, the headers that every reply has,
//! and counting.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError as _, web};
use metrics::{Counter, Histogram};

use crate::api::Api;
use crate::names;
use crate::problem::Problem;
use crate::reply::{Body, Held};
use crate::routes::ROUTES;

/// The longest path and query: two keys of 1 KiB, every byte percent-encoded, have 6 KiB.
const URI_BYTES_MAX: usize = 8 << 10;
/// The most bytes of headers: what proxies and tracing add is a few KiB.
const HEADER_BYTES_MAX: usize = 32 << 10;

/// What counts the requests of one server thread.
pub(crate) struct Requests {
    counters: RefCell<BTreeMap<(&'static str, u16), Counter>>,
    latencies: BTreeMap<&'static str, Histogram>,
}

impl Requests {
    pub(crate) fn new() -> Self {
        let latency = |route| metrics::histogram!("quorate_http_request_duration_seconds", "route" => route);
        let routes = ROUTES.iter().map(|(route, _)| *route).chain([UNKNOWN_ROUTE]);
        Self { counters: RefCell::default(), latencies: routes.map(|route| (route, latency(route))).collect() }
    }

    pub(crate) fn count(&self, pattern: Option<String>, status: StatusCode, took: Duration) {
        let known = pattern.and_then(|pattern| self.latencies.get_key_value(pattern.as_str()));
        let route = known.map_or(UNKNOWN_ROUTE, |(route, _)| route);
        if let Some(latency) = self.latencies.get(route) {
            latency.record(took.as_secs_f64());
        }
        let mut counters = self.counters.borrow_mut();
        let counter = counters.entry((route, status.as_u16())).or_insert_with(|| {
            metrics::counter!("quorate_http_requests_total", "route" => route, "status" => status.as_str().to_owned())
        });
        counter.increment(1);
    }
}

/// The label of requests that no route takes; their paths would be labels without bound.
const UNKNOWN_ROUTE: &str = "unknown";

/// The middleware around all routes.
pub(crate) async fn observe<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Body>, Error> {
    let started = clock();
    let api = request.app_data::<web::Data<Api>>().expect("the application has it").clone();
    let requests = request.app_data::<web::Data<Requests>>().expect("the application has it").clone();
    let held = Held::of(&mut request);
    let checked = check_head(&request).and_then(|()| check_cluster(request.headers(), api.backend.cluster_name()));
    let response = match checked {
        // The handlers turn their own errors into responses, and there are no other services.
        Ok(()) => next.call(request).await?.map_into_left_body(),
        Err(problem) => request.into_response(problem.error_response()).map_into_right_body(),
    };
    let mut response = held.until_written(response, &api.room);
    let headers = response.headers_mut();
    headers.insert(names::NODE, api.node_header.clone());
    guard_headers(headers);
    if let Some(trace) = api.traces.response(response.request()) {
        response.headers_mut().insert(names::TRACERESPONSE, trace);
    }
    let (pattern, status) = (response.request().match_pattern(), response.status());
    requests.count(pattern, status, clock().duration_since(started));
    tracing::debug!(method = %response.request().method(), path = response.request().path(), %status, "request");
    Ok(response)
}

/// What keeps browsers and caches from guessing.
pub(crate) fn guard_headers(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

pub(crate) fn check_head(request: &ServiceRequest) -> Result<(), Problem> {
    let uri = request.uri().path().len() + request.query_string().len();
    if uri > URI_BYTES_MAX {
        let detail = format!("path and query have {uri} bytes, at most {URI_BYTES_MAX} are taken");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        let detail = format!("the headers have {bytes} bytes, at most {HEADER_BYTES_MAX} are taken");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Problem::new(status, "headers_too_large", detail));
    }
    check_site(request.method(), request.headers())
}

/// A page of another site must not change anything through the browser of somebody who reaches this node: with neither a
/// `Content-Type` nor a token its requests would be those of any other client. Browsers say where a request is from
/// (Fetch Metadata; older ones only `Origin`), and others need not.
fn check_site(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let is_ours = |origin: &HeaderValue| {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, from)| host.is_some_and(|host| from.eq_ignore_ascii_case(host)))
    };
    let may_come = if headers.contains_key(names::SEC_FETCH_SITE) {
        headers.get_all(names::SEC_FETCH_SITE).all(|site| site == "same-origin" || site == "none")
    } else {
        headers.get_all(header::ORIGIN).all(is_ours)
    };
    if may_come || [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return Ok(());
    }
    let detail = "a page of another site has sent this through a browser, which this API does not take; let your own server \
                  send it, or a page that is served under the same address";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", detail))
}

/// A request that says for which cluster it is must not be taken by another one: addresses change hands.
pub(crate) fn check_cluster(headers: &HeaderMap, ours: &str) -> Result<(), Problem> {
    if headers.get_all(names::CLUSTER).all(|theirs| *theirs == *ours) {
        return Ok(());
    }
    let detail = format!(
        "this is the cluster {ours:?}, and Quorate-Cluster names another one; ask a member of that, or leave the header out"
    );
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "other_cluster", detail))
}

/// The clock by which requests are timed and readers wait.
#[expect(clippy::disallowed_methods, reason = "requests are timed")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RELIABILITY 6.11: catches a page of another site that changes something through a browser, by what new or old browsers
    /// say; and clients that are none, pages of this node, also behind a proxy, or reading that is refused.
    #[test]
    fn pages_of_other_sites_change_nothing() {
        let with = |method: Method, said: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in said.iter().chain(&[("host", "node:8080")]) {
                headers.append(header::HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            check_site(&method, &headers).is_ok()
        };
        for (said, may_come) in [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://shop.example")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "http://node:8080")], true),
            (&[("origin", "http://node:8081")], false),
            (&[("origin", "https://shop.example")], false),
            (&[("origin", "null")], false),
        ] {
            for method in [Method::POST, Method::PUT, Method::DELETE] {
                assert_eq!(with(method, said), may_come, "{said:?}");
            }
            assert!(with(Method::GET, said) && with(Method::HEAD, said), "{said:?}");
        }
    }
}
