//! The actor between a mailbox and a disk that counts, and fails when told to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use protocol::message::{BeginBallot, NextBallot, ToAcceptor};
use protocol::trace::{Sampling, TraceIds};
use protocol::{CommandBody, CommandId, Fingerprint, Forget, LearnFrom, MajoritySets, RequestId, Timestamp, Verdict};
use storage::LogImage;
use storage::memory::MemoryLog;

use super::*;
use crate::core::Config;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Wrote(usize),
    Sent(&'static str),
    Proposed(usize),
    Failed,
}

#[derive(Default)]
struct Disk {
    seen: Arc<Mutex<Vec<Seen>>>,
    broken: AtomicBool,
}

impl LogStore for Disk {
    fn write(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(StorageError::Failed("the test broke it".into()));
        }
        self.seen.lock().expect("no panic").push(Seen::Wrote(records.len()));
        Ok(())
    }

    fn load(&self, _: CommandNumber) -> Result<LogImage, StorageError> {
        Ok(LogImage::default())
    }
}

fn config() -> Config {
    let learners = vec![NodeId(1)];
    let acceptors = MajoritySets::simple(learners.clone()).expect("a node");
    let (learn_from, part_bytes) = (LearnFrom::Leader, 1 << 20);
    Config { me: NodeId(1), window: 64, acceptors: acceptors.into(), learners, learn_from, part_bytes, nonce: 7 }
}

fn start(disk: &Arc<Disk>) -> actix::Addr<AcceptorActor> {
    start_with(disk, Space::Ample, None)
}

fn start_with(disk: &Arc<Disk>, space: Space, tracer: Option<Arc<Tracer>>) -> actix::Addr<AcceptorActor> {
    let note = |seen: Seen| {
        let all = Arc::clone(&disk.seen);
        move || all.lock().expect("no panic").push(seen.clone())
    };
    let (sent, proposed, failed) = (Arc::clone(&disk.seen), Arc::clone(&disk.seen), note(Seen::Failed));
    let ports = AcceptorPorts {
        send: Box::new(move |_, message| sent.lock().expect("no panic").push(Seen::Sent(message.name()))),
        proposed: Box::new(move |_, commands| proposed.lock().expect("no panic").push(Seen::Proposed(commands.len()))),
        space: Box::new(move || space),
        speaks: Box::new(|| ()),
        failed: Box::new(move |_| failed()),
        tracer,
    };
    let core = Acceptor::new(config(), LogImage::default(), CommandId::NULL);
    AcceptorActor::new(core, Arc::clone(disk) as Arc<dyn LogStore>, ports).start()
}

const BALLOT: Ballot = Ballot::new(1, NodeId(1));

fn deliver(message: ToAcceptor) -> Deliver {
    Deliver(Input::Message { from: NodeId(1), message })
}

fn next_ballot() -> Deliver {
    deliver(ToAcceptor::NextBallot(NextBallot { ballot: BALLOT, first: CommandNumber(1) }))
}

fn begin(number: u64) -> Deliver {
    begin_with(number, Bytes::new())
}

fn begin_with(number: u64, body: Bytes) -> Deliver {
    let id = |number| match number {
        0 => CommandId::NULL,
        number => CommandId::new(BALLOT, CommandNumber(number)),
    };
    let commands = vec![Command { id: id(number), precedent: id(number - 1), body }];
    deliver(ToAcceptor::BeginBallot(BeginBallot {
        ballot: BALLOT,
        commands,
        round: number,
        membership: CommandNumber::NULL,
    }))
}

/// Waits for the end of the turn: a flush of its own follows all that was queued before.
async fn settle(actor: &actix::Addr<AcceptorActor>) {
    actor.send(Flush).await.expect("the actor lives");
}

/// S-11, A6, DESIGN 4: catches a sync per message, and a message that leaves before the write
/// that it depends on.
#[actix::test]
async fn what_is_queued_shares_one_write_and_is_sent_after_it() {
    let disk = Arc::new(Disk::default());
    let actor = start(&disk);
    actor.try_send(next_ballot()).expect("room");
    for number in 1..=9 {
        actor.try_send(begin(number)).expect("room");
    }
    settle(&actor).await;
    let seen = disk.seen.lock().expect("no panic").clone();
    let mut expected = vec![Seen::Proposed(1); 9];
    expected.extend([Seen::Wrote(10), Seen::Sent("BallotInfo")]);
    expected.extend(vec![Seen::Sent("Voted"); 9]);
    assert_eq!(seen, expected);
}

/// Catches votes of which a trace does not tell, that hang below another call, or of which it tells before they are on the
/// disk; and a promise that is taken for one.
#[actix::test]
async fn votes_of_one_sync_are_spans_below_their_calls() {
    let disk = Arc::new(Disk::default());
    let spans = Arc::new(Mutex::new(Vec::new()));
    let recorded = (Arc::clone(&spans), Arc::clone(&disk));
    let tracer = Tracer {
        ids: TraceIds::new("test"),
        sampling: Sampling::new(1.0).expect("a share"),
        record: Box::new(move |span| {
            let seen = recorded.1.seen.lock().expect("no panic").clone();
            recorded.0.lock().expect("no panic").push((span, seen.last().cloned()));
        }),
    };
    let ids = tracer.ids.clone();
    let actor = start_with(&disk, Space::Ample, Some(Arc::new(tracer)));
    actor.try_send(next_ballot()).expect("room");
    for number in 1..=2 {
        actor.try_send(begin_with(number, body_of(number))).expect("room");
    }
    settle(&actor).await;
    let spans = spans.lock().expect("no panic");
    let expected = [1, 2].map(|number: u64| {
        let trace = ids.of(&RequestId::Gateway(number.into()));
        (trace, Some(trace.vote(CommandNumber(number))))
    });
    assert_eq!(spans.iter().map(|(span, _)| (span.trace, span.parent)).collect::<Vec<_>>(), expected);
    assert!(spans.iter().all(|(span, seen)| span.stage == Stage::Sync && *seen == Some(Seen::Wrote(3))), "{spans:?}");
}

