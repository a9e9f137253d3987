//! Which membership is in force: the latest in the log, committed or not (paper §6; dissertation 4.1).

use alloc::vec::Vec;
use core::mem::replace;

use crate::{Index, Membership};

/// The memberships that the log holds, and the one it begins with.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Memberships {
    current: (Index, Membership),
    /// Those before it, in order.
    older: Vec<(Index, Membership)>,
}

impl Memberships {
    pub(crate) fn new(index: Index, base: Membership, above: Vec<(Index, Membership)>) -> Self {
        let mut memberships = Self { current: (index, base), older: Vec::new() };
        for (index, membership) in above {
            memberships.push(index, membership);
        }
        memberships
    }

    pub(crate) const fn current(&self) -> &Membership {
        &self.current.1
    }

    pub(crate) const fn current_entry(&self) -> (Index, &Membership) {
        (self.current.0, &self.current.1)
    }

    /// The one that was in force when the log ended at `index`.
    pub(crate) fn at(&self, index: Index) -> &Membership {
        let newest_first = core::iter::once(&self.current).chain(self.older.iter().rev());
        let oldest = self.older.first().unwrap_or(&self.current);
        &newest_first.into_iter().find(|(at, _)| *at <= index).unwrap_or(oldest).1
    }

    /// Those that came after `index`, in order.
    #[cfg(feature = "replay")]
    pub(crate) fn above(&self, index: Index) -> impl Iterator<Item = (Index, &Membership)> {
        let all = self.older.iter().chain(core::iter::once(&self.current));
        all.filter(move |(at, _)| *at > index).map(|(at, membership)| (*at, membership))
    }

    /// An entry with a membership was appended.
    pub(crate) fn push(&mut self, index: Index, membership: Membership) {
        self.older.push(replace(&mut self.current, (index, membership)));
    }

    /// The entries at `from` and after are gone, and what they said. True if that changes what is in force.
    pub(crate) fn truncate(&mut self, from: Index) -> bool {
        let before = self.current.0;
        while self.current.0 >= from
            && let Some(older) = self.older.pop()
        {
            self.current = older;
        }
        self.current.0 != before
    }

    /// The log begins after `base` now: with the last that came up to there.
    pub(crate) fn compact(&mut self, base: Index) {
        if self.current.0 <= base {
            self.older.clear();
        } else {
            let upto = self.older.partition_point(|(index, _)| *index <= base);
            self.older.drain(..upto.saturating_sub(1));
        }
    }

    /// The log begins and ends at `base`.
    pub(crate) fn install(&mut self, base: Index, membership: Membership) {
        *self = Self::new(base, membership, Vec::new());
    }
}
