//! The issued commands, as any node has applied them, and the state after each of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use protocol::{
    Command, CommandBody, CommandId, CommandNumber, Effect, Entry, Key, RequestId, StateError, StateView,
    StoredOutcome, Timestamp,
};
use storage::FORGET_MAX;

use super::Violation;

/// An issued command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// As it was applied first.
    pub command: Command,
    /// What it holds.
    pub body: CommandBody,
}

/// The values that a key has had, with the numbers from which on; none where it was deleted.
type Versions = Vec<(CommandNumber, Option<Bytes>)>;

/// See the module. Grows by a command when a node is the first to apply its number.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    commands: Vec<Issued>,
    versions: BTreeMap<Key, Versions>,
    /// The commands of each request: more than one where the outcome was forgotten.
    requests: BTreeMap<RequestId, Vec<CommandNumber>>,
    outcomes: Outcomes,
    fresh: bool,
}

/// Which outcomes are stored after the last command, and which were: what a command makes a replica forget is part of what
/// it means (ADR 0006).
#[derive(Clone, Debug, Default)]
struct Outcomes {
    stored: BTreeMap<RequestId, CommandNumber>,
    /// The same, of callers, then of gateways, by age.
    by_age: [BTreeMap<(Timestamp, CommandNumber), RequestId>; 2],
    /// Commands whose outcome was forgotten, each with the one that made it so.
    forgotten: BTreeMap<CommandNumber, CommandNumber>,
    /// The command whose outcome was stored when the last command was decided on, under the same id.
    repeats: Option<CommandNumber>,
    anew: u64,
}

impl Outcomes {
    fn apply(&mut self, number: CommandNumber, body: &CommandBody) {
        self.repeats = self.stored.get(&body.request).copied();
        let mut room = FORGET_MAX;
        for (by_age, mark) in self.by_age.iter_mut().zip([body.forget.callers, body.forget.gateways]) {
            while let Some(oldest) = by_age.first_entry().filter(|oldest| room > 0 && oldest.key().0 < mark) {
                room -= 1;
                let ((_, old), request) = oldest.remove_entry();
                self.stored.remove(&request);
                self.forgotten.insert(old, number);
            }
        }
        self.stored.insert(body.request.clone(), number);
        let kind = usize::from(matches!(body.request, RequestId::Gateway(_)));
        self.by_age[kind].insert((body.time, number), body.request.clone());
    }
}

impl Chain {
    /// The number of the last command; [`CommandNumber::NULL`] at first.
    #[must_use]
    pub fn last(&self) -> CommandNumber {
        CommandNumber(self.commands.len() as u64)
    }

    /// The command at a number from 1, if any node has applied it.
    #[must_use]
    pub fn at(&self, number: CommandNumber) -> Option<&Issued> {
        self.commands.get(index(number)?)
    }

    /// The identity at a number, the null command's at 0.
    #[must_use]
    pub fn id_at(&self, number: CommandNumber) -> Option<CommandId> {
        if number == CommandNumber::NULL {
            return Some(CommandId::NULL);
        }
        self.at(number).map(|issued| issued.command.id)
    }

    /// The command that the last fact has added, if it did.
    #[must_use]
    pub fn fresh(&self) -> Option<&Issued> {
        self.commands.last().filter(|_| self.fresh)
    }

    /// The number of the first command of a request.
    #[must_use]
    pub fn number_of(&self, request: &RequestId) -> Option<CommandNumber> {
        self.requests.get(request)?.first().copied()
    }

    /// The number of the command whose outcome is stored under this id.
    #[must_use]
    pub fn stored(&self, request: &RequestId) -> Option<CommandNumber> {
        self.outcomes.stored.get(request).copied()
    }

    /// Whether the outcome of this command was stored, and is not any more.
    #[must_use]
    pub fn is_forgotten(&self, number: CommandNumber) -> bool {
        self.forgotten_by(number).is_some()
    }

    /// The command that made the outcome of this one forgotten.
    #[must_use]
    pub fn forgotten_by(&self, number: CommandNumber) -> Option<CommandNumber> {
        self.outcomes.forgotten.get(&number).copied()
    }

    /// The command whose outcome was stored under the id of the last command when that was decided on: there must be none.
    #[must_use]
    pub fn repeats(&self) -> Option<CommandNumber> {
        self.outcomes.repeats
    }

    /// How many outcomes were forgotten, and how many requests became a command again after that.
    #[must_use]
    pub fn forgotten(&self) -> [u64; 2] {
        [self.outcomes.forgotten.len() as u64, self.outcomes.anew]
    }

