//! Random interleavings, with crashes that lose what was not synced.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

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
    /// In the promised ballot, or in another one.
    Begin {
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
}

fn step() -> impl Strategy<Value = Step> {
    let ballot = || (1..=ROUNDS, 1..=3u64).prop_map(|(round, node)| Ballot::new(round, NodeId(node)));
    let other = prop::option::weighted(0.2, ballot());
    let begin = (other, 1..5u64, 0..4u64, prop::bool::weighted(0.15), 0..5u64);
    prop_oneof![
        1 => (ballot(), 0..4u64).prop_map(|(ballot, ahead)| Step::Next { ballot, ahead }),
        10 => begin.prop_map(|(other, ahead, length, forked, round)| Step::Begin { other, ahead, length, forked, round }),
        1 => (1..3u64).prop_map(|ahead| Step::Issued { ahead }),
        1 => (0..3u64).prop_map(|behind| Step::Forget { behind }),
        1 => prop::bool::weighted(0.8).prop_map(Step::Room),
        3 => Just(Step::Flush),
        1 => (0..3u64).prop_map(|behind| Step::Crash { behind }),
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
}

fn config() -> Config {
    let learners = vec![NodeId(1), NodeId(2)];
    Config { me: NodeId(2), window: 3, learners, learn_from: LearnFrom::Voters, part_bytes: 200, nonce: 7 }
}

impl World {
    fn new() -> Self {
        Self {
            acceptor: Acceptor::new(config(), LogImage::default(), CommandId::NULL),
            durable: LogImage::default(),
            issued: vec![CommandId::NULL],
            state: 0,
            unsynced: vec![],
            unsent: vec![],
            told: BTreeMap::new(),
            promised: Ballot::NONE,
            votes: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Next { ballot, ahead } => {
                let first = CommandNumber(self.acceptor.issued().number.0 + ahead);
                let message = ToAcceptor::NextBallot(NextBallot { ballot, first });
                self.handle(Input::Message { from: ballot.node, message });
            }
            Step::Begin { other, ahead, length, forked, round } => {
                let ballot = other.unwrap_or(self.acceptor.next_ballot());
                let first = self.acceptor.issued().number.0 + ahead;
                let commands = (first..first + length).map(|number| command(number, ballot, forked)).collect();
                let message = ToAcceptor::BeginBallot(BeginBallot { ballot, commands, round });
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
            Step::Crash { behind } => {
                self.unsynced.clear();
                self.unsent.clear();
                let kept =
                    self.issued.len().saturating_sub(usize::try_from(behind).expect("small")).max(self.state + 1);
                self.issued.truncate(kept);
                let issued = *self.issued.last().expect("the null command");
                self.acceptor = Acceptor::new(config(), self.durable.clone(), issued);
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let before = self.acceptor.clone();
        let mut effects = Vec::new();
        self.acceptor.handle(input.clone(), &mut effects);
        assert!(self.acceptor.next_ballot() >= before.next_ballot(), "the promise goes down");
        assert!(self.acceptor.waiting.len() <= config().window, "more than a window waits");
        assert!(self.acceptor.forgotten >= before.forgotten, "what is forgotten comes back");
        assert!(self.acceptor.forgotten <= self.acceptor.issued().number, "a vote is forgotten that is still needed");
        let mut voted: BTreeSet<CommandId> = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Persist(record) => {
                    if let LogRecord::Vote(vote) = &record {
                        self.judge(&before, vote, &voted);
                        voted.insert(vote.command.id);
                        self.votes += 1;
                    }
                    self.unsynced.push(record);
                }
                Effect::Send { message, .. } => self.unsent.push(message),
                Effect::Ignored(_) => assert_eq!(self.acceptor, before, "an ignored input changed something"),
                Effect::Speaks | Effect::Proposed { .. } => {}
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
    /// crash could take back.
    #[test]
    fn no_interleaving_breaks_a_promise_or_a_vote(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
    }
}

/// Catches a property above that holds because nothing happens: random steps do cast votes.
#[test]
fn random_steps_do_cast_votes() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut votes = 0;
    for _ in 0..64 {
        let steps = prop::collection::vec(step(), 80).new_tree(&mut runner).expect("steps").current();
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(step));
        votes += world.votes;
    }
    assert!(votes > 500, "only {votes} votes in 64 runs");
}
