//! The log as the protocol needs it: which term each index has, the recent entries, and what of it is durable.
//!
//! Terms never decrease along the log, so the map from index to term is a short list of places where it changes, and
//! every decision is answered from it: the core never reads storage (paper §5.3).

use alloc::{collections::VecDeque, vec::Vec};

use crate::{Few, Index, LogId, Recovered, Run, Term, TermStart, WriteSeq, backlog::spare, fifo::Fifo};

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Log {
    /// What a snapshot has replaced.
    base: LogId,
    /// Where each term begins, above `base`.
    terms: Vec<TermStart>,
    last: LogId,
    /// The recent entries, without a gap, up to `last`. Whatever is not durable is in here.
    cache: VecDeque<Run>,
    cached_bytes: usize,
    max_cached_bytes: usize,
    /// The parts of the log that are not durable yet, each with the write that makes it so.
    unpersisted: Fifo<Segment>,
    /// Up to here the log is durable, as it is now: an index that was durable with other contents doesn't count.
    durable: Index,
}

/// A part of the log up to `last`, that `seq` writes.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
struct Segment {
    last: Index,
    seq: WriteSeq,
}

/// Recent entries, or the news that they are not in memory.
#[derive(Debug)]
pub(crate) enum Read {
    Cached(Few<Run>),
    NotCached,
}

impl Log {
    pub(crate) fn new(recovered: &Recovered, max_cached_bytes: usize) -> Self {
        let term = recovered.terms.last().map_or(recovered.base.term, |start| start.term);
        Self {
            base: recovered.base,
            terms: recovered.terms.clone(),
            last: LogId::new(term, recovered.last),
            cache: VecDeque::new(),
            cached_bytes: 0,
            max_cached_bytes,
            unpersisted: Fifo::new(),
            durable: recovered.last,
        }
    }

    pub(crate) const fn base(&self) -> LogId {
        self.base
    }

    pub(crate) const fn last(&self) -> LogId {
        self.last
    }

    pub(crate) const fn durable(&self) -> Index {
        self.durable
    }

    #[cfg(feature = "replay")]
    pub(crate) fn terms(&self) -> &[TermStart] {
        &self.terms
    }

