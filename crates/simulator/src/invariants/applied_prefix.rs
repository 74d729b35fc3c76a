//! What a node has applied is a prefix of what is issued: one by one while it is up, or as a whole state that another
//! node has at a later number; and after a restart not below what was synced (DESIGN 14.7, RELIABILITY 3.5).

use std::collections::BTreeMap;

use protocol::{CommandNumber, NodeId, Now};

use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Stop};
use crate::fault::Fault;

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
                ensure(applied.number >= progress.synced, || {
                    format!("node {node} starts at {applied}, and {} was durable", progress.synced)
                })?;
                ensure(history.chain.id_at(applied.number) == Some(*applied), || {
                    format!("node {node} starts at {applied}, which is not what was issued there")
                })?;
                *progress = Progress { applied: applied.number, synced: progress.synced };
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
            | Fact::Stopped { .. }
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

    /// A1o: catches a node that skips a command, applies one again, or has lost in a restart what it had synced;
    /// what was not synced may be lost.
    #[test]
    fn a_node_applies_one_by_one_and_keeps_what_was_synced() {
        let commands = chain_of(&[1, 2, 3].map(|n| body(&format!("r{n}"), vec![put("a", "1")])));
        let [one, two, three] = [0, 1, 2].map(|n| applied(1, &commands[n]));
        let synced = |durable| Fact::Synced { node: NodeId(1), durable: CommandNumber(durable) };
        let at = |number: usize| started_at(1, 2, &commands[..number]);
        let run = |facts: &[&Fact]| run(AppliedPrefix::default(), &facts.iter().copied().cloned().collect::<Vec<_>>());
        assert_eq!(run(&[&one, &two, &synced(1), &at(1), &two, &three]), Ok(()));
        assert_fails(run(&[&one, &three]), "after 1");
        assert_fails(run(&[&one, &one]), "after 1");
        assert_fails(run(&[&one, &synced(2)]), "is durable");
        assert_fails(run(&[&one, &two, &synced(2), &at(1)]), "was durable");
        assert_fails(run(&[&one, &at(2)]), "not what was issued there");
    }

    /// S-18: catches a state that takes a node back, that shows what was not issued, or that is not durable; a node goes
    /// on after it.
    #[test]
    fn a_whole_state_takes_a_node_forward() {
        let commands = chain_of(&[1, 2, 3].map(|n| body(&format!("r{n}"), vec![put("a", "1")])));
        let of_another: Vec<Fact> = commands[..2].iter().map(|command| applied(2, command)).collect();
        let installed = |number: usize| installed_at(1, &commands[..number]);
        let run = |facts: &[Fact]| run(AppliedPrefix::default(), &[&of_another, facts].concat());
        assert_eq!(run(&[installed(2), applied(1, &commands[2]), started_at(1, 2, &commands[..2])]), Ok(()));
        assert_fails(run(&[installed(2), installed(1)]), "and has applied 2");
        assert_fails(run(&[installed(3)]), "not what was issued there");
        assert_fails(run(&[installed(2), started_at(1, 2, &commands[..1])]), "2 was durable");
    }
}
