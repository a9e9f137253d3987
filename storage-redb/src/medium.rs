//! The one file of a store: where it is, who may open it, and redb's part of it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{BackendError, StorageBackend, backends::FileBackend};

use crate::{Error, front::FRONT};

/// The file of a store in its directory.
pub(crate) const FILE: &str = "quorate.store";
/// The same while it is being bootstrapped: it gets its name once it is whole and durable.
const UNFINISHED: &str = "quorate.store.new";

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

/// Opens the store's file in `dir`; the lock on it is redb's to take.
pub(crate) fn open_file(dir: &Path) -> Result<(PathBuf, FileBackend), Error> {
    let path = dir.join(FILE);
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => Ok((path, backend(file)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing { dir: dir.to_owned() }),
        Err(source) => Err(Error::Io { doing: "opening the store's file", source }),
    }
}

/// Opens the store's file to look at its front pages.
pub(crate) fn open_read_only(dir: &Path) -> Result<FileBackend, Error> {
    match File::open(dir.join(FILE)) {
        Ok(file) => backend(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing { dir: dir.to_owned() }),
        Err(source) => Err(Error::Io { doing: "opening the store's file", source }),
    }
}

/// Does `dir` hold a store?
pub(crate) fn exists(dir: &Path) -> Result<bool, Error> {
    dir.join(FILE).try_exists().map_err(|source| Error::Io { doing: "looking for a store", source })
}

/// A file that is becoming a store.
#[derive(Debug)]
pub(crate) struct Unfinished {
    dir: PathBuf,
}

/// Makes an empty file in `dir`, which is made too; `None` if there is a store, or becomes one meanwhile.
///
/// A file left by a bootstrap that was cut short is begun again: nobody was ever told that it was a store.
pub(crate) fn begin(dir: &Path) -> Result<Option<(Unfinished, FileBackend)>, Error> {
    let io = |source| Error::Io { doing: "creating the store's file", source };
    fs::create_dir_all(dir)
        .map_err(|source| Error::Io { doing: "creating the store's directory", source })?;
    if exists(dir)? {
        return Ok(None);
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(UNFINISHED))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::InUse),
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    // Another bootstrap may have finished between the look and the lock: then this file is its store.
    if exists(dir)? {
        return Ok(None);
    }
    file.set_len(0).map_err(io)?;
    Ok(Some((Unfinished { dir: dir.to_owned() }, backend(file)?)))
}

impl Unfinished {
    /// Where it will be.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Gives the file, whole and durable by now, its name, and makes that durable too.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let io = |source| Error::Io { doing: "giving the new store its name", source };
        fs::rename(self.dir.join(UNFINISHED), self.path()).map_err(io)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        // The directory may be new as well; where its parent can't be opened, its name is as durable as it gets.
        if let Some(parent) = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty())
            && let Ok(parent) = File::open(parent)
        {
            parent.sync_all().map_err(io)?;
        }
        Ok(())
    }
}

fn backend(file: File) -> Result<FileBackend, Error> {
    FileBackend::new(file).map_err(|error| crate::error::from_redb(FILE, "opening the store's file", error))
}
