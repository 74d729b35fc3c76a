//! States that are copied: checkpoints, pieces, staging, installing.

use bytes::Bytes;
use protocol::{Command, CommandId, CommandNumber, Position, SnapshotId, SnapshotPiece, SnapshotRecord, Timestamp};

use super::{Disk, apply, body, command, delete, digest, keys, put, simple, value};
use crate::{Checkpoint, Installation, Staged, StateStore};

/// Commands with puts, deletions and forgetting, whose state has entries and outcomes of both kinds. A state that is
/// copied after some of them must go on through the others as the one that applied them all.
#[must_use]
pub fn eventful(count: u64) -> Vec<Command> {
    let one = |number: u64| {
        let effects = match number % 5 {
            0 => vec![delete(&format!("k{}", number - 3)), put("last", number.to_string())],
            1 => vec![],
            _ => vec![put(&format!("k{number}"), vec![b'v'; usize::try_from(number % 7).expect("small") * 10])],
        };
        let mut body = body(number, effects);
        if number.is_multiple_of(3) {
            body.request = protocol::RequestId::Gateway(number.into());
        }
        body.forget.callers = Timestamp(number.saturating_sub(20));
        body.forget.gateways = Timestamp(number.saturating_sub(9));
        command(number, &body)
    };
    (1..=count).map(one).collect()
}

/// All pieces of a checkpoint, each of about so many bytes.
#[must_use]
pub fn pieces(checkpoint: &dyn Checkpoint, bytes: usize) -> Vec<SnapshotPiece> {
    let mut pieces = Vec::new();
    let mut next = Some(Position::default());
    while let Some(from) = next {
        let piece = checkpoint.piece(&from, bytes).expect("the checkpoint is readable");
        assert_eq!(piece.from, from, "a piece begins where it was asked to");
        next = piece.next.clone();
        pieces.push(piece);
    }
    pieces
}

/// Stages and installs a copy of a state in another store.
///
/// # Panics
/// When either store fails.
pub fn copy(from: &dyn StateStore, to: &dyn StateStore, bytes: usize) -> Installation {
    let checkpoint = from.checkpoint().expect("a checkpoint");
    stage(to, checkpoint.id(), &pieces(&*checkpoint, bytes));
    to.install().expect("a snapshot is installed or refused")
}

fn stage(state: &dyn StateStore, id: SnapshotId, pieces: &[SnapshotPiece]) {
    pieces.iter().for_each(|piece| state.stage(id, piece).expect("a piece is staged"));
    assert_eq!(state.staged(), Some(Staged { id, next: None }));
}

/// Everything that a state shows.
fn picture(state: &dyn StateStore) -> (SnapshotId, Timestamp, Vec<String>, [u8; 32]) {
    let names = keys(state, "", None, 9_999);
    (state.digest(), state.time(), names, digest(state))
}

/// S-33: catches a digest that is not that of all records, or not of the number that comes with it.
pub fn the_digest_is_kept_with_every_command(disk: Disk<'_>) {
    let mut opened = disk();
    assert_eq!(opened.state.digest().digest, digest(&*opened.state), "of an empty state");
    let mut seen = vec![opened.state.digest().digest];
    for (at, batch) in eventful(60).chunks(4).enumerate() {
        apply(&*opened.state, batch);
        let kept = opened.state.digest();
        assert_eq!((kept.at, kept.digest), (batch.last().expect("a batch").id, digest(&*opened.state)));
        assert!(!seen.contains(&kept.digest), "two states with one digest");
        seen.push(kept.digest);
        if at % 5 == 4 {
            drop(opened);
            opened = disk();
            assert_eq!(opened.state.digest(), kept, "after a restart");
        }
    }
}

