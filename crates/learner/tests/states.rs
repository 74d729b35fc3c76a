//! Learners with real stores, which forget nearly everything: who was away gets a whole state while commands go on.
//! Messages are lost, doubled and reordered, the power goes, and what is done beside the learner ends at any time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::message::{CatchUp, Commands, Snapshot, Success, ToLearner};
use protocol::{
    Ballot, Command, CommandBody, CommandId, CommandNumber, Effect as Change, Fingerprint, Forget, Key, LearnFrom,
    Membership, Message, NodeId, Now, RequestId, SnapshotId, SnapshotPiece, Tick, Timestamp, Verdict,
};
use quorate_learner::{Config, Effect, IgnoreReason, Input, Learner, Stored, Timing};
use storage::memory::MemoryState;
use storage::{Checkpoint, Retention, StateStore as _};

const NODES: u64 = 3;
const LEADER: NodeId = NodeId(1);
const WINDOW: usize = 4;
/// Commands that a store keeps.
const KEPT: u64 = 2;
/// Bytes of a piece: a few records.
const PIECE: usize = 300;

/// What a store is told to do beside its learner, in order.
enum Job {
    Stage(SnapshotId, SnapshotPiece),
    Install,
    Drop,
}

struct Node {
    core: Learner,
    store: MemoryState,
    checkpoints: BTreeMap<SnapshotId, Box<dyn Checkpoint>>,
    jobs: VecDeque<Job>,
    installing: bool,
}

struct World {
    chain: Vec<Command>,
    nodes: BTreeMap<NodeId, Node>,
    messages: Vec<(NodeId, NodeId, Message)>,
    now: Now,
    /// Votes up to here may be gone.
    forgotten: CommandNumber,
    installed: usize,
}

fn config(me: NodeId) -> Config {
    Config {
        me,
        membership: Membership::of_equals(NODES),
        learn_from: LearnFrom::Leader,
        window: WINDOW as u64,
        timing: Timing::default(),
    }
}

/// The command with the next number: it changes one of a few keys, and its outcome is stored.
fn next(chain: &[Command]) -> Command {
    let precedent = chain.last().map_or(CommandId::NULL, |last| last.id);
    let number = precedent.number.next();
    let key = Key::new(format!("key-{}", number.0 % 7)).expect("a key");
    let effects = if number.0.is_multiple_of(5) {
        vec![Change::Delete { key }]
    } else {
        vec![Change::Put { key, value: Bytes::from(number.to_string()) }]
    };
    let body = CommandBody {
        time: Timestamp(number.0),
        request: RequestId::Gateway(number.0.into()),
        fingerprint: Fingerprint::default(),
        function: "kv.put".into(),
        verdict: Verdict::Changed(Bytes::from_static(b"null")),
        effects,
        forget: Forget::default(),
    };
    Command { id: CommandId::new(Ballot::new(1, LEADER), number), precedent, body: body.encode() }
}

impl World {
    fn new() -> Self {
        let node = |id| {
            let store = MemoryState::new();
            let core = Learner::new(config(id), Stored::of(&store));
            let (checkpoints, jobs) = Default::default();
            (id, Node { core, store, checkpoints, jobs, installing: false })
        };
        let nodes = (1..=NODES).map(NodeId).map(node).collect();
        let (chain, messages) = Default::default();
        Self { chain, nodes, messages, now: Now::default(), forgotten: CommandNumber::NULL, installed: 0 }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node")
    }

    /// Another command is issued; the leader's node has its body, and the others perhaps.
    fn issue(&mut self) {
        self.chain.push(next(&self.chain));
        self.announce(LEADER);
    }

    /// A node hears how far everything is, with what votes still hold of it.
    fn announce(&mut self, id: NodeId) {
        let Some(issued) = self.chain.last().map(|last| last.id) else { return };
        let known = self.node(id).core.issued().number.max(self.forgotten);
        let commands = self.chain.iter().filter(|command| command.number() > known).take(WINDOW).cloned();
        let commands: Vec<Command> = commands.collect();
        let issued = commands.last().map_or(issued, |last| last.id);
        let success = Success { ballot: Ballot::new(1, LEADER), issued, commands };
        self.take(id, Input::Message { from: LEADER, message: ToLearner::Success(success) });
    }

    /// All that heartbeats say of one node to another.
    fn hear(&mut self, from: NodeId, to: NodeId) {
        let (issued, durable) = (self.node(from).core.issued().number, self.node(from).store.durable());
        self.take(to, Input::PeerDurable { peer: from, durable });
        if issued > self.node(to).core.issued().number {
            self.take(to, Input::PeerIssued { peer: from, issued });
        }
    }

