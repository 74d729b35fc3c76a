//! The clients of a world: what they ask, of whom, and what they make of the answers.
//!
//! Each client has one question at a time. It thinks a little, draws a question, waits for the
//! answer as long as it likes, and goes away when that takes too long. A call with a key of its own
//! is asked again, through any node and with the same key, until its fate is known; a call without
//! one cannot be, and its client lives with *unknown*. Now and then a client uses a key again with
//! another body, which must not be executed as well, or repeats a call that came to its end long before.
//!
//! After [`Clients::healed`] clients ask nodes of the core only, one after the other, bring what is under way
//! to its end, and then each makes a few fresh calls that nothing can refuse, until these are issued, and one read
//! that shows what all were told before (linearizable), until it gets a value. They go on to another node because one of the core may hear of a leader outside, and not reach it or not be
//! reached by it: it serves nobody then, and the others do.
//!
//! A world asks [`Clients::next`] for what is due now until there is nothing, tells each answer to
//! [`Clients::told`], and comes back at [`Clients::due`]. One seed gives the same clients for the same
//! answers at the same times.

#[cfg(test)]
mod tests;
pub(crate) mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use protocol::{Call, NodeId, Outcome, RequestId, Tick};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::fact::{Question, Told};
use work::Known;

/// How often a client asks again although it knows: it must hear the same.
const ASKED_AGAIN: f64 = 0.1;
/// So many of its calls a client remembers to repeat them.
const FINISHED_MAX: usize = 50;
/// How often a client that asks again does so with another body.
const REUSED: f64 = 0.1;

/// What clients are like. The seed of a world draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The nodes whose gateways they ask.
    pub nodes: Vec<NodeId>,
    /// How many there are.
    pub clients: u64,
    /// The longest pause between an answer and the next question of a client.
    pub pause: Duration,
    /// The longest that a client waits for an answer while there are faults.
    pub wait: Duration,
    /// How long a client waits for an answer after the faults, before it asks the next node of the core.
    pub wait_healed: Duration,
    /// Of a thousand calls, how many have a key of the client's own.
    pub keyed: u32,
    /// Of a thousand questions, how many are reads.
    pub reads: u32,
    /// Of a thousand questions during the faults, how many repeat a call that was brought to its end some time ago.
    pub repeated: u32,
    /// How many calls of each client must be issued after the faults.
    pub fresh: u32,
    /// Of a thousand calls during the faults, how many are about the membership.
    pub changes: u32,
    /// Until when.
    pub changing: Tick,
    /// Of a thousand calls during the faults, how many ask that the lead be handed over.
    pub hand_overs: u32,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It asks the gateway of a node.
    Ask(Asking),
    /// It goes away without an answer ([`Told::Left`]). Nothing is told to it under this ticket any more.
    GoAway {
        /// The client.
        client: u64,
        /// Its question.
        ticket: u64,
        /// The node that it asked.
        via: NodeId,
        /// It did not wait as long as it had said.
        early: bool,
    },
}

/// A question on its way to a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The client.
    pub client: u64,
    /// Names the question; used once in a world.
    pub ticket: u64,
    /// The node asked.
    pub via: NodeId,
    /// What.
    pub question: Question,
    /// How long the gateway has. The client itself goes away later than that, and sometimes earlier.
    pub wait: Duration,
}

/// All clients of a world.
#[derive(Debug)]
pub struct Clients {
    settings: Settings,
    chance: ChaCha8Rng,
    clients: BTreeMap<u64, Client>,
    /// When each client does something next; one that is done does nothing.
    due: BTreeSet<(Tick, u64)>,
    /// Who waits for an answer.
    waiting: BTreeMap<u64, u64>,
    next_ticket: u64,
    next_request: u64,
    /// Who is asked: all nodes, then the core.
    nodes: Vec<NodeId>,
    /// The highest id that a node has had.
    last_id: NodeId,
    healed: bool,
}

#[derive(Debug)]
struct Client {
    /// The moment under which it stands in `due`.
    due: Option<Tick>,
    /// The question that it waits for.
    waits: Option<Waits>,
    /// The node that it asked last.
    last: Option<NodeId>,
    /// What it will ask again.
    again: Option<Task>,
    /// Calls under its keys of which it knows the end.
    finished: Vec<Call>,
    known: Known,
    /// How many of its calls have to be issued yet, after the faults.
    fresh: u32,
    /// After those it has read a value.
    has_read: bool,
    /// Its last question was a read, and showed nothing: after the faults it reads on.
    unread: bool,
}

#[derive(Debug)]
struct Waits {
    ticket: u64,
    via: NodeId,
    question: Question,
    /// When a gateway that goes on must have answered.
    patient: Tick,
}

/// A call that is asked until its fate is known.
#[derive(Clone, Debug)]
struct Task {
    call: Call,
    /// It is the first question under this call after the faults.
    fresh: bool,
}

