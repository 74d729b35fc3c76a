//! What the acceptor of a node does.

use std::mem;

use protocol::message::{ToLeader, ToLearner};
use protocol::{LearnFrom, Message, NodeId, Space};
use storage::LogRecord;

use super::World;
use crate::node::{Mail, acceptor_config};
use crate::planted::{Planted, rebuild, said, votes_with_gaps};

impl World {
    pub(super) fn acceptor_turn(&mut self, id: NodeId, inputs: Vec<acceptor::core::Input>) {
        use acceptor::core::Effect;
        let inputs = self.with_gaps(id, inputs);
        let space = acceptor::core::Input::Space(self.node(id).space);
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        let mut effects = Vec::new();
        for input in [space].into_iter().chain(inputs) {
            roles.acceptor.handle(input, &mut effects);
        }
        let (mut records, mut sends, mut speaks) = (Vec::new(), Vec::new(), false);
        for effect in effects {
            match effect {
                // Leaves before the barrier: it claims nothing.
                Effect::Proposed { ballot, commands } => {
                    self.put(id, Mail::Learner(learner::Input::Proposed { ballot, commands }));
                }
                Effect::Persist(LogRecord::Forget(number)) => {
                    let Some(roles) = &mut self.node_mut(id).roles else { return };
                    roles.forget = Some(number);
                }
                Effect::Persist(record) => records.push(record),
                Effect::Send { to, message } => sends.push((to, message)),
                Effect::Speaks => speaks = true,
                Effect::Ignored(reason) => self.ignored(id, "acceptor", reason.name()),
            }
        }
        records.extend(self.forgets(id, !records.is_empty()));
        let too_early = self.swarm.planted == Some(Planted::RepliesBeforeSync);
        if !too_early && !self.persist(id, mem::take(&mut records)) {
            return;
        }
        if speaks {
            let node = self.node_mut(id);
            node.damaged = node.log_rotten;
        }
        let mute = self.swarm.planted == Some(Planted::NeverRejoins);
        for (to, message) in sends {
            if !(mute && matches!(message, Message::Leader(ToLeader::Rejoin(_)))) {
                self.send(id, to, said(self.swarm.planted, message));
            }
        }
        self.persist(id, records);
        if speaks {
            self.end_when_done();
        }
    }

    /// Where that mistake is planted: votes at once for what the gap-free rule makes wait, and
    /// leaves the rest to the acceptor.
    fn with_gaps(&mut self, id: NodeId, mut inputs: Vec<acceptor::core::Input>) -> Vec<acceptor::core::Input> {
        if self.swarm.planted != Some(Planted::VotesWithGaps) {
            return inputs;
        }
        inputs.retain(|input| {
            let Some(roles) = &self.node(id).roles else { return false };
            let Some((records, voted)) = votes_with_gaps(&roles.acceptor, input) else { return true };
            if self.persist(id, records) {
                let Some(roles) = &self.node(id).roles else { return false };
                let config = acceptor_config(id, &self.swarm, roles.learner.membership());
                rebuild(self.node_mut(id), config);
                if self.swarm.learn_from == LearnFrom::Voters {
                    for learner in self.present() {
                        self.send(id, learner, Message::Learner(ToLearner::Voted(voted.clone())));
                    }
                }
                self.send(id, voted.ballot.node, Message::Leader(ToLeader::Voted(voted)));
            }
            false
        });
        inputs
    }

    /// Which votes may go is no reason to write: it is written with the next batch, or when room is needed.
    fn forgets(&mut self, id: NodeId, writes: bool) -> Option<LogRecord> {
        let node = self.node_mut(id);
        if !writes && node.space == Space::Ample {
            return None;
        }
        node.roles.as_mut()?.forget.take().map(LogRecord::Forget)
    }
}

#[cfg(test)]
mod tests {
    use acceptor::core::Input;
    use protocol::message::{NextBallot, ToAcceptor};
    use protocol::{Ballot, CommandNumber};
    use storage::{LogStore as _, StateStore as _};

    use super::*;
    use crate::invariants::Invariants;
    use crate::swarm::Swarm;
    use crate::watchers::Watchers;

    /// Catches a world in which votes are forgotten sooner than in the binary: its actor writes that with the next batch,
    /// and at once only where the disk has little room.
    #[test]
    fn votes_are_forgotten_with_the_next_batch() {
        let swarm = Swarm::calm(3);
        let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
        let mut world = World::new(swarm, 1, watchers);
        let one = NodeId(1);
        world.plan(std::time::Duration::from_secs(4), Box::new(World::finish));
        world.run().expect("nothing is broken");
        let forgotten =
            |world: &World| world.node(one).log.load(CommandNumber::NULL).expect("memory does not fail").forgotten;
        let applied = world.node(one).state.applied().number;
        let (before, up_to) = (forgotten(&world), |number: u64| CommandNumber(applied.0 - number));
        assert!(before < up_to(2), "{applied} are applied, and {before} forgotten");
        world.acceptor_turn(one, vec![Input::Forget(up_to(2))]);
        assert_eq!(forgotten(&world), before, "nothing else is to be written");
        let (from, ballot) = (NodeId(2), Ballot::new(1_000, NodeId(2)));
        let message = ToAcceptor::NextBallot(NextBallot { ballot, first: applied.next() });
        world.acceptor_turn(one, vec![Input::Message { from, message }]);
        assert_eq!(forgotten(&world), up_to(2));
        world.node_mut(one).space = Space::Low;
        world.acceptor_turn(one, vec![Input::Forget(up_to(1))]);
        assert_eq!(forgotten(&world), up_to(1));
    }
}
