//! How writes change the log: what is staged for one transaction.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry};

use bytes::Bytes;
use quorate_core::{GroupId, HardState, Incarnation, Index, LogId, Rebase, Run, Snapshot, Write};
use redb::{ReadableTable, Table};

use crate::{
    Error, Misfit,
    error::from_redb,
    record::{
        Base, LogKey, RUN_HEADER, RunHeader, State, check_run, decode_run, encode_run, index_of, log_key,
    },
    recovery::bad_entry,
    snapshots::{Origin, Shelf},
    store::Group,
};

/// The table of entries, open for writing.
pub(crate) type LogTable<'txn> = Table<'txn, &'static LogKey, &'static [u8]>;

/// Bytes of entries in one value, unless it is a single entry: with header and key it just fits into 64 KiB, which redb
/// rounds a value's page up to. It bounds what recovery, a load or a truncation handles at a time.
const MAX_BLOCK: usize = (64 << 10) - RUN_HEADER - AROUND;
/// What redb puts around a value, at most.
const AROUND: usize = 128;

/// What a transaction is going to change. Nothing of it counts before the transaction is durable.
pub(crate) struct Staged<'a> {
    current: &'a BTreeMap<GroupId, Group>,
    /// Those that were here once.
    removed: &'a BTreeSet<GroupId>,
    file: &'a str,
    /// The number of this commit.
    pub(crate) number: u64,
    shelf: &'a Shelf,
    pub(crate) changed: BTreeMap<GroupId, Changed<'a>>,
    pub(crate) bases: BTreeMap<GroupId, Base>,
    /// Those that this removes, and the last life of each.
    pub(crate) gone: BTreeMap<GroupId, Incarnation>,
}

/// A group as it will be.
pub(crate) struct Changed<'a> {
    file: &'a str,
    number: u64,
    id: GroupId,
    pub(crate) group: Group,
    /// Must its state be written, or do the entries appended say it all?
    pub(crate) state_changed: bool,
    appended: bool,
    /// Entries that wait for more of their term, to share a value.
    pending: Option<Pending>,
}

/// Runs of one term, one after the other.
#[derive(Default)]
struct Pending {
    runs: VecDeque<Run>,
    bytes: usize,
}

impl<'a> Staged<'a> {
    pub(crate) fn new(
        current: &'a BTreeMap<GroupId, Group>,
        removed: &'a BTreeSet<GroupId>,
        file: &'a str,
        number: u64,
        shelf: &'a Shelf,
    ) -> Self {
        Self {
            current,
            removed,
            file,
            number,
            shelf,
            changed: BTreeMap::new(),
            bases: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    /// A new group, which is not here.
    pub(crate) fn add(&mut self, group: GroupId, fresh: Group) {
        self.changed.insert(group, Changed::new(self.file, self.number, group, fresh));
    }

    /// A group goes, with all of its log.
    pub(crate) fn remove(&mut self, log: &mut LogTable<'_>, group: GroupId) -> Result<(), Error> {
        let incarnation = self.group(group)?.group.incarnation;
        if let Some(changed) = self.changed.remove(&group) {
            changed.remove(log, Index(0), Index(u64::MAX), "removing a group")?;
        }
        self.gone.insert(group, incarnation);
        Ok(())
    }

    /// A group, to be changed.
    pub(crate) fn group(&mut self, group: GroupId) -> Result<&mut Changed<'a>, Error> {
        match self.changed.entry(group) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let Some(current) = self.current.get(&group).copied() else {
                    let removed = self.removed.contains(&group);
                    return Err(if removed {
                        Error::GroupRemoved(group)
                    } else {
                        Error::UnknownGroup(group)
                    });
                };
                Ok(entry.insert(Changed::new(self.file, self.number, group, current)))
            }
        }
    }

    /// One write: a new beginning of the log, truncation, entries, hard state. That it fits onto what is there is checked, though the
    /// core sees to it, for what is written here is what others will be told.
    pub(crate) fn write(&mut self, log: &mut LogTable<'_>, write: &Write) -> Result<(), Error> {
        let group = write.receipt().group();
        let shelf = self.shelf;
        let changed = self.group(group)?;
        let misfit = |why| Error::BadWrite { group, seq: write.seq(), why };
        changed.take_turn(write).map_err(misfit)?;
        if let Some(rebase) = &write.rebase {
            changed.flush(log)?;
            let Snapshot { last: id, membership } = match &**rebase {
                Rebase::Compact(new) => {
                    let base = changed.group.base;
                    if !changed.holds(log, new.last)? {
                        return Err(misfit(Misfit::Base { base, found: new.last }));
                    }
                    if !changed.is_replaced(log, shelf, new.last)? {
                        return Err(misfit(Misfit::NoSnapshot(new.last)));
                    }
                    changed.compact(log, new.last)?;
                    new
                }
                Rebase::Install(snapshot) => {
                    if !shelf.holds(group, snapshot.last) {
                        return Err(misfit(Misfit::NoSnapshot(snapshot.last)));
                    }
                    changed.install(log, snapshot.last)?;
                    snapshot
                }
            };
            self.bases.insert(group, Base { id: *id, membership: membership.clone() });
        }
        let changed = self.group(group)?;
        if let Some(at) = write.truncate {
            changed.flush(log)?;
            changed.truncate(log, at)?;
        }
        for run in &write.entries {
            let (last, found) = (changed.group.last, LogId::new(run.term(), run.first()));
            if found.index != last.index.next() || found.term < last.term {
                return Err(misfit(Misfit::Gap { last, found }));
            }
            changed.append(log, run)?;
        }
        if let Some(hard_state) = write.hard_state {
            changed.group.hard_state = hard_state;
            changed.state_changed = true;
        }
        Ok(())
    }

    /// Writes out what waits.
    pub(crate) fn flush_all(&mut self, log: &mut LogTable<'_>) -> Result<(), Error> {
        self.changed.values_mut().try_for_each(|changed| changed.flush(log))
    }
}

