//! The patent read to the letter (S-01), and the one rule that mends it.
//!
//! The literal rules (claim 1, steps 4 and 5): an acceptor votes for any number in the promised
//! ballot, keeps one vote a number, and a command counts as issued once a majority set has voted
//! for it *in some ballot* and its precedent is issued. This is these rules and no more; the
//! choice of the initial history is the shipped one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use leader::core::initial_history;
use protocol::{Ballot, Command, CommandId, CommandNumber, NodeId, Vote};

use crate::world::{P, Q, R};

/// A device of the literal patent: acceptor, leader and learner in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    next_ballot: Ballot,
    votes: BTreeMap<CommandNumber, Vote>,
    /// Who voted for which command in which ballot; kept for ever.
    tallies: BTreeMap<(CommandId, Ballot), BTreeSet<NodeId>>,
    proposed: BTreeMap<CommandId, Command>,
    issued: Vec<CommandId>,
}

/// Three devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Literal {
    gap_free: bool,
    devices: BTreeMap<NodeId, Device>,
}

impl Literal {
    /// Devices that know nothing. With `gap_free` the one rule is added that the patent lacks.
    #[must_use]
    pub fn new(gap_free: bool) -> Self {
        Self { gap_free, devices: [P, Q, R].map(|id| (id, Device::default())).into() }
    }

    fn device(&mut self, id: NodeId) -> &mut Device {
        self.devices.get_mut(&id).expect("one of three")
    }

    /// What a device considers issued, from number 1.
    #[must_use]
    pub fn issued(&self, id: NodeId) -> &[CommandId] {
        &self.devices[&id].issued
    }

    /// The promise of a device.
    #[must_use]
    pub fn next_ballot(&self, id: NodeId) -> Ballot {
        self.devices[&id].next_ballot
    }

    /// Steps 1 to 3: the initial history that the promises of `quorum` lead to.
    ///
    /// # Panics
    /// When one of them has promised more.
    pub fn prepare(&mut self, ballot: Ballot, quorum: [NodeId; 2]) -> Vec<Command> {
        for acceptor in quorum {
            assert!(self.device(acceptor).next_ballot <= ballot);
            self.device(acceptor).next_ballot = ballot;
        }
        let issued = self.devices[&ballot.node].issued.last().copied().unwrap_or_default();
        initial_history(issued, quorum.iter().flat_map(|acceptor| self.devices[acceptor].votes.values()))
    }

    /// Steps 3 to 5: a ballot on one command, whose `BeginBallot` reaches `acceptors` only.
    pub fn begin(&mut self, ballot: Ballot, command: &Command, acceptors: &[NodeId]) {
        for acceptor in acceptors {
            let gap_free = self.gap_free;
            let device = self.device(*acceptor);
            let below = command.precedent.number;
            let anchored = device
                .votes
                .get(&below)
                .is_some_and(|vote| vote.ballot == ballot && vote.command.id == command.precedent)
                || below == CommandNumber::NULL
                || device.issued.contains(&command.precedent);
            if device.next_ballot != ballot || (gap_free && !anchored) {
                continue;
            }
            device.votes.insert(command.number(), Vote { ballot, command: command.clone() });
            let leader = self.device(ballot.node);
            leader.proposed.insert(command.id, command.clone());
            leader.tallies.entry((command.id, ballot)).or_default().insert(*acceptor);
        }
        self.device(ballot.node).issue();
    }

    /// Step 6: the Success of what `from` considers issued at the next number reaches `to`.
    /// False when there is none.
    pub fn learn(&mut self, to: NodeId, from: NodeId) -> bool {
        let known = self.devices[&to].issued.len();
        let Some(next) = self.devices[&from].issued.get(known).copied() else { return false };
        self.device(to).issued.push(next);
        true
    }
}

impl Device {
    /// Step 5 to the letter: a majority set voted in some ballot, and the precedent is issued.
    fn issue(&mut self) {
        loop {
            let last = self.issued.last().copied().unwrap_or_default();
            let next =
                self.tallies.iter().find(|((id, _), voters)| voters.len() >= 2 && self.proposed[id].follows(last));
            match next {
                Some(((id, _), _)) => self.issued.push(*id),
                None => return,
            }
        }
    }
}

/// A command first proposed in `ballot`.
#[must_use]
pub fn command(number: u64, ballot: Ballot, precedent: CommandId) -> Command {
    Command { id: CommandId::new(ballot, CommandNumber(number)), precedent, body: Bytes::new() }
}
