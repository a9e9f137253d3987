//! What is done to a store while no node runs on it: a new one is made from a backup, and one is cut loose from a cluster that has
//! lost its quorum.

use std::{path::Path, sync::Arc};

use quorate_core::{
    GroupId, HardState, LogId, Membership, MembershipParts, NodeId, Run, SnapshotReader as _,
    SnapshotWriter as _, Snapshots as _, Store as _, Term,
};

use crate::{
    ArchiveReader, Directory, Error, Identity, Options, RedbStore, directory::FsDirectory,
    front::write_identity, open, record::Base,
};

/// What [`RedbStore::force_single`] has done to a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forced {
    /// Which group.
    pub group: GroupId,
    /// Whose store it was.
    pub before: Identity,
    /// Whose it is: the same node, in a cluster of its own.
    pub after: Identity,
    /// The membership that was in force.
    pub membership_before: Membership,
    /// Where the log ended. Everything up to here counts as committed from now on.
    pub last_before: LogId,
    /// Where the membership of this node alone was put into the log.
    pub membership_at: LogId,
    /// Where the caller's record of all this was put into the log.
    pub record_at: LogId,
}

impl RedbStore {
    /// Bootstraps a store in `dir` whose group begins with what a backup holds: its log begins, and ends, at the backup's entry, with
    /// this membership. Each node of a new cluster is made so, from the same backup, under a cluster id that was never used.
    ///
    /// # Errors
    /// As [`RedbStore::create`]; [`Error::SameCluster`] if the backup is of the very cluster that `identity` names, for its nodes may
    /// live and remember otherwise; and if the backup can't be read or is damaged. There is no store then.
    pub fn restore(
        dir: impl AsRef<Path>,
        identity: Identity,
        group: GroupId,
        membership: Membership,
        archive: &mut ArchiveReader,
    ) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let result = Self::restore_in(&open::made(dir)?, identity, group, membership, archive);
        result.map_err(|error| open::with_dir(error, dir))
    }

    /// The same in a directory of the caller's: for tests with faults.
    ///
    /// # Errors
    /// As [`RedbStore::restore`].
    pub fn restore_on(
        directory: impl Directory,
        identity: Identity,
        group: GroupId,
        membership: Membership,
        archive: &mut ArchiveReader,
    ) -> Result<Self, Error> {
        let directory: Arc<dyn Directory> = Arc::new(directory);
        Self::restore_in(&directory, identity, group, membership, archive)
    }

    fn restore_in(
        directory: &Arc<dyn Directory>,
        identity: Identity,
        group: GroupId,
        membership: Membership,
        archive: &mut ArchiveReader,
    ) -> Result<Self, Error> {
        let mut snapshot = archive.header().snapshot.clone();
        if archive.header().identity.cluster == identity.cluster {
            return Err(Error::SameCluster(identity.cluster));
        }
        snapshot.membership = membership;
        let groups = [(group, snapshot.membership.clone())];
        open::create_seeded(Options::default(), directory, identity, &groups, |store| {
            let mut writer = store.snapshots().take(group, &snapshot)?;
            let mut chunk = vec![0; 64 << 10];
            let mut at = 0;
            loop {
                let read = archive.read_at(at, &mut chunk)?;
                if read == 0 {
                    break;
                }
                writer.write(chunk.get(..read).unwrap_or_default())?;
                at = at.saturating_add(read as u64);
            }
            let (expected, found) = (archive.info().checksum, writer.publish()?.checksum);
            if expected != found {
                return Err(archive.other_bytes());
            }
            store.begin_at(group, Base { id: snapshot.last, membership: snapshot.membership.clone() })
        })
    }

    /// The log of a fresh group begins, and ends, here.
    fn begin_at(&mut self, group: GroupId, base: Base) -> Result<(), Error> {
        self.latched(|store| {
            store.transact(|staged, _| {
                let changed = staged.group(group)?;
                (changed.group.base, changed.group.last) = (base.id, base.id);
                changed.group.hard_state = HardState { term: base.id.term, vote: None };
                changed.state_changed = true;
                staged.bases.insert(group, base);
                Ok(())
            })
        })
    }

    /// Cuts the node in `dir` loose from a cluster whose quorum is lost for good: it becomes the only voter of each of its groups, in
    /// a cluster of its own with the id `new_cluster`, so that a node of the old one that comes back can't be
    /// mixed up with it. All that is in its log counts as committed. What others had acknowledged and this one has
    /// not is lost; what nobody was told of may become true. So does dissertation 4.3 warn of removing nodes by force.
    ///
    /// Each group's log is continued by the membership of this node alone, and a command whose payload is `record`'s.
    /// If it is interrupted it can be done again, under another id if the store says that this one is there already.
    ///
    /// # Errors
    /// As [`RedbStore::open`]; [`Error::SameCluster`] if the id is the one it has, or one that it had. [`Error::BadSnapshot`] if a snapshot is
    /// of a cluster that it was of so many times ago that it would not be known any more: nothing is changed then.
    pub fn force_single(
        dir: impl AsRef<Path>,
        new_cluster: u128,
        record: impl FnMut(&Forced) -> Vec<u8>,
    ) -> Result<Vec<Forced>, Error> {
        let dir = dir.as_ref();
        let before = Self::identity_in(dir)?.ok_or_else(|| Error::Missing { dir: dir.to_owned() })?;
        let directory: Arc<dyn Directory> = Arc::new(FsDirectory::new(dir));
        Self::force_in(directory, before, new_cluster, record)
    }

    /// The same in a directory of the caller's, of which he knows whose it is: for tests with faults.
    ///
    /// # Errors
    /// As [`RedbStore::force_single`].
    pub fn force_single_on(
        directory: impl Directory,
        before: Identity,
        new_cluster: u128,
        record: impl FnMut(&Forced) -> Vec<u8>,
    ) -> Result<Vec<Forced>, Error> {
        Self::force_in(Arc::new(directory), before, new_cluster, record)
    }

    fn force_in(
        directory: Arc<dyn Directory>,
        before: Identity,
        new_cluster: u128,
        mut record: impl FnMut(&Forced) -> Vec<u8>,
    ) -> Result<Vec<Forced>, Error> {
        if before.cluster == new_cluster {
            return Err(Error::SameCluster(new_cluster));
        }
        let after = Identity { cluster: new_cluster, node: before.node };
        let mut store = open::open_on(Options::default(), directory, before)?;
        let groups = store.groups()?;
        // All is looked through before anything is changed.
        let owner = open::owner_in(&*store.medium, &store.file)?;
        if owner.formerly.contains(&new_cluster) {
            return Err(Error::SameCluster(new_cluster));
        }
        let moved = owner.moved_to(new_cluster);
        for group in &groups {
            store.shelf.check_move(*group, moved)?;
        }
        let recovered = store.recover_many(&groups)?.into_iter();
        let memberships: Vec<Membership> = recovered
            .map(|mut it| it.memberships.pop().map_or(it.base_membership, |(_, newest)| newest))
            .collect();
        // The name first: under the old one, with a log that says otherwise, it might be let in again.
        let io = |source| Error::Io { doing: "writing the new identity of the store", source };
        store.latched(|store| {
            write_identity(&*store.medium, moved).map_err(io)?;
            store.medium.sync_data().map_err(io)
        })?;
        let mut done = Vec::with_capacity(groups.len());
        store.latched(|store| {
            store.transact(|staged, log| {
                for (group, membership_before) in groups.into_iter().zip(memberships) {
                    let alone = only(after.node, &membership_before);
                    let changed = staged.group(group)?;
                    let last_before = changed.group.last;
                    // As a leader of a new term would append it, elected by itself.
                    let term = Term(changed.group.hard_state.term.max(last_before.term).0.saturating_add(1));
                    changed.group.hard_state = HardState { term, vote: Some(after.node) };
                    changed.state_changed = true;
                    let membership_at = LogId::new(term, last_before.index.next());
                    let record_at = LogId::new(term, membership_at.index.next());
                    let facts = Forced {
                        group,
                        before,
                        after,
                        membership_before,
                        last_before,
                        membership_at,
                        record_at,
                    };
                    changed.append(log, &Run::membership(term, membership_at.index, &alone))?;
                    if let Some(run) = Run::commands(term, record_at.index, &[record(&facts)]) {
                        changed.append(log, &run)?;
                    }
                    done.push(facts);
                }
                Ok(())
            })
        })?;
        store.close()?;
        Ok(done)
    }
}

/// This node alone; ids that were used before stay used.
fn only(node: NodeId, before: &Membership) -> Membership {
    let next_id = before.next_id().max(NodeId(node.0.saturating_add(1)));
    let parts = MembershipParts { voters: vec![node], next_id, ..MembershipParts::default() };
    Membership::try_from(parts).unwrap_or_else(|_| Membership::of_voters([node]))
}
