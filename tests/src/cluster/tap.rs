//! A relay between two nodes that reads along, and damages what it is told to.
//!
//! A node dials its peers and only sends on what it dialed, so a tap stands in one direction:
//! the dialer takes its address for the peer's ([`Cluster::redirect`](super::Cluster::redirect)).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use protocol::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use transport::{frame, wire};

/// See the module. It ends with the runtime of the test.
#[derive(Clone)]
pub struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    messages: BTreeMap<&'static str, u64>,
    damage: Option<Damage>,
}

/// What becomes of the next message that is no heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Half of its frame arrives; then the connection ends.
    Torn,
    /// One bit of it is flipped.
    Flipped,
}

impl Tap {
    /// A relay to the node that listens at `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let tap = Self { address: listener.local_addr().expect("it is bound"), seen: Arc::default() };
        let relay = tap.clone();
        tokio::spawn(async move {
            while let Ok((dialer, _)) = listener.accept().await {
                // A node that is down: the dialer sees its connection end, and tries again.
                let Ok(listening) = TcpStream::connect(target).await else { continue };
                let relay = relay.clone();
                tokio::spawn(async move {
                    let ((from, back), (mut answers, to)) = (dialer.into_split(), listening.into_split());
                    let mut back = back;
                    tokio::select! {
                        _ = relay.forward(from, to) => {}
                        _ = tokio::io::copy(&mut answers, &mut back) => {}
                    }
                });
            }
        });
        tap
    }

    /// Where the dialer finds it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many messages of that name went through.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.seen().messages.get(name).copied().unwrap_or(0)
    }

    /// Damages the next message that is no heartbeat.
    pub fn damage(&self, damage: Damage) {
        self.seen().damage = Some(damage);
    }

    /// Whether the damage was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.seen().damage.is_none()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Counters: they are whole whoever panicked.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn forward(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        let mut greeted = false;
        while from.read_buf(&mut buffer).await? > 0 {
            while let Some(payload) = frame::take(&mut buffer, frame::FRAME_BYTES_MAX).map_err(io::Error::other)? {
                let mut whole = BytesMut::new();
                let write = |whole: &mut BytesMut| whole.extend_from_slice(&payload);
                frame::append(&mut whole, frame::FRAME_BYTES_MAX, write).map_err(io::Error::other)?;
                // The first frame is the handshake.
                let damage = if greeted { self.note(&wire::decode(payload).map_err(io::Error::other)?) } else { None };
                greeted = true;
                match damage {
                    None => to.write_all(&whole).await?,
                    Some(Damage::Flipped) => {
                        *whole.last_mut().expect("a frame has a header") ^= 1;
                        to.write_all(&whole).await?;
                    }
                    Some(Damage::Torn) => return to.write_all(&whole[..whole.len() / 2]).await,
                }
            }
        }
        Ok(())
    }

    fn note(&self, message: &Message) -> Option<Damage> {
        let mut seen = self.seen();
        *seen.messages.entry(message.name()).or_default() += 1;
        if matches!(message, Message::FailureDetector(_)) { None } else { seen.damage.take() }
    }
}
