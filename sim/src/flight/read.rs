//! Reads recordings, note by note: what is in them is looked through before it is believed.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use quorate_core::{
    Action, Input, Instant,
    recording::{Begin, CHUNK_HEADER, Ended, Head, MAGIC, Note, Polled, VERSION},
};

use super::FlightError;

/// A segment's [`Head`] is never longer, with what is in front of it in its chunk.
const MAX_HEAD: u64 = 512;

/// The number of [`Begin::Gap`] as it is written.
const GAP: u8 = 2;

/// What a note says.
pub(super) enum Item {
    Begin(Box<Head>, Begin),
    Step(Instant, Input),
    /// With the actions, if they were recorded.
    Polled(Polled, Option<Vec<Action>>),
    End(Ended),
}

/// A file, of which no more than the head was read yet.
pub(super) struct Segment {
    pub(super) file: PathBuf,
    pub(super) head: Head,
    /// It begins with a core, behind a gap.
    pub(super) is_gap: bool,
}

/// All that is there of one node, in order.
pub(super) struct Recording {
    /// The first is the one that is being read.
    segments: VecDeque<Segment>,
    open: Option<Open>,
    /// Actions that were read, and not yet what counts them.
    actions: Vec<Action>,
    /// Notes handed out of the file that is being read.
    pub(super) note: u64,
    /// The last chunk of a life was torn: the process was killed, or the machine lost power.
    pub(super) torn: bool,
}

/// A segment that is being read.
struct Open {
    file: BufReader<File>,
    /// Bytes that are left in the file.
    left: u64,
    chunk: Vec<u8>,
    at: usize,
}

/// The segments in these files and directories. A directory is a group's, or holds those of one or several groups.
pub(super) fn find(paths: &[PathBuf]) -> Result<Vec<Segment>, FlightError> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        if !path.is_dir() {
            found.extend(Segment::open(path)?);
            continue;
        }
        let mut dirs = vec![path.clone()];
        dirs.extend(entries(path, |name, is_dir| is_dir && name.starts_with("group-"))?);
        for dir in dirs {
            for file in entries(&dir, |name, is_dir| !is_dir && name.ends_with(".flight"))? {
                found.extend(Segment::open(&file)?);
            }
        }
        if found.len() == before {
            let found = "a directory without segments".to_owned();
            return Err(FlightError::NotARecording { file: path.clone(), found });
        }
    }
    Ok(found)
}

