//! What a function sees of the world, and what remains of its visit.
//!
//! An [`ExecutionContext`] lays the function's own writes over the leader state, so that the
//! function sees them itself and nobody else does until they have become a command. It records
//! what was read *from the state* in a [`ReadSet`]: the leader certifies an execution that ran
//! elsewhere with it ([`ReadSet::still_holds`]), and tries a "not now" again when a write
//! touches it ([`ReadSet::touched_by`]). Own writes are not reads of the state.
//!
//! The first failure of a context (a limit, or a state that cannot be read) latches: the
//! execution fails with it even when the function swallows the error and returns a result,
//! because such a result rests on a read or write that did not happen.
//!
//! DESIGN 6 (execution, concurrency), 12, 13; S-09, S-10.

use std::collections::btree_map;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use protocol::message::Heartbeat;
use protocol::state::{RESERVED_PREFIX, VALUE_BYTES_MAX};
use protocol::{
    CommandNumber, Effect, Entry, Key, Membership, NodeId, Space, StateError, StateView, Timestamp, membership,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::function::{Failure, Refusal};

/// The most effects of one command. Every replica applies a command in one atomic write, in
/// line with all others; a thousand keys keep that well under the time of a disk sync.
pub const EFFECTS_MAX: usize = 1024;
/// The most bytes, keys and values together, that one command writes: it travels in one frame,
/// whose limit lies above this, and is held in memory by the leader until it is applied.
pub const EFFECTS_BYTES_MAX: usize = 4 << 20;
/// The most entries of one scan: a page that is read while the leader waits. Longer ranges are
/// read in pages, with `after`.
pub const SCAN_LIMIT_MAX: usize = 10_000;
/// The most entries that one execution reads, keys and scans together: they are remembered
/// while the call waits, and all read again when it is certified.
pub const READS_MAX: usize = 100_000;

/// What an execution read, so that it can be certified later: nothing of it has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReadSet {
    /// Keys read, with the version seen; `None` where the key was absent.
    pub keys: BTreeMap<Key, Option<CommandNumber>>,
    /// Scans done, with the keys and versions seen.
    pub scans: Vec<ScanRead>,
}

impl ReadSet {
    /// Whether `state` shows what was read: every key at the version seen, every scan the same
    /// keys and versions. Then the function would read the same again, and what it decided
    /// stands (S-10).
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be read.
    pub fn still_holds(&self, state: &dyn StateView) -> Result<bool, StateError> {
        for (key, seen) in &self.keys {
            if state.get(key)?.map(|entry| entry.version) != *seen {
                return Ok(false);
            }
        }
        for scan in &self.scans {
            let found = state.scan(&scan.prefix, scan.after.as_deref(), scan.limit)?;
            let versions = found.iter().map(|(key, entry)| (key, entry.version));
            if !versions.eq(scan.seen.iter().map(|(key, version)| (key, *version))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a write of `key` may change what was read.
    #[must_use]
    pub fn touched_by(&self, key: &Key) -> bool {
        self.keys.contains_key(key) || self.scans.iter().any(|scan| scan.touched_by(key))
    }
}

/// One scan of the state and what it saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanRead {
    /// The prefix asked for.
    pub prefix: String,
    /// The key after which it began.
    pub after: Option<String>,
    /// The most entries it wanted: what the function asked for, and as many more as the function
    /// itself had deleted there.
    pub limit: usize,
    /// What it saw.
    pub seen: Vec<(Key, CommandNumber)>,
}

impl ScanRead {
    /// A scan that reached its limit saw nothing of the range beyond its last key.
    fn touched_by(&self, key: &Key) -> bool {
        let in_range =
            key.as_str().starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| key.as_str() > after);
        let cut_off_before = self.seen.len() >= self.limit && self.seen.last().is_none_or(|(last, _)| key > last);
        in_range && !cut_off_before
    }
}

/// A node that is heard, as it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What it has applied.
    pub applied: CommandNumber,
    /// Its acceptor is not silent (ADR 0023).
    pub speaks: bool,
    /// Whether it may lead now, as far as it is concerned.
    pub can_lead: bool,
    /// The room on its disk.
    pub space: Space,
    /// Whom it hears, itself included.
    pub hears: BTreeSet<NodeId>,
}

