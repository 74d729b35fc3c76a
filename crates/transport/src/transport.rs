//! The whole of it: what a node starts, and the handle it sends with.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix::ArbiterHandle;
use metrics::counter;
use protocol::{ClusterId, LearnFrom, Message, NodeId};
use tokio::sync::{oneshot, watch};

use crate::dialer::Dialer;
use crate::disk::Disks;
use crate::handshake::Identity;
use crate::lane::Lane;
use crate::listener;
use crate::queue::{Queue, QueueLimit};
use crate::report::Report;

/// Takes a peer's message; called on the arbiter of its lane, must not block.
pub type OnMessage = Arc<dyn Fn(NodeId, Message) + Send + Sync>;
/// Takes what became of a connection; called on the arbiter of its lane, must not block.
pub type OnEvent = Arc<dyn Fn(PeerEvent) + Send + Sync>;

/// Another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// `host:port`; the host is resolved again for every connection.
    pub address: String,
}

/// Who this node is and whom it talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportConfig {
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub cluster_name: String,
    /// How its cluster learns what is issued; peers that learn otherwise are refused.
    pub learn_from: LearnFrom,
    /// Its window, in commands; peers that have another are warned of.
    pub window: u64,
    /// The members. An entry for this node itself is ignored.
    pub peers: BTreeMap<NodeId, Peer>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of queues and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What waits for one peer on the heartbeat lane.
    pub heartbeat: QueueLimit,
    /// What waits for one peer on the protocol lane.
    pub protocol: QueueLimit,
    /// What waits for one peer on the bulk lane.
    pub bulk: QueueLimit,
    /// Connections that have not shown yet who they are; more are closed at once.
    pub handshakes: usize,
}

impl Default for Limits {
    /// Heartbeats: more than a few waiting ones are old news. Protocol: several times what the
    /// leader's window can hold of ordinary commands, and four of the largest frames. Bulk: one
    /// question and one answer at a time wait in practice, an answer of one frame at most.
    /// Handshakes: three for each of twenty peers that come back at once.
    fn default() -> Self {
        Self {
            heartbeat: QueueLimit { messages: 16, bytes: 256 << 10 },
            protocol: QueueLimit { messages: 1 << 16, bytes: 64 << 20 },
            bulk: QueueLimit { messages: 1 << 10, bytes: 64 << 20 },
            handshakes: 64,
        }
    }
}

/// Where connections live.
#[derive(Clone, Debug)]
pub struct Runtimes {
    /// For heartbeats only, the failure detector's: nothing on it may block.
    pub heartbeat: ArbiterHandle,
    /// For everything else.
    pub data: ArbiterHandle,
}

/// What became of a connection that this node dialed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerEvent {
    /// The handshake is done; messages pass.
    Connected {
        /// To whom.
        peer: NodeId,
        /// On which lane.
        lane: Lane,
    },
    /// A connection that passed messages is lost.
    Closed {
        /// To whom.
        peer: NodeId,
        /// On which lane.
        lane: Lane,
    },
    /// The peer's machine refused the connection: no process listens there. Reported each time.
    Unreachable {
        /// Whom this node dialed.
        peer: NodeId,
        /// On which lane.
        lane: Lane,
    },
    /// The peer has durably noted the disk of this node, and knows no other one. Reported for each connection.
    Noted {
        /// Who.
        peer: NodeId,
    },
    /// The peer refused the disk of this node, which must not go on with it.
    DiskRefused {
        /// Who.
        peer: NodeId,
        /// Its sentence.
        why: String,
    },
}

/// Starts connections.
#[derive(Debug)]
pub struct Transport;

