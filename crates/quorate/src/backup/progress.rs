//! How far a long piece of work is, on standard error: a line that changes, on a terminal; elsewhere, which mostly is a log,
//! a line now and then.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

/// How often the line changes.
const ON_TERMINAL: Duration = Duration::from_millis(500);
/// How often there is one in a log; none of what takes no longer.
const IN_LOG: Duration = Duration::from_secs(10);

/// What is said.
pub(super) struct Progress {
    lines: Lines,
    /// In bytes; 0 when it is not known.
    total: u64,
    begun: Instant,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let lines = Lines { what, is_terminal: stderr().is_terminal(), done: Done::default(), shown: None };
        Self { lines, total, begun: now() }
    }

    /// So many bytes are done.
    pub(super) fn reached(&mut self, bytes: u64) {
        self.reached_part(bytes, (bytes, self.total));
    }

    /// The same where something else than bytes tells how much that is of all: so many, of so many.
    pub(super) fn reached_part(&mut self, bytes: u64, part: (u64, u64)) {
        show(self.lines.reached(now().duration_since(self.begun), Done { bytes, part }));
    }

    /// The work is done: the line stays.
    pub(super) fn end(&mut self) {
        show(self.lines.end(now().duration_since(self.begun)));
    }
}

fn show(text: Option<String>) {
    // A line that cannot be shown is missed by nobody.
    _ = text.map(|text| stderr().write_all(text.as_bytes()));
}

#[derive(Clone, Copy, Default)]
struct Done {
    bytes: u64,
    /// So many, of so many; 0 when that is not known.
    part: (u64, u64),
}

/// What is said, and when.
struct Lines {
    what: &'static str,
    is_terminal: bool,
    done: Done,
    /// When the last one was, since the beginning.
    shown: Option<Duration>,
}

impl Lines {
    /// The line that is due, if one is, so long after the beginning.
    fn reached(&mut self, after: Duration, done: Done) -> Option<String> {
        self.done = done;
        let is_due = if self.is_terminal {
            self.shown.is_none_or(|shown| after.saturating_sub(shown) >= ON_TERMINAL)
        } else {
            after.saturating_sub(self.shown.unwrap_or_default()) >= IN_LOG
        };
        is_due.then(|| {
            self.shown = Some(after);
            if self.is_terminal { format!("\r{}   ", self.line(after)) } else { format!("{}\n", self.line(after)) }
        })
    }

    /// The last line, where there was one.
    fn end(&mut self, after: Duration) -> Option<String> {
        self.shown.take()?;
        let begin = if self.is_terminal { "\r" } else { "" };
        Some(format!("{begin}{}{}\n", self.line(after), if self.is_terminal { "   " } else { "" }))
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn line(&self, after: Duration) -> String {
        let (megabytes, seconds) = (self.done.bytes as f64 / 1e6, after.as_secs_f64());
        let share = match self.done.part {
            (_, 0) => String::new(),
            (done, total) => format!(" {:3.0} %", (100.0 * done as f64 / total as f64).min(100.0)),
        };
        let rate = if seconds > 0.0 { megabytes / seconds } else { 0.0 };
        format!("{}:{share} {megabytes:.1} MB, {rate:.1} MB/s", self.what)
    }
}

#[expect(clippy::disallowed_methods, reason = "a rate for people")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of a gigabyte that comes in 40 s, a megabyte at a time; `total` counts records, ten for each.
    fn shown(is_terminal: bool, total: u64) -> Vec<String> {
        let mut lines = Lines { what: "receiving", is_terminal, done: Done::default(), shown: None };
        let after = |megabytes: u64| Duration::from_millis(40 * megabytes);
        let reached = |megabytes: u64| Done { bytes: megabytes * 1_000_000, part: (10 * megabytes, total) };
        let mut shown: Vec<_> = (0..=1000).filter_map(|at| lines.reached(after(at), reached(at))).collect();
        shown.extend(lines.end(after(1000)));
        shown
    }

    /// Catches a backup by cron, systemd or `kubectl exec` of which nothing is seen for hours; one that fills the log there;
    /// and returns of the carriage in it.
    #[test]
    fn without_a_terminal_there_is_a_line_now_and_then() {
        let lines = [
            "receiving:  25 % 250.0 MB, 25.0 MB/s\n",
            "receiving:  50 % 500.0 MB, 25.0 MB/s\n",
            "receiving:  75 % 750.0 MB, 25.0 MB/s\n",
            "receiving: 100 % 1000.0 MB, 25.0 MB/s\n",
            "receiving: 100 % 1000.0 MB, 25.0 MB/s\n",
        ];
        assert_eq!(shown(false, 10_000), lines);
        assert_eq!(shown(false, 0)[0], "receiving: 250.0 MB, 25.0 MB/s\n", "of how much is not known");
        assert!(shown(false, 5_000)[3].contains(" 100 %"), "there were more than it said");
        let mut short = Lines { what: "verifying", is_terminal: false, done: Done::default(), shown: None };
        assert_eq!(short.reached(Duration::from_secs(9), Done::default()), None);
        assert_eq!(short.end(Duration::from_secs(9)), None, "nobody waited for it");
    }

    /// Catches a terminal on which lines follow each other, or nothing is seen at first.
    #[test]
    fn on_a_terminal_one_line_changes() {
        let shown = shown(true, 10_000);
        // Each half second, the first at once, the last at the end.
        assert_eq!(shown.len(), 78);
        assert!(shown.iter().all(|line| line.starts_with("\rreceiving: ")));
        let (last, before) = shown.split_last().expect("some");
        assert!(last.ends_with('\n') && !before.iter().any(|line| line.contains('\n')));
    }
}
