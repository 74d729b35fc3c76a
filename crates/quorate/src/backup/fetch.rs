//! `quorate backup`: takes a backup from a running node into a file.
//!
//! The file gets its name only when it is whole, verified and synced, so that whatever bears the
//! name is a backup.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use reqwest::Response;
use serde_json::json;

use super::format::{Counter, Manifest};
use super::part::Part;
use super::progress::Progress;
use crate::cli::{Backup, Output};
use crate::client::{self, base_url, show};
use crate::failure::{Failure, Refusal};

/// A node that says nothing for so long will not go on.
const SILENCE: Duration = Duration::from_secs(60);

/// What is left when no leader is.
const LOCAL: &str =
    "; where none will come, --local takes what the node has, and calls acknowledged last may be missing";

/// Takes the backup.
///
/// # Errors
/// A file that is there already, or is none, no node that answers, or a backup that did not arrive whole.
pub(crate) fn run(backup: &Backup) -> Result<(), Failure> {
    let file = &target(backup)?;
    let mut part = Part::begin(file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(fetch(backup, &mut part))?;
    let manifest = check(part.path())?;
    part.name(file, backup.force)?;
    Ok(report(backup, &manifest)?)
}

/// Reads again what was written.
fn check(part: &Path) -> anyhow::Result<Manifest> {
    let read = File::open(part).with_context(|| format!("{} cannot be read again", part.display()))?;
    let total = read.metadata().map(|found| found.len()).unwrap_or(0);
    let mut progress = Progress::new("verifying", total);
    let (manifest, _) = super::verify::verify(BufReader::new(read), &mut |bytes| progress.reached(bytes))
        .map_err(|why| anyhow!("what arrived is not usable: {why}"))?;
    progress.end();
    Ok(manifest)
}

/// The file to write. A symbolic link leads to the file that is replaced.
fn target(backup: &Backup) -> Result<PathBuf, Failure> {
    let file = &backup.file;
    super::refuse_stream(file)?;
    let wrong = |why: &str| Failure::Usage(format!("{} {why}", file.display()));
    let found = match fs::symlink_metadata(file) {
        Ok(found) if found.is_symlink() => fs::metadata(file),
        Ok(found) => Ok(found),
        Err(_) => return Ok(file.clone()),
    };
    match found {
        Ok(found) if found.is_dir() => Err(wrong("is a directory; give the name of the file to write")),
        Ok(found) if !found.is_file() => Err(wrong("is no regular file; give the name of the file to write")),
        Ok(_) if !backup.force => Err(wrong("is there already; name another file, or say --force")),
        Ok(_) => Ok(fs::canonicalize(file).with_context(|| format!("{} cannot be found", file.display()))?),
        Err(_) => Err(wrong("is a symbolic link that leads to no file; name another file")),
    }
}

/// From the first node that gives a whole one. One that knows of no leader, is behind, has no room, or ends meanwhile may
/// have a neighbour that is better off.
async fn fetch(backup: &Backup, part: &mut Part) -> Result<(), Failure> {
    let trust = &backup.connection.trust;
    let client = client::client(trust)?.connect_timeout(client::CONNECT_WAIT).read_timeout(SILENCE).build();
    let client = client.context("no HTTP client")?;
    let query = if backup.local { "?consistency=local" } else { "" };
    let (mut unreachable, mut failed) = (Vec::new(), None);
    for url in &backup.connection.url {
        let base = base_url(url, trust)?;
        match client.get(format!("{base}/v1/backup{query}")).send().await {
            Ok(response) if response.status().is_success() => match receive(response, part).await? {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let why = client::innermost(&error);
                    let broke = anyhow!("{url}: the connection broke ({why}); take the backup again");
                    // Another node may have applied less: whose state it is to be is for the operator to say.
                    if backup.local {
                        return Err(broke.into());
                    }
                    failed = Some(broke.into());
                }
            },
            Ok(response) => {
                let status = response.status();
                let body = response.bytes().await.unwrap_or_default();
                let refusal = Failure::Refused(Refusal::new(status, &body).of_read().without_leader(LOCAL));
                if !status.is_server_error() {
                    return Err(refusal);
                }
                failed = Some(refusal);
            }
            Err(error) => unreachable.push(format!("{url}: {}", client::innermost(&error))),
        }
    }
    Err(failed.unwrap_or_else(|| client::no_answer(&unreachable).into()))
}

