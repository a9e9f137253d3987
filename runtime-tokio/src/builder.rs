//! Puts a node together.

use std::{
    collections::BTreeSet,
    fmt, io,
    marker::PhantomData,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use quorate_core::{
    Config, ConfigError, GroupId, Index, LogId, NodeId, Raft, Snapshot, StateError, StateMachine, Store,
};
use tokio::{runtime::Handle, sync::oneshot};
use tracing::{info, warn};

#[cfg(feature = "record")]
use crate::record::Recording;
use crate::{
    apply,
    compare::{Online, Origin, Stride},
    config::{NodeConfig, NodeConfigError, validate_driver},
    control::Controls,
    driver::{Driver, Lanes, LastWord, Reads},
    health::DiskHealth,
    host::{self, Host, HostBuilder, NoPlace, Open, Opening, Place},
    inbox::Limits,
    lane::{Kind, Use},
    metrics::MetricsLevel,
    node::Node,
    recorded::Recorded,
    shared::Shared,
    snapshots::{Keeper, SnapshotConfigError, SnapshotLimits, SnapshotPolicy},
    status::{Leadership, Progress},
    thread::{Alive, roll_call},
    transport::Transport,
    waiters::Waiters,
};

/// A node to be: made by [`Node::builder`] or [`Host::group`], ended by [`Builder::start`]. Only the store has no default.
#[must_use = "a builder starts nothing before `start` is called"]
pub struct Builder<S> {
    config: Config,
    home: Home,
    request_timeout: Duration,
    shutdown_timeout: Duration,
    max_pending: usize,
    snapshots: SnapshotPolicy,
    disk_stall_timeout: Option<Duration>,
    feed_bytes: usize,
    compare_state_every: Option<NonZeroU64>,
    /// What was wrong with the settings in [`Builder::with_config`].
    wrong: Option<NodeConfigError>,
    machine: PhantomData<fn(S)>,
    #[cfg(feature = "record")]
    recording: Option<Recording>,
}

// The defaults of [`NodeConfig`] as well.
pub(crate) const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
pub(crate) const DEFAULT_MAX_PENDING: usize = 65_536;
pub(crate) const DEFAULT_FEED_BYTES: usize = 1 << 20;

/// Where a node is to live.
enum Home {
    /// At a host that is there.
    Host(Host),
    /// At one of its own.
    Own { host: HostBuilder, store: Option<OpenStore> },
}

type OpenStore = Box<dyn FnOnce(HostBuilder) -> Result<Host, StartError> + Send>;

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error("the configuration: {0}")]
    Config(#[from] ConfigError),
    /// A setting of the builder's own is not valid, or one that [`Builder::with_config`] was given.
    #[error("the settings: {0}")]
    NodeConfig(#[from] NodeConfigError),
    /// What was said about snapshots is not valid.
    #[error(transparent)]
    Snapshots(#[from] SnapshotConfigError),
    /// It was given no store.
    #[error("a node needs a store: Builder::store gives it one")]
    NoStore,
    /// The store can't be opened.
    #[error("the store can't be opened: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store panicked.
    #[error("the store panicked while it was being opened")]
    StorePanicked,
    /// The store names a snapshot that it does not hold.
    #[error("the store names a snapshot at {at} and does not hold it")]
    NoSnapshot {
        /// Which.
        at: LogId,
    },
    /// The state machine can't take the state that the snapshot holds.
    #[error("the state machine can't be restored from the snapshot at {at}: {source}")]
    Restore {
        /// Which.
        at: LogId,
        /// Why not.
        source: StateError,
    },
    /// The state machine has applied what is not in the log: it belongs to another log, or this one has lost something.
    #[error("the state machine has applied up to {applied}, which the log up to {last} does not hold")]
    Foreign {
        /// What it has applied.
        applied: LogId,
        /// Where the log ends.
        last: LogId,
    },
    /// What the store holds is not what a node can start from.
    #[error("can't start from what the store holds: {0}")]
    Core(#[from] quorate_core::StartError),
    /// There are others in the group, and no way to reach them.
    #[error("the group has {members} members, but the node was given no transport to reach the others")]
    NoTransport {
        /// How many there are.
        members: usize,
    },
    /// The group is open at this host, or is being opened or removed.
    #[error("group {0} is open at this host, or is being opened or removed")]
    AlreadyOpen(GroupId),
    /// The host has been shut down, or its store has failed.
    #[error("the host has been shut down, or its store has failed")]
    HostClosed,
    /// One of the node's threads can't be started.
    #[error("a thread can't be started: {0}")]
    Thread(#[from] io::Error),
    /// Not within a tokio runtime.
    #[error("a node runs on a tokio runtime with its timers on: start it within one")]
    NoRuntime,
}

impl<S: StateMachine> Builder<S> {
    pub(crate) fn new(id: NodeId) -> Self {
        Self::at(id, GroupId(0), Home::Own { host: HostBuilder::new(id), store: None })
    }

    pub(crate) fn on(host: Host, group: GroupId) -> Self {
        Self::at(host.id(), group, Home::Host(host))
    }

    fn at(id: NodeId, group: GroupId, home: Home) -> Self {
        let mut config = Config::new(id);
        config.group = group;
        Self {
            config,
            home,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            max_pending: DEFAULT_MAX_PENDING,
            snapshots: SnapshotPolicy::default(),
            disk_stall_timeout: None,
            feed_bytes: DEFAULT_FEED_BYTES,
            compare_state_every: None,
            wrong: None,
            machine: PhantomData,
            #[cfg(feature = "record")]
            recording: None,
        }
    }

    /// Which group, of those that are in the store. Default 0, or the one that the host was asked for.
    pub const fn group(mut self, group: GroupId) -> Self {
        self.config.group = group;
        self
    }

    /// Takes all settings at once, from a file maybe: each of them is as in `config` then, whatever was said before; what is
    /// said afterwards counts. Who the node is, and its metrics, stay as they are. If they are not valid,
    /// [`Builder::start`] says so. A node of a [`Host`] must leave `snapshot_limits` out: those are the host's.
    ///
    #[cfg_attr(feature = "serde", doc = "```")]
    #[cfg_attr(not(feature = "serde"), doc = "```ignore")]
    /// # use bytes::Bytes;
    /// # use quorate_core::{Entry, Membership, NodeId, StateMachine};
    /// # use quorate_runtime_tokio::{MemoryStore, Node, NodeConfig};
    /// # struct Latest(Bytes);
    /// # impl StateMachine for Latest {
    /// #     type Command = Bytes;
    /// #     type Reply = Bytes;
    /// #     fn apply(&mut self, entry: &Entry) -> Bytes { std::mem::replace(&mut self.0, entry.payload.clone()) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config: NodeConfig = toml::from_str(r#"
    ///     election_timeout = "500ms"
    ///     state_hash_every = 1000
    ///
    ///     [snapshots]
    ///     bytes = "32MiB"
    ///     min_pause = "1m"
    ///
    ///     [snapshot_limits]
    ///     send_rate = "unlimited"
    /// "#)?;
    /// let store = MemoryStore::new(Membership::of_voters([NodeId(1)]));
    /// let node = Node::builder(NodeId(1)).with_config(config).store(store).start(Latest(Bytes::new())).await?;
    /// node.propose("one").await?;
    /// # node.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_config(mut self, config: NodeConfig) -> Self {
        let valid = config.validate().and_then(|()| match &self.home {
            Home::Host(_) => config.validate_at_host(),
            Home::Own { .. } => Ok(()),
        });
        self.wrong = valid.err();
        config.apply_to(&mut self.config);
        // What is the core's was applied.
        let NodeConfig {
            request_timeout,
            shutdown_timeout,
            max_pending,
            disk_stall_timeout,
            state_hash_every,
            feed_bytes,
            snapshots,
            snapshot_limits,
            ..
        } = config;
        self.request_timeout = request_timeout;
        self.shutdown_timeout = shutdown_timeout;
        self.max_pending = max_pending;
        self.disk_stall_timeout = disk_stall_timeout;
        self.compare_state_every = state_hash_every.and_then(NonZeroU64::new);
        self.feed_bytes = feed_bytes;
        self.snapshots = snapshots;
        self.snapshot_limits(snapshot_limits)
    }

    /// Changes anything in the protocol's configuration. Whose it is, [`Node::builder`] or [`Host::group`] has said.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        let (id, group) = (self.config.id, self.config.group);
        change(&mut self.config);
        (self.config.id, self.config.group) = (id, group);
        self
    }

    /// A follower that hears nothing for one to two of these begins an election; a leader is heard ten times in one.
    /// Default 1 s.
    pub fn election_timeout(mut self, timeout: Duration) -> Self {
        self.config.election_timeout = timeout;
        self.config.heartbeat_interval = timeout / 10;
        self
    }

    /// Serves [`Consistency::Lease`](crate::Consistency::Lease) from a lease. On in the whole cluster, with the same
    /// election timeout, or nowhere; default off. The clock that the lease is measured with counts the time that a machine
    /// is suspended (CLOCK_BOOTTIME on Linux); of a virtual machine that is stopped and resumed with its clocks, no clock
    /// within it can tell.
    pub const fn lease_reads(mut self, on: bool) -> Self {
        self.config.lease_reads = on;
        self
    }

    /// Who campaigns first when a leader is lost: `Config::priority`. Default 255, the highest.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.config.priority = priority;
        self
    }

    /// How long a call may take, with all its attempts, before it ends in an error. Default 5 s.
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long [`Node::shutdown`] may take to let requests under way end, and then to hand leadership over; what has not
    /// ended by then ends as unknown. Default 1 s.
    pub const fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// How many proposals, and how many reads, may be without an outcome; beyond it they are refused as overloaded.
    /// Default 65,536 of each.
    pub const fn max_pending(mut self, count: usize) -> Self {
        self.max_pending = count;
        self
    }

    /// When to take snapshots, and how much of the log to keep then.
    pub fn snapshots(mut self, policy: SnapshotPolicy) -> Self {
        self.snapshots = policy;
        self
    }

    /// How much snapshots may take of the process. A node of a [`Host`] has that one's limits.
    pub fn snapshot_limits(mut self, limits: SnapshotLimits) -> Self {
        self.home = match self.home {
            Home::Own { host, store } => Home::Own { host: host.snapshot_limits(limits), store },
            home @ Home::Host(_) => home,
        };
        self
    }

    /// A leader whose store makes nothing durable for so long, though something waits, hands leadership over, or gives it up.
    /// Default: an election timeout.
    pub const fn disk_stall_timeout(mut self, timeout: Duration) -> Self {
        self.disk_stall_timeout = Some(timeout);
        self
    }

    /// Looks for replicas that have applied the same and are not the same, as a state machine that is not deterministic, or bad
    /// memory, would make them: after every so many entries each replica tells the others what its state
    /// [hashes to](StateMachine::state_hash), in a small request of its own. The first difference with each of the others is
    /// logged as an error, counted ([`DIVERGENCES`](crate::metrics::names::DIVERGENCES)) and told by [`Node::divergences`]. Give all
    /// nodes the same number: they compare where both have hashed. A node of a version that knows no such requests refuses
    /// them, with a warning in its log. Default: never.
    pub const fn compare_state_every(mut self, entries: NonZeroU64) -> Self {
        self.compare_state_every = Some(entries);
        self
    }

    /// So many bytes of what was applied last stay in memory for [feeds](Node::subscribe), all together; nothing as long as
    /// there are none. They are the log's own blocks, not copies. 0: feeds are told from the log. Default 1 MiB.
    pub const fn feed_bytes(mut self, bytes: usize) -> Self {
        self.feed_bytes = bytes;
        self
    }

    /// A group that has had nothing to do for so long falls asleep: it sends no heartbeats, and costs nothing, until
    /// something happens. On in the whole cluster, or nowhere; at least an election timeout, or zero for never, which is the
    /// default. While it sleeps, a leader that is gone is noticed by the transport, not by its silence.
    pub const fn quiesce_after(mut self, idle: Duration) -> Self {
        self.config.quiesce_after = idle;
        self
    }

    /// Where what is durable lies. A node of a [`Host`] has that one's.
    pub fn store(mut self, store: impl Store) -> Self {
        if let Home::Own { store: place, .. } = &mut self.home {
            *place = Some(Box::new(|host| host.start(store)));
        }
        self
    }

    /// How to reach the others. A node that is alone needs none; one of a [`Host`] has that one's.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.home = match self.home {
            Home::Own { host, store } => Home::Own { host: host.transport(transport), store },
            home @ Home::Host(_) => home,
        };
        self
    }

    /// How finely [metrics](crate::metrics) are told apart; a node of a [`Host`] has that one's. Default
    /// [`MetricsLevel::PerHost`].
    pub fn metrics(mut self, level: MetricsLevel) -> Self {
        self.home = match self.home {
            Home::Own { host, store } => Home::Own { host: host.metrics(level), store },
            home @ Home::Host(_) => home,
        };
        self
    }

    /// Takes down all that the node's core is told, to be replayed by `quorate-sim flight`. Whatever becomes of the
    /// recording, the node goes on: see [`Recording`].
    #[cfg(feature = "record")]
    pub fn record(mut self, recording: Recording) -> Self {
        self.recording = Some(recording);
        self
    }

    /// Opens the group and starts the node. `machine` is fresh, or holds what it has
    /// [applied](StateMachine::applied) itself: what the newest snapshot holds is put into it first if need be, then the log
    /// is applied from there.
    ///
    /// # Errors
    /// If the configuration or what the store holds is not valid, or the store or a thread fails.
    pub async fn start(mut self, machine: S) -> Result<Node<S>, StartError> {
        Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong.into());
        }
        self.config.validate()?;
        let stall = self.disk_stall_timeout.unwrap_or(self.config.election_timeout);
        validate_driver(self.request_timeout, self.shutdown_timeout, stall, self.max_pending)?;
        self.snapshots.validate()?;
        let (host, own) = match std::mem::replace(
            &mut self.home,
            Home::Own { host: HostBuilder::new(self.config.id), store: None },
        ) {
            Home::Host(host) => (host, false),
            Home::Own { host, store } => (store.ok_or(StartError::NoStore)?(host)?, true),
        };
        let (alive, mut ended) = roll_call();
        match self.assemble(&host, own, machine, alive).await {
            Ok((shared, driver)) => {
                tokio::spawn(driver.run(ended));
                Ok(Node::new(shared))
            }
            Err(error) => {
                // What was opened is closed when this returns: it may be opened again.
                ended.wait().await;
                if own {
                    host.shutdown().await;
                }
                Err(error)
            }
        }
    }

    async fn assemble(
        self,
        host: &Host,
        own: bool,
        machine: S,
        alive: Alive,
    ) -> Result<(Arc<Shared<S>>, Driver<S>), StartError> {
        let (id, group) = (host.id(), self.config.group);
        let place = Place::take(&host.shared, group).map_err(|why| match why {
            NoPlace::Taken => StartError::AlreadyOpen(group),
            NoPlace::Closed => StartError::HostClosed,
        })?;
        let lanes = host.shared.lanes().ok_or(StartError::HostClosed)?;
        let (requests, feeds) = (self.request_timeout, self.feed_bytes);
        let shared = Shared::new(group, self.limits(), host.shared.clone(), requests, feeds);

        // From here on the group may be open in the store's thread, until this is dropped: also if nobody waits any more for
        // this to end.
        let mut last_word = LastWord::new(shared.clone(), place, own.then(|| host.clone()));
        let (answer, opened) = oneshot::channel();
        let job = host::Job::Open(Opening { group, port: shared.clone(), answer });
        lanes.writes.send(job).map_err(|_| StartError::HostClosed)?;
        // Dropped, if the store has failed before it came to this.
        let Open { mut recovered, snapshot, snapshot_bytes } =
            opened.await.map_err(|_| StartError::HostClosed)??;

        let membership = recovered.memberships.last().map_or(&recovered.base_membership, |(_, last)| last);
        let members = membership.members().len();
        if members > 1 && host.shared.transport.is_none() {
            return Err(StartError::NoTransport { members });
        }
        if !membership.contains(id) {
            warn!(node = %id, %group, ?membership, "this node is no member of its group: it waits to be added");
        }

        let quit = Arc::new(AtomicBool::new(false));
        let base = Snapshot { last: recovered.base, membership: recovered.base_membership.clone() };
        let worker = apply::Applier::new(machine, base, shared.clone(), quit.clone(), alive.clone());
        let name = || format!("quorate-{id}-apply-{group}");
        // Alone, it is worth a thread of its own; of thousands of groups most have nothing to do.
        let usage = if own { Use::Steady } else { Use::Now };
        let jobs = host.shared.runner.lane(name, Kind::Apply, usage, worker)?;
        let (answer, begun) = oneshot::channel();
        let begin = apply::Begin { recovered: recovered.clone(), snapshot, answer };
        // A lane that has just been started takes it.
        drop(jobs.send(apply::Job::Begin(Box::new(begin))));
        let at = begun.await.map_err(|_| StartError::Restore {
            at: recovered.snapshot.as_ref().map_or(recovered.base, |snapshot| snapshot.last),
            source: "the state machine panicked".into(),
        })??;
        recovered.applied = at.last.index;
        shared.applied.store(at.last.index.0, Relaxed);
        if let Some(every) = self.compare_state_every {
            let restored = recovered.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index);
            let origin = Origin { incarnation: recovered.incarnation, restored };
            let (host, meter, found) =
                (host.shared.clone(), shared.meter.clone(), shared.divergences.clone());
            let members = at.membership.members();
            let online = Online::new(group, Stride::new(every), origin, members, host, meter, found);
            shared.online.get_or_init(|| online);
        }
        let snapshots = Keeper::new(self.snapshots, &shared, &lanes, alive, &recovered, snapshot_bytes);
        info!(
            node = %id, %group, members,
            incarnation = %recovered.incarnation, last = %recovered.last, applied = %recovered.applied,
            "starting"
        );

        let stall = self.disk_stall_timeout.unwrap_or(self.config.election_timeout);
        let beat = u64::try_from(self.config.heartbeat_interval.as_micros() / 4).unwrap_or(1).max(1);
        let batch_bytes = self.config.max_append_bytes.min(self.config.max_uncommitted_bytes);
        let now = host.shared.clock.now();
        #[cfg(feature = "record")]
        let origin = self.recording.map(|recording| (recording, self.config.clone(), recovered.clone()));
        let raft = Raft::new(self.config, recovered, now)?;
        // Not before the core has found what was recovered to be in order.
        #[cfg(feature = "record")]
        let recorder = origin.map(|(recording, config, recovered)| {
            let (recorder, tape) = recording.start(&config, &recovered, now, snapshots.alive());
            shared.tape.get_or_init(|| tape);
            recorder
        });
        shared.leadership.send_replace(Leadership::of(&raft));
        shared.progress.send_replace(Progress::of(&raft, at.last.index));

        last_word.open().map_err(|_closed| StartError::HostClosed)?;
        let driver = Driver {
            last_word,
            raft: Recorded::new(
                raft,
                #[cfg(feature = "record")]
                recorder,
            ),
            shared: shared.clone(),
            lanes: Lanes { store: lanes, jobs, quit },
            snapshots,
            batch_bytes,
            drain_timeout: self.shutdown_timeout,
            proposals: Waiters::new(),
            reads: Reads::new(),
            controls: Controls::new(),
            lost: BTreeSet::new(),
            disk: DiskHealth::new(stall),
            beat,
            now,
            handed: at.last.index,
            applied: at.last.index,
            stopping: None,
        };
        Ok((shared, driver))
    }

    const fn limits(&self) -> Limits {
        Limits {
            pending: self.max_pending,
            proposal_bytes: self.config.max_uncommitted_bytes,
            message_bytes: self.config.max_unpersisted_bytes,
        }
    }
}

impl<S> fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let home: &dyn fmt::Debug = match &self.home {
            Home::Host(host) => host,
            Home::Own { host, .. } => host,
        };
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("host", home)
            .field("request_timeout", &self.request_timeout)
            .field("shutdown_timeout", &self.shutdown_timeout)
            .field("max_pending", &self.max_pending)
            .field("snapshots", &self.snapshots)
            .field("disk_stall_timeout", &self.disk_stall_timeout)
            .field("feed_bytes", &self.feed_bytes)
            .field("compare_state_every", &self.compare_state_every)
            .finish_non_exhaustive()
    }
}
