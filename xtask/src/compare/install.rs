//! The systems that Quorate is compared with, from Debian.

use std::path::{Path, PathBuf};

use super::Kind;
use crate::setup;

/// One system.
struct Peer {
    kind: Kind,
    /// The Debian packages that it needs.
    packages: &'static [&'static str],
    is_there: fn() -> bool,
}

const PEERS: [Peer; 3] = [
    Peer { kind: Kind::Etcd, packages: &["etcd-server"], is_there: || setup::succeeds("which", &["etcd"]) },
    Peer {
        kind: Kind::Zookeeper,
        packages: &["zookeeper"],
        is_there: || setup::succeeds("which", &["java"]) && Path::new(ZOOKEEPER).exists(),
    },
    Peer { kind: Kind::Postgresql, packages: &["postgresql"], is_there: || postgresql().is_some() },
];

/// Where Debian has ZooKeeper; its manifest names the other archives.
pub(super) const ZOOKEEPER: &str = "/usr/share/java/zookeeper.jar";

/// The programs of the newest PostgreSQL.
pub(super) fn postgresql() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let there = versions.filter(|version| version.path().join("bin/initdb").exists());
    let newest = there.max_by_key(|version| version.file_name().to_str().and_then(|name| name.parse::<u32>().ok()))?;
    Some(newest.path().join("bin"))
}

/// Those of the systems asked for that are there, after what is missing was installed as far as possible; and a line
/// about each that is not.
pub(super) fn systems(asked: &[Kind]) -> anyhow::Result<(Vec<Kind>, Vec<String>)> {
    let wanted = || PEERS.iter().filter(|peer| asked.contains(&peer.kind));
    let missing: Vec<&str> =
        wanted().filter(|peer| !(peer.is_there)()).flat_map(|peer| peer.packages).copied().collect();
    let mut why = "not found";
    if !missing.is_empty() {
        if setup::is_root() && setup::succeeds("apt-get", &["--version"]) {
            crate::step(&format!("apt-get install {}, without starting their services", missing.join(" ")));
            why = "apt-get could not install it";
            if let Err(error) = setup::install(&missing) {
                eprintln!("xtask: {error:#}");
            }
        } else {
            why = "not found, and only root can install it: apt-get install";
        }
    }
    let mut there: Vec<Kind> = asked.iter().copied().filter(|kind| *kind == Kind::Quorate).collect();
    let mut left_out = Vec::new();
    for peer in wanted() {
        if (peer.is_there)() {
            there.push(peer.kind);
        } else {
            let line = format!("{} is left out: {why} ({})", peer.kind.name(), peer.packages.join(" "));
            eprintln!("xtask: {line}");
            left_out.push(line);
        }
    }
    Ok((there, left_out))
}
