//! What the roles of this node say of themselves, for heartbeats and for operators.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use failure_detector::core::LocalStatus;
use learner::Progress;
use protocol::message::HandOver;
use protocol::{Ballot, NodeId};
use tokio::sync::watch;

use super::probe::Probe;
use super::space::Room;

/// Shared by the actors of one node.
pub(super) struct Status {
    me: NodeId,
    ballots: Mutex<Ballots>,
    /// Whether this node hands its lead over.
    handing_over: watch::Sender<bool>,
    progress: watch::Receiver<Progress>,
    /// Whether this node leads and waits for a majority set of acceptors.
    waits: AtomicBool,
    draining: AtomicBool,
    stopping: AtomicBool,
    /// On the disk of this node.
    pub(super) room: Arc<Room>,
    /// Whether that disk takes a write.
    pub(super) probe: Arc<Probe>,
    /// What the failure detector says of the room of all nodes.
    takes_calls: AtomicBool,
}

#[derive(Clone, Copy)]
struct Ballots {
    leads: Option<Ballot>,
    seen: Option<Ballot>,
    highest: Ballot,
    hands_over: Option<HandOver>,
}

impl Status {
    pub(super) fn new(
        me: NodeId,
        highest: Ballot,
        progress: watch::Receiver<Progress>,
        (room, probe): (Arc<Room>, Arc<Probe>),
    ) -> Self {
        let ballots = Mutex::new(Ballots { leads: None, seen: None, highest, hands_over: None });
        let (draining, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        let (takes_calls, waits) = (AtomicBool::new(true), AtomicBool::new(false));
        let handing_over = watch::Sender::new(false);
        Self { me, ballots, handing_over, progress, waits, draining, stopping, room, probe, takes_calls }
    }

    fn ballots(&self) -> std::sync::MutexGuard<'_, Ballots> {
        // Plain values: they are whole whoever panicked.
        self.ballots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leader of this node leads that ballot, or none.
    pub(super) fn leads(&self, ballot: Option<Ballot>) {
        self.ballots().leads = ballot;
    }

    /// The leader of this node hands its lead over, or does so no more.
    pub(super) fn hands_over(&self, over: Option<HandOver>) {
        self.ballots().hands_over = over;
        self.handing_over.send_replace(over.is_some());
    }

    /// The leader of this node waits for a majority set of acceptors, or does not.
    pub(super) fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// Waits until this node does not hand its lead over, because it has, or because that came to nothing.
    pub(super) async fn hands_nothing_over(&self) {
        // The sender lives as long as this.
        _ = self.handing_over.subscribe().wait_for(|over| !over).await;
    }

    /// The failure detector knows a working leader, or none.
    pub(super) fn sees(&self, leader: Option<Ballot>) {
        self.ballots().seen = leader;
    }

    /// The leader that this node knows, itself or another: of the higher ballot where its roles
    /// know two. Whether this node leads, only its own leader can say.
    pub(super) fn leader(&self) -> Option<Ballot> {
        let ballots = self.ballots();
        ballots.leads.max(ballots.seen.filter(|seen| seen.node != self.me))
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
            waits: self.waits.load(Ordering::Relaxed),
            ballot: ballots.highest,
            issued: progress.issued,
            applied: progress.applied,
            durable: progress.durable,
            space: self.room.space(),
            // Nobody hands over to it, or waits for it.
            barred: self.is_stopping(),
            hands_over: ballots.hands_over,
            ..LocalStatus::default()
        }
    }

    /// Whether a leader on this node should take calls, as far as room goes.
    pub(super) fn take_calls(&self, takes: bool) {
        self.takes_calls.store(takes, Ordering::Release);
    }

    pub(super) fn takes_calls(&self) -> bool {
        self.takes_calls.load(Ordering::Acquire)
    }

    /// From now on this node tells callers to go elsewhere, and takes their calls.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether this node leads, and goes on.
    pub(super) fn is_leading(&self) -> bool {
        self.ballots().leads.is_some() && !self.is_stopping()
    }

    /// From now on this node leads no more and takes no more calls.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

#[cfg(test)]
impl Status {
    /// One of a node that knows nothing yet, with all the room there is.
    pub(super) fn fresh() -> Self {
        let marks = crate::config::Storage { soft_free: 1, hard_free: 0, receive_rate: 1 };
        let room = Arc::new(Room::new(marks, ".".into()));
        let (_, progress) = watch::channel(Progress::default());
        Self::new(NodeId(1), Ballot::default(), progress, (room, Arc::new(Probe::new(".".into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-21: catches a node that has just lost its lead and, because of that, forgets or never
    /// takes in who leads now: its callers would wait for nothing.
    #[test]
    fn the_end_of_the_own_lead_does_not_hide_who_leads() {
        let ballot = |round, node| Some(Ballot { round, node: NodeId(node) });
        let status = Status::fresh();
        status.leads(ballot(1, 1));
        status.sees(ballot(1, 1));
        assert_eq!(status.leader(), ballot(1, 1));
        status.sees(ballot(2, 2));
        assert_eq!(status.leader(), ballot(2, 2), "the detector may be first");
        status.leads(None);
        assert_eq!(status.leader(), ballot(2, 2));
        status.sees(ballot(1, 1));
        assert_eq!(status.leader(), None, "that this node leads is not for the detector to say");
        status.leads(ballot(3, 1));
        status.sees(ballot(2, 2));
        assert_eq!(status.leader(), ballot(3, 1), "the detector may be late");
    }
}
