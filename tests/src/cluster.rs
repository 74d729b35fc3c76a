//! A cluster of real `quorate serve` processes.
//!
//! Each node has its own configuration file, data directory, log file and ports, all of them
//! under one temporary directory that goes away with the cluster. Nothing waits for a fixed
//! time: every wait looks for what is needed, and fails after [`DEADLINE`]. When a test fails,
//! the end of every node's log is printed. No process outlives the test: it is killed when the
//! [`Cluster`] is dropped, and ends by itself when the test's own process is killed.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;

mod certified;
mod collector;
mod gateway;
mod history;
mod http;
mod load;
mod presence;
mod small_disk;
mod tap;
mod witness;

pub use certified::{create_certificate_of_gateway, create_certificates};
pub use collector::{CollectedSpan, Collector};
pub use gateway::Gateway;
pub use history::History;
pub use http::{Reply, client, client_trusting, send};
pub use load::{Ledger, Load};
pub use presence::Presence;
pub use small_disk::{lying_disks, power_cuts, small_disks};
pub use tap::{Damage, Link, Tap, Taps};
pub use witness::{Testimony, Witnesses};

/// Longer than anything here takes on a busy machine; only a failing test waits so long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often something is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// How many lines of each log a failing test prints.
const LINES_SHOWN: usize = 60;

/// See the module. Nodes are numbered from 0 here; their names are a, b, c …, their ids 1, 2, 3 …
pub struct Cluster {
    name: String,
    nodes: Vec<Node>,
    settings: Vec<String>,
    client: reqwest::Client,
    presence: Presence,
    is_certified: bool,
    directory: TempDir,
}

struct Node {
    name: String,
    http: Port,
    peer: Port,
    /// Where this node finds the others; their own ports, unless a [`Tap`] is in between.
    peers: Vec<SocketAddr>,
    /// It is in nobody's list, and joins when it starts.
    joins: bool,
    process: Option<Child>,
    frozen: bool,
}

/// A port that the system chose. The socket is bound and never listens, so that the node can
/// listen there, and nobody else gets the port while the node is down.
struct Port {
    address: SocketAddr,
    _reserved: TcpSocket,
}

impl Port {
    fn reserve() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option that every system has");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        Self { address: socket.local_addr().expect("it is bound"), _reserved: socket }
    }
}

/// How often to look whether a node stands still: together some seconds.
const FREEZE_LOOKS: usize = 100_000;

impl Cluster {
    /// A cluster of that many nodes, all of them running and ready. `settings` are `key=value`,
    /// the same for every node.
    pub async fn start(name: &str, nodes: usize, settings: &[&str]) -> Self {
        let mut cluster = Self::new(name, nodes, settings);
        cluster.boot_all();
        cluster.wait_begun().await;
        cluster
    }

    /// The same, and so many more nodes that do not run yet: each joins when it is booted, and leaves when it is asked to
    /// stop.
    pub async fn start_with_newcomers(name: &str, nodes: usize, newcomers: usize, settings: &[&str]) -> Self {
        let mut cluster = Self::new_with_newcomers(name, nodes, newcomers, settings);
        (0..nodes).for_each(|node| cluster.boot(node));
        cluster.wait_begun().await;
        cluster
    }

