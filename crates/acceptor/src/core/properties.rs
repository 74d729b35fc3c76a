//! Random interleavings, with crashes that lose what was not synced, and disks that lose votes or the state.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::message::{Rejoined, ToLearner, Voted};
use storage::Standing;

use super::*;

const ROUNDS: u64 = 6;

/// One thing that happens. Few ballots and commands, near what the acceptor knows, so that they
/// meet: command numbers are counted from the last issued one.
#[derive(Clone, Debug)]
enum Step {
    Next {
        ballot: Ballot,
        ahead: u64,
    },
    /// In the promised ballot, or in another one. A ballot is led under the membership that the last issued command
    /// has made when it begins, or under that of the genesis.
    Begin {
        changed: bool,
        other: Option<Ballot>,
        ahead: u64,
        length: u64,
        forked: bool,
        round: u64,
    },
    Issued {
        ahead: u64,
    },
    /// All but the last `behind` issued commands are durable everywhere; perhaps said too early.
    Forget {
        behind: u64,
    },
    /// The disk has no room, or some again.
    Room(bool),
    /// The actor syncs and sends.
    Flush,
    /// kill -9; `behind` numbers of what was issued were not durable.
    Crash {
        behind: u64,
    },
    /// The same, and all votes are lost.
    Damage,
    /// The same, and the state is lost.
    StateLost,
    /// One of the last answers of leaders arrives, perhaps one to an earlier start.
    Rejoined(prop::sample::Index),
    /// The failure detector says who leads, rightly or not.
    Led(Ballot),
}

fn step() -> impl Strategy<Value = Step> {
    let ballot = || (1..=ROUNDS, 1..=3u64).prop_map(|(round, node)| Ballot::new(round, NodeId(node)));
    let other = prop::option::weighted(0.2, ballot());
    let begin = (any::<bool>(), other, 1..5u64, 0..4u64, prop::bool::weighted(0.15), 0..5u64);
    prop_oneof![
        4 => (ballot(), 0..4u64).prop_map(|(ballot, ahead)| Step::Next { ballot, ahead }),
        40 => begin.prop_map(|(changed, other, ahead, length, forked, round)| {
            Step::Begin { changed, other, ahead, length, forked, round }
        }),
        8 => (1..4u64).prop_map(|ahead| Step::Issued { ahead }),
        8 => (0..3u64).prop_map(|behind| Step::Forget { behind }),
        3 => prop::bool::weighted(0.8).prop_map(Step::Room),
        14 => Just(Step::Flush),
        3 => (0..3u64).prop_map(|behind| Step::Crash { behind }),
        1 => prop::bool::weighted(0.3).prop_map(|state| if state { Step::StateLost } else { Step::Damage }),
        8 => any::<prop::sample::Index>().prop_map(Step::Rejoined),
        4 => ballot().prop_map(Step::Led),
    ]
}

/// The command at `number`: of one chain over all ballots, as after recoveries that chose it
/// again, or forked, first proposed in the ballot itself.
fn command(number: u64, ballot: Ballot, forked: bool) -> Command {
    let origin = |number: u64| match (number, forked) {
        (0, _) => CommandId::NULL,
        (_, true) => CommandId::new(ballot, CommandNumber(number)),
        (_, false) => CommandId::new(Ballot::new(1, NodeId(1)), CommandNumber(number)),
    };
    Command { id: origin(number), precedent: origin(number - 1), body: Bytes::new() }
}

/// What a disk and the outside world have seen of one acceptor.
struct World {
    acceptor: Acceptor,
    durable: LogImage,
    issued: Vec<CommandId>,
    /// The state of this node is durable up to here.
    state: usize,
    unsynced: Vec<LogRecord>,
    unsent: Vec<Message>,
    /// Every vote that anybody was told of, by ballot and number.
    told: BTreeMap<(Ballot, CommandNumber), CommandId>,
    promised: Ballot,
    votes: usize,
    /// Counts the starts: the nonce of each.
    life: u64,
    /// The last number proposed in each ballot.
    proposed: BTreeMap<Ballot, CommandNumber>,
    /// The membership under which each ballot is led.
    under: BTreeMap<Ballot, CommandNumber>,
    /// What leaders have answered, each when it was asked.
    answers: Vec<Rejoined>,
    /// Votes that were durable, and are lost.
    lost: Vec<(Ballot, CommandNumber)>,
    rejoined: usize,
}

