//! Stable storage.
//!
//! Two kinds of data under two disciplines (DESIGN 8):
//!
//! - the *log*: promises, votes and `last_tried`. Durable before anything that depends on it
//!   is sent ([`LogStore::write`] returns after the sync);
//! - the *state*: the state machine M, the list of issued commands, stored outcomes. It can be
//!   rebuilt from the log above what was last synced, so it is written without a sync per
//!   command; "applied up to" is in the same atomic write as the effects that it covers.
//!
//! Neither grows for ever. Votes may go once a majority of learners has their commands in a
//! durable state ([`LogRecord::Forget`]); commands, once nobody is to be helped with them
//! ([`StateStore::forget_commands`]). What is synced of a state *is* its checkpoint. A learner
//! that lacks commands which nobody keeps copies a whole state: another one sends pieces of a
//! [`Checkpoint`], here they are *staged* beside the state and verified, and then installed in
//! one atomic write.
//!
//! Two implementations behind the same traits: RocksDB ([`rocksdb`]) and memory with crash
//! semantics ([`memory`]), which keeps what was synced apart from what was not. One
//! conformance suite ([`conformance`]) runs on both.
//!
//! The first failed write or sync latches a store shut: every later call fails with the same
//! reason, nothing is retried (after a failed sync the kernel may have marked the lost pages
//! clean), and the node stops.

use bytes::Bytes;
use protocol::{
    Ballot, ClusterId, Command, CommandBody, CommandId, CommandNumber, NodeId, SnapshotId, SnapshotPiece, Space,
    StateView, StoredOutcome, Timestamp, Vote,
};

pub mod conformance;
mod digest;
pub mod memory;
pub mod rocksdb;
mod snapshot;

pub use digest::Digest;
pub use snapshot::{Checkpoint, Following, Installation, Staged};

/// Why stable storage cannot be used. Whoever gets one stops the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The disk or the database failed; the store is latched shut.
    #[error(
        "stable storage failed: {0}; nothing that was acknowledged depends on what could not be written. {remedy}, then \
         start the node again",
        remedy = remedy(.0)
    )]
    Failed(String),
    /// A stored record cannot be read: damaged, or of a newer format.
    #[error(
        "what is stored is damaged: {0}; this node stops, and speaks no more with it. Start it again: it sets aside what is damaged and learns it anew from the other nodes"
    )]
    Corrupt(String),
    /// The data directory belongs to another cluster, node or version, or another process holds it.
    #[error("{0}")]
    Refused(String),
}

/// What Linux says when there is no room, or no more for this user: ENOSPC, EDQUOT.
const NO_ROOM: [i32; 2] = [28, 122];
/// What it says of what belongs to another user, or must not be changed: EPERM, EACCES.
pub(crate) const NOT_OURS: [i32; 2] = [1, 13];
/// ENOTDIR, EISDIR.
const IN_THE_WAY: [i32; 2] = [20, 21];

/// What is to be done about a disk that failed, by the text of its error, since RocksDB tells no more: the beginning of a
/// sentence.
#[must_use]
pub fn remedy(why: &str) -> &'static str {
    if says_one_of(&NO_ROOM, why) {
        "Make room on the disk"
    } else if says_one_of(&NOT_OURS, why) {
        "Give the data directory with all that is in it to the user of this process (chown, chmod)"
    } else if says_one_of(&IN_THE_WAY, why) {
        "Remove what is in its way"
    } else {
        "Mend the disk"
    }
}

/// Whether a text holds what the operating system calls one of these errors.
fn says_one_of(errors: &[i32], text: &str) -> bool {
    errors.iter().any(|number| {
        let named = std::io::Error::from_raw_os_error(*number).to_string();
        named.split(" (os error").next().is_some_and(|named| text.contains(named))
    })
}

/// Whose data this is; checked at every opening.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's name, for error messages.
    pub cluster_name: String,
    /// The node.
    pub node: NodeId,
    /// The node's name, for error messages.
    pub node_name: String,
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogRecord {
    /// The leader's `lastTried`: the last ballot that this node began.
    LastTried(Ballot),
    /// The acceptor's `nextBal`: it votes in no lower ballot.
    NextBallot(Ballot),
    /// The acceptor's `prevVote` for the command's number; replaces an earlier one there.
    Vote(Vote),
    /// Votes for numbers up to this one are not needed any more: their commands are in durable
    /// states of a majority of learners, and in this node's own. A lower one changes nothing.
    Forget(CommandNumber),
    /// What the log is good for from now on.
    Standing(Standing),
    /// The number of the membership under which the votes that follow are cast (ADR 0026). It never goes down.
    VotedUnder(CommandNumber),
}

