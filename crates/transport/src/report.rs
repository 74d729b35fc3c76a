//! What operators learn: counters by lane and reason, and warnings that do not flood.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::time::Instant;

use crate::lane::Lane;
use crate::queue::Dropped;

/// At most one warning a peer and reason in this time: a misconfigured peer tries every second.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// Peers and reasons remembered. Strangers count by address, so they could otherwise fill the
/// memory; beyond it, warnings about further ones wait.
const WARNINGS_KEPT: usize = 1024;

/// Metrics of one lane, looked up once: the recorder must be installed before.
pub(crate) struct LaneCounters {
    pub(crate) frames_sent: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) frames_received: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) connections: Counter,
    dropped: BTreeMap<Dropped, Counter>,
}

impl LaneCounters {
    fn new(lane: Lane) -> Self {
        let lane = lane.name();
        let dropped =
            |cause: Dropped| counter!("quorate_transport_dropped_total", "lane" => lane, "cause" => cause.name());
        Self {
            frames_sent: counter!("quorate_transport_frames_sent_total", "lane" => lane),
            bytes_sent: counter!("quorate_transport_bytes_sent_total", "lane" => lane),
            frames_received: counter!("quorate_transport_frames_received_total", "lane" => lane),
            bytes_received: counter!("quorate_transport_bytes_received_total", "lane" => lane),
            connections: counter!("quorate_transport_connections_total", "lane" => lane),
            dropped: Dropped::ALL.into_iter().map(|cause| (cause, dropped(cause))).collect(),
        }
    }
}

/// Counters and the limiter of warnings, shared by all connections of a node.
pub(crate) struct Report {
    lanes: BTreeMap<Lane, LaneCounters>,
    warnings: Mutex<Warnings>,
    /// Those about peers that this node dials: the same peer may be wrong for the same reason when it dials.
    of_dialer: Mutex<Warnings>,
}

impl Report {
    pub(crate) fn new() -> Self {
        let lanes = Lane::ALL.into_iter().map(|lane| (lane, LaneCounters::new(lane))).collect();
        Self { lanes, warnings: Mutex::default(), of_dialer: Mutex::default() }
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneCounters {
        &self.lanes[&lane]
    }

    pub(crate) fn dropped(&self, lane: Lane, cause: Dropped, messages: usize) {
        self.lane(lane).dropped[&cause].increment(messages as u64);
    }

    /// A listener refused a connection. What mostly `passes` soon is worth a warning only when it has lasted.
    pub(crate) fn refused(&self, peer: &str, reason: &'static str, passes: bool, text: &str) {
        counter!("quorate_transport_refused_total", "side" => "listener", "reason" => reason).increment(1);
        if let Some(repeated) = locked(&self.warnings).admit(peer, reason, passes, Instant::now()) {
            tracing::warn!(peer, reason, repeated, "refused a connection: {text}");
        }
    }

    /// This node dialed a peer and did not get through its handshake. `passes`: as there.
    pub(crate) fn not_welcome(&self, peer: &str, reason: &'static str, passes: bool, text: &str) {
        counter!("quorate_transport_refused_total", "side" => "dialer", "reason" => reason).increment(1);
        if let Some(repeated) = locked(&self.of_dialer).admit(peer, reason, passes, Instant::now()) {
            tracing::warn!(peer, reason, repeated, "cannot connect: {text}");
        }
    }

    /// A peer was let in although its window is another one.
    pub(crate) fn other_window(&self, peer: &str, theirs: u64, ours: u64) {
        counter!("quorate_transport_other_window_total").increment(1);
        if let Some(repeated) = self.may_warn(peer, "other_window") {
            tracing::warn!(
                peer,
                repeated,
                "the peer has protocol.window = {theirs}, this node has {ours}: give all nodes the same value"
            );
        }
    }

    /// A peer was let in although it asks callers for tokens and this node does not, or the reverse.
    pub(crate) fn other_auth(&self, peer: &str, ours: bool) {
        counter!("quorate_transport_other_auth_total").increment(1);
        if let Some(repeated) = self.may_warn(peer, "other_auth") {
            let open = if ours { "the peer" } else { "this node" };
            tracing::warn!(
                peer,
                repeated,
                "{open} has auth.enabled = false, and the other one of the two has not: anybody may call the cluster there; set \
                 auth.enabled = true at all nodes"
            );
        }
    }

    /// A connected peer sent what is no message; its connection is closed.
    pub(crate) fn broken(&self, peer: &str, lane: Lane, reason: &'static str, text: &str) {
        counter!("quorate_transport_broken_frames_total", "lane" => lane.name(), "reason" => reason).increment(1);
        if let Some(repeated) = self.may_warn(peer, reason) {
            let lane = lane.name();
            tracing::warn!(
                peer,
                lane,
                reason,
                repeated,
                "closed a connection, its bytes are damaged or foreign: {text}"
            );
        }
    }

    /// Whether a warning may be logged now; then how many like it were held back before.
    pub(crate) fn may_warn(&self, peer: &str, reason: &'static str) -> Option<u64> {
        locked(&self.warnings).admit(peer, reason, false, Instant::now())
    }
}

fn locked(warnings: &Mutex<Warnings>) -> MutexGuard<'_, Warnings> {
    warnings.lock().expect("nothing panics while it holds the warnings")
}

