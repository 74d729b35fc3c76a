//! A world: nodes, network, clocks, disks and clients, moved by one seed.
//!
//! One thread, virtual time, one event after the other. The nodes are the shipped cores, and what
//! their actors, router and stores do around them is done here by the same rules:
//!
//! - a role with a mailbox handles in one *turn* what has gathered there, then makes durable what
//!   the turn says (the barrier), and only then lets it be seen; a turn comes some time after the
//!   first input, in which more may gather;
//! - a learner applies before anything else of its turn is seen, then tells the acceptor and the
//!   leader of its node;
//! - gateway and failure detector have nothing durable and carry out each input at once;
//! - a mailbox may refuse what is put into it, except what the binary waits to put there;
//! - the first error of a disk stops the node at once.
//!
//! Everything that happens is told to the [`Watchers`], in order. The first broken invariant ends
//! the run.

mod accepting;
mod asking;
mod connections;
mod healing;
mod joining;
mod learning;
mod life;
mod mistakes;
mod trouble;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::{CommandNumber, Message, NodeId, Now, Space, Tick, Timestamp};

use crate::chance::Chance;
use crate::client::{Clients, Settings};
use crate::clocks::BEGINNING;
use crate::fact::{Fact, Question};
use crate::fault::Shape;
use crate::invariants::Kept;
use crate::network::{Link, Network};
use crate::node::{Came, Node};
use crate::schedule::{Event, Schedule};
use crate::swarm::Swarm;
use crate::watchers::Watchers;
use joining::{Errand, Newcomer};

/// More events than any run needs: beyond it something goes in circles.
const EVENTS_MAX: u64 = 20_000_000;
/// What a paused node's machine keeps for it: beyond it messages are lost.
const HELD_MAX: usize = 4_096;
/// Of a thousand questions, how many repeat a call that was brought to its end before.
const REPEATED: u32 = 20;
/// Fresh calls of each client after the faults.
const FRESH_CALLS: u32 = 3;
/// Within how many of the longest election timeouts of its world everything is answered once the faults are over.
pub const TIMEOUTS_TO_ANSWER: u32 = 20;

/// What a scenario plans.
pub type Plan = Box<dyn FnOnce(&mut World)>;

/// A question under way.
struct Asked {
    client: u64,
    via: NodeId,
    question: Question,
    wait: Duration,
}

/// See the module.
pub struct World {
    swarm: Swarm,
    chance: Chance,
    schedule: Schedule,
    network: Network,
    nodes: BTreeMap<NodeId, Node>,
    clients: Clients,
    /// When the clients do something next, as it is scheduled.
    clients_due: Option<Tick>,
    /// When a flapping link changes next, as it is scheduled.
    flap_due: Option<Tick>,
    questions: BTreeMap<u64, Asked>,
    /// Those that nodes ask themselves.
    errands: BTreeMap<u64, Errand>,
    newcomers: BTreeMap<u64, Newcomer>,
    next_newcomer: u64,
    /// Decided changes of the membership, as far as they were minded.
    changes: u64,
    watchers: Watchers,
    /// Those that stay up and connected, once the faults are over.
    core: Vec<NodeId>,
    healed: bool,
    /// The faults rest for a while.
    calm: bool,
    /// Since when all is answered, and what was decided by then.
    ending: Option<(Tick, CommandNumber)>,
    ended: bool,
    plans: BTreeMap<Tick, Vec<Plan>>,
}

