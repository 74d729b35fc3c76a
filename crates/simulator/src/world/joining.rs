//! Nodes that join, ask for a vote, leave, come back under another id, and are removed for good (ADR 0027).
//!
//! As in the binary all of it is calls of the functions `cluster.*`, sent by the gateway of some node as for any caller
//! (so the invariants see these calls too); the leader decides. A newcomer has no id yet: it asks members, one after the
//! other, under a key that it keeps, until one of them can tell it who it is. Links do not stop it, as they do not stop
//! clients. What it is told can be lost, and so can it: it asks again under the same key, and must not become two nodes.
//!
//! Whoever was removed is stopped, and its disk given up, once something is decided under the membership without it:
//! from then on nothing may depend on it.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Call, Membership, NodeId, Outcome, RequestId};
use serde_json::{Value, json};

use super::{Asked, World};
use crate::client::work::named;
use crate::fact::{Fact, Question, Stop, Told};
use crate::fault::Fault;
use crate::network::some_of;
use crate::node::{Came, Node};
use crate::schedule::{Admission, Event};
use crate::swarm::Trouble;

/// More members than any world needs: each sends heartbeats to all others.
const MEMBERS_MAX: usize = 8;
/// Refusals that pass, as the binary knows them.
const PASSING: [&str; 5] = ["another_change", "would_lose_majority", "not_caught_up", "not_connected", "still_heard"];
/// How often a member that does not know yet what was decided looks again, and how many times.
const LOOKS: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 60;
/// In 10,000: answers to a newcomer that are lost, with it or without.
const ANSWERS_LOST: u32 = 1_500;
/// Something bad follows a change within this time, if at all.
const STRIKES: Duration = Duration::from_millis(60);
/// How long a node that was removed may go on, at most.
const DEPARTS: Duration = Duration::from_secs(2);
/// Clients with numbers from here on are nodes and newcomers.
const ERRANDS: u64 = 1_000_000;

/// Somebody who asks to be taken in.
pub(super) struct Newcomer {
    name: String,
    address: String,
    /// Makes a repeated question the same one.
    key: u64,
    /// It has had another id.
    returns: bool,
}

/// What a question is for that a node asks of its own gateway.
#[derive(Clone, Copy, Debug)]
pub(super) enum Errand {
    /// A newcomer is to be taken in, by this life of the node asked.
    Admit { newcomer: u64, life: u32 },
    /// A node asks for a vote.
    Vote,
    /// A node that leaves gives up its vote.
    Resign,
    /// A node that leaves asks to be removed.
    Remove,
}

impl World {
    // --- newcomers ---

    /// Somebody new wants to join, unless there are enough.
    pub(super) fn expect_newcomer(&mut self) {
        let (membership, _) = self.watchers.membership();
        if membership.nodes().len() + self.newcomers.len() < MEMBERS_MAX {
            let name = format!("x{}", self.next_newcomer);
            let address = format!("{name}:7080");
            self.begin_to_join(name, address, false, Duration::ZERO);
        }
    }

    /// A node that had this id, and has lost or given up its disk, will want its place again.
    pub(super) fn expect_return(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(member) = node.seat.node(id) else { return };
        let (name, address) = (member.name.clone(), member.address.clone());
        self.begin_to_join(name, address, true, self.swarm.down);
    }

    fn begin_to_join(&mut self, name: String, address: String, returns: bool, within: Duration) {
        let newcomer = self.next_newcomer;
        self.next_newcomer += 1;
        let key = self.chance.any();
        self.newcomers.insert(newcomer, Newcomer { name, address, key, returns });
        self.ask_later(newcomer, within);
    }

    fn ask_later(&mut self, newcomer: u64, within: Duration) {
        let pause = some_of(within, &mut self.chance) + Duration::from_millis(1);
        self.schedule.after(pause, Event::Ask(newcomer));
    }

