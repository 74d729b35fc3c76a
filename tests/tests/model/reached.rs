//! What a search reaches, as far as a step that is left out must not change it.
//!
//! A search with fewer steps cannot reach all states. What it must still reach, by the argument of `prune`:
//!
//! - *issued*: each set of commands that is issued at some moment, by number;
//! - *chosen*: for each number, the ballot in which a majority set has voted for one command, and the command;
//! - *proposed*: with which commands each ballot is led, from number 1, the issued ones and its initial history included;
//! - *open*: what is durable (promises and votes of all acceptors, and how much each learner has applied), while some
//!   number is not chosen and a majority set does not know the end. With it, what is issued so far, and each ballot that
//!   may still be led to an end: whose promises it has, or what it proposes.
//!
//! The first three are the same sets. Of the open ones the reduction claims that a state is left out only where another
//! one *does all of it*: the same is durable, at least as much is issued, since votes are counted at once, and the same
//! ballots are under way, or more, since refusals are lost and some power cuts left out. That is looked up for each. The
//! other way round each open state of the reduced search must be one of the whole search.
//!
//! What is not compared: what happens after the end; ballots that no majority set can follow, or of which nobody has
//! heard yet; messages on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::{Ballot, CommandId, NodeId};

use super::cluster::{Cluster, Config, State};
use super::prune;
use super::roles::{LEADERS, NODES};
use super::space::{Numbered, Tables};

/// What is issued, from number 1.
type Issued = Vec<Option<CommandId>>;
/// The ballot in which a majority set voted for a command, from number 1.
type Chosen = Vec<Option<(Ballot, CommandId)>>;

/// What an acceptor has on its disk.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Disk {
    promise: Ballot,
    votes: Vec<(Ballot, CommandId)>,
    was_damaged: bool,
    is_silent: bool,
}

/// A ballot that may still be led to an end.
#[derive(Debug, PartialEq, Eq, Hash)]
enum UnderWay {
    Prepared {
        ballot: Ballot,
        promised: BTreeSet<NodeId>,
    },
    /// A majority set has promised, and it must learn first what one of these knows to be issued: who else promises
    /// brings nothing.
    Behind {
        ballot: Ballot,
    },
    Led {
        ballot: Ballot,
        commands: Vec<CommandId>,
    },
}

/// The disks by number, and how many commands each learner has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Durable {
    disks: [u32; NODES.len()],
    applied: [u8; NODES.len()],
}

/// What is issued, and what each leader does, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    issued: u32,
    under_way: [Option<u32>; LEADERS.len()],
    /// How many ballots are not begun.
    left: u8,
}

/// Each of these once and by number, the same for all searches that are compared.
#[derive(Default)]
pub(crate) struct Names(Mutex<Lists>);

#[derive(Default)]
struct Lists {
    disks: Numbered<Disk>,
    under_way: Numbered<UnderWay>,
    issued: Numbered<Issued>,
}

/// See the module.
pub(crate) struct Reached {
    names: Arc<Names>,
    sets: Mutex<Sets>,
}

