//! Puts a node together.

use std::{
    collections::BTreeSet,
    fmt, io,
    marker::PhantomData,
    sync::{Arc, atomic::AtomicBool, mpsc::channel},
    time::Duration,
};

use quorate_core::{
    Config, ConfigError, GroupId, LogId, NodeId, Raft, Snapshot, StateError, StateMachine, Store,
};
use tokio::{runtime::Handle, sync::oneshot};
use tracing::{info, warn};

#[cfg(feature = "record")]
use crate::record::Recording;
use crate::{
    apply, clock,
    control::Controls,
    driver::{Driver, Lanes, LastWord, Reads},
    inbox::Limits,
    node::Node,
    recorded::Recorded,
    shared::{Entrance, Shared},
    status::Leadership,
    storage,
    thread::{Alive, roll_call, spawn},
    transport::Transport,
    waiters::Waiters,
};

/// A node to be: made by [`Node::builder`], ended by [`Builder::start`]. Only the store has no default.
#[must_use = "a builder starts nothing before `start` is called"]
pub struct Builder<S, St = ()> {
    config: Config,
    store: St,
    transport: Option<Arc<dyn Transport>>,
    request_timeout: Duration,
    shutdown_timeout: Duration,
    max_pending: usize,
    machine: PhantomData<fn(S)>,
    #[cfg(feature = "record")]
    recording: Option<Recording>,
}

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error("the configuration: {0}")]
    Config(#[from] ConfigError),
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
    /// What the store holds is not what a node can start from.
    #[error("can't start from what the store holds: {0}")]
    Core(#[from] quorate_core::StartError),
    /// There are others in the group, and no way to reach them.
    #[error("the group has {members} members, but the node was given no transport to reach the others")]
    NoTransport {
        /// How many there are.
        members: usize,
    },
    /// One of the node's threads can't be started.
    #[error("a thread can't be started: {0}")]
    Thread(#[from] io::Error),
    /// Not within a tokio runtime.
    #[error("a node runs on a tokio runtime with its timers on: start it within one")]
    NoRuntime,
}

impl<S: StateMachine> Builder<S> {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            config: Config::new(id),
            store: (),
            transport: None,
            request_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(1),
            max_pending: 65_536,
            machine: PhantomData,
            #[cfg(feature = "record")]
            recording: None,
        }
    }
}

impl<S: StateMachine, St> Builder<S, St> {
    /// Which group, of those that the process hosts. Default 0.
    pub const fn group(mut self, group: GroupId) -> Self {
        self.config.group = group;
        self
    }

    /// Changes anything in the protocol's configuration.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
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

    /// Where what is durable lies.
    pub fn store<T: Store>(self, store: T) -> Builder<S, T> {
        Builder {
            config: self.config,
            store,
            transport: self.transport,
            request_timeout: self.request_timeout,
            shutdown_timeout: self.shutdown_timeout,
            max_pending: self.max_pending,
            machine: self.machine,
            #[cfg(feature = "record")]
            recording: self.recording,
        }
    }

    /// Takes down all that the node's core is told, to be replayed by `quorate-sim flight`. Whatever becomes of the
    /// recording, the node goes on: see [`Recording`].
    #[cfg(feature = "record")]
    pub fn record(mut self, recording: Recording) -> Self {
        self.recording = Some(recording);
        self
    }

    /// How to reach the others. A node that is alone needs none.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }
}

impl<S: StateMachine, St: Store> Builder<S, St> {
    /// Opens the store and starts the node. `machine` is fresh: what the newest snapshot holds is put into it first, then
    /// the log is applied from there.
    ///
    /// # Errors
    /// If the configuration or what the store holds is not valid, or the store or a thread fails.
    pub async fn start(self, machine: S) -> Result<Node<S>, StartError> {
        Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        self.config.validate()?;
        let (alive, mut ended) = roll_call();
        match self.assemble(machine, alive).await {
            Ok((shared, driver)) => {
                // Before the driver runs: nothing is sent before the transport has started.
                if let Some(transport) = &shared.transport {
                    transport.start(Arc::new(Entrance(shared.clone())));
                }
                tokio::spawn(driver.run(ended));
                Ok(Node::new(shared))
            }
            Err(error) => {
                // The store is closed when this returns: it may be opened again.
                ended.wait().await;
                Err(error)
            }
        }
    }

