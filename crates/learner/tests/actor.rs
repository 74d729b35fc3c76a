//! The learner's actor under actix, on a store in memory.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Actor as _;
use bytes::Bytes;
use protocol::message::{CatchUp, Commands, Success, ToLearner};
use protocol::trace::{Sampling, Span, Stage, TraceIds};
use protocol::{
    Ballot, Command, CommandBody, CommandId, CommandNumber, Effect, Entry, Fingerprint, Forget, Key, LearnFrom,
    Membership, Message, NodeId, Now, RequestId, SnapshotId, SnapshotPiece, Space, StateError, StateView,
    StoredOutcome, Tick, Timestamp, Tracer, Verdict,
};
use quorate_learner::{
    Config, Deliver, DigestRefusal, History, Input, Learner, LearnerActor, LearnerPorts, NoDigest, Progress, Queries,
    Stop, Stored, Timing,
};
use storage::memory::{Fault, MemoryState};
use storage::{Checkpoint, Installation, Retention, Staged, StateSnapshot, StateStore, StorageError};
use tokio::sync::watch;

const LEADER: NodeId = NodeId(2);
const LONG: Duration = Duration::from_secs(30);

/// A store that notes how many commands each write applied.
struct Noting {
    inner: MemoryState,
    batches: Mutex<Vec<usize>>,
}

impl StateView for Noting {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        self.inner.get(key)
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.inner.scan(prefix, after, limit)
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        self.inner.outcome(request)
    }
}

impl StateStore for Noting {
    fn apply(&self, commands: &[Command]) -> Result<(), StorageError> {
        self.batches.lock().expect("not poisoned").push(commands.len());
        self.inner.apply(commands)
    }

    fn applied(&self) -> CommandId {
        self.inner.applied()
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.inner.sync()
    }

    fn durable(&self) -> CommandNumber {
        self.inner.durable()
    }

    fn time(&self) -> Timestamp {
        self.inner.time()
    }

    fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Result<Option<Vec<Command>>, StorageError> {
        self.inner.commands(first, limit, bytes)
    }

    fn kept_from(&self) -> CommandNumber {
        self.inner.kept_from()
    }

    fn forget_commands(&self, retention: &Retention, at_most: CommandNumber) -> Result<CommandNumber, StorageError> {
        self.inner.forget_commands(retention, at_most)
    }

    fn reclaim(&self, space: Space) -> Result<(), StorageError> {
        self.inner.reclaim(space)
    }

    fn digest(&self) -> SnapshotId {
        self.inner.digest()
    }

    fn checkpoint(&self) -> Result<Box<dyn Checkpoint>, StorageError> {
        self.inner.checkpoint()
    }

    fn staged(&self) -> Option<Staged> {
        self.inner.staged()
    }

    fn stage(&self, id: SnapshotId, piece: &SnapshotPiece) -> Result<(), StorageError> {
        self.inner.stage(id, piece)
    }

    fn install(&self) -> Result<Installation, StorageError> {
        self.inner.install()
    }

    fn drop_staged(&self) -> Result<(), StorageError> {
        self.inner.drop_staged()
    }

    fn snapshot(&self) -> Result<Box<dyn StateSnapshot + '_>, StorageError> {
        self.inner.snapshot()
    }
}

/// What the actor told others, in order.
#[derive(Debug, PartialEq)]
enum Told {
    Sent(NodeId, Message),
    Learned(CommandId),
    Membership(CommandNumber),
    Forgotten(CommandNumber),
    Failed(StorageError),
}

/// A tracer that follows all calls.
fn tracer(record: impl Fn(Span) + Send + Sync + 'static) -> Tracer {
    let sampling = Sampling::new(1.0).expect("a share");
    Tracer { ids: TraceIds::new("test"), sampling, record: Box::new(record) }
}

struct Node {
    store: Arc<Noting>,
    learner: actix::Addr<LearnerActor>,
    queries: Queries,
    told: mpsc::Receiver<Told>,
    spans: mpsc::Receiver<Span>,
}

fn start() -> Node {
    start_in(Membership::of_equals(3))
}

