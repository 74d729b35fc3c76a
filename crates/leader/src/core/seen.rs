//! Copies of calls without a caller's key. Their gateway numbers them ([`Call::copy`]), so that one which
//! comes twice was doubled on its way (A12).
//!
//! Such a copy may be refused, or declined because this node does not lead, without a trace in the
//! state, and its caller is told that it will not be executed; its double, taken for a new copy,
//! would be. A double comes soon after: the memory of one life, and of the last ones in it, is
//! enough.

use std::collections::{BTreeSet, VecDeque};

use protocol::{Call, RequestId};

/// How many copies are remembered: about a second of what a cluster executes, 2 MiB.
const SEEN_MAX: usize = 16_384;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    copies: BTreeSet<(RequestId, u32)>,
    order: VecDeque<(RequestId, u32)>,
}

impl Seen {
    /// Whether this very copy has come before. Remembers it.
    pub(super) fn is_doubled(&mut self, call: &Call) -> bool {
        // A caller's key can be given to any gateway: nobody numbers those.
        if matches!(call.request, RequestId::Caller(_)) {
            return false;
        }
        let copy = (call.request.clone(), call.copy);
        if !self.copies.insert(copy.clone()) {
            return true;
        }
        self.order.push_back(copy);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.copies.remove(&oldest);
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

    fn call(request: RequestId, copy: u32) -> Call {
        let (fingerprint, function, arguments) = (Fingerprint([1; 16]), "f".to_owned(), Bytes::new());
        Call { request, fingerprint, function, arguments, patience: Duration::ZERO, copy }
    }

    /// A12, S-22: catches a double that is taken for a new copy, the first one or one sent again; a copy that was
    /// sent on purpose and is taken for a double; and a memory without a bound.
    #[test]
    fn a_copy_comes_once() {
        let mut seen = Seen::default();
        let copy = |number, copy| call(RequestId::Gateway(number), copy);
        assert_eq!([1, 1, 2, 1].map(|number| seen.is_doubled(&copy(number, 0))), [false, true, false, true]);
        assert_eq!([1, 2, 1, 2].map(|again| seen.is_doubled(&copy(1, again))), [false, false, true, true]);
        let keyed = call(RequestId::caller("k").expect("a key"), 1);
        assert!(!seen.is_doubled(&keyed) && !seen.is_doubled(&keyed));
        for number in 0..2 * SEEN_MAX as u128 {
            seen.is_doubled(&copy(number, 0));
        }
        assert_eq!((seen.copies.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
        assert!(!seen.is_doubled(&copy(1, 0)), "forgotten");
    }
}
