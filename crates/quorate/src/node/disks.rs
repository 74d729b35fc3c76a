//! Disks: what this node says of its own, and what it knows of those of the others.
//!
//! A node that lost its disk, or was given an old copy of it, has forgotten promises and votes, and must not speak as
//! if it had not. It cannot know that by itself; the others can. Each notes durably, before it lets a node in, which
//! disk it has, how often it was started there and what it has promised; and remembers, while it runs, how far that
//! node has voted. What falls short of that is refused, and the refused node stops for good (ADR 0023).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use acceptor::core::Silence;
use bytes::Bytes;
use protocol::message::ToLeader;
use protocol::{Ballot, CommandNumber, NodeId};
use storage::Standing;
use storage::rocksdb::{DiskId, Noted, Position, RocksLog};
use transport::Disk;
use transport::handshake::Refusal;

/// See the module. Shared by the connections and the roles of one node.
pub(super) struct Disks {
    log: Arc<RocksLog>,
    /// This node was told its id.
    told: bool,
    known: Mutex<Known>,
    /// Held while a disk is judged and noted: several connections of one node come at once.
    judging: Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// How far the other nodes have gone, by their own words since this node runs.
    heard: BTreeMap<NodeId, Position>,
    /// Who has noted the disk of this node.
    noted_by: BTreeSet<NodeId>,
    /// Who is silent for ever, by their own words.
    replaced: BTreeSet<NodeId>,
    /// Why the acceptor of this node is silent.
    silence: Option<Silence>,
}

