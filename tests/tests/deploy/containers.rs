//! The image and `compose.yaml`, with a real engine.

use std::process::Command;

use quorate_tests::cluster::{History, Load, eventually};

use super::done;
use super::project::{Project, SERVICES};

/// What a container may do, as the kernel sees its process.
fn assert_confined(project: &Project, service: &str) {
    let container = project.inspect(service);
    assert_eq!(container["Config"]["User"], "65532:65532");
    assert_eq!(container["HostConfig"]["ReadonlyRootfs"], true);
    assert_eq!(container["HostConfig"]["Memory"], 1 << 30);
    assert!(container["NetworkSettings"]["Ports"]["7080/tcp"].is_null(), "peers are not published");
    let status = std::fs::read_to_string(format!("/proc/{}/status", container["State"]["Pid"])).unwrap_or_default();
    // Where the engine runs elsewhere, there is no such process here.
    if !status.is_empty() {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", container["State"]["Pid"])).expect("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("one of them");
        assert!(
            core.split_whitespace().rev().skip(1).take(2).all(|limit| limit == "0"),
            "secrets may get to a disk: {core}"
        );
        let none = "0000000000000000";
        let capabilities = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t{none}"));
        let others = ["Uid:\t65532\t65532", "NoNewPrivs:\t1", "Seccomp:\t2"].map(str::to_owned);
        for line in capabilities.iter().chain(&others) {
            assert!(status.contains(line), "{line} is not in {status}");
        }
    }
    assert!(!project.exec(service, &["/bin/sh", "-c", "true"]).status.success(), "there is a shell");
    let backup = |file: &str| project.exec(service, &["/quorate", "backup", file]);
    let outside = backup("/outside.quorate");
    assert!(!outside.status.success(), "the root can be written: {outside:?}");
    let inside = backup("/data/inside.quorate");
    assert!(inside.status.success(), "/data cannot be written: {inside:?}");
}

/// Containers as users run them: catches an image that does not start, cannot look up names or write its volume, may do
/// more than it must, calls itself healthy wrongly, loses calls with a container, or does not stop when asked.
#[tokio::test]
async fn three_containers_stand_the_loss_of_the_leader() {
    let Some(project) = Project::new("quorate-test") else { return };
    done(&mut project.compose(&["up", "--detach"]));
    project.healthy(&SERVICES).await;
    project.put("a", "first").await;
    project.healthy(&["gateway"]).await;
    project.put("gateway", "through").await;
    assert_confined(&project, "b");

    let leader = project.leader("a").await;
    let others: Vec<&str> = SERVICES.into_iter().filter(|service| *service != leader).collect();
    done(Command::new("docker").args(["kill", "--signal", "KILL", &project.container(&leader)]));
    project.put(others[0], "second").await;
    project.put("gateway", "through-again").await;
    let next = async || (project.leader(others[1]).await != leader).then_some(());
    eventually("another leader", next).await;
    done(&mut project.compose(&["start", &leader]));
    let last = project.put(&leader, "third").await;
    project.healthy(&SERVICES).await;

    project.assert_equal(&SERVICES, last).await;

    done(&mut project.compose(&["stop"]));
    for service in SERVICES {
        assert_eq!(project.inspect(service)["State"]["ExitCode"], 0, "{service} did not stop as asked");
    }
}

/// As docs/operations.md says, under load. Catches a container whose volume is lost and that `recover` does not bring back, an
/// upgrade that loses calls, and a container that does not stop in time for either.
#[tokio::test]
async fn containers_are_recovered_and_upgraded_one_by_one() {
    let Some(project) = Project::new("quorate-renew") else { return };
    done(&mut project.compose(&["up", "--detach"]));
    project.healthy(&SERVICES).await;
    project.healthy(&["gateway"]).await;
    let load = Load::through(&project.client, project.url("gateway", ""), "load", 4).await;
    load.progress(30).await;

    done(&mut project.compose(&["rm", "-fsv", "c"]));
    done(Command::new("docker").args(["volume", "rm", &format!("{}_c", project.name)]));
    let begun = project.compose(&["run", "--rm", "--no-deps", "c"]).output().expect("compose runs");
    assert!(!begun.status.success(), "it must not begin as if it had never been: {begun:?}");
    let recovered = done(&mut project.compose(&["run", "--rm", "--no-deps", "c", "recover"]));
    assert!(recovered.contains("joins its cluster as a new one"), "{recovered}");
    for service in ["c", "b", "a"] {
        done(&mut project.compose(&["up", "--detach", "--no-deps", "--force-recreate", service]));
        project.healthy(&[service]).await;
        load.progress(30).await;
    }
    eventually("three acceptors", async || {
        let view = project.view("a").await;
        (view["membership"]["acceptors"].as_array()?.len() == 3).then_some(())
    })
    .await;
    let ledger = load.finish().await;
    let history = History::read(&project.client, &project.url("a", "")).await;
    ledger.assert_kept(&history);
    project.assert_equal(&SERVICES, history.last()).await;
}
