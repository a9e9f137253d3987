//! One group of a journal, in memory.

use quorate_core::{
    Few, HardState, Incarnation, Index, Load, Loaded, LogId, Rebase, Recovered, Run, Snapshot, TermStart,
    Write,
};

use super::{Bug, Error, format::Change, refused, snapshots::Shelf};

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) incarnation: Incarnation,
    pub(crate) next: u64,
    pub(crate) hard_state: HardState,
    pub(crate) base: Snapshot,
    /// Above the base, without a gap.
    pub(crate) log: Vec<Run>,
    pub(crate) shelf: Shelf,
}

impl Group {
    pub(crate) fn new(base: Snapshot) -> Self {
        Self {
            incarnation: Incarnation(0),
            next: 0,
            hard_state: HardState::default(),
            base,
            log: Vec::new(),
            shelf: Shelf::default(),
        }
    }

    pub(crate) fn last(&self) -> LogId {
        self.log.last().map_or(self.base.last, Run::last_id)
    }

    pub(crate) fn holds(&self, id: LogId) -> bool {
        let within = |run: &Run| run.term() == id.term && (run.first()..=run.last()).contains(&id.index);
        id == self.base.last || self.log.iter().any(within)
    }

    pub(crate) fn recovered(&self, bug: Option<Bug>) -> Result<Recovered, Error> {
        let fits = |last| self.holds(last) || bug == Some(Bug::NamesForeign);
        let snapshot = self.shelf.newest(fits).cloned();
        if snapshot.is_none() && self.base.last != LogId::ZERO {
            return Err(Error::Damaged("the log begins after an entry, and there is no snapshot"));
        }
        let mut terms: Vec<TermStart> = Vec::new();
        for run in &self.log {
            if terms.last().is_none_or(|last| last.term != run.term()) {
                terms.push(TermStart { first: run.first(), term: run.term() });
            }
        }
        Ok(Recovered {
            incarnation: self.incarnation,
            hard_state: self.hard_state,
            base: self.base.last,
            base_membership: self.base.membership.clone(),
            applied: snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index),
            snapshot,
            terms,
            last: self.last().index,
            memberships: self.log.iter().flat_map(Run::memberships).collect(),
        })
    }

    pub(crate) fn write(&mut self, write: &Write, bug: Option<Bug>) -> Result<(), Error> {
        let receipt = write.receipt();
        if receipt.incarnation() != self.incarnation && bug != Some(Bug::StaleIncarnation) {
            return refused("a write of another incarnation");
        }
        if self.next == 0 {
            return refused("a write before the group was recovered");
        }
        let in_order = write.seq().0 == self.next;
        if !in_order && !matches!(bug, Some(Bug::AnyOrder | Bug::StaleIncarnation)) {
            return refused("a write that is not the next");
        }
        self.next = write.seq().0 + 1;
        if let Some(new) = write.hard_state {
            let old = self.hard_state;
            if new.term < old.term && bug != Some(Bug::TermGoesBack) {
                return refused("a term that goes back");
            }
            if new.term == old.term
                && old.vote.is_some()
                && new.vote != old.vote
                && bug != Some(Bug::SecondVote)
            {
                return refused("another vote in the same term");
            }
        }
        match write.rebase.as_deref() {
            Some(Rebase::Compact(base)) => {
                if base.last.index <= self.base.last.index || !self.holds(base.last) {
                    return refused("a log can't begin there");
                }
                let fits = |last| self.holds(last) || bug == Some(Bug::CompactionOnForeign);
                let there = self.shelf.newest(fits).is_some_and(|it| it.last.index >= base.last.index);
                if !there && bug != Some(Bug::CompactionUnguarded) {
                    return refused("no snapshot takes its place");
                }
            }
            Some(Rebase::Install(snapshot)) => {
                if snapshot.last.index <= self.base.last.index {
                    return refused("a log can't begin earlier");
                }
                if !self.shelf.has(snapshot.last) && bug != Some(Bug::InstallationUnguarded) {
                    return refused("the snapshot is not there");
                }
            }
            None => {}
        }
        let mut change = Change {
            group: receipt.group(),
            hard_state: write.hard_state,
            rebase: write.rebase.as_deref().cloned(),
            truncate: None,
            entries: Vec::new(),
        };
        self.apply(change, bug);
        if write.truncate.is_some_and(|at| at <= self.base.last.index) {
            return refused("a truncation below the base");
        }
        change = Change {
            group: receipt.group(),
            hard_state: None,
            rebase: None,
            truncate: write.truncate,
            entries: Vec::new(),
        };
        self.apply(change, bug);
        for run in &write.entries {
            let last = self.last();
            if run.first() != last.index.next() && bug != Some(Bug::Gap) {
                return refused("entries that don't follow");
            }
            if run.term() < last.term && bug != Some(Bug::TermsDecrease) {
                return refused("terms that decrease");
            }
            self.log.push(run.clone());
        }
        Ok(())
    }

    /// Does what was found to be right before.
    pub(crate) fn apply(&mut self, change: Change, bug: Option<Bug>) {
        if let Some(hard_state) = change.hard_state {
            self.hard_state = hard_state;
        }
        match change.rebase {
            Some(Rebase::Compact(mut base)) => {
                let from = base.last.index.next();
                self.log = self.log.iter().filter_map(|run| run.starting_at(from)).collect();
                if bug == Some(Bug::CompactionTakesBatch) && self.log.len() > 1 {
                    self.log.remove(0);
                }
                if bug == Some(Bug::MembershipAtBaseLost) {
                    base.membership = self.base.membership.clone();
                }
                self.base = base;
            }
            Some(Rebase::Install(snapshot)) => {
                self.log.clear();
                self.base = snapshot;
            }
            None => {}
        }
        if let Some(at) = change.truncate {
            self.log = self
                .log
                .iter()
                .filter_map(|run| {
                    let head = run.ending_before(at);
                    if bug == Some(Bug::StaleTail) { head.map(|_| run.clone()) } else { head }
                })
                .collect();
        }
        self.log.extend(change.entries);
    }

    pub(crate) fn load(&self, load: &Load, bug: Option<Bug>) -> Loaded {
        let mut first = load.first;
        if first <= self.base.last.index {
            if bug != Some(Bug::LoadFromBase) {
                return Loaded::Compacted;
            }
            first = self.base.last.index.next();
        }
        let mut entries = Few::new();
        let mut left = if bug == Some(Bug::LoadUnbounded) { usize::MAX } else { load.max_bytes };
        for run in &self.log {
            if run.last() < first || run.first() > load.last {
                continue;
            }
            let wanted = run.starting_at(first).and_then(|run| run.ending_before(load.last.next()));
            let Some(wanted) = wanted else { break };
            let part = wanted.within(left);
            if part.bytes() > left && (!entries.is_empty() || bug == Some(Bug::LoadNothing)) {
                break;
            }
            left = left.saturating_sub(part.bytes());
            let whole = part.last() == wanted.last();
            entries.push(part);
            if !whole {
                break;
            }
        }
        Loaded::Entries(entries)
    }
}
