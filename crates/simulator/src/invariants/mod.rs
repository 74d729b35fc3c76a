//! What must always be so (DESIGN 14, RELIABILITY 3): one file each, told every [`Fact`].
//!
//! A checker keeps what it needs of the facts and says in words what is broken; it never looks
//! into a core. What several of them need is kept once, in [`History`], and is brought up to date
//! before a fact is shown to them:
//!
//! - [`Chain`]: the issued commands, as any node has applied them, with all versions of every key;
//! - [`Disks`]: the durable logs, and what the votes on them have decided;
//! - the calls that were made, and the questions that are open.
//!
//! *Decided* is more than voted for: a majority set has durably voted for a command in one ballot, and
//! its precedent is decided too. It is what *issued* claims, and it is known here a little before any
//! node knows it.
//!
//! Which file checks what (D: DESIGN 14, R: RELIABILITY 3):
//!
//! | File | D | R | File | D | R |
//! |---|---|---|---|---|---|
//! | `agreement` | 1 | 1 | `one_effect` | 9 | 9 |
//! | `dependent_sequence` | 2 | 2 | `acknowledged` | 10 | 3 |
//! | `promises` | 3 | 3 | `votes_kept` | 11 | 3 |
//! | `ballots` | 4 | 4 | `liveness` | 12 | 14 |
//! | `majority_sets` | 5 | 11 | `output_gate` | | 8 |
//! | `anchored` | 6 | 1 | `lost_disks` | | 12 |
//! | `applied_prefix` | 7 | 5 | `leaders_execute` | | 10 |
//! | `equal_states` | 7 | 6, 13 | `real_time`, `reads`, `replays` | | 7, 8 |
//! | `serial_executions` | 8 | 7, 10 | `exactly_once`, `stock` | 9 | 7, 9 |
//! | | | | `times` (DESIGN 12) | | 10 |
//!
//! Quorums of an old and a new membership need not overlap (ADR 0025). What is decided is counted under the membership in
//! force at each number, so that a node that was removed decides nothing (R 11): `agreement` and `output_gate` find it.
//!
//! Calls that a gateway names are executed once for ever: worlds must keep their outcomes for longer than copies of them are
//! under way and clocks are wrong. Those under a caller's key are executed once as long as their outcome is stored.

mod about_cluster;
mod acknowledged;
mod agreement;
mod anchored;
mod applied_prefix;
mod ballots;
mod chain;
mod dependent_sequence;
mod disks;
mod equal_states;
mod exactly_once;
mod history;
mod leaders_execute;
mod liveness;
mod lost_disks;
mod majority_sets;
mod one_effect;
mod output_gate;
mod promises;
mod reads;
mod real_time;
mod replays;
mod serial_executions;
mod stock;
#[cfg(test)]
mod testing;
mod times;
mod votes_kept;

use std::sync::Arc;
use std::time::Duration;

use ::functions::Registry;
use protocol::{CommandNumber, Membership, NodeId, Now};

pub use chain::{Chain, Issued, StateAt};
pub use disks::{Decided, Disks};
pub use history::{History, Kept, Open};

use crate::fact::{Fact, Observer, Told};
use crate::functions;

/// A broken invariant, in words: what, and where.
pub type Violation = String;

/// One invariant.
pub trait Invariant {
    /// Its name, for reports.
    fn name(&self) -> &'static str;

    /// Is told a fact; `history` holds it already.
    ///
    /// # Errors
    /// What is broken.
    fn check(&mut self, now: Now, fact: &Fact, history: &History) -> Result<(), Violation>;

    /// The longest that an answer took after the faults, if it looks at that.
    fn slowest_answer(&self) -> Duration {
        Duration::ZERO
    }

    /// The run is over: what must be so at its end.
    ///
    /// # Errors
    /// What is broken.
    fn end(&mut self, _now: Now, _history: &History) -> Result<(), Violation> {
        Ok(())
    }
}

/// All invariants.
pub struct Invariants {
    history: History,
    all: Vec<Box<dyn Invariant>>,
    broken: Option<String>,
}

impl Invariants {
    /// For a world that begins with this membership, and in which every call of a connected core is
    /// answered within `bound` once the faults are over, beyond the patience that the call itself has.
    #[must_use]
    pub fn new(genesis: &Arc<Membership>, bound: Duration) -> Self {
        Self::of_functions(genesis, bound, &functions::all())
    }

