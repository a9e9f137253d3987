//! The store: one transaction for all that is to be committed, then the watermark, then the answer.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use quorate_core::{GroupId, HardState, Incarnation, LogId, Membership, Recovered, Store, Write, WriteSeq};
use redb::{Durability, StorageBackend, WriteTransaction};

use crate::{
    Directory, Error, Fact, Identity, Options, RedbReader, RedbSnapshots,
    error::from_redb,
    front::{Slot, write_watermark},
    held::Owned,
    latch::Latch,
    open,
    record::{
        Base, COMMIT_KEY, GROUPS, GroupKey, LOG, Removed, base_key, encode_commit, removed_key, state_key,
    },
    snapshots::Shelf,
    writer::{LogTable, Staged},
};

/// The durable state of a node's groups. See the [crate's page](crate) for what it promises.
///
/// Owned by the one thread that writes; [`Store::reader`] and [`Store::snapshots`] give others a view. Dropping it closes
/// the file, as [`RedbStore::close`] does.
#[derive(Debug)]
pub struct RedbStore {
    /// Shared by whoever commits or reads; exclusive only for [`RedbStore::reclaim`].
    pub(crate) db: Owned,
    pub(crate) medium: Arc<dyn StorageBackend>,
    /// What the file is called in errors.
    pub(crate) file: Arc<str>,
    pub(crate) identity: Identity,
    pub(crate) two_phase: bool,
    /// The newest commit's number.
    pub(crate) commit: u64,
    /// Where the next watermark goes.
    pub(crate) slot: Slot,
    /// Is the newest watermark durable?
    pub(crate) settled: bool,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) bases: BTreeMap<GroupId, Base>,
    /// The groups that were here, and must never be again.
    pub(crate) removed: BTreeSet<GroupId>,
    /// The first error of a commit.
    pub(crate) latch: Latch,
    pub(crate) shelf: Arc<Shelf>,
    /// Last, so that the directory is let go of when all else is closed.
    pub(crate) lock: Closing,
}

/// Closes the shelf, then lets go of the directory.
#[derive(Debug)]
pub(crate) struct Closing {
    shelf: Arc<Shelf>,
    _lock: Box<dyn Any + Send>,
}

impl Closing {
    pub(crate) fn new(shelf: &Arc<Shelf>, lock: Box<dyn Any + Send>) -> Self {
        Self { shelf: Arc::clone(shelf), _lock: lock }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.shelf.close();
    }
}

/// What is kept in memory of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) incarnation: Incarnation,
    pub(crate) hard_state: HardState,
    pub(crate) base: LogId,
    /// The end of the log.
    pub(crate) last: LogId,
    /// The write that is next; none before the group was recovered.
    pub(crate) next: Option<WriteSeq>,
}

/// How a store comes to be, and what it tells of itself.
impl RedbStore {
    /// Bootstraps a store in `dir`, which is made if need be: of this node, with these groups, each with the
    /// membership that it begins with. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::AlreadyBootstrapped`] if `dir` holds a store: it is left as it is. [`Error::GroupExists`] if a group
    /// is named twice. Else if the file can't be written.
    pub fn create(
        dir: impl AsRef<Path>,
        identity: Identity,
        groups: &[(GroupId, Membership)],
    ) -> Result<Self, Error> {
        Self::create_with(Options::default(), dir, identity, groups)
    }

    /// The same with these options.
    ///
    /// # Errors
    /// As [`RedbStore::create`].
    pub fn create_with(
        options: Options,
        dir: impl AsRef<Path>,
        identity: Identity,
        groups: &[(GroupId, Membership)],
    ) -> Result<Self, Error> {
        open::create_in(options, dir.as_ref(), identity, groups)
    }

    /// The same in a directory of the caller's: for tests with faults.
    ///
    /// # Errors
    /// As [`RedbStore::create`].
    pub fn create_on(
        options: Options,
        directory: impl Directory,
        identity: Identity,
        groups: &[(GroupId, Membership)],
    ) -> Result<Self, Error> {
        let directory: Arc<dyn Directory> = Arc::new(directory);
        open::create_on(options, &directory, identity, groups)
    }

    /// Opens the store in `dir`, which must be of this node.
    ///
    /// After an unclean stop, and with [`Options::verify_on_open`], every page of the database is read and checked, so
    /// this takes as long as reading the file does.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::WrongCluster`], [`Error::WrongNode`], [`Error::UnknownVersion`],
    /// [`Error::InUse`]; [`Error::Damaged`] or [`Error::Lost`] if this node has lost what it had promised; else if
    /// the file can't be read.
    pub fn open(dir: impl AsRef<Path>, expected: Identity) -> Result<Self, Error> {
        Self::open_with(Options::default(), dir, expected)
    }

