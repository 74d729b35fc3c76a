//! What one seed draws for its world: its size, settings, weather, and which faults there are.
//!
//! No world has all faults: some hide others (Groce et al., *Swarm Testing*). Each kind is on in
//! about half of the seeds, at a rate of its own, so that over many seeds each meets each, and
//! each is met alone.

mod kinds;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use learner::History;
use protocol::membership::Rule;
use protocol::{LearnFrom, MajoritySets, Member, Membership, NodeId};

use crate::chance::Chance;
use crate::clocks::{DRIFT_MAX, WRONG_MAX};
use crate::fault::Shape;
use crate::network::Weather;
use crate::planted::Planted;

pub use kinds::Trouble;

/// How long outcomes of calls are kept, usually: longer than any run, and than any clock is wrong.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// In 10,000: worlds in which they are forgotten within the run.
const FORGETFUL: u32 = 1_500;
/// In so many of 10,000 nodes campaign all the time: the lead changes between votes of some for each of its commands.
const CONTENDED: u32 = 1_000;

/// In 10,000: worlds in which damage is not bounded by what a cluster stands.
const RUINOUS: u32 = 300;

/// Of a thousand calls, how many are about the membership: none in two worlds of three.
const CHANGES: [u32; 6] = [0, 0, 0, 0, 80, 200];

/// How long and how often roles do things, and how much at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From an input in an empty mailbox to the turn that handles it: at most this long for the
    /// leader.
    pub leader: Duration,
    /// The same for the acceptor: its sync.
    pub acceptor: Duration,
    /// The same for the learner: its write.
    pub learner: Duration,
    /// A function on the pool, at most.
    pub pool: Duration,
    /// Inputs that one turn handles, at most.
    pub turn_inputs: usize,
    /// In 10,000: inputs that a full mailbox refuses.
    pub refused: u32,
}

/// A node that never leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Which.
    pub node: NodeId,
    /// The membership says so; otherwise the node's own roles do, of which others hear only by heartbeats.
    pub by_membership: bool,
}

/// What becomes, after the faults, of those that are not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nobody of the core hears them, or is heard by them.
    CutOff,
    /// No node of the core reaches one of them and is reached by it.
    OneWay,
    /// Each has links in both directions with some of the core, and not with all of it; there suspicions, flapping links and
    /// restarts go on.
    Fringe,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// All nodes.
    pub nodes: Vec<NodeId>,
    /// Their majority sets.
    pub majority: MajoritySets,
    /// By which rule these are told.
    pub rule: Rule,
    /// One of them that never leads.
    pub follower: Option<Follower>,
    /// Who decides that a command is issued.
    pub learn_from: LearnFrom,
    /// Claim 5.
    pub window: u64,
    /// `BeginBallot` rounds under way.
    pub rounds_in_flight: u64,
    /// Bytes of one `BeginBallot`.
    pub run_bytes: usize,
    /// Bytes of one part of a promise.
    pub part_bytes: usize,
    /// Bytes proposed and not issued.
    pub pipeline_bytes: usize,
    /// Calls that a leader keeps.
    pub kept_calls: usize,
    /// Commands in an answer to `CatchUp`.
    pub piece_commands: usize,
    /// Commands that learners keep.
    pub history: History,
    /// Bytes of a piece of a whole state.
    pub snapshot_bytes: usize,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// The shortest election timeout.
    pub timeout_min: Duration,
    /// The longest.
    pub timeout_max: Duration,
    /// The links.
    pub weather: Weather,
    /// Whether a connection breaks when a link of it stops, or waits.
    pub cuts_break: bool,
    /// The roles.
    pub pace: Pace,
    /// What happens, with weights.
    pub troubles: Vec<(Trouble, u64)>,
    /// Between two troubles, at most.
    pub trouble_pause: Duration,
    /// How long a node is down or stands still, at most.
    pub down: Duration,
    /// Between changes of a flapping link, at most.
    pub flap: Duration,
    /// Each of them has its own pace, which may be irregular, instead of all changing together.
    pub flaps_apart: bool,
    /// How many clients there are.
    pub clients: u64,
    /// The nodes that they ask.
    pub asked: Vec<NodeId>,
    /// Between an answer and the next question, at most.
    pub think: Duration,
    /// The faults come and go: as long as this each, on average, there are none, and there are all. Always all, if nothing.
    pub spells: Duration,
    /// How long the faults last.
    pub faults: Duration,
    /// They go on until there were so many events, at most eight times as long.
    pub faults_events: u64,
    /// What becomes of the rest then.
    pub rest: Rest,
    /// How long outcomes of calls are kept that have a key of their caller's.
    pub caller_retention: Duration,
    /// The same of those that a gateway has named.
    pub gateway_retention: Duration,
    /// The farthest that a wall clock is wrong by jumps.
    pub wrong_max: Duration,
    /// And beyond that by its rate.
    pub drift_max: Duration,
    /// Votes and states may be damaged at a majority, too. Nothing need go on then, and still nothing false may be said.
    pub ruinous: bool,
    /// Of a thousand calls, how many are about the membership.
    pub changes: u32,
    /// How long they are asked for: not up to the end of the faults in some worlds, so that none is under way then.
    pub changing: Duration,
    /// Of a thousand calls, how many ask that the lead be handed over.
    pub hand_overs: u32,
    /// A mistake that must be caught.
    pub planted: Option<Planted>,
}

