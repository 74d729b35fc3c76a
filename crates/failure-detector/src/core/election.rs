//! Who leads, who should, and when to stop: rules 2 to 5 of the module above.

use std::time::Duration;

use protocol::message::Heartbeat;
use protocol::{Ballot, CommandNumber, NodeId, Tick};

use super::{Effect, FailureDetector};

/// A candidate that lacks at most so many of the commands that another knows to be issued ranks
/// by its id: to transfer them takes less time than another candidate's turn, and heartbeats
/// under load are always that much out of date, so that nodes would not agree on an order.
const BEHIND_MAX: u64 = 4_096;

/// How often, while nobody leads, another's attempt puts off our own: a node that tries and
/// never succeeds must not keep the rest waiting.
const DEFERRALS_MAX: u32 = 3;

/// The time in which nobody leads, or nobody has led for long: a lead that is lost at once (two
/// candidates that do not hear each other) must not make anybody forget to wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Election {
    /// The candidates' turns are counted from here.
    since: Tick,
    /// While somebody leads: since when.
    led_since: Option<Tick>,
    /// Own attempts.
    attempts: u32,
    /// No own attempt before this.
    retry_at: Tick,
    /// How often another's attempt was waited for.
    deferrals: u32,
    /// The highest ballot seen: a higher one is somebody's attempt.
    seen: Ballot,
}

impl Election {
    fn begin(now: Tick, led: Ballot) -> Self {
        Self { since: now, led_since: None, attempts: 0, retry_at: now, deferrals: 0, seen: led }
    }

    pub(super) fn postpone(&mut self, gap: Duration) {
        self.since = self.since + gap;
        self.led_since = self.led_since.map(|since| since + gap);
        self.retry_at = self.retry_at + gap;
    }
}

/// Whether a candidate ranks last for what it lacks.
pub(super) fn is_behind(issued: CommandNumber, best: CommandNumber) -> bool {
    issued.0.saturating_add(BEHIND_MAX) < best.0
}

impl FailureDetector {
    /// Rule 5.
    pub(super) fn judge_own_leadership(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if self.local.leads.is_none() || self.is_connected(self.config.me) {
            self.disconnected = None;
            return;
        }
        let disconnected = now.since(*self.disconnected.get_or_insert(now));
        let longest = self.peers.values().map(|peer| peer.timeout(&self.config)).max();
        if disconnected >= longest.unwrap_or_default().max(self.config.timeout_min) {
            effects.push(Effect::StepDown { disconnected });
            self.disconnected = Some(now);
        }
    }

    /// Rule 3: tells of a change.
    pub(super) fn judge_leader(&mut self, effects: &mut Vec<Effect>) {
        let leader = self.working_leader().or_else(|| self.leader_of_others());
        if leader != self.leader {
            effects.push(Effect::LeaderIs(leader));
            self.leader = leader;
            self.led = self.led.max(leader.unwrap_or_default());
        }
    }

