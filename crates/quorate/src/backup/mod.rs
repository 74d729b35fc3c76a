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
mod progress;
mod restore;
mod send;

use std::path::Path;

use crate::failure::Failure;

pub(crate) use fetch::run as fetch;
pub(crate) use format::Manifest;
pub(crate) use restore::{check_finished, cluster_of, run as restore};
pub(crate) use send::stream;

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

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads [`hex`] back.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
