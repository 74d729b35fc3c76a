//! Which versions of the protocol nodes speak, so that a cluster can be upgraded one node at a time.
//!
//! A *version* is that of what follows the handshake: frames and messages. It is raised when a node of the version before
//! could not understand, or would misunderstand, what this one sends; a field that may be missing raises nothing (module
//! `wire`). Each side says the newest and the oldest version that it speaks, and they take each other where they have one in
//! common. A node that names no oldest one speaks a single version.
//!
//! Whoever raises [`Versions::newest`] leaves `oldest` where it is for a release, and lets each direction of a connection
//! go by the highest version in common; with one version there is nothing to go by. ADR 0036.

use std::fmt;

use super::{Hello, Welcome};

/// From the oldest to the newest version that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub oldest: u32,
    /// The highest, not below `oldest`.
    pub newest: u32,
}

impl Versions {
    /// What this build speaks.
    pub const SPOKEN: Self = Self { oldest: 1, newest: 1 };

    /// The highest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let highest = self.newest.min(other.newest);
        (highest >= self.oldest.max(other.oldest)).then_some(highest)
    }

    /// What a handshake says of the oldest version: nothing where there is one only, as before there were ranges.
    pub(crate) fn said_oldest(self) -> Option<u32> {
        (self.oldest != self.newest).then_some(self.oldest)
    }

    fn said(newest: u32, oldest: Option<u32>) -> Self {
        Self { oldest: oldest.unwrap_or(newest), newest }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "version {}", self.newest)
        } else {
            write!(f, "versions {} to {}", self.oldest, self.newest)
        }
    }
}

impl Hello {
    /// What the dialer speaks.
    #[must_use]
    pub fn versions(&self) -> Versions {
        Versions::said(self.version, self.oldest)
    }
}

impl Welcome {
    /// What the listener speaks.
    #[must_use]
    pub fn versions(&self) -> Versions {
        Versions::said(self.version, self.oldest)
    }
}

/// The sentence for the operators of two nodes that have no version in common.
pub(super) fn differ(theirs: Versions, ours: Versions) -> String {
    format!(
        "the peer speaks protocol {theirs}, this node {ours}, and none in common: run versions of Quorate that follow \
         each other, and upgrade a cluster through each version between"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(oldest: u32, newest: u32) -> Versions {
        Versions { oldest, newest }
    }

    /// Catches sides that settle on different versions, on one that a side does not speak, or on none though there is one.
    #[test]
    fn both_sides_settle_on_the_highest_version_in_common() {
        let cases = [
            (versions(1, 1), versions(1, 1), Some(1)),
            (versions(1, 1), versions(1, 2), Some(1)),
            (versions(1, 2), versions(2, 3), Some(2)),
            (versions(1, 3), versions(2, 2), Some(2)),
            (versions(1, 1), versions(2, 3), None),
            (versions(1, 1), versions(0, 0), None),
            // Nonsense of a stranger.
            (versions(1, 2), versions(9, 1), None),
        ];
        for (one, other, common) in cases {
            assert_eq!(one.common(other), common, "{one} with {other}");
            assert_eq!(other.common(one), common, "{other} with {one}");
        }
    }

    /// Catches a range that gets lost on the wire, and a node without one that says more than it did before.
    #[test]
    fn a_range_is_said_and_a_single_version_is_not() {
        for (one, oldest) in [(versions(1, 1), None), (versions(1, 2), Some(1))] {
            assert_eq!(one.said_oldest(), oldest);
            assert_eq!(Versions::said(one.newest, one.said_oldest()), one);
        }
    }
}
