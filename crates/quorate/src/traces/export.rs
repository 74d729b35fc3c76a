//! Gathers spans and sends them to the collector, one request at a time.
//!
//! What comes while a request is under way waits in the queue; what finds that full is dropped. A collector that is away
//! or overloaded is asked a few times more, then what was for it is dropped. All that is dropped is counted, by its
//! reason. Nobody waits for any of it.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use metrics::Counter;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Timed;
use super::otlp::{self, Resource};
use crate::config::Tracing;
use crate::failure::Failure;

/// Spans of one request: about 250 kB.
const BATCH: usize = 512;
/// How often one request is sent.
const ATTEMPTS: u32 = 3;
/// The longest that a collector may have itself waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// What is read of a reply; it says little.
const REPLY_BYTES: usize = 16 << 10;
/// What OTLP says of these: ask again.
const PASSING: [StatusCode; 4] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// How long things take that nobody waits for but the end of the node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// How long spans are gathered for one request.
    pub(super) gather: Duration,
    /// The first pause before a request is sent again; doubles.
    pub(super) pause: Duration,
    /// How long the end may take.
    pub(super) end: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { gather: second, pause: second, end: second }
    }
}

/// Spans that are dropped for that reason.
pub(super) fn dropped(reason: &'static str) -> Counter {
    metrics::counter!("quorate_traces_dropped_total", "reason" => reason)
}

/// Where spans are sent.
pub(super) struct Collector {
    client: reqwest::Client,
    url: Url,
}

/// Why a request was not taken.
enum Refused {
    /// It would not be, if it were sent again.
    ForGood(String),
    /// It may be later; perhaps after so long.
    ForNow(String, Option<Duration>),
}

impl Collector {
    /// # Errors
    /// Authorities that cannot be used.
    pub(super) fn new(config: &Tracing) -> Result<Self, Failure> {
        let file = config.authorities.as_deref();
        let authorities = file.map(|file| crate::certificates::authorities("tracing.otlp_ca", file)).transpose()?;
        let authorities = authorities.iter().flatten().map(|der| reqwest::Certificate::from_der(der));
        let client = reqwest::Client::builder()
            .tls_certs_only(authorities.collect::<Result<Vec<_>, _>>().context("tracing.otlp_ca")?)
            .timeout(config.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("the HTTP client for tracing.otlp_endpoint")?;
        Ok(Self { client, url: config.endpoint.clone() })
    }

    /// Sends one request; says how many of its spans were not wanted.
    async fn post(&self, body: Bytes) -> Result<u64, Refused> {
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let unreachable = |error: reqwest::Error| Refused::ForNow(crate::client::innermost(&error), None);
        let mut reply = request.send().await.map_err(unreachable)?;
        let status = reply.status();
        if !status.is_success() {
            let why = format!("the collector says {status}");
            if !PASSING.contains(&status) {
                return Err(Refused::ForGood(why));
            }
            let after = reply.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(Refused::ForNow(why, after.map(Duration::from_secs)));
        }
        let mut said = Vec::new();
        // What it says beyond that, or a connection that breaks now, changes nothing: the spans are there.
        while said.len() < REPLY_BYTES
            && let Ok(Some(piece)) = reply.chunk().await
        {
            said.extend_from_slice(&piece);
        }
        Ok(otlp::rejected(&said))
    }
}

/// See the module.
pub(super) struct Exporter {
    spans: mpsc::Receiver<Timed>,
    ending: watch::Receiver<bool>,
    collector: Collector,
    resource: Resource,
    timing: Timing,
    /// It was said that spans are dropped.
    said: bool,
    exported: Counter,
    unreachable: Counter,
    refused: Counter,
}

impl Exporter {
    pub(super) fn new(
        spans: mpsc::Receiver<Timed>,
        ending: watch::Receiver<bool>,
        collector: Collector,
        resource: Resource,
        timing: Timing,
    ) -> Self {
        Self {
            spans,
            ending,
            collector,
            resource,
            timing,
            said: false,
            exported: metrics::counter!("quorate_traces_exported_total"),
            unreachable: dropped("unreachable"),
            refused: dropped("refused"),
        }
    }

    /// Sends spans until the end is asked for and none waits.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.gather(&mut batch).await;
            if batch.is_empty() {
                return;
            }
            self.send(&batch).await;
            batch.clear();
        }
    }

    /// The spans of one request: those that come soon after the first. None only at the end.
    async fn gather(&mut self, batch: &mut Vec<Timed>) {
        // The first one comes when it comes.
        let mut until = None;
        while batch.len() < BATCH {
            let enough = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                came = self.spans.recv_many(batch, room) => if came == 0 { return },
                () = ends(&mut self.ending) => return,
                () = enough => return,
            }
            until.get_or_insert_with(|| Instant::now() + self.timing.gather);
        }
    }

    async fn send(&mut self, batch: &[Timed]) {
        let count = batch.len() as u64;
        let body = Bytes::from(otlp::encode(&self.resource, batch));
        let mut pause = self.timing.pause;
        for attempt in 1..=ATTEMPTS {
            let (why, after) = match self.collector.post(body.clone()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.exported.increment(count - rejected);
                    self.refused.increment(rejected);
                    return self.goes_on();
                }
                Err(Refused::ForGood(why)) => {
                    self.refused.increment(count);
                    return self.say(&why);
                }
                Err(Refused::ForNow(why, after)) => (why, after),
            };
            let wait = after.unwrap_or(pause).min(RETRY_AFTER_MAX);
            pause *= 2;
            if attempt == ATTEMPTS || tokio::time::timeout(wait, ends(&mut self.ending)).await.is_ok() {
                self.unreachable.increment(count);
                return self.say(&why);
            }
        }
    }

    /// Once for each outage.
    fn say(&mut self, why: &str) {
        if !std::mem::replace(&mut self.said, true) {
            warn!(collector = %self.collector.url, why, "the collector does not take spans; they are dropped and counted, calls go on");
        }
    }

    fn goes_on(&mut self) {
        if std::mem::take(&mut self.said) {
            info!(collector = %self.collector.url, "the collector takes spans again");
        }
    }
}

/// Waits for the end. Who could ask for it is gone only when nothing goes on.
async fn ends(ending: &mut watch::Receiver<bool>) {
    _ = ending.wait_for(|ends| *ends).await;
}
