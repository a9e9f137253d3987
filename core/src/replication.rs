//! Log replication (paper §5.3) and the commit rule (§5.4.2).

use crate::{
    Action, Event, Few, Index, Instant, Load, LoadId, Loaded, LogId, Mode, NodeId, Proposal, Rejected,
    Resource, Run,
    log::Read,
    message::{Body, Message},
    progress::{Peer, Window},
    quorum,
    raft::{Leader, Raft, Role},
};
use alloc::{boxed::Box, vec::Vec};

impl Raft {
    // ---- the leader ----

    /// Appends commands to the log and sends them on; they are durable and committed later.
    ///
    /// # Errors
    /// If this node does not lead, or a bound would be passed. Nothing has changed then.
    pub(crate) fn propose(&mut self, proposal: Proposal) -> Result<(), Rejected> {
        self.uncongested()?;
        let (bytes, tokens) = (proposal.batch.bytes(), proposal.tokens());
        let bound = self.config.max_uncommitted_bytes;
        let first = self.log.last().index.next();
        let leader_hint = self.leader();
        self.refuse_while_transferring()?;
        let Role::Leader(leader) = &mut self.role else {
            return Err(Rejected::NotLeader { leader: leader_hint });
        };
        if proposal.term.is_some_and(|term| term != self.hard_state.term) {
            return Err(Rejected::WrongTerm { term: self.hard_state.term });
        }
        if bytes > bound {
            return Err(Rejected::TooBig { bytes: bytes as u64, bound: bound as u64 });
        }
        let over = leader.uncommitted.bytes().saturating_add(bytes) > bound;
        if over {
            return Err(Rejected::Overloaded { what: Resource::UncommittedBytes, bound: bound as u64 });
        }
        // With a stalled disk of its own, a leader could go on for ever: its followers commit without it.
        let (unpersisted, bound) = (self.outbox.unpersisted_bytes(), self.config.max_unpersisted_bytes);
        if unpersisted > 0 && unpersisted.saturating_add(bytes) > bound {
            return Err(Rejected::Overloaded { what: Resource::UnpersistedBytes, bound: bound as u64 });
        }
        if first.plus(tokens.count) >= Index::LIMIT {
            return Err(Rejected::Exhausted);
        }
        let Some(run) = Run::of(self.hard_state.term, first, proposal.batch) else {
            return Err(Rejected::Empty);
        };
        leader.uncommitted.push(run.last(), bytes);
        // Sent once the actions are polled: what arrives together leaves together.
        leader.unsent = true;
        self.applying.propose(first, tokens);
        self.append(run);
        if self.asleep {
            self.wake();
        }
        Ok(())
    }

    /// Sends on what was proposed since the last poll.
    #[inline]
    pub(crate) fn send_proposed(&mut self) {
        if let Role::Leader(leader) = &mut self.role
            && core::mem::take(&mut leader.unsent)
        {
            self.broadcast_append();
        }
    }

    /// Puts entries at the end of the log, to be durable with this step's write.
    #[inline]
    pub(crate) fn append(&mut self, run: Run) {
        if run.has_membership() {
            self.take_up_memberships(&run);
        }
        self.log.append(run.clone(), self.outbox.draft_seq());
        self.outbox.write_entries(run);
    }

    /// A membership is in force from the moment it is in the log (paper §6).
    #[cold]
    fn take_up_memberships(&mut self, run: &Run) {
        for (index, membership) in run.memberships() {
            self.outbox.event(Event::Membership { index, membership: Box::new(membership.clone()) });
            self.memberships.push(index, membership);
        }
    }

    /// Everyone else, as a new leader sees them.
    pub(crate) fn peers_from(&self, next: Index) -> Vec<Peer> {
        let mut others = self.memberships.current().members();
        others.retain(|id| *id != self.config.id);
        others.into_iter().map(|id| Peer::new(id, next, self.now)).collect()
    }

    /// Sends each peer what it lacks, as far as its window allows.
    pub(crate) fn broadcast_append(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        for at in 0..leader.peers.len() {
            self.replicate_to(at);
        }
    }

    #[inline(always)]
    fn replicate_to_id(&mut self, id: NodeId) {
        if let Some(at) = self.peer_at(id) {
            self.replicate_to(at);
        }
    }

