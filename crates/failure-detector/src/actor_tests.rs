//! The actor with a real clock, two of them wired to each other.

use std::sync::{Arc, Mutex};

use protocol::{Membership, Tick, Timestamp};

use super::*;
use crate::core::Config;

/// What an actor said to its node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Campaign,
    StepDown(&'static str),
    LeaderIs(Option<Ballot>),
    Suspected(NodeId, bool),
    PeerIssued(NodeId, CommandNumber),
    PeerDurable(NodeId, CommandNumber),
}

type Peer = Arc<Mutex<Option<actix::Addr<FailureDetectorActor>>>>;

struct Node {
    address: actix::Addr<FailureDetectorActor>,
    said: Arc<Mutex<Vec<Said>>>,
    status: Arc<Mutex<LocalStatus>>,
    view: watch::Receiver<View>,
}

fn start(me: u64, peer: &Peer) -> Node {
    start_of(2, me, peer)
}

/// One of so many.
fn start_of(count: u64, me: u64, peer: &Peer) -> Node {
    let core = FailureDetector::new(Config {
        me: NodeId(me),
        can_lead: true,
        membership: Membership::of_equals(count),
        heartbeat: Duration::from_millis(20),
        timeout_min: Duration::from_millis(100),
        timeout_max: Duration::from_secs(60),
        http: String::new(),
        spare: false,
    });
    let said = Arc::new(Mutex::new(Vec::new()));
    let status = Arc::new(Mutex::new(LocalStatus::default()));
    let say = |said: &Arc<Mutex<Vec<Said>>>| {
        let said = Arc::clone(said);
        move |what| said.lock().expect("no panic").push(what)
    };
    let (campaign, step_down, leader_is) = (say(&said), say(&said), say(&said));
    let (suspected, peer_issued, peer_durable) = (say(&said), say(&said), say(&said));
    let (peer, local) = (Arc::clone(peer), Arc::clone(&status));
    let started = tokio::time::Instant::now();
    let ports = DetectorPorts {
        send: Box::new(move |_, heartbeat| {
            if let Some(peer) = &*peer.lock().expect("no panic") {
                // A full mailbox loses the heartbeat, as a network may.
                let _ = peer.try_send(Deliver(Input::Heartbeat { from: NodeId(me), heartbeat }));
            }
        }),
        status: Box::new(move || *local.lock().expect("no panic")),
        campaign: Box::new(move || campaign(Said::Campaign)),
        step_down: Box::new(move |why| step_down(Said::StepDown(why))),
        hand_over: Box::new(|_| {}),
        takes_calls: Box::new(|_| ()),
        leader_is: Box::new(move |leader| leader_is(Said::LeaderIs(leader))),
        peer_issued: Box::new(move |peer, issued| peer_issued(Said::PeerIssued(peer, issued))),
        peer_durable: Box::new(move |peer, durable| peer_durable(Said::PeerDurable(peer, durable))),
        suspected: Box::new(move |peer, suspected_now| suspected(Said::Suspected(peer, suspected_now))),
        clock: Box::new(move || Now { tick: Tick(0) + started.elapsed(), wall: Timestamp::default() }),
    };
    let (sender, view) = watch::channel(View::default());
    Node { address: FailureDetectorActor::new(core, ports, sender).start(), said, status, view }
}

impl Node {
    /// Waits until the node has said this; the test's own time limit is ten seconds.
    async fn says(&mut self, what: &Said) {
        let heard = async {
            while !self.said.lock().expect("no panic").contains(what) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(10), heard).await;
        assert!(heard.is_ok(), "waited for {what:?}: {:?}", self.said.lock().expect("no panic"));
    }
}

/// Catches an effect that is not carried out, a clock that is not read, and a view that is not
/// published.
#[actix::test]
async fn two_nodes_find_each_other_follow_and_lose_each_other() {
    let (to_first, to_second): (Peer, Peer) = Default::default();
    let (mut first, mut second) = (start(1, &to_second), start(2, &to_first));
    *to_first.lock().expect("no panic") = Some(first.address.clone());
    *to_second.lock().expect("no panic") = Some(second.address.clone());

    second.says(&Said::Suspected(NodeId(1), false)).await;
    first.says(&Said::Campaign).await;
    let ballot = Ballot::new(1, NodeId(1));
    let (issued, durable) = (CommandNumber(7), CommandNumber(5));
    *first.status.lock().expect("no panic") =
        LocalStatus { leads: Some(ballot), ballot, issued, durable, ..Default::default() };
    second.says(&Said::LeaderIs(Some(ballot))).await;
    second.says(&Said::PeerIssued(NodeId(1), issued)).await;
    second.says(&Said::PeerDurable(NodeId(1), durable)).await;
    first.says(&Said::LeaderIs(Some(ballot))).await;
    second.view.wait_for(|view| view.leader == Some(ballot) && view.peers[&NodeId(1)].heard).await.expect("it runs");

    *to_first.lock().expect("no panic") = None;
    *to_second.lock().expect("no panic") = None;
    second.address.send(Deliver(Input::Closed(NodeId(1)))).await.expect("it runs");
    second.address.send(Deliver(Input::Unreachable(NodeId(1)))).await.expect("it runs");
    second.says(&Said::Suspected(NodeId(1), true)).await;
    second.says(&Said::LeaderIs(None)).await;
    first.says(&Said::StepDown("no majority set is in touch with it")).await;
}

/// Rule 8: catches a leader that is not told to stand aside.
#[actix::test]
async fn a_leader_that_waits_in_vain_is_told_to_stop() {
    let mut node = start_of(4, 1, &Peer::default());
    let ballot = Ballot::new(1, NodeId(1));
    *node.status.lock().expect("no panic") =
        LocalStatus { leads: Some(ballot), waits: true, silent: true, ballot, ..Default::default() };
    let address = node.address.clone();
    let peers = actix::spawn(async move {
        loop {
            for peer in [2, 3].map(NodeId) {
                let hears = [1, 2, 3, 4].map(NodeId).to_vec();
                let heartbeat = Heartbeat { hears, can_lead: true, follows: Some(ballot), ..Heartbeat::default() };
                address.send(Deliver(Input::Heartbeat { from: peer, heartbeat })).await.expect("it runs");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    node.says(&Said::StepDown("too many of the acceptors in touch with it are silent")).await;
    peers.abort();
}