fn config(nonce: u64) -> Config {
    let learners = vec![NodeId(1), NodeId(2)];
    let acceptors = MajoritySets::simple(learners.clone()).expect("two nodes");
    Config {
        me: NodeId(2),
        window: 3,
        acceptors: acceptors.into(),
        learners,
        learn_from: LearnFrom::Voters,
        part_bytes: 200,
        nonce,
    }
}

impl World {
    fn new() -> Self {
        Self {
            acceptor: Acceptor::new(config(0), LogImage::default(), CommandId::NULL),
            durable: LogImage::default(),
            issued: vec![CommandId::NULL],
            state: 0,
            unsynced: vec![],
            unsent: vec![],
            told: BTreeMap::new(),
            promised: Ballot::NONE,
            votes: 0,
            life: 0,
            proposed: BTreeMap::new(),
            under: BTreeMap::new(),
            answers: vec![],
            lost: vec![],
            rejoined: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Next { ballot, ahead } => {
                let first = CommandNumber(self.acceptor.issued().number.0 + ahead);
                let message = ToAcceptor::NextBallot(NextBallot { ballot, first });
                self.handle(Input::Message { from: ballot.node, message });
            }
            Step::Begin { changed, other, ahead, length, forked, round } => {
                let ballot = other.unwrap_or(self.acceptor.next_ballot());
                let issued = self.acceptor.issued().number;
                let change = if changed { issued } else { CommandNumber::NULL };
                let membership = *self.under.entry(ballot).or_insert(change);
                let first = membership.max(issued).0 + ahead;
                let last = CommandNumber((first + length).saturating_sub(1));
                let proposed = self.proposed.entry(ballot).or_default();
                *proposed = last.max(*proposed);
                let commands = (first..first + length).map(|number| command(number, ballot, forked)).collect();
                let message = ToAcceptor::BeginBallot(BeginBallot { ballot, commands, round, membership });
                self.handle(Input::Message { from: ballot.node, message });
            }
            Step::Issued { ahead } => {
                for _ in 0..ahead {
                    let number = self.issued.len() as u64;
                    self.issued.push(command(number, Ballot::NONE, false).id);
                }
                self.handle(Input::Issued(*self.issued.last().expect("the null command")));
            }
            Step::Forget { behind } => {
                let last = self.issued.len() - 1;
                self.state = self.state.max(last.saturating_sub(usize::try_from(behind).expect("small")));
                self.handle(Input::Forget(CommandNumber(self.state as u64)));
            }
            Step::Room(room) => self.handle(Input::Space(if room { Space::Low } else { Space::Out })),
            Step::Flush => self.flush(),
            Step::Crash { behind } => self.start(usize::try_from(behind).expect("small")),
            Step::Damage => {
                let LogImage { last_tried, next_ballot, voted_under, .. } = self.durable;
                let standing = Standing::Damaged;
                let damaged = LogImage { last_tried, next_ballot, standing, voted_under, ..LogImage::default() };
                let before = std::mem::replace(&mut self.durable, damaged);
                self.lost.extend(before.votes.iter().map(|vote| (vote.ballot, vote.command.number())));
                self.start(0);
            }
            Step::StateLost => {
                self.state = 0;
                self.start(self.issued.len());
            }
            Step::Led(ballot) => self.handle(Input::Led(ballot)),
            Step::Rejoined(index) if self.answers.is_empty() => _ = index,
            Step::Rejoined(index) => {
                let message = index.get(&self.answers).clone();
                let from = message.ballot.node;
                self.handle(Input::Message { from, message: ToAcceptor::Rejoined(message) });
            }
        }
    }

