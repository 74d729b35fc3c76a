//! Who does not get in. RELIABILITY 6, rows 3 and 13.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use protocol::{ClusterId, LearnFrom, NodeId};
use transport::handshake::{Answer, HANDSHAKE_BYTES_MAX, Hello, Refusal, Verdict, Versions};
use transport::{Disk, Disks, Lane, Limits, Peer, PeerEvent, TransportConfig};

use crate::messages::numbered;
use crate::support::{A, B, Node, Raw, config, counted, identity, listener, raw_frame};

/// A lone node `A`; its peer `B` does not run.
fn alone() -> (Node, std::net::SocketAddr) {
    let (listening, address) = listener();
    let (_, nobody) = listener();
    let config = TransportConfig { last_id: NodeId(3), ..config(A, nobody) };
    (Node::start(config, listening), address)
}

/// Catches a peer with one mistake that gets in, one that is not told why, and one refusal that
/// is not counted.
#[actix::test]
async fn a_peer_with_a_mistake_is_told_which() {
    let (_node, address) = alone();
    let right = || identity(B).hello(A, Lane::Protocol, None);
    let mistakes = [
        (Hello { magic: Bytes::from_static(b"other"), ..right() }, "not_a_peer", "not a Quorate node"),
        (Hello { version: Versions::SPOKEN.newest + 1, ..right() }, "version", "protocol version 2"),
        (
            Hello { cluster: Bytes::from_static(&[9; 16]), cluster_name: "z".into(), ..right() },
            "other_cluster",
            "check the addresses",
        ),
        // Restored from another backup, or only one of them, though the addresses are right.
        (
            Hello { cluster: Bytes::from_static(&[9; 16]), ..right() },
            "other_cluster",
            "restored from different backups",
        ),
        (Hello { node: 1, ..right() }, "own_id", "two nodes have one id"),
        (Hello { node: 5, ..right() }, "unknown_node", "not a member"),
        (Hello { node: 3, ..right() }, "removed", "under another id"),
        (Hello { node_name: "z".into(), ..right() }, "other_name", "calls itself \"z\""),
        (Hello { node: 3, disk: Some(Disk::default()), ..right() }, "lost_disk", "quorate recover"),
        (Hello { expects: 5, ..right() }, "wrong_node", "expects node 5"),
        (Hello { expects: 3, ..right() }, "not_any_more", "this is node 1"),
        (
            Hello { learn_from: Some("voters".into()), ..right() },
            "other_learn_from",
            "protocol.learn_from = \"voters\", this node has \"leader\"",
        ),
        (Hello { lane: 17, ..right() }, "unknown_lane", "number 17"),
    ];
    for (hello, reason, says) in mistakes {
        let mut raw = Raw::connect(address).await;
        raw.send(&raw_frame(&hello)).await;
        let Some(Verdict::Refused(text)) = raw.handshake::<Answer>().await.verdict else { panic!("{reason} got in") };
        assert!(text.contains(says), "{reason}: {text}");
        counted(&format!("refused_total{{side=listener,reason={reason}}}")).await;
    }
    drop(Raw::welcome(address, Lane::Protocol).await);
}

/// Catches garbage that hangs, crashes the listener, or makes it allocate; and a listener that
/// serves no one afterwards.
#[actix::test]
async fn garbage_on_the_port_is_refused() {
    let (_node, address) = alone();
    let damaged = {
        let mut frame = raw_frame(&identity(B).hello(A, Lane::Protocol, None));
        frame[10] ^= 1;
        frame
    };
    let mut large = Bytes::from_static(&[0, 0, 0x10, 1, 0, 0, 0, 0]).to_vec();
    large.resize(8 + HANDSHAKE_BYTES_MAX + 1, 0);
    for bytes in [&b"SSH-2.0-OpenSSH_9.9\r\n"[..], &[0xff; 100], &damaged, &large] {
        let mut raw = Raw::connect(address).await;
        raw.send(bytes).await;
        let Some(Verdict::Refused(text)) = raw.handshake::<Answer>().await.verdict else { panic!("garbage got in") };
        assert!(text.contains("not a Quorate node"), "{text}");
    }
    counted("refused_total{side=listener,reason=not_a_peer}").await;
    drop(Raw::welcome(address, Lane::Protocol).await);
}

/// Catches an HTTP client that hangs on the port for nodes instead of reading where to go.
#[actix::test]
async fn an_http_client_reads_where_to_go() {
    let (_node, address) = alone();
    let mut raw = Raw::connect(address).await;
    raw.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::io::AsyncWriteExt::shutdown(&mut raw.0).await.expect("half closed");
    let answer = String::from_utf8(raw.closed().await).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}, {} bytes", body.len());
    assert!(body.contains("`listen.http`"), "{body}");
    counted("refused_total{side=listener,reason=http}").await;
}

