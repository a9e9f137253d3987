//! How a store is made and opened, and how what it holds is held against what was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use quorate_core::{GroupId, LogId, Membership, Store as _};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend};

use crate::{
    Damage, Directory, Error, Fact, Identity, Lost, Options, RedbStore,
    directory::FsDirectory,
    error::from_redb,
    front::{
        FRONT, Front, Owner, Slot, Watermark, read_identity, read_watermark, write_identity, write_watermark,
    },
    held::Owned,
    latch::Latch,
    medium::{self, BehindFront, FILE, UNFINISHED},
    record::{
        Base, COMMIT_KEY, GROUPS, Kind, LOG, Removed, State, base_key, decode_commit, kind_of, state_key,
    },
    recovery::{bad_group, bad_record, end_of_log, no_snapshot},
    snapshots::{Name, Shelf},
    store::{Closing, Group},
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
    create_seeded(options, &made(dir)?, identity, groups, |_| Ok(())).map_err(|error| with_dir(error, dir))
}

/// The directory, made if need be.
pub(crate) fn made(dir: &Path) -> Result<Arc<dyn Directory>, Error> {
    let directory = FsDirectory::new(dir);
    directory.make().map_err(|source| Error::Io { doing: "creating the store's directory", source })?;
    Ok(Arc::new(directory))
}

pub(crate) fn create_on(
    options: Options,
    directory: &Arc<dyn Directory>,
    identity: Identity,
    groups: &[(GroupId, Membership)],
) -> Result<RedbStore, Error> {
    create_seeded(options, directory, identity, groups, |_| Ok(()))
}

/// Makes a store, lets `seed` put something into it, and gives it its name.
pub(crate) fn create_seeded(
    options: Options,
    directory: &Arc<dyn Directory>,
    identity: Identity,
    groups: &[(GroupId, Membership)],
    seed: impl FnOnce(&mut RedbStore) -> Result<(), Error>,
) -> Result<RedbStore, Error> {
    let io = |source| Error::Io { doing: "creating the store", source };
    let mut named = BTreeSet::new();
    if let Some((group, _)) = groups.iter().find(|(group, _)| !named.insert(*group)) {
        return Err(Error::GroupExists(*group));
    }
    if let Some(already) = there(&**directory)? {
        return Err(already);
    }
    let lock = directory.lock().map_err(io)?.ok_or(Error::InUse)?;
    // Another bootstrap may have finished between the look and the lock.
    if let Some(already) = there(&**directory)? {
        return Err(already);
    }
    clear(&**directory)?;
    let medium: Arc<dyn StorageBackend> = Arc::from(directory.create(UNFINISHED).map_err(io)?);
    medium.set_len(FRONT).map_err(io)?;
    // Before there are snapshots: without it they would look like those of a store that is gone.
    directory.sync().map_err(io)?;
    let name = directory.describe(FILE);
    let db = open_database(options, Arc::clone(&medium), &name)?;
    let latch = Latch::default();
    let shelf = Shelf::load(
        Arc::clone(directory),
        latch.clone(),
        Owner::new(identity),
        options.keep_snapshots,
        std::iter::empty(),
        &BTreeSet::new(),
    )?;
    let mut store = RedbStore {
        db: Owned::new(db),
        medium,
        file: name.into(),
        identity,
        two_phase: options.two_phase,
        commit: 0,
        slot: Slot::FIRST,
        settled: true,
        groups: BTreeMap::new(),
        bases: BTreeMap::new(),
        removed: BTreeSet::new(),
        latch,
        lock: Closing::new(&shelf, lock),
        shelf,
    };
    // Commit 1 also makes the tables.
    store.add_groups(groups)?;
    seed(&mut store)?;
    store.settle()?;
    write_identity(&*store.medium, Owner::new(identity)).map_err(io)?;
    store.medium.sync_data().map_err(io)?;
    // From here on it is a store.
    let io = |source| Error::Io { doing: "giving the new store its name", source };
    directory.rename(UNFINISHED, FILE).map_err(io)?;
    directory.sync().map_err(io)?;
    Ok(store)
}

/// A bootstrap that was cut short is begun again: nobody was ever told that it was a store. But snapshots without even the beginning of a
/// store are what is left of one that was: they are not removed.
fn clear(directory: &dyn Directory) -> Result<(), Error> {
    let io = |source| Error::Io { doing: "looking for what an earlier attempt has left", source };
    let names = directory.list().map_err(io)?;
    let snapshots = || names.iter().filter(|name| Name::parse(name).is_some());
    if names.iter().any(|name| name == UNFINISHED) {
        // It goes last, so that this can be cut short too.
        for name in snapshots().map(String::as_str).chain([UNFINISHED]) {
            directory.remove(name).map_err(io)?;
        }
    } else if snapshots().next().is_some() {
        return Err(Error::SnapshotsAlone { dir: directory.describe("").into() });
    }
    Ok(())
}

