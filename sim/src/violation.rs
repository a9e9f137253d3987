//! Something that must never be, and was.

use std::fmt;

/// A broken invariant: the seed says how to see it again.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Violation {
    /// Which, by the names of the list of invariants (`S1`, `D2`, … `liveness`).
    pub invariant: &'static str,
    /// In which run.
    pub seed: u64,
    /// When, in µs of virtual time.
    pub at: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, seed, at, what } = self;
        write!(f, "seed {seed}: {invariant} violated at {:.6} s: {what}", *at as f64 / 1e6)
    }
}

impl std::error::Error for Violation {}

/// A check's verdict, before it is known when and in which run.
pub(crate) type Verdict = Result<(), Broken>;

/// Which invariant, and what was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Broken(pub(crate) &'static str, pub(crate) String);

/// Fails with the invariant's name and a sentence, unless it holds.
macro_rules! hold {
    ($condition:expr, $invariant:literal, $($what:tt)+) => {
        if !$condition {
            return Err($crate::violation::Broken($invariant, format!($($what)+)));
        }
    };
}

pub(crate) use hold;
