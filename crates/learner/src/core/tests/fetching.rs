//! A whole state that arrives.

use protocol::{Entry, Key, Position, SnapshotId, SnapshotPiece, SnapshotRecord};
use storage::{Installation, Staged};

use super::serving::{place, snapshot};
use super::*;

/// A peer knows all up to `issued`, and keeps nothing below `kept_from`.
fn forgotten(from: u64, issued: CommandId, kept_from: u64) -> Input {
    let message = ToLearner::Commands(Commands { commands: vec![], issued, kept_from: CommandNumber(kept_from) });
    Input::Message { from: NodeId(from), message }
}

fn fetches(to: u64, id: Option<SnapshotId>, from: Position) -> Effect {
    let message = Message::Learner(ToLearner::FetchSnapshot(FetchSnapshot { id, from }));
    Effect::Send { to: NodeId(to), message }
}

fn fetches_any(to: u64) -> Effect {
    fetches(to, None, Position::default())
}

fn piece(from: Position, next: Option<Position>) -> SnapshotPiece {
    let entry = Entry { value: Bytes::from_static(b"1"), version: CommandNumber(1) };
    SnapshotPiece { from, records: vec![SnapshotRecord::Entry { key: Key::new("k").expect("a key"), entry }], next }
}

fn sends(from: u64, id: SnapshotId, piece: Option<SnapshotPiece>) -> Input {
    Input::Message { from: NodeId(from), message: ToLearner::Snapshot(Snapshot { id, records: 2, piece }) }
}

fn stages(from: u64, id: SnapshotId, piece: SnapshotPiece) -> Vec<Effect> {
    vec![Effect::Stage { id, piece, records: 2, from: NodeId(from) }]
}

fn staged(id: SnapshotId, next: Option<Position>) -> Option<Staged> {
    Some(Staged { id, next })
}

/// The pieces of a state in two parts.
fn first() -> SnapshotPiece {
    piece(Position::default(), Some(place("k")))
}

fn last() -> SnapshotPiece {
    piece(place("k"), None)
}

/// A learner of nothing whose peers, 2 and 3, know `c` and keep the last command of it only. It has asked 2 for a whole
/// state at time 0.
fn behind(c: &[Command]) -> Learner {
    let mut learner = learner(LearnFrom::Leader);
    let (issued, number) = (c[c.len() - 1].id, c.len() as u64);
    assert_eq!(learner.handle(peer_issued(3, number), at(0)), [asks(3, 1)]);
    assert_eq!(learner.handle(peer_issued(2, number), at(0)), []);
    let gone = Effect::Ignored(IgnoreReason::Forgotten);
    assert_eq!(learner.handle(forgotten(3, issued, number), at(0)), [gone.clone(), asks(2, 1)], "perhaps 2 keeps it");
    assert_eq!(learner.handle(forgotten(2, issued, number), at(0)), [gone, fetches_any(2)]);
    learner
}

/// The same, with the first piece staged, and 2 asked for the next.
fn half_way(c: &[Command], id: SnapshotId) -> Learner {
    let mut learner = behind(c);
    assert_eq!(learner.handle(sends(2, id, Some(first())), at(1)), stages(2, id, first()));
    let effects = learner.handle(Input::Staged(staged(id, Some(place("k")))), at(2));
    assert_eq!(effects, [fetches(2, Some(id), place("k"))]);
    learner
}

/// RELIABILITY 5.6: catches a part of a state that keeps the disk full for ever, one that is asked for again at once, and
/// a whole one that is thrown away or waits although it would give the room of the old state back.
#[test]
fn a_part_of_a_state_goes_when_there_is_no_room() {
    let c = chain(10);
    let id = snapshot(&c[9]);
    let mut learner = half_way(&c, id);
    let gone = [Effect::Ignored(IgnoreReason::DoesNotFit), Effect::DropStaged];
    assert_eq!(learner.handle(Input::Space(Space::Out), at(3)), gone);
    assert_eq!(learner.handle(sends(2, id, Some(last())), at(4)), ignored(IgnoreReason::NoRoom));
    assert_eq!(learner.handle(Input::Space(Space::Low), at(5)), []);
    assert_eq!(learner.handle(Input::Tick, at(10_002)), [Effect::Reclaim(Space::Low)]);
    assert_eq!(learner.handle(Input::Tick, at(10_003)), [fetches_any(3)]);

    let mut learner = half_way(&c, id);
    assert_eq!(learner.handle(sends(2, id, Some(first())), at(3)), ignored(IgnoreReason::NotNext));
    assert_eq!(learner.handle(sends(2, id, Some(last())), at(3)), stages(2, id, last()));
    assert_eq!(learner.handle(Input::Space(Space::Out), at(4)), [], "it is being written");
    assert_eq!(learner.handle(Input::Staged(staged(id, None)), at(5)), [Effect::Install]);
}

