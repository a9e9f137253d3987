//! Which groups are open, and how what arrives finds them.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use bytes::Bytes;
use quorate_core::{GroupId, Message, NodeId};
use tracing::debug;

use super::{Port, Shared};
use crate::transport::{BoxFuture, BoxStream, ForwardError, Inbound};

/// The open groups, and those that are being opened or removed.
#[derive(Default)]
pub(crate) struct Table {
    groups: RwLock<BTreeMap<GroupId, Option<Arc<dyn Port>>>>,
}

impl Table {
    /// Those that are open, in order.
    pub(super) fn open(&self) -> Vec<GroupId> {
        self.read().iter().filter(|(_, port)| port.is_some()).map(|(group, _)| *group).collect()
    }

    pub(super) fn ports(&self) -> Vec<Arc<dyn Port>> {
        self.read().values().flatten().cloned().collect()
    }

    /// The same, with their groups.
    pub(super) fn all(&self) -> Vec<(GroupId, Arc<dyn Port>)> {
        self.read().iter().filter_map(|(group, port)| Some((*group, port.clone()?))).collect()
    }

    /// More than one group is here.
    pub(crate) fn many(&self) -> bool {
        self.read().len() > 1
    }

    fn of(&self, group: GroupId) -> Option<Arc<dyn Port>> {
        self.read().get(&group).cloned().flatten()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<GroupId, Option<Arc<dyn Port>>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<GroupId, Option<Arc<dyn Port>>>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group's place at its host: nobody else opens or removes it meanwhile. Given back when dropped.
pub(crate) struct Place {
    host: Weak<Shared>,
    group: GroupId,
}

impl Place {
    /// Takes it; `None` if somebody has it.
    pub(crate) fn take(host: &Arc<Shared>, group: GroupId) -> Option<Self> {
        let mut groups = host.groups.write();
        if groups.contains_key(&group) {
            return None;
        }
        groups.insert(group, None);
        Some(Self { host: Arc::downgrade(host), group })
    }

    /// What arrives for the group goes there from now on.
    pub(crate) fn open(&self, port: Arc<dyn Port>) {
        if let Some(host) = self.host.upgrade() {
            host.groups.write().insert(self.group, Some(port));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(host) = self.host.upgrade() {
            let port = host.groups.write().remove(&self.group);
            // Outside of the lock: it may be the last that knows the group.
            drop(port);
        }
    }
}

/// Where the transport delivers, for all groups.
pub(super) struct Entrance(Weak<Shared>);

impl Entrance {
    pub(super) fn new(host: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(host))
    }

    fn port(&self, group: GroupId) -> Option<Arc<dyn Port>> {
        self.0.upgrade()?.groups.of(group)
    }
}

impl Inbound for Entrance {
    fn receive(&self, group: GroupId, from: NodeId, message: Message) {
        let Some(host) = self.0.upgrade() else { return };
        match host.groups.of(group) {
            Some(port) => port.receive(from, message),
            None => {
                host.meters.message_astray();
                debug!(%group, %from, "message dropped: its group is not open here");
            }
        }
    }

    fn unreachable(&self, peer: NodeId) {
        let Some(host) = self.0.upgrade() else { return };
        for port in host.groups.ports() {
            port.unreachable(peer);
        }
    }

    fn reachable(&self, peer: NodeId) {
        let Some(host) = self.0.upgrade() else { return };
        for port in host.groups.ports() {
            port.reachable(peer);
        }
    }

    fn forwarded(
        &self,
        group: GroupId,
        from: NodeId,
        request: Bytes,
    ) -> BoxFuture<Result<Bytes, ForwardError>> {
        if let Some(port) = self.port(group) {
            return port.forwarded(from, request);
        }
        let to = self.0.upgrade().map_or(NodeId(0), |host| host.id);
        let why = format!("group {group} is not open on that node");
        Box::pin(async move { Err(ForwardError::NotDelivered { to, why }) })
    }

    fn opened(&self, group: GroupId, from: NodeId, stream: BoxStream) {
        match self.port(group) {
            Some(port) => port.opened(from, stream),
            None => debug!(%group, %from, "stream dropped: its group is not open here"),
        }
    }
}
