//! Counts of what happened: so that nobody takes a run for a test of what never occurred in it.

use std::collections::{BTreeMap, BTreeSet};

use leader::core::Note;
use protocol::{Ballot, CommandNumber, NodeId, Now, RequestId};
use storage::{LogRecord, Standing};

use crate::fact::{Consistency, Fact, Observer, Question, Read, Seen, Sought, Told};
use crate::fault::{Fault, Shape};
use crate::invariants::Disks;

/// What 1,000 seeds must bring at least when faults last up to [`GOALS_FAULTS`] (RELIABILITY 5, row 1b).
const GOALS: [(&str, u64); 36] = [
    ("loss", 100_000),
    ("duplicate", 50_000),
    ("reorder", 500_000),
    ("delay_spike", 5_000),
    ("any_loss", 1_000_000),
    ("any_duplicate", 100_000),
    ("any_reorder", 1_000_000),
    ("any_delay_spike", 10_000),
    ("partition", 5_000),
    ("crash", 5_000),
    ("restart", 5_000),
    ("pause", 2_000),
    ("clock_jump", 1_000),
    ("clock_rate", 500),
    ("lost_unsynced", 3_000),
    ("torn_write", 1_000),
    ("bit_rot", 1_000),
    ("misdirected", 200),
    ("write_or_sync_error", 1_000),
    ("disk_full", 300),
    ("disk_lost", 200),
    ("state_rot", 300),
    ("snapshot_installed", 500),
    ("down_in_transfer", 50),
    ("leader_change", 10_000),
    ("hand_over", 1_000),
    ("retry", 10_000),
    ("ruinous", 20),
    ("change", 2_000),
    ("join", 400),
    ("return", 30),
    ("leave", 100),
    ("given_up", 200),
    ("down_in_change", 1_000),
    ("partition_in_change", 1_000),
    ("core_in_part", 50),
];
/// The same for shapes: in percent of all partitions.
const SHARES: [(&str, u64); 3] = [("one_way", 30), ("of_other_shape", 30), ("any_flapping", 10)];
/// The time of faults for which the goals are meant, in virtual seconds: the usual one.
pub const GOALS_FAULTS: u64 = 30;

/// Reads that were answered: by their consistency, those that named a number as well apart; then all of them, by what they
/// show ([`Sought`]).
const READS: [&str; 8] = [
    "read_linearizable",
    "read_linearizable_at_least",
    "read_local",
    "read_local_at_least",
    "read_entry",
    "read_page",
    "read_call",
    "read_commands",
];

/// What goes on after the faults outside of the core.
const OUTSIDE: [&str; 3] = ["flapping_outside", "suspicion_outside", "restart_outside"];

/// Cores of a membership that has changed; and those in which two nodes have no link with each other.
const CORES: [&str; 3] = ["core_after_changes", "core_widened", "core_in_part"];

/// What becomes of stored outcomes.
const OUTCOMES: [&str; 2] = ["outcome_forgotten", "executed_anew"];

/// Faults, by [`Fault::kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub [u64; Fault::KINDS.len()]);

