//! Claim 4: questions of peers that lack commands, and answers to our own. Whom we ask, and when: [`super::catch_up`].

use protocol::message::{CatchUp, Commands};
use protocol::{Command, CommandNumber, NodeId, Tick};

use super::{Config, Effect, IgnoreReason, Learner, is_plausible, is_run};

impl Learner {
    /// A peer lacks commands.
    pub(super) fn on_catch_up(
        &mut self,
        from: NodeId,
        catch_up: &CatchUp,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        if !self.is_peer(from) {
            return Err(IgnoreReason::Stranger);
        }
        let first = catch_up.first;
        if first == CommandNumber::NULL {
            return Err(IgnoreReason::Malformed);
        }
        effects.push(Effect::Serve { to: from, first });
        Ok(())
    }

    /// A peer answers.
    pub(super) fn on_commands(
        &mut self,
        from: NodeId,
        answer: Commands,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        let Commands { commands, issued: theirs, kept_from } = answer;
        if !self.is_peer(from) {
            return Err(IgnoreReason::Stranger);
        }
        let last = commands.last().map(|command| command.id);
        let within = last.is_none_or(|last| last == theirs || last.number < theirs.number);
        if !is_plausible(theirs) || !is_run(&commands) || !within {
            return Err(IgnoreReason::Malformed);
        }
        self.catching_up.peer_knows(from, theirs.number);
        if theirs.number == self.issued.number && theirs != self.issued {
            return Err(IgnoreReason::Contradiction { from, theirs, ours: self.issued });
        }
        if self.catching_up.peer_keeps(from, kept_from, self.issued.number) && commands.is_empty() {
            return Err(IgnoreReason::Forgotten);
        }
        if self.fetching.is_installing() {
            return Err(IgnoreReason::Installing);
        }
        let new = self.beyond_issued(from, commands)?;
        if self.is_full() {
            return Err(IgnoreReason::NoRoom);
        }
        if let Some((theirs, ours)) = self.ahead.conflict(&new) {
            return Err(IgnoreReason::Contradiction { from, theirs, ours });
        }
        let asked = self.catching_up.awaits(from);
        self.issue(new, None, effects);
        self.advance(effects);
        if asked && theirs.number > self.issued.number {
            self.catching_up.ask_on(from, now);
            self.ask(from, effects);
        }
        Ok(())
    }

    /// Of a peer's issued commands, which are consecutive, those that continue our list.
    fn beyond_issued(&self, from: NodeId, mut commands: Vec<Command>) -> Result<Vec<Command>, IgnoreReason> {
        let ours = self.issued;
        let first = commands.first().ok_or(IgnoreReason::NothingNew)?.number();
        if first > ours.number.next() {
            return Err(IgnoreReason::NotNext);
        }
        if let Some(same) = commands.iter().find(|command| command.number() == ours.number && command.id != ours) {
            return Err(IgnoreReason::Contradiction { from, theirs: same.id, ours });
        }
        commands.retain(|command| command.number() > ours.number);
        let theirs = commands.first().ok_or(IgnoreReason::AlreadyIssued)?.precedent;
        if theirs != ours {
            return Err(IgnoreReason::Contradiction { from, theirs, ours });
        }
        Ok(commands)
    }

    pub(super) fn on_peer_issued(&mut self, peer: NodeId, issued: CommandNumber) -> Result<(), IgnoreReason> {
        if !self.is_peer(peer) {
            return Err(IgnoreReason::Stranger);
        }
        self.catching_up.peer_knows(peer, issued);
        Ok(())
    }

    /// Asks a peer for what is missing, if it is time.
    pub(super) fn ask_if_due(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Config { window, timing, .. } = &self.config;
        if let Some(peer) = self.catching_up.due(self.issued.number, *window, &self.peers, *timing, now) {
            self.ask(peer, effects);
        }
    }

    fn ask(&self, peer: NodeId, effects: &mut Vec<Effect>) {
        assert!(self.is_peer(peer), "learners ask their peers only");
        effects.push(Effect::Ask { to: peer, first: self.issued.number.next() });
    }
}