#[derive(Default)]
struct Sets {
    issued: BTreeSet<Issued>,
    chosen: BTreeSet<Chosen>,
    proposed: BTreeSet<(Ballot, Vec<CommandId>)>,
    open: BTreeMap<Durable, BTreeSet<Known>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reached {
    pub(crate) fn new(names: &Arc<Names>) -> Self {
        Self { names: Arc::clone(names), sets: Mutex::default() }
    }

    /// How many there are of each kind.
    pub(crate) fn sizes(&self) -> [usize; 4] {
        let sets = locked(&self.sets);
        [sets.issued.len(), sets.chosen.len(), sets.proposed.len(), sets.open.values().map(BTreeSet::len).sum()]
    }

    /// A state is reached.
    pub(crate) fn note(&self, cluster: &Cluster, state: &State) {
        let tables = cluster.space.look();
        let config = &cluster.config;
        let disks = NODES.map(|node| Disk::of(&tables, state, node));
        let chosen: Chosen = (1..=config.numbers).map(|number| chosen_at(number, config, &disks)).collect();
        let is_open = chosen.contains(&None) && !prune::is_over(&tables, state, config);
        let issued = state.issued().to_vec();
        let under_way = LEADERS.map(|node| UnderWay::of(&tables, state, config, node));
        let applied = NODES.map(|node| u8::try_from(tables.learner(state, node).applied.len()).expect("few"));
        let mut sets = locked(&self.sets);
        for leader in LEADERS.map(|node| tables.leader(state, node)) {
            if let Some(proposed) = leader.proposes()
                && !sets.proposed.contains(&proposed)
            {
                sets.proposed.insert(proposed);
            }
        }
        if is_open {
            let mut names = locked(&self.names.0);
            let durable = Durable { disks: disks.map(|disk| names.disks.id(disk)), applied };
            let under_way = under_way.map(|it| it.map(|it| names.under_way.id(it)));
            let begun = |(round, owner): &(u64, &NodeId)| {
                tables.leader(state, **owner).last_tried >= Ballot::new(*round, **owner)
            };
            let left = (1..).zip(&config.owners).filter(|one| !begun(one)).count();
            let left = u8::try_from(left).expect("few");
            let known = Known { issued: names.issued.id(issued.clone()), under_way, left };
            sets.open.entry(durable).or_default().insert(known);
        }
        sets.issued.insert(issued);
        sets.chosen.insert(chosen);
    }

    /// What this search lost of all that `whole` reached, and what it reached beyond.
    pub(crate) fn differences_from(&self, whole: &Self) -> Vec<Difference> {
        let (reduced, whole) = (locked(&self.sets), locked(&whole.sets));
        let names = locked(&self.names.0);
        let mut all = Vec::new();
        all.extend(differences("issued", &whole.issued, &reduced.issued));
        all.extend(differences("chosen", &whole.chosen, &reduced.chosen));
        all.extend(differences("proposed", &whole.proposed, &reduced.proposed));
        let none = BTreeSet::new();
        let lost = whole.open.iter().flat_map(|(durable, all)| {
            let known = reduced.open.get(durable).unwrap_or(&none);
            let is_lost = |one: &&Known| !known.contains(*one) && !known.iter().any(|it| names.does_all_of(it, one));
            all.iter().filter(|one| one.is_open()).filter(is_lost).map(|one| (*durable, *one)).collect::<Vec<_>>()
        });
        all.extend(Difference::of("open", Way::Lost, lost.map(|(durable, known)| names.told(durable, known))));
        let beyond = reduced.open.iter().flat_map(|(durable, all)| {
            let known = whole.open.get(durable).unwrap_or(&none);
            all.difference(known).map(|one| (*durable, *one)).collect::<Vec<_>>()
        });
        all.extend(Difference::of("open", Way::Beyond, beyond.map(|(durable, known)| names.told(durable, known))));
        all
    }
}

/// Which search has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Lost,
    Beyond,
}

/// What one search reached and the other one did not, of one kind.
pub(crate) struct Difference {
    pub(crate) kind: &'static str,
    pub(crate) way: Way,
    pub(crate) count: usize,
    examples: Vec<String>,
}

/// How many examples are told of each kind.
const EXAMPLES: usize = 3;

