//! Looking at a store without changing it: also at one that was not closed, or is damaged.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use quorate_core::{
    GroupId, HardState, Incarnation, Index, LogId, Membership, SnapshotInfo, SnapshotReader as _, TermStart,
};
use redb::{Database, StorageBackend};

use crate::{
    ArchiveReader, Directory, Error, Identity, Options, RedbReader, RedbStore, archive,
    directory::FsDirectory,
    front::Owner,
    held::Owned,
    medium::FILE,
    open::{self, Checked},
    overlay::Overlay,
    recovery::{self, Scanned},
    snapshots::{Name, Stage, foreign},
    store::Group,
};

/// What a store's directory holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspection {
    /// The store's file.
    pub file: String,
    /// How long it is.
    pub bytes: u64,
    /// The version of its format.
    pub format: u32,
    /// Whose it is.
    pub identity: Identity,
    /// The cluster it was of before it was [cut loose](RedbStore::force_single).
    pub formerly: Option<u128>,
    /// The number of its newest commit; 0 if the database can't be read.
    pub newest_commit: u64,
    /// Its groups, in order.
    pub groups: Vec<GroupInspection>,
    /// The groups that were removed from it, in order.
    pub removed: Vec<GroupId>,
    /// What is wrong with the store as a whole, in words. Without any here or in a group or snapshot, every checksum
    /// there is was right.
    pub problems: Vec<String>,
}

impl Inspection {
    /// Looks at all that is in `dir`, and checks every checksum. Nothing is changed, not even after an unclean stop.
    ///
    /// # Errors
    /// [`Error::Missing`] without a store; [`Error::InUse`] while a node runs on it; [`Error::UnknownVersion`];
    /// [`Error::Damaged`] if not even its identity can be read; else if a file can't be read.
    pub fn of(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Inspector::open(dir)?.inspection)
    }

    /// Is nothing wrong?
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let group = |group: &GroupInspection| {
            group.problem.is_none() && group.snapshots.iter().all(|snapshot| snapshot.problem.is_none())
        };
        self.problems.is_empty() && self.groups.iter().all(group)
    }
}

/// What a store holds of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupInspection {
    /// Which.
    pub group: GroupId,
    /// How often it was started.
    pub incarnation: Incarnation,
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins.
    pub base: LogId,
    /// The membership there.
    pub base_membership: Membership,
    /// Where it ends.
    pub last: LogId,
    /// How many entries are between.
    pub entries: u64,
    /// How many bytes they take, as they are stored.
    pub log_bytes: u64,
    /// For every term in the log, the first index that has it.
    pub terms: Vec<TermStart>,
    /// The memberships in the log.
    pub memberships: Vec<(Index, Membership)>,
    /// Its snapshots, by index, those that are not whole included.
    pub snapshots: Vec<SnapshotInspection>,
    /// What is wrong with its log.
    pub problem: Option<String>,
}

impl GroupInspection {
    /// The membership in force at the end of the log.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.memberships.last().map_or(&self.base_membership, |(_, newest)| newest)
    }
}

/// What a store holds of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInspection {
    /// Its file.
    pub file: String,
    /// How long that is.
    pub file_bytes: u64,
    /// At which entry.
    pub last: LogId,
    /// Is it published? Else it is what is left of one that was being staged.
    pub published: bool,
    /// What it holds, if that can be told.
    pub info: Option<SnapshotInfo>,
    /// What is wrong with it; none for one that is merely not whole yet.
    pub problem: Option<String>,
}

/// A store that is being looked at. Nobody else has it meanwhile.
#[derive(Debug)]
pub struct Inspector {
    inspection: Inspection,
    directory: FsDirectory,
    db: Option<Owned>,
    _lock: Box<dyn std::any::Any + Send>,
}

