//! What the roles of a node do: messages in, turns, effects out.

use std::sync::Arc;
use std::time::Duration;

use functions::{Heard, ReadSet};
use leader::core::PoolJob;
use leader::machine::run_on_snapshot;
use protocol::message::{ToAcceptor, ToLeader};
use protocol::{Message, NodeId, Role};
use storage::{LogRecord, StateStore as _};

use super::World;
use crate::fact::{Fact, Stop};
use crate::fault::{Fault, Mishap};
use crate::network::some_of;
use crate::node::{Cut, Mail, Node, Roles, heard_by};
use crate::planted::{self, Planted, no_barrier};
use crate::schedule::{Event, Timer};

/// Inputs that a mailbox holds: as the acceptor's, and more than the parts of the longest promise here. The leader's is larger.
const MAILBOX: usize = 4_096;
/// The leader's and the learner's ticks, the gateway's, the learner's sync, and how often who
/// leads is said again: as the actors have them.
const LEADER_TICK: Duration = Duration::from_millis(10);
const LEARNER_TICK: Duration = Duration::from_millis(25);
const GATEWAY_TICK: Duration = Duration::from_millis(20);
const SYNC: Duration = Duration::from_secs(1);
const LEADER_REPEATED: Duration = Duration::from_millis(250);
const SEAT: Duration = Duration::from_millis(250);

impl World {
    // --- what comes in ---

    /// A message has arrived at a node.
    pub(super) fn arrive(&mut self, from: NodeId, to: NodeId, message: Message) {
        if !self.node(to).is_up() || !self.network.works(from, to) {
            return self.lose(from, to, message);
        }
        let fact = Fact::Delivered { from, to, message };
        self.tell(&fact);
        let Fact::Delivered { message, .. } = fact else { unreachable!("it was made here") };
        let roles = self.node_mut(to).roles.as_mut().expect("it is up");
        match &message {
            Message::Acceptor(ToAcceptor::NextBallot(next)) => roles.status.heard(next.ballot),
            Message::Leader(ToLeader::MyNextBal(next)) => roles.status.heard(next.ballot),
            Message::FailureDetector(heartbeat) => roles.status.heard(heartbeat.ballot),
            Message::Acceptor(_) | Message::Leader(_) | Message::Learner(_) | Message::Gateway(_) => {}
        }
        match message.recipient() {
            Role::Acceptor | Role::Leader | Role::Learner => self.put(to, Mail::of(from, message)),
            Role::FailureDetector | Role::Gateway => self.take_at_once(to, from, message),
        }
    }

    /// For a role without a mailbox.
    fn take_at_once(&mut self, to: NodeId, from: NodeId, message: Message) {
        match message {
            Message::FailureDetector(heartbeat) => {
                self.detect(to, failure_detector::core::Input::Heartbeat { from, heartbeat });
            }
            Message::Gateway(message) => self.gateway(to, http_api::core::Input::FromLeader { from, message }),
            Message::Acceptor(_) | Message::Leader(_) | Message::Learner(_) => unreachable!("it has a mailbox"),
        }
    }

    /// Puts something into the mailbox of a role, unless that refuses it.
    pub(super) fn put(&mut self, id: NodeId, mail: Mail) {
        if self.chance.happens(self.swarm.pace.refused) {
            return;
        }
        let Some(roles) = &self.node(id).roles else { return };
        let waiting = match &mail {
            Mail::Acceptor(_) => roles.to_acceptor.len(),
            Mail::Leader(_) => roles.to_leader.len(),
            Mail::Learner(_) => roles.to_learner.len(),
        };
        if waiting < MAILBOX {
            self.put_surely(id, mail);
        }
    }

    /// The same for what its sender waits to put there.
    pub(super) fn put_surely(&mut self, id: NodeId, mail: Mail) {
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        let (role, first) = match mail {
            Mail::Acceptor(input) => {
                roles.to_acceptor.push_back(input);
                (Role::Acceptor, roles.to_acceptor.len() == 1)
            }
            Mail::Leader(input) => {
                roles.to_leader.push_back(input);
                (Role::Leader, roles.to_leader.len() == 1)
            }
            Mail::Learner(input) => {
                roles.to_learner.push_back(input);
                (Role::Learner, roles.to_learner.len() == 1)
            }
        };
        if first {
            self.wake(id, role);
        }
    }

    /// Schedules a turn.
    fn wake(&mut self, id: NodeId, role: Role) {
        let pace = &self.swarm.pace;
        let most = match role {
            Role::Acceptor => pace.acceptor,
            Role::Leader => pace.leader,
            Role::Learner => pace.learner,
            Role::FailureDetector | Role::Gateway => Duration::ZERO,
        };
        let pause = some_of(most, &mut self.chance);
        let life = self.node(id).life;
        self.schedule.after(pause, Event::Turn { node: id, life, role });
    }

