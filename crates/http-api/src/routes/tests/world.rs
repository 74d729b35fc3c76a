//! A node for the routes to stand on: its gateway is the real one, its leader a script, its
//! state a map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::{Actor, Addr};
use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use actix_web::{test, web};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::message::{BarrierPassed, Executed, Stored, ToGateway, ToLeader};
use protocol::{
    Call, Command, CommandNumber, Entry, Key, Message, NodeId, Now, Outcome, RequestId, StateError, StateView,
    StoredOutcome, Tick, Timestamp, Tracer,
};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::actor::{FromLeader, GatewayActor, LeaderIs};
use crate::api::Api;
use crate::auth::Auth;
use crate::backend::{
    AcceptorView, Addresses, Backend, Backup, Check, ClusterView, Consistency, DigestError, FunctionInfo, Health,
    LeaderView, Limits, MembershipView, NoBackup, NodeView, Snapshot,
};
use crate::core::{Gateway, Settings};
use crate::door::Door;
use crate::routes;

/// What the leader says to a call; nothing when it stays silent.
pub(super) type Script = Box<dyn Fn(&Call) -> Option<Outcome>>;

/// What a test can change of the node.
#[derive(Default)]
pub(super) struct Node {
    pub(super) state: BTreeMap<Key, Entry>,
    pub(super) outcomes: BTreeMap<RequestId, StoredOutcome>,
    pub(super) commands: Vec<Command>,
    pub(super) applied: u64,
    pub(super) time: u64,
    /// What the wall clock shows.
    pub(super) wall: u64,
    /// What every byte of the last chance was.
    pub(super) chance: u8,
    pub(super) broken: bool,
    pub(super) health: Health,
    /// What the leader says a read must reach; nothing: it is silent.
    pub(super) barrier: Option<u64>,
    /// How long the leader takes to say it.
    pub(super) barrier_takes: Duration,
    /// For how long this node was last told to wait until it has applied something.
    pub(super) waited: Option<Duration>,
    /// The calls that reached the leader.
    pub(super) calls: Vec<Call>,
    /// Who leads from when on somebody waits for it.
    pub(super) led_by: Option<NodeId>,
    /// Whether somebody takes a backup already.
    pub(super) gives_backup: bool,
    pub(super) is_full: bool,
}

pub(super) struct FakeBackend {
    gateway: Addr<GatewayActor>,
    pub(super) door: Arc<Door>,
    pub(super) node: Mutex<Node>,
    /// Whether it has not applied what was newest some seconds ago.
    pub(super) behind: AtomicBool,
    pub(super) draining: AtomicBool,
    pub(super) stopping: AtomicBool,
    /// Whether the mailbox of the gateway is always full.
    pub(super) busy: AtomicBool,
    /// The cluster of this node; `<demo>` where a test says nothing.
    pub(super) cluster: OnceLock<&'static str>,
    limits: Limits,
}

