//! A store's directory that counts what is done to its log, and apart from that to its snapshots.

use std::{
    any::Any,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use quorate_storage_redb::Directory;
use redb::{StorageBackend, backends::FileBackend};

use super::counting::{Counting, Counts};

/// What the file of the log is called.
pub(super) const FILE: &str = "quorate.store";

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    log: Counts,
    snapshots: Counts,
}

impl Folder {
    pub(super) fn new(path: &Path, log: &Counts, snapshots: &Counts) -> Self {
        Self { path: path.to_owned(), log: log.clone(), snapshots: snapshots.clone() }
    }

    fn counting(&self, name: &str, file: File) -> io::Result<Box<dyn StorageBackend>> {
        let counts = if name.starts_with(FILE) { &self.log } else { &self.snapshots };
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(Counting::new(file, counts.clone())))
    }
}

impl Directory for Folder {
    /// One process at a time measures in a directory of its own.
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        Ok(Some(Box::new(())))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match OpenOptions::new().read(true).write(true).open(self.path.join(name)) {
            Ok(file) => self.counting(name, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.path.join(name);
        self.counting(name, OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
