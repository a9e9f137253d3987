//! Leaders: one a term (S1), with everything that was committed (S5), by their own vote (S9), and by voters alone (M5).

use quorate_core::{NodeId, Raft};

use super::{Ghost, membership::agree};
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
        let live = &self.nodes[slot].live;
        let (since, membership) = live.membership();
        // Who is to go may have to bring that about itself (dissertation 4.2.2): its own vote doesn't count then.
        let (_, before) = live.membership_at(since.max(1) - 1);
        let needed = since > self.nodes[slot].commit && before.is_voter(NodeId(n as u64));
        hold!(
            membership.is_voter(NodeId(n as u64)) || needed,
            "M5",
            "node {n} leads term {term}, but has no vote in {membership:?}"
        );
        // A quorum of durable votes stands behind it.
        let voted = |voter: usize| self.votes.get(&(voter, term)) == Some(&(n as u64));
        hold!(
            agree(membership, voted),
            "S1",
            "node {n} leads term {term} by the votes of {:?}, which is no quorum of {membership:?}",
            (0..self.nodes.len()).filter(|voter| voted(*voter)).map(|voter| voter + 1).collect::<Vec<_>>()
        );
        // Leader Completeness. What a leader of a later term has committed since is not meant: this one may be late.
        let earlier = self.committed_in.range(..term).map(|(_, index)| *index).max().unwrap_or(0);
        hold!(
            self.nodes[slot].live.chain(earlier, &self.committed)
                == self.committed.chain(earlier, &self.committed),
            "S5",
            "node {n} leads term {term} without entry {earlier}, which was committed before"
        );
        self.nodes[slot].matches.clear();
        if self.leaders.len() > 1 {
            counts.bump(Count::LeaderChanges);
        }
        Ok(())
    }
}
