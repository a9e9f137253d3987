//! A log as one node's recording shows it: the term of each entry, and who is in the cluster where. Of what the store had
//! recovered no more is known.

use std::sync::Arc;

use quorate_core::{LogId, Membership, Rebase, Recovered, Term, TermStart, Write};

use crate::violation::{Verdict, hold};

/// A log. Two are compared by terms alone: that the same index and term is the same entry is checked elsewhere
/// (`known.rs`, S4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Log {
    base: LogId,
    /// For every term above the base, in order, the first index that has it.
    starts: Vec<TermStart>,
    last: u64,
    /// Since which index each was in force; the first is the one at the base.
    memberships: Vec<(u64, Arc<Membership>)>,
}

impl Log {
    pub(super) fn of(recovered: &Recovered) -> Self {
        let first = (recovered.base.index.0, Arc::new(recovered.base_membership.clone()));
        let others =
            recovered.memberships.iter().map(|(at, membership)| (at.0, Arc::new(membership.clone())));
        Self {
            base: recovered.base,
            starts: recovered.terms.clone(),
            last: recovered.last.0,
            memberships: std::iter::once(first).chain(others).collect(),
        }
    }

    pub(super) const fn base(&self) -> u64 {
        self.base.index.0
    }

    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// The term of the entry at `index`, the base's included.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base() {
            return Some(self.base.term.0);
        }
        let after = self.starts.partition_point(|start| start.first.0 <= index);
        let start = self.starts.get(after.checked_sub(1)?)?;
        (index <= self.last).then_some(start.term.0)
    }

    /// The ranges of one term each between `after` and `up_to`, the latter included: first, last, term.
    pub(super) fn terms(&self, after: u64, up_to: u64) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let (after, up_to) = (after.max(self.base()), up_to.min(self.last));
        self.starts.iter().enumerate().filter_map(move |(k, start)| {
            let end = self.starts.get(k + 1).map_or(self.last, |next| next.first.0 - 1).min(up_to);
            let first = start.first.0.max(after + 1);
            (first <= end).then_some((first, end, start.term.0))
        })
    }

    /// Do both hold the same up to `index`? What a snapshot has replaced was committed, and is no matter of this.
    pub(super) fn agrees(&self, other: &Self, index: u64) -> bool {
        if index > self.last || index > other.last {
            return false;
        }
        index < self.base() || index < other.base() || self.term_at(index) == other.term_at(index)
    }

    /// The latest membership, and since when.
    pub(super) fn membership(&self) -> (u64, &Arc<Membership>) {
        self.membership_at(u64::MAX)
    }

    pub(super) fn membership_at(&self, index: u64) -> (u64, &Arc<Membership>) {
        let at = self.memberships.partition_point(|(since, _)| *since <= index).max(1) - 1;
        let (since, membership) = &self.memberships[at];
        (*since, membership)
    }

    /// The memberships whose entries lie after `index`.
    pub(super) fn memberships_after(&self, index: u64) -> &[(u64, Arc<Membership>)] {
        &self.memberships[self.memberships.partition_point(|(since, _)| *since <= index)..]
    }

    /// Does a write.
    pub(super) fn change(&mut self, write: &Write) -> Verdict {
        match write.rebase.as_deref() {
            Some(Rebase::Compact(snapshot)) => self.compact(snapshot.last)?,
            Some(Rebase::Install(snapshot)) => {
                self.base = snapshot.last;
                self.last = snapshot.last.index.0;
                self.starts.clear();
                self.memberships = vec![(self.last, Arc::new(snapshot.membership.clone()))];
            }
            None => {}
        }
        if let Some(from) = write.truncate {
            hold!(from.0 > self.base(), "S9", "a write truncates at {from}, where a snapshot is");
            self.last = self.last.min(from.0 - 1);
            self.starts.retain(|start| start.first < from);
            self.memberships.retain(|(since, _)| *since < from.0);
        }
        for run in &write.entries {
            hold!(run.first().0 == self.last + 1, "S9", "a write leaves a gap before {}", run.first());
            let before = self.starts.last().map_or(self.base.term, |start| start.term);
            hold!(before <= run.term(), "S9", "terms decrease at {}", run.first());
            if before != run.term() || self.starts.is_empty() {
                self.starts.push(TermStart { first: run.first(), term: run.term() });
            }
            self.last = run.last().0;
            let memberships = run.memberships().map(|(at, membership)| (at.0, Arc::new(membership)));
            self.memberships.extend(memberships);
        }
        Ok(())
    }

    fn compact(&mut self, to: LogId) -> Verdict {
        let (first, last, index) = (self.base(), self.last, to.index.0);
        hold!((first..=last).contains(&index), "P3", "a log of {first} to {last} is compacted up to {index}");
        let kept = self.memberships.partition_point(|(since, _)| *since <= index).max(1) - 1;
        self.memberships.drain(..kept);
        self.memberships[0].0 = index;
        let term = self.term_at(index + 1);
        self.base = to;
        self.starts.retain(|start| start.first > to.index.next());
        if let Some(term) = term {
            self.starts.insert(0, TermStart { first: to.index.next(), term: Term(term) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::{Incarnation, Index, NodeId};

    fn log() -> Log {
        let mut recovered = Recovered::fresh(Incarnation(1), Membership::of_voters([NodeId(1)]));
        let start = |first, term| TermStart { first: Index(first), term: Term(term) };
        recovered.terms = vec![start(1, 1), start(4, 2), start(6, 5)];
        recovered.last = Index(9);
        Log::of(&recovered)
    }

    #[test]
    fn knows_the_term_of_each_entry() {
        let mut log = log();
        let terms: Vec<_> = (0..=10).map(|index| log.term_at(index)).collect();
        let of = |term| Some(term);
        let expected = [0, 1, 1, 1, 2, 2, 5, 5, 5, 5].map(of);
        assert_eq!((&terms[..10], terms[10]), (&expected[..], None));
        assert_eq!(log.terms(2, 7).collect::<Vec<_>>(), [(3, 3, 1), (4, 5, 2), (6, 7, 5)]);
        log.compact(LogId::new(Term(2), Index(4))).unwrap();
        assert_eq!((log.term_at(3), log.term_at(4), log.term_at(5)), (None, of(2), of(2)));
        assert_eq!(log.starts[0], TermStart { first: Index(5), term: Term(2) });
        log.compact(LogId::new(Term(5), Index(9))).unwrap();
        assert_eq!((log.starts.len(), log.last(), log.base()), (0, 9, 9));
        assert!(log.compact(LogId::new(Term(5), Index(10))).is_err());
    }
}
