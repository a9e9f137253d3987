//! A store in memory.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::snapshots::{MemorySnapshots, Shelf};
use quorate_core::{
    Few, GroupId, HardState, Incarnation, Index, Load, Loaded, LogId, LogReader, Membership, Rebase,
    Recovered, Run, Snapshot, Store, TermStart, Write, WriteSeq,
};

/// A [`Store`] that remembers for as long as one of its clones lives: a node started from another clone finds what the
/// one before it has written, as after a restart.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<GroupId, Group>,
    /// Those that were here, and must never be again.
    removed: BTreeSet<GroupId>,
    commits: u64,
    settled: u64,
    writes: u64,
    commit_time: Duration,
    failure: Option<String>,
}

#[derive(Debug)]
struct Group {
    incarnation: Incarnation,
    /// The write that is next; none before the group was recovered.
    next: Option<WriteSeq>,
    hard_state: HardState,
    /// Where the log begins, and the membership there.
    base: Snapshot,
    /// Right above the base, without a gap.
    log: Vec<Run>,
    snapshots: Shelf,
}

/// Why a [`MemoryStore`] refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemoryStoreError {
    /// It holds no such group.
    #[error("there is no group {0} in this store: add it first")]
    NoGroup(GroupId),
    /// It holds the group already.
    #[error("group {0} is in this store already")]
    Exists(GroupId),
    /// The group was removed, and is not taken again.
    #[error("group {0} was removed from this store: it is not taken again")]
    Removed(GroupId),
    /// The group has been opened again since.
    #[error("a write of {found} came after {current} had opened group {group}")]
    Superseded {
        /// Which group.
        group: GroupId,
        /// Whose write it is.
        found: Incarnation,
        /// Who has it now.
        current: Incarnation,
    },
    /// A write that is not the next one.
    #[error("write {found} came where {} was next", .expected.map_or_else(|| "none".to_owned(), |seq| seq.to_string()))]
    Order {
        /// Which is next; none before the group is recovered.
        expected: Option<WriteSeq>,
        /// Which came.
        found: WriteSeq,
    },
    /// A term that goes back, or another vote in the same term.
    #[error("term {} with the vote {:?} can't follow term {} with the vote {:?}", .found.term, .found.vote, .current.term, .current.vote)]
    HardState {
        /// What is there.
        current: HardState,
        /// What should take its place.
        found: HardState,
    },
    /// Entries that don't follow what is there.
    #[error("entries from {first} can't follow {last}")]
    Gap {
        /// The first of them.
        first: LogId,
        /// The last entry of the log.
        last: LogId,
    },
    /// A truncation of what is not in the log any more.
    #[error("a log that begins after {base} can't be truncated from index {from}")]
    BelowBase {
        /// Where it begins.
        base: LogId,
        /// Where it should be truncated.
        from: Index,
    },
    /// A log that should begin where it has begun already, or with an entry that it does not hold.
    #[error("a log that begins after {base} and ends with index {last} can't begin after {found}")]
    Base {
        /// Where it begins.
        base: LogId,
        /// Where it ends.
        last: Index,
        /// Where it should begin.
        found: LogId,
    },
    /// A log that should begin where no snapshot replaces what is before.
    #[error("the log can't begin after {0}: no snapshot replaces what is before")]
    NoSnapshot(LogId),
    /// A snapshot that newer ones make useless.
    #[error("a snapshot at {found} is of no use: there is one at {newest}")]
    Newer {
        /// The newest one.
        newest: LogId,
        /// The one that should be staged.
        found: LogId,
    },
    /// One is being staged already.
    #[error("another snapshot of this group is being staged")]
    Busy,
    /// What was received is not what was announced.
    #[error("the snapshot received is not the one announced: {found} bytes of {expected}, or others")]
    OtherBytes {
        /// How many bytes it has.
        expected: u64,
        /// How many came.
        found: u64,
    },
    /// [`MemoryStore::fail`] was called.
    #[error("{0}")]
    Failed(String),
}

impl MemoryStore {
    /// A store that holds group 0, new, with this membership.
    #[must_use]
    pub fn new(membership: Membership) -> Self {
        Self::default().with_group(GroupId(0), membership)
    }

    /// The same store, and in it another group, new, with this membership. One that is there already stays as it is, and one that was
    /// removed stays removed.
    #[must_use]
    pub fn with_group(self, group: GroupId, membership: Membership) -> Self {
        {
            let mut inner = self.lock();
            if !inner.removed.contains(&group) {
                inner.groups.entry(group).or_insert_with(|| Group::new(membership));
            }
        }
        self
    }

