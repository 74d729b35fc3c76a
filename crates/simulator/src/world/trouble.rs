//! The bad things that happen now and then, as the seed has drawn their kinds and weights.

use std::time::Duration;

use protocol::{CommandNumber, NodeId, Space, Tick};
use storage::StateStore as _;
use storage::memory::{Fault as DiskFault, MemoryLog, MemoryState};

use super::World;
use crate::fact::{Fact, Stop};
use crate::fault::{Fault, Shape};
use crate::network::{Link, cut, some_of};
use crate::node::{Cut, Mail};
use crate::schedule::Event;
use crate::swarm::{Rest, Trouble};

/// How far a wall clock jumps at once, in milliseconds: from less than a command to hours.
const JUMPS: [u64; 5] = [20, 500, 10_000, 600_000, 2 * 3_600_000];
/// The rates of clocks, in thousandths.
const RATES: (u64, u64) = (800, 1_200);

impl World {
    /// Something bad is due, unless the faults are over.
    pub(super) fn nemesis(&mut self) {
        if self.healed {
            return self.trouble_outside();
        }
        let pause = some_of(self.swarm.trouble_pause, &mut self.chance);
        self.schedule.after(pause, Event::Nemesis);
        if self.calm {
            return;
        }
        let total: u64 = self.swarm.troubles.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.below(total);
        for (trouble, weight) in self.swarm.troubles.clone() {
            if drawn < weight {
                return self.make(trouble);
            }
            drawn -= weight;
        }
    }

    /// The faults begin again, or rest: all links work, the network loses nothing, and who is down comes back by itself. What is
    /// damaged already, clocks, full mailboxes, and what strikes a change, stay as they are.
    pub(super) fn spell(&mut self) {
        if self.healed {
            return;
        }
        self.calm = !self.calm;
        if self.calm {
            self.network.calm();
            self.make(Trouble::Heal);
        } else {
            self.network.worsen(self.swarm.weather.clone());
        }
        let lasts = some_of(self.swarm.spells * 2, &mut self.chance);
        self.schedule.after(lasts, Event::Spell);
    }

    pub(super) fn make(&mut self, trouble: Trouble) {
        let id = self.victim();
        match trouble {
            Trouble::Partition(shape) => self.partition(shape),
            Trouble::Heal => {
                if self.network.is_broken() {
                    self.network.heal();
                    self.tell(&Fact::Fault(Fault::Heal));
                }
            }
            Trouble::Crash if self.node(id).is_up() => self.crash(id),
            Trouble::CrashAtWrite => {
                self.node_mut(id).cut = Some(Cut::Within);
                if self.chance.coin() {
                    self.node_mut(id).cut = Some(if self.chance.coin() { Cut::Before } else { Cut::After });
                }
            }
            Trouble::Blackout => {
                for id in self.present() {
                    if self.node(id).is_up() {
                        self.crash(id);
                    }
                }
            }
            Trouble::Kill if self.node(id).is_up() => {
                self.note_down_in_change(id);
                self.tell(&Fact::Fault(Fault::Kill(id)));
                self.stop(id, Stop::Killed);
            }
            Trouble::Crash | Trouble::Kill => {}
            Trouble::Pause => self.pause(id),
            Trouble::ClockJump => self.jump(id),
            Trouble::ClockRate => {
                let rate = u32::try_from(self.chance.between(RATES.0, RATES.1)).expect("a small number");
                let now = self.schedule.now();
                self.node_mut(id).clocks.set_rate(now, rate);
                self.tell(&Fact::Fault(Fault::ClockRate(id, rate)));
            }
            Trouble::BitRot => self.damage(id, Fault::BitRot(id), MemoryLog::rot),
            Trouble::Misdirect => self.damage(id, Fault::Misdirected(id), MemoryLog::misdirect),
            Trouble::WriteError => self.break_disk(id, DiskFault::Write),
            Trouble::SyncError => self.break_disk(id, DiskFault::Sync),
            Trouble::DiskFull => self.break_disk(id, DiskFault::Full),
            // Disks of equal size fill alike.
            Trouble::NoRoom if self.chance.coin() => {
                for id in self.present() {
                    self.fill_disk(id);
                }
            }
            Trouble::NoRoom => self.fill_disk(id),
            Trouble::StateLost => self.lose_state(id),
            Trouble::StateRot => self.rot_state(),
            Trouble::DiskLost => {
                let node = self.node(id);
                if self.may_lose(id) && node.is_up() && !node.lost {
                    self.tell(&Fact::Fault(Fault::DiskLost(id)));
                    self.stop(id, Stop::DiskLost);
                }
            }
            Trouble::Suspicion => {
                let any = self.any_node();
                self.suspect(any);
            }
            Trouble::Join | Trouble::Leave if self.schedule.now() >= Tick(0) + self.swarm.changing => {}
            Trouble::Join => self.expect_newcomer(),
            Trouble::Leave => self.ask_to_leave(),
        }
    }

