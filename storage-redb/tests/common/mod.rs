//! What the tests share: writes from thin air, a model of what a store holds, a PRNG, a medium with faults.

#![allow(dead_code, unreachable_pub)]

pub mod faults;

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::{
    EntryKind, GroupId, HardState, Incarnation, Index, Load, LoadId, Loaded, LogId, LogReader, Membership,
    NodeId, Rebase, Recovered, Run, Snapshot, Store, Term, TermStart, Write,
};
use quorate_storage_redb::{Identity, RedbStore};

pub const IDENTITY: Identity =
    Identity { cluster: 0x5EED_0000_0000_0000_0000_0000_0000_0001, node: NodeId(3) };

/// An empty write; its public fields are filled in by the caller.
pub fn write(group: GroupId, incarnation: Incarnation, seq: u64) -> Write {
    serde_json::from_value(serde_json::json!({
        "hard_state": null,
        "rebase": null,
        "truncate": null,
        "entries": [],
        "receipt": { "group": group, "incarnation": incarnation, "first": seq, "last": seq },
    }))
    .unwrap()
}

pub fn voters(ids: &[u64]) -> Membership {
    Membership::of_voters(ids.iter().copied().map(NodeId))
}

/// A small PRNG (splitmix64), so that every run is the same.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a store should hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    pub groups: BTreeMap<GroupId, ModelGroup>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelGroup {
    pub incarnation: Incarnation,
    pub next: u64,
    pub hard_state: HardState,
    pub base: LogId,
    pub base_membership: Membership,
    /// What is above `base`.
    pub log: Vec<(Term, EntryKind, Bytes)>,
}

impl ModelGroup {
    fn fresh(membership: &Membership) -> Self {
        Self {
            incarnation: Incarnation(0),
            next: 0,
            hard_state: HardState::default(),
            base: LogId::ZERO,
            base_membership: membership.clone(),
            log: Vec::new(),
        }
    }

    pub fn last(&self) -> LogId {
        self.id(self.log.len() as u64)
    }

    /// The entry so far above the base.
    fn id(&self, above: u64) -> LogId {
        let entry = above.checked_sub(1).map(|at| &self.log[at as usize]);
        LogId::new(entry.map_or(self.base.term, |entry| entry.0), self.base.index.plus(above))
    }

    fn terms(&self) -> Vec<TermStart> {
        let mut terms: Vec<TermStart> = Vec::new();
        for above in 1..=self.log.len() as u64 {
            let LogId { term, index } = self.id(above);
            if terms.last().is_none_or(|start| start.term != term) {
                terms.push(TermStart { first: index, term });
            }
        }
        terms
    }

    fn memberships(&self) -> Vec<(Index, Membership)> {
        let entries = (1..).zip(&self.log).filter(|(_, entry)| entry.1 == EntryKind::Membership);
        entries.map(|(above, entry)| (self.id(above).index, Membership::decode(&entry.2).unwrap())).collect()
    }

    /// The membership in force so far above the base.
    fn membership_at(&self, above: u64) -> Membership {
        let at = self.id(above).index;
        let newest = self.memberships().into_iter().rev().find(|(index, _)| *index <= at);
        newest.map_or_else(|| self.base_membership.clone(), |(_, membership)| membership)
    }
}

/// One thing to do, in terms that make sense whatever the log holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Appends commands of these sizes, in a term this much higher.
    Append { newer: u64, sizes: Vec<usize> },
    /// Appends a membership.
    Membership { voters: u64 },
    /// Truncates so many entries from the end, and appends one.
    Replace { back: u64, sizes: Vec<usize> },
    /// Truncates so many entries from the end.
    Truncate { back: u64 },
    /// Compacts all but so many entries; with what is left it appends, if that is not none.
    Compact { keep: u64, sizes: Vec<usize> },
    /// Installs a snapshot that ends so far above the base, with so many voters, and in a new term or not.
    Install { ahead: u64, newer: u64, voters: u64 },
    /// A new term, with a vote or not.
    Vote { newer: u64, vote: Option<u64> },
}