    /// How often something was committed.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// How often the driver has found nothing to write for a while, after a commit.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.lock().settled
    }

    /// How many writes those commits held.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// The log of `group`, as far as it is not compacted.
    #[must_use]
    pub fn log(&self, group: GroupId) -> Vec<Run> {
        self.lock().groups.get(&group).map_or_else(Vec::new, |group| group.log.clone())
    }

    /// From now on each commit takes this long, as on a disk.
    pub fn set_commit_time(&self, time: Duration) {
        self.lock().commit_time = time;
    }

    /// From now on every commit and every load fails, with these words.
    pub fn fail(&self, why: &str) {
        self.lock().failure = Some(why.to_owned());
    }

    /// Works again.
    pub fn repair(&self) {
        self.lock().failure = None;
    }

    /// Does something with the snapshots of a group.
    pub(super) fn shelf<T>(
        &self,
        id: GroupId,
        act: impl FnOnce(&mut Shelf) -> Result<T, MemoryStoreError>,
    ) -> Result<T, MemoryStoreError> {
        let mut inner = self.lock();
        inner.check()?;
        act(&mut inner.group(id)?.snapshots)
    }

    /// Publishes a snapshot, and removes those that it replaces.
    pub(super) fn publish(
        &self,
        id: GroupId,
        publish: impl FnOnce(&mut Shelf),
    ) -> Result<(), MemoryStoreError> {
        let mut inner = self.lock();
        inner.check()?;
        let group = inner.group(id)?;
        publish(&mut group.snapshots);
        group.prune();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    type Error = MemoryStoreError;
    type Reader = MemoryStoreReader;
    type Snapshots = MemorySnapshots;

    fn groups(&self) -> Result<Vec<GroupId>, MemoryStoreError> {
        let inner = self.lock();
        inner.check()?;
        Ok(inner.groups.keys().copied().collect())
    }

    fn create(&mut self, id: GroupId, membership: &Membership) -> Result<(), MemoryStoreError> {
        let mut inner = self.lock();
        inner.check()?;
        if inner.removed.contains(&id) {
            return Err(MemoryStoreError::Removed(id));
        }
        match inner.groups.entry(id) {
            Entry::Occupied(_) => Err(MemoryStoreError::Exists(id)),
            Entry::Vacant(entry) => {
                entry.insert(Group::new(membership.clone()));
                Ok(())
            }
        }
    }

    fn remove(&mut self, id: GroupId) -> Result<(), MemoryStoreError> {
        let mut inner = self.lock();
        inner.check()?;
        inner.group(id)?;
        inner.groups.remove(&id);
        inner.removed.insert(id);
        Ok(())
    }

    fn recover(&mut self, id: GroupId) -> Result<Recovered, MemoryStoreError> {
        let mut inner = self.lock();
        inner.check()?;
        let group = inner.group(id)?;
        let snapshot = group.snapshots.newest(|last| group.holds(last)).cloned();
        if snapshot.is_none() && group.base.last != LogId::ZERO {
            return Err(MemoryStoreError::NoSnapshot(group.base.last));
        }
        group.incarnation.0 += 1;
        group.next = Some(WriteSeq(1));
        let mut terms: Vec<TermStart> = Vec::new();
        for run in &group.log {
            if terms.last().is_none_or(|last| last.term != run.term()) {
                terms.push(TermStart { first: run.first(), term: run.term() });
            }
        }
        Ok(Recovered {
            incarnation: group.incarnation,
            hard_state: group.hard_state,
            base: group.base.last,
            base_membership: group.base.membership.clone(),
            applied: snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index),
            snapshot,
            terms,
            last: group.last().index,
            memberships: group.log.iter().flat_map(Run::memberships).collect(),
        })
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), MemoryStoreError> {
        // Not under the lock: who looks at the store doesn't wait for its "disk".
        let commit_time = self.lock().commit_time;
        if !commit_time.is_zero() {
            thread::sleep(commit_time);
        }
        let mut inner = self.lock();
        inner.check()?;
        // Of a write that comes too late nothing is left, nor of those beside it: see `refused`.
        for write in writes {
            inner.group(write.receipt().group())?.check_life(write)?;
        }
        for write in writes {
            inner.group(write.receipt().group())?.write(write)?;
        }
        inner.commits += 1;
        inner.writes += writes.len() as u64;
        Ok(())
    }

    /// Only of writes that come too late: of a group that is not here, or of an earlier life of one.
    fn refused(error: &MemoryStoreError) -> Option<GroupId> {
        match error {
            MemoryStoreError::NoGroup(group)
            | MemoryStoreError::Removed(group)
            | MemoryStoreError::Superseded { group, .. } => Some(*group),
            _ => None,
        }
    }

    fn settle(&mut self) -> Result<(), MemoryStoreError> {
        let mut inner = self.lock();
        inner.check()?;
        inner.settled += 1;
        Ok(())
    }

    fn reader(&self) -> MemoryStoreReader {
        MemoryStoreReader(self.clone())
    }

    fn snapshots(&self) -> MemorySnapshots {
        MemorySnapshots(self.clone())
    }
}

