//! What happened, line by line: only when somebody wants to read it.

use crate::world::seconds;

/// Where the lines go.
#[derive(Debug)]
pub enum Trace {
    /// Nowhere.
    Off,
    /// Kept.
    Lines(Vec<String>),
    /// To standard output, as they come.
    Print,
}

impl Trace {
    /// Says what happens, if anybody listens.
    pub(crate) fn line(&mut self, now: u64, what: impl FnOnce() -> String) {
        match self {
            Self::Off => {}
            Self::Lines(lines) => lines.push(format!("{:>12.6} {}", seconds(now), what())),
            Self::Print => println!("{:>12.6} {}", seconds(now), what()),
        }
    }
}