/// A4, A14: catches a checkpoint that later writes change, that lacks records or has some twice, or is of another
/// state than it says.
pub fn a_checkpoint_stays_as_it_was(disk: Disk<'_>) {
    let opened = disk();
    let empty = opened.state.checkpoint().expect("a checkpoint");
    let all = eventful(60);
    apply(&*opened.state, &all[..40]);
    let (before, names) = (opened.state.digest(), keys(&*opened.state, "", None, 999));
    let checkpoint = opened.state.checkpoint().expect("a checkpoint");
    apply(&*opened.state, &all[40..]);
    assert_ne!(opened.state.digest(), before);
    assert_eq!(checkpoint.id(), before);
    for bytes in [0, 100, usize::MAX] {
        let pieces = pieces(&*checkpoint, bytes);
        assert_eq!(pieces.len() > 1, bytes < usize::MAX, "{bytes} bytes a piece");
        let records: Vec<SnapshotRecord> = pieces.iter().flat_map(|piece| piece.records.clone()).collect();
        let entries = records.iter().filter_map(|record| match record {
            SnapshotRecord::Entry { key, .. } => Some(key.as_str().to_owned()),
            SnapshotRecord::Outcome { .. } => None,
        });
        assert_eq!(entries.collect::<Vec<_>>(), names);
        assert!(pieces.iter().all(|piece| bytes > 0 || piece.records.len() == 1), "one record at least, and no more");
        let estimate = usize::try_from(checkpoint.records()).expect("small");
        assert!(estimate >= records.len() / 2 && estimate <= 4 * records.len() + 100, "about {estimate} records");
    }
    assert_eq!(empty.id().at, CommandId::NULL);
    assert_eq!(pieces(&*empty, 100), [SnapshotPiece::default()], "an empty state is one empty piece");
}

/// A4, A14, S-18: catches an installed state that is not the one that was sent in everything that counts (number, time,
/// entries, outcomes and their ages), that keeps something of the old one, claims commands that it does not have, or
/// goes on differently from a replica that applied every command.
pub fn an_installed_state_is_the_one_that_was_sent(sender: Disk<'_>, receiver: Disk<'_>) {
    let all = eventful(120);
    let source = sender().state;
    apply(&*source, &all[..80]);
    let opened = receiver();
    apply(&*opened.state, &all[..13]);
    assert_eq!(copy(&*source, &*opened.state, 200), Installation::Done(all[79].id));
    let check = |state: &dyn StateStore| {
        assert_eq!(picture(state), picture(&*source));
        assert_eq!((state.applied(), state.durable().0, state.kept_from().0), (all[79].id, 80, 81));
        assert_eq!(state.commands(CommandNumber(13), 9, usize::MAX), Ok(None));
        assert_eq!(state.commands(CommandNumber(80), 9, usize::MAX), Ok(None));
        assert_eq!(state.commands(CommandNumber(81), 9, usize::MAX), Ok(Some(vec![])));
        assert_eq!(state.staged(), None);
    };
    check(&*opened.state);
    drop(opened);
    let opened = receiver();
    check(&*opened.state);
    // It goes on, and forgets the same outcomes at the same numbers.
    for (at, batch) in all[80..].chunks(3).enumerate() {
        apply(&*source, batch);
        if at % 2 == 0 {
            apply(&*opened.state, batch)
        } else {
            batch.iter().for_each(|c| apply(&*opened.state, std::slice::from_ref(c)))
        }
        assert_eq!(picture(&*opened.state), picture(&*source));
    }
    assert_eq!(opened.state.commands(CommandNumber(81), 99, usize::MAX), Ok(Some(all[80..].to_vec())));
    // And another one can be installed over it, and be sent on.
    let third = eventful(150);
    apply(&*source, &third[120..]);
    assert_eq!(copy(&*source, &*opened.state, 1_000), Installation::Done(third[149].id));
    assert_eq!(picture(&*opened.state), picture(&*source));
    assert_eq!(opened.state.checkpoint().expect("a checkpoint").id(), source.digest());
}