    /// What was not synced is lost, and of what was issued, `behind` numbers above the durable ones.
    fn start(&mut self, behind: usize) {
        self.unsynced.clear();
        self.unsent.clear();
        let kept = self.issued.len().saturating_sub(behind).max(self.state + 1);
        self.issued.truncate(kept);
        let issued = *self.issued.last().expect("the null command");
        self.life += 1;
        self.acceptor = Acceptor::new(config(self.life), self.durable.clone(), issued);
    }

    /// A leader that leads the ballot says how far it has proposed by now.
    fn asks(&mut self, ballot: Ballot, nonce: u64) {
        let last = self.proposed.get(&ballot).copied().unwrap_or_default();
        let membership = self.under.get(&ballot).copied().unwrap_or_default();
        let answer = Rejoined { ballot, nonce, last, membership };
        if !self.answers.contains(&answer) {
            self.answers.push(answer);
        }
        if self.answers.len() > 4 {
            self.answers.remove(0);
        }
    }

    /// What must be so when it speaks again: whatever it may have voted for in the ballot that it takes
    /// part in is durably learnt. (Votes in lower ballots are the leader's to know of, where it leads under a membership
    /// that is not before theirs.)
    fn speaks(&mut self) {
        self.rejoined += 1;
        let promise = self.acceptor.next_ballot();
        let under = |ballot: &Ballot| self.under.get(ballot).copied().unwrap_or_default();
        for (ballot, number) in &self.lost {
            assert!(under(ballot) <= under(&promise), "a leader under an earlier membership knows nothing of {number}");
            assert!(
                *ballot < promise || number.0 <= self.state as u64,
                "it speaks in {promise}, has lost its vote at {number} there, and has {} durable",
                self.state
            );
        }
    }

