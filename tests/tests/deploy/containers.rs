//! The image and `compose.yaml`, with a real engine.

use std::process::Command;

use quorate_tests::cluster::eventually;

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
        for line in ["Uid:\t65532\t65532", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
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
