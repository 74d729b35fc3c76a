//! Random numbers that a seed determines.

use std::rc::Rc;

/// The widest range that is drawn from by Zipf's law, for which a table is kept.
const ZIPF_MAX: u64 = 10_000_000;

/// How numbers of a range are drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Law {
    /// Each as often as any other.
    Even,
    /// The k-th number of a range in proportion to `1 / k^s`.
    Zipf(Vec<f64>),
}

impl Law {
    /// Zipf's law for ranges of up to `widest` numbers.
    ///
    /// # Errors
    /// A sentence: an exponent that is not from 0 to 10, a range that is too wide.
    pub fn zipf(exponent: f64, widest: u64) -> Result<Self, String> {
        if !(0.0..=10.0).contains(&exponent) {
            return Err(format!("{exponent}: must be a number from 0 (even) to 10, such as 1.2"));
        }
        if widest > ZIPF_MAX {
            return Err(format!("a range of {widest} numbers is too wide: at most {ZIPF_MAX}"));
        }
        // Entry k is the sum of the first k + 1 weights: for a narrower range, only the first entries count.
        let mut sum = 0.0;
        let sums = (1..=u32::try_from(widest).unwrap_or(u32::MAX)).map(|place| {
            sum += f64::from(place).powf(-exponent);
            sum
        });
        Ok(Self::Zipf(sums.collect()))
    }
}

/// Dice (SplitMix64): fast, and good enough to pick accounts.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
    law: Rc<Law>,
}

impl Dice {
    /// Dice of their own for each client.
    #[must_use]
    pub fn new(seed: u64, client: u64, law: Rc<Law>) -> Self {
        let mut dice = Self { state: seed ^ client.wrapping_mul(0x9E37_79B9_7F4A_7C15), law };
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, each as often as any other.
    pub fn evenly_below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number below `bound`, by the law.
    #[expect(clippy::cast_precision_loss, reason = "53 random bits are what a number of this type holds")]
    pub fn below(&mut self, bound: u64) -> u64 {
        let random = self.next();
        let Law::Zipf(sums) = &*self.law else { return random % bound };
        let sums = &sums[..usize::try_from(bound).unwrap_or(usize::MAX).min(sums.len())];
        let Some(all) = sums.last() else { return 0 };
        let drawn = (random >> 11) as f64 / (1_u64 << 53) as f64 * all;
        sums.partition_point(|sum| *sum <= drawn).min(sums.len() - 1) as u64
    }

    /// A number from `low` to `high` that is none of those in `drawn`: draws anew until it differs; after many
    /// misfortunes, takes the first free number.
    pub fn distinct(&mut self, low: u64, high: u64, drawn: &[u64]) -> u64 {
        for _ in 0..64 {
            let number = low + self.below(high - low + 1);
            if !drawn.contains(&number) {
                return number;
            }
        }
        (low..=high).find(|number| !drawn.contains(number)).unwrap_or(low)
    }

    /// Two different numbers below `bound`, drawn as the template `$int(0,bound-1)`, `$distinct(0,bound-1)` does.
    pub fn pair(&mut self, bound: u64) -> (u64, u64) {
        let first = self.below(bound);
        (first, self.distinct(0, bound - 1, &[first]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a law of another exponent, or one that is right for the widest range only.
    #[test]
    fn zipf_draws_in_proportion() {
        let law = Rc::new(Law::zipf(1.2, 1000).expect("a law"));
        let mut dice = Dice::new(7, 0, law);
        for bound in [1000_u64, 10] {
            let mut seen = vec![0_u32; usize::try_from(bound).expect("small")];
            let draws = 200_000;
            for _ in 0..draws {
                seen[usize::try_from(dice.below(bound)).expect("small")] += 1;
            }
            let weights: Vec<f64> = (1..=bound).map(|place| (place as f64).powf(-1.2)).collect();
            let all: f64 = weights.iter().sum();
            for place in [0, 1, 4, 9] {
                let (found, expected) = (f64::from(seen[place]) / f64::from(draws), weights[place] / all);
                assert!((found / expected - 1.0).abs() < 0.1, "{place} of {bound}: {found}, not {expected}");
            }
        }
    }

    /// Catches an exponent or a range that would be measured as something else.
    #[test]
    fn strange_laws_are_refused() {
        assert!(Law::zipf(-1.0, 10).is_err() && Law::zipf(f64::NAN, 10).is_err());
        assert!(Law::zipf(1.2, ZIPF_MAX + 1).is_err());
        let even = Law::zipf(0.0, 4).expect("a law");
        assert_eq!(even, Law::Zipf(vec![1.0, 2.0, 3.0, 4.0]));
    }
}
