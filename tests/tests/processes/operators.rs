//! Operators at a listener of their own, where callers present tokens over TLS (RELIABILITY 6, row 16; ADR 0045).

use quorate_tests::cluster::{Cluster, Reply, eventually, send};
use reqwest::Method;
use serde_json::{Value, json};

use super::tokens::{ROOT, guarded};

/// A node with such a listener.
struct Guarded {
    cluster: Cluster,
    _directory: tempfile::TempDir,
    /// The URL of that listener.
    admin: String,
    /// That of callers.
    callers: String,
    /// A token to read with.
    reader: String,
}

impl Guarded {
    async fn start(name: &str) -> Self {
        // Free when it was asked for; nobody else gets it soon.
        let at = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
        let (mut cluster, directory) = guarded(name, 1);
        cluster.certify();
        cluster.set(&format!("listen.admin={at}"));
        cluster.boot_all();
        cluster.wait_begun().await;
        let (admin, callers) = (format!("https://{at}"), cluster.url(0, ""));
        let mut node = Self { cluster, _directory: directory, admin, callers, reader: String::new() };
        node.reader = node.create("reader").await;
        eventually("the token is known", async || {
            let asked = node.ask(&node.callers, Some(&node.reader), Method::GET, "/v1/state", None);
            (asked.await.status == 200).then_some(())
        })
        .await;
        node
    }

