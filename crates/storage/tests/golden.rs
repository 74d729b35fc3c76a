//! Recorded data directories of format 2: every later version must open them and show what is in them.
//!
//! To record one of a newer format: `cargo test -p quorate-storage --test golden -- --ignored` makes a directory where
//! none is, and a text of what it shows (which must be there, empty, for that). Never change one that is there.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use protocol::{Ballot, ClusterId, CommandNumber, NodeId, SnapshotRecord, StoredOutcome, Timestamp};
use quorate_storage::conformance::{eventful, pieces, vote};
use quorate_storage::memory::MemoryState;
use quorate_storage::rocksdb::{Options, Stores, open};
use quorate_storage::{Identity, LogRecord, LogStore as _, Retention, Standing, StateStore};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
/// A directory that was recorded.
struct Recorded {
    name: &'static str,
    /// What it shows.
    shows: &'static str,
    /// How often it was started when it was recorded; 0 for one without a mark.
    starts: u64,
    has_tables: bool,
}

/// One of the first versions, without a mark.
const WITHOUT_MARK: Recorded =
    Recorded { name: "directory-2", shows: include_str!("golden/directory-2.txt"), starts: 0, has_tables: false };
/// One with all that there was when the mark came.
const WITH_MARK: Recorded = Recorded {
    name: "directory-2-mark",
    shows: include_str!("golden/directory-2-mark.txt"),
    starts: 1,
    has_tables: false,
};
/// The same, in tables. They name the machine that wrote them, which harms nobody.
const WITH_TABLES: Recorded = Recorded {
    name: "directory-2-tables",
    shows: include_str!("golden/directory-2-tables.txt"),
    starts: 2,
    has_tables: true,
};

/// How a table names its compression.
const LZ4: &[u8] = b"BuiltinV2;04;";

fn opened(dir: &Path) -> Stores {
    let identity = Identity {
        cluster: ClusterId([7; 16]),
        cluster_name: "golden".into(),
        node: NodeId(1),
        node_name: "n1".into(),
    };
    open(dir, &identity, &Options::default()).expect("the stores open")
}

/// Everything in the stores, as text.
fn shown(stores: &Stores) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes all");
    let image = stores.log.load(CommandNumber::NULL).expect("the log is readable");
    line(format!("last tried {}, promised {}, forgotten {}", image.last_tried, image.next_ballot, image.forgotten));
    for vote in image.votes {
        line(format!(
            "vote in {} for {} after {}: {:?}",
            vote.ballot, vote.command.id, vote.command.precedent, vote.command.body
        ));
    }
    let state: &dyn StateStore = &*stores.state;
    line(format!(
        "applied {} at {}, durable {}, kept from {}",
        state.applied(),
        state.time(),
        state.durable(),
        state.kept_from()
    ));
    line(format!("digest {}", state.digest().digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
    for piece in pieces(&*state.checkpoint().expect("a checkpoint"), usize::MAX) {
        for record in piece.records {
            line(match record {
                SnapshotRecord::Entry { key, entry } => format!("entry {key} of {}: {:?}", entry.version, entry.value),
                SnapshotRecord::Outcome { request, outcome } => {
                    let StoredOutcome { command, fingerprint, verdict, time } = outcome;
                    format!("outcome of {request} by {command} at {time}: {verdict:?}, asked {:?}", fingerprint.0)
                }
            });
        }
    }
    for command in state.commands(state.kept_from(), 99, usize::MAX).expect("readable").expect("kept") {
        line(format!("command {} after {}: {:?}", command.id, command.precedent, command.body));
    }
    let staged = state.staged().expect("something is staged");
    line(format!("staged {} up to {:?}", staged.id.at, staged.next.map(|next| next.0)));
    text
}

fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool + Copy) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("an ASCII name");
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to.join(name), wanted);
        } else if wanted(&name) {
            fs::copy(entry.path(), to.join(name)).expect("copied");
        }
    }
}

