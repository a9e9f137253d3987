//! Giving space back to the file system.

use redb::CompactionError;

use crate::{Error, RedbStore, error::from_redb};

/// What [`RedbStore::reclaim`] has done, in bytes of the store's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reclaimed {
    /// How long it was.
    pub before: u64,
    /// How long it is.
    pub after: u64,
}

impl RedbStore {
    /// Makes the file as short as it can be. The pages of what was compacted away are used again by what comes, so a log that is
    /// compacted regularly needs this never; it is for one that was much longer once.
    ///
    /// It moves pages from the end of the file into its gaps and takes as long as that takes: commits and loads wait. What is committed
    /// stays as it is, whenever it is interrupted.
    ///
    /// # Errors
    /// As [`Store::commit`](quorate_core::Store::commit).
    pub fn reclaim(&mut self) -> Result<Reclaimed, Error> {
        self.latch.check()?;
        self.latched(|store| {
            let io = |source| Error::Io { doing: "reading the length of the store's file", source };
            let before = store.medium.len().map_err(io)?;
            {
                let mut db = store.db.held().write();
                db.as_mut().ok_or(Error::Closed)?.compact().map_err(|error| match error {
                    CompactionError::Storage(error) => from_redb(&store.file, "giving space back", error),
                    error => Error::Database {
                        doing: "giving space back",
                        source: Box::new(redb::Error::from(error)),
                    },
                })?;
            }
            Ok(Reclaimed { before, after: store.medium.len().map_err(io)? })
        })
    }
}
