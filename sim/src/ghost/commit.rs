//! What is committed, and by whom: by a quorum's disks, in the leader's own term (S8); the same everywhere (S6).

use quorate_core::{Apply, Raft, RoleKind};

use super::{Ghost, extend};
use crate::{
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

impl Ghost {
    /// A node's commit index has advanced.
    pub(super) fn on_commit(&mut self, slot: usize, raft: &Raft, counts: &mut Counts) -> Verdict {
        let (n, commit) = (slot + 1, raft.commit().0);
        let at = commit as usize - 1;
        let stone = self.nodes[slot].live[at];
        // The vote that elects it may also bring news of what is committed: that is no decision of its own.
        let learned = self.nodes[slot].role != RoleKind::Leader && stone.term != raft.term().0;
        if raft.role() == RoleKind::Leader && !learned {
            hold!(
                stone.term == raft.term().0,
                "S8",
                "node {n} commits {commit} of term {} in term {}",
                stone.term,
                raft.term()
            );
            let holds =
                |images: &super::Images| images.durable.get(at).is_some_and(|s| s.chain == stone.chain);
            let disks = self.nodes.iter().filter(|images| holds(images)).count();
            let members = self.nodes.len();
            hold!(
                disks * 2 > members,
                "S8",
                "node {n} commits {commit}, durable on {disks} of {members} nodes"
            );
            let known = self.committed.len();
            if commit as usize > known {
                // It commits the entries in between as well; all must follow from what is committed already.
                self.check_prefix(slot, known as u64)?;
                for index in known..=at {
                    let stone = self.nodes[slot].live[index];
                    self.committed.push(stone);
                    self.on_committed(index as u64 + 1, stone)?;
                    counts.bump(Count::Commits);
                }
            }
            let most = self.committed_in.entry(raft.term().0).or_insert(0);
            *most = (*most).max(commit);
        }
        hold!(
            commit <= self.committed.len() as u64,
            "S6",
            "node {n} takes {commit} for committed, but only {} is",
            self.committed.len()
        );
        self.check_prefix(slot, commit)
    }

    /// The node's log agrees with `C` up to `index`.
    fn check_prefix(&self, slot: usize, index: u64) -> Verdict {
        let Some(at) = (index as usize).checked_sub(1) else { return Ok(()) };
        let same = self.nodes[slot].live.get(at).is_some_and(|s| s.chain == self.committed[at].chain);
        hold!(same, "S6", "the log of node {} differs from what is committed, up to {index}", slot + 1);
        Ok(())
    }

    /// Entries go to the state machine.
    pub(super) fn on_apply(&mut self, slot: usize, life: u64, apply: &Apply, counts: &mut Counts) -> Verdict {
        let n = slot + 1;
        let before = self.nodes[slot].applied;
        let first = apply.entries.first().map_or(0, |run| run.first().0);
        let last = apply.last().0;
        hold!(first == before + 1, "S6", "node {n} applies {first} after {before}");
        hold!(last as usize <= self.committed.len(), "S6", "node {n} applies {last}, which is not committed");
        hold!(self.durable_up_to(slot, last), "D2", "node {n} applies {last}, which is not durable there");
        let mut applied = match before.checked_sub(1) {
            Some(at) => vec![self.committed[at as usize]],
            None => Vec::new(),
        };
        for run in &apply.entries {
            extend(&mut applied, run);
        }
        let same = applied.last().map(|stone| stone.chain) == Some(self.committed[last as usize - 1].chain);
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
        let mut reached: Vec<u64> = vec![raft.durable().0];
        for (k, peer) in raft.progress().enumerate() {
            let (id, matched) = (peer.id.0, peer.match_index.0);
            hold!(peer.next_index.0 > matched, "S7", "node {n}: next is not above match for node {id}");
            match matches.get_mut(k) {
                None => matches.push((id, 0)),
                Some((_, before)) => {
                    hold!(
                        matched >= *before,
                        "S7",
                        "node {n}: match of node {id} goes back from {before} to {matched}"
                    );
                }
            }
            if matches[k].1 != matched {
                matches[k].1 = matched;
                let at = matched as usize - 1;
                // A peer that has moved on to a later term may have replaced what it acknowledged in this one.
                let moved_on = self.nodes[id as usize - 1].durable_state.term > raft.term();
                let peer = self.nodes[id as usize - 1].durable.get(at);
                let same = moved_on
                    || peer.is_some()
                        && peer.map(|s| s.chain) == self.nodes[slot].live.get(at).map(|s| s.chain);
                hold!(same, "S7", "node {n} takes node {id} to match up to {matched}, but its disk does not");
            }
            reached.push(matched);
        }
        self.nodes[slot].matches = matches;
        // A leader's commit has advanced whenever it may.
        reached.sort_unstable_by(|a, b| b.cmp(a));
        let may = reached[self.nodes.len() / 2];
        let own_term = |index: u64| {
            let at = (index as usize).checked_sub(1);
            at.and_then(|at| self.nodes[slot].live.get(at)).is_some_and(|s| s.term == raft.term().0)
        };
        hold!(
            may <= raft.commit().0 || !own_term(may),
            "S9",
            "node {n} has {may} on a quorum, but commits only {}",
            raft.commit()
        );
        Ok(())
    }
}
