//! Acceptors that an operator adds and takes away, and containers that are stopped, stand still or are cut off, while
//! clients call by the gateway.

use std::process::Command;
use std::time::{Duration, Instant};

use quorate_tests::cluster::{History, Load, eventually, send};
use serde_json::{Value, json};

use super::done;
use super::project::{Project, SERVICES, inspect};

/// Calls between two changes.
const PROGRESS: u64 = 30;

async fn started(name: &str, settings: &[(&'static str, &'static str)], scales: &[&str]) -> Option<(Project, Load)> {
    let mut project = Project::new(name)?;
    project.settings = settings.to_vec();
    let scales = scales.iter().flat_map(|scale| ["--scale", *scale]);
    done(&mut project.compose(&["up", "--detach"].into_iter().chain(scales).collect::<Vec<_>>()));
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

/// Waits until so many acceptors vote, by the view of `a`, and says who they are.
async fn acceptors(project: &Project, wanted: usize) -> Vec<String> {
    eventually(&format!("{wanted} acceptors"), async || {
        let view = project.view("a").await;
        let acceptors = view["membership"]["acceptors"].as_array().expect("a list");
        let votes = |node: &&Value| acceptors.iter().any(|acceptor| acceptor["id"] == node["id"]);
        let nodes = view["nodes"].as_array().expect("a list").iter();
        let names = nodes.filter(votes).map(|node| node["name"].as_str().expect("a name").to_owned());
        (acceptors.len() == wanted).then(|| names.collect())
    })
    .await
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
    let Some((project, load)) = started("quorate-scale", &[], &[]).await else { return };
    for (scale, wanted) in
        [("acceptor=2", 5), ("acceptor=0", 3), ("acceptor=5", 8), ("acceptor=3", 6), ("acceptor=0", 3)]
    {
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

/// A1c, A11: catches a dead acceptor whose place no spare takes, one that takes it without being told to, or the wrong one, and
/// a call that fails meanwhile.
#[tokio::test]
async fn a_spare_takes_the_place_of_an_acceptor_that_is_killed() {
    let settings = [("REPLACE_AFTER", "5s")];
    let started = started("quorate-spare", &settings, &["acceptor=1", "spare=1"]).await;
    let Some((project, load)) = started else { return };
    // A container without a name of its own has the beginning of its id.
    let id = |service: &str| project.container(service)[..12].to_owned();
    let (acceptor, spare) = (id("acceptor"), id("spare"));
    let voting = acceptors(&project, 4).await;
    assert!(voting.contains(&acceptor) && !voting.contains(&spare), "{voting:?} of {acceptor}, {spare}");
    load.progress(PROGRESS).await;
    done(Command::new("docker").args(["kill", "--signal", "KILL", &project.container("acceptor")]));
    eventually("the spare votes", async || acceptors(&project, 4).await.contains(&spare).then_some(())).await;
    assert!(!acceptors(&project, 4).await.contains(&acceptor));
    load.progress(PROGRESS).await;
    assert_kept(&project, load).await;
}

/// The address of a container in the network of peers.
fn peer_address(project: &Project, container: &str) -> String {
    let networks = &inspect(container)["NetworkSettings"]["Networks"];
    let address = networks[format!("{}_peers", project.name)]["IPAddress"].as_str();
    address.expect("it is in the network of peers").to_owned()
}

/// Drops, or does not drop any more, what comes to a container from another one: one direction of one link.
fn drops(project: &Project, to: &str, from: &str, is_dropped: bool) {
    let pid = inspect(to)["State"]["Pid"].to_string();
    let what = if is_dropped { "-A" } else { "-D" };
    let from = peer_address(project, from);
    // Who sends has connected: what comes to this port is what it says, and not that it has heard.
    let rule = ["-t", &pid, "-n", "iptables", what, "INPUT", "-s", &from, "-p", "tcp", "--dport", "7080", "-j", "DROP"];
    done(Command::new("nsenter").args(rule));
}

async fn another_leader(project: &Project, than: &str) {
    let asked = other(than);
    eventually("another leader", async || (project.leader(asked).await != than).then_some(())).await;
}

fn other(than: &str) -> &'static str {
    SERVICES.into_iter().find(|service| *service != than).expect("three services")
}

fn readiness(project: &Project, service: &str) -> std::process::Output {
    project.exec(service, &["/quorate", "health"])
}

fn is_reachable(view: &Value, node: &str) -> bool {
    let nodes = view["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|seen| seen["name"] == node).expect("a member");
    node["reachable"] == true
}

/// Waits until a metric of a service has this value.
async fn metric(project: &Project, service: &str, name: &str, wanted: f64) {
    eventually(&format!("{name} of {service} is {wanted}"), async || {
        let reply = send(project.client.get(project.url(service, "/metrics"))).await.ok()?;
        let text = reply.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        (line == Some(wanted)).then_some(())
    })
    .await;
}

/// Waits until the others do not hear this one, and say so.
async fn unheard(project: &Project, service: &str, leads: bool) {
    let other = other(service);
    if leads {
        another_leader(project, service).await;
    }
    eventually("a view without it", async || (!is_reachable(&project.view(other).await, service)).then_some(())).await;
    metric(project, other, "quorate_members_unheard", 1.0).await;
    metric(project, other, "quorate_ready", 1.0).await;
}

async fn stands_still(project: &Project, load: &Load, service: &str, leads: bool) {
    let container = project.container(service);
    done(Command::new("docker").args(["pause", &container]));
    unheard(project, service, leads).await;
    load.progress(PROGRESS).await;
    done(Command::new("docker").args(["unpause", &container]));
    project.healthy(&SERVICES).await;
    metric(project, other(service), "quorate_members_unheard", 0.0).await;
}

/// Out of the network of peers, and into it again; the leader's with another address.
async fn is_cut_off(project: &Project, load: &Load, service: &str, leads: bool) {
    let container = project.container(service);
    let before = peer_address(project, &container);
    let (network, gateway) = (format!("{}_peers", project.name), project.container("gateway"));
    done(Command::new("docker").args(["network", "disconnect", &network, &container]));
    unheard(project, service, leads).await;
    load.progress(PROGRESS).await;
    eventually("a cut off node that is not ready", async || {
        (!readiness(project, service).status.success()).then_some(())
    })
    .await;
    metric(project, service, "quorate_ready", 0.0).await;
    metric(project, service, "quorate_leader_leads", 0.0).await;
    if leads {
        // The first address that is free goes to somebody else.
        done(Command::new("docker").args(["network", "connect", &network, &gateway]));
    }
    let alias = format!("{service}.peers");
    done(Command::new("docker").args(["network", "connect", "--alias", &alias, &network, &container]));
    if leads {
        assert_ne!(peer_address(project, &container), before, "it should have another address now");
    }
    eventually("a node that is back", async || readiness(project, service).status.success().then_some(())).await;
    metric(project, other(service), "quorate_members_unheard", 0.0).await;
    load.progress(PROGRESS).await;
}

/// A4, S-20, S-28: the leader's container, and that of another node, stands still, is cut off from its peers and comes back under
/// another address; and the leader is cut off from one peer, in one direction and in both. Catches a gateway that keeps asking
/// it, a cluster that waits for it, one that calls itself ready without a majority or calls a silent one reachable, an address
/// that is looked up once and for ever, and an acknowledged call that the others never heard of.
#[tokio::test]
async fn containers_that_stand_still_or_are_cut_off_are_done_without() {
    let Some((project, load)) = started("quorate-cut", &[], &[]).await else { return };
    for leads in [true, false] {
        let node = async || {
            let leader = project.leader("a").await;
            if leads { leader } else { other(&leader).to_owned() }
        };
        stands_still(&project, &load, &node().await, leads).await;
        is_cut_off(&project, &load, &node().await, leads).await;
    }

    let leader = project.leader("a").await;
    let [leader, peer] = [leader.as_str(), other(&leader)].map(|service| project.container(service));
    drops(&project, &leader, &peer, true);
    load.progress(PROGRESS).await;
    drops(&project, &peer, &leader, true);
    load.progress(PROGRESS).await;
    drops(&project, &leader, &peer, false);
    drops(&project, &peer, &leader, false);
    project.healthy(&SERVICES).await;
    assert_kept(&project, load).await;
}

/// A shape of a partition: which of two hears the other, in the places 0 (who led before), 1, 2 (who may lead) and 3, 4; and who is
/// called.
type Shape = (&'static str, fn(usize, usize) -> bool, usize);

const SHAPES: [Shape; 4] = [
    ("quorum loss: all reach only one, and the leader lives", |from, to| from == 1 || to == 1, 1),
    ("constrained: and the leader is cut off", |from, to| from != 0 && to != 0 && (from == 1 || to == 1), 1),
    ("a chain", |from, to| from.abs_diff(to) == 1, 2),
    ("a leader that nobody hears", |from, _| from != 0, 1),
];
/// Four times `detector.timeout_max`, as by default.
const SOON: Duration = Duration::from_secs(8);
/// How long a shape lasts once calls pass again.
const LASTS: Duration = Duration::from_secs(6);

/// Waits until all who may lead name the same leader, and reach everybody.
async fn meet(project: &Project) -> String {
    eventually("one leader whom all know, and links between all", async || {
        let mut leaders = Vec::new();
        for service in SERVICES {
            let view = project.view(service).await;
            let nodes = view["nodes"].as_array().expect("a list");
            let reaches_all = nodes.iter().all(|node| node["reachable"] == true);
            leaders.push(view["leader"]["name"].as_str().filter(|_| reaches_all)?.to_owned());
        }
        leaders.iter().all(|leader| *leader == leaders[0]).then(|| leaders[0].clone())
    })
    .await
}

/// S-28, RELIABILITY 2: the kernel drops packets between network namespaces, and connections stand for as long as it likes. Catches a
/// cluster of five that finds no leader though a majority set is connected, needs more than four election timeouts for it, or
/// whose lead wanders.
#[tokio::test]
async fn containers_that_partly_reach_each_other_go_on() {
    let Some(project) = Project::new("quorate-partial") else { return };
    done(&mut project.compose(&["up", "--detach", "--scale", "acceptor=2", "a", "b", "c", "acceptor"]));
    project.healthy(&SERVICES).await;
    acceptors(&project, 5).await;
    let mut last = 0;
    for (shape, (name, hears, asked)) in SHAPES.into_iter().enumerate() {
        let leader = meet(&project).await;
        let at = SERVICES.iter().position(|service| *service == leader).expect("a service");
        let mut services = SERVICES;
        services.rotate_left(at);
        let nodes: Vec<String> = services.map(|service| project.container(service)).to_vec();
        let nodes = [nodes, project.containers("acceptor")].concat();
        let pairs = (0..nodes.len()).flat_map(|from| (0..nodes.len()).map(move |to| (from, to)));
        let cut: Vec<_> = pairs.filter(|(from, to)| from != to && !hears(*from, *to)).collect();
        let set = |is_dropped| {
            cut.iter().for_each(|(from, to)| drops(&project, &nodes[*to], &nodes[*from], is_dropped));
        };
        set(true);
        let begun = Instant::now();
        project.put(services[asked], &format!("partial-{shape}")).await;
        let took = begun.elapsed();
        assert!(took < SOON, "{name}: the first call took {took:?}");
        // Whoever took the lead. That a node doubts its leader, and hears it again, on a machine that stood still for a moment, is
        // no change.
        let changes = async || {
            let mut sum = 0.0;
            for service in SERVICES {
                let reply = send(project.client.get(project.url(service, "/metrics"))).await.expect("it answers");
                let text = reply.text();
                let value = text.lines().find_map(|line| line.strip_prefix("quorate_leader_elections_won_total "));
                sum += value.expect("a metric").parse::<f64>().expect("a number");
            }
            sum
        };
        let (before, begun) = (changes().await, Instant::now());
        for call in 0.. {
            last = project.put(services[asked], &format!("partial-{shape}-{call}")).await;
            if begun.elapsed() >= LASTS {
                break;
            }
        }
        // One may still be under way to the node that leads in the end.
        let changed = changes().await - before;
        assert!(changed <= 2.0, "{name}: the leader changed {changed} times in {LASTS:?}");
        set(false);
    }
    meet(&project).await;
    project.assert_equal(&SERVICES, last).await;
}
