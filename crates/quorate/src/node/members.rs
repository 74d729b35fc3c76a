//! What a running node does about who the members are: it takes newcomers in, asks for its own vote when it has joined,
//! keeps its seat, and leaves.
//!
//! The one that leads also has acceptors replaced that fail (module `replacing`). All of it is calls of the functions
//! `cluster.*`, sent by the gateway of this node as for any caller. The leader decides; nothing here does.

mod replacing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use failure_detector::core::View;
use http_api::GatewayActor;
use http_api::actor::Submit;
use http_api::core::{Answer, Unavailable};
use learner::Queries;
use protocol::{CommandNumber, NodeId, Outcome};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use transport::join::{ADMISSION_DEADLINE, Admission, Admit, Again, Newcomer, NotAdmitted};

use super::disks::Disks;
use super::router::Router;
use super::status::Status;
use super::{Node, outside};
use crate::config::Config;
use crate::seat::{Came, Seat};

/// How long the cluster may take to decide on a newcomer, which asks again; what is left is for this node to hear of it.
const DECISION: Duration = Duration::from_secs(4);
/// How often a node that joined looks whether it can ask for its vote.
const VOTE_SOUGHT: Duration = Duration::from_millis(250);
/// How long it waits for the answer.
const VOTE_WAIT: Duration = Duration::from_secs(5);
/// How long it waits after a refusal that passes, such as that the leader has not heard yet how far it is.
const VOTE_AGAIN: Duration = Duration::from_secs(1);
/// How long it waits after a refusal that does not pass by itself, such as a rule of majority sets without it.
const VOTE_REFUSED: Duration = Duration::from_secs(60);
/// Refusals that pass. They are the function's own codes.
const PASSING: [&str; 5] = ["another_change", "would_lose_majority", "not_caught_up", "not_connected", "still_heard"];

/// What is known of the disk that the seat is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Disk {
    #[default]
    Sound,
    Failed,
}

/// See the module.
pub(super) struct Members {
    config: Arc<Config>,
    router: Arc<Router>,
    status: Arc<Status>,
    disks: Arc<Disks>,
    gateway: Addr<GatewayActor>,
    queries: Queries,
    came: Mutex<Came>,
    /// Held while the seat is written: what is written last must be what is so. Nothing is written after a write that
    /// failed: what the disk has is not known any more.
    writing: tokio::sync::Mutex<Disk>,
    /// Whoever sends something here ends the node.
    failed: mpsc::UnboundedSender<String>,
    /// It does not ask for a vote any more.
    leaving: AtomicBool,
    /// Held while it asks for a vote: what comes of it is known before it leaves.
    asking: tokio::sync::Mutex<()>,
    view: watch::Receiver<View>,
}

impl Members {
    pub(super) fn new(node: &Node, came: Came) -> Arc<Self> {
        Arc::new(Self {
            config: Arc::clone(&node.config),
            router: Arc::clone(&node.router),
            status: Arc::clone(&node.status),
            disks: Arc::clone(&node.disks),
            gateway: node.gateway.clone(),
            queries: node.queries.clone(),
            came: Mutex::new(came),
            writing: tokio::sync::Mutex::default(),
            failed: node.failed.clone(),
            leaving: AtomicBool::new(false),
            asking: tokio::sync::Mutex::default(),
            view: node.view.clone(),
        })
    }

    fn me(&self) -> NodeId {
        self.config.cluster.me
    }

    /// How the listener has the cluster decide on newcomers.
    pub(super) fn admits(self: &Arc<Self>) -> Admit {
        let members = Arc::clone(self);
        Arc::new(move |newcomer| {
            let members = Arc::clone(&members);
            Box::pin(async move { members.admit(newcomer).await })
        })
    }

