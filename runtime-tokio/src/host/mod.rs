//! What all the groups of a process share: a store with its threads, a transport, a clock.

mod reader;
mod sampler;
#[cfg(test)]
mod stub;
mod table;
mod writer;

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use quorate_core::{GroupId, Input, Membership, Message, NodeId, StateMachine, Store};
use tokio::{runtime::Handle, sync::oneshot, task::JoinSet};

use crate::{
    builder::{Builder, StartError},
    clock::Clock,
    error::{GroupError, StopReason},
    lane::{self, Kind, Runner, Use},
    metrics::{Gauges, GroupSample, Meters, MetricsLevel, StoreMeter},
    snapshots::{AnySnapshots, Desk, SnapshotCounts, SnapshotLimits, SnapshotProgress},
    status::Counters,
    thread::{Alive, Ended, roll_call},
    transport::{BoxFuture, BoxStream, ForwardError, Transport},
};

pub(crate) use reader::{Asker, Question};
use table::Table;
pub(crate) use table::{NoPlace, Place};
pub(crate) use writer::{Job, Open, Opening};

/// A process's part in the groups that it has replicas of: they share its store, which makes what all of them write durable
/// with one commit; its transport, with one connection to each peer; and its clock. Cheap to clone.
///
/// ```
/// # use bytes::Bytes;
/// # use quorate_core::{Entry, GroupId, Membership, NodeId, StateMachine};
/// # use quorate_runtime_tokio::{Host, MemoryStore};
/// # struct Latest(Bytes);
/// # impl StateMachine for Latest {
/// #     type Command = Bytes;
/// #     type Reply = Bytes;
/// #     fn apply(&mut self, entry: &Entry) -> Bytes { std::mem::replace(&mut self.0, entry.payload.clone()) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let host = Host::builder(NodeId(1)).start(MemoryStore::default())?;
/// for group in [GroupId(1), GroupId(2)] {
///     host.create(group, Membership::of_voters([NodeId(1)])).await?;
///     let node = host.group(group).start(Latest(Bytes::new())).await?;
///     node.propose("hello").await?;
/// }
/// host.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// Groups are created, opened and stopped while others run. When the last handle of a host and of its nodes is dropped, all
/// of it stops; [`Host::shutdown`] does so in good order.
#[derive(Clone)]
pub struct Host {
    pub(crate) shared: Arc<Shared>,
}

/// A host to be: made by [`Host::builder`], ended by [`HostBuilder::start`].
#[must_use = "a builder starts nothing before `start` is called"]
#[derive(Clone)]
pub struct HostBuilder {
    id: NodeId,
    transport: Option<Arc<dyn Transport>>,
    metrics: MetricsLevel,
    snapshots: SnapshotLimits,
    #[cfg(feature = "virtual-time")]
    pace: Option<lane::Pace>,
}

impl HostBuilder {
    pub(crate) const fn new(id: NodeId) -> Self {
        Self {
            id,
            transport: None,
            metrics: MetricsLevel::PerHost,
            snapshots: SnapshotLimits::standard(),
            #[cfg(feature = "virtual-time")]
            pace: None,
        }
    }

    /// How finely [metrics](crate::metrics) are told apart. Default [`MetricsLevel::PerHost`].
    pub const fn metrics(mut self, level: MetricsLevel) -> Self {
        self.metrics = level;
        self
    }

    /// How much snapshots may take, all groups together.
    pub fn snapshot_limits(mut self, limits: SnapshotLimits) -> Self {
        self.snapshots = limits;
        self
    }

    /// How to reach the other nodes. Whoever is alone needs none.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Lives in the time of its tokio runtime, and starts no threads: all that would be done on one is done by the runtime
    /// after as long as `pace` says. On a current-thread runtime whose clock is paused, with a store in memory and a network
    /// whose chances come from a seed, a run is the same whenever that seed is taken again, and takes no longer than its
    /// processor time.
    #[cfg(feature = "virtual-time")]
    pub fn in_virtual_time(
        mut self,
        pace: impl Fn(lane::Kind) -> std::time::Duration + Send + Sync + 'static,
    ) -> Self {
        self.pace = Some(Arc::new(pace));
        self
    }

