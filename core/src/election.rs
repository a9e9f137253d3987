//! Elections (paper §5.2, §5.4.1), with a question before them (dissertation 9.6).

use alloc::vec::Vec;

use crate::{
    Claims, Event, HardState, Instant, LogId, NodeId, Outcome, Rejected, RequestId, Run, Term, Tokens,
    WriteSeq,
    backlog::Backlog,
    message::Body,
    quiesce::Idle,
    quorum::{self, VoteOutcome},
    raft::{Candidate, Follower, Leader, PreCandidate, Raft, Role},
    read::{ForwardedReads, LeaderReads},
};

/// Who has answered what: each counts once, whatever it says again.
#[derive(Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Votes(Vec<(NodeId, bool)>);

impl Votes {
    fn record(&mut self, from: NodeId, granted: bool) {
        if self.of(from).is_none() {
            self.0.push((from, granted));
        }
    }

    fn of(&self, id: NodeId) -> Option<bool> {
        self.0.iter().find(|(voter, _)| *voter == id).map(|(_, granted)| *granted)
    }
}

impl Raft {
    /// Somebody wants this node to campaign now.
    ///
    /// # Errors
    /// If it has no vote, or must not use it yet: what a leader's lease rests on is a promise that nobody's wish undoes.
    pub(crate) fn campaign(&mut self) -> Result<(), Rejected> {
        if matches!(self.role, Role::Leader(_)) {
            return Ok(());
        }
        if !self.may_lead() {
            return Err(Rejected::NotVoter);
        }
        if self.config.lease_reads && self.hears_leader() {
            return Err(Rejected::Leased);
        }
        self.on_election_timeout();
        self.wake();
        Ok(())
    }

    /// The leader is known to be gone.
    ///
    /// # Errors
    /// Under leases: nobody can know that for sure.
    pub(crate) fn forget_leader(&mut self) -> Result<(), Rejected> {
        if self.config.lease_reads {
            return Err(Rejected::Leased);
        }
        self.heard = None;
        if let Role::Follower(follower) = &mut self.role {
            follower.leader = None;
            follower.reads.end(Outcome::Refused { leader: None }, &mut self.outbox);
            self.announce_leader(None);
            self.wake();
        }
        Ok(())
    }

    /// The election timer has fired.
    pub(crate) fn on_election_timeout(&mut self) {
        if !self.may_lead() || self.hard_state.term.next().is_none() {
            // Nobody to campaign for; but whoever led is gone, and whoever waits for it should know.
            self.become_follower(self.hard_state.term, None);
            return self.ask_to_be_led();
        }
        if !self.outbox.is_hard_state_durable() {
            // Another term would be another write on a disk that hasn't done the last; and nobody would hear of it.
            return self.postpone_election();
        }
        if self.config.pre_vote {
            self.become_pre_candidate();
        } else {
            self.become_candidate(false);
        }
    }

    /// Is it a voter, or one until something is committed that takes the vote from it? "A server that is not part of its own
    /// latest configuration should still start new elections, as it might still be needed until the Cnew entry is
    /// committed" (dissertation 4.2.2): nobody else may have that entry. Its own vote doesn't count then. Only the latest
    /// membership in a log may be uncommitted.
    pub(crate) fn may_lead(&self) -> bool {
        let me = self.config.id;
        let (index, membership) = self.memberships.current_entry();
        membership.is_voter(me) || index > self.commit && self.memberships.at(index.prev()).is_voter(me)
    }

    fn postpone_election(&mut self) {
        let later = self.now.plus(self.random_timeout());
        match &mut self.role {
            Role::Follower(Follower { deadline, .. })
            | Role::PreCandidate(PreCandidate { deadline, .. })
            | Role::Candidate(Candidate { deadline, .. }) => *deadline = later,
            Role::Leader(_) => {}
        }
    }

    /// Asks whether an election could be won, before it disturbs anyone with a new term (dissertation 9.6).
    fn become_pre_candidate(&mut self) {
        self.leave_role();
        let id = self.request_ids.next();
        let deadline = self.now.plus(self.random_timeout());
        let mut votes = Votes::default();
        votes.record(self.config.id, true);
        self.role = Role::PreCandidate(PreCandidate { id, votes, deadline });
        self.announce_role();
        let last = self.log.last();
        self.ask_voters(&Body::PreVote { id, last });
        self.count_pre_votes();
    }

