//! The store itself.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use quorate_core::{GroupId, Index, Membership, NodeId, SnapshotWriter, Snapshots, Store, Write};
use quorate_storage_redb::{Identity, Options, RedbStore};

use super::{
    Case,
    counting::{Counts, Io},
    folder::Folder,
    minted::{Mint, snapshot},
    turns::Variant,
};

pub(super) const IDENTITY: Identity = Identity { cluster: 1, node: NodeId(1) };

/// A store, and what mints the writes of its groups.
pub(super) struct Stored {
    pub(super) store: RedbStore,
    pub(super) mints: Vec<Mint>,
    case: Case,
    singly: bool,
    counts: Counts,
    prepared: Vec<Write>,
}

impl Stored {
    /// A new one in `dir`. `singly`: a write for each entry, or one for all entries of a group.
    pub(super) fn new(dir: &Path, case: Case, options: Options, singly: bool) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let counts = Counts::default();
        let groups: Vec<_> = (0..case.groups as u64)
            .map(|group| (GroupId(group), Membership::of_voters([NodeId(1)])))
            .collect();
        let folder = Folder::new(dir, &counts, &Counts::default());
        let mut store = RedbStore::create_on(options, folder, IDENTITY, &groups)?;
        let mints = groups
            .into_iter()
            .map(|(group, _)| {
                let recovered = store.recover(group)?;
                Ok(Mint::new(group, recovered.incarnation, recovered.last))
            })
            .collect::<Result<_>>()?;
        Ok(Self { store, mints, case, singly, counts, prepared: Vec::new() })
    }

    /// Removes the entries of every group up to this one, in one commit, and says how long that took. Small snapshots
    /// replace them.
    pub(super) fn compact(&mut self, up_to: Index) -> Result<Duration> {
        let snapshots = self.store.snapshots();
        for mint in &self.mints {
            let mut taken = snapshots.take(mint.group, &snapshot(up_to))?;
            taken.write(b"what the entries came to")?;
            taken.publish()?;
        }
        let writes = self.mints.iter_mut().map(|mint| mint.compact(up_to)).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        self.store.commit(&writes)?;
        Ok(start.elapsed())
    }
}

impl Variant for Stored {
    fn prepare(&mut self) -> Result<()> {
        let Case { entries, payload, .. } = self.case;
        let (writes, each) = if self.singly { (entries, 1) } else { (1, entries) };
        self.prepared.clear();
        for mint in &mut self.mints {
            for _ in 0..writes {
                self.prepared.push(mint.entries(each, payload)?);
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        Ok(self.store.commit(&self.prepared)?)
    }

    fn io(&self) -> Io {
        self.counts.so_far()
    }
}
