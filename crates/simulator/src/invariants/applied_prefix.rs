//! What a node has applied is a prefix of what is issued: one by one while it is up, or as a whole state that another
//! node has at a later number. After a power cut, or when the disk has failed, it starts not below what was synced, and
//! otherwise not below what it had applied: `kill -9` loses nothing that was written (DESIGN 14.7, RELIABILITY 3.5).

use std::collections::BTreeMap;

use protocol::{CommandNumber, NodeId, Now};

use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Stop};
use crate::fault::Fault;

/// While a node is down, `applied` is the least that it starts with.
#[derive(Default)]
struct Progress {
    applied: CommandNumber,
    synced: CommandNumber,
}

/// See the module.
#[derive(Default)]
pub(super) struct AppliedPrefix {
    nodes: BTreeMap<NodeId, Progress>,
}

impl Invariant for AppliedPrefix {
    fn name(&self) -> &'static str {
        "applied prefix"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        match fact {
            Fact::Applied { node, command, .. } => {
                let progress = self.nodes.entry(*node).or_default();
                ensure(command.number() == progress.applied.next(), || {
                    format!("node {node} applies {} after {}", command.id, progress.applied)
                })?;
                progress.applied = command.number();
            }
            Fact::Installed { node, id } => {
                let progress = self.nodes.entry(*node).or_default();
                ensure(id.at.number > progress.applied, || {
                    format!("node {node} installs the state at {}, and has applied {}", id.at, progress.applied)
                })?;
                ensure(history.chain.id_at(id.at.number) == Some(id.at), || {
                    format!("node {node} installs the state at {}, which is not what was issued there", id.at)
                })?;
                *progress = Progress { applied: id.at.number, synced: id.at.number };
            }
            Fact::Synced { node, durable } => {
                let progress = self.nodes.entry(*node).or_default();
                ensure((progress.synced..=progress.applied).contains(durable), || {
                    let Progress { applied, synced } = *progress;
                    format!("node {node} says that {durable} is durable, after {synced}; it has applied {applied}")
                })?;
                progress.synced = *durable;
            }
            Fact::Started { node, applied, .. } => {
                let progress = self.nodes.entry(*node).or_default();
                ensure(applied.number >= progress.applied, || {
                    format!("node {node} starts at {applied}, and its disk held all up to {}", progress.applied)
                })?;
                ensure(history.chain.id_at(applied.number) == Some(*applied), || {
                    format!("node {node} starts at {applied}, which is not what was issued there")
                })?;
                // Opening makes durable what is there.
                *progress = Progress { applied: applied.number, synced: applied.number };
            }
            Fact::Stopped { node, why: Stop::PowerCut | Stop::Disk } => {
                let progress = self.nodes.entry(*node).or_default();
                progress.applied = progress.synced;
            }
            // It begins anew.
            Fact::Fault(Fault::StateLost(node) | Fault::StateRot(node))
            | Fact::Stopped { node, why: Stop::DiskLost } => {
                self.nodes.remove(node);
            }
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { why: Stop::Killed | Stop::Refused, .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn stopped(why: Stop) -> Fact {
        Fact::Stopped { node: NodeId(1), why }
    }

    /// A1o: catches a node that skips a command, applies one again, says that more is durable than it has applied, or less
    /// than before, and one that starts with what was not issued.
    #[test]
    fn a_node_applies_one_by_one() {
        let commands = chain_of(&[1, 2, 3].map(|n| body(&format!("r{n}"), vec![put("a", "1")])));
        let [one, two, three] = [0, 1, 2].map(|n| applied(1, &commands[n]));
        let run = |facts: &[&Fact]| run(AppliedPrefix::default(), &facts.iter().copied().cloned().collect::<Vec<_>>());
        assert_eq!(run(&[&one, &two, &synced(1, 1), &three, &synced(1, 3)]), Ok(()));
        assert_fails(run(&[&one, &three]), "after 1");
        assert_fails(run(&[&one, &one]), "after 1");
        assert_fails(run(&[&one, &synced(1, 2)]), "says that 2 is durable");
        assert_fails(run(&[&one, &two, &synced(1, 2), &synced(1, 1)]), "says that 1 is durable");
        assert_fails(run(&[&one, &started_at(1, 2, &commands[..2])]), "not what was issued there");
    }

    /// A1o: catches a node that has lost in a power cut what it had synced, or in any other end of its process what it had
    /// written; and one that says later that less is durable than it has started with. A lost state begins anew.
    #[test]
    fn a_node_keeps_what_was_synced_and_what_was_written() {
        let commands = chain_of(&[1, 2, 3].map(|n| body(&format!("r{n}"), vec![put("a", "1")])));
        let before = [applied(1, &commands[0]), applied(1, &commands[1]), synced(1, 1), applied(1, &commands[2])];
        let at = |number: usize| started_at(1, 2, &commands[..number]);
        let with = |facts: &[Fact]| run(AppliedPrefix::default(), &[&before, facts].concat());
        for why in [Stop::PowerCut, Stop::Disk] {
            assert_eq!(with(&[stopped(why), at(1), applied(1, &commands[1])]), Ok(()));
            assert_eq!(with(&[stopped(why), at(3)]), Ok(()));
            assert_fails(with(&[stopped(why), at(0)]), "its disk held all up to 1");
            assert_fails(with(&[stopped(why), at(2), synced(1, 1)]), "says that 1 is durable");
        }
        for why in [Stop::Killed, Stop::Refused] {
            assert_eq!(with(&[stopped(why), at(3)]), Ok(()));
            assert_fails(with(&[stopped(why), at(2)]), "its disk held all up to 3");
        }
        let lost = |fault| [stopped(Stop::PowerCut), Fact::Fault(fault), at(0), applied(1, &commands[0])];
        assert_eq!(with(&lost(Fault::StateLost(NodeId(1)))), Ok(()));
        assert_eq!(with(&lost(Fault::StateRot(NodeId(1)))), Ok(()));
        assert_eq!(with(&[disk_lost(1), at(0)]), Ok(()));
    }

    /// S-18: catches a state that takes a node back, that shows what was not issued, or that is not durable; a node goes
    /// on after it.
    #[test]
    fn a_whole_state_takes_a_node_forward() {
        let commands = chain_of(&[1, 2, 3].map(|n| body(&format!("r{n}"), vec![put("a", "1")])));
        let of_another: Vec<Fact> = commands[..2].iter().map(|command| applied(2, command)).collect();
        let installed = |number: usize| installed_at(1, &commands[..number]);
        let run = |facts: &[Fact]| run(AppliedPrefix::default(), &[&of_another, facts].concat());
        let cut = stopped(Stop::PowerCut);
        let goes_on = [installed(2), applied(1, &commands[2]), cut.clone(), started_at(1, 2, &commands[..2])];
        assert_eq!(run(&goes_on), Ok(()));
        assert_fails(run(&[installed(2), installed(1)]), "and has applied 2");
        assert_fails(run(&[installed(3)]), "not what was issued there");
        assert_fails(run(&[installed(2), cut, started_at(1, 2, &commands[..1])]), "its disk held all up to 2");
    }
}