    async fn admit(&self, newcomer: Newcomer) -> Result<Admission, NotAdmitted> {
        let not = |again: Again, why: String| NotAdmitted { why, again };
        let key = format!("quorate-join-{:032x}", u128::from_be_bytes(newcomer.key));
        let arguments = json!({"name": newcomer.name, "address": newcomer.address});
        let decided = self.call("cluster.join", &arguments, key, DECISION).await;
        let (command, result) = decided.map_err(|why| match why {
            NotDone::Unknown(why) => not(Again::Same, format!("the cluster has not decided ({why})")),
            refused @ NotDone::Refused { .. } if refused.may_pass() => not(Again::Anew, refused.to_string()),
            refused @ NotDone::Refused { .. } => not(Again::Never, refused.to_string()),
        })?;
        let node = serde_json::from_slice::<Value>(&result).ok().and_then(|result| result["node"].as_u64());
        let node = node.ok_or_else(|| not(Again::Never, "the cluster gave no id".to_owned()))?;
        let membership = tokio::time::timeout(ADMISSION_DEADLINE - DECISION, self.membership_of(command)).await;
        let membership = membership.map_err(|_| not(Again::Same, "this node has not caught up".to_owned()))?;
        if membership.node(NodeId(node)).is_none() {
            return Err(not(Again::Anew, "it was admitted before, and removed again".to_owned()));
        }
        tracing::info!(node, name = newcomer.name, address = newcomer.address, "a node has joined the cluster");
        Ok(Admission {
            node,
            cluster: Bytes::copy_from_slice(&self.config.cluster.id.0),
            number: membership.number().0,
            membership: membership.to_value(),
        })
    }

    /// The membership of now, once it is not older than that command.
    async fn membership_of(&self, command: CommandNumber) -> Arc<protocol::Membership> {
        let mut memberships = self.router.memberships();
        let known = memberships.wait_for(|membership| membership.number() >= command).await;
        // The router, and with it the sender, lives as long as this.
        known.map(|known| Arc::clone(&known)).unwrap_or_else(|_| self.router.membership())
    }

    /// All that goes on as long as the node runs. Whoever ends it for a reason says so to `failed`.
    pub(super) fn start(self: &Arc<Self>, failed: mpsc::UnboundedSender<String>) {
        actix::spawn(Arc::clone(self).keep_seat());
        actix::spawn(Arc::clone(self).seek_vote());
        actix::spawn(Arc::clone(self).replace_failed());
        actix::spawn(Arc::clone(self).heed_removal(failed));
    }

    /// Notes who the members are whenever that changes, as long as the node runs.
    async fn keep_seat(self: Arc<Self>) {
        let mut memberships = self.router.memberships();
        loop {
            if memberships.borrow_and_update().number() > self.config.cluster.start.number() || self.is_voter() {
                _ = self.write_seat().await;
            }
            if memberships.changed().await.is_err() {
                return;
            }
        }
    }

    fn is_voter(&self) -> bool {
        self.router.membership().is_acceptor(self.me())
    }

    fn came(&self) -> Came {
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        // It has what it came for. An operator who takes the vote away is not contradicted.
        if *came == Came::JoinedForAVote && self.is_voter() && !self.leaving.load(Ordering::Acquire) {
            *came = Came::Joined;
        }
        *came
    }

    /// Says whether it is durably there; otherwise the node ends.
    async fn write_seat(&self) -> bool {
        let mut disk = self.writing.lock().await;
        if *disk == Disk::Failed {
            return false;
        }
        let seat = Seat {
            cluster: self.config.cluster.id,
            node: self.me(),
            membership: self.router.membership(),
            came: self.came(),
        };
        let dir = self.config.node.data_dir.clone();
        let written = tokio::task::spawn_blocking(move || seat.write(&dir)).await;
        let Err(error) = written.map_err(anyhow::Error::from).flatten() else { return true };
        *disk = Disk::Failed;
        tracing::error!("cannot note who the members are, and this node stops: {error:#}");
        let why = format!("cannot note who the members are: {error:#}");
        // Nobody listens only when the node is ending already.
        _ = self.failed.send(format!("{why}. {}, then start the node again", storage::remedy(&why)));
        false
    }

