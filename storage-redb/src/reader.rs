//! Reading entries beside the writer: each load sees the newest commit there is, and holds up nobody.

use std::sync::Arc;

use quorate_core::{Few, GroupId, Index, Load, Loaded, LogReader};
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase};

use crate::{
    Damage, Error,
    error::from_redb,
    held::{Held, Owned},
    record::{
        Base, GROUPS, GroupKey, LOG, LogKey, State, base_key, decode_run, index_of, log_key, removed_key,
        state_key,
    },
    recovery::{bad_entry, bad_group, end_of_log},
};

/// Reads the log of a [`RedbStore`](crate::RedbStore) from another thread. Cheap to clone; it does not keep the store
/// open.
#[derive(Clone, Debug)]
pub struct RedbReader {
    db: Held,
    file: Arc<str>,
}

impl LogReader for RedbReader {
    type Error = Error;

    /// As [`LogReader::load`] says. Where a leader has truncated the log since the entries were asked for, so
    /// that there are none any more, the list is empty.
    fn load(&self, group: GroupId, load: &Load) -> Result<Loaded, Error> {
        // Shared with the writer; only giving space back, and closing, have it alone.
        let db = self.db.read();
        let txn = db.db()?.begin_read().map_err(|error| self.failed(error))?;
        let base = self.record(&txn, group, &base_key(group), Base::decode)?;
        if load.first <= base.id.index {
            return Ok(Loaded::Compacted);
        }
        let state = self.record(&txn, group, &state_key(group), State::decode)?;
        let log = txn.open_table(LOG).map_err(|error| self.failed(error))?;
        let (_, last) = end_of_log(&log, &self.file, group, base.id, &state)?;
        let last = last.index.min(load.last);
        self.entries(&log, group, load.first, last, load.max_bytes).map(Loaded::Entries)
    }
}

impl RedbReader {
    pub(crate) fn new(db: &Owned, file: &Arc<str>) -> Self {
        Self { db: db.held().clone(), file: Arc::clone(file) }
    }

    /// What there is from `first` to `last`, as far as it fits, but at least one value's worth of one entry.
    fn entries(
        &self,
        log: &ReadOnlyTable<&'static LogKey, &'static [u8]>,
        group: GroupId,
        first: Index,
        last: Index,
        max_bytes: usize,
    ) -> Result<Few<quorate_core::Run>, Error> {
        let mut found = Few::new();
        if last < first {
            return Ok(found);
        }
        // The value that holds `first` may begin before it.
        let (start, middle, end) = (log_key(group, Index(0)), log_key(group, first), log_key(group, last));
        let holds = log.range::<&LogKey>(&start..=&middle).map_err(|error| self.failed(error))?.next_back();
        let after =
            log.range::<&LogKey>((std::ops::Bound::Excluded(&middle), std::ops::Bound::Included(&end)));
        let after = after.map_err(|error| self.failed(error))?;
        let mut next = first;
        let mut room = max_bytes;
        for entry in holds.into_iter().chain(after) {
            let (key, value) = entry.map_err(|error| self.failed(error))?;
            let at = index_of(key.value());
            if !found.is_empty() && value.value().len() > room.saturating_add(crate::record::RUN_HEADER) {
                // Part of it might fit, but the rest would be read again with the next load.
                break;
            }
            let run =
                decode_run(group, at, value.value()).map_err(|bad| bad_entry(&self.file, group, at, bad))?;
            let wanted = run.ending_before(last.next()).and_then(|run| run.starting_at(next));
            let Some(run) = wanted.filter(|run| run.first() == next) else {
                return Err(self.hole(group, next));
            };
            let part = run.within(room);
            next = part.last().next();
            room = room.saturating_sub(part.bytes());
            let whole = part.count() == run.count();
            found.push(part);
            if !whole || room == 0 {
                break;
            }
        }
        if found.is_empty() { Err(self.hole(group, first)) } else { Ok(found) }
    }

    fn record<T>(
        &self,
        txn: &ReadTransaction,
        group: GroupId,
        key: &GroupKey,
        decode: impl FnOnce(GroupId, &[u8]) -> Result<T, crate::record::Bad>,
    ) -> Result<T, Error> {
        let groups = txn.open_table(GROUPS).map_err(|error| self.failed(error))?;
        let Some(value) = groups.get(key).map_err(|error| self.failed(error))? else {
            let removed = groups.get(&removed_key(group)).map_err(|error| self.failed(error))?.is_some();
            return Err(if removed { Error::GroupRemoved(group) } else { Error::UnknownGroup(group) });
        };
        decode(group, value.value()).map_err(|bad| bad_group(&self.file, group, bad))
    }

    fn failed(&self, error: impl Into<redb::Error>) -> Error {
        from_redb(&self.file, "reading the log", error)
    }

    fn hole(&self, group: GroupId, index: Index) -> Error {
        let what = "an entry is missing".to_owned();
        Box::new(Damage { file: self.file.to_string(), group: Some(group), index: Some(index), what }).into()
    }
}
