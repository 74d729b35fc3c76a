//! A collector of spans: takes OTLP over HTTP, as far as the nodes speak it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A span that arrived.
#[derive(Clone, Debug)]
pub struct CollectedSpan {
    /// The node that it is from, by name.
    pub node: String,
    /// The cluster of the node.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// Its trace.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// The id of its parent; empty without one.
    pub parent: String,
    /// The span of another trace that it is linked to, as `TRACE SPAN`; empty without one.
    pub link: String,
    /// When it began, in nanoseconds since 1970.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// Its attributes, as texts.
    pub attributes: BTreeMap<String, String>,
}

/// See the module. It ends with the test's runtime.
#[derive(Clone)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<CollectedSpan>>>,
}

impl Collector {
    /// One that takes all that it is sent.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let collector = Self { address: listener.local_addr().expect("it is bound"), spans: Arc::default() };
        let spans = Arc::clone(&collector.spans);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&spans)));
            }
        });
        collector
    }

    /// The setting that sends spans here.
    #[must_use]
    pub fn setting(&self) -> String {
        format!("tracing.otlp_endpoint=http://{}", self.address)
    }

    /// The spans of a trace so far, by the time of their beginning.
    ///
    /// # Panics
    /// When something arrived that is none.
    #[must_use]
    pub fn trace(&self, id: &str) -> Vec<CollectedSpan> {
        let spans = self.spans.lock().expect("what arrives can be read");
        let mut found: Vec<_> = spans.iter().filter(|span| span.trace == id).cloned().collect();
        found.sort_by_key(|span| span.began);
        found
    }
}

/// One request after the other, until the node closes the connection.
async fn serve(mut stream: TcpStream, spans: Arc<Mutex<Vec<CollectedSpan>>>) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|length| length > 0) {
        let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|end| end + 4) else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let whole = end + length.expect("a request says how long it is");
        if read.len() < whole {
            continue;
        }
        // Under the lock: what is no request poisons it, and the test fails.
        spans.lock().expect("what arrives can be read").extend(collected(&read[end..whole]));
        read.drain(..whole);
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    }
}

fn collected(body: &[u8]) -> Vec<CollectedSpan> {
    let request: Value = serde_json::from_slice(body).expect("JSON");
    let resource = &request["resourceSpans"][0];
    let of = attributes(&resource["resource"]);
    let spans = resource["scopeSpans"][0]["spans"].as_array().expect("a list of spans");
    spans
        .iter()
        .map(|span| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let time = |value: &Value| value.as_str().and_then(|time| time.parse().ok()).expect("a time");
            let link = span["links"].get(0).map(|link| format!("{} {}", text(&link["traceId"]), text(&link["spanId"])));
            CollectedSpan {
                node: of["service.instance.id"].clone(),
                cluster: of["service.namespace"].clone(),
                name: text(&span["name"]),
                trace: text(&span["traceId"]),
                id: text(&span["spanId"]),
                parent: text(&span["parentSpanId"]),
                link: link.unwrap_or_default(),
                began: time(&span["startTimeUnixNano"]),
                ended: time(&span["endTimeUnixNano"]),
                attributes: attributes(span),
            }
        })
        .collect()
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let attributes = of["attributes"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    attributes
        .map(|attribute| {
            let value = &attribute["value"];
            (text(&attribute["key"]), text(value.get("stringValue").unwrap_or(&value["intValue"])))
        })
        .collect()
}