    async fn assemble(self, machine: S, alive: Alive) -> Result<(Arc<Shared<S>>, Driver<S>), StartError> {
        let (id, group) = (self.config.id, self.config.group);
        let shared = Arc::new(Shared::new(id, group, self.limits(), self.transport, self.request_timeout));

        let (writes, queue) = channel();
        let (opened, store_opened) = oneshot::channel();
        spawn(id, "store", &alive, {
            let (shared, alive, store) = (shared.clone(), alive.clone(), self.store);
            move || storage::run(store, group, &queue, opened, &shared, &alive)
        })?;
        let storage::Open { recovered, loads, snapshot } =
            store_opened.await.map_err(|_| StartError::StorePanicked)??;

        let membership = recovered.memberships.last().map_or(&recovered.base_membership, |(_, last)| last);
        let members = membership.members().len();
        if members > 1 && shared.transport.is_none() {
            return Err(StartError::NoTransport { members });
        }
        if !membership.contains(id) {
            warn!(node = %id, %group, ?membership, "this node is no member of its group: it waits to be added");
        }
        info!(
            node = %id, %group, members,
            incarnation = %recovered.incarnation, last = %recovered.last, applied = %recovered.applied,
            "starting"
        );

        let (jobs, queue) = channel();
        let quit = Arc::new(AtomicBool::new(false));
        let (restored, state_restored) = oneshot::channel();
        // Without a snapshot the log is there from its beginning, which is its base.
        let begin = || Snapshot { last: recovered.base, membership: recovered.base_membership.clone() };
        let start = recovered.snapshot.clone().unwrap_or_else(begin);
        let at = start.last;
        spawn(id, "apply", &alive, {
            let (shared, quit, mut machine) = (shared.clone(), quit.clone(), machine);
            move || {
                let result = apply::restore(&mut machine, snapshot);
                let failed = result.is_err();
                if restored.send(result).is_ok() && !failed {
                    apply::run(machine, start, &queue, &quit, &shared);
                }
            }
        })?;
        let result = state_restored.await.unwrap_or_else(|_| Err("the state machine panicked".into()));
        result.map_err(|source| StartError::Restore { at, source })?;

        let batch_bytes = self.config.max_append_bytes.min(self.config.max_uncommitted_bytes);
        let now = clock::now();
        #[cfg(feature = "record")]
        let origin = self.recording.map(|recording| (recording, self.config.clone(), recovered.clone()));
        let raft = Raft::new(self.config, recovered, now)?;
        // Not before the core has found what was recovered to be in order.
        #[cfg(feature = "record")]
        let recorder = origin.map(|(recording, config, recovered)| {
            let (recorder, tape) = recording.start(&config, &recovered, now, &alive);
            shared.tape.get_or_init(|| tape);
            recorder
        });
        shared.leadership.send_replace(Leadership {
            term: raft.term(),
            leader: raft.leader(),
            role: raft.role(),
        });

        let driver = Driver {
            last_word: LastWord::new(shared.clone()),
            raft: Recorded::new(
                raft,
                #[cfg(feature = "record")]
                recorder,
            ),
            shared: shared.clone(),
            lanes: Lanes { writes, loads, jobs, quit },
            batch_bytes,
            drain_timeout: self.shutdown_timeout,
            proposals: Waiters::new(),
            reads: Reads::new(),
            controls: Controls::new(),
            lost: BTreeSet::new(),
            now,
            handed: at.index,
            applied: at.index,
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

impl<S, St> fmt::Debug for Builder<S, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("transport", &self.transport)
            .field("request_timeout", &self.request_timeout)
            .field("shutdown_timeout", &self.shutdown_timeout)
            .field("max_pending", &self.max_pending)
            .finish_non_exhaustive()
    }
}
