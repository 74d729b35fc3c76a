//! Digests of the state at exactly one command number, for comparing replicas.
//!
//! Two replicas can be compared only at the same number, and under load none of them stands
//! still at one. So whoever wants a digest names a number a little ahead, and the learner stops
//! there for the moment that it takes to open a view of the state (never for computing the
//! digest). A number that has gone by is answered with "gone", never with another number's
//! digest: a comparison that could not be made must not look like one that passed (S-33).

use std::collections::BTreeMap;

use protocol::{CommandNumber, Tick};

/// Who waits for a digest; named by the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter(pub u64);

/// Why there is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestRefusal {
    /// The state has moved past the number; ask for a higher one.
    Gone,
    /// The number was not reached in the time given.
    NotReached,
    /// [`DIGESTS_MAX`] digests are waited for or being computed; ask again later.
    Busy,
}

/// How many digests may be waited for or computed at a time: each computation reads the whole
/// state on a thread of its own and holds a view of it open, and one a replica is what an
/// auditor needs.
pub const DIGESTS_MAX: usize = 4;

/// Those who wait, and how many digests are being computed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Digests {
    waiting: BTreeMap<(CommandNumber, Waiter), Tick>,
    computing: usize,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Take it now.
    Take,
    /// Later, or never.
    Wait,
    /// No.
    Refuse(DigestRefusal),
}

impl Digests {
    /// Somebody wants the digest at `number`, or now, until `until`.
    pub(super) fn request(
        &mut self,
        waiter: Waiter,
        number: Option<CommandNumber>,
        until: Tick,
        issued: CommandNumber,
    ) -> Request {
        let number = number.unwrap_or(issued);
        if number < issued {
            return Request::Refuse(DigestRefusal::Gone);
        }
        if self.waiting.len() + self.computing >= DIGESTS_MAX {
            return Request::Refuse(DigestRefusal::Busy);
        }
        if number == issued {
            self.computing += 1;
            return Request::Take;
        }
        self.waiting.insert((number, waiter), until);
        Request::Wait
    }

    /// The next waiter for a number up to `number`, with that number; it is now being served.
    pub(super) fn next_due(&mut self, number: CommandNumber) -> Option<(CommandNumber, Waiter)> {
        let (&due, _) = self.waiting.first_key_value()?;
        if due.0 > number {
            return None;
        }
        self.waiting.remove(&due);
        self.computing += 1;
        Some(due)
    }

    /// A digest that was being computed is done, well or not.
    pub(super) fn done(&mut self) {
        assert!(self.computing > 0, "a digest ended that none had begun");
        self.computing -= 1;
    }

    /// Those whose time is over.
    pub(super) fn expired(&mut self, now: Tick) -> Vec<Waiter> {
        let over: Vec<(CommandNumber, Waiter)> =
            self.waiting.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        for key in &over {
            self.waiting.remove(key);
        }
        over.into_iter().map(|(_, waiter)| waiter).collect()
    }
}
