//! What a node takes for committed, and what holds of a leader (S6 to S9, M5), by the answers that it was seen to get.

use quorate_core::{Membership, Raft};

use super::{
    known::Known,
    view::{Decision, View},
};
use crate::{
    ghost::{agree, reached},
    violation::{Verdict, hold},
};

impl View {
    /// A commit index has advanced.
    pub(super) fn check_decision(&self, decision: Decision, known: &mut Known) -> Verdict {
        let Decision { term, after, commit, led, leads } = decision;
        let n = self.node;
        let of = self.live.term_at(commit);
        hold!(
            of.is_some() || commit < self.live.base(),
            "S9",
            "node {n} commits {commit}, which its log does not have"
        );
        // The vote that elects it may also bring news of what is committed: that is no decision of its own.
        let decided = (led || leads && of == Some(term)) && of.is_some();
        if decided {
            hold!(of == Some(term), "S8", "node {n} commits {commit} of term {of:?} in term {term}");
            // A joint membership is left in the very step in which it is committed: the one before counts as well.
            let (now, before) = (self.live.membership().1, &self.settled_membership);
            let between = self.live.memberships_after(after).iter().map(|(_, membership)| membership);
            let quorum = between.chain([now, before]).any(|membership| self.is_acked(membership, commit));
            hold!(
                quorum,
                "S8",
                "node {n} commits {commit}, acknowledged by {:?} (and durable here: {}), which is no quorum of {now:?}",
                self.acked,
                self.durable_up_to(commit)
            );
            for (index, membership) in self.live.memberships_after(after) {
                hold!(
                    *index > commit || self.is_acked(membership, *index),
                    "S8",
                    "node {n} commits {membership:?} at {index}, acknowledged by {:?}, which is no quorum of it",
                    self.acked
                );
            }
        }
        known.note_commit(n, &self.live, after, commit)?;
        if decided {
            known.note_decided(term, commit)?;
        }
        Ok(())
    }

    fn is_acked(&self, membership: &Membership, index: u64) -> bool {
        agree(membership, |slot| match slot as u64 + 1 {
            id if id == self.node => self.durable_up_to(index),
            id => self.acked.get(&id).is_some_and(|up_to| *up_to >= index),
        })
    }

    /// What holds of a leader whenever its queue is empty.
    pub(super) fn check_leader(&mut self, raft: &Raft) -> Verdict {
        let (n, term) = (self.node, raft.term());
        let mut matches = std::mem::take(&mut self.matches);
        matches.retain(|id, _| raft.progress().any(|peer| peer.id.0 == *id));
        for peer in raft.progress() {
            let (id, matched) = (peer.id.0, peer.match_index.0);
            hold!(peer.next_index.0 > matched, "S7", "node {n}: next is not above match for node {id}");
            let before = matches.insert(id, matched).unwrap_or(0);
            hold!(
                matched >= before,
                "S7",
                "node {n}: match of node {id} goes back from {before} to {matched}"
            );
            let acked = self.acked.get(&id).copied().unwrap_or(0);
            hold!(
                matched <= acked,
                "S7",
                "node {n} takes node {id} to match up to {matched}, but that has acknowledged only {acked}"
            );
        }
        self.matches = matches;
        // A leader's commit has advanced whenever it may.
        let (matches, live) = (&self.matches, &self.live);
        let match_of = |slot: usize| match slot as u64 + 1 {
            id if id == n => raft.durable().0,
            id => matches.get(&id).copied().unwrap_or(0),
        };
        let (since, membership) = live.membership();
        let may = reached(membership, match_of);
        hold!(
            may <= raft.commit().0 || live.term_at(may) != Some(term.0),
            "S9",
            "node {n} has {may} on a quorum, but commits only {}",
            raft.commit()
        );
        // Who is out, and has seen to it that the others know, leads no more.
        let settled = live.term_at(raft.commit().0) == Some(term.0);
        hold!(
            membership.is_voter(raft.id()) || !settled || since > raft.commit().0,
            "M5",
            "node {n} leads on, though {membership:?} is committed"
        );
        Ok(())
    }
}
