//! What must hold for the bytes of any connection: functions that panic when it does not. Fuzzers
//! feed them, and the tests replay what fuzzers found (docs/testing.md).

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use protocol::{ClusterId, LearnFrom, NodeId};
use tokio::io::{empty, join, sink};

use crate::frame::{self, FrameError, HEADER_BYTES};
use crate::handshake::{self, Answer, HANDSHAKE_BYTES_MAX, Hello, Identity, Known, Verdict};
use crate::lane::Lane;
use crate::wire;

/// Bytes as a stream of frames, cut as TCP may cut it: the first byte is the length of the pieces.
/// The same frames come out as of the whole stream, and the buffer never has much more room than
/// the stream or the largest frame needs.
///
/// # Panics
/// When that does not hold.
pub fn frames(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else { return };
    for lane in Lane::ALL {
        let limit = lane.frame_bytes_max();
        let (mut whole, mut buffer) = (BytesMut::from(stream), BytesMut::new());
        let expected = taken(&mut whole, limit);
        let mut found = (Vec::new(), Ok(()));
        for part in stream.chunks(usize::from(piece).max(1)) {
            buffer.extend_from_slice(part);
            let (payloads, end) = taken(&mut buffer, limit);
            found.0.extend(payloads);
            found.1 = end;
            let needed = (HEADER_BYTES + limit).max(stream.len());
            assert!(buffer.capacity() <= 2 * needed, "room for {} bytes", buffer.capacity());
            if found.1.is_err() {
                break;
            }
        }
        assert_eq!(found, expected, "other frames in pieces of {piece}");
    }
    // Chance makes no checksums, so the same bytes are put into a frame, and damaged there.
    let mut framed = BytesMut::new();
    frame::append(&mut framed, stream.len(), |buffer| buffer.extend_from_slice(stream)).expect("within the limit");
    let mut damaged = framed.clone();
    let at = HEADER_BYTES + usize::from(piece) % stream.len().max(1);
    assert_eq!(taken(&mut framed, stream.len()), (vec![Bytes::copy_from_slice(stream)], Ok(())));
    if let Some(byte) = damaged.get_mut(at) {
        *byte = !*byte;
        assert_eq!(taken(&mut damaged, stream.len()), (Vec::new(), Err(FrameError::Checksum)));
    }
}

/// All whole frames in a buffer, and how it ends.
fn taken(buffer: &mut BytesMut, limit: usize) -> (Vec<Bytes>, Result<(), FrameError>) {
    let mut payloads = Vec::new();
    loop {
        match frame::take(buffer, limit) {
            Ok(Some(payload)) => payloads.push(payload),
            Ok(None) => return (payloads, Ok(())),
            Err(error) => return (payloads, Err(error)),
        }
    }
}

/// Bytes as the payload of a frame: refused, or a message that survives its own frame and weighs
/// no less in a queue than what it holds.
///
/// # Panics
/// When that does not hold.
pub fn message(bytes: &[u8]) {
    let Ok(message) = wire::decode(Bytes::copy_from_slice(bytes)) else { return };
    let mut payload = BytesMut::new();
    wire::encode(&message, &mut payload);
    // As in the tests of `wire`: a numeric field takes at most eleven bytes, a message has a dozen.
    assert!(wire::weight(&message) + 11 * 16 >= payload.len(), "a queue would count too little of {message:?}");
    assert_eq!(wire::decode(payload.freeze()).as_ref(), Ok(&message), "a message that changes");
}

/// Bytes as what a stranger says first, and as what it answers; then as the payloads of such
/// frames. A refusal fits into the frame that carries it, whatever names it repeats.
///
/// # Panics
/// When that does not hold.
pub fn handshake(bytes: &[u8]) {
    let me = Identity {
        me: NodeId(1),
        name: "a".into(),
        cluster: ClusterId([7; 16]),
        cluster_name: "demo".into(),
        learn_from: LearnFrom::Leader,
        window: 1024,
        auth: false,
        versions: handshake::Versions::SPOKEN,
    };
    let mut framed = BytesMut::new();
    let fits = frame::append(&mut framed, HANDSHAKE_BYTES_MAX, |buffer| buffer.extend_from_slice(bytes)).is_ok();
    for stream in [bytes, &framed[..]] {
        let hello = at_once(handshake::read::<Hello, _>(&mut &*stream));
        if let Ok(hello) = &hello {
            judged(&me, hello);
        }
        let ours = me.hello(NodeId(2), Lane::Protocol, None);
        let answered = at_once(handshake::dial(&mut join(stream, sink()), &ours));
        if let Ok(noted) = answered {
            let answer = at_once(handshake::read::<Answer, _>(&mut &*stream)).expect("it was read before");
            assert!(
                matches!(answer.verdict, Some(Verdict::Welcome(welcome)) if welcome.node == 2 && welcome.noted == noted)
            );
        }
    }
    assert_eq!(fits, bytes.len() <= HANDSHAKE_BYTES_MAX);
    if let Ok(hello) = Hello::decode(bytes) {
        // Names that are looked at only when the rest of it is right.
        let known = Hello {
            version: handshake::Versions::SPOKEN.newest,
            magic: Bytes::from_static(handshake::MAGIC),
            ..hello.clone()
        };
        judged(&me, &known);
        let same = Hello { cluster: Bytes::copy_from_slice(&me.cluster.0), expects: 1, ..known };
        judged(&me, &same);
        judged(&me, &Hello { node: 3, ..same.clone() });
        judged(&me, &Hello { node: 2, node_name: "b".into(), ..same.clone() });
        judged(&me, &Hello { node: 3, node_name: "b".into(), ..same });
        assert_eq!(Hello::decode(&hello.encode_to_vec()[..]), Ok(hello));
    }
}

/// Judges a stranger's `Hello` and writes the answer.
fn judged(me: &Identity, hello: &Hello) {
    let known = |node: NodeId, name: &str| match node.0 {
        2 => Known::Member("b".to_owned()),
        1..=4 => Known::Removed((name == "b").then_some(NodeId(2))),
        _ => Known::Unknown,
    };
    let answer = match me.judge(hello, known) {
        Ok((node, _)) => {
            assert_eq!((node, &hello.node_name[..]), (NodeId(2), "b"), "a stranger got in");
            me.welcome(true)
        }
        Err(refusal) => refusal.answer(),
    };
    at_once(handshake::write(&mut join(empty(), sink()), &answer)).expect("an answer fits into its frame");
}

/// The result of what never waits: all its bytes are there.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("memory never makes anybody wait"),
    }
}
