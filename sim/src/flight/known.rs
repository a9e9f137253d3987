//! What all the recordings together show of the cluster: nothing here depends on which of two things that were seen on
//! different nodes came first.

use std::collections::BTreeMap;

use quorate_core::{
    Apply, EntryKind, Run,
    recording::{Digest, Payloads},
};

use super::log::Log;
use crate::violation::{Verdict, hold};

/// An entry, as far as it is known.
#[derive(Clone, Copy, Debug)]
struct Fact {
    /// The term of the entry before it; `None` if nobody has told.
    before: Option<u64>,
    content: u64,
}

#[derive(Default, Debug)]
pub(super) struct Known {
    pub(super) contents: Contents,
    /// By index and term: Log Matching says that each is there once (S4).
    entries: BTreeMap<(u64, u64), Fact>,
    /// `C`: which term's entries are committed, in ranges: first, last, term.
    committed: Vec<(u64, u64, u64)>,
    /// Whom each node voted for in each term, over all its lives.
    votes: BTreeMap<(u64, u64), u64>,
    /// Who led each term, and the log that it began with.
    leaders: BTreeMap<u64, (u64, Log)>,
    /// Up to which index each term's leader has committed.
    decided: BTreeMap<u64, u64>,
}

impl Known {
    pub(super) fn new(contents: Contents) -> Self {
        Self { contents, ..Self::default() }
    }

    /// The end of what is known to be committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed.last().map_or(0, |(_, last, _)| *last)
    }

    pub(super) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// A node has voted (S2).
    pub(super) fn note_vote(&mut self, node: u64, term: u64, candidate: u64) -> Verdict {
        let before = *self.votes.entry((node, term)).or_insert(candidate);
        hold!(before == candidate, "S2", "in term {term} node {node} votes for {before} and {candidate}");
        Ok(())
    }

    /// Entries that a node has, after one of term `before` if that is known (S4).
    pub(super) fn note_run(&mut self, node: u64, before: Option<u64>, run: &Run) -> Verdict {
        let term = run.term().0;
        let mut before = before;
        for (index, entry) in (run.first().0..).zip(run.iter()) {
            let content = self.contents.of(entry.kind, entry.payload);
            let fact = self.entries.entry((index, term)).or_insert(Fact { before, content });
            let follows = before.is_none() || fact.before.is_none() || fact.before == before;
            hold!(
                fact.content == content && follows,
                "S4",
                "node {node} has an entry {index} of term {term} that differs from another's, or follows other entries"
            );
            fact.before = fact.before.or(before);
            before = Some(term);
        }
        Ok(())
    }

    /// What the entry at `index`, of this term, is: if anybody has shown it.
    pub(super) fn content(&self, index: u64, term: u64) -> Option<u64> {
        self.entries.get(&(index, term)).map(|fact| fact.content)
    }

    /// What a node takes for committed, between `after` and `up_to`, is the same everywhere (S6).
    pub(super) fn note_commit(&mut self, node: u64, log: &Log, after: u64, up_to: u64) -> Verdict {
        for (first, last, term) in log.terms(after, up_to) {
            let differs = |(f, l, t): &&(u64, u64, u64)| *f <= last && first <= *l && *t != term;
            if let Some((f, _, other)) = self.committed.iter().find(differs) {
                let index = first.max(*f);
                hold!(
                    false,
                    "S6",
                    "node {node} takes its entry {index} of term {term} for committed, but that of term {other} is"
                );
            }
            let (mut first, mut last) = (first, last);
            self.committed.retain(|(f, l, t)| {
                let apart = *t != term || *f > last + 1 || first > *l + 1;
                if !apart {
                    (first, last) = (first.min(*f), last.max(*l));
                }
                apart
            });
            let at = self.committed.partition_point(|(f, ..)| *f < first);
            self.committed.insert(at, (first, last, term));
        }
        Ok(())
    }

    /// The term of the committed entry at `index`, if that is known.
    pub(super) fn committed_term(&self, index: u64) -> Option<u64> {
        self.committed
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&index))
            .map(|(.., term)| *term)
    }

    /// What is applied is what is known to be there.
    pub(super) fn check_applied(&mut self, node: u64, log: &Log, apply: &Apply) -> Verdict {
        for run in &apply.entries {
            for (index, _) in (run.first().0..).zip(run.iter()) {
                hold!(
                    log.term_at(index) == Some(run.term().0),
                    "S6",
                    "node {node} applies an entry {index} of term {}, which is not in its log",
                    run.term()
                );
            }
            self.note_run(node, None, run)?;
        }
        Ok(())
    }

    /// A node leads: one a term (S1), with everything that was committed in earlier ones (S5).
    pub(super) fn note_leader(&mut self, node: u64, term: u64, log: &Log) -> Verdict {
        let (first, _) = self.leaders.entry(term).or_insert_with(|| (node, log.clone()));
        hold!(*first == node, "S1", "nodes {first} and {node} both lead term {term}");
        let earlier = self.decided.range(..term).map(|(_, index)| *index).max().unwrap_or(0);
        self.check_complete(node, term, log, earlier)
    }

    /// The leader of `term` has committed all up to `index`.
    pub(super) fn note_decided(&mut self, term: u64, index: u64) -> Verdict {
        let most = self.decided.entry(term).or_insert(0);
        *most = index.max(*most);
        let mut later = self.leaders.range(term + 1..);
        later.try_for_each(|(later, (node, log))| self.check_complete(*node, *later, log, index))
    }

    fn check_complete(&self, node: u64, term: u64, log: &Log, index: u64) -> Verdict {
        let has = index < log.base() || log.term_at(index) == self.committed_term(index) || index == 0;
        hold!(
            has,
            "S5",
            "node {node} leads term {term} without entry {index}, which was committed in an earlier one"
        );
        Ok(())
    }
}

/// What entries say, as far as it can be compared: if payloads were left out of any of the recordings, by their lengths alone.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Contents(pub(super) Payloads);

impl Contents {
    /// As one number.
    pub(super) fn of(self, kind: EntryKind, payload: &[u8]) -> u64 {
        let mut digest = Digest::default();
        if self.0 == Payloads::LeftOut && kind != EntryKind::Membership {
            digest.add(&(kind as u64, payload.len()));
        } else {
            digest.add(&(kind as u64, payload));
        }
        digest.value()
    }
}
