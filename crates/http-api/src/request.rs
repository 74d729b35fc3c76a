//! Reading requests strictly: what is not understood is refused with a sentence, never guessed.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, web};
use bytes::Bytes;
use futures_util::StreamExt as _;
use protocol::{CommandNumber, RequestId};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::Api;
use crate::backend::Limits;
use crate::names;
use crate::problem::Problem;

/// The most that is set aside for a body that has only begun to come.
const AT_ONCE: usize = 64 << 10;
/// What bodies may weigh that are arriving, in KiB, all together: each has a bound, and anybody may send one on each
/// connection, a byte at a time.
const ARRIVING_KIB: usize = 64 << 10;

/// What bodies that are arriving may still weigh, of all threads of a server.
pub(crate) struct Arriving(Semaphore);

impl Arriving {
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(ARRIVING_KIB))
    }
}

/// A body that is arriving, and what it weighs in whole KiB: less than one is that of its connection.
struct Body<'a> {
    bytes: Vec<u8>,
    room: &'a Arriving,
    weight: Option<SemaphorePermit<'a>>,
}

impl<'a> Body<'a> {
    fn new(room: &'a Arriving) -> Self {
        Self { bytes: Vec::new(), room, weight: None }
    }

    /// Sets as much aside as is wanted, and more where it has grown before; at most `max`. Whether there is room for that.
    fn reserve(&mut self, wanted: usize, max: usize) -> bool {
        let before = self.bytes.capacity();
        if wanted <= before {
            return true;
        }
        let capacity = wanted.max(before.saturating_mul(2).min(max));
        let more = u32::try_from(capacity / 1024 - before / 1024).unwrap_or(u32::MAX);
        let Ok(more) = self.room.0.try_acquire_many(more) else { return false };
        match &mut self.weight {
            Some(weight) => weight.merge(more),
            None => self.weight = Some(more),
        }
        self.bytes.reserve_exact(capacity - self.bytes.len());
        true
    }
}

/// Whether another node or gateway may have executed what this request asks for: it has a key, or, as a batch, may have some.
/// Who does not execute it speaks for itself only.
pub(crate) fn may_have_run_before(request: &HttpRequest) -> bool {
    let is_call =
        request.method() == Method::POST || request.method() == Method::PUT || request.method() == Method::DELETE;
    is_call && (request.headers().contains_key(names::IDEMPOTENCY_KEY) || request.path() == "/v1/calls")
}

/// The query of a request, with no parameter but those that its route knows.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the query; `known` are the parameters of the route.
    pub(crate) fn of(request: &HttpRequest, known: &[&str]) -> Result<Self, Problem> {
        let text = request.query_string();
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let bad = |detail: String| Problem::bad_request("invalid_query", detail);
        // The parser would put a replacement character where it cannot read one.
        if percent_decoded(text).is_none() {
            return Err(bad("the query is not percent-encoded UTF-8".to_owned()));
        }
        let pairs = web::Query::<Vec<(String, String)>>::from_query(text)
            .map_err(|error| bad(format!("the query cannot be read: {error}")))?
            .into_inner();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let rest = if known.is_empty() {
                    "this route has none".to_owned()
                } else {
                    format!("this route knows {}", known.join(", "))
                };
                return Err(bad(format!("there is no query parameter {name:?}; {rest}")));
            }
            if pairs.iter().take(at).any(|(earlier, _)| earlier == name) {
                return Err(bad(format!("the query parameter {name:?} is given twice")));
            }
        }
        Ok(Self(pairs))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // `parse` would take a sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Some(number)),
            Ok(_) | Err(_) => {
                let detail = format!("{name} is a whole number from 0 to {}, not {text:?}", u64::MAX);
                Err(Problem::bad_request("invalid_query", detail))
            }
        }
    }

    /// A number of items from 1 to `max`; `default` when absent.
    pub(crate) fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(limit) = self.number("limit")? else { return Ok(default) };
        usize::try_from(limit).ok().filter(|limit| (1..=max).contains(limit)).ok_or_else(|| {
            Problem::bad_request("invalid_query", format!("limit is a whole number from 1 to {max}, not {limit}"))
        })
    }
}

/// What follows `/v1/<collection>/` in the path, percent-decoded once. A slash in it may be
/// written `/` or `%2F`.
pub(crate) fn path_rest(request: &HttpRequest) -> Result<String, Problem> {
    let raw = request.uri().path().splitn(4, '/').nth(3).unwrap_or_default();
    percent_decoded(raw).ok_or_else(|| Problem::bad_request("invalid_path", "the path is not percent-encoded UTF-8"))
}

