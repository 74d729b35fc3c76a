//! What a message looks like in a frame: protocol buffers.
//!
//! Rules for whoever changes this file:
//!
//! - A field number is never reused and never changes its type. A field that is no longer
//!   needed leaves its number behind in a comment.
//! - A new field must have a meaning when it is absent: nodes of the version before do not
//!   send it. A new kind of message, or a field that must not be ignored, needs a new
//!   [`crate::handshake::Versions`], unless it goes only to nodes that have shown that they know it
//!   (`FetchSnapshot` to who has said what it keeps, `Snapshot` and `Rejoined` to who has asked).
//! - Two things are against these rules, harmless before 0.1.0, and no example: `Rejoin` goes to
//!   leaders that have not shown that they know it, and field 7 of `Call` was a flag.
//! - `tests/golden/v1` holds recorded frames of version 1. They are never recorded anew.
//!
//! Decoding judges what the types of `protocol` promise: ballots and ids that some node could
//! have made, well-formed commands, request ids, lengths. What a message *means* at this
//! moment is for the cores to judge. No input makes it panic, and the memory it takes is a
//! small multiple of the frame's size ([`ITEMS_MAX`]). Bodies share the frame's bytes.
//!
//! The structs are private to the crate; `convert` is the only place that fills or reads them.

mod convert;
mod executed;
mod rejoin;
mod snapshot;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use protocol::message::{ToAcceptor, ToGateway, ToLeader, ToLearner};
use protocol::{Message, Position};

use executed::{Executed, Issued, Outcome, Overloaded, Refused, Stored, Unchanged};
use rejoin::{Rejoin, Rejoined};
use snapshot::{FetchSnapshot, Snapshot};

/// The most fields that a message may hold, repeated ones counted each: commands, votes, nodes.
/// It bounds what a peer can make us allocate with two bytes an item. A command takes some
/// twenty bytes without its body, and a run holds at most `window` of them.
pub const ITEMS_MAX: usize = 1 << 17;

/// Why bytes are not a message. The sender is broken, or of a version that the handshake
/// should have kept out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not the encoding.
    #[error("not readable: {0}")]
    Unreadable(String),
    /// A kind of message that this version does not know.
    #[error("a message of a kind that this version does not know")]
    UnknownKind,
    /// More items than any node of ours sends.
    #[error("more than {ITEMS_MAX} items in one message")]
    TooManyItems,
    /// A value that no node of ours sends.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

