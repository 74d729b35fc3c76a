//! Functions on the pool: run elsewhere on what LS(p) was, certified when they return.

use functions::{Execution, ReadSet};

use super::*;
use crate::machine::run_on_snapshot;

impl Bench {
    /// Runs a job as the actor does, now.
    fn run(&self, job: &PoolJob) -> Box<Execution> {
        let function = self.functions.get(&job.function).expect("registered");
        Box::new(run_on_snapshot(function.as_ref(), job, &self.machine))
    }

    fn done(&mut self, job: &PoolJob, execution: Box<Execution>) -> Vec<Effect> {
        self.feed(Input::PoolDone { job: job.job, execution })
    }

    /// Calls a function of the pool and returns its job.
    fn start(&mut self, key: &str, function: &str) -> PoolJob {
        let effects = self.call(key, function, json!({}));
        let mut jobs = jobs(&effects);
        assert_eq!((effects.len(), jobs.len()), (1, 1), "{effects:?}");
        jobs.remove(0)
    }
}

/// A1m, A1p: catches a job that does not see LS(p), others that wait for it, a result that is
/// not proposed, and a repetition that runs again.
#[test]
fn what_a_job_decides_is_proposed_when_it_returns() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    let job = bench.start("k", "test.copy_on_pool");
    assert_eq!((job.now, job.entropy), (Timestamp(5_000), 7));
    let again = call("k", "test.copy_on_pool", json!({}));
    assert_eq!(bench.say(3, ToLeader::ExecuteFunction(again)), [], "attaches");
    let execution = bench.run(&job);
    bench.put("c", 1);
    bench.now.wall = Timestamp(6_000);
    assert_eq!(bench.done(&job, execution), []);
    let run = proposed(&bench.end_turn());
    assert_eq!(run.len(), 1);
    let expected = vec![StateEffect::Put { key: key("b"), value: Bytes::from_static(b"1") }];
    assert_eq!((body(&run[0]).effects, body(&run[0]).time, run[0].number()), (expected, Timestamp(6_000), number(3)));
    let answers = replies(bench.ack_all());
    assert_eq!(answers[2..], [issued(2, "k", 3, r#""1""#, false), issued(3, "k", 3, r#""1""#, true)]);
}

/// S-10: what it read was written meanwhile. Catches a decision on an old state, a second run
/// that does not see the write, and a call that is lost between the runs.
#[test]
fn a_job_whose_reads_changed_runs_again() {
    let mut bench = Bench::new();
    bench.lead();
    let job = bench.start("k", "test.copy_on_pool");
    let execution = bench.run(&job);
    bench.put("a", 1);
    let effects = bench.done(&job, execution);
    let second = jobs(&effects).remove(0);
    assert_ne!(second.job, job.job);
    let stale = bench.run(&job);
    assert_eq!(bench.done(&job, stale), [Effect::Ignored(IgnoreReason::LateExecution)], "the first run is over");
    let execution = bench.run(&second);
    bench.done(&second, execution);
    assert_eq!(body(&proposed(&bench.end_turn())[0]).verdict, Verdict::Changed(r#""1""#.into()));
}

/// S-10: catches a job that runs for ever when its reads change each time.
#[test]
fn a_job_runs_at_most_ten_times() {
    let mut bench = Bench::new();
    bench.lead();
    let mut job = bench.start("k", "test.copy_on_pool");
    let mut times = 1;
    let last = loop {
        let execution = bench.run(&job);
        bench.put("a", times);
        let effects = bench.done(&job, execution);
        match jobs(&effects).pop() {
            Some(next) => job = next,
            None => break effects,
        }
        times += 1;
    };
    assert_eq!((times, last), (10, vec![executed(2, "k", Outcome::Overloaded)]));
    assert_eq!(bench.leader.load().kept_calls, 0);
}

/// S-08: catches a result of the pool that passes the gate: it shows LS(p) as of its return.
#[test]
fn a_job_without_effects_is_gated() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    let job = bench.start("k", "test.look_on_pool");
    let execution = bench.run(&job);
    assert_eq!(bench.done(&job, execution), []);
    bench.end_turn();
    assert_eq!(replies(bench.ack_all())[1..], [executed(2, "k", unchanged(1, r#""1""#))]);
}

/// S-09: catches a panic on the pool that changes state or leaves the caller without an answer.
#[test]
fn a_panic_on_the_pool_is_an_answer() {
    let mut bench = Bench::new();
    bench.lead();
    let job = bench.start("k", "test.panic_on_pool");
    let execution = bench.run(&job);
    bench.done(&job, execution);
    bench.end_turn();
    let failed = Outcome::Failed { message: "a is nothing".into() };
    assert_eq!(replies(bench.ack_all()), [executed(2, "k", failed)]);
    assert_eq!(bench.overlay_value("b"), None);
}

/// A "not now" on the pool waits like any other, and goes back to the pool when it is woken.
#[test]
fn a_refused_job_waits() {
    let mut bench = Bench::new();
    bench.lead();
    let call = patient(10, call("k", "test.pop_on_pool", json!({})));
    let job = jobs(&bench.say(2, ToLeader::ExecuteFunction(call))).remove(0);
    let execution = bench.run(&job);
    assert_eq!(bench.done(&job, execution), []);
    let job = jobs(&bench.put("q/1", 1)).remove(0);
    let execution = bench.run(&job);
    bench.done(&job, execution);
    assert_eq!(body(&proposed(&bench.end_turn())[0]).verdict, Verdict::Changed(r#""q/1""#.into()));
}

/// Catches an execution of an earlier lead that is taken for one of this lead.
#[test]
fn a_job_of_an_earlier_lead_is_ignored() {
    let late = [Effect::Ignored(IgnoreReason::LateExecution)];
    let mut bench = Bench::new();
    bench.lead();
    bench.start("first", "test.copy_on_pool");
    let old = bench.start("old", "test.copy_on_pool");
    let execution = bench.run(&old);
    bench.step_down();
    assert_eq!(bench.done(&old, execution.clone()), late, "idle");
    bench.campaign();
    assert_eq!(bench.done(&old, execution.clone()), late, "preparing");
    bench.lead();
    bench.start("second", "test.look_on_pool");
    let new = bench.start("new", "test.look_on_pool");
    assert_eq!(bench.done(&old, execution), late, "leading again, with jobs of its own");
    assert_eq!(bench.leader.load().kept_calls, 2);
    let execution = bench.run(&new);
    assert_eq!(bench.done(&new, execution), []);
    assert_eq!(proposed(&bench.end_turn()), [], "the old job would have written");
}

/// A5, section 13: jobs that return to a full window. Catches ballots begun beyond it, results
/// that are lost, and more jobs than calls are kept.
#[test]
fn jobs_that_return_to_a_full_window_are_sent_when_there_is_room() {
    let mut bench = Bench::with(|config| {
        config.window = 1;
        config.kept_calls = 2;
    });
    bench.lead();
    let (first, second) = (bench.start("k", "test.copy_on_pool"), bench.start("l", "test.copy_on_pool"));
    assert_eq!(bench.call("m", "test.copy_on_pool", json!({})), [executed(2, "m", Outcome::Overloaded)]);
    for job in [&first, &second] {
        let execution = bench.run(job);
        bench.done(job, execution);
    }
    assert_eq!(bench.leader.load().unissued, 2);
    for number in 1..=2 {
        let run = proposed(&bench.end_turn());
        assert_eq!(run.iter().map(|command| command.number().0).collect::<Vec<_>>(), [number]);
        bench.ack_all();
    }
    assert_eq!(bench.leader.load().unissued, 0);
}

/// Catches a broken disk on the pool that is answered as if it said something about the state.
#[test]
fn a_state_that_cannot_be_read_stops_the_node() {
    let mut bench = Bench::new();
    bench.lead();
    let job = bench.start("k", "test.copy_on_pool");
    let error = protocol::StateError("the disk is gone".into());
    let result = Err(Failure::State(error.clone()));
    let execution = Box::new(Execution { result, effects: Vec::new(), reads: ReadSet::default(), successor: None });
    assert_eq!(bench.done(&job, execution), [Effect::Failed(error)]);
}
