//! Traces as REST shows and takes them, and the span of a call at its gateway (ADR 0035).
//!
//! A caller's `traceparent` names a span of the caller's own trace; the call has a trace of its own, and its span is
//! linked to that one. Where the caller's is of the very trace of the call, the caller is a gateway without data that
//! worked out the same id: then its span is the parent. `traceresponse` tells the caller the trace of a call that is followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest};
use protocol::trace::{Span, SpanContext, SpanId, Stage, TraceIds};
use protocol::{CommandNumber, NodeId, RequestId, TraceId, Tracer};

use crate::names;
use crate::observe::clock;

/// The traces of the calls that come to a server.
pub(crate) struct Traces {
    ids: TraceIds,
    tracer: Option<Arc<Tracer>>,
    node: NodeId,
}

/// What a reply says of the trace of its call.
struct Response(HeaderValue);

impl Traces {
    pub(crate) fn new(cluster: &str, tracer: Option<Arc<Tracer>>, node: NodeId) -> Self {
        Self { ids: TraceIds::new(cluster), tracer, node }
    }

    /// The trace of a call, for log lines: whether it is followed or not.
    pub(crate) fn of(&self, request: &RequestId) -> TraceId {
        self.ids.of(request)
    }

    /// The span from which a request comes, where calls are followed.
    pub(crate) fn caller(&self, request: &HttpRequest) -> Option<SpanContext> {
        self.tracer.as_ref().and_then(|_| caller(request.headers()))
    }

    /// Has the reply to a request name the trace of its call, if that is followed.
    pub(crate) fn label(&self, request: &HttpRequest, call: &RequestId) {
        if let Some(trace) = self.tracer.as_ref().and_then(|tracer| tracer.follows(call)) {
            let header = header_of(SpanContext { trace, span: trace.call(self.node) });
            request.extensions_mut().insert(Response(header));
        }
    }

    /// The value of `traceresponse`, if the request was labelled.
    pub(crate) fn response(&self, request: &HttpRequest) -> Option<HeaderValue> {
        self.tracer.as_ref()?;
        request.extensions().get::<Response>().map(|Response(header)| header.clone())
    }
}

/// Follows calls through a gateway without data.
pub(crate) struct Forwards {
    tracer: Arc<Tracer>,
    /// Makes the spans of this life of the gateway different from all others.
    entropy: u64,
    spans: AtomicU64,
}

/// A call that such a gateway passes on.
pub(crate) struct Forwarded {
    span: SpanContext,
    caller: Option<SpanContext>,
    since: Instant,
}

impl Forwards {
    pub(crate) fn new(tracer: Arc<Tracer>, entropy: u64) -> Self {
        Self { tracer, entropy, spans: AtomicU64::new(0) }
    }

    /// Follows the call with these headers, if it is to be; the member that gets them finds its parent there.
    pub(crate) fn follow(&self, headers: &mut HeaderMap) -> Option<Forwarded> {
        let key = headers.get(names::IDEMPOTENCY_KEY)?.to_str().ok()?;
        let trace = self.tracer.follows(&RequestId::caller(key).ok()?)?;
        let number = self.entropy.wrapping_add(self.spans.fetch_add(1, Ordering::Relaxed));
        let span = SpanContext { trace, span: trace.forward(number) };
        let caller = caller(headers);
        headers.insert(names::TRACEPARENT, header_of(span));
        Some(Forwarded { span, caller, since: clock() })
    }

    pub(crate) fn ended(&self, followed: &Forwarded, status: StatusCode) {
        let Forwarded { span: SpanContext { trace, span: id }, caller, since } = *followed;
        let span = Span::new(trace, Stage::Forward, clock().duration_since(since));
        let span = span.with("http.response.status_code", u64::from(status.as_u16()));
        (self.tracer.record)(Span { id: Some(id), link: caller, failed: status.is_server_error(), ..span });
    }
}

/// `traceparent` and `traceresponse` of W3C Trace Context, for a span that is recorded.
pub(crate) fn header_of(SpanContext { trace, span }: SpanContext) -> HeaderValue {
    HeaderValue::from_str(&format!("00-{trace}-{span}-01")).expect("digits and dashes")
}

