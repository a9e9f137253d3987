//! So many bytes a second, whoever they are of.

use std::{
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A bucket that refills at a steady rate. Those who share it take turns: each is told how long to wait for its bytes, behind all
/// that were asked for before.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Option<NonZeroU64>,
    started: Instant,
    /// When all that was asked for until now is paid for, since `started`.
    paid: Mutex<Duration>,
}

/// What was not used is saved up for as long as this: short, so that a pause is not followed by a burst that commits would feel.
const BURST: Duration = Duration::from_millis(20);

impl Throttle {
    /// So many bytes a second; `None`: as fast as it goes.
    pub(crate) fn new(rate: Option<NonZeroU64>) -> Self {
        Self { rate, started: Instant::now(), paid: Mutex::new(Duration::ZERO) }
    }

    /// Waits until so many bytes may go. Given up while it waits, they are paid for all the same.
    pub(crate) async fn pass(&self, bytes: usize) {
        let wait = self.reserve(bytes, self.started.elapsed());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait before so many bytes may go, on a thread that waits by itself.
    pub(crate) fn delay(&self, bytes: usize) -> Duration {
        self.reserve(bytes, self.started.elapsed())
    }

    fn reserve(&self, bytes: usize, now: Duration) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let cost = u128::from(bytes as u64) * 1_000_000_000 / u128::from(rate.get());
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*paid).max(now.saturating_sub(BURST));
        *paid = start.saturating_add(cost);
        start.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn the_rate_is_kept_over_time_and_shared_in_turns() {
        let throttle = Throttle::new(NonZeroU64::new(64 << 20));
        let mut now = Duration::from_secs(1);
        for _ in 0..640 {
            now += throttle.reserve(MIB, now);
        }
        // 640 MiB at 64 MiB/s, but for what was saved up and the last one, which is not waited for.
        let took = now - Duration::from_secs(1);
        assert!(took > Duration::from_millis(9_900) && took < Duration::from_secs(10), "{took:?}");
        // Two who ask at once: the second waits for the first one's bytes as well.
        let idle = now + Duration::from_secs(5);
        let (first, second) = (throttle.reserve(64 * MIB, idle), throttle.reserve(MIB, idle));
        assert_eq!((first, second), (Duration::ZERO, Duration::from_millis(980)));
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let throttle = Throttle::new(None);
        assert_eq!(
            (throttle.delay(usize::MAX), throttle.delay(usize::MAX)),
            (Duration::ZERO, Duration::ZERO)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_to_wait_sleeps() {
        let throttle = Throttle::new(NonZeroU64::new(MIB as u64));
        let started = Instant::now();
        for _ in 0..5 {
            throttle.pass(MIB).await;
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(5), "{took:?}");
    }
}
