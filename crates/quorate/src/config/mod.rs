//! The configuration of one node.
//!
//! Four layers, later ones win: defaults, a TOML file, the environment
//! (`QUORATE_LISTEN__HTTP=127.0.0.1:8080`), `--set listen.http=127.0.0.1:8080`. Every key stands
//! in one table ([`keys`]) with its default and a sentence on what is right; [`layers`] collects
//! values and remembers where each came from; this module turns them into the typed [`Config`]
//! and checks what concerns several keys at once; [`cluster`] is the part that every node of a
//! cluster must work out alike (ids, members, majority sets).
//!
//! An unknown key is refused, an unknown variable `QUORATE_…` too, and so is a key whose feature is not there yet: a setting that is
//! silently ignored is a promise broken later. Each error is one line that names the key, the
//! value, where it came from and what would be right; the process exits with code 2.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use protocol::LearnFrom;

mod cluster;
mod gateway;
mod keys;
mod layers;
mod limits;
mod listen;
mod print;
mod replacement;
pub(crate) mod size;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod traces;

pub(crate) use cluster::Cluster;
pub(crate) use gateway::GatewayOnly;
pub(crate) use layers::{ConfigError, Settings, Sources};
pub(crate) use limits::Limits;
pub(crate) use listen::Listen;
pub(crate) use replacement::Replacement;
pub(crate) use tls::Tls;
pub(crate) use traces::Tracing;

/// Everything that a node is told; checked as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// This node.
    pub(crate) node: Node,
    /// The cluster that it belongs to.
    pub(crate) cluster: Cluster,
    /// What becomes of acceptors that fail.
    pub(crate) replacement: Replacement,
    /// Where it listens.
    pub(crate) listen: Listen,
    /// The certificates.
    pub(crate) tls: Tls,
    /// The tokens of callers; nothing: everybody may do everything.
    pub(crate) auth: Option<Auth>,
    /// How learners come to know what is issued.
    pub(crate) learn_from: LearnFrom,
    /// Claim 5: the leader begins no ballot more than this many commands past the last issued one.
    pub(crate) window: u64,
    /// The failure detector.
    pub(crate) detector: Detector,
    /// Bounds on what callers may ask for.
    pub(crate) limits: Limits,
    /// How long outcomes of calls with an idempotency key are kept.
    pub(crate) idempotency_retention: Duration,
    /// When its disk has too little room.
    pub(crate) storage: Storage,
    /// How many issued commands are kept.
    pub(crate) history: learner::History,
    /// Logs.
    pub(crate) log: Log,
    /// Whether calls are followed, and where their spans go.
    pub(crate) tracing: Option<Tracing>,
    /// How long a node that is asked to stop serves on, and says that it is not ready.
    pub(crate) shutdown_drain: Duration,
    /// How long a stopping node finishes what is in flight.
    pub(crate) shutdown_grace: Duration,
}

/// `[node]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its name, one of the members'.
    pub(crate) name: String,
    /// Where its data lies.
    pub(crate) data_dir: PathBuf,
    /// What it does; those implied by others included.
    pub(crate) roles: BTreeSet<NodeRole>,
}

/// What a node can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeRole {
    /// Promises and votes.
    Acceptor,
    /// Applies issued commands and answers reads. Implied by the acceptor, which must know what
    /// is issued, and by the leader, which executes functions on the state.
    Learner,
    /// May become the leader.
    Leader,
    /// Serves REST. A node without it says over HTTP how it is, and nothing else.
    Gateway,
}

impl NodeRole {
    /// All roles with the words of the configuration.
    pub(crate) const ALL: [(Self, &str); 4] = [
        (Self::Acceptor, "acceptor"),
        (Self::Learner, "learner"),
        (Self::Leader, "leader"),
        (Self::Gateway, "gateway"),
    ];
}

/// `[auth]`, where it is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Auth {
    /// The file with the token that may do everything.
    pub(crate) root_token: Option<PathBuf>,
}

impl Auth {
    fn from_settings(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let file = settings.text("auth.root_token_file")?;
        let root_token = (!file.is_empty()).then(|| file.into());
        match (settings.flag("auth.enabled")?, root_token) {
            (true, root_token) => Ok(Some(Self { root_token })),
            (false, None) => Ok(None),
            (false, Some(_)) => Err(settings.refuse("auth.enabled", "must be true, or leave out auth.root_token_file")),
        }
    }
}

