//! Leaders: one a term (S1), with everything that was committed (S5), by their own vote (S9).

use quorate_core::{NodeId, Raft};

use super::Ghost;
use crate::{
    stats::{Count, Counts},
    violation::{Verdict, hold},
};

impl Ghost {
    pub(super) fn on_elected(&mut self, slot: usize, raft: &Raft, counts: &mut Counts) -> Verdict {
        let (n, term) = (slot + 1, raft.term().0);
        let first = *self.leaders.entry(term).or_insert(slot);
        hold!(first == slot, "S1", "nodes {} and {n} both lead term {term}", first + 1);
        let state = self.nodes[slot].durable_state;
        hold!(
            raft.hard_state().vote == Some(NodeId(n as u64)),
            "S9",
            "node {n} leads term {term}, but did not vote for itself"
        );
        hold!(state == raft.hard_state(), "D1", "node {n} leads term {term}, but its vote is not durable");
        // A quorum of durable votes stands behind it.
        let members = self.nodes.len();
        let votes = (0..members).filter(|voter| self.votes.get(&(*voter, term)) == Some(&(n as u64))).count();
        hold!(votes * 2 > members, "S1", "node {n} leads term {term} by {votes} votes of {members}");
        // Leader Completeness. What a leader of a later term has committed since is not meant: this one may be late.
        let earlier = self.committed_in.range(..term).map(|(_, index)| *index).max().unwrap_or(0);
        if let Some(at) = (earlier as usize).checked_sub(1) {
            let has =
                self.nodes[slot].live.get(at).is_some_and(|stone| stone.chain == self.committed[at].chain);
            hold!(
                has,
                "S5",
                "node {n} leads term {term} without entry {earlier}, which was committed before"
            );
        }
        self.nodes[slot].matches.clear();
        if self.leaders.len() > 1 {
            counts.bump(Count::LeaderChanges);
        }
        Ok(())
    }
}
