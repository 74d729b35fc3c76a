//! The learner's actor: translates between the core and the world, and decides nothing.
//!
//! A *turn* is what the mailbox holds at once: every input goes through the core, and then one
//! write applies whatever became issued, before anything is sent. The write is not synced
//! (DESIGN 8: the state can be rebuilt from the log); a sync runs beside it every second.
//!
//! The actor blocks its thread in reads and writes of the store, so it has an arbiter of its
//! own. Its mailbox is bounded: others use `try_send` and count what is refused; a refused
//! message is a lost one, and peers are asked for what it would have brought.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use actix::prelude::*;
use protocol::message::{Commands, ToLearner};
use protocol::{Command, CommandNumber};
use storage::{StateStore, StorageError};
use tokio::sync::{oneshot, watch};

use crate::core::{Effect, IgnoreReason, Input, Learner, Waiter};
use crate::ports::{LearnerPorts, Progress};
use crate::query::{NoDigest, StateDigest, digest_of};

/// Two turns: one that is being written, and one that gathers meanwhile.
const MAILBOX: usize = 2 * TURN_INPUTS;
/// A turn ends at this many inputs even if more wait, so that no answer waits for ever.
const TURN_INPUTS: usize = 1024;
/// How often the core looks at the time: half of the shortest wait that it knows.
const TICK: Duration = Duration::from_millis(25);
/// How much of the state a power failure may cost this node; peers bring it back.
const SYNC: Duration = Duration::from_secs(1);
/// The state's own, and that of the log, which notes how far the state is durable.
const SYNCS_OF_A_STATE: u64 = 2;
/// A piece of an answer to `CatchUp`: small beside a frame, large beside a round trip.
const PIECE_COMMANDS: usize = 512;
/// The same in bytes of bodies; a single larger command goes alone.
const PIECE_BYTES: usize = 1 << 20;

/// Something for the core.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Deliver(pub Input);

/// The end: what was taken in is carried out and the state is durable when this is answered.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

/// A request for a digest, see [`crate::Queries::digest_at`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WantDigest {
    pub(crate) number: Option<CommandNumber>,
    pub(crate) patience: Duration,
    pub(crate) answer: oneshot::Sender<Result<StateDigest, NoDigest>>,
}

/// The end of a turn; handled when the mailbox is empty.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

/// The learner of this node.
pub struct LearnerActor {
    core: Learner,
    store: Arc<dyn StateStore>,
    ports: LearnerPorts,
    progress: watch::Sender<Progress>,
    /// The turn so far.
    effects: Vec<Effect>,
    inputs: usize,
    flush_is_queued: bool,
    /// Who waits for which digest; as many as the core admits.
    waiters: BTreeMap<Waiter, oneshot::Sender<Result<StateDigest, NoDigest>>>,
    next_waiter: u64,
    syncing: bool,
    /// The store failed or the end has come: nothing more is taken in or told.
    deaf: bool,
}

impl LearnerActor {
    /// The actor around a core that was made with `store.applied()`.
    ///
    /// # Panics
    /// When core and store disagree about what is applied: a mistake in the wiring.
    #[must_use]
    pub fn new(
        core: Learner,
        store: Arc<dyn StateStore>,
        ports: LearnerPorts,
        progress: watch::Sender<Progress>,
    ) -> Self {
        assert_eq!(core.issued(), store.applied(), "a learner begins with what its store has applied");
        Self {
            core,
            store,
            ports,
            progress,
            effects: Vec::new(),
            inputs: 0,
            flush_is_queued: false,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            syncing: false,
            deaf: false,
        }
    }

    fn take(&mut self, input: Input, ctx: &mut Context<Self>) {
        if self.deaf {
            return;
        }
        self.effects.extend(self.core.handle(input, (self.ports.clock)()));
        self.inputs += 1;
        if self.inputs >= TURN_INPUTS {
            self.flush(ctx);
        } else if !self.flush_is_queued {
            self.flush_is_queued = true;
            ctx.notify(Flush);
        }
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.inputs = 0;
        if let Err(error) = self.carry_out(ctx) {
            self.fail(error);
        }
    }

    /// Carries out the turn: applies, then tells, then sends.
    fn carry_out(&mut self, ctx: &mut Context<Self>) -> Result<(), StorageError> {
        let (mut issued, mut sends, mut serves) = (Vec::new(), Vec::new(), BTreeMap::new());
        let before = self.store.applied();
        for effect in mem::take(&mut self.effects) {
            match effect {
                Effect::Apply(commands) => issued.extend(commands),
                Effect::Digest { waiter } => {
                    self.apply(&mem::take(&mut issued))?;
                    self.take_digest(waiter, ctx);
                }
                Effect::NoDigest { waiter, reason } => self.answer(waiter, Err(NoDigest::Refused(reason))),
                Effect::Send { to, message } => sends.push((to, message)),
                Effect::Serve { to, first } => {
                    serves.insert(to, first);
                }
                Effect::Ignored(reason) => note_ignored(reason),
            }
        }
        self.apply(&issued)?;
        let applied = self.store.applied();
        assert_eq!(applied, self.core.issued(), "what is issued is applied when the turn ends");
        if applied != before {
            (self.ports.learned)(applied);
            self.publish();
        }
        for (to, message) in sends {
            metrics::counter!("quorate_learner_sent_total", "message" => message.name()).increment(1);
            (self.ports.send)(to, message);
        }
        for (to, first) in serves {
            // None of what is asked for is kept: an answer without commands says up to where it would be.
            let commands = self.store.commands(first, PIECE_COMMANDS, PIECE_BYTES)?.unwrap_or_default();
            metrics::counter!("quorate_learner_catch_up_served_total").increment(1);
            (self.ports.send)(
                to,
                protocol::Message::Learner(ToLearner::Commands(Commands { commands, issued: applied })),
            );
        }
        Ok(())
    }

