//! Troubles of all kinds, drawn by a seed, one after the other and two at once, while clients go on (RELIABILITY 5, class 5).
//!
//! A round strikes, waits, heals everything, and demands that calls are decided again. The seed decides what comes when and
//! to whom; processes and clocks are real, so that the same seed gives another run. By default two short runs; more and longer
//! ones, as many as wanted: `NEMESIS="FIRST-SEED RUNS SECONDS" cargo nextest run --workspace -E 'test(nemesis)' --no-capture`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use quorate_tests::cluster::{Cluster, Link, Reply, Taps, Witnesses, send};
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::task::JoinHandle;

/// First seed, runs, and seconds of troubles in each.
const USUAL: [u64; 3] = [1, 2, 15];
const CLIENTS: u64 = 6;
/// Calls that must be decided after each round.
const CALLS: u64 = 20;
/// How long troubles last, in milliseconds.
const LASTS: std::ops::Range<u64> = 200..4_000;
/// Within which calls should be decided again, by RELIABILITY; told, and not demanded of a machine that does other work.
const RESUMES: Duration = Duration::from_secs(5);

/// Which links are cut: each says whether `from` is heard by `to`, of so many, in an order that is drawn.
type Hears = fn(from: usize, to: usize, nodes: usize) -> bool;

const SHAPES: [(&str, Hears); 8] = [
    ("in two", |from, to, nodes| (from < nodes.div_ceil(2)) == (to < nodes.div_ceil(2))),
    ("one alone", |from, to, _| from != 0 && to != 0),
    ("one that is not heard", |from, _, _| from != 0),
    ("one that hears nobody", |_, to, _| to != 0),
    ("a star", |from, to, _| from == 0 || to == 0),
    ("a chain", |from, to, _| from.abs_diff(to) == 1),
    ("a ring", |from, to, nodes| [1, nodes - 1].contains(&from.abs_diff(to))),
    ("a bridge", |from, to, nodes| from == 0 || to == 0 || (from <= nodes / 2) == (to <= nodes / 2)),
];

struct Nemesis {
    cluster: Cluster,
    taps: Taps,
    chance: ChaCha8Rng,
    frozen: Vec<usize>,
    /// Changes that were asked for.
    changes: Vec<JoinHandle<Result<Reply, reqwest::Error>>>,
    /// What was done, for whoever reads a failure.
    done: String,
}

impl Nemesis {
    async fn new(seed: u64) -> Self {
        let nodes = if seed % 2 == 1 { 3 } else { 5 };
        let mut cluster = Cluster::new("nemesis", nodes, &[]);
        let taps = Taps::between(&mut cluster).await;
        cluster.boot_all();
        cluster.wait_begun().await;
        let chance = ChaCha8Rng::seed_from_u64(seed);
        Self {
            cluster,
            taps,
            chance,
            frozen: Vec::new(),
            changes: Vec::new(),
            done: format!("seed {seed}, {nodes} nodes"),
        }
    }

    /// So many nodes that run: the leader among them in half of the cases, as far as anybody knows it.
    async fn victims(&mut self, many: usize) -> Vec<usize> {
        let mut living = self.cluster.living();
        living.shuffle(&mut self.chance);
        if self.chance.random_bool(0.5)
            && let Some(leader) = self.leader().await
            && let Some(at) = living.iter().position(|node| *node == leader)
        {
            living.swap(0, at);
        }
        living.truncate(many);
        living
    }

    async fn leader(&self) -> Option<usize> {
        let view = self.cluster.try_get(*self.cluster.living().first()?, "/v1/cluster").await.ok()?.json();
        Some(usize::try_from(view["leader"]["id"].as_u64()?).ok()? - 1)
    }

    async fn strike(&mut self) {
        let (nodes, few) = (self.cluster.size(), (self.cluster.size() - 1) / 2);
        match self.chance.random_range(0..12) {
            0..3 => {
                let many = *[1, 1, few, few + 1, nodes].choose(&mut self.chance).expect("some");
                let victims = self.victims(many).await;
                self.note(&format!("kill {victims:?}"));
                victims.into_iter().for_each(|node| self.cluster.kill9(node));
            }
            3..5 => {
                let many = *[1, 1, few].choose(&mut self.chance).expect("some");
                let victims = self.victims(many).await;
                self.note(&format!("freeze {victims:?}"));
                victims.iter().for_each(|node| self.cluster.freeze(*node));
                self.frozen.extend(victims);
            }
            5 => {
                let victims = self.victims(1).await;
                self.note(&format!("restart {victims:?} again and again"));
                for node in victims.into_iter().cycle().take(3) {
                    self.cluster.kill9(node);
                    self.cluster.boot(node);
                    self.wait(LASTS.start..LASTS.end / 4).await;
                }
            }
            6..8 => self.reweigh(),
            _ => self.cut(),
        }
    }

