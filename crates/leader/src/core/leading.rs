//! A ballot that is led: proposing, counting votes, issuing, answering.

use protocol::message::{
    BarrierPassed, BeginBallot, Executed, NextBallot, ReadBarrier, Rejoined, Stored, Success, ToAcceptor, ToGateway,
    Voted,
};
use protocol::{
    Ballot, Call, Command, CommandBody, CommandId, CommandNumber, LearnFrom, NodeId, Outcome, StoredOutcome, membership,
};

use super::handing_over::HandingOver;
use super::interface::{Effect, IgnoreReason, Load, Note};
use super::kept::Calls;
use super::leader_state::LeaderState;
use super::pipeline::{Pacing, Pipeline, Proposed, Waiter};
use super::preparing::{Arrived, Before, Preparing};
use super::rounds::Rounds;
use super::unapplied::Unapplied;
use super::{Turn, history};

/// Replies that the gate holds, at most. One round holds what arrives in a round trip and a sync;
/// more than this means that no majority set answers, and then a reply soon is worth more.
pub(super) const HELD_REPLIES_MAX: usize = 65_536;

/// The data of the phase. The methods about calls are in `calls`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leading {
    pub(super) ballot: Ballot,
    pub(super) pipeline: Pipeline,
    pub(super) state: LeaderState,
    pub(super) rounds: Rounds,
    pub(super) calls: Calls,
    /// The end of the initial history: what earlier leaders may have acknowledged.
    history_end: CommandNumber,
    /// Commands issued in this turn, to be announced at its end.
    announce: Vec<Command>,
    pub(super) unapplied: Unapplied,
    /// A command that changes the membership is proposed in this ballot, and nothing may be after it (ADR 0025).
    pub(super) barrier: Option<CommandNumber>,
    pub(super) handing_over: Option<HandingOver>,
}

