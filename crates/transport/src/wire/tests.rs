use std::time::Duration;

use bytes::BufMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use protocol::message::{
    BallotInfo, BarrierPassed, BeginBallot, CatchUp, Commands, Executed, FetchSnapshot, HandOver, Heartbeat, MyNextBal,
    NextBallot, ReadBarrier, Rejoin, Rejoined, Snapshot, Stored, Success, Voted,
};
use protocol::{
    Ballot, Call, Command, CommandId, CommandNumber, Entry, Fingerprint, Key, NodeId, Outcome, RequestId, Run,
    SnapshotId, SnapshotPiece, SnapshotRecord, StoredOutcome, Timestamp, Verdict, Vote,
};

use super::*;

fn encoded(message: &Message) -> Bytes {
    let mut buffer = BytesMut::new();
    encode(message, &mut buffer);
    buffer.freeze()
}

// The strategies are boxed because their types nest: unboxed, unoptimised code needs more stack
// for them than a test thread has.

/// Numbers of all sizes, the ends of the range above all (S-27).
fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![Just(1), Just(u64::MAX), Just(u64::MAX - 1), 1..1000u64, 1..=u64::MAX]
}

fn any_number() -> impl Strategy<Value = CommandNumber> {
    prop_oneof![Just(0), number()].prop_map(CommandNumber)
}

fn real_ballot() -> BoxedStrategy<Ballot> {
    (number(), number()).prop_map(|(round, node)| Ballot::new(round, NodeId(node))).boxed()
}

fn ballot() -> BoxedStrategy<Ballot> {
    prop_oneof![Just(Ballot::NONE), real_ballot()].boxed()
}

fn command_id() -> BoxedStrategy<CommandId> {
    let real = (real_ballot(), number()).prop_map(|(ballot, number)| CommandId::new(ballot, CommandNumber(number)));
    prop_oneof![Just(CommandId::NULL), real].boxed()
}

fn body() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn command() -> BoxedStrategy<Command> {
    (number(), real_ballot(), real_ballot(), body())
        .prop_map(|(number, one, other, body)| {
            // The last number has no command: it would have no successor.
            let number = number.min(u64::MAX - 1);
            let id = CommandId::new(one.max(other), CommandNumber(number));
            let precedent = match number {
                1 => CommandId::NULL,
                number => CommandId::new(one.min(other), CommandNumber(number - 1)),
            };
            Command { id, precedent, body }
        })
        .boxed()
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    vec(command(), 0..4)
}

fn vote() -> BoxedStrategy<Vote> {
    (command(), real_ballot())
        .prop_map(|(command, ballot)| Vote { ballot: ballot.max(command.id.ballot), command })
        .boxed()
}

fn run() -> BoxedStrategy<Run> {
    (number(), number(), real_ballot())
        .prop_map(|(one, other, ballot)| Run {
            first: CommandNumber(one.min(other)),
            last: CommandId::new(ballot, CommandNumber(one.max(other))),
        })
        .boxed()
}

fn voted() -> BoxedStrategy<Voted> {
    (ballot(), option::of(run()), any::<u64>(), any_number())
        .prop_map(|(ballot, run, round, membership)| Voted { ballot, run, round, membership })
        .boxed()
}

fn request() -> BoxedStrategy<RequestId> {
    let caller = "[!-~]{1,128}".prop_map(RequestId::Caller);
    prop_oneof![caller, any::<u128>().prop_map(RequestId::Gateway)].boxed()
}

fn call() -> BoxedStrategy<Call> {
    let patience = prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        any::<u32>().prop_map(|nanos| Duration::new(3, nanos / 5))
    ];
    (request(), any::<[u8; 16]>(), ".{0,20}", body(), patience, any::<u32>())
        .prop_map(|(request, fingerprint, function, arguments, patience, copy)| Call {
            request,
            fingerprint: Fingerprint(fingerprint),
            function,
            arguments,
            patience,
            copy,
        })
        .boxed()
}

fn stored() -> BoxedStrategy<Stored> {
    prop_oneof![Just(Stored::No), Just(Stored::Now), Just(Stored::Before), Just(Stored::Plain)].boxed()
}

