//! Rule 8 of the module above: a leader that can have nothing issued, while another node could (ADR 0042).
//!
//! Rule 2 counts nodes whose acceptors are silent, and must: they may need this very leader to speak again. What it tells
//! one that asks is the last number that it proposed. While that cannot be issued it helps nobody who asks, so that to stand
//! aside then takes nothing away. Whoever asked before has about a second to come back.

use std::time::Duration;

use protocol::{CommandNumber, NodeId, Tick};

use super::{Effect, FailureDetector};

/// Why a leader stands aside, as it says when it steps down.
pub const TOO_MANY_SILENT: &str = "too many of the acceptors in touch with it are silent";

/// For so many of the shortest timeouts nothing must have been issued: about a second with the one in which it notices.
const PATIENCE: u32 = 3;

/// How often that doubles while nothing is issued, at most: what seems so may be wrong, since nobody says whether those speak
/// whom this node does not hear. Then it leads in vain for half a minute instead.
const DOUBLINGS_MAX: u32 = 5;

/// It leaves the lead to others for so many of the longest timeouts: each of a few candidates has its turn by then.
const ASIDE: u32 = 2;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Aside {
    /// The last command known to be issued.
    issued: CommandNumber,
    /// Since when this node leads and waits, nothing is issued, and those that speak are too few.
    since: Option<Tick>,
    /// How often it has stood aside since something was issued.
    times: u32,
    /// While it stands aside.
    until: Option<Tick>,
}

impl Aside {
    pub(super) fn is_aside(&self) -> bool {
        self.until.is_some()
    }

    pub(super) fn postpone(&mut self, gap: Duration) {
        self.since = self.since.map(|since| since + gap);
    }
}

impl FailureDetector {
    /// Rule 8.
    pub(super) fn judge_progress(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let aside = &mut self.aside;
        aside.until.take_if(|until| now >= *until);
        if self.local.issued > aside.issued {
            *aside = Aside { issued: self.local.issued, until: aside.until, ..Aside::default() };
        }
        let me = self.config.me;
        if self.local.leads.is_none() || !self.local.waits || self.could_decide(me) {
            self.aside.since = None;
            return;
        }
        let aside = &mut self.aside;
        let waited = now.since(*aside.since.get_or_insert(now));
        let patience = self.config.timeout_min.saturating_mul(PATIENCE << aside.times.min(DOUBLINGS_MAX));
        // Where it is not connected at all, rule 5 is about it.
        if waited < patience || !self.is_connected(me) {
            return;
        }
        let Some(able) = self.another_that_could_decide() else { return };
        self.aside.since = None;
        self.aside.times += 1;
        self.aside.until = Some(now + self.config.timeout_max * ASIDE);
        effects.push(Effect::StandAside { waited, silent: self.silent_ones(), able });
    }

    fn another_that_could_decide(&self) -> Option<NodeId> {
        let membership = &self.config.membership;
        let may_lead = |id: &NodeId| {
            *id != self.config.me && membership.may_lead(*id) && self.word_of(*id).is_none_or(|word| word.can_lead)
        };
        membership.nodes().keys().copied().find(|id| may_lead(id) && self.could_decide(*id))
    }

    /// The acceptors that this node hears, or is, and that are silent.
    fn silent_ones(&self) -> Vec<NodeId> {
        let acceptors = self.config.membership.majority().nodes();
        acceptors.iter().copied().filter(|acceptor| !self.speaks(*acceptor)).collect()
    }
}
