//! The network between nodes: directed links that lose, double, delay and reorder messages, and
//! that stop, by any set of them.
//!
//! A link delivers in order of sending, as a connection does, except where chance says otherwise:
//! the protocol must not depend on connections. What is on its way when a link stops is lost, if it would arrive before the
//! link works again. A node reaches itself without the network.

mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::{NodeId, Tick};

use crate::chance::Chance;
use crate::fault::Mishap;

pub use shapes::cut;

/// A directed link: from, to.
pub type Link = (NodeId, NodeId);

/// What the links of a world are like. Rates are in 10,000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weather {
    /// The least delay of a message.
    pub delay_min: Duration,
    /// The most that is usual.
    pub delay_max: Duration,
    /// What is lost.
    pub loss: u32,
    /// What arrives twice.
    pub duplicate: u32,
    /// What may overtake others or fall behind them.
    pub reorder: u32,
    /// What takes far longer than usual.
    pub spike: u32,
    /// How much longer that is at most.
    pub spike_max: Duration,
}

impl Weather {
    /// Nothing bad, with these delays.
    #[must_use]
    pub fn fair(delay_min: Duration, delay_max: Duration) -> Self {
        Self { delay_min, delay_max, loss: 0, duplicate: 0, reorder: 0, spike: 0, spike_max: Duration::ZERO }
    }
}

/// What becomes of a message: when its copies arrive (none: it is lost), and what was bad.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// The moments of arrival.
    pub arrivals: Vec<Tick>,
    /// What the network did.
    pub faults: Vec<Mishap>,
}

/// What is on its way on a link.
#[derive(Clone, Copy, Debug, Default)]
struct Arrivals {
    /// When the last message in order arrives.
    last: Tick,
    /// When the latest one does, of those out of order too.
    latest: Tick,
}

/// How a link goes up and down.
#[derive(Clone, Copy, Debug)]
struct Flap {
    period: Duration,
    /// Each time lasts one period; otherwise up to two.
    regular: bool,
    next: Tick,
}

/// No link goes up and down faster.
const FLAP_MIN: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Clone, Debug)]
pub struct Network {
    weather: Weather,
    /// Links that do not work.
    cut: BTreeSet<Link>,
    /// Links that go up and down, each in its own time.
    flapping: BTreeMap<Link, Flap>,
    arrivals: BTreeMap<Link, Arrivals>,
}

impl Network {
    /// All links work.
    #[must_use]
    pub fn new(weather: Weather) -> Self {
        Self { weather, cut: BTreeSet::new(), flapping: BTreeMap::new(), arrivals: BTreeMap::new() }
    }

    /// Whether a link works now.
    #[must_use]
    pub fn works(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Whether two nodes can hold a connection: that takes both directions.
    #[must_use]
    pub fn connects(&self, one: NodeId, other: NodeId) -> bool {
        self.works(one, other) && self.works(other, one)
    }

    /// Whether a link goes up and down.
    #[cfg(test)]
    pub(crate) fn flaps(&self, from: NodeId, to: NodeId) -> bool {
        self.flapping.contains_key(&(from, to))
    }

    /// What becomes of a message that is sent now.
    pub fn send(&mut self, from: NodeId, to: NodeId, now: Tick, chance: &mut Chance) -> Fate {
        let mut fate = Fate::default();
        if !self.works(from, to) {
            return fate;
        }
        let Weather { loss, duplicate, reorder, spike, .. } = self.weather;
        if chance.happens(loss) {
            fate.faults.push(Mishap::Loss);
            return fate;
        }
        let mut arrives = now + self.delay(chance);
        if chance.happens(spike) {
            arrives = arrives + some_of(self.weather.spike_max, chance);
            fate.faults.push(Mishap::DelaySpike);
        }
        let Arrivals { last, latest } = self.arrivals.entry((from, to)).or_default();
        let overtakes = arrives < *last && chance.happens(reorder);
        if !overtakes && chance.happens(reorder) {
            // Those that follow may overtake it.
            arrives = arrives.max(*last) + self.weather.delay_max;
        } else if !overtakes {
            arrives = arrives.max(*last);
            *last = arrives;
        }
        if arrives < *latest {
            fate.faults.push(Mishap::Reorder);
        }
        *latest = arrives.max(*latest);
        fate.arrivals.push(arrives);
        if chance.happens(duplicate) {
            fate.faults.push(Mishap::Duplicate);
            let later = if chance.coin() { some_of(self.weather.spike_max, chance) } else { Duration::ZERO };
            fate.arrivals.push(arrives + self.delay(chance) + later);
        }
        fate
    }

    /// How long a message takes.
    pub fn delay(&self, chance: &mut Chance) -> Duration {
        self.weather.delay_min + some_of(self.weather.delay_max.saturating_sub(self.weather.delay_min), chance)
    }

    /// These links stop.
    pub fn cut(&mut self, links: &[Link]) {
        self.cut.extend(links);
    }

    /// A link stops now, works again after a period, and so on.
    pub fn begin_to_flap(&mut self, link: Link, now: Tick, period: Duration, regular: bool) {
        self.cut.insert(link);
        self.flapping.insert(link, Flap { period, regular, next: now + period.max(FLAP_MIN) });
    }

    /// A link works again.
    pub fn mend(&mut self, from: NodeId, to: NodeId) {
        self.cut.remove(&(from, to));
        self.flapping.remove(&(from, to));
    }

    /// All links work.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.flapping.clear();
    }

