//! What is measured while it runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Refusal;

/// Latencies above a minute count as a minute.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Counters and latencies of one stretch of time.
pub(crate) struct Record {
    /// Since when.
    pub(crate) start: Instant,
    /// Until when; moves until the end.
    pub(crate) end: Instant,
    /// Latencies of calls that succeeded, and ages of those that were due and unanswered at the end, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Times of refusals since their calls were sent, in microseconds.
    pub(crate) refusals: Histogram<u64>,
    /// Refusals that say when to come back.
    pub(crate) say_when: u64,
    /// Calls that were sent.
    pub(crate) sent: u64,
    /// Calls that succeeded.
    pub(crate) successes: u64,
    /// Calls that were due and unanswered at the end of an open loop.
    pub(crate) unanswered: u64,
    /// Other outcomes by code, refusals among them.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Calls sent again.
    pub(crate) retries: u64,
    last_success: Instant,
    gap: (Duration, Instant),
}

impl Record {
    /// Begins to record.
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            end: start,
            latencies: histogram(),
            refusals: histogram(),
            say_when: 0,
            sent: 0,
            successes: 0,
            unanswered: 0,
            errors: BTreeMap::new(),
            retries: 0,
            last_success: start,
            gap: (Duration::ZERO, start),
        }
    }

    /// So many calls of one request that was due then succeeded.
    pub(crate) fn success(&mut self, due: Instant, now: Instant, calls: u64) {
        if calls == 0 {
            return;
        }
        self.age(due, now);
        self.successes += calls;
        self.close_gap(now);
        self.last_success = now;
    }

    /// A call that was due then has no outcome at the end.
    pub(crate) fn unanswered(&mut self, due: Instant, end: Instant) {
        self.age(due, end);
        self.unanswered += 1;
    }

    fn age(&mut self, due: Instant, now: Instant) {
        self.latencies.saturating_record(micros(now.saturating_duration_since(due)));
    }

    /// A call ended in another way.
    pub(crate) fn error(&mut self, code: &str, refusal: Option<Refusal>) {
        if let Some(Refusal { after, says_when }) = refusal {
            self.refusals.saturating_record(micros(after));
            self.say_when += u64::from(says_when);
        }
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(code.to_owned(), 1)),
        }
    }

    /// Ends the recording.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.end = now;
        self.close_gap(now);
    }

    fn close_gap(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last_success);
        if gap > self.gap.0 {
            self.gap = (gap, self.last_success);
        }
    }

    /// The longest time without a success, and how long after the start it began.
    pub(crate) fn longest_gap(&self) -> (Duration, Duration) {
        (self.gap.0, self.gap.1.saturating_duration_since(self.start))
    }

    /// How long it has been recording.
    pub(crate) fn elapsed(&self) -> Duration {
        self.end.saturating_duration_since(self.start)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, micros(LATENCY_MAX), 3).expect("bounds as the histogram wants them")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now;

    /// Catches a gap that is not seen because nothing succeeded at the start or at the end.
    #[test]
    fn the_longest_gap_counts_the_ends_too() {
        let start = now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let gap = |successes: &[u64], end: u64| {
            let mut record = Record::new(start);
            for millis in successes {
                record.success(at(millis.saturating_sub(1)), at(*millis), 1);
            }
            record.finish(at(end));
            let (gap, from) = record.longest_gap();
            (gap.as_millis(), from.as_millis())
        };
        assert_eq!(gap(&[10, 20, 320, 330], 400), (300, 20));
        assert_eq!(gap(&[500, 510], 520), (500, 0));
        assert_eq!(gap(&[10, 20], 900), (880, 20));
        assert_eq!(gap(&[], 700), (700, 0));
    }

    /// Catches a request of which nothing succeeded whose time counts as that of a success, or ends a gap.
    #[test]
    fn a_request_of_which_nothing_succeeded_is_no_success() {
        let start = now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut record = Record::new(start);
        record.success(at(1), at(5), 0);
        record.success(at(7), at(8), 3);
        record.finish(at(9));
        assert_eq!((record.successes, record.latencies.len(), record.latencies.max()), (3, 1, 1_000));
        assert_eq!(record.longest_gap().0, Duration::from_millis(8));
    }
}