    /// The same with these options.
    ///
    /// # Errors
    /// As [`RedbStore::open`].
    pub fn open_with(options: Options, dir: impl AsRef<Path>, expected: Identity) -> Result<Self, Error> {
        open::open_in(options, dir.as_ref(), expected)
    }

    /// The same in a directory of the caller's: for tests with faults.
    ///
    /// # Errors
    /// As [`RedbStore::open`].
    pub fn open_on(options: Options, directory: impl Directory, expected: Identity) -> Result<Self, Error> {
        open::open_on(options, Arc::new(directory), expected)
    }

    /// Whose store is in `dir`, if there is one. Opens nothing for writing, so it may be asked while the store is in
    /// use.
    ///
    /// # Errors
    /// If there is something that can't be read, or is no store of a known version.
    pub fn identity_in(dir: impl AsRef<Path>) -> Result<Option<Identity>, Error> {
        open::identity_in(dir.as_ref())
    }

    /// Whose store this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The groups that were removed from it, in order: they can't be created here again.
    pub fn removed(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.removed.iter().copied()
    }

    /// Closes the file, once the loads that are under way have ended, and says how that went. What was committed is durable either way; after a close that succeeds
    /// the next open need not repair anything.
    ///
    /// # Errors
    /// If the file could not be closed cleanly.
    pub fn close(self) -> Result<(), Error> {
        let Self { db, file, lock, .. } = self;
        let result = db
            .take()
            .map_or(Ok(()), |db| db.close().map_err(|error| from_redb(&file, "closing the store", error)));
        drop(lock);
        result
    }
}

impl Store for RedbStore {
    type Error = Error;
    type Reader = RedbReader;
    type Snapshots = RedbSnapshots;

    fn groups(&self) -> Result<Vec<GroupId>, Error> {
        Ok(self.groups.keys().copied().collect())
    }

    /// One `fdatasync`, as each commit.
    fn create(&mut self, group: GroupId, membership: &Membership) -> Result<(), Error> {
        self.create_many(&[(group, membership.clone())])
    }

    /// All in one transaction: all of them or, after an error, none.
    fn create_many(&mut self, groups: &[(GroupId, Membership)]) -> Result<(), Error> {
        self.latch.check()?;
        if groups.is_empty() { Ok(()) } else { self.add_groups(groups) }
    }

    /// One `fdatasync`. The files of its snapshots are removed after it; those that could not be are when the store is opened.
    fn remove(&mut self, group: GroupId) -> Result<(), Error> {
        self.latch.check()?;
        self.remove_group(group)
    }

    fn recover(&mut self, group: GroupId) -> Result<Recovered, Error> {
        let mut recovered = self.recover_many(&[group])?;
        recovered.pop().ok_or(Error::UnknownGroup(group))
    }

    /// All logs are read, then all incarnations are written in one transaction.
    fn recover_many(&mut self, groups: &[GroupId]) -> Result<Vec<Recovered>, Error> {
        self.latch.check()?;
        self.recover_groups(groups)
    }

    /// The transaction of a commit that is refused is undone: nothing of it is on the disk.
    fn refused(error: &Error) -> Option<GroupId> {
        match error {
            Error::BadWrite { group, .. } | Error::UnknownGroup(group) | Error::GroupRemoved(group) => {
                Some(*group)
            }
            _ => None,
        }
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), Error> {
        self.latch.check()?;
        if writes.is_empty() {
            return Ok(());
        }
        self.latched(|store| {
            store.transact(|staged, log| writes.iter().try_for_each(|write| staged.write(log, write)))
        })
    }

    /// Makes the newest watermark durable now, and not with the next commit: one `fdatasync`, or nothing if that is
    /// done. It bounds how long damage to the newest commit after a power failure could go unnoticed.
    fn settle(&mut self) -> Result<(), Error> {
        self.latch.check()?;
        if self.settled {
            return Ok(());
        }
        self.latched(|store| {
            let io = |source| Error::Io { doing: "syncing the watermark of a commit", source };
            store.medium.sync_data().map_err(io)?;
            store.settled = true;
            Ok(())
        })
    }

    fn reader(&self) -> RedbReader {
        RedbReader::new(&self.db, &self.file)
    }

    fn snapshots(&self) -> RedbSnapshots {
        RedbSnapshots::new(Arc::clone(&self.shelf))
    }
}

impl RedbStore {
    /// After an error nothing may be written any more: what is on the disk is not known. Not so if only something was refused.
    pub(crate) fn latched<T>(
        &mut self,
        commit: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let latch = self.latch.clone();
        commit(self).inspect_err(|error| {
            if Self::refused(error).is_none() {
                latch.set(error);
            }
        })
    }

