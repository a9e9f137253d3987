//! Snapshots beside a journal: a file each.
//!
//! Two slots, in turn, say how much of a transfer is durable; a header says which snapshot it is; the bytes follow. A
//! file gets the name of a snapshot once all of it is durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quorate_core::{GroupId, LogId, Snapshot, SnapshotInfo, SnapshotReader, SnapshotWriter, Snapshots};
use quorate_runtime_tokio::conformance::{Disk, DiskFile};

use super::{
    Bug, Error, Group, Inner, Shared,
    format::{In, Out, unframe},
    refused,
};

const SLOT: u64 = 512;
const HEADER: u64 = 1024;
const DATA: u64 = 4096;

/// The snapshots of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    published: BTreeMap<u64, Published>,
    taking: bool,
    receiving: bool,
}

#[derive(Clone, Debug)]
struct Published {
    info: SnapshotInfo,
    name: String,
    file: DiskFile,
}

impl Shelf {
    pub(crate) fn newest(&self, fits: impl Fn(LogId) -> bool) -> Option<&Snapshot> {
        self.published.values().rev().map(|it| &it.info.snapshot).find(|snapshot| fits(snapshot.last))
    }

    pub(crate) fn has(&self, last: LogId) -> bool {
        self.published.get(&last.index.0).is_some_and(|it| it.info.snapshot.last == last)
    }

    fn last(&self) -> u64 {
        self.published.last_key_value().map_or(0, |(index, _)| *index)
    }
}

/// Removes what newer ones have replaced: those before the newest that the log can rest on.
pub(crate) fn prune(shared: &Shared, inner: &mut Inner, id: GroupId) -> Result<(), Error> {
    let group = inner.group(id)?;
    let newest = group.shelf.newest(|last| group.holds(last)).map_or(0, |snapshot| snapshot.last.index.0);
    let newest = if shared.has(Bug::OnlyNewestKept) { group.shelf.last() } else { newest };
    let kept = group.shelf.published.split_off(&newest);
    for gone in std::mem::replace(&mut group.shelf.published, kept).into_values() {
        shared.disk.remove(&gone.name)?;
    }
    Ok(())
}

/// Removes all files of a group; those that can't be are when the journal is opened.
pub(crate) fn remove_all(disk: &Disk, id: GroupId, bug: Option<Bug>) {
    for name in disk.list().unwrap_or_default() {
        let stays = bug == Some(Bug::StagedStays) && !name.starts_with("snapshot-");
        if group_of(&name) == Some(id) && !stays {
            let _still_there = disk.remove(&name);
        }
    }
}

/// Of which group a file is.
fn group_of(name: &str) -> Option<GroupId> {
    let (_kind, rest) = name.split_once('-')?;
    rest.split_once('-')?.0.parse().ok().map(GroupId)
}

/// Finds what is published, and removes what was being taken.
pub(crate) fn load(
    disk: &Disk,
    bug: Option<Bug>,
    groups: &mut BTreeMap<GroupId, Group>,
    removed: &BTreeSet<GroupId>,
) -> Result<(), Error> {
    for name in disk.list()? {
        if group_of(&name).is_some_and(|id| removed.contains(&id)) {
            // Left when it was removed.
            if !matches!(bug, Some(Bug::RemovedStays | Bug::StagedStays)) {
                disk.remove(&name)?;
            }
            continue;
        }
        if name.starts_with("taking-") && bug != Some(Bug::LeftBehind) {
            disk.remove(&name)?;
        }
        if !name.starts_with("snapshot-") {
            continue;
        }
        let file = disk.open(&name)?;
        let bad = Error::Damaged("the header of a snapshot");
        let (group, info) = read_header(&file, bug).ok_or(bad)?;
        let there = Published { info, name, file };
        let group =
            groups.get_mut(&group).ok_or(Error::Damaged("a snapshot of a group that is not there"))?;
        group.shelf.published.insert(there.info.snapshot.last.index.0, there);
    }
    Ok(())
}

fn header(group: GroupId, info: &SnapshotInfo) -> Vec<u8> {
    let mut out = Out::default();
    out.number(group.0);
    out.number(info.bytes);
    out.number(u64::from(info.checksum));
    out.snapshot(&info.snapshot);
    out.record()
}

fn read_header(file: &DiskFile, bug: Option<Bug>) -> Option<(GroupId, SnapshotInfo)> {
    let mut bytes = vec![0; (DATA - HEADER) as usize];
    file.read_at(HEADER, &mut bytes).ok()?;
    let mut payload = In(unframe(&bytes, bug)?);
    let group = GroupId(payload.number().ok()?);
    let (bytes, checksum) = (payload.number().ok()?, payload.number().ok()? as u32);
    Some((group, SnapshotInfo { snapshot: payload.snapshot().ok()?, bytes, checksum }))
}

fn read_data(file: &DiskFile, len: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len as usize];
    file.read_at(DATA, &mut bytes)?;
    Ok(bytes)
}

#[derive(Clone, Debug)]
pub struct JournalSnapshots(pub(super) Arc<Shared>);

