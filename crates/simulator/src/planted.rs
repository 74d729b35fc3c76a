//! Mistakes that are planted on purpose, to see that they are caught: a simulator that has never
//! failed may be unable to.
//!
//! They are made here, around the shipped cores, so that nothing of them is in what is shipped. The model
//! check of `tests/` makes its own from here too.

mod instead;
mod lacking;
mod leading;
pub mod no_barrier;

pub(crate) use lacking::{Lacking, less_comes_in};
pub(crate) use leading::{Seen, heard};

use acceptor::core::{Acceptor, Config};
use clap::ValueEnum;
use protocol::message::{BallotInfo, BeginBallot, ToAcceptor, ToLeader, Voted};
use protocol::{Ballot, Command, CommandNumber, Message, Run, Vote};
use storage::{LogImage, LogRecord, LogStore as _};

use crate::node::Node;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Planted {
    /// S-01: an acceptor votes for a command although it neither voted for its precedent in the same
    /// ballot nor knows that issued. The patent, read to the letter, lets it.
    VotesWithGaps,
    /// S-11: what a turn of an acceptor has to say leaves before its records are durable.
    RepliesBeforeSync,
    /// S-14: an acceptor whose votes are damaged speaks at once, as if those that are left were all it cast.
    RejoinsAtOnce,
    /// S-14: an acceptor whose votes are damaged asks no leader how far it must learn, and is silent for ever.
    NeverRejoins,
    /// DESIGN 8: an acceptor forgets votes when their commands are applied, wherever they are durable.
    ForgetsTooMuch,
    /// ADR 0025: a leader proposes above a change of the membership in the same ballot. Needs changes.
    NoBarrier,
    /// A leader counts each vote for the next acceptor as well.
    CountsVotesTwice,
    /// A1h: an acceptor takes what it has voted for as issued.
    TakesVotesForIssued,
    /// S-02: a leader goes by the ballots in which commands were proposed first, instead of by those of the votes.
    GoesByFirstBallots,
    /// A7: a node forgets in a restart which ballots it has begun.
    ForgetsItsBallots,
    /// A6: an acceptor forgets in a restart what it has promised.
    ForgetsItsPromise,
    /// S-16: a node with a disk in the place of a lost one takes itself for sound.
    TrustsANewDisk,
    /// S-20: a linearizable read shows what the asked node has applied.
    ReadsWithoutBarrier,
    /// A read names the number that it waited for, and shows a later state.
    MislabelsReads,
    /// S-22: a caller is told that its call was not executed when nobody knows.
    DeniesWhatIsUnknown,
    /// S-23: a caller is told that its key is another call's for good when that one is only under way.
    GivesKeysAway,
    /// A gateway says of a call that was refused that it changed nothing.
    HidesRefusals,
    /// S-23: a leader does not find what became of a call in the state.
    RepeatsRequests,
    /// S-10: what a function on the pool has read is not looked at again when it finishes.
    CertifiesNothing,
    /// A function lets less come in than it was asked for, wherever it runs.
    LetsLessComeIn,
    /// A leader goes by its own clock, and not by the time of the last command.
    GoesByItsClock,
    /// A1i: learners run functions again when they apply what these decided.
    RunsAtLearners,
    /// S-04: the gateway of a leader acknowledges what is proposed.
    AcknowledgesEarly,
    /// A14: a whole state that is made for another node lacks a record, and its digest is that of what is sent.
    SnapshotsLackARecord,
    /// A1o: what was not synced is gone after `kill -9` too.
    KillsLoseWrites,
}

/// S-01: the votes that the gap-free rule forbids, and what an acceptor without the rule says of
/// them. None when the rule has nothing against the input.
#[must_use]
pub fn votes_with_gaps(acceptor: &Acceptor, input: &acceptor::core::Input) -> Option<(Vec<LogRecord>, Voted)> {
    let acceptor::core::Input::Message { message: ToAcceptor::BeginBallot(begin), .. } = input else { return None };
    let BeginBallot { ballot, commands, round, membership } = begin;
    let (first, last) = (commands.first()?, commands.last()?);
    let precedent = first.precedent;
    let anchored = precedent.number <= acceptor.issued().number
        || acceptor.votes().any(|vote| vote.ballot == *ballot && vote.command.id == precedent);
    if *ballot != acceptor.next_ballot() || anchored {
        return None;
    }
    let vote = |command: &Command| LogRecord::Vote(Vote { ballot: *ballot, command: command.clone() });
    let run = Some(Run { first: first.number(), last: last.id });
    Some((commands.iter().map(vote).collect(), Voted { ballot: *ballot, run, round: *round, membership: *membership }))
}

/// What an acceptor says: usually what it was about to say.
pub(crate) fn said(planted: Option<Planted>, mut message: Message) -> Message {
    if let Message::Leader(ToLeader::BallotInfo(BallotInfo { issued, votes, .. })) = &mut message
        && planted == Some(Planted::TakesVotesForIssued)
        && let Some(last) = votes.iter().map(|vote| vote.command.id).max_by_key(|id| id.number)
    {
        *issued = last;
    }
    message
}

/// What an acceptor finds on its disk.
pub(crate) fn remembered(planted: Option<Planted>, image: LogImage) -> LogImage {
    if planted != Some(Planted::ForgetsItsPromise) {
        return image;
    }
    // A vote above the promise would be found by the acceptor itself.
    let next_ballot = image.votes.iter().map(|vote| vote.ballot).max().unwrap_or(Ballot::NONE);
    LogImage { next_ballot, ..image }
}

/// The last ballot that a node has begun, and the highest that it has heard of, as it finds them on its disk.
pub(crate) fn tried(planted: Option<Planted>, image: &LogImage) -> (Ballot, Ballot) {
    if planted == Some(Planted::ForgetsItsBallots) {
        return (Ballot::NONE, Ballot::NONE);
    }
    (image.last_tried, image.last_tried.max(image.next_ballot))
}

/// The acceptor learns from its disk of votes that it did not cast itself.
pub(crate) fn rebuild(node: &mut Node, config: Config) {
    let Some(roles) = &mut node.roles else { return };
    if let Ok(image) = node.log.load(CommandNumber::NULL) {
        roles.acceptor = Acceptor::new(config, image, roles.acceptor.issued());
    }
}
