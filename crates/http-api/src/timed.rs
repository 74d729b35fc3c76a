//! A connection of a caller, with the deadline that the HTTP library keeps for its first request only: the head of a request
//! comes within [`HEAD_WAIT`] of its first byte. Without it, who has had one reply could hold a connection for ever with
//! half a line.
//!
//! Bytes that come while no request is under way are those of a head. So a connection counts its requests: one begins when
//! its head is there, and is over when its reply is written ([`Turn`]). Of a head that comes with the end of the request
//! before it nothing is seen here; then no byte more may come, and the library ends what has been idle for too long.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::dev::ServiceRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client may take for the head of a request.
pub(crate) const HEAD_WAIT: Duration = Duration::from_secs(5);

/// The requests of a connection so far.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    begun: Cell<u64>,
    over: Cell<u64>,
}

/// A request that is under way.
pub(crate) struct Turn(Rc<Turns>);

impl Turn {
    /// A request begins. `None` for one that came by no connection, as in a test.
    pub(crate) fn begin(request: &ServiceRequest) -> Option<Self> {
        let turns = Rc::clone(request.conn_data::<Rc<Turns>>()?);
        turns.begun.update(|begun| begun + 1);
        Some(Self(turns))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.over.update(|over| over + 1);
    }
}

/// See the module.
pub(crate) struct Timed<S> {
    stream: S,
    turns: Rc<Turns>,
    /// Since a head has begun to come, and how many requests had begun by then.
    head: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<S> Timed<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, turns: Rc::default(), head: None }
    }

    pub(crate) fn turns(&self) -> Rc<Turns> {
        Rc::clone(&self.turns)
    }

    /// Bytes have come. The library times the first head itself, and says so to the client.
    fn came(&mut self) {
        let (begun, over) = (self.turns.begun.get(), self.turns.over.get());
        if self.head.is_none() && begun > 0 && begun == over {
            self.head = Some((begun, Box::pin(tokio::time::sleep(HEAD_WAIT))));
        }
    }

    /// Whether a head takes too long.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.head.as_ref().is_some_and(|(begun, _)| *begun != self.turns.begun.get()) {
            self.head = None;
        }
        self.head.as_mut().is_some_and(|(_, wait)| wait.as_mut().poll(cx).is_ready())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_late(cx) {
            let late = "the head of a request did not come in time";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