/// A14, A4: catches a transfer that begins while somebody may keep the commands, a piece asked for before the one
/// before it is written, an installed state that nobody is told of, and commands that waited above it for nothing.
#[test]
fn who_lacks_what_nobody_keeps_gets_a_state_and_goes_on_from_there() {
    let c = chain(12);
    let id = snapshot(&c[9]);
    let mut learner = half_way(&c[..10], id);
    assert_eq!(learner.handle(Input::Tick, at(3)), []);
    assert_eq!(learner.handle(sends(2, id, Some(last())), at(3)), stages(2, id, last()));
    assert_eq!(learner.handle(Input::Tick, at(4)), []);
    assert_eq!(learner.handle(Input::Staged(staged(id, None)), at(5)), [Effect::Install]);
    assert_eq!(learner.handle(Input::Tick, at(6)), []);
    assert_eq!(learner.handle(Input::Installed(Installation::Done(c[9].id)), at(7)), []);
    assert_eq!(learner.issued(), c[9].id);
    assert_eq!(learner.handle(success(ballot(1, 2), c[11].id, &c[10..]), at(8)), [applies(&c[10..])]);
    assert_eq!(learner.handle(Input::Tick, at(9_999)), []);
}

/// A4: catches a whole state asked for although a peer in touch keeps the commands, or although nobody knows more.
#[test]
fn as_long_as_somebody_keeps_the_commands_they_are_asked_for() {
    let c = chain(9);
    let mut learner = learner(LearnFrom::Leader);
    assert_eq!(learner.handle(peer_issued(2, 9), at(0)), [asks(2, 1)]);
    let gone = Effect::Ignored(IgnoreReason::Forgotten);
    assert_eq!(learner.handle(forgotten(2, c[8].id, 5), at(0)), [gone, fetches_any(2)], "3 is not heard");
    assert_eq!(learner.handle(peer_issued(3, 9), at(1)), [asks(3, 1)]);
    assert_eq!(learner.handle(answer(3, &c[..4], c[8].id), at(2)), [applies(&c[..4]), asks(3, 5)]);
    assert_eq!(learner.handle(Input::PeerLost(NodeId(3)), at(3)), [asks(2, 5)], "from 5 on it keeps them");
    assert_eq!(learner.handle(answer(2, &c[4..], c[8].id), at(4)), [applies(&c[4..])]);
    assert_eq!(learner.handle(Input::Tick, at(9_999)), []);
}

/// A4: catches a learner that waits for ever for a peer that it hears and that does not hear it, while another one could
/// send its state; and one that does not wait for a slow one at all.
#[test]
fn who_does_not_answer_is_not_waited_for() {
    let c = chain(9);
    let mut learner = learner(LearnFrom::Leader);
    learner.handle(peer_issued(2, 9), at(0));
    learner.handle(peer_issued(3, 9), at(0));
    let gone = Effect::Ignored(IgnoreReason::Forgotten);
    assert_eq!(learner.handle(forgotten(2, c[8].id, 9), at(0)), [gone, asks(3, 1)]);
    for again in 1..=4 {
        assert_eq!(learner.handle(Input::Tick, at(200 * again)), [asks(3, 1)]);
    }
    assert_eq!(learner.handle(Input::Tick, at(1_000)), [asks(3, 1), fetches_any(2)], "3 may answer yet");
    assert_eq!(learner.handle(answer(3, &c, c[8].id), at(1_001)), [applies(&c)]);
}

