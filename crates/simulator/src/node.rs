//! One node of a world: its disk, its clocks, and, while it is up, the shipped cores of all roles
//! with their mailboxes.
//!
//! A core is rebuilt from the disk at every start, as the binary does it, and nothing else of one
//! life gets into the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use acceptor::core::{Acceptor, Silence};
use failure_detector::core::{FailureDetector, LocalStatus, View};
use functions::{Heard, Registry};
use http_api::Gateway;
use leader::core::Leader;
use learner::{Learner, Progress, Stored, Timing};
use protocol::message::HandOver;
use protocol::{Ballot, CommandId, CommandNumber, Membership, Message, NodeId, SnapshotId, SnapshotPiece, Space, Tick};
use storage::memory::{Fault, MemoryLog, MemoryState};
use storage::{Checkpoint, LogRecord, LogStore as _, Standing, StateStore as _, StorageError};

use crate::clocks::Clocks;
use crate::fact::Read;
use crate::functions::{Executions, registry};
use crate::planted;
use crate::schedule::Event;
use crate::swarm::Swarm;

/// The pause before a leader sends again, as in the binary.
const RESEND: Duration = Duration::from_millis(100);

/// One input for a role that has a mailbox.
#[derive(Debug)]
pub(crate) enum Mail {
    Acceptor(acceptor::core::Input),
    Leader(leader::core::Input),
    Learner(learner::Input),
}

impl Mail {
    /// A message for a role that has a mailbox.
    pub(crate) fn of(from: NodeId, message: Message) -> Self {
        match message {
            Message::Acceptor(message) => Self::Acceptor(acceptor::core::Input::Message { from, message }),
            Message::Leader(message) => Self::Leader(leader::core::Input::Message { from, message }),
            Message::Learner(message) => Self::Learner(learner::Input::Message { from, message }),
            Message::FailureDetector(_) | Message::Gateway(_) => {
                unreachable!("what is for them is carried out at once")
            }
        }
    }
}

/// What the roles of a node say of themselves, as the binary's `Status` keeps it.
#[derive(Debug)]
pub(crate) struct Status {
    me: NodeId,
    leads: Option<Ballot>,
    seen: Option<Ballot>,
    highest: Ballot,
    hands_over: Option<HandOver>,
}

impl Status {
    pub(crate) fn leads(&mut self, ballot: Option<Ballot>) {
        self.leads = ballot;
    }

    pub(crate) fn sees(&mut self, leader: Option<Ballot>) {
        self.seen = leader;
    }

    pub(crate) fn hands_over(&mut self, over: Option<HandOver>) {
        self.hands_over = over;
    }

    pub(crate) fn heard(&mut self, ballot: Ballot) {
        self.highest = self.highest.max(ballot);
    }

    pub(crate) fn highest(&self) -> Ballot {
        self.highest
    }

    /// Of the higher ballot where the roles know two; whether this node leads, only its own
    /// leader can say.
    pub(crate) fn leader(&self) -> Option<Ballot> {
        self.leads.max(self.seen.filter(|seen| seen.node != self.me))
    }

    pub(crate) fn local(&self, progress: Progress, space: Space, acceptor: &Acceptor, leader: &Leader) -> LocalStatus {
        let Progress { issued, applied, durable } = progress;
        let (leads, waits, ballot, hands_over) = (self.leads, leader.load().waits, self.highest, self.hands_over);
        let (barred, silent) = (acceptor.is_barred(), acceptor.silence().is_some());
        // No disk of a world is an old copy, which the last two would show.
        let (promise, voted) = (Ballot::NONE, CommandNumber::NULL);
        LocalStatus {
            leads,
            waits,
            ballot,
            issued,
            applied,
            durable,
            space,
            barred,
            silent,
            hands_over,
            promise,
            voted,
        }
    }
}

