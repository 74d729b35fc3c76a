//! What goes into a gateway and what comes out: its settings, inputs, effects and answers.

use std::time::Duration;

use protocol::message::ToGateway;
use protocol::{Call, CommandNumber, Message, NodeId, Outcome, Tick};

/// The bounds of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The most calls, and the most callers and readers, that wait at once: some seconds of
    /// what a cluster executes. More wait for nothing but memory.
    pub in_flight: usize,
    /// The most bytes of arguments in flight: they are kept for sending again.
    pub bytes: usize,
    /// How long a sent call waits at least for its answer before it is sent again; or twice what calls took lately, if that is
    /// more. Doubles up to [`Settings::resend_max`]. Above the usual time of a call. The call's patience, for which the
    /// leader may keep it, comes on top of it, up to the same bound.
    pub resend: Duration,
    /// The longest such wait, whatever the patience: a kept call that is sent again attaches to itself, and an
    /// answer may be lost.
    pub resend_max: Duration,
    /// How long to wait after the leader said "not I" or "not now" before asking it again;
    /// doubles up to [`Settings::resend`]. Short: a new leader is ready in a few round trips.
    pub retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            in_flight: 10_000,
            bytes: 64 << 20,
            resend: Duration::from_millis(300),
            resend_max: Duration::from_secs(2),
            retry: Duration::from_millis(25),
        }
    }
}

/// What happens to a gateway. `ticket` names a waiting caller; the actor never uses one twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A caller wants a function executed and waits until `deadline`.
    Submit {
        /// The caller.
        ticket: u64,
        /// What to execute.
        call: Call,
        /// Until when the caller waits.
        deadline: Tick,
        /// What this node had applied when the caller came: nothing up to here is due to it.
        applied: CommandNumber,
    },
    /// A reader wants to know which number a read that arrives now must reach.
    Barrier {
        /// The reader.
        ticket: u64,
        /// Until when the reader waits.
        deadline: Tick,
    },
    /// A leader, or who was thought to be one, says something.
    FromLeader {
        /// Who.
        from: NodeId,
        /// What.
        message: ToGateway,
    },
    /// Who leads now, as far as this node knows.
    LeaderIs(Option<NodeId>),
    /// Time has passed.
    Tick,
    /// A caller or reader has gone away. A call goes on without it.
    Abandon {
        /// Who.
        ticket: u64,
    },
    /// The node ends: everybody is told now what is true now, and so is who comes later.
    End,
}

/// What a gateway wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send a message to a leader.
    Send {
        /// The node.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Tell a caller or reader; its ticket is used up.
    Answer {
        /// Who.
        ticket: u64,
        /// What.
        answer: Answer,
    },
    /// Something was left aside.
    Ignored(IgnoreReason),
}

/// What a caller or reader is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// What became of the call. Never `NotLeader` or `LeadershipLost`.
    Outcome {
        /// The outcome.
        outcome: Outcome,
        /// No copy can come to anything else, because none can still run or because the outcome is
        /// recorded for all: what was not executed never will be.
        settled: bool,
        /// It is that of an earlier call under the same request id.
        replayed: bool,
    },
    /// A state with this number or a later one shows all that was acknowledged before the
    /// question.
    BarrierPassed(CommandNumber),
    /// Time is up; no copy was or will be executed, or the read is not possible.
    NotExecuted(Unavailable),
    /// Time is up; no copy that this gateway sent was or will be executed, but another gateway may
    /// have been given the same key.
    NotHere(Unavailable),
    /// Time is up, and the call may have been executed, or may still be.
    Unknown,
}

/// Why a call or read came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unavailable {
    /// No leader was known, or none would take it.
    NoLeader,
    /// A leader is known, but did not confirm the read in time: it may have lost its majority.
    NoAnswer,
    /// Too many callers and readers wait already.
    TooMany,
    /// The node ends.
    Stopping,
}

/// Why an input changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IgnoreReason {
    /// An outcome of a call that is not, or no longer, in flight here.
    NotInFlight,
    /// An outcome of another call under the same key, which nobody waits for any more.
    OtherBody,
    /// The answer to a question that was replaced by a newer one.
    OldBarrier,
    /// The leader is the one already known.
    SameLeader,
}

impl IgnoreReason {
    /// The name, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotInFlight => "not_in_flight",
            Self::OtherBody => "other_body",
            Self::OldBarrier => "old_barrier",
            Self::SameLeader => "same_leader",
        }
    }
}
