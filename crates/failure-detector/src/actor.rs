//! The failure detector's actor: clock, network, log lines.
//!
//! It ticks, hands every event to the core with the time, and carries out what the core says.
//! After each turn it publishes a [`View`] for `GET /v1/cluster` and the health checks.

use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use protocol::message::Heartbeat;
use protocol::{Ballot, CommandNumber, NodeId, Now};
use tokio::sync::watch;

use crate::core::{Effect, FailureDetector, Input, LocalStatus, Suspicion, TOO_MANY_SILENT, View};

/// Events that may wait: some seconds of heartbeats of a large cluster. A heartbeat that finds
/// it full is dropped and counted by the sender; the next one says the same.
pub const MAILBOX_CAPACITY: usize = 1_024;

/// Ticks come at least this often, so that what is due is seen soon.
const TICK_MAX: Duration = Duration::from_millis(10);

/// An event for the failure detector. Send with `try_send`.
#[derive(Clone, Debug)]
pub struct Deliver(pub Input);

impl actix::Message for Deliver {
    type Result = ();
}

/// What a failure detector asks of and does to the rest of its node. None of these may block.
pub struct DetectorPorts {
    /// Sends a heartbeat to a peer.
    pub send: Box<dyn Fn(NodeId, Heartbeat) + Send>,
    /// What the roles of this node say now.
    pub status: Box<dyn Fn() -> LocalStatus + Send>,
    /// This node should try to lead.
    pub campaign: Box<dyn Fn() + Send>,
    /// This node should stop leading, for this reason.
    pub step_down: Box<dyn Fn(&'static str) + Send>,
    /// The same, and another node could lead in its place.
    pub hand_over: Box<dyn Fn(&'static str) + Send>,
    /// Whether a leader on this node should take calls, as far as room goes.
    pub takes_calls: Box<dyn Fn(bool) + Send>,
    /// The working leader changed.
    pub leader_is: Box<dyn Fn(Option<Ballot>) + Send>,
    /// A peer knows more issued commands than this node.
    pub peer_issued: Box<dyn Fn(NodeId, CommandNumber) + Send>,
    /// A peer is heard, and its state is durable up to here.
    pub peer_durable: Box<dyn Fn(NodeId, CommandNumber) + Send>,
    /// A peer is suspected (true), or trusted again (false).
    pub suspected: Box<dyn Fn(NodeId, bool) + Send>,
    /// Both clocks.
    pub clock: Box<dyn Fn() -> Now + Send>,
}

/// The failure detector of a node, as an actor.
pub struct FailureDetectorActor {
    core: FailureDetector,
    ports: DetectorPorts,
    view: watch::Sender<View>,
}

impl FailureDetectorActor {
    /// The actor around a core; `view` gets what the core knows, whenever that changes.
    #[must_use]
    pub fn new(core: FailureDetector, ports: DetectorPorts, view: watch::Sender<View>) -> Self {
        Self { core, ports, view }
    }

    fn take(&mut self, input: Input) {
        if let Input::Heartbeat { from, .. } = &input {
            metrics::counter!("quorate_detector_heartbeats_received_total", "node" => from.to_string()).increment(1);
        }
        let mut effects = Vec::new();
        self.core.handle(input, (self.ports.clock)(), &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
        let view = self.core.view();
        self.view.send_if_modified(|known| {
            let changed = known.leader != view.leader || known.peers != view.peers;
            *known = view;
            changed
        });
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Send { to, heartbeat } => {
                metrics::counter!("quorate_detector_heartbeats_sent_total", "node" => to.to_string()).increment(1);
                (self.ports.send)(to, heartbeat);
            }
            Effect::Suspect { peer, why } => {
                match why {
                    Suspicion::Silent(silent) => {
                        tracing::info!(%peer, silent_ms = silent.as_millis(), "suspects the node: no heartbeat");
                    }
                    Suspicion::Refused => tracing::info!(%peer, "suspects the node: it closed and refuses connections"),
                }
                metrics::counter!("quorate_detector_suspicions_total", "node" => peer.to_string()).increment(1);
                metrics::gauge!("quorate_detector_heard", "node" => peer.to_string()).set(0.0);
                (self.ports.suspected)(peer, true);
            }
            Effect::Trust(peer) => {
                tracing::info!(%peer, "hears the node");
                metrics::gauge!("quorate_detector_heard", "node" => peer.to_string()).set(1.0);
                (self.ports.suspected)(peer, false);
            }
            Effect::Campaign { rank, attempt } => {
                tracing::info!(rank, attempt, "nobody leads: this node tries to");
                metrics::counter!("quorate_detector_campaigns_total").increment(1);
                (self.ports.campaign)();
            }
            Effect::TakeOver { from } => {
                tracing::info!(%from, "the leader hands over to this node: it tries to lead");
                metrics::counter!("quorate_detector_campaigns_total").increment(1);
                (self.ports.campaign)();
            }
            Effect::StepDown { disconnected } => {
                let disconnected_ms = disconnected.as_millis();
                tracing::info!(disconnected_ms, "this node leads and reaches no majority set: it steps down");
                metrics::counter!("quorate_detector_step_downs_total").increment(1);
                (self.ports.step_down)("no majority set is in touch with it");
            }
            Effect::StandAside { waited, silent, able } => self.stand_aside(waited, &silent, able),
            Effect::HandOver => {
                tracing::info!("this node leads, its disk is almost full and another node has room: it hands over");
                metrics::counter!("quorate_detector_step_downs_total").increment(1);
                (self.ports.hand_over)("its disk is almost full");
            }
            Effect::TakesCalls(takes) => {
                if takes {
                    tracing::info!("a leader on this node takes calls again: there is room on the disks");
                } else {
                    tracing::warn!(
                        "a leader on this node takes no calls: its disk, or those of too many acceptors, are almost full"
                    );
                }
                (self.ports.takes_calls)(takes);
            }
            Effect::LeaderIs(leader) => {
                match leader {
                    Some(ballot) => tracing::info!(leader = %ballot.node, %ballot, "knows a working leader"),
                    None => tracing::info!("knows no working leader"),
                }
                metrics::counter!("quorate_detector_leader_changes_total").increment(1);
                (self.ports.leader_is)(leader);
            }
            Effect::PeerIssued { peer, issued } => (self.ports.peer_issued)(peer, issued),
            Effect::PeerDurable { peer, durable } => (self.ports.peer_durable)(peer, durable),
            Effect::Ignored(reason) => {
                metrics::counter!("quorate_detector_ignored_total", "reason" => reason.name()).increment(1);
            }
        }
    }

    fn stand_aside(&self, waited: Duration, silent: &[NodeId], able: NodeId) {
        let waited_ms = waited.as_millis();
        let silent = silent.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            waited_ms,
            silent,
            %able,
            "this node leads and gets no majority of votes, since acceptors that it reaches are silent, and another node could: it stands aside"
        );
        metrics::counter!("quorate_detector_step_downs_total").increment(1);
        (self.ports.step_down)(TOO_MANY_SILENT);
    }
}

impl Actor for FailureDetectorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        // Four ticks a heartbeat: the core takes a gap of two heartbeats for a stall.
        let every = (self.core.config().heartbeat / 4).clamp(Duration::from_millis(1), TICK_MAX);
        ctx.run_interval(every, |actor, _| actor.take(Input::Tick((actor.ports.status)())));
    }
}

impl Handler<Deliver> for FailureDetectorActor {
    type Result = ();

    fn handle(&mut self, Deliver(input): Deliver, _: &mut Self::Context) {
        self.take(input);
    }
}

/// Looks again now: whoever waits for the answer learns how long messages wait here.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Look;

impl Handler<Look> for FailureDetectorActor {
    type Result = ();

    fn handle(&mut self, Look: Look, _: &mut Self::Context) {
        self.take(Input::Tick((self.ports.status)()));
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
