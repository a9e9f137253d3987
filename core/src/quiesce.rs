//! Quiescence: a group that has had nothing to do for a while falls asleep. It says nothing and waits for nothing, so that
//! tens of thousands of idle groups cost a process nothing. The paper knows no such thing: its leaders speak for ever (§5.2).
//!
//! Falling asleep is a handshake, for who is silent must not be taken for dead, nor who is awake for asleep:
//!
//! 1. A leader that is [at rest](Raft::is_at_rest), and has been for [`Config::quiesce_after`](crate::Config), marks its next round
//!    of heartbeats with `quiesce`. With that it gives up its lease: nothing sent so far counts for one any more.
//! 2. A follower takes such a heartbeat for leave to sleep only if its log ends where the leader's does, durably, and the round is
//!    later than any that it has heard in the term; and not by one of a leader whom its transport has lost since, for who would wake
//!    it? It forgets that it hears a leader, and answers with `asleep`.
//! 3. When everyone has said so about that very round, the leader sleeps, too. Whom the transport has
//!    [lost](crate::Input::Unreachable) need not, but a quorum must. Until then it goes on with such rounds, and whatever else it
//!    has to do ends the attempt: its next plain heartbeat wakes those who sleep already.
//!
//! *Why the round must be later.* A leader sends quiescing round 5, has something to do, sends round 6 to everyone and takes a lease
//! on their answers. If the network now brings round 5 once more, and a follower slept by it, it would help the next candidate to
//! depose a leader that serves reads from that lease.
//!
//! *What wakes.* A leader: a proposal, a read, a change, a transfer that it has taken; a question or a request from a member;
//! whatever comes from somebody who was lost; a lost peer that [is back](crate::Input::Reachable); so many lost that the others
//! are no quorum. It says so to everyone at once, and has its quorum to find anew within an election timeout. A follower: any word
//! of its leader but that of sleeping on; a member's request for a vote; a read or a campaign here; its leader
//! [lost](crate::Input::Unreachable), or [forgotten](crate::Input::ForgetLeader). It waits for an election timeout then, drawn
//! anew. So it comes down to the transport to notice that a leader is gone while everybody sleeps.
//!
//! *Votes.* A follower that sleeps doesn't count as one that hears its leader, but whoever asks it for its vote is not helped at once:
//! that wakes it, as it wakes the leader, which has an election timeout to be heard. If it isn't, or if something else has woken
//! the follower, the log alone decides. Were the first one helped, then somebody who can speak and not hear would depose
//! leader after leader, whenever all sleep. Only members wake anybody: the membership of a group that sleeps is settled, and who
//! was removed disturbs nobody.

use crate::{
    Body, Event, Index, Instant, LogId, Message, Mode, NodeId, Rejected,
    message::Voice,
    progress::Peer,
    quorum,
    raft::{Leader, Raft, Role},
};

/// Since when a leader has nothing to do.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "replay", derive(serde::Deserialize))]
pub(crate) struct Idle {
    pub(crate) since: Instant,
    /// The end of its log then.
    pub(crate) last: Index,
}

impl Raft {
    /// Is it asleep? Then it has no [`deadline`](Raft::deadline), and says nothing before it is woken.
    #[must_use]
    pub const fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// A message comes to who is asleep, and may wake it: if it is taken at all. What a follower hears of its leader wakes it
    /// [where it follows](Raft::follow).
    #[cold]
    #[inline(never)]
    pub(crate) fn receive_asleep(&mut self, from: NodeId, message: Message) -> Result<(), Rejected> {
        let voice = message.body.voice();
        let leads = matches!(self.role, Role::Leader(_));
        let wakes = if leads {
            self.wakes_leader(from, voice)
        } else {
            matches!(voice, Voice::PreCandidate | Voice::Candidate)
                && self.memberships.current().contains(from)
        };
        let result = self.receive(from, message);
        if wakes && self.asleep && result.is_ok() {
            if !leads {
                // As if it had just heard its leader, who was asked as well.
                self.heard = Some(self.now);
            }
            self.wake();
        }
        result
    }

    /// Late answers wake no leader: everybody who could have sent one sleeps. Who was lost has not said so.
    fn wakes_leader(&self, from: NodeId, voice: Voice) -> bool {
        let asks = match voice {
            Voice::PreCandidate | Voice::Candidate | Voice::Asker => true,
            Voice::PreVoter | Voice::Answerer | Voice::Leader => false,
        };
        matches!(&self.role, Role::Leader(leader) if leader.peer(from).is_some())
            && (asks || self.is_lost(from))
    }

    /// A leader is asked to be followed by somebody else. If it lets the others sleep, whoever was asked as well may be awake by now:
    /// it is heard at once, and doesn't go to sleep by what they have said before.
    pub(crate) fn stay_awake(&mut self, from: NodeId) {
        if matches!(&self.role, Role::Leader(leader) if leader.quiescing && leader.peer(from).is_some()) {
            self.broadcast_heartbeat();
        }
    }

    /// Ends sleep; nothing, if it has ended already.
    #[cold]
    pub(crate) fn wake(&mut self) {
        if !self.asleep {
            return;
        }
        match &self.role {
            Role::Leader(_) => self.broadcast_heartbeat(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                self.end_sleep();
                self.draw_election_timeout();
            }
        }
    }

    /// It is awake; its timers are the caller's.
    pub(crate) fn end_sleep(&mut self) {
        if core::mem::take(&mut self.asleep) {
            self.outbox.event(Event::Awake);
        }
    }

    fn fall_asleep(&mut self) {
        if !self.asleep {
            self.asleep = true;
            self.outbox.event(Event::Asleep);
        }
    }

