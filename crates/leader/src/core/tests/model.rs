//! Random runs of two nodes that both want to lead, among three acceptors that follow the rules
//! and links that lose, double and reorder, with restarts of the leaders' processes in between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use storage::LogStore;
use storage::memory::MemoryLog;

use super::*;
use crate::machine::run_on_snapshot;

/// An acceptor as DESIGN 5 has it, with a disk that keeps everything.
#[derive(Default)]
struct Voter {
    promise: Ballot,
    votes: BTreeMap<u64, Vote>,
    round: u64,
    issued: CommandId,
}

impl Voter {
    fn learn(&mut self, issued: CommandId) {
        if issued.number > self.issued.number {
            self.issued = issued;
            self.votes.retain(|number, _| *number > issued.number.0);
        }
    }

    fn may_vote(&self, command: &Command) -> bool {
        let voted = self.votes.get(&command.precedent.number.0);
        let voted = voted.is_some_and(|vote| vote.ballot == self.promise && command.follows(vote.command.id));
        command.number() > self.issued.number && (voted || command.follows(self.issued))
    }

    fn take(&mut self, message: &ToAcceptor) -> Option<ToLeader> {
        match message {
            ToAcceptor::NextBallot(NextBallot { ballot, .. }) if *ballot < self.promise => {
                Some(my_next_bal(self.promise, *ballot))
            }
            ToAcceptor::NextBallot(NextBallot { ballot, first }) => {
                if *ballot > self.promise {
                    (self.promise, self.round) = (*ballot, 0);
                }
                let votes: Vec<Vote> = self.votes.range(first.0..).map(|(_, vote)| vote.clone()).collect();
                let (ballot, first, issued) = (*ballot, *first, self.issued);
                Some(ToLeader::BallotInfo(BallotInfo { ballot, first, issued, votes, part: 0, parts: 1 }))
            }
            ToAcceptor::Rejoined(_) => panic!("no acceptor of the model asks to rejoin"),
            ToAcceptor::BeginBallot(begin) if begin.ballot < self.promise => {
                Some(my_next_bal(self.promise, begin.ballot))
            }
            ToAcceptor::BeginBallot(begin) if begin.ballot > self.promise => None,
            ToAcceptor::BeginBallot(begin) => {
                for command in &begin.commands {
                    if self.may_vote(command) {
                        self.votes.insert(command.number().0, vote_for(begin.ballot, command));
                    }
                }
                self.round = self.round.max(begin.round);
                let last = self.votes.values().rev().find(|vote| vote.ballot == begin.ballot);
                Some(voted(begin.ballot, last.map(|vote| vote.command.id), self.round))
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Call {
        node: u64,
        key: u8,
        patient: bool,
        amount: u8,
    },
    Barrier(u64),
    /// Of the messages under way: which, and whether it stays there to be delivered again.
    Deliver {
        which: usize,
        again: bool,
    },
    Lose {
        which: usize,
    },
    EndOfTurn(u64),
    Wait {
        milliseconds: u64,
    },
    Campaign(u64),
    GiveUp(u64),
    Restart(u64),
    Reconnect(u64),
}

/// Node 1 leads more often, so that something is issued.
fn node() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(1), 1 => Just(3)]
}

fn step() -> impl Strategy<Value = Step> {
    let call = (node(), any::<u8>(), any::<bool>(), 1u8..5);
    prop_oneof![
        12 => call.prop_map(|(node, key, patient, amount)| Step::Call { node, key, patient, amount }),
        2 => node().prop_map(Step::Barrier),
        80 => (any::<usize>(), prop::bool::weighted(0.1)).prop_map(|(which, again)| Step::Deliver { which, again }),
        2 => any::<usize>().prop_map(|which| Step::Lose { which }),
        20 => node().prop_map(Step::EndOfTurn),
        3 => (1u64..300).prop_map(|milliseconds| Step::Wait { milliseconds }),
        2 => node().prop_map(Step::Campaign),
        1 => node().prop_map(Step::GiveUp),
        1 => node().prop_map(Step::Restart),
        1 => (1u64..4).prop_map(Step::Reconnect),
    ]
}

#[derive(Clone)]
enum Link {
    /// Between a leader and an acceptor.
    ToVoter(u64, u64, ToAcceptor),
    ToLeader(u64, u64, ToLeader),
    /// To the learner of a node, with the bodies of all issued commands up to one.
    ToLearner(u64, Vec<Command>),
    FromPool(u64, PoolJob),
}

struct Node {
    bench: Bench,
    log: MemoryLog,
}

impl Node {
    fn new(me: u64, learn_from: LearnFrom) -> Self {
        let mut bench = Bench::with(|config| {
            config.me = NodeId(me);
            config.learn_from = learn_from;
            config.window = WINDOW;
            config.rounds_in_flight = 2;
            config.kept_calls = 6;
            config.run_bytes = 500;
        });
        // Clocks differ.
        bench.now.wall.0 += me * 1_000;
        Self { bench, log: MemoryLog::new() }
    }

