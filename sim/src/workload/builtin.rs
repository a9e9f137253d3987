//! The built-in workloads, by name.

use std::sync::Arc;

use super::{
    Workload,
    counter::{Counter, CounterLoad},
    history::Completed,
    keyed::Keyed,
    list::{List, ListLoad},
    machine::{Machines, Replicated, machines},
    register::{Register, RegisterLoad},
    search::{Bounds, Opinion, search},
    sessions::Sessions,
};

/// Judges a history of the plain machine's operations without asking the log.
pub type Search = fn(&[Completed], &Bounds) -> Opinion;

/// A machine with clients who use it.
#[derive(Clone)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// What clients ask for.
    pub workload: Arc<dyn Workload>,
    /// The machine alone, whose commands are the workload's.
    pub plain: Machines,
    /// The machine with sessions, whose commands are [`Request`](super::Request)s with the workload's in them.
    pub with_sessions: Machines,
    /// A search for an order of its histories, if there is one for it.
    pub search: Option<Search>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Default for Service {
    fn default() -> Self {
        Self::counters()
    }
}

impl Service {
    /// All names that this build knows.
    pub const NAMES: &[&str] = &[
        "register",
        "counter",
        "append-list",
        #[cfg(feature = "coord")]
        "coord",
    ];

    /// How many sessions the built-in ones have: few enough that some expire in a run.
    pub const SESSIONS: u32 = 16;

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (keys, reads) = (5, 0.3);
        match name {
            "register" => {
                let service = Self::new("register", RegisterLoad { keys, reads }, Keyed::<Register>::default);
                Some(service.searched(search::<Register>))
            }
            "counter" => {
                Some(Self::counters())
            }
            "append-list" => {
                let service = Self::new("append-list", ListLoad { keys, reads }, Keyed::<List>::default);
                Some(service.searched(search::<List>))
            }
            #[cfg(feature = "coord")]
            "coord" => {
                let load = super::coord::CoordLoad { keys: keys.into(), reads };
                Some(Self::new("coord", load, super::coord::Coord::default))
            }
            _ => None,
        }
    }

    /// Counters, where nothing else was wanted.
    fn counters() -> Self {
        let (keys, reads) = (5, 0.3);
        let service = Self::new("counter", CounterLoad { keys, reads }, Keyed::<Counter>::default);
        service.searched(search::<Counter>)
    }

    /// A user's own.
    pub fn new<M: Replicated>(
        name: &'static str,
        workload: impl Workload + 'static,
        machine: impl Fn() -> M + Clone + Send + Sync + 'static,
    ) -> Self {
        let plain = machines(machine.clone());
        let with_sessions = machines(move || Sessions::new(machine(), Self::SESSIONS));
        Self { name, workload: Arc::new(workload), plain, with_sessions, search: None }
    }

    /// The same, with a search.
    #[must_use]
    pub fn searched(self, search: Search) -> Self {
        Self { search: Some(search), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_known() {
        for name in Service::NAMES {
            let service = Service::named(name).unwrap();
            assert_eq!(service.name, *name);
            assert_eq!((service.plain)().digest(), (service.plain)().digest());
            assert_ne!((service.plain)().digest(), (service.with_sessions)().digest());
        }
        assert!(Service::named("toaster").is_none());
    }
}
