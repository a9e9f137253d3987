//! Whether one more proposal would be answered in time.
//!
//! The bounds on what waits are in numbers and bytes, so that memory is bounded whatever happens. How *long* what waits is
//! going to wait follows from them only if it is known how much a second gets done. A slow disk, or small commands, and a
//! queue that is far from full is longer than callers have patience: all of them would time out, none knowing whether it
//! was done, and the work done for them would be in vain. So the age of the oldest is looked at, too: while it has waited
//! for long, though somebody leads, no more are taken in.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use quorate_core::NodeId;
use tokio::time::Instant;

use crate::sync::{Mutex, MutexGuard};

/// So few may always wait: one that is held up by something else than those before it tells nothing.
const FEW: usize = 256;

/// The proposals of a node that have no outcome yet.
pub(crate) struct Admission {
    /// The oldest may have waited for so long.
    limit: Duration,
    state: Mutex<State>,
}

struct State {
    /// By when they came.
    waiting: BTreeSet<(Instant, u64)>,
    count: u64,
    /// Who leads, and since when that is known here: what was waited for somebody to lead is no sign of overload.
    leader: (Option<NodeId>, Instant),
}

/// One of them; until it is dropped.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    ticket: (Instant, u64),
}

impl Admission {
    /// With callers that wait for no longer than `patience`.
    pub(crate) fn new(patience: Duration) -> Arc<Self> {
        let state = State { waiting: BTreeSet::new(), count: 0, leader: (None, Instant::now()) };
        Arc::new(Self { limit: patience / 4, state: Mutex::new(state) })
    }

    /// Takes one in, unless those before it have been waiting for too long: for how long is the error.
    pub(crate) fn admit(self: &Arc<Self>, leader: Option<NodeId>) -> Result<Admitted, Duration> {
        self.admit_at(Instant::now(), leader)
    }

    fn admit_at(self: &Arc<Self>, now: Instant, leader: Option<NodeId>) -> Result<Admitted, Duration> {
        let mut state = self.state();
        if state.leader.0 != leader {
            state.leader = (leader, now);
        }
        if let Some((oldest, _)) = state.waiting.first()
            && leader.is_some()
            && state.waiting.len() >= FEW
        {
            let waited = now.saturating_duration_since((*oldest).max(state.leader.1));
            if waited > self.limit {
                return Err(waited);
            }
        }
        state.count += 1;
        let ticket = (now, state.count);
        state.waiting.insert(ticket);
        Ok(Admitted { admission: self.clone(), ticket })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.state().waiting.remove(&self.ticket);
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod races;

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(4);
    const LONG: Duration = Duration::from_millis(1_001);
    const LEADER: Option<NodeId> = Some(NodeId(2));

    fn many(admission: &Arc<Admission>, now: Instant, leader: Option<NodeId>) -> Vec<Admitted> {
        (0..FEW).map(|_| admission.admit_at(now, leader).ok().unwrap()).collect()
    }

    #[test]
    fn none_is_taken_in_while_the_oldest_of_many_has_waited_for_long() {
        let (admission, start) = (Admission::new(PATIENCE), Instant::now());
        let mut waiting = many(&admission, start, LEADER);
        assert!(admission.admit_at(start, LEADER).is_ok(), "they have not waited at all");
        let later = start + LONG;
        assert_eq!(admission.admit_at(later, LEADER).err(), Some(LONG));
        // One of few is taken in, however long the others have waited.
        let last = waiting.pop();
        drop(last);
        assert!(admission.admit_at(later, LEADER).is_ok());
        waiting.extend(admission.admit_at(later, LEADER));
        assert_eq!(admission.admit_at(later, LEADER).err(), Some(LONG));
        waiting.clear();
        assert!(admission.admit_at(later, LEADER).is_ok());
        assert!(admission.state().waiting.is_empty());
    }

    #[test]
    fn what_was_waited_for_a_leader_does_not_count() {
        let (admission, start) = (Admission::new(PATIENCE), Instant::now());
        let _waiting = many(&admission, start, None);
        assert!(admission.admit_at(start + LONG, None).is_ok(), "nobody leads");
        assert!(admission.admit_at(start + LONG, LEADER).is_ok(), "somebody has only just begun to");
        assert_eq!(admission.admit_at(start + 2 * LONG, LEADER).err(), Some(LONG));
        let another = Some(NodeId(3));
        assert!(admission.admit_at(start + 2 * LONG, another).is_ok(), "another one has only just begun to");
    }
}
