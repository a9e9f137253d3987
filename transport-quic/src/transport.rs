//! The transport itself: bound, started, used, stopped.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use quinn::Endpoint;
use quorate_core::{GroupId, Message, NodeId};
use quorate_runtime_tokio::{BoxFuture, ForwardError, Inbound, Transport};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    accept,
    code::Code,
    dial, forward,
    options::Options,
    peer::Peer,
    pki::PkiError,
    quiet::Quiet,
    shared::Shared,
    socket,
    stats::{Counter, Stats},
    tls,
};

/// Messages between the nodes of a cluster over QUIC, with mutual TLS. See the crate's documentation.
pub struct QuicTransport {
    shared: Arc<Shared>,
    /// Taken at the stop, so that the port is free again.
    endpoint: Mutex<Option<Endpoint>>,
    local: SocketAddr,
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
    #[error("the address book has {found} peers, and the limit is {limit}")]
    TooManyPeers {
        /// How many.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Called outside a tokio runtime.
    #[error("a transport needs a tokio runtime to run in")]
    NoRuntime,
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
    /// authority's), or there is no runtime.
    pub fn bind(options: Options) -> Result<Self, BindError> {
        let runtime = Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let Options { id, cluster, listen, peers, identity, limits } = options;
        tls::check(&identity, cluster, id)?;
        let client = tls::client_config(&identity, &limits)?;
        let server = tls::server_config(&identity, &limits)?;
        let peers: BTreeMap<_, _> = peers
            .into_iter()
            .filter(|&(peer, _)| peer != id)
            .map(|(peer, address)| (peer, Arc::new(Peer::new(peer, Some(address), &limits))))
            .collect();
        if peers.len() > limits.peers {
            return Err(BindError::TooManyPeers { found: peers.len(), limit: limits.peers });
        }
        let failed = |error| BindError::Listen { listen, error };
        let endpoint = socket::open(listen, limits.socket_buffer, &identity, server).map_err(failed)?;
        let local = endpoint.local_addr().map_err(failed)?;
        let shared = Shared {
            id,
            cluster,
            client,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            memory: Arc::new(Semaphore::new(limits.forward_memory.min(Semaphore::MAX_PERMITS))),
            warnings: Quiet::new(WARNINGS.0, WARNINGS.1),
            unroutable: Counter::default(),
            refused: Counter::default(),
            peers: RwLock::new(peers),
            inbound: Mutex::new(None),
            limits,
        };
        Ok(Self { shared: Arc::new(shared), endpoint: Mutex::new(Some(endpoint)), local, runtime })
    }

    /// Where it listens: the address asked for, with its port if that was 0.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What has been sent, received and dropped.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        Stats {
            peers: self.shared.all_peers().iter().map(|peer| peer.stats()).collect(),
            open_connections: endpoint.as_ref().map_or(0, Endpoint::open_connections),
            unroutable: self.shared.unroutable.count(),
            refused: self.shared.refused.count(),
        }
    }

    fn take_endpoint(&self) -> Option<Endpoint> {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.inbound.lock().unwrap_or_else(PoisonError::into_inner).take();
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).take();
        endpoint.inspect(|endpoint| endpoint.close(Code::Shutdown.number(), b"the node stops"))
    }
}

impl Transport for QuicTransport {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        let shared = &self.shared;
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(endpoint) = &*endpoint else { return };
        let before = shared.inbound.lock().unwrap_or_else(PoisonError::into_inner).replace(inbound);
        if before.is_some() {
            return;
        }
        info!(node = %shared.id, cluster = %shared.cluster, address = %self.local, "listening for peers");
        shared.tasks.spawn_on(accept::accept(shared.clone(), endpoint.clone()), &self.runtime);
        for peer in shared.all_peers() {
            let dialling = dial::keep_connected(shared.clone(), endpoint.clone(), peer);
            shared.tasks.spawn_on(dialling, &self.runtime);
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
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
