//! Liveness (DESIGN 14.12, RELIABILITY 3.14): once the faults are over for a connected core, every question that is
//! asked of its nodes, or waits there, is answered within a bound, and new commands are issued. And a run in
//! which nothing is issued shows nothing.
//!
//! A call with a key is answered when its outcome is known for certain, a read by a value. A client that hears less asks
//! again, and the time goes on from where it first asked; its own patience with a refusal comes on top. After the faults
//! one read follows another until there is a value, of whatever key.
//!
//! A call that cannot be asked again is answered by any answer, but it must have one: a gateway of the core that has been
//! up since it was asked says something within the time that it was given, be it that it does not know. That a client
//! has left is no answer.
//!
//! Nothing is demanded while a change of the membership and the damage of disks have met, so that no majority set can
//! speak; when one can again, all that waits has as much time as if the faults had ended then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::{CommandNumber, NodeId, Now, Tick};

use super::{History, Invariant, Open, Violation, ensure};
use crate::client::{is_final, is_keyed};
use crate::fact::{Fact, Question, Told};
use crate::world::TIMEOUTS_TO_ANSWER;

/// A gateway is given two election timeouts, and its ticks and the ways there and back take far less than a third one.
const TIMEOUTS_OF_A_GATEWAY: u32 = 3;

/// A question that must be answered.
#[derive(Debug)]
struct Waiting {
    question: Question,
    since: Tick,
    until: Tick,
}

/// The connected core.
struct Healed {
    core: BTreeSet<NodeId>,
    since: Tick,
    /// What was decided when it came to be.
    decided: CommandNumber,
}

/// See the module.
pub(super) struct Liveness {
    bound: Duration,
    /// Within which a gateway says something.
    of_a_gateway: Duration,
    /// When the nodes have started last.
    up_since: BTreeMap<NodeId, Tick>,
    /// Since when no majority set can speak, by a change or by damage.
    stuck: Option<Tick>,
    /// When one could speak again, after the faults: at the end of a run all start once more.
    anew: Option<Tick>,
    healed: Option<Healed>,
    /// By client: each has one question at a time.
    waiting: BTreeMap<u64, Waiting>,
    /// The same by time.
    until: BTreeSet<(Tick, u64)>,
    /// The longest that an answer took, patience aside.
    slowest: Duration,
}

impl Liveness {
    pub(super) fn new(bound: Duration) -> Self {
        Self {
            bound,
            of_a_gateway: bound * TIMEOUTS_OF_A_GATEWAY / TIMEOUTS_TO_ANSWER,
            up_since: BTreeMap::new(),
            stuck: None,
            anew: None,
            healed: None,
            waiting: BTreeMap::new(),
            until: BTreeSet::new(),
            slowest: Duration::ZERO,
        }
    }

    fn waits(&mut self, client: u64, question: &Question, now: Tick) {
        if self.waiting.get(&client).is_some_and(|waiting| goes_on(&waiting.question, question)) {
            return;
        }
        self.is_answered(client);
        let until = now + self.bound + patience(question);
        self.waiting.insert(client, Waiting { question: question.clone(), since: now, until });
        self.until.insert((until, client));
    }

    /// A majority set can speak again.
    fn begin_anew(&mut self, now: Tick) {
        self.anew = Some(now);
        self.give_time(now);
    }

    /// Whatever waits has as much time as if it had been asked now.
    fn give_time(&mut self, now: Tick) {
        let clients: Vec<u64> = self.waiting.keys().copied().collect();
        for client in clients {
            let question = self.waiting[&client].question.clone();
            self.is_answered(client);
            self.waits(client, &question, now);
        }
    }

    /// The client knows, or asks something else.
    fn is_answered(&mut self, client: u64) {
        if let Some(waiting) = self.waiting.remove(&client) {
            self.until.remove(&(waiting.until, client));
        }
    }

