//! One outgoing connection: dials a peer for one lane, for ever, and writes what is queued.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use protocol::{Message, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::handshake::{self, DialError, HANDSHAKE_DEADLINE, Hello};
use crate::lane::Lane;
use crate::queue::{Dropped, Queue};
use crate::stream::Stream;
use crate::transport::{Link, PeerEvent, Shared};
use crate::{frame, opening, socket, wire};

/// How long resolving and connecting may take. A lost SYN is sent again after a second, then
/// after ever longer; dialing again is quicker.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// How long a node is refused since another process of it is connected, beyond [`Limits::silence`](crate::Limits), until
/// it gives up: a process that has died, or whose machine is lost, is noticed before.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many bytes of messages go into one write: a turn of a busy leader fits, and memory and
/// the time to encode stay small.
const WRITE_BYTES: usize = 1 << 20;

/// A buffer larger than this is given back after the frame that needed it.
const BUFFER_KEPT: usize = 2 * WRITE_BYTES;

pub(crate) struct Dialer {
    shared: Arc<Shared>,
    link: Arc<Link>,
    peer: NodeId,
    lane: Lane,
    /// For logs.
    label: String,
}

/// How an attempt ended.
enum End {
    /// It got no connection.
    Failed(io::Error),
    /// It got one, and no welcome.
    NotWelcome(DialError),
    /// It had one.
    Lost { lived: Duration },
}

impl Dialer {
    pub(crate) fn new(shared: Arc<Shared>, link: Arc<Link>, peer: NodeId, lane: Lane) -> Self {
        let label = format!("{peer} ({})", link.peer.name);
        Self { shared, link, peer, lane, label }
    }

    /// Until the transport is stopped or the peer is gone.
    pub(crate) async fn run(self) {
        tokio::select! {
            () = self.shared.stopped() => {}
            () = self.link.gone() => {}
            () = self.keep_dialing() => {}
        }
        self.close_queue(0);
    }

    async fn keep_dialing(&self) {
        let mut backoff = Backoff::new(self.lane);
        let mut announced = false;
        // Since when another process of this node is in its place there.
        let mut already: Option<Instant> = None;
        loop {
            let end = self.dial().await;
            if !matches!(end, End::NotWelcome(DialError::ConnectedAlready(_))) {
                already = None;
            }
            #[expect(clippy::disallowed_methods, reason = "jitter; the shell may draw lots")]
            let chance = rand::random::<f64>();
            let wait = match end {
                End::Lost { lived } => {
                    announced = false;
                    backoff.after(lived, chance)
                }
                End::Failed(error) => {
                    if !announced && self.lane == Lane::Protocol {
                        let (peer, address) = (&self.label, self.address());
                        tracing::info!(%peer, address, "cannot reach a peer: {error}; trying until it answers");
                    }
                    announced = true;
                    backoff.after(Duration::ZERO, chance)
                }
                End::NotWelcome(error) => {
                    let passes = matches!(error, DialError::NotYet(_));
                    self.shared.report.not_welcome(&self.label, error.reason(), passes, &error.to_string());
                    match error {
                        // As when a peer stops just then: it says nothing about the next attempt.
                        DialError::Broken(_) | DialError::Silent => backoff.after(Duration::ZERO, chance),
                        DialError::NotAPeer
                        | DialError::Tls(_)
                        | DialError::OtherCertificate(_)
                        | DialError::Refused(_)
                        | DialError::NotYet(_)
                        | DialError::Version { .. }
                        | DialError::WrongNode { .. } => backoff.after_refusal(chance),
                        DialError::ConnectedAlready(why) => {
                            let since = *already.get_or_insert_with(Instant::now);
                            if since.elapsed() >= self.shared.limits.silence + PATIENCE {
                                (self.shared.on_event)(PeerEvent::ConnectedAlready { peer: self.peer, why });
                            }
                            backoff.after(Duration::ZERO, chance)
                        }
                        DialError::Removed(_) => {
                            (self.shared.on_event)(PeerEvent::Removed { peer: self.peer });
                            backoff.after_refusal(chance)
                        }
                        DialError::DiskRefused(why) => {
                            (self.shared.on_event)(PeerEvent::DiskRefused { peer: self.peer, why });
                            backoff.after_refusal(chance)
                        }
                    }
                }
            };
            sleep(wait).await;
        }
    }

