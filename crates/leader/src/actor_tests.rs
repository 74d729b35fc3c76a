//! The actor of a cluster of one node, between a disk in memory and a test that plays acceptor.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use functions::{ExecutionContext, Function, Placement};
use protocol::message::{BallotInfo, ToAcceptor, ToGateway, ToLeader, Voted};
use protocol::trace::{self, Sampling, Span, Stage, TraceIds};
use protocol::{Call, CommandId, Fingerprint, LearnFrom, Membership, Outcome, RequestId, Run, Tick, Timestamp};
use serde_json::Value;
use storage::memory::{Fault, MemoryLog, MemoryState};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::core::Config;

const ME: NodeId = NodeId(1);
const BALLOT: Ballot = Ballot::new(1, ME);

/// Where a function of the pool says that it runs, and waits to be let go.
type Barrier = (std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>);

/// A function of the pool that runs until the test lets it go.
struct Held(Mutex<Barrier>);

impl Function for Held {
    fn name(&self) -> &str {
        "test.held"
    }

    fn description(&self) -> &str {
        "A function of a test."
    }

    fn arguments_schema(&self) -> Value {
        Value::Bool(true)
    }

    fn result_schema(&self) -> Value {
        Value::Bool(true)
    }

    fn placement(&self) -> Placement {
        Placement::Pool
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, _: Value) -> Result<Value, Failure> {
        let barrier = self.0.lock().expect("no panic");
        barrier.0.send(()).expect("the test waits");
        barrier.1.recv().expect("the test lets it go");
        context.put(protocol::Key::new("held").expect("a key"), "1".into())?;
        Ok(Value::Null)
    }
}

struct Bench {
    actor: Addr<LeaderActor>,
    /// Of the calls that are followed: all of them.
    spans: Arc<Mutex<Vec<Span>>>,
    log: Arc<MemoryLog>,
    sent: UnboundedReceiver<Message>,
    failures: Arc<Mutex<Vec<String>>>,
    /// What it said last of whether it waits.
    waits: Arc<AtomicBool>,
}

impl Bench {
    fn start(functions: Registry) -> Self {
        let config = Config {
            me: ME,
            membership: Membership::of_equals(1),
            learn_from: LearnFrom::Voters,
            window: 10,
            pipeline_bytes: 1 << 20,
            run_bytes: 1 << 20,
            rounds_in_flight: 2,
            kept_calls: 10,
            resend: Duration::from_secs(60),
            prepare_timeout: Duration::from_secs(60),
            hand_over_timeout: Duration::from_secs(60),
            caller_retention: Duration::from_secs(60),
            gateway_retention: Duration::from_secs(60),
        };
        let (out, sent) = unbounded_channel();
        let failures = Arc::new(Mutex::new(Vec::new()));
        let failed = Arc::clone(&failures);
        let waits = Arc::new(AtomicBool::new(false));
        let waiting = Arc::clone(&waits);
        let (spans, time) = (Arc::new(Mutex::new(Vec::new())), AtomicU64::new(1));
        let recorded = Arc::clone(&spans);
        let tracer = Tracer {
            ids: TraceIds::new("bench"),
            sampling: Sampling::new(1.0).expect("a share"),
            record: Box::new(move |span| recorded.lock().expect("no panic").push(span)),
        };
        let ports = LeaderPorts {
            send: Box::new(move |_, message| _ = out.send(message)),
            learn_from_peer: Box::new(|_, _| ()),
            leads: Box::new(|_| ()),
            room: Box::new(|| true),
            waits: Box::new(move |waits| waiting.store(waits, Ordering::Relaxed)),
            hands_over: Box::new(|_| {}),
            heard: Box::new(BTreeMap::new),
            barred: Box::new(|| false),
            failed: Box::new(move |reason| failed.lock().expect("no panic").push(reason)),
            // Each look at it takes a microsecond.
            clock: Box::new(move || Now { tick: Tick(time.fetch_add(1, Ordering::Relaxed)), wall: Timestamp(1) }),
            entropy: Box::new(|| 1),
            tracer: Some(Arc::new(tracer)),
        };
        let log = Arc::new(MemoryLog::new());
        let core = Leader::new(config, Ballot::NONE, CommandId::NULL);
        let state = Arc::new(MemoryState::new());
        let actor = LeaderActor::new(core, Arc::clone(&log) as Arc<dyn LogStore>, state, functions, ports).start();
        Self { actor, spans, log, sent, failures, waits }
    }

