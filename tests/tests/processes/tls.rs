//! Nodes with certificates (RELIABILITY 6, rows 1 to 4; ADR 0028). Who is refused, one by one, is tested where the
//! connections are made (`crates/transport/tests/transport/tls.rs`).

use std::fs;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_tests::cluster::{Cluster, Load, client, create_certificates, eventually, quorate, send};
use quorate_tests::skip::skipped;
use serde_json::json;

fn run(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// RELIABILITY 6, row 2: catches REST that speaks a version of TLS, or a cipher, that is broken. That it speaks the others shows that
/// the client was not the one who declined.
#[tokio::test]
async fn rest_speaks_nothing_below_tls_1_2_with_aead() {
    if !Command::new("openssl").arg("version").output().is_ok_and(|done| done.status.success()) {
        return skipped("openssl");
    }
    let mut cluster = Cluster::new("ciphers", 1, &[]);
    cluster.certify();
    cluster.boot_all();
    cluster.wait_begun().await;
    let (address, ca) = (cluster.http_address(0).to_string(), cluster.certificates().join("ca.crt"));
    for (flags, speaks) in [
        (&["-tls1_3"][..], true),
        (&["-tls1_2", "-cipher", "ECDHE+AESGCM"], true),
        (&["-tls1_2", "-cipher", "ECDHE+AES128+SHA:@SECLEVEL=0"], false),
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"], false),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], false),
    ] {
        let mut client = Command::new("openssl");
        client
            .args(["s_client", "-brief", "-verify_return_error", "-connect", &address, "-CAfile"])
            .arg(&ca)
            .args(flags);
        let said = run(client.stdin(Stdio::null()));
        if ["no protocols available", "no cipher match", "no ciphers available"]
            .iter()
            .any(|none| text(&said).contains(none))
        {
            skipped("an openssl that speaks what is broken");
            continue;
        }
        assert_eq!(said.status.success(), speaks, "{flags:?}: {}", text(&said));
        assert!(speaks || text(&said).contains("alert"), "the node must have declined {flags:?}: {}", text(&said));
    }
}

/// Catches a cluster that does not work with TLS, newcomers included; REST that answers without it, or to who does not
/// trust its authority; and a client command that cannot use it.
#[tokio::test]
async fn a_cluster_with_certificates_serves_those_who_trust_it() {
    let mut cluster = Cluster::new_with_newcomers("certified", 3, 1, &[]);
    cluster.certify();
    for node in 0..3 {
        cluster.boot(node);
    }
    cluster.wait_ready().await;
    let load = Load::start(&cluster, "load", 2).await;
    cluster.boot(3);
    cluster.wait_ready().await;
    load.progress(50).await;
    let ledger = load.finish().await;
    // The newcomer asks for its vote by itself, which is a command too.
    eventually("the newcomer's vote", async || {
        let view = cluster.try_get(0, "/v1/cluster").await.ok()?.json();
        (view["membership"]["acceptors"].as_array()?.len() == 4).then_some(())
    })
    .await;
    ledger.assert_kept(&cluster.assert_agreement().await);

    let (url, ca) = (cluster.url(0, ""), cluster.certificates().join("ca.crt"));
    let stranger = send(client().get(cluster.url(0, "/livez"))).await.expect_err("it trusts nobody");
    assert!(format!("{stranger:?}").contains("UnknownIssuer"), "{stranger:?}");
    let plain = format!("http://{}/livez", cluster.http_address(0));
    assert!(send(client().get(plain)).await.is_err(), "it answers without TLS");

    let with = |words: &[&str]| run(quorate().args(words).args(["--url", &url]).arg("--ca").arg(&ca));
    for words in [
        &["call", "inventory.inbound", r#"{"warehouse": "A", "amount": 5}"#][..],
        &["get", "inventory/goods/A"],
        &["status"],
        &["bench", "--clients", "1", "--seconds", "0.3", "--warmup", "0", "--setup", "inventory:1000"],
        &["health"],
    ] {
        let done = with(words);
        assert!(done.status.success(), "{words:?}: {}", text(&done));
    }
    let file = cluster.certificates().with_file_name("backup");
    let done = with(&["backup", file.to_str().expect("a plain name")]);
    assert!(done.status.success(), "{}", text(&done));
    // Of its own node it needs no authority.
    let own = run(&mut cluster.command_of(0, &["health"]));
    assert!(own.status.success(), "{}", text(&own));
    let without = run(quorate().args(["status", "--url", &url]));
    assert_eq!(without.status.code(), Some(2), "{}", text(&without));
    assert!(text(&without).contains("needs --ca FILE"), "{}", text(&without));
    let other = run(quorate().args(["status", "--url", &url]).arg("--ca").arg(cluster.certificates().join("a.crt")));
    assert_eq!(other.status.code(), Some(1), "{}", text(&other));
}

/// Catches a node that is let in without a certificate, or starts with that of another node, or with a key that
/// everybody may read.
#[tokio::test]
async fn a_node_without_its_own_certificate_is_kept_out() {
    let mut cluster = Cluster::new("kept-out", 3, &[]);
    cluster.certify();
    cluster.boot_all();
    cluster.wait_begun().await;
    let leader = cluster.leader().await;
    let (victim, others) = ((leader + 1) % 3, [leader, (leader + 2) % 3]);
    cluster.kill9(victim);

    let none = ["tls.peer_certificate=", "tls.peer_key=", "tls.peer_ca="].map(|set| ["--set", set]);
    let mut without = cluster.command(victim);
    without.args(none.concat());
    cluster.spawn(victim, without);
    let name = ["a", "b", "c"][victim];
    for node in others {
        cluster.logged(node, &["refused a connection", "does not", "tls.peer_certificate"]).await;
    }
    eventually("the leader to say that it does not reach the node", async || {
        let view = cluster.get(leader, "/v1/cluster").await.json();
        let seen = view["nodes"].as_array().expect("nodes").iter().find(|node| node["name"] == name).cloned();
        (seen.expect("it is a member")["reachable"] == false).then_some(())
    })
    .await;
    cluster.kill9(victim);

    let file =
        |end: &str| cluster.certificates().join(format!("{}{end}", ["a", "b", "c"][leader])).display().to_string();
    let mut as_another = cluster.command(victim);
    as_another.args(["--set", &format!("tls.peer_certificate={}", file(".crt"))]);
    as_another.args(["--set", &format!("tls.peer_key={}", file(".key"))]);
    let refused = run(&mut as_another);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains(&format!("this node is quorate://kept-out/{name}")), "{}", text(&refused));

    let key = cluster.certificates().join(format!("{name}.key"));
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&key, everybody).expect("changed");
    let refused = run(&mut cluster.command(victim));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("tls.http_key") && text(&refused).contains("chmod 600"), "{}", text(&refused));
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("changed");
    cluster.boot(victim);
    cluster.wait_ready().await;
}

