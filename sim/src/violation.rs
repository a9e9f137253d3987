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

/// Every invariant's name.
const NAMES: &[&str] = &[
    "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "M1", "M2", "M3", "M4", "M5", "P1", "P2", "P3", "R1",
    "R2", "X1", "D1", "D2", "D3", "D4", "D5", "D6", "T1", "B1", "liveness", "contract", "refused", "transfer",
    "wire", "panic", "coverage", "spec", "history", "user",
];

/// An invariant by its name; `other` for one that this version does not know.
pub(crate) fn name_of(name: &str) -> &'static str {
    NAMES.iter().find(|known| **known == name).copied().unwrap_or("other")
}

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
