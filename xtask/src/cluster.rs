//! The cluster that is measured: `quorate dev`, whose nodes can be killed and started again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// How long a killed leader runs before, in seconds: the load is steady by then.
const KILL_AFTER: Duration = Duration::from_secs(3);

/// How long a node that was started again may take until all hear it.
const BACK_WAIT: Duration = Duration::from_secs(30);

/// What is called when nothing else is named.
const TRANSFER: &str = "inventory.transfer";

/// How often something is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A command that runs a server, each of whose syncs takes so many milliseconds longer, if that is asked for.
pub(crate) fn delayed(program: &Path, sync_delay: Option<u32>) -> Command {
    let Some(millis) = sync_delay else { return Command::new(program) };
    let mut command = Command::new("strace");
    // The tracer is no parent of the server (-D), so that signals and CPU times are the server's; no other call is
    // stopped for it (--seccomp-bpf).
    command.args(["-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,msync"]);
    command.arg("-e").arg(format!("inject=fsync,fdatasync,msync:delay_exit={}", millis * 1000)).arg(program);
    command
}

/// A running cluster; its end stops it.
pub(crate) struct Cluster<'a> {
    pub(crate) binary: &'a Path,
    data: PathBuf,
    sets: Vec<String>,
    dev: Child,
    /// name, URL, pid
    pub(crate) nodes: Vec<(String, String, u64)>,
    /// Nodes started again.
    again: Vec<Child>,
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        // `dev` stops its nodes on SIGTERM.
        let _ = signal("TERM", u64::from(self.dev.id()));
        let _ = self.dev.wait();
        for node in &mut self.again {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl<'a> Cluster<'a> {
    /// A new cluster by a command that runs the program, in the place of the last one's data, with REST from the first of two
    /// ports and peers from the second one.
    pub(crate) fn start(
        mut command: Command,
        data: PathBuf,
        (http, peers): (u16, u16),
        binary: &'a Path,
        sets: &[&str],
    ) -> anyhow::Result<Self> {
        if data.exists() {
            std::fs::remove_dir_all(&data).with_context(|| format!("{} cannot be emptied", data.display()))?;
        }
        let sets: Vec<String> = sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect();
        let ports = [("--http-base", http), ("--peer-base", peers)];
        command.args(["dev", "--nodes", "3", "--data"]).arg(&data).args(&sets).stdout(Stdio::piped());
        for (flag, port) in ports {
            command.arg(flag).arg(port.to_string());
        }
        let mut dev = command.spawn().context("quorate dev")?;
        let out = dev.stdout.take().context("quorate dev has no output")?;
        let mut cluster = Self { binary, data, sets, dev, nodes: Vec::new(), again: Vec::new() };
        let mut lines = BufReader::new(out).lines();
        if !lines.any(|line| line.is_ok_and(|line| line.starts_with("All "))) {
            bail!("the cluster did not start; what it said is above");
        }
        // What it says later must not fill the pipe and hold it up.
        #[expect(clippy::disallowed_methods, reason = "a job of a developer, no core")]
        std::thread::spawn(move || lines.for_each(drop));
        let path = cluster.data.join("nodes.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let nodes: Value = serde_json::from_str(&text).context("nodes.json")?;
        for node in nodes.as_array().into_iter().flatten() {
            let text = |name: &str| node[name].as_str().map(str::to_owned).context("nodes.json");
            cluster.nodes.push((text("name")?, text("http")?, node["pid"].as_u64().context("nodes.json")?));
        }
        Ok(cluster)
    }

    /// A run of `quorate bench` on the nodes of these places.
    pub(crate) fn bench(&self, nodes: &[usize], flags: &[&str]) -> anyhow::Result<Child> {
        let list = |each: &dyn Fn(usize) -> String| nodes.iter().map(|node| each(*node)).collect::<Vec<_>>().join(",");
        let urls = list(&|node| self.nodes[node].1.clone());
        let pids = list(&|node| self.nodes[node].2.to_string());
        // Whoever names a function names it first.
        let function = if flags.first().is_some_and(|flag| !flag.starts_with('-')) { None } else { Some(TRANSFER) };
        Command::new(self.binary)
            .arg("bench")
            .args(function)
            .args(flags)
            .args(["--output", "json", "--url", &urls, "--pids", &pids])
            .stdout(Stdio::piped())
            .spawn()
            .context("quorate bench")
    }

    /// The places of all nodes.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.nodes.len()).collect()
    }

    /// The places of the leader and of the others.
    pub(crate) fn leader(&self) -> anyhow::Result<(usize, Vec<usize>)> {
        let name = self.status()?["leader"]["name"].as_str().context("nobody leads")?.to_owned();
        let leader = self.nodes.iter().position(|(node, _, _)| *node == name).context("an unknown leader")?;
        Ok((leader, self.all().into_iter().filter(|node| *node != leader).collect()))
    }

    pub(crate) fn kill(&self, node: usize) -> anyhow::Result<()> {
        signal("KILL", self.nodes[node].2)
    }

    /// Starts a node that was killed.
    pub(crate) fn boot(&mut self, node: usize) -> anyhow::Result<()> {
        let config = self.data.join(format!("node-{}", node + 1)).join("quorate.toml");
        let mut command = Command::new(self.binary);
        command.arg("serve").arg("--config").arg(config).args(&self.sets).stderr(Stdio::null());
        let process = command.spawn().context("quorate serve")?;
        self.nodes[node].2 = u64::from(process.id());
        self.again.push(process);
        Ok(())
    }

    /// Starts those nodes that do not run.
    pub(crate) fn boot_ended(&mut self) -> anyhow::Result<()> {
        let ended: Vec<usize> = self.all().into_iter().filter(|node| self.has_ended(*node)).collect();
        ended.into_iter().try_for_each(|node| self.boot(node))
    }

    /// Whether the process of a node is over, be it waited for or not. Its command line is gone before its files are
    /// closed and its ports are free: only the state says it.
    pub(crate) fn has_ended(&self, node: usize) -> bool {
        let process = PathBuf::from(format!("/proc/{}", self.nodes[node].2));
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        // Its first thread may be gone while another one still waits for the disk: until that is back, the data is locked.
        let threads = std::fs::read_dir(process.join("task")).map_or(0, Iterator::count);
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']) && threads <= 1)
    }

    /// Another command of the program, against all nodes.
    pub(crate) fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        let urls: Vec<&str> = self.nodes.iter().map(|(_, url, _)| url.as_str()).collect();
        let done =
            Command::new(self.binary).args(words).args(["--url", &urls.join(",")]).output().context("quorate")?;
        if !done.status.success() {
            bail!("{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }

    /// The directory of a node's data.
    pub(crate) fn directory(&self, node: usize) -> PathBuf {
        self.data.join(format!("node-{}", node + 1))
    }

    /// What a node answers with status 200 to GET; none while it answers nothing else.
    pub(crate) fn get(&self, node: usize, path: &str) -> Option<String> {
        let host = self.nodes[node].1.strip_prefix("http://")?;
        let mut stream = TcpStream::connect(host).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        answer.starts_with("HTTP/1.1 200").then(|| answer.into_owned())
    }

    /// The value of a metric, by its name with its labels; 0 when it is not counted yet.
    pub(crate) fn metric(&self, node: usize, name: &str) -> Option<f64> {
        let text = self.get(node, "/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        Some(value.unwrap_or(0.0))
    }

    /// Looks until `look` finds something, and says how long that took.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<(T, Duration)> {
        let begun = clock();
        loop {
            if let Some(found) = look(self) {
                return Ok((found, begun.elapsed()));
            }
            if begun.elapsed() > within {
                bail!("{what} did not come within {} s", within.as_secs());
            }
            pause(LOOK);
        }
    }

    /// Kills the leader under load, starts it again, and says how long nothing succeeded, in
    /// milliseconds.
    pub(crate) fn kill_leader_under_load(&mut self) -> anyhow::Result<f64> {
        let load = self.bench(&self.all(), &["--clients", "64", "--seconds", "8", "--retry"])?;
        pause(KILL_AFTER);
        let (leader, _) = self.leader()?;
        self.kill(leader)?;
        let result = finished(load)?;
        self.boot(leader)?;
        self.wait_until_all_are_heard()?;
        result["longest_gap_ms"].as_f64().context("the result of the run names no gap")
    }

    fn status(&self) -> anyhow::Result<Value> {
        let urls: Vec<&str> = self.nodes.iter().map(|(_, url, _)| url.as_str()).collect();
        let done = Command::new(self.binary).args(["status", "--output", "json", "--url", &urls.join(",")]).output()?;
        serde_json::from_slice(&done.stdout).context("quorate status")
    }

    pub(crate) fn wait_until_all_are_heard(&self) -> anyhow::Result<()> {
        let step = Duration::from_millis(100);
        for _ in 0..BACK_WAIT.as_millis() / step.as_millis() {
            let all = self.status().is_ok_and(|status| {
                let nodes = status["nodes"].as_array();
                nodes.is_some_and(|nodes| nodes.iter().all(|node| node["reachable"] == true))
                    && !status["leader"].is_null()
            });
            if all {
                return Ok(());
            }
            pause(step);
        }
        bail!("after {} s not all nodes are heard", BACK_WAIT.as_secs());
    }
}

pub(crate) fn finished(child: Child) -> anyhow::Result<Value> {
    let done = child.wait_with_output().context("quorate bench")?;
    if !done.status.success() {
        bail!("quorate bench failed ({}); what it said is above", done.status);
    }
    serde_json::from_slice(&done.stdout).context("the result of quorate bench")
}

pub(crate) fn signal(name: &str, pid: u64) -> anyhow::Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().context("kill")?;
    if !status.success() {
        bail!("kill -{name} {pid} failed");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a job of a developer measures in real time")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[expect(clippy::disallowed_methods, reason = "a job of a developer measures in real time")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}
