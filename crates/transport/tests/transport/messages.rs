//! One message of each kind, with every field filled.

use std::time::Duration;

use bytes::Bytes;
use protocol::message::{
    BallotInfo, BarrierPassed, BeginBallot, CatchUp, Commands, Executed, FetchSnapshot, HandOver, Heartbeat, MyNextBal,
    NextBallot, ReadBarrier, Rejoin, Rejoined, Snapshot, Stored, Success, ToAcceptor, ToGateway, ToLeader, ToLearner,
    Voted,
};
use protocol::{
    Ballot, Call, Command, CommandId, CommandNumber, Entry, Fingerprint, Key, Message, NodeId, Outcome, Position,
    RequestId, Run, SnapshotId, SnapshotPiece, SnapshotRecord, Space, StoredOutcome, Timestamp, Verdict, Vote,
};

const BALLOT: Ballot = Ballot::new(7, NodeId(2));

fn command(number: u64) -> Command {
    let id = |number| CommandId::new(Ballot::new(5, NodeId(3)), CommandNumber(number));
    Command { id: id(number), precedent: id(number - 1), body: Bytes::from(format!("body {number}")) }
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    let (at, result) = (CommandNumber(12), Bytes::from_static(b"{\"stock\":5}"));
    let message = "a sentence".to_owned();
    vec![
        ("issued", Outcome::Issued { command: at, result: result.clone() }),
        ("unchanged", Outcome::Unchanged { at, result }),
        ("refused", Outcome::Refused { at, code: "insufficient_stock".into(), message: message.clone() }),
        ("invalid_arguments", Outcome::InvalidArguments { message: message.clone() }),
        ("unknown_function", Outcome::UnknownFunction),
        ("request_reused", Outcome::RequestReused),
        ("too_large", Outcome::TooLarge { message: message.clone() }),
        ("failed", Outcome::Failed { message }),
        ("overloaded", Outcome::Overloaded),
        ("disk_full", Outcome::DiskFull),
        ("not_leader", Outcome::NotLeader),
        ("leadership_lost", Outcome::LeadershipLost),
    ]
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        hears: vec![NodeId(1), NodeId(3)],
        can_lead: true,
        leads: Some(BALLOT),
        follows: Some(Ballot::new(6, NodeId(1))),
        ballot: Ballot::new(8, NodeId(3)),
        issued: CommandNumber(300),
        applied: CommandNumber(299),
        durable: CommandNumber(200),
        answer: true,
        // The recorded frame is from before it was there: empty must stay absent.
        http: String::new(),
        space: Space::Ample,
        silent: false,
        // As with `http`, and what follows.
        hands_over: None,
        promise: Ballot::NONE,
        voted: CommandNumber::NULL,
        spare: false,
    }
}

/// Calls and outcomes as they are since answers are recorded (ADR 0017): the frames of before,
/// of [`all`], have none of these fields.
fn recorded() -> Vec<(String, Message)> {
    let request = || RequestId::caller("order-17").expect("a valid key");
    let fingerprint = Fingerprint(*b"0123456789abcdef");
    let call = Call {
        request: request(),
        fingerprint,
        function: "inventory.outbound".into(),
        arguments: Bytes::from_static(b"{\"quantity\":3}"),
        patience: Duration::from_millis(1_500),
        copy: 1,
    };
    let mut all = vec![("execute_function_recorded".to_owned(), Message::Leader(ToLeader::ExecuteFunction(call)))];
    let stored = [("now", Stored::Now), ("before", Stored::Before)];
    for (name, outcome) in outcomes().into_iter().filter(|(name, _)| ["issued", "unchanged", "refused"].contains(name))
    {
        all.extend(stored.map(|(when, stored)| {
            let (request, outcome) = (request(), outcome.clone());
            let executed = Executed { request, copy: None, fingerprint, outcome, stored };
            (format!("executed_{name}_stored_{when}"), Message::Gateway(ToGateway::Executed(executed)))
        }));
    }
    all
}

