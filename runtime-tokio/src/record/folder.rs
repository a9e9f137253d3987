//! A ring on the disk: segments, of which the oldest are removed, and what was kept of it.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use quorate_core::recording::{CHUNK_HEADER, Head, MAGIC, VERSION};

use super::{DumpError, Put, RecordingDump};
use crate::clock;

/// The end of a segment's name.
const SEGMENT: &str = ".flight";

/// The beginning of the name of what is kept, and how many of these there are at most.
const KEPT: &str = "kept-";
const MAX_KEPT: usize = 4;

pub(super) struct Folder {
    dir: PathBuf,
    /// Held for as long as this node records here.
    _lock: File,
    max_bytes: u64,
    put: Put,
    incarnation: u64,
    /// The next one's number.
    number: u64,
    /// Oldest first: its path and its size.
    segments: VecDeque<(PathBuf, u64)>,
    /// The newest, which is being written.
    file: Option<File>,
    /// Bytes written in this life.
    written: u64,
}

impl Folder {
    /// Makes it, or goes on with what is there.
    pub(super) fn open(dir: &Path, head: &Head, max_bytes: u64, put: Put) -> io::Result<Self> {
        let dir = dir.join(format!("group-{}", head.group));
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        fs::create_dir_all(&dir).map_err(named)?;
        // Two nodes would remove each other's.
        let lock = File::create(dir.join("lock")).map_err(named)?;
        lock.try_lock().map_err(|error| named(error.into()))?;
        let mut folder = Self {
            _lock: lock,
            max_bytes,
            put,
            incarnation: head.incarnation.0,
            number: 0,
            segments: segments(&dir).map_err(named)?,
            file: None,
            written: 0,
            dir,
        };
        // Lives count up. Whoever was here before is another, or its store was made anew.
        if folder.segments.back().is_some_and(|(path, _)| *path >= folder.path(0)) {
            folder.keep()?;
            for (path, _) in folder.segments.drain(..) {
                fs::remove_file(path)?;
            }
        }
        Ok(folder)
    }

    /// Begins a segment.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let path = self.path(self.number);
        self.number += 1;
        self.file = Some(File::create_new(&path)?);
        self.segments.push_back((path, 0));
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        self.write(&head)
    }

    /// Adds a chunk to the newest segment, and removes the oldest ones if that makes too many bytes.
    pub(super) fn add(&mut self, notes: &[u8]) -> io::Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(notes.len()).map_err(|_| io::Error::other("a chunk of 4 GiB"))?;
        let mut head = [0; CHUNK_HEADER];
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(notes).to_le_bytes());
        self.write(&head)?;
        self.write(notes)?;
        while self.on_disk() > self.max_bytes
            && self.segments.len() > 2
            && let Some((oldest, _)) = self.segments.pop_front()
        {
            fs::remove_file(oldest)?;
        }
        Ok(())
    }

    /// Bytes written in this life, bytes on the disk, and how many segments these are.
    pub(super) fn sizes(&self) -> (u64, u64, u64) {
        (self.written, self.on_disk(), self.segments.len() as u64)
    }

    /// Copies all of it into a directory that isn't there yet.
    pub(super) fn dump(&self, dir: PathBuf) -> Result<RecordingDump, DumpError> {
        match self.copy(&dir) {
            Ok(dump) => Ok(dump),
            Err(source) => Err(DumpError::Io { dir, source }),
        }
    }

    /// Keeps a copy here, under a name that is never used again; the oldest ones go.
    pub(super) fn keep(&self) -> io::Result<()> {
        let named = |us: u64| self.dir.join(format!("{KEPT}{us:020}"));
        let mut us = clock::wall();
        while named(us).exists() {
            us += 1;
        }
        self.copy(&named(us))?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(KEPT) {
                kept.push(entry.path());
            }
        }
        kept.sort();
        for oldest in kept.iter().take(kept.len().saturating_sub(MAX_KEPT)) {
            fs::remove_dir_all(oldest)?;
        }
        Ok(())
    }

    fn copy(&self, to: &Path) -> io::Result<RecordingDump> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::create_dir(to)?;
        let mut bytes = 0;
        for (n, (path, size)) in self.segments.iter().enumerate() {
            let copy = to.join(path.file_name().unwrap_or_default());
            // What is never written again need not be copied, where the file system knows how.
            let full = n + 1 < self.segments.len() || self.file.is_none();
            if !(full && fs::hard_link(path, &copy).is_ok()) {
                fs::copy(path, &copy)?;
            }
            bytes += size;
        }
        Ok(RecordingDump { segments: self.segments.len() as u64, bytes })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("notes before any segment"))?;
        (self.put)(file, bytes)?;
        self.written += bytes.len() as u64;
        if let Some((_, size)) = self.segments.back_mut() {
            *size += bytes.len() as u64;
        }
        Ok(())
    }

    fn on_disk(&self) -> u64 {
        self.segments.iter().map(|(_, size)| size).sum()
    }

    /// In the order of lives and segments.
    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{:020}-{number:010}{SEGMENT}", self.incarnation))
    }
}

/// What is there, oldest first.
fn segments(dir: &Path) -> io::Result<VecDeque<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(SEGMENT) {
            found.push((entry.path(), entry.metadata()?.len()));
        }
    }
    found.sort();
    Ok(found.into())
}
