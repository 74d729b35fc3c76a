//! Calls at a leader: each is executed once and becomes a command, or is answered without one.
//!
//! A call that cannot run at once is *kept*, within one bound for all: it is queued while the
//! window is full, runs on the pool, or waits for a refusal to pass. Repetitions of a call find
//! it wherever it is: kept, proposed, or applied long ago (S-23).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use functions::{Execution, Failure, Placement, ReadSet, Refusal};
use protocol::message::{Executed, ToGateway};
use protocol::{
    Call, Command, CommandBody, CommandId, Effect as StateEffect, Forget, NodeId, Outcome, RequestId, Tick,
    Timestamp,
};

use super::Turn;
use super::interface::{Effect, IgnoreReason, PoolJob};
use super::leading::Leading;
use super::pipeline::Waiter;

/// Executions on the pool are repeated this often when what they read has changed meanwhile;
/// then the caller is told to try later.
const CERTIFICATIONS_MAX: u32 = 10;

/// Commands that M(p) may lag behind what is issued before new calls wait, in windows: it bounds
/// the overlay when the learner's disk is slower than the acceptors'.
const UNAPPLIED_WINDOWS_MAX: u64 = 4;

/// A call at this leader, wherever it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    call: Call,
    entropy: u64,
    /// Until when a refusal that may pass is waited for.
    until: Tick,
    waiters: Vec<Waiter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kept {
    /// For room in the window.
    Queued,
    /// On the pool, for the n-th time.
    Pooled(u32),
    /// For what it read to change.
    Waiting(ReadSet, Refusal),
}

/// The kept calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Calls {
    last_id: u64,
    kept: BTreeMap<u64, (Pending, Kept)>,
    by_request: BTreeMap<RequestId, u64>,
    queue: VecDeque<u64>,
    /// Those that wait for a refusal to pass.
    waiting: BTreeSet<u64>,
    /// Waiting calls to try again, because something that they read was written.
    touched: VecDeque<u64>,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    fn keep(&mut self, pending: Pending, kept: Kept) -> u64 {
        self.last_id += 1;
        self.by_request.insert(pending.call.request.clone(), self.last_id);
        match kept {
            Kept::Queued => self.queue.push_back(self.last_id),
            Kept::Waiting(..) => _ = self.waiting.insert(self.last_id),
            Kept::Pooled(_) => {}
        }
        self.kept.insert(self.last_id, (pending, kept));
        self.last_id
    }

    fn take(&mut self, id: u64) -> Option<(Pending, Kept)> {
        let (pending, kept) = self.kept.remove(&id)?;
        self.by_request.remove(&pending.call.request);
        self.waiting.remove(&id);
        Some((pending, kept))
    }

    fn by_request(&mut self, request: &RequestId) -> Option<&mut Pending> {
        let id = self.by_request.get(request)?;
        self.kept.get_mut(id).map(|(pending, _)| pending)
    }

    /// Marks the waiting calls that a write of these effects may help.
    fn touch(&mut self, effects: &[StateEffect]) {
        for id in &self.waiting {
            if let Some((_, Kept::Waiting(reads, _))) = self.kept.get(id)
                && effects.iter().any(|effect| reads.touched_by(effect.key()))
                && !self.touched.contains(id)
            {
                self.touched.push_back(*id);
            }
        }
    }

    /// The waiting calls whose patience is over.
    fn late(&self, now: Tick) -> Vec<u64> {
        let is_late = |id: &&u64| self.kept.get(id).is_some_and(|(pending, _)| now >= pending.until);
        self.waiting.iter().filter(is_late).copied().collect()
    }

    /// The lead is over; none of these has changed anything.
    pub(super) fn end(self, turn: &mut Turn<'_>) {
        for (pending, _) in self.kept.into_values() {
            for waiter in pending.waiters {
                turn.reply_outcome(waiter.gateway, pending.call.request.clone(), Outcome::NotLeader);
            }
        }
    }
}

impl Leading {
    /// A call arrives, for the first time or again.
    pub(super) fn take_call(&mut self, from: NodeId, call: Call, entropy: u64, turn: &mut Turn<'_>) {
        if self.is_repeated(from, &call, turn) {
            return;
        }
        let pending = Pending {
            until: turn.world.now.tick + call.patience,
            call,
            entropy,
            waiters: vec![Waiter { gateway: from, repeated: false }],
        };
        if !self.has_room(turn) || !self.calls.queue.is_empty() {
            return self.keep(pending, Kept::Queued, turn);
        }
        self.execute(pending, 0, turn);
        self.retry_touched(turn);
    }

