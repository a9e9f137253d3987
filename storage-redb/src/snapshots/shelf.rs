//! Which snapshots there are, and which may go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use quorate_core::{GroupId, Index, LogId, SnapshotInfo, Term};

use super::{Name, RedbSnapshotReader, Stage, in_store};
use crate::{
    ArchiveReader, Damage, Directory, Error, Identity,
    archive::{Body, Prefix, check_place},
    error::io_damage,
    front::Owner,
    latch::Latch,
};

/// Shared by a store, its handles, and who stages or reads.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) latch: Latch,
    pub(crate) identity: Identity,
    /// How many snapshots of a group are kept.
    keep: usize,
    groups: Mutex<BTreeMap<GroupId, Group>>,
    /// Is the store open? Whoever touches the directory holds it until he is done, so that no one does
    /// once the store is closed and another has the directory.
    open: RwLock<bool>,
}

#[derive(Debug, Default)]
struct Group {
    /// By index, then term.
    published: BTreeMap<(Index, Term), Published>,
    /// Which is being taken.
    taking: Option<LogId>,
    receiving: bool,
    /// Transfers that may have left a file: the one that is under way, and those that were cut short.
    transfers: BTreeSet<LogId>,
    base: LogId,
}

/// A snapshot that is whole, or was.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) origin: Origin,
    /// Why it can't be used, if it can't.
    pub(crate) info: Result<SnapshotInfo, String>,
}

/// Where a snapshot is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// It was taken here, of what was applied: its entry is in the log.
    Taken,
    /// A peer has sent it. Until it is installed, its entry may be beyond the log's end, or another's place.
    Received,
}

impl Shelf {
    /// Finds out what is in the directory; removes what is of no use.
    pub(crate) fn load(
        directory: Arc<dyn Directory>,
        latch: Latch,
        owner: Owner,
        keep: usize,
        bases: impl Iterator<Item = (GroupId, LogId)>,
        removed: &BTreeSet<GroupId>,
    ) -> Result<Arc<Self>, Error> {
        let mut groups: BTreeMap<GroupId, Group> =
            bases.map(|(id, base)| (id, Group { base, ..Group::default() })).collect();
        let names =
            directory.list().map_err(|source| Error::Io { doing: "looking for snapshots", source })?;
        let mut left = Vec::new();
        for name in names.iter().filter_map(|name| Name::parse(name)) {
            match (name.stage, groups.get_mut(&name.group)) {
                (Stage::Taking, _) => left.push(name),
                // The process ended before all files of a group that was removed were.
                _ if removed.contains(&name.group) => left.push(name),
                (Stage::Published, Some(group)) => {
                    let found = find(&*directory, name, owner)?;
                    group.published.insert((name.last.index, name.last.term), found);
                }
                (Stage::Receiving, Some(group)) => {
                    group.transfers.insert(name.last);
                }
                // Those of a group that is not known are left alone: they are nobody's to remove.
                (Stage::Receiving | Stage::Published, None) => {}
            }
        }
        for (id, group) in &groups {
            let newest = group.newest().unwrap_or(Index(0));
            let overtaken = group.transfers.iter().filter(|last| last.index <= newest);
            left.extend(overtaken.map(|last| Name { group: *id, last: *last, stage: Stage::Receiving }));
        }
        for name in left {
            let _still_there = directory.remove(&name.text());
        }
        let keep = keep.max(1);
        let open = RwLock::new(true);
        let shelf =
            Self { directory, latch, identity: owner.identity, keep, groups: Mutex::new(groups), open };
        let ids: Vec<GroupId> = shelf.lock().keys().copied().collect();
        ids.into_iter().for_each(|id| shelf.prune(id));
        Ok(Arc::new(shelf))
    }

