//! The layers, every error line, and what all nodes must work out alike.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use protocol::NodeId;

use super::*;

const THREE: &str = "cluster.members=a=127.0.0.1:7080,b=127.0.0.1:7081,c=127.0.0.1:7082";

fn sources(sets: &[&str]) -> Sources {
    Sources { file: None, environment: Vec::new(), sets: sets.iter().map(ToString::to_string).collect() }
}

fn load(sets: &[&str]) -> Config {
    Config::load(&sources(sets)).unwrap_or_else(|error| panic!("{sets:?}: {error}")).0
}

fn refused(sets: &[&str]) -> String {
    Config::load(&sources(sets)).map(drop).expect_err("must be refused").0
}

fn file(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("node.toml");
    std::fs::write(&path, text).expect("written");
    path
}

/// Catches defaults that contradict the contract, or that are themselves refused.
#[test]
fn without_anything_it_is_a_cluster_of_one_on_loopback() {
    let config = load(&[]);
    assert_eq!((config.node.name.as_str(), config.cluster.name.as_str()), ("a", "quorate"));
    assert_eq!(config.node.data_dir, Path::new("quorate-data"));
    assert_eq!(config.node.roles.len(), 4);
    assert_eq!(
        (config.listen.http.to_string(), config.listen.peer.to_string()),
        ("127.0.0.1:8080".into(), "127.0.0.1:7080".into())
    );
    assert_eq!(config.listen.advertise, "127.0.0.1:8080");
    assert_eq!(config.cluster.start.nodes().len(), 1);
    assert!(config.cluster.start.majority().is_majority(&BTreeSet::from([config.cluster.me])));
    assert_eq!((config.window, config.learn_from), (1024, LearnFrom::Leader));
    assert_eq!(config.detector.timeout_min, Duration::from_millis(250));
    assert_eq!(config.idempotency_retention, Duration::from_secs(86_400));
    assert_eq!(config.storage, Storage { soft_free: 1 << 30, hard_free: 256 << 20, receive_rate: 32 << 20 });
    assert_eq!((config.shutdown_drain, config.shutdown_grace), (Duration::ZERO, Duration::from_secs(10)));
    assert_eq!(config.replacement, Replacement::default(), "nobody is replaced");
}

/// Catches a listener that is open to a network and is not told of, and one that is told of though it is guarded or on loopback.
#[test]
fn a_node_that_is_open_says_where() {
    const HTTP: [&str; 3] = ["listen.http=0.0.0.0:8080", "listen.metrics=0.0.0.0:9080", "listen.admin=[::]:8090"];
    const PEER: [&str; 2] = ["listen.peer=0.0.0.0:7080", "listen.advertise_peer=a:7080"];
    let of = |sets: &[&[&str]]| load(&[&["listen.insecure=true"], &sets.concat()[..]].concat()).exposed();
    assert_eq!(of(&[]), Vec::<String>::new(), "all on loopback");
    let peer = "listen.peer = 0.0.0.0:7080 without TLS";
    let rest = |lacks: &str| {
        ["listen.http = 0.0.0.0:8080", "listen.metrics = 0.0.0.0:9080", "listen.admin = [::]:8090"]
            .map(|listener| format!("{listener} without {lacks}"))
            .to_vec()
    };
    assert_eq!(of(&[&HTTP, &PEER]), [rest("TLS and tokens"), vec![peer.to_owned()]].concat());
    let (tls, tokens) = (["tls.http_certificate=c", "tls.http_key=k"], ["auth.enabled=true"]);
    assert_eq!(of(&[&HTTP, &tls]), rest("tokens"));
    assert_eq!(of(&[&HTTP, &tokens]), rest("TLS"));
    assert_eq!(of(&[&HTTP, &tls, &tokens]), Vec::<String>::new());
    let between = ["tls.peer_certificate=c", "tls.peer_key=k", "tls.peer_ca=a"];
    assert_eq!(of(&[&PEER]), [peer]);
    assert_eq!(of(&[&PEER, &between]), Vec::<String>::new());
}