    fn campaign(&self) {
        self.actor.try_send(Deliver(Input::Campaign { above: Ballot::NONE })).expect("room");
    }

    fn say(&self, message: ToLeader) {
        self.actor.try_send(Deliver(Input::Message { from: ME, message })).expect("room");
    }

    async fn next(&mut self) -> Message {
        self.sent.recv().await.expect("the actor lives")
    }

    async fn lead(&mut self) {
        self.campaign();
        let Message::Acceptor(ToAcceptor::NextBallot(question)) = self.next().await else { panic!("no question") };
        let (ballot, first) = (question.ballot, question.first);
        let info = BallotInfo { ballot, first, issued: CommandId::NULL, votes: Vec::new(), part: 0, parts: 1 };
        self.say(ToLeader::BallotInfo(info));
    }

    /// Votes for the next run, and returns how many commands it had.
    async fn vote(&mut self) -> usize {
        let Message::Acceptor(ToAcceptor::BeginBallot(begin)) = self.next().await else { panic!("no ballot") };
        let last = begin.commands.last().expect("a command").id;
        let run = Some(Run { first: begin.commands[0].number(), last });
        self.say(ToLeader::Voted(Voted {
            ballot: begin.ballot,
            run,
            round: begin.round,
            membership: CommandNumber::NULL,
        }));
        begin.commands.len()
    }

    async fn outcome(&mut self) -> (RequestId, Outcome) {
        let Message::Gateway(ToGateway::Executed(executed)) = self.next().await else { panic!("no answer") };
        (executed.request, executed.outcome)
    }
}

fn call(key: &str, function: &str, arguments: &'static str) -> ToLeader {
    ToLeader::ExecuteFunction(Call {
        request: RequestId::caller(key).expect("a key"),
        fingerprint: Fingerprint([0; 16]),
        function: function.to_owned(),
        arguments: arguments.into(),
        patience: Duration::ZERO,
        copy: 0,
    })
}

fn issued(key: &str, command: u64, result: &'static str) -> (RequestId, Outcome) {
    let outcome = Outcome::Issued { command: CommandNumber(command), result: result.into() };
    (RequestId::caller(key).expect("a key"), outcome)
}

/// A7, S-11: catches a question that leaves before the ballot is durable.
#[actix::test]
async fn a_ballot_is_durable_before_it_is_announced() {
    let mut bench = Bench::start(Registry::new());
    bench.campaign();
    assert_eq!(bench.next().await.name(), "NextBallot");
    bench.log.crash();
    assert_eq!(bench.log.load(CommandNumber(0)).expect("memory").last_tried, BALLOT);
}

/// S-12: catches a leader that speaks after its disk failed, tries again, or does not say so.
#[actix::test]
async fn after_a_failed_write_it_is_deaf_and_says_so_once() {
    let mut bench = Bench::start(Registry::new());
    bench.log.fail_next(Fault::Sync);
    bench.campaign();
    bench.campaign();
    // Handled after both, and after the end of their turn.
    bench.actor.send(Deliver(Input::EndOfTurn)).await.expect("the actor lives");
    bench.actor.send(Deliver(Input::EndOfTurn)).await.expect("the actor lives");
    bench.log.restart();
    bench.campaign();
    bench.actor.send(Deliver(Input::EndOfTurn)).await.expect("the actor lives");
    assert_eq!(bench.failures.lock().expect("no panic").len(), 1);
    assert!(bench.sent.try_recv().is_err(), "it has said something");
}

