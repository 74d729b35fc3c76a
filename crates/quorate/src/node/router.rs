//! Where every message of a node passes: to a role of this node, or to a peer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use acceptor::actor::AcceptorActor;
use failure_detector::actor::FailureDetectorActor;
use http_api::actor::{FromLeader, IsInFlight, LeaderIs};
use http_api::{Door, GatewayActor};
use leader::actor::LeaderActor;
use learner::LearnerActor;
use protocol::message::{ToAcceptor, ToLeader, ToLearner};
use protocol::{Ballot, Command, CommandId, CommandNumber, Membership, Message, NodeId, RequestId, Tick};
use tokio::sync::watch;
use transport::{Lane, PeerEvent};

use super::disks::Disks;
use super::mailbox::{Mailbox, Unanswered};
use super::removal::Removal;
use super::status::Status;

/// How long a node that was removed may still be told so: some turns of its gateway.
const LEAVING: Duration = Duration::from_secs(3);

/// The addresses of a node. Each is set once, while the node starts; what comes before is
/// dropped like any lost message.
pub(super) struct Router {
    me: NodeId,
    status: Arc<Status>,
    membership: watch::Sender<Arc<Membership>>,
    /// Nodes that were removed just now, and since when: what tells them so is still to be sent.
    leaving: Mutex<BTreeMap<NodeId, (transport::Peer, Tick)>>,
    disks: Arc<Disks>,
    /// What the others say of this node.
    pub(super) removal: Removal,
    /// Which roles hang.
    pub(super) unanswered: Unanswered,
    /// Held while the gateway is told who leads: two roles know something of it, on two threads.
    telling: Mutex<()>,
    pub(super) transport: OnceLock<transport::Handle>,
    pub(super) acceptor: Mailbox<AcceptorActor>,
    pub(super) leader: Mailbox<LeaderActor>,
    pub(super) learner: Mailbox<LearnerActor>,
    pub(super) gateway: Mailbox<GatewayActor>,
    pub(super) detector: Mailbox<FailureDetectorActor>,
    /// By which callers come to the gateway.
    pub(super) door: OnceLock<Arc<Door>>,
}

