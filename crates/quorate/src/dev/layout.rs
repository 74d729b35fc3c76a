//! Where the nodes of a `dev` cluster live and how each is started.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::cli::Dev;
use crate::config::{Config, Sources};
use crate::failure::Failure;

/// Of a node, in its directory.
const CONFIG_FILE: &str = "quorate.toml";

/// All nodes of the cluster and what they share.
#[derive(Debug)]
pub(crate) struct Layout {
    binary: PathBuf,
    data: PathBuf,
    sets: Vec<String>,
    /// The nodes, by id.
    pub(crate) nodes: Vec<Node>,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// From 1.
    pub(crate) id: u16,
    /// a, b, c …
    pub(crate) name: String,
    pub(crate) http_port: u16,
    pub(crate) peer_port: u16,
    directory: PathBuf,
    /// Where its standard error goes.
    pub(crate) log: PathBuf,
}

impl Node {
    /// Its REST.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Its data, unless `--set` says otherwise.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.directory.join(CONFIG_FILE)
    }
}

impl Layout {
    /// Works out the nodes; touches nothing.
    ///
    /// # Errors
    /// Ports that do not exist or collide; data of a cluster with another number of nodes.
    pub(crate) fn new(dev: &Dev) -> Result<Self, Failure> {
        let port = |base: u16, index: u16, flag: &str| {
            base.checked_add(index).ok_or_else(|| {
                let most = u16::MAX - (dev.nodes - 1);
                Failure::Usage(format!(
                    "{flag} {base}: the last port is {}; {} nodes need {flag} to be at most {most}",
                    u16::MAX,
                    dev.nodes
                ))
            })
        };
        if dev.http_base.abs_diff(dev.peer_base) < dev.nodes {
            return Err(Failure::Usage(format!(
                "--peer-base {}: must be at least {} away from --http-base {}, one port a node",
                dev.peer_base, dev.nodes, dev.http_base
            )));
        }
        let data = std::path::absolute(&dev.data).context("--data")?;
        let binary = std::env::current_exe().context("where this program lies")?;
        let mut nodes = Vec::new();
        for (index, letter) in (0..dev.nodes).zip('a'..='z') {
            let directory = data.join(format!("node-{}", index + 1));
            nodes.push(Node {
                id: index + 1,
                name: letter.to_string(),
                http_port: port(dev.http_base, index, "--http-base")?,
                peer_port: port(dev.peer_base, index, "--peer-base")?,
                log: directory.join("log"),
                directory,
            });
        }
        let layout = Self { binary, data, sets: dev.sets.clone(), nodes };
        layout.fits_what_is_there()?;
        Ok(layout)
    }