/// Whole states, since commands may be forgotten: the frame of `Commands` of before, of [`all`], has no `kept_from`.
fn snapshots() -> Vec<(String, Message)> {
    let id = SnapshotId { at: command(10).id, digest: *b"0123456789abcdef0123456789abcdef" };
    let from = || Position(Bytes::from_static(b"\x01some-key"));
    let outcome = |request, verdict| SnapshotRecord::Outcome {
        request,
        outcome: StoredOutcome {
            command: CommandNumber(9),
            fingerprint: Fingerprint(*b"0123456789abcdef"),
            verdict,
            time: Timestamp(1_700_000_000_000),
        },
    };
    let result = Bytes::from_static(b"{}");
    let refused = Verdict::Refused { code: "insufficient_stock".into(), message: "a sentence".into() };
    let records = vec![
        SnapshotRecord::Entry {
            key: Key::new("some-key").expect("a short key"),
            entry: Entry { value: Bytes::from_static(b"400"), version: CommandNumber(8) },
        },
        outcome(RequestId::caller("order-17").expect("a valid key"), Verdict::Changed(result.clone())),
        outcome(RequestId::caller("order-18").expect("a valid key"), refused),
        outcome(RequestId::Gateway(0xfeed), Verdict::Unchanged(result)),
    ];
    let piece = SnapshotPiece { from: from(), records, next: Some(Position(Bytes::from_static(b"\x02gx"))) };
    let commands = Commands { commands: vec![], issued: command(12).id, kept_from: CommandNumber(11) };
    [
        ("commands_forgotten", ToLearner::Commands(commands)),
        ("fetch_snapshot_any", ToLearner::FetchSnapshot(FetchSnapshot { id: None, from: Position::default() })),
        ("fetch_snapshot", ToLearner::FetchSnapshot(FetchSnapshot { id: Some(id), from: from() })),
        (
            "snapshot_of_nothing",
            ToLearner::Snapshot(Snapshot { id, records: 0, piece: Some(SnapshotPiece::default()) }),
        ),
        ("snapshot", ToLearner::Snapshot(Snapshot { id, records: 1_000, piece: Some(piece) })),
        ("snapshot_gone", ToLearner::Snapshot(Snapshot { id, records: 0, piece: None })),
    ]
    .map(|(name, message)| (name.to_owned(), Message::Learner(message)))
    .into()
}

