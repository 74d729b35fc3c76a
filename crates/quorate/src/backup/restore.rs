//! `quorate restore`: makes the data of a new cluster from a backup.
//!
//! The file is read twice: once to judge all of it, before anything is written, and once to write.
//! While it writes, the file `RESTORING` stands in the data directory: a node refuses to start
//! there, and a restore that was cut short is begun again by the same command.
//!
//! **A new identity.** What a restored node knows is of the old cluster, but what the old cluster did
//! after the backup it does not know, so it must never speak with the old nodes, nor with an empty
//! one of the same name: two of those would make a majority that knows nothing. The id of a
//! restored cluster therefore comes from its name *and* from the backup ([`cluster_of`]), and the
//! handshake refuses all others. Every node of the new cluster is restored from the same file.

use std::fs::{self, File};
use std::io::{self, BufReader, Write as _};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use protocol::{ClusterId, CommandId, SnapshotId};
use serde_json::json;
use storage::rocksdb::{Options, Stores};
use storage::{Installation, LogRecord, LogStore as _, StateStore as _};

use super::format::{BackupError, Manifest};
use super::progress::Progress;
use super::verify::{Kept, from_hex, verify};
use crate::cli::{Dev, Output, Restore};
use crate::client::show;
use crate::config::{Config, Sources};
use crate::dev::Layout;
use crate::failure::Failure;

/// Names the backup that a data directory was made from.
const ORIGIN: &str = "ORIGIN";
/// There while a data directory is being made.
const RESTORING: &str = "RESTORING";
/// What a restore leaves when it is cut short, and may take away again.
const MADE: [&str; 8] = [ORIGIN, "IDENTITY", "IDENTITY.new", "LOCK", "MARK", "MARK.new", "log", "state"];
/// A file system puts it into its root.
const NOBODYS: &str = "lost+found";

/// Restores, or only judges the file.
///
/// # Errors
/// A file that is not a whole backup, a data directory that is in use, or a failing disk.
pub(crate) fn run(restore: &Restore) -> Result<(), Failure> {
    super::refuse_stream(&restore.file)?;
    let target = if restore.dry_run { None } else { Some(Target::of(restore)?) };
    let total = open(&restore.file)?.metadata().map(|found| found.len()).unwrap_or(0);
    let refused = |why: BackupError| Failure::Failed(anyhow!("{}: {why}", restore.file.display()));
    let mut progress = Progress::new("verifying", total);
    let file = BufReader::new(open(&restore.file)?);
    let (manifest, id) = verify(file, &mut |bytes| progress.reached(bytes)).map_err(refused)?;
    progress.end();
    let nodes = target.map_or(Ok(Vec::new()), Target::nodes)?;
    for config in &nodes {
        make(config, &restore.file, &manifest.digest, id, &mut Progress::new("restoring", total))?;
    }
    Ok(report(restore, &manifest, &nodes)?)
}

/// Whose data is to be made.
enum Target {
    Node(Box<Config>),
    Dev(Layout),
}

impl Target {
    /// Looks at everything that may be wrong before the file is judged, and writes nothing.
    fn of(restore: &Restore) -> Result<Self, Failure> {
        let Some(data) = &restore.dev else {
            let sources = Sources::of_this_process(restore.given.config.clone(), &restore.given.sets);
            let config = Config::load(&sources)?.0;
            check(&config)?;
            return Ok(Self::Node(Box::new(config)));
        };
        let dev = Dev { nodes: restore.nodes, data: data.clone(), sets: restore.given.sets.clone(), ..Dev::default() };
        let layout = Layout::new(&dev)?;
        layout.nobody_runs()?;
        layout.nodes.iter().try_for_each(|node| check_empty(&node.data_dir()))?;
        Ok(Self::Dev(layout))
    }

    /// The configurations of the nodes; those of a `dev` cluster are written for that.
    fn nodes(self) -> Result<Vec<Config>, Failure> {
        match self {
            Self::Node(config) => Ok(vec![*config]),
            Self::Dev(layout) => {
                layout.write_configuration()?;
                let nodes = layout.configurations()?;
                nodes.iter().try_for_each(check)?;
                Ok(nodes)
            }
        }
    }
}

/// Refuses a node of which a restore can make nothing.
fn check(config: &Config) -> Result<(), Failure> {
    if !config.cluster.join.is_empty() {
        return Err(Failure::Usage(
            "cluster.join: a node that joins a cluster learns its state from it; a restore makes the nodes of a new \
             cluster, which are listed in cluster.members"
                .to_owned(),
        ));
    }
    check_empty(&config.node.data_dir)
}