impl World {
    /// The world of a seed, with the nodes up.
    #[must_use]
    pub fn new(swarm: Swarm, seed: u64, watchers: Watchers) -> Self {
        let mut chance = Chance::new(seed);
        let settings = Settings {
            nodes: swarm.asked.clone(),
            clients: swarm.clients,
            pause: swarm.think,
            wait: swarm.timeout_max * 2,
            wait_healed: swarm.timeout_max * 2,
            keyed: u32::try_from(chance.between(200, 900)).expect("small"),
            reads: u32::try_from(chance.between(100, 500)).expect("small"),
            repeated: REPEATED,
            fresh: FRESH_CALLS,
            changes: swarm.changes,
            changing: Tick(0) + swarm.changing,
            hand_overs: swarm.hand_overs,
        };
        let genesis = swarm.genesis();
        let mut world = Self {
            clients: Clients::new(settings, chance.any(), Tick(0)),
            network: Network::new(swarm.weather.clone()),
            nodes: swarm.nodes.iter().map(|id| (*id, Node::new(*id, Arc::clone(&genesis), Came::Listed))).collect(),
            schedule: Schedule::default(),
            chance,
            clients_due: None,
            flap_due: None,
            questions: BTreeMap::new(),
            errands: BTreeMap::new(),
            newcomers: BTreeMap::new(),
            next_newcomer: 1,
            changes: 0,
            watchers,
            core: Vec::new(),
            healed: false,
            calm: false,
            ending: None,
            ended: false,
            plans: BTreeMap::new(),
            swarm,
        };
        world.plant_functions();
        let Swarm { caller_retention: callers, gateway_retention: gateways, wrong_max, drift_max, .. } = world.swarm;
        world.watchers.keep_outcomes(Kept { callers, gateways, wrong_max: wrong_max + drift_max });
        if let Some(follower) = world.swarm.follower {
            world.watchers.never_leads(follower.node);
        }
        if world.swarm.ruinous {
            world.watchers.expect_ruin();
        }
        for node in world.swarm.nodes.clone() {
            world.start(node);
        }
        world.await_clients();
        world
    }

    /// Adds the faults that the seed drew, and their end.
    pub fn trouble(&mut self) {
        self.schedule.after(self.swarm.trouble_pause, Event::Nemesis);
        self.schedule.after(self.swarm.faults, Event::Heal);
        if !self.swarm.spells.is_zero() {
            self.schedule.after(self.swarm.spells, Event::Spell);
        }
    }

    /// Something is done at a moment from now.
    pub fn plan(&mut self, after: Duration, plan: Plan) {
        let at = self.schedule.now() + after;
        self.plans.entry(at).or_default().push(plan);
        self.schedule.at(at, Event::Plan);
    }

    /// Lets the world go on until its end, or until an invariant is broken.
    ///
    /// # Errors
    /// What is broken.
    ///
    /// # Panics
    /// When a core does, which is a broken invariant as well.
    pub fn run(&mut self) -> Result<(), String> {
        while !self.ended {
            let Some(event) = self.schedule.pop() else { break };
            self.handle(event)?;
            if self.swarm.changes > 0 {
                self.mind_changes();
            }
            if let Some(broken) = self.watchers.broken() {
                return Err(broken);
            }
            if self.schedule.happened() > EVENTS_MAX {
                return Err(format!("no end after {EVENTS_MAX} events"));
            }
        }
        self.watchers.end(self.now());
        self.watchers.broken().map_or(Ok(()), Err)
    }

    /// Whoever watches.
    #[must_use]
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// The same, to add one.
    pub fn watchers_mut(&mut self) -> &mut Watchers {
        &mut self.watchers
    }

