//! Receiving a whole state, piece by piece, when nobody in touch keeps the commands that follow ours.
//!
//! One question is outstanding, and the next one is asked when its piece is written. What is written survives a
//! restart, and so is worth asking for again: of the peer that sent it, and after a silence of everybody, since who
//! does not have that snapshot says so. Only when all have said so, or nothing has come for
//! [`Timing::give_up`](super::Timing), is it given up and any other snapshot asked for.

use std::collections::BTreeSet;

use protocol::message::FetchSnapshot;
use protocol::{CommandNumber, NodeId, Position, SnapshotId, SnapshotPiece, Tick};
use storage::Staged;

use super::Timing;
use super::catch_up::next_in_turn;

/// A transfer, as far as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Fetching {
    /// What the store has of a snapshot.
    staged: Option<Staged>,
    doing: Doing,
    /// Those who do not have that snapshot.
    without: BTreeSet<NodeId>,
    /// Since when no piece has come although one is needed.
    silent_since: Option<Tick>,
    /// Whom we asked last; another question goes to the one after.
    last_asked: NodeId,
    /// Nobody is asked before this: the last snapshot was not what its sender said.
    not_before: Tick,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Doing {
    #[default]
    Nothing,
    /// A peer is asked for the next piece.
    Asking { peer: NodeId, at: Tick },
    /// A piece is being written; then this much is staged.
    Writing { from: NodeId, then: Staged },
    /// All is staged, and is being checked and put in the place of the state.
    Installing,
}

/// Why a piece is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Untaken {
    /// Nobody asked this peer.
    NotAsked,
    /// Another piece than the one asked for, or of another snapshot.
    NotNext,
    /// The sender does not have that snapshot.
    Gone,
}

impl Fetching {
    /// A transfer that goes on with what the store has.
    pub(super) fn new(staged: Option<Staged>) -> Self {
        Self { staged, ..Self::default() }
    }

    /// The snapshot that is, or is becoming, staged.
    pub(super) fn id(&self) -> Option<SnapshotId> {
        match &self.doing {
            Doing::Writing { then, .. } => Some(then.id),
            Doing::Nothing | Doing::Asking { .. } | Doing::Installing => self.staged.as_ref().map(|staged| staged.id),
        }
    }

    /// Whether the state is being replaced: nothing may be applied to it.
    pub(super) fn is_installing(&self) -> bool {
        self.doing == Doing::Installing
    }

    /// Whether what is staged will not be completed: all peers, `peers` of them, have said that they do not have it,
    /// or nothing has come for too long. It is forgotten, and is to be dropped. `sources` as for [`Fetching::due`].
    pub(super) fn gives_up(&mut self, sources: &[NodeId], peers: usize, timing: Timing, now: Tick) -> bool {
        if sources.is_empty() || !self.is_partial() {
            self.silent_since = None;
            return false;
        }
        let silent_since = *self.silent_since.get_or_insert(now);
        let silent = now.since(silent_since) >= timing.give_up || self.without.len() >= peers;
        silent && self.refuses().is_some()
    }

    /// Whom to ask for what, if it is time. `sources` are the peers in touch that have a later state, in ascending
    /// order; none when no transfer is needed.
    pub(super) fn due(&mut self, sources: &[NodeId], timing: Timing, now: Tick) -> Option<(NodeId, FetchSnapshot)> {
        match self.doing {
            Doing::Asking { at, .. } if now.since(at) >= timing.fetch_again => self.doing = Doing::Nothing,
            Doing::Asking { .. } | Doing::Writing { .. } | Doing::Installing => return None,
            Doing::Nothing => {}
        }
        if now < self.not_before {
            return None;
        }
        let having: Vec<NodeId> = sources.iter().copied().filter(|peer| !self.without.contains(peer)).collect();
        let peer = next_in_turn(&having, self.last_asked)?;
        Some((peer, self.ask(peer, now)))
    }

