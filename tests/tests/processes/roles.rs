//! Nodes that have some of the roles only (DESIGN 2, ADR 0044): what is left to others goes on there.

use quorate_tests::cluster::{Cluster, Gateway, Load, Reply, eventually, send};
use serde_json::{Value, json};

/// Starts a node with these roles and waits until it is ready. Nobody counts on it to take calls.
async fn boot_as(cluster: &mut Cluster, node: usize, roles: &str) {
    let mut command = cluster.command(node);
    command.arg("--set").arg(format!("node.roles={roles}"));
    cluster.spawn(node, command);
    ready(cluster, node).await;
}

async fn ready(cluster: &Cluster, node: usize) {
    eventually("a ready node", async || (cluster.try_get(node, "/readyz").await.ok()?.status == 200).then_some(()))
        .await;
}

/// What node 1 says of a node.
async fn seen(cluster: &Cluster, name: &str) -> Value {
    let view = cluster.get(1, "/v1/cluster").await.json();
    let nodes = view["nodes"].as_array().expect("a list");
    nodes.iter().find(|node| node["name"] == name).cloned().unwrap_or_default()
}

async fn hand_over(cluster: &Cluster, to: &str) {
    let reply = eventually("a lead that is handed over", async || {
        let asked = cluster.client().post(cluster.url(1, "/v1/cluster/leader")).json(&json!({"node": to}));
        let reply = send(asked).await.expect("a living node answers");
        // It is not noted yet, or a change of the membership is under way.
        assert!([200, 409, 504].contains(&reply.status), "{}", reply.text());
        (reply.status == 200).then_some(reply)
    })
    .await;
    assert_eq!(reply.json()["result"]["leads"], true, "{}", reply.text());
}

fn assert_no_gateway(reply: &Reply) {
    reply.assert_problem(421, "not_a_gateway");
    assert!(reply.text().contains("node.roles"), "{}", reply.text());
}

/// S-16: beside three nodes of all roles one that only votes, one that only learns, and one that only leads, under load. Catches
/// a role that another one needs on the same node, a call that fails because a node has not all roles, a vote of an acceptor
/// without the rest that does not count, a lead that cannot be handed to who does not vote, roles that are told wrongly, and
/// callers who are left to guess; and a gateway without data that asks nodes which are none.
#[tokio::test]
async fn nodes_have_some_of_the_roles() {
    let mut cluster = Cluster::start_with_newcomers("roles", 3, 3, &[]).await;
    // It is told of one that will be no gateway.
    let gateway = Gateway::start(&cluster, &[0, 3]).await;
    let load = Load::through(cluster.client(), gateway.url(""), "load", 4).await;
    for (node, roles) in [(3, "acceptor"), (4, "learner"), (5, "leader")] {
        boot_as(&mut cluster, node, roles).await;
        load.progress(20).await;
    }
    for (name, roles) in [
        ("a", json!(["acceptor", "learner", "leader", "gateway"])),
        ("d", json!(["acceptor", "learner"])),
        ("e", json!(["learner"])),
        ("f", json!(["learner", "leader"])),
    ] {
        let node = eventually("the roles of all", async || {
            let node = seen(&cluster, name).await;
            (node["roles"] == roles).then_some(node)
        })
        .await;
        assert_eq!(node["addresses"]["http"] == "", name != "a", "{node}");
    }
    for node in 3..6 {
        assert_no_gateway(&cluster.get(node, "/v1/state/k").await);
        assert_no_gateway(&cluster.get(node, "/").await);
        assert_no_gateway(&cluster.call(node, "kv.put", &json!({"key": "k", "value": 1})).await);
        let again = cluster.call_once(node, "k", "kv.put", &json!({"key": "k", "value": 1})).await;
        assert_eq!((again.status, &again.json()["outcome"]), (421, &json!("unknown")), "another node may have had it");
        for path in ["/livez", "/healthz"] {
            assert_eq!(cluster.get(node, path).await.status, 200);
        }
        assert!(cluster.metric(node, "quorate_learner_applied").await > 0.0);
    }

    hand_over(&cluster, "f").await;
    load.progress(50).await;
    // A leader without an acceptor needs the vote of the node that has nothing else.
    cluster.kill9(0);
    load.progress(50).await;
    gateway.logged(&["WARN", "without the role gateway"]).await;
    let members = gateway.get("/readyz?verbose").await.text();
    for node in [4, 5] {
        assert!(!members.contains(&cluster.http_address(node).to_string()), "{members}");
    }
    assert_eq!(cluster.get(1, "/v1/cluster").await.json()["leader"]["name"], "f", "it leads without a vote");
    cluster.boot(0);
    ready(&cluster, 0).await;

    for node in [5, 4, 3] {
        cluster.terminate(node);
        assert_eq!(cluster.ended(node).await.code(), Some(0));
        cluster.logged(node, &["this node has left the cluster"]).await;
        load.progress(20).await;
    }
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}