/// `None` for what is not percent-encoded UTF-8.
fn percent_decoded(raw: &str) -> Option<String> {
    if !raw.contains('%') {
        return Some(raw.to_owned());
    }
    let digit =
        |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            decoded.push(high << 4 | low);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// Percent-encodes a text as one segment of a path.
pub(crate) fn path_segment(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
        path
    })
}

/// What the headers of a call say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// `Idempotency-Key`.
    pub(crate) key: Option<RequestId>,
    /// `Prefer: wait=S`.
    pub(crate) wait: Option<Duration>,
    /// `Prefer: respond-async`.
    pub(crate) respond_async: bool,
}

impl Wishes {
    pub(crate) fn of(request: &HttpRequest, wait_max: Duration) -> Result<Self, Problem> {
        let headers = request.headers();
        let mut wishes = Self { key: idempotency_key(headers)?, ..Self::default() };
        for preference in list(headers, &names::PREFER)? {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            // Parameters of a preference follow a semicolon; those we know have none.
            let value = value.split(';').next().unwrap_or_default().trim().trim_matches('"');
            match name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                // RFC 7240: of a preference that is there twice the first one counts.
                "wait" if wishes.wait.is_some() => {}
                "wait" => wishes.wait = Some(wait(value, wait_max)?),
                "respond-async" => wishes.respond_async = true,
                // RFC 7240: preferences that are not understood are ignored.
                _ => {}
            }
        }
        Ok(wishes)
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<RequestId>, Problem> {
    let bad = |detail: String| Problem::bad_request("invalid_idempotency_key", detail);
    let mut values = headers.get_all(names::IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("a call has one Idempotency-Key".to_owned()));
    }
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    RequestId::caller(text).map(Some).map_err(bad)
}

fn wait(text: &str, wait_max: Duration) -> Result<Duration, Problem> {
    let seconds = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    seconds.map(Duration::from_secs).filter(|wait| *wait <= wait_max).ok_or_else(|| {
        let most = wait_max.as_secs();
        Problem::bad_request(
            "invalid_prefer",
            format!("Prefer: wait= takes whole seconds from 0 to {most}, not {text:?}"),
        )
    })
}

/// The items of a header that is a comma-separated list, over all its lines. None of our lists
/// has commas in quotes.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Vec<&'a str>, Problem> {
    let mut items = Vec::new();
    for value in headers.get_all(name) {
        let text = value
            .to_str()
            .map_err(|_| Problem::bad_request("invalid_header", format!("the header {name} is not visible ASCII")))?;
        items.extend(text.split(',').map(str::trim).filter(|item| !item.is_empty()));
    }
    Ok(items)
}

/// `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`: any version.
    Any,
    /// These versions. Tags that are not in our form are left out, since they match nothing.
    Versions(Vec<CommandNumber>),
}

impl Tags {
    /// Reads the header; `None` when it is absent. `If-Match` compares strongly: a weak tag
    /// matches nothing. `If-None-Match` compares weakly (RFC 9110, 13.1).
    pub(crate) fn of(request: &HttpRequest, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let items = list(request.headers(), name)?;
        match items.as_slice() {
            [] if request.headers().contains_key(name) => Err(bad_tag(name, "")),
            [] => Ok(None),
            ["*"] => Ok(Some(Self::Any)),
            tags => {
                let mut versions = Vec::new();
                for tag in tags {
                    let weak = tag.strip_prefix("W/");
                    let quoted = weak.unwrap_or(tag).strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                    let opaque = quoted.ok_or_else(|| bad_tag(name, tag))?;
                    if weak.is_none() || name == header::IF_NONE_MATCH {
                        versions.extend(version(opaque));
                    }
                }
                Ok(Some(Self::Versions(versions)))
            }
        }
    }