impl Default for Faults {
    fn default() -> Self {
        Self([0; Fault::KINDS.len()])
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Faults.
    pub faults: Faults,
    /// Partitions, by [`Shape::kind`].
    pub shapes: [u64; Shape::NAMES.len()],
    /// Facts.
    pub facts: u64,
    /// Commands issued: the highest number applied anywhere.
    pub issued: u64,
    /// The same before the faults ended.
    pub issued_in_faults: u64,
    /// Worlds in which the membership may change.
    pub changing: u64,
    /// Decided changes of the membership.
    pub changes: u64,
    /// How often a leader handed its lead over, and the other node took it.
    pub handed_over: u64,
    /// Whole states that came from another node.
    pub installed: u64,
    /// How often a node whose votes were damaged spoke again.
    pub rejoined: u64,
    /// How often a leader that waited for votes in vain stood aside.
    pub stood_aside: u64,
    /// Runs that ended with so many silent nodes that nothing could be decided any more.
    pub stuck: u64,
    /// What they lacked, by [`Disks::WHY_STUCK`].
    pub lacked: [u64; Disks::WHY_STUCK.len()],
    /// Worlds in which more may be damaged than a cluster stands, and those of them that ended so.
    pub ruinous: [u64; 2],
    /// How often a node began to lead after another one, or after itself.
    pub leader_changes: u64,
    /// Questions of clients.
    pub questions: u64,
    /// Calls that were asked again under the same key.
    pub retries: u64,
    /// Reads that were answered, by [`READS`].
    pub reads: [u64; READS.len()],
    /// Virtual time, in microseconds.
    pub micros: u64,
    /// After the faults, outside of the core: links that began to flap, campaigns for no reason, and starts.
    pub outside: [u64; OUTSIDE.len()],
    /// After the faults: where the membership had changed, cores that are not all that is needed, and those that a later change
    /// made larger; and those in which two nodes have no link with each other.
    pub cores: [u64; CORES.len()],
    /// Outcomes of calls that were forgotten, and calls that became a command again after that.
    pub outcomes: [u64; OUTCOMES.len()],
    /// Those of the core, once the faults are over.
    core: Option<BTreeSet<NodeId>>,
    led: Option<Ballot>,
    keys: BTreeSet<RequestId>,
    /// Reads under way: where they count in [`READS`], by ticket.
    reading: BTreeMap<u64, [usize; 2]>,
    /// Nodes that are up and have not rejoined.
    damaged: BTreeSet<NodeId>,
}

impl Tally {
    /// Takes in the counts of another run.
    pub fn add(&mut self, other: &Self) {
        let sum = |ours: &mut [u64], theirs: &[u64]| {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
        };
        sum(&mut self.faults.0, &other.faults.0);
        sum(&mut self.shapes, &other.shapes);
        sum(&mut self.reads, &other.reads);
        sum(&mut self.outside, &other.outside);
        sum(&mut self.cores, &other.cores);
        sum(&mut self.outcomes, &other.outcomes);
        sum(&mut self.ruinous, &other.ruinous);
        sum(&mut self.lacked, &other.lacked);
        self.facts += other.facts;
        self.issued += other.issued;
        self.changing += other.changing;
        self.changes += other.changes;
        self.handed_over += other.handed_over;
        self.installed += other.installed;
        self.rejoined += other.rejoined;
        self.stood_aside += other.stood_aside;
        self.stuck += other.stuck;
        self.leader_changes += other.leader_changes;
        self.questions += other.questions;
        self.retries += other.retries;
        self.micros += other.micros;
    }

    /// All that a run must not lack: the kinds of faults, the shapes of partitions, and what follows from them.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        let kinds = Fault::KINDS.into_iter().zip(self.faults.0);
        let shapes = Shape::NAMES.into_iter().zip(self.shapes);
        let others = [
            ("snapshot_installed", self.installed),
            ("rejoined", self.rejoined),
            ("leader_change", self.leader_changes),
            ("hand_over", self.handed_over),
            ("retry", self.retries),
            ("stood_aside", self.stood_aside),
            ("ruinous", self.ruinous[0]),
            ("ruined", self.ruinous[1]),
            ("change", self.changes),
            ("write_or_sync_error", self.of("write_error") + self.of("sync_error")),
            // Heartbeats, of which there are many, and all else.
            ("any_loss", self.of("loss") + self.of("heartbeat_loss")),
            ("any_duplicate", self.of("duplicate") + self.of("heartbeat_duplicate")),
            ("any_reorder", self.of("reorder") + self.of("heartbeat_reorder")),
            ("any_delay_spike", self.of("delay_spike") + self.of("heartbeat_delay_spike")),
            ("any_flapping", self.of("flapping") + self.of("flapping_edges")),
            ("of_other_shape", self.of("partition") - self.of("two_sided") - self.of("one_way")),
        ];
        kinds.chain(shapes).chain(others).chain(self.after_faults()).chain(self.answered_reads()).collect()
    }

