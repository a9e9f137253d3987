//! A leader's disk is part of its health: one that makes no progress is no reason to lead on. Its followers would go on
//! committing what it sends, for its appends don't wait for its own disk; but it could promise nothing new after a restart, and
//! whoever asks for what rests on it would wait for ever.

use std::time::Duration;

use quorate_core::{Input, Instant, RoleKind, StateMachine, WriteSeq};
use tracing::{error, warn};

use crate::{driver::Driver, status::count};

/// Watches over the writes that are under way.
#[derive(Debug)]
pub(crate) struct DiskHealth {
    /// So long nothing may become durable while something waits to, at a leader.
    timeout: u64,
    /// The newest write that was sent to the store.
    sent: WriteSeq,
    /// Since when something waits and nothing has become durable.
    since: Option<Instant>,
    remedy: Remedy,
}

/// What was done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Remedy {
    None,
    /// Leadership is being handed over.
    Transfer,
    /// It was given up.
    StepDown,
}

impl DiskHealth {
    pub(crate) fn new(timeout: Duration) -> Self {
        let timeout = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        Self { timeout, sent: WriteSeq(0), since: None, remedy: Remedy::None }
    }

    /// A write goes to the store.
    pub(crate) fn sent(&mut self, seq: WriteSeq, now: Instant) {
        self.sent = seq;
        self.since.get_or_insert(now);
    }

    /// Everything up to this one is durable.
    pub(crate) fn persisted(&mut self, seq: WriteSeq, now: Instant) {
        self.since = (seq < self.sent).then_some(now);
        self.remedy = Remedy::None;
    }

    /// When it has waited for too long.
    fn due(&self) -> Option<Instant> {
        self.since.filter(|_| self.remedy == Remedy::None).map(|since| since.plus(self.timeout))
    }
}

impl<S: StateMachine> Driver<S> {
    /// When the store will have made no progress for too long.
    pub(crate) fn stall_due(&self) -> Option<Instant> {
        self.disk.due().filter(|_| self.raft.role() == RoleKind::Leader)
    }

    /// If it has, somebody else is to lead.
    pub(crate) fn watch_disk(&mut self) {
        if self.stall_due().is_none_or(|due| self.now < due) {
            return;
        }
        let voters = self.raft.membership().voters().len();
        if voters < 2 {
            // Nobody else could.
            self.disk.remedy = Remedy::StepDown;
            return;
        }
        let (node, group) = (self.shared.id(), self.shared.group);
        let stalled = Duration::from_micros(self.disk.since.map_or(0, |since| self.now.since(since)));
        count(&self.shared.counters.disk_stalls, 1);
        let to = self.successor();
        let token = self.reads.take_token();
        match self.raft.step(self.now, Input::TransferLeadership { token, to }) {
            Ok(()) => {
                warn!(%node, %group, ?stalled, ?to, "the store makes no progress: handing leadership over");
                self.disk.remedy = Remedy::Transfer;
            }
            Err(why) => self.step_down(&why),
        }
        self.act();
    }

    /// A transfer has ended. If it was made for the disk's sake and this node still leads, then nobody could take it.
    pub(crate) fn transfer_for_health_ended(&mut self) {
        if self.disk.remedy == Remedy::Transfer && self.raft.role() == RoleKind::Leader {
            self.step_down(&"the others have not caught up");
        }
    }

    fn step_down(&mut self, why: &dyn std::fmt::Display) {
        let (node, group) = (self.shared.id(), self.shared.group);
        error!(%node, %group, %why, "the store makes no progress, and leadership can't be handed over: stepping down");
        self.disk.remedy = Remedy::StepDown;
        self.step(Input::StepDown);
    }
}
