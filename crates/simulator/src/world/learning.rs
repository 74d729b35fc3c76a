//! What the learner of a node does: it applies, forgets, and gives and takes whole states.
//!
//! What its actor does beside its thread happens here some time later, at once when it does: so a crash comes before it
//! or after it. What is done with what is staged of a state comes one after the other.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use learner::{Effect, Input, Progress};
use protocol::message::{CatchUp, Commands, Snapshot, ToLearner};
use protocol::{Command, CommandNumber, Membership, Message, NodeId, Position, SnapshotId, Space, Timestamp};
use storage::memory::Fault as DiskFault;
use storage::{Checkpoint, Installation, Retention, StateStore as _};

use super::World;
use crate::fact::{Fact, Stop};
use crate::network::some_of;
use crate::node::{Mail, StagingJob};
use crate::planted::{Lacking, Planted};
use crate::schedule::{Beside, Event};

/// A piece of an answer to `CatchUp`, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// The digest of the state is compared after each command whose number this divides: the replay that it is compared
/// with reads all of its state.
const DIGEST_EVERY: u64 = 64;

impl World {
    pub(super) fn learner_turn(&mut self, id: NodeId, inputs: Vec<Input>) {
        let (now, space) = (self.clock(id), Input::Space(self.node(id).space));
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        roles.installing &= !inputs.iter().any(|input| matches!(input, Input::Installed(_)));
        let inputs = [space].into_iter().chain(inputs);
        let effects: Vec<Effect> = inputs.flat_map(|input| roles.learner.handle(input, now)).collect();
        let (mut issued, mut sends, mut serves) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut asks = Vec::new();
        let mut beside = Vec::new();
        for effect in effects {
            match effect {
                Effect::Apply(commands) => issued.extend(commands),
                Effect::Ask { to, first } => asks.push((to, first)),
                Effect::Send { to, message } => sends.push((to, message)),
                Effect::Serve { to, first } => {
                    serves.insert(to, first);
                }
                Effect::Ignored(reason) => self.ignored(id, "learner", reason.name()),
                Effect::Forget { .. }
                | Effect::Reclaim(_)
                | Effect::MakeCheckpoint
                | Effect::ServePiece { .. }
                | Effect::CloseCheckpoint(_)
                | Effect::Stage { .. }
                | Effect::Install
                | Effect::DropStaged => beside.push(effect),
                Effect::Digest { .. } | Effect::NoDigest { .. } => unreachable!("nobody asks for a digest here"),
            }
        }
        for (to, first) in asks {
            self.send(id, to, Message::Learner(ToLearner::CatchUp(CatchUp { first })));
        }
        if !issued.is_empty() && !self.apply(id, issued) {
            return;
        }
        self.tell_learned(id);
        for (to, message) in sends {
            self.send(id, to, message);
        }
        for (to, first) in serves {
            self.serve(id, to, first);
        }
        for effect in beside {
            self.begin(id, effect);
        }
    }

    fn serve(&mut self, id: NodeId, to: NodeId, first: CommandNumber) {
        let node = self.node(id);
        let Some(roles) = &node.roles else { return };
        let (issued, kept_from) = (roles.told, node.state.kept_from());
        let Ok(commands) = node.state.commands(first, self.swarm.piece_commands, PIECE_BYTES) else {
            return self.stop(id, Stop::Disk);
        };
        let answer = Commands { commands: commands.unwrap_or_default(), issued, kept_from };
        self.send(id, to, Message::Learner(ToLearner::Commands(answer)));
    }

    // --- what is applied ---

    /// Applies commands in one write, or in two around one after which a digest is due. False when
    /// that fails, and the node is down.
    fn apply(&mut self, id: NodeId, commands: Vec<Command>) -> bool {
        let mut waiting = Vec::new();
        for command in commands {
            let is_due = command.number().0.is_multiple_of(DIGEST_EVERY);
            waiting.push(command);
            if is_due && !self.apply_batch(id, mem::take(&mut waiting)) {
                return false;
            }
        }
        self.apply_batch(id, waiting)
    }

