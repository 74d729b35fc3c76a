//! What a crash takes and what it leaves, in memory: the semantics that the simulator and the
//! tests of the roles rely on.

use protocol::{Ballot, CommandNumber, NodeId, Position, SnapshotId, StateView};
use quorate_storage::conformance::{body, command, eventful, key, pieces, put, vote};
use quorate_storage::memory::{Fault, MemoryLog, MemoryState};
use quorate_storage::{Installation, LogImage, LogRecord, LogStore, Standing, StateSnapshot, StateStore, StorageError};

fn commands(count: u64) -> Vec<protocol::Command> {
    (1..=count)
        .map(|number| command(number, &body(number, vec![put("k", vec![1; usize::try_from(number).expect("small")])])))
        .collect()
}

/// How the power fails around a write of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    BeforeWrite,
    BetweenWriteAndSync,
    /// The same, but only the process died.
    KilledBetweenWriteAndSync,
    AfterSync,
}

/// A6, S-11: catches a vote or promise that counted and is gone, and one that never counted and
/// is half there. The power is cut at every boundary of every write of a short history.
#[test]
fn a_power_cut_at_every_write_boundary_loses_nothing_that_counted() {
    let history: Vec<Vec<LogRecord>> = (1..=5)
        .map(|round| {
            vec![
                LogRecord::NextBallot(Ballot::new(round, NodeId(1))),
                LogRecord::Vote(vote(round, 1, "again")),
                LogRecord::Vote(vote(round, round + 1, "new")),
            ]
        })
        .collect();
    for cut in [Cut::BeforeWrite, Cut::BetweenWriteAndSync, Cut::KilledBetweenWriteAndSync, Cut::AfterSync] {
        for at in 0..history.len() {
            let log = MemoryLog::new();
            let mut counted = Vec::new();
            for batch in &history[..at] {
                log.write(batch).expect("written and synced");
                counted.extend_from_slice(batch);
            }
            match cut {
                Cut::BeforeWrite => log.fail_next(Fault::Write),
                Cut::BetweenWriteAndSync | Cut::KilledBetweenWriteAndSync => log.fail_next(Fault::Sync),
                Cut::AfterSync => {}
            }
            let written = log.write(&history[at]);
            assert_eq!(written.is_ok(), cut == Cut::AfterSync);
            if matches!(cut, Cut::AfterSync | Cut::KilledBetweenWriteAndSync) {
                counted.extend_from_slice(&history[at]);
            }
            if cut == Cut::KilledBetweenWriteAndSync {
                log.restart()
            } else {
                log.crash()
            }
            let expected = MemoryLog::new();
            expected.write(&counted).expect("written");
            let image = |log: &MemoryLog| log.load(CommandNumber::NULL).expect("readable");
            assert_eq!(image(&log), image(&expected), "{cut:?} at write {at}");
            log.write(&history[at]).expect("the restarted node writes again");
        }
    }
}

/// S-12: catches a store that works again after a failed write or sync, or gives another reason.
#[test]
fn the_first_failure_latches_the_log_shut() {
    for fault in [Fault::Write, Fault::Sync, Fault::Full] {
        let log = MemoryLog::new();
        log.write(&[LogRecord::Vote(vote(1, 1, "a"))]).expect("written");
        log.fail_next(fault);
        let reason = log.write(&[LogRecord::Vote(vote(1, 2, "b"))]).expect_err("told to fail");
        assert!(matches!(reason, StorageError::Failed(_)), "{reason}");
        assert_eq!(log.write(&[LogRecord::Vote(vote(1, 2, "b"))]), Err(reason.clone()));
        assert_eq!(log.write(&[]), Err(reason.clone()));
        assert_eq!(log.load(CommandNumber::NULL), Err(reason));
    }
}