fn open(file: &Path) -> anyhow::Result<File> {
    File::open(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// Refuses a directory that holds anything but what a restore left there.
fn check_empty(dir: &Path) -> Result<(), Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Failure::Usage(format!("node.data_dir = {}: cannot be read ({error})", dir.display())));
        }
    };
    let names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != NOBODYS)
        .collect();
    let cut_short = names.iter().any(|name| name == RESTORING);
    let ours = |name: &String| name == RESTORING || MADE.contains(&name.as_str());
    if names.is_empty() || (cut_short && names.iter().all(ours)) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "node.data_dir = {} is not empty; a restore makes the data of a new cluster: name a directory that does not \
         exist yet, or move this one away",
        dir.display()
    )))
}

/// Makes the data directory of one node, from a backup of the state with the digest `origin`, of which `id` is kept.
fn make(config: &Config, file: &Path, origin: &str, id: SnapshotId, progress: &mut Progress) -> anyhow::Result<()> {
    let dir = &config.node.data_dir;
    let doing = || format!("making the data directory {}", dir.display());
    fs::create_dir_all(dir).with_context(doing)?;
    write_synced(&dir.join(RESTORING), "A restore is under way, or was cut short: run `quorate restore` again.\n")
        .with_context(doing)?;
    sync_with_parent(dir).with_context(doing)?;
    for name in MADE {
        remove(&dir.join(name)).with_context(doing)?;
    }
    write_synced(&dir.join(ORIGIN), &format!("# The backup that this data was made from.\n{origin}\n"))
        .with_context(doing)?;
    let identity = storage::Identity { cluster: cluster_of(config)?, ..config.identity() };
    let stores = storage::rocksdb::open(dir, &identity, &Options::default()).with_context(doing)?;
    write(&stores, file, id, progress).with_context(doing)?;
    drop(stores);
    fs::remove_file(dir.join(RESTORING)).with_context(doing)?;
    sync_with_parent(dir).with_context(doing)
}

fn write(stores: &Stores, file: &Path, id: SnapshotId, progress: &mut Progress) -> anyhow::Result<()> {
    let changed = "the file was changed while it was read";
    let (mut pieces, _) = Kept::open(BufReader::new(open(file)?)).context(changed)?;
    while let Some(piece) = pieces.piece().context(changed)? {
        stores.state.stage(id, &piece)?;
        progress.reached(pieces.bytes());
    }
    progress.end();
    if stores.state.staged().is_none_or(|staged| staged.next.is_some()) {
        bail!(changed);
    }
    match stores.state.install()? {
        // Nothing to install: the state of a cluster that had issued nothing.
        Installation::Outdated if id.at == CommandId::NULL => {}
        Installation::Done(at) if at == id.at => {}
        Installation::Done(_) | Installation::Mismatch | Installation::Outdated => bail!(changed),
    }
    // New ballots begin above those of the commands that are in the state.
    stores.log.write(&[LogRecord::NextBallot(id.at.ballot)])?;
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_with_parent(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    match fs::canonicalize(dir)?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The id of the cluster that a node belongs to: that of its configuration, or, where its data was
/// made from a backup, one that names the backup, too.
///
/// # Errors
/// When a restore into this data directory was cut short, or the file that names the backup cannot
/// be read.
pub(crate) fn cluster_of(config: &Config) -> anyhow::Result<ClusterId> {
    let path = config.node.data_dir.join(ORIGIN);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(config.cluster.id),
        Err(error) => bail!("{} cannot be read: {error}", path.display()),
    };
    let origin: [u8; 32] = text
        .lines()
        .find(|line| !line.starts_with('#'))
        .and_then(from_hex)
        .ok_or_else(|| anyhow!("{} does not name a backup; restore the data directory", path.display()))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"quorate restored cluster\0").update(&config.cluster.id.0).update(&origin);
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    Ok(ClusterId(id))
}

/// Refuses to serve what a restore has not finished.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn check_finished(dir: &Path) -> Result<(), Failure> {
    if dir.join(RESTORING).exists() {
        return Err(Failure::Usage(format!(
            "node.data_dir = {}: a restore was cut short here; run `quorate restore FILE` again with the same \
             configuration",
            dir.display()
        )));
    }
    Ok(())
}

