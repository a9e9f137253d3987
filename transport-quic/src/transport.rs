//! The transport itself: bound, started, used, stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use quinn::Endpoint;
use quorate_core::{GroupId, Message, NodeId};
use quorate_runtime_tokio::{BoxFuture, BoxStream, ForwardError, Inbound, Transport};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    accept,
    address::PeerAddress,
    admission::Admission,
    audit, bulk,
    code::Code,
    dial, forward,
    limits::LimitsError,
    options::Options,
    peer::Peer,
    pki::{Identity, PkiError},
    quiet::Quiet,
    shared::Shared,
    socket,
    stats::{Counter, Refusals, Stats},
    tls::Credentials,
    version::{KNOWN_VERSIONS, Versions},
};

/// Messages between the nodes of a cluster over QUIC, with mutual TLS. See the crate's documentation.
pub struct QuicTransport {
    pub(crate) shared: Arc<Shared>,
    /// Taken at the stop, so that the port is free again.
    endpoint: Mutex<Option<Endpoint>>,
    runtime: Handle,
}

/// Why a transport can't be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can't be had.
    #[error("can't listen on UDP {listen}: {error}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The certificates can't be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// There are more peers than the limits allow.
    #[error(transparent)]
    TooManyPeers(#[from] TooManyPeers),
    /// Limits that make no sense.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// Transport versions that this release doesn't know, or none.
    #[error(
        "can't speak the transport versions {asked:?}: at least one is needed, out of {KNOWN_VERSIONS:?}"
    )]
    Versions {
        /// What was asked for.
        asked: Vec<u8>,
    },
    /// Called outside a tokio runtime.
    #[error("a transport needs a tokio runtime to run in")]
    NoRuntime,
}

/// There is no room in the address book: see [`Limits::peers`](crate::Limits::peers).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the address book has {found} peers, and the limit is {limit}")]
pub struct TooManyPeers {
    /// How many there are, or would be.
    pub found: usize,
    /// How many are allowed.
    pub limit: usize,
}

/// How many warnings about unknown nodes, and in what time.
const WARNINGS: (u32, Duration) = (10, Duration::from_secs(10));

/// How long to wait at the stop for the peers to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);

impl QuicTransport {
    /// Takes the address. Nothing is taken in or sent before [`Transport::start`]. Must be called within a tokio runtime,
    /// which the transport's tasks then run on.
    ///
    /// # Errors
    /// If the address can't be had, the identity is not this node's or is one that no peer would take (expired, another
    /// authority's, for one side of a connection only), or there is no runtime.
    pub fn bind(options: Options) -> Result<Self, BindError> {
        let runtime = Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let Options { id, cluster, listen, peers, resolver, allow, versions, identity, limits } = options;
        limits.check()?;
        let versions = Versions::new(&versions).ok_or(BindError::Versions { asked: versions })?;
        let (credentials, server) = Credentials::new(&identity, (cluster, id), &limits, &versions)?;
        let peers: BTreeMap<_, _> = peers
            .into_iter()
            .filter(|&(peer, _)| peer != id)
            .map(|(peer, address)| (peer, Arc::new(Peer::new(peer, Some(address), &limits))))
            .collect();
        if peers.len() > limits.peers {
            return Err(TooManyPeers { found: peers.len(), limit: limits.peers }.into());
        }
        let failed = |error| BindError::Listen { listen, error };
        let endpoint = socket::open(listen, limits.socket_buffer, &identity, server).map_err(failed)?;
        let local = endpoint.local_addr().map_err(failed)?;
        let shared = Shared {
            id,
            cluster,
            local,
            versions,
            resolver,
            credentials: RwLock::new(Arc::new(credentials)),
            allowed: RwLock::new(allow),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            admission: Admission::new(limits.handshakes),
            memory: Arc::new(Semaphore::new(limits.forward_memory.min(Semaphore::MAX_PERMITS))),
            warnings: Quiet::new(WARNINGS.0, WARNINGS.1),
            unroutable: Counter::default(),
            refusals: Refusals::default(),
            outdated: Counter::default(),
            disallowed: Counter::default(),
            peers: RwLock::new(peers),
            inbound: Mutex::new(None),
            limits,
        };
        Ok(Self { shared: Arc::new(shared), endpoint: Mutex::new(Some(endpoint)), runtime })
    }