impl Snapshots for JournalSnapshots {
    type Error = Error;
    type Writer = JournalWriter;
    type Reader = JournalSource;

    fn list(&self, group: GroupId) -> Result<Vec<SnapshotInfo>, Error> {
        Ok(self.0.lock()?.group(group)?.shelf.published.values().map(|it| it.info.clone()).collect())
    }

    fn take(&self, id: GroupId, snapshot: &Snapshot) -> Result<JournalWriter, Error> {
        {
            let mut inner = self.0.lock()?;
            let shelf = &mut inner.group(id)?.shelf;
            if shelf.taking && !self.0.has(Bug::TwoTakes) {
                return refused("one is being taken");
            }
            if shelf.last() >= snapshot.last.index.0 {
                return refused("there is a later one");
            }
            shelf.taking = true;
        }
        let name = format!("taking-{id}-{}-{}", snapshot.last.term, snapshot.last.index);
        let mut writer = JournalWriter::new(&self.0, id, snapshot, name);
        let file = self.0.disk.create(&writer.name)?;
        file.set_len(DATA)?;
        writer.file = Some(file);
        Ok(writer)
    }

    fn receive(&self, id: GroupId, info: &SnapshotInfo) -> Result<JournalWriter, Error> {
        {
            let mut inner = self.0.lock()?;
            let shelf = &mut inner.group(id)?.shelf;
            if shelf.receiving {
                return refused("one is being received");
            }
            if shelf.last() > info.snapshot.last.index.0 {
                return refused("there is a later one");
            }
            shelf.receiving = true;
        }
        // A name for each: what is left of one never gets into another, not even if a crash brings it back.
        let name = if self.0.has(Bug::ResumeOther) { 0 } else { crc32c::crc32c(&header(id, info)) };
        let mut writer =
            JournalWriter::new(&self.0, id, &info.snapshot, format!("receiving-{id}-{name:08x}"));
        writer.expected = Some(info.clone());
        let prefix = format!("receiving-{id}-");
        for other in self.0.disk.list()?.iter().filter(|other| other.starts_with(&prefix)) {
            if *other == writer.name {
                writer.resume(self.0.disk.open(other)?, info)?;
            }
            if writer.staged == 0 || *other != writer.name {
                self.0.disk.remove(other)?;
            }
        }
        if writer.staged == 0 {
            let file = self.0.disk.create(&writer.name)?;
            file.set_len(DATA)?;
            file.write_at(HEADER, &header(id, info))?;
            writer.file = Some(file);
        }
        Ok(writer)
    }

    fn open(&self, group: GroupId, last: LogId) -> Result<Option<JournalSource>, Error> {
        let mut inner = self.0.lock()?;
        let there = inner.group(group)?.shelf.published.get(&last.index.0).cloned();
        drop(inner);
        let Some(Published { info, name, file }) = there.filter(|it| it.info.snapshot.last == last) else {
            return Ok(None);
        };
        let bytes = read_data(&file, info.bytes)?;
        if crc32c::crc32c(&bytes) != info.checksum && !self.0.has(Bug::SnapshotUnchecked) {
            return Err(Error::Damaged("the bytes of a snapshot"));
        }
        Ok(Some(JournalSource { shared: self.0.clone(), info, name, bytes }))
    }
}

#[derive(Debug)]
pub struct JournalWriter {
    shared: Arc<Shared>,
    group: GroupId,
    snapshot: Snapshot,
    expected: Option<SnapshotInfo>,
    name: String,
    file: Option<DiskFile>,
    staged: u64,
    checksum: u32,
    /// How often it was synced.
    syncs: u64,
    /// Nothing can be staged any more.
    failed: bool,
    done: bool,
}

impl JournalWriter {
    fn new(shared: &Arc<Shared>, group: GroupId, snapshot: &Snapshot, name: String) -> Self {
        Self {
            shared: shared.clone(),
            group,
            snapshot: snapshot.clone(),
            expected: None,
            name,
            file: None,
            staged: 0,
            checksum: 0,
            syncs: 0,
            failed: false,
            done: false,
        }
    }

    fn info(&self) -> SnapshotInfo {
        SnapshotInfo { snapshot: self.snapshot.clone(), bytes: self.staged, checksum: self.checksum }
    }

    fn file(&self) -> Result<&DiskFile, Error> {
        self.file.as_ref().filter(|_| !self.failed).ok_or(Error::Stopped)
    }

