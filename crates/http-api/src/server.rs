//! Builds the HTTP server around a node.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpServiceBuilder, KeepAlive};
use actix_server::GracefulShutdownSignal;
use actix_service::{ServiceFactoryExt as _, fn_service, map_config};
use actix_tls::accept::TlsError;
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::{App, Error, web};
use metrics_exporter_prometheus::PrometheusHandle;
use protocol::Tracer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::api::Api;
use crate::auth::Auth;
use crate::backend::{Backend, Limits};
use crate::connection::{Bounded, HEAD_WAIT};
use crate::routes;

/// How long an idle connection is kept: above the minute at which common proxies drop theirs,
/// so that it is never the server that closes one just as a request arrives.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a connection may take to be closed.
const DISCONNECT_WAIT: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted: as many as the kernel lets wait by default (`net.core.somaxconn`). Beyond, it
/// drops what callers send, and they try again a second later.
const BACKLOG: i32 = 4096;

/// Those who look at metrics: a few.
pub(crate) const WATCHERS_MAX: usize = 64;

/// What the server needs beside its node.
#[derive(Clone)]
pub struct Options {
    /// Server threads; at least 1.
    pub workers: usize,
    /// Chance, unique among all gateways and their restarts: the upper half of request ids.
    pub entropy: u64,
    /// What `/metrics` shows. Its recorder must be installed before the server is built.
    pub prometheus: PrometheusHandle,
    /// Whether the node is a gateway. One that is none says how it is, and nothing else.
    pub is_gateway: bool,
    /// Metrics are at a listener of their own ([`watched`]), and not here.
    pub metrics_apart: bool,
    /// Operators are answered at a listener of their own ([`administered`]), and not here.
    pub admin_apart: bool,
    /// Whether callers present tokens. Nothing: everybody may do everything.
    pub auth: Option<Auth>,
    /// What the server shows to who connects. Nothing: it speaks plain HTTP.
    pub tls: Option<rustls::ServerConfig>,
    /// How long requests under way may take when the server is told to stop.
    pub grace: Duration,
    /// Who follows calls, if anybody does.
    pub tracer: Option<Arc<Tracer>>,
}

/// How a listener is served, whatever the application: see [`Options`].
pub(crate) struct Serving {
    pub(crate) workers: usize,
    /// The most connections, of all threads together.
    pub(crate) connections: usize,
    pub(crate) tls: Option<rustls::ServerConfig>,
    pub(crate) grace: Duration,
}

impl Serving {
    pub(crate) fn of(limits: &Limits, options: &Options) -> Self {
        let Options { workers, grace, ref tls, .. } = *options;
        Self { workers, connections: limits.connections, tls: tls.clone(), grace }
    }
}

/// Listens for callers. What is set here is passed on by the kernel to each connection that is accepted, with TLS or without.
///
/// A caller who takes nothing of a reply for so long as `reader_wait`, or is not reached any more, is cut off: the reply
/// takes room here for as long as it is not taken.
///
/// # Errors
/// An address that cannot be used.
pub fn listen(address: SocketAddr, reader_wait: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A node that is started again need not wait until the connections of its last life are forgotten.
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(reader_wait))?;
    #[cfg(not(target_os = "linux"))]
    let _ = reader_wait;
    socket.bind(&address.into())?;
    // The server takes a socket that listens as it is: how many may wait is said here or nowhere.
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The HTTP server of a node, accepting on `listener`; it runs when awaited. Signals are the
/// caller's business: stop it through [`Server::handle`].
///
/// # Errors
/// When the listener cannot be used.
pub fn server(listener: TcpListener, backend: Arc<dyn Backend>, options: Options) -> io::Result<Server> {
    let (limits, api, has_metrics) = (backend.limits(), api(backend, &options), !options.metrics_apart);
    let api = web::Data::new(if options.admin_apart { api.of_callers_only() } else { api });
    let serving = Serving::of(&limits, &options);
    let routes = if options.is_gateway { routes::of_callers } else { routes::of_no_gateway };
    serve(listener, move || routes::app(api.clone(), move |config| routes(config, has_metrics)), serving)
}

