//! The actor around the leader core: it translates and never decides.
//!
//! One turn is: every message that the mailbox holds goes through the core; then, at `Flush`,
//! the core sends what it gathered, what must be durable is written with one sync, and only
//! then do messages leave. It shares an arbiter thread with the gateway and the protocol
//! connections, because each of a call's steps wakes the next: on one thread that is a function
//! call. It blocks only in the rare sync of `last_tried`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use functions::{Failure, Heard, Registry};
use protocol::message::{HandOver, ToAcceptor, ToGateway, ToLeader};
use protocol::{Ballot, CommandNumber, Message, NodeId, Now, Tick, Tracer};
use storage::{LogRecord, LogStore, StateStore};
use tracing::error;

use crate::core::{Effect, Input, Leader, PoolJob, World};
use crate::machine::{StoredMachine, run_on_snapshot, without_result};
use crate::report::{Meters, log};
use crate::traces::Traces;

/// One input for the core.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct Deliver(pub Input);

/// The actor has emptied its mailbox.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Flush;

/// Room for what all gateways and acceptors of a full window may have under way; beyond it
/// senders drop, which the protocol tolerates, and count.
const MAILBOX: usize = 65_536;
/// Inputs handled before a turn ends even though more are waiting: bounds the delay of the first.
const TURN_MAX: usize = 1_024;
/// How often time passes for the core: a fraction of its shortest pause.
const TICK: Duration = Duration::from_millis(10);
/// Functions on the pool at a time; more wait their turn.
const POOL_MAX: usize = 4;

/// What the actor reaches beyond its own crate.
pub struct LeaderPorts {
    /// Sends a message to a node, this one included.
    pub send: Box<dyn Fn(NodeId, Message) + Send>,
    /// Tells the learner of this node that a peer knows more.
    pub learn_from_peer: Box<dyn Fn(NodeId, CommandNumber) + Send>,
    /// Tells the node which ballot it leads now, or none.
    pub leads: Box<dyn Fn(Option<Ballot>) + Send>,
    /// Whether this node leads and waits for a majority set of acceptors: said after each turn.
    pub waits: Box<dyn Fn(bool) + Send>,
    /// Whether there is room for new commands, on the disk of this node and of a majority set.
    pub room: Box<dyn Fn() -> bool + Send>,
    /// This node hands its lead over, or does so no more.
    pub hands_over: Box<dyn Fn(Option<HandOver>) + Send>,
    /// The nodes that this one hears, itself included.
    pub heard: Box<dyn Fn() -> BTreeMap<NodeId, Heard> + Send>,
    /// Whether this node may not campaign, because of its disk.
    pub barred: Box<dyn Fn() -> bool + Send>,
    /// The disk failed: stop the node.
    pub failed: Box<dyn Fn(String) + Send>,
    /// Both clocks.
    pub clock: Box<dyn Fn() -> Now + Send>,
    /// Chance.
    pub entropy: Box<dyn FnMut() -> u64 + Send>,
    /// Who follows calls, if anybody does.
    pub tracer: Option<Arc<Tracer>>,
}

/// See the module.
pub struct LeaderActor {
    core: Leader,
    log: Arc<dyn LogStore>,
    state: Arc<dyn StateStore>,
    functions: Registry,
    ports: LeaderPorts,
    pool: Arc<tokio::sync::Semaphore>,
    meters: Meters,
    traces: Traces,
    /// Of the turn; kept between turns for its room.
    effects: Vec<Effect>,
    /// As `effects`.
    records: Vec<LogRecord>,
    handled: usize,
    /// After a disk error nothing is said any more.
    deaf: bool,
}

impl LeaderActor {
    /// An actor around a core.
    #[must_use]
    pub fn new(
        core: Leader,
        log: Arc<dyn LogStore>,
        state: Arc<dyn StateStore>,
        functions: Registry,
        ports: LeaderPorts,
    ) -> Self {
        let pool = Arc::new(tokio::sync::Semaphore::new(POOL_MAX));
        let traces = Traces::new(ports.tracer.clone());
        Self {
            core,
            log,
            state,
            functions,
            ports,
            pool,
            meters: Meters::new(),
            traces,
            effects: Vec::new(),
            records: Vec::new(),
            handled: 0,
            deaf: false,
        }
    }

    fn now(&self) -> Now {
        (self.ports.clock)()
    }

