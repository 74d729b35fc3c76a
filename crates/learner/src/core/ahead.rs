//! Bodies of commands above the last issued one, and who was declared issued among them.
//!
//! A *candidate* says only "this command was proposed for its number": keeping one claims
//! nothing. A *declaration* says "this command is issued, and so all before it". The two meet
//! in [`Ahead::chain`]: from a declared id down, by the precedents that the candidates name, to
//! the last issued command. Ids decide, never numbers (S-03), so that a candidate of a lost
//! ballot cannot slip into the chain, and a declaration beyond a hole pins the commands below
//! it without anything being applied (S-06).

use std::collections::BTreeMap;

use protocol::{Ballot, Command, CommandId, CommandNumber, NodeId};

/// A command proposed, with the highest ballot in which it is known to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Candidate {
    ballot: Ballot,
    command: Command,
}

/// "All commands up to `id` are issued."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Declaration {
    /// Who said it.
    pub(super) from: NodeId,
    /// The ballot through which it was issued.
    pub(super) ballot: Ballot,
    /// The issued command.
    pub(super) id: CommandId,
}

/// Whether the candidates reach from a declared command down to the last issued one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// They do: consecutive commands from the one after the last issued, in order.
    Complete(Vec<Command>),
    /// Bodies are missing.
    Incomplete,
    /// They reach it, and name this other command in its place.
    Contradicts(CommandId),
}

/// Why a candidate or declaration is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// One of a higher ballot is known for the number.
    OlderBallot,
    /// Another command is known at the number, where there can be only one.
    Contradicts(CommandId),
}

/// What is known above the last issued command. The owner keeps out numbers beyond its bound,
/// and with at most one entry of each kind per number both maps are bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ahead {
    candidates: BTreeMap<CommandNumber, Candidate>,
    declared: BTreeMap<CommandNumber, Declaration>,
}

impl Ahead {
    /// Takes a command proposed in `ballot`. A later ballot's takes the place of an earlier
    /// one's: if the earlier one was issued, then the later one is the same command (B3).
    pub(super) fn propose(&mut self, ballot: Ballot, command: Command) -> Result<(), Refused> {
        if let Some(known) = self.candidates.get(&command.number()) {
            if ballot < known.ballot {
                return Err(Refused::OlderBallot);
            }
            if ballot == known.ballot && command.id != known.command.id {
                return Err(Refused::Contradicts(known.command.id));
            }
        }
        self.candidates.insert(command.number(), Candidate { ballot, command });
        Ok(())
    }

    /// Takes a declaration.
    pub(super) fn declare(&mut self, declaration: Declaration) -> Result<(), Refused> {
        let number = declaration.id.number;
        match self.declared.get(&number) {
            Some(known) if known.id != declaration.id => Err(Refused::Contradicts(known.id)),
            Some(known) if known.ballot >= declaration.ballot => Ok(()),
            Some(_) | None => {
                self.declared.insert(number, declaration);
                Ok(())
            }
        }
    }

    /// The lowest declaration. While its chain is incomplete, that of every higher one is too:
    /// it passes through the same numbers.
    pub(super) fn lowest_declared(&self) -> Option<Declaration> {
        self.declared.values().next().copied()
    }

    /// Forgets a declaration that cannot be used.
    pub(super) fn withdraw(&mut self, number: CommandNumber) {
        self.declared.remove(&number);
    }

    /// The commands from the one after `issued` up to `last`.
    pub(super) fn chain(&self, issued: CommandId, last: CommandId) -> Chain {
        let mut wanted = last;
        let mut commands = Vec::new();
        // Nearly always it is the lowest one that is missing, so that is looked at first.
        if !self.candidates.contains_key(&issued.number.next()) {
            return Chain::Incomplete;
        }
        while wanted.number > issued.number {
            let Some(command) = self.body(wanted) else { return Chain::Incomplete };
            wanted = command.precedent;
            commands.push(command.clone());
        }
        if wanted != issued {
            return Chain::Contradicts(wanted);
        }
        commands.reverse();
        Chain::Complete(commands)
    }

    /// The first id of `commands`, which are consecutive, that is not the declared or pinned
    /// one at its number: `(theirs, ours)`.
    pub(super) fn conflict(&self, commands: &[Command]) -> Option<(CommandId, CommandId)> {
        for command in commands {
            if let Some(known) = self.declared.get(&command.number()).filter(|known| known.id != command.id) {
                return Some((command.id, known.id));
            }
        }
        let last = commands.last()?.id;
        self.contradicts(last).map(|ours| (last, ours))
    }

    /// The id that is declared or pinned at the number of this one, if it is another.
    pub(super) fn contradicts(&self, id: CommandId) -> Option<CommandId> {
        let declared = self.declared.get(&id.number).map(|declaration| declaration.id);
        declared.or_else(|| self.pinned(id.number)).filter(|ours| *ours != id)
    }

    /// Forgets everything up to `number`, which is now issued.
    pub(super) fn forget_through(&mut self, number: CommandNumber) {
        self.candidates = self.candidates.split_off(&number.next());
        self.declared = self.declared.split_off(&number.next());
    }

    /// Drops the candidates that no unbroken chain from `issued` reaches: what is said of their ballots is no reason any
    /// more to prefer them to others.
    pub(super) fn keep_what_follows(&mut self, issued: CommandId) {
        let mut last = issued;
        self.candidates.retain(|_, candidate| {
            let follows = candidate.command.follows(last);
            if follows {
                last = candidate.command.id;
            }
            follows
        });
    }

    /// The id that the first declaration above `number` fixes at `number`, if the candidates
    /// reach down to there.
    fn pinned(&self, number: CommandNumber) -> Option<CommandId> {
        let (_, declaration) = self.declared.range(number.next()..).next()?;
        let mut id = declaration.id;
        while id.number > number {
            id = self.body(id)?.precedent;
        }
        Some(id)
    }

    fn body(&self, id: CommandId) -> Option<&Command> {
        let candidate = self.candidates.get(&id.number)?;
        (candidate.command.id == id).then_some(&candidate.command)
    }

    /// How many entries are held, for the tests of the bound.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.candidates.len(), self.declared.len())
    }
}