    fn has_room(&self, turn: &Turn<'_>) -> bool {
        let unapplied_max = turn.config.window.saturating_mul(UNAPPLIED_WINDOWS_MAX);
        self.pipeline.has_room(turn.config.pipeline_bytes) && (self.state.unapplied() as u64) < unapplied_max
    }

    fn keep(&mut self, pending: Pending, kept: Kept, turn: &mut Turn<'_>) {
        if self.calls.len() >= turn.config.kept_calls {
            return self.answer(&pending, &Outcome::Overloaded, turn);
        }
        self.calls.keep(pending, kept);
    }

    /// Finds the call where an earlier one with its request id is, and attaches to it.
    fn is_repeated(&mut self, from: NodeId, call: &Call, turn: &mut Turn<'_>) -> bool {
        let waiter = Waiter { gateway: from, repeated: true };
        if let Some(pending) = self.calls.by_request(&call.request) {
            if pending.call.fingerprint != call.fingerprint {
                turn.reply_outcome(from, call.request.clone(), Outcome::RequestReused);
            } else if !pending.waiters.iter().any(|other| other.gateway == from) {
                pending.waiters.push(waiter);
            }
            return true;
        }
        let stored = match self.state.outcome(&call.request) {
            Some(stored) => Some(stored.clone()),
            None => match turn.world.machine.outcome(&call.request) {
                Ok(stored) => stored,
                Err(error) => {
                    turn.effects.push(Effect::Failed(error));
                    return true;
                }
            },
        };
        let Some(stored) = stored else { return false };
        if stored.fingerprint != call.fingerprint {
            let reply = Executed { request: call.request.clone(), outcome: Outcome::RequestReused };
            self.rounds.gate(stored.command, from, ToGateway::Executed(reply));
        } else if let Some(proposed) = self.pipeline.get_mut(stored.command) {
            if !proposed.waiters.iter().any(|other| other.gateway == from) {
                proposed.waiters.push(waiter);
            }
        } else {
            let outcome = Outcome::Issued { command: stored.command, result: stored.result, replayed: true };
            turn.reply_outcome(from, call.request.clone(), outcome);
        }
        true
    }

    /// Runs the function of a call against LS(p), here or on the pool.
    fn execute(&mut self, pending: Pending, certifications: u32, turn: &mut Turn<'_>) {
        let Some(function) = turn.world.functions.get(&pending.call.function) else {
            return self.answer(&pending, &Outcome::UnknownFunction, turn);
        };
        let now = turn.world.now.wall.max(self.state.time);
        match function.placement() {
            Placement::Inline => {
                let view = self.state.over(turn.world.machine);
                let execution =
                    functions::run(function.as_ref(), &view, now, pending.entropy, &pending.call.arguments);
                self.conclude(pending, execution, now, turn);
            }
            Placement::Pool => {
                if self.calls.len() >= turn.config.kept_calls {
                    return self.answer(&pending, &Outcome::Overloaded, turn);
                }
                let (function, arguments) = (pending.call.function.clone(), pending.call.arguments.clone());
                let entropy = pending.entropy;
                let job = self.calls.keep(pending, Kept::Pooled(certifications + 1));
                let overlay = self.state.overlay();
                turn.effects.push(Effect::RunOnPool(PoolJob { job, function, arguments, overlay, now, entropy }));
            }
        }
    }

    /// A function on the pool has finished: certify that nothing it read has changed since, or
    /// run it again. So every execution is equivalent to one at this point of the order (A1p).
    pub(super) fn on_pool_done(&mut self, job: u64, execution: Execution, turn: &mut Turn<'_>) {
        let Some((pending, Kept::Pooled(times))) = self.calls.take(job) else {
            return turn.ignore(IgnoreReason::LateExecution);
        };
        match execution.reads.still_holds(&self.state.over(turn.world.machine)) {
            Err(error) => turn.effects.push(Effect::Failed(error)),
            Ok(true) => {
                let now = turn.world.now.wall.max(self.state.time);
                self.conclude(pending, execution, now, turn);
                self.retry_touched(turn);
            }
            Ok(false) if times < CERTIFICATIONS_MAX => self.execute(pending, times, turn),
            Ok(false) => self.answer(&pending, &Outcome::Overloaded, turn),
        }
    }

