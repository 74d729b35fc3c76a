//! The failure detector as a pure state machine.
//!
//! Every node sends heartbeats to every other. Each says whom its sender hears, whether it
//! leads, and which working leader it hears *directly*. From these, each node judges:
//!
//! 1. **Who is heard.** A peer is trusted until it has been silent for a timeout that adapts to
//!    the measured intervals ([`peer`]). A closed connection shortens it and asks at once; a
//!    refused one right after (no process listens) ends it.
//! 2. **Who is connected.** A node is connected when the nodes that it hears and that hear it,
//!    with itself, contain a majority set. For nodes that we do not hear, its word counts.
//! 3. **Who leads.** The working leader is the one of the highest ballot among nodes that we
//!    hear, that say they lead, and that are connected. If there is none but a peer follows one
//!    that we do not hear (a chain A-B-C), we leave that leader in peace.
//! 4. **Who should lead.** If nobody leads: the connected candidates in order of their ids; after them those whose disk
//!    is almost full, then those far behind, and last those that are connected only by acceptors that are silent. The first
//!    campaigns at once, the next ones a while later each, and all wait when they see another's
//!    attempt. So a node that is cut off, or that nobody hears, deposes nobody, and two candidates
//!    do not duel (checklist S-28).
//! 5. **When to stop.** A leader that is not connected for a timeout steps down.
//! 6. **Room.** A leader whose disk is almost full hands over to a candidate with room. Where there
//!    is none, or no majority set with room to vote, it leads on and takes no calls ([`room`]).
//! 7. **Handing over.** A leader says in its heartbeats to whom it hands its lead over. That node campaigns as soon as it
//!    has applied all that it must; everybody else sees its attempt, and waits as in rule 4 (ADR 0030).
//! 8. **Standing aside.** A leader that waits for votes in vain, because too many of those that it is connected with are
//!    silent, leaves the lead for a while to others if one of them seems able to do better ([`aside`], ADR 0042).
//!
//! All of it goes by the membership in force (ADR 0025): a node that is no member is not heard, and campaigns no more.
//!
//! A node that was stalled itself (its tick came late) suspects nobody for the time it slept.
//!
//! Caveats. A node that is stalled again and again suspects nobody; the others must act. There
//! is no "up to date" rule for candidates, on purpose: in Executive Paxos a node that is behind
//! may lead after it has caught up, and sometimes it is the only one that can (RELIABILITY 2,
//! constrained election).

mod aside;
#[cfg(test)]
mod aside_tests;
mod election;
#[cfg(test)]
mod hand_over_tests;
mod peer;
mod room;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;

pub use aside::TOO_MANY_SILENT;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::message::{HandOver, Heartbeat};
use protocol::{Ballot, CommandNumber, Membership, NodeId, Now, Space, Tick};

use aside::Aside;
use election::Election;
use peer::Peer;
use room::Room;

/// What a failure detector is told once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// Whether this node can lead, as far as it is concerned.
    pub can_lead: bool,
    /// The membership in force, until [`Input::Membership`] says otherwise.
    pub membership: Arc<Membership>,
    /// How often heartbeats are sent; 50 ms is usual.
    pub heartbeat: Duration,
    /// The least silence after which a peer is suspected; 250 ms is usual. Stalls of disk or
    /// CPU that are shorter depose nobody.
    pub timeout_min: Duration,
    /// The most to which a peer's timeout grows when its heartbeats are irregular; 2 s is usual.
    pub timeout_max: Duration,
    /// Where callers reach this node's REST: told to the others, who show it.
    pub http: String,
    /// Whether this node stands by for a vote: told to the others.
    pub spare: bool,
}

/// What the roles of this node say at a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalStatus {
    /// The ballot that this node leads now.
    pub leads: Option<Ballot>,
    /// Its leader waits for a majority set of acceptors, and can do nothing else about what it has under way.
    pub waits: bool,
    /// The highest ballot that its roles have seen.
    pub ballot: Ballot,
    /// The last command known to be issued.
    pub issued: CommandNumber,
    /// The last command applied.
    pub applied: CommandNumber,
    /// The last command in durable state.
    pub durable: CommandNumber,
    /// How much room its disk has.
    pub space: Space,
    /// It may not lead now, whatever its configuration says: its leader would not campaign.
    pub barred: bool,
    /// Its acceptor is silent.
    pub silent: bool,
    /// It hands its lead over.
    pub hands_over: Option<HandOver>,
    /// What its acceptor has durably promised.
    pub promise: Ballot,
    /// How far it has voted in that ballot.
    pub voted: CommandNumber,
}