impl<'a> Changed<'a> {
    fn new(file: &'a str, number: u64, id: GroupId, group: Group) -> Self {
        Self { file, number, id, group, state_changed: false, appended: false, pending: None }
    }

    /// The state to write with this commit, unless the entries say it all: the number of the commit must be in
    /// the database, or it would be missed when the store is opened.
    pub(crate) fn state(&self) -> Option<State> {
        let Group { incarnation, hard_state, last, .. } = self.group;
        (self.state_changed || !self.appended).then_some(State {
            commit: self.number,
            incarnation,
            hard_state,
            last,
        })
    }

    /// Is it this write's turn, and does it keep what was promised? Nothing is changed if not.
    fn take_turn(&mut self, write: &Write) -> Result<(), Misfit> {
        let Group { incarnation, hard_state, base, next, .. } = self.group;
        let expected = next.ok_or(Misfit::NotRecovered)?;
        let found = write.receipt().incarnation();
        if found != incarnation {
            return Err(Misfit::Incarnation { current: incarnation, found });
        }
        if write.seq() != expected {
            return Err(Misfit::Order { expected });
        }
        let base = match write.rebase.as_deref() {
            None => base,
            Some(Rebase::Compact(new) | Rebase::Install(new)) if new.last.index > base.index => new.last,
            Some(Rebase::Compact(new) | Rebase::Install(new)) => {
                return Err(Misfit::Base { base, found: new.last });
            }
        };
        if let Some(at) = write.truncate.filter(|at| *at <= base.index) {
            return Err(Misfit::BelowBase { at, base });
        }
        if write.hard_state.is_some_and(|new| takes_back(hard_state, new)) {
            return Err(Misfit::HardState { current: hard_state });
        }
        self.group.next = Some(expected.next());
        Ok(())
    }

    pub(crate) fn append(&mut self, log: &mut LogTable<'_>, run: &Run) -> Result<(), Error> {
        let mut rest = Some(run.clone());
        while let Some(run) = rest {
            let piece = run.within(MAX_BLOCK);
            rest = run.starting_at(piece.last().next());
            self.append_piece(log, &piece)?;
        }
        Ok(())
    }

    fn append_piece(&mut self, log: &mut LogTable<'_>, piece: &Run) -> Result<(), Error> {
        let joins = self.pending.as_ref().is_some_and(|pending| pending.takes(piece));
        if !joins {
            self.flush(log)?;
        }
        let pending = self.pending.get_or_insert_default();
        pending.bytes = pending.bytes.saturating_add(piece.bytes());
        pending.runs.push_back(piece.clone());
        self.group.last = piece.last_id();
        Ok(())
    }

    fn flush(&mut self, log: &mut LogTable<'_>) -> Result<(), Error> {
        let Some(mut pending) = self.pending.take() else {
            return Ok(());
        };
        self.appended = true;
        while let Some(runs) = pending.take_fitting() {
            self.put(log, &runs)?;
        }
        Ok(())
    }