/// Why there can't be a store made here, if there is one.
fn there(directory: &dyn Directory) -> Result<Option<Error>, Error> {
    let io = |source| Error::Io { doing: "looking for a store", source };
    let Some(medium) = directory.open(FILE).map_err(io)? else { return Ok(None) };
    let identity = match read_identity(&*medium) {
        Ok(Front::Of(owner)) => Some(owner.identity),
        _ => None,
    };
    Ok(Some(Error::AlreadyBootstrapped { dir: directory.describe("").into(), identity }))
}

pub(crate) fn open_in(options: Options, dir: &Path, expected: Identity) -> Result<RedbStore, Error> {
    if !dir.is_dir() {
        return Err(Error::Missing { dir: dir.to_owned() });
    }
    open_on(options, Arc::new(FsDirectory::new(dir)), expected).map_err(|error| with_dir(error, dir))
}

/// Some errors name the directory.
pub(crate) fn with_dir(error: Error, path: &Path) -> Error {
    match error {
        Error::Missing { .. } => Error::Missing { dir: path.to_owned() },
        Error::SnapshotsAlone { .. } => Error::SnapshotsAlone { dir: path.to_owned() },
        Error::AlreadyBootstrapped { identity, .. } => {
            Error::AlreadyBootstrapped { dir: path.to_owned(), identity }
        }
        error => error,
    }
}

pub(crate) fn open_on(
    options: Options,
    directory: Arc<dyn Directory>,
    expected: Identity,
) -> Result<RedbStore, Error> {
    let name = directory.describe(FILE);
    let io = |source| Error::Io { doing: "opening the store's file", source };
    let missing = || Error::Missing { dir: directory.describe("").into() };
    let medium: Arc<dyn StorageBackend> = Arc::from(directory.open(FILE).map_err(io)?.ok_or_else(missing)?);
    let owner = owner_in(&*medium, &name)?;
    // Nothing is left in a directory that is another's.
    check_identity(expected, owner.identity)?;
    let lock = directory.lock().map_err(io)?.ok_or(Error::InUse)?;
    // It may have been cut loose from its cluster between the look and the lock.
    let owner = owner_in(&*medium, &name)?;
    check_identity(expected, owner.identity)?;
    // A process that was killed may have given names, of the store or of a snapshot, that are not durable yet.
    directory.sync().map_err(|source| Error::Io { doing: "making the names of files durable", source })?;
    let latch = Latch::default();
    let checked = check(options, &medium, &name)?;
    if owner.is_old() {
        upgrade(&*medium, owner, &checked, &name)?;
    }
    let Checked { db, groups, bases, removed, commit, slot, settled } = checked;
    let shelf = Shelf::load(
        directory,
        latch.clone(),
        owner,
        options.keep_snapshots,
        groups.iter().map(|(id, group)| (*id, group.base)),
        &removed,
    )?;
    Ok(RedbStore {
        db: Owned::new(db),
        medium,
        file: name.into(),
        identity: expected,
        two_phase: options.two_phase,
        commit,
        slot,
        settled,
        groups,
        bases,
        removed,
        latch,
        lock: Closing::new(&shelf, lock),
        shelf,
    })
}

/// A database that holds what was acknowledged.
pub(crate) struct Checked {
    pub(crate) db: Database,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) bases: BTreeMap<GroupId, Base>,
    /// The groups that were removed.
    pub(crate) removed: BTreeSet<GroupId>,
    pub(crate) commit: u64,
    slot: Slot,
    settled: bool,
}

/// Opens the database, and holds it against its watermark.
pub(crate) fn check(
    options: Options,
    medium: &Arc<dyn StorageBackend>,
    name: &str,
) -> Result<Checked, Error> {
    let io = |source| Error::Io { doing: "reading the store's watermark", source };
    // redb would make a new database where there is none at all.
    if medium.len().map_err(io)? == FRONT {
        return Err(damaged(name, "the database is missing"));
    }
    let db = open_database(options, Arc::clone(medium), name)?;
    let Found { groups, bases, removed, commit, newest } = read_groups(&db, name)?;
    let mut settled = false;
    let Some((watermark, mut slot)) = read_watermark(&**medium).map_err(io)? else {
        return Err(damaged(name, "neither copy of the watermark is whole"));
    };
    check_watermark(name, &watermark, commit, &groups, &removed)?;
    if watermark.commit < commit {
        // What is there counts from now on, so that it is missed if it goes.
        let fact = |id: &GroupId| groups.get(id).map_or(Fact::removed(*id), |group| group.fact(*id));
        let facts: Vec<Fact> = newest.iter().map(fact).collect();
        let io = |source| Error::Io { doing: "writing the store's watermark", source };
        write_watermark(&**medium, slot, commit, facts.into_iter()).map_err(io)?;
        medium.sync_data().map_err(io)?;
        slot = slot.other();
        settled = true;
    }
    Ok(Checked { db, groups, bases, removed, commit, slot, settled })
}

