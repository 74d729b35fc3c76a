//! Two nodes never consider different commands issued at one number, and what a node applies, or says to be issued, is
//! decided (DESIGN 14.1, RELIABILITY 3.1).

use protocol::message::{ToLeader, ToLearner};
use protocol::{CommandId, CommandNumber, Message, NodeId, Now};

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
pub(super) struct Agreement;

impl Invariant for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        if let Fact::Sent { from, message: Message::FailureDetector(heartbeat), .. } = fact {
            return is_some_decided(*from, heartbeat.issued, history);
        }
        if let Fact::Sent { from, message, .. } = fact {
            return said_issued(message).map_or(Ok(()), |id| is_decided(*from, id, history));
        }
        let Fact::Applied { node, command, .. } = fact else { return Ok(()) };
        let decided = history.disks.decided_at(command.number());
        ensure(decided.is_some(), || {
            format!("node {node} applies {}, and no majority set's votes have decided that number", command.id)
        })?;
        let others = history.chain.at(command.number()).map(|issued| &issued.command);
        for known in decided.map(|decided| &decided.command).into_iter().chain(others) {
            ensure(known == command, || {
                format!("node {node} applies {}, and {} is issued at that number", command.id, known.id)
            })?;
        }
        Ok(())
    }
}

/// The last command that this message says to be issued. A learner that knows better believes nothing of it, so that
/// what is applied does not show it.
fn said_issued(message: &Message) -> Option<CommandId> {
    match message {
        Message::Leader(ToLeader::BallotInfo(info)) => Some(info.issued),
        Message::Learner(ToLearner::Success(success)) => Some(success.issued),
        Message::Learner(ToLearner::Commands(commands)) => Some(commands.issued),
        Message::Learner(ToLearner::Snapshot(snapshot)) => Some(snapshot.id.at),
        Message::Acceptor(_)
        | Message::Leader(
            ToLeader::MyNextBal(_)
            | ToLeader::Voted(_)
            | ToLeader::Rejoin(_)
            | ToLeader::ExecuteFunction(_)
            | ToLeader::ReadBarrier(_),
        )
        | Message::Learner(ToLearner::Voted(_) | ToLearner::CatchUp(_) | ToLearner::FetchSnapshot(_))
        | Message::FailureDetector(_)
        | Message::Gateway(_) => None,
    }
}

fn is_decided(node: NodeId, id: CommandId, history: &History) -> Result<(), Violation> {
    let decided = history.disks.decided_at(id.number).map(|decided| decided.command.id);
    ensure(id == CommandId::NULL || decided == Some(id), || {
        format!("node {node} says that {id} is issued, and decided there is {decided:?}")
    })
}

/// A heartbeat names a number only.
fn is_some_decided(node: NodeId, number: CommandNumber, history: &History) -> Result<(), Violation> {
    ensure(number == CommandNumber::NULL || history.disks.decided_at(number).is_some(), || {
        format!("node {node} says that {number} is issued, and nothing is decided there")
    })
}

#[cfg(test)]
mod tests {
    use protocol::message::{BallotInfo, Commands, Heartbeat, Snapshot, Success};
    use protocol::{Ballot, SnapshotId};

    use super::super::testing::*;
    use super::*;

    /// A1h: catches a leader, an acceptor or a learner that considers another command issued than was decided, or one
    /// that is not decided yet, although nobody applies it.
    #[test]
    fn what_is_said_to_be_issued_was_decided() {
        let decided = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let before = [votes(1, 1, &[decided]), votes(2, 1, &[decided])];
        let other = CommandId::new(Ballot::new(2, NodeId(2)), CommandNumber(1));
        let says = |issued: CommandId| {
            let success = Success { ballot: ballot(1), issued, commands: Vec::new() };
            let (first, kept_from) = (issued.number.next(), CommandNumber(1));
            let info = BallotInfo { ballot: ballot(2), first, issued, votes: Vec::new(), part: 0, parts: 1 };
            let commands = Commands { commands: Vec::new(), issued, kept_from };
            let snapshot = Snapshot { id: SnapshotId { at: issued, digest: [0; 32] }, records: 1, piece: None };
            [
                Message::Learner(ToLearner::Success(success)),
                Message::Leader(ToLeader::BallotInfo(info)),
                Message::Learner(ToLearner::Commands(commands)),
                Message::Learner(ToLearner::Snapshot(snapshot)),
            ]
        };
        for message in says(decided.id) {
            let said = sent(1, 2, message);
            assert_eq!(run(Agreement, &[&before[..], std::slice::from_ref(&said)].concat()), Ok(()));
            assert_fails(run(Agreement, &[before[0].clone(), said]), "node 1 says that 1@1.1 is issued");
        }
        for message in says(other) {
            assert_fails(run(Agreement, &[&before[..], &[sent(1, 2, message)]].concat()), "says that 1@2.2 is issued");
        }
        for message in says(CommandId::NULL) {
            assert_eq!(run(Agreement, &[sent(1, 2, message)]), Ok(()));
        }
    }

    /// A1h: catches a heartbeat that names a number which is not decided yet.
    #[test]
    fn what_a_heartbeat_says_to_be_issued_was_decided() {
        let decided = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let votes = [votes(1, 1, &[decided]), votes(2, 1, &[decided])];
        let says = |issued| {
            let heartbeat = Heartbeat { issued: CommandNumber(issued), ..Heartbeat::default() };
            sent(1, 2, Message::FailureDetector(heartbeat))
        };
        assert_eq!(run(Agreement, &[says(0)]), Ok(()));
        assert_eq!(run(Agreement, &[&votes[..], &[says(1)]].concat()), Ok(()));
        assert_fails(run(Agreement, &[votes[0].clone(), says(1)]), "says that 1 is issued");
        assert_fails(run(Agreement, &[&votes[..], &[says(2)]].concat()), "says that 2 is issued");
    }

    /// A1h: catches two commands applied at one number, one that nobody has voted for, and one with
    /// the right identity and another body.
    #[test]
    fn what_is_applied_is_what_was_decided() {
        let decided = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let other = &chain_of(&[body("r2", vec![put("a", "2")])])[0];
        let before = [votes(1, 1, &[decided]), votes(2, 1, &[decided])];
        let run = |facts: &[Fact]| run(Agreement, &[&before, facts].concat());
        assert_eq!(run(&[applied(1, decided), applied(2, decided)]), Ok(()));
        assert_fails(run(&[applied(1, decided), applied(2, other)]), "is issued at that number");
        let stray = &chain_of(&[body("r1", vec![put("a", "1")]), body("r3", vec![put("a", "3")])])[1];
        assert_fails(run(&[applied(1, decided), applied(1, stray)]), "no majority set's votes");
    }
}
