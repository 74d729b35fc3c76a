//! The time chart of a world: its events told as facts to the simulator's [`Chart`].
//!
//! Time stands still in most worlds, so the picture has rows and no times. A question of a
//! caller is seen where its call is first sent to a leader.

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::{ToGateway, ToLeader};
use protocol::{CommandId, Message, NodeId, Now, Outcome, RequestId};
use simulator::chart::{Chart, Settings};
use simulator::fact::{Fact, Observer as _, Question, Told};

use super::{Event, World};

/// The picture of all that has happened in a world, an SVG text.
#[must_use]
pub fn picture(world: &World, title: &str) -> String {
    let settings = Settings { title: title.to_owned(), times: false, merge: true, ..Settings::default() };
    let mut painter =
        Painter { chart: Chart::new(world.ids(), settings), down: BTreeSet::new(), asked: BTreeMap::new() };
    for event in world.events() {
        painter.event(event);
    }
    painter.chart.svg()
}

struct Painter {
    chart: Chart,
    down: BTreeSet<NodeId>,
    /// All calls; the ticket of each that has no answer yet.
    asked: BTreeMap<RequestId, Option<u64>>,
}

impl Painter {
    fn tell(&mut self, fact: &Fact) {
        self.chart.observe(Now::default(), fact);
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Sent { from, to, message } => {
                self.asks(*from, message);
                self.tell(&Fact::Sent { from: *from, to: *to, message: message.clone() });
            }
            Event::Delivered { from, to, message } if self.down.contains(to) => {
                self.tell(&Fact::Lost { from: *from, to: *to, message: message.clone() });
            }
            Event::Delivered { from, to, message } => {
                self.tell(&Fact::Delivered { from: *from, to: *to, message: message.clone() });
            }
            Event::Lost { from, to, message } => {
                self.tell(&Fact::Lost { from: *from, to: *to, message: message.clone() });
            }
            Event::Answered { leader, gateway, reply } => {
                let message = Message::Gateway(reply.clone());
                self.tell(&Fact::Sent { from: *leader, to: *gateway, message: message.clone() });
                self.tell(&Fact::Delivered { from: *leader, to: *gateway, message });
                self.tells(*gateway, reply);
            }
            Event::Applied { node, commands } => {
                for command in commands {
                    self.tell(&Fact::Applied { node: *node, command: command.clone(), digest: None });
                }
            }
            Event::Noted { node, note } => self.tell(&Fact::Noted { node: *node, note: note.clone() }),
            Event::Ignored { node, role, reason } => {
                self.tell(&Fact::Ignored { node: *node, role, reason });
            }
            Event::Stopped { node, why } => {
                self.down.insert(*node);
                self.tell(&Fact::Stopped { node: *node, why: *why });
            }
            Event::Restarted { node, life } => {
                self.down.remove(node);
                let (log, applied, digest) = (storage::LogImage::default(), CommandId::NULL, [0; 32]);
                self.tell(&Fact::Started { node: *node, life: *life, log, applied, digest });
            }
            Event::Remark(text) => self.chart.remark(Now::default(), text),
        }
        self.leads(event);
    }

    /// Who leads, as the leaders say it themselves.
    fn leads(&mut self, event: &Event) {
        use leader::core::Note;
        let Event::Noted { node, note } = event else { return };
        match note {
            Note::Campaigns(_) | Note::Membership { .. } | Note::HandsOver { .. } | Note::NotHandedOver { .. } => {}
            Note::Leads { ballot, .. } => self.tell(&Fact::Leads { node: *node, ballot: Some(*ballot) }),
            Note::StepsDown { .. } | Note::HandedOver { .. } => self.tell(&Fact::Leads { node: *node, ballot: None }),
        }
    }

    fn asks(&mut self, via: NodeId, message: &Message) {
        let Message::Leader(ToLeader::ExecuteFunction(call)) = message else { return };
        let ticket = self.asked.len() as u64;
        if !self.asked.contains_key(&call.request) {
            self.asked.insert(call.request.clone(), Some(ticket));
            self.tell(&Fact::Asked { client: via.0, ticket, via, question: Question::Call(call.clone()) });
        }
    }

    fn tells(&mut self, via: NodeId, reply: &ToGateway) {
        let ToGateway::Executed(executed) = reply else { return };
        // A gateway keeps these to itself and asks the next leader.
        if matches!(executed.outcome, Outcome::NotLeader | Outcome::LeadershipLost) {
            return;
        }
        if let Some(ticket) = self.asked.get_mut(&executed.request).and_then(Option::take) {
            let (request, outcome) = (executed.request.clone(), executed.outcome.clone());
            let answer = Told::Outcome { request, outcome, settled: true };
            self.tell(&Fact::Told { client: via.0, ticket, answer });
        }
    }
}
