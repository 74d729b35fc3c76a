//! Callers with tokens (RELIABILITY 6, rows 5 to 8; ADR 0029, 0038). Every route with every kind of token is tested where the
//! routes are (`crates/http-api/src/routes/tests/access.rs`).

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use quorate_tests::cluster::{Cluster, Gateway, Link, Reply, Taps, eventually, quorate, send};
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) const ROOT: &str = "canary-root-5f1d0c7b9e2a4d6c8b0f";

fn run(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A cluster that asks for tokens, with that root token.
pub(crate) fn guarded(name: &str, nodes: usize) -> (Cluster, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("root-token");
    fs::write(&file, format!("{ROOT}\n")).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("changed");
    let mut cluster = Cluster::new(name, nodes, &["auth.enabled=true"]);
    cluster.set(&format!("auth.root_token_file={}", file.display()));
    (cluster, directory)
}

async fn as_caller(cluster: &Cluster, node: usize, path: &str, token: &str) -> Reply {
    send(cluster.client().get(cluster.url(node, path)).bearer_auth(token)).await.expect("a living node answers")
}

/// What only the owner of a token knows of its text, `quorate_ID_SECRET`; there may be a `_` in it.
pub(crate) fn secret_of(token: &str) -> String {
    token.splitn(3, '_').nth(2).expect("it has parts").to_owned()
}

/// All files below a directory that hold a text.
pub(crate) fn holding(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A token from the first to the last day: made by the command line, used at every node, revoked, and gone at every node; the
/// same after all nodes were killed. Catches a token that one node takes and another does not, one that lives on, a client
/// that cannot present it, an operator who is not audited, and a secret that is anywhere but where it was shown.
#[tokio::test]
async fn a_token_counts_at_every_node_until_it_is_revoked() {
    let (mut cluster, directory) = guarded("guarded", 3);
    cluster.boot_all();
    cluster.wait_begun().await;
    let url = cluster.url(0, "");
    let root_file = format!("@{}", directory.path().join("root-token").display());
    let with =
        |token: &str, words: &[&str]| run(quorate().args(words).args(["--url", &url]).env("QUORATE_TOKEN", token));
    let made = with(&root_file, &["token", "create", "canary", "--read", "--call", "inventory.*", "--expires", "1h"]);
    assert!(made.status.success(), "{}", text(&made));
    let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    assert!(token.starts_with("quorate_"), "{token}");
    let listed = with(ROOT, &["token", "list"]);
    assert!(text(&listed).contains("canary  read, call inventory.*; until "), "{}", text(&listed));

    for node in 0..3 {
        assert_eq!(cluster.get(node, "/v1/cluster").await.status, 401);
        let reply = eventually("the token is known", async || {
            let reply = as_caller(&cluster, node, "/v1/cluster", &token).await;
            (reply.status != 401).then_some(reply)
        });
        assert_eq!(reply.await.status, 200);
        for path in ["/v1/tokens", "/v1/backup"] {
            as_caller(&cluster, node, path, &token).await.assert_problem(403, "forbidden");
        }
    }
    let call = with(&token, &["call", "inventory.inbound", r#"{"warehouse": "A", "amount": 5}"#]);
    assert!(call.status.success(), "{}", text(&call));
    let bench =
        with(&token, &["bench", "--clients", "1", "--seconds", "0.3", "--warmup", "0", "--setup", "inventory:1000"]);
    assert!(bench.status.success(), "{}", text(&bench));
    let call = with(&token, &["call", "kv.put", r#"{"key": "k", "value": 1}"#]);
    assert!(!call.status.success() && text(&call).contains("forbidden"), "{}", text(&call));
    let change = with(&token, &["acceptor", "remove", "b", "--dry-run"]);
    assert!(!change.status.success() && text(&change).contains("forbidden"), "{}", text(&change));

    for node in 0..3 {
        cluster.kill9(node);
    }
    cluster.boot_all();
    cluster.wait_begun().await;
    let reply = as_caller(&cluster, 1, "/v1/state?prefix=inventory/goods/A", &token).await;
    assert_eq!(reply.status, 200);
    let revoked = with(ROOT, &["token", "revoke", "canary"]);
    assert!(revoked.status.success(), "{}", text(&revoked));
    for node in 0..3 {
        eventually("the token is revoked", async || {
            (as_caller(&cluster, node, "/v1/cluster", &token).await.status == 401).then_some(())
        })
        .await;
    }
    cluster.logged(0, &["audit", "who=\"root\"", "auth.token_revoke", "outcome=\"done\"", "trace="]).await;
    cluster.logged(0, &["audit", "who=\"canary\"", "denied"]).await;
    cluster.logged(0, &["audit", "from=\"127.0.0.1\"", "why=\"invalid_token\"", "token refused"]).await;

    // Nothing but what the operator was shown has the secrets: no log, no metric, no error, no data.
    let secret = secret_of(&token);
    for canary in [ROOT, &secret] {
        for node in 0..3 {
            assert_eq!(holding(&cluster.data_dir(node), canary), Vec::<String>::new());
            assert!(!cluster.log(node).contains(canary), "it is in the log of node {node}");
            let metrics = as_caller(&cluster, node, "/metrics", ROOT).await.text();
            let state = as_caller(&cluster, node, "/v1/state?prefix=quorate/", ROOT).await.text();
            let commands = as_caller(&cluster, node, "/v1/commands?limit=1000", ROOT).await.text();
            assert!(metrics.contains("quorate_http_denied_total") && commands.contains("auth.token_create"));
            assert!(![metrics, state, commands].iter().any(|text| text.contains(canary)));
        }
    }
    let printed = run(cluster.command(0).arg("--print-config"));
    assert!(!text(&printed).contains(ROOT) && text(&printed).contains("root_token_file"), "{}", text(&printed));
}

/// Catches a node that starts with a root token that is none, or that everybody may read.
#[tokio::test]
async fn a_root_token_must_be_one() {
    let (cluster, directory) = guarded("roots", 3);
    let file = directory.path().join("root-token");
    let refused = |says: &str| {
        let refused = run(&mut cluster.command(0));
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(text(&refused).contains("auth.root_token_file") && text(&refused).contains(says), "{}", text(&refused));
        assert!(!text(&refused).contains(ROOT));
    };
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("changed");
    refused("chmod 600");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("changed");
    fs::write(&file, "short").expect("written");
    refused("at least 32 visible characters");
    fs::remove_file(&file).expect("removed");
    refused("cannot be read");
}

/// Whether some memory of a process holds a text.
fn remembers(pid: u32, text: &str) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a child's");
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("a child's");
    maps.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().expect("a range"), words.next().expect("rights"));
        let (start, end) = range.split_once('-').expect("a range");
        let address = |digits| u64::from_str_radix(digits, 16).expect("hexadecimal");
        let (start, end) = (address(start), address(end));
        let mut bytes = vec![0; usize::try_from(end - start).expect("it fits")];
        // Some of what belongs to the kernel cannot be read; what nobody has used is not there.
        rights.starts_with("rw")
            && memory
                .read_at(&mut bytes, start)
                .is_ok_and(|read| bytes[..read].windows(text.len()).any(|part| part == text.as_bytes()))
    })
}

/// RELIABILITY 6, row 8. Catches a root token that stays in the memory of its node, and so in a core or on a swap disk, though
/// the node needs its hash only. Whoever presents it sends it again.
#[tokio::test]
async fn a_node_forgets_its_root_token() {
    let (mut cluster, directory) = guarded("forgets", 3);
    cluster.boot_all();
    cluster.wait_begun().await;
    let file = directory.path().join("root-token");
    for node in 0..3 {
        assert!(remembers(cluster.pid(node), file.to_str().expect("a plain path")), "the search finds nothing");
        assert!(!remembers(cluster.pid(node), ROOT), "node {node} holds its root token");
    }
    assert_eq!(as_caller(&cluster, 0, "/v1/cluster", ROOT).await.status, 200);
}

/// The 5 s for which a node goes by what it heard last, and some for a machine that does other work; far less than for ever.
const CUT_OFF_MAX: Duration = Duration::from_secs(9);

/// Catches a node that is cut off and serves whoever holds a token for as long as it likes, though that was revoked meanwhile;
/// and one that does not take tokens again when it hears of the others.
#[tokio::test]
async fn a_node_that_is_cut_off_soon_takes_no_tokens() {
    let (mut cluster, _directory) = guarded("cut-off", 3);
    let taps = Taps::between(&mut cluster).await;
    cluster.boot_all();
    cluster.wait_begun().await;
    let asked = cluster.client().post(cluster.url(0, "/v1/tokens")).bearer_auth(ROOT);
    let made = send(asked.json(&json!({"name": "ci", "read": true}))).await.expect("a living node answers");
    assert_eq!(made.status, 201, "{}", made.text());
    let token = made.json()["token"].as_str().expect("a text").to_owned();
    let local = "/v1/state?consistency=local";
    eventually("the token is known", async || {
        (as_caller(&cluster, 2, local, &token).await.status == 200).then_some(())
    })
    .await;
    [0, 1].iter().for_each(|other| taps.set_both(2, *other, Link::Silent));
    let cut = Instant::now();
    let revoke = cluster.client().delete(cluster.url(0, "/v1/tokens/ci")).bearer_auth(ROOT);
    let revoked = send(revoke.header("Prefer", "wait=30")).await.expect("a living node answers");
    assert!(revoked.status < 300, "{}", revoked.text());
    let refused = eventually("a node that cannot know", async || {
        let reply = as_caller(&cluster, 2, local, &token).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    refused.assert_problem(503, "not_current");
    assert!(cut.elapsed() < CUT_OFF_MAX, "{:?}", cut.elapsed());
    assert_eq!(as_caller(&cluster, 2, local, ROOT).await.status, 200, "it can be looked into");
    assert_eq!(as_caller(&cluster, 2, "/metrics", &token).await.status, 200, "how it is can be seen");
    [0, 1].iter().for_each(|other| taps.set_both(2, *other, Link::Open));
    eventually("it has heard of the revocation", async || {
        (as_caller(&cluster, 2, local, &token).await.status == 401).then_some(())
    })
    .await;
}

/// RELIABILITY 6, row 6, over the nodes as they are: a token made by the command line for some keys, at the leader, at a
/// follower, and through a gateway without data; the same after all nodes were killed. Catches a door through which it sees or
/// changes keys of others, functions whose keys the node does not find in their arguments, and keys that are forgotten.
#[tokio::test]
async fn a_token_is_confined_to_its_keys_at_every_door() {
    let (mut cluster, directory) = guarded("confined", 3);
    cluster.boot_all();
    cluster.wait_begun().await;
    let url = cluster.url(0, "");
    let root_file = format!("@{}", directory.path().join("root-token").display());
    let as_root = |words: &[&str]| run(quorate().args(words).args(["--url", &url]).env("QUORATE_TOKEN", &root_file));
    let with_operate = as_root(&["token", "create", "ops", "--operate", "--keys", "a/"]);
    assert_eq!(with_operate.status.code(), Some(2), "{}", text(&with_operate));
    let words = ["token", "create", "goods", "--read", "--call", "*", "--keys", "inventory/goods/", "--keys", "a/"];
    let made = as_root(&words);
    assert!(made.status.success(), "{}", text(&made));
    let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let listed = text(&as_root(&["token", "list"]));
    assert!(listed.contains(r#"goods  read, call *, keys "inventory/goods/", keys "a/"; "#), "{listed}");
    for (function, arguments) in [
        ("inventory.inbound", r#"{"warehouse": "A", "amount": 5, "item": "screws"}"#),
        ("kv.put", r#"{"key": "b", "value": 1}"#),
        ("kv.put", r#"{"key": "a0", "value": 1}"#),
    ] {
        let called = as_root(&["call", function, arguments]);
        assert!(called.status.success(), "{}", text(&called));
    }

    let secret = format!("gateway.token_file={}", directory.path().join("root-token").display());
    let gateway = Gateway::boot(&cluster, &[0, 1, 2], &[secret]);
    gateway.ready().await;
    let view = as_caller(&cluster, 0, "/v1/cluster", ROOT).await.json();
    let leader = view["leader"]["id"].as_u64().and_then(|id| usize::try_from(id).ok()).expect("a leader") - 1;
    let doors = [cluster.url(leader, ""), cluster.url((leader + 1) % 3, ""), gateway.url("")];
    for (number, door) in doors.iter().enumerate() {
        let door = Door { cluster: &cluster, url: door, token: &token };
        eventually("the token is known", async || {
            (door.ask(Method::GET, "/v1/cluster", None).await.status == 200).then_some(())
        })
        .await;
        door.is_open_to_its_keys(number).await;
        door.is_closed_to_others().await;
    }
    for node in 0..3 {
        cluster.kill9(node);
    }
    cluster.boot_all();
    cluster.wait_begun().await;
    let door = Door { cluster: &cluster, url: &doors[1], token: &token };
    assert_eq!(
        door.ask(Method::GET, "/v1/state?prefix=a/", None).await.json()["entries"].as_array().map(Vec::len),
        Some(3)
    );
    door.is_closed_to_others().await;
    cluster.logged(leader, &["audit", "who=\"goods\"", "what=\"kv.put\"", "denied"]).await;
}

/// A node or a gateway, and a token for keys that begin with `inventory/goods/` or `a/`.
struct Door<'a> {
    cluster: &'a Cluster,
    url: &'a str,
    token: &'a str,
}

impl Door<'_> {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let asked = self.cluster.client().request(method, format!("{}{path}", self.url)).bearer_auth(self.token);
        send(body.iter().fold(asked, |asked, body| asked.json(body))).await.expect("a living door answers")
    }

    async fn is_open_to_its_keys(&self, number: usize) {
        let key = format!("/v1/state/a/{number}");
        for (method, path, body) in [
            (Method::PUT, key.as_str(), Some(json!(7))),
            (Method::GET, key.as_str(), None),
            (Method::GET, "/v1/state?prefix=inventory/goods/A", None),
            (Method::POST, "/v1/functions/kv.increment", Some(json!({"key": "a/n"}))),
            (Method::DELETE, "/v1/state/a/n", None),
            (Method::POST, "/v1/functions/inventory.inbound", Some(json!({"warehouse": "A", "amount": 5}))),
            (Method::GET, "/v1/digest", None),
        ] {
            let reply = self.ask(method.clone(), path, body).await;
            assert_eq!(reply.status, 200, "{method} {path} at {}: {}", self.url, reply.text());
        }
        let listed = self.ask(Method::GET, "/v1/state?prefix=a/&after=A&limit=1000", None).await.json();
        let keys: Vec<_> =
            listed["entries"].as_array().expect("entries").iter().map(|entry| entry["key"].clone()).collect();
        assert_eq!(keys, (0..=number).map(|number| json!(format!("a/{number}"))).collect::<Vec<_>>(), "{listed}");
    }

    async fn is_closed_to_others(&self) {
        let screws = json!({"warehouse": "A", "amount": 1, "item": "screws"});
        let move_out = json!({"from": "A", "to": "goods/A", "amount": 1});
        for (method, path, body) in [
            (Method::GET, "/v1/state/b", None),
            (Method::GET, "/v1/state/not-there", None),
            (Method::GET, "/v1/state/a", None),
            (Method::GET, "/v1/state/inventory%2Fscrews%2FA?consistency=local", None),
            (Method::GET, "/v1/state", None),
            (Method::GET, "/v1/state?prefix=a", None),
            (Method::GET, "/v1/state?prefix=inventory/&after=inventory/goods/", None),
            (Method::GET, "/v1/state?after=a/", None),
            (Method::PUT, "/v1/state/b", Some(json!(1))),
            (Method::DELETE, "/v1/state/a0", None),
            (Method::POST, "/v1/functions/kv.put", Some(json!({"key": "b", "value": 2}))),
            (Method::POST, "/v1/functions/kv.increment", Some(json!({"key": "b", "by": 0}))),
            (Method::POST, "/v1/functions/kv.compare_and_set", Some(json!({"key": "b", "expected": 0, "value": 1}))),
            (Method::POST, "/v1/functions/inventory.outbound", Some(screws)),
            (Method::POST, "/v1/functions/cluster.remove", Some(json!({"node": "b", "dry_run": true}))),
            (Method::GET, "/v1/commands", None),
            (Method::GET, "/v1/backup", None),
            (Method::GET, "/v1/tokens", None),
        ] {
            self.ask(method, path, body).await.assert_problem(403, "forbidden");
        }
        let path = "/v1/functions/inventory.transfer";
        self.ask(Method::POST, path, Some(move_out)).await.assert_problem(400, "invalid_arguments");
        self.ask(Method::POST, "/v1/functions/kv.nothing", Some(json!({})))
            .await
            .assert_problem(404, "unknown_function");
        let batch = json!([
            {"function": "kv.put", "arguments": {"key": "a/0", "value": 7}},
            {"function": "kv.put", "arguments": {"key": "b", "value": 2}},
        ]);
        let outcomes = self.ask(Method::POST, "/v1/calls", Some(batch)).await.json();
        assert_eq!((&outcomes[0]["status"], &outcomes[1]["code"]), (&json!(200), &json!("forbidden")), "{outcomes}");
        let mine = self.cluster.client().get(format!("{}/v1/state/b", self.url)).bearer_auth(ROOT);
        assert_eq!(send(mine).await.expect("a living door answers").text(), "1", "nothing of others has changed");
    }
}
