//! Calls at a leader: each is executed once and becomes a command, or is answered without one.
//!
//! A call that cannot run at once is *kept*, within one bound for all: it is queued while the
//! window is full, runs on the pool, or waits for a refusal to pass. Repetitions of a call find
//! it wherever it is: kept, proposed, or applied long ago (S-23).
//!
//! What changes nothing needs no command, and is answered through the output gate; but a call of
//! which another copy may exist ([`Call::record`]) becomes a command in any case. The copy may have
//! been proposed by an earlier leader, for the number that comes next: a refusal that leaves that
//! number free would leave the copy to be issued by a later leader, after its caller was told that
//! it never would be.
//!
//! What a function on the pool decides is proposed when it finishes, and what a waiting call comes to
//! when its patience ends, room or not: the pipeline may then hold more than the window, by no more
//! than the calls kept, and sends what is inside.

use functions::{Cluster, Execution, ExecutionContext, Failure, Placement, ReadSet};
use protocol::message::{Executed, Stored, ToGateway};
use protocol::{
    Call, Command, CommandBody, CommandId, CommandNumber, Effect as StateEffect, Forget, NodeId, Outcome, Timestamp,
    Verdict,
};

use super::Turn;
use super::interface::{Effect, IgnoreReason, PoolJob};
use super::kept::{Calls, Kept, Pending};
use super::leading::{HELD_REPLIES_MAX, Leading};
use super::pipeline::Waiter;

/// Executions on the pool are repeated this often when what they read has changed meanwhile;
/// then the caller is told to try later.
const CERTIFICATIONS_MAX: u32 = 10;

/// Commands that M(p) may lag behind what is proposed before new calls wait, in windows: it
/// bounds the overlay when the learner's disk is slower than the acceptors'. No more than a
/// learner keeps above the last issued command, or it would have to be told again of all that it
/// dropped.
pub(super) const UNAPPLIED_WINDOWS_MAX: u64 = 2;

impl Leading {
    /// A call arrives, for the first time or again.
    pub(super) fn take_call(&mut self, from: NodeId, call: Call, entropy: u64, turn: &mut Turn<'_>) {
        if self.is_repeated(from, &call, turn) {
            return;
        }
        let pending = Pending {
            since: turn.world.now.tick,
            waiters: vec![Waiter { gateway: from, copy: call.copy, repeated: false }],
            call,
            entropy,
        };
        // While there is room nobody queues: whatever makes room takes up those who do.
        if !self.has_room(turn) {
            if self.calls.is_backlogged(&pending.call, pending.since) {
                return self.answer(&pending, &Outcome::Overloaded, Stored::No, turn);
            }
            return self.keep(pending, Kept::Queued, turn);
        }
        self.calls.none_queues(pending.since);
        self.execute(pending, 0, turn);
        self.retry_touched(turn);
    }

    /// Takes up the calls that an earlier lead of this node has kept. Another leader may have executed a copy of one in
    /// the meantime: then it is repeated.
    pub(super) fn take_again(&mut self, mut earlier: Calls, turn: &mut Turn<'_>) {
        self.calls = Calls::after(earlier.last_id());
        while let Some(pending) = earlier.take_queued(turn.world.now.tick) {
            let mut repeated = false;
            for waiter in &pending.waiters {
                repeated = self.is_repeated(waiter.gateway, &pending.call, turn);
            }
            if repeated {
                continue;
            }
            if self.has_room(turn) {
                self.execute(pending, 0, turn);
                self.retry_touched(turn);
            } else {
                self.keep(pending, Kept::Queued, turn);
            }
        }
    }

    /// Whether a call is tried now. Without room on the disks it need not wait for any here: it is
    /// refused.
    fn has_room(&self, turn: &Turn<'_>) -> bool {
        // Under the next membership: a ballot of its own comes first.
        if self.barrier.is_some() || self.handing_over.is_some() {
            return false;
        }
        let unapplied_max = turn.config.window.saturating_mul(UNAPPLIED_WINDOWS_MAX);
        let room = self.pipeline.has_room(turn.config.pipeline_bytes)
            && (self.state.unapplied() as u64) < unapplied_max
            && self.unapplied.bytes() < turn.config.pipeline_bytes;
        room || !turn.world.room
    }

    fn keep(&mut self, pending: Pending, kept: Kept, turn: &mut Turn<'_>) {
        if self.calls.len() >= turn.config.kept_calls {
            return self.answer(&pending, &Outcome::Overloaded, Stored::No, turn);
        }
        self.calls.keep(pending, kept);
    }

