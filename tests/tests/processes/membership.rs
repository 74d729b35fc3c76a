//! Acceptors that come and go while clients call (ADR 0025).

use quorate_tests::cluster::{Cluster, Load, eventually, quorate, send};
use serde_json::{Value, json};

/// Asks for a change until nothing is in its way, and waits until all living nodes go by it.
async fn change(cluster: &Cluster, function: &str, arguments: &Value) {
    let number = eventually("a change of the membership", async || {
        let reply = cluster.call(0, function, arguments).await;
        assert!([200, 422].contains(&reply.status), "{}", reply.text());
        (reply.status == 200).then(|| reply.json()["command"].as_u64().expect("a command"))
    })
    .await;
    for node in cluster.living() {
        eventually("the membership at every node", async || {
            let view = cluster.get(node, "/v1/cluster").await.json();
            (view["membership"]["number"] == number).then_some(())
        })
        .await;
    }
}

async fn acceptors(cluster: &Cluster, node: usize) -> Vec<(u64, u64)> {
    let view = cluster.get(node, "/v1/cluster").await.json();
    let all = view["membership"]["acceptors"].as_array().expect("a list").clone();
    let number = |acceptor: &Value, field: &str| acceptor[field].as_u64().expect("a number");
    all.iter().map(|acceptor| (number(acceptor, "id"), number(acceptor, "weight"))).collect()
}

/// A1c, A11, S-16 to S-18: five acceptors, then three, then five again; then three majority sets of pairs, one pair that
/// shares no node with them, two sets of three, and weights again, one of which jumps; then that node is stopped and
/// removed, and finds out when it is back. Clients call all the time. Catches a failed call, a change that some node does not follow, two sets without a
/// common node, a restart that forgets a change, a node that is let in again after it was removed, or does not find out, and one that
/// cannot come back as it is told to.
#[tokio::test]
async fn acceptors_change_under_load() {
    let mut cluster = Cluster::start("members", 5, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    for (node, weight) in [("e", 0), ("d", 0), ("d", 1), ("e", 1)] {
        change(&cluster, "cluster.set_acceptor", &json!({"node": node, "weight": weight})).await;
        load.progress(50).await;
    }
    let rules = [
        json!([["a", "b"], ["b", "c"], ["a", "c"]]),
        json!([["d", "e"]]),
        json!([["a", "b", "c"], ["c", "d", "e"]]),
        json!([]),
    ];
    for sets in rules {
        change(&cluster, "cluster.set_rule", &json!({"majority_sets": sets})).await;
        load.progress(50).await;
    }
    let disjoint = cluster.call(0, "cluster.set_rule", &json!({"majority_sets": [["a", "b"], ["c", "d"]]})).await;
    disjoint.assert_problem(422, "two_disjoint_sets");
    assert!(disjoint.text().contains("{a, b} and {c, d}"), "{}", disjoint.text());
    change(&cluster, "cluster.set_acceptor", &json!({"node": "e", "weight": 3})).await;
    load.progress(50).await;
    assert_eq!(acceptors(&cluster, 2).await, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 3)]);
    cluster.terminate(4);
    cluster.ended(4).await;
    load.progress(50).await;
    change(&cluster, "cluster.remove", &json!({"node": "e"})).await;
    load.progress(50).await;
    let killed = cluster.leader().await;
    cluster.kill9(killed);
    load.progress(50).await;
    cluster.boot(killed);
    cluster.wait_ready().await;
    assert_eq!(acceptors(&cluster, killed).await, [(1, 1), (2, 1), (3, 1), (4, 1)], "after a restart");
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
    let url = |path: &str| cluster.url(0, path);
    let tried = send(cluster.client().delete(url("/v1/cluster/acceptors/d?dry_run=true"))).await.expect("an answer");
    assert_eq!((tried.status, &tried.json()["command"]), (200, &Value::Null), "{}", tried.text());
    let lost = json!({"node": "d", "weight": 0});
    let done = send(cluster.client().post(url("/v1/cluster/acceptors")).json(&lost)).await.expect("an answer");
    assert_eq!(done.status, 200, "{}", done.text());
    let unknown = send(cluster.client().delete(url("/v1/cluster/acceptors/9"))).await.expect("an answer");
    unknown.assert_problem(404, "unknown_node");
    let gone = cluster.call(0, "cluster.set_acceptor", &json!({"node": "e"})).await;
    gone.assert_problem(422, "unknown_node");
    cluster
        .call(0, "kv.put", &json!({"key": "quorate/membership", "value": 1}))
        .await
        .assert_problem(422, "reserved_key");
    removed_node_comes_back(&mut cluster, 4).await;
    assert_eq!(acceptors(&cluster, 4).await, [(1, 1), (2, 1), (3, 1), (6, 1)]);
}