/// Catches a layer that is left out or wins over a later one, and an origin that is not told.
#[test]
fn later_layers_win_and_each_value_says_where_it_came_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(
        directory.path(),
        "[protocol]\nwindow = 1\nlearn_from = \"voters\"\n[log]\nlevel = \"debug\"\n[detector]\nheartbeat = \"20ms\"\n",
    );
    let variables = [
        ("QUORATE_PROTOCOL__WINDOW", "2"),
        ("QUORATE_LOG__LEVEL", "warn"),
        ("RUST_LOG", "trace"),
        ("QUORATE_URL", "http://elsewhere"),
        ("QUORATE_CONFIG", "a.toml"),
        ("QUORATE_SERVICE_HOST", "10.0.0.1"),
        ("QUORATE_SERVICE_PORT_HTTP", "8080"),
        ("QUORATE_PORT", "tcp://10.0.0.1:8080"),
        ("QUORATE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("QUORATE_PEERS_PORT_7080_TCP_ADDR", "10.0.0.1"),
        ("HOME", "/root"),
    ];
    let sources = Sources {
        file: Some(path.clone()),
        environment: variables.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec(),
        sets: vec!["protocol.window=3".into(), "listen.http = 127.0.0.1:9000".into()],
    };
    let (config, settings) = Config::load(&sources).expect("good layers");
    assert_eq!((config.window, config.learn_from), (3, LearnFrom::Voters));
    assert_eq!(config.log.level, "warn", "RUST_LOG is the weaker name of log.level");
    assert_eq!(config.detector.heartbeat, Duration::from_millis(20));
    let printed = settings.to_toml();
    for line in [
        "window = 3  # --set".to_owned(),
        format!("learn_from = \"voters\"  # file {}", path.display()),
        "level = \"warn\"  # environment QUORATE_LOG__LEVEL".to_owned(),
        "http = \"127.0.0.1:9000\"  # --set".to_owned(),
        "timeout_max = \"2s\"  # default".to_owned(),
    ] {
        assert!(printed.lines().any(|own| own == line), "{line} is missing in\n{printed}");
    }
    let path = file(directory.path(), &printed);
    let again = Config::load(&Sources { file: Some(path), ..Sources::default() }).expect("what is printed can be read");
    assert_eq!(again.0, config);
}

/// Catches a value with line breaks that `--print-config` shows as another one.
#[test]
fn texts_of_several_lines_are_printed_on_one() {
    let (config, settings) = Config::load(&sources(&["node.data_dir=\"a\\nb\\\\\\u001b\\\"c\""])).expect("a good path");
    assert_eq!(config.node.data_dir, Path::new("a\nb\\\u{1b}\"c"));
    let directory = tempfile::tempdir().expect("a directory");
    let file = Some(file(directory.path(), &settings.to_toml()));
    assert_eq!(Config::load(&Sources { file, ..Sources::default() }).expect("what is printed can be read").0, config);
}

