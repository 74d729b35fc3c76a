//! One file of each kind is damaged while its node is down: no start loses what was acknowledged (S-13, S-15).
//!
//! `crates/storage/tests/rocksdb_damage.rs` tries many places of each file without processes; here it is the binary, with
//! calls going on and the vote of the healed node needed afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_tests::cluster::{Cluster, Load, eventually};

/// How often, and after which pauses, nodes are looked at until all vote.
const LOOKS: usize = 3_000;
const LOOK: Duration = Duration::from_millis(20);

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

/// Until all nodes are ready and vote. One that meets the damage while it runs ends, says so, and is started again, as a
/// supervisor does it.
async fn all_vote(cluster: &mut Cluster, what: &str) {
    for _ in 0..LOOKS {
        let mut voting = 0;
        for node in 0..cluster.size() {
            if let Some(status) = cluster.has_ended(node) {
                assert_eq!(status.code(), Some(1), "{what}: node {node}");
                let log = cluster.log(node);
                // Since it ran last.
                let said = &log[log.rfind("the node runs").unwrap_or_default()..];
                assert!(said.contains("damaged") || said.contains("Corrupt"), "{what}: node {node} ended: {said}");
                cluster.boot(node);
            }
            let Ok(checks) = cluster.try_get(node, "/readyz?verbose").await else { continue };
            voting += usize::from(checks.status == 200 && checks.text().contains("[+]acceptor ok: promises and votes"));
        }
        if voting == cluster.size() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("{what}: not all nodes vote");
}

/// Until all that is stored was read once at every node: what is damaged and was not looked at yet is found, and heals.
async fn all_read(cluster: &mut Cluster) {
    let mut node = 0;
    for _ in 0..LOOKS {
        let mut from = Some(1);
        while let Some(first) = from {
            let page = cluster.try_get(node, &format!("/v1/commands?limit=1000&from={first}")).await;
            let Ok(page) = page else { break };
            assert_eq!(page.status, 200, "{page:?}");
            from = page.json()["next"].as_u64();
        }
        node += usize::from(from.is_none());
        if node == cluster.size() {
            return;
        }
        all_vote(cluster, "at the end").await;
    }
    panic!("node {node} cannot be read");
}

/// S-13, S-15, RELIABILITY 5 class 6: each kind of file of a node is flipped and cut in turn while the node is down, under
/// load. Catches a start that takes damage for absence and loses a vote or a command, that panics or does not end, and a
/// node that never votes again, or differs from the others.
#[tokio::test]
async fn each_kind_of_file_is_flipped_and_cut_in_turn() {
    let mut cluster = Cluster::start("kinds", 3, &[]).await;
    let load = Load::start(&cluster, "load", 4).await;
    load.progress(300).await;
    // So that there are tables beside the logs. From now on each node may end by itself.
    for node in 0..3 {
        cluster.kill9(node);
        load.progress(50).await;
        cluster.boot(node);
        all_vote(&mut cluster, "before any damage").await;
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
        let what = format!("round {round}, node {node}, {how:?} {kind}");
        // Something is written since the last start, also of the state, which is synced from time to time.
        let mut durable = None;
        eventually(&format!("{what}: something durable"), async || {
            let reply = cluster.try_get(node, "/metrics").await.ok()?.text();
            let now = reply.lines().find_map(|line| line.strip_prefix("quorate_learner_durable ")).map(str::to_owned);
            (*durable.get_or_insert_with(|| now.clone()) != now).then_some(())
        })
        .await;
        cluster.kill9(node);
        let files = files(&cluster.data_dir(node));
        let Some(file) = files.get(kind) else { panic!("{what}: not among {files:?}") };
        damage(file, how);
        load.progress(30).await;
        cluster.boot(node);
        all_vote(&mut cluster, &what).await;
        cluster.kill9(other);
        load.progress(30).await;
        cluster.boot(other);
        all_vote(&mut cluster, &what).await;
    }
    let ledger = load.finish().await;
    all_read(&mut cluster).await;
    ledger.assert_kept(&cluster.assert_agreement().await);
}