    /// A client has left, and had waited as long as it had said.
    fn left(&self, now: Tick, open: &Open) -> Result<(), Violation> {
        let Some(healed) = self.healed.as_ref().filter(|healed| healed.core.contains(&open.via)) else { return Ok(()) };
        let is_up = self.up_since.get(&open.via).is_some_and(|since| *since <= open.asked);
        let had_time = now > open.asked.max(healed.since) + self.of_a_gateway;
        ensure(!(is_up && had_time), || {
            let Open { client, via, question, asked } = open;
            format!("node {via} has said nothing to client {client}, which asked at {} us: {question:?}", asked.0)
        })
    }

    fn told(&mut self, now: Tick, answer: &Told, open: &Open) -> Result<(), Violation> {
        if *answer == (Told::Left { early: false }) {
            self.left(now, open)?;
        }
        let is_answer = match &open.question {
            Question::Call(call) => !is_keyed(call) || is_final(answer),
            Question::Read(_) => matches!(answer, Told::Shown { .. }),
        };
        if is_answer {
            if let Some(Waiting { question, since, .. }) =
                self.waiting.get(&open.client).filter(|_| self.stuck.is_none())
            {
                let took = now.since(*since).saturating_sub(patience(question));
                self.slowest = self.slowest.max(took);
            }
            self.is_answered(open.client);
        }
        Ok(())
    }

    fn late(&self, now: Tick) -> Result<(), Violation> {
        let due = self.until.first().filter(|(until, _)| *until < now && self.stuck.is_none());
        let Some((until, client)) = due else { return Ok(()) };
        let question = self.waiting.get(client).map(|waiting| &waiting.question);
        Err(format!("client {client} should have been answered by {} us: {question:?}", until.0))
    }
}

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn check(&mut self, now: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        self.late(now.tick)?;
        if self.healed.is_some() || matches!(fact, Fact::Healed { .. }) {
            if history.is_stuck() {
                self.stuck.get_or_insert(now.tick);
            } else if self.stuck.take().is_some() {
                self.begin_anew(now.tick);
            }
        }
        match fact {
            Fact::Healed { core } => {
                // It would count as silent, and all be excused from answers, while it speaks.
                let broken = core.iter().find(|node| history.disks.is_broken(**node));
                ensure(broken.is_none(), || {
                    format!("node {broken:?} of the core is damaged and has not started since")
                })?;
                let core: BTreeSet<NodeId> = core.iter().copied().collect();
                let there: Vec<&Open> = history.all_open().filter(|open| core.contains(&open.via)).collect();
                there.iter().for_each(|open| self.waits(open.client, &open.question, now.tick));
                // A change after the faults may need more nodes than were there before.
                let before = self.healed.as_ref().map(|healed| healed.decided);
                if before.is_some() {
                    self.give_time(now.tick);
                }
                let decided = before.unwrap_or_else(|| history.disks.last_decided());
                self.healed = Some(Healed { core, since: now.tick, decided });
            }
            Fact::Asked { client, via, question, .. } => {
                if self.healed.as_ref().is_some_and(|healed| healed.core.contains(via)) {
                    self.waits(*client, question, now.tick);
                }
            }
            Fact::Told { ticket, answer, .. } => {
                let Some(open) = history.open(*ticket) else { return Ok(()) };
                self.told(now.tick, answer, open)?;
            }
            Fact::Started { node, .. } => _ = self.up_since.insert(*node, now.tick),
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Applied { .. }
            | Fact::Installed { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { .. }
            | Fact::Fault(_) => {}
        }
        Ok(())
    }

    fn slowest_answer(&self) -> Duration {
        self.slowest
    }

    fn end(&mut self, now: Now, history: &History) -> Result<(), Violation> {
        self.late(now.tick)?;
        let last = history.chain.last();
        ensure(last > CommandNumber::NULL || history.ruinous && self.stuck.is_some(), || {
            "nothing was issued in the whole run".to_owned()
        })?;
        let had_time = self.stuck.is_none() && self.anew.is_none_or(|since| now.tick.since(since) > self.bound);
        let Some(healed) = self.healed.as_ref().filter(|_| had_time) else { return Ok(()) };
        let before = healed.decided;
        ensure(last > before, || format!("nothing was issued after the faults: {before} before and {last} at the end"))
    }
}

