//! Worlds of a fixed shape: the partial connectivity of RELIABILITY 2, by name, in which other
//! protocols stop or change their leader for ever.
//!
//! Each begins whole and led by one node; then links stop for good, and all else is well. What
//! counts is the longest time without progress from then on, how often the lead changes after the
//! first change, how soon a leader without a majority set steps down, and whether those that do not
//! reach the leader catch up through those that they reach.
//!
//! Nodes have numbers here, and node 1 leads; which nodes of the world these are, and who decides
//! that a command is issued, the seed says: [`Scenario::place`], [`Scenario::learn_from`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use protocol::{Ballot, CommandNumber, LearnFrom, NodeId, Now, Tick};

use crate::chart::{Chart, Settings};
use crate::fact::{Fact, Observer};
use crate::fault::Shape;
use crate::invariants::Invariants;
use crate::network::Link;
use crate::swarm::Swarm;
use crate::watchers::Watchers;
use crate::world::{TIMEOUTS_TO_ANSWER, World};

/// A shape that stays.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name in RELIABILITY 2.
    pub name: &'static str,
    /// How many nodes.
    pub nodes: u64,
    /// The links that are left, both ways; one-way cuts are in `silent`.
    kept: &'static [(u64, u64)],
    /// Directed links that stop besides.
    silent: &'static [(u64, u64)],
    /// Directed links that go up and down.
    flapping: &'static [(u64, u64)],
    /// A node that is cut off for a while before, so that it is behind.
    stale: Option<u64>,
    /// For how long.
    behind: Duration,
    /// A node that is killed when the links stop, and is back soon with damaged votes: silent.
    damaged: Option<u64>,
    /// Of commands, how many are kept: with fewer than it lacks it needs a whole state.
    history: Option<u64>,
    /// The leader has no majority set afterwards.
    pub loses_majority: bool,
    /// Within how many election timeouts there must be progress: as soon as somebody can lead; or, where the leader stays and
    /// most messages to it are lost in between, once a gateway has sent a call that far.
    pub timeouts: u32,
    /// The nodes that clients ask: those that reach a leader in the end.
    asked: &'static [u64],
    /// The nodes that nobody can help to catch up.
    alone: &'static [u64],
}

/// The links of three nodes.
const MESH: &[(u64, u64)] = &[(1, 2), (1, 3), (2, 3)];

/// How long a node is cut off before, to be behind: some commands, or some dozens.
const BEHIND: Duration = Duration::from_millis(1_500);
const FAR_BEHIND: Duration = Duration::from_secs(6);

/// How long a node is down that comes back silent: something is proposed by then, which it must learn to speak again, and
/// nobody has missed it for long.
const DOWN: Duration = Duration::from_millis(150);

/// Nothing stops.
const WELL: Scenario = Scenario {
    name: "",
    nodes: 3,
    kept: MESH,
    silent: &[],
    flapping: &[],
    stale: None,
    behind: BEHIND,
    damaged: None,
    history: None,
    loses_majority: false,
    timeouts: 4,
    asked: &[1, 2, 3],
    alone: &[],
};