    /// Turns an execution into a command or an answer.
    fn conclude(&mut self, pending: Pending, execution: Execution, now: Timestamp, turn: &mut Turn<'_>) {
        let at = self.pipeline.last().number;
        match execution.result {
            Ok(result) if execution.effects.is_empty() => {
                self.answer_gated(&pending, &Outcome::Unchanged { at, result });
            }
            Ok(result) => {
                let body = CommandBody {
                    time: now,
                    request: pending.call.request,
                    fingerprint: pending.call.fingerprint,
                    function: pending.call.function,
                    result,
                    effects: execution.effects,
                    forget: Forget {
                        callers: now.minus(turn.config.caller_retention),
                        gateways: now.minus(turn.config.gateway_retention),
                    },
                };
                self.propose(&body, pending.waiters);
            }
            Err(Failure::Refused(refusal)) if refusal.may_pass && turn.world.now.tick < pending.until => {
                self.keep(pending, Kept::Waiting(execution.reads, refusal), turn);
            }
            Err(Failure::Refused(refusal)) => {
                let outcome = Outcome::Refused { at, code: refusal.code.to_owned(), message: refusal.message };
                self.answer_gated(&pending, &outcome);
            }
            Err(Failure::InvalidArguments(message) | Failure::TooLarge(message)) => {
                self.answer(&pending, &Outcome::InvalidArguments { message }, turn);
            }
            Err(Failure::Panicked(message)) => self.answer(&pending, &Outcome::Failed { message }, turn),
            Err(Failure::State(error)) => turn.effects.push(Effect::Failed(error)),
        }
    }

    /// Step 3": the result of a function becomes the next command.
    fn propose(&mut self, body: &CommandBody, waiters: Vec<Waiter>) {
        let precedent = self.pipeline.last();
        let id = CommandId::new(self.ballot, precedent.number.next());
        self.lay(Command { id, precedent, body: body.encode() }, body, waiters);
        self.calls.touch(&body.effects);
    }

    /// Answers at once: nothing of the leader state shows in it.
    fn answer(&self, pending: &Pending, outcome: &Outcome, turn: &mut Turn<'_>) {
        for waiter in &pending.waiters {
            turn.reply_outcome(waiter.gateway, pending.call.request.clone(), outcome.clone());
        }
    }

    /// Answers when all that the function saw is issued and this node is known to have led
    /// after it ran.
    fn answer_gated(&mut self, pending: &Pending, outcome: &Outcome) {
        for waiter in &pending.waiters {
            let executed = Executed { request: pending.call.request.clone(), outcome: outcome.clone() };
            self.rounds.gate(self.pipeline.last().number, waiter.gateway, ToGateway::Executed(executed));
        }
    }

    /// Tries waiting calls again whose reads were written. Each try either ends a call or leaves
    /// it waiting, and only a proposed command touches others: so this ends.
    fn retry_touched(&mut self, turn: &mut Turn<'_>) {
        while self.has_room(turn)
            && let Some(id) = self.calls.touched.pop_front()
        {
            if let Some((pending, _)) = self.calls.take(id) {
                self.execute(pending, 0, turn);
            }
        }
    }

    /// There may be room again: first those who waited longest.
    pub(super) fn take_queued(&mut self, turn: &mut Turn<'_>) {
        self.retry_touched(turn);
        while self.has_room(turn)
            && let Some(id) = self.calls.queue.pop_front()
        {
            if let Some((pending, _)) = self.calls.take(id) {
                self.execute(pending, 0, turn);
                self.retry_touched(turn);
            }
        }
    }

    /// Those whose patience is over get the refusal that they last met.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>) {
        for id in self.calls.late(turn.world.now.tick) {
            if let Some((pending, Kept::Waiting(_, refusal))) = self.calls.take(id) {
                let at = self.pipeline.last().number;
                let outcome = Outcome::Refused { at, code: refusal.code.to_owned(), message: refusal.message };
                self.answer_gated(&pending, &outcome);
            }
        }
    }
}
