//! Whether what this node has applied is recent enough to say whose token counts (ADR 0029): pure.
//!
//! That a token is revoked is a command. A node that has applied what was newest at some moment knows all that was revoked by
//! then. What was newest it hears in heartbeats of the leader, so the moment is that of the last one ([`told_at`]). A side of a
//! partition without a leader hears nothing new, and takes itself for up to date.

use std::collections::VecDeque;
use std::time::Duration;

use failure_detector::core::View;
use protocol::{CommandNumber, MajoritySets, NodeId, Tick};

/// How old what a node knows of tokens may be: far longer than a change of leader, whose callers wait instead of being
/// refused; within what revoking a token may take.
const AGE_MAX: Duration = Duration::from_secs(5);
/// Two looks closer to each other say the same.
const LOOKED_AT: Duration = Duration::from_millis(100);

/// When this node last heard what was newest: from the leader; where it leads itself, when it last heard a majority set, without
/// which nothing can be newer. Nothing when no leader is known.
pub(super) fn told_at(view: &View, me: NodeId, now: Tick, majority: &MajoritySets) -> Option<Tick> {
    let heard_at = |node: NodeId| view.peers.get(&node).and_then(|peer| peer.heard_at);
    let leader = view.leader?.node;
    if leader != me {
        return heard_at(leader);
    }
    let is_heard = |since: Tick| majority.holds(|node| node == me || heard_at(node).is_some_and(|at| at >= since));
    let mut moments: Vec<Tick> = view.peers.values().filter_map(|peer| peer.heard_at).chain([now]).collect();
    moments.sort_unstable();
    moments.into_iter().rev().find(|since| is_heard(*since))
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// The last moment of which all is applied.
    as_of: Option<Tick>,
    /// Moments of which it is not, with what was newest; none older than what would still help.
    ahead: VecDeque<(Tick, CommandNumber)>,
}

impl Current {
    /// Looks at what was newest at a moment (nothing when no leader is known) and what is applied. Whether that is recent.
    pub(super) fn look(&mut self, now: Tick, newest: Option<(Tick, CommandNumber)>, applied: CommandNumber) -> bool {
        let last = self.ahead.back().copied();
        let is_later = |at: Tick| last.is_none_or(|(last, _)| at.since(last) >= LOOKED_AT);
        if let Some((at, newest)) = newest.filter(|(at, _)| is_later(*at)) {
            // Who told of more may not be heard any more; it is there all the same.
            self.ahead.push_back((at, newest.max(last.map_or(CommandNumber(0), |(_, newest)| newest))));
        }
        while let Some((at, newest)) = self.ahead.front().copied() {
            if newest <= applied {
                self.as_of = self.as_of.max(Some(at));
            } else if now.since(at) <= AGE_MAX {
                break;
            }
            self.ahead.pop_front();
        }
        self.as_of.is_some_and(|as_of| now.since(as_of) <= AGE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use failure_detector::core::PeerView;
    use protocol::Ballot;

    use super::*;

    /// A look at that many milliseconds, at which the leader is heard.
    fn look(current: &mut Current, at: u64, newest: Option<u64>, applied: u64) -> bool {
        let now = Tick(at * 1_000);
        current.look(now, newest.map(|newest| (now, CommandNumber(newest))), CommandNumber(applied))
    }

    /// RELIABILITY 6.5: catches a node that goes by when it looks, not by when it last heard the leader, which it takes for
    /// working for a while; and a leader that is cut off and goes by itself.
    #[test]
    fn it_counts_from_what_was_heard_last() {
        let (me, second) = (NodeId(1), |seconds: u64| Tick(seconds * 1_000_000));
        let majority = MajoritySets::simple([1, 2, 3].map(NodeId)).expect("three nodes");
        let view = |leader: u64, heard: [Option<u64>; 2]| {
            let peer = |at: Option<u64>| PeerView { heard_at: at.map(second), ..PeerView::default() };
            let peers = [2, 3].map(NodeId).into_iter().zip(heard.map(peer)).collect();
            View { leader: Some(Ballot::new(1, NodeId(leader))), peers, ..View::default() }
        };
        let told = |view: &View| told_at(view, me, second(9), &majority);
        assert_eq!(told(&view(2, [Some(3), Some(8)])), Some(second(3)), "its leader");
        assert_eq!(
            told(&view(1, [Some(3), Some(8)])),
            Some(second(8)),
            "it leads, and hears a majority set with itself"
        );
        assert_eq!(told(&view(1, [None, None])), None);
        assert_eq!(told(&View { leader: None, ..view(2, [Some(3), None]) }), None);
        let mut current = Current::default();
        let heard = Some((second(3), CommandNumber(7)));
        for (at, is_current) in [(4, true), (8, true), (9, false)] {
            assert_eq!(current.look(second(at), heard, CommandNumber(7)), is_current, "at {at}");
        }
    }

    /// Catches a node without a leader that counts as up to date for ever; one that is refused while the lead changes; and
    /// one that counts before it has heard anything.
    #[test]
    fn without_a_leader_it_is_current_for_a_while() {
        let mut current = Current::default();
        assert!(!look(&mut current, 0, None, 7), "nobody told it");
        assert!(look(&mut current, 1_000, Some(7), 7));
        assert!(look(&mut current, 6_000, None, 7));
        assert!(!look(&mut current, 6_001, None, 7));
        assert!(look(&mut current, 6_002, Some(7), 7), "at once");
    }

    /// Catches a node that does not apply and counts as up to date, and one under load that is always a little behind and
    /// counts as not.
    #[test]
    fn what_was_newest_a_while_ago_must_be_applied() {
        let mut current = Current::default();
        assert!(look(&mut current, 0, Some(10), 10));
        for at in 1..=50 {
            assert!(look(&mut current, at * 100, Some(20), 10), "{at}");
        }
        assert!(!look(&mut current, 5_100, Some(20), 10));
        assert!(!look(&mut current, 5_200, Some(20), 19));
        // Who told of 20 is not heard any more.
        assert!(!look(&mut current, 5_300, Some(15), 19));
        assert!(look(&mut current, 5_400, Some(15), 20));
        for at in 60..200 {
            assert!(look(&mut current, at * 100, Some(at), at - 1), "{at}");
        }
    }

    /// Catches requests that fill memory while nothing is applied.
    #[test]
    fn looks_are_kept_within_a_bound() {
        let mut current = Current::default();
        for at in 0..100_000 {
            look(&mut current, at, Some(at + 1), 0);
            assert!(current.ahead.len() <= 52, "{}", current.ahead.len());
        }
    }
}