    /// A new term, and a vote for itself: both must be durable before anybody hears of them, the node itself included
    /// (paper §5.2; contract, point 5).
    pub(crate) fn become_candidate(&mut self, transfer: bool) {
        let Some(term) = self.hard_state.term.next() else {
            return;
        };
        self.leave_role();
        self.enter_term(term, Some(self.config.id));
        let deadline = self.now.plus(self.random_timeout());
        let last = self.log.last();
        let claims = Claims { hard_state: true, log: Some(last.index) };
        let own_vote = self.outbox.rests_on(claims, &self.log).unwrap_or(WriteSeq(0));
        self.role = Role::Candidate(Candidate { votes: Votes::default(), own_vote, deadline });
        self.announce_role();
        self.ask_voters(&Body::Vote { last, commit: self.commit_id(), transfer });
    }

    pub(crate) fn ask_voters(&mut self, body: &Body) {
        for id in self.memberships.current().members() {
            if id != self.config.id && self.memberships.current().is_voter(id) {
                self.send(id, body.clone());
            }
        }
    }

    /// RequestVote, the receiver's part (paper Figure 2), at the receiver's term.
    pub(crate) fn on_vote(&mut self, from: NodeId, last: LogId, transfer: bool) {
        let HardState { term, vote } = self.hard_state;
        // Candidates and leaders have voted for themselves.
        let transfer = transfer && self.memberships.current().is_voter(from);
        let free = vote.is_none() && (transfer || !self.keeps_vote_back()) || vote == Some(from);
        let granted = free && self.is_up_to_date(last);
        if granted && vote.is_none() {
            self.write_hard_state(term, Some(from));
        }
        if granted {
            // Granting a vote postpones one's own candidacy (paper §5.2).
            if matches!(self.role, Role::PreCandidate(_)) {
                self.become_follower(term, None);
            }
            self.reset_election_timer();
        }
        self.send(from, Body::VoteReply { granted, commit: self.commit_id() });
    }

    /// Differs from the paper: the commit index travels with votes. Whoever has that very entry knows then that it is committed.
    pub(crate) fn learn_commit(&mut self, from: NodeId, commit: LogId) {
        let follows = !matches!(self.role, Role::Leader(_));
        if follows && self.memberships.current().contains(from) && self.log.contains(commit) {
            self.commit_up_to(commit.index);
        }
    }

    /// The last entry that is known to be committed.
    fn commit_id(&self) -> LogId {
        self.log.term_at(self.commit).map_or(LogId::ZERO, |term| LogId::new(term, self.commit))
    }

    /// A RequestVote of an earlier term is refused with the own one.
    pub(crate) fn refuse_vote(&mut self, from: NodeId) {
        self.send(from, Body::VoteReply { granted: false, commit: self.commit_id() });
    }

    /// Would this node vote for `from` in the term after `term`? (dissertation 9.6). Nothing is promised by the answer,
    /// and nothing changed.
    pub(crate) fn on_pre_vote(&mut self, from: NodeId, term: Term, id: RequestId, last: LogId) {
        let new_term = term.next().is_some_and(|campaign| campaign > self.hard_state.term);
        let granted = new_term && !self.hears_leader_for_votes() && self.is_up_to_date(last);
        self.send(from, Body::PreVoteReply { id, granted });
        self.stay_awake(from);
    }

    pub(crate) fn on_pre_vote_reply(&mut self, from: NodeId, term: Term, id: RequestId, granted: bool) {
        if term > self.hard_state.term {
            // A refusal from a later term tells a node that it lags. That term may not be durable there; but a number
            // alone decides nothing: here it becomes durable before anything is said in it.
            return self.become_follower(term, None);
        }
        let Role::PreCandidate(candidate) = &mut self.role else {
            return;
        };
        if candidate.id != id {
            return;
        }
        candidate.votes.record(from, granted);
        self.count_pre_votes();
    }

