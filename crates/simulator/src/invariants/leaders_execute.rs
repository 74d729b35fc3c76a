//! Functions run on a node only while it leads (A1i; RELIABILITY 3.10: learners never execute). What was handed
//! to the pool may run a little longer: on a node that has led in this life.
//!
//! In one turn of a leader an execution and a change of leadership are one moment: their order does not count.

use std::collections::BTreeMap;

use protocol::{NodeId, Now, Tick};

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;
use crate::functions::SLOW;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leading {
    /// It leads.
    Now,
    /// It led in this life, until then.
    Until(Tick),
}

/// See the module.
#[derive(Default)]
pub(super) struct LeadersExecute {
    nodes: BTreeMap<NodeId, Leading>,
    /// Nodes that executed a function at this moment without leading.
    early: BTreeMap<NodeId, (Tick, String)>,
}

impl Invariant for LeadersExecute {
    fn name(&self) -> &'static str {
        "leaders execute"
    }

    fn check(&mut self, now: Now, fact: &Fact, _: &History) -> Result<(), Violation> {
        let late = self.early.iter().find(|(_, (at, _))| *at < now.tick);
        late.map_or(Ok(()), |(node, (_, function))| {
            Err(format!("{function} runs on node {node}, which does not lead"))
        })?;
        match fact {
            Fact::Leads { node, ballot: Some(_) } => {
                self.nodes.insert(*node, Leading::Now);
                self.early.remove(node);
            }
            Fact::Leads { node, ballot: None } => {
                if let Some(leading) = self.nodes.get_mut(node) {
                    *leading = Leading::Until(now.tick);
                }
            }
            Fact::Started { node, .. } => {
                self.nodes.remove(node);
            }
            Fact::Executed { node, function } => {
                let may = match self.nodes.get(node) {
                    Some(Leading::Now) => true,
                    Some(Leading::Until(at)) => *at == now.tick || function == SLOW,
                    None => false,
                };
                if !may {
                    self.early.insert(*node, (now.tick, function.clone()));
                }
            }
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Applied { .. }
            | Fact::Installed { .. }
            | Fact::Synced { .. }
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

    fn end(&mut self, _: Now, _: &History) -> Result<(), Violation> {
        ensure(self.early.is_empty(), || format!("functions run on nodes that do not lead: {:?}", self.early))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// A1i: catches a function that runs on a node that never led, or does no longer; the pool may be late.
    #[test]
    fn only_leaders_execute() {
        let runs = |function: &str| Fact::Executed { node: NodeId(1), function: function.to_owned() };
        let leads = |round: Option<u64>| Fact::Leads { node: NodeId(1), ballot: round.map(ballot) };
        let run = |facts: &[Fact]| run(LeadersExecute::default(), facts);
        let led = [leads(Some(1)), runs("kv.put"), leads(None)];
        assert_eq!(run(&[&led[..], &[runs(SLOW)]].concat()), Ok(()));
        assert_fails(run(&[runs("kv.put")]), "do not lead");
        assert_fails(run(&[runs("kv.put"), leads(Some(1))]), "does not lead");
        assert_fails(run(&[runs(SLOW)]), "do not lead");
        assert_fails(run(&[&led[..], &[runs("kv.put")]].concat()), "do not lead");
        assert_fails(run(&[&led[..], &[started(1, 2, &[]), runs(SLOW)]].concat()), "do not lead");
    }

    /// Catches facts of one turn that are held against their order.
    #[test]
    fn the_order_within_a_moment_does_not_count() {
        let runs = Fact::Executed { node: NodeId(1), function: "kv.put".to_owned() };
        let leads = |round: Option<u64>| Fact::Leads { node: NodeId(1), ballot: round.map(ballot) };
        let at = |tick: u64, fact: &Fact| (Tick(tick), fact.clone());
        let turn = [at(1, &runs), at(1, &leads(Some(1))), at(2, &leads(None)), at(2, &runs)];
        assert_eq!(run_at(LeadersExecute::default(), &turn), Ok(()));
    }
}
