//! The driver's part: takes a snapshot when one is due or asked for, cuts the log to it, sends what the core wants sent.

use std::{
    cmp::Ordering::{Equal, Greater, Less},
    collections::BTreeMap,
    sync::Arc,
    time::Duration,
};

use quorate_core::{
    Event, Index, Input, Instant, LogId, Mode, NodeId, Rebase, Recovered, SendId, SendSnapshot, Snapshot,
    StateMachine, Write, WriteSeq,
};
use tokio::{sync::oneshot, task::AbortHandle};
use tracing::{debug, info, warn};

use super::{
    desk::Desk,
    erased::AnySnapshots,
    error::TakeError,
    outgoing::{Errand, Ways},
    policy::{LogSize, SnapshotPolicy},
    take::{Cancel, take},
};
use crate::{
    consistency::Consistency,
    driver::Driver,
    error::{ReadError, SnapshotError, Stopped},
    host,
    shared::Shared,
    thread::Alive,
};

/// Where it is said what became of a snapshot that somebody has asked for.
pub(crate) type SnapshotAnswer = oneshot::Sender<Result<LogId, SnapshotError>>;

/// What became of a snapshot.
pub(crate) enum News {
    /// It was taken, or not.
    Taken(Result<Taken, SnapshotError>),
    /// It is with a peer, or not.
    Sent { id: SendId, arrived: bool },
    /// The state machine has taken it on.
    Restored { at: Index, bytes: u64 },
}

/// A snapshot that is durable.
pub(crate) struct Taken {
    last: LogId,
    /// None if it was there already.
    bytes: Option<u64>,
}

/// What a driver knows of the snapshots of its group.
pub(crate) struct Keeper {
    policy: SnapshotPolicy,
    log: LogSize,
    desk: Arc<Desk>,
    store: Arc<dyn AnySnapshots>,
    ways: Option<Arc<dyn Ways>>,
    alive: Alive,
    taking: Option<Taking>,
    /// Those who wait for one that is not begun yet.
    asked: Vec<SnapshotAnswer>,
    /// The state machine takes none: it is not asked by itself again.
    unsupported: bool,
    sends: BTreeMap<SendId, Sending>,
    /// Peers that have got one, and where it was, until they have what came after it as well: else the log would be cut away
    /// under them as soon as the transfer is over.
    following: BTreeMap<NodeId, Index>,
    /// The log may have to be cut.
    uncut: bool,
    /// The write that cuts it, until that is durable: only then comes the next piece, for commits that are merged would be one big one.
    cutting: Option<WriteSeq>,
}

/// A snapshot that is being taken.
struct Taking {
    cancel: Cancel,
    asked: Vec<SnapshotAnswer>,
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A snapshot on its way to a peer. Dropped, it is given up.
struct Sending {
    to: NodeId,
    at: Index,
    task: AbortHandle,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    pub(crate) fn new<S: StateMachine>(
        policy: SnapshotPolicy,
        shared: &Arc<Shared<S>>,
        lanes: &host::Lanes,
        alive: Alive,
        recovered: &Recovered,
        snapshot_bytes: u64,
    ) -> Self {
        let snapshot = recovered.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index);
        Self {
            policy,
            log: LogSize::new(recovered.base.index, snapshot, snapshot_bytes, recovered.applied),
            desk: shared.host.desk.clone(),
            store: lanes.snapshots.clone(),
            ways: shared.ways(),
            alive,
            taking: None,
            asked: Vec::new(),
            unsupported: false,
            sends: BTreeMap::new(),
            following: BTreeMap::new(),
            // It may have been stopped in the middle of that.
            uncut: true,
            cutting: None,
        }
    }

    #[cfg(feature = "record")]
    pub(crate) const fn alive(&self) -> &Alive {
        &self.alive
    }

    pub(crate) fn handed(&mut self, last: Index, bytes: usize) {
        self.log.handed(last, bytes as u64);
    }

