//! What cannot matter, and is left out.
//!
//! **Always.** A message that can change nothing any more, whatever happens, is taken out of the
//! network, so that states that differ in such messages only are one state:
//!
//! - what a leader is told of a ballot that it does not prepare or lead any more, or has been
//!   told already; votes without a run, whose rounds matter to reads only;
//! - a question or a ballot below the promise of its acceptor, but for the refusal;
//! - a question whose answer nobody awaits, unless the promise lets its acceptor vote;
//! - a declaration of what is applied, unless a power cut can take it back.
//!
//! **In the reduced search** a step is left out where a state without it can do all that a state
//! with it can, as far as anything may be issued:
//!
//! - *Votes are counted at once.* A leader that has counted more announces more, and can do
//!   whatever one that has counted less can.
//! - *An answer to `NextBallot` is heard at once or never.* Heard later, it tells no more than
//!   a second answer does: no vote in a lower ballot is cast between the two. If its acceptor
//!   has learnt of issued commands meanwhile, they are either in the votes of the first answer's
//!   majority set, or issued through a higher ballot, which the two other acceptors have
//!   promised. (This needs three acceptors.)
//! - *A ballot begins with its first promise.* Before that its leader has only given up another.
//! - *A command arrives when it can be voted for.* One that waits is one that comes later.
//! - *Refusals are lost*, and a leader that no majority set can follow any more gives up. Either
//!   is a leader that hears nothing more.
//! - *A learner has the bodies that its acceptor voted for when it needs them*, and forgets how
//!   it learnt a command: it is then as one that started again. Of declarations of one command
//!   the one with bodies is kept, or through the lowest ballot.
//! - *Two votes of one ballot arrive together where learners count*, if they decide something; one that arrives alone
//!   decides nothing, and is still in the network when the second one does. Which of three votes is highest but one, two
//!   of them show: more than two need not come. (This needs three acceptors that weigh the same, and no change.) What
//!   was counted and decided nothing is forgotten, as in a restart. A vote goes when no second acceptor has voted in its
//!   ballot or still may, by its promise; or when two have voted for the same command in a lower ballot. How far back a
//!   run of votes goes, and its round, no learner looks at. Leaders count as ever, and only do not say what comes of it.
//! - *A power cut takes back something applied.* One that does not takes back what waits, and a
//!   lead. That it takes back no promise and no vote is looked at in each state.
//! - *The end*: no power cut is left and a majority set knows the last number to be issued, or
//!   nobody leads and no ballot is left. Nothing can be issued then.
//!
//! These are arguments, not proofs. What is small enough is searched both ways, and what each search reaches is
//! compared (`reached`). With a change of the membership one acceptor may decide alone, and others after it than
//! before: there a leader gives up when nobody can follow it, and the end is when all three know the last number.

use acceptor::core::Acceptor;
use protocol::message::{BeginBallot, ToAcceptor, ToLeader, ToLearner};
use protocol::{Ballot, Command, CommandId, Message, NodeId};

use super::cluster::{Config, Plant, State};
use super::roles::{Input, LEADERS, NODES, Place, What};
use super::space::{InputId, Tables};

/// Takes out what cannot matter any more.
pub(crate) fn prune(tables: &Tables, state: &mut State, config: &Config) {
    let mut net = std::mem::take(&mut state.net);
    let asked_to_vote = |to: Place, ballot: Ballot| {
        net.iter().map(|id| tables.input(*id)).any(|input| match input.message() {
            Some((_, Message::Acceptor(ToAcceptor::BeginBallot(begin)))) => input.to == to && begin.ballot == ballot,
            Some(_) | None => false,
        })
    };
    let matters: Vec<InputId> =
        net.iter().copied().filter(|id| may_matter(tables, state, config, *id, &asked_to_vote)).collect();
    net = matters;
    if config.reduced {
        let declared: Vec<Declared> = net.iter().filter_map(|id| Declared::of(tables, *id)).collect();
        let is_less = |one: &&Declared| declared.iter().any(|other| other.does_all_of(one));
        let votes: Vec<Told> = net.iter().filter_map(|id| Told::of(tables, *id)).collect();
        let is_idle = |vote: &&Told| vote.is_idle(tables, state, &votes);
        let superfluous = declared.iter().filter(is_less).map(|one| one.id);
        let superfluous: Vec<InputId> = superfluous.chain(votes.iter().filter(is_idle).map(|vote| vote.id)).collect();
        net.retain(|id| !superfluous.contains(id));
    }
    state.net = net;
}