    /// Asks for the vote of a node that has joined for one, once it has caught up and its acceptor speaks. A spare does not.
    async fn seek_vote(self: Arc<Self>) {
        if self.config.replacement.spare {
            return;
        }
        let mut interval = tokio::time::interval(VOTE_SOUGHT);
        let mut said = String::new();
        while self.came() == Came::JoinedForAVote {
            interval.tick().await;
            let asking = self.asking.lock().await;
            if self.leaving.load(Ordering::Acquire) {
                return;
            }
            let membership = self.router.membership();
            let applied = self.queries.progress().applied >= membership.number();
            if self.disks.silence().is_some() || membership.node(self.me()).is_none() || !applied {
                continue;
            }
            let arguments = json!({"node": self.me().0, "weight": 1});
            let asked = self.call("cluster.set_acceptor", &arguments, own_key("vote"), VOTE_WAIT).await;
            let (answer, pause) = match asked {
                Ok((number, _)) => {
                    // Then it sees that it has it, and asks no more.
                    _ = tokio::time::timeout(VOTE_WAIT, self.membership_of(number)).await;
                    ("granted".to_owned(), Duration::ZERO)
                }
                Err(why) if why.may_pass() => (why.to_string(), VOTE_AGAIN),
                Err(why) => (why.to_string(), VOTE_REFUSED),
            };
            drop(asking);
            if answer != said {
                tracing::info!(answer, "this node asks to become an acceptor");
                said = answer;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Ends this node when the others say that it was removed, and it did not hear it. It joins anew where its
    /// configuration says how; else it stays, not ready, since it would begin again as the node that it was. So does one
    /// that runs and heard it: who removed it sees to that, and a supervisor must not bring it back at once.
    async fn heed_removal(self: Arc<Self>, failed: mpsc::UnboundedSender<String>) {
        self.router.removal.certain().await;
        let (me, start) = (self.me(), &self.config.cluster.start);
        let heard_it = start.node(me).is_some() && self.router.membership().node(me).is_none();
        if heard_it || self.leaving.load(Ordering::Acquire) {
            return;
        }
        if self.config.cluster.join.is_empty() {
            tracing::error!("{REMOVED} while it did not hear it. {}", what_to_do(&self.config));
            return;
        }
        if self.note(Came::Left).await.is_err() {
            // It ends for that.
            return;
        }
        // Nobody listens only when the node is ending already.
        _ = failed
            .send(format!("{REMOVED} while it did not hear it, and this node stops. {}", what_to_do(&self.config)));
    }

    /// Leaves the cluster, so that nobody waits for this node; at most for so long. A node that could not leave counts as
    /// failed.
    pub(super) async fn leave(&self, wait: Duration) {
        self.leaving.store(true, Ordering::Release);
        if self.router.membership().node(self.me()).is_none() {
            // Others have removed it. What they have durable they tell it no more: its next start finds out.
            return;
        }
        let left = tokio::time::timeout(wait, self.try_to_leave(wait)).await;
        match left.unwrap_or_else(|_| Err(NotDone::Unknown("no answer in time".to_owned()))) {
            Ok(()) => tracing::info!("this node has left the cluster"),
            Err(why) => {
                tracing::warn!(%why, "this node could not leave the cluster and counts as failed until it is back or removed");
            }
        }
    }

    /// Whatever happens next, this is what the next start finds.
    async fn note(&self, came: Came) -> Result<(), NotDone> {
        *self.came.lock().unwrap_or_else(PoisonError::into_inner) = came;
        let noted = self.write_seat().await;
        noted.then_some(()).ok_or_else(|| NotDone::Unknown("the disk of this node has failed".to_owned()))
    }

    /// First without a vote. What its vote has decided is on other disks before it goes: its own may be given up then.
    async fn try_to_leave(&self, wait: Duration) -> Result<(), NotDone> {
        let me = self.me();
        let _asked = self.asking.lock().await;
        let mut membership = self.router.membership();
        if self.is_voter() {
            // One that does not get further asks for its vote again when it is back.
            self.note(Came::JoinedForAVote).await?;
            let no_vote = json!({"node": me.0, "weight": 0});
            let (number, _) = self.call("cluster.set_acceptor", &no_vote, own_key("leave"), wait).await?;
            membership = self.membership_of(number).await;
        }
        let durable = |view: &View| {
            let durable = |node: NodeId| view.peers.get(&node)?.last.as_ref().map(|last| last.durable);
            membership.majority().holds(|node| durable(node).is_some_and(|durable| durable >= membership.number()))
        };
        // An error: the node ends.
        _ = self.view.clone().wait_for(durable).await;
        // From here on its disk is not needed. If it stays a member, it takes its own place when it is back.
        self.note(Came::Left).await?;
        let mut memberships = self.router.memberships();
        let this = json!({"node": me.0});
        tokio::select! {
            _ = memberships.wait_for(|membership| membership.node(me).is_none()) => Ok(()),
            left = self.call("cluster.remove", &this, own_key("leave"), wait) => left.map(drop),
        }
    }

    /// A call by this node itself: the number of its command, or of the state that is so already, and its result.
    async fn call(
        &self,
        function: &str,
        arguments: &Value,
        key: String,
        wait: Duration,
    ) -> Result<(CommandNumber, Bytes), NotDone> {
        let stopping = || NotDone::Unknown("this node stops".to_owned());
        let call = http_api::call_of_node(function, arguments, key, wait).ok_or_else(stopping)?;
        let (reply, answer) = oneshot::channel();
        let submit = Submit { call, wait, applied: self.queries.progress().applied, caller: None, reply };
        self.gateway.send(submit).await.map_err(|_| stopping())?;
        decided(answer.await.map_err(|_| stopping())?)
    }
}

/// What became of a call.
fn decided(answer: Answer) -> Result<(CommandNumber, Bytes), NotDone> {
    let unknown = |why: &str| Err(NotDone::Unknown(why.to_owned()));
    let refused = |code, message| Err(NotDone::Refused { code, message });
    let outcome = match answer {
        Answer::Outcome { outcome, .. } => outcome,
        Answer::NotExecuted(why) | Answer::NotHere(why) => {
            return unknown(match why {
                Unavailable::NoLeader => "no leader is known; a majority of the acceptors may be down",
                Unavailable::NoAnswer => "the leader does not answer; it may have lost its majority",
                Unavailable::TooMany => "too many calls are in flight",
                Unavailable::Stopping => "the node that was asked stops",
            });
        }
        Answer::Unknown | Answer::BarrierPassed(_) => return unknown("no answer came in time"),
    };
    match outcome {
        Outcome::Issued { command, result } => Ok((command, result)),
        Outcome::Unchanged { at, result } => Ok((at, result)),
        Outcome::Refused { code, message, .. } => refused(code, message),
        Outcome::InvalidArguments { message } | Outcome::TooLarge { message } => refused(String::new(), message),
        Outcome::UnknownFunction => unknown("the leader does not know this function: it runs another version"),
        Outcome::RequestReused => unknown("the key of this call was used by another one"),
        Outcome::Failed { message } => unknown(&format!("the function failed: {message}")),
        Outcome::Overloaded => unknown("too many calls are in flight"),
        Outcome::DiskFull => unknown("the disks of the nodes are almost full"),
        Outcome::NotLeader | Outcome::LeadershipLost => unknown("no leader has decided"),
    }
}

/// Why a call of this node's own came to nothing.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    /// The function refused.
    #[error("{message}")]
    Refused { code: String, message: String },
    /// It may have been executed, or may still be.
    #[error("{0}")]
    Unknown(String),
}

impl NotDone {
    /// Whether it is worth asking again soon.
    fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => PASSING.contains(&code.as_str()),
            Self::Unknown(_) => true,
        }
    }
}

