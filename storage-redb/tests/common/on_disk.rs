//! The store on a disk in memory that crashes and fails: [`conformance::Disk`].

use std::{any::Any, io};

use quorate_core::{GroupId, Membership};
use quorate_runtime_tokio::conformance::{Disk, DiskFile, Harness};
use quorate_storage_redb::{Directory, Error, Options, RedbStore};
use redb::StorageBackend;

use super::IDENTITY;

/// Seen as the directory of a store.
#[derive(Debug)]
pub struct OnDisk(pub Disk);

impl OnDisk {
    /// On an empty disk.
    pub fn new() -> Self {
        Self(Disk::new())
    }
}

/// Seen as a file of redb's.
#[derive(Debug)]
struct File(DiskFile);

impl Directory for OnDisk {
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        // Each disk has one store at a time; that directories are locked is tested on the file system.
        Ok(Some(Box::new(())))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match self.0.open(name) {
            Ok(file) => Ok(Some(Box::new(File(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(File(self.0.create(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

/// The store with these options.
pub struct Redb(pub Options);

impl Harness for Redb {
    type Store = RedbStore;

    fn create(&self, disk: &Disk, groups: &[(GroupId, Membership)]) -> Result<RedbStore, Error> {
        RedbStore::create_on(self.0, OnDisk(disk.clone()), IDENTITY, groups)
    }

    fn open(&self, disk: &Disk) -> Result<RedbStore, Error> {
        RedbStore::open_on(self.0, OnDisk(disk.clone()), IDENTITY)
    }

    fn is_absent(&self, error: &Error) -> bool {
        matches!(error, Error::Missing { .. })
    }

    fn is_damage(&self, error: &Error) -> bool {
        // A version that was never written is a bit that has changed.
        matches!(error, Error::Damaged(_) | Error::Lost(_) | Error::UnknownVersion { .. })
    }

    fn resume_slack(&self) -> u64 {
        64 << 10
    }
}