    /// Reads that were answered: by their consistency, and all of them again by what they show.
    pub fn answered_reads(&self) -> impl Iterator<Item = (&'static str, u64)> {
        READS.into_iter().zip(self.reads)
    }

    /// What there was after the faults, and of outcomes.
    pub fn after_faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let outcomes = OUTCOMES.into_iter().zip(self.outcomes);
        OUTSIDE.into_iter().zip(self.outside).chain(CORES.into_iter().zip(self.cores)).chain(outcomes)
    }

    /// The count of a kind or shape.
    fn of(&self, name: &str) -> u64 {
        let mut all = Fault::KINDS.into_iter().zip(self.faults.0).chain(Shape::NAMES.into_iter().zip(self.shapes));
        all.find(|(of, _)| *of == name).map_or(0, |(_, count)| count)
    }

    /// What a run must not lack, and what never was in this one.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let of_changes = |name| {
            name == "change"
                || CORES[..2].contains(&name)
                || Fault::KINDS[Fault::KINDS.len() - Fault::OF_CHANGES..].contains(&name)
        };
        // Of dozens or hundreds of worlds one has these.
        let rare = ["stood_aside", "ruinous", "ruined", CORES[1], CORES[2]];
        let usual = self.counts().into_iter().filter(|(name, _)| !rare.contains(name));
        let never = usual.filter(|(_, count)| *count == 0).map(|(name, _)| name);
        never.filter(|name| self.changing > 0 || !of_changes(name)).collect()
    }

    /// Of those, what even some dozens of seeds must have brought: kinds of which their goals say that there are a hundred in
    /// so many seconds of faults.
    #[must_use]
    pub fn missing_frequent(&self, seconds: u64) -> Vec<&'static str> {
        let due = |(_, goal): &(&str, u64)| goal * seconds / (1_000 * GOALS_FAULTS) >= 100;
        let is_due = |name: &&str| GOALS.iter().any(|goal| goal.0 == *name && due(goal));
        self.missing().into_iter().filter(is_due).collect()
    }

    /// What was rarer than its goal in a run of so many seeds, of the usual length of faults: each with its count for
    /// 1,000 seeds, or its percentage, and the goal.
    #[must_use]
    pub fn below_goals(&self, seeds: u64) -> Vec<String> {
        let counts: BTreeMap<_, _> = self.counts().into_iter().collect();
        let rated = |goals: &[(&'static str, u64)], factor: u64, of: u64, unit: &str| -> Vec<String> {
            let rates = goals.iter().map(|(name, goal)| (name, counts[name] * factor / of.max(1), goal));
            let below = rates.filter(|(_, rate, goal)| rate < goal);
            below.map(|(name, rate, goal)| format!("{name} {rate}{unit} of {goal}{unit}")).collect()
        };
        [rated(&GOALS, 1_000, seeds, ""), rated(&SHARES, 100, self.of("partition"), " %")].concat()
    }

    fn look_outside(&mut self, fact: &Fact) {
        let is_outside = |node: &NodeId| self.core.as_ref().is_some_and(|core| !core.contains(node));
        if let Fact::Fault(Fault::Partition { shape: Shape::Fringe, cut }) = fact {
            self.outside[0] += cut.len() as u64;
        } else if let Fact::Fault(Fault::Suspicion(node)) = fact {
            self.outside[1] += u64::from(is_outside(node));
        } else if let Fact::Fault(Fault::Restart(node)) = fact {
            self.outside[2] += u64::from(is_outside(node));
        } else if let Fact::Healed { core } = fact {
            if self.core.is_none() {
                self.issued_in_faults = self.issued;
            }
            self.core = Some(core.iter().copied().collect());
        }
    }

    /// Who leads now, or led last.
    #[must_use]
    pub fn led(&self) -> Option<NodeId> {
        self.led.map(|ballot| ballot.node)
    }
}

