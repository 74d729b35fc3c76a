//! Every decided command stays in the durable votes of a majority set, or in the durable states of a majority of
//! learners (DESIGN 14.11, RELIABILITY 3.3).
//!
//! Two things are looked at. Whoever forgets votes has their commands in its own durable state, and a majority of all
//! learners has or had. And whenever a command is decided, votes are gone, forgotten or lost, or a silent node speaks
//! again: of the nodes that are not silent, no majority set exists in which nobody has the vote or the command in its
//! durable state, so that no later ballot can miss the command. A vote that its node has lost counts to decide, for it
//! was sent: who speaks again before it knows the command is found out when the others' votes arrive.

use protocol::Now;
use storage::LogRecord;

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
pub(super) struct VotesKept;

impl Invariant for VotesKept {
    fn name(&self) -> &'static str {
        "votes kept"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        if let Fact::Written { node, records } = fact {
            for record in records {
                let LogRecord::Forget(number) = record else { continue };
                ensure(history.disks.is_durable(*node, *number), || {
                    format!("node {node} forgets votes up to {number}, which a majority, with itself, has not durable")
                })?;
            }
        }
        for number in history.disks.changed() {
            let Some(decided) = history.disks.decided_at(*number) else { continue };
            let id = decided.command.id;
            ensure(history.disks.is_held(id), || format!("{id} is decided and has lost the votes of a majority set"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Ballot, NodeId};
    use storage::Standing;

    use super::super::testing::*;
    use super::*;
    use crate::fault::Fault;

    /// A6, S-15: catches a decided command whose votes are lost in a restart, or overwritten by another command's;
    /// a lost disk takes a vote, and the others keep it.
    #[test]
    fn a_decided_command_keeps_its_votes() {
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let all = [votes(1, 1, &[command]), votes(2, 1, &[command]), votes(3, 1, &[command])];
        let with = |facts: &[Fact]| run(VotesKept, &[&all, facts].concat());
        let same = started(1, 2, &[(1, command)]);
        assert_eq!(with(&[same, started(2, 2, &[]), disk_lost(1)]), Ok(()), "3 is in every set that is left");
        assert_fails(with(&[started(1, 2, &[]), started(2, 2, &[])]), "has lost the votes");
        let mut other = command.clone();
        other.id.ballot = Ballot::new(2, NodeId(1));
        assert_fails(with(&[votes(1, 2, &[&other]), votes(2, 2, &[&other])]), "has lost the votes");
    }

    /// S-14: catches a damaged node that speaks again before it has, durably, what its lost votes decided; while it
    /// is silent it is in no majority set, and a lost state behind what was forgotten silences as well.
    #[test]
    fn a_silent_node_counts_when_it_speaks() {
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let all = [votes(1, 1, &[command]), votes(2, 1, &[command])];
        let with = |facts: &[Fact]| run(VotesKept, &[&all, facts].concat());
        let standing = |standing| written(1, LogRecord::Standing(standing));
        let mut up = started(1, 2, &[]);
        if let Fact::Started { log, .. } = &mut up {
            log.standing = Standing::Damaged;
        }
        assert_eq!(with(std::slice::from_ref(&up)), Ok(()), "2 is in every set that is left");
        let speaks = standing(Standing::Sound);
        assert_fails(with(&[up.clone(), speaks.clone()]), "has lost the votes");
        assert_eq!(with(&[up, applied(1, command), synced(1, 1), speaks]), Ok(()));
        let forgets = written(1, LogRecord::Forget(command.number()));
        for lost in [Fault::StateLost(NodeId(1)), Fault::StateRot(NodeId(1))].map(Fact::Fault) {
            assert_eq!(with(&[synced(1, 1), synced(2, 1), forgets.clone(), lost.clone()]), Ok(()));
            assert_eq!(with(std::slice::from_ref(&lost)), Ok(()), "its vote is there");
            assert_fails(with(&[started_at(1, 2, std::slice::from_ref(command)), lost]), "has lost the votes");
        }
    }

    /// S-14: catches a damaged node that speaks again before a command is issued for which it had voted, and then the
    /// last vote for that comes: nothing was decided yet when it spoke. One that votes for it again first is well.
    #[test]
    fn who_spoke_too_early_is_found_when_its_lost_vote_decides() {
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let mut up = started(1, 2, &[]);
        if let Fact::Started { log, .. } = &mut up {
            log.standing = Standing::Damaged;
        }
        let lost = [votes(1, 1, &[command]), up, written(1, LogRecord::Standing(Standing::Sound))];
        let with = |facts: &[Fact]| run(VotesKept, &[&lost, facts].concat());
        assert_eq!(with(&[]), Ok(()), "nothing is decided");
        assert_fails(with(&[votes(2, 1, &[command])]), "has lost the votes");
        assert_eq!(with(&[votes(1, 1, &[command]), votes(2, 1, &[command])]), Ok(()));
        let [lost, up, _] = lost;
        assert_eq!(run(VotesKept, &[lost, up, votes(2, 1, &[command])]), Ok(()), "a silent node misleads nobody");
    }

    /// DESIGN 8: catches votes that are forgotten when fewer than a majority, or others than who forgets them, have
    /// their commands durable; and a durable state that does not count as much as a vote.
    #[test]
    fn votes_are_forgotten_for_durable_states() {
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let all = [votes(1, 1, &[command]), votes(2, 1, &[command]), synced(1, 1)];
        let with = |facts: &[Fact]| run(VotesKept, &[&all, facts].concat());
        let forgets = |node| written(node, LogRecord::Forget(command.number()));
        assert_eq!(with(&[synced(2, 1), forgets(1), forgets(2), disk_lost(1)]), Ok(()));
        assert_fails(with(&[forgets(1)]), "node 1 forgets votes up to 1");
        assert_fails(with(&[synced(2, 1), forgets(3)]), "node 3 forgets votes up to 1");
        let up = |node| started_at(node, 2, std::slice::from_ref(command));
        assert_eq!(with(&[applied(1, command), up(1), up(2)]), Ok(()));
        assert_fails(with(&[applied(1, command), up(1), started(2, 2, &[])]), "has lost the votes");
    }
}
