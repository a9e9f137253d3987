//! What is durable on a node's machine: hard state, log, snapshots, and perhaps the state machine's own state.

use std::collections::VecDeque;

use quorate_core::{
    Few, HardState, Incarnation, Index, Load, Loaded, LogId, Membership, Rebase, Recovered, Run, Snapshot,
    TermStart, Write,
};

use crate::{
    violation::{Verdict, hold},
    workload::State,
};

/// A snapshot, and the state that it holds.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) of: Snapshot,
    pub(crate) state: u64,
    /// What the state machine made of itself.
    pub(crate) body: State,
}

/// So many are kept: the one that the core knows of, and a newer one that it is about to hear of.
const KEPT: usize = 3;

/// Something that was acknowledged is not what it was: its checksum says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damaged;

/// A sync of the medium has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncFailed;

/// What a disk that may forget has held before, at most.
const PAST: usize = 64;

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    base: LogId,
    base_membership: Membership,
    log: Vec<Run>,
    /// Adopted or taken here, the newest last.
    pictures: Vec<Picture>,
    /// Received, and not adopted yet.
    staged: Vec<Picture>,
    incarnation: u64,
    /// Up to here the state machine's own state is durable.
    pub(crate) applied: u64,
    rotten: bool,
    /// Its next sync fails.
    fails: bool,
    /// One has failed, since the process began: whatever it says now can't be believed.
    failed: bool,
    /// Of a disk that may lose what it said was durable: what it held before each of the newest writes.
    past: Option<VecDeque<Past>>,
}

#[derive(Debug)]
struct Past {
    hard_state: HardState,
    /// What else there was, if the write let the log begin later.
    before: Option<(LogId, Membership, Vec<Picture>)>,
    /// The log's runs up to here are the same still; these followed.
    same: usize,
    rest: Vec<Run>,
}

impl Disk {
    /// A new node's.
    pub(crate) const fn new(membership: Membership) -> Self {
        Self {
            hard_state: HardState { term: quorate_core::Term(0), vote: None },
            base: LogId::ZERO,
            base_membership: membership,
            log: Vec::new(),
            pictures: Vec::new(),
            staged: Vec::new(),
            incarnation: 0,
            applied: 0,
            rotten: false,
            fails: false,
            failed: false,
            past: None,
        }
    }

    /// Such a disk may say that something is durable which it then loses.
    pub(crate) fn may_forget(&mut self) {
        self.past = Some(VecDeque::new());
    }

    /// Commits writes in one transaction.
    ///
    /// # Errors
    /// If the medium's sync fails: then nobody knows what of it is durable. There is no retry, for the next sync may well succeed and
    /// say nothing about what the last one has lost.
    pub(crate) fn commit(&mut self, writes: &[Write]) -> Result<Verdict, SyncFailed> {
        if self.fails {
            return Err(SyncFailed);
        }
        Ok(writes.iter().try_for_each(|write| self.apply(write)))
    }

    /// Does a write: all of it.
    pub(crate) fn apply(&mut self, write: &Write) -> Verdict {
        self.remember(write);
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        match write.rebase.as_deref() {
            Some(Rebase::Compact(snapshot)) => {
                self.remove_up_to(snapshot.last.index);
                self.begin_after(snapshot);
            }
            Some(Rebase::Install(snapshot)) => {
                let at = self.staged.iter().position(|picture| picture.of == *snapshot);
                hold!(at.is_some(), "P3", "the snapshot at {} is adopted, but not staged", snapshot.last);
                if let Some(at) = at {
                    let picture = self.staged.remove(at);
                    self.add_picture(picture);
                }
                self.log.clear();
                self.begin_after(snapshot);
            }
            None => {}
        }
        if let Some(from) = write.truncate {
            let kept = self.log.partition_point(|run| run.last() < from);
            let cut = self.log.get(kept).and_then(|run| run.ending_before(from));
            self.log.truncate(kept);
            self.log.extend(cut);
        }
        self.log.extend(write.entries.iter().cloned());
        Ok(())
    }

    /// Keeps what the write is about to change, where it may be lost again.
    fn remember(&mut self, write: &Write) {
        let Some(past) = &mut self.past else { return };
        let rebases = write.rebase.is_some();
        let before = rebases.then(|| (self.base, self.base_membership.clone(), self.pictures.clone()));
        let kept = |from| self.log.partition_point(|run| run.last() < from);
        let same = if rebases { 0 } else { write.truncate.map_or(self.log.len(), kept) };
        past.truncate(PAST - 1);
        past.push_front(Past { hard_state: self.hard_state, before, same, rest: self.log[same..].to_vec() });
    }

    fn remove_up_to(&mut self, base: Index) {
        let gone = self.log.partition_point(|run| run.last() <= base);
        self.log.drain(..gone);
        if let Some(first) = self.log.first_mut()
            && let Some(rest) = first.starting_at(base.next())
        {
            *first = rest;
        }
    }

    fn begin_after(&mut self, snapshot: &Snapshot) {
        self.base = snapshot.last;
        self.base_membership = snapshot.membership.clone();
    }

    fn last(&self) -> LogId {
        self.log.last().map_or(self.base, Run::last_id)
    }

