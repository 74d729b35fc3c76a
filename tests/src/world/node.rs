//! A node of a world: the three cores, its disk, its functions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use acceptor::core::Acceptor;
use functions::{Heard, Registry};
use leader::core::{Leader, PoolJob};
use leader::machine::{StoredMachine, run_on_snapshot};
use learner::Learner;
use protocol::{CommandNumber, Key, Membership, NodeId, Now, StateView};
use simulator::functions::{Executions, registry_keeping_all};
use storage::memory::{MemoryLog, MemoryState};
use storage::{LogStore, StateStore};

use super::Settings;

/// The cores of a node that is up.
pub struct Roles {
    /// Promises and votes.
    pub acceptor: Acceptor,
    /// Ballots and functions.
    pub leader: Leader,
    /// Issued commands.
    pub learner: Learner,
}

/// One input for a role of a node.
pub enum Local {
    /// For the acceptor.
    Acceptor(acceptor::core::Input),
    /// For the leader.
    Leader(leader::core::Input),
    /// For the learner.
    Learner(learner::Input),
}

/// See the module.
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The disk of acceptor and leader.
    pub log: MemoryLog,
    /// The disk of the learner.
    pub state: MemoryState,
    /// The cores; none while the node is down.
    pub roles: Option<Roles>,
    /// Counts its starts.
    pub(super) life: u32,
    /// What its roles have told each other, in order.
    pub(super) inbox: VecDeque<Local>,
    /// What waits for its pool.
    pub(super) jobs: VecDeque<PoolJob>,
    functions: Registry,
    executions: Executions,
    /// What it begins with, unless its state has a later one: the genesis, or what it was told when it joined.
    pub(super) membership: Arc<Membership>,
}

impl Node {
    pub(super) fn new(id: NodeId, settings: &Settings) -> Self {
        let executions = Executions::default();
        let mut node = Self {
            id,
            membership: genesis(settings),
            log: MemoryLog::new(),
            state: MemoryState::new(),
            roles: None,
            life: 0,
            inbox: VecDeque::new(),
            jobs: VecDeque::new(),
            functions: registry_keeping_all(&executions),
            executions,
        };
        if node.membership.node(id).is_some() {
            node.start(settings);
        }
        node
    }

    /// How many times a function ran here, pool and repetitions included.
    #[must_use]
    pub fn executions(&self) -> usize {
        self.executions.count()
    }

    /// How many times this node has started.
    #[must_use]
    pub fn life(&self) -> u32 {
        self.life
    }

    /// How many functions wait for the pool.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// The stock of `goods` in a warehouse, as this node has applied it.
    ///
    /// # Panics
    /// When it is no number.
    #[must_use]
    pub fn stock(&self, warehouse: &str) -> u64 {
        stock_in(&self.state, warehouse)
    }

    pub(super) fn start(&mut self, settings: &Settings) {
        let applied = self.state.applied();
        let image = self.log.load(applied.number).expect("memory does not fail");
        let last_tried = image.last_tried;
        if let Some(later) = self.membership.later_in(&self.state).expect("memory does not fail") {
            self.membership = later;
        }
        let membership = || Arc::clone(&self.membership);
        self.life += 1;
        self.roles = Some(Roles {
            acceptor: Acceptor::new(acceptor_config(self.id, settings, &self.membership), image, applied),
            leader: Leader::new(leader_config(self.id, settings, membership()), last_tried, applied),
            learner: Learner::new(learner_config(self.id, settings, membership()), applied),
        });
    }

    /// The membership that its roles go by.
    #[must_use]
    pub fn membership(&self) -> &Arc<Membership> {
        self.roles.as_ref().map_or(&self.membership, |roles| roles.learner.membership())
    }

    /// A later membership is durable before anybody hears of it.
    pub(super) fn take_membership(&mut self) {
        let later = self.membership().later_in(&self.state).expect("memory does not fail");
        let Some(later) = later else { return };
        self.state.sync().expect("memory does not fail");
        let learners = later.learners().collect();
        self.inbox.push_back(Local::Learner(learner::Input::Membership(later)));
        self.inbox.push_back(Local::Acceptor(acceptor::core::Input::Learners(learners)));
    }

    /// One turn of the leader.
    pub(super) fn lead(
        &mut self,
        input: leader::core::Input,
        now: Now,
        entropy: u64,
        heard: &BTreeMap<NodeId, CommandNumber>,
    ) -> Vec<leader::core::Effect> {
        let Some(roles) = &mut self.roles else { return Vec::new() };
        let world = leader::core::World {
            now,
            entropy,
            machine: &StoredMachine(&self.state),
            functions: &self.functions,
            room: true,
            heard: &|| {
                heard.iter().map(|(node, applied)| (*node, Heard::well(*applied, heard.keys().copied()))).collect()
            },
            barred: false,
        };
        let mut effects = Vec::new();
        roles.leader.handle(input, &world, &mut effects);
        roles.leader.handle(leader::core::Input::EndOfTurn, &world, &mut effects);
        effects
    }

    pub(super) fn run_job(&mut self) -> leader::core::Input {
        let job = self.jobs.pop_front().expect("a job on the pool");
        let function = self.functions.get(&job.function).expect("a function that is registered");
        let execution = run_on_snapshot(function.as_ref(), &job, &self.state);
        leader::core::Input::PoolDone { job: job.job, execution: Box::new(execution) }
    }
}

/// The stock of `goods` in a warehouse.
///
/// # Panics
/// When it is no number.
#[must_use]
pub fn stock_in(state: &MemoryState, warehouse: &str) -> u64 {
    let key = Key::new(format!("inventory/goods/{warehouse}")).expect("a short key");
    let entry = state.get(&key).expect("memory does not fail");
    entry.map_or(0, |entry| serde_json::from_slice(&entry.value).expect("a number"))
}

/// All nodes but the spare ones vote, each with the same weight.
pub(super) fn genesis(settings: &Settings) -> Arc<Membership> {
    Membership::of_equals(settings.nodes - settings.spare)
}

fn acceptor_config(me: NodeId, settings: &Settings, membership: &Membership) -> acceptor::core::Config {
    acceptor::core::Config {
        me,
        window: usize::try_from(settings.window).expect("a small window"),
        acceptors: membership.majority().clone().into(),
        learners: membership.learners().collect(),
        learn_from: settings.learn_from,
        // So small that a promise with a few votes comes in several parts.
        part_bytes: 1024,
        nonce: 0,
    }
}

fn leader_config(me: NodeId, settings: &Settings, membership: Arc<Membership>) -> leader::core::Config {
    leader::core::Config {
        me,
        membership,
        learn_from: settings.learn_from,
        window: settings.window,
        pipeline_bytes: 1 << 20,
        run_bytes: settings.run_bytes,
        rounds_in_flight: settings.rounds_in_flight,
        kept_calls: 100,
        resend: Duration::from_millis(100),
        prepare_timeout: Duration::from_secs(5),
        hand_over_timeout: Duration::from_secs(5),
        caller_retention: settings.retention,
        gateway_retention: settings.retention,
    }
}

fn learner_config(me: NodeId, settings: &Settings, membership: Arc<Membership>) -> learner::Config {
    learner::Config {
        me,
        membership,
        learn_from: settings.learn_from,
        window: settings.window,
        timing: learner::Timing::default(),
    }
}
