//! One detector, effect by effect.

use protocol::membership::Rule;

use super::*;

const HEARTBEAT: Duration = Duration::from_millis(50);
pub(super) const TIMEOUT: Duration = Duration::from_millis(250);
pub(super) const ME: NodeId = NodeId(1);

fn ms(milliseconds: u64) -> Tick {
    Tick(milliseconds * 1_000)
}

fn detector(count: u64) -> FailureDetector {
    FailureDetector::new(Config {
        me: ME,
        can_lead: true,
        membership: Membership::of_equals(count),
        heartbeat: HEARTBEAT,
        timeout_min: TIMEOUT,
        timeout_max: Duration::from_secs(2),
        http: "a.example:8080".to_owned(),
        spare: true,
    })
}

/// A detector, its time, and peers that say the same every heartbeat.
pub(super) struct Bench {
    pub(super) detector: FailureDetector,
    pub(super) now: u64,
    pub(super) local: LocalStatus,
    pub(super) peers: BTreeMap<u64, Heartbeat>,
}

impl Bench {
    pub(super) fn new(count: u64) -> Self {
        Self { detector: detector(count), now: 0, local: LocalStatus::default(), peers: BTreeMap::new() }
    }

    pub(super) fn input(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.detector.handle(input, Now { tick: ms(self.now), ..Now::default() }, &mut effects);
        effects
    }

    fn hear(&mut self, from: u64, heartbeat: &Heartbeat) -> Vec<Effect> {
        self.input(Input::Heartbeat { from: NodeId(from), heartbeat: heartbeat.clone() })
    }

    /// Ticks every 10 ms, with the peers' heartbeats every 50 ms; all effects but plain heartbeats and what peers have
    /// durable.
    pub(super) fn run(&mut self, milliseconds: u64) -> Vec<(u64, Effect)> {
        let mut seen = Vec::new();
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 10;
            let mut effects = self.input(Input::Tick(self.local));
            if self.now.is_multiple_of(50) {
                for (from, heartbeat) in self.peers.clone() {
                    effects.extend(self.hear(from, &heartbeat));
                }
            }
            effects.retain(|effect| !matches!(effect, Effect::Send { .. } | Effect::PeerDurable { .. }));
            seen.extend(effects.into_iter().map(|effect| (self.now, effect)));
        }
        seen
    }
}

pub(super) fn says(hears: &[u64], leads: Option<Ballot>, follows: Option<Ballot>) -> Heartbeat {
    let hears = hears.iter().copied().map(NodeId).collect();
    let ballot = leads.or(follows).unwrap_or_default();
    Heartbeat { hears, can_lead: true, leads, follows, ballot, ..Heartbeat::default() }
}

/// Three nodes, of which 2 leads and 3 follows, for two seconds.
pub(super) fn followers(leader: Ballot) -> Bench {
    let mut bench = Bench::new(3);
    bench.peers.insert(2, says(&[1, 2, 3], Some(leader), Some(leader)));
    bench.peers.insert(3, says(&[1, 2, 3], None, Some(leader)));
    let seen = bench.run(2_000);
    let expected = [Effect::Trust(NodeId(2)), Effect::LeaderIs(Some(leader)), Effect::Trust(NodeId(3))];
    assert_eq!(seen.into_iter().map(|(_, effect)| effect).collect::<Vec<_>>(), expected);
    bench
}

pub(super) const LEADER: Ballot = Ballot::new(4, NodeId(2));

/// Catches a node alone in its family that waits for others, or never leads.
#[test]
fn a_node_alone_campaigns_at_once() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.run(200), [(10, Effect::Campaign { rank: 0, attempt: 1 })]);
}

/// Catches heartbeats that are late, that do not say what others judge by, or that flood.
#[test]
fn heartbeats_are_regular_and_early_only_after_a_change() {
    let mut bench = followers(LEADER);
    let local = LocalStatus {
        issued: CommandNumber(9),
        applied: CommandNumber(8),
        durable: CommandNumber(7),
        promise: LEADER,
        voted: CommandNumber(10),
        ..bench.local
    };
    bench.local = local;
    let mut sent = Vec::new();
    for _ in 0..100 {
        bench.now += 10;
        if bench.now.is_multiple_of(50) {
            for (from, heartbeat) in bench.peers.clone() {
                bench.hear(from, &heartbeat);
            }
        }
        let effects = bench.input(Input::Tick(local));
        sent.extend(effects.into_iter().filter_map(|effect| {
            if let Effect::Send { to: NodeId(3), heartbeat } = effect { Some(heartbeat) } else { None }
        }));
    }
    assert_eq!(sent.len(), 20);
    let expected = Heartbeat {
        ballot: LEADER,
        issued: local.issued,
        applied: local.applied,
        durable: local.durable,
        promise: local.promise,
        voted: local.voted,
        http: "a.example:8080".to_owned(),
        spare: true,
        ..says(&[1, 2, 3], None, Some(LEADER))
    };
    assert_eq!(sent[19], expected);
    let mut effects = bench.input(Input::Closed(NodeId(2)));
    effects.extend(bench.input(Input::Unreachable(NodeId(2))));
    bench.now += 10;
    effects.extend(bench.input(Input::Tick(local)));
    let told =
        Effect::Send { to: NodeId(3), heartbeat: Heartbeat { hears: vec![ME, NodeId(3)], follows: None, ..expected } };
    assert!(effects.contains(&told), "{effects:?}");
}

