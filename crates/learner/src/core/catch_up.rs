//! Claim 4: whom to ask for missed commands, and when.
//!
//! Being behind for a moment is normal: `Success` often comes before the body, which waits in
//! the local acceptor behind a sync. So a lag of no more than the window is given
//! [`Timing::patience`] to close by itself; a wider one cannot be on its way and is asked about
//! at once. One question is outstanding; without a useful answer it goes, after
//! [`Timing::ask_again`], to the next peer that knows more: any peer, not only the leader (A4).

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{CommandNumber, NodeId, Tick};

/// How long to wait before asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How long a lag within the window may last before the first question.
    pub patience: Duration,
    /// How long a question may stay without a useful answer before another peer is asked.
    pub ask_again: Duration,
}

impl Default for Timing {
    /// 50 ms: several syncs of a slow disk. 200 ms: several round trips of a slow network.
    fn default() -> Self {
        Self { patience: Duration::from_millis(50), ask_again: Duration::from_millis(200) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Asked {
    peer: NodeId,
    at: Tick,
}

/// What is known of others' progress, and the question outstanding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CatchingUp {
    /// How far each peer is, by its latest word.
    known: BTreeMap<NodeId, CommandNumber>,
    /// The highest number declared issued, by whomever.
    declared: CommandNumber,
    /// Since when there is more to know than we know.
    behind_since: Option<Tick>,
    asked: Option<Asked>,
    /// Whom we asked last; the next question goes to the one after.
    last_asked: NodeId,
}

impl CatchingUp {
    /// The latest word of a peer about itself.
    pub(super) fn peer_knows(&mut self, peer: NodeId, issued: CommandNumber) {
        self.known.insert(peer, issued);
    }

    /// Somebody said that this number is issued.
    pub(super) fn heard_of(&mut self, number: CommandNumber) {
        self.declared = self.declared.max(number);
    }

    /// The peer is gone: no answer will come from it.
    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        self.known.remove(&peer);
        self.asked = self.asked.filter(|asked| asked.peer != peer);
    }

    /// Something was issued: being behind starts anew, and no answer is waited for.
    pub(super) fn progressed(&mut self) {
        self.behind_since = None;
        self.asked = None;
    }

    /// Whether `peer` is the one that we asked.
    pub(super) fn awaits(&self, peer: NodeId) -> bool {
        self.asked.is_some_and(|asked| asked.peer == peer)
    }

    /// Asks the same peer on, after a useful answer.
    pub(super) fn ask_on(&mut self, peer: NodeId, now: Tick) {
        self.asked = Some(Asked { peer, at: now });
        self.last_asked = peer;
    }

    /// Whom to ask now, if anybody. `peers` ascend.
    pub(super) fn due(
        &mut self,
        issued: CommandNumber,
        window: u64,
        peers: &[NodeId],
        timing: Timing,
        now: Tick,
    ) -> Option<NodeId> {
        let most = self.known.values().copied().max().unwrap_or_default().max(self.declared);
        if most <= issued {
            self.progressed();
            return None;
        }
        let since = *self.behind_since.get_or_insert(now);
        let wait = match self.asked {
            Some(asked) => now.since(asked.at) < timing.ask_again,
            None => most.0 - issued.0 <= window && now.since(since) < timing.patience,
        };
        if wait {
            return None;
        }
        let peer = self.next_peer(issued, peers)?;
        self.ask_on(peer, now);
        Some(peer)
    }

    /// The next in turn of the peers that know more; of all, when none is known to.
    fn next_peer(&self, issued: CommandNumber, peers: &[NodeId]) -> Option<NodeId> {
        let knows_more = |peer: &NodeId| self.known.get(peer).is_some_and(|known| *known > issued);
        let knowing: Vec<NodeId> = peers.iter().copied().filter(knows_more).collect();
        let among = if knowing.is_empty() { peers } else { &knowing };
        among.iter().find(|peer| **peer > self.last_asked).or_else(|| among.first()).copied()
    }
}