/// A `Success` on its way.
struct Declared {
    id: InputId,
    to: Place,
    issued: CommandId,
    bodies: usize,
    ballot: Ballot,
}

impl Declared {
    fn of(tables: &Tables, id: InputId) -> Option<Self> {
        let input = tables.input(id);
        let Some((_, Message::Learner(ToLearner::Success(success)))) = input.message() else { return None };
        let (issued, bodies, ballot) = (success.issued, success.commands.len(), success.ballot);
        Some(Self { id, to: input.to, issued, bodies, ballot })
    }

    /// Whether it declares the same to the same learner, with more bodies or through a lower
    /// ballot.
    fn does_all_of(&self, other: &Self) -> bool {
        let rank = |one: &Self| (std::cmp::Reverse(one.bodies), one.ballot);
        (self.to, self.issued) == (other.to, other.issued) && rank(self) < rank(other)
    }
}

/// A vote on its way to a learner that counts.
struct Told {
    id: InputId,
    to: Place,
    from: NodeId,
    ballot: Ballot,
    last: CommandId,
}

impl Told {
    fn of(tables: &Tables, id: InputId) -> Option<Self> {
        match tables.input(id) {
            Input { to, what: What::Message { from, message: Message::Learner(ToLearner::Voted(voted)) } } => {
                voted.run.map(|run| Self { id, to: *to, from: *from, ballot: voted.ballot, last: run.last })
            }
            _ => None,
        }
    }

    /// Whether the other one is of the same ballot, and for the same learner.
    fn is_with(&self, other: &Self) -> bool {
        (self.to, self.ballot) == (other.to, other.ballot)
    }

    /// Whether no other acceptor can vote with it any more, or two have decided the same through a lower ballot.
    fn is_idle(&self, tables: &Tables, state: &State, all: &[Self]) -> bool {
        let votes = |node: &NodeId| {
            tables.acceptor(state, *node).core.next_ballot() <= self.ballot
                || all.iter().any(|other| other.is_with(self) && other.from == *node)
        };
        let lower =
            |ballot| all.iter().filter(move |one| one.to == self.to && one.ballot == ballot && one.last == self.last);
        NODES.iter().filter(|node| votes(node)).count() < 2
            || all.iter().any(|one| one.ballot < self.ballot && lower(one.ballot).count() > 1)
    }
}

/// Whether an acceptor tells a learner of its vote.
pub(crate) fn is_vote(tables: &Tables, id: InputId) -> bool {
    Told::of(tables, id).is_some()
}

/// Whether these two votes, in this order, let one learner decide something that it has not applied.
pub(crate) fn decide(tables: &Tables, state: &State, votes: [InputId; 2]) -> bool {
    let [Some(one), Some(other)] = votes.map(|id| Told::of(tables, id)) else { return false };
    let applied = tables.learner(state, one.to.node()).applied.len() as u64;
    one.is_with(&other) && one.from < other.from && one.last.number.min(other.last.number).0 > applied
}

