//! The acceptor as a pure state machine.
//!
//! It remembers a *promise* (`next_ballot`, the patent's `nextBal`: it takes part in no lower
//! ballot) and *votes* (`prevVote`: for each command number, the command that it voted for in
//! the highest ballot in which it voted there). Three things happen to it:
//!
//! - `NextBallot` (step 1) raises the promise, and the answer tells what was voted for so far;
//! - `BeginBallot` (steps 3', 3") asks for votes in the promised ballot (step 4);
//! - the learner of this node says what is known to be issued, and which votes are not needed any more.
//!
//! **Gap-free voting** (DESIGN 5 rule 5, checklist S-01), which the patent lacks and needs: a
//! vote for a command at `m` is cast only when this acceptor voted in the *same ballot* for its
//! precedent at `m - 1`, or knows that one to be issued. A command that comes too early waits.
//! So a vote for `m` stands for all numbers below, and a tally of an old ballot cannot come
//! true after one of its votes has been overwritten.
//!
//! **Memberships** (ADR 0026). A ballot is led under one membership, named by the number of the command that made it.
//! Whoever votes under one knows that command to be issued, durably. The acceptor keeps the number of the last one that
//! it has voted under, and votes in no ballot that is led under an earlier one.
//!
//! An acceptor whose disk has lost something is *silent* (see [`Silence`]) until that can do no harm.
//!
//! An older ballot's votes *above* a new vote are kept until they are voted on again: their
//! commands may still be anchored (the patent's FIG. 6), and only the next leader can tell.
//!
//! Caveats. Votes at numbers that are issued leave memory, not the disk: what a restarted
//! acceptor knows to be issued may be less than before, and then it tells of those votes again.
//! They leave the disk when their commands are in durable states of a majority of learners, this
//! node's among them: from then on any leader can learn those commands without votes.
//! Commands that wait are in memory only; a leader sends again what was not answered. Votes reach no further above what
//! this node knows to be issued than twice the window of the leaders, who count it from what *they* have issued.

mod answers;
#[cfg(test)]
mod properties;
mod reason;
mod silence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::message::{BallotInfo, BeginBallot, NextBallot, ToAcceptor, ToLeader};
use protocol::{Ballot, Command, CommandId, CommandNumber, LearnFrom, MajoritySets, Message, NodeId, Space, Vote};
use storage::{LogImage, LogRecord, Standing};

pub use reason::IgnoreReason;
use silence::Silent;
pub use silence::{Silence, notes_needed};

/// What an acceptor is told once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// How many commands beyond the last issued one a leader may begin ballots for (claim 5).
    /// Here it bounds the commands that wait for their precedents.
    pub window: usize,
    /// The majority sets of the membership in which this node starts; their nodes are the acceptors.
    pub acceptors: Arc<MajoritySets>,
    /// All learners, this node's included, until [`Input::Learners`] says otherwise.
    pub learners: Vec<NodeId>,
    /// Whether votes go to the learners too.
    pub learn_from: LearnFrom,
    /// The weight ([`storage::weight`]) of votes from which a `BallotInfo` is sent in several
    /// parts; a single vote may exceed it. 1 MiB is usual: far below the limit of a frame.
    pub part_bytes: usize,
    /// Drawn once for each start, so that no answer to an earlier one is taken for an answer to this.
    pub nonce: u64,
}

/// What happens to an acceptor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A message arrived.
    Message {
        /// The node that sent it, as the transport knows it.
        from: NodeId,
        /// The message.
        message: ToAcceptor,
    },
    /// The learner of this node knows all commands up to this one to be issued.
    Issued(CommandId),
    /// The commands up to this number are in durable states of a majority of learners, this node's
    /// among them: votes for them may go.
    Forget(CommandNumber),
    /// The membership has changed: these learn now. Nothing else of a membership concerns an acceptor: it promises
    /// and votes for whoever begins ballots, and who counts that is for others to know.
    Learners(Vec<NodeId>),
    /// This member has durably noted the disk of this node, and knows of no other one.
    Noted(NodeId),
    /// This ballot is led, as far as the failure detector of this node knows; told again and again while
    /// the acceptor is silent.
    Led(Ballot),
    /// How much room the disk has now.
    Space(Space),
}

