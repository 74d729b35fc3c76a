//! The three roles of a node as the search holds them: a shipped core, and what lies on its disk.
//!
//! [`Role::step`] is one turn, by the rules of the actors: handle the input, make durable what
//! it says, then send. Time stands still, so nothing is repeated and nobody asks by himself;
//! what a repetition could bring is in the network for good (see `cluster`).

mod acceptor;
mod leader;
mod learner;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use functions::Registry;
use protocol::membership::Rule;
use protocol::message::ToLearner;
use protocol::{
    Ballot, Command, CommandBody, CommandId, CommandNumber, Effect, Entry, Member, Membership, Message, NodeId, Now,
    Tick, Timestamp, Vote, membership,
};
use quorate_tests::world::{P, Q, R};

use super::cluster::Config;

pub(crate) use self::acceptor::AcceptorRole;
pub(crate) use self::leader::LeaderRole;
pub(crate) use self::learner::LearnerRole;

/// The nodes; all accept and learn.
pub(crate) const NODES: [NodeId; 3] = [P, Q, R];
/// Those that lead.
pub(crate) const LEADERS: [NodeId; 2] = [P, Q];

const NOW: Now = Now { tick: Tick(1_000_000), wall: Timestamp(1_700_000_000_000) };
/// Longer than time stands still.
const NEVER: Duration = Duration::from_secs(3600);

/// Which role of which node, as a place in a state: acceptors, learners, leaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Acceptor(NodeId),
    Learner(NodeId),
    Leader(NodeId),
}

impl Place {
    /// How many there are.
    pub(crate) const COUNT: usize = 2 * NODES.len() + LEADERS.len();

    pub(crate) fn index(self) -> usize {
        let at = |node: NodeId| usize::try_from(node.0 - 1).expect("a small id");
        match self {
            Self::Acceptor(node) => at(node),
            Self::Learner(node) => NODES.len() + at(node),
            Self::Leader(node) => 2 * NODES.len() + at(node),
        }
    }

    pub(crate) fn node(self) -> NodeId {
        match self {
            Self::Acceptor(node) | Self::Learner(node) | Self::Leader(node) => node,
        }
    }

    /// Where a message to a node goes, if anybody is there.
    fn of(to: NodeId, message: &Message) -> Option<Self> {
        match message {
            Message::Acceptor(_) => Some(Self::Acceptor(to)),
            Message::Learner(_) => Some(Self::Learner(to)),
            Message::Leader(_) => LEADERS.contains(&to).then_some(Self::Leader(to)),
            Message::FailureDetector(_) | Message::Gateway(_) => None,
        }
    }
}

/// What happens to a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// A message arrives.
    Message { from: NodeId, message: Message },
    /// The acceptor of the node hands bodies to the learner.
    Proposed { ballot: Ballot, commands: Vec<Command> },
    /// A declaration arrives, or the votes that make one, at a learner that has these bodies from its acceptor.
    Declared { messages: Vec<(NodeId, ToLearner)>, bodies: Vec<Vote> },
    /// The failure detector wants this node to lead no more.
    StepDown,
    /// The learner of the node has applied all of these, from number 1.
    Applied(Vec<Command>),
    /// The failure detector wants this node to lead in this round; it gives up what it leads.
    Campaign(u64),
    /// A power cut, and a start after it: of what was applied this much is there.
    Restart(Vec<Command>),
    /// All votes on the disk are damaged.
    Damage,
    /// A majority of the learners, this node's among them, has this durable.
    Durable(CommandNumber),
}

/// An input and who takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Input {
    pub(crate) to: Place,
    pub(crate) what: What,
}

impl Input {
    /// The sender and the message, if it is one.
    pub(crate) fn message(&self) -> Option<(NodeId, &Message)> {
        if let What::Message { from, message } = &self.what { Some((*from, message)) } else { None }
    }
}

/// What comes of an input.
#[derive(Default)]
pub(crate) struct Outcome {
    /// For other roles, perhaps of other nodes, through the network.
    pub(crate) sends: Vec<Input>,
    /// For the other roles of this node, at once.
    pub(crate) tells: Vec<Input>,
    /// Commands that this role now considers issued, ascending.
    pub(crate) issues: Vec<CommandId>,
    /// A core found its own state broken, or was told of a broken agreement.
    pub(crate) broken: bool,
}

impl Outcome {
    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if let Some(place) = Place::of(to, &message) {
            self.sends.push(Input { to: place, what: What::Message { from, message } });
        }
    }

    fn tell(&mut self, to: Place, what: What) {
        self.tells.push(Input { to, what });
    }
}

/// A role of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Acceptor(AcceptorRole),
    Learner(Box<LearnerRole>),
    Leader(LeaderRole),
}

impl Role {
    /// A role that knows nothing.
    pub(crate) fn new(place: Place, config: &Config) -> Self {
        match place {
            Place::Acceptor(me) => Self::Acceptor(AcceptorRole::new(me, config)),
            Place::Learner(me) => Self::Learner(Box::new(LearnerRole::new(me, config, Vec::new()))),
            Place::Leader(me) => Self::Leader(LeaderRole::new(me, config, Ballot::NONE, Vec::new())),
        }
    }

    /// One turn. A failed assertion of a core is an outcome, so that the path to it is found.
    pub(crate) fn step(&self, what: &What, config: &Config, functions: &Registry) -> (Self, Outcome) {
        let mut next = self.clone();
        let mut outcome = Outcome::default();
        let turn = catch_unwind(AssertUnwindSafe(|| match &mut next {
            Self::Acceptor(role) => role.step(what, config, &mut outcome),
            Self::Learner(role) => role.step(what, config, &mut outcome),
            Self::Leader(role) => role.step(what, config, functions, &mut outcome),
        }));
        outcome.broken |= turn.is_err();
        (next, outcome)
    }
}

/// What a leader's calls add to the stock: different for each leader.
fn amount(node: NodeId) -> u64 {
    10_u64.pow(u32::try_from(node.0).expect("a small id"))
}

fn last(commands: &[Command]) -> CommandId {
    commands.last().map_or(CommandId::NULL, |command| command.id)
}

/// Whether a command changes the membership.
pub(crate) fn is_change(command: &Command) -> bool {
    membership::is_changed_by(&CommandBody::decode(&command.body).expect("a body").effects)
}

/// The membership before any change.
pub(crate) fn genesis(config: &Config) -> Arc<Membership> {
    let Some(change) = config.change else { return Membership::of_equals(NODES.len() as u64) };
    let member = |(node, weight): (NodeId, u64)| {
        let name = format!("n{node}");
        (node, Member { address: format!("{name}:7080"), name, weight, may_lead: true })
    };
    let members = NODES.into_iter().zip(change.weights).map(member).collect();
    Arc::new(Membership::genesis(members, Rule::Weights).expect("one of them weighs something"))
}

/// The membership in force after these commands.
pub(crate) fn membership_after(config: &Config, commands: &[Command]) -> Arc<Membership> {
    let mut membership = genesis(config);
    for command in commands {
        let body = CommandBody::decode(&command.body).expect("a body");
        for effect in body.effects {
            if let Effect::Put { key, value } = effect
                && key == membership::key()
            {
                let entry = Entry { value, version: command.number() };
                membership = Arc::new(Membership::read(&entry).expect("a membership"));
            }
        }
    }
    membership
}