fn may_matter(
    tables: &Tables,
    state: &State,
    config: &Config,
    id: InputId,
    asked_to_vote: &impl Fn(Place, Ballot) -> bool,
) -> bool {
    let Input { to, what: What::Message { from, message } } = tables.input(id) else { return true };
    match message {
        Message::Acceptor(message) => {
            let acceptor = tables.acceptor(state, to.node());
            let promise = acceptor.core.next_ballot();
            let ballot = match message {
                ToAcceptor::NextBallot(next) => next.ballot,
                ToAcceptor::BeginBallot(begin) => begin.ballot,
                ToAcceptor::Rejoined(rejoined) => rejoined.ballot,
            };
            let leader = tables.leader(state, ballot.node);
            let is_active = leader.active == Some(ballot);
            if let ToAcceptor::Rejoined(_) = message {
                return ballot >= promise && acceptor.core.silence().is_some();
            }
            if ballot < promise {
                // Only refused; a leader that is not in that ballot any more does not care.
                return config.refusals && is_active;
            }
            if let ToAcceptor::BeginBallot(begin) = message {
                if acceptor.core.silence().is_some() || state.can_be_damaged() {
                    return true;
                }
                return state.can_lose_power() || may_be_voted_for(&acceptor.core, begin);
            }
            let awaits = is_active && leader.leads().is_none() && !leader.promised.contains(&to.node());
            // A promise that is not heard has no effect but on votes in this ballot.
            let prepares = is_active && leader.leads().is_none();
            awaits || (ballot > promise && (prepares || asked_to_vote(*to, ballot)))
        }
        Message::Leader(message) => {
            let leader = tables.leader(state, to.node());
            match message {
                // The promise of who promised, and of who promises late, changes only what is
                // repeated to it.
                ToLeader::BallotInfo(info) => {
                    leader.active == Some(info.ballot) && leader.leads().is_none() && !leader.promised.contains(from)
                }
                ToLeader::MyNextBal(next) => {
                    config.refusals && leader.active.is_some_and(|ballot| ballot < next.ballot)
                }
                // Rounds matter to reads only, which nobody asks for here.
                ToLeader::Voted(voted) => voted.run.is_some_and(|run| {
                    let last = run.last.number.0;
                    leader.leads() == Some(voted.ballot)
                        && last > leader.issued()
                        && leader.counted.get(from).is_none_or(|counted| last > *counted)
                }),
                ToLeader::Rejoin(rejoin) => leader.active == Some(rejoin.ballot),
                ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_) => true,
            }
        }
        Message::Learner(ToLearner::Success(success)) if success.issued == CommandId::NULL => false,
        Message::Learner(_) => state.can_lose_power() || is_news(tables, state, *to, message),
        Message::FailureDetector(_) | Message::Gateway(_) => false,
    }
}

/// The ballot of a `NextBallot`.
pub(crate) fn question(tables: &Tables, id: InputId) -> Option<Ballot> {
    match tables.input(id).message() {
        Some((_, Message::Acceptor(ToAcceptor::NextBallot(next)))) => Some(next.ballot),
        Some(_) | None => None,
    }
}

/// Whether a leader says what is issued.
pub(crate) fn is_success(tables: &Tables, id: InputId) -> bool {
    matches!(tables.input(id).message(), Some((_, Message::Learner(ToLearner::Success(_)))))
}

/// Whether an acceptor that forgets nothing may ever vote for these.
fn may_be_voted_for(acceptor: &Acceptor, begin: &BeginBallot) -> bool {
    let issued = acceptor.issued();
    begin.commands.iter().any(|command| {
        command.number() > issued.number && (command.precedent.number != issued.number || command.follows(issued))
    })
}

/// Whether what is declared is not applied yet.
fn is_news(tables: &Tables, state: &State, to: Place, message: &Message) -> bool {
    let applied = tables.learner(state, to.node()).applied.len() as u64;
    match message {
        Message::Learner(ToLearner::Success(success)) => success.issued.number.0 > applied,
        Message::Learner(ToLearner::Voted(voted)) => voted.run.is_some_and(|run| run.last.number.0 > applied),
        Message::Learner(
            ToLearner::CatchUp(_) | ToLearner::Commands(_) | ToLearner::FetchSnapshot(_) | ToLearner::Snapshot(_),
        )
        | Message::Acceptor(_)
        | Message::Leader(_)
        | Message::FailureDetector(_)
        | Message::Gateway(_) => true,
    }
}

