//! What clients asked for, when, and what they heard.

use std::time::Duration;

/// A request of a client. Values are numbers; a key that isn't there counts as 0, and no client writes 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Reads the key, linearizably.
    Get,
    /// Writes it.
    Put {
        /// This.
        value: u64,
    },
    /// Writes it if it is as expected.
    Cas {
        /// Only if it is this.
        expected: u64,
        /// This.
        value: u64,
    },
}

/// What has become of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A value was read.
    Read(u64),
    /// It was written; before it was this.
    Written(u64),
    /// It was compared.
    Compared {
        /// And written.
        equal: bool,
        /// What was there before.
        before: u64,
    },
    /// The server has said that it did nothing and won't: it is held to that.
    Refused(String),
    /// Nobody knows: no answer in time, a broken connection, or an error that may mean anything.
    Unknown(String),
}

/// A request with its outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    /// Whose.
    pub client: usize,
    /// Which node was asked, counted from 0.
    pub node: usize,
    /// About this key.
    pub key: u32,
    /// What.
    pub request: Request,
    /// When, from the beginning of the load.
    pub invoked: Duration,
    /// When the answer came, or the client gave up.
    pub ended: Duration,
    /// What came of it.
    pub outcome: Outcome,
    /// The store's revision, as the answer says; 0 without an answer.
    pub revision: i64,
}

impl Op {
    /// Was it answered?
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Read(_) | Outcome::Written(_) | Outcome::Compared { .. })
    }

    /// Did it write, certainly?
    #[must_use]
    pub const fn has_written(&self) -> bool {
        matches!(self.outcome, Outcome::Written(_) | Outcome::Compared { equal: true, .. })
    }

    /// From beginning to end.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_sub(self.invoked)
    }
}

/// How the requests of a span of time fared.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Serialize)]
pub struct Span {
    /// Answered requests per second.
    pub per_second: f64,
    /// Half of the answered ones took less, in milliseconds.
    pub p50_ms: f64,
    /// All but one in a hundred.
    pub p99_ms: f64,
}

/// The answered requests that ended from `from` on and before `to`.
#[must_use]
pub fn span(ops: &[Op], from: Duration, to: Duration) -> Span {
    let within = ops.iter().filter(|op| op.is_ok() && (from..to).contains(&op.ended));
    let mut took: Vec<Duration> = within.map(Op::took).collect();
    took.sort_unstable();
    let quantile = |q: f64| {
        let place = ((took.len() as f64 * q) as usize).min(took.len().saturating_sub(1));
        took.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    let seconds = to.saturating_sub(from).as_secs_f64();
    let per_second = if seconds > 0.0 { took.len() as f64 / seconds } else { 0.0 };
    Span { per_second, p50_ms: quantile(0.5), p99_ms: quantile(0.99) }
}

/// How long after `healed` the answered requests are at `enough` per second, over half a second; `None` if they aren't before
/// `until`.
#[must_use]
pub fn recovery(ops: &[Op], healed: Duration, until: Duration, enough: f64) -> Option<Duration> {
    const WINDOW: Duration = Duration::from_millis(500);
    const STEP: Duration = Duration::from_millis(50);
    let mut ends: Vec<Duration> = ops.iter().filter(|op| op.is_ok()).map(|op| op.ended).collect();
    ends.sort_unstable();
    let mut from = healed;
    while from + WINDOW <= until {
        let within =
            ends.partition_point(|end| *end < from + WINDOW) - ends.partition_point(|end| *end < from);
        if within as f64 >= enough * WINDOW.as_secs_f64() {
            return Some(from - healed);
        }
        from += STEP;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(invoked: u64, ended: u64) -> Op {
        let [invoked, ended] = [invoked, ended].map(Duration::from_millis);
        let outcome = Outcome::Read(0);
        Op { client: 0, node: 0, key: 0, request: Request::Get, invoked, ended, outcome, revision: 1 }
    }

    #[test]
    fn a_span_counts_what_ends_in_it() {
        let ops: Vec<Op> = (0..200).map(|n| read(n * 10, n * 10 + if n % 50 == 7 { 9 } else { 2 })).collect();
        let all = span(&ops, Duration::ZERO, Duration::from_secs(2));
        assert_eq!((all.per_second, all.p50_ms, all.p99_ms), (100.0, 2.0, 9.0));
        assert_eq!(span(&ops, Duration::from_secs(5), Duration::from_secs(6)), Span::default());
    }

    #[test]
    fn recovery_is_when_there_is_enough_again() {
        // Nothing from 1 s to 2.2 s.
        let ops: Vec<Op> =
            (0..400).filter(|n| !(100..220).contains(n)).map(|n| read(n * 10, n * 10)).collect();
        let [second, end] = [1, 4].map(Duration::from_secs);
        let took = recovery(&ops, second, end, 80.0).unwrap();
        assert!((1_050..=1_200).contains(&took.as_millis()), "{took:?}");
        assert_eq!(recovery(&ops, second, Duration::from_millis(2_300), 80.0), None);
    }
}
