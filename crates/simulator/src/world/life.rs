//! Starts and ends of nodes, and what each leaves on their disks.

use std::time::Duration;

use protocol::{CommandNumber, NodeId};
use storage::{LogRecord, LogStore as _, Standing, StateSnapshot as _, StateStore as _};

use super::World;
use crate::fact::{Fact, Stop};
use crate::fault::Fault;
use crate::network::some_of;
use crate::node::{Came, acceptor_config};
use crate::planted::{Planted, rebuild};
use crate::schedule::{Event, Timer};
use crate::swarm::Rest;

/// Batches of the state that a disk may have written by itself, at most, when it did not write
/// all.
const KEPT_BATCHES: usize = 8;
/// In 10,000: nodes with lost disks that come back as another node, where nodes join.
const RETURNS: u32 = 7_500;
/// No process is back sooner.
const DOWN_MIN: Duration = Duration::from_millis(1);

impl World {
    /// A node starts with what its disk holds.
    pub(super) fn start(&mut self, id: NodeId) {
        let (now, chance) = (self.schedule.now(), self.chance.any());
        let node = self.nodes.get_mut(&id).expect("a node of this world");
        // It may have been damaged while the node was down.
        node.log.restart();
        let log = node.log.load(CommandNumber::NULL).expect("memory does not fail");
        node.start(&self.swarm, now, chance).expect("memory does not fail");
        let digest = node.state.image().digest().expect("memory is readable");
        let fact = Fact::Started { node: id, life: node.life, log, applied: node.state.applied(), digest };
        self.tell(&fact);
        let seat = Some(Timer::Seat).filter(|_| self.swarm.changes > 0);
        let timers = [Timer::Detector, Timer::Leader, Timer::Learner, Timer::Sync, Timer::RepeatLeader];
        for timer in timers.into_iter().chain(seat) {
            let first = some_of(self.interval(timer), &mut self.chance);
            let life = self.node(id).life;
            self.schedule.after(first, Event::Timer { node: id, life, timer });
        }
        self.take_kept(id);
        self.connect(id);
        self.rejoin_at_once(id);
    }

    /// Where that mistake is planted.
    fn rejoin_at_once(&mut self, id: NodeId) {
        if self.swarm.planted != Some(Planted::RejoinsAtOnce) || !self.node(id).damaged {
            return;
        }
        if self.persist(id, vec![LogRecord::Standing(Standing::Sound)]) {
            let Some(roles) = &self.node(id).roles else { return };
            let config = acceptor_config(id, &self.swarm, roles.learner.membership());
            rebuild(self.node_mut(id), config);
        }
    }

    /// A node that was down comes back, if it can.
    pub(super) fn restart(&mut self, id: NodeId) {
        let node = self.node(id);
        let stays_down = self.healed && !self.core.contains(&id) && self.swarm.rest != Rest::Fringe;
        if !node.is_up() && !node.gone && !stays_down {
            if node.came == Came::Left {
                return self.come_anew(id);
            }
            self.tell(&Fact::Fault(Fault::Restart(id)));
            self.start(id);
        }
    }

    /// The power goes.
    pub(super) fn crash(&mut self, id: NodeId) {
        self.note_down_in_change(id);
        self.tell(&Fact::Fault(Fault::Crash(id)));
        self.stop(id, Stop::PowerCut);
    }

    /// Counts what meets a change.
    pub(super) fn note_down_in_change(&mut self, id: NodeId) {
        if self.watchers.is_in_change() {
            self.tell(&Fact::Fault(Fault::DownInChange(id)));
        }
    }

    /// The disk has said that something failed; the node stops by itself.
    pub(super) fn disk_failed(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let fault = node.log_fault.or(node.state_fault);
        self.tell(&Fact::Fault(match fault {
            Some(storage::memory::Fault::Sync) => Fault::SyncError(id),
            Some(storage::memory::Fault::Full) => Fault::DiskFull(id),
            Some(storage::memory::Fault::Write) | None => Fault::WriteError(id),
        }));
        self.stop(id, Stop::Disk);
    }

    /// A node goes down, and comes back after a while unless it was refused.
    pub(super) fn stop(&mut self, id: NodeId, why: Stop) {
        let node = self.node_mut(id);
        if node.roles.take().is_none() {
            return;
        }
        let is_in_transfer = node.state.staged().is_some();
        node.powered = matches!(why, Stop::Killed | Stop::Disk | Stop::Refused);
        node.lost |= why == Stop::DiskLost;
        node.gone |= why == Stop::Refused;
        (node.cut, node.log_fault, node.state_fault) = (None, None, None);
        let held = node.held.take().unwrap_or_default();
        if is_in_transfer {
            self.tell(&Fact::Fault(Fault::DownInTransfer(id)));
        }
        self.tell(&Fact::Stopped { node: id, why });
        self.leave_on_disk(id, why);
        if why == Stop::DiskLost {
            self.replace_disk(id);
        }
        for event in held {
            if let Event::Arrive { from, to, message, .. } = event {
                self.lose(from, to, message);
            }
        }
        if self.node(id).powered {
            self.hang_up(id);
            self.disconnect(id);
        }
        if !self.node(id).gone {
            let down = DOWN_MIN + some_of(self.swarm.down, &mut self.chance);
            self.schedule.after(down, Event::Start(id));
        }
    }

    /// Its operator says that it is another disk, or does not know, or has the node join anew. One that joined has no other
    /// way: nothing is left that tells who it was.
    fn replace_disk(&mut self, id: NodeId) {
        let joined = self.node(id).came != Came::Listed;
        if joined || (self.swarm.changes > 0 && self.chance.happens(RETURNS)) {
            self.node_mut(id).gone = true;
            self.clients.part(id);
            return self.expect_return(id);
        }
        let standing = if self.chance.coin() { Standing::Replaced } else { Standing::Fresh };
        let standing = if self.plants(Planted::TrustsANewDisk) { Standing::Sound } else { standing };
        self.node_mut(id).replace_disk(standing);
    }

    /// What the next start will find.
    fn leave_on_disk(&mut self, id: NodeId, why: Stop) {
        // A process that dies leaves all that it wrote. Of what was not synced, a power cut leaves
        // what the disk had written by itself; so does a failing disk.
        let all = match why {
            Stop::Killed | Stop::Refused => !self.plants(Planted::KillsLoseWrites),
            Stop::Disk => self.chance.coin(),
            Stop::PowerCut | Stop::DiskLost => false,
        };
        let log_too = all || self.chance.coin();
        let batches = if self.chance.happens(7_500) { 0 } else { self.chance.index(KEPT_BATCHES) };
        let node = self.node(id);
        if log_too {
            node.log.restart();
        } else {
            node.log.crash();
        }
        if all {
            return node.state.restart();
        }
        let before = node.state.applied().number;
        node.state.crash_keeping(batches);
        let left = node.state.applied().number;
        // A lost disk is a fault of its own.
        if left < before && why != Stop::DiskLost {
            self.tell(&Fact::Fault(Fault::LostUnsynced(id, left.next())));
        }
    }

    /// A node stands still for a while.
    pub(super) fn pause(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        if node.is_up() && node.held.is_none() {
            node.held = Some(Vec::new());
            self.tell(&Fact::Fault(Fault::Pause(id)));
            let pause = some_of(self.swarm.down, &mut self.chance);
            self.schedule.after(pause, Event::Resume(id));
        }
    }

    /// A node goes on, with all that came in the meantime.
    pub(super) fn resume(&mut self, id: NodeId) {
        for event in self.node_mut(id).held.take().unwrap_or_default() {
            self.schedule.after(Duration::ZERO, event);
        }
    }
}
