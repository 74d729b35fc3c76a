//! The acceptor's actor: mailbox, disk, network.
//!
//! It takes all that the mailbox holds through the core, then writes everything that is to be
//! durable in *one* batch with *one* sync, and only then sends. Under load many votes share a
//! sync, and nothing that is not durable is ever seen.
//!
//! The write blocks, so this actor runs on an arbiter thread of its own. After the first
//! failed write it is deaf: it answers nothing ever again, because it can no longer know what
//! its disk remembers (S-12), and tells its owner once, who stops the node.

use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, AsyncContext, Context, Handler};
use protocol::trace::Stage;
use protocol::{Ballot, Command, CommandNumber, Message, NodeId, Space, Tracer};
use storage::{LogRecord, LogStore, StorageError};

use crate::core::{Acceptor, Effect, IgnoreReason, Input, Silence};

/// Messages that may wait while a sync is under way. At 1,024 a turn it holds four turns; a
/// sender that finds it full drops the message, which the protocol allows, and counts it.
pub const MAILBOX_CAPACITY: usize = 4_096;

/// Inputs after which a turn ends although more are queued, so that a steady stream cannot
/// hold back the answers to its beginning.
pub const TURN_INPUTS_MAX: usize = 1_024;

/// An input for the acceptor. Send with `try_send`.
#[derive(Clone, Debug)]
pub struct Deliver(pub Input);

impl actix::Message for Deliver {
    type Result = ();
}

/// Ends a turn; runs when the mailbox has been drained.
struct Flush;

impl actix::Message for Flush {
    type Result = ();
}

/// What an acceptor does to the rest of its node. None of these may block.
pub struct AcceptorPorts {
    /// Sends a message to a node, this one included.
    pub send: Box<dyn Fn(NodeId, Message) + Send>,
    /// Hands the bodies of proposed commands to the learner of this node.
    pub proposed: Box<dyn Fn(Ballot, Vec<Command>) + Send>,
    /// How much room the disk has now.
    pub space: Box<dyn Fn() -> Space + Send>,
    /// The acceptor was silent, and speaks from now on.
    pub speaks: Box<dyn Fn() + Send>,
    /// The disk failed; the acceptor is deaf from now on. Called once.
    pub failed: Box<dyn Fn(StorageError) + Send>,
    /// Who follows calls, if anybody does.
    pub tracer: Option<Arc<Tracer>>,
}

/// The acceptor of a node, as an actor.
pub struct AcceptorActor {
    core: Acceptor,
    store: Arc<dyn LogStore>,
    ports: AcceptorPorts,
    turn: Turn,
    /// Which votes may go. Nothing depends on that: it is written with the next batch, and is not
    /// worth a sync of its own, unless the space that they take is needed: then there may be no next batch.
    forget: Option<CommandNumber>,
    deaf: bool,
}

/// What the inputs since the last flush led to.
#[derive(Default)]
struct Turn {
    inputs: usize,
    records: Vec<LogRecord>,
    sends: Vec<(NodeId, Message)>,
    speaks: bool,
}

impl AcceptorActor {
    /// The actor around a core that was rebuilt from `store`.
    #[must_use]
    pub fn new(core: Acceptor, store: Arc<dyn LogStore>, ports: AcceptorPorts) -> Self {
        Self { core, store, ports, turn: Turn::default(), forget: None, deaf: false }
    }

    fn take(&mut self, input: Input) {
        let mut effects = Vec::new();
        let from = match &input {
            Input::Message { from, .. } => *from,
            Input::Noted(peer) => *peer,
            Input::Led(ballot) => ballot.node,
            Input::Issued(_) | Input::Forget(_) | Input::Learners(_) | Input::Space(_) => self.core.me(),
        };
        self.core.handle(Input::Space((self.ports.space)()), &mut effects);
        self.core.handle(input, &mut effects);
        self.turn.inputs += 1;
        for effect in effects {
            match effect {
                Effect::Proposed { ballot, commands } => (self.ports.proposed)(ballot, commands),
                Effect::Persist(LogRecord::Forget(number)) => self.forget = Some(number),
                Effect::Persist(record) => self.turn.records.push(record),
                Effect::Send { to, message } => self.turn.sends.push((to, message)),
                Effect::Speaks => self.turn.speaks = true,
                Effect::Ignored(reason) => ignored(from, reason),
            }
        }
    }

