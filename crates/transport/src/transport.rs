//! The whole of it: what a node starts, and the handle it sends with.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use actix::ArbiterHandle;
use metrics::counter;
use protocol::{ClusterId, LearnFrom, Message, NodeId};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::dialer::Dialer;
use crate::disk::Disks;
use crate::handshake::{Identity, Known, Versions};
use crate::join::{Admit, NEWCOMERS_MAX};
use crate::lane::Lane;
use crate::listener;
use crate::processes::Processes;
use crate::queue::{Queue, QueueLimit};
use crate::report::Report;
use crate::tls::Tls;

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
#[derive(Clone, Debug)]
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
    /// Whether its callers need tokens; peers of which that is not so, or the reverse, are warned of.
    pub auth: bool,
    /// The versions of the protocol that it speaks; peers that speak none of them are refused.
    pub versions: Versions,
    /// The members, until [`Handle::set_peers`]. An entry for this node itself is ignored.
    pub peers: BTreeMap<NodeId, Peer>,
    /// The highest id that was ever given out, likewise: a lower one that is no member was removed.
    pub last_id: NodeId,
    /// Bounds.
    pub limits: Limits,
    /// What this node proves who it is with. Nothing: there is no TLS between the nodes.
    pub tls: Option<Tls>,
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
    /// A connected process that is silent for so long keeps no other one of its node out. Longer than the time
    /// between heartbeats.
    pub silence: Duration,
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
            silence: Duration::from_secs(2),
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
    /// For seconds the peer has refused this node, since another process of it is connected there and alive.
    ConnectedAlready {
        /// Who.
        peer: NodeId,
        /// Its sentence.
        why: String,
    },
    /// The peer refused the disk of this node, which must not go on with it.
    DiskRefused {
        /// Who.
        peer: NodeId,
        /// Its sentence.
        why: String,
    },
    /// The peer says that this node was removed from the cluster. Reported each time.
    Removed {
        /// Who.
        peer: NodeId,
    },
    /// A member of another cluster of the same name, which has begun, calls this node one of its own, by its name and
    /// address. Reported each time.
    Claimed {
        /// Who, for people: the id is that of the other cluster.
        by: String,
    },
}

/// Starts connections.
#[derive(Debug)]
pub struct Transport;

impl Transport {
    /// Listens on `listener` and keeps dialing every peer of now on every lane, until [`Handle::stop`].
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
        let TransportConfig {
            me,
            name,
            cluster,
            cluster_name,
            learn_from,
            window,
            auth,
            versions,
            peers,
            last_id,
            limits,
            tls,
        } = config;
        let shared = Arc::new(Shared {
            identity: Identity { me, name, cluster, cluster_name, learn_from, window, auth, versions },
            members: RwLock::default(),
            limits,
            tls,
            runtimes,
            disks,
            on_message,
            on_event,
            inbound: Mutex::default(),
            processes: Arc::new(Processes::new(limits.silence)),
            report: Report::new(),
            admit: OnceLock::new(),
            newcomers: Semaphore::new(NEWCOMERS_MAX),
            stop: watch::Sender::new(false),
        });
        // First: whoever knocks already would be told that it is no member.
        let mut running = shared.set_peers(peers, last_id);
        running &= shared.runtimes.data.spawn(listener::run(shared.clone(), listener));
        if !running {
            return Err(io::Error::other("an arbiter for connections has stopped"));
        }
        Ok(Handle { shared })
    }
}

/// One peer, as it was made known.
pub(crate) struct Link {
    pub(crate) peer: Peer,
    queues: BTreeMap<Lane, Queue>,
    gone: watch::Sender<bool>,
}

impl Link {
    fn new(peer: Peer, limits: Limits) -> Self {
        let limit = |lane| match lane {
            Lane::Heartbeat => limits.heartbeat,
            Lane::Protocol => limits.protocol,
            Lane::Bulk => limits.bulk,
        };
        let queues = Lane::ALL.map(|lane| (lane, Queue::new(limit(lane)))).into();
        Self { peer, queues, gone: watch::Sender::new(false) }
    }

    pub(crate) fn queue(&self, lane: Lane) -> &Queue {
        &self.queues[&lane]
    }

    /// Resolves when this is no peer any more, or has another address.
    pub(crate) async fn gone(&self) {
        // As `Shared::stopped`.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }
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
        let Some(link) = self.shared.link(to) else {
            counter!("quorate_transport_no_such_peer_total").increment(1);
            return false;
        };
        match link.queue(lane).push(message) {
            Ok(()) => true,
            Err(cause) => {
                self.shared.report.dropped(lane, cause, 1);
                false
            }
        }
    }

