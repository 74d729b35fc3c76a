//! Digests of the state at exactly one command number, for comparing replicas.
//!
//! Two replicas can be compared only at the same number, and under load none of them stands still at one. So whoever
//! wants a digest names a number a little ahead, and it is taken there, between two commands. A number that has gone
//! by is answered with "gone", never with another number's digest: a comparison that could not be made must not look
//! like one that passed (S-33).
//!
//! How many wait is bounded by who asks: each holds a connection of its own (`limits.connections`) while it waits.

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
}

/// Those who wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Digests {
    waiting: BTreeMap<(CommandNumber, Waiter), Tick>,
}

impl Digests {
    /// Somebody waits for the digest at `number` until `until`.
    pub(super) fn wait(&mut self, waiter: Waiter, number: CommandNumber, until: Tick) {
        self.waiting.insert((number, waiter), until);
    }

    /// The next waiter for a number up to `number`, with that number; it does not wait any more.
    pub(super) fn next_due(&mut self, number: CommandNumber) -> Option<(CommandNumber, Waiter)> {
        let (&due, _) = self.waiting.first_key_value()?;
        if due.0 > number {
            return None;
        }
        self.waiting.remove(&due);
        Some(due)
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
