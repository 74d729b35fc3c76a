//! Whole states for others.

use protocol::{Position, SnapshotId};

use super::*;

pub(super) fn snapshot(command: &Command) -> SnapshotId {
    SnapshotId { at: command.id, digest: [7; 32] }
}

pub(super) fn place(text: &'static str) -> Position {
    Position(Bytes::from_static(text.as_bytes()))
}

fn fetch(from: u64, id: Option<SnapshotId>, place: Position) -> Input {
    let message = ToLearner::FetchSnapshot(FetchSnapshot { id, from: place });
    Input::Message { from: NodeId(from), message }
}

fn any(from: u64) -> Input {
    fetch(from, None, Position::default())
}

fn serves(to: u64, id: SnapshotId, from: Position) -> Effect {
    Effect::ServePiece { to: NodeId(to), id, from }
}

fn keeps_from(number: u64) -> Input {
    Input::Kept { durable: CommandNumber::NULL, kept_from: CommandNumber(number) }
}

/// A learner in a cluster of five that has applied these.
fn server(c: &[Command]) -> Learner {
    let membership = Membership::of_equals(5);
    Learner::new(Config { membership, ..config(LearnFrom::Leader) }, c.last().expect("not empty").id)
}

/// A14: catches a checkpoint made for each who asks, one that is not made, and an asker who is forgotten.
#[test]
fn who_asks_gets_the_beginning_of_one_checkpoint() {
    let c = chain(9);
    let (mut learner, id) = (server(&c), snapshot(&c[8]));
    assert_eq!(learner.handle(any(2), at(0)), [Effect::MakeCheckpoint]);
    assert_eq!(learner.handle(any(2), at(1)), []);
    assert_eq!(learner.handle(any(3), at(1)), []);
    assert_eq!(learner.handle(any(4), at(1)), []);
    assert_eq!(learner.handle(Input::PeerLost(NodeId(4)), at(1)), []);
    let first = |to| serves(to, id, Position::default());
    assert_eq!(learner.handle(Input::CheckpointMade(id), at(2)), [first(2), first(3)]);
    assert_eq!(learner.handle(any(5), at(3)), [first(5)]);
    assert_eq!(learner.handle(fetch(2, Some(id), place("k")), at(4)), [serves(2, id, place("k"))]);
    assert_eq!(learner.handle(any(9), at(5)), ignored(IgnoreReason::Stranger));
    assert_eq!(learner.handle(fetch(2, None, place("k")), at(5)), ignored(IgnoreReason::Malformed));
}

/// A14: catches a state that nobody can go on from because the commands after it are gone; a transfer that is broken
/// off for that; and checkpoints without bound.
#[test]
fn a_stale_checkpoint_is_for_those_who_have_a_part_of_it() {
    let c = chain(30);
    let (mut learner, old, new) = (server(&c[..9]), snapshot(&c[8]), snapshot(&c[9]));
    learner.handle(any(2), at(0));
    learner.handle(Input::CheckpointMade(old), at(0));
    learner.handle(keeps_from(10), at(1));
    assert_eq!(learner.handle(any(3), at(1)), [serves(3, old, Position::default())], "10 is kept");
    learner.handle(keeps_from(11), at(2));
    assert_eq!(learner.handle(any(3), at(2)), [Effect::MakeCheckpoint]);
    assert_eq!(learner.handle(Input::CheckpointMade(new), at(2)), [serves(3, new, Position::default())]);
    assert_eq!(learner.handle(fetch(2, Some(old), place("k")), at(3)), [serves(2, old, place("k"))]);
    assert_eq!(learner.handle(any(4), at(3)), [serves(4, new, Position::default())]);
    learner.handle(keeps_from(20), at(4));
    assert_eq!(learner.handle(any(5), at(4)), ignored(IgnoreReason::Busy));
}

/// A14: catches a checkpoint that is never closed, one that is closed while it is asked about, and an answer about one
/// that is not there.
#[test]
fn a_checkpoint_is_closed_when_nobody_asks_about_it() {
    let c = chain(9);
    let (mut learner, id) = (server(&c), snapshot(&c[8]));
    learner.handle(any(2), at(0));
    learner.handle(Input::CheckpointMade(id), at(0));
    learner.handle(fetch(2, Some(id), place("k")), at(50_000));
    assert_eq!(learner.handle(Input::Tick, at(60_000)), []);
    assert_eq!(learner.handle(Input::Tick, at(109_999)), []);
    assert_eq!(learner.handle(Input::Tick, at(110_000)), [Effect::CloseCheckpoint(id)]);
    assert_eq!(learner.handle(Input::Tick, at(999_999)), []);
    let gone = ToLearner::Snapshot(Snapshot { id, records: 0, piece: None });
    let gone = Effect::Send { to: NodeId(2), message: Message::Learner(gone) };
    assert_eq!(learner.handle(fetch(2, Some(id), place("k")), at(999_999)), [gone]);
    assert_eq!(learner.handle(any(2), at(999_999)), [Effect::MakeCheckpoint]);
}

/// ADR 0020: catches a checkpoint that is made on a disk that is out of space: what it writes may be the end of it, and of
/// the node. And one that is open, and given up although it takes no more room.
#[test]
fn without_room_no_checkpoint_is_made() {
    let c = chain(9);
    let (mut learner, id) = (server(&c), snapshot(&c[8]));
    learner.handle(Input::Space(Space::Out), at(0));
    assert_eq!(learner.handle(any(2), at(0)), ignored(IgnoreReason::NoRoom));
    assert_eq!(learner.handle(any(3), at(0)), ignored(IgnoreReason::NoRoom));
    learner.handle(Input::Space(Space::Low), at(1));
    assert_eq!(learner.handle(any(2), at(1)), [Effect::MakeCheckpoint]);
    learner.handle(Input::Space(Space::Out), at(2));
    assert_eq!(learner.handle(Input::CheckpointMade(id), at(2)), [serves(2, id, Position::default())]);
    assert_eq!(learner.handle(fetch(2, Some(id), place("k")), at(3)), [serves(2, id, place("k"))]);
    assert_eq!(learner.handle(any(4), at(3)), [serves(4, id, Position::default())]);
}
