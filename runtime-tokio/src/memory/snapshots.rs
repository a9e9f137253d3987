//! The snapshots of a store in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use quorate_core::{GroupId, LogId, Snapshot, SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots};

use super::store::{MemoryStore, MemoryStoreError};

/// How many snapshots of a group are kept, the newest that the log can rest on and those before it.
const KEPT: usize = 2;

/// The snapshots of one group.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    published: BTreeMap<LogId, Published>,
    /// What is left of a transfer that was cut short.
    partial: Option<(SnapshotInfo, Vec<u8>)>,
    taking: Staging,
    receiving: Staging,
}

/// Is one being staged? As long as its writer is there, and not a moment longer: that can't be left undone, whatever the
/// store refuses meanwhile.
#[derive(Debug, Default)]
struct Staging(Weak<()>);

impl Staging {
    fn is_under_way(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Begins; it is under way until what is returned is dropped.
    fn begin(&mut self) -> Arc<()> {
        let held = Arc::new(());
        self.0 = Arc::downgrade(&held);
        held
    }
}

#[derive(Clone, Debug)]
struct Published {
    info: SnapshotInfo,
    bytes: Arc<[u8]>,
}

impl Shelf {
    /// The newest published snapshot that fits into the log.
    pub(super) fn newest(&self, fits: impl Fn(LogId) -> bool) -> Option<&Snapshot> {
        self.published.values().rev().map(|published| &published.info.snapshot).find(|it| fits(it.last))
    }

    /// The last one, in the log or not.
    fn latest(&self) -> Option<LogId> {
        self.published.keys().copied().max_by_key(|last| last.index)
    }

    pub(super) fn holds(&self, last: LogId) -> bool {
        self.published.contains_key(&last)
    }

    /// Removes what newer ones have replaced, but for a few. Those after the newest one that the log can rest on may be about
    /// to be installed.
    pub(super) fn prune(&mut self, end: LogId, fits: impl Fn(LogId) -> bool) {
        let newest = self.newest(&fits).map_or(LogId::ZERO, |snapshot| snapshot.last);
        let replaced = self.published.keys().filter(|last| last.index < newest.index);
        let gone: Vec<LogId> = replaced.copied().rev().skip(KEPT - 1).collect();
        for last in gone {
            self.published.remove(&last);
        }
        self.partial.take_if(|(info, _)| info.snapshot.last.index <= end.index);
    }
}

/// Keeps the snapshots of a [`MemoryStore`].
#[derive(Clone, Debug)]
pub struct MemorySnapshots(pub(super) MemoryStore);

impl Snapshots for MemorySnapshots {
    type Error = MemoryStoreError;
    type Writer = MemorySnapshotWriter;
    type Reader = MemorySnapshotReader;

    fn list(&self, group: GroupId) -> Result<Vec<SnapshotInfo>, MemoryStoreError> {
        self.0.shelf(group, |shelf| Ok(shelf.published.values().map(|it| it.info.clone()).collect()))
    }

    fn take(&self, group: GroupId, snapshot: &Snapshot) -> Result<MemorySnapshotWriter, MemoryStoreError> {
        let held = self.0.shelf(group, |shelf| {
            if shelf.taking.is_under_way() {
                return Err(MemoryStoreError::Busy);
            }
            if let Some(newest) = shelf.latest().filter(|newest| newest.index >= snapshot.last.index) {
                return Err(MemoryStoreError::Newer { newest, found: snapshot.last });
            }
            Ok(shelf.taking.begin())
        })?;
        Ok(MemorySnapshotWriter {
            store: self.0.clone(),
            group,
            snapshot: snapshot.clone(),
            expected: None,
            bytes: Vec::new(),
            synced: 0,
            excess: None,
            _held: held,
        })
    }

    fn receive(&self, group: GroupId, info: &SnapshotInfo) -> Result<MemorySnapshotWriter, MemoryStoreError> {
        let (bytes, held) = self.0.shelf(group, |shelf| {
            if shelf.receiving.is_under_way() {
                return Err(MemoryStoreError::Busy);
            }
            let last = info.snapshot.last;
            if let Some(newest) = shelf.latest().filter(|newest| newest.index > last.index) {
                return Err(MemoryStoreError::Newer { newest, found: last });
            }
            let partial = shelf.partial.take().filter(|(of, _)| of == info);
            Ok((partial.map_or_else(Vec::new, |(_, bytes)| bytes), shelf.receiving.begin()))
        })?;
        Ok(MemorySnapshotWriter {
            store: self.0.clone(),
            group,
            snapshot: info.snapshot.clone(),
            expected: Some(info.clone()),
            synced: bytes.len(),
            bytes,
            excess: None,
            _held: held,
        })
    }

