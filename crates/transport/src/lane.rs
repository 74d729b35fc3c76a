//! Lanes: which messages share a connection, so that none waits behind a kind it must not.
//!
//! A node dials each peer once per lane. A heartbeat behind eight megabytes of catch-up would
//! depose a healthy leader; a vote behind them would stall every caller.

use protocol::Message;
use protocol::message::ToLearner;

use crate::frame::FRAME_BYTES_MAX;

/// A class of messages with connections, queues and (for heartbeats) an arbiter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// `Heartbeat`: tiny, many times a second, worthless when late.
    Heartbeat,
    /// Promises, votes, calls and their answers.
    Protocol,
    /// Missing commands and whole states: large, and nobody waits for a single one.
    Bulk,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 3] = [Self::Heartbeat, Self::Protocol, Self::Bulk];

    /// The lane on which a message travels.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        match message {
            Message::FailureDetector(_) => Self::Heartbeat,
            Message::Learner(
                ToLearner::CatchUp(_) | ToLearner::Commands(_) | ToLearner::FetchSnapshot(_) | ToLearner::Snapshot(_),
            ) => Self::Bulk,
            Message::Learner(ToLearner::Success(_) | ToLearner::Voted(_))
            | Message::Acceptor(_)
            | Message::Leader(_)
            | Message::Gateway(_) => Self::Protocol,
        }
    }

    /// The name, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Protocol => "protocol",
            Self::Bulk => "bulk",
        }
    }

    /// The number in the handshake; never reused.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Heartbeat => 1,
            Self::Protocol => 2,
            Self::Bulk => 3,
        }
    }

    /// Reads [`Lane::number`] back; `None` for a lane of a newer version.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }

    /// The largest payload, in bytes. A heartbeat lists nodes: 64 KiB is thousands of them.
    #[must_use]
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Heartbeat => 64 << 10,
            Self::Protocol | Self::Bulk => FRAME_BYTES_MAX,
        }
    }
}
