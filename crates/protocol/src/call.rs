//! Calls of functions and what became of them.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::command::CommandNumber;
use crate::time::Timestamp;

/// The longest idempotency key of a caller's, in characters.
pub const CALLER_KEY_MAX: usize = 128;

/// What makes a repeated call the same call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestId {
    /// The caller's `Idempotency-Key`: 1 to 128 visible ASCII characters.
    Caller(String),
    /// Made by a gateway for a caller who gave none, so that the gateway itself can send the
    /// call again to the next leader. Unique among all gateways and their restarts.
    Gateway(u128),
}

impl RequestId {
    /// Takes a caller's key.
    ///
    /// # Errors
    /// A sentence for the caller, when the key is not 1 to 128 visible ASCII characters.
    pub fn caller(key: impl Into<String>) -> Result<Self, String> {
        let key = key.into();
        if key.is_empty() || key.len() > CALLER_KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("an idempotency key is 1 to {CALLER_KEY_MAX} visible ASCII characters"));
        }
        Ok(Self::Caller(key))
    }

    /// The form in which the id is stored: a tag, then the key or number.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Caller(key) => [b"c", key.as_bytes()].concat().into(),
            Self::Gateway(number) => [b"g".as_slice(), &number.to_be_bytes()].concat().into(),
        }
    }

    /// Reads [`RequestId::to_bytes`] back; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (b'c', key) => Self::caller(std::str::from_utf8(key).ok()?).ok(),
            (b'g', number) => Some(Self::Gateway(u128::from_be_bytes(number.try_into().ok()?))),
            _ => None,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(key) => f.write_str(key),
            Self::Gateway(number) => write!(f, "gateway:{number:032x}"),
        }
    }
}

/// A digest of what was asked (function and arguments). The default stands for *not said*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// A request to execute a function: the content of `ExecuteFunction`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// What makes a repetition the same call.
    pub request: RequestId,
    /// The digest of function and arguments.
    pub fingerprint: Fingerprint,
    /// The function's name.
    pub function: String,
    /// Its arguments, JSON text.
    pub arguments: Bytes,
    /// How long the leader may keep the call when the function says "not now", from when the
    /// leader receives it; zero when the caller does not wait.
    pub patience: Duration,
    /// Which copy of the call this is. 0: no other one can be anywhere. Its gateway counts on when it
    /// sends the call again; under a caller's key, which any gateway may be given, all copies have 1.
    pub copy: u32,
}

impl Call {
    /// Whether another copy may be somewhere. Then what the function decides becomes a command even if
    /// it changes nothing, so that no copy can come to anything else (ADR 0017).
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.copy > 0
    }
}

/// The outcome of a call that became a command, as every replica stores it under the request id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredOutcome {
    /// The command that the call became.
    pub command: CommandNumber,
    /// The digest of what was asked.
    pub fingerprint: Fingerprint,
    /// What the function decided.
    pub verdict: Verdict,
    /// The command's time.
    pub time: Timestamp,
}

/// What a function decided, as a command carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The state changes; what the function returned, JSON text.
    Changed(Bytes),
    /// Nothing changes; what the function returned, JSON text.
    Unchanged(Bytes),
    /// The function refused, and nothing changes.
    Refused {
        /// The function's own stable code, such as `insufficient_stock`.
        code: String,
        /// A sentence for the caller.
        message: String,
    },
}

impl Verdict {
    /// What the caller is told once the command that carries this is issued.
    #[must_use]
    pub fn outcome(self, command: CommandNumber) -> Outcome {
        match self {
            Self::Changed(result) => Outcome::Issued { command, result },
            Self::Unchanged(result) => Outcome::Unchanged { at: command, result },
            Self::Refused { code, message } => Outcome::Refused { at: command, code, message },
        }
    }
}

/// What a leader answers to a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The function changed state and the command is issued.
    Issued {
        /// Its number.
        command: CommandNumber,
        /// What the function returned, JSON text.
        result: Bytes,
    },
    /// The function ran and changed nothing.
    Unchanged {
        /// The number of the state it ran on, which is issued.
        at: CommandNumber,
        /// What the function returned, JSON text.
        result: Bytes,
    },
    /// The function refused; it changed nothing.
    Refused {
        /// The number of the state it ran on, which is issued.
        at: CommandNumber,
        /// The function's own stable code, such as `insufficient_stock`.
        code: String,
        /// A sentence for the caller.
        message: String,
    },
    /// The arguments are not what the function takes; it did not run.
    InvalidArguments {
        /// What is wrong with them.
        message: String,
    },
    /// What was asked exceeds a limit (bytes of arguments or result, keys or bytes written,
    /// entries read); it changed nothing.
    TooLarge {
        /// Which limit.
        message: String,
    },
    /// No function of that name.
    UnknownFunction,
    /// The request id was used with another function or other arguments.
    RequestReused,
    /// The function failed: it panicked. It changed nothing.
    Failed {
        /// What happened.
        message: String,
    },
    /// Too many calls at the leader; it did not run.
    Overloaded,
    /// The disks of the nodes that would have to keep its command are almost full; it was not proposed.
    DiskFull,
    /// This node does not lead; the call did not run here. Send it to the leader.
    NotLeader,
    /// The node led and ran the function, and lost the lead before the command was issued.
    /// Only a later leader knows: send the call again, with the same request id.
    LeadershipLost,
}

impl Outcome {
    /// The number of the state that it shows or that it made, if the function came to a decision.
    #[must_use]
    pub fn at(&self) -> Option<CommandNumber> {
        match self {
            Self::Issued { command: at, .. } | Self::Unchanged { at, .. } | Self::Refused { at, .. } => Some(*at),
            Self::InvalidArguments { .. }
            | Self::TooLarge { .. }
            | Self::UnknownFunction
            | Self::RequestReused
            | Self::Failed { .. }
            | Self::Overloaded
            | Self::DiskFull
            | Self::NotLeader
            | Self::LeadershipLost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches keys outside the documented range, and ids that change on their way to disk.
    #[test]
    fn request_ids_are_checked_and_survive_storage() {
        for bad in ["", "a b", "é", "tab\t", &"x".repeat(129)] {
            assert!(RequestId::caller(bad).is_err(), "{bad:?} was taken");
        }
        for id in [RequestId::caller("!~k").expect("visible"), RequestId::Gateway(u128::MAX), RequestId::Gateway(0)] {
            assert_eq!(RequestId::from_bytes(&id.to_bytes()), Some(id));
        }
        for bytes in [&b""[..], b"x", b"c", b"g123"] {
            assert_eq!(RequestId::from_bytes(bytes), None);
        }
    }
}