impl Change {
    pub fn random(rng: &mut Rng) -> Self {
        let size = |rng: &mut Rng| match rng.below(10) {
            0 => 0,
            1..=6 => rng.below(300) as usize,
            7 | 8 => rng.below(5_000) as usize,
            _ => rng.below(90_000) as usize,
        };
        let sizes = |rng: &mut Rng| (0..=rng.below(4)).map(|_| size(rng)).collect();
        match rng.below(13) {
            10 | 11 => Self::Compact {
                keep: rng.below(6),
                sizes: if rng.chance(20) { sizes(rng) } else { Vec::new() },
            },
            12 => Self::Install { ahead: 1 + rng.below(12), newer: rng.below(2), voters: 1 + rng.below(5) },
            0..=4 => Self::Append { newer: rng.below(2), sizes: sizes(rng) },
            5 => Self::Membership { voters: 1 + rng.below(5) },
            6 => Self::Replace { back: rng.below(8), sizes: sizes(rng) },
            7 => Self::Truncate { back: rng.below(4) },
            _ => {
                let vote = rng.chance(70).then(|| 1 + rng.below(3));
                Self::Vote { newer: 1 + rng.below(2), vote }
            }
        }
    }
}

impl Model {
    pub fn new(groups: &[(GroupId, Membership)]) -> Self {
        let groups = groups.iter().map(|(id, membership)| (*id, ModelGroup::fresh(membership))).collect();
        Self { groups }
    }

    pub fn add(&mut self, group: GroupId, membership: &Membership) {
        assert!(self.groups.insert(group, ModelGroup::fresh(membership)).is_none());
    }

    /// Makes the write of a change, and makes the change here too.
    pub fn write(&mut self, id: GroupId, change: &Change) -> Write {
        let group = self.groups.get_mut(&id).unwrap();
        let mut made = write(id, group.incarnation, group.next);
        group.next += 1;
        let count = group.log.len() as u64;
        let tag = format!("{id}/{}/{}/", group.incarnation, group.next);
        match change {
            Change::Append { newer, sizes } => {
                let run = group.append(*newer, sizes, &tag);
                made.entries.push(run);
                if *newer > 0 {
                    let hard_state = HardState { term: group.last().term, vote: Some(NodeId(3)) };
                    group.hard_state = hard_state;
                    made.hard_state = Some(hard_state);
                }
            }
            Change::Membership { voters: n } => {
                let membership = voters(&(1..=*n).collect::<Vec<_>>());
                let term = group.term();
                made.entries.push(Run::membership(term, group.last().index.next(), &membership));
                group.log.push((term, EntryKind::Membership, membership.encode()));
            }
            Change::Replace { back, sizes } => {
                let keep = count.saturating_sub(*back);
                group.log.truncate(keep as usize);
                made.truncate = Some(group.last().index.next());
                let run = group.append(1, sizes, &tag);
                made.entries.push(run);
                let hard_state = HardState { term: group.last().term, vote: None };
                group.hard_state = hard_state;
                made.hard_state = Some(hard_state);
            }
            Change::Truncate { back } => {
                let keep = count.saturating_sub(*back);
                group.log.truncate(keep as usize);
                made.truncate = Some(group.last().index.next());
            }
            Change::Compact { keep, sizes } => {
                let gone = count.saturating_sub(*keep);
                if gone > 0 {
                    let base = Snapshot { last: group.id(gone), membership: group.membership_at(gone) };
                    group.base = base.last;
                    group.base_membership = base.membership.clone();
                    group.log.drain(..gone as usize);
                    made.rebase = Some(Box::new(Rebase::Compact(base)));
                }
                if !sizes.is_empty() {
                    made.entries.push(group.append(0, sizes, &tag));
                }
            }
            Change::Install { ahead, newer, voters: n } => {
                let term = Term(group.term().0 + newer);
                let last = LogId::new(term, group.base.index.plus(*ahead));
                let membership = voters(&(1..=*n).collect::<Vec<_>>());
                group.base = last;
                group.base_membership = membership.clone();
                group.log.clear();
                group.hard_state = HardState { term, vote: group.vote_in(term) };
                made.hard_state = Some(group.hard_state);
                made.rebase = Some(Box::new(Rebase::Install(Snapshot { last, membership })));
            }
            Change::Vote { newer, vote } => {
                let term = Term(group.term().0 + newer.max(&1));
                group.hard_state = HardState { term, vote: vote.map(NodeId) };
                made.hard_state = Some(group.hard_state);
            }
        }
        made
    }

