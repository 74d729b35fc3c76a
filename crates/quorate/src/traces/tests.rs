//! The way from the roles to a collector, which is a script here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::trace::{Sampling, Stage};
use protocol::{RequestId, TraceId};
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(1);
const QUICK: Timing = Timing { gather: SHORT, pause: SHORT, end: LONG };
const GOOD: &str = "200 OK\r\nContent-Length: 2\r\n\r\n{}";
const BUSY: &str = "503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";

/// Runs a test, and says what `/metrics` shows of it.
fn metrics_of(test: impl Future<Output = ()>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    ::metrics::with_local_recorder(&recorder, || actix::System::new().block_on(test));
    recorder.handle().render()
}

/// The value of a metric, by its name with its labels; 0 when nothing was counted.
fn count(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a number"))
}

fn dropped(metrics: &str, reason: &str) -> u64 {
    count(metrics, &format!("quorate_traces_dropped_total{{reason=\"{reason}\"}}"))
}

fn exported(metrics: &str) -> u64 {
    count(metrics, "quorate_traces_exported_total")
}

/// A collector that gives one reply after the other, and then none at all; and what it was sent.
async fn collector(replies: &'static [&str]) -> (SocketAddr, mpsc::UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (send, sent) = mpsc::unbounded_channel();
    let mut replies = replies.iter();
    spawn(async move {
        // Connections are kept, lest one that is closed is taken for an answer.
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            send.send(body(&mut stream).await).ok();
            if let Some(reply) = replies.next() {
                let reply = format!("HTTP/1.1 {}", reply.replacen("\r\n", "\r\nConnection: close\r\n", 1));
                stream.write_all(reply.as_bytes()).await.expect("it is read");
            } else {
                kept.push(stream);
            }
        }
    });
    (address, sent)
}

/// The body of a request that says how long it is.
async fn body(stream: &mut (impl AsyncRead + Unpin)) -> Value {
    let mut read = Vec::new();
    loop {
        assert!(stream.read_buf(&mut read).await.expect("a connection") > 0, "the request is cut short");
        let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if read.len() == end + 4 + length.parse::<usize>().expect("a number") {
            return serde_json::from_slice(&read[end + 4..]).expect("JSON");
        }
    }
}

fn start(collector: SocketAddr, timing: Timing) -> Traces {
    start_with(&format!("http://{collector}"), None, timing)
}

fn start_with(collector: &str, authorities: Option<PathBuf>, timing: Timing) -> Traces {
    let config = Tracing {
        endpoint: format!("{collector}/v1/traces").parse().expect("a URL"),
        authorities,
        sampling: Sampling::new(1.0).expect("a share"),
        service: "quorate".to_owned(),
        timeout: LONG,
    };
    transport::tls::install();
    let client = Collector::new(&config).expect("a client");
    Traces::with(&config, "shop", 7, client, Resource::new("quorate", "shop", "a"), timing)
}

fn record(traces: &Traces, spans: u128) {
    for number in 0..spans {
        let trace: TraceId = traces.tracer().ids.of(&RequestId::Gateway(number));
        (traces.tracer().record)(Span::new(trace, Stage::Sync, Duration::from_millis(2)));
    }
}

fn spans(request: &Value) -> Vec<Value> {
    request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone()
}

/// Catches spans that do not arrive, have the id of another one, or end before they begin; and a count that takes what was
/// not wanted for taken.
#[test]
fn spans_arrive_and_are_counted() {
    const SOME: &str = "200 OK\r\nContent-Length: 43\r\n\r\n{\"partialSuccess\":{\"rejectedSpans\":\"1\"}}   ";
    let metrics = metrics_of(async {
        let (address, mut sent) = collector(&[SOME]).await;
        let traces = start(address, QUICK);
        record(&traces, 3);
        let request = sent.recv().await.expect("a request");
        traces.end().await;
        let spans = spans(&request);
        let ids: BTreeSet<_> = spans.iter().map(|span| span["spanId"].as_str().expect("an id").to_owned()).collect();
        assert_eq!(ids.len(), 3, "{request}");
        let time =
            |span: &Value, which| span[which].as_str().and_then(|time| time.parse::<u128>().ok()).expect("a time");
        for span in &spans {
            let took = time(span, "endTimeUnixNano") - time(span, "startTimeUnixNano");
            assert_eq!(took, 2_000_000, "{span}");
        }
        assert!(sent.try_recv().is_err(), "once");
    });
    assert_eq!((exported(&metrics), dropped(&metrics, "refused")), (2, 1), "{metrics}");
}

