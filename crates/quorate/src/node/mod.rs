//! One node: its stores, its actors, and the threads that they live on.
//!
//! ```text
//!   HTTP threads      core thread                 acceptor thread   learner thread
//!   REST ------------ gateway -- leader ---------- acceptor -------- learner
//!                     protocol connections         (blocks in sync)  (applies)
//!   detector thread: failure detector, heartbeat connections (nothing on it blocks)
//! ```
//!
//! Every message, from a peer or from this node itself, passes through one [`Router`]. The roles
//! do not know each other: what each asks of the rest of its node is a port, filled in here.
//!
//! A node stops in this order: it says that it is not ready and serves on (`shutdown.drain`); no more calls are taken; the lead is handed over to a node that can
//! take it (ADR 0030); calls in flight get their answers (at most `shutdown.grace`); a lead that
//! nobody took is given up; the learner makes its state durable; the connections close. When a store fails there is no order: the process ends with code 1, and
//! what was acknowledged is safe with the majority set that voted for it.

mod admission;
mod backend;
mod changing;
mod cores;
mod current;
mod disks;
mod ending;
mod listeners;
mod mailbox;
mod members;
mod meters;
mod outside;
mod ports;
mod probe;
mod removal;
mod router;
mod space;
mod status;
mod threads;
mod waiting;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use acceptor::actor::AcceptorActor;
use actix::{Actor as _, Addr, Arbiter, System};
use anyhow::Context as _;
use failure_detector::actor::FailureDetectorActor;
use functions::Registry;
use futures_util::future::join_all;
use http_api::actor::EndCalls;
use http_api::{Auth, Door, Gateway, GatewayActor};
use leader::actor::LeaderActor;
use learner::{LearnerActor, Progress, Queries};
use metrics_exporter_prometheus::PrometheusHandle;
use protocol::{Membership, Tracer};
use storage::rocksdb::Stores;
use storage::{LogStore as _, Standing, StateStore as _, StorageError};
use tokio::sync::{mpsc, watch};
use tracing::info;
use transport::tls::Tls;
use transport::{Runtimes, Transport};

use crate::audit;
use crate::certificates::Certificates;
use crate::config::{Config, NodeRole};
use crate::failure::Failure;
use crate::seat::Came;
use crate::stop::Requests;
use crate::traces::Traces;
use backend::NodeBackend;
use disks::Disks;
use ending::Ending;
use listeners::Listeners;
use members::Members;
use ports::Ports;
use probe::Probe;
use router::Router;
use space::Room;
use status::Status;
use waiting::Waiting;

pub(crate) use listeners::{bind_http, http_workers, say_exposed};
pub(crate) use meters::{install as install_metrics, keep as keep_metrics};
pub(crate) use outside::chance;

/// How long a node may live on after a store has failed that no role is just using. Far below the second or two after
/// which others would notice.
const STORES_WATCHED: Duration = Duration::from_millis(100);

/// How long a gateway may miss that the leader has changed.
const LEADER_REPEATED: Duration = Duration::from_millis(250);

/// Runs a node until it is asked to stop.
///
/// # Errors
/// A port or data directory that cannot be used, or a failing disk.
pub(crate) fn run(mut config: Config, stop_with_parent: bool) -> Result<(), Failure> {
    System::new().block_on(async {
        // First: opening the stores takes long after a hard stop, and who is asked to stop meanwhile
        // must not be killed by the signal.
        let mut stop = Requests::new(stop_with_parent)?;
        crate::files::allow(config.limits.connections);
        let certificates = Certificates::read(&config.tls)?;
        let auth = auth(&config)?;
        let listeners = Listeners::bind(&config, certificates, auth)?;
        say_exposed(&config.exposed());
        let waiting = Waiting::begin(&config, &listeners).await?;
        let seated = be_seated(&mut config, listeners.certificates.peer(), &waiting, stop.next()).await?;
        let Some(came) = seated else { return Ok(()) };
        listeners.certificates.check_name(&config.cluster.name, &config.node.name)?;
        waiting.says("it opens its data directory");
        let stores = open(&config, came)?;
        let prometheus = install_metrics()?;
        meters::show(&config);
        let mark = stores.log.mark();
        audit::begin(config.cluster.me, &config.node.name, &mark.disk.0, mark.starts);
        let (cluster, name) = (&config.cluster.name, &config.node.name);
        let traces = Traces::start(config.tracing.as_ref(), cluster, name, chance())?;
        let watched = Watched { prometheus, traces };
        serve(Arc::new(config), listeners, stores, came, watched, waiting, stop).await?;
        Ok(())
    })
}

