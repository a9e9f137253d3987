//! A small, honest, durable store on a [`Disk`], and what it would be with a [`Bug`] in it.
//!
//! The journal is a list of records with checksums, one for each commit and for each recovery: appended and synced. A
//! commit that lets a log begin later writes the journal anew, with all that is left. What is in it is held in
//! memory as well, and that is what is read. Snapshots are files beside it.

#![allow(dead_code, unreachable_pub, reason = "two tests share it, and each uses a part")]

mod bug;
mod format;
mod group;
mod snapshots;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use format::{In, MAGIC, Out, Record, unframe};
use group::Group;
use quorate_core::{
    GroupId, HardState, Incarnation, Load, Loaded, LogId, LogReader, Membership, Recovered, Snapshot, Store,
    Write,
};
use quorate_runtime_tokio::conformance::{Disk, DiskFile, Harness};

pub use bug::Bug;
use snapshots::JournalSnapshots;

const JOURNAL: &str = "journal";
const NEW: &str = "journal.new";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no journal")]
    Missing,
    #[error("the journal is damaged: {0}")]
    Damaged(&'static str),
    #[error("{0}")]
    Refused(String),
    #[error("the writes of group {0} are refused: {1}")]
    RefusedOf(GroupId, String),
    #[error("the store has failed before")]
    Stopped,
    #[error("the disk")]
    Io(#[from] io::Error),
}

pub(crate) fn refused<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused(why.into()))
}

/// What the store, its readers and its snapshots share.
#[derive(Debug)]
pub(crate) struct Shared {
    disk: Disk,
    bug: Option<Bug>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    groups: BTreeMap<GroupId, Group>,
    /// Those that were here, and must never be again.
    removed: BTreeSet<GroupId>,
    failed: bool,
}

#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    file: DiskFile,
    end: u64,
}

#[derive(Clone, Debug)]
pub struct JournalReader(Arc<Shared>);

impl Shared {
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        let inner = self.inner.lock().unwrap();
        if inner.failed { Err(Error::Stopped) } else { Ok(inner) }
    }

    pub(crate) fn fail(&self) {
        if !self.has(Bug::NoLatch) {
            self.inner.lock().unwrap().failed = true;
        }
    }

    pub(crate) fn sync(&self, file: &DiskFile) -> io::Result<()> {
        let result = file.sync();
        if self.has(Bug::SyncAgain) { result.or_else(|_| file.sync()) } else { result }
    }
}

impl Inner {
    pub(crate) fn group(&mut self, id: GroupId) -> Result<&mut Group, Error> {
        self.groups.get_mut(&id).ok_or_else(|| Error::Refused(format!("there is no group {id}")))
    }
}

impl Journal {
    pub fn create(disk: &Disk, groups: &[(GroupId, Membership)], bug: Option<Bug>) -> Result<Self, Error> {
        let groups = groups
            .iter()
            .map(|(id, membership)| {
                (*id, Group::new(Snapshot { last: LogId::ZERO, membership: membership.clone() }))
            })
            .collect();
        let inner = Mutex::new(Inner { groups, removed: BTreeSet::new(), failed: false });
        let shared = Arc::new(Shared { disk: disk.clone(), bug, inner });
        let (file, end) = rewrite(&shared, &shared.lock()?.groups, &BTreeSet::new())?;
        Ok(Self { shared, file, end })
    }

