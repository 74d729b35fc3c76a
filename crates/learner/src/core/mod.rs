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
//! # Caveats
//!
//! Everything known above the last issued command is forgotten in a restart; peers fill the
//! gap. A peer that has lost the beginning of its list cannot help yet: there is no transfer of
//! whole states.

use protocol::message::{CatchUp, Commands, Success, ToLearner, Voted};
use protocol::{Ballot, Command, CommandId, CommandNumber, LearnFrom, Message, NodeId, Now, Space, Tick};

mod ahead;
mod catch_up;
mod digests;
mod interface;
mod tally;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use catch_up::Timing;
pub use digests::{DIGESTS_MAX, DigestRefusal, Waiter};
pub use interface::{Config, Effect, IgnoreReason, Input};

use ahead::{Ahead, Chain, Declaration, Refused};
use catch_up::CatchingUp;
use digests::{Digests, Request};
use tally::{Tally, Uncounted};

/// The learner of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learner {
    config: Config,
    /// The last issued command.
    issued: CommandId,
    /// The highest ballot through which a declaration issued a command here.
    issued_through: Ballot,
    ahead: Ahead,
    tally: Tally,
    catching_up: CatchingUp,
    digests: Digests,
    /// The disk has no room for what would be applied.
    full: bool,
}

impl Learner {
    /// A learner that begins, or begins again, with what its store has applied.
    ///
    /// # Panics
    /// When the window is 0, or `peers` contains this node: a mistake in the wiring.
    #[must_use]
    pub fn new(mut config: Config, applied: CommandId) -> Self {
        assert!(config.window > 0, "claim 5: the window is at least 1");
        assert!(!config.peers.contains(&config.me), "a learner is not its own peer");
        config.peers.sort_unstable();
        Self {
            config,
            issued: applied,
            issued_through: Ballot::NONE,
            ahead: Ahead::default(),
            tally: Tally::default(),
            catching_up: CatchingUp::default(),
            digests: Digests::default(),
            full: false,
        }
    }

    /// The last command known here to be issued. Once the effects are carried out, it is
    /// applied as well.
    #[must_use]
    pub fn issued(&self) -> CommandId {
        self.issued
    }