    pub(crate) fn applied(&mut self, up_to: Index) {
        self.log.applied(up_to);
    }

    pub(crate) fn asked(&mut self, answers: impl Iterator<Item = SnapshotAnswer>) {
        self.asked.extend(answers);
    }

    /// A write is on its way to the store.
    pub(crate) fn writing(&mut self, write: &Write) {
        if matches!(write.rebase.as_deref(), Some(Rebase::Compact(_))) {
            self.cutting = Some(write.seq());
        }
    }

    /// All writes up to this one are durable.
    pub(crate) fn durable(&mut self, seq: WriteSeq) {
        if self.cutting.take_if(|cutting| *cutting <= seq).is_some() {
            self.uncut = true;
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Compacted { base } => self.log.compacted(base.index),
            Event::Installed { last } => {
                // Whatever is being taken is older.
                if let Some(taking) = &self.taking {
                    taking.cancel.cancel();
                }
                self.log.installed(last.index, 0);
            }
            // Of another term, or of nobody who leads: nobody waits for those any more.
            Event::Role { .. } => {
                self.following.clear();
                self.give_up(|_| true);
            }
            // The peer has got otherwise what it lacked, or is to get another.
            Event::Peer { id, mode: Mode::Probe | Mode::Replicate } => {
                self.give_up(|sending| sending.to == *id);
            }
            Event::Membership { membership, .. } => self.give_up(|sending| !membership.contains(sending.to)),
            Event::Peer { mode: Mode::Snapshot, .. }
            | Event::Leader { .. }
            | Event::Truncated { .. }
            | Event::Transfer { .. }
            | Event::Asleep
            | Event::Awake
            | Event::Stopped => {}
        }
    }

    fn give_up(&mut self, which: impl Fn(&Sending) -> bool) {
        let before = self.sends.len();
        self.sends.retain(|_, sending| !which(sending));
        self.uncut |= self.sends.len() < before;
    }

    /// When to look whether one is due, if nothing happens before.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waits = self.taking.is_none() && !self.unsupported;
        let due = self.policy.due_at(&self.log).filter(|_| waits)?;
        // What is due now was looked at.
        Some(Instant(u64::try_from(due.as_micros()).unwrap_or(u64::MAX))).filter(|due| *due > now)
    }

    /// The node has stopped.
    pub(crate) fn stop(&mut self, stopped: &Stopped) {
        self.sends.clear();
        let taking = self.taking.take().map(|mut taking| std::mem::take(&mut taking.asked));
        for answer in taking.into_iter().flatten().chain(self.asked.drain(..)) {
            let _gone = answer.send(Err(stopped.clone().into()));
        }
    }
}

impl<S: StateMachine> Driver<S> {
    /// Takes a snapshot if it is time, and cuts the log if there is something to cut.
    pub(crate) fn keep_snapshots(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        if std::mem::take(&mut self.snapshots.uncut) {
            self.cut();
        }
        let keeper = &mut self.snapshots;
        if keeper.taking.is_some() {
            return;
        }
        let now = Duration::from_micros(self.now.0);
        let due = !keeper.unsupported && keeper.policy.due_at(&keeper.log).is_some_and(|due| due <= now);
        if due || !keeper.asked.is_empty() {
            keeper.log.attempted(now, keeper.policy.min_pause);
            self.take_snapshot();
        }
    }

    fn take_snapshot(&mut self) {
        let keeper = &mut self.snapshots;
        let cancel = Cancel::default();
        let asked = std::mem::take(&mut keeper.asked);
        keeper.taking = Some(Taking { cancel: cancel.clone(), asked });
        let (desk, store, alive) = (keeper.desk.clone(), keeper.store.clone(), keeper.alive.clone());
        let (shared, newest) = (self.shared.clone(), keeper.log.snapshot());
        drop(self.shared.host.runtime.spawn(async move {
            let taken = freeze_and_write(&shared, desk, store, newest, cancel, alive).await;
            shared.inbox.news(News::Taken(taken));
        }));
    }

