//! What an acceptor says, and to whom: `MyNextBal` and `Voted`, and the one way out for all messages.

use protocol::message::{MyNextBal, ToLeader, ToLearner, Voted};
use protocol::{Ballot, LearnFrom, Message, NodeId, Run};

use super::silence::Silence;
use super::{Acceptor, Effect};

impl Acceptor {
    /// `MyNextBal` of steps 2 and 4.
    pub(super) fn refuse(&self, from: NodeId, refused: Ballot, effects: &mut Vec<Effect>) {
        let message = MyNextBal { ballot: self.next_ballot, refused };
        self.send(from, Message::Leader(ToLeader::MyNextBal(message)), effects);
    }

    /// `Voted` of step 4: to the leader, and where learners decide and there is something for
    /// them to learn, to each of them (claim 3).
    pub(super) fn tell_voted(&self, proposed: bool, effects: &mut Vec<Effect>) {
        let (ballot, run) = (self.next_ballot, self.run());
        let voted = Voted { ballot, run, round: self.round, membership: self.membership };
        let learners = match self.config.learn_from {
            LearnFrom::Voters if proposed && voted.run.is_some() => self.config.learners.as_slice(),
            LearnFrom::Voters | LearnFrom::Leader => &[],
        };
        self.send(voted.ballot.node, Message::Leader(ToLeader::Voted(voted.clone())), effects);
        for learner in learners {
            self.send(*learner, Message::Learner(ToLearner::Voted(voted.clone())), effects);
        }
    }

    /// The highest unbroken run of votes in the promised ballot. All numbers below it were
    /// voted for in this ballot too, or known to be issued, when it was voted for.
    fn run(&self) -> Option<Run> {
        let mut voted = self.votes.values().rev().filter(|vote| vote.ballot == self.next_ballot);
        let last = voted.next()?.command.id;
        let mut first = last.number;
        for vote in voted {
            if vote.command.number().next() != first {
                break;
            }
            first = vote.command.number();
        }
        Some(Run { first, last })
    }

    /// The one way out. Asserts what each message claims of this acceptor.
    pub(super) fn send(&self, to: NodeId, message: Message, effects: &mut Vec<Effect>) {
        let silence = self.silence();
        match &message {
            Message::Leader(ToLeader::BallotInfo(info)) => {
                assert_eq!(info.ballot, self.next_ballot, "step 2: a promise is told that is not kept");
                assert_eq!(to, info.ballot.node, "step 2: a promise is for the owner of the ballot");
                assert_eq!(silence, None, "a silent acceptor promises nothing");
                assert!(
                    info.votes.iter().all(|vote| vote.ballot <= info.ballot),
                    "invariant 3: a vote lies above the promise"
                );
            }
            Message::Leader(ToLeader::MyNextBal(refusal)) => {
                assert_eq!(refusal.ballot, self.next_ballot, "step 2: a promise is told that is not kept");
                assert!(refusal.refused < refusal.ballot, "step 2: only lower ballots are refused");
            }
            Message::Leader(ToLeader::Voted(voted)) | Message::Learner(ToLearner::Voted(voted)) => {
                assert_eq!(voted.ballot, self.next_ballot, "step 4: votes are told of the promised ballot only");
                assert_eq!(silence, None, "a silent acceptor does not vote");
                assert!(
                    voted.run.is_none_or(|run| self.has_voted_for(run.last)),
                    "step 4: a vote is told that was not cast"
                );
            }
            Message::Leader(ToLeader::Rejoin(rejoin)) => {
                assert_eq!(silence, Some(Silence::Damaged), "only lost votes are asked about");
                assert!(rejoin.ballot >= self.next_ballot, "lost votes are of ballots up to the one asked about");
            }
            Message::Acceptor(_)
            | Message::Leader(ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_))
            | Message::Learner(
                ToLearner::Success(_)
                | ToLearner::CatchUp(_)
                | ToLearner::Commands(_)
                | ToLearner::FetchSnapshot(_)
                | ToLearner::Snapshot(_),
            )
            | Message::FailureDetector(_)
            | Message::Gateway(_) => panic!("an acceptor does not send {}", message.name()),
        }
        effects.push(Effect::Send { to, message });
    }
}