/// S-14, S-18: catches what was known of the old state and is told, or counted, of the one that took its place: an entry
/// that is another one there, one that is gone, one that was not there before. Nothing is opened anew in between.
pub fn nothing_of_the_old_state_is_remembered(sender: Disk<'_>, receiver: Disk<'_>) {
    let names = ["changed", "deleted", "made", "same"];
    let all = [
        vec![put("changed", "1"), put("deleted", "1"), put("made", "1"), put("same", "1")],
        vec![delete("made"), put("deleted", "2")],
        vec![put("changed", "3"), delete("deleted"), put("made", "3")],
        // Each of them meets each of these again: put where it is, deleted where it is, put where it is not.
        vec![put("changed", "4"), put("deleted", "4"), delete("made"), delete("same")],
        vec![delete("changed"), delete("deleted"), put("made", "5"), put("same", "5")],
    ];
    let all: Vec<_> = (1..).zip(all).map(|(number, effects)| command(number, &body(number, effects))).collect();
    let (source, state) = (sender().state, receiver().state);
    let entries = |state: &dyn StateStore| names.map(|name| value(state, name));
    apply(&*source, &all[..3]);
    apply(&*state, &all[..2]);
    assert_eq!(entries(&*state), [Some(("1".into(), 1)), Some(("2".into(), 2)), None, Some(("1".into(), 1))]);
    assert_eq!(copy(&*source, &*state, 200), Installation::Done(all[2].id));
    let after = [Some(("3".into(), 3)), None, Some(("3".into(), 3)), Some(("1".into(), 1))];
    assert_eq!(entries(&*state), after);
    for next in &all[3..] {
        apply(&*source, std::slice::from_ref(next));
        apply(&*state, std::slice::from_ref(next));
        assert_eq!((picture(&*state), entries(&*state)), (picture(&*source), entries(&*source)));
        assert_eq!(state.digest().digest, digest(&*state));
    }
}

/// A14: catches a transfer that begins anew after a restart, a state that changes before all is there, and pieces that
/// are taken twice or out of their order.
pub fn staging_goes_on_after_a_restart(sender: Disk<'_>, receiver: Disk<'_>) {
    let source = sender().state;
    apply(&*source, &eventful(50));
    let checkpoint = source.checkpoint().expect("a checkpoint");
    let (id, pieces) = (checkpoint.id(), pieces(&*checkpoint, 300));
    assert!(pieces.len() > 3);
    let mut opened = receiver();
    apply(&*opened.state, &simple(5));
    let mut before = picture(&*opened.state);
    for (at, piece) in pieces.iter().enumerate() {
        opened.state.stage(id, piece).expect("a piece is staged");
        let staged = Some(Staged { id, next: piece.next.clone() });
        assert_eq!(opened.state.staged(), staged);
        // Again, an earlier one, a later one, and a middle one of another snapshot: nothing comes of them.
        let other = SnapshotId { digest: [9; 32], ..id };
        let later = if at + 2 < pieces.len() { at + 2 } else { 0 };
        for (id, piece) in [(id, at), (id, 0), (id, later), (other, at.max(1))] {
            opened.state.stage(id, &pieces[piece]).expect("nothing to do");
        }
        assert_eq!((picture(&*opened.state), opened.state.staged()), (before.clone(), staged.clone()));
        drop(opened);
        opened = receiver();
        assert_eq!((picture(&*opened.state), opened.state.staged()), (before.clone(), staged), "after a restart");
        if at == 1 {
            apply(&*opened.state, &[command(6, &body(6, vec![put("k6", "v")]))]);
            before = picture(&*opened.state);
        }
    }
    assert_eq!(opened.state.install(), Ok(Installation::Done(id.at)));
    assert_eq!(picture(&*opened.state), picture(&*source));
}

/// A14: catches records of a snapshot that was given up among those of the next one, or of a later one.
pub fn another_snapshot_replaces_what_is_staged(sender: Disk<'_>, receiver: Disk<'_>) {
    let source = sender().state;
    let all = eventful(60);
    apply(&*source, &all[..30]);
    let first = source.checkpoint().expect("a checkpoint");
    apply(&*source, &all[30..]);
    let second = source.checkpoint().expect("a checkpoint");
    let (of_first, of_second) = (pieces(&*first, 300), pieces(&*second, 300));
    let opened = receiver();
    for piece in &of_first[..of_first.len() - 1] {
        opened.state.stage(first.id(), piece).expect("a piece is staged");
    }
    stage(&*opened.state, second.id(), &of_second);
    assert_eq!(opened.state.install(), Ok(Installation::Done(second.id().at)));
    assert_eq!(picture(&*opened.state), picture(&*source));
    // The same when it is dropped in between.
    opened.state.stage(first.id(), &of_first[0]).expect("a piece is staged");
    opened.state.drop_staged().expect("what is staged is dropped");
    opened.state.drop_staged().expect("nothing to drop");
    assert_eq!(opened.state.staged(), None);
    drop(opened);
    let opened = receiver();
    assert_eq!((opened.state.staged(), picture(&*opened.state)), (None, picture(&*source)));
    apply(&*source, &eventful(61)[60..]);
    assert_eq!(copy(&*source, &*opened.state, 300), Installation::Done(source.applied()));
    assert_eq!(picture(&*opened.state), picture(&*source));
}

