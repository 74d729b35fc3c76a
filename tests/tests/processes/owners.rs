//! A data directory of which another user has a part: neither damaged nor lost.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::geteuid;
use quorate_tests::cluster::Cluster;
use quorate_tests::skip::skipped;
use serde_json::json;

const ROOT: u32 = 0;
const NOBODY: u32 = 65534;

/// The same command for the user `nobody`.
fn of_nobody(command: &Command) -> Command {
    let mut of_nobody = Command::new("setpriv");
    of_nobody.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}")).arg("--clear-groups");
    of_nobody.arg(command.get_program()).args(command.get_args());
    for (name, _) in command.get_envs() {
        of_nobody.env_remove(name);
    }
    of_nobody
}

/// All below a directory, and its length.
fn all_in(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let is_directory = path.is_dir();
        found.insert(path.clone(), if is_directory { 0 } else { fs::metadata(&path).expect("there").len() });
        if is_directory {
            found.append(&mut all_in(&path));
        }
    }
    found
}

/// Gives something to a user, and lets nobody else have it.
fn give(place: &Path, user: u32) {
    let mode = if place.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(place, Permissions::from_mode(mode)).expect("root may");
    chown(place, Some(user), Some(user)).expect("root may");
}

/// A refusal that changes nothing, of a start and of a recovery.
async fn refused(cluster: &mut Cluster, node: usize, says: &str) {
    let (dir, was) = (cluster.data_dir(node), all_in(&cluster.data_dir(node)));
    let before = cluster.log(node).len();
    let start = of_nobody(&cluster.command(node));
    cluster.spawn(node, start);
    assert_eq!(cluster.ended(node).await.code(), Some(1), "{says}");
    let started = cluster.log(node)[before..].to_owned();
    let recover = of_nobody(&cluster.command_of(node, &["recover", "--force"])).output().expect("it runs");
    let Output { status, stderr, .. } = recover;
    assert_eq!(status.code(), Some(1), "{says}");
    for line in [started, String::from_utf8_lossy(&stderr).into_owned()] {
        for part in [says, "Permission denied", "uid 65534", "Nothing is lost", &format!("{}", dir.display())] {
            assert!(line.contains(part), "{part} is missing: {line}");
        }
        assert!(
            !line.contains("remove both") && !line.contains("Mend the disk") && !line.contains("damaged"),
            "{line}"
        );
    }
    assert_eq!(all_in(&dir), was, "{says}");
}

/// ADR 0023: catches a whole log or state that is set aside, and a directory that is given up, because root owns a part of
/// it after a copy; a recovery that stops half-way there; a message that leads to giving it up; and a MARK that is damaged
/// and said to be lost.
#[tokio::test]
async fn what_another_user_has_is_not_damaged() {
    let mut cluster = Cluster::new("owners", 3, &[]);
    let version = of_nobody(&cluster.command_of(0, &["recover", "--help"])).output();
    let above = cluster.data_dir(0).parent().expect("it has one").to_owned();
    if !geteuid().is_root() || !version.is_ok_and(|output| output.status.success()) {
        return skipped("root, setpriv, and a binary that the user nobody may run");
    }
    fs::set_permissions(&above, Permissions::from_mode(0o755)).expect("root may");
    for node in 0..3 {
        fs::create_dir(cluster.data_dir(node)).expect("made");
        give(&cluster.data_dir(node), NOBODY);
        let start = of_nobody(&cluster.command(node));
        cluster.spawn(node, start);
    }
    cluster.wait_begun().await;
    assert_eq!(cluster.call(0, "kv.put", &json!({"key": "k", "value": 1})).await.status, 200);
    let node = cluster.follower().await;
    cluster.terminate(node);
    assert_eq!(cluster.ended(node).await.code(), Some(0));
    let dir = cluster.data_dir(node);
    let parts: [&[&str]; 8] = [
        &["log"],
        &["state"],
        &["MARK"],
        &["MARK", "log"],
        &["MEMBERSHIP.copy", "MEMBERSHIP"],
        &["LOCK"],
        &["log/CURRENT"],
        &["state/CURRENT"],
    ];
    for parts in parts {
        parts.iter().for_each(|part| give(&dir.join(part), ROOT));
        refused(&mut cluster, node, parts.last().expect("there is one")).await;
        parts.iter().for_each(|part| give(&dir.join(part), NOBODY));
    }
    give(&dir, ROOT);
    refused(&mut cluster, node, "cannot be listed").await;
    give(&dir, NOBODY);

    // What is not the node's does not keep it from starting, but does not move either.
    fs::create_dir(dir.join("of root")).expect("made");
    give(&dir.join("of root"), ROOT);
    let was = all_in(&dir);
    let recover = of_nobody(&cluster.command_of(node, &["recover", "--force"])).output().expect("it runs");
    assert!(String::from_utf8_lossy(&recover.stderr).contains("of root"), "{recover:?}");
    assert_eq!((recover.status.code(), all_in(&dir)), (Some(1), was));
    let mark = fs::read(dir.join("MARK")).expect("readable");
    fs::write(dir.join("MARK"), &mark[1..]).expect("written");
    let start = of_nobody(&cluster.command(node));
    cluster.spawn(node, start);
    cluster.wait_ready().await;
    cluster.logged(node, &["the file MARK is damaged (its checksum does not fit)"]).await;
    assert_eq!(cluster.call(node, "kv.put", &json!({"key": "k", "value": 2})).await.status, 200);
    cluster.assert_agreement().await;
}