/// What an operator of a node is told that is no member any more.
pub(super) const REMOVED: &str = "this node was removed from the cluster";

/// How such a node comes back.
pub(super) fn what_to_do(config: &Config) -> &'static str {
    if config.cluster.join.is_empty() {
        "Stop it. To come back, run `quorate recover --force` and start it: it joins anew, under another id"
    } else {
        "To come back, start it again: it gives up what it has and joins anew, under another id"
    }
}

/// A key that nobody else uses.
fn own_key(what: &str) -> String {
    format!("quorate-{what}-{:016x}{:016x}", outside::chance(), outside::chance())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an operator who reads the names of our types in the log, or as the reason why a node is not taken in.
    #[test]
    fn what_came_to_nothing_is_told_in_words() {
        let outcome = |outcome| Answer::Outcome { outcome, settled: true, replayed: false };
        let unavailable = [Unavailable::NoLeader, Unavailable::NoAnswer, Unavailable::TooMany, Unavailable::Stopping];
        let came_to = unavailable.into_iter().flat_map(|why| [Answer::NotHere(why), Answer::NotExecuted(why)]);
        let outcomes = [Outcome::DiskFull, Outcome::Overloaded, Outcome::UnknownFunction, Outcome::LeadershipLost];
        for answer in came_to.chain(outcomes.map(outcome)).chain([Answer::Unknown]) {
            let name = format!("{answer:?}");
            let Err(NotDone::Unknown(said)) = decided(answer) else { panic!("{name} is nothing final") };
            assert!(said.split(' ').count() > 3 && said.starts_with(char::is_lowercase), "{name}: {said}");
        }
    }
}