    fn last_tried(&self) -> Ballot {
        self.log.load(number(0)).expect("memory").last_tried
    }
}

const WINDOW: u64 = 4;

/// The world, with what is to hold of it.
struct World {
    learn_from: LearnFrom,
    /// The nodes that may lead.
    nodes: BTreeMap<u64, Node>,
    voters: BTreeMap<u64, Voter>,
    links: Vec<Link>,
    /// Who voted for what, in each ballot.
    ballots: BTreeMap<(u64, Ballot), (Command, BTreeSet<u64>)>,
    /// What a majority set has voted for in one ballot, all precedents included.
    issued: BTreeMap<u64, Command>,
    /// How often each call was sent, less how often it was answered.
    asked: BTreeMap<RequestId, u32>,
    /// Calls that were not answered since they were last sent.
    open: BTreeSet<RequestId>,
    /// What was acknowledged when a call was sent of which no answer could come any more.
    since: BTreeMap<RequestId, u64>,
    /// The highest number that anyone was told of.
    acknowledged: u64,
    /// What it was when each barrier was asked that is not answered.
    barriers: BTreeMap<u64, u64>,
    last_barrier: u64,
}

impl World {
    fn new(learn_from: LearnFrom) -> Self {
        Self {
            learn_from,
            nodes: [1, 3].map(|node| (node, Node::new(node, learn_from))).into(),
            voters: (1..=3).map(|node| (node, Voter::default())).collect(),
            links: Vec::new(),
            ballots: BTreeMap::new(),
            issued: BTreeMap::new(),
            asked: BTreeMap::new(),
            open: BTreeSet::new(),
            since: BTreeMap::new(),
            acknowledged: 0,
            barriers: BTreeMap::new(),
            last_barrier: 0,
        }
    }

    fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.get_mut(&node).expect("may lead")
    }

    fn call(&mut self, node: u64, key: u8, is_patient: bool, amount: u8) {
        let name = format!("k{key}");
        let call = match key % 5 {
            0 | 1 => call(&name, "kv.increment", json!({"key": "n"})),
            2 => call(&name, "inventory.inbound", json!({"warehouse": "A", "amount": 1 + key % 3})),
            3 => call(&name, "inventory.outbound", json!({"warehouse": "A", "amount": 1 + key % 4})),
            _ => call(&name, "test.copy_on_pool", json!({})),
        };
        let call = if is_patient { patient(amount.into(), call) } else { call };
        let asked = self.asked.entry(call.request.clone()).or_default();
        if *asked == 0 {
            self.since.insert(call.request.clone(), self.acknowledged);
        }
        *asked += 1;
        self.open.insert(call.request.clone());
        self.feed(node, Input::Message { from: GATEWAY, message: ToLeader::ExecuteFunction(call) });
    }

    fn barrier(&mut self, node: u64) {
        self.last_barrier += 1;
        let id = self.last_barrier;
        self.barriers.insert(id, self.acknowledged);
        self.feed(node, Input::Message { from: GATEWAY, message: ToLeader::ReadBarrier(ReadBarrier { id }) });
    }

