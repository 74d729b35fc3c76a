//! A leader that hears, or knows, something else than it should.

use std::collections::BTreeSet;

use leader::core::{Input, Machine};
use leader::machine::StoredMachine;
use protocol::message::{BallotInfo, ToLeader};
use protocol::{Entry, Key, NodeId, RequestId, StateError, StateView, StoredOutcome, Timestamp};
use storage::memory::MemoryState;

use super::{Planted, no_barrier};

/// M(p) with something left out.
struct Forgetful<'a> {
    stored: StoredMachine<'a>,
    planted: Option<Planted>,
}

impl StateView for Forgetful<'_> {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        self.stored.get(key)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.stored.scan(prefix, after, limit)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        if self.planted == Some(Planted::RepeatsRequests) { Ok(None) } else { self.stored.outcome(request) }
    }
}

impl Machine for Forgetful<'_> {
    fn last_time(&self) -> Result<Timestamp, StateError> {
        if self.planted == Some(Planted::GoesByItsClock) { Ok(Timestamp::default()) } else { self.stored.last_time() }
    }
}

/// M(p) as a leader sees it.
pub(crate) struct Seen<'a> {
    forgetful: Forgetful<'a>,
    veiled: no_barrier::Veiled<'a>,
}

impl<'a> Seen<'a> {
    pub(crate) fn new(planted: Option<Planted>, state: &'a MemoryState) -> Self {
        let stored = || StoredMachine(state);
        Self { forgetful: Forgetful { stored: stored(), planted }, veiled: no_barrier::Veiled(stored()) }
    }

    pub(crate) fn machine(&self) -> &dyn Machine {
        if self.forgetful.planted == Some(Planted::NoBarrier) { &self.veiled } else { &self.forgetful }
    }
}

/// What a leader hears: usually what was said.
pub(crate) fn heard(planted: Option<Planted>, inputs: Vec<Input>, acceptors: &BTreeSet<NodeId>) -> Vec<Input> {
    match planted {
        Some(Planted::NoBarrier) => inputs.into_iter().map(veiled).collect(),
        Some(Planted::GoesByFirstBallots) => inputs.into_iter().map(by_first_ballots).collect(),
        Some(Planted::CountsVotesTwice) => inputs.into_iter().flat_map(|input| twice(input, acceptors)).collect(),
        Some(_) | None => inputs,
    }
}

fn veiled(mut input: Input) -> Input {
    no_barrier::veil(&mut input);
    input
}

fn by_first_ballots(mut input: Input) -> Input {
    if let Input::Message { message: ToLeader::BallotInfo(BallotInfo { votes, .. }), .. } = &mut input {
        votes.iter_mut().for_each(|vote| vote.ballot = vote.command.id.ballot);
    }
    input
}

/// A vote, and the same as if the next acceptor had cast it.
fn twice(input: Input, acceptors: &BTreeSet<NodeId>) -> Vec<Input> {
    let mut heard = vec![input];
    if let Input::Message { from, message: message @ ToLeader::Voted(_) } = &heard[0]
        && let Some(next) = acceptors.iter().find(|node| *node > from).or(acceptors.first())
    {
        heard.push(Input::Message { from: *next, message: message.clone() });
    }
    heard
}
