//! A connection of a caller, with bounds that the HTTP library does not keep.
//!
//! - The head of a request comes within [`HEAD_WAIT`] of its first byte. The library sees to that for the first request of a
//!   connection only: who has had one reply could hold it for ever with half a line.
//! - Between two requests no more than [`UNASKED_MAX`] comes. Who sends a body that is not wanted is told so, and the library
//!   reads on for a moment, lest the reply be lost; from one who sends as fast as he can it would read nothing else.
//! - No more than [`READ_AT_ONCE`] is read before others have their turn.
//!
//! What comes while no request is under way is a head, or not wanted. So a connection counts its requests: one begins when
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
use tokio::time::{Instant, Sleep};

/// How long a client may take for the head of a request.
pub(crate) const HEAD_WAIT: Duration = Duration::from_secs(5);

/// More than any head, and more than a body that is just too long: its sender must hear of it.
const UNASKED_MAX: usize = 8 << 20;

/// What is read of one connection at a time: a sender as fast as he can would keep the thread from all others.
const READ_AT_ONCE: usize = 256 << 10;
const RESTS: u8 = 2;

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

/// What has come since the last request was over.
struct Unasked {
    /// How many requests had begun by then.
    begun: u64,
    since: Instant,
    bytes: usize,
}

/// See the module.
pub(crate) struct Bounded<S> {
    stream: S,
    turns: Rc<Turns>,
    unasked: Option<Unasked>,
    /// Read since others had their turn.
    read: usize,
    /// How often nothing is said to have come, so that they have it: twice, since the library reads on at once when it has some of
    /// a body that nobody wants.
    rests: u8,
    /// When it is looked whether a head takes too long: not for each, which most would come before.
    look: Option<Pin<Box<Sleep>>>,
}

impl<S> Drop for Bounded<S> {
    fn drop(&mut self) {
        open().decrement(1.0);
    }
}

/// Connections that are open.
fn open() -> metrics::Gauge {
    metrics::gauge!("quorate_http_connections")
}

impl<S> Bounded<S> {
    pub(crate) fn new(stream: S) -> Self {
        open().increment(1.0);
        Self { stream, turns: Rc::default(), unasked: None, read: 0, rests: 0, look: None }
    }

    pub(crate) fn turns(&self) -> Rc<Turns> {
        Rc::clone(&self.turns)
    }

    /// Bytes have come. False when there are too many of them.
    fn takes(&mut self, bytes: usize) -> bool {
        let (begun, over) = (self.turns.begun.get(), self.turns.over.get());
        if begun > over {
            self.unasked = None;
            return true;
        }
        // The library times the first head itself, and says so to the client.
        if self.look.is_none() && begun > 0 {
            self.look = Some(Box::pin(tokio::time::sleep(HEAD_WAIT)));
        }
        let before = self.unasked.take().filter(|unasked| unasked.begun == begun);
        let unasked = before.unwrap_or_else(|| Unasked { begun, since: Instant::now(), bytes: 0 });
        let unasked = self.unasked.insert(Unasked { bytes: unasked.bytes.saturating_add(bytes), ..unasked });
        unasked.bytes <= UNASKED_MAX
    }

    /// Whether a head takes too long.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some(look) = &mut self.look
            && look.as_mut().poll(cx).is_ready()
        {
            match &self.unasked {
                Some(head) if head.begun == self.turns.begun.get() => {
                    if head.since.elapsed() >= HEAD_WAIT {
                        return true;
                    }
                    look.as_mut().reset(head.since + HEAD_WAIT);
                }
                Some(_) | None => self.look = None,
            }
        }
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ends = |kind, why: &str| Poll::Ready(Err(io::Error::new(kind, why)));
        if self.is_late(cx) {
            return ends(io::ErrorKind::TimedOut, "the head of a request did not come in time");
        }
        if self.read >= READ_AT_ONCE {
            (self.read, self.rests) = (0, RESTS);
        }
        if self.rests > 0 {
            self.rests -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_pending() {
            self.read = 0;
        }
        ready!(polled)?;
        let came = buffer.filled().len() - before;
        self.read += came;
        if came > 0 && !self.takes(came) {
            return ends(io::ErrorKind::InvalidData, "more came than anybody asked for");
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// Always has more.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buffer.put_slice(&[b'x'; 4096]);
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// RELIABILITY 5, row 13. Catches a connection that is read for as long as it gives something, one that is never read again, and a
    /// task that nobody wakes.
    #[test]
    fn a_fast_sender_lets_others_have_their_turn() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut bounded = Bounded::new(Endless);
        // A request is under way, so that all of it is wanted.
        bounded.turns.begun.set(1);
        for turn in 1..=3 {
            let mut read = 0;
            let mut poll = || {
                let mut room = [0; 4096];
                let mut buffer = ReadBuf::new(&mut room);
                let polled = Pin::new(&mut bounded).poll_read(&mut Context::from_waker(&waker), &mut buffer);
                polled.is_ready().then(|| buffer.filled().len())
            };
            while let Some(bytes) = poll() {
                read += bytes;
                assert!(read <= READ_AT_ONCE, "it reads on");
            }
            assert_eq!((read, poll()), (READ_AT_ONCE, None), "both times");
            assert_eq!(woken.0.load(Ordering::SeqCst), 2 * turn);
        }
    }
}