/// Catches calls of one turn that are proposed one by one, so that each costs a sync.
#[actix::test]
async fn a_turn_is_one_run() {
    let mut bench = Bench::start(Registry::with_builtins());
    bench.lead().await;
    for key in ["a", "b", "c"] {
        bench.say(call(key, "kv.put", r#"{"key": "k", "value": 1}"#));
    }
    assert_eq!(bench.vote().await, 3);
    assert!(bench.waits.load(Ordering::Relaxed), "ADR 0042: the failure detector is to know");
    for (number, key) in (1..).zip(["a", "b", "c"]) {
        assert_eq!(bench.outcome().await, issued(key, number, "{}"));
    }
    bench.actor.send(Deliver(Input::EndOfTurn)).await.expect("the actor lives");
    bench.actor.send(Deliver(Input::StepDown("the test says so"))).await.expect("the actor lives");
    assert!(!bench.waits.load(Ordering::Relaxed));
}

/// A1m: catches a function on the pool that holds up others, or whose result gets lost.
#[actix::test]
async fn a_held_function_stops_nobody() {
    let (here, its_start) = std::sync::mpsc::channel();
    let (let_go, its_end) = std::sync::mpsc::channel();
    let mut functions = Registry::with_builtins();
    functions.register(Arc::new(Held(Mutex::new((here, its_end))))).expect("a new name");
    let mut bench = Bench::start(functions);
    bench.lead().await;
    bench.say(call("held", "test.held", "{}"));
    tokio::task::spawn_blocking(move || its_start.recv()).await.expect("no panic").expect("it runs");
    bench.say(call("other", "kv.put", r#"{"key": "k", "value": 1}"#));
    assert_eq!(bench.vote().await, 1);
    assert_eq!(bench.outcome().await, issued("other", 1, "{}"));
    let_go.send(()).expect("it waits");
    assert_eq!(bench.vote().await, 1);
    assert_eq!(bench.outcome().await, issued("held", 2, "null"));
}

/// Catches steps of a call that are lost, overlap or leave gaps, that hang below another call, or whose votes have an id
/// under which acceptors and learners do not find them.
#[actix::test]
async fn the_steps_of_a_call_follow_each_other() {
    let mut bench = Bench::start(Registry::with_builtins());
    bench.lead().await;
    bench.say(call("a", "kv.put", r#"{"key": "k", "value": 1}"#));
    // A copy is no second call.
    bench.say(call("a", "kv.put", r#"{"key": "k", "value": 1}"#));
    bench.vote().await;
    bench.outcome().await;
    bench.actor.send(Deliver(Input::EndOfTurn)).await.expect("the actor lives");
    let trace = TraceIds::new("bench").of(&RequestId::caller("a").expect("a key"));
    let spans = std::mem::take(&mut *bench.spans.lock().expect("no panic"));
    let stages: Vec<Stage> = spans.iter().map(|span| span.stage).collect();
    assert_eq!(stages, [Stage::Execute, Stage::Queue, Stage::Vote]);
    assert!(spans.iter().all(|span| span.trace == trace && span.parent == Some(trace.call(ME))), "{spans:?}");
    let [queue, vote] = &spans[1..] else { panic!("{spans:?}") };
    assert!(!queue.took.is_zero() && !vote.took.is_zero());
    assert_eq!((queue.ago, vote.ago), (vote.took, Duration::ZERO), "one ends where the other begins");
    assert_eq!(vote.id, Some(trace.vote(CommandNumber(1))));
    assert_eq!(vote.attributes, [("quorate.command", trace::Value::Number(1))]);

    bench.say(call("b", "test.nothing", "{}"));
    assert_eq!(bench.outcome().await.1, Outcome::UnknownFunction);
    bench.actor.send(Deliver(Input::EndOfTurn)).await.expect("the actor lives");
    let stages: Vec<Stage> = bench.spans.lock().expect("no panic").iter().map(|span| span.stage).collect();
    assert_eq!(stages, [Stage::Execute], "nothing was waited for");
}
