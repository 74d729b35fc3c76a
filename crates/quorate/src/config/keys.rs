//! Every key: its default and what is right for it.

/// One key of the configuration.
pub(crate) struct Key {
    /// `section.name`.
    pub(crate) name: &'static str,
    /// How text from the environment and `--set` is taken.
    pub(crate) shape: Shape,
    /// TOML text.
    pub(crate) default: &'static str,
    /// What would be right, for errors and for `--print-config`.
    pub(crate) needs: &'static str,
}

/// What sort of value a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A string; durations and addresses too.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count,
    /// A list of strings; from the environment also `a,b,c`.
    Texts,
    /// Anything else: TOML.
    Toml,
}

const fn key(name: &'static str, shape: Shape, default: &'static str, needs: &'static str) -> Key {
    Key { name, shape, default, needs }
}

/// All keys, in the order in which `--print-config` shows them.
pub(crate) const KEYS: &[Key] = &[
    key(
        "node.name",
        Shape::Text,
        "\"a\"",
        "1 to 64 letters, digits, '.', '_' or '-'; empty: the name of the host, as for containers that are scaled",
    ),
    key("node.data_dir", Shape::Text, "\"quorate-data\"", "a directory of this node's own, made when it is missing"),
    key(
        "node.roles",
        Shape::Texts,
        r#"["acceptor", "learner", "leader", "gateway"]"#,
        "a list of \"acceptor\", \"learner\", \"leader\", \"gateway\"; \"acceptor\" and \"leader\" imply \"learner\", which \
         every node with data has; one without \"gateway\" serves health and metrics only; [\"gateway\"] alone keeps no data \
         and needs gateway.members",
    ),
    key("cluster.name", Shape::Text, "\"quorate\"", "1 to 64 letters, digits, '.', '_' or '-', the same on every node"),
    key(
        "cluster.members",
        Shape::Texts,
        "[]",
        "a list of \"name=host:port\", the same on every node, names and addresses unique, host:port being where the \
         other nodes reach that node's listen.peer; empty: a cluster of this node alone",
    ),
    key(
        "cluster.weights",
        Shape::Toml,
        "{}",
        "a table of members and whole numbers, such as { a = 2, b = 1 }, the same on every node; members not named \
         weigh 1, one that weighs 0 is no acceptor",
    ),
    key(
        "cluster.majority_sets",
        Shape::Toml,
        "[]",
        "a list of lists of members, such as [[\"a\", \"b\"], [\"b\", \"c\"]], any two with a member in common, the \
         same on every node; empty: more than half of the weights",
    ),
    key(
        "cluster.join",
        Shape::Texts,
        "[]",
        "a list of host:port, the listen.peer of some members of a running cluster that this node is to join; not \
         together with cluster.members",
    ),
    key(
        "cluster.leave",
        Shape::Text,
        "\"never\"",
        "\"never\" or \"on_stop\": whether this node leaves the cluster when it is asked to stop",
    ),
    key(
        "membership.replace_after",
        Shape::Text,
        "\"\"",
        "a duration from 1s to 366d, such as 10m, the same on every node: an acceptor that is not heard for so long is \
         removed, and a spare gets its vote; empty: never",
    ),
    key(
        "membership.spare",
        Shape::Flag,
        "false",
        "true or false; true: this node, which joins (cluster.join) and has the role acceptor, asks for no vote, and gets \
         that of an acceptor that fails",
    ),
    key(
        "gateway.members",
        Shape::Texts,
        "[]",
        "a list of host:port, the REST (listen.http) of some members of the cluster, for a node that is only a gateway",
    ),
    key(
        "gateway.ca",
        Shape::Text,
        "\"\"",
        "a file with the certificates of the authorities that sign for the REST of the members, PEM, for a node that is only \
         a gateway; empty: it speaks plain HTTP with them",
    ),
    key(
        "gateway.token_file",
        Shape::Text,
        "\"\"",
        "a file with a token that may read, that not everybody may read: with it a node that is only a gateway looks at \
         members that ask for tokens, and who presents it sees the gateway's metrics; empty: there is none",
    ),
    key("listen.http", Shape::Text, "\"127.0.0.1:8080\"", "an IP address and a port, such as 127.0.0.1:8080"),
    key("listen.peer", Shape::Text, "\"127.0.0.1:7080\"", "an IP address and a port, such as 127.0.0.1:7080"),
    key(
        "listen.metrics",
        Shape::Text,
        "\"\"",
        "an IP address and a port, such as 127.0.0.1:9080, at which /metrics is, and at listen.http no more; empty: it is at \
         listen.http",
    ),
    key(
        "listen.admin",
        Shape::Text,
        "\"\"",
        "an IP address and a port, such as 127.0.0.1:8090, at which operators do what they do (POST and DELETE /v1/cluster/…, \
         /v1/tokens, /v1/backup, calls of cluster.* and auth.*), and at listen.http no more; empty: at listen.http",
    ),
    key(
        "listen.advertise",
        Shape::Text,
        "\"\"",
        "the host:port at which callers reach this node's REST, left out without \"gateway\" in node.roles; empty: listen.http, \
         or the name of the host where that is every address",
    ),
    key(
        "listen.advertise_peer",
        Shape::Text,
        "\"\"",
        "the host:port at which the other nodes reach listen.peer of a node that joins; empty: listen.peer, or the name of \
         the host where that is every address",
    ),
    key(
        "listen.insecure",
        Shape::Flag,
        "false",
        "true or false; true lets the listeners leave loopback without TLS and authentication",
    ),
    key("protocol.learn_from", Shape::Text, "\"leader\"", "\"leader\" or \"voters\""),
    key("protocol.window", Shape::Count, "1024", "a whole number of commands from 1 to 65536"),
    key("detector.heartbeat", Shape::Text, "\"50ms\"", "a duration from 1ms to 10m, such as 50ms"),
    key(
        "detector.timeout_min",
        Shape::Text,
        "\"250ms\"",
        "a duration from 1ms to 10m, longer than detector.heartbeat, such as 250ms",
    ),
    key(
        "detector.timeout_max",
        Shape::Text,
        "\"2s\"",
        "a duration from 1ms to 10m, at least detector.timeout_min, such as 2s",
    ),
    // A value of 1 MiB fits as JSON text with room for escapes.
    key("limits.body_bytes", Shape::Count, "2097152", "a whole number of bytes from 1024 to 8388608"),
    key("limits.calls_in_flight", Shape::Count, "10000", "a whole number of calls from 1 to 1000000"),
    key("limits.waiting_calls", Shape::Count, "10000", "a whole number of calls from 0 to 1000000"),
    key(
        "limits.connections",
        Shape::Count,
        "16384",
        "a whole number of connections from 2 to 1000000, more than limits.calls_in_flight",
    ),
    key("limits.wait_default", Shape::Text, "\"10s\"", "a duration from 100ms to 1h, such as 10s"),
    key("limits.wait_max", Shape::Text, "\"60s\"", "a duration from 100ms to 1h, such as 60s"),
    // Longer than a disk or a network stalls that is of use; what is not taken lies in memory meanwhile.
    key(
        "limits.reader_wait",
        Shape::Text,
        "\"15s\"",
        "a duration from 1s to 1h, such as 15s: a caller who takes nothing of a reply for so long is cut off",
    ),
    key("idempotency.retention", Shape::Text, "\"24h\"", "a duration from 1s to 366d, such as 24h"),
    key(
        "storage.soft_free",
        Shape::Text,
        "\"1GiB\"",
        "a size from 1B to 1PiB, above storage.hard_free, such as 1GiB: with less room on its disk a node takes no calls \
         as a leader",
    ),
    key(
        "storage.hard_free",
        Shape::Text,
        "\"256MiB\"",
        "a size from 0B to 1PiB, such as 256MiB: with less room on its disk a node neither votes nor applies",
    ),
    key(
        "storage.receive_rate",
        Shape::Text,
        "\"32MiB\"",
        "a size from 1MiB to 1TiB, such as 64MiB: in each second a node takes no more of a whole state from another one",
    ),
    key("history.retention", Shape::Text, "\"1h\"", "a duration from 0s to 366d, such as 1h"),
    // Commands of some minutes at full speed; far less than what a disk for a state has left.
    key("history.bytes", Shape::Count, "1073741824", "a whole number of bytes from 1 to 1000000000000"),
    // A hundred bytes each, were they all as small as they can be.
    key("history.commands", Shape::Count, "10000000", "a whole number of commands from 1 to 1000000000000"),
    key(
        "tls.http_certificate",
        Shape::Text,
        "\"\"",
        "a file with the certificate of this node's REST and those between it and its authority, PEM; with tls.http_key; \
         empty: REST without TLS",
    ),
    key(
        "tls.http_key",
        Shape::Text,
        "\"\"",
        "a file with the key of tls.http_certificate, PEM, that not everybody may read",
    ),
    key(
        "tls.peer_certificate",
        Shape::Text,
        "\"\"",
        "a file with the certificate that this node shows to the others, PEM; it names quorate://CLUSTER/NODE; with \
         tls.peer_key and tls.peer_ca, on every node; empty: no TLS between the nodes",
    ),
    key(
        "tls.peer_key",
        Shape::Text,
        "\"\"",
        "a file with the key of tls.peer_certificate, PEM, that not everybody may read",
    ),
    key(
        "tls.peer_ca",
        Shape::Text,
        "\"\"",
        "a file with the certificates of the authorities that sign for the nodes, PEM",
    ),
    // Three small files; far within the minute in which others expect a new certificate.
    key(
        "tls.reload",
        Shape::Text,
        "\"10s\"",
        "a duration from 1s to 1h, such as 10s: how often the files are looked at; SIGHUP does it at once",
    ),
    key(
        "auth.enabled",
        Shape::Flag,
        "false",
        "true or false, the same on every node; true: callers of REST present tokens, and may do what those allow",
    ),
    key(
        "auth.root_token_file",
        Shape::Text,
        "\"\"",
        "a file with a token that may do everything, at least 32 characters that nobody can guess, that not everybody may \
         read; for the first tokens; empty: there is none",
    ),
    key("log.format", Shape::Text, "\"text\"", "\"text\" or \"json\""),
    key(
        "log.level",
        Shape::Text,
        "\"info\"",
        "off, error, warn, info, debug or trace, or directives such as \"info,quorate_transport=debug\"",
    ),
    key(
        "tracing.otlp_endpoint",
        Shape::Text,
        "\"\"",
        "the URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318 (without a path: /v1/traces), without \
         a query and without a secret; empty: no call is followed",
    ),
    key(
        "tracing.otlp_ca",
        Shape::Text,
        "\"\"",
        "a file with the certificates of the authorities that sign for the collector, PEM, where tracing.otlp_endpoint begins \
         with https",
    ),
    // At full speed some hundred spans a second.
    key(
        "tracing.sample",
        Shape::Toml,
        "0.01",
        "a number from 0 to 1, such as 0.01, the same on every node: the share of calls that is followed",
    ),
    key("tracing.service", Shape::Text, "\"quorate\"", "the service.name of the spans, not empty"),
    key(
        "tracing.timeout",
        Shape::Text,
        "\"5s\"",
        "a duration from 100ms to 60s, such as 5s: how long the collector may take for one request",
    ),
    key(
        "shutdown.drain",
        Shape::Text,
        "\"0s\"",
        "a duration up to 1h, such as 5s: a node that is asked to stop says for so long that it is not ready, and serves on, so \
         that who sends callers to it can send them elsewhere; to ask a second time ends that",
    ),
    key("shutdown.grace", Shape::Text, "\"10s\"", "a duration up to 1h, such as 10s"),
];

/// The key of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
