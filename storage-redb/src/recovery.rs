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
    /// How many bytes it takes, as it is stored.
    pub(crate) bytes: u64,
}

impl Scanned {
    /// Is this entry in the log that leads from `base` to `last`, or its base?
    pub(crate) fn holds(&self, base: LogId, last: LogId, id: LogId) -> bool {
        let start = self.terms.iter().rev().find(|start| start.first <= id.index);
        let within = base.index < id.index && id.index <= last.index;
        id == base || within && start.is_some_and(|start| start.term == id.term)
    }
}

/// The log begins after an entry, and nothing is there of what was before.
pub(crate) fn no_snapshot(file: &str, group: GroupId, base: LogId) -> Error {
    let what = format!("the log begins after {base}, but there is no snapshot at it or later");
    bad_entry(file, group, base.index, Bad::Damaged(what))
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
        scanned.bytes = scanned.bytes.saturating_add(value.value().len() as u64);
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
            let (file, what) = (file.to_owned(), "a record in the store");
            Error::UnknownVersion { file, what, found: u32::from(found), known: KNOWN }
        }
        Bad::Damaged(what) => Box::new(Damage { file: file.to_owned(), group, index, what }).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RUN_HEADER, RunHeader, encode_run};
    use quorate_core::{HardState, Incarnation, Run};
    use redb::backends::InMemoryBackend;

    const GROUP: GroupId = GroupId(1);

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    /// Runs of so many entries, each whole, wherever they are.
    fn log(runs: &[(u64, u64, usize)]) -> Database {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let txn = db.begin_write().unwrap();
        {
            let mut log = txn.open_table(LOG).unwrap();
            for (commit, (term, first, count)) in (1..).zip(runs) {
                let run = Run::commands(Term(*term), Index(*first), &vec![b"x"; *count]).unwrap();
                let header = RunHeader {
                    commit,
                    term: run.term(),
                    first: run.first(),
                    count: u32::try_from(*count).unwrap(),
                    has_membership: false,
                };
                let mut value = vec![0; RUN_HEADER + run.bytes()];
                encode_run(GROUP, header, &[run.block().clone()], &mut value);
                log.insert(&log_key(GROUP, run.first()), &value[..]).unwrap();
            }
        }
        txn.commit().unwrap();
        db
    }

    fn scanned(runs: &[(u64, u64, usize)], base: LogId, last: LogId) -> Result<Vec<(u64, u64)>, String> {
        let scanned = scan(&log(runs), "file", GROUP, base, last).map_err(|error| error.to_string())?;
        Ok(scanned.terms.iter().map(|start| (start.first.0, start.term.0)).collect())
    }

    #[test]
    fn a_log_leads_from_its_base_to_its_end_without_a_hole_and_without_an_earlier_term() {
        let runs = [(2, 4, 3), (2, 7, 1), (3, 8, 2)];
        assert_eq!(scanned(&runs, id(1, 3), id(3, 9)), Ok(vec![(4, 2), (8, 3)]));
        assert_eq!(scanned(&[], id(1, 3), id(1, 3)), Ok(vec![]));
        let error = |runs: &[(u64, u64, usize)], base, last| scanned(runs, base, last).unwrap_err();
        for (error, part) in [
            (error(&runs, id(1, 2), id(3, 9)), "the entry before it should be 3"),
            (error(&runs, id(1, 4), id(3, 9)), "the entry before it should be 3"),
            (error(&runs, id(3, 3), id(3, 9)), "its term 2 is below"),
            (error(&[(2, 4, 3), (2, 8, 1)], id(1, 3), id(2, 8)), "the entry before it should be 7"),
            (error(&[(2, 4, 3), (2, 6, 1)], id(1, 3), id(2, 6)), "the entry before it should be 5"),
            (error(&[(2, 4, 3), (1, 7, 1)], id(1, 3), id(1, 7)), "its term 1 is below"),
            (error(&runs, id(1, 3), id(3, 10)), "the log ends with 9@T3"),
            (error(&runs, id(1, 3), id(2, 9)), "the log ends with 9@T3"),
            (error(&[], id(1, 3), id(1, 4)), "the log ends with 3@T1"),
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_log_ends_where_its_newest_run_does_or_its_state_says() {
        let state = |commit, last| State {
            commit,
            incarnation: Incarnation(1),
            hard_state: HardState::default(),
            last,
        };
        let end = |runs: &[(u64, u64, usize)], state: State| {
            let db = log(runs);
            let txn = db.begin_read().unwrap();
            let log = txn.open_table(LOG).unwrap();
            end_of_log(&log, "file", GROUP, id(1, 3), &state).map_err(|error| error.to_string())
        };
        // Appended after the state was written, with it, and long before.
        assert_eq!(end(&[(2, 4, 3), (2, 7, 1)], state(1, id(2, 6))), Ok((2, id(2, 7))));
        assert_eq!(end(&[(2, 4, 3), (2, 7, 1)], state(2, id(2, 7))), Ok((2, id(2, 7))));
        assert_eq!(end(&[(2, 4, 3)], state(9, id(2, 6))), Ok((9, id(2, 6))));
        assert_eq!(end(&[], state(9, id(1, 3))), Ok((9, id(1, 3))));
        // Entries that are missing, or should be gone.
        for (runs, last) in [(&[][..], id(2, 6)), (&[(2, 4, 2)], id(2, 6)), (&[(2, 4, 3)], id(2, 5))] {
            let error = end(runs, state(9, last)).unwrap_err();
            assert!(error.contains("but was written up to"), "{error}");
        }
    }
}