/// S-34: one node stands still while the membership changes. Catches a change of which nobody sees that a node has not applied it,
/// or that the others go by it already; and one that is over and still shown.
#[tokio::test]
async fn a_change_says_who_has_not_applied_it() {
    let mut cluster = Cluster::start("progress", 3, &[]).await;
    for node in 0..3 {
        let view = cluster.get(node, "/v1/cluster").await.json();
        assert_eq!(view["membership"]["change"], Value::Null, "nothing has changed yet");
    }
    cluster.freeze(2);
    change(&cluster, "cluster.set_acceptor", &json!({"node": "b", "weight": 2})).await;
    let waits = json!({"in_force": true, "not_applied": [{"id": 3, "name": "c"}]});
    for node in [0, 1] {
        eventually("the change in force", async || {
            (cluster.get(node, "/v1/cluster").await.json()["membership"]["change"] == waits).then_some(())
        })
        .await;
    }
    let mut status = quorate();
    status.args(["status", "--url", &cluster.url(0, "")]);
    let output = tokio::task::spawn_blocking(move || status.output()).await.expect("no panic").expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(": in force; not applied by c\n"), "{said}");
    cluster.thaw(2);
    for node in 0..3 {
        eventually("the end of the change", async || {
            let view = cluster.get(node, "/v1/cluster").await.json();
            (view["membership"]["number"] != 0 && view["membership"]["change"] == Value::Null).then_some(())
        })
        .await;
    }
}

/// A1c: an operator says which sets decide, by the command. Catches sets that are not the ones named, a dry run that changes
/// them, a change that is not in force, and disjoint sets that are taken, or refused without their names.
#[tokio::test]
async fn an_operator_says_which_sets_decide() {
    let cluster = Cluster::start("sets", 3, &[]).await;
    let set = async |words: &[&str]| {
        let mut command = quorate();
        command.args(["majority", "set", "--url", &cluster.url(1, "")]).args(words);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    };
    let rule = async || cluster.get(1, "/v1/cluster").await.json()["rule"].clone();
    let before = rule().await;
    let (code, said) = set(&["a,b", "b,c", "--dry-run"]).await;
    assert!(code == Some(0) && said.contains("majority sets: {a, b} {b, c}\n"), "{said}");
    assert_eq!(rule().await, before, "a dry run");
    let (code, said) = set(&["a,b", "b,c"]).await;
    assert!(code == Some(0) && said.contains("majority sets: {a, b} {b, c}\nacceptors: a, b, c\n"), "{said}");
    eventually("the rule in force", async || (rule().await != before).then_some(())).await;
    let (code, said) = set(&["a,b", "c", "--wait", "5s"]).await;
    assert!(code == Some(1) && said.contains("{a, b} and {c} have no node in common"), "{said}");
    let (code, said) = set(&["--weights", "--wait", "30s"]).await;
    assert!(code == Some(0) && said.contains("majority: more than half of the weights\n"), "{said}");
    eventually("weights again", async || (rule().await == before).then_some(())).await;
}

/// Starts a listed node that was removed while it was down, and does what it says.
async fn removed_node_comes_back(cluster: &mut Cluster, node: usize) {
    cluster.boot(node);
    cluster.logged(node, &["was removed from the cluster while it did not hear it", "quorate recover --force"]).await;
    // Its REST may come up after its peers.
    let ready = eventually("an answer", async || cluster.try_get(node, "/readyz").await.ok()).await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("was removed from the cluster. Stop it."), "{}", ready.text());
    cluster.terminate(node);
    assert_eq!(cluster.ended(node).await.code(), Some(0), "it ran on");
    let recovered = cluster.command_of(node, &["recover", "--force"]).output().expect("the binary runs");
    assert!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));
    cluster.boot(node);
    cluster.wait_ready().await;
    eventually("its vote", async || acceptors(cluster, node).await.iter().any(|(id, _)| *id > 5).then_some(())).await;
}
