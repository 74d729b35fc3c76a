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
    use protocol::message::{BallotInfo, CatchUp, Commands, Heartbeat, MyNextBal, ReadBarrier, Rejoin, Success, Voted};
    use protocol::{Ballot, CommandId, CommandNumber};

    use super::super::testing::*;
    use super::*;

    /// S-16: catches each way in which a node with a new disk may speak as an acceptor or a leader, and one that is not
    /// let learn, ask or be heard.
    #[test]
    fn all_that_an_acceptor_or_a_leader_says_is_speaking() {
        let (ballot, issued, first) = (ballot(1), CommandId::NULL, CommandNumber(1));
        let run = |again: Fact| run(LostDisks::default(), &[disk_lost(1), again]);
        let said = |message: Message| run(sent(1, 2, message));
        let voted = Voted { ballot, run: None, round: 1, membership: CommandNumber::NULL };
        let success = Success { ballot, issued, commands: Vec::new() };
        let info = BallotInfo { ballot, first, issued, votes: Vec::new(), part: 0, parts: 1 };
        for message in [
            Message::Leader(ToLeader::BallotInfo(info)),
            Message::Leader(ToLeader::MyNextBal(MyNextBal { ballot, refused: Ballot::NONE })),
            Message::Leader(ToLeader::Voted(voted.clone())),
            Message::Leader(ToLeader::Rejoin(Rejoin { ballot, nonce: 1 })),
            Message::Learner(ToLearner::Voted(voted)),
            Message::Learner(ToLearner::Success(success)),
        ] {
            assert_fails(said(message), "speaks again");
        }
        for message in [
            Message::Leader(ToLeader::ReadBarrier(ReadBarrier { id: 1 })),
            Message::Learner(ToLearner::CatchUp(CatchUp { first })),
            Message::Learner(ToLearner::Commands(Commands { commands: Vec::new(), issued, kept_from: first })),
            Message::FailureDetector(Heartbeat::default()),
        ] {
            assert_eq!(said(message), Ok(()));
        }
        let leads = |ballot| Fact::Leads { node: NodeId(1), ballot };
        assert_fails(run(leads(Some(ballot))), "speaks again");
        assert_eq!(run(leads(None)), Ok(()));
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        for again in [LogRecord::LastTried(ballot), LogRecord::NextBallot(ballot), LogRecord::Vote(vote(1, command))] {
            assert_fails(run(written(1, again)), "speaks again");
        }
        for silent in [LogRecord::Standing(Standing::Replaced), LogRecord::Forget(first), LogRecord::VotedUnder(first)]
        {
            assert_eq!(run(written(1, silent)), Ok(()));
        }
    }

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