impl Heard {
    /// What its heartbeat says.
    #[must_use]
    pub fn of(word: &Heartbeat) -> Self {
        let hears = word.hears.iter().copied().collect();
        Self { applied: word.applied, speaks: !word.silent, can_lead: word.can_lead, space: word.space, hears }
    }

    /// A node that nothing keeps from leading.
    #[must_use]
    pub fn well(applied: CommandNumber, hears: impl IntoIterator<Item = NodeId>) -> Self {
        Self { applied, speaks: true, can_lead: true, space: Space::Ample, hears: hears.into_iter().collect() }
    }
}

/// The cluster, as the leader's node sees it now: not replicated, like time and chance.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    /// The node that leads, and runs the function.
    pub me: NodeId,
    /// The membership in force where the state has no entry of one.
    pub membership: &'a Membership,
    /// The nodes that are heard, this one included.
    pub heard: &'a dyn Fn() -> BTreeMap<NodeId, Heard>,
    /// Whether the vote of an acceptor can be counted on, if it is heard: it has promised.
    pub votes: &'a dyn Fn(NodeId) -> bool,
}

impl Cluster<'_> {
    /// The nodes that are heard. One whose vote cannot be counted on does not speak, whatever it says.
    pub(crate) fn heard(&self) -> BTreeMap<NodeId, Heard> {
        let mut heard = (self.heard)();
        for (node, heard) in &mut heard {
            heard.speaks &= !self.membership.is_acceptor(*node) || (self.votes)(*node);
        }
        heard
    }
}

/// The world of one execution.
pub struct ExecutionContext<'a> {
    state: &'a dyn StateView,
    now: Timestamp,
    entropy: u64,
    cluster: Option<Cluster<'a>>,
    /// Who is to lead from now on.
    successor: Option<NodeId>,
    random: Option<ChaCha8Rng>,
    /// Own writes; `None` deletes, and stands only over a key that the state has.
    writes: BTreeMap<Key, Option<Bytes>>,
    /// What `writes` weighs against [`EFFECTS_BYTES_MAX`].
    bytes: usize,
    reads: ReadSet,
    /// How many entries `reads` holds.
    read_count: usize,
    failed: Option<Failure>,
}

impl<'a> ExecutionContext<'a> {
    /// A context over `state`, at the time `now`, whose random numbers follow from `entropy`
    /// alone, so that a run can be replayed.
    #[must_use]
    pub fn new(state: &'a dyn StateView, now: Timestamp, entropy: u64) -> Self {
        Self {
            state,
            now,
            entropy,
            cluster: None,
            successor: None,
            random: None,
            writes: BTreeMap::new(),
            bytes: 0,
            reads: ReadSet::default(),
            read_count: 0,
            failed: None,
        }
    }

    /// The same, in sight of the cluster: what runs in line with the leader.
    #[must_use]
    pub fn of(self, cluster: Cluster<'a>) -> Self {
        Self { cluster: Some(cluster), ..self }
    }

