//! What the tests share: writes from thin air, snapshots, and a disk with faults under the store.

#![allow(dead_code, unreachable_pub)]

pub mod contents;
pub mod hooked;
pub mod on_disk;

use bytes::Bytes;
use quorate_core::{
    EntryKind, GroupId, Incarnation, Index, Load, LoadId, Loaded, LogReader, Membership, NodeId, Snapshot,
    SnapshotInfo, SnapshotWriter, Snapshots, Store, Term, Write,
};
use quorate_storage_redb::{Error, Identity, RedbStore};

pub const IDENTITY: Identity =
    Identity { cluster: 0x5EED_0000_0000_0000_0000_0000_0000_0001, node: NodeId(3) };

/// An empty write; its public fields are filled in by the caller.
pub fn write(group: GroupId, incarnation: Incarnation, seq: u64) -> Write {
    Write::minted(group, incarnation, quorate_core::WriteSeq(seq))
}

pub fn voters(ids: &[u64]) -> Membership {
    Membership::of_voters(ids.iter().copied().map(NodeId))
}

/// Publishes a snapshot, with a few bytes in it.
pub fn publish(store: &RedbStore, group: GroupId, snapshot: &Snapshot) -> SnapshotInfo {
    let mut writer = store.snapshots().take(group, snapshot).unwrap();
    writer.write(format!("the state at {}", snapshot.last).as_bytes()).unwrap();
    writer.publish().unwrap()
}

/// The whole log above `base`, read through a reader with loads of a few sizes.
pub fn read_log(
    store: &RedbStore,
    group: GroupId,
    base: Index,
    last: Index,
) -> Result<Vec<(Term, EntryKind, Bytes)>, Error> {
    let reader = store.reader();
    let mut log = Vec::new();
    let mut next = base.next();
    let mut max_bytes = 1;
    while next <= last {
        let load = Load { id: LoadId::default(), first: next, last, max_bytes };
        max_bytes = (max_bytes * 31) % 200_003;
        let Loaded::Entries(runs) = reader.load(group, &load)? else {
            panic!("{next} is said to be compacted")
        };
        for run in &runs {
            assert_eq!(run.first(), next);
            next = run.last().next();
            log.extend(run.entries().map(|entry| (entry.id.term, entry.kind, entry.payload)));
        }
    }
    Ok(log)
}
