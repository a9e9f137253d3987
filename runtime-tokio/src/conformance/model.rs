//! What a store should hold, and what one was found to hold.

use std::sync::Arc;

use quorate_core::{
    Entry, EntryKind, GroupId, HardState, Incarnation, Index, Load, LoadId, Loaded, LogId, Membership,
    NodeId, Rebase, Recovered, Run, Snapshot, SnapshotInfo, Term, TermStart, Write, WriteSeq,
};

use super::erased::{AnyStore, Trouble};

/// A snapshot with its bytes.
#[derive(Debug)]
pub(super) struct Shot {
    pub(super) info: SnapshotInfo,
    pub(super) bytes: Vec<u8>,
}

/// A transfer that is under way, or was cut short.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    pub(super) shot: Arc<Shot>,
    /// So much must be there, whatever happens.
    pub(super) synced: u64,
    /// So much was staged: no more can be there.
    pub(super) written: u64,
    /// The log has reached it since: nobody needs it, and nothing need be there.
    pub(super) may_go: bool,
}

/// Is a group there?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    NotYet,
    Here,
    Removed,
}

/// What a group should hold.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) presence: Presence,
    pub(super) hard_state: HardState,
    pub(super) base: Snapshot,
    /// What is above the base.
    pub(super) log: Vec<Entry>,
    /// All that were ever published, in order, but for those that another of the same entry has replaced. A store has removed some of them.
    pub(super) published: Vec<Arc<Shot>>,
    pub(super) received: Option<Partial>,
}

/// A write before it has its receipt.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) group: GroupId,
    pub(super) hard_state: Option<HardState>,
    pub(super) rebase: Option<Rebase>,
    pub(super) truncate: Option<Index>,
    pub(super) entries: Vec<Run>,
}

/// What a group was found to hold.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) log: Vec<Run>,
    pub(super) snapshots: Vec<(SnapshotInfo, Vec<u8>)>,
}

pub(super) fn voters(n: u64) -> Membership {
    Membership::of_voters((1..=n.max(1)).map(NodeId))
}

impl Shot {
    pub(super) fn new(snapshot: Snapshot, bytes: Vec<u8>) -> Arc<Self> {
        let checksum = crc32c::crc32c(&bytes);
        Arc::new(Self { info: SnapshotInfo { snapshot, bytes: bytes.len() as u64, checksum }, bytes })
    }

    pub(super) const fn last(&self) -> LogId {
        self.info.snapshot.last
    }
}

impl Spec {
    pub(super) const fn new(group: GroupId) -> Self {
        Self { group, hard_state: None, rebase: None, truncate: None, entries: Vec::new() }
    }

    pub(super) fn mint(&self, incarnation: Incarnation, seq: u64) -> Write {
        let mut write = Write::minted(self.group, incarnation, WriteSeq(seq));
        write.hard_state = self.hard_state;
        write.rebase = self.rebase.clone().map(Box::new);
        write.truncate = self.truncate;
        write.entries = self.entries.iter().cloned().collect();
        write
    }
}

impl Model {
    pub(super) const fn new(membership: Membership) -> Self {
        Self {
            presence: Presence::Here,
            hard_state: HardState { term: Term(0), vote: None },
            base: Snapshot { last: LogId::ZERO, membership },
            log: Vec::new(),
            published: Vec::new(),
            received: None,
        }
    }

    /// One that is not here, any more or yet.
    pub(super) fn absent(presence: Presence) -> Self {
        Self { presence, ..Self::new(voters(1)) }
    }

    pub(super) fn is_here(&self) -> bool {
        self.presence == Presence::Here
    }

    pub(super) fn last(&self) -> LogId {
        self.log.last().map_or(self.base.last, |entry| entry.id)
    }

    /// The entry's name, if the log has one there or begins after it.
    pub(super) fn id_at(&self, index: Index) -> Option<LogId> {
        if index == self.base.last.index {
            return Some(self.base.last);
        }
        let above = index.0.checked_sub(self.base.last.index.0 + 1)?;
        self.log.get(above as usize).map(|entry| entry.id)
    }

    pub(super) fn holds(&self, id: LogId) -> bool {
        self.id_at(id.index) == Some(id)
    }

    pub(super) fn membership_at(&self, index: Index) -> Membership {
        let newest = self.memberships().into_iter().rev().find(|(at, _)| *at <= index);
        newest.map_or_else(|| self.base.membership.clone(), |(_, membership)| membership)
    }

