//! The driver's clock.

use quorate_core::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Counts while the machine is suspended, as a lease needs it: a leader that slept through its lease must not wake up
/// and believe that no time has passed. On Linux that is CLOCK_BOOTTIME (CLOCK_MONOTONIC, and so `std::time::Instant`,
/// stands still in suspension); on macOS it is CLOCK_MONOTONIC (there `std::time::Instant` stands still as well).
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Which time a node lives in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    /// That of the machine.
    Boot,
    /// That of the runtime, which a test may have stopped and moves by itself. µs since this.
    #[cfg(feature = "virtual-time")]
    Virtual(tokio::time::Instant),
}

impl Clock {
    /// The time of the runtime. All nodes of a process tell the same.
    #[cfg(feature = "virtual-time")]
    pub(crate) fn in_virtual_time() -> Self {
        // A paused clock shows every task of its runtime the same time; some nodes begin earlier than others, and what they
        // tell each other never holds a time.
        Self::Virtual(tokio::time::Instant::now())
    }

    /// The time, in µs.
    pub(crate) fn now(self) -> Instant {
        match self {
            Self::Boot => boot(),
            #[cfg(feature = "virtual-time")]
            Self::Virtual(origin) => Instant(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX)),
        }
    }
}

/// The time, in µs since boot.
fn boot() -> Instant {
    let time = clock_gettime(CLOCK);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000))
}

/// The time by the wall clock, in µs since 1970.
#[cfg(feature = "record")]
pub(crate) fn wall() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_microseconds() {
        let before = super::Clock::Boot.now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(super::Clock::Boot.now().since(before) >= 2000);
    }
}