/// All of them.
pub static ALL: [Scenario; 12] = [
    Scenario {
        name: "quorum loss: all reach only one node, and the leader is another one",
        nodes: 5,
        kept: &[(2, 1), (2, 3), (2, 4), (2, 5)],
        loses_majority: true,
        asked: &[2, 3, 4, 5],
        ..WELL
    },
    Scenario {
        name: "constrained election: only a node that is behind reaches a majority set",
        nodes: 5,
        kept: &[(2, 3), (2, 4), (2, 5)],
        stale: Some(2),
        loses_majority: true,
        asked: &[2, 3, 4, 5],
        alone: &[1],
        ..WELL
    },
    Scenario {
        name: "constrained election, far behind: only a node that needs a whole state reaches a majority set",
        nodes: 5,
        kept: &[(2, 3), (2, 4), (2, 5)],
        stale: Some(2),
        behind: FAR_BEHIND,
        history: Some(5),
        loses_majority: true,
        asked: &[2, 3, 4, 5],
        alone: &[1],
        ..WELL
    },
    Scenario {
        name: "chained: the ends, one of which leads, do not see each other",
        kept: &[(1, 2), (2, 3)],
        asked: &[1, 2],
        ..WELL
    },
    Scenario {
        name: "Howard and Abraham: three meshed, and two that see one of these each",
        nodes: 5,
        kept: &[(1, 2), (1, 3), (2, 3), (4, 2), (5, 3)],
        ..WELL
    },
    Scenario {
        name: "silent: the leader reaches a majority set only with a node whose acceptor is silent, and another one does not need it",
        nodes: 5,
        kept: &[(1, 2), (1, 3), (2, 3), (2, 4), (2, 5), (3, 4), (4, 5)],
        damaged: Some(3),
        timeouts: 6,
        asked: &[2],
        ..WELL
    },
    Scenario {
        name: "asymmetric: the leader sends and does not receive",
        silent: &[(2, 1), (3, 1)],
        loses_majority: true,
        asked: &[2, 3],
        alone: &[1],
        ..WELL
    },
    Scenario {
        name: "asymmetric: the leader receives and does not send",
        silent: &[(1, 2), (1, 3)],
        loses_majority: true,
        asked: &[2, 3],
        alone: &[1],
        ..WELL
    },
    Scenario {
        name: "flapping: a link of the leader goes up and down every 200 ms",
        flapping: &[(1, 2), (2, 1)],
        asked: &[1, 3],
        ..WELL
    },
    Scenario {
        name: "flapping: all links of the leader go up and down every 200 ms",
        flapping: &[(1, 2), (2, 1), (1, 3), (3, 1)],
        timeouts: TIMEOUTS_TO_ANSWER,
        ..WELL
    },
    Scenario {
        name: "flapping: what the leader sends is lost for 200 ms, and then is not",
        flapping: &[(1, 2), (1, 3)],
        timeouts: TIMEOUTS_TO_ANSWER,
        ..WELL
    },
    Scenario {
        name: "flapping: what the leader is sent is lost for 200 ms, and then is not",
        flapping: &[(2, 1), (3, 1)],
        timeouts: TIMEOUTS_TO_ANSWER,
        ..WELL
    },
];

/// How long a cluster is whole before.
const WHOLE: Duration = Duration::from_secs(4);
/// When another node than the first one takes the lead, where it is to have it.
const TAKES_OVER: Duration = Duration::from_secs(2);
/// How long each is looked at.
const LOOKED_AT: Duration = Duration::from_secs(60);

/// What is older than this, at the end, is everywhere.
const SPREADS: Duration = Duration::from_secs(1);

/// Between an answer and the next question, at most: often enough to see a pause.
const THINK: Duration = Duration::from_millis(250);

/// What was seen.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Who led when the links stopped.
    pub led: Option<NodeId>,
    /// Who led afterwards, when.
    pub changes: Vec<(Tick, Ballot)>,
    /// The longest time in which nothing new was applied anywhere, after the links had stopped.
    pub longest_pause: Duration,
    /// How long after that who led has said that it leads no more.
    pub stepped_down: Option<Duration>,
    /// The last command applied.
    pub issued: CommandNumber,
    /// How many commands the node that is to be behind was behind when the links stopped.
    pub behind: u64,
    /// Whether it has taken a whole state since.
    pub took_a_state: bool,
    /// Who lacks at the end what somebody had applied a second before, and could have learnt it.
    pub lagging: Vec<NodeId>,
    /// What happened last.
    pub log: String,
}

impl Finding {
    /// Changes of the lead after the first one.
    #[must_use]
    pub fn changes_after_the_first(&self) -> usize {
        self.changes.len().saturating_sub(1)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { longest_pause, issued, behind, stepped_down, .. } = self;
        let changes = self.changes.len();
        write!(
            f,
            "{changes} changes of the lead, longest pause {longest_pause:?}, {issued} commands, {behind} behind"
        )?;
        if let Some(stepped_down) = stepped_down {
            write!(f, ", stepped down after {stepped_down:?}")?;
        }
        if self.lagging.is_empty() { Ok(()) } else { write!(f, ", lagging {:?}", self.lagging) }
    }
}