    /// From now on these are the peers: connections to and from others are closed, soon after, and those that are new,
    /// or have another address, are dialed. Where nothing has changed nothing happens. Who is none of them, with an id up
    /// to `last_id`, is told that it was removed.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, Peer>, last_id: NodeId) {
        // Where the arbiters have stopped the node ends.
        let _running = self.shared.set_peers(peers, last_id);
    }

    /// From now on newcomers are taken in, as `admit` says. The first one counts.
    pub fn admit_with(&self, admit: Admit) {
        self.shared.admit.set(admit).ok();
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
    /// Those of now. Held for as long as a look takes.
    members: RwLock<Members>,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<Tls>,
    pub(crate) disks: Disks,
    pub(crate) on_message: OnMessage,
    pub(crate) on_event: OnEvent,
    pub(crate) report: Report,
    /// Until it is there, newcomers are asked to come again.
    pub(crate) admit: OnceLock<Admit>,
    pub(crate) newcomers: Semaphore,
    runtimes: Runtimes,
    pub(crate) processes: Arc<Processes>,
    /// The reader of each peer and lane ends when its sender is dropped.
    inbound: Mutex<BTreeMap<(NodeId, Lane), oneshot::Sender<()>>>,
    stop: watch::Sender<bool>,
}

/// Who belongs to the cluster. Both of one membership: a newcomer must not be taken for one that was removed.
#[derive(Default)]
struct Members {
    links: BTreeMap<NodeId, Arc<Link>>,
    last_id: NodeId,
}

impl Shared {
    pub(crate) fn runtime(&self, lane: Lane) -> &ArbiterHandle {
        match lane {
            Lane::Heartbeat => &self.runtimes.heartbeat,
            Lane::Protocol | Lane::Bulk => &self.runtimes.data,
        }
    }

    /// A peer of now.
    pub(crate) fn link(&self, peer: NodeId) -> Option<Arc<Link>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).links.get(&peer).cloned()
    }

    /// What this node knows of an id, with which somebody of that name comes.
    pub(crate) fn known(&self, node: NodeId, name: &str) -> Known {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        match members.links.get(&node) {
            Some(link) => Known::Member(link.peer.name.clone()),
            None if (1..=members.last_id.0).contains(&node.0) => {
                let of_name = members.links.iter().find(|(_, link)| link.peer.name == name);
                Known::Removed(of_name.map(|(id, _)| *id))
            }
            None => Known::Unknown,
        }
    }

    /// How a peer is called in logs.
    pub(crate) fn label(&self, peer: NodeId) -> String {
        self.link(peer).map_or_else(|| peer.to_string(), |link| format!("{peer} ({})", link.peer.name))
    }

    /// See [`Handle::set_peers`]. False when an arbiter has stopped.
    fn set_peers(self: &Arc<Self>, mut peers: BTreeMap<NodeId, Peer>, last_id: NodeId) -> bool {
        peers.remove(&self.identity.me);
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members.last_id = last_id;
        let links = &mut members.links;
        let mut inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|id, link| {
            let stays = peers.get(id) == Some(&link.peer);
            if !stays {
                link.gone.send_replace(true);
            }
            stays
        });
        inbound.retain(|(id, _), _| peers.contains_key(id));
        let mut running = true;
        for (id, peer) in peers {
            if links.contains_key(&id) {
                continue;
            }
            let link = Arc::new(Link::new(peer, self.limits));
            links.insert(id, Arc::clone(&link));
            for lane in Lane::ALL {
                running &= self.runtime(lane).spawn(Dialer::new(self.clone(), Arc::clone(&link), id, lane).run());
            }
        }
        running
    }

    /// Makes a new connection the one of its peer and lane. The one before it ends: a peer dials
    /// again only when it gave that one up, whether this node noticed or not. So there are never
    /// more established connections than peers and lanes.
    pub(crate) fn replace_inbound(&self, peer: NodeId, lane: Lane) -> oneshot::Receiver<()> {
        let (alive, replaced) = oneshot::channel();
        // Both, in this order, as in `set_peers`: of one that has left meanwhile the reader ends at once.
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let mut inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        if members.links.contains_key(&peer) {
            inbound.insert((peer, lane), alive);
        }
        replaced
    }

    /// Resolves when the transport is stopped.
    pub(crate) async fn stopped(&self) {
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = self.stop.subscribe().wait_for(|stopped| *stopped).await;
    }
}
