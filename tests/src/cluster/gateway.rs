//! Nodes that are only gateways, as processes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Cluster, Port, Reply, eventually, quorate, send};

/// A gateway in front of members of a cluster, in a directory of its own that it must leave empty. It ends with this.
pub struct Gateway {
    process: Child,
    port: Port,
    directory: TempDir,
    /// Beside that directory, which must stay empty.
    log: tempfile::NamedTempFile,
    client: reqwest::Client,
    scheme: &'static str,
}

impl Gateway {
    /// One that is told of these members, and ready.
    pub async fn start(cluster: &Cluster, members: &[usize]) -> Self {
        let gateway = Self::boot(cluster, members, &[]);
        gateway.ready().await;
        gateway
    }

    /// One with more settings; does not wait for it.
    #[must_use]
    pub fn boot(cluster: &Cluster, members: &[usize], settings: &[String]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = Port::reserve();
        let members: Vec<String> = members.iter().map(|node| cluster.http_address(*node).to_string()).collect();
        let mut command = quorate();
        command.arg("serve").arg("--stop-with-parent").current_dir(directory.path()).stdin(Stdio::piped());
        let own = [
            "node.name=front".to_owned(),
            "node.roles=gateway".to_owned(),
            "node.data_dir=data".to_owned(),
            format!("cluster.name={}", cluster.name),
            format!("gateway.members={}", members.join(",")),
            format!("listen.http={}", port.address),
        ];
        for set in own.iter().chain(settings) {
            command.arg("--set").arg(set);
        }
        let log = tempfile::NamedTempFile::new().expect("a log file");
        let handle = log.reopen().expect("a second handle");
        command.stdout(handle.try_clone().expect("a third handle")).stderr(handle);
        let is_encrypted = settings.iter().any(|set| set.starts_with("tls.http_certificate="));
        Self {
            process: command.spawn().expect("the binary runs"),
            port,
            directory,
            log,
            client: cluster.client.clone(),
            scheme: if is_encrypted { "https" } else { "http" },
        }
    }

    /// Where it serves REST.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Where it was started.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The URL of `path`, which begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.port.address)
    }

    /// From one that may not answer.
    ///
    /// # Errors
    /// When it does not.
    pub async fn try_get(&self, path: &str) -> Result<Reply, reqwest::Error> {
        send(self.client.get(self.url(path))).await
    }

    /// Asks it for `path`.
    pub async fn get(&self, path: &str) -> Reply {
        self.try_get(path).await.expect("the gateway answers")
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        eventually("a ready gateway", async || {
            let reply = self.try_get("/readyz").await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Waits until a line of its log holds all of `texts`.
    pub async fn logged(&self, texts: &[&str]) {
        eventually(&format!("a line in the log with {texts:?}"), async || {
            self.log().lines().any(|line| texts.iter().all(|text| line.contains(text))).then_some(())
        })
        .await;
    }

    /// Sends a signal to its process.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("process ids are small");
        kill(Pid::from_raw(pid), signal).expect("a child takes signals");
    }

    /// Waits until its process has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the end of the gateway's process", async || self.process.try_wait().expect("our child")).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // An error means that it has ended already.
        _ = self.process.kill();
        _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of the gateway:\n{}", self.log());
        }
    }
}