/// The shortest root token: 128 bits in hexadecimal digits.
const ROOT_TOKEN_LENGTH: usize = 32;

/// The token of the configuration is read once; the others are in the state.
fn auth(config: &Config) -> Result<Option<Auth>, Failure> {
    let Some(auth) = &config.auth else { return Ok(None) };
    let Some(file) = &auth.root_token else { return Ok(Some(Auth::new(None))) };
    let wrong = |why: &str| Failure::Usage(format!("auth.root_token_file = {file:?}: {why}"));
    let token = crate::secret::read(file).map_err(|why| wrong(&why))?;
    if token.len() < ROOT_TOKEN_LENGTH {
        return Err(wrong("must hold at least 32 visible characters, such as those of `openssl rand -hex 32`"));
    }
    Ok(Some(Auth::new(Some(&token))))
}

/// How the node is seen from outside.
struct Watched {
    prometheus: PrometheusHandle,
    traces: Option<Traces>,
}

/// Finds out who this node is; one that joins asks the cluster first. `None`: it was asked to stop meanwhile.
async fn be_seated(
    config: &mut Config,
    tls: Option<&Tls>,
    waiting: &Waiting,
    asked_to_stop: impl Future<Output = &'static str>,
) -> Result<Option<Came>, Failure> {
    crate::seat::check_directory(&config.node.data_dir)?;
    crate::backup::check_finished(&config.node.data_dir)?;
    storage::rocksdb::check_recovered(&config.node.data_dir).context("data directory")?;
    config.cluster.id = crate::backup::cluster_of(config)?;
    match crate::seat::take(config)? {
        // Nothing was ever served from there.
        Some(Came::Founding) if !config.cluster.join.is_empty() => crate::seat::give_up(&config.node.data_dir)?,
        Some(came @ (Came::Founding | Came::Founded)) => {
            crate::seat::check_unclaimed(&config.node.data_dir)?;
            return Ok(Some(came));
        }
        Some(came @ (Came::Joined | Came::JoinedForAVote)) => return Ok(Some(came)),
        Some(Came::Left) => crate::seat::give_up(&config.node.data_dir)?,
        Some(Came::Listed) | None => {}
    }
    if !crate::seat::joins(config)? {
        return Ok(Some(Came::Listed));
    }
    if crate::seat::join(config, tls, |why| waiting.says(why), asked_to_stop).await?.is_none() {
        return Ok(None);
    }
    Ok(crate::seat::take(config)?)
}

fn open(config: &Config, came: Came) -> Result<Stores, Failure> {
    let directory = &config.node.data_dir;
    let alone = config.cluster.start.nodes().len() <= 1;
    if alone && came != Came::Founding {
        crate::seat::check_not_lost(directory)?;
    }
    // The disk of the first node of a cluster needs nobody's note; it votes on, however many come later.
    let standing_of_new = if alone { Standing::Sound } else { Standing::Fresh };
    let options = storage::rocksdb::Options { alone, standing_of_new, ..Default::default() };
    let stores = storage::rocksdb::open(directory, &config.identity(), &options)
        .with_context(|| format!("data directory {}", directory.display()))?;
    Ok(stores)
}