impl Swarm {
    /// A world without faults, with the settings of a default configuration.
    ///
    /// # Panics
    /// When there is to be no node.
    #[must_use]
    pub fn calm(nodes: u64) -> Self {
        let nodes: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let (micros, millis) = (Duration::from_micros, Duration::from_millis);
        Self {
            majority: MajoritySets::simple(nodes.iter().copied()).expect("a world has nodes"),
            rule: Rule::Weights,
            follower: None,
            asked: nodes.clone(),
            nodes,
            learn_from: LearnFrom::Leader,
            window: 1024,
            rounds_in_flight: 2,
            run_bytes: 4 << 20,
            part_bytes: 1 << 20,
            pipeline_bytes: 32 << 20,
            kept_calls: 10_000,
            piece_commands: 2048,
            history: History { retention: Duration::from_secs(3_600), commands: 10_000_000, bytes: 1 << 30 },
            snapshot_bytes: 1 << 20,
            heartbeat: millis(50),
            timeout_min: millis(250),
            timeout_max: millis(2_000),
            weather: Weather::fair(micros(200), millis(1)),
            cuts_break: false,
            pace: Pace {
                leader: micros(50),
                acceptor: millis(1),
                learner: micros(500),
                pool: millis(5),
                turn_inputs: 1_024,
                refused: 0,
            },
            troubles: Vec::new(),
            trouble_pause: millis(1_000),
            down: millis(1_000),
            flap: millis(200),
            flaps_apart: false,
            clients: 4,
            think: millis(50),
            spells: Duration::ZERO,
            faults: Duration::ZERO,
            faults_events: 0,
            rest: Rest::CutOff,
            caller_retention: KEPT,
            gateway_retention: KEPT,
            wrong_max: WRONG_MAX,
            drift_max: DRIFT_MAX,
            ruinous: false,
            changes: 0,
            changing: Duration::MAX,
            hand_overs: 0,
            planted: None,
        }
    }

