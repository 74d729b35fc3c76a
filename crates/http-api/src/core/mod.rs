//! What a gateway remembers of calls and reads until they are answered.
//!
//! A caller talks to any living node and should see a delay, not an error, when the leader
//! changes. So the gateway keeps each call until it has an outcome and sends it again, under
//! the same request id, when the leader changes, when a leader says that it does not lead or
//! no longer leads, and when nothing was heard for a while. The request id makes a repetition
//! the same call (DESIGN 6, *Exactly once*; S-23).
//!
//! A read asks the leader which command number it must reach. All reads that wait share one
//! question, and a question counts only for reads that had arrived before it was asked; every
//! repetition has a fresh id, so that an old answer is no answer (S-20).
//!
//! What a caller is told is exact (S-22): *not executed* only when no copy of the call can still
//! run anywhere, *unknown* otherwise. Of copies that another gateway sent under the same key this
//! one knows nothing; so a call with a caller's key, and any call from its second copy on, asks that
//! its outcome be recorded ([`Call::is_recorded`]), which settles it for all copies (ADR 0017). An
//! answer that is not recorded, while another copy may run, is not believed: the call is sent on.
//!
//! Whoever repeats a call is told that its outcome is a replay; who calls first is not, even when
//! the leader had the outcome stored already because this gateway sent more than one copy.
//!
//! Caveat: whether a stored outcome is older than a call that had to be sent again is judged by
//! what this node had applied when the call came. A repetition through a node that was behind
//! then is taken for a first call.

pub mod access;
mod interface;
mod reads;
mod share;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use protocol::message::{Executed, Stored, ToGateway, ToLeader};
use protocol::{Call, CommandNumber, Fingerprint, Message, NodeId, Outcome, RequestId, Tick};

pub use interface::{Answer, Effect, IgnoreReason, Input, Settings, Unavailable};

pub(crate) use share::Share;

pub use reads::must_reach;

use reads::Round;

/// A call that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flight {
    call: Call,
    /// The caller for whom it was taken in: to all others its outcome is a replay.
    first: u64,
    /// When that was.
    since: Tick,
    /// What this node had applied by then.
    applied: CommandNumber,
    /// Who waits for it, and until when. May be empty: a call goes on without its callers.
    callers: BTreeMap<u64, Tick>,
    /// The latest deadline of all who ever waited: then the call is given up.
    expires: Tick,
    /// When the caller's patience with "not now" ends; a later leader gets what is left of it.
    patient_until: Tick,
    /// Which copies went to whom that may still run there, and how often: those under a caller's key all have one
    /// number.
    copies: BTreeMap<(NodeId, u32), u32>,
    /// When to send it (again) to the leader. Nothing only while no leader is known.
    again: Option<Tick>,
    /// How long to wait for the next answer, beyond what is left of the patience; both end at `resend_max`.
    pause: Duration,
    /// How often this leader has put it off.
    refusals: u32,
}

impl Flight {
    /// A copy sent once and declined will not run. The answer may come twice, and says nothing of other copies.
    fn declined_by(&mut self, node: NodeId, copy: Option<u32>) {
        let Some(copy) = copy else { return };
        if self.copies.get(&(node, copy)) == Some(&1) {
            self.copies.remove(&(node, copy));
        }
    }

    /// Whether an outcome that the leader had stored already is that of an earlier call, and not of
    /// an earlier copy of this one. When only one copy can have run, there is no earlier one.
    fn is_repetition(&self, outcome: &Outcome, only_copy: bool) -> bool {
        is_keyed(&self.call) && (only_copy || outcome.at().is_some_and(|number| number <= self.applied))
    }

    /// No copy of this gateway's but the one that `node` has answered can still run.
    fn settled_by(&self, node: NodeId, copy: Option<u32>) -> bool {
        let answered = copy.map(|copy| (node, copy));
        self.copies.iter().all(|(&sent, &count)| Some(sent) == answered && count == 1)
    }
}

/// The gateway of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    settings: Settings,
    leader: Option<NodeId>,
    flights: BTreeMap<RequestId, Flight>,
    /// The call that each caller waits for.
    callers: BTreeMap<u64, RequestId>,
    /// Bytes of arguments in flight.
    bytes: usize,
    share: Share,
    /// What a call took lately, as a moving mean.
    usual: Duration,
    round: Option<Round>,
    /// Readers that came after the question was asked, or while no leader is known.
    readers: BTreeMap<u64, Tick>,
    /// The id of the next question.
    next_barrier: u64,
    /// How long to wait for the next answer to a question.
    barrier_pause: Duration,
    /// How often this leader has put the readers off.
    barrier_refusals: u32,
    /// The node ends: nothing is taken in any more.
    ended: bool,
}

