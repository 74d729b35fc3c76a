//! Starting and stopping the systems, each as one would run it on this machine: three servers, or a primary and one
//! synchronous standby; defaults, but for what the note of each says.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Kind, install, postgresql};
use crate::cluster::{Cluster, clock, delayed, pause, signal};

/// How long a system may take until it is ready.
pub(super) const READY: Duration = Duration::from_secs(60);

/// How often it is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Where everything is.
pub(super) struct Place<'a> {
    pub(super) directory: &'a Path,
    pub(super) ports: u16,
    pub(super) binary: &'a Path,
    pub(super) loader: &'a Path,
    /// By how many milliseconds each sync is delayed.
    pub(super) sync_delay: Option<u32>,
}

impl Place<'_> {
    /// Runs a server, its syncs delayed when that was asked for.
    pub(super) fn server(&self, program: &Path) -> Command {
        delayed(program, self.sync_delay)
    }
}

/// A system that runs; its end stops it.
pub(super) struct Running<'a> {
    pub(super) kind: Kind,
    /// Which version, and with which settings.
    pub(super) about: String,
    /// Where it takes calls.
    at: Vec<String>,
    /// All its processes are these and those below them.
    pub(super) pids: Vec<u64>,
    processes: Processes,
    /// Quorate starts and stops its nodes itself.
    cluster: Option<Cluster<'a>>,
}

/// Servers, and the signal that ends them.
pub(super) struct Processes(pub(super) Vec<Server>, pub(super) &'static str);

/// A server, and how it is started.
pub(super) struct Server {
    command: Command,
    process: Child,
}

impl Server {
    /// Starts one whose words go into `NAME.log`.
    pub(super) fn start(mut command: Command, data: &Path, name: &str) -> anyhow::Result<Self> {
        let log = File::create(data.join(format!("{name}.log"))).context("a log file")?;
        command.stdout(log.try_clone().context("a log file")?).stderr(log).current_dir(data);
        let process = spawn(&mut command)?;
        Ok(Self { command, process })
    }

    fn pid(&self) -> u64 {
        u64::from(self.process.id())
    }

    /// Starts it again, once it has ended.
    fn start_again(&mut self) -> anyhow::Result<()> {
        self.process.wait().context("a server that ends")?;
        self.process = spawn(&mut self.command)?;
        Ok(())
    }
}

fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    command.spawn().with_context(|| command.get_program().to_string_lossy().into_owned())
}

impl Drop for Processes {
    fn drop(&mut self) {
        let Self(processes, end) = self;
        for server in &*processes {
            // One that has ended needs none.
            _ = signal(end, server.pid());
        }
        for server in processes {
            _ = server.process.wait();
        }
    }
}

impl<'a> Running<'a> {
    /// Starts a system on new data.
    pub(super) fn start(kind: Kind, place: &Place<'a>) -> anyhow::Result<Self> {
        let data = place.directory.join(kind.name());
        if data.exists() {
            std::fs::remove_dir_all(&data).with_context(|| format!("{} cannot be emptied", data.display()))?;
        }
        std::fs::create_dir_all(&data).with_context(|| format!("{} cannot be made", data.display()))?;
        match kind {
            Kind::Quorate => quorate(place, &data),
            Kind::Etcd => etcd(place, &data),
            Kind::Zookeeper => zookeeper(place, &data),
            Kind::Postgresql => postgresql::start(place, &data),
            Kind::Echo => echo(place.ports + 80, place.loader, &data),
        }
    }

    pub(super) fn new(kind: Kind, about: String, at: Vec<String>, processes: Processes) -> Self {
        let pids = processes.0.iter().map(Server::pid).collect();
        Self { kind, about, at, pids, processes, cluster: None }
    }

    /// Kills the server that leads, and says which one that was.
    pub(super) fn kill_leader(&self) -> anyhow::Result<usize> {
        let leader = match (&self.cluster, self.kind) {
            (Some(cluster), _) => cluster.leader()?.0,
            (None, Kind::Etcd) => self.which("GET /metrics HTTP/1.0\r\n\r\n", "\netcd_server_is_leader 1\n")?,
            (None, Kind::Zookeeper) => self.which("srvr", "Mode: leader")?,
            (None, Kind::Quorate | Kind::Postgresql | Kind::Echo) => bail!("{} elects no leader", self.kind.name()),
        };
        signal("KILL", self.pids[leader])?;
        Ok(leader)
    }

