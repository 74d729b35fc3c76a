//! What the roles of this node say of themselves, for heartbeats and for operators.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use failure_detector::core::LocalStatus;
use learner::Progress;
use protocol::Ballot;
use tokio::sync::watch;

/// Shared by the actors of one node.
pub(super) struct Status {
    ballots: Mutex<Ballots>,
    progress: watch::Receiver<Progress>,
    stopping: AtomicBool,
}

#[derive(Clone, Copy)]
struct Ballots {
    leads: Option<Ballot>,
    highest: Ballot,
}

impl Status {
    pub(super) fn new(highest: Ballot, progress: watch::Receiver<Progress>) -> Self {
        let ballots = Mutex::new(Ballots { leads: None, highest });
        Self { ballots, progress, stopping: AtomicBool::new(false) }
    }

    fn ballots(&self) -> std::sync::MutexGuard<'_, Ballots> {
        // Two plain values: they are whole whoever panicked.
        self.ballots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leader of this node leads that ballot, or none.
    pub(super) fn leads(&self, ballot: Option<Ballot>) {
        self.ballots().leads = ballot;
    }

    /// A ballot was heard of.
    pub(super) fn heard(&self, ballot: Ballot) {
        let mut ballots = self.ballots();
        ballots.highest = ballots.highest.max(ballot);
    }

    /// The highest ballot that was heard of.
    pub(super) fn highest(&self) -> Ballot {
        self.ballots().highest
    }

    /// How far this node is.
    pub(super) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// What heartbeats say.
    pub(super) fn local(&self) -> LocalStatus {
        let (ballots, progress) = (*self.ballots(), self.progress());
        LocalStatus {
            leads: ballots.leads,
            ballot: ballots.highest,
            issued: progress.issued,
            applied: progress.applied,
            durable: progress.durable,
        }
    }

    /// From now on this node leads no more and takes no more calls.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