/// When each warning was last given.
#[derive(Debug, Default)]
struct Warnings {
    given: BTreeMap<(String, &'static str), Given>,
}

#[derive(Debug)]
struct Given {
    /// Or when what passes began.
    at: Instant,
    held_back: u64,
    last: Instant,
}

impl Warnings {
    /// How many warnings like it were held back, if one may be given now. What `passes` is warned of once it has lasted.
    fn admit(&mut self, peer: &str, reason: &'static str, passes: bool, now: Instant) -> Option<u64> {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < WARNING_INTERVAL;
        let fresh = |given: &Given| is_recent(given.at);
        let begun = Given { at: now, held_back: u64::from(passes), last: now };
        if let Some(given) = self.given.get_mut(&(peer.to_owned(), reason)) {
            if fresh(given) {
                *given = Given { at: given.at, held_back: given.held_back.saturating_add(1), last: now };
                return None;
            }
            let is_new = passes && !is_recent(given.last);
            let before = std::mem::replace(given, Given { held_back: u64::from(is_new), ..begun });
            return (!is_new).then_some(before.held_back);
        }
        if self.given.len() >= WARNINGS_KEPT {
            self.given.retain(|_, given| fresh(given));
        }
        if self.given.len() >= WARNINGS_KEPT {
            return None;
        }
        self.given.insert((peer.to_owned(), reason), begun);
        (!passes).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a log flooded by one peer that tries every second, and one peer's warning
    /// hiding another's, or hiding a different reason.
    #[test]
    fn one_warning_a_peer_and_reason_in_ten_seconds() {
        let (mut warnings, start) = (Warnings::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut admit = |peer, reason, at| warnings.admit(peer, reason, false, at);
        assert_eq!(admit("b", "version", start), Some(0));
        assert_eq!(admit("b", "version", after(9)), None);
        assert_eq!(admit("b", "version", after(9)), None);
        assert_eq!(admit("b", "wrong_node", after(9)), Some(0));
        assert_eq!(admit("c", "version", after(9)), Some(0));
        assert_eq!(admit("b", "version", after(10)), Some(2), "and says how many it held back");
        assert_eq!(admit("b", "version", after(20)), Some(0));
    }

    /// Catches a warning at each start of a node whose members have changed meanwhile, which nobody need do anything about;
    /// and one that never comes where that goes on.
    #[test]
    fn what_passes_is_warned_of_when_it_has_lasted() {
        let (mut warnings, start) = (Warnings::default(), Instant::now());
        let mut admit = |seconds| warnings.admit("b", "unknown_node", true, start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 3, 600, 601].map(&mut admit), [None; 5], "two starts, and it was over soon");
        assert_eq!([605, 609, 610, 611].map(&mut admit), [None, None, Some(4), None], "all that was held back since");
        assert_eq!([619, 620].map(&mut admit), [None, Some(2)]);
    }

    /// Catches a warning about a peer that is dialed hiding the one that it is refused, for the same reason.
    #[test]
    fn warnings_of_a_dialer_hide_no_refusal() {
        let report = Report::new();
        report.not_welcome("2 (b)", "no_tls", false, "it is dialed");
        assert_eq!(report.may_warn("2 (b)", "no_tls"), Some(0));
        assert_eq!(report.may_warn("2 (b)", "no_tls"), None);
    }

    /// Catches memory that grows with the addresses of strangers.
    #[test]
    fn the_memory_of_warnings_is_bounded() {
        let (mut warnings, start) = (Warnings::default(), Instant::now());
        for stranger in 0..2 * WARNINGS_KEPT {
            let admitted = warnings.admit(&format!("stranger {stranger}"), "not_a_peer", false, start);
            assert_eq!(admitted.is_some(), stranger < WARNINGS_KEPT);
        }
        assert_eq!(warnings.given.len(), WARNINGS_KEPT);
        assert_eq!(warnings.admit("later", "not_a_peer", false, start + WARNING_INTERVAL), Some(0));
        assert_eq!(warnings.given.len(), 1, "the old ones were forgotten");
    }
}