    fn term_at(&self, index: Index) -> Option<quorate_core::Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let run = self.log.get(self.log.partition_point(|run| run.last() < index))?;
        (run.first() <= index).then_some(run.term())
    }

    // ---- snapshots ----

    /// The index of the newest snapshot; 0 without one.
    pub(crate) fn newest(&self) -> u64 {
        self.pictures.last().map_or(0, |picture| picture.of.last.index.0)
    }

    /// The snapshot at that entry.
    pub(crate) fn picture(&self, last: LogId) -> Option<&Picture> {
        self.pictures.iter().find(|picture| picture.of.last == last)
    }

    /// What a snapshot at `index` holds.
    pub(crate) fn newest_body(&self, index: u64) -> Option<State> {
        let picture = self.pictures.iter().rev().find(|picture| picture.of.last.index.0 == index)?;
        Some(picture.body.clone())
    }

    /// A machine's state at `index` becomes a snapshot, unless a newer one is there.
    pub(crate) fn take_picture(&mut self, index: Index, state: u64, body: State) {
        if index.0 <= self.newest() || index <= self.base.index {
            return;
        }
        let Some(term) = self.term_at(index) else { return };
        let memberships = self.log.iter().take_while(|run| run.first() <= index).flat_map(Run::memberships);
        let membership = memberships.filter(|(at, _)| *at <= index).last().map(|(_, membership)| membership);
        let membership = membership.unwrap_or_else(|| self.base_membership.clone());
        self.add_picture(Picture { of: Snapshot { last: LogId::new(term, index), membership }, state, body });
    }

    fn add_picture(&mut self, picture: Picture) {
        if picture.of.last.index.0 > self.newest() {
            self.pictures.push(picture);
        }
        let many = self.pictures.len().saturating_sub(KEPT);
        self.pictures.drain(..many);
    }

    /// A snapshot from elsewhere is here, whole; it may be here already.
    pub(crate) fn stage(&mut self, picture: Picture) {
        self.staged.push(picture);
    }

    /// Nobody wants it: this copy of it goes.
    pub(crate) fn unstage(&mut self, last: LogId) {
        if let Some(at) = self.staged.iter().position(|picture| picture.of.last == last) {
            self.staged.swap_remove(at);
        }
    }

    // ---- faults ----

    /// The next sync of the medium fails.
    pub(crate) const fn fail(&mut self) {
        (self.fails, self.failed) = (true, true);
    }

    /// Has a sync failed since the process began?
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// The newest writes are gone, though they were durable. False if it can't forget so much.
    pub(crate) fn forget(&mut self, writes: usize) -> bool {
        let Some(past) = &mut self.past else { return false };
        let count = writes.min(past.len());
        for Past { hard_state, before, same, rest } in past.drain(..count) {
            self.hard_state = hard_state;
            self.log.truncate(same);
            self.log.extend(rest);
            if let Some((base, membership, pictures)) = before {
                (self.base, self.base_membership, self.pictures) = (base, membership, pictures);
            }
        }
        count > 0
    }

    /// Something in it is not what was written any more.
    pub(crate) const fn rot(&mut self) {
        self.rotten = true;
    }

    pub(crate) const fn is_rotten(&self) -> bool {
        self.rotten
    }

    // ---- reading ----

    /// The store's present incarnation.
    pub(crate) const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// A write of an earlier incarnation is not taken (contract, point 7).
    pub(crate) fn is_stale(&self, write: &Write) -> bool {
        write.receipt().incarnation() != Incarnation(self.incarnation)
    }

    /// Opens the store: another incarnation. The state machine is brought to where `applied` says: to where it is itself
    /// durable, if it is, and the log goes on from there; else to the newest snapshot.
    ///
    /// # Errors
    /// If something is damaged that was acknowledged. It is no torn tail: nothing is cut off, and the node stays down.
    pub(crate) fn recover(&mut self, durable_machine: bool) -> Result<Recovered, Damaged> {
        if self.rotten {
            return Err(Damaged);
        }
        self.incarnation += 1;
        (self.fails, self.failed) = (false, false);
        self.staged.clear();
        if !durable_machine || self.applied < self.base.index.0 {
            self.applied = self.newest();
        }
        let mut recovered = Recovered::fresh(Incarnation(self.incarnation), self.base_membership.clone());
        recovered.hard_state = self.hard_state;
        recovered.base = self.base;
        recovered.snapshot = self.pictures.last().map(|picture| picture.of.clone());
        recovered.last = self.last().index;
        recovered.applied = Index(self.applied);
        for run in &self.log {
            if recovered.terms.last().is_none_or(|start| start.term != run.term()) {
                recovered.terms.push(TermStart { first: run.first(), term: run.term() });
            }
            recovered.memberships.extend(run.memberships());
        }
        Ok(recovered)
    }

    /// Reads entries back.
    pub(crate) fn load(&self, load: &Load) -> Loaded {
        if load.first <= self.base.index {
            return Loaded::Compacted;
        }
        let mut left = load.max_bytes;
        let mut entries = Few::new();
        let first = self.log.partition_point(|run| run.last() < load.first);
        for run in self.log.iter().skip(first).take_while(|run| run.first() <= load.last) {
            let part = run.starting_at(load.first).and_then(|part| part.ending_before(load.last.next()));
            let Some(part) = part else { break };
            if !entries.is_empty() && part.bytes() > left {
                break;
            }
            let fits = part.within(left);
            left = left.saturating_sub(fits.bytes());
            let cut = fits.count() < part.count();
            entries.push(fits);
            if cut || left == 0 {
                break;
            }
        }
        Loaded::Entries(entries)
    }
}
