//! How writes change the log: what is staged for one transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::{GroupId, HardState, Index, LogId, Run, Write};
use redb::{ReadableTable, Table};

use crate::{
    Error, Misfit,
    error::from_redb,
    record::{Base, LogKey, RUN_HEADER, RunHeader, check_run, decode_run, encode_run, index_of, log_key},
    recovery::bad_entry,
    store::Group,
};

/// The table of entries, open for writing.
pub(crate) type LogTable<'txn> = Table<'txn, &'static LogKey, &'static [u8]>;

/// Bytes of entries in one value, unless it is a single entry: with header and key it just fits into 64 KiB, which redb
/// rounds a value's page up to. It bounds what recovery, a load or a truncation handles at a time.
const MAX_BLOCK: usize = (64 << 10) - RUN_HEADER - 128;

/// What a transaction is going to change. Nothing of it counts before the transaction is durable.
pub(crate) struct Staged<'a> {
    current: &'a BTreeMap<GroupId, Group>,
    file: &'a str,
    pub(crate) changed: BTreeMap<GroupId, Changed>,
    pub(crate) bases: BTreeMap<GroupId, Base>,
}

/// A group as it will be.
pub(crate) struct Changed {
    pub(crate) group: Group,
    /// Entries that wait for more of their term, to share a value.
    pending: Option<Pending>,
}

struct Pending {
    header: RunHeader,
    blocks: Vec<Bytes>,
    bytes: usize,
}

impl<'a> Staged<'a> {
    pub(crate) fn new(current: &'a BTreeMap<GroupId, Group>, file: &'a str) -> Self {
        Self {
            current,
            file,
            changed: BTreeMap::new(),
            bases: BTreeMap::new(),
        }
    }

    /// A new group.
    pub(crate) fn add(&mut self, group: GroupId, fresh: Group) -> Result<(), Error> {
        if self.current.contains_key(&group) || self.changed.contains_key(&group) {
            return Err(Error::GroupExists(group));
        }
        self.changed.insert(
            group,
            Changed {
                group: fresh,
                pending: None,
            },
        );
        Ok(())
    }

    /// A group, to be changed.
    pub(crate) fn group(&mut self, group: GroupId) -> Result<&mut Group, Error> {
        self.changed(group).map(|changed| &mut changed.group)
    }

    fn changed(&mut self, group: GroupId) -> Result<&mut Changed, Error> {
        let current = self.current.get(&group).copied();
        match self.changed.entry(group) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let group = current.ok_or(Error::UnknownGroup(group))?;
                Ok(entry.insert(Changed { group, pending: None }))
            }
        }
    }

    /// One write: truncation, entries, hard state. That it fits onto what is there is checked, though the
    /// core sees to it, for what is written here is what others will be told.
    pub(crate) fn write(&mut self, log: &mut LogTable<'_>, write: &Write) -> Result<(), Error> {
        let id = write.receipt().group();
        let file = self.file;
        let changed = self.changed(id)?;
        changed.take_turn(write).map_err(|why| Error::BadWrite {
            group: id,
            seq: write.seq(),
            why,
        })?;
        if let Some(at) = write.truncate {
            changed.flush(log, file, id)?;
            changed.truncate(log, file, id, at)?;
        }
        for run in &write.entries {
            let (last, found) = (changed.group.state.last, LogId::new(run.term(), run.first()));
            if found.index != last.index.next() || found.term < last.term {
                let why = Misfit::Gap { last, found };
                return Err(Error::BadWrite {
                    group: id,
                    seq: write.seq(),
                    why,
                });
            }
            changed.append(log, file, id, run)?;
        }
        if let Some(hard_state) = write.hard_state {
            changed.group.state.hard_state = hard_state;
        }
        Ok(())
    }

    /// Writes out what waits.
    pub(crate) fn flush_all(&mut self, log: &mut LogTable<'_>) -> Result<(), Error> {
        let file = self.file;
        self.changed
            .iter_mut()
            .try_for_each(|(group, changed)| changed.flush(log, file, *group))
    }
}

impl Changed {
    /// Is it this write's turn, and does it keep what was promised? Nothing is changed if not.
    fn take_turn(&mut self, write: &Write) -> Result<(), Misfit> {
        let Group { state, base, next } = self.group;
        let expected = next.ok_or(Misfit::NotRecovered)?;
        let found = write.receipt().incarnation();
        if found != state.incarnation {
            return Err(Misfit::Incarnation {
                current: state.incarnation,
                found,
            });
        }
        if write.seq() != expected {
            return Err(Misfit::Order { expected });
        }
        if let Some(at) = write.truncate.filter(|at| *at <= base.index) {
            return Err(Misfit::BelowBase { at, base });
        }
        if write
            .hard_state
            .is_some_and(|new| takes_back(state.hard_state, new))
        {
            return Err(Misfit::HardState {
                current: state.hard_state,
            });
        }
        self.group.next = Some(expected.next());
        Ok(())
    }

