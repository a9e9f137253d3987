//! Schedules as files: a header, then a line for each thing that is done, each a JSON value. Lines may be taken out by hand.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::{Options, Violation, lab::Setup, op::Timed};

pub(super) const FORMAT: &str = "quorate-sim schedule";
pub(super) const VERSION: u32 = 1;

/// The first line.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) options: Options,
    pub(super) violation: Option<Broke>,
    pub(super) digest: String,
    pub(super) setup: Setup,
    pub(super) operations: usize,
}

/// Looked at first, so that an unknown version is told from damage.
#[derive(Deserialize)]
struct Version {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Broke {
    invariant: String,
    at: u64,
    what: String,
}

impl Broke {
    pub(super) fn of(violation: &Violation) -> Self {
        let Violation { invariant, at, what, .. } = violation;
        Self { invariant: (*invariant).to_owned(), at: *at, what: what.clone() }
    }

    fn violation(self, seed: u64) -> Violation {
        let Self { invariant, at, what } = self;
        Violation { invariant: crate::violation::name_of(&invariant), seed, at, what }
    }
}

/// Why a file is no schedule.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// It can't be read or written.
    #[error("the schedule can't be read: {0}")]
    Io(#[from] io::Error),
    /// Something else altogether.
    #[error("this is no schedule of quorate-sim: its first line is no header of one")]
    NoSchedule,
    /// Of another version.
    #[error("a schedule of format version {found}; this quorate-sim knows {VERSION}: run it with the release that wrote it")]
    Version {
        /// What it says.
        found: u32,
    },
    /// A line that can't be understood.
    #[error("line {line} of the schedule can't be understood: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why not.
        why: serde_json::Error,
    },
    /// A header that contradicts itself.
    #[error("the header can't be: {0}")]
    Setup(String),
}

impl Schedule {
    /// Writes it down.
    ///
    /// # Errors
    /// If that fails.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &self.header())?;
        to.write_all(b"\n")?;
        for op in &self.ops {
            serde_json::to_writer(&mut to, op)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads one. Empty lines, and lines that begin with `#`, are for people.
    ///
    /// # Errors
    /// If it is none, of another version, or damaged; with the line.
    pub fn read(from: impl BufRead) -> Result<Self, ScheduleError> {
        let mut lines = from.lines().enumerate();
        let mut next = || -> Result<Option<(usize, String)>, ScheduleError> {
            for (at, line) in lines.by_ref() {
                let line = line?;
                if !line.trim().is_empty() && !line.starts_with('#') {
                    return Ok(Some((at + 1, line)));
                }
            }
            Ok(None)
        };
        let (line, text) = next()?.ok_or(ScheduleError::NoSchedule)?;
        let version: Version = serde_json::from_str(&text).map_err(|_| ScheduleError::NoSchedule)?;
        if version.format != FORMAT {
            return Err(ScheduleError::NoSchedule);
        }
        if version.version != VERSION {
            return Err(ScheduleError::Version { found: version.version });
        }
        let header: Header = serde_json::from_str(&text).map_err(|why| ScheduleError::Line { line, why })?;
        check(&header.setup)?;
        let mut ops = Vec::new();
        while let Some((line, text)) = next()? {
            let op: Timed = serde_json::from_str(&text).map_err(|why| ScheduleError::Line { line, why })?;
            ops.push(op);
        }
        let digest = u64::from_str_radix(&header.digest, 16)
            .map_err(|_| ScheduleError::Setup(format!("digest {:?} is no number", header.digest)))?;
        let violation = header.violation.map(|broke| broke.violation(header.options.seed));
        Ok(Self { options: header.options, setup: header.setup, violation, digest, ops, cast: crate::cast::Cast::default() })
    }
}

fn check(setup: &Setup) -> Result<(), ScheduleError> {
    let fail = |what: String| Err(ScheduleError::Setup(what));
    if setup.nodes == 0 || setup.slots < setup.nodes || setup.slots > 1000 {
        return fail(format!("{} nodes in {} slots", setup.nodes, setup.slots));
    }
    if let Some(id) = setup.membership.members().iter().find(|id| id.0 as usize > setup.slots) {
        return fail(format!("node {id} is a member, but there are only {} slots", setup.slots));
    }
    setup.config.validate().or_else(|why| fail(why.to_string()))
}

pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
}
