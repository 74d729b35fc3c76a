//! When the calls of an open loop are due, and who makes them.
//!
//! Of the clients that are free the one that was busy last goes first, so that no more connections are used than calls
//! are under way: a system with room to spare is not made to keep thousands of them open.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::now;

/// Call n is due n intervals after the start, whatever became of those before.
pub(crate) struct Pace {
    start: Instant,
    rate: f64,
    /// Calls that are due.
    due: Cell<u64>,
    /// Those of them that have a client.
    given: Cell<u64>,
    /// Those of them that their client has taken up.
    taken: Cell<u64>,
    /// Clients that wait for a call; none while a call waits for a client.
    free: RefCell<Vec<oneshot::Sender<()>>>,
}

impl Pace {
    pub(crate) fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate, due: Cell::new(0), given: Cell::new(0), taken: Cell::new(0), free: RefCell::default() }
    }

    /// Waits until a call is due that no other client has taken, and says since when it is.
    pub(crate) async fn next(&self) -> Instant {
        if self.given.get() < self.due.get() {
            self.given.update(|given| given + 1);
        } else {
            let (call, called) = oneshot::channel();
            self.free.borrow_mut().push(call);
            // Whoever calls does not go away before the clients do.
            _ = called.await;
        }
        let number = self.taken.get();
        self.taken.set(number + 1);
        self.at(number)
    }

    /// Calls that are due and that no client has taken up.
    pub(crate) fn waiting(&self, now: Instant) -> impl Iterator<Item = Instant> {
        (self.taken.get()..self.count(now)).map(|number| self.at(number))
    }

    /// Lets calls become due. The runtime's own timers have a resolution of a millisecond, which is longer than
    /// a call takes; those of the kernel are exact to some microseconds.
    pub(crate) async fn drive(&self) -> io::Result<()> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        // It is read as a pipe is: eight bytes, once it has rung.
        let mut rings = pipe::Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
        loop {
            self.due.set(self.count(now()));
            while self.given.get() < self.due.get()
                && let Some(call) = self.free.borrow_mut().pop()
            {
                self.given.update(|given| given + 1);
                _ = call.send(());
            }
            // A timer that is set to nothing never rings.
            let left = self.at(self.due.get()).saturating_duration_since(now()).max(Duration::from_nanos(1));
            timer.set(Expiration::OneShot(TimeSpec::from(left)), TimerSetTimeFlags::empty())?;
            rings.read_u64().await?;
        }
    }

    /// When call `number` is due.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn at(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// How many calls are due by `now`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, far below 2^53")]
    fn count(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_secs_f64();
        (elapsed * self.rate) as u64 + 1
    }
}