/// What is set, and what the error line must say of it.
const MISTAKES: &[(&[&str], &str)] = &[
    (&["nonsense"], "--set nonsense: must be key=value"),
    (&["non\nsense"], "--set non\\nsense: must be key=value"),
    (&["no\nd.name=a"], "no\\nd.name (--set): unknown key; the sections are"),
    (&["log.level=\"a\\nb\""], "log.level = \"a\\u000Ab\" (--set): must be off"),
    (&["nod.name=a"], "nod.name (--set): unknown key; the sections are node, cluster,"),
    (&["protocol.windw=1"], "protocol.windw (--set): unknown key; [protocol] has learn_from, window"),
    (&["node.name=a b"], "node.name = \"a b\" (--set): must be 1 to 64 letters"),
    (&["node.data_dir="], "node.data_dir = \"\" (--set): must be a directory"),
    (&["node.roles=acceptor,king"], "node.roles = [\"acceptor\", \"king\"] (--set): must be a list of \"acceptor\""),
    (&["node.roles=gateway"], "node.roles = [\"gateway\"] (--set): a node needs \"learner\""),
    (&["node.roles=leader"], "node.roles = [\"leader\"] (--set): this node counts in the majority sets"),
    (
        &["node.roles=acceptor,leader", "listen.advertise=h:1"],
        "listen.advertise = \"h:1\" (--set): leave it out: without \"gateway\" in node.roles",
    ),
    (&["cluster.name="], "cluster.name = \"\" (--set): must be 1 to 64 letters"),
    (&["cluster.members=a"], "\"a\" is not name=host:port"),
    (&["cluster.members=a=localhost"], "\"a=localhost\" is not name=host:port"),
    (&["cluster.members=a=h:0"], "\"a=h:0\" is not name=host:port"),
    (&["cluster.members=a=::1:7080"], "is not name=host:port"),
    (&["cluster.members=a=h:1,a=h:2"], "the name \"a\" is there twice"),
    (&["cluster.members=a=h:1,b=h:1"], "the address \"h:1\" is there twice"),
    (&["cluster.members=b=h:1,c=h:2"], "node.name = \"a\" (default): must be one of cluster.members: b, c"),
    (&["cluster.weights={z = 1}"], "cluster.weights = { z = 1 } (--set): \"z\" is not in cluster.members"),
    (&["cluster.weights={a = -1}"], "(--set): must be a table of members and whole numbers"),
    (&["cluster.weights=a"], "cluster.weights = \"a\" (--set): must be a table"),
    (&["cluster.majority_sets=[1]"], "(--set): must be a list of lists of members"),
    (
        &[THREE, "cluster.join=10.0.0.1:7080"],
        "leave it out: a node with cluster.join is told by the cluster who the members are",
    ),
    (&["cluster.join=10.0.0.1"], "\"10.0.0.1\" is not host:port"),
    (&["cluster.join=h:1", "cluster.weights={a = 2}"], "leave it out"),
    (&["cluster.leave=on_stop"], "only one with cluster.join can leave"),
    (&["membership.replace_after=10"], "membership.replace_after = \"10\" (--set): must be a duration from 1s to 366d"),
    (&["membership.replace_after=10ms"], "must be a duration from 1s"),
    (&["membership.spare=true"], "only one with cluster.join can stand by"),
    (
        &["membership.spare=true", "cluster.join=h:1", "node.roles=learner,gateway"],
        "it needs \"acceptor\" in node.roles",
    ),
    (&["cluster.leave=always"], "must be \"never\" or \"on_stop\""),
    (&["listen.advertise_peer=nowhere"], "listen.advertise_peer = \"nowhere\" (--set): must be the host:port"),
    (&["listen.http=8080"], "listen.http = \"8080\" (--set): must be an IP address and a port"),
    (&["listen.peer=localhost:7080"], "listen.peer = \"localhost:7080\" (--set): must be an IP address and a port"),
    (&["listen.http=0.0.0.0:8080"], "on a network that you trust, set listen.insecure = true"),
    (&["listen.peer=[::]:7080"], "listen.peer = \"[::]:7080\" (--set): without TLS between the nodes"),
    (&["listen.http=0.0.0.0:8080", "tls.http_certificate=c", "tls.http_key=k"], "authentication (auth.enabled)"),
    (&["listen.http=0.0.0.0:8080", "auth.enabled=true"], "without TLS (tls.http_certificate, tls.http_key)"),
    (&["auth.root_token_file=f"], "auth.enabled = false (default): must be true, or leave out auth.root_token_file"),
    (
        &["tls.http_certificate=c"],
        "tls.http_key = \"\" (default): give all of tls.http_certificate, tls.http_key, or none",
    ),
    (&["tls.peer_certificate=c", "tls.peer_key=k"], "tls.peer_ca = \"\" (default): give all of tls.peer_certificate,"),
    (&["tls.reload=0s"], "tls.reload = \"0s\" (--set): must be a duration from 1s to 1h"),
    (&["listen.peer=127.0.0.1:8080"], "must differ from listen.http"),
    (&["listen.metrics=9080"], "listen.metrics = \"9080\" (--set): must be an IP address and a port"),
    (&["listen.metrics=0.0.0.0:9080"], "listen.metrics = \"0.0.0.0:9080\" (--set): without what listen.http needs"),
    (&["listen.metrics=127.0.0.1:8080"], "listen.metrics = \"127.0.0.1:8080\" (--set): must differ from listen.http"),
    (&["listen.metrics=127.0.0.1:7080"], "must differ from listen.http, listen.metrics and"),
    (&["listen.admin=0.0.0.0:8090"], "listen.admin = \"0.0.0.0:8090\" (--set): without what listen.http needs"),
    (&["listen.admin=127.0.0.1:8080"], "listen.admin = \"127.0.0.1:8080\" (--set): must differ from listen.http"),
    (&["listen.admin=127.0.0.1:9", "listen.metrics=127.0.0.1:9"], "must differ from listen.http and listen.metrics"),
    (&["listen.admin=127.0.0.1:7080"], "must differ from listen.http, listen.metrics and listen.admin"),
    (&["listen.admin=127.0.0.1:9", "node.roles=acceptor,leader"], "this node takes no calls"),
    (&["listen.advertise=nowhere"], "listen.advertise = \"nowhere\" (--set): must be the host:port"),
    (&["listen.insecure=yes"], "listen.insecure = \"yes\" (--set): must be true or false"),
    (&["protocol.learn_from=rumour"], "must be \"leader\" or \"voters\""),
    (&["protocol.window=0"], "protocol.window = 0 (--set): must be a whole number of commands from 1 to 65536"),
    (&["protocol.window=65537"], "protocol.window = 65537 (--set)"),
    (&["protocol.window=many"], "protocol.window = \"many\" (--set)"),
    (&["detector.heartbeat=50"], "detector.heartbeat = \"50\" (--set): must be a duration"),
    (
        &["detector.heartbeat=250ms"],
        "detector.timeout_min = \"250ms\" (default): must be longer than detector.heartbeat (250ms)",
    ),
    (&["detector.timeout_max=200ms"], "must not be shorter than detector.timeout_min (250ms)"),
    (&["limits.body_bytes=10"], "limits.body_bytes = 10 (--set): must be a whole number of bytes from 1024"),
    (
        &["limits.connections=10000"],
        "limits.connections = 10000 (--set): must be more than limits.calls_in_flight (10000)",
    ),
    (
        &["limits.calls_in_flight=20000"],
        "limits.connections = 16384 (default): must be more than limits.calls_in_flight",
    ),
    (&["limits.reader_wait=0s"], "limits.reader_wait = \"0s\" (--set): must be a duration from 1s to 1h"),
    (&["limits.wait_max=1s"], "must not be shorter than limits.wait_default (10s)"),
    (
        &["idempotency.retention=90s"],
        "idempotency.retention = \"90s\" (--set): must not be shorter than limits.wait_max and a minute (2m)",
    ),
    (&["idempotency.retention=0s"], "idempotency.retention = \"0s\" (--set): must be a duration from 1s"),
    (&["storage.soft_free=1GB"], "storage.soft_free = \"1GB\" (--set): must be a size from 1B to 1PiB"),
    (&["storage.soft_free=0B"], "storage.soft_free = \"0B\" (--set): must be a size"),
    (&["storage.hard_free=1.5GiB"], "storage.hard_free = \"1.5GiB\" (--set): must be a size from 0B"),
    (
        &["storage.hard_free=1GiB"],
        "storage.hard_free = \"1GiB\" (--set): must be less than storage.soft_free (1.0 GiB)",
    ),
    (&["history.retention=400d"], "history.retention = \"400d\" (--set): must be a duration from 0s"),
    (&["history.bytes=0"], "history.bytes = 0 (--set): must be a whole number of bytes from 1"),
    (&["history.commands=0"], "history.commands = 0 (--set): must be a whole number of commands from 1"),
    (
        &["tls.cert=/secret/path"],
        "tls.cert (--set): unknown key; [tls] has http_certificate, http_key, peer_certificate,",
    ),
    (&["auth.token=s3cret"], "auth.token (--set): unknown key; [auth] has enabled, root_token_file"),
    (&["log.format=xml"], "log.format = \"xml\" (--set): must be \"text\" or \"json\""),
    (&["log.level=loud"], "log.level = \"loud\" (--set): must be off, error"),
    (&["log.level=info,loud"], "log.level = \"info,loud\" (--set): must be off, error"),
    (&["log.level=info,quorate_transport="], "(--set): must be off, error"),
    (&["log.level="], "log.level = \"\" (--set): must be off, error"),
    (&["log.level=a=b=c"], "log.level = \"a=b=c\" (--set): must be off, error"),
    (&["shutdown.drain=soon"], "shutdown.drain = \"soon\" (--set): must be a duration up to 1h"),
    (&["shutdown.grace=2h"], "shutdown.grace = \"2h\" (--set): must be a duration up to 1h"),
];