/// The span that `traceparent` names, if whoever sends it records it. What cannot be read is as if it were not there, as
/// W3C Trace Context has it.
pub(crate) fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(names::TRACEPARENT);
    let text = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let ([version], [flags]) = (bytes(version)?, bytes(flags)?);
    // Later versions may say more.
    if version == 0xff || version == 0 && parts.next().is_some() || flags & 1 == 0 {
        return None;
    }
    let (trace, span) = (bytes(trace)?, bytes(span)?);
    (trace != [0; 16] && span != [0; 8]).then_some(SpanContext { trace: TraceId(trace), span: SpanId(span) })
}

/// So many bytes, of lower-case hexadecimal digits.
fn bytes<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; LENGTH];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != LENGTH || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

/// Follows calls through the gateway of a node.
pub(crate) struct Followers {
    tracer: Arc<Tracer>,
    node: NodeId,
}

/// A call that is followed.
pub(crate) struct Followed {
    trace: TraceId,
    caller: Option<SpanContext>,
}

/// What became of a call that is followed.
pub(crate) struct Ended<'a> {
    pub(crate) function: &'a str,
    /// A label of the metrics.
    pub(crate) outcome: &'static str,
    pub(crate) command: Option<CommandNumber>,
    pub(crate) took: Duration,
}

/// Outcomes for which the cluster is to blame.
const FAILURES: [&str; 7] = ["failed", "overloaded", "disk_full", "no_leader", "no_majority", "stopping", "unknown"];
/// Outcomes of whoever asks again, or went away: the span that the leader knows is that of the first who asked.
const OF_OTHERS: [&str; 2] = ["replayed", crate::meters::ABANDONED];

impl Followers {
    pub(crate) fn new(tracer: Arc<Tracer>, node: NodeId) -> Self {
        Self { tracer, node }
    }

    pub(crate) fn follow(&self, call: &RequestId, caller: Option<SpanContext>) -> Option<Followed> {
        self.tracer.follows(call).map(|trace| Followed { trace, caller })
    }

    pub(crate) fn ended(&self, Followed { trace, caller }: Followed, ended: &Ended<'_>) {
        let Ended { function, outcome, command, took } = *ended;
        let mut span = Span::new(trace, Stage::Call, took);
        span.id = (!OF_OTHERS.contains(&outcome)).then(|| trace.call(self.node));
        match caller {
            Some(SpanContext { trace: same, span: parent }) if same == trace => span.parent = Some(parent),
            other => span.link = other,
        }
        span.failed = FAILURES.contains(&outcome);
        span = span.with("quorate.function", function).with("quorate.outcome", outcome);
        if let Some(command) = command {
            span = span.with("quorate.command", command);
        }
        (self.tracer.record)(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(texts: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(names::TRACEPARENT, HeaderValue::from_str(text).expect("a header"));
        }
        caller(&headers).map(|caller| format!("{} {}", caller.trace, caller.span))
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    /// Catches a caller's span that is lost or misread, and one that is made up from a header that is none: W3C Trace
    /// Context, 3.2.2.
    #[test]
    fn traceparent_is_read_as_it_is_defined() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        let read = Some(format!("{TRACE} {SPAN}"));
        assert_eq!(given(&[&good]), read);
        assert_eq!(given(&[&format!("cc-{TRACE}-{SPAN}-03-what-comes-later")]), read);
        let zero = "0".repeat(16);
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-00"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("00-{TRACE}-{zero}-01"),
            format!("00-{zero}{zero}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00 {TRACE} {SPAN} 01"),
            format!("00-{TRACE}-{SPAN}-0g"),
        ] {
            assert_eq!(given(&[&wrong]), None, "{wrong}");
        }
        assert_eq!(given(&[&good, &good]), None, "which of them?");
    }

    /// Catches what is written in a form that is not read.
    #[test]
    fn what_is_written_can_be_read() {
        let trace = TraceIds::new("shop").of(&RequestId::Gateway(1));
        let context = SpanContext { trace, span: trace.call(NodeId(1)) };
        let mut headers = HeaderMap::new();
        headers.insert(names::TRACEPARENT, header_of(context));
        assert_eq!(caller(&headers), Some(context));
    }
}
