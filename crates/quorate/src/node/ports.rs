//! What each role asks of the rest of its node.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use acceptor::actor::AcceptorPorts;
use failure_detector::actor::DetectorPorts;
use failure_detector::core::View;
use functions::Heard;
use leader::actor::LeaderPorts;
use leader::core::Input;
use learner::LearnerPorts;
use protocol::{Ballot, CommandNumber, Message, NodeId, Space, Tracer};
use rand::Rng as _;
use storage::rocksdb::Position;
use tokio::sync::{mpsc, watch};

use super::disks::Disks;
use super::outside;
use super::router::Router;
use super::status::Status;

/// What the ports lead to.
pub(super) struct Ports {
    pub(super) router: Arc<Router>,
    pub(super) status: Arc<Status>,
    pub(super) disks: Arc<Disks>,
    /// Whoever sends something here ends the node.
    pub(super) failed: mpsc::UnboundedSender<String>,
    /// Who follows calls.
    pub(super) tracer: Option<Arc<Tracer>>,
}

/// Says that a role has died. Each actor owns one: a failed assertion ends the actor, not the
/// process, and a node without one of its roles must not go on as if it were well. In a node that
/// stops, roles end as they are asked to.
struct DeathNotice {
    role: &'static str,
    status: Arc<Status>,
    failed: mpsc::UnboundedSender<String>,
}

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if !self.status.is_stopping() {
            // Nobody listens only when the node is ending already.
            _ = self.failed.send(format!("the {} of this node has died; the lines before say why", self.role));
        }
    }
}

impl Ports {
    /// How a role sends messages; its end is the end of the node.
    pub(super) fn send(&self, role: &'static str) -> Box<dyn Fn(NodeId, Message) + Send> {
        let router = Arc::clone(&self.router);
        let alive = DeathNotice { role, status: Arc::clone(&self.status), failed: self.failed.clone() };
        Box::new(move |to, message| {
            let _owned = &alive;
            router.send(to, message);
        })
    }

    fn failed<E: Display>(&self) -> Box<dyn Fn(E) + Send> {
        let failed = self.failed.clone();
        // Nobody listens only when the node is ending already.
        Box::new(move |error| _ = failed.send(error.to_string()))
    }

    fn space(&self) -> Box<dyn Fn() -> Space + Send> {
        let status = Arc::clone(&self.status);
        Box::new(move || status.room.space())
    }

    pub(super) fn acceptor(&self) -> AcceptorPorts {
        let (router, disks) = (Arc::clone(&self.router), Arc::clone(&self.disks));
        AcceptorPorts {
            send: self.send("acceptor"),
            proposed: Box::new(move |ballot, commands| router.proposed(ballot, commands)),
            speaks: Box::new(move || disks.speaks()),
            space: self.space(),
            failed: self.failed(),
            tracer: self.tracer.clone(),
        }
    }

    pub(super) fn learner(&self) -> LearnerPorts {
        let (router, acceptor, members) =
            (Arc::clone(&self.router), Arc::clone(&self.router), Arc::clone(&self.router));
        LearnerPorts {
            send: self.send("learner"),
            membership: Box::new(move |membership| members.change_membership(membership)),
            learned: Box::new(move |issued| router.learned(issued)),
            space: self.space(),
            forget: Box::new(move |durable| acceptor.forget_votes(durable)),
            failed: self.failed(),
            clock: Box::new(outside::now),
            tracer: self.tracer.clone(),
        }
    }

    /// `view` is what the failure detector knows.
    pub(super) fn leader(&self, view: watch::Receiver<View>) -> LeaderPorts {
        let (router, learner) = (Arc::clone(&self.router), Arc::clone(&self.router));
        let status = || Arc::clone(&self.status);
        let (room, own, handing, waiting) = (status(), status(), status(), status());
        let (me, known) = (self.router.me(), Arc::clone(&self.disks));
        let heard = move || heard(&view.borrow(), me, &known, own.progress().applied);
        let disks = Arc::clone(&self.disks);
        let mut chance = rand::make_rng::<rand::rngs::SmallRng>();
        LeaderPorts {
            send: self.send("leader"),
            learn_from_peer: Box::new(move |peer, issued| learner.peer_issued(peer, issued)),
            leads: Box::new(move |ballot| router.leads(ballot)),
            hands_over: Box::new(move |over| handing.hands_over(over)),
            waits: Box::new(move |waits| waiting.waits(waits)),
            room: Box::new(move || room.takes_calls()),
            heard: Box::new(heard),
            barred: Box::new(move || disks.is_barred()),
            failed: self.failed(),
            clock: Box::new(outside::now),
            entropy: Box::new(move || chance.next_u64()),
            tracer: self.tracer.clone(),
        }
    }

