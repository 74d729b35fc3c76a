//! Whether more calls come than can be executed.
//!
//! Calls queue while the window is full. A queue that comes and goes takes up bursts, and the calls of a moment in which
//! nothing could be decided. One that stands only makes every call late: their gateways send them again, and their callers
//! give up. So, as CoDel does (RFC 8289): once all that were taken up for [`INTERVAL`] had waited for [`TARGET`] and more,
//! calls are refused while the first in the queue has waited that long. What is executed meanwhile is as much as before. That
//! is over when for as long again none had waited so: else, as soon as the queue is short, calls would be let in for another
//! interval, and it would grow as long as it was.
//!
//! - While nothing is taken up nothing is learnt, neither that there is an overload nor that it is over.
//! - Calls of patient callers and of operators are only bounded by the number of all kept calls.

use std::time::Duration;

use protocol::token::is_for_operators;
use protocol::{Call, Tick};

/// What a call may wait for room: less than a gateway waits before it sends one again.
const TARGET: Duration = Duration::from_millis(250);
/// A queue that lasts so long is no burst.
const INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Backlog {
    /// Since when all that were taken up had waited for long.
    since: Option<Tick>,
    /// That was so for the interval.
    stands: bool,
    /// When the last one was taken up that had.
    last: Tick,
}

impl Backlog {
    /// A call is executed, which has waited so long for it.
    pub(super) fn taken_up(&mut self, waited: Duration, now: Tick) {
        if waited < TARGET {
            self.since = None;
            self.stands &= now.since(self.last) < INTERVAL;
            return;
        }
        self.last = now;
        let since = *self.since.get_or_insert(now);
        self.stands |= now.since(since) >= INTERVAL;
    }

    /// Whether a call that comes is refused, where the first in the queue has waited so long.
    pub(super) fn refuses(&self, call: &Call, first_waited: Duration) -> bool {
        self.stands && first_waited >= TARGET && call.patience.is_zero() && !is_for_operators(&call.function)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::{Fingerprint, RequestId};

    use super::*;

    /// Catches calls that are let in for another second whenever the queue was short for a moment, so that it grows as long
    /// again; and ones that are refused for good.
    #[test]
    fn a_queue_that_was_short_for_a_moment_stands_still() {
        let call = Call {
            request: RequestId::Gateway(1),
            fingerprint: Fingerprint::default(),
            function: "f".into(),
            arguments: Bytes::new(),
            patience: Duration::ZERO,
            copy: 0,
        };
        let mut backlog = Backlog::default();
        let mut then = |waited: u64, at: u64| {
            backlog.taken_up(Duration::from_millis(waited), Tick(at * 1_000));
            [250, 249].map(|first| backlog.refuses(&call, Duration::from_millis(first)))
        };
        assert_eq!(then(250, 0), [false, false]);
        assert_eq!(then(999, 999), [false, false], "a burst");
        assert_eq!(then(250, 1_000), [true, false]);
        assert_eq!(then(10, 1_100), [true, false], "it may grow again at once");
        assert_eq!(then(260, 1_500), [true, false]);
        assert_eq!(then(10, 2_499), [true, false]);
        assert_eq!(then(249, 2_500), [false, false], "a second in which none waited");
        assert_eq!(then(250, 3_500), [false, false]);
    }
}
