//! One file of each kind is damaged while its node is down: no start loses what was acknowledged (S-13, S-15).
//!
//! `crates/storage/tests/rocksdb_damage.rs` tries many places of each file without processes; here it is the binary, with
//! calls going on and the vote of the healed node needed afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_tests::cluster::{Cluster, Load, eventually};

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A byte in the middle changes.
    Flipped,
    /// The second half is gone.
    Cut,
}

fn damage(file: &Path, how: Damage) {
    let mut bytes = fs::read(file).expect("readable");
    let middle = bytes.len() / 2;
    match how {
        Damage::Flipped => bytes[middle] ^= 0x55,
        Damage::Cut => bytes.truncate(middle),
    }
    fs::write(file, bytes).expect("written");
}

/// The kind of a file, with the directory it is in, by its name; none for what nobody reads back (locks, the notes of
/// RocksDB for people, what was put aside).
fn kind(directory: &str, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => "WAL",
        Some("sst") => "SST",
        _ if name.starts_with("LO") => return None,
        _ => name.split('-').next()?,
    };
    Some(format!("{directory}/{kind}"))
}

/// The largest file of each kind that a node has now; empty ones have nothing to damage.
fn files(data: &Path) -> BTreeMap<String, PathBuf> {
    let mut largest: BTreeMap<String, (u64, PathBuf)> = BTreeMap::new();
    for directory in ["", "log", "state"] {
        for entry in fs::read_dir(data.join(directory)).expect("a directory") {
            let path = entry.expect("an entry").path();
            let Some(kind) = path.is_file().then(|| kind(directory, &path)).flatten() else { continue };
            let length = fs::metadata(&path).expect("a file").len();
            let known = largest.entry(kind).or_default();
            if length > known.0 {
                *known = (length, path);
            }
        }
    }
    largest.into_iter().filter(|(_, (length, _))| *length > 0).map(|(kind, (_, path))| (kind, path)).collect()
}

/// S-13, S-15, RELIABILITY 5 class 6: each kind of file of a node is flipped and cut in turn while the node is down, under
/// load. Catches a start that takes damage for absence and loses a vote or a command, that panics or does not end, and a
/// node that never votes again, or differs from the others.
#[tokio::test]
async fn each_kind_of_file_is_flipped_and_cut_in_turn() {
    let mut cluster = Cluster::start("kinds", 3, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(300).await;
    // So that there are tables beside the logs.
    for node in 0..3 {
        cluster.kill9(node);
        load.progress(50).await;
        cluster.boot(node);
        cluster.wait_begun().await;
    }
    let kinds: Vec<String> = files(&cluster.data_dir(0)).into_keys().collect();
    for kind in
        ["/MARK", "log/WAL", "log/SST", "log/MANIFEST", "log/CURRENT", "state/WAL", "state/SST", "state/MANIFEST"]
    {
        assert!(kinds.iter().any(|there| there == kind), "no {kind} among {kinds:?}");
    }
    let rounds = kinds.iter().flat_map(|kind| [(kind, Damage::Flipped), (kind, Damage::Cut)]);
    for (round, (kind, how)) in rounds.enumerate() {
        let (node, other) = (round % 3, (round + 1) % 3);
        cluster.kill9(node);
        let files = files(&cluster.data_dir(node));
        let Some(file) = files.get(kind) else { panic!("round {round}: no {kind} at node {node}: {files:?}") };
        damage(file, how);
        load.progress(30).await;
        cluster.boot(node);
        eventually(&format!("round {round}: a node that votes again, {how:?} {kind}"), async || {
            let checks = cluster.try_get(node, "/readyz?verbose").await.ok()?;
            (checks.status == 200 && checks.text().contains("[+]acceptor ok: promises and votes")).then_some(())
        })
        .await;
        cluster.kill9(other);
        load.progress(30).await;
        cluster.boot(other);
        cluster.wait_begun().await;
    }
    let ledger = load.finish().await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}
