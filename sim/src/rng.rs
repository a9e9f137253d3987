//! Randomness with a sequence of our own: one stream for each purpose, all derived from the run's seed.
//!
//! Only integer and basic IEEE arithmetic is used, so that a seed means the same run on every platform.

/// What a stream of random numbers is for. Drawing more for one purpose leaves the others as they were.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Which faults there are and how strong: the swarm.
    Plan,
    /// Delays and fates of messages.
    Network,
    /// Delays of disks, and what a crash leaves.
    Disk,
    /// When faults strike and whom.
    Faults,
    /// What clients do.
    Clients,
    /// In which order a driver does things.
    Driver,
    /// Rarer circumstances, and what comes of them: drawn apart, so that a seed without any stays the run that it was.
    Rare,
    /// Snapshots: when, how long, and what becomes of them.
    Snapshots,
    /// What an operator does.
    Operator,
    /// What runs on the nodes.
    Service,
    /// Sleep: who may, and when nobody asks for anything.
    Sleep,
}

/// xoshiro256++ (Blackman, Vigna), seeded by splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng([u64; 4]);

impl Rng {
    /// The stream of `seed` for `purpose`.
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Self {
        let mut state = mix(seed ^ mix(purpose as u64 + 1));
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mix(state)
        }))
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        result
    }

    /// From 0 to below `n`; 0 if `n` is 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// From `low` to `high`, each magnitude as likely as the other: for windows and delays.
    pub(crate) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let doublings = (high.max(1) / low.max(1)).checked_ilog2().unwrap_or(0);
        let low = low.max(1) << self.below(u64::from(doublings) + 1);
        self.between(low, (low * 2 - 1).min(high).max(low)).min(high)
    }

    /// An index into something of this length, which must not be empty.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Yes, with this probability.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.unit() < p
    }

    /// Exponentially distributed with this mean, cut off at 20 times the mean.
    pub(crate) fn exponential(&mut self, mean: u64) -> u64 {
        let draw = -ln(1.0 - self.unit());
        (draw.min(20.0) * mean as f64) as u64
    }

    /// One of them, which must not be none.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }

    /// As many of `0..n` as `count`, in random order.
    pub(crate) fn sample(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        self.shuffle(&mut all);
        all.truncate(count);
        all
    }

    /// In random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }
}

/// Spreads every bit of `x` over all of the result (splitmix64's finaliser).
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The natural logarithm for 0 < x ≤ 1, from basic operations only: the platform's own may differ in its last bits.
fn ln(x: f64) -> f64 {
    let mut m = x.max(f64::MIN_POSITIVE);
    let mut halvings = 0.0;
    while m < 0.5 {
        m *= 2.0;
        halvings += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let (square, mut power, mut sum) = (s * s, s, 0.0);
    for k in 0..12_u32 {
        sum += power / f64::from(2 * k + 1);
        power *= square;
    }
    2.0 * sum - halvings * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_and_purpose_and_repeat() {
        let take = |seed, purpose| {
            let mut rng = Rng::new(seed, purpose);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(take(1, Purpose::Network), take(1, Purpose::Network));
        assert_ne!(take(1, Purpose::Network), take(2, Purpose::Network));
        assert_ne!(take(1, Purpose::Network), take(1, Purpose::Disk));
    }

    #[test]
    fn draws_stay_in_range_and_near_their_mean() {
        let mut rng = Rng::new(7, Purpose::Plan);
        let mut sum = 0;
        for _ in 0..20_000 {
            assert!(rng.below(10) < 10);
            assert!((3..=5).contains(&rng.between(3, 5)));
            assert!((8..=1000).contains(&rng.magnitude(8, 1000)));
            sum += rng.exponential(1000);
        }
        let mean = sum / 20_000;
        assert!((970..1030).contains(&mean), "mean {mean}");
        assert_eq!((rng.below(0), rng.chance(0.0)), (0, false));
    }

    #[test]
    fn the_logarithm_agrees_with_the_platform() {
        for i in 1..=1000 {
            let x = f64::from(i) / 1000.0;
            assert!((ln(x) - x.ln()).abs() < 1e-10, "ln({x})");
        }
    }

    #[test]
    fn a_sample_has_no_doubles() {
        let mut rng = Rng::new(3, Purpose::Faults);
        let mut sample = rng.sample(7, 4);
        sample.sort_unstable();
        sample.dedup();
        assert_eq!(sample.len(), 4);
    }
}
