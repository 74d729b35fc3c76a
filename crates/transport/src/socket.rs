//! Options of the sockets: how soon a connection to a node that vanished counts as lost.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::lane::Lane;

/// An idle connection is probed after this, and again each of these, so that one whose peer
/// lost power does not stay for hours.
const PROBE_AFTER: Duration = Duration::from_secs(5);

/// How long sent bytes may stay unacknowledged. Without it, a connection into a healed
/// partition waits for TCP's own retry, up to two minutes later; a new one is quicker.
fn unacknowledged_max(lane: Lane) -> Duration {
    match lane {
        Lane::Heartbeat => Duration::from_secs(1),
        Lane::Protocol | Lane::Bulk => Duration::from_secs(5),
    }
}

/// Of a connection that this node dialed.
pub(crate) fn prepare_dialed(stream: &TcpStream, lane: Lane) -> io::Result<()> {
    prepare_accepted(stream)?;
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(unacknowledged_max(lane)))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unacknowledged_max(lane);
    Ok(())
}

/// Of a connection that this node accepted.
pub(crate) fn prepare_accepted(stream: &TcpStream) -> io::Result<()> {
    // A turn of the leader is one write already; waiting for more would only delay it.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_AFTER);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