/// The server of the metrics of a node, and of its health, on a listener of their own.
///
/// # Errors
/// When the listener cannot be used.
pub fn watched(listener: TcpListener, backend: Arc<dyn Backend>, options: &Options) -> io::Result<Server> {
    let (limits, api) = (backend.limits(), web::Data::new(api(backend, options)));
    serve_apart(listener, move || routes::app(api.clone(), routes::of_watchers), limits, options)
}

/// The server of operators, on a listener of their own: all of REST, since they read and call, too. `entropy` is not that of
/// [`server`], or the two would give calls the same ids.
///
/// # Errors
/// When the listener cannot be used.
pub fn administered(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    entropy: u64,
    options: &Options,
) -> io::Result<Server> {
    let (limits, has_metrics) = (backend.limits(), !options.metrics_apart);
    let api = web::Data::new(api(backend, &Options { entropy, ..options.clone() }));
    serve_apart(
        listener,
        move || routes::app(api.clone(), move |config| routes::of_callers(config, has_metrics)),
        limits,
        options,
    )
}

fn api(backend: Arc<dyn Backend>, options: &Options) -> Api {
    let (prometheus, auth, tracer) = (options.prometheus.clone(), options.auth.clone(), options.tracer.clone());
    Api::new(backend, options.entropy, prometheus, auth, tracer)
}

/// With a thread and connections of its own: callers cannot take those of who looks how the node is.
pub(crate) fn serve_apart<F, S, B>(
    listener: TcpListener,
    app: F,
    limits: Limits,
    options: &Options,
) -> io::Result<Server>
where
    F: Fn() -> App<S> + Send + Clone + 'static,
    S: ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    B: MessageBody + 'static,
{
    serve(listener, app, Serving { connections: WATCHERS_MAX, workers: 1, ..Serving::of(&limits, options) })
}

/// The server of an application, with the bounds that all have.
pub(crate) fn serve<F, S, B>(listener: TcpListener, app: F, serving: Serving) -> io::Result<Server>
where
    F: Fn() -> App<S> + Send + Clone + 'static,
    S: ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    B: MessageBody + 'static,
{
    let server = Server::build()
        .workers(serving.workers)
        // The limit is for all threads; the server has one for each.
        .max_concurrent_connections(serving.connections.div_ceil(serving.workers.max(1)))
        .shutdown_timeout(serving.grace.as_secs().max(1))
        .disable_signals();
    let stop = server.graceful_shutdown_signal();
    let server = match serving.tls {
        None => server.listen("http", listener, move || {
            fn_service(|stream: TcpStream| ready(Ok(connection(stream, |stream| stream))))
                .and_then(http(app(), stop.clone()))
        })?,
        Some(tls) => server.listen("https", listener, move || {
            let mut acceptor = Acceptor::new(tls.clone());
            acceptor.set_handshake_timeout(HEAD_WAIT);
            acceptor
                .map_err(TlsError::into_service_error)
                .map(|stream: TlsStream<TcpStream>| connection(stream, |stream| stream.get_ref().0))
                .and_then(http(app(), stop.clone()).map_err(TlsError::Service))
        })?,
    };
    Ok(server.run())
}

/// A connection that was accepted, and who is at its other end.
fn connection<T>(stream: T, tcp: impl Fn(&T) -> &TcpStream) -> (Bounded<T>, Option<SocketAddr>) {
    let peer = tcp(&stream).peer_addr().ok();
    // Without it replies come a little later.
    _ = tcp(&stream).set_nodelay(true);
    (Bounded::new(stream), peer)
}

/// HTTP on these connections, as the library's own server would serve it on those of the kernel.
fn http<T, S, B>(
    app: App<S>,
    stop: GracefulShutdownSignal,
) -> impl ServiceFactory<(Bounded<T>, Option<SocketAddr>), Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    B: MessageBody + 'static,
{
    HttpServiceBuilder::default()
        .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
        .client_request_timeout(HEAD_WAIT)
        .client_disconnect_timeout(DISCONNECT_WAIT)
        .graceful_shutdown_signal(move || {
            let stop = stop.clone();
            async move { stop.notified().await }
        })
        .on_connect_ext(|connection: &Bounded<T>, data| drop(data.insert(connection.turns())))
        .h1(map_config(app, |()| AppConfig::default()))
}
