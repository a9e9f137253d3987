//! A file whose blocks are there before they are needed.
//!
//! redb lets its file grow by `set_len`, which on most file systems only makes a hole: each page that is written there for the first
//! time must get its block first, and the next `fdatasync` must write down where that is. Here the
//! hole is filled somewhat ahead. What is read back is the same at any time: zeros where nothing was written.

use std::{fs::File, io, ops::Bound, sync::Mutex};

use redb::{BackendError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate};

use super::counting::Counting;

/// How the hole is filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fill {
    /// By writing zeros, so many bytes at a time.
    Zeros(u64),
    /// By asking for blocks, so many bytes at a time: they count as unwritten until they are written.
    Blocks(u64),
}

#[derive(Debug)]
pub(super) struct Ahead {
    file: Counting,
    /// The same file, to ask for blocks.
    raw: File,
    fill: Fill,
    /// Below it there are no holes.
    filled: Mutex<u64>,
}

impl Ahead {
    /// In front of a new file.
    pub(super) fn new(file: Counting, raw: File, fill: Fill) -> Self {
        Self { file, raw, fill, filled: Mutex::new(0) }
    }

    fn fill(&self, end: u64) -> io::Result<()> {
        let (Fill::Zeros(step) | Fill::Blocks(step)) = self.fill;
        let mut filled = self.filled.lock().map_err(|_| io::Error::other("a thread died"))?;
        if end <= *filled {
            return Ok(());
        }
        let to = end.next_multiple_of(step).min(self.file.len()?).max(end);
        match self.fill {
            Fill::Zeros(_) => self.file.write(*filled, &vec![0; (to - *filled) as usize])?,
            Fill::Blocks(_) => fallocate(&self.raw, FallocateFlags::empty(), *filled, to - *filled)?,
        }
        *filled = to;
        Ok(())
    }
}

impl StorageBackend for Ahead {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        let mut filled = self.filled.lock().map_err(|_| io::Error::other("a thread died"))?;
        *filled = (*filled).min(len);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fill(offset + data.len() as u64)?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
}
