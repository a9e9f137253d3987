//! Why a flight can't be told to its end.

use std::{io, path::PathBuf};

use quorate_core::recording::VERSION;

/// Recordings that were not replayed to their end.
#[derive(Debug, thiserror::Error)]
pub enum FlightError {
    /// A file can't be read.
    #[error("{}: {source}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no recording: {found}; `quorate serve --record DIR` makes one", file.display())]
    NotARecording {
        /// Which.
        file: PathBuf,
        /// What it is.
        found: String,
    },
    /// It was made by another release.
    #[error(
        "{}: format {found} is not known here (known: {VERSION}); replay it with the release that made it",
        file.display()
    )]
    UnknownVersion {
        /// Which.
        file: PathBuf,
        /// The version that it says.
        found: u32,
    },
    /// It is damaged.
    #[error("{}, note {note}: {what}", file.display())]
    Malformed {
        /// Which.
        file: PathBuf,
        /// Where in it: notes count from 1.
        note: u64,
        /// What is wrong, and what to do.
        what: String,
    },
    /// They don't belong together.
    #[error("{what}")]
    Unrelated {
        /// Why.
        what: String,
    },
    /// An invariant doesn't hold in what was recorded, or a replay goes another way.
    #[error(transparent)]
    Violated(Box<FlightViolation>),
}

/// Something that must never be, and was.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, thiserror::Error)]
#[error(
    "{invariant} violated by node {node} at step {step} of its life {incarnation}, {:.6} s ({}, note {note}): {what}",
    *at as f64 / 1e6, file.display()
)]
pub struct FlightViolation {
    /// Which, by the names of the list of invariants; `replay`, if the core does something else than was recorded.
    pub invariant: &'static str,
    /// Whose recording shows it.
    pub node: u64,
    /// In which of its lives.
    pub incarnation: u64,
    /// How many steps that life had taken.
    pub step: u64,
    /// When, in µs since the earliest start.
    pub at: u64,
    /// Where it is recorded.
    pub file: PathBuf,
    /// In which note of that file, from 1.
    pub note: u64,
    /// What was seen.
    pub what: String,
}