    /// Where all of it lies.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The number of nodes of a cluster cannot be changed by starting it with another one.
    fn fits_what_is_there(&self) -> Result<(), Failure> {
        let directories = || (1..=26).map(|id| self.data.join(format!("node-{id}"))).filter(|place| place.is_dir());
        // The directory of one may be gone: that is a lost disk, and no smaller cluster. The others say how many there were.
        let listed = directories().filter_map(|place| members_of(&place.join(CONFIG_FILE))).max();
        let there = listed.unwrap_or_else(|| directories().count());
        // A restore that was cut short may not have made the directories of all its nodes.
        let is_part = there < self.nodes.len() && crate::backup::is_unfinished(&self.data);
        if there == 0 || there == self.nodes.len() || is_part {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "--data {}: holds a cluster of {there} nodes; use --nodes {there}, or another --data",
            self.data.display()
        )))
    }

    /// Nothing is written under a running cluster, whoever started its nodes.
    ///
    /// # Errors
    /// When a process serves one of the nodes.
    pub(crate) fn nobody_runs(&self) -> Result<(), Failure> {
        // Every process of this machine by its pid; elsewhere than on Linux there is no list.
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = process.file_name().to_string_lossy().parse::<u32>();
            let (Ok(pid), Ok(words)) = (pid, std::fs::read(process.path().join("cmdline"))) else { continue };
            if let Some(node) = self.nodes.iter().find(|node| serves(&words, &node.config_file())) {
                return Err(Failure::Usage(format!(
                    "--data {}: node {} of it still runs (pid {pid}); stop that cluster, or use another --data",
                    self.data.display(),
                    node.name
                )));
            }
        }
        Ok(())
    }

    /// Reads the files as the nodes will, so that a wrong `--set` is said here and not in logs.
    ///
    /// # Errors
    /// The line of the configuration.
    pub(crate) fn configurations(&self) -> Result<Vec<Config>, Failure> {
        let load = |node: &Node| Config::load(&Sources::of_this_process(Some(node.config_file()), &self.sets));
        Ok(self.nodes.iter().map(|node| load(node).map(|(config, _)| config)).collect::<Result<_, _>>()?)
    }

    /// Writes the file of each node.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn write_configuration(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            std::fs::create_dir_all(&node.directory)
                .with_context(|| format!("--data: {} cannot be made", node.directory.display()))?;
            write_whole(&node.config_file(), &self.configuration(node)?)?;
        }
        Ok(())
    }

    fn configuration(&self, node: &Node) -> anyhow::Result<String> {
        let data_dir = node.data_dir();
        let data_dir = data_dir.to_str().context("--data: the path is not UTF-8; use another directory")?;
        let members: Vec<String> =
            self.nodes.iter().map(|node| format!("{}=127.0.0.1:{}", node.name, node.peer_port)).collect();
        let text = |value: &str| toml::Value::from(value);
        Ok(format!(
            "# Written by `quorate dev`, anew at each start.\n\
             [node]\nname = {}\ndata_dir = {}\n\n[cluster]\nname = \"dev\"\nmembers = {}\n\n\
             [listen]\nhttp = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:{}\"\n",
            text(&node.name),
            text(data_dir),
            toml::Value::from(members),
            node.http_port,
            node.peer_port
        ))
    }

    /// Starts the process of one node.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn spawn(&self, node: &Node) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&node.log);
        let log = log.with_context(|| format!("{} cannot be written", node.log.display()))?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(node.config_file()).arg("--stop-with-parent");
        for set in &self.sets {
            command.arg("--set").arg(set);
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).process_group(0);
        command.spawn().with_context(|| format!("{} cannot be started", self.binary.display()))
    }

    /// What starts the node by hand, in a shell, in the background.
    pub(crate) fn command_line(&self, node: &Node) -> String {
        let mut line = format!("{} serve --config {}", quoted(&self.binary), quoted(&node.config_file()));
        for set in &self.sets {
            let _ = write!(line, " --set {}", quoted(Path::new(set)));
        }
        let _ = write!(line, " >> {} 2>&1 &", quoted(&node.log));
        line
    }

    /// What is printed once all nodes are ready.
    pub(crate) fn introduction(&self, pids: &[Option<Pid>]) -> String {
        let mut text = format!("\nAll {} nodes are ready. Ctrl-C stops them.\n\n", self.nodes.len());
        for (node, pid) in self.nodes.iter().zip(pids) {
            let pid = pid.map_or(0, Pid::as_raw);
            let _ = writeln!(
                text,
                "node {}  name {}  pid {pid}  http {}  peer 127.0.0.1:{}\n  log    {}\n  again  {}",
                node.id,
                node.name,
                node.url(),
                node.peer_port,
                node.log.display(),
                self.command_line(node)
            );
        }
        if let Some(first) = self.nodes.first() {
            let body = r#"{"warehouse": "A", "amount": 500}"#;
            let _ = writeln!(
                text,
                "\nA first call, to any node:\n  curl -s -H 'Content-Type: application/json' -d '{body}' \
                 {url}/v1/functions/inventory.inbound\n  {binary} call --url {url} inventory.inbound '{body}'",
                url = first.url(),
                binary = quoted(&self.binary)
            );
        }
        text
    }

    /// Writes the same for programs: `DIR/nodes.json`.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn write_nodes(&self, pids: &[Option<Pid>]) -> anyhow::Result<()> {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .zip(pids)
            .map(|(node, pid)| {
                json!({
                    "id": node.id,
                    "name": node.name,
                    "pid": pid.map(Pid::as_raw),
                    "http": node.url(),
                    "peer": format!("127.0.0.1:{}", node.peer_port),
                    "log": node.log,
                    "again": self.command_line(node),
                })
            })
            .collect();
        write_whole(&self.data.join("nodes.json"), &format!("{:#}\n", Value::from(nodes)))
    }
}

