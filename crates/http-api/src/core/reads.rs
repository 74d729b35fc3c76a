//! Reads: one question at a time, for all readers that had arrived before it was asked (S-20).

use std::collections::BTreeMap;
use std::mem;

use protocol::message::{ReadBarrier, ToLeader};
use protocol::{CommandNumber, Message, NodeId, Tick};

use super::{Answer, Effect, Gateway, IgnoreReason, Unavailable, retry_pause};

/// The question that is with the leader now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Round {
    pub(super) id: u64,
    /// The readers that had arrived before it was asked.
    pub(super) readers: BTreeMap<u64, Tick>,
    /// When to ask anew.
    pub(super) again: Tick,
}

/// The number that the state of this node must have reached before it is shown: what the leader answered, where it was asked,
/// and not below what the reader wants.
#[must_use]
pub fn must_reach(barrier: Option<CommandNumber>, least: CommandNumber) -> CommandNumber {
    barrier.map_or(least, |barrier| barrier.max(least))
}

impl Gateway {
    pub(super) fn barrier(&mut self, ticket: u64, deadline: Tick, now: Tick, effects: &mut Vec<Effect>) {
        if self.ended {
            effects.push(Effect::Answer { ticket, answer: Answer::NotExecuted(Unavailable::Stopping) });
            return;
        }
        if self.waiting() >= self.settings.in_flight {
            effects.push(Effect::Answer { ticket, answer: Answer::NotExecuted(Unavailable::TooMany) });
            return;
        }
        let earlier = self.readers.insert(ticket, deadline);
        assert!(earlier.is_none(), "a ticket names one reader");
        // With a question under way, this reader came too late for it and waits for the next.
        if self.round.is_none() {
            self.ask(now, effects);
        }
    }

    /// Asks a fresh question for all readers there are, if there are any and a leader is known.
    pub(super) fn ask(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if let Some(round) = self.round.take() {
            self.readers.extend(round.readers);
        }
        let Some(to) = self.leader else { return };
        if self.readers.is_empty() {
            return;
        }
        let id = self.next_barrier;
        self.next_barrier = self.next_barrier.wrapping_add(1);
        self.round = Some(Round { id, readers: mem::take(&mut self.readers), again: now + self.barrier_pause });
        self.barrier_pause = self.settings.resend_max.min(self.barrier_pause * 2);
        effects.push(Effect::Send { to, message: Message::Leader(ToLeader::ReadBarrier(ReadBarrier { id })) });
    }

    pub(super) fn barrier_passed(
        &mut self,
        from: NodeId,
        id: u64,
        at: Option<CommandNumber>,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) {
        let Some(round) = self.round.as_mut().filter(|round| round.id == id && self.leader == Some(from)) else {
            effects.push(Effect::Ignored(IgnoreReason::OldBarrier));
            return;
        };
        let Some(at) = at else {
            round.again = now + retry_pause(&self.settings, self.barrier_refusals);
            self.barrier_refusals = self.barrier_refusals.saturating_add(1);
            return;
        };
        let answered = mem::take(&mut round.readers);
        self.round = None;
        self.reset_barrier_pauses();
        let answers = answered.into_keys().map(|ticket| Effect::Answer { ticket, answer: Answer::BarrierPassed(at) });
        effects.extend(answers);
        self.ask(now, effects);
    }

    pub(super) fn expire_reads(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let why = if self.leader.is_some() { Unavailable::NoAnswer } else { Unavailable::NoLeader };
        let mut expire = |readers: &mut BTreeMap<u64, Tick>| {
            readers.retain(|&ticket, &mut deadline| {
                if deadline <= now {
                    effects.push(Effect::Answer { ticket, answer: Answer::NotExecuted(why) });
                }
                deadline > now
            });
        };
        expire(&mut self.readers);
        if let Some(round) = self.round.as_mut() {
            expire(&mut round.readers);
            // A question that nobody waits for any more; later readers need a new one.
            if round.readers.is_empty() && self.readers.is_empty() {
                self.round = None;
            }
        }
    }

    pub(super) fn reset_barrier_pauses(&mut self) {
        self.barrier_pause = self.settings.resend;
        self.barrier_refusals = 0;
    }
}
