//! A whole state that arrives: written beside the state piece by piece, checked and put in its place, all beside the
//! learner's thread and one after the other. No faster than it is allowed to: sender and receiver have calls to serve, and
//! on few processors a transfer at full speed would make these wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use protocol::{NodeId, SnapshotId, SnapshotPiece, Tick};
use storage::Installation;

use crate::actor::LearnerActor;
use crate::core::Input;

/// How often a transfer says how far it is.
const SAID_EVERY: Duration = Duration::from_secs(5);

/// What a transfer that was slower than allowed for a moment may make up for.
const CREDIT: Duration = Duration::from_millis(100);

/// What is to be done with what is staged.
pub(crate) enum Job {
    Stage(SnapshotId, SnapshotPiece),
    Install,
    Drop,
}

/// The jobs, and how far the transfer is.
#[derive(Default)]
pub(crate) struct Arrival {
    /// At most three: the core waits for the end of the first two kinds.
    jobs: VecDeque<Job>,
    busy: bool,
    transfer: Option<Transfer>,
    installing: bool,
    pace: Pace,
}

/// How fast pieces are taken.
#[derive(Default)]
struct Pace {
    /// In bytes; none: as they come.
    a_second: Option<u64>,
    /// The pieces so far are due by then.
    due: Tick,
}

impl Pace {
    /// A piece of so many bytes has come; says when the next one may be asked for.
    fn take(&mut self, bytes: usize, now: Tick) -> Tick {
        let Some(a_second) = self.a_second else { return now };
        let nanoseconds = u128::from(bytes as u64) * 1_000_000_000 / u128::from(a_second.max(1));
        let took = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.due = self.due.max(now - CREDIT) + took;
        self.due
    }
}

/// What has come of a snapshot since this node started.
struct Transfer {
    id: SnapshotId,
    from: NodeId,
    begun: Tick,
    said: Tick,
    records: u64,
    bytes: u64,
    /// Of all records.
    of: u64,
}

impl Arrival {
    /// Whether the state is being replaced, so that it may show more than the core knows.
    pub(crate) fn is_installing(&self) -> bool {
        self.installing
    }
}

impl Transfer {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn megabytes_a_second(&self, now: Tick) -> f64 {
        let seconds = now.since(self.begun).as_secs_f64().max(0.001);
        (self.bytes as f64 / 1e6 / seconds * 10.0).round() / 10.0
    }

    fn percent(&self) -> u64 {
        (self.records.saturating_mul(100) / self.of.max(1)).min(100)
    }
}

impl LearnerActor {
    /// Counts a piece, and says now and then how far the transfer is.
    pub(crate) fn note_piece(&mut self, id: SnapshotId, piece: &SnapshotPiece, of: u64, from: NodeId) {
        let now = (self.ports.clock)().tick;
        if self.arrival.transfer.as_ref().is_none_or(|transfer| transfer.id != id) {
            tracing::info!(%from, at = %id.at, applied = %self.store.applied(), records = of,
                "receives a whole state: nobody in touch keeps the commands that this node lacks");
            let transfer = Transfer { id, from, begun: now, said: now, records: 0, bytes: 0, of };
            self.arrival.transfer = Some(transfer);
        }
        let Some(transfer) = &mut self.arrival.transfer else { return };
        transfer.records += piece.records.len() as u64;
        transfer.bytes += piece.bytes() as u64;
        transfer.from = from;
        metrics::counter!("quorate_snapshot_received_bytes_total").increment(piece.bytes() as u64);
        #[expect(clippy::cast_precision_loss, reason = "at most 100")]
        metrics::gauge!("quorate_snapshot_received_percent").set(transfer.percent() as f64);
        if now.since(transfer.said) >= SAID_EVERY {
            transfer.said = now;
            tracing::info!(%from, at = %id.at, percent = transfer.percent(), megabytes = transfer.bytes / 1_000_000,
                megabytes_a_second = transfer.megabytes_a_second(now), "receives a whole state");
        }
    }

    /// Does a job after those before it.
    pub(crate) fn enqueue(&mut self, job: Job, ctx: &mut Context<Self>) {
        self.arrival.installing |= matches!(job, Job::Install);
        self.arrival.jobs.push_back(job);
        self.next_job(ctx);
    }

    /// Lets whole states arrive at this many bytes a second at most.
    #[must_use]
    pub fn receiving(mut self, bytes_a_second: u64) -> Self {
        self.arrival.pace.a_second = Some(bytes_a_second);
        self
    }

    fn next_job(&mut self, ctx: &mut Context<Self>) {
        if self.arrival.busy {
            return;
        }
        let Some(job) = self.arrival.jobs.pop_front() else { return };
        self.arrival.busy = true;
        let due = match &job {
            Job::Stage(_, piece) => self.arrival.pace.take(piece.bytes(), (self.ports.clock)().tick),
            Job::Install | Job::Drop => Tick::default(),
        };
        let store = Arc::clone(&self.store);
        let work = move || match job {
            Job::Stage(id, piece) => store.stage(id, &piece).map(|()| Some(Input::Staged(store.staged()))),
            Job::Install => store.install().map(|installation| Some(Input::Installed(installation))),
            Job::Drop => store.drop_staged().map(|()| None),
        };
        self.beside(ctx, work, move |actor, done, ctx| {
            let rest = due.since((actor.ports.clock)().tick);
            if rest.is_zero() {
                actor.job_done(done, ctx);
            } else {
                ctx.run_later(rest, |actor, ctx| actor.job_done(done, ctx));
            }
        });
    }

    fn job_done(&mut self, done: Option<Input>, ctx: &mut Context<Self>) {
        self.arrival.busy = false;
        if let Some(Input::Installed(installation)) = &done {
            self.installed(installation);
        }
        if let Some(input) = done {
            self.take(input, ctx);
            self.take_kept(ctx);
        }
        self.next_job(ctx);
    }

    fn installed(&mut self, installation: &Installation) {
        self.arrival.installing = false;
        let transfer = self.arrival.transfer.take();
        match installation {
            Installation::Done(at) => {
                let now = (self.ports.clock)().tick;
                let megabytes = transfer.as_ref().map(|transfer| transfer.bytes / 1_000_000);
                let rate = transfer.as_ref().map(|transfer| transfer.megabytes_a_second(now));
                metrics::counter!("quorate_snapshot_installed_total").increment(1);
                tracing::info!(%at, megabytes, megabytes_a_second = rate, "the whole state is here and in use");
            }
            // The core says so.
            Installation::Mismatch => metrics::counter!("quorate_snapshot_mismatches_total").increment(1),
            Installation::Outdated => tracing::info!("the whole state that came is not needed any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a transfer that is faster than it may be in the long run, one that is slower though pieces come as fast, and
    /// credit that grows without end while nothing comes.
    #[test]
    fn pieces_are_taken_at_the_pace_that_is_allowed() {
        let at = |milliseconds| Tick::default() + Duration::from_millis(milliseconds);
        let mut pace = Pace { a_second: Some(1_000_000), ..Pace::default() };
        // A second, then two pieces of 50 ms each: the credit is used up.
        assert_eq!([pace.take(50_000, at(1_000)), pace.take(50_000, at(1_000))], [at(950), at(1_000)]);
        assert_eq!(pace.take(50_000, at(1_000)), at(1_050));
        // Each asked for when it was due, and 10 ms on its way.
        assert_eq!(pace.take(50_000, at(1_060)), at(1_100));
        assert_eq!(pace.take(50_000, at(1_110)), at(1_150));
        assert_eq!(Pace::default().take(usize::MAX, at(7)), at(7));
    }
}
