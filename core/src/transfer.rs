//! Handing leadership over to another voter (dissertation 3.10).
//!
//! The leader stops taking proposals, brings the other up to date, and tells it to campaign at once. It is given up after an
//! election timeout; but what was told can't be unsaid, so there is no lease for the rest of the term.

use crate::{
    Event, Instant, NodeId, Outcome, Rejected, Token, Tokens,
    message::Body,
    progress::Peer,
    raft::{Raft, Role},
};

/// Leadership is being handed over. It outlives the leadership, until it is known who leads next.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Transfer {
    pub(crate) token: Token,
    pub(crate) to: NodeId,
    pub(crate) deadline: Instant,
    /// It was told to campaign.
    pub(crate) told: bool,
}

impl Raft {
    /// # Errors
    /// If this node doesn't lead, hands over already, or there is nobody to hand over to.
    pub(crate) fn transfer(&mut self, token: Token, to: Option<NodeId>) -> Result<(), Rejected> {
        self.refuse_while_transferring()?;
        let leader_hint = self.leader();
        let Role::Leader(leader) = &self.role else {
            return Err(Rejected::NotLeader { leader: leader_hint });
        };
        let target = match to {
            Some(id) => {
                leader.peer(id).filter(|_| self.memberships.current().is_voter(id)).map(|peer| peer.id)
            }
            None => self.furthest_voter(),
        };
        let to = target.ok_or(Rejected::NoSuchVoter)?;
        let deadline = self.now.plus(self.timing.election);
        self.transfer = Some(Transfer { token, to, deadline, told: false });
        self.outbox.event(Event::Transfer { to: Some(to) });
        self.tell_to_campaign();
        self.wake();
        Ok(())
    }

    /// Of the voters that answer, else of all, the one that has most of the log.
    pub(crate) fn furthest_voter(&self) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else { return None };
        let voters = leader.peers.iter().filter(|peer| self.memberships.current().is_voter(peer.id));
        let answers = |peer: &Peer| self.now.since(peer.heard) < self.timing.election;
        voters.max_by_key(|peer| (answers(peer), peer.match_index())).map(|peer| peer.id)
    }

    /// # Errors
    /// While leadership is handed over.
    pub(crate) fn refuse_while_transferring(&self) -> Result<(), Rejected> {
        match (&self.role, self.transfer) {
            (Role::Leader(_), Some(transfer)) => Err(Rejected::Transferring { to: transfer.to }),
            _ => Ok(()),
        }
    }

    /// The other one has all of the log: it may campaign. Said again with each of its heartbeats, for it may be lost.
    pub(crate) fn tell_to_campaign(&mut self) {
        let last = self.log.last().index;
        let (Role::Leader(leader), Some(transfer)) = (&mut self.role, &mut self.transfer) else { return };
        let to = transfer.to;
        if leader.peer(to).is_some_and(|peer| peer.match_index() == last) {
            transfer.told = true;
            leader.told_to_campaign = true;
            self.send(to, Body::TimeoutNow);
        }
    }

    /// Gives up: too late, or no longer wanted.
    pub(crate) fn abort_transfer(&mut self) {
        let leader = self.leader();
        if let Some(transfer) = self.transfer {
            let nothing_happened = !transfer.told;
            self.end_transfer(if nothing_happened { Outcome::Refused { leader } } else { Outcome::Unknown });
        }
    }

    /// Somebody leads now: whoever was meant to, or another.
    pub(crate) fn note_leader_for_transfer(&mut self, leader: NodeId) {
        if let Some(Transfer { to, .. }) = self.transfer {
            self.end_transfer(if leader == to { Outcome::Transferred { to } } else { Outcome::Unknown });
        }
    }

    pub(crate) fn end_transfer(&mut self, outcome: Outcome) {
        if let Some(transfer) = self.transfer.take() {
            self.outbox.resolve(Tokens::one(transfer.token), outcome);
            self.outbox.event(Event::Transfer { to: None });
        }
    }

    /// The leader hands over to this node: it campaigns at once, and asks nobody whether that disturbs.
    ///
    /// # Errors
    /// If `from` doesn't lead.
    pub(crate) fn on_timeout_now(&mut self, from: NodeId) -> Result<(), Rejected> {
        self.follow(from)?;
        let voter = self.may_lead();
        // Another term on a disk that hasn't done the last would only wait; the leader says it again.
        if voter && self.outbox.is_hard_state_durable() {
            self.become_candidate(true);
        }
        Ok(())
    }
}