/// S-18, S-33: catches a snapshot that becomes the state although a record of it is missing, changed or too many, or its
/// number is not that of its records; and one that brings the state back to an earlier number.
pub fn only_the_right_snapshot_is_installed(sender: Disk<'_>, receiver: Disk<'_>) {
    let source = sender().state;
    apply(&*source, &eventful(40));
    let checkpoint = source.checkpoint().expect("a checkpoint");
    let (id, good) = (checkpoint.id(), pieces(&*checkpoint, usize::MAX));
    let [good] = &good[..] else { panic!("one piece") };
    let opened = receiver();
    apply(&*opened.state, &simple(9));
    let before = picture(&*opened.state);
    let with = |change: &dyn Fn(&mut Vec<SnapshotRecord>)| {
        let mut piece = good.clone();
        change(&mut piece.records);
        (id, piece)
    };
    let at = |number: u64| SnapshotId { at: CommandId { number: CommandNumber(number), ..id.at }, ..id };
    let wrong = [
        with(&|records| drop(records.pop())),
        with(&|records| drop(records.remove(0))),
        with(&|records| {
            let SnapshotRecord::Entry { entry, .. } = &mut records[0] else { panic!("entries come first") };
            entry.value = Bytes::from_static(b"another");
        }),
        with(&|records| {
            let SnapshotRecord::Entry { entry, .. } = &mut records[0] else { panic!("entries come first") };
            entry.version = CommandNumber(39);
        }),
        with(&|records| {
            let Some(SnapshotRecord::Outcome { outcome, .. }) = records.last_mut() else {
                panic!("outcomes come last")
            };
            outcome.time = Timestamp(1);
        }),
        (SnapshotId { digest: [3; 32], ..id }, good.clone()),
        (at(41), good.clone()),
    ];
    for (id, piece) in &wrong {
        stage(&*opened.state, *id, std::slice::from_ref(piece));
        assert_eq!(opened.state.install(), Ok(Installation::Mismatch));
        assert_eq!((opened.state.staged(), picture(&*opened.state)), (None, before.clone()));
    }
    // Records out of order, or twice, are no piece of a snapshot: what is derived from each of them would not agree.
    for (_, piece) in [with(&|records| records.swap(0, 1)), with(&|records| records.insert(0, records[0].clone()))] {
        opened.state.stage(id, &piece).expect("nothing to do");
        assert_eq!(opened.state.staged(), None);
    }
    drop(opened);
    let opened = receiver();
    assert_eq!(picture(&*opened.state), before, "after a restart");
    stage(&*opened.state, id, std::slice::from_ref(good));
    assert_eq!(opened.state.install(), Ok(Installation::Done(id.at)));
    let newest = picture(&*opened.state);
    for old in [id, at(39)] {
        stage(&*opened.state, old, std::slice::from_ref(good));
        assert_eq!(opened.state.install(), Ok(Installation::Outdated));
        assert_eq!((opened.state.staged(), picture(&*opened.state)), (None, newest.clone()));
    }
    assert_eq!(newest, picture(&*source));
}

/// Our own broken state: an installation of less than a snapshot.
///
/// # Panics
/// Always, unless the store fails the test by installing a part.
pub fn a_part_is_never_installed(sender: Disk<'_>, receiver: Disk<'_>) {
    let source = sender().state;
    apply(&*source, &eventful(40));
    let checkpoint = source.checkpoint().expect("a checkpoint");
    let opened = receiver();
    opened.state.stage(checkpoint.id(), &pieces(&*checkpoint, 300)[0]).expect("a piece is staged");
    // Not a panic with the expected text, so that the test fails.
    assert!(opened.state.install().is_err(), "a part was installed");
}
