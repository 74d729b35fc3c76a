//! Acceptors that an operator adds and takes away, and containers that are stopped, stand still or are cut off, while
//! clients call by the gateway.

use std::process::Command;

use quorate_tests::cluster::{History, Load, eventually, send};
use serde_json::{Value, json};

use super::done;
use super::project::{Project, SERVICES};

/// Calls between two changes.
const PROGRESS: u64 = 30;

async fn started(name: &str) -> Option<(Project, Load)> {
    let project = Project::new(name)?;
    done(&mut project.compose(&["up", "--detach"]));
    project.healthy(&SERVICES).await;
    project.healthy(&["gateway"]).await;
    let load = Load::through(&project.client, project.url("gateway", ""), "load", 4).await;
    load.progress(PROGRESS).await;
    Some((project, load))
}

/// Checks that nothing acknowledged is lost or doubled, and that the members agree.
async fn assert_kept(project: &Project, load: Load) {
    let ledger = load.finish().await;
    let history = History::read(&project.client, &project.url("a", "")).await;
    ledger.assert_kept(&history);
    project.assert_equal(&SERVICES, history.last()).await;
}

/// Waits until so many acceptors vote, by the view of `a`.
async fn acceptors(project: &Project, wanted: usize) {
    eventually(&format!("{wanted} acceptors"), async || {
        let view = project.view("a").await;
        let acceptors = view["membership"]["acceptors"].as_array().expect("a list");
        (acceptors.len() == wanted).then_some(())
    })
    .await;
}

/// Asks `a` for a change until nothing is in its way.
async fn vote(project: &Project, node: &str, weight: u64) {
    eventually("a change of the acceptors", async || {
        let url = project.url("a", "/v1/cluster/acceptors");
        let asked = project.client.post(url).json(&json!({"node": node, "weight": weight}));
        let reply = send(asked).await.expect("it answers");
        assert!([200, 409].contains(&reply.status), "{}", reply.text());
        (reply.status == 200).then_some(())
    })
    .await;
}

/// A11, S-16, S-17: catches a call that fails because acceptors come or go, an acceptor that compose starts and that gets
/// no vote, one that keeps its vote when it is stopped, and a vote that is lost with the change.
#[tokio::test]
async fn acceptors_are_scaled_from_three_to_five_to_one_and_back_under_load() {
    let Some((project, load)) = started("quorate-scale").await else { return };
    for (scale, wanted) in [("acceptor=2", 5), ("acceptor=0", 3)] {
        done(&mut project.compose(&["up", "--detach", "--no-recreate", "--scale", scale]));
        acceptors(&project, wanted).await;
        load.progress(PROGRESS).await;
    }
    for (node, weight, wanted) in [("c", 0, 2), ("b", 0, 1), ("b", 1, 2), ("c", 1, 3)] {
        vote(&project, node, weight).await;
        acceptors(&project, wanted).await;
        load.progress(PROGRESS).await;
    }
    assert_kept(&project, load).await;
}

/// The address of a service in the network of peers.
fn peer_address(project: &Project, service: &str) -> String {
    let networks = &project.inspect(service)["NetworkSettings"]["Networks"];
    let address = networks[format!("{}_peers", project.name)]["IPAddress"].as_str();
    address.expect("it is in the network of peers").to_owned()
}

/// Drops, or does not drop any more, what comes to a container from another one: one direction of one link.
fn drops(project: &Project, to: &str, from: &str, is_dropped: bool) {
    let pid = project.inspect(to)["State"]["Pid"].to_string();
    let what = if is_dropped { "-A" } else { "-D" };
    let from = peer_address(project, from);
    let rule = ["-t", &pid, "-n", "iptables", what, "INPUT", "-s", &from, "-p", "tcp", "--dport", "7080", "-j", "DROP"];
    done(Command::new("nsenter").args(rule));
}

async fn another_leader(project: &Project, than: &str) {
    let asked = SERVICES.into_iter().find(|service| *service != than).expect("three services");
    eventually("another leader", async || (project.leader(asked).await != than).then_some(())).await;
}

fn readiness(project: &Project, service: &str) -> std::process::Output {
    project.exec(service, &["/quorate", "health"])
}

fn is_reachable(view: &Value, node: &str) -> bool {
    let nodes = view["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|seen| seen["name"] == node).expect("a member");
    node["reachable"] == true
}

/// A4, S-20, S-28: the leader's container stands still, is cut off from its peers, and from one of them in one direction.
/// Catches a gateway that keeps asking it, a cluster that waits for it, one that calls itself ready without a majority or
/// calls a silent one reachable, and an acknowledged call that the others never heard of.
#[tokio::test]
async fn a_leaders_container_that_stands_still_or_is_cut_off_is_replaced() {
    let Some((project, load)) = started("quorate-cut").await else { return };
    let leader = project.leader("a").await;
    let container = project.container(&leader);
    done(Command::new("docker").args(["pause", &container]));
    another_leader(&project, &leader).await;
    load.progress(PROGRESS).await;
    done(Command::new("docker").args(["unpause", &container]));
    project.healthy(&SERVICES).await;

    let leader = project.leader("a").await;
    let container = project.container(&leader);
    let network = format!("{}_peers", project.name);
    done(Command::new("docker").args(["network", "disconnect", &network, &container]));
    another_leader(&project, &leader).await;
    load.progress(PROGRESS).await;
    eventually("a cut off node that is not ready", async || {
        (!readiness(&project, &leader).status.success()).then_some(())
    })
    .await;
    let other = SERVICES.into_iter().find(|service| **service != leader).expect("three services");
    eventually("a view without it", async || (!is_reachable(&project.view(other).await, &leader)).then_some(())).await;
    let alias = format!("{leader}.peers");
    done(Command::new("docker").args(["network", "connect", "--alias", &alias, &network, &container]));
    eventually("a node that is back", async || readiness(&project, &leader).status.success().then_some(())).await;
    load.progress(PROGRESS).await;

    let leader = project.leader("a").await;
    let peer = SERVICES.into_iter().find(|service| **service != leader).expect("three services");
    drops(&project, &leader, peer, true);
    load.progress(PROGRESS).await;
    drops(&project, &leader, peer, false);
    project.healthy(&SERVICES).await;
    assert_kept(&project, load).await;
}