/// Whether there is something in it that could be wrong: no entry may be as wrong as another one.
fn shows(seen: &Seen) -> bool {
    match seen {
        Seen::Entries(_) => true,
        Seen::Call(stored) => stored.is_some(),
        Seen::Commands(commands) => commands.as_ref().is_some_and(|commands| !commands.is_empty()),
    }
}

/// Where a read stands in [`READS`].
fn indices(read: &Read) -> [usize; 2] {
    let number = usize::from(read.least > CommandNumber::NULL);
    let consistency = match read.consistency {
        Consistency::Linearizable => number,
        Consistency::Local => 2 + number,
    };
    let sought = match read.sought {
        Sought::Entry(_) => 4,
        Sought::Page { .. } => 5,
        Sought::Call(_) => 6,
        Sought::Commands { .. } => 7,
    };
    [consistency, sought]
}

impl Observer for Tally {
    fn observe(&mut self, now: Now, fact: &Fact) {
        self.facts += 1;
        self.micros = now.tick.0;
        self.look_outside(fact);
        match fact {
            Fact::Fault(Fault::Partition { shape, .. }) if shape.kind().is_none() => {}
            Fact::Fault(fault) => {
                self.faults.0[fault.kind()] += 1;
                if let Fault::Partition { shape, .. } = fault
                    && let Some(kind) = shape.kind()
                {
                    self.shapes[kind] += 1;
                }
            }
            Fact::Started { node, log, .. } if log.standing == Standing::Damaged => _ = self.damaged.insert(*node),
            Fact::Written { node, records } if records.contains(&LogRecord::Standing(Standing::Sound)) => {
                self.rejoined += u64::from(self.damaged.remove(node));
            }
            Fact::Applied { command, .. } => self.issued = self.issued.max(command.number().0),
            Fact::Installed { .. } => self.installed += 1,
            Fact::Noted { note: Note::HandedOver { .. }, .. } => self.handed_over += 1,
            Fact::Noted { note: Note::StepsDown { reason, .. }, .. } => {
                self.stood_aside += u64::from(*reason == failure_detector::core::TOO_MANY_SILENT);
            }
            Fact::Leads { ballot: Some(ballot), .. } => {
                self.leader_changes += u64::from(self.led.is_some());
                self.led = Some(*ballot);
            }
            Fact::Asked { ticket, question, .. } => {
                self.questions += 1;
                if let Question::Read(read) = question {
                    self.reading.insert(*ticket, indices(read));
                }
                if let Question::Call(call) = question
                    && matches!(call.request, RequestId::Caller(_))
                {
                    self.retries += u64::from(!self.keys.insert(call.request.clone()));
                }
            }
            Fact::Told { ticket, answer, .. } => {
                if let (Some(kinds), Told::Shown { seen, .. }) = (self.reading.remove(ticket), answer)
                    && shows(seen)
                {
                    kinds.into_iter().for_each(|kind| self.reads[kind] += 1);
                }
            }
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { ballot: None, .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Started { .. }
            | Fact::Stopped { .. }
            | Fact::Healed { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Mishap;

    /// Catches what stays broken after the faults when it counts as one of them.
    #[test]
    fn the_rest_is_no_partition() {
        let mut tally = Tally::default();
        for shape in [Shape::Rest, Shape::OneWay] {
            tally.observe(Now::default(), &Fact::Fault(Fault::Partition { shape, cut: Vec::new() }));
        }
        assert_eq!((tally.of("partition"), tally.of("one_way")), (1, 1));
        assert_eq!(tally.shapes.iter().sum::<u64>(), 1);
    }

    /// Catches what a fringe does that is not counted, and what happens before the end of the faults, or in the core, and
    /// counts as such.
    #[test]
    fn what_goes_on_outside_is_counted_apart() {
        let mut tally = Tally::default();
        let links = vec![(NodeId(1), NodeId(3)), (NodeId(3), NodeId(1))];
        let facts =
            [1, 3].map(NodeId).map(|node| [Fault::Suspicion(node), Fault::Restart(node)].map(Fact::Fault)).concat();
        let flaps = Fact::Fault(Fault::Partition { shape: Shape::Fringe, cut: links });
        let healed = Fact::Healed { core: vec![NodeId(1), NodeId(2)] };
        for fact in facts.iter().chain([&healed]).chain(&facts).chain([&flaps]) {
            tally.observe(Now::default(), fact);
        }
        assert_eq!(
            OUTSIDE.map(|name| tally.counts().into_iter().find(|(of, _)| *of == name)),
            [Some(("flapping_outside", 2)), Some(("suspicion_outside", 1)), Some(("restart_outside", 1)),]
        );
        assert_eq!((tally.of("partition"), tally.of("suspicion"), tally.of("restart")), (0, 4, 4));
    }

    /// Catches heartbeats that count as messages of the protocol, of which there are far fewer, and the reverse.
    #[test]
    fn heartbeats_are_counted_apart() {
        for (mishap, name) in [
            (Mishap::Loss, "loss"),
            (Mishap::Duplicate, "duplicate"),
            (Mishap::Reorder, "reorder"),
            (Mishap::DelaySpike, "delay_spike"),
        ] {
            let mut tally = Tally::default();
            for heartbeat in [false, true, true] {
                tally.observe(Now::default(), &Fact::Fault(Fault::Message { mishap, heartbeat }));
            }
            assert_eq!((tally.of(name), tally.of(&format!("heartbeat_{name}"))), (1, 2));
        }
    }

    /// Catches a goal that is compared with another count or not for its number of seeds, and a goal for something
    /// that nobody counts, which would panic.
    #[test]
    fn what_is_below_its_goal_is_named() {
        let names = |below: &[String]| -> Vec<String> {
            below.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
        };
        let all: Vec<&str> = GOALS.iter().chain(&SHARES).map(|(name, _)| *name).collect();
        assert_eq!(names(&Tally::default().below_goals(1_000)), all, "nothing happened");
        let mut tally = Tally {
            installed: 1_000,
            leader_changes: 20_000,
            handed_over: 2_000,
            retries: 20_000,
            ruinous: [40, 0],
            changes: 4_000,
            cores: [0, 0, 100],
            ..Tally::default()
        };
        for (name, count) in Fault::KINDS.iter().zip(&mut tally.faults.0) {
            let goal = |name: &str| GOALS.iter().find(|(of, _)| *of == name).map_or(500, |(_, goal)| *goal);
            *count = 2 * match name.strip_prefix("heartbeat_") {
                Some(mishap) => goal(&format!("any_{mishap}")) - goal(mishap),
                None => goal(name),
            };
        }
        tally.shapes = [3_000, 4_000, 1_500, 0, 0, 0, 0, 750, 750];
        assert_eq!(tally.below_goals(2_000), Vec::<String>::new());
        assert_eq!(names(&tally.below_goals(2_001)).len(), GOALS.len(), "for one seed more all rates are too low");
        tally.shapes = [6_001, 2_999, 0, 0, 0, 0, 0, 500, 500];
        assert_eq!(tally.below_goals(2_000), ["one_way 29 % of 30 %", "of_other_shape 10 % of 30 %"]);
        tally.shapes = [1_001, 6_000, 1_999, 0, 0, 0, 0, 500, 500];
        assert_eq!(tally.below_goals(2_000), ["of_other_shape 29 % of 30 %"], "one-way ones do not make up for others");
        tally.shapes = [3_000, 4_000, 2_001, 0, 0, 0, 0, 500, 499];
        assert_eq!(tally.below_goals(2_000), ["any_flapping 9 % of 10 %"]);
    }
}
