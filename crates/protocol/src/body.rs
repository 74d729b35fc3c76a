//! What a command holds, and its one encoding.
//!
//! The body is encoded once, when the leader first proposes the command, and travels and is
//! stored as these very bytes. The encoding is protocol buffers (fields can be added, numbers
//! are never reused); a kind that a node does not know stops that node instead of being
//! skipped (S-25), because replicas that skip different commands diverge.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::call::{Fingerprint, RequestId, Verdict};
use crate::state::Key;
use crate::time::Timestamp;

/// An instruction with concrete values; applying it is deterministic (A1l).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Set the value of a key.
    Put {
        /// The key.
        key: Key,
        /// The value, at most 1 MiB.
        value: Bytes,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Effect {
    /// The key that this effect writes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Up to which command times replicas forget stored outcomes when they apply the command. The
/// leader decides it, so that all replicas forget the same ones at the same number (S-23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Forget {
    /// Outcomes of calls with an idempotency key of the caller's.
    pub callers: Timestamp,
    /// Outcomes of calls that a gateway named; those only bridge a change of leader.
    pub gateways: Timestamp,
}

/// The most fields that a body may hold, each effect counted as one: many times what functions may
/// decide. A body comes from a peer before anybody has looked into it, and an effect takes two
/// bytes of it and thirty times that in memory.
const FIELDS_MAX: usize = 1 << 16;

/// The content of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommandBody {
    /// The leader's time at execution; never below that of the precedent.
    pub time: Timestamp,
    /// Which request this command carries out.
    pub request: RequestId,
    /// What the request asked, in short: the same id with another fingerprint is refused.
    pub fingerprint: Fingerprint,
    /// The function that decided it.
    pub function: String,
    /// What the function decided.
    pub verdict: Verdict,
    /// The changes, in order: at least one with [`Verdict::Changed`], none with any other.
    pub effects: Vec<Effect>,
    /// Which stored outcomes to forget.
    pub forget: Forget,
}

/// Why bytes are not a command body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not the encoding.
    #[error("the body of the command is not readable: {0}")]
    Unreadable(String),
    /// A kind of command of a newer version.
    #[error("the command is of a kind that this version does not know; run the version that wrote it, or a newer one")]
    UnknownKind,
}

impl CommandBody {
    /// The bytes that are proposed, voted for and stored.
    ///
    /// # Panics
    /// When the effects are not those of the verdict: our own broken command.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let changes = matches!(self.verdict, Verdict::Changed(_));
        assert_eq!(changes, !self.effects.is_empty(), "only a verdict of change has effects");
        let effects = self
            .effects
            .iter()
            .map(|effect| match effect {
                Effect::Put { key, value } => wire::Effect { key: key.as_str().to_owned(), put: Some(value.clone()) },
                Effect::Delete { key } => wire::Effect { key: key.as_str().to_owned(), put: None },
            })
            .collect();
        let (result, refusal) = match &self.verdict {
            Verdict::Changed(result) | Verdict::Unchanged(result) => (result.clone(), None),
            Verdict::Refused { code, message } => {
                (Bytes::new(), Some(wire::Refusal { code: code.clone(), message: message.clone() }))
            }
        };
        let state = Some(wire::State {
            time: self.time.0,
            request: self.request.to_bytes(),
            fingerprint: Bytes::copy_from_slice(&self.fingerprint.0),
            function: self.function.clone(),
            result,
            effects,
            forget_callers: self.forget.callers.0,
            forget_gateways: self.forget.gateways.0,
        });
        let body = if changes {
            wire::Body { state, answer: None }
        } else {
            wire::Body { state: None, answer: Some(wire::Answer { state, refusal }) }
        };
        body.encode_to_vec().into()
    }

    /// Reads a body back.
    ///
    /// # Errors
    /// [`BodyError`] when the bytes are not a body, or one of a kind not known here.
    pub fn decode(bytes: &Bytes) -> Result<Self, BodyError> {
        let unreadable = |what: &str| BodyError::Unreadable(what.to_owned());
        count_fields(bytes)?;
        let body = wire::Body::decode(bytes.clone()).map_err(|error| BodyError::Unreadable(error.to_string()))?;
        let (state, refusal, changes) = match (body.state, body.answer) {
            (Some(state), None) => (state, None, true),
            (None, Some(answer)) => (answer.state.ok_or_else(|| unreadable("answer"))?, answer.refusal, false),
            (Some(_), Some(_)) => return Err(unreadable("two kinds")),
            (None, None) => return Err(BodyError::UnknownKind),
        };
        let effects = state
            .effects
            .into_iter()
            .map(|effect| {
                let key = Key::new(effect.key).map_err(|error| BodyError::Unreadable(error.to_string()))?;
                Ok(match effect.put {
                    Some(value) => Effect::Put { key, value },
                    None => Effect::Delete { key },
                })
            })
            .collect::<Result<Vec<_>, BodyError>>()?;
        if changes == effects.is_empty() {
            return Err(unreadable("effects that are not those of its kind"));
        }
        let verdict = match refusal {
            Some(wire::Refusal { code, message }) => Verdict::Refused { code, message },
            None if changes => Verdict::Changed(state.result),
            None => Verdict::Unchanged(state.result),
        };
        Ok(Self {
            time: Timestamp(state.time),
            request: RequestId::from_bytes(&state.request).ok_or_else(|| unreadable("request id"))?,
            fingerprint: Fingerprint(state.fingerprint.as_ref().try_into().map_err(|_| unreadable("fingerprint"))?),
            function: state.function,
            verdict,
            effects,
            forget: Forget { callers: Timestamp(state.forget_callers), gateways: Timestamp(state.forget_gateways) },
        })
    }
}