/// A closed connection is evidence: catches one that is not asked about, one that alone condemns
/// a peer, and a peer that is never trusted again.
#[test]
fn closed_asks_at_once_and_refused_condemns() {
    let mut bench = followers(LEADER);
    assert!(!bench.input(Input::Unreachable(NodeId(3))).iter().any(|effect| matches!(effect, Effect::Suspect { .. })));
    let probes = |effects: &[Effect]| {
        effects.iter().filter(|effect| matches!(effect, Effect::Send { heartbeat, .. } if heartbeat.answer)).count()
    };
    assert_eq!(probes(&bench.input(Input::Closed(NodeId(3)))), 1);
    assert_eq!(bench.run(2_000), [], "heartbeats go on");
    bench.input(Input::Closed(NodeId(3)));
    let seen = bench.input(Input::Unreachable(NodeId(3)));
    assert!(seen.contains(&Effect::Suspect { peer: NodeId(3), why: Suspicion::Refused }), "{seen:?}");
    assert_eq!(probes(&bench.input(Input::Closed(NodeId(3)))), 0, "nobody is there to ask");
    assert_eq!(bench.run(50), [(bench.now, Effect::Trust(NodeId(3)))]);
    bench.peers.remove(&3);
    let begun = bench.now;
    bench.input(Input::Closed(NodeId(3)));
    let seen = bench.run(200);
    assert_eq!(seen.len(), 1);
    assert!(seen[0].0 - begun <= 110, "it had two heartbeats left: {seen:?}");
}

/// Catches a dead process's last words, read after its connection closed, that make the refusal
/// count for nothing.
#[test]
fn last_words_do_not_undo_a_refusal() {
    let mut bench = followers(LEADER);
    let words = bench.peers.remove(&3).expect("node 3");
    let begun = bench.now;
    bench.input(Input::Closed(NodeId(3)));
    bench.now += 5;
    bench.hear(3, &words);
    assert!(!bench.input(Input::Unreachable(NodeId(3))).iter().any(|effect| matches!(effect, Effect::Suspect { .. })));
    let seen = bench.run(200);
    assert_eq!(seen.len(), 1);
    assert!((105..=120).contains(&(seen[0].0 - begun)), "two heartbeats after its words: {seen:?}");
}

/// Catches a probe that is not answered, and an answer that asks back for ever.
#[test]
fn a_probe_is_answered_once() {
    let mut bench = followers(LEADER);
    bench.run(20);
    let probe = Heartbeat { answer: true, ..bench.peers[&3].clone() };
    let effects = bench.hear(3, &probe);
    let answers: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).collect();
    assert!(matches!(answers[..], [Effect::Send { to: NodeId(3), heartbeat }] if !heartbeat.answer), "{effects:?}");
}

/// Catches a timeout that does not grow with irregular heartbeats, leaves its bounds, does not
/// come down again, or takes an outage for irregularity.
#[test]
fn timeouts_follow_the_intervals_between_bounds() {
    let config = detector(2).config;
    let mut peer = Peer::default();
    let mut now = ms(1);
    let mut hear = |peer: &mut Peer, after: u64| {
        now = now + Duration::from_millis(after);
        peer.hear(Heartbeat::default(), now, &config);
        peer.timeout(&config)
    };
    assert_eq!(hear(&mut peer, 0), TIMEOUT * 2, "not enough is known");
    let first = [50; 8].map(|after| hear(&mut peer, after));
    assert_eq!((first[6], first[7]), (TIMEOUT * 2, TIMEOUT), "eight intervals are enough");
    for _ in 0..20 {
        hear(&mut peer, 50);
    }
    assert_eq!(hear(&mut peer, 50), TIMEOUT);
    assert_eq!(hear(&mut peer, 60_000), TIMEOUT, "an outage");
    let grown = (0..40).map(|turn| hear(&mut peer, if turn % 2 == 0 { 20 } else { 180 })).max();
    assert!(grown > Some(Duration::from_millis(500)), "{grown:?}");
    let most = (0..40).map(|turn| hear(&mut peer, if turn % 2 == 0 { 20 } else { 1_900 })).max();
    assert_eq!(most, Some(config.timeout_max));
    for _ in 0..60 {
        hear(&mut peer, 50);
    }
    assert_eq!(hear(&mut peer, 50), TIMEOUT);
}

