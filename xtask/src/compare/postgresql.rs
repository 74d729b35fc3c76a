//! Starting PostgreSQL: a primary and one synchronous standby.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::systems::{LOOK, Place, Processes, READY, Running, Server, local, output, run};
use super::{Kind, install};
use crate::cluster::{clock, pause};
use crate::setup::is_root;

/// Beside the defaults: room for the clients, memory and log for a table that is written all the time, and that a
/// transfer is acknowledged when the standby has synced it too.
const SETTINGS: [&str; 8] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=1100",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "synchronous_commit=on",
    "synchronous_standby_names=*",
    "hot_standby=on",
];

/// PostgreSQL does not run as root: then by its own user.
const AS_POSTGRES: [&str; 4] = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];

pub(super) fn start<'a>(place: &Place<'a>, data: &Path) -> anyhow::Result<Running<'a>> {
    let home = Home { bin: install::postgresql().context("PostgreSQL is gone")?, data };
    home.hand_over()?;
    let ports = place.ports + 70;
    let (primary, standby) = (ports.to_string(), (ports + 1).to_string());
    let at_primary = ["-h", "127.0.0.1", "-p", &primary, "-U", "postgres"];
    let mut processes = Processes(Vec::new(), "INT");
    let start = |name: &str, port: &str| {
        let mut command = home.by("postgres", |program| place.server(program));
        command.args(["-D", name, "-p", port]).args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        Server::start(command, data, name)
    };
    run(home.program("initdb").args(["-D", "primary", "-U", "postgres", "-A", "trust", "-E", "UTF8"]))?;
    processes.0.push(start("primary", &primary)?);
    home.until("the primary", home.program("pg_isready").args(at_primary))?;
    run(home.program("pg_basebackup").args(at_primary).args(["-D", "standby", "-R", "-X", "stream", "-c", "fast"]))?;
    processes.0.push(start("standby", &standby)?);
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    home.until("the synchronous standby", home.program("psql").args(at_primary).args(["-Atc", synchronous]))?;

    let version = output(&home.bin.join("postgres"), &["--version"])?;
    let version = version.trim().replace("postgres (PostgreSQL)", "PostgreSQL");
    let settings = SETTINGS.join(", ");
    let about = format!("{version}, a primary and one synchronous standby, {settings}, a session for each client");
    Ok(Running::new(Kind::Postgresql, about, vec![local(ports)], processes))
}

/// Where its programs and its data are.
struct Home<'a> {
    bin: PathBuf,
    data: &'a Path,
}

impl Home<'_> {
    /// Gives the data to the user that it runs by.
    fn hand_over(&self) -> anyhow::Result<()> {
        if !is_root() {
            return Ok(());
        }
        run(Command::new("chown").arg("postgres:").arg(self.data))?;
        let mut enter = Command::new(AS_POSTGRES[0]);
        enter.args(&AS_POSTGRES[1..]).args(["test", "-x"]).arg(self.data);
        if !enter.status().is_ok_and(|status| status.success()) {
            let data = self.data.display();
            bail!("PostgreSQL does not run as root, and its user cannot enter {data}: name another --directory");
        }
        Ok(())
    }

    /// One of its programs.
    fn program(&self, name: &str) -> Command {
        self.by(name, |program| Command::new(program))
    }

    /// The same, started in some way.
    fn by(&self, name: &str, start: impl FnOnce(&Path) -> Command) -> Command {
        let path = self.bin.join(name);
        let mut command = if is_root() {
            let mut command = start(Path::new(AS_POSTGRES[0]));
            command.args(&AS_POSTGRES[1..]).arg(path);
            command
        } else {
            start(&path)
        };
        command.env("LC_ALL", "C").current_dir(self.data);
        command
    }

    /// Asks until the answer is neither a failure nor 0.
    fn until(&self, what: &str, question: &mut Command) -> anyhow::Result<()> {
        let begun = clock();
        while !question.output().is_ok_and(|done| done.status.success() && done.stdout != b"0\n") {
            if begun.elapsed() > READY {
                bail!("{what} was not ready within {} s; see {}/*.log", READY.as_secs(), self.data.display());
            }
            pause(LOOK);
        }
        Ok(())
    }
}