impl Leading {
    /// Step 3: LS(p) is M(p) with the initial history executed on it, and the history is what
    /// is proposed first (step 3').
    ///
    /// # Errors
    /// A command of the history that this version cannot read: this node must not lead.
    pub(super) fn new(preparing: &Preparing, learned: CommandId, turn: &mut Turn<'_>) -> Result<Self, &'static str> {
        let history = history::initial_history(learned, preparing.votes());
        let time = turn.world.machine.last_time().map_err(|error| {
            turn.effects.push(Effect::Failed(error));
            "the state cannot be read"
        })?;
        let pacing =
            Pacing { window: turn.config.window, run_bytes: turn.config.run_bytes, resend: turn.config.resend };
        let mut leading = Self {
            ballot: preparing.ballot,
            pipeline: Pipeline::new(pacing, learned, turn.acceptors(), turn.world.now.tick),
            state: LeaderState::new(time),
            rounds: Rounds::default(),
            calls: Calls::default(),
            history_end: learned.number,
            announce: Vec::new(),
            unapplied: Unapplied::default(),
            barrier: None,
            handing_over: None,
        };
        for acceptor in preparing.promisers() {
            leading.pipeline.heard(acceptor, turn.world.now.tick);
        }
        for command in history {
            let body = CommandBody::decode(&command.body).map_err(|_| "a command voted for earlier is not readable")?;
            leading.history_end = command.number();
            leading.lay(command, &body, Vec::new(), turn);
            // What follows is for a ballot under the membership that this command makes.
            if leading.barrier.is_some() {
                break;
            }
        }
        Ok(leading)
    }

    /// Executes a command on LS(p) and puts it into the pipeline.
    pub(super) fn lay(&mut self, command: Command, body: &CommandBody, waiters: Vec<Waiter>, turn: &Turn<'_>) {
        let outcome = StoredOutcome {
            command: command.number(),
            fingerprint: body.fingerprint,
            verdict: body.verdict.clone(),
            time: body.time,
        };
        self.state.execute(&body.request, outcome, &body.effects);
        let CommandBody { request, fingerprint, verdict, .. } = body.clone();
        let since = turn.world.now.tick;
        assert!(self.barrier.is_none(), "ADR 0025: a command proposed after a change of membership in one ballot");
        if membership::is_changed_by(&body.effects) {
            self.barrier = Some(command.number());
            self.calls.queue_all();
        }
        self.pipeline.push(Proposed { command, request, fingerprint, verdict, waiters, since });
    }

    /// First acts: tell learners what is issued, take up what arrived meanwhile.
    pub(super) fn begin(&mut self, before: Before, turn: &mut Turn<'_>) {
        let issued = self.pipeline.issued();
        turn.note(Note::Leads { ballot: self.ballot, history: self.pipeline.len(), issued: issued.number });
        if turn.config.learn_from == LearnFrom::Leader {
            turn.tell_other_learners(&Success { ballot: self.ballot, issued, commands: Vec::new() });
        }
        self.take_again(before.calls, turn);
        for arrived in before.arrived {
            match arrived {
                Arrived::Call(from, call, entropy) => self.take_call(from, call, entropy, turn),
                Arrived::Barrier(from, barrier) => self.on_barrier(from, &barrier, turn),
            }
        }
        self.on_end_of_turn(turn);
    }

    pub(super) fn ballot(&self) -> Ballot {
        self.ballot
    }

    pub(super) fn load(&self) -> Load {
        Load {
            waits: self.pipeline.len() > 0,
            unissued: self.pipeline.len(),
            oldest_unissued: self.pipeline.oldest(),
            kept_calls: self.calls.len(),
            held_replies: self.rounds.held(),
        }
    }

    pub(super) fn on_call(&mut self, from: NodeId, call: Call, turn: &mut Turn<'_>) {
        self.take_call(from, call, turn.world.entropy, turn);
    }

    /// A linearizable read has arrived somewhere: it must show all that anyone was told.
    pub(super) fn on_barrier(&mut self, from: NodeId, barrier: &ReadBarrier, turn: &mut Turn<'_>) {
        if self.rounds.held() >= HELD_REPLIES_MAX {
            return turn.refuse_barrier(from, barrier);
        }
        let at = match turn.config.learn_from {
            // Nobody was told more than this leader issued, or an earlier one, whose commands
            // are in the initial history.
            LearnFrom::Leader => self.pipeline.issued().number.max(self.history_end),
            // A learner may have issued anything that was proposed, and shown it to a reader.
            LearnFrom::Voters => self.pipeline.last().number,
        };
        let reply = ToGateway::BarrierPassed(BarrierPassed { id: barrier.id, at: Some(at) });
        self.rounds.gate(at, from, reply);
    }

    /// Step 5.
    pub(super) fn on_voted(&mut self, from: NodeId, voted: &Voted, turn: &mut Turn<'_>) {
        if !self.rounds.returned(from, voted.round, turn.acceptors()) {
            return turn.ignore(IgnoreReason::Malformed);
        }
        self.pipeline.heard(from, turn.world.now.tick);
        if let Some(run) = voted.run {
            match self.pipeline.voted(from, run, turn.world.now.tick) {
                None => turn.ignore(IgnoreReason::UnknownCommand),
                Some(true) => {
                    let issued = self.pipeline.issue(turn.acceptors());
                    self.answer_issued(issued, turn);
                }
                Some(false) => {}
            }
        }
        self.open_gate(turn);
    }

    /// The learner of this node has issued and applied all up to `issued`. False when that is
    /// not what this leader proposed: another leader was at work, this one is superseded.
    pub(super) fn on_learned(&mut self, issued: CommandId, turn: &mut Turn<'_>) -> bool {
        let ours = self.pipeline.get_mut(issued.number).map(|proposed| proposed.command.id);
        if ours.is_some_and(|ours| ours != issued) || issued.number > self.pipeline.last().number {
            return false;
        }
        let newly = self.pipeline.issue_up_to(issued.number);
        self.answer_issued(newly, turn);
        self.state.applied(issued.number);
        self.unapplied.applied(issued.number, turn.world.now.tick + turn.config.resend);
        self.open_gate(turn);
        self.take_queued(turn);
        true
    }

    fn answer_issued(&mut self, issued: Vec<Proposed>, turn: &mut Turn<'_>) {
        if issued.is_empty() {
            return;
        }
        for Proposed { command, request, fingerprint, verdict, waiters, .. } in issued {
            let outcome = verdict.outcome(command.number());
            for Waiter { gateway, copy, repeated } in waiters {
                let stored = if repeated { Stored::Before } else { Stored::Now };
                let (request, copy, outcome) = (request.clone(), Some(copy), outcome.clone());
                turn.reply(gateway, ToGateway::Executed(Executed { request, copy, fingerprint, outcome, stored }));
            }
            self.unapplied.push(command.clone(), turn.world.now.tick + turn.config.resend);
            self.announce.push(command);
        }
        self.take_queued(turn);
    }

    /// Once a change of membership may be issued, this ballot's acceptors cannot say any more whether somebody else
    /// leads: what shows it is held for the next ballot.
    pub(super) fn open_gate(&mut self, turn: &mut Turn<'_>) {
        let before_barrier = self.barrier.and_then(CommandNumber::previous);
        let issued = self.pipeline.issued().number;
        for gated in self.rounds.open(before_barrier.map_or(issued, |before| before.min(issued))) {
            turn.reply(gated.gateway, gated.reply);
        }
    }

    pub(super) fn on_connected(&mut self, node: NodeId, turn: &mut Turn<'_>) {
        self.pipeline.reconnected(node, turn.world.now.tick);
        self.repeat(turn);
    }

    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_>) {
        self.expire(turn);
        self.repeat(turn);
        self.remind_learner(turn);
        self.on_end_of_turn(turn);
    }