impl Scenario {
    /// The scenario whose name contains this.
    #[must_use]
    pub fn named(part: &str) -> Option<&'static Self> {
        ALL.iter().find(|scenario| scenario.name.contains(part))
    }

    /// Plays it, with a seed for delays and clients, and keeps the last `lines` facts.
    ///
    /// # Errors
    /// A broken invariant, and these facts.
    pub fn play(&self, seed: u64, lines: usize) -> Result<Finding, String> {
        self.play_before(seed, lines, None)
    }

    /// The same, and draws it.
    pub fn draw(&self, seed: u64, lines: usize) -> (Result<Finding, String>, String) {
        let settings = Settings { title: self.name.to_owned(), merge: true, ..Settings::default() };
        let chart = Rc::new(RefCell::new(Chart::new((1..=self.nodes).map(NodeId), settings)));
        let found = self.play_before(seed, lines, Some(Box::new(Rc::clone(&chart))));
        (found, chart.borrow_mut().svg())
    }

    fn play_before(&self, seed: u64, lines: usize, watcher: Option<Box<dyn Observer>>) -> Result<Finding, String> {
        let mut swarm = Swarm::calm(self.nodes);
        swarm.think = THINK;
        swarm.asked = self.asked.iter().map(|node| self.place(seed, *node)).collect();
        swarm.learn_from = Self::learn_from(seed);
        // Who goes down is started by the scenario.
        swarm.down = LOOKED_AT;
        if let Some(commands) = self.history {
            (swarm.history.commands, swarm.history.retention) = (commands, Duration::ZERO);
        }
        let bound = swarm.timeout_max * TIMEOUTS_TO_ANSWER;
        let mut watchers = Watchers::new(Invariants::new(&swarm.genesis(), bound), lines);
        watcher.into_iter().for_each(|watcher| watchers.add(watcher));
        let stops = WHOLE + self.behind;
        let (since, until) = (Tick(0) + stops, Tick(0) + stops + LOOKED_AT - SPREADS);
        let stale = self.stale.map(|node| self.place(seed, node));
        let progress = Rc::new(RefCell::new(Progress { since, until, stale, ..Progress::default() }));
        watchers.add(Box::new(Rc::clone(&progress)));
        let mut world = World::new(swarm, seed, watchers);
        let leader = self.place(seed, 1);
        if leader != NodeId(1) {
            world.plan(TAKES_OVER, Box::new(move |world| world.suspect(leader)));
        }
        if let Some(stale) = self.stale {
            let links = self.links_of(seed, stale);
            world.plan(WHOLE, Box::new(move |world| world.cut(Shape::TwoSided, &links)));
        }
        let scenario = self.clone();
        world.plan(stops, Box::new(move |world| scenario.stop_links(seed, world)));
        if let Some(damaged) = self.damaged.map(|node| self.place(seed, node)) {
            world.plan(stops, Box::new(move |world| world.kill_damaged(damaged, DOWN)));
        }
        world.plan(stops + LOOKED_AT, Box::new(World::finish));
        let ran = world.run();
        let log = world.watchers().log.tail(lines);
        ran.map_err(|broken| format!("{log}\n{broken}"))?;
        let progress = progress.borrow();
        Ok(self.find(seed, &progress, world.now().tick, log))
    }

    fn find(&self, seed: u64, progress: &Progress, end: Tick, log: String) -> Finding {
        let pause = progress.longest_pause.max(end.since(progress.grew.max(progress.since)));
        let could = (1..=self.nodes).filter(|node| !self.alone.contains(node)).map(|node| self.place(seed, node));
        Finding {
            led: progress.led,
            changes: progress.changes.clone(),
            longest_pause: pause,
            issued: progress.issued,
            stepped_down: progress.stepped_down.map(|at| at.since(progress.since)),
            behind: progress.stale.map_or(0, |stale| progress.behind(stale)),
            took_a_state: progress.took_a_state,
            lagging: could.filter(|node| progress.last(*node) < progress.old).collect(),
            log,
        }
    }

    /// Whether the acceptor of a node is silent.
    #[must_use]
    pub const fn silences(&self) -> bool {
        self.damaged.is_some()
    }

    /// Whether a node is to be behind when the links stop.
    #[must_use]
    pub fn has_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// Whether what it lacks then is too much to be sent command by command.
    #[must_use]
    pub fn needs_a_state(&self) -> bool {
        self.history.is_some()
    }

    /// Which node of the world has this number here: with two seeds more it is the next one.
    #[must_use]
    pub fn place(&self, seed: u64, node: u64) -> NodeId {
        NodeId((node - 1 + seed / 2) % self.nodes + 1)
    }

    /// Who decides that a command is issued: with every other seed the learners.
    #[must_use]
    pub fn learn_from(seed: u64) -> LearnFrom {
        if seed.is_multiple_of(2) { LearnFrom::Leader } else { LearnFrom::Voters }
    }

    fn link(&self, seed: u64, (from, to): (u64, u64)) -> Link {
        (self.place(seed, from), self.place(seed, to))
    }

    fn links_of(&self, seed: u64, node: u64) -> Vec<Link> {
        let others = (1..=self.nodes).filter(|other| *other != node);
        others.flat_map(|other| [self.link(seed, (node, other)), self.link(seed, (other, node))]).collect()
    }

    fn stop_links(&self, seed: u64, world: &mut World) {
        let stays = |link: (u64, u64)| {
            let kept = self.kept.contains(&link) || self.kept.contains(&(link.1, link.0));
            kept && !self.silent.contains(&link)
        };
        world.mend();
        let all = (1..=self.nodes).flat_map(|from| (1..=self.nodes).map(move |to| (from, to)));
        let stop = all.filter(|link| link.0 != link.1 && !stays(*link));
        let cut: Vec<Link> = stop.map(|link| self.link(seed, link)).collect();
        if !cut.is_empty() {
            world.cut(Shape::Partial, &cut);
        }
        let flapping: Vec<Link> = self.flapping.iter().map(|link| self.link(seed, *link)).collect();
        if !flapping.is_empty() {
            world.cut(Shape::Flapping, &flapping);
        }
    }
}

