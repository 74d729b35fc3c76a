//! One incoming connection after its handshake: cuts the stream into frames and delivers them.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use protocol::NodeId;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::frame::FrameError;
use crate::lane::Lane;
use crate::processes::Connection;
use crate::stream::Moving;
use crate::transport::Shared;
use crate::wire::WireError;
use crate::{frame, wire};

/// Room for each read: many ordinary frames at once. Bodies keep it alive as long as they live.
const READ_BYTES: usize = 64 << 10;

/// A buffer larger than this is given back once it is empty.
const BUFFER_KEPT: usize = 1 << 20;

/// Why a connection is of no further use, seen from the receiver.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a message of the {} lane on this one", .0.name())]
    WrongLane(Lane),
}

impl Broken {
    fn reason(&self) -> &'static str {
        match self {
            Self::Frame(error) => error.reason(),
            Self::Wire(error) => error.reason(),
            Self::WrongLane(_) => "wrong_lane",
        }
    }
}

/// Delivers until the connection ends, a newer one replaces it, or the transport is stopped.
/// Runs on the arbiter of its lane.
pub(crate) async fn run(
    shared: Arc<Shared>,
    stream: Moving,
    peer: NodeId,
    lane: Lane,
    replaced: oneshot::Receiver<()>,
    connection: Option<Connection>,
) {
    tokio::select! {
        biased;
        () = shared.stopped() => {}
        _ = replaced => {}
        ended = read(&shared, stream, (peer, lane), connection.as_ref()) => {
            if let Err(error) = ended {
                tracing::debug!(peer = shared.label(peer), lane = lane.name(), "a peer's connection ended: {error}");
            }
        }
    }
}

async fn read(
    shared: &Shared,
    stream: Moving,
    (peer, lane): (NodeId, Lane),
    connection: Option<&Connection>,
) -> io::Result<()> {
    let mut stream = stream.arrive()?;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let count = stream.read_buf(&mut buffer).await?;
        shared.report.lane(lane).bytes_received.increment(count as u64);
        if count == 0 {
            let text = if buffer.is_empty() { "closed by the peer" } else { "closed within a frame" };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        if let Some(connection) = connection {
            connection.heard(Instant::now());
        }
        if let Err(broken) = deliver(shared, &mut buffer, peer, lane) {
            shared.report.broken(&shared.label(peer), lane, broken.reason(), &broken.to_string());
            return Ok(());
        }
        if buffer.is_empty() && buffer.capacity() > BUFFER_KEPT {
            buffer = BytesMut::new();
        }
    }
}

/// Delivers each whole frame in the buffer, in order, up to the first bad one.
fn deliver(shared: &Shared, buffer: &mut BytesMut, peer: NodeId, lane: Lane) -> Result<(), Broken> {
    while let Some(payload) = frame::take(buffer, lane.frame_bytes_max())? {
        let message = wire::decode(payload)?;
        let own = Lane::of(&message);
        if own != lane {
            return Err(Broken::WrongLane(own));
        }
        shared.report.lane(lane).frames_received.increment(1);
        (shared.on_message)(peer, message);
    }
    Ok(())
}
