//! A network in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use quorate_core::{GroupId, Message, NodeId};

use crate::transport::{BoxFuture, BoxStream, ForwardError, Inbound, Transport};

/// Connects nodes within one process, until links are [cut](MemoryNetwork::cut). What is sent is at its goal at once: there are
/// no queues but the nodes' own inboxes.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<NodeId, Arc<dyn Inbound>>,
    /// From, to.
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Inner {
    /// Those who notice that `id` is gone: a cut link tells nothing.
    fn in_touch_with(&self, id: NodeId) -> impl Iterator<Item = (NodeId, &Arc<dyn Inbound>)> {
        let cut = move |other: NodeId| self.cut.contains(&(id, other));
        let others = self.nodes.iter().map(|(other, node)| (*other, node));
        others.filter(move |(other, _)| *other != id && !cut(*other))
    }
}

impl MemoryNetwork {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of node `id`. One that is started later for the same node takes its place.
    #[must_use]
    pub fn transport(&self, id: NodeId) -> Arc<dyn Transport> {
        Arc::new(Endpoint { id, network: self.clone(), started: Mutex::new(None) })
    }

    /// Nothing gets from one of the two to the other any more.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.lock().cut.extend([(a, b), (b, a)]);
    }

    /// Nothing gets from `from` to `to` any more; the other way is as it was.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    /// Cuts `id` off from everyone who has started.
    pub fn isolate(&self, id: NodeId) {
        let mut inner = self.lock();
        let others: Vec<NodeId> = inner.nodes.keys().copied().filter(|other| *other != id).collect();
        inner.cut.extend(others.into_iter().flat_map(|other| [(id, other), (other, id)]));
    }

    /// Mends all links.
    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    fn route(&self, from: NodeId, to: NodeId) -> Result<Arc<dyn Inbound>, &'static str> {
        let inner = self.lock();
        if inner.cut.contains(&(from, to)) {
            return Err("the link is cut");
        }
        inner.nodes.get(&to).cloned().ok_or("it isn't running")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("MemoryNetwork")
            .field("nodes", &inner.nodes.keys().collect::<Vec<_>>())
            .field("cut", &inner.cut)
            .finish()
    }
}

#[derive(Debug)]
struct Endpoint {
    id: NodeId,
    network: MemoryNetwork,
    started: Mutex<Option<Started>>,
}

/// What an endpoint was started with: it takes only that off the network again.
struct Started(Arc<dyn Inbound>);

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Started")
    }
}

impl Transport for Endpoint {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(Started(inbound.clone()));
        let mut inner = self.network.lock();
        inner.nodes.insert(self.id, inbound.clone());
        let others: Vec<_> = inner.in_touch_with(self.id).map(|(id, other)| (id, other.clone())).collect();
        drop(inner);
        for (id, other) in others {
            other.reachable(self.id);
            inbound.reachable(id);
        }
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        if let Ok(inbound) = self.network.route(self.id, to) {
            inbound.receive(group, self.id, message);
        }
    }

    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        let (network, from) = (self.network.clone(), self.id);
        Box::pin(async move {
            let inbound = network
                .route(from, to)
                .map_err(|why| ForwardError::NotDelivered { to, why: why.to_owned() })?;
            let answer = inbound.forwarded(group, from, request).await?;
            match network.route(to, from) {
                Ok(_) => Ok(answer),
                Err(why) => Err(ForwardError::Unknown { to, why: why.to_owned() }),
            }
        })
    }

    fn open(&self, group: GroupId, to: NodeId) -> BoxFuture<Result<BoxStream, ForwardError>> {
        let inbound = self.network.route(self.id, to);
        let from = self.id;
        Box::pin(async move {
            let inbound = inbound.map_err(|why| ForwardError::NotDelivered { to, why: why.to_owned() })?;
            let (mine, theirs) = tokio::io::duplex(64 << 10);
            inbound.opened(group, from, Box::new(theirs));
            Ok(Box::new(mine) as BoxStream)
        })
    }

    fn shutdown(&self) -> BoxFuture<()> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Started(mine)) = started {
            let mut inner = self.network.lock();
            if inner.nodes.get(&self.id).is_some_and(|current| Arc::ptr_eq(current, &mine)) {
                inner.nodes.remove(&self.id);
                let others: Vec<_> = inner.in_touch_with(self.id).map(|(_, other)| other.clone()).collect();
                drop(inner);
                for other in others {
                    other.unreachable(self.id);
                }
            }
        }
        Box::pin(async {})
    }
}