    fn take(&mut self, id: NodeId, input: Input) {
        self.now.tick = self.now.tick + Duration::from_millis(10);
        let now = self.now;
        let effects = self.node(id).core.handle(input, now);
        let mut waiting = Vec::new();
        for effect in effects {
            let node = self.nodes.get_mut(&id).expect("a node");
            match effect {
                Effect::Apply(commands) => {
                    assert!(!node.installing, "applied to a state that is being replaced");
                    node.store.apply(&commands).expect("memory does not fail");
                    assert!(commands.iter().all(|command| self.chain.contains(command)), "not what is issued");
                }
                Effect::Ask { to, first } => {
                    self.messages.push((id, to, Message::Learner(ToLearner::CatchUp(CatchUp { first }))));
                }
                Effect::Send { to, message } => self.messages.push((id, to, message)),
                Effect::Serve { to, first } => {
                    let commands = node.store.commands(first, 2, usize::MAX).expect("memory does not fail");
                    let (issued, kept_from) = (node.store.applied(), node.store.kept_from());
                    let answer = Commands { commands: commands.unwrap_or_default(), issued, kept_from };
                    self.messages.push((id, to, Message::Learner(ToLearner::Commands(answer))));
                }
                Effect::Forget { durable, .. } => {
                    self.forgotten = self.forgotten.max(durable);
                    let retention = Retention { commands: KEPT, bytes: u64::MAX, since: Timestamp::default() };
                    node.store.forget_commands(&retention, durable).expect("memory does not fail");
                    waiting.push(kept(node));
                }
                Effect::Reclaim(space) => node.store.reclaim(space).expect("memory does not fail"),
                Effect::MakeCheckpoint => {
                    let checkpoint = node.store.checkpoint().expect("memory does not fail");
                    let made = checkpoint.id();
                    node.checkpoints.insert(made, checkpoint);
                    waiting.push(Input::CheckpointMade(made));
                }
                Effect::ServePiece { to, id: which, from } => {
                    let checkpoint = &node.checkpoints[&which];
                    let (piece, records) = (checkpoint.piece(&from, PIECE), checkpoint.records());
                    let piece = Some(piece.expect("memory does not fail"));
                    let snapshot = Snapshot { id: which, records, piece };
                    self.messages.push((id, to, Message::Learner(ToLearner::Snapshot(snapshot))));
                }
                Effect::CloseCheckpoint(id) => _ = node.checkpoints.remove(&id),
                Effect::Stage { id, piece, .. } => node.jobs.push_back(Job::Stage(id, piece)),
                Effect::Install => {
                    node.installing = true;
                    node.jobs.push_back(Job::Install);
                }
                Effect::DropStaged => node.jobs.push_back(Job::Drop),
                Effect::Ignored(reason @ (IgnoreReason::Contradiction { .. } | IgnoreReason::Mismatch { .. })) => {
                    panic!("node {id}: {reason:?} although all is well")
                }
                Effect::Ignored(_) => {}
                Effect::Digest { .. } | Effect::NoDigest { .. } => panic!("nobody asked"),
            }
        }
        let node = self.node(id);
        assert!(node.jobs.len() <= 3, "jobs pile up");
        if !node.installing {
            assert_eq!(node.core.issued(), node.store.applied());
        }
        for input in waiting {
            self.take(id, input);
        }
    }

    /// The next job of a node is done.
    fn work(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(job) = node.jobs.pop_front() else { return };
        let input = match job {
            Job::Stage(which, piece) => {
                node.store.stage(which, &piece).expect("memory does not fail");
                Input::Staged(node.store.staged())
            }
            Job::Install => {
                node.installing = false;
                Input::Installed(node.store.install().expect("memory does not fail"))
            }
            Job::Drop => return node.store.drop_staged().expect("memory does not fail"),
        };
        if let Input::Installed(storage::Installation::Done(at)) = input {
            self.installed += 1;
            let durable = self.node(id).store.durable();
            assert_eq!(durable, at.number, "what is installed is durable");
        }
        self.take(id, input);
        let kept = kept(self.node(id));
        self.take(id, kept);
    }

    fn sync(&mut self, id: NodeId) {
        let node = self.node(id);
        node.store.sync().expect("memory does not fail");
        let kept = kept(node);
        self.take(id, kept);
    }

    /// The power goes, and comes back: what is not synced is lost, and a job is done or not.
    fn crash(&mut self, id: NodeId) {
        let node = self.node(id);
        node.store.crash();
        node.jobs.clear();
        node.checkpoints.clear();
        node.installing = false;
        node.core = Learner::new(config(id), Stored::of(&node.store));
        let kept = kept(node);
        self.take(id, kept);
    }

    /// Invariant 11: what votes need not hold any more is in the durable states of a majority.
    fn check(&mut self) {
        let forgotten = self.forgotten;
        let holding = self.nodes.values().filter(|node| node.store.durable() >= forgotten).count() as u64;
        assert!(holding > NODES / 2, "{forgotten} is durable in {holding} states");
    }

    /// Everything works again, and goes on until all nodes have everything.
    fn heal(&mut self) {
        for round in 0..4_000 {
            let last = self.chain.last().map_or(CommandId::NULL, |last| last.id);
            if self.nodes.values().all(|node| !node.installing && node.store.applied() == last) {
                return;
            }
            if round % 20 == 0 {
                for id in (1..=NODES).map(NodeId) {
                    self.announce(id);
                    (1..=NODES).map(NodeId).filter(|to| *to != id).for_each(|to| self.hear(id, to));
                }
            }
            let messages = std::mem::take(&mut self.messages);
            for (from, to, message) in messages {
                let Message::Learner(message) = message else { panic!("learners write to learners") };
                self.take(to, Input::Message { from, message });
            }
            for id in (1..=NODES).map(NodeId) {
                self.work(id);
                self.take(id, Input::Tick);
            }
        }
        panic!("not caught up");
    }
}

