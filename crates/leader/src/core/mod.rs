//! The leader as a pure state machine.
//!
//! ```text
//!            Campaign                 promises of a majority set, all that
//!   Idle ---------------> Preparing   they know issued is learnt and applied
//!    ^                     |     |  ------------------------------------> Leading
//!    |  MyNextBal, timeout |     +-- MyNextBal: a higher ballot (step 3)     |
//!    +---------------------+                                                |
//!    +----------------------------------------------------------------------+
//!        MyNextBal (superseded), StepDown (no majority set), HandOver, a foreign command
//! ```
//!
//! A command that changes the membership is a barrier (ADR 0025): it is the last one of its ballot. When it is issued and
//! applied here, the leader prepares another ballot of its own under the new membership, and keeps its calls; one that may
//! not lead any more steps down. So the membership of a ballot that is led never changes. It is that of M(p) when the lead
//! begins; later M(p) may be ahead of what this leader has heard.
//!
//! Phases own their data; [`Leader::handle`] takes one input and appends effects. `Persist` is
//! a barrier: nothing after it leaves before what it wrote is durable. `last_tried` is the only
//! thing a leader persists (B1, A7); its commands are made durable by the acceptors that vote
//! for them.
//!
//! Caveats. Safety depends neither on clocks nor on there being one leader: any number of nodes
//! may lead at a time, each in its own ballot. Time only repeats what may have been lost.

mod backlog;
mod calls;
mod handing_over;
mod history;
mod interface;
mod kept;
mod leader_state;
mod leading;
mod pipeline;
mod preparing;
mod rounds;
mod seen;
#[cfg(test)]
mod tests;
mod turn;
mod unapplied;

use std::sync::Arc;

use protocol::message::{BallotInfo, MyNextBal, Rejoin, ToAcceptor, ToLeader, Voted};
use protocol::{Ballot, CommandId, CommandNumber, Membership, NodeId, Vote};
use storage::LogRecord;

pub use history::initial_history;
pub use interface::{Config, Effect, IgnoreReason, Input, Load, Machine, Note, PoolJob, World};
pub use leader_state::{LeaderView, Overlay};

use kept::Calls;
use leading::Leading;
use preparing::{Arrived, Before, Preparing};
use seen::Seen;
use turn::Turn;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Preparing(Box<Preparing>),
    Leading(Box<Leading>),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    config: Arc<Config>,
    /// The number of the last membership that it was told of.
    told: CommandNumber,
    /// The last ballot that this node began: durable before it is sent.
    last_tried: Ballot,
    /// The highest ballot heard of.
    highest: Ballot,
    /// What the learner of this node has issued and applied.
    learned: CommandId,
    /// The last id of a call in this node's leads: the pool may still run one of an earlier lead.
    last_call: u64,
    /// Copies of calls that came.
    seen: Seen,
    phase: Phase,
}

impl Leader {
    /// A leader that leads nothing. `last_tried` is what its log says, `learned` what the learner of its
    /// node has applied.
    #[must_use]
    pub fn new(config: Config, last_tried: Ballot, learned: CommandId) -> Self {
        let highest = last_tried.max(learned.ballot);
        Self {
            told: config.membership.number(),
            config: Arc::new(config),
            last_tried,
            highest,
            learned,
            last_call: 0,
            seen: Seen::default(),
            phase: Phase::Idle,
        }
    }

    /// The ballot that this node leads now.
    #[must_use]
    pub fn leads(&self) -> Option<Ballot> {
        match &self.phase {
            Phase::Leading(leading) => Some(leading.ballot()),
            Phase::Idle | Phase::Preparing(_) => None,
        }
    }

    /// How many commands are proposed and not issued, and how many calls and replies are kept.
    #[must_use]
    pub fn load(&self) -> Load {
        match &self.phase {
            Phase::Leading(leading) => leading.load(),
            Phase::Preparing(preparing) => Load { waits: preparing.leads_on, ..Load::default() },
            Phase::Idle => Load::default(),
        }
    }

