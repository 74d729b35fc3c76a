//! What must hold for the bytes of any request: functions that panic when it does not. Fuzzers feed
//! them, and the tests replay what fuzzers found (docs/testing.md).

use std::time::Duration;

use actix_web::http::Uri;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::test::TestRequest;
use actix_web::{HttpRequest, ResponseError as _};
use protocol::RequestId;
use protocol::state::KEY_BYTES_MAX;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::auth;
use crate::fingerprint;
use crate::json;
use crate::names;
use crate::problem::Problem;
use crate::read;
use crate::request::{self, Query, Tags, Wishes};
use crate::routes::calls::calls_of;
use crate::traces;

/// The longest wait that a caller may ask for here.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Bytes as the body of a call, as that of a batch, and as a value of the state. What is taken for
/// JSON can be read by all that read it later, and two spellings of it have one fingerprint.
///
/// # Panics
/// When that does not hold.
pub fn rest_body(bytes: &[u8]) {
    if json::check(bytes).is_ok() {
        let _value: Value = serde_json::from_slice(bytes).expect("what was checked can be read");
        let given = fingerprint::of("f", bytes).expect("what was checked can be read");
        let text = String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8");
        let spaced = spaced(&text);
        assert_eq!(fingerprint::of("f", spaced.as_bytes()).ok(), Some(given), "another fingerprint: {spaced}");
        assert!(RawValue::from_string(text).is_ok());
    }
    for call in understood(calls_of(bytes)).unwrap_or_default() {
        let arguments = call.arguments.get().as_bytes();
        assert!(json::check(arguments).is_ok() && fingerprint::of("f", arguments).is_ok(), "arguments of a batch");
    }
    let shown = json::value_text(bytes);
    assert!(RawValue::from_string(shown).is_ok(), "a value is shown as JSON");
}

/// The same JSON with white space wherever it may be.
fn spaced(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let mut spaced = String::from("\t");
    for letter in text.chars() {
        let structural = !quoted && "[]{},:".contains(letter);
        if structural {
            spaced.push_str("\r\n");
        }
        spaced.push(letter);
        if structural {
            spaced.push(' ');
        }
        quoted ^= letter == '"' && !escaped;
        escaped = quoted && letter == '\\' && !escaped;
    }
    spaced
}

/// Bytes as the head of a request: the first line is its path and query, each other one a header.
/// What is understood can be written again and means the same; the rest is the caller's mistake.
///
/// # Panics
/// When that does not hold.
pub fn rest_head(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(uri) = lines.next().and_then(uri) else { return };
    let headers = lines.filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    let request = headers.fold(TestRequest::default().uri(&uri), TestRequest::append_header).to_http_request();

    let [consistency, min_command, at] = read::PARAMETERS;
    if let Some(query) =
        understood(Query::of(&request, &["prefix", "after", "limit", "from", consistency, min_command, at]))
    {
        let limit = understood(query.limit(100, 1_000));
        assert!(limit.is_none_or(|limit| (1..=1_000).contains(&limit)));
        if let Some(Some(number)) = understood(query.number("from")) {
            assert_eq!(query.text("from").and_then(|text| text.parse().ok()), Some(number));
        }
    }
    if let Some(rest) = understood(request::path_rest(&request)).filter(|rest| rest.len() <= KEY_BYTES_MAX) {
        let again = TestRequest::default().uri(&format!("/v1/state/{}", request::path_segment(&rest)));
        assert_eq!(request::path_rest(&again.to_http_request()).ok(), Some(rest), "a path that changes");
    }
    if let Some(wishes) = understood(Wishes::of(&request, WAIT_MAX)) {
        assert!(wishes.wait.is_none_or(|wait| wait <= WAIT_MAX));
        if let Some(key) = &wishes.key {
            assert_eq!(RequestId::caller(key.to_string()).as_ref(), Ok(key));
            let again = TestRequest::default().insert_header((names::IDEMPOTENCY_KEY, key.to_string()));
            let again = Wishes::of(&again.to_http_request(), WAIT_MAX).expect("a key that was understood");
            assert_eq!(again.key.as_ref(), Some(key));
        }
    }
    if let Ok(Some(token)) = auth::bearer(request.headers()) {
        assert!(!token.is_empty(), "a token without a text");
    }
    if let Some(span) = traces::caller(request.headers()) {
        let again = TestRequest::default().insert_header((names::TRACEPARENT, traces::header_of(span)));
        assert_eq!(traces::caller(again.to_http_request().headers()), Some(span), "a span that changes");
    }
    tags(&request, &header::IF_MATCH);
    tags(&request, &header::IF_NONE_MATCH);
    understood(request::require_json(&request));
}

/// The path and query of a request, if they are some.
fn uri(line: &[u8]) -> Option<String> {
    let uri = Uri::try_from(line).ok()?;
    uri.path().starts_with('/').then(|| uri.to_string())
}

fn tags(request: &HttpRequest, name: &HeaderName) {
    let Some(Some(Tags::Versions(versions))) = understood(Tags::of(request, name)) else { return };
    for version in versions {
        let again = TestRequest::default().insert_header((name.clone(), format!("\"{version}\"")));
        let again = Tags::of(&again.to_http_request(), name).expect("a tag of ours");
        assert_eq!(again, Some(Tags::Versions(vec![version])), "a tag that is not in the form of ours");
    }
}

/// What was understood; if nothing, the caller is told so.
fn understood<T>(read: Result<T, Problem>) -> Option<T> {
    read.map_err(|problem| {
        assert!(problem.status_code().is_client_error(), "{problem}");
        assert!(serde_json::to_vec(&problem.document()).is_ok());
        drop(problem.error_response());
    })
    .ok()
}