/// Catches connections that say nothing and stay for ever, and a node that runs out of
/// descriptors because of them.
#[actix::test]
async fn silent_connections_are_few_and_short() {
    let (listening, address) = listener();
    let (_, nobody) = listener();
    let limits = Limits { handshakes: 1, ..Limits::default() };
    let _node = Node::start(TransportConfig { limits, ..config(A, nobody) }, listening);
    let mut silent = Raw::connect(address).await;
    assert!(Raw::connect(address).await.closed().await.is_empty(), "the second one is closed at once");
    counted("refused_total{side=listener,reason=too_many}").await;
    let Some(Verdict::Refused(text)) = silent.handshake::<Answer>().await.verdict else { panic!("it got in") };
    assert!(text.contains("no handshake came within 2s"), "{text}");
}

/// Catches two clusters that mix because of one wrong address, and a dialer that is not told.
#[actix::test]
async fn nodes_of_two_clusters_do_not_connect() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let mut a = Node::start(config(A, at_b), listen_a);
    let other = TransportConfig { cluster: ClusterId([0xff; 16]), ..config(B, at_a) };
    let mut b = Node::start(other, listen_b);
    counted("refused_total{side=listener,reason=other_cluster}").await;
    counted("refused_total{side=dialer,reason=refused_by_peer}").await;
    assert!(!a.handle.send(B, numbered(1)), "there is no connection");
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err(), "no connection, so no event");
}

/// Catches a node that is called by its name and address by a member of another cluster of its name, as one is that lost its
/// disk and began another, and hears nothing of it.
#[actix::test]
async fn a_node_that_another_cluster_claims_is_told() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let mut a = Node::start(config(A, at_b), listen_a);
    let other = TransportConfig { cluster: ClusterId([0xff; 16]), ..config(B, at_a) };
    let begun = Disk { promise_round: 1, promise_node: 2, ..Disk::default() };
    let says = Disks { say: Arc::new(move || Some(begun.clone())), ..Disks::unknown() };
    let _b = Node::start_with(other, listen_b, says);
    a.event(PeerEvent::Claimed { by: "2 (b)".into() }).await;
}

/// Catches nodes that learn in different ways and let each other in: each would wait for what the
/// other never sends. And a dialer that is not told.
#[actix::test]
async fn nodes_that_learn_in_different_ways_do_not_connect() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let mut a = Node::start(config(A, at_b), listen_a);
    let voters = TransportConfig { learn_from: LearnFrom::Voters, ..config(B, at_a) };
    let mut b = Node::start(voters, listen_b);
    counted("refused_total{side=listener,reason=other_learn_from}").await;
    counted("refused_total{side=dialer,reason=refused_by_peer}").await;
    assert!(!a.handle.send(B, numbered(1)), "there is no connection");
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err(), "no connection, so no event");
}

/// Catches an upgrade that is only possible all at once: nodes of two versions that follow each other do not talk; and two
/// with none in common that do, or that are not told.
#[actix::test]
async fn nodes_of_versions_that_follow_each_other_connect() {
    let speaks = |oldest, newest, config| TransportConfig { versions: Versions { oldest, newest }, ..config };
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let mut a = Node::start(speaks(1, 1, config(A, at_b)), listen_a);
    let mut b = Node::start(speaks(1, 2, config(B, at_a)), listen_b);
    a.connected(B).await;
    b.connected(A).await;
    assert!(a.handle.send(B, numbered(1)) && b.handle.send(A, numbered(2)));
    assert_eq!((b.message().await, a.message().await), (numbered(1), numbered(2)));
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let _old = Node::start(speaks(1, 1, config(A, at_b)), listen_a);
    let mut new = Node::start(speaks(2, 3, config(B, at_a)), listen_b);
    counted("refused_total{side=listener,reason=version}").await;
    counted("refused_total{side=dialer,reason=refused_by_peer}").await;
    assert!(new.events.try_recv().is_err(), "no connection, so no event");
}

/// RELIABILITY 6, row 3: catches a node with another disk that gets in, one that is not told, a disk that counts as
/// noted where nobody has noted it, and a node that goes on being told so when it does not say its disk.
#[actix::test]
async fn a_disk_is_noted_or_refused_and_the_dialer_is_told() {
    let disk = |id| Disk { id: Bytes::copy_from_slice(&[id; 16]), ..Disk::default() };
    let says = |id| Disks { say: Arc::new(move || Some(disk(id))), ..Disks::unknown() };
    let knows = |own, theirs| {
        let judge = move |node, found: Disk| {
            if found == disk(theirs) { Ok(true) } else { Err(Refusal::OtherDisk(node)) }
        };
        Disks { judge: Arc::new(judge), ..says(own) }
    };
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let mut a = Node::start_with(config(A, at_b), listen_a, knows(1, 2));
    let mut b = Node::start_with(config(B, at_a), listen_b, knows(2, 1));
    a.event(PeerEvent::Noted { peer: B }).await;
    b.event(PeerEvent::Noted { peer: A }).await;
    b.handle.stop();
    drop(b);
    let (listen_b, _) = listener();
    let mut b = Node::start_with(config(B, at_a), listen_b, knows(3, 1));
    let refused = loop {
        if let PeerEvent::DiskRefused { peer, why } = b.next_event().await {
            break (peer, why);
        }
    };
    assert_eq!(refused, (A, Refusal::OtherDisk(B).to_string()));
    assert!(refused.1.contains("quorate recover"), "{}", refused.1);
    counted("refused_total{side=listener,reason=other_disk}").await;
    assert!(!b.handle.send(A, numbered(1)), "there is no connection");
}

