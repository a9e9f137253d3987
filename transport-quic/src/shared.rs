//! What the tasks of a transport have in common.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use quorate_core::NodeId;
use quorate_runtime_tokio::Inbound;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{names::ClusterId, options::Limits, peer::Peer, quiet::Quiet, stats::Counter};

pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) limits: Limits,
    pub(crate) client: quinn::ClientConfig,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// How many connections may still be in their handshake.
    pub(crate) handshakes: Arc<Semaphore>,
    /// How many bytes of forwarded requests may still be held.
    pub(crate) memory: Arc<Semaphore>,
    /// About those whose identity is not known.
    pub(crate) warnings: Quiet,
    pub(crate) unroutable: Counter,
    pub(crate) refused: Counter,
    pub(crate) peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Where messages go; none before the start, and none after the stop.
    pub(crate) inbound: Mutex<Option<Arc<dyn Inbound>>>,
}

impl Shared {
    pub(crate) fn inbound(&self) -> Option<Arc<dyn Inbound>> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn all_peers(&self) -> Vec<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The peer of that id; `None` if it is a new one and there is no room for more.
    pub(crate) fn peer_or_new(&self, id: NodeId) -> Option<Arc<Peer>> {
        if let Some(peer) = self.peer(id) {
            return Some(peer);
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let room = peers.len() < self.limits.peers;
        match peers.get(&id) {
            None if !room => None,
            None => Some(peers.entry(id).or_insert(Arc::new(Peer::new(id, None, &self.limits))).clone()),
            Some(peer) => Some(peer.clone()),
        }
    }

    /// Which node listens at an address, by the address book.
    pub(crate) fn node_at(&self, address: SocketAddr) -> Option<NodeId> {
        let same = |at: SocketAddr| {
            (at.ip().to_canonical(), at.port()) == (address.ip().to_canonical(), address.port())
        };
        self.all_peers().iter().find(|peer| peer.address.is_some_and(same)).map(|peer| peer.id)
    }
}
