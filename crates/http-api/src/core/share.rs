//! How many calls a gateway has under way at most: its share of what the leader takes.
//!
//! A leader without room refuses a call that has travelled to it and back, which costs the cluster a good part of what it
//! costs to execute one. So a gateway learns from refusals, as TCP does from losses: each takes an eighth of what is under
//! way, calls that are decided give it back one by one, and what is beyond is refused here, at hardly any cost.
//!
//! - Calls that came before the last lesson teach nothing: they were under way together.
//! - Only calls without patience count: others may wait at the leader for reasons of their own. Nor do those of operators,
//!   who may be there to end the overload.

use std::time::Duration;

use protocol::{Call, Tick};

use super::access::is_audited;

/// So many decided calls make room for one more. Slowly: until the next refusal is heard, all that is sent beyond what the
/// leader takes is refused by it.
const GROWTH: usize = 128;
/// What is left in any case, as a part of the most: enough to find out that there is room again.
const LEAST: usize = 8;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    most: usize,
    calls: usize,
    under_way: usize,
    /// Calls decided since it has grown.
    decided: usize,
    /// What came before teaches nothing.
    learnt: Tick,
}

impl Share {
    /// All that a gateway may have under way, until it learns otherwise.
    pub(super) fn new(most: usize) -> Self {
        Self { most, calls: most, under_way: 0, decided: 0, learnt: Tick::default() }
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

    /// The leader had room for a call.
    pub(super) fn decided(&mut self, call: &Call) {
        if counts(call) && self.calls < self.most {
            self.decided += 1;
            if self.decided >= GROWTH {
                (self.decided, self.calls) = (0, self.calls + 1);
            }
        }
    }

    /// The leader had no room for a call that came here at `since`.
    pub(super) fn refused(&mut self, call: &Call, since: Tick, now: Tick) {
        if counts(call) && since >= self.learnt {
            let least = (self.most / LEAST).max(1);
            self.calls = (self.calls.min(self.under_way) / 8 * 7).max(least);
            (self.decided, self.learnt) = (0, now);
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

    /// Catches a share that one burst of refusals takes to nothing, and one that never grows again.
    #[test]
    fn it_shrinks_once_for_what_was_under_way_together_and_grows_again() {
        let (mut share, plain) = with(800);
        for since in [ms(5), ms(6), ms(7)] {
            share.refused(&plain, since, ms(8));
        }
        assert_eq!((share.calls, share.is_full()), (700, true));
        share.refused(&plain, ms(8), ms(300));
        assert_eq!(share.calls, 609, "what came afterwards is news");
        (0..191).for_each(|_| share.end(&plain));
        assert!(!share.has_room(&plain));
        (0..GROWTH).for_each(|_| share.decided(&plain));
        assert!(share.has_room(&plain));
    }

    /// Catches callers of few calls who are refused because others were, and a share above the limit.
    #[test]
    fn it_stays_within_its_bounds() {
        let (mut share, plain) = with(60);
        (1..50).for_each(|at| share.refused(&plain, ms(at), ms(at)));
        assert_eq!((share.calls, share.is_full()), (500, false));
        (0..4_000 * GROWTH).for_each(|_| share.decided(&plain));
        assert_eq!(share.calls, 4_000);
        assert!(!Share::new(1).is_full());
    }

    /// Catches calls that wait at the leader by their caller's wish, and cost the others their room; and an operator who
    /// cannot act because there is too much to do.
    #[test]
    fn the_patient_and_operators_do_not_count() {
        let (mut share, plain) = with(800);
        let patient = call(Duration::from_secs(1));
        let operator = Call { function: "cluster.remove".into(), ..plain.clone() };
        share.begin(&patient);
        share.refused(&patient, ms(5), ms(9));
        assert!(share.has_room(&plain));
        share.refused(&plain, ms(5), ms(9));
        assert!(!share.has_room(&plain) && share.has_room(&patient) && share.has_room(&operator));
    }
}
