//! A backup file, from bytes in place of what a node sends or a disk holds.
//!
//! Backups belong to the binary, on which nothing depends, so the source that reads them is taken in here a second time.

use protocol::{CommandId, SnapshotId};
use storage::memory::MemoryState;
use storage::{Installation, StateStore as _};

#[cfg_attr(not(test), expect(dead_code, reason = "the target reads files; a node also writes them"))]
#[path = "../../../crates/quorate/src/backup/format.rs"]
mod format;
#[path = "../../../crates/quorate/src/backup/verify.rs"]
mod verify;

#[cfg(test)]
use format::Reader;
use format::{BackupError, Manifest, Writer};
use verify::{Kept, verify};

/// Bytes as a backup file; and as the frames of one, each a kind, a length of two bytes and a content, whose seals fit.
/// What is refused is refused in one line and before anything is written; what is taken is read alike a second time, and
/// a state store takes it whole.
///
/// # Panics
/// When that does not hold.
pub fn backup_file(bytes: &[u8]) {
    judge(bytes);
    judge(&sealed(bytes));
}

fn sealed(mut bytes: &[u8]) -> Vec<u8> {
    let (mut writer, mut file) = Writer::bare();
    while let [kind, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (content, left) = rest.split_at(length);
        file.extend_from_slice(&writer.frame(*kind, content));
        bytes = left;
    }
    file
}

fn judge(file: &[u8]) {
    let mut reached = 0;
    let (manifest, id) = match verify(file, &mut |bytes| reached = bytes) {
        Ok(judged) => judged,
        Err(why) => return assert!(!why.to_string().contains('\n'), "more than one line: {why}"),
    };
    assert!(reached <= file.len() as u64, "more is read than there is");
    restore(file, &manifest, id).expect("it was read once");
}

/// As `quorate restore` does it.
fn restore(file: &[u8], manifest: &Manifest, id: SnapshotId) -> Result<(), BackupError> {
    let state = MemoryState::new();
    let (mut pieces, again) = Kept::open(file)?;
    assert_eq!(again, *manifest);
    while let Some(piece) = pieces.piece()? {
        state.stage(id, &piece).expect("memory does not fail");
    }
    assert!(pieces.bytes() <= file.len() as u64, "more is read than there is");
    assert!(state.staged().is_some_and(|staged| staged.next.is_none()), "a piece was left aside");
    let done = state.install().expect("memory does not fail");
    let nothing = id.at == CommandId::NULL && done == Installation::Outdated;
    assert!(nothing || done == Installation::Done(id.at), "{done:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;
    use protocol::message::Snapshot;
    use protocol::{
        Ballot, Command, CommandBody, CommandNumber, Effect, Fingerprint, Forget, Key, Membership, NodeId, Position,
        RequestId, Timestamp, Verdict, membership,
    };

    use super::*;

    /// The backup of a state with these keys and a membership, each record in a piece of its own.
    fn written(keys: &[&str]) -> Vec<u8> {
        let state = MemoryState::new();
        let value = |key: &str| (Key::new(key).expect("a key"), Bytes::from_static(b"v"));
        let entries =
            keys.iter().map(|key| value(key)).chain([(membership::key(), Membership::of_equals(3).to_value())]);
        let body = CommandBody {
            time: Timestamp(1_767_225_600_000),
            request: RequestId::Caller("order-17".to_owned()),
            fingerprint: Fingerprint::default(),
            function: "kv.put".to_owned(),
            verdict: Verdict::Changed(Bytes::from_static(b"{}")),
            effects: entries.map(|(key, value)| Effect::Put { key, value }).collect(),
            forget: Forget::default(),
        };
        let id = CommandId::new(Ballot::new(3, NodeId(1)), CommandNumber(1));
        state.apply(&[Command { id, precedent: CommandId::NULL, body: body.encode() }]).expect("memory does not fail");
        let checkpoint = state.checkpoint().expect("memory does not fail");
        let (id, records) = (checkpoint.id(), checkpoint.records());
        let manifest = Manifest {
            version: "0.1.0".to_owned(),
            cluster: "demo".to_owned(),
            cluster_id: "00".to_owned(),
            node: "a".to_owned(),
            made: "2026-01-01T00:00:00Z".to_owned(),
            consistency: "linearizable".to_owned(),
            command: id.at.number.0,
            ballot: (id.at.ballot.round, id.at.ballot.node.0),
            digest: verify::hex(&id.digest),
            records,
        };
        let (mut writer, begin) = Writer::begin(&manifest);
        let (mut file, mut from) = (begin.to_vec(), Some(Position::default()));
        while let Some(position) = from {
            let piece = checkpoint.piece(&position, 1).expect("memory does not fail");
            from = piece.next.clone();
            file.extend_from_slice(&writer.piece(Snapshot { id, records, piece: Some(piece) }));
        }
        file.extend_from_slice(&writer.end());
        file
    }

    fn restored(file: &[u8]) {
        let (manifest, id) = verify(file, &mut |_| {}).expect("a whole file");
        restore(file, &manifest, id).expect("it was read once");
    }

    /// Catches a backup that cannot be restored because its membership, which is not restored, is all there is in a
    /// piece: the first one, one between others.
    #[test]
    fn a_membership_in_a_piece_of_its_own_is_left_out() {
        restored(&written(&["a", "z"]));
        restored(&written(&["z"]));
        restored(&written(&["a"]));
        restored(&written(&[]));
    }

    /// Catches a file without pieces that is taken for a state.
    #[test]
    fn a_file_without_pieces_is_refused() {
        let (_, manifest) = Reader::open(&written(&["a"])[..]).expect("a whole file");
        let nothing = storage::Digest::default().finish();
        let (writer, begin) = Writer::begin(&Manifest { digest: verify::hex(&nothing), ..manifest });
        let file = [begin, writer.end()].concat();
        assert!(verify(&file[..], &mut |_| {}).is_err());
        backup_file(&file);
    }

    /// Catches a whole file in the corpus that is of another layout than what nodes write. `UPDATE_GOLDENFILES=1` writes
    /// it anew.
    #[test]
    fn the_whole_file_of_the_corpus_is_one_that_nodes_write() {
        let path = crate::fuzz::directory().join("corpus/backup_file/whole");
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            fs::write(&path, written(&["a", "z"])).expect("the corpus can be written");
        }
        assert!(fs::read(&path).expect("the whole file") == written(&["a", "z"]), "{} is another one", path.display());
    }
}
