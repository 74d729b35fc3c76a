//! The end of the faults, and of the run.
//!
//! Not all is mended: a random *core*, which holds a majority set of nodes that can take part, is
//! up, connected, and stays so. Now and then two of it have no link with each other, and somebody who has one with both may
//! lead; then clients ask none of these two, since a gateway passes calls to who leads and through nobody else. What becomes of all others, the seed says ([`Rest`]): they are cut off
//! from the core, in both directions or in one, and stay down where they are down; or they are a
//! *fringe*, which has links with some of the core and campaigns, flaps and starts again for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use acceptor::core::{Silence, notes_needed};
use protocol::{NodeId, Space, Tick};

use super::{FRESH_CALLS, TIMEOUTS_TO_ANSWER, World};
use crate::fact::{Fact, Stop};
use crate::fault::Shape;
use crate::network::Link;
use crate::schedule::Event;
use crate::swarm::{Rest, Swarm};

/// Of ten thousand worlds whose membership does not change, and whose rest is no fringe, so many have a core in which two nodes
/// have no link with each other.
const PARTLY: u32 = 4_000;
/// After all is answered, so that those who are behind catch up.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// By then they must have: a learner may first hope for the rest of a state that nobody has any more, distrust who sent a
/// wrong one, and then take another one (`learner::Timing`).
const CAUGHT_UP: Duration = Duration::from_secs(60);
/// A client asks one thing after the other, and each may take its time: what is under way, fresh calls, and a read. What
/// is late in this is found at once (`invariants::liveness`); who asks on and on beyond it gets no good answers.
const QUESTIONS: u32 = 2 * (1 + FRESH_CALLS + 1);

/// So many times as long as drawn the faults may last where little happens.
const LONGER_MAX: u32 = 8;

impl World {
    /// Whether too little has happened for the faults to be over.
    pub(super) fn is_too_early(&self) -> bool {
        let Swarm { faults, faults_events, .. } = self.swarm;
        self.events() < faults_events && self.schedule.now() < Tick(0) + faults * LONGER_MAX
    }

    /// The faults last longer, and changes of the membership with them, where these were to last as long.
    pub(super) fn go_on(&mut self) {
        let longer = self.swarm.faults / 8;
        self.schedule.after(longer, Event::Heal);
        if self.schedule.now() <= Tick(0) + self.swarm.changing {
            self.swarm.changing = self.swarm.changing.saturating_add(longer);
            self.clients.go_on_changing(Tick(0) + self.swarm.changing);
        }
    }

