//! A leader, its disk, and M(p).

use std::collections::BTreeMap;
use std::time::Duration;

use functions::{Heard, Registry};
use leader::core::{Leader, Note};
use leader::machine::StoredMachine;
use protocol::message::{Executed, ToAcceptor, ToGateway, ToLeader, ToLearner, Voted};
use protocol::{Ballot, Command, CommandId, Message, NodeId, Outcome as Answer};
use quorate_tests::world::call;
use simulator::planted::no_barrier;
use storage::memory::MemoryState;
use storage::{LogRecord, StateStore};

use super::super::cluster::{Config, Plant};
use super::{NEVER, NODES, NOW, Outcome, What, amount, is_change, last, membership_after};

/// A leader, its part of the log, M(p), and what it has said so far in its ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaderRole {
    me: NodeId,
    core: Leader,
    /// On the disk.
    pub(crate) last_tried: Ballot,
    machine: Vec<Command>,
    /// The ballot that it prepares or leads.
    pub(crate) active: Option<Ballot>,
    /// While it leads: what is issued and what it proposed, from number 1.
    chain: Vec<CommandId>,
    /// It proposes nothing above a change in this ballot.
    is_barred: bool,
    /// Whose promises it has, while it prepares.
    pub(crate) promised: Vec<NodeId>,
    /// How far each acceptor has voted, while it leads.
    pub(crate) counted: BTreeMap<NodeId, u64>,
}

impl LeaderRole {
    pub(super) fn new(me: NodeId, config: &Config, last_tried: Ballot, machine: Vec<Command>) -> Self {
        let core = Leader::new(leader_config(me, config, &machine), last_tried, last(&machine));
        let (promised, counted) = (Vec::new(), BTreeMap::new());
        Self { me, core, last_tried, machine, active: None, chain: Vec::new(), is_barred: false, promised, counted }
    }

    /// The ballot that it leads, and with what.
    pub(crate) fn proposes(&self) -> Option<(Ballot, Vec<CommandId>)> {
        self.leads().map(|ballot| (ballot, self.chain.clone()))
    }

    pub(crate) fn leads(&self) -> Option<Ballot> {
        self.core.leads()
    }

    pub(super) fn step(&mut self, what: &What, config: &Config, functions: &Registry, outcome: &mut Outcome) {
        use leader::core::Input;
        match what {
            What::Message { from, message: Message::Leader(message) } => {
                if let ToLeader::BallotInfo(info) = message {
                    if self.active == Some(info.ballot) && !self.promised.contains(from) {
                        self.promised.push(*from);
                    }
                } else if let ToLeader::Voted(Voted { ballot, run: Some(run), .. }) = message
                    && self.leads() == Some(*ballot)
                {
                    let counted = self.counted.entry(*from).or_default();
                    *counted = run.last.number.0.max(*counted);
                }
                let input = Input::Message { from: *from, message: message.clone() };
                self.turn(input, config, functions, outcome);
                self.take_calls(config, functions, outcome);
            }
            What::Applied(commands) => {
                self.machine.clone_from(commands);
                self.turn(Input::Learned(last(commands)), config, functions, outcome);
                self.take_calls(config, functions, outcome);
            }
            What::Campaign(round) => {
                self.step_down(config, functions, outcome);
                let above = Ballot::new(round - 1, NodeId(u64::MAX));
                self.turn(Input::Campaign { above }, config, functions, outcome);
            }
            What::Restart(commands) => *self = Self::new(self.me, config, self.last_tried, commands.clone()),
            What::StepDown => self.step_down(config, functions, outcome),
            What::Message { .. } | What::Proposed { .. } | What::Declared { .. } | What::Damage | What::Durable(_) => {
                panic!("not for a leader: {what:?}")
            }
        }
        if self.leads().is_some() {
            // Where learners count, it tells of nothing but the calls that it took.
            outcome.issues.extend(&self.chain[..usize::try_from(self.issued()).expect("few")]);
        }
        if self.leads().is_some() && self.issued() == config.numbers {
            // It has nothing more to say.
            self.step_down(config, functions, outcome);
        }
    }

    /// The last number that it knows to be issued.
    pub(crate) fn issued(&self) -> u64 {
        let known =
            if self.leads().is_some() { self.chain.len() - self.core.load().unissued } else { self.machine.len() };
        known as u64
    }

    fn step_down(&mut self, config: &Config, functions: &Registry, outcome: &mut Outcome) {
        if self.active.is_some() {
            self.turn(leader::core::Input::StepDown("it is told to"), config, functions, outcome);
        }
    }

