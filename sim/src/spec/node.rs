//! One node, as far as the specification knows it: followed by what it was seen to do.

use std::collections::{BTreeSet, VecDeque};

use quorate_core::{HardState, Membership, Rebase, RoleKind, Write};
use tla_eval::Value;

use super::{
    judge::Change,
    log::{Log, entries_of},
    value::{int, pair, record, role_value},
};

/// What a disk holds, or will.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) log: Log,
}

impl Image {
    /// After one more write. What a snapshot has in it is known from `whole`.
    pub(super) fn after(&self, write: &Write, whole: &Log) -> Self {
        let mut image = self.clone();
        if let Some(HardState { term, vote }) = write.hard_state {
            (image.term, image.vote) = (term.0, vote.map_or(0, |vote| vote.0));
        }
        if let Some(Rebase::Install(snapshot)) = write.rebase.as_deref() {
            let (last, membership) = (snapshot.last, snapshot.membership.clone());
            image.log.install(
                last.index.0,
                last.term.0,
                membership,
                Some(whole).filter(|log| log.last() >= last.index.0),
            );
        }
        if let Some(from) = write.truncate {
            image.log.truncate(from.0);
        }
        for entry in write.entries.iter().flat_map(entries_of) {
            image.log.push(&entry);
        }
        // How much of it a snapshot has is for the specification to know only.
        if whole.base > image.log.base && whole.base <= image.log.last() {
            image.log.compact(whole.base);
        }
        image
    }

    pub(super) fn value(&self) -> Value {
        record([("term", int(self.term)), ("vote", int(self.vote)), ("log", self.log.value())])
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) role: RoleKind,
    pub(super) log: Log,
    pub(super) commit: u64,
    pub(super) agreed: u64,
    pub(super) votes: BTreeSet<u64>,
    pub(super) round: (u64, u64),
    /// By slot.
    pub(super) matches: Vec<u64>,
    /// For exports: by slot.
    pub(super) nexts: Vec<u64>,
    pub(super) disk: Image,
    /// Writes under way.
    pub(super) queue: VecDeque<Image>,
}

impl Node {
    pub(super) fn new(id: u64, slots: usize, membership: Membership) -> Self {
        let log = Log::new(membership);
        Self {
            id,
            term: 0,
            vote: 0,
            role: RoleKind::Follower,
            disk: Image { term: 0, vote: 0, log: log.clone() },
            log,
            commit: 0,
            agreed: 0,
            votes: BTreeSet::new(),
            round: (0, 0),
            matches: vec![0; slots],
            nexts: vec![1; slots],
            queue: VecDeque::new(),
        }
    }

    /// The newest write's image.
    pub(super) fn issued(&self) -> &Image {
        self.queue.back().unwrap_or(&self.disk)
    }

    /// Is the log durable up to there?
    pub(super) fn is_durable(&self, index: u64) -> bool {
        let disk = &self.disk.log;
        index <= disk.last() && (index < disk.base || disk.term_at(index) == self.log.term_at(index))
    }

    /// So many entries are shown to the specification.
    pub(super) fn shown(&self) -> u64 {
        let logs = self.queue.iter().map(|image| &image.log).chain([&self.log, &self.disk.log]);
        logs.map(|log| log.last().saturating_sub(log.base)).sum()
    }

    /// Its part of a variable.
    pub(super) fn part(&self, variable: &'static str) -> Change {
        let ints = |numbers: &[u64]| Value::Seq(numbers.iter().map(|number| int(*number)).collect());
        let value = match variable {
            "term" => int(self.term),
            "vote" => int(self.vote),
            "role" => role_value(self.role),
            "log" => self.log.value(),
            "commit" => int(self.commit),
            "agreed" => int(self.agreed),
            "votes" => Value::set(self.votes.iter().map(|id| int(*id))),
            "round" => pair(self.round.0, self.round.1),
            "match" => ints(&self.matches),
            "disk" => self.disk.value(),
            _ => Value::Seq(self.queue.iter().map(Image::value).collect()),
        };
        (variable, value)
    }

    pub(super) fn parts<const N: usize>(&self, variables: [&'static str; N]) -> Vec<Change> {
        variables.map(|variable| self.part(variable)).into()
    }
}
