//! This node as its REST gateway sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use failure_detector::core::View;
use functions::{Failure, Registry};
use futures_util::future::LocalBoxFuture;
use http_api::backend::{
    AcceptorView, Addresses, Backend, Backup, Check, ClusterView, Consistency, DigestError, FunctionInfo, Health,
    LeaderView, Limits, MembershipView, NoBackup, NodeView, Snapshot,
};
use http_api::{Door, GatewayActor};
use learner::{DigestRefusal, NoDigest, Queries};
use protocol::{
    Command, CommandNumber, Key, Membership, NodeId, Outcome, Space, StateError, StateView, Tick, Timestamp,
};
use storage::StorageError;
use tokio::sync::{Semaphore, watch};

use super::current::{self, Current};
use super::disks::Disks;
use super::members::{REMOVED, what_to_do};
use super::probe::SYNC_WAIT_MAX;
use super::router::Router;
use super::status::Status;
use super::{Node, admission, changing, ports};
use crate::backup::Manifest;
use crate::config::{Config, NodeRole};

/// See the module.
pub(super) struct NodeBackend {
    config: Arc<Config>,
    gateway: Addr<GatewayActor>,
    door: Arc<Door>,
    queries: Queries,
    functions: Registry,
    status: Arc<Status>,
    router: Arc<Router>,
    disks: Arc<Disks>,
    view: watch::Receiver<View>,
    /// Whether those who still wait are told that the node ends.
    ends: watch::Sender<bool>,
    /// What was durable, and when that was first seen.
    durable: Mutex<(CommandNumber, Tick)>,
    /// Whether what is applied is recent.
    current: Mutex<Current>,
    /// One backup at a time.
    backups: Arc<Semaphore>,
}

/// A role that answers nothing for longer waits for a disk that hangs, or for a processor.
const ROLE_WAIT_MAX: Duration = Duration::from_secs(15);

/// How often it is looked who leads, while somebody waits for another leader.
const LED_LOOKED_AT: Duration = Duration::from_millis(10);

/// How often it is looked how recent the state is: several times within what may pass.
const CURRENT_LOOKED_AT: Duration = Duration::from_millis(500);

impl NodeBackend {
    pub(super) fn new(node: &Node) -> Self {
        Self {
            config: Arc::clone(&node.config),
            gateway: node.gateway.clone(),
            door: Arc::clone(&node.door),
            queries: node.queries.clone(),
            functions: node.functions.clone(),
            status: Arc::clone(&node.status),
            router: Arc::clone(&node.router),
            disks: Arc::clone(&node.disks),
            view: node.view.clone(),
            ends: watch::Sender::new(false),
            durable: Mutex::default(),
            current: Mutex::default(),
            backups: Arc::new(Semaphore::new(1)),
        }
    }

    /// Says from now on that it is not ready, and serves on.
    pub(super) fn drain(&self) {
        self.status.drain();
    }

    /// Takes no more calls from now on.
    pub(super) fn stop(&self) {
        self.status.stop();
    }

    /// Lets nobody wait any more.
    pub(super) fn end(&self) {
        self.ends.send_replace(true);
    }

    /// What the future says, or `at_end` when the node ends before.
    async fn unless_it_ends<T>(&self, future: impl Future<Output = T>, at_end: T) -> T {
        let mut ends = self.ends.subscribe();
        tokio::select! {
            done = future => done,
            _ = ends.wait_for(|ends| *ends) => at_end,
        }
    }

    fn member(&self, id: NodeId) -> String {
        self.router.membership().node(id).map(|member| member.name.clone()).unwrap_or_default()
    }

    fn own_view(&self) -> NodeView {
        let (local, membership) = (self.status.local(), self.router.membership());
        let is_acceptor = membership.is_acceptor(self.config.cluster.me);
        // As the others know it, while they do.
        let listed = membership.node(self.config.cluster.me).map(|member| member.address.clone());
        let plays = |role: &NodeRole| match role {
            NodeRole::Acceptor => is_acceptor,
            NodeRole::Learner | NodeRole::Leader | NodeRole::Gateway => self.config.node.roles.contains(role),
        };
        let roles = NodeRole::ALL.iter().filter(|(role, _)| plays(role));
        NodeView {
            id: self.config.cluster.me.0,
            name: self.config.node.name.clone(),
            roles: roles.map(|(_, word)| (*word).to_owned()).collect(),
            addresses: Addresses {
                peer: listed.unwrap_or_else(|| self.config.listen.advertise_peer.clone()),
                http: self.config.listen.advertise.clone(),
            },
            reachable: true,
            ballot: local.ballot.to_string(),
            issued: local.issued.0,
            applied: local.applied.0,
            durable: local.durable.0,
            space: local.space.name(),
            silent: self.disks.silence().map(acceptor::core::Silence::name),
        }
    }