/// `[detector]`: heartbeat < `timeout_min` <= `timeout_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Detector {
    /// The time between two heartbeats.
    pub(crate) heartbeat: Duration,
    /// A node is never suspected sooner.
    pub(crate) timeout_min: Duration,
    /// A silent node is always suspected by then.
    pub(crate) timeout_max: Duration,
}

/// `[storage]`: `hard_free` < `soft_free`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Storage {
    /// With fewer free bytes, no new calls.
    pub(crate) soft_free: u64,
    /// With fewer free bytes, no votes, and nothing is applied.
    pub(crate) hard_free: u64,
    /// Bytes of a whole state that are taken from another node in a second.
    pub(crate) receive_rate: u64,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// Lines for people or for machines.
    pub(crate) format: LogFormat,
    /// A level, or directives such as `info,quorate_transport=debug`.
    pub(crate) level: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Collects the layers and checks them.
    ///
    /// # Errors
    /// One line for the operator.
    pub(crate) fn load(sources: &Sources) -> Result<(Self, Settings), ConfigError> {
        let settings = Settings::collect(sources)?;
        let config = Self::from_settings(&settings)?;
        Ok((config, settings))
    }

    /// Whose data this node's is.
    pub(crate) fn identity(&self) -> storage::Identity {
        storage::Identity {
            cluster: self.cluster.id,
            cluster_name: self.cluster.name.clone(),
            node: self.cluster.me,
            node_name: self.node.name.clone(),
        }
    }

    /// The listeners that `listen.insecure` has opened to others than this machine.
    pub(crate) fn exposed(&self) -> Vec<String> {
        let Listen { http, metrics, admin, peer, .. } = self.listen;
        let rest = [(self.tls.http.is_some(), "TLS"), (self.auth.is_some(), "tokens")];
        let between_nodes = [(self.tls.peer.is_some(), "TLS")];
        let all = [
            listen::exposed("listen.http", Some(http), &rest),
            listen::exposed("listen.metrics", metrics, &rest),
            listen::exposed("listen.admin", admin, &rest),
            listen::exposed("listen.peer", Some(peer), &between_nodes),
        ];
        all.into_iter().flatten().collect()
    }

    /// Checks what was collected.
    ///
    /// # Errors
    /// One line for the operator.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let tls = Tls::from_settings(settings)?;
        let auth = Auth::from_settings(settings)?;
        let node = Node::from_settings(settings)?;
        let listen = Listen::from_settings(settings, &tls, auth.is_some(), node.roles.contains(&NodeRole::Gateway))?;
        let cluster = Cluster::from_settings(settings, &node, &listen.advertise_peer)?;
        let learn_from = settings.text("protocol.learn_from")?;
        let learn_from = [LearnFrom::Leader, LearnFrom::Voters].into_iter().find(|way| way.name() == learn_from);
        Ok(Self {
            replacement: Replacement::from_settings(settings, &node, &cluster)?,
            node,
            cluster,
            listen,
            tls,
            auth,
            learn_from: learn_from.ok_or_else(|| settings.wrong("protocol.learn_from"))?,
            window: settings.count("protocol.window", 1..=65_536)?,
            detector: Detector::from_settings(settings)?,
            limits: Limits::from_settings(settings)?,
            idempotency_retention: idempotency_retention(settings)?,
            storage: Storage::from_settings(settings)?,
            history: learner::History {
                retention: settings.duration("history.retention", Duration::ZERO..=366 * DAY)?,
                commands: settings.count("history.commands", 1..=HISTORY_MAX)?,
                bytes: settings.count("history.bytes", 1..=HISTORY_MAX)?,
            },
            log: Log::from_settings(settings)?,
            tracing: Tracing::from_settings(settings)?,
            shutdown_drain: settings.duration("shutdown.drain", Duration::ZERO..=HOUR)?,
            shutdown_grace: settings.duration("shutdown.grace", Duration::ZERO..=HOUR)?,
        })
    }
}

/// A stored outcome must outlive the caller's wait, or a gateway that sends the call again on a
/// change of leader would have it run twice.
fn idempotency_retention(settings: &Settings) -> Result<Duration, ConfigError> {
    let retention = settings.duration("idempotency.retention", SECOND..=366 * DAY)?;
    let wait_max = settings.duration("limits.wait_max", 100 * MILLISECOND..=HOUR)?;
    // Gateways wait a little longer than their callers, and leaders' clocks differ.
    let least = wait_max + 60 * SECOND;
    if retention < least {
        let needs =
            format!("must not be shorter than limits.wait_max and a minute ({})", humantime::format_duration(least));
        return Err(settings.refuse("idempotency.retention", &needs));
    }
    Ok(retention)
}

