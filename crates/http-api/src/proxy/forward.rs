//! One request, on its way to a member and back.
//!
//! A request without a body to keep is what is sent again: the body was read whole, within the limit. It is sent again to
//! the next member when a member cannot be reached, breaks the connection, stops answering, or says 503; until the caller's
//! wait is over. One that belongs to another cluster says 421, and so does not take it. That is safe: reads change nothing, and every call carries an idempotency key, the caller's or one that is
//! added here. A batch has keys of its own, or none: once it may have reached a member it is not sent again.
//!
//! Replies that say how long they are come whole before the caller gets anything; others are passed on as they come, no
//! faster than the caller takes them.

use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody as _};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, web};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::members::Members;
use super::{HEAD_KIB, Proxy};
use crate::names;
use crate::problem::{Executed, Problem};
use crate::request::{self, Wishes, may_have_run_before};
use crate::traces::Forwarded;

/// A batch has no key of its own, and the secret of a new token is in one reply only.
const NOT_SENT_TWICE: [&str; 2] = ["/v1/calls", "/v1/tokens"];
/// A reply that costs a member much, and that nobody asks for by HEAD.
const BACKUP: &str = "/v1/backup";
/// Before all members are tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// What a member may need beyond the wait that its caller asked for.
const MARGIN: Duration = Duration::from_secs(5);
/// The longest reply that is taken whole: pages of 4 MiB of keys and values, with base64 and names around them.
const WHOLE_MAX: u64 = 16 << 20;

/// Headers of one connection (RFC 9110, 7.6.1), and those that are made anew here.
const NOT_PASSED_ON: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "expect",
    "content-length",
    // Judged here: to a member its own address would be another site.
    "origin",
    "sec-fetch-site",
];

/// With these a member refuses for itself: another one may have executed the call.
const SPEAK_FOR_ONE: [StatusCode; 3] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
const OF_A_CALL: &str = "the connection to the member that had this call broke, and the next one does not take it: ask again with the \
                         same key, and a token that is good";
const OF_A_BATCH: &str = "the connection to the member that had this batch broke; its calls may have been executed: give them keys, \
                          and send it again";

/// A request as it is sent to members.
struct Passed {
    method: Method,
    /// With the query.
    path: String,
    headers: HeaderMap,
    body: Bytes,
    /// It may be sent again although a member may have it.
    is_safe: bool,
    is_call: bool,
    /// Its idempotency key was made here: nobody else has sent it under that.
    is_keyed_here: bool,
    /// What the caller waits.
    wait: Duration,
    followed: Option<Forwarded>,
}

/// Why there is no reply of a member.
enum Broken {
    /// It does not have the request.
    NotSent,
    /// It may have it.
    Sent,
}

/// Passes a request on.
pub(super) async fn forward(
    request: HttpRequest,
    payload: web::Payload,
    proxy: web::Data<Proxy>,
) -> Result<HttpResponse, Problem> {
    // Another gateway or node may have had it before.
    let own = |problem: Problem| if may_have_run_before(&request) { problem.unknown() } else { problem };
    if proxy.is_stopping() {
        return Err(own(Problem::stopping()));
    }
    if request.headers().get_all(header::VIA).any(|via| *via == proxy.via) {
        let detail = "this request came from this gateway: gateway.members, or the address that a member announces, leads back here";
        return Err(Problem::new(StatusCode::LOOP_DETECTED, "loop", detail));
    }
    let Ok(_request) = proxy.requests.try_acquire() else { return Err(own(Problem::overloaded())) };
    let passed = Passed::of(&request, payload, &proxy).await?;
    let reply = pass_on(&request, &proxy, &passed).await;
    if let (Some(forwards), Some(followed)) = (&proxy.forwards, &passed.followed) {
        forwards.ended(followed, reply.as_ref().map_or_else(Problem::status_code, HttpResponse::status));
    }
    reply
}

