//! Nodes that talk, vanish and come back.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::message::{Heartbeat, ToLeader};
use protocol::{Call, CommandNumber, Fingerprint, Message, RequestId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use transport::handshake::Hello;
use transport::{Lane, Limits, PeerEvent, QueueLimit, TransportConfig, wire};

use crate::messages::{self, numbered};
use crate::support::{A, B, DEADLINE, Node, Raw, config, counted, identity, listener, raw_frame};

/// Catches a kind of message that does not arrive as it was sent, one that arrives twice, and
/// order lost within a lane.
#[actix::test]
async fn every_kind_of_message_arrives_once_and_in_order() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let (mut a, mut b) = (Node::start(config(A, at_b), listen_a), Node::start(config(B, at_a), listen_b));
    a.connected(B).await;
    b.connected(A).await;
    for (from, to, at) in [(&a.handle, B, &mut b.messages), (&b.handle, A, &mut a.messages)] {
        let mut expected: BTreeMap<Lane, Vec<Message>> = BTreeMap::new();
        for (name, message) in messages::all() {
            assert!(from.send(to, message.clone()), "{name} was dropped");
            expected.entry(Lane::of(&message)).or_default().push(message);
        }
        let mut arrived: BTreeMap<Lane, Vec<Message>> = BTreeMap::new();
        for _ in messages::all() {
            let (sender, message) = timeout(DEADLINE, at.recv()).await.expect("in time").expect("the node runs");
            assert_eq!(sender, if to == B { A } else { B });
            arrived.entry(Lane::of(&message)).or_default().push(message);
        }
        assert_eq!(arrived, expected);
        assert!(at.try_recv().is_err(), "nothing came twice");
    }
    for lane in Lane::ALL.map(Lane::name) {
        counted(&format!("frames_sent_total{{lane={lane}}}")).await;
        counted(&format!("frames_received_total{{lane={lane}}}")).await;
    }
}

/// Binds a port that another socket of this process is about to give back.
async fn bind_again(address: SocketAddr) -> TcpListener {
    let mut attempts = interval(Duration::from_millis(5));
    let bound = async {
        loop {
            attempts.tick().await;
            if let Ok(listener) = TcpListener::bind(address) {
                return listener;
            }
        }
    };
    timeout(DEADLINE, bound).await.expect("the port is given back")
}

/// Catches a failure detector left in the dark: the loss of a peer must show on every lane,
/// then that its process is gone, then that it is back; and a sender that is told its message
/// is on its way when there is no connection.
#[actix::test]
async fn a_peer_dies_and_comes_back() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let (mut a, b) = (Node::start(config(A, at_b), listen_a), Node::start(config(B, at_a), listen_b));
    a.connected(B).await;
    drop(b);
    let (mut closed, mut unreachable) = (Lane::ALL.to_vec(), Lane::ALL.to_vec());
    while !unreachable.is_empty() {
        match timeout(DEADLINE, a.events.recv()).await.expect("an event in time").expect("the node runs") {
            PeerEvent::Closed { lane, .. } => closed.retain(|other| *other != lane),
            PeerEvent::Unreachable { lane, .. } => {
                assert!(!closed.contains(&lane), "{lane:?} was never closed");
                unreachable.retain(|other| *other != lane);
            }
            PeerEvent::Connected { lane, .. } => panic!("{lane:?} reached a dead peer"),
            other @ (PeerEvent::Noted { .. }
            | PeerEvent::DiskRefused { .. }
            | PeerEvent::Removed { .. }
            | PeerEvent::Claimed { .. }
            | PeerEvent::ConnectedAlready { .. }) => {
                panic!("{other:?} by a dead peer")
            }
        }
    }
    assert!(!a.handle.send(B, numbered(1)), "nobody is there");
    counted("dropped_total{lane=protocol,cause=not_connected}").await;
    let mut b = Node::start(config(B, at_a), bind_again(at_b).await);
    a.connected(B).await;
    assert!(a.handle.send(B, numbered(2)));
    assert_eq!(b.message().await, numbered(2), "and nothing from before");
}

/// What a relay does with the next bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passes {
    All,
    /// Of the next that come a part, and then nothing.
    APart,
    /// The connection on which a part has passed ends.
    Ends,
}

