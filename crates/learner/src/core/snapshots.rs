//! Whole states: what the learner does with questions for its own, and with those that it receives.

use protocol::message::{FetchSnapshot, Snapshot, ToLearner};
use protocol::{CommandId, NodeId, Position, SnapshotId, SnapshotPiece, Tick};
use storage::{Installation, Staged};

use super::digests::DigestRefusal;
use super::fetching::Untaken;
use super::serving::Answer;
use super::{Effect, IgnoreReason, Learner, is_plausible};

impl Learner {
    /// A peer lacks commands that nobody keeps.
    pub(super) fn on_fetch_snapshot(
        &mut self,
        from: NodeId,
        fetch: FetchSnapshot,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        if !self.is_peer(from) {
            return Err(IgnoreReason::Stranger);
        }
        if fetch.id.is_none() && fetch.from != Position::default() {
            return Err(IgnoreReason::Malformed);
        }
        match self.serving.ask(from, fetch, self.kept_from, self.is_full(), now) {
            Answer::Piece { id, from: position } => effects.push(Effect::ServePiece { to: from, id, from: position }),
            Answer::Gone(id) => {
                self.send(from, ToLearner::Snapshot(Snapshot { id, records: 0, piece: None }), effects);
            }
            Answer::Make => effects.push(Effect::MakeCheckpoint),
            Answer::Wait => {}
            Answer::Busy => return Err(IgnoreReason::Busy),
            Answer::NoRoom => return Err(IgnoreReason::NoRoom),
        }
        Ok(())
    }

    pub(super) fn on_checkpoint_made(&mut self, id: SnapshotId, now: Tick, effects: &mut Vec<Effect>) {
        for to in self.serving.made(id, now) {
            effects.push(Effect::ServePiece { to, id, from: Position::default() });
        }
    }

    /// A peer answers with a piece of its state.
    pub(super) fn on_snapshot(
        &mut self,
        from: NodeId,
        snapshot: Snapshot,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        let Snapshot { id, records, piece } = snapshot;
        if !self.is_peer(from) {
            return Err(IgnoreReason::Stranger);
        }
        if !is_plausible(id.at) || !piece.as_ref().is_none_or(goes_on) {
            return Err(IgnoreReason::Malformed);
        }
        if let Some(ours) = self.contradicts(id.at) {
            return Err(IgnoreReason::Contradiction { from, theirs: id.at, ours });
        }
        if id.at.number <= self.issued.number {
            return Err(IgnoreReason::AlreadyIssued);
        }
        if self.is_full() {
            return Err(IgnoreReason::NoRoom);
        }
        let piece = self.fetching.take(from, id, piece, now).map_err(|untaken| match untaken {
            Untaken::NotAsked => IgnoreReason::NotAsked,
            Untaken::NotNext => IgnoreReason::NotNext,
            Untaken::Gone => IgnoreReason::Forgotten,
        })?;
        effects.push(Effect::Stage { id, piece, records, from });
        Ok(())
    }

    /// A piece is written: the next one is asked for, of the same peer.
    pub(super) fn on_staged(
        &mut self,
        staged: Option<Staged>,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        let (from, taken) = self.fetching.written(staged);
        if !taken {
            self.fetching.pause_until(now + self.config.timing.distrust);
            return Err(IgnoreReason::Malformed);
        }
        let is_needed = self.fetching.id().is_some_and(|id| id.at.number > self.issued.number);
        if is_needed && self.fetching.is_partial() && !self.is_full() {
            let next = self.fetching.ask(from, now);
            self.send(from, ToLearner::FetchSnapshot(next), effects);
        }
        Ok(())
    }

    /// The state is replaced, or is as it was.
    pub(super) fn on_installed(
        &mut self,
        installation: Installation,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        let (id, from) = self.fetching.installed();
        match installation {
            Installation::Done(at) => {
                assert_eq!(at, id.at, "another state was installed than the one received");
                self.jump(at, effects);
                self.advance(effects);
                Ok(())
            }
            Installation::Mismatch => {
                self.fetching.pause_until(now + self.config.timing.distrust);
                Err(IgnoreReason::Mismatch { from, id })
            }
            Installation::Outdated => Err(IgnoreReason::AlreadyIssued),
        }
    }

    /// Everything up to this command is issued, and the state shows it: the one way besides `Learner::issue`. Through
    /// which ballot it was issued is not known, as with answers to other questions.
    fn jump(&mut self, at: CommandId, effects: &mut Vec<Effect>) {
        assert!(at.number > self.issued.number, "{at} is installed, and {} was issued before", self.issued);
        self.issued = at;
        self.ahead.forget_through(at.number);
        self.catching_up.progressed();
        while let Some((number, waiter)) = self.digests.next_due(at.number) {
            effects.push(if number == at.number {
                Effect::Digest { waiter }
            } else {
                Effect::NoDigest { waiter, reason: DigestRefusal::Gone }
            });
        }
    }

    /// Goes on with a transfer, or begins one, as far as that is needed now.
    pub(super) fn transfer(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.refuse_contradiction(effects);
        if self.fetching.drops(self.issued.number) {
            effects.push(Effect::DropStaged);
        }
        if self.fetching.installs() {
            return effects.push(Effect::Install);
        }
        let timing = self.config.timing;
        let sources = self.catching_up.forgotten_by(self.issued.number, &self.peers);
        if self.fetching.gives_up(&sources, self.peers.len(), timing, now) {
            effects.push(Effect::DropStaged);
        }
        if let Some((peer, question)) = self.fetching.due(&sources, timing, now) {
            self.send(peer, ToLearner::FetchSnapshot(question), effects);
        }
    }

    /// A state that contradicts what is declared here is not used.
    fn refuse_contradiction(&mut self, effects: &mut Vec<Effect>) {
        if let Some(ours) = self.fetching.id().and_then(|id| self.contradicts(id.at))
            && let Some((id, from)) = self.fetching.refuses()
        {
            effects.push(Effect::Ignored(IgnoreReason::Contradiction { from, theirs: id.at, ours }));
            effects.push(Effect::DropStaged);
        }
    }

    /// The disk is out of room. A part of another node's state only takes room: it is dropped, and asked for again later,
    /// when there may be more. All of one is still installed, which gives back the room of the old state.
    pub(super) fn make_room(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        self.refuse_contradiction(effects);
        if self.fetching.is_partial() && self.fetching.refuses().is_some() {
            self.fetching.pause_until(now + self.config.timing.distrust);
            effects.push(Effect::Ignored(IgnoreReason::DoesNotFit));
            effects.push(Effect::DropStaged);
        } else if self.fetching.installs() {
            effects.push(Effect::Install);
        }
    }

    /// What we know to be issued at the number of this command, if it is another one.
    fn contradicts(&self, id: CommandId) -> Option<CommandId> {
        if id.number == self.issued.number {
            return Some(self.issued).filter(|ours| *ours != id);
        }
        self.ahead.contradicts(id)
    }
}

/// Whether a transfer that takes this piece comes nearer to its end.
fn goes_on(piece: &SnapshotPiece) -> bool {
    piece.next.as_ref().is_none_or(|next| *next != piece.from && !piece.records.is_empty())
}
