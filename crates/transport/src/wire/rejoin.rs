//! What an acceptor that may have lost votes asks, and is told.

use protocol::{CommandNumber, message};

use super::WireError;
use crate::wire;

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Rejoin {
    #[prost(message, required, tag = "1")]
    ballot: wire::Ballot,
    #[prost(fixed64, tag = "2")]
    nonce: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Rejoined {
    #[prost(message, required, tag = "1")]
    ballot: wire::Ballot,
    #[prost(fixed64, tag = "2")]
    nonce: u64,
    #[prost(uint64, tag = "3")]
    last: u64,
    #[prost(uint64, tag = "4")]
    membership: u64, // Absent: 0, the genesis, under which less is taken for true.
}

impl From<&message::Rejoin> for Rejoin {
    fn from(rejoin: &message::Rejoin) -> Self {
        Self { ballot: rejoin.ballot.into(), nonce: rejoin.nonce }
    }
}

impl TryFrom<Rejoin> for message::Rejoin {
    type Error = WireError;

    fn try_from(rejoin: Rejoin) -> Result<Self, WireError> {
        Ok(Self { ballot: rejoin.ballot.try_into()?, nonce: rejoin.nonce })
    }
}

impl From<&message::Rejoined> for Rejoined {
    fn from(rejoined: &message::Rejoined) -> Self {
        let message::Rejoined { ballot, nonce, last, membership } = rejoined;
        Self { ballot: (*ballot).into(), nonce: *nonce, last: last.0, membership: membership.0 }
    }
}

impl TryFrom<Rejoined> for message::Rejoined {
    type Error = WireError;

    fn try_from(rejoined: Rejoined) -> Result<Self, WireError> {
        let (last, membership) = (CommandNumber(rejoined.last), CommandNumber(rejoined.membership));
        Ok(Self { ballot: rejoined.ballot.try_into()?, nonce: rejoined.nonce, last, membership })
    }
}
