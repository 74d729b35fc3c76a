//! How many files, connections among them, this process may have open.
//!
//! Shells and service managers begin with a low limit that a process may raise (1,024), for the sake of programs that
//! cannot cope with more.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// What is open beside connections of callers: the files of two databases, connections of peers, and their reserve.
const OTHERS: u64 = 1024;

/// Raises the limit as far as this process may, and says when so many connections of callers may be too many for it.
pub(crate) fn allow(connections: usize) {
    let needed = OTHERS.saturating_add(u64::try_from(connections).unwrap_or(u64::MAX));
    match raise(needed) {
        Ok(limit) if limit >= needed => {}
        Ok(limit) => warn!(
            limit,
            limits.connections = connections,
            "this process may not have so many connections open; raise its limit of open files (LimitNOFILE, ulimit -n), or \
             lower limits.connections"
        ),
        Err(error) => warn!("the limit of open files cannot be seen or raised: {error}"),
    }
}

/// Raises the limit to what is needed, or as far as this process may, and says how far that is.
pub(crate) fn raise(needed: u64) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(needed.max(soft));
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}