    /// A newcomer asks some node to take it in.
    pub(super) fn ask_to_join(&mut self, which: u64) {
        if self.healed {
            return;
        }
        let via = self.any_node();
        let Some(Newcomer { name, address, key, .. }) = self.newcomers.get(&which) else { return };
        if !self.node(via).is_up() || self.node(via).held.is_some() {
            return self.ask_later(which, self.swarm.timeout_max);
        }
        let (key, arguments) = (format!("join-{key:016x}"), json!({"name": name, "address": address}));
        let life = self.node(via).life;
        self.call(via, Errand::Admit { newcomer: which, life }, "cluster.join", &arguments, key);
    }

    /// The cluster has decided on a newcomer, or has not.
    fn decided(&mut self, via: NodeId, newcomer: u64, life: u32, answer: &Told) {
        let again = self.swarm.timeout_max / 2;
        match answer {
            Told::Outcome {
                outcome: Outcome::Issued { command: at, result } | Outcome::Unchanged { at, result },
                ..
            } => {
                let result: Value = serde_json::from_slice(result).expect("the function's own result");
                let id = NodeId(result["node"].as_u64().expect("`cluster.join` says which node"));
                self.admit(Admission { newcomer, via, life, id, number: *at, looked: 0 });
            }
            Told::Outcome { outcome: Outcome::Refused { code, .. }, .. } if PASSING.contains(&code.as_str()) => {
                self.renew(newcomer);
                self.ask_later(newcomer, again);
            }
            Told::Outcome { outcome: Outcome::Refused { .. }, .. } => _ = self.newcomers.remove(&newcomer),
            Told::Outcome { .. } | Told::NotExecuted | Told::Unknown | Told::Left { .. } | Told::Shown { .. } => {
                self.ask_later(newcomer, again);
            }
        }
    }

    /// The cluster has decided under this key.
    fn renew(&mut self, newcomer: u64) {
        let key = self.chance.any();
        if let Some(newcomer) = self.newcomers.get_mut(&newcomer) {
            newcomer.key = key;
        }
    }

    /// The member that was asked tells the newcomer who it is, once it knows that itself.
    pub(super) fn admit(&mut self, admission: Admission) {
        let Admission { newcomer, via, life, id, number, looked } = admission;
        if self.healed || !self.newcomers.contains_key(&newcomer) {
            return;
        }
        let node = self.node(via);
        let known = node.roles.as_ref().filter(|_| node.life == life && node.held.is_none());
        let membership = known.map(|roles| Arc::clone(&roles.membership));
        match membership {
            Some(membership) if membership.number() < number && looked < LOOKS_MAX => {
                self.schedule.after(LOOKS, Event::Admit(Admission { looked: looked + 1, ..admission }));
            }
            Some(membership) if membership.number() >= number && membership.node(id).is_none() => {
                self.renew(newcomer);
                self.ask_later(newcomer, self.swarm.down);
            }
            Some(membership) if membership.number() >= number && !self.chance.happens(ANSWERS_LOST) => {
                self.take_seat(newcomer, id, membership);
            }
            Some(_) | None => self.ask_later(newcomer, self.swarm.down),
        }
    }

    /// A newcomer has been told who it is, and starts like any node.
    fn take_seat(&mut self, newcomer: u64, id: NodeId, membership: Arc<Membership>) {
        let Some(Newcomer { name, returns, .. }) = self.newcomers.remove(&newcomer) else { return };
        assert!(!self.nodes.contains_key(&id), "S-18: id {id} is given to two");
        assert_eq!(membership.node(id).map(|member| &member.name), Some(&name), "it is taken in as what it is");
        let came = if self.chance.happens(8_000) { Came::ForAVote } else { Came::Joined };
        self.nodes.insert(id, Node::new(id, membership, came));
        self.tell(&Fact::Fault(if returns { Fault::Return(id) } else { Fault::Join(id) }));
        self.clients.meet(id);
        self.start(id);
        self.strike_soon();
    }

    // --- members ---