    /// Something has become of a snapshot.
    pub(crate) fn hear(&mut self, news: News) {
        match news {
            News::Taken(taken) => self.taken(&taken),
            News::Sent { id, arrived } => {
                let keeper = &mut self.snapshots;
                if let Some(sending) = keeper.sends.remove(&id).filter(|_| arrived) {
                    keeper.following.insert(sending.to, sending.at);
                }
                keeper.uncut = true;
                self.step(Input::SnapshotSent { id, arrived });
            }
            News::Restored { at, bytes } => self.snapshots.log.restored(at, bytes),
        }
    }

    fn taken(&mut self, taken: &Result<Taken, SnapshotError>) {
        let (node, group) = (self.shared.id(), self.shared.group);
        let asked = self.snapshots.taking.take().map(|mut taking| std::mem::take(&mut taking.asked));
        let asked = asked.unwrap_or_default();
        match taken {
            Ok(Taken { last, bytes: Some(bytes) }) => {
                info!(%node, %group, at = %last, bytes, "a snapshot was taken");
                self.snapshots.log.published(last.index, *bytes);
                self.cut();
            }
            Ok(Taken { bytes: None, .. }) => {}
            Err(SnapshotError::Unsupported) => {
                self.snapshots.unsupported = true;
                warn!(%node, %group, "the state machine takes no snapshots: the log grows for ever");
            }
            Err(error @ (SnapshotError::Superseded | SnapshotError::Stopped(_))) => {
                debug!(%node, %group, %error, "no snapshot was taken");
            }
            Err(error) => warn!(%node, %group, %error, "no snapshot was taken"),
        }
        for answer in asked {
            let _gone = answer.send(taken.as_ref().map(|taken| taken.last).map_err(Clone::clone));
        }
    }

    /// Tells the core of the newest snapshot, and has the next piece of the log removed.
    fn cut(&mut self) {
        if self.snapshots.cutting.is_some() || self.snapshots.log.snapshot() == Index(0) {
            return;
        }
        if self.snapshots.log.snapshot() > self.applied {
            // The state was held still between two entries that were handed over together, and were not reported before all
            // of them were applied: again when that is known, which it isn't before something else has happened.
            self.snapshots.uncut = true;
            return;
        }
        let needed = self.needed();
        let Keeper { policy, log, .. } = &self.snapshots;
        let base = policy.next_piece(log, policy.base(log, needed)).unwrap_or(log.base());
        let (snapshot, keep) = (log.snapshot(), log.snapshot().0.saturating_sub(base.0));
        if let Err(rejected) = self.raft.step(self.now, Input::Compact { snapshot, keep }) {
            // A later one was installed.
            debug!(node = %self.shared.id(), group = %self.shared.group, %rejected, "the log is not cut yet");
        }
        self.act();
    }

    /// From where on the log is needed by those who are getting a snapshot, or have just got one.
    fn needed(&mut self) -> Option<Index> {
        let Keeper { policy, log, sends, following, .. } = &mut self.snapshots;
        if !following.is_empty() {
            let (status, base) = (self.raft.status(), policy.base(log, None));
            following.retain(|id, at| {
                let Some(peer) = status.peers.iter().find(|peer| peer.id == *id) else { return false };
                *at = peer.match_index.max(*at);
                *at < base
            });
        }
        sends.values().map(|sending| sending.at).chain(following.values().copied()).min()
    }