    pub fn open(disk: &Disk, bug: Option<Bug>) -> Result<Self, Error> {
        let file = match disk.open(JOURNAL) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing),
            Err(error) => return Err(error.into()),
        };
        // Another process may have given names, and been killed before they were durable.
        if bug != Some(Bug::NamesTakenForDurable) {
            disk.sync()?;
        }
        // Or have written what is not durable, either: what is built on it would stay without it after a power failure.
        if bug != Some(Bug::WritesTakenForDurable) {
            file.sync()?;
        }
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(0, &mut bytes)?;
        if !bytes.starts_with(MAGIC) {
            return Err(Error::Damaged("it does not begin as a journal does"));
        }
        let (mut groups, mut removed) = (BTreeMap::new(), BTreeSet::new());
        // So much of it was durable before it was the journal.
        let Some(Ok(whole)) = unframe(&bytes[MAGIC.len()..], bug).map(|payload| In(payload).number()) else {
            return Err(Error::Damaged("its first record"));
        };
        let mut at = MAGIC.len() + 16;
        while at < bytes.len() {
            let Some(payload) = unframe(&bytes[at..], bug) else {
                if (at as u64) < whole && bug != Some(Bug::DamageTakenForTornTail) {
                    return Err(Error::Damaged("a record's checksum"));
                }
                // The end was being written: a record that comes after it was not, for it would have been synced first.
                let follows = (at + 1..bytes.len()).any(|at| unframe(&bytes[at..], None).is_some());
                if follows && bug != Some(Bug::DamageTakenForTornTail) && bug != Some(Bug::TornTailKept) {
                    return Err(Error::Damaged("a record's checksum"));
                }
                break;
            };
            at += 8 + payload.len();
            replay(&mut groups, &mut removed, In(payload).record()?, bug)?;
        }
        let mut end = at as u64;
        if at < bytes.len() {
            if bug == Some(Bug::TornTailKept) {
                end = bytes.len() as u64;
            } else {
                file.set_len(end)?;
                file.sync()?;
            }
        }
        snapshots::load(disk, bug, &mut groups, &removed)?;
        if disk.list()?.iter().any(|name| name == NEW) {
            disk.remove(NEW)?;
        }
        let inner = Mutex::new(Inner { groups, removed, failed: false });
        Ok(Self { shared: Arc::new(Shared { disk: disk.clone(), bug, inner }), file, end })
    }

    /// Appends a record, durably.
    fn append(&mut self, out: Out) -> Result<(), Error> {
        self.append_and(out, !self.shared.has(Bug::AckBeforeSync))
    }

    fn append_and(&mut self, out: Out, sync: bool) -> Result<(), Error> {
        let record = out.record();
        self.file.write_at(self.end, &record)?;
        if sync {
            self.shared.sync(&self.file)?;
        }
        self.end += record.len() as u64;
        Ok(())
    }

    fn try_commit(&mut self, writes: &[Write]) -> Result<(), Error> {
        let shared = self.shared.clone();
        let bug = shared.bug;
        // Readers see a commit once it is durable.
        let mut groups = shared.lock()?.groups.clone();
        for (n, write) in writes.iter().enumerate() {
            let id = write.receipt().group();
            let written = match groups.get_mut(&id) {
                Some(group) => group.write(write, bug),
                None if bug == Some(Bug::RemovedIgnored) => Ok(()),
                None => refused("there is no such group"),
            };
            if let Err(why) = written {
                if bug == Some(Bug::RefusedHalfDone) && n > 0 {
                    self.try_commit(&writes[..n])?;
                }
                let named = if bug == Some(Bug::RefusedWrongly) { writes[0].receipt().group() } else { id };
                return Err(Error::RefusedOf(named, why.to_string()));
            }
        }
        if writes.iter().any(|write| write.rebase.is_some()) {
            let removed = shared.lock()?.removed.clone();
            (self.file, self.end) = rewrite(&shared, &groups, &removed)?;
        } else if bug == Some(Bug::GroupsOutOfOrder) {
            let of = |write: &Write| write.receipt().group();
            let named: BTreeSet<GroupId> = writes.iter().map(of).collect();
            for id in named.into_iter().rev() {
                let mut out = Out::new(bug);
                out.committed(writes.iter().filter(|write| of(write) == id));
                self.append(out)?;
            }
        } else {
            if bug == Some(Bug::VoteApart) {
                for write in writes {
                    if let Some(hard_state) = write.hard_state {
                        let mut out = Out::new(bug);
                        out.vote(write.receipt().group(), hard_state);
                        self.append(out)?;
                    }
                }
            }
            let mut out = Out::new(bug);
            out.committed(writes.iter());
            self.append(out)?;
        }
        let mut inner = shared.lock()?;
        for (id, mut group) in groups {
            let shelf = std::mem::take(&mut inner.group(id)?.shelf);
            group.shelf = shelf;
            inner.groups.insert(id, group);
        }
        for write in writes {
            if write.rebase.is_some() && inner.groups.contains_key(&write.receipt().group()) {
                snapshots::prune(&shared, &mut inner, write.receipt().group())?;
            }
        }
        Ok(())
    }
}