    pub(crate) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        candidate.votes.record(from, granted);
        self.count_votes();
    }

    /// The own vote counts once it is durable, like anybody else's.
    pub(crate) fn count_own_vote(&mut self) {
        let me = self.config.id;
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        if candidate.votes.of(me).is_none() && self.outbox.is_durable(candidate.own_vote) {
            candidate.votes.record(me, true);
            self.count_votes();
        }
    }

    fn count_pre_votes(&mut self) {
        let Role::PreCandidate(candidate) = &self.role else {
            return;
        };
        match quorum::vote_outcome(self.memberships.current(), |id| candidate.votes.of(id)) {
            VoteOutcome::Won => self.become_candidate(false),
            VoteOutcome::Lost => self.become_follower(self.hard_state.term, None),
            VoteOutcome::Pending => {}
        }
    }

    /// Differs from the paper: a candidate waits for its timeout (§5.2). One that so many have refused that it can't win follows
    /// again, and so votes for the next in whatever term comes.
    fn count_votes(&mut self) {
        let Role::Candidate(candidate) = &self.role else {
            return;
        };
        match quorum::vote_outcome(self.memberships.current(), |id| candidate.votes.of(id)) {
            VoteOutcome::Won => self.become_leader(),
            VoteOutcome::Lost => self.become_follower(self.hard_state.term, None),
            VoteOutcome::Pending => {}
        }
    }

    fn become_leader(&mut self) {
        let (term, now) = (self.hard_state.term, self.now);
        let end = self.log.last().index;
        // The votes may have brought the news that it is no member any more.
        if end.next() >= crate::Index::LIMIT || !self.may_lead() {
            return self.become_follower(term, None);
        }
        self.leave_role();
        self.role = Role::Leader(Leader {
            term_start: end.next(),
            peers: self.peers_from(end.next()),
            heartbeat_due: now.plus(self.timing.heartbeat),
            quorum_due: now.plus(self.timing.election),
            round: 0,
            uncommitted: Backlog::new(),
            unsent: false,
            reads: LeaderReads::default(),
            rounds: alloc::collections::VecDeque::new(),
            told_to_campaign: false,
            change: None,
            unsettled: true,
            idle: Idle { since: now, last: end.next() },
            quiescing: false,
        });
        self.announce_role();
        self.announce_leader(Some(self.config.id));
        // What came before can only be committed together with an entry of this term (paper §5.4.2, §8).
        let first = if end == crate::Index(0) {
            // A log says who is in the cluster from its beginning, whatever each node began with.
            Run::membership(term, end.next(), self.memberships.current())
        } else {
            Run::noop(term, end.next())
        };
        self.append(first);
        self.broadcast_heartbeat();
        self.broadcast_append();
        self.advance_commit();
    }

    /// Follows `leader`, or nobody yet, in `term`: the present one or a later one.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        self.leave_role();
        if term > self.hard_state.term {
            self.enter_term(term, None);
        }
        let timeout = self.random_timeout().saturating_add(self.timing.patience);
        // Differs from the paper, which is silent about it: another term alone puts nothing off, only a leader or a vote that
        // is granted (§5.2). Else somebody who asks again and again, and can't be elected, keeps who could be from asking.
        let now = self.now;
        let begun = self.election_deadline().filter(|begun| leader.is_none() && *begun > now);
        let deadline = self.now.plus(timeout).min(begun.unwrap_or(Instant(u64::MAX)));
        self.role = Role::Follower(Follower { leader, timeout, deadline, reads: ForwardedReads::default() });
        self.announce_role();
        self.announce_leader(leader);
    }

    /// Leads no longer, by somebody's wish. It is the last to campaign next, as if its priority were 0.
    ///
    /// # Errors
    /// If it doesn't lead.
    pub(crate) fn step_down(&mut self) -> Result<(), Rejected> {
        let Role::Leader(leader) = &self.role else {
            return Err(Rejected::NotLeader { leader: self.leader() });
        };
        if self.asleep || leader.quiescing {
            // Nobody waits for a timeout who sleeps.
            self.broadcast_heartbeat();
        }
        self.become_follower(self.hard_state.term, None);
        let timeout = self.random_timeout().saturating_add(self.timing.election);
        self.wait_for(timeout);
        Ok(())
    }

    /// Ends what belongs to the role that is left.
    fn leave_role(&mut self) {
        self.end_sleep();
        let outcome = Outcome::Refused { leader: None };
        match &mut self.role {
            Role::Leader(leader) => {
                leader.reads.end(outcome, &mut self.outbox);
                if let Some(change) = leader.change.take() {
                    self.outbox.resolve(Tokens::one(change.token), Outcome::Unknown);
                }
                if self.transfer.is_some_and(|transfer| !transfer.told) {
                    self.end_transfer(outcome);
                }
                self.applying.disown_uncommitted(self.commit, &mut self.outbox);
            }
            Role::Follower(follower) => {
                follower.reads.end(outcome, &mut self.outbox);
            }
            Role::PreCandidate(_) => {}
            Role::Candidate(_) => self.outbox.forget_candidacy(),
        }
        self.announce_leader(None);
    }

    fn enter_term(&mut self, term: Term, vote: Option<NodeId>) {
        self.round_heard = 0;
        self.outbox.forget_parked();
        self.write_hard_state(term, vote);
    }

    fn write_hard_state(&mut self, term: Term, vote: Option<NodeId>) {
        self.hard_state = HardState { term, vote };
        self.outbox.write_hard_state(self.hard_state);
    }

    /// Log at least as up-to-date as this node's: the later last term, or the same and no shorter (paper §5.4.1).
    fn is_up_to_date(&self, last: LogId) -> bool {
        last >= self.log.last()
    }

    /// Leader stickiness: who has heard from a leader within the shortest election timeout, or leads with a quorum
    /// behind it, helps nobody to depose it (dissertation 4.2.3).
    ///
    /// With leases, a restarted node may have heard one just before: it keeps its vote back as long. A follower that sleeps hears
    /// nobody; a leader that sleeps is awake when it is asked.
    pub(crate) fn hears_leader(&self) -> bool {
        if self.now < self.no_vote_before {
            return true;
        }
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(_) => self.heard.is_some_and(|heard| self.now.since(heard) < self.timing.election),
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Does it keep its vote back from candidates? Who sleeps does, from the first that asks: that wakes it, and the leader too, which
    /// has its time to be heard. From then on the log alone decides.
    pub(crate) fn keeps_vote_back(&self) -> bool {
        self.hears_leader() || self.asleep
    }

    /// One to two election timeouts, drawn anew each time, so that split votes are rare and don't repeat
    /// (paper §5.2).
    fn random_timeout(&mut self) -> u64 {
        self.timing.election.saturating_add(self.rng.below(self.timing.election))
    }

    /// A follower's election timeout begins anew, and is another.
    pub(crate) fn draw_election_timeout(&mut self) {
        let timeout = self.random_timeout().saturating_add(self.timing.patience);
        self.wait_for(timeout);
    }

    fn wait_for(&mut self, us: u64) {
        let now = self.now;
        if let Role::Follower(follower) = &mut self.role {
            follower.timeout = us;
            follower.deadline = now.plus(us);
        }
    }

    fn reset_election_timer(&mut self) {
        let now = self.now;
        if let Role::Follower(follower) = &mut self.role {
            follower.deadline = now.plus(follower.timeout);
        }
    }

    /// The leader of this term was heard.
    ///
    /// # Errors
    /// If another node, or this one, leads in this term: then `from` can't.
    #[inline(always)]
    pub(crate) fn follow(&mut self, from: NodeId) -> Result<(), Rejected> {
        // Nearly always it is the one that is followed already.
        if let Role::Follower(follower) = &mut self.role
            && follower.leader == Some(from)
            && !self.asleep
        {
            follower.deadline = self.now.plus(follower.timeout);
            self.heard = Some(self.now);
            return Ok(());
        }
        self.follow_anew(from)
    }

    #[cold]
    fn follow_anew(&mut self, from: NodeId) -> Result<(), Rejected> {
        match &self.role {
            Role::Leader(_) => return Err(Rejected::Unexpected { from }),
            Role::Follower(follower) => match follower.leader {
                Some(leader) if leader != from => return Err(Rejected::Unexpected { from }),
                Some(_) => {}
                None => self.adopt_leader(from),
            },
            Role::PreCandidate(_) | Role::Candidate(_) => {
                self.become_follower(self.hard_state.term, Some(from));
            }
        }
        self.heard = Some(self.now);
        self.reset_election_timer();
        self.wake();
        Ok(())
    }

    fn adopt_leader(&mut self, from: NodeId) {
        if let Role::Follower(follower) = &mut self.role {
            follower.leader = Some(from);
        }
        self.announce_leader(Some(from));
    }

    fn announce_role(&mut self) {
        let (term, role) = (self.hard_state.term, self.role());
        if self.announced_role != Some((term, role)) {
            self.announced_role = Some((term, role));
            self.outbox.event(Event::Role { term, role });
        }
    }

    pub(crate) fn announce_leader(&mut self, leader: Option<NodeId>) {
        let news = (self.hard_state.term, leader);
        // "Nobody" is worth telling only of a leader that was known.
        if news == self.announced_leader || leader.is_none() && self.announced_leader.1.is_none() {
            return;
        }
        self.announced_leader = news;
        if let Some(leader) = leader {
            self.note_leader_for_transfer(leader);
        }
        self.outbox.event(Event::Leader { term: news.0, leader });
    }

    pub(crate) fn election_deadline(&self) -> Option<Instant> {
        match &self.role {
            Role::Follower(Follower { deadline, .. })
            | Role::PreCandidate(PreCandidate { deadline, .. })
            | Role::Candidate(Candidate { deadline, .. }) => Some(*deadline),
            Role::Leader(_) => None,
        }
    }
}
