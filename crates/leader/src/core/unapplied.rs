//! Issued commands that the learner of this node has not applied yet, kept to remind it.
//!
//! It is told of a command once, or counts the votes itself. What it was to hear may get lost on
//! the way, and then perhaps nobody but this leader knows that the command is issued, while the
//! leader begins nothing new until the learner has caught up. So its bodies stay here until they
//! are applied, and after a pause without progress the learner is told again. All other learners
//! ask their peers, this one among them.
//!
//! How many there are, and of how many bytes, is bounded by the leader, which takes no call while
//! too many are not applied.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::{Command, CommandNumber, Tick};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Unapplied {
    commands: VecDeque<Command>,
    bytes: usize,
    remind_at: Tick,
}

impl Unapplied {
    /// The next command is issued. The learner has until `remind_at` to apply anything.
    pub(super) fn push(&mut self, command: Command, remind_at: Tick) {
        if self.commands.is_empty() {
            self.remind_at = remind_at;
        }
        self.bytes += storage::weight(&command);
        self.commands.push_back(command);
    }

    /// The learner has applied all up to `number`, and now has until `remind_at` for more.
    pub(super) fn applied(&mut self, number: CommandNumber, remind_at: Tick) {
        while let Some(applied) = self.commands.pop_front_if(|first| first.number() <= number) {
            self.bytes -= storage::weight(&applied);
            self.remind_at = remind_at;
        }
    }

    /// What they weigh ([`storage::weight`]).
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the learner is to be told again, if it is time: at most `limit` commands, since it
    /// keeps no more than two windows.
    pub(super) fn reminder(&mut self, now: Tick, pause: Duration, limit: u64) -> Vec<Command> {
        if now < self.remind_at {
            return Vec::new();
        }
        self.remind_at = now + pause;
        self.commands.iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).cloned().collect()
    }
}
