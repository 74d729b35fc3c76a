//! The learner's actor: translates between the core and the world, and decides nothing.
//!
//! A *turn* is what the mailbox holds at once: every input goes through the core, and then one
//! write applies whatever became issued, before anything is sent but questions. The write is not synced
//! (DESIGN 8: the state can be rebuilt from the log); a sync runs beside it every second.
//!
//! What may take long is done on threads beside it: syncs and forgetting (module `keeping`), checkpoints for others
//! ([`crate::checkpoints`]), a whole state that arrives ([`crate::arrival`]).
//!
//! The actor blocks its thread in reads and writes of the store, so it has an arbiter of its
//! own. Its mailbox is bounded: others use `try_send` and count what is refused; a refused
//! message is a lost one, and peers are asked for what it would have brought.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use protocol::message::{CatchUp, Commands, ToLearner};
use protocol::trace::Stage;
use protocol::{Command, CommandId, CommandNumber, Membership, NodeId};
use storage::{StateStore, StorageError};
use tokio::sync::{oneshot, watch};

use crate::arrival::{Arrival, Job};
use crate::checkpoints::Checkpoints;
use crate::core::{Effect, IgnoreReason, Input, Learner, Waiter};
use crate::ports::{History, LearnerPorts, Progress};
use crate::query::{NoDigest, StateDigest, digest_of};

mod keeping;

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
/// A piece of an answer to `CatchUp`: small beside a frame, large beside a round trip. Applying it takes some tens of
/// milliseconds, well below the time after which another peer is asked.
const PIECE_COMMANDS: usize = 2048;
/// The same in bytes of bodies, or of a snapshot; a single larger command or record goes alone.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

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
    pub(crate) number: CommandNumber,
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
    pub(crate) store: Arc<dyn StateStore>,
    history: History,
    pub(crate) ports: LearnerPorts,
    progress: watch::Sender<Progress>,
    /// The turn so far.
    effects: Vec<Effect>,
    inputs: usize,
    flush_is_queued: bool,
    /// Who waits for which digest; as many as the core admits.
    waiters: BTreeMap<Waiter, oneshot::Sender<Result<StateDigest, NoDigest>>>,
    next_waiter: u64,
    /// What the other roles were told last.
    told: CommandId,
    /// The number of the membership in the state, as far as it was looked at. Who joined was told of a later one.
    changed_at: CommandNumber,
    syncing: bool,
    forgetting: bool,
    forgettable: CommandNumber,
    reclaiming: bool,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) arrival: Arrival,
    /// The store failed or the end has come: nothing more is taken in or told.
    deaf: bool,
}

impl LearnerActor {
    /// The actor around a core that was made with what `store` holds, of which so much history is kept.
    ///
    /// # Panics
    /// When core and store disagree about what is applied: a mistake in the wiring.
    #[must_use]
    pub fn new(
        core: Learner,
        store: Arc<dyn StateStore>,
        history: History,
        ports: LearnerPorts,
        progress: watch::Sender<Progress>,
    ) -> Self {
        assert_eq!(core.issued(), store.applied(), "a learner begins with what its store has applied");
        // What cannot be read now is found when something is applied.
        let stored = Membership::stored_from(CommandNumber::NULL, &*store).ok().flatten();
        Self {
            told: core.issued(),
            changed_at: stored.map_or(CommandNumber::NULL, |stored| stored.number()),
            core,
            store,
            history,
            ports,
            progress,
            effects: Vec::new(),
            inputs: 0,
            flush_is_queued: false,
            waiters: BTreeMap::new(),
            next_waiter: 0,
            syncing: false,
            forgetting: false,
            forgettable: CommandNumber::NULL,
            reclaiming: false,
            checkpoints: Checkpoints::default(),
            arrival: Arrival::default(),
            deaf: false,
        }
    }

    pub(crate) fn take(&mut self, input: Input, ctx: &mut Context<Self>) {
        if self.deaf {
            return;
        }
        let (space, now) = (Input::Space((self.ports.space)()), (self.ports.clock)());
        self.effects.extend([space, input].into_iter().flat_map(|input| self.core.handle(input, now)));
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
        let mut beside = Vec::new();
        for effect in mem::take(&mut self.effects) {
            match effect {
                Effect::Apply(commands) => issued.extend(commands),
                Effect::Digest { waiter } => {
                    self.apply(&mem::take(&mut issued))?;
                    self.answer(waiter, Ok(digest_of(&*self.store)));
                }
                Effect::NoDigest { waiter, reason } => self.answer(waiter, Err(NoDigest::Refused(reason))),
                Effect::Ask { to, first } => {
                    self.send(to, protocol::Message::Learner(ToLearner::CatchUp(CatchUp { first })));
                }
                Effect::Send { to, message } => sends.push((to, message)),
                Effect::Serve { to, first } => {
                    serves.insert(to, first);
                }
                Effect::Ignored(reason) => note_ignored(reason),
                Effect::Forget { .. }
                | Effect::Reclaim(_)
                | Effect::MakeCheckpoint
                | Effect::ServePiece { .. }
                | Effect::CloseCheckpoint(_)
                | Effect::Stage { .. }
                | Effect::Install
                | Effect::DropStaged => beside.push(effect),
            }
        }
        self.apply(&issued)?;
        if !self.arrival.is_installing() {
            let applied = self.store.applied();
            assert_eq!(applied, self.core.issued(), "what is issued is applied when the turn ends");
            if applied != self.told {
                self.told = applied;
                self.take_membership()?;
                (self.ports.learned)(applied);
                self.publish();
            }
        }
        for (to, message) in sends {
            self.send(to, message);
        }
        for (to, first) in serves {
            // What is forgotten is not there; `kept_from` says so.
            let commands = self.store.commands(first, PIECE_COMMANDS, PIECE_BYTES)?.unwrap_or_default();
            let answer = Commands { commands, issued: self.told, kept_from: self.store.kept_from() };
            metrics::counter!("quorate_learner_catch_up_served_total").increment(1);
            (self.ports.send)(to, protocol::Message::Learner(ToLearner::Commands(answer)));
        }
        for effect in beside {
            self.begin(effect, ctx);
        }
        Ok(())
    }