    fn deliver(&mut self, which: usize, again: bool) {
        if self.links.is_empty() {
            return;
        }
        let index = which % self.links.len();
        let link = if again { self.links[index].clone() } else { self.links.swap_remove(index) };
        match link {
            Link::ToVoter(leader, to, message) => {
                let answer = self.voters.get_mut(&to).expect("an acceptor").take(&message);
                self.note_votes(to);
                self.links.extend(answer.map(|answer| Link::ToLeader(to, leader, answer)));
            }
            Link::ToLeader(from, to, message) => self.feed(to, Input::Message { from: NodeId(from), message }),
            Link::ToLearner(to, commands) => self.learn(to, commands),
            Link::FromPool(to, job) => {
                let node = &self.nodes[&to].bench;
                let function = node.functions.get(&job.function).expect("registered");
                let execution = Box::new(run_on_snapshot(function.as_ref(), &job, &node.machine));
                self.feed(to, Input::PoolDone { job: job.job, execution });
            }
        }
    }

    /// What an acceptor's votes have brought about. Invariants 1 and 2.
    fn note_votes(&mut self, node: u64) {
        for Vote { ballot, command } in self.voters[&node].votes.values() {
            let fresh = || (command.clone(), BTreeSet::new());
            let (voted, voters) = self.ballots.entry((command.number().0, *ballot)).or_insert_with(fresh);
            assert_eq!(voted, command, "one command a number and ballot");
            voters.insert(node);
        }
        for ((number, _), (command, _)) in self.ballots.iter().filter(|(_, (_, voters))| voters.len() >= 2) {
            let last = self.issued.last_key_value().map_or(CommandId::NULL, |(_, last)| last.id);
            if command.follows(last) {
                self.issued.insert(*number, command.clone());
            }
            assert_eq!(self.issued.get(number), Some(command), "invariant 1: another one is issued, or a gap");
        }
        if self.learn_from == LearnFrom::Voters {
            // Learners count too, and one of them may have shown this to somebody.
            self.acknowledged = self.issued.len() as u64;
            (1..=3).for_each(|node| self.teach(node, self.acknowledged));
        }
    }

    /// A learner hears that all up to `number` is issued; it has, or gets, the bodies.
    fn teach(&mut self, node: u64, number: u64) {
        let commands = self.issued.range(..=number).map(|(_, command)| command.clone()).collect();
        self.links.push(Link::ToLearner(node, commands));
    }

    fn learn(&mut self, to: u64, commands: Vec<Command>) {
        let Some(last) = commands.last().map(|last| last.id) else { return };
        self.voters.get_mut(&to).expect("an acceptor").learn(last);
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let applied = node.bench.machine.applied().number;
        let new: Vec<Command> = commands.into_iter().filter(|command| command.number() > applied).collect();
        if !new.is_empty() {
            node.bench.machine.apply(&new).expect("memory");
            let applied = node.bench.machine.applied();
            self.feed(to, Input::Learned(applied));
        }
    }

    fn feed(&mut self, node: u64, input: Input) {
        for effect in self.node(node).bench.feed(input) {
            match effect {
                Effect::Persist(record) => self.node(node).log.write(&[record]).expect("memory"),
                Effect::Send { to, message: Message::Acceptor(message) } => {
                    self.check_sent(node, &message);
                    self.links.push(Link::ToVoter(node, to.0, message));
                }
                Effect::Send { to, message: Message::Learner(ToLearner::Success(success)) } => {
                    let known = self.issued.get(&success.issued.number.0).map_or(CommandId::NULL, |command| command.id);
                    assert_eq!(known, success.issued, "S-04: announced and not issued");
                    self.teach(to.0, known.number.0);
                }
                Effect::Send { message: Message::Gateway(reply), .. } => self.check_reply(reply),
                Effect::RunOnPool(job) => self.links.push(Link::FromPool(node, job)),
                Effect::Failed(error) => panic!("{error}"),
                Effect::Send { message, .. } => panic!("a leader does not send {}", message.name()),
                Effect::LearnFromPeer { issued, .. } => self.teach(node, issued.0),
                Effect::Leads(_) | Effect::HandsOver(_) | Effect::Note(_) | Effect::Ignored(_) => {}
            }
        }
    }