/// Catches an encrypted way to a collector that does not work, and one that anybody may be at the end of.
#[test]
fn spans_go_to_a_collector_whose_authority_is_known() {
    transport::tls::install();
    let [own, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made"));
    let directory = tempfile::tempdir().expect("a directory");
    for (trusted, expected) in [(&own, (1, 0)), (&other, (0, 1))] {
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, trusted.cert.pem()).expect("written");
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
        let shown = rustls::ServerConfig::builder().with_no_client_auth();
        let shown = shown.with_single_cert(vec![own.cert.der().clone()], key).expect("they belong together");
        let metrics = metrics_of(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let acceptor = TlsAcceptor::from(Arc::new(shown));
            spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                    body(&mut stream).await;
                    stream.write_all(format!("HTTP/1.1 {GOOD}").as_bytes()).await.expect("it is read");
                }
            });
            let traces = start_with(&format!("https://{address}"), Some(file), QUICK);
            record(&traces, 1);
            traces.end().await;
        });
        assert_eq!((exported(&metrics), dropped(&metrics, "unreachable")), expected);
    }
}

/// Catches a collector that is busy for a moment and costs spans; one that does not want them and is asked for ever; and
/// one that is away for ever and is.
#[test]
fn what_may_pass_is_tried_again_and_nothing_for_ever() {
    const NEVER: &str = "400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    for (replies, requests, expected) in [
        (&[BUSY, BUSY, GOOD][..], 3, (1, 0, 0)),
        (&[NEVER, GOOD], 1, (0, 1, 0)),
        (&[BUSY, BUSY, BUSY, GOOD], 3, (0, 0, 1)),
    ] {
        let metrics = metrics_of(async {
            let (address, mut sent) = collector(replies).await;
            let traces = start(address, QUICK);
            record(&traces, 1);
            let first = sent.recv().await.expect("a request");
            for _ in 1..requests {
                assert_eq!(sent.recv().await.expect("the same again"), first);
            }
            traces.end().await;
            assert!(sent.try_recv().is_err(), "{replies:?}");
        });
        let counted = (exported(&metrics), dropped(&metrics, "refused"), dropped(&metrics, "unreachable"));
        assert_eq!(counted, expected, "{replies:?}");
    }
}

/// Catches roles that wait for a collector that never answers, spans that fill the memory, or are dropped and not counted,
/// and a node that cannot stop.
#[test]
fn a_collector_that_never_answers_harms_nobody() {
    const MORE: u32 = 100;
    let metrics = metrics_of(async {
        let (address, mut sent) = collector(&[]).await;
        let traces = start(address, Timing { end: Duration::from_millis(50), ..QUICK });
        // Nothing else runs on this thread meanwhile: so many find no room.
        record(&traces, QUEUE as u128 + u128::from(MORE));
        sent.recv().await.expect("it has begun to send");
        let began = tokio::time::Instant::now();
        traces.end().await;
        assert!(began.elapsed() < LONG / 2, "the end waits for the collector");
    });
    assert_eq!((dropped(&metrics, "queue_full"), exported(&metrics)), (MORE.into(), 0));
}

/// Catches a node that stops and takes the last spans with it, of more than one request, and one that waits at its end
/// for a collector that is away.
#[test]
fn the_end_sends_what_waits() {
    const SPANS: u64 = 1_000;
    let slow = Timing { gather: LONG, pause: LONG, end: LONG };
    let metrics = metrics_of(async {
        let (address, _sent) = collector(&[GOOD, GOOD]).await;
        let traces = start(address, slow);
        record(&traces, SPANS.into());
        traces.end().await;
    });
    assert_eq!(exported(&metrics), SPANS);
    let metrics = metrics_of(async {
        // Bound, and nobody listens.
        let nobody = TcpSocket::new_v4().expect("a socket");
        nobody.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let traces = start(nobody.local_addr().expect("it is bound"), slow);
        record(&traces, 1);
        let began = tokio::time::Instant::now();
        traces.end().await;
        assert!(began.elapsed() < LONG / 2, "it pauses before it asks again");
    });
    assert_eq!(dropped(&metrics, "unreachable"), 1);
}
