//! A bound on what is done in a while, such as log lines: a hostile peer can make a node complain, but not flood its log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets a few lines through per period, and counts the others.
#[derive(Debug)]
pub(crate) struct Quiet {
    burst: u32,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    spoken: u32,
    suppressed: u64,
}

impl Quiet {
    pub(crate) fn new(burst: u32, period: Duration) -> Self {
        Self { burst, period, state: Mutex::new(State { since: Instant::now(), spoken: 0, suppressed: 0 }) }
    }

    /// May it be done once more?
    pub(crate) fn allows(&self) -> bool {
        self.speak().is_some()
    }

    /// May something be said? Then how many lines were left out since the last one.
    pub(crate) fn speak(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.elapsed() >= self.period {
            state.since = Instant::now();
            state.spoken = 0;
        }
        if state.spoken >= self.burst {
            state.suppressed += 1;
            return None;
        }
        state.spoken += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_a_few_counts_the_rest_and_speaks_again() {
        let quiet = Quiet::new(2, Duration::from_secs(3600));
        let said: Vec<_> = (0..100).map(|_| quiet.speak()).collect();
        assert_eq!(said.iter().flatten().count(), 2);
        let quiet = Quiet { period: Duration::ZERO, ..quiet };
        assert_eq!(quiet.speak(), Some(98));
        assert_eq!(quiet.speak(), Some(0));
    }
}
