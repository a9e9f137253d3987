//! Which groups are open, and how what arrives finds them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use bytes::Bytes;
use quorate_core::{GroupId, Message, NodeId};
use tracing::debug;

use super::{Port, Shared};
use crate::transport::{BoxFuture, BoxStream, ForwardError, Inbound};

/// The open groups, and those that are being opened or removed; and who is in touch with them.
#[derive(Default)]
pub(crate) struct Table {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<GroupId, Option<Arc<dyn Port>>>,
    /// The nodes with which there is touch: the transport has said so, or they were heard, and it has not lost them since.
    in_touch: BTreeSet<NodeId>,
    /// No group is opened any more.
    closed: bool,
}

impl State {
    fn ports(&self) -> Vec<Arc<dyn Port>> {
        self.groups.values().flatten().cloned().collect()
    }

    fn of(&self, group: GroupId) -> Option<Arc<dyn Port>> {
        self.groups.get(&group).cloned().flatten()
    }
}

impl Table {
    /// Those that are open, in order.
    pub(super) fn open(&self) -> Vec<GroupId> {
        let state = self.read();
        state.groups.iter().filter(|(_, port)| port.is_some()).map(|(group, _)| *group).collect()
    }

    /// The same, with their ports.
    pub(super) fn all(&self) -> Vec<(GroupId, Arc<dyn Port>)> {
        self.read().groups.iter().filter_map(|(group, port)| Some((*group, port.clone()?))).collect()
    }

    /// More than one group is here.
    pub(crate) fn many(&self) -> bool {
        self.read().groups.len() > 1
    }

    /// Opens none any more. Says which are open: no other will be.
    pub(super) fn close(&self) -> Vec<Arc<dyn Port>> {
        let mut state = self.write();
        state.closed = true;
        state.ports()
    }

    /// Those of these nodes with which there is no touch. Who asks is told by its port of what changes from now on.
    pub(crate) fn out_of_touch(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
        let state = self.read();
        nodes.filter(|node| !state.in_touch.contains(node)).collect()
    }

    /// Whom to give what has come from this node. Of transports that say nothing of touch this is how it is known.
    fn heard(&self, from: NodeId, group: GroupId) -> Option<Arc<dyn Port>> {
        let state = self.read();
        let (port, known) = (state.of(group), state.in_touch.contains(&from));
        drop(state);
        if !known {
            self.write().in_touch.insert(from);
        }
        port
    }

    /// There is touch with a node, or none any more: says who is to be told.
    fn touch(&self, peer: NodeId, lost: bool) -> Vec<Arc<dyn Port>> {
        let mut state = self.write();
        if lost {
            state.in_touch.remove(&peer);
        } else {
            state.in_touch.insert(peer);
        }
        state.ports()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a group has no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoPlace {
    /// Somebody has it.
    Taken,
    /// The host is being shut down.
    Closed,
}

/// A group's place at its host: nobody else opens or removes it meanwhile. Given back when dropped.
pub(crate) struct Place {
    host: Weak<Shared>,
    group: GroupId,
}

impl Place {
    /// Takes it, if it is to be had.
    pub(crate) fn take(host: &Arc<Shared>, group: GroupId) -> Result<Self, NoPlace> {
        let mut state = host.groups.write();
        if state.closed {
            return Err(NoPlace::Closed);
        }
        if state.groups.contains_key(&group) {
            return Err(NoPlace::Taken);
        }
        state.groups.insert(group, None);
        Ok(Self { host: Arc::downgrade(host), group })
    }

    /// What arrives for the group goes there from now on, unless the host is being shut down: then whoever does that doesn't
    /// know of this group, and waits for it in vain.
    pub(crate) fn open(&self, port: Arc<dyn Port>) -> Result<(), NoPlace> {
        let host = self.host.upgrade().ok_or(NoPlace::Closed)?;
        let mut state = host.groups.write();
        if state.closed {
            return Err(NoPlace::Closed);
        }
        state.groups.insert(self.group, Some(port));
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(host) = self.host.upgrade() {
            let port = host.groups.write().groups.remove(&self.group);
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
        self.0.upgrade()?.groups.read().of(group)
    }
}

impl Inbound for Entrance {
    fn receive(&self, group: GroupId, from: NodeId, message: Message) {
        let Some(host) = self.0.upgrade() else { return };
        match host.groups.heard(from, group) {
            Some(port) => port.receive(from, message),
            None => {
                host.meters.message_astray();
                debug!(%group, %from, "message dropped: its group is not open here");
            }
        }
    }

    fn unreachable(&self, peer: NodeId) {
        let Some(host) = self.0.upgrade() else { return };
        for port in host.groups.touch(peer, true) {
            port.unreachable(peer);
        }
    }

    fn reachable(&self, peer: NodeId) {
        let Some(host) = self.0.upgrade() else { return };
        for port in host.groups.touch(peer, false) {
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
