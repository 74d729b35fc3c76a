//! Clients and gateways: questions on their way, reads that wait, answers on their way back.

use std::time::Duration;

use http_api::core::{Answer, Input, must_reach};
use protocol::{NodeId, Outcome, StateError};
use storage::{StateStore as _, StorageError};

use super::{Asked, World};
use crate::client::Act;
use crate::fact::{Consistency, Fact, Question, Stop, Told};
use crate::node::Reader;
use crate::planted::Planted;
use crate::schedule::Event;

/// Between a client and a gateway, one way, at most.
const WAY: Duration = Duration::from_millis(2);
/// How long a gateway needs for its answer, as in the binary: the least that it waits.
const WAIT_MIN: Duration = Duration::from_millis(250);

impl World {
    /// Comes back when the clients do something next.
    pub(super) fn await_clients(&mut self) {
        let Some(due) = self.clients.due() else { return };
        if self.clients_due.is_none_or(|scheduled| due < scheduled) {
            self.clients_due = Some(due);
            self.schedule.at(due, Event::Clients);
        }
    }

    /// The clients do what is due.
    pub(super) fn clients_act(&mut self) {
        self.clients_due = None;
        while let Some(act) = self.clients.next(self.schedule.now()) {
            match act {
                Act::Ask(asking) => {
                    let (client, ticket, via) = (asking.client, asking.ticket, asking.via);
                    self.tell(&Fact::Asked { client, ticket, via, question: asking.question.clone() });
                    let asked = Asked { client, via, question: asking.question, wait: asking.wait.max(WAIT_MIN) };
                    self.questions.insert(ticket, asked);
                    self.travel(Event::Question { ticket });
                }
                Act::GoAway { client, ticket, via, early } => {
                    self.questions.remove(&ticket);
                    self.tell(&Fact::Told { client, ticket, answer: Told::Left { early } });
                    if let Some(roles) = &mut self.node_mut(via).roles {
                        roles.reads.remove(&ticket);
                        self.gateway(via, Input::Abandon { ticket });
                    }
                }
            }
        }
        self.await_clients();
    }

    /// Something is on its way between a client and a gateway.
    fn travel(&mut self, event: Event) {
        let way = crate::network::some_of(WAY, &mut self.chance);
        self.schedule.after(way, event);
    }

    pub(super) fn reply(&mut self, ticket: u64, answer: Told) {
        self.travel(Event::Answer { ticket, answer });
    }

    /// A question has come to its gateway.
    pub(super) fn question(&mut self, ticket: u64) {
        let Some(Asked { via, question, wait, .. }) = self.questions.get(&ticket) else { return };
        let (via, question, wait) = (*via, question.clone(), *wait);
        let node = self.node(via);
        if !node.is_up() {
            if node.powered {
                // A refused connection says nothing of what was asked under the same key before.
                self.reply(ticket, Told::Unknown);
            }
            return;
        }
        let deadline = self.clock(via).tick + wait;
        match question {
            Question::Call(call) => {
                let applied = self.node(via).state.applied().number;
                self.gateway(via, Input::Submit { ticket, call, deadline, applied });
            }
            Question::Read(read) => {
                let asks = read.consistency == Consistency::Linearizable && !self.plants(Planted::ReadsWithoutBarrier);
                let number = (!asks).then(|| must_reach(None, read.least));
                let roles = self.node_mut(via).roles.as_mut().expect("it is up");
                roles.reads.insert(ticket, Reader { read, number, deadline });
                match number {
                    None => self.gateway(via, Input::Barrier { ticket, deadline }),
                    Some(_) => {
                        self.serve_reads(via);
                        // So that its timer runs.
                        self.gateway(via, Input::Tick);
                    }
                }
            }
        }
    }