/// How many members a configuration file lists, if it can be read.
fn members_of(file: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let members = text.parse::<toml::Table>().ok()?.get("cluster")?.get("members")?.as_array()?.len();
    Some(members)
}

/// Whether a command line, each word ended by a zero byte, is `serve` with that file.
fn serves(words: &[u8], file: &Path) -> bool {
    let mut words = words.split(|byte| *byte == 0);
    words.any(|word| word == b"serve") && words.any(|word| word.ends_with(file.as_os_str().as_encoded_bytes()))
}

/// Replaces a file at once, so that nobody reads half of it.
fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let written = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path));
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// A word for the shell.
fn quoted(word: &Path) -> String {
    let word = word.to_string_lossy();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-=:,+@".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(data: &Path) -> Dev {
        Dev {
            nodes: 3,
            data: data.to_owned(),
            http_base: 18_080,
            peer_base: 17_080,
            sets: vec!["log.level=a b".into()],
        }
    }

    /// Catches files that the node would refuse, nodes that disagree about the cluster, and ids
    /// that differ from the order in which `dev` shows the nodes.
    #[test]
    fn every_node_can_read_its_file_and_all_agree() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(&dev(directory.path())).expect("a layout");
        layout.write_configuration().expect("written");
        let mut clusters = Vec::new();
        for node in &layout.nodes {
            let sources = Sources { file: Some(node.config_file()), ..Sources::default() };
            let (config, _) = Config::load(&sources).expect("its own file");
            assert_eq!(config.cluster.me.0, u64::from(node.id));
            assert_eq!(config.listen.http.port(), 18_079 + node.id);
            assert_eq!(
                config.cluster.start.node(config.cluster.me).expect("it is one").address,
                config.listen.peer.to_string()
            );
            assert!(config.node.data_dir.starts_with(directory.path().join(format!("node-{}", node.id))));
            clusters.push((config.cluster.id, config.cluster.start));
        }
        assert!(clusters.windows(2).all(|pair| pair[0] == pair[1]), "{clusters:?}");
    }

    /// Catches ports that run into each other, and a cluster whose data another number of nodes
    /// would take for its own.
    #[test]
    fn impossible_layouts_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let refused = |change: fn(&mut Dev)| {
            let mut dev = dev(directory.path());
            change(&mut dev);
            Layout::new(&dev).map(drop).expect_err("refused").to_string()
        };
        assert!(refused(|dev| dev.peer_base = 18_082).contains("--peer-base 18082: must be at least 3 away"));
        assert!(refused(|dev| dev.http_base = 65_534).ends_with("3 nodes need --http-base to be at most 65533"));
        Layout::new(&dev(directory.path())).expect("a layout").write_configuration().expect("written");
        assert!(refused(|dev| dev.nodes = 5).contains("holds a cluster of 3 nodes; use --nodes 3"));
        assert!(Layout::new(&dev(directory.path())).is_ok(), "the same cluster goes on");
        for lost in ["node-2", "node-3"] {
            std::fs::remove_dir_all(directory.path().join(lost)).expect("removed");
            assert!(Layout::new(&dev(directory.path())).is_ok(), "{lost} has lost its disk");
            assert!(refused(|dev| dev.nodes = 2).contains("holds a cluster of 3 nodes; use --nodes 3"));
        }
    }

    /// Catches a running node that is not seen, and an editor of its file that is taken for it.
    #[test]
    fn only_a_node_serves_its_file() {
        let file = Path::new("/d/node-1/quorate.toml");
        assert!(serves(b"quorate\0serve\0--config\0/d/node-1/quorate.toml\0--stop-with-parent\0", file));
        assert!(serves(b"quorate\0serve\0--config=/d/node-1/quorate.toml\0", file));
        assert!(!serves(b"quorate\0serve\0--config\0/d/node-2/quorate.toml\0", file));
        assert!(!serves(b"vi\0/d/node-1/quorate.toml\0", file));
        assert!(!serves(b"", file));
    }

    /// Catches a printed command that a shell takes apart.
    #[test]
    fn the_command_line_survives_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.toml")), "/a/b-1.toml");
        assert_eq!(quoted(Path::new("log.level=a b")), "'log.level=a b'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
    }
}