    /// Rule 4.
    pub(super) fn judge_candidates(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let is_candidate = self.can_lead() && self.is_connected(self.config.me);
        self.candidate = is_candidate.then(|| self.candidate.unwrap_or(now));
        let (turn, backoff_max) = (self.config.timeout_min, self.config.timeout_max.max(self.config.timeout_min));
        if self.leader.is_some() || self.local.leads.is_some() {
            let lasts = |election: &mut Election| now.since(*election.led_since.get_or_insert(now)) >= backoff_max;
            self.election.take_if(lasts);
            return;
        }
        let rank = self.candidates().iter().position(|candidate| *candidate == self.config.me);
        let highest = self.highest_ballot();
        let (spread, settle) =
            (self.spread(), if self.is_alone() { Duration::ZERO } else { self.config.heartbeat * 2 });
        let election = self.election.get_or_insert_with(|| Election::begin(now, self.led));
        if election.led_since.take().is_some() {
            election.since = now;
        }
        if highest > election.seen {
            election.seen = highest;
            if highest.node != self.config.me && election.deferrals < DEFERRALS_MAX {
                election.deferrals += 1;
                election.since = now;
                election.retry_at = election.retry_at.max(now + turn);
            }
        }
        let (Some(rank), Some(candidate)) = (rank, self.candidate) else { return };
        // Whoever has just been joined to a majority hears who else was before it takes a turn.
        let first_turn = election.since.max(self.quiet_until).max(candidate + settle);
        let my_turn = first_turn + turn.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX));
        // Taking over is an attempt, too.
        let taking_over = self.took_over.map_or(now, |at| at + turn);
        if now < my_turn.max(election.retry_at).max(taking_over) {
            return;
        }
        election.attempts = election.attempts.saturating_add(1);
        let backoff = turn.saturating_mul(1 << election.attempts.min(16)).min(backoff_max);
        election.retry_at = now + backoff + spread;
        effects.push(Effect::Campaign { rank, attempt: election.attempts });
    }

    /// Rule 3: the working leader that this node hears directly, or is.
    pub(super) fn working_leader(&self) -> Option<Ballot> {
        let me = self.config.me;
        let own = self.local.leads.filter(|_| self.is_connected(me));
        let others = self.words().filter_map(|(id, word)| {
            // A ballot of another node is no claim.
            word.leads.filter(|ballot| ballot.node == id && self.is_connected(id))
        });
        others.chain(own).max()
    }

    /// Rule 3: the leader that peers follow and that this node does not hear, or not as one that
    /// is connected. What a node that we hear says of itself counts more.
    fn leader_of_others(&self) -> Option<Ballot> {
        let membership = &self.config.membership;
        let denied = |ballot: Ballot| match self.word_of(ballot.node) {
            Some(word) => word.leads != Some(ballot),
            // Whom this node does not know at all may have joined; of a membership before, it leads nobody.
            None if ballot.node <= membership.last_id() && !membership.may_lead(ballot.node) => true,
            None => ballot.node == self.config.me,
        };
        self.words().filter_map(|(_, word)| word.follows).filter(|ballot| !denied(*ballot)).max()
    }

    /// Rule 2, of this node or one that it hears.
    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.config.membership.majority().holds(|acceptor| self.are_joined(node, acceptor))
    }

    /// The same without those that are silent: whether this node, or another one, could have commands issued if it led.
    pub(super) fn could_decide(&self, node: NodeId) -> bool {
        self.config.membership.majority().holds(|acceptor| self.speaks(acceptor) && self.are_joined(node, acceptor))
    }

    /// Whether these hear each other. A node that we do not hear cannot contradict: it may hear anybody.
    fn are_joined(&self, one: NodeId, other: NodeId) -> bool {
        let hears = |hearer: NodeId, heard: NodeId| match hearer {
            hearer if hearer == self.config.me => self.hears(heard),
            hearer => self.word_of(hearer).is_none_or(|word: &Heartbeat| word.hears.contains(&heard)),
        };
        one == other || (hears(one, other) && hears(other, one))
    }

    /// Whether the acceptor of a node is not silent, as far as we know.
    pub(super) fn speaks(&self, acceptor: NodeId) -> bool {
        let is_silent = match acceptor {
            acceptor if acceptor == self.config.me => self.local.silent,
            acceptor => self.word_of(acceptor).is_some_and(|word| word.silent),
        };
        !is_silent
    }

    /// Whether there is no other acceptor to hear.
    pub(super) fn is_alone(&self) -> bool {
        self.config.membership.majority().nodes().iter().all(|acceptor| *acceptor == self.config.me)
    }

    /// Rule 7. Again after a while, as long as the leader says so: what was asked may have been lost.
    pub(super) fn judge_hand_over(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Some(leader) = self.leader.filter(|_| self.local.leads.is_none() && self.can_lead()) else { return };
        let word = self.word_of(leader.node).filter(|word| word.leads == Some(leader));
        let Some(over) = word.and_then(|word| word.hands_over) else { return };
        let is_due = self.took_over.is_none_or(|at| now.since(at) >= self.config.timeout_min);
        if over.to == self.config.me && over.last <= self.local.applied && is_due {
            self.took_over = Some(now);
            effects.push(Effect::TakeOver { from: leader.node });
        }
    }

    /// Rule 4: who may lead, in the order of their turns.
    fn candidates(&self) -> Vec<NodeId> {
        let own = self.can_lead().then_some((self.config.me, self.local.issued, self.local.space));
        let others = self
            .words()
            .filter(|(id, word)| word.can_lead && self.config.membership.may_lead(*id))
            .map(|(id, word)| (id, word.issued, word.space));
        let mut candidates: Vec<_> = others.chain(own).filter(|(id, ..)| self.is_connected(*id)).collect();
        let best = candidates.iter().map(|(_, issued, _)| *issued).max().unwrap_or_default();
        candidates
            .sort_by_cached_key(|(id, issued, space)| (!self.could_decide(*id), is_behind(*issued, best), *space, *id));
        candidates.into_iter().map(|(id, ..)| id).collect()
    }

    /// A different small time for each node, so that attempts that met once do not meet again.
    fn spread(&self) -> Duration {
        let before = self.peers.keys().filter(|peer| **peer < self.config.me).count();
        self.config.heartbeat.saturating_mul(u32::try_from(before % 16).unwrap_or_default())
    }
}
