//! The whole state of a node, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use protocol::{
    Command, CommandBody, CommandId, CommandNumber, Effect, Entry, Key, Position, RequestId, SnapshotRecord,
    StateError, StateView, StoredOutcome, Timestamp,
};

use crate::digest::{self, Sum};
use crate::{FORGET_MAX, Retention, StateSnapshot, StorageError, outcome_of, snapshot, weight};

/// The whole state at one command number. Cheap values inside are shared by clones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateImage {
    pub(super) applied: CommandId,
    pub(super) time: Timestamp,
    entries: BTreeMap<Key, Entry>,
    outcomes: BTreeMap<RequestId, StoredOutcome>,
    /// The callers' outcomes, then the gateways', by age.
    by_age: [BTreeMap<(Timestamp, CommandNumber), RequestId>; 2],
    commands: BTreeMap<CommandNumber, Command>,
}

impl StateImage {
    /// Applies commands; on an error, none of them.
    pub(super) fn apply(&mut self, commands: &[Command]) -> Result<(), StorageError> {
        let mut applied = self.applied;
        let mut bodies = Vec::new();
        for command in commands {
            crate::assert_follows(command, applied);
            applied = command.id;
            let body = CommandBody::decode(&command.body)
                .map_err(|error| StorageError::Corrupt(format!("the body of command {}: {error}", command.id)))?;
            bodies.push(body);
        }
        for (command, body) in commands.iter().zip(bodies) {
            self.apply_one(command, body);
        }
        Ok(())
    }

    fn apply_one(&mut self, command: &Command, body: CommandBody) {
        let outcome = outcome_of(command, &body);
        for effect in body.effects {
            match effect {
                Effect::Put { key, value } => {
                    self.entries.insert(key, Entry { value, version: command.number() });
                }
                Effect::Delete { key } => {
                    self.entries.remove(&key);
                }
            }
        }
        self.forget([body.forget.callers, body.forget.gateways]);
        self.time = outcome.time;
        self.store_outcome(body.request, outcome);
        self.commands.insert(command.number(), command.clone());
        self.applied = command.id;
    }

    pub(super) fn digest_of_all(&self) -> [u8; 32] {
        let mut sum = Sum::default();
        for (key, entry) in &self.entries {
            sum.add(&digest::of_entry(key.as_str().as_bytes(), entry.version, &entry.value));
        }
        for (request, outcome) in &self.outcomes {
            sum.add(&digest::of_outcome(&request.to_bytes(), outcome));
        }
        sum.digest()
    }

    fn store_outcome(&mut self, request: RequestId, outcome: StoredOutcome) {
        let age = (outcome.time, outcome.command);
        let kind = kind_of(&request);
        if let Some(earlier) = self.outcomes.insert(request.clone(), outcome) {
            self.by_age[kind].remove(&(earlier.time, earlier.command));
        }
        self.by_age[kind].insert(age, request);
    }

    fn forget(&mut self, marks: [Timestamp; 2]) {
        let mut room = FORGET_MAX;
        for (by_age, mark) in self.by_age.iter_mut().zip(marks) {
            while room > 0
                && let Some(oldest) = by_age.first_entry()
                && oldest.key().0 < mark
            {
                self.outcomes.remove(&oldest.remove());
                room -= 1;
            }
        }
    }

    pub(super) fn kept_from(&self) -> CommandNumber {
        self.commands.first_key_value().map_or(self.applied.number.next(), |(number, _)| *number)
    }

    /// From `first` on; `None` when that one is not kept.
    pub(super) fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Option<Vec<Command>> {
        let first = first.max(CommandNumber::NULL.next());
        if first < self.kept_from() {
            return None;
        }
        let mut found: Vec<Command> = Vec::new();
        let mut weight = 0;
        for command in self.commands.range(first..).map(|(_, command)| command).take(limit) {
            weight += command.body.len();
            if !found.is_empty() && weight > bytes {
                break;
            }
            found.push(command.clone());
        }
        Some(found)
    }

    /// The lowest number to keep under `retention`, when commands up to `at_most` may go.
    pub(super) fn keep_from(&self, retention: &Retention, at_most: CommandNumber) -> CommandNumber {
        let mut kept = self.commands.len() as u64;
        let mut bytes: u64 = self.commands.values().map(|command| weight(command) as u64).sum();
        for (number, command) in self.commands.range(..=at_most) {
            let body = CommandBody::decode(&command.body).expect("what was applied can be decoded");
            if kept <= retention.commands && bytes <= retention.bytes && body.time >= retention.since {
                return *number;
            }
            kept -= 1;
            bytes -= weight(command) as u64;
        }
        self.kept_from().max(self.applied.number.min(at_most).next())
    }

    /// Drops the commands below `first`.
    pub(super) fn drop_commands(&mut self, first: CommandNumber) {
        self.commands = self.commands.split_off(&first);
    }

    /// About how many records a snapshot of it has.
    pub(super) fn records(&self) -> u64 {
        (self.entries.len() + self.outcomes.len()) as u64
    }

    /// The records of a snapshot from a position on.
    pub(super) fn records_from(&self, from: &Position) -> impl Iterator<Item = SnapshotRecord> {
        let entries = self.entries.iter().map(|(key, entry)| {
            let (key, entry) = (key.clone(), entry.clone());
            SnapshotRecord::Entry { key, entry }
        });
        let outcomes = self.outcomes.iter().map(|(request, outcome)| {
            let (request, outcome) = (request.clone(), outcome.clone());
            SnapshotRecord::Outcome { request, outcome }
        });
        entries.chain(outcomes).skip_while(move |record| snapshot::position_of(record) < *from)
    }

    /// Adds a record of a snapshot.
    pub(super) fn store_record(&mut self, record: SnapshotRecord) {
        match record {
            SnapshotRecord::Entry { key, entry } => {
                self.entries.insert(key, entry);
            }
            SnapshotRecord::Outcome { request, outcome } => self.store_outcome(request, outcome),
        }
    }

    /// All records of a snapshot are there: the state is that after the command `at`, if they are
    /// those of a state. The outcome of the last command is always kept, and has its time.
    pub(super) fn complete(&mut self, at: CommandId) -> bool {
        let last = self.outcomes.values().find(|outcome| outcome.command == at.number);
        let Some(last) = last else { return false };
        (self.applied, self.time) = (at, last.time);
        true
    }
}

fn kind_of(request: &RequestId) -> usize {
    match request {
        RequestId::Caller(_) => 0,
        RequestId::Gateway(_) => 1,
    }
}

impl StateView for StateImage {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        let found = self
            .entries
            .range::<Key, _>(lowest(prefix, after))
            .skip_while(|(key, _)| key.as_str() < prefix || after.is_some_and(|after| key.as_str() <= after))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .take(limit);
        Ok(found.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        Ok(self.outcomes.get(request).cloned())
    }
}

/// A bound at or below the first key of a scan: a text that is no key bounds nothing.
fn lowest(prefix: &str, after: Option<&str>) -> (Bound<Key>, Bound<Key>) {
    let first = after.filter(|after| *after > prefix).unwrap_or(prefix);
    (Key::new(first).map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded)
}

impl StateSnapshot for StateImage {
    fn at(&self) -> CommandNumber {
        self.applied.number
    }

    fn digest(&self) -> Result<[u8; 32], StorageError> {
        Ok(self.digest_of_all())
    }
}