impl WireError {
    /// The label in metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::UnknownKind => "unknown_kind",
            Self::TooManyItems => "too_many_items",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// Appends the payload of a frame for `message`.
pub fn encode(message: &Message, buffer: &mut BytesMut) {
    let envelope = Envelope { kind: Some(Kind::from(message)) };
    envelope.encode(buffer).expect("a BytesMut grows as needed");
}

/// Reads the payload of a frame.
///
/// # Errors
/// [`WireError`] for anything but a message that a node of this version may send.
pub fn decode(payload: Bytes) -> Result<Message, WireError> {
    count_items(&payload)?;
    let envelope = Envelope::decode(payload).map_err(unreadable)?;
    envelope.kind.ok_or(WireError::UnknownKind)?.try_into()
}

/// About how many bytes a queued message holds: what bounds a queue. Never less than the bodies
/// in it.
#[must_use]
pub fn weight(message: &Message) -> usize {
    const COMMAND: usize = size_of::<protocol::Vote>();
    let commands =
        |commands: &[protocol::Command]| -> usize { commands.iter().map(|each| COMMAND + each.body.len()).sum() };
    let held = match message {
        Message::Acceptor(ToAcceptor::BeginBallot(begin)) => commands(&begin.commands),
        Message::Leader(ToLeader::BallotInfo(info)) => {
            info.votes.iter().map(|vote| COMMAND + vote.command.body.len()).sum()
        }
        Message::Leader(ToLeader::ExecuteFunction(call)) => call.function.len() + call.arguments.len(),
        Message::Learner(ToLearner::Success(success)) => commands(&success.commands),
        Message::Learner(ToLearner::Commands(answer)) => commands(&answer.commands),
        Message::Learner(ToLearner::Snapshot(snapshot)) => snapshot.piece.as_ref().map_or(0, |piece| {
            piece.bytes() + piece.records.len() * size_of::<protocol::SnapshotRecord>() + 2 * Position::BYTES_MAX
        }),
        Message::Learner(ToLearner::FetchSnapshot(fetch)) => fetch.from.0.len(),
        Message::FailureDetector(heartbeat) => {
            heartbeat.hears.len() * size_of::<protocol::NodeId>() + heartbeat.http.len()
        }
        Message::Gateway(ToGateway::Executed(executed)) => match &executed.outcome {
            protocol::Outcome::Issued { result, .. } | protocol::Outcome::Unchanged { result, .. } => result.len(),
            protocol::Outcome::Refused { code, message, .. } => code.len() + message.len(),
            protocol::Outcome::InvalidArguments { message }
            | protocol::Outcome::TooLarge { message }
            | protocol::Outcome::Failed { message } => message.len(),
            protocol::Outcome::UnknownFunction
            | protocol::Outcome::RequestReused
            | protocol::Outcome::Overloaded
            | protocol::Outcome::DiskFull
            | protocol::Outcome::NotLeader
            | protocol::Outcome::LeadershipLost => 0,
        },
        Message::Acceptor(ToAcceptor::NextBallot(_) | ToAcceptor::Rejoined(_))
        | Message::Leader(
            ToLeader::MyNextBal(_) | ToLeader::Voted(_) | ToLeader::Rejoin(_) | ToLeader::ReadBarrier(_),
        )
        | Message::Learner(ToLearner::Voted(_) | ToLearner::CatchUp(_))
        | Message::Gateway(ToGateway::BarrierPassed(_)) => 0,
    };
    size_of::<Message>() + held
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn unreadable(error: prost::DecodeError) -> WireError {
    WireError::Unreadable(error.to_string())
}

/// Refuses a payload with more than [`ITEMS_MAX`] items before anything is allocated for them.
/// Items are fields of the messages in the envelope; nothing below them is repeated.
fn count_items(mut payload: &[u8]) -> Result<(), WireError> {
    let mut items = 0;
    while !payload.is_empty() {
        let (tag, wire_type) = decode_key(&mut payload).map_err(unreadable)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut payload, DecodeContext::default()).map_err(unreadable)?;
            continue;
        }
        let length = decode_varint(&mut payload).map_err(unreadable)?;
        let split = usize::try_from(length).ok().and_then(|length| payload.split_at_checked(length));
        let (mut fields, rest) = split.ok_or_else(|| WireError::Unreadable("the payload is cut off".to_owned()))?;
        while !fields.is_empty() {
            items += 1;
            if items > ITEMS_MAX {
                return Err(WireError::TooManyItems);
            }
            let (tag, wire_type) = decode_key(&mut fields).map_err(unreadable)?;
            skip_field(wire_type, tag, &mut fields, DecodeContext::default()).map_err(unreadable)?;
        }
        payload = rest;
    }
    Ok(())
}

#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25, 30, 40, 41")]
    kind: Option<Kind>,
}

/// Numbers by the receiving role: 1 acceptor, 10 leader, 20 learner, 30 failure detector,
/// 40 gateway.
#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    NextBallot(NextBallot),
    #[prost(message, tag = "2")]
    BeginBallot(BeginBallot),
    #[prost(message, tag = "3")]
    Rejoined(Rejoined),
    #[prost(message, tag = "10")]
    BallotInfo(BallotInfo),
    #[prost(message, tag = "11")]
    MyNextBal(MyNextBal),
    #[prost(message, tag = "12")]
    VotedToLeader(Voted),
    #[prost(message, tag = "13")]
    ExecuteFunction(Call),
    #[prost(message, tag = "14")]
    ReadBarrier(ReadBarrier),
    #[prost(message, tag = "15")]
    Rejoin(Rejoin),
    #[prost(message, tag = "20")]
    Success(Success),
    #[prost(message, tag = "21")]
    VotedToLearner(Voted),
    #[prost(message, tag = "22")]
    CatchUp(CatchUp),
    #[prost(message, tag = "23")]
    Commands(Commands),
    #[prost(message, tag = "24")]
    FetchSnapshot(FetchSnapshot),
    #[prost(message, tag = "25")]
    Snapshot(Snapshot),
    #[prost(message, tag = "30")]
    Heartbeat(Heartbeat),
    #[prost(message, tag = "40")]
    Executed(Executed),
    #[prost(message, tag = "41")]
    BarrierPassed(BarrierPassed),
}

/// All zero: no ballot.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Ballot {
    #[prost(uint64, tag = "1")]
    round: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
}