fn outcome() -> BoxedStrategy<Outcome> {
    let message = || ".{0,20}";
    prop_oneof![
        (any_number(), body()).prop_map(|(command, result)| Outcome::Issued { command, result }),
        (any_number(), body()).prop_map(|(at, result)| Outcome::Unchanged { at, result }),
        (any_number(), message(), message()).prop_map(|(at, code, message)| Outcome::Refused { at, code, message }),
        message().prop_map(|message| Outcome::InvalidArguments { message }),
        message().prop_map(|message| Outcome::TooLarge { message }),
        message().prop_map(|message| Outcome::Failed { message }),
        Just(Outcome::UnknownFunction),
        Just(Outcome::RequestReused),
        Just(Outcome::Overloaded),
        Just(Outcome::DiskFull),
        Just(Outcome::NotLeader),
        Just(Outcome::LeadershipLost),
    ]
    .boxed()
}

fn heartbeat() -> BoxedStrategy<Heartbeat> {
    let ballots = (option::of(ballot()), option::of(ballot()), ballot());
    let numbers = (any_number(), any_number(), any_number());
    let position = (ballot(), any_number());
    (
        vec(any::<u64>().prop_map(NodeId), 0..4),
        any::<bool>(),
        ballots,
        numbers,
        (any::<bool>(), "[a-z:]{0,300}", 0..3_usize, option::of((any::<u64>(), any_number()))),
        (any::<bool>(), any::<bool>(), position),
    )
        .prop_map(|(hears, can_lead, (leads, follows, ballot), (issued, applied, durable), rest, acceptor)| {
            let (answer, http, space, over) = rest;
            let (silent, spare, (promise, voted)) = acceptor;
            Heartbeat {
                hears,
                can_lead,
                leads,
                follows,
                ballot,
                issued,
                applied,
                durable,
                answer,
                http,
                space: protocol::Space::ALL[space],
                silent,
                hands_over: over.map(|(to, last)| HandOver { to: NodeId(to), last }),
                promise,
                voted,
                spare,
            }
        })
        .boxed()
}

fn to_leader() -> BoxedStrategy<ToLeader> {
    let info = (ballot(), any_number(), command_id(), vec(vote(), 0..4), 1..=u32::MAX).prop_map(
        |(ballot, first, issued, votes, parts)| BallotInfo { ballot, first, issued, votes, part: parts - 1, parts },
    );
    prop_oneof![
        info.prop_map(ToLeader::BallotInfo),
        (ballot(), ballot()).prop_map(|(ballot, refused)| ToLeader::MyNextBal(MyNextBal { ballot, refused })),
        voted().prop_map(ToLeader::Voted),
        (ballot(), any::<u64>()).prop_map(|(ballot, nonce)| ToLeader::Rejoin(Rejoin { ballot, nonce })),
        call().prop_map(ToLeader::ExecuteFunction),
        any::<u64>().prop_map(|id| ToLeader::ReadBarrier(ReadBarrier { id })),
    ]
    .boxed()
}

fn position() -> impl Strategy<Value = Position> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| Position(bytes.into()))
}

fn snapshot_id() -> BoxedStrategy<SnapshotId> {
    (command_id(), any::<[u8; 32]>()).prop_map(|(at, digest)| SnapshotId { at, digest }).boxed()
}

fn record() -> BoxedStrategy<SnapshotRecord> {
    let refused = (".{0,20}", ".{0,20}").prop_map(|(code, message)| Verdict::Refused { code, message });
    let verdict = prop_oneof![body().prop_map(Verdict::Changed), body().prop_map(Verdict::Unchanged), refused];
    prop_oneof![
        (".{1,20}", body(), any_number()).prop_map(|(key, value, version)| SnapshotRecord::Entry {
            key: Key::new(key).expect("a short key"),
            entry: Entry { value, version },
        }),
        (request(), any_number(), any::<[u8; 16]>(), verdict, any::<u64>()).prop_map(
            |(request, command, fingerprint, verdict, time)| SnapshotRecord::Outcome {
                request,
                outcome: StoredOutcome {
                    command,
                    fingerprint: Fingerprint(fingerprint),
                    verdict,
                    time: Timestamp(time),
                },
            }
        ),
    ]
    .boxed()
}