    /// The faults are over.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.network.calm();
        self.swarm.pace.refused = 0;
        // Some bytes a piece cost no more than a long time; a whole state of thousands of records needs it all.
        let calm = Swarm::calm(1);
        (self.swarm.snapshot_bytes, self.swarm.piece_commands) = (calm.snapshot_bytes, calm.piece_commands);
        // Whatever is under way about the membership may need anybody yet.
        let may_change = self.watchers.is_in_change() || !self.errands.is_empty() || self.clients.may_change();
        self.end_errands();
        let core = self.choose_core(may_change);
        self.mend_core(core.clone(), &core);
        self.schedule.after(self.swarm.timeout_max * TIMEOUTS_TO_ANSWER * QUESTIONS, Event::End);
    }

    /// These are the core from now on; some of them were not before.
    fn mend_core(&mut self, core: Vec<NodeId>, new: &[NodeId]) {
        self.core.clone_from(&core);
        self.break_the_rest(&core);
        let now = self.schedule.now();
        for id in new.iter().copied() {
            let node = self.node_mut(id);
            (node.cut, node.log_fault, node.state_fault, node.space) = (None, None, None, Space::Ample);
            node.clocks.mend(now);
            let rots = node.log_rotten;
            self.resume(id);
            if rots {
                // Until it starts nobody knows that it will be silent, and no answer could be asked for.
                self.stop(id, Stop::Killed);
            }
            self.restart(id);
        }
        self.part_core();
        let all = self.welcome().into_iter().all(|id| core.contains(&id) || !self.watchers.is_needed(id));
        self.watchers.tally.cores[0] += u64::from(!all && self.watchers.membership().1 > 0);
        self.tell(&Fact::Healed { core: core.clone() });
        self.clients.healed(now, &self.asked_of(&core));
        self.await_clients();
    }

    /// Two nodes of the core may have no link with each other. Not where somebody outside of it may lead (a fringe), whom
    /// then nobody might reach that clients ask.
    fn part_core(&mut self) {
        let may = self.swarm.changes == 0 && self.swarm.rest != Rest::Fringe && self.core.len() > 2;
        if !may || !self.chance.happens(PARTLY) {
            return;
        }
        let mut core = self.core.clone();
        self.chance.shuffle(&mut core);
        let leads = |id: &NodeId| self.can_lead(*id) && self.node(*id).is_sound();
        let Some(middle) = core.iter().copied().find(leads) else { return };
        core.retain(|id| *id != middle);
        self.cut(Shape::Rest, &[(core[0], core[1]), (core[1], core[0])]);
        self.watchers.tally.cores[2] += 1;
    }

    /// A call for which nobody waited any more has changed the membership: who is needed now may not be there.
    pub(super) fn widen_core(&mut self) {
        if !self.healed {
            return;
        }
        let needed = self.welcome();
        let new: Vec<NodeId> =
            needed.into_iter().filter(|id| self.watchers.is_needed(*id) && !self.core.contains(id)).collect();
        if !new.is_empty() {
            self.watchers.tally.cores[1] += 1;
            self.mend_core([&self.core[..], &new].concat(), &new);
        }
    }

    fn welcome(&self) -> Vec<NodeId> {
        self.nodes.values().filter(|node| node.is_welcome()).map(|node| node.id).collect()
    }

    /// A majority set of nodes that can take part, and perhaps more of them. Where a change of the membership may come, all
    /// that are needed.
    fn choose_core(&mut self, may_change: bool) -> Vec<NodeId> {
        let mut left = self.welcome();
        self.chance.shuffle(&mut left);
        // Those that are silent do not count, and may be there.
        left.sort_by_key(|id| !self.node(*id).is_sound());
        left.retain(|id| self.watchers.is_needed(*id));
        if may_change {
            return left;
        }
        let mut core = BTreeSet::new();
        for id in left.iter().copied() {
            if !self.is_enough(&core) || self.chance.happens(3_000) {
                core.insert(id);
            }
        }
        // What was lost, or not heard of, the others may have to make up for.
        let suffices = self.swarm.changes == 0 || self.watchers.could_decide(&core) && self.meet_each_other(&core);
        if suffices { core.into_iter().collect() } else { left }
    }

    /// Whether these hold a majority set, and one of them may lead. Where the membership changes they are most of the
    /// learners, too: only then can everybody who has lost something learn it again.
    fn is_enough(&self, core: &BTreeSet<NodeId>) -> bool {
        let (membership, changes) = self.watchers.membership();
        let learn = changes == 0 || core.len() > membership.nodes().len() / 2;
        let leads = |id: &NodeId| self.can_lead(*id) && membership.may_lead(*id);
        learn && core.iter().any(leads) && self.watchers.hold(|id| core.contains(&id))
    }

    /// Whether what these have heard of the membership joins them all: strangers do not talk to each other.
    fn meet_each_other(&self, core: &BTreeSet<NodeId>) -> bool {
        let membership = |id: NodeId| {
            let node = self.node(id);
            node.roles.as_ref().map_or(&node.seat, |roles| &roles.membership)
        };
        let knows = |one: NodeId, other: NodeId| membership(one).node(other).is_some();
        let mut met: BTreeSet<NodeId> = core.first().copied().into_iter().collect();
        let mut more: Vec<NodeId> = met.iter().copied().collect();
        while let Some(one) = more.pop() {
            let new = core.iter().filter(|other| !met.contains(other) && knows(one, **other) && knows(**other, one));
            let new: Vec<NodeId> = new.copied().collect();
            met.extend(&new);
            more.extend(new);
        }
        met.len() == core.len()
    }

    /// Whom clients ask: those of the core that are members, and reach all others of it. Others may be there because nobody
    /// else knows of a change.
    fn asked_of(&self, core: &[NodeId]) -> Vec<NodeId> {
        let (membership, _) = self.watchers.membership();
        let reaches_all = |id: NodeId| core.iter().all(|other| *other == id || self.network.connects(id, *other));
        let members = core.iter().copied().filter(|id| membership.node(*id).is_some() && reaches_all(*id));
        let members: Vec<NodeId> = members.collect();
        if members.is_empty() { core.to_vec() } else { members }
    }

    /// Links within the core work; those to all others are as the seed says ([`Rest`]). Links between those others stay as
    /// they are, or work.
    fn break_the_rest(&mut self, core: &[NodeId]) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for one in core.iter().copied() {
            for other in core.iter().copied().filter(|other| *other != one) {
                self.network.mend(one, other);
            }
        }
        let outside: Vec<NodeId> = nodes.into_iter().filter(|id| !core.contains(id)).collect();
        for (place, one) in outside.iter().copied().enumerate() {
            for other in outside[..place].iter().copied() {
                if self.swarm.rest == Rest::Fringe && self.chance.coin() {
                    self.network.mend(one, other);
                    self.network.mend(other, one);
                }
            }
            self.link_to_core(one, core);
        }
    }

    /// Which links a node has to those of a core to which it does not belong. Where the rest is a fringe it has links in both
    /// directions with some of them, and some of these go up and down; with the others it has one in one direction, or none.
    pub(super) fn link_to_core(&mut self, one: NodeId, core: &[NodeId]) {
        let mut core = core.to_vec();
        self.chance.shuffle(&mut core);
        let near = match self.swarm.rest {
            Rest::Fringe if core.len() > 1 => 1 + self.chance.index(core.len() - 1),
            Rest::Fringe | Rest::CutOff | Rest::OneWay => 0,
        };
        let (mut cut, mut flaps): (Vec<Link>, Vec<Link>) = (Vec::new(), Vec::new());
        let all_flap = self.chance.coin();
        for (place, other) in core.into_iter().enumerate() {
            let both = [(one, other), (other, one)];
            for (from, to) in both {
                self.network.mend(from, to);
            }
            if place < near {
                flaps.extend(both.into_iter().filter(|_| all_flap && self.chance.coin()));
                continue;
            }
            let ways = if self.swarm.rest == Rest::CutOff { 0 } else { self.chance.below(3) };
            cut.extend(both.into_iter().zip([1, 2]).filter(|(_, way)| *way != ways).map(|(link, _)| link));
        }
        for (shape, links) in [(Shape::Rest, cut), (Shape::Fringe, flaps)] {
            if !links.is_empty() {
                self.cut(shape, &links);
            }
        }
    }

    /// Those of the core that are silent and must not be.
    pub(super) fn still_silent(&self) -> Vec<NodeId> {
        let state = |id: NodeId| self.node(id).roles.as_ref().map(|roles| roles.acceptor.silence());
        let (membership, _) = self.watchers.membership();
        let members = self.core.iter().filter(|id| membership.node(**id).is_some());
        let core: BTreeMap<NodeId, Option<Silence>> = members.filter_map(|id| Some((*id, state(*id)?))).collect();
        let noted = |id| self.can_be_noted(id);
        let silent = must_speak(&core, membership.nodes().len(), |speaks| self.watchers.hold(speaks), noted);
        let is_alone = |id| match core[&id] {
            Some(Silence::Damaged) => self.is_led_from_afar(id) || self.hears_too_few(id),
            Some(Silence::Behind) => self.hears_too_few(id),
            Some(Silence::Fresh | Silence::Replaced) | None => false,
        };
        silent.into_iter().filter(|id| !is_alone(*id)).collect()
    }

    /// Whether who leads does not reach this node, or is not reached by it. It is the leader that
    /// tells a damaged node what to learn, and nobody passes that on.
    fn is_led_from_afar(&self, id: NodeId) -> bool {
        let led = self.nodes.values().filter_map(|node| node.roles.as_ref()?.leader.leads()).max();
        led.is_some_and(|ballot| ballot.node != id && !self.network.connects(ballot.node, id))
    }

    /// Whether this node hears fewer than a majority of all learners, itself among them. What is durable each says of itself,
    /// in its heartbeats, and nobody passes that on.
    fn hears_too_few(&self, id: NodeId) -> bool {
        let (membership, _) = self.watchers.membership();
        let learners = membership.nodes();
        let heard = |other: &NodeId| *other == id || self.core.contains(other) && self.network.works(*other, id);
        learners.keys().filter(|other| heard(other)).count() <= learners.len() / 2
    }

    /// Whether enough acceptors of the core can note the disk of a node. One with a disk in the place of a lost one does not
    /// count, nor one to which it is a stranger.
    fn can_be_noted(&self, id: NodeId) -> bool {
        let Some(roles) = &self.node(id).roles else { return false };
        let notes = |other: NodeId| {
            let met = self.core.contains(&other) && self.knows(id, other) && self.knows(other, id);
            let met = met && self.network.connects(id, other);
            met && !self.node(other).replaced
        };
        let acceptors = roles.began_in.majority();
        let others = acceptors.nodes().iter().filter(|other| **other != id && notes(**other));
        others.count() >= notes_needed(acceptors, id)
    }

    /// The run ends soon after the clients are content, and nobody is silent who need not be.
    pub(super) fn end_when_done(&mut self) {
        if self.healed && self.ending.is_none() && self.clients.done() && self.still_silent().is_empty() {
            self.ending = Some((self.schedule.now(), self.watchers.last_decided()));
            self.schedule.after(AFTERWARDS, Event::End);
        }
    }

    /// Members of the core that have not applied what was decided when all was answered. Who was away while all that it
    /// knows of were replaced finds nobody: to it the others are strangers, and it must join anew. So must those that only
    /// such nodes could help.
    fn still_behind(&self) -> Vec<NodeId> {
        let Some((_, decided)) = self.ending else { return Vec::new() };
        let (membership, _) = self.watchers.membership();
        let applied = |id: &NodeId| Some(self.nodes.get(id)?.roles.as_ref()?.progress.applied);
        let is_there = |id: &NodeId| applied(id) >= Some(decided);
        let (mut found, mut behind): (Vec<_>, Vec<_>) = self.core.iter().copied().partition(is_there);
        let nobody_is = found.is_empty();
        let mut lost = behind.clone();
        while let Some(one) = found.pop() {
            let (near, far) = lost.into_iter().partition(|id| self.knows(*id, one));
            lost = far;
            found.extend::<Vec<_>>(near);
        }
        behind.retain(|id| membership.node(*id).is_some() && (nobody_is || !lost.contains(id)));
        behind
    }

    /// Last, the core starts once more from its disks: what it has there is what it showed.
    ///
    /// # Errors
    /// The clients are not content, or a node is silent or behind that had the time to learn what it lacks.
    pub(super) fn end(&mut self) -> Result<(), String> {
        // Who must speak depends on who leads, and that may have changed.
        self.end_when_done();
        if self.ending.is_none() && self.watchers.can_decide() {
            return Err("liveness: long after the faults clients have no good answers yet".to_owned());
        }
        if let ([id, ..], Some((since, _))) = (&self.still_behind()[..], self.ending) {
            if self.schedule.now().since(since) < CAUGHT_UP {
                self.schedule.after(AFTERWARDS, Event::End);
                return Ok(());
            }
            return Err(format!("liveness: node {id} of the core has not caught up long after all was answered"));
        }
        if let [id, ..] = self.still_silent()[..] {
            // A write may have failed late that was to fail during the faults, and its node have just started again.
            if self.ending.is_some_and(|(since, _)| self.schedule.now().since(since) < CAUGHT_UP) {
                self.schedule.after(AFTERWARDS, Event::End);
                return Ok(());
            }
            return Err(format!("liveness: node {id} is silent long after the faults, and a majority set speaks"));
        }
        for id in self.core.clone() {
            self.stop(id, Stop::Killed);
            self.start(id);
        }
        self.ended = true;
        Ok(())
    }
}