/// The body of a command of the request of that number.
fn body_of(number: u64) -> Bytes {
    let body = CommandBody {
        time: Timestamp(number),
        request: RequestId::Gateway(number.into()),
        fingerprint: Fingerprint::default(),
        function: "f".into(),
        verdict: Verdict::Unchanged("{}".into()),
        effects: Vec::new(),
        forget: Forget::default(),
    };
    body.encode()
}

/// Catches a sync for nothing but votes that may go, and such a mark that is never written.
#[actix::test]
async fn forgetting_shares_the_next_write() {
    let disk = Arc::new(Disk::default());
    let actor = start(&disk);
    let issued = |number| CommandId::new(BALLOT, CommandNumber(number));
    for number in 1..=2 {
        actor.try_send(Deliver(Input::Issued(issued(number)))).expect("room");
        actor.try_send(Deliver(Input::Forget(CommandNumber(number)))).expect("room");
        settle(&actor).await;
    }
    assert_eq!(*disk.seen.lock().expect("no panic"), []);
    actor.try_send(next_ballot()).expect("room");
    settle(&actor).await;
    assert_eq!(*disk.seen.lock().expect("no panic"), [Seen::Wrote(2), Seen::Sent("BallotInfo")]);
}

/// A13: catches votes that may go, and do not while none are cast: on a disk that they have filled none ever are.
#[actix::test]
async fn forgetting_waits_for_no_other_write_where_space_is_short() {
    let disk = Arc::new(Disk::default());
    let actor = start_with(&disk, Space::Low, None);
    actor.try_send(Deliver(Input::Issued(CommandId::new(BALLOT, CommandNumber(1))))).expect("room");
    settle(&actor).await;
    assert_eq!(*disk.seen.lock().expect("no panic"), [], "a write of nothing");
    actor.try_send(Deliver(Input::Forget(CommandNumber(1)))).expect("room");
    settle(&actor).await;
    assert_eq!(*disk.seen.lock().expect("no panic"), [Seen::Wrote(1)]);
}

/// S-12: catches an acceptor that answers after its disk failed, retries, or does not say so.
#[actix::test]
async fn after_a_failed_write_it_is_deaf_and_says_so_once() {
    let disk = Arc::new(Disk::default());
    let actor = start(&disk);
    disk.broken.store(true, Ordering::SeqCst);
    actor.try_send(next_ballot()).expect("room");
    settle(&actor).await;
    disk.broken.store(false, Ordering::SeqCst);
    actor.try_send(next_ballot()).expect("room");
    settle(&actor).await;
    assert_eq!(*disk.seen.lock().expect("no panic"), [Seen::Failed]);
}

/// A6, A7, S-11: catches an answer that a power cut takes back: whatever was sent is known to
/// the acceptor that starts again from the disk.
#[actix::test]
async fn what_was_answered_survives_a_power_cut() {
    let log = Arc::new(MemoryLog::new());
    let sent = Arc::new(Mutex::new(Vec::new()));
    let out = Arc::clone(&sent);
    let ports = AcceptorPorts {
        send: Box::new(move |_, message| out.lock().expect("no panic").push(message)),
        proposed: Box::new(|_, _| ()),
        space: Box::new(|| Space::Ample),
        speaks: Box::new(|| ()),
        failed: Box::new(|error| panic!("{error}")),
        tracer: None,
    };
    let core = Acceptor::new(config(), LogImage::default(), CommandId::NULL);
    let actor = AcceptorActor::new(core, Arc::clone(&log) as Arc<dyn LogStore>, ports).start();
    for message in [next_ballot(), begin(1), begin(2)] {
        actor.try_send(message).expect("room");
    }
    settle(&actor).await;
    log.crash();

    let image = log.load(CommandNumber::NULL).expect("a good disk");
    let mut core = Acceptor::new(config(), image, CommandId::NULL);
    let mut effects = Vec::new();
    core.handle(begin(2).0, &mut effects);
    let last = sent.lock().expect("no panic").last().cloned().expect("an answer");
    assert_eq!(last.name(), "Voted");
    assert_eq!(effects.last(), Some(&Effect::Send { to: NodeId(1), message: last }));
}

/// DESIGN 13: catches a stream of inputs that puts off the answers to its beginning for ever.
#[actix::test]
async fn a_turn_ends_after_its_most_inputs() {
    let disk = Arc::new(Disk::default());
    let actor = start(&disk);
    for _ in 0..10 {
        // The mailbox holds 16 until the actor has started.
        actor.try_send(next_ballot()).expect("room");
    }
    settle(&actor).await;
    for _ in 0..TURN_INPUTS_MAX + 1 {
        actor.try_send(begin(1)).expect("room");
    }
    settle(&actor).await;
    let seen = disk.seen.lock().expect("no panic").clone();
    let first_answer = seen.iter().position(|seen| *seen == Seen::Sent("Voted")).expect("an answer");
    assert!(seen[first_answer..].contains(&Seen::Proposed(1)), "answers came only after every input");
}
