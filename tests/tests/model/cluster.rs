//! A cluster of shipped cores as a state space.
//!
//! Three nodes accept and learn, two of them lead. What happens, in any order:
//!
//! - a message is delivered. The network is a set: what was sent may arrive any number of times,
//!   at any later time, or never, which is loss, duplication and reordering at once;
//! - a leader begins one of the ballots of [`Config::owners`], each once, in any order that its
//!   own `last_tried` allows; it gives up what it led;
//! - a learner that is behind another one gets the next command from it (claim 4);
//! - the power of a node goes, and it starts again: promises, votes and `last_tried` are there,
//!   of what was applied any prefix that holds all changes of the membership;
//! - the votes of a node are damaged, all of them, and it starts again. What it has applied is durable.
//!
//! What is left out, and why nothing is lost for safety:
//!
//! - *Time.* Repetitions of the leader are messages that are in the network already. Waiting too
//!   long and giving up is a leader that hears nothing more.
//! - *Calls* arrive at the moment a node leads, as many as there are numbers left: the ballot on
//!   a later call is a message that is delayed. Each gets a message of its own.
//! - *The roles of one node* tell each other at once. A crash between them is a crash before.
//! - *A write that is cut* is a delivery that did not happen, or whose answers are lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use protocol::message::{Commands, ToLearner};
use protocol::{Ballot, Command, CommandId, CommandNumber, LearnFrom, Message, NodeId};
use quorate_tests::world::{Device, Said};
use stateright::{Model, Property};

pub(crate) use super::config::{Change, Config, Lack, Plant};
use super::properties::{self, Possible};
use super::prune;
use super::reached::Reached;
use super::roles::{Input, LEADERS, LearnerRole, NODES, Place, Role, What, is_change};
use super::space::{InputId, RoleId, Space, Tables};

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Deliver(InputId),
    /// A declaration reaches a learner, or two votes of one ballot that decide something do.
    Declare(Vec<InputId>),
    CatchUp {
        learner: NodeId,
        peer: NodeId,
    },
    Campaign {
        node: NodeId,
        round: u64,
    },
    /// A `NextBallot` is delivered, and the answer at once or never.
    Ask {
        question: InputId,
        heard: bool,
    },
    /// A campaign, and the first question is delivered.
    Begin {
        node: NodeId,
        round: u64,
        first: NodeId,
        heard: bool,
    },
    /// Of what was applied `kept` commands are there after it.
    PowerCut {
        node: NodeId,
        kept: usize,
    },
    Damage {
        node: NodeId,
    },
    /// The acceptor of a node is told what is durable.
    Durable {
        node: NodeId,
        number: CommandNumber,
    },
}

impl Action {
    /// Whether a search that lacks this leaves it out.
    fn is_of(&self, lack: Lack) -> bool {
        match self {
            Self::Begin { node, .. } | Self::Campaign { node, .. } if *node != LEADERS[0] => lack == Lack::OtherLeader,
            Self::Begin { heard: false, .. } | Self::Ask { heard: false, .. } => lack == Lack::LostAnswers,
            Self::CatchUp { .. } => lack == Lack::CatchUp,
            Self::Declare(_) => lack == Lack::Declarations,
            Self::Begin { .. }
            | Self::Campaign { .. }
            | Self::Ask { .. }
            | Self::Deliver(_)
            | Self::PowerCut { .. }
            | Self::Damage { .. }
            | Self::Durable { .. } => false,
        }
    }
}

/// A state of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    roles: [RoleId; Place::COUNT],
    /// What was sent and may still matter, ascending.
    pub(crate) net: Vec<InputId>,
    crashes_left: u8,
    damages_left: u8,
    /// What any role ever considered issued, from number 1.
    pub(super) issued: Vec<Option<CommandId>>,
    pub(crate) fault: Option<Fault>,
}

/// What must never be, as far as a single state does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// Two commands were considered issued at one number.
    TwoIssued,
    /// A core found its state or an agreement broken.
    Assertion,
}