/// Passes on what its dialer sends, as it is told.
async fn relay(passes: Arc<watch::Sender<Passes>>, relay: tokio::net::TcpListener, target: SocketAddr) {
    loop {
        let (from, _) = relay.accept().await.expect("it listens");
        let to = TcpStream::connect(target).await.expect("it listens");
        let mut told = passes.subscribe();
        actix::spawn(async move {
            let ((mut from, mut back), (mut answers, mut to)) = (from.into_split(), to.into_split());
            let forward = async {
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let count = from.read(&mut buffer).await.unwrap_or(0);
                    let all = *told.borrow() == Passes::All;
                    let passed = if all { count } else { count / 2 };
                    if to.write_all(&buffer[..passed]).await.is_err() || count == 0 {
                        return;
                    }
                    if !all {
                        _ = told.wait_for(|passes| *passes == Passes::Ends).await;
                        return;
                    }
                }
            };
            tokio::select! {
                () = forward => {}
                _ = tokio::io::copy(&mut answers, &mut back) => {}
            }
        });
    }
}

/// ADR 0043: catches a message that is written again on the next connection, because its frame was not whole on the last
/// one, or waited behind one that was not.
#[actix::test]
async fn nothing_is_sent_twice_over_two_connections() {
    let call = |id| {
        let (request, arguments) = (RequestId::Gateway(id), Bytes::from(vec![b'x'; 100_000]));
        let (function, fingerprint, patience) = ("f".to_owned(), Fingerprint::default(), Duration::ZERO);
        Message::Leader(ToLeader::ExecuteFunction(Call {
            request,
            fingerprint,
            function,
            arguments,
            patience,
            copy: 0,
        }))
    };
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let dialed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at_relay = dialed.local_addr().expect("it is bound");
    let passes = Arc::new(watch::Sender::new(Passes::All));
    actix::spawn(relay(Arc::clone(&passes), dialed, at_b));
    let (mut a, mut b) = (Node::start(config(A, at_relay), listen_a), Node::start(config(B, at_a), listen_b));
    a.connected(B).await;
    assert!(a.handle.send(B, call(1)));
    assert_eq!(b.message().await, call(1));
    passes.send_replace(Passes::APart);
    // Until one is in hand and the queue behind it is full.
    let taken = timeout(DEADLINE, async {
        for id in 2.. {
            if !a.handle.send(B, call(id)) {
                return id - 2;
            }
            tokio::task::yield_now().await;
        }
        unreachable!("the queue has a bound")
    });
    let taken = taken.await.expect("a full queue in time");
    passes.send_replace(Passes::Ends);
    a.event(PeerEvent::Closed { peer: B, lane: Lane::Protocol }).await;
    counted("dropped_total{lane=protocol,cause=connection_lost}").await;
    passes.send_replace(Passes::All);
    a.event(PeerEvent::Connected { peer: B, lane: Lane::Protocol }).await;
    assert!(a.handle.send(B, call(u128::MAX)));
    let mut ids = vec![1];
    while ids.last() < Some(&u128::MAX) {
        let Message::Leader(ToLeader::ExecuteFunction(call)) = b.message().await else { panic!("it was not sent") };
        let RequestId::Gateway(id) = call.request else { panic!("it was not sent") };
        ids.push(id);
    }
    assert!(ids.windows(2).all(|two| two[0] < two[1]), "one came twice: {ids:?}");
    assert!((ids.len() as u128) < taken, "some were lost: {} of {taken}", ids.len());
}

/// Catches a node that works only if its peers were started before it.
#[actix::test]
async fn nodes_may_start_in_any_order() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    drop(listen_b);
    let mut a = Node::start(config(A, at_b), listen_a);
    a.event(PeerEvent::Unreachable { peer: B, lane: Lane::Heartbeat }).await;
    let mut b = Node::start(config(B, at_a), bind_again(at_b).await);
    a.connected(B).await;
    b.connected(A).await;
}