/// Catches a timeout that is not the mean and eight mean deviations: too short a one suspects who is well, too long a one finds
/// the dead late.
#[test]
fn a_timeout_is_the_mean_and_eight_mean_deviations() {
    let bounds = (Duration::from_millis(1), Duration::from_secs(9));
    let config = Config { timeout_min: bounds.0, timeout_max: bounds.1, ..detector(2).config };
    let mut peer = Peer::default();
    let mut hear = |at| {
        peer.hear(Heartbeat::default(), ms(at), &config);
        peer.timeout(&config)
    };
    let regular = (0..=8).map(|turn| hear(turn * 100)).last();
    assert_eq!(
        regular,
        Some(Duration::from_micros(100_000 + 8 * 6_675)),
        "the first deviation was half of the interval"
    );
    let late = hear(1_000);
    assert_eq!(late, Duration::from_micros(112_500 + 8 * (6_675 - 1_668 + 25_000)));
}

/// Catches a node that campaigns at its start before it can have heard the others.
#[test]
fn at_its_start_a_node_hears_the_others_first() {
    let mut bench = Bench::new(3);
    bench.peers.insert(3, says(&[1, 3], None, None));
    let seen = bench.run(600);
    assert_eq!(seen.last(), Some(&(510, Effect::Campaign { rank: 0, attempt: 1 })), "{seen:?}");
}

/// Catches ticks of a busy node that pass for stalls, so that nobody is ever suspected.
#[test]
fn ticks_that_are_a_little_late_are_no_stall() {
    let mut bench = followers(LEADER);
    let suspects = |effect: &Effect| matches!(effect, Effect::Suspect { .. });
    let late = |bench: &mut Bench| {
        bench.now += 100;
        bench.input(Input::Tick(bench.local)).iter().any(suspects)
    };
    assert!((0..5).any(|_| late(&mut bench)));
}

/// DESIGN 9: catches a late tick taken for the silence of others, and a campaign right after it.
#[test]
fn own_stall_moves_all_deadlines() {
    let mut bench = followers(LEADER);
    bench.now += 10_000;
    let woken = bench.input(Input::Tick(bench.local));
    assert!(!woken.iter().any(|effect| matches!(effect, Effect::Suspect { .. })), "{woken:?}");
    bench.now += 10_000;
    assert_eq!(bench.input(Input::Closed(NodeId(2))).iter().filter(|e| matches!(e, Effect::Suspect { .. })).count(), 0);
    let refused = bench.input(Input::Unreachable(NodeId(2)));
    let suspicion = Effect::Suspect { peer: NodeId(2), why: Suspicion::Refused };
    assert!(refused.contains(&suspicion), "a refusal is no silence: {refused:?}");
    bench.peers.remove(&2);
    bench.peers.insert(3, says(&[1, 3], None, None));
    let woke = bench.now;
    let seen = bench.run(2_000);
    let campaign = Effect::Campaign { rank: 0, attempt: 1 };
    let (at, _) = seen.iter().find(|(_, effect)| *effect == campaign).expect("a campaign");
    assert!(at - woke >= 250, "it hears the others first: {seen:?}");
}

/// DESIGN 9: catches a stall that counts as the silence of a peer that is silent afterwards, or as time after which a closed
/// connection is no evidence any more.
#[test]
fn own_stall_is_no_time_of_a_peer() {
    let mut bench = followers(LEADER);
    bench.now += 10_000;
    bench.input(Input::Tick(bench.local));
    bench.peers.remove(&3);
    let seen = bench.run(1_000);
    let silent = |effect: &Effect| {
        if let Effect::Suspect { peer: NodeId(3), why: Suspicion::Silent(silent) } = effect {
            Some(*silent)
        } else {
            None
        }
    };
    let silence = seen.iter().find_map(|(_, effect)| silent(effect)).expect("it is missed");
    assert!((TIMEOUT..TIMEOUT * 2).contains(&silence), "{silence:?}");
    let mut bench = followers(LEADER);
    bench.input(Input::Closed(NodeId(3)));
    bench.now += 10_000;
    let refused = bench.input(Input::Unreachable(NodeId(3)));
    assert!(refused.contains(&Effect::Suspect { peer: NodeId(3), why: Suspicion::Refused }), "{refused:?}");
}

