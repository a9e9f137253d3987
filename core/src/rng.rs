//! Randomness that is an argument: SplitMix64, whose sequence is ours to keep stable.

/// A small generator for election timeouts. Not for secrets.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Rng(u64);

impl Rng {
    /// Seeded with everything that tells one life of one node from another.
    pub(crate) fn new(parts: [u64; 4]) -> Self {
        let mut rng = Self(0x9E37_79B9_7F4A_7C15);
        for part in parts {
            rng.0 ^= part;
            rng.0 = rng.next();
        }
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly from `0..bound`; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The high half of a 64×64 product: the bias is below bound / 2⁶⁴.
        let product = u128::from(self.next()).wrapping_mul(u128::from(bound));
        u64::try_from(product >> 64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_sequence_is_kept() {
        let mut rng = Rng::new([1, 2, 3, 4]);
        let first: Vec<u64> = (0..4).map(|_| rng.below(1000)).collect();
        assert_eq!(first, [677, 512, 511, 225]);
    }

    #[test]
    fn stays_below_and_reaches_everything() {
        let mut rng = Rng::new([7, 0, 0, 0]);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
