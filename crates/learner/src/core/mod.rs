//! The learner as a pure state machine (patent, steps 5 and 6, claims 2 to 4; DESIGN 5 and 7).
//!
//! # How a command comes to be issued here
//!
//! 1. *Bodies* arrive from the local acceptor ([`Input::Proposed`]), within a `Success`, or as
//!    the answer to a question. Having one claims nothing.
//! 2. *Declarations* say "all up to this id is issued": the leader's `Success` (claim 2), or our
//!    own count of the acceptors' votes (claim 3). [`LearnFrom`] says which of the two is on;
//!    `Success` is taken in both.
//! 3. When the bodies form a chain of precedents from the declared id down to the last issued
//!    command, the whole chain is issued at once, in order, without gaps. Until then the
//!    declaration is kept and nothing is applied (S-04, S-06).
//! 4. What stays missing is asked of peers (claim 4); an answer must begin where our list ends
//!    and name our last command as its precedent.
//!
//! # Rules
//!
//! - A declaration through a ballot below the one through which we issued last is not used
//!   (DESIGN 5 rule 6: the precedent is issued through a ballot no higher). It may be a late
//!   message of a leader that was in the right; then the next declaration or a peer brings the
//!   command. Answers to questions carry no ballot and leave that mark alone.
//! - Numbers more than two windows above the last issued one are not kept, which bounds memory:
//!   the leader begins none more than one window past what is issued, and we are a window
//!   behind it at most while things go well. Beyond that, catching up is the better way.
//! - Without room on the disk nothing is issued, since what is issued is applied, and no body is
//!   kept: that could be for long. With room again peers are asked.
//! - Two different commands issued at one number would break agreement. A peer's claim of such
//!   a thing is [`IgnoreReason::Contradiction`]: counted, shouted about, and not believed.
//!
//! - What nobody needs any more may be forgotten ([`durable`]). Who then lacks commands that nobody in touch keeps
//!   gets a whole state ([`fetching`], [`serving`]), and goes on from there: its list *jumps*. Nothing is issued
//!   while the state is being replaced. A state that is not later than ours, or contradicts what is known to be
//!   issued, is not taken (S-18).
//!
//! - The membership changes by a command like any other (ADR 0025); the node says so when it is applied
//!   ([`Input::Membership`]). Own counts are of votes in ballots that are led under the membership in force here, and of
//!   no others: the acceptors of those are not the ones that decide. The ballots of two memberships are not in one order:
//!   a change may be learnt through a higher ballot than the one in which the command after it is issued. So with a
//!   change the first rule begins anew, and bodies that do not follow what is issued are dropped (ADR 0026).
//!
//! # Caveats
//!
//! Everything known above the last issued command is forgotten in a restart; peers fill the
//! gap. What is staged of a whole state is not.

use std::cmp::Ordering;
use std::sync::Arc;

use protocol::message::{FetchSnapshot, Snapshot, Success, ToLearner, Voted};
use protocol::{Ballot, Command, CommandId, CommandNumber, LearnFrom, Membership, Message, NodeId, Now, Space, Tick};

mod ahead;
mod answers;
mod catch_up;
mod digests;
mod durable;
mod fetching;
mod interface;
mod serving;
mod snapshots;
mod tally;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use catch_up::Timing;
pub use digests::{DigestRefusal, Waiter};
pub use interface::{Config, Effect, IgnoreReason, Input, Stored};
pub use serving::CHECKPOINTS_MAX;

use ahead::{Ahead, Chain, Declaration, Refused};
use catch_up::CatchingUp;
use digests::Digests;
use durable::Durable;
use fetching::Fetching;
use serving::Serving;
use tally::{Tally, Uncounted};

