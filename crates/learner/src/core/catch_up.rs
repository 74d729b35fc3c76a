//! Claim 4: whom to ask for missed commands, and when.
//!
//! Being behind for a moment is normal: `Success` often comes before the body, which waits in
//! the local acceptor behind a sync. So a lag of no more than the window is given
//! [`Timing::patience`] to close by itself; a wider one cannot be on its way and is asked about
//! at once. One question is outstanding; without a useful answer it goes, after
//! [`Timing::ask_again`], to the next peer that knows more: any peer, not only the leader (A4). A peer that has said
//! that it keeps no longer what we need is not asked for it; when all that know more have said so, only a whole state
//! helps ([`super::fetching`]). Whoever does not answer [`SILENCES_MAX`] times is not waited for: we may hear it while
//! it does not hear us.

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
    /// The same for a piece of a snapshot.
    pub fetch_again: Duration,
    /// How long a part of a snapshot is kept in the hope of the rest, while none comes.
    pub give_up: Duration,
    /// How long an open checkpoint is kept after the last question about it.
    pub keep_open: Duration,
    /// The pause after a snapshot that was not what its sender had said.
    pub distrust: Duration,
    /// How often it is said what may be forgotten.
    pub forget: Duration,
    /// How often, at most, its space is given back to a disk that is almost full.
    pub reclaim: Duration,
}

impl Default for Timing {
    /// 50 ms: several syncs of a slow disk. 200 ms: several round trips of a slow network. 2 s: reading, sending and
    /// writing a megabyte on slow ones. 30 s: the restart of a node. 60 s: twice that. 10 s: nobody's log is flooded.
    /// 1 s: as often as states become durable. 10 s again: files are written anew for it.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            patience: Duration::from_millis(50),
            ask_again: Duration::from_millis(200),
            fetch_again: seconds(2),
            give_up: seconds(30),
            keep_open: seconds(60),
            distrust: seconds(10),
            forget: seconds(1),
            reclaim: seconds(10),
        }
    }
}

/// Questions without an answer, one [`Timing::ask_again`] each, after which a peer counts as one that does not answer.
const SILENCES_MAX: u32 = 5;

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
    /// From where on each peer keeps commands, by its latest word.
    kept_from: BTreeMap<NodeId, CommandNumber>,
    /// Questions to each peer since its last answer.
    silences: BTreeMap<NodeId, u32>,
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

    /// What a peer keeps, by its own word. When it no longer keeps what we asked it for, no other answer comes.
    pub(super) fn peer_keeps(&mut self, peer: NodeId, kept_from: CommandNumber, issued: CommandNumber) -> bool {
        self.kept_from.insert(peer, kept_from);
        self.silences.remove(&peer);
        let lacks = self.lacks(peer, issued);
        if lacks {
            self.asked = self.asked.filter(|asked| asked.peer != peer);
        }
        lacks
    }

    /// Somebody said that this number is issued.
    pub(super) fn heard_of(&mut self, number: CommandNumber) {
        self.declared = self.declared.max(number);
    }

    /// The peer is gone: no answer will come from it.
    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        self.known.remove(&peer);
        self.kept_from.remove(&peer);
        self.silences.remove(&peer);
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
        match self.asked {
            Some(asked) if now.since(asked.at) < timing.ask_again => return None,
            Some(asked) => *self.silences.entry(asked.peer).or_default() += 1,
            None if most.0 - issued.0 <= window && now.since(since) < timing.patience => return None,
            None => {}
        }
        self.asked = None;
        let peer = self.next_peer(issued, peers)?;
        self.ask_on(peer, now);
        Some(peer)
    }

    /// The next in turn of the peers that know more; of all, when none is known to. None when those that know more
    /// have said that they do not keep what we need.
    fn next_peer(&self, issued: CommandNumber, peers: &[NodeId]) -> Option<NodeId> {
        let knowing = self.knowing(issued, peers);
        let among = if knowing.is_empty() { peers.to_vec() } else { knowing };
        let keeping: Vec<NodeId> = among.into_iter().filter(|peer| !self.lacks(*peer, issued)).collect();
        next_in_turn(&keeping, self.last_asked)
    }

    /// The peers that know more and have said that they do not keep what we need, if all others that know more do not
    /// answer: only a whole state helps, and any of these has it.
    pub(super) fn forgotten_by(&self, issued: CommandNumber, peers: &[NodeId]) -> Vec<NodeId> {
        let (lacking, others): (Vec<NodeId>, Vec<NodeId>) =
            self.knowing(issued, peers).into_iter().partition(|peer| self.lacks(*peer, issued));
        let silent = |peer: &NodeId| self.silences.get(peer).is_some_and(|silences| *silences >= SILENCES_MAX);
        if others.iter().all(silent) { lacking } else { Vec::new() }
    }

    fn knowing(&self, issued: CommandNumber, peers: &[NodeId]) -> Vec<NodeId> {
        let knows_more = |peer: &NodeId| self.known.get(peer).is_some_and(|known| *known > issued);
        peers.iter().copied().filter(knows_more).collect()
    }

    /// Whether a peer keeps no command with the number after `issued`.
    fn lacks(&self, peer: NodeId, issued: CommandNumber) -> bool {
        self.kept_from.get(&peer).is_some_and(|kept_from| *kept_from > issued.next())
    }
}

/// The first of some nodes, which ascend, after the last one; then again from the beginning.
pub(super) fn next_in_turn(nodes: &[NodeId], last: NodeId) -> Option<NodeId> {
    nodes.iter().find(|node| **node > last).or_else(|| nodes.first()).copied()
}