/// Whom a node hears, itself included, whose `hears` is filled in. One that said that it has another disk than it had
/// never votes.
pub(crate) fn heard_by(me: NodeId, own: &Heard, view: &View, replaced: &BTreeSet<NodeId>) -> BTreeMap<NodeId, Heard> {
    let peers = view.peers.iter().filter(|(id, peer)| peer.heard && !replaced.contains(id));
    let mut heard: BTreeMap<NodeId, Heard> =
        peers.filter_map(|(id, peer)| peer.last.as_ref().map(|last| (*id, Heard::of(last)))).collect();
    let hears = heard.keys().copied().chain([me]).collect();
    heard.insert(me, Heard { hears, ..own.clone() });
    heard
}

/// A read that waits for the state to be recent enough.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) read: Read,
    /// The number that it must reach; none until the leader has said so.
    pub(crate) number: Option<CommandNumber>,
    /// On the clock of the node.
    pub(crate) deadline: Tick,
}

/// What is to be done with what is staged of a whole state.
pub(crate) enum StagingJob {
    Stage(SnapshotId, SnapshotPiece),
    Install,
    Drop,
}

/// One life of a node.
pub(crate) struct Roles {
    pub(crate) acceptor: Acceptor,
    pub(crate) leader: Leader,
    pub(crate) learner: Learner,
    pub(crate) gateway: Gateway,
    pub(crate) detector: FailureDetector,
    pub(crate) to_acceptor: VecDeque<acceptor::core::Input>,
    pub(crate) to_leader: VecDeque<leader::core::Input>,
    pub(crate) to_learner: VecDeque<learner::Input>,
    pub(crate) status: Status,
    pub(crate) progress: Progress,
    /// What the other roles were told last to be issued and applied.
    pub(crate) told: CommandId,
    /// The number of the membership in the state, as far as it was looked at.
    pub(crate) changed_at: CommandNumber,
    /// Which votes may go, until that is written.
    pub(crate) forget: Option<CommandNumber>,
    /// Commands are being forgotten.
    pub(crate) forgetting: bool,
    pub(crate) jobs: VecDeque<StagingJob>,
    /// The state may show more than the learner knows.
    pub(crate) installing: bool,
    pub(crate) checkpoints: BTreeMap<SnapshotId, Box<dyn Checkpoint>>,
    pub(crate) reads: BTreeMap<u64, Reader>,
    /// What the failure detector says of the room of all nodes.
    pub(crate) takes_calls: bool,
    /// Whether the gateway's timer runs.
    pub(crate) gateway_ticks: bool,
    /// Peers that it tries to connect to.
    pub(crate) dialing: BTreeSet<NodeId>,
    /// Peers whose disks have taken the place of lost ones, by their own words in this life.
    pub(crate) replaced: BTreeSet<NodeId>,
    /// The membership in which this life began: its acceptors are those whose notes of a new disk count.
    pub(crate) began_in: Arc<Membership>,
    /// The membership in force, as the rest of the node goes by it.
    pub(crate) membership: Arc<Membership>,
    /// It was asked to leave.
    pub(crate) leaving: bool,
    /// Its own question about its membership that has no answer yet.
    pub(crate) errand: Option<u64>,
}

/// How a node came by its seat, as the binary notes it beside its data (ADR 0027).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// It is one of those that the world began with.
    Listed,
    /// It joined, and is to ask for a vote.
    ForAVote,
    /// It joined.
    Joined,
    /// Its disk is needed no more: it joins anew.
    Left,
}

/// When the power goes around the next write of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing of it is on the disk.
    Before,
    /// A part of it is.
    Within,
    /// It is durable, and nothing that follows it has left the node.
    After,
}

