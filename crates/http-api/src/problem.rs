//! Errors as the caller sees them: RFC 9457 problem documents with a stable `code` and with
//! `outcome`, which says whether what was asked for was executed.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use protocol::{CommandNumber, StateError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::names;

/// The media type of a problem document.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// When a caller that was turned away may come back, in seconds: most reasons pass sooner, and
/// a whole second is the smallest that the header can say.
const RETRY_AFTER: &str = "1";

/// The one thing a caller must know after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Outcome)]
pub(crate) enum Executed {
    /// It never was executed and never will be.
    NotExecuted,
    /// It may have been, or may still be: ask again with the same key.
    Unknown,
}

/// An error on its way to the caller.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    outcome: Executed,
    instance: Option<String>,
    replayed: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A problem document (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument<'a> {
    /// Always `about:blank`: `code` says more.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    title: &'a str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// A sentence about this very request.
    detail: &'a str,
    /// Stable, for programs.
    #[schema(example = "insufficient_stock")]
    code: &'a str,
    /// Whether the request was executed.
    outcome: Executed,
    /// Where to ask for this call's outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            detail: detail.into(),
            outcome: Executed::NotExecuted,
            instance: None,
            replayed: false,
            headers: Vec::new(),
        }
    }

    /// The code.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// The same under another status.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same in other words.
    pub(crate) fn with_detail(self, detail: String) -> Self {
        Self { detail, ..self }
    }

    /// 400.
    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404.
    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 413.
    pub(crate) fn too_large(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, detail)
    }

    /// 429: too many calls.
    pub(crate) fn overloaded() -> Self {
        let detail = "too many calls are in flight; send this one again after a moment";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail).retry_later()
    }

    /// 507: no room for the command of a call.
    pub(crate) fn disk_full() -> Self {
        Self::no_room(
            "the disks of the nodes that would keep this call are almost full; make room, and send it again. Reads go on, \
             and /readyz of each node says how much room it has",
        )
    }

    /// 507 with a reason.
    pub(crate) fn no_room(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", detail).retry_later()
    }

    /// 503 with a reason that will pass.
    pub(crate) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_later()
    }

    /// 503: this node takes no more calls.
    pub(crate) fn stopping() -> Self {
        Self::unavailable("stopping", "this node is stopping; ask another node")
    }

    /// It is not known whether the call was, or will be, executed.
    pub(crate) fn unknown(mut self) -> Self {
        self.outcome = Executed::Unknown;
        self
    }

    pub(crate) fn retry_later(self) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER))
    }

    /// The number of the state that the refusal is about.
    pub(crate) fn at(self, number: CommandNumber) -> Self {
        self.header(names::COMMAND, HeaderValue::from(number.0))
    }

    /// It is the stored answer to an earlier call with the same key.
    pub(crate) fn replayed(mut self) -> Self {
        self.replayed = true;
        self
    }

    /// Whether it is such an answer. A reply says so in a header, so that its document stays the
    /// same; one of many in a reply has nowhere else to say it than beside its document.
    pub(crate) fn is_replayed(&self) -> bool {
        self.replayed
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn instance(mut self, path: Option<String>) -> Self {
        self.instance = path;
        self
    }

    pub(crate) fn document(&self) -> ProblemDocument<'_> {
        ProblemDocument {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: &self.code,
            outcome: self.outcome,
            instance: self.instance.as_deref(),
        }
    }
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        tracing::error!(%error, "a read failed; the callers of this node get errors until its disk is mended");
        let detail = "this node cannot read its state; ask another node, and look at this one's log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "state_unreadable", detail)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.content_type(PROBLEM_JSON);
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        if self.replayed {
            response.insert_header((names::IDEMPOTENT_REPLAYED, HeaderValue::from_static("true")));
        }
        if [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::REQUEST_TIMEOUT].contains(&self.status) {
            // The rest of the body is not wanted.
            response.force_close();
        }
        response.body(serde_json::to_vec(&self.document()).expect("texts and numbers are JSON"))
    }
}