    /// Recovers every group of `store` and compares all there is with this. The incarnations move on, here too.
    pub fn check(&mut self, store: &mut RedbStore) -> Result<(), String> {
        let here: Vec<GroupId> = self.groups.keys().copied().collect();
        if store.groups().collect::<Vec<_>>() != here {
            return Err(format!("groups {:?}, expected {here:?}", store.groups().collect::<Vec<_>>()));
        }
        for id in here {
            let group = self.groups.get_mut(&id).unwrap();
            group.incarnation.0 += 1;
            group.next = 1;
            let expected = Recovered {
                incarnation: group.incarnation,
                hard_state: group.hard_state,
                base: group.base,
                base_membership: group.base_membership.clone(),
                snapshot: (group.base != LogId::ZERO).then(|| group.snapshot()),
                terms: group.terms(),
                last: group.last().index,
                memberships: group.memberships(),
                applied: group.base.index,
            };
            let found = store.recover(id).map_err(|error| error.to_string())?;
            if found != expected {
                return Err(format!("group {id}: found {found:?}, expected {expected:?}"));
            }
            let log = read_log(store, id, found.base.index, found.last)?;
            if log != group.log {
                return Err(format!("group {id}: other entries than expected"));
            }
        }
        Ok(())
    }
}

impl ModelGroup {
    /// What the store knows of the newest snapshot.
    fn snapshot(&self) -> Snapshot {
        Snapshot { last: self.base, membership: self.base_membership.clone() }
    }

    fn vote_in(&self, term: Term) -> Option<NodeId> {
        self.hard_state.vote.filter(|_| self.hard_state.term == term)
    }

    fn term(&self) -> Term {
        self.hard_state.term.max(self.last().term).max(Term(1))
    }

    fn append(&mut self, newer: u64, sizes: &[usize], tag: &str) -> Run {
        let term = Term(self.term().0 + newer);
        let first = self.last().index.next();
        let commands: Vec<Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(n, size)| format!("{tag}{n};").bytes().cycle().take(*size).collect())
            .collect();
        self.log.extend(
            commands.iter().map(|command| (term, EntryKind::Command, Bytes::copy_from_slice(command))),
        );
        Run::commands(term, first, &commands).unwrap()
    }
}

/// The whole log above `base`, read through a reader with loads of a few sizes; and nothing is there up to `base`.
pub fn read_log(
    store: &RedbStore,
    group: GroupId,
    base: Index,
    last: Index,
) -> Result<Vec<(Term, EntryKind, Bytes)>, String> {
    let reader = store.reader();
    for first in [base, base.prev()] {
        let load = Load { id: LoadId::default(), first, last, max_bytes: 1 };
        let found = reader.load(group, &load).map_err(|error| error.to_string())?;
        if found != Loaded::Compacted {
            return Err(format!("{first} is there, but the log begins after {base}"));
        }
    }
    let mut log = Vec::new();
    let mut next = base.next();
    let mut max_bytes = 1;
    while next <= last {
        let load = Load { id: LoadId::default(), first: next, last, max_bytes };
        max_bytes = (max_bytes * 31) % 200_003;
        let Loaded::Entries(runs) = reader.load(group, &load).map_err(|error| error.to_string())? else {
            return Err(format!("{next} is said to be compacted"));
        };
        let bytes: usize = runs.iter().map(Run::bytes).sum();
        let count: u64 = runs.iter().map(Run::count).sum();
        if count == 0 || (count > 1 && bytes > load.max_bytes) {
            return Err(format!("{count} entries of {bytes} bytes for {load:?}"));
        }
        for run in &runs {
            if run.first() != next {
                return Err(format!("a run at {} where {next} was next", run.first()));
            }
            next = run.last().next();
            log.extend(run.entries().map(|entry| (entry.id.term, entry.kind, entry.payload)));
        }
    }
    Ok(log)
}
