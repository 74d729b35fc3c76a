//! REST without a node: a gateway that keeps no data and passes every request on to members of the cluster (ADR 0031).
//!
//! - [`members`]: whom to ask; pure.
//! - [`forward`]: one request.
//! - [`look`]: looking at the members.
//! - This module: the server, and what the gateway says of itself (`/livez`, `/readyz`, `/healthz`,
//!   `/metrics`).
//!
//! Every other reply is a member's, and `Quorate-Node` names it.

mod forward;
mod look;
mod members;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::{self, Next};
use actix_web::{App, Error, HttpRequest, HttpResponse, Resource, ResponseError as _, guard, web};
use metrics_exporter_prometheus::PrometheusHandle;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, watch};

use crate::api::unforeseen;
use crate::auth;
use crate::backend::{Check, Limits};
use crate::core::access::Denied;
use crate::gate::denied;
use crate::names;
use crate::observe::{self, Requests};
use crate::problem::Problem;
use crate::reply::{Body, Held, Room};
use crate::request::{Arriving, Query};
use crate::routes::{ROUTES, no_route, probes};
use crate::traces::Forwards;
use members::Members;

/// What the requests under way may weigh, in KiB: their bodies are kept for sending again. As at the gateway of a node.
const ROOM_KIB: u32 = 64 << 10;
/// What one weighs beside its body: its head.
const HEAD_KIB: u32 = 6;
/// How long an idle connection to a member is kept: less than the member keeps it.
const IDLE: Duration = Duration::from_secs(60);
/// A member on the same network is there at once, or not at all.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// What a gateway is told once.
pub struct Options {
    /// Its own name, for the replies that are its own.
    pub name: String,
    /// The cluster that the members must belong to.
    pub cluster: String,
    /// REST of some members, `host:port`.
    pub members: Vec<String>,
    /// The authorities behind the certificates of members. Nothing: they speak plain HTTP.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// What it refuses.
    pub limits: Limits,
    /// The most requests under way.
    pub requests: usize,
    /// As for a node.
    pub server: crate::server::Options,
}

/// The gateway's own token.
struct Token {
    hash: blake3::Hash,
    /// What looks present.
    header: reqwest::header::HeaderValue,
}

/// See the module.
pub struct Proxy {
    name: HeaderValue,
    /// Names this gateway in what it passes on: an announced address may lead back here.
    via: HeaderValue,
    cluster: String,
    /// The same for members, lest one of another cluster takes what was meant for ours.
    cluster_header: HeaderValue,
    limits: Limits,
    /// How members are asked: `http` or `https`.
    scheme: &'static str,
    token: RwLock<Option<Token>>,
    requests: Semaphore,
    arriving: Arriving,
    room: Semaphore,
    /// For replies that are not taken yet.
    replies: Room,
    members: watch::Sender<Members>,
    client: reqwest::Client,
    prometheus: PrometheusHandle,
    entropy: u64,
    keys: AtomicU64,
    turn: AtomicUsize,
    forwards: Option<Forwards>,
    draining: AtomicBool,
    stopping: AtomicBool,
}

impl Proxy {
    /// A gateway that has asked nobody yet.
    ///
    /// # Errors
    /// When there can be no HTTP client, with these authorities.
    pub fn new(options: &Options) -> io::Result<Arc<Self>> {
        // Whoever runs a node has done so; the client wants one even where it speaks plain HTTP.
        _ = rustls::crypto::ring::default_provider().install_default();
        let authorities = options.authorities.iter().flatten().map(|der| reqwest::Certificate::from_der(der));
        let authorities = authorities.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let client = reqwest::Client::builder()
            .tls_certs_only(authorities)
            // Members close theirs after 75 s: none is to be used that is being closed.
            .pool_idle_timeout(IDLE)
            .connect_timeout(CONNECT_WAIT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            name: HeaderValue::from_str(&options.name).map_err(io::Error::other)?,
            // Members see it; of the keys it says nothing.
            via: HeaderValue::from_str(&format!("1.1 gateway-{}", unforeseen(u128::from(options.server.entropy))))
                .map_err(io::Error::other)?,
            cluster: options.cluster.clone(),
            cluster_header: HeaderValue::from_str(&options.cluster).map_err(io::Error::other)?,
            limits: options.limits.clone(),
            scheme: if options.authorities.is_some() { "https" } else { "http" },
            token: RwLock::new(None),
            requests: Semaphore::new(options.requests),
            arriving: Arriving::new(),
            room: Semaphore::new(ROOM_KIB as usize),
            replies: Room::new(),
            members: watch::Sender::new(Members::new(&options.members)),
            client,
            prometheus: options.server.prometheus.clone(),
            entropy: options.server.entropy,
            keys: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            forwards: options.server.tracer.clone().map(|tracer| Forwards::new(tracer, options.server.entropy)),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }))
    }

    /// From now on it looks at members with that token, and who presents it may see the metrics of this gateway.
    ///
    /// # Errors
    /// When it cannot stand in a header.
    pub fn present(&self, token: &str) -> io::Result<()> {
        let mut header =
            reqwest::header::HeaderValue::from_str(&format!("Bearer {token}")).map_err(io::Error::other)?;
        header.set_sensitive(true);
        let token = Token { hash: blake3::hash(token.as_bytes()), header };
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    /// Whether who asks may see the metrics. Where members ask for tokens, this gateway asks for its own: it could not ask
    /// a member about others when it is most needed.
    fn check_reader(&self, headers: &header::HeaderMap) -> Result<(), Problem> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let Some(token) = &*token else { return Ok(()) };
        match auth::bearer(headers) {
            Ok(Some(text)) if blake3::hash(text.as_bytes()) == token.hash => Ok(()),
            Ok(Some(_)) => Err(denied(Denied::Unknown)),
            Ok(None) => Err(denied(Denied::NoToken)),
            Err(why) => Err(denied(why)),
        }
    }

    /// Says that it is not ready, and serves on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Takes no more requests.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn order(&self, is_call: bool) -> Vec<String> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.members.borrow().order(is_call, turn)
    }

    /// A key that no other caller, gateway or life of this one has.
    fn fresh_key(&self) -> HeaderValue {
        let number = (u128::from(self.entropy) << 64) | u128::from(self.keys.fetch_add(1, Ordering::Relaxed));
        HeaderValue::from_str(&format!("gateway-{}", unforeseen(number))).expect("plain letters")
    }

    fn count(&self, status: Option<StatusCode>) {
        let outcome = match status {
            None => "broken",
            Some(StatusCode::SERVICE_UNAVAILABLE) => "unavailable",
            Some(_) => "answered",
        };
        metrics::counter!("quorate_gateway_forwarded_total", "outcome" => outcome).increment(1);
    }

    fn live() -> Check {
        Check { name: "process", ok: true, detail: "the process answers".to_owned() }
    }

    fn checks(&self) -> Vec<Check> {
        let members = self.members.borrow();
        let stopping = self.is_stopping() || self.draining.load(Ordering::Acquire);
        let running = if stopping { "this gateway is stopping" } else { "this gateway is not stopping" };
        vec![
            Self::live(),
            Check { name: "members", ok: members.ready() > 0, detail: members.describe() },
            Check { name: "running", ok: !stopping, detail: running.to_owned() },
        ]
    }
}