    /// A cluster whose nodes do not run yet.
    #[must_use]
    pub fn new(name: &str, nodes: usize, settings: &[&str]) -> Self {
        let ports: Vec<(Port, Port)> = (0..nodes).map(|_| (Port::reserve(), Port::reserve())).collect();
        let peers: Vec<SocketAddr> = ports.iter().map(|(_, peer)| peer.address).collect();
        let nodes = ports.into_iter().zip('a'..='z').map(|((http, peer), letter)| Node {
            name: letter.to_string(),
            http,
            peer,
            peers: peers.clone(),
            joins: false,
            process: None,
            frozen: false,
        });
        let nodes: Vec<Node> = nodes.collect();
        Self {
            name: name.to_owned(),
            presence: Presence::new(nodes.len()),
            nodes,
            settings: settings.iter().map(ToString::to_string).collect(),
            client: client(),
            is_certified: false,
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// The same, and so many more nodes that join when they are booted.
    #[must_use]
    pub fn new_with_newcomers(name: &str, nodes: usize, newcomers: usize, settings: &[&str]) -> Self {
        let mut cluster = Self::new(name, nodes + newcomers, settings);
        cluster.nodes[nodes..].iter_mut().for_each(|node| node.joins = true);
        cluster
    }

    /// How many nodes there are, running or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Lets `from` reach `to` at another address from its next start on.
    pub fn redirect(&mut self, from: usize, to: usize, address: SocketAddr) {
        self.nodes[from].peers[to] = address;
    }

    /// Gives every node one more setting from its next start on.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// What starts the process of a node, once its file is written. Its output goes nowhere yet.
    #[must_use]
    pub fn command(&self, node: usize) -> Command {
        self.command_of(node, &["serve"])
    }

    /// The same for another command that takes the configuration of a node.
    #[must_use]
    pub fn command_of(&self, node: usize, words: &[&str]) -> Command {
        let file = self.directory.path().join(format!("{}.toml", self.nodes[node].name));
        std::fs::write(&file, self.configuration(node)).expect("the configuration can be written");
        let mut command = quorate();
        command.args(words).arg("--config").arg(file);
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command
    }

    fn configuration(&self, node: usize) -> String {
        let own = &self.nodes[node];
        let listed = self.nodes.iter().zip(&own.peers).filter(|(member, _)| !member.joins);
        let (key, list): (_, Vec<String>) = if own.joins {
            ("leave = \"on_stop\"\njoin", listed.map(|(_, address)| address.to_string()).collect())
        } else {
            ("members", listed.map(|(member, address)| format!("{}={address}", member.name)).collect())
        };
        // JSON texts and lists of texts are TOML too.
        format!(
            "[node]\nname = {}\ndata_dir = {}\n[cluster]\nname = {}\n{key} = {}\n[listen]\nhttp = {}\npeer = {}\n{}",
            Value::from(own.name.as_str()),
            Value::from(self.data_dir(node).to_str().expect("temporary directories have plain names")),
            Value::from(self.name.as_str()),
            Value::from(list),
            Value::from(own.http.address.to_string()),
            Value::from(own.peer.address.to_string()),
            self.tls_section(node),
        )
    }

    /// Where a node keeps its data.
    #[must_use]
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.directory.path().join(&self.nodes[node].name)
    }

    /// Starts a node that does not run; does not wait for it.
    pub fn boot(&mut self, node: usize) {
        let command = self.command(node);
        self.spawn(node, command);
    }

    /// The same, but of another build.
    pub fn boot_build(&mut self, node: usize, program: &Path) {
        let serve = self.command(node);
        let mut command = Command::new(program);
        command.args(serve.get_args());
        for (name, _) in serve.get_envs() {
            command.env_remove(name);
        }
        self.spawn(node, command);
    }

    /// The same on a disk that will fail: no file of the node can grow beyond `file_bytes`, in
    /// multiples of 512. Writes beyond are errors (`EFBIG`), and the signal that a process gets
    /// at that point does not end a node.
    pub fn boot_on_failing_disk(&mut self, node: usize, file_bytes: u64) {
        let serve = self.command(node);
        let mut command = Command::new("sh");
        command.arg("-c").arg(r#"ulimit -f "$0" && exec "$@""#);
        // POSIX: blocks of 512 bytes.
        command.arg((file_bytes / 512).to_string()).arg(serve.get_program()).args(serve.get_args());
        for (name, _) in serve.get_envs() {
            command.env_remove(name);
        }
        self.spawn(node, command);
    }

    /// Starts a node that does not run by a command of its own ([`Cluster::command`] with more).
    pub fn spawn(&mut self, node: usize, mut command: Command) {
        assert!(self.nodes[node].process.is_none(), "node {node} runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log_file(node)).expect("a log file");
        command.arg("--stop-with-parent").stdin(Stdio::piped());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.nodes[node].process = Some(command.spawn().expect("the binary runs"));
    }

    /// Starts every node that does not run; does not wait for them.
    pub fn boot_all(&mut self) {
        for node in 0..self.size() {
            if self.nodes[node].process.is_none() {
                self.boot(node);
            }
        }
    }

    /// Ends a node as a power cut ends it for the process: nothing of it runs any more.
    pub fn kill9(&mut self, node: usize) {
        self.presence.down(node);
        self.signal(node, Signal::SIGKILL);
        self.nodes[node].frozen = false;
        let mut process = self.nodes[node].process.take().expect("it ran");
        process.wait().expect("a killed process ends");
    }

    /// Stops the time of a node.
    pub fn freeze(&mut self, node: usize) {
        self.presence.down(node);
        self.signal(node, Signal::SIGSTOP);
        self.nodes[node].frozen = true;
        // The signal stops one thread, which stops the others: until then they go on.
        let looks = (0..FREEZE_LOOKS).take_while(|_| !self.stands_still(node)).map(|_| std::thread::yield_now());
        assert!(looks.count() < FREEZE_LOOKS, "node {node} does not stop");
    }

    /// Whether no thread of a node's process runs.
    fn stands_still(&self, node: usize) -> bool {
        let process = self.nodes[node].process.as_ref().expect("the node runs");
        let threads = std::fs::read_dir(format!("/proc/{}/task", process.id())).expect("a process has threads");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The name stands in parentheses and may hold anything; the state follows it.
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    /// Lets a frozen node go on.
    pub fn thaw(&mut self, node: usize) {
        self.nodes[node].frozen = false;
        self.signal(node, Signal::SIGCONT);
    }

    /// Says that a node will soon end by itself: nobody counts on it any more.
    pub fn give_up(&mut self, node: usize) {
        self.presence.down(node);
    }

    /// The process id of a node that runs.
    #[must_use]
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].process.as_ref().expect("the node runs").id()
    }

    /// Asks a node to stop.
    pub fn terminate(&mut self, node: usize) {
        self.presence.down(node);
        self.signal(node, Signal::SIGTERM);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let process = self.nodes[node].process.as_ref().expect("the node runs");
        let pid = i32::try_from(process.id()).expect("process ids are small");
        kill(Pid::from_raw(pid), signal).expect("a child takes signals");
    }

    /// Waits until the process of a node has ended.
    pub async fn ended(&mut self, node: usize) -> ExitStatus {
        let mut process = self.nodes[node].process.take().expect("it ran");
        let status = eventually("the end of the node's process", async || process.try_wait().expect("our child"));
        status.await
    }

    /// How the process of a node has ended by itself, if it has: the node can be booted again.
    pub fn has_ended(&mut self, node: usize) -> Option<ExitStatus> {
        let process = self.nodes[node].process.as_mut()?;
        let status = process.try_wait().expect("our child")?;
        self.nodes[node].process = None;
        Some(status)
    }

    /// Waits until every node that was booted is ready, or the process of one has ended by itself; says whether all are
    /// ready.
    pub async fn starts_again(&mut self) -> bool {
        for node in self.living() {
            let url = self.url(node, "/readyz");
            let client = self.client.clone();
            let process = self.nodes[node].process.as_mut().expect("it was booted");
            let ready = eventually("a node that is ready, or has ended", async || {
                if process.try_wait().expect("our child").is_some() {
                    return Some(false);
                }
                let reply = send(client.get(&url)).await.ok()?;
                (reply.status == 200).then_some(true)
            });
            if !ready.await {
                return false;
            }
        }
        true
    }

    /// The nodes that run and are not frozen.
    #[must_use]
    pub fn living(&self) -> Vec<usize> {
        let lives = |node: &usize| self.nodes[*node].process.is_some() && !self.nodes[*node].frozen;
        (0..self.size()).filter(lives).collect()
    }

    /// Who can be counted on to answer, for clients that run beside the test.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.presence.clone()
    }

    /// Waits until every living node says that it is ready.
    pub async fn wait_ready(&self) {
        for node in self.living() {
            eventually("a ready node", async || {
                let reply = self.try_get(node, "/readyz").await.ok()?;
                (reply.status == 200).then_some(())
            })
            .await;
            self.presence.up(node);
        }
    }

    /// Until all living nodes are ready and their acceptors speak: a first start is over, and fewer nodes are enough from
    /// then on. A ready node may still be silent, because the others have not noted its new disk yet.
    pub async fn wait_begun(&self) {
        self.wait_ready().await;
        for node in self.living() {
            eventually("an acceptor that speaks", async || {
                let checks = self.try_get(node, "/readyz?verbose").await.ok()?;
                (checks.status == 200 && !checks.text().contains("silent (")).then_some(())
            })
            .await;
        }
    }

    /// The leader, as soon as all living nodes agree on one of them.
    pub async fn leader(&self) -> usize {
        let living = self.living();
        eventually("a leader that all living nodes know", async || {
            let mut known = Vec::new();
            for node in &living {
                let view = self.try_get(*node, "/v1/cluster").await.ok()?.json();
                let name = view["leader"]["name"].as_str()?.to_owned();
                known.push(self.nodes.iter().position(|node| node.name == name)?);
            }
            let agreed = known.windows(2).all(|pair| pair[0] == pair[1]) && living.contains(&known[0]);
            agreed.then_some(known[0])
        })
        .await
    }

    /// Some living node that does not lead.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        self.living().into_iter().find(|node| *node != leader).expect("a second living node")
    }

