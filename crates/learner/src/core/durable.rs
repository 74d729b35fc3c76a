//! What may be forgotten: how far the states of all learners are durable (DESIGN 8, invariant 11).
//!
//! A vote may go once its command is inside the durable states of a majority of all learners, this one included:
//! then a majority of disks has what the votes of a majority set had. And it goes here only when the state of
//! *this* node has it: so whoever has lost the vote still knows the command to be issued, and no later ballot can
//! miss it, whatever the others say of themselves.
//!
//! Commands may go as well then, where space is short. Those that are merely old are kept for as long as a peer in
//! touch lacks them: it would need a whole state in their place.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{CommandNumber, NodeId, Space, Tick};

/// How far the state of each learner is durable, by its own last word: less than before when its state was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Durable {
    own: CommandNumber,
    peers: BTreeMap<NodeId, CommandNumber>,
    /// The peers that are heard now.
    in_touch: BTreeSet<NodeId>,
    /// When it was last said what may be forgotten.
    said: Option<Tick>,
    /// When space was last to be given back.
    reclaimed: Option<Tick>,
}

impl Durable {
    /// The state of this node is durable up to here.
    pub(super) fn own(&mut self, durable: CommandNumber) {
        self.own = self.own.max(durable);
    }

    /// The word of a peer.
    pub(super) fn peer(&mut self, peer: NodeId, durable: CommandNumber) {
        self.peers.insert(peer, durable);
        self.in_touch.insert(peer);
    }

    /// The peer is not heard any more. What it made durable most likely stays so; nothing depends on it.
    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        self.in_touch.remove(&peer);
    }

    /// The peer is no member any more: what it has durable does not count.
    pub(super) fn left(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// The highest number that this node and, with it, a majority of so many learners have durable.
    pub(super) fn majority(&self, learners: usize) -> CommandNumber {
        let mut all: Vec<CommandNumber> = self.peers.values().copied().chain([self.own]).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.get(learners / 2).copied().unwrap_or_default().min(self.own)
    }

    /// The highest number that all who are in touch have durable, not above `majority`.
    fn in_touch(&self, majority: CommandNumber) -> CommandNumber {
        self.in_touch.iter().filter_map(|peer| self.peers.get(peer)).copied().fold(majority, CommandNumber::min)
    }

    /// What may be forgotten, when there is something and it is time to say so: the votes and, where space is short,
    /// the commands up to the first number, and what is merely old up to the second.
    pub(super) fn due(&mut self, learners: usize, pause: std::time::Duration, now: Tick) -> Option<[CommandNumber; 2]> {
        let majority = self.majority(learners);
        if majority == CommandNumber::NULL || self.said.is_some_and(|said| now.since(said) < pause) {
            return None;
        }
        self.said = Some(now);
        Some([majority, self.in_touch(majority)])
    }

    /// Whether space is to be given back now: where it is short, and not all the time.
    pub(super) fn reclaims(&mut self, space: Space, pause: std::time::Duration, now: Tick) -> bool {
        let due = space != Space::Ample && self.reclaimed.is_none_or(|at| now.since(at) >= pause);
        if due {
            self.reclaimed = Some(now);
        }
        due
    }
}
