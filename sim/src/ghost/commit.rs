//! What is committed, and by whom: by a quorum's disks, in the leader's own term (S8); the same everywhere (S6).

use std::sync::Arc;

use quorate_core::{Apply, Membership, Raft, RoleKind};

use super::{
    Ghost,
    image::{Stone, chain_after},
    membership::{agree, reached},
};
use crate::{
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

impl Ghost {
    /// A node's commit index has advanced.
    pub(super) fn on_commit(&mut self, slot: usize, raft: &Raft, counts: &mut Counts) -> Verdict {
        let (n, commit) = (slot + 1, raft.commit().0);
        let stone = self.nodes[slot].live.get(commit);
        hold!(stone.is_some(), "S9", "node {n} commits {commit}, which its log does not have");
        let Some(stone) = stone else { return Ok(()) };
        // The vote that elects it may also bring news of what is committed: that is no decision of its own.
        let images = &self.nodes[slot];
        let learned = images.role != RoleKind::Leader && stone.term != raft.term().0;
        // A leader that is no member any more steps down in the very step in which it commits that.
        let led = images.role == RoleKind::Leader && images.term == raft.term().0;
        if led || raft.role() == RoleKind::Leader && !learned {
            self.on_decided(slot, raft, stone, counts)?;
        }
        hold!(
            commit <= self.committed.last(),
            "S6",
            "node {n} takes {commit} for committed, but only {} is",
            self.committed.last()
        );
        self.check_prefix(slot, commit)
    }

    /// A leader has decided that all up to `commit` is committed.
    fn on_decided(&mut self, slot: usize, raft: &Raft, stone: Stone, counts: &mut Counts) -> Verdict {
        let (n, commit, term) = (slot + 1, raft.commit().0, raft.term());
        hold!(stone.term == term.0, "S8", "node {n} commits {commit} of term {} in term {term}", stone.term);
        // A joint membership is left in the very step in which it is committed: the one before counts as well.
        let images = &self.nodes[slot];
        let (now, before) = (images.live.membership().1, &images.membership);
        let quorum = self.is_durable_on_quorum(now, commit, stone)
            || now != before && self.is_durable_on_quorum(before, commit, stone);
        hold!(
            quorum,
            "S8",
            "node {n} commits {commit}, durable on {:?}, which is no quorum of {now:?}",
            self.disks_with(commit, stone)
        );
        let known = self.committed.last();
        if commit > known {
            // It commits the entries in between as well; all must follow from what is committed already.
            self.check_prefix(slot, known)?;
            for (index, membership) in self.nodes[slot].live.memberships_after(known) {
                if *index <= commit
                    && let Some(entry) = self.nodes[slot].live.get(*index)
                {
                    hold!(
                        self.is_durable_on_quorum(membership, *index, entry),
                        "S8",
                        "node {n} commits {membership:?} at {index}, durable on {:?}, which is no quorum of it",
                        self.disks_with(*index, entry)
                    );
                }
            }
            for index in known + 1..=commit {
                let live = &self.nodes[slot].live;
                let Some(entry) = live.get(index) else { break };
                let (since, membership) = live.membership_at(index);
                let membership = (since == index).then(|| Arc::clone(membership));
                self.committed.push(entry, membership);
                self.on_committed(index, entry)?;
                counts.bump(Count::Commits);
            }
        }
        self.check_later_leaders(term.0, commit)?;
        let most = self.committed_in.entry(term.0).or_insert(0);
        *most = (*most).max(commit);
        Ok(())
    }

    fn is_durable_on_quorum(&self, membership: &Membership, index: u64, stone: Stone) -> bool {
        agree(membership, |other| {
            self.nodes[other].durable.chain(index, &self.committed) == Some(stone.chain)
        })
    }

    fn disks_with(&self, index: u64, stone: Stone) -> Vec<usize> {
        let has =
            |other: &usize| self.nodes[*other].durable.chain(index, &self.committed) == Some(stone.chain);
        (0..self.nodes.len()).filter(has).map(|slot| slot + 1).collect()
    }

    /// A leader may commit late, when another leads a later term already: that one must have the entries, too (S5).
    fn check_later_leaders(&self, term: u64, index: u64) -> Verdict {
        let chain = self.committed.chain(index, &self.committed);
        for (slot, images) in self.nodes.iter().enumerate() {
            let later = images.role == RoleKind::Leader && images.term > term;
            hold!(
                !later || images.live.chain(index, &self.committed) == chain,
                "S5",
                "node {} leads term {} without entry {index}, which is committed in term {term}",
                slot + 1,
                images.term
            );
        }
        Ok(())
    }

    /// The node's log agrees with `C` up to `index`.
    pub(super) fn check_prefix(&self, slot: usize, index: u64) -> Verdict {
        let chain = self.committed.chain(index, &self.committed);
        hold!(
            chain.is_some() && self.nodes[slot].live.chain(index, &self.committed) == chain,
            "S6",
            "the log of node {} differs from what is committed, up to {index}",
            slot + 1
        );
        Ok(())
    }

    /// Entries go to the state machine.
    pub(super) fn on_apply(&mut self, slot: usize, life: u64, apply: &Apply, counts: &mut Counts) -> Verdict {
        let n = slot + 1;
        let before = self.nodes[slot].applied;
        let first = apply.entries.first().map_or(0, |run| run.first().0);
        let last = apply.last().0;
        hold!(first == before + 1, "S6", "node {n} applies {first} after {before}");
        hold!(last <= self.committed.last(), "S6", "node {n} applies {last}, which is not committed");
        hold!(self.durable_up_to(slot, last), "D2", "node {n} applies {last}, which is not durable there");
        let state = self.state_at(before).map(|state| chain_after(state, apply.entries.iter()));
        let same = state == self.state_at(last);
        hold!(same, "S6", "node {n} applies other entries than those committed at {first} to {last}");
        self.nodes[slot].applied = last;
        self.on_done(slot, life, &apply.done, last, counts)
    }

    /// What holds of a leader after each of its steps (S7, S9).
    pub(super) fn check_leader(&mut self, slot: usize, raft: &Raft) -> Verdict {
        let n = slot + 1;
        let new_term = self.nodes[slot].term != raft.term().0;
        let mut matches = std::mem::take(&mut self.nodes[slot].matches);
        if new_term {
            matches.clear();
        }
        let mut count = 0;
        for (k, peer) in raft.progress().enumerate() {
            let (id, matched) = (peer.id.0, peer.match_index.0);
            hold!(peer.next_index.0 > matched, "S7", "node {n}: next is not above match for node {id}");
            // Both are sorted by id; who has left is gone, who has come is new.
            while matches.get(k).is_some_and(|(other, _)| *other < id) {
                matches.remove(k);
            }
            if matches.get(k).is_none_or(|(other, _)| *other != id) {
                matches.insert(k, (id, 0));
            }
            count = k + 1;
            let before = matches[k].1;
            hold!(
                matched >= before,
                "S7",
                "node {n}: match of node {id} goes back from {before} to {matched}"
            );
            if before != matched {
                matches[k].1 = matched;
                self.check_match(slot, id, matched, raft)?;
            }
        }
        matches.truncate(count);
        self.nodes[slot].matches = matches;
        // A leader's commit has advanced whenever it may.
        let (matches, live) = (&self.nodes[slot].matches, &self.nodes[slot].live);
        let match_of = |other: usize| {
            let peer = matches.iter().find(|(id, _)| *id as usize == other + 1);
            if other == slot { raft.durable().0 } else { peer.map_or(0, |(_, matched)| *matched) }
        };
        let may = reached(live.membership().1, match_of);
        let own_term = || live.get(may).is_some_and(|stone| stone.term == raft.term().0);
        hold!(
            may <= raft.commit().0 || !own_term(),
            "S9",
            "node {n} has {may} on a quorum, but commits only {}",
            raft.commit()
        );
        // Who is out, and has seen to it that the others know, leads no more.
        let (since, membership) = live.membership();
        let settled = live.get(raft.commit().0).is_some_and(|stone| stone.term == raft.term().0);
        let voter = membership.is_voter(raft.id());
        hold!(
            voter || !settled || since > raft.commit().0,
            "M5",
            "node {n} leads on, though {membership:?} is committed"
        );
        Ok(())
    }

    /// A leader takes a peer to have its log up to `matched`.
    fn check_match(&self, slot: usize, id: u64, matched: u64, raft: &Raft) -> Verdict {
        let peer = &self.nodes[id as usize - 1];
        // A peer that has moved on to a later term may have replaced what it acknowledged in this one.
        let moved_on = peer.durable_state.term > raft.term();
        let chain = peer.durable.chain(matched, &self.committed);
        let same = chain.is_some() && chain == self.nodes[slot].live.chain(matched, &self.committed);
        hold!(
            moved_on || same,
            "S7",
            "node {} takes node {id} to match up to {matched}, but its disk does not",
            slot + 1
        );
        Ok(())
    }
}