impl Inspector {
    /// Looks at all that is in `dir`.
    ///
    /// # Errors
    /// As [`Inspection::of`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let directory = FsDirectory::new(dir);
        let missing = || Error::Missing { dir: dir.to_owned() };
        let io = |source| Error::Io { doing: "reading the store", source };
        if RedbStore::identity_in(dir)?.is_none() {
            return Err(missing());
        }
        let lock = directory.lock_to_look().map_err(io)?.ok_or(Error::InUse)?;
        let medium = crate::medium::open_read_only(dir)?;
        let owner = open::owner_in(&medium, &directory.describe(FILE))?;
        let bytes = medium.len().map_err(io)?;
        let medium: Arc<dyn StorageBackend> = Arc::new(Overlay::new(Box::new(medium)).map_err(io)?);
        let mut inspection = Inspection {
            file: directory.describe(FILE),
            bytes,
            format: owner.version,
            identity: owner.identity,
            formerly: owner.former(),
            newest_commit: 0,
            groups: Vec::new(),
            removed: Vec::new(),
            problems: Vec::new(),
        };
        let checked = match open::check(Options::default(), &medium, &inspection.file) {
            Ok(checked) => Some(checked),
            Err(error) => {
                inspection.problems.push(error.to_string());
                None
            }
        };
        let mut snapshots = snapshots(&directory, owner).map_err(io)?;
        let db = checked.map(|Checked { db, groups, bases, removed, commit, .. }| {
            inspection.newest_commit = commit;
            // What may be left of them goes when the store is opened.
            snapshots.retain(|id, _| !removed.contains(id));
            inspection.removed = removed.into_iter().collect();
            for (id, group) in groups {
                let Some(base) = bases.get(&id) else { continue };
                let snapshots = snapshots.remove(&id).unwrap_or_default();
                let found = look(&db, &inspection.file, id, &group, &base.membership, snapshots);
                inspection.groups.push(found);
            }
            Owned::new(db)
        });
        for left in snapshots.into_values().flatten() {
            if db.is_some() {
                inspection.problems.push(format!("{} is of no group that is known", left.file));
            }
            inspection.problems.extend(left.problem);
        }
        Ok(Self { inspection, directory, db, _lock: lock })
    }

    /// What was found.
    #[must_use]
    pub const fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Reads the log, if there is one that can be read, for as long as this lives.
    #[must_use]
    pub fn reader(&self) -> Option<RedbReader> {
        Some(RedbReader::new(self.db.as_ref()?, &Arc::from(self.inspection.file.as_str())))
    }

    /// Opens a published snapshot.
    ///
    /// # Errors
    /// If it can't be read, or is damaged.
    pub fn snapshot(&self, group: GroupId, last: LogId) -> Result<Option<ArchiveReader>, Error> {
        let name = Name { group, last, stage: Stage::Published }.text();
        let io = |source| Error::Io { doing: "opening a snapshot", source };
        let file = self.directory.open_read_only(&name).map_err(io)?;
        file.map(|file| ArchiveReader::on(file, self.directory.describe(&name))).transpose()
    }
}

fn look(
    db: &Database,
    file: &str,
    id: GroupId,
    group: &Group,
    base_membership: &Membership,
    snapshots: Vec<SnapshotInspection>,
) -> GroupInspection {
    let Group { incarnation, hard_state, base, last, .. } = *group;
    let (scanned, mut problem) = match recovery::scan(db, file, id, base, last) {
        Ok(scanned) => (scanned, None),
        Err(error) => (Scanned::default(), Some(error.to_string())),
    };
    let usable = |snapshot: &SnapshotInspection| {
        snapshot.published && snapshot.problem.is_none() && scanned.holds(base, last, snapshot.last)
    };
    if problem.is_none() && base != LogId::ZERO && !snapshots.iter().any(usable) {
        problem = Some(recovery::no_snapshot(file, id, base).to_string());
    }
    GroupInspection {
        group: id,
        incarnation,
        hard_state,
        base,
        base_membership: base_membership.clone(),
        last,
        entries: last.index.0.saturating_sub(base.index.0),
        log_bytes: scanned.bytes,
        terms: scanned.terms,
        memberships: scanned.memberships,
        snapshots,
        problem,
    }
}

/// Every snapshot's file, read whole.
fn snapshots(
    directory: &FsDirectory,
    owner: Owner,
) -> std::io::Result<BTreeMap<GroupId, Vec<SnapshotInspection>>> {
    let mut found: BTreeMap<GroupId, Vec<SnapshotInspection>> = BTreeMap::new();
    for name in directory.list()?.iter().filter_map(|name| Name::parse(name)) {
        let file = directory.describe(&name.text());
        let mut snapshot = SnapshotInspection {
            file_bytes: 0,
            last: name.last,
            published: name.stage == Stage::Published,
            info: None,
            problem: None,
            file: file.clone(),
        };
        if let Some(backend) = directory.open_read_only(&name.text())? {
            snapshot.file_bytes = backend.len()?;
            let archive = ArchiveReader::on(backend, file).and_then(|mut archive| {
                archive.verify()?;
                archive::check_place(&archive, name.group, name.last)?;
                Ok(archive)
            });
            match archive {
                Ok(archive) => {
                    snapshot.info = Some(archive.info().clone());
                    let foreign = foreign(&archive, owner).filter(|_| snapshot.published);
                    snapshot.problem = foreign.map(|what| format!("{} can't be used: {what}", snapshot.file));
                }
                Err(error) if snapshot.published => snapshot.problem = Some(error.to_string()),
                // Not whole yet.
                Err(_) => {}
            }
        }
        found.entry(name.group).or_default().push(snapshot);
    }
    for snapshots in found.values_mut() {
        snapshots.sort_by_key(|snapshot| (snapshot.last.index, snapshot.last.term));
    }
    Ok(found)
}
