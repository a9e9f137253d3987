//! How a command fails: one line for a person, one exit code for a script.

use std::{fmt, io::Write as _, process::ExitCode};

/// What a command comes to.
pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    what: String,
    unknown: bool,
}

impl Failure {
    /// It failed, and nothing was changed.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), unknown: false }
    }

    /// A write was sent, and what became of it is not known.
    pub(crate) fn unknown(what: impl Into<String>) -> Self {
        Self { what: what.into(), unknown: true }
    }

    /// Is it one whose effect is not known?
    #[cfg(test)]
    pub(crate) fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// Says so on stderr.
    pub(crate) fn report(&self) -> ExitCode {
        // Nobody may be reading; there is nothing better to do about that than to end with the same code.
        let _ = writeln!(std::io::stderr(), "error: {self}");
        ExitCode::from(if self.unknown { 3 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    /// As a failure that begins with `what`.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure::new(format!("{what}: {error}")))
    }
}