/// RELIABILITY 6, row 4: from one authority to another while clients call, without a restart. Catches a failed call, new
/// files that do not come into force, broken ones that do, and metrics that do not say so.
#[tokio::test]
async fn certificates_are_replaced_while_the_cluster_runs() {
    let mut cluster = Cluster::new("rotated", 3, &[]);
    cluster.certify();
    let (files, new) = (cluster.certificates(), tempfile::tempdir().expect("a directory"));
    create_certificates(new.path(), "rotated", &["a", "b", "c"]);
    let old_ca = fs::read_to_string(files.join("ca.crt")).expect("an authority");
    let new_ca = fs::read_to_string(new.path().join("ca.crt")).expect("an authority");
    let both = format!("{old_ca}{new_ca}");
    cluster.trust(both.as_bytes());
    cluster.boot_all();
    cluster.wait_begun().await;
    let load = Load::start(&cluster, "load", 2).await;
    let reloads = "quorate_tls_reloads_total{use=\"peer\",outcome=\"done\"}";
    let reloaded = async |cluster: &Cluster, times: f64| {
        for node in 0..3 {
            eventually("new certificates in force", async || {
                (cluster.metric(node, reloads).await >= times).then_some(())
            })
            .await;
        }
    };
    let expiry = "quorate_tls_certificate_expiry_timestamp_seconds{certificate=\"peer\"}";
    let before = cluster.metric(0, expiry).await;
    assert!(before > 1.7e9, "{before}");

    // Both are trusted first; then the nodes show the new ones; then only the new authority is trusted.
    fs::write(files.join("ca.crt"), both).expect("written");
    reloaded(&cluster, 1.0).await;
    load.progress(20).await;
    for name in ["a", "b", "c"] {
        for end in [".key", ".crt"] {
            let (file, aside) = (format!("{name}{end}"), files.join("aside"));
            // Into its place at once, as whoever replaces files under a running process does.
            fs::copy(new.path().join(&file), &aside).expect("copied");
            fs::rename(&aside, files.join(&file)).expect("renamed");
        }
    }
    reloaded(&cluster, 2.0).await;
    fs::write(files.join("ca.crt"), &new_ca).expect("written");
    reloaded(&cluster, 3.0).await;

    // A broken file, and SIGHUP instead of waiting: nothing changes, and it is said.
    let certificate = fs::read(files.join("a.crt")).expect("a certificate");
    fs::write(files.join("a.crt"), "broken").expect("written");
    let pid = i32::try_from(cluster.pid(0)).expect("small");
    kill(Pid::from_raw(pid), Signal::SIGHUP).expect("it runs");
    cluster.logged(0, &["SIGHUP"]).await;
    cluster.logged(0, &["not usable", "tls.peer_certificate", "stay in force"]).await;
    assert_eq!(cluster.metric(0, "quorate_tls_reload_failing{use=\"peer\"}").await, 1.0);
    fs::write(files.join("a.crt"), certificate).expect("written");
    eventually("it is well again", async || {
        (cluster.metric(0, "quorate_tls_reload_failing{use=\"peer\"}").await == 0.0).then_some(())
    })
    .await;

    // New connections are made with what is in force now.
    load.progress(20).await;
    let node = cluster.follower().await;
    cluster.kill9(node);
    cluster.boot(node);
    cluster.wait_ready().await;
    load.progress(20).await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
    let reply = cluster.call(0, "inventory.inbound", &json!({"warehouse": "Z", "amount": 1})).await;
    assert_eq!(reply.status, 200);
}
