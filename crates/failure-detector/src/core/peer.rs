//! One peer: when it was heard, and for how long it may be silent.
//!
//! The timeout follows the intervals between its heartbeats as TCP's retransmission timer
//! follows round trips (Jacobson 1988): the mean and eight mean deviations, between the
//! configured bounds. Whole microseconds, no fractions, so that states compare.

use std::time::Duration;

use protocol::Tick;
use protocol::message::Heartbeat;

use super::{Config, PeerView};

/// Intervals measured before the timeout adapts; until then it is twice the minimum.
const SAMPLES_MIN: u32 = 8;
/// How many mean deviations of silence beyond the mean are normal. TCP takes 4; a false
/// suspicion of a leader costs more than a segment sent twice.
const DEVIATIONS: u64 = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    heard: bool,
    /// Since when `heard` is so.
    since: Tick,
    /// The last heartbeat.
    last: Option<Heartbeat>,
    heard_at: Tick,
    /// When it is suspected unless it is heard before.
    deadline: Tick,
    /// When a connection with it was closed last.
    closed_at: Option<Tick>,
    /// Of its intervals, in microseconds.
    mean: u64,
    deviation: u64,
    samples: u32,
}

impl Peer {
    /// The last heartbeat, while the peer is heard.
    pub(super) fn word(&self) -> Option<&Heartbeat> {
        self.last.as_ref().filter(|_| self.heard)
    }

    /// Takes a heartbeat. True when the peer was not heard before.
    pub(super) fn hear(&mut self, heartbeat: Heartbeat, now: Tick, config: &Config) -> bool {
        let interval = now.since(self.heard_at);
        // A longer silence was an outage, which says nothing about how regular it is.
        if self.last.is_some() && interval <= config.timeout_max {
            self.measure(interval);
        }
        self.last = Some(heartbeat);
        self.heard_at = now;
        self.deadline = now + self.timeout(config);
        let again = !self.heard;
        if again {
            self.heard = true;
            self.since = now;
        }
        again
    }

    /// A connection closed: it has little time left to be heard. True when it should be asked.
    pub(super) fn close(&mut self, now: Tick, config: &Config) -> bool {
        self.closed_at = Some(now);
        self.deadline = self.deadline.min(now + config.heartbeat * 2);
        self.heard
    }

    /// A connection was refused. True when the peer is suspected for it: one that was closed
    /// shortly before, and nothing heard since. By itself a refusal proves little, as an
    /// address may be wrong while heartbeats arrive.
    pub(super) fn refuse(&mut self, now: Tick, config: &Config) -> bool {
        let Some(closed_at) = self.closed_at.filter(|at| now.since(*at) <= self.timeout(config)) else {
            return false;
        };
        if self.heard_at > closed_at {
            // Perhaps the last words of a dead process, read late.
            self.deadline = self.deadline.min(self.heard_at + config.heartbeat * 2);
            return false;
        }
        self.suspect(now)
    }

    /// Its silence, when that has just become too long.
    pub(super) fn expire(&mut self, now: Tick) -> Option<Duration> {
        (now >= self.deadline && self.suspect(now)).then(|| now.since(self.heard_at))
    }

    /// We slept for `gap`: whatever the peer did then does not count.
    pub(super) fn postpone(&mut self, gap: Duration) {
        self.heard_at = self.heard_at + gap;
        self.deadline = self.deadline + gap;
        self.closed_at = self.closed_at.map(|at| at + gap);
    }

    /// The silence after which it is suspected.
    pub(super) fn timeout(&self, config: &Config) -> Duration {
        let normal = if self.samples < SAMPLES_MIN {
            config.timeout_min * 2
        } else {
            Duration::from_micros(self.mean.saturating_add(self.deviation.saturating_mul(DEVIATIONS)))
        };
        // Not `clamp`, which panics when an operator has set the bounds the wrong way round.
        normal.min(config.timeout_max).max(config.timeout_min)
    }

    pub(super) fn view(&self) -> PeerView {
        let heard_at = self.last.as_ref().map(|_| self.heard_at);
        PeerView { heard: self.heard, since: self.since, heard_at, last: self.last.clone() }
    }

    fn measure(&mut self, interval: Duration) {
        let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        if self.samples == 0 {
            (self.mean, self.deviation) = (interval, interval / 2);
        } else {
            let off = interval.abs_diff(self.mean);
            self.deviation = self.deviation - self.deviation / 4 + off / 4;
            self.mean = self.mean - self.mean / 8 + interval / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }

    fn suspect(&mut self, now: Tick) -> bool {
        if self.heard {
            self.since = now;
        }
        std::mem::replace(&mut self.heard, false)
    }
}
