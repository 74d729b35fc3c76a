//! The image and `compose.yaml`, with a real engine.

use std::process::Command;

use quorate_tests::cluster::{client, eventually, send};
use quorate_tests::skip::skipped;
use serde_json::{Value, json};

use super::{deploy, done};

/// A project of compose, which goes away with the test.
struct Project {
    name: String,
    image: String,
    compose: &'static [&'static str],
    client: reqwest::Client,
}

const SERVICES: [&str; 3] = ["a", "b", "c"];

impl Project {
    /// `None` where there is no engine, no compose or no image.
    fn new(name: &str) -> Option<Self> {
        let Ok(image) = std::env::var("NODE_IMAGE") else {
            skipped("Docker Engine, and NODE_IMAGE as `cargo xtask test` sets it");
            return None;
        };
        let ways: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let is_there = |way: &&[&str]| {
            let asked = Command::new(way[0]).args(&way[1..]).arg("version").output();
            asked.is_ok_and(|done| done.status.success())
        };
        let Some(compose) = ways.into_iter().find(is_there) else {
            skipped("docker compose or docker-compose");
            return None;
        };
        Some(Self { name: format!("{name}-{}", std::process::id()), image, compose, client: client() })
    }

    fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]).args(["-p", &self.name, "-f"]).arg(deploy("compose.yaml")).args(arguments);
        // Ports that the engine chooses.
        command.env("NODE_IMAGE", &self.image).envs([
            ("REST_A", "0"),
            ("REST_B", "0"),
            ("REST_C", "0"),
            ("REST_GATEWAY", "0"),
        ]);
        command
    }

    fn container(&self, service: &str) -> String {
        done(&mut self.compose(&["ps", "--all", "-q", service]))
    }

    fn inspect(&self, service: &str) -> Value {
        let said = done(Command::new("docker").args(["inspect", &self.container(service)]));
        serde_json::from_str::<Value>(&said).expect("JSON")[0].clone()
    }

    /// Where REST of a service is published; another port after each start.
    fn url(&self, service: &str, path: &str) -> String {
        format!("http://{}{path}", done(&mut self.compose(&["port", service, "8080"])))
    }

    async fn healthy(&self, services: &[&str]) {
        for service in services {
            eventually(&format!("a healthy {service}"), async || {
                (self.inspect(service)["State"]["Health"]["Status"] == "healthy").then_some(())
            })
            .await;
        }
    }

    /// Calls until it is executed, as a caller does who has given a key.
    async fn put(&self, service: &str, key: &str) -> u64 {
        let url = self.url(service, "/v1/functions/kv.put");
        eventually(&format!("the outcome of {key}"), async || {
            let arguments = json!({"key": key, "value": 1});
            let reply = send(self.client.post(&url).header("Idempotency-Key", key).json(&arguments)).await.ok()?;
            (reply.status == 200).then(|| reply.json()["command"].as_u64().expect("a command"))
        })
        .await
    }

    async fn leader(&self, asked: &str) -> String {
        eventually("a leader", async || {
            let reply = send(self.client.get(self.url(asked, "/v1/cluster"))).await.ok()?;
            reply.json()["leader"]["name"].as_str().map(ToOwned::to_owned)
        })
        .await
    }

    /// Runs the binary in a container.
    fn exec(&self, service: &str, words: &[&str]) -> std::process::Output {
        Command::new("docker").arg("exec").arg(self.container(service)).args(words).output().expect("docker runs")
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose(&["logs", "--tail", "40"]).output();
            eprintln!("{}", logs.map(|logs| String::from_utf8_lossy(&logs.stdout).into_owned()).unwrap_or_default());
        }
        let down = self.compose(&["down", "--volumes", "--timeout", "1"]).output();
        if !std::thread::panicking() {
            assert!(down.expect("compose runs").status.success(), "the project stays behind");
        }
    }
}

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

    let mut digests = Vec::new();
    for service in SERVICES {
        let url = project.url(service, &format!("/v1/digest?at={last}"));
        let reply = send(project.client.get(url).header("Prefer", "wait=10")).await.expect("it answers");
        assert_eq!(reply.status, 200, "{reply:?}");
        digests.push(reply.json()["digest"].clone());
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");

    done(&mut project.compose(&["stop"]));
    for service in SERVICES {
        assert_eq!(project.inspect(service)["State"]["ExitCode"], 0, "{service} did not stop as asked");
    }
}