/// DESIGN 9, S-28: catches a stall that ends the pause after an attempt, or that makes a lead which is lost at once pass for one
/// that lasts.
#[test]
fn own_stall_is_no_time_of_an_election() {
    let campaigns = |bench: &mut Bench| {
        let seen = bench.run(6_000);
        let attempt =
            |(at, effect)| if let Effect::Campaign { attempt, .. } = effect { Some((at, attempt)) } else { None };
        seen.into_iter().filter_map(attempt).collect::<Vec<_>>()
    };
    for leads in [false, true] {
        let mut bench = Bench::new(3);
        bench.peers = BTreeMap::from([(3, says(&[1, 3], None, None))]);
        let third = campaigns(&mut bench)[2];
        assert_eq!(third.1, 3);
        let mut bench = Bench::new(3);
        bench.peers = BTreeMap::from([(3, says(&[1, 3], None, None))]);
        bench.run(third.0);
        if leads {
            let own = Ballot::new(5, ME);
            bench.local = LocalStatus { leads: Some(own), ballot: own, ..bench.local };
            bench.run(50);
        }
        bench.now += 10_000;
        bench.input(Input::Tick(bench.local));
        bench.local.leads = None;
        let fourth = campaigns(&mut bench)[0];
        assert_eq!(fourth.1, 4, "{leads}");
        assert!(fourth.0 - third.0 >= 12_000, "two seconds of its own: {leads} {fourth:?}");
    }
}

/// S-28: catches duels (no waiting for another's attempt), retries without pause, and a node
/// that never succeeds but keeps all others waiting.
#[test]
fn others_attempts_are_waited_for_but_not_for_ever() {
    let mut bench = followers(LEADER);
    bench.peers.remove(&2);
    bench.peers.insert(3, Heartbeat { ballot: Ballot::new(5, NodeId(3)), ..says(&[1, 3], None, None) });
    let begun = bench.now;
    bench.input(Input::Closed(NodeId(2)));
    bench.input(Input::Unreachable(NodeId(2)));
    let mut campaigns = Vec::new();
    for round in 6..60 {
        let seen = bench.run(100);
        campaigns.extend(seen.into_iter().filter(|(_, effect)| matches!(effect, Effect::Campaign { .. })));
        bench.peers.insert(3, Heartbeat { ballot: Ballot::new(round, NodeId(3)), ..says(&[1, 3], None, None) });
    }
    let times: Vec<u64> = campaigns.iter().map(|(at, _)| at - begun).collect();
    assert_eq!(times[0], 500, "three attempts are waited for: {times:?}");
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses[..3], [500, 1_000, 2_000], "{times:?}");
}

/// Catches a candidate far behind that goes before one that is not, and one that gets no turn.
#[test]
fn a_candidate_far_behind_comes_last_but_has_a_turn() {
    for (behind, rank) in [(4_096, 0), (4_097, 1)] {
        let mut bench = followers(LEADER);
        bench.peers.remove(&2);
        bench.peers.insert(3, Heartbeat { issued: CommandNumber(behind), ..says(&[1, 3], None, None) });
        bench.input(Input::Closed(NodeId(2)));
        bench.input(Input::Unreachable(NodeId(2)));
        let seen = bench.run(600);
        assert!(seen.iter().any(|(_, effect)| *effect == Effect::Campaign { rank, attempt: 1 }), "{seen:?}");
        let told = Effect::PeerIssued { peer: NodeId(3), issued: CommandNumber(behind) };
        assert!(seen.iter().any(|(_, effect)| *effect == told), "{seen:?}");
    }
}

/// Catches a candidate without room that goes before one with room, and one that gets no turn.
#[test]
fn a_candidate_without_room_comes_after_those_with() {
    for (space, rank) in [(Space::Ample, 0), (Space::Low, 1)] {
        let mut bench = followers(LEADER);
        bench.local.space = space;
        bench.peers = BTreeMap::from([(3, says(&[1, 3], None, None))]);
        bench.input(Input::Closed(NodeId(2)));
        bench.input(Input::Unreachable(NodeId(2)));
        let seen = bench.run(600);
        assert!(seen.iter().any(|(_, effect)| *effect == Effect::Campaign { rank, attempt: 1 }), "{seen:?}");
    }
}