impl Gateway {
    /// A gateway with nothing in flight. `first_barrier` is chance, so that an answer meant for
    /// an earlier life of this node is no answer.
    #[must_use]
    pub fn new(settings: Settings, first_barrier: u64) -> Self {
        let (barrier_pause, share) = (settings.resend, Share::new(settings.in_flight));
        Self {
            settings,
            leader: None,
            flights: BTreeMap::new(),
            callers: BTreeMap::new(),
            bytes: 0,
            share,
            usual: Duration::ZERO,
            round: None,
            readers: BTreeMap::new(),
            next_barrier: first_barrier,
            barrier_pause,
            barrier_refusals: 0,
            ended: false,
        }
    }

    /// Whether nothing waits for anything, so that ticks are not needed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.round.is_none() && self.readers.is_empty()
    }

    /// How many calls have no outcome yet.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Whether a call that counts ([`Share`]) would be refused now, unless it repeats one that is under way.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let most = self.settings.in_flight;
        self.share.is_full() || self.flights.len() >= most || self.waiting() >= most
    }

    /// Whether this call has no outcome yet.
    #[must_use]
    pub fn is_in_flight(&self, request: &RequestId) -> bool {
        self.flights.contains_key(request)
    }

    /// Who leads, as far as the gateway knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Takes one input and says what to do.
    pub fn handle(&mut self, input: Input, now: Tick, effects: &mut Vec<Effect>) {
        match input {
            Input::Submit { ticket, call, deadline, applied } => {
                self.submit(ticket, call, deadline, applied, now, effects);
            }
            Input::Barrier { ticket, deadline } => self.barrier(ticket, deadline, now, effects),
            Input::FromLeader { from, message: ToGateway::Executed(executed) } => {
                self.executed(from, executed, now, effects);
            }
            Input::FromLeader { from, message: ToGateway::BarrierPassed(passed) } => {
                self.barrier_passed(from, passed.id, passed.at, now, effects);
            }
            Input::LeaderIs(leader) => self.leader_is(leader, now, effects),
            Input::Tick => self.tick(now, effects),
            Input::Abandon { ticket } => self.abandon(ticket),
            Input::End => self.end(effects),
        }
    }

    fn submit(
        &mut self,
        ticket: u64,
        call: Call,
        deadline: Tick,
        applied: CommandNumber,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) {
        assert!(!self.callers.contains_key(&ticket), "a ticket names one caller");
        if self.ended {
            effects.push(Effect::Answer { ticket, answer: not_sent(&call, Unavailable::Stopping) });
            return;
        }
        let settled = !is_keyed(&call);
        let turn_away = |outcome, settled| {
            let answer = Answer::Outcome { outcome, settled, replayed: false };
            Effect::Answer { ticket, answer }
        };
        if self.waiting() >= self.settings.in_flight {
            effects.push(turn_away(Outcome::Overloaded, settled));
            return;
        }
        if let Some(flight) = self.flights.get_mut(&call.request) {
            if flight.call.fingerprint != call.fingerprint {
                // What became of this call if it came before, the other one's outcome will tell.
                effects.push(turn_away(Outcome::RequestReused, false));
                return;
            }
            flight.callers.insert(ticket, deadline);
            flight.expires = flight.expires.max(deadline);
            self.callers.insert(ticket, call.request);
            return;
        }
        let bytes = self.bytes.saturating_add(call.arguments.len());
        let is_full = self.flights.len() >= self.settings.in_flight || !self.share.has_room(&call);
        if is_full || bytes > self.settings.bytes {
            effects.push(turn_away(Outcome::Overloaded, settled));
            return;
        }
        let request = call.request.clone();
        let flight = Flight {
            patient_until: now + call.patience,
            call: Call { copy: u32::from(is_keyed(&call)), ..call },
            first: ticket,
            since: now,
            applied,
            callers: BTreeMap::from([(ticket, deadline)]),
            expires: deadline,
            copies: BTreeMap::new(),
            again: None,
            pause: self.first_pause(),
            refusals: 0,
        };
        self.bytes = bytes;
        self.share.begin(&flight.call);
        self.callers.insert(ticket, request.clone());
        let flight = self.flights.entry(request).or_insert(flight);
        send(&self.settings, self.leader, flight, now, effects);
    }

    fn executed(&mut self, from: NodeId, executed: Executed, now: Tick, effects: &mut Vec<Effect>) {
        let Executed { request, copy, fingerprint, outcome, stored } = executed;
        let Some(flight) = self.flights.get_mut(&request) else {
            effects.push(Effect::Ignored(IgnoreReason::NotInFlight));
            return;
        };
        if ![flight.call.fingerprint, Fingerprint::default()].contains(&fingerprint) {
            effects.push(Effect::Ignored(IgnoreReason::OtherBody));
            return;
        }
        let settled = flight.settled_by(from, copy);
        let stored = match stored {
            Stored::Before if !flight.is_repetition(&outcome, settled) => Stored::Now,
            Stored::No | Stored::Now | Stored::Before | Stored::Plain => stored,
        };
        match outcome {
            Outcome::NotLeader => {
                flight.declined_by(from, copy);
                put_off(&self.settings, self.leader, flight, from, now);
            }
            Outcome::LeadershipLost => put_off(&self.settings, self.leader, flight, from, now),
            // Nothing that any copy could do would change these.
            Outcome::InvalidArguments { .. } | Outcome::UnknownFunction => {
                self.finish(&request, &outcome, settled, stored, effects);
            }
            // Another call that has the id now may leave it: only what is stored stays.
            Outcome::RequestReused => {
                self.finish(&request, &outcome, stored == Stored::Plain, stored, effects);
            }
            // Never recorded: asking on would only let it fail again.
            Outcome::TooLarge { .. } | Outcome::Failed { .. } => {
                let settled = stored == Stored::Plain || settled && !is_keyed(&flight.call);
                self.finish(&request, &outcome, settled, stored, effects);
            }
            Outcome::Issued { .. }
            | Outcome::Unchanged { .. }
            | Outcome::Refused { .. }
            | Outcome::Overloaded
            | Outcome::DiskFull => {
                if outcome == Outcome::Overloaded {
                    self.share.refused(&flight.call, flight.since, now);
                } else if outcome != Outcome::DiskFull {
                    self.share.decided(&flight.call);
                    if flight.call.patience.is_zero() {
                        self.usual = (self.usual * 7 + now.since(flight.since)) / 8;
                    }
                }
                if stored == Stored::No && !settled {
                    // Of several copies another one may have run, or be waiting: asking on tells.
                    return put_off(&self.settings, self.leader, flight, from, now);
                }
                let settled = stored != Stored::No || !is_keyed(&flight.call);
                self.finish(&request, &outcome, settled, stored, effects);
            }
        }
    }

    /// Answers all who wait for the call and forgets it.
    fn finish(
        &mut self,
        request: &RequestId,
        outcome: &Outcome,
        settled: bool,
        stored: Stored,
        effects: &mut Vec<Effect>,
    ) {
        let flight = self.flights.remove(request).expect("the call is in flight");
        self.bytes -= flight.call.arguments.len();
        self.share.end(&flight.call);
        for &ticket in flight.callers.keys() {
            self.callers.remove(&ticket);
            let replayed = stored == Stored::Before || stored == Stored::Now && ticket != flight.first;
            let answer = Answer::Outcome { outcome: outcome.clone(), settled, replayed };
            effects.push(Effect::Answer { ticket, answer });
        }
    }

    fn leader_is(&mut self, leader: Option<NodeId>, now: Tick, effects: &mut Vec<Effect>) {
        if self.leader == leader {
            effects.push(Effect::Ignored(IgnoreReason::SameLeader));
            return;
        }
        self.leader = leader;
        let pause = self.first_pause();
        for flight in self.flights.values_mut() {
            flight.pause = pause;
            flight.refusals = 0;
            send(&self.settings, leader, flight, now, effects);
        }
        self.reset_barrier_pauses();
        self.ask(now, effects);
    }

    fn tick(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.expire_calls(now, effects);
        self.expire_reads(now, effects);
        for flight in self.flights.values_mut() {
            if flight.again.is_some_and(|again| again <= now) {
                send(&self.settings, self.leader, flight, now, effects);
            }
        }
        if self.round.as_ref().is_some_and(|round| round.again <= now) {
            self.ask(now, effects);
        }
    }

    fn expire_calls(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let (callers, bytes, share) = (&mut self.callers, &mut self.bytes, &mut self.share);
        self.flights.retain(|_, flight| {
            let given_up = flight.expires <= now;
            // A call that goes on for somebody else may still be executed.
            let may_run = !given_up || !flight.copies.is_empty();
            flight.callers.retain(|&ticket, &mut deadline| {
                if deadline > now {
                    return true;
                }
                let answer = if may_run { Answer::Unknown } else { not_sent(&flight.call, Unavailable::NoLeader) };
                callers.remove(&ticket);
                effects.push(Effect::Answer { ticket, answer });
                false
            });
            if given_up {
                *bytes -= flight.call.arguments.len();
                share.end(&flight.call);
            }
            !given_up
        });
    }

    fn abandon(&mut self, ticket: u64) {
        if let Some(request) = self.callers.remove(&ticket) {
            let flight = self.flights.get_mut(&request).expect("a caller waits for a call in flight");
            flight.callers.remove(&ticket);
            return;
        }
        self.readers.remove(&ticket);
        if let Some(round) = self.round.as_mut() {
            round.readers.remove(&ticket);
        }
    }

    /// Answers everybody: nothing will be heard any more.
    fn end(&mut self, effects: &mut Vec<Effect>) {
        self.ended = true;
        let stopping = || Answer::NotExecuted(Unavailable::Stopping);
        for flight in mem::take(&mut self.flights).into_values() {
            let may_run = !flight.copies.is_empty();
            self.share.end(&flight.call);
            effects.extend(flight.callers.into_keys().map(|ticket| {
                let answer = if may_run { Answer::Unknown } else { not_sent(&flight.call, Unavailable::Stopping) };
                Effect::Answer { ticket, answer }
            }));
        }
        self.callers.clear();
        self.bytes = 0;
        let mut readers = mem::take(&mut self.readers);
        readers.extend(self.round.take().map(|round| round.readers).unwrap_or_default());
        effects.extend(readers.into_keys().map(|ticket| Effect::Answer { ticket, answer: stopping() }));
    }

    /// How long a call that was just sent waits for its answer. Where calls take long there is much to do: a second copy of
    /// one that is only late adds to it, and is recorded besides.
    fn first_pause(&self) -> Duration {
        (self.usual * 2).clamp(self.settings.resend, self.settings.resend_max)
    }

    /// How many callers and readers wait.
    fn waiting(&self) -> usize {
        let asked = self.round.as_ref().map_or(0, |round| round.readers.len());
        self.callers.len() + self.readers.len() + asked
    }
}

