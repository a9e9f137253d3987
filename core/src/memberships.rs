//! Which membership is in force: the latest in the log, committed or not (paper §6; dissertation 4.1).

use alloc::vec::Vec;

use crate::{Index, Membership};

/// The memberships that the log holds, above the one it begins with.
#[derive(Debug)]
pub(crate) struct Memberships {
    base: (Index, Membership),
    above: Vec<(Index, Membership)>,
}

impl Memberships {
    pub(crate) const fn new(index: Index, base: Membership, above: Vec<(Index, Membership)>) -> Self {
        Self { base: (index, base), above }
    }

    pub(crate) fn current(&self) -> &Membership {
        self.above.last().map_or(&self.base.1, |(_, membership)| membership)
    }

    pub(crate) fn current_entry(&self) -> (Index, &Membership) {
        let (index, membership) = self.above.last().unwrap_or(&self.base);
        (*index, membership)
    }

    /// The one that was in force when the log ended at `index`.
    pub(crate) fn at(&self, index: Index) -> &Membership {
        let newest = self.above.iter().rev().find(|(at, _)| *at <= index);
        newest.map_or(&self.base.1, |(_, membership)| membership)
    }

    /// An entry with a membership was appended.
    pub(crate) fn push(&mut self, index: Index, membership: Membership) {
        self.above.push((index, membership));
    }

    /// The entries at `from` and after are gone, and what they said. True if that changes what is in force.
    pub(crate) fn truncate(&mut self, from: Index) -> bool {
        let before = self.above.len();
        self.above.retain(|(index, _)| *index < from);
        self.above.len() < before
    }

    /// The log begins after `base` now.
    pub(crate) fn compact(&mut self, base: Index) {
        let kept = self.above.partition_point(|(index, _)| *index <= base);
        self.base = self.above.drain(..kept).next_back().unwrap_or_else(|| self.base.clone());
    }

    /// The log begins and ends at `base`.
    pub(crate) fn install(&mut self, base: Index, membership: Membership) {
        *self = Self::new(base, membership, Vec::new());
    }
}