    /// Finds the call where an earlier one with its request id is, and attaches to it.
    fn is_repeated(&mut self, from: NodeId, call: &Call, turn: &mut Turn<'_>) -> bool {
        let waiter = Waiter { gateway: from, copy: call.copy, repeated: true };
        if let Some(pending) = self.calls.by_request(&call.request) {
            if pending.call.fingerprint != call.fingerprint {
                turn.reply_outcome(from, call, Outcome::RequestReused);
            } else {
                pending.call.copy = pending.call.copy.max(call.copy);
                if !pending.waiters.iter().any(|other| other.gateway == from) {
                    pending.waiters.push(waiter);
                }
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
            self.gate(from, stored.command, call, Outcome::RequestReused, Stored::Plain, turn);
        } else if let Some(proposed) = self.pipeline.get_mut(stored.command)
            && proposed.request == call.request
        {
            if !proposed.waiters.iter().any(|other| other.gateway == from) {
                proposed.waiters.push(waiter);
            }
        } else {
            let outcome = stored.verdict.outcome(stored.command);
            turn.reply_stored(from, call, outcome, Stored::Before);
        }
        true
    }

    /// Runs the function of a call against LS(p), here or on the pool.
    fn execute(&mut self, pending: Pending, certifications: u32, turn: &mut Turn<'_>) {
        assert!(self.barrier.is_none(), "ADR 0025: nothing is executed after a change of membership in this ballot");
        let Some(function) = turn.world.functions.get(&pending.call.function) else {
            return self.answer(&pending, &Outcome::UnknownFunction, Stored::No, turn);
        };
        if !turn.world.room {
            return self.refuse_for_room(&pending, turn);
        }
        let now = turn.world.now.wall.max(self.state.time);
        match function.placement() {
            Placement::Inline => {
                let view = self.state.over(turn.world.machine);
                let votes = |node| self.pipeline.has_promised(node);
                let cluster = cluster(turn, &votes);
                let context = ExecutionContext::new(&view, now, pending.entropy).of(cluster);
                let execution = functions::run(function.as_ref(), context, &pending.call.arguments);
                self.conclude(pending, execution, now, turn);
            }
            Placement::Pool => {
                if self.calls.len() >= turn.config.kept_calls {
                    return self.answer(&pending, &Outcome::Overloaded, Stored::No, turn);
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
        let Some((pending, times)) = self.calls.take_pooled(job) else {
            return turn.ignore(IgnoreReason::LateExecution);
        };
        if !turn.world.room {
            return self.refuse_for_room(&pending, turn);
        }
        let holds = execution.reads.still_holds(&self.state.over(turn.world.machine));
        match holds {
            Err(error) => turn.effects.push(Effect::Failed(error)),
            Ok(true) => {
                let now = turn.world.now.wall.max(self.state.time);
                self.conclude(pending, execution, now, turn);
                self.retry_touched(turn);
            }
            Ok(false) if times < CERTIFICATIONS_MAX => self.execute(pending, times, turn),
            Ok(false) => self.answer(&pending, &Outcome::Overloaded, Stored::No, turn),
        }
    }

    /// Who could lead in the place of this node.
    pub(super) fn able_successor(&self, turn: &Turn<'_>) -> Option<NodeId> {
        functions::successor(&cluster(turn, &|node| self.pipeline.has_promised(node)))
    }

    /// Turns an execution into a command or an answer.
    fn conclude(&mut self, pending: Pending, execution: Execution, now: Timestamp, turn: &mut Turn<'_>) {
        let verdict = match (execution.verdict(), &execution.result) {
            (Ok(_), Err(Failure::Refused(refusal))) if refusal.may_pass && turn.world.now.tick < pending.until() => {
                return self.keep(pending, Kept::Waiting(execution.reads), turn);
            }
            (Ok(verdict), _) => verdict,
            (Err(failure), _) => return self.fail(&pending, failure, &execution.reads, turn),
        };
        if matches!(verdict, Verdict::Changed(_)) || pending.call.is_recorded() {
            self.propose(pending, verdict, execution.effects, now, turn);
        } else {
            let at = self.pipeline.last().number;
            self.answer_gated(&pending, &verdict.outcome(at), turn);
        }
        if let Some(to) = execution.successor {
            self.hand_over(to, None, turn);
        }
    }

    /// The function came to no decision, or its arguments are none.
    fn fail(&mut self, pending: &Pending, failure: &Failure, reads: &ReadSet, turn: &mut Turn<'_>) {
        let outcome = match failure.clone() {
            Failure::State(error) => return turn.effects.push(Effect::Failed(error)),
            Failure::InvalidArguments(message) => Outcome::InvalidArguments { message },
            Failure::TooLarge(message) => Outcome::TooLarge { message },
            Failure::Panicked(message) => Outcome::Failed { message },
            Failure::Refused(_) => unreachable!("a refusal is a decision"),
        };
        if *reads == ReadSet::default() {
            let is_plain = matches!(outcome, Outcome::InvalidArguments { .. } | Outcome::TooLarge { .. });
            let stored = if is_plain { Stored::Plain } else { Stored::No };
            return self.answer(pending, &outcome, stored, turn);
        }
        self.answer_gated(pending, &outcome, turn);
    }

    /// Step 3": what a function decided becomes the next command.
    fn propose(
        &mut self,
        pending: Pending,
        verdict: Verdict,
        effects: Vec<StateEffect>,
        now: Timestamp,
        turn: &Turn<'_>,
    ) {
        let body = CommandBody {
            time: now,
            request: pending.call.request,
            fingerprint: pending.call.fingerprint,
            function: pending.call.function,
            verdict,
            effects,
            forget: Forget {
                callers: now.minus(turn.config.caller_retention),
                gateways: now.minus(turn.config.gateway_retention),
            },
        };
        let precedent = self.pipeline.last();
        let id = CommandId::new(self.ballot, precedent.number.next());
        self.lay(Command { id, precedent, body: body.encode() }, &body, pending.waiters, turn);
        self.calls.touch(&body.effects);
    }

    /// S-35: space is looked at before anything is proposed, so that a call that is refused for want of
    /// it is never applied. What was proposed before goes on.
    fn refuse_for_room(&self, pending: &Pending, turn: &mut Turn<'_>) {
        turn.ignore(IgnoreReason::DiskFull);
        self.answer(pending, &Outcome::DiskFull, Stored::No, turn);
    }

    /// Answers at once: nothing of the leader state shows in it.
    fn answer(&self, pending: &Pending, outcome: &Outcome, stored: Stored, turn: &mut Turn<'_>) {
        for waiter in &pending.waiters {
            turn.reply_stored(waiter.gateway, &pending.call, outcome.clone(), stored);
        }
    }

    /// Answers when all that the function saw, the state after the last proposed command, is issued
    /// and this node is known to have led after it ran. Failures too, unless nothing was read: their
    /// texts may tell what was.
    fn answer_gated(&mut self, pending: &Pending, outcome: &Outcome, turn: &mut Turn<'_>) {
        let at = self.pipeline.last().number;
        for waiter in &pending.waiters {
            self.gate(waiter.gateway, at, &pending.call, outcome.clone(), Stored::No, turn);
        }
    }

    fn gate(
        &mut self,
        to: NodeId,
        at: CommandNumber,
        call: &Call,
        outcome: Outcome,
        stored: Stored,
        turn: &mut Turn<'_>,
    ) {
        if self.rounds.held() >= HELD_REPLIES_MAX {
            return turn.reply_outcome(to, call, Outcome::Overloaded);
        }
        let (request, fingerprint) = (call.request.clone(), call.fingerprint);
        let executed = Executed { request, copy: Some(call.copy), fingerprint, outcome, stored };
        self.rounds.gate(at, to, ToGateway::Executed(executed));
    }

    /// Tries waiting calls again whose reads were written. Each try either ends a call or leaves
    /// it waiting, and only a proposed command touches others: so this ends.
    fn retry_touched(&mut self, turn: &mut Turn<'_>) {
        while self.has_room(turn)
            && let Some(pending) = self.calls.take_touched()
        {
            self.execute(pending, 0, turn);
        }
    }

    /// There may be room again: first those who waited longest.
    pub(super) fn take_queued(&mut self, turn: &mut Turn<'_>) {
        self.retry_touched(turn);
        while self.has_room(turn)
            && let Some(pending) = self.calls.take_queued(turn.world.now.tick)
        {
            self.execute(pending, 0, turn);
            self.retry_touched(turn);
        }
    }

    /// Those whose patience is over are tried a last time, and get whatever comes of it: what they
    /// read may have been written while there was no room to try.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>) {
        while let Some(pending) = self.calls.take_late(turn.world.now.tick) {
            self.execute(pending, 0, turn);
        }
        self.calls.touch_members(turn.world.now.tick);
        self.take_queued(turn);
    }
}

/// The cluster as a function sees it.
fn cluster<'a>(turn: &Turn<'a>, votes: &'a dyn Fn(NodeId) -> bool) -> Cluster<'a> {
    Cluster { me: turn.config.me, membership: &turn.config.membership, heard: turn.world.heard, votes }
}
