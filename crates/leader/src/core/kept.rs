//! The calls that a leader keeps, and how it finds them again: by name, by request id, by age,
//! by the end of their patience, and by the keys whose change they wait for. Nothing here looks
//! at all of them, so that ten thousand waiting calls cost a command nothing that does not
//! concern them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use functions::ReadSet;
use protocol::{Call, Effect as StateEffect, Key, Outcome, RequestId, Tick, membership};

use super::Turn;
use super::backlog::Backlog;
use super::pipeline::Waiter;

/// How often changes of the membership are tried again: well below the time in which nodes come and go.
const MEMBERS_TRIED: Duration = Duration::from_millis(200);

/// A call at this leader, wherever it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub(super) call: Call,
    pub(super) entropy: u64,
    /// When it came.
    pub(super) since: Tick,
    pub(super) waiters: Vec<Waiter>,
}

impl Pending {
    /// Until when a refusal that may pass is waited for.
    pub(super) fn until(&self) -> Tick {
        self.since + self.call.patience
    }
}

/// What a kept call waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kept {
    /// For room in the window.
    Queued,
    /// For the pool, where it runs for the n-th time.
    Pooled(u32),
    /// For this, which it read, to change.
    Waiting(ReadSet),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Calls {
    last_id: u64,
    kept: BTreeMap<u64, (Pending, Kept)>,
    by_request: BTreeMap<RequestId, u64>,
    queue: VecDeque<u64>,
    backlog: Backlog,
    /// Waiting calls by the end of their patience.
    by_end: BTreeSet<(Tick, u64)>,
    /// Waiting calls by the keys that they read.
    by_key: BTreeMap<Key, BTreeSet<u64>>,
    /// Waiting calls that read ranges: few functions do, so these are looked at one by one.
    scanning: BTreeSet<u64>,
    /// Waiting calls to try again, because something that they read was written.
    touched: BTreeSet<u64>,
    /// When those were last touched that look at the membership.
    members_tried: Tick,
}

impl Calls {
    /// No calls. Ids begin above `last_id`, the last one of this node's earlier leads: what the
    /// pool still runs for one of those must not be taken for a call of this one.
    pub(super) fn after(last_id: u64) -> Self {
        Self { last_id, ..Self::default() }
    }

    /// The id that was given last.
    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn keep(&mut self, pending: Pending, kept: Kept) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let other = self.by_request.insert(pending.call.request.clone(), id);
        assert!(other.is_none(), "a repeated call attaches to the one that is kept");
        match &kept {
            Kept::Queued => self.queue.push_back(id),
            Kept::Waiting(reads) => {
                self.by_end.insert((pending.until(), id));
                for key in reads.keys.keys() {
                    self.by_key.entry(key.clone()).or_default().insert(id);
                }
                if !reads.scans.is_empty() {
                    self.scanning.insert(id);
                }
            }
            Kept::Pooled(_) => {}
        }
        self.kept.insert(id, (pending, kept));
        id
    }

    /// Takes out a call that runs on the pool, with how often it has run there.
    pub(super) fn take_pooled(&mut self, id: u64) -> Option<(Pending, u32)> {
        let Some((_, Kept::Pooled(times))) = self.kept.get(&id) else { return None };
        let times = *times;
        self.take(id).map(|pending| (pending, times))
    }

    /// Takes out the call that waits longest for room.
    pub(super) fn take_queued(&mut self, now: Tick) -> Option<Pending> {
        let id = self.queue.pop_front()?;
        let pending = self.take(id)?;
        self.backlog.taken_up(now.since(pending.since), now);
        Some(pending)
    }

    /// A call need not queue.
    pub(super) fn none_queues(&mut self, now: Tick) {
        self.backlog.taken_up(Duration::ZERO, now);
    }

    /// Whether the queue stands, so that this call is not to join it.
    pub(super) fn is_backlogged(&self, call: &Call, now: Tick) -> bool {
        let first = self.queue.front().and_then(|id| self.kept.get(id));
        first.is_some_and(|(first, _)| self.backlog.refuses(call, now.since(first.since)))
    }

    /// Takes out a waiting call of whose reads something was written.
    pub(super) fn take_touched(&mut self) -> Option<Pending> {
        let id = self.touched.pop_first()?;
        self.take(id)
    }

    /// Takes out a waiting call whose patience is over.
    pub(super) fn take_late(&mut self, now: Tick) -> Option<Pending> {
        let (_, id) = self.by_end.first().filter(|(until, _)| *until <= now).copied()?;
        self.take(id)
    }

    fn take(&mut self, id: u64) -> Option<Pending> {
        let (pending, kept) = self.kept.remove(&id)?;
        self.by_request.remove(&pending.call.request);
        if let Kept::Waiting(reads) = kept {
            self.by_end.remove(&(pending.until(), id));
            self.scanning.remove(&id);
            self.touched.remove(&id);
            for key in reads.keys.into_keys() {
                if let Some(readers) = self.by_key.get_mut(&key) {
                    readers.remove(&id);
                    if readers.is_empty() {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
        Some(pending)
    }

    pub(super) fn by_request(&mut self, request: &RequestId) -> Option<&mut Pending> {
        let id = self.by_request.get(request)?;
        self.kept.get_mut(id).map(|(pending, _)| pending)
    }

    /// Marks the waiting calls that a write of these effects may help.
    pub(super) fn touch(&mut self, effects: &[StateEffect]) {
        for effect in effects {
            self.touched.extend(self.by_key.get(effect.key()).into_iter().flatten());
        }
        for id in &self.scanning {
            if let Some((_, Kept::Waiting(reads))) = self.kept.get(id)
                && effects.iter().any(|effect| reads.touched_by(effect.key()))
            {
                self.touched.insert(*id);
            }
        }
    }

    /// Marks the waiting calls that look at the membership, from time to time: they also wait for who is heard, and how far
    /// each is, which changes without a write.
    pub(super) fn touch_members(&mut self, now: Tick) {
        if let Some(waiting) = self.by_key.get(&membership::key())
            && now.since(self.members_tried) >= MEMBERS_TRIED
        {
            self.members_tried = now;
            self.touched.extend(waiting);
        }
    }

    /// The membership changes: until a ballot is led under the new one nothing is executed, and then all are tried
    /// again, in order of arrival. What the pool still runs for one of them comes too late.
    pub(super) fn queue_all(&mut self) {
        self.queue = self.kept.keys().copied().collect();
        self.kept.values_mut().for_each(|(_, kept)| *kept = Kept::Queued);
        self.by_end.clear();
        self.by_key.clear();
        self.scanning.clear();
        self.touched.clear();
    }

    /// The lead is over; none of these has changed anything. Returns the last id.
    pub(super) fn end(self, turn: &mut Turn<'_>) -> u64 {
        for (pending, _) in self.kept.into_values() {
            for waiter in pending.waiters {
                turn.reply_outcome(waiter.gateway, &pending.call, Outcome::NotLeader);
            }
        }
        self.last_id
    }
}
