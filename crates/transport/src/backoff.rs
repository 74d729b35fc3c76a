//! How long a dialer waits before it tries again: longer each time, with jitter, so that the
//! nodes of a cluster do not all knock at a restarted one at the same moment.

use std::time::Duration;

use crate::lane::Lane;

/// The first wait.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest wait between two attempts: how late a node that came back may be noticed.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection that lived this long was a good one: the series starts again. A shorter one
/// may be the work of two nodes with one id that push each other out.
const GOOD_CONNECTION: Duration = Duration::from_secs(1);

/// Where one dialer is in its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    lane: Lane,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(lane: Lane) -> Self {
        Self { lane, failures: 0 }
    }

    /// The wait after a connection that lived for `lived`, zero when there was none. `chance`
    /// lies in 0..1.
    ///
    /// On the heartbeat lane the first wait is zero: whether a peer that closed refuses the next
    /// connection is what tells the failure detector that its process is gone.
    pub(crate) fn after(&mut self, lived: Duration, chance: f64) -> Duration {
        if lived >= GOOD_CONNECTION {
            self.failures = 0;
        }
        let at_once = u32::from(self.lane == Lane::Heartbeat);
        let wait = match self.failures.checked_sub(at_once) {
            None => Duration::ZERO,
            Some(doublings) => BACKOFF_MIN.saturating_mul(1 << doublings.min(16)).min(BACKOFF_MAX),
        };
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(0.5 + chance / 2.0)
    }

    /// The wait after a refused handshake: the longest, since an operator has to act first.
    pub(crate) fn after_refusal(&mut self, chance: f64) -> Duration {
        self.failures = 16;
        BACKOFF_MAX.mul_f64(0.5 + chance / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(lane: Lane, count: usize) -> Vec<u128> {
        let mut backoff = Backoff::new(lane);
        (0..count).map(|_| backoff.after(Duration::ZERO, 1.0).as_millis()).collect()
    }

    /// Catches a dialer that hammers a dead peer, or one that hardly ever tries again.
    #[test]
    fn waits_double_up_to_a_second() {
        assert_eq!(waits(Lane::Protocol, 8), [20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(waits(Lane::Protocol, 100).last(), Some(&1000), "no overflow");
        assert_eq!(waits(Lane::Heartbeat, 4), [0, 20, 40, 80]);
    }

    /// Catches a series that starts again with each short-lived connection (two nodes with one
    /// id would push each other out in a busy loop), and one that never does.
    #[test]
    fn only_a_good_connection_starts_the_series_again() {
        let mut backoff = Backoff::new(Lane::Heartbeat);
        let short = Duration::from_millis(999);
        let waits: Vec<u128> = (0..3).map(|_| backoff.after(short, 1.0).as_millis()).collect();
        assert_eq!(waits, [0, 20, 40]);
        assert_eq!(backoff.after(GOOD_CONNECTION, 1.0), Duration::ZERO);
        assert_eq!(backoff.after_refusal(1.0), BACKOFF_MAX);
        assert_eq!(backoff.after(Duration::ZERO, 1.0), BACKOFF_MAX);
    }

    /// Catches jitter that exceeds the bound or vanishes.
    #[test]
    fn jitter_takes_up_to_half_of_the_wait() {
        let wait = |chance| Backoff::new(Lane::Bulk).after(Duration::ZERO, chance);
        assert_eq!([wait(0.0), wait(0.5)], [Duration::from_millis(10), Duration::from_millis(15)]);
    }
}