/// One that was told of this membership.
fn start_in(membership: Arc<Membership>) -> Node {
    let store = Arc::new(Noting { inner: MemoryState::new(), batches: Mutex::default() });
    let timing = Timing::default();
    let config = Config { me: NodeId(1), membership, learn_from: LearnFrom::Leader, window: 64, timing };
    let (tell, told) = mpsc::channel();
    let (sent, learned, forgotten, failed) = (tell.clone(), tell.clone(), tell.clone(), tell.clone());
    let started = tokio::time::Instant::now();
    let (trace, spans) = mpsc::channel();
    let tracer = tracer(move |span| trace.send(span).expect("heard"));
    let ports = LearnerPorts {
        send: Box::new(move |to, message| sent.send(Told::Sent(to, message)).expect("heard")),
        space: Box::new(|| Space::Ample),
        learned: Box::new(move |id| learned.send(Told::Learned(id)).expect("heard")),
        membership: Box::new(move |membership| tell.send(Told::Membership(membership.number())).expect("heard")),
        forget: Box::new(move |durable| forgotten.send(Told::Forgotten(durable)).expect("heard")),
        failed: Box::new(move |error| failed.send(Told::Failed(error)).expect("heard")),
        clock: Box::new(move || Now { tick: Tick(0) + started.elapsed(), wall: Timestamp::default() }),
        tracer: Some(Arc::new(tracer)),
    };
    let (publish, progress) = watch::channel(Progress::default());
    let history = History { retention: LONG, commands: 2, bytes: u64::MAX };
    let core = Learner::new(config, Stored::of(&*store));
    let actor = LearnerActor::new(core, store.clone(), history, ports, publish);
    let learner = actor.start();
    let queries = Queries::new(store.clone(), progress, learner.clone());
    Node { store, learner, queries, told, spans }
}

fn ballot() -> Ballot {
    Ballot::new(1, LEADER)
}

/// Commands 1 to `count`, each putting its number.
fn chain(count: u64) -> Vec<Command> {
    let id = |number| match number {
        0 => CommandId::NULL,
        number => CommandId::new(ballot(), CommandNumber(number)),
    };
    let command = |number: u64| {
        let body = CommandBody {
            time: Timestamp(number),
            request: RequestId::Gateway(number.into()),
            fingerprint: Fingerprint::default(),
            function: "kv.put".into(),
            verdict: Verdict::Changed(Bytes::from_static(b"null")),
            effects: vec![Effect::Put { key: Key::new("k").expect("a key"), value: Bytes::from(number.to_string()) }],
            forget: Forget::default(),
        };
        Command { id: id(number), precedent: id(number - 1), body: body.encode() }
    };
    (1..=count).map(command).collect()
}

fn success(commands: &[Command]) -> Deliver {
    let issued = commands.last().expect("not empty").id;
    let message = ToLearner::Success(Success { ballot: ballot(), issued, commands: commands.to_vec() });
    Deliver(Input::Message { from: LEADER, message })
}

/// An answer of a node that keeps all.
fn commands(commands: &[Command], issued: CommandId) -> Message {
    let (commands, kept_from) = (commands.to_vec(), CommandNumber(1));
    Message::Learner(ToLearner::Commands(Commands { commands, issued, kept_from }))
}

/// The digest that a store has which applied just these.
fn digest_after(commands: &[Command]) -> [u8; 32] {
    let store = MemoryState::new();
    store.apply(commands).expect("applied");
    store.snapshot().expect("a view").digest().expect("a digest")
}

/// S-14, A4: catches one write for each message, telling before applying, and an answer to a
/// peer that lacks what the same turn applied.
#[actix::test]
async fn a_turn_applies_once_then_tells_then_sends() {
    let node = start();
    let c = chain(10);
    let question = ToLearner::CatchUp(CatchUp { first: CommandNumber(9) });
    node.learner.do_send(Deliver(Input::Message { from: NodeId(3), message: question }));
    for command in &c {
        node.learner.do_send(success(std::slice::from_ref(command)));
    }
    assert!(node.queries.wait_applied(CommandNumber(10), LONG).await);
    assert_eq!(*node.store.batches.lock().expect("not poisoned"), [10]);
    let told: Vec<Told> = node.told.try_iter().collect();
    assert_eq!(told, [Told::Learned(c[9].id), Told::Sent(NodeId(3), commands(&c[8..], c[9].id))]);

    let question = ToLearner::CatchUp(CatchUp { first: CommandNumber(9) });
    node.learner.send(Deliver(Input::Message { from: NodeId(3), message: question })).await.expect("delivered");
    let digest = node.queries.digest_at(None, LONG).await.expect("a digest");
    assert_eq!((digest.at, digest.digest), (CommandNumber(10), digest_after(&c)));
    assert_eq!(node.told.try_iter().collect::<Vec<_>>(), [Told::Sent(NodeId(3), commands(&c[8..], c[9].id))]);
}

/// Catches commands of which a trace does not tell that they are applied here, and when: those of one write took as long
/// as it; and spans that hang below another call.
#[actix::test]
async fn what_is_applied_together_is_a_span_of_each_call() {
    let node = start();
    node.learner.do_send(success(&chain(3)));
    assert!(node.queries.wait_applied(CommandNumber(3), LONG).await);
    let spans: Vec<Span> = node.spans.try_iter().collect();
    let parents: Vec<_> = spans.iter().map(|span| (span.trace, span.parent)).collect();
    let ids = TraceIds::new("test");
    let expected = [1, 2, 3].map(|number: u64| {
        let trace = ids.of(&RequestId::Gateway(number.into()));
        (trace, Some(trace.vote(CommandNumber(number))))
    });
    assert_eq!(parents, expected);
    assert!(spans.iter().all(|span| span.stage == Stage::Apply && span.took == spans[0].took), "{spans:?}");
}