/// Watches progress and leads.
#[derive(Debug, Default)]
struct Progress {
    /// When the links stop.
    since: Tick,
    led: Option<NodeId>,
    /// When it has said that it leads no more.
    stepped_down: Option<Tick>,
    /// Who is to be behind then.
    stale: Option<NodeId>,
    took_a_state: bool,
    changes: Vec<(Tick, Ballot)>,
    issued: CommandNumber,
    grew: Tick,
    longest_pause: Duration,
    /// What is applied by then must be everywhere at the end.
    until: Tick,
    old: CommandNumber,
    applied: BTreeMap<NodeId, CommandNumber>,
    /// As it was when the links stopped.
    applied_before: BTreeMap<NodeId, CommandNumber>,
}

impl Progress {
    fn last(&self, node: NodeId) -> CommandNumber {
        self.applied.get(&node).copied().unwrap_or_default()
    }

    /// How far a node was behind the others when the links stopped.
    fn behind(&self, node: NodeId) -> u64 {
        let most = self.applied_before.values().copied().max().unwrap_or_default();
        most.0 - self.applied_before.get(&node).copied().unwrap_or_default().0
    }
}

impl Observer for Progress {
    fn observe(&mut self, now: Now, fact: &Fact) {
        let after = now.tick >= self.since;
        if let Fact::Leads { ballot: Some(ballot), .. } = fact {
            if after {
                self.changes.push((now.tick, *ballot));
            } else {
                self.led = Some(ballot.node);
            }
        }
        if let Fact::Leads { node, ballot: None } = fact
            && after
            && self.led == Some(*node)
        {
            self.stepped_down.get_or_insert(now.tick);
        }
        if let Fact::Applied { node, command, .. } = fact {
            self.applied.insert(*node, command.number());
        }
        if let Fact::Installed { node, id } = fact {
            self.applied.insert(*node, id.at.number);
            self.took_a_state |= after && self.stale == Some(*node);
        }
        if !after {
            self.applied_before.clone_from(&self.applied);
        }
        if now.tick <= self.until {
            self.old = self.issued;
        }
        if let Fact::Applied { command, .. } = fact
            && command.number() > self.issued
        {
            self.issued = command.number();
            if after {
                self.longest_pause = self.longest_pause.max(now.tick.since(self.grew.max(self.since)));
            }
            self.grew = now.tick;
        }
    }
}