    /// Starts the store's threads and the transport. No group is opened yet.
    ///
    /// # Errors
    /// If a thread can't be started, the limits are not valid, or this is no tokio runtime.
    pub fn start<St: Store>(self, store: St) -> Result<Host, StartError> {
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        self.snapshots.validate()?;
        let (alive, ended) = roll_call();
        let (runner, clock) = (Runner::Threads(runtime.clone()), Clock::Boot);
        #[cfg(feature = "virtual-time")]
        let (runner, clock) = match self.pace {
            Some(pace) => (Runner::Inline(runtime.clone(), pace), Clock::in_virtual_time()),
            None => (runner, clock),
        };
        let meters = Meters::new(self.id, self.metrics);
        let lanes = start_lanes(self.id, &runner, store, &alive, meters.store())?;
        let shared = Arc::new(Shared {
            id: self.id,
            transport: self.transport,
            clock,
            desk: Desk::new(self.snapshots, runner.clone()),
            runner,
            runtime,
            groups: Table::default(),
            meters,
            lanes: Mutex::new(Some(lanes)),
            alive: Mutex::new(Some(alive)),
            ended: tokio::sync::Mutex::new(ended),
        });
        // Before any group is opened: nothing is sent before the transport has started.
        if let Some(transport) = &shared.transport {
            transport.start(Arc::new(table::Entrance::new(&shared)));
        }
        if self.metrics != MetricsLevel::Off {
            shared.runtime.spawn(sampler::run(Arc::downgrade(&shared), Gauges::new(self.id, self.metrics)));
        }
        Ok(Host { shared })
    }
}

impl fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuilder")
            .field("id", &self.id)
            .field("transport", &self.transport)
            .field("metrics", &self.metrics)
            .field("snapshot_limits", &self.snapshots)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Begins to set up the host of node `id`.
    pub const fn builder(id: NodeId) -> HostBuilder {
        HostBuilder::new(id)
    }

    /// Creates `group` in the store, durably. On each of its first members it is given the same membership; on one that joins
    /// later, any without itself. It is not opened by this.
    ///
    /// # Errors
    /// As [`GroupError`] says.
    pub async fn create(&self, group: GroupId, membership: Membership) -> Result<(), GroupError> {
        self.ask(|answer| Job::Create { group, membership, answer }).await
    }

    /// Removes `group` with all that is durable of it: this node will never be a member of it again under its id, so it
    /// is to be removed from the membership first.
    ///
    /// # Errors
    /// As [`GroupError`] says: also if it is open.
    pub async fn remove(&self, group: GroupId) -> Result<(), GroupError> {
        let _reserved = Place::take(&self.shared, group).map_err(|why| match why {
            NoPlace::Taken => GroupError::Open(group),
            NoPlace::Closed => GroupError::Closed,
        })?;
        self.ask(|answer| Job::Remove { group, answer }).await
    }

    /// The groups that the store holds, in order.
    ///
    /// # Errors
    /// As [`GroupError`] says.
    pub async fn groups(&self) -> Result<Vec<GroupId>, GroupError> {
        self.ask(|answer| Job::Groups { answer }).await
    }

    /// Those of them that are open, in order.
    #[must_use]
    pub fn open_groups(&self) -> Vec<GroupId> {
        self.shared.groups.open()
    }

    /// Begins to open `group`, which is in the store: [`Builder::start`] does it.
    pub fn group<S: StateMachine>(&self, group: GroupId) -> Builder<S> {
        Builder::on(self.clone(), group)
    }

    /// The snapshots that are being taken, sent and received, of all groups; the oldest first.
    #[must_use]
    pub fn snapshot_progress(&self) -> Vec<SnapshotProgress> {
        self.shared.desk.board.progress()
    }

    /// What has become of snapshots since the host was started, of all groups.
    #[must_use]
    pub fn snapshot_counts(&self) -> SnapshotCounts {
        self.shared.desk.board.counts()
    }

    /// Which node this is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// Stops all groups in good order, as [`Node::shutdown`](crate::Node::shutdown) does, all at once; then the transport
    /// and the store. When it returns all threads have ended. A group that is still being opened is not: its start ends in
    /// [`StartError::HostClosed`].
    pub async fn shutdown(&self) {
        let mut stopping = JoinSet::new();
        for port in self.shared.groups.close() {
            stopping.spawn(port.shutdown());
        }
        while stopping.join_next().await.is_some() {}
        self.shared.close().await;
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, GroupError>>) -> Job,
    ) -> Result<T, GroupError> {
        let (answer, answered) = oneshot::channel();
        let lanes = self.shared.lanes().ok_or(GroupError::Closed)?;
        lanes.writes.send(job(answer)).map_err(|_| GroupError::Closed)?;
        drop(lanes);
        answered.await.unwrap_or(Err(GroupError::Closed))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("id", &self.shared.id)
            .field("transport", &self.shared.transport)
            .field("groups", &self.open_groups())
            .finish_non_exhaustive()
    }
}

