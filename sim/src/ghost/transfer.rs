//! Handing leadership over: only to who has everything; and what is said of it is true.

use quorate_core::{NodeId, Term};

use super::Ghost;
use crate::violation::{Verdict, hold};

impl Ghost {
    /// A leader tells another to campaign.
    pub(super) fn on_timeout_now(&mut self, slot: usize, to: NodeId, term: Term) -> Verdict {
        let (n, peer) = (slot + 1, to.0 as usize - 1);
        self.requests.told.insert(slot, term.0);
        let (_, membership) = self.nodes[slot].live.membership();
        // Who has left the cluster, and leads it no more, only hurries on what follows anyway.
        if !membership.is_voter(NodeId(n as u64)) {
            return Ok(());
        }
        let last = self.nodes[slot].live.last();
        let has = self.nodes[peer].durable.chain(last, &self.committed);
        let moved_on = self.nodes[peer].durable_state.term > term;
        hold!(
            moved_on || has.is_some() && has == self.nodes[slot].live.chain(last, &self.committed),
            "transfer",
            "node {n} hands over to node {to}, which does not have all of its log up to {last}"
        );
        Ok(())
    }

    /// Leadership is said to have been handed over, by whoever led `term`.
    pub(super) fn check_transferred(&self, token: u64, to: NodeId, term: u64) -> Verdict {
        let leads = self.leaders.range(term + 1..).any(|(_, slot)| *slot + 1 == to.0 as usize);
        hold!(leads, "T1", "transfer {token} is said to be done, but node {to} led no term after {term}");
        Ok(())
    }

    /// A transfer is said to have come to nothing: then nobody was told to campaign in that term.
    pub(super) fn check_not_transferred(
        &self,
        token: u64,
        slot: usize,
        term: u64,
        told_before: bool,
    ) -> Verdict {
        let told = self.requests.told.get(&slot) == Some(&term);
        hold!(
            told_before || !told,
            "T1",
            "transfer {token} is said to have come to nothing, but a node was told to campaign"
        );
        Ok(())
    }
}
