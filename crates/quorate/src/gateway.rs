//! A node that is only a gateway: it keeps no data, and asks others for everything (ADR 0031).

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::System;
use anyhow::Context as _;
use http_api::proxy::{self, Proxy};
use metrics_exporter_prometheus::PrometheusHandle;
use rustls::pki_types::CertificateDer;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::certificates::{Certificates, authorities};
use crate::config::GatewayOnly;
use crate::failure::Failure;
use crate::stop::Requests;
use crate::traces::Traces;
use crate::{node, secret};

/// What it begins with: all that can be wrong with the machine is found out before it serves.
struct Begun {
    listener: TcpListener,
    metrics: Option<TcpListener>,
    certificates: Certificates,
    authorities: Option<Vec<CertificateDer<'static>>>,
    token: Option<Zeroizing<String>>,
    prometheus: PrometheusHandle,
    traces: Option<Traces>,
}

/// Runs a gateway until it is asked to stop.
///
/// # Errors
/// A port, a certificate or a token that cannot be used.
pub(crate) fn run(config: &GatewayOnly, stop_with_parent: bool) -> Result<(), Failure> {
    System::new().block_on(async {
        let stop = Requests::new(stop_with_parent)?;
        crate::files::allow(config.limits.connections);
        let token = config.token.as_ref().map(|file| token_of(file));
        let begun = Begun {
            certificates: Certificates::read(&config.tls)?,
            authorities: config.authorities.as_ref().map(|file| authorities("gateway.ca", file)).transpose()?,
            token: token.transpose().map_err(Failure::Usage)?,
            listener: node::bind_http("listen.http", config.http, &config.limits)?,
            metrics: config.metrics.map(|at| node::bind_http("listen.metrics", at, &config.limits)).transpose()?,
            prometheus: node::install_metrics()?,
            traces: Traces::start(config.tracing.as_ref(), &config.cluster, &config.name, node::chance())?,
        };
        node::say_exposed(&config.exposed());
        serve(config, begun, stop).await?;
        Ok(())
    })
}

fn token_of(file: &Path) -> Result<Zeroizing<String>, String> {
    secret::read(file).map_err(|why| format!("gateway.token_file = {file:?}: {why}"))
}

fn options(config: &GatewayOnly, begun: &mut Begun) -> anyhow::Result<proxy::Options> {
    let limits = &config.limits;
    Ok(proxy::Options {
        name: config.name.clone(),
        cluster: config.cluster.clone(),
        members: config.members.clone(),
        authorities: begun.authorities.take(),
        limits: http_api::backend::Limits {
            body_bytes: limits.body_bytes,
            connections: limits.connections,
            wait: limits.wait_default,
            wait_max: limits.wait_max,
            ..http_api::backend::Limits::default()
        },
        requests: limits.calls_in_flight,
        server: http_api::Options {
            workers: node::http_workers(),
            entropy: node::chance(),
            prometheus: begun.prometheus.clone(),
            is_gateway: true,
            metrics_apart: begun.metrics.is_some(),
            admin_apart: false,
            auth: None,
            tls: begun.certificates.server_config()?,
            grace: config.shutdown_grace,
            tracer: begun.traces.as_ref().map(Traces::tracer),
        },
    })
}

async fn serve(config: &GatewayOnly, mut begun: Begun, mut stop: Requests) -> anyhow::Result<()> {
    let options = options(config, &mut begun)?;
    let proxy = Proxy::new(&options).context("the HTTP client")?;
    if let Some(token) = &begun.token {
        proxy.present(token).context("gateway.token_file")?;
    }
    if let Some(file) = config.token.clone() {
        actix::spawn(keep_token(Arc::clone(&proxy), file, config.tls.reload));
    }
    actix::spawn(begun.certificates.watch(config.tls.reload));
    actix::spawn(node::keep_metrics(options.server.prometheus.clone()));
    actix::spawn(Arc::clone(&proxy).watch());
    if let Some(listener) = begun.metrics.take() {
        let watched = proxy::watched(listener, Arc::clone(&proxy), &options);
        actix::spawn(watched.context("the HTTP server of metrics")?);
    }
    let server = proxy::server(begun.listener, Arc::clone(&proxy), &options).context("the HTTP server")?;
    let http = server.handle();
    let server = actix::spawn(server);
    info!(
        gateway = config.name, cluster = config.cluster, http = %config.http, members = config.members.join(","),
        "the gateway runs"
    );
    tokio::select! {
        () = stop.drained(config.shutdown_drain, || proxy.drain()) => {}
        ended = server => anyhow::bail!("the HTTP server ended by itself: {ended:?}"),
    }
    proxy.stop();
    _ = tokio::time::timeout(config.shutdown_grace + Duration::from_secs(1), http.stop(true)).await;
    if let Some(traces) = begun.traces {
        traces.end().await;
    }
    info!("stopped");
    Ok(())
}

/// Reads the token again and again: it expires, and is replaced in its file.
async fn keep_token(proxy: Arc<Proxy>, file: PathBuf, every: Duration) {
    let mut interval = tokio::time::interval(every);
    let mut said: Option<String> = None;
    loop {
        interval.tick().await;
        let file = file.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || token_of(&file)).await else { return };
        let kept = read.and_then(|token| proxy.present(&token).map_err(|error| error.to_string()));
        let why = kept.err();
        if let Some(why) = why.as_ref().filter(|_| why != said) {
            warn!("the token of this gateway stays as it is: {why}");
        }
        said = why;
    }
}