/// What a log is good for: whether its acceptor may speak for the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// All that this node ever promised and voted for above [`LogImage::forgotten`] is there.
    #[default]
    Sound,
    /// A new disk, of which nobody has said yet that this node had no other one before.
    Fresh,
    /// The promise and `last_tried` are there, and some votes may be lost.
    Damaged,
    /// A new disk in the place of one of this node that is lost: it never speaks for the node.
    Replaced,
}

/// What the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogImage {
    /// See [`LogRecord::LastTried`].
    pub last_tried: Ballot,
    /// See [`LogRecord::NextBallot`].
    pub next_ballot: Ballot,
    /// See [`LogRecord::Forget`]; the state of the node is not below it, unless it was lost.
    pub forgotten: CommandNumber,
    /// See [`LogRecord::Standing`].
    pub standing: Standing,
    /// See [`LogRecord::VotedUnder`]: as exact as the promise, also where votes are lost.
    pub voted_under: CommandNumber,
    /// The votes for numbers above the one asked for, ascending by number.
    pub votes: Vec<Vote>,
}

/// Which commands are kept for others: those that are newer than `since`, but never more than
/// the other two allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retention {
    /// How many, at most.
    pub commands: u64,
    /// How much they weigh ([`weight`]), at most.
    pub bytes: u64,
    /// Commands of an earlier time are not kept.
    pub since: Timestamp,
}

/// The log of one node. Shared by the acceptor and the leader of the node.
pub trait LogStore: Send + Sync {
    /// Writes all records in one atomic batch and syncs; they are durable when this returns.
    /// An empty slice does nothing.
    ///
    /// # Errors
    /// [`StorageError::Failed`], now and for ever after, when a write or sync has failed.
    fn write(&self, records: &[LogRecord]) -> Result<(), StorageError>;

    /// Reads the log, with the votes above `above` only.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] for a record that cannot be read, which is never taken for an
    /// absent one; [`StorageError::Failed`] when the disk fails.
    fn load(&self, above: CommandNumber) -> Result<LogImage, StorageError>;
}

/// The state of one node: M, the issued commands, stored outcomes. Written by the learner;
/// read by the learner, the leader and the gateway through [`StateView`].
pub trait StateStore: StateView + Send + Sync {
    /// Applies issued commands, in order, in one atomic write: effects (each entry's version
    /// is its command's number), the stored outcome of each request, the forgetting that the
    /// bodies order, the commands themselves, and "applied up to". Not synced.
    ///
    /// # Errors
    /// [`StorageError::Failed`] when the write fails; [`StorageError::Corrupt`] for a body that
    /// cannot be decoded.
    ///
    /// # Panics
    /// When the first command does not follow the last applied one: our own broken state.
    fn apply(&self, commands: &[Command]) -> Result<(), StorageError>;

    /// The last applied command; [`CommandId::NULL`] at first.
    fn applied(&self) -> CommandId;

    /// The time of the last applied command, which may be kept no more.
    fn time(&self) -> Timestamp;

    /// Makes everything applied so far durable; afterwards [`StateStore::durable`] says so.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    fn sync(&self) -> Result<(), StorageError>;

    /// The number up to which the state is durable.
    fn durable(&self) -> CommandNumber;

    /// Issued commands from `first` on, in order, at most `limit` and, beyond the first one, at
    /// most `bytes` of bodies. Empty when `first` is above what was applied; `None` when it is
    /// below [`StateStore::kept_from`]: then only a snapshot helps.
    ///
    /// # Errors
    /// [`StorageError`].
    fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Result<Option<Vec<Command>>, StorageError>;

    /// The lowest number whose command is kept; one above `applied` when none is.
    fn kept_from(&self) -> CommandNumber;

    /// Drops the commands up to `at_most` that `retention` does not want kept. Returns
    /// [`StateStore::kept_from`], which only rises. Not synced. For once a second rather than once
    /// a command: each call that drops something slows readers a little until the next compaction.
    ///
    /// # Errors
    /// [`StorageError`].
    fn forget_commands(&self, retention: &Retention, at_most: CommandNumber) -> Result<CommandNumber, StorageError>;