    /// Takes one input; appends what is to be done, in order.
    pub fn handle(&mut self, input: Input, world: &World<'_>, effects: &mut Vec<Effect>) {
        let config = Arc::clone(&self.config);
        let mut turn = Turn { config: &config, world, effects };
        match input {
            Input::Message { from, message } => self.on_message(from, message, &mut turn),
            Input::Campaign { above } => self.on_campaign(above, &mut turn),
            Input::StepDown(reason) => self.become_idle(reason, None, &mut turn),
            Input::HandOver { or_else } => self.on_hand_over(or_else, &mut turn),
            Input::Learned(issued) => self.on_learned(issued, &mut turn),
            Input::PoolDone { job, execution } => match &mut self.phase {
                Phase::Leading(leading) => leading.on_pool_done(job, *execution, &mut turn),
                Phase::Idle | Phase::Preparing(_) => turn.ignore(IgnoreReason::LateExecution),
            },
            Input::Connected(node) => match &mut self.phase {
                Phase::Leading(leading) => leading.on_connected(node, &mut turn),
                Phase::Preparing(preparing) if config.membership.is_acceptor(node) && preparing.awaits(node) => {
                    turn.ask_acceptor(node, ToAcceptor::NextBallot(preparing.question()));
                }
                Phase::Idle | Phase::Preparing(_) => {}
            },
            Input::Tick => self.on_tick(&mut turn),
            Input::EndOfTurn => {
                if let Phase::Leading(leading) = &mut self.phase {
                    leading.on_end_of_turn(&mut turn);
                }
            }
        }
    }

    fn on_message(&mut self, from: NodeId, message: ToLeader, turn: &mut Turn<'_>) {
        match message {
            ToLeader::BallotInfo(info) => self.on_ballot_info(from, info, turn),
            ToLeader::MyNextBal(next) => self.on_my_next_bal(from, &next, turn),
            ToLeader::Voted(voted) => self.on_voted(from, &voted, turn),
            ToLeader::Rejoin(rejoin) => self.on_rejoin(from, &rejoin, turn),
            ToLeader::ExecuteFunction(call) if self.seen.is_doubled(&call) => turn.ignore(IgnoreReason::Doubled),
            ToLeader::ExecuteFunction(call) => match &mut self.phase {
                Phase::Leading(leading) => leading.on_call(from, call, turn),
                Phase::Preparing(preparing) if preparing.kept() < turn.config.kept_calls => {
                    preparing.arrived.push(Arrived::Call(from, call, turn.world.entropy));
                }
                Phase::Idle | Phase::Preparing(_) => turn.refuse_call(from, &call),
            },
            ToLeader::ReadBarrier(barrier) => match &mut self.phase {
                Phase::Leading(leading) => leading.on_barrier(from, &barrier, turn),
                Phase::Preparing(preparing) if preparing.kept() < turn.config.kept_calls => {
                    preparing.arrived.push(Arrived::Barrier(from, barrier));
                }
                Phase::Idle | Phase::Preparing(_) => turn.refuse_barrier(from, &barrier),
            },
        }
    }