fn snapshot() -> BoxedStrategy<Snapshot> {
    let piece = (position(), vec(record(), 0..4), option::of(position()))
        .prop_map(|(from, records, next)| SnapshotPiece { from, records, next });
    (snapshot_id(), any::<u64>(), option::of(piece))
        .prop_map(|(id, records, piece)| Snapshot { id, records, piece })
        .boxed()
}

fn message() -> BoxedStrategy<Message> {
    let to_acceptor = prop_oneof![
        (ballot(), any_number()).prop_map(|(ballot, first)| ToAcceptor::NextBallot(NextBallot { ballot, first })),
        (ballot(), commands(), any::<u64>(), any_number()).prop_map(|(ballot, commands, round, membership)| {
            ToAcceptor::BeginBallot(BeginBallot { ballot, commands, round, membership })
        }),
        (ballot(), any::<u64>(), any_number(), any_number()).prop_map(|(ballot, nonce, last, membership)| {
            ToAcceptor::Rejoined(Rejoined { ballot, nonce, last, membership })
        }),
    ];
    let to_learner = prop_oneof![
        (ballot(), command_id(), commands()).prop_map(|(ballot, issued, commands)| ToLearner::Success(Success {
            ballot,
            issued,
            commands
        })),
        voted().prop_map(ToLearner::Voted),
        any_number().prop_map(|first| ToLearner::CatchUp(CatchUp { first })),
        (commands(), command_id(), any_number())
            .prop_map(|(commands, issued, kept_from)| ToLearner::Commands(Commands { commands, issued, kept_from })),
        (option::of(snapshot_id()), position())
            .prop_map(|(id, from)| ToLearner::FetchSnapshot(FetchSnapshot { id, from })),
        snapshot().prop_map(ToLearner::Snapshot),
    ];
    let to_gateway = prop_oneof![
        (request(), any::<Option<u32>>(), any::<[u8; 16]>(), outcome(), stored()).prop_map(|executed| {
            let (request, copy, fingerprint, outcome, stored) = executed;
            let fingerprint = Fingerprint(fingerprint);
            let issued = matches!(outcome, Outcome::Issued { .. });
            let stored = if issued && stored != Stored::Before { Stored::Now } else { stored };
            ToGateway::Executed(Executed { request, copy, fingerprint, outcome, stored })
        }),
        (any::<u64>(), option::of(any_number()))
            .prop_map(|(id, at)| ToGateway::BarrierPassed(BarrierPassed { id, at })),
    ];
    prop_oneof![
        to_acceptor.prop_map(Message::Acceptor),
        to_leader().prop_map(Message::Leader),
        to_learner.prop_map(Message::Learner),
        heartbeat().prop_map(Message::FailureDetector),
        to_gateway.prop_map(Message::Gateway),
    ]
    .boxed()
}

proptest! {
    /// S-27: catches a field that is lost, swapped or cut on its way, near the ends of the
    /// ranges too, and a queue that counts less than the encoding holds.
    #[test]
    fn every_message_survives_its_frame(message in message()) {
        let payload = encoded(&message);
        // A numeric field takes at most eleven bytes; a message has a dozen of its own.
        prop_assert!(weight(&message) + 11 * 16 >= payload.len());
        prop_assert_eq!(decode(payload), Ok(message));
    }

    /// RELIABILITY 6, row 13: catches a panic on bytes from anybody.
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(bytes.into());
    }

    /// RELIABILITY 6, row 13: catches a panic on bytes that are nearly right, where random ones
    /// would be refused at once; and a message that changes when it is encoded again.
    #[test]
    fn damaged_messages_never_panic(message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut payload = BytesMut::from(&encoded(&message)[..]);
        let index = at.index(payload.len());
        payload[index] = byte;
        payload.truncate(cut.index(payload.len() + 1));
        if let Ok(read) = decode(payload.freeze()) {
            prop_assert_eq!(decode(encoded(&read)), Ok(read));
        }
    }
}

