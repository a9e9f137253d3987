//! Where a store's files are: a directory of the file system, or one of a test's that can fail.

use std::{
    any::Any,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use redb::{StorageBackend, backends::FileBackend};

/// The directory of one store.
///
/// It is the seam for tests with faults: what a crash leaves of files and names is up to it. A file grows when it is
/// written beyond its end. A name that was made, changed or removed is durable once [`Directory::sync`] has returned, what is
/// in a file once the file's own `sync_data` has.
pub trait Directory: fmt::Debug + Send + Sync + 'static {
    /// Takes the directory for as long as the returned guard lives; `None` if somebody else has it.
    ///
    /// # Errors
    /// If that can't be found out.
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>>;

    /// Opens a file, to be read and written; `None` if there is none.
    ///
    /// # Errors
    /// If there is one and it can't be opened.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Makes an empty file, in the place of one that may be there.
    ///
    /// # Errors
    /// If it can't be made.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Renames a file, atomically, over one that may be there. Whoever has it open keeps it.
    ///
    /// # Errors
    /// If it can't be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Whoever has it open keeps it.
    ///
    /// # Errors
    /// If there is none, or it can't be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// If they can't be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes names durable.
    ///
    /// # Errors
    /// If they may not be.
    fn sync(&self) -> io::Result<()>;

    /// What a file is called in errors.
    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// The file that is locked while a store is open.
const LOCK: &str = "quorate.lock";

/// A directory of the file system.
#[derive(Debug)]
pub(crate) struct FsDirectory {
    path: PathBuf,
}

impl FsDirectory {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Takes the directory, without changing anything in it.
    pub(crate) fn lock_to_look(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        match File::open(self.path.join(LOCK)) {
            Ok(file) => try_lock(file),
            // Of an earlier release, which had none, or a copy without it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Box::new(()))),
            Err(error) => Err(error),
        }
    }

    /// Opens a file to look at it.
    pub(crate) fn open_read_only(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match File::open(self.path.join(name)) {
            Ok(file) => backend(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the directory, and those that it is in, if they are not there; durably.
    pub(crate) fn make(&self) -> io::Result<()> {
        let missing = self.path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir());
        // One that is there may have been made by an attempt that was cut short right after.
        let made = 1 + missing.count();
        fs::create_dir_all(&self.path)?;
        for parent in self.path.ancestors().skip(1).take(made) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            // Where it can't be opened, or is on a file system that syncs no directories, the name is as durable as it gets.
            if let Ok(parent) = File::open(parent) {
                parent.sync_all().or_else(|error| match error.kind() {
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
                    _ => Err(error),
                })?;
            }
        }
        Ok(())
    }
}

impl Directory for FsDirectory {
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path.join(LOCK))?;
        try_lock(file)
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match OpenOptions::new().read(true).write(true).open(self.path.join(name)) {
            Ok(file) => backend(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.path.join(name);
        backend(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?;
        // A name that is not UTF-8 is none of ours.
        names
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

fn try_lock(file: File) -> io::Result<Option<Box<dyn Any + Send>>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(Box::new(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    match FileBackend::new(file) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(redb::DatabaseError::Storage(redb::StorageError::Io(error))) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}
