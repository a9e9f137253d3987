//! Staging a snapshot.

use std::sync::Arc;

use quorate_core::{GroupId, Snapshot, SnapshotInfo, SnapshotWriter};
use redb::StorageBackend;

use super::{Name, Origin, Shelf, Stage, shelf::resumable};
use crate::{
    ArchiveHeader, Error,
    archive::{Blocks, Prefix, block_at, sum_of},
    error::io_damage,
};

/// After so many bytes the file is synced, whoever writes it: else a commit of the log that falls together with a sync at the end would wait for all of
/// it (`docs/decisions/0010-layout-of-the-store.md`).
const SYNC_EVERY: u64 = 8 << 20;

/// Stages a snapshot in the directory of a [`RedbStore`](crate::RedbStore).
#[derive(Debug)]
pub struct RedbSnapshotWriter {
    shelf: Arc<Shelf>,
    name: Name,
    origin: Origin,
    snapshot: Snapshot,
    announced: Option<(u64, u32)>,
    /// The file; none after an error, or once it is published.
    file: Option<Box<dyn StorageBackend>>,
    /// Where the next block goes.
    end: u64,
    blocks: Blocks,
    published: bool,
    /// Up to where the file is durable.
    synced: u64,
    /// Is the file's name durable?
    named: bool,
}

impl RedbSnapshotWriter {
    pub(super) fn take(shelf: &Arc<Shelf>, group: GroupId, snapshot: &Snapshot) -> Result<Self, Error> {
        Self::begin(shelf, group, snapshot, None)
    }

    pub(super) fn receive(shelf: &Arc<Shelf>, group: GroupId, info: &SnapshotInfo) -> Result<Self, Error> {
        Self::begin(shelf, group, &info.snapshot, Some((info.bytes, info.checksum)))
    }

    fn begin(
        shelf: &Arc<Shelf>,
        group: GroupId,
        snapshot: &Snapshot,
        announced: Option<(u64, u32)>,
    ) -> Result<Self, Error> {
        let open = shelf.open()?;
        shelf.latch.check()?;
        let (origin, stage) = match announced {
            None => (Origin::Taken, Stage::Taking),
            Some(_) => (Origin::Received, Stage::Receiving),
        };
        let header = ArchiveHeader { identity: shelf.identity, group, snapshot: snapshot.clone() };
        let prefix = Prefix { header, announced };
        let name = Name { group, last: snapshot.last, stage };
        if !prefix.fits() {
            return Err(Error::BadSnapshot {
                file: shelf.directory.describe(&name.text()),
                offset: None,
                what: "its membership is too large",
            });
        }
        shelf.begin(group, snapshot.last, origin)?;
        // From here on dropping it ends the staging.
        let mut writer = Self {
            shelf: Arc::clone(shelf),
            name,
            origin,
            snapshot: snapshot.clone(),
            announced,
            file: None,
            end: 0,
            blocks: Blocks::new(0),
            published: false,
            synced: 0,
            named: false,
        };
        let begun = writer.resume_or_create(&prefix);
        // If that has failed it is dropped, which looks whether the store is open itself: a second look while somebody waits to close it would wait for
        // him, and he for the first.
        drop(open);
        begun.map(|()| writer)
    }

    fn resume_or_create(&mut self, prefix: &Prefix) -> Result<(), Error> {
        if self.resume(prefix)? { Ok(()) } else { self.create(prefix) }
    }

    /// Goes on with what is there of exactly this snapshot. What is left of others is removed.
    fn resume(&mut self, prefix: &Prefix) -> Result<bool, Error> {
        if self.origin != Origin::Received {
            return Ok(false);
        }
        let directory = &*self.shelf.directory;
        for last in self.shelf.other_transfers(self.name.group, self.name.last) {
            if directory.remove(&Name { last, ..self.name }.text()).is_ok() {
                self.shelf.forget_transfer(self.name.group, last);
            }
        }
        let Some(mut body) = resumable(directory, &self.name.text(), prefix)? else { return Ok(false) };
        let (blocks, checksum) = body.full_blocks()?;
        self.blocks = Blocks::after(body.header_sum, blocks, checksum);
        self.end = block_at(body.header_len, blocks);
        self.synced = self.end;
        self.file = Some(body.into_backend());
        Ok(true)
    }

    fn create(&mut self, prefix: &Prefix) -> Result<(), Error> {
        let bytes = prefix.encode();
        self.blocks = Blocks::new(sum_of(&bytes));
        let name = self.name.text();
        let file = self
            .shelf
            .directory
            .create(&name)
            .map_err(|source| self.io("making the file of a snapshot", source))?;
        self.file = Some(file);
        self.put(&bytes)
    }