    async fn create(&self, name: &str) -> String {
        let body = json!({"name": name, "read": true});
        let made = self.ask(&self.admin, Some(ROOT), Method::POST, "/v1/tokens", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["token"].as_str().expect("a text").to_owned()
    }

    async fn ask(&self, base: &str, token: Option<&str>, method: Method, path: &str, body: Option<Value>) -> Reply {
        let asked = self.cluster.client().request(method, format!("{base}{path}"));
        let asked = token.iter().fold(asked, |asked, token| asked.bearer_auth(token));
        send(body.iter().fold(asked, |asked, body| asked.json(body))).await.expect("the node answers")
    }

    async fn at_callers(&self, token: &str, method: Method, path: &str, body: Value) -> Reply {
        self.ask(&self.callers, Some(token), method, path, Some(body)).await
    }
}

/// What would change the cluster, were it done.
fn heavier() -> Value {
    json!({"node": "a", "weight": 2})
}

/// Catches a token of an operator that has leaked, is tried at the port of callers, and leaves no line in the audit log; one of
/// somebody else that is tried there; and a stranger who can write lines.
#[tokio::test]
async fn who_operates_at_the_port_of_callers_is_in_the_audit_log() {
    let node = Guarded::start("told-of").await;
    for token in [ROOT, &node.reader] {
        let reply = node.at_callers(token, Method::POST, "/v1/cluster/acceptors", heavier()).await;
        reply.assert_problem(403, "not_at_this_port");
        let reply = node.at_callers(token, Method::POST, "/v1/functions/cluster.set_acceptor", heavier()).await;
        reply.assert_problem(403, "not_at_this_port");
    }
    for stranger in [None, Some("garbage")] {
        let reply = node.ask(&node.callers, stranger, Method::GET, "/v1/backup", None).await;
        reply.assert_problem(403, "not_at_this_port");
    }
    for who in ["who=\"root\"", "who=\"reader\""] {
        for what in ["what=\"Operate at the port of callers\"", "what=\"cluster.set_acceptor at the port of callers\""]
        {
            node.cluster.logged(0, &["WARN audit", who, what, "denied"]).await;
        }
    }
    let log = node.cluster.log(0);
    let lines = log.lines().filter(|line| line.contains("at the port of callers")).count();
    assert_eq!(lines, 4, "nobody knows the others");
}

/// Catches a port of operators that asks for no token, takes any, or lets in who may only read; one without TLS; and one that keeps
/// out who may operate.
#[tokio::test]
async fn the_port_of_operators_asks_for_tokens() {
    let node = Guarded::start("asks").await;
    node.create("gone").await;
    let sets = json!({"majority_sets": [["a"]]});
    let changes = json!({"node": "a", "weight": 2, "dry_run": true});
    for (method, path, body) in [
        (Method::GET, "/v1/backup", None),
        (Method::GET, "/v1/tokens", None),
        (Method::POST, "/v1/tokens", Some(json!({"name": "more", "read": true}))),
        (Method::POST, "/v1/cluster/acceptors?dry_run=true", Some(heavier())),
        (Method::POST, "/v1/cluster/majority?dry_run=true", Some(sets)),
        (Method::POST, "/v1/cluster/leader", Some(json!({"node": "a"}))),
        (Method::POST, "/v1/functions/cluster.set_acceptor", Some(changes)),
        (Method::DELETE, "/v1/tokens/gone", None),
    ] {
        let ask = async |token| node.ask(&node.admin, token, method.clone(), path, body.clone()).await;
        ask(None).await.assert_problem(401, "no_token");
        ask(Some("garbage")).await.assert_problem(401, "invalid_token");
        ask(Some(&node.reader)).await.assert_problem(403, "forbidden");
        let root = ask(Some(ROOT)).await;
        assert!(root.status < 300, "{method} {path}: {}", root.text());
    }
    let read = node.ask(&node.admin, Some(&node.reader), Method::GET, "/v1/cluster", None).await;
    assert_eq!(read.status, 200, "who may read reads there, too: {}", read.text());
    let plain = node.admin.replace("https", "http");
    assert!(send(node.cluster.client().get(format!("{plain}/livez"))).await.is_err(), "it answers without TLS");
}

/// Catches a way around the port: another method, another spelling of a path or a name, a call that nobody waits for, and one of
/// many in a request; with the token that may do everything.
#[tokio::test]
async fn no_way_leads_around_the_port_of_operators() {
    let node = Guarded::start("around").await;
    let command = async || {
        let listed = node.ask(&node.admin, Some(ROOT), Method::GET, "/v1/commands?limit=1000", None).await.json();
        listed["commands"].as_array().expect("commands").len()
    };
    let before = command().await;
    let set = "/v1/functions/cluster.set_acceptor";
    for (method, path, refused) in [
        (Method::HEAD, "/v1/backup", (403, "")),
        (Method::HEAD, "/v1/tokens", (403, "")),
        (Method::OPTIONS, "/v1/cluster/acceptors", (403, "not_at_this_port")),
        (Method::PUT, "/v1/cluster/acceptors", (403, "not_at_this_port")),
        (Method::PATCH, "/v1/cluster/acceptors", (403, "not_at_this_port")),
        (Method::POST, set, (403, "not_at_this_port")),
        (Method::POST, "/v1/functions/cluster%2Eset_acceptor", (403, "not_at_this_port")),
        (Method::POST, "/v1/%63luster/acceptors", (403, "not_at_this_port")),
        (Method::POST, "/v1/cluster/%61cceptors", (403, "not_at_this_port")),
        (Method::POST, "/v1/functions/CLUSTER.set_acceptor", (404, "unknown_function")),
        (Method::POST, "/V1/cluster/acceptors", (404, "unknown_route")),
        (Method::POST, "//v1/cluster/acceptors", (404, "unknown_route")),
        (Method::POST, "/v1//cluster/acceptors", (404, "unknown_route")),
        (Method::POST, "/v1/cluster%2Facceptors", (404, "unknown_route")),
        (Method::POST, "/v1/cluster/acceptors/", (404, "unknown_route")),
    ] {
        let reply = node.at_callers(ROOT, method.clone(), path, heavier()).await;
        let code = if method == Method::HEAD { Value::from("") } else { reply.json()["code"].clone() };
        assert_eq!((reply.status, code.as_str()), (refused.0, Some(refused.1)), "{method} {path}: {reply:?}");
    }
    for path in ["/v1/cluster/acceptors", set] {
        let asked = node.cluster.client().post(format!("{}{path}", node.callers)).bearer_auth(ROOT);
        let reply = send(asked.header("Prefer", "respond-async").json(&heavier())).await.expect("the node answers");
        reply.assert_problem(403, "not_at_this_port");
    }
    let call = |key: &str| json!({"function": "cluster.set_acceptor", "arguments": heavier(), "idempotency_key": key});
    let many = node.at_callers(ROOT, Method::POST, "/v1/calls", json!([call("k"), call("l")])).await.json();
    for outcome in many.as_array().expect("outcomes") {
        assert_eq!((&outcome["status"], &outcome["code"]), (&json!(403), &json!("not_at_this_port")), "{many}");
        assert_eq!(outcome["outcome"], "unknown", "it may have been made at the other port: {many}");
    }
    assert_eq!(command().await, before, "nothing was done");
    let done = node.ask(&node.admin, Some(ROOT), Method::POST, "/v1/cluster/acceptors", Some(heavier())).await;
    assert_eq!((done.status, command().await), (200, before + 1), "it would have been: {}", done.text());
}
