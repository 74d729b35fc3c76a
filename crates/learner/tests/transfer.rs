//! Two learners' actors under actix, of which one gets the state of the other.

use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Actor as _;
use bytes::Bytes;
use protocol::message::{Success, ToLearner};
use protocol::{
    Ballot, Command, CommandBody, CommandId, CommandNumber, Effect, Fingerprint, Forget, Key, LearnFrom, Membership,
    Message, NodeId, Now, RequestId, Space, Tick, Timestamp, Verdict,
};
use quorate_learner::{
    Config, Deliver, History, Input, Learner, LearnerActor, LearnerPorts, Progress, Queries, Stored, Timing,
};
use storage::memory::{Fault, MemoryState};
use storage::{Retention, StateStore, StorageError};
use tokio::sync::watch;

const LEADER: NodeId = NodeId(1);
const LONG: Duration = Duration::from_secs(30);
type Place = Arc<OnceLock<actix::Addr<LearnerActor>>>;

struct Node {
    store: Arc<MemoryState>,
    learner: actix::Addr<LearnerActor>,
    queries: Queries,
    learned: mpsc::Receiver<CommandId>,
    failed: mpsc::Receiver<StorageError>,
}

/// A node whose messages go to `peer`.
fn start(me: u64, store: Arc<MemoryState>, own: &Place, peer: &Place) -> Node {
    let (membership, timing) = (Membership::of_equals(2), Timing::default());
    let config = Config { me: NodeId(me), membership, learn_from: LearnFrom::Leader, window: 64, timing };
    let ((learn, learned), (fail, failed)) = (mpsc::channel(), mpsc::channel());
    let started = tokio::time::Instant::now();
    let peer = Arc::clone(peer);
    let ports = LearnerPorts {
        send: Box::new(move |_, message| {
            let Message::Learner(message) = message else { panic!("learners write to learners") };
            let input = Input::Message { from: NodeId(me), message };
            // A full mailbox loses the message, as a network may.
            _ = peer.get().expect("both are there").try_send(Deliver(input));
        }),
        learned: Box::new(move |id| _ = learn.send(id)),
        membership: Box::new(|_| {}),
        forget: Box::new(|_| {}),
        space: Box::new(|| Space::Ample),
        failed: Box::new(move |error| fail.send(error).expect("heard")),
        clock: Box::new(move || Now { tick: Tick(0) + started.elapsed(), wall: Timestamp::default() }),
        tracer: None,
    };
    let (publish, progress) = watch::channel(Progress::default());
    let history = History { retention: LONG, commands: 1, bytes: u64::MAX };
    let core = Learner::new(config, Stored::of(&*store));
    let learner = LearnerActor::new(core, store.clone(), history, ports, publish).start();
    own.set(learner.clone()).ok();
    let queries = Queries::new(store.clone(), progress, learner.clone());
    Node { store, learner, queries, learned, failed }
}

/// Two megabytes, so that the state takes several pieces.
fn chain(count: u64) -> Vec<Command> {
    let ballot = Ballot::new(1, LEADER);
    let id = |number| if number == 0 { CommandId::NULL } else { CommandId::new(ballot, CommandNumber(number)) };
    let command = |number: u64| {
        let key = Key::new(format!("key-{}", number % 50)).expect("a key");
        let body = CommandBody {
            time: Timestamp(number),
            request: RequestId::Gateway(number.into()),
            fingerprint: Fingerprint::default(),
            function: "kv.put".into(),
            verdict: Verdict::Changed(Bytes::from_static(b"null")),
            effects: vec![Effect::Put { key, value: Bytes::from(vec![0; 40_000]) }],
            forget: Forget::default(),
        };
        Command { id: id(number), precedent: id(number - 1), body: body.encode() }
    };
    (1..=count).map(command).collect()
}

fn success(commands: &[Command]) -> Deliver {
    let issued = commands.last().expect("not empty").id;
    let message = ToLearner::Success(Success { ballot: Ballot::new(1, LEADER), issued, commands: commands.to_vec() });
    Deliver(Input::Message { from: LEADER, message })
}

/// A node with these commands applied, of which it keeps only the last; and one that has nothing and knows that.
fn ahead_and_behind(c: &[Command]) -> (Node, Node) {
    let store = Arc::new(MemoryState::new());
    store.apply(c).expect("applied");
    store.sync().expect("synced");
    let last_only = Retention { commands: 1, bytes: u64::MAX, since: Timestamp::default() };
    store.forget_commands(&last_only, CommandNumber(u64::MAX)).expect("forgotten");
    let (first, second) = (Place::default(), Place::default());
    let ahead = start(1, store, &first, &second);
    let behind = start(2, Arc::new(MemoryState::new()), &second, &first);
    behind.learner.do_send(Deliver(Input::PeerIssued { peer: NodeId(1), issued: c[c.len() - 1].number() }));
    (ahead, behind)
}

/// A14, A4: catches a state that does not arrive, in pieces; that is not told to the other roles; that is not durable; and
/// commands that do not go on after it.
#[actix::test]
async fn a_learner_gets_the_state_of_another_and_goes_on() {
    let c = chain(210);
    let (ahead, behind) = ahead_and_behind(&c[..200]);
    assert!(behind.queries.wait_applied(CommandNumber(200), LONG).await);
    assert_eq!(behind.store.digest(), ahead.store.digest());
    assert_eq!(behind.store.kept_from(), CommandNumber(201), "no command came");
    assert_eq!(behind.learned.recv(), Ok(c[199].id));
    for node in [&ahead, &behind] {
        node.learner.do_send(success(&c[200..]));
        assert!(node.queries.wait_applied(CommandNumber(210), LONG).await);
    }
    behind.store.crash();
    assert!(behind.store.applied().number >= CommandNumber(200), "what is installed is durable");
}

/// S-12: catches a learner that goes on when a piece could not be written.
#[actix::test]
async fn a_piece_that_cannot_be_written_stops_the_learner() {
    let (_ahead, behind) = ahead_and_behind(&chain(200));
    behind.store.fail_next(Fault::Write);
    let failed = async {
        loop {
            if let Ok(error) = behind.failed.try_recv() {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let failed = tokio::time::timeout(LONG, failed).await.expect("in time");
    assert!(matches!(failed, StorageError::Failed(_)), "{failed:?}");
}