    fn apply(&self, commands: &[Command]) -> Result<(), StorageError> {
        if commands.is_empty() {
            return Ok(());
        }
        let begun = clock();
        self.store.apply(commands)?;
        metrics::histogram!("quorate_learner_apply_seconds").record(begun.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 commands")]
        metrics::histogram!("quorate_learner_apply_commands").record(commands.len() as f64);
        Ok(())
    }

    /// Opens a view of the state on a thread of its own, where the digest is then computed, and
    /// waits only for the view: what is applied next must not be in it.
    fn take_digest(&mut self, waiter: Waiter, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.store);
        let (opened, opening) = mpsc::sync_channel::<()>(1);
        let work = tokio::task::spawn_blocking(move || digest_of(&*store, opened));
        // An error is the end of the thread without a view; its result says why.
        let _opened_or_failed = opening.recv();
        ctx.spawn(work.into_actor(self).map(move |result, actor, ctx| {
            match result.unwrap_or_else(|panicked| Err(StorageError::Failed(panicked.to_string()))) {
                Ok(digest) => actor.answer(waiter, Ok(digest)),
                Err(error) => {
                    actor.answer(waiter, Err(NoDigest::Failed(error.clone())));
                    actor.fail(error);
                }
            }
            actor.take(Input::DigestDone, ctx);
        }));
    }

    fn answer(&mut self, waiter: Waiter, answer: Result<StateDigest, NoDigest>) {
        if let Some(waiting) = self.waiters.remove(&waiter) {
            // Whoever asked may have left.
            let _left = waiting.send(answer);
        }
    }

    /// Every second: says again how far this node is, and makes the state durable beside the
    /// applying, one sync at a time.
    fn sync(&mut self, ctx: &mut Context<Self>) {
        if self.deaf {
            return;
        }
        // What told the other roles may have met a full mailbox: an acceptor that does not know
        // what is issued cannot vote for what follows.
        (self.ports.learned)(self.store.applied());
        if self.syncing || self.store.durable() == self.store.applied().number {
            return;
        }
        self.syncing = true;
        let store = Arc::clone(&self.store);
        let work = tokio::task::spawn_blocking(move || store.sync());
        ctx.spawn(work.into_actor(self).map(|result, actor, _| {
            actor.syncing = false;
            match result.unwrap_or_else(|panicked| Err(StorageError::Failed(panicked.to_string()))) {
                Ok(()) => {
                    metrics::counter!("quorate_learner_syncs_total").increment(SYNCS_OF_A_STATE);
                    actor.publish();
                }
                Err(error) => actor.fail(error),
            }
        }));
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
    fn publish(&self) {
        let applied = self.store.applied().number;
        let progress = Progress { issued: self.core.issued().number, applied, durable: self.store.durable() };
        metrics::gauge!("quorate_learner_issued").set(progress.issued.0 as f64);
        metrics::gauge!("quorate_learner_applied").set(progress.applied.0 as f64);
        metrics::gauge!("quorate_learner_durable").set(progress.durable.0 as f64);
        self.progress.send_replace(progress);
    }

    fn fail(&mut self, error: StorageError) {
        if !self.deaf {
            self.deaf = true;
            self.waiters.clear();
            tracing::error!(%error, applied = %self.store.applied(), "the learner stops: its store failed");
            (self.ports.failed)(error);
        }
    }

    /// Carries out what was taken in, and makes it durable.
    fn end(&mut self, ctx: &mut Context<Self>) {
        if self.deaf {
            return;
        }
        self.flush(ctx);
        // A failed flush has said so, and the latched store would only say it again.
        if self.deaf {
            return;
        }
        match self.store.sync() {
            Ok(()) => self.publish(),
            Err(error) => return self.fail(error),
        }
        self.deaf = true;
        self.waiters.clear();
        tracing::info!(durable = %self.store.durable(), "the learner has ended");
    }
}

#[expect(clippy::disallowed_methods, reason = "writes are timed for metrics")]
fn clock() -> Instant {
    Instant::now()
}

fn note_ignored(reason: IgnoreReason) {
    metrics::counter!("quorate_learner_ignored_total", "reason" => reason.name()).increment(1);
    if let IgnoreReason::Contradiction { from, theirs, ours } = reason {
        tracing::error!(
            %from, %theirs, %ours,
            "agreement is broken: another node claims another command for a number; compare the nodes' digests, \
             and stop the one whose data is damaged"
        );
    }
}

impl Actor for LearnerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(TICK, |actor, ctx| actor.take(Input::Tick, ctx));
        ctx.run_interval(SYNC, Self::sync);
        self.publish();
        tracing::info!(applied = %self.store.applied(), durable = %self.store.durable(), "the learner begins");
    }

    fn stopped(&mut self, ctx: &mut Self::Context) {
        self.end(ctx);
    }
}

impl Handler<Deliver> for LearnerActor {
    type Result = ();

    fn handle(&mut self, Deliver(input): Deliver, ctx: &mut Self::Context) {
        self.take(input, ctx);
    }
}

impl Handler<WantDigest> for LearnerActor {
    type Result = ();

    fn handle(&mut self, WantDigest { number, patience, answer }: WantDigest, ctx: &mut Self::Context) {
        if self.deaf {
            return;
        }
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.waiters.insert(waiter, answer);
        self.take(Input::DigestAt { waiter, number, patience }, ctx);
    }
}

impl Handler<Flush> for LearnerActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.flush_is_queued = false;
        if !self.deaf {
            self.flush(ctx);
        }
    }
}

impl Handler<Stop> for LearnerActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.end(ctx);
        ctx.stop();
    }
}