    /// The newest snapshot that the log can rest on: the one that recovery names.
    pub(super) fn newest(&self) -> Option<&Arc<Shot>> {
        self.published.iter().rev().find(|shot| self.holds(shot.last()))
    }

    pub(super) fn apply(&mut self, spec: &Spec) {
        if let Some(hard_state) = spec.hard_state {
            self.hard_state = hard_state;
        }
        match &spec.rebase {
            Some(Rebase::Compact(base)) => {
                self.log.retain(|entry| entry.id.index > base.last.index);
                self.base = base.clone();
            }
            Some(Rebase::Install(snapshot)) => {
                self.log.clear();
                self.base = snapshot.clone();
            }
            None => {}
        }
        if let Some(from) = spec.truncate {
            self.log.retain(|entry| entry.id.index < from);
        }
        self.log.extend(spec.entries.iter().flat_map(Run::entries));
        let last = self.last().index;
        if let Some(partial) = &mut self.received {
            partial.may_go |= partial.shot.last().index <= last;
        }
    }

    pub(super) fn publish(&mut self, shot: Arc<Shot>) {
        self.received.take_if(|partial| partial.shot.last().index <= shot.last().index);
        self.published.retain(|other| other.last() != shot.last());
        self.published.push(shot);
    }

    fn terms(&self) -> Vec<TermStart> {
        let mut terms: Vec<TermStart> = Vec::new();
        for Entry { id: LogId { term, index }, .. } in &self.log {
            if terms.last().is_none_or(|start| start.term != *term) {
                terms.push(TermStart { first: *index, term: *term });
            }
        }
        terms
    }

    fn memberships(&self) -> Vec<(Index, Membership)> {
        let entries = self.log.iter().filter(|entry| entry.kind == EntryKind::Membership);
        let decode = |entry: &Entry| Membership::decode(&entry.payload).expect("it was encoded from one");
        entries.map(|entry| (entry.id.index, decode(entry))).collect()
    }

    /// Is what was found this? If not, what is different.
    pub(super) fn check(&self, found: &Found) -> Result<(), String> {
        self.check_recovered(&found.recovered)?;
        self.check_log(&found.log)?;
        self.check_snapshots(&found.snapshots)
    }

    /// All but the incarnation.
    pub(super) fn check_recovered(&self, found: &Recovered) -> Result<(), String> {
        let snapshot = self.newest().map(|shot| &shot.info.snapshot);
        let differs = |what: &str, found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
            Err(format!("{what}: found {found:?}, expected {expected:?}"))
        };
        if found.hard_state != self.hard_state {
            return differs("hard state", &found.hard_state, &self.hard_state);
        }
        if found.base != self.base.last {
            return differs("base", &found.base, &self.base.last);
        }
        if found.base_membership != self.base.membership {
            return differs("membership at the base", &found.base_membership, &self.base.membership);
        }
        if found.last != self.last().index {
            return differs("end of the log", &found.last, &self.last().index);
        }
        if found.terms != self.terms() {
            return differs("terms", &found.terms, &self.terms());
        }
        if found.memberships != self.memberships() {
            return differs("memberships", &found.memberships, &self.memberships());
        }
        if found.snapshot.as_ref() != snapshot {
            return differs("snapshot", &found.snapshot, &snapshot);
        }
        let applied = snapshot.map_or(Index(0), |snapshot| snapshot.last.index);
        if found.applied != applied {
            return differs("applied", &found.applied, &applied);
        }
        Ok(())
    }

    fn check_log(&self, found: &[Run]) -> Result<(), String> {
        let mut expected = self.log.iter();
        for entry in found.iter().flat_map(Run::iter) {
            match expected.next() {
                Some(it) if it.id == entry.id && it.kind == entry.kind && it.payload == entry.payload => {}
                it => {
                    return Err(format!(
                        "entry {}: found {}, expected {}",
                        entry.id,
                        outline(entry.kind, entry.payload),
                        it.map_or_else(
                            || "nothing there".to_owned(),
                            |it| format!("{} {}", it.id, outline(it.kind, &it.payload))
                        ),
                    ));
                }
            }
        }
        expected.next().map_or(Ok(()), |missing| Err(format!("entry {} can't be loaded", missing.id)))
    }

    pub(super) fn check_snapshots(&self, found: &[(SnapshotInfo, Vec<u8>)]) -> Result<(), String> {
        for (info, bytes) in found {
            let same = self.published.iter().find(|shot| shot.info == *info);
            let Some(shot) = same else {
                return Err(format!("a snapshot is listed that was not published: {info:?}"));
            };
            if shot.bytes != *bytes {
                return Err(format!("the snapshot at {} has other bytes", shot.last()));
            }
        }
        if !found.is_sorted_by_key(|(info, _)| info.snapshot.last.index) {
            return Err("the snapshots are not listed in the order of their indexes".to_owned());
        }
        // What the log rests on, and what may be about to be installed.
        let newest = self.newest().map_or(LogId::ZERO, |shot| shot.last());
        let needed =
            self.published.iter().filter(|shot| shot.last().index > newest.index || shot.last() == newest);
        for shot in needed {
            if !found.iter().any(|(info, _)| shot.info == *info) {
                let listed: Vec<LogId> = found.iter().map(|(info, _)| info.snapshot.last).collect();
                return Err(format!("the snapshot at {} is not listed, but {listed:?}", shot.last()));
            }
        }
        Ok(())
    }
}