/// A4: catches a question for the next piece that waits until the last one is applied, so that a node far behind does
/// one after the other.
#[actix::test]
async fn the_next_piece_is_asked_for_before_the_last_one_is_applied() {
    let node = start();
    let c = chain(200);
    let asked =
        |first| Told::Sent(NodeId(3), Message::Learner(ToLearner::CatchUp(CatchUp { first: CommandNumber(first) })));
    node.learner.do_send(Deliver(Input::PeerIssued { peer: NodeId(3), issued: CommandNumber(200) }));
    let Message::Learner(piece) = commands(&c[..100], c[199].id) else { unreachable!("it is for learners") };
    node.learner.do_send(Deliver(Input::Message { from: NodeId(3), message: piece }));
    assert!(node.queries.wait_applied(CommandNumber(100), LONG).await);
    let told: Vec<Told> = node.told.try_iter().collect();
    assert_eq!(told, [asked(1), asked(101), Told::Learned(c[99].id)]);
}

/// S-33: catches a digest at a number that shows a later state although more was issued in the
/// same turn, and a number that has gone by answered with anything but that.
#[actix::test]
async fn a_digest_is_exact_in_the_middle_of_a_turn() {
    let node = start();
    let c = chain(9);
    let queries = node.queries.clone();
    let digest = actix::spawn(async move { queries.digest_at(Some(CommandNumber(4)), LONG).await });
    // The request goes first: the task above runs before this one again.
    tokio::task::yield_now().await;
    node.learner.do_send(success(&c));
    let digest = digest.await.expect("the task ends").expect("a digest");
    assert_eq!((digest.at, digest.digest), (CommandNumber(4), digest_after(&c[..4])));
    assert!(node.queries.wait_applied(CommandNumber(9), LONG).await);
    assert_eq!(*node.store.batches.lock().expect("not poisoned"), [4, 5]);
    let gone = node.queries.digest_at(Some(CommandNumber(4)), LONG).await;
    assert_eq!(gone, Err(NoDigest::Refused(DigestRefusal::Gone)));
    let never = node.queries.digest_at(Some(CommandNumber(99)), Duration::from_millis(1)).await;
    assert_eq!(never, Err(NoDigest::Refused(DigestRefusal::NotReached)));
    assert!(!node.queries.wait_applied(CommandNumber(99), Duration::from_millis(1)).await);
}

/// S-14: catches a state that never becomes durable by itself.
#[actix::test]
async fn what_is_applied_becomes_durable_without_being_asked() {
    let node = start();
    node.learner.do_send(success(&chain(3)));
    let mut progress = node.queries.progress_changes();
    let durable = progress.wait_for(|progress| progress.durable == CommandNumber(3));
    tokio::time::timeout(LONG, durable).await.expect("in time").expect("the learner lives");
    node.store.inner.crash();
    assert_eq!(node.store.applied(), chain(3)[2].id);
}

/// DESIGN 8: catches votes and commands that are never forgotten, and an answer to a peer that needs a forgotten one
/// which does not say so.
#[actix::test]
async fn what_a_majority_has_durable_is_forgotten() {
    let node = start();
    let c = chain(9);
    let mut progress = node.queries.progress_changes();
    node.learner.do_send(success(&c));
    let durable = progress.wait_for(|progress| progress.durable == CommandNumber(9));
    tokio::time::timeout(LONG, durable).await.expect("in time").expect("the learner lives");
    assert_eq!(node.store.kept_from(), CommandNumber(1), "nobody else has it");
    node.learner.do_send(Deliver(Input::PeerDurable { peer: NodeId(3), durable: CommandNumber(8) }));
    let forgotten = async {
        while node.store.kept_from() == CommandNumber(1) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, forgotten).await.expect("in time");
    let kept_from = node.store.kept_from();
    assert_eq!(kept_from, CommandNumber(8), "two are kept");
    let question = ToLearner::CatchUp(CatchUp { first: CommandNumber(2) });
    node.learner.send(Deliver(Input::Message { from: NodeId(3), message: question })).await.expect("delivered");
    node.queries.digest_at(Some(CommandNumber(9)), LONG).await.expect("the turn has ended");
    let told: Vec<Told> = node.told.try_iter().collect();
    assert!(told.contains(&Told::Forgotten(CommandNumber(8))), "{told:?}");
    let nothing = Commands { commands: vec![], issued: c[8].id, kept_from };
    let nothing = Told::Sent(NodeId(3), Message::Learner(ToLearner::Commands(nothing)));
    assert!(told.contains(&nothing), "{told:?}");
}