/// S-12: the same for the state; what was synced before is still there after a start.
#[test]
fn the_first_failure_latches_the_state_shut() {
    let all = commands(3);
    for fault in [Fault::Write, Fault::Sync, Fault::Full] {
        let state = MemoryState::new();
        state.apply(&all[..1]).expect("applied");
        state.sync().expect("synced");
        state.fail_next(fault);
        let reason = match fault {
            Fault::Write | Fault::Full => state.apply(&all[1..]),
            Fault::Sync => state.apply(&all[1..]).and_then(|()| state.sync()),
        }
        .expect_err("told to fail");
        assert_eq!(state.apply(&all[1..]), Err(reason.clone()));
        assert_eq!(state.sync(), Err(reason.clone()));
        assert_eq!(state.commands(CommandNumber(1), 9, 9), Err(reason.clone()));
        assert_eq!(state.snapshot().err(), Some(reason));
        assert!(state.get(&key("k")).is_err());
        assert_eq!(state.durable().0, 1);
        state.crash();
        assert_eq!((state.applied().number.0, state.durable().0), (1, 1));
        state.apply(&all[1..]).expect("the restarted node applies again");
    }
}

/// A6, S-14: catches a crash that leaves anything but a prefix of the batches, above what was
/// synced, with number, effects, outcomes and commands of the same prefix.
#[test]
fn a_crash_leaves_the_synced_state_and_perhaps_more() {
    let all = commands(6);
    for kept in 0..=4 {
        let state = MemoryState::new();
        state.apply(&all[..2]).expect("applied");
        state.sync().expect("synced");
        for command in &all[2..5] {
            state.apply(std::slice::from_ref(command)).expect("applied");
        }
        let before = state.disk();
        state.crash_keeping(kept);
        let left = 2 + u64::try_from(kept.min(3)).expect("small");
        assert_eq!((state.applied().number.0, state.durable().0), (left, left));
        let expected = MemoryState::new();
        expected.apply(&all[..usize::try_from(left).expect("small")]).expect("applied");
        assert_eq!(*state.image(), *expected.image());
        let again = MemoryState::from_disk(before);
        assert_eq!(again.image().at().0, 5, "from a disk everything that was written is there");
    }
}

/// S-14, A14: catches anything but the old state, or the whole new one, when the power is cut between or within any two
/// steps of receiving a snapshot; the old one must take the rest of the snapshot, or all of it, afterwards.
#[test]
fn a_crash_while_a_snapshot_is_received_leaves_the_old_state_or_the_new_one() {
    let source = MemoryState::new();
    source.apply(&eventful(40)).expect("applied");
    let checkpoint = source.checkpoint().expect("a checkpoint");
    let (id, pieces) = (checkpoint.id(), pieces(&*checkpoint, 500));
    // The last step is the installation.
    for fault in [None, Some(Fault::Write), Some(Fault::Full), Some(Fault::Sync)] {
        for step in 0..=pieces.len() {
            for survives in [false, true] {
                let state = MemoryState::new();
                state.apply(&commands(3)).expect("applied");
                state.sync().expect("synced");
                pieces[..step].iter().for_each(|piece| state.stage(id, piece).expect("staged"));
                if let Some(fault) = fault {
                    state.fail_next(fault);
                }
                let installed = match pieces.get(step) {
                    Some(piece) => state.stage(id, piece).map(|()| false),
                    None => state.install().map(|_| true),
                };
                assert!(installed.is_ok() || fault.is_some());
                if survives {
                    state.restart()
                } else {
                    state.crash()
                }
                let last = step == pieces.len();
                let is_new = last && (fault.is_none() || (fault == Some(Fault::Sync) && survives));
                let expected = if is_new { source.digest() } else { digest_after(3) };
                assert_eq!(state.digest(), expected, "{fault:?} in step {step}, kept: {survives}");
                assert_eq!(state.durable(), expected.at.number);
                if !is_new {
                    assert!(survives || state.staged().is_none(), "pieces are not synced");
                    let begun = state.staged().map_or(Some(Position::default()), |staged| staged.next);
                    pieces.iter().skip_while(|piece| Some(&piece.from) != begun.as_ref()).for_each(|piece| {
                        state.stage(id, piece).expect("staged");
                    });
                    assert_eq!(state.install(), Ok(Installation::Done(id.at)));
                }
                state.crash();
                assert_eq!(state.digest(), source.digest(), "an installation is durable");
            }
        }
    }
}