    pub(super) fn gateway_answers(&mut self, via: NodeId, ticket: u64, answer: Answer) {
        let told = match answer {
            Answer::BarrierPassed(number) => {
                let Some(roles) = &mut self.node_mut(via).roles else { return };
                if let Some(reader) = roles.reads.get_mut(&ticket) {
                    reader.number = Some(must_reach(Some(number), reader.read.least));
                }
                return self.serve_reads(via);
            }
            Answer::Outcome { outcome, settled, .. } => {
                let Some(Asked { question: Question::Call(call), .. }) = self.questions.get(&ticket) else { return };
                let request = call.request.clone();
                let settled = settled || outcome == Outcome::RequestReused && self.plants(Planted::GivesKeysAway);
                Told::Outcome { request, outcome: self.said_of_a_call(outcome), settled }
            }
            Answer::NotExecuted(_) => Told::NotExecuted,
            Answer::NotHere(_) | Answer::Unknown if self.plants(Planted::DeniesWhatIsUnknown) => Told::NotExecuted,
            Answer::NotHere(_) | Answer::Unknown => Told::Unknown,
        };
        if let Some(roles) = &mut self.node_mut(via).roles {
            roles.reads.remove(&ticket);
        }
        self.reply(ticket, told);
    }

    /// Answers the reads for which the state is recent enough.
    pub(super) fn serve_reads(&mut self, via: NodeId) {
        let mislabels = self.plants(Planted::MislabelsReads);
        let node = self.node_mut(via);
        let Some(roles) = &mut node.roles else { return };
        if roles.reads.is_empty() {
            return;
        }
        let applied = roles.progress.applied;
        let ready = |reader: &Reader| reader.number.is_some_and(|number| number <= applied);
        let tickets: Vec<u64> =
            roles.reads.iter().filter(|(_, reader)| ready(reader)).map(|(ticket, _)| *ticket).collect();
        let mut answers = Vec::new();
        for ticket in tickets {
            let reader = roles.reads.remove(&ticket).expect("it was there");
            let number = reader.number.filter(|_| mislabels);
            let shown = node.state.snapshot().ok().and_then(|view| {
                let at = number.unwrap_or(view.at());
                let unreadable = |error: StorageError| StateError(error.to_string());
                let commands = |from, limit| node.state.commands(from, limit, usize::MAX).map_err(unreadable);
                Some(Told::Shown { at, seen: reader.read.sought.look(&*view, commands).ok()? })
            });
            answers.push((ticket, shown));
        }
        for (ticket, shown) in answers {
            let Some(shown) = shown else { return self.stop(via, Stop::Disk) };
            self.reply(ticket, shown);
        }
    }

    /// Readers whose time is up are told so.
    pub(super) fn expire_reads(&mut self, via: NodeId) {
        let now = self.clock(via).tick;
        let Some(roles) = &mut self.node_mut(via).roles else { return };
        let late: Vec<u64> =
            roles.reads.iter().filter(|(_, reader)| reader.deadline <= now).map(|(ticket, _)| *ticket).collect();
        for ticket in late {
            if let Some(roles) = &mut self.node_mut(via).roles {
                roles.reads.remove(&ticket);
            }
            self.reply(ticket, Told::NotExecuted);
        }
    }

    /// An answer has come to its client, unless that has gone away.
    pub(super) fn answer(&mut self, ticket: u64, answer: Told) {
        let Some(asked) = self.questions.remove(&ticket) else { return };
        let fact = Fact::Told { client: asked.client, ticket, answer };
        self.tell(&fact);
        let Fact::Told { answer, .. } = fact else { unreachable!("it was made here") };
        self.clients.told(self.schedule.now(), ticket, &answer);
        self.errand_told(asked.via, ticket, &answer);
        self.await_clients();
        self.end_when_done();
    }

    /// The process of a gateway has died: those who wait for it see their connections close.
    pub(super) fn hang_up(&mut self, via: NodeId) {
        let waiting: Vec<u64> =
            self.questions.iter().filter(|(_, asked)| asked.via == via).map(|(ticket, _)| *ticket).collect();
        for ticket in waiting {
            self.reply(ticket, Told::Unknown);
        }
    }
}
