//! Linearizable reads without a log entry: ReadIndex (paper §8, dissertation 6.4).
//!
//! A read takes the leader's commit index as of its arrival, and is confirmed once a quorum has answered a round of
//! heartbeats that was sent after that: then no other leader can have committed anything before the read arrived. Reads
//! that arrive while a round is under way share the next one. A follower asks its leader for an index and waits until
//! it has handed that much to its own state machine.
//!
//! With leases (dissertation 6.4.1) the round may be saved: whoever answered a heartbeat keeps its vote back for an election
//! timeout after it has heard it, so nobody else is elected within an election timeout after that round was *sent*. The
//! lease ends earlier by what clocks may drift, and is looked at anew with each read, under the membership then in force.
//! Once another node was told to campaign, there is none for the rest of the term: those who hear the leader may vote then.

use alloc::{collections::VecDeque, vec::Vec};

use crate::{
    Index, Instant, NodeId, Outcome, ReadKind, Rejected, RequestId, Resource, Token, Tokens,
    backlog::spare,
    message::Body,
    outbox::Outbox,
    raft::{Raft, Role},
};

/// Who waits for an index.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) enum Reader {
    Here(Token),
    There { from: NodeId, id: RequestId },
}

/// Reads that a leader has not confirmed.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct LeaderReads {
    /// Came before the term's first commit: until then the leader doesn't know what is committed.
    early: Vec<Reader>,
    /// In order of arrival: each with the index it must see and the round that confirms it.
    waiting: VecDeque<(u64, Index, Reader)>,
}

impl LeaderReads {
    pub(crate) fn len(&self) -> usize {
        self.early.len().saturating_add(self.waiting.len())
    }

    /// Gives back the room that a burst has taken.
    pub(crate) fn give_back(&mut self) {
        self.early.shrink_to(0);
        spare(&mut self.waiting);
    }

    /// Is there a read that no round sent so far confirms?
    fn wants_round_after(&self, round: u64) -> bool {
        self.waiting.back().is_some_and(|(needed, _, _)| *needed > round)
    }

    fn local_tokens(&self) -> impl Iterator<Item = Token> + '_ {
        let readers = self.early.iter().chain(self.waiting.iter().map(|(_, _, reader)| reader));
        readers.filter_map(|reader| match reader {
            Reader::Here(token) => Some(*token),
            Reader::There { .. } => None,
        })
    }

    /// Ends every local one; remote ones ask again, or hear of the next leader.
    pub(crate) fn end(&mut self, outcome: Outcome, outbox: &mut Outbox) {
        for token in self.local_tokens() {
            outbox.resolve(Tokens::one(token), outcome);
        }
        *self = Self::default();
    }
}

/// Reads that a follower has passed on, or will.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct ForwardedReads {
    asked: Option<Asked>,
    queued: Vec<Token>,
}

/// A question to the leader, on behalf of these.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
struct Asked {
    /// Each time it was asked it had another id, from `first` to `latest`. An answer to any of them will do: all were
    /// asked after the last of these reads came.
    first: RequestId,
    latest: RequestId,
    tokens: Vec<Token>,
    /// When to ask again, should there be no answer.
    again: Instant,
}

impl ForwardedReads {
    pub(crate) fn len(&self) -> usize {
        self.asked.as_ref().map_or(0, |asked| asked.tokens.len()).saturating_add(self.queued.len())
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.asked.as_ref().map(|asked| asked.again)
    }

    /// Ends every one of them.
    pub(crate) fn end(&mut self, outcome: Outcome, outbox: &mut Outbox) {
        let asked = self.asked.take().map(|asked| asked.tokens).unwrap_or_default();
        for token in asked.into_iter().chain(core::mem::take(&mut self.queued)) {
            outbox.resolve(Tokens::one(token), outcome);
        }
    }
}