fn digest_after(count: u64) -> SnapshotId {
    let state = MemoryState::new();
    state.apply(&commands(count)).expect("applied");
    state.digest()
}

/// A6, S-11: catches half a batch that is taken for a whole one after a power cut in the middle of
/// a write, and a whole one that is lost although the disk has it.
#[test]
fn a_torn_write_is_all_or_nothing() {
    let batch = [LogRecord::NextBallot(Ballot::new(2, NodeId(1))), LogRecord::Vote(vote(2, 1, "new"))];
    let before = LogRecord::Vote(vote(1, 1, "old"));
    for kept in 0..=batch.len() {
        for reaches_the_disk in [false, true] {
            let log = MemoryLog::new();
            log.write(std::slice::from_ref(&before)).expect("written");
            log.tear(&batch, kept);
            assert!(matches!(log.write(&batch), Err(StorageError::Failed(_))), "the power is gone");
            if reaches_the_disk {
                log.restart()
            } else {
                log.crash()
            }
            let expected = MemoryLog::new();
            expected.write(std::slice::from_ref(&before)).expect("written");
            if reaches_the_disk && kept == batch.len() {
                expected.write(&batch).expect("written");
            }
            let image = |log: &MemoryLog| log.load(CommandNumber::NULL).expect("readable");
            assert_eq!(image(&log), image(&expected), "{kept} of {} records", batch.len());
        }
    }
}

/// S-13, S-14: catches a damaged or misplaced vote that is read as if it were well, or taken for absent; and an
/// opening that does not say so, keeps some of the votes, or loses what the mark has, or the mark itself.
#[test]
fn a_damaged_vote_is_found_where_the_log_is_read_and_named_where_it_is_opened() {
    let votes: Vec<LogRecord> = (1..=3).map(|number| LogRecord::Vote(vote(1, number, "a"))).collect();
    for misdirected in [false, true] {
        let damage = |log: &MemoryLog, number| {
            if misdirected { log.misdirect(CommandNumber(number)) } else { log.rot(CommandNumber(number)) }
        };
        let log = MemoryLog::new();
        assert!(!damage(&log, 0), "there is nothing to damage");
        let ballot = |round| Ballot::new(round, NodeId(1));
        let voted_under = CommandNumber(4);
        let marked =
            [LogRecord::LastTried(ballot(7)), LogRecord::NextBallot(ballot(8)), LogRecord::VotedUnder(voted_under)];
        log.write(&marked).expect("written");
        log.write(&votes).expect("written");
        assert!(!damage(&log, 4));
        assert!(damage(&log, 2));
        assert!(matches!(log.load(CommandNumber::NULL), Err(StorageError::Corrupt(_))));
        log.crash();
        let (last_tried, next_ballot, standing) = (ballot(7), ballot(8), Standing::Damaged);
        let image = LogImage { last_tried, next_ballot, standing, voted_under, ..LogImage::default() };
        assert_eq!(log.load(CommandNumber::NULL), Ok(image.clone()));
        log.restart();
        assert_eq!(log.load(CommandNumber::NULL), Ok(image), "until it is said to be sound");
        log.write(&[LogRecord::Standing(Standing::Sound)]).expect("written");
        log.write(&votes).expect("written anew");
        log.restart();
        let mended = log.load(CommandNumber::NULL).expect("readable");
        assert_eq!((mended.votes.len(), mended.standing), (3, Standing::Sound));
    }
}