/// ADR 0025: catches a member that has left and is still heard or sent to, one that has joined and is not dialed or not
/// let in, and connections that are closed although nothing has changed for their peer; and one that was removed and is not
/// told, or is told so before anybody had its id.
#[actix::test]
async fn peers_come_and_go() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let (mut a, mut b) = (Node::start(config(A, at_b), listen_a), Node::start(config(B, at_a), listen_b));
    a.connected(B).await;
    b.connected(A).await;
    let peers = config(A, at_b).peers;
    a.handle.set_peers(peers.clone(), B);
    assert!(a.handle.send(B, numbered(1)), "the same peers");
    assert_eq!(b.message().await, numbered(1));
    a.handle.set_peers(BTreeMap::new(), A);
    assert!(!a.handle.send(B, numbered(2)), "no peer any more");
    b.closed(A).await;
    counted("refused_total{side=listener,reason=unknown_node}").await;
    assert!(b.events.try_recv().is_err(), "it may still become a member");
    a.handle.set_peers(BTreeMap::new(), B);
    b.event(PeerEvent::Removed { peer: A }).await;
    counted("refused_total{side=listener,reason=removed}").await;
    a.handle.set_peers(peers, B);
    a.connected(B).await;
    b.connected(A).await;
    assert!(a.handle.send(B, numbered(3)) && b.handle.send(A, numbered(4)));
    assert_eq!((b.message().await, a.message().await), (numbered(3), numbered(4)));
}

fn large_call() -> Message {
    Message::Leader(ToLeader::ExecuteFunction(Call {
        request: RequestId::Gateway(1),
        fingerprint: Fingerprint::default(),
        function: "kv.put".into(),
        arguments: Bytes::from(vec![7; 1 << 20]),
        patience: Duration::ZERO,
        copy: 0,
    }))
}

/// Accepts the three connections of `A` as `B` would.
async fn accept_all(listener: TcpListener) -> BTreeMap<u32, Raw> {
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    let mut lanes = BTreeMap::new();
    while lanes.len() < Lane::ALL.len() {
        let (stream, _) = timeout(DEADLINE, listener.accept()).await.expect("a call in time").expect("a connection");
        let mut raw = Raw(stream);
        let hello: Hello = raw.handshake().await;
        raw.send(&raw_frame(&identity(B).welcome(false))).await;
        lanes.insert(hello.lane, raw);
    }
    lanes
}

/// Sends to a peer that reads nothing until the socket's buffers and then the queue are full.
async fn fill(node: &Node) {
    let (mut sent, mut refused) = (0, 0);
    let mut attempts = interval(Duration::from_millis(1));
    while refused < 20 {
        if node.handle.send(B, large_call()) {
            (sent, refused) = (sent + 1, 0);
        } else {
            refused += 1;
        }
        assert!(sent < 100, "100 MiB were taken for a peer that does not read");
        attempts.tick().await;
    }
}

/// Catches heartbeats that wait behind votes or calls: a peer that reads slowly would be taken
/// for dead. Catches a queue without a bound, too.
#[actix::test]
async fn heartbeats_pass_while_the_protocol_lane_is_blocked() {
    let ((listen_a, _), (listen_b, at_b)) = (listener(), listener());
    let protocol = QueueLimit { messages: 1_000, bytes: 4 << 20 };
    let limits = Limits { protocol, ..Limits::default() };
    let mut a = Node::start(TransportConfig { limits, ..config(A, at_b) }, listen_a);
    let mut lanes = accept_all(listen_b).await;
    a.connected(B).await;
    fill(&a).await;
    counted("dropped_total{lane=protocol,cause=full}").await;
    let heartbeat =
        |number| Message::FailureDetector(Heartbeat { issued: CommandNumber(number), ..Heartbeat::default() });
    let raw = lanes.get_mut(&Lane::Heartbeat.number()).expect("the heartbeat lane");
    for number in 1..=100 {
        assert!(a.handle.send(B, heartbeat(number)));
        assert_eq!(wire::decode(raw.payload().await.into()), Ok(heartbeat(number)));
    }
    fill(&a).await;
}

/// Catches a message that no frame can hold: it must not cost the connection, nor those queued
/// behind it.
#[actix::test]
async fn a_message_too_large_for_a_frame_is_dropped_alone() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let (mut a, mut b) = (Node::start(config(A, at_b), listen_a), Node::start(config(B, at_a), listen_b));
    a.connected(B).await;
    let Message::Leader(ToLeader::ExecuteFunction(call)) = large_call() else { panic!("it is a call") };
    let huge = Call { arguments: Bytes::from(vec![0; transport::frame::FRAME_BYTES_MAX]), ..call };
    a.handle.send(B, Message::Leader(ToLeader::ExecuteFunction(huge)));
    assert!(a.handle.send(B, numbered(1)));
    assert_eq!(b.message().await, numbered(1));
    counted("dropped_total{lane=protocol,cause=too_large}").await;
    assert!(a.events.try_recv().is_err(), "the connection lives on");
}
