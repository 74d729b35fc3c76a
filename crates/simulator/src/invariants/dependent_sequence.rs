//! The issued commands form a dependent sequence: each one's precedent is the one before, without a gap
//! (DESIGN 14.2, RELIABILITY 3.2). That each was issued through a ballot no lower is asserted in the cores.

use protocol::Now;

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
pub(super) struct DependentSequence;

impl Invariant for DependentSequence {
    fn name(&self) -> &'static str {
        "dependent sequence"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        let Fact::Applied { node, command, .. } = fact else { return Ok(()) };
        ensure(command.is_well_formed(), || format!("node {node} applies {}, which is not well formed", command.id))?;
        let before = command.number().previous().and_then(|number| history.chain.id_at(number));
        let Some(before) = before else {
            return Err(format!("node {node} applies {} and leaves a gap before it", command.id));
        };
        ensure(command.follows(before), || {
            format!("node {node} applies {} on {}, and {before} is issued before it", command.id, command.precedent)
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Ballot, CommandId, CommandNumber, NodeId};

    use super::super::testing::*;
    use super::*;

    /// A1a, A1n, S-03: catches a gap, a command whose precedent is another one at the number before, and one of a lower
    /// ballot than its precedent.
    #[test]
    fn each_command_follows_the_one_before() {
        let commands = chain_of(&[1, 2, 3].map(|n| body(&format!("r{n}"), vec![put("a", "1")])));
        let all: Vec<Fact> = commands.iter().map(|command| applied(1, command)).collect();
        assert_eq!(run(DependentSequence, &all), Ok(()));
        assert_fails(run(DependentSequence, &[all[0].clone(), all[2].clone()]), "gap");
        let mut astray = commands[1].clone();
        astray.id = CommandId::new(Ballot::new(2, NodeId(2)), CommandNumber(2));
        astray.precedent = CommandId::new(Ballot::new(2, NodeId(2)), CommandNumber(1));
        assert_fails(run(DependentSequence, &[all[0].clone(), applied(1, &astray)]), "is issued before it");
        let mut lower = commands[1].clone();
        lower.id.ballot = Ballot::new(1, NodeId(0));
        assert_fails(run(DependentSequence, &[all[0].clone(), applied(1, &lower)]), "not well formed");
    }
}
