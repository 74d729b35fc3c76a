//! The two copies of the file `MEMBERSHIP`, each with a checksum.
//!
//! They are written one after the other, each aside and renamed, so that one is whole whenever a crash comes. The first
//! that is whole speaks.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use storage::rocksdb::write_whole;

pub(super) const FILE: &str = "MEMBERSHIP";
pub(super) const COPY: &str = "MEMBERSHIP.copy";
/// Begins the last line; the BLAKE3 hash of all before the line follows.
const SEAL: &[u8] = b"\nblake3 ";

/// Writes both copies: afterwards they are durably there.
pub(super) fn write(dir: &Path, text: &[u8]) -> io::Result<()> {
    let mut bytes = text.to_vec();
    bytes.extend_from_slice(SEAL);
    bytes.extend_from_slice(blake3::hash(text).to_hex().as_bytes());
    bytes.push(b'\n');
    [FILE, COPY].into_iter().try_for_each(|file| write_whole(dir, file, &bytes))
}

/// The text of a copy, and whether it had a checksum, which holds then.
pub(super) fn open(bytes: &[u8]) -> anyhow::Result<(&[u8], bool)> {
    let Some(at) = bytes.windows(SEAL.len()).rposition(|window| window == SEAL) else { return Ok((bytes, false)) };
    let (text, hash) = (&bytes[..at], &bytes[at + SEAL.len()..]);
    let expected = format!("{}\n", blake3::hash(text).to_hex());
    anyhow::ensure!(hash == expected.as_bytes(), "its content is not that of its checksum");
    Ok((text, true))
}

/// What the first copy says that is whole; nothing when there is none.
///
/// # Errors
/// When a copy is there and none can be read.
pub(super) fn read<T>(dir: &Path, parse: impl Fn(&[u8]) -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    let mut wrong = None;
    for file in [FILE, COPY] {
        let path = dir.join(file);
        let read = match fs::read(&path) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(anyhow!(error)),
        };
        match read.with_context(|| format!("{} cannot be understood", path.display())) {
            Ok(read) => {
                if let Some(wrong) = wrong {
                    tracing::warn!(
                        wrong = format!("{wrong:#}"),
                        "the other copy is whole, and is used; the next change mends this one"
                    );
                }
                return Ok(Some(read));
            }
            Err(error) => wrong = Some(error),
        }
    }
    let Some(wrong) = wrong else { return Ok(None) };
    Err(wrong.context(format!(
        "no copy of {FILE} in {} is whole, so that this node does not know who it is. If its configuration lists it in \
         cluster.members, remove both ({FILE}, {COPY}) and start it: its databases and its configuration know the rest. \
         If it has joined (cluster.join), give it an empty data directory: it joins anew",
        dir.display()
    )))
}
