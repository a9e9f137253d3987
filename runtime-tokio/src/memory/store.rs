//! A store in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use quorate_core::{
    Few, GroupId, HardState, Incarnation, Index, Load, Loaded, LogId, LogReader, Membership, Rebase,
    Recovered, Run, Snapshot, Store, TermStart, Write,
};

/// A [`Store`] that remembers for as long as one of its clones lives: a node started from another clone finds what the
/// one before it has written, as after a restart.
///
/// It does not hold the bytes of snapshots: what it knows of the newest one is where the log begins.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<GroupId, Group>,
    commits: u64,
    settled: u64,
    writes: u64,
    commit_time: Duration,
    failure: Option<String>,
}

#[derive(Debug)]
struct Group {
    incarnation: Incarnation,
    hard_state: HardState,
    /// Where the log begins, and the membership there.
    base: Snapshot,
    /// Right above the base, without a gap.
    log: Vec<Run>,
}

/// Why a [`MemoryStore`] refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemoryStoreError {
    /// It holds no such group.
    #[error("there is no group {0} in this store: add it first")]
    NoGroup(GroupId),
    /// The group has been opened again since.
    #[error("a write of {found} came after {current} had opened the group")]
    Superseded {
        /// Whose write it is.
        found: Incarnation,
        /// Who has it now.
        current: Incarnation,
    },
    /// Entries that don't follow what is there.
    #[error("entries from index {first} can't follow index {last}")]
    Gap {
        /// Where they begin.
        first: Index,
        /// Where the log ends.
        last: Index,
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

    /// The same store, and in it another group, new, with this membership. One that is there already stays as it is.
    #[must_use]
    pub fn with_group(self, group: GroupId, membership: Membership) -> Self {
        self.lock().groups.entry(group).or_insert_with(|| Group {
            incarnation: Incarnation(0),
            hard_state: HardState::default(),
            base: Snapshot { last: LogId::ZERO, membership },
            log: Vec::new(),
        });
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    type Error = MemoryStoreError;
    type Reader = MemoryStoreReader;

    fn recover(&mut self, id: GroupId) -> Result<Recovered, MemoryStoreError> {
        let mut inner = self.lock();
        inner.check()?;
        let group = inner.groups.get_mut(&id).ok_or(MemoryStoreError::NoGroup(id))?;
        group.incarnation.0 += 1;
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
            snapshot: (group.base.last != LogId::ZERO).then(|| group.base.clone()),
            terms,
            last: group.last(),
            memberships: group.log.iter().flat_map(Run::memberships).collect(),
            applied: group.base.last.index,
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
        for write in writes {
            let id = write.receipt().group();
            inner.groups.get_mut(&id).ok_or(MemoryStoreError::NoGroup(id))?.write(write)?;
        }
        inner.commits += 1;
        inner.writes += writes.len() as u64;
        Ok(())
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
}

/// Reads a [`MemoryStore`]'s log.
#[derive(Clone, Debug)]
pub struct MemoryStoreReader(MemoryStore);

impl LogReader for MemoryStoreReader {
    type Error = MemoryStoreError;

    fn load(&self, id: GroupId, load: &Load) -> Result<Loaded, MemoryStoreError> {
        let inner = self.0.lock();
        inner.check()?;
        let group = inner.groups.get(&id).ok_or(MemoryStoreError::NoGroup(id))?;
        Ok(group.load(load))
    }
}

impl Inner {
    fn check(&self) -> Result<(), MemoryStoreError> {
        self.failure.clone().map_or(Ok(()), |why| Err(MemoryStoreError::Failed(why)))
    }
}

impl Group {
    fn last(&self) -> Index {
        self.log.last().map_or(self.base.last.index, Run::last)
    }

    fn write(&mut self, write: &Write) -> Result<(), MemoryStoreError> {
        let (found, current) = (write.receipt().incarnation(), self.incarnation);
        if found != current {
            return Err(MemoryStoreError::Superseded { found, current });
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        match write.rebase.as_deref() {
            Some(Rebase::Compact(base)) => self.compact(base)?,
            Some(Rebase::Install(snapshot)) => {
                self.log.clear();
                self.base = snapshot.clone();
            }
            None => {}
        }
        if let Some(from) = write.truncate {
            self.truncate(from);
        }
        for run in &write.entries {
            let (first, last) = (run.first(), self.last());
            if first != last.next() {
                return Err(MemoryStoreError::Gap { first, last });
            }
            self.log.push(run.clone());
        }
        Ok(())
    }

    /// Removes the entries up to `base`, which must be one of them.
    fn compact(&mut self, base: &Snapshot) -> Result<(), MemoryStoreError> {
        let LogId { term, index } = base.last;
        let holds = |run: &Run| run.term() == term && (run.first()..=run.last()).contains(&index);
        if !self.log.iter().any(holds) {
            let (last, found) = (self.last(), base.last);
            return Err(MemoryStoreError::Base { base: self.base.last, last, found });
        }
        self.log = self.log.iter().filter_map(|run| run.starting_at(index.next())).collect();
        self.base = base.clone();
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
            hard_state: HardState::default(),
            base: at(0, 0),
            log: runs.iter().map(run).collect(),
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
            group.last().0
        };
        assert_eq!([13, 12, 9, 8, 5, 1].map(ends), [12, 11, 8, 7, 4, 0]);
    }

    #[test]
    fn compacts_in_the_middle_of_a_run_and_only_what_it_holds() {
        let compacted = |term, index| {
            let mut group = group(&[(1, 1, 4), (1, 5, 4), (2, 9, 4)]);
            group.compact(&at(term, index)).map(|()| load(&group, index + 1, 99, 1000))
        };
        assert_eq!(compacted(1, 6), Ok(vec![(7, 8), (9, 12)]));
        assert_eq!(compacted(1, 8), Ok(vec![(9, 12)]));
        assert_eq!(compacted(2, 12), Ok(vec![]));
        for (term, index) in [(2, 8), (2, 13), (0, 0)] {
            let (base, found) = (LogId::ZERO, at(term, index).last);
            assert_eq!(compacted(term, index), Err(MemoryStoreError::Base { base, last: Index(12), found }));
        }
        let mut group = group(&[(1, 1, 4)]);
        group.compact(&at(1, 4)).unwrap();
        assert_eq!(group.last(), Index(4), "nothing is left, and it goes on from there");
        let gone = Load { id: LoadId::default(), first: Index(4), last: Index(9), max_bytes: 9 };
        assert_eq!(group.load(&gone), Loaded::Compacted);
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
