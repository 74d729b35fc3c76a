//! A node that is only a gateway: it keeps no data, and asks others for everything (ADR 0031).

use std::sync::Arc;
use std::time::Duration;

use actix::System;
use anyhow::Context as _;
use http_api::proxy;
use tracing::info;

use crate::config::GatewayOnly;
use crate::failure::Failure;
use crate::node;

/// Runs a gateway until it is asked to stop.
///
/// # Errors
/// A port that cannot be used.
pub(crate) fn run(config: &GatewayOnly, stop_with_parent: bool) -> Result<(), Failure> {
    System::new().block_on(async {
        let asked_to_stop = crate::stop::requested(stop_with_parent)?;
        crate::files::allow(config.limits.connections);
        let listener = node::bind_http(config.http, &config.limits)?;
        serve(config, listener, asked_to_stop).await?;
        Ok(())
    })
}

async fn serve(
    config: &GatewayOnly,
    listener: std::net::TcpListener,
    asked_to_stop: impl Future<Output = &'static str>,
) -> anyhow::Result<()> {
    let limits = &config.limits;
    let options = proxy::Options {
        name: config.name.clone(),
        cluster: config.cluster.clone(),
        members: config.members.clone(),
        limits: http_api::backend::Limits {
            body_bytes: limits.body_bytes,
            connections: limits.connections,
            wait: limits.wait_default,
            wait_max: limits.wait_max,
            ..http_api::backend::Limits::default()
        },
        server: http_api::Options {
            workers: node::http_workers(),
            entropy: node::chance(),
            prometheus: node::install_metrics()?,
            auth: None,
            tls: None,
            grace: config.shutdown_grace,
        },
    };
    let proxy = proxy::Proxy::new(&options).context("the HTTP client")?;
    actix::spawn(node::keep_metrics(options.server.prometheus.clone()));
    actix::spawn(Arc::clone(&proxy).watch());
    let server = proxy::server(listener, Arc::clone(&proxy), &options).context("the HTTP server")?;
    let http = server.handle();
    let server = actix::spawn(server);
    info!(
        gateway = config.name, cluster = config.cluster, http = %config.http, members = config.members.join(","),
        "the gateway runs"
    );
    tokio::select! {
        why = asked_to_stop => info!(why, "stops: takes no more requests"),
        ended = server => anyhow::bail!("the HTTP server ended by itself: {ended:?}"),
    }
    proxy.stop();
    _ = tokio::time::timeout(config.shutdown_grace + Duration::from_secs(1), http.stop(true)).await;
    info!("stopped");
    Ok(())
}