    /// One durable commit: the transaction, then the watermark. In this order, so that the watermark never says
    /// more than the database can hold; and both before the answer, so that the answer never says more than the
    /// watermark. A crash in between leaves a database that is one commit newer, which nobody was told of.
    pub(crate) fn transact(
        &mut self,
        change: impl FnOnce(&mut Staged<'_>, &mut LogTable<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let failed = |error: redb::Error| from_redb(&self.file, "committing", error);
        let number = self.commit.saturating_add(1);
        let db = self.db.held().read();
        let mut txn = db.db()?.begin_write().map_err(|error| failed(error.into()))?;
        txn.set_durability(Durability::Immediate).map_err(|error| failed(error.into()))?;
        txn.set_two_phase_commit(self.two_phase);
        let mut staged = Staged::new(&self.groups, &self.removed, &self.file, number, &self.shelf);
        let filled = self.fill_log(&txn, &mut staged, change).and_then(|()| self.fill_groups(&txn, &staged));
        if let Err(error) = filled {
            // Nothing of it stays. Where even that fails the store has failed, whatever the first error was.
            txn.abort().map_err(|error| failed(error.into()))?;
            return Err(error);
        }
        txn.commit().map_err(|error| failed(error.into()))?;
        drop(db);
        let (bases, gone) = (staged.bases, staged.gone);
        let changed: Vec<_> =
            staged.changed.into_iter().map(|(group, changed)| (group, changed.group)).collect();
        let facts: Vec<Fact> = gone
            .keys()
            .map(|id| Fact::removed(*id))
            .chain(changed.iter().map(|(id, group)| group.fact(*id)))
            .collect();
        write_watermark(&*self.medium, self.slot, number, facts.into_iter())
            .map_err(|source| Error::Io { doing: "writing the watermark of a commit", source })?;
        self.slot = self.slot.other();
        self.settled = false;
        self.commit = number;
        self.groups.extend(changed);
        for (group, base) in bases {
            self.shelf.rebase(group, base.id);
            self.bases.insert(group, base);
        }
        for (group, _) in gone {
            self.groups.remove(&group);
            self.bases.remove(&group);
            self.removed.insert(group);
        }
        Ok(())
    }

    /// Puts what changes into the logs.
    fn fill_log(
        &self,
        txn: &WriteTransaction,
        staged: &mut Staged<'_>,
        change: impl FnOnce(&mut Staged<'_>, &mut LogTable<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let failed = |error: redb::Error| from_redb(&self.file, "committing", error);
        let mut log = txn.open_table(LOG).map_err(|error| failed(error.into()))?;
        change(staged, &mut log)?;
        staged.flush_all(&mut log)
    }

    /// Puts what changes beside the logs into the other table.
    fn fill_groups(&self, txn: &WriteTransaction, staged: &Staged<'_>) -> Result<(), Error> {
        let failed = |error: redb::Error| from_redb(&self.file, "committing", error);
        let states: Vec<_> =
            staged.changed.iter().filter_map(|(id, changed)| Some((*id, changed.state()?))).collect();
        let nothing = staged.changed.is_empty() && staged.gone.is_empty();
        if states.is_empty() && staged.bases.is_empty() && staged.gone.is_empty() && !nothing {
            // Nothing but entries.
            return Ok(());
        }
        let mut groups = txn.open_table(GROUPS).map_err(|error| failed(error.into()))?;
        for (group, incarnation) in &staged.gone {
            for key in [state_key(*group), base_key(*group)] {
                groups.remove(&key).map_err(|error| failed(error.into()))?;
            }
            let removed = Removed { commit: staged.number, incarnation: *incarnation };
            groups
                .insert(&removed_key(*group), &removed.encode(*group)[..])
                .map_err(|error| failed(error.into()))?;
        }
        let mut put = |key: GroupKey, value: &[u8]| {
            groups.insert(&key, value).map(drop).map_err(|error| failed(error.into()))
        };
        for (group, state) in states {
            put(state_key(group), &state.encode(group))?;
        }
        for (group, base) in &staged.bases {
            put(base_key(*group), &base.encode(*group))?;
        }
        if nothing {
            put(COMMIT_KEY, &encode_commit(staged.number))?;
        }
        Ok(())
    }
}

impl Group {
    /// What is durable of it, in short.
    pub(crate) fn fact(&self, group: GroupId) -> Fact {
        let Self { incarnation, hard_state, last, .. } = *self;
        Fact { group, incarnation, hard_state, last, removed: false }
    }
}