/// Catches an error that does not name the key, the value, its origin and what would be right.
#[test]
fn every_error_line_says_what_is_wrong_and_what_would_be_right() {
    for (sets, says) in MISTAKES {
        let error = refused(sets);
        assert!(error.contains(says), "{sets:?}\n says  {error}\n wants {says}");
        assert!(!error.contains('\n'), "one line: {error}");
        assert!(!error.contains("s3cret") && !error.contains("/secret"), "a secret is repeated: {error}");
    }
}

/// Catches a key of which users are not told.
#[test]
fn the_pages_for_users_list_every_key() {
    // The fuzz targets take this file in, from a directory of another depth.
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let docs = above.map(|above| above.join("docs")).find(|docs| docs.is_dir()).expect("the pages");
    let page = |file: &str| std::fs::read_to_string(docs.join(file)).expect("a page");
    let (operations, api) = (page("operations.md"), page("api.md"));
    for key in keys::KEYS {
        let (section, name) = key.name.split_once('.').expect("keys are section.name");
        assert!(operations.contains(&format!("`{}`", key.name)), "docs/operations.md does not list {}", key.name);
        assert!(api.contains(&format!("[{section}]")), "docs/api.md does not have [{section}]");
        let is_there = api.contains(&format!("{name} = ")) || api.contains(&format!("`{name}`"));
        assert!(is_there, "docs/api.md does not have {}", key.name);
    }
}

