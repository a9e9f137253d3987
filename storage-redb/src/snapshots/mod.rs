//! Snapshots beside the database: a file each, that gets its name once it is whole and durable.
//!
//! They are files and not records because they are large: their pages would be the database's for ever, and staging one
//! would hold up the log's commits. The database knows of them only through its log: what begins after an entry rests on a
//! snapshot at that entry or later.
//!
//! | name | what |
//! | --- | --- |
//! | `GROUP-INDEX-TERM.snapshot` | published |
//! | `GROUP-INDEX-TERM.taking` | being taken here: removed when the store is opened |
//! | `GROUP-INDEX-TERM.receiving` | being received, or left by a transfer that was cut short: to be resumed |

mod names;
mod shelf;
mod writer;

use std::sync::Arc;

use quorate_core::{GroupId, LogId, Snapshot, SnapshotInfo, SnapshotReader, Snapshots};

use crate::{ArchiveReader, Damage, Error};

pub(crate) use names::{Name, Stage};
pub(crate) use shelf::{Origin, Shelf, foreign};
pub use writer::RedbSnapshotWriter;

/// The snapshots of a [`RedbStore`](crate::RedbStore). Cheap to clone; it does not keep the store open.
#[derive(Clone, Debug)]
pub struct RedbSnapshots {
    shelf: Arc<Shelf>,
}

impl RedbSnapshots {
    pub(crate) const fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf }
    }
}

impl Snapshots for RedbSnapshots {
    type Error = Error;
    type Writer = RedbSnapshotWriter;
    type Reader = RedbSnapshotReader;

    fn list(&self, group: GroupId) -> Result<Vec<SnapshotInfo>, Error> {
        let _open = self.shelf.open()?;
        self.shelf.list(group)
    }

    fn take(&self, group: GroupId, snapshot: &Snapshot) -> Result<RedbSnapshotWriter, Error> {
        RedbSnapshotWriter::take(&self.shelf, group, snapshot)
    }

    fn receive(&self, group: GroupId, info: &SnapshotInfo) -> Result<RedbSnapshotWriter, Error> {
        RedbSnapshotWriter::receive(&self.shelf, group, info)
    }

    fn open(&self, group: GroupId, last: LogId) -> Result<Option<RedbSnapshotReader>, Error> {
        let _open = self.shelf.open()?;
        self.shelf.reader(group, last)
    }
}

/// Reads a published snapshot.
#[derive(Debug)]
pub struct RedbSnapshotReader {
    archive: ArchiveReader,
    file: String,
    group: GroupId,
}

impl RedbSnapshotReader {
    /// Reads all of it.
    ///
    /// # Errors
    /// If any of it is damaged, or can't be read.
    pub fn verify(&mut self) -> Result<SnapshotInfo, Error> {
        let result = self.archive.verify();
        result.map_err(|error| self.in_store(error))
    }

    /// Damage in a store is told with group and index, and with what is to be done.
    fn in_store(&self, error: Error) -> Error {
        in_store(error, &self.file, self.group, self.archive.header().snapshot.last)
    }
}

impl SnapshotReader for RedbSnapshotReader {
    type Error = Error;

    fn info(&self) -> &SnapshotInfo {
        self.archive.info()
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, Error> {
        let result = self.archive.read_at(offset, out);
        result.map_err(|error| self.in_store(error))
    }
}

fn in_store(error: Error, file: &str, group: GroupId, last: LogId) -> Error {
    match error {
        Error::BadSnapshot { offset, what, .. } => {
            let at = offset.map_or_else(String::new, |offset| format!(" at byte {offset} of what it holds"));
            let what = format!("the snapshot is not what was written: {what}{at}");
            let (group, index) = (Some(group), Some(last.index));
            Box::new(Damage { file: file.to_owned(), group, index, what }).into()
        }
        error => error,
    }
}