/// Whether delivering this now can change anything. What was declared and is applied can again
/// after a power cut.
pub(crate) fn may_matter_now(tables: &Tables, state: &State, id: InputId, config: &Config) -> bool {
    if !config.pruned {
        return true;
    }
    match tables.input(id) {
        Input { to, what: What::Message { message: Message::Acceptor(ToAcceptor::BeginBallot(begin)), .. } }
            if config.reduced =>
        {
            let acceptor = &tables.acceptor(state, to.node()).core;
            let voted = |id| acceptor.votes().any(|vote| vote.ballot == begin.ballot && vote.command.id == id);
            // Without the gap-free rule nothing waits for its precedent.
            let gaps = config.plant == Some(Plant::VotesWithGaps);
            let follows = |command: &Command| gaps || command.follows(acceptor.issued()) || voted(command.precedent);
            // A silent one does not vote: it asks what it must learn first.
            acceptor.silence().is_some()
                || begin.ballot == acceptor.next_ballot()
                    && begin.commands.first().is_some_and(|first| follows(first) && !voted(first.id))
        }
        Input { to, what: What::Message { message: message @ Message::Learner(_), .. } } => {
            is_news(tables, state, *to, message)
        }
        _ => true,
    }
}

/// Whether a message had best be delivered at once.
pub(crate) fn is_eager(tables: &Tables, state: &State, id: InputId) -> bool {
    let Input { to, what: What::Message { message: Message::Leader(message), .. } } = tables.input(id) else {
        return false;
    };
    let leads = tables.leader(state, to.node()).leads();
    match message {
        ToLeader::BallotInfo(info) => leads == Some(info.ballot),
        ToLeader::Voted(voted) => leads == Some(voted.ballot),
        ToLeader::MyNextBal(_) | ToLeader::Rejoin(_) | ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_) => false,
    }
}

/// How many acceptors a leader cannot do without: two of three, or one where a change may let one decide.
pub(crate) fn followers_needed(config: &Config) -> usize {
    if config.change.is_some() { 1 } else { 2 }
}

/// Whether a leader can do nothing more in its ballot.
pub(crate) fn is_hopeless(tables: &Tables, state: &State, config: &Config, node: NodeId) -> bool {
    let leader = tables.leader(state, node);
    let Some(ballot) = leader.active else { return false };
    let needed = followers_needed(config);
    let may_promise = |acceptor: &NodeId| tables.acceptor(state, *acceptor).core.next_ballot() <= ballot;
    if leader.leads().is_some() {
        return NODES.iter().filter(|acceptor| may_promise(acceptor)).count() < needed;
    }
    let promised = |acceptor: &NodeId| {
        leader.promised.contains(acceptor)
            || state.net.iter().any(|id| match tables.input(*id) {
                Input {
                    what: What::Message { from, message: Message::Leader(ToLeader::BallotInfo(info)) }, ..
                } => from == acceptor && info.ballot == ballot,
                _ => false,
            })
    };
    NODES.iter().filter(|acceptor| may_promise(acceptor) || promised(acceptor)).count() < needed
}

/// Whether nothing more can be issued: the acceptors of a majority set know the last number to
/// be issued and, no power being cut any more, will not vote; or nobody leads or will lead.
pub(crate) fn is_settled(tables: &Tables, state: &State, config: &Config) -> bool {
    let begun = |(round, owner): (u64, &NodeId)| tables.leader(state, *owner).last_tried >= Ballot::new(round, *owner);
    if LEADERS.iter().all(|node| tables.leader(state, *node).active.is_none()) && (1..).zip(&config.owners).all(begun) {
        return true;
    }
    is_over(tables, state, config)
}

/// The first half of it. Before a change and after it others decide: then all know.
pub(crate) fn is_over(tables: &Tables, state: &State, config: &Config) -> bool {
    let knows = |node: &&NodeId| tables.learner(state, **node).applied.len() as u64 == config.numbers;
    let least = if config.change.is_some() { NODES.len() } else { 2 };
    !state.can_lose_power() && NODES.iter().filter(knows).count() >= least
}

/// Whether a command is declared issued that another leader proposed first.
pub(crate) fn issues_again(tables: &Tables, state: &State) -> bool {
    let again = |(ballot, id): (Ballot, CommandId)| id.ballot.node != ballot.node && state.considers_issued(id);
    state.declarations(tables).any(again)
}
