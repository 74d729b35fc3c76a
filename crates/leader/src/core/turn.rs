//! One input being handled, and what the core says because of it.

use protocol::message::{BarrierPassed, Executed, ReadBarrier, Stored, Success, ToAcceptor, ToGateway, ToLearner};
use protocol::{Call, MajoritySets, Message, NodeId, Outcome};

use super::interface::{Config, Effect, IgnoreReason, Note, World};
use super::preparing::Preparing;

/// What an input may look at, and what it wants done.
pub(super) struct Turn<'a> {
    pub(super) config: &'a Config,
    pub(super) world: &'a World<'a>,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    pub(super) fn ask_acceptor(&mut self, to: NodeId, message: ToAcceptor) {
        self.effects.push(Effect::Send { to, message: Message::Acceptor(message) });
    }

    /// Asks those for their promises who have not given them.
    pub(super) fn ask_for_promises(&mut self, preparing: &Preparing) {
        let config = self.config;
        for acceptor in config.membership.majority().nodes().iter().filter(|node| preparing.awaits(**node)) {
            self.ask_acceptor(*acceptor, ToAcceptor::NextBallot(preparing.question()));
        }
    }

    /// The majority sets of the membership in force.
    pub(super) fn acceptors(&self) -> &MajoritySets {
        self.config.membership.majority()
    }

    pub(super) fn tell_other_learners(&mut self, success: &Success) {
        for learner in self.config.membership.learners().filter(|learner| *learner != self.config.me) {
            self.tell_learner(learner, success.clone());
        }
    }

    pub(super) fn tell_learner(&mut self, to: NodeId, success: Success) {
        self.effects.push(Effect::Send { to, message: Message::Learner(ToLearner::Success(success)) });
    }

    pub(super) fn reply(&mut self, to: NodeId, reply: ToGateway) {
        self.effects.push(Effect::Send { to, message: Message::Gateway(reply) });
    }

    pub(super) fn reply_outcome(&mut self, to: NodeId, call: &Call, outcome: Outcome) {
        self.reply_stored(to, call, outcome, Stored::No);
    }

    pub(super) fn reply_stored(&mut self, to: NodeId, call: &Call, outcome: Outcome, stored: Stored) {
        let (request, copy, fingerprint) = (call.request.clone(), Some(call.copy), call.fingerprint);
        self.reply(to, ToGateway::Executed(Executed { request, copy, fingerprint, outcome, stored }));
    }

    pub(super) fn refuse_call(&mut self, to: NodeId, call: &Call) {
        self.reply_outcome(to, call, Outcome::NotLeader);
    }

    pub(super) fn refuse_barrier(&mut self, to: NodeId, barrier: &ReadBarrier) {
        self.reply(to, ToGateway::BarrierPassed(BarrierPassed { id: barrier.id, at: None }));
    }

    pub(super) fn ignore(&mut self, reason: IgnoreReason) {
        self.effects.push(Effect::Ignored(reason));
    }

    pub(super) fn note(&mut self, note: Note) {
        self.effects.push(Effect::Note(note));
    }
}
