//! Copies of a state on RocksDB: checkpoints of a busy state, and what a power cut meets while one is received.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use protocol::{
    ClusterId, Command, CommandId, CommandNumber, NodeId, Position, SnapshotId, SnapshotPiece, Space, Timestamp,
};
use quorate_storage::conformance::{eventful, pieces};
use quorate_storage::memory::MemoryState;
use quorate_storage::rocksdb::{Options, Stores, open};
use quorate_storage::{Identity, Installation, Retention, StateStore};

use support::copy;

fn opened(dir: &Path) -> Stores {
    let identity =
        Identity { cluster: ClusterId([1; 16]), cluster_name: "shop".into(), node: NodeId(1), node_name: "n1".into() };
    open(dir, &identity, &Options::default()).expect("the stores open")
}

/// The file that the state is written to.
fn log_of_state(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("state")).expect("a directory").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).max().expect("a log file")
}

/// A snapshot to send, and what its state is.
fn a_snapshot() -> (SnapshotId, Vec<SnapshotPiece>) {
    let source = MemoryState::new();
    source.apply(&eventful(60)).expect("applied");
    let checkpoint = source.checkpoint().expect("a checkpoint");
    (checkpoint.id(), pieces(&*checkpoint, 700))
}

/// Stages what is missing.
fn stage_the_rest(state: &dyn StateStore, id: SnapshotId, pieces: &[SnapshotPiece]) {
    let from = state.staged().map_or(Some(Position::default()), |staged| staged.next);
    pieces.iter().skip_while(|piece| Some(&piece.from) != from.as_ref()).for_each(|piece| {
        state.stage(id, piece).expect("staged");
    });
}

/// A6, A14, S-14: catches a state that changes, or a start that fails, when a power cut takes any part of the end of a
/// transfer; and pieces that count as received and are not there.
#[test]
fn a_transfer_that_a_power_cut_tears_goes_on() {
    let (id, pieces) = a_snapshot();
    let template = tempfile::tempdir().expect("a temporary directory");
    let stores = opened(template.path());
    stores.state.apply(&eventful(10)).expect("applied");
    stores.state.sync().expect("synced");
    let before = stores.state.digest();
    drop(stores);
    let stores = opened(template.path());
    pieces.iter().for_each(|piece| stores.state.stage(id, piece).expect("staged"));
    drop(stores);
    let length = usize::try_from(fs::metadata(log_of_state(template.path())).expect("a file").len()).expect("small");
    let mut begun = Vec::new();
    for torn in (0..=length).step_by(length / 12) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(template.path(), dir.path());
        let file = log_of_state(dir.path());
        let bytes = fs::read(&file).expect("readable");
        fs::write(&file, &bytes[..length - torn]).expect("written");
        let state = opened(dir.path()).state;
        assert_eq!(state.digest(), before, "{torn} of {length} bytes torn off");
        begun.push(state.staged().map(|staged| staged.next));
        stage_the_rest(&*state, id, &pieces);
        assert_eq!(state.install(), Ok(Installation::Done(id.at)), "{torn} of {length} bytes torn off");
        assert_eq!(state.digest(), id);
    }
    assert_eq!((begun.first(), begun.last()), (Some(&Some(None)), Some(&None)), "all of it and nothing were tried");
    begun.dedup();
    assert!(begun.len() > 4, "different places were cut: {begun:?}");
}