pub(super) struct World {
    pub(super) backend: Arc<FakeBackend>,
    api: web::Data<Api>,
}

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl World {
    /// A node whose leader answers calls as `script` says.
    pub(super) fn new(script: impl Fn(&Call) -> Option<Outcome> + 'static) -> Self {
        Self::traced(None, script)
    }

    /// The same, where somebody follows calls.
    pub(super) fn traced(tracer: Option<Arc<Tracer>>, script: impl Fn(&Call) -> Option<Outcome> + 'static) -> Self {
        let world = Self::begun(Box::new(script), tracer);
        let known = world.backend.gateway.try_send(LeaderIs(Some(NodeId(2))));
        known.expect("an empty mailbox takes it");
        world
    }

    /// The same, and callers present tokens: this one, and those of the state.
    pub(super) fn with_root(root: &str, script: impl Fn(&Call) -> Option<Outcome> + 'static) -> Self {
        let world = Self::new(script);
        let prometheus = PrometheusBuilder::new().build_recorder().handle();
        let api = web::Data::new(Api::new(world.backend.clone(), 7, prometheus, Some(Auth::new(Some(root))), None));
        Self { api, ..world }
    }

    /// The same, at the port of callers where operators have a listener of their own.
    pub(super) fn of_callers_only(self, root: &str) -> Self {
        let prometheus = PrometheusBuilder::new().build_recorder().handle();
        let api = Api::new(self.backend.clone(), 8, prometheus, Some(Auth::new(Some(root))), None).of_callers_only();
        Self { api: web::Data::new(api), ..self }
    }

    /// A node that knows of no leader.
    pub(super) fn without_leader(script: Script) -> Self {
        Self::begun(script, None)
    }

    fn begun(script: Script, tracer: Option<Arc<Tracer>>) -> Self {
        let (send, mut sent) = mpsc::unbounded_channel();
        let send = Box::new(move |to, message| send.send((to, message)).expect("the script listens"));
        let started = tokio::time::Instant::now();
        let clock = Box::new(move || Now { tick: Tick(0) + started.elapsed(), wall: Timestamp(0) });
        let gateway = GatewayActor::new(Gateway::new(Settings::default(), 1), send, clock);
        let gateway = gateway.following(tracer.clone(), NodeId(2));
        let (door, gateway) = (gateway.door(), gateway.start());
        let limits = Limits {
            body_bytes: 64 << 10,
            body_wait: Duration::from_millis(50),
            wait: Duration::from_millis(100),
            ..Limits::default()
        };
        let node = Mutex::new(Node { applied: 41, time: 1_000, barrier: Some(41), ..Node::default() });
        let [behind, draining, stopping, busy] = [false; 4].map(AtomicBool::new);
        let backend = Arc::new(FakeBackend {
            gateway,
            door,
            node,
            behind,
            draining,
            stopping,
            busy,
            cluster: OnceLock::new(),
            limits,
        });
        let leader = backend.clone();
        actix::spawn(async move {
            while let Some((from, message)) = sent.recv().await {
                let takes = leader.node.lock().expect("no test panics with it").barrier_takes;
                if !takes.is_zero() && matches!(message, Message::Leader(ToLeader::ReadBarrier(_))) {
                    actix::clock::sleep(takes).await;
                }
                if let Some(message) = leader.as_leader(&script, message) {
                    leader.gateway.send(FromLeader { from, message }).await.expect("the gateway lives");
                }
            }
        });
        let prometheus = PrometheusBuilder::new().build_recorder().handle();
        let api = web::Data::new(Api::new(backend.clone(), 7, prometheus, None, tracer));
        Self { backend, api }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Node)) {
        change(&mut self.backend.node.lock().expect("no test panics with it"));
    }

    /// As many pages as may be are being made until this is dropped.
    pub(super) fn makes_pages(&self) -> tokio::sync::OwnedSemaphorePermit {
        let pages = Arc::clone(&self.api.pages);
        let all = u32::try_from(pages.available_permits()).expect("a few");
        pages.try_acquire_many_owned(all).expect("nobody else makes one")
    }

    /// There is no room for large replies until this is dropped.
    pub(super) fn takes_room(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.api.room.fill()
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.backend.node.lock().expect("no test panics with it").calls.clone()
    }

    /// For how long the last read was to wait until this node has applied what it must show.
    pub(super) fn waited(&self) -> Option<Duration> {
        self.backend.node.lock().expect("no test panics with it").waited
    }

    pub(super) fn put(&self, key: &str, value: &[u8], version: u64) {
        let entry = Entry { value: Bytes::copy_from_slice(value), version: CommandNumber(version) };
        self.change(|node| drop(node.state.insert(Key::new(key).expect("a key"), entry)));
    }

    /// Sends a request through the whole application.
    pub(super) async fn ask(&self, request: test::TestRequest) -> Reply {
        let app = test::init_service(routes::app(self.api.clone(), |config| routes::of_callers(config, true))).await;
        Self::reply(test::call_service(&app, request.to_request()).await).await
    }

    /// The same, where metrics have a listener of their own: what both answer.
    pub(super) async fn ask_apart(&self, request: impl Fn() -> test::TestRequest) -> [Reply; 2] {
        let app = test::init_service(routes::app(self.api.clone(), |config| routes::of_callers(config, false))).await;
        let watched = test::init_service(routes::app(self.api.clone(), routes::of_watchers)).await;
        let reply = Self::reply(test::call_service(&app, request().to_request()).await).await;
        [reply, Self::reply(test::call_service(&watched, request().to_request()).await).await]
    }

    /// The same of a node that is no gateway.
    pub(super) async fn ask_no_gateway(&self, request: test::TestRequest, has_metrics: bool) -> Reply {
        let routes = move |config: &mut web::ServiceConfig| routes::of_no_gateway(config, has_metrics);
        let app = test::init_service(routes::app(self.api.clone(), routes)).await;
        Self::reply(test::call_service(&app, request.to_request()).await).await
    }

    async fn reply(response: ServiceResponse<impl MessageBody>) -> Reply {
        let (status, headers) = (response.status(), response.headers().clone());
        let reply = Reply { status, headers, body: test::read_body(response).await };
        assert_eq!(reply.header("quorate-node"), Some("b"), "every reply names its node");
        if status.as_u16() >= 400 && reply.header("content-type") != Some("text/plain; charset=utf-8") {
            reply.check_problem();
        }
        reply
    }

    pub(super) async fn get(&self, uri: &str) -> Reply {
        self.ask(test::TestRequest::get().uri(uri)).await
    }

    pub(super) async fn post(&self, uri: &str, body: impl Into<Bytes>) -> Reply {
        self.ask(test::TestRequest::post().uri(uri).set_payload(body)).await
    }

    pub(super) async fn with_header(&self, method: Method, uri: &str, header: (&str, &str)) -> Reply {
        self.ask(test::TestRequest::with_uri(uri).method(method).insert_header(header).set_payload("{}")).await
    }
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Status, code and outcome of a problem.
    pub(super) fn problem(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |field: &str| json[field].as_str().expect("a text").to_owned();
        (self.status.as_u16(), text("code"), text("outcome"))
    }

    fn check_problem(&self) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let json = self.json();
        assert_eq!(json["type"], "about:blank");
        assert_eq!(json["status"], self.status.as_u16());
        assert_eq!(json["title"], self.status.canonical_reason().expect("a known status"));
        assert!(json["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{json}");
        assert!(["not_executed", "unknown"].contains(&json["outcome"].as_str().expect("an outcome")));
        let passes = [429, 503, 504, 507].contains(&self.status.as_u16());
        assert_eq!(self.header("retry-after").is_some(), passes, "Retry-After with {}", self.status);
    }
}

