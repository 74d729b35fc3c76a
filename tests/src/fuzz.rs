//! Fuzz targets: what must hold for bytes from outside, whatever they are. `fuzz/` feeds them to
//! `cargo fuzz`, and the test `fuzz_corpus` replays the corpus with every test run.
//!
//! A body that needs what a crate keeps to itself stands in that crate, in its module `fuzz`; the
//! others stand here. They panic when something does not hold. How much is allocated is not seen
//! here: the replay counts it, and `cargo xtask fuzz` gives the fuzzer a limit.

use std::path::PathBuf;

use bytes::Bytes;
use functions::{Cluster, ExecutionContext, Failure, Heard, Registry};
use protocol::{
    Ballot, Command, CommandBody, CommandId, CommandNumber, Entry, Fingerprint, Forget, Membership, NodeId, RequestId,
    Timestamp, Verdict,
};
use storage::StateStore as _;
use storage::memory::MemoryState;

mod backup;
mod configuration;
mod sealed;

pub use backup::backup_file;
pub use configuration::configuration;
pub use http_api::fuzz::{rest_body, rest_head};
pub use sealed::sealed_file;
pub use storage::rocksdb::fuzz::{log_file, stored_record};
pub use transport::fuzz::{frames, handshake, message};

/// A target's name, which is that of its file in `fuzz/fuzz_targets` and of its directory in
/// `fuzz/corpus`, and what it feeds.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 13] = [
    ("backup_file", backup_file),
    ("command_body", command_body),
    ("configuration", configuration),
    ("frames", frames),
    ("function_calls", function_calls),
    ("handshake", handshake),
    ("log_file", log_file),
    ("membership", membership),
    ("message", message),
    ("rest_body", rest_body),
    ("rest_head", rest_head),
    ("sealed_file", sealed_file),
    ("stored_record", stored_record),
];

/// Acceptors of which all halves are looked at.
const HALVED_MAX: usize = 7;

/// The directory of the fuzz crate.
#[must_use]
pub fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"))
}

/// Bytes as the body of a command: refused, or read and then written as something that is read
/// alike.
///
/// # Panics
/// When a body changes: replicas would apply different commands.
pub fn command_body(bytes: &[u8]) {
    if let Ok(body) = CommandBody::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(CommandBody::decode(&body.encode()), Ok(body), "a body that changes");
    }
}

/// Bytes as a membership, as it stands in a state, a snapshot, a backup and the file `MEMBERSHIP`: refused, or read and then
/// written as one that is read alike, of which any two majority sets intersect (B2) and all members are a majority set.
///
/// # Panics
/// When that does not hold.
pub fn membership(bytes: &[u8]) {
    let read = |value| Membership::read(&Entry { value, version: CommandNumber(7) });
    let Ok(membership) = read(Bytes::copy_from_slice(bytes)) else { return };
    let again = read(membership.to_value()).expect("what was written can be read");
    assert_eq!(again, membership, "a membership that changes");
    let majority = membership.majority();
    let acceptors: Vec<NodeId> = majority.nodes().iter().copied().collect();
    assert!(majority.holds(|_| true), "all acceptors are no majority set");
    if acceptors.len() <= HALVED_MAX {
        for chosen in 0..1_u32 << acceptors.len() {
            let is_in =
                |node| acceptors.iter().position(|other| *other == node).is_some_and(|at| chosen >> at & 1 == 1);
            let disjoint = majority.holds(is_in) && majority.holds(|node| !is_in(node));
            assert!(!disjoint, "{chosen:b} of {acceptors:?} and the others");
        }
    }
}

/// Each line as a call, `function arguments`, one after the other on a state of their own: every
/// function comes to an end in every state, and only what it decided changes the state (B3). What
/// changes survives its encoding, and is the same on every replica.
///
/// # Panics
/// When that does not hold.
pub fn function_calls(bytes: &[u8]) {
    let registry = Registry::with_builtins();
    let (state, other) = (MemoryState::new(), MemoryState::new());
    let genesis = Membership::of_equals(3);
    for line in bytes.split(|byte| *byte == b'\n') {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (name, arguments) = line.split_at(space);
        let Some(function) = std::str::from_utf8(name).ok().and_then(|name| registry.get(name)) else { continue };
        let id = CommandId::new(Ballot::new(1, NodeId(1)), state.applied().number.next());
        let time = Timestamp(id.number.0);
        let well = || Heard::well(state.applied().number, genesis.learners());
        let heard = || genesis.learners().map(|node| (node, well())).collect();
        let cluster = Cluster { me: NodeId(1), membership: &genesis, heard: &heard, votes: &|_| true };
        let context = ExecutionContext::new(&state, time, id.number.0).of(cluster);
        let execution = functions::run(function.as_ref(), context, &Bytes::copy_from_slice(arguments));
        assert!(!matches!(execution.result, Err(Failure::Panicked(_) | Failure::State(_))), "{:?}", execution.result);
        let Ok(verdict) = execution.verdict().map_err(|_| assert!(execution.effects.is_empty())) else { continue };
        if let Verdict::Changed(result) | Verdict::Unchanged(result) = &verdict {
            assert!(serde_json::from_slice::<serde_json::Value>(result).is_ok(), "a result that is no JSON");
        }
        let body = CommandBody {
            time,
            request: RequestId::Gateway(id.number.0.into()),
            fingerprint: Fingerprint::default(),
            function: function.name().to_owned(),
            verdict,
            effects: execution.effects,
            forget: Forget::default(),
        };
        let command = Command { id, precedent: state.applied(), body: body.encode() };
        assert_eq!(CommandBody::decode(&command.body), Ok(body), "a body that changes");
        for state in [&state, &other] {
            state.apply(std::slice::from_ref(&command)).expect("memory does not fail");
        }
    }
    let digest = |state: &MemoryState| state.snapshot().and_then(|snapshot| snapshot.digest());
    assert_eq!(digest(&state), digest(&other), "replicas that differ");
}
