//! Commands, their order, and votes for them.
//!
//! A command is what a function decided: a small, deterministic change of state. Its identity
//! is `(ballot, number)` of its *first* proposal. Because no ballot is begun twice and its
//! owner proposes at most one new command for a number in it, that pair is unique, and it is
//! kept when a later leader proposes the command again. Each command names its *precedent*,
//! the command whose effects its function had before it. `c ⇒ d` is therefore an equality of
//! ids, never of numbers or of contents (S-03).

use std::fmt;

use bytes::Bytes;

use crate::ballot::Ballot;

/// The number of a command: the patent's instance number. Dense, from 1; 0 is the null command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandNumber(pub u64);

impl CommandNumber {
    /// The null command's number.
    pub const NULL: Self = Self(0);

    /// The number after this one.
    ///
    /// # Panics
    /// When 2^64 commands were issued: a broken state of our own, not an input.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("command numbers are used up"))
    }

    /// The number before this one; the null command has none.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

impl fmt::Display for CommandNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which command: the ballot and number of its first proposal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId {
    /// The number it was, and in any later ballot will be, proposed for.
    pub number: CommandNumber,
    /// The ballot in which it was first proposed.
    pub ballot: Ballot,
}

impl CommandId {
    /// The null command: issued by definition, the precedent of the first command.
    pub const NULL: Self = Self { number: CommandNumber::NULL, ballot: Ballot::NONE };

    /// The command first proposed for `number` in `ballot`.
    #[must_use]
    pub const fn new(ballot: Ballot, number: CommandNumber) -> Self {
        Self { number, ballot }
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.number, self.ballot)
    }
}

/// A command as it is proposed, voted for, stored and applied. The body is opaque to all but
/// the leader that made it and the learners that apply it ([`crate::body`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// Its identity.
    pub id: CommandId,
    /// The identity of the command it depends on, at the number before.
    pub precedent: CommandId,
    /// The encoded [`crate::CommandBody`]. Cloning shares the bytes.
    pub body: Bytes,
}

impl Command {
    /// The number this command is proposed for.
    #[must_use]
    pub fn number(&self) -> CommandNumber {
        self.id.number
    }

    /// Whether `other ⇒ self`: the precedent of this command is `other`.
    #[must_use]
    pub fn follows(&self, other: CommandId) -> bool {
        self.precedent == other
    }

    /// Whether id and precedent stand at consecutive numbers, a next one exists (S-27), the id's
    /// ballot is a real one and no lower than its precedent's. A command for which this is false was never proposed by a
    /// node of ours.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.id.number.previous() == Some(self.precedent.number)
            && self.id.number.0 < u64::MAX
            && self.id.ballot.round > 0
            && self.id.ballot >= self.precedent.ballot
    }
}

/// What an acceptor remembers for a number: the command that it voted for in the highest
/// ballot in which it voted there (the patent's `prevVote`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The ballot of the vote; not below the ballot of the command's id.
    pub ballot: Ballot,
    /// The command voted for.
    pub command: Command,
}

/// A run of consecutive commands: from `first` to `last`. The identity of the last one fixes
/// all, since each names its precedent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The lowest number.
    pub first: CommandNumber,
    /// The identity of the command at the highest number.
    pub last: CommandId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeId;

    /// S-27: catches a peer's command at the last number, whose successor would not exist.
    #[test]
    fn a_command_at_the_last_number_is_not_well_formed() {
        let ballot = Ballot::new(1, NodeId(1));
        let at = |number| Command {
            id: CommandId::new(ballot, CommandNumber(number)),
            precedent: CommandId::new(ballot, CommandNumber(number - 1)),
            body: Bytes::new(),
        };
        assert!(!at(u64::MAX).is_well_formed());
        assert!(at(u64::MAX - 1).is_well_formed());
    }
}