/// This node has led for two seconds; the others follow.
fn leads() -> Bench {
    let own = Ballot::new(9, ME);
    let mut bench = Bench::new(3);
    bench.local = LocalStatus { leads: Some(own), ballot: own, ..LocalStatus::default() };
    let follows = says(&[1, 2, 3], None, Some(own));
    bench.peers = BTreeMap::from([(2, follows.clone()), (3, follows)]);
    let told = bench.run(2_000);
    assert!(!told.iter().any(|(_, effect)| matches!(effect, Effect::HandOver | Effect::TakesCalls(_))), "{told:?}");
    bench
}

/// S-35: catches a leader without room that keeps the lead from one with room, refuses calls before it has
/// handed over, or hands over again and again to a node that does not lead.
#[test]
fn a_leader_without_room_hands_over() {
    let mut bench = leads();
    bench.local.space = Space::Low;
    let begun = bench.now;
    let seen = bench.run(29_900);
    assert_eq!(seen, [(begun + 10, Effect::HandOver), (begun + 260, Effect::TakesCalls(false))]);
    assert_eq!(bench.run(200), [(begun + 30_010, Effect::HandOver), (begun + 30_010, Effect::TakesCalls(true))]);
    let mut bench = leads();
    bench.local.space = Space::Low;
    bench.run(20);
    bench.local = LocalStatus { leads: None, ..bench.local };
    let seen = bench.run(500);
    assert!(!seen.iter().any(|(_, effect)| *effect == Effect::HandOver), "it has: {seen:?}");
}

/// S-35: catches a lead that is given up for a node that could not take it: one that may not lead, one that lacks so much that
/// it would not for long, one that is not connected.
#[test]
fn a_leader_without_room_keeps_the_lead_that_nobody_could_take() {
    for change in [
        |word: &mut Heartbeat| word.can_lead = false,
        |word: &mut Heartbeat| word.issued = CommandNumber(1),
        |word: &mut Heartbeat| word.hears.retain(|node| *node == ME),
    ] {
        let mut bench = Bench::new(5);
        let own = Ballot::new(9, ME);
        let word = Heartbeat { issued: CommandNumber(9_999), ..says(&[1, 2, 3, 4], None, Some(own)) };
        let local = LocalStatus { leads: Some(own), ballot: own, issued: word.issued, ..LocalStatus::default() };
        bench.local = local;
        bench.peers = (2..=4).map(|id| (id, word.clone())).collect();
        bench.peers.values_mut().for_each(change);
        bench.run(2_000);
        bench.local.space = Space::Low;
        let begun = bench.now;
        assert_eq!(bench.run(5_000), [(begun + 10, Effect::TakesCalls(false))]);
    }
}

/// Who has how much room, and what a leader at 1 is told.
const ROOMS: [([Space; 3], Option<Effect>); 6] = [
    ([Space::Ample, Space::Low, Space::Ample], None),
    ([Space::Ample, Space::Out, Space::Ample], None),
    ([Space::Ample, Space::Low, Space::Out], Some(Effect::TakesCalls(false))),
    ([Space::Low, Space::Low, Space::Ample], Some(Effect::TakesCalls(false))),
    ([Space::Low, Space::Low, Space::Low], Some(Effect::TakesCalls(false))),
    ([Space::Out, Space::Ample, Space::Low], Some(Effect::TakesCalls(false))),
];

/// S-35: catches calls that are refused although a majority set has room, taken although none has, or never
/// taken again; and a lead that goes to a node that could not take calls either.
#[test]
fn calls_are_taken_while_a_majority_set_has_room() {
    for (spaces, told) in ROOMS {
        let mut bench = leads();
        bench.local.space = spaces[0];
        for (peer, space) in [(2, spaces[1]), (3, spaces[2])] {
            bench.peers.get_mut(&peer).expect("a peer").space = space;
        }
        // The others say so at their next heartbeats, so this node's own room comes last.
        let own = std::mem::replace(&mut bench.local.space, Space::Ample);
        let mut seen = bench.run(50);
        bench.local.space = own;
        seen.extend(bench.run(5_000));
        let seen: Vec<Effect> = seen.into_iter().map(|(_, effect)| effect).collect();
        assert_eq!(seen, told.clone().into_iter().collect::<Vec<_>>(), "{spaces:?}");
        bench.local.space = Space::Ample;
        bench.peers.values_mut().for_each(|word| word.space = Space::Ample);
        let again = bench.run(100).into_iter().map(|(_, effect)| effect).collect::<Vec<_>>();
        assert_eq!(again, told.map(|_| Effect::TakesCalls(true)).into_iter().collect::<Vec<_>>(), "{spaces:?}");
    }
}

