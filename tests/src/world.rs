//! A small world in which a test decides everything.
//!
//! Its nodes are made of the shipped cores (acceptor, leader, learner) over storage in memory
//! with the semantics of a crash. What nodes send lies in a list until the test delivers, drops
//! or doubles it; time stands still until the test moves it; a crash loses what was not synced.
//! There is no failure detector: a test says who campaigns ([`World::campaign`]) and who hears
//! how far another node is ([`World::gossip`]).
//!
//! Rules, those of the actors:
//!
//! - one input is one turn: handle it, make durable what it says (the barrier), then send;
//! - a learner applies before anything else of its turn is seen, then tells the acceptor and
//!   the leader of its node;
//! - a reply is seen by the caller at the moment it leaves: whatever left may have been read.
//!
//! After every input [`Checks`] looks for broken invariants (DESIGN 14) and panics with the
//! text of the one that broke, so that no test can pass over one.

mod checks;
mod event;
mod node;
mod picture;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::message::{CatchUp, Commands, ReadBarrier, Stored, ToLeader, ToLearner};
use protocol::{
    Ballot, Call, CommandId, CommandNumber, Fingerprint, LearnFrom, Message, NodeId, Now, Outcome, RequestId, Tick,
    Timestamp,
};
use simulator::fact::Stop;
use storage::{LogRecord, LogStore, StateStore};

pub use checks::Checks;
pub use event::{Device, Envelope, Event, Said};
pub use node::{Local, Node, Roles, stock_in};
pub use picture::picture;

/// The devices of the patent's FIG. 8.
pub const P: NodeId = NodeId(1);
/// See [`P`].
pub const Q: NodeId = NodeId(2);
/// See [`P`].
pub const R: NodeId = NodeId(3);

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many nodes, each with all roles; their ids count from 1.
    pub nodes: u64,
    /// How many of them, the last ones, are no members at first, and down until they join ([`World::join`]).
    pub spare: u64,
    /// Who decides that a command is issued.
    pub learn_from: LearnFrom,
    /// Claim 5.
    pub window: u64,
    /// `BeginBallot` rounds under way before commands are gathered.
    pub rounds_in_flight: u64,
    /// Bytes in one `BeginBallot` beyond its first command; 1 puts every command into its own.
    pub run_bytes: usize,
    /// Whether what the roles of one node tell each other waits, in order, until
    /// [`World::run_local`]. Otherwise it is handled at once.
    pub local_delays: bool,
    /// How long outcomes of calls are kept.
    pub retention: Duration,
    /// Whether the states of all nodes are compared after every command: that reads all of them.
    pub digests: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: 3,
            spare: 0,
            learn_from: LearnFrom::Leader,
            window: 64,
            rounds_in_flight: 2,
            run_bytes: 1 << 20,
            local_delays: false,
            retention: Duration::from_secs(24 * 3600),
            digests: true,
        }
    }
}

/// When the power of a node goes: around one of its next log writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing of the write is on the disk.
    Before(usize),
    /// The write is durable, and nothing that follows it has left the node.
    After(usize),
}

/// See the module.
pub struct World {
    settings: Settings,
    nodes: BTreeMap<NodeId, Node>,
    /// What was sent and is not delivered, in order of sending.
    undelivered: Vec<Envelope>,
    blocked: BTreeSet<(NodeId, NodeId)>,
    now: Now,
    entropy: u64,
    events: Vec<Event>,
    cuts: BTreeMap<NodeId, Cut>,
    checks: Checks,
    watch: Option<Watch>,
}

/// Looks at a node, and panics when it sees what must not be.
type Watch = Box<dyn Fn(&Node)>;

/// No test needs more deliveries than this to come to rest; beyond it messages go in circles.
const DELIVERIES_MAX: usize = 100_000;

