use std::fs;
use std::path::Path;

use protocol::{Ballot, ClusterId, CommandNumber, NodeId};

use super::*;
use crate::conformance::{body, command, put, vote};
use crate::rocksdb::mend::cut;
use crate::{LogImage, LogRecord, LogStore as _, StateStore as _};

const PROMISE: Ballot = Ballot { round: 9, node: NodeId(3) };
const TRIED: Ballot = Ballot { round: 7, node: NodeId(1) };

fn try_open(dir: &Path) -> Result<Stores, StorageError> {
    let identity =
        Identity { cluster: ClusterId([1; 16]), cluster_name: "test".into(), node: NodeId(1), node_name: "n1".into() };
    open(dir, &identity, &Options::default())
}

/// Opens with a cut after ever more steps, until nothing is cut any more; returns how many cuts there were. `check`
/// looks at what each start after a cut finds.
fn cut_everywhere(prepare: impl Fn(&Path), check: impl Fn(&Stores)) -> u32 {
    for steps in 0.. {
        let dir = tempfile::tempdir().expect("a temporary directory");
        prepare(dir.path());
        cut::after(Some(steps));
        let cut_short = try_open(dir.path());
        cut::after(None);
        let whole = match cut_short {
            Ok(stores) => {
                check(&stores);
                true
            }
            Err(StorageError::Failed(why)) => {
                assert!(why.contains("as it was told to"), "{why}");
                false
            }
            Err(other) => panic!("after {steps} steps: {other}"),
        };
        // Twice: what was mended stays so.
        check(&try_open(dir.path()).unwrap_or_else(|error| panic!("after {steps} steps: {error}")));
        check(&try_open(dir.path()).unwrap_or_else(|error| panic!("after {steps} steps: {error}")));
        for part in Part::BOTH {
            assert_eq!(mend::damaged(dir.path(), part).expect("readable"), None, "after {steps} steps");
        }
        if whole {
            return steps;
        }
    }
    unreachable!("a start has an end")
}

fn used(dir: &Path) {
    let stores = try_open(dir).expect("it opens");
    let records = [LogRecord::Standing(Standing::Sound), LogRecord::LastTried(TRIED), LogRecord::NextBallot(PROMISE)];
    stores.log.write(&records).expect("written");
    (1..=3).for_each(|number| stores.log.write(&[LogRecord::Vote(vote(1, number, "v"))]).expect("written"));
    stores.state.apply(&[command(1, &body(1, vec![put("k", "v")]))]).expect("applied");
    stores.state.sync().expect("synced");
}

/// S-13, ALICE: catches a start that is cut short while it mends a log, and after which the log is sound, the promise
/// lost, or nothing opens any more.
#[test]
fn a_mended_log_is_never_sound_wherever_it_was_cut() {
    let lose = |dir: &Path| {
        used(dir);
        fs::remove_dir_all(dir.join(LOG)).expect("removed");
    };
    let cuts = cut_everywhere(lose, |stores| {
        let image = stores.log.load(CommandNumber::NULL).expect("readable");
        assert_eq!((image.last_tried, image.next_ballot), (TRIED, PROMISE));
        assert_eq!((image.standing, image.votes), (Standing::Damaged, Vec::new()));
        assert_eq!(stores.log.mark().votes_lost, PROMISE);
        assert_eq!(stores.state.applied().number.0, 1);
    });
    assert!(cuts >= 4, "{cuts} cuts");
}

/// The same for a state, whose log goes on, and for both at once.
#[test]
fn a_mended_state_begins_anew_wherever_it_was_cut() {
    for both in [false, true] {
        let lose = |dir: &Path| {
            used(dir);
            fs::write(dir.join(STATE).join("CURRENT"), "nonsense").expect("written");
            if both {
                fs::write(dir.join(LOG).join("CURRENT"), "nonsense").expect("written");
            }
        };
        let cuts = cut_everywhere(lose, |stores| {
            let image = stores.log.load(CommandNumber::NULL).expect("readable");
            assert_eq!((image.last_tried, image.next_ballot), (TRIED, PROMISE));
            let (standing, votes) = if both { (Standing::Damaged, 0) } else { (Standing::Sound, 3) };
            assert_eq!((image.standing, image.votes.len()), (standing, votes));
            assert_eq!((stores.state.applied().number.0, stores.log.state_durable().0), (0, 0));
        });
        assert!(cuts >= 4, "{cuts} cuts");
    }
}

/// Catches a first start that was cut short and never ends, or leaves a disk that counts as an old one.
#[test]
fn a_first_start_is_finished_wherever_it_was_cut() {
    let cuts = cut_everywhere(
        |_| {},
        |stores| {
            let image = stores.log.load(CommandNumber::NULL).expect("readable");
            assert_eq!(image, LogImage { standing: Standing::Fresh, ..LogImage::default() });
        },
    );
    assert!(cuts >= 3, "{cuts} cuts");
}

