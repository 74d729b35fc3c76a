//! `quorate dev`: a cluster of real node processes on this machine.
//!
//! Each node is this very binary with a file of its own, so that killing, freezing or starting
//! one by hand is the real thing. A child gets the reading end of a pipe as standard input: when
//! `dev` is gone, killed or not, the kernel closes the pipe and the child stops by itself. In a
//! terminal, Ctrl-C reaches `dev` alone (each child has a process group), which then stops the
//! nodes in an orderly way.

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

mod layout;

use crate::cli::Dev;
use crate::client::{say, show};
use crate::clock::now;
use crate::failure::Failure;
pub(crate) use layout::Layout;
use layout::Node;

/// How long the nodes may take until all are ready: opening the stores and one election, on a
/// busy machine.
const READY_WAIT: Duration = Duration::from_secs(60);

/// How often nodes are asked whether they are ready.
const READY_EVERY: Duration = Duration::from_millis(50);

/// What a stopping node gets beyond its own `shutdown.grace` of 10 s before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(13);

/// How many lines of a log are shown when its node does not start.
const LOG_LINES_SHOWN: usize = 5;

/// Runs the cluster until it is asked to stop.
///
/// # Errors
/// A port in use or a data directory of another cluster (exit code 2); a node that does not
/// start, or all nodes gone (exit code 1).
pub(crate) fn run(dev: &Dev) -> Result<(), Failure> {
    if let Some(set) = dev.sets.iter().find(|set| set.trim_start().starts_with("tls.")) {
        let line = format!(
            "--set {set}: `dev` stays on this machine and has no TLS; to try it, see `quorate certificates create`"
        );
        return Err(Failure::Usage(line));
    }
    crate::seat::check_access(&dev.data)?;
    crate::backup::check_dev_finished(&dev.data)?;
    let layout = Layout::new(dev)?;
    layout.nobody_runs()?;
    for node in &layout.nodes {
        check_port(node.http_port, "--http-base")?;
        check_port(node.peer_port, "--peer-base")?;
    }
    layout.write_configuration()?;
    layout.configurations()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(run_cluster(&layout))
}

/// Says that a port is in use before anything is started.
fn check_port(port: u16, flag: &str) -> Result<(), Failure> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Usage(format!(
            "port {port} cannot be used ({error}); stop what listens there, or choose other ports with {flag}"
        ))),
    }
}

/// A node that has ended: its place in the layout, and how.
type Ended = (usize, std::io::Result<ExitStatus>);

/// The nodes that run.
struct Cluster<'a> {
    layout: &'a Layout,
    /// The process of each node, while it runs.
    pids: Vec<Option<Pid>>,
    ended: mpsc::Receiver<Ended>,
}

async fn run_cluster(layout: &Layout) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("no handler for SIGHUP")?;
    let mut cluster = Cluster::start(layout)?;
    let running = async {
        cluster.wait_until_ready().await?;
        layout.write_nodes(&cluster.pids)?;
        show(layout.introduction(&cluster.pids))?;
        cluster.watch().await
    };
    let done = tokio::select! {
        done = running => done,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    };
    cluster.stop().await;
    for node in &layout.nodes {
        if TcpListener::bind((Ipv4Addr::LOCALHOST, node.http_port)).is_err() {
            let (name, url) = (&node.name, node.url());
            say(format_args!("node {name} was started by hand and still runs on {url}; stop it by its pid"));
        }
    }
    done.map_err(Failure::from)
}

impl<'a> Cluster<'a> {
    fn start(layout: &'a Layout) -> anyhow::Result<Self> {
        let mut pids = Vec::new();
        // One message a node at most, so that no sender ever waits.
        let (report, ended) = mpsc::channel(layout.nodes.len());
        for (index, node) in layout.nodes.iter().enumerate() {
            let mut child = layout.spawn(node)?;
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("a child without a pid")?;
            pids.push(Some(Pid::from_raw(pid)));
            let report = report.clone();
            tokio::spawn(async move {
                // `wait` of tokio closes standard input first, which would stop the node.
                let stdin = child.stdin.take();
                let status = child.wait().await;
                drop(stdin);
                let _ = report.send((index, status)).await;
            });
        }
        Ok(Self { layout, pids, ended })
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client =
            reqwest::Client::builder().timeout(Duration::from_secs(1)).no_proxy().tls_certs_only([]).build()?;
        let start = now();
        let mut shown = String::new();
        loop {
            let mut waiting = Vec::new();
            for node in &self.layout.nodes {
                let asked = client.get(format!("{}/readyz", node.url())).send().await;
                if !asked.is_ok_and(|answer| answer.status().is_success()) {
                    waiting.push(node.name.as_str());
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            let line = format!("waiting for {}", waiting.join(", "));
            if line != shown {
                say(&line);
                shown = line;
            }
            if now() - start > READY_WAIT {
                let seconds = READY_WAIT.as_secs();
                return Err(anyhow!("after {seconds} s not ready: {}; see their logs", waiting.join(", ")));
            }
            tokio::select! {
                () = tokio::time::sleep(READY_EVERY) => {}
                ended = self.ended.recv() => {
                    if let Some((index, status)) = ended {
                        self.pids[index] = None;
                        let node = &self.layout.nodes[index];
                        say(node.last_lines(LOG_LINES_SHOWN).trim_end());
                        return Err(anyhow!(
                            "node {} did not start: {}; its log: {}; its --config: {}",
                            node.name, how(&status), node.log.display(), node.config_file().display()
                        ));
                    }
                }
            }
        }
    }

    /// Reports nodes that end, until none is left.
    async fn watch(&mut self) -> anyhow::Result<()> {
        while let Some((index, status)) = self.ended.recv().await {
            let pid = self.pids[index].take();
            let node = &self.layout.nodes[index];
            let pid = pid.map_or(0, Pid::as_raw);
            let again = self.layout.command_line(node);
            let line =
                format!("node {} (pid {pid}) ended: {}; start it again with:\n  {again}\n", node.name, how(&status));
            // The others go on, whether or not anybody reads this.
            let _ = show(line);
        }
        Err(anyhow!("no node that dev started is left"))
    }

    /// Asks every node to stop, and kills those that do not.
    async fn stop(&mut self) {
        say("stopping");
        self.signal_all(Signal::SIGTERM);
        let all_gone = async {
            while self.pids.iter().any(Option::is_some) {
                let Some((index, _)) = self.ended.recv().await else { break };
                self.pids[index] = None;
            }
        };
        if tokio::time::timeout(STOP_WAIT, all_gone).await.is_err() {
            say(format_args!("nodes that did not stop in {} s are killed", STOP_WAIT.as_secs()));
            self.signal_all(Signal::SIGKILL);
            while self.pids.iter().any(Option::is_some) {
                let Some((index, _)) = self.ended.recv().await else { break };
                self.pids[index] = None;
            }
        }
    }

    fn signal_all(&self, signal: Signal) {
        for pid in self.pids.iter().flatten() {
            // An error means that the process is gone already.
            let _ = kill(*pid, signal);
            if signal == Signal::SIGTERM {
                // One that is frozen (SIGSTOP) would not see it.
                let _ = kill(*pid, Signal::SIGCONT);
            }
        }
    }
}

fn how(status: &std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

impl Node {
    fn last_lines(&self, count: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("  {line}\n")).collect()
    }
}