/// A14: a broken connection. Catches a part of a state that is thrown away because its sender is silent for a while,
/// or asked for again from the beginning.
#[test]
fn after_a_silence_everybody_is_asked_for_the_rest() {
    let c = chain(10);
    let id = snapshot(&c[9]);
    let mut learner = half_way(&c, id);
    let rest = |to| fetches(to, Some(id), place("k"));
    assert_eq!(learner.handle(Input::Tick, at(2_001)), []);
    assert_eq!(learner.handle(Input::Tick, at(2_002)), [rest(3)]);
    let gone = ignored(IgnoreReason::Forgotten);
    assert_eq!(learner.handle(sends(3, id, None), at(2_003)), [gone, vec![rest(2)]].concat());
    assert_eq!(learner.handle(Input::PeerLost(NodeId(2)), at(2_004)), [], "3 does not have it");
    assert_eq!(learner.handle(peer_issued(2, 10), at(9_000)), [asks(2, 1)], "it may have changed");
    let effects = learner.handle(forgotten(2, c[9].id, 10), at(9_001));
    assert_eq!(effects, [Effect::Ignored(IgnoreReason::Forgotten), rest(2)]);
    assert_eq!(learner.handle(sends(2, id, Some(last())), at(9_002)), stages(2, id, last()));
}

/// A14: catches a learner that waits for a piece from a peer that is gone, or asks anew because another one is.
#[test]
fn nobody_waits_for_a_peer_that_is_gone() {
    let c = chain(10);
    let id = snapshot(&c[9]);
    assert_eq!(half_way(&c, id).handle(Input::PeerLost(NodeId(2)), at(3)), [fetches(3, Some(id), place("k"))]);
    assert_eq!(half_way(&c, id).handle(Input::PeerLost(NodeId(3)), at(3)), []);
}

/// A14: catches a learner that waits for ever for the rest of a state that nobody has any more.
#[test]
fn a_part_of_which_nobody_has_the_rest_is_given_up() {
    let c = chain(10);
    let id = snapshot(&c[9]);
    let gone = Effect::Ignored(IgnoreReason::Forgotten);
    let mut told = half_way(&c, id);
    let rest = fetches(3, Some(id), place("k"));
    assert_eq!(told.handle(sends(2, id, None), at(3)), [gone.clone(), rest]);
    assert_eq!(told.handle(sends(3, id, None), at(4)), [gone, Effect::DropStaged, fetches_any(2)]);

    let mut silent = half_way(&c, id);
    silent.handle(Input::PeerLost(NodeId(3)), at(2));
    for second in (3..=29).step_by(2) {
        let rest = fetches(2, Some(id), place("k"));
        assert_eq!(silent.handle(Input::Tick, at(1 + second * 1_000)), [rest], "{second} s");
    }
    assert_eq!(silent.handle(Input::Tick, at(30_001)), []);
    assert_eq!(silent.handle(Input::Tick, at(30_002)), [Effect::DropStaged, fetches_any(2)]);
}

/// A14: a restart of the receiver in the middle. Catches what is staged being forgotten, or asked for although no
/// state is needed any more.
#[test]
fn a_transfer_goes_on_after_a_restart() {
    let c = chain(10);
    let id = snapshot(&c[9]);
    let restart = |next, applied: CommandId| {
        Learner::new(config(LearnFrom::Leader), Stored { applied, staged: staged(id, next) })
    };
    let mut learner = restart(Some(place("k")), CommandId::NULL);
    assert_eq!(learner.handle(Input::Tick, at(0)), []);
    assert_eq!(learner.handle(peer_issued(2, 10), at(1)), [asks(2, 1)]);
    let effects = learner.handle(forgotten(2, c[9].id, 10), at(2));
    assert_eq!(effects, [Effect::Ignored(IgnoreReason::Forgotten), fetches(2, Some(id), place("k"))]);

    let mut whole = restart(None, c[0].id);
    assert_eq!(whole.handle(Input::Tick, at(0)), [Effect::Install]);
    assert_eq!(whole.handle(Input::Installed(Installation::Done(id.at)), at(1)), []);
    assert_eq!(whole.issued(), id.at);

    let mut passed = restart(Some(place("k")), c[9].id);
    assert_eq!(passed.handle(Input::Tick, at(0)), [Effect::DropStaged]);
}

