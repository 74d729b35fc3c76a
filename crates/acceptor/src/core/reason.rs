//! Why an input changed nothing: judgements on what others say, each counted by the actor.

use protocol::{Ballot, Command, NodeId};

/// Why an acceptor ignored a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IgnoreReason {
    /// The ballot belongs to another node than the sender, or is none that is ever begun.
    NotTheOwner,
    /// The commands are not a run of consecutive, chained commands first proposed no later than
    /// in this ballot.
    NotARun,
    /// The ballot is above the promise: its `NextBallot` has not arrived.
    NotPromised,
    /// The command does not follow the last issued one, so it can never be issued. Normal when
    /// a superseded leader is slow to notice.
    NotAfterIssued,
    /// Another command stands at this number in this same ballot (B1).
    TwoCommandsAtOneNumber,
    /// The command does not chain with those known of this same ballot.
    BrokenChain,
    /// The sender leads under a membership before one that this acceptor has voted under.
    EarlierMembership,
    /// This acceptor is silent.
    Silent,
    /// An answer to a question that this acceptor did not ask since it started, or does not ask any more.
    NotAsked,
}

impl IgnoreReason {
    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotTheOwner => "not_the_owner",
            Self::NotARun => "not_a_run",
            Self::NotPromised => "not_promised",
            Self::NotAfterIssued => "not_after_issued",
            Self::TwoCommandsAtOneNumber => "two_commands_at_one_number",
            Self::BrokenChain => "broken_chain",
            Self::EarlierMembership => "earlier_membership",
            Self::Silent => "silent",
            Self::NotAsked => "not_asked",
        }
    }

    /// Whether no working node of ours can cause it, however messages are lost or delayed: an
    /// operator should look at the sender.
    #[must_use]
    pub fn is_alarming(self) -> bool {
        match self {
            Self::NotTheOwner | Self::NotARun | Self::TwoCommandsAtOneNumber | Self::BrokenChain => true,
            Self::NotPromised | Self::NotAfterIssued | Self::EarlierMembership | Self::Silent | Self::NotAsked => false,
        }
    }
}

/// A node sends only for ballots that it owns; rounds begin at 1.
pub(super) fn not_its_ballot(from: NodeId, ballot: Ballot) -> Option<IgnoreReason> {
    (ballot.node != from || ballot.round == 0).then_some(IgnoreReason::NotTheOwner)
}

/// What `BeginBallot` says of its commands.
pub(super) fn not_a_run(ballot: Ballot, commands: &[Command]) -> Option<IgnoreReason> {
    let each = commands.iter().all(|command| command.is_well_formed() && command.id.ballot <= ballot);
    let chained = commands.windows(2).all(|pair| pair[1].follows(pair[0].id));
    (!each || !chained).then_some(IgnoreReason::NotARun)
}
