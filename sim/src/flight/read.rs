//! Reads recordings, line by line: what is in them is looked through before it is believed.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use quorate_core::{
    Input, Instant,
    recording::{End, Ended, MARK, Polled, Start, VERSION},
};
use serde_json::Value;

use super::FlightError;

/// No line is longer: the biggest message, in base64, and some.
const MAX_LINE: u64 = 512 << 20;

/// What a line says.
pub(super) enum Item {
    Start(Box<Start>),
    Step(Instant, Input),
    Polled(Polled),
    End(Ended),
}

/// An open recording.
pub(super) struct Recording {
    pub(super) file: PathBuf,
    lines: Box<dyn BufRead>,
    /// The line that comes next was read already.
    next: Option<Vec<u8>>,
    /// Lines handed out.
    pub(super) line: u64,
    /// The last line was torn: the process was killed, or the machine lost power.
    pub(super) torn: bool,
}

impl Recording {
    pub(super) fn open(path: &Path) -> Result<Self, FlightError> {
        let file = File::open(path).map_err(|source| FlightError::Io { file: path.to_owned(), source })?;
        Self::of(path, Box::new(BufReader::new(file)))
    }

    pub(super) fn of(path: &Path, lines: Box<dyn BufRead>) -> Result<Self, FlightError> {
        let mut recording = Self { file: path.to_owned(), lines, next: None, line: 0, torn: false };
        recording.next = recording.read_line()?;
        let first = recording.next.as_deref().unwrap_or_default();
        let begin = format!("{{\"{MARK}\":");
        if !first.starts_with(begin.as_bytes()) {
            let found = String::from_utf8_lossy(&first[..first.len().min(40)]).into_owned();
            return Err(FlightError::NotARecording { file: path.to_owned(), found });
        }
        Ok(recording)
    }

    /// The next line's meaning; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Item>, FlightError> {
        let Some(line) = self.next.take() else { return Ok(None) };
        self.line += 1;
        self.next = self.read_line()?;
        let whole = line.last() == Some(&b'\n');
        let error = match self.parse(&line) {
            Ok(item) => return Ok(Some(item)),
            Err(error) => error,
        };
        // Half a line at the end of a file, or of a life, is what a killed process leaves behind.
        let followed = self.next.as_ref().is_some_and(|next| next.starts_with(b"{\"quorate-flight\":"));
        let last = self.next.is_none() && !whole;
        if matches!(error, FlightError::Malformed { .. }) && (last || followed) {
            self.torn = true;
            return if last { Ok(None) } else { self.next() };
        }
        Err(error)
    }

    /// How the first life in it starts, before anything is read.
    pub(super) fn first(&mut self) -> Result<Start, FlightError> {
        self.line = 1;
        let item = self.parse(self.next.as_deref().unwrap_or_default())?;
        let start = match item {
            Item::Start(start) if start.config.id.0 > 0 => *start,
            Item::Start(_) => return Err(self.malformed("a node's id is never 0")),
            Item::Step(..) | Item::Polled(_) | Item::End(_) => {
                return Err(self.malformed("a life has no beginning"));
            }
        };
        self.line = 0;
        Ok(start)
    }

    pub(super) fn malformed(&self, what: impl Into<String>) -> FlightError {
        FlightError::Malformed { file: self.file.clone(), line: self.line, what: what.into() }
    }

    fn read_line(&mut self) -> Result<Option<Vec<u8>>, FlightError> {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut self.lines, MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|source| FlightError::Io { file: self.file.clone(), source })?;
        if line.len() as u64 >= MAX_LINE {
            self.line += 1;
            return Err(self.malformed("the line has no end"));
        }
        Ok((!line.is_empty()).then_some(line))
    }

    fn parse(&self, line: &[u8]) -> Result<Item, FlightError> {
        let damaged = |error: &dyn std::fmt::Display| {
            self.malformed(format!(
                "{error}: the recording is damaged; what comes before it can be replayed alone"
            ))
        };
        let mut value: Value = serde_json::from_slice(line).map_err(|error| damaged(&error))?;
        if let Some(version) = value.get(MARK)
            && version.as_u64() != Some(u64::from(VERSION))
        {
            let (file, line) = (self.file.clone(), self.line);
            return Err(FlightError::UnknownVersion { file, line, found: version.to_string() });
        }
        unpack(&mut value).map_err(|error| damaged(&error))?;
        let item = match &value {
            Value::Array(_) => serde_json::from_value(value).map(|(now, input)| Item::Step(now, input)),
            other if other.get(MARK).is_some() => serde_json::from_value(value).map(Item::Start),
            other if other.get("end").is_some() => {
                serde_json::from_value(value).map(|End { end }| Item::End(end))
            }
            _ => serde_json::from_value(value).map(Item::Polled),
        };
        item.map_err(|error| damaged(&error))
    }
}

/// Bytes are in base64: turns them into what they are read from.
fn unpack(value: &mut Value) -> Result<(), base64::DecodeError> {
    match value {
        Value::String(text) => {
            if let Some(encoded) = text.strip_prefix('=') {
                *value = STANDARD_NO_PAD.decode(encoded)?.into();
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(unpack),
        Value::Object(fields) => fields.values_mut().try_for_each(unpack),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
