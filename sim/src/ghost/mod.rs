//! What an all-seeing observer knows: kept outside the nodes, and held against them after every step.
//!
//! Each node's log is followed twice: as it was issued (every write that was emitted) and as it is durable (every
//! write that the disk has done). An entry is known by its *chain*, a hash over it and all before it, so that "the same
//! up to here" is one comparison. `C`, the committed log, grows as leaders commit; whatever any node ever commits, applies
//! or acknowledges is compared with it.
//!
//! Nothing here asks the core what it means: what a message claims is decided anew (`claims.rs`).

mod claims;
mod commit;
mod election;
mod requests;

use std::collections::BTreeMap;

use quorate_core::{Action, Body, HardState, Raft, RoleKind, Run, Write};

use crate::{
    digest::Digest,
    rng::mix,
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

pub(crate) use requests::Kind;

/// An entry, as an observer tells it from others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stone {
    pub(crate) term: u64,
    /// A hash over this entry and all before it.
    pub(crate) chain: u64,
    /// The proposal that it carries, or [`NO_TOKEN`].
    pub(crate) token: u64,
}

/// One node, as followed from outside.
#[derive(Debug)]
struct Images {
    /// What was issued: what the node believes its log to be.
    live: Vec<Stone>,
    /// What its disk holds.
    durable: Vec<Stone>,
    durable_state: HardState,
    /// As of the last look, in this life.
    term: u64,
    role: RoleKind,
    commit: u64,
    applied: u64,
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
    committed: Vec<Stone>,
    /// Up to which index entries were committed in each term.
    committed_in: BTreeMap<u64, u64>,
    requests: requests::Requests,
}

impl Ghost {
    pub(crate) fn new(nodes: usize) -> Self {
        let images = || Images {
            live: Vec::new(),
            durable: Vec::new(),
            durable_state: HardState::default(),
            term: 0,
            role: RoleKind::Follower,
            commit: 0,
            applied: 0,
            matches: Vec::new(),
            stopped: false,
        };
        Self {
            nodes: (0..nodes).map(|_| images()).collect(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            known: Vec::new(),
            committed: Vec::new(),
            committed_in: BTreeMap::new(),
            requests: requests::Requests::default(),
        }
    }

    /// A node starts from what its disk holds.
    pub(crate) fn on_start(&mut self, slot: usize, raft: &Raft) -> Verdict {
        let images = &mut self.nodes[slot];
        images.live = images.durable.clone();
        images.role = raft.role();
        images.term = raft.term().0;
        images.commit = raft.commit().0;
        images.applied = raft.commit().0;
        images.matches.clear();
        images.stopped = false;
        let (last, state) = (images.live.len() as u64, images.durable_state);
        hold!(
            raft.last().index.0 == last,
            "D3",
            "node {} recovered {} of {last} entries",
            slot + 1,
            raft.last()
        );
        hold!(raft.hard_state() == state, "D3", "node {} recovered {:?}", slot + 1, raft.hard_state());
        Ok(())
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
        match action {
            Action::Send { to, message } => {
                hold!(!self.nodes[slot].stopped, "D4", "node {} speaks after its disk failed", slot + 1);
                if matches!(message.body, Body::Conflict { .. }) {
                    counts.bump(Count::Conflicts);
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
            Action::Write(_) | Action::Restore(_) | Action::SendSnapshot(_) | Action::Event(_) => Ok(()),
        }
    }

    /// A node has issued a write.
    pub(crate) fn on_write(
        &mut self,
        slot: usize,
        raft: &Raft,
        write: &Write,
        counts: &mut Counts,
    ) -> Verdict {
        let leads = self.nodes[slot].role == RoleKind::Leader && raft.role() == RoleKind::Leader;
        let same_term = raft.term().0 == self.nodes[slot].term;
        if let Some(from) = write.truncate {
            counts.bump(Count::Truncations);
            let n = slot + 1;
            hold!(
                !(leads && same_term),
                "S3",
                "node {n} truncates its log at {from} in the term that it leads"
            );
            let committed = self.nodes[slot].commit;
            hold!(from.0 > committed, "S6", "node {n} truncates {from}, which it knows to be committed");
        }
        // Log Matching, over all the logs there ever were.
        let images = &mut self.nodes[slot];
        let before = images.live.len();
        change(&mut images.live, write)?;
        let first_new = write.entries.first().map_or(before, |run| run.first().0 as usize - 1);
        for at in first_new..images.live.len() {
            let stone = images.live[at];
            hold!(stone.term <= raft.term().0, "S9", "node {} appends an entry of a later term", slot + 1);
            hold!(
                at == 0 || images.live[at - 1].term <= stone.term,
                "S9",
                "in the log of node {} terms decrease at {}",
                slot + 1,
                at + 1
            );
            if self.known.len() <= at {
                self.known.resize_with(at + 1, Vec::new);
            }
            match self.known[at].iter().find(|(term, _)| *term == stone.term) {
                None => self.known[at].push((stone.term, stone.chain)),
                Some((term, chain)) => hold!(
                    *chain == stone.chain,
                    "S4",
                    "node {} has an entry {} of term {term} that differs from another's, or follows other entries",
                    slot + 1,
                    at + 1
                ),
            }
        }
        Ok(())
    }

    /// A disk has done a write.
    pub(crate) fn on_durable(&mut self, slot: usize, write: &Write) -> Verdict {
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
        change(&mut self.nodes[slot].durable, write)
    }

    /// After every step.
    pub(crate) fn after_step(&mut self, slot: usize, raft: &Raft, counts: &mut Counts) -> Verdict {
        let n = slot + 1;
        let (term, role, commit) = (raft.term().0, raft.role(), raft.commit().0);
        let images = &self.nodes[slot];
        hold!(term >= images.term, "S7", "the term of node {n} goes back from {} to {term}", images.term);
        hold!(commit >= images.commit, "S7", "node {n} takes back its commit {} for {commit}", images.commit);
        let last = images.live.len() as u64;
        hold!(raft.last().index.0 == last, "S9", "node {n} has {} but wrote up to {last}", raft.last());
        hold!(commit <= last, "S9", "node {n} commits {commit}, but its log ends at {last}");
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
        Ok(())
    }

    /// The store has failed, as far as the node is told.
    pub(crate) fn on_disk_failed(&mut self, slot: usize) {
        self.nodes[slot].stopped = true;
    }
}

/// Applies a write to an image.
fn change(image: &mut Vec<Stone>, write: &Write) -> Verdict {
    if let Some(from) = write.truncate {
        hold!(from.0 >= 1, "S9", "a write truncates everything");
        image.truncate(from.0 as usize - 1);
    }
    for run in &write.entries {
        hold!(run.first().0 == image.len() as u64 + 1, "S9", "a write leaves a gap before {}", run.first());
        extend(image, run);
    }
    Ok(())
}

/// Adds a run's entries.
fn extend(image: &mut Vec<Stone>, run: &Run) {
    let mut chain = image.last().map_or(0, |stone| stone.chain);
    for entry in run.entries() {
        chain = link(chain, entry.id.term.0, entry.kind as u64, &entry.payload);
        image.push(Stone { term: entry.id.term.0, chain, token: requests::token_of(&entry) });
    }
}

fn link(before: u64, term: u64, kind: u64, payload: &[u8]) -> u64 {
    mix(before.rotate_left(17) ^ mix(term << 2 | kind) ^ Digest::of(payload))
}
