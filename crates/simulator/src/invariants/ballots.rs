//! B1: no ballot is begun by two nodes, or twice; whoever begins one owns it and has made `last_tried`
//! durable first, and only it proposes in it (DESIGN 14.4, RELIABILITY 3.4).

use std::collections::BTreeMap;

use protocol::message::ToAcceptor;
use protocol::{Ballot, Message, NodeId, Now};
use storage::LogRecord;

use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Stop};

/// See the module.
#[derive(Default)]
pub(super) struct Ballots {
    /// How often each node has started.
    lives: BTreeMap<NodeId, u32>,
    /// In which life its owner began a ballot.
    begun: BTreeMap<Ballot, u32>,
    last_tried: BTreeMap<NodeId, Ballot>,
}

impl Invariant for Ballots {
    fn name(&self) -> &'static str {
        "ballots"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        match fact {
            Fact::Started { node, life, log, .. } => {
                self.lives.insert(*node, *life);
                let tried = self.last_tried.entry(*node).or_default();
                ensure(log.last_tried >= *tried, || {
                    format!("node {node} had tried {tried}, and after its start only {}", log.last_tried)
                })?;
                *tried = log.last_tried;
                Ok(())
            }
            // Another disk, with which it begins none: `lost_disks` looks at that.
            Fact::Stopped { node, why: Stop::DiskLost } => {
                self.last_tried.remove(node);
                Ok(())
            }
            Fact::Written { node, records } => records.iter().try_for_each(|record| self.written(*node, record)),
            Fact::Sent { from, message: Message::Acceptor(ToAcceptor::NextBallot(next)), .. } => {
                self.begins(*from, next.ballot, history)
            }
            Fact::Sent { from, message: Message::Acceptor(ToAcceptor::BeginBallot(begin)), .. } => {
                let life = self.lives.get(from).copied().unwrap_or_default();
                ensure(begin.ballot.node == *from && self.begun.get(&begin.ballot) == Some(&life), || {
                    format!("node {from} proposes in {}, which it has not begun in this life", begin.ballot)
                })
            }
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Applied { .. }
            | Fact::Installed { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => Ok(()),
        }
    }
}

impl Ballots {
    fn written(&mut self, node: NodeId, record: &LogRecord) -> Result<(), Violation> {
        let LogRecord::LastTried(ballot) = record else { return Ok(()) };
        let earlier = self.last_tried.insert(node, *ballot).unwrap_or_default();
        ensure(*ballot > earlier && ballot.node == node, || format!("node {node} tries {ballot} after {earlier}"))
    }

    fn begins(&mut self, node: NodeId, ballot: Ballot, history: &History) -> Result<(), Violation> {
        ensure(ballot.node == node, || format!("node {node} begins {ballot}, which is not its own"))?;
        ensure(history.disks.last_tried(node) >= ballot, || {
            format!("node {node} begins {ballot}, and its last_tried is not durable")
        })?;
        let life = self.lives.get(&node).copied().unwrap_or_default();
        let begun = *self.begun.entry(ballot).or_insert(life);
        ensure(begun == life, || format!("node {node} begins {ballot} again, which it began in an earlier life"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn tried(node: u64, round: u64) -> Fact {
        let ballot = Ballot::new(round, NodeId(node));
        Fact::Written { node: NodeId(node), records: vec![LogRecord::LastTried(ballot)] }
    }

    /// A7: catches a ballot of another node, one begun before `last_tried` is durable, and one that is
    /// begun again after a restart.
    #[test]
    fn a_ballot_is_begun_once_by_its_owner() {
        let begins = |from, round, owner| next_ballot(from, 2, round, owner);
        let up = started(1, 1, &[]);
        let good = [up.clone(), tried(1, 1), begins(1, 1, 1), begins(1, 1, 1)];
        assert_eq!(run(Ballots::default(), &good), Ok(()));
        assert_fails(run(Ballots::default(), &[up.clone(), begins(1, 1, 1)]), "not durable");
        assert_fails(run(Ballots::default(), &[up.clone(), tried(1, 2), begins(1, 1, 2)]), "not its own");
        let mut again = started(1, 2, &[]);
        if let Fact::Started { log, .. } = &mut again {
            log.last_tried = Ballot::new(1, NodeId(1));
        }
        let twice = [&good[..], &[again.clone(), begins(1, 1, 1)]].concat();
        assert_fails(run(Ballots::default(), &twice), "earlier life");
        assert_fails(run(Ballots::default(), &[&good[..], &[started(1, 2, &[])]].concat()), "after its start only");
        assert_fails(run(Ballots::default(), &[up.clone(), tried(1, 1), tried(1, 1)]), "after 1.1");
        assert_fails(
            run(Ballots::default(), &[up, written(1, LogRecord::LastTried(Ballot::new(2, NodeId(2))))]),
            "tries",
        );
        assert_eq!(run(Ballots::default(), &[&good[..2], &[disk_lost(1), started(1, 2, &[])]].concat()), Ok(()));
    }

    /// A1b: catches proposals by another node than the owner of the ballot, and by an owner that has forgotten
    /// in a restart that it led.
    #[test]
    fn only_its_leader_proposes_in_a_ballot() {
        let begins = begin_ballot(1, 2, 1, &[]);
        let good = [started(1, 1, &[]), tried(1, 1), next_ballot(1, 2, 1, 1), begins.clone()];
        assert_eq!(run(Ballots::default(), &good), Ok(()));
        let mut other = begins.clone();
        if let Fact::Sent { from, .. } = &mut other {
            *from = NodeId(3);
        }
        assert_fails(run(Ballots::default(), &[&good[..], &[other]].concat()), "not begun in this life");
        let mut up = started(1, 2, &[]);
        if let Fact::Started { log, .. } = &mut up {
            log.last_tried = Ballot::new(1, NodeId(1));
        }
        assert_fails(run(Ballots::default(), &[&good[..], &[up, begins]].concat()), "not begun in this life");
    }
}