    /// What the seed drew.
    #[must_use]
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.schedule.happened()
    }

    /// The time of the world.
    #[must_use]
    pub fn now(&self) -> Now {
        let tick = self.schedule.now();
        Now { tick, wall: Timestamp(BEGINNING.0 + tick.0 / 1_000) }
    }

    /// The nodes that lead now, as they see it themselves.
    #[must_use]
    pub fn leaders(&self) -> Vec<NodeId> {
        let leads = |node: &&Node| node.roles.as_ref().is_some_and(|roles| roles.leader.leads().is_some());
        self.nodes.values().filter(leads).map(|node| node.id).collect()
    }

    /// These links stop.
    pub fn cut(&mut self, shape: Shape, links: &[Link]) {
        self.network.cut(links);
        self.tell(&Fact::Fault(crate::fault::Fault::Partition { shape, cut: links.to_vec() }));
        self.break_connections(links);
        if shape.flaps() {
            self.begin_to_flap(links);
        }
    }

    /// All links work again.
    pub fn mend(&mut self) {
        self.network.heal();
        self.tell(&Fact::Fault(crate::fault::Fault::Heal));
    }

    /// The run is over.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    fn tell(&mut self, fact: &Fact) {
        self.watchers.tell(self.now(), fact);
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).expect("a node of this world")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this world")
    }

    /// Those that are not gone for good.
    fn present(&self) -> Vec<NodeId> {
        self.nodes.values().filter(|node| !node.gone).map(|node| node.id).collect()
    }

    /// One of them; when all are gone, one of those.
    fn any_node(&mut self) -> NodeId {
        let present = self.present();
        if present.is_empty() { self.swarm.nodes[0] } else { self.chance.pick(&present) }
    }

    /// Whether a node can take part again, now or after a start. Whoever was admitted and has never come cannot.
    fn is_sound(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(Node::is_sound)
    }

    /// Whether it may ever lead: the disk that it has knows which ballots it has begun, and nobody forbids it.
    fn can_lead(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| !node.lost) && self.swarm.follower.is_none_or(|one| one.node != id)
    }

    /// What a node's clocks show.
    fn clock(&self, id: NodeId) -> Now {
        self.node(id).clocks.now(self.schedule.now())
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        let Some(event) = self.unless_held(event) else { return Ok(()) };
        match event {
            Event::Arrive { from, to, message, life: Some(life), .. } if !self.lives(to, life) => {
                self.lose(from, to, message);
            }
            Event::Arrive { from, to, message, mishaps, .. } => {
                self.tell_mishaps(to, &message, &mishaps);
                self.arrive(from, to, message);
            }
            Event::Turn { node, life, role } if self.lives(node, life) => self.turn(node, role),
            Event::Timer { node, life, timer } if self.lives(node, life) => self.on_timer(node, timer),
            Event::PoolBegins { node, life, job } if self.lives(node, life) => self.pool_begins(node, &job),
            Event::PoolEnds { node, life, done } if self.lives(node, life) => self.pool_ends(node, *done),
            Event::Beside { node, life, work } if self.lives(node, life) => self.done_beside(node, work),
            Event::Dial { node, life, peer, pause } if self.lives(node, life) => self.dial(node, peer, pause),
            Event::Closed { node, life, peer } if self.lives(node, life) => self.closed(node, peer),
            // Of a life that is over.
            Event::Turn { .. }
            | Event::Timer { .. }
            | Event::PoolBegins { .. }
            | Event::PoolEnds { .. }
            | Event::Beside { .. }
            | Event::Dial { .. }
            | Event::Closed { .. } => {}
            Event::Resume(node) => self.resume(node),
            Event::Start(node) => self.restart(node),
            Event::Room(node) => self.node_mut(node).space = Space::Ample,
            Event::Question { ticket } => self.question(ticket),
            Event::Answer { ticket, answer } => self.answer(ticket, answer),
            Event::Ask(newcomer) => self.ask_to_join(newcomer),
            Event::Admit(admission) => self.admit(admission),
            Event::GiveUpAsking { ticket } => self.give_up_asking(ticket),
            Event::Depart(node) => self.depart(node),
            Event::Strike => self.strike(),
            Event::Clients => self.clients_act(),
            Event::Nemesis => self.nemesis(),
            Event::Flap => self.flap(),
            Event::Spell => self.spell(),
            Event::Heal if self.is_too_early() => self.go_on(),
            Event::Heal => self.heal(),
            Event::Plan => {
                for plan in self.plans.remove(&self.schedule.now()).unwrap_or_default() {
                    plan(self);
                }
            }
            Event::End => return self.end(),
        }
        Ok(())
    }

    fn lives(&self, node: NodeId, life: u32) -> bool {
        let node = self.node(node);
        node.life == life && node.is_up()
    }

    /// Keeps for later what concerns a node that stands still; its network card takes messages
    /// until its buffers are full.
    fn unless_held(&mut self, event: Event) -> Option<Event> {
        let id = match &event {
            Event::Arrive { to, .. } => *to,
            Event::Turn { node, .. }
            | Event::Timer { node, .. }
            | Event::PoolBegins { node, .. }
            | Event::PoolEnds { node, .. }
            | Event::Beside { node, .. }
            | Event::Dial { node, .. }
            | Event::Closed { node, .. } => *node,
            Event::Question { ticket } => self.questions.get(ticket)?.via,
            Event::Resume(_)
            | Event::Start(_)
            | Event::Room(_)
            | Event::Ask(_)
            | Event::Admit(_)
            | Event::GiveUpAsking { .. }
            | Event::Depart(_)
            | Event::Strike
            | Event::Answer { .. }
            | Event::Clients
            | Event::Nemesis
            | Event::Flap
            | Event::Spell
            | Event::Heal
            | Event::Plan
            | Event::End => return Some(event),
        };
        let Some(held) = &mut self.node_mut(id).held else { return Some(event) };
        if held.len() < HELD_MAX || !matches!(event, Event::Arrive { .. }) {
            held.push(event);
            return None;
        }
        if let Event::Arrive { from, to, message, .. } = event {
            self.lose(from, to, message);
        }
        None
    }

    fn lose(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.tell(&Fact::Lost { from, to, message });
    }
}
