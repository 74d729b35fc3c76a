//! What a node says over HTTP until it serves: that it lives, and what it waits for.

use std::net::TcpListener;

use http_api::ServerHandle;
use tokio::sync::watch;

use super::Listeners;
use crate::config::Config;

/// Servers that say so at the addresses at which the node will serve.
pub(crate) struct Waiting {
    reason: watch::Sender<String>,
    servers: Vec<ServerHandle>,
}

impl Waiting {
    pub(super) fn begin(config: &Config, listeners: &Listeners) -> anyhow::Result<Self> {
        let (reason, _) = watch::channel("it starts".to_owned());
        let server = |listener: &TcpListener| {
            let serving = http_api::Serving {
                workers: 1,
                connections: config.limits.connections,
                tls: listeners.certificates.server_config()?,
                grace: config.shutdown_grace,
            };
            let server = http_api::waiting(listener.try_clone()?, &config.node.name, reason.subscribe(), serving)?;
            let handle = server.handle();
            actix::spawn(server);
            anyhow::Ok(handle)
        };
        let servers = [Some(&listeners.http), listeners.metrics.as_ref()];
        let servers = servers.into_iter().flatten().map(server).collect::<anyhow::Result<_>>()?;
        Ok(Self { reason, servers })
    }

    /// What it waits for now.
    pub(crate) fn says(&self, reason: impl Into<String>) {
        self.reason.send_replace(reason.into());
    }

    /// From now on the node serves. Who connects meanwhile waits for it.
    pub(super) async fn end(self) {
        for server in self.servers {
            server.stop(false).await;
        }
    }
}
