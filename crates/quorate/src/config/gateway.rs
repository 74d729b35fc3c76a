//! A node that is only a gateway (ADR 0031): what it is told, and what it cannot be told.
//!
//! Settings that mean data, votes or peers are refused instead of ignored. The exceptions are `node.data_dir` and
//! `listen.peer`, which the image always sets: this node makes no directory and no listener of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use protocol::membership;

use super::layers::{ConfigError, Settings};
use super::listen::exposed;
use super::{HOUR, Limits, Listen, Log, Tls, Tracing, node_name};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayOnly {
    /// What it calls itself.
    pub(crate) name: String,
    /// The name of the cluster.
    pub(crate) cluster: String,
    /// REST of some members, `host:port`.
    pub(crate) members: Vec<String>,
    /// The file with the authorities behind the certificates of members. Nothing: they speak plain HTTP.
    pub(crate) authorities: Option<PathBuf>,
    /// The file with the token for looking at members.
    pub(crate) token: Option<PathBuf>,
    /// What its own REST shows.
    pub(crate) tls: Tls,
    /// Where it serves REST.
    pub(crate) http: SocketAddr,
    /// Where its metrics are, where REST has none.
    pub(crate) metrics: Option<SocketAddr>,
    /// What it refuses.
    pub(crate) limits: Limits,
    /// Logs.
    pub(crate) log: Log,
    /// Whether calls are followed, and where their spans go.
    pub(crate) tracing: Option<Tracing>,
    /// How long it serves on when it is asked to stop, and says that it is not ready.
    pub(crate) shutdown_drain: Duration,
    /// How long requests under way may take when it is to stop.
    pub(crate) shutdown_grace: Duration,
}

/// Sections of which a gateway has nothing, and single keys.
const NOT_ITS_OWN: [&str; 15] = [
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
    "listen.admin",
    "limits.waiting_calls",
    "tls.peer_",
];

impl GatewayOnly {
    /// The listeners that `listen.insecure` has opened to others than this machine. Tokens are for members to judge; where they
    /// do, this gateway has one, too.
    pub(crate) fn exposed(&self) -> Vec<String> {
        let guards = [(self.tls.http.is_some(), "TLS"), (self.token.is_some(), "tokens")];
        let all = [("listen.http", Some(self.http)), ("listen.metrics", self.metrics)];
        all.into_iter().filter_map(|(key, address)| exposed(key, address, &guards)).collect()
    }

