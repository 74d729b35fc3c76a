//! The unit of systemd, by what systemd says of it. (It is not started: that takes a system that systemd has booted.)

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_tests::cluster::{Cluster, binary, eventually, send};
use serde_json::json;

use super::{deploy, done, has};

const UNIT: &str = "quorate.service";

/// How exposed a unit may be, of 100: what remains is the network, and a user of its own.
const EXPOSED_MAX: &str = "20";

fn unit() -> String {
    std::fs::read_to_string(deploy(UNIT)).expect("a unit")
}

/// Catches a line that systemd does not know and ignores, and a unit that lets its service do more than it needs.
#[test]
fn systemd_takes_the_unit() {
    if !has("systemd-analyze", &["--version"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(UNIT);
    // The binary need not be installed here.
    let binary = binary();
    let unit = unit().replace("/usr/local/bin/quorate", binary.to_str().expect("a plain path"));
    assert!(unit.contains("ExecStart=/"), "{unit}");
    std::fs::write(&file, unit).expect("written");
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().expect("it runs");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains(UNIT), "{said}");
    let security = ["security", "--offline=true", "--no-pager", "--threshold", EXPOSED_MAX];
    done(Command::new("systemd-analyze").args(security).arg(&file));
}

/// The system calls of a set, by those of the sets in it.
fn system_calls(set: &str) -> BTreeSet<String> {
    let listed = done(Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", set]));
    let names =
        listed.lines().filter(|line| line.starts_with(' ')).map(str::trim).filter(|line| !line.starts_with('#'));
    names.flat_map(|name| if name.starts_with('@') { system_calls(name) } else { [name.to_owned()].into() }).collect()
}

/// Catches a system call of a node that the unit forbids: it starts, takes calls, gives a backup, and stops.
#[tokio::test]
async fn a_node_makes_no_system_call_that_the_unit_forbids() {
    if !has("systemd-analyze", &["--version"]) || !has("strace", &["-V"]) {
        return;
    }
    let unit = unit();
    let set = unit.lines().find_map(|line| line.strip_prefix("SystemCallFilter=")).expect("the unit has a filter");
    let allowed = system_calls(set);
    assert!(allowed.contains("read") && !allowed.contains("mount"), "{allowed:?}");

    let directory = tempfile::tempdir().expect("a directory");
    let counted = directory.path().join("calls");
    let mut cluster = Cluster::new("filtered", 1, &[]);
    let serve = cluster.command(0);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-c", "-U", "name", "-o"]).arg(&counted).arg(serve.get_program()).args(serve.get_args());
    for (name, _) in serve.get_envs() {
        traced.env_remove(name);
    }
    cluster.spawn(0, traced);
    cluster.wait_ready().await;
    for n in 0..20 {
        assert_eq!(cluster.call(0, "kv.put", &json!({"key": "k", "value": n})).await.status, 200);
    }
    for path in ["/v1/backup", "/metrics", "/v1/commands", "/v1/state"] {
        let reply = send(cluster.client().get(cluster.url(0, path))).await.expect("it answers");
        assert_eq!(reply.status, 200, "{path}");
    }
    // The node is the child of what traces it.
    let tracer = cluster.pid(0);
    let children = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children")).expect("a process");
    let node = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("it traces a node");
    kill(Pid::from_raw(node), Signal::SIGTERM).expect("a child takes signals");
    assert_eq!(cluster.ended(0).await.code(), Some(0), "it was stopped in order");
    let made = eventually("what it has called", async || {
        let made = std::fs::read_to_string(&counted).ok()?;
        made.contains("fdatasync").then_some(made)
    })
    .await;
    // Between two rulers, below a head.
    let names = made.lines().map(str::trim).skip_while(|line| !line.starts_with("--")).skip(1);
    let made: BTreeSet<&str> = names.take_while(|line| !line.starts_with("--")).collect();
    assert!(made.len() > 30 && made.contains("accept4"), "{made:?}");
    let forbidden: Vec<&&str> = made.iter().filter(|name| !allowed.contains(**name)).collect();
    assert!(forbidden.is_empty(), "the unit forbids {forbidden:?}");
}