    /// Adds to the file.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(file) = &self.file else { return Err(Error::SnapshotAbandoned(self.name.group)) };
        if let Err(source) = file.write(self.end, bytes) {
            self.file = None;
            return Err(self.io("writing a snapshot", source));
        }
        self.end = self.end.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// What a failed sync leaves on the disk is not known, of this file and of any: nothing is written after it.
    fn sync_file(&mut self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Err(Error::SnapshotAbandoned(self.name.group)) };
        if let Err(source) = file.sync_data() {
            self.file = None;
            let error = self.io("syncing a snapshot", source);
            self.shelf.latch.set(&error);
            return Err(error);
        }
        self.synced = self.end;
        Ok(())
    }

    fn sync_names(&mut self, doing: &'static str) -> Result<(), Error> {
        self.shelf.directory.sync().map_err(|source| {
            self.file = None;
            let error = self.io(doing, source);
            self.shelf.latch.set(&error);
            error
        })?;
        self.named = true;
        Ok(())
    }

    fn io(&self, doing: &'static str, source: std::io::Error) -> Error {
        io_damage(&self.shelf.directory.describe(&self.name.text()), doing, source)
    }

    fn mismatch(&self, found: u64) -> Error {
        Error::SnapshotMismatch {
            group: self.name.group,
            last: self.snapshot.last,
            expected: self.announced.map_or(0, |(bytes, _)| bytes),
            found,
        }
    }

    fn remove(&mut self) {
        self.file = None;
        let _still_there = self.shelf.directory.remove(&self.name.text());
    }
}

impl SnapshotWriter for RedbSnapshotWriter {
    type Error = Error;

    fn staged(&self) -> u64 {
        self.blocks.bytes()
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let shelf = Arc::clone(&self.shelf);
        let _open = shelf.open()?;
        shelf.latch.check()?;
        shelf.check_here(self.name.group)?;
        if self.file.is_none() {
            return Err(Error::SnapshotAbandoned(self.name.group));
        }
        let found = self.staged().saturating_add(bytes.len() as u64);
        if self.announced.is_some_and(|(announced, _)| found > announced) {
            self.remove();
            return Err(self.mismatch(found));
        }
        while !bytes.is_empty() {
            let Some(block) = self.blocks.fill(&mut bytes) else { continue };
            self.put(&block)?;
            if self.end.saturating_sub(self.synced) >= SYNC_EVERY {
                self.sync_file()?;
            }
        }
        Ok(())
    }

    /// Full blocks of 64 KiB are resumed; what is beyond the last one is staged again.
    fn sync(&mut self) -> Result<(), Error> {
        let shelf = Arc::clone(&self.shelf);
        let _open = shelf.open()?;
        shelf.latch.check()?;
        shelf.check_here(self.name.group)?;
        // What is taken here is not resumed.
        if self.announced.is_none() {
            return Ok(());
        }
        self.sync_file()?;
        if !self.named {
            self.sync_names("syncing a snapshot")?;
        }
        Ok(())
    }

    fn publish(mut self) -> Result<SnapshotInfo, Error> {
        let shelf = Arc::clone(&self.shelf);
        let _open = shelf.open()?;
        shelf.latch.check()?;
        shelf.check_here(self.name.group)?;
        if let Some(block) = self.blocks.take() {
            self.put(&block)?;
        }
        let (bytes, checksum) = (self.blocks.bytes(), self.blocks.checksum());
        if self.announced.is_some_and(|announced| announced != (bytes, checksum)) {
            self.remove();
            return Err(self.mismatch(bytes));
        }
        self.put(&self.blocks.end())?;
        // Something longer may be left of an attempt that was cut short.
        if let Some(file) = &self.file
            && let Err(source) = file.set_len(self.end)
        {
            self.file = None;
            return Err(self.io("writing a snapshot", source));
        }
        self.sync_file()?;
        // Whole and durable: now it gets its name.
        let name = Name { stage: Stage::Published, ..self.name };
        let directory = &*shelf.directory;
        directory.rename(&self.name.text(), &name.text()).map_err(|source| {
            // Whoever has removed the group has removed the file.
            shelf
                .check_here(self.name.group)
                .err()
                .unwrap_or_else(|| self.io("publishing a snapshot", source))
        })?;
        self.file = None;
        self.published = true;
        self.sync_names("publishing a snapshot")?;
        let info = SnapshotInfo { snapshot: self.snapshot.clone(), bytes, checksum };
        shelf.publish(self.name.group, info.clone(), self.origin).inspect_err(|_| {
            let _still_there = directory.remove(&name.text());
        })?;
        Ok(info)
    }
}

impl Drop for RedbSnapshotWriter {
    fn drop(&mut self) {
        let shelf = Arc::clone(&self.shelf);
        self.file = None;
        // Of one that is taken here nothing stays, nor of any if its group is gone.
        let open = shelf.open();
        let stays = self.published || self.origin == Origin::Received || open.is_err();
        if !stays {
            let _gone = shelf.directory.remove(&self.name.text());
        }
        let here = shelf.end(self.name.group, self.origin);
        if !here && !self.published && open.is_ok() {
            let _gone = shelf.directory.remove(&self.name.text());
        }
    }
}