    /// Makes the turn durable, then lets it be seen.
    fn flush(&mut self) {
        let mut turn = std::mem::take(&mut self.turn);
        if !turn.records.is_empty() || (self.ports.space)() != Space::Ample {
            turn.records.extend(self.forget.take().map(LogRecord::Forget));
        }
        if !turn.records.is_empty()
            && let Err(error) = self.write(&turn.records)
        {
            tracing::error!(%error, "the acceptor cannot write its votes and takes no further part");
            self.deaf = true;
            return (self.ports.failed)(error);
        }
        if turn.speaks {
            metrics::counter!("quorate_acceptor_rejoined_total").increment(1);
            show(self.core.silence());
            tracing::info!("the acceptor of this node is not silent any more: it promises and votes again");
            (self.ports.speaks)();
        }
        for (to, message) in turn.sends {
            (self.ports.send)(to, message);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "measures the sync; the core does not see it")]
    fn write(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        let begun = Instant::now();
        self.store.write(records)?;
        let took = begun.elapsed();
        metrics::histogram!("quorate_acceptor_sync_seconds").record(took.as_secs_f64());
        metrics::histogram!("quorate_acceptor_batch_records").record(records.len() as f64);
        metrics::counter!("quorate_acceptor_syncs_total").increment(1);
        let votes = records.iter().filter_map(voted_for);
        metrics::counter!("quorate_acceptor_votes_total").increment(votes.clone().count() as u64);
        if let Some(tracer) = &self.ports.tracer {
            tracer.shared(Stage::Sync, votes, took);
        }
        for record in records {
            if let LogRecord::Forget(number) = record {
                metrics::gauge!("quorate_votes_forgotten_through").set(number.0 as f64);
            }
        }
        if records.iter().any(|record| matches!(record, LogRecord::NextBallot(_))) {
            metrics::counter!("quorate_acceptor_promises_total").increment(1);
            let promise = self.core.next_ballot();
            metrics::gauge!("quorate_acceptor_promise_round").set(promise.round as f64);
            tracing::info!(ballot = %promise, "promised to take part in no lower ballot");
        }
        Ok(())
    }
}

/// The command of a vote, if it is one.
fn voted_for(record: &LogRecord) -> Option<&Command> {
    if let LogRecord::Vote(vote) = record { Some(&vote.command) } else { None }
}

/// The metric that says whether, and why, the acceptor is silent.
fn show(silence: Option<Silence>) {
    for reason in Silence::ALL {
        let value = if silence == Some(reason) { 1.0 } else { 0.0 };
        metrics::gauge!("quorate_acceptor_silent", "reason" => reason.name()).set(value);
    }
}

fn ignored(from: NodeId, reason: IgnoreReason) {
    metrics::counter!("quorate_acceptor_ignored_total", "reason" => reason.name()).increment(1);
    if reason.is_alarming() {
        tracing::warn!(%from, reason = reason.name(), "ignored a message that no working leader sends");
    }
}

impl Actor for AcceptorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        metrics::gauge!("quorate_acceptor_promise_round").set(self.core.next_ballot().round as f64);
        show(self.core.silence());
    }
}

impl Handler<Deliver> for AcceptorActor {
    type Result = ();

    fn handle(&mut self, Deliver(input): Deliver, ctx: &mut Self::Context) {
        if self.deaf {
            return;
        }
        if self.turn.inputs == 0 {
            ctx.notify(Flush);
        }
        self.take(input);
        if self.turn.inputs >= TURN_INPUTS_MAX {
            self.flush();
        }
    }
}

impl Handler<Flush> for AcceptorActor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        if !self.deaf {
            self.flush();
        }
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