/// The tables of a database.
fn tables(database: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(database).expect("a directory").map(|entry| entry.expect("an entry").path());
    let tables = files.filter(|path| path.extension().is_some_and(|end| end == "sst"));
    tables.map(|path| fs::read(path).expect("readable")).collect()
}

/// S-15: catches a version that cannot open what an earlier one left, or shows something else; and which digest it keeps.
/// In tables, also one that lacks their compression, or orders a column differently.
#[test]
fn a_recorded_directory_shows_what_it_did() {
    for Recorded { name, shows, starts, has_tables } in [WITHOUT_MARK, WITH_MARK, WITH_TABLES] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(&Path::new(GOLDEN).join(name), dir.path(), |_| true);
        let has_mark = starts > 0;
        assert_eq!(dir.path().join("MARK").exists(), has_mark, "{name}");
        for database in ["log", "state"] {
            assert_eq!(!tables(&dir.path().join(database)).is_empty(), has_tables, "{database} of {name}");
        }
        let compressed = |table: &Vec<u8>| table.windows(LZ4.len()).any(|window| window == LZ4);
        assert_eq!(tables(&dir.path().join("state")).iter().any(compressed), has_tables, "{name}");
        let stores = opened(dir.path());
        assert_eq!(shown(&stores), shows, "{name}");
        let whole = stores.state.snapshot().and_then(|view| view.digest());
        assert_eq!(whole, Ok(stores.state.digest().digest));
        // It goes on, too.
        stores.state.apply(&eventful(40)[30..]).expect("applied");
        let model = MemoryState::new();
        model.apply(&eventful(40)).expect("applied");
        assert_eq!(stores.state.digest(), model.digest());
        // Where there was none, it is made from what is there, and the node need not be admitted.
        let mark = stores.log.mark();
        assert_eq!(
            (mark.standing, mark.starts, mark.next_ballot),
            (Standing::Sound, starts + 1, Ballot::new(3, NodeId(2)))
        );
        assert_eq!(mark.voted_under.0, if has_mark { 7 } else { 0 });
        assert!(dir.path().join("MARK").exists());
    }
}

#[test]
#[ignore = "records a directory"]
fn record_a_directory() {
    let place = Path::new(GOLDEN).join(WITH_TABLES.name);
    assert!(!place.exists(), "what is recorded stays as it is");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stores = opened(dir.path());
    let state = &stores.state;
    eventful(30).chunks(4).for_each(|batch| state.apply(batch).expect("applied"));
    state.sync().expect("synced");
    let retention = Retention { commands: 8, bytes: u64::MAX, since: Timestamp(0) };
    state.forget_commands(&retention, CommandNumber(30)).expect("forgotten");
    let source = MemoryState::new();
    source.apply(&eventful(60)).expect("applied");
    let checkpoint = source.checkpoint().expect("a checkpoint");
    state.stage(checkpoint.id(), &pieces(&*checkpoint, 300)[0]).expect("staged");
    let mut records = vec![
        LogRecord::Standing(Standing::Sound),
        LogRecord::LastTried(Ballot::new(2, NodeId(1))),
        LogRecord::NextBallot(Ballot::new(3, NodeId(2))),
        LogRecord::VotedUnder(CommandNumber(7)),
    ];
    records.extend((1..=32).map(|number| LogRecord::Vote(vote(1, number, "a body"))));
    stores.log.write(&records).expect("written");
    stores.log.write(&[LogRecord::Forget(CommandNumber(29))]).expect("written");
    drop(stores);
    // A start writes what the log files held into tables.
    drop(opened(dir.path()));
    // What nobody needs is left out.
    let wanted = |name: &str| !["LOCK", "LOG", "OPTIONS"].iter().any(|part| name.starts_with(part));
    copy(dir.path(), &place, wanted);
    fs::write(place.with_extension("txt"), shown(&opened(dir.path()))).expect("written");
}