/// Catches a copy of each body on the way in: at full load that is most of what the node does.
#[test]
fn bodies_share_the_memory_of_the_frame() {
    let ballot = Ballot::new(1, NodeId(1));
    let id = CommandId::new(ballot, CommandNumber(1));
    let command = Command { id, precedent: CommandId::NULL, body: Bytes::from(vec![5; 100]) };
    let begin = BeginBallot { ballot, commands: vec![command], round: 1, membership: CommandNumber(9) };
    let payload = encoded(&Message::Acceptor(ToAcceptor::BeginBallot(begin)));
    let frame = payload.as_ptr_range();
    let Ok(Message::Acceptor(ToAcceptor::BeginBallot(read))) = decode(payload) else { panic!("it is readable") };
    assert!(frame.contains(&read.commands[0].body.as_ptr()));
}

/// Catches values that no node of ours sends and that a core would have to trust: each line is
/// the payload of a message that is right but for one thing.
#[test]
fn values_that_no_node_sends_are_refused() {
    let good = super::Ballot { round: 2, node: 1 };
    let id = |number, round, node| super::CommandId { number, round, node };
    let begin = |id, precedent| {
        let commands = vec![super::Command { id, precedent, body: Bytes::new() }];
        Kind::BeginBallot(super::BeginBallot { ballot: good, commands, round: 1, membership: 0 })
    };
    let voted = |first, last| {
        let run = Some(super::Run { first, last });
        Kind::VotedToLeader(super::Voted { ballot: good, run, ..Default::default() })
    };
    let vote = |round| {
        let command = super::Command { id: id(1, 3, 1), precedent: id(0, 0, 0), body: Bytes::new() };
        let votes = vec![super::Vote { ballot: super::Ballot { round, node: 1 }, command }];
        Kind::BallotInfo(super::BallotInfo { ballot: good, votes, part: 0, parts: 1, ..Default::default() })
    };
    let call = |request: &'static [u8], fingerprint: usize, patience_nanos| {
        Kind::ExecuteFunction(super::Call {
            request: Bytes::from_static(request),
            fingerprint: Bytes::from(vec![0; fingerprint]),
            patience_nanos,
            ..Default::default()
        })
    };
    let says_http = |bytes: usize| {
        Kind::Heartbeat(super::Heartbeat { ballot: good, http: "h".repeat(bytes), ..Default::default() })
    };
    let fetch = |digest: usize, from: usize| {
        let id = super::snapshot::SnapshotId { at: id(1, 1, 1), digest: Bytes::from(vec![0; digest]) };
        Kind::FetchSnapshot(super::FetchSnapshot { id: Some(id), from: Bytes::from(vec![0; from]) })
    };
    let right = [
        begin(id(2, 2, 1), id(1, 2, 1)),
        voted(1, id(1, 1, 1)),
        vote(3),
        call(b"ck", 16, 999_999_999),
        says_http(300),
        fetch(32, Position::BYTES_MAX),
    ];
    let wrong = [
        Kind::NextBallot(super::NextBallot { ballot: super::Ballot { round: 1, node: 0 }, first: 1 }),
        Kind::NextBallot(super::NextBallot { ballot: super::Ballot { round: 0, node: 1 }, first: 1 }),
        Kind::Commands(super::Commands { commands: vec![], issued: id(0, 1, 1), kept_from: 1 }),
        Kind::Commands(super::Commands { commands: vec![], issued: id(1, 0, 0), kept_from: 1 }),
        begin(id(0, 0, 0), id(0, 0, 0)),
        begin(id(3, 2, 1), id(1, 2, 1)),
        begin(id(2, 2, 1), id(1, 3, 1)),
        voted(0, id(1, 1, 1)),
        voted(2, id(1, 1, 1)),
        vote(2),
        call(b"", 16, 0),
        call(b"c k", 16, 0),
        call(b"ck", 15, 0),
        call(b"ck", 16, 1_000_000_000),
        Kind::BallotInfo(super::BallotInfo::default()),
        Kind::Executed(super::Executed { request: Bytes::from_static(b"ck"), ..super::Executed::default() }),
        says_http(301),
        fetch(31, 0),
        fetch(32, Position::BYTES_MAX + 1),
    ];
    let read = |kind: Kind| decode(Envelope { kind: Some(kind) }.encode_to_vec().into());
    for kind in right {
        assert!(read(kind.clone()).is_ok(), "{kind:?}");
    }
    for kind in wrong {
        assert!(matches!(read(kind.clone()), Err(WireError::Invalid(_))), "{kind:?}");
    }
}

