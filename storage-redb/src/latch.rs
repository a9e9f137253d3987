//! After a failed write nothing is written any more.

use std::sync::{Arc, OnceLock};

use crate::Error;

/// The first error after which what is on the disk is not known: once there is one, it stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latch(Arc<OnceLock<String>>);

impl Latch {
    /// Is all well still?
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.0.get().map_or(Ok(()), |first| Err(Error::Stopped { first: first.clone() }))
    }

    /// Something has failed for good.
    pub(crate) fn set(&self, error: &Error) {
        self.0.get_or_init(|| error.to_string());
    }
}