    fn open(&self, group: GroupId, last: LogId) -> Result<Option<MemorySnapshotReader>, MemoryStoreError> {
        self.0.shelf(group, |shelf| Ok(shelf.published.get(&last).cloned().map(MemorySnapshotReader)))
    }
}

/// Stages a snapshot in a [`MemoryStore`].
#[derive(Debug)]
pub struct MemorySnapshotWriter {
    store: MemoryStore,
    group: GroupId,
    snapshot: Snapshot,
    /// What was announced, if it is received.
    expected: Option<SnapshotInfo>,
    bytes: Vec<u8>,
    synced: usize,
    /// More came than was announced, in all so much: nothing can be staged any more.
    excess: Option<u64>,
    /// While it is there, no other of its kind is staged.
    _held: Arc<()>,
}

impl SnapshotWriter for MemorySnapshotWriter {
    type Error = MemoryStoreError;

    fn staged(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), MemoryStoreError> {
        self.check_here()?;
        self.check_excess()?;
        let staged = self.staged().saturating_add(bytes.len() as u64);
        self.excess = self.expected.as_ref().filter(|expected| staged > expected.bytes).map(|_| staged);
        self.check_excess()?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), MemoryStoreError> {
        self.check_here()?;
        self.synced = self.bytes.len();
        Ok(())
    }

    fn publish(mut self) -> Result<SnapshotInfo, MemoryStoreError> {
        self.check_excess()?;
        let bytes: Arc<[u8]> = std::mem::take(&mut self.bytes).into();
        let info = SnapshotInfo {
            snapshot: self.snapshot.clone(),
            bytes: bytes.len() as u64,
            checksum: crc32c::crc32c(&bytes),
        };
        if let Some(expected) = self.expected.as_ref().filter(|expected| **expected != info) {
            let (expected, found) = (expected.bytes, info.bytes);
            self.synced = 0;
            return Err(MemoryStoreError::OtherBytes { expected, found });
        }
        self.store.publish(self.group, |shelf| {
            shelf.published.insert(info.snapshot.last, Published { info: info.clone(), bytes });
        })?;
        self.synced = 0;
        Ok(info)
    }
}

impl MemorySnapshotWriter {
    /// It can't go on once its group was removed.
    fn check_here(&self) -> Result<(), MemoryStoreError> {
        self.store.shelf(self.group, |_| Ok(()))
    }

    fn check_excess(&self) -> Result<(), MemoryStoreError> {
        match (self.excess, &self.expected) {
            (Some(found), Some(SnapshotInfo { bytes: expected, .. })) => {
                Err(MemoryStoreError::OtherBytes { expected: *expected, found })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for MemorySnapshotWriter {
    fn drop(&mut self) {
        let Some(info) = self.expected.take() else { return };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(self.synced);
        if !bytes.is_empty() {
            // A store that fails, or whose group is gone, keeps nothing of it.
            let _kept = self.store.shelf(self.group, |shelf| {
                shelf.partial = Some((info, bytes));
                Ok(())
            });
        }
    }
}

/// Reads a snapshot of a [`MemoryStore`].
#[derive(Clone, Debug)]
pub struct MemorySnapshotReader(Published);

impl SnapshotReader for MemorySnapshotReader {
    type Error = MemoryStoreError;

    fn info(&self) -> &SnapshotInfo {
        &self.0.info
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, MemoryStoreError> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.bytes.get(from..).unwrap_or_default();
        let len = rest.len().min(out.len());
        if let (Some(out), Some(rest)) = (out.get_mut(..len), rest.get(..len)) {
            out.copy_from_slice(rest);
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::{Index, Membership, NodeId, Store as _, Term};

    use super::*;

    #[test]
    fn one_that_was_cut_short_while_the_store_failed_is_in_nobodys_way() {
        let group = GroupId(0);
        let membership = Membership::of_voters([NodeId(1)]);
        let store = MemoryStore::new(membership.clone());
        let snapshots = store.snapshots();
        let at = |index| Snapshot { last: LogId::new(Term(1), Index(index)), membership: membership.clone() };
        let mut first = snapshots.take(group, &at(1)).unwrap();
        first.write(b"state").unwrap();
        let info = first.publish().unwrap();
        let next = SnapshotInfo { snapshot: at(2), ..info };
        // Of each kind one at a time.
        let (taken, received) = (snapshots.take(group, &at(2)), snapshots.receive(group, &next));
        assert_eq!(snapshots.take(group, &at(2)).map(drop), Err(MemoryStoreError::Busy));
        assert_eq!(snapshots.receive(group, &next).map(drop), Err(MemoryStoreError::Busy));
        store.fail("the disk is gone");
        drop((taken, received));
        store.repair();
        let mut taken = snapshots.take(group, &at(2)).unwrap();
        taken.write(b"other").unwrap();
        let mut received = snapshots.receive(group, &next).unwrap();
        received.write(b"st").unwrap();
        received.sync().unwrap();
        drop(received);
        // What was made durable before a transfer was cut short is still there.
        assert_eq!(snapshots.receive(group, &next).unwrap().staged(), 2);
        taken.publish().unwrap();
    }
}
