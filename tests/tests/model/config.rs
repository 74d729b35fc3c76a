//! How much is searched, and what is wrong with it on purpose.

use protocol::{LearnFrom, NodeId};

/// How much is searched.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Who leads the ballots of rounds 1, 2, ….
    pub(crate) owners: Vec<NodeId>,
    /// Command numbers.
    pub(crate) numbers: u64,
    /// Power cuts, of whichever node.
    pub(crate) crashes: u8,
    /// Damages of all votes that a node has, of whichever node.
    pub(crate) damages: u8,
    /// What the first command does to the membership.
    pub(crate) change: Option<Change>,
    /// Whether refusals (`MyNextBal`) are delivered.
    pub(crate) refusals: bool,
    /// Whether messages that can change nothing any more are taken out of the network, see `prune`.
    pub(crate) pruned: bool,
    /// Whether steps are left out that cost nothing to leave out, see `prune`.
    pub(crate) reduced: bool,
    /// Who decides that a command is issued.
    pub(crate) learn_from: LearnFrom,
    /// A mistake that the search must find.
    pub(crate) plant: Option<Plant>,
    /// Steps that a comparison must find missing.
    pub(crate) lacks: Option<Lack>,
}

/// Steps that matter, and are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Only P leads.
    OtherLeader,
    /// Each answer to `NextBallot` is heard.
    LostAnswers,
    /// Learners hear only what leaders declare.
    CatchUp,
    /// Learners hear only of each other.
    Declarations,
}

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// An acceptor starts with the ballot of its last vote for its promise.
    ForgottenPromise,
    /// S-01: an acceptor votes without the gap-free rule.
    VotesWithGaps,
    /// S-14: an acceptor whose votes are damaged speaks at once.
    RejoinsAtOnce,
    /// ADR 0025: a leader proposes above a change in the same ballot.
    NoBarrier,
}

/// A change of the membership: the vote of a node comes to weigh 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// What the votes of the three weigh before.
    pub(crate) weights: [u64; 3],
    /// The node.
    pub(crate) node: NodeId,
}

impl Change {
    /// What its vote weighs after the change.
    pub(crate) const fn weight(self) -> u64 {
        3
    }
}