    /// Any node; every other time the one that leads, which has the most to lose.
    fn victim(&mut self) -> NodeId {
        let any = self.any_node();
        let leader = self.watchers.tally.led().filter(|_| self.chance.coin());
        leader.filter(|led| !self.node(*led).gone).unwrap_or(any)
    }

    /// A node campaigns for no reason. A failure detector may be wrong; progress depends on it, and nothing else.
    pub(crate) fn suspect(&mut self, id: NodeId) {
        let Some(roles) = self.node(id).roles.as_ref().filter(|_| self.swarm.has_role_leader(id)) else { return };
        let above = roles.status.highest();
        if roles.leader.leads().is_none() {
            self.tell(&Fact::Fault(Fault::Suspicion(id)));
            self.put(id, Mail::Leader(leader::core::Input::Campaign { above }));
        }
    }

    /// After the faults they go on among those that the core does not need, where they are a fringe: each campaigns for no
    /// reason, has other links, or starts again, not so often that the core could do nothing in between.
    fn trouble_outside(&mut self) {
        let outside: Vec<NodeId> = self.present().into_iter().filter(|id| !self.core.contains(id)).collect();
        if self.swarm.rest != Rest::Fringe || outside.is_empty() {
            return;
        }
        let pause = self.swarm.timeout_max / 4 + some_of(self.swarm.timeout_max, &mut self.chance);
        self.schedule.after(pause, Event::Nemesis);
        let id = self.chance.pick(&outside);
        match self.chance.below(4) {
            0 => self.link_to_core(id, &self.core.clone()),
            1 if self.node(id).is_up() => {
                if self.chance.coin() {
                    return self.crash(id);
                }
                self.tell(&Fact::Fault(Fault::Kill(id)));
                self.stop(id, Stop::Killed);
            }
            _ => self.suspect(id),
        }
        // Who must speak depends on who leads.
        self.end_when_done();
    }

    fn partition(&mut self, shape: Shape) {
        let links = cut(shape, &self.present(), &mut self.chance);
        if links.is_empty() {
            return;
        }
        // Usually one partition follows another; sometimes they add up.
        if self.network.is_broken() && !self.chance.happens(2_500) {
            self.network.heal();
        }
        if self.watchers.is_in_change() {
            self.tell(&Fact::Fault(Fault::PartitionInChange));
        }
        self.cut(shape, &links);
    }

    /// These links go up and down from now on.
    pub(super) fn begin_to_flap(&mut self, links: &[Link]) {
        let (now, longest) = (self.schedule.now(), self.swarm.flap);
        for link in links {
            let (period, regular) = if self.swarm.flaps_apart {
                (longest / 4 + some_of(longest * 3 / 4, &mut self.chance), self.chance.coin())
            } else {
                (longest, true)
            };
            self.network.begin_to_flap(*link, now, period, regular);
        }
        self.await_flaps();
    }

    fn await_flaps(&mut self) {
        let Some(due) = self.network.next_flap() else { return };
        if self.flap_due.is_none_or(|scheduled| due < scheduled) {
            self.flap_due = Some(due);
            self.schedule.at(due, Event::Flap);
        }
    }

    /// Flapping links go up and down.
    pub(super) fn flap(&mut self) {
        let now = self.schedule.now();
        if self.flap_due != Some(now) {
            // Another link came in between, and has scheduled what follows.
            return;
        }
        self.flap_due = None;
        let stopped = self.network.flap(now, &mut self.chance);
        self.break_connections(&stopped);
        self.await_flaps();
    }

    fn jump(&mut self, id: NodeId) {
        let most = self.chance.pick(&JUMPS);
        let millis = i64::try_from(self.chance.between(1, most)).expect("some hours");
        let millis = if self.chance.coin() { millis } else { -millis };
        let (now, wrong_max) = (self.schedule.now(), self.swarm.wrong_max);
        let jumped = self.node_mut(id).clocks.jump(now, millis, wrong_max);
        self.tell(&Fact::Fault(Fault::ClockJump(id, jumped)));
    }

    fn break_disk(&mut self, id: NodeId, fault: DiskFault) {
        let log = self.chance.coin();
        let node = self.node_mut(id);
        if !node.is_up() || node.log_fault.or(node.state_fault).is_some() {
            return;
        }
        if log {
            node.log_fault = Some(fault);
        } else {
            node.state_fault = Some(fault);
        }
    }

    /// The disk passes its marks, and has room again after a while.
    fn fill_disk(&mut self, id: NodeId) {
        let (space, fault) =
            if self.chance.coin() { (Space::Low, Fault::DiskLow(id)) } else { (Space::Out, Fault::DiskOut(id)) };
        self.node_mut(id).space = space;
        self.tell(&Fact::Fault(fault));
        let full = some_of(self.swarm.down, &mut self.chance);
        self.schedule.after(full, Event::Room(id));
    }

    /// Something that is stored is damaged: the next start will find it. Rot rarely comes alone.
    fn damage(&mut self, id: NodeId, fault: Fault, how: fn(&MemoryLog, CommandNumber) -> bool) {
        if !self.may_damage(id) || self.node(id).gone {
            return;
        }
        let number = CommandNumber(self.chance.between(0, self.node(id).state.applied().number.0));
        if how(&self.node(id).log, number) {
            let node = self.node_mut(id);
            (node.log_rotten, node.damaged) = (true, true);
            self.tell(&Fact::Fault(fault));
        }
    }