/// Catches a leader that says that disks are full where it is the majority set that is missing.
#[test]
fn without_a_majority_set_room_is_not_the_reason() {
    let mut bench = leads();
    bench.peers = BTreeMap::new();
    let seen = bench.run(5_000);
    assert!(!seen.iter().any(|(_, effect)| matches!(effect, Effect::TakesCalls(_))), "{seen:?}");
}

/// DESIGN 8: catches news of a durable state that are not told, or told again and again; a peer that is back, of
/// which the learner would not know; and one that is back with a lost state before anybody missed it, and goes on counting
/// with what it had.
#[test]
fn what_a_peer_has_durable_is_told_once_and_when_it_is_back() {
    let mut bench = Bench::new(3);
    let told = |effects: Vec<Effect>| -> Vec<(NodeId, u64)> {
        let durable = |effect| {
            if let Effect::PeerDurable { peer, durable } = effect { Some((peer, durable.0)) } else { None }
        };
        effects.into_iter().filter_map(durable).collect()
    };
    let durable = |number| Heartbeat { durable: CommandNumber(number), ..says(&[1, 2, 3], None, None) };
    assert_eq!(told(bench.hear(2, &durable(0))), [(NodeId(2), 0)]);
    assert_eq!(told(bench.hear(2, &durable(0))), []);
    assert_eq!(told(bench.hear(2, &durable(7))), [(NodeId(2), 7)]);
    assert_eq!(told(bench.hear(2, &durable(0))), [(NodeId(2), 0)], "its state is lost");
    assert_eq!(told(bench.hear(2, &durable(0))), []);
    assert_eq!(told(bench.hear(2, &durable(7))), [(NodeId(2), 7)]);
    bench.run(3_000);
    assert_eq!(told(bench.hear(2, &durable(7))), [(NodeId(2), 7)]);
    assert_eq!(told(bench.hear(9, &durable(7))), [], "a stranger");
}

/// Catches a campaign of a node that may not lead, by its configuration or now, or that hears no majority.
#[test]
fn who_cannot_lead_does_not_campaign() {
    let mut bench = followers(LEADER);
    bench.detector.config.can_lead = false;
    bench.peers = BTreeMap::from([(3, says(&[1, 3], None, None))]);
    assert!(!bench.run(5_000).iter().any(|(_, effect)| matches!(effect, Effect::Campaign { .. })));

    let mut bench = followers(LEADER);
    bench.local.barred = true;
    bench.peers = BTreeMap::from([(3, says(&[1, 3], None, None))]);
    let seen = bench.run(5_000);
    assert!(!seen.iter().any(|(_, effect)| matches!(effect, Effect::Campaign { .. })));
    let said = bench.detector.heartbeat();
    assert!(!said.can_lead, "the others count on it");
    assert!(!said.silent);
    bench.local.silent = true;
    bench.run(100);
    assert!(bench.detector.heartbeat().silent, "a change would count on its vote");

    let mut bench = followers(LEADER);
    bench.peers = BTreeMap::from([(3, says(&[3], None, None))]);
    let seen = bench.run(5_000);
    assert!(!seen.iter().any(|(_, effect)| matches!(effect, Effect::Campaign { .. })), "3 does not hear it: {seen:?}");
}

/// Catches a node whose time as a candidate runs while it may not lead: at a first start all nodes are admitted at
/// almost the same time, and would all campaign at once, whatever their rank.
#[test]
fn who_may_lead_at_last_waits_for_its_turn() {
    let mut bench = Bench::new(3);
    bench.local.barred = true;
    bench.peers = BTreeMap::from([(3, Heartbeat { issued: CommandNumber(9_999), ..says(&[1, 3], None, None) })]);
    bench.run(5_000);
    bench.local.barred = false;
    let admitted = bench.now;
    let seen = bench.run(1_000);
    let campaigns = seen.iter().filter(|(_, effect)| matches!(effect, Effect::Campaign { rank: 1, .. }));
    let first = campaigns.map(|(at, _)| at - admitted).next();
    let turn = u64::try_from((TIMEOUT + HEARTBEAT * 2).as_millis()).expect("small");
    assert!(first.is_some_and(|first| (turn..turn + 50).contains(&first)), "{seen:?}");
}