    /// Step 1: a ballot of this node's own, above all that it has heard of. `last_tried` first.
    fn on_campaign(&mut self, above: Ballot, turn: &mut Turn<'_>) {
        if matches!(self.phase, Phase::Leading(_)) || !turn.config.membership.may_lead(turn.config.me) {
            return turn.ignore(IgnoreReason::NothingToDo);
        }
        if turn.world.barred {
            return turn.ignore(IgnoreReason::Barred);
        }
        let before = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Preparing(preparing) => preparing.give_up(),
            Phase::Idle | Phase::Leading(_) => {
                Before { arrived: Vec::new(), calls: Calls::after(self.last_call), leads_on: false }
            }
        };
        self.prepare(above, before, turn);
    }

    /// Step 1, with what earlier attempts have kept.
    fn prepare(&mut self, above: Ballot, before: Before, turn: &mut Turn<'_>) {
        let above = self.highest.max(self.last_tried).max(above);
        let Some(ballot) = above.next_of(turn.config.me) else {
            self.end_before(before, turn);
            return turn.ignore(IgnoreReason::NothingToDo);
        };
        assert!(ballot > self.last_tried && ballot.node == turn.config.me, "B1: a ballot of one's own, never twice");
        (self.last_tried, self.highest) = (ballot, ballot);
        turn.effects.push(Effect::Persist(LogRecord::LastTried(ballot)));
        let now = turn.world.now.tick;
        let first = self.learned.number.next();
        let preparing = Preparing::new(ballot, first, now, now + turn.config.resend, before);
        turn.ask_for_promises(&preparing);
        turn.note(Note::Campaigns(ballot));
        self.phase = Phase::Preparing(Box::new(preparing));
    }

    /// Step 3, collecting.
    fn on_ballot_info(&mut self, from: NodeId, info: BallotInfo, turn: &mut Turn<'_>) {
        if !turn.config.membership.is_acceptor(from) {
            return turn.ignore(IgnoreReason::NotAnAcceptor);
        }
        let preparing = match &mut self.phase {
            Phase::Preparing(preparing) => preparing,
            Phase::Leading(leading) if leading.ballot() == info.ballot => return leading.on_late_promise(from, turn),
            Phase::Idle | Phase::Leading(_) => return turn.ignore(IgnoreReason::OtherBallot),
        };
        if info.ballot != preparing.ballot || info.first != preparing.first {
            return turn.ignore(IgnoreReason::OtherBallot);
        }
        let is_plausible = |vote: &Vote| {
            let (voted, first) = (vote.ballot, vote.command.id.ballot);
            vote.command.is_well_formed() && first <= voted && voted < info.ballot
        };
        if info.part >= info.parts || !info.votes.iter().all(is_plausible) {
            return turn.ignore(IgnoreReason::Malformed);
        }
        preparing.promised(from, info);
        self.lead_when_ready(turn);
    }

    /// Leads as soon as a majority set has promised and all that it knows to be issued is
    /// learnt and applied here (S-07): only then does M(p) underlie LS(p).
    fn lead_when_ready(&mut self, turn: &mut Turn<'_>) {
        let Phase::Preparing(preparing) = &self.phase else { return };
        if self.learned.ballot > preparing.ballot {
            // A higher ballot has issued commands, so a majority set has promised it by now.
            return self.become_idle("a higher ballot has issued commands", Some(self.learned.ballot), turn);
        }
        match turn.config.membership.later_in(turn.world.machine) {
            // While it led, it left alone what M(p) said before it heard of it.
            Ok(Some(later)) => return self.change_membership(later, turn),
            Ok(None) => {}
            Err(error) => return turn.effects.push(Effect::Failed(error)),
        }
        if self.learned.number < turn.config.membership.number() {
            // Below the change other acceptors decide.
            return self.go_by_the_state(turn);
        }
        let Some((issued, peer)) = preparing.majority(turn.acceptors()) else { return };
        if issued.number > self.learned.number {
            turn.effects.push(Effect::LearnFromPeer { peer, issued: issued.number });
            return;
        }
        let Phase::Preparing(preparing) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        match Leading::new(&preparing, self.learned, turn) {
            Ok(leading) if self.told > self.learned.number && leading.barrier.is_none() => {
                self.phase = Phase::Preparing(preparing);
                self.become_idle("a change that this node was told of is in no promise", None, turn);
            }
            Ok(leading) => {
                let mut leading = Box::new(leading);
                turn.effects.push(Effect::Leads(Some(preparing.ballot)));
                leading.begin(preparing.give_up(), turn);
                self.phase = Phase::Leading(leading);
            }
            Err(reason) => {
                self.phase = Phase::Preparing(preparing);
                self.become_idle(reason, None, turn);
            }
        }
    }

    /// This node was told of a change that is not learned here: M(p) is ahead, or it joined after the change. Then perhaps
    /// nobody is left who knows it issued, so it leads under what its state has, as who was not told does (ADR 0025).
    fn go_by_the_state(&mut self, turn: &mut Turn<'_>) {
        match Membership::stored_from(CommandNumber::NULL, turn.world.machine) {
            Ok(Some(stored)) if stored.number() <= self.learned.number && stored.may_lead(turn.config.me) => {
                self.change_membership(stored, turn);
            }
            Ok(_) => {}
            Err(error) => turn.effects.push(Effect::Failed(error)),
        }
    }

    /// Somebody promised a higher ballot to another node. It need not be an acceptor now, as with [`Self::on_rejoin`]: a
    /// damaged node has its word back in a ballot that is not below its promise, and in no other.
    fn on_my_next_bal(&mut self, from: NodeId, next: &MyNextBal, turn: &mut Turn<'_>) {
        if turn.config.membership.node(from).is_none() {
            return turn.ignore(IgnoreReason::NotAnAcceptor);
        }
        self.highest = self.highest.max(next.ballot);
        let current = match &self.phase {
            Phase::Idle => return turn.ignore(IgnoreReason::OtherBallot),
            Phase::Preparing(preparing) => preparing.ballot,
            Phase::Leading(leading) => leading.ballot(),
        };
        if next.ballot <= current {
            return turn.ignore(IgnoreReason::OtherBallot);
        }
        // The patent tries again at once with a higher ballot. Whether this node should is for
        // the failure detector to say, lest two nodes outbid each other for ever.
        self.become_idle("superseded by a higher ballot", Some(next.ballot), turn);
    }

    fn on_voted(&mut self, from: NodeId, voted: &Voted, turn: &mut Turn<'_>) {
        if !turn.config.membership.is_acceptor(from) {
            return turn.ignore(IgnoreReason::NotAnAcceptor);
        }
        match &mut self.phase {
            // Only votes of the ballot led now count (S-01).
            Phase::Leading(leading) if leading.ballot() == voted.ballot => leading.on_voted(from, voted, turn),
            Phase::Idle | Phase::Preparing(_) | Phase::Leading(_) => turn.ignore(IgnoreReason::OtherBallot),
        }
    }

    /// An acceptor may have lost votes, and asks how far it must learn. It need not be one of the membership in force:
    /// one that was before, and may be again, should have its word back by then.
    fn on_rejoin(&mut self, from: NodeId, rejoin: &Rejoin, turn: &mut Turn<'_>) {
        if turn.config.membership.node(from).is_none() {
            return turn.ignore(IgnoreReason::NotAnAcceptor);
        }
        match &self.phase {
            Phase::Leading(leading) if leading.ballot() == rejoin.ballot => leading.on_rejoin(from, rejoin.nonce, turn),
            Phase::Idle | Phase::Preparing(_) | Phase::Leading(_) => turn.ignore(IgnoreReason::OtherBallot),
        }
    }

    fn on_learned(&mut self, issued: CommandId, turn: &mut Turn<'_>) {
        assert!(
            issued.number != self.learned.number || issued == self.learned,
            "invariant 1: two commands issued at one number, {} and {issued}",
            self.learned
        );
        if issued.number <= self.learned.number {
            return;
        }
        self.learned = issued;
        self.highest = self.highest.max(issued.ballot);
        if let Phase::Leading(leading) = &mut self.phase
            && !leading.on_learned(issued, turn)
        {
            // Unless that leader has taken up what an earlier one proposed.
            let higher = self.leads().is_some_and(|ballot| issued.ballot > ballot).then_some(issued.ballot);
            self.become_idle("another leader's command was issued", higher, turn);
        }
        match turn.config.membership.later_in(turn.world.machine) {
            Ok(Some(later)) if self.leads().is_none() || later.number() <= issued.number => {
                self.change_membership(later, turn);
            }
            Ok(Some(_)) => {}
            Ok(None) => self.lead_when_ready(turn),
            Err(error) => turn.effects.push(Effect::Failed(error)),
        }
    }

    /// Another membership is in force in M(p), which may be ahead of what this leader has heard.
    fn change_membership(&mut self, later: Arc<Membership>, turn: &mut Turn<'_>) {
        const REASON: &str = "it may not lead under the new membership";
        // Still under the one before: whoever was told of every command hears of this one too.
        let led = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Leading(leading) => {
                assert_eq!(leading.barrier, Some(later.number()), "ADR 0025: a lead ends with its own change");
                Some((leading.ballot(), leading.change(turn)))
            }
            phase @ (Phase::Idle | Phase::Preparing(_)) => {
                self.phase = phase;
                None
            }
        };
        let (number, nodes, acceptors) = (later.number(), later.nodes().len(), later.majority().nodes().len());
        turn.note(Note::Membership { number, nodes, acceptors });
        self.told = self.told.max(number);
        Arc::make_mut(&mut self.config).membership = later;
        let config = Arc::clone(&self.config);
        let turn = &mut Turn { config: &config, world: turn.world, effects: turn.effects };
        let may_lead = config.membership.may_lead(config.me);
        match (led, &mut self.phase) {
            (Some((_, before)), _) if may_lead => self.prepare(Ballot::NONE, before, turn),
            (Some((ballot, before)), _) => {
                self.end_before(before, turn);
                turn.note(Note::StepsDown { ballot, reason: REASON, superseded_by: None, unissued: 0 });
            }
            (None, Phase::Preparing(preparing)) if may_lead => {
                preparing.retain(config.membership.majority());
                turn.ask_for_promises(preparing);
                self.lead_when_ready(turn);
            }
            (None, Phase::Preparing(_)) => self.become_idle(REASON, None, turn),
            (None, Phase::Idle | Phase::Leading(_)) => {}
        }
    }

    fn on_tick(&mut self, turn: &mut Turn<'_>) {
        let now = turn.world.now.tick;
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Preparing(preparing) => {
                if now.since(preparing.since) >= turn.config.prepare_timeout {
                    return self.become_idle("no majority set promised in time", None, turn);
                }
                if now >= preparing.resend_at {
                    preparing.resend_at = now + turn.config.resend;
                    turn.ask_for_promises(preparing);
                }
                self.lead_when_ready(turn);
            }
            Phase::Leading(leading) => leading.on_tick(turn),
        }
        self.pursue_hand_over(turn);
    }

    /// The leader state is dropped; nobody is answered as if this node led (S-21, S-22).
    fn become_idle(&mut self, reason: &'static str, superseded_by: Option<Ballot>, turn: &mut Turn<'_>) {
        let (ballot, unissued, successor) = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => return turn.ignore(IgnoreReason::NothingToDo),
            Phase::Preparing(preparing) => {
                let ballot = preparing.ballot;
                self.end_before(preparing.give_up(), turn);
                (ballot, 0, None)
            }
            Phase::Leading(leading) => {
                let (ballot, unissued) = (leading.ballot(), leading.load().unissued);
                let successor = leading.handing_over.as_ref().map(|over| over.to);
                self.last_call = leading.end(turn);
                turn.effects.push(Effect::Leads(None));
                (ballot, unissued, successor)
            }
        };
        if let Some(to) = successor.filter(|to| superseded_by.is_some_and(|higher| higher.node == *to)) {
            return turn.note(Note::HandedOver { ballot, to });
        }
        turn.note(Note::StepsDown { ballot, reason, superseded_by, unissued });
    }

    /// Nobody waits here any more.
    fn end_before(&mut self, before: Before, turn: &mut Turn<'_>) {
        for arrived in before.arrived {
            match arrived {
                Arrived::Call(from, call, _) => turn.refuse_call(from, &call),
                Arrived::Barrier(from, barrier) => turn.refuse_barrier(from, &barrier),
            }
        }
        self.last_call = before.calls.end(turn);
        if before.leads_on {
            turn.effects.push(Effect::Leads(None));
        }
    }
}