/// More than any disk holds.
const HISTORY_MAX: u64 = 1_000_000_000_000;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Node {
    fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let name = node_name(settings)?;
        let data_dir = settings.text("node.data_dir")?;
        if data_dir.is_empty() {
            return Err(settings.wrong("node.data_dir"));
        }
        let mut roles = BTreeSet::new();
        for word in settings.texts("node.roles")? {
            let role = NodeRole::ALL.iter().find(|(_, known)| *known == word);
            roles.insert(role.ok_or_else(|| settings.wrong("node.roles"))?.0);
        }
        if roles.contains(&NodeRole::Acceptor) || roles.contains(&NodeRole::Leader) {
            roles.insert(NodeRole::Learner);
        }
        if !roles.contains(&NodeRole::Learner) {
            return Err(settings.refuse(
                "node.roles",
                "a node needs \"learner\" among its roles (\"acceptor\" and \"leader\" imply it); one that is only a \
                 gateway keeps no data, and can only be served",
            ));
        }
        if let Some(key) = settings.changed().find(|key| key.starts_with("gateway.")) {
            let needs = "leave it out: only a node whose node.roles is [\"gateway\"] asks others for everything";
            return Err(settings.refuse(key, needs));
        }
        Ok(Self { name, data_dir: data_dir.into(), roles })
    }
}

/// What this node is called.
fn node_name(settings: &Settings) -> Result<String, ConfigError> {
    let name = match settings.text("node.name")? {
        text if text.is_empty() => host_name()?,
        text => text,
    };
    if protocol::membership::is_name(&name) { Ok(name) } else { Err(settings.wrong("node.name")) }
}

/// The name of this machine or container, by which a network of containers finds it.
fn host_name() -> Result<String, ConfigError> {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| protocol::membership::is_name(name)).ok_or_else(|| {
        ConfigError("this machine has no name to be called by; give node.name and listen.advertise_peer".to_owned())
    })
}

impl Detector {
    fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let range = MILLISECOND..=600 * SECOND;
        let heartbeat = settings.duration("detector.heartbeat", range.clone())?;
        let timeout_min = settings.duration("detector.timeout_min", range.clone())?;
        let timeout_max = settings.duration("detector.timeout_max", range)?;
        if heartbeat >= timeout_min {
            let needs = format!(
                "must be longer than detector.heartbeat ({}), or every node is suspected between two heartbeats",
                humantime::format_duration(heartbeat)
            );
            return Err(settings.refuse("detector.timeout_min", &needs));
        }
        if timeout_min > timeout_max {
            let needs =
                format!("must not be shorter than detector.timeout_min ({})", humantime::format_duration(timeout_min));
            return Err(settings.refuse("detector.timeout_max", &needs));
        }
        Ok(Self { heartbeat, timeout_min, timeout_max })
    }
}

impl Storage {
    fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let soft_free = settings.size("storage.soft_free", 1..=1 << 50)?;
        let hard_free = settings.size("storage.hard_free", 0..=1 << 50)?;
        if hard_free >= soft_free {
            let needs = format!("must be less than storage.soft_free ({})", size::text(soft_free));
            return Err(settings.refuse("storage.hard_free", &needs));
        }
        let receive_rate = settings.size("storage.receive_rate", 1 << 20..=1 << 40)?;
        Ok(Self { soft_free, hard_free, receive_rate })
    }
}

impl Log {
    fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let format = match settings.text("log.format")?.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(settings.wrong("log.format")),
        };
        let level = settings.text("log.level")?;
        if !level.split(',').all(ends_in_a_level) || level.parse::<tracing_subscriber::EnvFilter>().is_err() {
            return Err(settings.wrong("log.level"));
        }
        Ok(Self { format, level })
    }
}

/// Whether a directive of `log.level` is a level, or a target and a level. `EnvFilter` takes any
/// other word for a target, and then shows nothing else.
fn ends_in_a_level(directive: &str) -> bool {
    let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
    ["off", "error", "warn", "info", "debug", "trace"].iter().any(|word| level.eq_ignore_ascii_case(word))
}
