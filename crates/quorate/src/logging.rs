//! Logs of a node: lines on standard error, text or JSON.
//!
//! A node must not wait for whoever reads its standard error: lines go through a bounded queue
//! to a thread of their own, and when the reader is slower than the node, lines are dropped
//! rather than votes delayed. How many is said at the end.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::audit::Sealing;
use crate::config::{Log, LogFormat};

/// Lines that wait for the reader: a second or so of a very talkative node, about 10 MB.
const LINES_WAITING_MAX: usize = 65_536;

/// Keeps logging alive; dropping it writes what still waits.
pub(crate) struct Logging {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl Drop for Logging {
    fn drop(&mut self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            tracing::warn!(dropped, "log lines were dropped because standard error was read too slowly");
        }
    }
}

/// Libraries that say too much, and what is heard of them unless `log.level` names them.
const QUIET: [(&str, &str); 2] = [
    // It says `ERROR` of requests that cannot be read: anybody who reaches the port could fill the log.
    ("actix_http::h1", "off"),
    // How its threads begin and end, those of the server too that a node has until it serves.
    ("actix_server", "warn"),
];

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let unnamed = QUIET.iter().filter(|(library, _)| !level.contains(library));
    let quiet: String = unnamed.map(|(library, level)| format!("{library}={level},")).collect();
    EnvFilter::try_new(quiet + level).context("log.level")
}

/// Starts logging for this process.
///
/// # Errors
/// When the level is not one, or logging was started before.
pub(crate) fn start(log: &Log) -> anyhow::Result<Logging> {
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX).finish(io::stderr());
    let dropped = writer.error_counter();
    let filter = filter(&log.level)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).map_event_format(Sealing::new).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).map_event_format(Sealing::new).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))?;
    Ok(Logging { dropped, _writer: guard })
}