    #[inline]
    fn peer_at(&self, id: NodeId) -> Option<usize> {
        match &self.role {
            Role::Leader(leader) => leader.peers.iter().position(|peer| peer.id == id),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Sends one peer what it lacks. In `Replicate`, appends follow each other without waiting for answers
    /// (dissertation 10.2.1); in `Probe`, one goes out to find where the logs agree.
    #[inline]
    fn replicate_to(&mut self, at: usize) {
        while let Role::Leader(leader) = &self.role
            && let Some(peer) = leader.peers.get(at)
            && (peer.next_index() <= self.log.last().index || peer.mode() == Mode::Probe)
            && self.send_next(at)
        {}
    }

    /// Sends one peer one append, if its window has room. True if there may be room for another.
    #[inline(never)]
    fn send_next(&mut self, at: usize) -> bool {
        let last = self.log.last().index;
        let max_bytes = self.config.max_append_bytes;
        let window =
            Window { messages: self.config.max_inflight_messages, bytes: self.config.max_inflight_bytes };
        let Role::Leader(leader) = &mut self.role else {
            return false;
        };
        let round = leader.round;
        let Some(peer) = leader.peers.get_mut(at) else {
            return false;
        };
        let next = peer.next_index();
        if !peer.has_room(window) || peer.load.is_some() {
            return false;
        }
        if next <= self.log.base().index {
            self.send_snapshot(at);
            return false;
        }
        let entries = if next > last {
            Few::new()
        } else {
            match self.log.read(next, last, max_bytes) {
                Read::Cached(entries) => entries,
                Read::NotCached => {
                    let id = LoadId(self.request_ids.next());
                    peer.load = Some((id, next));
                    self.outbox.emit(Action::Load(Load { id, first: next, last, max_bytes }));
                    return false;
                }
            }
        };
        let to = peer.id;
        Self::note_sent(peer, next, &entries, round, self.now, self.commit);
        self.send_append(to, next, entries);
        true
    }

    #[inline(always)]
    fn note_sent(peer: &mut Peer, next: Index, entries: &Few<Run>, round: u64, now: Instant, commit: Index) {
        let end = entries.last().map_or(next.prev(), Run::last);
        let bytes = entries.bytes();
        peer.on_sent(end, bytes, round, now);
        peer.told_commit = peer.told_commit.max(commit.min(end));
    }

    #[inline(always)]
    fn send_append(&mut self, to: NodeId, next: Index, entries: Few<Run>) {
        let prev = next.prev();
        // Every index that a peer can be sent from is in the log or its base.
        let Some(term) = self.log.term_at(prev) else {
            return;
        };
        let body = Body::Append { prev: LogId::new(term, prev), commit: self.commit, entries };
        self.outbox.send(to, Message { term: self.hard_state.term, body }, &self.log);
    }

    /// A peer has the log up to `up_to`, durably.
    ///
    /// # Errors
    /// If it was never sent that much.
    #[inline(always)]
    pub(crate) fn on_appended(&mut self, from: NodeId, up_to: Index) -> Result<(), Rejected> {
        let (now, base) = (self.now, self.log.base().index);
        let Some(peer) = self.peer_mut(from) else {
            return Ok(());
        };
        if !peer.could_acknowledge(up_to) {
            return Err(Rejected::Unexpected { from });
        }
        peer.heard = now;
        let before = peer.mode();
        let news = peer.on_appended(up_to, base);
        let mode = peer.mode();
        if mode != before {
            self.outbox.event(Event::Peer { id: from, mode });
        }
        // What is committed already commits nothing more.
        if news && up_to > self.commit {
            self.advance_commit();
        }
        // Only now: what was committed may have been a membership without some peer.
        let Some(at) = self.peer_at(from) else { return Ok(()) };
        self.replicate_to(at);
        if news {
            self.tell_commit(at);
            if !self.memberships.current().joining().is_empty() {
                self.consider_promotion(from);
            }
            if self.transfer.is_some_and(|transfer| transfer.to == from) {
                self.tell_to_campaign();
            }
        }
        Ok(())
    }

    /// A peer lacks what an append built on.
    ///
    /// # Errors
    /// If no correct peer can have said this.
    pub(crate) fn on_conflict(&mut self, from: NodeId, prev: Index, hint: LogId) -> Result<(), Rejected> {
        let Role::Leader(leader) = &mut self.role else {
            return Ok(());
        };
        let Some(peer) = leader.peer_mut(from) else {
            return Ok(());
        };
        if hint.index > prev || !peer.could_acknowledge(prev) {
            return Err(Rejected::Unexpected { from });
        }
        peer.heard = self.now;
        let before = peer.mode();
        if peer.on_conflict(prev, hint, &self.log) {
            if before != Mode::Probe {
                self.outbox.event(Event::Peer { id: from, mode: Mode::Probe });
            }
            self.replicate_to_id(from);
        }
        Ok(())
    }

    /// The transport has lost touch with a peer: what was under way to it is sent again, from what it is known to have.
    pub(crate) fn on_unreachable(&mut self, id: NodeId) {
        let asleep = self.asleep;
        self.note_lost(id);
        if let Some(peer) = self.peer_mut(id) {
            peer.asleep_since = 0;
            if peer.mode() == Mode::Replicate {
                peer.on_unreachable();
                self.outbox.event(Event::Peer { id, mode: Mode::Probe });
                // Who sleeps asks when it is awake again.
                if !asleep {
                    self.replicate_to_id(id);
                }
            }
        }
        if asleep { self.on_lost_asleep(id) } else { self.consider_sleep() }
    }

    /// Says to everyone that it lives (paper §5.2), with a new round number.
    ///
    /// Differs from the paper: a heartbeat is no AppendEntries. It never waits behind entries, and its answer speaks of term and
    /// vote only, so that a read's round never waits for a log write.
    pub(crate) fn broadcast_heartbeat(&mut self) {
        let (asleep, now, check) = (self.asleep, self.now, self.now.plus(self.timing.election));
        if let Role::Leader(leader) = &mut self.role
            && leader.quiescing
        {
            leader.idle.since = now;
            if asleep {
                leader.quorum_due = check;
            }
        }
        self.end_sleep();
        self.send_heartbeats(false);
    }

    /// Sends a round of heartbeats, to say that it lives, or that everybody may sleep.
    pub(crate) fn send_heartbeats(&mut self, quiesce: bool) {
        let (commit, due) = (self.commit, self.now.plus(self.timing.heartbeat));
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.round = leader.round.saturating_add(1);
        leader.heartbeat_due = due;
        leader.quiescing = quiesce;
        let round = leader.round;
        if !quiesce {
            self.note_round();
        }
        self.give_back();
        let Role::Leader(leader) = &self.role else { return };
        for at in 0..leader.peers.len() {
            let Role::Leader(leader) = &mut self.role else {
                return;
            };
            let Some(peer) = leader.peers.get_mut(at) else {
                return;
            };
            // Beyond what is known to match, its log may hold something else.
            let commit = commit.min(peer.match_index());
            peer.told_commit = peer.told_commit.max(commit);
            let to = peer.id;
            self.send(to, Body::Heartbeat { commit, round, quiesce });
        }
    }

    /// A peer still follows.
    ///
    /// # Errors
    /// If that round was never sent.
    pub(crate) fn on_heartbeat_reply(
        &mut self,
        from: NodeId,
        round: u64,
        asleep: bool,
    ) -> Result<(), Rejected> {
        let Role::Leader(leader) = &mut self.role else {
            return Ok(());
        };
        if round > leader.round {
            return Err(Rejected::Unexpected { from });
        }
        let (now_round, now, heartbeat) = (leader.round, self.now, self.timing.heartbeat);
        let base = self.log.base().index;
        let Some(peer) = leader.peer_mut(from) else {
            return Ok(());
        };
        peer.heard = now;
        peer.acked_round = peer.acked_round.max(round);
        if asleep {
            peer.asleep_since = peer.asleep_since.max(round);
        }
        if peer.seems_lost(round, now, heartbeat) {
            match peer.mode() {
                Mode::Probe => peer.probe_again(),
                // Its end is said by the driver.
                Mode::Snapshot => {}
                // What it would follow is compacted away: there is nothing to ask, it gets the snapshot.
                Mode::Replicate if peer.next_index() <= base => {
                    peer.on_unreachable();
                    self.outbox.event(Event::Peer { id: from, mode: Mode::Probe });
                }
                // An empty append behind everything that is under way: its answer says what arrived.
                Mode::Replicate => {
                    let next = peer.next_index();
                    peer.on_sent(next.prev(), 0, now_round, now);
                    self.send_append(from, next, Few::new());
                }
            }
        }
        self.found(from);
        self.replicate_to_id(from);
        self.advance_reads();
        self.consider_promotion(from);
        if self.transfer.is_some_and(|transfer| transfer.to == from) {
            self.tell_to_campaign();
        }
        if asleep {
            self.consider_sleep();
        }
        Ok(())
    }

    /// The commit rule: an entry of the leader's own term that is durable on a quorum is committed, and all before it
    /// (paper §5.3, §5.4.2). An earlier term's entry is never committed by counting (Figure 8). The leader's own log
    /// counts as far as it is durable.
    pub(crate) fn advance_commit(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let (me, durable) = (self.config.id, self.log.durable());
        let reached = quorum::reached(self.memberships.current(), |id| {
            if id == me { durable } else { leader.peer(id).map_or(Index(0), Peer::match_index) }
        });
        if reached <= self.commit || self.log.term_at(reached) != Some(self.hard_state.term) {
            return;
        }
        self.commit = reached;
        self.advance_apply();
        self.broadcast_commit();
        self.release_early_reads();
        self.settle_membership();
    }

    #[inline]
    fn broadcast_commit(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        for at in 0..leader.peers.len() {
            self.tell_commit(at);
        }
    }

    /// Tells a peer what is committed of what it has, if no append has said so already.
    #[inline]
    fn tell_commit(&mut self, at: usize) {
        let (term, commit) = (self.hard_state.term, self.commit);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(at) else { return };
        let to = peer.id;
        let commit = commit.min(peer.match_index());
        if commit > peer.told_commit {
            peer.told_commit = commit;
            self.outbox.send(to, Message { term, body: Body::Commit { commit } }, &self.log);
        }
    }

    fn peer_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        match &mut self.role {
            Role::Leader(leader) => leader.peer_mut(id),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    // ---- the follower ----

    /// AppendEntries, the receiver's part (paper Figure 2), at the receiver's term.
    ///
    /// # Errors
    /// If it contradicts what is committed here: no correct leader does. Nothing has changed then.
    #[inline(always)]
    pub(crate) fn on_append(
        &mut self,
        from: NodeId,
        prev: LogId,
        commit: Index,
        entries: Few<Run>,
    ) -> Result<(), Rejected> {
        let floor = self.log.base().index;
        // Below the base everything is committed, and so agrees.
        if prev.index >= floor && !self.log.contains(prev) {
            if prev.index <= self.commit {
                return Err(Rejected::Unexpected { from });
            }
            let hint = self.log.last_common(prev.index, prev.term);
            self.follow(from)?;
            self.send(from, Body::Conflict { prev: prev.index, hint });
            return Ok(());
        }
        // Only an entry that conflicts removes anything: an append that comes late, and is shorter than the
        // log has grown since, must not (paper §5.3).
        let different = self.first_different(&entries);
        let contradicts_base = prev.index < floor && self.contradicts_base(&entries);
        if contradicts_base || different.is_some_and(|index| index <= self.commit) {
            return Err(Rejected::Unexpected { from });
        }
        self.follow(from)?;
        let verified = entries.last().map_or(prev.index, Run::last);
        if let Some(index) = different {
            if index <= self.log.last().index {
                self.truncate(index);
            }
            entries.into_iter().for_each(|run| {
                if index <= run.first() {
                    self.append(run);
                } else if let Some(part) = run_after(&run, index) {
                    self.append(part);
                }
            });
        }
        self.commit_up_to(commit.min(verified));
        let up_to = verified.min(self.log.last().index);
        self.outbox.acknowledge(from, self.hard_state.term, up_to, &self.log);
        Ok(())
    }

    /// Would this append change what is committed?
    pub(crate) fn contradicts_commit(&self, prev: LogId, entries: &Few<Run>) -> bool {
        let commit = self.commit;
        let known = prev.index >= self.log.base().index && prev.index <= commit;
        known && !self.log.contains(prev)
            || self.contradicts_base(entries)
            || self.first_different(entries).is_some_and(|index| index <= commit)
    }

    /// Does it have another entry where a snapshot ends?
    fn contradicts_base(&self, entries: &Few<Run>) -> bool {
        let base = self.log.base();
        let covers = |run: &&Run| run.first() <= base.index && base.index <= run.last();
        entries.iter().find(covers).is_some_and(|run| run.term() != base.term)
    }

    /// The first entry that this log does not have as it is.
    #[inline(always)]
    fn first_different(&self, entries: &Few<Run>) -> Option<Index> {
        // Nearly always none of them is here.
        let first = entries.first()?.first();
        if first > self.log.last().index {
            return Some(first);
        }
        entries.iter().find_map(|run| {
            let index = self.log.first_difference(run.first(), run.last(), run.term());
            (index <= run.last()).then_some(index)
        })
    }

    /// Removes what conflicts with the leader's log. The membership goes back as well (paper §6).
    fn truncate(&mut self, from: Index) {
        let last = self.log.last();
        self.log.truncate(from);
        self.outbox.write_truncate(from);
        self.outbox.event(Event::Truncated { from, last });
        if self.memberships.truncate(from) {
            let (index, membership) = self.memberships.current_entry();
            let membership = Box::new(membership.clone());
            self.outbox.event(Event::Membership { index, membership });
        }
    }

    /// A heartbeat, at the receiver's term.
    ///
    /// # Errors
    /// If its author can't be the leader.
    pub(crate) fn on_heartbeat(
        &mut self,
        from: NodeId,
        commit: Index,
        round: u64,
        quiesce: bool,
    ) -> Result<(), Rejected> {
        let asleep = quiesce && self.may_sleep(from, commit, round);
        if asleep {
            self.sleep_by(commit, round);
        } else {
            self.on_commit(from, commit)?;
            self.round_heard = self.round_heard.max(round);
        }
        self.send(from, Body::HeartbeatReply { round, asleep });
        self.give_back();
        Ok(())
    }

    /// More is committed.
    ///
    /// # Errors
    /// If its author can't be the leader, or it speaks of more than this log has: a leader tells nobody of
    /// more than what it knows to match.
    #[inline(always)]
    pub(crate) fn on_commit(&mut self, from: NodeId, commit: Index) -> Result<(), Rejected> {
        if commit > self.log.last().index {
            return Err(Rejected::Unexpected { from });
        }
        self.follow(from)?;
        self.commit_up_to(commit);
        Ok(())
    }

    pub(crate) fn commit_up_to(&mut self, commit: Index) {
        if commit > self.commit {
            self.commit = commit;
            self.advance_apply();
        }
    }

    // ---- both ----

    /// Hands out what may be applied.
    #[inline]
    pub(crate) fn advance_apply(&mut self) {
        // Asked with every write and every apply that is done; seldom is there something to hand out.
        if self.applying.handed() < self.commit.min(self.log.durable()) {
            self.hand_out();
        }
    }

    fn hand_out(&mut self) {
        self.applying.advance(self.commit, &self.log, &mut self.outbox, &mut self.request_ids, &self.config);
        // Only now: else a state machine that lags would let proposals pile up.
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted.done(self.applying.handed());
        }
    }

    /// Old entries have been read.
    ///
    /// # Errors
    /// If nobody waits for them (any more), or if they are not those of the log.
    pub(crate) fn on_loaded(&mut self, id: LoadId, result: Loaded) -> Result<(), Rejected> {
        let entries = match result {
            Loaded::Entries(entries) => entries,
            // Nothing that apply waits for is ever compacted: a store that says so has lost something.
            Loaded::Compacted => Few::new(),
        };
        if self.applying.awaits(id) {
            self.on_loaded_to_apply(entries)
        } else {
            self.on_loaded_to_send(id, &entries)
        }
    }

    fn on_loaded_to_apply(&mut self, entries: Few<Run>) -> Result<(), Rejected> {
        let end = self.commit.min(self.log.durable());
        let inside = entries.last().is_some_and(|run| run.last() <= end);
        if !inside || !self.log.holds(self.applying.load_first(), entries.as_slice()) {
            return Err(Rejected::BadLoad);
        }
        self.applying.on_loaded(entries, &mut self.outbox);
        // Also if that was all: what was handed out is uncommitted no more.
        self.hand_out();
        Ok(())
    }

    fn on_loaded_to_send(&mut self, id: LoadId, entries: &Few<Run>) -> Result<(), Rejected> {
        let (commit, now) = (self.commit, self.now);
        let Role::Leader(leader) = &mut self.role else {
            return Err(Rejected::StaleLoad);
        };
        let round = leader.round;
        let asked = |peer: &Peer| peer.load.filter(|(load, _)| *load == id).map(|(_, first)| first);
        let Some((peer, asked)) = leader.peers.iter_mut().find_map(|peer| asked(peer).map(|at| (peer, at)))
        else {
            return Err(Rejected::StaleLoad);
        };
        let (to, next, base) = (peer.id, peer.next_index(), self.log.base().index);
        // Compaction may have come first: what it took was found or not, and either way the log knows no more of it.
        let entries: Few<Run> = entries.iter().filter_map(|run| run_after(run, base.next())).collect();
        if next <= base || entries.is_empty() && asked <= base {
            peer.load = None;
            self.replicate_to_id(to);
            return Ok(());
        }
        let first = entries.first().map_or(Index(0), Run::first);
        if first > next || !self.log.holds(first, entries.as_slice()) {
            return Err(Rejected::BadLoad);
        }
        peer.load = None;
        // It may have moved on meanwhile: what it has by now is not sent again.
        let wanted: Few<Run> = entries.iter().filter_map(|run| run_after(run, next)).collect();
        if !wanted.is_empty() {
            Self::note_sent(peer, next, &wanted, round, now, commit);
            self.send_append(to, next, wanted);
        }
        self.replicate_to_id(to);
        Ok(())
    }
}

fn run_after(run: &Run, next: Index) -> Option<Run> {
    if run.last() < next { None } else { run.starting_at(next) }
}

impl Leader {
    pub(crate) fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    pub(crate) fn peer_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }
}