/// Catches a copy of a running node that gets in beside it, or is judged, which would note its disk as the one of the
/// node; one that is not told, or is told that its disk is to blame; and one that is kept out when it is alone.
#[actix::test]
async fn another_process_of_a_connected_node_is_refused_until_that_one_is_gone() {
    let patient = |me, address, silence| {
        let config = config(me, address);
        TransportConfig { limits: Limits { silence, ..config.limits }, ..config }
    };
    let says = |run| Disks { say: Arc::new(move || Some(Disk { run, ..Disk::default() })), ..Disks::unknown() };
    let judged = Arc::new(Mutex::new(BTreeSet::new()));
    let runs = Arc::clone(&judged);
    let judge = move |_, disk: Disk| {
        runs.lock().expect("no panic").insert(disk.run);
        Ok(true)
    };
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    // Nobody beats here: whoever is connected counts as alive.
    let config_a = patient(A, at_b, Duration::from_secs(600));
    let _a = Node::start_with(config_a, listen_a, Disks { judge: Arc::new(judge), ..says(9) });
    let mut b = Node::start_with(config(B, at_a), listen_b, says(1));
    b.connected(A).await;
    let (listen_copy, _) = listener();
    let mut copy = Node::start_with(patient(B, at_a, Duration::ZERO), listen_copy, says(2));
    let why = Refusal::ConnectedAlready(B).to_string();
    assert_eq!(copy.next_event().await, PeerEvent::ConnectedAlready { peer: A, why });
    counted("refused_total{side=listener,reason=connected_already}").await;
    assert!(b.handle.send(A, numbered(1)), "the connection of the other one is open");
    assert_eq!(*judged.lock().expect("no panic"), BTreeSet::from([1]), "the copy was not judged");
    b.handle.stop();
    copy.connected(A).await;
    assert_eq!(*judged.lock().expect("no panic"), BTreeSet::from([1, 2]));
}

/// Catches a node of an earlier version, which does not say its disk, that is refused or counts as noted.
#[actix::test]
async fn a_node_that_does_not_say_its_disk_is_taken() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let strict = Disks { judge: Arc::new(|node, _| Err(Refusal::OtherDisk(node))), ..Disks::unknown() };
    let _a = Node::start_with(config(A, at_b), listen_a, strict);
    let mut b = Node::start(config(B, at_a), listen_b);
    loop {
        let event = b.next_event().await;
        if matches!(event, PeerEvent::Connected { lane: Lane::Protocol, .. }) {
            return;
        }
        assert!(matches!(event, PeerEvent::Connected { .. } | PeerEvent::Unreachable { .. }), "{event:?}");
    }
}

/// Catches a different window that parts two nodes, or that nobody hears of.
#[actix::test]
async fn nodes_of_different_windows_connect_and_say_so() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let mut a = Node::start(config(A, at_b), listen_a);
    let smaller = TransportConfig { window: 16, ..config(B, at_a) };
    let mut b = Node::start(smaller, listen_b);
    a.connected(B).await;
    b.connected(A).await;
    counted("other_window_total{}").await;
}

/// RELIABILITY 6.5: catches nodes that are parted while tokens are being switched on, and one that leaves the door open of which
/// nobody hears.
#[actix::test]
async fn who_asks_nobody_for_a_token_is_let_in_and_told_of() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let mut a = Node::start(config(A, at_b), listen_a);
    let mut b = Node::start(TransportConfig { auth: true, ..config(B, at_a) }, listen_b);
    a.connected(B).await;
    b.connected(A).await;
    counted("other_auth_total{}").await;
}

/// Catches messages that reach another node than the one meant, when two addresses are swapped;
/// and messages to somebody who is no peer.
#[actix::test]
async fn a_node_at_another_nodes_address_is_not_talked_to() {
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    // `a` expects node 3 where node 2 is.
    let mut wrong = config(A, at_b);
    wrong.peers.insert(NodeId(3), Peer { name: "c".into(), address: at_b.to_string() });
    let mut a = Node::start(wrong, listen_a);
    let _b = Node::start(config(B, at_a), listen_b);
    a.connected(B).await;
    counted("refused_total{side=listener,reason=wrong_node}").await;
    assert!(!a.handle.send(NodeId(3), numbered(1)));
    assert!(!a.handle.send(A, numbered(1)), "a node is no peer of itself");
    assert!(!a.handle.send(NodeId(9), numbered(1)));
    assert!(a.handle.send(B, numbered(1)));
    while let Ok(event) = a.events.try_recv() {
        if let PeerEvent::Connected { peer, .. }
        | PeerEvent::Closed { peer, .. }
        | PeerEvent::Unreachable { peer, .. } = event
        {
            assert_ne!(peer, NodeId(3), "{event:?}");
        }
    }
}