    // ---- the leader ----

    /// A round of heartbeats is due: does it ask everyone to sleep?
    pub(crate) fn beat(&mut self) {
        if self.is_idle() {
            // From here on, whoever has answered may help somebody else.
            self.forget_rounds();
            self.send_heartbeats(true);
        } else {
            self.broadcast_heartbeat();
        }
    }

    /// Has there been nothing to do for long enough?
    fn is_idle(&mut self) -> bool {
        if self.timing.quiesce == 0 {
            return false;
        }
        let (now, last, rests) = (self.now, self.log.last().index, self.is_at_rest());
        let Role::Leader(leader) = &mut self.role else { return false };
        if !rests || leader.idle.last != last {
            leader.idle = Idle { since: now, last };
        }
        now.since(leader.idle.since) >= self.timing.quiesce
    }

    /// Is there nothing to do? All that is in the log is committed and handed out, everyone who can be reached has it, nobody
    /// waits for anything, and the membership is to stay.
    pub(crate) fn is_at_rest(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let last = self.log.last().index;
        let membership = self.memberships.current();
        self.commit == last
            && self.log.durable() == last
            && self.applying.handed() == last
            && leader.uncommitted.is_empty()
            && leader.reads.len() == 0
            && leader.change.is_none()
            && self.transfer.is_none()
            && !leader.unsettled
            && !membership.is_joint()
            && membership.joining().is_empty()
            && !leader.peers.is_empty()
            && leader.peers.iter().all(|peer| peer.is_at_rest(last, self.is_lost(peer.id)))
    }

    /// A peer has answered, or was lost: does everybody sleep who can?
    pub(crate) fn consider_sleep(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        if leader.quiescing && self.everyone_sleeps(leader) && self.is_at_rest() {
            self.fall_asleep();
        }
    }

    fn everyone_sleeps(&self, leader: &Leader) -> bool {
        let sleeps = |peer: &Peer| peer.asleep_since == leader.round;
        leader.idle.last == self.log.last().index
            && leader.peers.iter().all(|peer| sleeps(peer) || self.is_lost(peer.id))
            && self.is_quorum(|id| leader.peer(id).is_some_and(sleeps))
    }

    /// The transport has lost touch with somebody while this node sleeps.
    pub(crate) fn on_lost_asleep(&mut self, id: NodeId) {
        let wakes = match &self.role {
            Role::Leader(_) => !self.is_quorum(|id| !self.is_lost(id)),
            Role::Follower(follower) => follower.leader == Some(id),
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        };
        if wakes {
            self.wake();
        }
    }

    /// Are these, and this node, a quorum?
    fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        let me = self.config.id;
        quorum::reached(self.memberships.current(), |id| u64::from(id == me || has(id))) > 0
    }

    /// The transport is in touch with a peer again: it is waited for from now on.
    pub(crate) fn on_reachable(&mut self, id: NodeId) {
        self.found(id);
        if matches!(&self.role, Role::Leader(leader) if leader.peer(id).is_some()) {
            self.wake();
        }
    }

    // ---- both ----

    /// Remembered whoever leads: the next leader should not wait for it either.
    pub(crate) fn note_lost(&mut self, id: NodeId) {
        let membership = self.memberships.current();
        self.lost.retain(|other| *other != id && membership.contains(*other));
        if membership.contains(id) && id != self.config.id {
            self.lost.push(id);
        }
    }

    #[inline]
    pub(crate) fn found(&mut self, id: NodeId) {
        if !self.lost.is_empty() {
            self.lost.retain(|other| *other != id);
        }
    }

    fn is_lost(&self, id: NodeId) -> bool {
        self.lost.contains(&id)
    }

    // ---- the follower ----

    /// Does this quiescing heartbeat allow this node to sleep, or to sleep on? The leader's log ends at what it says is committed,
    /// and with an entry of its own term, as each leader's does.
    pub(crate) fn may_sleep(&self, from: NodeId, commit: Index, round: u64) -> bool {
        let Role::Follower(follower) = &self.role else { return false };
        let newest = round > self.round_heard || self.asleep && round == self.round_heard;
        self.timing.quiesce > 0
            && newest
            && follower.leader == Some(from)
            && !self.is_lost(from)
            && follower.reads.len() == 0
            && self.transfer.is_none()
            && self.log.last() == LogId::new(self.hard_state.term, commit)
            && self.log.durable() == commit
    }

    /// Sleeps by the leader's leave. Whoever hears of no leader keeps its vote back for none.
    pub(crate) fn sleep_by(&mut self, commit: Index, round: u64) {
        self.commit_up_to(commit);
        self.round_heard = round;
        self.heard = None;
        if let Role::Follower(follower) = &mut self.role {
            follower.deadline = Instant(u64::MAX);
        }
        self.fall_asleep();
    }

    /// Who has no vote doesn't campaign when it hears of no leader. It asks all the same, if only to be heard: the leader may sleep. A
    /// pre-vote changes nobody's state, and speaks for no term: so it can't depose a leader whom only the author doesn't hear.
    pub(crate) fn ask_to_be_led(&mut self) {
        if self.timing.quiesce > 0 && self.memberships.current().contains(self.config.id) {
            let (id, last) = (self.request_ids.next(), self.log.last());
            self.ask_voters(&Body::PreVote { id, last });
        }
    }
}

impl Peer {
    /// Has it all there is, or can't it be reached?
    fn is_at_rest(&self, last: Index, lost: bool) -> bool {
        let has_all = self.mode() == Mode::Replicate && self.match_index() == last;
        (has_all || lost && self.mode() != Mode::Snapshot) && self.load.is_none()
    }
}
