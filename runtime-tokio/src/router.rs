//! Many groups, one transport.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use quorate_core::{GroupId, Message, NodeId};
use tracing::debug;

use crate::transport::{BoxFuture, BoxStream, ForwardError, Inbound, Transport};

/// Lets the nodes of several groups share one transport, each through an [endpoint](Router::endpoint) of its own; what
/// arrives is handed to the node of its group.
///
/// The transport starts with the first of them. It outlives them all: [`Router::shutdown`] ends it.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Arc<dyn Transport>,
    started: AtomicBool,
    groups: RwLock<BTreeMap<GroupId, Arc<dyn Inbound>>>,
}

impl Router {
    /// A router over `transport`, which nobody else starts.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        let started = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { transport, started, groups: RwLock::default() }) }
    }

    /// What the node of `group` is given as its transport. One that is started later for the same group takes its place.
    #[must_use]
    pub fn endpoint(&self, group: GroupId) -> Arc<dyn Transport> {
        Arc::new(Endpoint { group, router: self.inner.clone(), own: Mutex::default() })
    }

    /// Shuts the transport down, for all groups.
    pub async fn shutdown(&self) {
        self.inner.write().clear();
        self.inner.transport.shutdown().await;
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<GroupId> = self.inner.read().keys().copied().collect();
        f.debug_struct("Router").field("transport", &self.inner.transport).field("groups", &groups).finish()
    }
}

impl Inner {
    fn of(&self, group: GroupId) -> Option<Arc<dyn Inbound>> {
        self.read().get(&group).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<GroupId, Arc<dyn Inbound>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<GroupId, Arc<dyn Inbound>>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way in, for all groups.
struct Dispatch(Arc<Inner>);

impl Inbound for Dispatch {
    fn receive(&self, group: GroupId, from: NodeId, message: Message) {
        match self.0.of(group) {
            Some(inbound) => inbound.receive(group, from, message),
            None => debug!(%group, %from, "message dropped: its group is not here"),
        }
    }

    fn unreachable(&self, peer: NodeId) {
        let groups: Vec<_> = self.0.read().values().cloned().collect();
        for inbound in groups {
            inbound.unreachable(peer);
        }
    }

    fn forwarded(
        &self,
        group: GroupId,
        from: NodeId,
        request: Bytes,
    ) -> BoxFuture<Result<Bytes, ForwardError>> {
        match self.0.of(group) {
            Some(inbound) => inbound.forwarded(group, from, request),
            None => Box::pin(async move {
                let why = format!("group {group} is not on that node");
                Err(ForwardError::NotDelivered { to: NodeId(0), why })
            }),
        }
    }

    fn opened(&self, group: GroupId, from: NodeId, stream: BoxStream) {
        match self.0.of(group) {
            Some(inbound) => inbound.opened(group, from, stream),
            None => debug!(%group, %from, "stream dropped: its group is not here"),
        }
    }
}

/// The way out, for one group.
struct Endpoint {
    group: GroupId,
    router: Arc<Inner>,
    /// The node that was started by this endpoint: another may have taken its place since.
    own: Mutex<Option<Arc<dyn Inbound>>>,
}

impl Transport for Endpoint {
    fn start(&self, inbound: Arc<dyn Inbound>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(inbound.clone());
        self.router.write().insert(self.group, inbound);
        if !self.router.started.swap(true, SeqCst) {
            self.router.transport.start(Arc::new(Dispatch(self.router.clone())));
        }
    }

    fn send(&self, group: GroupId, to: NodeId, message: Message) {
        self.router.transport.send(group, to, message);
    }

    fn forward(&self, group: GroupId, to: NodeId, request: Bytes) -> BoxFuture<Result<Bytes, ForwardError>> {
        self.router.transport.forward(group, to, request)
    }

    fn open(&self, group: GroupId, to: NodeId) -> BoxFuture<Result<BoxStream, ForwardError>> {
        self.router.transport.open(group, to)
    }

    fn shutdown(&self) -> BoxFuture<()> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut groups = self.router.write();
        if let (Some(own), Some(current)) = (own, groups.get(&self.group))
            && Arc::ptr_eq(&own, current)
        {
            groups.remove(&self.group);
        }
        drop(groups);
        Box::pin(async {})
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("group", &self.group)
            .field("transport", &self.router.transport)
            .finish_non_exhaustive()
    }
}