/// A14: catches a state that is installed although the commands have come meanwhile, also those that came while a piece
/// was being written; and commands that are not applied because a state is on its way.
#[test]
fn commands_that_come_meanwhile_are_applied_and_may_make_it_useless() {
    let c = chain(10);
    let id = snapshot(&c[5]);
    let mut learner = half_way(&c, id);
    assert_eq!(learner.handle(answer(3, &c[..3], c[9].id), at(3)), [applies(&c[..3]), asks(3, 4)]);
    let effects = learner.handle(answer(3, &c[3..6], c[9].id), at(4));
    assert_eq!(effects, [applies(&c[3..6]), asks(3, 7), Effect::DropStaged]);

    let mut learner = half_way(&c, id);
    learner.handle(sends(2, id, Some(last())), at(3));
    assert_eq!(learner.handle(answer(3, &c, c[9].id), at(4)), [applies(&c)]);
    assert_eq!(learner.handle(Input::Staged(staged(id, None)), at(5)), [Effect::DropStaged]);
    assert_eq!(learner.handle(Input::Tick, at(9_999)), []);

    let mut learner = behind(&c);
    learner.handle(sends(2, id, Some(first())), at(1));
    assert_eq!(learner.handle(answer(3, &c[..6], c[5].id), at(2)), [applies(&c[..6])], "exactly up to the state");
    let effects = learner.handle(Input::Staged(staged(id, Some(place("k")))), at(3));
    assert_eq!(effects, [Effect::DropStaged, fetches_any(2)], "another one, since 2 knows more and keeps nothing");
}

/// Catches a command that is applied to a state which is being replaced; and one that is lost for it.
#[test]
fn nothing_is_issued_while_the_state_is_being_replaced() {
    let c = chain(10);
    let id = snapshot(&c[5]);
    let mut learner = Learner::new(config(LearnFrom::Leader), Stored { applied: c[3].id, staged: staged(id, None) });
    assert_eq!(learner.handle(Input::Tick, at(0)), [Effect::Install]);
    assert_eq!(learner.handle(success(ballot(1, 2), c[7].id, &c[4..8]), at(1)), []);
    assert_eq!(learner.handle(answer(3, &c[4..8], c[9].id), at(1)), ignored(IgnoreReason::Installing));
    assert_eq!(learner.handle(Input::Tick, at(999)), []);
    for number in [4, 5, 6, 8] {
        let (waiter, patience) = (Waiter(number), Duration::from_secs(9));
        let want = Input::DigestAt { waiter, number: CommandNumber(number), patience };
        assert_eq!(learner.handle(want, at(1)), []);
    }
    let gone = |number| Effect::NoDigest { waiter: Waiter(number), reason: DigestRefusal::Gone };
    let exact = |number| Effect::Digest { waiter: Waiter(number) };
    let effects = learner.handle(Input::Installed(Installation::Done(id.at)), at(1_000));
    assert_eq!(effects, [gone(4), gone(5), exact(6), applies(&c[6..8]), exact(8)]);
}

/// A14, S-18: catches a state that is not what its sender said in use, and one such sender asked over and over.
#[test]
fn a_state_that_is_not_what_was_said_is_shouted_about_and_another_is_asked_for() {
    let c = chain(10);
    let id = snapshot(&c[9]);
    let mut learner = half_way(&c, id);
    learner.handle(sends(2, id, Some(last())), at(3));
    learner.handle(Input::Staged(staged(id, None)), at(4));
    let mismatch = IgnoreReason::Mismatch { from: NodeId(2), id };
    assert_eq!(learner.handle(Input::Installed(Installation::Mismatch), at(5)), ignored(mismatch));
    assert_eq!(learner.issued(), CommandId::NULL);
    assert_eq!(learner.handle(Input::Tick, at(10_004)), []);
    assert_eq!(learner.handle(Input::Tick, at(10_005)), [fetches_any(3)]);
}

/// Catches a store that will not take a piece, out of order or stray, being offered it again and again.
#[test]
fn a_piece_that_the_store_does_not_take_ends_the_transfer_for_a_while() {
    let c = chain(10);
    let id = snapshot(&c[9]);
    let mut learner = half_way(&c, id);
    learner.handle(sends(2, id, Some(last())), at(3));
    let effects = learner.handle(Input::Staged(staged(id, Some(place("k")))), at(4));
    assert_eq!(effects, ignored(IgnoreReason::Malformed));
    assert_eq!(learner.handle(Input::Tick, at(10_003)), []);
    assert_eq!(learner.handle(Input::Tick, at(10_004)), [fetches(3, Some(id), place("k"))]);
}