    /// A role handles what its mailbox holds, and has another turn if that was too much.
    pub(super) fn turn(&mut self, id: NodeId, role: Role) {
        let most = self.swarm.pace.turn_inputs;
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        match role {
            Role::Acceptor => {
                let count = roles.to_acceptor.len().min(most);
                let inputs: Vec<_> = roles.to_acceptor.drain(..count).collect();
                self.acceptor_turn(id, inputs);
            }
            Role::Leader => {
                let count = roles.to_leader.len().min(most);
                let inputs: Vec<_> = roles.to_leader.drain(..count).collect();
                self.leader_turn(id, inputs);
            }
            Role::Learner => {
                let count = roles.to_learner.len().min(most);
                let inputs: Vec<_> = roles.to_learner.drain(..count).collect();
                self.learner_turn(id, inputs);
            }
            Role::FailureDetector | Role::Gateway => {}
        }
        let Some(roles) = &self.node(id).roles else { return };
        let left = match role {
            Role::Acceptor => roles.to_acceptor.len(),
            Role::Leader => roles.to_leader.len(),
            Role::Learner => roles.to_learner.len(),
            Role::FailureDetector | Role::Gateway => 0,
        };
        if left > 0 {
            self.wake(id, role);
        }
    }

    // --- turns ---

    pub(super) fn leader_turn(&mut self, id: NodeId, inputs: Vec<leader::core::Input>) {
        use leader::core::{Effect, Input};
        let now = self.clock(id);
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        let Some(roles) = &mut node.roles else { return };
        let planted = self.swarm.planted;
        let seen = planted::Seen::new(planted, &node.state);
        let acceptors = Arc::clone(&roles.membership);
        let (view, applied) = (roles.detector.view(), roles.progress.applied);
        let (silent, barred) = (roles.acceptor.silence().is_some(), roles.acceptor.is_barred());
        let own = Heard { speaks: !silent, can_lead: !barred, ..Heard::well(applied, []) };
        let replaced = &roles.replaced;
        let heard = || heard_by(id, &own, &view, replaced);
        let mut effects = Vec::new();
        let inputs = planted::heard(planted, inputs, acceptors.majority().nodes());
        for input in inputs.into_iter().chain([Input::EndOfTurn]) {
            let entropy = self.chance.any();
            let world = leader::core::World {
                now,
                entropy,
                machine: seen.machine(),
                functions: &node.functions,
                room: roles.takes_calls,
                heard: &heard,
                barred,
            };
            roles.leader.handle(input, &world, &mut effects);
        }
        self.tell_executions(id);
        let records = effects.iter().filter_map(Effect::record).cloned().collect();
        if !self.persist(id, records) {
            return;
        }
        for effect in effects {
            match effect {
                Effect::Persist(_) => {}
                Effect::Send { to, mut message } => {
                    if self.plants(Planted::NoBarrier) {
                        no_barrier::unveil(&mut message);
                    }
                    self.acknowledge_early(id, &message);
                    self.send(id, to, message);
                }
                Effect::RunOnPool(job) => self.run_on_pool(id, job),
                Effect::LearnFromPeer { peer, issued } => {
                    self.put(id, Mail::Learner(learner::Input::PeerIssued { peer, issued }));
                }
                Effect::Leads(ballot) => {
                    self.tell(&Fact::Leads { node: id, ballot });
                    self.tell_who_leads(id, |roles| roles.status.leads(ballot));
                }
                Effect::HandsOver(over) => {
                    let Some(roles) = &mut self.node_mut(id).roles else { return };
                    roles.status.hands_over(over);
                }
                Effect::Note(note) => self.tell(&Fact::Noted { node: id, note }),
                Effect::Ignored(reason) => self.ignored(id, "leader", reason.name()),
                Effect::Failed(_) => return self.stop(id, Stop::Disk),
            }
        }
    }

    fn run_on_pool(&mut self, id: NodeId, job: PoolJob) {
        let pause = some_of(self.swarm.pace.pool, &mut self.chance);
        let life = self.node(id).life;
        self.schedule.after(pause, Event::PoolBegins { node: id, life, job: Box::new(job) });
    }

    pub(super) fn pool_begins(&mut self, id: NodeId, job: &PoolJob) {
        let node = self.node(id);
        let life = node.life;
        let Some(function) = node.functions.get(&job.function) else { return };
        let execution = Box::new(run_on_snapshot(function.as_ref(), job, &node.state));
        self.tell_executions(id);
        let done = Box::new(leader::core::Input::PoolDone { job: job.job, execution });
        let pause = some_of(self.swarm.pace.pool, &mut self.chance);
        self.schedule.after(pause, Event::PoolEnds { node: id, life, done });
    }

