//! A log as the specification sees it, and as an export shows it: whole, though a node may have forgotten its beginning.

use quorate_core::{EntryKind, Membership, Run};
use tla_eval::Value;

use super::value::{int, members_value, record};
use crate::digest::Digest;

/// The terms of all entries from the first on, and what tells their contents apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Log {
    /// Up to here it is a snapshot's, as far as the specification is told.
    pub(super) base: u64,
    pub(super) terms: Vec<u64>,
    pub(super) hashes: Vec<u64>,
    /// The memberships that are known: since which index each.
    pub(super) members: Vec<(u64, Membership)>,
}

impl Log {
    pub(super) fn new(membership: Membership) -> Self {
        Self { base: 0, terms: Vec::new(), hashes: Vec::new(), members: vec![(0, membership)] }
    }

    pub(super) const fn last(&self) -> u64 {
        self.terms.len() as u64
    }

    /// The term at `index`, below the base as well; 0 if there is no such entry.
    pub(super) fn term_at(&self, index: u64) -> u64 {
        index.checked_sub(1).and_then(|at| self.terms.get(at as usize)).copied().unwrap_or(0)
    }

    /// Is this entry, or a snapshot with it, here?
    pub(super) fn has(&self, index: u64, term: u64) -> bool {
        index < self.base || index <= self.last() && self.term_at(index) == term
    }

    /// The membership in force.
    pub(super) fn membership(&self) -> Option<&Membership> {
        self.members.last().map(|(_, membership)| membership)
    }

    pub(super) fn truncate(&mut self, from: u64) {
        self.terms.truncate(from.saturating_sub(1) as usize);
        self.hashes.truncate(self.terms.len());
        self.members.retain(|(at, _)| *at < from);
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        self.terms.push(entry.term);
        self.hashes.push(entry.hash);
        let at = self.last();
        self.members.extend(entry.membership.clone().map(|membership| (at, membership)));
    }

    /// What is committed is not shown to the specification any more.
    pub(super) const fn compact(&mut self, base: u64) {
        self.base = base;
    }

    /// A snapshot takes its place. What is in it is known from another log.
    pub(super) fn install(&mut self, index: u64, term: u64, membership: Membership, other: Option<&Self>) {
        let at = index as usize;
        self.terms = other.map_or_else(Vec::new, |log| log.terms[..at].to_vec());
        self.hashes = other.map_or_else(Vec::new, |log| log.hashes[..at].to_vec());
        self.terms.resize(at, term);
        self.hashes.resize(at, 0);
        self.members = vec![(index, membership)];
        self.base = index;
    }

    pub(super) fn value(&self) -> Value {
        let terms = self.terms[(self.base as usize).min(self.terms.len())..].iter();
        record([
            ("base", int(self.base)),
            ("baseTerm", int(self.term_at(self.base))),
            ("terms", Value::Seq(terms.map(|term| int(*term)).collect())),
            ("members", members_value(self.members.iter().map(|(at, membership)| (*at, membership)))),
        ])
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) hash: u64,
    pub(super) membership: Option<Membership>,
}

/// The entries of a run, one by one.
pub(super) fn entries_of(run: &Run) -> impl Iterator<Item = Entry> + '_ {
    run.entries().map(|entry| {
        let membership =
            (entry.kind == EntryKind::Membership).then(|| Membership::decode(&entry.payload).ok());
        let hash = Digest::of(&entry.payload) ^ entry.kind as u64;
        Entry { term: entry.id.term.0, hash, membership: membership.flatten() }
    })
}
