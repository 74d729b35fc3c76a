//! Forgetting stored outcomes while a batch of commands is applied.
//!
//! What is forgotten is a function of the sequence of commands alone, not of how it is cut into
//! batches. So a command must see what the commands before it in the same batch stored and
//! forgot: per kind, the queue of outcomes by age is the merge of what the database holds and
//! what the batch has added, without what the batch has taken away.

use std::collections::{BTreeMap, BTreeSet};

use ::rocksdb::{DB, DBRawIteratorWithThreadMode};
use bytes::Bytes;
use protocol::{CommandBody, StoredOutcome, Timestamp};

use super::database::Database;
use super::keys::{self, ByTime, Kind, column};
use super::reader::Reader;
use crate::{FORGET_MAX, StorageError};

/// Per kind, a key at or below the oldest live one: iteration begins there, so that it does not
/// wade through the marks that deletions leave behind until they are compacted away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fronts([ByTime; 2]);

impl Default for Fronts {
    fn default() -> Self {
        Self(Kind::ALL.map(|kind| keys::by_time_of(kind, 0, 0)))
    }
}

/// The outcomes as a batch changes them.
pub(crate) struct Outcomes<'a> {
    database: &'a Database,
    reader: &'a Reader<'a>,
    /// Request id -> its outcome after the batch, `None` where it is gone.
    changed: BTreeMap<Bytes, Option<StoredOutcome>>,
    queues: [Queue<'a>; 2],
}

impl<'a> Outcomes<'a> {
    pub(crate) fn new(database: &'a Database, reader: &'a Reader<'a>, fronts: Fronts) -> Self {
        let queues = [Queue::new(Kind::Caller, fronts.0[0]), Queue::new(Kind::Gateway, fronts.0[1])];
        Self { database, reader, changed: BTreeMap::new(), queues }
    }

    /// Forgets what the body orders, the oldest first, then stores the outcome of the command.
    /// In this order, so that a command's own outcome is always there after it.
    pub(crate) fn apply(&mut self, body: &CommandBody, outcome: StoredOutcome) -> Result<(), StorageError> {
        let mut room = FORGET_MAX;
        for (at, mark) in [body.forget.callers, body.forget.gateways].into_iter().enumerate() {
            while room > 0
                && let Some(request) = self.queues[at].pop_before(self.database, self.reader, mark)?
            {
                self.changed.insert(request, None);
                room -= 1;
            }
        }
        let request = body.request.to_bytes();
        let earlier = match self.changed.get(&request) {
            Some(changed) => changed.clone(),
            None => self.reader.stored_outcome(&request)?,
        };
        let queue = &mut self.queues[Kind::of(&body.request) as usize];
        if let Some(earlier) = earlier {
            queue.remove(keys::by_time(&body.request, &earlier));
        }
        queue.add(keys::by_time(&body.request, &outcome), request.clone());
        self.changed.insert(request, Some(outcome));
        Ok(())
    }

    /// What the batch has to write, and the fronts after it.
    pub(crate) fn finish(self) -> (Changes, Fronts) {
        let [callers, gateways] = self.queues;
        let fronts = Fronts([callers.front(), gateways.front()]);
        let changes = Changes {
            outcomes: self.changed,
            removed: callers.removed.into_iter().chain(gateways.removed).collect(),
            added: callers.added.into_iter().chain(gateways.added).collect(),
        };
        (changes, fronts)
    }
}

/// What a batch does to the outcomes.
pub(crate) struct Changes {
    /// Request id -> what is stored under it, `None` to delete.
    pub(crate) outcomes: BTreeMap<Bytes, Option<StoredOutcome>>,
    /// Keys of `outcomes_by_time` to delete.
    pub(crate) removed: Vec<ByTime>,
    /// Keys of `outcomes_by_time` to put, with their request ids.
    pub(crate) added: Vec<(ByTime, Bytes)>,
}

/// The outcomes of one kind by age.
struct Queue<'a> {
    kind: Kind,
    front: ByTime,
    /// In the database, at the oldest that was not looked at yet; opened when first needed.
    stored: Option<DBRawIteratorWithThreadMode<'a, DB>>,
    /// Added by the batch, and not taken away by it.
    added: BTreeMap<ByTime, Bytes>,
    /// Taken away by the batch; some of them were never in the database.
    removed: BTreeSet<ByTime>,
}

impl<'a> Queue<'a> {
    fn new(kind: Kind, front: ByTime) -> Self {
        Self { kind, front, stored: None, added: BTreeMap::new(), removed: BTreeSet::new() }
    }

    fn add(&mut self, key: ByTime, request: Bytes) {
        self.front = self.front.min(key);
        self.removed.remove(&key);
        self.added.insert(key, request);
    }

    fn remove(&mut self, key: ByTime) {
        self.added.remove(&key);
        self.removed.insert(key);
    }

    /// Where the next batch may begin.
    fn front(&self) -> ByTime {
        self.front
    }

    /// Takes the oldest away and returns its request id, if it is of a time before `mark`.
    fn pop_before(
        &mut self,
        database: &Database,
        reader: &'a Reader<'a>,
        mark: Timestamp,
    ) -> Result<Option<Bytes>, StorageError> {
        let bound = keys::by_time_of(self.kind, mark.0, 0);
        if self.front >= bound {
            return Ok(None);
        }
        let stored = self.oldest_stored(database, reader)?;
        let added = self.added.first_key_value().map(|(key, request)| (*key, request.clone()));
        let Some((key, request)) = stored.into_iter().chain(added).min_by_key(|(key, _)| *key) else {
            self.front = bound;
            return Ok(None);
        };
        self.front = key;
        if key >= bound {
            return Ok(None);
        }
        self.remove(key);
        Ok(Some(request))
    }

    fn oldest_stored(
        &mut self,
        database: &Database,
        reader: &'a Reader<'a>,
    ) -> Result<Option<(ByTime, Bytes)>, StorageError> {
        let end = || Some(vec![self.kind.tag() + 1]);
        let stored = self.stored.get_or_insert_with(|| reader.iterate(column::OUTCOMES_BY_TIME, &self.front, end()));
        while let Some((key, request)) = stored.item() {
            let key: ByTime = database
                .readable("a key by time", key.try_into().map_err(|_| format!("it has {} bytes", key.len())))?;
            if !self.removed.contains(&key) {
                return Ok(Some((key, Bytes::copy_from_slice(request))));
            }
            stored.next();
        }
        reader.ended(stored)?;
        Ok(None)
    }
}