/// All zero: the null command.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct CommandId {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    round: u64,
    #[prost(uint64, tag = "3")]
    node: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Command {
    #[prost(message, required, tag = "1")]
    id: CommandId,
    #[prost(message, required, tag = "2")]
    precedent: CommandId,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Vote {
    #[prost(message, required, tag = "1")]
    ballot: Ballot,
    #[prost(message, required, tag = "2")]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Run {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(message, required, tag = "2")]
    last: CommandId,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct NextBallot {
    #[prost(message, required, tag = "1")]
    ballot: Ballot,
    #[prost(uint64, tag = "2")]
    first: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BallotInfo {
    #[prost(message, required, tag = "1")]
    ballot: Ballot,
    #[prost(uint64, tag = "2")]
    first: u64,
    #[prost(message, required, tag = "3")]
    issued: CommandId,
    #[prost(message, repeated, tag = "4")]
    votes: Vec<Vote>,
    #[prost(uint32, tag = "5")]
    part: u32,
    #[prost(uint32, tag = "6")]
    parts: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct MyNextBal {
    #[prost(message, required, tag = "1")]
    ballot: Ballot,
    #[prost(message, required, tag = "2")]
    refused: Ballot,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BeginBallot {
    #[prost(message, required, tag = "1")]
    ballot: Ballot,
    #[prost(message, repeated, tag = "2")]
    commands: Vec<Command>,
    #[prost(uint64, tag = "3")]
    round: u64,
    #[prost(uint64, tag = "4")]
    membership: u64, // Absent: 0, the genesis.
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Voted {
    #[prost(message, required, tag = "1")]
    ballot: Ballot,
    #[prost(message, optional, tag = "2")]
    run: Option<Run>,
    #[prost(uint64, tag = "3")]
    round: u64,
    #[prost(uint64, tag = "4")]
    membership: u64, // Absent: 0, the genesis.
}

#[derive(Clone, PartialEq, prost::Message)]
struct Success {
    #[prost(message, required, tag = "1")]
    ballot: Ballot,
    #[prost(message, required, tag = "2")]
    issued: CommandId,
    #[prost(message, repeated, tag = "3")]
    commands: Vec<Command>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct CatchUp {
    #[prost(uint64, tag = "1")]
    first: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Commands {
    #[prost(message, repeated, tag = "1")]
    commands: Vec<Command>,
    #[prost(message, required, tag = "2")]
    issued: CommandId,
    /// 0 is absent, as in the frames of nodes that forget nothing.
    #[prost(uint64, tag = "3")]
    kept_from: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Heartbeat {
    /// A message each, not packed numbers, so that they count as items.
    #[prost(message, repeated, tag = "1")]
    hears: Vec<Node>,
    #[prost(bool, tag = "2")]
    can_lead: bool,
    #[prost(message, optional, tag = "3")]
    leads: Option<Ballot>,
    #[prost(message, optional, tag = "4")]
    follows: Option<Ballot>,
    #[prost(message, required, tag = "5")]
    ballot: Ballot,
    #[prost(uint64, tag = "6")]
    issued: u64,
    #[prost(uint64, tag = "7")]
    applied: u64,
    #[prost(uint64, tag = "8")]
    durable: u64,
    #[prost(bool, tag = "9")]
    answer: bool,
    /// Empty is absent, as in the frames of nodes that do not send it.
    #[prost(string, tag = "10")]
    http: String,
    #[prost(enumeration = "Space", tag = "11")]
    space: i32,
    #[prost(message, optional, tag = "12")]
    hands_over: Option<HandOver>,
    /// False in the frames of nodes that do not send it.
    #[prost(bool, tag = "13")]
    silent: bool,
    /// Absent in the frames of nodes that do not send it.
    #[prost(message, optional, tag = "14")]
    promise: Option<Ballot>,
    #[prost(uint64, tag = "15")]
    voted: u64,
    /// False in the frames of nodes that do not send it.
    #[prost(bool, tag = "16")]
    spare: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct HandOver {
    #[prost(uint64, tag = "1")]
    to: u64,
    #[prost(uint64, tag = "2")]
    last: u64,
}

/// Another one, of a later version, has even less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
enum Space {
    Ample = 0,
    Low = 1,
    Out = 2,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Node {
    #[prost(uint64, tag = "1")]
    id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Call {
    /// `RequestId::to_bytes`.
    #[prost(bytes = "bytes", tag = "1")]
    request: Bytes,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    fingerprint: Bytes,
    #[prost(string, tag = "3")]
    function: String,
    #[prost(bytes = "bytes", tag = "4")]
    arguments: Bytes,
    #[prost(uint64, tag = "5")]
    patience_seconds: u64,
    /// Below 10^9.
    #[prost(uint32, tag = "6")]
    patience_nanos: u32,
    #[prost(uint32, tag = "7")]
    copy: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ReadBarrier {
    #[prost(uint64, tag = "1")]
    id: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BarrierPassed {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, optional, tag = "2")]
    at: Option<u64>,
}

#[cfg(test)]
mod tests;