    /// What a seed draws. Faults last `faults`; of a thousand calls `asked` are about the membership, where that is
    /// not left to the seed.
    #[must_use]
    pub fn draw(chance: &mut Chance, faults: Duration, asked: Option<u32>) -> Self {
        let millis = Duration::from_millis;
        let nodes = chance.pick(&[3, 3, 3, 4, 5, 5, 6, 7]);
        let calm = Self::calm(nodes);
        let heartbeat = chance.pick(&[20, 50, 100]);
        let drawn = chance.pick(&CHANGES);
        let changes = asked.unwrap_or(drawn);
        let (majority, rule) = majority(&calm.nodes, chance);
        let swarm = Self {
            majority,
            rule,
            follower: follower(&calm.nodes, chance),
            learn_from: chance.pick(&[LearnFrom::Leader, LearnFrom::Voters]),
            window: chance.pick(&[1, 2, 8, 64, 1024]),
            rounds_in_flight: chance.between(1, 4),
            run_bytes: chance.pick(&[1, 200, 4_000, 4 << 20]),
            part_bytes: chance.pick(&[1, 500, 1 << 20]),
            pipeline_bytes: chance.pick(&[1_000, 1 << 20, 32 << 20]),
            kept_calls: chance.pick(&[5, 100, 10_000]),
            piece_commands: chance.pick(&[1, 3, 20, 2048]),
            history: history(chance),
            snapshot_bytes: chance.pick(&[200, 2_000, 1 << 20]),
            heartbeat: millis(heartbeat),
            timeout_min: millis(5 * heartbeat),
            timeout_max: millis(chance.pick(&[1_000, 2_000])),
            weather: weather(chance),
            cuts_break: chance.coin(),
            pace: pace(chance),
            troubles: troubles(chance, changes > 0),
            trouble_pause: millis(chance.pick(&[150, 300, 600, 2_000])),
            down: millis(chance.pick(&[100, 500, 2_000, 6_000])),
            flap: millis(chance.pick(&[50, 200, 600])),
            flaps_apart: true,
            clients: chance.between(2, 10),
            think: millis(chance.pick(&[2, 20, 100])),
            spells: millis(chance.pick(&[0, 1_000, 4_000])),
            faults,
            rest: chance.pick(&[Rest::CutOff, Rest::OneWay, Rest::Fringe, Rest::Fringe]),
            changes,
            changing: faults * chance.pick(&[4, 3, 2]) / 4,
            hand_overs: sometimes(chance, &[10, 30, 70]),
            ruinous: chance.happens(RUINOUS),
            ..calm
        };
        // Not where changes are asked for, which such a world has none of.
        let contended = chance.happens(CONTENDED) && asked.unwrap_or_default() == 0;
        let swarm = if contended { swarm.contended() } else { swarm };
        if chance.happens(FORGETFUL) { swarm.forgetful() } else { swarm }
    }

    /// The lead changes so often, and so much is lost, that commands of several ballots have some votes each: what a new leader makes
    /// of them decides (S-02).
    fn contended(self) -> Self {
        let troubles = vec![(Trouble::Suspicion, 10), (Trouble::Partition(Shape::OneWay), 1), (Trouble::Heal, 2)];
        let weather = Weather { loss: 3_000, ..self.weather };
        let (trouble_pause, spells) = (Duration::from_millis(60), Duration::ZERO);
        Self { troubles, weather, trouble_pause, spells, changes: 0, ..self }
    }

    /// Outcomes are forgotten while clients ask on. Of a call that a gateway has named no copy is under way for as long, and
    /// no clock is as wrong, as the configuration demands it (ADR 0006).
    fn forgetful(mut self) -> Self {
        let millis = Duration::from_millis;
        (self.caller_retention, self.gateway_retention) = (millis(2_000), millis(8_000));
        (self.wrong_max, self.drift_max) = (millis(300), Duration::ZERO);
        self.timeout_max = millis(1_000);
        self.down = self.down.min(millis(500));
        self.weather.spike_max = self.weather.spike_max.min(millis(500));
        self.troubles.retain(|(trouble, _)| *trouble != Trouble::ClockRate);
        self
    }
}

impl Swarm {
    /// The membership that nodes begin with.
    #[must_use]
    pub fn genesis(&self) -> Arc<Membership> {
        let follower = self.follower.filter(|follower| follower.by_membership);
        let member = |id: &NodeId| {
            let (name, weight) = (format!("n{id}"), self.majority.weight(*id));
            let may_lead = follower.is_none_or(|follower| follower.node != *id);
            (*id, Member { address: format!("{name}:7080"), name, weight, may_lead })
        };
        let genesis = Membership::genesis(self.nodes.iter().map(member).collect(), self.rule.clone());
        Arc::new(genesis.expect("one of them votes, and another one leads"))
    }

    /// Whether a node has the role of a leader.
    #[must_use]
    pub fn has_role_leader(&self, node: NodeId) -> bool {
        self.follower.is_none_or(|follower| follower.by_membership || follower.node != node)
    }
}