/// Catches records of a snapshot that no node of ours sends: without a place, of no kind, with a key that is none.
#[test]
fn records_that_no_node_sends_are_refused() {
    use super::snapshot::{KeyAndEntry, Kind as RecordKind, Record, RequestAndOutcome, SnapshotId, StoredVerdict};
    let id =
        || SnapshotId { at: super::CommandId { number: 1, round: 1, node: 1 }, digest: Bytes::from_static(&[0; 32]) };
    let read = |from: Option<Bytes>, kind: Option<RecordKind>| {
        let snapshot =
            super::Snapshot { id: id(), records_of_all: 1, from, records: vec![Record { kind }], next: None };
        decode(Envelope { kind: Some(Kind::Snapshot(snapshot)) }.encode_to_vec().into())
    };
    let entry = |key: &str| Some(RecordKind::Entry(KeyAndEntry { key: key.into(), ..Default::default() }));
    let outcome = |request: &'static [u8], fingerprint: usize, verdict: Option<StoredVerdict>| {
        let (request, fingerprint) = (Bytes::from_static(request), Bytes::from(vec![0; fingerprint]));
        Some(RecordKind::Outcome(RequestAndOutcome { request, fingerprint, verdict, ..Default::default() }))
    };
    let changed = || Some(StoredVerdict::Changed(Bytes::new()));
    for right in [entry("k"), outcome(b"ck", 16, changed())] {
        assert!(read(Some(Bytes::new()), right.clone()).is_ok(), "{right:?}");
        assert!(matches!(read(None, right), Err(WireError::Invalid(_))), "records without a place");
    }
    for wrong in [
        None,
        entry(""),
        entry(&"k".repeat(1025)),
        outcome(b"", 16, changed()),
        outcome(b"ck", 15, changed()),
        outcome(b"ck", 16, None),
    ] {
        assert!(matches!(read(Some(Bytes::new()), wrong.clone()), Err(WireError::Invalid(_))), "{wrong:?}");
    }
}

/// Catches a newer kind of message that is taken for an empty one of a kind known here.
#[test]
fn a_kind_of_a_newer_version_is_refused() {
    assert_eq!(decode(Bytes::new()), Err(WireError::UnknownKind));
    // Field 99, length-delimited, empty.
    assert_eq!(decode(Bytes::from_static(&[0x9a, 0x06, 0x00])), Err(WireError::UnknownKind));
}

/// RELIABILITY 6, row 13: catches a stack overflow by groups within groups.
#[test]
fn deep_nesting_is_refused() {
    let groups = vec![0x0b; 1 << 20];
    assert!(matches!(decode(groups.clone().into()), Err(WireError::Unreadable(_))));
    let mut payload = BytesMut::new();
    prost::encoding::encode_key(2, WireType::LengthDelimited, &mut payload);
    prost::encoding::encode_varint(groups.len() as u64, &mut payload);
    payload.extend_from_slice(&groups);
    assert!(matches!(decode(payload.freeze()), Err(WireError::Unreadable(_))));
}

/// RELIABILITY 6, row 13: catches a peer that makes us allocate many times the frame's size:
/// two bytes in the frame for each command in memory.
#[test]
fn the_items_of_a_message_are_counted_before_they_are_allocated() {
    let run_of = |items: usize| {
        let mut payload = BytesMut::new();
        prost::encoding::encode_key(2, WireType::LengthDelimited, &mut payload);
        prost::encoding::encode_varint(2 * items as u64, &mut payload);
        (0..items).for_each(|_| payload.put_slice(&[0x12, 0x00]));
        decode(payload.freeze())
    };
    assert_eq!(run_of(ITEMS_MAX + 1), Err(WireError::TooManyItems));
    assert!(matches!(run_of(ITEMS_MAX), Err(WireError::Invalid(_))), "empty commands, judged one by one");
}
