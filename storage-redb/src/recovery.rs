//! What is durable of a group, read value by value: every checksum is looked at, no payload is kept.

use quorate_core::{GroupId, Index, LogId, Membership, Term, TermStart};
use redb::{Database, ReadableDatabase, ReadableTable};

use crate::{
    Damage, Error,
    error::from_redb,
    record::{Bad, KNOWN, LOG, LogKey, State, check_run, decode_run, index_of, log_key},
};

/// The log without its payloads.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) terms: Vec<TermStart>,
    pub(crate) memberships: Vec<(Index, Membership)>,
}

/// Reads the log of `group`, which must lead from `base` to `last` without a hole.
pub(crate) fn scan(
    db: &Database,
    file: &str,
    group: GroupId,
    base: LogId,
    last: LogId,
) -> Result<Scanned, Error> {
    let failed = |error: redb::Error| from_redb(file, "reading the log", error);
    let txn = db.begin_read().map_err(|error| failed(error.into()))?;
    let log = txn.open_table(LOG).map_err(|error| failed(error.into()))?;
    let (start, end) = (log_key(group, Index(0)), log_key(group, Index(u64::MAX)));
    let mut scanned = Scanned::default();
    let mut at = base;
    for entry in log.range::<&LogKey>(&start..=&end).map_err(|error| failed(error.into()))? {
        let (key, value) = entry.map_err(|error| failed(error.into()))?;
        let first = index_of(key.value());
        let bad = |error| bad_entry(file, group, first, error);
        let (header, _) = check_run(group, first, value.value()).map_err(bad)?;
        if first != at.index.next() {
            return Err(bad(Bad::Damaged(format!(
                "the entry before it should be {}, but {at} is",
                first.prev()
            ))));
        }
        if header.term < at.term {
            return Err(bad(Bad::Damaged(format!("its term {} is below the one before it", header.term))));
        }
        if scanned.terms.last().map_or(Term(0), |start| start.term) != header.term {
            scanned.terms.push(TermStart { first, term: header.term });
        }
        if header.has_membership {
            let run = decode_run(group, first, value.value()).map_err(bad)?;
            scanned.memberships.extend(run.memberships());
        }
        at = header.last_id();
    }
    if at != last {
        let what = format!("the log ends with {at}, but was written up to {last}");
        return Err(bad_entry(file, group, at.index, Bad::Damaged(what)));
    }
    Ok(scanned)
}

/// How a log ends: with the newest run, and what its group's state says.
pub(crate) fn end_of_log(
    log: &impl ReadableTable<&'static LogKey, &'static [u8]>,
    file: &str,
    group: GroupId,
    base: LogId,
    state: &State,
) -> Result<(u64, LogId), Error> {
    let failed = |error: redb::StorageError| from_redb(file, "reading the log", error);
    let (start, end) = (log_key(group, Index(0)), log_key(group, Index(u64::MAX)));
    let (commit, last) = match log.range::<&LogKey>(&start..=&end).map_err(failed)?.next_back() {
        None => (0, base),
        Some(newest) => {
            let (key, value) = newest.map_err(failed)?;
            let first = index_of(key.value());
            let (header, _) =
                check_run(group, first, value.value()).map_err(|bad| bad_entry(file, group, first, bad))?;
            (header.commit, header.last_id())
        }
    };
    if commit > state.commit {
        // Nothing but entries was written since.
        return Ok((commit, last));
    }
    if last != state.last {
        let what = format!("the log ends with {last}, but was written up to {}", state.last);
        return Err(bad_entry(file, group, last.index, Bad::Damaged(what)));
    }
    Ok((state.commit, last))
}

/// A run that can't be used, as an error.
pub(crate) fn bad_entry(file: &str, group: GroupId, index: Index, bad: Bad) -> Error {
    error(file, Some(group), Some(index), bad)
}

/// A record of a group that can't be used, as an error.
pub(crate) fn bad_group(file: &str, group: GroupId, bad: Bad) -> Error {
    error(file, Some(group), None, bad)
}

/// A record of the store as a whole that can't be used, as an error.
pub(crate) fn bad_record(file: &str, bad: Bad) -> Error {
    error(file, None, None, bad)
}

fn error(file: &str, group: Option<GroupId>, index: Option<Index>, bad: Bad) -> Error {
    match bad {
        Bad::Version(found) => {
            Error::UnknownVersion { what: "a record in the store", found: u32::from(found), known: KNOWN }
        }
        Bad::Damaged(what) => Box::new(Damage { file: file.to_owned(), group, index, what }).into(),
    }
}