fn outline(kind: EntryKind, payload: &[u8]) -> String {
    format!("{kind:?} of {} bytes, {:02x?}…", payload.len(), &payload[..payload.len().min(12)])
}

/// Recovers a group, and reads all there is of it.
pub(super) fn observe<'a>(store: &mut (dyn AnyStore<'a> + 'a), group: GroupId) -> Result<Found, Trouble> {
    let recovered = store.recover(group)?;
    let log = read_log(store, group, &recovered)?;
    let snapshots = read_snapshots(store, group)?;
    Ok(Found { recovered, log, snapshots })
}

/// The whole log, read with loads of different sizes; and nothing is there below it.
fn read_log<'a>(
    store: &mut (dyn AnyStore<'a> + 'a),
    group: GroupId,
    recovered: &Recovered,
) -> Result<Vec<Run>, Trouble> {
    let reader = store.reader();
    let (base, last) = (recovered.base.index, recovered.last);
    let below = Load { id: LoadId::default(), first: base, last: last.max(base), max_bytes: 1 };
    if reader.load(group, &below)? != Loaded::Compacted {
        return Err(Trouble::new(format!("{base} can be loaded, but the log begins after it")));
    }
    let (mut log, mut next, mut max_bytes): (Vec<Run>, Index, usize) = (Vec::new(), base.next(), 1);
    while next <= last {
        let load = Load { id: LoadId::default(), first: next, last, max_bytes };
        let loaded = reader.load(group, &load)?;
        next = check_loaded(&load, &loaded).map_err(Trouble::new)?;
        if let Loaded::Entries(runs) = loaded {
            log.extend(runs);
        }
        max_bytes = (max_bytes * 1_031) % 400_009;
    }
    Ok(log)
}

/// Is that an answer to this, if all of it is in the log? Gives the index that is next.
pub(super) fn check_loaded(load: &Load, loaded: &Loaded) -> Result<Index, String> {
    let Loaded::Entries(runs) = loaded else {
        return Err(format!("{} is said to be compacted", load.first));
    };
    let bytes: usize = runs.iter().map(Run::bytes).sum();
    let count: u64 = runs.iter().map(Run::count).sum();
    if count == 0 {
        return Err(format!("nothing is found at {}, which is in the log", load.first));
    }
    if count > 1 && bytes > load.max_bytes {
        return Err(format!("{count} entries of {bytes} bytes for {load:?}"));
    }
    let mut next = load.first;
    for run in runs {
        if run.first() != next {
            return Err(format!("a run from {} where {next} is next, for {load:?}", run.first()));
        }
        next = run.last().next();
    }
    if next > load.last.next() {
        return Err(format!("more than was asked for, up to {}: {load:?}", next.prev()));
    }
    Ok(next)
}

pub(super) fn read_snapshots<'a>(
    store: &(dyn AnyStore<'a> + 'a),
    group: GroupId,
) -> Result<Vec<(SnapshotInfo, Vec<u8>)>, Trouble> {
    let snapshots = store.snapshots();
    let mut found = Vec::new();
    for info in snapshots.list(group)? {
        let last = info.snapshot.last;
        let Some(mut source) = snapshots.open(group, last)? else {
            return Err(Trouble::new(format!("the snapshot at {last} is listed, but can't be opened")));
        };
        if *source.info() != info {
            let opened = source.info();
            return Err(Trouble::new(format!("listed as {info:?}, opened as {opened:?}")));
        }
        let mut bytes = vec![0; info.bytes as usize + 1];
        let read = source.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        found.push((info, bytes));
    }
    Ok(found)
}
