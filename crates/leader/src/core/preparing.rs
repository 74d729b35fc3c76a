//! Steps 1 to 3: asking for promises and collecting what a majority set knows.

use std::collections::BTreeMap;

use protocol::message::{BallotInfo, NextBallot, ReadBarrier};
use protocol::{Ballot, Call, CommandId, CommandNumber, MajoritySets, NodeId, Tick, Vote};

use super::kept::Calls;

/// What one acceptor promised, as far as its parts have arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Promise {
    issued: CommandId,
    parts: u32,
    votes: BTreeMap<u32, Vec<Vote>>,
}

impl Promise {
    fn is_complete(&self) -> bool {
        self.votes.len() as u64 == u64::from(self.parts)
    }
}

/// A request that arrived while the promises are collected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Arrived {
    Call(NodeId, Call, u64),
    Barrier(NodeId, ReadBarrier),
}

/// What there was before this ballot, for those who wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Before {
    pub(crate) arrived: Vec<Arrived>,
    pub(crate) calls: Calls,
    pub(crate) leads_on: bool,
}

/// A ballot that is not led yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Preparing {
    pub(crate) ballot: Ballot,
    /// The lowest number not known to be issued when the ballot was begun.
    pub(crate) first: CommandNumber,
    pub(crate) since: Tick,
    pub(crate) resend_at: Tick,
    promises: BTreeMap<NodeId, Promise>,
    /// Requests kept for when the ballot is led; bounded by the caller.
    pub(crate) arrived: Vec<Arrived>,
    /// Calls of the lead that a change of membership ended: they are taken up first.
    pub(crate) calls: Calls,
    /// Others still believe that this node leads, because it did until the membership changed.
    pub(crate) leads_on: bool,
}

impl Preparing {
    pub(crate) fn new(ballot: Ballot, first: CommandNumber, now: Tick, resend_at: Tick, before: Before) -> Self {
        let Before { arrived, calls, leads_on } = before;
        Self { ballot, first, since: now, resend_at, promises: BTreeMap::new(), arrived, calls, leads_on }
    }

    /// What another attempt takes over.
    pub(crate) fn give_up(self) -> Before {
        Before { arrived: self.arrived, calls: self.calls, leads_on: self.leads_on }
    }

    /// How many requests and calls are kept.
    pub(crate) fn kept(&self) -> usize {
        self.arrived.len() + self.calls.len()
    }

    /// The membership has changed: who is no acceptor any more does not count.
    pub(crate) fn retain(&mut self, acceptors: &MajoritySets) {
        self.promises.retain(|node, _| acceptors.nodes().contains(node));
    }

    /// The question, as it is first sent and repeated.
    pub(crate) fn question(&self) -> NextBallot {
        NextBallot { ballot: self.ballot, first: self.first }
    }

    /// Whether this acceptor's promise is still awaited.
    pub(crate) fn awaits(&self, acceptor: NodeId) -> bool {
        !self.promises.get(&acceptor).is_some_and(Promise::is_complete)
    }

    /// Takes a part of a promise. A repeated question gets the answer again, perhaps cut into
    /// other parts because more is issued by now: parts of different answers are not mixed.
    pub(crate) fn promised(&mut self, acceptor: NodeId, info: BallotInfo) {
        let fresh = || Promise { issued: info.issued, parts: info.parts, votes: BTreeMap::new() };
        let promise = self.promises.entry(acceptor).or_insert_with(fresh);
        if promise.is_complete() {
            return;
        }
        if (promise.issued, promise.parts) != (info.issued, info.parts) {
            *promise = fresh();
        }
        promise.votes.insert(info.part, info.votes);
    }

    /// The promises are complete for a majority set: the last command that one of its members
    /// knows to be issued, and who knows it.
    pub(crate) fn majority(&self, acceptors: &MajoritySets) -> Option<(CommandId, NodeId)> {
        if !acceptors.holds(|node| !self.awaits(node)) {
            return None;
        }
        let complete = self.promises.iter().filter(|(_, promise)| promise.is_complete());
        complete.map(|(node, promise)| (promise.issued, *node)).max_by_key(|(issued, _)| issued.number)
    }

    /// Who has promised.
    pub(crate) fn promisers(&self) -> impl Iterator<Item = NodeId> {
        self.promises.keys().copied()
    }

    /// All votes of the complete promises.
    pub(crate) fn votes(&self) -> impl Iterator<Item = &Vote> {
        self.promises
            .values()
            .filter(|promise| promise.is_complete())
            .flat_map(|promise| promise.votes.values())
            .flatten()
    }
}