impl Difference {
    fn of(kind: &'static str, way: Way, mut all: impl Iterator<Item = String>) -> Option<Self> {
        let examples: Vec<String> = all.by_ref().take(EXAMPLES).collect();
        let count = examples.len() + all.count();
        (count > 0).then_some(Self { kind, way, count, examples })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {:?}: {}, such as", self.kind, self.way, self.count)?;
        self.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}

fn differences<T: Ord + fmt::Debug>(
    kind: &'static str,
    whole: &BTreeSet<T>,
    reduced: &BTreeSet<T>,
) -> impl Iterator<Item = Difference> {
    let told = |one: &T| format!("{one:?}");
    let lost = Difference::of(kind, Way::Lost, whole.difference(reduced).map(told));
    lost.into_iter().chain(Difference::of(kind, Way::Beyond, reduced.difference(whole).map(told)))
}

impl Known {
    /// Whether a ballot is under way or left.
    fn is_open(&self) -> bool {
        self.left > 0 || self.under_way.iter().any(Option::is_some)
    }
}

impl Lists {
    /// Whether nothing of the other one is missing.
    fn does_all_of(&self, one: &Known, other: &Known) -> bool {
        let (issued, less) = (self.issued.get(one.issued), self.issued.get(other.issued));
        let is_done = |it: u32| match self.under_way.get(it) {
            UnderWay::Led { commands, .. } => commands.iter().zip(issued).all(|(id, issued)| *issued == Some(*id)),
            UnderWay::Prepared { .. } | UnderWay::Behind { .. } => false,
        };
        one.left >= other.left
            && less.iter().zip(issued).all(|(less, more)| less.is_none() || less == more)
            && other.under_way.iter().zip(one.under_way).all(|(less, more)| *less == more || less.is_none_or(is_done))
    }

    fn told(&self, durable: Durable, known: Known) -> String {
        let disks = durable.disks.map(|id| self.disks.get(id));
        let under_way = known.under_way.map(|id| id.map(|id| self.under_way.get(id)));
        let (applied, issued) = (durable.applied, self.issued.get(known.issued));
        format!("{disks:?}\n    applied {applied:?}, issued {issued:?}, under way {under_way:?}")
    }
}

impl Disk {
    fn of(tables: &Tables, state: &State, node: NodeId) -> Self {
        let acceptor = tables.acceptor(state, node);
        let is_silent = acceptor.core.silence().is_some();
        let (promise, votes) = (acceptor.core.next_ballot(), acceptor.stored.clone());
        Self { promise, votes, was_damaged: acceptor.was_damaged(), is_silent }
    }
}

impl UnderWay {
    fn of(tables: &Tables, state: &State, config: &Config, node: NodeId) -> Option<Self> {
        let leader = tables.leader(state, node);
        let ballot = leader.active?;
        let promise = |acceptor: &NodeId| tables.acceptor(state, *acceptor).core.next_ballot();
        let has_begun = leader.leads().is_some()
            || !leader.promised.is_empty()
            || NODES.iter().any(|acceptor| promise(acceptor) == ballot);
        let prepares = leader.leads().is_none();
        let follows =
            |acceptor: &&NodeId| promise(acceptor) <= ballot || (prepares && leader.promised.contains(acceptor));
        if !has_begun || NODES.iter().filter(follows).count() < prune::followers_needed(config) {
            return None;
        }
        Some(match leader.proposes() {
            Some((ballot, commands)) => Self::Led { ballot, commands },
            None if config.change.is_none() && leader.promised.len() > NODES.len() / 2 => Self::Behind { ballot },
            None => Self::Prepared { ballot, promised: leader.promised.iter().copied().collect() },
        })
    }
}

/// The ballot in which a majority set voted for one command at a number, as far as the disks still show it.
fn chosen_at(number: u64, config: &Config, disks: &[Disk; NODES.len()]) -> Option<(Ballot, CommandId)> {
    let mut weights = config.change.map_or([1; NODES.len()], |change| change.weights);
    if let Some(change) = config.change.filter(|_| number > 1) {
        // The first command of all is the change.
        let at = NODES.iter().position(|node| *node == change.node).expect("one of the nodes");
        weights[at] = change.weight();
    }
    let votes = |disk: &Disk| disk.votes.iter().copied().find(|(_, id)| id.number.0 == number);
    disks.iter().filter_map(votes).find(|vote| {
        let for_it = disks.iter().zip(weights).filter(|(disk, _)| votes(disk) == Some(*vote));
        2 * for_it.map(|(_, weight)| weight).sum::<u64>() > weights.iter().sum()
    })
}