    /// It comes back even through a full mailbox.
    pub(super) fn pool_ends(&mut self, id: NodeId, mut done: leader::core::Input) {
        if let leader::core::Input::PoolDone { execution, .. } = &mut done
            && self.plants(Planted::CertifiesNothing)
        {
            execution.reads = ReadSet::default();
        }
        self.put_surely(id, Mail::Leader(done));
    }

    pub(super) fn detect(&mut self, id: NodeId, input: failure_detector::core::Input) {
        use failure_detector::core::Effect;
        let now = self.clock(id);
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        let mut effects = Vec::new();
        roles.detector.handle(input, now, &mut effects);
        let highest = roles.status.highest();
        for effect in effects {
            match effect {
                Effect::Send { to, heartbeat } => self.send(id, to, Message::FailureDetector(heartbeat)),
                Effect::Suspect { peer, .. } => self.put(id, Mail::Learner(learner::Input::PeerLost(peer))),
                Effect::Trust(_) => {}
                Effect::Campaign { .. } | Effect::TakeOver { .. } => {
                    self.put(id, Mail::Leader(leader::core::Input::Campaign { above: highest }));
                }
                Effect::StepDown { .. } => {
                    let why = "no majority set is in touch with it";
                    self.put(id, Mail::Leader(leader::core::Input::StepDown(why)));
                }
                Effect::StandAside { .. } => {
                    self.put(id, Mail::Leader(leader::core::Input::StepDown(failure_detector::core::TOO_MANY_SILENT)));
                }
                Effect::HandOver => {
                    let or_else = Some("its disk is almost full");
                    self.put(id, Mail::Leader(leader::core::Input::HandOver { or_else }));
                }
                Effect::TakesCalls(takes) => {
                    let Some(roles) = &mut self.node_mut(id).roles else { return };
                    roles.takes_calls = takes;
                }
                Effect::LeaderIs(leader) => self.tell_who_leads(id, |roles| roles.status.sees(leader)),
                Effect::PeerIssued { peer, issued } => {
                    self.put(id, Mail::Learner(learner::Input::PeerIssued { peer, issued }));
                }
                Effect::PeerDurable { peer, durable } => {
                    self.put(id, Mail::Learner(learner::Input::PeerDurable { peer, durable }));
                }
                Effect::Ignored(reason) => self.ignored(id, "failure_detector", reason.name()),
            }
        }
    }

    /// Changes what is known of who leads, and tells the gateway, and an acceptor that is silent, unless a mailbox
    /// is full.
    fn tell_who_leads(&mut self, id: NodeId, change: impl FnOnce(&mut Roles)) {
        let refused = self.chance.happens(self.swarm.pace.refused);
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        change(roles);
        let led = roles.status.leader();
        let leader = led.map(|ballot| ballot.node);
        let is_silent = roles.acceptor.silence().is_some();
        if !refused && roles.gateway.leader() != leader {
            self.gateway(id, http_api::core::Input::LeaderIs(leader));
        }
        if let Some(ballot) = led.filter(|_| is_silent) {
            self.put(id, Mail::Acceptor(acceptor::core::Input::Led(ballot)));
        }
    }