    fn apply_batch(&mut self, id: NodeId, commands: Vec<Command>) -> bool {
        if commands.is_empty() {
            return true;
        }
        self.run_at_learner(id, &commands);
        if !self.write_state(id, |state| state.apply(&commands).is_ok()) {
            return false;
        }
        let state = &self.node(id).state;
        // In memory a digest is computed from all records.
        let is_due = state.applied().number.0.is_multiple_of(DIGEST_EVERY);
        let shown = is_due.then(|| state.digest());
        for command in commands {
            let digest = shown.filter(|shown| command.id == shown.at).map(|shown| shown.digest);
            self.tell(&Fact::Applied { node: id, command, digest });
        }
        true
    }

    /// Writes to the state of a node, with whatever is to fail there. False when that fails, and the node is down.
    fn write_state(&mut self, id: NodeId, write: impl FnOnce(&storage::memory::MemoryState) -> bool) -> bool {
        let node = self.node_mut(id);
        if let Some(fault) = node.state_fault.filter(|fault| *fault != DiskFault::Sync) {
            node.state.fail_next(fault);
        }
        let written = write(&node.state);
        if !written {
            self.disk_failed(id);
        }
        written
    }

    /// Tells the other roles of the node what is issued and applied, if that has changed. While a state is being put
    /// in place, that is not known.
    fn tell_learned(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let applied = node.state.applied();
        let Some(roles) = &mut node.roles else { return };
        if roles.installing || roles.told == applied {
            return;
        }
        assert_eq!(applied, roles.learner.issued(), "what is issued is applied when the turn ends");
        roles.told = applied;
        if !self.take_membership(id) {
            return;
        }
        self.learned(id);
        self.publish(id);
        self.serve_reads(id);
    }

    /// A later membership is durable here before anybody hears of it. False when that fails, and the node is down.
    fn take_membership(&mut self, id: NodeId) -> bool {
        let node = self.node(id);
        let Some(roles) = &node.roles else { return false };
        let told = roles.learner.membership().number();
        let stored = Membership::stored_from(roles.changed_at.next(), &node.state).expect("memory does not fail");
        let Some(later) = stored else { return true };
        if !self.make_durable(id) {
            return false;
        }
        if let Some(roles) = &mut self.node_mut(id).roles {
            roles.changed_at = later.number();
        }
        if later.number() <= told {
            self.put_surely(id, Mail::Learner(Input::Membership(later)));
            self.take_kept(id);
            return true;
        }
        // It is noted beside the data soon after, unless the node goes down before.
        if !self.chance.happens(1_000) {
            self.node_mut(id).seat = Arc::clone(&later);
        }
        self.meet(id, &later);
        self.put_surely(id, Mail::Learner(Input::Membership(Arc::clone(&later))));
        self.take_kept(id);
        self.put_surely(id, Mail::Acceptor(acceptor::core::Input::Learners(later.learners().collect())));
        self.detect(id, failure_detector::core::Input::Membership(later));
        true
    }

    fn learned(&mut self, id: NodeId) {
        let Some(told) = self.node(id).roles.as_ref().map(|roles| roles.told) else { return };
        self.put(id, Mail::Acceptor(acceptor::core::Input::Issued(told)));
        self.put(id, Mail::Leader(leader::core::Input::Learned(told)));
    }

    fn publish(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let (applied, durable) = (node.state.applied().number, node.state.durable());
        let Some(roles) = &mut node.roles else { return };
        roles.progress = Progress { issued: roles.learner.issued().number, applied, durable };
    }

    /// The learner is told what its store says of itself.
    pub(super) fn take_kept(&mut self, id: NodeId) {
        let state = &self.node(id).state;
        let (durable, kept_from) = (state.durable(), state.kept_from());
        self.put_surely(id, Mail::Learner(Input::Kept { durable, kept_from }));
    }

    pub(super) fn sync(&mut self, id: NodeId) {
        self.learned(id);
        let node = self.node(id);
        if node.state.durable() == node.state.applied().number {
            return;
        }
        if self.make_durable(id) {
            self.publish(id);
            self.take_kept(id);
        }
    }