/// A state that is there already when it is to be put in place is no mistake.
#[test]
fn a_state_that_is_not_needed_any_more_is_left_aside() {
    let c = chain(10);
    let stored = Stored { applied: CommandId::NULL, staged: staged(snapshot(&c[5]), None) };
    let mut learner = Learner::new(config(LearnFrom::Leader), stored);
    assert_eq!(learner.handle(Input::Tick, at(0)), [Effect::Install]);
    let effects = learner.handle(Input::Installed(Installation::Outdated), at(1));
    assert_eq!(effects, ignored(IgnoreReason::AlreadyIssued));
    assert_eq!(learner.issued(), CommandId::NULL);
}

/// S-18: catches a state that contradicts what is known to be issued, or is not later than ours, being taken; whenever
/// the contradiction shows.
#[test]
fn a_state_that_contradicts_what_is_issued_is_refused() {
    let (b, c) = (ballot(1, 2), chain(10));
    let other = run_after(CommandId::NULL, ballot(2, 3), 10);
    let id = snapshot(&other[3]);
    // Declared, and pinned by the precedent of what is declared.
    for known in [3, 4] {
        let mut learner = behind(&c);
        learner.handle(success(b, c[known].id, &c[known..=known]), at(0));
        let reason = contradiction(2, other[3].id, c[3].id);
        assert_eq!(learner.handle(sends(2, id, Some(first())), at(1)), ignored(reason));
    }
    // What we know comes after the first piece.
    let mut learner = half_way(&c, id);
    let effects = learner.handle(success(b, c[3].id, &c[3..4]), at(3));
    let reason = contradiction(2, other[3].id, c[3].id);
    assert_eq!(effects, [Effect::Ignored(reason), Effect::DropStaged, fetches_any(3)]);

    // At the number of our last command, and below.
    let mut learner = behind(&c);
    assert_eq!(learner.handle(answer(3, &c[..4], c[9].id), at(1)), [applies(&c[..4]), asks(3, 5)]);
    let reason = contradiction(2, other[3].id, c[3].id);
    assert_eq!(learner.handle(sends(2, id, Some(first())), at(2)), ignored(reason));
    for number in [2, 3] {
        let effects = learner.handle(sends(2, snapshot(&c[number]), Some(first())), at(2));
        assert_eq!(effects, ignored(IgnoreReason::AlreadyIssued));
    }
}

/// A12: catches a panic, or a belief, on what no node of ours sends, and on what comes twice or late.
#[test]
fn strange_and_late_pieces_are_ignored() {
    let c = chain(10);
    let (id, other) = (snapshot(&c[9]), snapshot(&c[8]));
    let mut learner = half_way(&c, id);
    let mut takes = |input, reason| assert_eq!(learner.handle(input, at(3)), ignored(reason));
    takes(sends(9, id, Some(last())), IgnoreReason::Stranger);
    takes(sends(3, id, Some(last())), IgnoreReason::NotAsked);
    takes(sends(2, id, Some(first())), IgnoreReason::NotNext);
    takes(sends(2, other, Some(first())), IgnoreReason::NotNext);
    takes(sends(2, other, None), IgnoreReason::Forgotten);
    takes(sends(2, id, Some(piece(place("k"), Some(place("k"))))), IgnoreReason::Malformed);
    let empty = SnapshotPiece { from: place("k"), records: vec![], next: Some(place("l")) };
    takes(sends(2, id, Some(empty)), IgnoreReason::Malformed);
    let nowhere = SnapshotId { at: CommandId::new(Ballot::NONE, CommandNumber(9)), digest: [0; 32] };
    takes(sends(2, nowhere, Some(first())), IgnoreReason::Malformed);
    assert_eq!(learner.handle(sends(2, id, Some(last())), at(4)), stages(2, id, last()));
    assert_eq!(learner.handle(sends(2, id, Some(last())), at(5)), ignored(IgnoreReason::NotAsked));
}
