//! Two nodes never consider different commands issued at one number, and what a node applies is decided
//! (DESIGN 14.1, RELIABILITY 3.1).

use protocol::Now;

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
pub(super) struct Agreement;

impl Invariant for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

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