/// Refuses a body with more than [`FIELDS_MAX`] fields before anything is allocated for them: those
/// of the kind of command, and those of the state in an answer.
fn count_fields(mut bytes: &[u8]) -> Result<(), BodyError> {
    let mut fields = 0;
    while !bytes.is_empty() {
        let (_, kind) = field(&mut bytes)?;
        count_in(kind, true, &mut fields)?;
    }
    Ok(())
}

/// Adds the fields of one message, and those of its first field if it may be an answer's state.
fn count_in(mut bytes: &[u8], answer: bool, fields: &mut usize) -> Result<(), BodyError> {
    while !bytes.is_empty() {
        *fields += 1;
        if *fields > FIELDS_MAX {
            return Err(BodyError::Unreadable(format!("more than {FIELDS_MAX} fields")));
        }
        let (tag, content) = field(&mut bytes)?;
        if answer && tag == 1 {
            count_in(content, false, fields)?;
        }
    }
    Ok(())
}

/// Takes the first field: its number, and its content if that is bytes, a text or a message.
fn field<'a>(bytes: &mut &'a [u8]) -> Result<(u32, &'a [u8]), BodyError> {
    let unreadable = |error: prost::DecodeError| BodyError::Unreadable(error.to_string());
    let (tag, wire_type) = decode_key(bytes).map_err(unreadable)?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, bytes, DecodeContext::default()).map_err(unreadable)?;
        return Ok((tag, &[]));
    }
    let length = decode_varint(bytes).map_err(unreadable)?;
    let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
    let (content, rest) = split.ok_or_else(|| BodyError::Unreadable("it is cut off".to_owned()))?;
    *bytes = rest;
    Ok((tag, content))
}

/// The request that a body carries out, as [`RequestId::to_bytes`] wrote it, without reading the rest; nothing where the
/// bytes are no body that is known here.
pub(crate) fn request_of(body: &[u8]) -> Option<&[u8]> {
    let state = find(body, 1).or_else(|| find(find(body, 2)?, 1))?;
    find(state, 2)
}

/// The content of the first field of that number.
fn find(mut bytes: &[u8], number: u32) -> Option<&[u8]> {
    while !bytes.is_empty() {
        let (tag, content) = field(&mut bytes).ok()?;
        if tag == number {
            return Some(content);
        }
    }
    None
}

