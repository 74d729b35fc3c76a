//! The two copies of the file `MEMBERSHIP`, each with a checksum.
//!
//! They are written one after the other, each aside and renamed, so that one is whole whenever a crash comes. The first
//! that is whole speaks.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use storage::rocksdb::write_whole;

use crate::sealed;

pub(super) const FILE: &str = "MEMBERSHIP";
pub(super) const COPY: &str = "MEMBERSHIP.copy";

/// Writes both copies: afterwards they are durably there.
pub(super) fn write(dir: &Path, text: &[u8]) -> io::Result<()> {
    let bytes = sealed::seal(text);
    [FILE, COPY].into_iter().try_for_each(|file| write_whole(dir, file, &bytes))
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