    fn handle(&mut self, input: Input) {
        let before = self.acceptor.clone();
        let mut effects = Vec::new();
        self.acceptor.handle(input.clone(), &mut effects);
        assert!(self.acceptor.next_ballot() >= before.next_ballot(), "the promise goes down");
        assert!(self.acceptor.waiting.len() <= config(0).window, "more than a window waits");
        assert!(self.acceptor.forgotten >= before.forgotten, "what is forgotten comes back");
        let is_silent = self.acceptor.silence().is_some();
        let has_forgotten = self.acceptor.forgotten <= self.acceptor.issued().number;
        assert!(has_forgotten || is_silent, "a vote is forgotten that is still needed");
        let knows_change = self.acceptor.voted_under <= self.acceptor.issued().number;
        assert!(knows_change || is_silent, "it does not have what its votes are above");
        let mut voted: BTreeSet<CommandId> = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Persist(record) => {
                    if let LogRecord::Vote(vote) = &record {
                        assert!(before.silence().is_none(), "a vote of a silent acceptor");
                        self.judge(&before, vote, &voted);
                        voted.insert(vote.command.id);
                        self.votes += 1;
                    }
                    self.unsynced.push(record);
                }
                Effect::Send { message, .. } => self.unsent.push(message),
                Effect::Ignored(_) => assert_eq!(self.acceptor, before, "an ignored input changed something"),
                Effect::Speaks => self.speaks(),
                Effect::Proposed { .. } => {}
            }
        }
        if matches!(input, Input::Message { .. }) {
            let once = self.acceptor.clone();
            let mut again = Vec::new();
            self.acceptor.handle(input, &mut again);
            assert_eq!(self.acceptor, once, "a repetition changed something");
            assert!(!again.iter().any(|effect| matches!(effect, Effect::Persist(_))), "a repetition is persisted");
        }
    }

    /// The rules of a single vote.
    fn judge(&self, before: &Acceptor, vote: &Vote, just: &BTreeSet<CommandId>) {
        let command = &vote.command;
        assert_eq!(vote.ballot, self.acceptor.next_ballot(), "a vote in another ballot than the promised one");
        let gap_free = command.precedent == self.acceptor.issued()
            || just.contains(&command.precedent)
            || before.has_voted_for(command.precedent);
        assert!(gap_free, "a vote with a gap: {vote:?}");
        assert!(!before.full, "a vote for which there is no room: {vote:?}");
        let (under, known) = (self.under[&vote.ballot], before.voted_under);
        assert!(under >= known, "a vote under {under} after one under {known}: {vote:?}");
    }

    /// One sync, then all sends, which are checked against the disk.
    fn flush(&mut self) {
        for record in self.unsynced.drain(..) {
            match record {
                LogRecord::NextBallot(ballot) => self.durable.next_ballot = ballot,
                LogRecord::Vote(vote) => {
                    self.durable.votes.retain(|old| old.command.number() != vote.command.number());
                    self.durable.votes.push(vote);
                }
                LogRecord::Forget(number) => {
                    self.durable.forgotten = number;
                    self.durable.votes.retain(|vote| vote.command.number() > number);
                }
                LogRecord::Standing(standing) => self.durable.standing = standing,
                LogRecord::VotedUnder(number) => {
                    assert!(number > self.durable.voted_under, "it votes under {number}, and has under a later one");
                    self.durable.voted_under = number;
                }
                LogRecord::LastTried(_) => panic!("lastTried is the leader's"),
            }
        }
        for message in std::mem::take(&mut self.unsent) {
            let ballot = if let Message::Leader(ToLeader::BallotInfo(info)) = &message {
                info.ballot
            } else if let Message::Leader(ToLeader::MyNextBal(refusal)) = &message {
                refusal.ballot
            } else if let Message::Leader(ToLeader::Voted(voted)) | Message::Learner(ToLearner::Voted(voted)) = &message
            {
                self.hear(voted);
                voted.ballot
            } else if let Message::Leader(ToLeader::Rejoin(rejoin)) = &message {
                self.asks(rejoin.ballot, rejoin.nonce);
                continue;
            } else {
                panic!("an acceptor does not send {}", message.name());
            };
            assert!(ballot >= self.promised, "what is told of the promise goes down, over crashes too");
            assert!(ballot <= self.durable.next_ballot, "a promise is told that is not durable");
            self.promised = ballot;
        }
    }

    fn hear(&mut self, voted: &Voted) {
        let Some(run) = voted.run else { return };
        let under = self.under.get(&voted.ballot).copied().unwrap_or_default();
        assert!(self.durable.voted_under >= under, "a vote is told, and under which membership is not durable");
        let known = self.told.entry((voted.ballot, run.last.number)).or_insert(run.last);
        assert_eq!(*known, run.last, "two commands at one number in ballot {}", voted.ballot);
        if run.last.number <= self.durable.forgotten {
            return;
        }
        let durable = self.durable.votes.iter().find(|vote| vote.command.number() == run.last.number);
        let durable = durable.expect("a vote is told that is not durable");
        assert!(durable.ballot >= voted.ballot, "a vote is told that is not durable: {voted:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Invariant 3, rule 5, A6, A7, A12, S-11: catches, over random messages, crashes and
    /// losses of what was not synced, a promise that goes down, a vote outside the promised
    /// ballot, with a gap or without room, two commands at one number of a ballot, and anything told that a
    /// crash could take back. S-13, S-14: with damage at any moment, silence that ends at once, or before what
    /// may be lost is durable, or by an answer to an earlier start or under an earlier membership; and a later loss of
    /// the state that is not noticed. ADR 0026: a vote above a change under what was before it.
    #[test]
    fn no_interleaving_breaks_a_promise_or_a_vote(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
    }
}

/// Catches a property above that holds because nothing happens: random steps do cast votes, and end silences.
#[test]
fn random_steps_do_cast_votes_and_end_silences() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut votes, mut rejoined) = (0, 0);
    for _ in 0..64 {
        let steps = prop::collection::vec(step(), 120).new_tree(&mut runner).expect("steps").current();
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(step));
        votes += world.votes;
        rejoined += world.rejoined;
    }
    assert!(votes > 200, "only {votes} votes in 64 runs");
    assert!(rejoined > 10, "only {rejoined} ends of silence in 64 runs");
}