/// File name and message. `Voted` is there for both roles that take it, `Executed` for each
/// outcome.
pub(crate) fn all() -> Vec<(String, Message)> {
    let run = Run { first: CommandNumber(11), last: command(12).id };
    let voted = Voted { ballot: BALLOT, run: Some(run), round: 9, membership: CommandNumber::NULL };
    let votes = vec![Vote { ballot: BALLOT, command: command(11) }, Vote { ballot: BALLOT, command: command(12) }];
    let issued = command(10).id;
    let commands = vec![command(11), command(12)];
    let call = Call {
        request: RequestId::caller("order-17").expect("a valid key"),
        fingerprint: Fingerprint(*b"0123456789abcdef"),
        function: "inventory.outbound".into(),
        arguments: Bytes::from_static(b"{\"quantity\":3}"),
        patience: Duration::from_millis(1_500),
        copy: 0,
    };
    let acceptor = |message| Message::Acceptor(message);
    let leader = |message| Message::Leader(message);
    let learner = |message| Message::Learner(message);
    let gateway = |message| Message::Gateway(message);
    let info = BallotInfo { ballot: BALLOT, first: CommandNumber(9), issued, votes, part: 1, parts: 3 };
    let success = Success { ballot: BALLOT, issued: command(12).id, commands: commands.clone() };
    let begin = BeginBallot { ballot: BALLOT, commands: commands.clone(), round: 4, membership: CommandNumber::NULL };
    let begun = BeginBallot { membership: CommandNumber(10), ..begin.clone() };
    let (nonce, last, membership) = (0xfeed, CommandNumber(12), CommandNumber::NULL);
    let over = HandOver { to: NodeId(2), last: CommandNumber(300) };
    let rejoined = Rejoined { ballot: BALLOT, nonce, last, membership };
    let rejoined_later = Rejoined { membership: CommandNumber(10), ..rejoined.clone() };
    let passed = BarrierPassed { id: 77, at: Some(CommandNumber(12)) };
    let mut all = vec![
        ("next_ballot", acceptor(ToAcceptor::NextBallot(NextBallot { ballot: BALLOT, first: CommandNumber(11) }))),
        ("begin_ballot", acceptor(ToAcceptor::BeginBallot(begin))),
        ("begin_ballot_membership", acceptor(ToAcceptor::BeginBallot(begun))),
        ("ballot_info", leader(ToLeader::BallotInfo(info))),
        ("my_next_bal", leader(ToLeader::MyNextBal(MyNextBal { ballot: BALLOT, refused: Ballot::new(3, NodeId(1)) }))),
        ("rejoin", leader(ToLeader::Rejoin(Rejoin { ballot: BALLOT, nonce: 0xfeed }))),
        ("rejoined", acceptor(ToAcceptor::Rejoined(rejoined))),
        ("rejoined_membership", acceptor(ToAcceptor::Rejoined(rejoined_later))),
        ("voted_to_leader", leader(ToLeader::Voted(voted.clone()))),
        ("voted_membership", leader(ToLeader::Voted(Voted { membership: CommandNumber(10), ..voted.clone() }))),
        ("execute_function", leader(ToLeader::ExecuteFunction(call))),
        ("read_barrier", leader(ToLeader::ReadBarrier(ReadBarrier { id: 77 }))),
        ("success", learner(ToLearner::Success(success))),
        ("voted_to_learner", learner(ToLearner::Voted(voted))),
        ("catch_up", learner(ToLearner::CatchUp(CatchUp { first: CommandNumber(11) }))),
        ("commands", learner(ToLearner::Commands(Commands { commands, issued, kept_from: CommandNumber::NULL }))),
        ("heartbeat", Message::FailureDetector(heartbeat())),
        ("heartbeat_space", Message::FailureDetector(Heartbeat { space: Space::Low, ..heartbeat() })),
        ("heartbeat_hands_over", Message::FailureDetector(Heartbeat { hands_over: Some(over), ..heartbeat() })),
        (
            "heartbeat_position",
            Message::FailureDetector(Heartbeat { promise: BALLOT, voted: CommandNumber(12), ..heartbeat() }),
        ),
        ("heartbeat_spare", Message::FailureDetector(Heartbeat { spare: true, ..heartbeat() })),
        ("barrier_passed", gateway(ToGateway::BarrierPassed(passed))),
    ]
    .into_iter()
    .map(|(name, message)| (name.to_owned(), message))
    .collect::<Vec<_>>();
    all.extend(outcomes().into_iter().map(|(name, outcome)| {
        let stored = if name == "issued" { Stored::Before } else { Stored::No };
        let (request, fingerprint) = (RequestId::Gateway(0xfeed), Fingerprint::default());
        let executed = Executed { request, copy: None, fingerprint, outcome, stored };
        (format!("executed_{name}"), gateway(ToGateway::Executed(executed)))
    }));
    all.extend(recorded());
    all.extend([0, 3].map(|copy| {
        let (request, fingerprint) = (RequestId::Gateway(0xfeed), Fingerprint(*b"0123456789abcdef"));
        let (copy, outcome, name) = (Some(copy), Outcome::NotLeader, format!("executed_not_leader_copy_{copy}"));
        (name, gateway(ToGateway::Executed(Executed { request, copy, fingerprint, outcome, stored: Stored::No })))
    }));
    all.extend(snapshots());
    all
}

/// A message of the protocol lane that can be told from others.
pub(crate) fn numbered(id: u64) -> Message {
    Message::Leader(ToLeader::ReadBarrier(ReadBarrier { id }))
}