/// Catches TLS that is asked for and does not let the listener for nodes leave loopback, or lets both.
#[test]
fn tls_between_nodes_lets_their_listener_leave_loopback() {
    let peer = ["tls.peer_certificate=c", "tls.peer_key=k", "tls.peer_ca=a", "listen.peer=0.0.0.0:7080"];
    let config = load(&peer);
    assert_eq!(config.tls.peer.map(|peer| peer.authorities), Some("a".into()));
    assert!(refused(&[&peer[..], &["listen.http=0.0.0.0:8080"]].concat()).contains("listen.http"));
    let both = ["tls.http_certificate=c", "tls.http_key=k", "auth.enabled=true", "listen.http=0.0.0.0:8080"];
    assert_eq!(load(&both).auth, Some(Auth { root_token: None }));
    assert_eq!(load(&[]).tls, Tls { http: None, peer: None, reload: Duration::from_secs(10) });
}

/// Catches a file whose mistakes are skipped or not located.
#[test]
fn mistakes_in_the_file_name_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = |text: &str| {
        let path = file(directory.path(), text);
        let error = Config::load(&Sources { file: Some(path), ..Sources::default() }).map(drop).expect_err(text).0;
        assert!(error.contains("node.toml") && !error.contains('\n'), "{error}");
        error
    };
    assert!(refused("[node]\nname = \"a\"\nname = \"b\"").contains("node.toml:3: not TOML"));
    assert!(refused("[node]\nnmae = \"a\"").contains("node.nmae (file"));
    assert!(refused("window = 5").contains("window (file"));
    assert!(refused("[protocol]\nwindow = \"5\"").contains("protocol.window = \"5\" (file"));
    assert!(refused("[fancy]\n").contains("fancy (file"));
    let absent = Config::load(&Sources { file: Some(directory.path().join("absent")), ..Sources::default() });
    assert!(absent.expect_err("absent").0.contains("absent: cannot be read"));
    let variable = ("QUORATE_NODE__NMAE".to_owned(), "a".to_owned());
    let unknown = Config::load(&Sources { environment: vec![variable], ..Sources::default() });
    assert!(unknown.expect_err("unknown").0.contains("node.nmae (environment QUORATE_NODE__NMAE): unknown key"));
}

/// Catches a setting that its writer believes to be in force: a variable that is misspelt, or
/// that no version has, and that is ignored.
#[test]
fn a_variable_that_is_no_key_is_refused_with_the_nearest_one() {
    for (variable, text, nearest) in [
        ("QUORATE_LISTEN_HTTP", "127.0.0.1:9", "QUORATE_LISTEN__HTTP"),
        ("QUORATE_LISTEN_PORT", "9", "QUORATE_LISTEN__HTTP"),
        ("QUORATE_WINDOW", "5", "QUORATE_PROTOCOL__WINDOW"),
        ("QUORATE_LOG_FORMAT", "json", "QUORATE_LOG__FORMAT"),
        ("QUORATE_PORT", "8080", "QUORATE_"),
        ("QUORATE_FOO", "1", "QUORATE_"),
        ("QUORATE_", "", "QUORATE_"),
    ] {
        let environment = vec![(variable.to_owned(), text.to_owned())];
        let error = Config::load(&Sources { environment, ..Sources::default() }).map(drop).expect_err(variable).0;
        let says = format!("environment {variable}: unknown key; the nearest one is {nearest}");
        assert!(error.starts_with(&says) && !error.contains('\n'), "{error}\n wants {says}");
    }
}

