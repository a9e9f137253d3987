//! A store of one life of a node: when that life ends, nothing more of it reaches the disk.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use quorate_core::{GroupId, Membership, Recovered, Store, Write};
use quorate_runtime_tokio::{MemorySnapshots, MemoryStore, MemoryStoreError, MemoryStoreReader};

pub(crate) struct Disk {
    pub(crate) store: MemoryStore,
    pub(crate) alive: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), MemoryStoreError> {
        if self.alive.load(SeqCst) { Ok(()) } else { Err(MemoryStoreError::Failed("crashed".to_owned())) }
    }
}

impl Store for Disk {
    type Error = MemoryStoreError;
    type Reader = MemoryStoreReader;
    type Snapshots = MemorySnapshots;

    fn groups(&self) -> Result<Vec<GroupId>, MemoryStoreError> {
        self.store.groups()
    }

    fn create(&mut self, group: GroupId, membership: &Membership) -> Result<(), MemoryStoreError> {
        self.check()?;
        self.store.create(group, membership)
    }

    fn remove(&mut self, group: GroupId) -> Result<(), MemoryStoreError> {
        self.check()?;
        self.store.remove(group)
    }

    fn recover(&mut self, group: GroupId) -> Result<Recovered, MemoryStoreError> {
        self.check()?;
        self.store.recover(group)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), MemoryStoreError> {
        self.check()?;
        self.store.commit(writes)
    }

    fn reader(&self) -> MemoryStoreReader {
        self.store.reader()
    }

    fn snapshots(&self) -> MemorySnapshots {
        self.store.snapshots()
    }
}
