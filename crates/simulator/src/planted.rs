//! Mistakes that are planted on purpose, to see that they are caught: a simulator that has never
//! failed may be unable to.
//!
//! They are made here, around the shipped cores, so that nothing of them is in what is shipped. The model
//! check of `tests/` makes its own from here too.

pub mod no_barrier;

use acceptor::core::{Acceptor, Config};
use clap::ValueEnum;
use protocol::message::{BeginBallot, ToAcceptor, Voted};
use protocol::{Command, CommandNumber, Run, Vote};
use storage::{LogRecord, LogStore as _};

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

/// The acceptor learns from its disk of votes that it did not cast itself.
pub(crate) fn rebuild(node: &mut Node, config: Config) {
    let Some(roles) = &mut node.roles else { return };
    if let Ok(image) = node.log.load(CommandNumber::NULL) {
        roles.acceptor = Acceptor::new(config, image, roles.acceptor.issued());
    }
}