/// What happens to a failure detector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A heartbeat arrived.
    Heartbeat {
        /// The node that sent it, as the transport knows it.
        from: NodeId,
        /// The heartbeat.
        heartbeat: Heartbeat,
    },
    /// A connection with this peer, in either direction, was closed.
    Closed(NodeId),
    /// A connection to this peer was refused: no process listens there.
    Unreachable(NodeId),
    /// The membership has changed.
    Membership(Arc<Membership>),
    /// Time passed. Comes at least twice in every `heartbeat`; later means that we were stalled.
    Tick(LocalStatus),
}

/// Why a peer is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suspicion {
    /// No heartbeat for this long.
    Silent(Duration),
    /// It closed its connections and refuses new ones.
    Refused,
}

/// Why an input changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgnoreReason {
    /// It concerns a node that is not another member.
    NotAPeer,
}

impl IgnoreReason {
    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAPeer => "not_a_peer",
        }
    }
}

/// What a failure detector wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// A heartbeat for a peer; a probe when it wants an answer.
    Send {
        /// The recipient.
        to: NodeId,
        /// The heartbeat.
        heartbeat: Heartbeat,
    },
    /// The peer is not heard any more.
    Suspect {
        /// The peer.
        peer: NodeId,
        /// Why.
        why: Suspicion,
    },
    /// The peer is heard, for the first time or again.
    Trust(NodeId),
    /// This node should try to lead now.
    Campaign {
        /// How many candidates come before it.
        rank: usize,
        /// How often it has tried since somebody led, this time included.
        attempt: u32,
    },
    /// This node should try to lead now, because the leader hands over to it.
    TakeOver {
        /// Who led.
        from: NodeId,
    },
    /// This node leads, and has not been connected to a majority set for a timeout.
    StepDown {
        /// For how long.
        disconnected: Duration,
    },
    /// This node leads and waits for votes in vain, while another node seems able to do better: it should stop leading, and
    /// will not campaign for a while.
    StandAside {
        /// For how long nothing was issued.
        waited: Duration,
        /// The acceptors in touch with it that are silent.
        silent: Vec<NodeId>,
        /// A node that seems to be in touch with a majority set of those that speak.
        able: NodeId,
    },
    /// This node leads and its disk is almost full, while another has room and could lead: it should
    /// stop leading.
    HandOver,
    /// Whether a leader on this node should take calls, as far as room for them goes; changed.
    TakesCalls(bool),
    /// The ballot of the working leader, as this node knows it, changed.
    LeaderIs(Option<Ballot>),
    /// A peer knows more commands to be issued than this node does.
    PeerIssued {
        /// The peer.
        peer: NodeId,
        /// The last command that it knows to be issued.
        issued: CommandNumber,
    },
    /// A peer is heard again, or its state is durable up to another number than it said before: a lower one when the state
    /// was lost.
    PeerDurable {
        /// The peer.
        peer: NodeId,
        /// The last command in its durable state.
        durable: CommandNumber,
    },
    /// The input changed nothing.
    Ignored(IgnoreReason),
}

/// What a failure detector knows of a peer, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// Whether it is heard.
    pub heard: bool,
    /// Since when that is so.
    pub since: Tick,
    /// When the last heartbeat came.
    pub heard_at: Option<Tick>,
    /// The last heartbeat.
    pub last: Option<Heartbeat>,
}

/// What a failure detector knows, for operators and health checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// When this was so.
    pub at: Tick,
    /// The ballot of the working leader.
    pub leader: Option<Ballot>,
    /// The other members.
    pub peers: BTreeMap<NodeId, PeerView>,
}