    fn peer_view(&self, id: NodeId, membership: &Membership, view: &View) -> NodeView {
        let member = membership.node(id).expect("one of its nodes");
        let seen = view.peers.get(&id);
        let last = seen.and_then(|peer| peer.last.clone()).unwrap_or_default();
        let plays = |role: NodeRole| match role {
            NodeRole::Acceptor => membership.is_acceptor(id),
            NodeRole::Leader => last.can_lead,
            NodeRole::Learner => true,
            NodeRole::Gateway => !last.http.is_empty(),
        };
        let roles = NodeRole::ALL.into_iter().filter(|(role, _)| plays(*role));
        let roles = roles.map(|(_, word)| word.to_owned()).collect();
        NodeView {
            id: id.0,
            name: member.name.clone(),
            roles,
            addresses: Addresses { peer: member.address.clone(), http: last.http },
            reachable: seen.is_some_and(|peer| peer.heard),
            ballot: last.ballot.to_string(),
            issued: last.issued.0,
            applied: last.applied.0,
            durable: last.durable.0,
            space: last.space.name(),
            silent: last.silent.then_some("yes"),
        }
    }

    /// A disk that takes no more syncs shows in a durable number that stands still below what is applied, and where nothing is
    /// applied, in what is written for that alone. (One that reports an error to a role ends the process.)
    fn disk(&self) -> Check {
        let (progress, now) = (self.status.progress(), super::outside::now().tick);
        let mut seen = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != progress.durable || progress.durable == progress.applied {
            *seen = (progress.durable, now);
        }
        let (stands, trouble) = (now.since(seen.1) >= SYNC_WAIT_MAX, self.status.probe.trouble());
        let detail = format!("durable {} of applied {}", progress.durable, progress.applied);
        let ok = !stands && trouble.is_none();
        Check {
            name: "disk",
            ok,
            detail: trouble.map_or_else(|| detail.clone(), |trouble| format!("{detail}; {trouble}")),
        }
    }

    fn roles(&self) -> Check {
        let hangs = self.router.unanswered.longest().filter(|(_, since)| *since >= ROLE_WAIT_MAX);
        let detail = hangs.map_or_else(
            || "all roles of this node answer".to_owned(),
            |(role, since)| format!("the {role} has answered nothing for {} s", since.as_secs()),
        );
        Check { name: "roles", ok: hangs.is_none(), detail }
    }

    fn is_member(&self) -> Check {
        let listed = self.router.membership().node(self.config.cluster.me).is_some();
        let ok = listed && !self.router.removal.is_certain();
        let detail = if ok {
            "this node is a member of the cluster".to_owned()
        } else {
            format!("{REMOVED}. {}", what_to_do(&self.config))
        };
        Check { name: "member", ok, detail }
    }

    fn leader(&self, known: &admission::Known) -> Check {
        let leader = self.status.leader();
        let detail = match (leader, known.who_is_needed(), known.who_is_away()) {
            (Some(ballot), ..) => format!("node {} leads ballot {ballot}", self.member(ballot.node)),
            (None, Some(silent), _) => format!(
                "no leader is heard, and none can be elected while these acceptors are silent: {silent}; the line `acceptor` \
                 of /readyz?verbose of each says why"
            ),
            (None, None, Some(away)) => format!(
                "no leader is heard, and those that vote cannot elect one: start these acceptors, or connect them: {away}"
            ),
            (None, None, None) => "no leader is heard; a majority set of acceptors must be up and connected".to_owned(),
        };
        Check { name: "leader", ok: leader.is_some(), detail }
    }

    /// A silent acceptor keeps nobody from calling as long as others vote.
    fn acceptor(&self, known: &admission::Known) -> Check {
        let silence = self.disks.silence();
        let ok = silence.is_none() || self.status.leader().is_some() || known.who_is_needed().is_none();
        let detail = match silence {
            Some(silence) => format!("silent ({}): {}", silence.name(), known.explain(silence)),
            None if self.router.membership().is_acceptor(self.config.cluster.me) => "promises and votes".to_owned(),
            None => "has no vote: this node is no acceptor, or none yet; GET /v1/cluster shows who is".to_owned(),
        };
        Check { name: "acceptor", ok, detail }
    }

