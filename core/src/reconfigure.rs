//! Changing the membership (paper §6; dissertation 4): when a leader may append one, and what follows from its commit.
//!
//! A membership is in force from the moment it is in the log, committed or not. So there is never more than one that is not
//! committed, and none before the leader has committed an entry of its term: else two leaders could each have a majority of
//! its own (the bug of single-server changes found after the dissertation).

use alloc::vec;

use crate::{
    ChangeError, ChangeOp, Index, Membership, MembershipChange, NodeId, Outcome, Rejected, Run, Token,
    Tokens,
    message::Body,
    progress::Peer,
    raft::{Raft, Role},
};

/// A change that somebody waits for.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct PendingChange {
    pub(crate) token: Token,
}

impl Raft {
    /// Appends the membership that `change` leads to.
    ///
    /// # Errors
    /// If this node doesn't lead, or the change is not possible, or not now.
    pub(crate) fn change_membership(
        &mut self,
        token: Token,
        change: &MembershipChange,
    ) -> Result<(), Rejected> {
        let next = self.next_membership(change)?;
        if let Role::Leader(leader) = &mut self.role {
            leader.change = Some(PendingChange { token });
        }
        self.append_membership(&next);
        self.wake();
        Ok(())
    }

    /// Looked at against the latest membership *in the log*, which is the one in force.
    fn next_membership(&self, change: &MembershipChange) -> Result<Membership, Rejected> {
        let Role::Leader(leader) = &self.role else {
            return Err(Rejected::NotLeader { leader: self.leader() });
        };
        self.refuse_while_transferring()?;
        let (index, membership) = self.memberships.current_entry();
        if self.commit < leader.term_start {
            return Err(Rejected::Change(ChangeError::Early { term: self.hard_state.term }));
        }
        if index > self.commit || membership.is_joint() && !membership.is_held() {
            return Err(Rejected::Change(ChangeError::Pending { index }));
        }
        if self.log.last().index.next() >= Index::LIMIT {
            return Err(Rejected::Exhausted);
        }
        membership.change(change).map_err(Rejected::Change)
    }

    /// The entry, its new peers, and all that a smaller quorum may decide at once.
    fn append_membership(&mut self, membership: &Membership) {
        let index = self.log.last().index.next();
        if let Role::Leader(leader) = &mut self.role {
            leader.unsettled = true;
        }
        self.append(Run::membership(self.hard_state.term, index, membership));
        self.add_peers();
        self.broadcast_append();
        self.advance_commit();
        self.advance_reads();
    }

    /// Who is new is sent to from now on. Who has left still is, until that is committed: so it hears of it.
    fn add_peers(&mut self) {
        let (me, next, now) = (self.config.id, self.log.last().index, self.now);
        let Role::Leader(leader) = &mut self.role else { return };
        for id in self.memberships.current().members().into_iter().filter(|id| *id != me) {
            if let Err(at) = leader.peers.binary_search_by_key(&id, |peer| peer.id) {
                leader.peers.insert(at, Peer::new(id, next, now));
            }
        }
    }

    /// The leader has committed more: is the membership in force committed now? A joint one is left then (paper §6), by
    /// whichever leader sees it; any other is final.
    pub(crate) fn settle_membership(&mut self) {
        let (index, membership) = self.memberships.current_entry();
        let Role::Leader(leader) = &mut self.role else { return };
        if !leader.unsettled || index > self.commit || self.commit < leader.term_start {
            return;
        }
        if membership.is_joint() && !membership.is_held() {
            let next = membership.left();
            return self.append_membership(&next);
        }
        leader.unsettled = false;
        leader.peers.retain(|peer| membership.contains(peer.id));
        if let Some(PendingChange { token }) = leader.change.take() {
            self.outbox.resolve(Tokens::one(token), Outcome::Changed { index });
        }
        let gone = |to: NodeId| !membership.is_voter(to);
        if self.transfer.is_some_and(|transfer| gone(transfer.to)) {
            self.abort_transfer();
        }
        if !self.memberships.current().is_voter(self.config.id) {
            self.resign();
        }
    }

    /// "The leader steps down once it has committed the Cnew log entry" that it is not part of (paper §6), and has the
    /// furthest of the others begin an election, so that nobody waits for a timeout (dissertation 4.2.2).
    ///
    /// Differs from the paper: §6 has the others wait for their timeouts.
    fn resign(&mut self) {
        let furthest = self.furthest_voter();
        // Whoever it was handing over to anyway. Whether that one leads next is known later.
        let to = self.transfer.as_mut().map(|transfer| {
            transfer.told = true;
            transfer.to
        });
        if let Some(to) = to.or(furthest) {
            self.send(to, Body::TimeoutNow);
        }
        self.become_follower(self.hard_state.term, None);
    }

    /// Has a learner that is to become a voter caught up? The log is brought to it in rounds; each ends when it has all
    /// that was there when the round began. One that took less than an election timeout is short enough for the cluster
    /// to wait for (dissertation 4.2.1).
    pub(crate) fn consider_promotion(&mut self, id: NodeId) {
        if !self.memberships.current().joining().contains(&id) {
            return;
        }
        let (last, now, most) = (self.log.last().index, self.now, self.timing.election);
        let Role::Leader(leader) = &mut self.role else { return };
        let caught_up = leader.peer_mut(id).is_some_and(|peer| peer.ends_round(last, now, most));
        if !caught_up {
            return;
        }
        // If not now, then with one of its next answers.
        if let Ok(next) = self.next_membership(&MembershipChange::new(vec![ChangeOp::Promote(id)])) {
            self.append_membership(&next);
        }
    }
}