/// A refusal as `(status, code, outcome)`, to compare with [`Reply::problem`].
pub(super) fn not_executed(status: u16, code: &str) -> (u16, String, String) {
    (status, code.to_owned(), "not_executed".to_owned())
}

impl FakeBackend {
    fn as_leader(&self, script: &Script, message: Message) -> Option<ToGateway> {
        let mut node = self.node.lock().expect("no test panics with it");
        match message {
            Message::Leader(ToLeader::ExecuteFunction(call)) => {
                let outcome = script(&call);
                let (request, copy, fingerprint) = (call.request.clone(), Some(call.copy), call.fingerprint);
                let stored = match outcome {
                    Some(Outcome::Issued { .. } | Outcome::Unchanged { .. } | Outcome::Refused { .. })
                        if call.is_recorded() =>
                    {
                        if node.calls.iter().any(|earlier| earlier.request == request) {
                            Stored::Before
                        } else {
                            Stored::Now
                        }
                    }
                    Some(Outcome::Issued { .. }) => Stored::Now,
                    Some(Outcome::RequestReused) => Stored::Plain,
                    _ => Stored::No,
                };
                node.calls.push(call);
                Some(ToGateway::Executed(Executed { request, copy, fingerprint, outcome: outcome?, stored }))
            }
            Message::Leader(ToLeader::ReadBarrier(asked)) => {
                let at = Some(CommandNumber(node.barrier?));
                Some(ToGateway::BarrierPassed(BarrierPassed { id: asked.id, at }))
            }
            other @ (Message::Acceptor(_)
            | Message::Leader(_)
            | Message::Learner(_)
            | Message::FailureDetector(_)
            | Message::Gateway(_)) => panic!("a gateway does not send {}", other.name()),
        }
    }
}

