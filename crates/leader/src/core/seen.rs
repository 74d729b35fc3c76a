//! Calls of which a gateway has sent one copy only (not [`Call::record`]), so that a second one was
//! doubled on its way (A12).
//!
//! Such a call may be refused, or declined because this node does not lead, without a trace in the
//! state, and its caller is told that it will not be executed; its double, taken for a new call,
//! would be. A double comes soon after: the memory of one life, and of the last ones in it, is
//! enough.

use std::collections::{BTreeSet, VecDeque};

use protocol::{Call, RequestId};

/// How many calls are remembered: about a second of what a cluster executes, 2 MiB.
const SEEN_MAX: usize = 16_384;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    calls: BTreeSet<RequestId>,
    order: VecDeque<RequestId>,
}

impl Seen {
    /// Whether this call has come before although it has one copy. Remembers it.
    pub(super) fn is_doubled(&mut self, call: &Call) -> bool {
        // A caller's key can be given to any gateway: those calls are recorded.
        if call.record || matches!(call.request, RequestId::Caller(_)) {
            return false;
        }
        if !self.calls.insert(call.request.clone()) {
            return true;
        }
        self.order.push_back(call.request.clone());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.calls.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use protocol::Fingerprint;

    use super::*;

    fn call(request: RequestId, record: bool) -> Call {
        let (fingerprint, function, arguments) = (Fingerprint([1; 16]), "f".to_owned(), Bytes::new());
        Call { request, fingerprint, function, arguments, patience: Duration::ZERO, record }
    }

    /// A12, S-22: catches a double that is taken for a new call, a copy that was sent on purpose and
    /// is taken for a double, and a memory without a bound.
    #[test]
    fn the_only_copy_comes_once() {
        let mut seen = Seen::default();
        let only = |number| call(RequestId::Gateway(number), false);
        assert_eq!([1, 1, 2, 1].map(|number| seen.is_doubled(&only(number))), [false, true, false, true]);
        assert!(!seen.is_doubled(&call(RequestId::Gateway(1), true)), "sent again");
        let keyed = call(RequestId::caller("k").expect("a key"), false);
        assert!(!seen.is_doubled(&keyed) && !seen.is_doubled(&keyed));
        for number in 0..2 * SEEN_MAX as u128 {
            seen.is_doubled(&only(number));
        }
        assert_eq!((seen.calls.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
        assert!(!seen.is_doubled(&only(1)), "forgotten");
    }
}
