//! `quorate restore`: makes the data of a new cluster from a backup.
//!
//! The file is read twice: once to judge all of it, before anything is written, and once to write. What says how far a
//! directory has come stands in [`super::place`].
//!
//! **A new identity.** What a restored node knows is of the old cluster, but what the old cluster did
//! after the backup it does not know, so it must never speak with the old nodes, nor with an empty
//! one of the same name: two of those would make a majority that knows nothing. The id of a
//! restored cluster therefore comes from its name *and* from the backup ([`place::cluster_of`]), and the
//! handshake refuses all others. Every node of the new cluster is restored from the same file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use protocol::{CommandId, SnapshotId};
use serde_json::json;
use storage::rocksdb::Stores;
use storage::{Installation, LogRecord, LogStore as _, StateStore as _, StorageError};

use super::format::{BackupError, Manifest};
use super::place::{self, Held};
use super::progress::Progress;
use super::verify::{Kept, verify};
use crate::cli::{Dev, Output, Restore};
use crate::client::show;
use crate::config::{Config, Sources};
use crate::dev::Layout;
use crate::failure::Failure;

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
    let make = |config: &Config, held: &Held| {
        make(config, held, &restore.file, &manifest.digest, id, &mut Progress::new("restoring", total))
    };
    let nodes = match &target {
        Some(target) => target.make(make).map_err(cut_short)?,
        None => Vec::new(),
    };
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
            crate::seat::check_directory(&config.node.data_dir)?;
            check(&config, false)?;
            return Ok(Self::Node(Box::new(config)));
        };
        let dev = Dev { nodes: restore.nodes, data: data.clone(), sets: restore.given.sets.clone(), ..Dev::default() };
        let layout = Layout::new(&dev)?;
        layout.nobody_runs()?;
        check_layout(&layout)?;
        Ok(Self::Dev(layout))
    }

    /// Makes the nodes, and says which. None of them is served before all are made.
    fn make(&self, make: impl Fn(&Config, &Held) -> anyhow::Result<()>) -> Result<Vec<Config>, Failure> {
        let doing = |held: &Held| format!("making the directory {}", held.dir().display());
        let (whole, nodes) = match self {
            Self::Node(config) => (None, vec![(**config).clone()]),
            Self::Dev(layout) => {
                let whole = Held::take(layout.data())?;
                check_layout(layout)?;
                whole.begin().with_context(|| doing(&whole))?;
                layout.write_configuration()?;
                (Some(whole), layout.configurations()?)
            }
        };
        let held = nodes.iter().map(|config| Held::take(&config.node.data_dir)).collect::<Result<Vec<_>, _>>()?;
        // Again: another restore may have ended there while this one judged the file.
        nodes.iter().try_for_each(|config| check(config, whole.is_some()))?;
        held.iter().try_for_each(|held| held.begin().with_context(|| doing(held)))?;
        nodes.iter().zip(&held).try_for_each(|(config, held)| make(config, held).with_context(|| doing(held)))?;
        // That of the cluster goes last.
        held.iter().chain(&whole).try_for_each(|held| held.finish().with_context(|| doing(held)))?;
        Ok(nodes)
    }
}

/// What is left to do when a disk has failed: no node is served before the same command was run again.
fn cut_short(failure: Failure) -> Failure {
    let Failure::Failed(error) = failure else { return failure };
    let why = match error.downcast_ref::<StorageError>() {
        Some(StorageError::Failed(why)) => format!("the restore was cut short: {why}"),
        Some(StorageError::Corrupt(_) | StorageError::Refused(_)) => return Failure::Failed(error),
        None if error.root_cause().is::<std::io::Error>() => format!("{error:#}"),
        None => return Failure::Failed(error),
    };
    Failure::Failed(anyhow!("{why}. {}, then run this restore again", storage::remedy(&why)))
}

/// Refuses a `dev` cluster that is there.
fn check_layout(layout: &Layout) -> Result<(), Failure> {
    let unfinished = place::is_unfinished(layout.data());
    layout.nodes.iter().try_for_each(|node| place::check_empty(&node.data_dir(), unfinished))
}

/// Refuses a node of which a restore can make nothing.
fn check(config: &Config, in_unfinished: bool) -> Result<(), Failure> {
    if !config.cluster.join.is_empty() {
        return Err(Failure::Usage(
            "cluster.join: a node that joins a cluster learns its state from it; a restore makes the nodes of a new \
             cluster, which are listed in cluster.members"
                .to_owned(),
        ));
    }
    place::check_empty(&config.node.data_dir, in_unfinished)
}