/// Those of a core that are silent and can do something about it. Who has lost something can learn it where the others
/// hold a majority set that speaks. Such silence ends with what a majority of the learners have durable, all nodes, and
/// where votes weigh differently the core may have fewer. A new disk needs nothing but that enough others note it.
fn must_speak(
    core: &BTreeMap<NodeId, Option<Silence>>,
    nodes: usize,
    hold: impl Fn(&dyn Fn(NodeId) -> bool) -> bool,
    can_be_noted: impl Fn(NodeId) -> bool,
) -> Vec<NodeId> {
    let most_learn = core.len() > nodes / 2;
    let can_learn = most_learn && hold(&|id| core.get(&id) == Some(&None));
    let must = |id: NodeId, silence: Option<Silence>| match silence {
        Some(Silence::Damaged | Silence::Behind) => can_learn,
        Some(Silence::Fresh) => can_be_noted(id),
        Some(Silence::Replaced) | None => false,
    };
    core.iter().filter(|(id, silence)| must(**id, **silence)).map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::{CommandNumber, MajoritySets, Membership, Tick};

    use super::*;
    use crate::invariants::Invariants;
    use crate::watchers::Watchers;

    /// S-14, A13: catches a node that need not be silent and is not asked for, and one that is asked for although nobody
    /// can let it speak: too few learners are up for anything to be durable, or too few others vote, or it is silent for
    /// ever.
    #[test]
    fn who_has_lost_something_speaks_again_when_it_can() {
        let core = |last: Silence, others: u64| {
            let others = (1..=others).map(|id| (NodeId(id), None));
            others.chain([(NodeId(6), Some(last))]).collect::<BTreeMap<_, _>>()
        };
        let asked = |core: &_, nodes, sets: &MajoritySets, noted: bool| {
            must_speak(core, nodes, |speaks| sets.holds(speaks), |_| noted)
        };
        let must_speak = |core: &_, nodes, sets: &MajoritySets| asked(core, nodes, sets, false);
        let heavy = MajoritySets::weighted((1..=6).map(|id| (NodeId(id), u64::from(id < 3)))).expect("two count");
        let six = MajoritySets::simple((1..=6).map(NodeId)).expect("six");
        for lost in [Silence::Damaged, Silence::Behind] {
            assert_eq!(must_speak(&core(lost, 3), 6, &heavy), [NodeId(6)]);
            assert_eq!(must_speak(&core(lost, 4), 6, &six), [NodeId(6)]);
            assert_eq!(must_speak(&core(lost, 2), 6, &heavy), [], "half of the learners");
            assert_eq!(must_speak(&core(lost, 3), 6, &six), [], "half of the votes");
        }
        assert_eq!(must_speak(&core(Silence::Fresh, 4), 6, &six), [], "too few can note it");
        assert_eq!(asked(&core(Silence::Fresh, 4), 6, &six, true), [NodeId(6)]);
        assert_eq!(asked(&core(Silence::Fresh, 2), 6, &six, true), [NodeId(6)], "nobody need speak for that");
        assert_eq!(asked(&core(Silence::Replaced, 4), 6, &six, true), []);
    }

    /// Catches faults that end before enough has happened, and ones that never do where too little happens.
    #[test]
    fn faults_last_until_enough_has_happened() {
        let world = |faults_events| {
            let swarm = Swarm { faults: Duration::from_secs(1), faults_events, ..Swarm::calm(3) };
            let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
            let mut world = World::new(swarm, 1, watchers);
            world.trouble();
            world
        };
        let mut healed = [0, 5_000, u64::MAX].map(|events| {
            let mut world = world(events);
            while !world.healed {
                let event = world.schedule.pop().expect("the faults end");
                world.handle(event).expect("nothing is broken");
            }
            (world.events(), world.schedule.now())
        });
        let [short, long, longest] = &mut healed;
        assert!(short.0 < 5_000 && short.1 == Tick(1_000_000), "{short:?}");
        assert!(long.0 >= 5_000 && (1_000_001..8_000_000).contains(&long.1.0), "{long:?}");
        assert_eq!(longest.1, Tick(8_000_000));
    }

    /// S-28: catches a fringe that has links with all of the core, or with nobody in it, none of whose links flap, or that
    /// loses links within the core; and another rest that reaches somebody and is reached by it.
    #[test]
    fn the_rest_is_as_the_seed_says() {
        let (core, [near, far]) = ([1, 2, 3].map(NodeId), [4, 5].map(NodeId));
        for rest in [Rest::CutOff, Rest::OneWay, Rest::Fringe] {
            let (mut kept, mut flaps, mut one_way) = (BTreeSet::new(), false, false);
            for seed in 0..40 {
                let swarm = Swarm { rest, flaps_apart: true, ..Swarm::calm(5) };
                let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
                let mut world = World::new(swarm, seed, watchers);
                world.cut(Shape::Partial, &[(core[0], core[1]), (near, far)]);
                world.break_the_rest(&core);
                assert!(core.iter().all(|one| core.iter().all(|other| world.network.works(*one, *other))));
                let network = &world.network;
                let keeps = |from: NodeId, to: NodeId| network.works(from, to) || network.flaps(from, to);
                kept.insert(core.iter().filter(|one| keeps(**one, far) && keeps(far, **one)).count());
                flaps |= core.iter().any(|one| network.flaps(*one, far) || network.flaps(far, *one));
                one_way |= core.iter().any(|one| keeps(*one, far) != keeps(far, *one));
            }
            assert_eq!(kept, if rest == Rest::Fringe { [1, 2].into() } else { [0].into() }, "{rest:?}");
            assert_eq!((flaps, one_way), (rest == Rest::Fringe, rest != Rest::CutOff), "{rest:?}");
        }
    }

    /// Seeds 876 and 150000476: catches a member that is asked for although it can hear of nothing, as who it knows of the
    /// core knows none of those that are there; and one that is let off although somebody who is behind with it could help.
    #[test]
    fn who_knows_only_lost_nodes_must_join_anew() {
        let swarm = Swarm::calm(4);
        let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
        let mut world = World::new(swarm, 1, watchers);
        let all = Membership::of_equals(4);
        let only = |nodes: &[u64]| {
            let gone = (1..=4).filter(|id| !nodes.contains(id));
            Arc::new(gone.fold((*all).clone(), |left, id| left.without(NodeId(id)).expect("others are left")))
        };
        let mut behind = |seats: [&Arc<Membership>; 3], decided: u64| {
            for (id, seat) in (2..).map(NodeId).zip(seats) {
                world.node_mut(id).roles.as_mut().expect("it is up").membership = Arc::clone(seat);
            }
            let first = world.node_mut(NodeId(1)).roles.as_mut().expect("it is up");
            first.progress.applied = CommandNumber(1);
            world.core = (1..=4).map(NodeId).collect();
            world.ending = Some((Tick(0), CommandNumber(decided)));
            world.still_behind()
        };
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let (two, three, four) = (only(&[2, 3]), only(&[3]), only(&[3, 4]));
        assert_eq!(behind([&all, &all, &all], 1), ids(&[2, 3, 4]));
        assert_eq!(behind([&two, &three, &all], 1), ids(&[4]), "2 knows 3, which knows nobody");
        assert_eq!(behind([&two, &four, &all], 1), ids(&[2, 3, 4]), "2 knows 3, which knows 4");
        assert_eq!(behind([&two, &three, &all], 2), ids(&[1, 2, 3, 4]), "nobody is there");
    }

    /// A13, S-28: catches a core in which nobody who may lead reaches all others, clients that ask one of the two that do not reach
    /// each other, and worlds that are never, or always, like that.
    #[test]
    fn two_of_a_core_may_not_reach_each_other() {
        let mut parted = 0;
        for seed in 0..60 {
            let swarm = Swarm { rest: Rest::CutOff, ..Swarm::calm(5) };
            let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
            let mut world = World::new(swarm, seed, watchers);
            let core: Vec<NodeId> = (1..=4).map(NodeId).collect();
            world.mend_core(core.clone(), &[]);
            let far = |one: &NodeId| core.iter().any(|other| other != one && !world.network.connects(*one, *other));
            let far: Vec<NodeId> = core.iter().copied().filter(far).collect();
            let asked = world.asked_of(&core);
            assert_eq!(asked, core.iter().copied().filter(|id| !far.contains(id)).collect::<Vec<_>>());
            assert!(far.is_empty() || far.len() == 2, "{far:?}");
            assert!(asked.iter().any(|id| world.can_lead(*id)));
            parted += u64::from(!far.is_empty());
            assert_eq!(world.watchers.tally.cores[2], u64::from(!far.is_empty()));
        }
        assert!((10..40).contains(&parted), "{parted}");
    }

    /// S-16: catches a new disk that stays unknown and is not asked for, and one that is asked for although too few of the
    /// core can note it: others count, that know it and have their first disks.
    #[test]
    fn a_new_disk_is_known_to_enough_others() {
        let swarm = Swarm::calm(5);
        let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
        let mut world = World::new(swarm, 1, watchers);
        let can = |world: &World| world.can_be_noted(NodeId(1));
        world.core = (1..=3).map(NodeId).collect();
        assert!(!can(&world), "three others are needed");
        world.core.push(NodeId(4));
        assert!(can(&world));
        world.node_mut(NodeId(4)).replaced = true;
        assert!(!can(&world), "what it knew is lost");
        world.core.push(NodeId(5));
        assert!(can(&world));
        world.stop(NodeId(5), Stop::Killed);
        assert!(!can(&world), "it is down");
    }

    /// Seed 1796049681705: catches a damaged node that is asked for although half of the learners are all that it hears, and
    /// one that is let off although it hears more.
    #[test]
    fn who_hears_a_majority_knows_what_is_durable() {
        let swarm = Swarm::calm(4);
        let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
        let mut world = World::new(swarm, 1, watchers);
        let [one, two, three] = [1, 2, 3].map(NodeId);
        world.core = vec![one, two, three];
        assert!(!world.hears_too_few(one));
        world.cut(Shape::Rest, &[(one, three)]);
        assert!(!world.hears_too_few(one), "it is the other one that does not hear");
        world.cut(Shape::Rest, &[(three, one)]);
        assert!(world.hears_too_few(one), "whoever is not of the core may be gone");
        assert!(!world.hears_too_few(two));
    }

    /// A13: catches runs that end well although clients have no good answers, or although a node of the core has not applied
    /// what was decided when all was answered; and one that is held against a node which still has time, is no member, or
    /// whose cluster cannot decide anything any more.
    #[test]
    fn a_run_does_not_end_well_before_all_is_well() {
        let after = |seconds: u64| {
            // Hardly anything happens, so that a minute is no long run.
            let [heartbeat, timeout, think] = [300, 1_500, 1_000].map(Duration::from_millis);
            let calm = Swarm::calm(3);
            let swarm = Swarm { clients: 1, think, heartbeat, timeout_min: timeout, timeout_max: timeout, ..calm };
            let watchers = Watchers::new(Invariants::new(&swarm.genesis(), swarm.timeout_max), 0);
            let mut world = World::new(swarm, 1, watchers);
            world.core = (1..=3).map(NodeId).collect();
            world.plan(Duration::from_secs(seconds), Box::new(World::finish));
            world.run().expect("nothing is broken");
            world.ended = false;
            world
        };
        let told = |world: &mut World| world.end().expect_err("it is not well");
        let mut world = after(8);
        assert_eq!(told(&mut world), "liveness: long after the faults clients have no good answers yet");
        let decided = world.watchers.last_decided();
        world.ending = Some((Tick(0), decided.next()));
        assert_eq!(world.end(), Ok(()), "there is time");
        assert!(!world.ended);
        let mut late = after(CAUGHT_UP.as_secs() + 1);
        let decided = late.watchers.last_decided();
        late.ending = Some((Tick(0), CommandNumber(decided.0 + 1)));
        assert_eq!(told(&mut late), "liveness: node 1 of the core has not caught up long after all was answered");
        late.core = vec![NodeId(4)];
        assert_eq!(late.still_behind(), [], "no member");
        late.core = (1..=3).map(NodeId).collect();
        late.ending = None;
        for node in [1, 2] {
            late.tell(&Fact::Fault(crate::fault::Fault::DiskLost(NodeId(node))));
        }
        assert_eq!(late.end(), Ok(()), "nobody can decide");
        assert!(late.ended);
    }
}