/// The learner of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learner {
    config: Config,
    /// The other learners, ascending.
    peers: Vec<NodeId>,
    /// The last issued command.
    issued: CommandId,
    /// The highest ballot through which a declaration issued a command here, under the membership in force.
    issued_through: Ballot,
    ahead: Ahead,
    tally: Tally,
    catching_up: CatchingUp,
    durable: Durable,
    /// The lowest number whose command the store keeps, as it last said.
    kept_from: CommandNumber,
    serving: Serving,
    fetching: Fetching,
    digests: Digests,
    /// The room of the disk.
    space: Space,
}

impl Learner {
    /// A learner that begins, or begins again, with what its store holds.
    ///
    /// # Panics
    /// When the window is 0: a mistake in the wiring.
    #[must_use]
    pub fn new(config: Config, stored: impl Into<Stored>) -> Self {
        let Stored { applied, staged } = stored.into();
        assert!(config.window > 0, "claim 5: the window is at least 1");
        Self {
            peers: peers_of(&config),
            config,
            issued: applied,
            issued_through: Ballot::NONE,
            ahead: Ahead::default(),
            tally: Tally::default(),
            catching_up: CatchingUp::default(),
            durable: Durable::default(),
            kept_from: CommandNumber::NULL,
            serving: Serving::default(),
            fetching: Fetching::new(staged),
            digests: Digests::default(),
            space: Space::Ample,
        }
    }

    /// The last command known here to be issued. Once the effects are carried out, it is
    /// applied as well.
    #[must_use]
    pub fn issued(&self) -> CommandId {
        self.issued
    }

    /// The membership in force here.
    #[must_use]
    pub fn membership(&self) -> &Arc<Membership> {
        &self.config.membership
    }