/// A6, S-14: catches a power cut in the middle of an installation that leaves neither the old state nor the new one.
#[test]
fn an_installation_is_whole_or_not_at_all() {
    let (id, pieces) = a_snapshot();
    let (dir, old) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let stores = opened(dir.path());
    stores.state.apply(&eventful(10)).expect("applied");
    stores.state.sync().expect("synced");
    let before = stores.state.digest();
    pieces.iter().for_each(|piece| stores.state.stage(id, piece).expect("staged"));
    // Nothing is written meanwhile, so the files are those of one moment.
    copy(dir.path(), old.path());
    assert_eq!(stores.state.install(), Ok(Installation::Done(id.at)));
    let (begun, whole) = (fs::read(log_of_state(old.path())), fs::read(log_of_state(dir.path())));
    let (begun, whole) = (begun.expect("readable").len(), whole.expect("readable"));
    assert!(begun < whole.len(), "the installation is at the end of the file");
    let cuts = (begun..whole.len()).step_by(40).chain([whole.len() - 1, whole.len()]);
    for cut in cuts {
        let torn = tempfile::tempdir().expect("a temporary directory");
        copy(old.path(), torn.path());
        fs::write(log_of_state(torn.path()), &whole[..cut]).expect("written");
        let state = opened(torn.path()).state;
        if cut == whole.len() {
            assert_eq!((state.digest(), state.staged(), state.durable()), (id, None, id.at.number));
            continue;
        }
        assert_eq!((state.digest(), state.staged().map(|staged| staged.next)), (before, Some(None)), "cut at {cut}");
        assert_eq!(state.install(), Ok(Installation::Done(id.at)));
        assert_eq!(state.digest(), id);
    }
}

/// A14: catches a checkpoint that stops writers, or is not of one moment, because they go on while it is made.
#[test]
fn a_checkpoint_of_a_busy_state_is_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = opened(dir.path()).state;
    let commands = eventful(3_000);
    let last = commands.last().expect("there are commands").id;
    thread::scope(|scope| {
        scope.spawn(|| commands.chunks(3).for_each(|batch| state.apply(batch).expect("applied")));
        let mut at = CommandId::NULL;
        while at != last {
            let before = state.applied().number;
            let checkpoint = state.checkpoint().expect("a checkpoint");
            at = checkpoint.id().at;
            assert!(at.number >= before, "what was applied before is in it");
            let model = MemoryState::new();
            model.apply(&commands[..usize::try_from(at.number.0).expect("small")]).expect("applied");
            assert_eq!(checkpoint.id(), model.digest());
            if at != CommandId::NULL {
                let copy = MemoryState::new();
                stage_the_rest(&copy, checkpoint.id(), &pieces(&*checkpoint, 2_000));
                assert_eq!(copy.install(), Ok(Installation::Done(at)), "a checkpoint that is not whole");
            }
        }
    });
}

/// Catches directories of checkpoints that stay, after their use or after a crash, and a checkpoint that goes with the
/// store.
#[test]
fn checkpoints_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = dir.path().join("checkpoints");
    let count = || fs::read_dir(&place).map_or(0, Iterator::count);
    let state = opened(dir.path()).state;
    state.apply(&eventful(20)).expect("applied");
    let (one, two) = (state.checkpoint().expect("a checkpoint"), state.checkpoint().expect("a checkpoint"));
    assert_eq!(count(), 2);
    drop(one);
    assert_eq!(count(), 1);
    drop(state);
    assert_eq!(two.piece(&Position::default(), 1_000_000).expect("readable").next, None);
    std::mem::forget(two);
    assert_eq!(count(), 1, "as after a crash");
    let state = opened(dir.path()).state;
    assert_eq!(count(), 0);
    drop(state.checkpoint().expect("a checkpoint"));
    assert_eq!(count(), 0);
}

/// Catches a reader that takes commands which are dropped, or are not there yet, for lost ones: that would shut the
/// store.
#[test]
fn a_list_of_commands_never_has_a_gap() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = opened(dir.path()).state;
    let commands = eventful(800);
    let (last, ten) = (commands.len() as u64, Retention { commands: 10, bytes: u64::MAX, since: Timestamp(0) });
    thread::scope(|scope| {
        scope.spawn(|| {
            for command in &commands {
                state.apply(std::slice::from_ref(command)).expect("applied");
                state.forget_commands(&ten, command.number()).expect("forgotten");
                match command.number().0 % 40 {
                    0 => state.reclaim(Space::Low).expect("given back"),
                    20 => state.reclaim(Space::Out).expect("given back"),
                    _ => {}
                }
            }
        });
        let mut seen = CommandNumber::NULL;
        while seen.0 < last {
            let from = state.kept_from();
            if let Some(found) = state.commands(from, 99, usize::MAX).expect("no gap") {
                assert!(found.first().is_none_or(|command| command.number() == from));
                seen = found.last().map_or(seen, Command::number);
            }
        }
    });
}
