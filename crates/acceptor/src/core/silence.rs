//! Silence: an acceptor whose log does not hold all that it ever said says nothing more, until that
//! can do no harm.
//!
//! A silent acceptor promises nothing and votes for nothing; it hands bodies to the learner of its
//! node as ever, and still refuses ballots below its promise, which is exact. Four things make it
//! silent:
//!
//! - [`Silence::Damaged`]: votes may be lost, all of ballots up to the promise P. To the
//!   `BeginBallot` of a ballot `b >= P` it answers `Rejoin`, and says so unasked to whoever leads one;
//!   the leader of b says which command it proposed *last*. Whatever was lost and was issued, or still can be, lies at or below that
//!   number: if cast in b, it was proposed before this node started, and the nonce is of this start;
//!   if cast in a lower ballot, it is known to one of those who promised b, so it is in the history
//!   of b. When the state of this node is durable up to there, its word is good again. Only a leader under a
//!   membership that is not before one it has voted under may say so: others know nothing of its last votes.
//! - [`Silence::Behind`]: the state was lost, and votes up to `forgotten` are gone from the log
//!   because it had them. Until it has them again, no answer may say "no vote there". The same up to the membership
//!   that it has voted under: whoever was no acceptor before that relies on those who have what came before.
//! - [`Silence::Fresh`]: a new disk. This node may have had another one, and have spoken with it.
//!   So many of the other acceptors must have noted this disk and know of no other ([`notes_needed`])
//!   that a second disk of one node is found out by somebody.
//! - [`Silence::Replaced`]: it had another one, which is lost. It is silent for ever.
//!
//! *Durable* is what the learner's `Forget` says: a majority of learners, this one among them, has
//! it on disk. So a node that speaks again has, of every command that its lost votes may have
//! issued, the vote's worth on its own disk, and power cuts take nothing of it.

use std::collections::BTreeSet;

use protocol::message::{Rejoin, Rejoined, ToLeader};
use protocol::{Ballot, CommandNumber, MajoritySets, Message, NodeId};
use storage::{LogRecord, Standing};

use super::{Acceptor, Config, Effect, IgnoreReason};

/// Why an acceptor is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Silence {
    /// A new disk that too few acceptors have noted.
    Fresh,
    /// A disk in the place of one that was lost: for ever.
    Replaced,
    /// Votes may be lost, and the state does not reach what replaces them.
    Damaged,
    /// The state was lost, and does not reach again what it had.
    Behind,
}

impl Silence {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::Replaced, Self::Damaged, Self::Behind];

    /// The name in metrics and in the REST interface.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Replaced => "replaced",
            Self::Damaged => "damaged",
            Self::Behind => "behind",
        }
    }

    /// Whether the node may lead meanwhile: whether it knows which ballots it has begun (B1).
    #[must_use]
    pub fn may_lead(self) -> bool {
        match self {
            Self::Damaged | Self::Behind => true,
            Self::Fresh | Self::Replaced => false,
        }
    }
}

/// How many of the other acceptors must have noted a new disk before it speaks.
///
/// As many acceptors may lose their disks, this one among them, as majority sets do without. Any two
/// sets of this size have at least that many in common: so one who noted the disk before still knows it.
#[must_use]
pub fn notes_needed(acceptors: &MajoritySets, me: NodeId) -> usize {
    let others = acceptors.nodes().iter().filter(|node| **node != me).count();
    (others + acceptors.losses_max()).div_ceil(2)
}

/// What a silent acceptor waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Silent {
    pub(super) reason: Silence,
    /// The acceptors that have noted this disk.
    noted: BTreeSet<NodeId>,
    /// The answer of the highest ballot.
    rejoined: Option<Rejoined>,
    /// The state of this node is known to be durable up to here.
    durable: CommandNumber,
}

impl Silent {
    /// Whether an acceptor that starts with such a log, and a state that ends at `issued`, is silent.
    pub(super) fn at_start(
        config: &Config,
        standing: Standing,
        needed: CommandNumber,
        issued: CommandNumber,
    ) -> Option<Self> {
        let reason = match standing {
            // Where there is nobody else, nobody can know of another disk.
            Standing::Fresh if notes_needed(&config.acceptors, config.me) > 0 => Silence::Fresh,
            Standing::Replaced => Silence::Replaced,
            Standing::Damaged => Silence::Damaged,
            Standing::Fresh | Standing::Sound if needed > issued => Silence::Behind,
            Standing::Fresh | Standing::Sound => return None,
        };
        Some(Self { reason, noted: BTreeSet::new(), rejoined: None, durable: CommandNumber::NULL })
    }

    /// `needed`: whatever else is the case, the state must be durable up to there.
    fn is_over(&self, config: &Config, needed: CommandNumber) -> bool {
        match self.reason {
            Silence::Fresh => self.noted.len() >= notes_needed(&config.acceptors, config.me),
            Silence::Replaced => false,
            Silence::Damaged => {
                self.rejoined.as_ref().is_some_and(|rejoined| rejoined.last.max(needed) <= self.durable)
            }
            Silence::Behind => needed <= self.durable,
        }
    }
}