/// See the module.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) log: MemoryLog,
    pub(crate) state: MemoryState,
    pub(crate) clocks: Clocks,
    pub(crate) functions: Registry,
    pub(crate) executions: Executions,
    /// None while it is down.
    pub(crate) roles: Option<Box<Roles>>,
    /// Counts its starts.
    pub(crate) life: u32,
    /// Whether its machine runs, and refuses connections while the process does not.
    pub(crate) powered: bool,
    /// What happens while it stands still; none while it does not.
    pub(crate) held: Option<Vec<Event>>,
    /// What fails at the next write or sync.
    pub(crate) log_fault: Option<Fault>,
    pub(crate) state_fault: Option<Fault>,
    pub(crate) cut: Option<Cut>,
    /// How much room its disk has.
    pub(crate) space: Space,
    /// It lacks something that it had: a stored vote is damaged, which the next opening will find, or it
    /// is silent for having lost votes or its state.
    pub(crate) damaged: bool,
    /// Its votes are damaged, which the next opening will find, whatever it says until then.
    pub(crate) log_rotten: bool,
    /// The same of its state.
    pub(crate) state_rotten: bool,
    /// Its disk was lost: it never speaks again.
    pub(crate) lost: bool,
    /// The others take it all the same, as a node that learns.
    pub(crate) replaced: bool,
    /// It never comes back.
    pub(crate) gone: bool,
    /// Names its disk among those that it has had.
    pub(crate) disk: u32,
    /// The disks of the others that it was told of first. Durable.
    pub(crate) noted: BTreeMap<NodeId, u32>,
    /// Who the members are without any state: those that it was told of when it came.
    told: Arc<Membership>,
    /// The same, as it has noted them since, beside its data.
    pub(crate) seat: Arc<Membership>,
    /// Likewise.
    pub(crate) came: Came,
    /// It was removed, and is to be stopped.
    pub(crate) departing: bool,
}

impl Node {
    pub(crate) fn new(id: NodeId, seat: Arc<Membership>, came: Came) -> Self {
        let executions = Executions::default();
        let mut node = Self {
            id,
            log: MemoryLog::new(),
            state: MemoryState::new(),
            clocks: Clocks::new(),
            functions: registry(&executions),
            executions,
            roles: None,
            life: 0,
            powered: false,
            held: None,
            log_fault: None,
            state_fault: None,
            cut: None,
            space: Space::Ample,
            damaged: false,
            log_rotten: false,
            state_rotten: false,
            lost: false,
            replaced: false,
            gone: false,
            disk: 0,
            noted: BTreeMap::new(),
            told: Arc::clone(&seat),
            seat,
            came,
            departing: false,
        };
        node.replace_disk(Standing::Fresh);
        node
    }

    pub(crate) fn is_up(&self) -> bool {
        self.roles.is_some()
    }

    /// Whether it can take part again, now or after a start.
    pub(crate) fn is_sound(&self) -> bool {
        !self.lost && !self.damaged
    }

    /// Whether the others let it stay.
    pub(crate) fn is_welcome(&self) -> bool {
        !self.gone && self.came != Came::Left && (!self.lost || self.replaced)
    }

    /// Puts a new disk in the place of its own.
    pub(crate) fn replace_disk(&mut self, standing: Standing) {
        (self.log, self.state) = (MemoryLog::new(), MemoryState::new());
        (self.log_rotten, self.state_rotten) = (false, false);
        self.log.write(&[LogRecord::Standing(standing)]).expect("memory does not fail");
        self.noted.clear();
        self.seat = Arc::clone(&self.told);
        self.replaced = standing == Standing::Replaced;
        self.disk += 1;
    }