    /// The HTTP client of this test.
    #[must_use]
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The URL of `path`, which begins with a slash, at a node.
    #[must_use]
    pub fn url(&self, node: usize, path: &str) -> String {
        let scheme = if self.is_certified { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.nodes[node].http.address)
    }

    /// The URLs of all nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        (0..self.size()).map(|node| self.url(node, "")).collect()
    }

    /// Where a node serves REST.
    #[must_use]
    pub fn http_address(&self, node: usize) -> SocketAddr {
        self.nodes[node].http.address
    }

    /// Where a node listens for its peers.
    #[must_use]
    pub fn peer_address(&self, node: usize) -> SocketAddr {
        self.nodes[node].peer.address
    }

    /// The same from a node that may not answer.
    ///
    /// # Errors
    /// When it does not.
    pub async fn try_get(&self, node: usize, path: &str) -> Result<Reply, reqwest::Error> {
        send(self.client.get(self.url(node, path))).await
    }

    /// Asks a living node for `path`.
    pub async fn get(&self, node: usize, path: &str) -> Reply {
        self.try_get(node, path).await.expect("a living node answers")
    }

    /// Executes a function through a living node.
    pub async fn call(&self, node: usize, function: &str, arguments: &Value) -> Reply {
        let url = self.url(node, &format!("/v1/functions/{function}"));
        send(self.client.post(url).json(arguments)).await.expect("a living node answers")
    }

    /// The same with an `Idempotency-Key`.
    pub async fn call_once(&self, node: usize, key: &str, function: &str, arguments: &Value) -> Reply {
        let url = self.url(node, &format!("/v1/functions/{function}"));
        let request = self.client.post(url).header("Idempotency-Key", key).json(arguments);
        send(request).await.expect("a living node answers")
    }

    /// The value of a metric, by its name with its labels as `/metrics` writes them; 0 when it
    /// has not been counted yet.
    pub async fn metric(&self, node: usize, name: &str) -> f64 {
        let text = self.get(node, "/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// The issued commands, as a node tells them.
    pub async fn history(&self, node: usize) -> History {
        History::read(&self.client, &self.url(node, "")).await
    }

    /// Waits until all nodes have applied the same commands, and checks that they have the same
    /// commands, the same state and the same digest.
    pub async fn assert_agreement(&self) -> History {
        let history = self.history(self.living()[0]).await;
        let last = history.last();
        let mut digests = Vec::new();
        for node in self.living() {
            let state = self.get(node, &format!("/v1/state?limit=1000&consistency=local&min_command={last}")).await;
            assert_eq!(state.status, 200, "{state:?}");
            history.assert_state(&state.json());
            assert_eq!(self.history(node).await, history, "node {node} has other commands");
            let digest = self.get(node, &format!("/v1/digest?at={last}")).await;
            assert_eq!((digest.status, digest.command()), (200, Some(last)), "{digest:?}");
            digests.push(digest.json()["digest"].clone());
        }
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "at {last} the digests are {digests:?}");
        history
    }

    fn log_file(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("{}.log", self.nodes[node].name))
    }

    /// What a node has logged, in all its lives.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.log_file(node)).unwrap_or_default()
    }

    /// Waits until a line of a node's log holds all of `texts`, and returns it.
    pub async fn logged(&self, node: usize, texts: &[&str]) -> String {
        eventually(&format!("a line in the log with {texts:?}"), async || {
            let log = self.log(node);
            let line = log.lines().find(|line| texts.iter().all(|text| line.contains(text)));
            line.map(ToOwned::to_owned)
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                // An error means that it has ended already.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() {
            for node in 0..self.size() {
                let log = self.log(node);
                let lines: Vec<&str> = log.lines().collect();
                let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
                eprintln!("--- the log of node {}, its last {} lines:", self.nodes[node].name, shown.len());
                eprintln!("{}", shown.join("\n"));
            }
        }
    }
}

/// The binary, with nothing of the caller's environment that it would read.
#[must_use]
pub fn quorate() -> Command {
    let mut command = Command::new(binary());
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("QUORATE_"));
    for name in ours {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

/// `QUORATE_BIN`, or what cargo built beside this test.
///
/// # Panics
/// When neither is there.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("QUORATE_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("this test is a file");
    let profile = own.parent().and_then(Path::parent).expect("cargo puts tests into target/PROFILE/deps");
    let path = profile.join("quorate");
    assert!(
        File::open(&path).is_ok(),
        "{} is not there: run `cargo xtask test`, or `cargo build -p quorate` first, or set QUORATE_BIN",
        path.display()
    );
    path
}

/// Looks until `look` finds something.
///
/// # Panics
/// After [`DEADLINE`].
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what} did not come within {} s", DEADLINE.as_secs()))
}
