//! What a message meets first: is it possible, and which term is it of? (paper Figure 2, "Rules for All Servers").

use crate::{
    Body, Message, NodeId, Rejected, Resource, Term,
    message::Voice,
    raft::{Raft, Role},
};

impl Raft {
    /// "Rules for all servers" (paper Figure 2): terms first, then what the message says.
    pub(crate) fn receive(&mut self, from: NodeId, message: Message) -> Result<(), Rejected> {
        self.uncongested()?;
        message.validate().map_err(Rejected::Malformed)?;
        if from == self.config.id || from == NodeId(0) {
            return Err(Rejected::Unexpected { from });
        }
        self.check_bounds(&message)?;
        let term = message.term;
        // Answers count from members only. Requests are answered whoever in the cluster sends them: a voter that lags behind
        // the membership must still be led.
        let voice = message.body.voice();
        let among_members = match voice {
            Voice::PreVoter | Voice::Answerer | Voice::Asker => true,
            // A leader that has just left hands over, too.
            Voice::Leader => matches!(message.body, Body::TimeoutNow) && self.leader() != Some(from),
            Voice::PreCandidate | Voice::Candidate => false,
        };
        if among_members && !self.memberships.current().contains(from) && !self.still_leads(from, term) {
            return Err(Rejected::NotMember { from });
        }
        if term != self.hard_state.term && !self.meet_other_term(from, term, voice, &message.body)? {
            return Ok(());
        }
        match message.body {
            Body::PreVote { id, last } => {
                self.on_pre_vote(from, term, id, last);
                Ok(())
            }
            Body::PreVoteReply { id, granted } => {
                self.on_pre_vote_reply(from, term, id, granted);
                Ok(())
            }
            Body::Vote { last, commit, transfer } => {
                self.learn_commit(from, commit);
                self.on_vote(from, last, transfer);
                Ok(())
            }
            Body::VoteReply { granted, commit } => {
                self.learn_commit(from, commit);
                self.on_vote_reply(from, granted);
                Ok(())
            }
            Body::Append { prev, commit, entries } => self.on_append(from, prev, commit, entries),
            Body::Appended { up_to } => self.on_appended(from, up_to),
            Body::Conflict { prev, hint } => self.on_conflict(from, prev, hint),
            Body::Heartbeat { commit, round, quiesce } => self.on_heartbeat(from, commit, round, quiesce),
            Body::HeartbeatReply { round, asleep } => self.on_heartbeat_reply(from, round, asleep),
            Body::Commit { commit } => self.on_commit(from, commit),
            Body::ReadIndex { id } => {
                self.on_read_index(from, id);
                Ok(())
            }
            Body::ReadIndexReply { id, index } => {
                self.on_read_index_reply(from, id, index);
                Ok(())
            }
            Body::TimeoutNow => self.on_timeout_now(from),
            Body::InstallSnapshot { snapshot } => self.on_install_snapshot(from, snapshot),
        }
    }

    /// Who has left is led until that is committed, so that it hears of it; but it can't depose its leader any more.
    fn still_leads(&self, from: NodeId, term: Term) -> bool {
        match &self.role {
            Role::Leader(leader) => term == self.hard_state.term && leader.peer(from).is_some(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// A message of another term: a later one is taken on, an earlier one answered at best. True if it is to be read
    /// on.
    #[cold]
    fn meet_other_term(
        &mut self,
        from: NodeId,
        term: Term,
        voice: Voice,
        body: &Body,
    ) -> Result<bool, Rejected> {
        // Pre-votes are about a term that nobody is in yet.
        if matches!(voice, Voice::PreCandidate | Voice::PreVoter) {
            return Ok(true);
        }
        if term < self.hard_state.term {
            self.on_earlier_term(from, voice);
            return Ok(false);
        }
        // Only a voter can have been asked to take over; one that has left meanwhile deposes nobody.
        let transfer =
            matches!(body, Body::Vote { transfer: true, .. }) && self.memberships.current().is_voter(from);
        // Differs from the paper: the candidate gets no answer at all (§6 has its request "disregarded").
        if voice == Voice::Candidate && !transfer && self.hears_leader_for_votes() {
            self.stay_awake(from);
            return Ok(false);
        }
        self.check_later_term(from, body)?;
        self.become_follower(term, None);
        Ok(true)
    }

    /// A follower whose disk can't keep up drops appends; its leader sends them again.
    #[inline]
    fn check_bounds(&self, message: &Message) -> Result<(), Rejected> {
        let Body::Append { entries, .. } = &message.body else {
            return Ok(());
        };
        let (waiting, bound) = (self.outbox.unpersisted_bytes(), self.config.max_unpersisted_bytes);
        let bytes = entries.bytes();
        if bytes > 0 && waiting > 0 && waiting.saturating_add(bytes) > bound {
            return Err(Rejected::Overloaded { what: Resource::UnpersistedBytes, bound: bound as u64 });
        }
        Ok(())
    }

    /// Refuses what no correct leader of a later term says, before that term is taken on.
    fn check_later_term(&self, from: NodeId, body: &Body) -> Result<(), Rejected> {
        let possible = match body {
            Body::Append { prev, entries, .. } => !self.contradicts_commit(*prev, entries),
            Body::Heartbeat { commit, .. } | Body::Commit { commit } => *commit <= self.log.last().index,
            Body::InstallSnapshot { snapshot } => !self.snapshot_contradicts_commit(snapshot.last),
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::Vote { .. }
            | Body::VoteReply { .. }
            | Body::Appended { .. }
            | Body::Conflict { .. }
            | Body::HeartbeatReply { .. }
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::TimeoutNow => true,
        };
        if possible { Ok(()) } else { Err(Rejected::Unexpected { from }) }
    }

    /// A message of an earlier term. Who sends appends or heartbeats in it must learn of the own one, or a node that
    /// is stuck at a later term never comes back; all else is old news.
    fn on_earlier_term(&mut self, from: NodeId, voice: Voice) {
        match voice {
            // Whoever it is: the leader may be one that this node, which lags, has never heard of.
            Voice::Leader => self.send(from, Body::HeartbeatReply { round: 0, asleep: false }),
            // A refusal, which speaks of the present term, must not be taken for the answer to the vote that was granted.
            Voice::Candidate if self.hard_state.vote == Some(from) => {}
            Voice::Candidate => self.refuse_vote(from),
            Voice::PreCandidate | Voice::PreVoter | Voice::Asker | Voice::Answerer => {}
        }
    }

    /// A leader that isn't held to a quorum (check-quorum off) could hold on to a cluster that it can't lead: only with it
    /// on does a leader ignore candidates.
    pub(crate) fn hears_leader_for_votes(&self) -> bool {
        self.keeps_vote_back() && (self.config.check_quorum || !matches!(self.role, Role::Leader(_)))
    }
}
