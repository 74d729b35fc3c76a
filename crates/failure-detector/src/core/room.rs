//! Rule 6 of the module above: a leader whose disk, or whose acceptors' disks, are almost full.
//!
//! Calls are refused before they are executed (S-35), so that what is left below the soft mark is
//! for commands that were proposed already. A leader that could not take calls while another could
//! hands over instead, and goes on taking them until it has: its callers notice nothing.

use protocol::message::Heartbeat;
use protocol::{NodeId, Space, Tick};

use super::election::is_behind;
use super::{Effect, FailureDetector};

/// A leader hands over again after so many of the longest timeouts at the soonest: to a node that
/// then cannot lead, for a reason that no heartbeat tells, it would otherwise do so for ever.
const HAND_OVERS_APART: u32 = 15;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Room {
    /// As last told.
    takes_calls: bool,
    /// When this node was last told to hand over.
    handed_over: Option<Tick>,
}

impl Default for Room {
    fn default() -> Self {
        Self { takes_calls: true, handed_over: None }
    }
}

impl FailureDetector {
    /// Rule 6.
    pub(super) fn judge_room(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let low = self.local.space > Space::Ample;
        let majority = self.a_majority_has_room();
        let could = low && majority && self.words().any(|(id, word)| self.could_take_over(id, word));
        let since = self.room.handed_over.map(|at| now.since(at));
        let apart = self.config.timeout_max.saturating_mul(HAND_OVERS_APART);
        let mut handing_over = could && since.is_some_and(|since| since < self.config.timeout_min);
        if could && self.local.leads.is_some() && since.is_none_or(|since| since >= apart) {
            self.room.handed_over = Some(now);
            handing_over = true;
            effects.push(Effect::HandOver);
        }
        let takes_calls = majority && (!low || handing_over);
        if takes_calls != self.room.takes_calls {
            self.room.takes_calls = takes_calls;
            effects.push(Effect::TakesCalls(takes_calls));
        }
    }

    fn could_take_over(&self, id: NodeId, word: &Heartbeat) -> bool {
        let has_room = word.can_lead && word.space == Space::Ample;
        has_room && !is_behind(word.issued, self.local.issued) && self.is_connected(id)
    }

    /// Whether a majority set of those that are here has room for more than what is proposed
    /// already. Where no majority set is here, that is what its callers are told, not this.
    fn a_majority_has_room(&self) -> bool {
        let space = |node: NodeId| match node {
            node if node == self.config.me => Some(self.local.space),
            node => self.word_of(node).map(|word| word.space),
        };
        let acceptors = self.config.membership.majority();
        acceptors.holds(|node| space(node) == Some(Space::Ample)) || !acceptors.holds(|node| space(node).is_some())
    }
}