    /// The question for the next piece, to this peer.
    pub(super) fn ask(&mut self, peer: NodeId, now: Tick) -> FetchSnapshot {
        self.doing = Doing::Asking { peer, at: now };
        self.last_asked = peer;
        match &self.staged {
            Some(Staged { id, next: Some(next) }) => FetchSnapshot { id: Some(*id), from: next.clone() },
            Some(Staged { next: None, .. }) | None => FetchSnapshot { id: None, from: Position::default() },
        }
    }

    /// Takes an answer; the piece is to be written.
    pub(super) fn take(
        &mut self,
        from: NodeId,
        id: SnapshotId,
        piece: Option<SnapshotPiece>,
        now: Tick,
    ) -> Result<SnapshotPiece, Untaken> {
        if !matches!(self.doing, Doing::Asking { peer, .. } if peer == from) {
            return Err(Untaken::NotAsked);
        }
        let ours = self.staged.as_ref().map(|staged| staged.id);
        let Some(piece) = piece else {
            if ours == Some(id) {
                self.doing = Doing::Nothing;
                self.without.insert(from);
            }
            return Err(Untaken::Gone);
        };
        let begins = ours.is_none() && piece.from == Position::default();
        let continues =
            self.staged.as_ref().is_some_and(|ours| ours.id == id && ours.next.as_ref() == Some(&piece.from));
        if !begins && !continues {
            return Err(Untaken::NotNext);
        }
        self.doing = Doing::Writing { from, then: Staged { id, next: piece.next.clone() } };
        self.silent_since = Some(now);
        Ok(piece)
    }

    /// The piece is written, and this is staged now. Says who sent the piece, and whether the store took it.
    pub(super) fn written(&mut self, staged: Option<Staged>) -> (NodeId, bool) {
        let Doing::Writing { from, then } = std::mem::take(&mut self.doing) else {
            panic!("a piece was written that did not come");
        };
        let taken = staged.as_ref() == Some(&then);
        self.staged = staged;
        (from, taken)
    }

    /// Whether the next piece is to be asked for.
    pub(super) fn is_partial(&self) -> bool {
        self.staged.as_ref().is_some_and(|staged| staged.next.is_some())
    }

    /// Whether what is staged is of no use to a node that knows this number to be issued. It is forgotten, and is to
    /// be dropped.
    pub(super) fn drops(&mut self, issued: CommandNumber) -> bool {
        let outdated = self.staged.as_ref().is_some_and(|staged| staged.id.at.number <= issued);
        outdated && self.refuses().is_some()
    }

    /// Forgets what is staged, unless it is just being written or installed; it is to be dropped. Says which snapshot
    /// it was, and who was asked for it last.
    pub(super) fn refuses(&mut self) -> Option<(SnapshotId, NodeId)> {
        let idle = matches!(self.doing, Doing::Nothing | Doing::Asking { .. });
        let id = self.staged.as_ref().filter(|_| idle)?.id;
        self.forget();
        Some((id, self.last_asked))
    }

    /// Whether all is staged and nothing else is being done: it is being installed from now on.
    pub(super) fn installs(&mut self) -> bool {
        let whole = self.doing == Doing::Nothing && self.staged.as_ref().is_some_and(|staged| staged.next.is_none());
        if whole {
            self.doing = Doing::Installing;
        }
        whole
    }

    /// The installing is over, well or not; says which snapshot it was and who sent its end.
    pub(super) fn installed(&mut self) -> (SnapshotId, NodeId) {
        assert!(self.is_installing(), "what was installed was not to be");
        let staged = self.staged.take().expect("what was being installed is staged");
        self.forget();
        (staged.id, self.last_asked)
    }

    /// Nobody is to be asked before this.
    pub(super) fn pause_until(&mut self, tick: Tick) {
        self.not_before = tick;
    }

    /// The peer is gone: no answer will come from it.
    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        if matches!(self.doing, Doing::Asking { peer: asked, .. } if asked == peer) {
            self.doing = Doing::Nothing;
        }
    }

    fn forget(&mut self) {
        self.doing = Doing::Nothing;
        self.staged = None;
        self.silent_since = None;
        self.without.clear();
    }
}