    async fn dial(&self) -> End {
        let connected = timeout(CONNECT_DEADLINE, self.connect()).await;
        let stream = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    (self.shared.on_event)(PeerEvent::Unreachable { peer: self.peer, lane: self.lane });
                }
                return End::Failed(error);
            }
        };
        let shaken = timeout(HANDSHAKE_DEADLINE, self.shake(stream)).await;
        match shaken.unwrap_or(Err(DialError::Silent)) {
            Ok((stream, noted)) => {
                if noted {
                    (self.shared.on_event)(PeerEvent::Noted { peer: self.peer });
                }
                End::Lost { lived: self.serve(stream).await }
            }
            Err(error) => End::NotWelcome(error),
        }
    }

    async fn shake(&self, stream: TcpStream) -> Result<(Stream, bool), DialError> {
        let identity = &self.shared.identity;
        let expected = &self.link.peer.name;
        let mut stream =
            opening::dial(self.shared.tls.as_ref(), stream, &identity.cluster_name, Some(expected)).await?;
        let hello = identity.hello(self.peer, self.lane, (self.shared.disks.say)());
        let hello = Hello { expects_name: Some(expected.clone()), ..hello };
        let noted = handshake::dial(&mut stream, &hello).await?;
        Ok((stream, noted))
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address()).await?;
        // Where nobody listens on a local port of the ephemeral range, the system may pick just
        // that one for our end: the socket is then connected to itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        socket::prepare_dialed(&stream, self.lane)?;
        Ok(stream)
    }

    /// Writes until the connection is lost; returns how long it lived.
    async fn serve(&self, stream: Stream) -> Duration {
        let (peer, lane, started) = (self.peer, self.lane, Instant::now());
        self.queue().open();
        self.shared.report.lane(lane).connections.increment(1);
        (self.shared.on_event)(PeerEvent::Connected { peer, lane });
        if lane == Lane::Protocol {
            tracing::info!(peer = %self.label, address = self.address(), "connected to a peer");
        }
        let (mut reading, mut writing) = tokio::io::split(stream);
        let in_hand = AtomicUsize::new(0);
        let why = tokio::select! {
            why = until_closed(&mut reading) => why,
            error = self.write(&mut writing, &in_hand) => error,
        };
        let lost = self.close_queue(in_hand.load(Ordering::Relaxed));
        if lane == Lane::Protocol {
            tracing::info!(peer = %self.label, messages_dropped = lost, "lost the connection to a peer: {why}");
        }
        (self.shared.on_event)(PeerEvent::Closed { peer, lane });
        started.elapsed()
    }

    /// Encodes all that waits into one buffer and writes it at once, again and again, until
    /// writing fails. `in_hand` says how many messages are being written: they may or may not arrive, and
    /// are never written again (ADR 0043).
    async fn write(&self, writing: &mut WriteHalf<Stream>, in_hand: &AtomicUsize) -> io::Error {
        let (mut batch, mut buffer) = (Vec::new(), BytesMut::new());
        let counters = self.shared.report.lane(self.lane);
        loop {
            self.queue().take(WRITE_BYTES, &mut batch).await;
            let frames = batch.drain(..).filter(|message| self.append(&mut buffer, message)).count();
            in_hand.store(frames, Ordering::Relaxed);
            // TLS keeps what it could not pass on at once.
            let written = async {
                writing.write_all(&buffer).await?;
                writing.flush().await
            };
            if let Err(error) = written.await {
                return error;
            }
            in_hand.store(0, Ordering::Relaxed);
            counters.frames_sent.increment(frames as u64);
            counters.bytes_sent.increment(buffer.len() as u64);
            buffer.clear();
            if buffer.capacity() > BUFFER_KEPT {
                buffer = BytesMut::new();
            }
        }
    }

    /// Appends the frame of a message. `false` when it does not fit one: the receiver would
    /// close the connection, and the sender's repetition would close the next one.
    fn append(&self, buffer: &mut BytesMut, message: &Message) -> bool {
        match frame::append(buffer, self.lane.frame_bytes_max(), |buffer| wire::encode(message, buffer)) {
            Ok(()) => true,
            Err(error) => {
                self.shared.report.dropped(self.lane, Dropped::TooLarge, 1);
                if let Some(repeated) = self.shared.report.may_warn(&self.label, Dropped::TooLarge.name()) {
                    let (peer, kind) = (&self.label, message.name());
                    tracing::error!(%peer, kind, repeated, "dropped a message of our own, please report this: {error}");
                }
                false
            }
        }
    }

    /// Drops what waits; that many messages were in hand. Says how many are dropped.
    fn close_queue(&self, in_hand: usize) -> usize {
        let lost = self.queue().close() + in_hand;
        self.shared.report.dropped(self.lane, Dropped::ConnectionLost, lost);
        lost
    }

    fn queue(&self) -> &Queue {
        self.link.queue(self.lane)
    }

    fn address(&self) -> &str {
        &self.link.peer.address
    }
}

/// Waits until the peer closes, which a connection that only writes would notice late.
async fn until_closed(reading: &mut ReadHalf<Stream>) -> io::Error {
    match reading.read(&mut [0]).await {
        Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed it"),
        // As TLS says it when a process ends.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "the peer closed it")
        }
        Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "the peer wrote on a connection of ours"),
        Err(error) => error,
    }
}