    /// The same, where nodes have other functions.
    #[must_use]
    pub fn of_functions(genesis: &Arc<Membership>, bound: Duration, functions: &Registry) -> Self {
        let all: Vec<Box<dyn Invariant>> = vec![
            Box::new(agreement::Agreement),
            Box::new(dependent_sequence::DependentSequence),
            Box::new(promises::Promises::default()),
            Box::new(ballots::Ballots::default()),
            Box::new(majority_sets::MajoritySetsIntersect::default()),
            Box::new(anchored::Anchored::default()),
            Box::new(applied_prefix::AppliedPrefix::default()),
            Box::new(equal_states::EqualStates::default()),
            Box::new(serial_executions::SerialExecutions::new(functions.clone())),
            Box::new(one_effect::OneEffect),
            Box::new(acknowledged::Acknowledged),
            Box::new(votes_kept::VotesKept),
            Box::new(output_gate::OutputGate),
            Box::new(lost_disks::LostDisks::default()),
            Box::new(leaders_execute::LeadersExecute::default()),
            Box::new(real_time::RealTime::default()),
            Box::new(reads::Reads),
            Box::new(replays::Replays::new(functions.clone())),
            Box::new(exactly_once::ExactlyOnce::default()),
            Box::new(stock::Stock::default()),
            Box::new(times::Times::default()),
            Box::new(liveness::Liveness::new(bound)),
        ];
        Self { history: History::new(genesis), all, broken: None }
    }

    /// The first violation, with the name of its invariant, if there is one.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// What the facts have amounted to so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The longest that an answer took after the faults, the patience of its caller aside.
    #[must_use]
    pub fn slowest_answer(&self) -> Duration {
        self.all.iter().map(|invariant| invariant.slowest_answer()).max().unwrap_or_default()
    }

    /// Outcomes are kept for so long.
    pub fn keep_outcomes(&mut self, kept: Kept) {
        self.history.kept = Some(kept);
    }

    /// This node has not the role of a leader, whatever the membership says.
    pub fn never_leads(&mut self, node: NodeId) {
        self.history.disks.never_leads(node);
    }

    /// In this world more may be damaged than a cluster stands.
    pub fn expect_ruin(&mut self) {
        self.history.ruinous = true;
    }

    /// The run is over.
    pub fn end(&mut self, now: Now) {
        if self.broken.is_none() {
            let history = &self.history;
            self.broken = first(&mut self.all, |invariant| invariant.end(now, history));
        }
    }
}

impl Observer for Invariants {
    /// After the first violation nothing more is looked at: what follows from it says nothing.
    fn observe(&mut self, now: Now, fact: &Fact) {
        if self.broken.is_some() {
            return;
        }
        self.broken = match self.history.learn(now, fact) {
            Err(violation) => Some(format!("history: {violation}")),
            Ok(()) => {
                let history = &self.history;
                first(&mut self.all, |invariant| invariant.check(now, fact, history))
            }
        };
        self.history.shown(fact);
    }
}

/// The first violation that any of them finds.
fn first(
    all: &mut [Box<dyn Invariant>],
    mut find: impl FnMut(&mut dyn Invariant) -> Result<(), Violation>,
) -> Option<String> {
    all.iter_mut().find_map(|invariant| {
        let violation = find(invariant.as_mut()).err()?;
        Some(format!("{}: {violation}", invariant.name()))
    })
}

/// Fails with what `says` unless `so`.
fn ensure(so: bool, says: impl FnOnce() -> Violation) -> Result<(), Violation> {
    if so { Ok(()) } else { Err(says()) }
}

