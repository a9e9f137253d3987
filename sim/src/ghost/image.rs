//! A log as an observer sees it: what each entry is, hashed together with all before it, and who is in the cluster where.

use std::sync::Arc;

use quorate_core::{EntryKind, Membership, Rebase, Run, Write};

use super::requests;
use crate::{
    digest::Digest,
    rng::mix,
    violation::{Verdict, hold},
};

/// An entry, as an observer tells it from others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stone {
    pub(crate) term: u64,
    /// A hash over this entry and all before it: also the state of a machine that has applied just that.
    pub(crate) chain: u64,
    /// The proposal that it carries, or [`requests::NO_TOKEN`].
    pub(crate) token: u64,
}

/// Before the first entry.
const NOTHING: Stone = Stone { term: 0, chain: 0, token: requests::NO_TOKEN };

/// A log: one node's as it was issued, or as it is durable, or the committed one.
#[derive(Clone, Debug)]
pub(super) struct Image {
    base: u64,
    /// The first is the entry at the base, which the log itself has no more.
    stones: Vec<Stone>,
    /// Since which index each was in force; the first is the one at the base.
    memberships: Vec<(u64, Arc<Membership>)>,
}

impl Image {
    /// A log without entries, which begins with this membership.
    pub(super) fn new(membership: Arc<Membership>) -> Self {
        Self { base: 0, stones: vec![NOTHING], memberships: vec![(0, membership)] }
    }

    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    pub(super) const fn last(&self) -> u64 {
        self.base + self.stones.len() as u64 - 1
    }

    /// The entry at `index`, the base's included; `None` below that and above the end.
    pub(super) fn get(&self, index: u64) -> Option<Stone> {
        self.stones.get(index.checked_sub(self.base)? as usize).copied()
    }

    /// The hash over all up to `index`. What lies before the base is committed: `committed` knows it.
    pub(super) fn chain(&self, index: u64, committed: &Self) -> Option<u64> {
        let stone = if index < self.base { committed.get(index) } else { self.get(index) };
        stone.map(|stone| stone.chain)
    }

    /// The latest membership, and since when.
    pub(super) fn membership(&self) -> (u64, &Arc<Membership>) {
        self.membership_at(u64::MAX)
    }

    /// The membership in force when the log ended at `index`.
    pub(super) fn membership_at(&self, index: u64) -> (u64, &Arc<Membership>) {
        let at = self.memberships.partition_point(|(since, _)| *since <= index).max(1) - 1;
        let (since, membership) = &self.memberships[at];
        (*since, membership)
    }

    /// The memberships whose entries lie after `index`.
    pub(super) fn memberships_after(&self, index: u64) -> &[(u64, Arc<Membership>)] {
        &self.memberships[self.memberships.partition_point(|(since, _)| *since <= index)..]
    }

    /// Does a write. A snapshot that takes the place of the log is one of `committed`.
    pub(super) fn change(&mut self, write: &Write, committed: &Self) -> Verdict {
        match write.rebase.as_deref() {
            Some(Rebase::Compact(snapshot)) => self.compact(snapshot.last.index.0)?,
            Some(Rebase::Install(snapshot)) => self.install(snapshot.last.index.0, committed)?,
            None => {}
        }
        if let Some(from) = write.truncate {
            hold!(from.0 > self.base, "S9", "a write truncates at {from}, where a snapshot is");
            self.stones.truncate((from.0 - self.base) as usize);
            let kept = self.memberships.partition_point(|(since, _)| *since < from.0);
            self.memberships.truncate(kept);
        }
        for run in &write.entries {
            hold!(run.first().0 == self.last() + 1, "S9", "a write leaves a gap before {}", run.first());
            self.extend(run);
        }
        Ok(())
    }

    fn compact(&mut self, base: u64) -> Verdict {
        hold!(
            (self.base..=self.last()).contains(&base),
            "P3",
            "a log of {} to {} is compacted up to {base}",
            self.base,
            self.last()
        );
        let kept = self.memberships.partition_point(|(since, _)| *since <= base).max(1) - 1;
        self.memberships.drain(..kept);
        self.stones.drain(..(base - self.base) as usize);
        self.base = base;
        Ok(())
    }

    fn install(&mut self, base: u64, committed: &Self) -> Verdict {
        let stone = committed.get(base);
        hold!(stone.is_some(), "P1", "a snapshot at {base} is installed, but that is not committed");
        self.stones.clear();
        self.stones.extend(stone);
        let (since, membership) = committed.membership_at(base);
        self.memberships = vec![(since, Arc::clone(membership))];
        self.base = base;
        Ok(())
    }

    /// Adds one entry of another log.
    pub(super) fn push(&mut self, stone: Stone, membership: Option<Arc<Membership>>) {
        self.stones.push(stone);
        let index = self.last();
        self.memberships.extend(membership.map(|membership| (index, membership)));
    }

    fn extend(&mut self, run: &Run) {
        let mut chain = self.stones.last().map_or(0, |stone| stone.chain);
        for entry in run.entries() {
            chain = link(chain, entry.id.term.0, entry.kind as u64, &entry.payload);
            self.stones.push(Stone { term: entry.id.term.0, chain, token: requests::token_of(&entry) });
            if entry.kind == EntryKind::Membership
                && let Ok(membership) = Membership::decode(&entry.payload)
            {
                self.memberships.push((entry.id.index.0, Arc::new(membership)));
            }
        }
    }
}

/// The hash after some more entries.
pub(super) fn chain_after<'a>(before: u64, runs: impl Iterator<Item = &'a Run>) -> u64 {
    runs.flat_map(Run::entries)
        .fold(before, |chain, entry| link(chain, entry.id.term.0, entry.kind as u64, &entry.payload))
}

fn link(before: u64, term: u64, kind: u64, payload: &[u8]) -> u64 {
    mix(before.rotate_left(17) ^ mix(term << 2 | kind) ^ Digest::of(payload))
}
