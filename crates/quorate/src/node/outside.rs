//! Clocks and chance: where they enter the node. Cores get both as inputs.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocol::{Now, Tick, Timestamp};

#[expect(clippy::disallowed_methods, reason = "where the clock enters the node")]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What the clocks show. Every role of the node reads them here, so that all ticks have one origin.
#[expect(clippy::disallowed_methods, reason = "where the clock enters the node")]
pub(super) fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        tick: Tick::default() + START.elapsed(),
        wall: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Chance, different in every process.
#[expect(clippy::disallowed_methods, reason = "where chance enters the node")]
pub(crate) fn chance() -> u64 {
    rand::random()
}

/// Chance that nobody can guess: from the generator of the system, by way of one that is seeded from it.
#[expect(clippy::disallowed_methods, reason = "where chance enters the node")]
pub(super) fn secret() -> [u8; 40] {
    rand::random()
}
