//! Random runs: loss, doubling, reordering, crashes, elections at any moment; the world checks
//! every invariant after every step. Each run has a seed, and a failure names it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use protocol::message::Stored;
use protocol::{Call, Key, LearnFrom, NodeId, Outcome, StateView};
use quorate_tests::world::{Settings, World, call, stock_in};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use storage::StateStore;

use crate::support::{goods, transfer};

const WAREHOUSES: [&str; 3] = ["A", "B", "C"];
/// Steps under faults in one run.
const STEPS: usize = 400;
/// Rounds of 100 ms within which everything must be answered once the faults have ended: the
/// patience of callers, 10 s, and 4 s more.
const ROUNDS_AFTER_FAULTS: usize = 140;

/// A call that has been made, and whether its caller knows what became of it.
struct Asked {
    name: String,
    function: &'static str,
    arguments: serde_json::Value,
    added: u64,
}

impl Asked {
    /// A copy of the call: others may be anywhere.
    fn call(&self, patience: Duration) -> Call {
        Call { copy: 1, ..call(&self.name, self.function, &self.arguments, patience) }
    }
}

struct Run {
    world: World,
    chance: ChaCha8Rng,
    asked: Vec<Asked>,
    reads: u64,
    /// Functions that the pool of a node has run, in one of its lives, and not handed back.
    ran: Vec<(NodeId, u32, leader::core::Input)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let settings = Settings {
            nodes: if chance.random_bool(0.3) { 5 } else { 3 },
            learn_from: if chance.random_bool(0.5) { LearnFrom::Leader } else { LearnFrom::Voters },
            window: [1, 2, 8, 64][chance.random_range(0..4)],
            rounds_in_flight: chance.random_range(1..4),
            run_bytes: [1, 200, 1 << 20][chance.random_range(0..3)],
            local_delays: chance.random_bool(0.7),
            ..Settings::default()
        };
        Self { world: World::new(settings), chance, asked: Vec::new(), reads: 0, ran: Vec::new() }
    }

    fn any_node(&mut self) -> NodeId {
        let ids = self.world.ids();
        ids[self.chance.random_range(0..ids.len())]
    }

    fn any_up(&mut self) -> Option<NodeId> {
        let node = self.any_node();
        self.world.node(node).roles.is_some().then_some(node)
    }

    fn step(&mut self) {
        match self.chance.random_range(0..1000) {
            0..620 => self.deliver(),
            620..800 => {
                let node = self.any_node();
                self.world.step_local(node);
            }
            800..880 => self.call(),
            880..900 => self.repeat(),
            900..915 => self.pool(),
            915..925 => self.read(),
            925..950 => {
                let pause = self.chance.random_range(1..60);
                self.world.advance(Duration::from_millis(pause));
            }
            950..965 => self.world.gossip(),
            965..980 => {
                if let Some(node) = self.any_up() {
                    self.world.campaign(node);
                }
            }
            980..984 => {
                if let Some(node) = self.any_up() {
                    self.world.step_down(node);
                }
            }
            984..990 => {
                if let Some(node) = self.any_up() {
                    self.world.sync(node);
                }
            }
            _ => self.crash_or_restart(),
        }
    }

    /// A random message: usually delivered, sometimes lost, sometimes doubled.
    fn deliver(&mut self) {
        let count = self.world.undelivered().len();
        if count == 0 {
            return;
        }
        // Mostly near the front, so that things get done; sometimes from anywhere.
        let span = if self.chance.random_bool(0.8) { count.min(4) } else { count };
        let index = self.chance.random_range(0..span);
        match self.chance.random_range(0..100) {
            0..10 => {
                let lost = self.world.undelivered()[index].clone();
                self.world.drop_if(|envelope| *envelope == lost);
            }
            10..15 => {
                let doubled = self.world.undelivered()[index].clone();
                self.world.send(doubled.from, doubled.to, doubled.message);
                self.world.deliver_at(index);
            }
            _ => self.world.deliver_at(index),
        }
    }

    fn call(&mut self) {
        let name = format!("call-{}", self.asked.len());
        let amount = self.chance.random_range(1..20);
        let from = WAREHOUSES[self.chance.random_range(0..3)];
        let to = WAREHOUSES[self.chance.random_range(0..3)];
        let asked = if self.chance.random_bool(0.15) {
            let arguments = json!({"key": "log", "append": format!("{name};")});
            Asked { name, function: "test.slow", arguments, added: 0 }
        } else if from == to {
            Asked { name, function: "inventory.inbound", arguments: goods(to, amount), added: amount }
        } else {
            Asked { name, function: "inventory.transfer", arguments: transfer(from, to, amount), added: 0 }
        };
        self.send(&asked);
        self.asked.push(asked);
    }

    /// A caller asks again, perhaps another node, perhaps while the first answer is on its way.
    fn repeat(&mut self) {
        if !self.asked.is_empty() {
            let index = self.chance.random_range(0..self.asked.len());
            let asked = self.asked.swap_remove(index);
            self.send(&asked);
            self.asked.push(asked);
        }
    }

    fn send(&mut self, asked: &Asked) {
        let (via, any) = (self.any_node(), self.any_node());
        let leading = self.world.ids().into_iter().filter(|node| self.world.leads(*node).is_some()).last();
        let to = leading.filter(|_| self.chance.random_bool(0.9)).unwrap_or(any);
        let patience = Duration::from_secs(if self.chance.random_bool(0.3) { 10 } else { 0 });
        self.world.send_call(via, to, asked.call(patience));
    }

    /// A linearizable read; the world checks that its answer shows all that was known before it.
    fn read(&mut self) {
        self.reads += 1;
        let (via, to) = (self.any_node(), self.any_node());
        self.world.read_barrier(via, to, self.reads);
    }

    /// A pool runs a function, or hands back an older result.
    fn pool(&mut self) {
        let node = self.any_node();
        if self.world.node(node).jobs() > 0 && self.chance.random_bool(0.5) {
            let done = self.world.run_job(node);
            self.ran.push((node, self.world.node(node).life(), done));
        } else if !self.ran.is_empty() {
            let index = self.chance.random_range(0..self.ran.len());
            self.hand_back(index);
        }
    }

    /// What a pool ran in an earlier life of its node is gone with that life.
    fn hand_back(&mut self, index: usize) {
        let (node, life, done) = self.ran.swap_remove(index);
        if self.world.node(node).life() == life {
            self.world.finish_job(node, done);
        }
    }

    fn finish_pools(&mut self) {
        while !self.ran.is_empty() {
            self.hand_back(0);
        }
        for node in self.world.ids() {
            while self.world.node(node).jobs() > 0 {
                let done = self.world.run_job(node);
                self.world.finish_job(node, done);
            }
        }
    }

    fn crash_or_restart(&mut self) {
        let node = self.any_node();
        if self.world.node(node).roles.is_none() {
            self.world.restart(node);
        } else if self.chance.random_bool(0.5) {
            self.world.crash(node);
        } else {
            self.world.kill(node);
        }
    }

    /// Faults end: all nodes are up, one of them campaigns, and every caller asks until it knows.
    fn recover(&mut self) {
        let ids = self.world.ids();
        for node in ids.clone() {
            if self.world.node(node).roles.is_none() {
                self.world.restart(node);
            }
        }
        self.world.run(3);
        let leader = ids[self.chance.random_range(0..ids.len())];
        for round in 0..ROUNDS_AFTER_FAULTS {
            let Some(asked) = self.asked.iter().find(|asked| !is_final(&self.world.answers(&asked.name))) else {
                break;
            };
            let (name, heard) = (&asked.name, self.world.outcomes(&asked.name));
            assert!(round + 1 < ROUNDS_AFTER_FAULTS, "A13: {name} is not answered in bounded time, but {heard:?}");
            if self.world.leads(leader).is_none() {
                for other in ids.iter().filter(|other| **other != leader) {
                    self.world.step_down(*other);
                }
                self.world.campaign(leader);
                self.world.run(1);
            }
            for index in 0..self.asked.len() {
                if !is_final(&self.world.answers(&self.asked[index].name)) {
                    self.world.send_call(leader, leader, self.asked[index].call(Duration::ZERO));
                }
            }
            self.world.run(1);
            self.finish_pools();
        }
        self.world.run(10);
    }

    /// What must hold at the end of every run.
    fn check_the_end(&self) {
        let world = &self.world;
        world.checks().assert_nothing_acknowledged_is_lost();
        let issued = world.checks().issued();
        let mut added = 0;
        for asked in &self.asked {
            let answers = world.answers(&asked.name);
            let stored: BTreeSet<String> = answers
                .iter()
                .filter(|(_, stored)| *stored != Stored::No)
                .map(|(told, _)| format!("{told:?}"))
                .collect();
            assert_eq!(stored.len(), 1, "ADR 0017: {} was told {stored:?}", asked.name);
            let outcomes = world.outcomes(&asked.name);
            let commands: Vec<u64> = outcomes.iter().filter_map(command_of).collect();
            assert!(commands.windows(2).all(|pair| pair[0] == pair[1]), "{} became {commands:?}", asked.name);
            if !commands.is_empty() {
                added += asked.added;
            }
        }
        for node in world.ids() {
            assert_eq!(world.applied(node), issued, "node {node} is behind at the end");
        }
        let stocks: u64 = WAREHOUSES.iter().map(|warehouse| stock_in(world.checks().state(), warehouse)).sum();
        assert_eq!(stocks, added, "conservation: the stocks are what came in by acknowledged calls");
        assert_eq!(world.checks().state().applied().number.0, issued);
        self.check_the_log();
    }

    /// A1p, S-10: functions on the pool append to one value; none of them wrote over another.
    fn check_the_log(&self) {
        let key = Key::new("log").expect("a short key");
        let log = self.world.checks().state().get(&key).expect("memory does not fail");
        let log = log.map_or_else(Vec::new, |entry| entry.value.to_vec());
        let names: BTreeSet<&[u8]> = log.split(|byte| *byte == b';').filter(|name| !name.is_empty()).collect();
        let slow = self.asked.iter().filter(|asked| asked.function == "test.slow");
        let appended =
            slow.filter(|asked| self.world.outcomes(&asked.name).iter().any(|outcome| command_of(outcome).is_some()));
        let expected: BTreeSet<&[u8]> = appended.map(|asked| asked.name.as_bytes()).collect();
        assert_eq!(names, expected, "S-10: an update is lost, or happened without its call");
        assert_eq!(log.iter().filter(|byte| **byte == b';').count(), expected.len(), "and none happened twice");
    }
}