    /// Where it listens: the address asked for, with its port if that was 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// Shows another certificate from now on, and takes those that its authorities have signed; nothing is restarted. It is
    /// for all handshakes that begin now. Connections stay, unless their peer's certificate would not be taken any more:
    /// these are closed, and made again at once.
    ///
    /// To change the cluster's authority, give every node both authorities first; then, one by one, a certificate of the new
    /// one; then take the old authority away. [`Identity::load`] reads the files.
    ///
    /// # Errors
    /// As [`QuicTransport::bind`]: then what was before is in force.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), PkiError> {
        let shared = &self.shared;
        let who = (shared.cluster, shared.id);
        let (credentials, server) = Credentials::new(identity, who, &shared.limits, &shared.versions)?;
        {
            // One change at a time: what is shown and what is taken belong together.
            let endpoint = self.lock();
            *shared.credentials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
            if let Some(endpoint) = &*endpoint {
                endpoint.set_server_config(Some(server));
            }
        }
        info!(node = %shared.id, "this node's certificate and authorities are replaced");
        audit::all(shared);
        Ok(())
    }

    /// Says which nodes may speak with this one, of those that have a certificate of the cluster; `None` for all. Connections
    /// with others are closed, and refused from now on.
    pub fn set_allowed(&self, allowed: Option<BTreeSet<NodeId>>) {
        *self.shared.allowed.write().unwrap_or_else(PoisonError::into_inner) = allowed;
        audit::all(&self.shared);
    }

    /// Adds a peer to the address book, or moves one that is in it. If there is no connection with it, it is dialled at once.
    /// One that there is stays, wherever it leads, until it ends or the peer dials. This node itself is left out.
    ///
    /// # Errors
    /// If it is a new one, and there are as many as [`Limits::peers`](crate::Limits::peers) allows.
    pub fn set_peer(&self, peer: NodeId, address: impl Into<PeerAddress>) -> Result<(), TooManyPeers> {
        let shared = &self.shared;
        if peer == shared.id {
            return Ok(());
        }
        // Not while the transport starts or stops.
        let endpoint = self.lock();
        let limit = shared.limits.peers;
        let full = TooManyPeers { found: limit.saturating_add(1), limit };
        let peer = shared.peer_or_new(peer, Some(address.into())).ok_or(full)?;
        if let Some(endpoint) = endpoint.as_ref().filter(|_| shared.inbound().is_some()) {
            let _within = self.runtime.enter();
            dial::start(shared, endpoint, &peer);
        }
        Ok(())
    }

    /// Takes a peer off the address book: it is not dialled any more. A connection that there is stays until it ends, so that
    /// a node that is removed from the cluster can hear of it; and if it dials, it is answered. To keep it out, see
    /// [`QuicTransport::set_allowed`].
    pub fn remove_peer(&self, peer: NodeId) {
        if let Some(known) = self.shared.peer(peer) {
            known.set_address(None);
            self.shared.forget(peer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Endpoint>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been sent, received and dropped.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let endpoint = self.lock();
        Stats {
            peers: shared.all_peers().iter().map(|peer| peer.stats()).collect(),
            open_connections: endpoint.as_ref().map_or(0, Endpoint::open_connections),
            handshakes: shared.admission.under_way(),
            unroutable: shared.unroutable.count(),
            refused: shared.refusals.stats(),
            outdated: shared.outdated.count(),
            disallowed: shared.disallowed.count(),
        }
    }

    fn take_endpoint(&self) -> Option<Endpoint> {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.inbound.lock().unwrap_or_else(PoisonError::into_inner).take();
        let endpoint = self.lock().take();
        endpoint.inspect(|endpoint| endpoint.close(Code::Shutdown.number(), b"the node stops"))
    }
}

impl Transport for QuicTransport {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        let shared = &self.shared;
        let endpoint = self.lock();
        let Some(endpoint) = &*endpoint else { return };
        let before = shared.inbound.lock().unwrap_or_else(PoisonError::into_inner).replace(inbound);
        if before.is_some() {
            return;
        }
        info!(node = %shared.id, cluster = %shared.cluster, address = %shared.local, "listening for peers");
        let _within = self.runtime.enter();
        shared.tasks.spawn(accept::accept(shared.clone(), endpoint.clone()));
        shared.tasks.spawn(audit::keep(shared.clone()));
        for peer in shared.all_peers() {
            dial::start(shared, endpoint, &peer);
        }
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        match self.shared.peer(to) {
            Some(peer) => peer.send(group, message),
            None => self.shared.unroutable.add(1),
        }
    }

    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            match shared.peer(to) {
                Some(peer) => forward::ask(&shared, &peer, group, request).await,
                None => Err(ForwardError::NotDelivered { to, why: "its address is not known".into() }),
            }
        })
    }

    fn open(&self, group: GroupId, to: NodeId) -> BoxFuture<Result<BoxStream, ForwardError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            match shared.peer(to) {
                Some(peer) => bulk::open(&shared, &peer, group).await,
                None => Err(ForwardError::NotDelivered { to, why: "its address is not known".into() }),
            }
        })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        let endpoint = self.take_endpoint();
        let tasks = self.shared.tasks.clone();
        Box::pin(async move {
            tasks.wait().await;
            if let Some(endpoint) = endpoint {
                // Only politeness: a peer that doesn't hear of it will notice.
                let _heard = timeout(FAREWELL, endpoint.wait_idle()).await.is_ok();
            }
        })
    }
}

/// Stops at once, without waiting for anybody.
impl Drop for QuicTransport {
    fn drop(&mut self) {
        drop(self.take_endpoint());
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport")
            .field("id", &self.shared.id)
            .field("cluster", &self.shared.cluster)
            .field("local", &self.shared.local)
            .finish_non_exhaustive()
    }
}