/// What is true of a call of which this gateway has no copy that may run.
fn not_sent(call: &Call, why: Unavailable) -> Answer {
    if is_keyed(call) { Answer::NotHere(why) } else { Answer::NotExecuted(why) }
}

/// Any gateway may be given the same key, and may have been before.
fn is_keyed(call: &Call) -> bool {
    matches!(call.request, RequestId::Caller(_))
}

/// Sends the call to the leader and notes when to send it again; without one, it waits.
fn send(settings: &Settings, leader: Option<NodeId>, flight: &mut Flight, now: Tick, effects: &mut Vec<Effect>) {
    let Some(to) = leader else {
        flight.again = None;
        return;
    };
    *flight.copies.entry((to, flight.call.copy)).or_default() += 1;
    let patience = flight.patient_until.since(now);
    // While the leader may be keeping the call, its silence says little, and after a second copy its
    // refusal must be recorded: so short patience is waited for, but a lost answer is never waited for long.
    flight.again = Some(now + settings.resend_max.min(patience + flight.pause));
    flight.pause = settings.resend_max.min(flight.pause * 2);
    let call = Call { patience, ..flight.call.clone() };
    if !is_keyed(&flight.call) {
        flight.call.copy = flight.call.copy.saturating_add(1);
    }
    effects.push(Effect::Send { to, message: Message::Leader(ToLeader::ExecuteFunction(call)) });
}

/// The leader put the call off: ask it again soon. To another leader it was sent already, when
/// that one became known.
fn put_off(settings: &Settings, leader: Option<NodeId>, flight: &mut Flight, from: NodeId, now: Tick) {
    if leader == Some(from) {
        flight.again = Some(now + retry_pause(settings, flight.refusals));
        flight.refusals = flight.refusals.saturating_add(1);
    }
}

/// `retry`, doubled with every refusal up to `resend`.
fn retry_pause(settings: &Settings, refusals: u32) -> Duration {
    // 2^16 times the shortest useful pause is beyond any `resend`.
    settings.resend.min(settings.retry * (1 << refusals.min(16)))
}