    /// A5, A7, S-03: what leaves for acceptors.
    fn check_sent(&self, node: u64, message: &ToAcceptor) {
        let durable = self.nodes[&node].last_tried();
        match message {
            ToAcceptor::NextBallot(question) => assert!(question.ballot == durable, "A7: durable first"),
            ToAcceptor::BeginBallot(begin) => {
                assert_eq!(begin.ballot, durable, "only the last ballot begun is led");
                let chained = |pair: &[Command]| pair[1].follows(pair[0].id);
                assert!(begin.commands.windows(2).all(chained), "each command depends on the one before");
                assert!(begin.commands.iter().all(Command::is_well_formed));
                let top = begin.commands.last().map_or(0, |last| last.number().0);
                assert!(top <= self.issued.len() as u64 + WINDOW, "A5: {top} lies beyond the window");
            }
            ToAcceptor::Rejoined(_) => panic!("nobody asked to rejoin"),
        }
    }

    /// S-08, S-20, S-23: what callers are told.
    fn check_reply(&mut self, reply: ToGateway) {
        match reply {
            ToGateway::BarrierPassed(BarrierPassed { id, at }) => {
                let since = self.barriers.remove(&id).expect("S-20: is answered once");
                if let Some(at) = at {
                    assert!(at.0 >= since, "S-20: {at} does not show {since}, which was acknowledged before");
                    assert!(at.0 <= self.issued.len() as u64, "S-08: {at} is not issued");
                }
            }
            ToGateway::Executed(Executed { request, outcome, .. }) => {
                let asked = self.asked.get_mut(&request).expect("was asked");
                *asked = asked.checked_sub(1).unwrap_or_else(|| panic!("{request} is answered more often than asked"));
                self.open.remove(&request);
                match &outcome {
                    Outcome::Issued { command, result, .. } => {
                        let issued =
                            self.issued.get(&command.0).unwrap_or_else(|| panic!("S-04: {command} is not issued"));
                        assert_eq!(body(issued).request, request);
                        assert_eq!(body(issued).verdict, Verdict::Changed(result.clone()));
                        self.acknowledged = self.acknowledged.max(command.0);
                    }
                    Outcome::Unchanged { at, .. } | Outcome::Refused { at, .. } => {
                        assert!(at.0 <= self.issued.len() as u64, "S-08: {at} is not issued");
                        let since = self.since[&request];
                        assert!(at.0 >= since, "S-21: {request} saw {at}, and {since} was acknowledged before");
                    }
                    Outcome::Overloaded | Outcome::DiskFull | Outcome::NotLeader | Outcome::LeadershipLost => {}
                    Outcome::InvalidArguments { .. }
                    | Outcome::TooLarge { .. }
                    | Outcome::UnknownFunction
                    | Outcome::RequestReused
                    | Outcome::Failed { .. } => panic!("{outcome:?}"),
                }
            }
        }
    }

