//! A leader that is to check whether a quorum still answers it, and has not heard from one for long, leads no more (dissertation
//! 6.2).

use quorate_core::{Config, Instant, NodeId, Raft, RoleKind};

use super::{Ghost, membership::agree};
use crate::violation::{Verdict, hold};

/// From whom a leader has heard when, by its own clock, in the term that it leads.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    term: u64,
    /// Since which index the membership is in force that they belong to.
    membership: u64,
    of: Vec<(u64, u64)>,
}

impl Heard {
    fn set(&mut self, id: u64, now: u64) {
        match self.of.iter_mut().find(|(other, _)| *other == id) {
            Some((_, at)) => *at = now,
            None => self.of.push((id, now)),
        }
    }
}

impl Ghost {
    /// After a step at `now`, which never goes back: `from` is who was heard in it, and `ticked` says whether it was the clock's.
    pub(crate) fn check_heard(
        &mut self,
        slot: usize,
        raft: &Raft,
        config: &Config,
        now: Instant,
        from: Option<NodeId>,
        ticked: bool,
    ) -> Verdict {
        if raft.role() != RoleKind::Leader {
            return Ok(());
        }
        let heard = &mut self.heard[slot];
        let (membership, _) = self.nodes[slot].live.membership();
        if raft.is_asleep() {
            // It is to hear nobody; and when it wakes, it begins anew.
            heard.of.clear();
            return Ok(());
        }
        // In another membership others may be needed: it looks at them some time within an election timeout.
        if (heard.term, heard.membership) != (raft.term().0, membership) {
            *heard = Heard { term: raft.term().0, membership, of: Vec::new() };
        }
        if let Some(from) = from {
            heard.set(from.0, now.0);
        }
        if !ticked || !config.check_quorum {
            return Ok(());
        }
        let membership = raft.membership();
        // Whoever is new begins as heard.
        for id in membership.members() {
            if heard.of.iter().all(|(other, _)| *other != id.0) {
                heard.of.push((id.0, now.0));
            }
        }
        let since =
            |slot: usize| heard.of.iter().find(|(id, _)| *id as usize == slot + 1).map_or(0, |(_, at)| *at);
        // It looks once in an election timeout at least.
        let longest = 2 * config.election_timeout.as_micros() as u64;
        let lately = |other: usize| other == slot || now.0.saturating_sub(since(other)) <= longest;
        hold!(
            agree(membership, lately),
            "liveness",
            "node {} leads on in term {}, though it has heard from no quorum for two election timeouts",
            slot + 1,
            raft.term()
        );
        Ok(())
    }
}