    pub(super) fn gateway(&mut self, id: NodeId, input: http_api::core::Input) {
        use http_api::core::Effect;
        let now = self.clock(id).tick;
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        let mut effects = Vec::new();
        roles.gateway.handle(input, now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(id, to, message),
                Effect::Answer { ticket, answer } => self.gateway_answers(id, ticket, answer),
                Effect::Ignored(reason) => self.ignored(id, "gateway", reason.name()),
            }
        }
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        let idle = roles.gateway.is_idle() && roles.reads.is_empty();
        if !idle && !roles.gateway_ticks {
            roles.gateway_ticks = true;
            self.set_timer(id, Timer::Gateway);
        }
    }

    // --- timers ---

    pub(super) fn on_timer(&mut self, id: NodeId, timer: Timer) {
        match timer {
            Timer::Detector => {
                let Node { roles: Some(roles), space, .. } = self.node(id) else { return };
                let local = roles.status.local(roles.progress, *space, &roles.acceptor, &roles.leader);
                self.detect(id, failure_detector::core::Input::Tick(local));
            }
            Timer::Leader => {
                let applied = self.node(id).state.applied();
                let inputs = vec![leader::core::Input::Learned(applied), leader::core::Input::Tick];
                self.leader_turn(id, inputs);
            }
            Timer::Learner => self.put_surely(id, Mail::Learner(learner::Input::Tick)),
            Timer::Sync => self.sync(id),
            Timer::RepeatLeader => self.tell_who_leads(id, |_| {}),
            Timer::Seat => self.mind_seat(id),
            Timer::Gateway => {
                self.gateway(id, http_api::core::Input::Tick);
                self.expire_reads(id);
                let Some(roles) = &mut self.node_mut(id).roles else { return };
                if roles.gateway.is_idle() && roles.reads.is_empty() {
                    roles.gateway_ticks = false;
                    return;
                }
            }
        }
        self.set_timer(id, timer);
    }

    pub(super) fn set_timer(&mut self, id: NodeId, timer: Timer) {
        let pause = self.node(id).clocks.real(self.interval(timer));
        let life = self.node(id).life;
        self.schedule.after(pause, Event::Timer { node: id, life, timer });
    }

    pub(super) fn interval(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Detector => (self.swarm.heartbeat / 4).clamp(Duration::from_millis(1), Duration::from_millis(10)),
            Timer::Leader => LEADER_TICK,
            Timer::Learner => LEARNER_TICK,
            Timer::Sync => SYNC,
            Timer::Gateway => GATEWAY_TICK,
            Timer::RepeatLeader => LEADER_REPEATED,
            Timer::Seat => SEAT,
        }
    }

    // --- what goes out ---

    /// The barrier. False when the node went down at it, and nothing that follows happens.
    pub(super) fn persist(&mut self, id: NodeId, records: Vec<LogRecord>) -> bool {
        if records.is_empty() {
            return self.node(id).is_up();
        }
        let cut = self.node_mut(id).cut.take();
        match cut {
            Some(Cut::Before) => {
                self.crash(id);
                return false;
            }
            // Some whole records, and perhaps bytes of the next one.
            Some(Cut::Within) => {
                let kept = self.chance.index(records.len());
                self.node(id).log.tear(&records, kept);
                self.tell(&Fact::Fault(Fault::TornWrite(id)));
                self.crash(id);
                return false;
            }
            Some(Cut::After) | None => {}
        }
        let node = self.node_mut(id);
        if let Some(fault) = node.log_fault {
            node.log.fail_next(fault);
        }
        if storage::LogStore::write(&node.log, &records).is_err() {
            self.disk_failed(id);
            return false;
        }
        self.tell(&Fact::Written { node: id, records });
        if cut == Some(Cut::After) {
            self.crash(id);
            return false;
        }
        true
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if !self.node(from).is_up() {
            return;
        }
        let fact = Fact::Sent { from, to, message };
        self.tell(&fact);
        let Fact::Sent { message, .. } = fact else { unreachable!("it was made here") };
        if to == from {
            return self.arrive(from, to, message);
        }
        let mut fate = self.network.send(from, to, self.schedule.now(), &mut self.chance);
        let Some(last) = fate.arrivals.pop() else {
            self.tell_mishaps(to, &message, &fate.faults);
            return self.lose(from, to, message);
        };
        if !self.nodes.contains_key(&to) {
            // It was admitted, and has not come yet.
            return self.lose(from, to, message);
        }
        // The copy that comes first has had all else.
        let is_double = !fate.arrivals.is_empty();
        for at in fate.arrivals {
            let mishaps = fate.faults.extract_if(.., |mishap| *mishap != Mishap::Duplicate).collect();
            self.schedule.at(at, Event::Arrive { from, to, message: message.clone(), mishaps, life: None });
        }
        let is_call = matches!(message, Message::Leader(ToLeader::ExecuteFunction(_)));
        let life = (is_double && is_call).then_some(self.node(to).life);
        self.schedule.at(last, Event::Arrive { from, to, message, mishaps: fate.faults, life });
    }

    /// Nothing bad happens to what nobody would have heard anyway.
    pub(super) fn tell_mishaps(&mut self, to: NodeId, message: &Message, mishaps: &[Mishap]) {
        let heartbeat = message.recipient() == Role::FailureDetector;
        if self.nodes.get(&to).is_some_and(Node::is_up) {
            for mishap in mishaps.iter().copied() {
                self.tell(&Fact::Fault(Fault::Message { mishap, heartbeat }));
            }
        }
    }

    fn tell_executions(&mut self, id: NodeId) {
        for function in self.node(id).executions.take() {
            self.tell(&Fact::Executed { node: id, function });
        }
    }

    pub(super) fn ignored(&mut self, node: NodeId, role: &'static str, reason: &'static str) {
        self.tell(&Fact::Ignored { node, role, reason });
    }
}
