//! B3(I,β): once a command is decided in a ballot, no higher ballot carries another one at its number; and
//! no ballot carries two (DESIGN 14.6, RELIABILITY 3.1).
//!
//! It is looked at from both ends: what is proposed against what is decided, and what is decided against
//! what was proposed in higher ballots before it was known to be.

use std::collections::BTreeMap;

use protocol::message::ToAcceptor;
use protocol::{Ballot, Command, CommandId, CommandNumber, Message, Now};

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
#[derive(Default)]
pub(super) struct Anchored {
    /// What was proposed at numbers that were not decided then.
    proposed: BTreeMap<CommandNumber, BTreeMap<Ballot, CommandId>>,
    /// Up to where the decided commands have been looked at.
    looked_at: CommandNumber,
}

impl Invariant for Anchored {
    fn name(&self) -> &'static str {
        "anchored"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        while self.looked_at < history.disks.last_decided() {
            self.looked_at = self.looked_at.next();
            let proposed = self.proposed.remove(&self.looked_at).unwrap_or_default();
            for (ballot, id) in proposed {
                against_decided(ballot, id, history)?;
            }
        }
        let Fact::Sent { message: Message::Acceptor(ToAcceptor::BeginBallot(begin)), .. } = fact else { return Ok(()) };
        begin.commands.iter().try_for_each(|command| self.proposes(begin.ballot, command, history))
    }
}

impl Anchored {
    fn proposes(&mut self, ballot: Ballot, command: &Command, history: &History) -> Result<(), Violation> {
        if command.number() <= self.looked_at {
            return against_decided(ballot, command.id, history);
        }
        let proposed = self.proposed.entry(command.number()).or_default();
        let first = *proposed.entry(ballot).or_insert(command.id);
        ensure(first == command.id, || format!("ballot {ballot} proposes {first} and {} at one number", command.id))
    }
}

fn against_decided(ballot: Ballot, id: CommandId, history: &History) -> Result<(), Violation> {
    let decided = history.disks.decided_at(id.number);
    let clash = decided.filter(|decided| ballot >= decided.ballot && decided.command.id != id);
    clash.map_or(Ok(()), |decided| {
        Err(format!("ballot {ballot} proposes {id}, and {} was decided in {}", decided.command.id, decided.ballot))
    })
}

#[cfg(test)]
mod tests {
    use protocol::NodeId;

    use super::super::testing::*;
    use super::*;

    /// A1r, S-01: catches a leader that proposes another command at a decided number, whether that number was
    /// known to be decided before or only after; a lower ballot may still do so, in vain.
    #[test]
    fn a_higher_ballot_carries_what_is_decided() {
        let decided = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let mut other = decided.clone();
        other.id.ballot = Ballot::new(3, NodeId(1));
        let by_votes = [votes(1, 2, &[decided]), votes(2, 2, &[decided])];
        let with = |facts: &[Fact]| run(Anchored::default(), &[&by_votes, facts].concat());
        assert_eq!(with(&[begin_ballot(1, 2, 3, &[decided]), begin_ballot(1, 2, 1, &[&other])]), Ok(()));
        assert_fails(with(&[begin_ballot(1, 2, 3, &[&other])]), "was decided in 2.1");
        let before = [&[begin_ballot(1, 2, 3, &[&other])], &by_votes[..]].concat();
        assert_fails(run(Anchored::default(), &before), "was decided in 2.1");
    }

    /// Catches two commands at one number of one ballot.
    #[test]
    fn a_ballot_carries_one_command_at_a_number() {
        let one = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let mut other = one.clone();
        other.id.ballot = Ballot::new(2, NodeId(1));
        let twice = [begin_ballot(1, 2, 2, &[one]), begin_ballot(1, 3, 2, &[&other])];
        assert_fails(run(Anchored::default(), &twice), "at one number");
        assert_eq!(run(Anchored::default(), &[twice[0].clone(), twice[0].clone()]), Ok(()));
    }
}
