//! Snapshots take the place of the log's beginning (paper §7). Their bytes never pass through here: what does is which
//! one there is, who needs it, and when it may be believed.

use alloc::boxed::Box;

use crate::{
    Action, Event, Index, LogId, Mode, NodeId, Rebase, Rejected, SendId, SendSnapshot, Snapshot,
    message::{Body, Message},
    raft::{Raft, Role},
};

impl Raft {
    // ---- every node, of its own ----

    /// A snapshot at `index` is durable: what it includes need not stay in the log, but for `keep` entries.
    ///
    /// # Errors
    /// If not all of it has been applied here, or a later one is there already.
    pub(crate) fn compact(&mut self, index: Index, keep: u64) -> Result<(), Rejected> {
        let applied = self.applying.applied();
        let from = self.snapshot_id().index.max(self.log.base().index).max(Index(1));
        let known = self.log.term_at(index).filter(|_| (from..=applied).contains(&index));
        let Some(term) = known else {
            return Err(Rejected::BadSnapshot { snapshot: index, from, applied });
        };
        let membership = self.memberships.at(index).clone();
        self.snapshot = Some(Box::new(Snapshot { last: LogId::new(term, index), membership }));
        let end = Index(index.0.saturating_sub(keep));
        if end > self.log.base().index
            && let Some(term) = self.log.term_at(end)
        {
            let base = LogId::new(term, end);
            let membership = self.memberships.at(end).clone();
            self.log.compact(base);
            self.memberships.compact(end);
            self.outbox.write_rebase(Rebase::Compact(Snapshot { last: base, membership }));
            self.outbox.event(Event::Compacted { base });
        }
        Ok(())
    }

    /// The newest snapshot; zero without one.
    pub(crate) fn snapshot_id(&self) -> LogId {
        self.snapshot.as_ref().map_or(LogId::ZERO, |snapshot| snapshot.last)
    }

    // ---- the leader ----

    /// A peer needs entries that the log no longer has: it gets the newest snapshot instead.
    pub(crate) fn send_snapshot(&mut self, at: usize) {
        let (term, now) = (self.hard_state.term, self.now);
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.round;
        // Nothing is compacted without a snapshot.
        let (Some(peer), Some(snapshot)) = (leader.peers.get_mut(at), &self.snapshot) else { return };
        let id = SendId(self.request_ids.next());
        peer.begin_snapshot(id, snapshot.last.index, round, now);
        let message = Message { term, body: Body::InstallSnapshot { snapshot: snapshot.clone() } };
        let to = peer.id;
        // It need not pass the choke point: the term is what it claims, and a leader's is durable, or its own vote didn't count.
        debug_assert!(self.outbox.is_hard_state_durable(), "a leader's term is durable");
        self.outbox.emit(Action::SendSnapshot(SendSnapshot { id, to, message }));
        self.outbox.event(Event::Peer { id: to, mode: Mode::Snapshot });
    }

    /// A snapshot has been sent, or could not be. Either way the peer is probed again, after a heartbeat: it may have
    /// adopted the snapshot, or still need one.
    ///
    /// # Errors
    /// If nobody waits to hear that.
    pub(crate) fn on_snapshot_sent(&mut self, id: SendId, arrived: bool) -> Result<(), Rejected> {
        let now = self.now;
        let Role::Leader(leader) = &mut self.role else {
            return Err(Rejected::StaleSend);
        };
        let round = leader.round;
        let Some(peer) = leader.peers.iter_mut().find(|peer| peer.sends(id)) else {
            return Err(Rejected::StaleSend);
        };
        peer.end_snapshot(arrived, round, now);
        let id = peer.id;
        self.outbox.event(Event::Peer { id, mode: Mode::Probe });
        Ok(())
    }

    // ---- the follower ----

    /// InstallSnapshot, the receiver's part (paper Figure 13), once its bytes are staged.
    ///
    /// Differs from the paper: there are no chunks, for the bytes travel beside it.
    ///
    /// # Errors
    /// If it contradicts what is committed here: no correct leader's does. Nothing has changed then.
    pub(crate) fn on_install_snapshot(
        &mut self,
        from: NodeId,
        snapshot: Box<Snapshot>,
    ) -> Result<(), Rejected> {
        let last = snapshot.last;
        if self.snapshot_contradicts_commit(last) {
            return Err(Rejected::Unexpected { from });
        }
        self.follow(from)?;
        if last.index <= self.commit || self.log.contains(last) {
            // "If existing log entry has same index and term as snapshot's last included entry, retain log entries
            // following it." And those before it: they are committed then, and can be applied as they are.
            self.commit_up_to(last.index);
        } else {
            self.install(snapshot);
        }
        self.outbox.acknowledge(from, self.hard_state.term, last.index, &self.log);
        Ok(())
    }

    /// Would this snapshot change what is committed?
    pub(crate) fn snapshot_contradicts_commit(&self, last: LogId) -> bool {
        if last.index > self.commit {
            // Terms never decrease along a log.
            return self.log.term_at(self.commit).is_some_and(|term| last.term < term);
        }
        last.index >= self.log.base().index && !self.log.contains(last)
    }

    /// "Discard the entire log; reset state machine using snapshot contents (and load snapshot's cluster configuration)."
    /// The state machine follows once the write is durable.
    fn install(&mut self, snapshot: Box<Snapshot>) {
        let last = snapshot.last;
        self.log.install(last, self.commit, self.outbox.draft_seq());
        self.memberships.install(last.index, snapshot.membership.clone());
        let membership = Box::new(snapshot.membership.clone());
        self.outbox.write_rebase(Rebase::Install((*snapshot).clone()));
        self.outbox.event(Event::Installed { last });
        self.outbox.event(Event::Membership { index: last.index, membership });
        self.commit = last.index;
        self.snapshot = Some(snapshot.clone());
        self.applying.install(snapshot, &mut self.outbox);
    }
}