    pub(crate) const fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// The term at `index`; `None` below the base and above the end.
    #[inline(always)]
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last.index || index < self.base.index {
            return None;
        }
        if index == self.base.index {
            return Some(self.base.term);
        }
        // Most questions are about the newest term.
        if let Some(newest) = self.terms.last()
            && newest.first <= index
        {
            return Some(newest.term);
        }
        let at = self.terms.partition_point(|start| start.first <= index);
        self.terms.get(at.checked_sub(1)?).map(|start| start.term)
    }

    /// Is the entry in the log, or in the snapshot that it begins with?
    #[inline(always)]
    pub(crate) fn contains(&self, id: LogId) -> bool {
        id == self.last || self.term_at(id.index) == Some(id.term)
    }

    /// The last entry at or before `index` whose term is not above `term`; the base if there is none.
    ///
    /// With it, follower and leader skip a whole term per round trip where their logs differ (paper §5.3).
    pub(crate) fn last_common(&self, index: Index, term: Term) -> LogId {
        let mut end = self.last.index.min(index);
        for start in self.terms.iter().rev() {
            if start.first > end {
                continue;
            }
            if start.term <= term {
                return LogId::new(start.term, end);
            }
            end = start.first.prev();
        }
        self.base
    }

    /// The first index of `first..=last` where this log does not hold `term`; the one after `last` if it does
    /// everywhere. With equal terms at an index, everything before agrees as well (Log Matching, paper §5.3).
    #[inline]
    pub(crate) fn first_difference(&self, first: Index, last: Index, term: Term) -> Index {
        let first = first.max(self.base.index.next());
        if first > last || self.term_at(first) != Some(term) {
            return first;
        }
        let at = self.terms.partition_point(|start| start.first <= first);
        let end = self.terms.get(at).map_or(self.last.index, |next| next.first.prev());
        end.min(last).next()
    }

    /// Appends a run that follows at once, to be made durable by write `seq`.
    #[inline]
    pub(crate) fn append(&mut self, run: Run, seq: WriteSeq) {
        debug_assert_eq!(run.first(), self.last.index.next(), "a gap in the log");
        debug_assert!(run.term() >= self.last.term, "terms never decrease along the log");
        if run.term() != self.last.term || self.terms.is_empty() {
            self.terms.push(TermStart { first: run.first(), term: run.term() });
        }
        self.last = run.last_id();
        let segment = Segment { last: self.last.index, seq };
        if self.unpersisted.last().is_some_and(|newest| newest.seq == seq) {
            self.unpersisted.replace_last(segment);
        } else {
            self.unpersisted.push(segment);
        }
        self.cached_bytes = self.cached_bytes.saturating_add(run.bytes());
        self.cache.push_back(run);
        self.evict();
    }

    /// Removes the entries at `from` and after.
    pub(crate) fn truncate(&mut self, from: Index) {
        let end = from.prev();
        while self.terms.last().is_some_and(|start| start.first >= from) {
            self.terms.pop();
        }
        let term = self.terms.last().map_or(self.base.term, |start| start.term);
        self.last = LogId::new(term, end);
        self.durable = self.durable.min(end);
        while let Some(run) = self.cache.pop_back() {
            self.cached_bytes = self.cached_bytes.saturating_sub(run.bytes());
            if let Some(kept) = run.ending_before(from) {
                self.cached_bytes = self.cached_bytes.saturating_add(kept.bytes());
                self.cache.push_back(kept);
                break;
            }
        }
        while self.unpersisted.last().is_some_and(|segment| segment.last > end) {
            let removed = self.unpersisted.pop_last();
            let before = self.unpersisted.last().map_or(self.durable, |segment| segment.last);
            if let Some(segment) = removed
                && before < end
            {
                self.unpersisted.push(Segment { last: end, ..segment });
            }
        }
    }

    /// The entries up to `base` are gone.
    pub(crate) fn compact(&mut self, base: LogId) {
        self.base = base;
        let first = base.index.next();
        let gone = self.terms.partition_point(|start| start.first <= first).saturating_sub(1);
        self.terms.drain(..gone);
        if self.last.index == base.index {
            self.terms.clear();
        } else if let Some(oldest) = self.terms.first_mut() {
            oldest.first = oldest.first.max(first);
        }
        while self.cache.front().is_some_and(|run| run.last() <= base.index) {
            self.evict_oldest();
        }
    }

    /// A snapshot up to `last` takes the place of everything, with write `seq`. What is committed of it is durable already.
    pub(crate) fn install(&mut self, last: LogId, commit: Index, seq: WriteSeq) {
        self.base = last;
        self.last = last;
        self.terms.clear();
        self.cache.clear();
        self.cached_bytes = 0;
        self.durable = self.durable.min(commit);
        self.unpersisted.clear();
        self.unpersisted.push(Segment { last: last.index, seq });
    }

    /// Everything up to write `seq` is durable. Bound to writes, not to indexes: an index is used again after a
    /// truncation, and the write of what was there before says nothing about what is there now.
    #[inline]
    pub(crate) fn persisted(&mut self, seq: WriteSeq) {
        while let Some(segment) = self.unpersisted.first()
            && segment.seq <= seq
        {
            self.durable = segment.last;
            self.unpersisted.pop_first();
        }
        self.evict();
    }

    /// The write on which the durability of the log up to `index` rests; `None` if it is durable.
    #[inline]
    pub(crate) fn rests_on(&self, index: Index) -> Option<WriteSeq> {
        if index <= self.durable {
            return None;
        }
        let reaches = self.unpersisted.iter().find(|segment| segment.last >= index).copied();
        reaches.or(self.unpersisted.last()).map(|segment| segment.seq)
    }

    /// The entries of `first..=last`, up to `max_bytes` but one at least, if they are in memory.
    #[inline(always)]
    pub(crate) fn read(&self, first: Index, last: Index, max_bytes: usize) -> Read {
        // Nearly always it is the newest run, whole, and nothing is to be cut.
        if let Some(newest) = self.cache.back()
            && newest.first() == first
            && newest.last() <= last
            && newest.bytes() <= max_bytes
        {
            return Read::Cached(Few::one(newest.clone()));
        }
        self.read_parts(first, last, max_bytes)
    }

    fn read_parts(&self, first: Index, last: Index, max_bytes: usize) -> Read {
        let at = match self.cache.back() {
            Some(newest) if newest.first() <= first => self.cache.len().saturating_sub(1),
            Some(_) | None => self.cache.partition_point(|run| run.last() < first),
        };
        if self.cache.get(at).is_none_or(|run| run.first() > first) {
            return Read::NotCached;
        }
        let mut entries = Few::new();
        let mut left = max_bytes;
        for run in self.cache.range(at..) {
            if run.first() > last || !entries.is_empty() && left == 0 {
                break;
            }
            let Some(part) = run.starting_at(first).and_then(|part| part.ending_before(last.next())) else {
                break;
            };
            let whole = part.bytes();
            if !entries.is_empty() && part.within(left).bytes() > left {
                break;
            }
            let part = part.within(left);
            let cut = part.bytes() < whole;
            left = left.saturating_sub(part.bytes());
            entries.push(part);
            if cut {
                break;
            }
        }
        Read::Cached(entries)
    }

    /// Are these entries, read back from storage, the ones of this log from `first` on?
    pub(crate) fn holds(&self, first: Index, entries: &[Run]) -> bool {
        let mut next = first;
        for run in entries {
            if run.first() != next || self.first_difference(next, run.last(), run.term()) <= run.last() {
                return false;
            }
            next = run.last().next();
        }
        next > first
    }

    /// Gives back the room that a burst has taken.
    pub(crate) fn give_back(&mut self) {
        spare(&mut self.cache);
        self.unpersisted.give_back();
    }

    /// Keeps the cache within its bound; what is not durable is never evicted.
    #[inline]
    fn evict(&mut self) {
        while self.cached_bytes > self.max_cached_bytes
            && let Some(oldest) = self.cache.front()
            && oldest.last() <= self.durable
        {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some(run) = self.cache.pop_front() {
            self.cached_bytes = self.cached_bytes.saturating_sub(run.bytes());
        }
    }
}
