//! Rounds: what proves that this node still leads, and the output gate that waits for it.
//!
//! Every `BeginBallot` of a ballot carries a rising round number, and every `Voted` returns the
//! highest that its sender has received. Once a majority set has returned round r, no other node
//! had been promised their votes when round r was sent: whatever this node knew then was the
//! newest that anyone could have acknowledged. No clock is trusted for it (DESIGN 6, S-20).
//!
//! Nothing that shows leader state leaves before (a) all that it shows is issued and (b) a round
//! sent after it was computed has been confirmed: replies without a command, refusals, and read
//! barriers alike (S-08, S-21).

use std::collections::{BTreeMap, VecDeque};

use protocol::message::ToGateway;
use protocol::{CommandNumber, MajoritySets, NodeId};

/// A reply held back by the gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gated {
    /// All up to this number must be issued.
    pub(crate) number: CommandNumber,
    /// This round must be confirmed.
    round: u64,
    pub(crate) gateway: NodeId,
    pub(crate) reply: ToGateway,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rounds {
    sent: u64,
    returned: BTreeMap<NodeId, u64>,
    confirmed: u64,
    /// A round is wanted although no reply waits for one.
    asked: bool,
    /// In order of both number and round, because both only grow.
    gated: VecDeque<Gated>,
}

impl Rounds {
    /// Holds a reply until all up to `number` is issued and a round from now on is confirmed.
    pub(crate) fn gate(&mut self, number: CommandNumber, gateway: NodeId, reply: ToGateway) {
        let number = self.gated.back().map_or(number, |last| last.number.max(number));
        self.gated.push_back(Gated { number, round: self.sent + 1, gateway, reply });
    }

    /// Whether a reply waits for a round that is not sent yet.
    pub(crate) fn wants_round(&self) -> bool {
        self.asked || self.gated.back().is_some_and(|last| last.round > self.sent)
    }

    /// Wants a round, to hear whether this ballot is still led.
    pub(crate) fn ask(&mut self) {
        self.asked = true;
    }

    /// How many rounds are sent and not confirmed.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sent - self.confirmed
    }

    /// The number of the next `BeginBallot`, which is sent to all acceptors.
    pub(crate) fn begin(&mut self) -> u64 {
        self.asked = false;
        self.sent += 1;
        self.sent
    }

    /// The last round sent: what a repetition carries.
    pub(crate) fn last(&self) -> u64 {
        self.sent
    }

    /// Whether an acceptor has not returned the last round while it matters to somebody.
    pub(crate) fn is_behind(&self, acceptor: NodeId) -> bool {
        self.confirmed < self.sent && self.returned.get(&acceptor).is_none_or(|returned| *returned < self.sent)
    }

    /// An acceptor returned `round`. False when it was never sent: a peer's error, which confirms
    /// nothing.
    pub(crate) fn returned(&mut self, acceptor: NodeId, round: u64, acceptors: &MajoritySets) -> bool {
        if round > self.sent {
            return false;
        }
        let own = self.returned.entry(acceptor).or_default();
        *own = round.max(*own);
        let confirmed = acceptors.reached(|node| self.returned.get(&node).copied()).unwrap_or(0);
        self.confirmed = self.confirmed.max(confirmed);
        true
    }

    /// The replies that may leave now.
    pub(crate) fn open(&mut self, issued: CommandNumber) -> Vec<Gated> {
        let mut open = Vec::new();
        while let Some(gated) = self.gated.pop_front_if(|first| first.number <= issued && first.round <= self.confirmed)
        {
            open.push(gated);
        }
        open
    }

    /// All replies still held; the gate is empty afterwards.
    pub(crate) fn drain(&mut self) -> Vec<Gated> {
        self.gated.drain(..).collect()
    }

    /// How many replies are held.
    pub(crate) fn held(&self) -> usize {
        self.gated.len()
    }
}