impl World {
    /// A world whose nodes are up and know nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let nodes = (1..=settings.nodes).map(|id| (NodeId(id), Node::new(NodeId(id), &settings))).collect();
        Self {
            checks: Checks::new(&settings),
            settings,
            nodes,
            undelivered: Vec::new(),
            blocked: BTreeSet::new(),
            now: Now { tick: Tick(1_000_000), wall: Timestamp(1_700_000_000_000) },
            entropy: 0,
            events: Vec::new(),
            cuts: BTreeMap::new(),
            watch: None,
        }
    }

    /// Three nodes, and the leader announces what is issued.
    #[must_use]
    pub fn three() -> Self {
        Self::new(Settings::default())
    }

    /// What it is made of.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The ids of all nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// A node.
    ///
    /// # Panics
    /// When there is none of that id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).expect("a node of this world")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this world")
    }

    /// What happened so far, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What was sent and is not delivered, in order of sending.
    #[must_use]
    pub fn undelivered(&self) -> &[Envelope] {
        &self.undelivered
    }

    /// How many undelivered messages match.
    #[must_use]
    pub fn in_flight(&self, which: impl Fn(&Envelope) -> bool) -> usize {
        self.undelivered.iter().filter(|envelope| which(envelope)).count()
    }

    /// What is known to be issued somewhere.
    #[must_use]
    pub fn checks(&self) -> &Checks {
        &self.checks
    }

    /// From now on `watch` looks at each node after each of its inputs.
    pub fn watch(&mut self, watch: impl Fn(&Node) + 'static) {
        self.watch = Some(Box::new(watch));
    }

    /// Says where the test is in its story, for its picture.
    pub fn remark(&mut self, text: &'static str) {
        self.events.push(Event::Remark(text));
    }

    // --- what the test makes happen ---

    /// A node asks for promises, in a ballot above all that it has heard of.
    pub fn campaign(&mut self, node: NodeId) {
        self.take(node, Local::Leader(leader::core::Input::Campaign { above: Ballot::NONE }));
    }

    /// The same, in a ballot of this round.
    pub fn campaign_in_round(&mut self, node: NodeId, round: u64) {
        let above = Ballot::new(round - 1, NodeId(u64::MAX));
        self.take(node, Local::Leader(leader::core::Input::Campaign { above }));
    }

    /// A node gives up its lead.
    pub fn step_down(&mut self, node: NodeId) {
        self.take(node, Local::Leader(leader::core::Input::StepDown("the test says so")));
    }

    /// A call of a caller at `via` is on its way to `to`. Its answers are found under `name`.
    pub fn call(&mut self, via: NodeId, to: NodeId, name: &str, function: &str, arguments: &serde_json::Value) {
        self.send_call(via, to, call(name, function, arguments, Duration::ZERO));
    }

    /// The same, whose caller waits so long for a refusal to pass.
    pub fn call_patiently(
        &mut self,
        via: NodeId,
        to: NodeId,
        name: &str,
        function: &str,
        arguments: &serde_json::Value,
    ) {
        self.send_call(via, to, call(name, function, arguments, Duration::from_secs(10)));
    }

    /// Any call.
    pub fn send_call(&mut self, via: NodeId, to: NodeId, call: Call) {
        self.checks.called(&call);
        self.send(via, to, Message::Leader(ToLeader::ExecuteFunction(call)));
    }

    /// A linearizable read at `via` asks `to` for its number.
    pub fn read_barrier(&mut self, via: NodeId, to: NodeId, id: u64) {
        self.checks.reads(id);
        self.send(via, to, Message::Leader(ToLeader::ReadBarrier(ReadBarrier { id })));
    }

    /// Any message: what a test forges.
    pub fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.events.push(Event::Sent { from, to, message: message.clone() });
        if self.blocked.contains(&(from, to)) {
            self.events.push(Event::Lost { from, to, message });
        } else {
            self.undelivered.push(Envelope { from, to, message });
        }
    }

    /// Delivers the matching messages that are undelivered now, in order of sending, and not
    /// those that they lead to. Says how many.
    pub fn deliver_if(&mut self, which: impl Fn(&Envelope) -> bool) -> usize {
        let (chosen, rest) = std::mem::take(&mut self.undelivered).into_iter().partition(|envelope| which(envelope));
        self.undelivered = rest;
        let chosen: Vec<Envelope> = chosen;
        let count = chosen.len();
        for envelope in chosen {
            self.hand_over(envelope);
        }
        count
    }

    /// Delivers the message at this place of the list.
    pub fn deliver_at(&mut self, index: usize) {
        let envelope = self.undelivered.remove(index);
        self.hand_over(envelope);
    }

    /// Delivers matching messages, and what they lead to, until none is left. Says how many.
    ///
    /// # Panics
    /// When that does not end.
    pub fn settle_if(&mut self, which: impl Fn(&Envelope) -> bool) -> usize {
        let mut delivered = 0;
        while let Some(index) = self.undelivered.iter().position(&which) {
            self.deliver_at(index);
            delivered += 1;
            assert!(delivered < DELIVERIES_MAX, "messages go in circles");
        }
        delivered
    }

    /// Delivers everything, until nothing is left.
    pub fn settle(&mut self) -> usize {
        self.settle_if(|_| true)
    }

    /// Loses the matching messages that are undelivered now. Says how many.
    pub fn drop_if(&mut self, which: impl Fn(&Envelope) -> bool) -> usize {
        let all = std::mem::take(&mut self.undelivered).into_iter();
        let (lost, kept): (Vec<_>, Vec<_>) = all.partition(|envelope| which(envelope));
        self.undelivered = kept;
        let count = lost.len();
        let lost = lost.into_iter().map(|Envelope { from, to, message }| Event::Lost { from, to, message });
        self.events.extend(lost);
        count
    }

    /// Doubles the matching messages that are undelivered now.
    pub fn double_if(&mut self, which: impl Fn(&Envelope) -> bool) {
        let again: Vec<Envelope> = self.undelivered.iter().filter(|envelope| which(envelope)).cloned().collect();
        self.undelivered.extend(again);
    }

    /// From now on nothing gets from one node to the other, and nothing that is on its way.
    pub fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
        self.drop_if(|envelope| (envelope.from, envelope.to) == (from, to));
    }

    /// All links work again.
    pub fn heal(&mut self) {
        self.blocked.clear();
    }

    /// Time passes, and all nodes are told.
    pub fn advance(&mut self, duration: Duration) {
        self.now.tick = self.now.tick + duration;
        self.now.wall = Timestamp(self.now.wall.0 + u64::try_from(duration.as_millis()).expect("a short time"));
        for node in self.ids() {
            self.take(node, Local::Leader(leader::core::Input::Tick));
            self.take(node, Local::Learner(learner::Input::Tick));
        }
    }

    /// Every node hears from every other, where the link works, how far it is: what heartbeats
    /// do.
    pub fn gossip(&mut self) {
        for peer in self.ids() {
            for node in self.ids() {
                if node != peer && !self.blocked.contains(&(peer, node)) {
                    self.hear(node, peer);
                }
            }
        }
    }

    fn hear(&mut self, node: NodeId, peer: NodeId) {
        if let Some(roles) = &self.node(peer).roles {
            let issued = roles.learner.issued().number;
            self.take(node, Local::Learner(learner::Input::PeerIssued { peer, issued }));
        }
    }

    /// Time passes and messages arrive until nothing is left to say: what happens by itself
    /// when nothing is lost any more. At most this many rounds of 100 ms.
    pub fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.run_local();
            self.settle();
            self.run_local();
            self.gossip();
            self.advance(Duration::from_millis(100));
        }
        self.settle();
        self.run_local();
    }

    /// Handles what the roles of the nodes have told each other, until nothing is left.
    pub fn run_local(&mut self) {
        for node in self.ids() {
            while self.step_local(node) {}
        }
    }

    /// Handles the oldest thing that the roles of this node have told each other; says whether
    /// there was one.
    pub fn step_local(&mut self, node: NodeId) -> bool {
        let next = self.node_mut(node).inbox.pop_front();
        next.is_some_and(|input| {
            self.handle(node, input);
            true
        })
    }

    /// A power cut: what was not synced is gone, and what the node had sent to itself.
    pub fn crash(&mut self, node: NodeId) {
        self.stop(node, Stop::PowerCut);
        let node = self.node(node);
        node.log.crash();
        node.state.crash();
    }

    /// `kill -9`: what was written is there, and what the node had sent to itself is gone.
    pub fn kill(&mut self, node: NodeId) {
        self.stop(node, Stop::Killed);
        let node = self.node(node);
        node.log.restart();
        node.state.restart();
    }

    fn stop(&mut self, node: NodeId, why: Stop) {
        self.events.push(Event::Stopped { node, why });
        self.undelivered.retain(|envelope| !(envelope.from == node && envelope.to == node));
        self.cuts.remove(&node);
        let node = self.node_mut(node);
        node.roles = None;
        node.inbox.clear();
        node.jobs.clear();
    }

    /// A node comes back with what its disk holds.
    pub fn restart(&mut self, node: NodeId) {
        let settings = self.settings.clone();
        self.node_mut(node).start(&settings);
        self.checks.restarted(self.node(node));
        let life = self.node(node).life();
        self.events.push(Event::Restarted { node, life });
    }

    /// A node that is a member now starts for the first time, and is told of the membership by `from`.
    ///
    /// # Panics
    /// When that one does not know of it.
    pub fn join(&mut self, node: NodeId, from: NodeId) {
        let membership = Arc::clone(self.node(from).membership());
        assert!(membership.node(node).is_some(), "{node} is no member");
        self.node_mut(node).membership = membership;
        self.restart(node);
    }

    /// A power cut around one of the next log writes of a node.
    pub fn cut_power(&mut self, node: NodeId, cut: Cut) {
        self.cuts.insert(node, cut);
    }

    /// Makes the state of a node durable, as it does once a second.
    pub fn sync(&mut self, node: NodeId) {
        self.node(node).state.sync().expect("memory does not fail");
    }

    /// Runs the oldest job of a node's pool now, and holds what came of it.
    ///
    /// # Panics
    /// When there is no job.
    pub fn run_job(&mut self, node: NodeId) -> leader::core::Input {
        self.node_mut(node).run_job()
    }

    /// The pool of a node is done with a job.
    pub fn finish_job(&mut self, node: NodeId, done: leader::core::Input) {
        self.take(node, Local::Leader(done));
    }

    // --- what the test sees ---

    /// The ballot that a node leads.
    #[must_use]
    pub fn leads(&self, node: NodeId) -> Option<Ballot> {
        self.node(node).roles.as_ref().and_then(|roles| roles.leader.leads())
    }

    /// All outcomes that left any leader for the call of this name, in order.
    #[must_use]
    pub fn outcomes(&self, name: &str) -> Vec<Outcome> {
        self.answers(name).into_iter().map(|(outcome, _)| outcome).collect()
    }

    /// The same, and whether each is stored.
    #[must_use]
    pub fn answers(&self, name: &str) -> Vec<(Outcome, Stored)> {
        let request = request(name);
        let replies = self.events.iter().filter_map(Event::answer);
        let replies = replies.filter(|executed| executed.request == request);
        replies.map(|executed| (executed.outcome.clone(), executed.stored)).collect()
    }

    /// All answers that left any leader for the read barrier of this id, in order.
    #[must_use]
    pub fn barriers(&self, id: u64) -> Vec<Option<CommandNumber>> {
        self.events.iter().filter_map(Event::barrier).filter(|passed| passed.id == id).map(|passed| passed.at).collect()
    }

    /// How many commands a node has applied.
    #[must_use]
    pub fn applied(&self, node: NodeId) -> u64 {
        self.node(node).state.applied().number.0
    }

    /// The ids of the commands that a node has applied, in order of numbers.
    #[must_use]
    pub fn chain(&self, node: NodeId) -> Vec<CommandId> {
        let commands = self.node(node).state.commands(CommandNumber(1), usize::MAX, usize::MAX);
        commands.expect("memory does not fail").expect("all are kept").iter().map(|command| command.id).collect()
    }

    // --- how it happens ---

    fn hand_over(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        self.events.push(Event::Delivered { from, to, message: message.clone() });
        let input = match message {
            Message::Acceptor(message) => Local::Acceptor(acceptor::core::Input::Message { from, message }),
            Message::Leader(message) => Local::Leader(leader::core::Input::Message { from, message }),
            Message::Learner(message) => Local::Learner(learner::Input::Message { from, message }),
            Message::FailureDetector(_) => panic!("there are no failure detectors in this world"),
            Message::Gateway(_) => panic!("replies are seen when they leave"),
        };
        self.take(to, input);
    }

    /// One input, and unless they are delayed what the roles of the node then tell each other.
    fn take(&mut self, node: NodeId, input: Local) {
        self.handle(node, input);
        while !self.settings.local_delays && self.step_local(node) {}
    }

    fn handle(&mut self, id: NodeId, input: Local) {
        self.entropy += 1;
        let (now, entropy) = (self.now, self.entropy);
        let heard = self.heard_by(id);
        let node = self.node_mut(id);
        let Some(roles) = &mut node.roles else { return };
        match input {
            Local::Acceptor(input) => {
                let mut effects = Vec::new();
                roles.acceptor.handle(input, &mut effects);
                self.carry_out_acceptor(id, effects);
            }
            Local::Leader(input) => {
                let effects = node.lead(input, now, entropy, &heard);
                self.carry_out_leader(id, effects);
            }
            Local::Learner(input) => {
                let effects = roles.learner.handle(input, now);
                self.carry_out_learner(id, effects);
            }
        }
        self.checks.looked_at(self.node(id));
        if let Some(watch) = &self.watch {
            watch(self.node(id));
        }
    }

    /// What a failure detector would say: which nodes are up and get through, and how far each is.
    fn heard_by(&self, node: NodeId) -> BTreeMap<NodeId, CommandNumber> {
        let up = self.nodes.values().filter(|peer| peer.roles.is_some() && !self.blocked.contains(&(peer.id, node)));
        up.map(|peer| (peer.id, peer.state.applied().number)).collect()
    }

    fn carry_out_acceptor(&mut self, id: NodeId, effects: Vec<acceptor::core::Effect>) {
        use acceptor::core::Effect;
        let records = effects.iter().filter_map(|effect| match effect {
            Effect::Persist(record) => Some(record.clone()),
            Effect::Proposed { .. } | Effect::Send { .. } | Effect::Speaks | Effect::Ignored(_) => None,
        });
        if !self.persist(id, &records.collect::<Vec<_>>()) {
            return;
        }
        for effect in effects {
            match effect {
                Effect::Persist(_) | Effect::Speaks => {}
                Effect::Proposed { ballot, commands } => {
                    let proposed = learner::Input::Proposed { ballot, commands };
                    self.node_mut(id).inbox.push_back(Local::Learner(proposed));
                }
                Effect::Send { to, message } => self.send_checked(id, to, message),
                Effect::Ignored(reason) => self.ignored(id, "acceptor", reason.name()),
            }
        }
    }

    fn carry_out_leader(&mut self, id: NodeId, effects: Vec<leader::core::Effect>) {
        use leader::core::Effect;
        let records = effects.iter().filter_map(Effect::record).cloned();
        if !self.persist(id, &records.collect::<Vec<_>>()) {
            return;
        }
        for effect in effects {
            match effect {
                Effect::Persist(_) | Effect::Leads(_) | Effect::HandsOver(_) => {}
                Effect::Send { to, message: Message::Gateway(reply) } => {
                    self.checks.answered(&reply);
                    self.events.push(Event::Answered { leader: id, gateway: to, reply });
                }
                Effect::Send { to, message } => self.send_checked(id, to, message),
                Effect::RunOnPool(job) => self.node_mut(id).jobs.push_back(job),
                Effect::LearnFromPeer { peer, issued } => {
                    self.node_mut(id).inbox.push_back(Local::Learner(learner::Input::PeerIssued { peer, issued }));
                }
                Effect::Note(note) => self.events.push(Event::Noted { node: id, note }),
                Effect::Ignored(reason) => self.ignored(id, "leader", reason.name()),
                Effect::Failed(error) => panic!("memory does not fail: {error}"),
            }
        }
    }

    fn carry_out_learner(&mut self, id: NodeId, effects: Vec<learner::Effect>) {
        use learner::Effect;
        let mut serve = None;
        for effect in effects {
            match effect {
                Effect::Apply(commands) => {
                    let node = self.nodes.get_mut(&id).expect("a node of this world");
                    for command in &commands {
                        node.state.apply(std::slice::from_ref(command)).expect("memory does not fail");
                        self.checks.applied(node, command);
                    }
                    node.take_membership();
                    let last = node.state.applied();
                    node.inbox.push_back(Local::Acceptor(acceptor::core::Input::Issued(last)));
                    node.inbox.push_back(Local::Leader(leader::core::Input::Learned(last)));
                    self.events.push(Event::Applied { node: id, commands });
                }
                Effect::Ask { to, first } => {
                    self.send_checked(id, to, Message::Learner(ToLearner::CatchUp(CatchUp { first })));
                }
                Effect::Send { to, message } => self.send_checked(id, to, message),
                Effect::Serve { to, first } => serve = Some((to, first)),
                Effect::Ignored(reason) => {
                    assert!(
                        !matches!(reason, learner::IgnoreReason::Contradiction { .. }),
                        "invariant 1, as the learner of {id} sees it: {reason:?}"
                    );
                    self.ignored(id, "learner", reason.name());
                }
                Effect::Digest { .. }
                | Effect::NoDigest { .. }
                | Effect::Forget { .. }
                | Effect::Reclaim(_)
                | Effect::MakeCheckpoint
                | Effect::ServePiece { .. }
                | Effect::CloseCheckpoint(_)
                | Effect::Stage { .. }
                | Effect::Install
                | Effect::DropStaged => panic!("nobody asks for digests here, and nothing is forgotten: {effect:?}"),
            }
        }
        if let Some((to, first)) = serve {
            let state = &self.node(id).state;
            // A small piece, so that catching up takes several.
            let commands = state.commands(first, 3, usize::MAX).expect("memory does not fail").unwrap_or_default();
            let (issued, kept_from) = (state.applied(), state.kept_from());
            let answer = Commands { commands, issued, kept_from };
            self.send_checked(id, to, Message::Learner(ToLearner::Commands(answer)));
        }
    }

    fn send_checked(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.checks.sent(self.nodes.get(&from).expect("a node of this world"), &message);
        self.send(from, to, message);
    }

    fn ignored(&mut self, node: NodeId, role: &'static str, reason: &'static str) {
        self.events.push(Event::Ignored { node, role, reason });
    }

    /// The barrier. False when the power went: nothing that follows happens.
    fn persist(&mut self, id: NodeId, records: &[LogRecord]) -> bool {
        if records.is_empty() {
            return true;
        }
        let cut = self.cuts.get(&id).copied();
        if cut == Some(Cut::Before(0)) {
            self.crash(id);
            return false;
        }
        self.node(id).log.write(records).expect("memory does not fail");
        self.checks.written(id, records);
        match cut {
            Some(Cut::After(0)) => {
                self.crash(id);
                return false;
            }
            Some(Cut::Before(left)) => self.cut_power(id, Cut::Before(left - 1)),
            Some(Cut::After(left)) => self.cut_power(id, Cut::After(left - 1)),
            None => {}
        }
        true
    }
}

/// The request id of the call of this name.
///
/// # Panics
/// When the name is none for a key.
#[must_use]
pub fn request(name: &str) -> RequestId {
    RequestId::caller(name).expect("a name of visible characters")
}

/// A call, named by its request id, whose only copy this is ([`Call::copy`]).
#[must_use]
pub fn call(name: &str, function: &str, arguments: &serde_json::Value, patience: Duration) -> Call {
    let text = arguments.to_string();
    // Any digest will do that tells the bodies of one test apart.
    let mut fingerprint = [0; 16];
    for (index, byte) in function.bytes().chain(text.bytes()).enumerate() {
        fingerprint[index % 16] = (fingerprint[index % 16] ^ byte).rotate_left(3);
    }
    Call {
        request: request(name),
        fingerprint: Fingerprint(fingerprint),
        function: function.to_owned(),
        arguments: Bytes::from(text),
        patience,
        copy: 0,
    }
}
