//! The clocks of a node: a monotonic one that begins with each life, and a wall clock that can be
//! wrong, jump, and go too fast or too slowly. Both run at one rate, as on a machine.

use std::time::Duration;

use protocol::{Now, Tick, Timestamp};

/// The time on the walls of a world at its beginning.
pub const BEGINNING: Timestamp = Timestamp(1_700_000_000_000);

/// The farthest that a wall clock gets from the world's, by jumps, where outcomes of calls are kept for far longer, which is
/// all that depends on it.
pub const WRONG_MAX: Duration = Duration::from_secs(6 * 3600);

/// How far it gets beyond that: a fifth of a run, which lasts a quarter of an hour at most.
pub const DRIFT_MAX: Duration = Duration::from_secs(180);

/// See the module.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// The world's time when the rate was set last.
    since: Tick,
    /// What the monotonic clock showed then, and the wall clock in microseconds since 1970.
    tick: u64,
    wall: i64,
    /// In thousandths.
    rate: u32,
}

impl Clocks {
    /// Right clocks.
    #[must_use]
    pub fn new() -> Self {
        Self { since: Tick(0), tick: 0, wall: micros(BEGINNING), rate: 1_000 }
    }

    /// What the node sees at a moment of the world.
    #[must_use]
    pub fn now(&self, world: Tick) -> Now {
        let passed = self.passed(world);
        let wall = self.wall.saturating_add_unsigned(passed) / 1_000;
        Now { tick: Tick(self.tick + passed), wall: Timestamp(u64::try_from(wall).unwrap_or(0)) }
    }

    /// How long the world has to wait until so much time has passed here.
    #[must_use]
    pub fn real(&self, here: Duration) -> Duration {
        here * 1_000 / self.rate
    }

    /// How fast these clocks are, in thousandths.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// A new life: the monotonic clock begins again.
    pub fn restart(&mut self, world: Tick) {
        self.settle(world);
        self.tick = 0;
    }

    /// From now on the clocks run at this rate, in thousandths.
    pub fn set_rate(&mut self, world: Tick, rate: u32) {
        self.settle(world);
        self.rate = rate.max(1);
    }

    /// The wall clock jumps by so many milliseconds, and is wrong by so much at most; says how far it got.
    pub fn jump(&mut self, world: Tick, millis: i64, wrong_max: Duration) -> i64 {
        self.settle(world);
        let right = micros(BEGINNING).saturating_add_unsigned(world.0);
        let most = i64::try_from(wrong_max.as_micros()).expect("some hours");
        let before = self.wall;
        self.wall = (self.wall + millis * 1_000).clamp(right - most, right + most);
        (self.wall - before) / 1_000
    }

    /// Both clocks are right again: the rate, and what is on the wall.
    pub fn mend(&mut self, world: Tick) {
        self.set_rate(world, 1_000);
        self.wall = micros(BEGINNING).saturating_add_unsigned(world.0);
    }

    fn passed(&self, world: Tick) -> u64 {
        (world.0 - self.since.0) * u64::from(self.rate) / 1_000
    }

    fn settle(&mut self, world: Tick) {
        let passed = self.passed(world);
        self.tick += passed;
        self.wall = self.wall.saturating_add_unsigned(passed);
        self.since = world;
    }
}

impl Default for Clocks {
    fn default() -> Self {
        Self::new()
    }
}

fn micros(wall: Timestamp) -> i64 {
    i64::try_from(wall.0 * 1_000).expect("a time of this age")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clocks: &Clocks, world: u64) -> (u64, u64) {
        let now = clocks.now(Tick(world));
        (now.tick.0, now.wall.0 - BEGINNING.0)
    }

    /// Catches a rate that changes the past, a jump that moves the monotonic clock, and a wall
    /// clock that gets farther off than outcomes are kept.
    #[test]
    fn clocks_jump_and_drift_as_they_are_told() {
        let mut clocks = Clocks::new();
        assert_eq!(at(&clocks, 10_000), (10_000, 10));
        clocks.set_rate(Tick(10_000), 800);
        assert_eq!(at(&clocks, 10_000), (10_000, 10));
        assert_eq!(at(&clocks, 20_000), (18_000, 18));
        assert_eq!(clocks.real(Duration::from_millis(8)), Duration::from_millis(10));
        assert_eq!(clocks.jump(Tick(20_000), 5_000, WRONG_MAX), 5_000);
        assert_eq!(at(&clocks, 20_000), (18_000, 5_018));
        assert!(clocks.jump(Tick(20_000), 1 << 40, WRONG_MAX) < 1 << 40, "it is kept near the truth");
        clocks.restart(Tick(20_000));
        assert_eq!(at(&clocks, 20_000).0, 0);
        clocks.mend(Tick(30_000));
        assert_eq!(at(&clocks, 30_000), (8_000, 30));
        assert_eq!(clocks.rate(), 1_000);
    }
}
