//! When the calls of an open loop are due.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

use crate::now;

/// Call n is due n intervals after the start, whatever became of those before.
pub(crate) struct Pace {
    start: Instant,
    rate: f64,
    /// Calls that a client has taken.
    taken: Cell<u64>,
    /// One permit for each call that is due and not taken.
    due: Semaphore,
}

impl Pace {
    pub(crate) fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate, taken: Cell::new(0), due: Semaphore::new(0) }
    }

    /// Waits until a call is due that no other client has taken, and says since when it is.
    pub(crate) async fn next(&self) -> Instant {
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        let number = self.taken.get();
        self.taken.set(number + 1);
        self.at(number)
    }

    /// Calls that are due and that nobody has taken.
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
        let mut told = 0;
        loop {
            let due = self.count(now());
            self.due.add_permits(usize::try_from(due - told).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS));
            told = due;
            // A timer that is set to nothing never rings.
            let left = self.at(told).saturating_duration_since(now()).max(Duration::from_nanos(1));
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