/// Catches a leader that stays although no majority set hears it, and one that goes too early.
#[test]
fn a_leader_without_a_majority_steps_down_after_a_timeout() {
    let own = Ballot::new(9, ME);
    let mut bench = Bench::new(3);
    bench.local = LocalStatus { leads: Some(own), ballot: own, ..LocalStatus::default() };
    bench.peers = BTreeMap::from([(2, says(&[1, 2], None, Some(own))), (3, says(&[1, 3], None, Some(own)))]);
    let seen = bench.run(5_000);
    assert!(!seen.iter().any(|(_, effect)| matches!(effect, Effect::StepDown { .. })), "{seen:?}");
    bench.peers = BTreeMap::from([(2, says(&[2], None, None)), (3, says(&[3], None, None))]);
    let begun = bench.now;
    let seen = bench.run(400);
    let steps: Vec<_> = seen.iter().filter(|(_, effect)| matches!(effect, Effect::StepDown { .. })).collect();
    assert_eq!(steps.len(), 1, "{seen:?}");
    assert!((250..=350).contains(&(steps[0].0 - begun)), "{seen:?}");
    assert!(seen.iter().any(|(_, effect)| *effect == Effect::LeaderIs(None)), "{seen:?}");
}

/// DESIGN 9: catches a leader that steps down for the time in which it slept.
#[test]
fn own_stall_is_no_time_without_a_majority() {
    let mut bench = leads();
    let steps_down = |effect: &Effect| matches!(effect, Effect::StepDown { .. });
    bench.peers = BTreeMap::from([(2, says(&[2], None, None)), (3, says(&[3], None, None))]);
    assert!(!bench.run(150).iter().any(|(_, effect)| steps_down(effect)));
    bench.now += 10_000;
    assert!(!bench.input(Input::Tick(bench.local)).iter().any(steps_down));
    assert!(bench.run(250).iter().any(|(_, effect)| steps_down(effect)));
}

/// Catches a view for operators that does not say who is heard, since when, and what it said.
#[test]
fn a_view_says_who_is_heard() {
    let mut bench = followers(LEADER);
    bench.peers.remove(&3);
    bench.run(1_000);
    let View { at, leader, peers } = bench.detector.view();
    assert_eq!((at, leader), (ms(3_000), Some(LEADER)));
    let heard = PeerView { heard: true, since: ms(50), heard_at: Some(at), last: Some(bench.peers[&2].clone()) };
    assert_eq!(peers[&NodeId(2)], heard);
    assert!(!peers[&NodeId(3)].heard && peers[&NodeId(3)].heard_at == Some(ms(2_000)));
}

/// Catches a panic or a trace of what strangers and liars say.
#[test]
fn strange_heartbeats_are_ignored() {
    let mut bench = followers(LEADER);
    bench.run(20);
    for stranger in [1, 9] {
        let lie = says(&[1, 2, 3], Some(Ballot::new(99, NodeId(stranger))), None);
        let before = bench.detector.clone();
        assert_eq!(bench.hear(stranger, &lie), [Effect::Ignored(IgnoreReason::NotAPeer)]);
        assert_eq!(bench.input(Input::Closed(NodeId(stranger))), [Effect::Ignored(IgnoreReason::NotAPeer)]);
        assert_eq!(bench.input(Input::Unreachable(NodeId(stranger))), [Effect::Ignored(IgnoreReason::NotAPeer)]);
        assert_eq!(bench.detector, before);
    }
    let foreign = says(&[1, 2, 3], Some(Ballot::new(99, NodeId(2))), Some(LEADER));
    bench.peers.insert(3, foreign);
    assert_eq!(bench.run(1_000), [], "a claim to another node's ballot leads nobody");
}

/// Rule 3: catches a leader followed for its claim alone, although it hears nobody, or although
/// those that it hears do not hear it.
#[test]
fn a_leader_that_is_not_connected_is_not_followed() {
    for (leader_hears, third_hears) in [(&[2][..], &[1, 2, 3][..]), (&[2, 3][..], &[1, 3][..])] {
        let mut bench = followers(LEADER);
        bench.peers.insert(2, says(leader_hears, Some(LEADER), None));
        bench.peers.insert(3, says(third_hears, None, None));
        assert_eq!(bench.run(100)[0].1, Effect::LeaderIs(None), "{leader_hears:?} {third_hears:?}");
    }
}

/// S-28: catches nodes whose attempts met once and meet again for ever.
#[test]
fn no_two_nodes_try_again_after_the_same_time() {
    let again = |me| {
        let alone = Rule::Sets([[NodeId(me)].into()].into());
        let membership = Arc::new(detector(7).config.membership.ruled(alone).expect("a node"));
        let config = Config { me: NodeId(me), membership, ..detector(7).config };
        let mut bench = Bench { detector: FailureDetector::new(config), ..Bench::new(7) };
        bench.run(2_000).get(1).map(|(at, _)| *at).expect("a second attempt")
    };
    let times: std::collections::BTreeSet<u64> = (1..=7).map(again).collect();
    assert_eq!(times.len(), 7, "{times:?}");
    assert_eq!(times.first(), Some(&again(1)), "nobody tries again before the pause is over");
}