    /// A peer is to get a snapshot.
    pub(crate) fn send_snapshot(&mut self, send: SendSnapshot) {
        let keeper = &self.snapshots;
        let at = match &send.message.body {
            quorate_core::Body::InstallSnapshot { snapshot } => snapshot.last.index,
            _ => Index(0),
        };
        let Some(ways) = keeper.ways.clone() else {
            return self.step(Input::SnapshotSent { id: send.id, arrived: false });
        };
        let status = self.raft.status();
        let mut helpers: Vec<_> = status.peers.iter().collect();
        helpers.retain(|peer| peer.id != send.to && peer.mode == Mode::Replicate);
        // Learners first, for they have least to do; then whoever lags least.
        helpers.sort_by_key(|peer| {
            (status.membership.is_voter(peer.id), peer.inflight_bytes, std::cmp::Reverse(peer.match_index))
        });
        let errand = Errand {
            desk: keeper.desk.clone(),
            meter: self.shared.meter.clone(),
            id: self.shared.id(),
            group: self.shared.group,
            store: keeper.store.clone(),
            ways,
            to: send.to,
            message: send.message,
            least: status.base.index,
            helpers: helpers.iter().map(|peer| peer.id).collect(),
        };
        let (shared, id) = (self.shared.clone(), send.id);
        let task = self.shared.host.runtime.spawn(async move {
            let arrived = errand.run().await.is_ok();
            shared.inbox.news(News::Sent { id, arrived });
        });
        let sending = Sending { to: send.to, at, task: task.abort_handle() };
        self.snapshots.sends.insert(id, sending);
    }
}

/// Waits its turn, has the state held still, and writes it out beside all else.
async fn freeze_and_write<S: StateMachine>(
    shared: &Arc<Shared<S>>,
    desk: Arc<Desk>,
    store: Arc<dyn AnySnapshots>,
    newest: Index,
    cancel: Cancel,
    alive: Alive,
) -> Result<Taken, SnapshotError> {
    let failed = |why: String| SnapshotError::Failed { why };
    let mut stopped = shared.stopped.subscribe();
    let permit = tokio::select! {
        permit = desk.taking.clone().acquire_owned() => permit.map_err(|closed| failed(closed.to_string()))?,
        _stopped = stopped.wait_for(Option::is_some) => return Err(shared.why().into()),
    };
    let freeze = |machine: &S, at: &Snapshot| machine.freeze().map(|frozen| (at.clone(), frozen));
    let frozen = shared.read(freeze, Consistency::Stale).await.map_err(|error| match error {
        ReadError::Stopped(stopped) => SnapshotError::Stopped(stopped),
        ReadError::Overloaded { what } => SnapshotError::Overloaded { what },
        ReadError::Behind { waited } => {
            failed(format!("the state machine did not come to hold its state still within {waited:?}"))
        }
        ReadError::NoLeader { .. } | ReadError::Refused { .. } | ReadError::Panicked { .. } => {
            failed(error.to_string())
        }
    })?;
    let (snapshot, frozen) = frozen.ok_or(SnapshotError::Unsupported)?;
    let last = snapshot.last;
    match last.index.cmp(&newest) {
        // The leader's is in the log, but not in the state yet. What was here before it is no snapshot, and becomes none.
        Less => return Err(SnapshotError::Superseded),
        Equal => return Ok(Taken { last, bytes: None }),
        Greater => {}
    }
    let (node, group, meter) = (shared.id(), shared.group, shared.meter.clone());
    let (runner, cancelled) = (desk.runner.clone(), cancel.clone());
    let here = runner.clone();
    let work = move || {
        // Until the state that is held still is let go of.
        let (_alive, _permit) = (alive, permit);
        let take = move || take(&desk, &*store, &meter, group, &snapshot, &*frozen, &cancelled);
        here.giving_way(&format!("quorate-{node}-take"), take)
    };
    match runner.blocking(work).await.map_err(failed)? {
        Ok(info) => Ok(Taken { last, bytes: Some(info.bytes) }),
        Err(TakeError::Cancelled) => Err(match shared.inbox.closed() {
            Some(stopped) => stopped.into(),
            None => SnapshotError::Superseded,
        }),
        Err(error) => Err(failed(error.to_string())),
    }
}
