//! What the learner keeps: the state made durable, commands forgotten, space given back. All of it beside the applying,
//! one of each kind at a time.

use std::mem;
use std::sync::Arc;

use actix::prelude::*;
use protocol::{CommandNumber, Space, Timestamp};
use storage::Retention;

use super::{LearnerActor, SYNCS_OF_A_STATE, clock};
use crate::core::Input;
use crate::ports::History;

impl LearnerActor {
    /// Every second: says again how far this node is, and makes the state durable beside the
    /// applying, one sync at a time.
    pub(super) fn sync(&mut self, ctx: &mut Context<Self>) {
        if self.deaf {
            return;
        }
        // What told the other roles may have met a full mailbox: an acceptor that does not know
        // what is issued cannot vote for what follows.
        (self.ports.learned)(self.told);
        if self.core.membership().number() > CommandNumber::NULL {
            (self.ports.membership)(Arc::clone(self.core.membership()));
        }
        if self.syncing || self.store.durable() == self.store.applied().number {
            return;
        }
        self.syncing = true;
        let store = Arc::clone(&self.store);
        self.beside(
            ctx,
            move || {
                let begun = clock();
                store.sync().map(|()| begun.elapsed())
            },
            |actor, took, ctx| {
                actor.syncing = false;
                metrics::histogram!("quorate_learner_sync_seconds").record(took);
                metrics::counter!("quorate_learner_syncs_total").increment(SYNCS_OF_A_STATE);
                actor.publish();
                actor.take_kept(ctx);
            },
        );
    }

    /// Tells the core what the store says of itself.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
    pub(crate) fn take_kept(&mut self, ctx: &mut Context<Self>) {
        let (durable, kept_from) = (self.store.durable(), self.store.kept_from());
        metrics::gauge!("quorate_history_kept_from").set(kept_from.0 as f64);
        self.take(Input::Kept { durable, kept_from }, ctx);
    }

    /// Forgets what is not needed any more: commands that are old and that nobody in touch lacks; and whatever takes
    /// too much space, if it is safe with a majority of learners. Where the disk is almost full all that is old does: one
    /// peer that stands still must not fill the disks of the others.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
    pub(super) fn forget(&mut self, durable: CommandNumber, in_touch: CommandNumber, ctx: &mut Context<Self>) {
        // A newcomer may bring the number down; what was forgotten up to here was safe.
        self.forgettable = self.forgettable.max(durable);
        metrics::gauge!("quorate_durable_majority").set(self.forgettable.0 as f64);
        (self.ports.forget)(durable);
        if mem::replace(&mut self.forgetting, true) {
            return;
        }
        let History { retention, commands, bytes } = self.history;
        let since = (self.ports.clock)().wall.minus(retention);
        let old = Retention { commands: u64::MAX, bytes: u64::MAX, since };
        let large = Retention { commands, bytes, since: Timestamp::default() };
        let store = Arc::clone(&self.store);
        let in_touch = if (self.ports.space)() == Space::Ample { in_touch } else { durable };
        let work = move || {
            store.forget_commands(&old, in_touch)?;
            store.forget_commands(&large, durable)
        };
        self.beside(ctx, work, |actor, _, ctx| {
            actor.forgetting = false;
            actor.take_kept(ctx);
        });
    }

    /// One at a time: the next one finds what this one has left.
    pub(super) fn reclaim(&mut self, space: Space, ctx: &mut Context<Self>) {
        if mem::replace(&mut self.reclaiming, true) {
            return;
        }
        let store = Arc::clone(&self.store);
        self.beside(ctx, move || store.reclaim(space), |actor, (), _| actor.reclaiming = false);
    }
}
