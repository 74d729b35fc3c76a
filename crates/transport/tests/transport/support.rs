//! Nodes, raw sockets and counters for the tests.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use actix::Arbiter;
use bytes::BytesMut;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use protocol::{ClusterId, LearnFrom, Message, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{interval, timeout};
use transport::frame::{self, FRAME_BYTES_MAX, HEADER_BYTES, Header};
use transport::handshake::{Answer, Identity, Verdict, Versions};
use transport::{Disks, Handle, Lane, Limits, Peer, PeerEvent, Runtimes, Transport, TransportConfig};

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const A: NodeId = NodeId(1);
pub(crate) const B: NodeId = NodeId(2);

/// A listener on a port of the system's choice.
pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

thread_local! {
    /// Each test is a cluster of its own: ports are used again, and the nodes of one test must
    /// not take those of another for peers.
    static CLUSTER: ClusterId = {
        static TESTS: AtomicU64 = AtomicU64::new(1);
        ClusterId(u128::from(TESTS.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
    };
}

/// Who `node` is in the cluster of this test.
pub(crate) fn identity(node: NodeId) -> Identity {
    let name = if node == A { "a" } else { "b" };
    Identity {
        me: node,
        name: name.into(),
        cluster: CLUSTER.with(Clone::clone),
        cluster_name: "test".into(),
        learn_from: LearnFrom::Leader,
        window: 1024,
        auth: false,
        versions: Versions::SPOKEN,
    }
}

/// The configuration of `me`, which expects the other node at `address`.
pub(crate) fn config(me: NodeId, address: SocketAddr) -> TransportConfig {
    let Identity { me, name, cluster, cluster_name, learn_from, window, auth, versions } = identity(me);
    let other = if me == A { B } else { A };
    let peer = Peer { name: identity(other).name, address: address.to_string() };
    TransportConfig {
        me,
        name,
        cluster,
        cluster_name,
        learn_from,
        window,
        auth,
        versions,
        peers: BTreeMap::from([(other, peer)]),
        last_id: B,
        limits: Limits::default(),
        tls: None,
    }
}

/// A running transport and what came out of it.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) messages: UnboundedReceiver<(NodeId, Message)>,
    pub(crate) events: UnboundedReceiver<PeerEvent>,
    arbiters: [Arbiter; 2],
}

impl Node {
    pub(crate) fn start(config: TransportConfig, listener: TcpListener) -> Self {
        Self::start_with(config, listener, Disks::unknown())
    }

    pub(crate) fn start_with(config: TransportConfig, listener: TcpListener, disks: Disks) -> Self {
        count();
        let arbiters = [Arbiter::new(), Arbiter::new()];
        let runtimes = Runtimes { heartbeat: arbiters[0].handle(), data: arbiters[1].handle() };
        let (message_sender, messages) = unbounded_channel();
        let (event_sender, events) = unbounded_channel();
        let on_message = Arc::new(move |from, message| {
            let _ = message_sender.send((from, message));
        });
        let on_event = Arc::new(move |event| {
            // The test may have ended.
            let _ = event_sender.send(event);
        });
        let handle =
            Transport::start(config, listener, runtimes, disks, on_message, on_event).expect("a usable listener");
        Self { handle, messages, events, arbiters }
    }

    pub(crate) async fn message(&mut self) -> Message {
        timeout(DEADLINE, self.messages.recv()).await.expect("a message in time").expect("the node runs").1
    }

    pub(crate) async fn next_event(&mut self) -> PeerEvent {
        timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("the node runs")
    }

    /// Waits for an event; others are passed over.
    pub(crate) async fn event(&mut self, wanted: PeerEvent) {
        let found = async {
            while let Some(event) = self.events.recv().await {
                if event == wanted {
                    return true;
                }
            }
            false
        };
        assert!(timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("{wanted:?} in time")), "the node runs");
    }

    /// Waits until messages pass to `peer` on every lane.
    pub(crate) async fn connected(&mut self, peer: NodeId) {
        self.on_every_lane(|lane| PeerEvent::Connected { peer, lane }).await;
    }

    /// Waits until the connection to `peer` is lost on every lane.
    pub(crate) async fn closed(&mut self, peer: NodeId) {
        self.on_every_lane(|lane| PeerEvent::Closed { peer, lane }).await;
    }

    /// Waits for an event on every lane, in whatever order.
    async fn on_every_lane(&mut self, wanted: impl Fn(Lane) -> PeerEvent) {
        let mut missing = Lane::ALL.to_vec();
        while !missing.is_empty() {
            let event = self.next_event().await;
            missing.retain(|lane| event != wanted(*lane));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.stop();
        self.arbiters.iter().for_each(|arbiter| {
            arbiter.stop();
        });
    }
}

/// A socket without a transport behind it.
pub(crate) struct Raw<S = TcpStream>(pub(crate) S);

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("it listens"))
    }

    /// A connection that is welcome at `A` as `B`.
    pub(crate) async fn welcome(address: SocketAddr, lane: Lane) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(&raw_frame(&identity(B).hello(A, lane, None))).await;
        let answer: Answer = raw.handshake().await;
        assert!(matches!(answer.verdict, Some(Verdict::Welcome(_))), "{answer:?}");
        raw
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("it is connected");
        self.0.flush().await.expect("it is connected");
    }

    /// Reads one frame.
    pub(crate) async fn payload(&mut self) -> Vec<u8> {
        let read = async {
            let mut header = [0; HEADER_BYTES];
            self.0.read_exact(&mut header).await.expect("a header");
            let header = Header::read(header, FRAME_BYTES_MAX).expect("a header of ours");
            let mut payload = vec![0; header.length];
            self.0.read_exact(&mut payload).await.expect("a payload");
            header.verify(&payload).expect("a good checksum");
            payload
        };
        timeout(DEADLINE, read).await.expect("a frame in time")
    }

    /// Reads one frame of the handshake.
    pub(crate) async fn handshake<M: prost::Message + Default>(&mut self) -> M {
        M::decode(&self.payload().await[..]).expect("a frame of the handshake")
    }

    /// Waits until the other side closes; returns what it sent before.
    pub(crate) async fn closed(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is a way to close, too.
        let _ = timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await.expect("it closes in time");
        bytes
    }
}

/// A frame of the handshake.
pub(crate) fn raw_frame(message: &impl prost::Message) -> BytesMut {
    let mut buffer = BytesMut::new();
    let payload = message.encode_to_vec();
    frame::append(&mut buffer, FRAME_BYTES_MAX, |buffer| buffer.extend_from_slice(&payload)).expect("a small frame");
    buffer
}

/// Waits until a counter is not zero. Counters are common to all tests of the process.
pub(crate) async fn counted(counter: &str) {
    let mut look = interval(Duration::from_millis(5));
    let found = async {
        while COUNTERS.lock().expect("no panic").get(counter).is_none_or(|count| count.load(Ordering::Relaxed) == 0) {
            look.tick().await;
        }
    };
    timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("{counter} stayed at zero"));
}

static COUNTERS: Mutex<BTreeMap<String, Arc<AtomicU64>>> = Mutex::new(BTreeMap::new());

/// Counts from here on.
fn count() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| assert!(metrics::set_global_recorder(Counters).is_ok(), "no other recorder"));
}

struct Counters;

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name().trim_start_matches("quorate_transport_"), labels.join(","));
        Counter::from_arc(COUNTERS.lock().expect("no panic").entry(name).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