    /// Looks for a later membership in what was applied. It is durable here before anybody hears that it is applied:
    /// whoever votes above a change does so because its learner has applied it, so once anything above is issued,
    /// all up to the change is in durable states of a majority set of the new acceptors. The old ones may then go. A node that
    /// was told of the change when it joined is no exception.
    fn take_membership(&mut self) -> Result<(), StorageError> {
        let stored = Membership::stored_from(self.changed_at.next(), &*self.store);
        let Some(stored) = stored.map_err(|error| StorageError::Failed(error.to_string()))? else { return Ok(()) };
        self.store.sync()?;
        self.changed_at = stored.number();
        tracing::info!(number = %stored.number(), nodes = stored.nodes().len(), "the membership is applied");
        let (now, is_new) = ((self.ports.clock)(), stored.number() > self.core.membership().number());
        self.effects.extend(self.core.handle(Input::Membership(Arc::clone(&stored)), now));
        // No other sync says so before there is another command: an idle cluster would wait for it.
        let kept = Input::Kept { durable: self.store.durable(), kept_from: self.store.kept_from() };
        self.effects.extend(self.core.handle(kept, now));
        if is_new {
            (self.ports.membership)(stored);
        }
        Ok(())
    }

    fn send(&self, to: NodeId, message: protocol::Message) {
        metrics::counter!("quorate_learner_sent_total", "message" => message.name()).increment(1);
        (self.ports.send)(to, message);
    }

    /// Begins what is done beside this thread.
    fn begin(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Forget { durable, in_touch } => self.forget(durable, in_touch, ctx),
            Effect::Reclaim(space) => self.reclaim(space, ctx),
            Effect::MakeCheckpoint => self.make_checkpoint(ctx),
            Effect::ServePiece { to, id, from } => self.serve_piece(to, id, from, ctx),
            Effect::CloseCheckpoint(id) => self.close_checkpoint(id),
            Effect::Stage { id, piece, records, from } => {
                self.note_piece(id, &piece, records, from);
                self.enqueue(Job::Stage(id, piece), ctx);
            }
            Effect::Install => self.enqueue(Job::Install, ctx),
            Effect::DropStaged => self.enqueue(Job::Drop, ctx),
            Effect::Apply(_)
            | Effect::Digest { .. }
            | Effect::NoDigest { .. }
            | Effect::Ask { .. }
            | Effect::Send { .. }
            | Effect::Serve { .. }
            | Effect::Ignored(_) => unreachable!("done in the turn itself"),
        }
    }

    /// Does something on a thread for blocking work, then something with what came of it. An error ends the learner.
    pub(crate) fn beside<T: Send + 'static>(
        &mut self,
        ctx: &mut Context<Self>,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + 'static,
    ) {
        let work = tokio::task::spawn_blocking(work);
        ctx.spawn(work.into_actor(self).map(move |result, actor, ctx| {
            match result.unwrap_or_else(|panicked| Err(StorageError::Failed(panicked.to_string()))) {
                Ok(done) if !actor.deaf => then(actor, done, ctx),
                Ok(_) => {}
                Err(error) => actor.fail(error),
            }
        }));
    }

    fn apply(&self, commands: &[Command]) -> Result<(), StorageError> {
        if commands.is_empty() {
            return Ok(());
        }
        let begun = clock();
        self.store.apply(commands)?;
        let took = begun.elapsed();
        metrics::histogram!("quorate_learner_apply_seconds").record(took);
        #[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 commands")]
        metrics::histogram!("quorate_learner_apply_commands").record(commands.len() as f64);
        if let Some(tracer) = &self.ports.tracer {
            tracer.shared(Stage::Apply, commands.iter(), took);
        }
        Ok(())
    }

    fn answer(&mut self, waiter: Waiter, answer: Result<StateDigest, NoDigest>) {
        if let Some(waiting) = self.waiters.remove(&waiter) {
            // Whoever asked may have left.
            let _left = waiting.send(answer);
        }
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
    if reason == IgnoreReason::DoesNotFit {
        tracing::warn!(
            "the disk has no room for the whole state of another node beside its own; the part that came is dropped, and \
             asked for again when there is room"
        );
    }
    if let IgnoreReason::Mismatch { from, id } = reason {
        tracing::error!(
            %from, at = %id.at,
            "a whole state that was received is not what its sender said, and is not used: the data of that node, or \
             the way from it, is damaged; compare the nodes' digests. Another one is asked for"
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
        // Nothing may be forgotten yet: nobody was heard.
        metrics::gauge!("quorate_durable_majority").set(0.0);
        self.take_kept(ctx);
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