    /// Asks for a change of who votes, and goes on: what comes next finds it half done, or refused.
    fn reweigh(&mut self) {
        let (node, weight) = (self.chance.random_range(0..self.cluster.size()), self.chance.random_range(0..=2_u64));
        let Some(asked) = self.cluster.living().choose(&mut self.chance).copied() else { return };
        self.note(&format!("weight {weight} of {node}, by {asked}"));
        let call = self.cluster.client().post(self.cluster.url(asked, "/v1/functions/cluster.set_acceptor"));
        let call = call.header("Prefer", "wait=5").json(&json!({"node": node + 1, "weight": weight}));
        self.changes.push(tokio::spawn(send(call)));
    }

    /// Links of a shape, in either manner; what was cut before stays so.
    fn cut(&mut self) {
        let mut places: Vec<usize> = (0..self.cluster.size()).collect();
        places.shuffle(&mut self.chance);
        let (name, hears) = *SHAPES.choose(&mut self.chance).expect("some");
        let link = if self.chance.random_bool(0.5) { Link::Silent } else { Link::Closed };
        self.note(&format!("cut: {name}, {link:?}, places {places:?}"));
        for (from, to, tap) in self.taps.iter() {
            if !hears(places[from], places[to], places.len()) {
                tap.set(link);
            }
        }
    }

    fn heal(&mut self) {
        self.taps.iter().for_each(|(.., tap)| tap.set(Link::Open));
        for node in std::mem::take(&mut self.frozen) {
            self.cluster.thaw(node);
        }
        self.cluster.boot_all();
    }

    fn note(&mut self, what: &str) {
        println!("{what}");
        write!(self.done, "; {what}").expect("text");
    }

    async fn wait(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.chance.random_range(millis))).await;
    }
}

impl Drop for Nemesis {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it failed after: {}", self.done);
        }
    }
}

/// One run; says how long calls took to be decided again, at most.
async fn run(seed: u64, lasts: Duration) -> Duration {
    let mut nemesis = Nemesis::new(seed).await;
    let witnesses = Witnesses::start(&nemesis.cluster, CLIENTS);
    let (begun, mut longest, mut rounds) = (Instant::now(), Duration::ZERO, 0);
    while begun.elapsed() < lasts {
        nemesis.strike().await;
        nemesis.wait(LASTS).await;
        if nemesis.chance.random_bool(0.3) && !nemesis.cluster.living().is_empty() {
            nemesis.strike().await;
            nemesis.wait(LASTS).await;
        }
        nemesis.heal();
        nemesis.note("heal");
        let healed = Instant::now();
        witnesses.progress(CALLS).await;
        longest = longest.max(healed.elapsed());
        rounds += 1;
    }
    nemesis.cluster.wait_ready().await;
    // None is decided any more when the chain is read.
    for change in std::mem::take(&mut nemesis.changes) {
        if let Ok(reply) = change.await.expect("no panic") {
            assert!(![400, 404].contains(&reply.status), "{}", reply.text());
        }
    }
    let testimony = witnesses.finish().await;
    let history = nemesis.cluster.assert_agreement().await;
    let [calls, refused, reads] = testimony.counts();
    let slow = if longest > RESUMES { ": slower than wanted" } else { "" };
    println!(
        "seed {seed}: {rounds} rounds, {calls} calls, {refused} of them refused, {reads} reads; calls were decided again within \
         {longest:?} at most{slow}"
    );
    assert!(calls as u64 >= rounds * CALLS && reads > 0, "{calls} calls and {reads} reads in {rounds} rounds");
    if let Err(wrong) = testimony.judge(&history) {
        panic!("{wrong}");
    }
    longest
}

/// A1 to A7, A11 to A13, S-20 to S-23, RELIABILITY 3.7 to 3.9: catches what was told and is not so afterwards, whatever came
/// over real nodes, and a cluster that does not go on when it is over.
#[tokio::test]
async fn what_was_told_stays_so_under_a_nemesis() {
    let wanted = std::env::var("NEMESIS").unwrap_or_default();
    let wanted: Vec<u64> = wanted.split_whitespace().map(|word| word.parse().expect("a number in NEMESIS")).collect();
    let [first, runs, seconds] =
        if wanted.is_empty() { USUAL } else { wanted.try_into().expect("three numbers in NEMESIS") };
    let mut longest = Duration::ZERO;
    for seed in first..first + runs {
        longest = longest.max(run(seed, Duration::from_secs(seconds)).await);
    }
    println!(
        "{runs} runs of {seconds} s from seed {first} on: nothing was wrong; calls were decided again within {longest:?} at most"
    );
}