/// The HTTP server of a gateway; it runs when awaited.
///
/// # Errors
/// When the listener cannot be used.
pub fn server(listener: TcpListener, proxy: Arc<Proxy>, options: &Options) -> io::Result<Server> {
    let (proxy, has_metrics) = (web::Data::from(proxy), !options.server.metrics_apart);
    let app = move || {
        let mut app = App::new().app_data(proxy.clone()).app_data(web::Data::new(Requests::new()));
        for probe in PROBES.into_iter().filter(|probe| has_metrics || *probe != METRICS) {
            app = app.service(probed(probe));
        }
        if !has_metrics {
            // Nor those of a member.
            app = app.service(web::resource(METRICS).default_service(web::to(no_route)));
        }
        for (route, _) in ROUTES.iter().filter(|(route, _)| !PROBES.contains(route)) {
            app = app.service(web::resource(*route).default_service(web::to(forward::forward)));
        }
        app.default_service(web::to(forward::forward)).wrap(middleware::from_fn(observed))
    };
    crate::server::serve(listener, app, crate::server::Serving::of(&options.limits, &options.server))
}

/// The server of its metrics, and of its health, on a listener of their own.
///
/// # Errors
/// When the listener cannot be used.
pub fn watched(listener: TcpListener, proxy: Arc<Proxy>, options: &Options) -> io::Result<Server> {
    let proxy = web::Data::from(proxy);
    let app = move || {
        let app = App::new().app_data(proxy.clone()).app_data(web::Data::new(Requests::new()));
        let app = PROBES.into_iter().fold(app, |app, probe| app.service(probed(probe)));
        app.default_service(web::to(no_route)).wrap(middleware::from_fn(observed))
    };
    crate::server::serve_apart(listener, app, options.limits.clone(), &options.server)
}

const METRICS: &str = "/metrics";
/// What the gateway answers itself.
const PROBES: [&str; 4] = ["/livez", "/readyz", "/healthz", METRICS];

fn probed(probe: &str) -> Resource {
    let asked = guard::Any(guard::Get()).or(guard::Head());
    web::resource(probe).route(web::route().guard(asked).to(probe_of)).default_service(web::to(no_method))
}

async fn probe_of(request: HttpRequest, proxy: web::Data<Proxy>) -> Result<HttpResponse, Problem> {
    match request.path() {
        METRICS => {
            Query::of(&request, &[])?;
            proxy.check_reader(request.headers())?;
            Ok(probes::prometheus(&proxy.prometheus))
        }
        "/livez" => probes::report(&request, "livez", &[Proxy::live()]),
        path => probes::report(&request, path.trim_start_matches('/'), &proxy.checks()),
    }
}

async fn no_method() -> Result<HttpResponse, Problem> {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route takes GET, HEAD");
    Err(problem.header(header::ALLOW, HeaderValue::from_static("GET, HEAD")))
}

/// As around the routes of a node; but the reply of a member is left as it is.
async fn observed<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Body>, Error> {
    let started = observe::clock();
    let proxy = request.app_data::<web::Data<Proxy>>().expect("the application has it").clone();
    let requests = request.app_data::<web::Data<Requests>>().expect("the application has it").clone();
    let held = Held::of(&mut request);
    let checked = observe::check_head(&request);
    let response = match checked.and_then(|()| observe::check_cluster(request.headers(), &proxy.cluster)) {
        Ok(()) => next.call(request).await?.map_into_left_body(),
        Err(problem) => request.into_response(problem.error_response()).map_into_right_body(),
    };
    let mut response = held.until_written(response, &proxy.replies);
    if !response.headers().contains_key(names::NODE) {
        response.headers_mut().insert(names::NODE, proxy.name.clone());
        observe::guard_headers(response.headers_mut());
    }
    let (pattern, status) = (response.request().match_pattern(), response.status());
    requests.count(pattern, status, observe::clock().duration_since(started));
    Ok(response)
}