/// Writes the journal anew, and puts it in the place of the old one.
fn rewrite(
    shared: &Shared,
    groups: &BTreeMap<GroupId, Group>,
    removed: &BTreeSet<GroupId>,
) -> Result<(DiskFile, u64), Error> {
    let mut records = Vec::new();
    for id in removed.iter().filter(|_| !shared.has(Bug::RemovedForgotten)) {
        let mut out = Out::new(shared.bug);
        out.removed(*id);
        records.extend(out.record());
    }
    for (id, group) in groups {
        let mut out = Out::new(shared.bug);
        out.whole(*id, group.incarnation.0, group.hard_state, &group.base, &group.log);
        records.extend(out.record());
    }
    let mut first = Out::new(shared.bug);
    first.number((MAGIC.len() + 16 + records.len()) as u64);
    let bytes = [&MAGIC[..], &first.record(), &records].concat();
    let file = shared.disk.create(NEW)?;
    file.write_at(0, &bytes)?;
    if !shared.has(Bug::RewriteNotSynced) {
        shared.sync(&file)?;
    }
    shared.disk.rename(NEW, JOURNAL)?;
    if !shared.has(Bug::RewriteNotInDirectory) {
        shared.disk.sync()?;
    }
    Ok((file, bytes.len() as u64))
}

fn replay(
    groups: &mut BTreeMap<GroupId, Group>,
    removed: &mut BTreeSet<GroupId>,
    record: Record,
    bug: Option<Bug>,
) -> Result<(), Error> {
    const NO_GROUP: Error = Error::Damaged("a record of a group that is not there");
    match record {
        Record::Recovered { group, incarnation } => {
            groups.get_mut(&group).ok_or(NO_GROUP)?.incarnation = Incarnation(incarnation);
        }
        Record::Committed(changes) => {
            for mut change in changes {
                if bug == Some(Bug::TruncationNotReplayed) {
                    change.truncate = None;
                }
                groups.get_mut(&change.group).ok_or(NO_GROUP)?.apply(change, bug);
            }
        }
        Record::Removed(group) => {
            groups.remove(&group);
            removed.insert(group);
        }
        Record::Group { group, incarnation, hard_state, base, log } => {
            let mut new = Group::new(base);
            (new.incarnation, new.hard_state, new.log) = (Incarnation(incarnation), hard_state, log);
            groups.insert(group, new);
        }
    }
    Ok(())
}

impl Store for Journal {
    type Error = Error;
    type Reader = JournalReader;
    type Snapshots = JournalSnapshots;

    fn groups(&self) -> Result<Vec<GroupId>, Error> {
        let inner = self.shared.lock()?;
        let mut listed: Vec<GroupId> = inner.groups.keys().copied().collect();
        if self.shared.has(Bug::ListsRemoved) {
            listed.extend(&inner.removed);
        }
        Ok(listed)
    }

    fn create(&mut self, id: GroupId, membership: &Membership) -> Result<(), Error> {
        let shared = self.shared.clone();
        {
            let inner = shared.lock()?;
            if inner.groups.contains_key(&id) && !shared.has(Bug::CreationOverwrites) {
                return refused("the group is here");
            }
            if inner.removed.contains(&id) && !shared.has(Bug::RemovedTakenAgain) {
                return refused("the group was removed");
            }
        }
        let group = Group::new(Snapshot { last: LogId::ZERO, membership: membership.clone() });
        let mut out = Out::new(shared.bug);
        out.whole(id, 0, group.hard_state, &group.base, &group.log);
        self.append_and(out, !shared.has(Bug::CreationNotSynced)).inspect_err(|_| shared.fail())?;
        shared.lock()?.groups.insert(id, group);
        Ok(())
    }

    fn remove(&mut self, id: GroupId) -> Result<(), Error> {
        let shared = self.shared.clone();
        shared.lock()?.group(id)?;
        if shared.has(Bug::FilesRemovedFirst) {
            snapshots::remove_all(&shared.disk, id, shared.bug);
        }
        let (mut groups, mut removed) = {
            let inner = shared.lock()?;
            (inner.groups.clone(), inner.removed.clone())
        };
        groups.remove(&id);
        removed.insert(id);
        if shared.has(Bug::RemovalNotSynced) {
            let mut out = Out::new(shared.bug);
            out.removed(id);
            self.append_and(out, false)?;
        } else {
            // What the group had is not in it any more.
            (self.file, self.end) = rewrite(&shared, &groups, &removed).inspect_err(|_| shared.fail())?;
        }
        let mut inner = shared.lock()?;
        inner.groups.remove(&id);
        inner.removed.insert(id);
        if !shared.has(Bug::RemovedStays) {
            snapshots::remove_all(&shared.disk, id, shared.bug);
        }
        Ok(())
    }

