//! Whether more calls come than can be executed.
//!
//! Calls queue while the window is full. A queue that comes and goes takes up bursts, and the calls of a moment in which
//! nothing could be decided. One that stands only makes every call late: their gateways send them again, and their callers
//! give up. So, as CoDel does (RFC 8289): once all that were taken up for [`INTERVAL`] had waited for [`TARGET`] and more,
//! calls are refused while the first in the queue has waited that long. What is executed meanwhile is as much as before.
//!
//! - While nothing is taken up nothing is learnt: a cluster without a majority set has no overload.
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
    /// That is so for the interval.
    stands: bool,
}

impl Backlog {
    /// A call is executed, which has waited so long for it.
    pub(super) fn taken_up(&mut self, waited: Duration, now: Tick) {
        if waited < TARGET {
            *self = Self::default();
            return;
        }
        let since = *self.since.get_or_insert(now);
        self.stands = now.since(since) >= INTERVAL;
    }

    /// Whether a call that comes is refused, where the first in the queue has waited so long.
    pub(super) fn refuses(&self, call: &Call, first_waited: Duration) -> bool {
        self.stands && first_waited >= TARGET && call.patience.is_zero() && !is_for_operators(&call.function)
    }
}