    /// Tells the learner of this node again what it does not apply.
    fn remind_learner(&mut self, turn: &mut Turn<'_>) {
        let commands = self.unapplied.reminder(turn.world.now.tick, turn.config.resend, turn.config.window);
        if let Some(issued) = commands.last().map(|last| last.id) {
            turn.tell_learner(turn.config.me, Success { ballot: self.ballot, issued, commands });
        }
    }

    /// An acceptor promised after this ballot had its majority set.
    pub(super) fn on_late_promise(&mut self, from: NodeId, turn: &Turn<'_>) {
        self.pipeline.heard(from, turn.world.now.tick);
    }

    /// Whatever the acceptor voted for in this ballot was proposed before it asked, and whatever it voted
    /// for in a lower one and could be issued is in the initial history or issued: the pipeline holds
    /// both, what the window keeps back too, and its last number never goes down. What was voted for under a later
    /// membership is in none of them: so it is told under which this ballot is led (ADR 0026).
    pub(super) fn on_rejoin(&self, from: NodeId, nonce: u64, turn: &mut Turn<'_>) {
        let (ballot, last, membership) = (self.ballot, self.pipeline.last().number, turn.config.membership.number());
        turn.ask_acceptor(from, ToAcceptor::Rejoined(Rejoined { ballot, nonce, last, membership }));
    }

    /// Sends again what acceptors have not answered, oldest first. One that has not promised is
    /// asked for that too: it may have been down, and without its promise it would not vote for
    /// as long as this node leads (A13).
    fn repeat(&mut self, turn: &mut Turn<'_>) {
        let (ballot, round) = (self.ballot, self.rounds.last());
        let first = self.pipeline.issued().number.next();
        let rounds = &self.rounds;
        for (acceptor, commands) in self.pipeline.due(turn.world.now.tick, |node| rounds.is_behind(node)) {
            if !self.pipeline.has_promised(acceptor) {
                turn.ask_acceptor(acceptor, ToAcceptor::NextBallot(NextBallot { ballot, first }));
            }
            let membership = turn.config.membership.number();
            turn.ask_acceptor(acceptor, ToAcceptor::BeginBallot(BeginBallot { ballot, commands, round, membership }));
        }
    }