    /// Whether any link is cut or flaps.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.cut.is_empty() || !self.flapping.is_empty()
    }

    /// When a link changes next.
    #[must_use]
    pub fn next_flap(&self) -> Option<Tick> {
        self.flapping.values().map(|flap| flap.next).min()
    }

    /// Flapping links whose time has come change; says which stopped.
    pub fn flap(&mut self, now: Tick, chance: &mut Chance) -> Vec<Link> {
        let mut stopped = Vec::new();
        for (link, flap) in self.flapping.iter_mut().filter(|(_, flap)| flap.next <= now) {
            let pause = if flap.regular { flap.period } else { some_of(flap.period * 2, chance) };
            flap.next = now + pause.max(FLAP_MIN);
            if !self.cut.remove(link) {
                self.cut.insert(*link);
                stopped.push(*link);
            }
        }
        stopped
    }

    /// This is the weather from now on.
    pub fn worsen(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Nothing is lost, doubled or delayed from now on.
    pub fn calm(&mut self) {
        self.weather = Weather::fair(self.weather.delay_min, self.weather.delay_max);
    }
}

/// From nothing to all of a time.
pub(crate) fn some_of(most: Duration, chance: &mut Chance) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
    Duration::from_micros(chance.between(0, micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn network() -> Network {
        let millis = Duration::from_millis;
        Network::new(Weather {
            loss: 1_000,
            duplicate: 1_000,
            reorder: 1_000,
            spike: 1_000,
            spike_max: millis(500),
            ..Weather::fair(millis(1), millis(5))
        })
    }

    /// Catches a kind of bad weather that never comes, and messages out of order in a calm.
    #[test]
    fn every_kind_of_weather_comes_and_ends() {
        let (mut network, mut chance) = (network(), Chance::new(1));
        let mut kinds: BTreeSet<Mishap> = BTreeSet::new();
        for now in 0..1_000 {
            let fate = network.send(A, B, Tick(now), &mut chance);
            kinds.extend(&fate.faults);
            let lost = fate.faults.contains(&Mishap::Loss);
            assert_eq!(fate.arrivals.is_empty(), lost);
            assert!(lost || fate.arrivals.iter().all(|at| at.0 >= now + 1_000), "no faster than the link");
        }
        assert_eq!(kinds.len(), 4, "{kinds:?}");
        network.calm();
        let mut last = Tick(0);
        for now in 1_000_000..1_000_500 {
            let fate = network.send(A, B, Tick(now), &mut chance);
            assert!(fate.faults.is_empty() && fate.arrivals.len() == 1);
            assert!(fate.arrivals[0] >= last, "in order");
            last = fate.arrivals[0];
        }
    }

    /// Catches doubles that all come soon, and ones that never do.
    #[test]
    fn doubles_come_at_any_time() {
        let millis = Duration::from_millis;
        let mut chance = Chance::new(1);
        let weather = Weather { duplicate: 10_000, spike_max: millis(1_000), ..Weather::fair(millis(1), millis(5)) };
        let mut network = Network::new(weather);
        let pauses: Vec<Duration> = (0..100)
            .map(|now| {
                let fate = network.send(A, B, Tick(now * 10_000_000), &mut chance);
                fate.arrivals[1].since(fate.arrivals[0])
            })
            .collect();
        assert!(pauses.iter().any(|pause| *pause <= millis(5)) && pauses.iter().any(|pause| *pause > millis(500)));
    }

    /// Catches a message that counts as out of order although none is overtaken, and one that overtakes and does not
    /// count.
    #[test]
    fn what_overtakes_another_message_is_counted() {
        let mut chance = Chance::new(1);
        let mut network = Network::new(Weather { reorder: 5_000, ..network().weather });
        (network.weather.loss, network.weather.duplicate) = (0, 0);
        let (mut latest, mut overtaken) = (Tick(0), 0);
        for now in 0..1_000 {
            let fate = network.send(A, B, Tick(now * 500), &mut chance);
            let arrives = fate.arrivals[0];
            assert_eq!(fate.faults.contains(&Mishap::Reorder), arrives < latest);
            overtaken += u32::from(arrives < latest);
            latest = latest.max(arrives);
        }
        assert!((100..900).contains(&overtaken), "{overtaken}");
        // Long after each other, none overtakes one that was held back.
        for now in 1_000..1_100 {
            let fate = network.send(A, B, Tick(now * 1_000_000), &mut chance);
            assert!(!fate.faults.contains(&Mishap::Reorder));
        }
    }

    /// Catches a cut that works both ways, and one that does not end.
    #[test]
    fn a_cut_link_is_silent_in_its_direction_until_it_is_mended() {
        let (mut network, mut chance) = (network(), Chance::new(1));
        network.calm();
        network.cut(&[(A, B)]);
        assert!(network.send(A, B, Tick(0), &mut chance).arrivals.is_empty());
        assert_eq!(network.send(B, A, Tick(0), &mut chance).arrivals.len(), 1);
        assert!(!network.connects(A, B) && network.is_broken());
        network.mend(A, B);
        assert!(network.connects(A, B) && !network.is_broken());
        network.begin_to_flap((A, B), Tick(0), Duration::from_micros(2_000), true);
        assert!(network.flap(Tick(1_999), &mut chance).is_empty() && !network.works(A, B));
        assert!(network.flap(Tick(2_000), &mut chance).is_empty() && network.works(A, B));
        assert_eq!(network.flap(Tick(4_000), &mut chance), [(A, B)]);
        network.heal();
        assert!(network.next_flap().is_none() && network.works(A, B));
        assert!(network.flap(Tick(6_000), &mut chance).is_empty() && network.works(A, B));
    }

    /// RELIABILITY 2: catches links that go up and down together although each has its own period, a direction that the
    /// other one takes with it, and irregular times that are regular.
    #[test]
    fn each_direction_of_each_link_flaps_in_its_own_time() {
        let (mut network, mut chance) = (network(), Chance::new(1));
        let flaps = [((A, B), 3, true), ((B, A), 5, true), ((A, NodeId(3)), 4, false)];
        for (link, period, regular) in flaps {
            network.begin_to_flap(link, Tick(0), Duration::from_millis(period), regular);
        }
        let mut changes: BTreeMap<Link, Vec<u64>> = BTreeMap::new();
        let mut before = flaps.map(|(link, ..)| (link, false));
        while let Some(now) = network.next_flap().filter(|now| now.0 < 600_000) {
            network.flap(now, &mut chance);
            for (link, worked) in &mut before {
                let works = network.works(link.0, link.1);
                if std::mem::replace(worked, works) != works {
                    changes.entry(*link).or_default().push(now.0);
                }
            }
        }
        for (link, period, regular) in flaps {
            let at = &changes[&link];
            let pauses: BTreeSet<u64> = at.windows(2).map(|two| two[1] - two[0]).collect();
            if regular {
                assert_eq!(pauses, [period * 1_000].into(), "{link:?}");
            } else {
                assert!(pauses.len() > 20 && pauses.iter().all(|pause| (1_000..=8_000).contains(pause)), "{pauses:?}");
            }
        }
    }
}