    /// The server whose answer says this.
    fn which(&self, question: &str, says: &str) -> anyhow::Result<usize> {
        let leads = |host: &String| ask(host, question).is_some_and(|answer| answer.contains(says));
        self.at.iter().position(leads).with_context(|| format!("no server of {} leads", self.kind.name()))
    }

    /// Starts a server again that was killed, and waits until there is a leader that all know.
    pub(super) fn start_again(&mut self, server: usize) -> anyhow::Result<()> {
        match &mut self.cluster {
            Some(cluster) => {
                cluster.until("the end of a node", READY, |cluster| cluster.has_ended(server).then_some(()))?;
                cluster.boot(server)?;
                cluster.wait_until_all_are_heard()?;
                self.pids[server] = cluster.nodes[server].2;
            }
            None => {
                self.processes.0[server].start_again()?;
                self.pids[server] = self.processes.0[server].pid();
                let begun = clock();
                while !self.at.iter().all(|host| serves(self.kind, host)) {
                    if begun.elapsed() > READY {
                        bail!("{} was not ready again within {} s", self.kind.name(), READY.as_secs());
                    }
                    pause(LOOK);
                }
            }
        }
        Ok(())
    }

    /// Runs the loader on it.
    pub(super) fn load(&self, loader: &Path, job: &[&str], flags: &[&str]) -> anyhow::Result<String> {
        let at = self.at.join(",");
        output(loader, &[job, &["--system", self.kind.name(), "--at", &at], flags].concat())
    }

    /// Begins to run the loader on it.
    pub(super) fn begin_load(&self, loader: &Path, flags: &[&str]) -> anyhow::Result<Child> {
        let at = self.at.join(",");
        let mut command = Command::new(loader);
        command.args(["load", "--system", self.kind.name(), "--at", &at]).args(flags);
        spawn(command.stdout(std::process::Stdio::piped()))
    }

    /// Waits until it is.
    fn ready(mut self, mut is_ready: impl FnMut(&Self) -> bool) -> anyhow::Result<Self> {
        let begun = clock();
        while !is_ready(&self) {
            for server in &mut self.processes.0 {
                if let Some(status) = server.process.try_wait()? {
                    bail!("{} ended ({status}); what it said is in its data, *.log", self.kind.name());
                }
            }
            if begun.elapsed() > READY {
                let (name, most) = (self.kind.name(), READY.as_secs());
                bail!("{name} was not ready within {most} s; what it said is in its data, *.log");
            }
            pause(LOOK);
        }
        Ok(self)
    }
}

/// What the loader tells as JSON.
pub(super) fn told(loader: &Path, arguments: &[&str]) -> anyhow::Result<Value> {
    let text = output(loader, arguments)?;
    serde_json::from_str(&text).with_context(|| format!("what quorate-compare {} told", arguments[0]))
}