    /// Gives the disk back what forgotten commands, and forgotten votes of the node's log, take of it, which may take
    /// seconds. Else later writes do so in their time; but where space is short there may be none. `space` is what there
    /// is now: when it is out, only what needs no room itself is done.
    ///
    /// # Errors
    /// [`StorageError`].
    fn reclaim(&self, space: Space) -> Result<(), StorageError>;

    /// A view of the whole state as of one command number, unchanged by later writes.
    ///
    /// # Errors
    /// [`StorageError`].
    fn snapshot(&self) -> Result<Box<dyn StateSnapshot + '_>, StorageError>;

    /// Which state this is: the last applied command, and the digest of all entries (keys, values,
    /// versions) and all stored outcomes. Equal on all nodes at equal numbers. It is kept with
    /// every applied command, so it costs nothing to ask.
    fn digest(&self) -> SnapshotId;

    /// A view of the whole state as of now that outlives later writes, for sending or backing it
    /// up. Writers go on meanwhile.
    ///
    /// # Errors
    /// [`StorageError`].
    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, StorageError>;

    /// What has been received of a snapshot, if anything.
    fn staged(&self) -> Option<Staged>;

    /// Stores one piece of the snapshot `id`. The first piece of another one replaces what was
    /// staged. Any other piece that does not begin where the staged ones end, or whose records are
    /// not in order, changes nothing: [`StateStore::staged`] says where to go on. Not synced.
    ///
    /// # Errors
    /// [`StorageError::Failed`] when the write fails.
    fn stage(&self, id: SnapshotId, piece: &SnapshotPiece) -> Result<(), StorageError>;

    /// Verifies the digest of what is staged, as it lies on the disk, and makes it the state, in
    /// one atomic and durable write. No command is kept then. Whatever comes of it, nothing is
    /// staged any more.
    ///
    /// # Errors
    /// [`StorageError`].
    ///
    /// # Panics
    /// When not all of a snapshot is staged: our own broken state.
    fn install(&self) -> Result<Installation, StorageError>;

    /// Drops what is staged.
    ///
    /// # Errors
    /// [`StorageError::Failed`] when the write fails.
    fn drop_staged(&self) -> Result<(), StorageError>;
}

/// The state at one command number.
pub trait StateSnapshot: StateView {
    /// The command number that this view shows.
    fn at(&self) -> CommandNumber;

    /// [`SnapshotId::digest`] of this state, computed from all of its records.
    ///
    /// # Errors
    /// [`StorageError`].
    fn digest(&self) -> Result<[u8; 32], StorageError>;
}

/// How many stored outcomes one command makes a replica forget, at most: it adds one, so any
/// backlog shrinks, and applying it stays a small piece of work. Callers' outcomes go first,
/// then gateways', the oldest of each first. Part of what a command means: the same on all nodes.
pub const FORGET_MAX: usize = 64;

/// The outcome that is stored for a command.
pub(crate) fn outcome_of(command: &Command, body: &CommandBody) -> StoredOutcome {
    StoredOutcome {
        command: command.number(),
        fingerprint: body.fingerprint,
        verdict: body.verdict.clone(),
        time: body.time,
    }
}

/// Asserts that `command` may be applied after `applied`: the caller's broken state, not an input.
pub(crate) fn assert_follows(command: &Command, applied: CommandId) {
    assert!(
        command.number() == applied.number.next() && command.follows(applied),
        "commands are applied in order, without gaps: {} on {} cannot follow {applied}",
        command.id,
        command.precedent,
    );
}

/// How many bytes a command weighs in limits: its body and the fixed part of its record.
#[must_use]
pub fn weight(command: &Command) -> usize {
    const FIXED: usize = 64;
    let body: &Bytes = &command.body;
    body.len() + FIXED
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an operator who is told to mend a disk that is only full, or that has a file of another user. The first text
    /// is RocksDB's.
    #[test]
    fn each_error_has_its_own_remedy() {
        let full = "writing to the database `log`: IO error: No space left on device: While appending to file: n1/log/000013.log";
        let failed = |why: &str| StorageError::Failed(why.to_owned()).to_string();
        assert!(failed(full).ends_with("Make room on the disk, then start the node again"), "{}", failed(full));
        for (number, remedy) in
            [(5, "Mend the disk"), (13, "chown"), (1, "chown"), (20, "in its way"), (21, "in its way")]
        {
            let text = failed(&std::io::Error::from_raw_os_error(number).to_string());
            assert!(text.contains(remedy), "{text}");
        }
    }
}
