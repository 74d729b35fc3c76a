//! Where mistakes are planted that concern a whole node ([`Planted`]).

use std::sync::Arc;

use bytes::Bytes;
use functions::ExecutionContext;
use protocol::message::{BeginBallot, ToAcceptor};
use protocol::{Command, CommandBody, Message, NodeId, Outcome, Verdict};

use super::World;
use crate::fact::{Question, Told};
use crate::functions::noted;
use crate::node::Node;
use crate::planted::{Planted, less_comes_in, no_barrier};

impl World {
    /// Whether this mistake is made here.
    pub(super) fn plants(&self, mistake: Planted) -> bool {
        self.swarm.planted == Some(mistake)
    }

    /// Functions that do something else than they should.
    pub(super) fn plant_functions(&mut self) {
        let (no_barrier, less) = (self.plants(Planted::NoBarrier), self.plants(Planted::LetsLessComeIn));
        let genesis = self.swarm.genesis();
        for Node { functions, executions, .. } in self.nodes.values_mut() {
            if no_barrier {
                *functions = no_barrier::registry(functions, &genesis);
            }
            if less {
                *functions = noted(&less_comes_in(), executions);
            }
        }
    }

    /// A leader asks for votes, and its gateway takes them for given.
    pub(super) fn acknowledge_early(&mut self, leader: NodeId, message: &Message) {
        let Message::Acceptor(ToAcceptor::BeginBallot(BeginBallot { commands, .. })) = message else { return };
        if !self.plants(Planted::AcknowledgesEarly) {
            return;
        }
        for (command, body) in commands.iter().filter_map(readable) {
            let Verdict::Changed(_) = &body.verdict else { continue };
            let is_asked = |question: &Question| match question {
                Question::Call(call) => call.request == body.request && call.fingerprint == body.fingerprint,
                Question::Read(_) => false,
            };
            let waiting = self.questions.iter().find(|(_, asked)| asked.via == leader && is_asked(&asked.question));
            let Some((ticket, _)) = waiting else { continue };
            let (ticket, outcome) = (*ticket, body.verdict.outcome(command.number()));
            self.answer(ticket, Told::Outcome { request: body.request, outcome, settled: true });
        }
    }

    /// What a gateway says of a call: usually what became of it.
    pub(super) fn said_of_a_call(&self, outcome: Outcome) -> Outcome {
        if let Outcome::Refused { at, .. } = outcome
            && self.plants(Planted::HidesRefusals)
        {
            return Outcome::Unchanged { at, result: Bytes::from_static(b"{}") };
        }
        outcome
    }

    /// A learner is about to apply these.
    pub(super) fn run_at_learner(&self, id: NodeId, commands: &[Command]) {
        if !self.plants(Planted::RunsAtLearners) {
            return;
        }
        let Node { functions, state, .. } = self.node(id);
        for (_, body) in commands.iter().filter_map(readable) {
            let function = functions.get(&body.function).filter(|_| !body.function.starts_with("cluster."));
            if let Some(function) = function.map(Arc::as_ref) {
                let _ =
                    functions::run(function, ExecutionContext::new(state, body.time, 0), &Bytes::from_static(b"{}"));
            }
        }
    }
}

fn readable(command: &Command) -> Option<(&Command, CommandBody)> {
    Some((command, CommandBody::decode(&command.body).ok()?))
}
