//! The snapshots of a store whose type is not known, so that nothing above it is generic over stores.

use quorate_core::{
    GroupId, LogId, Snapshot, SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots, Source, StateError,
};

/// What a store said went wrong.
pub(crate) type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// [`Snapshots`], object-safe.
pub(crate) trait AnySnapshots: Send + Sync {
    /// [`Snapshots::list`].
    fn list(&self, group: GroupId) -> Result<Vec<SnapshotInfo>, StoreError>;
    /// [`Snapshots::take`].
    fn take(&self, group: GroupId, snapshot: &Snapshot) -> Result<Box<dyn AnyWriter>, StoreError>;
    /// [`Snapshots::receive`].
    fn receive(&self, group: GroupId, info: &SnapshotInfo) -> Result<Box<dyn AnyWriter>, StoreError>;
    /// [`Snapshots::open`].
    fn open(&self, group: GroupId, last: LogId) -> Result<Option<Box<dyn AnyReader>>, StoreError>;
}

/// [`SnapshotWriter`], object-safe.
pub(crate) trait AnyWriter: Send {
    /// [`SnapshotWriter::staged`].
    fn staged(&self) -> u64;
    /// [`SnapshotWriter::write`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
    /// [`SnapshotWriter::sync`].
    fn sync(&mut self) -> Result<(), StoreError>;
    /// [`SnapshotWriter::publish`].
    fn publish(self: Box<Self>) -> Result<SnapshotInfo, StoreError>;
}

/// [`SnapshotReader`], object-safe.
pub(crate) trait AnyReader: Send {
    /// [`SnapshotReader::info`].
    fn info(&self) -> &SnapshotInfo;
    /// [`SnapshotReader::read_at`].
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, StoreError>;
}

impl<S: Snapshots> AnySnapshots for S {
    fn list(&self, group: GroupId) -> Result<Vec<SnapshotInfo>, StoreError> {
        Ok(Snapshots::list(self, group)?)
    }

    fn take(&self, group: GroupId, snapshot: &Snapshot) -> Result<Box<dyn AnyWriter>, StoreError> {
        Ok(Box::new(Snapshots::take(self, group, snapshot)?))
    }

    fn receive(&self, group: GroupId, info: &SnapshotInfo) -> Result<Box<dyn AnyWriter>, StoreError> {
        Ok(Box::new(Snapshots::receive(self, group, info)?))
    }

    fn open(&self, group: GroupId, last: LogId) -> Result<Option<Box<dyn AnyReader>>, StoreError> {
        let reader = Snapshots::open(self, group, last)?;
        Ok(reader.map(|reader| Box::new(reader) as Box<dyn AnyReader>))
    }
}

impl<W: SnapshotWriter> AnyWriter for W {
    fn staged(&self) -> u64 {
        SnapshotWriter::staged(self)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(SnapshotWriter::write(self, bytes)?)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(SnapshotWriter::sync(self)?)
    }

    fn publish(self: Box<Self>) -> Result<SnapshotInfo, StoreError> {
        Ok(SnapshotWriter::publish(*self)?)
    }
}

impl<R: SnapshotReader> AnyReader for R {
    fn info(&self) -> &SnapshotInfo {
        SnapshotReader::info(self)
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, StoreError> {
        Ok(SnapshotReader::read_at(self, offset, out)?)
    }
}

/// Reads a snapshot from its beginning to its end, for [`StateMachine::restore`](quorate_core::StateMachine::restore).
pub(crate) struct AnySource {
    reader: Box<dyn AnyReader>,
    at: u64,
}

impl AnySource {
    /// From the first byte.
    pub(crate) const fn new(reader: Box<dyn AnyReader>) -> Self {
        Self { reader, at: 0 }
    }
}

impl Source for AnySource {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, StateError> {
        let read = self.reader.read_at(self.at, out)?;
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}