struct FakeView {
    state: BTreeMap<Key, Entry>,
    outcomes: BTreeMap<RequestId, StoredOutcome>,
    broken: bool,
}

impl FakeView {
    fn check(&self) -> Result<(), StateError> {
        if self.broken { Err(StateError("the disk is on fire".into())) } else { Ok(()) }
    }
}

impl StateView for FakeView {
    fn get(&self, key: &Key) -> Result<Option<Entry>, StateError> {
        self.check()?;
        Ok(self.state.get(key).cloned())
    }

    fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        self.check()?;
        let wanted = |key: &&Key| key.as_str().starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        let keys = self.state.keys().filter(wanted).take(limit);
        Ok(keys.map(|key| (key.clone(), self.state[key].clone())).collect())
    }

    fn outcome(&self, request: &RequestId) -> Result<Option<StoredOutcome>, StateError> {
        self.check()?;
        Ok(self.outcomes.get(request).cloned())
    }
}

impl Backend for FakeBackend {
    fn node(&self) -> (NodeId, &str) {
        (NodeId(2), "b")
    }

    fn cluster_name(&self) -> &'static str {
        self.cluster.get().copied().unwrap_or("<demo>")
    }

    fn door(&self) -> &Door {
        &self.door
    }

    fn gateway(&self) -> &Addr<GatewayActor> {
        // Whoever asks for it sends at once, before anything is taken out.
        let mut has_room = self.busy.load(Ordering::SeqCst);
        while has_room {
            has_room = self.gateway.try_send(LeaderIs(None)).is_ok();
        }
        &self.gateway
    }

    fn snapshot(&self) -> Result<Snapshot<'_>, StateError> {
        let node = self.node.lock().expect("no test panics with it");
        let view = FakeView { state: node.state.clone(), outcomes: node.outcomes.clone(), broken: node.broken };
        Ok(Snapshot { at: CommandNumber(node.applied), view: Box::new(view) })
    }

    fn applied(&self) -> CommandNumber {
        CommandNumber(self.node.lock().expect("no test panics with it").applied)
    }

    fn wait_applied(&self, number: CommandNumber, wait: Duration) -> LocalBoxFuture<'_, bool> {
        // The node "catches up" to 100 at once, and never further.
        Box::pin(async move {
            let mut node = self.node.lock().expect("no test panics with it");
            node.waited = Some(wait);
            node.applied = node.applied.max(number.0.min(100));
            node.applied >= number.0
        })
    }

    fn time_at(&self) -> Timestamp {
        Timestamp(self.node.lock().expect("no test panics with it").time)
    }

    fn is_current(&self) -> bool {
        !self.behind.load(Ordering::SeqCst)
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.node.lock().expect("no test panics with it").wall)
    }

    fn chance(&self) -> [u8; 40] {
        let mut node = self.node.lock().expect("no test panics with it");
        node.chance += 1;
        [node.chance; 40]
    }

    fn commands(&self, first: CommandNumber, limit: usize, _: usize) -> Result<Vec<Command>, StateError> {
        let node = self.node.lock().expect("no test panics with it");
        Ok(node.commands.iter().filter(|command| command.number() >= first).take(limit).cloned().collect())
    }

    fn digest(
        &self,
        at: Option<CommandNumber>,
        _: Duration,
    ) -> LocalBoxFuture<'_, Result<(CommandNumber, [u8; 32]), DigestError>> {
        let applied = self.applied();
        Box::pin(async move {
            match at {
                Some(at) if at < applied => Err(DigestError::Gone { oldest: applied }),
                Some(at) if at > applied => Err(DigestError::Timeout),
                Some(_) | None => Ok((applied, [0xab; 32])),
            }
        })
    }

    fn has_room_for_a_backup(&self) -> bool {
        !self.node.lock().expect("no test panics with it").is_full
    }

    fn backup(&self, _: Consistency) -> LocalBoxFuture<'_, Result<Backup, NoBackup>> {
        let node = self.node.lock().expect("no test panics with it");
        let (busy, broken, at) = (node.gives_backup, node.broken, CommandNumber(node.applied));
        Box::pin(async move {
            if busy {
                return Err(NoBackup::Busy);
            }
            if broken {
                return Err(NoBackup::Failed("it is broken".to_owned()));
            }
            let parts = [Ok(Bytes::from_static(b"one ")), Ok(Bytes::from_static(b"two"))];
            Ok(Backup { at, bytes: Box::pin(futures_util::stream::iter(parts)) })
        })
    }

    fn functions(&self) -> Vec<FunctionInfo> {
        vec![FunctionInfo {
            name: "inventory.inbound".into(),
            description: "Adds to the stock.".into(),
            arguments_schema: serde_json::json!({"type": "object"}),
            result_schema: serde_json::json!({"type": "object"}),
        }]
    }

    fn misfit(&self, function: &str, arguments: &Bytes) -> Option<Outcome> {
        match function {
            "inventory.inbound" | "kv.put" | "kv.delete" if arguments != "{\"zz\":1}" => None,
            "inventory.inbound" => Some(Outcome::InvalidArguments { message: "unknown field `zz`".into() }),
            _ => Some(Outcome::UnknownFunction),
        }
    }

    fn keys(&self, function: &str, arguments: &Bytes) -> Result<Option<Vec<Key>>, Outcome> {
        if let Some(misfit) = self.misfit(function, arguments) {
            return Err(misfit);
        }
        if function == "inventory.inbound" {
            return Ok(None);
        }
        let arguments: Value = serde_json::from_slice(arguments).expect("it was checked");
        let key = arguments["key"].as_str().and_then(|key| Key::new(key).ok());
        key.map(|key| Some(vec![key])).ok_or(Outcome::InvalidArguments { message: "missing field `key`".into() })
    }

    fn cluster(&self) -> ClusterView {
        let addresses = Addresses { peer: "127.0.0.1:7081".into(), http: "127.0.0.1:8081".into() };
        let node = NodeView {
            id: 2,
            name: "b".into(),
            roles: vec!["leader".into()],
            addresses,
            reachable: true,
            ballot: "7.2".into(),
            issued: 41,
            applied: 41,
            durable: 40,
            space: "ample",
            silent: None,
        };
        ClusterView {
            name: "<demo>".into(),
            nodes: vec![node],
            leader: Some(LeaderView { id: 2, name: "b".into() }),
            membership: MembershipView { number: 0, acceptors: vec![AcceptorView { id: 2, weight: 1 }], change: None },
            rule: "1 of 1".into(),
        }
    }

    fn wait_led_by(&self, node: NodeId, wait: Duration) -> LocalBoxFuture<'_, bool> {
        Box::pin(async move {
            let mut ours = self.node.lock().expect("no test panics with it");
            ours.waited = Some(wait);
            ours.led_by == Some(node)
        })
    }

    fn health(&self) -> Health {
        self.node.lock().expect("no test panics with it").health.clone()
    }

    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

pub(super) fn check(name: &'static str, ok: bool, detail: &str) -> Check {
    Check { name, ok, detail: detail.to_owned() }
}