/// What is looked at on the disk of the node while it runs.
fn disk(config: &Config) -> (Arc<Room>, Arc<Probe>) {
    let directory = &config.node.data_dir;
    (Arc::new(Room::new(config.storage.clone(), directory.clone())), Arc::new(Probe::new(directory.clone())))
}

async fn serve(
    config: Arc<Config>,
    listeners: Listeners,
    stores: Stores,
    came: Came,
    watched: Watched,
    waiting: Waiting,
    mut stop: Requests,
) -> anyhow::Result<()> {
    let (failed, mut failure) = mpsc::unbounded_channel();
    let options = listeners.options(&config, &watched)?;
    let node = Node::start(Arc::clone(&config), stores, came, failed, options.tracer.clone())?;
    let transport = node.connect(came, listeners.peer, listeners.certificates.peer().cloned())?;
    waiting.says("it waits for calls of those who may know it");
    let Some(came) = ending::begin_to_serve(&config, came, &mut failure, &mut stop).await? else { return Ok(()) };
    let members = Members::new(&node, came);
    transport.admit_with(members.admits());
    members.start(node.failed.clone());
    let backend = Arc::new(NodeBackend::new(&node));
    actix::spawn(Arc::clone(&backend).keep_current());
    actix::spawn(listeners.certificates.watch(config.tls.reload));
    actix::spawn(keep_metrics(options.prometheus.clone()));
    actix::spawn(repeat_leader(Arc::clone(&node.router)));
    actix::spawn(admission::watch(&node));
    actix::spawn(meters::watch(
        Arc::clone(&backend),
        Arc::clone(&node.router),
        Arc::clone(&config),
        node.stores.clone(),
    ));
    actix::spawn(space::watch(Arc::clone(&node.status.room)));
    actix::spawn(probe::watch(Arc::clone(&node.status.probe)));
    waiting.end().await;
    let operators = listeners::serve_apart([listeners.metrics, listeners.admin], &backend, &options)?;
    let server = http_api::server(listeners.http, Arc::clone(&backend) as _, options).context("the HTTP server")?;
    let http = server.handle();
    let server = actix::spawn(server);
    info!(
        node = %config.cluster.me, name = config.node.name, cluster = config.cluster.name,
        http = %config.listen.http, peer = %config.listen.peer, data = %config.node.data_dir.display(),
        applied = %node.stores.state.applied().number, "the node runs"
    );
    tokio::select! {
        () = stop.drained(config.shutdown_drain, || backend.drain()) => {}
        why = shut(&node.stores) => anyhow::bail!(why),
        why = failure.recv() => anyhow::bail!(ending::reason(why)),
        ended = server => anyhow::bail!("the HTTP server ended by itself: {ended:?}"),
    }
    backend.stop();
    // Those who still wait near the end of the grace are told so while they can be.
    let margin = (config.shutdown_grace / 4).min(Duration::from_secs(1));
    let servers = operators.iter().chain([&http]);
    let mut answered = std::pin::pin!(join_all(servers.map(|server| server.stop(true))));
    let (began, grace) = (tokio::time::Instant::now(), config.shutdown_grace - margin);
    // First, while all of it works: what is in flight is finished by who leads then.
    _ = tokio::time::timeout(grace, node.router.hand_over()).await;
    let leaves = config.cluster.leaves_on_stop;
    let finishing = if leaves { grace / 2 } else { grace };
    let finished = tokio::time::timeout(finishing.saturating_sub(began.elapsed()), &mut answered).await.is_ok();
    if leaves {
        // No call comes back to a node that has left.
        members.leave(grace.saturating_sub(began.elapsed())).await;
    }
    if !finished {
        info!("calls are still in flight near the end of shutdown.grace; their callers are told to ask another node");
        _ = node.gateway.send(EndCalls).await;
        backend.end();
        _ = tokio::time::timeout(margin, answered).await;
    }
    node.stop().await?;
    // What failed on the last steps, above all the last sync of the state, is no orderly stop.
    if let Ok(why) = failure.try_recv() {
        anyhow::bail!(why);
    }
    transport.stop();
    if let Some(traces) = watched.traces {
        traces.end().await;
    }
    info!("stopped");
    Ok(())
}