fn report(restore: &Restore, manifest: &Manifest, nodes: &[Config]) -> anyhow::Result<()> {
    let made: Vec<_> = nodes.iter().map(|config| &config.node.data_dir).collect();
    if restore.output == Output::Json {
        return show(format!("{}\n", json!({ "manifest": manifest, "made": made })));
    }
    let mut text = format!(
        "{}: a whole backup of cluster {} at command {}, {} records, made {} by node {}\n{}digest {}\n",
        restore.file.display(),
        manifest.cluster,
        manifest.command,
        manifest.records,
        manifest.made,
        manifest.node,
        super::said_of_local(manifest),
        manifest.digest
    );
    for dir in &made {
        text.push_str(&format!("made {}\n", dir.display()));
    }
    match (&restore.dev, nodes.is_empty()) {
        (_, true) => {}
        (Some(data), false) => {
            text.push_str(&format!("now: quorate dev --nodes {} --data {}\n", restore.nodes, data.display()))
        }
        (None, false) => text.push_str(
            "restore every other node of the new cluster from the same file, then start them: quorate serve\n",
        ),
    }
    show(text)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use protocol::message::Snapshot;
    use protocol::{SnapshotPiece, SnapshotRecord};

    use super::*;
    use crate::backup::format::{Reader, Writer};
    use crate::cli::Given;

    /// Of three nodes, with a change of the membership in it.
    const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/backup-1.quorate");

    fn restore(file: &Path, dev: Option<PathBuf>) -> Restore {
        let given = Given { config: None, sets: Vec::new() };
        Restore { file: file.to_owned(), dry_run: dev.is_none(), given, dev, nodes: 2, output: Output::Json }
    }

    /// The recorded backup with other pieces or another manifest, sealed anew.
    fn resealed(change: impl FnOnce(&mut Vec<SnapshotPiece>, &mut Manifest)) -> Vec<u8> {
        let (mut reader, mut manifest) = Reader::open(File::open(RECORDED).expect("there")).expect("a backup");
        let (mut pieces, mut last): (Vec<SnapshotPiece>, Option<SnapshotPiece>) = (Vec::new(), None);
        while let Some(piece) = reader.piece().expect("whole") {
            for record in piece.records {
                let next = position(&record);
                if let Some(mut before) = last.take() {
                    before.next = Some(next.clone());
                    pieces.push(before);
                }
                let from = if pieces.is_empty() { protocol::Position::default() } else { next };
                last = Some(SnapshotPiece { from, records: vec![record], next: None });
            }
        }
        pieces.extend(last);
        change(&mut pieces, &mut manifest);
        let id = SnapshotId { at: CommandId::NULL, digest: [0; 32] };
        let (mut writer, begin) = Writer::begin(&manifest);
        let mut file = begin.to_vec();
        for piece in pieces {
            file.extend_from_slice(&writer.piece(Snapshot { id, records: 0, piece: Some(piece) }));
        }
        file.extend_from_slice(&writer.end());
        file
    }

    /// As the stores order records.
    fn position(record: &SnapshotRecord) -> protocol::Position {
        let place = match record {
            SnapshotRecord::Entry { key, .. } => [&[1], key.as_str().as_bytes()].concat(),
            SnapshotRecord::Outcome { request, .. } => [&[2][..], &request.to_bytes()].concat(),
        };
        protocol::Position(place.into())
    }

    /// RELIABILITY 5 class 15: catches a file that somebody has sealed anew, of which no state can be made, and which is found
    /// out only when a data directory is there, or not by `--dry-run`.
    #[test]
    fn what_is_sealed_anew_is_refused_before_anything_is_written() {
        let place = tempfile::tempdir().expect("a directory");
        let (file, dev) = (place.path().join("file"), place.path().join("dev"));
        let outcome_of = |piece: &SnapshotPiece, number: u64| {
            let is_it = |record: &SnapshotRecord| matches!(record, SnapshotRecord::Outcome { outcome, .. } if outcome.command.0 == number);
            piece.records.iter().any(is_it)
        };
        let refused = |name: &str, bytes: Vec<u8>| {
            fs::write(&file, bytes).expect("written");
            for dev in [None, Some(dev.clone())] {
                let why = run(&restore(&file, dev)).expect_err(name).to_string();
                assert!(why.contains("use another copy") && why.lines().count() == 1, "{name}: {why}");
            }
            assert!(!dev.exists(), "{name}: something was written");
        };
        fs::write(&file, resealed(|_, _| {})).expect("written");
        run(&restore(&file, None)).expect("the same in other pieces");
        refused("another order", resealed(|pieces, _| pieces.swap(1, 2)));
        refused("all in another order", resealed(|pieces, _| pieces.reverse()));
        refused("begun twice", resealed(|pieces, _| pieces.insert(1, pieces[0].clone())));
        refused("no end", resealed(|pieces, _| pieces.last_mut().expect("one").next = Some(protocol::Position("z".into()))));
        refused("no pieces", resealed(|pieces, _| pieces.clear()));
        refused("of another command", resealed(|_, manifest| manifest.command = 99));
        refused("of no command", resealed(|_, manifest| (manifest.command, manifest.ballot) = (0, (0, 0))));
        let without_last = resealed(|pieces, manifest| {
            let at = pieces.iter().position(|piece| outcome_of(piece, manifest.command)).expect("it is there");
            let gone = pieces.remove(at);
            pieces[at - 1].next = gone.next;
            let mut digest = storage::Digest::default();
            pieces.iter().flat_map(|piece| &piece.records).for_each(|record| digest.add(record));
            manifest.digest = super::super::verify::hex(&digest.finish());
        });
        refused("without the last command", without_last);
    }
}
