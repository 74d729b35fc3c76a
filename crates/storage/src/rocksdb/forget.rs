//! Storing and forgetting outcomes while a batch of commands is applied.
//!
//! What is forgotten is a function of the sequence of commands alone, not of how it is cut into
//! batches. So a command must see what the commands before it in the same batch stored and
//! forgot: per kind, the queue of outcomes by age is the merge of what the database holds and
//! what the batch has added, without what the batch has taken away.
//!
//! An outcome that is forgotten was stored a day ago and is read no more: what the digest needs of
//! it, its hash, lies beside its age.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::{CommandBody, StoredOutcome, Timestamp};

use super::batch::Batch;
use super::database::Database;
use super::keys::{self, ByTime, Kind, column};
use super::reader::{Items, Reader};
use super::record;
use crate::digest::{self, RecordHash, Sum};
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
    reader: &'a Reader<'a>,
    /// What the database holds for the requests of the batch.
    stored: BTreeMap<Bytes, StoredOutcome>,
    /// Request id -> its outcome after the batch, `None` where it is gone.
    changed: BTreeMap<Bytes, Option<StoredOutcome>>,
    /// The hashes of those that the database holds and that are gone after the batch.
    gone: Vec<RecordHash>,
    queues: [Queue<'a>; 2],
}

impl<'a> Outcomes<'a> {
    /// The outcomes before a batch of commands with these bodies.
    pub(crate) fn new(
        database: &Database,
        reader: &'a Reader<'a>,
        fronts: Fronts,
        bodies: &[CommandBody],
    ) -> Result<Self, StorageError> {
        let requests: BTreeSet<Bytes> = bodies.iter().map(|body| body.request.to_bytes()).collect();
        let found = reader.many(column::OUTCOMES, requests.iter().map(|request| &request[..]))?;
        let mut stored = BTreeMap::new();
        for (request, found) in requests.into_iter().zip(found) {
            if let Some(bytes) = found {
                let outcome = database.readable("a stored outcome", record::read_outcome(&bytes))?;
                stored.insert(request, outcome);
            }
        }
        let queues = [Queue::new(Kind::Caller, fronts.0[0]), Queue::new(Kind::Gateway, fronts.0[1])];
        Ok(Self { reader, stored, changed: BTreeMap::new(), gone: Vec::new(), queues })
    }

    /// Forgets what the body orders, the oldest first, then stores the outcome of the command.
    /// In this order, so that a command's own outcome is always there after it.
    pub(crate) fn apply(&mut self, body: &CommandBody, outcome: StoredOutcome) -> Result<(), StorageError> {
        let mut room = FORGET_MAX;
        for (at, mark) in [body.forget.callers, body.forget.gateways].into_iter().enumerate() {
            while room > 0
                && let Some(Aged { request, hash }) = self.queues[at].pop_before(self.reader, mark)?
            {
                self.changed.insert(request, None);
                self.gone.extend(hash);
                room -= 1;
            }
        }
        let request = body.request.to_bytes();
        let earlier = match self.changed.get(&request) {
            Some(changed) => changed.clone(),
            None => {
                let stored = self.stored.remove(&request);
                self.gone.extend(stored.as_ref().map(|stored| digest::of_outcome(&request, stored)));
                stored
            }
        };
        let queue = &mut self.queues[Kind::of(&body.request) as usize];
        if let Some(earlier) = earlier {
            queue.remove(keys::by_time(&body.request, &earlier));
        }
        queue.add(keys::by_time(&body.request, &outcome), request.clone());
        self.changed.insert(request, Some(outcome));
        Ok(())
    }

    /// Adds to a batch what there is to write. Returns the fronts after it.
    pub(crate) fn finish(self, batch: &mut Batch<'_>, sum: &mut Sum) -> Fronts {
        self.gone.iter().for_each(|hash| sum.subtract(hash));
        let mut hashes = BTreeMap::new();
        for (request, outcome) in self.changed {
            match outcome {
                Some(outcome) => {
                    let hash = digest::of_outcome(&request, &outcome);
                    sum.add(&hash);
                    batch.put(column::OUTCOMES, &request, record::outcome(&outcome));
                    hashes.insert(request, hash);
                }
                None => batch.delete(column::OUTCOMES, &request),
            }
        }
        let fronts = Fronts([self.queues[0].front, self.queues[1].front]);
        for queue in self.queues {
            queue.removed.iter().for_each(|key| batch.delete(column::OUTCOMES_BY_TIME, key));
            for (key, request) in queue.added {
                batch.put(column::OUTCOMES_BY_TIME, &key, record::aged(&hashes[&request], &request));
            }
        }
        fronts
    }
}

/// What lies under an age.
struct Aged {
    request: Bytes,
    /// The hash of the outcome, if the database holds it.
    hash: Option<RecordHash>,
}

/// The outcomes of one kind by age.
struct Queue<'a> {
    kind: Kind,
    front: ByTime,
    /// In the database, after the oldest that was looked at; opened when first needed.
    stored: Option<Items<'a>>,
    /// The oldest one that was looked at.
    oldest: Option<(ByTime, RecordHash, Bytes)>,
    /// Added by the batch, and not taken away by it.
    added: BTreeMap<ByTime, Bytes>,
    /// Taken away by the batch; some of them were never in the database.
    removed: BTreeSet<ByTime>,
}

impl<'a> Queue<'a> {
    fn new(kind: Kind, front: ByTime) -> Self {
        Self { kind, front, stored: None, oldest: None, added: BTreeMap::new(), removed: BTreeSet::new() }
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

    /// Takes the oldest away, if it is of a time before `mark`.
    fn pop_before(&mut self, reader: &'a Reader<'a>, mark: Timestamp) -> Result<Option<Aged>, StorageError> {
        let bound = keys::by_time_of(self.kind, mark.0, 0);
        if self.front >= bound {
            return Ok(None);
        }
        self.look(reader)?;
        let stored = self.oldest.as_ref().map(|(key, hash, request)| (*key, Some(*hash), request));
        let added = self.added.first_key_value().map(|(key, request)| (*key, None, request));
        let Some((key, hash, request)) = stored.into_iter().chain(added).min_by_key(|(key, ..)| *key) else {
            self.front = bound;
            return Ok(None);
        };
        self.front = key;
        if key >= bound {
            return Ok(None);
        }
        let aged = Aged { request: request.clone(), hash };
        self.remove(key);
        Ok(Some(aged))
    }

    /// Looks for the oldest that the database holds and the batch has not taken away.
    fn look(&mut self, reader: &'a Reader<'a>) -> Result<(), StorageError> {
        let end = [self.kind.tag() + 1];
        let items =
            self.stored.get_or_insert_with(|| reader.iterate_once(column::OUTCOMES_BY_TIME, &self.front, Some(&end)));
        while self.oldest.as_ref().is_none_or(|(key, ..)| self.removed.contains(key)) {
            self.oldest = items.take(read_aged)?;
            if self.oldest.is_none() {
                break;
            }
        }
        Ok(())
    }
}

fn read_aged(key: &[u8], value: &[u8]) -> Result<(ByTime, RecordHash, Bytes), String> {
    let (hash, request) = record::read_aged(value)?;
    Ok((key.try_into().map_err(|_| format!("a key by time of {} bytes", key.len()))?, hash, request))
}
