//! The clocks, for what waits and measures. Nothing of the protocol reads them here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "clients and `dev` measure and wait in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time since 1970, to tell one run from the next.
#[expect(clippy::disallowed_methods, reason = "names a run; decides nothing")]
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
