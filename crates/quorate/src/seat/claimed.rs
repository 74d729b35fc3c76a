//! A node that began its cluster alone, and that members of another cluster of the same name call one of their own.
//!
//! Most likely it lost its disk, and its configuration names nobody whom it could ask: it drew another id and would take
//! calls for a second, empty cluster. It cannot know that; the others know its address and call it. So it serves for the
//! first time only when it was not called for as long as they take to call, and whenever it is called, as long as it is
//! alone, it stops for good (ADR 0039). Which of the two clusters is to stay, an operator says.

use std::fs;
use std::path::Path;

use anyhow::anyhow;
use storage::rocksdb::{may_exist, write_whole};

use crate::failure::Failure;

/// There once it was called: no start serves then.
const FILE: &str = "CLAIMED";

/// Lets no later start serve, and says why.
pub(crate) fn claim(dir: &Path, by: &str) -> String {
    let why = format!(
        "node {by} of another cluster of this name calls this node one of its members, and this node has begun a cluster \
         alone: most likely it had lost its disk, and what it had is with the others. To go back to them, give it \
         `cluster.join` with the listen.peer of some of them instead of cluster.members, run `quorate recover --force`, and \
         start it. If the other cluster is the one to go, stop its nodes, remove the file {FILE} from {}, and start this node",
        dir.display()
    );
    if let Err(error) = write_whole(dir, FILE, format!("{why}\n").as_bytes()) {
        tracing::error!(%error, "cannot note that another cluster calls this node its own");
    }
    why
}

/// Refuses to serve in such a directory.
///
/// # Errors
/// What it was told then.
pub(crate) fn check_unclaimed(dir: &Path) -> Result<(), Failure> {
    let file = dir.join(FILE);
    if !may_exist(&file) {
        return Ok(());
    }
    let why = fs::read_to_string(&file).unwrap_or_else(|error| format!("{} cannot be read: {error}", file.display()));
    Err(Failure::Failed(anyhow!("node.data_dir = {}: {}", dir.display(), why.trim_end())))
}