    /// Rebuilds the cores from the disk. `chance` is for the first read barrier and the acceptor's nonce.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub(crate) fn start(&mut self, swarm: &Swarm, world: Tick, chance: u64) -> Result<(), StorageError> {
        if std::mem::take(&mut self.state_rotten) {
            // What is damaged is set aside, and what it held is learnt again (ADR 0023).
            self.state = MemoryState::new();
        }
        let applied = self.state.applied();
        let image = planted::remembered(swarm.planted, self.log.load(applied.number)?);
        let (last_tried, highest) = planted::tried(swarm.planted, &image);
        self.clocks.restart(world);
        self.life += 1;
        self.powered = true;
        let later = self.seat.later_in(&self.state).expect("memory does not fail");
        let membership = later.unwrap_or_else(|| Arc::clone(&self.seat));
        self.seat = Arc::clone(&membership);
        if self.state.durable() < membership.number() {
            self.state.sync()?;
        }
        let durable = self.state.durable();
        let stored = Membership::stored_from(CommandNumber::NULL, &self.state).expect("memory does not fail");
        let changed_at = stored.map_or(CommandNumber::NULL, |stored| stored.number());
        let shared = || Arc::clone(&membership);
        let config = acceptor::core::Config { nonce: chance, ..acceptor_config(self.id, swarm, &membership) };
        let acceptor = Acceptor::new(config, image, applied);
        let silence = acceptor.silence();
        // What was damaged may have been written anew in the meantime.
        self.damaged = matches!(silence, Some(Silence::Damaged | Silence::Behind));
        self.log_rotten = false;
        self.roles = Some(Box::new(Roles {
            acceptor,
            leader: Leader::new(leader_config(self.id, swarm, shared()), last_tried, applied),
            learner: Learner::new(learner_config(self.id, swarm, shared()), Stored::of(&self.state)),
            gateway: Gateway::new(http_api::core::Settings::default(), chance),
            detector: FailureDetector::new(detector_config(self.id, swarm, shared())),
            to_acceptor: VecDeque::new(),
            to_leader: VecDeque::new(),
            to_learner: VecDeque::new(),
            status: Status { me: self.id, leads: None, seen: None, highest, hands_over: None },
            progress: Progress { issued: applied.number, applied: applied.number, durable },
            told: applied,
            changed_at,
            forget: None,
            forgetting: false,
            jobs: VecDeque::new(),
            installing: false,
            checkpoints: BTreeMap::new(),
            reads: BTreeMap::new(),
            takes_calls: true,
            gateway_ticks: false,
            dialing: BTreeSet::new(),
            replaced: BTreeSet::new(),
            began_in: shared(),
            membership,
            leaving: false,
            errand: None,
        }));
        Ok(())
    }
}

pub(crate) fn acceptor_config(me: NodeId, swarm: &Swarm, membership: &Membership) -> acceptor::core::Config {
    acceptor::core::Config {
        me,
        window: usize::try_from(swarm.window).expect("a small window"),
        acceptors: membership.majority().clone().into(),
        learners: membership.learners().collect(),
        learn_from: swarm.learn_from,
        part_bytes: swarm.part_bytes,
        nonce: 0,
    }
}

fn leader_config(me: NodeId, swarm: &Swarm, membership: Arc<Membership>) -> leader::core::Config {
    leader::core::Config {
        me,
        membership,
        learn_from: swarm.learn_from,
        window: swarm.window,
        pipeline_bytes: swarm.pipeline_bytes,
        run_bytes: swarm.run_bytes,
        rounds_in_flight: swarm.rounds_in_flight,
        kept_calls: swarm.kept_calls,
        resend: RESEND,
        // As 5 s is to 2 s in the binary.
        prepare_timeout: swarm.timeout_max * 5 / 2,
        hand_over_timeout: swarm.timeout_min * 4,
        caller_retention: swarm.caller_retention,
        gateway_retention: swarm.gateway_retention,
    }
}

fn learner_config(me: NodeId, swarm: &Swarm, membership: Arc<Membership>) -> learner::Config {
    learner::Config {
        me,
        membership,
        learn_from: swarm.learn_from,
        window: swarm.window,
        // As 30 s is to 2 s in the binary: what counts is that others are asked first.
        timing: Timing { give_up: swarm.timeout_max * 3, keep_open: swarm.timeout_max * 6, ..Timing::default() },
    }
}

fn detector_config(me: NodeId, swarm: &Swarm, membership: Arc<Membership>) -> failure_detector::core::Config {
    failure_detector::core::Config {
        me,
        can_lead: swarm.has_role_leader(me),
        membership,
        heartbeat: swarm.heartbeat,
        timeout_min: swarm.timeout_min,
        timeout_max: swarm.timeout_max,
        http: String::new(),
        spare: false,
    }
}