    /// Takes one input and says what to do.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let now = now.tick;
        let outcome = match input {
            Input::Message { from, message: ToLearner::Success(success) } => {
                self.on_success(from, success, &mut effects)
            }
            Input::Message { from, message: ToLearner::Voted(voted) } => self.on_voted(from, &voted, &mut effects),
            Input::Message { from, message: ToLearner::CatchUp(catch_up) } => {
                self.on_catch_up(from, &catch_up, &mut effects)
            }
            Input::Message { from, message: ToLearner::Commands(commands) } => {
                self.on_commands(from, commands, now, &mut effects)
            }
            Input::Proposed { ballot, commands } => self.on_proposed(ballot, commands, &mut effects),
            Input::PeerIssued { peer, issued } => self.on_peer_issued(peer, issued),
            Input::PeerLost(peer) => {
                self.catching_up.peer_lost(peer);
                Ok(())
            }
            Input::DigestAt { waiter, number, patience } => {
                self.on_digest_at(waiter, number, now + patience, &mut effects);
                Ok(())
            }
            Input::DigestDone => {
                self.digests.done();
                Ok(())
            }
            Input::Space(space) if self.full == (space == Space::Out) => return effects,
            Input::Space(_) => {
                self.full = !self.full;
                self.advance(&mut effects);
                Ok(())
            }
            Input::Tick => {
                self.on_tick(now, &mut effects);
                Ok(())
            }
        };
        if let Err(reason) = outcome {
            effects.push(Effect::Ignored(reason));
        }
        self.ask_if_due(now, &mut effects);
        effects
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
        if !self.config.majority.nodes().contains(&from) {
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
        match self.tally.decided(&self.config.majority) {
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
        if self.full {
            return Err(IgnoreReason::NoRoom);
        }
        self.ahead.propose(ballot, command).map_err(|refused| refusal(refused, ballot.node, id))
    }

    /// Claim 4: a peer lacks commands.
    fn on_catch_up(&mut self, from: NodeId, catch_up: &CatchUp, effects: &mut Vec<Effect>) -> Result<(), IgnoreReason> {
        if !self.is_peer(from) {
            return Err(IgnoreReason::Stranger);
        }
        let first = catch_up.first;
        if first == CommandNumber::NULL {
            return Err(IgnoreReason::Malformed);
        }
        if first <= self.issued.number {
            effects.push(Effect::Serve { to: from, first });
        } else {
            self.send(from, ToLearner::Commands(Commands { commands: Vec::new(), issued: self.issued }), effects);
        }
        Ok(())
    }

    /// Claim 4: a peer answers.
    fn on_commands(
        &mut self,
        from: NodeId,
        answer: Commands,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IgnoreReason> {
        let Commands { commands, issued: theirs } = answer;
        if !self.is_peer(from) {
            return Err(IgnoreReason::Stranger);
        }
        let last = commands.last().map(|command| command.id);
        let within = last.is_none_or(|last| last == theirs || last.number < theirs.number);
        if !is_plausible(theirs) || !is_run(&commands) || !within {
            return Err(IgnoreReason::Malformed);
        }
        self.catching_up.peer_knows(from, theirs.number);
        if theirs.number == self.issued.number && theirs != self.issued {
            return Err(IgnoreReason::Contradiction { from, theirs, ours: self.issued });
        }
        let new = self.beyond_issued(from, commands)?;
        if self.full {
            return Err(IgnoreReason::NoRoom);
        }
        if let Some((theirs, ours)) = self.ahead.conflict(&new) {
            return Err(IgnoreReason::Contradiction { from, theirs, ours });
        }
        let asked = self.catching_up.awaits(from);
        self.issue(new, None, effects);
        self.advance(effects);
        if asked && theirs.number > self.issued.number {
            self.catching_up.ask_on(from, now);
            self.ask(from, effects);
        }
        Ok(())
    }

    /// Of a peer's issued commands, which are consecutive, those that continue our list.
    fn beyond_issued(&self, from: NodeId, mut commands: Vec<Command>) -> Result<Vec<Command>, IgnoreReason> {
        let ours = self.issued;
        let first = commands.first().ok_or(IgnoreReason::NothingNew)?.number();
        if first > ours.number.next() {
            return Err(IgnoreReason::NotNext);
        }
        if let Some(same) = commands.iter().find(|command| command.number() == ours.number && command.id != ours) {
            return Err(IgnoreReason::Contradiction { from, theirs: same.id, ours });
        }
        commands.retain(|command| command.number() > ours.number);
        let theirs = commands.first().ok_or(IgnoreReason::AlreadyIssued)?.precedent;
        if theirs != ours {
            return Err(IgnoreReason::Contradiction { from, theirs, ours });
        }
        Ok(commands)
    }

    fn on_peer_issued(&mut self, peer: NodeId, issued: CommandNumber) -> Result<(), IgnoreReason> {
        if !self.is_peer(peer) {
            return Err(IgnoreReason::Stranger);
        }
        self.catching_up.peer_knows(peer, issued);
        Ok(())
    }

    fn on_digest_at(&mut self, waiter: Waiter, number: Option<CommandNumber>, until: Tick, effects: &mut Vec<Effect>) {
        match self.digests.request(waiter, number, until, self.issued.number) {
            Request::Take => effects.push(Effect::Digest { waiter }),
            Request::Wait => {}
            Request::Refuse(reason) => effects.push(Effect::NoDigest { waiter, reason }),
        }
    }

    fn on_tick(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        for waiter in self.digests.expired(now) {
            effects.push(Effect::NoDigest { waiter, reason: DigestRefusal::NotReached });
        }
    }

    /// Issues what declarations and bodies together allow.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        while !self.full
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

    /// Asks a peer for what is missing, if it is time.
    fn ask_if_due(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Config { peers, window, timing, .. } = &self.config;
        if !self.full
            && let Some(peer) = self.catching_up.due(self.issued.number, *window, peers, *timing, now)
        {
            self.ask(peer, effects);
        }
    }

    fn ask(&self, peer: NodeId, effects: &mut Vec<Effect>) {
        self.send(peer, ToLearner::CatchUp(CatchUp { first: self.issued.number.next() }), effects);
    }

    /// The one place that sends, and what must be true of what is sent.
    fn send(&self, to: NodeId, message: ToLearner, effects: &mut Vec<Effect>) {
        assert!(self.is_peer(to), "learners write to their peers only");
        match &message {
            ToLearner::CatchUp(CatchUp { first }) => {
                assert_eq!(*first, self.issued.number.next(), "what is asked for is what comes next");
            }
            ToLearner::Commands(Commands { commands, issued }) => {
                assert!(commands.is_empty() && *issued == self.issued, "issued commands are sent from the store");
            }
            ToLearner::Success(_) | ToLearner::Voted(_) => panic!("a learner declares nothing and votes for nothing"),
        }
        effects.push(Effect::Send { to, message: Message::Learner(message) });
    }

    /// The highest number of which anything is kept.
    fn bound(&self) -> CommandNumber {
        CommandNumber(self.issued.number.0.saturating_add(self.config.window.saturating_mul(2)))
    }

    fn is_peer(&self, node: NodeId) -> bool {
        self.config.peers.contains(&node)
    }
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