impl Clients {
    /// The clients that follow from `seed`. Their first questions come within a pause from `now`.
    ///
    /// # Panics
    /// When there is no node to ask.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, now: Tick) -> Self {
        assert!(!settings.nodes.is_empty(), "clients need a node to ask");
        let mut clients = Self {
            chance: ChaCha8Rng::seed_from_u64(seed),
            clients: BTreeMap::new(),
            due: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_ticket: 1,
            next_request: 1,
            last_id: settings.nodes.iter().copied().max().unwrap_or_default(),
            nodes: settings.nodes.clone(),
            healed: false,
            settings,
        };
        for client in 1..=clients.settings.clients {
            let fresh = clients.settings.fresh;
            let known = Known::default();
            let idle = Client {
                due: None,
                waits: None,
                last: None,
                again: None,
                finished: Vec::new(),
                known,
                fresh,
                has_read: false,
                unread: false,
            };
            clients.clients.insert(client, idle);
            clients.think(client, now);
        }
        clients
    }

    /// When a client does something next, unless an answer comes before.
    #[must_use]
    pub fn due(&self) -> Option<Tick> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What is due now; to be asked again until there is nothing.
    pub fn next(&mut self, now: Tick) -> Option<Act> {
        let (due, client) = *self.due.first()?;
        if due > now {
            return None;
        }
        if let Some(Waits { ticket, via, patient, question }) = self.client(client).waits.take() {
            self.waiting.remove(&ticket);
            let state = self.client(client);
            state.unread = matches!(question, Question::Read(_));
            state.again = state.again.take().filter(|task| is_keyed(&task.call));
            self.think(client, now);
            return Some(Act::GoAway { client, ticket, via, early: now < patient });
        }
        Some(Act::Ask(self.ask(client, now)))
    }

    /// An answer has come. One for a client that has gone away is left aside.
    ///
    /// A world tells [`Told::Unknown`] when the node that was asked goes down.
    ///
    /// # Panics
    /// When a client waits without a question: our own broken state.
    pub fn told(&mut self, now: Tick, ticket: u64, answer: &Told) {
        let Some(client) = self.waiting.remove(&ticket) else { return };
        let (healed, curious) = (self.healed, self.chance.random_bool(ASKED_AGAIN));
        let state = self.client(client);
        let waits = state.waits.take().expect("a client that waits has a question");
        state.known.learn(&waits.question, answer);
        let shown = matches!(answer, Told::Shown { .. });
        state.unread = matches!(waits.question, Question::Read(_)) && !shown;
        state.has_read |= healed && state.fresh == 0 && shown;
        let asked = state.again.as_ref().is_some_and(|task| waits.question == Question::Call(task.call.clone()));
        if asked && is_final(answer) {
            let task = state.again.take();
            let issued = matches!(answer, Told::Outcome { outcome: Outcome::Issued { .. }, .. });
            if issued && task.as_ref().is_some_and(|task| task.fresh) {
                state.fresh = state.fresh.saturating_sub(1);
            }
            let named = task.filter(|task| is_keyed(&task.call));
            state.finished.extend(named.iter().filter(|_| !healed).map(|task| task.call.clone()));
            if state.finished.len() > FINISHED_MAX {
                state.finished.remove(0);
            }
            state.again = named.filter(|_| curious && !healed);
        } else if asked && state.again.as_ref().is_some_and(|task| !is_keyed(&task.call)) {
            state.again = None;
        }
        self.think(client, now);
    }

    /// The faults are over for these nodes: see the module.
    ///
    /// # Panics
    /// When the core is empty.
    pub fn healed(&mut self, now: Tick, core: &[NodeId]) {
        assert!(!core.is_empty(), "a core is a majority set");
        self.nodes = core.to_vec();
        self.healed = true;
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            match &self.clients[&client].waits {
                // It goes away at once and asks the core.
                Some(waits) if !core.contains(&waits.via) => self.wake(client, Some(now)),
                Some(_) => {}
                None => self.think(client, now),
            }
        }
    }

    /// Calls about the membership go on until then.
    pub fn go_on_changing(&mut self, until: Tick) {
        self.settings.changing = until;
    }

    /// A node has joined: it is asked too.
    pub fn meet(&mut self, node: NodeId) {
        self.nodes.push(node);
        self.last_id = self.last_id.max(node);
    }

    /// A node is gone for good, and is asked no more, unless nobody else is left.
    pub fn part(&mut self, node: NodeId) {
        if self.nodes.len() > 1 {
            self.nodes.retain(|known| *known != node);
        }
    }

    /// Whether somebody waits for what a call comes to that may change the membership.
    #[must_use]
    pub fn may_change(&self) -> bool {
        self.clients.values().any(|client| {
            let asks = |waits: &Waits| matches!(&waits.question, Question::Call(call) if may_change(call));
            client.again.as_ref().is_some_and(|task| may_change(&task.call)) || client.waits.as_ref().is_some_and(asks)
        })
    }

    /// Names a question that somebody else asks.
    pub fn ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }

    /// Whether all that was under way has its end, all fresh calls are issued, and all have read.
    #[must_use]
    pub fn done(&self) -> bool {
        self.healed && self.due.is_empty()
    }

    fn client(&mut self, client: u64) -> &mut Client {
        self.clients.get_mut(&client).expect("a client of this world")
    }

    fn wake(&mut self, client: u64, at: Option<Tick>) {
        let earlier = mem::replace(&mut self.client(client).due, at);
        if let Some(earlier) = earlier {
            self.due.remove(&(earlier, client));
        }
        if let Some(at) = at {
            self.due.insert((at, client));
        }
    }

    /// The client does nothing for a while; for ever when all is done.
    fn think(&mut self, client: u64, now: Tick) {
        let pause = self.up_to(self.settings.pause);
        let state = &self.clients[&client];
        let done = self.healed && state.again.is_none() && state.fresh == 0 && state.has_read;
        self.wake(client, (!done).then_some(now + pause));
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.chance.random_range(0..=micros))
    }

    fn ask(&mut self, client: u64, now: Tick) -> Asking {
        let question = self.question(client, now);
        let via = self.node_for(client);
        let wait = if self.healed { self.settings.wait_healed } else { self.up_to(self.settings.wait) };
        // Some clients are more hurried than they said; most hear what the gateway says.
        let hurried = !self.healed && self.chance.random_bool(0.2);
        let patience = wait * 2 + Duration::from_secs(1);
        let stays = if hurried { self.up_to(wait) } else { patience };
        let ticket = self.ticket();
        self.waiting.insert(ticket, client);
        let patient = now + patience;
        self.client(client).waits = Some(Waits { ticket, via, question: question.clone(), patient });
        self.wake(client, Some(now + stays));
        Asking { client, ticket, via, question, wait }
    }

    /// Any node; after the faults, the one after that which was asked last.
    fn node_for(&mut self, client: u64) -> NodeId {
        let any = self.chance.random_range(0..self.nodes.len());
        let last = self.clients[&client].last.filter(|_| self.healed);
        let next = last.and_then(|last| self.nodes.iter().position(|node| *node == last)).map(|at| at + 1);
        let via = self.nodes[next.unwrap_or(any) % self.nodes.len()];
        self.client(client).last = Some(via);
        via
    }

    /// What the client asks next.
    fn question(&mut self, client: u64, now: Tick) -> Question {
        let (healed, chance) = (self.healed, &mut self.chance);
        let state = self.clients.get_mut(&client).expect("a client of this world");
        if let Some(task) = &state.again {
            let reused = is_keyed(&task.call) && !healed && chance.random_bool(REUSED);
            return Question::Call(if reused { work::other_body(&task.call) } else { task.call.clone() });
        }
        if !healed && !state.finished.is_empty() && chance.random_ratio(self.settings.repeated.min(1000), 1000) {
            let call = state.finished[chance.random_range(0..state.finished.len())].clone();
            if now < self.settings.changing || !may_change(&call) {
                state.again = Some(Task { call: call.clone(), fresh: false });
                return Question::Call(call);
            }
        }
        if !healed && chance.random_ratio(self.settings.reads.min(1000), 1000) {
            return work::read(chance, &state.known);
        }
        if healed && (state.fresh == 0 || state.unread) {
            return work::read_all(chance, &state.known);
        }
        let number = self.next_request;
        self.next_request += 1;
        // Only a call with a key can be brought to its end for certain.
        let request = if healed || chance.random_ratio(self.settings.keyed.min(1000), 1000) {
            RequestId::Caller(format!("client-{client}-{number}"))
        } else {
            RequestId::Gateway(u128::from(number))
        };
        let call = if healed {
            work::surely(chance, request)
        } else if self.settings.changes > 0
            && now < self.settings.changing
            && chance.random_ratio(self.settings.changes.min(1000), 1000)
        {
            work::change(chance, self.last_id.0, request)
        } else if self.settings.hand_overs > 0 && chance.random_ratio(self.settings.hand_overs.min(1000), 1000) {
            work::hand_over(chance, self.last_id.0, request)
        } else {
            work::call(chance, &state.known, request)
        };
        state.again = Some(Task { call: call.clone(), fresh: healed });
        Question::Call(call)
    }
}

/// Whether a call may change the membership.
fn may_change(call: &Call) -> bool {
    call.function.starts_with("cluster.") && call.function != "cluster.hand_over"
}

/// Whether a client has given the call a key of its own, so that it can ask again.
pub(crate) fn is_keyed(call: &Call) -> bool {
    matches!(call.request, RequestId::Caller(_))
}

/// Whether the answer says what became of a call.
pub(crate) fn is_final(answer: &Told) -> bool {
    match answer {
        Told::Outcome { outcome: Outcome::Issued { .. }, .. } | Told::NotExecuted => true,
        Told::Outcome { settled, .. } => *settled,
        Told::Unknown | Told::Left { .. } | Told::Shown { .. } => false,
    }
}