async fn pass_on(request: &HttpRequest, proxy: &Proxy, passed: &Passed) -> Result<HttpResponse, Problem> {
    let own = |problem: Problem| if may_have_run_before(request) { problem.unknown() } else { problem };
    let weight = HEAD_KIB.saturating_add(u32::try_from(passed.body.len() / 1024).unwrap_or(u32::MAX));
    let Ok(_room) = proxy.room.try_acquire_many(weight) else { return Err(own(Problem::overloaded())) };
    let deadline = Instant::now() + passed.wait;
    let mut refused = None;
    let mut may_have_run = false;
    loop {
        for address in proxy.order(passed.is_call) {
            match proxy.ask(&address, passed).await {
                Ok(reply) if reply.status() == StatusCode::SERVICE_UNAVAILABLE => refused = Some(reply),
                // It was not looked at yet, or has changed hands since.
                Ok(reply) if reply.status() == StatusCode::MISDIRECTED_REQUEST => proxy.misdirected(&address),
                Ok(reply) if may_have_run && SPEAK_FOR_ONE.contains(&reply.status()) => {
                    return Err(no_outcome(OF_A_CALL));
                }
                Ok(reply) if passed.is_keyed_here && refused.is_none() => return Ok(not_executed(reply)),
                Ok(reply) => return Ok(reply),
                Err(Broken::NotSent) => {}
                Err(Broken::Sent) if passed.is_safe => may_have_run = passed.is_call,
                Err(Broken::Sent) => return Err(no_outcome(OF_A_BATCH)),
            }
        }
        if Instant::now() + PAUSE >= deadline {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    match refused {
        // It speaks for itself only: another one may have the call.
        Some(refused) if !may_have_run => Ok(refused),
        Some(_) | None => {
            let detail = "no member of the cluster can be reached from this gateway, or is ready; /readyz of the gateway says more";
            let problem = Problem::unavailable("no_member", detail);
            Err(if may_have_run { problem.unknown() } else { own(problem) })
        }
    }
}

fn no_outcome(detail: &str) -> Problem {
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "no_outcome", detail).unknown().retry_later()
}

/// The reply of the only member that had a call. If it forbids the call, nobody has executed it; the member could not say so: of
/// a call with a key another one may have had it, for all that it knows.
fn not_executed(reply: HttpResponse) -> HttpResponse {
    if reply.status() != StatusCode::FORBIDDEN {
        return reply;
    }
    reply.map_body(|_, body| match body.try_into_bytes() {
        Ok(problem) => BoxBody::new(with_outcome(problem, Executed::NotExecuted)),
        Err(body) => body,
    })
}

/// A problem with another outcome; what is none stays as it is.
fn with_outcome(problem: Bytes, outcome: Executed) -> Bytes {
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(&problem) else { return problem };
    let Some(told) = fields.get_mut("outcome") else { return problem };
    *told = json!(outcome);
    Value::Object(fields).to_string().into()
}

impl Passed {
    async fn of(request: &HttpRequest, payload: web::Payload, proxy: &Proxy) -> Result<Self, Problem> {
        let limits = &proxy.limits;
        let is_call = ![Method::GET, Method::HEAD].contains(request.method());
        let is_batch = NOT_SENT_TWICE.contains(&request.path());
        let wait = Wishes::of(request, limits.wait_max)?.wait.unwrap_or(limits.wait);
        let body = request::body_within(request, payload, limits, &proxy.arriving).await?;
        let mut headers = passed_on(request.headers());
        let is_keyed_here = is_call && !is_batch && !headers.contains_key(&names::IDEMPOTENCY_KEY);
        if is_keyed_here {
            headers.insert(names::IDEMPOTENCY_KEY, proxy.fresh_key());
        }
        let forwards = proxy.forwards.as_ref().filter(|_| is_call && !is_batch);
        let followed = forwards.and_then(|forwards| forwards.follow(&mut headers));
        headers.append(header::VIA, proxy.via.clone());
        headers.insert(names::CLUSTER, proxy.cluster_header.clone());
        // The server leaves the body of a reply to HEAD out, and says how long it would be. No backup is begun for that.
        let is_head = request.method() == Method::HEAD && request.path() != BACKUP;
        let method = if is_head { Method::GET } else { request.method().clone() };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        check_path(request.uri().path(), &path)?;
        Ok(Self { method, path, headers, body, is_safe: !is_call || !is_batch, is_call, is_keyed_here, wait, followed })
    }
}

/// A member must see the path that the caller meant; the client rewrites some.
fn check_path(path: &str, with_query: &str) -> Result<(), Problem> {
    let is_rewritten = |segment: &str| [".", ".."].contains(&segment.to_ascii_lowercase().replace("%2e", ".").as_str());
    let is_kept = path.starts_with('/') && !path.contains('\\') && !path.split('/').any(is_rewritten);
    if is_kept && reqwest::Url::parse(&format!("http://gateway{with_query}")).is_ok() {
        return Ok(());
    }
    let detail = "a gateway without data passes on no path with a segment `.` or `..` or a `\\`; write `\\` as %5C, or ask a node";
    Err(Problem::bad_request("invalid_path", detail))
}

/// Without what concerns one connection only.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let connection = headers.get_all(header::CONNECTION).filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        connection.flat_map(|text| text.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let is_of_connection =
        |name: &HeaderName| NOT_PASSED_ON.contains(&name.as_str()) || named.contains(&name.as_str().to_owned());
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        if !is_of_connection(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

impl Proxy {
    /// One member, once. A member that is found to be gone meanwhile is not waited for, nor one that cannot serve any more
    /// while another one can, where that one may be asked as well.
    async fn ask(&self, address: &str, passed: &Passed) -> Result<HttpResponse, Broken> {
        let mut members = self.members.subscribe();
        let is_lost = |members: &Members| members.is_gone(address) || passed.is_safe && members.is_worse_off(address);
        let was_lost = is_lost(&members.borrow_and_update());
        let until = Instant::now() + passed.wait + MARGIN;
        let lost = async {
            if was_lost || members.wait_for(is_lost).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let answered = tokio::select! {
            answered = timeout_at(until, self.exchange(address, passed)) => answered.unwrap_or(Err(Broken::Sent)),
            () = lost => {
                self.count(None);
                return Err(Broken::Sent);
            }
        };
        self.count(answered.as_ref().map(HttpResponse::status).ok());
        if answered.is_err() {
            self.members.send_modify(|members| members.failed(address));
        }
        answered
    }

    async fn exchange(&self, address: &str, passed: &Passed) -> Result<HttpResponse, Broken> {
        let url = format!("{}://{address}{}", self.scheme, passed.path);
        let method = reqwest::Method::from_bytes(passed.method.as_str().as_bytes()).map_err(|_| Broken::NotSent)?;
        let mut request = self.client.request(method, url).body(passed.body.clone());
        for (name, value) in &passed.headers {
            request = request.header(name.as_str(), value.as_bytes());
        }
        let sent = request.send().await;
        let reply = sent
            .map_err(|error| if error.is_connect() || error.is_builder() { Broken::NotSent } else { Broken::Sent })?;
        let status = StatusCode::from_u16(reply.status().as_u16()).map_err(|_| Broken::Sent)?;
        let mut response = HttpResponse::build(status);
        let mut headers = HeaderMap::new();
        for (name, value) in reply.headers() {
            let name = HeaderName::from_bytes(name.as_str().as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
                headers.append(name, value);
            }
        }
        for (name, value) in &passed_on(&headers) {
            response.append_header((name.clone(), value.clone()));
        }
        if reply.content_length().is_some_and(|length| length <= WHOLE_MAX) {
            let body = reply.bytes().await.map_err(|_| Broken::Sent)?;
            return Ok(response.body(body));
        }
        Ok(response.streaming(stream::unfold(Some(reply), |reply| async {
            let mut reply = reply?;
            match reply.chunk().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reply))),
                Ok(None) => None,
                // The caller's connection breaks as well: what came is not whole.
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110: catches a header of the caller's connection that reaches a member, and one of the request that does not.
    #[test]
    fn headers_of_the_connection_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("host", "gateway"),
            ("prefer", "wait=3"),
            ("authorization", "Bearer x"),
            ("accept", "a"),
            ("accept", "b"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut passed: Vec<_> = passed_on(&headers).iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        passed.sort();
        assert_eq!(passed, ["accept: \"a\"", "accept: \"b\"", "authorization: \"Bearer x\"", "prefer: \"wait=3\""]);
    }

    /// Catches a path that a member would see as another one, so that a write is acknowledged for another key; and one
    /// that no request can be made of, for which members would be blamed.
    #[test]
    fn a_path_arrives_as_it_was_meant_or_not_at_all() {
        for kept in ["/", "/v1/state/a%2Fb", "/v1/state/a/b.c..d", "/v1/state/%5C?consistency=local", "/v1/state/..a"] {
            let path = kept.split('?').next().expect("a path");
            assert!(check_path(path, kept).is_ok(), "{kept}");
        }
        for other in
            ["*", "", "/v1/state/a/../b", "/v1/state/./b", "/v1/state/a/%2e%2E/b", "/v1/state/.%2e", "/v1/state/a\\b"]
        {
            assert!(check_path(other, other).is_err(), "{other}");
        }
    }
}
