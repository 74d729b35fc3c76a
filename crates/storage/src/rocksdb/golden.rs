//! Recorded keys and records of format 2. Every later version must read them.
//!
//! To record a new kind: add it to `all` under a new name, run the test, which fails and prints its line, and add that
//! line to `tests/golden/format-2.txt`. Never change a line that is there: if one no longer passes, the new encoding is
//! what is wrong, and needs a format of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use protocol::{
    Ballot, ClusterId, Command, CommandId, CommandNumber, Fingerprint, NodeId, Position, RequestId, SnapshotId,
    StoredOutcome, Timestamp, Verdict, Vote,
};

use super::keys::{self, Generation, LogKey, Meta};
use super::mark::{DiskId, Mark, Noted};
use super::record::{self, Head, Place};
use crate::digest::{self, Sum};
use crate::{Identity, Staged, Standing};

const RECORDED: &str = include_str!("../../tests/golden/format-2.txt");

fn command() -> Command {
    let id = |round, number| CommandId::new(Ballot::new(round, NodeId(2)), CommandNumber(number));
    Command { id: id(0x0101, 7), precedent: id(1, 6), body: Bytes::from_static(b"body") }
}

fn outcome(verdict: Verdict) -> StoredOutcome {
    StoredOutcome { command: CommandNumber(9), fingerprint: Fingerprint([5; 16]), verdict, time: Timestamp(77) }
}

/// Keys, which must only be written alike.
fn keys() -> Vec<(&'static str, Vec<u8>)> {
    let caller = RequestId::caller("r1").expect("a request id");
    let aged = |request| keys::by_time(&request, &outcome(Verdict::Changed(Bytes::new()))).to_vec();
    vec![
        ("log key identity", LogKey::Identity.to_bytes()),
        ("log key last_tried", LogKey::LastTried.to_bytes()),
        ("log key next_ballot", LogKey::NextBallot.to_bytes()),
        ("log key writes", LogKey::Writes.to_bytes()),
        ("log key state_durable", LogKey::StateDurable.to_bytes()),
        ("log key forgotten", LogKey::Forgotten.to_bytes()),
        ("log key standing", LogKey::Standing.to_bytes()),
        ("log key mark", LogKey::Mark.to_bytes()),
        ("log key vote", LogKey::Vote(CommandNumber(0x0102)).to_bytes()),
        ("meta key identity", Meta::Identity.to_bytes().to_vec()),
        ("meta key log_writes", Meta::LogWrites.to_bytes().to_vec()),
        ("meta key head", Meta::Head.to_bytes().to_vec()),
        ("meta key staged", Meta::Staged.to_bytes().to_vec()),
        ("key of generation 0", Generation::default().key(b"stock/A")),
        ("key of generation 1", Generation::default().other().key(b"stock/A")),
        ("command key", keys::of_number(CommandNumber(0x0102)).to_vec()),
        ("request of a caller", caller.to_bytes().to_vec()),
        ("request of a gateway", RequestId::Gateway(0x0102).to_bytes().to_vec()),
        ("age of a caller's outcome", aged(caller)),
        ("age of a gateway's outcome", aged(RequestId::Gateway(0x0102))),
    ]
}