/// Reads a [`MemoryStore`]'s log.
#[derive(Clone, Debug)]
pub struct MemoryStoreReader(MemoryStore);

impl LogReader for MemoryStoreReader {
    type Error = MemoryStoreError;

    fn load(&self, id: GroupId, load: &Load) -> Result<Loaded, MemoryStoreError> {
        let mut inner = self.0.lock();
        inner.check()?;
        Ok(inner.group(id)?.load(load))
    }
}

impl Inner {
    fn check(&self) -> Result<(), MemoryStoreError> {
        self.failure.clone().map_or(Ok(()), |why| Err(MemoryStoreError::Failed(why)))
    }

    fn group(&mut self, id: GroupId) -> Result<&mut Group, MemoryStoreError> {
        let Self { groups, removed, .. } = self;
        groups.get_mut(&id).ok_or_else(|| {
            if removed.contains(&id) { MemoryStoreError::Removed(id) } else { MemoryStoreError::NoGroup(id) }
        })
    }
}

impl Group {
    fn new(membership: Membership) -> Self {
        Self {
            incarnation: Incarnation(0),
            next: None,
            hard_state: HardState::default(),
            base: Snapshot { last: LogId::ZERO, membership },
            log: Vec::new(),
            snapshots: Shelf::default(),
        }
    }

    /// The end of the log.
    fn last(&self) -> LogId {
        self.log.last().map_or(self.base.last, Run::last_id)
    }

    /// Is this entry in the log, or its base?
    fn holds(&self, id: LogId) -> bool {
        self.id_at(id.index) == Some(id)
    }

    /// The entry there, if it is in the log or is its base.
    fn id_at(&self, index: Index) -> Option<LogId> {
        if index == self.base.last.index {
            return Some(self.base.last);
        }
        let at = self.log.partition_point(|run| run.last() < index);
        self.log.get(at).filter(|run| run.first() <= index).map(|run| LogId::new(run.term(), index))
    }

    /// Removes snapshots that are of no use any more.
    fn prune(&mut self) {
        let mut snapshots = std::mem::take(&mut self.snapshots);
        snapshots.prune(self.last(), |last| self.holds(last));
        self.snapshots = snapshots;
    }

    fn write(&mut self, write: &Write) -> Result<(), MemoryStoreError> {
        self.check(write)?;
        self.next = Some(write.seq().next());
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        match write.rebase.as_deref() {
            Some(Rebase::Compact(base)) => {
                let from = base.last.index.next();
                self.log = self.log.iter().filter_map(|run| run.starting_at(from)).collect();
                self.base = base.clone();
            }
            Some(Rebase::Install(snapshot)) => {
                self.log.clear();
                self.base = snapshot.clone();
            }
            None => {}
        }
        if let Some(from) = write.truncate {
            self.truncate(from);
        }
        self.log.extend(write.entries.iter().cloned());
        if write.rebase.is_some() {
            self.prune();
        }
        Ok(())
    }

    /// Is it of the life that the group is in?
    fn check_life(&self, write: &Write) -> Result<(), MemoryStoreError> {
        let (found, current) = (write.receipt().incarnation(), self.incarnation);
        if found == current {
            return Ok(());
        }
        Err(MemoryStoreError::Superseded { group: write.receipt().group(), found, current })
    }

    /// Does it fit what is there? Nothing is changed before all of it does.
    fn check(&self, write: &Write) -> Result<(), MemoryStoreError> {
        if self.next != Some(write.seq()) {
            return Err(MemoryStoreError::Order { expected: self.next, found: write.seq() });
        }
        if let Some(found) = write.hard_state {
            let current = self.hard_state;
            let voted = found.term == current.term && current.vote.is_some() && found.vote != current.vote;
            if found.term < current.term || voted {
                return Err(MemoryStoreError::HardState { current, found });
            }
        }
        let (mut base, mut last) = (self.base.last, self.last());
        match write.rebase.as_deref() {
            Some(Rebase::Compact(to)) => {
                self.check_compaction(to.last)?;
                base = to.last;
            }
            Some(Rebase::Install(snapshot)) => {
                let found = snapshot.last;
                if found.index <= base.index {
                    return Err(MemoryStoreError::Base { base, last: last.index, found });
                }
                if !self.snapshots.holds(found) {
                    return Err(MemoryStoreError::NoSnapshot(found));
                }
                (base, last) = (found, found);
            }
            None => {}
        }
        if let Some(from) = write.truncate {
            if from <= base.index {
                return Err(MemoryStoreError::BelowBase { base, from });
            }
            if from <= last.index {
                last = self.id_at(from.prev()).unwrap_or(base);
            }
        }
        for run in &write.entries {
            let first = LogId::new(run.term(), run.first());
            if first.index != last.index.next() || first.term < last.term {
                return Err(MemoryStoreError::Gap { first, last });
            }
            last = run.last_id();
        }
        Ok(())
    }

