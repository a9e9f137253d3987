//! What an all-seeing observer knows: kept outside the nodes, and held against them after every step.
//!
//! Each node's log is followed twice: as it was issued (every write that was emitted) and as it is durable (every
//! write that the disk has done). An entry is known by its *chain*, a hash over it and all before it, so that "the same
//! up to here" is one comparison. `C`, the committed log, grows as leaders commit; whatever any node ever commits, applies
//! or acknowledges is compared with it. Who decides is read from the logs, too.
//!
//! Nothing here asks the core what it means: what a message claims is decided anew (`claims.rs`), and so is who is a quorum
//! (`membership.rs`).

mod claims;
mod commit;
mod election;
mod heard;
mod image;
mod membership;
mod requests;
mod snapshot;
mod transfer;

use std::{collections::BTreeMap, sync::Arc};

use quorate_core::{Action, Body, HardState, Membership, Raft, RoleKind, Write};

use crate::{
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

use image::Image;
pub(crate) use membership::{Wanted, agree, check_succession, reached};
pub(crate) use requests::{Floor, Kind};

/// One node, as followed from outside.
#[derive(Debug)]
struct Images {
    /// What was issued: what the node believes its log to be.
    live: Image,
    /// What its disk holds.
    durable: Image,
    durable_state: HardState,
    /// The newest snapshot on its disk.
    snapshot: u64,
    /// As of the last look, in this life.
    term: u64,
    role: RoleKind,
    commit: u64,
    applied: u64,
    /// The membership in force.
    membership: Arc<Membership>,
    /// In the term that it leads: each peer's match index.
    matches: Vec<(u64, u64)>,
    stopped: bool,
}

/// All there is to know.
#[derive(Debug)]
pub(crate) struct Ghost {
    nodes: Vec<Images>,
    /// Who led each term.
    leaders: BTreeMap<u64, usize>,
    /// Whom each node voted for in each term, over all its lives.
    votes: BTreeMap<(usize, u64), u64>,
    /// The chains seen at each index, by term: Log Matching says one each.
    known: Vec<Vec<(u64, u64)>>,
    /// `C`: what is committed.
    committed: Image,
    /// Up to which index entries were committed in each term.
    committed_in: BTreeMap<u64, u64>,
    requests: requests::Requests,
    heard: Vec<heard::Heard>,
}

/// A step, as far as the observer must know of it: what was it about?
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause {
    /// Somebody asked for another membership.
    pub(crate) change: bool,
}

impl Ghost {
    /// Of so many nodes, some of which may come later; the cluster begins with this membership.
    pub(crate) fn new(nodes: usize, membership: Membership) -> Self {
        let membership = Arc::new(membership);
        let images = || Images {
            live: Image::new(Arc::clone(&membership)),
            durable: Image::new(Arc::clone(&membership)),
            durable_state: HardState::default(),
            snapshot: 0,
            term: 0,
            role: RoleKind::Follower,
            commit: 0,
            applied: 0,
            membership: Arc::clone(&membership),
            matches: Vec::new(),
            stopped: false,
        };
        Self {
            nodes: (0..nodes).map(|_| images()).collect(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            known: Vec::new(),
            committed: Image::new(Arc::clone(&membership)),
            committed_in: BTreeMap::new(),
            requests: requests::Requests::new(nodes),
            heard: vec![heard::Heard::default(); nodes],
        }
    }

    /// A node that comes later begins with this membership, which it is no part of.
    pub(crate) fn provision(&mut self, slot: usize, membership: Membership) {
        self.nodes[slot].durable = Image::new(Arc::new(membership));
    }

    /// A node starts from what its disk holds.
    pub(crate) fn on_start(&mut self, slot: usize, raft: &Raft) -> Verdict {
        self.forget_open(slot);
        self.heard[slot] = heard::Heard::default();
        let images = &mut self.nodes[slot];
        images.live.clone_from(&images.durable);
        images.role = raft.role();
        images.term = raft.term().0;
        images.commit = raft.commit().0;
        images.applied = raft.handed().0;
        images.matches.clear();
        images.stopped = false;
        images.membership = Arc::clone(images.live.membership().1);
        let (n, last, state) = (slot + 1, images.live.last(), images.durable_state);
        hold!(raft.last().index.0 == last, "D3", "node {n} recovered {} of {last} entries", raft.last());
        hold!(raft.hard_state() == state, "D3", "node {n} recovered {:?}", raft.hard_state());
        hold!(*raft.membership() == *images.membership, "M3", "node {n} recovered {:?}", raft.membership());
        self.check_prefix(slot, raft.commit().0)
    }

    /// A node wants something done, other than a write.
    pub(crate) fn on_action(
        &mut self,
        slot: usize,
        life: u64,
        raft: &Raft,
        action: &Action,
        counts: &mut Counts,
    ) -> Verdict {
        // Nothing but how what was open has ended.
        let silent = matches!(action, Action::Resolve { .. } | Action::Event(_));
        hold!(
            silent || !self.nodes[slot].stopped,
            "D4",
            "node {} goes on after its disk failed: {action:?}",
            slot + 1
        );
        match action {
            Action::Send { to, message } => {
                match message.body {
                    Body::Conflict { .. } => counts.bump(Count::Conflicts),
                    Body::TimeoutNow => counts.bump(Count::TimeoutNows),
                    _ => {}
                }
                self.check_claims(slot, *to, message)
            }
            Action::Apply(apply) => self.on_apply(slot, life, apply, counts),
            Action::Resolve { tokens, outcome } => {
                let follower = raft.role() != RoleKind::Leader;
                self.on_resolve(slot, life, *tokens, *outcome, follower, counts)
            }
            Action::Load(_) => {
                counts.bump(Count::Loads);
                Ok(())
            }
            Action::Restore(snapshot) => self.on_restore(slot, snapshot),
            Action::SendSnapshot(send) => {
                counts.bump(Count::SnapshotsSent);
                self.on_send_snapshot(slot, send)
            }
            Action::Write(_) | Action::Event(_) => Ok(()),
        }
    }

    /// A node has issued a write.
    pub(crate) fn on_write(
        &mut self,
        slot: usize,
        raft: &Raft,
        write: &Write,
        cause: Cause,
        counts: &mut Counts,
    ) -> Verdict {
        let n = slot + 1;
        let leads = self.nodes[slot].role == RoleKind::Leader && raft.role() == RoleKind::Leader;
        let leads_on = leads && raft.term().0 == self.nodes[slot].term;
        if let Some(rebase) = write.rebase.as_deref() {
            self.check_rebase(slot, rebase, leads_on, counts)?;
        }
        if let Some(from) = write.truncate {
            counts.bump(Count::Truncations);
            hold!(!leads_on, "S3", "node {n} truncates its log at {from} in the term that it leads");
            let committed = self.nodes[slot].commit;
            hold!(from.0 > committed, "S6", "node {n} truncates {from}, which it knows to be committed");
        }
        let images = &mut self.nodes[slot];
        let before = images.live.last();
        images.live.change(write, &self.committed)?;
        let Some(first) = write.entries.first().map(|run| run.first().0) else { return Ok(()) };
        hold!(first <= before + 1, "S9", "node {n} writes {first} after {before}");
        self.check_matching(slot, first, raft.term().0)?;
        self.check_memberships(slot, first, raft, leads_on, cause, counts)
    }

    /// Log Matching, over all the logs there ever were (S4).
    fn check_matching(&mut self, slot: usize, first: u64, term: u64) -> Verdict {
        let n = slot + 1;
        let live = &self.nodes[slot].live;
        let mut before = live.get(first - 1).map_or(0, |stone| stone.term);
        for index in first..=live.last() {
            let Some(stone) = live.get(index) else { break };
            hold!(stone.term <= term, "S9", "node {n} appends an entry of a later term");
            hold!(before <= stone.term, "S9", "in the log of node {n} terms decrease at {index}");
            before = stone.term;
            let at = index as usize;
            if self.known.len() <= at {
                self.known.resize_with(at + 1, Vec::new);
            }
            match self.known[at].iter().find(|(term, _)| *term == stone.term) {
                None => self.known[at].push((stone.term, stone.chain)),
                Some((term, chain)) => hold!(
                    *chain == stone.chain,
                    "S4",
                    "node {n} has an entry {index} of term {term} that differs from another's, or follows other entries"
                ),
            }
        }
        Ok(())
    }

    /// A disk has done a write; its newest snapshot is at `snapshot` now.
    pub(crate) fn on_durable(&mut self, slot: usize, write: &Write, snapshot: u64) -> Verdict {
        let images = &mut self.nodes[slot];
        if let Some(state) = write.hard_state {
            hold!(
                state.term >= images.durable_state.term,
                "S7",
                "the durable term of node {} goes back from {} to {}",
                slot + 1,
                images.durable_state.term,
                state.term
            );
            images.durable_state = state;
            if let Some(vote) = state.vote {
                self.note_vote(slot, state.term.0, vote.0)?;
            }
        }
        let images = &mut self.nodes[slot];
        images.durable.change(write, &self.committed)?;
        self.on_durable_snapshot(slot, snapshot)
    }

    /// After every step.
    pub(crate) fn after_step(
        &mut self,
        slot: usize,
        raft: &Raft,
        wrote: bool,
        counts: &mut Counts,
    ) -> Verdict {
        let n = slot + 1;
        let (term, role, commit) = (raft.term().0, raft.role(), raft.commit().0);
        let images = &self.nodes[slot];
        hold!(term >= images.term, "S7", "the term of node {n} goes back from {} to {term}", images.term);
        hold!(commit >= images.commit, "S7", "node {n} takes back its commit {} for {commit}", images.commit);
        let last = images.live.last();
        hold!(raft.last().index.0 == last, "S9", "node {n} has {} but wrote up to {last}", raft.last());
        hold!(commit <= last, "S9", "node {n} commits {commit}, but its log ends at {last}");
        if wrote {
            let (since, membership) = images.live.membership();
            hold!(
                *raft.membership() == **membership,
                "M3",
                "node {n} goes by {:?}, but its log says {membership:?} since {since}",
                raft.membership()
            );
        }
        let elected = role == RoleKind::Leader && (images.role != role || images.term != term);
        if images.role != role || images.term != term {
            match role {
                RoleKind::PreCandidate => counts.bump(Count::PreCandidacies),
                RoleKind::Candidate => counts.bump(Count::Candidacies),
                RoleKind::Follower | RoleKind::Leader => {}
            }
        }
        if elected {
            counts.bump(Count::Elections);
            self.on_elected(slot, raft, counts)?;
        }
        if commit > self.nodes[slot].commit {
            self.on_commit(slot, raft, counts)?;
        }
        if role == RoleKind::Leader {
            self.check_leader(slot, raft)?;
        }
        let images = &mut self.nodes[slot];
        (images.term, images.role, images.commit) = (term, role, commit);
        if wrote {
            images.membership = Arc::clone(images.live.membership().1);
        }
        Ok(())
    }

    /// The store has failed, as far as the node is told.
    pub(crate) fn on_disk_failed(&mut self, slot: usize) {
        self.nodes[slot].stopped = true;
    }

    // ---- for others to look at ----

    /// How much is committed.
    pub(crate) const fn committed(&self) -> u64 {
        self.committed.last()
    }

    /// The latest membership that is committed.
    pub(crate) fn membership(&self) -> &Membership {
        self.committed.membership().1
    }

    /// Every membership that could be in force when all is mended: the latest that is committed, and those after it in any
    /// log.
    pub(crate) fn possible_memberships(&self) -> Vec<Arc<Membership>> {
        let (since, latest) = self.committed.membership();
        let mut all = vec![Arc::clone(latest)];
        for image in self.nodes.iter().flat_map(|images| [&images.live, &images.durable]) {
            for (_, membership) in image.memberships_after(since) {
                if !all.contains(membership) {
                    all.push(Arc::clone(membership));
                }
            }
        }
        all
    }

    /// The state of a machine that has applied all up to `index`.
    pub(crate) fn state_at(&self, index: u64) -> Option<u64> {
        self.committed.get(index).map(|stone| stone.chain)
    }
}