impl Transport {
    /// Listens on `listener` and keeps dialing every peer on every lane, until [`Handle::stop`].
    /// Install the recorder of metrics before.
    ///
    /// # Errors
    /// When the listener cannot be used without blocking, or an arbiter has stopped.
    pub fn start(
        config: TransportConfig,
        listener: TcpListener,
        runtimes: Runtimes,
        disks: Disks,
        on_message: OnMessage,
        on_event: OnEvent,
    ) -> io::Result<Handle> {
        listener.set_nonblocking(true)?;
        let TransportConfig { me, name, cluster, cluster_name, learn_from, window, mut peers, limits } = config;
        peers.remove(&me);
        let shared = Arc::new(Shared {
            queues: queues(peers.keys().copied(), limits),
            identity: Identity { me, name, cluster, cluster_name, learn_from, window },
            peers,
            limits,
            runtimes,
            disks,
            on_message,
            on_event,
            inbound: Mutex::default(),
            report: Report::new(),
            stop: watch::Sender::new(false),
        });
        let mut running = shared.runtimes.data.spawn(listener::run(shared.clone(), listener));
        for (peer, lane) in shared.queues.keys() {
            running &= shared.runtime(*lane).spawn(Dialer::new(shared.clone(), *peer, *lane).run());
        }
        if !running {
            return Err(io::Error::other("an arbiter for connections has stopped"));
        }
        Ok(Handle { shared })
    }
}

fn queues(peers: impl Iterator<Item = NodeId>, limits: Limits) -> BTreeMap<(NodeId, Lane), Queue> {
    let limit = |lane| match lane {
        Lane::Heartbeat => limits.heartbeat,
        Lane::Protocol => limits.protocol,
        Lane::Bulk => limits.bulk,
    };
    peers.flat_map(|peer| Lane::ALL.map(|lane| ((peer, lane), Queue::new(limit(lane))))).collect()
}

/// Sends messages to peers. Clones share the connections.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("identity", &self.shared.identity).finish_non_exhaustive()
    }
}

impl Handle {
    /// Hands a message over for sending. Never blocks. `false`: it was dropped, because there is
    /// no connection to `to`, its queue is full, or `to` is no peer (this node itself is none).
    /// `true` does not mean that it arrives.
    pub fn send(&self, to: NodeId, message: Message) -> bool {
        let lane = Lane::of(&message);
        let Some(queue) = self.shared.queues.get(&(to, lane)) else {
            counter!("quorate_transport_no_such_peer_total").increment(1);
            return false;
        };
        match queue.push(message) {
            Ok(()) => true,
            Err(cause) => {
                self.shared.report.dropped(lane, cause, 1);
                false
            }
        }
    }

    /// Closes all connections and the listener, soon after. No event follows; a message that is
    /// being delivered may.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }
}

/// What all connections of a node share.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) limits: Limits,
    pub(crate) queues: BTreeMap<(NodeId, Lane), Queue>,
    pub(crate) disks: Disks,
    pub(crate) on_message: OnMessage,
    pub(crate) on_event: OnEvent,
    pub(crate) report: Report,
    runtimes: Runtimes,
    /// The reader of each peer and lane ends when its sender is dropped.
    inbound: Mutex<BTreeMap<(NodeId, Lane), oneshot::Sender<()>>>,
    stop: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn runtime(&self, lane: Lane) -> &ArbiterHandle {
        match lane {
            Lane::Heartbeat => &self.runtimes.heartbeat,
            Lane::Protocol | Lane::Bulk => &self.runtimes.data,
        }
    }

    /// How a peer is called in logs.
    pub(crate) fn label(&self, peer: NodeId) -> String {
        self.peers.get(&peer).map_or_else(|| peer.to_string(), |known| format!("{peer} ({})", known.name))
    }

    /// Makes a new connection the one of its peer and lane. The one before it ends: a peer dials
    /// again only when it gave that one up, whether this node noticed or not. So there are never
    /// more established connections than peers and lanes.
    pub(crate) fn replace_inbound(&self, peer: NodeId, lane: Lane) -> oneshot::Receiver<()> {
        let (alive, replaced) = oneshot::channel();
        self.inbound.lock().expect("nothing panics while it holds the connections").insert((peer, lane), alive);
        replaced
    }

    /// Resolves when the transport is stopped.
    pub(crate) async fn stopped(&self) {
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = self.stop.subscribe().wait_for(|stopped| *stopped).await;
    }
}