/// What a program prints; what it complains of is seen.
pub(super) fn output(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let name = program.display();
    let mut command = Command::new(program);
    command.args(arguments).stderr(std::process::Stdio::inherit());
    let done = command.output().with_context(|| name.to_string())?;
    if !done.status.success() {
        bail!("`{name} {}` failed ({}); what it said is above", arguments.join(" "), done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Whether a server takes calls.
fn serves(kind: Kind, host: &str) -> bool {
    let says = |question: &str, answer: &str| ask(host, question).is_some_and(|told| told.contains(answer));
    match kind {
        Kind::Etcd => says("GET /health HTTP/1.0\r\n\r\n", r#""health":"true""#),
        Kind::Zookeeper => says("srvr", "Mode: "),
        Kind::Quorate | Kind::Postgresql | Kind::Echo => TcpStream::connect(host).is_ok(),
    }
}

pub(super) fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn quorate<'a>(place: &Place<'a>, data: &Path) -> anyhow::Result<Running<'a>> {
    let ports = (place.ports, place.ports + 10);
    let cluster = Cluster::start(place.server(place.binary), data.join("data"), ports, place.binary, &[])?;
    cluster.wait_until_all_are_heard()?;
    let version = output(place.binary, &["--version"])?;
    let about = format!("{}, three nodes (`quorate dev`), default settings, over REST", version.trim());
    let at = cluster.nodes.iter().map(|(_, url, _)| url.trim_start_matches("http://").to_owned()).collect();
    let pids = cluster.nodes.iter().map(|(_, _, pid)| *pid).collect();
    let none = Processes(Vec::new(), "TERM");
    Ok(Running { kind: Kind::Quorate, about, at, pids, processes: none, cluster: Some(cluster) })
}

fn etcd<'a>(place: &Place<'a>, data: &Path) -> anyhow::Result<Running<'a>> {
    let ports = place.ports + 20;
    let url = |port: u16| format!("http://{}", local(port));
    let peers = (0..3).map(|node| format!("n{node}={}", url(ports + 10 + node))).collect::<Vec<_>>().join(",");
    let mut processes = Processes(Vec::new(), "TERM");
    for node in 0..3 {
        let name = format!("n{node}");
        let (client, peer) = (url(ports + node), url(ports + 10 + node));
        let mut command = place.server(Path::new("etcd"));
        command.args(["--name", &name, "--data-dir", &name, "--initial-cluster", &peers, "--logger", "zap"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--quota-backend-bytes", "8589934592"]);
        processes.0.push(Server::start(command, data, &name)?);
    }
    let version = output(Path::new("etcd"), &["--version"])?;
    let version = version.lines().next().unwrap_or_default().replace("etcd Version:", "etcd");
    let about = format!("{version}, three servers, default settings but a quota of 8 GiB, over gRPC");
    let at: Vec<String> = (0..3).map(|node| local(ports + node)).collect();
    Running::new(Kind::Etcd, about, at, processes).ready(|etcd| etcd.at.iter().all(|host| serves(Kind::Etcd, host)))
}

fn zookeeper<'a>(place: &Place<'a>, data: &Path) -> anyhow::Result<Running<'a>> {
    let ports = place.ports + 40;
    let servers: String = (0..3)
        .map(|node| format!("server.{}=127.0.0.1:{}:{}\n", node + 1, ports + 10 + node, ports + 20 + node))
        .collect();
    let mut processes = Processes(Vec::new(), "TERM");
    for node in 0..3 {
        let name = format!("n{node}");
        let home = data.join(&name);
        std::fs::create_dir(&home).context("a directory of ZooKeeper")?;
        let settings = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
             maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=mntr,srvr\n{servers}",
            home.display(),
            ports + node
        );
        std::fs::write(home.join("myid"), format!("{}\n", node + 1)).context("myid")?;
        std::fs::write(home.join("zoo.cfg"), settings).context("zoo.cfg")?;
        let mut command = place.server(Path::new("java"));
        command.args(["-Xms1g", "-Xmx1g", "-cp", install::ZOOKEEPER]);
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(home.join("zoo.cfg"));
        processes.0.push(Server::start(command, data, &name)?);
    }
    let about = "three servers with a heap of 1 GiB, default settings, a session for each client";
    let at: Vec<String> = (0..3).map(|node| local(ports + node)).collect();
    let mut ensemble = Running::new(Kind::Zookeeper, about.to_owned(), at, processes)
        .ready(|ensemble| ensemble.at.iter().all(|host| serves(Kind::Zookeeper, host)))?;
    // "Zookeeper version: 3.8.0-…"
    let says = ask(&ensemble.at[0], "srvr").unwrap_or_default();
    let version = says.split([':', '-']).nth(1).unwrap_or_default().trim().to_owned();
    ensemble.about = format!("ZooKeeper {version}, {about}");
    Ok(ensemble)
}

fn echo<'a>(port: u16, loader: &Path, data: &Path) -> anyhow::Result<Running<'a>> {
    let mut command = Command::new(loader);
    command.args(["echo", "--port", &port.to_string()]);
    let processes = Processes(vec![Server::start(command, data, "echo")?], "TERM");
    let about = "actix-web, which sends the body of a transfer back".to_owned();
    Running::new(Kind::Echo, about, vec![local(port)], processes)
        .ready(|echo| echo.at.iter().all(|host| serves(Kind::Echo, host)))
}

/// What a server answers until it closes the connection.
fn ask(host: &str, question: &str) -> Option<String> {
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Runs a program whose words matter only when it fails.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| program.clone())?;
    if !done.status.success() {
        bail!("{program} failed ({}): {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
