//! An acceptor and its disk.

use acceptor::core::{Acceptor, Effect};
use protocol::message::{BallotInfo, ToLeader, ToLearner, Voted};
use protocol::{Ballot, CommandId, CommandNumber, LearnFrom, Message, NodeId};
use simulator::planted::votes_with_gaps;
use storage::memory::{LogDisk, MemoryLog};
use storage::{LogImage, LogRecord, LogStore, Standing};

use super::super::cluster::{Config, Plant};
use super::{NODES, Outcome, Place, What, genesis, last};

/// An acceptor, its part of the log, and the highest promise that it told anyone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AcceptorRole {
    pub(crate) core: Acceptor,
    disk: LogDisk,
    /// The votes on the disk, whatever is issued: ballots and commands.
    pub(crate) stored: Vec<(Ballot, CommandId)>,
    pub(crate) told: Ballot,
    /// A power cut now would take back no promise and no vote.
    pub(crate) is_durable: bool,
    /// Of this start; another one where votes were damaged since the one before.
    nonce: u64,
}

impl AcceptorRole {
    pub(super) fn new(me: NodeId, config: &Config) -> Self {
        let core = Acceptor::new(acceptor_config(me, config, 0), LogImage::default(), CommandId::NULL);
        Self { core, disk: LogDisk::default(), stored: Vec::new(), told: Ballot::NONE, is_durable: true, nonce: 0 }
    }

    pub(super) fn step(&mut self, what: &What, config: &Config, outcome: &mut Outcome) {
        let input = match what {
            What::Message { from, message: Message::Acceptor(message) } => {
                acceptor::core::Input::Message { from: *from, message: message.clone() }
            }
            What::Applied(commands) => acceptor::core::Input::Issued(last(commands)),
            What::Durable(number) => acceptor::core::Input::Forget(*number),
            What::Damage => return self.damage(config),
            What::Restart(commands) => {
                self.core = self.restarted(last(commands), config);
                return;
            }
            What::Message { .. }
            | What::Proposed { .. }
            | What::Declared { .. }
            | What::StepDown
            | What::Campaign(_) => {
                panic!("not for an acceptor: {what:?}")
            }
        };
        if config.plant == Some(Plant::VotesWithGaps)
            && let Some((records, voted)) = votes_with_gaps(&self.core, &input)
        {
            self.write(&records);
            self.core = self.restarted(self.core.issued(), config);
            match config.learn_from {
                LearnFrom::Leader => {
                    outcome.send(self.core.me(), voted.ballot.node, Message::Leader(ToLeader::Voted(voted)));
                }
                // What the leader is told is lost, so that it is the learners who count it.
                LearnFrom::Voters => {
                    for learner in NODES {
                        outcome.send(self.core.me(), learner, Message::Learner(ToLearner::Voted(voted.clone())));
                    }
                }
            }
            return;
        }
        let mut effects = Vec::new();
        self.core.handle(input, &mut effects);
        let records = effects.iter().filter_map(|effect| match effect {
            Effect::Persist(record) => Some(record.clone()),
            Effect::Proposed { .. } | Effect::Send { .. } | Effect::Speaks | Effect::Ignored(_) => None,
        });
        self.write(&records.collect::<Vec<_>>());
        let again = self.restarted(self.core.issued(), config);
        self.is_durable = again.next_ballot() == self.core.next_ballot() && again.votes().eq(self.core.votes());
        let me = self.core.me();
        for effect in effects {
            match effect {
                Effect::Proposed { ballot, commands } => {
                    outcome.tell(Place::Learner(me), What::Proposed { ballot, commands });
                }
                Effect::Send { to, message } => {
                    self.told = self.told.max(promise_in(&message));
                    outcome.send(me, to, if config.reduced { as_learners_read(message) } else { message });
                }
                Effect::Persist(_) | Effect::Speaks | Effect::Ignored(_) => {}
            }
        }
    }

    /// Its votes were damaged.
    pub(crate) fn was_damaged(&self) -> bool {
        self.nonce > 0
    }

    /// Its votes were damaged, and it speaks again.
    pub(crate) fn has_rejoined(&self) -> bool {
        self.was_damaged() && self.core.silence().is_none()
    }

    fn damage(&mut self, config: &Config) {
        let log = MemoryLog::from_disk(self.disk.clone());
        for (_, id) in &self.stored {
            log.rot(id.number);
        }
        log.restart();
        (self.disk, self.stored, self.nonce) = (log.disk(), Vec::new(), self.nonce + 1);
        if config.plant == Some(Plant::RejoinsAtOnce) {
            self.write(&[LogRecord::Standing(Standing::Sound)]);
        }
    }

    fn write(&mut self, records: &[LogRecord]) {
        let log = MemoryLog::from_disk(self.disk.clone());
        log.write(records).expect("memory does not fail");
        let image = log.load(CommandNumber::NULL).expect("memory does not fail");
        (self.disk, self.stored) =
            (log.disk(), image.votes.iter().map(|vote| (vote.ballot, vote.command.id)).collect());
    }

    /// The core that starts from what is on the disk.
    fn restarted(&self, issued: CommandId, config: &Config) -> Acceptor {
        let me = self.core.me();
        let mut image = MemoryLog::from_disk(self.disk.clone()).load(issued.number).expect("memory does not fail");
        if config.plant == Some(Plant::ForgottenPromise) {
            image.next_ballot = image.votes.iter().map(|vote| vote.ballot).max().unwrap_or_default();
        }
        Acceptor::new(acceptor_config(me, config, self.nonce), image, issued)
    }
}

/// In the reduced search: of a vote without what no learner looks at.
fn as_learners_read(mut message: Message) -> Message {
    if let Message::Learner(ToLearner::Voted(Voted { run: Some(run), round, .. })) = &mut message {
        (run.first, *round) = (run.last.number, 0);
    }
    message
}

/// The promise that a message of an acceptor tells.
fn promise_in(message: &Message) -> Ballot {
    match message {
        Message::Leader(ToLeader::BallotInfo(BallotInfo { ballot, .. })) => *ballot,
        Message::Leader(ToLeader::MyNextBal(next)) => next.ballot,
        Message::Leader(ToLeader::Voted(voted)) | Message::Learner(ToLearner::Voted(voted)) => voted.ballot,
        Message::Leader(ToLeader::Rejoin(_) | ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_))
        | Message::Learner(_)
        | Message::Acceptor(_)
        | Message::FailureDetector(_)
        | Message::Gateway(_) => Ballot::NONE,
    }
}

fn acceptor_config(me: NodeId, config: &Config, nonce: u64) -> acceptor::core::Config {
    acceptor::core::Config {
        me,
        window: usize::try_from(config.numbers).expect("few numbers"),
        acceptors: genesis(config).majority().clone().into(),
        learners: NODES.to_vec(),
        learn_from: config.learn_from,
        part_bytes: 1 << 20,
        nonce,
    }
}
