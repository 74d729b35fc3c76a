//! The names of our own headers.

use actix_web::http::header::HeaderName;

/// Which node answered.
pub(crate) const NODE: HeaderName = HeaderName::from_static("quorate-node");
/// Which cluster a request is for. A gateway says it; anybody may.
pub(crate) const CLUSTER: HeaderName = HeaderName::from_static("quorate-cluster");
/// The command number of a call that changed state; of a read, the number of the state shown.
pub(crate) const COMMAND: HeaderName = HeaderName::from_static("quorate-command");
/// The time of the state that a read shows.
pub(crate) const TIME: HeaderName = HeaderName::from_static("quorate-time");
/// How a read was done.
pub(crate) const CONSISTENCY: HeaderName = HeaderName::from_static("quorate-consistency");
/// The caller's name for a call.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The outcome was stored by an earlier call with the same key.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// W3C Trace Context: the caller's span.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The same of a reply: the trace of the call, and its span.
pub(crate) const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// Fetch Metadata: where a browser's request is from.
pub(crate) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// RFC 7240.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// RFC 7240.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
