//! A node whose disk is lost never speaks again under its old identity, above all it never votes
//! (RELIABILITY 3.12; S-16).

use std::collections::BTreeSet;

use protocol::{NodeId, Now};

use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Stop};

/// See the module.
#[derive(Default)]
pub(super) struct LostDisks {
    lost: BTreeSet<NodeId>,
}

impl Invariant for LostDisks {
    fn name(&self) -> &'static str {
        "lost disks"
    }

    fn check(&mut self, _: Now, fact: &Fact, _: &History) -> Result<(), Violation> {
        match fact {
            Fact::Stopped { node, why: Stop::DiskLost } => {
                self.lost.insert(*node);
                Ok(())
            }
            Fact::Sent { from: node, .. }
            | Fact::Started { node, .. }
            | Fact::Written { node, .. }
            | Fact::Installed { node, .. } => {
                ensure(!self.lost.contains(node), || format!("node {node} has lost its disk and is there again"))
            }
            Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Applied { .. }
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// S-16: catches a node that comes back with an empty disk and votes as if it had promised nothing.
    #[test]
    fn a_node_without_its_disk_is_silent() {
        let speaks = next_ballot(1, 2, 1, 1);
        assert_eq!(run(LostDisks::default(), &[speaks.clone(), disk_lost(2), speaks.clone()]), Ok(()));
        for again in [started(1, 2, &[]), speaks, votes(1, 1, &[])] {
            assert_fails(run(LostDisks::default(), &[disk_lost(1), again]), "is there again");
        }
    }
}