    /// The newest command that this node has heard of.
    fn newest(&self) -> u64 {
        let known = self.view.borrow().peers.values().filter(|peer| peer.heard).map(issued_by).max().unwrap_or(0);
        known.max(self.status.progress().issued.0)
    }

    /// How many commands this node has not applied, of those that it has heard of.
    pub(super) fn lag(&self) -> u64 {
        let applied = self.status.progress().applied.0;
        self.newest().saturating_sub(applied)
    }

    /// Looks for ever how recent its state is, so that there is something to go by when somebody asks.
    pub(super) async fn keep_current(self: Arc<Self>) {
        let mut looks = tokio::time::interval(CURRENT_LOOKED_AT);
        loop {
            looks.tick().await;
            self.is_current();
        }
    }

    fn caught_up(&self) -> Check {
        let (applied, behind) = (self.status.progress().applied, self.lag());
        Check {
            name: "caught_up",
            ok: behind <= self.config.window,
            detail: format!("applied {applied}, {behind} behind the newest command heard of"),
        }
    }
}

fn issued_by(peer: &failure_detector::core::PeerView) -> u64 {
    peer.last.as_ref().map_or(0, |last| last.issued.0)
}

/// What the leader would say to arguments that a function does not take.
fn misfit(failure: Failure) -> Option<Outcome> {
    match failure {
        Failure::InvalidArguments(message) => Some(Outcome::InvalidArguments { message }),
        Failure::TooLarge(message) => Some(Outcome::TooLarge { message }),
        // About an execution, of which there was none.
        Failure::Refused(_) | Failure::State(_) | Failure::Panicked(_) => None,
    }
}

fn state_error(error: StorageError) -> StateError {
    StateError(error.to_string())
}

impl Backend for NodeBackend {
    fn node(&self) -> (NodeId, &str) {
        (self.config.cluster.me, &self.config.node.name)
    }

    fn cluster_name(&self) -> &str {
        &self.config.cluster.name
    }

    fn gateway(&self) -> &Addr<GatewayActor> {
        &self.gateway
    }

    fn door(&self) -> &Door {
        &self.door
    }