/// Waits for the end of a store. The roles say when they meet it; but what shut it may have been a read for a caller, or
/// RocksDB's work in the background, on a node that has nothing else to do.
async fn shut(stores: &Stores) -> StorageError {
    let mut interval = tokio::time::interval(STORES_WATCHED);
    loop {
        interval.tick().await;
        if let Some(error) = stores.failure() {
            return error;
        }
    }
}

/// What tells the gateway who leads can meet a full mailbox, and is said only on a change.
async fn repeat_leader(router: Arc<Router>) {
    let mut interval = tokio::time::interval(LEADER_REPEATED);
    loop {
        interval.tick().await;
        router.repeat_leader();
    }
}

/// The membership in force in the state of this node. A change is durable before anybody hears of it.
fn membership(config: &Config, stores: &Stores) -> anyhow::Result<Arc<Membership>> {
    let start = &config.cluster.start;
    // Of the same number, it is the state's that counts: applied command by command, and each block of it is checked.
    let stored = Membership::stored_from(start.number(), &*stores.state)?;
    let membership = stored.unwrap_or_else(|| Arc::clone(start));
    if stores.state.durable() < membership.number() {
        stores.state.sync()?;
    }
    Ok(membership)
}

/// The parts of a running node that others reach.
struct Node {
    config: Arc<Config>,
    stores: Stores,
    functions: Registry,
    router: Arc<Router>,
    status: Arc<Status>,
    disks: Arc<Disks>,
    failed: mpsc::UnboundedSender<String>,
    gateway: Addr<GatewayActor>,
    door: Arc<Door>,
    queries: Queries,
    view: watch::Receiver<failure_detector::core::View>,
    core_thread: Arbiter,
    detector_thread: Arbiter,
}

