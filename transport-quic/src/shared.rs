//! What the tasks of a transport have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use quorate_core::NodeId;
use quorate_runtime_tokio::Inbound;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    address::{PeerAddress, Resolver},
    admission::Admission,
    limits::Limits,
    names::ClusterId,
    peer::Peer,
    quiet::Quiet,
    stats::{Counter, Refusals},
    tls::Credentials,
    version::Versions,
};

pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) local: SocketAddr,
    pub(crate) limits: Limits,
    pub(crate) versions: Versions,
    pub(crate) resolver: Resolver,
    pub(crate) credentials: RwLock<Arc<Credentials>>,
    /// Who may speak; `None` for everybody in the cluster.
    pub(crate) allowed: RwLock<Option<BTreeSet<NodeId>>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Connections in their handshake.
    pub(crate) admission: Arc<Admission>,
    /// How many bytes of forwarded requests may still be held.
    pub(crate) memory: Arc<Semaphore>,
    /// About those whose identity is not known.
    pub(crate) warnings: Quiet,
    pub(crate) unroutable: Counter,
    pub(crate) refusals: Refusals,
    pub(crate) outdated: Counter,
    pub(crate) disallowed: Counter,
    pub(crate) peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Where messages go; none before the start, and none after the stop.
    pub(crate) inbound: Mutex<Option<Arc<dyn Inbound>>>,
}

impl Shared {
    pub(crate) fn inbound(&self) -> Option<Arc<dyn Inbound>> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is shown and taken now.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn allows(&self, node: NodeId) -> bool {
        let allowed = self.allowed.read().unwrap_or_else(PoisonError::into_inner);
        allowed.as_ref().is_none_or(|allowed| allowed.contains(&node))
    }

    pub(crate) fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn all_peers(&self) -> Vec<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The peer of that id; `None` if it is a new one and there is no room for more. A node that has come and gone and
    /// is not in the address book makes room for one that comes.
    pub(crate) fn peer_or_new(&self, id: NodeId, address: Option<PeerAddress>) -> Option<Arc<Peer>> {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&id) {
            if address.is_some() {
                peer.set_address(address);
            }
            return Some(peer.clone());
        }
        if peers.len() >= self.limits.peers {
            let gone = peers.iter().find(|(_, peer)| peer.is_idle_stranger()).map(|(&id, _)| id)?;
            if let Some(gone) = peers.remove(&gone) {
                gone.forgotten.cancel();
            }
        }
        let peer = Arc::new(Peer::new(id, address, &self.limits));
        peers.insert(id, peer.clone());
        Some(peer)
    }

    /// Drops the account of a peer that is neither in the address book nor connected.
    pub(crate) fn forget(&self, id: NodeId) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.get(&id).is_some_and(|peer| peer.is_idle_stranger())
            && let Some(gone) = peers.remove(&id)
        {
            gone.forgotten.cancel();
        }
    }

    /// Which node listens at an address, by the address book.
    pub(crate) fn node_at(&self, address: SocketAddr) -> Option<NodeId> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.values().find(|peer| peer.listens_at(address)).map(|peer| peer.id)
    }
}