/// Catches nodes of one cluster that number each other differently because their lists are in
/// another order: they would vote under each other's ids.
#[test]
fn ids_do_not_depend_on_the_order_of_the_list() {
    let one = load(&[THREE, "node.name=b"]);
    let other = load(&["cluster.members=c=127.0.0.1:7082,a=127.0.0.1:7080,b=127.0.0.1:7081", "node.name=c"]);
    assert_eq!((one.cluster.me, other.cluster.me), (NodeId(2), NodeId(3)));
    assert_eq!(one.cluster.start, other.cluster.start);
    assert_eq!(one.cluster.id, other.cluster.id);
    assert!(one.cluster.start.majority().is_majority(&BTreeSet::from([NodeId(1), NodeId(3)])));
}

/// Catches two clusters that take each other's frames and data: another name, other members, or
/// other majority sets over the same nodes, which need not intersect.
#[test]
fn clusters_that_differ_have_different_ids() {
    let clusters: &[&[&str]] = &[
        &[THREE],
        &[THREE, "cluster.name=other"],
        &["cluster.members=a=h:1,b=h:2,d=h:3"],
        &["cluster.members=a=h:1,b=h:2"],
        &[THREE, "cluster.weights={a = 2}"],
        &[THREE, "cluster.weights={b = 2}"],
        &[THREE, r#"cluster.majority_sets=[["a", "b"], ["a", "c"]]"#],
        &[THREE, r#"cluster.majority_sets=[["a", "b", "c"]]"#],
    ];
    let ids: BTreeSet<_> = clusters.iter().map(|sets| load(sets).cluster.id).collect();
    assert_eq!(ids.len(), clusters.len());
    let moved = load(&["cluster.members=a=h:1,b=h:2,c=h:3"]);
    assert_eq!(moved.cluster.id, load(&[THREE]).cluster.id, "a node may move to another address");
    assert_eq!(load(&[THREE]).cluster.id.to_string(), STORED_ID, "ids are in stored data and must stay");
}

/// The id of the cluster `quorate` of a, b, c with a simple majority.
const STORED_ID: &str = "089bac7ca376175eed6d5fef1e7391ea";

/// A1c: catches disjoint majority sets that are accepted, or named by numbers that no operator
/// has ever seen.
#[test]
fn disjoint_majority_sets_are_refused_by_name() {
    let error = refused(&[
        "cluster.members=a=h:1,b=h:2,c=h:3,d=h:4",
        r#"cluster.majority_sets=[["a", "b"], ["b", "c"], ["c", "d"]]"#,
    ]);
    assert!(error.contains("the majority sets {a, b} and {c, d} have no node in common"), "{error}");
    let both = refused(&[THREE, "cluster.weights={a=2}", r#"cluster.majority_sets=[["a"]]"#]);
    assert!(both.contains("not both"), "{both}");
}

/// A1c: catches weights that do not reach the majority sets, and a node that votes although the
/// others do not count it, or the reverse.
#[test]
fn weights_and_roles_must_agree() {
    let config = load(&[THREE, "cluster.weights={a = 2, c = 0}"]);
    assert_eq!(config.cluster.start.majority().nodes(), &BTreeSet::from([NodeId(1), NodeId(2)]));
    assert_eq!(config.cluster.start.majority().weight(NodeId(1)), 2);
    assert!(config.cluster.start.majority().is_majority(&BTreeSet::from([NodeId(1)])));
    let light = [THREE, "node.name=c", "cluster.weights={c = 0}"];
    assert!(refused(&light).contains("leave out \"acceptor\""));
    let learner = load(&[&light[..], &["node.roles=leader,gateway"]].concat());
    assert!(learner.node.roles.contains(&NodeRole::Learner), "a leader learns");
    assert!(refused(&[THREE, "node.roles=learner,gateway"]).contains("it needs \"acceptor\""));
}
