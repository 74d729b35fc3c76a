//! The steps of the reduced search (see `prune`).

use protocol::message::ToLeader;
use protocol::{Ballot, Message, NodeId};

use super::cluster::{Cluster, State};
use super::prune;
use super::roles::{Input, LEADERS, Place, What};
use super::space::InputId;

impl Cluster {
    /// In the reduced search a declaration arrives together with the bodies that its learner has from its acceptor.
    pub(crate) fn declare(&self, state: &mut State, messages: &[InputId]) {
        let declared = {
            let tables = self.space.look();
            let to = tables.input(messages[0]).to;
            let bodies = tables.acceptor(state, to.node()).core.votes().cloned().collect();
            let messages = messages.iter().map(|id| match tables.input(*id).message() {
                Some((from, Message::Learner(message))) => (from, message.clone()),
                _ => panic!("only learners are told what is issued"),
            });
            Input { to, what: What::Declared { messages: messages.collect(), bodies } }
        };
        self.take(state, declared);
    }

    /// A leader begins a ballot. False when it has heard of a higher one already.
    pub(crate) fn campaign(&self, state: &mut State, node: NodeId, round: u64) -> bool {
        self.take(state, Input { to: Place::Leader(node), what: What::Campaign(round) });
        self.space.look().leader(state, node).last_tried == Ballot::new(round, node)
    }

    /// Delivers a `NextBallot`; its answer is heard at once or never.
    pub(crate) fn ask(&self, state: &mut State, question: InputId, heard: bool) {
        let acceptor = self.space.look().input(question).to.node();
        self.take_id(state, question);
        let is_answer = |id: &InputId| {
            let tables = self.space.look();
            matches!(
                tables.input(*id).message(),
                Some((from, Message::Leader(ToLeader::BallotInfo(_)))) if from == acceptor
            )
        };
        let answers: Vec<InputId> = state.net.iter().copied().filter(is_answer).collect();
        state.net.retain(|id| !answers.contains(id));
        if heard {
            answers.into_iter().for_each(|id| self.take_id(state, id));
        }
    }

    /// The `NextBallot` that is on its way to an acceptor.
    pub(crate) fn question(&self, state: &State, ballot: Ballot, to: NodeId) -> Option<InputId> {
        let tables = self.space.look();
        let asks = |id: &&InputId| tables.input(**id).to.node() == to && prune::question(&tables, **id) == Some(ballot);
        state.net.iter().find(asks).copied()
    }

    /// In the reduced search: what is best done at once.
    pub(crate) fn settle(&self, state: &mut State) {
        loop {
            let next = {
                let tables = self.space.look();
                let eager = state.net.iter().find(|id| prune::is_eager(&tables, state, **id)).copied();
                let idle = LEADERS.iter().find(|node| prune::is_hopeless(&tables, state, &self.config, **node));
                match (eager, idle) {
                    (Some(id), _) => Ok(id),
                    (None, Some(node)) => Err(*node),
                    (None, None) => return,
                }
            };
            match next {
                Ok(id) => {
                    state.net.retain(|other| *other != id);
                    self.take_id(state, id);
                }
                Err(node) => self.take(state, Input { to: Place::Leader(node), what: What::StepDown }),
            }
            if state.fault.is_some() {
                return;
            }
        }
    }
}