/// See the module.
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) space: Space,
    /// What was possible so far, see [`properties`].
    pub(super) seen: [AtomicBool; Possible::COUNT],
    reached: Option<Arc<Reached>>,
}

impl Cluster {
    pub(crate) fn new(config: Config) -> Self {
        let is_equal = config.learn_from == LearnFrom::Leader || config.change.is_none();
        assert!(!config.reduced || is_equal, "two votes decide where all weigh the same");
        Self { space: Space::new(config.clone()), config, seen: Default::default(), reached: None }
    }

    /// The same, and what the search reaches is noted.
    pub(crate) fn watched(config: Config, reached: &Arc<Reached>) -> Self {
        Self { reached: Some(Arc::clone(reached)), ..Self::new(config) }
    }

    /// Carries out one input, and what the roles of the node then tell each other.
    pub(crate) fn take(&self, state: &mut State, input: Input) {
        self.take_id(state, self.space.input_id(input));
    }

    pub(crate) fn take_id(&self, state: &mut State, input: InputId) {
        let mut waiting = VecDeque::from([input]);
        while let Some(input) = waiting.pop_front() {
            let place = self.space.look().input(input).to.index();
            let step = self.space.step(state.roles[place], input);
            state.roles[place] = step.next;
            for send in &step.sends {
                if let Err(index) = state.net.binary_search(send) {
                    state.net.insert(index, *send);
                }
            }
            for id in &step.issues {
                state.note_issued(*id);
            }
            if step.broken {
                state.fault.get_or_insert(Fault::Assertion);
            }
            waiting.extend(&step.tells);
        }
    }

    fn restart(&self, state: &mut State, node: NodeId, kept: usize) {
        let commands = self.space.look().learner(state, node).applied[..kept].to_vec();
        let places = [Place::Acceptor(node), Place::Learner(node), Place::Leader(node)];
        for to in places.into_iter().filter(|place| place.index() < Place::COUNT) {
            self.take(state, Input { to, what: What::Restart(commands.clone()) });
        }
    }
}

impl State {
    fn note_issued(&mut self, id: CommandId) {
        let known = &mut self.issued[usize::try_from(id.number.0 - 1).expect("a small number")];
        match *known {
            Some(known) if known != id => _ = self.fault.get_or_insert(Fault::TwoIssued),
            Some(_) => {}
            None => *known = Some(id),
        }
    }

    pub(crate) fn can_be_damaged(&self) -> bool {
        self.damages_left > 0
    }

    pub(crate) fn can_lose_power(&self) -> bool {
        self.crashes_left > 0
    }

    /// What is on its way to learners: ballots, and commands that are declared or voted for in
    /// them.
    pub(crate) fn declarations(&self, tables: &Tables) -> impl Iterator<Item = (Ballot, CommandId)> {
        self.net.iter().filter_map(|id| match tables.input(*id).message() {
            Some((_, Message::Learner(ToLearner::Success(success)))) => Some((success.ballot, success.issued)),
            Some((_, Message::Learner(ToLearner::Voted(voted)))) => voted.run.map(|run| (voted.ballot, run.last)),
            Some(_) | None => None,
        })
    }

    /// What any role ever considered issued, from number 1.
    pub(crate) fn issued(&self) -> &[Option<CommandId>] {
        &self.issued
    }

    pub(crate) fn considers_issued(&self, id: CommandId) -> bool {
        self.issued.contains(&Some(id))
    }

    pub(crate) fn role<'a>(&self, tables: &'a Tables, place: Place) -> &'a Role {
        tables.role(self.roles[place.index()])
    }
}

impl Tables {
    pub(crate) fn learner(&self, state: &State, node: NodeId) -> &LearnerRole {
        match state.role(self, Place::Learner(node)) {
            Role::Learner(role) => role,
            Role::Acceptor(_) | Role::Leader(_) => panic!("a learner's place"),
        }
    }

