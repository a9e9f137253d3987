//! How a store is made and opened, and how what it holds is held against what was acknowledged.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use quorate_core::{GroupId, Membership, Store as _};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend};

use crate::{
    Damage, Error, Fact, Identity, Lost, Options, RedbStore,
    error::from_redb,
    front::{FRONT, Front, Slot, Watermark, read_identity, read_watermark, write_identity, write_watermark},
    medium::{self, BehindFront},
    record::{Base, COMMIT_KEY, GROUPS, LOG, State, base_key, decode_commit, group_of_state},
    recovery::{bad_group, bad_record, end_of_log},
    store::Group,
};

/// A crash in the middle of syncing commit *n* may leave that commit on the disk, but not yet the watermark of *n* − 1
/// that was synced along with it: only the one of *n* − 2 is sure to be there.
const MAX_LEAD: u64 = 2;

pub(crate) fn create_in(
    options: Options,
    dir: &Path,
    identity: Identity,
    groups: &[(GroupId, Membership)],
) -> Result<RedbStore, Error> {
    let Some((unfinished, medium)) = medium::begin(dir)? else {
        let identity = identity_in(dir).ok().flatten();
        return Err(Error::AlreadyBootstrapped { dir: dir.to_owned(), identity });
    };
    let name = unfinished.path().display().to_string();
    let store = create_on(options, Arc::new(medium), &name, identity, groups)?;
    unfinished.finish()?;
    Ok(store)
}

pub(crate) fn create_on(
    options: Options,
    medium: Arc<dyn StorageBackend>,
    name: &str,
    identity: Identity,
    groups: &[(GroupId, Membership)],
) -> Result<RedbStore, Error> {
    let io = |source| Error::Io { doing: "creating the store", source };
    if medium.len().map_err(io)? > 0 {
        return Err(Error::AlreadyBootstrapped { dir: name.into(), identity: None });
    }
    if let Some((twice, _)) = groups
        .iter()
        .enumerate()
        .find_map(|(n, group)| groups.iter().skip(n + 1).find(|other| other.0 == group.0))
    {
        return Err(Error::GroupExists(*twice));
    }
    medium.set_len(FRONT).map_err(io)?;
    let db = open_database(options, Arc::clone(&medium), name)?;
    let mut store = RedbStore {
        db: Arc::new(db),
        medium,
        file: name.into(),
        identity,
        two_phase: options.two_phase,
        commit: 0,
        slot: Slot::FIRST,
        settled: true,
        groups: BTreeMap::new(),
        bases: BTreeMap::new(),
        failed: None,
    };
    // Commit 1 also makes the tables.
    store.add_groups(groups)?;
    store.settle()?;
    // From here on it is a store.
    write_identity(&*store.medium, identity).map_err(io)?;
    store.medium.sync_data().map_err(io)?;
    Ok(store)
}

pub(crate) fn open_in(options: Options, dir: &Path, expected: Identity) -> Result<RedbStore, Error> {
    let (path, medium) = medium::open_file(dir)?;
    open_on(options, Arc::new(medium), &path.display().to_string(), expected)
}

pub(crate) fn open_on(
    options: Options,
    medium: Arc<dyn StorageBackend>,
    name: &str,
    expected: Identity,
) -> Result<RedbStore, Error> {
    match read_identity(&*medium)? {
        Front::Of(found) => check_identity(expected, found)?,
        Front::Blank => return Err(Error::Missing { dir: name.into() }),
        Front::Damaged(what) => return Err(damaged(name, what)),
    }
    let io = |source| Error::Io { doing: "reading the store's watermark", source };
    // redb would make a new database where there is none at all.
    if medium.len().map_err(io)? == FRONT {
        return Err(damaged(name, "the database is missing"));
    }
    let db = open_database(options, Arc::clone(&medium), name)?;
    let Found { groups, bases, commit, newest } = read_groups(&db, name)?;
    let mut settled = false;
    let Some((watermark, mut slot)) = read_watermark(&*medium).map_err(io)? else {
        return Err(damaged(name, "neither copy of the watermark is whole"));
    };
    check_watermark(name, &watermark, commit, &groups)?;
    if watermark.commit < commit {
        // What is there counts from now on, so that it is missed if it goes.
        let fact = |id: &GroupId| groups.get(id).map(|group| group.fact(*id));
        let facts: Vec<Fact> = newest.iter().filter_map(fact).collect();
        let io = |source| Error::Io { doing: "writing the store's watermark", source };
        write_watermark(&*medium, slot, commit, facts.into_iter()).map_err(io)?;
        medium.sync_data().map_err(io)?;
        slot = slot.other();
        settled = true;
    }
    Ok(RedbStore {
        db: Arc::new(db),
        medium,
        file: name.into(),
        identity: expected,
        two_phase: options.two_phase,
        commit,
        slot,
        settled,
        groups,
        bases,
        failed: None,
    })
}

