//! A relay between two nodes that reads along, and damages or holds back what it is told to.
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
use tokio::sync::watch;
use transport::{frame, wire};

use super::Cluster;

/// See the module. It ends with the runtime of the test.
#[derive(Clone)]
pub struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    link: Arc<watch::Sender<Link>>,
}

/// What a tap does with everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It passes.
    Open,
    /// Connections end, and new ones end at once: a process that is gone.
    Closed,
    /// Nothing passes and nobody is told: a cable that is pulled. What waits arrives later.
    Silent,
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
        let tap = Self {
            address: listener.local_addr().expect("it is bound"),
            seen: Arc::default(),
            link: Arc::new(watch::Sender::new(Link::Open)),
        };
        let relay = tap.clone();
        tokio::spawn(async move {
            while let Ok((dialer, _)) = listener.accept().await {
                // A node that is down: the dialer sees its connection end, and tries again.
                let Ok(listening) = TcpStream::connect(target).await else { continue };
                let relay = relay.clone();
                tokio::spawn(async move {
                    let ((from, back), (answers, to)) = (dialer.into_split(), listening.into_split());
                    let mut closed = relay.link.subscribe();
                    tokio::select! {
                        _ = relay.forward(from, to) => {}
                        _ = relay.answer(answers, back) => {}
                        _ = closed.wait_for(|link| *link == Link::Closed) => {}
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

    /// Changes what it does with everything.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
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

    /// Waits until bytes may pass.
    async fn pass(&self) {
        let mut link = self.link.subscribe();
        link.wait_for(|link| *link != Link::Silent).await.expect("this tap holds the sender");
    }

    /// The other direction has nothing but the answer to the handshake.
    async fn answer(&self, mut answers: OwnedReadHalf, mut back: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        while answers.read_buf(&mut buffer).await? > 0 {
            self.pass().await;
            back.write_all(&buffer.split()).await?;
        }
        Ok(())
    }

    async fn forward(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        let mut greeted = false;
        while from.read_buf(&mut buffer).await? > 0 {
            while let Some(payload) = frame::take(&mut buffer, frame::FRAME_BYTES_MAX).map_err(io::Error::other)? {
                let mut whole = BytesMut::new();
                let write = |whole: &mut BytesMut| whole.extend_from_slice(&payload);
                frame::append(&mut whole, frame::FRAME_BYTES_MAX, write).map_err(io::Error::other)?;
                self.pass().await;
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

/// A tap on every connection of a cluster.
pub struct Taps(BTreeMap<(usize, usize), Tap>);

impl Taps {
    /// Puts taps between all nodes of a cluster that does not run yet.
    pub async fn between(cluster: &mut Cluster) -> Self {
        let mut taps = BTreeMap::new();
        for from in 0..cluster.size() {
            for to in (0..cluster.size()).filter(|to| *to != from) {
                let tap = Tap::to(cluster.peer_address(to)).await;
                cluster.redirect(from, to, tap.address());
                taps.insert((from, to), tap);
            }
        }
        Self(taps)
    }

    /// What `from` sends to `to`.
    #[must_use]
    pub fn link(&self, from: usize, to: usize) -> &Tap {
        &self.0[&(from, to)]
    }

    /// Sender, receiver and tap of each direction.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize, &Tap)> {
        self.0.iter().map(|((from, to), tap)| (*from, *to, tap))
    }

    /// How many messages of that name a node has sent.
    #[must_use]
    pub fn sent(&self, from: usize, message: &str) -> u64 {
        self.iter().filter(|(sender, ..)| *sender == from).map(|(.., tap)| tap.count(message)).sum()
    }

    /// How many messages of that name there were.
    #[must_use]
    pub fn sent_by_all(&self, message: &str) -> u64 {
        self.iter().map(|(.., tap)| tap.count(message)).sum()
    }

    /// Does so with both directions between two nodes.
    pub fn set_both(&self, one: usize, other: usize, link: Link) {
        self.link(one, other).set(link);
        self.link(other, one).set(link);
    }
}
