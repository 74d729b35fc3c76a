//! Claim 3: the votes of the acceptors, counted by each learner for itself.
//!
//! Only the votes of the highest ballot seen are kept (DESIGN 5 rule 6), and of each acceptor
//! only the last number: votes in one ballot are gap-free (rule 5), so a vote for a number says
//! that the acceptor voted in that ballot, or knows the issued command, at every number below.

use std::collections::BTreeMap;

use protocol::{Ballot, CommandId, MajoritySets, NodeId};

/// The votes of one ballot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tally {
    ballot: Ballot,
    /// The last command that each acceptor voted for.
    last: BTreeMap<NodeId, CommandId>,
}

/// Why a vote is not counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Uncounted {
    /// Its ballot is below one seen already.
    OlderBallot,
    /// This acceptor voted for this number, or a higher one, before.
    NothingNew,
    /// Another vote of this ballot names another command at the number; there can be only one.
    Contradicts(CommandId),
}

impl Tally {
    /// Counts the vote of `acceptor` for everything up to `last` in `ballot`. A higher ballot
    /// than before starts the count anew.
    pub(super) fn count(&mut self, acceptor: NodeId, ballot: Ballot, last: CommandId) -> Result<(), Uncounted> {
        if ballot < self.ballot {
            return Err(Uncounted::OlderBallot);
        }
        if ballot > self.ballot {
            *self = Self { ballot, last: BTreeMap::new() };
        }
        if let Some(other) = self.last.values().find(|other| other.number == last.number && **other != last) {
            return Err(Uncounted::Contradicts(*other));
        }
        if self.last.get(&acceptor).is_some_and(|known| known.number >= last.number) {
            return Err(Uncounted::NothingNew);
        }
        self.last.insert(acceptor, last);
        Ok(())
    }

    /// The last command for which a majority set has voted in the ballot counted. It is the one
    /// that some acceptor of that set voted for last, so its id is known even when its body is
    /// not.
    pub(super) fn decided(&self, majority: &MajoritySets) -> Option<(Ballot, CommandId)> {
        let number = majority.reached(|node| self.last.get(&node).map(|last| last.number))?;
        let id = self.last.iter().find(|(node, last)| last.number == number && majority.nodes().contains(node));
        id.map(|(_, id)| (self.ballot, *id))
    }
}
