//! How far a long piece of work is, on one line of standard error.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(500);

/// The line. On no terminal, nothing is shown.
pub(super) struct Progress {
    what: &'static str,
    /// In bytes; 0 when it is not known.
    total: u64,
    done: u64,
    begun: Instant,
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, done: 0, begun: now(), shown: None }
    }

    /// So many bytes are done.
    pub(super) fn reached(&mut self, bytes: u64) {
        self.done = bytes;
        let now = now();
        if stderr().is_terminal() && self.shown.is_none_or(|shown| now.duration_since(shown) >= EVERY) {
            self.shown = Some(now);
            self.show("");
        }
    }

    /// The work is done: the line stays.
    pub(super) fn end(&mut self) {
        if self.shown.take().is_some() {
            self.show("\n");
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn show(&self, end: &str) {
        let (megabytes, seconds) = (self.done as f64 / 1e6, now().duration_since(self.begun).as_secs_f64());
        let share = match self.total {
            0 => String::new(),
            total => format!(" {:3.0} %", 100.0 * self.done as f64 / total as f64),
        };
        let rate = if seconds > 0.0 { megabytes / seconds } else { 0.0 };
        // A line that cannot be shown is missed by nobody.
        _ = write!(stderr(), "\r{}:{share} {megabytes:.1} MB, {rate:.1} MB/s   {end}", self.what);
    }
}

#[expect(clippy::disallowed_methods, reason = "a rate for people")]
fn now() -> Instant {
    Instant::now()
}