    /// What a node does about its own membership, now and then.
    pub(super) fn mind_seat(&mut self, id: NodeId) {
        if self.healed {
            return;
        }
        let node = self.node_mut(id);
        let Some(roles) = &node.roles else { return };
        if roles.errand.is_some() {
            return;
        }
        let membership = Arc::clone(&roles.membership);
        let (is_member, votes) = (membership.node(id).is_some(), membership.is_acceptor(id));
        let knows = roles.progress.applied >= membership.number();
        if roles.leaving {
            let view = roles.detector.view();
            let durable = |node: NodeId| view.peers.get(&node)?.last.as_ref().map(|last| last.durable);
            let is_kept =
                membership.majority().holds(|node| durable(node).is_some_and(|durable| durable >= membership.number()));
            if !is_member {
                return self.give_up(id);
            }
            if votes {
                node.came = Came::ForAVote;
                return self.seat_call(id, Errand::Resign, "cluster.set_acceptor", &json!({"node": id.0, "weight": 0}));
            }
            if is_kept {
                node.came = Came::Left;
                return self.seat_call(id, Errand::Remove, "cluster.remove", &json!({"node": id.0}));
            }
            return;
        }
        if node.came == Came::ForAVote && votes {
            node.came = Came::Joined;
        }
        if node.came == Came::ForAVote && is_member && knows && roles.acceptor.silence().is_none() {
            self.seat_call(id, Errand::Vote, "cluster.set_acceptor", &json!({"node": id.0, "weight": 1}));
        }
    }

    /// A node that has joined is asked to leave; a listed one could not come back.
    pub(super) fn ask_to_leave(&mut self) {
        let may_leave = |node: &&mut Node| matches!(node.came, Came::ForAVote | Came::Joined);
        let joined = self.nodes.values_mut().filter(may_leave);
        let ready = joined.filter_map(|node| Some(node.id).zip(node.roles.as_mut().filter(|roles| !roles.leaving)));
        let mut ready: Vec<_> = ready.collect();
        if ready.is_empty() {
            return;
        }
        let index = self.chance.index(ready.len());
        let (id, roles) = &mut ready[index];
        roles.leaving = true;
        let id = *id;
        self.tell(&Fact::Fault(Fault::Leave(id)));
    }

    /// An answer to what a node asked about itself.
    fn seat_told(&mut self, id: NodeId, errand: Errand, answer: &Told) {
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        roles.errand = None;
        let refused = match answer {
            Told::Outcome { outcome: Outcome::Refused { code, .. }, .. } => Some(code.as_str()),
            Told::Outcome { .. } | Told::NotExecuted | Told::Unknown | Told::Left { .. } | Told::Shown { .. } => None,
        };
        match errand {
            // Whether it has the vote, the membership says; an operator who takes it away is not contradicted.
            Errand::Vote if refused.is_some_and(|code| !PASSING.contains(&code)) => {
                self.node_mut(id).came = Came::Joined;
            }
            Errand::Vote | Errand::Admit { .. } => {}
            // It could not leave, and stops all the same: it counts as failed until it is back.
            Errand::Resign if refused.is_some() => self.stop(id, Stop::Killed),
            Errand::Resign => {}
            // Removed or not, it is done: its next start joins anew.
            Errand::Remove => self.stop(id, Stop::Killed),
        }
    }

    /// Who has noted that it has left does not come back as who it was.
    pub(super) fn come_anew(&mut self, id: NodeId) {
        self.give_up(id);
        self.expect_return(id);
    }

    /// A node is gone for good, and its disk with it.
    fn give_up(&mut self, id: NodeId) {
        self.node_mut(id).gone = true;
        self.stop(id, Stop::Killed);
        self.node_mut(id).lost = true;
        self.clients.part(id);
        self.tell(&Fact::Fault(Fault::GivenUp(id)));
    }

    /// A node that was removed is stopped, if nothing can depend on it.
    pub(super) fn depart(&mut self, id: NodeId) {
        if self.healed || self.node(id).gone {
            return;
        }
        if self.watchers.is_needed(id) {
            return self.depart_later(id);
        }
        self.give_up(id);
    }

    fn depart_later(&mut self, id: NodeId) {
        let pause = some_of(DEPARTS, &mut self.chance);
        self.schedule.after(pause, Event::Depart(id));
    }

    // --- the moment of a change ---

