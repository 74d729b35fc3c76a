//! A learner and what it has applied.

use learner::Learner;
use protocol::{Command, CommandBody, CommandId, Message, NodeId, RequestId, Verdict, Vote, membership};

use super::super::cluster::Config;
use super::{LEADERS, NEVER, NOW, Outcome, Place, What, amount, last, membership_after};

/// A learner and what it has applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LearnerRole {
    me: NodeId,
    core: Learner,
    pub(crate) applied: Vec<Command>,
    /// Invariants 2, 8 and 9 hold of what is applied.
    pub(crate) is_sound: bool,
}

impl LearnerRole {
    pub(super) fn new(me: NodeId, config: &Config, applied: Vec<Command>) -> Self {
        let is_sound = is_sound(&applied);
        Self { me, core: Learner::new(learner_config(me, config, &applied), last(&applied)), applied, is_sound }
    }

    pub(super) fn step(&mut self, what: &What, config: &Config, outcome: &mut Outcome) {
        let before = self.clone();
        match what {
            What::Message { from, message: Message::Learner(message) } => {
                self.take(learner::Input::Message { from: *from, message: message.clone() }, outcome);
                self.forget(*from);
            }
            What::Declared { messages, bodies } => {
                for Vote { ballot, command } in bodies {
                    self.take(learner::Input::Proposed { ballot: *ballot, commands: vec![command.clone()] }, outcome);
                }
                for (from, message) in messages {
                    self.take(learner::Input::Message { from: *from, message: message.clone() }, outcome);
                    self.forget(*from);
                }
            }
            // In the reduced search bodies come when they are needed.
            What::Proposed { .. } if config.reduced => return,
            What::Proposed { ballot, commands } => {
                self.take(learner::Input::Proposed { ballot: *ballot, commands: commands.clone() }, outcome);
            }
            What::Restart(commands) => {
                *self = Self::new(self.me, config, commands.clone());
                return;
            }
            What::Message { .. }
            | What::Applied(_)
            | What::StepDown
            | What::Campaign(_)
            | What::Damage
            | What::Durable(_) => {
                panic!("not for a learner: {what:?}")
            }
        }
        if self.applied.len() == before.applied.len() {
            if config.reduced {
                *self = before;
            }
            return;
        }
        let membership = membership_after(config, &self.applied);
        if membership.number() > self.core.membership().number() {
            self.take(learner::Input::Membership(membership), outcome);
        }
        self.is_sound = is_sound(&self.applied);
        outcome.issues.extend(self.applied[before.applied.len()..].iter().map(|command| command.id));
        outcome.tell(Place::Acceptor(self.me), What::Applied(self.applied.clone()));
        if LEADERS.contains(&self.me) {
            outcome.tell(Place::Leader(self.me), What::Applied(self.applied.clone()));
        }
        if config.reduced || self.applied.len() as u64 == config.numbers {
            // There is nothing more to learn: what is left of how it was learnt is of no
            // consequence.
            self.core = Learner::new(learner_config(self.me, config, &self.applied), last(&self.applied));
        }
    }

    fn take(&mut self, input: learner::Input, outcome: &mut Outcome) {
        for effect in self.core.handle(input, NOW) {
            match effect {
                learner::Effect::Apply(commands) => self.applied.extend(commands),
                learner::Effect::Ignored(learner::IgnoreReason::Contradiction { .. }) => outcome.broken = true,
                learner::Effect::Ignored(_) => {}
                learner::Effect::Ask { .. }
                | learner::Effect::Send { .. }
                | learner::Effect::Serve { .. }
                | learner::Effect::Digest { .. }
                | learner::Effect::NoDigest { .. }
                | learner::Effect::Forget { .. }
                | learner::Effect::Reclaim(_)
                | learner::Effect::MakeCheckpoint
                | learner::Effect::ServePiece { .. }
                | learner::Effect::CloseCheckpoint(_)
                | learner::Effect::Stage { .. }
                | learner::Effect::Install
                | learner::Effect::DropStaged => panic!("time stands still and nobody asks: {effect:?}"),
            }
        }
    }

    /// How far peers are would tell apart states that differ in nothing else.
    fn forget(&mut self, peer: NodeId) {
        let effects = self.core.handle(learner::Input::PeerLost(peer), NOW);
        assert_eq!(effects, [], "a lost peer has no effects");
    }
}

/// Invariants 2, 8 and 9: each command follows the one before, was decided on the state
/// after that one, and no call has two.
fn is_sound(applied: &[Command]) -> bool {
    let mut issued = CommandId::NULL;
    let mut stock = 0;
    let mut requests: Vec<RequestId> = Vec::new();
    applied.iter().all(|command| {
        let body = CommandBody::decode(&command.body).expect("a body");
        let follows = command.follows(issued) && command.number() == issued.number.next();
        issued = command.id;
        let is_change = membership::is_changed_by(&body.effects);
        stock += LEADERS
            .iter()
            .find(|node| request_is_of(&body.request, **node) && !is_change)
            .map_or(0, |node| amount(*node));
        let serial = is_change || body.verdict == Verdict::Changed(format!("{{\"stock\":{stock}}}").into());
        let once = !requests.contains(&body.request);
        requests.push(body.request);
        follows && serial && once
    })
}

fn request_is_of(request: &RequestId, node: NodeId) -> bool {
    matches!(request, RequestId::Caller(name) if name.starts_with(&node.to_string()))
}

fn learner_config(me: NodeId, config: &Config, applied: &[Command]) -> learner::Config {
    learner::Config {
        me,
        membership: membership_after(config, applied),
        learn_from: config.learn_from,
        window: config.numbers,
        timing: learner::Timing { patience: NEVER, ask_again: NEVER, ..learner::Timing::default() },
    }
}
