//! A node that is only a gateway (ADR 0031).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use quorate_tests::cluster::{
    Cluster, DEADLINE, Gateway, Reply, client_trusting, create_certificate_of_gateway, eventually, quorate, send,
};
use serde_json::{Value, json};

/// What the calls have counted.
async fn count(gateway: &Gateway) -> u64 {
    let reply = gateway.get("/v1/state/n").await;
    if reply.status == 404 { 0 } else { reply.json().as_u64().unwrap_or_else(|| panic!("{reply:?}")) }
}

/// Waits until some more calls have taken effect.
async fn progress(gateway: &Gateway) {
    let before = count(gateway).await;
    eventually("progress", async || (count(gateway).await >= before + 50).then_some(())).await;
}

/// Catches a gateway that loses, doubles or fails a call when the member behind it dies, that does not find the members it was
/// not told of, that keeps data, or that says it is well when nobody is there.
#[tokio::test]
async fn members_die_behind_a_gateway_and_no_call_fails() {
    let mut cluster = Cluster::start("fronted", 3, &[]).await;
    let gateway = Gateway::start(&cluster, &[0]).await;
    eventually("all members, of which one was told", async || {
        let text = gateway.get("/readyz?verbose").await.text();
        (text.matches("(ready)").count() == 3).then_some(())
    })
    .await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (client, stopped) = (cluster.client().clone(), stopped.clone());
            let url = gateway.url("/v1/functions/kv.increment");
            tokio::spawn(async move {
                let mut done = 0_u64;
                while !*stopped.borrow() {
                    // Without a key: the gateway gives it one.
                    let reply = send(client.post(&url).json(&json!({"key": "n"}))).await.expect("the gateway answers");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    done += 1;
                }
                done
            })
        })
        .collect();
    progress(&gateway).await;
    for round in 0..3 {
        // The leader twice, the only one that was told once.
        let node = if round == 1 { 0 } else { cluster.leader().await };
        cluster.kill9(node);
        progress(&gateway).await;
        cluster.boot(node);
        cluster.wait_ready().await;
        progress(&gateway).await;
    }
    stop.send(true).expect("the callers listen");
    let mut done = 0;
    for calls in calls {
        done += calls.await.expect("no call has failed");
    }
    assert_eq!(count(&gateway).await, done, "each call has one effect");
    assert!(!gateway.directory().join("data").exists(), "it keeps no data");
    assert_eq!(fs::read_dir(gateway.directory()).expect("readable").count(), 0);
    let head = send(cluster.client().head(gateway.url("/v1/backup"))).await.expect("the gateway answers");
    assert_eq!(head.status, 405, "no backup is begun for a head: {head:?}");
    for node in 0..3 {
        cluster.kill9(node);
    }
    eventually("a gateway that says nobody is there", async || {
        (gateway.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(gateway.get("/livez").await.status, 200);
}

/// Catches what is changed on its way: a route, a status, a header, a backup; a request that is too large and reaches a
/// member; and `quorate status` that does not work through it.
#[tokio::test]
async fn everything_passes_through_a_gateway() {
    let cluster = Cluster::start("fronted", 3, &[]).await;
    let gateway = Gateway::start(&cluster, &[0, 1, 2]).await;
    let client = cluster.client();
    let put = client.put(gateway.url("/v1/state/a%2Fb")).header("If-None-Match", "*").body("7");
    let reply = send(put.header("Content-Type", "application/json")).await.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let read = gateway.get("/v1/state/a/b").await;
    assert_eq!((read.status, read.text().as_str(), read.command()), (200, "7", reply.command()));
    assert!(["a", "b", "c"].contains(&read.header("Quorate-Node")), "{read:?}");
    let refused = client.post(gateway.url("/v1/functions/inventory.outbound")).header("Idempotency-Key", "once");
    let refused = refused.json(&json!({"warehouse": "A", "amount": 5}));
    let first = send(refused.try_clone().expect("a body")).await.expect("an answer");
    first.assert_problem(422, "insufficient_stock");
    let again = send(refused).await.expect("an answer");
    assert_eq!((again.status, again.header("Idempotent-Replayed")), (422, "true"), "the caller's key, not another");
    gateway.get("/v1/nothing").await.assert_problem(404, "unknown_route");
    let large = client.post(gateway.url("/v1/functions/kv.put")).header("Content-Type", "application/json");
    let large = send(large.body(vec![b' '; (2 << 20) + 1])).await.expect("an answer");
    assert_eq!((large.status, large.header("Quorate-Node")), (413, "front"), "{}", large.text());
    let metrics = gateway.get("/metrics").await.text();
    assert!(metrics.contains("quorate_gateway_members_ready 3"), "{metrics}");

    let file = gateway.directory().join("backup");
    for arguments in [vec!["status"], vec!["backup", file.to_str().expect("a plain path")]] {
        let mut command = quorate();
        command.args(&arguments).args(["--url", &gateway.url("")]);
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(DEADLINE, run).await.expect("in time").expect("no panic").expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
    let checked = quorate().args(["restore", "--dry-run"]).arg(&file).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let view: Value = gateway.get("/v1/cluster").await.json();
    assert_eq!(view["nodes"].as_array().map(Vec::len), Some(3), "it is nobody's member");
}

const ROOT: &str = "root-of-the-sealed-cluster-0123456789";

/// Puts a secret where only its owner may read it.
fn write_secret(file: &Path, secret: &str) {
    let aside = file.with_extension("aside");
    fs::write(&aside, secret).expect("written");
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).expect("changed");
    fs::rename(aside, file).expect("renamed");
}

/// Three nodes with certificates that ask for tokens.
async fn sealed(directory: &Path) -> Cluster {
    let root = directory.join("root");
    write_secret(&root, ROOT);
    let mut cluster = Cluster::new("sealed", 3, &["auth.enabled=true"]);
    cluster.set(&format!("auth.root_token_file={}", root.display()));
    cluster.certify();
    cluster.boot_all();
    cluster.wait_begun().await;
    cluster
}

/// A new token, known at every node.
async fn token(cluster: &Cluster, asked: Value) -> String {
    let made = send(cluster.client().post(cluster.url(0, "/v1/tokens")).bearer_auth(ROOT).json(&asked)).await;
    let made = made.expect("a living node answers");
    assert_eq!(made.status, 201, "{}", made.text());
    let token = made.json()["token"].as_str().expect("a text").to_owned();
    for node in 0..3 {
        eventually("a token that counts", async || {
            let asked = cluster.client().get(cluster.url(node, "/v1/functions")).bearer_auth(&token);
            (send(asked).await.ok()?.status == 200).then_some(())
        })
        .await;
    }
    token
}

/// What a call through a gateway gets, with a token or without.
async fn inbound(cluster: &Cluster, gateway: &Gateway, token: Option<&str>) -> Reply {
    let call = cluster.client().post(gateway.url("/v1/functions/inventory.inbound"));
    let call = token.iter().fold(call, |call, token| call.bearer_auth(token));
    send(call.json(&json!({"warehouse": "A", "amount": 1}))).await.expect("the gateway answers")
}

/// Catches a gateway that cannot stand before members with TLS and tokens, that lets in who may not, or that keeps out who
/// may; one whose metrics anybody sees; and one that does not take a new certificate or a new token without a restart.
#[tokio::test]
async fn a_gateway_stands_before_sealed_members() {
    let (directory, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut cluster = sealed(directory.path()).await;
    let files = cluster.certificates();
    create_certificate_of_gateway(&files, "sealed", "front");
    create_certificate_of_gateway(new.path(), "sealed", "front");
    let authority = |directory: &Path| fs::read(directory.join("ca.crt")).expect("an authority");
    cluster.trust(&[authority(&files), authority(new.path())].concat());
    let looks = token(&cluster, json!({"name": "looks", "read": true})).await;
    let caller = token(&cluster, json!({"name": "caller", "call": ["inventory.*"]})).await;
    let secret = directory.path().join("looks");
    write_secret(&secret, &looks);
    let settings = sealed_settings(&files, &secret, "tls.reload=1s");
    let gateway = Gateway::boot(&cluster, &[0], &settings);
    gateway.ready().await;
    for _ in 0..4 {
        assert_eq!(inbound(&cluster, &gateway, Some(&caller)).await.status, 200);
    }
    inbound(&cluster, &gateway, None).await.assert_problem(401, "no_token");
    inbound(&cluster, &gateway, Some("quorate_wrong")).await.assert_problem(401, "invalid_token");
    inbound(&cluster, &gateway, Some(&looks)).await.assert_problem(403, "forbidden");
    gateway.get("/metrics").await.assert_problem(401, "no_token");
    let metrics = send(cluster.client().get(gateway.url("/metrics")).bearer_auth(&looks)).await.expect("an answer");
    assert!(metrics.status == 200 && metrics.text().contains("quorate_gateway_members_ready"), "{}", metrics.text());
    let plain = format!("http://{}/livez", gateway.address());
    assert!(send(cluster.client().get(plain)).await.is_err(), "it answers without TLS");

    for file in ["front.key", "front.crt"] {
        fs::rename(new.path().join(file), files.join(file)).expect("renamed");
    }
    eventually("the new certificate", async || {
        // Connections that are there keep the old one.
        let client = client_trusting(&authority(new.path()));
        (send(client.get(gateway.url("/livez"))).await.ok()?.status == 200).then_some(())
    })
    .await;

    let revoke = cluster.client().delete(cluster.url(0, "/v1/tokens/looks")).bearer_auth(ROOT);
    assert!(send(revoke).await.expect("a living node answers").status < 300);
    gateway.logged(&["WARN", "does not take the token of this gateway", "gateway.token_file"]).await;
    eventually("a gateway that is not ready", async || (gateway.get("/readyz").await.status == 503).then_some(()))
        .await;
    assert_eq!(inbound(&cluster, &gateway, Some(&caller)).await.status, 200, "callers have tokens of their own");
    write_secret(&secret, &token(&cluster, json!({"name": "looks2", "read": true})).await);
    gateway.ready().await;
}

/// The lines of a key, each of which would give a part of it away.
fn lines_of_key(file: &Path) -> Vec<String> {
    let pem = fs::read_to_string(file).expect("a key");
    pem.lines().filter(|line| line.len() > 16 && !line.starts_with("---")).map(str::to_owned).collect()
}

/// A gateway that speaks TLS with its callers and looks at the nodes with a token; and one setting more.
fn sealed_settings(files: &Path, secret: &Path, more: &str) -> [String; 5] {
    [
        format!("gateway.ca={}", files.join("ca.crt").display()),
        format!("gateway.token_file={}", secret.display()),
        format!("tls.http_certificate={}", files.join("front.crt").display()),
        format!("tls.http_key={}", files.join("front.key").display()),
        more.to_owned(),
    ]
}

/// RELIABILITY 6, row 8. What lies in the files that the configuration of nodes and gateways names is in no log, metric, error, data,
/// nor in what `--print-config` shows: the keys of all certificates, and the gateway's token. Catches the one that is.
#[tokio::test]
async fn no_secret_of_the_configuration_is_anywhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = sealed(directory.path()).await;
    let files = cluster.certificates();
    create_certificate_of_gateway(&files, "sealed", "front");
    let looks = token(&cluster, json!({"name": "looks", "read": true})).await;
    let secret = directory.path().join("looks");
    write_secret(&secret, &looks);
    let settings = sealed_settings(&files, &secret, "log.level=debug");
    let gateway = Gateway::boot(&cluster, &[0], &settings);
    gateway.ready().await;
    let mut canaries = vec![crate::tokens::secret_of(&looks)];
    for key in ["a.key", "b.key", "c.key", "front.key"] {
        let lines = lines_of_key(&files.join(key));
        assert!(lines.len() > 1, "{key} is no key");
        canaries.extend(lines);
    }
    let mut shown = vec![gateway.log()];
    for node in 0..3 {
        let metrics = cluster.client().get(cluster.url(node, "/metrics")).bearer_auth(&looks);
        shown.push(send(metrics).await.expect("a living node answers").text());
        shown.push(cluster.log(node));
        for canary in &canaries {
            assert_eq!(crate::tokens::holding(&cluster.data_dir(node), canary), Vec::<String>::new());
        }
    }
    let metrics = send(cluster.client().get(gateway.url("/metrics")).bearer_auth(&looks)).await.expect("an answer");
    assert_eq!(metrics.status, 200);
    shown.push(metrics.text());
    for bad in [None, Some("quorate_wrong"), Some(looks.as_str())] {
        shown.push(inbound(&cluster, &gateway, bad).await.text());
    }
    // Another node's key, in the place of its own and of a certificate.
    for wrong in ["tls.http_key", "tls.peer_key", "tls.http_certificate"] {
        let wrong = format!("{wrong}={}", files.join("b.key").display());
        let output = cluster.command(0).args(["--set", &wrong]).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        shown.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    for print in [cluster.command(0), of_settings(&settings)] {
        let mut print = print;
        let output = print.arg("--print-config").output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        shown.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    for canary in &canaries {
        let found = shown.iter().find(|text| text.contains(canary.as_str()));
        assert!(found.is_none(), "a secret is in {}", found.expect("it was found"));
    }
}

/// A gateway by these settings.
fn of_settings(settings: &[String]) -> std::process::Command {
    let mut command = quorate();
    command.args(["serve", "--set", "node.roles=gateway", "--set", "gateway.members=a:8080"]);
    for set in settings {
        command.args(["--set", set]);
    }
    command
}

/// Catches a gateway that takes members who want a token for another cluster's, or does not say which key is missing; and
/// one that starts with a token or an authority that it cannot use.
#[tokio::test]
async fn a_gateway_says_what_it_lacks() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = sealed(directory.path()).await;
    let ca = format!("gateway.ca={}", cluster.certificates().join("ca.crt").display());
    let gateway = Gateway::boot(&cluster, &[0, 1], std::slice::from_ref(&ca));
    gateway.logged(&["WARN", "does not take the token of this gateway", "gateway.token_file"]).await;
    let ready = gateway.get("/readyz?verbose").await;
    assert!(ready.status == 503 && ready.text().contains("see gateway.token_file"), "{}", ready.text());
    let without = Gateway::boot(&cluster, &[0], &[]);
    without.logged(&["WARN", "does not answer"]).await;
    let stranger = cluster.certificates().join("a.crt");
    let stranger = Gateway::boot(&cluster, &[0], &[format!("gateway.ca={}", stranger.display())]);
    stranger.logged(&["WARN", "does not answer", "certificate"]).await;
    let readable = directory.path().join("readable");
    fs::write(&readable, "token").expect("written");
    fs::set_permissions(&readable, fs::Permissions::from_mode(0o644)).expect("changed");
    for (key, file, says) in [
        ("gateway.token_file", readable.as_path(), "chmod 600"),
        ("gateway.token_file", Path::new("nowhere"), "cannot be read"),
        ("gateway.ca", readable.as_path(), "PEM"),
    ] {
        let mut refused = Gateway::boot(&cluster, &[0], &[format!("{key}={}", file.display())]);
        assert_eq!(refused.ended().await.code(), Some(2), "{key}");
        refused.logged(&[key, says]).await;
    }
}