fn kept(node: &Node) -> Input {
    Input::Kept { durable: node.store.durable(), kept_from: node.store.kept_from() }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Issue,
    Announce(NodeId),
    Hear(NodeId, NodeId),
    Lose(NodeId, NodeId),
    Deliver(prop::sample::Index, bool),
    Drop(prop::sample::Index),
    Work(NodeId),
    Tick(NodeId, u64),
    Sync(NodeId),
    Crash(NodeId),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || (1..=NODES).prop_map(NodeId);
    let pair = || (1..=NODES, 1..NODES).prop_map(|(one, more)| (NodeId(one), NodeId((one + more - 1) % NODES + 1)));
    let message = any::<prop::sample::Index>;
    prop_oneof![
        8 => Just(Step::Issue),
        4 => node().prop_map(Step::Announce),
        8 => pair().prop_map(|(from, to)| Step::Hear(from, to)),
        1 => pair().prop_map(|(from, to)| Step::Lose(from, to)),
        24 => (message(), prop::bool::weighted(0.1)).prop_map(|(which, doubled)| Step::Deliver(which, doubled)),
        2 => message().prop_map(Step::Drop),
        12 => node().prop_map(Step::Work),
        8 => (node(), 1..2_000u64).prop_map(|(node, millis)| Step::Tick(node, millis)),
        6 => node().prop_map(Step::Sync),
        1 => node().prop_map(Step::Crash),
    ]
}

fn run(steps: &[Step]) -> World {
    let mut world = World::new();
    for step in steps {
        match step {
            Step::Issue => world.issue(),
            Step::Announce(node) => world.announce(*node),
            Step::Hear(from, to) => world.hear(*from, *to),
            Step::Lose(from, to) => world.take(*to, Input::PeerLost(*from)),
            Step::Deliver(which, doubled) if !world.messages.is_empty() => {
                let index = which.index(world.messages.len());
                let (from, to, message) = world.messages[index].clone();
                if !doubled {
                    world.messages.remove(index);
                }
                let Message::Learner(message) = message else { panic!("learners write to learners") };
                world.take(to, Input::Message { from, message });
            }
            Step::Drop(which) if !world.messages.is_empty() => {
                let index = which.index(world.messages.len());
                world.messages.remove(index);
            }
            Step::Deliver(..) | Step::Drop(_) => {}
            Step::Work(node) => world.work(*node),
            Step::Tick(node, millis) => {
                world.now.tick = world.now.tick + Duration::from_millis(*millis);
                world.take(*node, Input::Tick);
            }
            Step::Sync(node) => world.sync(*node),
            Step::Crash(node) => world.crash(*node),
        }
        world.check();
    }
    world.heal();
    world
}

fn assert_equal_states(world: &World) {
    let replay = MemoryState::new();
    replay.apply(&world.chain).expect("memory does not fail");
    for (id, node) in &world.nodes {
        assert_eq!(node.store.digest(), replay.digest(), "node {id} has another state than a replay");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A14, S-18, DESIGN 14.7 and 14.11: catches a node that ends with another state than a replay, or never; one that
    /// applies to a state which is being replaced; a vote forgotten whose command a majority could lose.
    #[test]
    fn everybody_comes_to_the_state_of_a_replay(steps in prop::collection::vec(step(), 0..400)) {
        assert_equal_states(&run(&steps));
    }
}

/// A14: catches runs in which nobody ever needs a whole state, which would show nothing; and a transfer during which
/// nothing is issued.
#[test]
fn who_was_away_gets_a_state_while_commands_go_on() {
    let mut world = World::new();
    let others = [NodeId(1), NodeId(2)];
    for _ in 0..50 {
        world.issue();
        world.announce(NodeId(2));
        others.into_iter().for_each(|id| world.sync(id));
        world.hear(NodeId(2), NodeId(1));
        world.hear(NodeId(1), NodeId(2));
        world.now.tick = Tick(world.now.tick.0 + 1_000_000);
        others.into_iter().for_each(|id| world.take(id, Input::Tick));
    }
    assert_eq!(world.nodes[&NodeId(1)].store.kept_from(), CommandNumber(51 - KEPT));
    assert_eq!(world.forgotten, CommandNumber(50));
    world.hear(NodeId(1), NodeId(3));
    let mut issued_meanwhile = 0;
    while world.installed == 0 {
        for (from, to, message) in std::mem::take(&mut world.messages) {
            let Message::Learner(message) = message else { panic!("learners write to learners") };
            world.take(to, Input::Message { from, message });
        }
        world.work(NodeId(3));
        world.issue();
        issued_meanwhile += 1;
        assert!(issued_meanwhile < 100, "the transfer does not end");
    }
    assert!(issued_meanwhile > 5, "one piece after the other");
    world.heal();
    assert_equal_states(&world);
}