impl Router {
    pub(super) fn new(me: NodeId, status: Arc<Status>, disks: Arc<Disks>, membership: Arc<Membership>) -> Self {
        Self {
            me,
            status,
            disks,
            membership: watch::Sender::new(membership),
            leaving: Mutex::default(),
            removal: Removal::new(),
            unanswered: Unanswered::default(),
            telling: Mutex::new(()),
            transport: OnceLock::new(),
            acceptor: Mailbox::of("acceptor"),
            leader: Mailbox::of("leader"),
            learner: Mailbox::of("learner"),
            gateway: Mailbox::of("gateway"),
            detector: Mailbox::of("failure_detector"),
            door: OnceLock::new(),
        }
    }

    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    /// The membership in force, as the learner of this node knows it.
    pub(super) fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.membership.borrow())
    }

    /// The same, whenever it changes.
    pub(super) fn memberships(&self) -> watch::Receiver<Arc<Membership>> {
        self.membership.subscribe()
    }

    /// The learner of this node has applied a change of the membership. It says so again and again, so that nothing is
    /// missed in a full mailbox.
    pub(super) fn change_membership(&self, membership: Arc<Membership>) {
        let learners = acceptor::core::Input::Learners(membership.learners().collect());
        self.acceptor.tell(acceptor::actor::Deliver(learners));
        let known = failure_detector::core::Input::Membership(Arc::clone(&membership));
        self.detector.tell(failure_detector::actor::Deliver(known));
        if let Some(transport) = self.transport.get() {
            transport.set_peers(self.peers_until_they_know(&membership), membership.last_id());
        }
        self.membership.send_replace(membership);
    }

    /// The peers under a membership, and for a while those that it has removed.
    fn peers_until_they_know(&self, membership: &Membership) -> BTreeMap<NodeId, transport::Peer> {
        let (mut all, now) = (peers(membership), super::outside::now().tick);
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, peer) in peers(&self.membership()) {
            if !all.contains_key(&id) {
                leaving.insert(id, (peer, now));
            }
        }
        leaving.retain(|id, (_, since)| !all.contains_key(id) && now.since(*since) < LEAVING);
        // The place of one may be taken.
        let names: BTreeSet<String> = all.values().map(|peer| peer.name.clone()).collect();
        let gone = leaving.iter().filter(|(_, (peer, _))| !names.contains(&peer.name));
        all.extend(gone.map(|(id, (peer, _))| (*id, peer.clone())));
        all
    }

    /// Sends a message to a node, this one included. Never blocks; it may get lost.
    pub(super) fn send(&self, to: NodeId, message: Message) {
        if to == self.me {
            return self.deliver(self.me, message);
        }
        if let Some(transport) = self.transport.get() {
            // What is dropped is counted there.
            transport.send(to, message);
        }
    }

    /// Hands a message to the role that it is for.
    pub(super) fn deliver(&self, from: NodeId, message: Message) {
        match message {
            Message::Acceptor(message) => {
                if let ToAcceptor::NextBallot(next) = &message {
                    self.status.heard(next.ballot);
                }
                let input = acceptor::core::Input::Message { from, message };
                self.acceptor.tell(acceptor::actor::Deliver(input));
            }
            Message::Leader(message) => self.deliver_to_leader(from, message),
            Message::Learner(message) => {
                if let ToLearner::Voted(voted) = &message
                    && let Some(run) = voted.run
                    && from != self.me
                {
                    self.disks.heard(from, voted.ballot, run.last.number);
                }
                self.tell_learner(learner::Input::Message { from, message });
            }
            Message::FailureDetector(heartbeat) => {
                self.status.heard(heartbeat.ballot);
                self.disks.heard(from, heartbeat.promise, heartbeat.voted);
                let input = failure_detector::core::Input::Heartbeat { from, heartbeat };
                self.detector.tell(failure_detector::actor::Deliver(input));
            }
            Message::Gateway(message) => self.gateway.tell(FromLeader { from, message }),
        }
    }

    fn deliver_to_leader(&self, from: NodeId, message: ToLeader) {
        if from != self.me {
            self.disks.heard_by_leader(from, &message);
        }
        if let ToLeader::MyNextBal(next) = &message {
            self.status.heard(next.ballot);
        }
        self.tell_leader(leader::core::Input::Message { from, message });
    }

    /// Measures how long messages wait for the roles, by messages that change nothing. Nobody waits for the failure detector, but
    /// who is heard and who leads is as old as its last word.
    pub(super) async fn measure_mailboxes(&self) {
        let (space, unanswered) = (acceptor::core::Input::Space(self.status.room.space()), &self.unanswered);
        futures_util::future::join5(
            self.gateway.measure(IsInFlight(RequestId::Gateway(0)), || self.of_callers(), unanswered),
            self.leader.measure(leader::actor::Deliver(leader::core::Input::Tick), || 0, unanswered),
            self.acceptor.measure(acceptor::actor::Deliver(space), || 0, unanswered),
            self.learner.measure(learner::Deliver(learner::Input::Tick), || 0, unanswered),
            self.detector.measure(failure_detector::actor::Look, || 0, unanswered),
        )
        .await;
    }

    /// What callers have sent to the gateway.
    fn of_callers(&self) -> u64 {
        self.door.get().map_or(0, |door| door.let_in())
    }

    /// Shows how many messages wait while mailboxes are being measured.
    pub(super) fn show_depths(&self) {
        self.gateway.show_depth(|| self.of_callers(), &self.unanswered);
        self.leader.show_depth(|| 0, &self.unanswered);
        self.acceptor.show_depth(|| 0, &self.unanswered);
        self.learner.show_depth(|| 0, &self.unanswered);
        self.detector.show_depth(|| 0, &self.unanswered);
    }

    pub(super) fn tell_leader(&self, input: leader::core::Input) {
        self.leader.tell(leader::actor::Deliver(input));
    }

    pub(super) fn tell_learner(&self, input: learner::Input) {
        self.learner.tell(learner::Deliver(input));
    }

    /// The learner of this node has issued and applied all up to `issued`.
    pub(super) fn learned(&self, issued: CommandId) {
        self.acceptor.tell(acceptor::actor::Deliver(acceptor::core::Input::Issued(issued)));
        self.tell_leader(leader::core::Input::Learned(issued));
    }

    /// The acceptor of this node has received commands.
    pub(super) fn proposed(&self, ballot: Ballot, commands: Vec<Command>) {
        self.tell_learner(learner::Input::Proposed { ballot, commands });
    }

    /// A peer knows commands up to `issued`.
    pub(super) fn peer_issued(&self, peer: NodeId, issued: CommandNumber) {
        self.tell_learner(learner::Input::PeerIssued { peer, issued });
    }

    /// A peer is heard, and its state is durable up to here.
    pub(super) fn peer_durable(&self, peer: NodeId, durable: CommandNumber) {
        self.tell_learner(learner::Input::PeerDurable { peer, durable });
    }

    /// Votes up to here may be forgotten.
    pub(super) fn forget_votes(&self, durable: CommandNumber) {
        self.acceptor.tell(acceptor::actor::Deliver(acceptor::core::Input::Forget(durable)));
    }

    /// The leader of this node leads that ballot, or none.
    pub(super) fn leads(&self, ballot: Option<Ballot>) {
        self.tell_who_leads(|status| status.leads(ballot));
    }

    /// The failure detector of this node knows a working leader, or none.
    pub(super) fn sees(&self, leader: Option<Ballot>) {
        self.tell_who_leads(|status| status.sees(leader));
    }

    /// Says again who leads, in case it was lost.
    pub(super) fn repeat_leader(&self) {
        self.tell_who_leads(|_| {});
    }

    /// The gateway always hears what both know together, and in this order: that this node does
    /// not lead any more must not hide from it who does. A silent acceptor asks who leads by itself.
    fn tell_who_leads(&self, change: impl FnOnce(&Status)) {
        let _telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        change(&self.status);
        let leader = self.status.leader();
        self.gateway.tell(LeaderIs(leader.map(|ballot| ballot.node)));
        if let Some(ballot) = leader.filter(|_| self.disks.silence().is_some()) {
            self.acceptor.tell(acceptor::actor::Deliver(acceptor::core::Input::Led(ballot)));
        }
    }

    pub(super) fn on_event(&self, event: PeerEvent) {
        use failure_detector::core::Input;
        let input = match event {
            PeerEvent::Connected { peer, lane: Lane::Protocol } => {
                return self.tell_leader(leader::core::Input::Connected(peer));
            }
            PeerEvent::Connected { lane: Lane::Heartbeat | Lane::Bulk, .. } => return,
            PeerEvent::Noted { peer } => {
                self.disks.noted_by(peer);
                return self.noted(peer);
            }
            PeerEvent::Removed { peer } => return self.removal.said_by(peer, self.me, &self.membership()),
            // The node ends; who started it sees to that.
            PeerEvent::DiskRefused { .. } | PeerEvent::ConnectedAlready { .. } | PeerEvent::Claimed { .. } => return,
            PeerEvent::Closed { peer, .. } => Input::Closed(peer),
            PeerEvent::Unreachable { peer, .. } => Input::Unreachable(peer),
        };
        self.detector.tell(failure_detector::actor::Deliver(input));
    }

    /// A peer has noted the disk of this node.
    pub(super) fn noted(&self, peer: NodeId) {
        self.acceptor.tell(acceptor::actor::Deliver(acceptor::core::Input::Noted(peer)));
    }

    /// Waits until the leader of this node has given up its lead, if it had one.
    pub(super) async fn step_down(&self, reason: &'static str) {
        if let Some(leader) = self.leader.get() {
            // An actor that is gone leads nothing.
            _ = leader.send(leader::actor::Deliver(leader::core::Input::StepDown(reason))).await;
        }
    }

    /// Waits until the leader of this node has handed its lead over, if it has one and another node can lead; it leads
    /// on if that comes to nothing.
    pub(super) async fn hand_over(&self) {
        let hand_over = leader::core::Input::HandOver { or_else: None };
        if let Some(leader) = self.leader.get()
            && leader.send(leader::actor::Deliver(hand_over)).await.is_ok()
        {
            self.status.hands_nothing_over().await;
        }
    }
}

/// Whom a node of this membership talks to.
pub(super) fn peers(membership: &Membership) -> BTreeMap<NodeId, transport::Peer> {
    let peer =
        |member: &protocol::Member| transport::Peer { name: member.name.clone(), address: member.address.clone() };
    membership.nodes().iter().map(|(id, member)| (*id, peer(member))).collect()
}
