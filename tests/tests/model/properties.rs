//! What must hold in every state, and what must be possible in some.

use std::sync::atomic::Ordering;

use protocol::{Command, CommandId};
use stateright::Property;

use super::cluster::{Cluster, Fault, State, durable_at_least};
use super::prune;
use super::roles::{LEADERS, NODES, membership_after};

/// What must be possible. A test names what its search reaches of these: were they counted, one lost could be made up
/// for by another one gained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Possible {
    FirstIssued,
    LastIssued,
    IssuedAgain,
    BothLead,
    Rejoined,
    IssuedAboveChange,
}

impl Possible {
    pub(crate) const COUNT: usize = 6;

    /// As told.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FirstIssued => "the first number is issued",
            Self::LastIssued => "the last number is issued",
            Self::IssuedAgain => "a later ballot issues the command of an earlier one",
            Self::BothLead => "both lead",
            Self::Rejoined => "a damaged acceptor speaks again",
            Self::IssuedAboveChange => "something is issued above a change",
        }
    }
}

pub(crate) fn all() -> Vec<Property<Cluster>> {
    let mut all = always();
    all.extend(sometimes());
    all
}

fn always() -> Vec<Property<Cluster>> {
    vec![
        Property::always("agreement", |model: &Cluster, state: &State| model.agrees(state)),
        Property::always("no core finds its state broken", |_, state: &State| state.fault != Some(Fault::Assertion)),
        Property::always("dependency", |model: &Cluster, state: &State| {
            let tables = model.space.look();
            NODES.iter().all(|node| tables.learner(state, *node).is_sound)
        }),
        Property::always("promises never go down", |model: &Cluster, state: &State| {
            let tables = model.space.look();
            NODES.iter().all(|node| {
                let role = tables.acceptor(state, *node);
                role.core.next_ballot() >= role.told
            })
        }),
        Property::always("a power cut takes back no promise and no vote", |model: &Cluster, state: &State| {
            let tables = model.space.look();
            NODES.iter().all(|node| tables.acceptor(state, *node).is_durable)
        }),
        Property::always("what is issued has the votes of a majority set", |model: &Cluster, state: &State| {
            model.is_kept(state)
        }),
    ]
}

fn sometimes() -> Vec<Property<Cluster>> {
    vec![
        Property::sometimes(Possible::FirstIssued.name(), |model: &Cluster, state: &State| {
            model.is_first(Possible::FirstIssued, || state.issued[0].is_some())
        }),
        Property::sometimes(Possible::LastIssued.name(), |model: &Cluster, state: &State| {
            model.is_first(Possible::LastIssued, || state.issued.iter().all(Option::is_some))
        }),
        Property::sometimes(Possible::IssuedAgain.name(), |model: &Cluster, state: &State| {
            model.is_first(Possible::IssuedAgain, || prune::issues_again(&model.space.look(), state))
        }),
        Property::sometimes(Possible::BothLead.name(), |model: &Cluster, state: &State| {
            let tables = model.space.look();
            let leads = |node| tables.leader(state, node).leads().is_some();
            model.is_first(Possible::BothLead, || LEADERS.into_iter().all(leads))
        }),
        Property::sometimes(Possible::Rejoined.name(), |model: &Cluster, state: &State| {
            let tables = model.space.look();
            let has_rejoined = |node| tables.acceptor(state, node).has_rejoined();
            model.is_first(Possible::Rejoined, || NODES.into_iter().any(has_rejoined))
        }),
        Property::sometimes(Possible::IssuedAboveChange.name(), |model: &Cluster, state: &State| {
            let tables = model.space.look();
            let above = |applied: &[Command]| (1..applied.len()).contains(&durable_at_least(applied));
            model.is_first(Possible::IssuedAboveChange, || {
                model.config.change.is_some() && NODES.iter().any(|node| above(&tables.learner(state, *node).applied))
            })
        }),
    ]
}

impl Cluster {
    /// Whether this is seen for the first time: one example is enough, and looking for and noting each is slow.
    fn is_first(&self, possible: Possible, is_so: impl FnOnce() -> bool) -> bool {
        let seen = &self.seen[possible as usize];
        !seen.load(Ordering::Relaxed) && is_so() && !seen.swap(true, Ordering::Relaxed)
    }

    /// Invariant 1: what any role ever considered issued, what learners applied and what
    /// acceptors were told is the same.
    fn agrees(&self, state: &State) -> bool {
        let tables = self.space.look();
        let is_issued = |id: CommandId| {
            id == CommandId::NULL || state.issued[usize::try_from(id.number.0 - 1).expect("small")] == Some(id)
        };
        state.fault != Some(Fault::TwoIssued)
            && NODES.iter().all(|node| {
                let applied = &tables.learner(state, *node).applied;
                applied.iter().all(|command| is_issued(command.id))
                    && is_issued(tables.acceptor(state, *node).core.issued())
            })
    }

    /// Invariant 11.
    fn is_kept(&self, state: &State) -> bool {
        let tables = self.space.look();
        let has = |node, id: &CommandId| {
            let (acceptor, learner) = (tables.acceptor(state, node), tables.learner(state, node));
            // Where votes can be damaged, what is applied is durable.
            let durable = self.config.damages > 0 && learner.applied.iter().any(|command| command.id == *id);
            acceptor.stored.iter().any(|(_, stored)| stored == id) || durable || acceptor.core.silence().is_some()
        };
        let longest = NODES.map(|node| &tables.learner(state, node).applied).into_iter().max_by_key(|all| all.len());
        let longest = longest.expect("three nodes");
        state.issued.iter().flatten().all(|id| {
            let before: Vec<Command> =
                longest.iter().take_while(|command| command.number() < id.number).cloned().collect();
            // A leader may know of a change that nobody has applied yet.
            before.len() as u64 + 1 < id.number.0
                || membership_after(&self.config, &before).majority().holds(|node| has(node, id))
        })
    }
}
