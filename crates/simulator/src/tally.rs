//! Counts of what happened: so that nobody takes a run for a test of what never occurred in it.

use std::collections::BTreeSet;

use protocol::{Ballot, NodeId, Now, RequestId};
use storage::{LogRecord, Standing};

use crate::fact::{Fact, Observer, Question};
use crate::fault::{Fault, Shape};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Faults, by [`Fault::kind`].
    pub faults: [u64; Fault::KINDS.len()],
    /// Partitions, by [`Shape::kind`].
    pub shapes: [u64; Shape::NAMES.len()],
    /// Facts.
    pub facts: u64,
    /// Commands issued: the highest number applied anywhere.
    pub issued: u64,
    /// Whole states that came from another node.
    pub installed: u64,
    /// How often a node whose votes were damaged spoke again.
    pub rejoined: u64,
    /// How often a node began to lead after another one, or after itself.
    pub leader_changes: u64,
    /// Questions of clients.
    pub questions: u64,
    /// Calls that were asked again under the same key.
    pub retries: u64,
    /// Virtual time, in microseconds.
    pub micros: u64,
    led: Option<Ballot>,
    keys: BTreeSet<RequestId>,
    /// Nodes that are up and have not rejoined.
    damaged: BTreeSet<NodeId>,
}

impl Tally {
    /// Takes in the counts of another run.
    pub fn add(&mut self, other: &Self) {
        let sum = |ours: &mut [u64], theirs: &[u64]| {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
        };
        sum(&mut self.faults, &other.faults);
        sum(&mut self.shapes, &other.shapes);
        self.facts += other.facts;
        self.issued += other.issued;
        self.installed += other.installed;
        self.rejoined += other.rejoined;
        self.leader_changes += other.leader_changes;
        self.questions += other.questions;
        self.retries += other.retries;
        self.micros += other.micros;
    }

    /// The names of the kinds of faults, of the shapes of partitions, and of what else a run must not lack, that never
    /// were.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let none = |names: &[&'static str], counts: &[u64]| {
            names.iter().zip(counts).filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let others = none(&["snapshot_installed", "rejoined"], &[self.installed, self.rejoined]);
        [none(&Fault::KINDS, &self.faults), none(&Shape::NAMES, &self.shapes), others].concat()
    }

    /// Who leads now, or led last.
    #[must_use]
    pub fn led(&self) -> Option<NodeId> {
        self.led.map(|ballot| ballot.node)
    }
}

impl Observer for Tally {
    fn observe(&mut self, now: Now, fact: &Fact) {
        self.facts += 1;
        self.micros = now.tick.0;
        match fact {
            Fact::Fault(fault) => {
                self.faults[fault.kind()] += 1;
                if let Fault::Partition { shape, .. } = fault {
                    self.shapes[shape.kind()] += 1;
                }
            }
            Fact::Started { node, log, .. } if log.standing == Standing::Damaged => _ = self.damaged.insert(*node),
            Fact::Written { node, records } if records.contains(&LogRecord::Standing(Standing::Sound)) => {
                self.rejoined += u64::from(self.damaged.remove(node));
            }
            Fact::Applied { command, .. } => self.issued = self.issued.max(command.number().0),
            Fact::Installed { .. } => self.installed += 1,
            Fact::Leads { ballot: Some(ballot), .. } => {
                self.leader_changes += u64::from(self.led.is_some());
                self.led = Some(*ballot);
            }
            Fact::Asked { question, .. } => {
                self.questions += 1;
                if let Question::Call(call) = question
                    && matches!(call.request, RequestId::Caller(_))
                {
                    self.retries += u64::from(!self.keys.insert(call.request.clone()));
                }
            }
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { ballot: None, .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Started { .. }
            | Fact::Stopped { .. }
            | Fact::Told { .. }
            | Fact::Healed { .. } => {}
        }
    }
}