    /// Its votes are damaged and it is killed, and finds that when it starts, so long after.
    pub(crate) fn kill_damaged(&mut self, id: NodeId, down: Duration) {
        self.damage(id, Fault::BitRot(id), MemoryLog::rot);
        self.stop(id, Stop::Killed);
        self.schedule.after(down, Event::Start(id));
    }

    /// The power goes, and the state of the node with it.
    fn lose_state(&mut self, id: NodeId) {
        if !self.may_damage(id) || !self.node(id).is_up() || !self.node(id).is_sound() {
            return;
        }
        self.crash(id);
        let node = self.node_mut(id);
        (node.state, node.damaged) = (MemoryState::new(), true);
        self.tell(&Fact::Fault(Fault::StateLost(id)));
    }

    /// The state of a node that is down is damaged: its next start finds that. Its votes may be damaged as well.
    fn rot_state(&mut self) {
        let has_state = |id: &NodeId| {
            let node = self.node(*id);
            !node.is_up() && !node.state_rotten && node.state.applied().number > CommandNumber::NULL
        };
        let down: Vec<NodeId> = self.present().into_iter().filter(|id| has_state(id) && self.may_damage(*id)).collect();
        if down.is_empty() {
            return;
        }
        let id = self.chance.pick(&down);
        let node = self.node_mut(id);
        (node.state_rotten, node.damaged) = (true, true);
        self.tell(&Fact::Fault(Fault::StateRot(id)));
    }

    /// Whether what is stored may be damaged: only at a minority, unless the seed says otherwise.
    fn may_damage(&self, id: NodeId) -> bool {
        self.swarm.ruinous || self.may_lose(id)
    }

    /// Whether the others hold a majority set without it, of the membership in force and of the first one, by which a
    /// new disk is admitted: only a minority is ever lost. Whoever is gone for good admits nobody. And whether one of them
    /// may lead.
    fn may_lose(&self, id: NodeId) -> bool {
        let others = |node| node != id && self.is_sound(node);
        let strangers = |node| others(node) || self.nodes.get(&node).is_some_and(|node| node.gone && node.departing);
        let led = self.nodes.keys().any(|node| others(*node) && self.watchers.is_needed(*node) && self.can_lead(*node));
        led && self.swarm.majority.holds(strangers) && self.watchers.hold(others)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::invariants::Invariants;
    use crate::swarm::Swarm;
    use crate::watchers::Watchers;

    /// S-14: catches damage of a majority where it is not expected, and a world that takes for a fault of the product, where it is,
    /// that nothing can be decided any more; or lets silent nodes decide.
    #[test]
    fn a_majority_is_damaged_only_where_that_is_expected() {
        for ruinous in [false, true] {
            // Hardly anything happens, so that minutes of waiting in vain are no long run.
            let [heartbeat, timeout_min, timeout_max, think] = [100, 500, 600, 200].map(Duration::from_millis);
            let calm = Swarm::calm(3);
            let swarm = Swarm { ruinous, clients: 2, heartbeat, timeout_min, timeout_max, think, ..calm };
            let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
            let mut world = World::new(swarm, 1, watchers);
            let second = Duration::from_secs(1);
            world.plan(
                second * 3,
                Box::new(move |world| {
                    for id in [1, 2].map(NodeId) {
                        world.kill_damaged(id, second);
                    }
                }),
            );
            world.plan(second * 6, Box::new(World::heal));
            world.run().expect("what is lost is not told otherwise");
            assert_eq!(world.watchers.can_decide(), !ruinous);
            let [before, rotten] =
                [world.watchers.last_decided().0, world.watchers.tally.faults.0[Fault::BitRot(NodeId(1)).kind()]];
            assert!(before > 10 && rotten == 1 + u64::from(ruinous), "{before} decided, {rotten} damaged");
        }
    }

    /// Catches a link that goes up and down by chance where it is to do so regularly, in both directions.
    #[test]
    fn a_flapping_link_goes_up_and_down() {
        let swarm = Swarm::calm(3);
        let flap = swarm.flap;
        let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
        let mut world = World::new(swarm, 1, watchers);
        let (one, two) = (NodeId(1), NodeId(2));
        world
            .plan(Duration::from_secs(4), Box::new(move |world| world.cut(Shape::Flapping, &[(one, two), (two, one)])));
        for time in 0..40 {
            let is_up = time % 2 == 1;
            let look = Box::new(move |world: &mut World| {
                let works = (world.network.works(one, two), world.network.works(two, one));
                assert_eq!(works, (is_up, is_up), "after {time} times");
            });
            world.plan(Duration::from_secs(4) + flap * time + flap / 2, look);
        }
        world.plan(Duration::from_secs(4) + flap * 40, Box::new(World::finish));
        world.run().expect("nothing is broken");
    }
}
