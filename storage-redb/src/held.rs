//! The database, shared by its store and those who read beside it, until the store is closed.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::Database;

use crate::Error;

/// The database, whoever uses it; nothing once its store is closed.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<RwLock<Option<Database>>>);

/// The store's own: when it goes the database is closed. That waits for those who are in the middle of reading, for the
/// directory is another's after it.
#[derive(Debug)]
pub(crate) struct Owned(Held);

/// Keeps the database open.
pub(crate) struct InUse<'a>(RwLockReadGuard<'a, Option<Database>>);

impl Held {
    /// To commit or to read.
    pub(crate) fn read(&self) -> InUse<'_> {
        InUse(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// To have it alone.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owned {
    pub(crate) fn new(db: Database) -> Self {
        Self(Held(Arc::new(RwLock::new(Some(db)))))
    }

    pub(crate) const fn held(&self) -> &Held {
        &self.0
    }

    /// The database, for nobody else any more.
    pub(crate) fn take(&self) -> Option<Database> {
        self.0.write().take()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl InUse<'_> {
    pub(crate) fn db(&self) -> Result<&Database, Error> {
        self.0.as_ref().ok_or(Error::Closed)
    }
}
