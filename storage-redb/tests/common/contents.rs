//! Files in memory, and all that a store in them holds.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use quorate_core::{EntryKind, GroupId, Recovered, SnapshotReader, Snapshots, Store, Term};
use quorate_runtime_tokio::conformance::Disk;
use quorate_storage_redb::{Directory, Error, Options, RedbStore};
use redb::StorageBackend;

use super::{IDENTITY, on_disk::OnDisk, read_log};

/// What tears: a sector is written whole or not at all.
pub const SECTOR: usize = 512;

/// A directory, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Files {
    /// All files of a directory.
    pub fn of_dir(dir: &Path) -> Self {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        Self(
            entries
                .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
                .collect(),
        )
    }

    /// All files of a disk.
    pub fn of_disk(disk: &Disk) -> Self {
        let read = |name: String| {
            let file = disk.open(&name).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_at(0, &mut bytes).unwrap();
            (name, bytes)
        };
        Self(disk.list().unwrap().into_iter().map(read).collect())
    }

    /// A disk that holds them, durably.
    pub fn disk(&self) -> Disk {
        let disk = Disk::new();
        for (name, bytes) in &self.0 {
            let file = disk.create(name).unwrap();
            file.write_at(0, bytes).unwrap();
            file.sync().unwrap();
        }
        disk.sync().unwrap();
        disk
    }

    /// The sectors in which this differs from what was before.
    pub fn changed_since(&self, before: &Self) -> BTreeSet<(String, usize)> {
        let mut changed = BTreeSet::new();
        for (name, bytes) in &self.0 {
            let old = before.0.get(name).map_or(&[][..], Vec::as_slice);
            for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                let start = n * SECTOR;
                if old.get(start..start + sector.len()) != Some(sector) {
                    changed.insert((name.clone(), n));
                }
            }
        }
        changed
    }
}

/// All that a group has, but for the number of its life, which each look changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupContents {
    pub recovered: Recovered,
    pub log: Vec<(Term, EntryKind, Bytes)>,
    pub snapshots: Vec<Vec<u8>>,
}

/// All that a store has.
pub type Contents = BTreeMap<GroupId, GroupContents>;

/// Opens what is on a disk and reads all of it.
pub fn contents(options: Options, directory: impl Directory) -> Result<Contents, Error> {
    let mut store = RedbStore::open_on(options, directory, IDENTITY)?;
    let groups = store.groups()?;
    groups.into_iter().map(|group| Ok((group, group_contents(&mut store, group)?))).collect()
}

fn group_contents(store: &mut RedbStore, group: GroupId) -> Result<GroupContents, Error> {
    let recovered = store.recover(group)?;
    let log = read_log(store, group, recovered.base.index, recovered.last)?;
    let mut snapshots = Vec::new();
    for info in store.snapshots().list(group)? {
        let mut reader = store.snapshots().open(group, info.snapshot.last)?.unwrap();
        let mut bytes = vec![0; usize::try_from(info.bytes).unwrap()];
        reader.read_at(0, &mut bytes)?;
        snapshots.push(bytes);
    }
    Ok(GroupContents { recovered, log, snapshots })
}

/// A disk that writes down which of its sectors are read.
#[derive(Debug)]
pub struct Watched {
    disk: OnDisk,
    read: Sectors,
}

/// Sectors, by file.
pub type Sectors = Arc<Mutex<BTreeSet<(String, usize)>>>;

impl Watched {
    pub fn new(disk: Disk, read: &Sectors) -> Self {
        Self { disk: OnDisk(disk), read: Arc::clone(read) }
    }

    fn watched(&self, name: &str, file: Box<dyn StorageBackend>) -> Box<dyn StorageBackend> {
        Box::new(WatchedFile { name: name.to_owned(), file, read: Arc::clone(&self.read) })
    }
}

#[derive(Debug)]
struct WatchedFile {
    name: String,
    file: Box<dyn StorageBackend>,
    read: Sectors,
}

impl Directory for Watched {
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        self.disk.lock()
    }
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        Ok(self.disk.open(name)?.map(|file| self.watched(name, file)))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        Ok(self.watched(name, self.disk.create(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

impl StorageBackend for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (first, end) = (offset as usize / SECTOR, (offset as usize + out.len()).div_ceil(SECTOR));
        self.read.lock().unwrap().extend((first..end).map(|sector| (self.name.clone(), sector)));
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}