impl Disks {
    pub(super) fn new(log: Arc<RocksLog>, silence: Option<Silence>, told: bool) -> Self {
        Self { log, told, known: Mutex::new(Known { silence, ..Known::default() }), judging: Mutex::new(()) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the acceptor of this node is silent, if it is.
    pub(super) fn silence(&self) -> Option<Silence> {
        self.known().silence
    }

    /// Whether this node may not lead: read anew each time, by its detector and its leader.
    pub(super) fn is_barred(&self) -> bool {
        self.silence().is_some_and(|silence| !silence.may_lead())
    }

    /// The acceptor of this node is silent no more.
    pub(super) fn speaks(&self) {
        self.known().silence = None;
    }

    /// A peer has noted the disk of this node.
    pub(super) fn noted_by(&self, peer: NodeId) {
        self.known().noted_by.insert(peer);
    }

    /// All who have.
    pub(super) fn all_noted_by(&self) -> BTreeSet<NodeId> {
        self.known().noted_by.clone()
    }

    /// Whether a peer votes no more.
    pub(super) fn is_replaced(&self, peer: NodeId) -> bool {
        self.known().replaced.contains(&peer)
    }

    /// Other nodes have refused the disk of this one: so does every later start.
    pub(super) fn refused(&self, why: &str) {
        if let Err(error) = self.log.note_refused(why) {
            tracing::error!(%error, "cannot note that the disk of this node was refused");
        }
    }

    /// How far this node has gone, as its disk has it now.
    pub(super) fn position(&self) -> Position {
        self.log.position()
    }

    /// What the disk of this node is now.
    pub(super) fn say(&self) -> Disk {
        let (mark, position) = (self.log.mark(), self.log.position());
        Disk {
            id: Bytes::copy_from_slice(&mark.disk.0),
            starts: mark.starts,
            run: mark.run,
            promise_round: position.promise.round,
            promise_node: position.promise.node.0,
            // Votes up to that ballot may have been lost and excused.
            voted: (position.promise > mark.votes_lost).then_some(position.voted.0),
            recovering: mark.standing == Standing::Replaced,
            told: self.told,
        }
    }

    /// Judges the disk of a peer, and notes it. Whether the note counts: this disk must not be in the place of one that
    /// may have known another disk of that node.
    pub(super) fn judge(&self, node: NodeId, disk: &Disk) -> Result<bool, Refusal> {
        if disk.recovering {
            // It says nothing that its other disk could contradict. That one may come back.
            self.known().replaced.insert(node);
            return Ok(false);
        }
        let _one = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.log.mark().peers.remove(&node);
        let heard = self.known().heard.get(&node).copied().unwrap_or_default();
        let found = judge(node, known.as_ref(), heard, disk)?;
        if known.as_ref() != Some(&found) {
            self.log.note_peer(node, found).map_err(|_| Refusal::NotNoted(node))?;
        }
        Ok(self.log.mark().standing != Standing::Replaced)
    }

    /// Remembers how far a peer has gone, by its heartbeats and by what it says to a leader or to a learner.
    pub(super) fn heard(&self, from: NodeId, promise: Ballot, voted: CommandNumber) {
        let mut known = self.known();
        let heard = known.heard.entry(from).or_default();
        *heard = (*heard).max(Position { promise, voted });
    }

    /// The same, of a message to the leader of this node.
    pub(super) fn heard_by_leader(&self, from: NodeId, message: &ToLeader) {
        match message {
            ToLeader::BallotInfo(info) => self.heard(from, info.ballot, CommandNumber::NULL),
            ToLeader::MyNextBal(next) => self.heard(from, next.ballot, CommandNumber::NULL),
            ToLeader::Voted(voted) => {
                self.heard(from, voted.ballot, voted.run.map_or(CommandNumber::NULL, |run| run.last.number));
            }
            ToLeader::Rejoin(_) | ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_) => {}
        }
    }
}

/// Whether a node may go on with that disk, and what is to be noted of it then.
fn judge(node: NodeId, known: Option<&Noted>, heard: Position, disk: &Disk) -> Result<Noted, Refusal> {
    let Ok(id) = disk.id[..].try_into() else { return Err(Refusal::NotAPeer) };
    let promise = Ballot::new(disk.promise_round, NodeId(disk.promise_node));
    let found = Noted { disk: DiskId(id), starts: disk.starts, run: disk.run, promise };
    let old = |found: String| Err(Refusal::OldDisk { node, found });
    if let Some(known) = known {
        if known.disk != found.disk {
            return Err(Refusal::OtherDisk(node));
        }
        if found.starts < known.starts {
            return old(format!("started {} times, and it was started {} times", found.starts, known.starts));
        }
        if found.starts == known.starts && found.run != known.run {
            return old(format!("its start number {} was another one", found.starts));
        }
        if found.starts == known.starts {
            // The same process. It may have said more on another connection while this one was made.
            return Ok(Noted { promise: promise.max(known.promise), ..found });
        }
        if promise < known.promise {
            return old(format!("promised ballot {promise}, and it has promised {}", known.promise));
        }
    }
    if promise < heard.promise {
        return old(format!("promised ballot {promise}, and it has promised {}", heard.promise));
    }
    if let Some(voted) = disk.voted
        && promise == heard.promise
        && voted < heard.voted.0
    {
        return old(format!("voted up to command {voted} in ballot {promise}, and it has voted up to {}", heard.voted));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(starts: u64, run: u64, round: u64, voted: Option<u64>) -> Disk {
        let id = Bytes::from_static(&[7; 16]);
        Disk { id, starts, run, promise_round: round, promise_node: 1, voted, ..Disk::default() }
    }

    fn noted(starts: u64, run: u64, round: u64) -> Noted {
        Noted { disk: DiskId([7; 16]), starts, run, promise: Ballot::new(round, NodeId(1)) }
    }

    fn position(round: u64, voted: u64) -> Position {
        Position { promise: Ballot::new(round, NodeId(1)), voted: CommandNumber(voted) }
    }

    /// RELIABILITY 6, row 3: catches a disk that is refused although it is the one that the node had, and one that is
    /// taken although it is another one, an older copy of it, or lacks a promise or a vote.
    #[test]
    fn a_disk_is_judged_by_what_was_known_of_it() {
        let node = NodeId(2);
        let (known, heard) = (noted(3, 30, 5), position(5, 40));
        let taken = [
            ("the same start", disk(3, 30, 5, Some(40))),
            ("the same start, and what was heard since it said this", disk(3, 30, 5, Some(7))),
            ("the same start, and what it has promised since it said this", disk(3, 30, 4, Some(7))),
            ("it has gone on", disk(4, 41, 6, Some(0))),
            ("the next start", disk(4, 41, 5, Some(40))),
            ("many starts later", disk(9, 90, 7, Some(41))),
            ("its log was damaged, which excuses votes", disk(4, 41, 5, None)),
        ];
        for (what, disk) in taken {
            let found = judge(node, Some(&known), heard, &disk).unwrap_or_else(|why| panic!("{what}: {why}"));
            assert_eq!((found.starts, found.run), (disk.starts, disk.run), "{what}");
            assert!(found.promise >= known.promise, "{what}: what is noted never goes down");
        }
        let refused = [
            ("other_disk", Disk { id: Bytes::from_static(&[8; 16]), ..disk(9, 90, 9, Some(99)) }),
            ("old_disk", disk(2, 20, 5, Some(40))),
            ("old_disk", disk(3, 31, 5, Some(40))),
            ("old_disk", disk(4, 41, 4, Some(40))),
            ("old_disk", disk(4, 41, 4, None)),
            ("old_disk", disk(4, 41, 5, Some(39))),
            ("not_a_peer", Disk { id: Bytes::from_static(&[7; 15]), ..disk(4, 41, 5, Some(40)) }),
        ];
        for (reason, disk) in refused {
            let refusal = judge(node, Some(&known), heard, &disk).expect_err(reason);
            assert_eq!(refusal.reason(), reason, "{refusal}");
            assert_eq!(refusal.is_for_its_disk(), reason != "not_a_peer");
        }
        // What was only heard counts, too; whoever knows nothing takes all.
        assert!(judge(node, None, heard, &disk(4, 41, 4, None)).is_err());
        assert!(judge(node, None, Position::default(), &disk(0, 0, 0, Some(0))).is_ok());
    }
}
