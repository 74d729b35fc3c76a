//! Where a node listens, and the HTTP servers beside that of callers.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use http_api::{Auth, ServerHandle};
use tracing::warn;

use super::backend::NodeBackend;
use super::{Watched, outside};
use crate::certificates::Certificates;
use crate::config::{Config, Limits, NodeRole};
use crate::failure::Failure;
use crate::traces::Traces;

pub(super) struct Listeners {
    pub(super) http: TcpListener,
    pub(super) metrics: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
    pub(super) peer: TcpListener,
    pub(super) certificates: Certificates,
    pub(super) auth: Option<Auth>,
}

impl Listeners {
    /// Takes all ports.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub(super) fn bind(config: &Config, certificates: Certificates, auth: Option<Auth>) -> Result<Self, Failure> {
        let (listen, limits) = (&config.listen, &config.limits);
        Ok(Self {
            http: bind_http("listen.http", listen.http, limits)?,
            metrics: listen.metrics.map(|at| bind_http("listen.metrics", at, limits)).transpose()?,
            admin: listen.admin.map(|at| bind_http("listen.admin", at, limits)).transpose()?,
            peer: bind(listen.peer, "listen.peer", TcpListener::bind)?,
            certificates,
            auth,
        })
    }

    /// Those for HTTP.
    pub(super) fn of_http(&self) -> impl Iterator<Item = &TcpListener> {
        [Some(&self.http), self.metrics.as_ref(), self.admin.as_ref()].into_iter().flatten()
    }

    pub(super) fn options(&self, config: &Config, watched: &Watched) -> anyhow::Result<http_api::Options> {
        Ok(http_api::Options {
            workers: http_workers(),
            entropy: outside::chance(),
            prometheus: watched.prometheus.clone(),
            is_gateway: config.node.roles.contains(&NodeRole::Gateway),
            metrics_apart: self.metrics.is_some(),
            admin_apart: self.admin.is_some(),
            auth: self.auth.clone(),
            tls: self.certificates.server_config()?,
            grace: config.shutdown_grace,
            tracer: watched.traces.as_ref().map(Traces::tracer),
        })
    }
}

/// Serves those who watch, as long as the process lives, and operators, where they have listeners of their own. The server
/// of operators has requests under way when the node stops.
pub(super) fn serve_apart(
    [metrics, admin]: [Option<TcpListener>; 2],
    backend: &Arc<NodeBackend>,
    options: &http_api::Options,
) -> anyhow::Result<Option<ServerHandle>> {
    if let Some(listener) = metrics {
        let watched = http_api::watched(listener, Arc::clone(backend) as _, options);
        actix::spawn(watched.context("the HTTP server of metrics")?);
    }
    let Some(listener) = admin else { return Ok(None) };
    let server = http_api::administered(listener, Arc::clone(backend) as _, outside::chance(), options);
    let server = server.context("the HTTP server of operators")?;
    let handle = server.handle();
    actix::spawn(server);
    Ok(Some(handle))
}

/// Says which listeners `listen.insecure` has opened to others than this machine.
pub(crate) fn say_exposed(listeners: &[String]) {
    if !listeners.is_empty() {
        let listeners = listeners.join("; ");
        warn!(listeners, "listen.insecure: whoever reaches these ports may do what is done there, or listen in");
    }
}

/// Listens for callers, or for those who watch.
///
/// # Errors
/// An address that cannot be used.
pub(crate) fn bind_http(key: &str, address: SocketAddr, limits: &Limits) -> Result<TcpListener, Failure> {
    bind(address, key, |address| http_api::listen(address, limits.reader_wait))
}

fn bind(
    address: SocketAddr,
    key: &str,
    listen: impl FnOnce(SocketAddr) -> std::io::Result<TcpListener>,
) -> Result<TcpListener, Failure> {
    listen(address).map_err(|error| {
        let line =
            format!("{key} = \"{address}\" cannot be listened on ({error}); stop what uses it, or choose another port");
        Failure::Usage(line)
    })
}

/// HTTP threads: half of the processors, since the roles need the other half.
pub(crate) fn http_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).clamp(1, 8))
}