/// What a host and its groups share.
pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) clock: Clock,
    /// What the snapshots of all groups share.
    pub(crate) desk: Arc<Desk>,
    pub(crate) runner: Runner,
    pub(crate) runtime: Handle,
    pub(crate) groups: Table,
    pub(crate) meters: Meters,
    /// Until the host is shut down.
    lanes: Mutex<Option<Lanes>>,
    alive: Mutex<Option<Alive>>,
    ended: tokio::sync::Mutex<Ended>,
}

/// The way to the store's threads.
#[derive(Clone)]
pub(crate) struct Lanes {
    /// To the one that writes. The core bounds what it has there by `max_unpersisted_bytes`: beyond it a follower drops
    /// appends and a leader refuses proposals.
    pub(crate) writes: lane::Sender<Job>,
    /// To the one that reads the log beside it. A core asks at most one question at a time for each peer, and one for apply; a
    /// feed asks one.
    pub(crate) loads: lane::Sender<Question>,
    /// The bytes of snapshots, for whoever may wait for the disk.
    pub(crate) snapshots: Arc<dyn AnySnapshots>,
}

fn start_lanes<St: Store>(
    id: NodeId,
    runner: &Runner,
    store: St,
    alive: &Alive,
    meter: &Arc<StoreMeter>,
) -> io::Result<Lanes> {
    let reader = reader::Reader::new(store.reader(), alive.clone(), meter.clone());
    let loads = runner.lane(|| format!("quorate-{id}-read"), Kind::Read, Use::Steady, reader)?;
    let snapshots: Arc<dyn AnySnapshots> = Arc::new(store.snapshots());
    let writer = writer::Writer::new(store, alive.clone(), meter.clone());
    let writes = runner.lane(|| format!("quorate-{id}-store"), Kind::Store, Use::Steady, writer)?;
    Ok(Lanes { writes, loads, snapshots })
}

impl Shared {
    /// The way to the store's threads, unless the host has been shut down.
    pub(crate) fn lanes(&self) -> Option<Lanes> {
        lock(&self.lanes).clone()
    }

    /// How many jobs wait for the store.
    fn store_queue(&self) -> usize {
        self.lanes().map_or(0, |lanes| lanes.writes.len())
    }

    /// Ends the transport and the store's threads, and waits for them.
    pub(crate) async fn close(&self) {
        if let Some(transport) = &self.transport {
            transport.shutdown().await;
        }
        drop(lock(&self.lanes).take());
        drop(lock(&self.alive).take());
        self.ended.lock().await.wait().await;
    }
}

/// Nobody has shut it down: there is nobody left who could wait for it.
impl Drop for Shared {
    fn drop(&mut self) {
        let open = lock(&self.lanes).is_some();
        if let Some(transport) = self.transport.take().filter(|_| open) {
            drop(self.runtime.spawn(transport.shutdown()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open group, as the host's threads and the transport see it.
pub(crate) trait Port: Send + Sync {
    /// A message has come.
    fn receive(&self, from: NodeId, message: Message);
    /// Touch with a peer is lost.
    fn unreachable(&self, peer: NodeId);
    /// The transport is in touch with a peer.
    fn reachable(&self, peer: NodeId);
    /// A request has been forwarded here.
    fn forwarded(self: Arc<Self>, from: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>>;
    /// A peer has opened a stream.
    fn opened(self: Arc<Self>, from: NodeId, stream: BoxStream);
    /// One of the host's threads has done something for it.
    fn input(&self, input: Input);
    /// It has to stop.
    fn fail(&self, why: StopReason);
    /// It is to stop in good order; ready when it has.
    fn shutdown(self: Arc<Self>) -> BoxFuture<()>;
    /// Its account.
    fn counters(&self) -> &Counters;
    /// Goes up whenever something is different.
    fn turns(&self) -> u64;
    /// How it is, unless it is stopping.
    fn sample(self: Arc<Self>) -> BoxFuture<Option<GroupSample>>;
}
