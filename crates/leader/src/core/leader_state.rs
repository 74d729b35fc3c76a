//! The leader state LS(p): the effects of commands that M(p) has not applied yet, laid over M(p).
//!
//! A read looks here first, then below (A10). An entry leaves once M(p) has applied the command
//! that wrote it, so the overlay stays as small as the pipeline is long. M(p) may run ahead of
//! what we were told it applied; that is harmless, because whatever it applied of ours is still
//! here, with the same value.
//!
//! The overlay is shared with functions on the pool by reference count: it is copied only when
//! it changes while one of them still reads the old one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use protocol::{CommandNumber, Effect, Entry, Key, RequestId, StateError, StateView, StoredOutcome, Timestamp};

/// What one command wrote, to be forgotten together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Written {
    number: CommandNumber,
    keys: Vec<Key>,
    request: RequestId,
}

/// A value not yet applied: `None` is a deletion.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Laid {
    version: CommandNumber,
    value: Option<Bytes>,
}

/// The differences between LS(p) and M(p).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Overlay {
    entries: BTreeMap<Key, Laid>,
    outcomes: BTreeMap<RequestId, StoredOutcome>,
    /// The highest number laid in.
    last: CommandNumber,
}

impl Laid {
    fn entry(&self) -> Option<Entry> {
        self.value.clone().map(|value| Entry { value, version: self.version })
    }
}

impl Overlay {
    /// What is laid over the range of a scan, in order of keys.
    fn range<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = (&'a Key, &'a Laid)> {
        let first = after.filter(|after| *after > prefix).unwrap_or(prefix);
        // A text that is no key, such as an empty one, bounds nothing.
        let from = Key::new(first).map_or(Bound::Unbounded, Bound::Included);
        self.entries
            .range((from, Bound::Unbounded))
            .skip_while(move |(key, _)| key.as_str() < prefix || after.is_some_and(|after| key.as_str() <= after))
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
    }
}

/// The overlay with what is needed to let it shrink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LeaderState {
    overlay: Arc<Overlay>,
    written: VecDeque<Written>,
    /// The time of the last command; the next one's is not below it.
    pub(crate) time: Timestamp,
}

impl LeaderState {
    /// LS(p) equal to M(p), whose last command has this time.
    pub(crate) fn new(time: Timestamp) -> Self {
        Self { time, ..Self::default() }
    }

    /// Lays the effects of the next command over the state.
    pub(crate) fn execute(&mut self, request: &RequestId, outcome: StoredOutcome, effects: &[Effect]) {
        let number = outcome.command;
        assert!(self.written.back().is_none_or(|last| last.number < number), "LS takes commands in order");
        self.time = outcome.time;
        let overlay = Arc::make_mut(&mut self.overlay);
        overlay.last = number;
        for effect in effects {
            let value = match effect {
                Effect::Put { value, .. } => Some(value.clone()),
                Effect::Delete { .. } => None,
            };
            overlay.entries.insert(effect.key().clone(), Laid { version: number, value });
        }
        overlay.outcomes.insert(request.clone(), outcome);
        let keys = effects.iter().map(|effect| effect.key().clone()).collect();
        self.written.push_back(Written { number, keys, request: request.clone() });
    }

    /// Forgets what M(p) has applied.
    pub(crate) fn applied(&mut self, up_to: CommandNumber) {
        if self.written.front().is_none_or(|first| first.number > up_to) {
            return;
        }
        let overlay = Arc::make_mut(&mut self.overlay);
        while let Some(first) = self.written.pop_front_if(|first| first.number <= up_to) {
            for key in first.keys {
                if overlay.entries.get(&key).is_some_and(|laid| laid.version == first.number) {
                    overlay.entries.remove(&key);
                }
            }
            if overlay.outcomes.get(&first.request).is_some_and(|outcome| outcome.command == first.number) {
                overlay.outcomes.remove(&first.request);
            }
        }
    }

    /// How many commands M(p) has not applied.
    pub(crate) fn unapplied(&self) -> usize {
        self.written.len()
    }

    /// The outcome of a request whose command is not applied yet.
    pub(crate) fn outcome(&self, request: &RequestId) -> Option<&StoredOutcome> {
        self.overlay.outcomes.get(request)
    }

    /// The overlay, to be read elsewhere.
    pub(crate) fn overlay(&self) -> Arc<Overlay> {
        Arc::clone(&self.overlay)
    }

    /// LS(p): this overlay over M(p).
    pub(crate) fn over<'a>(&'a self, machine: &'a dyn StateView) -> LeaderView<'a> {
        LeaderView { overlay: &self.overlay, machine }
    }
}

/// LS(p) as functions read it.
pub struct LeaderView<'a> {
    overlay: &'a Overlay,
    machine: &'a dyn StateView,
}

impl<'a> LeaderView<'a> {
    /// An overlay over a state of M(p) that shows command number `at`. When M(p) is already past
    /// all that the overlay holds, the overlay is stale and is left out.
    #[must_use]
    pub fn new(overlay: &'a Overlay, machine: &'a dyn StateView, at: CommandNumber) -> Self {
        static NOTHING: Overlay =
            Overlay { entries: BTreeMap::new(), outcomes: BTreeMap::new(), last: CommandNumber::NULL };
        Self { overlay: if at >= overlay.last { &NOTHING } else { overlay }, machine }
    }
}

impl StateView for LeaderView<'_> {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        match self.overlay.entries.get(key) {
            Some(laid) => Ok(laid.entry()),
            None => self.machine.get(key),
        }
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        let mut laid = self.overlay.range(prefix, after).peekable();
        // Only deletions hide what lies below: as many more are read.
        let hidden = self.overlay.range(prefix, after).filter(|(_, laid)| laid.value.is_none()).count();
        let mut below = self.machine.scan(prefix, after, limit.saturating_add(hidden))?.into_iter().peekable();
        let mut merged = Vec::new();
        while merged.len() < limit {
            let next_below = below.peek().map(|(key, _)| key);
            match laid.next_if(|(key, _)| next_below.is_none_or(|below| *key <= below)) {
                Some((key, laid)) => {
                    _ = below.next_if(|(hidden, _)| hidden == key);
                    merged.extend(laid.entry().map(|entry| (key.clone(), entry)));
                }
                None => match below.next() {
                    Some(found) => merged.push(found),
                    None => break,
                },
            }
        }
        Ok(merged)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        match self.overlay.outcomes.get(request) {
            Some(outcome) => Ok(Some(outcome.clone())),
            None => self.machine.outcome(request),
        }
    }
}