mod wire {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Body {
        /// The one kind of command so far; others get numbers of their own.
        #[prost(message, optional, tag = "1")]
        pub(super) state: Option<State>,
        /// What a call came to that changed nothing.
        #[prost(message, optional, tag = "2")]
        pub(super) answer: Option<Answer>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Answer {
        /// Without effects.
        #[prost(message, optional, tag = "1")]
        pub(super) state: Option<State>,
        /// Absent: the function returned a result.
        #[prost(message, optional, tag = "2")]
        pub(super) refusal: Option<Refusal>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Refusal {
        #[prost(string, tag = "1")]
        pub(super) code: String,
        #[prost(string, tag = "2")]
        pub(super) message: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct State {
        #[prost(uint64, tag = "1")]
        pub(super) time: u64,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) request: Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        pub(super) fingerprint: Bytes,
        #[prost(string, tag = "4")]
        pub(super) function: String,
        #[prost(bytes = "bytes", tag = "5")]
        pub(super) result: Bytes,
        #[prost(message, repeated, tag = "6")]
        pub(super) effects: Vec<Effect>,
        #[prost(uint64, tag = "7")]
        pub(super) forget_callers: u64,
        #[prost(uint64, tag = "8")]
        pub(super) forget_gateways: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Effect {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        /// Absent: delete.
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) put: Option<Bytes>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> CommandBody {
        CommandBody {
            time: Timestamp(5),
            request: RequestId::caller("k1").expect("a valid key"),
            fingerprint: Fingerprint([7; 16]),
            function: "inventory.inbound".into(),
            verdict: Verdict::Changed(Bytes::from_static(b"{\"stock\":500}")),
            effects: vec![
                Effect::Put { key: Key::new("a").expect("a key"), value: Bytes::new() },
                Effect::Delete { key: Key::new("b").expect("a key") },
            ],
            forget: Forget { callers: Timestamp(1), gateways: Timestamp(2) },
        }
    }

    /// Catches a field that is lost on the way to disk, above all an empty value that turns
    /// into a deletion, and a refusal that turns into a result.
    #[test]
    fn a_body_survives_its_encoding() {
        let refused = Verdict::Refused { code: "not_enough".into(), message: String::new() };
        let bodies = [
            body(),
            CommandBody { verdict: Verdict::Unchanged(Bytes::from_static(b"{}")), effects: Vec::new(), ..body() },
            CommandBody { verdict: refused, effects: Vec::new(), ..body() },
        ];
        for body in bodies {
            assert_eq!(CommandBody::decode(&body.encode()), Ok(body));
        }
    }

    /// RELIABILITY 6, row 13: catches a peer that makes us allocate many times what it sends, in
    /// either kind of command.
    #[test]
    fn the_fields_of_a_body_are_counted_before_they_are_allocated() {
        let decoded = |effects: usize, tags: &[u32]| {
            let mut bytes = [0x32, 0x00].repeat(effects);
            for tag in tags {
                let mut outer = Vec::new();
                prost::encoding::bytes::encode(*tag, &bytes, &mut outer);
                bytes = outer;
            }
            CommandBody::decode(&bytes.into())
        };
        let too_many = Err(BodyError::Unreadable(format!("more than {FIELDS_MAX} fields")));
        for tags in [&[1][..], &[1, 2]] {
            assert_eq!(decoded(FIELDS_MAX + 1, tags), too_many, "{tags:?}");
            let within = decoded(FIELDS_MAX - 1, tags);
            assert!(within.is_err() && within != too_many, "empty effects, judged one by one");
        }
    }

    /// Catches a command of two kinds at once, which two versions would read differently, and one
    /// whose effects are not those of its kind.
    #[test]
    fn a_body_is_of_one_kind() {
        let changed = body().encode();
        let unchanged =
            CommandBody { verdict: Verdict::Unchanged(Bytes::new()), effects: Vec::new(), ..body() }.encode();
        let both = [changed, unchanged.clone()].concat();
        // The same message under the other kind's field number.
        let renamed: Vec<u8> = [0x0a].into_iter().chain(unchanged[1..].iter().copied()).collect();
        for bytes in [both, renamed] {
            assert!(matches!(CommandBody::decode(&bytes.into()), Err(BodyError::Unreadable(_))));
        }
    }

    /// S-25: catches a node that skips a command of a kind it does not know.
    #[test]
    fn an_unknown_kind_is_refused() {
        // Field 9, length-delimited, empty: what a newer version might write.
        assert_eq!(CommandBody::decode(&Bytes::from_static(&[0x4a, 0x00])), Err(BodyError::UnknownKind));
    }

    fn hex(body: &CommandBody) -> String {
        body.encode().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Catches an encoding that changes under stored data: these bytes are version 1.
    #[test]
    fn version_1_bytes_stay_as_they_are() {
        assert_eq!(
            hex(&body()),
            "0a4b08051203636b311a10070707070707070707070707070707072211696e76656e746f72792e696e626f756e642a\
             0d7b2273746f636b223a3530307d32050a0161120032030a016238014002"
        );
    }

    /// Catches the same in the kind that came second, an answer without changes.
    #[test]
    fn the_bytes_of_an_answer_stay_as_they_are() {
        let answer = |verdict| CommandBody { verdict, effects: Vec::new(), ..body() };
        assert_eq!(
            hex(&answer(Verdict::Unchanged(Bytes::from_static(b"{}")))),
            "12360a3408051203636b311a10070707070707070707070707070707072211696e76656e746f72792e696e626f756e64\
             2a027b7d38014002"
        );
        let refused = Verdict::Refused { code: "not_enough".into(), message: "A has 1".into() };
        assert_eq!(
            hex(&answer(refused)),
            "12490a3008051203636b311a10070707070707070707070707070707072211696e76656e746f72792e696e626f756e64\
             3801400212150a0a6e6f745f656e6f756768120741206861732031"
        );
    }
}