    /// False when that fails, and the node is down.
    fn make_durable(&mut self, id: NodeId) -> bool {
        let node = self.node_mut(id);
        if node.state_fault == Some(DiskFault::Sync) {
            node.state.fail_next(DiskFault::Sync);
        }
        if node.state.sync().is_err() {
            self.disk_failed(id);
            return false;
        }
        let durable = node.state.durable();
        self.tell(&Fact::Synced { node: id, durable });
        true
    }

    // --- what is done beside it ---

    fn begin(&mut self, id: NodeId, effect: Effect) {
        let space = self.node(id).space;
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        match effect {
            Effect::Forget { durable, in_touch } => {
                // Where room is needed nobody is waited for who stands still.
                let in_touch = if space == Space::Ample { in_touch } else { durable };
                let already = mem::replace(&mut roles.forgetting, true);
                self.forget_votes(id, durable);
                if !already {
                    self.beside(id, Beside::Forget { durable, in_touch });
                }
            }
            // What is forgotten takes no room here.
            Effect::Reclaim(_) => {}
            Effect::MakeCheckpoint => self.beside(id, Beside::Checkpoint),
            Effect::ServePiece { to, id: which, from } => self.beside(id, Beside::Piece { to, id: which, from }),
            Effect::CloseCheckpoint(which) => _ = roles.checkpoints.remove(&which),
            Effect::Stage { id: which, piece, .. } => self.stage(id, StagingJob::Stage(which, piece)),
            Effect::Install => {
                roles.installing = true;
                self.stage(id, StagingJob::Install);
            }
            Effect::DropStaged => self.stage(id, StagingJob::Drop),
            Effect::Apply(_)
            | Effect::Digest { .. }
            | Effect::NoDigest { .. }
            | Effect::Ask { .. }
            | Effect::Send { .. }
            | Effect::Serve { .. }
            | Effect::Ignored(_) => unreachable!("done in the turn itself"),
        }
    }

    fn forget_votes(&mut self, id: NodeId, durable: CommandNumber) {
        let too_much = self.swarm.planted == Some(Planted::ForgetsTooMuch);
        let up_to = if too_much { self.node(id).state.applied().number } else { durable };
        self.put(id, Mail::Acceptor(acceptor::core::Input::Forget(up_to)));
    }

    fn beside(&mut self, id: NodeId, work: Beside) {
        let pause = some_of(self.swarm.pace.pool, &mut self.chance);
        let life = self.node(id).life;
        self.schedule.after(pause, Event::Beside { node: id, life, work });
    }

    fn stage(&mut self, id: NodeId, job: StagingJob) {
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        roles.jobs.push_back(job);
        if roles.jobs.len() == 1 {
            self.beside(id, Beside::Staging);
        }
    }

    /// Something that was begun beside a learner is done now.
    pub(super) fn done_beside(&mut self, id: NodeId, work: Beside) {
        match work {
            Beside::Forget { durable, in_touch } => self.forget_commands(id, durable, in_touch),
            Beside::Checkpoint => {
                let lacks = self.plants(Planted::SnapshotsLackARecord);
                let node = self.node_mut(id);
                let Ok(checkpoint) = node.state.checkpoint() else { return self.stop(id, Stop::Disk) };
                let checkpoint: Box<dyn Checkpoint> =
                    if lacks { Box::new(Lacking::new(checkpoint).expect("memory does not fail")) } else { checkpoint };
                let made = checkpoint.id();
                let Some(roles) = &mut node.roles else { return };
                roles.checkpoints.insert(made, checkpoint);
                self.put_surely(id, Mail::Learner(Input::CheckpointMade(made)));
            }
            Beside::Piece { to, id: which, from } => self.send_piece(id, to, which, &from),
            Beside::Staging => self.staging(id),
        }
    }

