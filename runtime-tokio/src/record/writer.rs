//! The recorder's thread: makes text of the notes, and writes it.

use std::{
    fs::{File, OpenOptions, rename},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use quorate_core::recording::{End, Ended, MARK, Start};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::{
    Recording, RecordingEnded, Sink, Tape,
    recorder::{Note, Sheet},
};
use crate::thread::{Alive, spawn};

/// Room for the line that says why a recording ends.
const LAST_LINE: u64 = 64;

/// So much text is gathered while more is waiting, before it is written.
const AT_ONCE: usize = 256 << 10;

/// So long the writer rests after it has written: whoever hands something over meanwhile need not wake it.
const REST: Duration = Duration::from_millis(2);

/// Starts the thread, and returns its queue. Whatever fails ends the recording, and nothing else.
pub(super) fn start(recording: Recording, start: Start, tape: &Arc<Tape>, alive: &Alive) -> Sender<Sheet> {
    let (queue, sheets) = channel();
    let node = start.config.id;
    let run = {
        let tape = tape.clone();
        move || {
            if let Err(error) = write(recording, &start, &sheets, &tape) {
                tape.end(node, RecordingEnded::Failed { why: error.to_string().into() });
            }
        }
    };
    if let Err(error) = spawn(node, "record", alive, run) {
        tape.end(node, RecordingEnded::Failed { why: error.to_string().into() });
    }
    queue
}

fn write(recording: Recording, start: &Start, sheets: &Receiver<Sheet>, tape: &Tape) -> io::Result<()> {
    let Recording { sink, max_bytes: bound, .. } = recording;
    let (mut sink, mut size): (Box<dyn Write>, u64) = match sink {
        Sink::Writer(writer) => (writer, 0),
        Sink::File(path) => {
            let (file, size) = open(&path, bound / 2)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            (Box::new(file), size)
        }
    };
    let mut lines = text(start).into_bytes();
    lines.push(b'\n');
    let mut waiting = true;
    while waiting {
        // Text is made of all that waits, up to a bound, and written at once.
        match sheets.recv() {
            Ok(sheet) => put(&sheet, &mut lines, tape),
            Err(_over) => waiting = false,
        }
        while lines.len() < AT_ONCE
            && let Ok(sheet) = sheets.try_recv()
        {
            put(&sheet, &mut lines, tape);
        }
        let full = size + lines.len() as u64 + LAST_LINE > bound;
        if full {
            // Whole lines only.
            let room = usize::try_from(bound.saturating_sub(size + LAST_LINE)).unwrap_or(usize::MAX);
            lines.truncate(room);
            let end = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            lines.truncate(end);
        }
        sink.write_all(&lines)?;
        size += lines.len() as u64;
        tape.bytes.fetch_add(lines.len() as u64, Relaxed);
        lines.clear();
        if full {
            say_end(&mut *sink, Ended::Limit)?;
            tape.end(start.config.id, RecordingEnded::Limit { bound });
            return Ok(());
        }
        thread::sleep(REST);
    }
    let gap = tape.ended() == Some(RecordingEnded::Gap);
    say_end(&mut *sink, if gap { Ended::Gap } else { Ended::Stopped })?;
    tape.end(start.config.id, RecordingEnded::Stopped);
    Ok(())
}

fn say_end(sink: &mut dyn Write, end: Ended) -> io::Result<()> {
    writeln!(sink, "{}", text(&End { end }))?;
    sink.flush()
}

/// Opens a file to be added to, and says how big it is.
fn open(path: &Path, half: u64) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    // Two nodes would write through each other.
    file.try_lock().map_err(io::Error::from)?;
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok((file, 0));
    }
    let begin = format!("{{\"{MARK}\":");
    let mut found = Vec::new();
    (&file).take(begin.len() as u64).read_to_end(&mut found)?;
    if found != begin.as_bytes() {
        return Err(io::Error::other("there is a file that is no recording: it is left alone"));
    }
    if size >= half {
        rename(path, aside(path))?;
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        return Ok((file, 0));
    }
    // A life that was cut off may have left half a line.
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
        return Ok((file, size + 1));
    }
    Ok((file, size))
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

fn put(sheet: &Sheet, lines: &mut Vec<u8>, tape: &Tape) {
    for note in &sheet.notes {
        match note {
            Note::Step(now, input) => {
                to(lines, &(now, input));
            }
            Note::Text(now, input) => lines.extend_from_slice(format!("[{now},{input}]").as_bytes()),
            Note::Polled(polled, actions) => {
                to(lines, polled);
                if let Some(actions) = actions {
                    lines.pop();
                    lines.extend_from_slice(b",\"a\":[");
                    lines.extend_from_slice(actions.as_bytes());
                    lines.extend_from_slice(b"]}");
                }
            }
        }
        lines.push(b'\n');
    }
    tape.queued.fetch_sub(sheet.weight, Relaxed);
}

/// JSON, with bytes in base64.
pub(super) fn text(item: &impl Serialize) -> String {
    let mut text = Vec::new();
    to(&mut text, item);
    String::from_utf8(text).unwrap_or_default()
}

fn to(lines: &mut Vec<u8>, item: &impl Serialize) {
    // It fails only where a writer does, or for maps without names: neither is here.
    let _written = item.serialize(&mut Serializer::with_formatter(lines, Compact));
}

struct Compact;

impl Formatter for Compact {
    fn write_byte_array<W: ?Sized + Write>(&mut self, writer: &mut W, bytes: &[u8]) -> io::Result<()> {
        let mut text = String::with_capacity(bytes.len() * 4 / 3 + 5);
        text.push_str("\"=");
        STANDARD_NO_PAD.encode_string(bytes, &mut text);
        text.push('"');
        CompactFormatter.write_raw_fragment(writer, &text)
    }
}
