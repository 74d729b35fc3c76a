//! A node whose disk is lost never speaks again under its old identity: it makes no promise, casts no vote
//! and begins no ballot (RELIABILITY 3.12; S-16). It may come back with a new disk and learn.

use std::collections::BTreeSet;

use protocol::message::{ToLeader, ToLearner};
use protocol::{Message, NodeId, Now};
use storage::{LogRecord, Standing};

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
        let node = match fact {
            Fact::Stopped { node, why: Stop::DiskLost } => {
                self.lost.insert(*node);
                return Ok(());
            }
            Fact::Sent { from, message, .. } if speaks(message) => from,
            Fact::Leads { node, ballot: Some(_) } => node,
            Fact::Written { node, records } if records.iter().any(binds) => node,
            Fact::Sent { .. }
            | Fact::Written { .. }
            | Fact::Started { .. }
            | Fact::Installed { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Applied { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { ballot: None, .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => return Ok(()),
        };
        ensure(!self.lost.contains(node), || format!("node {node} has lost its disk and speaks again"))
    }
}

/// Whether an acceptor or a leader says this.
fn speaks(message: &Message) -> bool {
    match message {
        Message::Acceptor(_)
        | Message::Leader(
            ToLeader::BallotInfo(_) | ToLeader::MyNextBal(_) | ToLeader::Voted(_) | ToLeader::Rejoin(_),
        )
        | Message::Learner(ToLearner::Success(_) | ToLearner::Voted(_)) => true,
        Message::Leader(ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_))
        | Message::Learner(
            ToLearner::CatchUp(_) | ToLearner::Commands(_) | ToLearner::FetchSnapshot(_) | ToLearner::Snapshot(_),
        )
        | Message::FailureDetector(_)
        | Message::Gateway(_) => false,
    }
}

/// Whether it is a promise, a vote or the beginning of a ballot, or lets the node make one.
fn binds(record: &LogRecord) -> bool {
    match record {
        LogRecord::LastTried(_) | LogRecord::NextBallot(_) | LogRecord::Vote(_) => true,
        LogRecord::Standing(standing) => *standing == Standing::Sound,
        // It comes with a vote.
        LogRecord::Forget(_) | LogRecord::VotedUnder(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// S-16: catches a node that comes back with an empty disk and votes, promises, or begins a ballot as if it
    /// had never done so, or is about to; it may come back and learn.
    #[test]
    fn a_node_without_its_disk_is_silent() {
        let speaks = next_ballot(1, 2, 1, 1);
        assert_eq!(run(LostDisks::default(), &[speaks.clone(), disk_lost(2), speaks.clone()]), Ok(()));
        let learns = [disk_lost(1), started(1, 2, &[]), synced(1, 0)];
        assert_eq!(run(LostDisks::default(), &learns), Ok(()));
        let sound = written(1, LogRecord::Standing(Standing::Sound));
        for again in [speaks, votes(1, 1, &[]), sound] {
            assert_fails(run(LostDisks::default(), &[disk_lost(1), again]), "speaks again");
        }
    }
}