    fn snapshot(&self) -> Result<Snapshot<'_>, StateError> {
        let snapshot = self.queries.state().snapshot().map_err(state_error)?;
        let at = snapshot.at();
        let view: Box<dyn StateView + '_> = snapshot;
        Ok(Snapshot { at, view })
    }

    fn applied(&self) -> CommandNumber {
        self.queries.progress().applied
    }

    fn wait_applied(&self, number: CommandNumber, wait: Duration) -> LocalBoxFuture<'_, bool> {
        Box::pin(self.unless_it_ends(self.queries.wait_applied(number, wait), false))
    }

    fn time_at(&self) -> Timestamp {
        self.queries.state().time()
    }

    fn is_current(&self) -> bool {
        let (now, applied) = (super::outside::now().tick, self.status.progress().applied);
        let membership = self.router.membership();
        let told_at = current::told_at(&self.view.borrow(), self.config.cluster.me, now, membership.majority());
        let newest = told_at.map(|at| (at, CommandNumber(self.newest())));
        self.current.lock().unwrap_or_else(PoisonError::into_inner).look(now, newest, applied)
    }

    fn now(&self) -> Timestamp {
        super::outside::now().wall
    }

    fn chance(&self) -> [u8; 40] {
        super::outside::secret()
    }

    fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Result<Vec<Command>, StateError> {
        let state = self.queries.state();
        // The oldest one that is kept tells the caller what there is.
        let oldest = || state.commands(state.kept_from(), 1, 0).map(Option::unwrap_or_default);
        state.commands(first, limit, bytes).and_then(|found| found.map_or_else(oldest, Ok)).map_err(state_error)
    }

    fn digest(
        &self,
        at: Option<CommandNumber>,
        wait: Duration,
    ) -> LocalBoxFuture<'_, Result<(CommandNumber, [u8; 32]), DigestError>> {
        Box::pin(async move {
            let digest = self.unless_it_ends(self.queries.digest_at(at, wait), Err(NoDigest::Stopped)).await;
            digest.map(|digest| (digest.at, digest.digest)).map_err(|error| match error {
                NoDigest::Refused(DigestRefusal::Gone) => DigestError::Gone { oldest: self.applied() },
                NoDigest::Refused(DigestRefusal::NotReached) => DigestError::Timeout,
                NoDigest::Overloaded | NoDigest::Stopped => DigestError::Busy,
            })
        })
    }

    fn has_room_for_a_backup(&self) -> bool {
        self.status.room.space() != Space::Out
    }

    fn backup(&self, consistency: Consistency) -> LocalBoxFuture<'_, Result<Backup, NoBackup>> {
        Box::pin(async move {
            if !self.has_room_for_a_backup() {
                return Err(NoBackup::DiskFull);
            }
            let permit = Arc::clone(&self.backups).try_acquire_owned().map_err(|_| NoBackup::Busy)?;
            let manifest = Manifest::of_node(&self.config, super::outside::now().wall, consistency.name());
            let stream = crate::backup::stream(Arc::clone(self.queries.state()), manifest, permit).await;
            let (at, bytes) = stream.map_err(|error| NoBackup::Failed(error.to_string()))?;
            Ok(Backup { at, bytes })
        })
    }

    fn functions(&self) -> Vec<FunctionInfo> {
        let info = |function: &Arc<dyn functions::Function>| FunctionInfo {
            name: function.name().to_owned(),
            description: function.description().to_owned(),
            arguments_schema: function.arguments_schema(),
            result_schema: function.result_schema(),
        };
        self.functions.iter().map(info).collect()
    }

    fn misfit(&self, function: &str, arguments: &Bytes) -> Option<Outcome> {
        let Some(function) = self.functions.get(function) else { return Some(Outcome::UnknownFunction) };
        misfit(functions::check(function.as_ref(), arguments).err()?)
    }

    fn keys(&self, function: &str, arguments: &Bytes) -> Result<Option<Vec<Key>>, Outcome> {
        let function = self.functions.get(function).ok_or(Outcome::UnknownFunction)?;
        let unknown = || Outcome::Failed { message: "which keys its arguments name is not known".to_owned() };
        functions::keys(function.as_ref(), arguments).map_err(|failure| misfit(failure).unwrap_or_else(unknown))
    }

    fn cluster(&self) -> ClusterView {
        let (cluster, membership) = (&self.config.cluster, self.router.membership());
        let view = self.view.borrow().clone();
        let heard = ports::heard(&view, cluster.me, &self.disks, self.status.progress().applied);
        let node_view = |id| if id == cluster.me { self.own_view() } else { self.peer_view(id, &membership, &view) };
        ClusterView {
            name: cluster.name.clone(),
            nodes: membership.learners().map(node_view).collect(),
            leader: self.status.leader().map(|ballot| LeaderView { id: ballot.node.0, name: self.member(ballot.node) }),
            membership: MembershipView {
                number: membership.number().0,
                acceptors: membership
                    .majority()
                    .nodes()
                    .iter()
                    .map(|id| AcceptorView { id: id.0, weight: membership.majority().weight(*id) })
                    .collect(),
                change: changing::change(&membership, &heard, &view),
            },
            rule: membership.majority().rule().to_owned(),
        }
    }

    fn wait_led_by(&self, node: NodeId, wait: Duration) -> LocalBoxFuture<'_, bool> {
        let is_led = async move {
            let mut looks = tokio::time::interval(LED_LOOKED_AT);
            while self.status.leader().is_none_or(|ballot| ballot.node != node) {
                looks.tick().await;
            }
        };
        let in_time = async move { tokio::time::timeout(wait, is_led).await.is_ok() };
        Box::pin(self.unless_it_ends(in_time, false))
    }

    fn health(&self) -> Health {
        let known = admission::Known::of(&self.config, &self.router, &self.disks, &self.view.borrow());
        Health {
            live: vec![Check { name: "process", ok: true, detail: "the process answers".to_owned() }],
            ready: vec![
                self.leader(&known),
                self.caught_up(),
                self.disk(),
                self.roles(),
                self.acceptor(&known),
                self.status.room.check(),
                self.is_member(),
            ],
        }
    }

    fn limits(&self) -> Limits {
        let limits = &self.config.limits;
        Limits {
            body_bytes: limits.body_bytes,
            connections: limits.connections,
            wait: limits.wait_default,
            wait_max: limits.wait_max,
            ..Limits::default()
        }
    }

    fn draining(&self) -> bool {
        self.status.is_draining()
    }

    fn stopping(&self) -> bool {
        self.status.is_stopping()
    }
}