impl Acceptor {
    /// The disk says that this acceptor speaks before it does: it may get company later, to whom a log that is damaged by
    /// then must not look like that of one who has never voted.
    pub(super) fn note_itself(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.is_new) {
            effects.push(Effect::Persist(LogRecord::Standing(Standing::Sound)));
        }
    }

    /// Why this acceptor is silent; `None` when it speaks.
    #[must_use]
    pub fn silence(&self) -> Option<Silence> {
        self.silent.as_ref().map(|silent| silent.reason)
    }

    /// Whether its node may not lead either.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        self.silence().is_some_and(|silence| !silence.may_lead())
    }

    /// Votes may be lost and nobody need ask for any: a leader that has had this node's answers, or has
    /// nothing to propose, sends nothing. So it asks by itself, as if for a vote.
    pub(super) fn on_led(&self, ballot: Ballot, effects: &mut Vec<Effect>) {
        match self.silence() {
            Some(Silence::Damaged) if ballot < self.next_ballot => self.refuse(ballot.node, ballot, effects),
            Some(Silence::Damaged) => self.ask_to_rejoin(ballot, effects),
            Some(Silence::Fresh | Silence::Replaced | Silence::Behind) | None => {}
        }
    }

    /// Instead of a vote in `ballot`, which is not below the promise.
    pub(super) fn ask_to_rejoin(&self, ballot: Ballot, effects: &mut Vec<Effect>) {
        let asks = self.silent.as_ref().is_some_and(|silent| {
            silent.reason == Silence::Damaged && silent.rejoined.as_ref().is_none_or(|known| ballot != known.ballot)
        });
        if !asks {
            return effects.push(Effect::Ignored(IgnoreReason::Silent));
        }
        let rejoin = Rejoin { ballot, nonce: self.config.nonce };
        self.send(ballot.node, Message::Leader(ToLeader::Rejoin(rejoin)), effects);
    }

    /// The leader of a ballot says how far it has proposed. Each such answer is enough; the latest one counts, by
    /// membership and then by ballot, because the commands of an earlier one may never be issued.
    pub(super) fn on_rejoined(&mut self, from: NodeId, message: Rejoined, effects: &mut Vec<Effect>) {
        let (nonce, promise, voted_under) = (self.config.nonce, self.next_ballot, self.voted_under);
        let Some(silent) = self.silent.as_mut().filter(|silent| silent.reason == Silence::Damaged) else {
            return effects.push(Effect::Ignored(IgnoreReason::NotAsked));
        };
        let is_asked = message.nonce == nonce && message.ballot >= promise && message.ballot.node == from;
        let is_later = |known: &Rejoined| (message.membership, message.ballot) > (known.membership, known.ballot);
        if !is_asked || !silent.rejoined.as_ref().is_none_or(is_later) {
            return effects.push(Effect::Ignored(IgnoreReason::NotAsked));
        }
        if message.membership < voted_under {
            return effects.push(Effect::Ignored(IgnoreReason::EarlierMembership));
        }
        silent.rejoined = Some(message);
        self.speak_when_it_may(effects);
    }

    /// `peer` has durably noted the disk of this node, and knows of no other one.
    pub(super) fn on_noted(&mut self, peer: NodeId, effects: &mut Vec<Effect>) {
        let is_other = peer != self.config.me && self.config.acceptors.nodes().contains(&peer);
        if let Some(silent) = self.silent.as_mut().filter(|silent| silent.reason == Silence::Fresh && is_other) {
            silent.noted.insert(peer);
            self.speak_when_it_may(effects);
        }
    }

    /// The state of this node is durable up to there.
    pub(super) fn on_durable(&mut self, number: CommandNumber, effects: &mut Vec<Effect>) {
        if let Some(silent) = &mut self.silent {
            silent.durable = silent.durable.max(number);
            self.speak_when_it_may(effects);
        }
    }

    fn speak_when_it_may(&mut self, effects: &mut Vec<Effect>) {
        let (config, needed) = (&self.config, self.forgotten.max(self.voted_under));
        let Some(silent) = self.silent.take_if(|silent| silent.is_over(config, needed)) else { return };
        if let Some(Rejoined { ballot, last, .. }) = silent.rejoined {
            assert!(last <= self.forgotten, "a later loss of the state must make this node silent up to {last} again");
            if ballot > self.next_ballot {
                self.next_ballot = ballot;
                effects.push(Effect::Persist(LogRecord::NextBallot(ballot)));
            }
        }
        if silent.reason != Silence::Behind {
            effects.push(Effect::Persist(LogRecord::Standing(Standing::Sound)));
        }
        effects.push(Effect::Speaks);
    }
}