fn entries(dir: &Path, is_wanted: impl Fn(&str, bool) -> bool) -> Result<Vec<PathBuf>, FlightError> {
    let failed = |source| FlightError::Io { file: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if is_wanted(&entry.file_name().to_string_lossy(), path.is_dir()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Segment {
    /// Reads its head; `None` if its process was killed before it could write that.
    fn open(path: &Path) -> Result<Option<Self>, FlightError> {
        let failed = |source| FlightError::Io { file: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut begin = Vec::new();
        file.by_ref().take(MAX_HEAD).read_to_end(&mut begin).map_err(failed)?;
        let magic = &begin[..begin.len().min(MAGIC.len())];
        if !MAGIC.starts_with(magic) || begin.is_empty() {
            let found =
                format!("it begins with {:?}", String::from_utf8_lossy(&begin[..begin.len().min(40)]));
            return Err(FlightError::NotARecording { file: path.to_owned(), found });
        }
        let Some(rest) = begin.get(MAGIC.len()..) else { return Ok(None) };
        let Some((version, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let found = u32::from_le_bytes(*version);
        if found != VERSION {
            return Err(FlightError::UnknownVersion { file: path.to_owned(), found });
        }
        let Some((header, chunk)) = rest.split_first_chunk::<CHUNK_HEADER>() else { return Ok(None) };
        let [len @ .., _, _, _, _] = *header;
        let torn = u64::from(u32::from_le_bytes(len)) > chunk.len() as u64 && (begin.len() as u64) < MAX_HEAD;
        // The first note is a beginning, and the head is its first part; then comes which beginning it is.
        match postcard::take_from_bytes::<(u8, Head, u8)>(chunk) {
            Ok(((0, head, begin), _)) if head.node.0 > 0 => {
                Ok(Some(Self { file: path.to_owned(), head, is_gap: begin == GAP }))
            }
            Err(_) if torn => Ok(None),
            Ok(_) | Err(_) => {
                let what = "it doesn't say whose it is: the recording is damaged".to_owned();
                Err(FlightError::Malformed { file: path.to_owned(), note: 1, what })
            }
        }
    }
}

impl Recording {
    /// Of segments in order.
    pub(super) const fn of(segments: VecDeque<Segment>) -> Self {
        Self { segments, open: None, actions: Vec::new(), note: 0, torn: false }
    }

    /// Which file is being read, or was last.
    pub(super) fn file(&self) -> PathBuf {
        self.segments.front().map(|segment| segment.file.clone()).unwrap_or_default()
    }

    /// The next note's meaning; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Item>, FlightError> {
        loop {
            let Some(segment) = self.segments.front() else { return Ok(None) };
            let open = match &mut self.open {
                Some(open) => open,
                closed => {
                    self.note = 0;
                    let open = Open::new(&segment.file);
                    closed.insert(
                        open.map_err(|source| FlightError::Io { file: segment.file.clone(), source })?,
                    )
                }
            };
            if open.at == open.chunk.len() {
                match open.next_chunk() {
                    Ok(Chunk::Whole) => {}
                    Ok(Chunk::End) if self.segments.len() == 1 => return Ok(None),
                    Ok(Chunk::End) => {
                        self.segments.pop_front();
                        self.open = None;
                        continue;
                    }
                    Ok(Chunk::Torn) => {
                        self.tear()?;
                        continue;
                    }
                    Ok(Chunk::Damaged) => {
                        self.note += 1;
                        return Err(self.malformed("the checksum is wrong: the recording is damaged"));
                    }
                    Err(source) => return Err(FlightError::Io { file: segment.file.clone(), source }),
                }
            }
            self.note += 1;
            match self.parse()? {
                Note::Begin(head, begin) => return Ok(Some(Item::Begin(Box::new(head), begin))),
                Note::Step(now, input) => return Ok(Some(Item::Step(now, input))),
                Note::Action(action) => self.actions.push(action),
                Note::Polled(polled) => {
                    let actions = std::mem::take(&mut self.actions);
                    if !actions.is_empty() && actions.len() as u64 != polled.count {
                        return Err(
                            self.malformed("other actions than are counted: the recording is damaged")
                        );
                    }
                    return Ok(Some(Item::Polled(polled, (!actions.is_empty()).then_some(actions))));
                }
                Note::End(ended) => return Ok(Some(Item::End(ended))),
            }
        }
    }

    pub(super) fn malformed(&self, what: impl Into<String>) -> FlightError {
        FlightError::Malformed { file: self.file(), note: self.note, what: what.into() }
    }

    fn parse(&mut self) -> Result<Note, FlightError> {
        let Some(open) = &mut self.open else { return Err(self.malformed("nothing is open")) };
        match postcard::take_from_bytes::<Note>(&open.chunk[open.at..]) {
            Ok((note, rest)) => {
                open.at = open.chunk.len() - rest.len();
                Ok(note)
            }
            Err(error) => Err(self.malformed(format!("{error}: the recording is damaged"))),
        }
    }

    /// The file ends in a part of a chunk, or in one that isn't what was written. So a life may end that was cut off, and nothing
    /// else.
    fn tear(&mut self) -> Result<(), FlightError> {
        let next = self.segments.get(1).map(|next| next.head.incarnation);
        if next.is_some() && next == self.segments.front().map(|segment| segment.head.incarnation) {
            self.note += 1;
            return Err(self.malformed(
                "it is damaged here, though that life goes on in the next segment: what comes before it, or after, can be \
                 replayed alone",
            ));
        }
        self.torn = true;
        self.actions.clear();
        if let Some(open) = &mut self.open {
            open.chunk.clear();
            (open.left, open.at) = (0, 0);
        }
        Ok(())
    }
}

/// What comes next in a file.
enum Chunk {
    Whole,
    /// Not all of it, or not what was written, and nothing follows.
    Torn,
    /// Not what was written, and more follows: that is no crash.
    Damaged,
    End,
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let before = MAGIC.len() + size_of_val(&VERSION);
        let left = file.metadata()?.len().saturating_sub(before as u64);
        file.read_exact(&mut vec![0; before])?;
        Ok(Self { file: BufReader::new(file), left, chunk: Vec::new(), at: 0 })
    }

    fn next_chunk(&mut self) -> io::Result<Chunk> {
        self.at = 0;
        self.chunk.clear();
        if self.left == 0 {
            return Ok(Chunk::End);
        }
        if self.left < CHUNK_HEADER as u64 {
            return Ok(Chunk::Torn);
        }
        let (len, crc) = (self.number()?, self.number()?);
        if len == 0 || u64::from(len) > self.left {
            return Ok(Chunk::Torn);
        }
        self.chunk.resize(len as usize, 0);
        self.file.read_exact(&mut self.chunk)?;
        self.left -= u64::from(len);
        if crc32c::crc32c(&self.chunk) != crc {
            self.chunk.clear();
            return Ok(if self.left == 0 { Chunk::Torn } else { Chunk::Damaged });
        }
        Ok(Chunk::Whole)
    }

    fn number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.file.read_exact(&mut bytes)?;
        self.left -= 4;
        Ok(u32::from_le_bytes(bytes))
    }
}