    /// Removes the entries at `at` and after. The value that holds `at` in its middle is written again with what is
    /// before.
    fn truncate(&mut self, log: &mut LogTable<'_>, at: Index) -> Result<(), Error> {
        if at > self.group.last.index {
            return Ok(());
        }
        self.state_changed = true;
        let before = newest_before(log, self.file, self.id, at, "truncating the log")?;
        self.remove(log, at, Index(u64::MAX), "truncating the log")?;
        self.group.last = match before {
            None => self.group.base,
            Some((header, None)) => header.last_id(),
            Some((_, Some(run))) => {
                let head = run.ending_before(at).unwrap_or(run);
                self.put(log, std::slice::from_ref(&head))?;
                head.last_id()
            }
        };
        Ok(())
    }

    /// Does a published snapshot replace the entries up to `base`? One that was received may be of another log.
    fn is_replaced(&self, log: &LogTable<'_>, shelf: &Shelf, base: LogId) -> Result<bool, Error> {
        for (id, found) in shelf.newest_first(self.id) {
            if id.index < base.index {
                break;
            }
            let ours = found.origin == Origin::Taken || id == self.group.base || self.holds(log, id)?;
            if found.info.is_ok() && ours {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Is this entry in the log?
    fn holds(&self, log: &LogTable<'_>, id: LogId) -> Result<bool, Error> {
        let found = newest_before(log, self.file, self.id, id.index.next(), "looking for an entry")?;
        Ok(found.is_some_and(|(header, _)| header.holds(id)))
    }

    /// Removes the entries up to `base`, which is one of them. The value that holds it in its middle is written
    /// again with what is after it.
    fn compact(&mut self, log: &mut LogTable<'_>, base: LogId) -> Result<(), Error> {
        const DOING: &str = "compacting the log";
        let holds = newest_before(log, self.file, self.id, base.index.next(), DOING)?;
        let tail = holds.and_then(|(_, tail)| tail);
        self.remove(log, Index(0), base.index, DOING)?;
        if let Some(tail) = tail.and_then(|run| run.starting_at(base.index.next())) {
            self.put(log, &[tail])?;
        }
        self.group.base = base;
        self.state_changed = true;
        Ok(())
    }

    /// Removes all entries: the log begins and ends at `base`.
    fn install(&mut self, log: &mut LogTable<'_>, base: LogId) -> Result<(), Error> {
        self.remove(log, Index(0), Index(u64::MAX), "installing a snapshot")?;
        self.group.base = base;
        self.group.last = base;
        self.state_changed = true;
        Ok(())
    }

    /// Removes the values that begin from `first` to `last`.
    fn remove(
        &self,
        log: &mut LogTable<'_>,
        first: Index,
        last: Index,
        doing: &'static str,
    ) -> Result<(), Error> {
        let (first, last) = (log_key(self.id, first), log_key(self.id, last));
        log.retain_in::<&LogKey, _>(&first..=&last, |_, _| false)
            .map_err(|error| from_redb(self.file, doing, error))
    }

    /// Writes runs that follow one another, and are of one term, as one value.
    fn put(&self, log: &mut LogTable<'_>, runs: &[Run]) -> Result<(), Error> {
        let Some(first) = runs.first() else { return Ok(()) };
        let count: u64 = runs.iter().map(Run::count).sum();
        let header = RunHeader {
            commit: self.number,
            term: first.term(),
            first: first.first(),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            has_membership: runs.iter().any(Run::has_membership),
        };
        let blocks: Vec<Bytes> = runs.iter().map(|run| run.block().clone()).collect();
        let bytes: usize = runs.iter().map(Run::bytes).sum();
        let mut value = log
            .insert_reserve(&log_key(self.id, header.first), RUN_HEADER.saturating_add(bytes))
            .map_err(|error| from_redb(self.file, "appending to the log", error))?;
        encode_run(self.id, header, &blocks, value.as_mut());
        Ok(())
    }
}

impl Pending {
    fn takes(&self, piece: &Run) -> bool {
        let same_term = self.runs.back().is_some_and(|run| run.term() == piece.term());
        same_term && self.bytes.saturating_add(piece.bytes()) <= MAX_BLOCK
    }

    /// As much from the front as goes well into one value; `None` when all is taken.
    fn take_fitting(&mut self) -> Option<Vec<Run>> {
        let mut room = fitting(self.bytes);
        let mut taken = Vec::new();
        while let Some(run) = self.runs.pop_front() {
            // An entry at least, however large.
            let part = run.within(room);
            if part.bytes() > room && !taken.is_empty() {
                self.runs.push_front(run);
                break;
            }
            if let Some(rest) = run.starting_at(part.last().next()) {
                self.runs.push_front(rest);
                room = 0;
            }
            self.bytes = self.bytes.saturating_sub(part.bytes());
            room = room.saturating_sub(part.bytes());
            taken.push(part);
            if room == 0 {
                break;
            }
        }
        (!taken.is_empty()).then_some(taken)
    }
}

/// How many of so many bytes of entries to put into one value. redb gives a value that does not fit into a page of 4 KiB one of the next power of two, and
/// writes all of it: so all of them, if such a page is filled to more than three quarters, else what fills the next smaller one. See
/// `docs/decisions/0010-layout-of-the-store.md`.
fn fitting(bytes: usize) -> usize {
    let around = RUN_HEADER + AROUND;
    let needed = bytes.saturating_add(around);
    let page = needed.next_power_of_two();
    if page <= 4096 || needed > page / 4 * 3 { bytes } else { page / 2 - around }
}

/// Would `new` take back what `old` has promised: the term, or the vote in it?
fn takes_back(old: HardState, new: HardState) -> bool {
    new.term < old.term || (new.term == old.term && old.vote.is_some() && new.vote != old.vote)
}

/// The value that begins last before `at`; with its entries if `at` is in its middle.
fn newest_before(
    log: &LogTable<'_>,
    file: &str,
    group: GroupId,
    at: Index,
    doing: &'static str,
) -> Result<Option<(RunHeader, Option<Run>)>, Error> {
    let failed = |error: redb::StorageError| from_redb(file, doing, error);
    let (start, end) = (log_key(group, Index(0)), log_key(group, at));
    let Some(found) = log.range::<&LogKey>(&start..&end).map_err(failed)?.next_back() else {
        return Ok(None);
    };
    let (key, value) = found.map_err(failed)?;
    let first = index_of(key.value());
    let bad = |error| bad_entry(file, group, first, error);
    let (header, _) = check_run(group, first, value.value()).map_err(bad)?;
    let run = (header.last_id().index >= at).then(|| decode_run(group, first, value.value())).transpose();
    Ok(Some((header, run.map_err(bad)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::Term;

    fn pending(sizes: &[&[usize]]) -> Pending {
        let mut pending = Pending::default();
        let mut first = Index(1);
        for sizes in sizes {
            let commands: Vec<Vec<u8>> = sizes.iter().map(|size| vec![7; *size]).collect();
            let run = Run::commands(Term(1), first, &commands).unwrap();
            first = run.last().next();
            pending.bytes += run.bytes();
            pending.runs.push_back(run);
        }
        pending
    }

    /// How many bytes each value has.
    fn values(mut pending: Pending) -> Vec<usize> {
        let (all, mut next) = (pending.bytes, Index(1));
        let mut values = Vec::new();
        while let Some(runs) = pending.take_fitting() {
            for run in &runs {
                assert_eq!(run.first(), next, "without a gap");
                next = run.last().next();
            }
            values.push(runs.iter().map(Run::bytes).sum());
        }
        assert_eq!((values.iter().sum::<usize>(), pending.bytes), (all, 0));
        values
    }

    #[test]
    fn values_fill_their_pages() {
        // An entry has 5 bytes in front.
        assert_eq!(values(pending(&[&[256]])), [261]);
        assert_eq!(values(pending(&[&[256], &[256, 256]])), [783]);
        // 35,500 bytes would take a page of 64 KiB: 32 KiB are filled, and a small one.
        assert_eq!(values(pending(&[&[350; 100]])), [91 * 355, 9 * 355]);
        assert_eq!(values(pending(&[&[350; 50], &[350; 50]])), [91 * 355, 9 * 355]);
        // More than three quarters of one.
        assert_eq!(values(pending(&[&[350; 150]])), [150 * 355]);
        // What is left is cut again.
        assert_eq!(values(pending(&[&[100; 415]])), [310 * 105, 76 * 105, 29 * 105]);
        // A large entry is not cut, and one that does not fit behind others comes after them.
        assert_eq!(values(pending(&[&[200_000]])), [200_005]);
        assert_eq!(values(pending(&[&[10], &[33_000]])), [15, 33_005]);
    }
}