/// In a fifth of all worlds there is one.
fn follower(nodes: &[NodeId], chance: &mut Chance) -> Option<Follower> {
    let follower = Follower { node: chance.pick(nodes), by_membership: chance.coin() };
    chance.happens(2_000).then_some(follower)
}

/// Mostly a simple majority; sometimes weights, of which one may be nothing, or a list of sets.
fn majority(nodes: &[NodeId], chance: &mut Chance) -> (MajoritySets, Rule) {
    if chance.happens(1_000) {
        let sets = sets(nodes, chance);
        let majority = MajoritySets::explicit(sets.clone()).expect("any two of them meet");
        return (majority, Rule::Sets(sets));
    }
    let weighted = chance.happens(1_500);
    let mut weights: Vec<(NodeId, u64)> =
        nodes.iter().map(|node| (*node, if weighted { chance.between(0, 3) } else { 1 })).collect();
    weights[0].1 = weights[0].1.max(1);
    (MajoritySets::weighted(weights).expect("one of them weighs something"), Rule::Weights)
}

/// One node with any of some others, or all of those: any two such sets meet, and whoever is in none only learns. Of
/// seven nodes also the lines of the Fano plane: three nodes each, and any two lines meet in one.
fn sets(nodes: &[NodeId], chance: &mut Chance) -> BTreeSet<BTreeSet<NodeId>> {
    let mut nodes = nodes.to_vec();
    chance.shuffle(&mut nodes);
    if nodes.len() == 7 && chance.coin() {
        return (0..7).map(|line| [0, 1, 3].map(|place| nodes[(line + place) % 7]).into()).collect();
    }
    nodes.truncate(3 + chance.index(nodes.len() - 2));
    let hub = nodes.remove(0);
    let all: BTreeSet<NodeId> = nodes.iter().copied().collect();
    nodes.iter().map(|other| [hub, *other].into()).chain([all]).collect()
}

fn sometimes(chance: &mut Chance, rates: &[u32]) -> u32 {
    if chance.coin() { chance.pick(rates) } else { 0 }
}

fn weather(chance: &mut Chance) -> Weather {
    let delay_max = Duration::from_micros(chance.pick(&[500, 2_000, 10_000, 40_000]));
    Weather {
        loss: sometimes(chance, &[300, 2_200, 4_900, 6_900]),
        duplicate: sometimes(chance, &[50, 300, 1_000]),
        reorder: chance.pick(&[0, 2_000, 5_000, 5_500, 6_500, 7_000]),
        spike: sometimes(chance, &[10, 100, 300]),
        spike_max: Duration::from_millis(chance.pick(&[100, 500, 3_000])),
        ..Weather::fair(Duration::from_micros(100), delay_max)
    }
}

/// In most worlds less than one of some seconds needs, so that who is away then needs a whole state.
fn history(chance: &mut Chance) -> History {
    let calm = Swarm::calm(1).history;
    History {
        retention: chance.pick(&[Duration::ZERO, Duration::from_secs(1), calm.retention]),
        commands: chance.pick(&[1, 10, 30, calm.commands]),
        bytes: chance.pick(&[1_000, calm.bytes]),
    }
}

fn pace(chance: &mut Chance) -> Pace {
    let micros = Duration::from_micros;
    let turn_inputs = chance.pick(&[1, 4, 1_024, 1_024]);
    // A role that takes one input at a time, slowly, falls behind heartbeats alone for ever.
    let most = if turn_inputs < 100 { 1_000 } else { u64::MAX };
    let mut pick = |of: &[u64]| micros(chance.pick(of).min(most));
    Pace {
        leader: pick(&[1, 50, 2_000]),
        acceptor: pick(&[50, 1_000, 10_000, 40_000]),
        learner: pick(&[20, 500, 10_000]),
        pool: micros(chance.pick(&[100, 5_000, 100_000])),
        turn_inputs,
        refused: sometimes(chance, &[10, 200]),
    }
}