/// S-11: catches a promise that is told while the file of the mark has it not: with the log it would be lost.
#[test]
fn a_promise_is_in_the_file_before_it_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = try_open(dir.path()).expect("it opens");
    let aside = dir.path().join("MARK.new");
    fs::create_dir(&aside).expect("a directory in the way");
    let written = stores.log.write(&[LogRecord::NextBallot(PROMISE)]);
    assert!(matches!(written, Err(StorageError::Failed(_))), "{written:?}");
    drop(stores);
    fs::remove_dir(&aside).expect("removed");
    let next = Ballot { round: PROMISE.round + 1, ..PROMISE };
    try_open(dir.path()).expect("it opens").log.write(&[LogRecord::NextBallot(next)]).expect("written");
    let mark::Found::Whole(mark) = mark::read(dir.path()).expect("readable") else { panic!("no mark") };
    assert_eq!(mark.next_ballot, next);
}

/// S-13, S-14: catches a write of several records of which a power cut takes some: an acceptor that is sound again,
/// and has forgotten up to where it must be silent again if its state is lost.
#[test]
fn a_write_that_changes_the_mark_is_whole_or_not_there_wherever_it_was_cut() {
    let durable = CommandNumber(3);
    let promise = Ballot { round: PROMISE.round + 1, ..PROMISE };
    let rejoins = [LogRecord::NextBallot(promise), LogRecord::Standing(Standing::Sound), LogRecord::Forget(durable)];
    for steps in 0.. {
        let dir = tempfile::tempdir().expect("a temporary directory");
        used(dir.path());
        fs::remove_dir_all(dir.path().join(LOG)).expect("removed");
        let stores = try_open(dir.path()).expect("it begins a new log");
        cut::after(Some(steps));
        let written = stores.log.write(&rejoins);
        cut::after(None);
        drop(stores);
        for start in 1..=2 {
            let log = try_open(dir.path()).expect("it opens").log;
            let image = log.load(CommandNumber::NULL).expect("readable");
            let mark = log.mark();
            let found = (image.standing, image.next_ballot, image.forgotten);
            assert_eq!((mark.standing, mark.next_ballot), (found.0, found.1));
            let before = (Standing::Damaged, PROMISE, CommandNumber::NULL);
            let after = (Standing::Sound, promise, durable);
            assert!(found == after || found == before && written.is_err(), "{found:?} at start {start}, {steps} steps");
        }
        if written.is_ok() {
            assert!(steps > 0, "nothing was cut");
            return;
        }
    }
}

/// Catches a write with a promise that is not counted among the writes: every node that is killed after it would find
/// its log damaged.
#[test]
fn a_log_with_promises_between_its_writes_is_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = try_open(dir.path()).expect("it opens");
    stores.log.write(&[LogRecord::NextBallot(PROMISE)]).expect("written");
    stores.log.write(&[LogRecord::Forget(CommandNumber(1))]).expect("written");
    drop(stores);
    drop(try_open(dir.path()).expect("it opens"));
    assert!(!dir.path().join("log.damaged-1").exists(), "it was begun anew");
}

/// Catches a position that goes back: others would take the disk for an old copy.
#[test]
fn a_position_never_goes_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = try_open(dir.path()).expect("it opens");
    let ballot = vote(1, 1, "v").ballot;
    stores.log.write(&[LogRecord::NextBallot(ballot)]).expect("written");
    (1..=5).for_each(|number| stores.log.write(&[LogRecord::Vote(vote(1, number, "v"))]).expect("written"));
    let position = stores.log.position();
    assert_eq!((position.promise, position.voted.0), (ballot, 5));
    stores.log.write(&[LogRecord::Forget(CommandNumber(5))]).expect("written");
    drop(stores);
    let stores = try_open(dir.path()).expect("it opens");
    assert!(stores.log.position() >= position, "{:?}", stores.log.position());
    stores.log.write(&[LogRecord::NextBallot(PROMISE)]).expect("written");
    assert!(stores.log.position() > position);
}

/// Catches a MARK that may be whole, and counts as damaged or not there since something else keeps it from being read.
#[test]
fn what_is_in_the_way_of_a_mark_is_no_damage() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    used(dir.path());
    fs::rename(dir.path().join("MARK"), dir.path().join("kept")).expect("moved");
    fs::create_dir(dir.path().join("MARK")).expect("made");
    let refused = try_open(dir.path()).map(drop).expect_err("it is in the way");
    assert!(matches!(&refused, StorageError::Failed(why) if why.contains("MARK")), "{refused}");
    assert!(refused.to_string().contains("Remove what is in its way"), "{refused}");
    fs::remove_dir(dir.path().join("MARK")).expect("removed");
    fs::rename(dir.path().join("kept"), dir.path().join("MARK")).expect("moved");
    try_open(dir.path()).expect("it opens");
}