    fn restart(&mut self, node: u64) {
        // What it kept, and what its pool ran, is gone; its callers hear nothing.
        self.links.retain(|link| !matches!(link, Link::FromPool(of, _) if *of == node));
        self.open.clear();
        let node = self.node(node);
        node.log.crash();
        let config = node.bench.leader.config.as_ref().clone();
        node.bench.leader = Leader::new(config, node.last_tried(), node.bench.machine.applied());
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Call { node, key, patient, amount } => self.call(node, key, patient, amount),
            Step::Barrier(node) => self.barrier(node),
            Step::Deliver { which, again } => self.deliver(which, again),
            Step::Lose { which } => {
                let lost = which % self.links.len().max(1);
                // The pool is not behind a network.
                if !matches!(self.links.get(lost), None | Some(Link::FromPool(..))) {
                    self.links.swap_remove(lost);
                }
            }
            Step::EndOfTurn(node) => self.feed(node, Input::EndOfTurn),
            Step::Wait { milliseconds } => {
                for node in [1, 3] {
                    let now = &mut self.node(node).bench.now;
                    now.tick = now.tick + Duration::from_millis(milliseconds);
                    now.wall.0 += milliseconds;
                    self.feed(node, Input::Tick);
                }
            }
            Step::Campaign(node) => self.feed(node, Input::Campaign { above: Ballot::NONE }),
            Step::GiveUp(node) => self.feed(node, Input::StepDown("the test says so")),
            Step::Restart(node) => self.restart(node),
            Step::Reconnect(peer) => {
                [1, 3].into_iter().for_each(|node| self.feed(node, Input::Connected(NodeId(peer))))
            }
        }
    }

    fn deliver_all(&mut self) {
        self.take(Step::EndOfTurn(1));
        while !self.links.is_empty() {
            self.deliver(0, false);
            self.take(Step::EndOfTurn(1));
        }
    }

    /// Invariants 8 and 9 over all that was issued, and that nothing is lost or stuck once the
    /// faults are over (12).
    fn finish(mut self) {
        self.take(Step::GiveUp(3));
        self.deliver_all();
        for _ in 0..60 {
            self.take(Step::Wait { milliseconds: 200 });
            self.take(Step::Campaign(1));
            // A superseded leader that sends nothing hears nothing either.
            self.barrier(1);
            self.deliver_all();
        }
        let node = &self.nodes[&1].bench;
        assert!(node.leader.leads().is_some(), "liveness: nobody leads");
        assert_eq!(node.leader.load(), Load::default(), "liveness: something is stuck");
        assert_eq!(node.machine.applied().number.0, self.issued.len() as u64, "all is applied");
        let before = self.issued.len();
        self.call(1, 200, false, 1);
        self.call(1, 201, false, 1);
        self.barrier(1);
        self.deliver_all();
        assert!(self.issued.len() <= before + 2, "two calls");
        assert!(!self.barriers.contains_key(&self.last_barrier), "liveness: the barrier is not answered");
        assert!(self.open.is_empty(), "liveness: not answered: {:?}", self.open);
        let (mut increments, mut stock, mut time, mut requests) = (0, 0i64, Timestamp(0), BTreeSet::new());
        for command in self.issued.values() {
            let CommandBody { request, function, verdict, time: its_time, .. } = body(command);
            assert!(requests.insert(request.clone()), "invariant 9: {request} took effect twice");
            assert!(its_time >= time, "time goes backwards");
            time = its_time;
            let Verdict::Changed(result) = verdict else { continue };
            let result: Value = serde_json::from_slice(&result).expect("JSON");
            if function == "kv.increment" {
                increments += 1;
                assert_eq!(result["value"], json!(increments), "invariant 8: it saw another state");
            }
            if function.starts_with("inventory") {
                let amount = result["stock"].as_i64().expect("a stock") - stock;
                assert!(if function.ends_with("inbound") { amount > 0 } else { amount < 0 }, "invariant 8: {result}");
                stock += amount;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A1, A5, A7, A12, S-01, S-04, S-08, S-20, S-23, invariants 1, 2, 4, 8, 9, 12. Catches, in
    /// any order of events: two commands issued at one number, gaps, ballots begun twice or
    /// beyond the window, announcements and replies of what is not issued, reads below what was
    /// acknowledged, effects twice, functions that saw another state, calls answered too often
    /// or never.
    #[test]
    fn holds_in_random_runs(count in any::<bool>(), steps in proptest::collection::vec(step(), 1..600)) {
        let mut world = World::new(if count { LearnFrom::Voters } else { LearnFrom::Leader });
        world.take(Step::Campaign(1));
        for step in steps {
            world.take(step);
        }
        world.finish();
    }
}
