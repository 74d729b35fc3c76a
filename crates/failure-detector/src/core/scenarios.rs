//! Several detectors, wired by a network of directed edges, in virtual time: the scenarios of
//! partial connectivity in which other protocols stop or flap (checklist S-28), by name.
//!
//! Leaders and acceptors are played: a campaign reaches, after some milliseconds, the acceptors
//! that the candidate's edges reach, takes their promises, and leads when a majority set
//! answers. A leader that reaches an acceptor with a higher promise has been superseded.

use proptest::prelude::*;

use super::*;

const STEP: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

struct Node {
    detector: FailureDetector,
    alive: bool,
    frozen: bool,
    /// Its acceptor is.
    silent: bool,
    promise: Ballot,
    /// Of a `MyNextBal`.
    refused: Ballot,
    leads: Option<Ballot>,
    preparing: Option<(Tick, Ballot)>,
    issued: CommandNumber,
    space: Space,
    /// Events that wait while it is frozen.
    inbox: Vec<Input>,
}

struct World {
    now: Tick,
    nodes: BTreeMap<u64, Node>,
    cut: std::collections::BTreeSet<(u64, u64)>,
    flight: Vec<(Tick, u64, u64, Heartbeat)>,
    /// Every time that a node came to lead.
    led: Vec<(Tick, Ballot)>,
    chance: u64,
}

fn node(id: u64, count: u64) -> Node {
    let config = Config {
        me: NodeId(id),
        can_lead: true,
        membership: Membership::of_equals(count),
        heartbeat: Duration::from_millis(50),
        timeout_min: TIMEOUT,
        timeout_max: SECOND * 2,
        http: String::new(),
        spare: false,
    };
    Node {
        detector: FailureDetector::new(config),
        alive: true,
        frozen: false,
        silent: false,
        promise: Ballot::NONE,
        refused: Ballot::NONE,
        leads: None,
        preparing: None,
        issued: CommandNumber(0),
        space: Space::Ample,
        inbox: vec![],
    }
}

impl World {
    /// A cluster that has just been started.
    fn start(count: u64) -> Self {
        let nodes = (1..=count).map(|id| (id, node(id, count))).collect();
        Self { now: Tick(1), nodes, cut: Default::default(), flight: vec![], led: vec![], chance: 1 }
    }

    /// A cluster in which `leader` has led for a while.
    fn led_by(leader: u64, count: u64) -> Self {
        let mut world = Self::start(count);
        let ballot = Ballot::new(1, NodeId(leader));
        world.nodes.values_mut().for_each(|node| node.promise = ballot);
        world.node(leader).leads = Some(ballot);
        world.run(SECOND * 2);
        assert_eq!(world.led, [], "the leader was deposed at the start");
        assert!(world.nodes.values().all(|node| node.detector.leader == Some(ballot)));
        world
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this world")
    }

    fn up(&self, from: u64, to: u64) -> bool {
        !self.cut.contains(&(from, to)) && [from, to].iter().all(|id| self.nodes[id].alive)
    }

    fn cut_link(&mut self, left: u64, right: u64) {
        self.cut.extend([(left, right), (right, left)]);
    }

