//! The one file of a store: where it is, who may open it, and redb's part of it.

use std::{fs::File, io, ops::Bound, path::Path, sync::Arc};

use redb::{BackendError, StorageBackend, backends::FileBackend};

use crate::{Error, front::FRONT};

/// The file of a store in its directory.
pub(crate) const FILE: &str = "quorate.store";
/// The same while it is being bootstrapped: it gets its name once it is whole and durable.
pub(crate) const UNFINISHED: &str = "quorate.store.new";

/// What redb sees: all of the medium but our front pages. The locks that redb takes are on the medium as they are.
#[derive(Debug)]
pub(crate) struct BehindFront(pub(crate) Arc<dyn StorageBackend>);

impl StorageBackend for BehindFront {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()?.saturating_sub(FRONT))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(shifted(offset)?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(shifted(len)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(shifted(offset)?, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

fn shifted(offset: u64) -> io::Result<u64> {
    offset.checked_add(FRONT).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Opens the store's file to look at its front pages.
pub(crate) fn open_read_only(dir: &Path) -> Result<FileBackend, Error> {
    match File::open(dir.join(FILE)) {
        Ok(file) => backend(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing { dir: dir.to_owned() }),
        Err(source) => Err(Error::Io { doing: "opening the store's file", source }),
    }
}

fn backend(file: File) -> Result<FileBackend, Error> {
    FileBackend::new(file).map_err(|error| crate::error::from_redb(FILE, "opening the store's file", error))
}
