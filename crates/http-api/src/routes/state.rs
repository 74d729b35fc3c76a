//! The replicated state, key by key.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use protocol::state::VALUE_BYTES_MAX;
use protocol::{CommandNumber, Entry, Key, StateError, token};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::calls::{Accepted, Executed};
use crate::api::Api;
use crate::call::{self, Reply};
use crate::gate::{access_of, check_keys};
use crate::json;
use crate::problem::{Problem, ProblemDocument};
use crate::read;
use crate::request::{self, Query, Tags, Wishes};

/// The entries of a page when the caller does not say.
const LIMIT: usize = 100;
/// The most entries of a page.
const LIMIT_MAX: usize = 1_000;
/// A page ends when it has this many bytes of values, so that a reply stays in memory bounds.
const PAGE_BYTES: usize = 4 << 20;
/// What an entry takes in JSON beside its key and value, about.
const ENTRY: usize = 64;
/// How many entries are read at once, at first and at most: with the largest values, 2 and 16 MiB.
const PIECES: [usize; 2] = [2, 16];

/// A page of the state.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatePage {
    entries: Vec<PageEntry>,
    /// Give it as `after` for the next page; null at the end.
    #[schema(required)]
    next: Option<String>,
}

/// One entry.
#[derive(Serialize, ToSchema)]
pub(crate) struct PageEntry {
    key: String,
    /// The value when it is JSON text, else `{"base64": "…"}`.
    #[schema(value_type = serde_json::Value)]
    value: Box<RawValue>,
    /// The number of the command that wrote it.
    version: u64,
}

fn key(request: &HttpRequest) -> Result<Key, Problem> {
    Key::new(request::path_rest(request)?).map_err(|error| Problem::bad_request("invalid_key", error.to_string()))
}

fn etag(version: CommandNumber) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits are visible ASCII")
}