fn patience(question: &Question) -> Duration {
    match question {
        Question::Call(call) => call.patience,
        Question::Read(_) => Duration::ZERO,
    }
}

/// Whether a client that asks this still waits for what it asked before.
fn goes_on(before: &Question, now: &Question) -> bool {
    matches!((before, now), (Question::Read(_), Question::Read(_))) || before == now
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::*;
    use super::*;
    use crate::fact::{Consistency, Seen, Told};

    const BOUND: Duration = Duration::from_micros(100);

    fn healed() -> Fact {
        Fact::Healed { core: vec![NodeId(1), NodeId(2)] }
    }

    /// Runs with one command issued before the faults end, and one after.
    fn run(facts: &[(u64, Fact)]) -> Result<(), Violation> {
        let commands = chain_of(&[1, 2].map(|n| body(&format!("r{n}"), vec![put("a", "1")])));
        let decided = commands.iter().map(|command| [votes(1, 1, &[command]), votes(2, 1, &[command])]);
        let [before, after] = [0, 1]
            .map(|n| [decided.clone().nth(n).into_iter().flatten().collect(), vec![applied(1, &commands[n])]].concat());
        let at = |tick, facts: Vec<Fact>| facts.into_iter().map(move |fact| (Tick(tick), fact));
        let last = facts.last().map_or(0, |(tick, _)| *tick);
        let given = facts.iter().map(|(tick, fact)| (Tick(*tick), fact.clone()));
        let all: Vec<_> = at(0, before).chain(given).chain(at(last, after)).collect();
        run_at(Liveness::new(BOUND), &all)
    }

    /// A13: catches a call that is not answered in time after the faults, whether it waited before or was asked
    /// later, whether something else happens or the run ends; *unknown* is no answer, and asking again gives no
    /// more time. Patience does.
    #[test]
    fn every_call_is_answered_in_time() {
        let call = call("r9", "kv.put", &json!({"key": "a", "value": 1}));
        let knows = |ticket| told_issued(ticket, &call, 1, "{}");
        let unknown = |ticket| told(ticket, Told::Unknown);
        assert_eq!(run(&[(0, asked(1, &call)), (10, healed()), (110, knows(1))]), Ok(()));
        assert_fails(run(&[(0, asked(1, &call)), (10, healed()), (111, knows(1))]), "by 110 us");
        assert_eq!(run(&[(10, healed()), (50, asked(1, &call)), (150, knows(1))]), Ok(()));
        assert_fails(run(&[(10, healed()), (50, asked(1, &call)), (151, healed())]), "by 150 us");
        let again = [(10, healed()), (20, asked(1, &call)), (30, unknown(1)), (60, asked(2, &call))];
        assert_eq!(run(&[&again[..], &[(120, knows(2))]].concat()), Ok(()));
        assert_fails(run(&[&again[..], &[(121, knows(2))]].concat()), "by 120 us");
        let mut patient = call.clone();
        patient.patience = Duration::from_micros(50);
        assert_eq!(run(&[(10, healed()), (10, asked(1, &patient)), (160, knows(1))]), Ok(()));
        assert_fails(run(&[(10, healed()), (10, asked(1, &patient)), (161, knows(1))]), "by 160 us");
    }

    /// A13: catches a question that is held against a world whose majority sets lost more by a change than they can; and one
    /// that is not answered in time once they can decide again.
    #[test]
    fn nothing_is_late_while_nobody_can_decide() {
        let alone = three().weighing(NodeId(1), 9).expect("it decides alone").to_value();
        let change = protocol::Effect::Put { key: protocol::membership::key(), value: alone };
        let commands = chain_of(&[body("r1", vec![change]), body("r2", vec![put("a", "1")])]);
        let call = call("r9", "kv.put", &json!({"key": "a", "value": 1}));
        let rot = Fact::Fault(crate::fault::Fault::BitRot(NodeId(1)));
        let given = [
            (0, votes(1, 1, &[&commands[0]])),
            (0, votes(2, 1, &[&commands[0]])),
            (0, votes(1, 1, &[&commands[1]])),
            (0, asked(1, &call)),
            (10, healed()),
            (20, rot),
            (500, Fact::Executed { node: NodeId(1), function: "kv.put".to_owned() }),
            (500, started(1, 2, &[])),
        ];
        let with = |facts: &[(u64, Fact)]| {
            let all = given.iter().chain(facts).map(|(tick, fact)| (Tick(*tick), fact.clone()));
            run_at(Liveness::new(BOUND), &all.collect::<Vec<_>>())
        };
        assert_fails(with(&[(601, told(1, Told::Unknown))]), "by 600 us");
        let found = with(&[(600, told_issued(1, &call, 3, "{}"))]);
        assert_fails(found, "nothing was issued in the whole run");
    }

    /// A13: catches reads that fail again and again after the faults: only a value ends their time.
    #[test]
    fn every_read_has_a_value_in_time() {
        let read = |ticket, name: &str| asked_read(ticket, name, Consistency::Linearizable);
        let value = |ticket| told(ticket, Told::Shown { at: CommandNumber(1), seen: Seen::Entries(Vec::new()) });
        for not in [Told::NotExecuted, Told::Unknown, Told::Left { early: true }] {
            let again = [(10, healed()), (20, read(1, "a")), (30, told(1, not)), (60, read(2, "b"))];
            assert_eq!(run(&[&again[..], &[(120, value(2))]].concat()), Ok(()));
            assert_fails(run(&[&again[..], &[(121, value(2))]].concat()), "by 120 us");
        }
    }

    /// Catches a recovery that takes longer and is not seen to: the slowest answer counts, from where it was first asked, or
    /// from the end of the faults, the caller's patience aside.
    #[test]
    fn the_slowest_answer_is_known() {
        let mut call = call("r9", "kv.put", &json!({"key": "a", "value": 1}));
        call.patience = Duration::from_micros(7);
        let mut history = History::new(&three());
        let mut liveness = Liveness::new(BOUND);
        let unknown = told(1, Told::Unknown);
        let (asked_again, known) = (asked(2, &call), told_issued(2, &call, 1, "{}"));
        let read = asked_read(3, "a", Consistency::Linearizable);
        let value = told(3, Told::Shown { at: CommandNumber(1), seen: Seen::Entries(Vec::new()) });
        let facts = [
            (5, asked(1, &call)),
            (10, healed()),
            (20, unknown),
            (30, asked_again),
            (52, known),
            (60, read),
            (70, value),
        ];
        let mut seen = Vec::new();
        for (tick, fact) in facts {
            let now = Now { tick: Tick(tick), ..Now::default() };
            history.learn(now, &fact).expect("it can be");
            liveness.check(now, &fact, &history).expect("nothing is late");
            history.shown(&fact);
            seen.push(liveness.slowest_answer().as_micros());
        }
        assert_eq!(seen, [0, 0, 0, 0, 35, 35, 35]);
    }

    /// A13: catches a gateway that keeps a caller waiting until he leaves, although nothing is in its way; not one that went
    /// down with the question, had no time yet, or whose caller was in a hurry.
    #[test]
    fn a_gateway_says_something() {
        let mut alone = call("r9", "kv.put", &json!({"key": "a", "value": 1}));
        alone.request = protocol::RequestId::Gateway(9);
        let left = |early| told(1, Told::Left { early });
        let before = [(1, started(1, 1, &[])), (2, asked(1, &alone)), (10, healed())];
        let with = |facts: &[(u64, Fact)]| run(&[&before, facts].concat());
        assert_fails(with(&[(26, left(false))]), "node 1 has said nothing to client 1");
        assert_eq!(with(&[(25, left(false))]), Ok(()));
        assert_eq!(with(&[(26, left(true))]), Ok(()));
        assert_eq!(with(&[(26, told(1, Told::Unknown))]), Ok(()));
        assert_eq!(with(&[(12, started(1, 2, &[])), (26, left(false))]), Ok(()));
        let read = asked_read(1, "a", Consistency::Linearizable);
        let asked = [(1, started(1, 1, &[])), (10, healed()), (20, read), (36, left(false))];
        assert_fails(run(&asked), "node 1 has said nothing to client 1");
    }

    /// Catches questions held against nodes that are not of the core, and reads without any answer.
    #[test]
    fn only_the_core_must_answer() {
        let mut elsewhere = asked_read(1, "a", Consistency::Local);
        if let Fact::Asked { via, .. } = &mut elsewhere {
            *via = NodeId(3);
        }
        assert_eq!(run(&[(0, elsewhere), (10, healed()), (500, healed())]), Ok(()));
        let read = asked_read(1, "a", Consistency::Linearizable);
        let value = Told::Shown { at: CommandNumber(1), seen: Seen::Entries(Vec::new()) };
        assert_eq!(run(&[(10, healed()), (20, read.clone()), (30, told(1, value))]), Ok(()));
        assert_fails(run(&[(10, healed()), (20, read), (130, healed())]), "by 120 us");
    }

    /// Catches a world that asks nothing of a cluster on account of a damage that its node has not found yet.
    #[test]
    fn the_core_has_found_its_damage() {
        let rot = (5, Fact::Fault(crate::fault::Fault::BitRot(NodeId(2))));
        assert_fails(run(&[rot.clone(), (10, healed())]), "of the core is damaged");
        assert_eq!(run(&[rot.clone(), (6, started(2, 2, &[])), (10, healed())]), Ok(()));
        let elsewhere = (5, Fact::Fault(crate::fault::Fault::BitRot(NodeId(3))));
        assert_eq!(run(&[elsewhere, (10, healed())]), Ok(()));
    }

    /// Catches a world whose core becomes larger, because a change needs more nodes, and that is not given the time for it; and
    /// one in which that stands for what was to be issued after the faults.
    #[test]
    fn a_larger_core_has_its_time_from_then_on() {
        let call = call("r9", "kv.put", &json!({"key": "a", "value": 1}));
        let larger = Fact::Healed { core: vec![NodeId(1), NodeId(2), NodeId(3)] };
        let asked = [(0, asked(1, &call)), (10, healed()), (90, larger.clone())];
        assert_eq!(run(&[&asked[..], &[(190, told_issued(1, &call, 1, "{}"))]].concat()), Ok(()));
        assert_fails(run(&[&asked[..], &[(191, told_issued(1, &call, 1, "{}"))]].concat()), "by 190 us");
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let issued = [votes(1, 1, &[command]), votes(2, 1, &[command]), applied(1, command)];
        let all = |facts: &[&[Fact]]| {
            run_at(Liveness::new(BOUND), &facts.concat().into_iter().map(|fact| (Tick(1), fact)).collect::<Vec<_>>())
        };
        assert_eq!(all(&[&[healed()], &issued, std::slice::from_ref(&larger)]), Ok(()));
        assert_fails(all(&[&issued, &[healed(), larger]]), "nothing was issued after the faults");
    }

    /// Catches runs in which nothing happens, at all or after the faults.
    #[test]
    fn something_is_issued() {
        let none = run_at(Liveness::new(BOUND), &[(Tick(1), started(1, 1, &[]))]);
        assert_fails(none, "nothing was issued in the whole run");
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let before = [votes(1, 1, &[command]), votes(2, 1, &[command]), applied(1, command), healed()];
        let all: Vec<_> = before.iter().map(|fact| (Tick(1), fact.clone())).collect();
        assert_fails(run_at(Liveness::new(BOUND), &all), "nothing was issued after the faults");
    }
}