/// Brings a file of an earlier version up to this one's. That of version 1 has no snapshots beside it: none of its logs may rest on one.
fn upgrade(medium: &dyn StorageBackend, owner: Owner, checked: &Checked, name: &str) -> Result<(), Error> {
    let mut bases = checked.bases.iter().filter(|_| owner.version == 1);
    if let Some((group, base)) = bases.find(|(_, base)| base.id != LogId::ZERO) {
        return Err(no_snapshot(name, *group, base.id));
    }
    let io = |source| Error::Io { doing: "bringing the store's file up to this release's version", source };
    write_identity(medium, Owner { version: Owner::new(owner.identity).version, ..owner }).map_err(io)?;
    medium.sync_data().map_err(io)
}

pub(crate) fn identity_in(dir: &Path) -> Result<Option<Identity>, Error> {
    let io = |source| Error::Io { doing: "looking for a store", source };
    if !dir.join(FILE).try_exists().map_err(io)? {
        return Ok(None);
    }
    let name = dir.join(FILE).display().to_string();
    owner_in(&medium::open_read_only(dir)?, &name).map(|owner| Some(owner.identity))
}

/// Whose this file is. It got its name when it had an owner, so one without is damaged.
pub(crate) fn owner_in(medium: &dyn StorageBackend, name: &str) -> Result<Owner, Error> {
    match read_identity(medium)? {
        Front::Of(owner) => Ok(owner),
        Front::Blank => Err(damaged(name, "it has no identity")),
        Front::Damaged(what) => Err(damaged(name, what)),
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
    removed: BTreeSet<GroupId>,
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
    let mut found = Found {
        groups: BTreeMap::new(),
        bases: BTreeMap::new(),
        removed: BTreeSet::new(),
        commit: 0,
        newest: Vec::new(),
    };
    let mut commits = Vec::new();
    if let Some(value) = table.get(&COMMIT_KEY).map_err(|error| failed(error.into()))? {
        found.commit = decode_commit(value.value()).map_err(|bad| bad_record(name, bad))?;
    }
    for entry in table.iter().map_err(|error| failed(error.into()))? {
        let (key, value) = entry.map_err(|error| failed(error.into()))?;
        let id = match kind_of(key.value()) {
            Kind::State(id) => id,
            Kind::Removed(id) => {
                let removed = Removed::decode(id, value.value()).map_err(|bad| bad_group(name, id, bad))?;
                if table.get(&state_key(id)).map_err(|error| failed(error.into()))?.is_some() {
                    return Err(bad_group(name, id, "it was removed, but is there".into()));
                }
                commits.push((id, removed.commit));
                found.removed.insert(id);
                continue;
            }
            // A base has its group's state right after it.
            Kind::Other => continue,
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
    removed: &BTreeSet<GroupId>,
) -> Result<(), Error> {
    let holds = |fact: &Fact| match groups.get(&fact.group) {
        Some(group) => group.fact(fact.group) == *fact,
        None => fact.removed && removed.contains(&fact.group),
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{HardState, Incarnation, Index, Term};

    fn group(index: u64, incarnation: u64) -> Group {
        Group {
            incarnation: Incarnation(incarnation),
            hard_state: HardState { term: Term(1), vote: None },
            base: LogId::ZERO,
            last: LogId::new(Term(1), Index(index)),
            next: None,
        }
    }

    #[test]
    fn a_database_is_as_new_as_its_watermark_in_each_group() {
        let groups = BTreeMap::from([(GroupId(1), group(5, 2)), (GroupId(2), group(7, 1))]);
        let facts = |one: Group, two: Group| vec![one.fact(GroupId(1)), two.fact(GroupId(2))];
        let removed = BTreeSet::from([GroupId(4)]);
        let check = |commit, facts| {
            check_watermark("file", &Watermark { commit: 9, facts }, commit, &groups, &removed)
        };
        check(9, facts(group(5, 2), group(7, 1))).unwrap();
        check(9, Vec::new()).unwrap();
        check(9, vec![Fact::removed(GroupId(4))]).unwrap();
        // Others may have changed since: only the number counts then.
        check(10, facts(group(4, 2), group(7, 1))).unwrap();
        check(11, Vec::new()).unwrap();
        assert!(matches!(check(12, Vec::new()), Err(Error::Damaged(_))));
        for (commit, facts) in [
            (8, Vec::new()),
            (9, facts(group(6, 2), group(7, 1))),
            (9, facts(group(5, 2), group(8, 1))),
            (9, facts(group(5, 3), group(7, 1))),
            (9, vec![group(1, 1).fact(GroupId(3))]),
            (9, vec![group(1, 1).fact(GroupId(4))]),
            (9, vec![Fact::removed(GroupId(1))]),
            (9, vec![Fact::removed(GroupId(3))]),
        ] {
            assert!(matches!(check(commit, facts), Err(Error::Lost(_))));
        }
    }
}
