//! Spans as OTLP has them, in JSON: an `ExportTraceServiceRequest`. Ids are hexadecimal there, and numbers of 64 bits
//! are texts.

use std::time::Duration;

use protocol::trace::{SpanContext, Stage, Value};
use serde::{Deserialize, Serialize};

use super::Timed;

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u8 = 1;
/// `SPAN_KIND_SERVER`: somebody outside waits for it.
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// Who says it: the same with every span of a node.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Resource {
    attributes: Vec<Attribute>,
}

impl Resource {
    pub(super) fn new(service: &str, cluster: &str, node: &str) -> Self {
        let attributes = [
            ("service.name", service),
            ("service.namespace", cluster),
            ("service.instance.id", node),
            ("service.version", env!("CARGO_PKG_VERSION")),
        ];
        Self { attributes: attributes.map(|(key, text)| Attribute::new(key, &text.into())).to_vec() }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Attribute {
    key: &'static str,
    value: AnyValue,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue {
    StringValue(String),
    IntValue(String),
}

impl Attribute {
    fn new(key: &'static str, value: &Value) -> Self {
        let value = match value {
            Value::Text(text) => AnyValue::StringValue(text.clone()),
            Value::Number(number) => AnyValue::IntValue(number.to_string()),
        };
        Self { key, value }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: &'a Resource,
    scope_spans: [ScopeSpans; 1],
}

#[derive(Serialize)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Span>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'static str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<[Link; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    trace_id: String,
    span_id: String,
}

#[derive(Serialize)]
struct Status {
    code: u8,
}

impl Span {
    fn new(Timed { span, id, began, ended }: &Timed) -> Self {
        let nanoseconds = |time: &Duration| time.as_nanos().to_string();
        let link = |SpanContext { trace, span }| [Link { trace_id: trace.to_string(), span_id: span.to_string() }];
        Self {
            trace_id: span.trace.to_string(),
            span_id: id.to_string(),
            parent_span_id: span.parent.map(|parent| parent.to_string()),
            name: span.stage.name(),
            kind: if matches!(span.stage, Stage::Forward | Stage::Call) { SERVER } else { INTERNAL },
            start_time_unix_nano: nanoseconds(began),
            end_time_unix_nano: nanoseconds(ended),
            attributes: span.attributes.iter().map(|(key, value)| Attribute::new(key, value)).collect(),
            links: span.link.map(link),
            status: span.failed.then_some(Status { code: ERROR }),
        }
    }
}

/// The body of a request.
pub(super) fn encode(resource: &Resource, spans: &[Timed]) -> Vec<u8> {
    let spans = spans.iter().map(Span::new).collect();
    let scope_spans = [ScopeSpans { scope: Scope { name: env!("CARGO_PKG_NAME") }, spans }];
    let request = Request { resource_spans: [ResourceSpans { resource, scope_spans }] };
    serde_json::to_vec(&request).expect("texts and numbers are JSON")
}

/// What a collector says that took a request.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    partial_success: PartialSuccess,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    rejected_spans: Number,
}

/// JSON of protocol buffers has numbers of 64 bits as texts; some write them as numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Number(u64),
}

impl Default for Number {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// How many spans a collector did not want of those that it took; none, where its reply is not one that can be read.
pub(super) fn rejected(body: &[u8]) -> u64 {
    let response: Response = serde_json::from_slice(body).unwrap_or_default();
    match response.partial_success.rejected_spans {
        Number::Text(text) => text.parse().unwrap_or_default(),
        Number::Number(number) => number,
    }
}

#[cfg(test)]
mod tests {
    use protocol::trace::{self, SpanId, TraceId};
    use serde_json::json;

    use super::*;

    /// Catches a request that no collector reads as it is meant: names, ids, times, kinds, numbers as texts, and fields
    /// that must be left out where there is nothing to say. The form is that of the example `trace.json` of
    /// opentelemetry-proto.
    #[test]
    fn a_request_has_the_form_that_collectors_read() {
        let trace = TraceId([0x5b; 16]);
        let link = SpanContext { trace: TraceId([0xee; 16]), span: SpanId([0xab; 8]) };
        let call = trace::Span::new(trace, Stage::Call, Duration::from_millis(3)).with("quorate.function", "kv.put");
        let call = trace::Span { link: Some(link), failed: true, ..call };
        let vote = trace::Span::new(trace, Stage::Vote, Duration::from_micros(7)).below(SpanId([2; 8]));
        let timed = |span, id, began, ended| Timed { span, id: SpanId([id; 8]), began, ended };
        let spans = [
            timed(call, 2, Duration::new(1_544_712_660, 0), Duration::new(1_544_712_660, 3_000_000)),
            timed(vote.with("quorate.command", u64::MAX), 3, Duration::ZERO, Duration::from_micros(7)),
        ];
        let body = encode(&Resource::new("shop-state", "shop", "a"), &spans);
        let read: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let expected = json!({"resourceSpans": [{
            "resource": {"attributes": [
                text("service.name", "shop-state"),
                text("service.namespace", "shop"),
                text("service.instance.id", "a"),
                text("service.version", env!("CARGO_PKG_VERSION")),
            ]},
            "scopeSpans": [{"scope": {"name": "quorate"}, "spans": [
                {
                    "traceId": "5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b",
                    "spanId": "0202020202020202",
                    "name": "call",
                    "kind": 2,
                    "startTimeUnixNano": "1544712660000000000",
                    "endTimeUnixNano": "1544712660003000000",
                    "attributes": [text("quorate.function", "kv.put")],
                    "links": [{"traceId": "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", "spanId": "abababababababab"}],
                    "status": {"code": 2},
                },
                {
                    "traceId": "5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b",
                    "spanId": "0303030303030303",
                    "parentSpanId": "0202020202020202",
                    "name": "vote",
                    "kind": 1,
                    "startTimeUnixNano": "0",
                    "endTimeUnixNano": "7000",
                    "attributes": [{"key": "quorate.command", "value": {"intValue": "18446744073709551615"}}],
                },
            ]}],
        }]});
        assert_eq!(read, expected);
    }

    /// Catches spans that count as exported although the collector did not want them.
    #[test]
    fn a_collector_may_reject_some() {
        for (reply, expected) in [
            ("{}", 0),
            ("", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":2}}"#, 2),
        ] {
            assert_eq!(rejected(reply.as_bytes()), expected, "{reply}");
        }
    }
}
