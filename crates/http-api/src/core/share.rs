//! How many calls a gateway has under way at most: its share of what the leader takes.
//!
//! A leader without room refuses a call that has travelled to it and back, which costs the cluster a good part of what it
//! costs to execute one. So a gateway learns from refusals, as TCP does from losses: each takes an eighth of what is under
//! way, calls that are decided give it back one by one, and what is beyond is refused here, at hardly any cost.
//!
//! Only calls without patience count. Others wait at the leader for reasons of their own, for long, and their refusal says
//! nothing of the others.

use protocol::{Call, Tick};

/// So many decided calls make room for one more: from one refusal to the next takes long beside a call.
const GROWTH: usize = 16;
/// What is left in any case: enough to learn that there is room again.
const LEAST: usize = 16;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Share {
    most: usize,
    calls: usize,
    under_way: usize,
    /// Calls decided since it has grown.
    decided: usize,
    /// What was sent before is no news.
    learnt: Tick,
}

impl Share {
    /// All that a gateway may have under way, until the leader says otherwise.
    pub(super) fn new(most: usize) -> Self {
        Self { most, calls: most, under_way: 0, decided: 0, learnt: Tick::default() }
    }

    /// Whether one more call of this kind may be under way.
    pub(super) fn has_room(&self, call: &Call) -> bool {
        !counts(call) || self.under_way < self.calls
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
    pub(super) fn taken(&mut self, call: &Call) {
        if counts(call) && self.calls < self.most {
            self.decided += 1;
            if self.decided >= GROWTH {
                (self.decided, self.calls) = (0, self.calls + 1);
            }
        }
    }

    /// The leader had no room for a call that came here at `since`. Those that were under way with it say the same again.
    pub(super) fn refused(&mut self, call: &Call, since: Tick, now: Tick) {
        if counts(call) && since >= self.learnt {
            let least = LEAST.min(self.most);
            self.calls = (self.calls.min(self.under_way) / 8 * 7).max(least);
            (self.decided, self.learnt) = (0, now);
        }
    }
}

fn counts(call: &Call) -> bool {
    call.patience.is_zero()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    /// Catches a share that never grows again, one that a single burst of refusals takes to nothing, and one that patient
    /// calls take away from the others.
    #[test]
    fn it_shrinks_once_for_what_was_under_way_together_and_grows_again() {
        let (plain, patient) = (call(Duration::ZERO), call(Duration::from_secs(1)));
        let mut share = Share::new(10_000);
        (0..800).for_each(|_| share.begin(&plain));
        (0..5_000).for_each(|_| share.begin(&patient));
        share.refused(&patient, Tick(5), Tick(9));
        assert!(share.has_room(&plain));
        for since in 5..8 {
            share.refused(&plain, Tick(since), Tick(9));
        }
        assert_eq!((share.calls, share.has_room(&plain), share.has_room(&patient)), (700, false, true));
        share.refused(&plain, Tick(9), Tick(12));
        assert_eq!(share.calls, 609, "what came afterwards is news");
        (0..191).for_each(|_| share.end(&plain));
        assert!(!share.has_room(&plain));
        (0..GROWTH).for_each(|_| share.taken(&plain));
        assert!(share.has_room(&plain));
    }

    /// Catches a share beyond what may be under way, or below what is needed to learn.
    #[test]
    fn it_stays_within_its_bounds() {
        for most in [1, 40] {
            let (call, mut share) = (call(Duration::ZERO), Share::new(most));
            share.begin(&call);
            (1..50).for_each(|at| share.refused(&call, Tick(at), Tick(at)));
            assert_eq!(share.calls, LEAST.min(most));
            (0..most * GROWTH).for_each(|_| share.taken(&call));
            assert_eq!(share.calls, most);
        }
    }
}
