//! S-01 found by search: the literal rules of the patent as a state space.
//!
//! Two devices lead in turn, ballots 1 and 3 the one, 2 and 4 the other; each ballot begins when
//! the one before has begun, with the promises of the leader's own device and another one, which
//! tell each other what they know to be issued (D and X of steps 2 and 3). In its ballot a leader
//! proposes its initial history and new commands up to number 2. Each `BeginBallot` reaches each
//! device or not, and so does `Success` the device that never leads.

use std::fmt;

use protocol::{Ballot, Command, CommandId, NodeId};
use quorate_tests::literal::{Literal, command};
use quorate_tests::world::{Device, P, Q, R};
use stateright::{Model, Property};

const DEVICES: [NodeId; 3] = [P, Q, R];
/// Two leaders in turn; the devices A and C of the checklist.
const OWNERS: [NodeId; 4] = [P, R, P, R];
const NUMBERS: u64 = 2;

/// The devices, and what each ballot begun so far proposes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    devices: Literal,
    proposed: Vec<Vec<Command>>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The next ballot begins, with the promises of its leader and of this device.
    Prepare { other: NodeId },
    /// The `BeginBallot` of a ballot, from 0, and number reaches a device.
    Begin { ballot: usize, number: usize, to: NodeId },
    /// The device that never leads learns the next issued command.
    Learn { from: NodeId },
}

/// See the module.
pub(crate) struct LiteralRules {
    /// With the rule that the patent lacks.
    pub(crate) gap_free: bool,
}

fn ballot(index: usize) -> Ballot {
    Ballot::new(index as u64 + 1, OWNERS[index])
}

impl LiteralRules {
    fn prepare(devices: &mut Literal, ballot: Ballot, other: NodeId) -> Vec<Command> {
        while devices.learn(ballot.node, other) || devices.learn(other, ballot.node) {}
        let issued = devices.issued(ballot.node).last().copied().unwrap_or(CommandId::NULL);
        let mut commands = devices.prepare(ballot, [ballot.node, other]);
        loop {
            let last = commands.last().map_or(issued, |last| last.id);
            if last.number.0 >= NUMBERS {
                return commands;
            }
            commands.push(command(last.number.0 + 1, ballot, last));
        }
    }
}

impl Model for LiteralRules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { devices: Literal::new(self.gap_free), proposed: Vec::new() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if let Some(owner) = OWNERS.get(state.proposed.len()) {
            actions.extend(DEVICES.into_iter().filter(|other| other != owner).map(|other| Action::Prepare { other }));
        }
        for (index, commands) in state.proposed.iter().enumerate() {
            let promised = |to: &NodeId| state.devices.next_ballot(*to) == ballot(index);
            for to in DEVICES.into_iter().filter(promised) {
                actions.extend((0..commands.len()).map(|number| Action::Begin { ballot: index, number, to }));
            }
        }
        let known = state.devices.issued(Q).len();
        let further = [P, R].into_iter().filter(|from| state.devices.issued(*from).len() > known);
        actions.extend(further.map(|from| Action::Learn { from }));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Prepare { other } => {
                let ballot = ballot(state.proposed.len());
                state.proposed.push(Self::prepare(&mut state.devices, ballot, other));
            }
            Action::Begin { ballot: index, number, to } => {
                state.devices.begin(ballot(index), &last.proposed[index][number], &[to]);
            }
            Action::Learn { from } => _ = state.devices.learn(Q, from),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("agreement", |_, state: &State| {
                let [p, q, r] = DEVICES.map(|device| state.devices.issued(device));
                let agree =
                    |one: &[CommandId], other: &[CommandId]| one.iter().zip(other).all(|(one, other)| one == other);
                agree(p, q) && agree(p, r) && agree(q, r)
            }),
            Property::sometimes("the last number is issued", |_, state: &State| {
                DEVICES.iter().any(|device| state.devices.issued(*device).len() as u64 == NUMBERS)
            }),
        ]
    }

    fn format_action(&self, action: &Action) -> String {
        action.to_string()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare { other } => {
                write!(f, "the next ballot begins with the promises of its leader and {}", Device(*other))
            }
            Self::Begin { ballot: index, number, to } => {
                write!(f, "ballot {} reaches {} with its command {}", ballot(*index), Device(*to), number + 1)
            }
            Self::Learn { from } => write!(f, "{} learns the next issued command from {}", Device(Q), Device(*from)),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for device in DEVICES {
            let ids: Vec<String> = self.devices.issued(device).iter().map(ToString::to_string).collect();
            writeln!(f, "  {} considers issued: {}", Device(device), ids.join(" "))?;
        }
        Ok(())
    }
}