/// The membership `change` makes of one of so many equals, as a command has left it in the state.
fn changed(count: u64, change: impl FnOnce(&Membership) -> Membership) -> Input {
    Input::Membership(Arc::new(change(&Membership::of_equals(count)).written_by(CommandNumber(7))))
}

/// ADR 0025: catches a node that has joined and is not told, one that has left and is, and one that has left whose word
/// still counts.
#[test]
fn members_come_and_go() {
    let mut bench = followers(LEADER);
    let stranger = says(&[1, 4], None, None);
    assert_eq!(bench.hear(4, &stranger), [Effect::Ignored(IgnoreReason::NotAPeer)]);
    bench.input(changed(3, |now| now.joined("d", "d:1").expect("a new node").0));
    assert!(bench.hear(4, &stranger).contains(&Effect::Trust(NodeId(4))));
    assert_eq!(bench.detector.view().peers.keys().map(|id| id.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(bench.input(changed(2, Clone::clone)), [], "the same number: no news");
    let later = Membership::of_equals(3).without(NodeId(2)).expect("two are left").written_by(CommandNumber(8));
    let effects = bench.input(Input::Membership(Arc::new(later)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send { to: NodeId(2), .. })), "{effects:?}");
    assert_eq!(bench.detector.view().leader, None, "node 2 led, and is no member any more");
    assert_eq!(bench.hear(2, &says(&[1, 2, 3], Some(LEADER), Some(LEADER))), [Effect::Ignored(IgnoreReason::NotAPeer)]);
}

/// ADR 0025: catches a node that campaigns although it has been removed, or that counts itself connected by the majority
/// sets of before.
#[test]
fn who_may_lead_and_who_is_connected_is_for_the_membership_to_say() {
    let mut bench = Bench::new(3);
    bench.peers.insert(2, says(&[1, 2], None, None));
    let seen = bench.run(2_000);
    assert!(seen.iter().any(|(_, effect)| matches!(effect, Effect::Campaign { .. })), "two of three: {seen:?}");
    let both = |now: &Membership| now.weighing(NodeId(3), 3).expect("a node");
    bench.input(changed(3, both));
    let seen = bench.run(4_000);
    assert!(!seen.iter().any(|(_, effect)| matches!(effect, Effect::Campaign { .. })), "3 is needed: {seen:?}");
    let mut bench = Bench::new(3);
    bench.input(changed(3, |now| now.without(NodeId(1)).expect("two are left")));
    bench.peers.extend([2, 3].map(|id| (id, says(&[1, 2, 3], None, None))));
    let seen = bench.run(4_000);
    assert!(!seen.iter().any(|(_, effect)| matches!(effect, Effect::Campaign { .. })), "{seen:?}");
    let said = bench.detector.heartbeat();
    assert!(!said.can_lead, "and does not say that it could");
}

/// Rule 3: catches hearsay of a leader that counts more than what that node says of itself.
#[test]
fn a_node_that_says_it_does_not_lead_does_not_lead() {
    let mut bench = followers(LEADER);
    bench.peers.insert(2, says(&[1, 2, 3], None, None));
    assert_eq!(bench.run(100)[0].1, Effect::LeaderIs(None), "3 still says that it follows");
}

/// S-28: catches a lead that was lost at once and is tried for again at once, and an echo of
/// one's own attempt that is taken for another's and waited for.
#[test]
fn a_lead_that_does_not_last_is_not_tried_for_again_at_once() {
    let mut bench = followers(LEADER);
    bench.peers = BTreeMap::from([(3, says(&[1, 3], None, None))]);
    bench.hear(3, &says(&[1, 3], None, None));
    bench.input(Input::Closed(NodeId(2)));
    let refused = bench.input(Input::Unreachable(NodeId(2)));
    assert!(refused.contains(&Effect::Campaign { rank: 0, attempt: 1 }), "{refused:?}");
    let begun = bench.now;
    let own = Ballot::new(5, ME);
    bench.local = LocalStatus { leads: Some(own), ballot: own, ..bench.local };
    bench.run(100);
    bench.local.leads = None;
    bench.run(300);
    bench.peers.insert(3, Heartbeat { ballot: Ballot::new(6, ME), ..says(&[1, 3], None, None) });
    let seen = bench.run(300);
    assert_eq!(seen, [(begun + 500, Effect::Campaign { rank: 0, attempt: 2 })]);
}