/// What an acceptor wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Bodies of proposed commands, for the learner of this node. Claims nothing, so it need
    /// not wait for the disk.
    Proposed {
        /// The ballot in which they are proposed.
        ballot: Ballot,
        /// The commands, consecutive.
        commands: Vec<Command>,
    },
    /// A barrier: durable before any later `Send` is carried out.
    Persist(LogRecord),
    /// A message for a node, possibly this one.
    Send {
        /// The recipient.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// The acceptor was silent and speaks from now on; what let it is durable by now.
    Speaks,
    /// The input changed nothing.
    Ignored(IgnoreReason),
}

/// The acceptor of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acceptor {
    config: Config,
    /// The promise: no vote in a lower ballot.
    next_ballot: Ballot,
    /// The last command that this node knows to be issued.
    issued: CommandId,
    /// Votes up to here may be gone from the disk; never above `issued`.
    forgotten: CommandNumber,
    /// The last vote for each number above `issued`.
    votes: BTreeMap<CommandNumber, Vote>,
    /// Commands of ballot `next_ballot` whose precedents are missing here; at most `window`.
    waiting: BTreeMap<CommandNumber, Command>,
    /// The highest round of a `BeginBallot` received in `next_ballot`.
    round: u64,
    /// The number of the membership under which `next_ballot` is led, by its `BeginBallot`.
    membership: CommandNumber,
    /// The last membership under which it has voted. Durable with the first such vote; not above `issued`, unless the
    /// state was lost.
    voted_under: CommandNumber,
    /// The disk has no room for votes: none is cast. Promises are small, and rounds are free: they go on.
    full: bool,
    /// None while its word is good.
    silent: Option<Silent>,
    /// A new disk that needs nobody's note, and does not say yet that it speaks.
    is_new: bool,
}

impl Acceptor {
    /// The acceptor that left `image` behind, on a node that knows commands up to `issued` to
    /// be issued.
    ///
    /// It is silent ([`Acceptor::silence`]) if its log is not sound, or if this node has no longer what its votes are
    /// forgotten for, or were cast above.
    ///
    /// # Panics
    /// When a stored vote lies above the stored promise: a broken log of our own.
    #[must_use]
    pub fn new(config: Config, image: LogImage, issued: CommandId) -> Self {
        let LogImage { next_ballot, forgotten, standing, voted_under, .. } = image;
        let silent = Silent::at_start(&config, standing, forgotten.max(voted_under), issued.number);
        let is_new = standing == Standing::Fresh && silent.as_ref().is_none_or(|it| it.reason != Silence::Fresh);
        let above = image.votes.into_iter().filter(|vote| vote.command.number() > issued.number);
        let votes: BTreeMap<_, _> = above.map(|vote| (vote.command.number(), vote)).collect();
        assert!(
            votes.values().all(|vote| vote.ballot <= next_ballot),
            "invariant 3: a stored vote lies above the stored promise {next_ballot}"
        );
        let (waiting, round, membership, full) = (BTreeMap::new(), 0, CommandNumber::NULL, false);
        Self {
            config,
            next_ballot,
            issued,
            forgotten,
            votes,
            waiting,
            round,
            membership,
            voted_under,
            full,
            silent,
            is_new,
        }
    }