/// The number of the state that an answer shows, or that it made.
fn shown_to_client(answer: &Told) -> Option<CommandNumber> {
    match answer {
        Told::Outcome { outcome, .. } => outcome.at(),
        Told::Shown { at, .. } => Some(*at),
        Told::NotExecuted | Told::Unknown | Told::Left { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Ballot, CommandId, Tick};
    use serde_json::json;
    use storage::{LogImage, LogRecord};

    use super::testing::*;
    use super::*;
    use crate::fact::{Consistency, Seen};

    /// Two calls and a read, through one leader, one of the calls after the faults; as a good cluster does it.
    fn good_run() -> Vec<Fact> {
        let calls = ["r1", "r2"].map(|request| call(request, "kv.put", &json!({"key": "a", "value": 1})));
        let bodies = calls.each_ref().map(|call| body_of(call, vec![put("a", "1")], &json!({})));
        let commands = chain_of(&bodies);
        let (first, second) = (&commands[0], &commands[1]);
        let runs = Fact::Executed { node: NodeId(1), function: "kv.put".to_owned() };
        let entry = protocol::Entry { value: "1".into(), version: CommandNumber(1) };
        let value = Told::Shown { at: CommandNumber(1), seen: Seen::Entries(vec![(key("a"), entry)]) };
        vec![
            started(1, 1, &[]),
            started(2, 1, &[]),
            started(3, 1, &[]),
            written(1, LogRecord::LastTried(ballot(1))),
            next_ballot(1, 2, 1, 1),
            promise(1, 1, CommandId::NULL, &[]),
            promise(2, 1, CommandId::NULL, &[]),
            Fact::Leads { node: NodeId(1), ballot: Some(ballot(1)) },
            asked(1, &calls[0]),
            runs.clone(),
            begin_ballot(1, 2, 1, &[first]),
            votes(1, 1, &[first]),
            votes(2, 1, &[first]),
            told_issued(1, &calls[0], 1, "{}"),
            applied(1, first),
            asked_read(2, "a", Consistency::Linearizable),
            told(2, value),
            Fact::Synced { node: NodeId(1), durable: CommandNumber(1) },
            Fact::Healed { core: vec![NodeId(1), NodeId(2)] },
            asked(3, &calls[1]),
            runs,
            begin_ballot(1, 2, 1, &[second]),
            written_votes(1, 1, &[second]),
            written_votes(2, 1, &[second]),
            told_issued(3, &calls[1], 2, "{}"),
            applied(1, second),
            applied(2, first),
            applied(2, second),
        ]
    }

    fn broken_by(facts: &[Fact]) -> Option<String> {
        let mut invariants = Invariants::new(&three(), Duration::from_secs(1));
        let mut now = Now::default();
        for fact in facts {
            now.tick = now.tick + Duration::from_micros(1);
            invariants.observe(now, fact);
        }
        invariants.end(now);
        invariants.broken().map(str::to_owned)
    }

    /// Catches a checker that objects to a good run, and one that is not asked at all: each of these changes to the
    /// run is found, by name, as the first thing that is broken.
    #[test]
    fn a_good_run_is_good_and_a_bad_one_is_not() {
        assert_eq!(broken_by(&good_run()), None);
        let replaced = |at: usize, fact: Fact| {
            let mut facts = good_run();
            facts[at] = fact;
            broken_by(&facts).unwrap_or_default()
        };
        let idle = Fact::Healed { core: vec![] };
        let forgetful = Fact::Started {
            node: NodeId(2),
            life: 2,
            log: LogImage { next_ballot: Ballot::NONE, ..LogImage::default() },
            applied: CommandId::NULL,
            digest: [7; 32],
        };
        for (at, fact, name) in [
            (11, idle.clone(), "acknowledged: "),
            (3, idle.clone(), "ballots: "),
            (5, idle.clone(), "anchored: "),
            (9, Fact::Executed { node: NodeId(2), function: "kv.put".to_owned() }, "leaders execute: "),
            (8, idle.clone(), "history: "),
            (15, forgetful, "promises: "),
            (17, Fact::Synced { node: NodeId(1), durable: CommandNumber(2) }, "applied prefix: "),
            (26, idle, "applied prefix: "),
        ] {
            let broken = replaced(at, fact);
            assert!(broken.starts_with(name), "{name}{at}: {broken}");
        }
    }

    /// Catches a checker that nobody asks: there is one file for each name.
    #[test]
    fn all_are_asked() {
        let invariants = Invariants::new(&three(), Duration::from_secs(1));
        let names: Vec<String> = invariants.all.iter().map(|invariant| invariant.name().replace(' ', "_")).collect();
        let others = ["mod", "about_cluster", "chain", "disks", "history", "testing"];
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/invariants");
        for file in std::fs::read_dir(directory).expect("the sources are there") {
            let path = file.expect("it can be read").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
            assert!(others.contains(&&*name) || names.contains(&name), "{name} is not asked: {names:?}");
        }
    }

    /// Catches a later violation, which follows from the first one, in the place of the first.
    #[test]
    fn the_first_violation_stays() {
        let mut invariants = Invariants::new(&three(), Duration::from_secs(1));
        let now = Now { tick: Tick(1), ..Now::default() };
        invariants.observe(now, &told(1, Told::Unknown));
        let first = invariants.broken().map(str::to_owned);
        assert!(first.as_deref().is_some_and(|broken| broken.starts_with("history: ")), "{first:?}");
        invariants.observe(now, &next_ballot(1, 2, 1, 3));
        invariants.end(now);
        assert_eq!(invariants.broken().map(str::to_owned), first);
    }
}