    fn append(&mut self, log: &mut LogTable<'_>, file: &str, group: GroupId, run: &Run) -> Result<(), Error> {
        let mut rest = Some(run.clone());
        while let Some(run) = rest {
            let piece = run.within(MAX_BLOCK);
            rest = run.starting_at(piece.last().next());
            self.append_piece(log, file, group, &piece)?;
        }
        Ok(())
    }

    fn append_piece(
        &mut self,
        log: &mut LogTable<'_>,
        file: &str,
        group: GroupId,
        piece: &Run,
    ) -> Result<(), Error> {
        let joins = self.pending.as_ref().is_some_and(|pending| pending.takes(piece));
        if !joins {
            self.flush(log, file, group)?;
        }
        let count = u32::try_from(piece.count()).unwrap_or(u32::MAX);
        let pending = self.pending.get_or_insert_with(|| Pending {
            header: RunHeader {
                term: piece.term(),
                first: piece.first(),
                count: 0,
                has_membership: false,
            },
            blocks: Vec::new(),
            bytes: 0,
        });
        pending.header.count = pending.header.count.saturating_add(count);
        pending.header.has_membership |= piece.has_membership();
        pending.bytes = pending.bytes.saturating_add(piece.bytes());
        pending.blocks.push(piece.block().clone());
        self.group.state.last = piece.last_id();
        Ok(())
    }

    fn flush(&mut self, log: &mut LogTable<'_>, file: &str, group: GroupId) -> Result<(), Error> {
        let Some(Pending {
            header,
            blocks,
            bytes,
        }) = self.pending.take()
        else {
            return Ok(());
        };
        put(log, file, group, header, &blocks, bytes)
    }

    /// Removes the entries at `at` and after. The value that holds `at` in its middle is written again with what is
    /// before.
    fn truncate(
        &mut self,
        log: &mut LogTable<'_>,
        file: &str,
        group: GroupId,
        at: Index,
    ) -> Result<(), Error> {
        if at > self.group.state.last.index {
            return Ok(());
        }
        let failed = |error: redb::StorageError| from_redb(file, "truncating the log", error);
        let before = newest_before(log, file, group, at)?;
        let from = log_key(group, at);
        let end = log_key(group, Index(u64::MAX));
        log.retain_in::<&LogKey, _>(&from..=&end, |_, _| false)
            .map_err(failed)?;
        self.group.state.last = match before {
            None => self.group.base,
            Some((header, None)) => header.last_id(),
            Some((_, Some(run))) => {
                let head = run.ending_before(at).unwrap_or(run);
                let header = RunHeader {
                    term: head.term(),
                    first: head.first(),
                    count: u32::try_from(head.count()).unwrap_or(u32::MAX),
                    has_membership: head.has_membership(),
                };
                put(log, file, group, header, &[head.block().clone()], head.bytes())?;
                head.last_id()
            }
        };
        Ok(())
    }
}

impl Pending {
    fn takes(&self, piece: &Run) -> bool {
        self.header.term == piece.term() && self.bytes.saturating_add(piece.bytes()) <= MAX_BLOCK
    }
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
) -> Result<Option<(RunHeader, Option<Run>)>, Error> {
    let failed = |error: redb::StorageError| from_redb(file, "truncating the log", error);
    let (start, end) = (log_key(group, Index(0)), log_key(group, at));
    let Some(found) = log.range::<&LogKey>(&start..&end).map_err(failed)?.next_back() else {
        return Ok(None);
    };
    let (key, value) = found.map_err(failed)?;
    let first = index_of(key.value());
    let bad = |error| bad_entry(file, group, first, error);
    let (header, _) = check_run(group, first, value.value()).map_err(bad)?;
    let run = (header.last_id().index >= at)
        .then(|| decode_run(group, first, value.value()))
        .transpose();
    Ok(Some((header, run.map_err(bad)?)))
}

fn put(
    log: &mut LogTable<'_>,
    file: &str,
    group: GroupId,
    header: RunHeader,
    blocks: &[Bytes],
    bytes: usize,
) -> Result<(), Error> {
    let mut value = log
        .insert_reserve(&log_key(group, header.first), RUN_HEADER.saturating_add(bytes))
        .map_err(|error| from_redb(file, "appending to the log", error))?;
    encode_run(group, header, blocks, value.as_mut());
    Ok(())
}