    /// Cuts all links but these.
    fn keep_links(&mut self, links: &[(u64, u64)]) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for left in &ids {
            for right in ids.iter().filter(|right| *right > left) {
                if !links.contains(&(*left, *right)) && !links.contains(&(*right, *left)) {
                    self.cut_link(*left, *right);
                }
            }
        }
    }

    fn kill(&mut self, id: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|other| self.up(*other, id) && *other != id).collect();
        self.node(id).alive = false;
        for other in others {
            self.input(other, Input::Closed(NodeId(id)));
            self.input(other, Input::Unreachable(NodeId(id)));
        }
    }

    fn input(&mut self, id: u64, input: Input) {
        let now = Now { tick: self.now, ..Now::default() };
        let node = self.node(id);
        if node.frozen {
            return node.inbox.push(input);
        }
        let mut effects = Vec::new();
        node.detector.handle(input, now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, heartbeat } => {
                    self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let delay = Duration::from_millis(1 + (self.chance >> 33) % 5);
                    self.flight.push((self.now + delay, id, to.0, heartbeat));
                }
                Effect::Campaign { .. } | Effect::TakeOver { .. } => self.prepare(id),
                Effect::StepDown { .. } | Effect::StandAside { .. } | Effect::HandOver => self.node(id).leads = None,
                Effect::Suspect { .. }
                | Effect::Trust(_)
                | Effect::TakesCalls(_)
                | Effect::LeaderIs(_)
                | Effect::PeerIssued { .. }
                | Effect::PeerDurable { .. }
                | Effect::Ignored(_) => {}
            }
        }
    }

    fn prepare(&mut self, id: u64) {
        let due = self.now + STEP * 2;
        let node = self.node(id);
        let known = node.detector.highest_ballot().max(node.promise).max(node.refused);
        node.preparing = known.next_of(NodeId(id)).map(|ballot| (due, ballot));
    }

    /// Phase 1 of a campaign, as far as the edges reach.
    fn finish_prepare(&mut self, id: u64, ballot: Ballot) {
        let mut promised = Vec::new();
        let mut refused = Ballot::NONE;
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            let (there, back) = (self.up(id, other), self.up(other, id));
            let acceptor = self.node(other);
            if !there || acceptor.frozen {
                continue;
            }
            refused = refused.max(if back { acceptor.promise } else { Ballot::NONE });
            if !acceptor.silent || other == id {
                acceptor.promise = acceptor.promise.max(ballot);
            }
            let promises = !acceptor.silent && back && acceptor.promise == ballot;
            promised.extend(promises.then_some(NodeId(other)));
        }
        let now = self.now;
        let node = self.node(id);
        if node.detector.config.membership.majority().holds(|acceptor| promised.contains(&acceptor)) {
            node.leads = Some(ballot);
            self.led.push((now, ballot));
        } else if refused > ballot {
            node.refused = refused;
            self.prepare(id);
        }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        let now = self.now;
        let (due, flight) = std::mem::take(&mut self.flight).into_iter().partition(|(at, ..)| *at <= now);
        self.flight = flight;
        for (_, from, to, heartbeat) in due {
            if self.up(from, to) {
                self.input(to, Input::Heartbeat { from: NodeId(from), heartbeat });
            }
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&id].frozen || !self.nodes[&id].alive {
                continue;
            }
            for input in std::mem::take(&mut self.node(id).inbox) {
                self.input(id, input);
            }
            if let Some((at, ballot)) = self.nodes[&id].preparing
                && at <= now
            {
                self.node(id).preparing = None;
                self.finish_prepare(id, ballot);
            }
            self.supersede(id);
            if now.0 / 5_000 % 2 == id % 2 {
                let node = &self.nodes[&id];
                let local = LocalStatus {
                    leads: node.leads,
                    waits: node.leads.is_some() && !self.could_decide(id),
                    silent: node.silent,
                    ballot: node.promise.max(node.refused),
                    issued: node.issued,
                    space: node.space,
                    ..Default::default()
                };
                self.input(id, Input::Tick(local));
            }
        }
    }

    fn supersede(&mut self, id: u64) {
        let Some(ballot) = self.nodes[&id].leads else { return };
        let reached =
            self.nodes.iter().filter(|(other, node)| self.up(id, **other) && self.up(**other, id) && !node.frozen);
        let highest = reached.map(|(_, node)| node.promise).max().unwrap_or_default();
        if highest > ballot {
            self.node(id).leads = None;
            self.node(id).refused = highest;
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    /// Whether edges in both directions join the node to a majority set.
    fn is_connected(&self, id: u64) -> bool {
        self.reaches_majority(id, |_| true)
    }

    /// Whether they join it to a majority set that votes.
    fn could_decide(&self, id: u64) -> bool {
        self.reaches_majority(id, |acceptor| !acceptor.silent)
    }

    fn reaches_majority(&self, id: u64, of: impl Fn(&Node) -> bool) -> bool {
        let node = &self.nodes[&id];
        let joined = |other: u64| other == id || self.up(id, other) && self.up(other, id);
        let majority = node.detector.config.membership.majority();
        node.alive && majority.holds(|acceptor| of(&self.nodes[&acceptor.0]) && joined(acceptor.0))
    }

    /// The node that leads and can have commands issued.
    fn leader(&self) -> Option<u64> {
        let leading = self.nodes.iter().filter(|(id, node)| node.leads.is_some() && self.is_connected(**id));
        leading.max_by_key(|(_, node)| node.leads).map(|(id, _)| *id)
    }

    /// Runs until somebody else than before leads; how long that took.
    fn wait_for_leader(&mut self, at_most: Duration) -> (u64, Duration) {
        let (begun, before) = (self.now, self.led.len());
        while self.led.len() == before {
            assert!(self.now.since(begun) < at_most, "nobody leads after {at_most:?}");
            self.step();
        }
        (self.leader().expect("a leader that leads nothing"), self.now.since(begun))
    }

    /// Runs on, and nobody may come to lead.
    fn stays(&mut self, leader: u64, duration: Duration) {
        let before = self.led.len();
        self.run(duration);
        assert_eq!(self.led[before..], [], "the leader changed");
        assert_eq!(self.leader(), Some(leader));
    }
}

/// A13: catches duels at the start, and a leader that is deposed without cause.
#[test]
fn a_started_cluster_elects_once_and_keeps_its_leader() {
    for count in [1, 2, 3, 5, 7] {
        let mut world = World::start(count);
        let (leader, _) = world.wait_for_leader(SECOND);
        assert_eq!(leader, 1, "{count} nodes");
        world.stays(1, LONG);
    }
}

/// DESIGN 9: catches a killed leader that is noticed by silence only, and candidates that wait
/// for each other.
#[test]
fn a_killed_leader_is_replaced_at_once() {
    for count in [3, 5] {
        for killed in 1..=count {
            let mut world = World::led_by(killed, count);
            world.kill(killed);
            let (leader, took) = world.wait_for_leader(SECOND);
            assert_eq!(leader, if killed == 1 { 2 } else { 1 });
            assert!(took <= Duration::from_millis(50), "{took:?}");
            world.stays(leader, SECOND * 10);
        }
    }
}

/// DESIGN 9: catches a leader whose power was cut (nothing closes) that is missed for longer
/// than half a second.
#[test]
fn a_leader_that_falls_silent_is_replaced_within_half_a_second() {
    let mut world = World::led_by(1, 3);
    world.node(1).alive = false;
    let (leader, took) = world.wait_for_leader(SECOND);
    assert_eq!(leader, 2);
    assert!(took <= Duration::from_millis(500), "{took:?}");
}

/// RELIABILITY 2, quorum loss: catches a hub that keeps quiet because it hears a leader, one
/// that can have nothing issued.
#[test]
fn quorum_loss_the_hub_takes_over() {
    let mut world = World::led_by(1, 5);
    world.keep_links(&[(3, 1), (3, 2), (3, 4), (3, 5)]);
    let (leader, took) = world.wait_for_leader(TIMEOUT * 4);
    assert_eq!(leader, 3, "after {took:?}");
    world.stays(3, LONG);
}

/// RELIABILITY 2, constrained election: catches a rule by which only an up-to-date node may lead.
#[test]
fn constrained_election_the_only_connected_node_leads_although_it_is_behind() {
    let mut world = World::led_by(1, 5);
    world.nodes.values_mut().for_each(|node| node.issued = CommandNumber(1_000_000));
    world.node(3).issued = CommandNumber(7);
    world.keep_links(&[(3, 2), (3, 4), (3, 5)]);
    let (leader, _) = world.wait_for_leader(TIMEOUT * 4);
    assert_eq!(leader, 3);
    world.stays(3, LONG);
}

/// RELIABILITY 2, chained: catches ends of a chain that depose each other by turns.
#[test]
fn chained_the_ends_do_not_duel() {
    for leader in 1..=3 {
        let mut world = World::led_by(leader, 3);
        world.cut_link(1, 3);
        world.stays(leader, LONG);
        let known: Vec<_> = world.nodes.values().map(|node| node.detector.leader).collect();
        assert!(known.iter().all(|known| known.is_some_and(|ballot| ballot.node.0 == leader)), "{known:?}");
    }
    let mut world = World::start(3);
    world.cut_link(1, 3);
    world.run(SECOND * 2);
    let changes = world.led.len();
    assert!((1..=2).contains(&changes), "{:?}", world.led);
    world.run(LONG);
    assert_eq!(world.led.len(), changes);
}

/// RELIABILITY 2, Howard and Abraham's example: catches disturbance by two nodes that hear only
/// one other each.
#[test]
fn howard_abraham_the_badly_connected_disturb_nobody() {
    for leader in 1..=5 {
        let mut world = World::led_by(leader, 5);
        world.keep_links(&[(1, 2), (2, 3), (1, 3), (4, 2), (5, 3)]);
        if leader <= 3 {
            world.stays(leader, LONG);
        } else {
            let (next, _) = world.wait_for_leader(TIMEOUT * 4);
            assert!(next <= 3, "{next} is not connected");
            world.stays(next, LONG);
        }
    }
}

/// RELIABILITY 2, asymmetric: catches a leader that cannot receive, or cannot send, and keeps
/// the others quiet.
#[test]
fn a_leader_with_one_direction_is_replaced_once() {
    for cut in [[(1, 2), (1, 3)], [(2, 1), (3, 1)]] {
        let mut world = World::led_by(1, 3);
        world.cut.extend(cut);
        let (leader, took) = world.wait_for_leader(TIMEOUT * 4);
        assert_eq!(leader, 2, "{cut:?}, after {took:?}");
        world.stays(2, LONG);
        assert_eq!(world.nodes[&1].leads, None, "{cut:?}: it still thinks it leads");
        world.cut.clear();
        world.stays(2, LONG);
    }
}

/// DESIGN 9: catches a follower that hears nobody, or is heard by nobody, and deposes a leader
/// that works.
#[test]
fn a_follower_with_one_direction_deposes_nobody() {
    for cut in [[(3, 1), (3, 2)], [(1, 3), (2, 3)]] {
        let mut world = World::led_by(1, 3);
        world.cut.extend(cut);
        world.stays(1, LONG);
        world.cut.clear();
        world.stays(1, LONG);
    }
}

/// RELIABILITY 2, flapping; etcd#17180: catches a member whose links come and go raising ballots.
#[test]
fn flapping_links_do_not_change_a_leader_that_works() {
    let shapes: [&[(u64, u64)]; 3] = [&[(1, 3)], &[(2, 3)], &[(1, 3), (2, 3)]];
    for links in shapes {
        for period in [200, 300, 400, 700].map(Duration::from_millis) {
            let mut world = World::led_by(1, 3);
            for round in 0..60 {
                world.cut.clear();
                if round % 2 == 0 {
                    links.iter().for_each(|(left, right)| world.cut_link(*left, *right));
                }
                world.run(period);
            }
            assert_eq!(world.led, [], "{links:?} every {period:?}");
            world.cut.clear();
            world.stays(1, SECOND);
        }
    }
}

/// Catches leadership that goes to and fro with the links of a leader: one change is right.
#[test]
fn a_leader_whose_links_all_flap_is_replaced_at_most_once() {
    for period in [200, 400, 700, 1_500].map(Duration::from_millis) {
        let mut world = World::led_by(1, 3);
        for round in 0..60 {
            world.cut.clear();
            if round % 2 == 0 {
                world.cut_link(1, 2);
                world.cut_link(1, 3);
            }
            world.run(period);
        }
        assert!(world.led.len() <= 1, "every {period:?}: {:?}", world.led);
    }
}

/// DESIGN 9: catches a node that slept and takes its own sleep for the silence of all others.
#[test]
fn a_node_that_was_stalled_deposes_nobody() {
    for sleep in [150, 400, 2_000, 30_000].map(Duration::from_millis) {
        let mut world = World::led_by(1, 3);
        world.node(3).frozen = true;
        world.stays(1, sleep);
        world.node(3).frozen = false;
        world.stays(1, SECOND * 10);
        assert_eq!(world.nodes[&3].detector.leader.map(|ballot| ballot.node), Some(NodeId(1)));
    }
}

/// DESIGN 9: catches a leader deposed for a stall below the bound, one kept after a long one,
/// and one that comes back and deposes its successor.
#[test]
fn a_stalled_leader_is_replaced_only_after_the_bound() {
    let mut world = World::led_by(1, 3);
    for _ in 0..10 {
        world.node(1).frozen = true;
        world.run(Duration::from_millis(180));
        world.node(1).frozen = false;
        world.stays(1, SECOND);
    }
    world.node(1).frozen = true;
    let (leader, _) = world.wait_for_leader(SECOND * 3);
    assert_eq!(leader, 2);
    world.run(SECOND * 5);
    world.node(1).frozen = false;
    world.stays(2, LONG);
    assert_eq!(world.nodes[&1].leads, None);
}

/// S-28: catches two candidates that do not hear each other and supersede each other by turns.
#[test]
fn candidates_that_do_not_hear_each_other_do_not_duel() {
    let mut world = World::led_by(5, 5);
    world.cut_link(1, 2);
    world.kill(5);
    world.run(SECOND * 3);
    assert!(world.led.len() <= 2, "{:?}", world.led);
    let leader = world.leader().expect("a leader");
    world.stays(leader, LONG);
}

/// S-28: catches a majority that is lost and found and does not elect, or elects for ever.
#[test]
fn a_cluster_that_lost_its_majority_elects_when_it_is_back() {
    let mut world = World::led_by(1, 5);
    world.keep_links(&[(1, 2), (3, 4)]);
    world.run(LONG);
    assert_eq!(world.led, [], "nobody can lead");
    assert_eq!(world.nodes[&1].leads, None, "it steps down");
    world.cut.clear();
    let (leader, _) = world.wait_for_leader(TIMEOUT * 4);
    world.stays(leader, LONG);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// A13, S-28: catches any set of directed edges over five nodes in which a node is joined
    /// to a majority and yet nobody comes to lead, or the lead does not come to rest.
    #[test]
    fn every_network_with_a_connected_node_comes_to_rest_with_a_leader(
        cut in prop::collection::btree_set((1..=5u64, 1..=5u64), 0..14),
        killed in prop::option::of(1..=5u64),
        leader in 1..=5u64,
    ) {
        let mut world = World::led_by(leader, 5);
        world.cut = cut;
        world.cut.retain(|(from, to)| from != to);
        if let Some(killed) = killed {
            world.kill(killed);
        }
        world.run(SECOND * 6);
        let changes = world.led.len();
        prop_assert!(changes <= 4, "{} changes: {:?}", changes, &world.led[..9.min(changes)]);
        let connected: Vec<u64> = world.nodes.keys().copied().filter(|id| world.is_connected(*id)).collect();
        prop_assert_eq!(world.leader().is_some(), !connected.is_empty(), "connected: {:?}", connected);
        world.run(SECOND * 10);
        prop_assert_eq!(world.led.len(), changes, "still changing: {:?}", &world.led[changes..world.led.len().min(changes + 9)]);
    }
}

/// Seed 80000410 of 3698930: catches a leader at the fringe that counts its own silent acceptor, can have nothing issued, and
/// keeps the rest waiting; and one that takes the lead back.
#[test]
fn a_leader_that_counts_silent_acceptors_is_replaced() {
    let mut world = World::led_by(1, 7);
    world.node(1).silent = true;
    world.keep_links(&[(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (2, 5), (3, 4), (3, 5), (4, 5), (6, 7)]);
    let (leader, took) = world.wait_for_leader(TIMEOUT * 5);
    assert_eq!(leader, 2, "after {took:?}");
    world.stays(2, LONG);
    assert_eq!(world.nodes[&1].leads, None);
}

/// ADR 0023, limits 1 and 2: catches a leader that stands aside for nobody.
#[test]
fn the_only_possible_leader_stays() {
    let mut world = World::led_by(1, 3);
    world.kill(2);
    world.node(3).silent = true;
    world.stays(1, LONG);
    let mut world = World::led_by(1, 5);
    world.nodes.values_mut().for_each(|node| node.silent = true);
    world.stays(1, LONG);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// A13, S-28: catches any set of directed edges over five nodes, some of them silent, in which a node could decide and
    /// yet nobody leads who can; and a lead that does not come to rest.
    #[test]
    fn who_could_decide_comes_to_lead(
        cut in prop::collection::btree_set((1..=5u64, 1..=5u64), 0..14),
        silent in prop::collection::btree_set(1..=5u64, 1..=2),
        leader in 1..=5u64,
    ) {
        let mut world = World::led_by(leader, 5);
        world.cut = cut;
        world.cut.retain(|(from, to)| from != to);
        silent.iter().for_each(|id| world.node(*id).silent = true);
        world.run(SECOND * 10);
        let changes = world.led.len();
        prop_assert!(changes <= 4, "{} changes: {:?}", changes, &world.led[..9.min(changes)]);
        let able: Vec<u64> = world.nodes.keys().copied().filter(|id| world.could_decide(*id)).collect();
        let leads = |id: &u64| world.nodes[id].leads.is_some();
        prop_assert!(able.is_empty() || able.iter().any(leads), "able: {:?}, led: {:?}", able, world.led);
        world.run(SECOND * 10);
        prop_assert_eq!(world.led.len(), changes, "still changing: {:?}", world.led.get(changes..));
    }
}

/// S-35: catches a lead that stays at a node without room while another could take calls, is away for long, or
/// goes to another node without room; and one that goes back and forth when there is room again.
#[test]
fn the_lead_goes_where_there_is_room() {
    let mut world = World::led_by(1, 5);
    world.node(2).space = Space::Low;
    world.run(SECOND);
    world.node(1).space = Space::Low;
    let (leader, gap) = world.wait_for_leader(TIMEOUT);
    assert_eq!(leader, 3, "after {gap:?}");
    world.stays(3, LONG);
    world.node(1).space = Space::Ample;
    world.stays(3, LONG);
}
