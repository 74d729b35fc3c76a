//! How many calls a gateway has under way at most: its share of what the leader executes in time.
//!
//! A leader without room refuses a call that has travelled to it and back, which costs the cluster a good part of what it
//! costs to execute one; and calls that wait in long queues, here or there, are sent again meanwhile. So a gateway learns
//! from how its calls fare, as TCP does from losses. One that was refused or took longer than [`SLOW`] takes an eighth of
//! what is under way; quick ones give it back, one by one. What is beyond is refused here, at hardly any cost.
//!
//! - The share binds only where much is under way: an eighth of the limit is left in any case, and a few slow calls of a few
//!   callers refuse nobody.
//! - Calls that came before the leader was known, or before the last lesson, teach nothing: they have waited together.
//! - Only calls without patience count: others may wait at the leader for reasons of their own. Nor do those of operators,
//!   who may be there to end the overload.

use std::time::Duration;

use protocol::{Call, Tick};

use super::access::is_audited;

/// Far longer than a call takes that need not queue; shorter than the pause before it is sent again.
const SLOW: Duration = Duration::from_millis(250);
/// So many quick calls make room for one more: from one lesson to the next takes long beside a call.
const GROWTH: usize = 16;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    most: usize,
    calls: usize,
    under_way: usize,
    /// Quick calls since it has grown.
    quick: usize,
    /// What came before teaches nothing.
    learnt: Tick,
}

impl Share {
    /// All that a gateway may have under way, until it learns otherwise.
    pub(super) fn new(most: usize) -> Self {
        Self { most, calls: most, under_way: 0, quick: 0, learnt: Tick::default() }
    }

    /// Whether calls of this kind are bounded by it.
    pub(crate) fn counts(function: &str, patience: Duration) -> bool {
        patience.is_zero() && !is_audited(function)
    }

    /// Whether no call that counts may be added.
    pub(super) fn is_full(&self) -> bool {
        self.under_way >= self.calls
    }

    /// Whether this call may be added.
    pub(super) fn has_room(&self, call: &Call) -> bool {
        !counts(call) || !self.is_full()
    }

    /// A call is under way.
    pub(super) fn begin(&mut self, call: &Call) {
        self.under_way += usize::from(counts(call));
    }

    /// It is not any more.
    pub(super) fn end(&mut self, call: &Call) {
        self.under_way -= usize::from(counts(call));
    }

    /// A leader is known: what came before has waited for it.
    pub(super) fn led(&mut self, now: Tick) {
        self.learnt = now;
    }

    /// The leader has decided a call that came here at `since`.
    pub(super) fn decided(&mut self, call: &Call, since: Tick, now: Tick) {
        if now.since(since) > SLOW {
            self.refused(call, since, now);
        } else if counts(call) && self.calls < self.most {
            self.quick += 1;
            if self.quick >= GROWTH {
                (self.quick, self.calls) = (0, self.calls + 1);
            }
        }
    }

    /// The leader had no room for it.
    pub(super) fn refused(&mut self, call: &Call, since: Tick, now: Tick) {
        if counts(call) && since >= self.learnt {
            let least = (self.most / 8).max(1);
            self.calls = (self.calls.min(self.under_way) / 8 * 7).max(least);
            (self.quick, self.learnt) = (0, now);
        }
    }
}

fn counts(call: &Call) -> bool {
    Share::counts(&call.function, call.patience)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::{Fingerprint, RequestId};

    use super::*;

    fn call(patience: Duration) -> Call {
        Call {
            request: RequestId::Gateway(1),
            fingerprint: Fingerprint::default(),
            function: "f".into(),
            arguments: Bytes::new(),
            patience,
            copy: 0,
        }
    }

    /// A share of at most 4,000, with so many calls under way.
    fn with(under_way: usize) -> (Share, Call) {
        let (mut share, plain) = (Share::new(4_000), call(Duration::ZERO));
        (0..under_way).for_each(|_| share.begin(&plain));
        (share, plain)
    }

    fn ms(millis: u64) -> Tick {
        Tick(millis * 1_000)
    }

    /// Catches a share that one burst of refusals, or of slow calls, takes to nothing, and one that never grows again.
    #[test]
    fn it_shrinks_once_for_what_was_under_way_together_and_grows_again() {
        let (mut share, plain) = with(800);
        for since in [ms(5), ms(6), ms(7)] {
            share.refused(&plain, since, ms(8));
        }
        assert_eq!((share.calls, share.is_full()), (700, true));
        share.decided(&plain, ms(7), ms(900));
        assert_eq!(share.calls, 700, "it was under way by then");
        share.decided(&plain, ms(8), ms(300));
        assert_eq!(share.calls, 609, "slow, and begun afterwards");
        (0..191).for_each(|_| share.end(&plain));
        assert!(!share.has_room(&plain));
        (0..GROWTH).for_each(|_| share.decided(&plain, ms(300), ms(301)));
        assert!(share.has_room(&plain));
    }

    /// Catches callers of a few calls who are refused because some were slow, and a share above the limit.
    #[test]
    fn it_stays_within_its_bounds() {
        let (mut share, plain) = with(60);
        (1..50).for_each(|at| share.refused(&plain, ms(at), ms(at)));
        assert_eq!((share.calls, share.is_full()), (500, false));
        (0..4_000 * GROWTH).for_each(|_| share.decided(&plain, ms(60), ms(61)));
        assert_eq!(share.calls, 4_000);
        assert!(!Share::new(1).is_full());
    }

    /// Catches calls that waited for a leader, or wait at it by their caller's wish, and cost the others their room; and an
    /// operator who cannot act because there is too much to do.
    #[test]
    fn some_teach_nothing() {
        let (mut share, plain) = with(800);
        let patient = call(Duration::from_secs(1));
        share.begin(&patient);
        share.refused(&patient, ms(5), ms(9));
        share.decided(&patient, ms(5), ms(2_000));
        share.led(ms(3_000));
        share.decided(&plain, ms(2_900), ms(3_500));
        assert_eq!(share.calls, 4_000);
        let operator = Call { function: "cluster.remove".into(), ..plain.clone() };
        share.decided(&plain, ms(3_100), ms(3_500));
        assert_eq!((share.calls, share.has_room(&plain)), (700, false));
        assert!(share.has_room(&patient) && share.has_room(&operator));
    }
}
