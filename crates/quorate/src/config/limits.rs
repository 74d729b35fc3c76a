//! `[limits]`: what callers may ask for.

use std::time::Duration;

use super::layers::{ConfigError, Settings};
use super::{HOUR, MILLISECOND, SECOND};

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes in the body of one request.
    pub(crate) body_bytes: usize,
    /// Calls that one gateway has under way; more get 429.
    pub(crate) calls_in_flight: usize,
    /// Calls that the leader keeps because their function said "not now".
    pub(crate) waiting_calls: usize,
    /// Open REST connections, more than calls.
    pub(crate) connections: usize,
    /// How long a call waits for its outcome when the caller does not say.
    pub(crate) wait_default: Duration,
    /// The longest wait that a caller may ask for.
    pub(crate) wait_max: Duration,
    /// How long a caller may take nothing of a reply.
    pub(crate) reader_wait: Duration,
}

impl Limits {
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let size = |key, range| {
            settings.count(key, range).map(|count| usize::try_from(count).expect("the ranges fit into 32 bits"))
        };
        let wait_default = settings.duration("limits.wait_default", 100 * MILLISECOND..=HOUR)?;
        let wait_max = settings.duration("limits.wait_max", 100 * MILLISECOND..=HOUR)?;
        if wait_default > wait_max {
            let needs =
                format!("must not be shorter than limits.wait_default ({})", humantime::format_duration(wait_default));
            return Err(settings.refuse("limits.wait_max", &needs));
        }
        let calls_in_flight = size("limits.calls_in_flight", 1..=1_000_000)?;
        let connections = size("limits.connections", 2..=1_000_000)?;
        if connections <= calls_in_flight {
            let needs = format!(
                "must be more than limits.calls_in_flight ({calls_in_flight}): who calls beyond that is told 429, for which \
                 he must get in"
            );
            return Err(settings.refuse("limits.connections", &needs));
        }
        Ok(Self {
            body_bytes: size("limits.body_bytes", 1_024..=8 << 20)?,
            calls_in_flight,
            waiting_calls: size("limits.waiting_calls", 0..=1_000_000)?,
            connections,
            wait_default,
            wait_max,
            reader_wait: settings.duration("limits.reader_wait", SECOND..=HOUR)?,
        })
    }
}