    fn recover_many(&mut self, groups: &[GroupId]) -> Result<Vec<Recovered>, Error> {
        let shared = self.shared.clone();
        if shared.has(Bug::ManyNotDurable) {
            let mut inner = shared.lock()?;
            let recovered = groups.iter().map(|id| {
                let group = inner.group(*id)?;
                (group.incarnation, group.next) = (Incarnation(group.incarnation.0 + 1), 1);
                group.recovered(shared.bug)
            });
            return recovered.collect();
        }
        let mut recovered =
            groups.iter().map(|group| self.recover(*group)).collect::<Result<Vec<Recovered>, Error>>()?;
        if shared.has(Bug::ManyAlike)
            && let Some((first, rest)) = recovered.split_first_mut()
        {
            rest.iter_mut().for_each(|other| other.base_membership = first.base_membership.clone());
        }
        Ok(recovered)
    }

    fn refused(error: &Error) -> Option<GroupId> {
        match error {
            Error::RefusedOf(group, _) => Some(*group),
            _ => None,
        }
    }

    fn recover(&mut self, id: GroupId) -> Result<Recovered, Error> {
        let shared = self.shared.clone();
        let bug = shared.bug;
        let incarnation = {
            let mut inner = shared.lock()?;
            let group = inner.group(id)?;
            group.recovered(bug)?;
            Incarnation(group.incarnation.0 + 1)
        };
        if bug != Some(Bug::IncarnationNotDurable) {
            let mut out = Out::new(bug);
            out.recovered(id, incarnation.0);
            self.append(out).inspect_err(|_| shared.fail())?;
        }
        let mut inner = shared.lock()?;
        let group = inner.group(id)?;
        (group.incarnation, group.next) = (incarnation, 1);
        group.recovered(bug)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), Error> {
        drop(self.shared.lock()?);
        self.try_commit(writes).inspect_err(|error| {
            if Self::refused(error).is_none() {
                self.shared.fail();
            }
        })
    }

    fn reader(&self) -> JournalReader {
        JournalReader(self.shared.clone())
    }

    fn snapshots(&self) -> JournalSnapshots {
        JournalSnapshots(self.shared.clone())
    }
}

impl LogReader for JournalReader {
    type Error = Error;

    fn load(&self, id: GroupId, load: &Load) -> Result<Loaded, Error> {
        let bug = self.0.bug;
        if bug == Some(Bug::ReadTwice) && load.last > load.first {
            let middle = quorate_core::Index((load.first.0 + load.last.0) / 2);
            let head = self.0.lock()?.group(id)?.load(&Load { last: middle, ..*load }, bug);
            std::thread::yield_now();
            let tail = self.0.lock()?.group(id)?.load(&Load { first: middle.next(), ..*load }, bug);
            return Ok(match (head, tail) {
                (Loaded::Entries(head), Loaded::Entries(tail)) if load.max_bytes > 1 << 20 => {
                    Loaded::Entries(head.into_iter().chain(tail).collect())
                }
                (head, _) => head,
            });
        }
        Ok(self.0.lock()?.group(id)?.load(load, bug))
    }
}

/// Makes journals, with a bug or without.
pub struct Journals(pub Option<Bug>);

impl Harness for Journals {
    type Store = Journal;

    fn create(&self, disk: &Disk, groups: &[(GroupId, Membership)]) -> Result<Journal, Error> {
        Journal::create(disk, groups, self.0)
    }

    fn open(&self, disk: &Disk) -> Result<Journal, Error> {
        Journal::open(disk, self.0)
    }

    fn is_absent(&self, error: &Error) -> bool {
        matches!(error, Error::Missing)
    }

    fn is_damage(&self, error: &Error) -> bool {
        matches!(error, Error::Damaged(_))
    }
}

impl Out {
    fn vote(&mut self, group: GroupId, hard_state: HardState) {
        let mut write = Write::minted(group, Incarnation(0), quorate_core::WriteSeq(0));
        write.hard_state = Some(hard_state);
        self.committed([write].iter());
    }
}