    /// Steps 3' and 3": begins ballots on what was proposed in this turn, all acceptors alike,
    /// and announces what was issued in it.
    pub(super) fn on_end_of_turn(&mut self, turn: &mut Turn<'_>) {
        self.announce_issued(turn);
        while self.rounds.in_flight() < turn.config.rounds_in_flight
            && (self.pipeline.has_unsent() || self.rounds.wants_round())
        {
            let commands = self.pipeline.take_unsent();
            let round = self.rounds.begin();
            let (ballot, membership) = (self.ballot, turn.config.membership.number());
            for acceptor in turn.config.membership.majority().nodes() {
                let begin = BeginBallot { ballot, commands: commands.clone(), round, membership };
                turn.ask_acceptor(*acceptor, ToAcceptor::BeginBallot(begin));
            }
        }
    }

    /// Success to all learners (claim 2); the one on this node gets the bodies at once, so that
    /// applying does not wait for its acceptor.
    fn announce_issued(&mut self, turn: &mut Turn<'_>) {
        let commands = std::mem::take(&mut self.announce);
        if commands.is_empty() || turn.config.learn_from == LearnFrom::Voters {
            return;
        }
        let issued = self.pipeline.issued();
        turn.tell_other_learners(&Success { ballot: self.ballot, issued, commands: Vec::new() });
        turn.tell_learner(turn.config.me, Success { ballot: self.ballot, issued, commands });
    }

    /// The change of membership that this ballot ends with is issued and applied here. What it still holds goes to the
    /// next ballot: kept calls and questions of readers; a reply that its last round could not let go is asked for
    /// again.
    pub(super) fn change(mut self, turn: &mut Turn<'_>) -> Before {
        assert!(self.pipeline.len() == 0, "ADR 0025: a change of membership is the last command of its ballot");
        self.announce_issued(turn);
        let mut arrived = Vec::new();
        for gated in self.rounds.drain() {
            match gated.reply {
                ToGateway::BarrierPassed(passed) => {
                    arrived.push(Arrived::Barrier(gated.gateway, ReadBarrier { id: passed.id }));
                }
                ToGateway::Executed(executed) => {
                    let executed = Executed { outcome: Outcome::NotLeader, ..executed };
                    turn.reply(gated.gateway, ToGateway::Executed(executed));
                }
            }
        }
        Before { arrived, calls: self.calls, leads_on: true }
    }

    /// The lead is over: whoever waits for a proposed command hears that only a later leader
    /// knows, everybody else that this node does not lead. What is issued stays issued, and is
    /// announced. Returns the last id of a call.
    pub(super) fn end(mut self, turn: &mut Turn<'_>) -> u64 {
        self.announce_issued(turn);
        self.end_hand_over(turn);
        for Proposed { request, fingerprint, waiters, .. } in self.pipeline.drain() {
            for waiter in waiters {
                let (request, copy, outcome) = (request.clone(), Some(waiter.copy), Outcome::LeadershipLost);
                let executed = Executed { request, copy, fingerprint, outcome, stored: Stored::No };
                turn.reply(waiter.gateway, ToGateway::Executed(executed));
            }
        }
        for gated in self.rounds.drain() {
            let reply = match gated.reply {
                ToGateway::Executed(executed) => {
                    ToGateway::Executed(Executed { outcome: Outcome::NotLeader, ..executed })
                }
                ToGateway::BarrierPassed(passed) => ToGateway::BarrierPassed(BarrierPassed { id: passed.id, at: None }),
            };
            turn.reply(gated.gateway, reply);
        }
        self.calls.end(turn)
    }
}