    pub(super) fn detector(&self) -> DetectorPorts {
        let router = || Arc::clone(&self.router);
        let send = self.send("failure detector");
        let (campaign, step_down, hand_over, leader_is) = (router(), router(), router(), router());
        let (peer_issued, peer_durable, suspected) = (router(), router(), router());
        let status = || Arc::clone(&self.status);
        let (local, campaigning, room) = (status(), status(), status());
        let disks = Arc::clone(&self.disks);
        DetectorPorts {
            send: Box::new(move |to, heartbeat| send(to, Message::FailureDetector(heartbeat))),
            status: Box::new(move || {
                let local = local.local();
                let (barred, silent) = (local.barred || disks.is_barred(), disks.silence().is_some());
                let Position { promise, voted } = disks.position();
                failure_detector::core::LocalStatus { barred, silent, promise, voted, ..local }
            }),
            campaign: Box::new(move || {
                if !campaigning.is_stopping() {
                    campaign.tell_leader(Input::Campaign { above: campaigning.highest() });
                }
            }),
            step_down: Box::new(move |why| step_down.tell_leader(Input::StepDown(why))),
            hand_over: Box::new(move |why| hand_over.tell_leader(Input::HandOver { or_else: Some(why) })),
            takes_calls: Box::new(move |takes| room.take_calls(takes)),
            leader_is: Box::new(move |ballot: Option<Ballot>| leader_is.sees(ballot)),
            peer_issued: Box::new(move |peer, issued| peer_issued.peer_issued(peer, issued)),
            peer_durable: Box::new(move |peer, durable| peer_durable.peer_durable(peer, durable)),
            suspected: Box::new(move |peer, gone| {
                if gone {
                    suspected.tell_learner(learner::Input::PeerLost(peer));
                }
            }),
            clock: Box::new(outside::now),
        }
    }
}

/// Who is heard by this node, itself included, and how each is; what it has applied itself.
pub(super) fn heard(view: &View, me: NodeId, disks: &Disks, applied: CommandNumber) -> BTreeMap<NodeId, Heard> {
    // One that has another disk than it had never votes.
    let peers = view.peers.iter().filter(|(id, peer)| peer.heard && !disks.is_replaced(**id));
    let peers: Vec<_> = peers.filter_map(|(id, peer)| peer.last.as_ref().map(|last| (*id, last))).collect();
    let hears = peers.iter().map(|(id, _)| *id).chain([me]);
    let own = Heard { speaks: disks.silence().is_none(), can_lead: !disks.is_barred(), ..Heard::well(applied, hears) };
    peers.into_iter().map(|(id, last)| (id, Heard::of(last))).chain([(me, own)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dies(status: &Arc<Status>) -> Option<String> {
        let (failed, mut failure) = mpsc::unbounded_channel();
        let notice = DeathNotice { role: "leader", status: Arc::clone(status), failed };
        assert!(failure.try_recv().is_err(), "it is alive");
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _owned = notice;
            panic!("a failed assertion");
        }));
        assert!(died.is_err());
        failure.try_recv().ok()
    }

    /// Catches a role that dies of a failed assertion in a node that goes on, says it is well, and
    /// perhaps says that it leads; and an orderly stop that is taken for a failure.
    #[test]
    fn the_end_of_an_actor_is_told_unless_the_node_stops() {
        let status = Arc::new(Status::fresh());
        assert_eq!(dies(&status).as_deref(), Some("the leader of this node has died; the lines before say why"));
        status.stop();
        assert_eq!(dies(&status), None);
    }
}
