//! What a node says over HTTP until it serves: that it lives, and what it waits for.

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
    /// They answer when this comes back, whatever then keeps the thread of this node busy.
    pub(super) async fn begin(config: &Config, listeners: &Listeners) -> anyhow::Result<Self> {
        let (reason, _) = watch::channel("it starts".to_owned());
        let mut servers = Vec::new();
        for listener in listeners.of_http() {
            let (listener, tls) = (listener.try_clone()?, listeners.certificates.server_config()?);
            let (name, cluster) = (&config.node.name, &config.cluster.name);
            let server = http_api::waiting(listener, [name, cluster], reason.subscribe(), tls)?;
            let handle = server.handle();
            actix::spawn(server);
            // It begins when it is polled, and then takes this.
            handle.resume().await;
            servers.push(handle);
        }
        Ok(Self { reason, servers })
    }

    /// What it waits for now.
    pub(crate) fn says(&self, reason: impl Into<String>) {
        self.reason.send_replace(reason.into());
    }

    /// From now on the node serves. Who connects meanwhile waits for it.
    pub(super) async fn end(self) {
        for server in self.servers {
            server.stop(true).await;
        }
    }
}
