//! What a user brings to a run that can't be written down: a machine, what clients ask of it, and who judges the answers.

use std::{fmt, sync::Arc};

use crate::workload::{Checker, Service};

/// Makes a checker for a run.
pub(crate) type Checkers = Arc<dyn Fn() -> Box<dyn Checker> + Send + Sync>;

/// What is not drawn; all of it may be missing.
#[derive(Clone, Default)]
pub(crate) struct Cast {
    pub(crate) service: Option<Service>,
    /// Its clients have sessions: the machine gets their commands, but not what sessions add.
    pub(crate) sessions: Option<bool>,
    pub(crate) checker: Option<Checkers>,
}

impl fmt::Debug for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cast").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Cast {
    /// The service of this name: the user's own, or a built-in one.
    pub(crate) fn service(&self, name: &str) -> Option<Service> {
        self.service.clone().filter(|own| own.name == name).or_else(|| Service::named(name))
    }
}