    /// For as long as this is held the store is not closed.
    pub(crate) fn open(&self) -> Result<RwLockReadGuard<'_, bool>, Error> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if *open { Ok(open) } else { Err(Error::Closed) }
    }

    /// The store is closed: nobody touches the directory any more.
    pub(crate) fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    pub(crate) fn add_group(&self, id: GroupId) {
        self.lock().entry(id).or_default();
    }

    /// The group is gone for good, and so are its files. One that can't be removed now is when the store is opened.
    pub(crate) fn remove_group(&self, id: GroupId) {
        let Some(group) = self.lock().remove(&id) else { return };
        let name = |last, stage| Name { group: id, last, stage };
        let published = group.published.keys().map(|(index, term)| LogId::new(*term, *index));
        let all = (published.map(|last| name(last, Stage::Published)))
            .chain(group.transfers.iter().map(|last| name(*last, Stage::Receiving)))
            .chain(group.taking.map(|last| name(last, Stage::Taking)));
        for name in all {
            let _still_there = self.directory.remove(&name.text());
        }
    }

    /// Is the group still here that somebody stages a snapshot of?
    pub(crate) fn check_here(&self, id: GroupId) -> Result<(), Error> {
        if self.lock().contains_key(&id) { Ok(()) } else { Err(Error::GroupRemoved(id)) }
    }

    /// What may be left of transfers of other snapshots than this.
    pub(crate) fn other_transfers(&self, id: GroupId, last: LogId) -> Vec<LogId> {
        let groups = self.lock();
        let transfers = groups.get(&id).into_iter().flat_map(|group| &group.transfers);
        transfers.filter(|other| **other != last).copied().collect()
    }

    /// Nothing is left of a transfer.
    pub(crate) fn forget_transfer(&self, id: GroupId, last: LogId) {
        if let Some(group) = self.lock().get_mut(&id) {
            group.transfers.remove(&last);
        }
    }

    pub(crate) fn list(&self, id: GroupId) -> Result<Vec<SnapshotInfo>, Error> {
        let groups = self.lock();
        let group = groups.get(&id).ok_or(Error::UnknownGroup(id))?;
        let found = group.published.iter().map(|((index, term), found)| match &found.info {
            Ok(info) => Ok(info.clone()),
            Err(what) => Err(self.damaged(id, LogId::new(*term, *index), what.clone())),
        });
        found.collect()
    }

    /// All that there is of a group, the newest first.
    pub(crate) fn newest_first(&self, id: GroupId) -> Vec<(LogId, Published)> {
        let groups = self.lock();
        let published = groups.get(&id).into_iter().flat_map(|group| group.published.iter().rev());
        published.map(|((index, term), found)| (LogId::new(*term, *index), found.clone())).collect()
    }

    /// Is there one at this very entry that can be used?
    pub(crate) fn holds(&self, id: GroupId, last: LogId) -> bool {
        let groups = self.lock();
        let found = groups.get(&id).and_then(|group| group.published.get(&(last.index, last.term)));
        found.is_some_and(|found| found.info.is_ok())
    }

    pub(crate) fn reader(&self, id: GroupId, last: LogId) -> Result<Option<RedbSnapshotReader>, Error> {
        {
            let groups = self.lock();
            let group = groups.get(&id).ok_or(Error::UnknownGroup(id))?;
            match group.published.get(&(last.index, last.term)).map(|found| &found.info) {
                None => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(_)) => {
                    drop(groups);
                    return Err(self.damage(id, last));
                }
            }
        }
        let name = Name { group: id, last, stage: Stage::Published }.text();
        let file = self.directory.describe(&name);
        let io = |source| io_damage(&file, "opening a snapshot", source);
        let Some(backend) = self.directory.open(&name).map_err(io)? else {
            // It was removed between the look and this: a newer one has replaced it; or somebody has done that to us.
            let gone = self
                .lock()
                .get(&id)
                .is_some_and(|group| !group.published.contains_key(&(last.index, last.term)));
            if gone {
                return Ok(None);
            }
            let what = "the file of the snapshot is gone".to_owned();
            return Err(Box::new(Damage { file, group: Some(id), index: Some(last.index), what }).into());
        };
        let archive =
            ArchiveReader::on(backend, file.clone()).map_err(|error| in_store(error, &file, id, last))?;
        Ok(Some(RedbSnapshotReader { archive, file, group: id }))
    }

    /// Why a snapshot can't be used.
    pub(crate) fn damage(&self, id: GroupId, last: LogId) -> Error {
        let groups = self.lock();
        let found = groups.get(&id).and_then(|group| group.published.get(&(last.index, last.term)));
        let what = found.and_then(|found| found.info.as_ref().err()).cloned();
        self.damaged(id, last, what.unwrap_or_else(|| "the snapshot is gone".to_owned()))
    }

    fn damaged(&self, id: GroupId, last: LogId, what: String) -> Error {
        let file = self.directory.describe(&Name { group: id, last, stage: Stage::Published }.text());
        Box::new(Damage { file, group: Some(id), index: Some(last.index), what }).into()
    }

    /// Would all that can be used be one's own still, if the store became another cluster's?
    pub(crate) fn check_move(&self, id: GroupId, moved: Owner) -> Result<(), Error> {
        for (last, found) in self.newest_first(id) {
            if found.info.is_err() {
                continue;
            }
            if let Some(RedbSnapshotReader { archive, file, .. }) = self.reader(id, last)?
                && foreign(&archive, moved).is_some()
            {
                let what =
                    "the cluster that it is of would be forgotten. Start the node, and let it take another";
                return Err(Error::BadSnapshot { file, offset: None, what });
            }
        }
        Ok(())
    }

    /// Begins to stage: one of each kind at a time, and only what is newer than what there is.
    pub(crate) fn begin(&self, id: GroupId, last: LogId, origin: Origin) -> Result<(), Error> {
        let mut groups = self.lock();
        let group = groups.get_mut(&id).ok_or(Error::UnknownGroup(id))?;
        // One that is there may be received again: whoever asks was cut off before he knew, and its bytes may be others.
        let useless = |newest: &Index| match origin {
            Origin::Taken => *newest >= last.index,
            Origin::Received => *newest > last.index,
        };
        if let Some(newest) = group.newest().filter(useless) {
            return Err(Error::SnapshotNotNewer { group: id, newest, found: last.index });
        }
        let busy = match origin {
            Origin::Taken => group.taking.is_some(),
            Origin::Received => group.receiving,
        };
        if busy {
            return Err(Error::SnapshotBusy(id));
        }
        match origin {
            Origin::Taken => group.taking = Some(last),
            Origin::Received => {
                group.receiving = true;
                group.transfers.insert(last);
            }
        }
        Ok(())
    }

    /// Staging is over, one way or another. Is the group still here?
    pub(crate) fn end(&self, id: GroupId, origin: Origin) -> bool {
        let mut groups = self.lock();
        let Some(group) = groups.get_mut(&id) else { return false };
        match origin {
            Origin::Taken => group.taking = None,
            Origin::Received => group.receiving = false,
        }
        true
    }

    /// A snapshot has its name, durably.
    ///
    /// # Errors
    /// If its group was removed meanwhile.
    pub(crate) fn publish(&self, id: GroupId, info: SnapshotInfo, origin: Origin) -> Result<(), Error> {
        let last = info.snapshot.last;
        let here = self.lock().get_mut(&id).map(|group| {
            group.published.insert((last.index, last.term), Published { origin, info: Ok(info) });
            if origin == Origin::Received {
                group.transfers.remove(&last);
            }
        });
        here.ok_or(Error::GroupRemoved(id))?;
        self.prune(id);
        Ok(())
    }

    /// The log begins later.
    pub(crate) fn rebase(&self, id: GroupId, base: LogId) {
        if let Some(group) = self.lock().get_mut(&id) {
            group.base = base;
        }
        self.prune(id);
    }

    /// Removes what newer ones have replaced. What can't be removed now is tried again the next time.
    fn prune(&self, id: GroupId) {
        let mut replaced = Vec::new();
        if let Some(group) = self.lock().get_mut(&id) {
            let gone = group.replaced(self.keep).into_iter();
            replaced.extend(gone.filter_map(|at| group.published.remove_entry(&at)));
        }
        // Not under the lock: removing a large file takes a while, and a commit may want to know what there is.
        for ((index, term), found) in replaced {
            let name = Name { group: id, last: LogId::new(term, index), stage: Stage::Published };
            if self.directory.remove(&name.text()).is_err()
                && let Some(group) = self.lock().get_mut(&id)
            {
                group.published.insert((index, term), found);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Where the newest one is that can be used. A damaged one is no reason not to have it once more.
    fn newest(&self) -> Option<Index> {
        let mut usable = self.published.iter().rev().filter(|(_, found)| found.info.is_ok());
        usable.next().map(|((index, _), _)| *index)
    }

    /// Which may go. The log rests on a snapshot at its base or later whose entry is its own: that is sure of one that
    /// was taken here, and of any at or below the base. A received one beyond may not be installed yet.
    fn replaced(&self, keep: usize) -> Vec<(Index, Term)> {
        let sure = |(at, found): &(&(Index, Term), &Published)| {
            found.info.is_ok() && (found.origin == Origin::Taken || at.0 <= self.base.index)
        };
        let mut kept = self.published.iter().rev().filter(sure).map(|(at, _)| *at);
        let Some(newest) = kept.next() else { return Vec::new() };
        if newest.0 < self.base.index {
            // What the log rests on is among those that are not sure.
            return Vec::new();
        }
        let oldest = kept.take(keep.saturating_sub(1)).last().unwrap_or(newest);
        // Any that is beyond may be about to be installed. One before that is damaged is of no use to anyone, and in the way of a list.
        let useless = |(at, found): &(&(Index, Term), &Published)| {
            **at < oldest || (**at < newest && found.info.is_err())
        };
        self.published.iter().filter(useless).map(|(at, _)| *at).collect()
    }
}

/// Looks at a published snapshot.
fn find(directory: &dyn Directory, name: Name, owner: Owner) -> Result<Published, Error> {
    let file = directory.describe(&name.text());
    let io = |source| io_damage(&file, "opening a snapshot", source);
    let bad = |what: String| Published { origin: Origin::Taken, info: Err(what) };
    let Some(backend) = directory.open(&name.text()).map_err(io)? else {
        return Ok(bad("the file of the snapshot is gone".to_owned()));
    };
    let archive = match ArchiveReader::on(backend, file) {
        Ok(archive) => archive,
        Err(Error::BadSnapshot { what, .. }) => {
            return Ok(bad(format!("the snapshot is not what was written: {what}")));
        }
        Err(error) => return Err(error),
    };
    if let Err(Error::BadSnapshot { what, .. }) = check_place(&archive, name.group, name.last) {
        return Ok(bad(what.to_owned()));
    }
    if let Some(what) = foreign(&archive, owner) {
        return Ok(bad(what));
    }
    let origin = if archive.announced().is_some() { Origin::Received } else { Origin::Taken };
    Ok(Published { origin, info: Ok(quorate_core::SnapshotReader::info(&archive).clone()) })
}

/// Is it of another cluster?
pub(crate) fn foreign(archive: &ArchiveReader, owner: Owner) -> Option<String> {
    let cluster = archive.header().identity.cluster;
    let own = cluster == owner.identity.cluster || owner.formerly.contains(&cluster);
    (!own).then(|| format!("it is a snapshot of cluster {cluster:032x}, not of this one"))
}

/// What is left of a transfer of exactly this, if there is anything.
pub(crate) fn resumable(
    directory: &dyn Directory,
    name: &str,
    prefix: &Prefix,
) -> Result<Option<Body>, Error> {
    let file = directory.describe(name);
    let io = |source| io_damage(&file, "opening a snapshot", source);
    let Some(backend) = directory.open(name).map_err(io)? else { return Ok(None) };
    match Body::open(backend, file) {
        Ok(body) if body.prefix == *prefix => Ok(Some(body)),
        Ok(_) | Err(Error::BadSnapshot { .. } | Error::UnknownVersion { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{Membership, NodeId, Snapshot};

    fn group(base: u64, found: &[(u64, Origin)]) -> Group {
        let published = found.iter().map(|(index, origin)| {
            let last = LogId::new(Term(1), Index(*index));
            let snapshot = Snapshot { last, membership: Membership::of_voters([NodeId(1)]) };
            let info = Ok(SnapshotInfo { snapshot, bytes: 0, checksum: 0 });
            ((last.index, last.term), Published { origin: *origin, info })
        });
        Group { base: LogId::new(Term(1), Index(base)), published: published.collect(), ..Group::default() }
    }

    fn goes(base: u64, found: &[(u64, Origin)], keep: usize) -> Vec<u64> {
        group(base, found).replaced(keep).into_iter().map(|(index, _)| index.0).collect()
    }

    #[test]
    fn what_the_log_rests_on_stays() {
        use Origin::{Received, Taken};
        assert_eq!(goes(0, &[], 2), []);
        assert_eq!(goes(5, &[(5, Received)], 1), []);
        assert_eq!(goes(5, &[(3, Taken), (5, Received), (8, Taken)], 1), [3, 5]);
        assert_eq!(goes(5, &[(3, Taken), (5, Received), (8, Taken)], 2), [3]);
        // One that was received and not installed is no reason to let go of what there is, nor of another such.
        assert_eq!(goes(5, &[(5, Taken), (9, Received)], 1), []);
        assert_eq!(goes(5, &[(5, Taken), (8, Received), (9, Received)], 1), []);
        // The log begins after an entry that is covered only by such a one: its own entry, after all.
        assert_eq!(goes(7, &[(5, Taken), (8, Received), (9, Received)], 1), []);
        assert_eq!(goes(8, &[(5, Taken), (8, Received), (9, Received)], 1), [5]);
    }

    #[test]
    fn damaged_ones_go_once_nothing_rests_on_them() {
        let gone = |base, damaged: &[u64]| {
            let mut group = group(base, &[2, 3, 5, 9].map(|index| (index, Origin::Taken)));
            for ((index, _), found) in &mut group.published {
                if damaged.contains(&index.0) {
                    found.info = Err("damaged".to_owned());
                }
            }
            group.replaced(2).into_iter().map(|(index, _)| index.0).collect::<Vec<_>>()
        };
        assert_eq!(gone(5, &[3]), [2, 3]);
        assert_eq!(gone(5, &[5]), [2, 5]);
        assert_eq!(gone(5, &[2, 3, 5]), [2, 3, 5]);
        // The newest one tells of the damage; what is before may be what the log needs, and no other counts as sure.
        assert_eq!(gone(5, &[9]), [2]);
        assert_eq!(gone(7, &[9]), []);
    }
}