    fn feed(&mut self, input: Input) {
        let executes = matches!(input, Input::Message { message: ToLeader::ExecuteFunction(_), .. });
        let arrival = self.traces.arrival(&input);
        let now = self.now();
        let world = World {
            now,
            entropy: (self.ports.entropy)(),
            machine: &StoredMachine(self.state.as_ref()),
            functions: &self.functions,
            room: (self.ports.room)(),
            heard: &self.ports.heard,
            barred: (self.ports.barred)(),
        };
        self.core.handle(input, &world, &mut self.effects);
        if executes {
            let ended = self.now().tick;
            let took = ended.since(now.tick);
            self.meters.execute.record(took);
            if let Some(arrival) = arrival.filter(|_| self.core.leads().is_some()) {
                self.traces.executed(arrival, took, ended);
            }
        }
    }

    fn end_turn(&mut self, ctx: &mut Context<Self>) {
        self.handled = 0;
        self.feed(Input::EndOfTurn);
        let mut effects = std::mem::take(&mut self.effects);
        self.records.clear();
        self.records.extend(effects.iter().filter_map(Effect::record).cloned());
        if !self.records.is_empty() {
            if let Err(error) = self.log.write(&self.records) {
                return self.fail(&error.to_string());
            }
            self.meters.syncs.increment(1);
        }
        let now = self.now();
        for effect in effects.drain(..) {
            self.time(&effect, now.tick);
            self.carry_out(effect, ctx);
        }
        self.effects = effects;
        let load = self.core.load();
        (self.ports.waits)(load.waits);
        let leads = self.core.leads().is_some();
        self.meters.set(&load, leads, now);
        if !leads {
            self.traces.forget();
        }
    }

    /// Notes when commands and answers leave.
    fn time(&mut self, effect: &Effect, now: Tick) {
        let Effect::Send { message, .. } = effect else { return };
        if let Message::Acceptor(ToAcceptor::BeginBallot(begin)) = message
            && let Some(last) = begin.commands.last()
        {
            self.meters.proposed(last.number(), now);
        }
        if let Message::Gateway(ToGateway::Executed(executed)) = message {
            self.traces.answered(executed, |number| self.meters.sent(number), now);
        }
    }

    fn carry_out(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Persist(_) => {}
            Effect::Send { to, message } => (self.ports.send)(to, message),
            Effect::RunOnPool(job) => self.run_on_pool(job, ctx),
            Effect::LearnFromPeer { peer, issued } => (self.ports.learn_from_peer)(peer, issued),
            Effect::Leads(ballot) => (self.ports.leads)(ballot),
            Effect::HandsOver(over) => (self.ports.hands_over)(over),
            Effect::Note(note) => log(&note),
            Effect::Ignored(reason) => {
                self.meters.ignored(reason);
            }
            Effect::Failed(error) => self.fail(&error.to_string()),
        }
    }

    fn fail(&mut self, reason: &str) {
        if !self.deaf {
            self.deaf = true;
            error!(reason, "the leader cannot use its storage; this node stops");
            (self.ports.failed)(reason.to_owned());
        }
    }

    /// The job outlives the turn, and comes back through the mailbox even when that is full: a
    /// finished execution must not get lost.
    fn run_on_pool(&self, job: PoolJob, ctx: &mut Context<Self>) {
        let Some(function) = self.functions.get(&job.function).map(Arc::clone) else { return };
        let (state, pool, actor) = (Arc::clone(&self.state), Arc::clone(&self.pool), ctx.address());
        actix::spawn(async move {
            let Ok(_permit) = pool.acquire_owned().await else { return };
            let id = job.job;
            let run = move || run_on_snapshot(function.as_ref(), &job, state.as_ref());
            let execution = tokio::task::spawn_blocking(run)
                .await
                .unwrap_or_else(|error| without_result(Failure::Panicked(error.to_string())));
            _ = actor.send(Deliver(Input::PoolDone { job: id, execution: Box::new(execution) })).await;
        });
    }
}

impl Actor for LeaderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(TICK, |actor, ctx| {
            if !actor.deaf {
                // What the learner said when this mailbox was full.
                actor.feed(Input::Learned(actor.state.applied()));
                actor.feed(Input::Tick);
                actor.end_turn(ctx);
            }
        });
    }
}

impl Handler<Deliver> for LeaderActor {
    type Result = ();

    fn handle(&mut self, Deliver(input): Deliver, ctx: &mut Self::Context) {
        if self.deaf {
            return;
        }
        // A node that stops waits for this answer, and goes on to close its connections.
        let last = matches!(input, Input::StepDown(_) | Input::HandOver { .. });
        self.feed(input);
        self.handled += 1;
        if self.handled == 1 {
            ctx.notify(Flush);
        }
        if last || self.handled >= TURN_MAX {
            self.end_turn(ctx);
        }
    }
}

impl Handler<Flush> for LeaderActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        if !self.deaf && self.handled > 0 {
            self.end_turn(ctx);
        }
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
