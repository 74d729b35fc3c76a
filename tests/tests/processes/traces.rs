//! Traces of single calls (ADR 0035), as a collector gets them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_tests::cluster::{Cluster, CollectedSpan, Collector, Gateway, Reply, eventually, send};
use serde_json::json;
use tokio::net::TcpSocket;

const CALLER: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

/// What every call that changes something goes through: each stage, and the nodes at which.
fn expected(gateway: &str, leader: &str) -> BTreeMap<String, Vec<String>> {
    let all = ["a", "b", "c"].as_slice();
    let at = [
        ("call", &[gateway][..]),
        ("execute", &[leader]),
        ("queue", &[leader]),
        ("vote", &[leader]),
        ("sync", all),
        ("apply", all),
    ];
    at.map(|(name, nodes)| (name.to_owned(), nodes.iter().map(ToString::to_string).collect())).into()
}

fn stages(spans: &[CollectedSpan]) -> BTreeMap<String, Vec<String>> {
    let mut stages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for span in spans {
        stages.entry(span.name.clone()).or_default().push(span.node.clone());
    }
    stages.values_mut().for_each(|nodes| nodes.sort());
    stages
}

fn only<'a>(spans: &'a [CollectedSpan], name: &str) -> &'a CollectedSpan {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

/// The trace and the span that a reply names.
fn told(reply: &Reply) -> (String, String) {
    let parts: Vec<&str> = reply.header("traceresponse").split('-').collect();
    let [_, trace, span, "01"] = parts[..] else { panic!("{reply:?}") };
    (trace.to_owned(), span.to_owned())
}

async fn put(cluster: &Cluster, url: String, key: &str) -> Reply {
    let call = cluster.client().post(url).header("Idempotency-Key", key);
    let call = call.header("traceparent", format!("00-{CALLER}-01")).json(&json!({"key": "k", "value": key}));
    let reply = send(call).await.expect("a living node answers");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

fn nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_nanos()).expect("before 2554")
}

/// Catches a node or a stage that is missing in the trace of a call, has another id, hangs below another span, or tells a
/// time that cannot be; a line of the log that does not name it; a trace that does not lead back to the caller's; and one that is broken by a gateway without data.
#[tokio::test]
async fn a_call_is_one_trace_from_its_gateway_to_every_learner() {
    let collector = Collector::start().await;
    let lines = "log.level=info,quorate_http_api::audit=debug".to_owned();
    let tracing = [collector.setting(), "tracing.sample=1".to_owned(), lines];
    let cluster = Cluster::start("traced", 3, &tracing.each_ref().map(String::as_str)).await;
    let leader = cluster.leader().await;
    let (follower, names) = ((leader + 1) % 3, ["a", "b", "c"]);
    let before = nanoseconds();
    let reply = put(&cluster, cluster.url(follower, "/v1/functions/kv.put"), "order-17").await;
    let after = nanoseconds();
    let (trace, root) = told(&reply);
    let expected_stages = expected(names[follower], names[leader]);
    let spans = eventually("the whole trace", async || {
        let spans = collector.trace(&trace);
        (spans.len() >= 10).then_some(spans)
    })
    .await;
    assert_eq!(stages(&spans), expected_stages, "{spans:#?}");

    let (call, vote) = (only(&spans, "call"), only(&spans, "vote"));
    assert_eq!((&call.id, call.parent.as_str(), call.link.as_str()), (&root, "", CALLER.replace('-', " ").as_str()));
    assert_eq!((call.attributes["quorate.function"].as_str(), call.cluster.as_str()), ("kv.put", "traced"));
    let command = reply.command().expect("it changed something").to_string();
    for span in &spans {
        let parent = match span.name.as_str() {
            "call" => "",
            "sync" | "apply" => &vote.id,
            _ => &root,
        };
        assert_eq!(span.parent, parent, "{span:#?} in {spans:#?}");
        assert!(span.began <= span.ended && span.began >= before, "{span:#?}");
        assert!(["execute", "queue"].contains(&span.name.as_str()) || span.attributes["quorate.command"] == command);
    }
    // All nodes have one clock here.
    let (execute, queue) = (only(&spans, "execute"), only(&spans, "queue"));
    let order = [call.began, execute.began, execute.ended, queue.ended, vote.ended, call.ended, after];
    // A span is put to its time when it is recorded, which a busy machine may delay.
    let slack = 250_000_000;
    assert!(order.windows(2).all(|pair| pair[0] <= pair[1] + slack), "{order:?} {spans:#?}");
    let synced = spans.iter().filter(|span| span.name == "sync" && span.ended <= vote.ended + slack).count();
    assert!(synced >= 2, "a majority set has synced before the votes are counted: {spans:#?}");

    let line = ["a call has ended", "function=\"kv.put\"", "outcome=\"done\"", &format!("trace={trace}")];
    cluster.logged(follower, &line).await;

    let gateway = Gateway::boot(&cluster, &[follower], &tracing);
    gateway.ready().await;
    let reply = put(&cluster, gateway.url("/v1/functions/kv.put"), "order-18").await;
    let (trace, root) = told(&reply);
    let spans = eventually("the whole trace", async || {
        let spans = collector.trace(&trace);
        (spans.len() >= 11).then_some(spans)
    })
    .await;
    let (forward, call) = (only(&spans, "forward"), only(&spans, "call"));
    assert_eq!((forward.node.as_str(), forward.parent.as_str()), ("front", ""));
    assert_eq!(forward.link, CALLER.replace('-', " "));
    assert_eq!((&call.id, &call.parent, call.link.as_str()), (&root, &forward.id, ""), "{spans:#?}");
    assert_eq!(forward.attributes["http.response.status_code"], "200");
    for node in 0..3 {
        assert!(cluster.metric(node, "quorate_traces_exported_total").await > 0.0);
        assert_eq!(cluster.metric(node, "quorate_traces_dropped_total{reason=\"unreachable\"}").await, 0.0);
    }
}

/// Catches calls that fail or wait, and a node that does not stop, because the collector takes connections and never
/// answers; and an operator who is not told.
#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    let silent = TcpSocket::new_v4().expect("a socket");
    silent.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let silent = silent.listen(16).expect("it listens, and accepts nothing");
    let endpoint = format!("tracing.otlp_endpoint=http://{}", silent.local_addr().expect("it is bound"));
    let mut cluster = Cluster::start("traced", 1, &[&endpoint, "tracing.sample=1", "tracing.timeout=100ms"]).await;
    for number in 0..20 {
        let arguments = json!({"key": "k", "value": number});
        assert_eq!(cluster.call(0, "kv.put", &arguments).await.status, 200);
    }
    cluster.logged(0, &["the collector does not take spans"]).await;
    assert!(cluster.metric(0, "quorate_traces_dropped_total{reason=\"unreachable\"}").await > 0.0);
    cluster.terminate(0);
    assert_eq!(cluster.ended(0).await.code(), Some(0));
    drop(silent);
}