/// The value of a key, as its bytes.
#[utoipa::path(get, path = "/v1/state/{key}", operation_id = "get_value", tag = "state",
    params(("key" = String, Path, description = "The key; a slash may be written `/` or `%2F`"), super::openapi::ReadParameters,
        ("If-None-Match" = Option<String>, Header, description = "Versions the caller has: 304 when one is current")),
    responses(
        (status = 200, description = "The value: `application/json` when it is JSON text, else `application/octet-stream`; its version is the `ETag`",
            content((serde_json::Value = "application/json"), (Vec<u8> = "application/octet-stream"))),
        (status = 304, description = "The caller has it"),
        (status = 403, description = "The caller's token is not for this key, whether it exists or not", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "No such key", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "No leader, or no majority", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let query = Query::of(&request, &read::PARAMETERS)?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let key = key(&request)?;
    check_keys(&api, &access_of(&request), key.as_str())?;
    let tags = Tags::of(&request, &header::IF_NONE_MATCH)?;
    let ready = read::ready(&api, &query, wishes.wait).await?;
    let snapshot = api.backend.snapshot()?;
    let Some(Entry { value, version }) = snapshot.view.get(&key)? else {
        return Err(ready.label_problem(snapshot.at, Problem::not_found("unknown_key", "there is no such key")));
    };
    let unmodified = tags.is_some_and(|tags| tags.matches(version));
    let mut response = HttpResponse::build(if unmodified { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    ready.label(snapshot.at, &mut response);
    response.insert_header((header::ETAG, etag(version)));
    if unmodified {
        return Ok(response.finish());
    }
    let value = token::shown(&key, &value);
    let kind = if json::check(&value).is_ok() { "application/json" } else { "application/octet-stream" };
    Ok(response.content_type(kind).body(value))
}

/// The entries of the state, in order of keys.
#[utoipa::path(get, path = "/v1/state", operation_id = "list_state", tag = "state",
    params(("prefix" = Option<String>, Query, description = "Only keys that begin so"),
        ("after" = Option<String>, Query, description = "Only keys greater than this one"),
        ("limit" = Option<u64>, Query, description = "The most entries, 1 to 1000; 100 if absent. A page may have fewer: go by `next`"),
        super::openapi::ReadParameters),
    responses(
        (status = 200, description = "A page, all of one command number", body = StatePage),
        (status = 403, description = "The caller's token is for keys of certain beginnings, and `prefix` does not begin with one", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let [consistency, min_command, at] = read::PARAMETERS;
    let query = Query::of(&request, &["prefix", "after", "limit", consistency, min_command, at])?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let limit = query.limit(LIMIT, LIMIT_MAX)?;
    let (prefix, after) = (query.text("prefix").unwrap_or_default().to_owned(), query.text("after").map(str::to_owned));
    check_keys(&api, &access_of(&request), &prefix)?;
    let ready = read::ready(&api, &query, wishes.wait).await?;
    let backend = api.backend.clone();
    let made = ready.page(&api, PAGE_BYTES, move |bytes| -> Result<(CommandNumber, StatePage), StateError> {
        let snapshot = backend.snapshot()?;
        let page = page(&*snapshot.view, &prefix, after, (limit, bytes))?;
        Ok((snapshot.at, page))
    });
    let (at, page) = made.await?;
    let mut response = HttpResponse::Ok();
    ready.label(at, &mut response);
    Ok(response.json(page))
}

fn page(
    view: &dyn protocol::StateView,
    prefix: &str,
    mut after: Option<String>,
    (limit, bytes_max): (usize, usize),
) -> Result<StatePage, StateError> {
    let mut entries: Vec<PageEntry> = Vec::new();
    let (mut bytes, [mut piece, most]) = (0, PIECES);
    loop {
        // One more than the page takes says whether there is a next page.
        let want = piece.min(limit + 1 - entries.len());
        piece = (2 * piece).min(most);
        let found = view.scan(prefix, after.as_deref(), want)?;
        let ended = found.len() < want;
        for (key, Entry { value, version }) in found {
            if entries.len() == limit || bytes >= bytes_max {
                let next = entries.last().map(|entry| entry.key.clone());
                return Ok(StatePage { entries, next });
            }
            let text = json::value_text(&token::shown(&key, &value));
            bytes += key.as_str().len() + text.len() + ENTRY;
            let value = RawValue::from_string(text).expect("the text was checked");
            after = Some(key.as_str().to_owned());
            entries.push(PageEntry { key: key.as_str().to_owned(), value, version: version.0 });
        }
        if ended {
            return Ok(StatePage { entries, next: None });
        }
    }
}

/// Writes a value: the body, as it is.
#[utoipa::path(put, path = "/v1/state/{key}", operation_id = "put_value", tag = "state",
    params(("key" = String, Path, description = "The key; a slash may be written `/` or `%2F`"),
        super::openapi::CallHeaders, super::openapi::Preconditions),
    request_body(content = Vec<u8>, description = "The value, at most 1 MiB", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Written; the new version is the command number, and the `ETag`", body = Executed),
        (status = 202, description = "Taken in (`Prefer: respond-async`)", body = Accepted),
        (status = 412, description = "The key's version is not as `If-Match` or `If-None-Match` say", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "The value is too large", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn put(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let mut arguments = arguments(&request, key(&request)?)?;
    let value = request::body(&request, payload, &api, VALUE_BYTES_MAX.min(api.limits.body_bytes)).await?;
    arguments.base64 = Some(base64::engine::general_purpose::STANDARD.encode(value));
    let reply = call::run(&api, &request, "kv.put".to_owned(), arguments.text().into(), wishes).await?;
    // The version of what was written is the command that wrote it.
    let version = match &reply {
        Reply::Done(done, _) => done.command,
        Reply::Accepted(_) => None,
    };
    let mut response = reply.respond();
    if let Some(version) = version {
        response.headers_mut().insert(header::ETAG, etag(version));
    }
    Ok(response)
}

/// Deletes a key.
#[utoipa::path(delete, path = "/v1/state/{key}", operation_id = "delete_value", tag = "state",
    params(("key" = String, Path, description = "The key; a slash may be written `/` or `%2F`"),
        super::openapi::CallHeaders, super::openapi::Preconditions),
    responses(
        (status = 200, description = "Deleted, or it was not there and `command` is null", body = Executed),
        (status = 202, description = "Taken in (`Prefer: respond-async`)", body = Accepted),
        (status = 412, description = "The key's version is not as `If-Match` or `If-None-Match` say", body = ProblemDocument, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::of(&request, &[])?;
    let wishes = Wishes::of(&request, api.limits.wait_max)?;
    let arguments = arguments(&request, key(&request)?)?;
    Ok(call::run(&api, &request, "kv.delete".to_owned(), arguments.text().into(), wishes).await?.respond())
}

/// The arguments of `kv.put` and `kv.delete`.
#[derive(Serialize)]
struct Arguments {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// Any of these versions; empty: the key must exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    if_match: Option<Vec<u64>>,
    /// None of these versions; empty: the key must not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    if_none_match: Option<Vec<u64>>,
}

impl Arguments {
    fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }
}

fn arguments(request: &HttpRequest, key: Key) -> Result<Arguments, Problem> {
    let numbers = |versions: Vec<CommandNumber>| versions.into_iter().map(|version| version.0).collect::<Vec<_>>();
    let if_match = match Tags::of(request, &header::IF_MATCH)? {
        None => None,
        Some(Tags::Any) => Some(Vec::new()),
        Some(Tags::Versions(versions)) if versions.is_empty() => {
            return Err(call::precondition_failed("no version of this key ever had a tag that If-Match names"));
        }
        Some(Tags::Versions(versions)) => Some(numbers(versions)),
    };
    let if_none_match = match Tags::of(request, &header::IF_NONE_MATCH)? {
        Some(Tags::Any) => Some(Vec::new()),
        // Tags that are not ours match nothing, which is what If-None-Match wants.
        Some(Tags::Versions(versions)) if !versions.is_empty() => Some(numbers(versions)),
        Some(Tags::Versions(_)) | None => None,
    };
    Ok(Arguments { key: key.to_string(), base64: None, if_match, if_none_match })
}