/// The failure detector of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FailureDetector {
    config: Config,
    peers: BTreeMap<NodeId, Peer>,
    /// What the roles of this node said last.
    local: LocalStatus,
    /// The last tick, or when a stall was noticed; `None` before the first input.
    ticked: Option<Tick>,
    /// No campaign before this: after the start, and after a stall, others are heard first.
    quiet_until: Tick,
    /// The last heartbeat that went to all, and when.
    sent: Option<(Tick, Heartbeat)>,
    /// The working leader, as last told.
    leader: Option<Ballot>,
    /// The highest ballot of a working leader ever known.
    led: Ballot,
    /// While nobody leads.
    election: Option<Election>,
    /// While this node could lead: since when.
    candidate: Option<Tick>,
    /// While this node leads without a majority set: since when.
    disconnected: Option<Tick>,
    /// When it was last told to take the lead over.
    took_over: Option<Tick>,
    room: Room,
    aside: Aside,
}

impl FailureDetector {
    /// A detector that has heard nobody yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let others = config.membership.learners().filter(|member| *member != config.me);
        Self {
            peers: others.map(|peer| (peer, Peer::default())).collect(),
            local: LocalStatus::default(),
            ticked: None,
            quiet_until: Tick::default(),
            sent: None,
            leader: None,
            led: Ballot::NONE,
            election: None,
            candidate: None,
            disconnected: None,
            took_over: None,
            room: Room::default(),
            aside: Aside::default(),
            config,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is known now, for operators.
    #[must_use]
    pub fn view(&self) -> View {
        let peers = self.peers.iter().map(|(id, peer)| (*id, peer.view())).collect();
        View { at: self.ticked.unwrap_or_default(), leader: self.leader, peers }
    }

    /// Takes one input and adds what it leads to.
    pub fn handle(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        let now = now.tick;
        self.notice_stall(now);
        match input {
            Input::Heartbeat { from, heartbeat } => self.on_heartbeat(from, heartbeat, now, effects),
            Input::Closed(peer) => self.on_closed(peer, now, effects),
            Input::Unreachable(peer) => self.on_unreachable(peer, now, effects),
            Input::Membership(membership) => self.on_membership(membership),
            Input::Tick(local) => self.on_tick(local, now, effects),
        }
        self.judge_own_leadership(now, effects);
        self.judge_progress(now, effects);
        self.judge_room(now, effects);
        self.judge_leader(effects);
        self.judge_hand_over(now, effects);
        self.judge_candidates(now, effects);
        self.send_heartbeats(now, effects);
    }

    /// At the start: wait to hear the others. After a stall: nobody else was silent, we slept,
    /// so every deadline moves by that time.
    fn notice_stall(&mut self, now: Tick) {
        let Some(ticked) = self.ticked else {
            self.quiet_until = if self.is_alone() { now } else { now + self.config.timeout_min * 2 };
            self.ticked = Some(now);
            return;
        };
        let gap = now.since(ticked);
        if gap <= self.config.heartbeat * 2 {
            return;
        }
        self.ticked = Some(now);
        self.quiet_until = self.quiet_until.max(now + self.config.timeout_min);
        self.peers.values_mut().for_each(|peer| peer.postpone(gap));
        self.disconnected = self.disconnected.map(|since| since + gap);
        self.aside.postpone(gap);
        if let Some(election) = &mut self.election {
            election.postpone(gap);
        }
    }

    fn on_heartbeat(&mut self, from: NodeId, heartbeat: Heartbeat, now: Tick, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return effects.push(Effect::Ignored(IgnoreReason::NotAPeer));
        };
        let (answer, issued, durable) = (heartbeat.answer, heartbeat.issued, heartbeat.durable);
        let known = peer.word().map(|word| word.durable);
        if peer.hear(heartbeat, now, &self.config) {
            effects.push(Effect::Trust(from));
        }
        // Less than before, too: one that is back before it was missed may have lost its state.
        if known != Some(durable) {
            effects.push(Effect::PeerDurable { peer: from, durable });
        }
        if issued > self.local.issued {
            effects.push(Effect::PeerIssued { peer: from, issued });
        }
        if answer {
            effects.push(Effect::Send { to: from, heartbeat: self.heartbeat() });
        }
    }