/// Three commands, of which the last makes a membership of so many equals.
fn chain_to(members: u64) -> Vec<Command> {
    let mut c = chain(3);
    let mut body = CommandBody::decode(&c[2].body).expect("a body");
    let value = Membership::of_equals(members).to_value();
    body.effects = vec![Effect::Put { key: protocol::membership::key(), value }];
    c[2].body = body.encode();
    c
}

/// ADR 0025: catches a change of the membership that others hear of, and vote above, before it is durable here: with the
/// old acceptors gone, a power cut would lose what they had voted for.
#[actix::test]
async fn a_change_of_the_membership_is_durable_before_it_is_told() {
    let node = start();
    let c = chain_to(4);
    node.learner.do_send(success(&c));
    assert!(node.queries.wait_applied(CommandNumber(3), LONG).await);
    assert_eq!(node.store.durable(), CommandNumber(3), "not a second later");
    let told: Vec<Told> = node.told.try_iter().collect();
    assert_eq!(told, [Told::Membership(CommandNumber(3)), Told::Learned(c[2].id)]);
    let question = ToLearner::CatchUp(CatchUp { first: CommandNumber(3) });
    node.learner.send(Deliver(Input::Message { from: NodeId(4), message: question })).await.expect("delivered");
    node.queries.digest_at(None, LONG).await.expect("the turn has ended");
    assert_eq!(node.told.try_iter().collect::<Vec<_>>(), [Told::Sent(NodeId(4), commands(&c[2..], c[2].id))]);
}

/// The same of a node that joined after the change, and was told of it then. Catches one to which the change is none: it would vote
/// above what a power cut takes from it.
#[actix::test]
async fn a_change_of_which_it_was_told_before_is_durable_too() {
    let told = (*Membership::of_equals(4)).clone().written_by(CommandNumber(3));
    let node = start_in(Arc::new(told));
    let c = chain_to(4);
    node.learner.do_send(success(&c));
    assert!(node.queries.wait_applied(CommandNumber(3), LONG).await);
    assert_eq!(node.store.durable(), CommandNumber(3), "not a second later");
    assert_eq!(node.told.try_iter().collect::<Vec<_>>(), [Told::Learned(c[2].id)]);
}

/// ADR 0025: catches a state that is synced for a change and not counted as durable before another command comes: an idle
/// cluster would forget no vote, and let no silent acceptor speak, where this node is needed for a majority of learners.
#[actix::test]
async fn what_a_change_makes_durable_counts_at_once() {
    let node = start();
    let c = chain_to(5);
    node.learner.do_send(success(&c));
    assert!(node.queries.wait_applied(CommandNumber(3), LONG).await);
    for peer in [2, 3] {
        node.learner.do_send(Deliver(Input::PeerDurable { peer: NodeId(peer), durable: CommandNumber(3) }));
    }
    let forgotten = async {
        while !node.told.try_iter().any(|told| told == Told::Forgotten(CommandNumber(3))) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, forgotten).await.expect("three of five have it");
}

/// S-14: catches a stop that loses what was applied since the last sync, or what was still in
/// the mailbox, and one that leaves those who wait without an answer.
#[actix::test]
async fn a_stopped_learner_leaves_a_durable_state() {
    let node = start();
    let queries = node.queries.clone();
    let waiting = actix::spawn(async move { queries.digest_at(Some(CommandNumber(99)), LONG).await });
    tokio::task::yield_now().await;
    node.learner.do_send(success(&chain(3)));
    node.learner.send(Stop).await.expect("delivered");
    assert_eq!(node.queries.progress().durable, CommandNumber(3));
    node.store.inner.crash();
    assert_eq!(node.store.applied(), chain(3)[2].id);
    assert_eq!(waiting.await.expect("the task ends"), Err(NoDigest::Stopped));
}

/// S-12: catches a learner that goes on after a failed write, or tells of it as if it had
/// succeeded.
#[actix::test]
async fn a_failed_write_stops_the_learner() {
    let node = start();
    let c = chain(2);
    node.store.inner.fail_next(Fault::Write);
    node.learner.send(success(&c[..1])).await.expect("delivered");
    node.learner.send(success(&c)).await.expect("delivered");
    assert_eq!(node.queries.digest_at(Some(CommandNumber(9)), LONG).await, Err(NoDigest::Stopped));
    let told: Vec<Told> = node.told.try_iter().collect();
    assert!(matches!(told[..], [Told::Failed(StorageError::Failed(_))]), "{told:?}");
    assert_eq!(node.queries.progress(), Progress::default());
}