/// A record's name, how it is written now, and whether bytes are read as it.
type Recorded = (&'static str, Vec<u8>, fn(&[u8]) -> bool);

fn mark(voted_under: u64) -> Mark {
    let noted = Noted { disk: DiskId([6; 16]), starts: 2, run: 0x0405, promise: Ballot::new(0x0102, NodeId(3)) };
    Mark {
        revision: 0x0102,
        identity: Identity {
            cluster: ClusterId([7; 16]),
            cluster_name: "shop".into(),
            node: NodeId(4),
            node_name: "n4".into(),
        },
        disk: DiskId([9; 16]),
        starts: 3,
        run: 0x0203,
        last_tried: Ballot::new(7, NodeId(4)),
        next_ballot: Ballot::new(0x0102, NodeId(3)),
        standing: Standing::Damaged,
        voted_under: CommandNumber(voted_under),
        votes_lost: Ballot::new(8, NodeId(1)),
        refused: Some("an old one".into()),
        peers: BTreeMap::from([(NodeId(1), noted)]),
    }
}

fn records() -> Vec<Recorded> {
    fn ballot() -> Ballot {
        Ballot::new(0x0102, NodeId(3))
    }
    fn vote() -> Vote {
        Vote { ballot: ballot(), command: command() }
    }
    fn place() -> Place {
        Place { before: 0x0102_0304, time: Timestamp(77) }
    }
    fn identity() -> Identity {
        let (cluster_name, node_name) = ("shop".to_owned(), "n4".to_owned());
        Identity { cluster: ClusterId([7; 16]), cluster_name, node: NodeId(4), node_name }
    }
    fn head() -> Head {
        let mut sum = Sum::default();
        sum.add(&digest::of_entry(b"stock/A", CommandNumber(7), b"5"));
        let (applied, dropped) = (command().id, CommandNumber(3));
        Head { applied, time: Timestamp(77), dropped, generation: Generation(1), sum }
    }
    fn staged(next: Option<Position>) -> Staged {
        Staged { id: SnapshotId { at: command().id, digest: [8; 32] }, next }
    }
    fn changed() -> StoredOutcome {
        outcome(Verdict::Changed(Bytes::from_static(b"{}")))
    }
    fn unchanged() -> StoredOutcome {
        outcome(Verdict::Unchanged(Bytes::from_static(b"{}")))
    }
    fn refused() -> StoredOutcome {
        outcome(Verdict::Refused { code: "not_enough".into(), message: "A has 1".into() })
    }
    fn more() -> Option<Position> {
        Some(Position(Bytes::from_static(b"\x01stock/B")))
    }
    let aged = digest::of_outcome(b"cr1", &changed());
    vec![
        ("ballot", record::ballot(ballot()), |bytes| record::read_ballot(bytes) == Ok(ballot())),
        ("counter", record::counter(u64::MAX), |bytes| record::read_counter(bytes) == Ok(u64::MAX)),
        ("vote", record::vote(&vote(), 0x0123_4567_89ab_cdef), |bytes| record::read_vote(bytes) == Ok(vote())),
        ("identity", record::identity(&identity()), |bytes| record::read_identity(bytes) == Ok(identity())),
        ("mark", record::mark(&mark(0)), |bytes| record::read_mark(bytes) == Ok(mark(0))),
        ("mark, after a change", record::mark(&mark(9)), |bytes| record::read_mark(bytes) == Ok(mark(9))),
        ("standing", record::standing(Standing::Fresh), |bytes| record::read_standing(bytes) == Ok(Standing::Fresh)),
        ("head", record::head(&head()), |bytes| record::read_head(bytes) == Ok(head())),
        ("staged, more", record::staged(&staged(more())), |bytes| record::read_staged(bytes) == Ok(staged(more()))),
        ("staged, all", record::staged(&staged(None)), |bytes| record::read_staged(bytes) == Ok(staged(None))),
        ("command", record::command(place(), &command()), |bytes| {
            record::read_command(bytes) == Ok((place(), command()))
        }),
        ("entry", record::entry(CommandNumber(7), b"5"), |bytes| {
            record::read_entry_parts(bytes) == Ok((CommandNumber(7), b"5"))
        }),
        ("outcome, changed", record::outcome(&changed()), |bytes| record::read_outcome(bytes) == Ok(changed())),
        ("outcome, unchanged", record::outcome(&unchanged()), |bytes| record::read_outcome(bytes) == Ok(unchanged())),
        ("outcome, refused", record::outcome(&refused()), |bytes| record::read_outcome(bytes) == Ok(refused())),
        ("aged", record::aged(&aged, b"cr1"), |bytes| {
            let hash = digest::of_outcome(b"cr1", &changed());
            record::read_aged(bytes) == Ok((hash, Bytes::from_static(b"cr1")))
        }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// S-15: catches a change of format 2 under stored data, and of what a digest is: a node of this version could not read
/// what an older one wrote, or would take its own state for another one.
#[test]
fn recorded_keys_and_records_are_read_and_written_as_ever() {
    let lines = RECORDED.lines().map(|line| line.split_once(": ").expect("a name and digits"));
    let mut recorded: BTreeMap<&str, &str> = lines.collect();
    let mut missing = String::new();
    for (name, written) in keys() {
        match recorded.remove(name) {
            Some(recorded) => assert_eq!(hex(&written), recorded, "{name} is written differently"),
            None => writeln!(missing, "{name}: {}", hex(&written)).expect("a String takes all"),
        }
    }
    for (name, written, reads) in records() {
        match recorded.remove(name) {
            Some(recorded) => {
                assert!(reads(&unhex(recorded)), "{name} reads differently");
                assert_eq!(hex(&written), recorded, "{name} is written differently");
            }
            None => writeln!(missing, "{name}: {}", hex(&written)).expect("a String takes all"),
        }
    }
    assert!(missing.is_empty(), "not recorded yet:\n{missing}");
    assert!(recorded.is_empty(), "recorded and tested no more: {recorded:?}");
}
