//! Where the spans of calls that are followed go: to a collector, by OTLP over HTTP (ADR 0035).
//!
//! - This module: the queue between the roles, which never wait, and the collector.
//! - [`export`]: gathers spans and sends them; what it cannot send it drops and counts.
//! - [`otlp`]: the form in which they are sent.

mod export;
mod otlp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::spawn;
use metrics::Counter;
use protocol::Tracer;
use protocol::trace::{Span, SpanId, TraceIds};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::since_1970;
use crate::config::Tracing;
use crate::failure::Failure;
use export::{Collector, Exporter, Timing};
use otlp::Resource;

/// Spans that wait to be sent: about 2 MB; some seconds of them, where every hundredth call is followed.
const QUEUE: usize = 4_096;

/// A span with its times since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Timed {
    span: Span,
    id: SpanId,
    began: Duration,
    ended: Duration,
}

/// The tracing of a node that follows calls.
pub(crate) struct Traces {
    tracer: Arc<Tracer>,
    ending: watch::Sender<bool>,
    exporter: JoinHandle<()>,
    /// How long the end may take.
    patience: Duration,
}

impl Traces {
    /// Follows calls from now on, if that is asked for. `node` is what this node of that cluster is called; `chance` makes
    /// its spans different from all others. To be called on a runtime, after the recorder of metrics is installed.
    ///
    /// # Errors
    /// Which key names a file that is not usable, and why.
    pub(crate) fn start(
        config: Option<&Tracing>,
        cluster: &str,
        node: &str,
        chance: u64,
    ) -> Result<Option<Self>, Failure> {
        let Some(config) = config else { return Ok(None) };
        let collector = Collector::new(config)?;
        let resource = Resource::new(&config.service, cluster, node);
        Ok(Some(Self::with(config, cluster, chance, collector, resource, Timing::default())))
    }

    fn with(
        config: &Tracing,
        cluster: &str,
        chance: u64,
        collector: Collector,
        resource: Resource,
        timing: Timing,
    ) -> Self {
        let (queue, spans) = mpsc::channel(QUEUE);
        let (ending, ends) = watch::channel(false);
        let recorder = Recorder { queue, ids: AtomicU64::new(chance), full: export::dropped("queue_full") };
        let tracer = Tracer {
            ids: TraceIds::new(cluster),
            sampling: config.sampling,
            record: Box::new(move |span| recorder.record(span)),
        };
        let patience = timing.end;
        let exporter = spawn(Exporter::new(spans, ends, collector, resource, timing).run());
        Self { tracer: Arc::new(tracer), ending, exporter, patience }
    }

    /// What the roles tell of calls.
    pub(crate) fn tracer(&self) -> Arc<Tracer> {
        Arc::clone(&self.tracer)
    }

    /// Sends what waits, as far as there is time; the rest is dropped.
    pub(crate) async fn end(mut self) {
        self.ending.send_replace(true);
        if tokio::time::timeout(self.patience, &mut self.exporter).await.is_err() {
            self.exporter.abort();
        }
    }
}

/// What every role calls, on its own thread.
struct Recorder {
    queue: mpsc::Sender<Timed>,
    /// The ids of spans that nobody names as a parent.
    ids: AtomicU64,
    full: Counter,
}

impl Recorder {
    fn record(&self, span: Span) {
        let ended = since_1970().saturating_sub(span.ago);
        let own = || SpanId(self.ids.fetch_add(1, Ordering::Relaxed).max(1).to_be_bytes());
        let timed = Timed { id: span.id.unwrap_or_else(own), began: ended.saturating_sub(span.took), ended, span };
        if self.queue.try_send(timed).is_err() {
            self.full.increment(1);
        }
    }
}

#[cfg(test)]
mod tests;