    /// Who is no member is neither heard nor told any more; who is new is heard as soon as it speaks.
    fn on_membership(&mut self, membership: Arc<Membership>) {
        if membership.number() <= self.config.membership.number() {
            return;
        }
        self.config.membership = membership;
        let (me, nodes) = (self.config.me, self.config.membership.nodes());
        self.peers.retain(|peer, _| nodes.contains_key(peer));
        for peer in nodes.keys().filter(|node| **node != me) {
            self.peers.entry(*peer).or_default();
        }
    }

    /// Whether this node may lead now, as far as it and the membership are concerned.
    fn can_lead(&self) -> bool {
        let barred = self.local.barred || self.aside.is_aside();
        self.config.can_lead && !barred && self.config.membership.may_lead(self.config.me)
    }

    fn on_closed(&mut self, id: NodeId, now: Tick, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return effects.push(Effect::Ignored(IgnoreReason::NotAPeer));
        };
        if peer.close(now, &self.config) {
            effects.push(Effect::Send { to: id, heartbeat: Heartbeat { answer: true, ..self.heartbeat() } });
        }
    }

    fn on_unreachable(&mut self, id: NodeId, now: Tick, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return effects.push(Effect::Ignored(IgnoreReason::NotAPeer));
        };
        if peer.refuse(now, &self.config) {
            effects.push(Effect::Suspect { peer: id, why: Suspicion::Refused });
        }
    }

    fn on_tick(&mut self, local: LocalStatus, now: Tick, effects: &mut Vec<Effect>) {
        self.local = local;
        self.ticked = Some(now);
        for (id, peer) in &mut self.peers {
            if let Some(silent) = peer.expire(now) {
                effects.push(Effect::Suspect { peer: *id, why: Suspicion::Silent(silent) });
            }
        }
    }

    /// Heartbeats when they are due, and at once (ten times as often at most) when what others
    /// judge by has changed: a dead leader is replaced as soon as the last one knows it is dead.
    fn send_heartbeats(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let next = self.heartbeat();
        let due = self.sent.as_ref().is_none_or(|(at, last)| {
            let judged_by = |word: &Heartbeat| (word.leads, word.follows, word.space, word.hands_over);
            let changed = last.hears != next.hears || judged_by(last) != judged_by(&next);
            let after = if changed { self.config.heartbeat / 10 } else { self.config.heartbeat };
            now.since(*at) >= after
        });
        if due {
            effects.extend(self.peers.keys().map(|peer| Effect::Send { to: *peer, heartbeat: next.clone() }));
            self.sent = Some((now, next));
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let mut hears: Vec<NodeId> = self.peers.keys().copied().filter(|peer| self.hears(*peer)).collect();
        hears.push(self.config.me);
        hears.sort_unstable();
        Heartbeat {
            hears,
            can_lead: self.can_lead(),
            leads: self.local.leads,
            follows: self.working_leader(),
            ballot: self.highest_ballot(),
            issued: self.local.issued,
            applied: self.local.applied,
            durable: self.local.durable,
            answer: false,
            http: self.config.http.clone(),
            space: self.local.space,
            silent: self.local.silent,
            hands_over: self.local.hands_over,
            promise: self.local.promise,
            voted: self.local.voted,
            spare: self.config.spare,
        }
    }

    /// Whether this node hears the peer now.
    fn hears(&self, peer: NodeId) -> bool {
        self.word_of(peer).is_some()
    }

    /// The last heartbeat of a peer that is heard.
    fn word_of(&self, peer: NodeId) -> Option<&Heartbeat> {
        self.peers.get(&peer).and_then(Peer::word)
    }

    /// The last heartbeats of all peers that are heard.
    fn words(&self) -> impl Iterator<Item = (NodeId, &Heartbeat)> {
        self.peers.iter().filter_map(|(id, peer)| peer.word().map(|word| (*id, word)))
    }

    /// The highest ballot that this node knows of.
    fn highest_ballot(&self) -> Ballot {
        let own = self.local.ballot.max(self.local.leads.unwrap_or_default());
        self.words().map(|(_, word)| word.ballot).fold(own, Ballot::max)
    }
}
