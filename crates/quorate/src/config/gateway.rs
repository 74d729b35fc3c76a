//! A node that is only a gateway (ADR 0031): what it is told, and what it cannot be told.
//!
//! Settings that mean data, votes or peers are refused instead of ignored. The exceptions are `node.data_dir` and
//! `listen.peer`, which the image always sets: this node makes no directory and no listener of them.

use std::net::SocketAddr;
use std::time::Duration;

use protocol::membership;

use super::layers::{ConfigError, Origin, Settings};
use super::{HOUR, Limits, Listen, Log, node_name};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayOnly {
    /// What it calls itself.
    pub(crate) name: String,
    /// The name of the cluster.
    pub(crate) cluster: String,
    /// REST of some members, `host:port`.
    pub(crate) members: Vec<String>,
    /// Where it serves REST.
    pub(crate) http: SocketAddr,
    /// What it refuses.
    pub(crate) limits: Limits,
    /// Logs.
    pub(crate) log: Log,
    /// How long requests under way may take when it is to stop.
    pub(crate) shutdown_grace: Duration,
}

/// Sections of which a gateway has nothing, and single keys.
const NOT_ITS_OWN: [&str; 13] = [
    "protocol.",
    "detector.",
    "storage.",
    "history.",
    "idempotency.",
    "membership.",
    "cluster.members",
    "cluster.weights",
    "cluster.majority_sets",
    "cluster.join",
    "cluster.leave",
    "listen.advertise",
    "limits.waiting_calls",
];

impl GatewayOnly {
    /// `None` where the node is more than a gateway.
    ///
    /// # Errors
    /// One line for the operator.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        if settings.texts("node.roles")? != ["gateway"] {
            return Ok(None);
        }
        let is_set = |origin: &Origin| !matches!(origin, Origin::Default);
        let wrong = settings
            .iter()
            .find(|(key, _, origin)| is_set(origin) && NOT_ITS_OWN.iter().any(|not| key.name.starts_with(not)));
        if let Some((key, ..)) = wrong {
            let needs = "leave it out: a node whose node.roles is [\"gateway\"] keeps no data and has no peers; it asks \
                         gateway.members";
            return Err(settings.refuse(key.name, needs));
        }
        // It could not look up whose token a caller shows, and speaks plain HTTP with the members.
        let secures = |key: &str| key.starts_with("tls.") || key.starts_with("auth.");
        if let Some((key, ..)) = settings.iter().find(|(key, _, origin)| is_set(origin) && secures(key.name)) {
            let needs = "not available yet on a node that is only a gateway: let a node with data serve REST, or put a proxy \
                         that ends TLS before it";
            return Err(settings.refuse(key.name, needs));
        }
        let members = settings.texts("gateway.members")?;
        if members.is_empty() {
            return Err(settings.wrong("gateway.members"));
        }
        if let Some(wrong) = members.iter().find(|address| !membership::is_address(address)) {
            let needs = format!("{wrong:?} is not host:port, such as \"10.0.0.1:8080\", the listen.http of a member");
            return Err(settings.refuse("gateway.members", &needs));
        }
        let cluster = settings.text("cluster.name")?;
        if !membership::is_name(&cluster) {
            return Err(settings.wrong("cluster.name"));
        }
        Ok(Some(Self {
            name: node_name(settings)?,
            cluster,
            members,
            http: Listen::address(
                settings,
                "listen.http",
                false,
                "a node that is only a gateway has no TLS of its own yet",
            )?,
            limits: Limits::from_settings(settings)?,
            log: Log::from_settings(settings)?,
            shutdown_grace: settings.duration("shutdown.grace", Duration::ZERO..=HOUR)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    fn read(sets: &[&str]) -> Result<Option<GatewayOnly>, String> {
        let sources = Sources { sets: sets.iter().map(ToString::to_string).collect(), ..Sources::default() };
        let settings = Settings::collect(&sources).map_err(|error| error.to_string())?;
        GatewayOnly::from_settings(&settings).map_err(|error| error.to_string())
    }

    /// Catches a gateway that begins a cluster of its own, one that is told what it ignores, and a node that is taken for
    /// one.
    #[test]
    fn a_gateway_is_told_what_it_needs_and_nothing_else() {
        assert_eq!(read(&[]), Ok(None));
        let only =
            ["node.roles=gateway", "gateway.members=a:8080,b:8080", "node.data_dir=/data", "listen.peer=127.0.0.1:9"];
        let gateway = read(&only).expect("all there is").expect("it is one");
        assert_eq!((gateway.members, gateway.http.port()), (vec!["a:8080".to_owned(), "b:8080".to_owned()], 8080));
        for wrong in [
            "gateway.members=",
            "gateway.members=a",
            "cluster.members=a=1.2.3.4:1",
            "cluster.join=a:7080",
            "cluster.leave=on_stop",
            "membership.spare=true",
            "history.bytes=5",
            "protocol.window=5",
            "detector.heartbeat=1ms",
            "storage.soft_free=1GiB",
            "idempotency.retention=1h",
            "listen.http=0.0.0.0:1",
            "auth.enabled=true",
            "tls.http_key=key.pem",
        ] {
            let key = wrong.split('=').next().expect("a key");
            let mut all = only.to_vec();
            all.push(wrong);
            let error = read(&all).expect_err(wrong);
            assert!(error.contains(key), "{wrong}: {error}");
        }
    }
}