fn open(file: &Path) -> anyhow::Result<File> {
    File::open(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// Makes the data directory of one node, from a backup of the state with the digest `origin`, of which `id` is kept.
fn make(
    config: &Config,
    held: &Held,
    file: &Path,
    origin: &str,
    id: SnapshotId,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    held.name_origin(origin)?;
    let identity = storage::Identity { cluster: place::cluster_of(config)?, ..config.identity() };
    write(&held.open(&identity)?, file, id, progress)
}

fn write(stores: &Stores, file: &Path, id: SnapshotId, progress: &mut Progress) -> anyhow::Result<()> {
    let changed = "the file was changed while it was read";
    let (mut pieces, _) = Kept::open(BufReader::new(open(file)?)).context(changed)?;
    while let Some(piece) = pieces.piece().context(changed)? {
        place::step()?;
        stores.state.stage(id, &piece)?;
        progress.reached(pieces.bytes());
    }
    progress.end();
    if stores.state.staged().is_none_or(|staged| staged.next.is_some()) {
        bail!(changed);
    }
    place::step()?;
    match stores.state.install()? {
        // Nothing to install: the state of a cluster that had issued nothing.
        Installation::Outdated if id.at == CommandId::NULL => {}
        Installation::Done(at) if at == id.at => {}
        Installation::Done(_) | Installation::Mismatch | Installation::Outdated => bail!(changed),
    }
    // New ballots begin above those of the commands that are in the state.
    place::step()?;
    stores.log.write(&[LogRecord::NextBallot(id.at.ballot)])?;
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
        (None, false) if nodes.iter().all(|config| config.cluster.start.nodes().len() == 1) => {
            text.push_str("now: quorate serve, with the same configuration\n");
        }
        (None, false) => text.push_str(
            "restore every other node of the new cluster from the same file, then start them: quorate serve\n",
        ),
    }
    show(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
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

    /// Catches advice to start a node that is not served, or to mend a disk that is only full.
    #[test]
    fn a_restore_that_fails_says_how_it_goes_on() {
        let full = StorageError::Failed("IO error: No space left on device".to_owned());
        let said =
            |error: anyhow::Error| cut_short(Failure::Failed(error.context("making the data directory"))).to_string();
        for error in [full.into(), std::io::Error::from_raw_os_error(28).into()] {
            let said = said(error);
            assert!(said.ends_with("Make room on the disk, then run this restore again"), "{said}");
        }
        let said = said(anyhow!("the file was changed while it was read"));
        assert!(!said.contains("the disk"), "{said}");
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
        refused(
            "no end",
            resealed(|pieces, _| pieces.last_mut().expect("one").next = Some(protocol::Position("z".into()))),
        );
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
    /// RELIABILITY 1 (ALICE): catches a restore of a whole cluster that is cut short at some step and leaves one that `dev`
    /// starts, or a node of it that is served; and one that cannot be repeated.
    #[test]
    fn a_restore_of_a_dev_cluster_can_be_cut_short_anywhere() {
        for steps in 0.. {
            let place = tempfile::tempdir().expect("a directory");
            let (file, dev) = (Path::new(RECORDED), place.path().join("dev"));
            place::cut::after(Some(steps));
            let done = run(&restore(file, Some(dev.clone())));
            place::cut::after(None);
            let dirs = ["node-1", "node-2"].map(|node| dev.join(node).join("data"));
            if let Err(why) = &done {
                assert!(why.to_string().contains("cut short, as it was told to"), "{why}");
                if dev.join("node-1").exists() {
                    assert!(place::check_dev_finished(&dev).is_err(), "after {steps} steps");
                }
                let is_served = |dir: &&PathBuf| place::is_restored(dir) && !place::is_unfinished(dir);
                let served = dirs.iter().filter(is_served).count();
                let whole = dirs.iter().filter(|dir| dir.join("IDENTITY").exists()).count();
                assert!(
                    served == 0 || whole == dirs.len(),
                    "after {steps} steps a node is served, and not all are made"
                );
                run(&restore(file, Some(dev.clone()))).expect("the second time");
            }
            assert!(place::check_dev_finished(&dev).is_ok());
            for dir in &dirs {
                assert!(dir.join("IDENTITY").exists() && !place::is_unfinished(dir), "after {steps} steps");
            }
            let again = run(&restore(file, Some(dev.clone()))).expect_err("there is a cluster");
            assert!(again.to_string().contains("is not empty"), "{again}");
            if done.is_ok() {
                assert!(steps >= 12, "only {steps} steps");
                return;
            }
        }
    }

    /// Catches two restores into one directory: the second takes away what the first has written, and a node is served from
    /// what is left of both. And one that takes away what the other has made meanwhile.
    #[test]
    fn two_restores_into_one_directory_exclude_each_other() {
        let place = tempfile::tempdir().expect("a directory");
        let dev = place.path().join("dev");
        let restore = restore(Path::new(RECORDED), Some(dev.clone()));
        let late = Target::of(&restore).expect("nothing is there");
        for node in ["node-1", "node-2"] {
            fs::create_dir_all(dev.join(node)).expect("made");
        }
        for dir in [dev.clone(), dev.join("node-2").join("data")] {
            let held = Held::take(&dir).expect("nobody else has it");
            let refused = run(&restore).expect_err("another one has it").to_string();
            assert!(refused.contains("is under way") && refused.contains(&format!("{}:", dir.display())), "{refused}");
            drop(held);
        }
        run(&restore).expect("nobody has it any more");
        let refused = late.make(|_, _| Ok(())).expect_err("it is there by now").to_string();
        assert!(refused.contains("is not empty"), "{refused}");
        assert!(place::check_dev_finished(&dev).is_ok());
    }
}
