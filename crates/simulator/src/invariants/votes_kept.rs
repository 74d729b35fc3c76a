//! Every decided command stays in the durable votes of a majority set (DESIGN 14.11, RELIABILITY 3.3).
//!
//! Disks that are lost or damaged for good are counted as gone: what must hold is that no majority set of the
//! other nodes exists in which nobody has the vote, so that no later ballot can miss the command. Nothing is
//! discarded yet, so no checkpoint takes the place of a vote.

use protocol::Now;

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
pub(super) struct VotesKept;

impl Invariant for VotesKept {
    fn name(&self) -> &'static str {
        "votes kept"
    }

    fn check(&mut self, _: Now, _: &Fact, history: &History) -> Result<(), Violation> {
        for number in history.disks.taken() {
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

    use super::super::testing::*;
    use super::*;

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
}