    fn forget_commands(&mut self, id: NodeId, durable: CommandNumber, in_touch: CommandNumber) {
        let learner::History { retention, commands, bytes } = self.swarm.history;
        let since = self.clock(id).wall.minus(retention);
        let old = Retention { commands: u64::MAX, bytes: u64::MAX, since };
        let large = Retention { commands, bytes, since: Timestamp::default() };
        let forgets = |state: &storage::memory::MemoryState| {
            state.forget_commands(&old, in_touch).and_then(|_| state.forget_commands(&large, durable)).is_ok()
        };
        if !self.write_state(id, forgets) {
            return;
        }
        let Some(roles) = &mut self.node_mut(id).roles else { return };
        roles.forgetting = false;
        self.take_kept(id);
    }

    fn send_piece(&mut self, id: NodeId, to: NodeId, which: SnapshotId, from: &Position) {
        let Some(checkpoint) = self.node(id).roles.as_ref().and_then(|roles| roles.checkpoints.get(&which)) else {
            return;
        };
        let (records, piece) = (checkpoint.records(), checkpoint.piece(from, self.swarm.snapshot_bytes));
        let Ok(piece) = piece else { return self.stop(id, Stop::Disk) };
        let snapshot = Snapshot { id: which, records, piece: Some(piece) };
        self.send(id, to, Message::Learner(ToLearner::Snapshot(snapshot)));
    }

    /// The next thing is done with what is staged.
    fn staging(&mut self, id: NodeId) {
        let Some(job) = self.node_mut(id).roles.as_mut().and_then(|roles| roles.jobs.pop_front()) else { return };
        let mut input = None;
        let done = match job {
            StagingJob::Stage(which, piece) => self.write_state(id, |state| {
                let staged = state.stage(which, &piece).is_ok();
                input = Some(Input::Staged(state.staged()));
                staged
            }),
            StagingJob::Drop => self.write_state(id, |state| state.drop_staged().is_ok()),
            StagingJob::Install => self.install(id, &mut input),
        };
        if !done {
            return;
        }
        if let Some(input) = input {
            self.put_surely(id, Mail::Learner(input));
            self.take_kept(id);
        }
        if self.node(id).roles.as_ref().is_some_and(|roles| !roles.jobs.is_empty()) {
            self.beside(id, Beside::Staging);
        }
    }

    fn install(&mut self, id: NodeId, input: &mut Option<Input>) -> bool {
        let node = self.node_mut(id);
        if let Some(fault) = node.state_fault {
            node.state.fail_next(fault);
        }
        let Ok(installation) = node.state.install() else {
            self.disk_failed(id);
            return false;
        };
        let shown = node.state.digest();
        assert_ne!(installation, Installation::Mismatch, "node {id} was sent another state than was said");
        if let Installation::Done(at) = installation {
            assert_eq!(shown.at, at, "what is installed is the state");
            self.tell(&Fact::Installed { node: id, id: shown });
        }
        *input = Some(Input::Installed(installation));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::Invariants;
    use crate::swarm::Swarm;
    use crate::watchers::Watchers;

    /// Catches a world whose learners keep commands for a peer that lacks them although their disks are almost full: those of
    /// the binary do not.
    #[test]
    fn a_full_disk_waits_for_nobody() {
        let kept_from = |space: Space| {
            let calm = Swarm::calm(3);
            let history = learner::History { retention: std::time::Duration::ZERO, ..calm.history };
            let swarm = Swarm { history, ..calm };
            let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
            let mut world = World::new(swarm, 1, watchers);
            let (one, seconds) = (NodeId(1), std::time::Duration::from_secs);
            world.plan(seconds(4), Box::new(World::finish));
            world.run().expect("nothing is broken");
            let node = world.node_mut(one);
            node.space = space;
            let (before, durable) = (node.state.kept_from(), node.state.durable());
            assert!(before < durable, "kept from {before}, durable {durable}");
            world.begin(one, Effect::Forget { durable, in_touch: CommandNumber::NULL });
            world.ended = false;
            world.plan(std::time::Duration::from_millis(10), Box::new(World::finish));
            world.run().expect("nothing is broken");
            (before, durable, world.node(one).state.kept_from())
        };
        let (before, _, after) = kept_from(Space::Ample);
        assert_eq!(after, before, "a peer lacks them");
        let (_, durable, after) = kept_from(Space::Low);
        assert!(after > durable, "kept from {after}, durable {durable}");
    }
}