impl Node {
    /// Rebuilds the cores from the stores and starts the actors, each on its thread.
    fn start(
        config: Arc<Config>,
        stores: Stores,
        came: Came,
        failed: mpsc::UnboundedSender<String>,
        tracer: Option<Arc<Tracer>>,
    ) -> anyhow::Result<Self> {
        let applied = stores.state.applied();
        let image = stores.log.load(applied.number)?;
        let (progress, progressed) = watch::channel(Progress {
            issued: applied.number,
            applied: applied.number,
            durable: stores.state.durable(),
        });
        let (last_tried, highest) = (image.last_tried, image.last_tried.max(image.next_ballot));
        let status = Arc::new(Status::new(config.cluster.me, highest, progressed.clone(), disk(&config)));
        let membership = membership(&config, &stores)?;
        // On every node: which of them are asked for votes is for the membership to say; and any may be barred.
        let core = cores::acceptor(&config, &membership, outside::chance());
        let acceptor = acceptor::core::Acceptor::new(core, image, applied);
        let silence = acceptor.silence();
        let disks = Arc::new(Disks::new(Arc::clone(&stores.log), silence, came != Came::Listed));
        let (known, shared) = (Arc::clone(&membership), Arc::clone(&disks));
        let router = Arc::new(Router::new(config.cluster.me, Arc::clone(&status), shared, known));
        let ports = Ports {
            router: Arc::clone(&router),
            status: Arc::clone(&status),
            disks: Arc::clone(&disks),
            failed: failed.clone(),
            tracer: tracer.clone(),
        };
        let (core_thread, detector_thread) = (threads::named(c"leader+gateway"), threads::named(c"detector"));
        let functions = Registry::with_builtins();
        let (seen, view) = watch::channel(failure_detector::core::View::default());

        let actor = AcceptorActor::new(acceptor, stores.log.clone(), ports.acceptor());
        router.acceptor.set(AcceptorActor::start_in_arbiter(&threads::named(c"acceptor").handle(), |_| actor));
        let core = cores::learner(&config, Arc::clone(&membership));
        let core = learner::Learner::new(core, learner::Stored::of(&*stores.state));
        let actor = LearnerActor::new(core, stores.state.clone(), config.history, ports.learner(), progress)
            .receiving(config.storage.receive_rate);
        let learner = LearnerActor::start_in_arbiter(&threads::named(c"learner").handle(), |_| actor);
        router.learner.set(learner.clone());
        if config.node.roles.contains(&NodeRole::Leader) {
            let core = cores::leader(&config, Arc::clone(&membership));
            let core = leader::core::Leader::new(core, last_tried, applied);
            let (log, state) = (stores.log.clone(), stores.state.clone());
            let actor = LeaderActor::new(core, log, state, functions.clone(), ports.leader(view.clone()));
            router.leader.set(LeaderActor::start_in_arbiter(&core_thread.handle(), |_| actor));
        }
        let core = Gateway::new(cores::gateway(&config), outside::chance());
        let actor = GatewayActor::new(core, ports.send("gateway"), Box::new(outside::now));
        let actor = actor.counting(functions.iter().map(|function| function.name().to_owned()));
        let actor = actor.following(tracer, config.cluster.me);
        let door = actor.door();
        let gateway = GatewayActor::start_in_arbiter(&core_thread.handle(), |_| actor);
        router.gateway.set(gateway.clone());
        router.door.set(Arc::clone(&door)).ok();
        let core = failure_detector::core::FailureDetector::new(cores::detector(&config, membership));
        let actor = FailureDetectorActor::new(core, ports.detector(), seen);
        let detector = FailureDetectorActor::start_in_arbiter(&detector_thread.handle(), |_| actor);
        router.detector.set(detector);

        let queries = Queries::new(stores.state.clone(), progressed, learner);
        Ok(Self {
            config,
            stores,
            functions,
            router,
            status,
            disks,
            failed,
            gateway,
            door,
            queries,
            view,
            core_thread,
            detector_thread,
        })
    }

    /// Lets peers in and dials them.
    fn connect(&self, came: Came, listener: TcpListener, tls: Option<Tls>) -> anyhow::Result<transport::Handle> {
        let config = cores::transport(&self.config, &self.router.membership(), tls);
        let runtimes = Runtimes { heartbeat: self.detector_thread.handle(), data: self.core_thread.handle() };
        let messages = Arc::clone(&self.router);
        let on_message = Arc::new(move |from, message| messages.deliver(from, message));
        let ending = Ending {
            config: Arc::clone(&self.config),
            router: Arc::clone(&self.router),
            disks: Arc::clone(&self.disks),
            came,
            failed: self.failed.clone(),
        };
        let on_event = Arc::new(move |event| ending.heed(event));
        let (own, theirs) = (Arc::clone(&self.disks), Arc::clone(&self.disks));
        let disks = transport::Disks {
            say: Arc::new(move || Some(own.say())),
            judge: Arc::new(move |node, disk| theirs.judge(node, &disk)),
        };
        let handle =
            Transport::start(config, listener, runtimes, disks, on_message, on_event).context("peer listener")?;
        self.router.transport.set(handle.clone()).ok();
        // In case it has changed meanwhile.
        let membership = self.router.membership();
        handle.set_peers(router::peers(&membership), membership.last_id());
        Ok(handle)
    }

    /// Gives up the lead, so that another node need not wait for a timeout, and makes the state
    /// durable.
    async fn stop(&self) -> anyhow::Result<()> {
        self.status.stop();
        self.router.step_down("this node stops").await;
        if let Some(learner) = self.router.learner.get() {
            learner.send(learner::actor::Stop).await.context("the learner ended too early")?;
        }
        Ok(())
    }
}
