//! A file that counts what is done to it, between redb and the operating system.

use std::{
    fs::OpenOptions,
    io,
    ops::{Bound, Sub},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Result;
use redb::{BackendError, StorageBackend, backends::FileBackend};
use serde_json::{Value, json};

/// What was done to a file.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Io {
    pub(super) writes: u64,
    pub(super) written: u64,
    pub(super) reads: u64,
    pub(super) read: u64,
    pub(super) syncs: u64,
    pub(super) set_lens: u64,
}

impl Sub for Io {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            writes: self.writes - before.writes,
            written: self.written - before.written,
            reads: self.reads - before.reads,
            read: self.read - before.read,
            syncs: self.syncs - before.syncs,
            set_lens: self.set_lens - before.set_lens,
        }
    }
}

impl std::ops::AddAssign for Io {
    fn add_assign(&mut self, more: Self) {
        self.writes += more.writes;
        self.written += more.written;
        self.reads += more.reads;
        self.read += more.read;
        self.syncs += more.syncs;
        self.set_lens += more.set_lens;
    }
}

impl Io {
    /// For each of `commits` commits.
    pub(super) fn json(self, commits: u64) -> Value {
        let each = |count: u64| count as f64 / commits.max(1) as f64;
        json!({
            "writes": each(self.writes),
            "written_bytes": each(self.written),
            "reads": each(self.reads),
            "read_bytes": each(self.read),
            "fdatasyncs": each(self.syncs),
            "set_lens": each(self.set_lens),
        })
    }
}

/// The counts of one file, or of several together.
#[derive(Clone, Default, Debug)]
pub(super) struct Counts(Arc<Atomics>);

#[derive(Default, Debug)]
struct Atomics {
    writes: AtomicU64,
    written: AtomicU64,
    reads: AtomicU64,
    read: AtomicU64,
    syncs: AtomicU64,
    set_lens: AtomicU64,
}

impl Counts {
    pub(super) fn so_far(&self) -> Io {
        let Atomics { writes, written, reads, read, syncs, set_lens } = &*self.0;
        Io {
            writes: writes.load(Relaxed),
            written: written.load(Relaxed),
            reads: reads.load(Relaxed),
            read: read.load(Relaxed),
            syncs: syncs.load(Relaxed),
            set_lens: set_lens.load(Relaxed),
        }
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.0.writes.fetch_add(1, Relaxed);
        self.0.written.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn synced(&self) {
        self.0.syncs.fetch_add(1, Relaxed);
    }
}

/// A file that counts.
#[derive(Debug)]
pub(super) struct Counting {
    file: FileBackend,
    counts: Counts,
}

impl Counting {
    /// Makes a file.
    pub(super) fn create(path: &Path, counts: Counts) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Self::new(FileBackend::new(file)?, counts))
    }

    pub(super) fn new(file: FileBackend, counts: Counts) -> Self {
        Self { file, counts }
    }
}

impl StorageBackend for Counting {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.counts.0.reads.fetch_add(1, Relaxed);
        self.counts.0.read.fetch_add(out.len() as u64, Relaxed);
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.counts.0.set_lens.fetch_add(1, Relaxed);
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counts.synced();
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counts.wrote(data.len());
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
