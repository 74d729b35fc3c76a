//! Whether what this node has applied is recent enough to say whose token counts (ADR 0029): pure.
//!
//! That a token is revoked is a command. A node that has applied what was newest at some moment knows all that was revoked by
//! then. What was newest it hears in heartbeats, which say so only while somebody leads: a side of a partition without a leader
//! hears nothing new, and takes itself for up to date.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::{CommandNumber, Tick};

/// How old what a node knows of tokens may be: far longer than a change of leader, whose callers wait instead of being
/// refused; within what revoking a token may take.
const AGE_MAX: Duration = Duration::from_secs(5);
/// Two looks closer to each other say the same.
const LOOKED_AT: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// The last moment of which all is applied.
    as_of: Option<Tick>,
    /// Moments of which it is not, with what was newest; none older than what would still help.
    ahead: VecDeque<(Tick, CommandNumber)>,
}

impl Current {
    /// Looks at what is newest (nothing when no leader is known) and what is applied. Whether that is recent.
    pub(super) fn look(&mut self, now: Tick, newest: Option<CommandNumber>, applied: CommandNumber) -> bool {
        let last = self.ahead.back().copied();
        if let Some(newest) = newest.filter(|_| last.is_none_or(|(at, _)| now.since(at) >= LOOKED_AT)) {
            // Who told of more may not be heard any more; it is there all the same.
            self.ahead.push_back((now, newest.max(last.map_or(CommandNumber(0), |(_, newest)| newest))));
        }
        while let Some((at, newest)) = self.ahead.front().copied() {
            if newest <= applied {
                self.as_of = Some(at);
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
    use super::*;

    /// A look at that many milliseconds.
    fn look(current: &mut Current, at: u64, newest: Option<u64>, applied: u64) -> bool {
        current.look(Tick(at * 1_000), newest.map(CommandNumber), CommandNumber(applied))
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
