//! What a workload draws from.

use crate::rng::{Purpose, Rng, mix};

/// Randomness that follows from a run's seed alone.
#[derive(Clone, Debug)]
pub struct Random(Rng);

impl Random {
    /// The stream of a seed. It is none of those that the run itself draws from.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Rng::new(mix(seed ^ 0x776F_726B_6C6F_6164), Purpose::Clients))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next()
    }

    /// From 0 to below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.between(low, high)
    }

    /// Yes, with this probability.
    pub fn chance(&mut self, p: f64) -> bool {
        self.0.chance(p)
    }

    /// One of them; `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.0.index(items.len()))
    }

    /// In random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}