    /// The cluster, for the functions that are about it. They run in line.
    pub(crate) fn cluster(&self) -> Cluster<'a> {
        self.cluster.expect("functions about the cluster run in line with the leader")
    }

    /// Hands the lead over, once the function has its result.
    pub(crate) fn hand_over(&mut self, to: NodeId) {
        self.successor = Some(to);
    }

    /// Who is to lead from now on, if the function says so.
    pub(crate) fn successor(&self) -> Option<NodeId> {
        self.successor
    }

    /// The time that the command will carry.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The next random number. Good for spreading and choosing, not for secrets: whoever knows
    /// the 64 bits of entropy knows them all.
    pub fn random(&mut self) -> u64 {
        let entropy = self.entropy;
        self.random.get_or_insert_with(|| ChaCha8Rng::seed_from_u64(entropy)).next_u64()
    }

    /// The entry of a key. One that this execution wrote has version 0, since its command has no
    /// number yet.
    ///
    /// # Errors
    /// [`Failure::State`] when the state cannot be read, [`Failure::TooLarge`] past
    /// [`READS_MAX`] entries.
    pub fn get(&mut self, key: &Key) -> Result<Option<Entry>, Failure> {
        match self.writes.get(key) {
            Some(own) => Ok(own.clone().map(own_entry)),
            None => self.get_below(key),
        }
    }

    /// Up to `limit` entries whose keys begin with `prefix`, in order of keys, the first being
    /// the lowest that is greater than `after`. Own writes are among them, with version 0.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] for a limit above [`SCAN_LIMIT_MAX`] or past [`READS_MAX`] entries,
    /// [`Failure::State`] when the state cannot be read.
    pub fn scan(&mut self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, Failure> {
        if limit > SCAN_LIMIT_MAX {
            return self.fail(Failure::TooLarge(format!(
                "a scan returns at most {SCAN_LIMIT_MAX} entries, not {limit}; read the range in pages, with `after`"
            )));
        }
        if limit == 0 {
            return Ok(Vec::new());
        }
        let own: Vec<(Key, Option<Bytes>)> = self.own_in_range(prefix, after);
        let deleted = own.iter().filter(|(_, write)| write.is_none()).count();
        // The state may show first the keys that this execution deleted; so many more are read.
        let below = self.scan_below(prefix, after, limit + deleted)?;
        let mut merged: BTreeMap<Key, Entry> = below.into_iter().collect();
        for (key, write) in own {
            match write {
                Some(value) => merged.insert(key, own_entry(value)),
                None => merged.remove(&key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    /// Sets the value of a key. Counts as a change even where the value is the same.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] for a value above 1 MiB, past [`EFFECTS_MAX`] keys, or past
    /// [`EFFECTS_BYTES_MAX`] bytes; a refusal for a reserved key.
    pub fn put(&mut self, key: Key, value: Bytes) -> Result<(), Failure> {
        if value.len() > VALUE_BYTES_MAX {
            return self.fail(Failure::TooLarge(format!(
                "a value has at most {VALUE_BYTES_MAX} bytes, that of {key} would have {}",
                value.len()
            )));
        }
        self.check_free(&key)?;
        self.write(key, Some(value))
    }

    /// Puts another membership into force, once the command is issued.
    pub(crate) fn change_membership(&mut self, next: &Membership) -> Result<(), Failure> {
        self.put_reserved(membership::key(), Some(next.to_value()))
    }

    /// Writes, or deletes, what belongs to the cluster itself.
    pub(crate) fn put_reserved(&mut self, key: Key, value: Option<Bytes>) -> Result<(), Failure> {
        debug_assert!(key.is_reserved());
        self.write(key, value)
    }

    /// Deletes a key; says whether it was there. An absent key is read, and is no change.
    ///
    /// # Errors
    /// As [`ExecutionContext::get`] and [`ExecutionContext::put`].
    pub fn delete(&mut self, key: Key) -> Result<bool, Failure> {
        self.check_free(&key)?;
        let own = self.writes.get(&key).map(Option::is_some);
        if own == Some(false) {
            return Ok(false);
        }
        if self.get_below(&key)?.is_some() {
            self.write(key, None)?;
            return Ok(true);
        }
        if let Some(forgotten) = self.writes.remove(&key) {
            self.bytes -= weight(&key, forgotten.as_ref());
        }
        Ok(own.is_some())
    }

    /// What remains: the effects, in order of keys, and what was read; or the latched failure.
    pub(crate) fn finish(self) -> (Result<Vec<Effect>, Failure>, ReadSet) {
        let effects = self.writes.into_iter().map(|(key, write)| match write {
            Some(value) => Effect::Put { key, value },
            None => Effect::Delete { key },
        });
        let outcome = match self.failed {
            Some(failure) => Err(failure),
            None => Ok(effects.collect()),
        };
        (outcome, self.reads)
    }

    /// Latches the first failure, and returns the one at hand.
    fn fail<T>(&mut self, failure: Failure) -> Result<T, Failure> {
        self.failed.get_or_insert_with(|| failure.clone());
        Err(failure)
    }

    /// What concerns the cluster itself is changed by the functions whose business that is.
    fn check_free(&mut self, key: &Key) -> Result<(), Failure> {
        if key.is_reserved() {
            let message = format!("{key} belongs to the cluster itself, as all keys that begin with {RESERVED_PREFIX}");
            return self.fail(Failure::Refused(Refusal { code: "reserved_key", message, may_pass: false }));
        }
        Ok(())
    }

    /// Reads a key of the state. A key read twice keeps the version seen first: if the state has
    /// changed in between, certification finds it out.
    fn get_below(&mut self, key: &Key) -> Result<Option<Entry>, Failure> {
        let entry = match self.state.get(key) {
            Ok(entry) => entry,
            Err(error) => return self.fail(error.into()),
        };
        if let btree_map::Entry::Vacant(unread) = self.reads.keys.entry(key.clone()) {
            unread.insert(entry.as_ref().map(|entry| entry.version));
            self.count_reads(1)?;
        }
        Ok(entry)
    }

    fn scan_below(&mut self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, Failure> {
        let found = match self.state.scan(prefix, after, limit) {
            Ok(found) => found,
            Err(error) => return self.fail(error.into()),
        };
        self.reads.scans.push(ScanRead {
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
            seen: found.iter().map(|(key, entry)| (key.clone(), entry.version)).collect(),
        });
        // The scan itself counts as one, so that empty scans are bounded too.
        self.count_reads(found.len() + 1)?;
        Ok(found)
    }

    fn count_reads(&mut self, more: usize) -> Result<(), Failure> {
        self.read_count += more;
        if self.read_count > READS_MAX {
            return self.fail(Failure::TooLarge(format!("one call reads at most {READS_MAX} entries")));
        }
        Ok(())
    }

    /// Own writes in the range of a scan, in order of keys.
    fn own_in_range(&self, prefix: &str, after: Option<&str>) -> Vec<(Key, Option<Bytes>)> {
        // An empty prefix is no key, and then the range begins at the first one.
        let from = Key::new(prefix).map_or(Bound::Unbounded, Bound::Included);
        self.writes
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after))
            .map(|(key, write)| (key.clone(), write.clone()))
            .collect()
    }

    fn write(&mut self, key: Key, write: Option<Bytes>) -> Result<(), Failure> {
        self.bytes += weight(&key, write.as_ref());
        if let Some(replaced) = self.writes.get(&key) {
            self.bytes -= weight(&key, replaced.as_ref());
        }
        self.writes.insert(key, write);
        if self.writes.len() > EFFECTS_MAX {
            return self.fail(Failure::TooLarge(format!("one call changes at most {EFFECTS_MAX} keys")));
        }
        if self.bytes > EFFECTS_BYTES_MAX {
            return self.fail(Failure::TooLarge(format!(
                "one call writes at most {EFFECTS_BYTES_MAX} bytes of keys and values together"
            )));
        }
        Ok(())
    }
}

/// An entry that its own execution reads back: no command number yet.
fn own_entry(value: Bytes) -> Entry {
    Entry { value, version: CommandNumber::NULL }
}

fn weight(key: &Key, write: Option<&Bytes>) -> usize {
    key.as_str().len() + write.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests;