    /// `None` where the node is more than a gateway.
    ///
    /// # Errors
    /// One line for the operator.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        if settings.texts("node.roles")? != ["gateway"] {
            return Ok(None);
        }
        let wrong = settings.changed().find(|key| NOT_ITS_OWN.iter().any(|not| key.starts_with(not)));
        if let Some(key) = wrong {
            let needs = "leave it out: a node whose node.roles is [\"gateway\"] keeps no data and has no peers; it asks \
                         gateway.members";
            return Err(settings.refuse(key, needs));
        }
        if let Some(key) = settings.changed().find(|key| key.starts_with("auth.")) {
            let needs = "leave it out: a node that is only a gateway passes on the tokens of callers, and members judge them; \
                         its own token, for looking at members, is in gateway.token_file";
            return Err(settings.refuse(key, needs));
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
        let file = |key| settings.text(key).map(|text| (!text.is_empty()).then(|| PathBuf::from(text)));
        let (tls, token) = (Tls::from_settings(settings)?, file("gateway.token_file")?);
        let is_safe = tls.http.is_some() && token.is_some();
        let http = Listen::address(
            settings,
            "listen.http",
            is_safe,
            "without TLS (tls.http_certificate, tls.http_key) before members that ask for tokens (gateway.token_file) \
             anybody could read and call",
        )?;
        Ok(Some(Self {
            name: node_name(settings)?,
            cluster,
            members,
            authorities: file("gateway.ca")?,
            http,
            metrics: Listen::metrics(settings, http, is_safe)?,
            token,
            tls,
            limits: Limits::from_settings(settings)?,
            log: Log::from_settings(settings)?,
            tracing: Tracing::from_settings(settings)?,
            shutdown_drain: settings.duration("shutdown.drain", Duration::ZERO..=HOUR)?,
            shutdown_grace: settings.duration("shutdown.grace", Duration::ZERO..=HOUR)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    fn sources(sets: &[&str]) -> Sources {
        Sources { sets: sets.iter().map(ToString::to_string).collect(), ..Sources::default() }
    }

    fn gateway_of(sets: &[&str]) -> GatewayOnly {
        read(sets).expect("all there is").expect("it is one")
    }

    fn read(sets: &[&str]) -> Result<Option<GatewayOnly>, String> {
        let settings = Settings::collect(&sources(sets)).map_err(|error| error.to_string())?;
        GatewayOnly::from_settings(&settings).map_err(|error| error.to_string())
    }

    /// Catches a gateway that is open to a network and does not say so.
    #[test]
    fn a_gateway_that_is_open_says_so() {
        let only = ["node.roles=gateway", "gateway.members=a:8080", "listen.insecure=true"];
        let of = |sets: &[&str]| gateway_of(&[&only[..], sets].concat()).exposed();
        assert_eq!(of(&["gateway.token_file=t"]), Vec::<String>::new(), "on loopback");
        let open = ["listen.http=0.0.0.0:8080", "listen.metrics=0.0.0.0:9080", "gateway.token_file=t"];
        assert_eq!(of(&open), ["listen.http = 0.0.0.0:8080 without TLS", "listen.metrics = 0.0.0.0:9080 without TLS"]);
        let with_tls = ["tls.http_certificate=c", "tls.http_key=k"];
        assert_eq!(of(&[&open[..1], &with_tls].concat()), ["listen.http = 0.0.0.0:8080 without tokens"]);
        assert_eq!(of(&[&open[..], &with_tls].concat()), Vec::<String>::new());
    }

    /// Catches a gateway that begins a cluster of its own, one that is told what it ignores, and a node that is taken for
    /// one.
    #[test]
    fn a_gateway_is_told_what_it_needs_and_nothing_else() {
        assert_eq!(read(&[]), Ok(None));
        let only =
            ["node.roles=gateway", "gateway.members=a:8080,b:8080", "node.data_dir=/data", "listen.peer=127.0.0.1:9"];
        let gateway = gateway_of(&only);
        assert_eq!((gateway.members, gateway.http.port()), (vec!["a:8080".to_owned(), "b:8080".to_owned()], 8080));
        let sealed = [
            "tls.http_certificate=c",
            "tls.http_key=k",
            "gateway.token_file=t",
            "gateway.ca=a",
            "listen.http=0.0.0.0:8080",
        ];
        let gateway = gateway_of(&[&only[..], &sealed].concat());
        assert_eq!((gateway.token, gateway.authorities), (Some("t".into()), Some("a".into())));
        assert!(gateway.tls.http.is_some());
        let open =
            read(&[&only[..], &sealed[..2], &sealed[3..]].concat()).expect_err("members may be open to everybody");
        assert!(open.contains("listen.http") && open.contains("gateway.token_file"), "{open}");
        let printed = Settings::collect(&sources(&only)).expect("good layers").to_toml();
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("printed.toml");
        std::fs::write(&file, printed).expect("written");
        let again = Settings::collect(&Sources { file: Some(file), ..Sources::default() }).expect("a file");
        assert_eq!(GatewayOnly::from_settings(&again).expect("what is printed can be read"), Some(gateway_of(&only)));
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
            "storage.soft_free=2GiB",
            "idempotency.retention=1h",
            "listen.http=0.0.0.0:1",
            "listen.admin=127.0.0.1:1",
            "auth.enabled=true",
            "auth.root_token_file=t",
            "tls.peer_ca=ca.pem",
        ] {
            let key = wrong.split('=').next().expect("a key");
            let mut all = only.to_vec();
            all.push(wrong);
            let error = read(&all).expect_err(wrong);
            assert!(error.contains(key), "{wrong}: {error}");
        }
    }
}
