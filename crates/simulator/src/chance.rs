//! Chance: all of a world's comes from its seed, in whole numbers, so that a run can be repeated
//! in any build.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A source of chance.
#[derive(Clone, Debug)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// The chance of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let scaled = u128::from(self.any()) * u128::from(bound);
        u64::try_from(scaled >> 64).expect("the upper half of a product")
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// True in so many of 10,000 cases.
    pub fn happens(&mut self, in_ten_thousand: u32) -> bool {
        in_ten_thousand > 0 && self.below(10_000) < u64::from(in_ten_thousand)
    }

    /// True in half of all cases.
    pub fn coin(&mut self) -> bool {
        self.any() & 1 == 1
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a length")
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// These in any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches bounds that are missed or passed, and chance that differs between equal seeds.
    #[test]
    fn chance_keeps_its_bounds_and_repeats_itself() {
        let (mut one, mut other) = (Chance::new(7), Chance::new(7));
        let mut seen = [false; 5];
        for _ in 0..1_000 {
            let drawn = one.between(3, 7);
            assert_eq!(drawn, other.between(3, 7));
            seen[usize::try_from(drawn - 3).expect("small")] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert!(!one.happens(0) && one.happens(10_000));
        assert_eq!(one.below(0), 0);
        let mut items = [1, 2, 3, 4];
        one.shuffle(&mut items);
        items.sort_unstable();
        assert_eq!(items, [1, 2, 3, 4], "a shuffle loses nothing");
    }
}