    /// Goes on with what is there, if it is this one.
    fn resume(&mut self, file: DiskFile, info: &SnapshotInfo) -> Result<(), Error> {
        let bug = self.shared.bug;
        let same = |found: &SnapshotInfo| {
            found == info || (bug == Some(Bug::ResumeOther) && found.snapshot == info.snapshot)
        };
        let Some((_, found)) = read_header(&file, bug).filter(|(_, found)| same(found)) else {
            return Ok(());
        };
        let mut newest = (0, 0);
        for slot in [0, SLOT] {
            let mut bytes = [0; SLOT as usize];
            if file.read_at(slot, &mut bytes).is_err() {
                continue;
            }
            let Some(payload) = unframe(&bytes, bug) else { continue };
            let mut payload = In(payload);
            let (of, syncs, staged) = (payload.number()?, payload.number()?, payload.number()?);
            if of == u64::from(crc32c::crc32c(&header(self.group, &found))) {
                newest = newest.max((syncs, staged));
            }
        }
        let (syncs, mut staged) = newest;
        match bug {
            Some(Bug::ResumeAtEnd) => staged = file.len()?.saturating_sub(DATA),
            Some(Bug::ResumeNever) => staged = 0,
            _ => {}
        }
        if staged > 0 {
            file.set_len(DATA + staged)?;
            self.checksum = crc32c::crc32c(&read_data(&file, staged)?);
            (self.syncs, self.staged, self.file) = (syncs, staged, Some(file));
        }
        Ok(())
    }

    fn try_write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let staged = self.staged + bytes.len() as u64;
        let expected = self.expected.as_ref().map_or(u64::MAX, |info| info.bytes);
        if staged > expected && !self.shared.has(Bug::ReceivedMore) {
            return refused("more than was announced");
        }
        self.file()?.write_at(DATA + self.staged, bytes)?;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.staged = staged;
        Ok(())
    }

    fn try_sync(&mut self) -> Result<(), Error> {
        let Some(expected) = self.expected.clone() else { return Ok(()) };
        self.shared.sync(self.file()?)?;
        if self.syncs == 0 {
            self.shared.disk.sync()?;
        }
        self.syncs += 1;
        let mut out = Out::default();
        out.number(u64::from(crc32c::crc32c(&header(self.group, &expected))));
        out.number(self.syncs);
        out.number(self.staged);
        self.file()?.write_at(self.syncs % 2 * SLOT, &out.record())?;
        Ok(self.shared.sync(self.file()?)?)
    }

    fn try_publish(&mut self) -> Result<SnapshotInfo, Error> {
        let found = self.info();
        if self.expected.as_ref().is_some_and(|it| *it != found) && !self.shared.has(Bug::ReceivedUnchecked) {
            self.syncs = 0;
            return refused("other bytes than announced");
        }
        let info = self.expected.clone().unwrap_or(found);
        let file = self.file()?;
        file.write_at(HEADER, &header(self.group, &info))?;
        let name =
            format!("snapshot-{}-{}-{}", self.group, self.snapshot.last.term, self.snapshot.last.index);
        let synced = || {
            if !self.shared.has(Bug::PublishedNotSynced) {
                self.shared.sync(file)?;
            }
            self.shared.disk.rename(&self.name, &name)?;
            if !self.shared.has(Bug::PublishedNotInDirectory) {
                self.shared.disk.sync()?;
            }
            Ok::<(), Error>(())
        };
        synced().inspect_err(|_| self.fail())?;
        let there = Published { info: info.clone(), name, file: file.clone() };
        self.done = true;
        let mut inner = self.shared.lock()?;
        inner.group(self.group)?.shelf.published.insert(info.snapshot.last.index.0, there);
        prune(&self.shared, &mut inner, self.group)?;
        Ok(info)
    }

    /// It can't go on once its group was removed.
    fn check_here(&self) -> Result<(), Error> {
        let mut inner = self.shared.lock()?;
        let unseen = self.shared.has(Bug::StagedOn) || self.shared.has(Bug::StagedStays);
        if unseen { Ok(()) } else { inner.group(self.group).map(drop) }
    }

    fn fail(&self) {
        if !self.shared.has(Bug::SnapshotSyncNotLatched) {
            self.shared.fail();
        }
    }
}

impl SnapshotWriter for JournalWriter {
    type Error = Error;

    fn staged(&self) -> u64 {
        self.staged
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.check_here()?;
        self.try_write(bytes).inspect_err(|_| self.failed = true)
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.check_here()?;
        self.try_sync().inspect_err(|_| {
            self.failed = true;
            self.fail();
        })
    }

    fn publish(mut self) -> Result<SnapshotInfo, Error> {
        self.check_here()?;
        self.try_publish().inspect_err(|_| self.failed = true)
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        let dropped = self.expected.is_none() && !self.done && self.shared.has(Bug::DroppedIsPublished);
        if dropped {
            let _published = self.try_publish();
        }
        let kept = if self.expected.is_some() { self.syncs > 0 } else { self.shared.has(Bug::LeftBehind) };
        if !self.done && !kept {
            // If that fails it is removed when the store is opened.
            let _gone = self.shared.disk.remove(&self.name);
        }
        if let Ok(group) = self.shared.inner.lock().unwrap().group(self.group) {
            match self.expected {
                Some(_) => group.shelf.receiving = false,
                None => group.shelf.taking = false,
            }
        }
    }
}

/// A published snapshot, read as a whole when it was opened: small as they are here.
#[derive(Debug)]
pub struct JournalSource {
    shared: Arc<Shared>,
    info: SnapshotInfo,
    name: String,
    bytes: Vec<u8>,
}

impl SnapshotReader for JournalSource {
    type Error = Error;

    fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, Error> {
        if self.shared.has(Bug::ReadByName) {
            self.shared.disk.open(&self.name)?;
        }
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}