    /// Takes one input and says what to do.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let now = now.tick;
        if let Err(reason) = self.take(input, now, &mut effects) {
            effects.push(Effect::Ignored(reason));
        }
        if self.is_full() {
            self.make_room(now, &mut effects);
        } else if !self.fetching.is_installing() {
            self.ask_if_due(now, &mut effects);
            self.transfer(now, &mut effects);
        }
        effects
    }

    fn take(&mut self, input: Input, now: Tick, effects: &mut Vec<Effect>) -> Result<(), IgnoreReason> {
        match input {
            Input::Message { from, message } => return self.on_message(from, message, now, effects),
            Input::Proposed { ballot, commands } => return self.on_proposed(ballot, commands, effects),
            Input::PeerIssued { peer, issued } => return self.on_peer_issued(peer, issued),
            Input::PeerDurable { peer, durable } => return self.on_peer_durable(peer, durable),
            Input::Installed(installation) => return self.on_installed(installation, now, effects),
            Input::PeerLost(peer) => self.on_peer_lost(peer),
            Input::Kept { durable, kept_from } => {
                self.durable.own(durable);
                self.kept_from = kept_from;
            }
            Input::CheckpointMade(id) => self.on_checkpoint_made(id, now, effects),
            Input::Staged(staged) => return self.on_staged(staged, now, effects),
            Input::DigestAt { waiter, number, patience } => self.on_digest_at(waiter, number, now + patience, effects),
            Input::Space(space) => {
                let was_full = self.is_full();
                self.space = space;
                if was_full != self.is_full() {
                    self.advance(effects);
                }
            }
            Input::Membership(membership) => self.on_membership(membership),
            Input::Tick => self.on_tick(now, effects),
        }
        Ok(())
    }

    fn on_message(
        &mut self,
        from: NodeId,
        message: ToLearner,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        match message {
            ToLearner::Success(success) => self.on_success(from, success, effects),
            ToLearner::Voted(voted) => self.on_voted(from, &voted, effects),
            ToLearner::CatchUp(catch_up) => self.on_catch_up(from, &catch_up, effects),
            ToLearner::Commands(commands) => self.on_commands(from, commands, now, effects),
            ToLearner::FetchSnapshot(fetch) => self.on_fetch_snapshot(from, fetch, now, effects),
            ToLearner::Snapshot(snapshot) => self.on_snapshot(from, snapshot, now, effects),
        }
    }

    /// Claim 2: the leader declares.
    fn on_success(&mut self, from: NodeId, success: Success, effects: &mut Vec<Effect>) -> Result<(), IgnoreReason> {
        let Success { ballot, issued: id, commands } = success;
        if from != ballot.node {
            return Err(IgnoreReason::NotTheOwner);
        }
        let ends_there = commands.last().is_none_or(|last| last.id == id);
        if !is_plausible(id) || id.ballot > ballot || !is_run(&commands) || !ends_there {
            return Err(IgnoreReason::Malformed);
        }
        if self.is_peer(from) {
            self.catching_up.peer_knows(from, id.number);
        }
        self.check_declaration(from, id)?;
        for command in commands {
            // A body that is not kept shows as a hole in the chain, which is asked for.
            let _kept = self.keep(ballot, command);
        }
        self.declare(from, ballot, id, effects)
    }

    /// Claim 3: an acceptor voted; the learner decides.
    fn on_voted(&mut self, from: NodeId, voted: &Voted, effects: &mut Vec<Effect>) -> Result<(), IgnoreReason> {
        match self.config.learn_from {
            LearnFrom::Leader => return Err(IgnoreReason::NotCounting),
            LearnFrom::Voters => {}
        }
        let ours = self.config.membership.number();
        if voted.membership != ours {
            // Whoever leads under it knows the command that made it to be issued.
            self.catching_up.heard_of(voted.membership);
            return Err(IgnoreReason::OtherMembership);
        }
        if !self.config.membership.is_acceptor(from) {
            return Err(IgnoreReason::Stranger);
        }
        let run = voted.run.ok_or(IgnoreReason::NothingNew)?;
        let last = run.last;
        if !is_plausible(last) || last.ballot > voted.ballot || run.first > last.number || run.first.0 == 0 {
            return Err(IgnoreReason::Malformed);
        }
        self.tally.count(from, voted.ballot, last).map_err(|uncounted| match uncounted {
            Uncounted::OlderBallot => IgnoreReason::OlderBallot,
            Uncounted::NothingNew => IgnoreReason::NothingNew,
            Uncounted::Contradicts(ours) => IgnoreReason::Contradiction { from, theirs: last, ours },
        })?;
        match self.tally.decided(self.config.membership.majority()) {
            Some((ballot, id)) if id.number > self.issued.number => {
                self.check_declaration(from, id)?;
                self.declare(from, ballot, id, effects)
            }
            Some((_, id)) if id.number == self.issued.number && id != self.issued => {
                Err(IgnoreReason::Contradiction { from, theirs: id, ours: self.issued })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// From now on others learn, and others' votes count: those of ballots that are led under it.
    fn on_membership(&mut self, membership: Arc<Membership>) {
        // Who was told of it before learns now that it is in force.
        if membership.number() < self.config.membership.number() {
            return;
        }
        self.config.membership = membership;
        self.tally = Tally::default();
        self.issued_through = Ballot::NONE;
        self.ahead.keep_what_follows(self.issued);
        let before = std::mem::replace(&mut self.peers, peers_of(&self.config));
        for gone in before.into_iter().filter(|peer| !self.peers.contains(peer)).collect::<Vec<_>>() {
            self.on_peer_lost(gone);
            self.durable.left(gone);
        }
    }

    /// The guards that both kinds of declaration pass.
    fn check_declaration(&mut self, from: NodeId, id: CommandId) -> Result<(), IgnoreReason> {
        if id.number == self.issued.number && id != self.issued {
            return Err(IgnoreReason::Contradiction { from, theirs: id, ours: self.issued });
        }
        if id.number <= self.issued.number {
            return Err(IgnoreReason::AlreadyIssued);
        }
        self.catching_up.heard_of(id.number);
        if id.number > self.bound() {
            return Err(IgnoreReason::BeyondWindow);
        }
        Ok(())
    }

    /// Takes a declaration that passed the guards, and issues what it allows.
    fn declare(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        id: CommandId,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        let taken = self.ahead.declare(Declaration { from, ballot, id }).map_err(|refused| refusal(refused, from, id));
        self.advance(effects);
        taken
    }

    /// A body from the local acceptor.
    fn on_proposed(
        &mut self,
        ballot: Ballot,
        commands: Vec<Command>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        if !is_run(&commands) || commands.iter().any(|command| command.id.ballot > ballot) {
            return Err(IgnoreReason::Malformed);
        }
        if commands.last().is_some_and(|last| last.number() <= self.issued.number) {
            return Err(IgnoreReason::AlreadyIssued);
        }
        let mut outcome = Ok(());
        let issued = self.issued.number;
        for command in commands.into_iter().filter(|command| command.number() > issued) {
            // Of a run that is kept in part, the last refusal is told.
            outcome = self.keep(ballot, command).and(outcome);
        }
        self.advance(effects);
        outcome
    }

    /// Keeps a body as a candidate.
    fn keep(&mut self, ballot: Ballot, command: Command) -> Result<(), IgnoreReason> {
        let id = command.id;
        if id.number <= self.issued.number {
            return Err(IgnoreReason::AlreadyIssued);
        }
        if id.number > self.bound() {
            return Err(IgnoreReason::BeyondWindow);
        }
        if self.is_full() {
            return Err(IgnoreReason::NoRoom);
        }
        self.ahead.propose(ballot, command).map_err(|refused| refusal(refused, ballot.node, id))
    }

    fn on_peer_durable(&mut self, peer: NodeId, durable: CommandNumber) -> Result<(), IgnoreReason> {
        if !self.is_peer(peer) {
            return Err(IgnoreReason::Stranger);
        }
        self.durable.peer(peer, durable);
        Ok(())
    }

    fn on_peer_lost(&mut self, peer: NodeId) {
        self.catching_up.peer_lost(peer);
        self.durable.peer_lost(peer);
        self.serving.peer_lost(peer);
        self.fetching.peer_lost(peer);
    }

    fn on_digest_at(&mut self, waiter: Waiter, number: CommandNumber, until: Tick, effects: &mut Vec<Effect>) {
        match number.cmp(&self.issued.number) {
            Ordering::Less => effects.push(Effect::NoDigest { waiter, reason: DigestRefusal::Gone }),
            // A state that is being replaced may be another one already.
            Ordering::Equal if !self.fetching.is_installing() => effects.push(Effect::Digest { waiter }),
            Ordering::Equal | Ordering::Greater => self.digests.wait(waiter, number, until),
        }
    }

    fn on_tick(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        for waiter in self.digests.expired(now) {
            effects.push(Effect::NoDigest { waiter, reason: DigestRefusal::NotReached });
        }
        effects
            .extend(self.serving.expired(self.config.timing.keep_open, now).into_iter().map(Effect::CloseCheckpoint));
        let learners = self.peers.len() + 1;
        if let Some([durable, in_touch]) = self.durable.due(learners, self.config.timing.forget, now) {
            effects.push(Effect::Forget { durable, in_touch });
        }
        if self.durable.reclaims(self.space, self.config.timing.reclaim, now) {
            effects.push(Effect::Reclaim(self.space));
        }
    }

    /// The disk has no room for what would be applied.
    fn is_full(&self) -> bool {
        self.space == Space::Out
    }

    /// Issues what declarations and bodies together allow.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        if self.fetching.is_installing() {
            return;
        }
        while !self.is_full()
            && let Some(Declaration { from, ballot, id }) = self.ahead.lowest_declared()
        {
            assert!(id.number > self.issued.number, "{id} is kept as ahead of {}, which is issued", self.issued);
            if ballot < self.issued_through {
                self.ahead.withdraw(id.number);
                effects.push(Effect::Ignored(IgnoreReason::OlderBallot));
                continue;
            }
            match self.ahead.chain(self.issued, id) {
                Chain::Complete(commands) => self.issue(commands, Some(ballot), effects),
                Chain::Incomplete => return,
                Chain::Contradicts(theirs) => {
                    self.ahead.withdraw(id.number);
                    let reason = IgnoreReason::Contradiction { from, theirs, ours: self.issued };
                    effects.push(Effect::Ignored(reason));
                }
            }
        }
    }

    /// The one place where commands become issued. `through` is the ballot of the declaration;
    /// a peer's answer has none.
    fn issue(&mut self, mut commands: Vec<Command>, through: Option<Ballot>, effects: &mut Vec<Effect>) {
        assert!(!self.fetching.is_installing(), "nothing is issued while the state is being replaced");
        if let Some(ballot) = through {
            assert!(
                ballot >= self.issued_through,
                "DESIGN 5 rule 6: a command issued through {ballot} after its precedent through {}",
                self.issued_through
            );
            self.issued_through = ballot;
        }
        let mut last = self.issued;
        for command in &commands {
            assert_eq!(command.number(), last.number.next(), "issued commands have no gaps");
            assert!(command.follows(last), "{} is issued after {last}, which is not its precedent", command.id);
            last = command.id;
        }
        let mut done = self.issued.number;
        while let Some((number, waiter)) = self.digests.next_due(last.number) {
            let rest = commands.split_off(usize::try_from(number.0 - done.0).expect("within the run"));
            push_apply(commands, effects);
            effects.push(Effect::Digest { waiter });
            (commands, done) = (rest, number);
        }
        push_apply(commands, effects);
        self.issued = last;
        self.ahead.forget_through(last.number);
        self.catching_up.progressed();
    }

    /// The one place that sends, and what must be true of what is sent.
    fn send(&self, to: NodeId, message: ToLearner, effects: &mut Vec<Effect>) {
        assert!(self.is_peer(to), "learners write to their peers only");
        match &message {
            ToLearner::FetchSnapshot(FetchSnapshot { id, .. }) => {
                assert!(id.is_none_or(|id| id.at.number > self.issued.number), "only a later state is of use");
            }
            ToLearner::Snapshot(Snapshot { piece, .. }) => {
                assert!(piece.is_none(), "pieces of a state are sent from a checkpoint");
            }
            ToLearner::CatchUp(_) => panic!("questions need not wait until everything is applied"),
            ToLearner::Commands(_) => panic!("issued commands are sent from the store"),
            ToLearner::Success(_) | ToLearner::Voted(_) => panic!("a learner declares nothing and votes for nothing"),
        }
        effects.push(Effect::Send { to, message: Message::Learner(message) });
    }

    /// The highest number of which anything is kept.
    fn bound(&self) -> CommandNumber {
        CommandNumber(self.issued.number.0.saturating_add(self.config.window.saturating_mul(2)))
    }

    fn is_peer(&self, node: NodeId) -> bool {
        self.peers.contains(&node)
    }
}

fn peers_of(config: &Config) -> Vec<NodeId> {
    config.membership.learners().filter(|node| *node != config.me).collect()
}

fn push_apply(commands: Vec<Command>, effects: &mut Vec<Effect>) {
    if !commands.is_empty() {
        effects.push(Effect::Apply(commands));
    }
}

fn refusal(refused: Refused, from: NodeId, theirs: CommandId) -> IgnoreReason {
    match refused {
        Refused::OlderBallot => IgnoreReason::OlderBallot,
        Refused::Contradicts(ours) => IgnoreReason::Contradiction { from, theirs, ours },
    }
}

/// Whether an id can be one: the null command's, or one proposed in a ballot. The last number
/// has no successor and is taken for none.
fn is_plausible(id: CommandId) -> bool {
    id == CommandId::NULL || (id.number != CommandNumber::NULL && id.number.0 < u64::MAX && id.ballot.round > 0)
}

/// Whether each command is well formed and the precedent of the next.
fn is_run(commands: &[Command]) -> bool {
    commands.iter().all(Command::is_well_formed) && commands.windows(2).all(|pair| pair[1].follows(pair[0].id))
}
