//! Backups: the whole state at one command number, in one file.
//!
//! `quorate backup` takes the stream of `GET /v1/backup` of a running node, under load, and puts it
//! into a file only when it is whole and verified. `quorate restore` makes from it the data of a
//! *new* cluster: the same state, request ids and command numbers, another identity, so that no node
//! of the old cluster can be taken for one of the new.
//!
//! What a file proves: [`format`] finds every cut, flipped or exchanged byte, and the digest in the
//! manifest, which the node had kept command by command, is compared with one that is computed from
//! the records. Both find accidents. Neither stops whoever writes a file on purpose: keep backups
//! where only those can write whom the cluster trusts.

mod fetch;
mod format;
mod part;
mod place;
mod progress;
mod restore;
mod send;
mod verify;

use std::path::Path;

use crate::failure::Failure;

pub(crate) use fetch::run as fetch;
pub(crate) use format::Manifest;
pub(crate) use place::{check_dev_finished, check_finished, cluster_of, is_restored, is_unfinished};
pub(crate) use restore::run as restore;
pub(crate) use send::stream;

/// What people must know of a backup for which no leader was asked.
fn said_of_local(manifest: &Manifest) -> String {
    if !manifest.is_local() {
        return String::new();
    }
    format!(
        "local: what node {} had applied, without asking a leader; calls acknowledged before may be missing\n",
        manifest.node
    )
}

/// Refuses `-`: a backup is read twice, and gets its name when it is verified.
fn refuse_stream(file: &Path) -> Result<(), Failure> {
    if file == Path::new("-") {
        return Err(Failure::Usage(
            "`-` is no file: a backup is not written to standard output or read from standard input; name a file \
             (./- for one of that name)"
                .to_owned(),
        ));
    }
    Ok(())
}