impl Raft {
    /// A local read: from where on is it linearizable?
    ///
    /// # Errors
    /// If nobody can be asked, or too many wait already.
    pub(crate) fn read(&mut self, token: Token, kind: ReadKind) -> Result<(), Rejected> {
        if self.pending_reads() >= self.config.max_reads {
            return Err(Rejected::Overloaded { what: Resource::Reads, bound: self.config.max_reads as u64 });
        }
        let leased = kind == ReadKind::Lease && self.has_lease();
        match &mut self.role {
            Role::Leader(leader) if leased => {
                leader.idle.since = self.now;
                self.applying.confirm(token, self.commit, &mut self.outbox);
            }
            Role::Leader(_) => self.lead_read(Reader::Here(token)),
            Role::Follower(follower) if follower.leader.is_some() => {
                follower.reads.queued.push(token);
                self.forward_reads();
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                return Err(Rejected::NoLeader { term: self.hard_state.term });
            }
        }
        if self.asleep {
            self.wake();
        }
        Ok(())
    }

    /// A read that asks nobody: it waits until everything up to `index` has been handed to the state machine.
    ///
    /// # Errors
    /// If too many like it wait already, or no log could ever have that index.
    pub(crate) fn read_at_least(&mut self, token: Token, index: Index) -> Result<(), Rejected> {
        if index >= Index::LIMIT {
            return Err(Rejected::Exhausted);
        }
        // A bound of their own: they may wait for ever, and must not hold up the others.
        if self.applying.reads_at_least() >= self.config.max_reads {
            return Err(Rejected::Overloaded { what: Resource::Reads, bound: self.config.max_reads as u64 });
        }
        self.applying.read_at_least(token, index, &mut self.outbox);
        Ok(())
    }

    pub(crate) fn pending_reads(&self) -> usize {
        let unconfirmed = match &self.role {
            Role::Leader(leader) => leader.reads.len(),
            Role::Follower(follower) => follower.reads.len(),
            Role::PreCandidate(_) | Role::Candidate(_) => 0,
        };
        unconfirmed.saturating_add(self.applying.reads())
    }

