//! What a peer that got in may send, and must not. RELIABILITY 6, row 13.

use bytes::BytesMut;
use protocol::Message;
use protocol::message::Heartbeat;
use transport::frame::{self, FRAME_BYTES_MAX};
use transport::{Lane, wire};

use crate::messages::numbered;
use crate::support::{A, Node, Raw, config, counted, listener};

fn framed(message: &Message) -> BytesMut {
    let mut buffer = BytesMut::new();
    frame::append(&mut buffer, FRAME_BYTES_MAX, |buffer| wire::encode(message, buffer)).expect("a small frame");
    buffer
}

fn checksum_off() -> BytesMut {
    let mut frame = framed(&numbered(2));
    frame[5] ^= 1;
    frame
}

fn undecodable() -> BytesMut {
    let mut buffer = BytesMut::new();
    frame::append(&mut buffer, FRAME_BYTES_MAX, |buffer| buffer.extend_from_slice(&[0xff; 9])).expect("a small frame");
    buffer
}

fn too_large() -> BytesMut {
    let length = u32::try_from(FRAME_BYTES_MAX + 1).expect("32 bits");
    [length.to_be_bytes(), [0; 4]].concat().into_iter().collect()
}

/// Catches a bad frame that is delivered, or after which the stream goes on as if the next
/// bytes could be trusted; and a good frame before it that is lost.
#[actix::test]
async fn a_bad_frame_ends_its_connection_and_no_other() {
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let mut node = Node::start(config(A, nobody), listening);
    let bad = [
        (checksum_off(), "checksum"),
        (undecodable(), "unreadable"),
        (too_large(), "too_large"),
        (framed(&Message::FailureDetector(Heartbeat::default())), "wrong_lane"),
    ];
    for (bad, reason) in bad {
        let mut raw = Raw::welcome(address, Lane::Protocol).await;
        raw.send(&[&framed(&numbered(1))[..], &bad, &framed(&numbered(3))].concat()).await;
        assert!(raw.closed().await.is_empty(), "nothing is sent on this direction");
        assert_eq!(node.message().await, numbered(1), "{reason}");
        counted(&format!("broken_frames_total{{lane=protocol,reason={reason}}}")).await;
        let mut raw = Raw::welcome(address, Lane::Protocol).await;
        raw.send(&framed(&numbered(4))).await;
        assert_eq!(node.message().await, numbered(4), "after {reason}, message 3 must not come");
    }
}

/// Catches half a frame that is delivered, or that is glued to the next connection's bytes.
#[actix::test]
async fn a_torn_frame_is_forgotten() {
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let mut node = Node::start(config(A, nobody), listening);
    let whole = framed(&numbered(1));
    for cut in 1..whole.len() {
        let mut raw = Raw::welcome(address, Lane::Protocol).await;
        raw.send(&whole[..cut]).await;
        drop(raw);
        let mut raw = Raw::welcome(address, Lane::Protocol).await;
        raw.send(&framed(&numbered(100 + cut as u64))).await;
        assert_eq!(node.message().await, numbered(100 + cut as u64));
    }
}

/// Catches connections that pile up when a peer vanishes without a word and dials again, and old
/// messages that arrive after newer ones.
#[actix::test]
async fn a_newer_connection_replaces_the_older_one_of_its_lane() {
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let mut node = Node::start(config(A, nobody), listening);
    let old = Raw::welcome(address, Lane::Protocol).await;
    let mut bulk = Raw::welcome(address, Lane::Bulk).await;
    let mut new = Raw::welcome(address, Lane::Protocol).await;
    assert!(old.closed().await.is_empty());
    new.send(&framed(&numbered(1))).await;
    assert_eq!(node.message().await, numbered(1));
    let catch_up = protocol::message::CatchUp { first: protocol::CommandNumber(5) };
    let catch_up = Message::Learner(protocol::message::ToLearner::CatchUp(catch_up));
    bulk.send(&framed(&catch_up)).await;
    assert_eq!(node.message().await, catch_up, "the other lane lives on");
}