fn troubles(chance: &mut Chance, changes: bool) -> Vec<(Trouble, u64)> {
    // Those of changes are for few worlds, and therefore on in more of these.
    let is_on = |(trouble, _): &(Trouble, u64)| {
        if trouble.is_of_changes() { chance.happens(7_500) && changes } else { chance.coin() }
    };
    let on: Vec<(Trouble, u64)> = Trouble::ALL.into_iter().filter(is_on).collect();
    on.into_iter().map(|(trouble, weight)| (trouble, weight * chance.pick(&[1, 2, 4]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a setting or trouble that no seed draws, and seeds that draw differently when asked
    /// again.
    #[test]
    fn seeds_draw_everything_and_repeat_themselves() {
        let draw = |seed| Swarm::draw(&mut Chance::new(seed), Duration::from_secs(1), Some(1));
        let swarms: Vec<Swarm> = (0..200).map(draw).collect();
        assert_eq!(draw(17), swarms[17]);
        for nodes in 3..=7 {
            assert!(swarms.iter().any(|swarm| swarm.nodes.len() == nodes), "{nodes} nodes");
        }
        for (trouble, _) in Trouble::ALL {
            let on = swarms.iter().filter(|swarm| swarm.troubles.iter().any(|(kind, _)| *kind == trouble)).count();
            let usual = if trouble.is_of_changes() { 100..190 } else { 40..150 };
            assert!(usual.contains(&on), "{trouble:?} is on in {on} of 200");
        }
        assert!(swarms.iter().any(|swarm| swarm.learn_from == LearnFrom::Voters && swarm.window == 1));
        assert!(swarms.iter().any(|swarm| swarm.hand_overs == 70));
        let forgetful = swarms.iter().filter(|swarm| swarm.caller_retention < KEPT).count();
        assert!((15..50).contains(&forgetful), "{forgetful} of 200 forget outcomes");
        let ruinous = swarms.iter().filter(|swarm| swarm.ruinous).count();
        assert!((1..20).contains(&ruinous), "{ruinous} of 200 may damage a majority");
        let rest = |rest| swarms.iter().filter(|swarm| swarm.rest == rest).count();
        assert!(
            rest(Rest::CutOff) > 30 && rest(Rest::OneWay) > 30 && rest(Rest::Fringe) > 70,
            "what becomes of the rest"
        );
        let followers: Vec<Follower> = swarms.iter().filter_map(|swarm| swarm.follower).collect();
        assert!((20..60).contains(&followers.len()), "{} of 200 have a node that never leads", followers.len());
        for by_membership in [false, true] {
            assert!(followers.iter().any(|follower| follower.by_membership == by_membership));
        }
        let listed: Vec<&Swarm> = swarms.iter().filter(|swarm| swarm.rule != Rule::Weights).collect();
        assert!((8..40).contains(&listed.len()), "{} of 200 have a list of majority sets", listed.len());
        assert!(listed.iter().any(|swarm| swarm.majority.nodes().len() < swarm.nodes.len()), "some only learn");
        for swarm in &swarms {
            let (genesis, bit) = (swarm.genesis(), |node: NodeId| node.0 - 1);
            for some in 0..1_u64 << swarm.nodes.len() {
                let is_there = |node| some >> bit(node) & 1 == 1;
                assert_eq!(genesis.majority().holds(is_there), swarm.majority.holds(is_there));
            }
        }
        let left_to = |seed| Swarm::draw(&mut Chance::new(seed), Duration::from_secs(1), None);
        let still: Vec<Swarm> = (0..200).map(left_to).filter(|swarm| swarm.changes == 0).collect();
        assert!((100..170).contains(&still.len()), "{} of 200 have no changes", still.len());
        assert!(still.iter().all(|swarm| swarm.troubles.iter().all(|(trouble, _)| !trouble.is_of_changes())));
    }

    /// B2: catches a list of sets of which two do not meet, and a kind of list that is never drawn.
    #[test]
    fn any_two_sets_of_a_list_meet() {
        let mut smallest = BTreeSet::new();
        for seed in 0..50 {
            for nodes in 3..=7 {
                let sets = sets(&Swarm::calm(nodes).nodes, &mut Chance::new(seed));
                let majority = MajoritySets::explicit(sets).expect("any two of them meet");
                smallest.insert(majority.nodes().len() - majority.losses_max());
            }
        }
        assert_eq!(smallest, [2, 3].into(), "a hub with one other, a line");
    }
}