    /// May the leader serve reads without asking anybody?
    fn has_lease(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => {
                self.commit >= leader.term_start && self.lease_until().is_some_and(|end| self.now < end)
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Until when the newest round that a quorum has answered gives a lease.
    pub(crate) fn lease_until(&self) -> Option<Instant> {
        let Role::Leader(leader) = &self.role else { return None };
        if !self.config.lease_reads || leader.told_to_campaign {
            return None;
        }
        let confirmed = self.confirmed_round();
        let newest = leader.rounds.iter().rev().find(|(round, _)| *round <= confirmed);
        newest.map(|(_, sent)| sent.plus(self.timing.lease))
    }

    /// A round of heartbeats goes out: when, for the lease.
    pub(crate) fn note_round(&mut self) {
        if !self.config.lease_reads {
            return;
        }
        let (now, lease, confirmed) = (self.now, self.timing.lease, self.confirmed_round());
        let Role::Leader(leader) = &mut self.role else { return };
        // A clock that was set back says nothing about how much time passes.
        if !self.clock_held {
            leader.rounds.push_back((leader.round, now));
            // The newest that a quorum has answered says more than those before it.
            let said =
                |rounds: &VecDeque<(u64, Instant)>| rounds.get(1).is_some_and(|(next, _)| *next <= confirmed);
            let over = |(_, sent): &(u64, Instant)| sent.plus(lease) <= now;
            while said(&leader.rounds) || leader.rounds.front().is_some_and(over) {
                leader.rounds.pop_front();
            }
        }
    }

    /// The clock was set back, or everyone may sleep: no lease rests on what was sent before.
    pub(crate) fn forget_rounds(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.rounds.clear();
        }
    }

    /// A follower's question.
    pub(crate) fn on_read_index(&mut self, from: NodeId, id: RequestId) {
        if !matches!(self.role, Role::Leader(_)) {
            return self.send(from, Body::ReadIndexReply { id, index: None });
        }
        // Over the bound it is dropped, as the network might; the follower asks again.
        if self.pending_reads() < self.config.max_reads {
            self.lead_read(Reader::There { from, id });
        }
    }

    fn lead_read(&mut self, reader: Reader) {
        let (commit, now) = (self.commit, self.now);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.idle.since = now;
        if commit < leader.term_start {
            return leader.reads.early.push(reader);
        }
        // A round under way was sent before this read came, and proves nothing about it.
        let needed = leader.round.saturating_add(1);
        leader.reads.waiting.push_back((needed, commit, reader));
        self.advance_reads();
    }

    /// The term's first commit: what came before it can be served from it on.
    pub(crate) fn release_early_reads(&mut self) {
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if leader.reads.early.is_empty() || commit < leader.term_start {
            return;
        }
        let needed = leader.round.saturating_add(1);
        for reader in core::mem::take(&mut leader.reads.early) {
            leader.reads.waiting.push_back((needed, commit, reader));
        }
        self.advance_reads();
    }

    /// Confirms what a quorum has confirmed, and begins the next round if one is wanted and none is under way.
    pub(crate) fn advance_reads(&mut self) {
        self.confirm_reads();
        let Role::Leader(leader) = &self.role else { return };
        if leader.reads.wants_round_after(leader.round) && self.confirmed_round() >= leader.round {
            self.broadcast_heartbeat();
            // A quorum of one has confirmed it already.
            self.confirm_reads();
        }
    }

    /// The newest round that a quorum of the membership now in force has answered.
    fn confirmed_round(&self) -> u64 {
        let Role::Leader(leader) = &self.role else {
            return 0;
        };
        crate::quorum::reached(self.memberships.current(), |id| {
            if id == self.config.id {
                leader.round
            } else {
                leader.peer(id).map_or(0, |peer| peer.acked_round)
            }
        })
    }

    fn confirm_reads(&mut self) {
        let confirmed = self.confirmed_round();
        while let Role::Leader(leader) = &mut self.role
            && let Some((needed, index, reader)) = leader.reads.waiting.front().copied()
            && needed <= confirmed
        {
            leader.reads.waiting.pop_front();
            match reader {
                Reader::Here(token) => self.applying.confirm(token, index, &mut self.outbox),
                Reader::There { from, id } => {
                    self.send(from, Body::ReadIndexReply { id, index: Some(index) });
                }
            }
        }
    }

    /// Asks the leader on behalf of the reads that are queued, one question at a time.
    pub(crate) fn forward_reads(&mut self) {
        let again = self.now.plus(self.timing.heartbeat);
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let Some(leader) = follower.leader else { return };
        if follower.reads.asked.is_some() || follower.reads.queued.is_empty() {
            return;
        }
        let tokens = core::mem::take(&mut follower.reads.queued);
        let id = self.request_ids.next();
        follower.reads.asked = Some(Asked { first: id, latest: id, tokens, again });
        self.send(leader, Body::ReadIndex { id });
    }

    /// The leader has not answered in time: asks again, under a new id.
    pub(crate) fn ask_again(&mut self) {
        let again = self.now.plus(self.timing.heartbeat);
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let (Some(leader), Some(asked)) = (follower.leader, &mut follower.reads.asked) else {
            return;
        };
        let id = self.request_ids.next();
        asked.latest = id;
        asked.again = again;
        self.send(leader, Body::ReadIndex { id });
    }

    /// The leader's answer; one that nobody waits for is old news.
    pub(crate) fn on_read_index_reply(&mut self, from: NodeId, id: RequestId, index: Option<Index>) {
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let leader = follower.leader;
        let ours = |asked: &mut Asked| leader == Some(from) && (asked.first..=asked.latest).contains(&id);
        let Some(asked) = follower.reads.asked.take_if(ours) else {
            return;
        };
        for token in asked.tokens {
            match index {
                Some(index) => self.applying.confirm(token, index, &mut self.outbox),
                None => self.outbox.resolve(Tokens::one(token), Outcome::Refused { leader }),
            }
        }
        self.forward_reads();
    }
}
