//! How much room a node's disk has.

/// The room on a node's disk, by two marks that its operator sets. Ordered: a greater one has
/// less. A full disk fails writes, and a failed write ends the node; so it stops writing before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Enough.
    #[default]
    Ample,
    /// Below the soft mark: no new commands. What is left is for those that are proposed already.
    Low,
    /// Below the hard mark: no votes, and nothing is applied. What is left is for promises, and
    /// for what the store needs to discard something.
    Out,
}

impl Space {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Ample, Self::Low, Self::Out];

    /// The word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ample => "ample",
            Self::Low => "low",
            Self::Out => "out",
        }
    }
}
