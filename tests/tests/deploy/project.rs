//! A project of compose: the containers that the tests of `deploy/compose.yaml` start.

use std::process::Command;

use quorate_tests::cluster::{client, eventually, send};
use quorate_tests::skip::skipped;
use serde_json::{Value, json};

use super::watching::Image;
use super::{deploy, done};

/// A project of compose, which goes away with the test.
pub(crate) struct Project {
    pub(crate) name: String,
    image: String,
    compose: &'static [&'static str],
    /// The image of Prometheus, where it is started, too; it goes away after its containers.
    prometheus: Option<Image>,
    /// What else compose is told.
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    pub(crate) client: reqwest::Client,
}

/// The members that `compose.yaml` names.
pub(crate) const SERVICES: [&str; 3] = ["a", "b", "c"];

impl Project {
    /// `None` where there is no engine, no compose or no image.
    pub(crate) fn new(name: &str) -> Option<Self> {
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
        let name = format!("{name}-{}", std::process::id());
        Some(Self { name, image, compose, prometheus: None, settings: Vec::new(), client: client() })
    }

    /// The services of the profile `watch` are there from now on.
    pub(crate) fn watch(&mut self, prometheus: Image) {
        self.prometheus = Some(prometheus);
    }

    pub(crate) fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]).args(["-p", &self.name, "-f"]).arg(deploy("compose.yaml")).args(arguments);
        // Ports that the engine chooses.
        command.env("NODE_IMAGE", &self.image).envs([
            ("REST_A", "0"),
            ("REST_B", "0"),
            ("REST_C", "0"),
            ("REST_GATEWAY", "0"),
            ("WATCH_PROMETHEUS", "0"),
            ("WATCH_GRAFANA", "0"),
        ]);
        command.envs(self.settings.iter().copied());
        if let Some(prometheus) = &self.prometheus {
            command.env("COMPOSE_PROFILES", "watch").env("PROMETHEUS_IMAGE", &prometheus.0);
        }
        command
    }

    pub(crate) fn container(&self, service: &str) -> String {
        done(&mut self.compose(&["ps", "--all", "-q", service]))
    }

    /// All containers of a service that is scaled.
    pub(crate) fn containers(&self, service: &str) -> Vec<String> {
        self.container(service).lines().map(str::to_owned).collect()
    }

    pub(crate) fn inspect(&self, service: &str) -> Value {
        inspect(&self.container(service))
    }

    /// Where REST of a service is published; another port after each start.
    pub(crate) fn url(&self, service: &str, path: &str) -> String {
        format!("http://{}{path}", done(&mut self.compose(&["port", service, "8080"])))
    }

    pub(crate) async fn healthy(&self, services: &[&str]) {
        for service in services {
            eventually(&format!("a healthy {service}"), async || {
                (self.inspect(service)["State"]["Health"]["Status"] == "healthy").then_some(())
            })
            .await;
        }
    }

    /// Calls until it is executed, as a caller does who has given a key.
    pub(crate) async fn put(&self, service: &str, key: &str) -> u64 {
        let url = self.url(service, "/v1/functions/kv.put");
        eventually(&format!("the outcome of {key}"), async || {
            let arguments = json!({"key": key, "value": 1});
            let reply = send(self.client.post(&url).header("Idempotency-Key", key).json(&arguments)).await.ok()?;
            (reply.status == 200).then(|| reply.json()["command"].as_u64().expect("a command"))
        })
        .await
    }

    pub(crate) async fn leader(&self, asked: &str) -> String {
        eventually("a leader", async || {
            let reply = send(self.client.get(self.url(asked, "/v1/cluster"))).await.ok()?;
            reply.json()["leader"]["name"].as_str().map(ToOwned::to_owned)
        })
        .await
    }

    /// The cluster as a service sees it.
    pub(crate) async fn view(&self, asked: &str) -> Value {
        eventually("a view of the cluster", async || {
            let reply = send(self.client.get(self.url(asked, "/v1/cluster"))).await.ok()?;
            (reply.status == 200).then(|| reply.json())
        })
        .await
    }

    /// Checks that the states of these services are the same at `number`.
    pub(crate) async fn assert_equal(&self, services: &[&str], number: u64) {
        let mut digests = Vec::new();
        for service in services {
            let url = self.url(service, &format!("/v1/digest?at={number}"));
            let reply = send(self.client.get(url).header("Prefer", "wait=10")).await.expect("it answers");
            assert_eq!(reply.status, 200, "{service}: {reply:?}");
            digests.push(reply.json()["digest"].clone());
        }
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
    }

    /// Runs the binary in a container.
    pub(crate) fn exec(&self, service: &str, words: &[&str]) -> std::process::Output {
        Command::new("docker").arg("exec").arg(self.container(service)).args(words).output().expect("docker runs")
    }
}

/// What the engine says of a container.
pub(crate) fn inspect(container: &str) -> Value {
    let said = done(Command::new("docker").args(["inspect", container]));
    serde_json::from_str::<Value>(&said).expect("JSON")[0].clone()
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