    /// The state after a command, not beyond the last one.
    #[must_use]
    pub fn state_at(&self, number: CommandNumber) -> StateAt<'_> {
        StateAt { chain: self, number }
    }

    /// A node has applied a command.
    ///
    /// # Errors
    /// It is a new one and its body is none.
    pub(super) fn applied(&mut self, command: &Command) -> Result<(), Violation> {
        self.fresh = command.number() == self.last().next();
        if !self.fresh {
            return Ok(());
        }
        let body = CommandBody::decode(&command.body).map_err(|error| format!("command {}: {error}", command.id))?;
        for effect in &body.effects {
            let value = match effect {
                Effect::Put { value, .. } => Some(value.clone()),
                Effect::Delete { .. } => None,
            };
            self.versions.entry(effect.key().clone()).or_default().push((command.number(), value));
        }
        self.outcomes.apply(command.number(), &body);
        let numbers = self.requests.entry(body.request.clone()).or_default();
        self.outcomes.anew += u64::from(!numbers.is_empty());
        numbers.push(command.number());
        self.commands.push(Issued { command: command.clone(), body });
        Ok(())
    }

    /// The next fact comes.
    pub(super) fn shown(&mut self) {
        self.fresh = false;
    }
}

fn index(number: CommandNumber) -> Option<usize> {
    usize::try_from(number.0.checked_sub(1)?).ok()
}

/// The state after a command: entries, and outcomes that are stored.
#[derive(Clone, Copy, Debug)]
pub struct StateAt<'a> {
    chain: &'a Chain,
    number: CommandNumber,
}

impl StateAt<'_> {
    /// The entry of a key.
    #[must_use]
    pub fn entry(&self, key: &Key) -> Option<Entry> {
        let versions = self.chain.versions.get(key)?;
        let count = versions.partition_point(|(number, _)| *number <= self.number);
        let (version, value) = versions.get(count.checked_sub(1)?)?;
        value.clone().map(|value| Entry { value, version: *version })
    }
}

impl StateView for StateAt<'_> {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        Ok(self.entry(key))
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        let from = Key::new(prefix).map_or(Bound::Unbounded, Bound::Included);
        let keys = self.chain.versions.range::<Key, _>((from, Bound::Unbounded)).map(|(key, _)| key);
        let found = keys
            .take_while(|key| key.as_str().starts_with(prefix))
            .filter(|key| after.is_none_or(|after| key.as_str() > after))
            .filter_map(|key| Some((key.clone(), self.entry(key)?)));
        Ok(found.take(limit).collect())
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        let numbers = self.chain.requests.get(request).into_iter().flatten();
        let last = numbers.copied().rfind(|number| *number <= self.number);
        let stored = last.filter(|last| self.chain.forgotten_by(*last).is_none_or(|by| by > self.number));
        Ok(stored.and_then(|number| self.chain.at(number)).map(|Issued { command, body }| StoredOutcome {
            command: command.number(),
            fingerprint: body.fingerprint,
            verdict: body.verdict.clone(),
            time: body.time,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{body, chain_of, delete, key, put};
    use super::*;

    /// Catches a state that shows a later or an earlier command than the one asked for, and a
    /// deleted key that is still there.
    #[test]
    fn the_state_at_a_number_is_that_after_its_command() {
        let bodies = [body("r1", vec![put("a", "1")]), body("r2", vec![put("b", "2")]), body("r3", vec![delete("a")])];
        let commands = chain_of(&bodies);
        let mut chain = Chain::default();
        for command in &commands {
            chain.applied(command).expect("a body");
            assert_eq!(chain.fresh().map(|issued| &issued.command), Some(command));
        }
        chain.applied(&commands[0]).expect("a body");
        assert_eq!(chain.fresh(), None, "another node has applied it");
        let entry = |value: &str, version| Entry { value: Bytes::copy_from_slice(value.as_bytes()), version };
        let at = |number| chain.state_at(CommandNumber(number));
        let a = Some(entry("1", CommandNumber(1)));
        assert_eq!([0, 1, 2, 3].map(|n| at(n).entry(&key("a"))), [None, a.clone(), a, None]);
        let b = (key("b"), entry("2", CommandNumber(2)));
        assert_eq!(at(2).scan("", Some("a"), 9), Ok(vec![b.clone()]));
        assert_eq!(at(2).scan("b", None, 9), Ok(vec![b]));
        assert_eq!(at(2).scan("", None, 1).map(|found| found.len()), Ok(1));
        assert_eq!(chain.number_of(&bodies[1].request), Some(CommandNumber(2)));
    }
}
