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