/// Writes what one node gives, in the place of what another one gave. The inner error is that of the connection.
async fn receive(mut response: Response, part: &mut Part) -> anyhow::Result<reqwest::Result<()>> {
    let doing = format!("{} cannot be written", part.path().display());
    part.begin_anew().with_context(|| doing.clone())?;
    // How many bytes come is not known, how many records is.
    let (mut progress, mut counter, mut received) = (Progress::new("receiving", 0), Counter::default(), 0);
    loop {
        let bytes = match response.chunk().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(error) => {
                progress.end();
                return Ok(Err(error));
            }
        };
        part.file().write_all(&bytes).with_context(|| doing.clone())?;
        received += bytes.len() as u64;
        counter.take(&bytes);
        progress.reached_part(received, (counter.records, counter.total));
    }
    progress.end();
    part.file().sync_all().with_context(|| format!("{} cannot be synced", part.path().display()))?;
    Ok(Ok(()))
}

fn report(backup: &Backup, manifest: &Manifest) -> anyhow::Result<()> {
    let bytes = fs::metadata(&backup.file).map(|found| found.len()).unwrap_or(0);
    match backup.connection.output {
        Output::Json => show(format!("{}\n", json!({ "file": backup.file, "bytes": bytes, "manifest": manifest }))),
        Output::Text => show(format!(
            "{}: the state of cluster {} at command {}, {} records, {bytes} bytes, verified\n{}digest {}\n",
            backup.file.display(),
            manifest.cluster,
            manifest.command,
            manifest.records,
            super::said_of_local(manifest),
            manifest.digest
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::cli::{Connection, Trust};

    /// A node that is asked once, gives so many bytes of what it announces, and is gone. Its URL.
    #[expect(clippy::disallowed_methods, reason = "it goes on beside the test")]
    fn gives(content: &[u8], length: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len());
        let answer = [head.as_bytes(), &content[..length]].concat();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it is asked");
            _ = stream.read(&mut [0; 4096]).expect("a request");
            stream.write_all(&answer).expect("it is taken");
        });
        url
    }

    fn backup_of(file: PathBuf, url: Vec<String>) -> Backup {
        let connection = Connection { url, trust: Trust::default(), output: Output::Json };
        Backup { file, force: true, local: false, connection }
    }

    /// Catches a backup that ends with the node that gave it, though another one was named; one that puts what two nodes
    /// gave into one file; and one that is named although no node gave all.
    #[test]
    fn a_node_that_ends_meanwhile_is_followed_by_the_next() {
        transport::tls::install();
        let whole = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/backup-1.quorate")).expect("there");
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("b");
        let half = || gives(&whole, whole.len() / 2);
        let broken = run(&backup_of(file.clone(), vec![half(), half()])).expect_err("no node gave all").to_string();
        assert!(
            broken.contains("the connection broke") && fs::read_dir(place.path()).expect("there").count() == 0,
            "{broken}"
        );
        run(&backup_of(file.clone(), vec![half(), gives(&whole, whole.len())])).expect("the second one gave all");
        assert_eq!(fs::read(&file).expect("there"), whole);
    }

    /// Catches `--force` that replaces a link in place of the file to which it leads, and one that is not needed.
    #[test]
    fn a_link_leads_to_the_file_that_is_replaced() {
        let place = tempfile::tempdir().expect("a directory");
        let (file, link) = (place.path().join("file"), place.path().join("link"));
        fs::write(&file, "old").expect("written");
        std::os::unix::fs::symlink("file", &link).expect("a link");
        let mut backup = backup_of(link, Vec::new());
        assert_eq!(target(&backup).expect("a file"), fs::canonicalize(&file).expect("it is there"));
        backup.force = false;
        assert!(matches!(target(&backup), Err(Failure::Usage(_))));
    }
}