fn command_of(outcome: &Outcome) -> Option<u64> {
    if let Outcome::Issued { command, .. } = outcome { Some(command.0) } else { None }
}

/// Whether anything that the caller heard says what became of the call.
fn is_final(answers: &[(Outcome, Stored)]) -> bool {
    answers.iter().any(|(_, stored)| *stored != Stored::No)
}

fn run(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    for _ in 0..STEPS {
        run.step();
    }
    run.recover();
    run.check_the_end();
    run.world.checks().issued()
}

/// A1a, A1h, A1m, A1n, A1o, A1p, A2, A3, A5, A6, A12, A13, S-01 to S-11, S-20 to S-23 under loss,
/// doubling, reordering, crashes and elections at random: agreement, the chain, applied is a
/// prefix, equal states, promises and votes kept, one effect a call, functions decided on the
/// state after the precedent, no lost update, linearizable reads, nothing acknowledged lost,
/// goods conserved, and all answered in bounded time once the faults end. A run that issues
/// nothing shows nothing; too many of them fail.
///
/// `QUORATE_RANDOM_RUNS` and `QUORATE_RANDOM_SEED` say how many runs, and from which seed.
#[test]
fn agreement_under_random_faults() {
    let runs = std::env::var("QUORATE_RANDOM_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(300);
    let first = std::env::var("QUORATE_RANDOM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut issued, mut idle) = (0, 0);
    for seed in first..first + runs {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(commands) => {
                issued += commands;
                idle += u64::from(commands == 0);
            }
            Err(panic) => {
                println!("seed {seed} failed; again: QUORATE_RANDOM_SEED={seed} QUORATE_RANDOM_RUNS=1");
                resume_unwind(panic);
            }
        }
    }
    println!("{runs} runs issued {issued} commands");
    assert!(idle * 20 <= runs, "{idle} of {runs} runs issued nothing");
}