    pub(crate) fn acceptor(&self, state: &State, node: NodeId) -> &super::roles::AcceptorRole {
        match state.role(self, Place::Acceptor(node)) {
            Role::Acceptor(role) => role,
            Role::Learner(_) | Role::Leader(_) => panic!("an acceptor's place"),
        }
    }

    pub(crate) fn leader(&self, state: &State, node: NodeId) -> &super::roles::LeaderRole {
        match state.role(self, Place::Leader(node)) {
            Role::Leader(role) => role,
            Role::Acceptor(_) | Role::Learner(_) => panic!("a leader's place"),
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let acceptors = NODES.map(Place::Acceptor).into_iter();
        let places = acceptors.chain(NODES.map(Place::Learner)).chain(LEADERS.map(Place::Leader));
        let mut roles = [0; Place::COUNT];
        for place in places {
            roles[place.index()] = self.space.role_id(Role::new(place, &self.config));
        }
        let numbers = usize::try_from(self.config.numbers).expect("few");
        vec![State {
            roles,
            net: Vec::new(),
            crashes_left: self.config.crashes,
            damages_left: self.config.damages,
            issued: vec![None; numbers],
            fault: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if let Some(reached) = &self.reached {
            reached.note(self, state);
        }
        if state.fault.is_some() || (self.config.reduced && prune::is_settled(&self.space.look(), state, &self.config))
        {
            return;
        }
        let tables = self.space.look();
        for (round, owner) in (1..).zip(&self.config.owners) {
            let ballot = Ballot::new(round, *owner);
            if tables.leader(state, *owner).last_tried >= ballot {
                continue;
            }
            if !self.config.reduced {
                actions.push(Action::Campaign { node: *owner, round });
                continue;
            }
            for first in NODES {
                if tables.acceptor(state, first).core.next_ballot() < ballot {
                    actions.push(Action::Begin { node: *owner, round, first, heard: true });
                    actions.push(Action::Begin { node: *owner, round, first, heard: false });
                }
            }
        }
        self.deliveries(&tables, state, actions);
        for learner in NODES {
            let known = tables.learner(state, learner).applied.len();
            let peer = NODES.into_iter().find(|peer| tables.learner(state, *peer).applied.len() > known);
            actions.extend(peer.map(|peer| Action::CatchUp { learner, peer }));
            self.damage(&tables, state, learner, actions);
            if state.crashes_left > 0 {
                let most = if self.config.reduced { known } else { known + 1 };
                let least = durable_at_least(&tables.learner(state, learner).applied);
                actions.extend((least..most).map(|kept| Action::PowerCut { node: learner, kept }));
            }
        }
        if let Some(lack) = self.config.lacks {
            actions.retain(|action| !action.is_of(lack));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(input) => self.take_id(&mut state, input),
            Action::Declare(messages) => self.declare(&mut state, &messages),
            Action::CatchUp { learner, peer } => {
                let (commands, issued) = {
                    let tables = self.space.look();
                    let applied = &tables.learner(&state, peer).applied;
                    let next = tables.learner(&state, learner).applied.len();
                    (vec![applied[next].clone()], applied[applied.len() - 1].id)
                };
                let kept_from = CommandNumber(1);
                let message = Message::Learner(ToLearner::Commands(Commands { commands, issued, kept_from }));
                self.take(
                    &mut state,
                    Input { to: Place::Learner(learner), what: What::Message { from: peer, message } },
                );
            }
            Action::Campaign { node, round } => {
                if !self.campaign(&mut state, node, round) {
                    return None;
                }
            }
            Action::Ask { question, heard } => self.ask(&mut state, question, heard),
            Action::Begin { node, round, first, heard } => {
                if !self.campaign(&mut state, node, round) {
                    return None;
                }
                let question = self.question(&state, Ballot::new(round, node), first)?;
                self.ask(&mut state, question, heard);
            }
            Action::Damage { node } => {
                self.take(&mut state, Input { to: Place::Acceptor(node), what: What::Damage });
                let all = self.space.look().learner(&state, node).applied.len();
                self.restart(&mut state, node, all);
                state.damages_left -= 1;
            }
            Action::Durable { node, number } => {
                self.take(&mut state, Input { to: Place::Acceptor(node), what: What::Durable(number) });
            }
            Action::PowerCut { node, kept } => {
                state.crashes_left -= 1;
                self.restart(&mut state, node, kept);
                if state.roles == last.roles {
                    return None;
                }
            }
        }
        if self.config.reduced {
            self.settle(&mut state);
        }
        if self.config.pruned {
            prune::prune(&self.space.look(), &mut state, &self.config);
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }

    fn format_action(&self, action: &Action) -> String {
        match action {
            Action::Ask { question: id, heard: _ } | Action::Deliver(id) => self.told(*id),
            Action::Declare(ids) => ids.iter().map(|id| self.told(*id)).collect::<Vec<_>>().join(", and "),
            Action::CatchUp { learner, peer } => {
                format!("{} <- {} the next issued command", Device(*learner), Device(*peer))
            }
            Action::Begin { node, round, .. } | Action::Campaign { node, round } => {
                format!("{} begins ballot {round}.{node}", Device(*node))
            }
            Action::Damage { node } => format!("the votes of {} are damaged, and it starts again", Device(*node)),
            Action::Durable { node, number } => format!("{} hears that {number} is durable", Device(*node)),
            Action::PowerCut { node, kept } => {
                format!("{} loses power and starts again with {kept} applied commands", Device(*node))
            }
        }
    }
}

impl Cluster {
    /// A delivery in words.
    fn told(&self, id: InputId) -> String {
        let tables = self.space.look();
        let input = tables.input(id);
        let (from, message) = input.message().expect("what is in the network is a message");
        format!("{} <- {} {}", Device(input.to.node()), Device(from), Said(message))
    }

    /// What can be done about the messages in the network.
    fn deliveries(&self, tables: &Tables, state: &State, actions: &mut Vec<Action>) {
        for id in state.net.iter().copied().filter(|id| prune::may_matter_now(tables, state, *id, &self.config)) {
            if !self.config.reduced {
                actions.push(Action::Deliver(id));
            } else if let Some(ballot) = prune::question(tables, id) {
                let leader = tables.leader(state, ballot.node);
                let node = tables.input(id).to.node();
                let prepares = leader.active == Some(ballot) && leader.leads().is_none();
                if leader.active == Some(ballot) {
                    actions.push(Action::Ask { question: id, heard: true });
                }
                if leader.active != Some(ballot)
                    || (prepares && tables.acceptor(state, node).core.next_ballot() < ballot)
                {
                    actions.push(Action::Ask { question: id, heard: false });
                }
            } else if prune::is_success(tables, id) {
                actions.push(Action::Declare(vec![id]));
            } else if prune::is_vote(tables, id) {
                let others = state.net.iter().filter(|other| prune::decide(tables, state, [id, **other]));
                actions.extend(others.map(|other| Action::Declare(vec![id, *other])));
            } else {
                actions.push(Action::Deliver(id));
            }
        }
    }

    /// What can be done about damaged votes of a node.
    fn damage(&self, tables: &Tables, state: &State, node: NodeId, actions: &mut Vec<Action>) {
        if state.damages_left > 0 && !tables.acceptor(state, node).stored.is_empty() {
            actions.push(Action::Damage { node });
        }
        if tables.acceptor(state, node).core.silence().is_some() {
            let mut all = NODES.map(|node| tables.learner(state, node).applied.len());
            all.sort_unstable();
            let number = all[1].min(tables.learner(state, node).applied.len());
            actions.push(Action::Durable { node, number: CommandNumber(number as u64) });
        }
    }
}

/// How many of these commands no power cut takes: a learner makes a change of the membership durable at once.
pub(super) fn durable_at_least(applied: &[Command]) -> usize {
    applied.iter().rposition(is_change).map_or(0, |at| at + 1)
}