    pub(crate) fn matches(&self, version: CommandNumber) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// The version that a tag of ours names: exactly the form in which it was given out, so no sign,
/// no leading zero, and never 0.
fn version(opaque: &str) -> Option<CommandNumber> {
    let ours = !opaque.starts_with('0') && opaque.bytes().all(|byte| byte.is_ascii_digit());
    opaque.parse().ok().filter(|_| ours).map(CommandNumber)
}

fn bad_tag(name: &HeaderName, tag: &str) -> Problem {
    Problem::bad_request(
        "invalid_header",
        format!("{name} is * or a list of quoted versions such as \"17\", not {tag:?}"),
    )
}

/// Refuses a body that says it is something else than JSON; one that says nothing is tried.
pub(crate) fn require_json(request: &HttpRequest) -> Result<(), Problem> {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!("send the body as application/json, not {kind:?}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

/// The whole body, bounded in size and time.
pub(crate) async fn body(
    request: &HttpRequest,
    payload: web::Payload,
    api: &Api,
    max: usize,
) -> Result<Bytes, Problem> {
    body_within(request, payload, &Limits { body_bytes: max, ..api.limits.clone() }, &api.arriving).await
}

/// The same without a node.
pub(crate) async fn body_within(
    request: &HttpRequest,
    payload: web::Payload,
    limits: &Limits,
    room: &Arriving,
) -> Result<Bytes, Problem> {
    let max = limits.body_bytes;
    let too_large = || Problem::too_large("body_too_large", format!("the body has more than {max} bytes"));
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if announced > max as u64 {
        return Err(too_large());
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        let detail = "send the body without a Content-Encoding";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let read = async {
        let mut payload = payload;
        let mut body = Body::new(room);
        while let Some(piece) = payload.next().await {
            // The server says the same of a body cut short and of chunks that it cannot read.
            let piece = piece.map_err(|_| {
                let detail = "the body ended before all of it had arrived, or is not chunked as its head says";
                Problem::bad_request("incomplete_body", detail)
            })?;
            if piece.len() > max - body.bytes.len() {
                return Err(too_large());
            }
            let at_once = usize::try_from(announced).unwrap_or(0).min(AT_ONCE);
            if !body.reserve(at_once.max(body.bytes.len() + piece.len()), max) {
                return Err(if may_have_run_before(request) {
                    Problem::overloaded().unknown()
                } else {
                    Problem::overloaded()
                });
            }
            // A piece keeps the whole buffer of its connection, however small it is.
            body.bytes.extend_from_slice(&piece);
        }
        Ok(Bytes::from(body.bytes))
    };
    let mut read = pin!(read);
    // Most bodies are there when this is polled again: the server has read them with their heads. No timer for those.
    if let Poll::Ready(body) = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
        return body;
    }
    tokio::task::yield_now().await;
    tokio::time::timeout(limits.body_wait, read).await.map_err(|_| {
        let seconds = limits.body_wait.as_secs();
        Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_body", format!("the body did not arrive within {seconds} s"))
    })?
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest as _;
    use actix_web::test::TestRequest;

    use super::*;

    async fn arrives(bytes: usize, announced: Option<usize>, room: &Arriving) -> Result<Bytes, Problem> {
        let request = TestRequest::post().uri("/v1/calls").set_payload(vec![7; bytes]);
        let request = request.insert_header((header::CONTENT_LENGTH, announced.unwrap_or(bytes)));
        let (request, mut payload) = request.to_http_parts();
        let payload = web::Payload::from_request(&request, &mut payload).await.expect("a payload");
        body_within(&request, payload, &Limits::default(), room).await
    }

    /// RELIABILITY 5, class 13: catches bodies that fill the memory together although each is within its bound, room that is
    /// not given back when one has arrived or not, and small bodies that are refused for the sake of large ones.
    #[actix_web::test]
    async fn bodies_that_arrive_weigh_no_more_than_there_is_room() {
        let room = Arriving(Semaphore::new(100));
        let mut slow = Body::new(&room);
        assert!(slow.reserve(90 << 10, 1 << 20) && room.0.available_permits() == 10);
        assert!(!slow.reserve(101 << 10, 1 << 20), "it would double");
        assert_eq!(arrives(20 << 10, None, &room).await.expect_err("no room").code(), "overloaded");
        assert_eq!(arrives(1, Some(20 << 10), &room).await.expect_err("no room").code(), "overloaded");
        assert_eq!(arrives(1_000, None, &room).await.expect("a small one").len(), 1_000);
        assert_eq!(arrives(9 << 10, None, &room).await.expect("there is room").len(), 9 << 10);
        assert_eq!(room.0.available_permits(), 10, "given back");
        drop(slow);
        assert_eq!(arrives(20 << 10, None, &room).await.expect("there is room").len(), 20 << 10);
        assert_eq!(room.0.available_permits(), 100);
    }
}