    /// The log may begin after one of its entries, if there is a snapshot at it or later.
    fn check_compaction(&self, found: LogId) -> Result<(), MemoryStoreError> {
        let base = self.base.last;
        if found.index <= base.index || !self.holds(found) {
            return Err(MemoryStoreError::Base { base, last: self.last().index, found });
        }
        let replaced = self.snapshots.newest(|last| self.holds(last));
        if replaced.is_none_or(|snapshot| snapshot.last.index < found.index) {
            return Err(MemoryStoreError::NoSnapshot(found));
        }
        Ok(())
    }

    fn truncate(&mut self, from: Index) {
        while let Some(run) = self.log.pop_if(|run| run.last() >= from) {
            if let Some(head) = run.ending_before(from) {
                self.log.push(head);
                return;
            }
        }
    }

    fn load(&self, load: &Load) -> Loaded {
        if load.first <= self.base.last.index {
            return Loaded::Compacted;
        }
        let mut entries = Few::new();
        let mut left = load.max_bytes;
        let from = self.log.partition_point(|run| run.last() < load.first);
        for run in self.log.iter().skip(from).take_while(|run| run.first() <= load.last) {
            let wanted = run.starting_at(load.first).and_then(|run| run.ending_before(load.last.next()));
            let Some(wanted) = wanted else { break };
            let part = wanted.within(left);
            if part.bytes() > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(part.bytes());
            let whole = part.last() == wanted.last();
            entries.push(part);
            if !whole {
                break;
            }
        }
        Loaded::Entries(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{LoadId, NodeId, Term};

    fn group(runs: &[(u64, u64, usize)]) -> Group {
        let run = |&(term, first, count): &(u64, u64, usize)| {
            Run::commands(Term(term), Index(first), &vec![b"12345"; count]).unwrap()
        };
        Group {
            incarnation: Incarnation(1),
            next: Some(WriteSeq(1)),
            hard_state: HardState::default(),
            base: at(0, 0),
            log: runs.iter().map(run).collect(),
            snapshots: Shelf::default(),
        }
    }

    fn at(term: u64, index: u64) -> Snapshot {
        let last = LogId::new(Term(term), Index(index));
        Snapshot { last, membership: Membership::of_voters([NodeId(1)]) }
    }

    fn load(group: &Group, first: u64, last: u64, max_bytes: usize) -> Vec<(u64, u64)> {
        let load = Load { id: LoadId::default(), first: Index(first), last: Index(last), max_bytes };
        match group.load(&load) {
            Loaded::Entries(runs) => runs.iter().map(|run| (run.first().0, run.last().0)).collect(),
            Loaded::Compacted => Vec::new(),
        }
    }

    #[test]
    fn loads_what_is_asked_for_and_no_more_than_fits_but_one_entry() {
        let group = group(&[(1, 1, 4), (1, 5, 4), (2, 9, 4)]);
        assert_eq!(load(&group, 1, 12, 1000), [(1, 4), (5, 8), (9, 12)]);
        assert_eq!(load(&group, 3, 9, 1000), [(3, 4), (5, 8), (9, 9)]);
        assert_eq!(load(&group, 6, 6, 1000), [(6, 6)]);
        assert_eq!(load(&group, 1, 12, 0), [(1, 1)]);
        assert_eq!(load(&group, 2, 12, 65), [(2, 4), (5, 7)], "ten bytes an entry");
        assert_eq!(load(&group, 1, 12, 40), [(1, 4)]);
    }

    #[test]
    fn truncates_in_the_middle_of_a_run() {
        let ends = |from| {
            let mut group = group(&[(1, 1, 4), (1, 5, 4), (2, 9, 4)]);
            group.truncate(Index(from));
            group.last().index.0
        };
        assert_eq!([13, 12, 9, 8, 5, 1].map(ends), [12, 11, 8, 7, 4, 0]);
    }

    #[test]
    fn issues_a_new_incarnation_each_time_and_fails_when_told_to() {
        let mut store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
        assert_eq!(store.recover(GroupId(0)).unwrap().incarnation, Incarnation(1));
        assert_eq!(store.clone().recover(GroupId(0)).unwrap().incarnation, Incarnation(2));
        assert_eq!(store.recover(GroupId(9)), Err(MemoryStoreError::NoGroup(GroupId(9))));
        store.fail("on fire");
        assert_eq!(store.recover(GroupId(0)), Err(MemoryStoreError::Failed("on fire".into())));
        store.repair();
        assert!(store.recover(GroupId(0)).is_ok());
    }
}
