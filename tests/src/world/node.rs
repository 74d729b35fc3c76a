//! A node of a world: the three cores, its disk, its functions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acceptor::core::Acceptor;
use functions::{ExecutionContext, Failure, Function, Placement, Registry};
use leader::core::{Leader, PoolJob};
use leader::machine::{StoredMachine, run_on_snapshot};
use learner::Learner;
use protocol::{Key, MajoritySets, NodeId, Now, StateView};
use serde_json::{Value, json};
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
    executions: Arc<AtomicU64>,
}

impl Node {
    pub(super) fn new(id: NodeId, settings: &Settings) -> Self {
        let executions = Arc::new(AtomicU64::new(0));
        let mut node = Self {
            id,
            log: MemoryLog::new(),
            state: MemoryState::new(),
            roles: None,
            life: 0,
            inbox: VecDeque::new(),
            jobs: VecDeque::new(),
            functions: registry(&executions),
            executions,
        };
        node.start(settings);
        node
    }

    /// How many times a function ran here, pool and repetitions included.
    #[must_use]
    pub fn executions(&self) -> u64 {
        self.executions.load(Ordering::Relaxed)
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
        let ids: Vec<NodeId> = (1..=settings.nodes).map(NodeId).collect();
        let last_tried = image.last_tried;
        self.life += 1;
        self.roles = Some(Roles {
            acceptor: Acceptor::new(acceptor_config(self.id, settings, &ids), image, applied),
            leader: Leader::new(leader_config(self.id, settings, &ids), last_tried, applied),
            learner: Learner::new(learner_config(self.id, settings, &ids), applied),
        });
    }

    /// One turn of the leader.
    pub(super) fn lead(&mut self, input: leader::core::Input, now: Now, entropy: u64) -> Vec<leader::core::Effect> {
        let Some(roles) = &mut self.roles else { return Vec::new() };
        let world =
            leader::core::World { now, entropy, machine: &StoredMachine(&self.state), functions: &self.functions };
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

/// All nodes vote, each with the same weight.
pub(super) fn majority(settings: &Settings) -> MajoritySets {
    MajoritySets::simple((1..=settings.nodes).map(NodeId)).expect("a world has nodes")
}

fn acceptor_config(me: NodeId, settings: &Settings, ids: &[NodeId]) -> acceptor::core::Config {
    acceptor::core::Config {
        me,
        window: usize::try_from(settings.window).expect("a small window"),
        learners: ids.to_vec(),
        learn_from: settings.learn_from,
        // So small that a promise with a few votes comes in several parts.
        part_bytes: 1024,
    }
}

fn leader_config(me: NodeId, settings: &Settings, ids: &[NodeId]) -> leader::core::Config {
    leader::core::Config {
        me,
        acceptors: majority(settings),
        learners: ids.to_vec(),
        learn_from: settings.learn_from,
        window: settings.window,
        pipeline_bytes: 1 << 20,
        run_bytes: settings.run_bytes,
        rounds_in_flight: settings.rounds_in_flight,
        kept_calls: 100,
        resend: Duration::from_millis(100),
        prepare_timeout: Duration::from_secs(5),
        caller_retention: settings.retention,
        gateway_retention: settings.retention,
    }
}

fn learner_config(me: NodeId, settings: &Settings, ids: &[NodeId]) -> learner::Config {
    learner::Config {
        me,
        peers: ids.iter().copied().filter(|id| *id != me).collect(),
        learn_from: settings.learn_from,
        majority: majority(settings),
        window: settings.window,
        timing: learner::Timing::default(),
    }
}

/// The built-in functions, and two of the tests' own: `test.slow`, which runs on the pool, and
/// `test.dice`, which is as nondeterministic as a function can be.
fn registry(executions: &Arc<AtomicU64>) -> Registry {
    let mut registry = Registry::new();
    let slow: Arc<dyn Function> = Arc::new(Slow);
    let dice: Arc<dyn Function> = Arc::new(Dice);
    for inner in Registry::with_builtins().iter().cloned().chain([slow, dice]) {
        let counted = Counted { inner, executions: Arc::clone(executions) };
        registry.register(Arc::new(counted)).expect("names of their own");
    }
    registry
}

/// A function that counts how often it runs.
struct Counted {
    inner: Arc<dyn Function>,
    executions: Arc<AtomicU64>,
}

impl Function for Counted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn description(&self) -> &str {
        self.inner.description()
    }

    fn arguments_schema(&self) -> Value {
        self.inner.arguments_schema()
    }

    fn result_schema(&self) -> Value {
        self.inner.result_schema()
    }

    fn placement(&self) -> Placement {
        self.inner.placement()
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure> {
        self.execute_text(context, &arguments.to_string())
    }

    fn execute_text(&self, context: &mut ExecutionContext<'_>, arguments: &str) -> Result<Value, Failure> {
        self.executions.fetch_add(1, Ordering::Relaxed);
        self.inner.execute_text(context, arguments)
    }
}

struct Slow;

impl Function for Slow {
    fn name(&self) -> &str {
        "test.slow"
    }

    fn description(&self) -> &str {
        "Appends a character to the value of a key, on the pool."
    }

    fn arguments_schema(&self) -> Value {
        json!({"type": "object"})
    }

    fn result_schema(&self) -> Value {
        json!(true)
    }

    fn placement(&self) -> Placement {
        Placement::Pool
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure> {
        let key = Key::new(arguments["key"].as_str().unwrap_or("slow")).expect("a short key");
        let mut text = context.get(&key)?.map_or_else(Vec::new, |entry| entry.value.to_vec());
        text.extend_from_slice(arguments["append"].as_str().unwrap_or("x").as_bytes());
        let result = String::from_utf8_lossy(&text).into_owned();
        context.put(key, text.into())?;
        Ok(Value::String(result))
    }
}

struct Dice;

impl Function for Dice {
    fn name(&self) -> &str {
        "test.dice"
    }

    fn description(&self) -> &str {
        "Puts a random number under the key `dice`."
    }

    fn arguments_schema(&self) -> Value {
        json!({"type": "object"})
    }

    fn result_schema(&self) -> Value {
        json!({"type": "integer"})
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, _: Value) -> Result<Value, Failure> {
        let thrown = context.random();
        context.put(Key::new("dice").expect("a short key"), thrown.to_string().into())?;
        Ok(json!(thrown))
    }
}