pub(crate) fn identity_in(dir: &Path) -> Result<Option<Identity>, Error> {
    if !medium::exists(dir)? {
        return Ok(None);
    }
    match read_identity(&medium::open_read_only(dir)?)? {
        Front::Of(identity) => Ok(Some(identity)),
        Front::Blank => Err(damaged(medium::FILE, "it has no identity")),
        Front::Damaged(what) => Err(damaged(medium::FILE, what)),
    }
}

fn check_identity(expected: Identity, found: Identity) -> Result<(), Error> {
    if expected.cluster != found.cluster {
        return Err(Error::WrongCluster { expected: expected.cluster, found: found.cluster });
    }
    if expected.node != found.node {
        return Err(Error::WrongNode { expected: expected.node, found: found.node });
    }
    Ok(())
}

fn open_database(options: Options, medium: Arc<dyn StorageBackend>, name: &str) -> Result<Database, Error> {
    Database::builder()
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(options.verify_on_open)
        .create_with_backend(BehindFront(medium))
        .map_err(|error| from_redb(name, "opening the database", error))
}

/// What is in the database, without the logs.
struct Found {
    groups: BTreeMap<GroupId, Group>,
    bases: BTreeMap<GroupId, Base>,
    /// The newest commit.
    commit: u64,
    /// The groups that it is of.
    newest: Vec<GroupId>,
}

fn read_groups(db: &Database, name: &str) -> Result<Found, Error> {
    let failed = |error: redb::Error| from_redb(name, "reading the groups", error);
    let txn = db.begin_read().map_err(|error| failed(error.into()))?;
    let table = txn.open_table(GROUPS).map_err(|error| failed(error.into()))?;
    let log = txn.open_table(LOG).map_err(|error| failed(error.into()))?;
    let mut found = Found { groups: BTreeMap::new(), bases: BTreeMap::new(), commit: 0, newest: Vec::new() };
    let mut commits = Vec::new();
    if let Some(value) = table.get(&COMMIT_KEY).map_err(|error| failed(error.into()))? {
        found.commit = decode_commit(value.value()).map_err(|bad| bad_record(name, bad))?;
    }
    for entry in table.iter().map_err(|error| failed(error.into()))? {
        let (key, value) = entry.map_err(|error| failed(error.into()))?;
        // A base has its group's state right after it.
        let Some(id) = group_of_state(key.value()) else {
            continue;
        };
        let state = State::decode(id, value.value()).map_err(|bad| bad_group(name, id, bad))?;
        let base = table.get(&base_key(id)).map_err(|error| failed(error.into()))?;
        let base = base.ok_or_else(|| bad_group(name, id, "where its log begins is missing".into()))?;
        let base = Base::decode(id, base.value()).map_err(|bad| bad_group(name, id, bad))?;
        let (commit, last) = end_of_log(&log, name, id, base.id, &state)?;
        commits.push((id, commit));
        let State { incarnation, hard_state, .. } = state;
        found.groups.insert(id, Group { incarnation, hard_state, base: base.id, last, next: None });
        found.bases.insert(id, base);
    }
    found.commit = commits.iter().map(|(_, commit)| *commit).fold(found.commit, u64::max);
    found.newest =
        commits.into_iter().filter(|(_, commit)| *commit == found.commit).map(|(id, _)| id).collect();
    Ok(found)
}

/// Is the database as new as what was acknowledged? It may be newer: then a crash came between a commit and
/// its watermark, or took the watermark along.
fn check_watermark(
    name: &str,
    watermark: &Watermark,
    commit: u64,
    groups: &BTreeMap<GroupId, Group>,
) -> Result<(), Error> {
    let holds = |fact: &Fact| groups.get(&fact.group).is_some_and(|group| group.fact(fact.group) == *fact);
    if commit < watermark.commit || (commit == watermark.commit && !watermark.facts.iter().all(holds)) {
        return Err(Box::new(Lost {
            file: name.to_owned(),
            acknowledged: watermark.commit,
            found: commit,
            facts: watermark.facts.clone(),
        })
        .into());
    }
    if commit > watermark.commit.saturating_add(MAX_LEAD) {
        let what =
            format!("its watermark is of commit {}, but the database is at {commit}", watermark.commit);
        return Err(damaged(name, what));
    }
    Ok(())
}

fn damaged(name: &str, what: impl Into<String>) -> Error {
    Box::new(Damage { file: name.to_owned(), group: None, index: None, what: what.into() }).into()
}