    /// Calls arrive at once when it leads, one after the other, up to the last number; none that would be kept behind a
    /// change, as it may come to be executed above the last number.
    fn take_calls(&mut self, config: &Config, functions: &Registry, outcome: &mut Outcome) {
        for index in 1..=config.numbers {
            if self.leads().is_none() || self.is_barred || self.chain.len() as u64 == config.numbers {
                return;
            }
            // The first command of all is the change.
            let (name, function, arguments) = match config.change.filter(|_| self.chain.is_empty()) {
                Some(change) => {
                    let arguments = serde_json::json!({"node": change.node.0, "weight": change.weight()});
                    (format!("{}change", self.me), "cluster.set_acceptor", arguments)
                }
                None => {
                    let arguments = serde_json::json!({"warehouse": "A", "amount": amount(self.me)});
                    (format!("{}{index}", self.me), "inventory.inbound", arguments)
                }
            };
            let call = call(&name, function, &arguments, Duration::ZERO);
            let input = leader::core::Input::Message { from: self.me, message: ToLeader::ExecuteFunction(call) };
            self.turn(input, config, functions, outcome);
        }
    }

    fn turn(&mut self, mut input: leader::core::Input, config: &Config, functions: &Registry, outcome: &mut Outcome) {
        let state = MemoryState::new();
        state.apply(&self.machine).expect("memory does not fail");
        let has_barrier = config.plant != Some(Plant::NoBarrier);
        let (stored, veiled) = (StoredMachine(&state), no_barrier::Veiled(StoredMachine(&state)));
        if !has_barrier {
            no_barrier::veil(&mut input);
        }
        let world = leader::core::World {
            now: NOW,
            entropy: 0,
            machine: if has_barrier { &stored } else { &veiled },
            functions,
            room: true,
            heard: &|| NODES.map(|node| (node, Heard::well(last(&self.machine).number, NODES))).into(),
            barred: false,
        };
        let mut effects = Vec::new();
        self.core.handle(input, &world, &mut effects);
        self.core.handle(leader::core::Input::EndOfTurn, &world, &mut effects);
        for effect in effects {
            match effect {
                leader::core::Effect::Persist(LogRecord::LastTried(ballot)) => self.last_tried = ballot,
                leader::core::Effect::Send { to, mut message } => {
                    self.note_sent(&message, outcome);
                    if !has_barrier {
                        no_barrier::unveil(&mut message);
                    }
                    outcome.send(self.me, to, message);
                }
                leader::core::Effect::Note(note) => self.note(&note),
                leader::core::Effect::Failed(error) => panic!("memory does not fail: {error}"),
                leader::core::Effect::Persist(_) | leader::core::Effect::RunOnPool(_) => {
                    panic!("not a leader's: {effect:?}");
                }
                // Learners ask their peers in any state, see `cluster`.
                leader::core::Effect::LearnFromPeer { .. }
                | leader::core::Effect::Leads(_)
                | leader::core::Effect::HandsOver(_)
                | leader::core::Effect::Ignored(_) => {}
            }
        }
    }

    fn note_sent(&mut self, message: &Message, outcome: &mut Outcome) {
        if let Message::Acceptor(ToAcceptor::BeginBallot(begin)) = message {
            self.is_barred |= begin.commands.iter().any(is_change);
            let known = self.chain.len() as u64;
            self.chain.extend(begin.commands.iter().map(|command| command.id).filter(|id| id.number.0 > known));
        } else if let Message::Gateway(ToGateway::Executed(Executed {
            outcome: Answer::Issued { command, .. }, ..
        })) = message
        {
            let index = usize::try_from(command.0 - 1).expect("a small number");
            outcome.issues.push(self.chain[index]);
        } else if let Message::Learner(ToLearner::Success(success)) = message
            && success.issued != CommandId::NULL
        {
            outcome.issues.push(success.issued);
        }
    }

    fn note(&mut self, note: &Note) {
        if let Note::Membership { .. } = note {
            return;
        }
        self.promised.clear();
        self.counted.clear();
        self.chain.clear();
        self.is_barred = false;
        match note {
            Note::Campaigns(ballot) => self.active = Some(*ballot),
            Note::Leads { .. } => self.chain.extend(self.machine.iter().map(|command| command.id)),
            Note::Membership { .. } | Note::HandsOver { .. } | Note::NotHandedOver { .. } => {}
            Note::StepsDown { .. } | Note::HandedOver { .. } => self.active = None,
        }
    }
}

fn leader_config(me: NodeId, config: &Config, applied: &[Command]) -> leader::core::Config {
    leader::core::Config {
        me,
        membership: membership_after(config, applied),
        learn_from: config.learn_from,
        window: config.numbers,
        pipeline_bytes: 1 << 20,
        // Every command in a message of its own, all at once.
        run_bytes: 1,
        rounds_in_flight: u64::MAX,
        kept_calls: 10,
        resend: NEVER,
        prepare_timeout: NEVER,
        hand_over_timeout: NEVER,
        caller_retention: NEVER,
        gateway_retention: NEVER,
    }
}