    /// Looks, after each event of a world with changes, whether one was decided.
    pub(super) fn mind_changes(&mut self) {
        let (membership, changes) = self.watchers.membership();
        if changes == self.changes {
            return;
        }
        self.changes = changes;
        let stays = |id: &NodeId| membership.node(*id).is_some();
        let left: Vec<NodeId> =
            self.nodes.values().filter(|node| !node.departing && !stays(&node.id)).map(|node| node.id).collect();
        for id in left {
            self.node_mut(id).departing = true;
            self.depart_later(id);
        }
        self.strike_soon();
        self.widen_core();
        // Who must speak is another question now.
        self.end_when_done();
    }

    /// Every other time something bad happens in the midst of a change.
    pub(super) fn strike_soon(&mut self) {
        if !self.healed && self.chance.coin() {
            let pause = some_of(STRIKES, &mut self.chance);
            self.schedule.after(pause, Event::Strike);
        }
    }

    /// Of the bad things that the seed has drawn, one that is sudden.
    pub(super) fn strike(&mut self) {
        let sudden: Vec<Trouble> =
            self.swarm.troubles.iter().map(|(trouble, _)| *trouble).filter(|trouble| trouble.is_sudden()).collect();
        if !self.healed && !sudden.is_empty() {
            let trouble = self.chance.pick(&sudden);
            self.make(trouble);
        }
    }

    // --- questions of their own ---

    fn seat_call(&mut self, id: NodeId, errand: Errand, function: &str, arguments: &Value) {
        let key = format!("seat-{:016x}", self.chance.any());
        let ticket = self.call(id, errand, function, arguments, key);
        if let Some(roles) = &mut self.node_mut(id).roles {
            roles.errand = Some(ticket);
        }
    }

    /// A call by a node itself, through its own gateway.
    fn call(&mut self, via: NodeId, errand: Errand, function: &str, arguments: &Value, key: String) -> u64 {
        let wait = self.swarm.timeout_max * 2;
        let call: Call = named(RequestId::Caller(key), function, arguments, wait / 2);
        let (ticket, question) = (self.clients.ticket(), Question::Call(call));
        let client = ERRANDS + ticket;
        self.tell(&Fact::Asked { client, ticket, via, question: question.clone() });
        self.questions.insert(ticket, Asked { client, via, question, wait });
        self.errands.insert(ticket, errand);
        self.schedule.after(wait * 2, Event::GiveUpAsking { ticket });
        self.question(ticket);
        ticket
    }

    /// An answer has come to a question that a node asked itself.
    pub(super) fn errand_told(&mut self, via: NodeId, ticket: u64, answer: &Told) {
        match self.errands.remove(&ticket) {
            Some(Errand::Admit { newcomer, life }) => self.decided(via, newcomer, life, answer),
            Some(errand) if self.node(via).roles.as_ref().is_some_and(|roles| roles.errand == Some(ticket)) => {
                self.seat_told(via, errand, answer);
            }
            Some(_) | None => {}
        }
    }

    /// Nobody waits any more for the answer to a question that a node asked itself.
    pub(super) fn give_up_asking(&mut self, ticket: u64) {
        if !self.errands.contains_key(&ticket) {
            return;
        }
        let Some(Asked { client, via, .. }) = self.questions.remove(&ticket) else { return };
        let answer = Told::Left { early: self.healed };
        self.tell(&Fact::Told { client, ticket, answer: answer.clone() });
        self.gateway(via, http_api::core::Input::Abandon { ticket });
        self.errand_told(via, ticket, &answer);
    }

    /// The faults are over: whoever has not been taken in yet stays outside, and whoever is on the way out is out.
    pub(super) fn end_errands(&mut self) {
        self.newcomers.clear();
        let left: Vec<NodeId> =
            self.nodes.values().filter(|node| !node.gone && node.came == Came::Left).map(|node| node.id).collect();
        for id in left {
            self.give_up(id);
        }
        for ticket in self.errands.keys().copied().collect::<Vec<_>>() {
            self.give_up_asking(ticket);
        }
    }
}