    /// The node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.config.me
    }

    /// The promise.
    #[must_use]
    pub fn next_ballot(&self) -> Ballot {
        self.next_ballot
    }

    /// The last command that this acceptor knows to be issued.
    #[must_use]
    pub fn issued(&self) -> CommandId {
        self.issued
    }

    /// The last votes for the numbers above [`Acceptor::issued`], ascending.
    pub fn votes(&self) -> impl Iterator<Item = &Vote> {
        self.votes.values()
    }

    /// Takes one input and adds what it leads to.
    pub fn handle(&mut self, input: Input, effects: &mut Vec<Effect>) {
        self.note_itself(effects);
        match input {
            Input::Message { from, message: ToAcceptor::NextBallot(message) } => {
                self.on_next_ballot(from, &message, effects);
            }
            Input::Message { from, message: ToAcceptor::BeginBallot(message) } => {
                self.on_begin_ballot(from, message, effects);
            }
            Input::Message { from, message: ToAcceptor::Rejoined(message) } => {
                self.on_rejoined(from, message, effects);
            }
            Input::Issued(id) => self.on_issued(id, effects),
            Input::Forget(number) => self.on_forget(number, effects),
            Input::Learners(learners) => self.config.learners = learners,
            Input::Noted(peer) => self.on_noted(peer, effects),
            Input::Led(ballot) => self.on_led(ballot, effects),
            Input::Space(space) => {
                self.full = space == Space::Out;
                if self.full {
                    self.waiting.clear();
                }
            }
        }
    }

    /// Step 2.
    fn on_next_ballot(&mut self, from: NodeId, message: &NextBallot, effects: &mut Vec<Effect>) {
        if let Some(reason) = reason::not_its_ballot(from, message.ballot) {
            return effects.push(Effect::Ignored(reason));
        }
        if message.ballot < self.next_ballot {
            return self.refuse(from, message.ballot, effects);
        }
        if self.silent.is_some() {
            return effects.push(Effect::Ignored(IgnoreReason::Silent));
        }
        if message.ballot > self.next_ballot {
            self.next_ballot = message.ballot;
            self.waiting.clear();
            (self.round, self.membership) = (0, CommandNumber::NULL);
            effects.push(Effect::Persist(LogRecord::NextBallot(message.ballot)));
        }
        self.tell_votes(message.first, effects);
    }

    /// Sends V of step 2, in parts that fit frames; one empty part when there is no vote.
    fn tell_votes(&self, first: CommandNumber, effects: &mut Vec<Effect>) {
        let mut parts = vec![Vec::new()];
        let mut bytes = 0;
        for vote in self.votes.range(first..).map(|(_, vote)| vote) {
            let weight = storage::weight(&vote.command);
            if bytes > 0 && bytes + weight > self.config.part_bytes {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += weight;
            parts.last_mut().expect("there is always a part").push(vote.clone());
        }
        let count = u32::try_from(parts.len()).expect("every part but one holds a vote of a bounded window");
        for (part, votes) in (0..count).zip(parts) {
            let (ballot, issued) = (self.next_ballot, self.issued);
            let info = BallotInfo { ballot, first, issued, votes, part, parts: count };
            self.send(ballot.node, Message::Leader(ToLeader::BallotInfo(info)), effects);
        }
    }

    /// Step 4.
    fn on_begin_ballot(&mut self, from: NodeId, message: BeginBallot, effects: &mut Vec<Effect>) {
        let BeginBallot { ballot, mut commands, round, membership } = message;
        if let Some(reason) = reason::not_its_ballot(from, ballot).or_else(|| reason::not_a_run(ballot, &commands)) {
            return effects.push(Effect::Ignored(reason));
        }
        if ballot < self.next_ballot {
            return self.refuse(from, ballot, effects);
        }
        if self.silent.is_some() {
            commands.retain(|command| command.number() > self.issued.number);
            if !commands.is_empty() {
                effects.push(Effect::Proposed { ballot, commands });
            }
            return self.ask_to_rejoin(ballot, effects);
        }
        if ballot > self.next_ballot {
            return effects.push(Effect::Ignored(IgnoreReason::NotPromised));
        }
        // Numbers up to the last issued one are decided; nothing depends on votes there.
        commands.retain(|command| command.number() > self.issued.number);
        if membership < self.voted_under {
            // All of them are above a change that their leader does not know: they are never issued.
            commands.clear();
        }
        if let Some(reason) = commands.iter().find_map(|command| self.contradicted(command)) {
            return effects.push(Effect::Ignored(reason));
        }
        if self.full {
            // They would wait in memory, for who knows how long. The leader sends them again.
            commands.retain(|command| self.has_voted_for(command.id));
        }
        self.round = self.round.max(round);
        // One for each ballot; should a leader of ours be broken, the higher one is counted by fewer.
        self.membership = self.membership.max(membership);
        let proposed = !commands.is_empty();
        if proposed {
            effects.push(Effect::Proposed { ballot, commands: commands.clone() });
        }
        for command in commands {
            if !self.has_voted_for(command.id) {
                self.waiting.insert(command.number(), command);
            }
        }
        self.vote_for_waiting(effects);
        // The highest ones stay: a leader begins no ballot beyond the window, so a command that
        // falls out here is issued already, and the learner will say so.
        while self.waiting.len() > self.config.window {
            self.waiting.pop_first();
        }
        self.tell_voted(proposed, effects);
    }

    /// What the learner of this node knows.
    fn on_issued(&mut self, id: CommandId, effects: &mut Vec<Effect>) {
        assert!(id.number >= self.issued.number, "invariant 7: issued commands never become fewer");
        assert!(
            id.number > self.issued.number || id == self.issued,
            "invariant 1: two commands issued at one number, {} and {id}",
            self.issued
        );
        if id == self.issued {
            return;
        }
        self.issued = id;
        self.votes = self.votes.split_off(&id.number.next());
        self.waiting = self.waiting.split_off(&id.number.next());
        let next = self.waiting.get(&id.number.next());
        if next.is_some_and(|command| !command.follows(id)) {
            // Another ballot issued another command here: this one's proposals come to nothing.
            self.waiting.clear();
        }
        if self.vote_for_waiting(effects) {
            self.tell_voted(true, effects);
        }
    }

    /// What a majority of learners keeps instead of votes.
    fn on_forget(&mut self, number: CommandNumber, effects: &mut Vec<Effect>) {
        // What is issued may have met a full mailbox; then the rest is forgotten when this is said again.
        let number = number.min(self.issued.number);
        if number > self.forgotten {
            self.forgotten = number;
            effects.push(Effect::Persist(LogRecord::Forget(number)));
        }
        self.on_durable(number, effects);
    }

    /// Casts all votes that the gap-free rule allows. True when there was one.
    fn vote_for_waiting(&mut self, effects: &mut Vec<Effect>) -> bool {
        let mut later = BTreeMap::new();
        let mut voted = false;
        for (number, command) in std::mem::take(&mut self.waiting) {
            // A ballot has commands above its membership only, so that a vote in it shows that to be issued. Who says
            // otherwise must not bind this acceptor to a membership that there is not.
            if !self.may_vote(&command) || self.membership > self.issued.number {
                later.insert(number, command);
                continue;
            }
            if self.membership > self.voted_under {
                self.voted_under = self.membership;
                effects.push(Effect::Persist(LogRecord::VotedUnder(self.membership)));
            }
            let vote = Vote { ballot: self.next_ballot, command };
            let earlier = self.votes.insert(number, vote.clone());
            assert!(
                earlier.is_none_or(|earlier| earlier.ballot < self.next_ballot),
                "B1: a second vote at {number} in ballot {}",
                self.next_ballot
            );
            effects.push(Effect::Persist(LogRecord::Vote(vote)));
            voted = true;
        }
        self.waiting = later;
        voted
    }

    /// DESIGN 5 rule 5; and memory is bounded where the learner of this node stands still.
    fn may_vote(&self, command: &Command) -> bool {
        let is_near = command.number().0 - self.issued.number.0 <= 2 * self.config.window as u64;
        is_near && (command.follows(self.issued) || self.has_voted_for(command.precedent))
    }

    /// Whether the vote for this command was cast in the promised ballot.
    fn has_voted_for(&self, id: CommandId) -> bool {
        self.voted_at(id.number).is_some_and(|command| command.id == id)
    }

    /// The command voted for at `number` in the promised ballot.
    fn voted_at(&self, number: CommandNumber) -> Option<&Command> {
        self.votes.get(&number).filter(|vote| vote.ballot == self.next_ballot).map(|vote| &vote.command)
    }

    /// Why a command of the promised ballot contradicts what is known here. Within one ballot
    /// all commands form one chain, which begins after the last issued command.
    fn contradicted(&self, command: &Command) -> Option<IgnoreReason> {
        let number = command.number();
        let at = |number: CommandNumber| self.voted_at(number).or_else(|| self.waiting.get(&number));
        if command.precedent.number == self.issued.number && !command.follows(self.issued) {
            return Some(IgnoreReason::NotAfterIssued);
        }
        if at(number).is_some_and(|known| known != command) {
            return Some(IgnoreReason::TwoCommandsAtOneNumber);
        }
        let below = number.previous().and_then(at);
        let above = at(number.next());
        let chained =
            below.is_none_or(|below| command.follows(below.id)) && above.is_none_or(|above| above.follows(command.id));
        (!chained).then_some(IgnoreReason::BrokenChain)
    }
}
