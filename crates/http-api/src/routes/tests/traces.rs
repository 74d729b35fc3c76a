//! What callers see of traces, and what a trace tells of a gateway (ADR 0035).

use std::sync::{Arc, Mutex};

use actix_web::test::TestRequest;
use protocol::trace::{Sampling, Span, SpanContext, SpanId, Stage, TraceIds, Value};
use protocol::{CommandNumber, NodeId, Outcome, RequestId, TraceId, Tracer};

use super::world::{Reply, World};

const FUNCTION: &str = "/v1/functions/f";
/// Of a caller, in W3C's own example.
const CALLER: SpanContext = SpanContext {
    trace: TraceId([0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36]),
    span: SpanId([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]),
};

type Spans = Arc<Mutex<Vec<Span>>>;

/// A node that follows that share of all calls, whose leader says the same to each.
fn world(share: f64, outcome: Outcome) -> (World, Spans) {
    let spans = Spans::default();
    let recorded = Arc::clone(&spans);
    let tracer = Tracer {
        ids: TraceIds::new("<demo>"),
        sampling: Sampling::new(share).expect("a share"),
        record: Box::new(move |span| recorded.lock().expect("no panic").push(span)),
    };
    (World::traced(Some(Arc::new(tracer)), move |_| Some(outcome.clone())), spans)
}

fn issued() -> Outcome {
    Outcome::Issued { command: CommandNumber(17), result: "{}".into() }
}

fn trace_of(key: &str) -> TraceId {
    TraceIds::new("<demo>").of(&RequestId::caller(key).expect("a key"))
}

async fn call(world: &World, key: &str, parent: &str) -> Reply {
    let headers = TestRequest::post().uri(FUNCTION).insert_header(("idempotency-key", key));
    world.ask(headers.insert_header(("traceparent", parent)).set_payload("{}")).await
}

fn header(SpanContext { trace, span }: SpanContext) -> String {
    format!("00-{trace}-{span}-01")
}

/// Catches a caller who cannot find the trace of a call, because the reply does not say it, with an error above all, or the
/// span has another id than it says; and a caller's own trace that does not lead there.
#[actix_web::test]
async fn a_caller_is_told_the_trace_of_the_call_and_the_trace_names_the_caller() {
    let refused = Outcome::Refused {
        at: CommandNumber(9),
        code: "too_little".into(),
        message: "there is too little of it".into(),
    };
    for (outcome, status, name) in
        [(issued(), 200, "issued"), (refused, 422, "refused"), (Outcome::UnknownFunction, 404, "unknown_function")]
    {
        let (world, spans) = world(1.0, outcome);
        let reply = call(&world, "k", &header(CALLER)).await;
        let (trace, span) = (trace_of("k"), trace_of("k").call(NodeId(2)));
        let told = header(SpanContext { trace, span });
        assert_eq!((reply.status.as_u16(), reply.header("traceresponse")), (status, Some(told.as_str())));
        let spans = spans.lock().expect("no panic");
        let [seen] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((seen.trace, seen.stage, seen.id, seen.parent), (trace, Stage::Call, Some(span), None));
        assert_eq!((seen.link, seen.failed), (Some(CALLER), false));
        assert!(seen.attributes.contains(&("quorate.outcome", name.into())), "{seen:?}");
        let command = ("quorate.command", Value::Number(17));
        assert_eq!(seen.attributes.contains(&command), status == 200, "{seen:?}");
    }
}

/// Catches a gateway without data whose span is not the parent of the call that it passes on, two spans of one id when a
/// caller asks again, and a failure of the cluster that does not look like one.
#[actix_web::test]
async fn a_span_of_the_same_trace_is_the_parent() {
    let (world, spans) = world(1.0, issued());
    let parent = SpanContext { trace: trace_of("k"), span: SpanId([9; 8]) };
    call(&world, "k", &header(parent)).await;
    let again = call(&world, "k", "nonsense").await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let seen: Vec<_> = spans.lock().expect("no panic").iter().map(|span| (span.id, span.parent, span.link)).collect();
    assert_eq!(seen, [(Some(trace_of("k").call(NodeId(2))), Some(parent.span), None), (None, None, None)]);

    let (world, spans) = self::world(1.0, Outcome::DiskFull);
    call(&world, "k", "").await;
    assert!(spans.lock().expect("no panic")[0].failed);
}

/// Catches calls that are followed although they are none of the share, or although nobody follows any, and replies that
/// name a trace which does not exist; and the calls of a batch that are not followed.
#[actix_web::test]
async fn only_the_share_is_followed() {
    let (world, spans) = self::world(0.0, issued());
    let reply = call(&world, "k", &header(CALLER)).await;
    assert_eq!(reply.header("traceresponse"), None);
    assert!(spans.lock().expect("no panic").is_empty());

    let (world, spans) = self::world(1.0, issued());
    let calls = r#"[{"function": "f", "arguments": {}, "idempotency_key": "a"}, {"function": "f", "arguments": {}}]"#;
    let batch = TestRequest::post().uri("/v1/calls").insert_header(("traceparent", header(CALLER)));
    assert_eq!(world.ask(batch.set_payload(calls)).await.header("traceresponse"), None, "it has many");
    let links: Vec<_> = spans.lock().expect("no panic").iter().map(|span| (span.trace, span.link)).collect();
    assert_eq!(links.len(), 2, "{links:?}");
    assert!(links[0] == (trace_of("a"), Some(CALLER)) && links[1].0 != links[0].0, "{links:?}");

    let reply = call(&World::new(|_| Some(issued())), "k", &header(CALLER)).await;
    assert_eq!(reply.header("traceresponse"), None);
}
